//! Moving a volume's tail into the bucket, and keeping the bucket within retention.
//!
//! One task a volume, the only committer of its manifests. A segment is put first, then the manifest
//! that names it is committed, then streams let go and the volume is trimmed: in that order always.
//! When the bucket fails, the same segment is tried again with growing pauses; the volume keeps the
//! data meanwhile.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use sluice_format::key::Keys;
use sluice_format::segment::{BLOCK_TARGET_BYTES, BuiltSegment, Piece, SegmentBuilder};
use sluice_format::state::CoordinatorSnapshot;
use sluice_format::{SegmentId, StreamKey, StreamUpdate, VolumeChange};
use sluice_model::{Clock, StreamId, TopicId};
use sluice_volume::{Lsn, ReadError, TrimError, Volume};
use sluice_wire::scan;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::manifest_store::{ManifestError, ManifestStore};
use crate::metrics::WriterMetrics;
use crate::options::WriterOptions;
use crate::recovery::key_of;
use crate::retention;
use crate::stream::{Run, Stream};
use crate::task::{Control, Cut, TaskState};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the uploader is asked to do beside uploading.
pub(crate) enum Request {
    /// A topic was deleted: its streams go.
    Forget(TopicId),
    /// The volume is about to be closed: upload what there is, so that the next owner has little to read
    /// back.
    Flush { done: oneshot::Sender<()> },
    /// A coordinator snapshot to put and commit, with the internal stream it is of.
    Snapshot { stream: Arc<Stream>, offset: i64, bytes: Bytes, done: oneshot::Sender<()> },
}

/// Why the uploader ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the volume cannot be read: {0}")]
    Volume(#[from] ReadError),
    #[error(transparent)]
    Trim(#[from] TrimError),
    #[error("the volume task has ended")]
    TaskGone,
}

/// Finds the streams of a volume and the configuration of their topics.
pub(crate) trait StreamSource: Send + Sync + 'static {
    /// The stream, if it was used since the volume was taken over.
    fn stream(&self, id: StreamId) -> Option<Arc<Stream>>;
    /// What retention may do to the topic's streams; none for a topic that does not exist.
    fn retention(&self, topic: TopicId) -> Option<retention::Limits>;
    /// Drops the streams of a deleted topic; gives them.
    fn drop_topic(&self, topic: TopicId) -> Vec<Arc<Stream>>;
}

pub(crate) struct Uploader {
    pub(crate) bucket: Arc<dyn ObjectStore>,
    pub(crate) keys: Keys,
    pub(crate) volume: Arc<dyn Volume>,
    pub(crate) manifests: ManifestStore,
    pub(crate) control: mpsc::UnboundedSender<Control>,
    pub(crate) state: watch::Receiver<TaskState>,
    pub(crate) source: Arc<dyn StreamSource>,
    pub(crate) options: WriterOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: WriterMetrics,
    /// Numbers this owner's objects.
    pub(crate) next_sequence: u64,
    /// Topics that were deleted and whose streams are still in the manifest.
    pub(crate) forgotten: HashSet<TopicId>,
    /// Segments that nothing refers to, and when they may be deleted.
    pub(crate) condemned: Vec<(Instant, SegmentId)>,
}

