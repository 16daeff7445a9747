//! Which extents to rewrite next. Pure.
//!
//! Uploads leave each stream a small extent in every segment. A plan takes neighbouring small extents of
//! streams and makes one of each run, many runs in one new segment. Extents that are large already are
//! left where they are, so a byte is rewritten until it lies in a large extent and never again. Runs are
//! chosen by what they save for each byte rewritten; the budget bounds the rest.
//!
//! Two things make a run worth it: together they are a large extent, or there are so many that the stream
//! would be slow to read and its manifest long. In the second case the largest has to be small beside the
//! whole, so that what was rewritten once is not rewritten for a few small newcomers: sizes grow
//! by a factor, and the extents of a stream stay within that factor times a logarithm.
//!
//! A segment of which most is dead (retention, deleted topics, other compactions) holds its bytes in the
//! bucket until the last of its extents is gone; what is left of it is rewritten to free it, if it has not
//! found its way into runs for a long time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use sluice_format::{Extent, SegmentId, StreamKey, VolumeState};

/// An extent of this size is left where it is.
pub(super) const LARGE_BYTES: u64 = 4 << 20;
/// More small extents than this in a row are merged even if they make no large one.
const RUN: usize = 32;
/// In such a run the largest has at most this part of the whole.
const LARGEST_PART: u64 = 16;
/// One extent less is worth as much as this many bytes of room in the bucket.
const EXTENT_WORTH_BYTES: u64 = 64 << 10;
/// What a rewrite must save: at least this part of what it rewrites.
const WORTH_PART: u64 = 32;
/// A segment is freed when at most this part of it lives, and it is at least so large.
const LIVE_PART: u64 = 4;
const FREED_LEAST_BYTES: u64 = 1 << 20;

/// A run of a stream's extents that becomes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The stream.
    pub(super) stream: StreamKey,
    /// In order of offsets, contiguous.
    pub(super) extents: Vec<Extent>,
}

/// What one job rewrites: into one segment, streams ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Ascending by stream and offset, never overlapping.
    pub(super) runs: Vec<Run>,
    /// Bytes of all runs.
    pub(super) bytes: u64,
}

/// Runs that only make sense together, and what they save.
struct Candidate {
    runs: Vec<(StreamKey, Range<usize>)>,
    bytes: u64,
    saved_bytes: u64,
}

/// The best next job of at most `max_bytes`; none if nothing is worth it. `may` says of which streams it
/// may be made at all, `may_extent` of which of their extents, `is_old` which segments may be freed.
pub(super) fn plan(
    state: &VolumeState,
    may: impl Fn(StreamKey) -> bool,
    may_extent: impl Fn(&Extent) -> bool,
    is_old: impl Fn(SegmentId) -> bool,
    max_bytes: u64,
) -> Option<Plan> {
    let mut candidates = Vec::new();
    let mut live: BTreeMap<SegmentId, Vec<(StreamKey, usize)>> = BTreeMap::new();
    let mostly_dead = mostly_dead(state, is_old);
    for (key, stream) in &state.streams {
        // Most streams have nothing to do; the state is locked meanwhile, so that is found out first.
        let few = stream.extents.len() < 2;
        if stream.sealed
            || few && mostly_dead.is_empty()
            || !stream.extents.iter().any(&may_extent)
            || !may(*key)
        {
            continue;
        }
        let extents: Vec<_> = stream.extents.iter().copied().collect();
        let mergeable: Vec<bool> = extents.iter().map(&may_extent).collect();
        for run in runs(&extents, &mergeable) {
            let bytes = bytes_of(&extents[run.clone()]);
            let saved_bytes = (run.len() as u64 - 1) * EXTENT_WORTH_BYTES;
            candidates.push(Candidate { runs: vec![(*key, run)], bytes, saved_bytes });
        }
        for (at, extent) in extents.iter().enumerate() {
            if mostly_dead.contains_key(&extent.segment) && mergeable[at] {
                live.entry(extent.segment).or_default().push((*key, at));
            }
        }
    }
    for (id, extents) in live {
        let segment = state.segments[&id];
        // All of them, or it stays.
        if extents.len() == segment.live_extents as usize {
            let bytes = mostly_dead[&id];
            let runs = extents.into_iter().map(|(key, at)| (key, at..at + 1)).collect();
            candidates.push(Candidate { runs, bytes, saved_bytes: segment.len - bytes });
        }
    }
    candidates.retain(|candidate| {
        candidate.bytes <= max_bytes && candidate.saved_bytes >= candidate.bytes / WORTH_PART
    });
    // Descending by what is saved for each byte; empty extents first.
    candidates.sort_by_key(|candidate| {
        std::cmp::Reverse(
            (u128::from(candidate.saved_bytes) << 64) / u128::from(candidate.bytes + 1),
        )
    });
    choose(state, candidates, max_bytes)
}

