//! How long volumes are away: from a writer being declared dead until another one serves, one and ten at once; and what a
//! producer feels of a planned move. With the code that nodes run: catalog, claims, handovers.
//!
//! `cargo run --release -p sluice-cluster --example failover -- 50 64 2048`: so many repetitions, so many MiB that are not
//! uploaded, so many MiB a volume. Volumes are files in a temporary directory (`TMPDIR`), the bucket is beside them, the
//! catalog in memory: what requests to a real bucket and to etcd take comes on top, two and two for a failover. The
//! writer that is declared dead is alive, as after a stall: it has to be fenced, and to let go. Needs room
//! for eleven volumes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::{
    Catalog, CatalogOptions, Change, NewTopic, NodeRegistration, NodeSpec, Roles, VolumeKind,
    VolumeSpec,
};
use sluice_cluster::{ClusterMetrics, Locate, Members, MembersOptions, MembersParts};
use sluice_format::key::Keys;
use sluice_model::{
    CatalogLimits, Clock, Entropy, GroupDefaults, NodeId, StreamId, TenantId, TopicDefaults,
    VolumeId,
};
use sluice_volume::Medium;
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_writer::group::GroupConfig;
use sluice_writer::transaction::{NoOtherOwners, TransactionConfig};
use sluice_writer::{AppendError, VolumePlace, Writer, WriterMetrics, WriterOptions, WriterParts};
use tokio::time::Instant;

const BATCH_BYTES: usize = 512 << 10;
const LONG: Duration = Duration::from_secs(120);
/// Between two appends of the producer that meets moves: 50 MiB/s.
const REST: Duration = Duration::from_millis(10);

struct Standing;

impl Clock for Standing {
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000
    }
}

#[derive(Default)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            part.copy_from_slice(&(next ^ (next >> 29)).to_le_bytes()[..part.len()]);
        }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    store: EmbeddedStore,
    catalog: Catalog,
    entropy: Arc<dyn Entropy>,
    /// One on each volume.
    streams: Vec<StreamId>,
}

struct Node {
    catalog: Catalog,
    writer: Writer,
    members: Members,
    registration: NodeRegistration,
}

async fn catalog(store: &EmbeddedStore, entropy: &Arc<dyn Entropy>) -> anyhow::Result<Catalog> {
    let options = CatalogOptions {
        entropy: Arc::clone(entropy),
        node: None,
        topic_defaults: TopicDefaults::default(),
        group_defaults: GroupDefaults::default(),
        limits: CatalogLimits::default(),
    };
    Ok(Catalog::open(Arc::new(store.clone()), options).await?)
}

impl Bench {
    async fn new(volumes: u32, size_bytes: u64) -> anyhow::Result<Self> {
        let entropy: Arc<dyn Entropy> = Arc::new(Counted::default());
        let store = EmbeddedStore::in_memory(Arc::clone(&entropy))?;
        let catalog = catalog(&store, &entropy).await?;
        let dir = tempfile::tempdir()?;
        std::fs::create_dir(dir.path().join("bucket"))?;
        for id in 0..volumes {
            let name = format!("{id}.wal");
            let spec = VolumeSpec::new(VolumeId(id), VolumeKind::File, name, size_bytes);
            catalog.add_volume(spec).await?;
        }
        let overrides = [("max.message.bytes".to_owned(), "2000000".to_owned())].into();
        let new = NewTopic { name: "t".to_owned(), partitions: volumes, overrides };
        let topic = catalog.create_topic(TenantId::OPEN, new).await?;
        let mut by_volume: Vec<_> = (0..).zip(topic.partitions.iter().copied()).collect();
        by_volume.sort_unstable_by_key(|(_, volume)| *volume);
        let streams =
            by_volume.into_iter().map(|(partition, _)| StreamId { topic: topic.id, partition });
        let streams = streams.collect();
        Ok(Self { dir, store, catalog, entropy, streams })
    }

