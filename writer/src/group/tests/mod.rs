//! The coordinator as the gateway uses it, on paused time and a log in memory.

mod admin;
mod consumers;
mod durability;
mod members;
mod offsets;
mod replay;
mod retention;
mod streams;
pub(crate) mod topic_table;
mod transactional;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{Clock, Entropy, GroupConfigs, GroupSettings, TenantId, TopicId};
use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;
use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::list_groups_request::ListGroupsRequest;
use sluice_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sluice_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use sluice_wire::messages::offset_fetch_response::OffsetFetchResponseGroup;
use sluice_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str, Uuid};
use tokio::sync::Semaphore;

use self::topic_table::TopicTable;
use super::log::{CoordinatorLog, CoordinatorState, LogError, LogRecord};
use super::{GroupCaller, GroupConfig, GroupCoordinator, Topics};

const TENANT: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);
const TOPIC: TopicId = TopicId([1; 16]);

/// Wall time that tests set, and ids by counting.
#[derive(Default)]
struct Seams {
    wall_ms: AtomicI64,
    counter: AtomicU64,
}

impl Clock for Seams {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::Relaxed)
    }
}

impl Entropy for Seams {
    fn fill(&self, out: &mut [u8]) {
        let count = self.counter.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let len = out.len().min(8);
        out[..len].copy_from_slice(&count[..len]);
    }
}

/// A log in memory that applies as the real one does, and can be slow or fail.
struct MemoryLog {
    state: Weak<GroupCoordinator>,
    records: Mutex<Vec<LogRecord>>,
    error: Mutex<Option<LogError>>,
    /// An append takes one; tests that stall the log take them away.
    turns: Semaphore,
    appends: AtomicUsize,
}

impl MemoryLog {
    fn fail(&self, error: Option<LogError>) {
        *self.error.lock() = error;
    }

    fn stall(&self) {
        self.turns.forget_permits(usize::MAX);
    }

    fn resume(&self) {
        self.turns.add_permits(1_000_000);
    }

