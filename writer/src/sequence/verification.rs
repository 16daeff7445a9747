//! Producers whose first batch of a transaction waits for the word of the transaction's coordinator
//! (KIP-890). Only in memory: after a failover the client asks again.
//!
//! Between the coordinator's word and the append, the transaction may end: its marker takes the voucher away,
//! and the late batch is refused instead of beginning a transaction that nobody would ever end.

use std::collections::BTreeMap;

/// More producers than this at once: the one that asked first has to ask again.
const MOST: usize = 10_000;

/// Says that the coordinator was asked after the producer's last marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Voucher {
    number: u64,
    /// The client gets a new epoch for each transaction: an unknown producer's first sequence is 0.
    pub(super) bumps_epochs: bool,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    voucher: u64,
    epoch: i16,
    /// Batches that were sent before others come before them.
    lowest_sequence: i32,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Verifications {
    last_voucher: u64,
    by_producer: BTreeMap<i64, Waiting>,
}

impl Verifications {
    /// A batch of a producer without an open transaction arrives.
    pub(super) fn begin(
        &mut self,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        bumps_epochs: bool,
    ) -> Voucher {
        if self.by_producer.len() >= MOST && !self.by_producer.contains_key(&producer_id) {
            let oldest = self.by_producer.iter().min_by_key(|(_, waiting)| waiting.voucher);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.by_producer.remove(&oldest);
            }
        }
        let waiting = self.by_producer.entry(producer_id).or_insert_with(|| {
            self.last_voucher += 1;
            Waiting { voucher: self.last_voucher, epoch, lowest_sequence: sequence }
        });
        if epoch > waiting.epoch {
            (waiting.epoch, waiting.lowest_sequence) = (epoch, sequence);
        } else if epoch == waiting.epoch {
            waiting.lowest_sequence = waiting.lowest_sequence.min(sequence);
        }
        Voucher { number: waiting.voucher, bumps_epochs }
    }

    /// Whether a voucher still holds; then, the lowest sequence that was seen under it.
    pub(super) fn check(&self, producer_id: i64, voucher: Voucher) -> Option<i32> {
        let waiting = self.by_producer.get(&producer_id)?;
        (waiting.voucher == voucher.number).then_some(waiting.lowest_sequence)
    }

    /// The transaction has begun, or one has ended.
    pub(super) fn end(&mut self, producer_id: i64) {
        if !self.by_producer.is_empty() {
            self.by_producer.remove(&producer_id);
        }
    }
}
