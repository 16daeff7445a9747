//! Compaction: what uploads left in many small pieces is put together, and what a newer record of the same
//! key has replaced is removed.
//!
//! One task a volume. From time to time it carries out what [`plan`] finds worth rewriting, within a
//! budget that is a share of what was uploaded ([`budget`]); and it cleans the dirtiest of the streams
//! whose topics are compacted ([`clean`]). One job runs at a time in a process. It reads and writes at a
//! bounded rate, not at all while uploads lag ([`pace`]), and holds a bounded number of bytes.
//!
//! What always holds: new segments are in the bucket before a change names them; a change takes the place of
//! exactly the extents that were read, or is dropped if they are not all there any more
//! ([`sluice_format::Replacement`]); replaced segments are deleted after the grace time of every other. Damage ends a
//! job and marks the stream or segment: it is not compacted any more by this owner, and nothing is removed.
//!
//! Not here: moving log starts (`retire`), and objects that no manifest names (`orphans`).

mod blocks;
mod budget;
mod clean;
mod merge;
mod output;
mod pace;
mod plan;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sluice_catalog::{Catalog, Topic};
use sluice_format::key::Keys;
use sluice_format::{SegmentId, StreamKey, StreamState};
use sluice_model::{Clock, Entropy, TopicId};
use sluice_wire::batch::BatchError;
use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior};

use self::blocks::ReadError;
use self::budget::Budget;
use self::clean::{Cleaning, Due, KeyMap, Rules};
use self::output::Target;
use self::pace::Pace;
use crate::commit::{Change, Committer, Ended};
use crate::objects::Objects;
use crate::options::{CompactionOptions, WriterOptions};
use crate::recovery::stream_of;
use crate::upload::StreamSource;

/// Jobs of one kind before the other kind has its turn.
const JOBS_A_ROUND: usize = 16;
/// A segment of which most is dead is freed at so many times the age at which it may be merged.
const FREE_AGES: u32 = 12;
/// Uploads that lag by so many segments hold compaction up.
const LAG_SEGMENTS: u64 = 3;

/// Why a job ended early. Nothing was removed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Blocks whose checksum holds but whose batches do not.
    #[error("segment {segment:?} holds batches that cannot be read: {error}")]
    Content { segment: SegmentId, error: BatchError },
    #[error("what was read is not there any more")]
    Stale,
    #[error(transparent)]
    Ended(#[from] Ended),
}

impl Failed {
    /// The segment in which trying again would find the same damage.
    fn damaged(&self) -> Option<SegmentId> {
        match self {
            Self::Read(ReadError::Damaged { segment, .. }) | Self::Content { segment, .. } => {
                Some(*segment)
            }
            Self::Read(ReadError::Bucket(_)) | Self::Stale | Self::Ended(_) => None,
        }
    }
}

/// Compacts one volume.
pub(crate) struct Compactor {
    committer: Committer,
    objects: Objects,
    keys: Keys,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: CompactionOptions,
    pace: Pace,
    /// One job at a time in the process.
    slot: Arc<Semaphore>,
    source: Arc<dyn StreamSource>,
    budget: Budget,
    /// Segments of this volume's own up to here were counted as uploaded, or are our own.
    counted: Option<SegmentId>,
    own: BTreeSet<SegmentId>,
    /// When which was the newest segment, so that the age of a segment is known.
    newest_at: VecDeque<(Instant, SegmentId)>,
    /// Segments that are damaged, and streams that cannot be cleaned because of one.
    damaged: HashSet<SegmentId>,
    uncleanable: HashSet<StreamKey>,
    /// Streams of which a cleaning could do nothing, and where they ended then.
    stuck: HashMap<StreamKey, i64>,
}

/// What a compactor works with beside the volume's own.
pub(crate) struct CompactorParts {
    pub(crate) committer: Committer,
    pub(crate) objects: Objects,
    pub(crate) keys: Keys,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) slot: Arc<Semaphore>,
    pub(crate) source: Arc<dyn StreamSource>,
}

/// The newest of the volume's own segments.
fn newest(committer: &Committer) -> Option<SegmentId> {
    let state = committer.state().read();
    state.segments.keys().rev().find(|id| id.volume == committer.volume()).copied()
}

