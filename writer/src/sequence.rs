//! Where an append goes: the next offset, and whether an idempotent producer's batch is new.
//!
//! Pure: the volume task owns one [`Sequencer`] a stream and calls it in append order. Its view runs
//! ahead of what is durable; [`Sequencer::durable_producers`] leaves out what is not, because a batch that
//! was never durable must not be taken for a duplicate after a crash. Rules: Kafka's
//! ProducerStateManager (KIP-98, KIP-360).

use std::collections::{BTreeMap, VecDeque};

use sluice_format::state::{ProducerBatch, ProducerSnapshot};
use sluice_wire::batch::BatchView;

/// How many of a producer's durable batches are kept: as many as a client may have in flight.
const BATCHES_KEPT: usize = 5;
/// More producers than this in one stream: the one that has been quiet longest is forgotten.
const MAX_PRODUCERS: usize = 10_000;
/// A producer that has been quiet for this long is forgotten (Kafka: producer.id.expiration.ms).
pub(crate) const PRODUCER_EXPIRY_MS: i64 = 24 * 3600 * 1000;

/// What the header of a batch says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    /// -1 for a producer that is not idempotent.
    pub producer_id: i64,
    /// Producer epoch.
    pub producer_epoch: i16,
    /// Sequence of the first record.
    pub base_sequence: i32,
    /// Offsets that it takes: last offset delta + 1.
    pub offsets: i64,
    /// Its largest timestamp, ms.
    pub max_timestamp: i64,
}

impl BatchHeader {
    /// Of a batch that was checked.
    pub(crate) fn of<B: AsRef<[u8]>>(batch: &BatchView<B>) -> Self {
        Self {
            producer_id: batch.producer_id(),
            producer_epoch: batch.producer_epoch(),
            base_sequence: batch.base_sequence(),
            offsets: i64::from(batch.last_offset_delta()) + 1,
            max_timestamp: batch.max_timestamp(),
        }
    }

    fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + self.offsets - 1;
        // Sequences wrap from the largest i32 to 0.
        (last % (i64::from(i32::MAX) + 1)) as i32
    }
}

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
}

#[derive(Clone, Debug)]
struct Producer {
    epoch: i16,
    last_ms: i64,
    batches: VecDeque<ProducerBatch>,
}

/// One stream's next offset and its producers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequencer {
    next_offset: i64,
    producers: BTreeMap<i64, Producer>,
}

impl Sequencer {
    /// A stream that ends at `next_offset` with these producers.
    pub(crate) fn new(next_offset: i64, producers: &[ProducerSnapshot]) -> Self {
        let producers = producers
            .iter()
            .map(|producer| {
                let state = Producer {
                    epoch: producer.epoch,
                    last_ms: producer.last_ms,
                    batches: producer.batches.iter().copied().collect(),
                };
                (producer.id, state)
            })
            .collect();
        Self { next_offset, producers }
    }

    /// The offset that the next record gets.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Takes a batch. `durable` is the high watermark, `now_ms` the wall clock.
    pub(crate) fn take(
        &mut self,
        batch: &BatchHeader,
        durable: i64,
        now_ms: i64,
    ) -> Result<Sequenced, SequenceError> {
        if batch.producer_id >= 0
            && let Some(producer) = self.producers.get(&batch.producer_id)
        {
            if batch.producer_epoch < producer.epoch {
                return Err(SequenceError::ProducerFenced);
            }
            if batch.producer_epoch > producer.epoch {
                if batch.base_sequence != 0 {
                    return Err(SequenceError::OutOfOrder);
                }
            } else if let Some(known) = producer.batches.iter().find(|known| {
                known.first_sequence == batch.base_sequence
                    && known.last_sequence == batch.last_sequence()
            }) {
                return Ok(Sequenced::Duplicate {
                    base_offset: known.base_offset,
                    timestamp_ms: known.timestamp_ms,
                });
            } else if let Some(last) = producer.batches.back()
                && batch.base_sequence != last.last_sequence.checked_add(1).unwrap_or(0)
            {
                return Err(SequenceError::OutOfOrder);
            }
        }
        let base_offset = self.next_offset;
        self.replay(batch, base_offset, durable, now_ms);
        Ok(Sequenced::Append(base_offset))
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
        if batch.producer_id < 0 {
            return;
        }
        let producer = self.producers.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            last_ms: now_ms,
            batches: VecDeque::with_capacity(1),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        producer.last_ms = now_ms;
        producer.batches.push_back(ProducerBatch {
            first_sequence: batch.base_sequence,
            last_sequence: batch.last_sequence(),
            base_offset,
            timestamp_ms: batch.max_timestamp,
        });
        // What is not yet durable does not count: were it to push out durable batches, a crash that
        // loses it would leave the producer unknown.
        let settled = producer.batches.iter().filter(|known| known.base_offset < durable).count();
        for _ in BATCHES_KEPT..settled {
            producer.batches.pop_front();
        }
        if self.producers.len() > MAX_PRODUCERS {
            self.forget_quietest(batch.producer_id);
        }
    }

    fn forget_quietest(&mut self, except: i64) {
        let quietest = self
            .producers
            .iter()
            .filter(|(id, _)| **id != except)
            .min_by_key(|(_, producer)| producer.last_ms)
            .map(|(id, _)| *id);
        if let Some(id) = quietest {
            self.producers.remove(&id);
        }
    }

