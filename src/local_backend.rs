//! The gateway's backend in a process that is writer and reader at once: calls go straight to both.
//!
//! It joins the two halves of a stream: the writer has its tail, the reader what is in the bucket.

mod consumer_groups;
mod records;
mod share_groups;
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
    Read, ReadAnswer, ReadRequest, Refused,
};
use sluice_model::{StreamId, VolumeId};
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
use sluice_writer::{AppendError, Offsets, Tail, Unverified, Writer};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use self::records::{Records, read_bucket};
use crate::low_priority::LowPriority;

/// A fetch waits so long for the bucket; then it answers without, and the read goes on by itself, so that
/// the client finds it in the cache when it asks again, and other partitions of the fetch are not held up.
const BUCKET_WAIT: Duration = Duration::from_secs(2);
/// How often a fetch looks again when what it wants moves between the tail, the bucket and other
/// segments of the bucket.
const READ_TRIES: usize = 4;
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
    /// Joins a writer and a reader that is attached to the writer's volumes.
    pub(crate) fn new(writer: Writer, reader: Reader, low: LowPriority) -> Self {
        let bucket_reads = Arc::new(Semaphore::new(BUCKET_READS));
        Self { writer, reader: Arc::new(reader), bucket_reads, low }
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

    /// Reads from the bucket, of committed records up to `stable`; nothing if that takes too long.
    async fn read_bucket(
        &self,
        volume: VolumeId,
        stream: StreamId,
        offset: i64,
        max_bytes: u64,
        stable: Option<i64>,
    ) -> Result<Records, ReadError> {
        let Ok(permit) = Arc::clone(&self.bucket_reads).try_acquire_owned() else {
            return Ok(Records::default());
        };
        let reader = Arc::clone(&self.reader);
        let read = self.low.handle().spawn(async move {
            let read = read_bucket(&reader, volume.0, stream, offset, max_bytes, stable).await;
            drop(permit);
            read
        });
        match tokio::time::timeout(BUCKET_WAIT, read).await {
            Ok(Ok(read)) => read,
            // It was aborted or has panicked, which was logged; or it takes its time.
            Ok(Err(_)) | Err(_) => Ok(Records::default()),
        }
    }

    /// Checks the epoch that a client believes in.
    fn check_epoch(&self, stream: StreamId, current: Option<i32>) -> Result<(), ErrorCode> {
        let ours = self.writer.leader_epoch(stream).ok_or(ErrorCode::NotLeaderOrFollower)?;
        compare_epochs(ours, current)
    }

    /// Records of one stream from the tail, or from the bucket.
    async fn records(
        &self,
        tail: &Tail,
        stream: StreamId,
        offset: i64,
        max_bytes: u64,
        stable: Option<i64>,
    ) -> Result<Records, ErrorCode> {
        let mut at = offset;
        for _ in 0..READ_TRIES {
            // Before the records are read: what leaves the tail after this is in the bucket.
            let aborted = match stable {
                Some(stable) if at < stable => tail.aborted_over(&(at..stable)),
                Some(_) => return Ok(Records::default()),
                None => Vec::new(),
            };
            let here = tail.read(at, max_bytes).await.map_err(|error| error.code())?;
            if let Some(chain) = here {
                return Ok(Records::new(chain, stable).with(&aborted));
            }
            match self.read_bucket(tail.volume(), stream, at, max_bytes, stable).await {
                Ok(records) => return Ok(records.with(&aborted)),
                // Retention or compaction took it between the two looks, or the tail has it again.
                Err(ReadError::NotHere) => {}
                // Nothing is left of what the bucket had from there on: the tail is next.
                Err(ReadError::Compacted { next }) => at = next,
                Err(error) => {
                    tracing::warn!(%stream, offset, %error, "cannot read from the bucket");
                    return Err(bucket_code(&error));
                }
            }
        }
        // It moves faster than we look: the client asks again.
        Err(ErrorCode::KafkaStorageError)
    }

    /// Finds each stream; none for one that is not here.
    fn find(&self, reads: &[Read]) -> Vec<Option<Tail>> {
        reads.iter().map(|read| self.writer.tail(read.stream).ok()).collect()
    }

    /// Reads all streams once, within the request's bound. As many at once as may all be answered in
    /// full, so that those in the bucket do not wait for each other.
    async fn read_all(
        &self,
        request: &ReadRequest,
        tails: &[Option<Tail>],
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        let mut left = u64::from(request.max_bytes);
        let mut nothing_yet = true;
        let mut answers = Vec::with_capacity(request.reads.len());
        let mut rest = 0;
        while rest < request.reads.len() {
            let first = rest;
            let mut wanted = 0;
            let mut wave = Vec::new();
            while rest < request.reads.len() {
                let read = &request.reads[rest];
                let sight = look(read, tails[rest].as_ref(), request.read_committed);
                // Most streams have nothing new: they cost no more than the look.
                let room = if matches!(sight, Ok(Sight::Records { .. })) { room(read) } else { 0 };
                if !wave.is_empty() && wanted + room > left {
                    break;
                }
                wanted += room;
                answers.push(match sight {
                    Ok(Sight::Records { offsets, stable }) => {
                        wave.push((rest, stable));
                        Ok(answer(offsets, Records::default(), None))
                    }
                    Ok(Sight::Nothing(answer)) => Ok(answer),
                    Err(code) => Err(code),
                });
                rest += 1;
            }
            debug_assert!(rest > first, "each wave answers something");
            // The first batch comes whole, however small the bounds are (KIP-74).
            let least = u64::from(nothing_yet);
            let reads = wave.iter().filter_map(|(index, stable)| {
                let (read, tail) = (&request.reads[*index], tails[*index].as_ref()?);
                let bytes = left.min(room(read)).max(least);
                Some(async move {
                    // A bound of no bytes reads nothing.
                    if bytes == 0 {
                        return Ok(Records::default());
                    }
                    self.records(tail, read.stream, read.offset, bytes, *stable).await
                })
            });
            let all = join_all(reads).await;
            for ((index, _), records) in wave.iter().zip(all) {
                match records {
                    Ok(records) if nothing_yet || records.chain.len() as u64 <= left => {
                        nothing_yet &= records.chain.is_empty();
                        left = left.saturating_sub(records.chain.len() as u64);
                        if let Ok(answer) = &mut answers[*index] {
                            answer.records = records.chain;
                            answer.aborted = records.aborted;
                        }
                    }
                    // There is no room any more.
                    Ok(_) => {}
                    Err(code) => answers[*index] = Err(code),
                }
            }
        }
        answers
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

fn room(read: &Read) -> u64 {
    u64::from(read.max_bytes)
}

/// A leader epoch and the offset behind its last record.
type EpochEnd = (i32, i64);

fn compare_epochs(ours: i32, current: Option<i32>) -> Result<(), ErrorCode> {
    match current {
        Some(theirs) if theirs < ours => Err(ErrorCode::FencedLeaderEpoch),
        Some(theirs) if theirs > ours => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// Where the client's log parts from ours, if it does (KIP-595). A record of an epoch that is yet to
/// come is out of range.
fn divergence(read: &Read, tail: &Tail) -> Result<Option<EpochEnd>, ErrorCode> {
    let Some(last) = read.last_fetched_epoch else { return Ok(None) };
    if last > tail.leader_epoch() {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    Ok(tail.epoch_end(last).filter(|(epoch, end)| *epoch < last || *end < read.offset))
}

/// The stream, if client and server agree on who leads it, with where their logs part if they do.
fn agreed<'a>(
    read: &Read,
    tail: Option<&'a Tail>,
) -> Result<(&'a Tail, Option<EpochEnd>), ErrorCode> {
    let tail = tail.filter(|tail| tail.is_here()).ok_or(ErrorCode::NotLeaderOrFollower)?;
    compare_epochs(tail.leader_epoch(), read.current_leader_epoch)?;
    Ok((tail, divergence(read, tail)?))
}

/// What there is of a stream for one who reads it.
enum Sight {
    /// No records: this is the answer.
    Nothing(ReadAnswer),
    /// Records from the wanted offset on, up to the last stable offset if that is a bound.
    Records { offsets: Offsets, stable: Option<i64> },
}

/// Looks at a stream without reading it.
fn look(read: &Read, tail: Option<&Tail>, committed: bool) -> Result<Sight, ErrorCode> {
    let (tail, diverging) = agreed(read, tail)?;
    // Taken before records are read: there may be more by then, which no client minds.
    let offsets = tail.offsets();
    if let Some(diverging) = diverging {
        return Ok(Sight::Nothing(answer(offsets, Records::default(), Some(diverging))));
    }
    if read.offset < offsets.log_start || read.offset > offsets.high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let stable = committed.then_some(offsets.last_stable);
    if read.offset >= stable.unwrap_or(offsets.high_watermark) {
        return Ok(Sight::Nothing(answer(offsets, Records::default(), None)));
    }
    Ok(Sight::Records { offsets, stable })
}

/// Whether an answer could be made now: enough bytes, or something that must be told at once.
fn is_ready(request: &ReadRequest, tails: &[Option<Tail>]) -> bool {
    let enough = u64::from(request.min_bytes);
    let mut bytes = 0;
    for (read, tail) in request.reads.iter().zip(tails) {
        let Ok((tail, None)) = agreed(read, tail.as_ref()) else { return true };
        let available = tail.available(read.offset, request.read_committed, enough);
        bytes += available.min(room(read).max(1));
        if bytes >= enough {
            return true;
        }
    }
    bytes >= enough
}

const NOTHING: OffsetFound = OffsetFound { offset: -1, timestamp: -1, leader_epoch: -1 };

fn answer(offsets: Offsets, records: Records, diverging: Option<(i32, i64)>) -> ReadAnswer {
    ReadAnswer {
        high_watermark: offsets.high_watermark,
        last_stable: offsets.last_stable,
        log_start: offsets.log_start,
        records: records.chain,
        aborted: records.aborted,
        diverging,
    }
}

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
        let mut tails = self.find(&request.reads);
        if !request.max_wait.is_zero() && !is_ready(&request, &tails) {
            let deadline = Instant::now() + request.max_wait;
            let waiter = Tail::waiter(tails.iter().flatten());
            // Looked at again after the waiter is in place, so that nothing is missed between.
            while !is_ready(&request, &tails) {
                if tokio::time::timeout_at(deadline, waiter.changed()).await.is_err() {
                    break;
                }
            }
            drop(waiter);
            if tails.iter().flatten().any(|tail| !tail.is_here()) {
                tails = self.find(&request.reads);
            }
        }
        self.read_all(&request, &tails).await
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

    fn stored_bytes(&self, stream: StreamId) -> u64 {
        self.writer.stream_bytes(stream)
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
