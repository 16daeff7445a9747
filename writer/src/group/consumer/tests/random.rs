//! Any sequence of joins, heartbeats, leaves, lost answers, expiries, changes of topics and restarts:
//! no partition is with two members, epochs never go back, and in the end everybody has their share.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::super::member::Member;
use super::*;

const IDS: [&str; 5] = ["m0", "m1", "m2", "m3", "m4"];
const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    /// Joins with the topics of these bits; the highest asks for an expression.
    Join {
        member: usize,
        topics: u8,
        range: bool,
    },
    /// Says what it has. A member that is slow keeps what it was told to give back; an answer may be
    /// lost.
    Beat {
        member: usize,
        slow: bool,
        lost: bool,
    },
    Leave {
        member: usize,
    },
    Pass {
        ms: u64,
    },
    Topic {
        topic: usize,
        partitions: i32,
    },
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..IDS.len(), 1..16_u8, any::<bool>())
            .prop_map(|(member, topics, range)| Op::Join { member, topics, range }),
        8 => (0..IDS.len(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(member, slow, lost)| Op::Beat { member, slow, lost }),
        1 => (0..IDS.len()).prop_map(|member| Op::Leave { member }),
        2 => (0..20_000_u64).prop_map(|ms| Op::Pass { ms }),
        1 => (0..NAMES.len(), 0..5_i32)
            .prop_map(|(topic, partitions)| Op::Topic { topic, partitions }),
        1 => Just(Op::Restart),
    ]
}

/// What a client believes.
#[derive(Clone, Debug, Default)]
struct Client {
    epoch: i32,
    owned: BTreeSet<(TopicId, i32)>,
}

struct World {
    rig: Rig,
    clients: HashMap<usize, Client>,
    /// Group epoch, and what it was when the group last had nobody.
    epoch: i32,
}

