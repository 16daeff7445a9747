//! How a member is led from what it has to what it is to have (KIP-848): first it gives back what is
//! not its any more, then it reaches the target's epoch, with all that nobody else holds; what others
//! still hold follows with later heartbeats.

use std::collections::BTreeSet;

use sluice_model::TopicId;

use super::ConsumerGroup;
use super::member::{Current, Member, MemberState};
use crate::group::modern::Turn;
use crate::group::partitions::{Held, Partitions};

impl ConsumerGroup {
    /// Takes the member one step further. `owned` is what the member says that it has, if it does;
    /// `narrowed` is set when its subscription has just changed, so that it loses what it does not
    /// subscribe to even before there is a new target.
    pub(super) fn reconcile(
        &mut self,
        turn: &mut Turn<'_>,
        id: &str,
        owned: Option<&Partitions>,
        narrowed: bool,
    ) {
        let Some(member) = self.members.get(id) else { return };
        let current = &member.current;
        let step = Step { group: self, turn, member, owned };
        let next = match current.state {
            MemberState::Stable if current.epoch != self.assignment_epoch => {
                step.towards_target(current.epoch)
            }
            MemberState::Unrevoked if !step.owns_any(&current.revoking) => {
                step.towards_target((current.epoch + 1).min(self.assignment_epoch))
            }
            MemberState::Unreleased => step.towards_target(current.epoch),
            MemberState::Stable | MemberState::Unrevoked if narrowed => step.narrow(),
            MemberState::Stable | MemberState::Unrevoked => return,
        };
        self.set_current(turn, id, next);
    }

    /// Gives a member another current assignment.
    pub(super) fn set_current(&mut self, turn: &mut Turn<'_>, id: &str, next: Current) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.current == next {
            return;
        }
        let before: Vec<_> = member.current.held().collect();
        member.current = next;
        self.rehold(&before, id);
        self.log_current(turn, id);
        self.await_revocation(turn, id);
    }

    /// A member that was told to give back has its rebalance timeout for it. Members of the classic
    /// protocol have other deadlines.
    pub(super) fn await_revocation(&mut self, turn: &Turn<'_>, id: &str) {
        let Some(member) = self.members.get_mut(id) else { return };
        let waits = member.current.state == MemberState::Unrevoked && !member.is_classic();
        let at = waits.then(|| turn.now.after(member.profile.rebalance_timeout_ms));
        member.deadlines.revocation = at;
        if let Some(at) = at {
            self.wake_by(at);
        }
    }

    /// Whether somebody holds what the member waits for.
    pub(super) fn waits_for_others(&self, member: &Member) -> bool {
        let missing = |(topic, partition): &(TopicId, i32)| {
            !member.current.assigned.contains(*topic, *partition)
        };
        member.target.iter().filter(missing).any(|partition| self.holders.contains_key(&partition))
    }
}

/// One member, about to take a step.
struct Step<'a, 'b> {
    group: &'a ConsumerGroup,
    turn: &'a Turn<'b>,
    member: &'a Member,
    owned: Option<&'a Partitions>,
}

impl Step<'_, '_> {
    /// A member that does not say what it has is taken to have it all.
    fn owns_any(&self, partitions: &Held) -> bool {
        let Some(owned) = self.owned else { return true };
        partitions.iter().any(|(topic, partition, _)| owned.contains(topic, partition))
    }

    /// The topics that the member subscribes to, as far as they exist.
    fn subscribed(&self) -> BTreeSet<TopicId> {
        let profile = &self.member.profile;
        let matched = self.group.subscriptions.matched(&profile.regex);
        let shapes = profile.names.iter().chain(matched);
        let (topics, tenant) = (self.turn.topics, self.turn.tenant);
        shapes.filter_map(|name| topics.find(tenant, name)).map(|shape| shape.id).collect()
    }

    /// Towards the target; `epoch` is what the member has reached if it has to give back first.
    fn towards_target(&self, epoch: i32) -> Current {
        let (group, target) = (self.group, &self.member.target);
        let current = &self.member.current;
        // A target that is about to be replaced may hold what the member does not want any more.
        let wanted = (group.epoch > group.assignment_epoch).then(|| self.subscribed());
        let is_wanted = |topic| wanted.as_ref().is_none_or(|wanted| wanted.contains(&topic));
        let keeps = |topic, partition| is_wanted(topic) && target.contains(topic, partition);
        let (assigned, revoking): (Vec<_>, Vec<_>) =
            current.assigned.iter().partition(|(topic, partition, _)| keeps(*topic, *partition));
        let (revoking, previous_epoch): (Held, _) = (revoking.into_iter().collect(), current.epoch);
        if !revoking.is_empty() && self.owns_any(&revoking) {
            let assigned = assigned.into_iter().collect();
            let state = MemberState::Unrevoked;
            return Current { epoch, previous_epoch, state, assigned, revoking };
        }
        let missing = target.iter().filter(|(topic, partition)| {
            is_wanted(*topic) && !current.assigned.contains(*topic, *partition)
        });
        let (held_by_others, free): (Vec<_>, Vec<_>) =
            missing.partition(|partition| group.holders.contains_key(partition));
        let epoch = group.assignment_epoch;
        let given = free.into_iter().map(|(topic, partition)| (topic, partition, epoch));
        let state =
            if held_by_others.is_empty() { MemberState::Stable } else { MemberState::Unreleased };
        let assigned = assigned.into_iter().chain(given).collect();
        Current { epoch, previous_epoch, state, assigned, revoking: Held::default() }
    }

    /// Only gives back what the member does not subscribe to any more.
    fn narrow(&self) -> Current {
        let wanted = self.subscribed();
        let current = &self.member.current;
        let (assigned, dropped): (Vec<_>, Vec<_>) =
            current.assigned.iter().partition(|(topic, _, _)| wanted.contains(topic));
        if dropped.is_empty() {
            return current.clone();
        }
        let revoking: Held = current.revoking.iter().chain(dropped).collect();
        let state = if self.owns_any(&revoking) { MemberState::Unrevoked } else { current.state };
        let revoking = if state == MemberState::Unrevoked { revoking } else { Held::default() };
        Current {
            epoch: current.epoch,
            previous_epoch: current.epoch,
            state,
            assigned: assigned.into_iter().collect(),
            revoking,
        }
    }
}
