//! A backend in memory: streams that are lists of batches, groups that are maps of offsets. It keeps
//! its word on order and on waiting, and lets tests hold appends back and count reads.

mod transactions;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_catalog::Catalog;
use sluice_model::{StreamId, TenantId, TopicId};
use sluice_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use sluice_wire::messages::consumer_group_describe_response::{
    ConsumerGroupDescribeResponse, DescribedGroup as DescribedConsumerGroup,
};
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use sluice_wire::messages::create_topics_request::CreatableTopic;
use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;
use sluice_wire::messages::delete_groups_response::{DeletableGroupResult, DeleteGroupsResponse};
use sluice_wire::messages::describe_groups_request::DescribeGroupsRequest;
use sluice_wire::messages::describe_groups_response::{DescribeGroupsResponse, DescribedGroup};
use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::heartbeat_response::HeartbeatResponse;
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::leave_group_request::LeaveGroupRequest;
use sluice_wire::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use sluice_wire::messages::list_groups_request::ListGroupsRequest;
use sluice_wire::messages::list_groups_response::{ListGroupsResponse, ListedGroup};
use sluice_wire::messages::offset_commit_request::OffsetCommitRequest;
use sluice_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use sluice_wire::messages::offset_fetch_request::OffsetFetchRequest;
use sluice_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};
use sluice_wire::messages::streams_group_describe_response;
use sluice_wire::messages::streams_group_heartbeat_request::StreamsGroupHeartbeatRequest;
use sluice_wire::messages::streams_group_heartbeat_response::{
    Status, StreamsGroupHeartbeatResponse,
};
use sluice_wire::messages::sync_group_request::SyncGroupRequest;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{Chain, ErrorCode, Str, Uuid};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::backend::*;

/// A group id at which the backend panics.
pub(super) const PANIC_GROUP: &str = "panic";
/// The leader epoch of every stream.
pub(super) const EPOCH: i32 = 3;

#[derive(Default)]
struct Stream {
    batches: Vec<(i64, Bytes)>,
    end: i64,
    start: i64,
}

type Commits = BTreeMap<(TopicId, i32), (i64, Option<Str>)>;

pub(super) struct MemoryBackend {
    catalog: Catalog,
    streams: Mutex<HashMap<StreamId, Stream>>,
    groups: Mutex<HashMap<(TenantId, Str), Commits>>,
    /// Grows with each append.
    appended: watch::Sender<u64>,
    /// While it is closed, appends are handed over but not durable.
    pub(super) gate: watch::Sender<bool>,
    /// Appends that were handed over.
    pub(super) appends: AtomicUsize,
    /// Reads that are waiting now.
    pub(super) reading: AtomicUsize,
    /// Makes every append fail.
    pub(super) refuse: AtomicBool,
    /// Transactions that were ended in streams.
    pub(super) ended: Mutex<Vec<(StreamId, EndMarker)>>,
    next_producer: AtomicI64,
    pub(super) transactions: Mutex<HashMap<(TenantId, Str), transactions::Open>>,
    /// Connections that were said to be lost to share groups; each said once more in `lost_count`.
    pub(super) lost: Mutex<Vec<(TenantId, u64)>>,
    pub(super) lost_count: watch::Sender<usize>,
}

/// Counts a read as long as its future lives.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl MemoryBackend {
    pub(super) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            streams: Mutex::default(),
            groups: Mutex::default(),
            appended: watch::Sender::new(0),
            gate: watch::Sender::new(true),
            appends: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
            refuse: AtomicBool::new(false),
            ended: Mutex::default(),
            next_producer: AtomicI64::new(1_000),
            transactions: Mutex::default(),
            lost: Mutex::default(),
            lost_count: watch::Sender::new(0),
        }
    }

    /// The payloads of a stream's batches, behind their headers.
    pub(super) fn payloads(&self, stream: StreamId) -> Vec<Bytes> {
        let streams = self.streams.lock();
        let batches = streams.get(&stream).map(|stream| stream.batches.clone());
        batches.unwrap_or_default().into_iter().map(|(_, batch)| batch.slice(61..)).collect()
    }

    fn read_once(&self, request: &ReadRequest) -> Vec<Result<ReadAnswer, ErrorCode>> {
        let streams = self.streams.lock();
        let none = Stream::default();
        let mut left = request.max_bytes as usize;
        let mut any = false;
        let mut one = |read: &Read| {
            if read.current_leader_epoch.is_some_and(|epoch| epoch < EPOCH) {
                return Err(ErrorCode::FencedLeaderEpoch);
            }
            let stream = streams.get(&read.stream).unwrap_or(&none);
            if read.offset < stream.start || read.offset > stream.end {
                return Err(ErrorCode::OffsetOutOfRange);
            }
            let mut records = Chain::new();
            for (at, (base, batch)) in stream.batches.iter().enumerate() {
                let next = stream.batches.get(at + 1).map_or(stream.end, |(base, _)| *base);
                if next <= read.offset {
                    continue;
                }
                let _ = base;
                let room = left.min((read.max_bytes as usize).saturating_sub(records.len()));
                if batch.len() > room && (any || !records.is_empty()) {
                    break;
                }
                any = true;
                left = left.saturating_sub(batch.len());
                records.push(batch.clone());
            }
            Ok(ReadAnswer {
                high_watermark: stream.end,
                last_stable: stream.end,
                log_start: stream.start,
                records,
                aborted: Vec::new(),
                diverging: None,
            })
        };
        request.reads.iter().map(&mut one).collect()
    }
}