    fn appends(&self) -> usize {
        self.appends.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl CoordinatorLog for MemoryLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<(), LogError> {
        self.turns.acquire().await.expect("never closed").forget();
        self.appends.fetch_add(1, Ordering::Relaxed);
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

/// A coordinator with its log and clock.
struct Rig {
    groups: Arc<GroupCoordinator>,
    log: Arc<MemoryLog>,
    seams: Arc<Seams>,
    topics: Arc<TopicTable>,
    config: GroupConfig,
}

impl Rig {
    fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    fn with(config: GroupConfig) -> Self {
        let rig = Self::loading(config, Arc::default());
        rig.groups.start(Arc::clone(&rig.log) as Arc<dyn CoordinatorLog>);
        rig
    }

    fn loading(config: GroupConfig, seams: Arc<Seams>) -> Self {
        let topics = Arc::new(TopicTable::default());
        topics.set(TENANT, "topic", TOPIC, 4);
        let groups = Arc::new(GroupCoordinator::new(
            config.clone(),
            Arc::clone(&seams) as Arc<dyn Clock>,
            Arc::clone(&seams) as Arc<dyn Entropy>,
            Arc::clone(&topics) as Arc<dyn Topics>,
            Arc::clone(&topics) as Arc<dyn GroupConfigs>,
        ));
        let log = Arc::new(MemoryLog {
            state: Arc::downgrade(&groups),
            records: Mutex::default(),
            error: Mutex::default(),
            turns: Semaphore::new(1_000_000),
            appends: AtomicUsize::new(0),
        });
        Self { groups, log, seams, topics, config }
    }

    /// Another coordinator on the same log, as after a restart.
    fn restarted(&self) -> Self {
        let rig = Self::loading(self.config.clone(), Arc::clone(&self.seams));
        for record in self.log.records.lock().iter() {
            rig.groups.apply(&record.key, record.value.as_deref()).unwrap();
            rig.log.records.lock().push(record.clone());
        }
        rig.groups.start(Arc::clone(&rig.log) as Arc<dyn CoordinatorLog>);
        rig
    }

    fn snapshot(&self) -> BTreeMap<Bytes, Bytes> {
        snapshot(&self.groups)
    }

    async fn join(&self, group: &str, member_id: &str) -> JoinGroupResponse {
        self.groups.join_group(&caller(), 9, join_request(group, member_id)).await
    }

    /// Joins as KIP-394 wants it.
    async fn join_twice(&self, group: &str) -> JoinGroupResponse {
        let first = self.join(group, "").await;
        assert_eq!(first.error_code, ErrorCode::MemberIdRequired.code());
        self.join(group, &first.member_id).await
    }

    async fn sync(
        &self,
        group: &str,
        joined: &JoinGroupResponse,
        given: &[(&str, &'static str)],
    ) -> SyncGroupResponse {
        self.groups.sync_group(&caller(), sync_request(group, joined, given)).await
    }

    /// A group of one member that is stable.
    async fn stable(&self, group: &str) -> JoinGroupResponse {
        let joined = self.join_twice(group).await;
        assert_eq!(joined.error_code, 0);
        let synced = self.sync(group, &joined, &[(&joined.member_id, "all")]).await;
        assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
        joined
    }

    async fn heartbeat(&self, group: &str, joined: &JoinGroupResponse) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: Str::from(group),
            generation_id: joined.generation_id,
            member_id: joined.member_id.clone(),
            ..Default::default()
        };
        ErrorCode::from_code(self.groups.heartbeat(&caller(), request).await.error_code)
    }

    /// Commits one offset as a consumer outside of the group's membership.
    async fn commit(&self, group: &str, partition: i32, offset: i64) -> ErrorCode {
        self.commit_as(&caller(), commit_request(group, &[(partition, offset)])).await
    }

    async fn commit_as(&self, caller: &GroupCaller, request: OffsetCommitRequest) -> ErrorCode {
        let answer = self.groups.offset_commit(caller, 10, request).await;
        ErrorCode::from_code(answer.topics[0].partitions[0].error_code)
    }

    async fn fetch_all(&self, group: &str) -> OffsetFetchResponseGroup {
        self.fetch(&caller(), group, None, false).await
    }

    async fn fetch(
        &self,
        caller: &GroupCaller,
        group: &str,
        partitions: Option<&[i32]>,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let topics = partitions.map(|partitions| {
            vec![OffsetFetchRequestTopics {
                name: Str::from("topic"),
                topic_id: Uuid(TOPIC.0),
                partition_indexes: partitions.to_vec(),
            }]
        });
        let group_id = Str::from(group);
        let wanted = OffsetFetchRequestGroup { group_id, topics, ..Default::default() };
        let request =
            OffsetFetchRequest { groups: vec![wanted], require_stable, ..Default::default() };
        let mut answer = self.groups.offset_fetch(caller, request).await;
        answer.groups.remove(0)
    }

    /// The committed offset of partition 0, or -1.
    async fn offset(&self, group: &str) -> i64 {
        let found = self.fetch(&caller(), group, Some(&[0]), false).await;
        found.topics[0].partitions[0].committed_offset
    }
}

fn snapshot(groups: &GroupCoordinator) -> BTreeMap<Bytes, Bytes> {
    let mut pairs = BTreeMap::new();
    groups.snapshot(&mut |key, value| {
        assert!(pairs.insert(key, value).is_none(), "a key is emitted once");
    });
    pairs
}

fn caller() -> GroupCaller {
    GroupCaller {
        tenant: TENANT,
        client_id: Str::from_static("client"),
        client_host: Str::from_static("/127.0.0.1"),
    }
}

fn other() -> GroupCaller {
    GroupCaller { tenant: OTHER, ..caller() }
}

fn join_request(group: &str, member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: Str::from(group),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: Str::from(member_id),
        protocol_type: Str::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from_static("range"),
            metadata: Bytes::from_static(b"\0\0\0\0\0\x01\0\x05topic\xff\xff\xff\xff"),
        }],
        ..Default::default()
    }
}

fn sync_request(
    group: &str,
    joined: &JoinGroupResponse,
    given: &[(&str, &'static str)],
) -> SyncGroupRequest {
    let assignments = given.iter().map(|(id, assignment)| SyncGroupRequestAssignment {
        member_id: Str::from(*id),
        assignment: Bytes::from_static(assignment.as_bytes()),
    });
    SyncGroupRequest {
        group_id: Str::from(group),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        assignments: assignments.collect(),
        ..Default::default()
    }
}

fn commit_request(group: &str, offsets: &[(i32, i64)]) -> OffsetCommitRequest {
    let partitions =
        offsets.iter().map(|(partition_index, committed_offset)| OffsetCommitRequestPartition {
            partition_index: *partition_index,
            committed_offset: *committed_offset,
            committed_leader_epoch: 3,
            committed_metadata: Some(Str::from_static("note")),
        });
    OffsetCommitRequest {
        group_id: Str::from(group),
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from_static("topic"),
            topic_id: Uuid(TOPIC.0),
            partitions: partitions.collect(),
        }],
        ..Default::default()
    }
}

/// Lets everything that can run do so, and time pass.
async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}
