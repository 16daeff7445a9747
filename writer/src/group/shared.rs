//! What the requests, the alarm task and the journal task of one coordinator share: all groups, and
//! the way from a state machine's actions to their effects.
//!
//! Lock order: a tenant's groups, then a group, then the alarms. A group's lock is released before
//! its tenant's is taken to forget it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use parking_lot::RwLock;
use sluice_model::{Clock, Entropy, GroupConfigs, TenantId};
use sluice_wire::{ErrorCode, Str};
use tokio::time::Instant;

use super::cell::{Cell, CellState};
use super::config::GroupConfig;
use super::consumer;
use super::journal::{Done, Journal, Write};
use super::kind::Kind;
use super::log::{LogError, LogRecord};
use super::machine::{Action, Context, Group, Persist, Tick};
use super::record::metadata::GroupMetadata;
use super::record::offset::Committed;
use super::record::pending::{PendingOffset, TransactionEnd};
use super::record::{Key, ModernKind, RecordError};
use super::share;
use super::stored::Stored;
use super::streams;
use super::topics::Topics;
use super::vouchers::Vouchers;
use crate::alarm::{Alarms, Wakes};

/// Records of its own that a group may have queued. One is the rule; a leader that repeats its
/// SyncGroup while the log is slow makes more.
const MAX_STORING: u32 = 4;

/// Where a coordinator is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// State is being recovered.
    Loading,
    /// Requests are served.
    Active,
    /// The groups have another coordinator.
    Closed,
}

pub(crate) struct Shared {
    pub(crate) config: GroupConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) topics: Arc<dyn Topics>,
    pub(crate) settings: Arc<dyn GroupConfigs>,
    pub(crate) alarms: Arc<Alarms<Cell>>,
    pub(crate) vouchers: Vouchers,
    pub(crate) origin: Instant,
    tenants: DashMap<TenantId, Arc<TenantGroups>>,
    journal: RwLock<Option<Journal>>,
    phase: AtomicU8,
    next_serial: AtomicU64,
    /// Of offsets that are committed in transactions.
    next_order: AtomicU64,
}

/// The groups of one tenant, by id. Listing them never looks at another tenant's.
type TenantGroups = RwLock<BTreeMap<Str, Arc<Cell>>>;

