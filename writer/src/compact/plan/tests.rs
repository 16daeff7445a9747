//! The planner against a model of a volume: uploads, plans carried out, retention.

use proptest::prelude::*;
use sluice_format::{Replacement, StreamUpdate, VolumeChange};

use super::super::budget::Budget;
use super::*;

const JOB_BYTES: u64 = 16 << 20;

fn key(n: u32) -> StreamKey {
    StreamKey { topic: [7; 16], partition: n }
}

/// A volume whose uploads and compactions are only counted.
#[derive(Default)]
struct Model {
    state: VolumeState,
    sequence: u64,
    uploaded: u64,
    rewritten: u64,
}

impl Model {
    fn commit(&mut self, change: &VolumeChange) {
        let version = self.state.version + 1;
        self.state.apply(version, change).unwrap();
        self.state.validate().unwrap();
    }

    fn segment(&mut self) -> SegmentId {
        self.sequence += 1;
        SegmentId { volume: 0, epoch: 1, sequence: self.sequence }
    }

    /// One segment with an extent of each stream that has bytes.
    fn upload(&mut self, lens: &[(u32, u32)]) {
        let id = self.segment();
        let mut change = VolumeChange::default();
        let mut total = 0;
        for (stream, len) in lens {
            let before = self.state.streams.get(&key(*stream));
            let base = before.map_or(0, |stream| stream.end_offset);
            let log_start = before.map_or(0, |stream| stream.log_start);
            let extent = Extent {
                segment: id,
                base_offset: base,
                end_offset: base + 1,
                max_timestamp: 0,
                position: 32,
                data_len: *len,
                blocks: 1,
                leader_epoch: 1,
                section_len: 0,
            };
            let update = StreamUpdate {
                log_start,
                end_offset: base + 1,
                extent: Some(extent),
                epochs: Vec::new(),
                producers: Vec::new(),
            };
            change.streams.push((key(*stream), update));
            total += u64::from(*len);
        }
        change.added_segments.push((id, total));
        self.uploaded += total;
        self.commit(&change);
    }

    fn carry_out(&mut self, plan: &Plan) {
        let id = self.segment();
        let mut change =
            VolumeChange { added_segments: vec![(id, plan.bytes)], ..VolumeChange::default() };
        for run in &plan.runs {
            let (first, last) = (run.extents[0], run.extents[run.extents.len() - 1]);
            let extent = Extent {
                segment: id,
                base_offset: first.base_offset,
                end_offset: last.end_offset,
                data_len: bytes_of(&run.extents) as u32,
                ..first
            };
            change.replacements.push(Replacement {
                stream: run.stream,
                base_offset: first.base_offset,
                end_offset: last.end_offset,
                replaced: run.extents.iter().map(|extent| extent.segment).collect(),
                extents: vec![extent],
            });
        }
        self.rewritten += plan.bytes;
        self.commit(&change);
    }

    fn compact(&mut self, budget: &mut Budget) {
        while let Some(plan) = plan(
            &self.state,
            |_| true,
            |_| true,
            |id| id.sequence + 100 < self.sequence,
            JOB_BYTES.min(budget.bytes()),
        ) {
            assert!(plan.bytes <= budget.bytes());
            budget.spend(plan.bytes);
            self.carry_out(&plan);
        }
    }

    fn longest(&self) -> usize {
        self.state.streams.values().map(|stream| stream.extents.len()).max().unwrap_or(0)
    }

    fn retire(&mut self, stream: u32, keep: usize) {
        let there = &self.state.streams[&key(stream)];
        let gone = there.extents.len().saturating_sub(keep);
        let start = there.extents.get(gone).map_or(there.end_offset, |extent| extent.base_offset);
        let update = StreamUpdate {
            log_start: start,
            end_offset: there.end_offset,
            extent: None,
            epochs: Vec::new(),
            producers: Vec::new(),
        };
        self.commit(&VolumeChange {
            streams: vec![(key(stream), update)],
            ..VolumeChange::default()
        });
    }
}

#[test]
fn large_extents_are_left_where_they_are() {
    let mut model = Model::default();
    for _ in 0..100 {
        model.upload(&[(1, LARGE_BYTES as u32), (2, 5 << 20)]);
    }
    assert_eq!(plan(&model.state, |_| true, |_| true, |_| true, u64::MAX), None);
}

#[test]
fn slow_streams_keep_few_extents_at_little_cost() {
    let mut model = Model::default();
    let streams: Vec<_> = (0..20).map(|n| (n, 2_000)).collect();
    let mut budget = Budget::new();
    for _ in 0..2_000 {
        model.upload(&streams);
        budget.earn(u64::MAX / 1000);
        model.compact(&mut budget);
        assert!(model.longest() <= 2 * RUN, "{}", model.longest());
    }
    // 4 MB of each stream in 2 kB pieces: about one rewrite for each factor of sixteen.
    assert!(model.rewritten <= model.uploaded * 3, "{} of {}", model.rewritten, model.uploaded);
}

#[test]
fn extents_that_make_a_large_one_are_rewritten_once() {
    let mut model = Model::default();
    let streams: Vec<_> = (0..64).map(|n| (n, 300_000)).collect();
    let mut budget = Budget::new();
    for _ in 0..200 {
        model.upload(&streams);
        budget.earn(u64::MAX / 1000);
        model.compact(&mut budget);
    }
    assert!(model.rewritten <= model.uploaded, "{} of {}", model.rewritten, model.uploaded);
    assert!(model.longest() <= 200 * 300_000 / LARGE_BYTES as usize + RUN, "{}", model.longest());
}

#[test]
fn a_segment_of_which_most_is_dead_is_freed() {
    let mut model = Model::default();
    model.upload(&[(1, 3 << 20), (2, 100_000), (3, 50_000)]);
    assert_eq!(plan(&model.state, |_| true, |_| true, |_| true, u64::MAX), None);
    model.retire(1, 0);
    let freed =
        plan(&model.state, |_| true, |_| true, |_| true, u64::MAX).expect("it is mostly dead");
    assert_eq!(freed.bytes, 150_000);
    assert_eq!(plan(&model.state, |_| true, |_| true, |_| false, u64::MAX), None, "not yet");
    assert_eq!(
        plan(&model.state, |key| key.partition != 3, |_| true, |_| true, u64::MAX),
        None,
        "all or nothing"
    );
    let old = *model.state.segments.keys().next().unwrap();
    model.carry_out(&freed);
    assert!(!model.state.segments.contains_key(&old));
}

proptest! {
    /// Whatever is uploaded and retired, the bytes rewritten stay within the budget, and all that is
    /// planned can be committed.
    #[test]
    fn the_bucket_takes_at_most_its_multiple(
        rounds in proptest::collection::vec(
            (proptest::collection::btree_map(0u32..12, 40u32..600_000, 1..12), 0u32..12, 0usize..50),
            20..120,
        ),
    ) {
        let mut model = Model::default();
        let mut budget = Budget::new();
        let first = budget.bytes();
        for (lens, retired, keep) in rounds {
            let lens: Vec<_> = lens.into_iter().collect();
            let before = model.uploaded;
            model.upload(&lens);
            budget.earn(model.uploaded - before);
            if model.state.streams.contains_key(&key(retired)) {
                model.retire(retired, keep);
            }
            model.compact(&mut budget);
            prop_assert!(model.rewritten <= model.uploaded / 2 + first);
        }
    }
}
