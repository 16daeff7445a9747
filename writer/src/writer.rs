//! The writer of a process: its volumes, and the operations on streams that lie on them.

mod markers;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use sluice_catalog::{Catalog, Topic};
use sluice_format::VolumeState;
use sluice_format::key::Keys;
use sluice_model::topic_config::{Compression as TopicCompression, TimestampType, TopicConfig};
use sluice_model::{Clock, Entropy, NodeId, StreamId, VolumeEpoch, VolumeId};
use sluice_wire::batch::{
    Attributes, BatchError, BatchView, Compression, ProduceRules, recompress, validate_produce,
};
use sluice_wire::{Chain, ErrorCode, scan};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::coordinators::{Census, CoordinatorParts, Coordinators};
use crate::error::{AppendError, OpenError, TailError};
use crate::group::{GroupConfig, GroupCoordinator};
use crate::metrics::WriterMetrics;
use crate::options::{OnShift, Shift, VolumePlace, WriterOptions};
use crate::orphans::Orphans;
use crate::ownership::{Follower, Loss, VolumeSet};
use crate::recovery::Surroundings;
use crate::sequence::{BatchHeader, Voucher};
use crate::share::Shares;
use crate::stream::{Offsets, Standing, Stream, Waiter};
use crate::tail::Tail;
use crate::task::Appended;
use crate::transaction::{OtherOwners, TransactionConfig, TransactionCoordinator};
use crate::volume_handle::{OwnedVolume, Traffic};

pub use self::transactions::Unverified;

pub(crate) use self::markers::{CatalogProducerIds, WriterMarkers};

/// A compressed batch may hold this many times `max.message.bytes` uncompressed.
const INFLATION_BOUND: usize = 64;
/// Losses that a listener may be behind before it misses some.
const LOSSES_KEPT: usize = 1024;
/// The part of a batch's header that must be there to look at its attributes.
const ATTRIBUTES_AT: usize = 21;

/// What a writer needs of its process.
pub struct WriterParts {
    /// This process.
    pub node: NodeId,
    /// The cluster's metadata.
    pub catalog: Catalog,
    /// Where segments and manifests go.
    pub bucket: Arc<dyn ObjectStore>,
    /// The same bucket for work that nobody waits for: compaction, deletions.
    pub background: Arc<dyn ObjectStore>,
    /// Names in the bucket.
    pub keys: Keys,
    /// Bounds and triggers.
    pub options: WriterOptions,
    /// Of the group coordinator.
    pub groups: GroupConfig,
    /// Of the transaction coordinator.
    pub transactions: TransactionConfig,
    /// Wall-clock time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Counters, registered by the caller.
    pub metrics: WriterMetrics,
    /// Whoever has the streams that are not here, for the ends of transactions.
    pub other_owners: Arc<dyn OtherOwners>,
    /// Told of volumes that come and go.
    pub on_shift: OnShift,
}

/// The volumes that this process owns. Cheap to clone. They come and go while it runs: see [`Writer::take`],
/// [`Writer::release`] and [`Writer::losses`].
#[derive(Clone)]
pub struct Writer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) around: Surroundings,
    pub(crate) metrics: WriterMetrics,
    pub(crate) volumes: VolumeSet,
    pub(crate) coordinators: Coordinators,
    pub(crate) losses: broadcast::Sender<Loss>,
    pub(crate) other_owners: Arc<dyn OtherOwners>,
    pub(crate) on_shift: OnShift,
    tasks: Mutex<Vec<AbortHandle>>,
}

/// A position in the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The record's offset.
    pub offset: i64,
    /// Its timestamp, ms.
    pub timestamp_ms: i64,
}

