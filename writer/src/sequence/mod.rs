//! Where an append goes: the next offset, and whether an idempotent producer's batch is new.
//!
//! Pure: the volume task owns one [`Sequencer`] a stream and calls it in append order. Its view runs
//! ahead of what is durable; [`Sequencer::durable_producers`] leaves out what is not, because a batch that
//! was never durable must not be taken for a duplicate after a crash. Rules: Kafka's
//! ProducerStateManager and ProducerAppendInfo (KIP-98, KIP-360, KIP-890).

mod header;
mod producers;
#[cfg(test)]
mod tests;
mod transactions;
mod verification;

use std::collections::BTreeMap;
use std::ops::Range;

use sluice_format::AbortedTransaction;
use sluice_format::state::{ProducerBatch, ProducerSnapshot};

pub(crate) use self::header::{BatchHeader, Marker, Part};
use self::producers::Producer;
use self::transactions::Transactions;
use self::verification::Verifications;
pub(crate) use self::verification::Voucher;

/// More producers than this in one stream: the one that has been quiet longest is forgotten.
const MAX_PRODUCERS: usize = 10_000;
/// A producer that has been quiet for this long is forgotten (Kafka: producer.id.expiration.ms).
pub(crate) const PRODUCER_EXPIRY_MS: i64 = 24 * 3600 * 1000;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sequenced {
    /// Append it at this offset.
    Append(i64),
    /// It is there already, from this offset on: answer that, once it is durable.
    Duplicate {
        /// Offset of the first record.
        base_offset: i64,
        /// Its largest timestamp, ms.
        timestamp_ms: i64,
    },
}

/// Why a batch is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SequenceError {
    /// A newer instance of the producer exists.
    #[error("the producer's epoch is older than one that has written")]
    ProducerFenced,
    /// A batch before this one is missing.
    #[error("the batch does not follow the producer's last one")]
    OutOfOrder,
    /// It is outside of its producer's open transaction, or in one that no coordinator vouches for.
    #[error("the batch is not part of the producer's transaction")]
    NotInTransaction,
    /// The coordinator has vouched for it, and a transaction of its producer has ended since: it may be of
    /// the one that ended or of the next, which the coordinator can tell.
    #[error("a transaction of the producer has ended meanwhile; send it again")]
    Overtaken,
    /// A marker of a coordinator that has been replaced.
    #[error("the marker's coordinator epoch is older than one that has written")]
    CoordinatorFenced,
}

/// A producer that has written to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence of its last record; -1 if it has written none under its epoch.
    pub last_sequence: i32,
    /// Timestamp of what it last wrote, ms.
    pub last_timestamp: i64,
    /// Epoch of the coordinator that wrote its last marker; -1 for none.
    pub coordinator_epoch: i32,
    /// The first offset of its open transaction.
    pub open_since: Option<i64>,
}

/// One stream's next offset, its producers, and their transactions in the tail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequencer {
    next_offset: i64,
    producers: BTreeMap<i64, Producer>,
    transactions: Transactions,
    verifications: Verifications,
}

impl Sequencer {
    /// A stream that ends at `next_offset` with these producers.
    pub(crate) fn new(next_offset: i64, producers: &[ProducerSnapshot]) -> Self {
        let mut made = Self { next_offset, ..Self::default() };
        for snapshot in producers {
            if let Some(first_offset) = snapshot.open_since {
                made.transactions.begin(snapshot.id, snapshot.epoch, first_offset);
            }
            made.producers.insert(snapshot.id, Producer::recovered(snapshot));
        }
        made
    }

    /// The offset that the next record gets.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The first offset of the producer's open transaction.
    pub(crate) fn open_since(&self, producer_id: i64) -> Option<i64> {
        self.transactions.open_since(producer_id)
    }

    /// What a batch needs that would begin a transaction, if the coordinator vouches for it; none if the
    /// producer's transaction is open here. `bumps_epochs`: the client gets a new epoch for each
    /// transaction.
    pub(crate) fn verify(&mut self, batch: &BatchHeader, bumps_epochs: bool) -> Option<Voucher> {
        if self.is_open_under(batch) {
            return None;
        }
        let (id, epoch, sequence) = (batch.producer_id, batch.producer_epoch, batch.base_sequence);
        Some(self.verifications.begin(id, epoch, sequence, bumps_epochs))
    }

