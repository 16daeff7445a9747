//! Volumes that come and go leave no memory, tasks, files or metrics behind. The only test of its process, for
//! it counts what the process has.

#[path = "../examples/seams/mod.rs"]
mod seams;

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use peak_alloc::PeakAlloc;
use prometheus_client::registry::Registry;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::{Catalog, CatalogOptions, NewTopic, VolumeKind, VolumeSpec};
use sluice_format::key::Keys;
use sluice_model::{
    CatalogLimits, Entropy, GroupDefaults, NodeId, StreamId, TenantId, TopicDefaults, VolumeId,
};
use sluice_volume::Medium;
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_writer::group::GroupConfig;
use sluice_writer::transaction::TransactionConfig;
use sluice_writer::{VolumePlace, Writer, WriterMetrics, WriterOptions, WriterParts};

use self::seams::{Counted, Standing};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const VOLUMES: u32 = 2;
const SIZE_BYTES: u64 = 5 << 20;
const LONG: Duration = Duration::from_secs(60);
/// A volume that is kept costs several times this. The catalog remembers its last changes, in memory, too.
const ALLOWED_BYTES_A_ROUND: usize = 2048;

/// What the process has.
#[derive(Debug)]
struct Has {
    tasks: usize,
    files: usize,
    bytes: usize,
    series: usize,
}

struct Rig {
    dir: tempfile::TempDir,
    catalog: Catalog,
    bucket: Arc<InMemory>,
    registry: Registry,
    writer: Writer,
    stream: StreamId,
}

impl Rig {
    async fn new() -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let store = EmbeddedStore::in_memory(Arc::clone(&entropy)).expect("nothing fails here");
        let options = CatalogOptions {
            entropy: Arc::clone(&entropy),
            node: None,
            topic_defaults: TopicDefaults::default(),
            group_defaults: GroupDefaults::default(),
            limits: CatalogLimits::default(),
        };
        let catalog = Catalog::open(Arc::new(store), options).await.expect("nothing fails here");
        for id in 0..VOLUMES {
            let (kind, location, size_bytes) = (VolumeKind::File, format!("{id}.wal"), SIZE_BYTES);
            let spec = VolumeSpec::new(VolumeId(id), kind, location, size_bytes);
            catalog.add_volume(spec).await.expect("nothing fails here");
        }
        let new = NewTopic { name: "t".to_owned(), partitions: 2, overrides: Default::default() };
        let topic = catalog.create_topic(TenantId::OPEN, new).await.expect("nothing fails here");
        let bucket = Arc::new(InMemory::new());
        let metrics = WriterMetrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let parts = WriterParts {
            node: NodeId(1),
            catalog: catalog.clone(),
            bucket: Arc::clone(&bucket) as _,
            background: Arc::clone(&bucket) as _,
            keys: Keys::new(catalog.cluster_id()),
            options: WriterOptions::default(),
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::new(Standing),
            entropy,
            metrics,
            other_owners: Arc::new(sluice_writer::transaction::NoOtherOwners),
            on_shift: Arc::new(|_| {}),
        };
        let writer = Writer::new(parts);
        writer.register_census(&mut registry);
        let stream = StreamId { topic: topic.id, partition: 0 };
        Self {
            dir: tempfile::tempdir().expect("nothing fails here"),
            catalog,
            bucket,
            registry,
            writer,
            stream,
        }
    }

    fn place(&self, id: u32) -> VolumePlace {
        let path = self.dir.path().join(format!("{id}.wal"));
        VolumePlace { id: VolumeId(id), medium: Medium::File { path, size_bytes: SIZE_BYTES } }
    }

    async fn append(&self) {
        let mut builder = BatchBuilder::new();
        let value = Some(&b"value"[..]);
        builder.push(&NewRecord { timestamp_ms: 1, key: None, value, headers: &[] });
        self.writer.append(self.stream, &builder.build(), LONG).await.expect("nothing fails here");
    }

    /// One volume goes and comes back.
    async fn round(&self, round: u32) {
        let id = round % VOLUMES;
        if round % 10 < 8 {
            self.writer.release(VolumeId(id), LONG).await.expect("nothing fails here");
        } else {
            let mut losses = self.writer.losses();
            let known = self.catalog.volume(VolumeId(id)).expect("nothing fails here");
            self.catalog
                .claim_volume(VolumeId(id), NodeId(9), known.epoch)
                .await
                .expect("nothing fails here");
            losses.recv().await.expect("nothing fails here");
        }
        self.writer.take(&self.place(id), LONG).await.expect("nothing fails here");
    }

    /// Once tasks that are over have left: as few as there were, or what remains after a while.
    async fn has(&self, tasks: usize) -> Has {
        let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        for _ in 0..200 {
            if alive() <= tasks {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("nothing fails here");
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        let objects: Vec<_> =
            self.bucket.list(None).try_collect().await.expect("nothing fails here");
        // The bucket is in memory, too: what each object takes beside its bytes is about as much.
        let in_bucket: usize = objects.iter().map(|object| object.size as usize + 1024).sum();
        let bytes = MEMORY.current_usage().saturating_sub(in_bucket);
        let files = std::fs::read_dir("/proc/self/fd").expect("nothing fails here").count();
        Has { tasks: alive(), files, bytes, series }
    }
}

#[tokio::test]
async fn a_volume_taken_a_thousand_times_leaves_nothing() {
    let rig = Rig::new().await;
    for id in 0..VOLUMES {
        rig.writer.take(&rig.place(id), LONG).await.expect("nothing fails here");
    }
    rig.append().await;
    // Pools and maps grow to what they need.
    for round in 0..100 {
        rig.round(round).await;
    }
    let before = rig.has(0).await;
    for round in 0..1000 {
        rig.round(round).await;
    }
    let after = rig.has(before.tasks).await;
    println!("{before:?}, after a thousand times {after:?}");
    assert!(after.tasks <= before.tasks, "{before:?} {after:?}");
    assert!(after.files <= before.files, "{before:?} {after:?}");
    assert_eq!(after.series, before.series);
    let grown = after.bytes.saturating_sub(before.bytes);
    assert!(grown < 1000 * ALLOWED_BYTES_A_ROUND, "{grown} bytes more: {before:?} {after:?}");
    rig.append().await;
}
