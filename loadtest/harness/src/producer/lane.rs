//! One producer's records of one partition, from made to acknowledged: pure.
//!
//! Batches are sent in order, a few at a time. When one fails, nothing more is sent until all that are on their
//! way have come back; then they are sent again from the first that is not acknowledged, with the same
//! sequence numbers, so that the server can tell what it has.

use std::collections::VecDeque;

use bytes::Bytes;
use sluice_wire::batch::{BatchBuilder, Compression, NewRecord};

/// What an idempotent producer is to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) transactional: bool,
}

/// A batch that is closed and not acknowledged.
#[derive(Debug)]
struct Batch {
    bytes: Bytes,
    /// Of the values of its records.
    value_bytes: u64,
    /// The stamp sequence after its last record's.
    end: u64,
    /// When each record was due, µs since the Unix epoch.
    due_us: Vec<u64>,
    /// On its way to the server.
    sent: bool,
}

/// A batch that takes records.
#[derive(Debug)]
struct Open {
    builder: BatchBuilder,
    value_bytes: u64,
    due_us: Vec<u64>,
}

/// What an acknowledgement settles.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) due_us: Vec<u64>,
    pub(crate) value_bytes: u64,
}

/// How the server answered a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is there.
    Acknowledged,
    /// It may be there or not, and must be sent again.
    Failed,
}

