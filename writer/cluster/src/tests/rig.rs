//! Nodes with all that they need, which can be killed, cut off from the store and started again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::memory::InMemory;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::store::{
    Change, Entry, LeaseId, MetadataStore, Outcome, Range, Revision, StoreError, Txn, Watch,
    WatchError,
};
use sluice_catalog::{
    Catalog, CatalogOptions, NewTopic, NodeRegistration, NodeSpec, Roles, Topic, VolumeKind,
    VolumeSpec,
};
use sluice_format::key::Keys;
use sluice_model::{
    CatalogLimits, Clock, Entropy, GroupDefaults, NodeId, StreamId, TenantId, TopicDefaults,
    VolumeId,
};
use sluice_volume::{Medium, ObjectOptions, ObjectVolume};
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_writer::group::GroupConfig;
use sluice_writer::transaction::{NoOtherOwners, TransactionConfig};
use sluice_writer::{
    AppendError, Appended, VolumePlace, Writer, WriterMetrics, WriterOptions, WriterParts,
};
use tokio::sync::watch;

use crate::{ClusterMetrics, Locate, Members, MembersOptions, MembersParts};

pub(super) const LEASE: Duration = Duration::from_secs(3);
const SIZE_BYTES: u64 = 32 << 20;

struct Standing;

impl Clock for Standing {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

/// Different bytes each time, the same in each run.
#[derive(Default)]
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

/// A node's way to the store, which can be cut: then nothing is answered but errors.
pub(super) struct Line {
    store: EmbeddedStore,
    cut: watch::Sender<bool>,
}

impl Line {
    fn check(&self) -> Result<(), StoreError> {
        match *self.cut.borrow() {
            true => Err(StoreError::Unavailable("the line is cut".to_owned())),
            false => Ok(()),
        }
    }
}

struct LineWatch {
    inner: Box<dyn Watch>,
    cut: watch::Receiver<bool>,
}

#[async_trait]
impl Watch for LineWatch {
    async fn next(&mut self) -> Result<Change, WatchError> {
        tokio::select! {
            biased;
            _ = self.cut.wait_for(|cut| *cut) => {
                Err(WatchError::Interrupted("the line is cut".to_owned()))
            }
            change = self.inner.next() => change,
        }
    }
}

#[async_trait]
impl MetadataStore for Line {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.check()?;
        self.store.get(key).await
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        self.check()?;
        self.store.range(prefix).await
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        self.check()?;
        self.store.commit(txn).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        self.check()?;
        let inner = self.store.watch(prefix, after).await?;
        Ok(Box::new(LineWatch { inner, cut: self.cut.subscribe() }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.check()?;
        self.store.grant_lease(ttl).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.check()?;
        self.store.keep_alive(lease).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.check()?;
        self.store.revoke_lease(lease).await
    }
}

/// What all nodes share.
pub(super) struct Rig {
    pub(super) dir: tempfile::TempDir,
    store: EmbeddedStore,
    bucket: Arc<InMemory>,
    entropy: Arc<Counted>,
    /// What an operator sees.
    pub(super) catalog: Catalog,
    pub(super) lease: Duration,
    pub(super) options: MembersOptions,
}

/// One node.
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) writer: Writer,
    pub(super) members: Members,
    pub(super) metrics: ClusterMetrics,
    registration: NodeRegistration,
    line: watch::Sender<bool>,
}

impl Rig {
    /// With so many object volumes that nobody owns.
    pub(super) async fn new(volumes: u32) -> Self {
        let rig = Self::empty().await;
        for id in 0..volumes {
            let spec = VolumeSpec::new(VolumeId(id), VolumeKind::Object, "", SIZE_BYTES);
            rig.catalog.add_volume(spec).await.unwrap();
        }
        rig
    }

    pub(super) async fn empty() -> Self {
        let entropy = Arc::new(Counted::default());
        let store = EmbeddedStore::in_memory(Arc::clone(&entropy) as _).unwrap();
        let catalog = open(Arc::new(store.clone()), &entropy).await;
        Self {
            dir: tempfile::tempdir().unwrap(),
            store,
            bucket: Arc::new(InMemory::new()),
            entropy,
            catalog,
            lease: LEASE,
            // Most tests are about what moves by itself.
            options: MembersOptions { balance: false, ..MembersOptions::default() },
        }
    }

    /// A file that all nodes reach, and whose lock may not.
    pub(super) async fn add_shared_file(&self, id: u32) -> PathBuf {
        let path = self.dir.path().join(format!("{id}.wal"));
        let location = path.to_str().unwrap();
        let spec = VolumeSpec::new(VolumeId(id), VolumeKind::File, location, SIZE_BYTES);
        assert!(spec.is_shared_file());
        self.catalog.add_volume(spec).await.unwrap();
        path
    }

    pub(super) fn locate(&self) -> Locate {
        let (bucket, entropy) = (Arc::clone(&self.bucket), Arc::clone(&self.entropy));
        let keys = Keys::new(self.catalog.cluster_id());
        Arc::new(move |spec| {
            let medium = match spec.kind {
                VolumeKind::Object => Medium::Object(ObjectVolume::new(
                    Arc::clone(&bucket) as _,
                    &keys.wal(spec.id.0),
                    spec.size_bytes,
                    Arc::clone(&entropy) as _,
                    ObjectOptions { linger: Duration::from_millis(5), ..ObjectOptions::default() },
                )),
                VolumeKind::File => {
                    Medium::File { path: (&spec.location).into(), size_bytes: spec.size_bytes }
                }
                VolumeKind::Block => return Err("there are no devices here".to_owned()),
            };
            Ok(VolumePlace { id: spec.id, medium })
        })
    }

