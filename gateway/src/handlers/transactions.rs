//! Transactions of producers: the tenant's partitions are looked up here, the rest is the coordinator's.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_model::StreamId;
use sluice_wire::messages::add_offsets_to_txn_request::AddOffsetsToTxnRequest;
use sluice_wire::messages::add_offsets_to_txn_response::AddOffsetsToTxnResponse;
use sluice_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use sluice_wire::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResponse, AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
};
use sluice_wire::messages::describe_transactions_request::DescribeTransactionsRequest;
use sluice_wire::messages::describe_transactions_response::{
    DescribeTransactionsResponse, TopicData, TransactionState,
};
use sluice_wire::messages::end_txn_request::EndTxnRequest;
use sluice_wire::messages::end_txn_response::EndTxnResponse;
use sluice_wire::messages::list_transactions_request::ListTransactionsRequest;
use sluice_wire::messages::list_transactions_response::ListTransactionsResponse;
use sluice_wire::{ErrorCode, Str};

use super::resolve;
use crate::backend::{AddedBy, Producer, ProducerIdentity};
use crate::context::{Context, Origin};
use crate::gateway::Core;

/// From this version of AddPartitionsToTxn, AddOffsetsToTxn and EndTxn on clients know PRODUCER_FENCED
/// (KIP-588).
const FENCED_FROM: i16 = 2;
/// From this version on AddPartitionsToTxn has several transactions in one request (KIP-890). Kafka's
/// brokers send it to each other; a client that does gets the same answers for its own.
const BATCHES_FROM: i16 = 4;
/// From this version on EndTxn raises the epoch (KIP-890).
const BUMPS_FROM: i16 = 5;

/// AddPartitionsToTxn.
pub(crate) async fn add_partitions_to_txn(
    core: &Arc<Core>,
    ctx: &Context,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    if ctx.version < BATCHES_FROM {
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: request.v3_and_below_transactional_id,
            producer_id: request.v3_and_below_producer_id,
            producer_epoch: request.v3_and_below_producer_epoch,
            verify_only: false,
            topics: request.v3_and_below_topics,
        };
        return AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: add(core, ctx, transaction).await,
            ..Default::default()
        };
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        results.push(AddPartitionsToTxnResult {
            transactional_id: transaction.transactional_id.clone(),
            topic_results: add(core, ctx, transaction).await,
        });
    }
    AddPartitionsToTxnResponse { results_by_transaction: results, ..Default::default() }
}

/// Adds or verifies the partitions of one transaction: all, or, if one does not exist, none.
async fn add(
    core: &Arc<Core>,
    ctx: &Context,
    transaction: AddPartitionsToTxnTransaction,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let AddPartitionsToTxnTransaction { transactional_id, topics, verify_only, .. } = transaction;
    let producer = Producer {
        transactional_id,
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
    };
    let found: Vec<Vec<Result<StreamId, ErrorCode>>> = topics
        .iter()
        .map(|topic| {
            let found = resolve::by_name(core, ctx, &topic.name);
            let stream = |partition: &i32| resolve::stream_of(&found, *partition);
            topic.partitions.iter().map(stream).collect()
        })
        .collect();
    if found.iter().flatten().any(Result::is_err) {
        let code = |found: &Result<StreamId, ErrorCode>| match found {
            Ok(_) => ErrorCode::OperationNotAttempted,
            Err(code) => *code,
        };
        return results(topics, &found, code);
    }
    let streams: BTreeSet<StreamId> = found.iter().flatten().flatten().copied().collect();
    let backend = &core.backend;
    let missing = if verify_only {
        backend.not_added(&ctx.caller, &producer, streams).await
    } else {
        // Between nodes it is a partition's owner that asks, since something was written.
        let by = match ctx.origin {
            Origin::Node { names_are_ids: true } => AddedBy::Write,
            Origin::Client | Origin::Node { .. } => AddedBy::Client,
        };
        backend.add_streams(&ctx.caller, &producer, streams, by).await.map(|()| BTreeSet::new())
    };
    results(topics, &found, |stream| match (&missing, stream) {
        (Err(code), _) | (Ok(_), Err(code)) => known_to(ctx, *code),
        (Ok(missing), Ok(stream)) if missing.contains(stream) => ErrorCode::TransactionAbortable,
        (Ok(_), Ok(_)) => ErrorCode::None,
    })
}

