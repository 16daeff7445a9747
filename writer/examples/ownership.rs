//! How long a volume is served by nobody: taken from a dead writer, by phase; ten at once; handed over under load.
//!
//! `cargo run --release -p sluice-writer --example ownership -- 50 64 2048`: so many repetitions, so many MiB that
//! are not uploaded, so many MiB a volume. Volumes are files in a temporary directory (`TMPDIR`), the bucket is
//! beside them: what a request to a real one takes comes on top, two for a take. Needs room for eleven volumes.

mod seams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use object_store::local::LocalFileSystem;
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
use sluice_writer::{
    AppendError, Taken, VolumePlace, Writer, WriterMetrics, WriterOptions, WriterParts,
};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::seams::{Counted, Standing};

const VOLUMES: u32 = 11;
const BATCH_BYTES: usize = 512 << 10;
const LONG: Duration = Duration::from_secs(120);
/// Between two appends of the producer that meets handovers: 50 MiB/s.
const REST: Duration = Duration::from_millis(10);

struct Bench {
    dir: tempfile::TempDir,
    catalog: Catalog,
    entropy: Arc<dyn Entropy>,
    size_bytes: u64,
    /// One on each volume.
    streams: Vec<StreamId>,
}

impl Bench {
    async fn new(size_bytes: u64) -> anyhow::Result<Self> {
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let options = CatalogOptions {
            entropy: Arc::clone(&entropy),
            node: None,
            topic_defaults: TopicDefaults::default(),
            group_defaults: GroupDefaults::default(),
            limits: CatalogLimits::default(),
        };
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("bucket"))?;
        let path = dir.path().join("catalog");
        let store = EmbeddedStore::open(path, Arc::clone(&entropy)).await?;
        let catalog = Catalog::open(Arc::new(store), options).await?;
        for id in 0..VOLUMES {
            let (kind, location) = (VolumeKind::File, format!("{id}.wal"));
            let spec = VolumeSpec::new(VolumeId(id), kind, location, size_bytes);
            catalog.add_volume(spec).await?;
        }
        let overrides = [("max.message.bytes".to_owned(), "2000000".to_owned())].into();
        let new = NewTopic { name: "t".to_owned(), partitions: VOLUMES, overrides };
        let topic = catalog.create_topic(TenantId::OPEN, new).await?;
        let mut streams = vec![None; VOLUMES as usize];
        for (partition, volume) in (0..).zip(&topic.partitions) {
            streams[volume.0 as usize] = Some(StreamId { topic: topic.id, partition });
        }
        let streams: Option<Vec<_>> = streams.into_iter().collect();
        let streams = streams.context("each volume has a partition")?;
        Ok(Self { dir, catalog, entropy, size_bytes, streams })
    }

    fn writer(&self, node: i32, uploads: bool) -> anyhow::Result<Writer> {
        let bucket = Arc::new(LocalFileSystem::new_with_prefix(self.dir.path().join("bucket"))?);
        let mut options = WriterOptions::default();
        if !uploads {
            options.upload_segment_bytes = u64::MAX;
            options.upload_max_age = LONG * 100;
            options.upload_max_age_idle = LONG * 100;
        }
        let parts = WriterParts {
            node: NodeId(node),
            catalog: self.catalog.clone(),
            bucket: Arc::clone(&bucket) as _,
            background: bucket,
            keys: Keys::new(self.catalog.cluster_id()),
            options,
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::new(Standing),
            entropy: Arc::clone(&self.entropy),
            metrics: WriterMetrics::default(),
            other_owners: Arc::new(sluice_writer::transaction::NoOtherOwners),
            on_shift: Arc::new(|_| {}),
        };
        Ok(Writer::new(parts))
    }

    fn place(&self, id: u32) -> VolumePlace {
        let path = self.dir.path().join(format!("{id}.wal"));
        VolumePlace { id: VolumeId(id), medium: Medium::File { path, size_bytes: self.size_bytes } }
    }

    /// Takes volumes side by side; gives how each went, and how long it took until the last was served.
    async fn take(&self, writer: &Writer, ids: &[u32]) -> anyhow::Result<(Vec<Taken>, Duration)> {
        let begun = Instant::now();
        let mut takes = JoinSet::new();
        for id in ids {
            let (writer, place) = (writer.clone(), self.place(*id));
            takes.spawn(async move { Box::pin(writer.take(&place, LONG)).await });
        }
        let mut taken = Vec::new();
        while let Some(one) = takes.join_next().await {
            taken.push(one??);
        }
        Ok((taken, begun.elapsed()))
    }

    /// Volumes with so much that is not uploaded, whose owner is gone.
    async fn orphans(&self, ids: &[u32], bytes: u64) -> anyhow::Result<()> {
        let writer = self.writer(1, false)?;
        self.take(&writer, ids).await?;
        let batch = batch(BATCH_BYTES, -1, -1);
        for id in ids {
            for _ in 0..bytes / BATCH_BYTES as u64 {
                writer.append(self.streams[*id as usize], &batch, LONG).await?;
            }
        }
        writer.close(Duration::ZERO).await;
        Ok(())
    }

    /// What an orphan had not uploaded is put into the bucket, so that the next round begins anew.
    async fn settle(&self, writer: Writer) {
        writer.close(LONG).await;
    }
}

