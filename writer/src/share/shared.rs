//! What the requests and the tasks of share groups' records have in common: all share partitions and
//! sessions, and the way from the machines to the log.
//!
//! Lock order: a tenant's share partitions, then a cell, then the alarms; sessions are locked by themselves.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard, RwLock};
use sluice_model::group_config::ShareSettings;
use sluice_model::{GroupConfigs, StreamId, TenantId};
use sluice_wire::{ErrorCode, Str};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cell::{Cell, CellState};
use super::journal::{Journal, Write};
use super::key::ShareKey;
use super::metrics::ShareMetrics;
use super::partition::{Rules, Stored};
use super::session::Sessions;
use super::settings::{self, ShareLimits};
use crate::alarm::{Alarms, Wakes};
use crate::group::Topics;
use crate::group::log::LogError;
use crate::group::record::RecordError;

/// The epoch under which a stream's volume is owned.
pub type LeaderEpochOf = Arc<dyn Fn(StreamId) -> i32 + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) limits: ShareLimits,
    pub(crate) topics: Arc<dyn Topics>,
    pub(crate) alarms: Arc<Alarms<Cell>>,
    pub(crate) metrics: ShareMetrics,
    configs: Arc<dyn GroupConfigs>,
    leader_epoch: LeaderEpochOf,
    tenants: DashMap<TenantId, Arc<Tenant>>,
    journal: RwLock<Option<Journal>>,
    next_serial: AtomicU64,
}

/// What all tenants together have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) sessions: u64,
    pub(crate) partitions: u64,
    /// Records that members have and have not acknowledged.
    pub(crate) acquired: u64,
}

/// What is kept for one tenant.
#[derive(Default)]
pub(crate) struct Tenant {
    cells: RwLock<BTreeMap<ShareKey, Arc<Cell>>>,
    pub(crate) sessions: Mutex<Sessions>,
}

impl Shared {
    pub(crate) fn new(
        limits: ShareLimits,
        topics: Arc<dyn Topics>,
        configs: Arc<dyn GroupConfigs>,
        leader_epoch: LeaderEpochOf,
        metrics: ShareMetrics,
    ) -> Self {
        Self {
            limits,
            topics,
            alarms: Arc::default(),
            metrics,
            configs,
            leader_epoch,
            tenants: DashMap::new(),
            journal: RwLock::new(None),
            next_serial: AtomicU64::new(0),
        }
    }

    pub(crate) fn settings_of(&self, tenant: TenantId, group: &str) -> ShareSettings {
        self.configs.settings(tenant, group).share
    }

    /// The rules of a cell, as they are now.
    pub(crate) fn rules(&self, cell: &Cell) -> Rules {
        settings::rules(&self.settings_of(cell.tenant, &cell.key.group))
    }

    pub(crate) fn leader_epoch(&self, stream: StreamId) -> i32 {
        (self.leader_epoch)(stream)
    }

    pub(crate) fn set_journal(&self, journal: Option<Journal>) {
        *self.journal.write() = journal;
    }

    /// Requests are served while there is a log.
    pub(crate) fn check_active(&self) -> Result<(), ErrorCode> {
        match *self.journal.read() {
            Some(_) => Ok(()),
            None => Err(ErrorCode::NotLeaderOrFollower),
        }
    }

    pub(crate) fn tenant(&self, tenant: TenantId) -> Arc<Tenant> {
        Arc::clone(&self.tenants.entry(tenant).or_default())
    }

    fn known_tenant(&self, tenant: TenantId) -> Option<Arc<Tenant>> {
        self.tenants.get(&tenant).map(|tenant| Arc::clone(&tenant))
    }

    /// All cells of one tenant, or of all.
    pub(crate) fn cells(&self, of: Option<TenantId>) -> Vec<Arc<Cell>> {
        let tenants: Vec<_> = match of {
            Some(tenant) => self.known_tenant(tenant).into_iter().collect(),
            None => self.tenants.iter().map(|entry| Arc::clone(&entry)).collect(),
        };
        let mut cells = Vec::new();
        for tenant in tenants {
            cells.extend(tenant.cells.read().values().cloned());
        }
        cells
    }

    /// The cells of one group.
    pub(crate) fn cells_of_group(&self, tenant: TenantId, group: &Str) -> Vec<Arc<Cell>> {
        let Some(tenant) = self.known_tenant(tenant) else { return Vec::new() };
        let first = StreamId { topic: sluice_model::TopicId::ZERO, partition: 0 };
        let from = ShareKey { group: group.clone(), stream: first };
        let cells = tenant.cells.read();
        let of_group = cells.range(from..).take_while(|(key, _)| key.group == *group);
        of_group.map(|(_, cell)| Arc::clone(cell)).collect()
    }

    pub(crate) fn cell(&self, tenant: TenantId, key: &ShareKey) -> Option<Arc<Cell>> {
        self.known_tenant(tenant)?.cells.read().get(key).cloned()
    }

