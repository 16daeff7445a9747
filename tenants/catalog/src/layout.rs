//! What lies under which key of the store.
//!
//! ```text
//! /sluice/cluster                    ClusterRecord   written once, at the first start
//! /sluice/topics/<tenant>/<name>     TopicRecord     tenant in decimal; the name as the client gave it
//! /sluice/group-configs/<tenant>/<group>
//!                                    ConfigRecord    there while something is set; the group may not
//!                                                    exist; the name may hold any character
//! /sluice/client-metrics/<tenant>/<name>
//!                                    ConfigRecord    a subscription of clients' metrics (KIP-714)
//! /sluice/broker-configs/<tenant>/<node>
//!                                    ConfigRecord    what a tenant has set on one broker of its cluster, or
//!                                                    on all of them if <node> is empty
//! /sluice/nodes/<node>               NodeRecord      under the node's lease
//! /sluice/moves/<topic id>/<partition>
//!                                    MoveRecord      there while the stream is to move to another volume
//! /sluice/volumes/<volume>           VolumeRecord
//! /sluice/producer-ids               ProducerIdsRecord
//! /sluice/loads/<node>               NodeLoad        under the node's lease
//! /sluice/drains/<node>              DrainRecord     there while the node shall own nothing; under its lease
//!                                                    if it leaves by itself
//! /sluice/balancer                   BalancerRecord  under the lease of the node that moves volumes
//! /sluice/balance                    BalanceRecord   there once somebody has said whether volumes are moved
//! /sluice/decisions                  DecisionsRecord what the balancer did last
//! ```
//!
//! Values are JSON. *Rule for change:* fields may be added with a default that keeps the old meaning,
//! and new kinds of keys may be added, which older versions ignore. Whatever an older version must not
//! overlook raises [`FORMAT`], and a version refuses a store of a higher format than its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sluice_model::{NodeId, StreamId, TenantId, TopicId, VolumeEpoch, VolumeId};

use crate::configs::ResourceKind;
use crate::nodes::{PeerAddress, Roles};
use crate::steering::Decision;
use crate::store::StoreError;
use crate::volumes::VolumeSpec;

/// The format that this version writes, and the highest that it reads.
pub(crate) const FORMAT: u32 = 2;

/// All keys begin so.
pub(crate) const PREFIX: &str = "/sluice/";

pub(crate) const CLUSTER: &str = "/sluice/cluster";
pub(crate) const PRODUCER_IDS: &str = "/sluice/producer-ids";
pub(crate) const BALANCER: &str = "/sluice/balancer";
pub(crate) const BALANCE: &str = "/sluice/balance";
pub(crate) const DECISIONS: &str = "/sluice/decisions";
/// The keys of all volumes begin so.
pub(crate) const VOLUMES: &str = "/sluice/volumes/";

pub(crate) fn topic(tenant: TenantId, name: &str) -> String {
    format!("/sluice/topics/{}/{name}", tenant.0)
}

/// The kinds of [`ResourceKind`] as they stand in keys.
const GROUP_CONFIGS: &str = "group-configs";
const CLIENT_METRICS: &str = "client-metrics";
const BROKER_CONFIGS: &str = "broker-configs";

pub(crate) fn configs(tenant: TenantId, kind: ResourceKind, name: &str) -> String {
    let kind = match kind {
        ResourceKind::Group => GROUP_CONFIGS,
        ResourceKind::ClientMetrics => CLIENT_METRICS,
        ResourceKind::Broker => BROKER_CONFIGS,
    };
    format!("/sluice/{kind}/{}/{name}", tenant.0)
}

pub(crate) fn stream_move(stream: StreamId) -> String {
    format!("/sluice/moves/{}/{}", stream.topic, stream.partition)
}

pub(crate) fn node(id: NodeId) -> String {
    format!("/sluice/nodes/{}", id.0)
}

pub(crate) fn volume(id: VolumeId) -> String {
    format!("{VOLUMES}{}", id.0)
}

