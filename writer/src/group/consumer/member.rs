//! One member of a consumer group.

use bytes::Bytes;
use sluice_wire::Str;

use super::assignor::Assignor;
use crate::group::machine::Tick;
use crate::group::partitions::{Held, Partitions};

/// The epoch of a static member that has left and may come back (KIP-848).
pub(crate) const LEFT_FOR_NOW: i32 = -2;

/// How far a member is with its part of the target assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// It has all that it was to have at its epoch.
    #[default]
    Stable,
    /// It has been told to give partitions back, and has not said that it did.
    Unrevoked,
    /// It waits for partitions that others still hold.
    Unreleased,
}

impl MemberState {
    /// As it is stored.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Stable => 0,
            Self::Unrevoked => 1,
            Self::Unreleased => 2,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Stable, Self::Unrevoked, Self::Unreleased].into_iter().find(|s| s.code() == code)
    }
}

/// What a member says of itself. Strings are owned copies, so that no request frame is kept alive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Set for static members (KIP-345).
    pub(crate) instance: Option<Str>,
    pub(crate) rack: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    /// How long it may take to give partitions back; for classic members also to join and sync.
    pub(crate) rebalance_timeout_ms: i32,
    /// The assignor that it would like.
    pub(crate) assignor: Option<Assignor>,
    /// Names of subscribed topics, ascending and without repetition.
    pub(crate) names: Vec<Str>,
    /// Names that match are subscribed as well; empty for none.
    pub(crate) regex: Str,
    /// Set for members that speak the classic protocol.
    pub(crate) classic: Option<Box<ClassicProfile>>,
}

/// What a member of the classic protocol says of itself in addition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClassicProfile {
    pub(crate) session_timeout_ms: i32,
    /// (assignment strategy, subscription) in the member's order of preference.
    pub(crate) protocols: Vec<(Str, Bytes)>,
}

/// What a member has, and at which epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) epoch: i32,
    /// A member whose answer was lost asks again with this one.
    pub(crate) previous_epoch: i32,
    pub(crate) state: MemberState,
    /// What it may read.
    pub(crate) assigned: Held,
    /// What it was told to give back, and nobody else may have until it did.
    pub(crate) revoking: Held,
}

impl Current {
    /// All that is the member's until now: nobody else may have it.
    pub(crate) fn held(&self) -> impl Iterator<Item = (sluice_model::TopicId, i32)> {
        self.assigned.iter().chain(self.revoking.iter()).map(|(topic, number, _)| (topic, number))
    }

    /// It has what it was to have at that epoch.
    pub(crate) fn is_reconciled_to(&self, assignment_epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == assignment_epoch
    }
}

/// When what is due for a member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadlines {
    /// It was not heard of for its session timeout.
    pub(crate) session: Option<Tick>,
    /// It has not given back what it was told to, at the epoch at which it was told.
    pub(crate) revocation: Option<Tick>,
    /// A classic member was told to join again.
    pub(crate) join: Option<Tick>,
    /// A classic member has joined and not synced.
    pub(crate) sync: Option<Tick>,
}

impl Deadlines {
    pub(crate) fn earliest(&self) -> Option<Tick> {
        [self.session, self.revocation, self.join, self.sync].into_iter().flatten().min()
    }
}

/// A member.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) profile: Profile,
    pub(crate) current: Current,
    /// What it is to have, at the group's assignment epoch.
    pub(crate) target: Partitions,
    pub(crate) deadlines: Deadlines,
}

impl Member {
    pub(crate) fn is_classic(&self) -> bool {
        self.profile.classic.is_some()
    }
}
