//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup: from the request to the group's machine and back.

use std::sync::Arc;

use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::heartbeat_response::HeartbeatResponse;
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::leave_group_request::LeaveGroupRequest;
use sluice_wire::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use sluice_wire::messages::sync_group_request::SyncGroupRequest;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str};

use super::cell::{Cell, CellState};
use super::kind::Kind;
use super::machine::{Group, JoinEvent, Leaving, refused_join};
use super::shared::Phase;
use super::{GroupCaller, GroupCoordinator};

impl GroupCoordinator {
    /// JoinGroup, versions 0 to 9. Waits until the join phase ends: up to the longest rebalance
    /// timeout in the group.
    pub async fn join_group(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: JoinGroupRequest,
    ) -> JoinGroupResponse {
        let mut answer = match self.check_join(&request) {
            Ok(()) => self.join_checked(caller, version, &request).await,
            Err(code) => refused_join(&request.member_id, code),
        };
        if version < 7 {
            // KIP-559: before version 7 the name cannot be null.
            answer.protocol_name.get_or_insert_default();
        }
        answer
    }

    fn check_join(&self, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        self.shared.check_active()?;
        self.check_group_id(&request.group_id)?;
        let config = &self.shared.config;
        let allowed = config.min_session_timeout_ms..=config.max_session_timeout_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        let offered: usize =
            request.protocols.iter().map(|p| p.name.len() + p.metadata.len()).sum();
        if offered > config.max_subscription_bytes {
            return Err(ErrorCode::InvalidRequest);
        }
        Ok(())
    }

    async fn join_checked(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: &JoinGroupRequest,
    ) -> JoinGroupResponse {
        if let Some(answer) = self.join_consumer_group(caller, version, request).await {
            return answer;
        }
        let shared = &self.shared;
        let random = shared.entropy.random_16();
        let join = |cell: &Arc<Cell>, state: &mut CellState| {
            state.check_settled()?;
            if state.kind.modern().is_some() {
                // What a share group has of its streams would stay behind.
                let keeps_its_id = matches!(state.kind, Kind::Share(_));
                if !state.kind.is_vacant() || state.deciding > 0 || keeps_its_id {
                    return Err(ErrorCode::InconsistentGroupProtocol);
                }
                // An empty group gives its id up, as in Kafka. What is stored of it goes when the
                // classic group is stored.
                state.kind = Kind::Classic(Group::new(shared.clock.wall_ms()));
            }
            let (ticket, answer) = state.await_join();
            let event = JoinEvent {
                request,
                version,
                client_id: &caller.client_id,
                client_host: &caller.client_host,
                random,
                ticket,
            };
            shared.drive(cell, state, |group, cx| group.join(cx, &event));
            self.unpark_if_closed(cell, state);
            Ok(answer)
        };
        // Only a client without a member id may begin a group: an id from before is a group's that
        // is gone.
        let (answer, otherwise) = if request.member_id.is_empty() {
            let limit = shared.config.max_groups_per_tenant;
            let answer = shared.with_group_or_new(caller.tenant, &request.group_id, limit, join);
            (answer, ErrorCode::PolicyViolation)
        } else {
            let answer = shared.with_group(caller.tenant, &request.group_id, join);
            (answer, ErrorCode::UnknownMemberId)
        };
        match answer {
            None => refused_join(&request.member_id, otherwise),
            Some(Err(code)) => refused_join(&request.member_id, code),
            Some(Ok(answer)) => answer
                .await
                .unwrap_or_else(|_| refused_join(&request.member_id, ErrorCode::NotCoordinator)),
        }
    }

    /// SyncGroup, versions 0 to 5. Waits until the leader's assignment is durable.
    pub async fn sync_group(
        &self,
        caller: &GroupCaller,
        request: SyncGroupRequest,
    ) -> SyncGroupResponse {
        let refuse =
            |code: ErrorCode| SyncGroupResponse { error_code: code.code(), ..Default::default() };
        if let Err(code) = self.check(&request.group_id) {
            return refuse(code);
        }
        if let Some(answer) = self.sync_consumer_group(caller, &request).await {
            return answer;
        }
        let shared = &self.shared;
        let answer = shared.with_group(caller.tenant, &request.group_id, |cell, state| {
            state.kind.classic()?;
            let (ticket, answer) = state.await_sync();
            shared.drive(cell, state, |group, cx| group.sync(cx, &request, ticket));
            self.unpark_if_closed(cell, state);
            Some(answer)
        });
        match answer.flatten() {
            None => refuse(ErrorCode::UnknownMemberId),
            Some(answer) => answer.await.unwrap_or_else(|_| refuse(ErrorCode::NotCoordinator)),
        }
    }