/// One producer's records of one partition.
#[derive(Debug)]
pub(crate) struct Lane {
    open: Option<Open>,
    closed: VecDeque<Batch>,
    /// A batch has failed: wait for those that are on their way.
    failed: bool,
    in_flight: usize,
    /// The server knows the producer in this partition.
    is_known: bool,
    /// The stamp sequence of the next record.
    next: u64,
    /// No stamp sequence from here on was ever sent.
    sent: u64,
    /// The first stamp sequence of the transaction.
    transaction: u64,
    /// Every stamp sequence below is acknowledged.
    acknowledged: u64,
    /// The server's sequence number of the next batch.
    wire_next: i32,
    /// Bytes and records of the last batch: the next one will be about as large.
    last: (usize, usize),
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self {
            open: None,
            closed: VecDeque::new(),
            failed: false,
            in_flight: 0,
            is_known: false,
            next: 0,
            sent: 0,
            transaction: 0,
            acknowledged: 0,
            wire_next: 0,
            last: (0, 0),
        }
    }

    /// The stamp sequence of the next record.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Adds a record; gives the bytes that the open batch now has.
    pub(crate) fn push(
        &mut self,
        identity: Identity,
        compression: Compression,
        record: &NewRecord<'_>,
        due_us: u64,
    ) -> usize {
        let (wire_next, (bytes, records)) = (self.wire_next, self.last);
        let open = self.open.get_or_insert_with(|| {
            let mut builder = BatchBuilder::new()
                .with_room(bytes)
                .compression(compression)
                .producer(identity.id, identity.epoch, wire_next);
            if identity.transactional {
                builder = builder.transactional();
            }
            Open { builder, value_bytes: 0, due_us: Vec::with_capacity(records) }
        });
        open.builder.push(record);
        open.value_bytes += record.value.map_or(0, <[u8]>::len) as u64;
        open.due_us.push(due_us);
        self.next += 1;
        open.builder.records_bytes()
    }

    /// When the first record of the open batch was due.
    pub(crate) fn open_since_us(&self) -> Option<u64> {
        self.open.as_ref().and_then(|open| open.due_us.first().copied())
    }

    /// Closes the open batch.
    pub(crate) fn close(&mut self) {
        if let Some(Open { builder, value_bytes, due_us }) = self.open.take() {
            self.wire_next = self.wire_next.wrapping_add(builder.record_count()) & i32::MAX;
            self.last = (builder.records_bytes(), due_us.len());
            let bytes = builder.build();
            self.closed.push_back(Batch {
                bytes,
                value_bytes,
                end: self.next,
                due_us,
                sent: false,
            });
        }
    }

    /// The next batch to send, with the number that [`Self::settle`] takes.
    pub(crate) fn send(&mut self) -> Option<(u64, Bytes)> {
        if self.must_wait() {
            return None;
        }
        let batch = self.closed.iter_mut().find(|batch| !batch.sent)?;
        batch.sent = true;
        self.in_flight += 1;
        self.sent = self.sent.max(batch.end);
        Some((batch.end, batch.bytes.clone()))
    }

    /// A failed batch waits for those on their way. So does the first batch of all: Kafka takes any sequence
    /// number from a producer that it has not seen in a partition, so that a second batch would be kept
    /// where the first was refused, and the first then came too late.
    fn must_wait(&self) -> bool {
        self.failed || (!self.is_known && self.in_flight > 0)
    }

    /// The size of the batch that [`Self::send`] would give.
    pub(crate) fn ready_bytes(&self) -> Option<usize> {
        let ready = self.closed.iter().find(|batch| !batch.sent).filter(|_| !self.must_wait());
        ready.map(|batch| batch.bytes.len())
    }

    /// Takes the answer to a batch that [`Self::send`] gave.
    pub(crate) fn settle(&mut self, number: u64, outcome: Outcome) -> Option<Settled> {
        self.in_flight -= 1;
        let place = self.closed.iter().position(|batch| batch.end == number)?;
        let settled = match outcome {
            Outcome::Acknowledged => {
                self.is_known = true;
                self.closed.remove(place)
            }
            Outcome::Failed => {
                self.failed = true;
                None
            }
        };
        if self.failed && self.in_flight == 0 {
            self.failed = false;
            for batch in &mut self.closed {
                batch.sent = false;
            }
        }
        // In order, but for a batch whose answer was lost while a later one's came.
        let first = self.closed.front().map(|batch| batch.end - batch.due_us.len() as u64);
        let open = self.open.as_ref().map_or(0, |open| open.due_us.len() as u64);
        self.acknowledged = first.unwrap_or(self.next - open);
        settled.map(|batch| Settled { due_us: batch.due_us, value_bytes: batch.value_bytes })
    }

    /// Whether a batch has failed and others are still on their way.
    pub(crate) fn is_waiting_to_repeat(&self) -> bool {
        self.failed
    }

    /// The transaction has ended, with nothing under way. The next batch is the first of a new epoch; what was
    /// aborted gives its numbers back.
    pub(crate) fn end_transaction(&mut self, committed: bool) {
        if !committed {
            self.next = self.transaction;
            self.acknowledged = self.transaction;
        }
        self.transaction = self.next;
        self.wire_next = 0;
    }

    /// Stamp sequences that are acknowledged, and that were ever sent: see [`crate::verify::Written`].
    /// `transactional`: what was not committed counts as not acknowledged.
    pub(crate) fn written(&self, transactional: bool) -> (u64, u64) {
        (if transactional { self.transaction } else { self.acknowledged }, self.sent)
    }

    /// Records that are made and not acknowledged.
    pub(crate) fn unsettled(&self) -> u64 {
        let closed: usize = self.closed.iter().map(|batch| batch.due_us.len()).sum();
        (closed + self.open.as_ref().map_or(0, |open| open.due_us.len())) as u64
    }
}

#[cfg(test)]
mod tests {
    use sluice_wire::batch::BatchView;

    use super::*;

    const IDENTITY: Identity = Identity { id: 5, epoch: 1, transactional: false };

    fn lane(batches: u64) -> Lane {
        let mut lane = Lane::new();
        for batch in 0..batches {
            for record in 0..2 {
                let new = NewRecord { value: Some(b"abc"), ..NewRecord::default() };
                lane.push(IDENTITY, Compression::None, &new, 10 * batch + record);
            }
            lane.close();
        }
        lane
    }

    fn sequence(bytes: Bytes) -> i32 {
        BatchView::new(bytes).expect("a batch").base_sequence()
    }

