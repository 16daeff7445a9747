//! What happens when time passes: sessions end, join and sync phases run out.

use super::{Context, Group, JoinTimer, State, Tick};

impl Group {
    /// Does all that is due, and finds out exactly when something is next.
    pub(crate) fn on_time(&mut self, cx: &mut Context<'_>) {
        let now = cx.now;
        let due = |at: &Tick| *at <= now;
        let ended: Vec<_> =
            self.pending.iter().filter(|(_, at)| due(at)).map(|(id, _)| id.clone()).collect();
        for id in ended {
            self.dismiss(cx, &id);
            self.maybe_complete_join(cx);
        }
        for id in self.roster.ids(|member| member.deadline.as_ref().is_some_and(due)) {
            self.end_session(cx, &id);
        }
        match self.join_timer.filter(|timer| due(&timer.at())) {
            Some(JoinTimer::Initial { delay_ms, remaining_ms, .. }) => {
                self.extend_or_complete_join(cx, delay_ms, remaining_ms);
            }
            Some(JoinTimer::Complete { .. }) => self.complete_join(cx),
            None => {}
        }
        if self.sync_deadline.as_ref().is_some_and(due) {
            self.end_sync_phase(cx);
        }
        self.wake = self.earliest();
    }

    pub(super) fn earliest(&self) -> Option<Tick> {
        let members = self.roster.iter().filter_map(|member| member.deadline);
        let phases = [self.join_timer.map(JoinTimer::at), self.sync_deadline];
        members.chain(self.pending.values().copied()).chain(phases.into_iter().flatten()).min()
    }

    /// A member was not heard of for its session timeout, or was new and never got its answer.
    fn end_session(&mut self, cx: &mut Context<'_>, member_id: &str) {
        let Some(member) = self.roster.get_mut(member_id) else { return };
        if member.deadline.is_none_or(|at| at > cx.now) {
            return;
        }
        if member.satisfies_heartbeat() {
            member.deadline = None;
            return;
        }
        self.dismiss(cx, member_id);
        self.rebalance_or_complete(cx);
    }

    /// Members that joined the generation and never sent SyncGroup are out (KAFKA-12890).
    fn end_sync_phase(&mut self, cx: &mut Context<'_>) {
        self.sync_deadline = None;
        if !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        let owing = self.roster.owing_ids();
        for id in &owing {
            self.dismiss(cx, id);
        }
        if !owing.is_empty() {
            self.prepare_rebalance(cx);
        }
    }
}
