use super::*;
use crate::manifest::{Manifest, ManifestBody, StreamUpdate, VolumeChange};
use crate::segment::Extent;

fn key(n: u8) -> StreamKey {
    StreamKey { topic: [n; 16], partition: u32::from(n) }
}

fn id(volume: u32, sequence: u64) -> SegmentId {
    SegmentId { volume, epoch: 1, sequence }
}

fn upload(stream: u8, segment: SegmentId, base: i64, end: i64) -> VolumeChange {
    let extent = Extent {
        segment,
        base_offset: base,
        end_offset: end,
        max_timestamp: 7,
        position: 32,
        data_len: 100,
        blocks: 1,
        leader_epoch: 1,
        section_len: 0,
    };
    let update = StreamUpdate {
        log_start: 0,
        end_offset: end,
        extent: Some(extent),
        epochs: vec![(1, 0)],
        producers: Vec::new(),
    };
    VolumeChange {
        epoch: 1,
        added_segments: vec![(segment, 500)],
        streams: vec![(key(stream), update)],
        ..VolumeChange::default()
    }
}

/// A volume's state, and a manifest for each change of it, read back.
#[derive(Default)]
struct Volume(VolumeState);

impl Volume {
    fn apply(&mut self, change: &VolumeChange) -> Result<Vec<SegmentId>, Violation> {
        let version = self.0.version + 1;
        let before = self.0.clone();
        let dead = self.0.apply(version, change);
        self.0.validate().expect("a state that exists is valid");
        if dead.is_err() {
            assert_eq!(self.0, before, "refused as a whole");
            return dead;
        }
        for body in [ManifestBody::Change(change.clone()), ManifestBody::Full(self.0.clone())] {
            let is_full = matches!(body, ManifestBody::Full(_));
            let base_version = if is_full { version } else { version - 1 };
            let manifest = Manifest { volume: 0, version, base_version, body };
            assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
        }
        dead
    }

    fn step(&mut self, stream: u8, step: MoveStep) -> Result<Vec<SegmentId>, Violation> {
        let moves = vec![(key(stream), step)];
        self.apply(&VolumeChange { epoch: 1, moves, ..VolumeChange::default() })
    }

    fn carried(&self, stream: u8) -> Carried {
        Carried::of(&self.0, &key(stream))
    }

    fn seal(&mut self, stream: u8) -> Carried {
        let carried = self.carried(stream);
        self.step(stream, MoveStep::Seal(Box::new(carried.clone()))).unwrap();
        carried
    }

    fn adopt(&mut self, stream: u8, mut carried: Carried) -> Result<Vec<SegmentId>, Violation> {
        carried.stream.moves += 1;
        self.step(stream, MoveStep::Adopt(Box::new(carried)))
    }

    fn log_start(&mut self, stream: u8, log_start: i64) -> Result<Vec<SegmentId>, Violation> {
        let known = &self.0.streams[&key(stream)];
        let update = StreamUpdate {
            log_start,
            end_offset: known.end_offset,
            extent: None,
            epochs: known.epochs.clone(),
            producers: known.producers.clone(),
        };
        let streams = vec![(key(stream), update)];
        self.apply(&VolumeChange { epoch: 1, streams, ..VolumeChange::default() })
    }
}

#[test]
fn a_segment_stays_with_its_home_until_the_stream_that_it_was_lent_to_names_it_no_more() {
    let (mut a, mut b) = (Volume::default(), Volume::default());
    a.apply(&upload(1, id(0, 0), 0, 10)).unwrap();
    a.apply(&upload(1, id(0, 1), 10, 20)).unwrap();
    let carried = a.seal(1);
    assert_eq!(carried.segments, [(id(0, 0), 500), (id(0, 1), 500)]);
    b.adopt(1, carried).unwrap();
    assert_eq!(a.step(1, MoveStep::Depart(vec![id(0, 0), id(0, 1)])), Ok(vec![]), "lent");
    assert!(!a.0.streams.contains_key(&key(1)));
    assert_eq!(a.0.segments[&id(0, 0)].live_extents, 1);

    b.apply(&upload(1, id(1, 0), 20, 30)).unwrap();
    let gone = b.log_start(1, 10).unwrap();
    assert_eq!(gone, [id(0, 0)], "not listed there any more; its home deletes it");
    assert_eq!(a.step(1, MoveStep::Return(vec![id(0, 0)])), Ok(vec![id(0, 0)]));
    assert_eq!(a.step(1, MoveStep::Return(vec![id(0, 0)])), Err(Violation::Move), "once");

    // Home again, with what it still names.
    let carried = b.seal(1);
    a.adopt(1, carried).unwrap();
    assert!(a.0.departed.is_empty());
    assert_eq!(a.0.streams[&key(1)].moves, 2);
    assert_eq!(b.step(1, MoveStep::Depart(vec![id(1, 0)])), Ok(vec![id(0, 1)]));
    let removed = VolumeChange { epoch: 1, removed_streams: vec![key(1)], ..Default::default() };
    assert_eq!(b.apply(&removed), Ok(vec![id(1, 0)]), "with its topic all of it goes");
    assert!(b.0.departed.is_empty());
}

