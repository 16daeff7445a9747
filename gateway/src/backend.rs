//! The one trait through which handlers reach writers and readers. Requests are typed and name
//! streams by topic id; the gateway has resolved names, checked that the topics are the caller's,
//! and split nothing: the implementation routes to the owners of the volumes. In one process the
//! call is direct.
//!
//! Group requests travel as the wire's own messages (they hold no log positions), with the
//! `topic_id` fields filled in; the names beside them are ignored and given back unchanged.

mod consumer_groups;
mod share_groups;
mod streams_groups;
mod transaction_log;
mod transactions;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_model::{StreamId, TenantId, TopicId};
use sluice_wire::messages::{
    delete_groups_request::DeleteGroupsRequest, delete_groups_response::DeleteGroupsResponse,
    describe_groups_request::DescribeGroupsRequest,
    describe_groups_response::DescribeGroupsResponse, heartbeat_request::HeartbeatRequest,
    heartbeat_response::HeartbeatResponse, join_group_request::JoinGroupRequest,
    join_group_response::JoinGroupResponse, leave_group_request::LeaveGroupRequest,
    leave_group_response::LeaveGroupResponse, list_groups_request::ListGroupsRequest,
    list_groups_response::ListGroupsResponse, offset_commit_request::OffsetCommitRequest,
    offset_commit_response::OffsetCommitResponse, offset_fetch_request::OffsetFetchRequest,
    offset_fetch_response::OffsetFetchResponse, sync_group_request::SyncGroupRequest,
    sync_group_response::SyncGroupResponse,
};
use sluice_wire::{Chain, ErrorCode, Str};

pub use self::streams_groups::{StreamsBeat, StreamsGroups};
pub use self::transaction_log::{
    ActiveProducer, EndMarker, OffsetInTransaction, OffsetsInTransaction, TransactionLog,
};
pub use self::transactions::{
    AddedBy, NotAdded, Producer, ProducerIdentity, TransactionDescription, Transactions,
};
pub use consumer_groups::ConsumerGroups;
pub use share_groups::ShareGroups;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The tenant whose cluster the connection sees.
    pub tenant: TenantId,
    /// Kafka principal, such as `User:ANONYMOUS`.
    pub principal: Arc<str>,
    /// The client id that the request's header gave; empty for none.
    pub client_id: Str,
    /// The peer's address.
    pub client_host: IpAddr,
    /// The connection: a number that no other has in this gateway's life.
    pub connection: u64,
}

/// Batches to append to one stream.
#[derive(Clone, Debug)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// Whole record batches, back to back, as the producer sent them.
    pub records: Bytes,
}

/// One Produce request.
#[derive(Clone, Debug)]
pub struct AppendRequest {
    /// 0, 1 or -1. Every acknowledged append is durable; with 0 the answer is not waited for.
    pub acks: i16,
    /// How long to wait for room and for durability.
    pub timeout: Duration,
    /// Set when the producer is transactional.
    pub transactional_id: Option<Str>,
    /// What becomes of a transaction's batches in streams that were not added to it.
    pub not_added: NotAdded,
    /// In the request's order.
    pub appends: Vec<Append>,
}

/// An append that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the first record.
    pub base_offset: i64,
    /// Milliseconds since the epoch if the topic uses LogAppendTime, else -1.
    pub log_append_time_ms: i64,
    /// The stream's log start offset.
    pub log_start: i64,
}

/// Why an append was not made. Nothing of it has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Kafka's code.
    pub code: ErrorCode,
    /// For the client to read; holds nothing of another tenant.
    pub message: Option<String>,
    /// (index in the batch, reason) for the records at fault (KIP-467).
    pub record_errors: Vec<(i32, String)>,
    /// The stream's log start offset, or -1 when unknown.
    pub log_start: i64,
}

/// A position to read from.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// The stream.
    pub stream: StreamId,
    /// The first offset wanted.
    pub offset: i64,
    /// At most this many bytes, but one whole batch if nothing was read yet.
    pub max_bytes: u32,
    /// The leader epoch that the client believes in, to be fenced against.
    pub current_leader_epoch: Option<i32>,
    /// The epoch of the last record the client has, to detect divergence (KIP-595).
    pub last_fetched_epoch: Option<i32>,
}

/// One Fetch request.
#[derive(Clone, Debug)]
pub struct ReadRequest {
    /// Wait until this many bytes are there,
    pub min_bytes: u32,
    /// or this time has passed.
    pub max_wait: Duration,
    /// Over all streams, except that the first batch is always whole.
    pub max_bytes: u32,
    /// Only records below the last stable offset.
    pub read_committed: bool,
    /// In the request's order.
    pub reads: Vec<Read>,
}

/// What one stream gave.
#[derive(Clone, Debug)]
pub struct ReadAnswer {
    /// One past the last acknowledged offset.
    pub high_watermark: i64,
    /// Equal to the high watermark while no transaction is open.
    pub last_stable: i64,
    /// The first offset that exists.
    pub log_start: i64,
    /// Whole batches; the first may begin before the offset asked for.
    pub records: Chain,
    /// (producer id, first offset) of aborted transactions in `records`, for read_committed.
    pub aborted: Vec<(i64, i64)>,
    /// Set when the client's log diverges: (epoch, end offset of that epoch).
    pub diverging: Option<(i32, i64)>,
}