    pub(super) async fn node(&self, id: i32) -> Node {
        self.node_with(id, self.options.clone()).await
    }

    pub(super) async fn node_with(&self, id: i32, options: MembersOptions) -> Node {
        let line = watch::Sender::new(false);
        let store = Line { store: self.store.clone(), cut: line.clone() };
        let catalog = open(Arc::new(store), &self.entropy).await;
        let id = NodeId(id);
        let spec = NodeSpec {
            id,
            kafka_host: "localhost".to_owned(),
            kafka_port: 9092,
            rack: None,
            peer: None,
            roles: Roles::ALL,
        };
        let registration = catalog.register_node(spec.clone(), self.lease).await.unwrap();
        let writer = Writer::new(WriterParts {
            node: id,
            catalog: catalog.clone(),
            bucket: Arc::clone(&self.bucket) as _,
            background: Arc::clone(&self.bucket) as _,
            keys: Keys::new(self.catalog.cluster_id()),
            options: WriterOptions::default(),
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::new(Standing),
            entropy: Arc::clone(&self.entropy) as _,
            metrics: WriterMetrics::default(),
            other_owners: Arc::new(NoOtherOwners),
            on_shift: Arc::new(|_| {}),
        });
        let metrics = ClusterMetrics::default();
        let parts = MembersParts {
            spec,
            catalog,
            writer: writer.clone(),
            node: registration.handle(),
            locate: self.locate(),
            options,
            clock: Arc::new(Standing),
            cpu: None,
            metrics: metrics.clone(),
        };
        let members = Members::start(parts).await.unwrap();
        Node { id, writer, members, metrics, registration, line }
    }

    /// One partition on each volume, by volume.
    pub(super) async fn topic(&self) -> Vec<StreamId> {
        let volumes = self.catalog.volumes().len() as u32;
        let new =
            NewTopic { name: "t".to_owned(), partitions: volumes, overrides: Default::default() };
        let topic = self.catalog.create_topic(TenantId::OPEN, new).await.unwrap();
        (0..volumes).map(|id| stream_on(&topic, VolumeId(id))).collect()
    }

    /// The owner of each volume, by id.
    pub(super) fn owners(&self) -> Vec<Option<i32>> {
        self.catalog.volumes().iter().map(|v| v.owner.map(|owner| owner.0)).collect()
    }

    /// How many volumes each of these nodes owns.
    pub(super) fn counts(&self, nodes: &[i32]) -> Vec<usize> {
        let owners = self.owners();
        nodes
            .iter()
            .map(|node| owners.iter().filter(|owner| **owner == Some(*node)).count())
            .collect()
    }

    /// Waits until it is so, for a while that is far longer than it should take.
    pub(super) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let mut changes = self.catalog.subscribe();
        let wait = async {
            while !is_so(self) {
                let _ = tokio::time::timeout(Duration::from_millis(5), changes.recv()).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), wait).await.is_err() {
            panic!("not so: {what}: {:?}", self.owners());
        }
    }

    /// Waits until these nodes serve all volumes, each by who owns it.
    pub(super) async fn until_served(&self, nodes: &[&Node]) {
        let served = |rig: &Self| {
            rig.catalog.volumes().iter().all(|volume| {
                let here =
                    |node: &&&Node| node.writer.volumes().contains(&(volume.spec.id, volume.epoch));
                nodes.iter().find(here).is_some_and(|node| volume.owner == Some(node.id))
            })
        };
        self.until("all volumes are served", served).await;
    }
}

impl Node {
    /// Its process is killed: nothing is given up, the lease runs out by itself.
    pub(super) async fn kill(self) {
        self.line.send_replace(true);
        drop((self.members, self.registration));
        self.writer.close(Duration::ZERO).await;
    }

    /// It goes on, but the store does not answer it any more; until it is mended.
    pub(super) fn cut(&self) {
        self.line.send_replace(true);
    }

    pub(super) fn mend(&self) {
        self.line.send_replace(false);
    }

    /// Its process ends as it should.
    pub(super) async fn end(self) {
        self.writer.close(Duration::ZERO).await;
        drop(self.members);
        self.registration.deregister().await.unwrap();
    }

    pub(super) async fn append(&self, stream: StreamId) -> Result<Appended, AppendError> {
        self.writer.append(stream, &batch(), Duration::from_secs(5)).await
    }

    pub(super) fn serves(&self, volume: u32) -> bool {
        self.writer.volumes().iter().any(|(id, _)| id.0 == volume)
    }
}

fn stream_on(topic: &Topic, volume: VolumeId) -> StreamId {
    let partition = topic.partitions.iter().position(|on| *on == volume).unwrap() as u32;
    StreamId { topic: topic.id, partition }
}

pub(super) fn batch() -> Bytes {
    let mut builder = BatchBuilder::new();
    let timestamp_ms = 1_700_000_000_000;
    builder.push(&NewRecord { timestamp_ms, key: None, value: Some(b"v"), headers: &[] });
    builder.build()
}

async fn open(store: Arc<dyn MetadataStore>, entropy: &Arc<Counted>) -> Catalog {
    let options = CatalogOptions {
        entropy: Arc::clone(entropy) as _,
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    };
    Catalog::open(store, options).await.unwrap()
}
