//! One classic consumer group as a pure state machine: `(now, event)` in, actions out. No runtime,
//! no clock, no log. The cell that holds it (see [`super::cell`]) owns it, performs the actions and
//! brings back what became of them.
//!
//! ```text
//!            join             all joined, or time is up           leader's sync is durable
//!   Empty ---------> Preparing ----------------------> Completing -------------------> Stable
//!     ^              Rebalance <---------------------- Rebalance                         |
//!     |                  |  ^     member comes, goes or changes                          |
//!     +------------------+  +------------------------------------------------------------+
//!        nobody is left
//! ```
//!
//! The rules are those of Kafka's ClassicGroup and GroupMetadataManager; a group that does not
//! exist is what Kafka calls Dead. Where Kafka leaves a parked request without an answer (a member
//! is removed or asks again), this answers it.
//!
//! Always holds: a member has at most one parked join and one parked sync, and each ticket is
//! answered exactly once; `wake` is never later than the earliest deadline; the generation grows by
//! one with each completed rebalance.

mod expiry;
mod join;
mod membership;
mod roster;
mod state;
mod static_member;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str};

use super::config::GroupConfig;

pub(crate) use join::JoinEvent;
pub(crate) use membership::Leaving;
pub(crate) use roster::Roster;
pub(crate) use state::ExpiryBase;
pub(crate) use static_member::Replaced;

/// The protocol type of consumer groups, whose subscriptions name topics.
pub(crate) const CONSUMER: &str = "consumer";

/// Monotonic time in ms since the coordinator was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

impl Tick {
    /// `ms` later; a negative time is none.
    pub(crate) fn after(self, ms: i32) -> Self {
        Self(self.0.saturating_add(u64::try_from(ms).unwrap_or(0)))
    }
}

/// Names a parked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Answer a parked JoinGroup.
    Join(Ticket, JoinGroupResponse),
    /// Answer a parked SyncGroup.
    Sync(Ticket, SyncGroupResponse),
    /// Log this value under the group's key, then call [`Group::persisted`].
    Persist(Bytes, Persist),
}

/// What waits for a group's record to become durable.
#[derive(Debug)]
pub(crate) enum Persist {
    /// The leader's assignment for a generation.
    Assignment { generation: i32, assignments: BTreeMap<Str, Bytes> },
    /// The group has become empty: nobody waits.
    Empty,
    /// A static member came back under a new member id and took over without a rebalance.
    StaticMember(Box<Replaced>),
}

/// What an event brings with it, and where its actions go.
pub(crate) struct Context<'a> {
    pub(crate) now: Tick,
    /// Wall time, for what is stored and shown.
    pub(crate) wall_ms: i64,
    pub(crate) config: &'a GroupConfig,
    pub(crate) actions: Vec<Action>,
}

impl Context<'_> {
    fn refuse_join(&mut self, ticket: Ticket, member_id: &str, code: ErrorCode) {
        self.actions.push(Action::Join(ticket, refused_join(member_id, code)));
    }

    fn refuse_sync(&mut self, ticket: Ticket, code: ErrorCode) {
        let answer = SyncGroupResponse { error_code: code.code(), ..Default::default() };
        self.actions.push(Action::Sync(ticket, answer));
    }
}

/// The answer to a JoinGroup that was refused.
pub(crate) fn refused_join(member_id: &str, code: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        error_code: code.code(),
        generation_id: -1,
        protocol_type: None,
        protocol_name: None,
        member_id: Str::from(member_id),
        ..Default::default()
    }
}

/// A group's state, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No members; there may be offsets.
    Empty,
    /// Waits for members to join the next generation.
    PreparingRebalance,
    /// Waits for the leader's assignment.
    CompletingRebalance,
    /// Members have their assignments.
    Stable,
}

