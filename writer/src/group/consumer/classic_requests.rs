//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup that reach a consumer group. Each gives `None` when
//! the group is none, or nobody is in it: then it is the classic machine's.

use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::sync_group_request::SyncGroupRequest;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str, Uuid};

use super::ConsumerGroup;
use super::classic::Join;
use crate::group::kind::{Kind, Modern};
use crate::group::machine::{Leaving, refused_join};
use crate::group::modern::{Refusal, Turn};
use crate::group::{GroupCaller, GroupCoordinator};

impl GroupCoordinator {
    pub(in crate::group) async fn join_consumer_group(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: &JoinGroupRequest,
    ) -> Option<JoinGroupResponse> {
        let join = Join {
            request,
            version,
            client_id: &caller.client_id,
            client_host: &caller.client_host,
            new_id: Str::from(Uuid(self.shared.entropy.random_16()).to_string()),
        };
        let done = self
            .on_consumer_group(caller, &request.group_id, |group, turn| group.join(turn, &join));
        let done = done.await?;
        Some(done.unwrap_or_else(|refusal| refused_join(&request.member_id, refusal.code)))
    }

    pub(in crate::group) async fn sync_consumer_group(
        &self,
        caller: &GroupCaller,
        request: &SyncGroupRequest,
    ) -> Option<SyncGroupResponse> {
        let done = self
            .on_consumer_group(caller, &request.group_id, |group, turn| group.sync(turn, request));
        Some(done.await?.unwrap_or_else(|refusal| SyncGroupResponse {
            error_code: refusal.code.code(),
            ..Default::default()
        }))
    }

    pub(in crate::group) async fn beat_consumer_group(
        &self,
        caller: &GroupCaller,
        request: &HeartbeatRequest,
    ) -> Option<ErrorCode> {
        let done = self.on_consumer_group(caller, &request.group_id, |group, turn| {
            group.classic_heartbeat(turn, request)
        });
        Some(done.await?.map_or_else(|refusal| refusal.code, |()| ErrorCode::None))
    }

    pub(in crate::group) async fn leave_consumer_group(
        &self,
        caller: &GroupCaller,
        group_id: &str,
        leaving: &[Leaving<'_>],
    ) -> Option<Vec<ErrorCode>> {
        let done = self.on_consumer_group(caller, group_id, |group, turn| {
            Ok(group.classic_leave(turn, leaving))
        });
        Some(done.await?.unwrap_or_else(|refusal| vec![refusal.code; leaving.len()]))
    }

    async fn on_consumer_group<R>(
        &self,
        caller: &GroupCaller,
        group_id: &str,
        event: impl FnOnce(&mut ConsumerGroup, &mut Turn<'_>) -> Result<R, Refusal>,
    ) -> Option<Result<R, Refusal>> {
        let concerned = self.shared.with_group(
            caller.tenant,
            group_id,
            |_, state| matches!(&state.kind, Kind::Consumer(group) if !group.is_vacant()),
        );
        if concerned != Some(true) {
            return None;
        }
        self.decide(caller, group_id, false, |kind, turn| match kind {
            Kind::Consumer(group) => event(group, turn),
            // It has changed over meanwhile: the client is to ask again.
            _ => Err(ErrorCode::RebalanceInProgress.into()),
        })
        .await
    }
}