impl Shared {
    pub(crate) fn new(
        config: GroupConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        topics: Arc<dyn Topics>,
        settings: Arc<dyn GroupConfigs>,
    ) -> Self {
        Self {
            config,
            clock,
            entropy,
            topics,
            settings,
            alarms: Arc::default(),
            vouchers: Vouchers::default(),
            origin: Instant::now(),
            tenants: DashMap::new(),
            journal: RwLock::new(None),
            phase: AtomicU8::new(Phase::Loading as u8),
            next_serial: AtomicU64::new(0),
            next_order: AtomicU64::new(0),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Loading,
            1 => Phase::Active,
            _ => Phase::Closed,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Requests are served only while the coordinator is active.
    pub(crate) fn check_active(&self) -> Result<(), ErrorCode> {
        match self.phase() {
            Phase::Loading => Err(ErrorCode::CoordinatorLoadInProgress),
            Phase::Active => Ok(()),
            Phase::Closed => Err(ErrorCode::NotCoordinator),
        }
    }

    /// The queue to the log, while there is one.
    pub(crate) fn journal(&self) -> Result<Journal, LogError> {
        self.journal.read().clone().ok_or(LogError::NotOwner)
    }

    pub(crate) fn set_journal(&self, journal: Option<Journal>) {
        *self.journal.write() = journal;
    }

    /// Grows with each call, over restarts too. To be taken under the group's lock.
    pub(crate) fn order(&self) -> u64 {
        self.next_order.fetch_add(1, Ordering::AcqRel)
    }

    /// Enters a group among the alarms, in place of its old entry.
    pub(crate) fn enter(&self, cell: &Arc<Cell>, old: Option<Tick>, at: Tick) {
        self.alarms.set(cell, old.map(|old| self.instant(old)), self.instant(at));
    }

    fn instant(&self, Tick(ms): Tick) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    pub(crate) fn now(&self) -> Tick {
        Tick(u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            now: self.now(),
            wall_ms: self.clock.wall_ms(),
            config: &self.config,
            actions: Vec::new(),
        }
    }

    fn groups_of(&self, tenant: TenantId) -> Option<Arc<TenantGroups>> {
        self.tenants.get(&tenant).map(|groups| Arc::clone(&groups))
    }

    /// A tenant's groups as they are now, by id.
    pub(crate) fn cells_of(&self, tenant: TenantId) -> Vec<Arc<Cell>> {
        self.groups_of(tenant).map_or_else(Vec::new, |g| g.read().values().cloned().collect())
    }

    pub(crate) fn tenants(&self) -> Vec<TenantId> {
        self.tenants.iter().map(|entry| *entry.key()).collect()
    }

    fn cell(&self, tenant: TenantId, id: &str) -> Option<Arc<Cell>> {
        self.groups_of(tenant)?.read().get(id).cloned()
    }

    /// A group's cell, made if need be. `None` when that would be one more than `limit` for the
    /// tenant.
    fn cell_or_new(&self, tenant: TenantId, id: &str, limit: usize) -> Option<Arc<Cell>> {
        if let Some(cell) = self.cell(tenant, id) {
            return Some(cell);
        }
        let groups = Arc::clone(&self.tenants.entry(tenant).or_default());
        let mut groups = groups.write();
        if let Some(cell) = groups.get(id) {
            return Some(Arc::clone(cell));
        }
        if groups.len() >= limit {
            return None;
        }
        let serial = self.next_serial.fetch_add(1, Ordering::Relaxed);
        let cell = Cell::new(tenant, id, serial, self.clock.wall_ms());
        groups.insert(cell.id().clone(), Arc::clone(&cell));
        Some(cell)
    }

    /// Runs `f` on a group that exists, under its lock.
    pub(crate) fn with_group<R>(
        &self,
        tenant: TenantId,
        id: &str,
        f: impl FnOnce(&Arc<Cell>, &mut CellState) -> R,
    ) -> Option<R> {
        loop {
            let cell = self.cell(tenant, id)?;
            let mut state = cell.lock();
            if state.removed {
                continue;
            }
            let result = f(&cell, &mut state);
            self.leave(&cell, state);
            return Some(result);
        }
    }

    /// Runs `f` on a group, made if need be, under its lock. `None` when the tenant has `limit`
    /// groups already.
    pub(crate) fn with_group_or_new<R>(
        &self,
        tenant: TenantId,
        id: &str,
        limit: usize,
        f: impl FnOnce(&Arc<Cell>, &mut CellState) -> R,
    ) -> Option<R> {
        loop {
            let cell = self.cell_or_new(tenant, id, limit)?;
            let mut state = cell.lock();
            if state.removed {
                continue;
            }
            let result = f(&cell, &mut state);
            self.leave(&cell, state);
            return Some(result);
        }
    }

    /// Unlocks a group, and forgets it if nothing is left of it.
    pub(crate) fn leave(&self, cell: &Arc<Cell>, state: parking_lot::MutexGuard<'_, CellState>) {
        let is_blank = state.is_blank() && !state.removed;
        drop(state);
        if !is_blank {
            return;
        }
        let Some(groups) = self.groups_of(cell.tenant()) else { return };
        let mut groups = groups.write();
        let mut state = cell.lock();
        if state.is_blank() && !state.removed {
            state.removed = true;
            groups.remove(&**cell.id());
            if let Some(old) = state.armed.take() {
                self.alarms.clear(cell, self.instant(old));
            }
        }
    }

    /// Gives a classic group's machine an event and does what it asks for; `None` if the group is
    /// of another kind.
    pub(crate) fn drive<R>(
        &self,
        cell: &Arc<Cell>,
        state: &mut CellState,
        event: impl FnOnce(&mut Group, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let mut cx = self.context();
        let Kind::Classic(group) = &mut state.kind else { return None };
        let result = event(group, &mut cx);
        // A record that cannot be queued is an event of its own, with more to do.
        while !cx.actions.is_empty() {
            for action in std::mem::take(&mut cx.actions) {
                match action {
                    Action::Join(ticket, answer) => state.answer_join(ticket, answer),
                    Action::Sync(ticket, answer) => state.answer_sync(ticket, answer),
                    Action::Persist(value, persist) => {
                        if let Err((persist, error)) = self.store(cell, state, value, persist)
                            && let Kind::Classic(group) = &mut state.kind
                        {
                            group.persisted(&mut cx, persist, Err(error.code()));
                        }
                    }
                }
            }
        }
        self.arm(cell, state);
        Some(result)
    }

    pub(crate) fn arm(&self, cell: &Arc<Cell>, state: &mut CellState) {
        let Some(wake) = state.kind.wake() else { return };
        if state.armed.is_none_or(|armed| wake < armed) {
            self.enter(cell, state.armed, wake);
            state.armed = Some(wake);
        }
    }

    /// Queues the group's own record.
    fn store(
        &self,
        cell: &Arc<Cell>,
        state: &mut CellState,
        value: Bytes,
        persist: Persist,
    ) -> Result<(), (Persist, LogError)> {
        if value.len() > self.config.max_group_bytes {
            return Err((persist, LogError::TooLarge));
        }
        if state.storing >= MAX_STORING {
            return Err((persist, LogError::Unavailable));
        }
        let key = Key::Group { tenant: cell.tenant(), group: cell.id() }.encode();
        let records = vec![LogRecord { key, value: Some(value) }];
        let write =
            Write { cell: Some(Arc::clone(cell)), records, done: Done::Group(persist), room: None };
        match self.queue(state, write) {
            Ok(()) => {
                state.storing += 1;
                Ok(())
            }
            Err((Done::Group(persist), error)) => Err((persist, error)),
            Err(_) => {
                unreachable!("a refused write is given back as it was")
            }
        }
    }

    /// Queues a write of the group whose lock is held.
    pub(crate) fn queue(
        &self,
        state: &mut CellState,
        write: Write,
    ) -> Result<(), (Done, LogError)> {
        let journal = match self.journal() {
            Ok(journal) => journal,
            Err(error) => return Err((write.done, error)),
        };
        let counted = u32::from(write.cell.is_some());
        match journal.push(write) {
            Ok(()) => {
                state.pending += counted;
                Ok(())
            }
            Err(write) => Err((write.done, LogError::Unavailable)),
        }
    }

    /// A write of the group is done, one way or the other.
    pub(crate) fn settle(&self, cell: &Arc<Cell>) {
        let mut state = cell.lock();
        state.pending = state.pending.saturating_sub(1);
        self.leave(cell, state);
    }

    /// The group's own record is durable, or failed.
    pub(crate) fn persisted(
        &self,
        cell: &Arc<Cell>,
        persist: Persist,
        result: Result<(), ErrorCode>,
    ) {
        let mut state = cell.lock();
        state.storing = state.storing.saturating_sub(1);
        self.drive(cell, &mut state, |group, cx| group.persisted(cx, persist, result));
        self.leave(cell, state);
    }

    /// The group's alarm went off.
    fn due(&self, cell: &Arc<Cell>) {
        let mut state = cell.lock();
        // The entry was taken out; if the group has a new one since, that stands.
        if state.removed || state.armed.is_none_or(|armed| armed > self.now()) {
            return;
        }
        state.armed = None;
        if state.reloading {
            self.reload(cell, &mut state);
        } else if state.kind.modern().is_some() {
            // Nobody waits for it, and if it fails the group is made anew.
            let _ = self.decide(cell, &mut state, None, |kind, turn| {
                if let Some(group) = kind.modern_mut() {
                    group.on_time(turn);
                }
            });
        } else {
            self.drive(cell, &mut state, |group, cx| group.on_time(cx));
        }
        self.leave(cell, state);
    }

    /// Takes one durable record (see [`super::log::CoordinatorState::apply`]). The machines are made
    /// when loading is over; later they are ahead.
    pub(crate) fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        match Key::decode(key)? {
            Key::Group { tenant, group } => {
                value.map(GroupMetadata::decode).transpose()?;
                self.with_group_or_new(tenant, group, usize::MAX, |_, state| match value {
                    Some(metadata) => state.stored.set_classic(metadata),
                    None => {
                        state.stored = Stored::Nothing;
                        state.offsets.clear();
                        state.lingers = false;
                    }
                });
            }
            Key::Part { tenant, kind, group, part } => {
                check_part(kind, part, value)?;
                let set = |_: &Arc<Cell>, state: &mut CellState| {
                    state.stored.set_part(kind, part, value);
                };
                if value.is_some() {
                    self.with_group_or_new(tenant, group, usize::MAX, set);
                } else {
                    self.with_group(tenant, group, set);
                }
            }
            Key::Offset { tenant, group, topic, partition } => {
                let committed = value.map(Committed::decode).transpose()?;
                self.with_group_or_new(tenant, group, usize::MAX, |_, state| match committed {
                    Some(committed) => state.offsets.set(topic, partition, committed),
                    None => {
                        let had_any = !state.offsets.is_empty();
                        state.offsets.remove(topic, partition);
                        state.lingers |= had_any && state.offsets.is_empty();
                    }
                });
            }
            Key::Pending { tenant, group, producer_id, topic, partition } => {
                let offset = value.map(PendingOffset::decode).transpose()?;
                let order = offset.as_ref().map_or(0, |offset| offset.order);
                self.next_order.fetch_max(order.saturating_add(1), Ordering::AcqRel);
                self.with_group_or_new(tenant, group, usize::MAX, |_, state| {
                    state.offsets.set_pending(producer_id, topic, partition, offset);
                });
            }
            Key::TransactionEnd { tenant, group, producer_id } => {
                let end = value.map(TransactionEnd::decode).transpose()?;
                if let Some(end) = end {
                    self.with_group(tenant, group, |_, state| {
                        state.offsets.end_transaction(producer_id, end);
                    });
                }
            }
            Key::Topic { tenant, topic } => {
                if value.is_some() {
                    return Err(RecordError::Value);
                }
                for cell in self.cells_of(tenant) {
                    let mut state = cell.lock();
                    let had_any = !state.offsets.is_empty();
                    state.offsets.remove_topic(topic);
                    state.lingers |= had_any && state.offsets.is_empty();
                    self.leave(&cell, state);
                }
            }
        }
        Ok(())
    }

    /// All durable state, as keys and values.
    pub(crate) fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
        for tenant in self.tenants() {
            for cell in self.cells_of(tenant) {
                let group = cell.id();
                let (stored, offsets) = {
                    let state = cell.lock();
                    (state.stored.clone(), state.offsets.clone())
                };
                match stored {
                    Stored::Nothing => {}
                    Stored::Classic(metadata) => {
                        emit(Key::Group { tenant, group }.encode(), metadata);
                    }
                    Stored::Modern(parts) => {
                        let kind = parts.kind();
                        for (part, value) in parts.iter() {
                            let key = Key::Part { tenant, kind, group, part };
                            emit(key.encode(), value.clone());
                        }
                    }
                }
                for (topic, partition, committed) in offsets.iter() {
                    let key = Key::Offset { tenant, group, topic, partition };
                    emit(key.encode(), committed.encode());
                }
                for (producer_id, topic, partition, offset) in offsets.pending().iter() {
                    let key = Key::Pending { tenant, group, producer_id, topic, partition };
                    emit(key.encode(), offset.encode());
                }
            }
        }
    }
}

/// Whether a part is one that its kind of group can be made of.
fn check_part(kind: ModernKind, part: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
    if part.is_empty() {
        return if value.is_none() { Ok(()) } else { Err(RecordError::Value) };
    }
    match kind {
        ModernKind::Consumer => consumer::check_part(part, value),
        ModernKind::Share => share::check_part(part, value),
        ModernKind::Streams => streams::check_part(part, value),
    }
}

impl Wakes<Cell> for Shared {
    fn wake(self: &Arc<Self>, cell: &Arc<Cell>) {
        self.due(cell);
    }
}