    /// Whether the batch's producer has a transaction open here under the batch's epoch. One that is open under
    /// an older epoch waits for its marker (KIP-890: its end has been answered already): what comes
    /// under the next epoch is not part of it.
    fn is_open_under(&self, batch: &BatchHeader) -> bool {
        let producer = self.producers.get(&batch.producer_id);
        self.open_since(batch.producer_id).is_some()
            && producer.is_none_or(|producer| producer.era.epoch == batch.producer_epoch)
    }

    /// Takes a batch. `durable` is the high watermark, `now_ms` the wall clock. Without a voucher no
    /// transaction begins.
    pub(crate) fn take(
        &mut self,
        batch: &BatchHeader,
        voucher: Option<Voucher>,
        durable: i64,
        now_ms: i64,
    ) -> Result<Sequenced, SequenceError> {
        if batch.producer_id >= 0 {
            let duplicate = match batch.part {
                Part::End(marker) => self.check_marker(batch, marker).map(|()| None),
                _ => self.check_data(batch, voucher),
            }?;
            if let Some(duplicate) = duplicate {
                return Ok(duplicate);
            }
        }
        let base_offset = self.next_offset;
        self.replay(batch, base_offset, durable, now_ms);
        Ok(Sequenced::Append(base_offset))
    }

    /// A marker repeated under the same epoch ends nothing, and is let through: its coordinator does not
    /// know that the first one came.
    fn check_marker(&self, batch: &BatchHeader, marker: Marker) -> Result<(), SequenceError> {
        let Some(producer) = self.producers.get(&batch.producer_id) else { return Ok(()) };
        if batch.producer_epoch < producer.era.epoch {
            return Err(SequenceError::ProducerFenced);
        }
        if marker.coordinator_epoch < producer.coordinator_epoch {
            return Err(SequenceError::CoordinatorFenced);
        }
        Ok(())
    }

    fn check_data(
        &self,
        batch: &BatchHeader,
        voucher: Option<Voucher>,
    ) -> Result<Option<Sequenced>, SequenceError> {
        let producer = self.producers.get(&batch.producer_id);
        let era = producer.map(|producer| &producer.era);
        if let Some(known) =
            era.filter(|era| era.epoch == batch.producer_epoch).and_then(|era| era.same(batch))
        {
            let ProducerBatch { base_offset, timestamp_ms, .. } = *known;
            return Ok(Some(Sequenced::Duplicate { base_offset, timestamp_ms }));
        }
        if era.is_some_and(|era| batch.producer_epoch < era.epoch) {
            return Err(SequenceError::ProducerFenced);
        }
        let is_open = self.open_since(batch.producer_id).is_some();
        let fits = match (batch.part, is_open) {
            (Part::Inside, true) => self.is_open_under(batch),
            (Part::Inside, false) => voucher.is_some(),
            (_, is_open) => !is_open,
        };
        if !fits {
            return Err(SequenceError::NotInTransaction);
        }
        if let Some(voucher) = voucher.filter(|_| !is_open) {
            let lowest = self.verifications.check(batch.producer_id, voucher);
            let lowest = lowest.ok_or(match voucher.bumps_epochs {
                true => SequenceError::Overtaken,
                false => SequenceError::NotInTransaction,
            })?;
            let gap = voucher.bumps_epochs && era.is_none() && batch.base_sequence != 0;
            if gap || batch.base_sequence > lowest {
                return Err(SequenceError::OutOfOrder);
            }
        }
        // Any sequence may be the first of a producer that is not known: its state may have expired.
        let Some(era) = era else { return Ok(None) };
        let last = era.last_sequence().filter(|_| era.epoch == batch.producer_epoch);
        if batch.base_sequence != last.map_or(0, |last| last.checked_add(1).unwrap_or(0)) {
            return Err(SequenceError::OutOfOrder);
        }
        Ok(None)
    }

