//! Producers and transactions, as the gateway asks for them.

use std::collections::BTreeSet;

use async_trait::async_trait;
use sluice_model::StreamId;
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::messages::list_transactions_request::ListTransactionsRequest;
use sluice_wire::messages::list_transactions_response::ListTransactionsResponse;
use sluice_wire::{ErrorCode, Str};

use super::Caller;

/// A producer as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Producer {
    /// Its transactional id.
    pub transactional_id: Str,
    /// The producer id that it was given.
    pub producer_id: i64,
    /// The producer epoch that it was given.
    pub producer_epoch: i16,
}

/// What a producer goes on with: its id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    /// The producer id; -1 for none.
    pub producer_id: i64,
    /// The producer epoch; -1 for none.
    pub producer_epoch: i16,
}

/// What becomes of a batch of a transaction in a stream that was not added to the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// It is refused as a mistake of the producer: INVALID_TXN_STATE (Produce below 11).
    Invalid,
    /// It is refused so that the producer can abort and go on: TRANSACTION_ABORTABLE (Produce 11).
    Abortable,
    /// The stream is added (Produce from 12 on, KIP-890).
    Adds,
}

/// Why streams are added to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddedBy {
    /// The producer says so.
    Client,
    /// The producer writes to them, under an epoch of the transaction's own (KIP-890).
    Write,
}

/// A transactional id, in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    /// Kafka's name of the state.
    pub state: Str,
    /// The longest that a transaction may be open.
    pub timeout_ms: i32,
    /// Wall time when the transaction began, ms; -1 for none.
    pub started_ms: i64,
    /// Who may write.
    pub producer: ProducerIdentity,
    /// What the open transaction has written to, by topic.
    pub streams: Vec<StreamId>,
}

/// The coordinator of a tenant's transactions, and the source of producer ids. Every call is safe to
/// drop at any await: what was decided is carried out.
#[async_trait]
pub trait Transactions: Send + Sync + 'static {
    /// Gives a producer its id and epoch.
    async fn init_producer_id(
        &self,
        caller: &Caller,
        request: InitProducerIdRequest,
    ) -> Result<ProducerIdentity, ErrorCode>;

    /// Adds streams of the tenant to the producer's transaction.
    async fn add_streams(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
        by: AddedBy,
    ) -> Result<(), ErrorCode>;

    /// Which of the streams were not added to the producer's transaction.
    async fn not_added(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
    ) -> Result<BTreeSet<StreamId>, ErrorCode>;

    /// Adds a group to the producer's transaction.
    async fn add_group(
        &self,
        caller: &Caller,
        producer: &Producer,
        group_id: Str,
    ) -> Result<(), ErrorCode>;

    /// Commits or aborts; durable when it returns. With `bumps_epoch` (EndTxn from 5 on) it gives what
    /// the producer goes on with.
    async fn end_transaction(
        &self,
        caller: &Caller,
        producer: &Producer,
        commit: bool,
        bumps_epoch: bool,
    ) -> Result<Option<ProducerIdentity>, ErrorCode>;

    /// One transactional id of the tenant.
    async fn describe_transaction(
        &self,
        caller: &Caller,
        transactional_id: &Str,
    ) -> Result<TransactionDescription, ErrorCode>;

    /// The tenant's transactional ids.
    async fn list_transactions(
        &self,
        caller: &Caller,
        request: ListTransactionsRequest,
    ) -> ListTransactionsResponse;
}