impl Compactor {
    /// A compactor of a volume that was just taken over.
    pub(crate) fn new(parts: CompactorParts, options: &WriterOptions) -> Self {
        let CompactorParts { committer, objects, keys, catalog, clock, entropy, slot, source } =
            parts;
        let counted = newest(&committer);
        let pace = Pace {
            bytes_per_second: options.compaction.bytes_per_second,
            lag_bytes: options.upload_segment_bytes.saturating_mul(LAG_SEGMENTS),
            task: objects.task.clone(),
        };
        Self {
            committer,
            objects,
            keys,
            catalog,
            clock,
            entropy,
            options: options.compaction.clone(),
            pace,
            slot,
            source,
            budget: Budget::new(),
            counted,
            own: BTreeSet::new(),
            newest_at: counted.map(|id| (Instant::now(), id)).into_iter().collect(),
            damaged: HashSet::new(),
            uncleanable: HashSet::new(),
            stuck: HashMap::new(),
        }
    }

    /// Runs until the volume's service ends.
    pub(crate) async fn run(mut self) {
        if !self.options.enabled {
            return;
        }
        let mut ticks = tokio::time::interval(self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            ticks.tick().await;
            if self.round().await.is_err() {
                return;
            }
        }
    }

    async fn round(&mut self) -> Result<(), Ended> {
        self.look();
        for _ in 0..JOBS_A_ROUND {
            if !self.clean_one().await? {
                break;
            }
        }
        for _ in 0..JOBS_A_ROUND {
            if !self.merge_one().await? {
                break;
            }
        }
        Ok(())
    }

    /// Takes note of what was uploaded, and of how old segments are.
    fn look(&mut self) {
        let now = Instant::now();
        let state = self.committer.state().read();
        let at_home = |id: &SegmentId| id.volume == self.committer.volume();
        let newer = state.segments.iter().rev().filter(|(id, _)| at_home(id));
        let newer = newer.take_while(|(id, _)| Some(**id) > self.counted);
        let uploaded: u64 =
            newer.filter(|(id, _)| !self.own.contains(id)).map(|(_, segment)| segment.len).sum();
        self.budget.earn(uploaded);
        if let Some(newest) = state.segments.keys().rev().find(|id| at_home(id)).copied() {
            self.counted = Some(newest);
            self.newest_at.push_back((now, newest));
        }
        // All below was counted; ours of now may still be.
        self.own.retain(|id| state.segments.contains_key(id));
        self.damaged.retain(|id| state.segments.contains_key(id));
        self.uncleanable.retain(|key| state.streams.contains_key(key));
        self.stuck.retain(|key, end| {
            state.streams.get(key).is_some_and(|stream| stream.end_offset == *end)
        });
        drop(state);
        // Of those old enough for all the last says all.
        let longest = self.options.min_age * FREE_AGES;
        while self.newest_at.get(1).is_some_and(|(at, _)| now - *at >= longest) {
            self.newest_at.pop_front();
        }
    }

    /// The newest segment that is as old as this.
    fn old_to(&self, age: Duration) -> Option<SegmentId> {
        let mut old = self.newest_at.iter().rev().skip_while(|(at, _)| at.elapsed() < age);
        old.next().map(|(_, id)| *id)
    }

    /// The stream's topic, if the stream is known to be here: one that was taken in and may never be here does not
    /// change (`moves/lent.rs`).
    fn topic_here(&self, stream: StreamKey) -> Option<Arc<Topic>> {
        let topic = self.catalog.topic_of_any_tenant(TopicId(stream.topic))?;
        let at = topic.partitions.get(stream.partition as usize)?;
        (at.0 == self.committer.volume()).then_some(topic)
    }

    /// Whether extents of a stream may be merged.
    fn may_merge(&self, stream: StreamKey) -> bool {
        if TopicId(stream.topic).is_internal() {
            return false;
        }
        let Some(topic) = self.topic_here(stream) else { return false };
        let config = &topic.config;
        // What is removed soon anyway is not worth a rewrite.
        let soon = self.options.min_age * 2;
        let stays = |ms: u64| Duration::from_millis(ms) >= soon;
        !config.cleanup.delete || config.retention_ms.is_none_or(stays)
    }

