//! What a volume has in the bucket, as one value: the sum of its manifests.
//!
//! Owned by the writer that owns the volume; readers hold copies that they advance by the same
//! [`VolumeChange`]s. [`VolumeState::apply`] checks every invariant before it changes anything, so a
//! state that exists is valid:
//!
//! - versions grow by one; the volume epoch and the trim lsn never go back;
//! - the extents of a stream are contiguous, and the last ends at the stream's end offset;
//! - the log start and the cleaned offset never go back and lie within the stream;
//! - every extent lies in a segment that is listed, and a listed segment has live extents;
//! - a replacement takes the place of extents that are there, over exactly their offsets;
//! - a stream that is sealed does not change, until its move ends (`moves.rs`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use crate::StreamKey;
use crate::manifest::{Replacement, StreamUpdate, VolumeChange};
use crate::moves::Departed;
use crate::segment::{Extent, SegmentId};

/// One producer's last batches in a stream, so that a retry after a failover is recognised.
/// Its batches are oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerSnapshot {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// When it last wrote, ms since the epoch.
    pub last_ms: i64,
    /// The epoch of the coordinator that wrote its last marker; -1 for none.
    pub coordinator_epoch: i32,
    /// The first offset of its transaction, if one is open.
    pub open_since: Option<i64>,
    /// Its last batches, oldest first; none if only its epoch is known.
    pub batches: Vec<ProducerBatch>,
}

/// One batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerBatch {
    /// Sequence of the first record.
    pub first_sequence: i32,
    /// Sequence of the last record.
    pub last_sequence: i32,
    /// Offset of the first record.
    pub base_offset: i64,
    /// The batch's largest timestamp, ms.
    pub timestamp_ms: i64,
}

/// One stream in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamState {
    /// The first offset that exists.
    pub log_start: i64,
    /// One past the last offset in the bucket.
    pub end_offset: i64,
    /// In order of offsets, contiguous.
    pub extents: VecDeque<Extent>,
    /// (leader epoch, first offset written under it), ascending.
    pub epochs: Vec<(u32, i64)>,
    /// Producers as of `end_offset`.
    pub producers: Vec<ProducerSnapshot>,
    /// Key compaction has seen every record below; 0 where it never ran.
    pub cleaned_to: i64,
    /// Grows as the stream moves between volumes, see `moves.rs`.
    pub moves: u32,
    /// The stream's leader epoch is the volume epoch and this, so that it grows from volume to volume.
    pub epoch_base: i32,
    /// The stream is about to be another volume's: nothing of it changes.
    pub sealed: bool,
}

impl StreamState {
    /// The stream's leader epoch while its volume is owned under `volume_epoch`.
    pub fn leader_epoch(&self, volume_epoch: u32) -> u32 {
        volume_epoch.saturating_add_signed(self.epoch_base)
    }

    /// Whether its parts fit.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        if self.log_start < 0 || self.log_start > self.end_offset {
            return Err(Violation::LogStart);
        }
        if self.cleaned_to < 0 || self.cleaned_to > self.end_offset {
            return Err(Violation::Cleaned);
        }
        let mut end = None;
        for extent in &self.extents {
            if end.is_some_and(|end| end != extent.base_offset) {
                return Err(Violation::Hole);
            }
            end = Some(extent.end_offset);
        }
        if end.is_some_and(|end| end != self.end_offset) {
            return Err(Violation::Hole);
        }
        Ok(())
    }

    /// Bytes of all extents.
    pub fn data_bytes(&self) -> u64 {
        self.extents.iter().map(|extent| u64::from(extent.data_len)).sum()
    }

    /// The index of the extent that holds `offset`, or of the first one after it.
    pub fn extent_at(&self, offset: i64) -> Option<usize> {
        let index = self.extents.partition_point(|extent| extent.end_offset <= offset);
        (index < self.extents.len()).then_some(index)
    }

    /// Where the extents lie that `replacement` takes the place of; none if they are not all there any
    /// more (retention, or another replacement), or never were.
    pub fn replaced(&self, replacement: &Replacement) -> Option<Range<usize>> {
        let start = self.extent_at(replacement.base_offset)?;
        let end = start + replacement.replaced.len();
        if replacement.replaced.is_empty() || end > self.extents.len() {
            return None;
        }
        let run = self.extents.range(start..end);
        let there =
            run.clone().map(|extent| extent.segment).eq(replacement.replaced.iter().copied());
        let begins = run.clone().next().map(|extent| extent.base_offset);
        let ends = run.clone().next_back().map(|extent| extent.end_offset);
        let exact = begins == Some(replacement.base_offset) && ends == Some(replacement.end_offset);
        (there && exact).then_some(start..end)
    }
}

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentState {
    /// Bytes of the object.
    pub len: u64,
    /// How many extents of it are still part of a stream; each stream that it is lent to counts for one more.
    pub live_extents: u32,
}