#[test]
fn a_sealed_stream_does_not_change() {
    let mut a = Volume::default();
    a.apply(&upload(1, id(0, 0), 0, 10)).unwrap();
    let carried = a.seal(1);
    assert_eq!(a.log_start(1, 5), Err(Violation::Sealed));
    assert_eq!(a.apply(&upload(1, id(0, 1), 10, 20)), Err(Violation::Sealed));
    let cleaned = vec![(key(1), 10)];
    let change = VolumeChange { epoch: 1, cleaned, ..VolumeChange::default() };
    assert_eq!(a.apply(&change), Err(Violation::Stale));
    assert_eq!(a.step(1, MoveStep::Seal(Box::new(carried))), Err(Violation::Move), "twice");

    a.step(1, MoveStep::Unseal).unwrap();
    assert_eq!(a.0.streams[&key(1)].moves, 2, "more than what a target has adopted");
    a.log_start(1, 5).unwrap();
    assert_eq!(a.step(1, MoveStep::Unseal), Err(Violation::Move));
}

#[test]
fn what_was_adopted_for_nothing_gives_way_to_what_is_newer() {
    let (mut a, mut b) = (Volume::default(), Volume::default());
    a.apply(&upload(1, id(0, 0), 0, 10)).unwrap();
    let old = a.seal(1);
    b.adopt(1, old.clone()).unwrap();
    a.step(1, MoveStep::Unseal).unwrap();
    a.apply(&upload(1, id(0, 1), 10, 20)).unwrap();
    let new = a.seal(1);
    b.adopt(1, new).unwrap();
    assert_eq!(b.0.streams[&key(1)].end_offset, 20);
    assert_eq!(b.adopt(1, old), Err(Violation::Move), "late");
    b.step(1, MoveStep::Depart(vec![])).unwrap();
    assert!(b.0.segments.is_empty());
    assert_eq!(b.0.departed[&key(1)].moves, 3);
    assert_eq!(b.apply(&upload(1, id(1, 0), 20, 30)), Err(Violation::Sealed), "it is elsewhere");
}

#[test]
fn an_empty_stream_moves() {
    let (mut a, mut b) = (Volume::default(), Volume::default());
    let carried = a.seal(1);
    b.adopt(1, carried).unwrap();
    a.step(1, MoveStep::Depart(vec![])).unwrap();
    b.apply(&upload(1, id(1, 0), 0, 10)).unwrap();
}

#[test]
fn steps_that_do_not_fit_change_nothing() {
    let (mut a, mut b) = (Volume::default(), Volume::default());
    a.apply(&upload(1, id(0, 0), 0, 10)).unwrap();
    let whole = a.carried(1);
    let mut stranger = whole.clone();
    stranger.segments.push((id(7, 7), 1));
    let mut hole = whole.clone();
    hole.stream.end_offset = 11;
    let mut sealed = whole.clone();
    sealed.stream.sealed = true;
    for wrong in [stranger, hole, sealed] {
        assert_eq!(b.adopt(1, wrong), Err(Violation::Move));
    }
    let mut longer = a.carried(1);
    longer.segments[0].1 += 1;
    assert_eq!(a.adopt(1, longer), Err(Violation::Move), "of another length");
    assert_eq!(a.step(1, MoveStep::Depart(vec![id(0, 9)])), Err(Violation::Move));
    assert_eq!(a.step(2, MoveStep::Depart(vec![])), Err(Violation::Move));
    assert_eq!(a.step(1, MoveStep::Return(vec![])), Err(Violation::Move));
    let mut mixed = upload(2, id(0, 5), 0, 1);
    mixed.moves.push((key(1), MoveStep::Seal(Box::new(whole))));
    assert_eq!(a.apply(&mixed), Err(Violation::Move), "a step stands alone");
}

#[test]
fn the_leader_epoch_grows_from_volume_to_volume() {
    let stream = StreamState { epoch_base: -3, ..StreamState::default() };
    assert_eq!(stream.leader_epoch(5), 2);
    assert_eq!(StreamState { epoch_base: 40, ..stream }.leader_epoch(1), 41);
}
