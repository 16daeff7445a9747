//! DescribeQuorum, UpdateFeatures and UnregisterBroker: what Kafka's controller is asked about itself
//! and its cluster. The catalog is no Kafka log and is shared by all tenants, so that nothing of it
//! shows here; every node takes what a controller takes.

use std::sync::Arc;

use sluice_model::limits::MAX_PARTITIONS_PER_REQUEST;
use sluice_wire::messages::describe_quorum_request::DescribeQuorumRequest;
use sluice_wire::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use sluice_wire::messages::unregister_broker_request::UnregisterBrokerRequest;
use sluice_wire::messages::unregister_broker_response::UnregisterBrokerResponse;
use sluice_wire::messages::update_features_request::{FeatureUpdateKey, UpdateFeaturesRequest};
use sluice_wire::messages::update_features_response::UpdateFeaturesResponse;
use sluice_wire::{ErrorCode, Str};

use super::resolve;
use crate::context::Context;
use crate::gateway::Core;

/// The log of Kafka's quorum.
const METADATA_TOPIC: &str = "__cluster_metadata";
/// Java's client takes only names in capitals for listeners of controllers.
const CONTROLLER_LISTENER: &str = "CONTROLLER";
/// Of an election that was held once.
const EPOCH: i32 = 1;
/// DescribeQuorum tells where the voters are from this version on (KIP-853).
const NODES_FROM: i16 = 2;
/// Kafka's `FeatureUpdate.UpgradeType`: upgrade, safe and unsafe downgrade.
const UPGRADE_TYPES: std::ops::RangeInclusive<i8> = 1..=3;

/// DescribeQuorum: this node as the leader and only voter, of a log that has no records a tenant
/// could see.
pub(crate) async fn describe_quorum(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let asked = request.topics.iter().map(|topic| topic.partitions.len());
    if asked.sum::<usize>() > MAX_PARTITIONS_PER_REQUEST {
        let code = ErrorCode::PolicyViolation;
        return DescribeQuorumResponse {
            error_code: code.code(),
            error_message: Some(Str::from_static(code.message())),
            ..Default::default()
        };
    }
    let own = resolve::own_broker(core);
    let quorum = PartitionData {
        leader_id: own.id,
        leader_epoch: EPOCH,
        current_voters: vec![ReplicaState { replica_id: own.id, ..Default::default() }],
        ..Default::default()
    };
    let is_quorum = match &request.topics[..] {
        [topic] => {
            topic.topic_name == METADATA_TOPIC
                && matches!(&topic.partitions[..], [only] if only.partition_index == 0)
        }
        _ => false,
    };
    let nodes = if is_quorum && ctx.version >= NODES_FROM {
        let listener = Listener {
            name: Str::from_static(CONTROLLER_LISTENER),
            host: own.host,
            port: core.config.advertised_port,
        };
        vec![Node { node_id: own.id, listeners: vec![listener] }]
    } else {
        Vec::new()
    };
    let unknown = ErrorCode::UnknownTopicOrPartition;
    let partition = |partition_index| match is_quorum {
        true => quorum.clone(),
        false => PartitionData {
            partition_index,
            error_code: unknown.code(),
            error_message: Some(Str::from_static(unknown.message())),
            ..Default::default()
        },
    };
    let topics = request.topics.into_iter().map(|topic| TopicData {
        topic_name: topic.topic_name,
        partitions: topic.partitions.iter().map(|p| partition(p.partition_index)).collect(),
    });
    DescribeQuorumResponse { topics: topics.collect(), nodes, ..Default::default() }
}

/// UpdateFeatures: no feature is announced, so that there is none to set. As in Kafka the first
/// update that cannot be made fails all of them, and the answer's own code says so.
pub(crate) async fn update_features(
    _core: &Arc<Core>,
    _ctx: &Context,
    request: UpdateFeaturesRequest,
) -> UpdateFeaturesResponse {
    let Some(update) = request.feature_updates.first() else {
        return UpdateFeaturesResponse { error_message: None, ..Default::default() };
    };
    let FeatureUpdateKey { feature, max_version_level, upgrade_type, .. } = update;
    let why = match max_version_level {
        _ if !UPGRADE_TYPES.contains(upgrade_type) => {
            "The controller does not support the given upgrade type.".to_owned()
        }
        ..0 => "A feature version cannot be less than 0.".to_owned(),
        0 => format!("Feature {feature} not found."),
        1.. => "The server does not support this feature.".to_owned(),
    };
    let message = format!(
        "The update failed for all features since the following feature had an error: Invalid update \
         version {max_version_level} for feature {feature}. {why}"
    );
    UpdateFeaturesResponse {
        error_code: ErrorCode::InvalidUpdateVersion.code(),
        error_message: Some(message.into()),
        ..Default::default()
    }
}

/// UnregisterBroker: nodes come and go by the operator.
pub(crate) async fn unregister_broker(
    core: &Arc<Core>,
    _ctx: &Context,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let id = request.broker_id;
    let known = resolve::brokers(core).iter().any(|broker| broker.id == id);
    let (code, message) = if known {
        let message = format!("Broker ID {id} is managed by the operator of this service");
        (ErrorCode::ClusterAuthorizationFailed, message)
    } else {
        (ErrorCode::BrokerIdNotRegistered, format!("Broker ID {id} is not currently registered"))
    };
    UnregisterBrokerResponse {
        error_code: code.code(),
        error_message: Some(message.into()),
        ..Default::default()
    }
}
