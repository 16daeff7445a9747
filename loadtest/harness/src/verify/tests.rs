use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const RUN: u64 = 7;

fn stamp(sequence: u64) -> Stamp {
    Stamp { run: RUN, producer: 1, partition: 0, sequence, due_us: 0, doomed: false, key: None }
}

/// What a consumer finds that reads `stamps` in this order, after `acknowledged` were.
fn read(stamps: &[Stamp], acknowledged: u64) -> Findings {
    let mut verifier = Verifier::new(RUN, true);
    for (offset, stamp) in stamps.iter().enumerate() {
        let mut value = [0; crate::stamp::BYTES];
        stamp.write(&mut value);
        verifier.take(None, 0, offset as i64, None, Some(&value));
    }
    let written = Written { producer: 1, partition: 0, acknowledged, sent: 100 };
    verifier.finish(&[written], &[0], true)
}

fn sequences(sequences: &[u64], acknowledged: u64) -> Findings {
    read(&sequences.iter().copied().map(stamp).collect::<Vec<_>>(), acknowledged)
}

fn counts(findings: &Findings) -> [u64; 6] {
    let Findings { lost, duplicated, reordered, foreign, damaged, aborted_read, .. } = findings;
    [*lost, *duplicated, *reordered, *foreign, *damaged, *aborted_read]
}

#[test]
fn what_was_written_in_order_is_right() {
    assert!(sequences(&[0, 1, 2, 3], 4).is_clean());
    // Sent and not acknowledged: it may be there or not.
    assert!(sequences(&[0, 1, 2, 3], 2).is_clean());
    assert!(sequences(&[], 0).is_clean());
}

#[test]
fn each_fault_is_found_and_named() {
    for (given, acknowledged, expected) in [
        (&[0, 1, 3][..], 4, [1, 0, 0, 0, 0, 0]),
        (&[0, 1], 4, [2, 0, 0, 0, 0, 0]),
        (&[], 3, [3, 0, 0, 0, 0, 0]),
        (&[0, 1, 1, 2], 3, [0, 1, 0, 0, 0, 0]),
        (&[0, 1, 2, 0, 1, 2], 3, [0, 3, 0, 0, 0, 0]),
        (&[1, 0, 2], 3, [0, 0, 1, 0, 0, 0]),
        (&[0, 5, 3, 1, 2, 4], 6, [0, 0, 4, 0, 0, 0]),
        (&[0, 5, 3, 3], 6, [3, 1, 1, 0, 0, 0]),
    ] {
        let findings = sequences(given, acknowledged);
        assert_eq!(counts(&findings), expected, "{given:?}: {findings:?}");
        assert!(!findings.told.is_empty(), "{given:?}");
    }
    // Not acknowledged, but what came after it is there.
    assert_eq!(counts(&sequences(&[0, 1, 3], 1)), [1, 0, 0, 0, 0, 0]);
    // A sequence that was never sent.
    assert!(sequences(&(0..101).collect::<Vec<_>>(), 100).foreign == 1);
}

#[test]
fn foreign_damaged_and_aborted_records_are_found() {
    let foreign = [
        Stamp { run: 8, ..stamp(0) },
        Stamp { partition: 1, ..stamp(0) },
        Stamp { producer: 2, ..stamp(0) },
    ];
    for stamp in foreign {
        assert_eq!(counts(&read(&[stamp], 0)), [0, 0, 0, 1, 0, 0], "{stamp:?}");
    }
    let aborted = [Stamp { doomed: true, ..stamp(0) }, stamp(0)];
    assert_eq!(counts(&read(&aborted, 1)), [0, 0, 0, 0, 0, 1]);
    let mut verifier = Verifier::new(RUN, true);
    verifier.take(None, 0, 0, None, None);
    verifier.take(None, 0, 1, None, Some(b"hello"));
    let mut value = [0; 60];
    stamp(0).write(&mut value);
    value[59] = 1;
    verifier.take(None, 0, 2, None, Some(&value));
    verifier.take(None, 0, 2, None, Some(b"again"));
    let findings = verifier.finish(&[], &[0], true);
    assert_eq!(counts(&findings), [0, 0, 0, 3, 1, 0]);
    assert_eq!(findings.offsets_back, 1);
}

