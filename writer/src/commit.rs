//! The committer: the one task that writes a volume's manifests.
//!
//! Everyone else holds a [`Committer`] and hands it [`Change`]s: uploads, moved log starts, forgotten
//! topics, coordinator snapshots. Changes take effect in the order in which they were handed over. What
//! waits while a manifest is written goes into the next one together, as far as one manifest can hold
//! it: a manifest is a PUT. When the bucket fails, the same manifest is tried again, with growing pauses.
//!
//! What always holds: a change is answered after the manifest that holds it is durable, and not before;
//! objects are condemned only after the manifest that drops them is durable. A commit that finds a newer
//! owner's manifest, or breaks an invariant, ends the ownership of the volume: it is fenced, every
//! waiting and later change fails with [`Ended`].
//!
//! For those who write objects of their own (compaction): take an id with [`Committer::next_segment_id`],
//! put the object, then commit a change that names it. An object that was put and not committed is an
//! orphan; condemn it through [`Committer::deletions`] if that is known. A new kind of change is a variant
//! of [`Change`] and an arm in [`Batch::add`].

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::path::Path;
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::state::{CoordinatorSnapshot, StreamState};
use sluice_format::{
    Carried, MoveStep, Replacement, SegmentId, StreamKey, StreamUpdate, VolumeChange, VolumeState,
};
use sluice_model::TopicId;
use sluice_volume::Volume;
use tokio::sync::{mpsc, oneshot, watch};

use crate::deletions::Deletions;
use crate::manifest_store::{ManifestError, ManifestStore};
use crate::metrics::WriterMetrics;
use crate::objects::{FIRST_PAUSE, rest};
use crate::task::TaskState;

/// How many deleted topics are remembered. An upload that was cut before a deletion is committed at most
/// seconds after it, so the oldest are of no more use.
const FORGOTTEN_KEPT: usize = 16_384;

/// Something to be committed.
#[derive(Debug)]
pub(crate) enum Change {
    /// The log up to `trim_lsn` is in the bucket.
    Upload {
        /// The segment and its length; none if nothing of the log was left to upload.
        segment: Option<(SegmentId, u64)>,
        /// Ascending, each with an extent that lies in `segment`.
        streams: Vec<(StreamKey, StreamUpdate)>,
        /// Log starts that moved in this part of the log.
        log_starts: Vec<(StreamKey, i64)>,
        /// The write-ahead log is replayed from here afterwards.
        trim_lsn: u64,
    },
    /// Log starts move up to here, within what is in the bucket. Streams that are not there are left out.
    LogStarts(Vec<(StreamKey, i64)>),
    /// The topic was deleted: its streams go, and uploads that still name them leave them out.
    Forget(TopicId),
    /// A coordinator snapshot was put: the log of `stream` before its offset goes.
    Snapshot {
        /// The coordinator's log.
        stream: StreamKey,
        /// The object, and the offset it stands for.
        snapshot: CoordinatorSnapshot,
    },
    /// Streams move, ascending. A step that does not fit what it finds is left out: whether it took effect is seen
    /// in the state.
    Moves(Vec<(StreamKey, Step)>),
    /// Extents give way to others in new segments. A replacement of extents that are not there any more
    /// is left out, and segments of which nothing is left in use are condemned: whether the change
    /// took effect is seen in the state.
    Compact {
        /// The new segments and their lengths.
        segments: Vec<(SegmentId, u64)>,
        /// Ascending by stream and offset, not overlapping.
        replacements: Vec<Replacement>,
        /// A stream that was cleaned, and up to where.
        cleaned: Option<(StreamKey, i64)>,
    },
}

/// What becomes of a stream that moves; see [`MoveStep`]. Steps are of the state that they find.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is sealed, and the manifest carries it.
    Seal,
    /// It is open again.
    Unseal,
    /// It is taken in.
    Adopt(Box<Carried>),
    /// It is let go; what it names of this volume's segments is lent.
    Depart,
    /// It names these no more.
    Return(Vec<SegmentId>),
}

/// A change is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The manifest version that holds it, or a newer one.
    pub(crate) version: u64,
}

/// The volume is not served any more; nothing can be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the volume is not served any more")]
pub(crate) struct Ended;

struct Job {
    change: Change,
    reply: oneshot::Sender<Committed>,
}

