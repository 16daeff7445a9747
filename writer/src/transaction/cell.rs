//! One transactional id as the coordinator holds it. A cell has one lock, which is never held over
//! an await.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use sluice_model::TenantId;
use sluice_wire::Str;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::machine::Machine;

/// A transactional id of a tenant.
pub(crate) struct Cell {
    pub(crate) tenant: TenantId,
    pub(crate) id: Str,
    /// Tells cells apart that have held the same id one after the other.
    pub(crate) serial: u64,
    /// A decision has been logged, or could not be.
    pub(crate) changed: Notify,
    /// Held from the check of a producer's first batches to their hand-over to the log, so that
    /// batches do not overtake each other on the way; fair, in the order of arrival.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<CellState>,
}

/// What a cell's lock guards.
#[derive(Default)]
pub(crate) struct CellState {
    pub(crate) machine: Machine,
    /// When the open transaction has to be over.
    pub(crate) deadline: Option<Instant>,
    /// The cell's entry among the alarms.
    pub(crate) armed: Option<Instant>,
    /// Counted among the open transactions.
    pub(crate) is_counted: bool,
    /// Why the decision that is being logged was made, if no client made it.
    pub(crate) reason: Reason,
    /// The cell is no longer its tenant's: look again.
    pub(crate) removed: bool,
}

/// Why a transaction ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its producer said so.
    #[default]
    Asked,
    /// It was open for too long.
    TimedOut,
    /// Another instance of the producer has begun.
    Fenced,
}

impl Cell {
    pub(crate) fn new(tenant: TenantId, id: &str, serial: u64) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            id: Str::from(id),
            serial,
            changed: Notify::new(),
            gate: Arc::default(),
            state: Mutex::default(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock()
    }
}

impl crate::alarm::Alarmed for Cell {
    fn serial(&self) -> u64 {
        self.serial
    }
}
