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

/// FindCoordinator. This node takes the requests of every group and every transactional id, and passes
/// them to the owner. There are no coordinators of share groups yet: who asks gets a code that clients
/// take as final, instead of one that they would retry for ever.
pub(crate) async fn find_coordinator(
    core: &Arc<Core>,
    ctx: &Context,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if request.key_type == GROUP {
        internal_topics::for_groups(core, ctx.caller.tenant).await;
    }
    let own = resolve::own_broker(core);
    let (code, message) = match request.key_type {
        GROUP | TRANSACTION => (ErrorCode::None, None),
        _ => (ErrorCode::InvalidRequest, Some("there is no such kind of coordinator".into())),
    };
    let (node_id, host, port) = match code {
        ErrorCode::None => (own.id, own.host, own.port),
        _ => (-1, Str::default(), -1),
    };
    if ctx.version < KEYS_FROM {
        return FindCoordinatorResponse {
            error_code: code.code(),
            // Kafka names its error here even if it is none.
            error_message: message.or(Some(Str::from_static("NONE"))),
            node_id,
            host,
            port,
            ..Default::default()
        };
    }
    let coordinator = |key| Coordinator {
        key,
        node_id,
        host: host.clone(),
        port,
        error_code: code.code(),
        error_message: message.clone(),
    };
    FindCoordinatorResponse {
        coordinators: request.coordinator_keys.into_iter().map(coordinator).collect(),
        ..Default::default()
    }
}
