use proptest::prelude::*;

use super::*;
use crate::state::{ProducerBatch, Violation};

fn key(n: u8) -> StreamKey {
    StreamKey { topic: [n; 16], partition: 0 }
}

fn segment(sequence: u64) -> SegmentId {
    SegmentId { volume: 1, epoch: 1, sequence }
}

fn extent(sequence: u64, base: i64, end: i64) -> Extent {
    Extent {
        segment: segment(sequence),
        base_offset: base,
        end_offset: end,
        max_timestamp: end,
        position: 32,
        data_len: 1000,
        blocks: 1,
        leader_epoch: 1,
        section_len: 0,
    }
}

fn update(extent: Option<Extent>, log_start: i64, end_offset: i64) -> StreamUpdate {
    StreamUpdate {
        log_start,
        end_offset,
        extent,
        epochs: vec![(1, 0)],
        producers: vec![ProducerSnapshot {
            id: 5,
            epoch: 0,
            last_ms: 1,
            coordinator_epoch: 2,
            open_since: None,
            batches: vec![ProducerBatch {
                first_sequence: 0,
                last_sequence: 9,
                base_offset: 0,
                timestamp_ms: 1,
            }],
        }],
    }
}

fn change(sequence: Option<u64>, streams: Vec<(StreamKey, StreamUpdate)>) -> VolumeChange {
    VolumeChange {
        epoch: 1,
        trim_lsn: 4096,
        added_segments: sequence.map(|sequence| (segment(sequence), 5000)).into_iter().collect(),
        removed_streams: Vec::new(),
        streams,
        ..VolumeChange::default()
    }
}

#[test]
fn segments_live_as_long_as_their_extents() {
    let mut state = VolumeState::default();
    let first = change(
        Some(0),
        vec![
            (key(1), update(Some(extent(0, 0, 10)), 0, 10)),
            (key(2), update(Some(extent(0, 0, 5)), 0, 5)),
        ],
    );
    assert_eq!(state.apply(1, &first), Ok(vec![]));
    let second = change(Some(1), vec![(key(1), update(Some(extent(1, 10, 20)), 12, 20))]);
    assert_eq!(state.apply(2, &second), Ok(vec![]), "stream 2 still needs segment 0");
    assert_eq!(state.streams[&key(1)].extents.len(), 1);
    let mut third = change(None, vec![]);
    third.removed_streams.push(key(2));
    assert_eq!(state.apply(3, &third), Ok(vec![segment(0)]));
    state.validate().unwrap();
}

#[test]
fn changes_that_break_an_invariant_change_nothing() {
    let mut state = VolumeState::default();
    state
        .apply(1, &change(Some(0), vec![(key(1), update(Some(extent(0, 0, 10)), 2, 10))]))
        .unwrap();
    let before = state.clone();
    let hole = change(Some(1), vec![(key(1), update(Some(extent(1, 11, 20)), 2, 20))]);
    let back = change(None, vec![(key(1), update(None, 1, 10))]);
    let foreign = change(None, vec![(key(1), update(Some(extent(9, 10, 20)), 2, 20))]);
    let again = change(Some(0), vec![]);
    let mut old = change(None, vec![]);
    old.epoch = 0;
    let mut untrimmed = change(None, vec![]);
    untrimmed.trim_lsn = 0;
    for (version, change, violation) in [
        (2, hole, Violation::Hole),
        (2, back, Violation::LogStart),
        (2, foreign, Violation::Segment),
        (2, again, Violation::Segment),
        (2, old, Violation::Epoch),
        (2, untrimmed, Violation::Trim),
        (3, change(None, vec![]), Violation::Version),
    ] {
        assert_eq!(state.apply(version, &change), Err(violation));
        assert_eq!(state, before);
    }
}

