//! The writer of a process: its volumes, and the operations on streams that lie on them.

mod markers;
mod transactions;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use sluice_catalog::{Catalog, Change, Topic};
use sluice_format::VolumeState;
use sluice_format::key::Keys;
use sluice_model::topic_config::{Compression as TopicCompression, TimestampType, TopicConfig};
use sluice_model::{Clock, Entropy, NodeId, StreamId, VolumeId};
use sluice_wire::batch::{
    Attributes, BatchError, BatchView, Compression, ProduceRules, recompress, validate_produce,
};
use sluice_wire::{Chain, ErrorCode, scan};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::coordinator_log::{VolumeLog, largest_append};
use crate::coordinator_state::{GROUP_KINDS, SharedLogState};
use crate::error::{AppendError, OpenError, TailError};
use crate::group::{GroupConfig, GroupCoordinator};
use crate::metrics::WriterMetrics;
use crate::options::{VolumePlace, WriterOptions};
use crate::orphans::Orphans;
use crate::recovery::Surroundings;
use crate::sequence::{BatchHeader, Voucher};
use crate::share::{LeaderEpochOf, SHARE_KINDS, Shares};
use crate::stream::{Offsets, Stream, Waiter};
use crate::tail::Tail;
use crate::task::Appended;
use crate::topics::CatalogTopics;
use crate::transaction::{TransactionConfig, TransactionCoordinator, record};
use crate::volume_handle::OwnedVolume;

pub use self::transactions::Unverified;

use self::markers::{CatalogProducerIds, WriterMarkers};

/// A compressed batch may hold this many times `max.message.bytes` uncompressed.
const INFLATION_BOUND: usize = 64;
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
}