    /// A node that takes what it should have at once.
    async fn node(&self, id: i32, uploads: bool) -> anyhow::Result<Node> {
        let catalog = catalog(&self.store, &self.entropy).await?;
        let spec = NodeSpec {
            id: NodeId(id),
            kafka_host: "localhost".to_owned(),
            kafka_port: 9092,
            rack: None,
            peer: None,
            roles: Roles::ALL,
        };
        let registration = catalog.register_node(spec.clone(), LONG).await?;
        let bucket = Arc::new(LocalFileSystem::new_with_prefix(self.dir.path().join("bucket"))?);
        let mut options = WriterOptions::default();
        if !uploads {
            options.upload_segment_bytes = u64::MAX;
            options.upload_max_age = LONG * 100;
            options.upload_max_age_idle = LONG * 100;
        }
        let writer = Writer::new(WriterParts {
            node: spec.id,
            catalog: catalog.clone(),
            bucket: Arc::clone(&bucket) as _,
            background: bucket,
            keys: Keys::new(catalog.cluster_id()),
            options,
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::new(Standing),
            entropy: Arc::clone(&self.entropy),
            metrics: WriterMetrics::default(),
            other_owners: Arc::new(NoOtherOwners),
            on_shift: Arc::new(|_| {}),
        });
        let dir = self.dir.path().to_owned();
        let locate: Locate = Arc::new(move |spec| {
            let (path, size_bytes) = (dir.join(&spec.location), spec.size_bytes);
            Ok(VolumePlace { id: spec.id, medium: Medium::File { path, size_bytes } })
        });
        let members = Members::start(MembersParts {
            spec,
            catalog: catalog.clone(),
            writer: writer.clone(),
            node: registration.handle(),
            locate,
            options: MembersOptions { balance: false, ..MembersOptions::default() },
            clock: Arc::new(Standing),
            cpu: None,
            metrics: ClusterMetrics::default(),
        });
        let members = Box::pin(members).await?;
        Ok(Node { catalog, writer, members, registration })
    }

    /// One writer has all volumes, each with so much that is not uploaded, and is declared dead. Gives how long it
    /// took, from another one seeing that until each volume was served.
    async fn failover(&self, unuploaded: u64) -> anyhow::Result<Duration> {
        // What the last round left is put into the bucket meanwhile.
        let dying = self.node(1, false).await?;
        let batch = batch(BATCH_BYTES, -1, -1);
        for stream in &self.streams {
            for _ in 0..unuploaded / BATCH_BYTES as u64 {
                dying.writer.append(*stream, &batch, LONG).await?;
            }
        }
        let (one, other) = (self.node(2, true).await?, self.node(3, true).await?);
        let mut changes = one.catalog.subscribe();
        // It decides nothing any more, but serves on.
        drop(dying.members);
        dying.registration.deregister().await?;
        while !matches!(changes.recv().await?, Change::NodeGone(_)) {}
        let declared = Instant::now();
        let served = self.streams.iter().map(|id| until_served(*id, &one.writer, &other.writer));
        let all: Vec<Result<Duration, _>> = futures(served, declared).await;
        let mut longest = Duration::ZERO;
        for took in all {
            longest = longest.max(took?);
        }
        for node in [one, other] {
            drop(node.members);
            node.writer.close(LONG).await;
            node.registration.deregister().await?;
        }
        dying.writer.close(Duration::ZERO).await;
        Ok(longest)
    }
}

