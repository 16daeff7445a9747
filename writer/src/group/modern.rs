//! How groups with member epochs run: an event is decided under the group's lock, what it changed is
//! queued for the log in one write, and the answer is given when that is durable.
//!
//! The machine runs ahead of the log. If a write fails, or nobody can say what became of it, the
//! machine is worth nothing: writes that built on it are dropped before they reach the log, the
//! group answers COORDINATOR_LOAD_IN_PROGRESS, and as soon as the log takes a record again, which
//! means that all before it have been decided, the machine is made anew of what is stored.

use std::sync::Arc;

use bytes::Bytes;
use sluice_model::{GroupSettings, TenantId};
use sluice_wire::{ErrorCode, Str};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::cell::{Cell, CellState};
use super::commits::wait;
use super::config::GroupConfig;
use super::journal::{Done, Write};
use super::kind::Kind;
use super::log::{LogError, LogRecord};
use super::machine::{Action, Group, Tick};
use super::record::metadata::GroupMetadata;
use super::record::{Key, ModernKind};
use super::shared::Shared;
use super::topics::Topics;
use super::{GroupCaller, GroupCoordinator};

/// The room that a request's records are taken to need.
const ROOM_BYTES: usize = 4 << 10;
/// How long a group whose write failed waits before it tries the log again.
const RELOAD_AFTER_MS: i32 = 500;

/// Resolves when the queued records are durable, or have failed.
pub(crate) type Durable = oneshot::Receiver<Result<(), LogError>>;

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Kafka's code.
    pub(crate) code: ErrorCode,
    /// For answers that carry a text.
    pub(crate) message: Option<Str>,
}

impl Refusal {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(Str::from(message.into())) }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

/// What an event brings with it, and where what it changes is logged.
pub(crate) struct Turn<'a> {
    pub(crate) now: Tick,
    /// Wall time, for what is stored.
    pub(crate) wall_ms: i64,
    pub(crate) config: &'a GroupConfig,
    /// What is set for the group.
    pub(crate) settings: Arc<GroupSettings>,
    pub(crate) topics: &'a dyn Topics,
    pub(crate) tenant: TenantId,
    pub(crate) group: &'a str,
    records: Vec<LogRecord>,
    becomes: Option<GroupMetadata>,
    replaced: Option<Kind>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(
        (now, wall_ms): (Tick, i64),
        config: &'a GroupConfig,
        settings: Arc<GroupSettings>,
        topics: &'a dyn Topics,
        (tenant, group): (TenantId, &'a str),
    ) -> Self {
        Self {
            now,
            wall_ms,
            config,
            settings,
            topics,
            tenant,
            group,
            records: Vec::new(),
            becomes: None,
            replaced: None,
        }
    }

    /// Logs a part of the group; `None` when it is gone.
    pub(crate) fn log(&mut self, kind: ModernKind, part: &[u8], value: Option<Bytes>) {
        let key = Key::Part { tenant: self.tenant, kind, group: self.group, part };
        self.records.push(LogRecord { key: key.encode(), value });
    }

    /// The group becomes a classic one, whose sessions begin now and whose members are to join again.
    pub(crate) fn become_classic(&mut self, metadata: GroupMetadata) {
        let key = Key::Group { tenant: self.tenant, group: self.group }.encode();
        self.records.push(LogRecord { key, value: Some(metadata.encode()) });
        self.becomes = Some(metadata);
    }

    /// The machine that was the group's until now: who waits for it is told to join again.
    pub(crate) fn replaces(&mut self, old: Kind) {
        self.replaced = Some(old);
    }

    /// The event was refused after all.
    pub(crate) fn forget(&mut self) {
        self.records.clear();
    }

    /// What was logged.
    #[cfg(test)]
    pub(crate) fn records(&self) -> &[LogRecord] {
        &self.records
    }
}

impl Shared {
    fn turn<'a>(&'a self, cell: &'a Cell) -> Turn<'a> {
        let (tenant, id) = (cell.tenant(), cell.id());
        let settings = self.settings.settings(tenant, id);
        let times = (self.now(), self.clock.wall_ms());
        Turn::new(times, &self.config, settings, &*self.topics, (tenant, id))
    }

