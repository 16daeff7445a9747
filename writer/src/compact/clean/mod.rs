//! Key compaction of one stream, to the semantics of Kafka's LogCleaner: of the records with one key the
//! last stays, with its offset.
//!
//! ```text
//!   log start        first dirty            end        limit
//!  ──────┼────────────────┼──────────────────┼───────────┼─────────▶ offsets in the bucket
//!        │ cleaned before │ keys are mapped  │ map full  │ too young, or in an open transaction
//!        └───────── rewritten, group by group┘
//! ```
//!
//! The dirty part is read and the last offset of each of its keys noted ([`KeyMap`], bounded: a part is
//! cleaned if it does not fit). Then everything from the log start on is read again and records that have a
//! newer one are left out ([`Filter`]); aborted data, and tombstones and transaction markers whose time
//! has come, go, too. Extents are rewritten a few at a time and committed in order of offsets, so a
//! crash between leaves a log that is correct and partly cleaned: older records of a key always go before
//! newer ones do. What nothing was removed from is left as it is. At the end the cleaned offset moves.
//!
//! Only what is in the bucket is cleaned: the tail on the volume is what the active segment is to Kafka.

mod due;
mod filter;
mod keys;
mod outcomes;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};

use bytes::{Bytes, BytesMut};
use object_store::ObjectStore;
use object_store::path::Path;
use sluice_format::segment::{Block, Piece};
use sluice_format::{Extent, Replacement, SegmentId, StreamKey, StreamState, TransactionSection};
use sluice_wire::batch::{BatchView, Batches};

pub(super) use self::due::{Due, Rules, due};
use self::filter::{Filter, Kept};
pub(super) use self::keys::KeyMap;
use self::outcomes::Outcomes;
use super::Failed;
use super::blocks::Blocks;
use super::output::{Target, Written, leader_epoch, nothing};
use super::pace::Pace;
use super::plan::LARGE_BYTES;
use crate::commit::Change;

/// A compressed batch may hold this much uncompressed when its records are looked at.
const MAX_INFLATED_BYTES: usize = 64 << 20;
/// Segments are this many times larger at most before it is known whether anything is removed.
const UNDECIDED: u64 = 4;

/// What a cleaning did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Cleaned {
    /// Where the next one begins.
    pub(super) to: i64,
    /// Records that were removed.
    pub(super) records: u64,
    /// Bytes that were written.
    pub(super) written_bytes: u64,
    /// The new segments.
    pub(super) written: Vec<SegmentId>,
}

/// One cleaning of one stream.
pub(super) struct Cleaning<'a> {
    pub(super) stream: StreamKey,
    /// As it was when the cleaning was decided.
    pub(super) state: &'a StreamState,
    pub(super) due: Due,
    pub(super) delete_retention_ms: u64,
    pub(super) now_ms: i64,
    pub(super) segment_bytes: u64,
    pub(super) target: &'a Target<'a>,
    pub(super) bucket: &'a dyn ObjectStore,
    pub(super) pace: &'a Pace,
}