#[async_trait]
impl TransactionLog for MemoryBackend {
    async fn active_producers(
        &self,
        _caller: &Caller,
        stream: StreamId,
    ) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let streams = self.streams.lock();
        let stream = streams.get(&stream).ok_or(ErrorCode::NotLeaderOrFollower)?;
        Ok(vec![ActiveProducer {
            producer_id: 7,
            producer_epoch: 3,
            last_sequence: 11,
            last_timestamp: 5,
            coordinator_epoch: 2,
            transaction_start: stream.start,
        }])
    }

    async fn end_in_stream(&self, stream: StreamId, marker: EndMarker) -> Result<(), ErrorCode> {
        if marker.producer_epoch < 0 {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        self.ended.lock().push((stream, marker));
        Ok(())
    }

    async fn commit_in_transaction(
        &self,
        _caller: &Caller,
        commit: OffsetsInTransaction,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        if commit.member_id == "stranger" {
            return Err(ErrorCode::UnknownMemberId);
        }
        // Offsets above 100 are as metadata that is too large.
        let code = |offset: &OffsetInTransaction| match offset.offset {
            ..=100 => ErrorCode::None,
            _ => ErrorCode::OffsetMetadataTooLarge,
        };
        Ok(commit.offsets.iter().map(code).collect())
    }
}

#[async_trait]
impl ConsumerGroups for MemoryBackend {
    async fn consumer_group_heartbeat(
        &self,
        _caller: &Caller,
        version: i16,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        ConsumerGroupHeartbeatResponse {
            member_id: Some(request.member_id),
            member_epoch: i32::from(version),
            ..Default::default()
        }
    }

