//! A group changes over from the classic protocol to the consumer protocol, when the first member that
//! speaks it joins, and back, when the last one has gone (KIP-848, online migration in both directions).

use bytes::Bytes;
use sluice_wire::{ErrorCode, Str};

use super::ConsumerGroup;
use super::classic::by_id;
use super::embedded::{self, Named};
use super::heartbeat::sorted;
use super::member::{ClassicProfile, Current, Member, MemberState, Profile};
use crate::group::machine::{CONSUMER, Group};
use crate::group::modern::{Refusal, Turn};
use crate::group::record::metadata::{GroupMetadata, MemberMetadata};

impl ConsumerGroup {
    /// The consumer group that a classic group becomes: everybody keeps the last assignment, as their
    /// target and as what they have. A rebalance follows, since somebody is about to join.
    pub(super) fn from_classic(turn: &mut Turn<'_>, classic: &Group) -> Result<Self, Refusal> {
        let not_one = |why: &str| {
            let message = format!("Group {} is not a consumer group: {why}.", turn.group);
            Refusal::new(ErrorCode::GroupIdNotFound, message)
        };
        if *classic.protocol_type() != *CONSUMER {
            return Err(not_one("it does not use the consumer embedded protocol"));
        }
        if classic.members().count() > turn.config.consumer_max_group_size {
            return Err(not_one("it has too many members"));
        }
        let epoch = classic.generation();
        let mut group = Self { epoch, assignment_epoch: epoch, ..Self::default() };
        for member in classic.members() {
            let protocols = member.protocols();
            let chosen = classic.protocol();
            let metadata = protocols.iter().find(|p| Some(&*p.name) == chosen);
            let metadata = metadata.or_else(|| protocols.first()).map(|p| p.metadata.clone());
            let malformed = |_| not_one("the embedded consumer protocol is malformed");
            let subscription =
                embedded::subscription(&metadata.unwrap_or_default()).map_err(malformed)?;
            let assigned = embedded::assignment(&member.assignment).map_err(malformed)?;
            let target = by_id(turn, &assigned);
            let classic = ClassicProfile {
                session_timeout_ms: member.session_timeout_ms,
                protocols: protocols.iter().map(|p| (p.name.clone(), p.metadata.clone())).collect(),
            };
            let profile = Profile {
                instance: member.instance.clone(),
                rack: subscription.rack,
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                assignor: None,
                names: sorted(&subscription.topics),
                regex: Str::default(),
                classic: Some(Box::new(classic)),
            };
            let current = Current {
                epoch,
                previous_epoch: epoch,
                state: MemberState::Stable,
                assigned: target.iter().map(|(topic, number)| (topic, number, epoch)).collect(),
                ..Current::default()
            };
            group.adopt(&member.id, Member { profile, current, target, ..Member::default() });
        }
        group.log_header(turn);
        let ids: Vec<Str> = group.members.keys().cloned().collect();
        for id in ids {
            group.log_profile(turn, &id);
            group.log_target(turn, &id);
            group.log_current(turn, &id);
            group.touch(turn, &id);
        }
        Ok(group)
    }

    fn adopt(&mut self, id: &Str, member: Member) {
        if let Some(instance) = &member.profile.instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        self.subscriptions.add(&member.profile.names, &member.profile.regex);
        self.members.insert(id.clone(), Box::new(member));
        self.rehold(&[], id);
    }

    /// Makes a classic group of the members, who all speak that protocol, with what they have. They
    /// are to join again.
    pub(super) fn convert_to_classic(&self, turn: &mut Turn<'_>) {
        let protocol = self.common_protocol();
        let members = self.members.iter().filter_map(|(id, member)| {
            let classic = member.profile.classic.as_deref()?;
            let offered =
                classic.protocols.iter().find(|(name, _)| Some(name) == protocol.as_ref());
            let subscription = offered.or_else(|| classic.protocols.first());
            let subscription = subscription.map_or_else(Bytes::new, |(_, bytes)| bytes.clone());
            let version = embedded::subscription(&subscription).map_or(0, |known| known.version);
            let target = member.target.topics();
            let target: Named = target
                .filter_map(|(topic, partitions)| {
                    Some((turn.topics.name(turn.tenant, topic)?, partitions.to_vec()))
                })
                .collect();
            Some(MemberMetadata {
                id: id.clone(),
                instance: member.profile.instance.clone(),
                client_id: member.profile.client_id.clone(),
                client_host: member.profile.client_host.clone(),
                rebalance_timeout_ms: member.profile.rebalance_timeout_ms,
                session_timeout_ms: classic.session_timeout_ms,
                subscription,
                assignment: embedded::encode_assignment(version, &target),
            })
        });
        let members = members.collect();
        let metadata = GroupMetadata {
            generation: self.epoch,
            state_since_ms: turn.wall_ms,
            protocol_type: Some(Str::from_static(CONSUMER)),
            protocol,
            leader: None,
            members,
        };
        turn.become_classic(metadata);
    }

    /// A strategy that all offer, the first in the first member's order.
    fn common_protocol(&self) -> Option<Str> {
        let mut classic = self.members.values().filter_map(|m| m.profile.classic.as_deref());
        let first = classic.next()?;
        let rest: Vec<&ClassicProfile> = classic.collect();
        let all_offer = |name: &Str| {
            rest.iter().all(|profile| profile.protocols.iter().any(|(known, _)| known == name))
        };
        let names = || first.protocols.iter().map(|(name, _)| name);
        names().find(|name| all_offer(name)).or_else(|| names().next()).cloned()
    }
}
