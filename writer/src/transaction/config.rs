//! What an operator can set, and the bounds of everything that the coordinator keeps.

use std::time::Duration;

use super::record::STREAM_BYTES;

/// Limits and times. Names in comments are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`: the longest `transaction.timeout.ms` that a producer may ask for.
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`: an id that was quiet for so long is forgotten.
    pub id_expiration_ms: i64,
    /// Transactional ids of one tenant.
    pub max_ids_per_tenant: usize,
    /// Producer ids that a tenant may be given an hour, for producers without a transactional id.
    pub max_producer_ids_per_hour: u32,
    /// Bytes of a transactional id.
    pub max_id_bytes: usize,
    /// Partitions of one transaction.
    pub max_streams: usize,
    /// Groups of one transaction, and the bytes of all their names.
    pub max_groups: usize,
    /// See [`Self::max_groups`].
    pub max_group_bytes: usize,
    /// How long a request waits for a decision that is under way before it is told to try again.
    /// Kafka does the same for implicitly added partitions
    /// (`add.partitions.to.txn.retry.backoff.max.ms`).
    pub busy_wait: Duration,
    /// How long a request waits for the log.
    pub log_wait: Duration,
    /// How long to wait before a marker or a record that was not written is tried again.
    pub retry_backoff: Duration,
}

/// Bytes of a record beside its streams, groups and the id.
const RECORD_BYTES: usize = 4_096;

impl TransactionConfig {
    /// The same, with as many partitions as a record of `largest` bytes can name.
    #[must_use]
    pub fn within(self, largest: usize) -> Self {
        let rest = RECORD_BYTES + self.max_id_bytes + self.max_group_bytes + 4 * self.max_groups;
        let fitting = largest.saturating_sub(rest) / STREAM_BYTES;
        Self { max_streams: self.max_streams.min(fitting), ..self }
    }
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            max_timeout_ms: 900_000,
            id_expiration_ms: 7 * 24 * 3_600_000,
            max_ids_per_tenant: 10_000,
            max_producer_ids_per_hour: 100_000,
            max_id_bytes: 1_024,
            max_streams: 50_000,
            max_groups: 1_000,
            max_group_bytes: 256 << 10,
            busy_wait: Duration::from_millis(500),
            log_wait: Duration::from_secs(5),
            retry_backoff: Duration::from_millis(100),
        }
    }
}