fn batch(bytes: usize, producer: i64, sequence: i32) -> Bytes {
    let epoch = if producer < 0 { -1 } else { 0 };
    let mut builder = BatchBuilder::new().producer(producer, epoch, sequence);
    let value = vec![7; bytes];
    let timestamp_ms = 1_700_000_000_000;
    builder.push(&NewRecord { timestamp_ms, key: None, value: Some(&value), headers: &[] });
    builder.build()
}

/// A producer at 50 MiB/s that finds its volume wherever it is; gives how long each append took.
async fn produce(
    writers: [Writer; 2],
    stream: StreamId,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    let mut at = 0;
    for sequence in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let batch = batch(BATCH_BYTES, 7, sequence);
        let begun = Instant::now();
        loop {
            match writers[at % 2].append(stream, &batch, LONG).await {
                Ok(done) => {
                    anyhow::ensure!(done.base_offset == i64::from(sequence), "not in order");
                    break;
                }
                Err(AppendError::NotOwner) => at += 1,
                Err(error) => return Err(error.into()),
            }
            tokio::task::yield_now().await;
        }
        took.push(begun.elapsed());
        tokio::time::sleep(REST).await;
    }
    Ok(took)
}

#[expect(clippy::print_stdout, reason = "a report for whoever runs it")]
fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize];
    println!(
        "{what:<28} p50 {:>9.2?}  p99 {:>9.2?}  most {:>9.2?}  ({} times)",
        at(0.5),
        at(0.99),
        at(1.0),
        took.len()
    );
}

#[expect(clippy::print_stdout, reason = "a report for whoever runs it")]
#[tokio::main(flavor = "multi_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (rounds, unuploaded, size) = (number(50)?.max(1), number(64)? << 20, number(2048)? << 20);
    let bench = Bench::new(size).await?;

    let (mut all, mut total) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bench.orphans(&[0], unuploaded).await?;
        let writer = bench.writer(2, true)?;
        let (taken, whole) = bench.take(&writer, &[0]).await?;
        all.extend(taken);
        total.push(whole);
        bench.settle(writer).await;
    }
    println!("take of one, {} MiB read back:", all[0].recovered_bytes >> 20);
    type Part = fn(&Taken) -> Duration;
    let parts: [(&str, Part); 4] = [
        ("  claim", |taken| taken.claim),
        ("  fence", |taken| taken.fence),
        ("  recover", |taken| taken.recover),
        ("  serve", |taken| taken.serve),
    ];
    for (name, part) in parts {
        report(name, all.iter().map(part).collect());
    }
    report("  in all", total.clone());
    total.sort_unstable();
    let one = total[total.len() / 2];

    let ids: Vec<u32> = (1..VOLUMES).collect();
    let mut tens = Vec::new();
    for _ in 0..(rounds / 10).max(1) {
        bench.orphans(&ids, unuploaded).await?;
        let writer = bench.writer(2, true)?;
        tens.push(bench.take(&writer, &ids).await?.1);
        bench.settle(writer).await;
    }
    tens.sort_unstable();
    let ten = tens[tens.len() / 2];
    report("ten side by side", tens);
    println!("  {:.2} times one", ten.as_secs_f64() / one.as_secs_f64());

    let writers = [bench.writer(1, true)?, bench.writer(2, true)?];
    bench.take(&writers[0], &[1]).await?;
    // A stream that nobody has written to, on the volume that moves.
    let topic = bench.catalog.create_topic(
        TenantId::OPEN,
        NewTopic { name: "moved".to_owned(), partitions: VOLUMES, overrides: Default::default() },
    );
    let topic = topic.await?;
    let partition = topic.partitions.iter().position(|volume| volume.0 == 1);
    let partition = u32::try_from(partition.context("the volume has a partition")?)?;
    let stream = StreamId { topic: topic.id, partition };
    let stop = Arc::new(AtomicBool::new(false));
    let producer = tokio::spawn(produce(writers.clone(), stream, Arc::clone(&stop)));
    let (mut flush, mut close, mut give_up, mut paused) = (vec![], vec![], vec![], vec![]);
    for round in 0..rounds as usize {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let released = writers[round % 2].release(VolumeId(1), LONG).await?;
        let (_, took) = bench.take(&writers[(round + 1) % 2], &[1]).await?;
        flush.push(released.flush);
        close.push(released.close);
        give_up.push(released.give_up);
        paused.push(released.close + released.give_up + took);
    }
    stop.store(true, Ordering::Relaxed);
    let appends = producer.await??;
    println!("handover at 50 MiB/s:");
    report("  upload, appends go on", flush);
    report("  close", close);
    report("  give up", give_up);
    report("  served by nobody", paused);
    report("  an append", appends);
    Ok(())
}
