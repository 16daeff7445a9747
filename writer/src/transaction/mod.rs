//! The transaction coordinator: producers with a transactional id, and how their transactions end, by
//! the rules of Kafka 4.3 for both generations of the protocol (KIP-98, KIP-890).
//!
//! A [`TransactionCoordinator`] serves all transactional ids whose log is on one volume. The rules are a
//! pure state machine ([`machine`]) in a cell for each id; one task appends to the log ([`journal`]),
//! one keeps time ([`crate::alarm`]), and one for each prepared transaction writes its markers ([`markers`]).
//!
//! What always holds:
//! - State changes only in [`CoordinatorState::apply`], which live operation and recovery share; a
//!   decision is answered, and acted upon, only when it is durable.
//! - Of one id one decision is under way at a time, so the log tells one story. What was prepared is
//!   completed as it was prepared, by this owner or the next.
//! - Keys are (tenant, transactional id): no request sees another tenant's.
//! - A client that goes away in the middle of a request changes nothing of what was decided.
//!
//! It does not know topics: that streams exist and are the tenant's is checked before a request comes
//! here. It writes no marker itself ([`Markers`]).

mod cell;
mod config;
mod journal;
mod machine;
mod markers;
mod metrics;
mod query;
mod quota;
pub(crate) mod record;
mod shared;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{Clock, StreamId, TenantId};
use sluice_wire::{ErrorCode, Str};
use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::task::AbortHandle;

use self::cell::Reason;
use self::machine::{End, Init, Parts, Producer};
use self::shared::{Ask, Decided, Shared};
use self::state::{Generation, State};
use crate::group::log::{CoordinatorLog, CoordinatorState};
use crate::group::record::RecordError;

pub use self::config::TransactionConfig;
pub use self::markers::{Marker, Markers, NoOtherOwners, OtherOwners, Told};
pub use self::metrics::TransactionMetrics;
pub use self::query::{Described, Listed, Listing};

/// Where new producer ids come from.
#[async_trait]
pub trait ProducerIds: Send + Sync + 'static {
    /// An id that nobody in the cluster has had, or a code that clients retry.
    async fn next(&self) -> Result<i64, ErrorCode>;
}

/// A producer as it presents itself.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The tenant.
    pub tenant: TenantId,
    /// The transactional id.
    pub transactional_id: &'a str,
    /// The producer id that it was given.
    pub producer_id: i64,
    /// The producer epoch that it was given.
    pub producer_epoch: i16,
}

/// What a transaction writes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participants {
    /// Streams, of the tenant's topics.
    pub streams: BTreeSet<StreamId>,
    /// Groups whose offsets are committed.
    pub groups: BTreeSet<Str>,
}

impl Participants {
    /// Nobody.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.groups.is_empty()
    }
}

/// The coordinator of all transactional ids of one volume.
///
/// Made empty, filled by [`CoordinatorState::apply`], then [started](Self::start). Until then
/// requests are answered with COORDINATOR_LOAD_IN_PROGRESS; after [`Self::close`] with
/// NOT_COORDINATOR. Every request's future may be dropped at any await: what was decided still becomes
/// durable and is carried out.
pub struct TransactionCoordinator {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl TransactionCoordinator {
    /// A coordinator without ids, still loading.
    pub fn new(
        config: TransactionConfig,
        clock: Arc<dyn Clock>,
        producer_ids: Arc<dyn ProducerIds>,
        metrics: TransactionMetrics,
    ) -> Self {
        let shared = Arc::new(Shared::new(config, clock, producer_ids, metrics));
        Self { shared, tasks: Mutex::default() }
    }

    /// Recovery is complete: requests are served, and transactions that are prepared are completed.
    /// `coordinator_epoch` is the leader epoch of the log. Needs a tokio runtime; call it once.
    pub fn start(
        &self,
        log: Arc<dyn CoordinatorLog>,
        markers: Arc<dyn Markers>,
        coordinator_epoch: i32,
    ) {
        let shared = &self.shared;
        let (journal, writes) = mpsc::unbounded_channel();
        let backoff = shared.config.retry_backoff;
        // Not among the tasks that are aborted: it ends when the queue is empty.
        tokio::spawn(journal::run(writes, log, Arc::downgrade(shared), backoff));
        let alarms = Arc::clone(&shared.alarms);
        let alarm = tokio::spawn(crate::alarm::run(alarms, Arc::downgrade(shared)));
        self.tasks.lock().push(alarm.abort_handle());
        shared.start(journal, markers, coordinator_epoch);
    }

    /// The volume has gone to another owner, or the process ends: refuses what comes. What is queued is
    /// still appended; markers that are not written are left to the next owner.
    pub fn close(&self) {
        self.shared.close();
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }

