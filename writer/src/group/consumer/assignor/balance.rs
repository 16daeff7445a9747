//! Members with different subscriptions: what cannot be divided equally is divided as equally as a
//! few rounds make it. Each member keeps what it had and still subscribes to; what is free goes to
//! the subscriber with least, scarce topics first; then single partitions move from those with most
//! to those with least among a topic's subscribers, until nothing moves or the rounds are over.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sluice_model::TopicId;

use super::Spec;
use crate::group::partitions::Partitions;

/// Overlapping subscriptions may take many rounds for little gain (Kafka stops here as well).
const MAX_ROUNDS: usize = 16;

/// The assignment being made.
struct Balance {
    /// By member: its partitions by topic.
    held: Vec<BTreeMap<TopicId, Vec<i32>>>,
    counts: Vec<usize>,
    /// By topic: the members that subscribe to it, ascending.
    subscribers: BTreeMap<TopicId, Vec<usize>>,
}

pub(super) fn assign(spec: &Spec<'_>) -> Vec<Partitions> {
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (index, member) in spec.members.iter().enumerate() {
        for topic in member.topics.iter() {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let members = spec.members.len();
    let mut balance =
        Balance { held: vec![BTreeMap::new(); members], counts: vec![0; members], subscribers };
    let taken = balance.keep(spec);
    // Topics with most partitions a subscriber first: they have the least choice.
    let mut topics: Vec<TopicId> = balance.subscribers.keys().copied().collect();
    topics.sort_by_key(|topic| {
        let subscribers = balance.subscribers[topic].len();
        let each = usize::try_from(spec.partitions_of(*topic)).unwrap_or(0) * 1_024 / subscribers;
        (usize::MAX - each, subscribers, *topic)
    });
    for topic in &topics {
        balance.hand_out(*topic, spec.partitions_of(*topic), &taken);
    }
    for _ in 0..MAX_ROUNDS {
        let moved: usize = topics.iter().map(|topic| balance.even_out(*topic)).sum();
        if moved == 0 {
            break;
        }
    }
    let all = balance.held.into_iter().map(|topics| {
        let all = topics.into_iter();
        all.flat_map(|(topic, partitions)| partitions.into_iter().map(move |p| (topic, p)))
            .collect()
    });
    all.collect()
}

impl Balance {
    /// Everyone keeps what it had; of two that had the same the first.
    fn keep(&mut self, spec: &Spec<'_>) -> HashSet<(TopicId, i32)> {
        let mut taken = HashSet::new();
        for (index, member) in spec.members.iter().enumerate() {
            for (topic, partition) in member.before.iter() {
                let exists = (0..spec.partitions_of(topic)).contains(&partition);
                if exists && member.subscribes(topic) && taken.insert((topic, partition)) {
                    self.give(index, topic, partition);
                }
            }
        }
        taken
    }

    fn give(&mut self, member: usize, topic: TopicId, partition: i32) {
        self.held[member].entry(topic).or_default().push(partition);
        self.counts[member] += 1;
    }

    /// Subscribers of a topic by how much they have.
    fn by_count(&self, topic: TopicId) -> BTreeSet<(usize, usize)> {
        self.subscribers[&topic].iter().map(|member| (self.counts[*member], *member)).collect()
    }

    fn hand_out(&mut self, topic: TopicId, partitions: i32, taken: &HashSet<(TopicId, i32)>) {
        let mut order = self.by_count(topic);
        for partition in (0..partitions).filter(|p| !taken.contains(&(topic, *p))) {
            let Some((count, member)) = order.pop_first() else { return };
            self.give(member, topic, partition);
            order.insert((count + 1, member));
        }
    }

    /// Moves the topic's partitions until none of its subscribers that has one has two more than
    /// another. Gives how many moved.
    fn even_out(&mut self, topic: TopicId) -> usize {
        let mut least = self.by_count(topic);
        let holds = |held: &[BTreeMap<TopicId, Vec<i32>>], member: usize| {
            held[member].get(&topic).is_some_and(|partitions| !partitions.is_empty())
        };
        let mut most: BTreeSet<(usize, usize)> =
            least.iter().copied().filter(|(_, member)| holds(&self.held, *member)).collect();
        let mut moved = 0;
        while let (Some((low, to)), Some((high, from))) =
            (least.first().copied(), most.last().copied())
        {
            if high < low + 2 {
                break;
            }
            let partition = self.held[from].get_mut(&topic).and_then(Vec::pop);
            let Some(partition) = partition else {
                most.remove(&(high, from));
                continue;
            };
            self.counts[from] -= 1;
            self.give(to, topic, partition);
            moved += 1;
            for (before, after, member) in [(high, high - 1, from), (low, low + 1, to)] {
                least.remove(&(before, member));
                least.insert((after, member));
                most.remove(&(before, member));
                if holds(&self.held, member) {
                    most.insert((after, member));
                }
            }
        }
        moved
    }
}
