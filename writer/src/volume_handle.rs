//! A volume that this process owns, as everyone but its task sees it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use object_store::PutPayload;
use parking_lot::{Mutex, RwLock};
use sluice_catalog::{Catalog, Tenure};
use sluice_format::key::Keys;
use sluice_format::state::CoordinatorSnapshot;
use sluice_format::{StreamKey, VolumeState};
use sluice_model::{StreamId, TopicId, VolumeEpoch, VolumeId};
use sluice_volume::{ReadError, Volume};
use sluice_wire::Chain;
use sluice_wire::scan;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::commit::{Change, Committed, Committer, Ended, Step};
use crate::compact::{Compactor, CompactorParts};
use crate::deletions::Deletions;
use crate::error::{AppendError, TailError};
use crate::metrics::WriterMetrics;
use crate::objects::Objects;
use crate::orphans::Scope;
use crate::recovery::{Recovered, Surroundings, is_wanted, key_of, named, stream_of};
use crate::retention::Limits;
use crate::retire::Retirement;
use crate::sequence::{BatchHeader, Voucher};
use crate::stream::{Run, Standing, Stream, TailRead};
use crate::task::{Append, Appended, Control, TaskState, VolumeTask, max_batch_bytes};
use crate::upload::{Builder, Flush, Freshness, StreamSource, Uploader};

/// Streams that are in use, or have records that are not in the bucket. The others are made from the
/// volume's state when they are first used again.
///
/// Lock order: a shard of `by_id`, then `state`; never the other way round.
pub(crate) struct Streams {
    volume: VolumeId,
    catalog: Catalog,
    state: Arc<RwLock<VolumeState>>,
    by_id: DashMap<StreamId, Arc<Stream>>,
}

impl StreamSource for Streams {
    fn stream(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.by_id.get(&id).map(|found| Arc::clone(&found))
    }

    fn retention(&self, stream: StreamId) -> Option<Limits> {
        let topic = self.catalog.topic_of_any_tenant(stream.topic)?;
        // One that was taken in and may never be here does not change: `moves/lent.rs`.
        if topic.partitions.get(stream.partition as usize) != Some(&self.volume) {
            return None;
        }
        let config = &topic.config;
        if !config.cleanup.delete {
            return None;
        }
        Some(Limits { max_age_ms: config.retention_ms, max_bytes: config.retention_bytes })
    }

    fn forget_idle(&self) {
        // New handles come from the map alone, whose shard is locked here: one that is the last stays so.
        self.by_id.retain(|_, stream| {
            Arc::strong_count(stream) > 1 || !stream.is_as_committed(&self.state.read())
        });
        self.by_id.shrink_to_fit();
    }
}

/// A volume in service.
pub(crate) struct OwnedVolume {
    pub(crate) id: VolumeId,
    volume: Arc<dyn Volume>,
    streams: Arc<Streams>,
    appends: mpsc::UnboundedSender<Append>,
    control: mpsc::UnboundedSender<Control>,
    flushes: mpsc::UnboundedSender<Flush>,
    freshness: Arc<Freshness>,
    state: watch::Receiver<TaskState>,
    committer: Committer,
    objects: Objects,
    keys: Keys,
    room: Arc<Semaphore>,
    max_batch_bytes: usize,
    metrics: WriterMetrics,
    moved: Notify,
    traffic: Counted,
    tasks: Mutex<Option<Tasks>>,
}

/// What came to a volume and went from it since it was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes of batches that were queued.
    pub in_bytes: u64,
    /// Bytes read from its tail.
    pub out_bytes: u64,
    /// Batches queued, and reads.
    pub requests: u64,
}

#[derive(Default)]
struct Counted {
    in_bytes: AtomicU64,
    out_bytes: AtomicU64,
    requests: AtomicU64,
}

struct Tasks {
    task: JoinHandle<()>,
    /// What works on the bucket: they hold nothing that a crash would lose.
    uploads: JoinHandle<()>,
    others: JoinSet<()>,
}