/// Hands changes to a volume's committer. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Committer {
    jobs: mpsc::UnboundedSender<Job>,
    state: Arc<RwLock<VolumeState>>,
    sequence: Arc<AtomicU64>,
    volume: u32,
    epoch: u32,
    deletions: Deletions,
}

impl Committer {
    /// The committer of a volume that was just taken over, and its task, which the caller runs. A task
    /// that is dropped leaves what was not answered unknown, as a crash would.
    pub(crate) fn new(
        manifests: ManifestStore,
        keys: Keys,
        volume: Arc<dyn Volume>,
        task: watch::Receiver<TaskState>,
        deletions: Deletions,
        delete_grace: Duration,
        metrics: WriterMetrics,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (jobs, queue) = mpsc::unbounded_channel();
        let handle = Self {
            jobs,
            state: Arc::clone(manifests.state()),
            sequence: Arc::default(),
            volume: volume.id().0,
            epoch: volume.epoch().0,
            deletions: deletions.clone(),
        };
        let task = CommitTask {
            manifests,
            keys,
            volume,
            task,
            deletions,
            delete_grace,
            metrics,
            forgotten: Forgotten::default(),
            held: None,
        };
        (handle, task.run(queue))
    }

    /// Commits a change; returns when it is durable. A dropped call goes on by itself.
    pub(crate) async fn commit(&self, change: Change) -> Result<Committed, Ended> {
        self.submit(change).await.map_err(|_| Ended)
    }

    /// Hands a change over now, in order with others that the caller hands over; the answer comes when it
    /// is durable, or never if the volume's service ends.
    pub(crate) fn submit(&self, change: Change) -> oneshot::Receiver<Committed> {
        let (reply, answer) = oneshot::channel();
        // Without a committer the sender is dropped, which is the answer.
        let _ = self.jobs.send(Job { change, reply });
        answer
    }

    /// What is committed. It changes only when a manifest is durable.
    pub(crate) fn state(&self) -> &Arc<RwLock<VolumeState>> {
        &self.state
    }

    /// A name for a segment or snapshot that this owner is about to put; never given twice.
    pub(crate) fn next_segment_id(&self) -> SegmentId {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        SegmentId { volume: self.volume, epoch: self.epoch, sequence }
    }

    /// The volume.
    pub(crate) fn volume(&self) -> u32 {
        self.volume
    }

    /// Where to leave objects that were put for a change that was then not committed.
    pub(crate) fn deletions(&self) -> &Deletions {
        &self.deletions
    }
}

/// Topics that were deleted lately.
#[derive(Default)]
struct Forgotten {
    topics: HashSet<TopicId>,
    order: VecDeque<TopicId>,
}

impl Forgotten {
    fn insert(&mut self, topic: TopicId) {
        if !self.topics.insert(topic) {
            return;
        }
        self.order.push_back(topic);
        if self.order.len() > FORGOTTEN_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.topics.remove(&oldest);
        }
    }

    fn has(&self, stream: StreamKey) -> bool {
        self.topics.contains(&TopicId(stream.topic))
    }
}

struct CommitTask {
    manifests: ManifestStore,
    keys: Keys,
    volume: Arc<dyn Volume>,
    task: watch::Receiver<TaskState>,
    deletions: Deletions,
    delete_grace: Duration,
    metrics: WriterMetrics,
    forgotten: Forgotten,
    /// A change that did not fit into the manifest before.
    held: Option<Job>,
}

