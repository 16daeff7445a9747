//! What the requests, the alarm task, the journal task and the marker tasks of one coordinator share:
//! all transactional ids, and the way from a decision to its effects.
//!
//! Lock order: a tenant's ids, then a cell, then the alarms. A cell's lock is released before its
//! tenant's is taken to forget it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{MutexGuard, RwLock};
use sluice_model::{Clock, TenantId};
use sluice_wire::{ErrorCode, Str};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::ProducerIds;
use super::cell::{Cell, CellState, Reason};
use super::config::TransactionConfig;
use super::journal::Write;
use super::machine::{Machine, Step};
use super::markers::{self, Markers};
use super::metrics::TransactionMetrics;
use super::quota::ProducerIdQuota;
use super::record;
use super::state::{State, Transaction};
use crate::alarm::{Alarms, Wakes};
use crate::group::log::LogRecord;
use crate::group::record::RecordError;

/// Where a coordinator is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loading = 0,
    Active = 1,
    Closed = 2,
}

/// What there is only while the coordinator is active.
struct Service {
    journal: mpsc::UnboundedSender<Write>,
    markers: Arc<dyn Markers>,
    coordinator_epoch: i32,
}

pub(crate) struct Shared {
    pub(crate) config: TransactionConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) alarms: Arc<Alarms<Cell>>,
    pub(crate) quota: ProducerIdQuota,
    producer_ids: Arc<dyn ProducerIds>,
    metrics: TransactionMetrics,
    tenants: DashMap<TenantId, Arc<TenantIds>>,
    service: RwLock<Option<Service>>,
    phase: AtomicU8,
    next_serial: AtomicU64,
}

/// The transactional ids of one tenant. Listing them never looks at another tenant's.
type TenantIds = RwLock<BTreeMap<Str, Arc<Cell>>>;

/// A request for a decision.
pub(crate) struct Ask<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) id: &'a str,
    /// Whether an unknown id is made known.
    pub(crate) creates: bool,
    /// How long to wait for another decision that is under way.
    pub(crate) busy_wait: Duration,
    /// Why a transaction that this aborts is aborted.
    pub(crate) reason: Reason,
}

/// What came of a request.
pub(crate) enum Decided {
    /// This is durable now.
    Logged(Transaction),
    /// Nothing had to be changed; this is how it is.
    AsItIs(Transaction),
}

/// What a look at a cell led to.
enum Looked {
    Wait(Transaction, oneshot::Receiver<Result<(), ErrorCode>>),
    Done(Transaction),
    NeedsProducerId,
    Busy,
    Again,
}

impl Shared {
    pub(crate) fn new(
        config: TransactionConfig,
        clock: Arc<dyn Clock>,
        producer_ids: Arc<dyn ProducerIds>,
        metrics: TransactionMetrics,
    ) -> Self {
        Self {
            quota: ProducerIdQuota::new(config.max_producer_ids_per_hour),
            config,
            clock,
            alarms: Arc::default(),
            producer_ids,
            metrics,
            tenants: DashMap::new(),
            service: RwLock::new(None),
            phase: AtomicU8::new(Phase::Loading as u8),
            next_serial: AtomicU64::new(0),
        }
    }

    /// Requests are served only while the coordinator is active.
    pub(crate) fn check_active(&self) -> Result<(), ErrorCode> {
        match self.phase() {
            Phase::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Phase::Active => Ok(()),
            Phase::Closed => Err(ErrorCode::NotCoordinator),
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.phase() == Phase::Active
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Loading,
            1 => Phase::Active,
            _ => Phase::Closed,
        }
    }

    /// Where markers go, and how long to wait between tries; None when the coordinator is closed.
    pub(crate) fn markers(&self) -> Option<(Arc<dyn Markers>, Duration)> {
        let service = self.service.read();
        Some((Arc::clone(&service.as_ref()?.markers), self.config.retry_backoff))
    }

    pub(crate) fn coordinator_epoch(&self) -> i32 {
        self.service.read().as_ref().map_or(-1, |service| service.coordinator_epoch)
    }

    /// Recovery is complete: takes up what an earlier owner left.
    pub(crate) fn start(
        self: &Arc<Self>,
        journal: mpsc::UnboundedSender<Write>,
        markers: Arc<dyn Markers>,
        coordinator_epoch: i32,
    ) {
        *self.service.write() = Some(Service { journal, markers, coordinator_epoch });
        self.phase.store(Phase::Active as u8, Ordering::Release);
        let now = Instant::now();
        let wall_ms = self.clock.wall_ms();
        for cell in self.all_cells() {
            let mut state = cell.lock();
            let Some(transaction) = state.machine.durable() else { continue };
            if transaction.state == State::Ongoing {
                // What is left of its time by the wall clock, but never more than it asked for.
                let timeout_ms = i64::from(transaction.timeout_ms.max(0));
                let left_ms = transaction.started_ms.saturating_add(timeout_ms) - wall_ms;
                state.deadline = Some(now + millis(left_ms.clamp(0, timeout_ms)));
            }
            self.follow(&cell, &mut state);
        }
    }