    /// A share partition's cell, made if need be. `None` when that would be one more than `limit` for the
    /// tenant.
    pub(crate) fn cell_or_new(
        &self,
        tenant: TenantId,
        key: &ShareKey,
        limit: usize,
    ) -> Option<Arc<Cell>> {
        if let Some(cell) = self.cell(tenant, key) {
            return Some(cell);
        }
        let of = self.tenant(tenant);
        let mut cells = of.cells.write();
        if let Some(cell) = cells.get(key) {
            return Some(Arc::clone(cell));
        }
        if cells.len() >= limit {
            return None;
        }
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let cell = Cell::new(tenant, key.clone(), serial);
        cells.insert(key.clone(), Arc::clone(&cell));
        Some(cell)
    }

    /// Unlocks a cell, and forgets it if nothing is left of it.
    pub(crate) fn leave(&self, cell: &Arc<Cell>, state: MutexGuard<'_, CellState>) {
        let is_blank = state.is_blank() && !state.removed;
        drop(state);
        if !is_blank {
            return;
        }
        let Some(tenant) = self.known_tenant(cell.tenant) else { return };
        let mut cells = tenant.cells.write();
        let mut state = cell.lock();
        if state.is_blank() && !state.removed {
            state.removed = true;
            cells.remove(&cell.key);
        }
    }

    /// Queues a cell's state for the log.
    pub(crate) fn persist(&self, cell: &Arc<Cell>, state: &mut CellState) -> Result<(), LogError> {
        if state.queued {
            return Ok(());
        }
        let journal = self.journal.read();
        let journal = journal.as_ref().ok_or(LogError::NotOwner)?;
        if !journal.push(Write::State(Arc::clone(cell))) {
            return Err(LogError::NotOwner);
        }
        state.queued = true;
        Ok(())
    }

    /// Queues a cell's state, and gives what tells when all that is staged up to `ticket` is durable.
    pub(crate) fn persist_and_tell(
        &self,
        cell: &Arc<Cell>,
        state: &mut CellState,
        ticket: u64,
    ) -> Result<oneshot::Receiver<Result<(), LogError>>, LogError> {
        let queued = self.persist(cell, state);
        if let Err(error) = queued {
            if let Some(live) = &mut state.live {
                let rules = self.rules(cell);
                live.settle(ticket, false, Instant::now(), &rules);
            }
            return Err(error);
        }
        let (done, durable) = oneshot::channel();
        state.waiting.push((ticket, done));
        Ok(durable)
    }

    /// Writes a cell's new state, or that it is forgotten; the machine is to be gone by then.
    pub(crate) async fn replace(
        &self,
        cell: &Arc<Cell>,
        stored: Option<Stored>,
    ) -> Result<(), LogError> {
        let (done, durable) = oneshot::channel();
        {
            let journal = self.journal.read();
            let journal = journal.as_ref().ok_or(LogError::NotOwner)?;
            let write = Write::Replace { cell: Arc::clone(cell), stored, done };
            if !journal.push(write) {
                return Err(LogError::NotOwner);
            }
        }
        durable.await.unwrap_or(Err(LogError::NotOwner))
    }

    /// Lets go of the locks that have run out.
    pub(crate) fn expire(&self, cell: &Arc<Cell>, state: &mut CellState) {
        let rules = self.rules(cell);
        let expired = state.live.as_mut().map_or(0, |live| live.expire(Instant::now(), &rules));
        if expired > 0 {
            self.metrics.timed_out.inc_by(expired);
            if let Err(error) = self.persist(cell, state) {
                // What was delivered how often is then told by the next state that is written.
                tracing::debug!(%error, "share partition is not persisted");
            }
            state.wake_watchers();
        }
        self.arm(cell, state);
    }

    /// Enters the cell's next alarm.
    pub(crate) fn arm(&self, cell: &Arc<Cell>, state: &mut CellState) {
        if let Some(wake) = state.live.as_ref().and_then(|live| live.wake()) {
            if state.armed.is_some_and(|armed| armed <= wake) {
                return;
            }
            let old = state.armed.replace(wake);
            self.alarms.set(cell, old, wake);
        }
    }

    /// Takes one durable record (see [`crate::group::log::CoordinatorState::apply`]).
    pub(crate) fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        let (tenant, key) = ShareKey::decode(key)?;
        let stored = value.map(Stored::decode).transpose()?;
        if stored.is_none() && self.cell(tenant, &key).is_none() {
            return Ok(());
        }
        loop {
            let Some(cell) = self.cell_or_new(tenant, &key, usize::MAX) else { return Ok(()) };
            let mut state = cell.lock();
            if state.removed {
                continue;
            }
            state.stored = stored;
            self.leave(&cell, state);
            return Ok(());
        }
    }

    /// How much there is. Locks one cell after the other.
    pub(crate) fn count(&self) -> Count {
        let mut count = Count::default();
        for tenant in &self.tenants {
            count.sessions += tenant.sessions.lock().len() as u64;
        }
        for cell in self.cells(None) {
            count.partitions += 1;
            count.acquired += cell.lock().live.as_ref().map_or(0, |live| live.acquired());
        }
        count
    }

    /// All durable state, as keys and values.
    pub(crate) fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
        for cell in self.cells(None) {
            let value = cell.lock().stored.as_ref().map(Stored::encode);
            if let Some(value) = value {
                emit(cell.key.encode(cell.tenant), value);
            }
        }
    }
}

impl Wakes<Cell> for Shared {
    fn wake(self: &Arc<Self>, cell: &Arc<Cell>) {
        let mut state = cell.lock();
        state.armed = None;
        self.expire(cell, &mut state);
    }
}
