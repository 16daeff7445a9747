//! The sticky assignor: who gets which task. Tasks stay where they are as far as the load allows,
//! move to where a standby of them is, or else go to the process with the least load. Standbys never
//! lie on the process of the active task or of another standby of it.
//!
//! Kafka's StickyTaskAssignor by its rules, but with ties broken by id, so that the same group gets
//! the same assignment each time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet};

use sluice_wire::Str;

use super::tasks::{TaskId, Tasks};

/// A member as the assignor sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) process: &'a Str,
    /// Its target until now.
    pub(crate) previous: &'a Tasks,
}

/// A subtopology as the assignor sees it.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) id: Str,
    /// One a partition.
    pub(crate) tasks: i32,
    /// It has state, so that standbys make sense.
    pub(crate) stateful: bool,
}

/// Gives each task to one candidate and up to `standbys` more, as many as there are other processes.
/// The result is in the order of the candidates; without candidates nothing is given.
pub(crate) fn assign(
    candidates: &[Candidate<'_>],
    shapes: &[Shape],
    standbys: usize,
) -> Vec<Tasks> {
    if candidates.is_empty() {
        return Vec::new();
    }
    let tasks = |shapes: &mut dyn Iterator<Item = &Shape>| -> Vec<TaskId> {
        shapes.flat_map(|s| (0..s.tasks).map(|partition| TaskId::new(&s.id, partition))).collect()
    };
    let active = tasks(&mut shapes.iter());
    let stateful = tasks(&mut shapes.iter().filter(|shape| shape.stateful));
    let mut board = Board::new(candidates);
    let mut quotas = Quotas {
        active: Quota::new(active.len(), candidates.len()),
        all: Quota::new(active.len() + standbys * stateful.len(), candidates.len()),
    };
    let previous = Previous::of(candidates);
    assign_active(&mut board, &mut quotas, &previous, active);
    if standbys > 0 {
        assign_standby(&mut board, &mut quotas.all, &previous, stateful, standbys);
    }
    board.given
}

fn assign_active(
    board: &mut Board,
    quotas: &mut Quotas,
    previous: &Previous,
    mut tasks: Vec<TaskId>,
) {
    // Partition by partition, so that what is over a quota is spread over the subtopologies.
    tasks.sort_by(|a, b| (a.partition, &a.subtopology).cmp(&(b.partition, &b.subtopology)));
    tasks.retain(|task| {
        let Some(member) = previous.active.get(task) else { return true };
        if board.count[*member] >= quotas.active.each {
            return true;
        }
        quotas.given(board.give(*member, task, true));
        false
    });
    tasks.retain(|task| {
        let standbys = previous.standby.get(task).map_or(&[][..], Vec::as_slice);
        let Some(member) = board.least_loaded_of(standbys, None) else { return true };
        if board.count[member] >= quotas.active.each {
            return true;
        }
        quotas.given(board.give(member, task, true));
        false
    });
    tasks.sort();
    let mut by_load = board.by_load();
    for task in &tasks {
        let Some(Reverse((_, process))) = by_load.pop() else { return };
        let member = board.least_loaded_in(process);
        quotas.given(board.give(member, task, true));
        by_load.push(Reverse((board.load(process), process)));
    }
}

fn assign_standby(
    board: &mut Board,
    quota: &mut Quota,
    previous: &Previous,
    mut tasks: Vec<TaskId>,
    standbys: usize,
) {
    tasks.sort_by(|a, b| (b.partition, &b.subtopology).cmp(&(a.partition, &a.subtopology)));
    let mut left_over = Vec::new();
    for task in tasks {
        for given in 0..standbys {
            // Who had the task actively has its state; then who had it as a standby.
            let was_active = previous.active.get(&task).copied();
            let was_active = was_active.filter(|m| board.may_stand_by(*m, &task, quota));
            let member = was_active.or_else(|| {
                let had = previous.standby.get(&task).map_or(&[][..], Vec::as_slice);
                let found = board.least_loaded_of(had, Some(&task));
                found.filter(|m| board.may_stand_by(*m, &task, quota))
            });
            let Some(member) = member else {
                left_over.push((task, standbys - given));
                break;
            };
            quota.given(board.give(member, &task, false));
        }
    }
    left_over.sort_by(|(a, _), (b, _)| b.cmp(a));
    let mut by_load = board.by_load();
    for (task, wanted) in left_over {
        // Processes that have the task already are put aside, and back when it is dealt with.
        let mut aside = Vec::new();
        let mut given = 0;
        while given < wanted {
            let Some(Reverse((load, process))) = by_load.pop() else { break };
            if board.processes[process].tasks.contains(&task) {
                aside.push(Reverse((load, process)));
                continue;
            }
            let member = board.least_loaded_in(process);
            quota.given(board.give(member, &task, false));
            aside.push(Reverse((board.load(process), process)));
            given += 1;
        }
        by_load.extend(aside);
    }
}

/// Who had what, by index.
struct Previous {
    active: HashMap<TaskId, usize>,
    standby: HashMap<TaskId, Vec<usize>>,
}

impl Previous {
    fn of(candidates: &[Candidate<'_>]) -> Self {
        let mut active = HashMap::new();
        let mut standby: HashMap<TaskId, Vec<usize>> = HashMap::new();
        for (member, candidate) in candidates.iter().enumerate() {
            for task in &candidate.previous.active {
                active.insert(task.clone(), member);
            }
            for task in &candidate.previous.standby {
                standby.entry(task.clone()).or_default().push(member);
            }
        }
        Self { active, standby }
    }
}

/// How many tasks each member may take so that all have about the same: the rest, divided by those
/// who are not full, rounded up.
struct Quota {
    tasks: usize,
    members: usize,
    each: usize,
}

impl Quota {
    fn new(tasks: usize, members: usize) -> Self {
        Self { tasks, members, each: if members == 0 { 0 } else { tasks.div_ceil(members) } }
    }

    /// A member has `count` tasks now; who is full counts no more.
    fn given(&mut self, count: usize) {
        if count == self.each {
            *self = Self::new(self.tasks.saturating_sub(count), self.members.saturating_sub(1));
        }
    }
}

struct Quotas {
    active: Quota,
    all: Quota,
}

impl Quotas {
    fn given(&mut self, count: usize) {
        self.active.given(count);
        self.all.given(count);
    }
}

/// What has been given so far.
struct Board {
    given: Vec<Tasks>,
    /// Tasks of each member.
    count: Vec<usize>,
    process_of: Vec<usize>,
    processes: Vec<Process>,
}

#[derive(Default)]
struct Process {
    tasks: HashSet<TaskId>,
    /// Tasks of all its members.
    count: usize,
    /// (tasks, member), so that the first has the least.
    members: BTreeSet<(usize, usize)>,
}

impl Board {
    fn new(candidates: &[Candidate<'_>]) -> Self {
        let ids: BTreeSet<&Str> = candidates.iter().map(|candidate| candidate.process).collect();
        let index: BTreeMap<&Str, usize> = ids.into_iter().zip(0..).collect();
        let mut processes: Vec<Process> = index.iter().map(|_| Process::default()).collect();
        let mut process_of = Vec::with_capacity(candidates.len());
        for (member, candidate) in candidates.iter().enumerate() {
            let process = index[candidate.process];
            process_of.push(process);
            processes[process].members.insert((0, member));
        }
        let given = vec![Tasks::default(); candidates.len()];
        Self { given, count: vec![0; candidates.len()], process_of, processes }
    }

    /// Gives a task and says how many the member has now.
    fn give(&mut self, member: usize, task: &TaskId, active: bool) -> usize {
        let process = &mut self.processes[self.process_of[member]];
        process.tasks.insert(task.clone());
        process.count += 1;
        process.members.remove(&(self.count[member], member));
        self.count[member] += 1;
        process.members.insert((self.count[member], member));
        let given = &mut self.given[member];
        let tasks = if active { &mut given.active } else { &mut given.standby };
        tasks.insert(task.clone());
        self.count[member]
    }

    /// Tasks a member, as bits that sort like the number: it is never negative.
    fn load(&self, process: usize) -> u64 {
        let Process { count, members, .. } = &self.processes[process];
        (*count as f64 / members.len().max(1) as f64).to_bits()
    }

    fn by_load(&self) -> BinaryHeap<Reverse<(u64, usize)>> {
        (0..self.processes.len()).map(|process| Reverse((self.load(process), process))).collect()
    }

    fn least_loaded_in(&self, process: usize) -> usize {
        let members = &self.processes[process].members;
        members.first().expect("a process is there because of a member").1
    }

    /// The member on the process with the least load, and of these the one with the fewest tasks;
    /// none whose process has `without`.
    fn least_loaded_of(&self, members: &[usize], without: Option<&TaskId>) -> Option<usize> {
        let fits = |member: &usize| {
            without
                .is_none_or(|task| !self.processes[self.process_of[*member]].tasks.contains(task))
        };
        let load = |member: &usize| (self.load(self.process_of[*member]), self.count[*member]);
        members.iter().copied().filter(fits).min_by_key(load)
    }

    fn may_stand_by(&self, member: usize, task: &TaskId, quota: &Quota) -> bool {
        let process = &self.processes[self.process_of[member]];
        self.count[member] < quota.each && !process.tasks.contains(task)
    }
}
