//! Fetch: full fetches only. Every answer has session id 0, with which a broker says that it keeps
//! no session, and clients go on naming all partitions each time (KIP-227).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use sluice_model::StreamId;
use sluice_model::topic_config::Compression;
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest};
use sluice_wire::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use sluice_wire::{Chain, ErrorCode, Uuid};

use super::resolve;
use crate::backend::{Read, ReadAnswer, ReadRequest};
use crate::context::Context;
use crate::gateway::Core;

/// Topics are named by id from this version on (KIP-516).
const IDS_FROM: i16 = 13;
/// zstd came with this version (KIP-110).
const ZSTD_FROM: i16 = 10;
/// Divergence is told from this version on (KIP-595).
const DIVERGENCE_FROM: i16 = 12;
/// Leaders are told from this version on (KIP-951).
const LEADERS_FROM: i16 = 16;
/// KAFKA_STORAGE_ERROR came with this version (KIP-112).
const STORAGE_ERROR_FROM: i16 = 6;

/// See the module.
pub(crate) async fn fetch(core: &Arc<Core>, ctx: &Context, request: FetchRequest) -> FetchResponse {
    // Epochs 0 and -1 ask for a full fetch; any other goes on with a session, and there is none.
    if !matches!(request.session_epoch, 0 | -1) {
        return FetchResponse {
            error_code: ErrorCode::FetchSessionIdNotFound.code(),
            ..Default::default()
        };
    }
    let read_committed = match request.isolation_level {
        0 => false,
        1 => true,
        _ => return unknown_isolation(ctx.version, request),
    };
    let replica = request.replica_id.max(request.replica_state.replica_id);
    let max_bytes = u32::try_from(ctx.answer_bytes).unwrap_or(u32::MAX);
    let mut reads = Vec::new();
    let mut places = Vec::new();
    let mut answer = FetchResponse::default();
    // Kafka keeps partitions, not topics: one without any is not in the answer.
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let found = resolve::by_either(core, ctx, IDS_FROM, &topic.topic, topic.topic_id);
        let zstd = found.as_ref().is_ok_and(|topic| {
            ctx.version < ZSTD_FROM && matches!(topic.config.compression, Compression::Zstd(_))
        });
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in last_of_each(topic.partitions) {
            let resolved = resolve::stream_of(&found, partition.partition);
            let is_there = resolved.is_ok();
            let checked = match resolved {
                // Only brokers fetch as replicas, and a tenant has none.
                Ok(_) if replica >= 0 => Err(ErrorCode::NotLeaderOrFollower),
                Ok(_) if zstd => Err(ErrorCode::UnsupportedCompressionType),
                other => other,
            };
            let code = match checked {
                Ok(stream) => {
                    places.push((answer.responses.len(), partitions.len()));
                    reads.push(read(stream, &partition));
                    ErrorCode::UnknownServerError
                }
                Err(code) => code,
            };
            let of = if is_there { nothing } else { unread };
            partitions.push(of(partition.partition, code));
        }
        answer.responses.push(FetchableTopicResponse {
            topic: topic.topic,
            topic_id: found.map_or(topic.topic_id, |topic| Uuid(topic.id.0)),
            partitions,
        });
    }
    if reads.is_empty() {
        return answer;
    }
    let streams: Vec<StreamId> = reads.iter().map(|read| read.stream).collect();
    let read = ReadRequest {
        // What can never be reached is not waited for; at least one byte is, if the client waits.
        min_bytes: u32::try_from(request.min_bytes).unwrap_or(0).min(max_bytes.max(1)),
        max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)),
        max_bytes,
        read_committed,
        reads,
    };
    let results = core.backend.read(&ctx.caller, read).await;
    for (((topic, partition), stream), result) in places.into_iter().zip(streams).zip(results) {
        let place = &mut answer.responses[topic].partitions[partition];
        match result {
            Ok(read) => *place = found_data(ctx, place.partition_index, read_committed, read),
            Err(code) => {
                *place = nothing(place.partition_index, downgraded(ctx.version, code));
                tell_leader(core, ctx, stream, code, place, &mut answer.node_endpoints);
            }
        }
    }
    answer
}

