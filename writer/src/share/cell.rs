//! One share partition as it is held: what is durable, the machine while the group uses it, and who waits.
//! A cell has one lock, which is never held over an await.
//!
//! `stored` is the durable state and changes only when a record is applied. The machine runs ahead of it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use sluice_model::TenantId;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::key::ShareKey;
use super::partition::{SharePartition, Stored};
use crate::group::log::LogError;

/// What a share group has of one stream.
pub(crate) struct Cell {
    pub(crate) tenant: TenantId,
    pub(crate) key: ShareKey,
    /// Tells cells apart that have held the same key one after the other.
    pub(crate) serial: u64,
    /// Held by the one fetch that reads and acquires, over its read: two would read the same.
    pub(crate) fetching: tokio::sync::Mutex<()>,
    state: Mutex<CellState>,
}

/// What a cell's lock guards.
#[derive(Default)]
pub(crate) struct CellState {
    pub(crate) stored: Option<Stored>,
    pub(crate) live: Option<SharePartition>,
    /// The cell is in the journal's queue.
    pub(crate) queued: bool,
    /// Acknowledgements that wait until what they staged is durable, by ticket.
    pub(crate) waiting: Vec<(u64, oneshot::Sender<Result<(), LogError>>)>,
    /// Fetches that wait for something to acquire.
    pub(crate) watchers: Vec<Arc<Notify>>,
    /// The cell's entry among the alarms.
    pub(crate) armed: Option<Instant>,
    /// The cell is no longer its tenant's: look again.
    pub(crate) removed: bool,
}

impl Cell {
    pub(crate) fn new(tenant: TenantId, key: ShareKey, serial: u64) -> Arc<Self> {
        let fetching = tokio::sync::Mutex::default();
        Arc::new(Self { tenant, key, serial, fetching, state: Mutex::default() })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock()
    }
}

impl CellState {
    /// Nothing is known that would not be the same of a cell that never was.
    pub(crate) fn is_blank(&self) -> bool {
        self.stored.is_none() && self.live.is_none() && !self.queued
    }

    pub(crate) fn wake_watchers(&self) {
        for watcher in &self.watchers {
            watcher.notify_one();
        }
    }

    /// The machine goes: its state is what is stored, and who waits is told.
    pub(crate) fn unload(&mut self) {
        self.live = None;
        for (_, caller) in self.waiting.drain(..) {
            // A client that has gone away needs no answer.
            let _ = caller.send(Err(LogError::NotOwner));
        }
        self.wake_watchers();
    }
}

/// Watches some cells until it is dropped.
pub(crate) struct Watch<'a> {
    wake: Arc<Notify>,
    cells: &'a [Arc<Cell>],
}

impl<'a> Watch<'a> {
    pub(crate) fn new(cells: &'a [Arc<Cell>], wake: Arc<Notify>) -> Self {
        for cell in cells {
            cell.lock().watchers.push(Arc::clone(&wake));
        }
        Self { wake, cells }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        for cell in self.cells {
            let mut state = cell.lock();
            if let Some(at) = state.watchers.iter().position(|w| Arc::ptr_eq(w, &self.wake)) {
                state.watchers.swap_remove(at);
            }
        }
    }
}

impl crate::alarm::Alarmed for Cell {
    fn serial(&self) -> u64 {
        self.serial
    }
}