/// The volumes that this process owns. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    append_timeout: Duration,
    compaction_interval: Duration,
    volumes: BTreeMap<VolumeId, Arc<OwnedVolume>>,
    groups: Arc<GroupCoordinator>,
    shares: Arc<Shares>,
    transactions: Arc<TransactionCoordinator>,
    follower: JoinHandle<()>,
    orphans: JoinHandle<()>,
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
    /// Takes over the volumes in `places` (at least one) and serves them. Groups and transactions live on the
    /// first.
    pub async fn open(places: &[VolumePlace], parts: WriterParts) -> Result<Self, OpenError> {
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
        } = parts;
        let around = Surroundings {
            node,
            catalog: catalog.clone(),
            bucket,
            background,
            keys,
            options,
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            compaction_slot: Arc::new(Semaphore::new(1)),
        };
        // Subscribed before the volumes are read back, so that no deletion is missed.
        let changes = catalog.subscribe();
        let opened = places.iter().map(|place| OwnedVolume::open(place, &around, &metrics));
        let opened = futures_util::future::try_join_all(opened).await?;
        let volumes: BTreeMap<_, _> =
            opened.into_iter().map(|volume| (volume.id, Arc::new(volume))).collect();
        let first = volumes.values().next().ok_or_else(|| OpenError::Claim {
            volume: 0,
            why: "a writer needs at least one volume".to_owned(),
        })?;
        let groups = GroupConfig {
            max_group_bytes: groups.max_group_bytes.min(largest_append(first)),
            ..groups
        };
        let topics = Arc::new(CatalogTopics(catalog.clone()));
        let shares = Arc::new(Shares::new(
            groups.share.clone(),
            Arc::clone(&topics) as _,
            Arc::new(catalog.clone()),
            leader_epochs(catalog.clone(), &volumes),
            metrics.shares.clone(),
        ));
        let settings = Arc::new(catalog.clone());
        let groups =
            Arc::new(GroupCoordinator::new(groups, Arc::clone(&clock), entropy, topics, settings));
        let transactions = Arc::new(TransactionCoordinator::new(
            transactions.within(largest_append(first)),
            Arc::clone(&clock),
            Arc::new(CatalogProducerIds(catalog.clone())),
            metrics.transactions.clone(),
        ));
        let state = SharedLogState::new(vec![
            (GROUP_KINDS, Arc::clone(&groups) as _),
            (SHARE_KINDS, Arc::clone(&shares) as _),
            (record::KINDS, Arc::clone(&transactions) as _),
        ]);
        let log = VolumeLog::open(first, &around, Arc::new(state)).await?;
        let coordinator_epoch = first.leader_epoch();
        groups.start(Arc::clone(&log));
        shares.start(Arc::clone(&log));
        let orphans = Orphans {
            bucket: Arc::clone(&around.bucket),
            keys: around.keys.clone(),
            scopes: volumes.iter().map(|(id, volume)| (id.0, volume.orphan_scope())).collect(),
            options: around.options.orphans.clone(),
            clock: Arc::clone(&clock),
            metrics,
        };
        let follower = Follower {
            volumes: volumes.clone(),
            groups: Arc::clone(&groups),
            shares: Arc::clone(&shares),
        };
        let inner = Arc::new(Inner {
            catalog,
            clock,
            append_timeout: around.options.append_timeout,
            compaction_interval: around.options.compaction.interval,
            volumes,
            groups,
            shares,
            transactions,
            follower: tokio::spawn(follower.run(changes)),
            orphans: tokio::spawn(orphans.run()),
        });
        // Last: it writes what is left of markers at once.
        let markers = WriterMarkers(Arc::downgrade(&inner));
        inner.transactions.start(log, Arc::new(markers), coordinator_epoch);
        Ok(Self { inner })
    }

    /// Adds to a registry how many groups, members and share sessions there are whenever somebody asks, beside
    /// what [`WriterMetrics`] counts.
    pub fn register_census(&self, registry: &mut Registry) {
        self.inner.groups.register_census(registry);
        self.inner.shares.register_census(registry);
    }

    /// The group coordinator.
    pub fn groups(&self) -> &GroupCoordinator {
        &self.inner.groups
    }

    /// What share groups have of the streams.
    pub fn shares(&self) -> &Shares {
        &self.inner.shares
    }

    /// The transaction coordinator.
    pub fn transactions(&self) -> &TransactionCoordinator {
        &self.inner.transactions
    }

    /// Each volume with what it has in the bucket, for a reader in the same process.
    pub fn bucket_states(&self) -> impl Iterator<Item = (VolumeId, Arc<RwLock<VolumeState>>)> {
        let volumes = self.inner.volumes.values();
        volumes.map(|volume| (volume.id, Arc::clone(volume.bucket_state())))
    }

    /// The cluster's metadata.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Wall time in ms, as the writer's clock has it.
    pub fn wall_ms(&self) -> i64 {
        self.inner.clock.wall_ms()
    }

    /// Whether every volume is still served.
    pub fn is_serving(&self) -> bool {
        self.inner.volumes.values().all(|volume| volume.is_serving())
    }

    /// Returns when a volume is lost or closed.
    pub async fn lost(&self) {
        let ends = self.inner.volumes.values().map(|volume| Box::pin(volume.ended()));
        futures_util::future::select_all(ends).await;
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
        self.inner.volumes.values().map(|volume| volume.stream_count()).sum()
    }

    /// The volume that a stream lies on.
    pub fn volume_of(&self, stream: StreamId) -> Result<VolumeId, TailError> {
        Ok(self.locate(stream).ok_or(TailError::NotOwner)?.0.id)
    }

    /// The leader epoch of a stream: the epoch under which its volume is owned.
    pub fn leader_epoch(&self, stream: StreamId) -> Option<i32> {
        Some(self.locate(stream)?.0.leader_epoch())
    }

    fn locate(&self, stream: StreamId) -> Option<(&Arc<OwnedVolume>, Arc<Topic>)> {
        let topic = self.inner.catalog.topic_of_any_tenant(stream.topic)?;
        let volume = topic.partitions.get(stream.partition as usize)?;
        let volume = self.inner.volumes.get(volume).filter(|volume| volume.is_serving())?;
        Some((volume, topic))
    }

    /// The stream, to ask several things of it.
    pub fn tail(&self, stream: StreamId) -> Result<Tail, TailError> {
        let (volume, stream) = self.stream(stream)?;
        Ok(Tail::new(Arc::clone(volume), stream))
    }

    fn stream(&self, stream: StreamId) -> Result<(&Arc<OwnedVolume>, Arc<Stream>), TailError> {
        let (volume, _) = self.locate(stream).ok_or(TailError::NotOwner)?;
        Ok((volume, volume.stream(stream)))
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
        voucher: Option<Voucher>,
    ) -> Result<Appended, AppendError> {
        let (volume, topic) = self.locate(stream).ok_or(AppendError::NotOwner)?;
        let now_ms = self.inner.clock.wall_ms();
        let (batch, header) = check(records, &topic, volume.max_batch_bytes(), now_ms)?;
        let log_append_time = topic.config.timestamp_type == TimestampType::LogAppendTime;
        self.promise_compaction(volume, &topic.config);
        let stream = volume.stream(stream);
        let limit = timeout.min(self.inner.append_timeout);
        let durable = async {
            let answer = volume.append(stream, batch, header, voucher, log_append_time).await?;
            answer.await.unwrap_or(Err(AppendError::NotOwner))
        };
        tokio::time::timeout(limit, durable).await.unwrap_or(Err(AppendError::TimedOut))
    }

    /// Compaction sees what is in the bucket alone, so records that may not wait long for it may not wait
    /// long to be uploaded. It looks once an interval: there is no use in being much faster than that.
    fn promise_compaction(&self, volume: &OwnedVolume, config: &TopicConfig) {
        let interval = self.inner.compaction_interval;
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
            tokio::time::timeout(self.inner.append_timeout, moved)
                .await
                .unwrap_or(Err(AppendError::TimedOut))?;
        }
        Ok(stream.offsets().log_start)
    }

    /// Ends service: refuses what comes, makes durable what was queued, uploads as much as can be within
    /// `flush`, closes the volumes.
    pub async fn close(&self, flush: Duration) {
        self.inner.transactions.close();
        self.inner.groups.close();
        self.inner.shares.close();
        self.inner.follower.abort();
        self.inner.orphans.abort();
        let volumes = self.inner.volumes.values();
        futures_util::future::join_all(volumes.map(|volume| volume.close(flush))).await;
    }
}