pub(crate) fn load(id: NodeId) -> String {
    format!("/sluice/loads/{}", id.0)
}

pub(crate) fn drain(id: NodeId) -> String {
    format!("/sluice/drains/{}", id.0)
}

/// A key, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    Topic(TenantId, &'a str),
    Move(StreamId),
    Configs(TenantId, ResourceKind, &'a str),
    Node(NodeId),
    Volume(VolumeId),
    Load(NodeId),
    Drain(NodeId),
    Balancer,
    Balance,
    /// Nothing that a view follows.
    Other,
}

impl<'a> Key<'a> {
    pub(crate) fn parse(key: &'a str) -> Self {
        match key {
            BALANCER => return Self::Balancer,
            BALANCE => return Self::Balance,
            _ => {}
        }
        let known = || {
            let (kind, rest) = key.strip_prefix(PREFIX)?.split_once('/')?;
            match kind {
                "topics" => {
                    let (tenant, name) = of_tenant(rest)?;
                    Some(Self::Topic(tenant, name))
                }
                "moves" => {
                    let (topic, partition) = rest.split_once('/')?;
                    let (topic, partition) = (topic.parse().ok()?, partition.parse().ok()?);
                    Some(Self::Move(StreamId { topic, partition }))
                }
                GROUP_CONFIGS | CLIENT_METRICS | BROKER_CONFIGS => {
                    let (tenant, name) = of_tenant(rest)?;
                    let kind = match kind {
                        GROUP_CONFIGS => ResourceKind::Group,
                        CLIENT_METRICS => ResourceKind::ClientMetrics,
                        _ => ResourceKind::Broker,
                    };
                    Some(Self::Configs(tenant, kind, name))
                }
                "nodes" => Some(Self::Node(NodeId(rest.parse().ok()?))),
                "volumes" => Some(Self::Volume(VolumeId(rest.parse().ok()?))),
                "loads" => Some(Self::Load(NodeId(rest.parse().ok()?))),
                "drains" => Some(Self::Drain(NodeId(rest.parse().ok()?))),
                _ => None,
            }
        };
        known().unwrap_or(Self::Other)
    }
}

/// `<tenant>/<name>`.
fn of_tenant(rest: &str) -> Option<(TenantId, &str)> {
    let (tenant, name) = rest.split_once('/')?;
    Some((TenantId(tenant.parse().ok()?), name))
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClusterRecord {
    pub(crate) format: u32,
    pub(crate) id: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TopicRecord {
    pub(crate) id: TopicId,
    pub(crate) partitions: Vec<VolumeId>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) overrides: BTreeMap<String, String>,
    /// By partition, of those that have moved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) epoch_bases: BTreeMap<u32, i32>,
}

/// See [`crate::Move`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MoveRecord {
    pub(crate) tenant: TenantId,
    pub(crate) from: VolumeId,
    pub(crate) to: VolumeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sealed: Option<u64>,
}

/// What is set on a resource that is not a topic, verbatim; never empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConfigRecord {
    pub(crate) overrides: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    /// 32 hex digits, drawn at each registration of a process.
    pub(crate) incarnation: String,
    pub(crate) kafka_host: String,
    pub(crate) kafka_port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rack: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<PeerAddress>,
    #[serde(default)]
    pub(crate) roles: Roles,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct VolumeRecord {
    pub(crate) spec: VolumeSpec,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<NodeId>,
    pub(crate) epoch: VolumeEpoch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wanted: Option<NodeId>,
}

