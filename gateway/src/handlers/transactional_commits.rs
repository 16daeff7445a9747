//! TxnOffsetCommit: offsets of a consumer that a producer's transaction commits (KIP-98, KIP-447).

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_model::TopicId;
use sluice_wire::ErrorCode;
use sluice_wire::messages::txn_offset_commit_request::TxnOffsetCommitRequest;
use sluice_wire::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};

use super::resolve;
use crate::backend::{NotAdded, OffsetInTransaction, OffsetsInTransaction, Producer};
use crate::context::Context;
use crate::gateway::Core;

/// With this version clients came to know TRANSACTION_ABORTABLE (KIP-890).
const ABORTABLE: i16 = 4;
/// From this version on the group is added to the transaction (KIP-890).
const ADDS_FROM: i16 = 5;
/// Producers before this version end when they are told that the coordinator loads (KAFKA-7296).
const LOADING_FROM: i16 = 2;

/// See the module.
pub(crate) async fn txn_offset_commit(
    core: &Arc<Core>,
    ctx: &Context,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let mut offsets = Vec::new();
    // (topic, partition) positions in the answer.
    let mut places = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = resolve::by_name(core, ctx, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let partition_index = partition.partition_index;
            let error_code = match resolve::stream_of(&found, partition_index) {
                Ok(stream) => {
                    places.push((topics.len(), partitions.len()));
                    offsets.push(OffsetInTransaction {
                        topic: stream.topic,
                        partition: partition_index,
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.committed_metadata,
                    });
                    ErrorCode::None
                }
                Err(code) => code,
            };
            let error_code = error_code.code();
            partitions.push(TxnOffsetCommitResponsePartition { partition_index, error_code });
        }
        topics.push(TxnOffsetCommitResponseTopic { name: topic.name, partitions });
    }
    if !offsets.is_empty() {
        let commit = OffsetsInTransaction {
            producer: Producer {
                transactional_id: request.transactional_id,
                producer_id: request.producer_id,
                producer_epoch: request.producer_epoch,
            },
            not_added: match ctx.version {
                ADDS_FROM.. => NotAdded::Adds,
                ABORTABLE => NotAdded::Abortable,
                _ => NotAdded::Invalid,
            },
            group_id: request.group_id,
            generation_id: request.generation_id,
            member_id: request.member_id,
            group_instance_id: request.group_instance_id,
            offsets: last_of_each(&offsets),
        };
        let named: Vec<_> = commit.offsets.iter().map(key).collect();
        let codes: BTreeMap<(TopicId, i32), ErrorCode> =
            match core.backend.commit_in_transaction(&ctx.caller, commit).await {
                Ok(codes) => named.into_iter().zip(codes).collect(),
                Err(code) => named.into_iter().map(|name| (name, code)).collect(),
            };
        for ((topic, partition), offset) in places.into_iter().zip(&offsets) {
            let code = codes.get(&key(offset)).copied().unwrap_or(ErrorCode::UnknownServerError);
            let place = &mut topics[topic].partitions[partition];
            place.error_code = downgraded(ctx.version, code).code();
        }
    }
    TxnOffsetCommitResponse { topics, ..Default::default() }
}

fn key(offset: &OffsetInTransaction) -> (TopicId, i32) {
    (offset.topic, offset.partition)
}

/// Of a partition that is named twice the last offset counts.
fn last_of_each(offsets: &[OffsetInTransaction]) -> Vec<OffsetInTransaction> {
    let last: BTreeMap<_, _> = offsets.iter().map(|offset| (key(offset), offset)).collect();
    last.into_values().cloned().collect()
}

fn downgraded(version: i16, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::CoordinatorLoadInProgress if version < LOADING_FROM => {
            ErrorCode::CoordinatorNotAvailable
        }
        other => other,
    }
}
