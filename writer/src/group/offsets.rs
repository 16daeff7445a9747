//! The offsets of one group: what is committed, and what waits for a transaction to end. Changed only by
//! durable records.

use std::collections::BTreeMap;

use sluice_model::TopicId;

use super::machine::ExpiryBase;
use super::pending::Pending;
use super::record::offset::Committed;
use super::record::pending::{PendingOffset, TransactionEnd};

/// By topic and partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offsets {
    committed: BTreeMap<(TopicId, i32), Committed>,
    pending: Pending,
}

impl Offsets {
    /// Those that are committed, and those that wait.
    pub(crate) fn len(&self) -> usize {
        self.committed.len() + self.pending.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }

    pub(crate) fn pending(&self) -> &Pending {
        &self.pending
    }

    pub(crate) fn get(&self, topic: TopicId, partition: i32) -> Option<&Committed> {
        self.committed.get(&(topic, partition))
    }

    pub(crate) fn set(&mut self, topic: TopicId, partition: i32, committed: Committed) {
        self.committed.insert((topic, partition), committed);
        self.pending.supersede(topic, partition, u64::MAX);
    }

    /// An offset that waits for the end of the producer's transaction; none: it does not any more.
    pub(crate) fn set_pending(
        &mut self,
        producer_id: i64,
        topic: TopicId,
        partition: i32,
        offset: Option<PendingOffset>,
    ) {
        match offset {
            Some(offset) => self.pending.set(producer_id, topic, partition, offset),
            None => self.pending.forget(producer_id, topic, partition),
        }
    }

    /// The producer's transaction has ended.
    pub(crate) fn end_transaction(&mut self, producer_id: i64, end: TransactionEnd) {
        for ((topic, partition), committed, order) in self.pending.end(producer_id, end) {
            self.committed.insert((topic, partition), committed);
            self.pending.supersede(topic, partition, order);
        }
    }

    pub(crate) fn remove(&mut self, topic: TopicId, partition: i32) {
        self.committed.remove(&(topic, partition));
        self.pending.remove(topic, partition);
    }

    pub(crate) fn remove_topic(&mut self, topic: TopicId) {
        self.committed.retain(|(held, _), _| *held != topic);
        self.pending.remove_topic(topic);
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What is committed, sorted by topic, then partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TopicId, i32, &Committed)> {
        self.committed.iter().map(|((topic, partition), held)| (*topic, *partition, held))
    }

    /// What has outlived the retention at `wall_ms`, leaving out topics that are in use and partitions for
    /// which an offset waits.
    pub(crate) fn expired(
        &self,
        wall_ms: i64,
        retention_ms: i64,
        base: ExpiryBase,
        in_use: impl Fn(TopicId) -> bool,
    ) -> Vec<(TopicId, i32)> {
        let is_old = |held: &Committed| {
            if held.expires_ms >= 0 {
                return wall_ms >= held.expires_ms;
            }
            match base {
                ExpiryBase::EmptySince(since_ms) => {
                    wall_ms.saturating_sub(since_ms) >= retention_ms
                }
                ExpiryBase::LastCommit => wall_ms.saturating_sub(held.committed_ms) >= retention_ms,
                ExpiryBase::Never => false,
            }
        };
        if base == ExpiryBase::Never {
            return Vec::new();
        }
        let old = self.iter().filter(|(topic, partition, held)| {
            is_old(held) && !in_use(*topic) && !self.pending.holds(*topic, *partition)
        });
        old.map(|(topic, partition, _)| (topic, partition)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPIC: TopicId = TopicId([1; 16]);

    fn committed(committed_ms: i64, expires_ms: i64) -> Committed {
        Committed {
            offset: 1,
            leader_epoch: -1,
            committed_ms,
            expires_ms,
            metadata: Box::default(),
        }
    }

    fn expired(held: Committed, wall_ms: i64, base: ExpiryBase) -> bool {
        let mut offsets = Offsets::default();
        offsets.set(TOPIC, 0, held);
        !offsets.expired(wall_ms, 100, base, |_| false).is_empty()
    }

    #[test]
    fn a_live_groups_offset_ages_from_its_commit() {
        assert!(!expired(committed(50, -1), 149, ExpiryBase::LastCommit));
        assert!(expired(committed(50, -1), 150, ExpiryBase::LastCommit));
    }

    #[test]
    fn an_empty_groups_offset_ages_from_when_it_became_empty() {
        assert!(!expired(committed(0, -1), 149, ExpiryBase::EmptySince(50)));
        assert!(expired(committed(0, -1), 150, ExpiryBase::EmptySince(50)));
    }

    #[test]
    fn a_commits_own_retention_goes_before_the_groups() {
        assert!(!expired(committed(0, 1_000), 999, ExpiryBase::LastCommit));
        assert!(expired(committed(990, 1_000), 1_000, ExpiryBase::LastCommit));
        assert!(!expired(committed(0, 1_000), 5_000, ExpiryBase::Never));
    }

    #[test]
    fn topics_in_use_are_left_out() {
        let mut offsets = Offsets::default();
        offsets.set(TOPIC, 0, committed(0, -1));
        offsets.set(TopicId([2; 16]), 7, committed(0, -1));
        let old = offsets.expired(1_000, 100, ExpiryBase::LastCommit, |topic| topic == TOPIC);
        assert_eq!(old, [(TopicId([2; 16]), 7)]);
    }
}
