//! Share groups' requests: from the request to the group's machine and back.

use std::collections::BTreeMap;

use sluice_model::TopicId;
use sluice_wire::messages::share_group_describe_request::ShareGroupDescribeRequest;
use sluice_wire::messages::share_group_describe_response::{
    DescribedGroup, ShareGroupDescribeResponse,
};
use sluice_wire::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use sluice_wire::messages::share_group_heartbeat_response::ShareGroupHeartbeatResponse;
use sluice_wire::{ErrorCode, Str};

use super::ShareGroup;
use super::heartbeat::{Beat, JOIN, LEAVE, check};
use crate::group::kind::{Kind, Modern};
use crate::group::modern::{Refusal, Turn};
use crate::group::{GroupCaller, GroupCoordinator};

impl GroupCoordinator {
    /// ShareGroupHeartbeat, version 1. Answers when what it changed is durable.
    pub async fn share_group_heartbeat(
        &self,
        caller: &GroupCaller,
        request: ShareGroupHeartbeatRequest,
    ) -> ShareGroupHeartbeatResponse {
        let done = self.share_heartbeat_checked(caller, &request).await;
        done.unwrap_or_else(|refusal| ShareGroupHeartbeatResponse {
            error_code: refusal.code.code(),
            error_message: refusal.message,
            ..Default::default()
        })
    }

    async fn share_heartbeat_checked(
        &self,
        caller: &GroupCaller,
        request: &ShareGroupHeartbeatRequest,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        self.shared.check_active()?;
        check(request)?;
        self.check(&request.group_id)?;
        let config = &self.shared.config;
        let names = request.subscribed_topic_names.iter().flatten();
        if request.member_id.len() > config.max_member_id_bytes
            || names.map(|name| name.len()).sum::<usize>() > config.max_subscription_bytes
        {
            return Err(ErrorCode::InvalidRequest.into());
        }
        let (client_id, client_host) = (&caller.client_id, &caller.client_host);
        let beat = Beat { request, client_id, client_host };
        let group_id = &*request.group_id;
        let joins = request.member_epoch == JOIN;
        let event = |kind: &mut Kind, turn: &mut Turn<'_>| {
            let group = share_group(kind, turn, joins)?;
            match request.member_epoch {
                LEAVE => group.leave(turn, &request.member_id),
                _ => group.heartbeat(turn, &beat),
            }
        };
        let what = if request.member_epoch == LEAVE { "Group" } else { "Share group" };
        self.decide(caller, group_id, joins, event).await.unwrap_or_else(|| {
            let message = format!("{what} {group_id} not found.");
            Err(Refusal::new(ErrorCode::GroupIdNotFound, message))
        })
    }

    /// ShareGroupDescribe, version 1. Shows what is decided, which may not be durable yet.
    pub async fn share_group_describe(
        &self,
        caller: &GroupCaller,
        request: ShareGroupDescribeRequest,
    ) -> ShareGroupDescribeResponse {
        let mut groups = Vec::with_capacity(request.group_ids.len());
        for group_id in request.group_ids {
            let found = self
                .with_share_group(caller, &group_id, |group, turn| Ok(group.describe(turn)))
                .await;
            groups.push(found.unwrap_or_else(|refusal| DescribedGroup {
                error_code: refusal.code.code(),
                error_message: refusal.message,
                group_id,
                ..Default::default()
            }));
        }
        ShareGroupDescribeResponse { groups, ..Default::default() }
    }

    /// The topics that a share group has or had, with their partitions then; none if there is no such
    /// group.
    pub async fn share_group_topics(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
    ) -> Result<BTreeMap<TopicId, i32>, ErrorCode> {
        let found = self
            .with_share_group(caller, group_id, |group, _| Ok(group.initialized().clone()))
            .await;
        match found {
            Ok(topics) => Ok(topics),
            Err(refusal) if refusal.code == ErrorCode::GroupIdNotFound => Ok(BTreeMap::new()),
            Err(refusal) => Err(refusal.code),
        }
    }

    /// Checks that a share group is there and has no members.
    pub async fn check_empty_share_group(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
    ) -> Result<(), (ErrorCode, Option<Str>)> {
        let checked = self.with_share_group(caller, group_id, |group, _| empty(group)).await;
        checked.map_err(|refusal| (refusal.code, refusal.message))
    }

    /// Takes topics into an empty share group, which is made if need be, since an admin sets where it stands in
    /// them.
    pub async fn add_share_group_topics(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
        topics: &BTreeMap<TopicId, i32>,
    ) -> Result<(), (ErrorCode, Option<Str>)> {
        let event = |kind: &mut Kind, turn: &mut Turn<'_>| {
            let group = share_group(kind, turn, true)?;
            empty(group)?;
            group.set_initialized(turn, |known| known.extend(topics));
            Ok(())
        };
        let checked = async {
            self.check(group_id)?;
            self.decide(caller, group_id, true, event).await.unwrap_or_else(|| not_found(group_id))
        };
        checked.await.map_err(|refusal: Refusal| (refusal.code, refusal.message))
    }

    /// Takes topics out of an empty share group, since an admin deletes its offsets in them. Gives those that
    /// it had.
    pub async fn remove_share_group_topics(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
        topics: &[TopicId],
    ) -> Result<Vec<TopicId>, (ErrorCode, Option<Str>)> {
        let removed = self.with_share_group(caller, group_id, |group, turn| {
            empty(group)?;
            let had: Vec<_> = topics
                .iter()
                .filter(|topic| group.initialized().contains_key(topic))
                .copied()
                .collect();
            if !had.is_empty() {
                group.set_initialized(turn, |known| known.retain(|topic, _| !had.contains(topic)));
            }
            Ok(had)
        });
        removed.await.map_err(|refusal| (refusal.code, refusal.message))
    }

    async fn with_share_group<R>(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
        event: impl FnOnce(&mut ShareGroup, &mut Turn<'_>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        self.check(group_id)?;
        let event = |kind: &mut Kind, turn: &mut Turn<'_>| {
            let group = share_group(kind, turn, false)?;
            event(group, turn)
        };
        let done = self.decide(caller, group_id, false, event).await;
        done.unwrap_or_else(|| not_found(group_id))
    }
}

fn not_found<R>(group_id: &str) -> Result<R, Refusal> {
    Err(Refusal::new(ErrorCode::GroupIdNotFound, format!("Group {group_id} not found.")))
}

fn empty(group: &ShareGroup) -> Result<(), Refusal> {
    if group.is_vacant() {
        Ok(())
    } else {
        Err(Refusal::new(ErrorCode::NonEmptyGroup, ErrorCode::NonEmptyGroup.message()))
    }
}

/// The share group in a cell; with `create` one is made where there is nothing.
fn share_group<'a>(
    kind: &'a mut Kind,
    turn: &Turn<'_>,
    create: bool,
) -> Result<&'a mut ShareGroup, Refusal> {
    let is_nothing =
        kind.classic().is_some_and(|group| group.is_vacant() && group.protocol_type().is_empty());
    if create && is_nothing {
        *kind = Kind::Share(Box::default());
    }
    match kind {
        Kind::Share(group) => Ok(group),
        _ => {
            let message = format!("Group {} is not a share group.", turn.group);
            Err(Refusal::new(ErrorCode::GroupIdNotFound, message))
        }
    }
}
