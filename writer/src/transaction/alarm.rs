//! The one timer of the coordinator: when each transactional id next has something due, and the task
//! that looks after them.
//!
//! An id has at most one entry, which is not later than what is due and may be earlier: then it is
//! looked at, nothing is done, and it is entered anew. So ending a transaction costs nothing here.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cell::Cell;
use super::shared::Shared;

/// How many ids are looked at before other tasks get their turn.
const WAKES_PER_TURN: usize = 128;

/// Ids by when they are to be looked at. Locked after a cell's own lock.
#[derive(Default)]
pub(crate) struct Alarms {
    due: Mutex<BTreeMap<(Instant, u64), Weak<Cell>>>,
    sooner: Notify,
}

impl Alarms {
    /// Enters an id, in place of its old entry.
    pub(crate) fn set(&self, cell: &Arc<Cell>, old: Option<Instant>, at: Instant) {
        let mut due = self.due.lock();
        if let Some(old) = old {
            due.remove(&(old, cell.serial));
        }
        due.insert((at, cell.serial), Arc::downgrade(cell));
        if due.first_key_value().is_some_and(|(first, _)| *first == (at, cell.serial)) {
            self.sooner.notify_one();
        }
    }

    /// Takes an id's entry out.
    pub(crate) fn clear(&self, cell: &Cell, old: Instant) {
        self.due.lock().remove(&(old, cell.serial));
    }

    fn first(&self) -> Option<Instant> {
        self.due.lock().first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&self, now: Instant) -> Vec<Weak<Cell>> {
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

/// Looks after ids until the coordinator is gone.
pub(crate) async fn run(alarms: Arc<Alarms>, shared: Weak<Shared>) {
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
