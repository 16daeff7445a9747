//! ShareGroupHeartbeat: joining, staying, changing, leaving; and who is to fetch what.

use std::collections::{BTreeMap, BTreeSet};

use sluice_wire::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use sluice_wire::messages::share_group_heartbeat_response::{
    Assignment, ShareGroupHeartbeatResponse, TopicPartitions,
};
use sluice_wire::{ErrorCode, Str, Uuid};
use twox_hash::XxHash3_128;

use super::assignor::{Asker, assign};
use super::{Member, ShareGroup};
use crate::group::modern::{Refusal, Turn};
use crate::group::partitions::Partitions;

/// The member epoch of a heartbeat that joins.
pub(super) const JOIN: i32 = 0;
/// The member epoch of a heartbeat that leaves.
pub(super) const LEAVE: i32 = -1;

/// A heartbeat.
pub(super) struct Beat<'a> {
    pub(super) request: &'a ShareGroupHeartbeatRequest,
    pub(super) client_id: &'a str,
    pub(super) client_host: &'a str,
}

/// Checks what can be checked of a request alone.
pub(super) fn check(request: &ShareGroupHeartbeatRequest) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let is_blank = |text: &str| text.trim().is_empty();
    if is_blank(&request.member_id) {
        return refuse("MemberId can't be empty.");
    }
    if is_blank(&request.group_id) {
        return refuse("GroupId can't be empty.");
    }
    if request.rack_id.as_deref().is_some_and(is_blank) {
        return refuse("RackId can't be empty.");
    }
    if request.member_epoch == JOIN {
        if request.subscribed_topic_names.as_ref().is_none_or(Vec::is_empty) {
            return refuse("SubscribedTopicNames must be set in first request.");
        }
    } else if request.member_epoch < LEAVE {
        return refuse("MemberEpoch is invalid.");
    }
    Ok(())
}