impl Cleaning<'_> {
    /// Cleans as much as `keys`, which must be empty, can hold.
    pub(super) async fn run(&self, mut keys: KeyMap) -> Result<Cleaned, Failed> {
        let mut outcomes = None;
        let mut limit = self.due.limit;
        let end = loop {
            match self.map_keys(&mut keys, outcomes.as_ref(), limit).await? {
                Mapped::To(end) => break end,
                Mapped::NeedsOutcomes => {
                    let found = self.outcomes().await?;
                    limit = limit.min(found.settled_to()).max(self.due.first_dirty);
                    outcomes = Some(found);
                    keys.clear();
                }
            }
        };
        if end <= self.due.first_dirty {
            return Ok(Cleaned { to: self.due.first_dirty, ..Cleaned::default() });
        }
        let outcomes = outcomes.unwrap_or_default();
        let last_of_producers: HashMap<i64, i64> = self
            .state
            .producers
            .iter()
            .filter_map(|producer| {
                let last = producer.batches.last()?;
                let records =
                    i64::from(last.last_sequence.wrapping_sub(last.first_sequence) & i32::MAX);
                Some((producer.id, last.base_offset + records))
            })
            .collect();
        let horizon_ms = self.now_ms.saturating_add_unsigned(self.delete_retention_ms);
        let filter =
            Filter::new(&keys, &outcomes, &last_of_producers, end, self.now_ms, horizon_ms);
        self.rewrite(filter, end).await
    }

    /// Extents that hold offsets from `from` to before `to`.
    fn extents(&self, from: i64, to: i64) -> impl Iterator<Item = &Extent> {
        let extents = self.state.extents.iter();
        extents.filter(move |extent| extent.end_offset > from && extent.base_offset < to)
    }

    async fn outcomes(&self) -> Result<Outcomes, Failed> {
        let mut outcomes = Outcomes::default();
        for extent in self.extents(self.due.first_dirty, i64::MAX) {
            let mut blocks = Blocks::new(self.target.keys, extent);
            while let Some((block, read)) = blocks.next(self.bucket).await? {
                for batch in batches(&block, extent)? {
                    if !outcomes.see(&batch) {
                        return Ok(outcomes);
                    }
                }
                self.pace.spent(read).await?;
            }
        }
        outcomes.end(self.state.end_offset);
        Ok(outcomes)
    }

    /// Notes the dirty part's keys. Gives the offset up to which all are noted.
    async fn map_keys(
        &self,
        keys: &mut KeyMap,
        outcomes: Option<&Outcomes>,
        limit: i64,
    ) -> Result<Mapped, Failed> {
        let first_dirty = self.due.first_dirty;
        let mut end = first_dirty;
        for extent in self.extents(first_dirty, limit) {
            let mut blocks = Blocks::new(self.target.keys, extent);
            while let Some((block, read)) = blocks.next(self.bucket).await? {
                for batch in batches(&block, extent)? {
                    let next = batch.last_offset().saturating_add(1);
                    if next <= first_dirty {
                        continue;
                    }
                    if next > limit {
                        return Ok(Mapped::To(end));
                    }
                    let attributes = batch.attributes();
                    let mut wanted = !attributes.is_control();
                    if wanted && attributes.is_transactional() {
                        let Some(outcomes) = outcomes else { return Ok(Mapped::NeedsOutcomes) };
                        wanted = !outcomes.is_aborted(batch.producer_id(), batch.base_offset());
                    }
                    // A batch that has more keys than fit at all is passed: older records stay then.
                    if wanted && !map_batch(&batch, first_dirty, keys) && end > first_dirty {
                        return Ok(Mapped::To(end));
                    }
                    end = next;
                }
                self.pace.spent(read).await?;
                tokio::task::yield_now().await;
            }
        }
        Ok(Mapped::To(limit))
    }

    /// Rewrites what has something to be removed, from the log start to `end`.
    async fn rewrite(&self, mut filter: Filter<'_>, end: i64) -> Result<Cleaned, Failed> {
        let mut done = Cleaned { to: end, ..Cleaned::default() };
        let mut group = Group::default();
        for extent in self.extents(i64::MIN, end) {
            let full = group.bytes() + u64::from(extent.data_len) > self.segment_bytes;
            if full && group.bytes() > 0 {
                self.close(std::mem::take(&mut group), None, &mut done).await?;
            }
            self.rewrite_extent(extent, &mut filter, &mut group).await?;
            if !group.changed && group.bytes() >= LARGE_BYTES {
                self.close(std::mem::take(&mut group), None, &mut done).await?;
            }
        }
        self.close(group, Some((self.stream, end)), &mut done).await?;
        done.records = filter.removed();
        Ok(done)
    }

    async fn rewrite_extent(
        &self,
        extent: &Extent,
        filter: &mut Filter<'_>,
        group: &mut Group,
    ) -> Result<(), Failed> {
        let mut at = group.begin(extent);
        let mut blocks = Blocks::new(self.target.keys, extent);
        // First: what is written of the extent on the way lists its markers.
        group.says(blocks.section(self.bucket).await?);
        while let Some((block, read)) = blocks.next(self.bucket).await? {
            let kept = keep(&block, extent, filter)?;
            group.forget_markers(filter.gone_markers());
            group.changed |= kept.changed;
            let end_offset = block.end_offset;
            if !kept.bytes.is_empty() {
                group.push(Piece {
                    base_offset: at,
                    end_offset,
                    max_timestamp: kept.max_timestamp,
                    batches: kept.batches,
                    leader_epoch: kept.leader_epoch,
                    bytes: kept.bytes,
                });
                at = end_offset;
            }
            let bound = if group.changed { 1 } else { UNDECIDED };
            if group.held_bytes >= self.segment_bytes * bound {
                let section = group.section_before(at);
                let written = self.target.write(vec![(self.stream, group.take(), section)]).await?;
                self.pace.spent(written.len).await?;
                group.written.push(written);
            }
            self.pace.spent(read).await?;
            tokio::task::yield_now().await;
        }
        group.at = at;
        Ok(())
    }

    /// Commits a group in which something was removed, and the cleaned offset if it is the last.
    async fn close(
        &self,
        mut group: Group,
        cleaned: Option<(StreamKey, i64)>,
        done: &mut Cleaned,
    ) -> Result<(), Failed> {
        if !group.changed {
            // Another cleaning may find the same: what was written for nothing goes.
            let paths = group
                .written
                .iter()
                .map(|written| Path::from(self.target.keys.segment(written.id)));
            self.target.committer.deletions().condemn(paths, std::time::Duration::ZERO);
            if cleaned.is_some() {
                let change =
                    Change::Compact { segments: Vec::new(), replacements: Vec::new(), cleaned };
                self.target.committer.commit(change).await?;
            }
            return Ok(());
        }
        let pieces = group.finish();
        if !pieces.is_empty() {
            let section = group.section();
            let written = self.target.write(vec![(self.stream, pieces, section)]).await?;
            group.written.push(written);
        }
        let (Some(first), Some(last)) = (group.sources.first(), group.sources.last()) else {
            return Ok(());
        };
        let segments: Vec<(SegmentId, u64)> = group.written.iter().map(|w| (w.id, w.len)).collect();
        done.written.extend(segments.iter().map(|(id, _)| *id));
        done.written_bytes += segments.iter().map(|(_, len)| len).sum::<u64>();
        let replacement = Replacement {
            stream: self.stream,
            base_offset: first.base_offset,
            end_offset: last.end_offset,
            replaced: group.sources.iter().map(|extent| extent.segment).collect(),
            extents: group
                .written
                .iter()
                .flat_map(|w| &w.extents)
                .map(|(_, extent)| *extent)
                .collect(),
        };
        let change = Change::Compact {
            segments: segments.clone(),
            replacements: vec![replacement],
            cleaned,
        };
        self.target.committer.commit(change).await?;
        let state = self.target.committer.state().read();
        // Retention or a deleted topic came first, and the next cleaning looks anew.
        match segments.iter().all(|(id, _)| state.segments.contains_key(id)) {
            true => Ok(()),
            false => Err(Failed::Stale),
        }
    }
}

