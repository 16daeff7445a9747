//! The rules of sequencing and of transactions, batch by batch.

use proptest::prelude::*;
use sluice_format::AbortedTransaction;

use super::*;

const ABORT: Part = Part::End(Marker { commit: false, coordinator_epoch: 3 });
const COMMIT: Part = Part::End(Marker { commit: true, coordinator_epoch: 3 });

impl Sequencer {
    /// Takes a batch for which the coordinator vouches.
    fn vouched(
        &mut self,
        batch: &BatchHeader,
        durable: i64,
        now_ms: i64,
    ) -> Result<Sequenced, SequenceError> {
        let voucher = match batch.part {
            Part::Inside => self.verify(batch, false),
            _ => None,
        };
        self.take(batch, voucher, durable, now_ms)
    }
}

fn batch(epoch: i16, base_sequence: i32, offsets: i64) -> BatchHeader {
    BatchHeader {
        producer_id: 7,
        producer_epoch: epoch,
        base_sequence,
        offsets,
        max_timestamp: 1000 + i64::from(base_sequence),
        part: Part::Outside,
    }
}

#[test]
fn plain_producers_just_append() {
    let mut stream = Sequencer::default();
    let plain = BatchHeader { producer_id: -1, ..batch(-1, -1, 3) };
    assert_eq!(stream.vouched(&plain, 0, 0), Ok(Sequenced::Append(0)));
    assert_eq!(stream.vouched(&plain, 0, 0), Ok(Sequenced::Append(3)));
    assert!(stream.durable_producers(i64::MAX).is_empty());
}

#[test]
fn retries_are_recognised_and_gaps_refused() {
    let mut stream = Sequencer::default();
    for n in 0..7 {
        assert_eq!(
            stream.vouched(&batch(0, n * 2, 2), i64::from(n) * 2, 0),
            Ok(Sequenced::Append(i64::from(n) * 2))
        );
    }
    let again = Sequenced::Duplicate { base_offset: 12, timestamp_ms: 1012 };
    assert_eq!(stream.vouched(&batch(0, 12, 2), 14, 0), Ok(again));
    let oldest_kept = Sequenced::Duplicate { base_offset: 4, timestamp_ms: 1004 };
    assert_eq!(stream.vouched(&batch(0, 4, 2), 14, 0), Ok(oldest_kept));
    for unknown in [0, 12, 16] {
        assert_eq!(stream.vouched(&batch(0, unknown, 3), 14, 0), Err(SequenceError::OutOfOrder));
    }
    assert_eq!(stream.next_offset(), 14);
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let mut stream = Sequencer::default();
    stream.vouched(&batch(1, 0, 5), 0, 0).unwrap();
    assert_eq!(stream.vouched(&batch(2, 5, 1), 0, 0), Err(SequenceError::OutOfOrder));
    assert_eq!(stream.vouched(&batch(2, 0, 1), 0, 0), Ok(Sequenced::Append(5)));
    assert_eq!(stream.vouched(&batch(1, 5, 1), 0, 0), Err(SequenceError::ProducerFenced));
}

#[test]
fn an_unknown_producer_may_begin_anywhere() {
    // KIP-360: its state may have expired.
    let mut stream = Sequencer::default();
    assert_eq!(stream.vouched(&batch(0, 77, 1), 0, 0), Ok(Sequenced::Append(0)));
}

#[test]
fn sequences_wrap() {
    let mut stream = Sequencer::default();
    stream.vouched(&batch(0, i32::MAX - 1, 2), 0, 0).unwrap();
    assert_eq!(stream.vouched(&batch(0, 0, 1), 0, 0), Ok(Sequenced::Append(2)));
    let mut across = Sequencer::default();
    across.vouched(&batch(0, i32::MAX, 3), 0, 0).unwrap();
    assert_eq!(across.vouched(&batch(0, 2, 1), 0, 0), Ok(Sequenced::Append(3)));
}

#[test]
fn what_is_not_durable_is_not_remembered_and_pushes_nothing_out() {
    let mut stream = Sequencer::default();
    for n in 0..10 {
        // Nothing after offset 2 becomes durable.
        stream.vouched(&batch(0, n, 1), i64::from(n).min(2), 0).unwrap();
    }
    let kept = stream.durable_producers(2);
    assert_eq!(kept[0].batches.iter().map(|b| b.base_offset).collect::<Vec<_>>(), [0, 1]);
    let mut recovered = Sequencer::new(2, &kept);
    assert_eq!(
        recovered.vouched(&batch(0, 2, 1), 2, 0),
        Ok(Sequenced::Append(2)),
        "the batch that was lost in the crash is taken again"
    );
}

