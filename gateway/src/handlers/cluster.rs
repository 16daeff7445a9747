//! DescribeCluster and FindCoordinator: which nodes there are, and which to ask.

use std::sync::Arc;

use sluice_wire::messages::describe_cluster_request::DescribeClusterRequest;
use sluice_wire::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};
use sluice_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use sluice_wire::messages::find_coordinator_response::{Coordinator, FindCoordinatorResponse};
use sluice_wire::{ErrorCode, Str};

use super::{internal_topics, permitted, resolve};
use crate::context::Context;
use crate::gateway::Core;

/// Endpoint types of DescribeCluster (KIP-919).
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;
/// Kinds of coordinator.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// Several keys may be asked for from this version on (KIP-699).
const KEYS_FROM: i16 = 4;

/// DescribeCluster.
pub(crate) async fn describe_cluster(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.endpoint_type != BROKERS {
        let (code, message) = match request.endpoint_type {
            CONTROLLERS => (
                ErrorCode::MismatchedEndpointType,
                "this is an endpoint of brokers, and controllers were asked for".to_owned(),
            ),
            other => {
                (ErrorCode::UnsupportedEndpointType, format!("unsupported endpoint type {other}"))
            }
        };
        return DescribeClusterResponse {
            error_code: code.code(),
            error_message: Some(message.into()),
            ..Default::default()
        };
    }
    let broker = |broker: resolve::Broker| DescribeClusterBroker {
        broker_id: broker.id,
        host: broker.host,
        port: broker.port,
        rack: broker.rack,
        ..Default::default()
    };
    let operations = request.include_cluster_authorized_operations;
    DescribeClusterResponse {
        cluster_id: core.catalog.cluster_id_of(ctx.caller.tenant).into(),
        // Every node takes what a controller takes.
        controller_id: core.config.node_id.0,
        brokers: resolve::brokers(core).into_iter().map(broker).collect(),
        cluster_authorized_operations: if operations { permitted::CLUSTER } else { i32::MIN },
        ..Default::default()
    }
}

/// FindCoordinator. Every node takes the requests of every group and every transactional id, and passes them to the
/// one that has the coordinators: that one is named if clients connect to it, else one to which they do. Of share
/// groups' state there is nothing to be found: that is between brokers.
pub(crate) async fn find_coordinator(
    core: &Arc<Core>,
    ctx: &Context,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if request.key_type == GROUP {
        internal_topics::for_groups(core, ctx.caller.tenant).await;
    }
    let leaders = resolve::Leaders::new(core, ctx);
    let find = |key: &str| match request.key_type {
        GROUP | TRANSACTION => Ok(leaders.coordinator(core, key)),
        _ => Err((
            ErrorCode::InvalidRequest,
            Str::from_static("there is no such kind of coordinator"),
        )),
    };
    if ctx.version < KEYS_FROM {
        return match find(&request.key) {
            Ok(broker) => FindCoordinatorResponse {
                // Kafka names its error here even if it is none.
                error_message: Some(Str::from_static("NONE")),
                node_id: broker.id,
                host: broker.host.clone(),
                port: broker.port,
                ..Default::default()
            },
            Err((code, message)) => FindCoordinatorResponse {
                error_code: code.code(),
                error_message: Some(message),
                node_id: -1,
                port: -1,
                ..Default::default()
            },
        };
    }
    let coordinator = |key: Str| match find(&key) {
        Ok(broker) => Coordinator {
            node_id: broker.id,
            host: broker.host.clone(),
            port: broker.port,
            error_code: ErrorCode::None.code(),
            error_message: None,
            key,
        },
        Err((code, message)) => Coordinator {
            node_id: -1,
            host: Str::default(),
            port: -1,
            error_code: code.code(),
            error_message: Some(message),
            key,
        },
    };
    FindCoordinatorResponse {
        coordinators: request.coordinator_keys.into_iter().map(coordinator).collect(),
        ..Default::default()
    }
}
