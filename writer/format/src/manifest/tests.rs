use proptest::prelude::*;

use super::*;
use crate::state::Violation;

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
        coordinator: None,
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

proptest! {
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