fn results(
    topics: Vec<AddPartitionsToTxnTopic>,
    found: &[Vec<Result<StreamId, ErrorCode>>],
    code: impl Fn(&Result<StreamId, ErrorCode>) -> ErrorCode,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let results = topics.into_iter().zip(found).map(|(topic, found)| {
        let partitions = topic.partitions.iter().zip(found).map(|(partition, found)| {
            AddPartitionsToTxnPartitionResult {
                partition_index: *partition,
                partition_error_code: code(found).code(),
            }
        });
        AddPartitionsToTxnTopicResult {
            results_by_partition: partitions.collect(),
            name: topic.name,
        }
    });
    results.collect()
}

/// AddOffsetsToTxn.
pub(crate) async fn add_offsets_to_txn(
    core: &Arc<Core>,
    ctx: &Context,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let producer = Producer {
        transactional_id: request.transactional_id,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
    };
    let added = core.backend.add_group(&ctx.caller, &producer, request.group_id).await;
    let code = added.map_or_else(|code| known_to(ctx, code), |()| ErrorCode::None);
    AddOffsetsToTxnResponse { error_code: code.code(), ..Default::default() }
}

/// EndTxn.
pub(crate) async fn end_txn(
    core: &Arc<Core>,
    ctx: &Context,
    request: EndTxnRequest,
) -> EndTxnResponse {
    let producer = Producer {
        transactional_id: request.transactional_id,
        producer_id: request.producer_id,
        producer_epoch: request.producer_epoch,
    };
    let bumps_epoch = ctx.version >= BUMPS_FROM;
    let ended =
        core.backend.end_transaction(&ctx.caller, &producer, request.committed, bumps_epoch);
    match ended.await {
        Ok(Some(ProducerIdentity { producer_id, producer_epoch })) => {
            EndTxnResponse { producer_id, producer_epoch, ..Default::default() }
        }
        Ok(None) => EndTxnResponse::default(),
        Err(code) => {
            EndTxnResponse { error_code: known_to(ctx, code).code(), ..Default::default() }
        }
    }
}

/// DescribeTransactions. Partitions of topics that are gone are left out.
pub(crate) async fn describe_transactions(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let mut states = Vec::with_capacity(request.transactional_ids.len());
    for id in request.transactional_ids {
        let described = core.backend.describe_transaction(&ctx.caller, &id).await;
        states.push(match described {
            Ok(found) => TransactionState {
                error_code: 0,
                transactional_id: id,
                transaction_state: found.state,
                transaction_timeout_ms: found.timeout_ms,
                transaction_start_time_ms: found.started_ms,
                producer_id: found.producer.producer_id,
                producer_epoch: found.producer.producer_epoch,
                topics: by_topic(core, ctx, &found.streams),
            },
            Err(code) => TransactionState {
                error_code: code.code(),
                transactional_id: id,
                ..Default::default()
            },
        });
    }
    DescribeTransactionsResponse { transaction_states: states, ..Default::default() }
}

fn by_topic(core: &Core, ctx: &Context, streams: &[StreamId]) -> Vec<TopicData> {
    streams
        .chunk_by(|one, other| one.topic == other.topic)
        .filter_map(|streams| {
            let topic = core.catalog.topic_by_id(ctx.caller.tenant, streams[0].topic)?;
            let index = |stream: &StreamId| i32::try_from(stream.partition).ok();
            Some(TopicData {
                topic: Str::from(&*topic.name),
                partitions: streams.iter().filter_map(index).collect(),
            })
        })
        .collect()
}

/// ListTransactions.
pub(crate) async fn list_transactions(
    core: &Arc<Core>,
    ctx: &Context,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    core.backend.list_transactions(&ctx.caller, request).await
}

fn known_to(ctx: &Context, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if ctx.version < FENCED_FROM => ErrorCode::InvalidProducerEpoch,
        other => other,
    }
}
