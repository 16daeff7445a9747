//! As equal as can be, first; as little moved as possible, second. With the same subscriptions for
//! all, no two members differ by more than one partition, and a member loses only what is over its
//! share. With different ones see [`balance`](super::balance).

use std::collections::HashSet;

use sluice_model::TopicId;

use super::{Spec, balance};
use crate::group::partitions::Partitions;

pub(super) fn assign(spec: &Spec<'_>) -> Vec<Partitions> {
    if spec.is_homogeneous() { assign_equally(spec) } else { balance::assign(spec) }
}

fn assign_equally(spec: &Spec<'_>) -> Vec<Partitions> {
    let Some(first) = spec.members.first() else { return Vec::new() };
    let total: usize =
        first.topics.iter().map(|t| usize::try_from(spec.partitions_of(*t)).unwrap_or(0)).sum();
    let (least, mut extra) = (total / spec.members.len(), total % spec.members.len());
    let mut taken: HashSet<(TopicId, i32)> = HashSet::with_capacity(total);
    let mut assigned = Vec::with_capacity(spec.members.len());
    // Who has one more already keeps it, as long as there are such shares; so a member that comes or
    // goes moves no more than its own share.
    for member in &spec.members {
        let mut share = least;
        let mut kept = Partitions::default();
        let mut count = 0;
        let held = member.before.iter().filter(|(topic, partition)| {
            member.subscribes(*topic) && (0..spec.partitions_of(*topic)).contains(partition)
        });
        for (topic, partition) in held {
            if count == share && share == least && extra > 0 {
                share += 1;
                extra -= 1;
            }
            if count < share && taken.insert((topic, partition)) {
                kept.insert(topic, partition);
                count += 1;
            }
        }
        assigned.push(kept);
    }
    let mut left = first.topics.iter().flat_map(|topic| {
        (0..spec.partitions_of(*topic)).map(move |partition| (*topic, partition))
    });
    for share in [least, least + 1] {
        for kept in &mut assigned {
            let mut count = kept.len();
            while count < share {
                if share > least {
                    if extra == 0 {
                        break;
                    }
                    extra -= 1;
                }
                let Some((topic, partition)) = left.find(|partition| !taken.contains(partition))
                else {
                    return assigned;
                };
                kept.insert(topic, partition);
                count += 1;
            }
        }
    }
    assigned
}