#[test]
fn quiet_producers_are_forgotten() {
    let mut stream = Sequencer::default();
    stream.vouched(&batch(0, 0, 1), 0, 0).unwrap();
    stream.expire(PRODUCER_EXPIRY_MS - 1);
    assert_eq!(stream.durable_producers(1).len(), 1);
    stream.expire(PRODUCER_EXPIRY_MS);
    assert!(stream.durable_producers(1).is_empty());
}

fn part(part: Part, id: i64, sequence: i32) -> BatchHeader {
    BatchHeader { producer_id: id, part, ..batch(0, sequence, 1) }
}

#[test]
fn the_log_is_stable_up_to_the_first_transaction_that_is_undecided() {
    let mut stream = Sequencer::default();
    let mut take = |batch: &BatchHeader| stream.vouched(batch, 0, 0).unwrap();
    take(&part(Part::Inside, 1, 0)); // 0
    take(&part(Part::Inside, 2, 0)); // 1
    take(&part(Part::Inside, 1, 1)); // 2
    take(&part(ABORT, 1, -1)); // 3
    take(&part(Part::Outside, 3, 0)); // 4
    take(&part(COMMIT, 2, -1)); // 5
    take(&part(Part::Inside, 1, 2)); // 6: markers take no sequence
    for (end, unstable) in
        [(0, None), (1, Some(0)), (3, Some(0)), (4, Some(1)), (5, Some(1)), (6, None), (7, Some(6))]
    {
        assert_eq!(stream.first_unstable(end), unstable, "up to {end}");
    }
    let first = AbortedTransaction {
        producer_id: 1,
        first_offset: 0,
        last_offset: 3,
        last_stable_offset: 1,
    };
    assert_eq!(stream.aborted(&(3..7)), [first]);
    assert!(stream.aborted(&(0..3)).is_empty(), "listed where its marker is");
    stream.forget_ended_before(6);
    assert_eq!(stream.first_unstable(7), Some(6));
    assert!(stream.aborted(&(0..7)).is_empty());
}

#[test]
fn open_transactions_survive_in_snapshots_as_of_any_offset() {
    let mut stream = Sequencer::default();
    let log = [
        part(Part::Inside, 1, 0),
        part(Part::Inside, 2, 0),
        part(ABORT, 1, -1),
        part(Part::Inside, 1, 1),
        part(COMMIT, 2, -1),
        part(ABORT, 1, -1),
    ];
    for batch in &log {
        stream.vouched(batch, i64::MAX, 0).unwrap();
    }
    for cut in 0..=log.len() as i64 {
        let mut recovered = Sequencer::new(cut, &stream.durable_producers(cut));
        for (offset, batch) in log.iter().enumerate().skip(cut as usize) {
            recovered.replay(batch, offset as i64, i64::MAX, 0);
        }
        for end in cut..=log.len() as i64 {
            assert_eq!(recovered.first_unstable(end), stream.first_unstable(end), "{cut} {end}");
        }
        let range = cut..log.len() as i64;
        assert_eq!(recovered.aborted(&range), stream.aborted(&range), "cut at {cut}");
    }
}

