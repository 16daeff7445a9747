//! Tasks: a partition of a subtopology, processed by one member, or kept warm by another as a
//! standby.
//!
//! Warm-up tasks are in the protocol and in no assignment: Kafka 4.3 neither gives nor takes them.

use std::collections::{BTreeMap, BTreeSet};

use sluice_wire::Str;
use sluice_wire::messages::streams_group_describe_response as describe;
use sluice_wire::messages::streams_group_heartbeat_request as request;
use sluice_wire::messages::streams_group_heartbeat_response as response;

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId {
    pub(crate) subtopology: Str,
    pub(crate) partition: i32,
}

impl TaskId {
    pub(crate) fn new(subtopology: &Str, partition: i32) -> Self {
        Self { subtopology: subtopology.clone(), partition }
    }
}

/// What the assignor wants a member to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tasks {
    pub(crate) active: BTreeSet<TaskId>,
    pub(crate) standby: BTreeSet<TaskId>,
}

/// What a member has been told to have, or to give up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// With the epoch of the assignment that gave each: commits under an older one are refused.
    pub(crate) active: BTreeMap<TaskId, i32>,
    pub(crate) standby: BTreeSet<TaskId>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty()
    }
}

/// The tasks that a member says it has, as its request lists them: nothing is copied, since a
/// request may be large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owned<'a> {
    active: &'a [request::TaskIds],
    standby: &'a [request::TaskIds],
    warmup: &'a [request::TaskIds],
}

impl<'a> Owned<'a> {
    /// `None` when the request leaves them out: nothing has changed then.
    pub(crate) fn of(request: &'a request::StreamsGroupHeartbeatRequest) -> Option<Self> {
        Some(Self {
            active: request.active_tasks.as_deref()?,
            standby: request.standby_tasks.as_deref()?,
            warmup: request.warmup_tasks.as_deref()?,
        })
    }

    /// Every list, to be checked against the topology.
    pub(crate) fn lists(self) -> impl Iterator<Item = &'a request::TaskIds> {
        self.active.iter().chain(self.standby).chain(self.warmup)
    }

    /// Nothing is owned that `held` does not hold.
    pub(crate) fn is_within(self, held: &Held) -> bool {
        tasks_of(self.active).all(|task| held.active.contains_key(&task))
            && tasks_of(self.standby).all(|task| held.standby.contains(&task))
            && self.warmup.is_empty()
    }

    /// What is owned is what `held` holds.
    pub(crate) fn is_all_of(self, held: &Held) -> bool {
        let count = |lists: &[request::TaskIds]| -> usize {
            lists.iter().map(|list| list.partitions.len()).sum()
        };
        let same =
            held.active.len() == count(self.active) && held.standby.len() == count(self.standby);
        same && self.is_within(held)
    }

    /// Something of `held` is owned.
    pub(crate) fn meets(self, held: &Held) -> bool {
        tasks_of(self.active).any(|task| held.active.contains_key(&task))
            || tasks_of(self.standby).any(|task| held.standby.contains(&task))
    }
}

fn tasks_of(lists: &[request::TaskIds]) -> impl Iterator<Item = TaskId> {
    lists.iter().flat_map(|list| {
        let partitions = list.partitions.iter();
        partitions.map(|partition| TaskId::new(&list.subtopology_id, *partition))
    })
}

/// (subtopology, partitions) of sorted tasks, in order.
pub(crate) fn by_subtopology<'a>(tasks: impl Iterator<Item = &'a TaskId>) -> Vec<(Str, Vec<i32>)> {
    let mut lists: Vec<(Str, Vec<i32>)> = Vec::new();
    for task in tasks {
        match lists.last_mut().filter(|(subtopology, _)| *subtopology == task.subtopology) {
            Some((_, partitions)) => partitions.push(task.partition),
            None => lists.push((task.subtopology.clone(), vec![task.partition])),
        }
    }
    lists
}

/// Sorted tasks as a heartbeat's answer lists them.
pub(crate) fn answered<'a>(tasks: impl Iterator<Item = &'a TaskId>) -> Vec<response::TaskIds> {
    by_subtopology(tasks)
        .into_iter()
        .map(|(subtopology_id, partitions)| response::TaskIds { subtopology_id, partitions })
        .collect()
}

/// Sorted tasks as a description lists them.
pub(crate) fn described<'a>(tasks: impl Iterator<Item = &'a TaskId>) -> Vec<describe::TaskIds> {
    by_subtopology(tasks)
        .into_iter()
        .map(|(subtopology_id, partitions)| describe::TaskIds { subtopology_id, partitions })
        .collect()
}
