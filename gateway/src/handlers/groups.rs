//! Classic groups: the coordinator does the work. Here an answer is made sayable in the request's
//! version, where old versions lack a field or a null.

use std::sync::Arc;

use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;
use sluice_wire::messages::delete_groups_response::DeleteGroupsResponse;
use sluice_wire::messages::describe_groups_request::DescribeGroupsRequest;
use sluice_wire::messages::describe_groups_response::DescribeGroupsResponse;
use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::heartbeat_response::HeartbeatResponse;
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::leave_group_request::LeaveGroupRequest;
use sluice_wire::messages::leave_group_response::LeaveGroupResponse;
use sluice_wire::messages::list_groups_request::ListGroupsRequest;
use sluice_wire::messages::list_groups_response::ListGroupsResponse;
use sluice_wire::messages::sync_group_request::SyncGroupRequest;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str};

use super::permitted;
use crate::context::Context;
use crate::gateway::Core;

/// JoinGroup.
pub(crate) async fn join_group(
    core: &Arc<Core>,
    ctx: &Context,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    let mut answer = core.backend.join_group(&ctx.caller, ctx.version, request).await;
    // Null since version 7, the leader's choice since version 9.
    if ctx.version < 7 {
        answer.protocol_name.get_or_insert_with(Str::default);
    }
    answer.skip_assignment &= ctx.version >= 9;
    answer
}

/// SyncGroup.
pub(crate) async fn sync_group(
    core: &Arc<Core>,
    ctx: &Context,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    // KIP-559: from version 5 on a client says what it has agreed to.
    if ctx.version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return SyncGroupResponse {
            error_code: ErrorCode::InconsistentGroupProtocol.code(),
            ..Default::default()
        };
    }
    core.backend.sync_group(&ctx.caller, request).await
}

/// Heartbeat.
pub(crate) async fn heartbeat(
    core: &Arc<Core>,
    ctx: &Context,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    core.backend.heartbeat(&ctx.caller, request).await
}

/// LeaveGroup.
pub(crate) async fn leave_group(
    core: &Arc<Core>,
    ctx: &Context,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let mut answer = core.backend.leave_group(&ctx.caller, ctx.version, request).await;
    // Before version 3 one member leaves, and its error is the answer's.
    if ctx.version < 3 {
        for member in answer.members.drain(..) {
            if answer.error_code == 0 {
                answer.error_code = member.error_code;
            }
        }
    }
    answer
}

/// DescribeGroups.
pub(crate) async fn describe_groups(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let operations = request.include_authorized_operations && ctx.version >= 3;
    let mut answer = core.backend.describe_groups(&ctx.caller, ctx.version, request).await;
    for group in &mut answer.groups {
        if ctx.version < 6 {
            group.error_message = None;
        }
        group.authorized_operations =
            if operations && group.error_code == 0 { permitted::GROUP } else { i32::MIN };
    }
    answer
}

/// ListGroups.
pub(crate) async fn list_groups(
    core: &Arc<Core>,
    ctx: &Context,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    core.backend.list_groups(&ctx.caller, request).await
}

/// DeleteGroups.
pub(crate) async fn delete_groups(
    core: &Arc<Core>,
    ctx: &Context,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    core.backend.delete_groups(&ctx.caller, request).await
}
