//! Consumers of committed records against a simple model: random transactions, uploads, compaction,
//! restarts and deletions, read from any offset.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use proptest::prelude::*;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::{Catalog, CatalogOptions, NewTopic, VolumeKind, VolumeSpec};
use sluice_format::key::Keys;
use sluice_gateway::backend::{
    Append, AppendRequest, Backend, Caller, NotAdded, OffsetQuery, ProducerIdentity, Read,
    ReadAnswer, ReadRequest, TransactionLog, Transactions,
};
use sluice_model::{
    CatalogLimits, GroupDefaults, NodeId, StreamId, TenantId, TopicDefaults, VolumeId,
};
use sluice_reader::{CacheMetrics, Reader, ReaderOptions};
use sluice_volume::Medium;
use sluice_wire::batch::{BatchBuilder, Batches, NewRecord};
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::{ErrorCode, Str};
use sluice_writer::group::GroupConfig;
use sluice_writer::transaction::TransactionConfig;
use sluice_writer::{
    CompactionOptions, VolumePlace, Writer, WriterMetrics, WriterOptions, WriterParts,
};

use super::LocalBackend;
use crate::low_priority::LowPriority;
use crate::seams::{SystemClock, SystemEntropy};
use crate::volumes;

const WAIT: Duration = Duration::from_secs(20);

struct Fixture {
    dir: tempfile::TempDir,
    bucket: Arc<InMemory>,
    catalog: Catalog,
    options: WriterOptions,
}

impl Fixture {
    async fn new(options: WriterOptions) -> Self {
        let entropy = Arc::new(SystemEntropy);
        let store = EmbeddedStore::in_memory(Arc::clone(&entropy) as _).unwrap();
        let catalog_options = CatalogOptions {
            entropy,
            node: None,
            topic_defaults: TopicDefaults::default(),
            group_defaults: GroupDefaults::default(),
            limits: CatalogLimits::default(),
        };
        let catalog = Catalog::open(Arc::new(store), catalog_options).await.unwrap();
        let (kind, location, size_bytes) = (VolumeKind::File, "0.wal".to_owned(), 64 << 20);
        let spec = VolumeSpec::new(VolumeId(0), kind, location, size_bytes);
        catalog.add_volume(spec).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { dir, bucket: Arc::new(InMemory::new()), catalog, options }
    }

    async fn topic(&self, overrides: &[(&str, &str)]) -> StreamId {
        let overrides: BTreeMap<_, _> =
            overrides.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let topic = NewTopic { name: "t".to_owned(), partitions: 1, overrides };
        let topic = self.catalog.create_topic(TenantId::OPEN, topic).await.unwrap();
        StreamId { topic: topic.id, partition: 0 }
    }

    async fn start(&self) -> LocalBackend {
        let place = VolumePlace {
            id: VolumeId(0),
            medium: Medium::File { path: self.dir.path().join("0.wal"), size_bytes: 64 << 20 },
        };
        let keys = Keys::new(self.catalog.cluster_id());
        let bucket = Arc::clone(&self.bucket) as Arc<dyn ObjectStore>;
        let cache = ReaderOptions { cache_bytes: 8 << 20 };
        let metrics = CacheMetrics::default();
        let reader = Arc::new(Reader::new(Arc::clone(&bucket), keys.clone(), cache, metrics));
        let parts = WriterParts {
            node: NodeId(1),
            catalog: self.catalog.clone(),
            bucket: Arc::clone(&bucket),
            background: Arc::clone(&bucket),
            keys: keys.clone(),
            options: self.options.clone(),
            groups: GroupConfig::default(),
            transactions: TransactionConfig::default(),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            metrics: WriterMetrics::default(),
            other_owners: Arc::new(sluice_writer::transaction::NoOtherOwners),
            on_shift: volumes::attach(&reader),
        };
        let writer = Writer::open(&[place], parts).await.unwrap();
        LocalBackend::new(writer, reader, LowPriority::start().unwrap(), None)
    }
}

fn caller() -> Caller {
    Caller {
        tenant: TenantId::OPEN,
        principal: Arc::from("User:ANONYMOUS"),
        client_id: "client".into(),
        client_host: IpAddr::V4(Ipv4Addr::LOCALHOST),
        connection: 0,
    }
}

