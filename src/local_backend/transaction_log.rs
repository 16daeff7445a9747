//! [`TransactionLog`] in one process.

use sluice_gateway::backend::{ActiveProducer, TransactionLog};
use sluice_model::StreamId;
use sluice_wire::ErrorCode;

use super::LocalBackend;

impl TransactionLog for LocalBackend {
    fn active_producers(&self, stream: StreamId) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let producers = self.writer.active_producers(stream).map_err(|error| error.code())?;
        let shown = producers.into_iter().map(|producer| ActiveProducer {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            last_sequence: producer.last_sequence,
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.open_since.unwrap_or(-1),
        });
        Ok(shown.collect())
    }
}