    async fn consumer_group_describe(
        &self,
        _caller: &Caller,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let described = request.group_ids.into_iter().map(|group_id| DescribedConsumerGroup {
            error_code: if group_id.is_empty() { ErrorCode::InvalidGroupId.code() } else { 0 },
            group_id,
            ..Default::default()
        });
        ConsumerGroupDescribeResponse { groups: described.collect(), ..Default::default() }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn append(
        &self,
        _caller: &Caller,
        request: AppendRequest,
    ) -> Vec<Result<Appended, Refused>> {
        let mut answers = Vec::new();
        {
            let mut streams = self.streams.lock();
            for append in request.appends {
                self.appends.fetch_add(1, Ordering::SeqCst);
                if self.refuse.load(Ordering::SeqCst) {
                    answers.push(Err(Refused {
                        code: ErrorCode::NotLeaderOrFollower,
                        message: Some("it is elsewhere".to_owned()),
                        record_errors: vec![(0, "not this one".to_owned())],
                        log_start: -1,
                    }));
                    continue;
                }
                let stream = streams.entry(append.stream).or_default();
                let base = stream.end;
                let mut batch = append.records.to_vec();
                batch[..8].copy_from_slice(&base.to_be_bytes());
                let last = i32::from_be_bytes(batch[23..27].try_into().unwrap());
                stream.end += i64::from(last) + 1;
                stream.batches.push((base, batch.into()));
                answers.push(Ok(Appended {
                    base_offset: base,
                    log_append_time_ms: -1,
                    log_start: stream.start,
                }));
            }
        }
        self.gate.subscribe().wait_for(|open| *open).await.unwrap();
        self.appended.send_modify(|count| *count += 1);
        answers
    }

    async fn read(
        &self,
        _caller: &Caller,
        request: ReadRequest,
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        self.reading.fetch_add(1, Ordering::SeqCst);
        let _counted = Counted(&self.reading);
        let deadline = Instant::now() + request.max_wait;
        let mut appended = self.appended.subscribe();
        loop {
            let answers = self.read_once(&request);
            let bytes: usize = answers.iter().flatten().map(|answer| answer.records.len()).sum();
            let failed = answers.iter().any(Result::is_err);
            if failed || bytes >= request.min_bytes as usize {
                return answers;
            }
            if timeout_at(deadline, appended.changed()).await.is_err() {
                return answers;
            }
        }
    }

    async fn find_offset(
        &self,
        _caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        _read_committed: bool,
        query: OffsetQuery,
    ) -> Result<OffsetFound, ErrorCode> {
        if current_leader_epoch.is_some_and(|epoch| epoch > EPOCH) {
            return Err(ErrorCode::UnknownLeaderEpoch);
        }
        let streams = self.streams.lock();
        let none = Stream::default();
        let stream = streams.get(&stream).unwrap_or(&none);
        let offset = match query {
            OffsetQuery::Earliest | OffsetQuery::EarliestLocal => stream.start,
            OffsetQuery::Latest => stream.end,
            OffsetQuery::MaxTimestamp => stream.end - 1,
            OffsetQuery::LatestTiered | OffsetQuery::AtOrAfter(_) => -1,
        };
        Ok(OffsetFound { offset, timestamp: -1, leader_epoch: EPOCH })
    }

    async fn epoch_end(
        &self,
        _caller: &Caller,
        stream: StreamId,
        _current_leader_epoch: Option<i32>,
        epoch: i32,
    ) -> Result<(i32, i64), ErrorCode> {
        let end = self.streams.lock().get(&stream).map_or(0, |stream| stream.end);
        Ok(if epoch < EPOCH { (-1, -1) } else { (EPOCH, end) })
    }

    async fn delete_records(
        &self,
        _caller: &Caller,
        stream: StreamId,
        offset: i64,
    ) -> Result<i64, ErrorCode> {
        let mut streams = self.streams.lock();
        let stream = streams.entry(stream).or_default();
        let offset = if offset == -1 { stream.end } else { offset };
        if offset > stream.end {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        stream.start = stream.start.max(offset);
        Ok(stream.start)
    }

    fn leader_epoch(&self, stream: StreamId) -> i32 {
        assert!(self.catalog.topic_of_any_tenant(stream.topic).is_some());
        EPOCH
    }

    async fn stored_bytes(&self, _caller: &Caller, streams: &[StreamId]) -> Vec<u64> {
        let known = self.streams.lock();
        let size = |stream: &StreamId| {
            let batches = known.get(stream).into_iter().flat_map(|stream| &stream.batches);
            batches.map(|(_, batch)| batch.len() as u64).sum()
        };
        streams.iter().map(size).collect()
    }

    async fn join_group(
        &self,
        caller: &Caller,
        _version: i16,
        request: JoinGroupRequest,
    ) -> JoinGroupResponse {
        assert_ne!(request.group_id, PANIC_GROUP, "as the test asked for");
        self.groups.lock().entry((caller.tenant, request.group_id)).or_default();
        JoinGroupResponse {
            generation_id: 1,
            protocol_name: None,
            skip_assignment: true,
            member_id: "member".into(),
            leader: "member".into(),
            ..Default::default()
        }
    }

    async fn sync_group(&self, _caller: &Caller, request: SyncGroupRequest) -> SyncGroupResponse {
        let assignment = request.assignments.into_iter().next().map(|a| a.assignment);
        SyncGroupResponse { assignment: assignment.unwrap_or_default(), ..Default::default() }
    }

    async fn heartbeat(&self, _caller: &Caller, request: HeartbeatRequest) -> HeartbeatResponse {
        let known = request.member_id == "member";
        let code = if known { ErrorCode::None } else { ErrorCode::UnknownMemberId };
        HeartbeatResponse { error_code: code.code(), ..Default::default() }
    }

    async fn leave_group(
        &self,
        _caller: &Caller,
        _version: i16,
        request: LeaveGroupRequest,
    ) -> LeaveGroupResponse {
        let members = request.members.into_iter().map(|member| MemberResponse {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            ..Default::default()
        });
        LeaveGroupResponse { members: members.collect(), ..Default::default() }
    }

    async fn offset_commit(
        &self,
        caller: &Caller,
        _version: i16,
        request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        let mut groups = self.groups.lock();
        let commits = groups.entry((caller.tenant, request.group_id)).or_default();
        let topics = request.topics.into_iter().map(|topic| {
            let id = TopicId(topic.topic_id.0);
            let partitions = topic.partitions.into_iter().map(|partition| {
                let value = (partition.committed_offset, partition.committed_metadata);
                commits.insert((id, partition.partition_index), value);
                OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    ..Default::default()
                }
            });
            OffsetCommitResponseTopic {
                topic_id: topic.topic_id,
                partitions: partitions.collect(),
                ..Default::default()
            }
        });
        OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
    }

    async fn offset_fetch(
        &self,
        caller: &Caller,
        request: OffsetFetchRequest,
    ) -> OffsetFetchResponse {
        let all = self.groups.lock();
        let none = Commits::new();
        let groups = request.groups.into_iter().map(|group| {
            let commits = all.get(&(caller.tenant, group.group_id.clone())).unwrap_or(&none);
            let asked: Vec<(TopicId, i32)> = match &group.topics {
                None => commits.keys().copied().collect(),
                Some(topics) => topics
                    .iter()
                    .flat_map(|t| t.partition_indexes.iter().map(|i| (TopicId(t.topic_id.0), *i)))
                    .collect(),
            };
            let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
            for (id, index) in asked {
                let found = commits.get(&(id, index)).cloned();
                let (offset, metadata) = found.unwrap_or((-1, Some(Str::default())));
                let partition = OffsetFetchResponsePartitions {
                    partition_index: index,
                    committed_offset: offset,
                    metadata,
                    ..Default::default()
                };
                match topics.iter_mut().find(|topic| topic.topic_id.0 == id.0) {
                    Some(topic) => topic.partitions.push(partition),
                    None => topics.push(OffsetFetchResponseTopics {
                        topic_id: Uuid(id.0),
                        partitions: vec![partition],
                        ..Default::default()
                    }),
                }
            }
            OffsetFetchResponseGroup { group_id: group.group_id, topics, ..Default::default() }
        });
        OffsetFetchResponse { groups: groups.collect(), ..Default::default() }
    }

    async fn offset_delete(
        &self,
        caller: &Caller,
        request: DeleteOffsets,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let mut groups = self.groups.lock();
        let Some(commits) = groups.get_mut(&(caller.tenant, request.group_id)) else {
            return Err(ErrorCode::GroupIdNotFound);
        };
        for key in &request.partitions {
            commits.remove(key);
        }
        Ok(vec![ErrorCode::None; request.partitions.len()])
    }

    async fn describe_groups(
        &self,
        caller: &Caller,
        _version: i16,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse {
        let groups = self.groups.lock();
        let one = |group_id: Str| {
            let known = groups.contains_key(&(caller.tenant, group_id.clone()));
            DescribedGroup {
                error_message: Some("of version 6".into()),
                group_id,
                group_state: if known { "Stable" } else { "Dead" }.into(),
                ..Default::default()
            }
        };
        DescribeGroupsResponse {
            groups: request.groups.into_iter().map(one).collect(),
            ..Default::default()
        }
    }

    async fn list_groups(
        &self,
        caller: &Caller,
        _request: ListGroupsRequest,
    ) -> ListGroupsResponse {
        let groups = self.groups.lock();
        let own = groups.keys().filter(|(tenant, _)| *tenant == caller.tenant);
        let own = own.map(|(_, id)| ListedGroup { group_id: id.clone(), ..Default::default() });
        ListGroupsResponse { groups: own.collect(), ..Default::default() }
    }

    async fn delete_groups(
        &self,
        caller: &Caller,
        request: DeleteGroupsRequest,
    ) -> DeleteGroupsResponse {
        let mut groups = self.groups.lock();
        let results = request.groups_names.into_iter().map(|group_id| {
            let gone = groups.remove(&(caller.tenant, group_id.clone())).is_some();
            let code = if gone { ErrorCode::None } else { ErrorCode::GroupIdNotFound };
            DeletableGroupResult { group_id, error_code: code.code() }
        });
        DeleteGroupsResponse { results: results.collect(), ..Default::default() }
    }
}

#[async_trait]
impl StreamsGroups for MemoryBackend {
    /// Asks for the changelogs of the topology, and names the tenant as the member.
    async fn streams_group_heartbeat(
        &self,
        caller: &Caller,
        request: StreamsGroupHeartbeatRequest,
    ) -> StreamsBeat {
        let subtopologies = request.topology.iter().flat_map(|topology| &topology.subtopologies);
        let changelogs = subtopologies.flat_map(|subtopology| &subtopology.state_changelog_topics);
        let missing = changelogs.map(|topic| CreatableTopic {
            name: topic.name.clone(),
            num_partitions: 2,
            replication_factor: topic.replication_factor,
            ..Default::default()
        });
        let missing: Vec<CreatableTopic> = missing.collect();
        let mut answer = StreamsGroupHeartbeatResponse {
            member_id: Str::from(caller.tenant.0.to_string()),
            ..Default::default()
        };
        if !missing.is_empty() {
            answer
                .status
                .get_or_insert_default()
                .push(Status { status_code: 3, status_detail: Str::from_static("missing") });
        }
        StreamsBeat { answer, missing }
    }

    async fn streams_group_describe(
        &self,
        _caller: &Caller,
        group_ids: Vec<Str>,
    ) -> Vec<streams_group_describe_response::DescribedGroup> {
        let code =
            |id: &Str| if id.is_empty() { ErrorCode::InvalidGroupId } else { ErrorCode::None };
        let one = |group_id: Str| streams_group_describe_response::DescribedGroup {
            error_code: code(&group_id).code(),
            group_id,
            ..Default::default()
        };
        group_ids.into_iter().map(one).collect()
    }
}