impl Writer {
    /// A writer without volumes. Needs a tokio runtime.
    pub fn new(parts: WriterParts) -> Self {
        let WriterParts {
            node,
            catalog,
            bucket,
            background,
            keys,
            options,
            groups,
            transactions,
            clock,
            entropy,
            metrics,
            other_owners,
            on_shift,
        } = parts;
        let coordinators = CoordinatorParts {
            catalog: catalog.clone(),
            groups,
            transactions,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            metrics: metrics.clone(),
        };
        let around = Surroundings {
            node,
            catalog,
            bucket,
            background,
            keys,
            options,
            clock,
            entropy,
            compaction_slot: Arc::new(Semaphore::new(1)),
        };
        // Subscribed before any volume is taken, so that no claim and no deletion is missed.
        let (claims, topics) = (around.catalog.subscribe(), around.catalog.subscribe());
        let inner = Arc::new(Inner {
            around,
            metrics,
            volumes: VolumeSet::default(),
            coordinators: Coordinators::new(coordinators),
            losses: broadcast::Sender::new(LOSSES_KEPT),
            other_owners,
            on_shift,
            tasks: Mutex::default(),
        });
        let tasks = [
            tokio::spawn(Orphans::of(&inner).run()),
            tokio::spawn(Follower(Arc::downgrade(&inner)).watch_claims(claims)),
            tokio::spawn(Follower(Arc::downgrade(&inner)).watch_topics(topics)),
        ];
        inner.tasks.lock().extend(tasks.iter().map(JoinHandle::abort_handle));
        Self { inner }
    }

    /// A writer that has taken all volumes in `places`, side by side, waiting for the bucket however long it takes.
    /// If one cannot be taken none is.
    pub async fn open(places: &[VolumePlace], parts: WriterParts) -> Result<Self, OpenError> {
        let writer = Self::new(parts);
        let mut takes = JoinSet::new();
        for place in places {
            let (writer, place) = (writer.clone(), place.clone());
            takes.spawn(async move { Box::pin(writer.take(&place, Duration::MAX)).await });
        }
        let mut failed = None;
        while let Some(taken) = takes.join_next().await {
            match taken {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => failed = failed.or(Some(error.cause)),
                Err(gone) => {
                    let why = gone.to_string();
                    failed = failed.or(Some(OpenError::Contradiction { volume: 0, why }));
                }
            }
            if failed.is_some() {
                // The others may wait for ever.
                takes.abort_all();
            }
        }
        match failed {
            None => Ok(writer),
            Some(error) => {
                writer.close(Duration::ZERO).await;
                Err(error)
            }
        }
    }