    /// Heartbeat, versions 0 to 4.
    pub async fn heartbeat(
        &self,
        caller: &GroupCaller,
        request: HeartbeatRequest,
    ) -> HeartbeatResponse {
        let code = match self.check(&request.group_id) {
            // While the group loads nobody's session runs, so the member is as alive as ever.
            Err(_) if self.shared.phase() == Phase::Loading => ErrorCode::None,
            Err(code) => code,
            Ok(()) => match self.beat_consumer_group(caller, &request).await {
                Some(code) => code,
                None => self.beat(caller, &request),
            },
        };
        HeartbeatResponse { error_code: code.code(), ..Default::default() }
    }

    fn beat(&self, caller: &GroupCaller, request: &HeartbeatRequest) -> ErrorCode {
        let shared = &self.shared;
        let code = shared.with_group(caller.tenant, &request.group_id, |cell, state| {
            shared.drive(cell, state, |group, cx| {
                let instance = request.group_instance_id.as_deref();
                group.heartbeat(cx, &request.member_id, instance, request.generation_id)
            })
        });
        code.flatten().unwrap_or(ErrorCode::UnknownMemberId)
    }

    /// LeaveGroup, versions 0 to 5; up to version 2 one member leaves and the answer is its code.
    pub async fn leave_group(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: LeaveGroupRequest,
    ) -> LeaveGroupResponse {
        if let Err(code) = self.check(&request.group_id) {
            return LeaveGroupResponse { error_code: code.code(), ..Default::default() };
        }
        let single = version < 3;
        let leaving: Vec<Leaving<'_>> = if single {
            vec![Leaving { member_id: &request.member_id, instance: None }]
        } else {
            let members = request.members.iter();
            members
                .map(|member| Leaving {
                    member_id: &member.member_id,
                    instance: member.group_instance_id.as_deref(),
                })
                .collect()
        };
        let shared = &self.shared;
        let of_consumers = self.leave_consumer_group(caller, &request.group_id, &leaving).await;
        let of_classics = || {
            shared
                .with_group(caller.tenant, &request.group_id, |cell, state| {
                    shared.drive(cell, state, |group, cx| group.leave(cx, &leaving))
                })
                .flatten()
                .unwrap_or_else(|| vec![ErrorCode::UnknownMemberId; leaving.len()])
        };
        let codes = of_consumers.unwrap_or_else(of_classics);
        if single {
            let code = codes.first().copied().unwrap_or(ErrorCode::UnknownMemberId);
            return LeaveGroupResponse { error_code: code.code(), ..Default::default() };
        }
        let members = request.members.into_iter().zip(codes).map(|(member, code)| MemberResponse {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            error_code: code.code(),
        });
        LeaveGroupResponse { members: members.collect(), ..Default::default() }
    }

    /// What was parked while the coordinator closed would wait for nobody.
    fn unpark_if_closed(&self, cell: &Arc<Cell>, state: &mut CellState) {
        if self.shared.phase() == Phase::Closed {
            self.shared.drive(cell, state, |group, cx| group.unload(cx, ErrorCode::NotCoordinator));
        }
    }

    pub(super) fn check(&self, group_id: &Str) -> Result<(), ErrorCode> {
        self.shared.check_active()?;
        self.check_group_id(group_id)
    }

    /// A group with members has an id. (Offsets may be kept under the empty one, as ever.)
    fn check_group_id(&self, group_id: &Str) -> Result<(), ErrorCode> {
        if group_id.is_empty() || group_id.len() > self.shared.config.max_group_id_bytes {
            return Err(ErrorCode::InvalidGroupId);
        }
        Ok(())
    }
}
