//! What the tests are made with.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Weak;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sluice_model::GroupSettings;
use sluice_model::group_config::{OffsetReset, ShareSettings};
use sluice_wire::Chain;
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_wire::messages::share_acknowledge_request::{
    AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch, ShareAcknowledgeRequest,
};
use sluice_wire::messages::share_fetch_request::{
    self, FetchPartition, FetchTopic, ShareFetchRequest,
};
use sluice_wire::messages::share_fetch_response::ShareFetchResponse;
use tokio::sync::{Notify, Semaphore};

use super::super::partition::AckRange;
use super::*;
use crate::group::TopicShape;
use crate::group::log::LogRecord;
use crate::stream::{Offsets, Waiter};

pub(super) const TENANT: TenantId = TenantId(1);
pub(super) const OTHER: TenantId = TenantId(2);
const TOPIC: TopicId = TopicId([1; 16]);
const PARTITIONS: i32 = 2;

pub(super) fn stream(partition: u32) -> StreamId {
    StreamId { topic: TOPIC, partition }
}

pub(super) fn ack(first: i64, last: i64, types: &[i8]) -> AckRange {
    AckRange { first, last, types: types.to_vec() }
}

/// (first, last, deliveries) of all that an answer gives.
pub(super) fn acquired(answer: &ShareFetchResponse) -> Vec<(i64, i64, i16)> {
    assert_eq!(answer.error_code, 0, "{answer:?}");
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions
        .inspect(|partition| assert_eq!(partition.error_code, 0, "{answer:?}"))
        .flat_map(|partition| &partition.acquired_records)
        .map(|range| (range.first_offset, range.last_offset, range.delivery_count))
        .collect()
}

/// The codes of the acknowledgements in an answer.
pub(super) fn acked(answer: &ShareFetchResponse) -> Vec<i16> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.acknowledge_error_code).collect()
}

pub(super) fn errors(answer: &ShareFetchResponse) -> Vec<i16> {
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|partition| partition.error_code).collect()
}

/// A log in memory that applies as the real one does, and can be slow or fail.
pub(super) struct MemoryLog {
    state: Weak<Shares>,
    records: Mutex<Vec<LogRecord>>,
    error: Mutex<Option<LogError>>,
    turns: Semaphore,
}

impl MemoryLog {
    pub(super) fn fail(&self, error: Option<LogError>) {
        *self.error.lock() = error;
    }

    pub(super) fn stall(&self) {
        self.turns.forget_permits(usize::MAX);
    }

    pub(super) fn resume(&self) {
        self.turns.add_permits(1_000_000);
    }

    pub(super) fn records(&self) -> usize {
        self.records.lock().len()
    }
}

#[async_trait]
impl CoordinatorLog for MemoryLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<(), LogError> {
        self.turns.acquire().await.expect("never closed").forget();
        if let Some(error) = *self.error.lock() {
            return Err(error);
        }
        let state = self.state.upgrade().ok_or(LogError::NotOwner)?;
        for record in records {
            state.apply(&record.key, record.value.as_deref()).expect("our own record");
            self.records.lock().push(record);
        }
        Ok(())
    }
}

/// The one topic of the first tenant.
struct OneTopic;

impl Topics for OneTopic {
    fn name(&self, tenant: TenantId, topic: TopicId) -> Option<Str> {
        (tenant == TENANT && topic == TOPIC).then(|| Str::from_static("topic"))
    }

    fn find(&self, tenant: TenantId, name: &str) -> Option<TopicShape> {
        let known = tenant == TENANT && name == "topic";
        known.then_some(TopicShape { id: TOPIC, partitions: PARTITIONS })
    }

    fn names(&self, _: TenantId) -> Vec<Str> {
        vec![Str::from_static("topic")]
    }

    fn version(&self, _: TenantId) -> u64 {
        0
    }
}

/// The same for all groups.
struct Configs(Arc<Mutex<ShareSettings>>);