/// Kafka's answer to an isolation level that does not exist: the request could not be handled. Where topics have
/// names, all partitions say so.
fn unknown_isolation(version: i16, request: FetchRequest) -> FetchResponse {
    let code = ErrorCode::UnknownServerError;
    let mut answer = FetchResponse { error_code: code.code(), ..Default::default() };
    if version < IDS_FROM {
        let topics = request.topics.into_iter().map(|topic| FetchableTopicResponse {
            topic: topic.topic,
            partitions: topic.partitions.iter().map(|p| unread(p.partition, code)).collect(),
            ..Default::default()
        });
        answer.responses = topics.collect();
    }
    answer
}

/// A partition that is named again is fetched once: where it first stood, as it was last asked for.
fn last_of_each(partitions: Vec<FetchPartition>) -> Vec<FetchPartition> {
    if partitions.is_sorted_by(|one, next| one.partition < next.partition) {
        return partitions;
    }
    let mut places = HashMap::with_capacity(partitions.len());
    let mut each: Vec<FetchPartition> = Vec::with_capacity(partitions.len());
    for partition in partitions {
        match places.entry(partition.partition) {
            Entry::Occupied(place) => each[*place.get()] = partition,
            Entry::Vacant(place) => {
                place.insert(each.len());
                each.push(partition);
            }
        }
    }
    each
}

fn read(stream: StreamId, partition: &FetchPartition) -> Read {
    Read {
        stream,
        offset: partition.fetch_offset,
        max_bytes: u32::try_from(partition.partition_max_bytes).unwrap_or(0),
        current_leader_epoch: given(partition.current_leader_epoch),
        last_fetched_epoch: given(partition.last_fetched_epoch),
    }
}

/// An epoch, unless it is the -1 that stands for none.
pub(super) fn given(epoch: i32) -> Option<i32> {
    (epoch >= 0).then_some(epoch)
}

fn nothing(partition_index: i32, code: ErrorCode) -> PartitionData {
    PartitionData {
        partition_index,
        error_code: code.code(),
        high_watermark: -1,
        aborted_transactions: None,
        // Empty, not null: some clients take null for a broken answer.
        records: Some(Chain::new()),
        ..Default::default()
    }
}

/// As Kafka says it where there was no log to look at: no aborted transactions, instead of null.
fn unread(partition_index: i32, code: ErrorCode) -> PartitionData {
    PartitionData { aborted_transactions: Some(Vec::new()), ..nothing(partition_index, code) }
}

fn found_data(
    ctx: &Context,
    partition_index: i32,
    read_committed: bool,
    read: ReadAnswer,
) -> PartitionData {
    let aborted = read.aborted.into_iter();
    let aborted =
        aborted.map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset });
    let diverging = read.diverging.filter(|_| ctx.version >= DIVERGENCE_FROM);
    PartitionData {
        partition_index,
        high_watermark: read.high_watermark,
        last_stable_offset: read.last_stable,
        log_start_offset: read.log_start,
        diverging_epoch: diverging
            .map(|(epoch, end_offset)| EpochEndOffset { epoch, end_offset })
            .unwrap_or_default(),
        aborted_transactions: read_committed.then(|| aborted.collect()),
        records: Some(read.records),
        ..Default::default()
    }
}

fn downgraded(version: i16, code: ErrorCode) -> ErrorCode {
    match code {
        // Old clients do not know the code and would not try again.
        ErrorCode::KafkaStorageError if version < STORAGE_ERROR_FROM => {
            ErrorCode::NotLeaderOrFollower
        }
        other => other,
    }
}

fn tell_leader(
    core: &Core,
    ctx: &Context,
    stream: StreamId,
    code: ErrorCode,
    place: &mut PartitionData,
    endpoints: &mut Vec<NodeEndpoint>,
) {
    let moved = matches!(code, ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch);
    if ctx.version < LEADERS_FROM || !moved {
        return;
    }
    let Some((broker, leader_epoch)) = resolve::current_leader(core, stream) else { return };
    place.current_leader = LeaderIdAndEpoch { leader_id: broker.id, leader_epoch };
    if endpoints.iter().all(|endpoint| endpoint.node_id != broker.id) {
        endpoints.push(NodeEndpoint {
            node_id: broker.id,
            host: broker.host,
            port: broker.port,
            rack: broker.rack,
        });
    }
}
