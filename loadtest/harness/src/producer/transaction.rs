//! A producer's transactions, of the second generation (KIP-890): partitions join when they are written to, and
//! each end gives the epoch of the next transaction.

use std::time::Duration;

use sluice_wire::messages::end_txn_request::EndTxnRequest;
use sluice_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::{ErrorCode, Str};
use tokio::time::{Instant, sleep};

use super::lane::Identity;
use super::{BACKOFF, COMPLETING_BACKOFF, Producer};
use crate::client::{CallError, Connection};
use crate::load::Load;
use crate::random::Random;
use crate::workload;

/// FindCoordinator: of a transactional id.
const TRANSACTION: i8 = 1;
/// A transaction is aborted by the server after so long; Kafka's `transaction.timeout.ms`.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The same where the harness does nothing to the server: what an agent that is lost has left open keeps nobody from
/// reading for longer.
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);
/// A transaction may take so many times as long as it should.
const PATIENCE: u32 = 4;

/// Where a producer is with its transactions.
#[derive(Debug)]
pub(super) struct Transaction {
    id: Str,
    coordinator: Connection,
    every_us: u64,
    abort_share: f64,
    random: Random,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    None,
    /// Since the first record was due, and whether it will be aborted.
    Open {
        since_us: u64,
        doomed: bool,
    },
    /// Nothing more is added; what is there is being written.
    Ending {
        since_us: u64,
        doomed: bool,
    },
}

impl Transaction {
    /// Takes the transactional id over.
    pub(super) async fn start(
        load: &Load,
        transactions: &workload::Transactions,
        index: u32,
        client_id: &Str,
    ) -> Result<(Self, Identity), CallError> {
        let id = Str::from(format!("{}-{index}", load.topic));
        let coordinator = coordinator(load, client_id, &id).await?;
        let request = InitProducerIdRequest {
            transactional_id: Some(id.clone()),
            transaction_timeout_ms: timeout_ms(&load.workload, transactions),
            ..Default::default()
        };
        let until = Instant::now() + load.workload.produce.delivery_timeout.0;
        let (producer_id, epoch) = loop {
            let answer = coordinator.call(&request).await?;
            let error = ErrorCode::from_code(answer.error_code);
            if error.is_none() {
                break (answer.producer_id, answer.producer_epoch);
            }
            if !error.retriable() || Instant::now() > until {
                return Err(CallError::refused("getting a producer id", answer.error_code));
            }
            sleep(BACKOFF).await;
        };
        let transaction = Self {
            id,
            coordinator,
            every_us: transactions.commit_every.0.as_micros() as u64,
            abort_share: transactions.abort_share,
            random: Random::new(load.seed ^ 2, u64::from(index)),
            state: State::None,
        };
        Ok((transaction, Identity { id: producer_id, epoch, transactional: true }))
    }

    pub(super) fn id(&self) -> &Str {
        &self.id
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending { .. })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state == State::None
    }

    /// A record is added: begins a transaction if there is none. Whether it will be aborted.
    pub(super) fn begin(&mut self, now_us: u64) -> bool {
        if self.state == State::None {
            let doomed = self.random.unit() < self.abort_share;
            self.state = State::Open { since_us: now_us, doomed };
        }
        matches!(self.state, State::Open { doomed: true, .. } | State::Ending { doomed: true, .. })
    }
}

impl Producer {
    /// Ends the transaction when it is time; when that will be.
    pub(super) async fn step_transaction(&mut self, now_us: u64) -> Result<Option<u64>, CallError> {
        let Some(transaction) = &mut self.transaction else { return Ok(None) };
        if let State::Open { since_us, doomed } = transaction.state {
            let until_us = since_us + transaction.every_us;
            if now_us < until_us {
                return Ok(Some(until_us));
            }
            transaction.state = State::Ending { since_us: now_us, doomed };
            self.close_all();
        }
        let is_flushed = self.is_flushed();
        match self.transaction.as_ref().map(|transaction| transaction.state) {
            Some(State::Ending { since_us, doomed }) if is_flushed => {
                self.end_transaction(since_us, !doomed).await?;
                // What has become due meanwhile.
                Ok(Some(now_us))
            }
            _ => Ok(None),
        }
    }

