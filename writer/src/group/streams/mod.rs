//! One streams group (KIP-1071) as a pure state machine: the members of a Kafka Streams application,
//! its topology, and which member processes which task. `(now, event)` in, an answer and the parts
//! that changed out. No runtime, no clock, no log.
//!
//! Every change of members, topology, topics or settings makes a new group epoch; the assignor turns
//! it into a target assignment under that epoch; each member is then led to its target, step by step
//! ([`reconcile`]), and says with each heartbeat what it has.
//!
//! Always holds: no active task is with two members at once, counting those that have been told to
//! give it up and have not said that they did; the group epoch only grows; a member's epoch is never
//! above the group's; `wake` is never later than the earliest deadline. What is not stored (sessions,
//! the configured topology, epochs of endpoint information, a requested shutdown) is made anew after
//! a restart, without a rebalance if the topics are still the same.
//!
//! The rules are those of Kafka 4.3: members are dynamic, source topics are named, and the topology
//! of a group does not change while the group exists.

mod assignor;
mod check;
mod commit;
mod configure;
mod describe;
mod heartbeat;
mod member;
mod reconcile;
mod record;
mod requests;
mod tasks;
#[cfg(test)]
mod tests;
mod topology;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sluice_model::TopicId;
use sluice_wire::Str;
use sluice_wire::messages::streams_group_heartbeat_response as response;

use self::configure::Configured;
use super::machine::Tick;
use super::topics::TopicShape;

pub(crate) use self::check::check as check_request;
pub(crate) use self::heartbeat::Beat;
pub(crate) use self::member::{Current, Member, Profile, Progress};
pub(crate) use self::record::check_part;
pub(crate) use self::tasks::Tasks;
pub(crate) use self::topology::Topology;
use self::topology::sources;

/// What holds for one group. Names in comments are Kafka's, as group configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `streams.session.timeout.ms`.
    pub(crate) session_timeout_ms: i32,
    /// `streams.heartbeat.interval.ms`.
    pub(crate) heartbeat_interval_ms: i32,
    /// `streams.num.standby.replicas`.
    pub(crate) standbys: i32,
    /// `streams.initial.rebalance.delay.ms`: how long the first member of an empty group waits for
    /// others before tasks are assigned.
    pub(crate) initial_rebalance_delay_ms: i32,
    /// `streams.assignment.interval.ms`: the least time between two assignments.
    pub(crate) assignment_interval_ms: i32,
    /// Members of one group.
    pub(crate) max_members: usize,
    /// Bytes of a topology.
    pub(crate) max_topology_bytes: usize,
    /// Tasks of one group.
    pub(crate) max_tasks: usize,
}

/// The topics of the group's tenant, as they are now.
#[derive(Clone, Copy)]
pub(crate) struct TopicView<'a> {
    /// Another number after each change.
    pub(crate) version: u64,
    pub(crate) find: &'a dyn Fn(&str) -> Option<TopicShape>,
}

/// What an event brings with it, and what it changed.
pub(crate) struct Context<'a> {
    pub(crate) now: Tick,
    pub(crate) settings: Settings,
    pub(crate) topics: TopicView<'a>,
    /// To be stored: what the group says of each now, see [`StreamsGroup::part`].
    pub(crate) touched: BTreeSet<Part>,
}

/// A piece of the group's durable state, stored as one record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Epochs and what they stand for.
    Group,
    /// The topology.
    Topology,
    /// What a member said of itself.
    Profile(Str),
    /// A member's target.
    Target(Str),
    /// What a member has.
    Current(Str),
}

/// What a heartbeat's answer says of the group beside tasks, by Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    StaleTopology,
    MissingSourceTopics,
    IncorrectlyPartitionedTopics,
    MissingInternalTopics,
    ShutdownApplication,
    AssignmentDelayed,
}

impl Status {
    fn code(self) -> i8 {
        match self {
            Self::StaleTopology => 0,
            Self::MissingSourceTopics => 1,
            Self::IncorrectlyPartitionedTopics => 2,
            Self::MissingInternalTopics => 3,
            Self::ShutdownApplication => 4,
            Self::AssignmentDelayed => 5,
        }
    }

    fn says(self, detail: impl Into<String>) -> response::Status {
        response::Status { status_code: self.code(), status_detail: Str::from(detail.into()) }
    }
}

/// A group's state, by Kafka's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No members.
    Empty,
    /// The topology cannot be run: topics are missing or do not fit.
    NotReady,
    /// The target assignment is behind the group.
    Assigning,
    /// Members are on their way to their targets.
    Reconciling,
    /// All members have what they shall have.
    Stable,
}

impl State {
    /// As answers show it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::NotReady => "NotReady",
            Self::Assigning => "Assigning",
            Self::Reconciling => "Reconciling",
            Self::Stable => "Stable",
        }
    }
}

/// Epochs, and what they stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Epochs {
    /// Grows with each change that asks for another assignment.
    pub(crate) group: i32,
    /// A hash of the required topics as they were at the last change.
    pub(crate) topics_hash: u128,
    /// The topology epoch that tasks can be assigned for; -1 while they cannot, 0 at first.
    pub(crate) validated: i32,
    /// The group epoch that the targets were made for.
    pub(crate) assignment: i32,
    /// The number of standbys asked for then; -1 when none was asked for yet.
    pub(crate) standbys: i32,
}