impl GroupConfigs for Configs {
    fn settings(&self, _: TenantId, _: &str) -> Arc<GroupSettings> {
        Arc::new(GroupSettings { share: *self.0.lock(), ..GroupSettings::default() })
    }
}

/// Streams in memory: batches with their end offsets.
#[derive(Default)]
struct Streams {
    batches: Mutex<HashMap<StreamId, Vec<(i64, Bytes)>>>,
    watchers: Mutex<Vec<Arc<Notify>>>,
}

impl Streams {
    fn end(&self, stream: StreamId) -> i64 {
        self.batches.lock().get(&stream).and_then(|b| b.last()).map_or(0, |(end, _)| *end)
    }
}

#[async_trait]
impl ShareSource for Streams {
    async fn offsets(&self, stream: StreamId) -> Result<Offsets, ErrorCode> {
        let end = self.end(stream);
        Ok(Offsets { log_start: 0, tail_start: 0, high_watermark: end, last_stable: end })
    }

    fn leader_epoch(&self, _: StreamId) -> i32 {
        7
    }

    fn available(&self, stream: StreamId, offset: i64, _: u64) -> u64 {
        let batches = self.batches.lock();
        let batches = batches.get(&stream).into_iter().flatten();
        batches.filter(|(end, _)| *end > offset).map(|(_, bytes)| bytes.len() as u64).sum()
    }

    async fn read(
        &self,
        stream: StreamId,
        offset: i64,
        max_bytes: u32,
        _: bool,
    ) -> Result<SourceRead, ErrorCode> {
        let batches = self.batches.lock();
        let mut records = Chain::new();
        for (end, bytes) in batches.get(&stream).into_iter().flatten() {
            let fits = records.is_empty() || records.len() + bytes.len() <= max_bytes as usize;
            if *end > offset && fits {
                records.push(bytes.clone());
            }
        }
        Ok(SourceRead { records, aborted: Vec::new() })
    }

    async fn reset(&self, stream: StreamId, reset: OffsetReset) -> Result<i64, ErrorCode> {
        Ok(if reset == OffsetReset::Latest { self.end(stream) } else { 0 })
    }

    fn watch(&self, _: &[StreamId], wake: Arc<Notify>) -> Watching {
        self.watchers.lock().push(Arc::clone(&wake));
        Box::new(Waiter::with(wake, Vec::new()))
    }
}

