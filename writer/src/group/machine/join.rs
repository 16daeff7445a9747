//! JoinGroup, and the join phase of a rebalance from its start to the next generation.

use bytes::Bytes;
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use sluice_wire::{ErrorCode, Str};

use super::roster::{Member, Protocol};
use super::{Action, Context, Group, JoinTimer, Persist, State, Ticket};

/// Member ids hold at most this much of the client id or instance id they are made from, so that
/// they fit wherever the protocol carries them.
const MAX_MEMBER_ID_PREFIX: usize = 255;

/// A JoinGroup request.
pub(crate) struct JoinEvent<'a> {
    pub(crate) request: &'a JoinGroupRequest,
    pub(crate) version: i16,
    pub(crate) client_id: &'a str,
    pub(crate) client_host: &'a str,
    /// Makes the member id unguessable, should the request need one.
    pub(crate) random: [u8; 16],
    pub(crate) ticket: Ticket,
}

impl JoinEvent<'_> {
    /// Version 0 has no rebalance timeout: there the session timeout is both.
    fn timeouts_ms(&self) -> (i32, i32) {
        let session = self.request.session_timeout_ms;
        (if self.version == 0 { session } else { self.request.rebalance_timeout_ms }, session)
    }

    /// Owned copies; of a name that is there twice the first.
    fn protocols(&self) -> Vec<Protocol> {
        let mut protocols: Vec<Protocol> = Vec::with_capacity(self.request.protocols.len());
        for offered in &self.request.protocols {
            if protocols.iter().all(|known| known.name != offered.name) {
                protocols.push(Protocol {
                    name: Str::from(&*offered.name),
                    metadata: Bytes::copy_from_slice(&offered.metadata),
                });
            }
        }
        protocols
    }

    fn new_member_id(&self) -> Str {
        let prefix = self.request.group_instance_id.as_deref().unwrap_or(self.client_id);
        let prefix = &prefix[..prefix.floor_char_boundary(MAX_MEMBER_ID_PREFIX)];
        Str::from(format!("{prefix}-{}", uuid_text(self.random)))
    }

    fn new_member(&self, id: Str) -> Member {
        let instance = self.request.group_instance_id.as_deref().map(Str::from);
        let client = (Str::from(self.client_id), Str::from(self.client_host));
        Member::new(id, instance, client, self.timeouts_ms(), self.protocols())
    }
}

/// A version 4 UUID in its usual form, as Kafka's member ids end with.
fn uuid_text(mut random: [u8; 16]) -> String {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let n = u128::from_be_bytes(random);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        n >> 96,
        (n >> 80) & 0xffff,
        (n >> 64) & 0xffff,
        (n >> 48) & 0xffff,
        n & 0xffff_ffff_ffff
    )
}

impl Group {
    /// JoinGroup. The ticket is answered now or when the join phase ends.
    pub(crate) fn join(&mut self, cx: &mut Context<'_>, join: &JoinEvent<'_>) {
        let member_id = &*join.request.member_id;
        if !self.has_room_for(cx, member_id) {
            cx.refuse_join(join.ticket, "", ErrorCode::GroupMaxSizeReached);
            if !member_id.is_empty() {
                self.dismiss(cx, member_id);
                self.maybe_complete_join(cx);
            }
        } else if !self.supports(join) {
            cx.refuse_join(join.ticket, member_id, ErrorCode::InconsistentGroupProtocol);
        } else if member_id.is_empty() {
            self.join_new(cx, join);
        } else {
            self.join_known(cx, join);
        }
    }