/// Appends one record, as the coordinator would let it.
async fn append(backend: &LocalBackend, stream: StreamId, batch: Bytes) -> i64 {
    let writer = backend.writer();
    let appended = match writer.unverified(stream, &batch, false).unwrap() {
        Some(verified) => writer.append_verified(stream, &batch, WAIT, verified).await,
        None => writer.append(stream, &batch, WAIT).await,
    };
    appended.unwrap().base_offset
}

fn record(builder: BatchBuilder, key: &str, value: i64) -> Bytes {
    let mut builder = builder;
    let value = value.to_be_bytes();
    let (key, value) = (Some(key.as_bytes()), Some(&value[..]));
    builder.push(&NewRecord { timestamp_ms: 1_000, key, value, headers: &[] });
    builder.build()
}

async fn fetch(
    backend: &LocalBackend,
    stream: StreamId,
    offset: i64,
    max_bytes: u32,
    read_committed: bool,
) -> Result<ReadAnswer, ErrorCode> {
    let read =
        Read { stream, offset, max_bytes, current_leader_epoch: None, last_fetched_epoch: None };
    let request = ReadRequest {
        min_bytes: 0,
        max_wait: Duration::ZERO,
        max_bytes,
        read_committed,
        reads: vec![read],
    };
    backend.read(&caller(), request).await.pop().unwrap()
}

/// Reads committed records from `offset` to the end as clients do it: (offset, key, value).
async fn committed(
    backend: &LocalBackend,
    stream: StreamId,
    mut offset: i64,
    max_bytes: u32,
) -> Vec<(i64, String, i64)> {
    let mut seen = Vec::new();
    loop {
        let answer = fetch(backend, stream, offset, max_bytes, true).await.unwrap();
        if answer.records.is_empty() {
            assert!(offset >= answer.last_stable, "nothing at {offset} of {answer:?}");
            return seen;
        }
        let mut aborted = answer.aborted.clone();
        aborted.sort_by_key(|(_, first)| std::cmp::Reverse(*first));
        let mut in_aborted = BTreeSet::new();
        for batch in Batches::new(answer.records.to_bytes()) {
            let batch = batch.unwrap();
            let producer = batch.producer_id();
            while aborted.last().is_some_and(|(_, first)| *first <= batch.last_offset()) {
                in_aborted.extend(aborted.pop().map(|(producer, _)| producer));
            }
            let is_control = batch.attributes().is_control();
            let left_out = batch.attributes().is_transactional() && in_aborted.contains(&producer);
            for record in batch.records(1 << 20).unwrap() {
                let record = record.unwrap();
                let key = record.key.unwrap();
                if is_control {
                    if key[..] == [0, 0, 0, 0] {
                        in_aborted.remove(&producer);
                    }
                } else if !left_out && record.offset >= offset {
                    let value = i64::from_be_bytes(record.value.unwrap()[..].try_into().unwrap());
                    let key = String::from_utf8(key.to_vec()).unwrap();
                    seen.push((record.offset, key, value));
                }
            }
            offset = offset.max(batch.last_offset() + 1);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Plain,
    Write {
        producer: i64,
        key: u8,
    },
    End {
        producer: i64,
        commit: bool,
    },
    Restart,
    /// Waits until the bucket has it all.
    Upload,
    Delete {
        share: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Plain),
        8 => (0..3i64, 0..3u8).prop_map(|(producer, key)| Step::Write { producer, key }),
        5 => (0..3i64, any::<bool>()).prop_map(|(producer, commit)| Step::End { producer, commit }),
        1 => Just(Step::Restart),
        2 => Just(Step::Upload),
        1 => (0..100u8).prop_map(|share| Step::Delete { share }),
    ]
}

/// What was written: by offset, the producer (none for plain records), key and value.
#[derive(Default)]
struct Model {
    records: BTreeMap<i64, (Option<i64>, String)>,
    open: BTreeMap<i64, i64>,
    aborted: BTreeSet<i64>,
    end: i64,
    log_start: i64,
}

impl Model {
    fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.end).max(self.log_start)
    }

    fn end(&mut self, producer: i64, commit: bool, marker: i64) {
        self.end = marker + 1;
        let Some(first) = self.open.remove(&producer) else { return };
        if !commit {
            let of = |by: &Option<i64>| *by == Some(producer);
            let aborted = self.records.range(first..).filter(|(_, (by, _))| of(by));
            self.aborted.extend(aborted.map(|(offset, _)| *offset));
        }
    }

    fn committed_from(&self, offset: i64) -> Vec<(i64, String, i64)> {
        let seen = self.records.range(offset..self.stable().max(offset));
        seen.filter(|(offset, _)| !self.aborted.contains(offset))
            .map(|(offset, (_, key))| (*offset, key.clone(), *offset))
            .collect()
    }
}

