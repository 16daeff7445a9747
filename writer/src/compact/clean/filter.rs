//! What cleaning does to each batch, in order of offsets. Pure. Rules: Kafka's Cleaner and
//! CleanedTransactionMetadata, KIP-98 and KIP-534.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use sluice_wire::batch::{BatchView, Rewritten, emptied, rewrite};

use super::MAX_INFLATED_BYTES;
use super::keys::KeyMap;
use super::outcomes::{Marker, Outcomes, marker};

/// What is left of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Same,
    Changed(Bytes),
    Gone,
}

/// Sees a stream's batches from the log start on.
pub(super) struct Filter<'a> {
    keys: &'a KeyMap,
    outcomes: &'a Outcomes,
    /// Producer to the offset of its last record: that batch stays, empty if need be.
    last_of_producers: &'a HashMap<i64, i64>,
    /// Nothing from here on is touched.
    end: i64,
    now_ms: i64,
    horizon_ms: i64,
    /// Producers of whose current transaction data remains, or, if aborted, was seen.
    with_data: HashSet<i64>,
    removed: u64,
    /// Offsets of markers that went, or lost their record.
    gone_markers: HashSet<i64>,
}

impl<'a> Filter<'a> {
    /// Tombstones and markers that are first found removable get `horizon_ms` as the time to go.
    pub(super) fn new(
        keys: &'a KeyMap,
        outcomes: &'a Outcomes,
        last_of_producers: &'a HashMap<i64, i64>,
        end: i64,
        now_ms: i64,
        horizon_ms: i64,
    ) -> Self {
        let with_data = HashSet::new();
        Self {
            keys,
            outcomes,
            last_of_producers,
            end,
            now_ms,
            horizon_ms,
            with_data,
            removed: 0,
            gone_markers: HashSet::new(),
        }
    }

    /// How many records were left out.
    pub(super) fn removed(&self) -> u64 {
        self.removed
    }

    /// Offsets of the markers that are gone: nobody may be told to expect them.
    pub(super) fn gone_markers(&self) -> &HashSet<i64> {
        &self.gone_markers
    }

    /// What to do with the next batch.
    pub(super) fn batch(&mut self, batch: &BatchView) -> Kept {
        let next = batch.last_offset().saturating_add(1);
        if next > self.end {
            return Kept::Same;
        }
        let attributes = batch.attributes();
        let horizon_passed =
            attributes.has_delete_horizon() && batch.base_timestamp() <= self.now_ms;
        let producer = batch.producer_id();
        let (discard, ends_empty) = if attributes.is_control() {
            let no_data = match marker(batch) {
                Some(Marker::Abort | Marker::Commit) => !self.with_data.remove(&producer),
                Some(Marker::Other) => false,
                None => true,
            };
            (no_data && horizon_passed, no_data)
        } else if attributes.is_transactional() {
            let aborted = self.outcomes.is_aborted(producer, batch.base_offset());
            if batch.record_count() > 0 {
                self.with_data.insert(producer);
            }
            (aborted, false)
        } else {
            (false, false)
        };
        if discard && attributes.is_control() {
            self.gone_markers.insert(batch.last_offset());
        }
        let left = if discard {
            self.removed += u64::try_from(batch.record_count()).unwrap_or(0);
            Ok(Rewritten::Nothing)
        } else if ends_empty {
            rewrite(batch, MAX_INFLATED_BYTES, self.horizon_ms, true, |_| true)
        } else if attributes.is_control() {
            Ok(Rewritten::Same)
        } else {
            self.records(batch, horizon_passed)
        };
        match left {
            // What cannot be read is kept as it is.
            Err(_) | Ok(Rewritten::Same) => Kept::Same,
            Ok(Rewritten::Changed { batch, .. }) => Kept::Changed(batch),
            Ok(Rewritten::Nothing) if self.stays_empty(batch, next) => match batch.record_count() {
                0 => Kept::Same,
                _ => Kept::Changed(emptied(batch)),
            },
            Ok(Rewritten::Nothing) => Kept::Gone,
        }
    }

    fn records(
        &mut self,
        batch: &BatchView,
        horizon_passed: bool,
    ) -> Result<Rewritten, sluice_wire::batch::BatchError> {
        let mut removed = 0;
        let left = rewrite(batch, MAX_INFLATED_BYTES, self.horizon_ms, false, |record| {
            let keep = match &record.key {
                Some(key) => {
                    let is_last = self.keys.last(key).is_none_or(|last| record.offset >= last);
                    is_last && (record.value.is_some() || !horizon_passed)
                }
                // As Kafka: a compacted log has no place for them.
                None => false,
            };
            removed += u64::from(!keep);
            keep
        });
        if left.is_ok() {
            self.removed += removed;
        }
        left
    }

    /// A producer's last batch says which sequence number comes next; the last batch of all says to
    /// clients where the log ends.
    fn stays_empty(&self, batch: &BatchView, next: i64) -> bool {
        let last = self.last_of_producers.get(&batch.producer_id());
        next == self.end || last.is_some_and(|last| *last == batch.last_offset())
    }
}