    /// Carries out the best plan. False if there is none.
    async fn merge_one(&mut self) -> Result<bool, Ended> {
        let Some(old_to) = self.old_to(self.options.min_age) else { return Ok(false) };
        let free_to = self.old_to(self.options.min_age * FREE_AGES);
        let volume = self.committer.volume();
        let at_home = |id: SegmentId| id.volume == volume;
        let most = self.options.segment_bytes.min(self.budget.bytes());
        let planned = {
            let state = self.committer.state().read();
            plan::plan(
                &state,
                |stream| self.may_merge(stream),
                |extent| {
                    // What other volumes' owners wrote came with a stream that was sealed: it is old.
                    (extent.segment <= old_to || !at_home(extent.segment))
                        && !self.damaged.contains(&extent.segment)
                },
                // Others' segments are not freed by what becomes of them here.
                |id| at_home(id) && Some(id) <= free_to,
                most,
            )
        };
        let Some(plan) = planned else { return Ok(false) };
        let Ok(_permit) = Arc::clone(&self.slot).acquire_owned().await else { return Ok(false) };
        self.budget.spend(plan.bytes);
        let merged = {
            let target = self.target();
            merge::merge(&plan, &target, &*self.objects.bucket, &self.pace).await
        };
        match merged {
            Ok(change) => {
                if let Change::Compact { segments, .. } = &change {
                    self.own.extend(segments.iter().map(|(id, _)| *id));
                }
                self.committer.commit(change).await?;
                self.objects.metrics.compactions.inc();
                let before: usize = plan.runs.iter().map(|run| run.extents.len()).sum();
                tracing::debug!(
                    extents = before,
                    left = plan.runs.len(),
                    plan.bytes,
                    "merged extents"
                );
                Ok(true)
            }
            Err(failed) => {
                self.failed(&failed)?;
                self.damaged.extend(failed.damaged());
                Ok(false)
            }
        }
    }

    /// Cleans the dirtiest stream. False if none is due.
    async fn clean_one(&mut self) -> Result<bool, Ended> {
        let Some((stream, due, state, delete_retention_ms)) = self.dirtiest() else {
            return Ok(false);
        };
        let Ok(_permit) = Arc::clone(&self.slot).acquire_owned().await else { return Ok(false) };
        let keys = KeyMap::new(self.options.key_map_bytes, self.entropy.random_u64());
        let cleaned = {
            let target = self.target();
            let cleaning = Cleaning {
                stream,
                state: &state,
                due,
                delete_retention_ms,
                now_ms: self.clock.wall_ms(),
                segment_bytes: self.options.segment_bytes,
                target: &target,
                bucket: &*self.objects.bucket,
                pace: &self.pace,
            };
            cleaning.run(keys).await
        };
        match cleaned {
            Ok(cleaned) => {
                let clean::Cleaned { to, records, written_bytes, written } = cleaned;
                self.own.extend(written);
                if to == due.first_dirty {
                    self.stuck.insert(stream, state.end_offset);
                    return Ok(true);
                }
                self.objects.metrics.cleanings.inc();
                self.objects.metrics.cleaned_records.inc_by(records);
                let stream = stream_of(stream);
                if let Some(in_use) = self.source.stream(stream) {
                    in_use.release_below(to);
                }
                tracing::info!(%stream, from = due.first_dirty, to, records, written_bytes, "cleaned");
                Ok(true)
            }
            Err(failed) => {
                self.failed(&failed)?;
                if failed.damaged().is_some() {
                    self.uncleanable.insert(stream);
                }
                Ok(false)
            }
        }
    }

    /// The stream that most needs cleaning, as it is now.
    fn dirtiest(&self) -> Option<(StreamKey, Due, StreamState, u64)> {
        let now_ms = self.clock.wall_ms();
        let state = self.committer.state().read();
        let mut best: Option<(StreamKey, Due, u64)> = None;
        for (key, stream) in &state.streams {
            let left_alone = TopicId(key.topic).is_internal()
                || stream.sealed
                || self.uncleanable.contains(key)
                || self.stuck.contains_key(key);
            if left_alone || stream.end_offset == stream.cleaned_to {
                continue;
            }
            let Some(topic) = self.topic_here(*key) else { continue };
            let Some(rules) = Rules::of(&topic.config) else { continue };
            let Some(due) = clean::due(stream, &rules, now_ms) else { continue };
            if best.as_ref().is_none_or(|(_, best, _)| best.ratio < due.ratio) {
                best = Some((*key, due, topic.config.delete_retention_ms));
            }
        }
        best.map(|(key, due, delete_retention_ms)| {
            (key, due, state.streams[&key].clone(), delete_retention_ms)
        })
    }

    fn target(&self) -> Target<'_> {
        Target { committer: &self.committer, objects: &self.objects, keys: &self.keys }
    }

    /// Says once what has ended a job.
    fn failed(&self, failed: &Failed) -> Result<(), Ended> {
        match failed {
            Failed::Ended(ended) => return Err(*ended),
            Failed::Stale => tracing::debug!("a compaction came too late"),
            Failed::Read(ReadError::Bucket(error)) => {
                self.objects.metrics.compaction_errors.inc();
                tracing::warn!(%error, "a compaction could not read; trying again later");
            }
            Failed::Read(ReadError::Damaged { .. }) | Failed::Content { .. } => {
                self.objects.metrics.compaction_errors.inc();
                tracing::error!(error = %failed, "a compaction met damage; the data stays as it is");
            }
        }
        Ok(())
    }
}