#[test]
fn a_transaction_is_open_in_a_snapshot_though_its_producer_has_a_newer_epoch_since() {
    let mut stream = Sequencer::default();
    // Each transaction has an epoch of its own, and all is durable when the snapshot is made.
    let of = |epoch, part, sequence| BatchHeader { part, ..batch(epoch, sequence, 1) };
    let log = [
        of(4, Part::Inside, 0),
        of(5, ABORT, -1),
        of(5, Part::Inside, 0),
        of(6, COMMIT, -1),
        of(6, Part::Inside, 0),
    ];
    for batch in &log {
        stream.vouched(batch, i64::MAX, 0).unwrap();
    }
    let open = |cut| {
        let open = stream.durable_producers(cut).into_iter();
        open.map(|known| (known.epoch, known.open_since)).collect::<Vec<_>>()
    };
    assert_eq!(open(1), [(4, Some(0))]);
    assert_eq!(open(3), [(5, Some(2))]);
    assert_eq!(open(5), [(6, Some(4))]);
    let mut recovered = Sequencer::new(1, &stream.durable_producers(1));
    recovered.replay(&log[1], 1, i64::MAX, 0);
    assert_eq!(recovered.aborted(&(0..2)).len(), 1, "its records are left out");
    // Nor when so many others have written since that the producer itself is forgotten.
    stream.replay(&of(7, COMMIT, -1), 5, i64::MAX, 1);
    for id in 0..MAX_PRODUCERS as i64 {
        stream.replay(&part(Part::Outside, 100 + id, 0), 6 + id, i64::MAX, 2);
    }
    assert!(!stream.producers.contains_key(&7));
    let known = stream.durable_producers(5);
    assert_eq!(known.iter().map(|known| (known.id, known.open_since)).next(), Some((7, Some(4))));
}

#[test]
fn a_marker_of_a_newer_epoch_fences_and_an_open_transaction_does_not_expire() {
    let mut stream = Sequencer::default();
    stream.vouched(&part(Part::Inside, 7, 0), 0, 0).unwrap();
    stream.expire(PRODUCER_EXPIRY_MS * 2);
    assert_eq!(stream.first_unstable(1), Some(0));
    let abort = BatchHeader { part: ABORT, ..batch(1, -1, 1) };
    stream.vouched(&abort, 1, 0).unwrap();
    let mut recovered = Sequencer::new(2, &stream.durable_producers(2));
    for stream in [&mut stream, &mut recovered] {
        let old = stream.vouched(&batch(0, 1, 1), 2, 0);
        assert_eq!(old, Err(SequenceError::ProducerFenced));
        assert_eq!(stream.vouched(&batch(1, 5, 1), 2, 0), Err(SequenceError::OutOfOrder));
        assert_eq!(stream.vouched(&batch(1, 0, 1), 2, 0), Ok(Sequenced::Append(2)));
    }
}

#[test]
fn no_transaction_begins_without_the_coordinators_word() {
    let mut stream = Sequencer::default();
    let first = part(Part::Inside, 7, 0);
    assert_eq!(stream.take(&first, None, 0, 0), Err(SequenceError::NotInTransaction));
    let voucher = stream.verify(&first, false);
    assert!(voucher.is_some());
    assert_eq!(stream.take(&first, voucher, 0, 0), Ok(Sequenced::Append(0)));
    let second = part(Part::Inside, 7, 1);
    assert_eq!(stream.verify(&second, false), None, "it is open");
    assert_eq!(stream.take(&second, None, 0, 0), Ok(Sequenced::Append(1)));
    // KIP-98: what is outside may not come while it is open.
    let outside = part(Part::Outside, 7, 2);
    assert_eq!(stream.take(&outside, None, 0, 0), Err(SequenceError::NotInTransaction));
    stream.take(&part(ABORT, 7, -1), None, 0, 0).unwrap();
    assert_eq!(stream.take(&outside, None, 0, 0), Ok(Sequenced::Append(3)));
}

#[test]
fn a_batch_that_was_vouched_for_before_the_marker_comes_too_late() {
    let mut stream = Sequencer::default();
    let late = part(Part::Inside, 7, 0);
    let voucher = stream.verify(&late, false);
    // The coordinator ends the transaction meanwhile, in this stream too.
    stream.take(&part(ABORT, 7, -1), None, 0, 0).unwrap();
    assert_eq!(stream.take(&late, voucher, 0, 0), Err(SequenceError::NotInTransaction));
    assert_eq!(stream.first_unstable(i64::MAX), None, "nothing hangs");
    // Another batch of the producer is on its way: the old voucher is still void.
    let voucher_again = stream.verify(&late, false);
    assert_eq!(stream.take(&late, voucher, 0, 0), Err(SequenceError::NotInTransaction));
    assert_eq!(stream.take(&late, voucher_again, 0, 0), Ok(Sequenced::Append(1)));
}