    /// Records a batch that is in the log at `base_offset`, without judging it.
    pub(crate) fn replay(
        &mut self,
        batch: &BatchHeader,
        base_offset: i64,
        durable: i64,
        now_ms: i64,
    ) {
        self.next_offset = base_offset + batch.offsets;
        if batch.producer_id < 0 || batch.part == Part::Control {
            return;
        }
        let new = || Producer::new(batch.producer_epoch, base_offset);
        let producer = self.producers.entry(batch.producer_id).or_insert_with(new);
        producer.writes(batch.producer_epoch, base_offset, durable);
        producer.last_ms = now_ms;
        producer.last_timestamp = batch.max_timestamp;
        if let Part::End(marker) = batch.part {
            producer.coordinator_epoch = marker.coordinator_epoch.max(producer.coordinator_epoch);
            self.transactions.end(batch.producer_id, base_offset, !marker.commit);
            self.verifications.end(batch.producer_id);
        } else {
            let known = ProducerBatch {
                first_sequence: batch.base_sequence,
                last_sequence: batch.last_sequence(),
                base_offset,
                timestamp_ms: batch.max_timestamp,
            };
            producer.push(known, durable);
        }
        if batch.part == Part::Inside {
            self.transactions.begin(batch.producer_id, batch.producer_epoch, base_offset);
            self.verifications.end(batch.producer_id);
        }
        if self.producers.len() > MAX_PRODUCERS {
            self.forget_quietest(batch.producer_id);
        }
    }

    /// The first offset of the oldest transaction that is undecided in the log up to `end`.
    pub(crate) fn first_unstable(&self, end: i64) -> Option<i64> {
        self.transactions.first_unstable(end)
    }

    /// Transactions whose abort marker lies in `range`, by that.
    pub(crate) fn aborted(&self, range: &Range<i64>) -> Vec<AbortedTransaction> {
        self.transactions.aborted(range)
    }

    /// Transactions that were aborted, may have records in `range`, and whose markers lie in it or behind it.
    pub(crate) fn aborted_over(&self, range: &Range<i64>) -> Vec<AbortedTransaction> {
        self.transactions.aborted_over(range)
    }

    /// Forgets transactions whose marker lies before `offset`: they are in the bucket.
    pub(crate) fn forget_ended_before(&mut self, offset: i64) {
        self.transactions.forget_ended_before(offset);
    }

    fn forget_quietest(&mut self, except: i64) {
        let quietest = self
            .producers
            .iter()
            .filter(|(id, _)| **id != except && self.open_since(**id).is_none())
            .min_by_key(|(_, producer)| producer.last_ms)
            .map(|(id, _)| *id);
        if let Some(id) = quietest {
            self.producers.remove(&id);
        }
    }

    /// Forgets producers that have been quiet for [`PRODUCER_EXPIRY_MS`].
    pub(crate) fn expire(&mut self, now_ms: i64) {
        let transactions = &self.transactions;
        self.producers.retain(|id, producer| {
            transactions.open_since(*id).is_some() || now_ms - producer.last_ms < PRODUCER_EXPIRY_MS
        });
    }

    /// The producers as of offset `durable`, by id, for a manifest. More than that may be durable: what a
    /// producer was then may be forgotten since, but a transaction that was open then is not.
    pub(crate) fn durable_producers(&self, durable: i64) -> Vec<ProducerSnapshot> {
        let mut undecided = self.transactions.undecided_at(durable);
        let mut snapshots: Vec<_> = self
            .producers
            .iter()
            .filter_map(|(id, producer)| {
                let snapshot = producer.snapshot(*id, durable);
                let Some(open) = undecided.remove(id) else { return snapshot };
                let snapshot =
                    snapshot.unwrap_or_else(|| producer.settled_snapshot(*id, open.producer_epoch));
                Some(ProducerSnapshot { open_since: Some(open.first_offset), ..snapshot })
            })
            .collect();
        let forgotten = undecided.iter().map(|(id, open)| ProducerSnapshot {
            open_since: Some(open.first_offset),
            ..Producer::new(open.producer_epoch, 0).settled_snapshot(*id, open.producer_epoch)
        });
        snapshots.extend(forgotten);
        snapshots.sort_unstable_by_key(|snapshot| snapshot.id);
        snapshots
    }

    /// The producers as of the last append, by id.
    pub(crate) fn active_producers(&self) -> Vec<ActiveProducer> {
        let producers = self.producers.iter();
        producers
            .map(|(id, producer)| ActiveProducer {
                id: *id,
                epoch: producer.era.epoch,
                last_sequence: producer.era.last_sequence().unwrap_or(-1),
                last_timestamp: producer.last_timestamp,
                coordinator_epoch: producer.coordinator_epoch,
                open_since: self.open_since(*id),
            })
            .collect()
    }
}