struct Run {
    fixture: Fixture,
    backend: LocalBackend,
    stream: StreamId,
    model: Model,
    sequences: [i32; 3],
}

impl Run {
    async fn step(&mut self, step: Step) {
        let (stream, model) = (self.stream, &mut self.model);
        match step {
            Step::Plain => {
                let batch = record(BatchBuilder::new(), "plain", model.end);
                let offset = append(&self.backend, stream, batch).await;
                model.records.insert(offset, (None, "plain".to_owned()));
                model.end = offset + 1;
            }
            Step::Write { producer, key } => {
                let sequence = &mut self.sequences[producer as usize];
                let builder = BatchBuilder::new().producer(producer, 0, *sequence).transactional();
                *sequence += 1;
                let key = format!("{producer}-{key}");
                let offset = append(&self.backend, stream, record(builder, &key, model.end)).await;
                model.records.insert(offset, (Some(producer), key));
                model.open.entry(producer).or_insert(offset);
                model.end = offset + 1;
            }
            Step::End { producer, commit } => {
                let writer = self.backend.writer();
                writer.end_transaction(stream, producer, 0, 1, commit).await.unwrap();
                let marker = writer.offsets(stream).unwrap().high_watermark - 1;
                model.end(producer, commit, marker);
            }
            Step::Restart => {
                self.backend.writer().close(Duration::ZERO).await;
                self.backend = self.fixture.start().await;
            }
            Step::Upload => {
                let end = model.end;
                let (_, state) = self.backend.writer().bucket_states().next().unwrap();
                let key = super::key_of(stream);
                let uploaded = || state.read().streams.get(&key).map_or(0, |s| s.end_offset);
                let wait = async {
                    while uploaded() < end {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                };
                tokio::time::timeout(WAIT, wait).await.expect("uploads go on");
            }
            Step::Delete { share } => {
                let before =
                    model.log_start + (model.end - model.log_start) * i64::from(share) / 300;
                model.log_start =
                    self.backend.writer().delete_records(stream, before).await.unwrap();
            }
        }
    }

    /// Everything that can be asked, from every offset.
    async fn check(&self, max_bytes: u32) {
        let (stream, model) = (self.stream, &self.model);
        let offsets = self.backend.writer().offsets(stream).unwrap();
        assert_eq!(
            (offsets.log_start, offsets.last_stable, offsets.high_watermark),
            (model.log_start, model.stable(), model.end)
        );
        let latest =
            self.backend.find_offset(&caller(), stream, None, true, OffsetQuery::Latest).await;
        assert_eq!(latest.unwrap().offset, model.stable());
        let at = OffsetQuery::AtOrAfter(0);
        let first = self.backend.find_offset(&caller(), stream, None, true, at).await.unwrap();
        let visible = model.log_start < model.stable();
        assert_eq!(first.offset, if visible { model.log_start } else { -1 });
        let open: BTreeMap<_, _> = self
            .backend
            .active_producers(&caller(), stream)
            .await
            .unwrap()
            .iter()
            .filter(|producer| producer.transaction_start >= 0)
            .map(|producer| (producer.producer_id, producer.transaction_start))
            .collect();
        assert_eq!(open, model.open);
        for offset in model.log_start..=model.end {
            let seen = committed(&self.backend, stream, offset, max_bytes).await;
            assert_eq!(seen, model.committed_from(offset), "from {offset}");
        }
    }
}

fn small_extents() -> WriterOptions {
    WriterOptions {
        upload_segment_bytes: 1,
        tail_cache_bytes: 200,
        delete_grace: Duration::from_secs(60),
        compaction: CompactionOptions {
            interval: Duration::from_millis(5),
            min_age: Duration::ZERO,
            ..CompactionOptions::default()
        },
        ..WriterOptions::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn who_reads_committed_records_sees_those_and_no_others(
        steps in proptest::collection::vec(step(), 1..40),
        max_bytes in prop_oneof![Just(1u32), Just(200), Just(1 << 20)],
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let fixture = Fixture::new(small_extents()).await;
            let stream = fixture.topic(&[]).await;
            let backend = fixture.start().await;
            let model = Model::default();
            let mut run = Run { fixture, backend, stream, model, sequences: [0; 3] };
            for step in steps {
                run.step(step).await;
            }
            run.check(max_bytes).await;
            run.step(Step::Upload).await;
            run.check(max_bytes).await;
            run.step(Step::Restart).await;
            run.check(max_bytes).await;
            run.backend.writer().close(Duration::ZERO).await;
        });
    }
}

