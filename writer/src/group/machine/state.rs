//! A group seen from outside: what is stored of it and read back, what it shows, and what may be
//! done with its offsets.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_wire::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use sluice_wire::{ErrorCode, Str};

use super::roster::{Member, Protocol};
use super::{CONSUMER, Context, Group, State};
use crate::group::record::metadata::{GroupMetadata, MemberMetadata};

/// From when on an offset that nobody commits again grows old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpiryBase {
    /// The group has been empty since this wall time in ms.
    EmptySince(i64),
    /// Its last commit.
    LastCommit,
    /// It does not, as things are.
    Never,
}

impl Group {
    /// What to store: the present generation, with `assignments` in place of the members' own.
    pub(super) fn metadata(&self, assignments: Option<&BTreeMap<Str, Bytes>>) -> GroupMetadata {
        let assignment = |member: &Member| match assignments {
            None => member.assignment.clone(),
            Some(given) => given.get(&*member.id).cloned().unwrap_or_default(),
        };
        let members = self.roster.iter().map(|member| MemberMetadata {
            id: member.id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol.as_deref()),
            assignment: assignment(member),
        });
        GroupMetadata {
            generation: self.generation,
            state_since_ms: self.state_since_ms,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.collect(),
        }
    }

    /// The group as it was stored: stable if it has members, else empty. A member id that is there
    /// twice counts once.
    pub(crate) fn load(stored: GroupMetadata) -> Self {
        let mut group = Self::new(stored.state_since_ms);
        group.generation = stored.generation;
        group.protocol_type = stored.protocol_type.filter(|name| !name.is_empty());
        group.protocol = stored.protocol;
        for member in stored.members {
            if group.roster.contains(&member.id) {
                continue;
            }
            let protocols = group
                .protocol
                .iter()
                .map(|name| Protocol { name: name.clone(), metadata: member.subscription.clone() });
            let mut loaded = Member::new(
                member.id,
                member.instance,
                (member.client_id, member.client_host),
                (member.rebalance_timeout_ms, member.session_timeout_ms),
                protocols.collect(),
            );
            loaded.assignment = member.assignment;
            group.roster.insert(loaded);
        }
        if !group.roster.is_empty() {
            group.state = State::Stable;
            group.leader = stored.leader.filter(|id| group.roster.contains(id));
        }
        group.subscribed = group.subscribed_topics();
        group
    }

    /// Starts all sessions anew after a load, and shrinks a group that is over a lowered limit.
    pub(crate) fn restart(&mut self, cx: &mut Context<'_>) {
        for id in self.roster.ids(|_| true) {
            self.touch(cx.now, &id);
        }
        if self.roster.len() > cx.config.max_group_size {
            self.prepare_rebalance(cx);
        }
    }

    /// The group has just become a classic one: sessions begin, and the members that are there are
    /// to join again.
    pub(crate) fn take_over(&mut self, cx: &mut Context<'_>) {
        self.restart(cx);
        if self.state == State::Stable {
            self.prepare_rebalance(cx);
        }
    }

    /// Answers all that is parked: this group is served elsewhere now, or otherwise.
    pub(crate) fn unload(&mut self, cx: &mut Context<'_>, code: ErrorCode) {
        for id in self.roster.ids(|_| true) {
            if let Some(ticket) = self.roster.take_join(&id) {
                cx.refuse_join(ticket, &id, code);
            }
            let member = self.roster.get_mut(&id);
            if let Some(ticket) = member.and_then(|member| member.syncing.take()) {
                cx.refuse_sync(ticket, code);
            }
        }
    }

    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// The strategy of this generation.
    pub(crate) fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// In the order of their ids.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.roster.iter()
    }

    /// Empty for groups that only keep offsets.
    pub(crate) fn protocol_type(&self) -> Str {
        self.protocol_type.clone().unwrap_or_default()
    }

    /// As DescribeGroups shows it: subscriptions and the protocol only while the group is stable.
    pub(crate) fn describe(&self, group_id: &Str) -> DescribedGroup {
        let shown = self.protocol.as_ref().filter(|_| self.state == State::Stable);
        let members = self.roster.iter().map(|member| DescribedGroupMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            member_metadata: shown.map_or_else(Bytes::new, |name| member.metadata(Some(&**name))),
            member_assignment: member.assignment.clone(),
        });
        DescribedGroup {
            group_id: group_id.clone(),
            group_state: Str::from_static(self.state.name()),
            protocol_type: self.protocol_type(),
            protocol_data: shown.cloned().unwrap_or_default(),
            members: members.collect(),
            ..Default::default()
        }
    }

    /// Offsets of a group with members may be deleted only if its subscriptions can be read.
    pub(crate) fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        if self.state == State::Empty || self.is_consumer() {
            Ok(())
        } else {
            Err(ErrorCode::NonEmptyGroup)
        }
    }

    /// Whether a member subscribes to the topic, or may: for a consumer group whose subscriptions
    /// cannot be read, every topic counts.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        self.subscribed.as_ref().map_or_else(|| self.is_consumer(), |topics| topics.contains(topic))
    }

    pub(super) fn is_consumer(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER)
    }

    /// KIP-496: offsets of a live consumer group grow old by their last commit, those of an empty
    /// group from when it became empty.
    pub(crate) fn expiry_base(&self) -> ExpiryBase {
        match (self.protocol_type.is_some(), self.state) {
            (false, _) => ExpiryBase::LastCommit,
            (true, State::Empty) if self.state_since_ms < 0 => ExpiryBase::LastCommit,
            (true, State::Empty) => ExpiryBase::EmptySince(self.state_since_ms),
            (true, State::Stable) if self.is_consumer() && self.subscribed.is_some() => {
                ExpiryBase::LastCommit
            }
            _ => ExpiryBase::Never,
        }
    }
}
