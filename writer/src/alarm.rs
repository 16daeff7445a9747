//! The one timer of a coordinator: when each of its cells next has something due, and the task that
//! wakes them.
//!
//! A cell has at most one entry, and knows when that is. The entry is not later than what is due and may
//! be earlier, because a heartbeat or the end of a transaction only moves a deadline away: then the cell
//! is woken, does nothing and is entered anew. So those cost nothing here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many cells are woken before other tasks get their turn.
const WAKES_PER_TURN: usize = 128;

/// What can have an entry.
pub(crate) trait Alarmed {
    /// Its number, which no other cell of the coordinator has.
    fn serial(&self) -> u64;
}

/// Whose cells are woken.
pub(crate) trait Wakes<C> {
    /// The cell's entry was taken out: something may be due.
    fn wake(self: &Arc<Self>, cell: &Arc<C>);
}

/// Cells by when they are to be woken. Locked after a cell's own lock.
pub(crate) struct Alarms<C> {
    due: Mutex<BTreeMap<(Instant, u64), Weak<C>>>,
    sooner: Notify,
}

impl<C> Default for Alarms<C> {
    fn default() -> Self {
        Self { due: Mutex::default(), sooner: Notify::new() }
    }
}

impl<C: Alarmed> Alarms<C> {
    /// Enters a cell, in place of its old entry.
    pub(crate) fn set(&self, cell: &Arc<C>, old: Option<Instant>, at: Instant) {
        let mut due = self.due.lock();
        if let Some(old) = old {
            due.remove(&(old, cell.serial()));
        }
        due.insert((at, cell.serial()), Arc::downgrade(cell));
        if due.first_key_value().is_some_and(|(first, _)| *first == (at, cell.serial())) {
            self.sooner.notify_one();
        }
    }

    /// Takes a cell's entry out.
    pub(crate) fn clear(&self, cell: &C, old: Instant) {
        self.due.lock().remove(&(old, cell.serial()));
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.due.lock().len()
    }

    fn first(&self) -> Option<Instant> {
        self.due.lock().first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&self, now: Instant) -> Vec<Weak<C>> {
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

/// Wakes cells until the coordinator is gone.
pub(crate) async fn run<C: Alarmed, S: Wakes<C>>(alarms: Arc<Alarms<C>>, shared: Weak<S>) {
    loop {
        let sooner = alarms.sooner.notified();
        match alarms.first() {
            Some(at) => {
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
        for cell in alarms.take_due(Instant::now()) {
            if let Some(cell) = cell.upgrade() {
                shared.wake(&cell);
            }
        }
        drop(shared);
        tokio::task::yield_now().await;
    }
}