#[cfg(test)]
impl Writer {
    /// Ends service as a crash would: nothing is closed. Returns when the volumes are let go of.
    pub(crate) async fn abandon(&self) {
        self.inner.transactions.close();
        self.inner.groups.close();
        self.inner.shares.close();
        self.inner.follower.abort();
        self.inner.orphans.abort();
        for volume in self.inner.volumes.values() {
            volume.abandon().await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
        self.orphans.abort();
    }
}

/// The leader epoch of any stream; -1 for those of other owners.
fn leader_epochs(
    catalog: Catalog,
    volumes: &BTreeMap<VolumeId, Arc<OwnedVolume>>,
) -> LeaderEpochOf {
    let volumes = volumes.clone();
    Arc::new(move |stream| {
        let topic = catalog.topic_of_any_tenant(stream.topic);
        let volume =
            topic.and_then(|topic| topic.partitions.get(stream.partition as usize).copied());
        volume.and_then(|volume| volumes.get(&volume)).map_or(-1, |volume| volume.leader_epoch())
    })
}

/// Reacts to deleted topics.
struct Follower {
    volumes: BTreeMap<VolumeId, Arc<OwnedVolume>>,
    groups: Arc<GroupCoordinator>,
    shares: Arc<Shares>,
}

impl Follower {
    async fn run(self, mut changes: broadcast::Receiver<Change>) {
        loop {
            match changes.recv().await {
                Ok(Change::TopicDeleted(topic) | Change::TopicReplaced { old: topic, .. }) => {
                    self.forget(&topic).await;
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    // Their streams stay until the volume is next taken over.
                    tracing::warn!(missed, "changes of the catalog were missed");
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    async fn forget(&self, topic: &Topic) {
        for volume in self.volumes.values() {
            volume.forget(topic.id);
        }
        if let Err(error) = self.groups.forget_topic(topic.tenant, topic.id).await {
            // Offsets of a topic that does not exist are never shown; they cost room.
            tracing::warn!(topic = %topic.id, %error, "offsets of a deleted topic stay for now");
        }
        if let Err(error) = self.shares.forget_topic(topic.tenant, topic.id).await {
            tracing::warn!(topic = %topic.id, %error, "share state of a deleted topic stays for now");
        }
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
