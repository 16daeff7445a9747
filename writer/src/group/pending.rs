//! The offsets of one group whose transactions are open. Changed only by durable records.

use std::collections::BTreeMap;

use sluice_model::TopicId;

use super::record::offset::Committed;
use super::record::pending::{PendingOffset, TransactionEnd};

type Partitions = BTreeMap<(TopicId, i32), PendingOffset>;

/// By producer, then topic and partition. No producer without an offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    by_producer: BTreeMap<i64, Partitions>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_producer.values().map(BTreeMap::len).sum()
    }

    /// Whether an offset of the partition waits for its transaction.
    pub(crate) fn holds(&self, topic: TopicId, partition: i32) -> bool {
        self.by_producer.values().any(|offsets| offsets.contains_key(&(topic, partition)))
    }

    /// The newest epoch under which the producer has offsets here.
    pub(crate) fn epoch_of(&self, producer_id: i64) -> Option<i16> {
        let offsets = self.by_producer.get(&producer_id)?;
        offsets.values().map(|offset| offset.producer_epoch).max()
    }

    pub(crate) fn set(
        &mut self,
        producer_id: i64,
        topic: TopicId,
        partition: i32,
        offset: PendingOffset,
    ) {
        self.by_producer.entry(producer_id).or_default().insert((topic, partition), offset);
    }

    /// Forgets one producer's offset of a partition.
    pub(crate) fn forget(&mut self, producer_id: i64, topic: TopicId, partition: i32) {
        self.retain(|producer, at, _| producer != producer_id || at != (topic, partition));
    }

    /// An offset of that order was committed: what has waited for the partition for longer does not count.
    pub(crate) fn supersede(&mut self, topic: TopicId, partition: i32, order: u64) {
        for offsets in self.by_producer.values_mut() {
            if let Some(offset) = offsets.get_mut(&(topic, partition)) {
                offset.superseded |= offset.order < order;
            }
        }
    }

    /// Ends the producer's transaction. Gives the offsets that are committed by it, each with its order.
    pub(crate) fn end(
        &mut self,
        producer_id: i64,
        end: TransactionEnd,
    ) -> Vec<((TopicId, i32), Committed, u64)> {
        let mut committed = Vec::new();
        self.retain(|producer, at, pending| {
            // A marker that comes late ends no newer transaction.
            if producer != producer_id || pending.producer_epoch > end.producer_epoch {
                return true;
            }
            if end.commit && !pending.superseded {
                committed.push((at, pending.offset.clone(), pending.order));
            }
            false
        });
        committed
    }

    pub(crate) fn remove(&mut self, topic: TopicId, partition: i32) {
        self.retain(|_, at, _| at != (topic, partition));
    }

    pub(crate) fn remove_topic(&mut self, topic: TopicId) {
        self.retain(|_, (held, _), _| held != topic);
    }

    /// By producer, topic and partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, TopicId, i32, &PendingOffset)> {
        self.by_producer.iter().flat_map(|(producer, offsets)| {
            offsets
                .iter()
                .map(|((topic, partition), offset)| (*producer, *topic, *partition, offset))
        })
    }

    fn retain(&mut self, mut keep: impl FnMut(i64, (TopicId, i32), &PendingOffset) -> bool) {
        self.by_producer.retain(|producer, offsets| {
            offsets.retain(|at, offset| keep(*producer, *at, offset));
            !offsets.is_empty()
        });
    }
}