impl Default for Epochs {
    /// As Kafka begins: both epochs at 1.
    fn default() -> Self {
        Self { group: 1, topics_hash: 0, validated: 0, assignment: 1, standbys: -1 }
    }
}

/// One group.
#[derive(Debug, Default)]
pub(crate) struct StreamsGroup {
    epochs: Epochs,
    topology: Option<Topology>,
    members: BTreeMap<Str, Member>,
    targets: BTreeMap<Str, Tasks>,
    /// The topology against the topics as they were under `seen`.
    configured: Option<Configured>,
    /// Source topics that exist, and who reads them: commits name topics by id.
    readers: HashMap<TopicId, Str>,
    /// The version of the topics that were last looked at.
    seen: Option<u64>,
    /// When the targets were last made, in this process.
    assigned_at: Option<Tick>,
    /// Until then the first members wait for others.
    initial: Option<Tick>,
    /// Who asked that the application be shut down.
    shutdown_by: Option<Str>,
    /// Grows when what is where has changed, for interactive queries.
    endpoint_epoch: i32,
    wake: Option<Tick>,
}

/// What is stored of a group, taken together to load it.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) epochs: Option<Epochs>,
    pub(crate) topology: Option<Topology>,
    pub(crate) profiles: BTreeMap<Str, Profile>,
    pub(crate) targets: BTreeMap<Str, Tasks>,
    pub(crate) currents: BTreeMap<Str, Current>,
}

/// What a part of a group says now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    Epochs(Epochs),
    Topology(&'a Topology),
    Profile(&'a Profile),
    Target(&'a Tasks),
    Current(&'a Current),
}

impl StreamsGroup {
    /// The group as it was stored. Sessions begin at [`Self::restart`].
    pub(crate) fn load(mut stored: Stored) -> Self {
        let members = stored.profiles.into_iter().map(|(id, profile)| {
            let current = stored.currents.remove(&id).unwrap_or_default();
            (id, Member { profile, current, session: Tick(0), revoke_by: None })
        });
        Self {
            epochs: stored.epochs.unwrap_or_default(),
            topology: stored.topology,
            members: members.collect(),
            targets: stored.targets,
            ..Self::default()
        }
    }

    /// Starts all sessions anew after a load.
    pub(crate) fn restart(&mut self, cx: &mut Context<'_>) {
        let mut wake = None;
        for member in self.members.values_mut() {
            member.session = cx.now.after(cx.settings.session_timeout_ms);
            if member.current.progress == Progress::Unrevoked {
                member.revoke_by = Some(cx.now.after(member.profile.rebalance_timeout_ms));
            }
            wake = wake.into_iter().chain([member.deadline()]).min();
        }
        self.wake = wake;
        self.find_readers(&cx.topics);
    }

    /// Looks up the source topics.
    fn find_readers(&mut self, topics: &TopicView<'_>) {
        let all = self.topology.iter().flat_map(Topology::subtopologies);
        let all = all.flat_map(|sub| sources(sub).map(|topic| (topic, &sub.subtopology_id)));
        let found = all.filter_map(|(topic, id)| Some(((topics.find)(topic)?.id, id.clone())));
        self.readers = found.collect();
    }

    /// What is to be stored for a part; `None` when it is no more.
    pub(crate) fn part(&self, part: &Part) -> Option<Value<'_>> {
        match part {
            Part::Group => Some(Value::Epochs(self.epochs)),
            Part::Topology => self.topology.as_ref().map(Value::Topology),
            Part::Profile(id) => self.members.get(id).map(|m| Value::Profile(&m.profile)),
            Part::Target(id) => self.targets.get(id).map(Value::Target),
            Part::Current(id) => self.members.get(id).map(|m| Value::Current(&m.current)),
        }
    }

    pub(crate) fn state(&self) -> State {
        let runs = self.topology.as_ref().is_some_and(|t| t.epoch() == self.epochs.validated);
        let assignment = self.epochs.assignment;
        let mut members = self.members.values();
        if self.members.is_empty() {
            State::Empty
        } else if !runs {
            State::NotReady
        } else if self.epochs.group > assignment {
            State::Assigning
        } else if !members.all(|member| member.current.is_reconciled_to(assignment)) {
            State::Reconciling
        } else {
            State::Stable
        }
    }

    fn wake_by(&mut self, at: Tick) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Gives up members whose time is up, and assigns tasks when the initial delay is over.
    pub(crate) fn on_time(&mut self, cx: &mut Context<'_>) {
        let late = |member: &Member| member.deadline() <= cx.now;
        let gone: Vec<Str> =
            self.members.iter().filter(|(_, m)| late(m)).map(|(id, _)| id.clone()).collect();
        for id in gone {
            self.remove(cx, &id);
        }
        if self.initial.is_some_and(|at| at <= cx.now) {
            self.initial = None;
            if !self.members.is_empty() {
                // The next heartbeat of each member brings it its tasks.
                self.assign(cx);
            }
        }
        self.wake = self.members.values().map(Member::deadline).chain(self.initial).min();
    }

    /// Removes a member; the others get its tasks by the next assignment.
    fn remove(&mut self, cx: &mut Context<'_>, id: &Str) {
        self.members.remove(id);
        self.targets.remove(id);
        self.epochs.group += 1;
        cx.touched.extend([
            Part::Group,
            Part::Profile(id.clone()),
            Part::Target(id.clone()),
            Part::Current(id.clone()),
        ]);
        if self.members.is_empty() {
            self.shutdown_by = None;
        }
    }
}