    /// Existing members are let in; new ones up to the group's max size. While members join, those
    /// who have joined count, so that the last ones of an oversized group are turned away.
    fn has_room_for(&self, cx: &Context<'_>, member_id: &str) -> bool {
        let max = cx.config.max_group_size;
        let member = self.roster.get(member_id);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                member.is_some_and(|m| m.joining().is_some()) || self.roster.joining() < max
            }
            State::CompletingRebalance | State::Stable => {
                member.is_some() || self.roster.len() < max
            }
        }
    }

    fn supports(&self, join: &JoinEvent<'_>) -> bool {
        let (protocol_type, protocols) = (&join.request.protocol_type, &join.request.protocols);
        if self.state == State::Empty {
            !protocol_type.is_empty() && !protocols.is_empty()
        } else {
            self.protocol_type.as_ref() == Some(protocol_type)
                && protocols.iter().any(|offered| self.roster.all_support(&offered.name))
        }
    }

    fn join_new(&mut self, cx: &mut Context<'_>, join: &JoinEvent<'_>) {
        let id = join.new_member_id();
        if let Some(instance) = join.request.group_instance_id.as_deref() {
            match self.roster.static_member(instance).cloned() {
                Some(old) => self.replace_static(cx, join, &old, id),
                None => self.add_member(cx, join, id),
            }
        } else if join.version < 4 {
            self.add_member(cx, join, id);
        } else if self.pending.len() >= cx.config.max_group_size {
            cx.refuse_join(join.ticket, "", ErrorCode::GroupMaxSizeReached);
        } else {
            // KIP-394: the id is handed out first, so that a client whose join is lost in a time-out
            // does not leave a member behind with each try.
            let at = cx.now.after(join.request.session_timeout_ms);
            self.pending.insert(id.clone(), at);
            self.wake_by(at);
            cx.refuse_join(join.ticket, &id, ErrorCode::MemberIdRequired);
        }
    }

    fn join_known(&mut self, cx: &mut Context<'_>, join: &JoinEvent<'_>) {
        let request = join.request;
        let (id, instance) = (&*request.member_id, request.group_instance_id.as_deref());
        if instance.is_none() && self.pending.contains_key(id) {
            return self.add_member(cx, join, Str::from(id));
        }
        if let Err(code) = self.check_member(id, instance) {
            return cx.refuse_join(join.ticket, id, code);
        }
        // A member that asks again without a change has lost the answer; one that has changed, or a
        // leader (who may have seen topics change), starts a rebalance.
        let changed = self.roster.get(id).is_none_or(|m| m.protocols() != join.protocols());
        let rejoins = match self.state {
            State::PreparingRebalance => true,
            State::CompletingRebalance => changed,
            State::Stable => changed || self.is_leader(id),
            State::Empty => return cx.refuse_join(join.ticket, id, ErrorCode::UnknownMemberId),
        };
        if rejoins {
            self.update_member(cx, join, id);
            self.rebalance_or_complete(cx);
        } else {
            let with_members = self.state == State::CompletingRebalance && self.is_leader(id);
            let answer = self.joined(id, with_members);
            cx.actions.push(Action::Join(join.ticket, answer));
        }
    }

    fn add_member(&mut self, cx: &mut Context<'_>, join: &JoinEvent<'_>, id: Str) {
        if self.roster.is_empty() {
            self.protocol_type = Some(Str::from(&*join.request.protocol_type));
        }
        if self.state == State::PreparingRebalance && self.initial {
            self.new_member_added = true;
        }
        let mut member = join.new_member(id.clone());
        member.is_new = true;
        let at = cx.now.after(cx.config.new_member_join_timeout_ms);
        member.deadline = Some(at);
        self.wake_by(at);
        self.pending.remove(&*id);
        self.roster.insert(member);
        self.roster.park_join(&id, join.ticket);
        if self.leader.is_none() {
            self.leader = Some(id);
        }
        self.rebalance_or_complete(cx);
    }

    pub(super) fn update_member(&mut self, cx: &mut Context<'_>, join: &JoinEvent<'_>, id: &str) {
        self.roster.set_protocols(id, join.protocols());
        if let Some(member) = self.roster.get_mut(id) {
            (member.rebalance_timeout_ms, member.session_timeout_ms) = join.timeouts_ms();
        }
        if let Some(replaced) = self.roster.park_join(id, join.ticket) {
            cx.refuse_join(replaced, id, ErrorCode::RebalanceInProgress);
        }
    }

    pub(super) fn rebalance_or_complete(&mut self, cx: &mut Context<'_>) {
        if self.state == State::PreparingRebalance {
            self.maybe_complete_join(cx);
        } else {
            self.prepare_rebalance(cx);
        }
    }

    /// Begins a join phase.
    pub(super) fn prepare_rebalance(&mut self, cx: &mut Context<'_>) {
        if self.state == State::CompletingRebalance {
            self.reset_assignments(cx, ErrorCode::RebalanceInProgress);
        }
        self.roster.forgive_syncs();
        self.sync_deadline = None;
        self.initial = self.state == State::Empty;
        self.transition(State::PreparingRebalance, cx.wall_ms);
        if !self.initial {
            if self.all_joined() {
                return self.complete_join(cx);
            }
            let at = cx.now.after(self.roster.rebalance_timeout_ms());
            return self.set_join_timer(JoinTimer::Complete { at });
        }
        let delay_ms = cx.config.initial_rebalance_delay_ms;
        if delay_ms <= 0 {
            return self.complete_join(cx);
        }
        let remaining_ms = (self.roster.rebalance_timeout_ms() - delay_ms).max(0);
        let at = cx.now.after(delay_ms);
        self.set_join_timer(JoinTimer::Initial { at, delay_ms, remaining_ms });
    }

    pub(super) fn set_join_timer(&mut self, timer: JoinTimer) {
        self.join_timer = Some(timer);
        self.wake_by(timer.at());
    }

    fn all_joined(&self) -> bool {
        self.roster.len() == self.roster.joining() && self.pending.is_empty()
    }

    /// Ends the join phase if everybody has joined; an initial one waits for its time.
    pub(super) fn maybe_complete_join(&mut self, cx: &mut Context<'_>) {
        if self.state == State::PreparingRebalance && !self.initial && self.all_joined() {
            self.complete_join(cx);
        }
    }

    /// The delay of an initial rebalance has passed.
    pub(super) fn extend_or_complete_join(
        &mut self,
        cx: &mut Context<'_>,
        delay_ms: i32,
        remaining_ms: i32,
    ) {
        if !self.new_member_added || remaining_ms == 0 {
            return self.complete_join(cx);
        }
        self.new_member_added = false;
        let next_ms = cx.config.initial_rebalance_delay_ms.min(remaining_ms);
        self.set_join_timer(JoinTimer::Initial {
            at: cx.now.after(next_ms),
            delay_ms: next_ms,
            remaining_ms: (remaining_ms - delay_ms).max(0),
        });
    }

    /// Ends the join phase: dynamic members who have not joined are out, the others form the next
    /// generation.
    pub(super) fn complete_join(&mut self, cx: &mut Context<'_>) {
        self.join_timer = None;
        self.new_member_added = false;
        for id in self.roster.ids(|m| m.joining().is_none() && m.instance.is_none()) {
            self.dismiss(cx, &id);
        }
        if !self.roster.is_empty() && !self.elect_joined_leader() {
            // Only static members are left and none came: they keep their place until their
            // sessions end.
            let at = cx.now.after(self.roster.rebalance_timeout_ms().max(1));
            return self.set_join_timer(JoinTimer::Complete { at });
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.protocol = self.roster.vote();
        self.subscribed = self.subscribed_topics();
        self.roster.forgive_syncs();
        if self.roster.is_empty() {
            self.leader = None;
            self.transition(State::Empty, cx.wall_ms);
            let value = self.metadata(None).encode();
            cx.actions.push(Action::Persist(value, Persist::Empty));
            return;
        }
        self.transition(State::CompletingRebalance, cx.wall_ms);
        for id in self.roster.ids(|_| true) {
            if let Some(ticket) = self.roster.take_join(&id) {
                let answer = self.joined(&id, self.is_leader(&id));
                cx.actions.push(Action::Join(ticket, answer));
            }
            self.touch(cx.now, &id);
            self.roster.set_owes_sync(&id, true);
            if let Some(member) = self.roster.get_mut(&id) {
                member.is_new = false;
            }
        }
        let at = cx.now.after(self.roster.rebalance_timeout_ms());
        self.sync_deadline = Some(at);
        self.wake_by(at);
    }

    /// Keeps the leader if it has joined, else takes one who has. False if nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &Str| self.roster.get(id).is_some_and(|m| m.joining().is_some());
        if self.leader.as_ref().is_some_and(joined) {
            return true;
        }
        match self.roster.iter().find(|member| member.joining().is_some()) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// The current generation as an answer to JoinGroup.
    pub(super) fn joined(&self, member_id: &str, with_members: bool) -> JoinGroupResponse {
        let members = if with_members { self.subscriptions() } else { Vec::new() };
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: Str::from(member_id),
            members,
            ..Default::default()
        }
    }

    fn subscriptions(&self) -> Vec<JoinGroupResponseMember> {
        self.roster
            .iter()
            .map(|member| JoinGroupResponseMember {
                member_id: member.id.clone(),
                group_instance_id: member.instance.clone(),
                metadata: member.metadata(self.protocol.as_deref()),
            })
            .collect()
    }
}