impl World {
    fn request(&self, member: usize, op: &Op) -> Option<ConsumerGroupHeartbeatRequest> {
        let id = IDS[member];
        Some(match op {
            Op::Join { topics, range, .. } => {
                let names = NAMES.iter().enumerate().filter(|(n, _)| topics & (1 << n) != 0);
                let names: Vec<&str> = names.map(|(_, name)| *name).collect();
                let expression = Str::from_static(if topics & 8 != 0 { "[bc]" } else { "" });
                ConsumerGroupHeartbeatRequest {
                    subscribed_topic_regex: Some(expression),
                    server_assignor: range.then(|| Str::from_static("range")),
                    ..join(id, &names)
                }
            }
            Op::Leave { .. } => quiet(id, LEAVE),
            _ => {
                let client = self.clients.get(&member)?;
                let owned: Vec<_> = client.owned.iter().copied().collect();
                keep(id, client.epoch, &owned)
            }
        })
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Join { member, .. } | Op::Beat { member, .. } | Op::Leave { member } => {
                self.talk(*member, op);
            }
            Op::Pass { ms } => self.rig.pass(*ms),
            Op::Topic { topic, partitions: 0 } => self.rig.topics.remove(TENANT, NAMES[*topic]),
            Op::Topic { topic, partitions } => {
                let id = TopicId([1 + *topic as u8; 16]);
                self.rig.topics.set(TENANT, NAMES[*topic], id, *partitions);
            }
            Op::Restart => self.rig.restart(),
        }
        self.check();
    }

    fn talk(&mut self, member: usize, op: &Op) {
        if matches!(op, Op::Join { .. }) {
            // A client that joins has given up what it had.
            self.clients.insert(member, Client::default());
        }
        let Some(request) = self.request(member, op) else { return };
        match (self.rig.beat(&request), op) {
            (_, Op::Leave { .. }) | (Err(_), _) => drop(self.clients.remove(&member)),
            (Ok(_), Op::Beat { lost: true, .. }) => {}
            (Ok(answer), _) => {
                let client = self.clients.entry(member).or_default();
                assert!(answer.member_epoch >= client.epoch, "a member's epoch went back");
                client.epoch = answer.member_epoch;
                if let Some(given) = given(&answer) {
                    let given: BTreeSet<_> = given.into_iter().collect();
                    let slow = matches!(op, Op::Beat { slow: true, .. });
                    // A slow client takes what is new, and has not yet let go of what is not its.
                    if !slow {
                        client.owned.clear();
                    }
                    client.owned.extend(given);
                }
            }
        }
    }

    fn check(&mut self) {
        let group = &self.rig.group;
        // Clients that the coordinator has not fenced believe in disjoint sets.
        let mut owners: HashMap<(TopicId, i32), usize> = HashMap::new();
        for (member, client) in &self.clients {
            let Some(known) = group.members.get(IDS[*member]) else { continue };
            if client.epoch == 0 || known.current.epoch < client.epoch {
                continue;
            }
            for partition in &client.owned {
                if known.current.held().any(|held| held == *partition) {
                    assert_eq!(owners.insert(*partition, *member), None, "two have {partition:?}");
                }
            }
        }
        let mut holders: HashMap<(TopicId, i32), u32> = HashMap::new();
        for member in group.members.values() {
            let current = &member.current;
            assert!(current.epoch <= group.assignment_epoch);
            for partition in current.held() {
                *holders.entry(partition).or_default() += 1;
            }
        }
        assert!(holders.values().all(|count| *count == 1), "{holders:?}");
        assert_eq!(holders, group.holders, "what is counted is what is held");
        assert!(group.assignment_epoch <= group.epoch);
        assert!(group.epoch >= self.epoch, "the group epoch went back");
        self.epoch = group.epoch;
        // What is stored is the machine, but for time.
        if let Stored::Modern(parts) = &self.rig.stored {
            let loaded = ConsumerGroup::load(parts);
            let facts = |group: &ConsumerGroup| {
                let members = group.members.iter();
                let members = members.map(|(id, member)| {
                    let Member { profile, current, target, .. } = (**member).clone();
                    (id.clone(), profile, current, target)
                });
                let header = (group.epoch, group.assignment_epoch, group.topics_hash);
                (header, members.collect::<Vec<_>>(), group.statics.clone(), group.holders.clone())
            };
            assert_eq!(facts(&loaded), facts(group));
        }
    }

    /// Everybody says what they have until nothing changes.
    fn converge(&mut self) {
        // Time for expressions to be matched again, and for targets.
        self.rig.now += 1_000;
        let members: Vec<usize> = self.clients.keys().copied().collect();
        for _ in 0..20 {
            let before = self.rig.parts();
            for member in &members {
                if let Some(client) = self.clients.get_mut(member)
                    && let Some(known) = self.rig.group.members.get(IDS[*member])
                {
                    client.owned.retain(|(t, p)| known.current.assigned.contains(*t, *p));
                }
                self.run(&Op::Beat { member: *member, slow: false, lost: false });
            }
            if before == self.rig.parts() {
                return;
            }
        }
        panic!("does not converge: {:#?}", self.rig.group);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_partition_is_with_two_and_everything_settles(
        ops in prop::collection::vec(op(), 1..80),
        interval_ms in prop_oneof![Just(0), Just(1_000)],
    ) {
        let rig = Rig::new();
        rig.topics.configure(|s| s.consumer.assignment_interval_ms = interval_ms);
        let mut world = World { rig, clients: HashMap::new(), epoch: 0 };
        for op in &ops {
            world.run(op);
        }
        world.converge();
        let group = &world.rig.group;
        let live = world.clients.keys().filter(|m| group.members.contains_key(IDS[**m])).count();
        // Clients that lost touch are still to expire; without them everybody is settled.
        if live == group.members.len() {
            prop_assert!(["Stable", "Empty"].contains(&group.state_name()), "{:#?}", group);
            let assigned: usize =
                group.members.values().map(|member| member.current.assigned.iter().count()).sum();
            let subscribed = NAMES.iter().filter(|name| group.is_subscribed(name));
            let all: i32 = subscribed
                .filter_map(|name| crate::group::Topics::find(&world.rig.topics, TENANT, name))
                .map(|shape| shape.partitions)
                .sum();
            prop_assert_eq!(assigned, all as usize);
        }
    }
}