impl OwnedVolume {
    /// Starts serving a volume that was taken over. Needs a tokio runtime.
    pub(crate) fn start(
        recovered: Recovered,
        tenure: Option<Tenure>,
        around: &Surroundings,
        metrics: &WriterMetrics,
    ) -> Self {
        let Recovered { volume, manifests, streams, frames } = recovered;
        let streams = Arc::new(Streams {
            volume: volume.id(),
            catalog: around.catalog.clone(),
            state: Arc::clone(manifests.state()),
            by_id: streams.into_iter().collect(),
        });
        let (appends, append_queue) = mpsc::unbounded_channel();
        let (control, control_queue) = mpsc::unbounded_channel();
        let (flushes, flush_queue) = mpsc::unbounded_channel();
        let (publish, state) = watch::channel(TaskState::default());
        let max_batch_bytes = max_batch_bytes(&*volume);
        let task = VolumeTask::new(
            Arc::clone(&volume),
            tenure,
            around.options.clone(),
            Arc::clone(&around.clock),
            metrics.clone(),
            publish,
            frames,
        );
        let objects = Objects {
            bucket: Arc::clone(&around.bucket),
            task: state.clone(),
            metrics: metrics.clone(),
            multipart_above_bytes: around.options.multipart_above_bytes,
            part_bytes: around.options.part_bytes,
        };
        let mut others = JoinSet::new();
        let (deletions, deletion_task) = Deletions::new(&around.background, metrics);
        others.spawn(deletion_task);
        let (committer, commit_task) = Committer::new(
            manifests,
            around.keys.clone(),
            Arc::clone(&volume),
            state.clone(),
            deletions,
            around.options.delete_grace,
            metrics.clone(),
        );
        others.spawn(commit_task);
        let retirement = Retirement {
            committer: committer.clone(),
            source: Arc::clone(&streams) as Arc<dyn StreamSource>,
            options: around.options.clone(),
            clock: Arc::clone(&around.clock),
        };
        others.spawn(retirement.run());
        let parts = CompactorParts {
            committer: committer.clone(),
            objects: Objects { bucket: Arc::clone(&around.background), ..objects.clone() },
            keys: around.keys.clone(),
            catalog: around.catalog.clone(),
            clock: Arc::clone(&around.clock),
            entropy: Arc::clone(&around.entropy),
            slot: Arc::clone(&around.compaction_slot),
            source: Arc::clone(&streams) as Arc<dyn StreamSource>,
        };
        others.spawn(Compactor::new(parts, &around.options).run());
        let builder = Builder {
            objects: objects.clone(),
            keys: around.keys.clone(),
            volume: Arc::clone(&volume),
            clock: Arc::clone(&around.clock),
            metrics: metrics.clone(),
        };
        let freshness = Arc::<Freshness>::default();
        let uploader = Uploader::new(
            builder,
            committer.clone(),
            control.clone(),
            state.clone(),
            Arc::clone(&freshness),
            around.options.clone(),
        );
        // A batch of the largest size must fit, or it would wait for ever.
        let room = (around.options.append_queue_bytes as usize).max(max_batch_bytes);
        Self {
            id: volume.id(),
            volume,
            streams,
            appends,
            control,
            flushes,
            freshness,
            state,
            committer,
            objects,
            keys: around.keys.clone(),
            room: Arc::new(Semaphore::new(room)),
            max_batch_bytes,
            metrics: metrics.clone(),
            moved: Notify::new(),
            traffic: Counted::default(),
            tasks: Mutex::new(Some(Tasks {
                task: tokio::spawn(task.run(append_queue, control_queue)),
                uploads: tokio::spawn(uploader.run(flush_queue)),
                others,
            })),
        }
    }

    /// What orphan collection needs to know of the volume.
    pub(crate) fn orphan_scope(&self) -> Scope {
        Scope {
            epoch: self.volume.epoch().0,
            state: Arc::clone(self.committer.state()),
            deletions: self.committer.deletions().clone(),
        }
    }

    pub(crate) fn epoch(&self) -> VolumeEpoch {
        self.volume.epoch()
    }

    pub(crate) fn leader_epoch(&self) -> i32 {
        self.volume.epoch().leader_epoch()
    }

