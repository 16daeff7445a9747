//! From the names and ids in requests to the tenant's topics, streams and nodes.

use std::sync::Arc;

use sluice_catalog::{Node, Topic};
use sluice_model::{StreamId, TopicId, VolumeId};
use sluice_wire::{ErrorCode, Str, Uuid};

use crate::context::{Context, Origin};
use crate::gateway::Core;
use crate::peers::other_gateways;

/// A broker as clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    pub(crate) host: Str,
    pub(crate) port: i32,
    pub(crate) rack: Option<Str>,
}

/// The tenant's topic of that name. A node may put the topic's id in its place.
pub(crate) fn by_name(core: &Core, ctx: &Context, name: &str) -> Result<Arc<Topic>, ErrorCode> {
    if ctx.origin == (Origin::Node { names_are_ids: true }) {
        let id: TopicId = name.parse().map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
        return by_id(core, ctx, Uuid(id.0)).map_err(|_| ErrorCode::UnknownTopicOrPartition);
    }
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

/// The live nodes that clients connect to, by id: those that are not about to go, or, if there are no others, this one.
pub(crate) fn brokers(core: &Core) -> Vec<Broker> {
    let own = own_broker(core);
    let node = core.config.node_id;
    let others = other_gateways(&core.catalog, node);
    let mut brokers: Vec<Broker> = others.iter().map(|node| broker_of(node)).collect();
    if brokers.is_empty() || !core.catalog.drains().contains_key(&node) {
        brokers.push(own);
    }
    brokers.sort_unstable_by_key(|broker| broker.id);
    brokers
}

fn broker_of(node: &Node) -> Broker {
    Broker {
        id: node.spec.id.0,
        host: node.spec.kafka_host.as_str().into(),
        port: node.spec.kafka_port.into(),
        rack: node.spec.rack.as_deref().map(Str::from),
    }
}

/// Whom a client is sent to: looked up once, for many partitions.
pub(crate) struct Leaders {
    brokers: Vec<Broker>,
    /// Where the client stands, if it says so.
    zone: Option<Str>,
}

impl Leaders {
    pub(crate) fn new(core: &Core, ctx: &Context) -> Self {
        Self { brokers: brokers(core), zone: zone_of(&ctx.caller.client_id) }
    }

    /// The node that clients should use for what lies on a volume: its owner if clients connect to that one; else one
    /// of those that they do connect to, each of which reaches every owner. Which one depends on `key` alone, so that
    /// all nodes say the same, and little changes when one comes or goes; in the client's zone, where there are any.
    pub(crate) fn leader(&self, core: &Core, volume: VolumeId, key: &[u8]) -> &Broker {
        let owner = core.catalog.volume(volume).and_then(|volume| volume.owner);
        let is_owner = |broker: &&Broker| owner.is_some_and(|owner| owner.0 == broker.id);
        if let Some(owner) = self.brokers.iter().find(is_owner) {
            return owner;
        }
        self.any(key)
    }

    /// One of the nodes that clients connect to, by rendezvous hashing.
    fn any(&self, key: &[u8]) -> &Broker {
        let near = |broker: &&Broker| self.zone.is_some() && broker.rack == self.zone;
        let weight = |broker: &&Broker| (weight(key, broker.id), broker.id);
        let near = self.brokers.iter().filter(near).max_by_key(weight);
        // There is always one.
        near.or_else(|| self.brokers.iter().max_by_key(weight)).unwrap_or(&self.brokers[0])
    }

    /// The node to ask for a group or a transactional id: the one that has the coordinators, if clients connect to it.
    pub(crate) fn coordinator(&self, core: &Core, key: &str) -> &Broker {
        match core.catalog.first_volume() {
            Some(first) => self.leader(core, first.spec.id, key.as_bytes()),
            None => self.any(key.as_bytes()),
        }
    }
}

/// What a stream is hashed by.
pub(crate) fn key_of(stream: StreamId) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(&stream.topic.0);
    key[16..].copy_from_slice(&stream.partition.to_be_bytes());
    key
}

/// FNV-1a over the key and the node, mixed: the same on every node and in every version.
fn weight(key: &[u8], node: i32) -> u64 {
    let node = node.to_be_bytes();
    let hash = key.iter().chain(&node).fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// The zone that a client id names: `zone=NAME` among what stands there between commas, semicolons or spaces.
fn zone_of(client_id: &str) -> Option<Str> {
    let mut parts = client_id.split([',', ';', ' ']);
    let zone = parts.find_map(|part| part.strip_prefix("zone="))?;
    (!zone.is_empty()).then(|| Str::from(zone))
}

/// What a client is told with an error that makes it look for the leader: who it is (KIP-951).
pub(crate) fn current_leader(
    core: &Core,
    ctx: &Context,
    stream: StreamId,
) -> Option<(Broker, i32)> {
    let topic = core.catalog.topic_of_any_tenant(stream.topic)?;
    let volume = topic.partitions.get(stream.partition as usize)?;
    let leader = Leaders::new(core, ctx).leader(core, *volume, &key_of(stream)).clone();
    Some((leader, core.backend.leader_epoch(stream)))
}