    pub(crate) fn close(&self) {
        self.phase.store(Phase::Closed as u8, Ordering::Release);
        // The journal's task ends when the queue is empty.
        *self.service.write() = None;
    }

    fn ids_of(&self, tenant: TenantId) -> Option<Arc<TenantIds>> {
        self.tenants.get(&tenant).map(|ids| Arc::clone(&ids))
    }

    /// A tenant's ids as they are now, in order.
    pub(crate) fn cells_of(&self, tenant: TenantId) -> Vec<Arc<Cell>> {
        self.ids_of(tenant).map_or_else(Vec::new, |ids| ids.read().values().cloned().collect())
    }

    fn all_cells(&self) -> Vec<Arc<Cell>> {
        let tenants: Vec<TenantId> = self.tenants.iter().map(|entry| *entry.key()).collect();
        tenants.into_iter().flat_map(|tenant| self.cells_of(tenant)).collect()
    }

    pub(crate) fn cell(&self, tenant: TenantId, id: &str) -> Option<Arc<Cell>> {
        self.ids_of(tenant)?.read().get(id).cloned()
    }

    fn cell_or_new(&self, tenant: TenantId, id: &str, max: usize) -> Result<Arc<Cell>, ErrorCode> {
        if let Some(cell) = self.cell(tenant, id) {
            return Ok(cell);
        }
        let ids = Arc::clone(&self.tenants.entry(tenant).or_default());
        let mut ids = ids.write();
        if let Some(cell) = ids.get(id) {
            return Ok(Arc::clone(cell));
        }
        if ids.len() >= max {
            return Err(ErrorCode::PolicyViolation);
        }
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let cell = Cell::new(tenant, id, serial);
        ids.insert(cell.id.clone(), Arc::clone(&cell));
        self.metrics.ids.inc();
        Ok(cell)
    }

    /// Unlocks a cell, and forgets it if nothing is left of it.
    fn leave(&self, cell: &Arc<Cell>, state: MutexGuard<'_, CellState>) {
        let is_blank = state.machine.is_blank() && !state.removed;
        drop(state);
        if !is_blank {
            return;
        }
        let Some(ids) = self.ids_of(cell.tenant) else { return };
        let mut ids = ids.write();
        let mut state = cell.lock();
        if state.machine.is_blank() && !state.removed {
            state.removed = true;
            ids.remove(&*cell.id);
            self.metrics.ids.dec();
            if let Some(old) = state.armed.take() {
                self.alarms.clear(cell, old);
            }
        }
    }

    /// Asks a machine for a step, makes it durable, and waits for that. What `step` decides is logged
    /// even if this future is dropped.
    pub(crate) async fn decide(
        &self,
        ask: Ask<'_>,
        step: impl Fn(&Machine, Option<i64>) -> Result<Step, ErrorCode>,
    ) -> Result<Decided, ErrorCode> {
        let busy_until = Instant::now() + ask.busy_wait;
        let mut fresh = None;
        loop {
            self.check_active()?;
            let known = self.cell(ask.tenant, ask.id);
            let cell = match known {
                Some(cell) => cell,
                // Refused as an id that never was.
                None if !ask.creates => {
                    return Err(match step(&Machine::default(), None) {
                        Err(code) => code,
                        Ok(_) => ErrorCode::InvalidProducerIdMapping,
                    });
                }
                None if fresh.is_none() => {
                    fresh = Some(self.next_producer_id().await?);
                    continue;
                }
                None => self.cell_or_new(ask.tenant, ask.id, self.config.max_ids_per_tenant)?,
            };
            let changed = cell.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let is_patient = Instant::now() < busy_until;
            match self.look(&cell, &ask, fresh, is_patient, &step)? {
                Looked::Wait(next, durable) => {
                    return match tokio::time::timeout(self.config.log_wait, durable).await {
                        Ok(Ok(Ok(()))) => Ok(Decided::Logged(next)),
                        Ok(Ok(Err(code))) => Err(code),
                        Ok(Err(_)) => Err(ErrorCode::NotCoordinator),
                        Err(_) => Err(ErrorCode::CoordinatorNotAvailable),
                    };
                }
                Looked::Done(current) => return Ok(Decided::AsItIs(current)),
                Looked::NeedsProducerId => fresh = Some(self.next_producer_id().await?),
                // Looked at again in both cases; then the time is up.
                Looked::Busy => drop(tokio::time::timeout_at(busy_until, changed).await),
                Looked::Again => {}
            }
        }
    }