enum Mapped {
    To(i64),
    /// There is transactional data: what became of it has to be known first.
    NeedsOutcomes,
}

/// False if a key found no room.
fn map_batch(batch: &BatchView, from: i64, keys: &mut KeyMap) -> bool {
    let Ok(records) = batch.records(MAX_INFLATED_BYTES) else { return true };
    for record in records {
        // What cannot be read is kept as it is, and nothing goes on its account.
        let Ok(record) = record else { return true };
        if let Some(key) = &record.key
            && record.offset >= from
            && !keys.put(key, record.offset)
        {
            return false;
        }
    }
    true
}

/// The batches of a block; anything else in it is damage that its checksum does not show.
fn batches(block: &Block, extent: &Extent) -> Result<Vec<BatchView>, Failed> {
    Batches::new(block.payload.clone())
        .collect::<Result<_, _>>()
        .map_err(|error| Failed::Content { segment: extent.segment, error })
}

/// What is left of a block.
struct KeptBlock {
    bytes: Bytes,
    changed: bool,
    batches: u32,
    max_timestamp: i64,
    leader_epoch: u32,
}

fn keep(block: &Block, extent: &Extent, filter: &mut Filter<'_>) -> Result<KeptBlock, Failed> {
    let mut kept = KeptBlock {
        bytes: Bytes::new(),
        changed: false,
        batches: 0,
        max_timestamp: -1,
        leader_epoch: 0,
    };
    let mut left: Vec<Bytes> = Vec::new();
    for batch in batches(block, extent)? {
        let bytes = match filter.batch(&batch) {
            Kept::Same => batch.into_bytes(),
            Kept::Changed(bytes) => {
                kept.changed = true;
                bytes
            }
            Kept::Gone => {
                kept.changed = true;
                continue;
            }
        };
        kept.batches += 1;
        kept.leader_epoch = leader_epoch(&bytes);
        // Of an emptied batch no time remains.
        if let Ok(view) = BatchView::new(&bytes[..])
            && view.record_count() > 0
        {
            kept.max_timestamp = kept.max_timestamp.max(view.max_timestamp());
        }
        left.push(bytes);
    }
    if !kept.changed {
        kept.bytes = block.payload.clone();
        kept.max_timestamp = block.max_timestamp;
    } else {
        let mut joined = BytesMut::with_capacity(left.iter().map(Bytes::len).sum());
        for bytes in left {
            joined.extend_from_slice(&bytes);
        }
        kept.bytes = joined.freeze();
    }
    Ok(kept)
}

