//! Server-side assignors: who is to have which partitions. Pure functions of the members, their
//! subscriptions and what they were to have before; the result depends on nothing else, so that the
//! same group gets the same assignment on any coordinator.
//!
//! Always holds of a result: every partition of a subscribed topic goes to exactly one of the topic's
//! subscribers, and nothing else goes to anybody.

mod balance;
mod range;
#[cfg(test)]
mod tests;
mod uniform;

use std::collections::BTreeMap;
use std::rc::Rc;

use sluice_model::TopicId;

use crate::group::partitions::Partitions;

/// A strategy, by the name that clients ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// As equal as can be, moving as little as possible.
    Uniform,
    /// Ranges of each topic, so that partitions of one number go to one member.
    Range,
}

/// As error messages list them; the first is what groups use that ask for none.
pub(crate) const SUPPORTED: &str = "uniform, range";

impl Assignor {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|assignor| assignor.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// What each member is to have, in the members' order.
    pub(crate) fn assign(self, spec: &Spec<'_>) -> Vec<Partitions> {
        match self {
            Self::Uniform => uniform::assign(spec),
            Self::Range => range::assign(spec),
        }
    }
}

/// What is to be assigned.
pub(crate) struct Spec<'a> {
    /// In the order of their ids.
    pub(crate) members: Vec<MemberSpec<'a>>,
    /// How many partitions each subscribed topic has; at least the topics of all members.
    pub(crate) partitions: BTreeMap<TopicId, i32>,
}

/// A member as assignors see it.
pub(crate) struct MemberSpec<'a> {
    pub(crate) id: &'a str,
    pub(crate) instance: Option<&'a str>,
    /// Subscribed topics, ascending and without repetition; often shared between members.
    pub(crate) topics: Rc<[TopicId]>,
    /// What the member was to have so far.
    pub(crate) before: &'a Partitions,
}

impl MemberSpec<'_> {
    fn subscribes(&self, topic: TopicId) -> bool {
        self.topics.binary_search(&topic).is_ok()
    }
}

impl Spec<'_> {
    fn partitions_of(&self, topic: TopicId) -> i32 {
        self.partitions.get(&topic).copied().unwrap_or(0)
    }

    /// All members subscribe to the same topics.
    fn is_homogeneous(&self) -> bool {
        let Some((first, rest)) = self.members.split_first() else { return true };
        rest.iter().all(|m| Rc::ptr_eq(&m.topics, &first.topics) || m.topics == first.topics)
    }
}
