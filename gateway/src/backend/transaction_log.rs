//! What transactions leave in streams and groups, as the gateway sees it.

use async_trait::async_trait;
use sluice_model::{StreamId, TopicId};
use sluice_wire::{ErrorCode, Str};

use super::{Caller, NotAdded, Producer};

/// A producer that has written to a stream of late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Producer id.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Sequence of its last record; -1 if it has written none under its epoch.
    pub last_sequence: i32,
    /// Timestamp of what it last wrote, ms.
    pub last_timestamp: i64,
    /// Epoch of the coordinator that wrote its last marker; -1 for none.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction; -1 for none.
    pub transaction_start: i64,
}

/// Offsets of a group that a transaction commits (TxnOffsetCommit), by topic id.
#[derive(Clone, Debug)]
pub struct OffsetsInTransaction {
    /// Whose transaction.
    pub producer: Producer,
    /// What becomes of it if the group was not added to the transaction.
    pub not_added: NotAdded,
    /// The group.
    pub group_id: Str,
    /// The member's generation or epoch; -1 from clients that do not tell.
    pub generation_id: i32,
    /// The member; empty for none.
    pub member_id: Str,
    /// Its instance id.
    pub group_instance_id: Option<Str>,
    /// The offsets.
    pub offsets: Vec<OffsetInTransaction>,
}

/// One of [`OffsetsInTransaction`].
#[derive(Clone, Debug)]
pub struct OffsetInTransaction {
    /// The topic.
    pub topic: TopicId,
    /// Its partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The leader epoch of the last record consumed; -1 for none.
    pub leader_epoch: i32,
    /// The client's own text.
    pub metadata: Option<Str>,
}

/// The end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    /// Whose transaction.
    pub producer_id: i64,
    /// The producer epoch that the stream knows from now on.
    pub producer_epoch: i16,
    /// The leader epoch of the coordinator's log.
    pub coordinator_epoch: i32,
    /// Or aborted.
    pub commit: bool,
}

/// See the module.
#[async_trait]
pub trait TransactionLog: Send + Sync {
    /// The producers of a stream, by id.
    async fn active_producers(
        &self,
        caller: &Caller,
        stream: StreamId,
    ) -> Result<Vec<ActiveProducer>, ErrorCode>;

    /// Ends a transaction in a stream, as its coordinator has decided; durable when it returns. May be repeated.
    /// INVALID_PRODUCER_EPOCH says that the stream has heard of a newer one.
    async fn end_in_stream(&self, stream: StreamId, marker: EndMarker) -> Result<(), ErrorCode>;

    /// Makes offsets wait for the end of a transaction; durable when it returns. One code for each, or one
    /// for all.
    async fn commit_in_transaction(
        &self,
        caller: &Caller,
        commit: OffsetsInTransaction,
    ) -> Result<Vec<ErrorCode>, ErrorCode>;
}