/// Which offset ListOffsets asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The log start (-2).
    Earliest,
    /// The high watermark (-1), or the last stable offset for read_committed.
    Latest,
    /// The offset of the record with the largest timestamp (-3).
    MaxTimestamp,
    /// The first offset that lies on the writer and not only in the bucket (-4).
    EarliestLocal,
    /// The last offset that lies in the bucket (-5).
    LatestTiered,
    /// The first record whose timestamp is at least this many ms.
    AtOrAfter(i64),
}

/// What ListOffsets answers; all -1 when no record fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetFound {
    /// The offset, or -1.
    pub offset: i64,
    /// The record's timestamp in ms, or -1.
    pub timestamp: i64,
    /// The epoch under which the record was written, or -1.
    pub leader_epoch: i32,
}

/// Offsets to forget (the OffsetDelete request, by topic id).
#[derive(Clone, Debug)]
pub struct DeleteOffsets {
    /// The group.
    pub group_id: Str,
    /// (topic id, partition) pairs.
    pub partitions: Vec<(TopicId, i32)>,
}

/// Writers and readers as the gateway sees them. Every call is safe to drop at any await: an append
/// that was already handed over may still be made.
#[async_trait]
pub trait Backend:
    ConsumerGroups + ShareGroups + StreamsGroups + TransactionLog + Transactions + Send + Sync + 'static
{
    /// Appends; answers are in the request's order. The append order of two calls is the order in
    /// which their futures were first polled.
    async fn append(
        &self,
        caller: &Caller,
        request: AppendRequest,
    ) -> Vec<Result<Appended, Refused>>;

    /// Reads, waiting for `min_bytes` as Kafka does; answers are in the request's order.
    async fn read(
        &self,
        caller: &Caller,
        request: ReadRequest,
    ) -> Vec<Result<ReadAnswer, ErrorCode>>;

    /// Finds an offset.
    async fn find_offset(
        &self,
        caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        read_committed: bool,
        query: OffsetQuery,
    ) -> Result<OffsetFound, ErrorCode>;

    /// The largest epoch not above `epoch` that has records, and its end offset; (-1, -1) when
    /// there is none.
    async fn epoch_end(
        &self,
        caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        epoch: i32,
    ) -> Result<(i32, i64), ErrorCode>;

    /// Moves the log start up to `offset` (-1: the high watermark); gives the new log start.
    async fn delete_records(
        &self,
        caller: &Caller,
        stream: StreamId,
        offset: i64,
    ) -> Result<i64, ErrorCode>;

    /// The epoch under which the stream's volume is owned, as clients see it.
    fn leader_epoch(&self, stream: StreamId) -> i32;

    /// The bytes of each stream's batches on its volume and in the bucket; 0 where nobody can say.
    async fn stored_bytes(&self, caller: &Caller, streams: &[StreamId]) -> Vec<u64>;

    /// JoinGroup.
    async fn join_group(
        &self,
        caller: &Caller,
        version: i16,
        request: JoinGroupRequest,
    ) -> JoinGroupResponse;
    /// SyncGroup.
    async fn sync_group(&self, caller: &Caller, request: SyncGroupRequest) -> SyncGroupResponse;
    /// Heartbeat.
    async fn heartbeat(&self, caller: &Caller, request: HeartbeatRequest) -> HeartbeatResponse;
    /// LeaveGroup; `version` tells the single-member form from the batch form.
    async fn leave_group(
        &self,
        caller: &Caller,
        version: i16,
        request: LeaveGroupRequest,
    ) -> LeaveGroupResponse;
    /// OffsetCommit, by topic id; `version` tells which codes the client knows.
    async fn offset_commit(
        &self,
        caller: &Caller,
        version: i16,
        request: OffsetCommitRequest,
    ) -> OffsetCommitResponse;
    /// OffsetFetch, by topic id, in the multi-group form (v8 and later) whatever the version was.
    async fn offset_fetch(
        &self,
        caller: &Caller,
        request: OffsetFetchRequest,
    ) -> OffsetFetchResponse;
    /// OffsetDelete, by topic id: the group's code, or one code a partition in the same order.
    async fn offset_delete(
        &self,
        caller: &Caller,
        request: DeleteOffsets,
    ) -> Result<Vec<ErrorCode>, ErrorCode>;
    /// DescribeGroups.
    async fn describe_groups(
        &self,
        caller: &Caller,
        version: i16,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse;
    /// ListGroups.
    async fn list_groups(&self, caller: &Caller, request: ListGroupsRequest) -> ListGroupsResponse;
    /// DeleteGroups.
    async fn delete_groups(
        &self,
        caller: &Caller,
        request: DeleteGroupsRequest,
    ) -> DeleteGroupsResponse;
}
