//! Fetch: full ones, and those that go on with a session (KIP-227, see [`crate::fetch_session`]).

use std::sync::Arc;
use std::time::Duration;

use sluice_catalog::Topic;
use sluice_model::StreamId;
use sluice_model::topic_config::Compression;
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest};
use sluice_wire::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchResponse, FetchableTopicResponse, LeaderIdAndEpoch,
    NodeEndpoint, PartitionData,
};
use sluice_wire::{Chain, ErrorCode};

use super::resolve;
use crate::backend::{Read, ReadAnswer, ReadRequest};
use crate::context::Context;
use crate::fetch_session::{TopicKey, Wanted};
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
pub(crate) async fn fetch(
    core: &Arc<Core>,
    ctx: &Context,
    mut request: FetchRequest,
) -> FetchResponse {
    let read_committed = match request.isolation_level {
        0 => false,
        1 => true,
        _ => return unknown_isolation(ctx.version, request),
    };
    let session = &ctx.connected.fetch_session;
    let begun = match session.begin(&core.fetch_sessions, &mut request, ctx.version >= IDS_FROM) {
        Ok(begun) => begun,
        Err(code) => return FetchResponse { error_code: code.code(), ..Default::default() },
    };
    let replica = request.replica_id.max(request.replica_state.replica_id);
    let max_bytes = u32::try_from(ctx.answer_bytes).unwrap_or(u32::MAX);
    let mut reads = Vec::new();
    let mut places = Vec::new();
    let mut answers: Vec<(TopicKey, PartitionData)> = Vec::with_capacity(begun.wanted.len());
    let mut topics = TopicsOfOne::default();
    for Wanted { topic, partition } in &begun.wanted {
        let found = topics.find(core, ctx, topic);
        let resolved = resolve::stream_of(&found.topic, partition.partition);
        let is_there = resolved.is_ok();
        let checked = match resolved {
            // Only brokers fetch as replicas, and a tenant has none.
            Ok(_) if replica >= 0 => Err(ErrorCode::NotLeaderOrFollower),
            Ok(_) if found.is_beyond => Err(ErrorCode::UnsupportedCompressionType),
            other => other,
        };
        let code = match checked {
            Ok(stream) => {
                places.push(answers.len());
                reads.push(read(stream, partition));
                ErrorCode::UnknownServerError
            }
            Err(code) => code,
        };
        let of = if is_there { nothing } else { unread };
        answers.push((topic.clone(), of(partition.partition, code)));
    }
    let mut answer = FetchResponse::default();
    if !reads.is_empty() {
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
        for ((place, stream), result) in places.into_iter().zip(streams).zip(results) {
            let place = &mut answers[place].1;
            match result {
                Ok(read) => *place = found_data(ctx, place.partition_index, read_committed, read),
                Err(code) => {
                    *place = nothing(place.partition_index, downgraded(ctx.version, code));
                    tell_leader(core, ctx, stream, code, place, &mut answer.node_endpoints);
                }
            }
        }
    }
    answer.session_id = session.finish(&begun, &mut answers);
    answer.responses = by_topic(answers);
    answer
}

/// The topic that was found last: partitions of one topic come one after the other.
#[derive(Default)]
struct TopicsOfOne(Option<(TopicKey, FoundTopic)>);

struct FoundTopic {
    topic: Result<Arc<Topic>, ErrorCode>,
    /// It is compressed in a way that the client cannot know.
    is_beyond: bool,
}

impl TopicsOfOne {
    fn find(&mut self, core: &Core, ctx: &Context, key: &TopicKey) -> &FoundTopic {
        let known = self.0.take_if(|(known, _)| known == key);
        let found = known.unwrap_or_else(|| {
            let topic = resolve::by_either(core, ctx, IDS_FROM, &key.name, key.id);
            let is_beyond = topic.as_ref().is_ok_and(|topic| {
                ctx.version < ZSTD_FROM && matches!(topic.config.compression, Compression::Zstd(_))
            });
            (key.clone(), FoundTopic { topic, is_beyond })
        });
        &self.0.insert(found).1
    }
}

/// As an answer has them: each topic with those of its partitions that follow each other.
fn by_topic(answers: Vec<(TopicKey, PartitionData)>) -> Vec<FetchableTopicResponse> {
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for (key, data) in answers {
        match topics.last_mut().filter(|last| last.topic == key.name && last.topic_id == key.id) {
            Some(last) => last.partitions.push(data),
            None => topics.push(FetchableTopicResponse {
                topic: key.name,
                topic_id: key.id,
                partitions: vec![data],
            }),
        }
    }
    topics
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
    let Some((broker, leader_epoch)) = resolve::current_leader(core, ctx, stream) else { return };
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
