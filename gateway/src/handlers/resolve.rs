//! From the names and ids in requests to the tenant's topics, streams and nodes.

use std::sync::Arc;

use sluice_catalog::Topic;
use sluice_model::{NodeId, StreamId, TopicId, VolumeId};
use sluice_wire::{ErrorCode, Str, Uuid};

use crate::context::Context;
use crate::gateway::Core;

/// A broker as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    pub(crate) host: Str,
    pub(crate) port: i32,
    pub(crate) rack: Option<Str>,
}

/// The tenant's topic of that name.
pub(crate) fn by_name(core: &Core, ctx: &Context, name: &str) -> Result<Arc<Topic>, ErrorCode> {
    core.catalog.topic_by_name(ctx.caller.tenant, name).ok_or(ErrorCode::UnknownTopicOrPartition)
}

/// The topic with that id, if it is the tenant's.
pub(crate) fn by_id(core: &Core, ctx: &Context, id: Uuid) -> Result<Arc<Topic>, ErrorCode> {
    core.catalog
        .topic_by_id(ctx.caller.tenant, TopicId(id.0))
        .filter(|topic| !topic.id.is_internal())
        .ok_or(ErrorCode::UnknownTopicId)
}

/// The topic that a request means which names topics by id from version `ids_from` on.
pub(crate) fn by_either(
    core: &Core,
    ctx: &Context,
    ids_from: i16,
    name: &str,
    id: Uuid,
) -> Result<Arc<Topic>, ErrorCode> {
    if ctx.version >= ids_from { by_id(core, ctx, id) } else { by_name(core, ctx, name) }
}

/// The stream of one partition.
pub(crate) fn stream(topic: &Topic, partition: i32) -> Result<StreamId, ErrorCode> {
    match u32::try_from(partition) {
        Ok(index) if (index as usize) < topic.partitions.len() => {
            Ok(StreamId { topic: topic.id, partition: index })
        }
        _ => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

/// The stream of one partition of a topic that may not have been found.
pub(crate) fn stream_of(
    topic: &Result<Arc<Topic>, ErrorCode>,
    partition: i32,
) -> Result<StreamId, ErrorCode> {
    match topic {
        Ok(topic) => stream(topic, partition),
        Err(code) => Err(*code),
    }
}

/// This node.
pub(crate) fn own_broker(core: &Core) -> Broker {
    let config = &core.config;
    Broker {
        id: config.node_id.0,
        host: config.advertised_host.as_str().into(),
        port: config.advertised_port.into(),
        rack: config.rack.as_deref().map(Str::from),
    }
}

/// The live nodes, this one always among them, by id.
pub(crate) fn brokers(core: &Core) -> Vec<Broker> {
    let own = own_broker(core);
    let mut brokers: Vec<Broker> = core
        .catalog
        .nodes()
        .iter()
        .filter(|node| node.spec.id.0 != own.id)
        .map(|node| Broker {
            id: node.spec.id.0,
            host: node.spec.kafka_host.as_str().into(),
            port: node.spec.kafka_port.into(),
            rack: node.spec.rack.as_deref().map(Str::from),
        })
        .collect();
    brokers.push(own);
    brokers.sort_unstable_by_key(|broker| broker.id);
    brokers
}

/// The node that clients should use for a volume's partitions: its owner if it lives, else this one,
/// which reaches the writers on their behalf.
pub(crate) fn leader(core: &Core, volume: VolumeId) -> NodeId {
    core.catalog
        .volume(volume)
        .and_then(|volume| volume.owner)
        .filter(|owner| core.catalog.node(*owner).is_some())
        .unwrap_or(core.config.node_id)
}

/// What a client is told with an error that makes it look for the leader: who it is (KIP-951).
pub(crate) fn current_leader(core: &Core, stream: StreamId) -> Option<(Broker, i32)> {
    let topic = core.catalog.topic_of_any_tenant(stream.topic)?;
    let volume = topic.partitions.get(stream.partition as usize)?;
    let leader = leader(core, *volume);
    let broker = brokers(core).into_iter().find(|broker| broker.id == leader.0)?;
    Some((broker, core.backend.leader_epoch(stream)))
}
