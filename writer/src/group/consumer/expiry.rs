//! What happens when time passes: members that are not heard of are fenced, targets that were put off
//! are computed.

use sluice_wire::Str;

use super::ConsumerGroup;
use crate::group::machine::Tick;
use crate::group::modern::Turn;

impl ConsumerGroup {
    /// Does all that is due, and finds out exactly when something is next.
    pub(super) fn expire(&mut self, turn: &mut Turn<'_>) {
        let is_due = |at: Option<Tick>| at.is_some_and(|at| at <= turn.now);
        let due: Vec<Str> = self
            .members
            .iter()
            .filter(|(_, member)| is_due(member.deadlines.earliest()))
            .map(|(id, _)| id.clone())
            .collect();
        self.fence(turn, &due);
        if !due.is_empty() {
            self.convert_if_all_classic(turn);
        }
        self.wake = self.members.values().filter_map(|m| m.deadlines.earliest()).min();
        self.assign_if_due(turn);
    }

    /// Members leave, or are taken to have left.
    pub(super) fn fence(&mut self, turn: &mut Turn<'_>, ids: &[Str]) {
        let mut removed = false;
        for id in ids {
            removed |= self.remove(turn, id).is_some();
        }
        if removed {
            self.topics_hash = self.subscriptions.hash(turn);
            self.bump(turn);
        }
    }
}
