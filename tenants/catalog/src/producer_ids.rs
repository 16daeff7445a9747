//! Producer ids: numbers that are given out once, for the whole cluster.

use std::ops::Range;

use crate::catalog::Catalog;
use crate::layout::{self, ProducerIdsRecord};
use crate::store::{Outcome, StoreError, Txn};

/// How many ids a process takes from the store at a time, as Kafka's brokers do. A process that ends
/// leaves the rest of its block unused for ever.
const BLOCK: u32 = 1000;

/// Why there is no producer id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// All 2^63 are used.
    #[error("all producer ids are used")]
    Exhausted,
    /// Retry: the store.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// Ids that are this process's to give out.
#[derive(Default)]
pub(crate) struct Block(Range<i64>);

impl Catalog {
    /// A producer id that nobody has had. Most calls are answered from memory; concurrent calls share
    /// one write. Dropping the call may waste ids.
    pub async fn next_producer_id(&self) -> Result<i64, AllocateError> {
        let mut block = self.inner.producer_ids.lock().await;
        if block.0.is_empty() {
            block.0 = self.allocate_producer_ids(BLOCK).await?;
        }
        block.0.next().ok_or(AllocateError::Exhausted)
    }

    /// Takes `count` producer ids (at least one) out of the store. Durable: they are never given out
    /// again, whatever becomes of this process.
    pub async fn allocate_producer_ids(&self, count: u32) -> Result<Range<i64>, AllocateError> {
        let key = layout::PRODUCER_IDS;
        loop {
            let (txn, next) = match self.inner.store.get(key).await? {
                None => (Txn::new().if_absent(key), 0),
                Some(entry) => {
                    let record: ProducerIdsRecord =
                        layout::decode(key, &entry.value).map_err(StoreError::from)?;
                    (Txn::new().if_unchanged(key, entry.mod_revision), record.next)
                }
            };
            let end = next.checked_add(count.max(1).into()).ok_or(AllocateError::Exhausted)?;
            let record = layout::encode(&ProducerIdsRecord { next: end });
            if let Outcome::Committed(_) = self.commit(txn.put(key, record)).await? {
                return Ok(next..end);
            }
        }
    }
}
