//! DescribeTopicPartitions (KIP-966): the tenant's topics by name, a page of partitions at a time. The
//! cursor is a position, not a promise: what it names may be gone when the next page is asked for.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_catalog::Topic;
use sluice_model::{StreamId, topic_name};
use sluice_wire::messages::describe_topic_partitions_request::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use sluice_wire::messages::describe_topic_partitions_response::{
    Cursor as NextCursor, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use sluice_wire::{ErrorCode, Str, Uuid};

use super::resolve::Leaders;
use super::{permitted, resolve};
use crate::context::Context;
use crate::gateway::Core;

/// Partitions on one page at most; Kafka's default of `max.request.partition.size.limit`.
const MAX_PAGE: i32 = 2000;

/// See the module.
pub(crate) async fn describe_topic_partitions(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let DescribeTopicPartitionsRequest { topics, response_partition_limit, cursor } = request;
    if !cursor.as_ref().is_none_or(|cursor| is_in(&topics, cursor)) {
        return DescribeTopicPartitionsResponse {
            topics: topics
                .into_iter()
                .map(|topic| failed(topic.name, ErrorCode::InvalidRequest))
                .collect(),
            ..Default::default()
        };
    }
    let limit = usize::try_from(response_partition_limit.clamp(1, MAX_PAGE)).unwrap_or(1);
    let from = cursor.as_ref().map_or("", |cursor| &cursor.topic_name);
    if topics.is_empty() {
        let all = core.catalog.topics(ctx.caller.tenant);
        let rest = all.into_iter().filter(|topic| *topic.name >= *from);
        let named = rest.map(|topic| (Str::from(&*topic.name), Some(topic)));
        return page(core, &Leaders::new(core, ctx), named, cursor.as_ref(), limit);
    }
    let names: BTreeSet<Str> =
        topics.into_iter().map(|topic| topic.name).filter(|name| **name >= *from).collect();
    let named = names.into_iter().map(|name| {
        let found = resolve::by_name(core, ctx, &name).ok();
        (name, found)
    });
    page(core, &Leaders::new(core, ctx), named, cursor.as_ref(), limit)
}

/// Whether a cursor points into what is asked for.
fn is_in(topics: &[TopicRequest], cursor: &Cursor) -> bool {
    let named = topics.is_empty() || topics.iter().any(|topic| topic.name == cursor.topic_name);
    named && cursor.partition_index >= 0
}

/// The next `limit` partitions of `topics`, which come in the order of their names.
fn page(
    core: &Core,
    leaders: &Leaders,
    topics: impl Iterator<Item = (Str, Option<Arc<Topic>>)>,
    cursor: Option<&Cursor>,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let mut answer = DescribeTopicPartitionsResponse::default();
    let mut room = limit;
    for (name, topic) in topics {
        if room == 0 {
            answer.next_cursor = Some(NextCursor { topic_name: name, partition_index: 0 });
            break;
        }
        let Some(topic) = topic else {
            let valid = topic_name::validate(&name).is_ok();
            let code = match valid {
                true => ErrorCode::UnknownTopicOrPartition,
                false => ErrorCode::InvalidTopicException,
            };
            // Kafka tells the operations of a name that may be a topic one day.
            answer.topics.push(DescribeTopicPartitionsResponseTopic {
                topic_authorized_operations: permitted::TOPIC,
                ..failed(name, code)
            });
            continue;
        };
        let first = cursor.filter(|cursor| cursor.topic_name == name);
        let first = first.map_or(0, |cursor| cursor.partition_index.unsigned_abs() as usize);
        let end = topic.partitions.len().min(first.saturating_add(room));
        let partitions: Vec<_> =
            (first..end).map(|index| partition(core, leaders, &topic, index)).collect();
        room -= partitions.len();
        answer.topics.push(DescribeTopicPartitionsResponseTopic {
            name: Some(name.clone()),
            topic_id: Uuid(topic.id.0),
            is_internal: topic_name::is_internal(&topic.name),
            partitions,
            topic_authorized_operations: permitted::TOPIC,
            ..Default::default()
        });
        if end < topic.partitions.len() {
            let partition_index = i32::try_from(end).unwrap_or(i32::MAX);
            answer.next_cursor = Some(NextCursor { topic_name: name, partition_index });
            break;
        }
    }
    answer
}

fn partition(
    core: &Core,
    leaders: &Leaders,
    topic: &Topic,
    index: usize,
) -> DescribeTopicPartitionsResponsePartition {
    let partition = u32::try_from(index).unwrap_or(u32::MAX);
    let stream = StreamId { topic: topic.id, partition };
    let leader = leaders.leader(core, topic.partitions[index], &resolve::key_of(stream)).id;
    DescribeTopicPartitionsResponsePartition {
        partition_index: partition.cast_signed(),
        leader_id: leader,
        leader_epoch: core.backend.leader_epoch(stream),
        replica_nodes: vec![leader],
        isr_nodes: vec![leader],
        // None beside the one that is in sync. Null would say that it is not known.
        eligible_leader_replicas: Some(Vec::new()),
        last_known_elr: Some(Vec::new()),
        ..Default::default()
    }
}

fn failed(name: Str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(name),
        ..Default::default()
    }
}