/// The coordinator's state as of an offset of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoordinatorSnapshot {
    /// The snapshot object.
    pub id: SegmentId,
    /// The log is replayed from here on top of the snapshot.
    pub offset: i64,
}

/// Everything a volume has in the bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeState {
    /// The manifest version that this is; 0 before the first.
    pub version: u64,
    /// The volume epoch of the owner that wrote it.
    pub epoch: u32,
    /// The write-ahead log is replayed from here.
    pub trim_lsn: u64,
    /// By stream.
    pub streams: BTreeMap<StreamKey, StreamState>,
    /// By segment.
    pub segments: BTreeMap<SegmentId, SegmentState>,
    /// The newest coordinator snapshot.
    pub coordinator: Option<CoordinatorSnapshot>,
    /// Streams that have moved to other volumes, as long as their topics are there.
    pub departed: BTreeMap<StreamKey, Departed>,
}

/// Why a change does not follow from a state: a bug, or a manifest that is damaged or foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Not the next version.
    #[error("manifest versions must grow by one")]
    Version,
    /// An older owner.
    #[error("the volume epoch went back")]
    Epoch,
    /// The log would be replayed from before.
    #[error("the trim lsn went back")]
    Trim,
    /// An extent that does not begin where its stream ends.
    #[error("extents of a stream are not contiguous")]
    Hole,
    /// A log start that went back or lies beyond the end.
    #[error("a log start is out of range")]
    LogStart,
    /// An extent in a segment that is not there, or a segment twice or without extents.
    #[error("segments and extents do not match")]
    Segment,
    /// A stream twice or out of order.
    #[error("a stream is listed twice")]
    Duplicate,
    /// A replacement of extents that are not there any more, or over other offsets than theirs.
    #[error("extents to be replaced are not there")]
    Stale,
    /// A cleaned offset that went back or lies beyond the end.
    #[error("a cleaned offset is out of range")]
    Cleaned,
    /// A change of a stream that is sealed.
    #[error("a stream that is about to move may not change")]
    Sealed,
    /// A step of a move that does not follow from what is there.
    #[error("a step of a move does not fit")]
    Move,
}

