//! The gateway's backend in a process that is writer and reader at once: calls go straight to both.
//!
//! It joins the two halves of a stream: the writer has its tail, the reader what is in the bucket.

mod consumer_groups;
mod fetch;
mod gates;
mod records;
mod share_groups;
mod share_source;
mod streams_groups;
#[cfg(test)]
mod tests;
mod transaction_log;
mod transactions;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use sluice_format::StreamKey;
use sluice_gateway::backend::{
    Append, AppendRequest, Appended, Backend, Caller, DeleteOffsets, OffsetFound, OffsetQuery,
    ReadAnswer, ReadRequest, Refused,
};
use sluice_gateway::peers::Peers;
use sluice_model::StreamId;
use sluice_reader::{ReadError, Reader};
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
use sluice_wire::{ErrorCode, Str};
use sluice_writer::group::GroupCaller;
use sluice_writer::{AppendError, Unverified, Writer};
use tokio::sync::Semaphore;

use self::gates::Gates;
use crate::low_priority::LowPriority;

/// A lookup by time waits so long.
const LOOKUP_WAIT: Duration = Duration::from_secs(10);
/// Reads of the bucket under way at once; more are told to ask again.
const BUCKET_READS: usize = 512;

/// Writer and reader of one process.
pub(crate) struct LocalBackend {
    writer: Writer,
    reader: Arc<Reader>,
    bucket_reads: Arc<Semaphore>,
    /// Where the bucket is read.
    low: LowPriority,
    /// Other nodes, if there may be any.
    peers: Option<Arc<Peers>>,
    /// Turns of transactional producers whose coordinator is on another node.
    gates: Gates,
}

fn key_of(stream: StreamId) -> StreamKey {
    StreamKey { topic: stream.topic.0, partition: stream.partition }
}

fn group_caller(caller: &Caller) -> GroupCaller {
    GroupCaller {
        tenant: caller.tenant,
        client_id: caller.client_id.clone(),
        // Kafka shows addresses as Java prints them.
        client_host: Str::from(format!("/{}", caller.client_host)),
    }
}

fn bucket_code(error: &ReadError) -> ErrorCode {
    match error {
        ReadError::NotHere | ReadError::Compacted { .. } => ErrorCode::OffsetOutOfRange,
        ReadError::Unavailable(_) | ReadError::Corrupt { .. } => ErrorCode::KafkaStorageError,
    }
}

fn refused(error: AppendError, log_start: i64) -> Refused {
    let code = error.code();
    let message = Some(error.to_string());
    let record_errors = match error {
        AppendError::Invalid { records, .. } => records,
        AppendError::NotOwner | AppendError::Sequence(_) | AppendError::TimedOut => Vec::new(),
    };
    Refused { code, message, record_errors, log_start }
}

impl LocalBackend {
    /// Joins a writer and a reader that is attached to the writer's volumes. `peers` has the coordinators that are
    /// not here.
    pub(crate) fn new(
        writer: Writer,
        reader: Arc<Reader>,
        low: LowPriority,
        peers: Option<Arc<Peers>>,
    ) -> Self {
        let bucket_reads = Arc::new(Semaphore::new(BUCKET_READS));
        Self { writer, reader, bucket_reads, low, peers, gates: Gates::default() }
    }

    /// The writer.
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    async fn append_one(
        &self,
        append: &Append,
        request: &AppendRequest,
    ) -> Result<Appended, Refused> {
        let done = self.writer.append(append.stream, &append.records, request.timeout).await;
        self.appended(append.stream, done)
    }

    async fn append_vouched(
        &self,
        append: &Append,
        request: &AppendRequest,
        voucher: Unverified,
    ) -> Result<Appended, Refused> {
        let (stream, records) = (append.stream, &append.records);
        let done = self.writer.append_verified(stream, records, request.timeout, voucher).await;
        self.appended(stream, done)
    }

    fn appended(
        &self,
        stream: StreamId,
        done: Result<sluice_writer::Appended, AppendError>,
    ) -> Result<Appended, Refused> {
        let log_start = self.log_start(stream);
        match done {
            Ok(appended) => Ok(Appended {
                base_offset: appended.base_offset,
                log_append_time_ms: appended.log_append_time_ms,
                log_start,
            }),
            Err(error) => Err(refused(error, log_start)),
        }
    }

