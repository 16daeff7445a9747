//! What transactions leave in streams, as the gateway sees it.

use sluice_model::StreamId;
use sluice_wire::ErrorCode;

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

/// See the module.
pub trait TransactionLog: Send + Sync {
    /// The producers of a stream, by id.
    fn active_producers(&self, stream: StreamId) -> Result<Vec<ActiveProducer>, ErrorCode>;
}