pub(super) struct Rig {
    pub(super) shares: Arc<Shares>,
    pub(super) log: Arc<MemoryLog>,
    streams: Arc<Streams>,
    settings: Arc<Mutex<ShareSettings>>,
    limits: ShareLimits,
    pub(super) metrics: ShareMetrics,
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::with(ShareLimits::default()).await
    }

    pub(super) async fn with(limits: ShareLimits) -> Self {
        let mut settings = GroupSettings::default().share;
        settings.auto_offset_reset = OffsetReset::Earliest;
        let settings = Arc::new(Mutex::new(settings));
        Self::on(Vec::new(), Arc::default(), settings, limits)
    }

    fn on(
        records: Vec<LogRecord>,
        streams: Arc<Streams>,
        settings: Arc<Mutex<ShareSettings>>,
        limits: ShareLimits,
    ) -> Self {
        let metrics = ShareMetrics::default();
        let shares = made(&settings, &limits, &metrics);
        for record in &records {
            shares.apply(&record.key, record.value.as_deref()).unwrap();
        }
        let log = Arc::new(MemoryLog {
            state: Arc::downgrade(&shares),
            records: Mutex::new(records),
            error: Mutex::default(),
            turns: Semaphore::new(1_000_000),
        });
        shares.start(Arc::clone(&log) as Arc<dyn CoordinatorLog>);
        Self { shares, log, streams, settings, limits, metrics }
    }

    pub(super) fn unstarted(&self) -> Arc<Shares> {
        made(&self.settings, &self.limits, &self.metrics)
    }

    /// The same log and streams after a crash.
    pub(super) async fn restarted(&self) -> Self {
        let records = self.log.records.lock().clone();
        let (streams, settings) = (Arc::clone(&self.streams), Arc::clone(&self.settings));
        Self::on(records, streams, settings, self.limits.clone())
    }

    pub(super) fn set(&self, change: impl FnOnce(&mut ShareSettings)) {
        change(&mut self.settings.lock());
    }

    /// Batches of so many records each.
    pub(super) fn produce(&self, partition: u32, batches: &[usize]) {
        for count in batches {
            let base = self.streams.end(stream(partition));
            let mut builder = BatchBuilder::new().base_offset(base);
            for _ in 0..*count {
                let value = Some(&b"value"[..]);
                builder.push(&NewRecord { timestamp_ms: 1, key: None, value, headers: &[] });
            }
            let batch = (base + *count as i64, builder.build());
            self.streams.batches.lock().entry(stream(partition)).or_default().push(batch);
        }
        for watcher in self.streams.watchers.lock().iter() {
            watcher.notify_one();
        }
    }

    /// How many bytes the batches have that hold these offsets.
    pub(super) fn bytes(&self, partition: u32, offsets: Range<i64>) -> usize {
        let batches = self.streams.batches.lock();
        let ends = batches[&stream(partition)].iter();
        let held = ends.filter(|(end, _)| *end > offsets.start && *end <= offsets.end);
        held.map(|(_, bytes)| bytes.len()).sum()
    }

    /// Where the group stands in partition 0.
    pub(super) fn start(&self) -> i64 {
        self.shares.standings(TENANT, &Str::from_static("group"))[0].start
    }

    pub(super) fn member_unopened(&self, tenant: TenantId, id: &'static str) -> Member {
        let (group, member) = (Str::from_static("group"), Str::from_static(id));
        let connection = u64::from(id.as_bytes()[0]);
        Member { tenant, group, member, epoch: AtomicI32::new(0), connection }
    }

    /// A member whose session fetches partition 0.
    pub(super) async fn member(&self, id: &'static str) -> Member {
        self.member_of(TENANT, id).await
    }

    pub(super) async fn member_of(&self, tenant: TenantId, id: &'static str) -> Member {
        let member = self.member_unopened(tenant, id);
        let answer = member.open(self).await;
        assert_eq!(answer.error_code, 0);
        member
    }
}

fn made(
    settings: &Arc<Mutex<ShareSettings>>,
    limits: &ShareLimits,
    metrics: &ShareMetrics,
) -> Arc<Shares> {
    let configs = Arc::new(Configs(Arc::clone(settings)));
    Arc::new(Shares::new(
        limits.clone(),
        Arc::new(OneTopic),
        configs,
        Arc::new(|_| 7),
        metrics.clone(),
    ))
}

/// A member of a share group.
pub(super) struct Member {
    pub(super) tenant: TenantId,
    pub(super) group: Str,
    pub(super) member: Str,
    pub(super) epoch: AtomicI32,
    /// The number of its connection.
    pub(super) connection: u64,
}

impl Member {
    fn request(&self, max_records: i32, wait: Duration) -> ShareFetchRequest {
        ShareFetchRequest {
            group_id: Some(self.group.clone()),
            member_id: Some(self.member.clone()),
            share_session_epoch: self.epoch.fetch_add(1, Ordering::Relaxed),
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap(),
            min_bytes: 1,
            max_bytes: 1 << 20,
            max_records,
            batch_size: 100,
            ..Default::default()
        }
    }

    async fn send(&self, rig: &Rig, request: ShareFetchRequest) -> ShareFetchResponse {
        let client = ShareClient { tenant: self.tenant, connection: self.connection };
        rig.shares.fetch(client, &*rig.streams, 2, request, 1 << 20).await
    }

    /// Begins a session with partition 0, asking for no records.
    pub(super) async fn open(&self, rig: &Rig) -> ShareFetchResponse {
        self.epoch.store(0, Ordering::Relaxed);
        let mut request = self.request(0, Duration::ZERO);
        request.topics = topics(&[]);
        self.send(rig, request).await
    }

