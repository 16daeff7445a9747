//! A process's writer with all that it needs, which can be stopped, killed and started again.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::store::MetadataStore;
use sluice_catalog::{Catalog, CatalogOptions, NewTopic, Topic, VolumeKind, VolumeSpec};
use sluice_format::VolumeState;
use sluice_format::key::Keys;
use sluice_model::{
    CatalogLimits, Clock, Entropy, GroupDefaults, NodeId, StreamId, TenantId, TopicDefaults,
    VolumeId,
};
use sluice_volume::{Medium, ObjectOptions, ObjectVolume};
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_wire::scan;

use super::bucket::FaultyBucket;
use super::loop_device::LoopDevice;
use crate::group::GroupConfig;
use crate::transaction::TransactionConfig;
use crate::{
    AppendError, Appended, OpenError, VolumePlace, Writer, WriterMetrics, WriterOptions,
    WriterParts,
};

/// A clock that is set by hand.
#[derive(Debug, Default)]
pub(super) struct HandClock(pub(super) AtomicI64);

impl Clock for HandClock {
    fn wall_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Different bytes each time, the same in each run.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let bytes = (next ^ (next >> 29)).to_le_bytes();
            part.copy_from_slice(&bytes[..part.len()]);
        }
    }
}

/// What volumes lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Object,
    Block,
}

impl Kind {
    /// Those that this machine can make.
    pub(super) fn all() -> Vec<Self> {
        let mut all = vec![Self::File, Self::Object];
        if LoopDevice::are_possible() {
            all.push(Self::Block);
        }
        all
    }
}

pub(super) struct Cluster {
    dir: tempfile::TempDir,
    store: EmbeddedStore,
    kind: Kind,
    devices: Vec<LoopDevice>,
    pub(super) catalog: Catalog,
    pub(super) bucket: Arc<FaultyBucket>,
    pub(super) clock: Arc<HandClock>,
    entropy: Arc<Counted>,
    pub(super) options: WriterOptions,
    /// Of all writers that were started.
    pub(super) metrics: WriterMetrics,
    volumes: u32,
    size_bytes: u64,
}

impl Cluster {
    pub(super) async fn new() -> Self {
        Self::with_volumes(1, 64 << 20).await
    }

    pub(super) async fn with_volumes(volumes: u32, size_bytes: u64) -> Self {
        Self::of(Kind::File, volumes, size_bytes).await
    }

    pub(super) async fn of(kind: Kind, volumes: u32, size_bytes: u64) -> Self {
        let entropy = Arc::new(Counted::default());
        let store = EmbeddedStore::in_memory(Arc::clone(&entropy) as _).unwrap();
        let catalog = catalog_over(Arc::new(store.clone()), &entropy).await;
        let devices = match kind {
            Kind::Block => (0..volumes).map(|_| LoopDevice::new(size_bytes)).collect(),
            Kind::File | Kind::Object => Vec::new(),
        };
        for id in 0..volumes {
            let location = format!("{id}.wal");
            let (kind, location, size_bytes) = match kind {
                Kind::File => (VolumeKind::File, location, size_bytes),
                Kind::Object => (VolumeKind::Object, String::new(), size_bytes),
                Kind::Block => (VolumeKind::Block, location, 0),
            };
            let spec = VolumeSpec::new(VolumeId(id), kind, location, size_bytes);
            catalog.add_volume(spec).await.unwrap();
        }
        let options = WriterOptions {
            // Uploads are asked for by size in these tests, unless one says otherwise.
            upload_max_age: Duration::from_secs(3600),
            upload_max_age_idle: Duration::from_secs(3600),
            append_timeout: Duration::from_secs(5),
            delete_grace: Duration::ZERO,
            ..WriterOptions::default()
        };
        let clock = Arc::new(HandClock(AtomicI64::new(1_000_000)));
        Self {
            dir: tempfile::tempdir().unwrap(),
            store,
            kind,
            devices,
            catalog,
            bucket: FaultyBucket::new(),
            clock,
            entropy,
            options,
            metrics: WriterMetrics::default(),
            volumes,
            size_bytes,
        }
    }

    pub(super) fn path(&self, volume: u32) -> PathBuf {
        self.dir.path().join(format!("{volume}.wal"))
    }

    pub(super) fn place(&self, id: u32) -> VolumePlace {
        let medium = match self.kind {
            Kind::File => Medium::File { path: self.path(id), size_bytes: self.size_bytes },
            Kind::Block => Medium::Block { path: self.devices[id as usize].path().to_owned() },
            Kind::Object => Medium::Object(ObjectVolume::new(
                Arc::clone(&self.bucket) as Arc<dyn ObjectStore>,
                &self.keys().wal(id),
                self.size_bytes,
                Arc::clone(&self.entropy) as _,
                ObjectOptions { linger: Duration::from_millis(5), ..ObjectOptions::default() },
            )),
        };
        VolumePlace { id: VolumeId(id), medium }
    }