    /// Gives the group whose lock is held an event. What it asks for is queued; the answer may be
    /// given when the receiver says that this, and all that the event may have seen, is durable.
    pub(crate) fn decide<R>(
        &self,
        cell: &Arc<Cell>,
        state: &mut CellState,
        room: Option<OwnedSemaphorePermit>,
        event: impl FnOnce(&mut Kind, &mut Turn<'_>) -> R,
    ) -> Result<(R, Option<Durable>), ErrorCode> {
        state.check_settled()?;
        let mut turn = self.turn(cell);
        let result = event(&mut state.kind, &mut turn);
        let Turn { records, becomes, replaced, .. } = turn;
        let durable = match (records.is_empty(), state.deciding) {
            (true, 0) => None,
            (true, _) => {
                let (done, durable) = oneshot::channel();
                let done = Done::Caller(done);
                let barrier = Write { cell: None, records, done, room: None };
                self.queue(state, barrier).map_err(|(_, error)| error.code())?;
                Some(durable)
            }
            (false, _) => {
                let (caller, durable) = oneshot::channel();
                let done = Done::Decided { caller, era: cell.era() };
                let write = Write { cell: Some(Arc::clone(cell)), records, done, room };
                if let Err((_, error)) = self.queue(state, write) {
                    self.lose(cell, state);
                    return Err(error.code());
                }
                state.deciding += 1;
                Some(durable)
            }
        };
        if let Some(mut old) = replaced {
            self.dissolve(state, &mut old);
        }
        if let Some(metadata) = becomes {
            state.kind = Kind::Classic(Group::load(metadata));
            self.drive(cell, state, |group, cx| group.take_over(cx));
        }
        self.arm(cell, state);
        Ok((result, durable))
    }

    /// Answers all that waits for a classic machine that is no more.
    fn dissolve(&self, state: &mut CellState, old: &mut Kind) {
        let Kind::Classic(group) = old else { return };
        let mut cx = self.context();
        group.unload(&mut cx, ErrorCode::RebalanceInProgress);
        for action in cx.actions {
            match action {
                Action::Join(ticket, answer) => state.answer_join(ticket, answer),
                Action::Sync(ticket, answer) => state.answer_sync(ticket, answer),
                // It is asked for none.
                Action::Persist(..) => {}
            }
        }
    }

    /// The machine of a group that was made of what is stored goes on.
    pub(crate) fn restart(&self, cell: &Arc<Cell>, state: &mut CellState) {
        self.drive(cell, state, |group, cx| group.restart(cx));
        // Nobody waits for it, and if it fails the group is made anew.
        let _ = self.decide(cell, state, None, |kind, turn| {
            if let Some(group) = kind.modern_mut() {
                group.restart(turn);
            }
        });
    }

    /// Records that the group decided on are durable, or are not.
    pub(crate) fn decided(&self, cell: &Arc<Cell>, era: u32, result: Result<(), LogError>) {
        let mut state = cell.lock();
        state.deciding = state.deciding.saturating_sub(1);
        if result.is_err() && era == cell.era() {
            self.lose(cell, &mut state);
        }
        self.leave(cell, state);
    }

    /// The machine has gone ahead where the log does not follow.
    fn lose(&self, cell: &Arc<Cell>, state: &mut CellState) {
        cell.end_era();
        state.reloading = true;
        self.reload_after(cell, state);
    }

    fn reload_after(&self, cell: &Arc<Cell>, state: &mut CellState) {
        let at = self.now().after(RELOAD_AFTER_MS);
        self.enter(cell, state.armed, at);
        state.armed = Some(at);
    }

    /// Asks the log to take a record that changes nothing: when it has, what came before it is
    /// stored, or never will be.
    pub(crate) fn reload(&self, cell: &Arc<Cell>, state: &mut CellState) {
        let (tenant, group) = (cell.tenant(), cell.id());
        let key = Key::Part { tenant, kind: ModernKind::Consumer, group, part: &[] }.encode();
        let records = vec![LogRecord { key, value: None }];
        let write = Write { cell: Some(Arc::clone(cell)), records, done: Done::Reload, room: None };
        // Without a journal the coordinator is closed: there is nothing to go on for.
        let _ = self.queue(state, write);
    }

    /// The log has, or has not, taken the record of [`Self::reload`].
    pub(crate) fn reloaded(&self, cell: &Arc<Cell>, result: Result<(), LogError>) {
        let mut state = cell.lock();
        if result.is_ok() {
            state.kind = Kind::load(&state.stored, self.clock.wall_ms());
            state.reloading = false;
            self.restart(cell, &mut state);
        } else {
            self.reload_after(cell, &mut state);
        }
        self.leave(cell, state);
    }
}

impl GroupCoordinator {
    /// Gives a group an event, and waits until what it changed is durable. Without `create` the
    /// group must exist; `None` is for one that does not.
    pub(super) async fn decide<R>(
        &self,
        caller: &GroupCaller,
        group_id: &str,
        create: bool,
        event: impl FnOnce(&mut Kind, &mut Turn<'_>) -> Result<R, Refusal>,
    ) -> Option<Result<R, Refusal>> {
        let shared = &self.shared;
        let room = match shared.journal() {
            Ok(journal) => journal.room(ROOM_BYTES).await,
            Err(error) => Err(error),
        };
        let room = match room {
            Ok(room) => Some(room),
            Err(error) => return Some(Err(error.code().into())),
        };
        let on_cell =
            |cell: &Arc<Cell>, state: &mut CellState| shared.decide(cell, state, room, event);
        let decided = if create {
            let limit = shared.config.max_groups_per_tenant;
            // As for classic groups: Kafka has no such limit, and so no code for it.
            shared
                .with_group_or_new(caller.tenant, group_id, limit, on_cell)
                .unwrap_or(Err(ErrorCode::PolicyViolation))
        } else {
            shared.with_group(caller.tenant, group_id, on_cell)?
        };
        let (result, durable) = match decided {
            Ok(decided) => decided,
            Err(code) => return Some(Err(code.into())),
        };
        if let Some(durable) = durable
            && let Err(error) = wait(durable).await
        {
            return Some(Err(error.code().into()));
        }
        Some(result)
    }
}
