//! ConsumerGroupHeartbeat and ConsumerGroupDescribe: from the request to the group's machine and back.

use sluice_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use sluice_wire::messages::consumer_group_describe_response::{
    ConsumerGroupDescribeResponse, DescribedGroup,
};
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use sluice_wire::{ErrorCode, Str, Uuid};

use super::ConsumerGroup;
use super::heartbeat::{Beat, JOIN, LEAVE, check};
use super::member::LEFT_FOR_NOW;
use crate::group::kind::Kind;
use crate::group::modern::{Refusal, Turn};
use crate::group::{GroupCaller, GroupCoordinator};

impl GroupCoordinator {
    /// ConsumerGroupHeartbeat, versions 0 to 1. Answers when what it changed is durable.
    pub async fn consumer_group_heartbeat(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let done = self.heartbeat_checked(caller, version, &request).await;
        done.unwrap_or_else(|refusal| ConsumerGroupHeartbeatResponse {
            error_code: refusal.code.code(),
            error_message: refusal.message,
            ..Default::default()
        })
    }

    async fn heartbeat_checked(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        self.shared.check_active()?;
        check(version, request)?;
        self.check(&request.group_id)?;
        let member_id = match &*request.member_id {
            "" => Str::from(Uuid(self.shared.entropy.random_16()).to_string()),
            given => Str::from(given),
        };
        if member_id.len() > self.shared.config.max_member_id_bytes {
            return Err(ErrorCode::InvalidRequest.into());
        }
        let beat = Beat {
            request,
            client_id: &caller.client_id,
            client_host: &caller.client_host,
            member_id,
        };
        let joins = request.member_epoch == JOIN;
        let group_id = &*request.group_id;
        let done =
            self.decide(caller, group_id, joins, |kind, turn| on_beat(kind, turn, &beat)).await;
        done.unwrap_or_else(|| {
            let what = if matches!(request.member_epoch, LEAVE | LEFT_FOR_NOW) {
                "Group"
            } else {
                "Consumer group"
            };
            let message = format!("{what} {group_id} not found.");
            Err(Refusal::new(ErrorCode::GroupIdNotFound, message))
        })
    }

    /// ConsumerGroupDescribe, versions 0 to 1. Shows what is decided, which may not be durable yet.
    pub async fn consumer_group_describe(
        &self,
        caller: &GroupCaller,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let mut groups = Vec::with_capacity(request.group_ids.len());
        for group_id in request.group_ids {
            let found = self.describe_consumer_group(caller, &group_id).await;
            groups.push(found.unwrap_or_else(|refusal| DescribedGroup {
                error_code: refusal.code.code(),
                error_message: refusal.message,
                group_id,
                ..Default::default()
            }));
        }
        ConsumerGroupDescribeResponse { groups, ..Default::default() }
    }

    async fn describe_consumer_group(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
    ) -> Result<DescribedGroup, Refusal> {
        self.check(group_id)?;
        let absent = |message| Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        let found = self.decide(caller, group_id, false, |kind, turn| match kind {
            Kind::Consumer(group) => Ok(group.describe(turn)),
            Kind::Classic(_) | Kind::Share(_) | Kind::Streams(_) => {
                absent(format!("Group {group_id} is not a consumer group."))
            }
        });
        found.await.unwrap_or_else(|| absent(format!("Group {group_id} not found.")))
    }
}

/// A heartbeat reaches a group of whatever kind.
fn on_beat(
    kind: &mut Kind,
    turn: &mut Turn<'_>,
    beat: &Beat<'_>,
) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
    let joins = beat.request.member_epoch == JOIN;
    let group = match kind {
        Kind::Consumer(group) => group,
        Kind::Classic(classic) if joins && classic.is_vacant() => {
            let mut group = ConsumerGroup::default();
            let answer = group.heartbeat(turn, beat)?;
            *kind = Kind::Consumer(Box::new(group));
            return Ok(answer);
        }
        Kind::Classic(classic) if joins => {
            let mut group = ConsumerGroup::from_classic(turn, classic)?;
            match group.heartbeat(turn, beat) {
                Ok(answer) => {
                    turn.replaces(std::mem::replace(kind, Kind::Consumer(Box::new(group))));
                    return Ok(answer);
                }
                Err(refusal) => {
                    turn.forget();
                    return Err(refusal);
                }
            }
        }
        Kind::Classic(_) | Kind::Share(_) | Kind::Streams(_) => {
            let message = format!("Group {} is not a consumer group.", turn.group);
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        }
    };
    match beat.request.member_epoch {
        LEAVE | LEFT_FOR_NOW => group.leave(turn, beat.request),
        _ => group.heartbeat(turn, beat),
    }
}