/// Returns when one of the two acknowledges an append.
async fn until_served(stream: StreamId, one: &Writer, other: &Writer) -> anyhow::Result<Instant> {
    let batch = batch(100, -1, -1);
    for writer in [one, other].into_iter().cycle() {
        match writer.append(stream, &batch, LONG).await {
            Ok(_) => break,
            Err(AppendError::NotOwner) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Instant::now())
}

/// All at once, each with the time that it took since then.
async fn futures<F: Future<Output = anyhow::Result<Instant>>>(
    all: impl Iterator<Item = F>,
    since: Instant,
) -> Vec<anyhow::Result<Duration>> {
    let mut pending: Vec<_> = all.map(Box::pin).collect();
    let mut done = Vec::new();
    std::future::poll_fn(|context| {
        pending.retain_mut(|one| match one.as_mut().poll(context) {
            std::task::Poll::Ready(at) => {
                done.push(at.map(|at| at - since));
                false
            }
            std::task::Poll::Pending => true,
        });
        match pending.is_empty() {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    done
}

fn batch(bytes: usize, producer: i64, sequence: i32) -> Bytes {
    let epoch = if producer < 0 { -1 } else { 0 };
    let mut builder = BatchBuilder::new().producer(producer, epoch, sequence);
    let value = vec![7; bytes];
    let timestamp_ms = 1_700_000_000_000;
    builder.push(&NewRecord { timestamp_ms, key: None, value: Some(&value), headers: &[] });
    builder.build()
}

/// What a producer is asked and tells.
#[derive(Default)]
struct Producing {
    stop: AtomicBool,
    /// The longest append since it was last asked, us.
    longest_us: AtomicUsize,
}

/// A producer at 50 MiB/s that finds its volume wherever it is.
async fn produce(
    writers: [Writer; 2],
    stream: StreamId,
    told: Arc<Producing>,
) -> anyhow::Result<Vec<Duration>> {
    let (mut took, mut at) = (Vec::new(), 0);
    for sequence in 0.. {
        if told.stop.load(Ordering::Relaxed) {
            break;
        }
        let batch = batch(BATCH_BYTES, 7, sequence);
        let begun = Instant::now();
        loop {
            match writers[at % 2].append(stream, &batch, LONG).await {
                Ok(_) => break,
                Err(AppendError::NotOwner) => at += 1,
                Err(error) => return Err(error.into()),
            }
            tokio::task::yield_now().await;
        }
        took.push(begun.elapsed());
        told.longest_us.fetch_max(begun.elapsed().as_micros() as usize, Ordering::Relaxed);
        tokio::time::sleep(REST).await;
    }
    Ok(took)
}

#[expect(clippy::print_stdout, reason = "a report for whoever runs it")]
fn report(what: &str, took: &mut [Duration]) {
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part).round() as usize];
    let (median, p99, most) = (at(0.5), at(0.99), at(1.0));
    let times = took.len();
    println!("{what:<44} p50 {median:>9.2?}  p99 {p99:>9.2?}  most {most:>9.2?}  ({times} times)");
}

#[expect(clippy::print_stdout, reason = "a report for whoever runs it")]
#[tokio::main(flavor = "multi_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (rounds, unuploaded, size) = (number(50)?.max(1), number(64)? << 20, number(2048)? << 20);

    let bench = Bench::new(1, size).await?;
    let mut one = Vec::new();
    for _ in 0..rounds {
        one.push(Box::pin(bench.failover(unuploaded)).await?);
    }
    report("declared dead until served, one volume", &mut one);
    let mut ten = Vec::new();
    {
        let bench = Bench::new(10, size).await?;
        for _ in 0..(rounds / 5).max(1) {
            ten.push(Box::pin(bench.failover(unuploaded)).await?);
        }
    }
    report("  the last of ten", &mut ten);
    let ratio = ten[ten.len() / 2].as_secs_f64() / one[one.len() / 2].as_secs_f64();
    println!("  {ratio:.2} times one");

    let (a, b) = (bench.node(1, true).await?, bench.node(2, true).await?);
    let told = Arc::<Producing>::default();
    let writers = [a.writer.clone(), b.writer.clone()];
    let producer = tokio::spawn(produce(writers, bench.streams[0], Arc::clone(&told)));
    let mut pauses = Vec::new();
    for round in 0..rounds {
        tokio::time::sleep(Duration::from_millis(500)).await;
        told.longest_us.store(0, Ordering::Relaxed);
        let owner = bench.catalog.volume(VolumeId(0)).and_then(|volume| volume.owner);
        let to = if owner == Some(NodeId(1)) { NodeId(2) } else { NodeId(1) };
        bench.catalog.want_volume(VolumeId(0), Some(to)).await?;
        let is_there = || {
            let volume = bench.catalog.volume(VolumeId(0));
            volume.is_some_and(|volume| volume.owner == Some(to) && volume.wanted.is_none())
        };
        let begun = Instant::now();
        while !is_there() {
            anyhow::ensure!(begun.elapsed() < LONG, "move {round} does not come to its end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The append that waited has been answered by then.
        tokio::time::sleep(REST * 10).await;
        let longest_us = told.longest_us.load(Ordering::Relaxed) as u64;
        pauses.push(Duration::from_micros(longest_us));
    }
    told.stop.store(true, Ordering::Relaxed);
    let mut appends = producer.await??;
    report("planned move at 50 MiB/s: longest append", &mut pauses);
    report("  any append", &mut appends);
    for node in [a, b] {
        drop(node.members);
        node.writer.close(LONG).await;
    }
    Ok(())
}