    fn look(
        &self,
        cell: &Arc<Cell>,
        ask: &Ask<'_>,
        fresh: Option<i64>,
        is_patient: bool,
        step: impl Fn(&Machine, Option<i64>) -> Result<Step, ErrorCode>,
    ) -> Result<Looked, ErrorCode> {
        let mut state = cell.lock();
        if state.removed {
            return Ok(Looked::Again);
        }
        let looked = match step(&state.machine, fresh) {
            Ok(Step::Log(next)) => self
                .log(cell, &mut state, Some(&next), ask.reason)
                .map(|durable| Looked::Wait(*next, durable)),
            Ok(Step::NeedsProducerId) => Ok(Looked::NeedsProducerId),
            Ok(Step::Done) => match state.machine.durable() {
                Some(current) => Ok(Looked::Done(current.clone())),
                None => Err(ErrorCode::InvalidProducerIdMapping),
            },
            Err(ErrorCode::ConcurrentTransactions) if is_patient => Ok(Looked::Busy),
            Err(code) => Err(code),
        };
        self.leave(cell, state);
        looked
    }

    /// Queues the next state of the cell whose lock is held, or its end.
    fn log(
        &self,
        cell: &Arc<Cell>,
        state: &mut CellState,
        next: Option<&Transaction>,
        reason: Reason,
    ) -> Result<oneshot::Receiver<Result<(), ErrorCode>>, ErrorCode> {
        let service = self.service.read();
        let service = service.as_ref().ok_or(ErrorCode::NotCoordinator)?;
        let key = record::encode_key(cell.tenant, &cell.id);
        let record = LogRecord { key, value: next.map(Transaction::encode) };
        let (done, durable) = oneshot::channel();
        let write = Write { cell: Arc::clone(cell), record, done };
        service.journal.send(write).map_err(|_| ErrorCode::NotCoordinator)?;
        state.machine.log_begun();
        state.reason = reason;
        Ok(durable)
    }

    /// A decision was logged and applied, or could not be.
    pub(crate) fn logged(self: &Arc<Self>, cell: &Arc<Cell>, is_durable: bool) {
        let mut state = cell.lock();
        state.machine.log_ended();
        if is_durable {
            self.count(&state);
            self.follow(cell, &mut state);
        }
        self.leave(cell, state);
        cell.changed.notify_waiters();
    }

    fn count(&self, state: &CellState) {
        let Some(transaction) = state.machine.durable() else { return };
        match (transaction.state, state.reason) {
            (State::CompleteCommit, _) => self.metrics.committed.inc(),
            (State::CompleteAbort, _) => self.metrics.aborted.inc(),
            (State::PrepareAbort, Reason::TimedOut) => self.metrics.timed_out.inc(),
            (State::PrepareAbort, Reason::Fenced) => self.metrics.fenced.inc(),
            (State::PrepareAbort | State::PrepareCommit | State::Empty | State::Ongoing, _) => 0,
        };
    }

    /// Does what a durable state asks for: markers, and the alarm.
    fn follow(self: &Arc<Self>, cell: &Arc<Cell>, state: &mut CellState) {
        let durable = state.machine.durable();
        let is_ongoing = durable.is_some_and(|durable| durable.state == State::Ongoing);
        let is_prepared = durable.is_some_and(|durable| durable.state.is_prepared());
        let timeout_ms = durable.map_or(0, |durable| i64::from(durable.timeout_ms));
        if !is_ongoing {
            state.deadline = None;
        } else if state.deadline.is_none() {
            state.deadline = Some(Instant::now() + millis(timeout_ms));
        }
        if state.is_counted != (is_ongoing || is_prepared) {
            state.is_counted = !state.is_counted;
            self.metrics.open.inc_by(if state.is_counted { 1 } else { -1 });
        }
        if is_prepared {
            tokio::spawn(markers::complete(Arc::downgrade(self), Arc::clone(cell)));
        }
        self.arm(cell, state);
    }

