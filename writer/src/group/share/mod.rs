//! Share groups (KIP-932) as a pure state machine, by the rules of Kafka 4.3: members say which topics they
//! subscribe to, and are told with their heartbeats which partitions to fetch. Partitions are shared, so
//! nobody has to give one back before another gets it; what each member has of their records is not the group's
//! to know (see [`crate::share`]).
//!
//! ```text
//!   group epoch         grows when subscriptions, topics or members change
//!     -> assignment epoch  the group epoch that the targets were computed for
//!       -> member epoch    the assignment epoch that the member has heard of
//! ```
//!
//! Always holds: epochs never go back while the group is there; what the machine changes it logs, one part of
//! the group at a time ([`record`]).

mod assignor;
mod heartbeat;
mod record;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use sluice_model::TopicId;
use sluice_wire::messages::share_group_describe_response as describe;
use sluice_wire::{ErrorCode, Str, Uuid};

use self::record::{Header, PartKey};
use super::kind::{Commit, Modern};
use super::machine::Tick;
use super::modern::Turn;
use super::partitions::Partitions;
use super::record::ModernKind;
use super::stored::Parts;

pub(crate) use self::record::check_part;

/// The one assignor there is.
const ASSIGNOR: &str = "simple";

/// One group.
#[derive(Debug, Default)]
pub(crate) struct ShareGroup {
    /// What is logged of the group as a whole.
    header: Header,
    members: BTreeMap<Str, Member>,
    /// When the targets were last computed, in this process.
    assigned_at: Option<Tick>,
    /// The version of the tenant's topics that the hash in the header is of.
    topics_version: Option<u64>,
    /// Not later than the next session's end.
    wake: Option<Tick>,
}

/// One member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Member {
    rack: Option<Str>,
    client_id: Str,
    client_host: Str,
    /// The topics it subscribes to.
    names: BTreeSet<Str>,
    /// The assignment epoch that it was last told; 0 before.
    epoch: i32,
    /// That before; a member that lost an answer comes with it.
    previous_epoch: i32,
    target: Partitions,
    /// What it was told last.
    assigned: Partitions,
    /// When it is gone if it is not heard of; not logged.
    deadline: Option<Tick>,
}

impl ShareGroup {
    /// The group as it was stored.
    pub(crate) fn load(parts: &Parts) -> Self {
        let mut group = Self::default();
        for (part, value) in parts.iter() {
            match PartKey::decode(part) {
                Ok(PartKey::Group) => group.header = Header::decode(value).unwrap_or_default(),
                Ok(PartKey::Member(id)) => {
                    if let Ok(member) = record::decode_member(value) {
                        group.members.insert(Str::from(id), member);
                    }
                }
                // It was checked when it was applied.
                Err(_) => {}
            }
        }
        group
    }

    fn log_header(&self, turn: &mut Turn<'_>) {
        turn.log(ModernKind::Share, &PartKey::Group.encode(), Some(self.header.encode()));
    }

    fn log_member(&self, turn: &mut Turn<'_>, id: &str) {
        if let Some(member) = self.members.get(id) {
            let value = record::encode_member(member);
            turn.log(ModernKind::Share, &PartKey::Member(id).encode(), Some(value));
        }
    }

    /// Raises the group epoch; the caller logs it.
    fn bump(&mut self) {
        self.header.epoch = self.header.epoch.checked_add(1).unwrap_or(1);
    }

    /// Takes members out; whether there were any.
    fn remove(&mut self, turn: &mut Turn<'_>, ids: &[Str]) -> bool {
        let mut removed = false;
        for id in ids {
            if self.members.remove(id).is_some() {
                turn.log(ModernKind::Share, &PartKey::Member(id).encode(), None);
                removed = true;
            }
        }
        if removed {
            self.header.topics_hash = self.topics_hash(turn);
            self.bump();
            self.log_header(turn);
        }
        removed
    }

    fn wake_by(&mut self, at: Tick) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Topics that the group has or had, with their partitions then.
    pub(super) fn initialized(&self) -> &BTreeMap<TopicId, i32> {
        &self.header.initialized
    }

    /// Streams of these topics are set or forgotten by an admin.
    pub(super) fn set_initialized(
        &mut self,
        turn: &mut Turn<'_>,
        change: impl FnOnce(&mut BTreeMap<TopicId, i32>),
    ) {
        change(&mut self.header.initialized);
        self.log_header(turn);
    }

    /// As ShareGroupDescribe shows it. Partitions of topics that are gone are left out.
    fn describe(&self, turn: &Turn<'_>) -> describe::DescribedGroup {
        let members = self.members.iter().map(|(id, member)| describe::Member {
            member_id: id.clone(),
            rack_id: member.rack.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscribed_topic_names: member.names.iter().cloned().collect(),
            assignment: shown(turn, &member.assigned),
        });
        describe::DescribedGroup {
            group_id: Str::from(turn.group),
            group_state: Str::from_static(self.state_name()),
            group_epoch: self.header.epoch,
            assignment_epoch: self.header.assignment_epoch,
            assignor_name: Str::from_static(ASSIGNOR),
            members: members.collect(),
            ..Default::default()
        }
    }
}

fn shown(turn: &Turn<'_>, partitions: &Partitions) -> describe::Assignment {
    let topics = partitions.topics().filter_map(|(topic, partitions)| {
        let topic_name = turn.topics.name(turn.tenant, topic)?;
        let partitions = partitions.to_vec();
        Some(describe::TopicPartitions { topic_id: Uuid(topic.0), topic_name, partitions })
    });
    describe::Assignment { topic_partitions: topics.collect() }
}

impl Modern for ShareGroup {
    fn restart(&mut self, turn: &mut Turn<'_>) {
        let at = turn.now.after(turn.settings.share.times.session_timeout_ms);
        for member in self.members.values_mut() {
            member.deadline = Some(at);
        }
        if !self.members.is_empty() {
            self.wake_by(at);
        }
    }

    fn on_time(&mut self, turn: &mut Turn<'_>) {
        let is_due = |member: &Member| member.deadline.is_some_and(|at| at <= turn.now);
        let due: Vec<Str> = self
            .members
            .iter()
            .filter(|(_, member)| is_due(member))
            .map(|(id, _)| id.clone())
            .collect();
        self.remove(turn, &due);
        self.wake = self.members.values().filter_map(|member| member.deadline).min();
    }

    fn wake(&self) -> Option<Tick> {
        self.wake
    }

    fn is_vacant(&self) -> bool {
        self.members.is_empty()
    }

    fn member_count(&self) -> usize {
        self.members.len()
    }

    fn type_name(&self) -> &'static str {
        "share"
    }

    fn protocol_type(&self) -> &'static str {
        "share"
    }

    fn state_name(&self) -> &'static str {
        if self.members.is_empty() { "Empty" } else { "Stable" }
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.names.contains(topic))
    }

    fn check_commit(&self, _: &mut Commit<'_>) -> Result<(), ErrorCode> {
        Err(ErrorCode::GroupIdNotFound)
    }

    fn check_fetch(&self, _: Option<&str>, _: i32) -> Result<(), ErrorCode> {
        Err(ErrorCode::GroupIdNotFound)
    }

    fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        Err(ErrorCode::GroupIdNotFound)
    }
}
