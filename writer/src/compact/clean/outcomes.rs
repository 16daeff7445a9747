//! What became of transactions: found by walking over the batches up to where all are decided.

use std::collections::{BTreeMap, HashMap};

use sluice_wire::batch::BatchView;

use super::MAX_INFLATED_BYTES;

/// More than this many transactions at once are not looked at: the cleaning ends before them.
const MOST: usize = 1 << 18;

/// A transaction's end as its marker says (KIP-98: key is version i16, type i16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Abort,
    Commit,
    /// One that we do not know.
    Other,
}

/// Reads a control batch's marker; none if it was emptied.
pub(super) fn marker(batch: &BatchView) -> Option<Marker> {
    let record = batch.records(MAX_INFLATED_BYTES).ok()?.next()?.ok()?;
    let kind = record.key.as_deref().and_then(|key| key.get(2..4));
    Some(match kind {
        Some([0, 0]) => Marker::Abort,
        Some([0, 1]) => Marker::Commit,
        _ => Marker::Other,
    })
}

/// Transactions between two offsets.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// Producer to the first offset of its open transaction.
    open: HashMap<i64, i64>,
    /// (producer, offset of the marker) to the first offset of an aborted transaction.
    aborted: BTreeMap<(i64, i64), i64>,
    seen_to: i64,
}

impl Outcomes {
    /// Takes the next batch in order of offsets. False if no more can be taken.
    pub(super) fn see(&mut self, batch: &BatchView) -> bool {
        let attributes = batch.attributes();
        let producer = batch.producer_id();
        if attributes.is_control() {
            if let Some(first) = self.open.remove(&producer)
                && marker(batch) == Some(Marker::Abort)
            {
                self.aborted.insert((producer, batch.last_offset()), first);
            }
        } else if attributes.is_transactional() {
            self.open.entry(producer).or_insert_with(|| batch.base_offset());
        }
        self.seen_to = batch.last_offset().saturating_add(1);
        self.open.len() + self.aborted.len() < MOST
    }

    /// There is no more before `offset`.
    pub(super) fn end(&mut self, offset: i64) {
        self.seen_to = offset;
    }

    /// Every transaction with data below is decided.
    pub(super) fn settled_to(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.seen_to)
    }

    /// Whether the producer's transaction that has data at `offset` was aborted.
    pub(super) fn is_aborted(&self, producer: i64, offset: i64) -> bool {
        let mut ends = self.aborted.range((producer, offset)..);
        ends.next().is_some_and(|((of, _), first)| *of == producer && *first <= offset)
    }
}