/// The end of a transaction is answered before its markers are written everywhere.
#[test]
fn the_next_transaction_does_not_begin_inside_the_one_before() {
    let mut stream = Sequencer::default();
    let first = BatchHeader { part: Part::Inside, ..batch(4, 0, 1) };
    stream.vouched(&first, 0, 0).unwrap();
    let next = BatchHeader { part: Part::Inside, ..batch(5, 0, 1) };
    let early = stream.verify(&next, true);
    assert!(early.is_some(), "the coordinator has to be asked, though one is open here");
    for voucher in [None, early] {
        let inside = stream.take(&next, voucher, 0, 0);
        assert_eq!(inside, Err(SequenceError::NotInTransaction), "{voucher:?}");
    }
    let marker = BatchHeader { part: COMMIT, ..batch(5, -1, 1) };
    stream.take(&marker, None, 0, 0).unwrap();
    // Asked before the marker, so that it may be a batch that is too late: the client comes again.
    assert_eq!(stream.take(&next, early, 0, 0), Err(SequenceError::Overtaken));
    let voucher = stream.verify(&next, true);
    assert_eq!(stream.take(&next, voucher, 0, 0), Ok(Sequenced::Append(2)));
    assert_eq!(stream.first_unstable(3), Some(2));
}

#[test]
fn of_two_batches_that_are_vouched_for_the_first_comes_first() {
    let mut stream = Sequencer::default();
    let (first, second) = (part(Part::Inside, 7, 0), part(Part::Inside, 7, 1));
    let (one, two) = (stream.verify(&first, true), stream.verify(&second, true));
    assert_eq!(stream.take(&second, two, 0, 0), Err(SequenceError::OutOfOrder));
    assert_eq!(stream.take(&first, one, 0, 0), Ok(Sequenced::Append(0)));
    assert_eq!(stream.take(&second, two, 0, 0), Ok(Sequenced::Append(1)));
    // With an epoch for each transaction, an unknown producer begins at 0.
    let unknown = part(Part::Inside, 8, 4);
    let voucher = stream.verify(&unknown, true);
    assert_eq!(stream.take(&unknown, voucher, 0, 0), Err(SequenceError::OutOfOrder));
    let voucher = stream.verify(&unknown, false);
    assert_eq!(stream.take(&unknown, voucher, 0, 0), Ok(Sequenced::Append(2)));
}

#[test]
fn markers_of_old_epochs_and_old_coordinators_are_refused() {
    let mut stream = Sequencer::default();
    stream.vouched(&BatchHeader { part: Part::Inside, ..batch(5, 0, 1) }, 0, 0).unwrap();
    let marker = |producer_epoch, coordinator_epoch| BatchHeader {
        producer_epoch,
        part: Part::End(Marker { commit: true, coordinator_epoch }),
        ..batch(0, -1, 1)
    };
    let fenced = stream.take(&marker(4, 9), None, 0, 0);
    assert_eq!(fenced, Err(SequenceError::ProducerFenced));
    stream.take(&marker(6, 9), None, 0, 0).unwrap();
    let zombie = stream.take(&marker(6, 8), None, 0, 0);
    assert_eq!(zombie, Err(SequenceError::CoordinatorFenced));
    let mut recovered = Sequencer::new(2, &stream.durable_producers(2));
    let zombie = recovered.take(&marker(6, 8), None, 0, 0);
    assert_eq!(zombie, Err(SequenceError::CoordinatorFenced));
    assert_eq!(stream.take(&marker(6, 9), None, 0, 0), Ok(Sequenced::Append(2)), "repeated");
    let active = stream.active_producers()[0];
    let shown = (active.epoch, active.last_sequence, active.coordinator_epoch, active.open_since);
    assert_eq!(shown, (6, -1, 9, None));
}

#[test]
fn what_is_lost_in_a_crash_does_not_take_the_epoch_before_with_it() {
    let mut stream = Sequencer::default();
    stream.vouched(&batch(0, 0, 1), 0, 0).unwrap();
    stream.vouched(&batch(0, 1, 1), 1, 0).unwrap();
    // Two new epochs, of which nothing becomes durable.
    stream.vouched(&batch(1, 0, 1), 2, 0).unwrap();
    stream.vouched(&batch(2, 0, 1), 2, 0).unwrap();
    let mut recovered = Sequencer::new(2, &stream.durable_producers(2));
    let again = Sequenced::Duplicate { base_offset: 1, timestamp_ms: 1001 };
    assert_eq!(recovered.vouched(&batch(0, 1, 1), 2, 0), Ok(again));
    assert_eq!(recovered.vouched(&batch(2, 0, 1), 2, 0), Ok(Sequenced::Append(2)));
    // Once the newest is durable, only that is kept.
    stream.vouched(&batch(2, 1, 1), 4, 0).unwrap();
    assert_eq!(stream.durable_producers(5)[0].epoch, 2);
    assert_eq!(stream.durable_producers(2), []);
}