    /// Adds to a registry how many groups, members and share sessions there are whenever somebody asks, beside
    /// what [`WriterMetrics`] counts.
    pub fn register_census(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Census(Arc::downgrade(&self.inner))));
    }

    /// The group coordinator: the one whose volume is here, or one that answers that it is elsewhere. Not to be
    /// kept beyond a request, as it changes with the volume.
    pub fn groups(&self) -> Arc<GroupCoordinator> {
        self.inner.coordinators.current().groups
    }

    /// What share groups have of the streams; see [`Writer::groups`].
    pub fn shares(&self) -> Arc<Shares> {
        self.inner.coordinators.current().shares
    }

    /// The transaction coordinator; see [`Writer::groups`].
    pub fn transactions(&self) -> Arc<TransactionCoordinator> {
        self.inner.coordinators.current().transactions
    }

    /// Each volume that is served with what it has in the bucket.
    pub fn bucket_states(
        &self,
    ) -> impl Iterator<Item = (VolumeId, Arc<RwLock<VolumeState>>)> + use<> {
        let volumes = self.inner.volumes.all().into_iter();
        volumes.map(|volume| (volume.id, Arc::clone(volume.bucket_state())))
    }

    /// The volumes that are served now, each under its epoch, by id.
    pub fn volumes(&self) -> Vec<(VolumeId, VolumeEpoch)> {
        self.inner.volumes.all().iter().map(|volume| (volume.id, volume.epoch())).collect()
    }

    /// What came to each volume that is served and went from it since it was taken, by id.
    pub fn traffic(&self) -> Vec<(VolumeId, Traffic)> {
        self.inner.volumes.all().iter().map(|volume| (volume.id, volume.traffic())).collect()
    }

    /// Serves a volume no more, at once, if it is served under this epoch: whoever calls knows that another may
    /// have it. It is lost then; see [`Self::losses`].
    pub fn fence(&self, id: VolumeId, epoch: VolumeEpoch) {
        if let Some(volume) = self.inner.volumes.get(id)
            && volume.epoch() == epoch
        {
            volume.fence();
        }
    }

    /// Tells of volumes that are lost from now on: those that were released or closed are not.
    pub fn losses(&self) -> broadcast::Receiver<Loss> {
        self.inner.losses.subscribe()
    }

    /// The cluster's metadata.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.around.catalog
    }

    /// Wall time in ms, as the writer's clock has it.
    pub fn wall_ms(&self) -> i64 {
        self.inner.around.clock.wall_ms()
    }

    /// A reader that follows a stream in the bucket asks that its records get there within `max_age`. Holds
    /// for `valid_for`: ask again before that. It costs PUTs, for the whole volume.
    pub fn ask_freshness(
        &self,
        stream: StreamId,
        max_age: Duration,
        valid_for: Duration,
    ) -> Result<(), TailError> {
        let (volume, _) = self.locate(stream).ok_or(TailError::NotOwner)?;
        volume.ask_freshness(max_age, Instant::now() + valid_for);
        Ok(())
    }

    /// How many streams are in memory: in use, or with records that are not in the bucket.
    pub fn stream_count(&self) -> usize {
        self.inner.volumes.all().iter().map(|volume| volume.stream_count()).sum()
    }

    /// The volume that a stream lies on.
    pub fn volume_of(&self, stream: StreamId) -> Result<VolumeId, TailError> {
        Ok(self.locate(stream).ok_or(TailError::NotOwner)?.0.id)
    }

    /// The leader epoch of a stream: grows with each change of its volume's owner, and as it moves between volumes.
    /// None if it is not here.
    pub fn leader_epoch(&self, stream: StreamId) -> Option<i32> {
        self.inner.leader_epoch(stream)
    }

    fn locate(&self, stream: StreamId) -> Option<(Arc<OwnedVolume>, Arc<Topic>)> {
        self.inner.locate(stream)
    }

    /// The stream, to ask several things of it.
    pub fn tail(&self, stream: StreamId) -> Result<Tail, TailError> {
        let (volume, stream) = self.stream(stream)?;
        Ok(Tail::new(volume, stream))
    }

    fn stream(&self, stream: StreamId) -> Result<(Arc<OwnedVolume>, Arc<Stream>), TailError> {
        let (volume, _) = self.locate(stream).ok_or(TailError::NotOwner)?;
        let stream = volume.stream(stream);
        // Sealed, or moved where the catalog's lookups do not have it yet.
        if stream.is_away() {
            return Err(TailError::NotOwner);
        }
        Ok((volume, stream))
    }

    /// Appends the one batch in `records`, as Kafka allows one batch a partition and request. Returns
    /// when it is durable. The order of appends is the order in which these futures were first
    /// polled. Dropping the future takes nothing back. A batch that would begin a transaction is refused:
    /// see [`Writer::unverified`].
    pub async fn append(
        &self,
        stream: StreamId,
        records: &Bytes,
        timeout: Duration,
    ) -> Result<Appended, AppendError> {
        self.append_with(stream, records, timeout, None).await
    }

    async fn append_with(
        &self,
        stream: StreamId,
        records: &Bytes,
        timeout: Duration,
        vouched: Option<(Voucher, Arc<Stream>)>,
    ) -> Result<Appended, AppendError> {
        let limit = timeout.min(self.inner.around.options.append_timeout);
        let Some((volume, topic)) = self.locate(stream) else {
            return Err(self.not_here(stream, limit).await);
        };
        let now_ms = self.inner.around.clock.wall_ms();
        let (batch, header) = check(records, &topic, volume.max_batch_bytes(), now_ms)?;
        let log_append_time = topic.config.timestamp_type == TimestampType::LogAppendTime;
        self.promise_compaction(&volume, &topic.config);
        let id = stream;
        let stream = volume.stream(id);
        let voucher = match vouched {
            // It has moved since: what was vouched for is not known there, and is asked for again.
            Some((_, asked)) if !Arc::ptr_eq(&asked, &stream) => return Err(AppendError::NotOwner),
            vouched => vouched.map(|(voucher, _)| voucher),
        };
        let durable = async {
            let queued = Arc::clone(&stream);
            let answer = volume.append(queued, batch, header, voucher, log_append_time).await?;
            let done = answer.await.unwrap_or(Err(AppendError::NotOwner));
            if done == Err(AppendError::NotOwner) {
                // Whoever is told to look for the stream's volume is to find another, if it moves.
                self.moved_on(id, &volume, &stream).await;
            }
            done
        };
        tokio::time::timeout(limit, durable).await.unwrap_or(Err(AppendError::TimedOut))
    }

    /// Returns when a stream that moves is known to be elsewhere, or is here again.
    async fn moved_on(&self, id: StreamId, volume: &OwnedVolume, stream: &Stream) {
        loop {
            let moved = volume.moved().notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            let is_moving = volume.is_serving()
                && stream.standing() != Standing::Here
                && self.inner.volume_of(id) == Some(volume.id);
            if !is_moving {
                return;
            }
            moved.await;
        }
    }

    /// The answer to an append for a stream that is not served here; it comes when the stream's volume, if it is
    /// being handed over, has been given up.
    async fn not_here(&self, stream: StreamId, limit: Duration) -> AppendError {
        if let Some(volume) = self.inner.volume_of(stream) {
            let handed_over = self.inner.volumes.handed_over(volume);
            let _ = tokio::time::timeout(limit, handed_over).await;
        }
        AppendError::NotOwner
    }

    /// Compaction sees what is in the bucket alone, so records that may not wait long for it may not wait
    /// long to be uploaded. It looks once an interval: there is no use in being much faster than that.
    fn promise_compaction(&self, volume: &OwnedVolume, config: &TopicConfig) {
        let interval = self.inner.around.options.compaction.interval;
        let lag = Duration::from_millis(config.max_compaction_lag_ms);
        if config.cleanup.compact && lag <= interval {
            // Half of it is left at each time, and has to outlast the lag.
            let valid_for = 2 * interval.max(Duration::from_secs(1));
            volume.keep_fresh(lag.max(interval / 4), valid_for);
        }
    }

    /// The offsets of a stream.
    pub fn offsets(&self, stream: StreamId) -> Result<Offsets, TailError> {
        Ok(self.stream(stream)?.1.offsets())
    }

    /// The bytes of a stream's batches, in the bucket and above that in the tail; 0 if it is not here.
    pub fn stream_bytes(&self, stream: StreamId) -> u64 {
        self.locate(stream).map_or(0, |(volume, _)| volume.stream_bytes(stream))
    }

    /// See [`Tail::read`].
    pub async fn read(
        &self,
        stream: StreamId,
        offset: i64,
        max_bytes: u64,
    ) -> Result<Option<Chain>, TailError> {
        self.tail(stream)?.read(offset, max_bytes).await
    }

    /// Waits on several streams; those that are not here are left out. `notify` is told, which may be told of
    /// other things too: see also [`Tail::waiter`].
    pub fn waiter_with(
        &self,
        notify: Arc<Notify>,
        streams: impl Iterator<Item = StreamId>,
    ) -> Waiter {
        Waiter::with(notify, streams.filter_map(|id| Some(self.stream(id).ok()?.1)).collect())
    }

    /// The first record in the tail whose timestamp is at least `timestamp_ms`.
    pub async fn find_timestamp(
        &self,
        stream: StreamId,
        timestamp_ms: i64,
    ) -> Result<Option<Found>, TailError> {
        let (volume, stream) = self.stream(stream)?;
        let Some(run) = stream.run_from_timestamp(timestamp_ms) else {
            return Ok(None);
        };
        let bytes = volume.run_bytes(&run).await;
        let bytes = bytes.map_err(|error| TailError::Volume(Arc::new(error)))?;
        let from = stream.offsets().log_start;
        let found = scan::find_timestamp(&bytes, timestamp_ms, from, volume.max_batch_bytes() * 4);
        Ok(found.map(|(offset, timestamp_ms)| Found { offset, timestamp_ms }))
    }

    /// The first record with the largest timestamp in the tail.
    pub async fn find_max_timestamp(&self, stream: StreamId) -> Result<Option<Found>, TailError> {
        let largest = self.stream(stream)?.1.run_of_max_timestamp().map(|run| run.max_timestamp);
        match largest {
            Some(largest) => self.find_timestamp(stream, largest).await,
            None => Ok(None),
        }
    }

    /// See [`Tail::epoch_end`].
    pub fn epoch_end(&self, stream: StreamId, epoch: i32) -> Result<Option<(i32, i64)>, TailError> {
        Ok(self.tail(stream)?.epoch_end(epoch))
    }

    /// The leader epoch under which a record was written; -1 if that is not known.
    pub fn epoch_of(&self, stream: StreamId, offset: i64) -> i32 {
        self.stream(stream).map_or(-1, |(_, stream)| stream.epoch_of(offset))
    }

    /// Moves the log start up to `offset`, or to the high watermark for -1; durable when it returns.
    /// Gives the log start.
    pub async fn delete_records(&self, stream: StreamId, offset: i64) -> Result<i64, AppendError> {
        let (volume, stream) = self.stream(stream).map_err(|_| AppendError::NotOwner)?;
        let offsets = stream.offsets();
        let wanted = if offset == -1 { offsets.high_watermark } else { offset };
        if wanted < 0 || wanted > offsets.high_watermark {
            return Err(AppendError::Invalid {
                code: ErrorCode::OffsetOutOfRange,
                reason: "the offset is above the high watermark".to_owned(),
                records: Vec::new(),
            });
        }
        if wanted > offsets.log_start {
            let moved = volume.move_log_start(Arc::clone(&stream), wanted);
            tokio::time::timeout(self.inner.around.options.append_timeout, moved)
                .await
                .unwrap_or(Err(AppendError::TimedOut))?;
        }
        Ok(stream.offsets().log_start)
    }

    /// Ends service: takes no more volumes, refuses what comes, makes durable what was queued, uploads as much as can
    /// be within `flush`, closes the volumes. The catalog still has them as this node's: its next life, or
    /// any other node, claims them.
    pub async fn close(&self, flush: Duration) {
        let volumes = self.end();
        futures_util::future::join_all(volumes.iter().map(|volume| volume.close(flush))).await;
    }

    /// All that was served, which nobody else closes now.
    fn end(&self) -> Vec<Arc<OwnedVolume>> {
        let inner = &self.inner;
        inner.tasks.lock().iter().for_each(AbortHandle::abort);
        let volumes = inner.volumes.close();
        inner.coordinators.stop();
        for volume in &volumes {
            inner.metrics.ownership.volumes.dec();
            (inner.on_shift)(Shift::Gone { volume: volume.id });
            volume.wake_readers();
        }
        volumes
    }
}