    /// The leader epoch of a stream that lies here; none while it is sealed or another volume's.
    pub(crate) fn leader_epoch_of(&self, id: StreamId) -> Option<i32> {
        // Not made for this alone: it is asked of all streams that a client hears of.
        if let Some(stream) = self.streams.stream(id) {
            let here = !stream.is_away();
            return here.then(|| stream.leader_epoch(self.epoch()).cast_signed());
        }
        let key = key_of(id);
        let state = self.bucket_state().read();
        match state.streams.get(&key) {
            Some(known) if known.sealed => None,
            Some(known) => {
                let epoch = VolumeEpoch(known.leader_epoch(self.epoch().0)).min(VolumeEpoch::MAX);
                Some(epoch.leader_epoch())
            }
            None if state.departed.contains_key(&key) => None,
            None => Some(self.leader_epoch()),
        }
    }

    pub(crate) fn max_batch_bytes(&self) -> usize {
        self.max_batch_bytes
    }

    pub(crate) fn bucket_state(&self) -> &Arc<RwLock<VolumeState>> {
        self.committer.state()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic {
            in_bytes: self.traffic.in_bytes.load(Relaxed),
            out_bytes: self.traffic.out_bytes.load(Relaxed),
            requests: self.traffic.requests.load(Relaxed),
        }
    }

    /// Whether the volume is still ours.
    pub(crate) fn is_serving(&self) -> bool {
        !self.state.borrow().ended
    }

