//! DescribeProducers (KIP-664): who writes to a partition, and which transactions are open there.

use std::sync::Arc;

use sluice_model::topic_name;
use sluice_wire::ErrorCode;
use sluice_wire::messages::describe_producers_request::DescribeProducersRequest;
use sluice_wire::messages::describe_producers_response::{
    DescribeProducersResponse, PartitionResponse, ProducerState, TopicResponse,
};

use super::resolve;
use crate::backend::ActiveProducer;
use crate::context::Context;
use crate::gateway::Core;

/// See the module.
pub(crate) async fn describe_producers(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = match topic_name::validate(&topic.name) {
            Ok(()) => resolve::by_name(core, ctx, &topic.name),
            Err(_) => Err(ErrorCode::InvalidTopicException),
        };
        let mut partitions = Vec::with_capacity(topic.partition_indexes.len());
        for index in topic.partition_indexes {
            let producers = match resolve::stream_of(&found, index) {
                Ok(stream) => core.backend.active_producers(&ctx.caller, stream).await,
                Err(code) => Err(code),
            };
            partitions.push(partition(index, producers));
        }
        topics.push(TopicResponse { partitions, name: topic.name });
    }
    DescribeProducersResponse { topics, ..Default::default() }
}

fn partition(
    partition_index: i32,
    producers: Result<Vec<ActiveProducer>, ErrorCode>,
) -> PartitionResponse {
    let answer = PartitionResponse { partition_index, ..Default::default() };
    match producers {
        Ok(producers) => {
            let active_producers = producers.into_iter().map(|producer| ProducerState {
                producer_id: producer.producer_id,
                producer_epoch: i32::from(producer.producer_epoch),
                last_sequence: producer.last_sequence,
                last_timestamp: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                current_txn_start_offset: producer.transaction_start,
            });
            PartitionResponse { active_producers: active_producers.collect(), ..answer }
        }
        Err(code) => PartitionResponse {
            error_code: code.code(),
            error_message: Some(code.message().into()),
            ..answer
        },
    }
}
