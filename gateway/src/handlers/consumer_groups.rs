//! Consumer groups of KIP-848: the coordinator does the work.

use std::sync::Arc;

use sluice_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use sluice_wire::messages::consumer_group_describe_response::ConsumerGroupDescribeResponse;
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;

use super::permitted;
use crate::context::Context;
use crate::gateway::Core;

/// ConsumerGroupHeartbeat.
pub(crate) async fn heartbeat(
    core: &Arc<Core>,
    ctx: &Context,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    core.backend.consumer_group_heartbeat(&ctx.caller, ctx.version, request).await
}

/// ConsumerGroupDescribe.
pub(crate) async fn describe(
    core: &Arc<Core>,
    ctx: &Context,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let operations = request.include_authorized_operations;
    let mut answer = core.backend.consumer_group_describe(&ctx.caller, request).await;
    for group in &mut answer.groups {
        if operations && group.error_code == 0 {
            group.authorized_operations = permitted::GROUP;
        }
    }
    answer
}
