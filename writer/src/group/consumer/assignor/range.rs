//! Each topic's partitions in ranges, one a subscriber: the first members of an order that survives
//! restarts (instance ids, then member ids) get one more where it does not come out even. Topics with
//! equal numbers of partitions and the same subscribers are divided alike, which is what joins need.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use sluice_model::TopicId;

use super::{MemberSpec, Spec};
use crate::group::partitions::Partitions;

/// How a topic is divided.
struct Division {
    partitions: i32,
    subscribers: i32,
    /// How many members had their range, and where the next begins.
    served: i32,
    next: i32,
}

impl Division {
    fn range(&mut self) -> std::ops::Range<i32> {
        let extra = i32::from(self.served < self.partitions % self.subscribers);
        let start = self.next;
        self.served += 1;
        self.next += self.partitions / self.subscribers + extra;
        start..self.next
    }
}

pub(super) fn assign(spec: &Spec<'_>) -> Vec<Partitions> {
    let mut topics: BTreeMap<TopicId, Division> = BTreeMap::new();
    for topic in spec.members.iter().flat_map(|member| member.topics.iter()) {
        let partitions = spec.partitions_of(*topic);
        let new = || Division { partitions, subscribers: 0, served: 0, next: 0 };
        topics.entry(*topic).or_insert_with(new).subscribers += 1;
    }
    let mut order: Vec<usize> = (0..spec.members.len()).collect();
    order.sort_by(|a, b| precedence(&spec.members[*a], &spec.members[*b]));
    let mut assigned = vec![Partitions::default(); spec.members.len()];
    for index in order {
        for topic in spec.members[index].topics.iter() {
            let Some(division) = topics.get_mut(topic) else { continue };
            for partition in division.range() {
                assigned[index].insert(*topic, partition);
            }
        }
    }
    assigned
}

/// Static members first, by instance id.
fn precedence(a: &MemberSpec<'_>, b: &MemberSpec<'_>) -> Ordering {
    match (a.instance, b.instance) {
        (Some(a), Some(b)) => a.cmp(b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.id.cmp(b.id),
    }
}