    /// Forgets producers that have been quiet for [`PRODUCER_EXPIRY_MS`].
    pub(crate) fn expire(&mut self, now_ms: i64) {
        self.producers.retain(|_, producer| now_ms - producer.last_ms < PRODUCER_EXPIRY_MS);
    }

    /// The producers as of offset `durable`, for a manifest.
    pub(crate) fn durable_producers(&self, durable: i64) -> Vec<ProducerSnapshot> {
        self.producers
            .iter()
            .filter_map(|(id, producer)| {
                let batches: Vec<_> = producer
                    .batches
                    .iter()
                    .filter(|batch| batch.base_offset < durable)
                    .copied()
                    .collect();
                let skip = batches.len().saturating_sub(BATCHES_KEPT);
                (!batches.is_empty()).then(|| ProducerSnapshot {
                    id: *id,
                    epoch: producer.epoch,
                    last_ms: producer.last_ms,
                    batches: batches[skip..].to_vec(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, base_sequence: i32, offsets: i64) -> BatchHeader {
        BatchHeader {
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence,
            offsets,
            max_timestamp: 1000 + i64::from(base_sequence),
        }
    }

    #[test]
    fn plain_producers_just_append() {
        let mut stream = Sequencer::default();
        let plain = BatchHeader { producer_id: -1, ..batch(-1, -1, 3) };
        assert_eq!(stream.take(&plain, 0, 0), Ok(Sequenced::Append(0)));
        assert_eq!(stream.take(&plain, 0, 0), Ok(Sequenced::Append(3)));
        assert!(stream.durable_producers(i64::MAX).is_empty());
    }

    #[test]
    fn retries_are_recognised_and_gaps_refused() {
        let mut stream = Sequencer::default();
        for n in 0..7 {
            assert_eq!(
                stream.take(&batch(0, n * 2, 2), i64::from(n) * 2, 0),
                Ok(Sequenced::Append(i64::from(n) * 2))
            );
        }
        let again = Sequenced::Duplicate { base_offset: 12, timestamp_ms: 1012 };
        assert_eq!(stream.take(&batch(0, 12, 2), 14, 0), Ok(again));
        let oldest_kept = Sequenced::Duplicate { base_offset: 4, timestamp_ms: 1004 };
        assert_eq!(stream.take(&batch(0, 4, 2), 14, 0), Ok(oldest_kept));
        for unknown in [0, 12, 16] {
            assert_eq!(stream.take(&batch(0, unknown, 3), 14, 0), Err(SequenceError::OutOfOrder));
        }
        assert_eq!(stream.next_offset(), 14);
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old() {
        let mut stream = Sequencer::default();
        stream.take(&batch(1, 0, 5), 0, 0).unwrap();
        assert_eq!(stream.take(&batch(2, 5, 1), 0, 0), Err(SequenceError::OutOfOrder));
        assert_eq!(stream.take(&batch(2, 0, 1), 0, 0), Ok(Sequenced::Append(5)));
        assert_eq!(stream.take(&batch(1, 5, 1), 0, 0), Err(SequenceError::ProducerFenced));
    }

    #[test]
    fn an_unknown_producer_may_begin_anywhere() {
        // KIP-360: its state may have expired.
        let mut stream = Sequencer::default();
        assert_eq!(stream.take(&batch(0, 77, 1), 0, 0), Ok(Sequenced::Append(0)));
    }

    #[test]
    fn sequences_wrap() {
        let mut stream = Sequencer::default();
        stream.take(&batch(0, i32::MAX - 1, 2), 0, 0).unwrap();
        assert_eq!(stream.take(&batch(0, 0, 1), 0, 0), Ok(Sequenced::Append(2)));
        let mut across = Sequencer::default();
        across.take(&batch(0, i32::MAX, 3), 0, 0).unwrap();
        assert_eq!(across.take(&batch(0, 2, 1), 0, 0), Ok(Sequenced::Append(3)));
    }

    #[test]
    fn what_is_not_durable_is_not_remembered_and_pushes_nothing_out() {
        let mut stream = Sequencer::default();
        for n in 0..10 {
            // Nothing after offset 2 becomes durable.
            stream.take(&batch(0, n, 1), i64::from(n).min(2), 0).unwrap();
        }
        let kept = stream.durable_producers(2);
        assert_eq!(kept[0].batches.iter().map(|b| b.base_offset).collect::<Vec<_>>(), [0, 1]);
        let mut recovered = Sequencer::new(2, &kept);
        assert_eq!(
            recovered.take(&batch(0, 2, 1), 2, 0),
            Ok(Sequenced::Append(2)),
            "the batch that was lost in the crash is taken again"
        );
    }

    #[test]
    fn quiet_producers_are_forgotten() {
        let mut stream = Sequencer::default();
        stream.take(&batch(0, 0, 1), 0, 0).unwrap();
        stream.expire(PRODUCER_EXPIRY_MS - 1);
        assert_eq!(stream.durable_producers(1).len(), 1);
        stream.expire(PRODUCER_EXPIRY_MS);
        assert!(stream.durable_producers(1).is_empty());
    }
}
