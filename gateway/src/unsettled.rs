//! Batches of idempotent producers that a connection has sent and that were not accepted yet: on their way to an
//! owner, or refused with an error after which they are sent again.
//!
//! Clients have several batches of a partition in flight. When its owner changes, the first may be refused by the old
//! one, and the second reach the new one, to which it comes out of order. That gap is of our making, and must not be
//! told: librdkafka answers it with a new producer epoch for *all* partitions, under which it sends everything that was
//! in flight again; what was durable of that then lies in its stream twice, as nobody can tell. So a batch behind one
//! that is not settled is refused as that one was, and the client begins again with the first.
//!
//! Owned by the connection. It holds no more than [`MOST`] batches, and forgets them all when there are more: then gaps
//! are told as they are.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;
use sluice_model::StreamId;
use sluice_wire::ErrorCode;

/// Far more than clients have in flight: five a partition.
const MOST: usize = 16_384;

/// A batch of an idempotent producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    run: Run,
    sequence: i32,
}

/// What is numbered without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    stream: StreamId,
    producer: i64,
    epoch: i16,
}

impl Numbered {
    /// The batch's number, from its header (magic 2); none if its producer gives none.
    pub(crate) fn of(stream: StreamId, records: &[u8]) -> Option<Self> {
        let producer = i64::from_be_bytes(*records.get(43..)?.first_chunk()?);
        let epoch = i16::from_be_bytes(*records.get(51..)?.first_chunk()?);
        let sequence = i32::from_be_bytes(*records.get(53..)?.first_chunk()?);
        let run = Run { stream, producer, epoch };
        (producer >= 0 && sequence >= 0).then_some(Self { run, sequence })
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Mutex<Batches>);

#[derive(Debug, Default)]
struct Batches {
    by_run: HashMap<Run, BTreeSet<i32>>,
    count: usize,
}

impl Unsettled {
    /// The batch is handed over. To be called in the order in which the connection's requests came.
    pub(crate) fn begin(&self, batch: Numbered) {
        let mut batches = self.0.lock();
        if batches.count >= MOST {
            *batches = Batches::default();
        }
        if batches.by_run.entry(batch.run).or_default().insert(batch.sequence) {
            batches.count += 1;
        }
    }

    /// What the client is to be told of a batch that came to this; `None` if it was accepted.
    pub(crate) fn settle(&self, batch: Numbered, error: Option<ErrorCode>) -> Option<ErrorCode> {
        let mut batches = self.0.lock();
        let Some(waiting) = batches.by_run.get_mut(&batch.run) else { return error };
        let before = waiting.len();
        let told = match error {
            // With it all before it: it would not have been accepted otherwise.
            None => {
                waiting.retain(|sequence| is_behind(*sequence, batch.sequence));
                None
            }
            Some(ErrorCode::OutOfOrderSequenceNumber)
                if waiting.iter().any(|sequence| is_behind(batch.sequence, *sequence)) =>
            {
                Some(ErrorCode::NotLeaderOrFollower)
            }
            Some(code) => {
                if !code.retriable() {
                    waiting.remove(&batch.sequence);
                }
                Some(code)
            }
        };
        let gone = before - waiting.len();
        if waiting.is_empty() {
            batches.by_run.remove(&batch.run);
        }
        batches.count -= gone;
        told
    }
}

/// Whether a sequence comes after another. After the largest one comes 0.
fn is_behind(sequence: i32, other: i32) -> bool {
    let ahead = sequence.wrapping_sub(other) & i32::MAX;
    ahead != 0 && ahead < 1 << 30
}

#[cfg(test)]
mod tests {
    use sluice_model::TopicId;

    use super::*;

    fn batch(sequence: i32) -> Numbered {
        let stream = StreamId { topic: TopicId([7; 16]), partition: 0 };
        Numbered { run: Run { stream, producer: 5, epoch: 1 }, sequence }
    }

    const GAP: Option<ErrorCode> = Some(ErrorCode::OutOfOrderSequenceNumber);
    const MOVED: Option<ErrorCode> = Some(ErrorCode::NotLeaderOrFollower);

    #[test]
    fn a_gap_behind_a_refusal_is_a_refusal() {
        let unsettled = Unsettled::default();
        for sequence in [10, 20, 30] {
            unsettled.begin(batch(sequence));
        }
        assert_eq!(unsettled.settle(batch(10), MOVED), MOVED);
        assert_eq!(unsettled.settle(batch(20), GAP), MOVED);
        assert_eq!(unsettled.settle(batch(30), GAP), MOVED);
        // Sent again, in order; the next owner has the first two.
        for sequence in [10, 20, 30] {
            unsettled.begin(batch(sequence));
            assert_eq!(unsettled.settle(batch(sequence), None), None);
        }
        unsettled.begin(batch(50));
        assert_eq!(unsettled.settle(batch(50), GAP), GAP, "nothing is missing but what never came");
        assert_eq!(unsettled.0.lock().count, 0);
    }

    #[test]
    fn a_gap_behind_a_batch_that_is_still_on_its_way_is_a_refusal() {
        let unsettled = Unsettled::default();
        unsettled.begin(batch(i32::MAX));
        unsettled.begin(batch(0));
        assert_eq!(unsettled.settle(batch(0), GAP), MOVED, "the sequence begins again at 0");
        assert_eq!(unsettled.settle(batch(i32::MAX), MOVED), MOVED);
    }

    #[test]
    fn a_gap_behind_what_is_refused_for_good_is_told() {
        let unsettled = Unsettled::default();
        unsettled.begin(batch(0));
        unsettled.begin(batch(3));
        let large = Some(ErrorCode::MessageTooLarge);
        assert_eq!(unsettled.settle(batch(0), large), large);
        assert_eq!(unsettled.settle(batch(3), GAP), GAP);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let unsettled = Unsettled::default();
        for sequence in 0..40_000 {
            unsettled.begin(batch(sequence));
        }
        let batches = unsettled.0.lock();
        assert!(batches.count <= MOST);
        assert_eq!(batches.count, batches.by_run.values().map(BTreeSet::len).sum::<usize>());
    }
}
