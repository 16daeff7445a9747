//! Many streams on one volume: memory of an idle one, time to start, time to upload many active ones.
//!
//! `cargo run --release -p sluice-writer --example streams -- 100000 10000`: so many streams, so many of
//! them active. Each gets one record of one idempotent producer. Bucket and volume are files in a temporary
//! directory.

mod seams;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::StreamExt;
use object_store::local::LocalFileSystem;
use peak_alloc::PeakAlloc;
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
use tokio::time::Instant;

use self::seams::{Counted, Standing};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const PARTITIONS: u32 = 1000;

struct Bench {
    dir: tempfile::TempDir,
    catalog: Catalog,
    metrics: WriterMetrics,
    streams: Vec<StreamId>,
}

impl Bench {
    async fn new(count: u32) -> anyhow::Result<Self> {
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let store = EmbeddedStore::in_memory(Arc::clone(&entropy))?;
        let options = CatalogOptions {
            entropy,
            node: None,
            topic_defaults: TopicDefaults::default(),
            group_defaults: GroupDefaults::default(),
            limits: CatalogLimits { partitions_per_tenant: usize::MAX, ..CatalogLimits::default() },
        };
        let catalog = Catalog::open(Arc::new(store), options).await?;
        let (id, location) = (VolumeId(0), "0.wal".to_owned());
        let size_bytes = 1 << 30;
        catalog.add_volume(VolumeSpec::new(id, VolumeKind::File, location, size_bytes)).await?;
        let mut streams = Vec::new();
        for n in 0..count.div_ceil(PARTITIONS) {
            let name = format!("topic-{n}");
            let topic = NewTopic { name, partitions: PARTITIONS, overrides: Default::default() };
            let topic = catalog.create_topic(TenantId::OPEN, topic).await?;
            streams
                .extend((0..PARTITIONS).map(|partition| StreamId { topic: topic.id, partition }));
        }
        streams.truncate(count as usize);
        let dir = tempfile::tempdir()?;
        Ok(Self { dir, catalog, metrics: WriterMetrics::default(), streams })
    }

    async fn start(&self) -> anyhow::Result<Writer> {
        let bucket = self.dir.path().join("bucket");
        std::fs::create_dir_all(&bucket)?;
        let bucket = Arc::new(LocalFileSystem::new_with_prefix(bucket)?);
        let path = self.dir.path().join("0.wal");
        let place =
            VolumePlace { id: VolumeId(0), medium: Medium::File { path, size_bytes: 1 << 30 } };
        let parts = WriterParts {
            node: NodeId(1),
            catalog: self.catalog.clone(),
            bucket: Arc::clone(&bucket) as _,
            background: bucket,
            keys: Keys::new(self.catalog.cluster_id()),
            options: WriterOptions {
                tail_cache_bytes: 0,
                upload_max_age: Duration::from_secs(3600),
                upload_max_age_idle: Duration::from_secs(3600),
                retention_interval: Duration::from_secs(1),
                delete_grace: Duration::ZERO,
                ..WriterOptions::default()
            },
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::new(Standing),
            entropy: Arc::new(Counted::default()),
            metrics: self.metrics.clone(),
            other_owners: Arc::new(sluice_writer::transaction::NoOtherOwners),
            on_shift: Arc::new(|_| {}),
        };
        Ok(Writer::open(&[place], parts).await?)
    }

    /// One record to each, of a producer of its own; of none that is idempotent for sequence -1.
    async fn append(
        &self,
        writer: &Writer,
        streams: &[StreamId],
        sequence: i32,
    ) -> anyhow::Result<()> {
        let appends = streams.iter().enumerate().map(|(n, stream)| {
            let batch = record(if sequence < 0 { -1 } else { n as i64 }, sequence);
            async move { writer.append(*stream, &batch, Duration::from_secs(60)).await }
        });
        let mut done = futures_util::stream::iter(appends).buffer_unordered(1000);
        while let Some(appended) = done.next().await {
            appended?;
        }
        Ok(())
    }

    /// Has the bucket get all of it; gives the time that it took.
    async fn upload(&self, writer: &Writer, stream: StreamId) -> anyhow::Result<Duration> {
        let started = Instant::now();
        writer.ask_freshness(stream, Duration::ZERO, Duration::from_secs(600))?;
        while self.metrics.unuploaded_bytes.get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(started.elapsed())
    }
}

fn record(producer: i64, sequence: i32) -> Bytes {
    let epoch = if producer < 0 { -1 } else { 0 };
    let mut builder = BatchBuilder::new().producer(producer, epoch, sequence);
    let value = Some(&[7; 100][..]);
    builder.push(&NewRecord { timestamp_ms: 1_700_000_000_000, key: None, value, headers: &[] });
    builder.build()
}

#[expect(clippy::print_stdout, reason = "a report for whoever runs it")]
#[tokio::main(flavor = "multi_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u32>());
    let (count, active) = (number(100_000)?, number(10_000)?);
    let bench = Bench::new(count).await?;
    let first = *bench.streams.first().context("at least one stream")?;
    let active = &bench.streams[..bench.streams.len().min(active as usize)];

    let writer = bench.start().await?;
    let before = ALLOCATED.current_usage();
    bench.append(&writer, &bench.streams, 0).await?;
    println!("{count} streams used once; uploaded in {:?}", bench.upload(&writer, first).await?);
    while writer.stream_count() > 1 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bytes = ALLOCATED.current_usage().saturating_sub(before);
    println!("memory of an idle stream: {} bytes", bytes / bench.streams.len());

    let manifests = bench.metrics.manifest_bytes.get();
    for sequence in 1..4 {
        bench.append(&writer, active, sequence).await?;
        let time = bench.upload(&writer, first).await?;
        println!("{} active streams uploaded in {time:?}", active.len());
    }
    let manifests = (bench.metrics.manifest_bytes.get() - manifests) / 3;
    println!("manifest bytes of such an upload: {manifests}");
    writer.close(Duration::ZERO).await;
    drop(writer);

    let started = Instant::now();
    let writer = bench.start().await?;
    println!("start with all in the bucket: {:?}", started.elapsed());
    bench.append(&writer, &bench.streams, -1).await?;
    writer.close(Duration::ZERO).await;
    drop(writer);
    let started = Instant::now();
    let writer = bench.start().await?;
    println!("start with a record of each on the volume: {:?}", started.elapsed());
    writer.close(Duration::ZERO).await;
    Ok(())
}
