//! Heartbeat, LeaveGroup, and what of OffsetCommit concerns membership.

use sluice_wire::ErrorCode;

use super::{Context, Group, State};

/// A member that leaves, or is removed by its instance id alone (KIP-345).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Leaving<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance: Option<&'a str>,
}

impl Group {
    /// Heartbeat.
    pub(crate) fn heartbeat(
        &mut self,
        cx: &Context<'_>,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> ErrorCode {
        if let Err(code) = self.check_member(member_id, instance) {
            return code;
        }
        if generation != self.generation {
            return ErrorCode::IllegalGeneration;
        }
        match self.state {
            State::Empty => ErrorCode::UnknownMemberId,
            State::PreparingRebalance => {
                self.touch(cx.now, member_id);
                ErrorCode::RebalanceInProgress
            }
            // Members may send heartbeats as soon as they have joined.
            State::CompletingRebalance | State::Stable => {
                self.touch(cx.now, member_id);
                ErrorCode::None
            }
        }
    }

    /// LeaveGroup: one code for each, in the same order.
    pub(crate) fn leave(
        &mut self,
        cx: &mut Context<'_>,
        leaving: &[Leaving<'_>],
    ) -> Vec<ErrorCode> {
        let before = self.roster.len();
        let codes = leaving.iter().map(|leaving| self.leave_one(cx, *leaving)).collect();
        if self.roster.len() != before {
            self.rebalance_or_complete(cx);
        } else {
            // An id that was handed out and never joined may be what the others wait for.
            self.maybe_complete_join(cx);
        }
        codes
    }

    fn leave_one(&mut self, cx: &mut Context<'_>, leaving: Leaving<'_>) -> ErrorCode {
        let Leaving { member_id, instance } = leaving;
        let id = if member_id.is_empty() {
            instance.and_then(|instance| self.roster.static_member(instance)).cloned()
        } else if let Some((id, _)) = self.pending.get_key_value(member_id) {
            Some(id.clone())
        } else {
            match self.check_member(member_id, instance) {
                Ok(()) => self.roster.get(member_id).map(|member| member.id.clone()),
                Err(code) => return code,
            }
        };
        match id {
            Some(id) => {
                self.dismiss(cx, &id);
                ErrorCode::None
            }
            None => ErrorCode::UnknownMemberId,
        }
    }

    /// Whether this member may commit offsets now. A generation below 0 speaks for a consumer
    /// outside of the group's membership, or for an administrator: it may while nobody is in.
    pub(crate) fn check_commit(
        &self,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        if generation < 0 && member_id.is_empty() && instance.is_none() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.check_member(member_id, instance)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether offsets may be committed in a transaction. Clients from before version 3 of
    /// TxnOffsetCommit do not tell who they are, and the group's state does not matter (KIP-447).
    pub(crate) fn check_transactional_commit(
        &self,
        member_id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        let unnamed = member_id.is_empty() && instance.is_none();
        if generation < 0 && (unnamed || self.state == State::Empty) {
            return Ok(());
        }
        self.check_member(member_id, instance)?;
        if generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok(())
    }

    /// A commit that was let in keeps the member's session alive.
    pub(crate) fn committed(&mut self, cx: &Context<'_>, member_id: &str) {
        if matches!(self.state, State::Stable | State::PreparingRebalance) {
            self.touch(cx.now, member_id);
        }
    }
}