/// Replaces the extents `base..end` of stream 1, which lie in `replaced`, by one in segment `into`.
fn replacement(base: i64, end: i64, replaced: &[u64], into: u64) -> Replacement {
    Replacement {
        stream: key(1),
        base_offset: base,
        end_offset: end,
        replaced: replaced.iter().map(|sequence| segment(*sequence)).collect(),
        extents: vec![extent(into, base, end)],
    }
}

/// Stream 1 with extents of ten offsets in segments 0, 1, 2, ..; stream 2 in segment 0 as well.
fn four_extents() -> VolumeState {
    let mut state = VolumeState::default();
    for n in 0..4i64 {
        let at = n * 10;
        let mut streams = vec![(key(1), update(Some(extent(n as u64, at, at + 10)), 0, at + 10))];
        if n == 0 {
            streams.push((key(2), update(Some(extent(0, 0, 5)), 0, 5)));
        }
        state.apply(n as u64 + 1, &change(Some(n as u64), streams)).unwrap();
    }
    state
}

#[test]
fn a_replacement_takes_the_place_of_a_run_of_extents() {
    let mut state = four_extents();
    let mut compaction = change(Some(9), vec![]);
    compaction.replacements.push(replacement(0, 30, &[0, 1, 2], 9));
    compaction.cleaned.push((key(1), 30));
    assert_eq!(
        state.apply(5, &compaction),
        Ok(vec![segment(1), segment(2)]),
        "segment 0 still has stream 2"
    );
    state.validate().unwrap();
    let stream = &state.streams[&key(1)];
    let bounds: Vec<_> = stream.extents.iter().map(|e| (e.base_offset, e.end_offset)).collect();
    assert_eq!(bounds, [(0, 30), (30, 40)]);
    assert_eq!(stream.cleaned_to, 30);
    assert_eq!(state.segments[&segment(9)].live_extents, 1);
}

#[test]
fn a_replacement_that_does_not_fit_is_refused() {
    let mut state = four_extents();
    // Retention has taken the first extent meanwhile.
    state.apply(5, &change(None, vec![(key(1), update(None, 12, 40))])).unwrap();
    let before = state.clone();
    let with = |replacement: Replacement| {
        let mut compaction = change(Some(9), vec![]);
        compaction.replacements.push(replacement);
        compaction
    };
    let mut short = replacement(10, 30, &[1, 2], 9);
    short.extents[0].end_offset = 29;
    let mut nothing = replacement(10, 30, &[1, 2], 9);
    nothing.extents.clear();
    let mut cleaned_back = change(None, vec![]);
    cleaned_back.cleaned.push((key(1), 41));
    let mut removed = with(replacement(10, 30, &[1, 2], 9));
    removed.removed_streams.push(key(1));
    let mut overlapping = with(replacement(10, 30, &[1, 2], 9));
    overlapping.replacements.push(replacement(20, 40, &[2, 3], 9));
    for (change, violation) in [
        (with(replacement(0, 30, &[0, 1, 2], 9)), Violation::Stale),
        (with(replacement(10, 30, &[1, 3], 9)), Violation::Stale),
        (with(replacement(10, 35, &[1, 2], 9)), Violation::Stale),
        (with(replacement(11, 30, &[1, 2], 9)), Violation::Stale),
        (with(replacement(10, 30, &[], 9)), Violation::Stale),
        (with(replacement(10, 50, &[1, 2, 3, 4], 9)), Violation::Stale),
        (with(replacement(10, 30, &[1, 2], 3)), Violation::Segment),
        (with(short), Violation::Hole),
        (with(nothing), Violation::Hole),
        (cleaned_back, Violation::Cleaned),
        (removed, Violation::Stale),
        (overlapping, Violation::Duplicate),
    ] {
        assert_eq!(state.apply(6, &change), Err(violation), "{change:?}");
        assert_eq!(state, before);
    }
}