    fn log_start(&self, stream: StreamId) -> i64 {
        self.writer.offsets(stream).map_or(-1, |offsets| offsets.log_start)
    }

    /// Checks the epoch that a client believes in.
    fn check_epoch(&self, stream: StreamId, current: Option<i32>) -> Result<(), ErrorCode> {
        let ours = self.writer.leader_epoch(stream).ok_or(ErrorCode::NotLeaderOrFollower)?;
        compare_epochs(ours, current)
    }

    async fn by_timestamp(
        &self,
        stream: StreamId,
        timestamp: i64,
    ) -> Result<OffsetFound, ErrorCode> {
        let volume = self.writer.volume_of(stream).map_err(|error| error.code())?.0;
        let from = self.writer.offsets(stream).map_err(|error| error.code())?.log_start;
        let in_bucket = self.reader.find_timestamp(volume, key_of(stream), timestamp, from);
        let in_bucket = tokio::time::timeout(LOOKUP_WAIT, in_bucket)
            .await
            .map_err(|_| ErrorCode::RequestTimedOut)?
            .map_err(|error| bucket_code(&error))?;
        let found = match in_bucket.map(|found| (found.offset, found.timestamp_ms)) {
            Some(found) => Some(found),
            None => self
                .writer
                .find_timestamp(stream, timestamp)
                .await
                .map_err(|error| error.code())?
                .map(|found| (found.offset, found.timestamp_ms)),
        };
        Ok(found.map_or(NOTHING, |(offset, timestamp)| OffsetFound {
            offset,
            timestamp,
            leader_epoch: self.writer.epoch_of(stream, offset),
        }))
    }

    async fn max_timestamp(&self, stream: StreamId) -> Result<OffsetFound, ErrorCode> {
        let volume = self.writer.volume_of(stream).map_err(|error| error.code())?.0;
        let in_bucket = self.reader.max_timestamp(volume, key_of(stream));
        let in_tail = self.writer.find_max_timestamp(stream).await.map_err(|e| e.code())?;
        match (in_bucket, in_tail) {
            // The first record with the largest timestamp: the bucket's is older if they are equal.
            (Some(bucket), tail) if tail.is_none_or(|tail| bucket >= tail.timestamp_ms) => {
                self.by_timestamp(stream, bucket).await
            }
            (_, Some(tail)) => Ok(OffsetFound {
                offset: tail.offset,
                timestamp: tail.timestamp_ms,
                leader_epoch: self.writer.epoch_of(stream, tail.offset),
            }),
            (_, None) => Ok(NOTHING),
        }
    }
}

