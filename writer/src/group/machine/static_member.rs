//! Static members that come back under a new member id (KIP-345, KIP-814).

use sluice_wire::{ErrorCode, Str};

use super::roster::Member;
use super::{Action, Context, Group, JoinEvent, Persist, State, Ticket};

/// A replacement that waits to become durable.
#[derive(Debug)]
pub(crate) struct Replaced {
    generation: i32,
    /// The member as it was, to be put back if the record fails.
    old: Member,
    new_id: Str,
    /// The leader as it was.
    leader: Option<Str>,
    ticket: Ticket,
    /// From version 9 a leader is told the members and that it need not assign (KIP-814).
    may_skip_assignment: bool,
}

impl Group {
    /// The instance joins without a member id: what held its place is fenced. In a stable group
    /// whose protocol stays the same that is all; otherwise the group rebalances.
    pub(super) fn replace_static(
        &mut self,
        cx: &mut Context<'_>,
        join: &JoinEvent<'_>,
        old_id: &str,
        new_id: Str,
    ) {
        let leader = self.leader.clone();
        let Some(old) = self.swap_static(cx, old_id, &new_id) else { return };
        self.update_member(cx, join, &new_id);
        self.touch(cx.now, &new_id);
        match self.state {
            State::Stable if self.roster.vote() == self.protocol => {
                let value = self.metadata(None).encode();
                let replaced = Replaced {
                    generation: self.generation,
                    old,
                    new_id,
                    leader,
                    ticket: join.ticket,
                    may_skip_assignment: join.version >= 9,
                };
                cx.actions.push(Action::Persist(value, Persist::StaticMember(Box::new(replaced))));
            }
            // The leader may already be assigning to the old member id.
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(cx),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(cx),
        }
    }

    /// Moves a static member's place to another member id; gives back the member as it was. What
    /// the old id had parked is fenced.
    fn swap_static(&mut self, cx: &mut Context<'_>, from: &str, to: &Str) -> Option<Member> {
        if let Some(ticket) = self.roster.take_join(from) {
            cx.refuse_join(ticket, from, ErrorCode::FencedInstanceId);
        }
        let mut old = self.roster.remove(from)?;
        if let Some(ticket) = old.syncing.take() {
            cx.refuse_sync(ticket, ErrorCode::FencedInstanceId);
        }
        let mut new = old.clone();
        new.id = to.clone();
        new.is_new = false;
        self.roster.insert(new);
        if self.is_leader(from) {
            self.leader = Some(to.clone());
        }
        Some(old)
    }

    pub(super) fn replacement_persisted(
        &mut self,
        cx: &mut Context<'_>,
        replaced: Replaced,
        result: Result<(), ErrorCode>,
    ) {
        let Replaced { generation, old, new_id, leader, ticket, may_skip_assignment } = replaced;
        let waits = self.roster.get(&new_id).is_some_and(|m| m.joining() == Some(ticket));
        if self.state != State::Stable || self.generation != generation || !waits {
            // A rebalance has begun since, and will answer the ticket; or the member was replaced
            // or removed, which has.
            return;
        }
        self.roster.take_join(&new_id);
        match result {
            Ok(()) => {
                let is_leader = self.is_leader(&new_id);
                let mut answer = self.joined(&new_id, may_skip_assignment && is_leader);
                if may_skip_assignment {
                    answer.skip_assignment = is_leader;
                } else {
                    // An old client that finds itself the leader would assign anew, to members
                    // that do not wait for it: it is shown the leader as it was.
                    answer.leader = leader.unwrap_or_default();
                }
                cx.actions.push(Action::Join(ticket, answer));
            }
            Err(code) => {
                let was_leader = self.is_leader(&new_id);
                self.roster.remove(&new_id);
                let old_id = old.id.clone();
                self.roster.insert(old);
                if was_leader {
                    self.leader = Some(old_id.clone());
                }
                self.touch(cx.now, &old_id);
                let mut answer = self.joined("", false);
                answer.error_code = code.code();
                cx.actions.push(Action::Join(ticket, answer));
            }
        }
    }
}