    /// Begins a session with partitions 0 and 1, asking for what is there.
    pub(super) async fn open_both(&self, rig: &Rig) -> ShareFetchResponse {
        self.epoch.store(0, Ordering::Relaxed);
        let mut request = self.request(100, Duration::from_millis(500));
        request.topics = topics(&[]);
        let first = request.topics[0].partitions[0].clone();
        request.topics[0].partitions.push(FetchPartition { partition_index: 1, ..first });
        self.send(rig, request).await
    }

    pub(super) async fn fetch(&self, rig: &Rig, max_records: i32) -> ShareFetchResponse {
        self.send(rig, self.request(max_records, Duration::from_millis(500))).await
    }

    /// With a bound of its own on bytes.
    pub(super) async fn fetch_bytes(&self, rig: &Rig, max_bytes: i32) -> ShareFetchResponse {
        let mut request = self.request(100, Duration::from_millis(500));
        request.max_bytes = max_bytes;
        self.send(rig, request).await
    }

    pub(super) async fn fetch_waiting(&self, rig: &Rig, wait: Duration) -> ShareFetchResponse {
        self.send(rig, self.request(100, wait)).await
    }

    pub(super) async fn fetch_saying(
        &self,
        rig: &Rig,
        max_records: i32,
        ranges: &[AckRange],
    ) -> ShareFetchResponse {
        let mut request = self.request(max_records, Duration::from_millis(500));
        request.topics = topics(ranges);
        self.send(rig, request).await
    }

    pub(super) async fn renew(
        &self,
        rig: &Rig,
        ranges: &[AckRange],
        max_bytes: i32,
    ) -> ShareFetchResponse {
        let mut request = self.request(0, Duration::ZERO);
        request.topics = topics(ranges);
        (request.min_bytes, request.max_bytes) = (0, max_bytes);
        request.is_renew_ack = true;
        let epoch = request.share_session_epoch;
        let answer = self.send(rig, request).await;
        if answer.error_code != 0 {
            // Refused before the session looked at it.
            self.epoch.store(epoch, Ordering::Relaxed);
        }
        answer
    }

    /// ShareAcknowledge; the code of the request or the partition.
    pub(super) async fn say(&self, rig: &Rig, ranges: &[AckRange]) -> ErrorCode {
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        self.say_at(rig, ranges, epoch).await
    }

    async fn say_at(&self, rig: &Rig, ranges: &[AckRange], epoch: i32) -> ErrorCode {
        let batches = ranges.iter().map(|range| AcknowledgementBatch {
            first_offset: range.first,
            last_offset: range.last,
            acknowledge_types: range.types.clone(),
        });
        let partition =
            AcknowledgePartition { partition_index: 0, acknowledgement_batches: batches.collect() };
        let request = ShareAcknowledgeRequest {
            group_id: Some(self.group.clone()),
            member_id: Some(self.member.clone()),
            share_session_epoch: epoch,
            is_renew_ack: false,
            topics: vec![AcknowledgeTopic { topic_id: Uuid(TOPIC.0), partitions: vec![partition] }],
        };
        let answer = rig.shares.acknowledge(self.tenant, 2, request).await;
        let of_partition = answer.responses.first().map_or(0, |t| t.partitions[0].error_code);
        ErrorCode::from_code(if answer.error_code == 0 { of_partition } else { answer.error_code })
    }

    /// Ends the session.
    pub(super) async fn close(&self, rig: &Rig) {
        assert_eq!(
            self.say_at(rig, &[], -1).await,
            if self.tenant == TENANT { ErrorCode::None } else { ErrorCode::UnknownTopicId }
        );
    }
}

fn topics(ranges: &[AckRange]) -> Vec<FetchTopic> {
    let batches = ranges.iter().map(|range| share_fetch_request::AcknowledgementBatch {
        first_offset: range.first,
        last_offset: range.last,
        acknowledge_types: range.types.clone(),
    });
    let partition =
        FetchPartition { partition_index: 0, acknowledgement_batches: batches.collect() };
    vec![FetchTopic { topic_id: Uuid(TOPIC.0), partitions: vec![partition] }]
}