#[tokio::test]
async fn a_fetch_of_committed_records_waits_for_the_marker() {
    let fixture = Fixture::new(WriterOptions::default()).await;
    let stream = fixture.topic(&[]).await;
    let backend = Arc::new(fixture.start().await);
    let builder = BatchBuilder::new().producer(7, 0, 0).transactional();
    append(&backend, stream, record(builder, "k", 1)).await;
    let read = |read_committed| ReadRequest {
        min_bytes: 1,
        max_wait: WAIT,
        max_bytes: 1 << 20,
        read_committed,
        reads: vec![Read {
            stream,
            offset: 0,
            max_bytes: 1 << 20,
            current_leader_epoch: None,
            last_fetched_epoch: None,
        }],
    };
    let uncommitted = backend.read(&caller(), read(false)).await.pop().unwrap().unwrap();
    assert!(!uncommitted.records.is_empty());
    assert_eq!((uncommitted.last_stable, uncommitted.high_watermark), (0, 1));
    let waiting = tokio::spawn({
        let (backend, read) = (Arc::clone(&backend), read(true));
        async move { backend.read(&caller(), read).await.pop().unwrap().unwrap() }
    });
    // However late it comes, the marker ends the wait: it is what makes the record visible.
    tokio::task::yield_now().await;
    backend.writer().end_transaction(stream, 7, 0, 1, true).await.unwrap();
    let answer = waiting.await.unwrap();
    assert_eq!(answer.last_stable, 2);
    assert!(!answer.records.is_empty());
    assert_eq!(answer.aborted, []);
    backend.writer().close(Duration::ZERO).await;
}

/// One batch of one record, of a transaction with this epoch.
fn part(producer: ProducerIdentity, sequence: i32) -> Bytes {
    let ProducerIdentity { producer_id, producer_epoch } = producer;
    let builder = BatchBuilder::new().producer(producer_id, producer_epoch, sequence);
    record(builder.transactional(), "k", i64::from(sequence))
}

/// A request in flight waits for the coordinator with all its batches; the next ones must not overtake it, whether
/// they need the coordinator or not.
#[tokio::test]
async fn batches_of_a_transaction_keep_the_order_of_their_requests() {
    let fixture = Fixture::new(WriterOptions::default()).await;
    let topic = NewTopic { name: "t".to_owned(), partitions: 3, overrides: BTreeMap::new() };
    let topic = fixture.catalog.create_topic(TenantId::OPEN, topic).await.unwrap();
    let stream = |partition| StreamId { topic: topic.id, partition };
    let backend = fixture.start().await;
    let (caller, id) = (caller(), Str::from("id"));
    let request = |batches: &[(u32, Bytes)]| AppendRequest {
        acks: -1,
        timeout: WAIT,
        transactional_id: Some(id.clone()),
        not_added: NotAdded::Adds,
        appends: batches
            .iter()
            .map(|(partition, records)| Append {
                stream: stream(*partition),
                records: records.clone(),
            })
            .collect(),
    };
    let init = InitProducerIdRequest {
        transactional_id: Some(id.clone()),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let given = backend.init_producer_id(&caller, init).await.unwrap();
    // Open in partition 0 only.
    let first = backend.append(&caller, request(&[(0, part(given, 0))])).await;
    assert!(first[0].is_ok(), "{first:?}");
    let answers = futures_util::future::join_all([
        // Waits for the coordinator, and with the new partition the old one.
        backend.append(&caller, request(&[(1, part(given, 0)), (0, part(given, 1))])),
        backend.append(&caller, request(&[(0, part(given, 2))])),
        backend.append(&caller, request(&[(2, part(given, 0))])),
        backend.append(&caller, request(&[(1, part(given, 1)), (2, part(given, 1))])),
        backend.append(&caller, request(&[(0, part(given, 3)), (1, part(given, 2))])),
    ])
    .await;
    let refused = answers.iter().flatten().filter_map(|answer| answer.as_ref().err());
    assert_eq!(refused.collect::<Vec<_>>().len(), 0, "{answers:?}");
    backend.writer().close(Duration::ZERO).await;
}