/// A transaction as a simple model has it.
#[derive(Clone, Copy, Debug)]
struct Modelled {
    producer: i64,
    first: i64,
    /// Offset of the marker, and whether it commits.
    end: Option<(i64, bool)>,
}

proptest! {
    /// Any log of transactions, cut anywhere: what is stable, aborted and open is what the log says.
    #[test]
    fn transactions_are_as_a_simple_model_has_them(
        steps in proptest::collection::vec((0i64..4, 0u8..6), 1..60),
        cut in 0usize..60,
        range in (0i64..60, 0i64..60),
    ) {
        let mut stream = Sequencer::default();
        let mut log = Vec::new();
        let mut model: Vec<Modelled> = Vec::new();
        let mut sequences = [0; 4];
        let mut epochs = [0; 4];
        for (producer, kind) in steps {
            let open = model.iter_mut().find(|t| t.producer == producer && t.end.is_none());
            let offset = stream.next_offset();
            let what = match kind {
                0 => ABORT,
                1 => COMMIT,
                _ => Part::Inside,
            };
            match (what, open) {
                (Part::End(marker), Some(open)) => open.end = Some((offset, marker.commit)),
                (Part::Inside, None) => model.push(Modelled { producer, first: offset, end: None }),
                _ => {}
            }
            let (sequence, epoch) =
                (&mut sequences[producer as usize], &mut epochs[producer as usize]);
            // Some producers have a new epoch for each transaction, which the marker brings.
            if what != Part::Inside && producer >= 2 {
                (*sequence, *epoch) = (0, *epoch + 1);
            }
            let base_sequence = if what == Part::Inside { *sequence } else { -1 };
            *sequence += i32::from(what == Part::Inside);
            let header = part(what, producer, base_sequence);
            let header = BatchHeader { producer_epoch: *epoch, ..header };
            prop_assert_eq!(stream.vouched(&header, offset, 0), Ok(Sequenced::Append(offset)));
            log.push(header);
        }
        let end = log.len() as i64;
        let unstable = |upto: i64| {
            let open = model.iter().filter(|t| {
                t.first < upto && t.end.is_none_or(|(marker, _)| marker >= upto)
            });
            open.map(|t| t.first).min()
        };
        for upto in 0..=end {
            prop_assert_eq!(stream.first_unstable(upto), unstable(upto), "up to {}", upto);
        }
        // Read from `a` to `b`, below what is stable at the end.
        let stable = unstable(end).unwrap_or(end);
        let (a, b) = (range.0.min(stable), range.1.min(stable));
        let (a, b) = (a.min(b), a.max(b));
        let mut expected: Vec<_> = model
            .iter()
            .filter_map(|t| Some((t.end.filter(|(_, commit)| !commit)?.0, t.producer, t.first)))
            .filter(|(marker, _, first)| *marker >= a && *first < b)
            .collect();
        expected.sort_unstable();
        let over = |stream: &Sequencer| -> Vec<_> {
            let over = stream.aborted_over(&(a..b)).into_iter();
            over.map(|t| (t.last_offset, t.producer_id, t.first_offset)).collect()
        };
        if a < b {
            prop_assert_eq!(over(&stream), expected.clone());
        }
        // Recovered from a manifest as of any offset, with the log behind it.
        let cut = cut.min(log.len());
        let mut recovered = Sequencer::new(cut as i64, &stream.durable_producers(cut as i64));
        for (offset, header) in log.iter().enumerate().skip(cut) {
            recovered.replay(header, offset as i64, i64::MAX, 0);
        }
        for upto in cut as i64..=end {
            prop_assert_eq!(recovered.first_unstable(upto), unstable(upto));
        }
        if a < b {
            expected.retain(|(marker, ..)| *marker >= cut as i64);
            prop_assert_eq!(over(&recovered), expected);
        }
        for producer in 0..4 {
            prop_assert_eq!(recovered.open_since(producer), stream.open_since(producer));
        }
    }
}
