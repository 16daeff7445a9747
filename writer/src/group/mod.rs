//! The group coordinator: groups of consumers and their committed offsets, by the rules of Kafka 4.3.
//!
//! A [`GroupCoordinator`] serves all groups whose log is on one volume. Each group is a pure state
//! machine, of one of several [kinds](kind), in a cell with one lock; one task keeps time for all of them ([`crate::alarm`]),
//! one appends to the log ([`journal`]), one forgets what is past its retention ([`retention`]).
//!
//! What always holds:
//! - Durable state (a group's last agreed generation, committed offsets) changes only in
//!   [`CoordinatorState::apply`], which live operation and recovery share.
//! - A commit is answered with success, and an assignment is handed out, only when it is durable.
//! - A group's records are in the log in the order in which the group decided on them.
//! - Keys are (tenant, name): no request sees a group of another tenant.
//! - A client that goes away in the middle of a request changes nothing for the group.
//!
//! What it knows of topics is in [`Topics`]. That those of a request exist and are the tenant's is
//! checked before it comes here. Authorization, throttling and the name of a
//! topic in an answer are the gateway's as well.
//!
//! [`CoordinatorState::apply`]: log::CoordinatorState::apply

mod admin;
mod cell;
mod census;
mod commits;
mod config;
mod consumer;
mod journal;
mod kind;
pub mod log;
mod machine;
mod members;
mod modern;
mod offsets;
mod partitions;
mod pending;
pub mod record;
mod retention;
mod share;
mod shared;
mod stored;
mod streams;
#[cfg(test)]
mod tests;
mod topics;
mod transactional;
mod vouchers;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::encoding::DescriptorEncoder;
use sluice_model::{Clock, Entropy, GroupConfigs, TenantId, TopicId};
use sluice_wire::{ErrorCode, Str};
use tokio::task::AbortHandle;

use self::census::GroupCensus;
use self::journal::{Done, Journal, Write};
use self::kind::Kind;
use self::log::{CoordinatorLog, CoordinatorState, LogError, LogRecord};
use self::record::{Key, RecordError};
use self::shared::{Phase, Shared};

pub use self::config::GroupConfig;
pub use self::topics::{TopicShape, Topics};
pub use self::transactional::{TransactionalCommit, TransactionalOffset};

/// Who asks.
#[derive(Clone, Debug)]
pub struct GroupCaller {
    /// Whose groups.
    pub tenant: TenantId,
    /// From the request's header; member ids begin with it.
    pub client_id: Str,
    /// The peer as DescribeGroups shows it; Kafka writes `/127.0.0.1`.
    pub client_host: Str,
}

/// The coordinator of all groups of one volume.
///
/// Made empty, filled by [`CoordinatorState::apply`], then [started](Self::start). Until then
/// requests are answered with COORDINATOR_LOAD_IN_PROGRESS; after [`Self::close`] with
/// NOT_COORDINATOR. Every request's future may be dropped at any await: what was queued for the log
/// still becomes durable.
pub struct GroupCoordinator {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl GroupCoordinator {
    /// A coordinator without groups, still loading.
    pub fn new(
        config: GroupConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        topics: Arc<dyn Topics>,
        settings: Arc<dyn GroupConfigs>,
    ) -> Self {
        let shared = Arc::new(Shared::new(config, clock, entropy, topics, settings));
        Self { shared, tasks: Mutex::default() }
    }

    /// How many groups and members there are, for a collector.
    pub(crate) fn encode_census(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        GroupCensus(&self.shared).encode(encoder)
    }

    /// Recovery is complete: sessions start anew, and requests are served. Needs a tokio runtime;
    /// call it once.
    pub fn start(&self, log: Arc<dyn CoordinatorLog>) {
        let shared = &self.shared;
        let (journal, writes) = Journal::new(shared.config.max_waiting_bytes);
        shared.set_journal(Some(journal));
        for tenant in shared.tenants() {
            for cell in shared.cells_of(tenant) {
                let mut state = cell.lock();
                state.kind = Kind::load(&state.stored, shared.clock.wall_ms());
                shared.restart(&cell, &mut state);
                shared.leave(&cell, state);
            }
        }
        // The journal's task is not among those that are aborted: it ends when the queue is empty.
        tokio::spawn(journal::run(writes, log, Arc::downgrade(shared)));
        let alarms = Arc::clone(&shared.alarms);
        let alarm = tokio::spawn(crate::alarm::run(alarms, Arc::downgrade(shared)));
        let retention = tokio::spawn(retention::run(Arc::downgrade(shared)));
        self.tasks.lock().extend([alarm.abort_handle(), retention.abort_handle()]);
        shared.set_phase(Phase::Active);
    }

    /// The volume has gone to another owner, or the process ends: answers all that is parked and
    /// refuses what comes. What is queued is still appended.
    pub fn close(&self) {
        let shared = &self.shared;
        shared.set_phase(Phase::Closed);
        shared.set_journal(None);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        for tenant in shared.tenants() {
            for cell in shared.cells_of(tenant) {
                let mut state = cell.lock();
                shared.drive(&cell, &mut state, |group, cx| {
                    group.unload(cx, ErrorCode::NotCoordinator);
                });
            }
        }
    }

    /// A topic was deleted: all groups of the tenant forget their offsets in it. Safe to call
    /// again. A commit that was let in before the deletion and reaches the log after it stays until
    /// its retention: topic ids are not used twice, so no later topic sees it.
    pub async fn forget_topic(&self, tenant: TenantId, topic: TopicId) -> Result<(), LogError> {
        let journal = self.shared.journal()?;
        let record = LogRecord { key: Key::Topic { tenant, topic }.encode(), value: None };
        let room = Some(journal.room(record.len_bytes()).await?);
        let (done, durable) = tokio::sync::oneshot::channel();
        let write = Write { cell: None, records: vec![record], done: Done::Caller(done), room };
        journal.push(write).map_err(|_| LogError::Unavailable)?;
        durable.await.map_err(|_| LogError::Unavailable)?
    }
}

impl CoordinatorState for GroupCoordinator {
    fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        self.shared.apply(key, value)
    }

    fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
        self.shared.snapshot(emit);
    }
}

impl Drop for GroupCoordinator {
    fn drop(&mut self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}