#[cfg(test)]
impl Writer {
    /// Ends service as a crash would: nothing is closed. Returns when the volumes are let go of.
    pub(crate) async fn abandon(&self) {
        for volume in self.end() {
            volume.abandon().await;
        }
    }
}

impl Orphans {
    fn of(inner: &Arc<Inner>) -> Self {
        let served = Arc::downgrade(inner);
        let around = &inner.around;
        Self {
            bucket: Arc::clone(&around.bucket),
            keys: around.keys.clone(),
            scopes: Box::new(move || {
                let inner = served.upgrade();
                let volumes = inner.map(|inner| inner.volumes.all()).unwrap_or_default();
                volumes.into_iter().map(|v| (v.id.0, v.orphan_scope())).collect()
            }),
            options: around.options.orphans.clone(),
            clock: Arc::clone(&around.clock),
            metrics: inner.metrics.clone(),
        }
    }
}

impl Inner {
    /// The volume that a stream lies on, whoever has it.
    pub(crate) fn volume_of(&self, stream: StreamId) -> Option<VolumeId> {
        let topic = self.around.catalog.topic_of_any_tenant(stream.topic)?;
        topic.partitions.get(stream.partition as usize).copied()
    }

    fn locate(&self, stream: StreamId) -> Option<(Arc<OwnedVolume>, Arc<Topic>)> {
        let topic = self.around.catalog.topic_of_any_tenant(stream.topic)?;
        let volume = topic.partitions.get(stream.partition as usize)?;
        Some((self.volumes.get(*volume)?, topic))
    }

