//! Transactions of the backend in memory: who has added what, and no rules but that the producer is
//! known.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sluice_model::StreamId;
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::messages::list_transactions_request::ListTransactionsRequest;
use sluice_wire::messages::list_transactions_response::{
    ListTransactionsResponse, TransactionState,
};
use sluice_wire::{ErrorCode, Str};

use super::MemoryBackend;
use crate::backend::{
    AddedBy, Caller, Producer, ProducerIdentity, TransactionDescription, Transactions,
};

/// An open transaction.
#[derive(Clone, Default)]
pub(in crate::tests) struct Open {
    producer_id: i64,
    streams: BTreeSet<StreamId>,
    pub(in crate::tests) groups: BTreeSet<Str>,
}

impl MemoryBackend {
    /// Gives the transaction to `f` if this is its producer.
    fn with<R>(
        &self,
        caller: &Caller,
        producer: &Producer,
        f: impl FnOnce(&mut Open) -> R,
    ) -> Result<R, ErrorCode> {
        let mut transactions = self.transactions.lock();
        let key = (caller.tenant, producer.transactional_id.clone());
        let open = transactions.get_mut(&key).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if open.producer_id != producer.producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if producer.producer_epoch != 0 {
            return Err(ErrorCode::ProducerFenced);
        }
        Ok(f(open))
    }
}

#[async_trait]
impl Transactions for MemoryBackend {
    async fn init_producer_id(
        &self,
        caller: &Caller,
        request: InitProducerIdRequest,
    ) -> Result<ProducerIdentity, ErrorCode> {
        let producer_id = self.next_producer.fetch_add(1, Ordering::SeqCst);
        if let Some(id) = request.transactional_id {
            if id.is_empty() {
                return Err(ErrorCode::InvalidRequest);
            }
            if request.producer_id == i64::MAX {
                return Err(ErrorCode::ProducerFenced);
            }
            let open = Open { producer_id, ..Open::default() };
            self.transactions.lock().insert((caller.tenant, id), open);
        }
        Ok(ProducerIdentity { producer_id, producer_epoch: 0 })
    }

    async fn add_streams(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
        _by: AddedBy,
    ) -> Result<(), ErrorCode> {
        self.with(caller, producer, |open| open.streams.extend(streams))
    }

    async fn not_added(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
    ) -> Result<BTreeSet<StreamId>, ErrorCode> {
        self.with(caller, producer, |open| streams.difference(&open.streams).copied().collect())
    }

    async fn add_group(
        &self,
        caller: &Caller,
        producer: &Producer,
        group_id: Str,
    ) -> Result<(), ErrorCode> {
        self.with(caller, producer, |open| {
            open.groups.insert(group_id);
        })
    }

    async fn end_transaction(
        &self,
        caller: &Caller,
        producer: &Producer,
        _commit: bool,
        bumps_epoch: bool,
    ) -> Result<Option<ProducerIdentity>, ErrorCode> {
        self.with(caller, producer, |open| {
            open.streams.clear();
            let next = ProducerIdentity { producer_id: open.producer_id, producer_epoch: 1 };
            bumps_epoch.then_some(next)
        })
    }

    async fn describe_transaction(
        &self,
        caller: &Caller,
        transactional_id: &Str,
    ) -> Result<TransactionDescription, ErrorCode> {
        let transactions = self.transactions.lock();
        let open = transactions.get(&(caller.tenant, transactional_id.clone()));
        let open = open.ok_or(ErrorCode::TransactionalIdNotFound)?;
        Ok(TransactionDescription {
            state: "Ongoing".into(),
            timeout_ms: 1_000,
            started_ms: 5,
            producer: ProducerIdentity { producer_id: open.producer_id, producer_epoch: 0 },
            streams: open.streams.iter().copied().collect(),
        })
    }

    async fn list_transactions(
        &self,
        caller: &Caller,
        request: ListTransactionsRequest,
    ) -> ListTransactionsResponse {
        let transactions = self.transactions.lock();
        let own = transactions.iter().filter(|((tenant, _), _)| *tenant == caller.tenant);
        let states = own.map(|((_, id), open)| TransactionState {
            transactional_id: id.clone(),
            producer_id: open.producer_id,
            transaction_state: "Ongoing".into(),
        });
        ListTransactionsResponse {
            transaction_states: states.collect(),
            unknown_state_filters: request.state_filters,
            ..Default::default()
        }
    }
}
