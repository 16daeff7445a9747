//! Where an append goes: the next offset, and whether an idempotent producer's batch is new.
//!
//! Pure: the volume task owns one [`Sequencer`] a stream and calls it in append order. Its view runs
//! ahead of what is durable; [`Sequencer::durable_producers`] leaves out what is not, because a batch that
//! was never durable must not be taken for a duplicate after a crash. Rules: Kafka's
//! ProducerStateManager (KIP-98, KIP-360).

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use sluice_format::AbortedTransaction;
use sluice_format::state::{ProducerBatch, ProducerSnapshot};
use sluice_wire::batch::BatchView;

/// How many of a producer's durable batches are kept: as many as a client may have in flight.
const BATCHES_KEPT: usize = 5;
/// More producers than this in one stream: the one that has been quiet longest is forgotten.
const MAX_PRODUCERS: usize = 10_000;
/// A producer that has been quiet for this long is forgotten (Kafka: producer.id.expiration.ms).
pub(crate) const PRODUCER_EXPIRY_MS: i64 = 24 * 3600 * 1000;

/// Bound for the records of a control batch.
const MAX_MARKER_BYTES: usize = 4096;

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
    /// What it is to a transaction.
    pub part: Part,
}

/// What a batch is to its producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Not part of one.
    Outside,
    /// Records in it.
    Inside,
    /// The marker that commits it.
    Commit,
    /// The marker that aborts it.
    Abort,
}

impl Part {
    fn is_marker(self) -> bool {
        matches!(self, Self::Commit | Self::Abort)
    }
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
            part: part_of(batch),
        }
    }

    fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + self.offsets - 1;
        // Sequences wrap from the largest i32 to 0.
        (last % (i64::from(i32::MAX) + 1)) as i32
    }
}

fn part_of<B: AsRef<[u8]>>(batch: &BatchView<B>) -> Part {
    let attributes = batch.attributes();
    if !attributes.is_control() {
        return if attributes.is_transactional() { Part::Inside } else { Part::Outside };
    }
    // The key of a marker: version i16, type i16 (0 abort, 1 commit). Markers are ours, and never
    // compressed; a control batch of another type ends no transaction.
    let key = BatchView::new(Bytes::copy_from_slice(batch.bytes().as_ref()))
        .and_then(|batch| batch.records(MAX_MARKER_BYTES))
        .ok()
        .and_then(|mut records| records.next()?.ok()?.key);
    match key.as_deref() {
        Some([_, _, 0, 0]) => Part::Abort,
        Some([_, _, 0, 1]) => Part::Commit,
        _ => Part::Outside,
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
    /// The marker that set its epoch, if that was one.
    fenced_at: Option<i64>,
    is_open: bool,
    batches: VecDeque<ProducerBatch>,
}

#[derive(Clone, Copy, Debug)]
struct Transaction {
    producer_id: i64,
    first_offset: i64,
    end: Option<TransactionEnd>,
}

#[derive(Clone, Copy, Debug)]
struct TransactionEnd {
    marker_offset: i64,
    aborted: bool,
    last_stable_offset: i64,
}

impl Transaction {
    /// Whether it is undecided in the log up to `end`.
    fn is_open_at(&self, end: i64) -> bool {
        self.first_offset < end && self.end.is_none_or(|ended| ended.marker_offset >= end)
    }
}

/// One stream's next offset, its producers, and their transactions in the tail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sequencer {
    next_offset: i64,
    producers: BTreeMap<i64, Producer>,
    /// By first offset, ascending. Those that have ended stay until the tail is let go of.
    transactions: VecDeque<Transaction>,
}

