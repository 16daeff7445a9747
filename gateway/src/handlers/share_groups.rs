//! Share groups: the coordinator and the share partitions do the work. Here an answer is bounded, and told who
//! leads.

use std::sync::Arc;

use sluice_model::{StreamId, TopicId};
use sluice_wire::ErrorCode;
use sluice_wire::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequest;
use sluice_wire::messages::alter_share_group_offsets_response::AlterShareGroupOffsetsResponse;
use sluice_wire::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest;
use sluice_wire::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponse;
use sluice_wire::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest;
use sluice_wire::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponse;
use sluice_wire::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use sluice_wire::messages::share_acknowledge_response::ShareAcknowledgeResponse;
use sluice_wire::messages::share_fetch_request::ShareFetchRequest;
use sluice_wire::messages::share_fetch_response::{
    LeaderIdAndEpoch, NodeEndpoint, ShareFetchResponse,
};
use sluice_wire::messages::share_group_describe_request::ShareGroupDescribeRequest;
use sluice_wire::messages::share_group_describe_response::ShareGroupDescribeResponse;
use sluice_wire::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use sluice_wire::messages::share_group_heartbeat_response::ShareGroupHeartbeatResponse;

use super::{permitted, resolve};
use crate::context::Context;
use crate::gateway::Core;

/// ShareGroupHeartbeat.
pub(crate) async fn share_group_heartbeat(
    core: &Arc<Core>,
    ctx: &Context,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    core.backend.share_group_heartbeat(&ctx.caller, request).await
}

/// ShareGroupDescribe.
pub(crate) async fn share_group_describe(
    core: &Arc<Core>,
    ctx: &Context,
    request: ShareGroupDescribeRequest,
) -> ShareGroupDescribeResponse {
    let operations = request.include_authorized_operations;
    let mut answer = core.backend.share_group_describe(&ctx.caller, request).await;
    for group in &mut answer.groups {
        let shows = operations && group.error_code == 0;
        group.authorized_operations = if shows { permitted::GROUP } else { i32::MIN };
    }
    answer
}

/// ShareFetch.
pub(crate) async fn share_fetch(
    core: &Arc<Core>,
    ctx: &Context,
    request: ShareFetchRequest,
) -> ShareFetchResponse {
    let max_bytes = u32::try_from(ctx.answer_bytes).unwrap_or(u32::MAX);
    ctx.connected.note_share_fetch();
    let mut answer = core.backend.share_fetch(&ctx.caller, ctx.version, request, max_bytes).await;
    let mut endpoints: Vec<NodeEndpoint> = Vec::new();
    for topic in &mut answer.responses {
        for place in &mut topic.partitions {
            if place.error_code != ErrorCode::NotLeaderOrFollower.code() {
                continue;
            }
            let partition = place.partition_index.cast_unsigned();
            let stream = StreamId { topic: TopicId(topic.topic_id.0), partition };
            let Some((broker, leader_epoch)) = resolve::current_leader(core, ctx, stream) else {
                continue;
            };
            place.current_leader = LeaderIdAndEpoch { leader_id: broker.id, leader_epoch };
            if endpoints.iter().all(|endpoint| endpoint.node_id != broker.id) {
                endpoints.push(NodeEndpoint {
                    node_id: broker.id,
                    host: broker.host,
                    port: broker.port,
                    rack: broker.rack,
                });
            }
        }
    }
    answer.node_endpoints = endpoints;
    answer
}

/// ShareAcknowledge.
pub(crate) async fn share_acknowledge(
    core: &Arc<Core>,
    ctx: &Context,
    request: ShareAcknowledgeRequest,
) -> ShareAcknowledgeResponse {
    core.backend.share_acknowledge(&ctx.caller, ctx.version, request).await
}

/// DescribeShareGroupOffsets.
pub(crate) async fn describe_share_group_offsets(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    core.backend.describe_share_group_offsets(&ctx.caller, request).await
}

/// AlterShareGroupOffsets.
pub(crate) async fn alter_share_group_offsets(
    core: &Arc<Core>,
    ctx: &Context,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    core.backend.alter_share_group_offsets(&ctx.caller, request).await
}

/// DeleteShareGroupOffsets.
pub(crate) async fn delete_share_group_offsets(
    core: &Arc<Core>,
    ctx: &Context,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    core.backend.delete_share_group_offsets(&ctx.caller, request).await
}