/// Why a node shall own nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DrainRecord {
    /// It said so itself: it is about to end.
    #[serde(default)]
    pub(crate) leaving: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BalancerRecord {
    pub(crate) node: NodeId,
    /// Of the node's life that was elected.
    pub(crate) incarnation: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct BalanceRecord {
    pub(crate) on: bool,
}

/// The newest last.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct DecisionsRecord {
    pub(crate) decisions: Vec<Decision>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ProducerIdsRecord {
    /// The smallest id that has not been given out.
    pub(crate) next: i64,
}

/// A value that is not what its key promises.
#[derive(Debug, thiserror::Error)]
#[error("the value of {key} in the metadata store does not parse: {reason}")]
pub(crate) struct BadRecord {
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl From<BadRecord> for StoreError {
    fn from(bad: BadRecord) -> Self {
        Self::Corrupt(bad.to_string())
    }
}

pub(crate) fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, BadRecord> {
    serde_json::from_slice(value)
        .map_err(|error| BadRecord { key: key.to_owned(), reason: error.to_string() })
}

pub(crate) fn encode(record: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(record).expect("records have text keys and no failing serializers")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_apart_as_they_were_put_together() {
        let tenant = TenantId(7);
        assert_eq!(Key::parse(&topic(tenant, "a.b")), Key::Topic(tenant, "a.b"));
        let stream = StreamId { topic: TopicId([0xab; 16]), partition: 3 };
        assert_eq!(Key::parse(&stream_move(stream)), Key::Move(stream));
        for kind in ResourceKind::ALL {
            let key = configs(tenant, kind, "any/name at\u{e9} all");
            assert_eq!(Key::parse(&key), Key::Configs(tenant, kind, "any/name at\u{e9} all"));
        }
        let all_brokers = configs(tenant, ResourceKind::Broker, "");
        assert_eq!(Key::parse(&all_brokers), Key::Configs(tenant, ResourceKind::Broker, ""));
        assert_eq!(Key::parse(&node(NodeId(3))), Key::Node(NodeId(3)));
        assert_eq!(Key::parse(&volume(VolumeId(0))), Key::Volume(VolumeId(0)));
        assert_eq!(Key::parse(&load(NodeId(4))), Key::Load(NodeId(4)));
        assert_eq!(Key::parse(&drain(NodeId(5))), Key::Drain(NodeId(5)));
        assert_eq!(Key::parse(BALANCER), Key::Balancer);
        assert_eq!(Key::parse(BALANCE), Key::Balance);
        for other in [CLUSTER, PRODUCER_IDS, "/sluice/later/1", "/sluice/topics/x/y", "", "/"] {
            assert_eq!(Key::parse(other), Key::Other, "{other}");
        }
    }

    #[test]
    fn records_keep_their_text_form() {
        let record = TopicRecord {
            id: TopicId([0xab; 16]),
            partitions: vec![VolumeId(0), VolumeId(1)],
            overrides: BTreeMap::from([("retention.ms".to_owned(), "7".to_owned())]),
            epoch_bases: BTreeMap::new(),
        };
        let text = r#"{"id":"abababababababababababababababab","partitions":[0,1],"overrides":{"retention.ms":"7"}}"#;
        assert_eq!(encode(&record), text.as_bytes());
        let moved =
            r#"{"id":"abababababababababababababababab","partitions":[0],"epoch_bases":{"0":-2}}"#;
        let record: TopicRecord = decode("k", moved.as_bytes()).unwrap();
        assert_eq!(record.epoch_bases, BTreeMap::from([(0, -2)]));
        assert_eq!(encode(&record), moved.as_bytes());
        let volume = r#"{"spec":{"id":4,"kind":"file","location":"v4","size_bytes":99},"epoch":2}"#;
        let record: VolumeRecord = decode("k", volume.as_bytes()).unwrap();
        assert_eq!((record.owner, record.epoch, record.wanted), (None, VolumeEpoch(2), None));
        assert_eq!((record.spec.home, &record.spec.zone), (None, &None));
        assert_eq!(encode(&record), volume.as_bytes());
        let moving = r#"{"spec":{"id":4,"kind":"file","location":"v4","size_bytes":99,"home":3,"zone":"a"},"owner":3,"epoch":2,"wanted":5}"#;
        let record: VolumeRecord = decode("k", moving.as_bytes()).unwrap();
        assert_eq!((record.spec.home, record.wanted), (Some(NodeId(3)), Some(NodeId(5))));
        assert_eq!(encode(&record), moving.as_bytes());
    }
}