    fn arm(&self, cell: &Arc<Cell>, state: &mut CellState) {
        let Some(durable) = state.machine.durable() else { return };
        let at = match durable.state {
            State::Ongoing => state.deadline,
            State::PrepareCommit | State::PrepareAbort => None,
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                let quiet_ms = self.clock.wall_ms().saturating_sub(durable.updated_ms).max(0);
                let left_ms = self.config.id_expiration_ms.saturating_sub(quiet_ms).max(0);
                Instant::now().checked_add(millis(left_ms))
            }
        };
        let Some(at) = at else { return };
        if state.armed.is_none_or(|armed| at < armed) {
            self.alarms.set(cell, state.armed, at);
            state.armed = Some(at);
        }
    }

    /// The cell's alarm went off: whatever is due is done.
    fn due(self: &Arc<Self>, cell: &Arc<Cell>) {
        let now = Instant::now();
        let mut state = cell.lock();
        // The entry was taken out; if the cell has a new one since, that stands.
        if state.removed || state.armed.is_none_or(|armed| armed > now) {
            return;
        }
        state.armed = None;
        // What is being logged decides what is due next, and then the alarm is set again.
        if state.machine.is_logging() {
            return;
        }
        let expiry_ms = self.clock.wall_ms().saturating_sub(self.config.id_expiration_ms);
        if state.deadline.is_some_and(|deadline| deadline <= now) {
            if let Some(late) = state.machine.durable().cloned() {
                tokio::spawn(abort(Arc::clone(self), Arc::clone(cell), late));
            }
        } else if state.machine.is_expired(expiry_ms) {
            // Nobody waits for it; it fails only when service ends.
            let _ = self.log(cell, &mut state, None, Reason::Asked);
        } else {
            self.arm(cell, &mut state);
        }
    }

    /// All markers of the cell's transaction are written.
    pub(crate) fn completed(&self, cell: &Arc<Cell>) {
        let mut state = cell.lock();
        if let Some(next) = state.machine.complete(self.clock.wall_ms()) {
            // It fails only when service ends; the next owner writes the markers again.
            let _ = self.log(cell, &mut state, Some(&next), Reason::Asked);
        }
    }

    /// A producer id that nobody has had.
    pub(crate) async fn next_producer_id(&self) -> Result<i64, ErrorCode> {
        self.producer_ids.next().await
    }

    /// Takes one durable record (see [`crate::group::log::CoordinatorState::apply`]).
    pub(crate) fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        let (tenant, id) = record::decode_key(key)?;
        let next = value.map(Transaction::decode).transpose()?;
        loop {
            // Without a bound: what is durable counts, whatever the limit is today.
            let Ok(cell) = self.cell_or_new(tenant, id, usize::MAX) else { return Ok(()) };
            let mut state = cell.lock();
            if state.removed {
                continue;
            }
            state.machine.applied(next);
            self.leave(&cell, state);
            return Ok(());
        }
    }

    /// All durable state, as keys and values.
    pub(crate) fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
        for cell in self.all_cells() {
            let value = cell.lock().machine.durable().map(Transaction::encode);
            if let Some(value) = value {
                emit(record::encode_key(cell.tenant, &cell.id), value);
            }
        }
    }
}

impl Drop for Shared {
    /// What it counted goes with it: the next owner of the log counts anew.
    fn drop(&mut self) {
        let cells = self.all_cells();
        let counted = cells.iter().filter(|cell| cell.lock().is_counted).count();
        self.metrics.ids.dec_by(i64::try_from(cells.len()).unwrap_or(i64::MAX));
        self.metrics.open.dec_by(i64::try_from(counted).unwrap_or(i64::MAX));
    }
}

/// Aborts a transaction that has been open for too long.
async fn abort(shared: Arc<Shared>, cell: Arc<Cell>, late: Transaction) {
    let ask = Ask {
        tenant: cell.tenant,
        id: &cell.id,
        creates: false,
        busy_wait: Duration::ZERO,
        reason: Reason::TimedOut,
    };
    let aborted = shared.decide(ask, |machine, fresh| {
        // Only that transaction: the next one has its own time.
        let is_late = machine.durable().is_some_and(|durable| {
            (durable.producer_id, durable.epoch, durable.started_ms)
                == (late.producer_id, late.epoch, late.started_ms)
        });
        let step = machine.time_out(fresh, shared.clock.wall_ms()).filter(|_| is_late);
        step.ok_or(ErrorCode::InvalidTxnState)
    });
    match aborted.await {
        Ok(_) => tracing::info!(
            tenant = cell.tenant.0,
            producer_id = late.producer_id,
            producer_epoch = late.epoch,
            timeout_ms = late.timeout_ms,
            "a transaction was open for longer than its timeout and is aborted"
        ),
        // It has ended by itself, or service ends.
        Err(ErrorCode::InvalidTxnState | ErrorCode::NotCoordinator) => {}
        Err(code) => {
            tracing::warn!(%code, "a transaction past its timeout could not be aborted yet");
            let mut state = cell.lock();
            if state.deadline.is_some() && !state.removed {
                let at = Instant::now() + shared.config.retry_backoff;
                let old = state.armed.replace(at);
                shared.alarms.set(&cell, old, at);
            }
        }
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

impl Wakes<Cell> for Shared {
    fn wake(self: &Arc<Self>, cell: &Arc<Cell>) {
        self.due(cell);
    }
}