#[test]
fn an_older_format_is_refused_by_its_version() {
    let manifest = Manifest {
        volume: 1,
        version: 1,
        base_version: 1,
        body: ManifestBody::Full(VolumeState { version: 1, ..VolumeState::default() }),
    };
    let mut bytes = manifest.encode().to_vec();
    bytes[8] = 1;
    let refused = FormatError::Version { what: WHAT, found: 1, newest: VERSION };
    assert_eq!(Manifest::decode(&bytes), Err(refused));
}

proptest! {
    /// Uploads, compactions and retention in any order: the state stays valid, and the stream's extents
    /// cover what they covered.
    #[test]
    fn any_history_keeps_the_invariants(steps in proptest::collection::vec((0u8..3, 0usize..64, 1usize..8), 1..60)) {
        let mut state = VolumeState::default();
        let mut sequence = 0;
        for (version, (kind, at, count)) in (1u64..).zip(steps) {
            let stream = state.streams.get(&key(1)).cloned().unwrap_or_default();
            let mut next = change(None, vec![]);
            sequence += 1;
            match kind {
                0 => {
                    let (base, end) = (stream.end_offset, stream.end_offset + count as i64);
                    next = change(Some(sequence), vec![(key(1), update(Some(extent(sequence, base, end)), stream.log_start, end))]);
                }
                1 if !stream.extents.is_empty() => {
                    let from = at % stream.extents.len();
                    let run: Vec<_> = stream.extents.range(from..).take(count).collect();
                    let (base, end) = (run[0].base_offset, run[run.len() - 1].end_offset);
                    let replaced = run.iter().map(|extent| extent.segment).collect();
                    next = change(Some(sequence), vec![]);
                    next.replacements.push(Replacement { replaced, ..replacement(base, end, &[], sequence) });
                    next.cleaned.push((key(1), stream.cleaned_to.max(end)));
                }
                _ if stream.end_offset > 0 => {
                    let start = stream.log_start + (at as i64).min(stream.end_offset - stream.log_start);
                    next = change(None, vec![(key(1), update(None, start, stream.end_offset))]);
                }
                _ => {}
            }
            let bytes = Manifest { volume: 1, version, base_version: 0, body: ManifestBody::Change(next.clone()) }.encode();
            let decoded = Manifest::decode(&bytes).unwrap();
            prop_assert_eq!(decoded.body, ManifestBody::Change(next.clone()));
            state.apply(version, &next).unwrap();
            state.validate().unwrap();
            let after = state.streams.get(&key(1)).cloned().unwrap_or_default();
            let covered: i64 = after.extents.iter().map(|e| e.end_offset - e.base_offset.max(after.log_start)).sum();
            prop_assert_eq!(covered, after.end_offset - after.log_start);
        }
    }

    #[test]
    fn full_and_change_round_trip(
        ends in proptest::collection::vec(1i64..1000, 1..20),
        version in 1u64..u64::MAX / 2,
        snapshot: Option<i64>,
    ) {
        let mut streams = Vec::new();
        for (n, end) in ends.iter().enumerate() {
            streams.push((key(n as u8), update(Some(extent(7, 0, *end)), end / 2, *end)));
        }
        let mut change = change(Some(7), streams);
        change.removed_streams.push(key(200));
        change.coordinator = snapshot.map(|offset| CoordinatorSnapshot { id: segment(3), offset });
        let mut state = VolumeState { version: version - 1, ..VolumeState::default() };
        state.apply(version, &change).unwrap();
        for body in [ManifestBody::Change(change), ManifestBody::Full(state)] {
            let base_version = if matches!(body, ManifestBody::Full(_)) { version } else { version - 1 };
            let manifest = Manifest { volume: 4, version, base_version, body };
            let bytes = manifest.encode();
            prop_assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
            for at in (0..bytes.len()).step_by(7) {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 0x10;
                prop_assert!(Manifest::decode(&damaged).is_err());
                prop_assert!(Manifest::decode(&bytes[..at]).is_err());
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_panic(bytes: Vec<u8>) {
        prop_assert!(Manifest::decode(&bytes).is_err());
    }
}
