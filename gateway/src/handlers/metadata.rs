//! Metadata: the tenant's topics with the nodes to ask for each partition; creates missing topics
//! where client and configuration allow it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::StreamExt;
use sluice_catalog::{CreateTopicError, NewTopic, Topic};
use sluice_model::{StreamId, TenantId, topic_name};
use sluice_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use sluice_wire::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use sluice_wire::{ErrorCode, Str, Uuid};

use super::resolve::Leaders;
use super::{permitted, resolve};
use crate::context::Context;
use crate::failure;
use crate::gateway::Core;

/// Topics are asked for by id from this version on (KIP-516).
const IDS_FROM: i16 = 12;
/// Operations are told from this version on (KIP-430).
const OPERATIONS_FROM: i16 = 8;
/// The cluster's operations moved to DescribeCluster after this version (KIP-700).
const CLUSTER_OPERATIONS_UNTIL: i16 = 10;
/// Topics that one request creates at once.
const CREATIONS_AT_ONCE: usize = 32;

/// See the module.
pub(crate) async fn metadata(
    core: &Arc<Core>,
    ctx: &Context,
    request: MetadataRequest,
) -> MetadataResponse {
    let mut topics = match request.topics {
        None => all(core, ctx),
        // In version 0 there is no null, and none means all.
        Some(topics) if topics.is_empty() && ctx.version == 0 => all(core, ctx),
        Some(topics) => {
            if let Some(refused) = refuse(ctx, &topics) {
                return refused;
            }
            some(core, ctx, topics, request.allow_auto_topic_creation).await
        }
    };
    if ctx.version >= OPERATIONS_FROM && request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = permitted::TOPIC;
        }
    }
    let cluster_operations = request.include_cluster_authorized_operations
        && (OPERATIONS_FROM..=CLUSTER_OPERATIONS_UNTIL).contains(&ctx.version);
    let broker = |broker: resolve::Broker| MetadataResponseBroker {
        node_id: broker.id,
        host: broker.host,
        port: broker.port,
        rack: broker.rack,
    };
    MetadataResponse {
        brokers: resolve::brokers(core).into_iter().map(broker).collect(),
        cluster_id: Some(core.catalog.cluster_id_of(ctx.caller.tenant).into()),
        // Every node takes what a controller takes.
        controller_id: core.config.node_id.0,
        topics,
        cluster_authorized_operations: if cluster_operations {
            permitted::CLUSTER
        } else {
            i32::MIN
        },
        ..Default::default()
    }
}

/// Versions 10 and 11 have ids and null names in their schema but no meaning for them.
fn refuse(ctx: &Context, topics: &[MetadataRequestTopic]) -> Option<MetadataResponse> {
    let bad = |topic: &MetadataRequestTopic| topic.name.is_none() || topic.topic_id != Uuid::ZERO;
    if ctx.version >= IDS_FROM || !topics.iter().any(bad) {
        return None;
    }
    let topics = topics.iter().map(|topic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..Default::default()
    });
    Some(MetadataResponse { topics: topics.collect(), ..Default::default() })
}

fn all(core: &Core, ctx: &Context) -> Vec<MetadataResponseTopic> {
    let topics = core.catalog.topics(ctx.caller.tenant);
    let leaders = Leaders::new(core, ctx);
    topics.iter().map(|topic| describe(core, &leaders, topic)).collect()
}

async fn some(
    core: &Arc<Core>,
    ctx: &Context,
    asked: Vec<MetadataRequestTopic>,
    may_create: bool,
) -> Vec<MetadataResponseTopic> {
    let tenant = ctx.caller.tenant;
    let leaders = Leaders::new(core, ctx);
    // With one id in the request Kafka looks at ids alone.
    let by_id = asked.iter().any(|topic| topic.topic_id != Uuid::ZERO);
    let mut seen_ids = HashSet::new();
    let mut seen_names = HashSet::new();
    let mut topics = Vec::new();
    let mut missing = Vec::new();
    for topic in asked {
        if by_id {
            if topic.topic_id == Uuid::ZERO || !seen_ids.insert(topic.topic_id) {
                continue;
            }
            topics.push(match resolve::by_id(core, ctx, topic.topic_id) {
                Ok(found) => describe(core, &leaders, &found),
                Err(code) => MetadataResponseTopic {
                    error_code: code.code(),
                    name: None,
                    topic_id: topic.topic_id,
                    ..Default::default()
                },
            });
            continue;
        }
        let name = topic.name.unwrap_or_default();
        if !seen_names.insert(name.clone()) {
            continue;
        }
        match resolve::by_name(core, ctx, &name) {
            Ok(found) => topics.push(describe(core, &leaders, &found)),
            Err(_) if topic_name::validate(&name).is_err() => {
                topics.push(failed(name, ErrorCode::InvalidTopicException));
            }
            Err(_) if may_create && core.config.auto_create_topics => missing.push(name),
            Err(code) => topics.push(failed(name, code)),
        }
    }
    let created = futures_util::stream::iter(missing)
        .map(|name| async move {
            // It is there when this is answered, but Kafka says that it is not: clients ask again
            // shortly, and a consumer learns so that a topic it knew was deleted meanwhile.
            match create(core, tenant, &name).await {
                Ok(()) => failed(name, ErrorCode::UnknownTopicOrPartition),
                Err(code) => failed(name, code),
            }
        })
        .buffered(CREATIONS_AT_ONCE)
        .collect::<Vec<_>>();
    topics.extend(created.await);
    topics
}

async fn create(core: &Core, tenant: TenantId, name: &str) -> Result<(), ErrorCode> {
    let new = NewTopic {
        name: name.to_owned(),
        partitions: core.config.default_partitions,
        overrides: BTreeMap::new(),
    };
    match core.catalog.create_topic(tenant, new).await {
        // Or somebody else was faster.
        Ok(_) | Err(CreateTopicError::Exists(_)) => Ok(()),
        Err(CreateTopicError::NoVolumes | CreateTopicError::Unavailable(_)) => {
            Err(ErrorCode::LeaderNotAvailable)
        }
        Err(e) => Err(failure::of_create_topic(&e)),
    }
}

fn failed(name: Str, code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic { error_code: code.code(), name: Some(name), ..Default::default() }
}

fn describe(core: &Core, leaders: &Leaders, topic: &Topic) -> MetadataResponseTopic {
    let partition = |(index, volume): (usize, &sluice_model::VolumeId)| {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let stream = StreamId { topic: topic.id, partition: index };
        let leader = leaders.leader(core, *volume, &resolve::key_of(stream)).id;
        MetadataResponsePartition {
            partition_index: index.cast_signed(),
            leader_id: leader,
            leader_epoch: core.backend.leader_epoch(stream),
            replica_nodes: vec![leader],
            isr_nodes: vec![leader],
            ..Default::default()
        }
    };
    MetadataResponseTopic {
        name: Some((&*topic.name).into()),
        topic_id: Uuid(topic.id.0),
        is_internal: topic_name::is_internal(&topic.name),
        partitions: topic.partitions.iter().enumerate().map(partition).collect(),
        ..Default::default()
    }
}