impl ShareGroup {
    /// A heartbeat that joins or keeps alive.
    pub(super) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        beat: &Beat<'_>,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        let request = beat.request;
        let id = Str::from(&*request.member_id);
        self.check_member(turn, &id, request.member_epoch)?;
        // From here on nothing is refused.
        let known = self.members.get(&id).cloned();
        let before = known.clone().unwrap_or_default();
        let mut member = before.clone();
        member.client_id = Str::from(beat.client_id);
        member.client_host = Str::from(beat.client_host);
        if let Some(rack) = &request.rack_id {
            member.rack = Some(Str::from(&**rack));
        }
        if let Some(names) = &request.subscribed_topic_names {
            member.names = names.iter().map(|name| Str::from(&**name)).collect();
        }
        let resubscribes = known.is_none() || member.names != before.names;
        let times = turn.settings.share.times;
        let deadline = turn.now.after(times.session_timeout_ms);
        member.deadline = Some(deadline);
        self.members.insert(id.clone(), member);
        self.wake_by(deadline);
        self.refresh(turn, resubscribes);
        self.assign_if_due(turn, times.assignment_interval_ms);
        let assignment_epoch = self.header.assignment_epoch;
        let Some(member) = self.members.get_mut(&id) else {
            return Err(Refusal::from(ErrorCode::UnknownMemberId));
        };
        if member.epoch != assignment_epoch {
            member.previous_epoch = member.epoch;
            member.epoch = assignment_epoch;
            member.assigned = member.target.clone();
        }
        let after = member.clone();
        let unlogged = |member: &Member| Member { deadline: None, ..member.clone() };
        if unlogged(&after) != unlogged(&before) || known.is_none() {
            self.log_member(turn, &id);
        }
        let tells = request.member_epoch == JOIN
            || request.subscribed_topic_names.is_some()
            || after.assigned != before.assigned;
        Ok(ShareGroupHeartbeatResponse {
            member_id: Some(id),
            member_epoch: after.epoch,
            heartbeat_interval_ms: times.heartbeat_interval_ms,
            assignment: tells.then(|| shown(&after.assigned)),
            ..Default::default()
        })
    }

    /// A heartbeat that leaves.
    pub(super) fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        id: &Str,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        let id = Str::from(&**id);
        if !self.remove(turn, std::slice::from_ref(&id)) {
            return Err(unknown(turn, &id));
        }
        Ok(ShareGroupHeartbeatResponse {
            member_id: Some(id),
            member_epoch: LEAVE,
            ..Default::default()
        })
    }

    fn check_member(&self, turn: &Turn<'_>, id: &Str, said: i32) -> Result<(), Refusal> {
        let Some(member) = self.members.get(id) else {
            let max = turn.config.share_max_group_size;
            if said != JOIN {
                return Err(unknown(turn, id));
            }
            if self.members.len() >= max {
                let message =
                    format!("The share group has reached its maximum capacity of {max} members.");
                return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
            }
            return Ok(());
        };
        let fenced = |message: String| Err(Refusal::new(ErrorCode::FencedMemberEpoch, message));
        let (now, rejoin) =
            (member.epoch, "The member must abandon all its partitions and rejoin.");
        if said == JOIN || said == now {
            return Ok(());
        }
        if said > now {
            return fenced(format!(
                "The share group member has a greater member epoch ({said}) than the one known by the \
                 group coordinator ({now}). {rejoin}"
            ));
        }
        let previous = member.previous_epoch;
        if said != previous {
            return fenced(format!(
                "The share group member has a smaller member epoch ({said}) than the one known by the \
                 group coordinator ({now}), and it does not match the previous member epoch \
                 ({previous}). {rejoin}"
            ));
        }
        Ok(())
    }

    /// Raises the group epoch if a member's subscription or one of the topics asks for other targets.
    fn refresh(&mut self, turn: &mut Turn<'_>, resubscribes: bool) {
        let version = turn.topics.version(turn.tenant);
        if !resubscribes && self.topics_version == Some(version) {
            return;
        }
        self.topics_version = Some(version);
        let hash = self.topics_hash(turn);
        if !resubscribes && hash == self.header.topics_hash {
            return;
        }
        self.header.topics_hash = hash;
        for name in self.members.values().flat_map(|member| &member.names) {
            if let Some(shape) = turn.topics.find(turn.tenant, name) {
                self.header.initialized.insert(shape.id, shape.partitions);
            }
        }
        self.header.initialized.retain(|topic, _| turn.topics.name(turn.tenant, *topic).is_some());
        self.bump();
        self.log_header(turn);
    }

    /// Computes the targets anew if the group epoch is ahead of them, but not more often than the group's
    /// assignment interval says: members that come together are served together.
    fn assign_if_due(&mut self, turn: &mut Turn<'_>, interval_ms: i32) {
        if self.header.epoch == self.header.assignment_epoch {
            return;
        }
        let due = self.assigned_at.map(|at| at.after(interval_ms));
        if due.is_some_and(|due| turn.now < due) {
            return;
        }
        let mut counts = BTreeMap::new();
        let askers: Vec<_> = self
            .members
            .values()
            .map(|member| {
                let shapes =
                    member.names.iter().filter_map(|name| turn.topics.find(turn.tenant, name));
                let topics: BTreeSet<_> = shapes
                    .map(|shape| {
                        counts.insert(shape.id, shape.partitions);
                        shape.id
                    })
                    .collect();
                Asker { topics, has: &member.target }
            })
            .collect();
        let targets = assign(&askers, &counts);
        let changed: Vec<(Str, Partitions)> = self
            .members
            .iter()
            .zip(targets)
            .filter(|((_, member), target)| member.target != *target)
            .map(|((id, _), target)| (id.clone(), target))
            .collect();
        for (id, target) in changed {
            if let Some(member) = self.members.get_mut(&id) {
                member.target = target;
            }
            self.log_member(turn, &id);
        }
        self.header.assignment_epoch = self.header.epoch;
        self.assigned_at = Some(turn.now);
        self.log_header(turn);
    }

    /// A hash of the subscribed topics that exist, with their numbers of partitions.
    pub(super) fn topics_hash(&self, turn: &Turn<'_>) -> u64 {
        let names: BTreeSet<&Str> = self.members.values().flat_map(|m| &m.names).collect();
        let mut bytes = Vec::with_capacity(names.len() * 20);
        for shape in names.iter().filter_map(|name| turn.topics.find(turn.tenant, name)) {
            bytes.extend_from_slice(&shape.id.0);
            bytes.extend_from_slice(&shape.partitions.to_be_bytes());
        }
        // Half of it tells one set of topics from another.
        XxHash3_128::oneshot(&bytes) as u64
    }
}

fn unknown(turn: &Turn<'_>, id: &Str) -> Refusal {
    let message = format!("Member {id} is not a member of group {}.", turn.group);
    Refusal::new(ErrorCode::UnknownMemberId, message)
}

fn shown(assigned: &Partitions) -> Assignment {
    let topics = assigned.topics().map(|(topic, partitions)| TopicPartitions {
        topic_id: Uuid(topic.0),
        partitions: partitions.to_vec(),
    });
    Assignment { topic_partitions: topics.collect() }
}