    fn send(lane: &mut Lane) -> Vec<(u64, i32)> {
        std::iter::from_fn(|| lane.send())
            .map(|(number, bytes)| (number, sequence(bytes)))
            .collect()
    }

    /// A lane whose producer the server knows, with so many batches after the first.
    fn known_lane(batches: u64) -> Lane {
        let mut lane = lane(batches + 1);
        assert_eq!(send(&mut lane), [(2, 0)]);
        lane.settle(2, Outcome::Acknowledged);
        lane
    }

    #[test]
    fn the_first_batch_goes_alone_until_the_server_has_it() {
        let mut lane = lane(3);
        assert_eq!(send(&mut lane), [(2, 0)]);
        assert_eq!(lane.ready_bytes(), None);
        lane.settle(2, Outcome::Failed);
        assert_eq!(send(&mut lane), [(2, 0)]);
        lane.settle(2, Outcome::Acknowledged);
        assert_eq!(send(&mut lane), [(4, 2), (6, 4)]);
    }

    #[test]
    fn batches_go_in_order_and_are_settled() {
        let mut lane = lane(3);
        assert_eq!(send(&mut lane), [(2, 0)]);
        assert_eq!(lane.written(false), (0, 2));
        let settled = lane.settle(2, Outcome::Acknowledged).expect("settled");
        assert_eq!(settled, Settled { due_us: vec![0, 1], value_bytes: 6 });
        assert_eq!(send(&mut lane), [(4, 2), (6, 4)]);
        assert_eq!(lane.written(false), (2, 6));
        lane.settle(4, Outcome::Acknowledged);
        lane.settle(6, Outcome::Acknowledged);
        assert_eq!(lane.unsettled(), 0);
        assert_eq!(lane.written(false), (6, 6));
    }

    #[test]
    fn after_a_failure_all_are_sent_again_in_order_when_all_have_come_back() {
        let mut lane = known_lane(3);
        assert_eq!(send(&mut lane).len(), 3);
        assert_eq!(lane.settle(4, Outcome::Failed), None);
        assert!(lane.is_waiting_to_repeat() && send(&mut lane).is_empty());
        // The second was kept all the same; the third was not.
        assert!(lane.settle(6, Outcome::Acknowledged).is_some());
        assert_eq!(lane.written(false), (2, 8));
        assert_eq!(lane.settle(8, Outcome::Failed), None);
        assert_eq!(send(&mut lane), [(4, 2), (8, 6)]);
        lane.settle(4, Outcome::Acknowledged);
        assert_eq!(lane.written(false), (6, 8));
        lane.settle(8, Outcome::Acknowledged);
        assert_eq!(lane.written(false), (8, 8));
    }

    #[test]
    fn an_open_batch_is_neither_sent_nor_acknowledged() {
        let mut lane = lane(1);
        let new = NewRecord { value: Some(b"abc"), ..NewRecord::default() };
        lane.push(IDENTITY, Compression::None, &new, 99);
        assert_eq!(lane.open_since_us(), Some(99));
        assert_eq!(send(&mut lane), [(2, 0)]);
        lane.settle(2, Outcome::Acknowledged);
        assert_eq!((lane.written(false), lane.unsettled()), ((2, 2), 1));
    }

    #[test]
    fn an_aborted_transaction_gives_its_numbers_back() {
        let mut lane = lane(1);
        send(&mut lane);
        lane.settle(2, Outcome::Acknowledged);
        assert_eq!(lane.written(true), (0, 2));
        lane.end_transaction(false);
        assert_eq!((lane.next(), lane.written(true)), (0, (0, 2)));
        let new = NewRecord { value: Some(b"abc"), ..NewRecord::default() };
        lane.push(IDENTITY, Compression::None, &new, 0);
        lane.close();
        assert_eq!(send(&mut lane), [(1, 0)]);
        lane.settle(1, Outcome::Acknowledged);
        lane.end_transaction(true);
        assert_eq!((lane.next(), lane.written(true)), (1, (1, 2)));
    }
}