fn choose(state: &VolumeState, candidates: Vec<Candidate>, max_bytes: u64) -> Option<Plan> {
    let mut taken: BTreeSet<(StreamKey, usize)> = BTreeSet::new();
    let mut chosen = Vec::new();
    let mut bytes = 0;
    for candidate in candidates {
        let mut places =
            candidate.runs.iter().flat_map(|(key, run)| run.clone().map(|at| (*key, at)));
        if bytes + candidate.bytes > max_bytes || places.any(|place| taken.contains(&place)) {
            continue;
        }
        for (key, run) in candidate.runs {
            taken.extend(run.clone().map(|at| (key, at)));
            chosen.push((key, run));
        }
        bytes += candidate.bytes;
    }
    chosen.sort_by_key(|(key, run)| (*key, run.start));
    let runs: Vec<_> = chosen
        .into_iter()
        .map(|(stream, run)| Run {
            stream,
            extents: state.streams[&stream].extents.range(run).copied().collect(),
        })
        .collect();
    (!runs.is_empty()).then_some(Plan { runs, bytes })
}

/// Runs of small extents that are worth merging.
fn runs(extents: &[Extent], mergeable: &[bool]) -> Vec<Range<usize>> {
    let mut out = Vec::new();
    let small = |at: usize| mergeable[at] && u64::from(extents[at].data_len) < LARGE_BYTES;
    let mut at = 0;
    while at < extents.len() {
        if !small(at) {
            at += 1;
            continue;
        }
        let mut start = at;
        let mut bytes = 0;
        while at < extents.len() && small(at) {
            bytes += u64::from(extents[at].data_len);
            at += 1;
            if bytes >= LARGE_BYTES {
                if at - start > 1 {
                    out.push(start..at);
                }
                start = at;
                bytes = 0;
            }
        }
        out.extend(many(&extents[start..at]).map(|run| start + run.start..start + run.end));
    }
    out
}

/// The longest end of `extents` whose largest is small beside the whole, if they are many.
fn many(extents: &[Extent]) -> Option<Range<usize>> {
    if extents.len() < RUN {
        return None;
    }
    let (mut total, mut largest) = (0, 0);
    let mut found = None;
    for (at, extent) in extents.iter().enumerate().rev() {
        let len = u64::from(extent.data_len);
        total += len;
        largest = largest.max(len);
        if largest * LARGEST_PART <= total && extents.len() - at > 1 {
            found = Some(at..extents.len());
        }
    }
    found
}

/// Segments of which little lives, with the bytes that do.
fn mostly_dead(
    state: &VolumeState,
    is_old: impl Fn(SegmentId) -> bool,
) -> BTreeMap<SegmentId, u64> {
    let mut live: BTreeMap<SegmentId, u64> = state
        .segments
        .iter()
        .filter(|(id, segment)| segment.len >= FREED_LEAST_BYTES && is_old(**id))
        .map(|(id, _)| (*id, 0))
        .collect();
    for extent in state.streams.values().flat_map(|stream| &stream.extents) {
        if let Some(bytes) = live.get_mut(&extent.segment) {
            *bytes += u64::from(extent.data_len);
        }
    }
    live.retain(|id, bytes| *bytes <= state.segments[id].len / LIVE_PART);
    live
}

fn bytes_of(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| u64::from(extent.data_len)).sum()
}

#[cfg(test)]
mod tests;
