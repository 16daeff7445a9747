//! The one timer of a coordinator: when each group next has something due, and the task that wakes
//! them.
//!
//! A group has at most one entry. The entry is not later than the group's earliest deadline and may
//! be earlier, because a heartbeat only moves a deadline away: then the group is woken, does nothing
//! and is entered anew. So heartbeats cost nothing here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cell::Cell;
use super::machine::Tick;
use super::shared::Shared;

/// How many groups are woken before other tasks get their turn.
const WAKES_PER_TURN: usize = 128;

/// Groups by when they are to be woken. Locked after a group's own lock.
#[derive(Default)]
pub(crate) struct Alarms {
    due: Mutex<BTreeMap<(Tick, u64), Weak<Cell>>>,
    sooner: Notify,
}

impl Alarms {
    /// Enters a group, in place of its old entry.
    pub(crate) fn set(&self, cell: &Arc<Cell>, old: Option<Tick>, at: Tick) {
        let mut due = self.due.lock();
        if let Some(old) = old {
            due.remove(&(old, cell.serial()));
        }
        due.insert((at, cell.serial()), Arc::downgrade(cell));
        if due.first_key_value().is_some_and(|(first, _)| *first == (at, cell.serial())) {
            self.sooner.notify_one();
        }
    }

    /// Takes a group's entry out.
    pub(crate) fn clear(&self, cell: &Cell, old: Tick) {
        self.due.lock().remove(&(old, cell.serial()));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.due.lock().len()
    }

    fn first(&self) -> Option<Tick> {
        self.due.lock().first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&self, now: Tick) -> Vec<Weak<Cell>> {
        let mut due = self.due.lock();
        let mut taken = Vec::new();
        while taken.len() < WAKES_PER_TURN {
            match due.first_entry() {
                Some(entry) if entry.key().0 <= now => taken.push(entry.remove()),
                _ => break,
            }
        }
        taken
    }
}

/// Wakes groups until the coordinator is gone. `origin` is when [`Tick`] 0 was.
pub(crate) async fn run(alarms: Arc<Alarms>, shared: Weak<Shared>, origin: Instant) {
    loop {
        let sooner = alarms.sooner.notified();
        match alarms.first() {
            Some(Tick(at)) => {
                let at = origin + Duration::from_millis(at);
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = sooner => continue,
                }
            }
            None => {
                sooner.await;
                continue;
            }
        }
        let Some(shared) = shared.upgrade() else { return };
        for cell in alarms.take_due(shared.now()) {
            if let Some(cell) = cell.upgrade() {
                shared.wake(&cell);
            }
        }
        drop(shared);
        tokio::task::yield_now().await;
    }
}
