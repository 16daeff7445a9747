//! SyncGroup, and the hand-over of the leader's assignment once it is durable.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_wire::messages::sync_group_request::SyncGroupRequest;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str};

use super::{Action, Context, Group, Persist, State, Ticket};

impl Group {
    /// SyncGroup. The ticket is answered now or when the leader's assignment is durable.
    pub(crate) fn sync(
        &mut self,
        cx: &mut Context<'_>,
        request: &SyncGroupRequest,
        ticket: Ticket,
    ) {
        if let Err(code) = self.check_sync(request) {
            return cx.refuse_sync(ticket, code);
        }
        let id = &*request.member_id;
        match self.state {
            State::Empty => cx.refuse_sync(ticket, ErrorCode::UnknownMemberId),
            State::PreparingRebalance => cx.refuse_sync(ticket, ErrorCode::RebalanceInProgress),
            State::CompletingRebalance => {
                self.settle_sync(id);
                let member = self.roster.get_mut(id);
                if let Some(replaced) = member.and_then(|m| m.syncing.replace(ticket)) {
                    cx.refuse_sync(replaced, ErrorCode::RebalanceInProgress);
                }
                if self.is_leader(id) {
                    self.persist_assignment(cx, request);
                }
            }
            State::Stable => {
                self.settle_sync(id);
                let assignment = self.roster.get(id).map(|member| member.assignment.clone());
                let answer = self.synced(assignment.unwrap_or_default());
                cx.actions.push(Action::Sync(ticket, answer));
            }
        }
    }

    fn check_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // KIP-559: what the client says it uses must be what the group uses, where both are known.
        let differs = |asked: &Option<Str>, ours: &Option<Str>| {
            asked.is_some() && ours.is_some() && asked != ours
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// The member has sent SyncGroup; when all have, nobody is dropped for want of it.
    fn settle_sync(&mut self, member_id: &str) {
        self.roster.set_owes_sync(member_id, false);
        if self.roster.owing() == 0 {
            self.sync_deadline = None;
        }
    }

    /// Assignments of members that the leader left out are empty; of strangers they are dropped.
    fn persist_assignment(&mut self, cx: &mut Context<'_>, request: &SyncGroupRequest) {
        let assignments: BTreeMap<Str, Bytes> = request
            .assignments
            .iter()
            .filter_map(|given| {
                let member = self.roster.get(&given.member_id)?;
                Some((member.id.clone(), Bytes::copy_from_slice(&given.assignment)))
            })
            .collect();
        let value = self.metadata(Some(&assignments)).encode();
        let generation = self.generation;
        cx.actions.push(Action::Persist(value, Persist::Assignment { generation, assignments }));
    }

    pub(super) fn assignment_persisted(
        &mut self,
        cx: &mut Context<'_>,
        generation: i32,
        mut assignments: BTreeMap<Str, Bytes>,
        result: Result<(), ErrorCode>,
    ) {
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        if let Err(code) = result {
            self.reset_assignments(cx, code);
            return self.prepare_rebalance(cx);
        }
        self.transition(State::Stable, cx.wall_ms);
        for id in self.roster.ids(|_| true) {
            let assignment = assignments.remove(&*id).unwrap_or_default();
            let Some(member) = self.roster.get_mut(&id) else { continue };
            member.assignment = assignment.clone();
            if let Some(ticket) = member.syncing.take() {
                // While it was parked its session may have run out unheeded.
                self.touch(cx.now, &id);
                let answer = self.synced(assignment);
                cx.actions.push(Action::Sync(ticket, answer));
            }
        }
    }

    /// Takes all assignments back and answers parked syncs with an error.
    pub(super) fn reset_assignments(&mut self, cx: &mut Context<'_>, code: ErrorCode) {
        for id in self.roster.ids(|_| true) {
            let Some(member) = self.roster.get_mut(&id) else { continue };
            member.assignment = Bytes::new();
            if let Some(ticket) = member.syncing.take() {
                self.touch(cx.now, &id);
                cx.refuse_sync(ticket, code);
            }
        }
    }

    fn synced(&self, assignment: Bytes) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment,
            ..Default::default()
        }
    }
}
