//! The transactions of one stream: which are open, and how those in the tail ended.
//!
//! Always: `open` and `by_producer` say the same; `ended` is in order of the markers, which is the order in
//! which they ended. What ended stays until the tail lets go of its marker: a manifest describes the
//! stream as of an earlier offset, where it was open still.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use sluice_format::AbortedTransaction;

/// A transaction that has no marker yet, in the log as of some offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecided {
    pub(super) first_offset: i64,
    /// The producer epoch under which it is written.
    pub(super) producer_epoch: i16,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    producer_id: i64,
    producer_epoch: i16,
    first_offset: i64,
    marker_offset: i64,
    aborted: bool,
    last_stable_offset: i64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Transactions {
    /// First offset to producer.
    open: BTreeMap<i64, i64>,
    by_producer: HashMap<i64, Undecided>,
    ended: VecDeque<Ended>,
}

impl Transactions {
    /// The first offset of the producer's open transaction.
    pub(super) fn open_since(&self, producer_id: i64) -> Option<i64> {
        self.by_producer.get(&producer_id).map(|open| open.first_offset)
    }

    /// A producer writes at `offset`: if it has no open transaction, one begins.
    pub(super) fn begin(&mut self, producer_id: i64, producer_epoch: i16, offset: i64) {
        self.by_producer.entry(producer_id).or_insert_with(|| {
            self.open.insert(offset, producer_id);
            Undecided { first_offset: offset, producer_epoch }
        });
    }

    /// A marker lies at `marker_offset`. Without an open transaction it ends nothing.
    pub(super) fn end(&mut self, producer_id: i64, marker_offset: i64, aborted: bool) {
        let Some(open) = self.by_producer.remove(&producer_id) else { return };
        let Undecided { first_offset, producer_epoch } = open;
        self.open.remove(&first_offset);
        let next_open = self.open.keys().next().copied();
        let last_stable_offset = next_open.unwrap_or(marker_offset + 1);
        self.ended.push_back(Ended {
            producer_id,
            producer_epoch,
            first_offset,
            marker_offset,
            aborted,
            last_stable_offset,
        });
    }

    /// Those that were open in the log up to `end`, and their producers.
    fn open_at(&self, end: i64) -> impl Iterator<Item = (i64, Undecided)> + '_ {
        let open = self.open.range(..end);
        let open = open.filter_map(|(_, producer)| {
            Some((*producer, self.by_producer.get(producer).copied()?))
        });
        let later = self.ended.iter().rev().take_while(move |ended| ended.marker_offset >= end);
        let undecided = later.filter(move |ended| ended.first_offset < end);
        open.chain(undecided.map(|ended| {
            let Ended { producer_id, producer_epoch, first_offset, .. } = *ended;
            (producer_id, Undecided { first_offset, producer_epoch })
        }))
    }

    /// The first offset of the oldest transaction that is undecided in the log up to `end`.
    pub(super) fn first_unstable(&self, end: i64) -> Option<i64> {
        self.open_at(end).map(|(_, open)| open.first_offset).min()
    }

    /// Producers with a transaction that is undecided in the log up to `end`.
    pub(super) fn undecided_at(&self, end: i64) -> BTreeMap<i64, Undecided> {
        // One a producer: the next begins after the marker of the one before.
        self.open_at(end).collect()
    }

    fn aborted_from(&self, offset: i64) -> impl Iterator<Item = AbortedTransaction> + '_ {
        let first = self.ended.partition_point(|ended| ended.marker_offset < offset);
        let aborted = self.ended.range(first..).filter(|ended| ended.aborted);
        aborted.map(|ended| AbortedTransaction {
            producer_id: ended.producer_id,
            first_offset: ended.first_offset,
            last_offset: ended.marker_offset,
            last_stable_offset: ended.last_stable_offset,
        })
    }

    /// Transactions whose abort marker lies in `range`, by that.
    pub(super) fn aborted(&self, range: &Range<i64>) -> Vec<AbortedTransaction> {
        let from = self.aborted_from(range.start);
        from.take_while(|aborted| aborted.last_offset < range.end).collect()
    }

    /// Transactions that were aborted and may have records in `range`, by their markers.
    pub(super) fn aborted_over(&self, range: &Range<i64>) -> Vec<AbortedTransaction> {
        let mut over = Vec::new();
        for aborted in self.aborted_from(range.start) {
            if aborted.first_offset < range.end {
                over.push(aborted);
            }
            // Whatever ends later has begun behind the range.
            if aborted.last_stable_offset >= range.end {
                break;
            }
        }
        over
    }

    /// Forgets those whose marker lies before `offset`: they are in the bucket.
    pub(super) fn forget_ended_before(&mut self, offset: i64) {
        while self.ended.front().is_some_and(|ended| ended.marker_offset < offset) {
            self.ended.pop_front();
        }
        if self.ended.len() < self.ended.capacity() / 4 {
            self.ended.shrink_to(self.ended.len().max(64) * 2);
        }
    }
}
