//! What a stream knows of one idempotent producer.
//!
//! A producer's state is kept by epoch, as what was appended last may still be lost: a manifest describes
//! the stream up to what is durable, where an older epoch may have been the last.

use std::collections::VecDeque;

use sluice_format::state::{ProducerBatch, ProducerSnapshot};

use super::header::BatchHeader;

/// How many of a producer's durable batches are kept: as many as a client may have in flight.
pub(super) const BATCHES_KEPT: usize = 5;

/// What a producer wrote under one epoch.
#[derive(Clone, Debug)]
pub(super) struct Era {
    pub(super) epoch: i16,
    /// The offset of its first batch or marker.
    since: i64,
    /// The last batches, oldest first. None if only a marker was written.
    batches: VecDeque<ProducerBatch>,
}

impl Era {
    /// The sequence of the last record.
    pub(super) fn last_sequence(&self) -> Option<i32> {
        self.batches.back().map(|batch| batch.last_sequence)
    }

    /// The batch with the same sequences.
    pub(super) fn same(&self, batch: &BatchHeader) -> Option<&ProducerBatch> {
        self.batches.iter().find(|known| {
            known.first_sequence == batch.base_sequence
                && known.last_sequence == batch.last_sequence()
        })
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Producer {
    /// When it last wrote, ms.
    pub(super) last_ms: i64,
    /// The timestamp of what it last wrote, ms.
    pub(super) last_timestamp: i64,
    /// Of the newest coordinator that has written a marker for it; -1 for none. Not taken back if that marker
    /// is lost: the coordinator was there.
    pub(super) coordinator_epoch: i32,
    pub(super) era: Era,
    /// The one before, until something of `era` is durable, and so on.
    earlier: Vec<Era>,
}

impl Producer {
    /// One that writes at `offset` for the first time.
    pub(super) fn new(epoch: i16, offset: i64) -> Self {
        Self {
            last_ms: 0,
            last_timestamp: -1,
            coordinator_epoch: -1,
            era: Era { epoch, since: offset, batches: VecDeque::new() },
            earlier: Vec::new(),
        }
    }

    pub(super) fn recovered(snapshot: &ProducerSnapshot) -> Self {
        let last = snapshot.batches.last();
        Self {
            last_ms: snapshot.last_ms,
            last_timestamp: last.map_or(snapshot.last_ms, |batch| batch.timestamp_ms),
            coordinator_epoch: snapshot.coordinator_epoch,
            era: Era {
                epoch: snapshot.epoch,
                since: i64::MIN,
                batches: snapshot.batches.iter().copied().collect(),
            },
            earlier: Vec::new(),
        }
    }

    /// It writes at `offset` under `epoch`.
    pub(super) fn writes(&mut self, epoch: i16, offset: i64, durable: i64) {
        if self.era.epoch != epoch {
            let next = Era { epoch, since: offset, batches: VecDeque::new() };
            self.earlier.push(std::mem::replace(&mut self.era, next));
        }
        if let Some(settled) = self.earlier.iter().rposition(|era| era.since < durable) {
            self.earlier.drain(..settled);
            if self.era.since < durable {
                self.earlier.clear();
            }
        }
        if self.earlier.is_empty() && self.earlier.capacity() > 0 {
            self.earlier = Vec::new();
        }
    }

    /// Notes a batch of the current epoch.
    pub(super) fn push(&mut self, batch: ProducerBatch, durable: i64) {
        let batches = &mut self.era.batches;
        if batches.is_empty() {
            batches.reserve_exact(1);
        }
        batches.push_back(batch);
        // What is not yet durable does not count: were it to push out durable batches, a crash that
        // loses it would leave the producer unknown.
        let settled = batches.iter().filter(|known| known.base_offset < durable).count();
        for _ in BATCHES_KEPT..settled {
            batches.pop_front();
        }
    }

    /// As of the log up to `end`; none if it had not written, or if what it was then is forgotten, as newer
    /// epochs are durable. Knows of no transaction.
    pub(super) fn snapshot(&self, id: i64, end: i64) -> Option<ProducerSnapshot> {
        let mut eras = std::iter::once(&self.era).chain(self.earlier.iter().rev());
        let era = eras.find(|era| era.since < end)?;
        let before = era.batches.iter().filter(|batch| batch.base_offset < end);
        let skip = before.clone().count().saturating_sub(BATCHES_KEPT);
        Some(ProducerSnapshot {
            id,
            epoch: era.epoch,
            last_ms: self.last_ms,
            coordinator_epoch: self.coordinator_epoch,
            open_since: None,
            batches: before.skip(skip).copied().collect(),
        })
    }

    /// As of a time when it wrote under `epoch`, of which nothing else is known any more: its batches are no
    /// longer repeated by anyone, as a newer epoch is durable.
    pub(super) fn settled_snapshot(&self, id: i64, epoch: i16) -> ProducerSnapshot {
        ProducerSnapshot {
            id,
            epoch,
            last_ms: self.last_ms,
            coordinator_epoch: self.coordinator_epoch,
            open_since: None,
            batches: Vec::new(),
        }
    }
}