impl CommitTask {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        let ended = self.serve(&mut queue).await;
        if let Err(error) = ended {
            tracing::warn!(volume = self.volume.id().0, %error, "commits have ended");
            // Without commits the volume would fill up: whatever the reason, stop owning it.
            self.volume.fence();
        }
    }

    async fn serve(
        &mut self,
        queue: &mut mpsc::UnboundedReceiver<Job>,
    ) -> Result<(), ManifestError> {
        loop {
            let first = match self.held.take() {
                Some(held) => held,
                None => match queue.recv().await {
                    Some(job) => job,
                    None => return Ok(()),
                },
            };
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(job) = next {
                let state = self.manifests.state().read();
                self.held = batch.add(job, &state, &mut self.forgotten, self.manifests.volume());
                drop(state);
                next = if self.held.is_some() { None } else { queue.try_recv().ok() };
            }
            if !self.write(batch).await? {
                return Ok(());
            }
        }
    }

    /// Writes a manifest and answers. False if the volume's service ended meanwhile.
    async fn write(&mut self, batch: Batch) -> Result<bool, ManifestError> {
        let Batch { mut change, streams, removed, replies, .. } = batch;
        let (version, trim_lsn, old_snapshot) = {
            let state = self.manifests.state().read();
            (state.version, state.trim_lsn, state.coordinator)
        };
        change.epoch = self.volume.epoch().0;
        change.trim_lsn = change.trim_lsn.max(trim_lsn);
        change.removed_streams = removed.into_iter().collect();
        change.streams = streams.into_iter().collect();
        let nothing = VolumeChange { epoch: change.epoch, trim_lsn, ..VolumeChange::default() };
        if change == nothing {
            answer(replies, version);
            return Ok(true);
        }
        let started = tokio::time::Instant::now();
        let mut pause = FIRST_PAUSE;
        let done = loop {
            self.metrics.puts.inc();
            match self.manifests.commit(&change).await {
                Ok(done) => break done,
                Err(ManifestError::Bucket(_)) if self.task.borrow().ended => return Ok(false),
                Err(ManifestError::Bucket(error)) => {
                    self.metrics.upload_errors.inc();
                    tracing::warn!(%error, "commit failed; trying again");
                    pause = rest(pause).await;
                }
                Err(error) => return Err(error),
            }
        };
        self.metrics.commit_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.manifest_bytes.inc_by(done.bytes);
        self.metrics.retired_extents.inc_by(done.retired_extents);
        let replaced = old_snapshot.filter(|_| change.coordinator.is_some());
        // Segments of other volumes are their homes' to delete.
        let dead = done.dead.into_iter().filter(|id| id.volume == self.manifests.volume());
        let segments = dead.map(|id| self.keys.segment(id));
        let snapshots = replaced.into_iter().map(|old| self.keys.snapshot(old.id));
        let manifests =
            done.obsolete.map(|version| self.keys.manifest(self.manifests.volume(), version));
        let paths = segments.chain(snapshots).chain(manifests).map(Path::from);
        self.deletions.condemn(paths, self.delete_grace);
        answer(replies, version + 1);
        Ok(true)
    }
}

fn answer(replies: Vec<oneshot::Sender<Committed>>, version: u64) {
    for reply in replies {
        // Whoever does not wait has no use for the answer.
        let _ = reply.send(Committed { version });
    }
}

/// Changes that go into one manifest.
#[derive(Default)]
struct Batch {
    change: VolumeChange,
    streams: BTreeMap<StreamKey, StreamUpdate>,
    removed: BTreeSet<StreamKey>,
    replies: Vec<oneshot::Sender<Committed>>,
}

impl Batch {
    /// Takes the job in; gives it back if it has to go into a later manifest.
    fn add(
        &mut self,
        job: Job,
        state: &VolumeState,
        forgotten: &mut Forgotten,
        volume: u32,
    ) -> Option<Job> {
        if !self.has_room_for(&job.change) {
            return Some(job);
        }
        let Job { change, reply } = job;
        match change {
            Change::Upload { segment, streams, log_starts, trim_lsn } => {
                self.change.added_segments.extend(segment);
                self.change.trim_lsn = self.change.trim_lsn.max(trim_lsn);
                for (key, mut update) in streams {
                    if forgotten.has(key) {
                        continue;
                    }
                    let before = match self.streams.get(&key) {
                        Some(staged) => staged.log_start,
                        None => state.streams.get(&key).map_or(0, |stream| stream.log_start),
                    };
                    // A log start that was committed while the segment was on its way.
                    update.log_start = update.log_start.max(before);
                    self.streams.insert(key, update);
                }
                self.move_log_starts(log_starts, state);
            }
            Change::LogStarts(moves) => self.move_log_starts(moves, state),
            Change::Forget(topic) => {
                forgotten.insert(topic);
                self.streams.retain(|key, _| key.topic != topic.0);
                let first = StreamKey { topic: topic.0, partition: 0 };
                let last = StreamKey { topic: topic.0, partition: u32::MAX };
                self.removed.extend(state.streams.range(first..=last).map(|(key, _)| *key));
                self.removed.extend(state.departed.range(first..=last).map(|(key, _)| *key));
                self.change.replacements.retain(|change| change.stream.topic != topic.0);
                self.change.cleaned.retain(|(key, _)| key.topic != topic.0);
            }
            Change::Snapshot { stream, snapshot } => {
                self.change.coordinator = Some(snapshot);
                self.move_log_starts(vec![(stream, snapshot.offset)], state);
            }
            Change::Moves(steps) => self.steps(steps, state, volume),
            Change::Compact { segments, replacements, cleaned } => {
                self.compact(segments, replacements, cleaned, state);
            }
        }
        self.replies.push(reply);
        None
    }

