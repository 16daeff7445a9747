//! One group as the coordinator holds it: the state machine, what is durable, and the clients that
//! wait. A cell has one lock, which is never held over an await.
//!
//! `stored` and `offsets` are the durable state and change only when a record is applied. The machine
//! runs ahead of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::{Mutex, MutexGuard};
use sluice_model::TenantId;
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str};
use tokio::sync::oneshot;

use super::kind::Kind;
use super::machine::{Group, Tick, Ticket};
use super::offsets::Offsets;
use super::stored::Stored;

/// A group of a tenant.
pub(crate) struct Cell {
    tenant: TenantId,
    id: Str,
    /// Tells cells apart that have held the same group one after the other.
    serial: u64,
    /// Grows when what was decided before is void (see [`super::modern`]).
    era: AtomicU32,
    state: Mutex<CellState>,
}

impl Cell {
    pub(crate) fn new(tenant: TenantId, id: &str, serial: u64, wall_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            tenant,
            id: Str::from(id),
            serial,
            era: AtomicU32::new(0),
            state: Mutex::new(CellState {
                kind: Kind::Classic(Group::new(wall_ms)),
                stored: Stored::Nothing,
                offsets: Offsets::default(),
                waiting: None,
                next_ticket: 0,
                pending: 0,
                storing: 0,
                deciding: 0,
                lingers: false,
                reloading: false,
                armed: None,
                removed: false,
            }),
        })
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn id(&self) -> &Str {
        &self.id
    }

    /// Which decisions of the group still count.
    pub(crate) fn era(&self) -> u32 {
        self.era.load(Ordering::Acquire)
    }

    /// What was decided so far and is not in the log must not get there.
    pub(crate) fn end_era(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, CellState> {
        self.state.lock()
    }
}

/// What a cell's lock guards.
pub(crate) struct CellState {
    pub(crate) kind: Kind,
    /// The group's records as they are in the log.
    pub(crate) stored: Stored,
    pub(crate) offsets: Offsets,
    /// Absent while nobody waits, which is nearly always.
    waiting: Option<Box<Waiting>>,
    next_ticket: u64,
    /// Writes that are queued and not yet applied: while there are any, the durable state must not
    /// be judged old or absent.
    pub(crate) pending: u32,
    /// Those of them that the machine asked for.
    pub(crate) storing: u32,
    /// Those that hold decisions of a group with member epochs.
    pub(crate) deciding: u32,
    /// Its offsets were deleted one by one: it is shown, empty, until retention looks at it, as in Kafka.
    pub(crate) lingers: bool,
    /// The machine is to be made anew of what is stored, and is not asked until then.
    pub(crate) reloading: bool,
    /// The group's entry among the alarms.
    pub(crate) armed: Option<Tick>,
    /// The cell is no longer its tenant's: look again.
    pub(crate) removed: bool,
}

#[derive(Default)]
struct Waiting {
    joins: HashMap<Ticket, oneshot::Sender<JoinGroupResponse>>,
    syncs: HashMap<Ticket, oneshot::Sender<SyncGroupResponse>>,
}

impl CellState {
    /// Nothing is known of the group that would not be the same of one that never was.
    pub(crate) fn is_blank(&self) -> bool {
        self.stored.is_nothing()
            && self.offsets.is_empty()
            && self.pending == 0
            && self.deciding == 0
            && !self.lingers
            && !self.reloading
            && self.kind.is_vacant()
    }

    /// The machine can be asked.
    pub(crate) fn check_settled(&self) -> Result<(), ErrorCode> {
        if self.reloading { Err(ErrorCode::CoordinatorLoadInProgress) } else { Ok(()) }
    }

    pub(crate) fn await_join(&mut self) -> (Ticket, oneshot::Receiver<JoinGroupResponse>) {
        let ticket = self.ticket();
        let (sender, receiver) = oneshot::channel();
        self.waiting.get_or_insert_default().joins.insert(ticket, sender);
        (ticket, receiver)
    }

    pub(crate) fn await_sync(&mut self) -> (Ticket, oneshot::Receiver<SyncGroupResponse>) {
        let ticket = self.ticket();
        let (sender, receiver) = oneshot::channel();
        self.waiting.get_or_insert_default().syncs.insert(ticket, sender);
        (ticket, receiver)
    }

    /// Answers a parked JoinGroup. A client that has gone away needs none.
    pub(crate) fn answer_join(&mut self, ticket: Ticket, answer: JoinGroupResponse) {
        let sender = self.waiting.as_mut().and_then(|waiting| waiting.joins.remove(&ticket));
        if let Some(sender) = sender {
            drop(sender.send(answer));
        }
        self.drop_waiting_if_empty();
    }

    /// Answers a parked SyncGroup.
    pub(crate) fn answer_sync(&mut self, ticket: Ticket, answer: SyncGroupResponse) {
        let sender = self.waiting.as_mut().and_then(|waiting| waiting.syncs.remove(&ticket));
        if let Some(sender) = sender {
            drop(sender.send(answer));
        }
        self.drop_waiting_if_empty();
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    fn drop_waiting_if_empty(&mut self) {
        let is_empty = |w: &Waiting| w.joins.is_empty() && w.syncs.is_empty();
        if self.waiting.as_deref().is_some_and(is_empty) {
            self.waiting = None;
        }
    }
}

impl crate::alarm::Alarmed for Cell {
    fn serial(&self) -> u64 {
        self.serial
    }
}