    /// The catalog as another process sees it, through `wrap`.
    pub(super) async fn catalog_through(
        &self,
        wrap: impl FnOnce(EmbeddedStore) -> Arc<dyn MetadataStore>,
    ) -> Catalog {
        catalog_over(wrap(self.store.clone()), &self.entropy).await
    }

    /// A writer without volumes.
    pub(super) fn empty(&self, node: i32) -> Writer {
        Writer::new(self.parts(node, self.catalog.clone()))
    }

    pub(super) async fn try_start(&self) -> Result<Writer, OpenError> {
        let places: Vec<_> = (0..self.volumes).map(|id| self.place(id)).collect();
        Writer::open(&places, self.parts(1, self.catalog.clone())).await
    }

    pub(super) fn parts(&self, node: i32, catalog: Catalog) -> WriterParts {
        WriterParts {
            node: NodeId(node),
            catalog,
            bucket: Arc::clone(&self.bucket) as Arc<dyn ObjectStore>,
            background: Arc::clone(&self.bucket) as Arc<dyn ObjectStore>,
            keys: self.keys(),
            options: self.options.clone(),
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy) as _,
            metrics: self.metrics.clone(),
            other_owners: Arc::new(crate::transaction::NoOtherOwners),
            on_shift: Arc::new(|_| {}),
        }
    }

    pub(super) async fn start(&self) -> Writer {
        self.try_start().await.unwrap()
    }

    pub(super) fn keys(&self) -> Keys {
        Keys::new(self.catalog.cluster_id())
    }

    pub(super) async fn topic(&self, name: &str, overrides: &[(&str, &str)]) -> Arc<Topic> {
        let overrides: BTreeMap<_, _> =
            overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let topic = NewTopic { name: name.to_owned(), partitions: 4, overrides };
        self.catalog.create_topic(TenantId::OPEN, topic).await.unwrap()
    }
}

async fn catalog_over(store: Arc<dyn MetadataStore>, entropy: &Arc<Counted>) -> Catalog {
    let options = CatalogOptions {
        entropy: Arc::clone(entropy) as _,
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    };
    Catalog::open(store, options).await.unwrap()
}

pub(super) fn stream(topic: &Topic, partition: u32) -> StreamId {
    StreamId { topic: topic.id, partition }
}

/// A batch of `count` records of about `len` bytes, written at `timestamp_ms`.
pub(super) fn batch(count: usize, len: usize, timestamp_ms: i64) -> Bytes {
    fill(BatchBuilder::new(), count, len, timestamp_ms)
}

/// A batch of an idempotent producer.
pub(super) fn sequenced(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    fill(BatchBuilder::new().producer(id, epoch, sequence), count, 10, 1_000_000)
}

/// A batch of a transactional producer.
pub(super) fn transactional(id: i64, epoch: i16, sequence: i32, count: usize) -> Bytes {
    let builder = BatchBuilder::new().producer(id, epoch, sequence).transactional();
    fill(builder, count, 10, 1_000_000)
}

fn fill(mut builder: BatchBuilder, count: usize, len: usize, timestamp_ms: i64) -> Bytes {
    let value = vec![7; len];
    for _ in 0..count {
        let value = Some(&value[..]);
        builder.push(&NewRecord { timestamp_ms, key: Some(b"k"), value, headers: &[] });
    }
    builder.build()
}

pub(super) async fn append(
    writer: &Writer,
    stream: StreamId,
    batch: &Bytes,
) -> Result<Appended, AppendError> {
    let timeout = Duration::from_secs(30);
    // As if the coordinator had vouched for it.
    let verified = writer.unverified(stream, batch, false).map_err(|_| AppendError::NotOwner)?;
    match verified {
        Some(verified) => writer.append_verified(stream, batch, timeout, verified).await,
        None => writer.append(stream, batch, timeout).await,
    }
}

/// Offsets of the batches in the tail from `offset` on; none if they are in the bucket.
pub(super) async fn tail(writer: &Writer, stream: StreamId, offset: i64) -> Option<Vec<i64>> {
    let chain = writer.read(stream, offset, u64::MAX).await.unwrap()?;
    Some(scan::spans(&chain.to_bytes()).map(|span| span.base_offset).collect())
}

/// Waits until the state in the bucket of volume 0 is as wanted.
pub(super) async fn until_bucket(writer: &Writer, wanted: impl Fn(&VolumeState) -> bool) {
    let (_, state) = writer.bucket_states().next().unwrap();
    let poll = async {
        while !wanted(&state.read()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.expect("the bucket gets there");
}