    /// Tells when the volume is not ours any more, and keeps nothing of it alive.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut state = self.state.clone();
        async move {
            // A task that is gone has ended, too.
            let _ = state.wait_for(|state| state.ended).await;
        }
    }

    /// Another owner is known to have the volume: it is served no more, and [`Self::ended`] tells.
    pub(crate) fn fence(&self) {
        self.volume.fence();
    }

    /// Bytes of the log that no upload has taken yet.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.state.borrow().waiting_bytes
    }

    /// Who waits for records looks again, and finds that the volume is not here.
    pub(crate) fn wake_readers(&self) {
        for stream in &self.streams.by_id {
            stream.wake();
        }
        self.moved.notify_waiters();
    }

    /// Drops the streams of topics that are not there any more.
    pub(crate) fn forget_unwanted(&self, around: &Surroundings) {
        let mut unwanted: BTreeSet<TopicId> = {
            let state = self.bucket_state().read();
            let streams = named(&state).map(stream_of);
            streams.filter(|id| !is_wanted(around, *id)).map(|id| id.topic).collect()
        };
        let in_memory = self.streams.by_id.iter().map(|stream| stream.id);
        unwanted.extend(in_memory.filter(|id| !is_wanted(around, *id)).map(|id| id.topic));
        for topic in unwanted {
            self.forget(topic);
        }
    }

    /// The stream, made if it is not in memory.
    pub(crate) fn stream(&self, id: StreamId) -> Arc<Stream> {
        if let Some(found) = self.streams.by_id.get(&id) {
            return Arc::clone(&found);
        }
        let made = || Stream::as_committed(id, &self.bucket_state().read());
        Arc::clone(&self.streams.by_id.entry(id).or_insert_with(made))
    }

    /// The stream if it is in memory.
    pub(crate) fn stream_in_memory(&self, id: StreamId) -> Option<Arc<Stream>> {
        self.streams.stream(id)
    }

    /// What is in memory of a stream that came or went goes: it is made of the volume's state when it is used again.
    pub(crate) fn drop_stream(&self, id: StreamId) {
        if let Some((_, stream)) = self.streams.by_id.remove(&id) {
            stream.stand(Standing::Away);
        }
        self.moved.notify_waiters();
    }

    /// Commits a step of a move; whether it took effect is seen in the state.
    pub(crate) async fn step(&self, stream: StreamId, step: Step) -> Result<Committed, Ended> {
        self.steps(vec![(key_of(stream), step)]).await
    }

    /// Commits steps of moves of several streams, ascending.
    pub(crate) async fn steps(&self, steps: Vec<(StreamKey, Step)>) -> Result<Committed, Ended> {
        self.committer.commit(Change::Moves(steps)).await
    }

    /// Returns when all is durable that was given an offset before; an error if service ends first.
    pub(crate) async fn settle(&self) -> Result<(), Ended> {
        let (reply, answer) = oneshot::channel();
        self.control.send(Control::Barrier { reply }).map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// Told when a stream has moved, or moves no more.
    pub(crate) fn moved(&self) -> &Notify {
        &self.moved
    }

    /// The bytes of a stream's batches. What is in the bucket and not yet let go of counts once.
    pub(crate) fn stream_bytes(&self, id: StreamId) -> u64 {
        let stream = self.streams.stream(id);
        let (bytes, end) = {
            let state = self.bucket_state().read();
            let in_bucket = state.streams.get(&key_of(id));
            in_bucket.map_or((0, 0), |s| (s.data_bytes(), s.end_offset))
        };
        bytes + stream.map_or(0, |stream| stream.bytes_from(end))
    }

    /// Queues a checked batch; the answer comes when it is durable. The order of appends is the order
    /// in which these futures were first polled.
    pub(crate) async fn append(
        &self,
        stream: Arc<Stream>,
        batch: Bytes,
        header: BatchHeader,
        voucher: Option<Voucher>,
        log_append_time: bool,
    ) -> Result<oneshot::Receiver<Result<Appended, AppendError>>, AppendError> {
        let queued = Instant::now();
        let permits = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(permits);
        // A task that has used up its turn (tokio's budget) would be sent away without a place in the
        // queue, and a later append of the same connection could get ahead of this one.
        let room = tokio::task::unconstrained(room);
        let permit = room.await.map_err(|_| AppendError::NotOwner)?;
        self.traffic.requests.fetch_add(1, Relaxed);
        self.traffic.in_bytes.fetch_add(batch.len() as u64, Relaxed);
        let (reply, answer) = oneshot::channel();
        let append = Append {
            stream,
            batch,
            header,
            voucher,
            log_append_time,
            reply,
            queued,
            _permit: permit,
        };
        self.appends.send(append).map_err(|_| AppendError::NotOwner)?;
        Ok(answer)
    }

    /// Moves a stream's log start, durably.
    pub(crate) async fn move_log_start(
        &self,
        stream: Arc<Stream>,
        offset: i64,
    ) -> Result<(), AppendError> {
        let (reply, answer) = oneshot::channel();
        let command = Control::MoveLogStart { stream, offset, reply };
        self.control.send(command).map_err(|_| AppendError::NotOwner)?;
        answer.await.map_err(|_| AppendError::NotOwner)
    }

    /// Asks that nothing is only on the volume for longer than `max_age`, until `until`.
    pub(crate) fn ask_freshness(&self, max_age: Duration, until: Instant) {
        self.freshness.ask(max_age, until);
    }

    /// The same, said with each append.
    pub(crate) fn keep_fresh(&self, max_age: Duration, valid_for: Duration) {
        self.freshness.keep(max_age, valid_for);
    }

    /// Drops the streams of a deleted topic, here and in the bucket.
    pub(crate) fn forget(&self, topic: TopicId) {
        self.streams.by_id.retain(|id, stream| {
            let stays = id.topic != topic;
            if !stays {
                stream.delete();
            }
            stays
        });
        // It takes effect whether or not anyone waits; if service ends before, the next owner sees that
        // the topic is gone.
        drop(self.committer.submit(Change::Forget(topic)));
    }

    /// Puts and commits a coordinator snapshot as of `offset` of its log, `stream`, and forgets the log
    /// before it. Not cancelled by being dropped halfway: what is put and not committed is an orphan.
    pub(crate) async fn snapshot(
        &self,
        stream: &Stream,
        offset: i64,
        bytes: Bytes,
    ) -> Result<(), Ended> {
        let id = self.committer.next_segment_id();
        let payload = PutPayload::from_bytes(bytes);
        self.objects.put(&self.keys.snapshot(id), &payload, None).await?;
        let snapshot = CoordinatorSnapshot { id, offset };
        let change = Change::Snapshot { stream: key_of(stream.id), snapshot };
        self.committer.commit(change).await?;
        stream.move_log_start(offset);
        Ok(())
    }

    /// Whole batches from the one that holds `offset` on: at least one, then up to `max_bytes`. None
    /// if they are only in the bucket.
    pub(crate) async fn read(
        &self,
        stream: &Stream,
        offset: i64,
        max_bytes: u64,
    ) -> Result<Option<Chain>, TailError> {
        if !self.is_serving() || stream.is_away() {
            return Err(TailError::NotOwner);
        }
        // A frame may be uploaded and trimmed between looking it up and reading it; then it is in the
        // bucket, or a newer look finds what is left.
        for _ in 0..3 {
            let runs = match stream.read(offset, max_bytes) {
                TailRead::AtEnd => return Ok(Some(Chain::default())),
                TailRead::Below => return Ok(None),
                TailRead::OutOfRange => return Err(TailError::OutOfRange),
                TailRead::Runs(runs) => runs,
            };
            match self.gather(&runs, offset, max_bytes).await {
                Ok(chain) => {
                    self.traffic.requests.fetch_add(1, Relaxed);
                    self.traffic.out_bytes.fetch_add(chain.len() as u64, Relaxed);
                    return Ok(Some(chain));
                }
                Err(ReadError::Trimmed(_)) => {}
                Err(error) => return Err(TailError::Volume(Arc::new(error))),
            }
        }
        Ok(None)
    }

    async fn gather(&self, runs: &[Run], offset: i64, max_bytes: u64) -> Result<Chain, ReadError> {
        let mut chain = Chain::default();
        for run in runs {
            let bytes = self.run_bytes(run).await?;
            let room = max_bytes.saturating_sub(chain.len() as u64);
            let taken = scan::select(&bytes, offset, room, chain.is_empty());
            if !taken.batches.is_empty() {
                chain.push(taken.batches);
            }
            if !taken.to_end || chain.len() as u64 >= max_bytes {
                break;
            }
        }
        Ok(chain)
    }

    /// A run's batches, from memory or from the volume.
    pub(crate) async fn run_bytes(&self, run: &Run) -> Result<Bytes, ReadError> {
        if let Some(payload) = run.frame.payload() {
            return Ok(run.slice(&payload));
        }
        self.metrics.volume_reads.inc();
        let payload = self.volume.read(run.frame.lsn).await?;
        Ok(run.slice(&payload))
    }

    /// Ends service: what was queued becomes durable, as much as possible is uploaded within `flush`, the
    /// volume is closed. Once.
    pub(crate) async fn close(&self, flush: Duration) {
        let Some(Tasks { task, uploads, mut others }) = self.tasks.lock().take() else {
            return;
        };
        if !flush.is_zero() {
            // What is not uploaded stays on the volume, as after a crash.
            let _ = tokio::time::timeout(flush, self.flush()).await;
        }
        // How they end does not matter here: a panic was logged, a lost volume too.
        uploads.abort();
        let _ = uploads.await;
        others.shutdown().await;
        let _ = self.control.send(Control::Close);
        let _ = task.await;
        if let Err(error) = self.volume.close().await {
            tracing::warn!(volume = self.id.0, %error, "the volume was not closed cleanly");
        }
    }

    /// Returns when all that is durable now is in the bucket, or the volume's service has ended.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        // Without an uploader the answer is that nobody answers.
        let _ = self.flushes.send(Flush { upto: self.volume.usage().durable, done });
        let _ = flushed.await;
    }

    /// Ends service as a crash would, and waits until the device is let go of.
    pub(crate) async fn abandon(&self) {
        let tasks = self.tasks.lock().take();
        if let Some(Tasks { task, uploads, mut others }) = tasks {
            uploads.abort();
            task.abort();
            let _ = uploads.await;
            others.shutdown().await;
            let _ = task.await;
        }
        self.volume.fence();
        let _ = self.volume.close().await;
    }

    /// How many streams are in memory.
    pub(crate) fn stream_count(&self) -> usize {
        self.streams.by_id.len()
    }
}

impl Drop for OwnedVolume {
    fn drop(&mut self) {
        if let Some(tasks) = self.tasks.lock().take() {
            tasks.uploads.abort();
        }
    }
}