/// Neighbouring extents that are rewritten and committed together.
#[derive(Default)]
struct Group {
    sources: Vec<Extent>,
    written: Vec<Written>,
    held: Vec<Piece>,
    held_bytes: u64,
    changed: bool,
    /// Up to where pieces cover the offsets.
    at: i64,
    /// What the sources say that no written extent says yet.
    section: TransactionSection,
}

impl Group {
    /// Takes an extent in; gives the offset from which on offsets are not covered yet.
    fn begin(&mut self, extent: &Extent) -> i64 {
        if self.sources.is_empty() {
            self.at = extent.base_offset;
        }
        self.sources.push(*extent);
        self.at
    }

    /// Markers went: who reads committed records must not wait for them to come.
    fn forget_markers(&mut self, gone: &HashSet<i64>) {
        if gone.is_empty() {
            return;
        }
        self.section.aborted.retain(|aborted| !gone.contains(&aborted.last_offset));
    }

    /// Takes in what a source says.
    fn says(&mut self, source: TransactionSection) {
        self.section.aborted.extend(source.aborted);
        self.section.producers = source.producers;
    }

    /// What the extent says that ends at `end`, inside a source. The producers as of there are not known.
    fn section_before(&mut self, end: i64) -> TransactionSection {
        let before = self.section.aborted.partition_point(|aborted| aborted.last_offset < end);
        let aborted = self.section.aborted.drain(..before).collect();
        TransactionSection { aborted, producers: Vec::new() }
    }

    /// What the last extent says.
    fn section(&mut self) -> TransactionSection {
        std::mem::take(&mut self.section)
    }

    fn push(&mut self, piece: Piece) {
        self.held_bytes += piece.bytes.len() as u64;
        self.held.push(piece);
    }

    fn bytes(&self) -> u64 {
        self.held_bytes + self.written.iter().map(|written| written.len).sum::<u64>()
    }

    fn take(&mut self) -> Vec<Piece> {
        self.held_bytes = 0;
        std::mem::take(&mut self.held)
    }

    /// The last pieces, which cover the rest of the group's offsets.
    fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = self.take();
        let Some(last) = self.sources.last() else { return pieces };
        if let Some(piece) = pieces.last_mut() {
            piece.end_offset = last.end_offset;
        } else if self.at < last.end_offset {
            pieces.push(nothing(self.at, last.end_offset, last.leader_epoch));
        }
        pieces
    }
}