fn compare_epochs(ours: i32, current: Option<i32>) -> Result<(), ErrorCode> {
    match current {
        Some(theirs) if theirs < ours => Err(ErrorCode::FencedLeaderEpoch),
        Some(theirs) if theirs > ours => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

const NOTHING: OffsetFound = OffsetFound { offset: -1, timestamp: -1, leader_epoch: -1 };

#[async_trait]
impl Backend for LocalBackend {
    async fn append(
        &self,
        caller: &Caller,
        request: AppendRequest,
    ) -> Vec<Result<Appended, Refused>> {
        if let Some(transactional_id) = &request.transactional_id {
            return self.append_in_transaction(caller, &request, transactional_id).await;
        }
        join_all(request.appends.iter().map(|append| self.append_one(append, &request))).await
    }

    async fn read(
        &self,
        _caller: &Caller,
        request: ReadRequest,
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        self.fetch(&request).await
    }

    async fn find_offset(
        &self,
        _caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        read_committed: bool,
        query: OffsetQuery,
    ) -> Result<OffsetFound, ErrorCode> {
        self.check_epoch(stream, current_leader_epoch)?;
        let offsets = self.writer.offsets(stream).map_err(|error| error.code())?;
        let now = self.writer.leader_epoch(stream).unwrap_or(-1);
        let at = |offset: i64, epoch_at: i64| OffsetFound {
            offset,
            timestamp: -1,
            leader_epoch: match self.writer.epoch_of(stream, epoch_at) {
                // What is written there next will be of this epoch.
                -1 if epoch_at >= offsets.high_watermark => now,
                known => known,
            },
        };
        let end = if read_committed { offsets.last_stable } else { offsets.high_watermark };
        // What is not yet to be seen is as if it were not there.
        let seen = |found: OffsetFound| if found.offset < end { found } else { NOTHING };
        match query {
            OffsetQuery::Earliest => Ok(at(offsets.log_start, offsets.log_start)),
            OffsetQuery::Latest => {
                Ok(OffsetFound { offset: end, timestamp: -1, leader_epoch: now })
            }
            OffsetQuery::EarliestLocal => {
                let local = offsets.tail_start.max(offsets.log_start);
                Ok(at(local, local))
            }
            OffsetQuery::LatestTiered => match offsets.tail_start.checked_sub(1) {
                Some(last) if last >= offsets.log_start => Ok(seen(at(last, last))),
                _ => Ok(NOTHING),
            },
            OffsetQuery::MaxTimestamp => self.max_timestamp(stream).await.map(seen),
            OffsetQuery::AtOrAfter(timestamp) => {
                self.by_timestamp(stream, timestamp).await.map(seen)
            }
        }
    }

    async fn epoch_end(
        &self,
        _caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        epoch: i32,
    ) -> Result<(i32, i64), ErrorCode> {
        self.check_epoch(stream, current_leader_epoch)?;
        let found = self.writer.epoch_end(stream, epoch).map_err(|error| error.code())?;
        Ok(found.unwrap_or((-1, -1)))
    }

    async fn delete_records(
        &self,
        _caller: &Caller,
        stream: StreamId,
        offset: i64,
    ) -> Result<i64, ErrorCode> {
        self.writer.delete_records(stream, offset).await.map_err(|error| error.code())
    }

    fn leader_epoch(&self, stream: StreamId) -> i32 {
        self.writer.leader_epoch(stream).unwrap_or(-1)
    }

    async fn stored_bytes(&self, _caller: &Caller, streams: &[StreamId]) -> Vec<u64> {
        streams.iter().map(|stream| self.writer.stream_bytes(*stream)).collect()
    }

    async fn join_group(
        &self,
        caller: &Caller,
        version: i16,
        request: JoinGroupRequest,
    ) -> JoinGroupResponse {
        self.writer.groups().join_group(&group_caller(caller), version, request).await
    }

    async fn sync_group(&self, caller: &Caller, request: SyncGroupRequest) -> SyncGroupResponse {
        self.writer.groups().sync_group(&group_caller(caller), request).await
    }

    async fn heartbeat(&self, caller: &Caller, request: HeartbeatRequest) -> HeartbeatResponse {
        self.writer.groups().heartbeat(&group_caller(caller), request).await
    }

    async fn leave_group(
        &self,
        caller: &Caller,
        version: i16,
        request: LeaveGroupRequest,
    ) -> LeaveGroupResponse {
        self.writer.groups().leave_group(&group_caller(caller), version, request).await
    }

    async fn offset_commit(
        &self,
        caller: &Caller,
        version: i16,
        request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        self.writer.groups().offset_commit(&group_caller(caller), version, request).await
    }

    async fn offset_fetch(
        &self,
        caller: &Caller,
        request: OffsetFetchRequest,
    ) -> OffsetFetchResponse {
        self.writer.groups().offset_fetch(&group_caller(caller), request).await
    }

    async fn offset_delete(
        &self,
        caller: &Caller,
        request: DeleteOffsets,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let DeleteOffsets { group_id, partitions } = request;
        self.writer.groups().offset_delete(&group_caller(caller), &group_id, &partitions).await
    }

    async fn describe_groups(
        &self,
        caller: &Caller,
        version: i16,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse {
        self.writer.groups().describe_groups(&group_caller(caller), version, request).await
    }

    async fn list_groups(&self, caller: &Caller, request: ListGroupsRequest) -> ListGroupsResponse {
        self.writer.groups().list_groups(&group_caller(caller), request).await
    }

    async fn delete_groups(
        &self,
        caller: &Caller,
        request: DeleteGroupsRequest,
    ) -> DeleteGroupsResponse {
        self.forget_share_groups(caller, &request).await;
        self.writer.groups().delete_groups(&group_caller(caller), request).await
    }
}
