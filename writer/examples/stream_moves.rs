//! How long producers pause when a stream moves to another volume, of another writer, under load.
//!
//! `cargo run --release -p sluice-writer --example stream_moves -- 50 10 25`: so many moves back and forth, so many
//! MiB a second that another stream of each volume gets meanwhile, and so many milliseconds that each request to the
//! bucket takes. Volumes are files in a temporary directory (`TMPDIR`); the bucket is in memory, all that is written.

mod seams;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::{Catalog, CatalogOptions, NewTopic, VolumeKind, VolumeSpec};
use sluice_format::key::Keys;
use sluice_model::{
    CatalogLimits, Entropy, GroupDefaults, NodeId, StreamId, TenantId, TopicDefaults, VolumeId,
};
use sluice_volume::Medium;
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_writer::group::GroupConfig;
use sluice_writer::transaction::{NoOtherOwners, TransactionConfig};
use sluice_writer::{AppendError, VolumePlace, Writer, WriterMetrics, WriterOptions, WriterParts};
use tokio::time::Instant;

use self::seams::{Counted, Standing};

const VOLUMES: u32 = 2;
const VOLUME_BYTES: u64 = 1 << 30;
const LONG: Duration = Duration::from_secs(30);
const BESIDE_BYTES: usize = 256 << 10;
const MOVED_BYTES: usize = 16 << 10;
/// Between two appends to the stream that moves.
const REST: Duration = Duration::from_millis(2);
/// Between two moves.
const CALM: Duration = Duration::from_millis(300);

fn batch(bytes: usize, producer: i64, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
    let value = vec![7; bytes];
    let timestamp_ms = 1_700_000_000_000;
    builder.push(&NewRecord { timestamp_ms, key: None, value: Some(&value), headers: &[] });
    builder.build()
}

/// A producer that finds its stream wherever it is; gives when each append began and how long it took.
async fn produce(
    writers: [Writer; 2],
    stream: StreamId,
    (producer, bytes, rest): (i64, usize, Duration),
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Vec<(Instant, Duration)>> {
    let mut took = Vec::new();
    let mut at = 0;
    for sequence in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let batch = batch(bytes, producer, sequence);
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
        took.push((begun, begun.elapsed()));
        tokio::time::sleep(rest).await;
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

async fn catalog(dir: &std::path::Path, entropy: &Arc<dyn Entropy>) -> anyhow::Result<Catalog> {
    let options = CatalogOptions {
        entropy: Arc::clone(entropy),
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    };
    let store = EmbeddedStore::open(dir.join("catalog"), Arc::clone(entropy)).await?;
    let catalog = Catalog::open(Arc::new(store), options).await?;
    for id in 0..VOLUMES {
        let (kind, location) = (VolumeKind::File, format!("{id}.wal"));
        catalog.add_volume(VolumeSpec::new(VolumeId(id), kind, location, VOLUME_BYTES)).await?;
    }
    Ok(catalog)
}

fn throttle(request: Duration) -> ThrottleConfig {
    ThrottleConfig {
        wait_get_per_call: request,
        wait_put_per_call: request,
        wait_list_per_call: request,
        ..ThrottleConfig::default()
    }
}

#[expect(clippy::print_stdout, reason = "a report for whoever runs it")]
#[tokio::main(flavor = "multi_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (moves, beside, request) = (number(50)?.max(1), number(10)?, number(25)?);
    let request = Duration::from_millis(request);
    let dir = tempfile::tempdir()?;
    let memory = Arc::new(InMemory::new());
    let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
    let catalog = catalog(dir.path(), &entropy).await?;
    let mut writers = Vec::new();
    for id in 0..VOLUMES {
        let writer = Writer::new(WriterParts {
            node: NodeId(i32::try_from(id)? + 1),
            catalog: catalog.clone(),
            bucket: Arc::new(ThrottledStore::new(Arc::clone(&memory), throttle(request))),
            // Deletions, for which nobody waits.
            background: Arc::clone(&memory) as _,
            keys: Keys::new(catalog.cluster_id()),
            options: WriterOptions::default(),
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::new(Standing),
            entropy: Arc::clone(&entropy),
            metrics: WriterMetrics::default(),
            other_owners: Arc::new(NoOtherOwners),
            on_shift: Arc::new(|_| {}),
        });
        let path = dir.path().join(format!("{id}.wal"));
        let medium = Medium::File { path, size_bytes: VOLUME_BYTES };
        Box::pin(writer.take(&VolumePlace { id: VolumeId(id), medium }, LONG)).await?;
        writers.push(writer);
    }
    let writers: [Writer; 2] = writers.try_into().ok().context("two writers")?;
    let overrides = [("max.message.bytes".to_owned(), "2000000".to_owned())].into();
    let new = NewTopic { name: "t".to_owned(), partitions: 2 * VOLUMES, overrides };
    let topic = catalog.create_topic(TenantId::OPEN, new).await?;
    let on = |volume: u32| {
        let partitions = (0..).zip(&topic.partitions).filter(move |(_, at)| at.0 == volume);
        partitions.map(|(partition, _)| StreamId { topic: topic.id, partition }).collect::<Vec<_>>()
    };
    let (first, second) = (on(0), on(1));
    let moved = first[0];

    let stop = Arc::new(AtomicBool::new(false));
    let start =
        |stream, how| tokio::spawn(produce(writers.clone(), stream, how, Arc::clone(&stop)));
    let producer = start(moved, (1, MOVED_BYTES, REST));
    let mut others = Vec::new();
    if beside > 0 {
        let rest = Duration::from_secs(1).mul_f64(BESIDE_BYTES as f64 / (beside << 20) as f64);
        others = vec![
            start(first[1], (2, BESIDE_BYTES, rest)),
            start(second[0], (3, BESIDE_BYTES, rest)),
        ];
    }
    let (mut spans, mut in_all) = (Vec::new(), Vec::new());
    for round in 0..moves {
        tokio::time::sleep(CALM).await;
        let to = VolumeId(u32::try_from((round + 1) % u64::from(VOLUMES))?);
        let mut changes = catalog.subscribe();
        let begun = Instant::now();
        catalog.move_stream(TenantId::OPEN, moved.topic, moved.partition, to).await?;
        while !catalog.moves().is_empty() {
            changes.recv().await?;
        }
        in_all.push(begun.elapsed());
        spans.push(begun..Instant::now());
        let at = catalog.topic_of_any_tenant(moved.topic).context("the topic")?.partitions
            [moved.partition as usize];
        anyhow::ensure!(at == to, "the move was given up");
    }
    tokio::time::sleep(CALM).await;
    stop.store(true, Ordering::Relaxed);
    let appends = producer.await??;
    for other in others {
        other.await??;
    }
    let pause = |span: &std::ops::Range<Instant>| {
        let during = appends
            .iter()
            .filter(|(begun, took)| *begun <= span.end && *begun + *took >= span.start);
        during.map(|(_, took)| *took).max().unwrap_or_default()
    };
    println!(
        "{moves} moves, {beside} MiB/s beside on each volume, {request:?} a request to the bucket:"
    );
    report("  from the wish to there", in_all);
    report("  the longest append", spans.iter().map(pause).collect());
    report("  any append", appends.iter().map(|(_, took)| *took).collect());
    Ok(())
}
