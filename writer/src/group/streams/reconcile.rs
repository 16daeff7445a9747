//! One step of a member towards its target: first it gives up what is not its any more, and only
//! when it says that it has, it gets what is new and free.
//!
//! ```text
//!               tasks to give up                    given up
//!   Stable ----------------------> Unrevoked -------------------+
//!     ^  |                                                      v
//!     |  +---- some new tasks are not free ----> Unreleased <---+
//!     +------------------ all are free ---------------|---------+
//! ```
//!
//! An active task is free when no member has it, and the member's own process does not have it as a
//! standby either: a task's state directory belongs to one task of the process. A standby is free
//! when the member's own process has it in no form.

use std::collections::HashMap;

use sluice_wire::Str;

use super::member::{Current, Member, Progress};
use super::tasks::{Held, Owned, TaskId, Tasks};

/// Which processes have which tasks, or still have to give them up.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    active: HashMap<TaskId, Str>,
    standby: HashMap<TaskId, Vec<Str>>,
}

impl Owners {
    /// Of all members, by what they have now.
    pub(crate) fn of<'a>(members: impl Iterator<Item = &'a Member>) -> Self {
        let mut owners = Self::default();
        for member in members {
            let process = &member.profile.process;
            for held in [&member.current.assigned, &member.current.revoking] {
                for task in held.active.keys() {
                    owners.active.insert(task.clone(), process.clone());
                }
                for task in &held.standby {
                    owners.standby.entry(task.clone()).or_default().push(process.clone());
                }
            }
        }
        owners
    }

    fn is_standby_on(&self, task: &TaskId, process: &Str) -> bool {
        self.standby.get(task).is_some_and(|processes| processes.contains(process))
    }

    fn is_active_free(&self, task: &TaskId, process: &Str) -> bool {
        !self.active.contains_key(task) && !self.is_standby_on(task, process)
    }

    fn is_standby_free(&self, task: &TaskId, process: &Str) -> bool {
        self.active.get(task) != Some(process) && !self.is_standby_on(task, process)
    }
}

/// What a member is to have next.
pub(crate) struct Step<'a> {
    pub(crate) process: &'a Str,
    pub(crate) assignment_epoch: i32,
    pub(crate) target: &'a Tasks,
    /// What the member says it has; `None` when it said nothing.
    pub(crate) owned: Option<Owned<'a>>,
    pub(crate) owners: &'a Owners,
}

impl Step<'_> {
    /// The member's next state; `current` itself when it cannot go on yet.
    pub(crate) fn from(&self, current: &Current) -> Current {
        match current.progress {
            Progress::Stable if current.epoch == self.assignment_epoch => current.clone(),
            Progress::Stable | Progress::Unreleased => self.next(current, current.epoch),
            Progress::Unrevoked => match self.owned {
                Some(owned) if !owned.meets(&current.revoking) => {
                    self.next(current, current.epoch + 1)
                }
                _ => current.clone(),
            },
        }
    }

    /// `epoch` is the one under which the member gives up what it has to.
    fn next(&self, current: &Current, epoch: i32) -> Current {
        let held = &current.assigned;
        let mut kept = Held::default();
        let mut revoking = Held::default();
        for (task, since) in &held.active {
            let side = if self.target.active.contains(task) { &mut kept } else { &mut revoking };
            side.active.insert(task.clone(), *since);
        }
        for task in &held.standby {
            let side = if self.target.standby.contains(task) { &mut kept } else { &mut revoking };
            side.standby.insert(task.clone());
        }
        let must_revoke =
            !revoking.is_empty() && self.owned.is_none_or(|owned| owned.meets(&revoking));
        if must_revoke {
            return Current {
                progress: Progress::Unrevoked,
                epoch,
                previous_epoch: current.epoch,
                assigned: kept,
                revoking,
            };
        }
        let mut waits = false;
        for task in &self.target.active {
            if kept.active.contains_key(task) {
                continue;
            }
            if self.owners.is_active_free(task, self.process) {
                kept.active.insert(task.clone(), self.assignment_epoch);
            } else {
                waits = true;
            }
        }
        for task in &self.target.standby {
            if kept.standby.contains(task) {
                continue;
            }
            if self.owners.is_standby_free(task, self.process) {
                kept.standby.insert(task.clone());
            } else {
                waits = true;
            }
        }
        Current {
            progress: if waits { Progress::Unreleased } else { Progress::Stable },
            epoch: self.assignment_epoch,
            previous_epoch: current.epoch,
            assigned: kept,
            revoking: Held::default(),
        }
    }
}