impl State {
    /// As DescribeGroups and ListGroups show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// When the join phase ends, and how.
#[derive(Clone, Copy, Debug)]
enum JoinTimer {
    /// The first rebalance of an empty group waits for more members: in steps of `delay_ms`, as
    /// long as new ones keep coming and `remaining_ms` is left.
    Initial { at: Tick, delay_ms: i32, remaining_ms: i32 },
    /// Who has not joined by then is out.
    Complete { at: Tick },
}

impl JoinTimer {
    fn at(self) -> Tick {
        match self {
            Self::Initial { at, .. } | Self::Complete { at } => at,
        }
    }
}

/// One group.
#[derive(Debug)]
pub(crate) struct Group {
    state: State,
    /// The join phase under way began with an empty group.
    initial: bool,
    /// A member was added since the initial delay was last extended.
    new_member_added: bool,
    /// Wall time of the last change of state; -1 when unknown.
    state_since_ms: i64,
    generation: i32,
    protocol_type: Option<Str>,
    protocol: Option<Str>,
    leader: Option<Str>,
    roster: Roster,
    /// Ids that were handed out with MEMBER_ID_REQUIRED, until they join or their session ends.
    pending: BTreeMap<Str, Tick>,
    /// Names of the topics that members subscribe to; `None` when that cannot be known.
    subscribed: Option<BTreeSet<Str>>,
    join_timer: Option<JoinTimer>,
    sync_deadline: Option<Tick>,
    wake: Option<Tick>,
}

impl Group {
    /// A group nobody has joined yet.
    pub(crate) fn new(wall_ms: i64) -> Self {
        Self {
            state: State::Empty,
            initial: false,
            new_member_added: false,
            state_since_ms: wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            roster: Roster::default(),
            pending: BTreeMap::new(),
            subscribed: None,
            join_timer: None,
            sync_deadline: None,
            wake: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Nobody is in the group or about to join, so that it may be forgotten or deleted.
    pub(crate) fn is_vacant(&self) -> bool {
        self.state == State::Empty && self.pending.is_empty()
    }

    /// How many are in the group.
    pub(crate) fn member_count(&self) -> usize {
        self.roster.len()
    }

    /// Not later than the next time that something is due; `None` when nothing is.
    pub(crate) fn wake(&self) -> Option<Tick> {
        self.wake
    }

    fn wake_by(&mut self, at: Tick) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    fn transition(&mut self, to: State, wall_ms: i64) {
        self.state = to;
        self.state_since_ms = wall_ms;
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Starts a member's session anew.
    fn touch(&mut self, now: Tick, member_id: &str) {
        if let Some(member) = self.roster.get_mut(member_id) {
            let at = now.after(member.session_timeout_ms);
            member.deadline = Some(at);
            self.wake_by(at);
        }
    }

    /// Removes a member and answers what it had parked, so that a client that is still there joins
    /// again.
    fn dismiss(&mut self, cx: &mut Context<'_>, member_id: &str) {
        if let Some(member) = self.roster.remove(member_id) {
            if let Some(ticket) = member.joining() {
                cx.refuse_join(ticket, "", ErrorCode::UnknownMemberId);
            }
            if let Some(ticket) = member.syncing {
                cx.refuse_sync(ticket, ErrorCode::UnknownMemberId);
            }
        }
        self.pending.remove(member_id);
        if self.is_leader(member_id) {
            self.leader = self.roster.iter().next().map(|member| member.id.clone());
        }
    }

    /// Checks that a request speaks for the member it names (KIP-345).
    fn check_member(&self, member_id: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.roster.static_member(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(holder) if **holder != *member_id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.roster.contains(member_id) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    /// The group's record brought an answer: it is durable, or it failed with this code.
    pub(crate) fn persisted(
        &mut self,
        cx: &mut Context<'_>,
        persist: Persist,
        result: Result<(), ErrorCode>,
    ) {
        match persist {
            Persist::Assignment { generation, assignments } => {
                self.assignment_persisted(cx, generation, assignments, result);
            }
            // If it failed, the older generation comes back after a restart and its sessions
            // expire: harmless, as nobody is in it.
            Persist::Empty => {}
            Persist::StaticMember(replaced) => self.replacement_persisted(cx, *replaced, result),
        }
    }
}