    /// A producer id for a producer without transactional id.
    pub async fn new_producer(&self, tenant: TenantId) -> Result<i64, ErrorCode> {
        if !self.shared.quota.take(tenant) {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        self.shared.next_producer_id().await
    }

    /// InitProducerId with a transactional id: gives (producer id, epoch). `was` is what a producer that
    /// recovers had (KIP-360). An open transaction is aborted, and the caller told to ask again
    /// (CONCURRENT_TRANSACTIONS).
    pub async fn init_producer(
        &self,
        tenant: TenantId,
        transactional_id: &str,
        timeout_ms: i32,
        was: Option<(i64, i16)>,
    ) -> Result<(i64, i16), ErrorCode> {
        let config = &self.shared.config;
        self.check_id(transactional_id)?;
        if timeout_ms <= 0 || timeout_ms > config.max_timeout_ms {
            return Err(ErrorCode::InvalidTransactionTimeout);
        }
        let was = was.map(|(id, epoch)| Producer { id, epoch });
        let ask = Ask {
            tenant,
            id: transactional_id,
            creates: true,
            busy_wait: Duration::ZERO,
            reason: Reason::Fenced,
        };
        let decided = self.shared.decide(ask, |machine, fresh| {
            machine.init(Init { timeout_ms, was, fresh }, self.shared.clock.wall_ms())
        });
        match decided.await? {
            Decided::Logged(next) if next.state == State::Empty => {
                Ok((next.producer_id, next.epoch))
            }
            Decided::Logged(_) | Decided::AsItIs(_) => Err(ErrorCode::ConcurrentTransactions),
        }
    }

    /// Adds to the producer's transaction, and begins it if there is none. `adds_at_write` tells that
    /// the producer speaks the second generation: Produce 12, TxnOffsetCommit 5 and later.
    pub async fn add(
        &self,
        claim: Claim<'_>,
        participants: Participants,
        adds_at_write: bool,
    ) -> Result<(), ErrorCode> {
        self.check_id(claim.transactional_id)?;
        let config = &self.shared.config;
        let group_bytes: usize = participants.groups.iter().map(|group| group.len()).sum();
        let Participants { streams, groups } = participants;
        let parts = Parts { streams, groups };
        let generation = if adds_at_write { Generation::Two } else { Generation::One };
        let decided = self.shared.decide(self.ask(&claim), |machine, _| {
            if let Some(current) = machine.durable() {
                let held: usize = current.groups.iter().map(|group| group.len()).sum();
                if current.streams.union(&parts.streams).count() > config.max_streams
                    || current.groups.union(&parts.groups).count() > config.max_groups
                    || held + group_bytes > config.max_group_bytes
                {
                    return Err(ErrorCode::PolicyViolation);
                }
            }
            machine.add(claim.producer(), &parts, generation, self.shared.clock.wall_ms())
        });
        decided.await.map(drop)
    }

    /// Who of `participants` was not added to the producer's transaction. An error if this is not its
    /// producer, or the transaction is ending.
    pub async fn missing(
        &self,
        claim: Claim<'_>,
        participants: &Participants,
    ) -> Result<Participants, ErrorCode> {
        self.check_id(claim.transactional_id)?;
        let missing = Mutex::new(Participants::default());
        let decided = self.shared.decide(self.ask(&claim), |machine, _| {
            let current = machine.verify(claim.producer())?;
            *missing.lock() = Participants {
                streams: participants.streams.difference(&current.streams).copied().collect(),
                groups: participants.groups.difference(&current.groups).cloned().collect(),
            };
            Ok(machine::Step::Done)
        });
        decided.await?;
        Ok(missing.into_inner())
    }

    /// EndTxn. `bumps_epoch` tells that the producer speaks the second generation (EndTxn 5 and later);
    /// then this gives the (producer id, epoch) that it goes on with. The outcome is durable when this
    /// returns; markers follow.
    pub async fn end(
        &self,
        claim: Claim<'_>,
        commit: bool,
        bumps_epoch: bool,
    ) -> Result<Option<(i64, i16)>, ErrorCode> {
        self.check_id(claim.transactional_id)?;
        let generation = if bumps_epoch { Generation::Two } else { Generation::One };
        let now_ms = self.shared.clock.wall_ms();
        let decided = self.shared.decide(self.ask(&claim), |machine, fresh| {
            machine.end(End { producer: claim.producer(), commit, generation, fresh }, now_ms)
        });
        let current = match decided.await? {
            Decided::Logged(prepared) => prepared.completed(now_ms).unwrap_or(prepared),
            Decided::AsItIs(current) => current,
        };
        Ok(bumps_epoch.then_some((current.producer_id, current.epoch)))
    }

    /// Waits for the producer's turn: from the check of a request's batches to their hand-over, so that requests
    /// cannot overtake each other. It is given in the order of the first polls. None for an id that is not known.
    pub async fn turn(
        &self,
        tenant: TenantId,
        transactional_id: &str,
    ) -> Option<OwnedMutexGuard<()>> {
        let gate = Arc::clone(&self.shared.cell(tenant, transactional_id)?.gate);
        // Nearly always free: then without a wait that tokio's budget could bring about.
        match Arc::clone(&gate).try_lock_owned() {
            Ok(turn) => Some(turn),
            Err(_) => Some(gate.lock_owned().await),
        }
    }

    fn ask<'a>(&self, claim: &Claim<'a>) -> Ask<'a> {
        Ask {
            tenant: claim.tenant,
            id: claim.transactional_id,
            creates: false,
            busy_wait: self.shared.config.busy_wait,
            reason: Reason::Asked,
        }
    }

    fn check_id(&self, transactional_id: &str) -> Result<(), ErrorCode> {
        self.shared.check_active()?;
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        if transactional_id.len() > self.shared.config.max_id_bytes {
            return Err(ErrorCode::PolicyViolation);
        }
        Ok(())
    }
}

impl Claim<'_> {
    fn producer(&self) -> Producer {
        Producer { id: self.producer_id, epoch: self.producer_epoch }
    }
}

impl CoordinatorState for TransactionCoordinator {
    fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
        self.shared.apply(key, value)
    }

    fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes)) {
        self.shared.snapshot(emit);
    }
}

impl Drop for TransactionCoordinator {
    fn drop(&mut self) {
        self.tasks.lock().drain(..).for_each(|task| task.abort());
    }
}
