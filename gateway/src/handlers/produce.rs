//! Produce: the tenant's partitions, Kafka's checks that depend on the request's version, and the
//! hand-over. Everything about the batches themselves is the writer's to check.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_model::{StreamId, topic_name};
use sluice_wire::messages::produce_request::{PartitionProduceData, ProduceRequest};
use sluice_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    ProduceResponse, TopicProduceResponse,
};
use sluice_wire::{ErrorCode, Str, Uuid};

use super::resolve;
use crate::backend::{Append, AppendRequest, Appended, NotAdded, Refused};
use crate::context::{Context, Origin};
use crate::dispatch::{self, Outcome};
use crate::failure::FirstError;
use crate::gateway::Core;
use crate::unsettled::Numbered;

/// Topics are named by id from this version on (KIP-516).
const IDS_FROM: i16 = 13;
/// zstd came with this version (KIP-110).
const ZSTD_FROM: i16 = 7;
/// TRANSACTION_ABORTABLE is known from this version on, and writing to a partition adds it to the
/// transaction from the other (KIP-890).
const ABORTABLE_FROM: i16 = 11;
/// See [`ABORTABLE_FROM`].
const ADDS_FROM: i16 = 12;
/// Leaders are told from this version on (KIP-951).
const LEADERS_FROM: i16 = 10;

/// See the module. The append is handed over before the first time this future is pending, so that
/// the order of a connection's requests is the order of its appends.
pub(crate) async fn produce(
    core: &Arc<Core>,
    ctx: &Context,
    request: ProduceRequest,
) -> Outcome<ProduceResponse> {
    let acks = request.acks;
    let mut appends = Vec::new();
    let mut waiting: Vec<(StreamId, Option<Numbered>)> = Vec::new();
    // Where each append's answer goes: (topic, partition) positions in the answer.
    let mut places = Vec::new();
    let mut answer = ProduceResponse::default();
    // Kafka keeps partitions, not topics: one without any is not in the answer.
    for topic in request.topic_data.into_iter().filter(|topic| !topic.partition_data.is_empty()) {
        let found = resolve::by_either(core, ctx, IDS_FROM, &topic.name, topic.topic_id);
        let internal = found.as_ref().is_ok_and(|topic| topic_name::is_internal(&topic.name));
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for partition in topic.partition_data {
            let checked = resolve::stream_of(&found, partition.index)
                .map_err(|code| (code, None))
                .and_then(|stream| {
                    if !(-1..=1).contains(&acks) {
                        return Err((ErrorCode::InvalidRequiredAcks, None));
                    }
                    if internal {
                        return Err((ErrorCode::InvalidTopicException, None));
                    }
                    let records = check_records(ctx.version, &partition)?;
                    if is_transactional(&records) && request.transactional_id.is_none() {
                        return Err((ErrorCode::TransactionalIdAuthorizationFailed, None));
                    }
                    Ok((stream, records))
                });
            match checked {
                Ok((stream, records)) => {
                    places.push((answer.responses.len(), partitions.len()));
                    // A node's requests are of many clients, which it sees to itself.
                    let is_client = ctx.origin == Origin::Client;
                    let numbered = Numbered::of(stream, &records).filter(|_| is_client);
                    if let Some(batch) = numbered {
                        ctx.connected.unsettled.begin(batch);
                    }
                    waiting.push((stream, numbered));
                    appends.push(Append { stream, records });
                    partitions.push(refused(partition.index, ErrorCode::UnknownServerError, None));
                }
                Err((code, message)) => {
                    partitions.push(refused(partition.index, code, message.map(Str::from_static)));
                }
            }
        }
        answer.responses.push(TopicProduceResponse {
            name: topic.name,
            topic_id: found.map_or(topic.topic_id, |topic| Uuid(topic.id.0)),
            partition_responses: partitions,
        });
    }
    if !appends.is_empty() {
        let append = AppendRequest {
            acks,
            timeout: Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0)),
            transactional_id: request.transactional_id,
            not_added: match ctx.client_version {
                ADDS_FROM.. => NotAdded::Adds,
                ABORTABLE_FROM.. => NotAdded::Abortable,
                _ => NotAdded::Invalid,
            },
            appends,
        };
        let results = core.backend.append(&ctx.caller, append).await;
        for (((topic, partition), (stream, numbered)), result) in
            places.into_iter().zip(waiting).zip(results)
        {
            let place = &mut answer.responses[topic].partition_responses[partition];
            let settle = |error| match numbered {
                Some(batch) => ctx.connected.unsettled.settle(batch, error),
                None => error,
            };
            match result {
                Ok(appended) => {
                    settle(None);
                    *place = accepted(place.index, appended);
                }
                Err(mut why) => {
                    let told = settle(Some(why.code)).unwrap_or(why.code);
                    if told != why.code {
                        (why.code, why.message) = (told, None);
                    }
                    *place = of_refusal(place.index, why);
                    tell_leader(core, ctx, stream, place, &mut answer.node_endpoints);
                }
            }
        }
    }
    if acks != 0 {
        return Outcome::Answer(answer);
    }
    match answer.first_error() {
        0 => Outcome::Silent,
        // The producer expects no answer; Kafka lets it notice by closing the connection.
        _ => Outcome::Close(dispatch::Refused::AppendFailed),
    }
}