    /// See [`Writer::leader_epoch`].
    pub(crate) fn leader_epoch(&self, stream: StreamId) -> Option<i32> {
        self.locate(stream)?.0.leader_epoch_of(stream)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(AbortHandle::abort);
        // Their tasks hold the volume until they are closed.
        self.coordinators.stop();
    }
}

/// Checks what a producer sent for one partition, by the topic's rules.
fn check(
    records: &Bytes,
    topic: &Topic,
    max_batch_bytes: usize,
    now_ms: i64,
) -> Result<(Bytes, BatchHeader), AppendError> {
    let config = &topic.config;
    let timestamps_ms = match config.timestamp_type {
        TimestampType::LogAppendTime => i64::MIN..=i64::MAX,
        TimestampType::CreateTime => {
            now_ms.saturating_sub_unsigned(config.timestamp_before_max_ms)
                ..=now_ms.saturating_add_unsigned(config.timestamp_after_max_ms)
        }
    };
    let largest = (config.max_message_bytes as usize).min(max_batch_bytes);
    let rules = ProduceRules {
        max_batch_bytes: largest,
        max_inflated_bytes: largest.saturating_mul(INFLATION_BOUND),
        // Plain records are cheap to walk. Compressed ones are believed, as inflating them would cost
        // more than all else that is done to them, unless the topic's rules need a look inside.
        walk_records: config.cleanup.compact || !is_compressed(records),
        require_keys: config.cleanup.compact,
        timestamps_ms,
    };
    let mut checked = validate_produce(records, &rules).map_err(|error| refused(&error))?;
    match (checked.pop(), checked.is_empty()) {
        (Some(only), true) => {
            let batch = stored(only.batch, config.compression, &rules)?;
            let mut header = BatchHeader::of(&batch);
            header.max_timestamp = only.max_timestamp_ms;
            Ok((batch.into_bytes(), header))
        }
        _ => Err(AppendError::Invalid {
            code: ErrorCode::InvalidRecord,
            reason: "a produce request holds exactly one batch a partition".to_owned(),
            records: Vec::new(),
        }),
    }
}