#[test]
fn a_reader_of_all_sees_aborted_records_and_finds_nothing() {
    let mut verifier = Verifier::new(RUN, false);
    let mut value = [0; crate::stamp::BYTES];
    Stamp { doomed: true, ..stamp(0) }.write(&mut value);
    verifier.take(None, 0, 0, None, Some(&value));
    stamp(0).write(&mut value);
    verifier.take(None, 0, 1, None, Some(&value));
    let written = Written { producer: 1, partition: 0, acknowledged: 1, sent: 1 };
    assert!(verifier.finish(&[written], &[0], true).is_clean());
}

/// Consumers of a group that read one partition one after the other: (who, from which offset, which sequences).
fn shared(turns: &[(usize, i64, &[u64])], acknowledged: u64) -> Findings {
    let mut verifier = Verifier::new(RUN, true);
    for (owner, from, sequences) in turns {
        verifier.owns(*owner, 0, *from);
        for (offset, sequence) in (*from..).zip(*sequences) {
            let mut value = [0; crate::stamp::BYTES];
            stamp(*sequence).write(&mut value);
            verifier.take(Some(*owner), 0, offset, None, Some(&value));
        }
    }
    let written = Written { producer: 1, partition: 0, acknowledged, sent: 100 };
    verifier.finish(&[written], &[0], true)
}

#[test]
fn what_a_group_reads_again_after_a_rebalance_is_no_duplicate() {
    let findings = shared(&[(0, 0, &[0, 1, 2, 3]), (1, 2, &[2, 3, 4]), (0, 5, &[5])], 6);
    assert!(findings.is_clean(), "{findings:?}");
    assert_eq!(findings.reread, 2);
    // The one before is slower than the one after: together they have all.
    let findings = shared(&[(1, 2, &[2, 3]), (0, 0, &[0, 1])], 4);
    assert!(findings.is_clean() && findings.reread == 0, "{findings:?}");
}

#[test]
fn what_a_group_loses_or_mixes_up_is_found_across_rebalances() {
    // Committed further than it was read.
    assert_eq!(counts(&shared(&[(0, 0, &[0, 1]), (1, 3, &[3, 4])], 5)), [1, 0, 0, 0, 0, 0]);
    // Nobody reads the end.
    assert_eq!(counts(&shared(&[(0, 0, &[0, 1]), (1, 1, &[1])], 5)), [3, 0, 0, 0, 0, 0]);
    // Twice while one and the same has it.
    assert_eq!(counts(&shared(&[(0, 0, &[0, 1, 1, 2])], 3)), [0, 1, 0, 0, 0, 0]);
    // A hole in what one has read, though another has filled it.
    assert_eq!(counts(&shared(&[(0, 0, &[0, 1, 2]), (1, 0, &[0, 2])], 3)), [0, 0, 1, 0, 0, 0]);
}

proptest! {
    /// The ranges say the same as a set of everything would.
    #[test]
    fn ranges_count_as_a_set_does(given in proptest::collection::vec(0u64..40, 0..120)) {
        let findings = sequences(&given, 40);
        let mut set = HashSet::new();
        let (mut duplicated, mut reordered, mut largest) = (0, 0, None);
        for sequence in given {
            if !set.insert(sequence) {
                duplicated += 1;
            } else if largest.is_some_and(|largest| sequence < largest) {
                reordered += 1;
            }
            largest = largest.max(Some(sequence));
        }
        let lost = (0..40).filter(|sequence| !set.contains(sequence)).count() as u64;
        prop_assert_eq!(counts(&findings), [lost, duplicated, reordered, 0, 0, 0]);
    }
}
