//! Who is to fetch what: Kafka's simple assignor (KIP-932). Partitions are shared out so that each has
//! equally many members, and each member equally many partitions, moving no more than that takes.

use std::collections::{BTreeMap, BTreeSet};

use sluice_model::TopicId;

use crate::group::partitions::Partitions;

/// A member as the assignor sees it.
#[derive(Clone, Debug)]
pub(super) struct Asker<'a> {
    /// The topics that it subscribes to and that exist.
    pub(super) topics: BTreeSet<TopicId>,
    /// What it has now.
    pub(super) has: &'a Partitions,
}

type Partition = (TopicId, i32);

/// What each member is to have, in the order of `members`. `counts` has the number of partitions of each
/// topic.
pub(super) fn assign(members: &[Asker<'_>], counts: &BTreeMap<TopicId, i32>) -> Vec<Partitions> {
    let mut given = vec![Vec::new(); members.len()];
    let all = |topic: &TopicId| {
        let count = counts.get(topic).copied().unwrap_or(0);
        let topic = *topic;
        (0..count).map(move |partition| (topic, partition))
    };
    let topics: BTreeSet<TopicId> =
        members.iter().flat_map(|member| member.topics.iter().copied()).collect();
    if members.iter().all(|member| member.topics == topics) {
        // All are alike: the partitions of all topics are shared out together.
        let partitions: Vec<Partition> = topics.iter().flat_map(all).collect();
        let who: Vec<usize> = (0..members.len()).collect();
        share_out(&partitions, &who, members, &mut given);
    } else {
        for topic in &topics {
            let partitions: Vec<Partition> = all(topic).collect();
            let who: Vec<usize> =
                (0..members.len()).filter(|at| members[*at].topics.contains(topic)).collect();
            share_out(&partitions, &who, members, &mut given);
        }
    }
    given.into_iter().map(|given| given.into_iter().collect()).collect()
}

/// Shares `partitions` out among the members numbered in `who`.
fn share_out(
    partitions: &[Partition],
    who: &[usize],
    members: &[Asker<'_>],
    given: &mut [Vec<Partition>],
) {
    if partitions.is_empty() || who.is_empty() {
        return;
    }
    let per_partition = who.len().div_ceil(partitions.len());
    let in_all = per_partition * partitions.len();
    // The shares differ by one at most, and are as many as there are in all.
    let upto = |at: usize| (in_all * at).div_ceil(who.len());
    let mut left: Vec<usize> = (0..who.len()).map(|at| upto(at + 1) - upto(at)).collect();
    let mut holders: BTreeMap<Partition, BTreeSet<usize>> =
        partitions.iter().map(|partition| (*partition, BTreeSet::new())).collect();
    for (at, member) in who.iter().enumerate() {
        for partition in members[*member].has.iter() {
            let Some(held) = holders.get_mut(&partition) else { continue };
            if left[at] > 0 && held.len() < per_partition {
                held.insert(at);
                left[at] -= 1;
            }
        }
    }
    let mut turn = 0;
    for held in holders.values_mut() {
        for _ in 0..who.len() {
            if held.len() >= per_partition {
                break;
            }
            let at = turn % who.len();
            turn += 1;
            if left[at] > 0 && held.insert(at) {
                left[at] -= 1;
            }
        }
    }
    for (partition, held) in holders {
        for at in held {
            given[who[at]].push(partition);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: TopicId = TopicId([1; 16]);
    const B: TopicId = TopicId([2; 16]);

    fn asker<'a>(topics: &[TopicId], has: &'a Partitions) -> Asker<'a> {
        Asker { topics: topics.iter().copied().collect(), has }
    }

    #[test]
    fn few_members_have_each_partition_once_and_many_share() {
        let none = Partitions::default();
        let counts = [(A, 4), (B, 2)].into();
        let given = assign(&[asker(&[A, B], &none), asker(&[A, B], &none)], &counts);
        assert_eq!(given.iter().map(Partitions::len).collect::<Vec<_>>(), [3, 3]);
        let three = vec![asker(&[B], &none); 3];
        let given = assign(&three, &counts);
        assert_eq!(given.iter().map(Partitions::len).collect::<Vec<_>>(), [2, 1, 1]);
    }

    #[test]
    fn a_member_has_only_what_it_asks_for() {
        let none = Partitions::default();
        let counts = [(A, 2), (B, 2)].into();
        let given = assign(&[asker(&[A], &none), asker(&[A, B], &none)], &counts);
        assert_eq!(given[0].iter().collect::<Vec<_>>(), [(A, 0)]);
        assert_eq!(given[1].iter().collect::<Vec<_>>(), [(A, 1), (B, 0), (B, 1)]);
        // A topic that is gone is nobody's.
        let had: Partitions = [(B, 0), (A, 1)].into_iter().collect();
        let given = assign(&[asker(&[A], &had)], &[(A, 2)].into());
        assert_eq!(given[0].iter().collect::<Vec<_>>(), [(A, 0), (A, 1)]);
    }

    proptest! {
        #[test]
        fn shares_are_even_and_what_need_not_move_stays(
            members in 1..12_usize,
            partitions in 1..12_i32,
            joins in 0..3_usize,
        ) {
            let none = Partitions::default();
            let counts: BTreeMap<_, _> = [(A, partitions)].into();
            let before = assign(&vec![asker(&[A], &none); members], &counts);
            let again: Vec<_> = before.iter().map(|has| asker(&[A], has)).collect();
            prop_assert_eq!(&assign(&again, &counts), &before, "nothing has changed");
            let mut more = again.clone();
            more.extend(vec![asker(&[A], &none); joins]);
            let after = assign(&more, &counts);
            let sizes: Vec<_> = after.iter().map(Partitions::len).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", sizes);
            for partition in 0..partitions {
                let held = after.iter().filter(|has| has.contains(A, partition)).count();
                prop_assert!(held >= 1, "partition {} is nobody's: {:?}", partition, after);
                let most = (members + joins).div_ceil(usize::try_from(partitions).unwrap());
                prop_assert!(held <= most);
            }
        }
    }
}