/// The batch as the topic's `compression.type` wants it stored.
fn stored(
    batch: BatchView,
    compression: TopicCompression,
    rules: &ProduceRules,
) -> Result<BatchView, AppendError> {
    let (to, level) = match compression {
        TopicCompression::Producer => return Ok(batch),
        TopicCompression::Uncompressed => (Compression::None, None),
        TopicCompression::Gzip(level) => (Compression::Gzip, Some(level)),
        TopicCompression::Snappy => (Compression::Snappy, None),
        TopicCompression::Lz4(_) => (Compression::Lz4, None),
        TopicCompression::Zstd(level) => (Compression::Zstd, Some(level)),
    };
    let made = recompress(&batch, to, level, rules.max_inflated_bytes);
    let Some(made) = made.map_err(|error| refused(&error))? else { return Ok(batch) };
    // The bound holds for what is stored as well, as in Kafka.
    let (len_bytes, max_bytes) = (made.len(), rules.max_batch_bytes);
    if len_bytes > max_bytes {
        return Err(refused(&BatchError::TooLarge { len_bytes, max_bytes }));
    }
    BatchView::new(made).map_err(|error| refused(&error))
}

fn is_compressed(records: &Bytes) -> bool {
    let attributes = records.get(ATTRIBUTES_AT..ATTRIBUTES_AT + 2);
    attributes.is_some_and(|bytes| {
        let attributes = Attributes(i16::from_be_bytes([bytes[0], bytes[1]]));
        !matches!(attributes.compression(), Ok(Compression::None))
    })
}

fn refused(error: &BatchError) -> AppendError {
    let records = match error {
        BatchError::Refused(faults) => {
            faults.iter().map(|(index, fault)| (*index, fault.to_string())).collect()
        }
        BatchError::Malformed { index } => vec![(*index, error.to_string())],
        _ => Vec::new(),
    };
    AppendError::Invalid { code: error.code(), reason: error.to_string(), records }
}