    async fn end_transaction(&mut self, since_us: u64, committed: bool) -> Result<(), CallError> {
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        let request = EndTxnRequest {
            transactional_id: transaction.id.clone(),
            producer_id: self.identity.id,
            producer_epoch: self.identity.epoch,
            committed,
        };
        let load = &self.load;
        let until = Instant::now() + load.workload.produce.delivery_timeout.0;
        let answer = loop {
            let failure = match transaction.coordinator.call(&request).await {
                Ok(answer) if answer.error_code == 0 => break answer,
                Ok(answer) => CallError::refused("ending a transaction", answer.error_code),
                Err(error) => error,
            };
            if !failure.is_retriable() || Instant::now() > until {
                return Err(failure);
            }
            load.repeated(self.index as usize, failure.to_string());
            if is_completing(&failure) {
                sleep(COMPLETING_BACKOFF).await;
            } else {
                sleep(BACKOFF).await;
                // A coordinator that has moved, or a connection that broke.
                let found = coordinator(load, &self.client_id, &transaction.id).await;
                transaction.coordinator = found?;
            }
        };
        if answer.producer_id < 0 {
            return Err(CallError::Unserved(sluice_wire::ApiKey::EndTxn));
        }
        self.identity.id = answer.producer_id;
        self.identity.epoch = answer.producer_epoch;
        transaction.state = State::None;
        for lane in &mut self.lanes {
            lane.end_transaction(committed);
        }
        let now_us = load.timeline.now_us();
        let mut shard = load.stats.shard(self.index as usize);
        shard.ended(since_us, now_us);
        if committed {
            shard.counts().commits += 1;
        } else {
            shard.counts().aborts += 1;
        }
        Ok(())
    }
}

/// Whether the last transaction is still being completed.
fn is_completing(failure: &CallError) -> bool {
    matches!(failure, CallError::Refused { code: ErrorCode::ConcurrentTransactions, .. })
}

/// A connection to the coordinator of a transactional id.
async fn coordinator(load: &Load, client_id: &Str, id: &Str) -> Result<Connection, CallError> {
    let request = FindCoordinatorRequest {
        key_type: TRANSACTION,
        coordinator_keys: vec![id.clone()],
        ..Default::default()
    };
    let until = Instant::now() + load.workload.produce.delivery_timeout.0;
    loop {
        let failure = match find(load, client_id, &request).await {
            Ok(connection) => return Ok(connection),
            Err(failure) => failure,
        };
        if !failure.is_retriable() || Instant::now() > until {
            return Err(failure);
        }
        load.repeated(0, failure.to_string());
        sleep(Duration::from_millis(100)).await;
    }
}

async fn find(
    load: &Load,
    client_id: &Str,
    request: &FindCoordinatorRequest,
) -> Result<Connection, CallError> {
    let answer = load.cluster.any(client_id).await?.call(request).await?;
    let unknown = || {
        let code = ErrorCode::CoordinatorNotAvailable.code();
        CallError::refused("finding a transaction coordinator", code)
    };
    let found = answer.coordinators.into_iter().next().ok_or_else(unknown)?;
    if found.error_code != 0 {
        return Err(CallError::refused("finding a transaction coordinator", found.error_code));
    }
    load.cluster.at(format!("{}:{}", found.host, found.port), client_id).await
}

/// How long a transaction may stay open, in ms: long enough for one that waits behind a fault, or behind a server that is slow.
fn timeout_ms(workload: &workload::Workload, transactions: &workload::Transactions) -> i32 {
    let least = if workload.faults.is_empty() { SHORT_TIMEOUT } else { TIMEOUT };
    let wanted = (transactions.commit_every.0 * PATIENCE).max(least);
    i32::try_from(wanted.as_millis()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_may_stay_open_for_long_only_where_it_has_to() {
        let timeout = |every: &str, more: &str| {
            let text = format!(
                "description = 'x'\nduration = '1s'\n[produce]\nrate = '1/s'\n[transactions]\ncommit_every = '{every}'\n{more}"
            );
            let workload = workload::Workload::parse(&text).expect("a workload");
            let transactions = workload.transactions.clone().expect("transactions");
            timeout_ms(&workload, &transactions)
        };
        assert_eq!(timeout("100ms", ""), 10_000);
        assert_eq!(timeout("20s", ""), 80_000);
        assert_eq!(timeout("100ms", "[[fault]]\nkind = 'kill'\nat = '1s'\n"), 60_000);
    }
}