impl VolumeState {
    /// The state after `change`, which must be version `version`. Checks all, then changes all.
    ///
    /// Returns the segments that have no live extents any more: they may be deleted once the change
    /// is committed.
    pub fn apply(
        &mut self,
        version: u64,
        change: &VolumeChange,
    ) -> Result<Vec<SegmentId>, Violation> {
        self.check(version, change)?;
        self.version = version;
        self.epoch = change.epoch;
        self.trim_lsn = change.trim_lsn;
        if let Some(snapshot) = change.coordinator {
            self.coordinator = Some(snapshot);
        }
        for (segment, len) in &change.added_segments {
            self.segments.insert(*segment, SegmentState { len: *len, live_extents: 0 });
        }
        for key in &change.removed_streams {
            self.let_go(key);
        }
        for replacement in &change.replacements {
            self.replace(replacement);
        }
        for (key, offset) in &change.cleaned {
            if let Some(stream) = self.streams.get_mut(key) {
                stream.cleaned_to = *offset;
            }
        }
        for (key, update) in &change.streams {
            self.update_stream(*key, update);
        }
        for (key, step) in &change.moves {
            self.take_step(key, step);
        }
        let dead: Vec<_> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.live_extents == 0)
            .map(|(id, _)| *id)
            .collect();
        for id in &dead {
            self.segments.remove(id);
        }
        Ok(dead)
    }

    fn update_stream(&mut self, key: StreamKey, update: &StreamUpdate) {
        let Self { streams, segments, .. } = self;
        let stream = streams.entry(key).or_default();
        if let Some(extent) = update.extent {
            if let Some(segment) = segments.get_mut(&extent.segment) {
                segment.live_extents += 1;
            }
            stream.extents.push_back(extent);
        }
        stream.log_start = update.log_start;
        stream.end_offset = update.end_offset;
        stream.epochs.clone_from(&update.epochs);
        stream.producers.clone_from(&update.producers);
        while let Some(first) = stream.extents.front()
            && first.end_offset <= stream.log_start
        {
            release(segments, first.segment);
            stream.extents.pop_front();
        }
    }

    fn replace(&mut self, replacement: &Replacement) {
        let Self { streams, segments, .. } = self;
        let Some(stream) = streams.get_mut(&replacement.stream) else { return };
        let Some(run) = stream.replaced(replacement) else { return };
        for extent in &replacement.extents {
            if let Some(segment) = segments.get_mut(&extent.segment) {
                segment.live_extents += 1;
            }
        }
        let mut rest = stream.extents.split_off(run.start);
        for extent in rest.drain(..run.len()) {
            release(segments, extent.segment);
        }
        stream.extents.extend(&replacement.extents);
        stream.extents.append(&mut rest);
    }

    /// Whether `change` may follow as version `version`.
    pub fn check(&self, version: u64, change: &VolumeChange) -> Result<(), Violation> {
        if version != self.version + 1 {
            return Err(Violation::Version);
        }
        if change.epoch < self.epoch {
            return Err(Violation::Epoch);
        }
        if change.trim_lsn < self.trim_lsn {
            return Err(Violation::Trim);
        }
        if change.added_segments.iter().any(|(id, _)| self.segments.contains_key(id)) {
            return Err(Violation::Segment);
        }
        if change.streams.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Violation::Duplicate);
        }
        self.check_replacements(change)?;
        self.check_moves(change)?;
        for (key, update) in &change.streams {
            let stream = self.streams.get(key).filter(|_| !change.removed_streams.contains(key));
            if stream.is_some_and(|stream| stream.sealed) || self.departed.contains_key(key) {
                return Err(Violation::Sealed);
            }
            if let Some(extent) = &update.extent {
                let begins = stream.map_or(extent.base_offset, |stream| stream.end_offset);
                if extent.base_offset != begins || extent.end_offset != update.end_offset {
                    return Err(Violation::Hole);
                }
                if !change.added_segments.iter().any(|(id, _)| *id == extent.segment) {
                    return Err(Violation::Segment);
                }
            } else if stream.is_some_and(|stream| stream.end_offset != update.end_offset) {
                return Err(Violation::Hole);
            }
            let before = stream.map_or(0, |stream| stream.log_start);
            if update.log_start < before || update.log_start > update.end_offset {
                return Err(Violation::LogStart);
            }
        }
        Ok(())
    }

    /// Each step is made for the state that it finds, so a change has one, or nothing but steps that return.
    fn check_moves(&self, change: &VolumeChange) -> Result<(), Violation> {
        if change.moves.is_empty() {
            return Ok(());
        }
        let alone = change.streams.is_empty()
            && change.removed_streams.is_empty()
            && change.replacements.is_empty()
            && change.cleaned.is_empty()
            && change.added_segments.is_empty();
        let in_order = change.moves.windows(2).all(|pair| pair[0].0 < pair[1].0);
        if !alone || !in_order {
            return Err(Violation::Move);
        }
        change.moves.iter().try_for_each(|(key, step)| self.check_step(key, step))
    }

    fn check_replacements(&self, change: &VolumeChange) -> Result<(), Violation> {
        let place = |replacement: &Replacement| (replacement.stream, replacement.base_offset);
        if change.replacements.windows(2).any(|pair| {
            pair[0].stream == pair[1].stream && pair[0].end_offset > pair[1].base_offset
                || place(&pair[0]) >= place(&pair[1])
        }) {
            return Err(Violation::Duplicate);
        }
        if change.replacements.is_empty() && change.cleaned.is_empty() {
            return Ok(());
        }
        let added: BTreeSet<_> = change.added_segments.iter().map(|(id, _)| *id).collect();
        let stays = |key: &StreamKey| {
            let stays =
                |stream: &&StreamState| !stream.sealed && !change.removed_streams.contains(key);
            self.streams.get(key).filter(stays)
        };
        for replacement in &change.replacements {
            let there = stays(&replacement.stream).and_then(|stream| stream.replaced(replacement));
            if there.is_none() {
                return Err(Violation::Stale);
            }
            let mut at = replacement.base_offset;
            for extent in &replacement.extents {
                if extent.base_offset != at || extent.end_offset <= at {
                    return Err(Violation::Hole);
                }
                at = extent.end_offset;
                if !added.contains(&extent.segment) {
                    return Err(Violation::Segment);
                }
            }
            if at != replacement.end_offset {
                return Err(Violation::Hole);
            }
        }
        if change.cleaned.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            return Err(Violation::Duplicate);
        }
        for (key, offset) in &change.cleaned {
            let stream = stays(key).ok_or(Violation::Stale)?;
            if *offset < stream.cleaned_to || *offset > stream.end_offset {
                return Err(Violation::Cleaned);
            }
        }
        Ok(())
    }

    /// Checks a state that was read as a whole.
    pub fn validate(&self) -> Result<(), Violation> {
        let mut live: BTreeMap<SegmentId, u32> = BTreeMap::new();
        for stream in self.streams.values() {
            stream.check()?;
            for extent in &stream.extents {
                *live.entry(extent.segment).or_default() += 1;
            }
        }
        for (key, departed) in &self.departed {
            if self.streams.contains_key(key) {
                return Err(Violation::Move);
            }
            for id in &departed.lent {
                *live.entry(*id).or_default() += 1;
            }
        }
        let listed = self.segments.iter().map(|(id, segment)| (*id, segment.live_extents));
        if !live.into_iter().eq(listed) {
            return Err(Violation::Segment);
        }
        Ok(())
    }
}

pub(crate) fn release(segments: &mut BTreeMap<SegmentId, SegmentState>, id: SegmentId) {
    if let Some(segment) = segments.get_mut(&id) {
        segment.live_extents -= 1;
    }
}
