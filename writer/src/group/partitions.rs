//! Sets of partitions as groups keep them: what a member is to have, and what it holds and since when.

use std::collections::BTreeMap;

use sluice_model::TopicId;

/// Partitions by topic. Numbers are ascending and there once; no topic is there without any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Partitions {
    topics: BTreeMap<TopicId, Vec<i32>>,
}

impl Partitions {
    /// How many partitions, over all topics.
    pub(crate) fn len(&self) -> usize {
        self.topics.values().map(Vec::len).sum()
    }

    pub(crate) fn contains(&self, topic: TopicId, partition: i32) -> bool {
        self.of(topic).binary_search(&partition).is_ok()
    }

    /// The partitions of one topic, ascending.
    pub(crate) fn of(&self, topic: TopicId) -> &[i32] {
        self.topics.get(&topic).map_or(&[], Vec::as_slice)
    }

    /// By topic id; within a topic ascending.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = (TopicId, &[i32])> {
        self.topics.iter().map(|(topic, partitions)| (*topic, partitions.as_slice()))
    }

    /// Every partition, by topic id, then number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TopicId, i32)> {
        self.topics().flat_map(|(topic, partitions)| partitions.iter().map(move |p| (topic, *p)))
    }

    pub(crate) fn insert(&mut self, topic: TopicId, partition: i32) {
        let partitions = self.topics.entry(topic).or_default();
        match partitions.last() {
            Some(last) if *last >= partition => {
                if let Err(at) = partitions.binary_search(&partition) {
                    partitions.insert(at, partition);
                }
            }
            _ => partitions.push(partition),
        }
    }
}

impl FromIterator<(TopicId, i32)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (TopicId, i32)>>(all: I) -> Self {
        let mut topics: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in all {
            topics.entry(topic).or_default().push(partition);
        }
        for partitions in topics.values_mut() {
            partitions.sort_unstable();
            partitions.dedup();
            partitions.shrink_to_fit();
        }
        Self { topics }
    }
}

/// Partitions that a member holds, each with the epoch at which it was given to the member (KIP-1251).
/// Ordered as [`Partitions`] are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    topics: BTreeMap<TopicId, Vec<(i32, i32)>>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The epoch since which the partition is held.
    pub(crate) fn since(&self, topic: TopicId, partition: i32) -> Option<i32> {
        let held = self.topics.get(&topic)?;
        let at = held.binary_search_by_key(&partition, |(number, _)| *number).ok()?;
        Some(held[at].1)
    }

    pub(crate) fn contains(&self, topic: TopicId, partition: i32) -> bool {
        self.since(topic, partition).is_some()
    }

    /// By topic id; within a topic (partition, epoch), ascending.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = (TopicId, &[(i32, i32)])> {
        self.topics.iter().map(|(topic, held)| (*topic, held.as_slice()))
    }

    /// Every (topic, partition, epoch).
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TopicId, i32, i32)> {
        self.topics().flat_map(|(topic, held)| {
            held.iter().map(move |(number, epoch)| (topic, *number, *epoch))
        })
    }

    /// The same partitions, whatever the epochs are.
    pub(crate) fn same_partitions(&self, other: &Self) -> bool {
        self.iter().map(|(t, p, _)| (t, p)).eq(other.iter().map(|(t, p, _)| (t, p)))
    }
}

impl FromIterator<(TopicId, i32, i32)> for Held {
    /// Of a partition that is there twice the smallest epoch counts.
    fn from_iter<I: IntoIterator<Item = (TopicId, i32, i32)>>(all: I) -> Self {
        let mut topics: BTreeMap<TopicId, Vec<(i32, i32)>> = BTreeMap::new();
        for (topic, partition, epoch) in all {
            topics.entry(topic).or_default().push((partition, epoch));
        }
        for held in topics.values_mut() {
            held.sort_unstable();
            held.dedup_by_key(|(partition, _)| *partition);
            held.shrink_to_fit();
        }
        Self { topics }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TopicId = TopicId([1; 16]);
    const B: TopicId = TopicId([2; 16]);

    #[test]
    fn sets_are_sorted_and_without_repetition_however_they_are_made() {
        let made: Partitions = [(B, 3), (A, 2), (B, 1), (A, 2), (A, 0)].into_iter().collect();
        let mut grown = Partitions::default();
        for (topic, partition) in [(A, 2), (A, 0), (B, 1), (B, 3), (A, 2)] {
            grown.insert(topic, partition);
        }
        assert_eq!(made, grown);
        assert_eq!(made.iter().collect::<Vec<_>>(), [(A, 0), (A, 2), (B, 1), (B, 3)]);
        assert_eq!((made.len(), made.of(A)), (4, &[0, 2][..]));
        assert!(made.contains(A, 2) && !made.contains(A, 1) && !made.contains(TopicId([9; 16]), 0));
    }

    #[test]
    fn what_is_held_knows_since_when() {
        let held: Held = [(A, 1, 5), (A, 0, 3), (A, 1, 4)].into_iter().collect();
        assert_eq!(
            (held.since(A, 0), held.since(A, 1), held.since(A, 2)),
            (Some(3), Some(4), None)
        );
        let later: Held = [(A, 0, 9), (A, 1, 9)].into_iter().collect();
        assert!(held.same_partitions(&later) && held != later);
        assert!(!held.same_partitions(&Held::default()));
    }
}
