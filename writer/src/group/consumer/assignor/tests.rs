//! What both assignors promise, for any group; and what only one does, by example.

use proptest::prelude::*;

use super::*;

fn topic(n: u8) -> TopicId {
    TopicId([n; 16])
}

/// Members by number, with their topics; and what they had.
#[derive(Debug)]
struct Case {
    ids: Vec<String>,
    topics: Vec<Rc<[TopicId]>>,
    before: Vec<Partitions>,
    partitions: BTreeMap<TopicId, i32>,
}

impl Case {
    fn new(topics: &[(u8, i32)], members: &[&[u8]]) -> Self {
        Self {
            ids: (0..members.len()).map(|n| format!("m{n:03}")).collect(),
            topics: members.iter().map(|list| list.iter().map(|n| topic(*n)).collect()).collect(),
            before: vec![Partitions::default(); members.len()],
            partitions: topics.iter().map(|(n, count)| (topic(*n), *count)).collect(),
        }
    }

    fn assign(&self, assignor: Assignor) -> Vec<Partitions> {
        let members = self.ids.iter().zip(&self.topics).zip(&self.before);
        let members = members.map(|((id, topics), before)| MemberSpec {
            id,
            instance: None,
            topics: Rc::clone(topics),
            before,
        });
        let spec = Spec { members: members.collect(), partitions: self.partitions.clone() };
        assignor.assign(&spec)
    }

    /// Every partition of a subscribed topic goes to exactly one of its subscribers.
    fn check(&self, assigned: &[Partitions]) {
        assert_eq!(assigned.len(), self.ids.len());
        let mut owners: BTreeMap<(TopicId, i32), usize> = BTreeMap::new();
        for (member, partitions) in assigned.iter().enumerate() {
            for (topic, partition) in partitions.iter() {
                assert!(self.topics[member].contains(&topic), "{member} does not subscribe");
                assert!((0..self.partitions[&topic]).contains(&partition), "no such partition");
                assert_eq!(owners.insert((topic, partition), member), None, "two owners");
            }
        }
        let subscribed: std::collections::BTreeSet<_> =
            self.topics.iter().flat_map(|list| list.iter().copied()).collect();
        let all: usize = subscribed.iter().map(|t| self.partitions[t] as usize).sum();
        assert_eq!(owners.len(), all, "partitions without an owner");
    }

    fn moved(&self, assigned: &[Partitions]) -> usize {
        let pairs = self.before.iter().zip(assigned);
        pairs.map(|(b, a)| b.iter().filter(|(t, p)| !a.contains(*t, *p)).count()).sum()
    }
}

fn spread(assigned: &[Partitions]) -> (usize, usize) {
    let counts = assigned.iter().map(Partitions::len);
    (counts.clone().min().unwrap(), counts.max().unwrap())
}

fn cases() -> impl Strategy<Value = (Case, Vec<Vec<u8>>)> {
    let topics = prop::collection::vec(0..20_i32, 1..6);
    topics.prop_flat_map(|counts| {
        let numbers: Vec<u8> = (0..counts.len() as u8).collect();
        let list = prop::sample::subsequence(numbers.clone(), 0..=numbers.len());
        let lists = prop::collection::vec(list, 1..9);
        (lists.clone(), lists).prop_map(move |(first, second)| {
            let topics: Vec<(u8, i32)> =
                counts.iter().enumerate().map(|(n, count)| (n as u8, *count)).collect();
            let members: Vec<&[u8]> = first.iter().map(Vec::as_slice).collect();
            (Case::new(&topics, &members), second)
        })
    })
}

