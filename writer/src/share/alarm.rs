//! When each share partition's next lock runs out, and the task that lets go of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::cell::{Cell, CellState};
use super::shared::Shared;

/// How many cells are woken before other tasks get their turn.
const WAKES_PER_TURN: usize = 128;

/// Cells by when they are to be woken: at most one entry each. Locked after a cell's own lock.
#[derive(Default)]
pub(crate) struct Alarms {
    due: Mutex<BTreeMap<(Instant, u64), Weak<Cell>>>,
    sooner: Notify,
}

impl Alarms {
    /// Enters a cell, unless it is woken earlier anyway.
    pub(crate) fn set(&self, cell: &Arc<Cell>, state: &mut CellState, at: Instant) {
        if state.armed.is_some_and(|armed| armed <= at) {
            return;
        }
        let mut due = self.due.lock();
        if let Some(old) = state.armed.replace(at) {
            due.remove(&(old, cell.serial));
        }
        due.insert((at, cell.serial), Arc::downgrade(cell));
        if due.first_key_value().is_some_and(|(first, _)| *first == (at, cell.serial)) {
            self.sooner.notify_one();
        }
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

/// Wakes cells until the coordinator is gone.
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
                let mut state = cell.lock();
                state.armed = None;
                shared.expire(&cell, &mut state);
            }
        }
        drop(shared);
        tokio::task::yield_now().await;
    }
}