impl Uploader {
    /// Runs until the volume is lost or the channel closes.
    pub(crate) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        let volume = self.volume.id().0;
        if let Err(ended) = self.serve(&mut requests).await {
            tracing::warn!(volume, reason = %ended, "uploads have ended");
            // Without uploads the volume would fill up: whatever the reason, stop owning it.
            self.volume.fence();
        }
    }

    async fn serve(
        &mut self,
        requests: &mut mpsc::UnboundedReceiver<Request>,
    ) -> Result<(), Ended> {
        let mut retention = tokio::time::interval(self.options.retention_interval);
        retention.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        retention.reset();
        loop {
            let due = self.due();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Forget(topic)) => self.forget(topic).await?,
                    Some(Request::Snapshot { stream, offset, bytes, done }) => {
                        self.snapshot(&stream, offset, bytes).await?;
                        let _ = done.send(());
                    }
                    Some(Request::Flush { done }) => {
                        while self.state.borrow().oldest.is_some() {
                            self.upload().await?;
                        }
                        let _ = done.send(());
                    }
                    None => return Ok(()),
                },
                () = sleep_until(due) => {
                    while self.is_due() {
                        self.upload().await?;
                    }
                }
                changed = self.state.changed() => {
                    if changed.is_err() || self.state.borrow_and_update().ended {
                        return Err(Ended::TaskGone);
                    }
                }
                _ = retention.tick() => {
                    self.retire().await?;
                    self.delete_condemned().await;
                }
            }
        }
    }

    /// When the next segment is due, if no more arrives.
    fn due(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let oldest = state.oldest?;
        if state.full || state.unuploaded_bytes >= self.options.upload_segment_bytes {
            return Some(Instant::now());
        }
        Some(oldest + self.options.upload_max_age)
    }

    fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    async fn upload(&mut self) -> Result<(), Ended> {
        let (reply, cut) = oneshot::channel();
        let max_bytes = self.options.upload_segment_bytes;
        self.control.send(Control::Cut { max_bytes, reply }).map_err(|_| Ended::TaskGone)?;
        let Some(cut) = cut.await.map_err(|_| Ended::TaskGone)? else {
            return Ok(());
        };
        let segment = self.build(&cut).await?;
        let added: Vec<_> = segment.iter().map(|segment| (segment.id, segment.len)).collect();
        if let Some(segment) = &segment {
            let key = self.keys.segment(segment.id);
            self.put(&key, &PutPayload::from_iter(segment.parts.iter().cloned())).await?;
            self.metrics.segments.inc();
            self.metrics.segment_bytes.inc_by(segment.len);
        }
        let extents = segment.map_or_else(Vec::new, |segment| segment.extents);
        let mut streams: BTreeMap<StreamKey, StreamUpdate> = BTreeMap::new();
        for ((key, extent), (stream, _)) in
            extents.into_iter().zip(cut.streams.iter().filter(|(_, runs)| !runs.is_empty()))
        {
            debug_assert_eq!(key, key_of(stream.id));
            let end_offset = extent.end_offset;
            streams.insert(key, self.update(stream, end_offset, Some(extent)));
        }
        for stream in &cut.moved {
            let key = key_of(stream.id);
            let known = self.manifests.state().read().streams.get(&key).map(|s| s.end_offset);
            if let Some(end_offset) = known
                && !streams.contains_key(&key)
            {
                streams.insert(key, self.update(stream, end_offset, None));
            }
        }
        self.commit(cut.upto, added, streams, None).await?;
        self.control.send(Control::Uploaded { upto: cut.upto }).map_err(|_| Ended::TaskGone)?;
        self.trim(cut.upto).await?;
        self.control.send(Control::Trimmed).map_err(|_| Ended::TaskGone)?;
        // The task publishes what is left before it takes anything else from us.
        self.settle(cut.upto).await
    }

    /// Waits until the task has taken note of an upload, so that `due` is asked of the new state.
    async fn settle(&mut self, upto: Lsn) -> Result<(), Ended> {
        let (reply, answer) = oneshot::channel();
        self.control.send(Control::Cut { max_bytes: 1, reply }).map_err(|_| Ended::TaskGone)?;
        let rest = answer.await.map_err(|_| Ended::TaskGone)?;
        debug_assert!(rest.is_none_or(|rest| rest.upto > upto));
        self.state.borrow_and_update();
        Ok(())
    }

    fn update(
        &self,
        stream: &Stream,
        end_offset: i64,
        extent: Option<sluice_format::Extent>,
    ) -> StreamUpdate {
        let mut sequencer = stream.sequencer.lock();
        sequencer.expire(self.clock.wall_ms());
        StreamUpdate {
            log_start: stream.offsets().log_start.min(end_offset),
            end_offset,
            extent,
            epochs: stream.epochs_below(end_offset),
            producers: sequencer.durable_producers(end_offset),
        }
    }

    /// Gathers the cut's batches, from memory or from the volume, into a segment. None if all of it was
    /// deleted meanwhile.
    async fn build(&mut self, cut: &Cut) -> Result<Option<BuiltSegment>, Ended> {
        let mut missing: BTreeMap<Lsn, Bytes> = BTreeMap::new();
        let mut payloads: HashMap<Lsn, Bytes> = HashMap::new();
        for run in cut.streams.iter().flat_map(|(_, runs)| runs) {
            match run.frame.payload() {
                Some(payload) => payloads.insert(run.frame.lsn, payload),
                None => missing.insert(run.frame.lsn, Bytes::new()),
            };
        }
        // In log order, each frame once.
        for lsn in missing.into_keys() {
            payloads.insert(lsn, self.read_frame(lsn).await?);
        }
        let id = SegmentId {
            volume: self.volume.id().0,
            epoch: self.volume.epoch().0,
            sequence: self.next_sequence,
        };
        let mut builder = SegmentBuilder::new(id);
        let mut empty = true;
        for (stream, runs) in cut.streams.iter().filter(|(_, runs)| !runs.is_empty()) {
            let mut pieces = Vec::with_capacity(runs.len());
            for run in runs {
                if let Some(payload) = payloads.get(&run.frame.lsn) {
                    push_pieces(run, payload, &mut pieces);
                }
            }
            builder.push_extent(key_of(stream.id), &pieces);
            empty = false;
        }
        if empty {
            return Ok(None);
        }
        self.next_sequence += 1;
        Ok(Some(builder.finish()))
    }

    async fn read_frame(&self, lsn: Lsn) -> Result<Bytes, Ended> {
        let mut pause = FIRST_PAUSE;
        loop {
            self.metrics.volume_reads.inc();
            match self.volume.read(lsn).await {
                Ok(payload) => return Ok(payload),
                Err(ReadError::Io(error)) => {
                    tracing::warn!(volume = self.volume.id().0, %error, "cannot read the volume");
                    pause = rest(pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Puts an object, however long it takes, while the volume is ours.
    async fn put(&self, key: &str, payload: &PutPayload) -> Result<(), Ended> {
        let mut pause = FIRST_PAUSE;
        loop {
            self.metrics.puts.inc();
            match self.bucket.put(&Path::from(key), payload.clone()).await {
                Ok(_) => return Ok(()),
                Err(_) if self.state.borrow().ended => return Err(Ended::TaskGone),
                Err(error) => {
                    self.metrics.upload_errors.inc();
                    tracing::warn!(key, %error, "upload failed; trying again");
                    pause = rest(pause).await;
                }
            }
        }
    }

    async fn commit(
        &mut self,
        upto: Lsn,
        added_segments: Vec<(SegmentId, u64)>,
        mut streams: BTreeMap<StreamKey, StreamUpdate>,
        coordinator: Option<CoordinatorSnapshot>,
    ) -> Result<(), Ended> {
        let removed_streams: Vec<_> = {
            let state = self.manifests.state().read();
            let keys = state.streams.keys();
            keys.filter(|key| self.forgotten.contains(&TopicId(key.topic))).copied().collect()
        };
        streams.retain(|key, _| !self.forgotten.contains(&TopicId(key.topic)));
        let change = VolumeChange {
            epoch: self.volume.epoch().0,
            trim_lsn: upto.0.max(self.manifests.state().read().trim_lsn),
            added_segments,
            removed_streams,
            streams: streams.into_iter().collect(),
            coordinator,
            ..VolumeChange::default()
        };
        let mut pause = FIRST_PAUSE;
        let dead = loop {
            self.metrics.puts.inc();
            match self.manifests.commit(&change).await {
                Ok(dead) => break dead,
                Err(ManifestError::Bucket(error)) => {
                    self.metrics.upload_errors.inc();
                    tracing::warn!(%error, "commit failed; trying again");
                    pause = rest(pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.forgotten.clear();
        let at = Instant::now() + self.options.delete_grace;
        self.condemned.extend(dead.into_iter().map(|segment| (at, segment)));
        Ok(())
    }

    async fn trim(&self, upto: Lsn) -> Result<(), Ended> {
        let version = self.manifests.state().read().version;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.volume.trim(upto, version).await {
                Ok(()) => return Ok(()),
                Err(TrimError::Io(error)) => {
                    tracing::warn!(volume = self.volume.id().0, %error, "cannot trim the volume");
                    pause = rest(pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn forget(&mut self, topic: TopicId) -> Result<(), Ended> {
        for stream in self.source.drop_topic(topic) {
            stream.delete();
        }
        self.forgotten.insert(topic);
        let known = self.manifests.state().read().streams.keys().any(|key| key.topic == topic.0);
        if known { self.commit(Lsn(0), Vec::new(), BTreeMap::new(), None).await } else { Ok(()) }
    }

    async fn snapshot(&mut self, stream: &Stream, offset: i64, bytes: Bytes) -> Result<(), Ended> {
        let id = SegmentId {
            volume: self.volume.id().0,
            epoch: self.volume.epoch().0,
            sequence: self.next_sequence,
        };
        self.next_sequence += 1;
        self.put(&self.keys.snapshot(id), &PutPayload::from_bytes(bytes)).await?;
        let old = self.manifests.state().read().coordinator;
        stream.move_log_start(offset);
        let end =
            self.manifests.state().read().streams.get(&key_of(stream.id)).map(|s| s.end_offset);
        let streams = end
            .map(|end_offset| (key_of(stream.id), self.update(stream, end_offset, None)))
            .into_iter()
            .collect();
        let snapshot = CoordinatorSnapshot { id, offset };
        self.commit(Lsn(0), Vec::new(), streams, Some(snapshot)).await?;
        if let Some(old) = old {
            self.delete(&self.keys.snapshot(old.id)).await;
        }
        Ok(())
    }

    /// Moves log starts up to what retention allows to remain.
    async fn retire(&mut self) -> Result<(), Ended> {
        let now_ms = self.clock.wall_ms();
        let moves: Vec<_> = {
            let state = self.manifests.state().read();
            let streams = state.streams.iter().filter(|(key, _)| !TopicId(key.topic).is_internal());
            streams
                .filter_map(|(key, in_bucket)| {
                    let limits = self.source.retention(TopicId(key.topic))?;
                    let stream = self.source.stream(crate::recovery::stream_of(*key))?;
                    let tail_bytes = stream.bytes_from(in_bucket.end_offset);
                    let start = retention::log_start(in_bucket, tail_bytes, &limits, now_ms)?;
                    Some((stream, start, in_bucket.end_offset))
                })
                .collect()
        };
        if moves.is_empty() {
            return Ok(());
        }
        let before = self.extents();
        let mut streams = BTreeMap::new();
        for (stream, start, end_offset) in &moves {
            let mut update = self.update(stream, *end_offset, None);
            update.log_start = update.log_start.max(*start);
            streams.insert(key_of(stream.id), update);
        }
        self.commit(Lsn(0), Vec::new(), streams, None).await?;
        for (stream, start, _) in &moves {
            tracing::info!(stream = %stream.id, log_start = start, "retention moved the log start");
            stream.move_log_start(*start);
        }
        self.metrics.retired_extents.inc_by((before - self.extents()) as u64);
        Ok(())
    }

    fn extents(&self) -> usize {
        self.manifests.state().read().streams.values().map(|stream| stream.extents.len()).sum()
    }

    async fn delete_condemned(&mut self) {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.condemned).into_iter().partition(|(at, _)| *at <= now);
        self.condemned = later;
        for (_, segment) in due {
            self.delete(&self.keys.segment(segment)).await;
        }
    }

    /// Best effort: what stays is an orphan, which costs room and nothing else.
    async fn delete(&self, key: &str) {
        match self.bucket.delete(&Path::from(key)).await {
            Ok(()) => {
                self.metrics.deletes.inc();
            }
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => tracing::warn!(key, %error, "an object could not be deleted"),
        }
    }
}

/// Cuts a run at batches, so that no piece is much larger than a block is to be.
fn push_pieces(run: &Run, payload: &Bytes, out: &mut Vec<Piece>) {
    let bytes = run.slice(payload);
    let whole = Piece {
        base_offset: run.base_offset,
        end_offset: run.end_offset,
        max_timestamp: run.max_timestamp,
        batches: run.batches,
        leader_epoch: run.leader_epoch,
        bytes: bytes.clone(),
    };
    if bytes.len() <= BLOCK_TARGET_BYTES {
        out.push(whole);
        return;
    }
    let mut start = 0;
    let mut batches = 0;
    let mut base_offset = run.base_offset;
    let mut max_timestamp = i64::MIN;
    for span in scan::spans(&bytes) {
        batches += 1;
        max_timestamp = max_timestamp.max(span.max_timestamp);
        if span.end - start >= BLOCK_TARGET_BYTES || span.end == bytes.len() {
            out.push(Piece {
                base_offset,
                end_offset: span.end_offset,
                max_timestamp,
                batches,
                leader_epoch: run.leader_epoch,
                bytes: bytes.slice(start..span.end),
            });
            start = span.end;
            base_offset = span.end_offset;
            batches = 0;
            max_timestamp = i64::MIN;
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Sleeps, and gives the next pause: twice as long, up to the longest.
async fn rest(pause: Duration) -> Duration {
    tokio::time::sleep(pause).await;
    (pause * 2).min(LONGEST_PAUSE)
}