/// Kafka's `ProduceRequest.validateRecords`: one whole batch of magic 2, compressed as the version
/// allows. What is wrong inside it is left to the writer.
fn check_records(
    version: i16,
    partition: &PartitionProduceData,
) -> Result<Bytes, (ErrorCode, Option<&'static str>)> {
    let records = match &partition.records {
        Some(records) if !records.is_empty() => records.to_bytes(),
        _ => {
            let why = "a produce request must have one record batch per partition";
            return Err((ErrorCode::InvalidRecord, Some(why)));
        }
    };
    let length = records.get(8..12).and_then(|length| length.first_chunk::<4>());
    let whole = length.map(|length| i64::from(i32::from_be_bytes(*length)) + 12);
    let magic = records.get(16).map(|magic| magic.cast_signed());
    if whole.is_some_and(|whole| whole < 26) || magic.is_some_and(|magic| !(0..=2).contains(&magic))
    {
        return Err((ErrorCode::CorruptMessage, Some("no record batch is like this")));
    }
    if magic.is_none() || whole.is_none_or(|whole| whole > records.len() as i64) {
        let why = "a produce request must have one whole record batch per partition";
        return Err((ErrorCode::InvalidRecord, Some(why)));
    }
    if magic != Some(2) {
        let why = "a produce request may only have record batches of magic 2";
        return Err((ErrorCode::InvalidRecord, Some(why)));
    }
    if whole.is_some_and(|whole| whole < records.len() as i64) {
        let why = "a produce request may only have one record batch per partition";
        return Err((ErrorCode::InvalidRecord, Some(why)));
    }
    const ZSTD: u8 = 4;
    if version < ZSTD_FROM && records.get(22).is_some_and(|attributes| attributes & 7 == ZSTD) {
        let why = "a produce request below version 7 may not use zstd";
        return Err((ErrorCode::UnsupportedCompressionType, Some(why)));
    }
    Ok(records)
}

/// Whether a batch says that it belongs to a transaction.
fn is_transactional(records: &Bytes) -> bool {
    records.get(22).is_some_and(|attributes| attributes & 0x10 != 0)
}

fn accepted(index: i32, appended: Appended) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        base_offset: appended.base_offset,
        log_append_time_ms: appended.log_append_time_ms,
        log_start_offset: appended.log_start,
        ..Default::default()
    }
}

fn refused(index: i32, code: ErrorCode, message: Option<Str>) -> PartitionProduceResponse {
    PartitionProduceResponse {
        index,
        error_code: code.code(),
        base_offset: -1,
        error_message: message,
        ..Default::default()
    }
}

fn of_refusal(index: i32, why: Refused) -> PartitionProduceResponse {
    let record_errors =
        why.record_errors.into_iter().map(|(index, reason)| BatchIndexAndErrorMessage {
            batch_index: index,
            batch_index_error_message: Some(reason.into()),
        });
    // Of these Kafka answers without a look at the log.
    let log_start_offset = match why.code {
        ErrorCode::CorruptMessage | ErrorCode::MessageTooLarge => -1,
        _ => why.log_start,
    };
    PartitionProduceResponse {
        log_start_offset,
        record_errors: record_errors.collect(),
        ..refused(index, why.code, why.message.map(Str::from))
    }
}

fn tell_leader(
    core: &Core,
    ctx: &Context,
    stream: StreamId,
    place: &mut PartitionProduceResponse,
    endpoints: &mut Vec<NodeEndpoint>,
) {
    if ctx.version < LEADERS_FROM || place.error_code != ErrorCode::NotLeaderOrFollower.code() {
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