proptest! {
    /// Assigned once, and again when subscriptions and the number of members have changed.
    #[test]
    fn every_partition_goes_to_one_subscriber((mut case, next) in cases(), range in any::<bool>()) {
        let assignor = if range { Assignor::Range } else { Assignor::Uniform };
        let first = case.assign(assignor);
        case.check(&first);
        case.before = first;
        case.before.resize(next.len(), Partitions::default());
        case.ids = (0..next.len()).map(|n| format!("m{n:03}")).collect();
        case.topics =
            next.iter().map(|list| list.iter().map(|n| topic(*n)).collect()).collect();
        let second = case.assign(assignor);
        case.check(&second);
        case.before = second.clone();
        let third = case.assign(assignor);
        if case.topics.iter().all(|list| *list == case.topics[0]) {
            prop_assert_eq!(third, second, "an assignment that is even stays");
        }
    }

    /// Members come and go: nobody differs by more than one, and only what has to moves.
    #[test]
    fn uniform_is_even_and_sticky(
        counts in prop::collection::vec(0..40_i32, 1..4),
        members in 1..12_usize,
        then in 1..12_usize,
    ) {
        let topics: Vec<(u8, i32)> =
            counts.iter().enumerate().map(|(n, count)| (n as u8, *count)).collect();
        let list: Vec<u8> = topics.iter().map(|(n, _)| *n).collect();
        let first = Case::new(&topics, &vec![&list[..]; members]).assign(Assignor::Uniform);
        let mut case = Case::new(&topics, &vec![&list[..]; then]);
        for (before, had) in case.before.iter_mut().zip(&first) {
            *before = had.clone();
        }
        let assigned = case.assign(Assignor::Uniform);
        case.check(&assigned);
        let (least, most) = spread(&assigned);
        prop_assert!(most - least <= 1, "{least} to {most}");
        // Who stays loses only what the newcomers get.
        let newcomers: usize = assigned.iter().skip(members).map(Partitions::len).sum();
        prop_assert_eq!(case.moved(&assigned), newcomers);
    }
}

#[test]
fn range_gives_partitions_of_one_number_to_one_member() {
    let assigned = Case::new(&[(1, 3), (2, 3)], &[&[1, 2], &[1, 2]]).assign(Assignor::Range);
    let all: Vec<Vec<_>> = assigned.iter().map(|a| a.iter().collect()).collect();
    let (a, b) = (topic(1), topic(2));
    assert_eq!(all, [vec![(a, 0), (a, 1), (b, 0), (b, 1)], vec![(a, 2), (b, 2)]]);
}

#[test]
fn range_puts_instances_first_so_that_new_member_ids_change_nothing() {
    let before = Partitions::default();
    let topics: Rc<[TopicId]> = [topic(1)].into();
    let member =
        |id, instance| MemberSpec { id, instance, topics: Rc::clone(&topics), before: &before };
    let partitions: BTreeMap<_, _> = [(topic(1), 3)].into();
    let assign =
        |members| Assignor::Range.assign(&Spec { members, partitions: partitions.clone() });
    let first = assign(vec![member("a", Some("i0")), member("b", None), member("c", Some("i1"))]);
    let again = assign(vec![member("x", None), member("y", Some("i1")), member("z", Some("i0"))]);
    assert_eq!((&first[0], &first[1], &first[2]), (&again[2], &again[0], &again[1]));
}

#[test]
fn uniform_evens_out_what_different_subscriptions_allow() {
    // The first two share a topic with nobody's other; the third has one of its own.
    let case = Case::new(&[(1, 6), (2, 2)], &[&[1], &[1, 2], &[2]]);
    let assigned = case.assign(Assignor::Uniform);
    case.check(&assigned);
    assert_eq!(assigned.iter().map(Partitions::len).collect::<Vec<_>>(), [3, 3, 2]);
}

#[test]
fn names_are_those_that_clients_ask_for() {
    assert_eq!(Assignor::from_name("uniform"), Some(Assignor::Uniform));
    assert_eq!(Assignor::from_name("range"), Some(Assignor::Range));
    assert_eq!(Assignor::from_name("cooperative-sticky"), None);
    for name in SUPPORTED.split(", ") {
        assert!(Assignor::from_name(name).is_some());
    }
}