impl Sequencer {
    /// A stream that ends at `next_offset` with these producers.
    pub(crate) fn new(next_offset: i64, producers: &[ProducerSnapshot]) -> Self {
        let open = producers.iter().filter_map(|producer| {
            let first_offset = producer.open_since?;
            Some(Transaction { producer_id: producer.id, first_offset, end: None })
        });
        let mut transactions: Vec<_> = open.collect();
        transactions.sort_by_key(|transaction| transaction.first_offset);
        let producers = producers
            .iter()
            .map(|producer| {
                let state = Producer {
                    epoch: producer.epoch,
                    last_ms: producer.last_ms,
                    fenced_at: producer.batches.is_empty().then_some(0),
                    is_open: producer.open_since.is_some(),
                    batches: producer.batches.iter().copied().collect(),
                };
                (producer.id, state)
            })
            .collect();
        Self { next_offset, producers, transactions: transactions.into() }
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
            if batch.part.is_marker() {
                // A coordinator's, which knows its producer's state.
            } else if batch.producer_epoch > producer.epoch {
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
            } else if producer.batches.is_empty() && batch.base_sequence != 0 {
                // Its epoch was set by a marker.
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
            fenced_at: None,
            is_open: false,
            batches: VecDeque::with_capacity(1),
        });
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.fenced_at = batch.part.is_marker().then_some(base_offset);
            producer.batches.clear();
        }
        producer.last_ms = now_ms;
        match batch.part {
            Part::Commit | Part::Abort => {
                if std::mem::take(&mut producer.is_open) {
                    self.end_transaction(batch, base_offset);
                }
                return;
            }
            Part::Inside if !producer.is_open => {
                producer.is_open = true;
                let producer_id = batch.producer_id;
                let begun = Transaction { producer_id, first_offset: base_offset, end: None };
                self.transactions.push_back(begun);
            }
            Part::Inside | Part::Outside => {}
        }
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

    fn end_transaction(&mut self, marker: &BatchHeader, marker_offset: i64) {
        let mut undecided = self.transactions.iter().filter(|t| t.end.is_none());
        let next = undecided.find(|transaction| transaction.producer_id != marker.producer_id);
        let last_stable_offset = next.map_or(marker_offset + 1, |next| next.first_offset);
        let mut newest_first = self.transactions.iter_mut().rev();
        let ended = newest_first.find(|t| t.end.is_none() && t.producer_id == marker.producer_id);
        if let Some(ended) = ended {
            let aborted = marker.part == Part::Abort;
            ended.end = Some(TransactionEnd { marker_offset, aborted, last_stable_offset });
        }
    }

    /// The first offset of the oldest transaction that is undecided in the log up to `end`.
    pub(crate) fn first_unstable(&self, end: i64) -> Option<i64> {
        let open = self.transactions.iter().find(|transaction| transaction.is_open_at(end));
        open.map(|transaction| transaction.first_offset)
    }

    /// Transactions whose abort marker lies in `range`, by that.
    pub(crate) fn aborted(&self, range: &Range<i64>) -> Vec<AbortedTransaction> {
        let aborted = self.transactions.iter().filter_map(|transaction| {
            let end = transaction.end.filter(|end| end.aborted)?;
            range.contains(&end.marker_offset).then_some(AbortedTransaction {
                producer_id: transaction.producer_id,
                first_offset: transaction.first_offset,
                last_offset: end.marker_offset,
                last_stable_offset: end.last_stable_offset,
            })
        });
        let mut aborted: Vec<_> = aborted.collect();
        aborted.sort_by_key(|aborted| aborted.last_offset);
        aborted
    }

    /// Forgets transactions whose marker lies before `offset`: they are in the bucket.
    pub(crate) fn forget_ended_before(&mut self, offset: i64) {
        self.transactions.retain(|t| t.end.is_none_or(|end| end.marker_offset >= offset));
        self.transactions.shrink_to(64);
    }

    fn forget_quietest(&mut self, except: i64) {
        let quietest = self
            .producers
            .iter()
            .filter(|(id, producer)| **id != except && !producer.is_open)
            .min_by_key(|(_, producer)| producer.last_ms)
            .map(|(id, _)| *id);
        if let Some(id) = quietest {
            self.producers.remove(&id);
        }
    }

    /// Forgets producers that have been quiet for [`PRODUCER_EXPIRY_MS`].
    pub(crate) fn expire(&mut self, now_ms: i64) {
        self.producers.retain(|_, producer| {
            producer.is_open || now_ms - producer.last_ms < PRODUCER_EXPIRY_MS
        });
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
                let mut open = self.transactions.iter().rev();
                let open = open.find(|t| t.producer_id == *id && t.is_open_at(durable));
                let is_fenced = producer.fenced_at.is_some_and(|marker| marker < durable);
                let is_known = !batches.is_empty() || open.is_some() || is_fenced;
                is_known.then(|| ProducerSnapshot {
                    id: *id,
                    epoch: producer.epoch,
                    last_ms: producer.last_ms,
                    open_since: open.map(|transaction| transaction.first_offset),
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
            part: Part::Outside,
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

    fn part(part: Part, id: i64, sequence: i32) -> BatchHeader {
        BatchHeader { producer_id: id, part, ..batch(0, sequence, 1) }
    }

    #[test]
    fn the_log_is_stable_up_to_the_first_transaction_that_is_undecided() {
        let mut stream = Sequencer::default();
        let mut take = |batch: &BatchHeader| stream.take(batch, 0, 0).unwrap();
        take(&part(Part::Inside, 1, 0)); // 0
        take(&part(Part::Inside, 2, 0)); // 1
        take(&part(Part::Inside, 1, 1)); // 2
        take(&part(Part::Abort, 1, -1)); // 3
        take(&part(Part::Outside, 3, 0)); // 4
        take(&part(Part::Commit, 2, -1)); // 5
        take(&part(Part::Inside, 1, 2)); // 6: markers take no sequence
        for (end, unstable) in [
            (0, None),
            (1, Some(0)),
            (3, Some(0)),
            (4, Some(1)),
            (5, Some(1)),
            (6, None),
            (7, Some(6)),
        ] {
            assert_eq!(stream.first_unstable(end), unstable, "up to {end}");
        }
        let first = AbortedTransaction {
            producer_id: 1,
            first_offset: 0,
            last_offset: 3,
            last_stable_offset: 1,
        };
        assert_eq!(stream.aborted(&(3..7)), [first]);
        assert!(stream.aborted(&(0..3)).is_empty(), "listed where its marker is");
        stream.forget_ended_before(6);
        assert_eq!(stream.first_unstable(7), Some(6));
        assert!(stream.aborted(&(0..7)).is_empty());
    }

    #[test]
    fn open_transactions_survive_in_snapshots_as_of_any_offset() {
        let mut stream = Sequencer::default();
        let log = [
            part(Part::Inside, 1, 0),
            part(Part::Inside, 2, 0),
            part(Part::Abort, 1, -1),
            part(Part::Inside, 1, 1),
            part(Part::Commit, 2, -1),
            part(Part::Abort, 1, -1),
        ];
        for batch in &log {
            stream.take(batch, i64::MAX, 0).unwrap();
        }
        for cut in 0..=log.len() as i64 {
            let mut recovered = Sequencer::new(cut, &stream.durable_producers(cut));
            for (offset, batch) in log.iter().enumerate().skip(cut as usize) {
                recovered.replay(batch, offset as i64, i64::MAX, 0);
            }
            for end in cut..=log.len() as i64 {
                assert_eq!(
                    recovered.first_unstable(end),
                    stream.first_unstable(end),
                    "{cut} {end}"
                );
            }
            let range = cut..log.len() as i64;
            assert_eq!(recovered.aborted(&range), stream.aborted(&range), "cut at {cut}");
        }
    }

    #[test]
    fn a_marker_of_a_newer_epoch_fences_and_an_open_transaction_does_not_expire() {
        let mut stream = Sequencer::default();
        stream.take(&part(Part::Inside, 7, 0), 0, 0).unwrap();
        stream.expire(PRODUCER_EXPIRY_MS * 2);
        assert_eq!(stream.first_unstable(1), Some(0));
        let abort = BatchHeader { part: Part::Abort, ..batch(1, -1, 1) };
        stream.take(&abort, 1, 0).unwrap();
        let mut recovered = Sequencer::new(2, &stream.durable_producers(2));
        for stream in [&mut stream, &mut recovered] {
            let old = stream.take(&batch(0, 1, 1), 2, 0);
            assert_eq!(old, Err(SequenceError::ProducerFenced));
            assert_eq!(stream.take(&batch(1, 5, 1), 2, 0), Err(SequenceError::OutOfOrder));
            assert_eq!(stream.take(&batch(1, 0, 1), 2, 0), Ok(Sequenced::Append(2)));
        }
    }
}