    /// A manifest holds one extent a stream, and one snapshot.
    fn has_room_for(&self, change: &Change) -> bool {
        if !self.change.moves.is_empty() {
            return false;
        }
        match change {
            // Of the state that it finds, and nothing beside.
            Change::Moves(_) => self.replies.is_empty(),
            Change::Upload { streams, .. } => streams
                .iter()
                .all(|(key, _)| self.streams.get(key).is_none_or(|staged| staged.extent.is_none())),
            Change::Snapshot { .. } => self.change.coordinator.is_none(),
            // Each was made for the state that it finds.
            Change::Compact { .. } => {
                self.change.replacements.is_empty() && self.change.cleaned.is_empty()
            }
            Change::LogStarts(_) | Change::Forget(_) => true,
        }
    }

    fn steps(&mut self, steps: Vec<(StreamKey, Step)>, state: &VolumeState, volume: u32) {
        for (key, step) in steps {
            let step = match step {
                Step::Seal => MoveStep::Seal(Box::new(Carried::of(state, &key))),
                Step::Unseal => MoveStep::Unseal,
                Step::Adopt(carried) => MoveStep::Adopt(carried),
                Step::Depart => {
                    let carried = Carried::of(state, &key);
                    let named = carried.segments.into_iter().map(|(id, _)| id);
                    MoveStep::Depart(named.filter(|id| id.volume == volume).collect())
                }
                Step::Return(segments) => MoveStep::Return(segments),
            };
            let alone = VolumeChange {
                epoch: state.epoch,
                trim_lsn: state.trim_lsn,
                moves: vec![(key, step)],
                ..VolumeChange::default()
            };
            match state.check(state.version + 1, &alone) {
                Ok(()) => self.change.moves.extend(alone.moves),
                Err(_) => tracing::info!(?key, "a step of a move came too late"),
            }
        }
    }

    fn compact(
        &mut self,
        segments: Vec<(SegmentId, u64)>,
        replacements: Vec<Replacement>,
        cleaned: Option<(StreamKey, i64)>,
        state: &VolumeState,
    ) {
        // A segment of which nothing is used ends with the commit that lists it, as any other does.
        self.change.added_segments.extend(segments);
        let stays =
            |key: &StreamKey, stream: &StreamState| !stream.sealed && !self.removed.contains(key);
        let stream = |key: &StreamKey| state.streams.get(key).filter(|stream| stays(key, stream));
        self.change.replacements = replacements
            .into_iter()
            .filter(|replacement| {
                stream(&replacement.stream)
                    .is_some_and(|stream| stream.replaced(replacement).is_some())
            })
            .collect();
        self.change.cleaned = cleaned
            .into_iter()
            .filter(|(key, offset)| {
                stream(key)
                    .is_some_and(|stream| (stream.cleaned_to..=stream.end_offset).contains(offset))
            })
            .collect();
    }

    fn move_log_starts(&mut self, moves: Vec<(StreamKey, i64)>, state: &VolumeState) {
        for (key, log_start) in moves {
            self.move_log_start(key, log_start, state);
        }
    }

    fn move_log_start(&mut self, key: StreamKey, log_start: i64, state: &VolumeState) {
        if self.removed.contains(&key) {
            return;
        }
        let staged = match self.streams.get_mut(&key) {
            Some(staged) => staged,
            None => {
                let Some(stream) = state.streams.get(&key) else {
                    return;
                };
                if log_start <= stream.log_start || stream.sealed {
                    return;
                }
                self.streams.entry(key).or_insert_with(|| unchanged(stream))
            }
        };
        staged.log_start = staged.log_start.max(log_start.min(staged.end_offset));
        // Of the epochs that end before the log start only the newest says something.
        let gone = staged.epochs.partition_point(|(_, start)| *start <= staged.log_start);
        staged.epochs.drain(..gone.saturating_sub(1));
    }
}

/// An update that leaves a stream as it is.
fn unchanged(stream: &StreamState) -> StreamUpdate {
    StreamUpdate {
        log_start: stream.log_start,
        end_offset: stream.end_offset,
        extent: None,
        epochs: stream.epochs.clone(),
        producers: stream.producers.clone(),
    }
}
