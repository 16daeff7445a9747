//! Which volume moves where to even out what writers carry: pure.
//!
//! A volume weighs 1, and as much more as it has of the traffic and of the processors: one with the mean of all weighs
//! 1 + 1 + 1. So writers are evened out by count where there is little traffic, and by load where there is much. A
//! volume moves from a writer to another one if the two differ by a part of the mean ([`Policy::threshold`]),
//! and if the fuller one of the two is less full afterwards. Each move makes the sum of squares smaller,
//! so it comes to an end, and nothing goes back and forth.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_catalog::{NodeLoad, NodeSpec, Volume};
use sluice_model::{NodeId, VolumeId};

/// A request costs as much as so many bytes.
const REQUEST_BYTES: u64 = 4 << 10;
/// Below this many bytes a second a volume, on the mean, traffic is of no matter.
const LITTLE_BYTES: f64 = (64 << 10) as f64;
/// Below this part of the processors, on the mean, in thousandths, they are of no matter.
const LITTLE_CPU: f64 = 200.0;

/// When a difference is worth a move.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The part of what a writer carries on the mean that two must differ by.
    pub threshold: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { threshold: 0.2 }
    }
}

/// What there is to even out.
#[derive(Clone, Debug, Default)]
pub struct Situation {
    /// The writers that may give and get.
    pub writers: Vec<NodeSpec>,
    /// What they say that they carry.
    pub loads: BTreeMap<NodeId, Arc<NodeLoad>>,
    /// All volumes.
    pub volumes: Vec<Arc<Volume>>,
    /// Volumes that stay where they are: they were moved just now.
    pub resting: BTreeSet<VolumeId>,
}

/// One move, and what speaks for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Move {
    /// The volume.
    pub volume: VolumeId,
    /// Its owner.
    pub from: NodeId,
    /// Who shall have it.
    pub to: NodeId,
    /// What the two carry before, by weight.
    pub before: (f64, f64),
    /// And after.
    pub after: (f64, f64),
}

impl Move {
    /// For people.
    pub fn why(&self) -> String {
        let ((from, to), (from_after, to_after)) = (self.before, self.after);
        format!(
            "node {} carries {from:.1} and node {} {to:.1} (volumes by count, traffic and processor); {from_after:.1} and \
             {to_after:.1} are more even",
            self.from.0, self.to.0
        )
    }
}

/// The next moves, at most so many, the best first.
pub fn decide(situation: &Situation, policy: Policy, at_most: usize) -> Vec<Move> {
    let weights = weights(situation);
    // Where each volume is, or will be when what is decided is done.
    let mut carried: BTreeMap<NodeId, f64> =
        situation.writers.iter().map(|writer| (writer.id, 0.0)).collect();
    let mut movable = Vec::new();
    for volume in &situation.volumes {
        let (Some(owner), weight) = (volume.owner, weights[&volume.spec.id]) else { continue };
        let at = volume.wanted.unwrap_or(owner);
        if let Some(carried) = carried.get_mut(&at) {
            *carried += weight;
        }
        let rests = situation.resting.contains(&volume.spec.id);
        if volume.wanted.is_none() && !rests && carried.contains_key(&owner) {
            movable.push((volume, owner, weight));
        }
    }
    let mean = carried.values().sum::<f64>() / carried.len().max(1) as f64;
    let mut moves = Vec::new();
    while moves.len() < at_most {
        let best = movable.iter().enumerate().flat_map(|(at, (volume, from, weight))| {
            let reached =
                situation.writers.iter().filter(|writer| volume.spec.is_reached_by(writer));
            let carried = &carried;
            reached.filter_map(move |to| {
                let before = (carried[from], carried[&to.id]);
                let after = (before.0 - weight, before.1 + weight);
                let differ = before.0 - before.1 >= policy.threshold * mean;
                // How much less the sum of squares is, by half.
                let gain = weight * (before.0 - after.1);
                let evens = gain > 1e-9 && *from != to.id;
                (differ && evens).then_some((gain, at, to.id, before, after))
            })
        });
        let best = best.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
        let Some((_, at, to, before, after)) = best else { break };
        let (volume, from, _) = movable.swap_remove(at);
        carried.insert(from, after.0);
        carried.insert(to, after.1);
        moves.push(Move { volume: volume.spec.id, from, to, before, after });
    }
    moves
}

/// What each volume weighs.
fn weights(situation: &Situation) -> BTreeMap<VolumeId, f64> {
    let mut traffic: BTreeMap<VolumeId, f64> = BTreeMap::new();
    let mut cpu: BTreeMap<VolumeId, f64> = BTreeMap::new();
    for load in situation.loads.values() {
        let bytes = load.volumes.values().sum::<u64>();
        let requests = load.requests.saturating_mul(REQUEST_BYTES);
        for (volume, own) in &load.volumes {
            // Requests and processor time are not told by volume: each has its part of them.
            let part = match bytes {
                0 => 0.0,
                bytes => *own as f64 / bytes as f64,
            };
            traffic.insert(*volume, *own as f64 + part * requests as f64);
            cpu.insert(*volume, part * f64::from(load.cpu_permille));
        }
    }
    let count = situation.volumes.len().max(1) as f64;
    let mean_traffic = traffic.values().sum::<f64>() / count;
    let mean_cpu = cpu.values().sum::<f64>() / count;
    let busy = situation.loads.values().map(|load| f64::from(load.cpu_permille)).sum::<f64>();
    let is_busy = busy / situation.loads.len().max(1) as f64 >= LITTLE_CPU && mean_cpu > 0.0;
    let weight = |volume: &Arc<Volume>| {
        let id = volume.spec.id;
        let part = |of: &BTreeMap<_, f64>, mean: f64| of.get(&id).copied().unwrap_or(0.0) / mean;
        let mut weight = 1.0;
        if mean_traffic >= LITTLE_BYTES {
            weight += part(&traffic, mean_traffic);
        }
        if is_busy {
            weight += part(&cpu, mean_cpu);
        }
        (id, weight)
    };
    situation.volumes.iter().map(weight).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_catalog::{Roles, VolumeKind, VolumeSpec};
    use sluice_model::VolumeEpoch;

    use super::*;

    fn writer(id: i32) -> NodeSpec {
        NodeSpec {
            id: NodeId(id),
            kafka_host: "h".to_owned(),
            kafka_port: 1,
            rack: None,
            peer: None,
            roles: Roles::ALL,
        }
    }

    fn volume(id: u32, owner: i32) -> Arc<Volume> {
        let spec = VolumeSpec::new(VolumeId(id), VolumeKind::Object, "", 1);
        Arc::new(Volume { spec, owner: Some(NodeId(owner)), epoch: VolumeEpoch(1), wanted: None })
    }

    /// Writer n has `owned[n]` volumes, each with so many bytes a second.
    fn situation(owned: &[Vec<u64>]) -> Situation {
        let mut situation = Situation::default();
        for (node, rates) in (0..).zip(owned) {
            situation.writers.push(writer(node));
            let mut load = NodeLoad::default();
            for rate in rates {
                let id = situation.volumes.len() as u32;
                situation.volumes.push(volume(id, node));
                load.volumes.insert(VolumeId(id), *rate);
                load.in_bytes += rate;
            }
            situation.loads.insert(NodeId(node), Arc::new(load));
        }
        situation
    }

    fn idle(counts: &[usize]) -> Situation {
        situation(&counts.iter().map(|count| vec![0; *count]).collect::<Vec<_>>())
    }

    /// Makes the moves, with their loads, until there are none.
    fn settle(situation: &mut Situation) -> usize {
        let mut made = 0;
        loop {
            let moves = decide(situation, Policy::default(), 2);
            if moves.is_empty() {
                return made;
            }
            for one in moves {
                make(situation, &one);
                made += 1;
            }
        }
    }

    fn make(situation: &mut Situation, one: &Move) {
        let at = situation.volumes.iter().position(|v| v.spec.id == one.volume).unwrap();
        let old = Volume::clone(&situation.volumes[at]);
        assert_eq!(old.owner, Some(one.from));
        situation.volumes[at] = Arc::new(Volume { owner: Some(one.to), ..old });
        let mut from = NodeLoad::clone(&situation.loads[&one.from]);
        let mut to = NodeLoad::clone(&situation.loads[&one.to]);
        to.volumes.extend(from.volumes.remove_entry(&one.volume));
        situation.loads.insert(one.from, Arc::new(from));
        situation.loads.insert(one.to, Arc::new(to));
    }

    fn counts(situation: &Situation) -> Vec<usize> {
        let count =
            |w: &NodeSpec| situation.volumes.iter().filter(|v| v.owner == Some(w.id)).count();
        situation.writers.iter().map(count).collect()
    }

    #[test]
    fn a_writer_that_joins_gets_its_share() {
        let mut joined = idle(&[10, 10, 0]);
        settle(&mut joined);
        let counts = counts(&joined);
        assert!(counts.iter().all(|count| (6..=7).contains(count)), "{counts:?}");
        let mut many = idle(&[50, 0]);
        settle(&mut many);
        assert!(self::counts(&many)[1] >= 22);
    }

    #[test]
    fn a_small_difference_is_left_alone() {
        for counts in [[6, 5], [1, 0], [3, 2], [21, 18]] {
            assert!(decide(&idle(&counts), Policy::default(), 9).is_empty(), "{counts:?}");
        }
        assert_eq!(decide(&idle(&[11, 9]), Policy::default(), 9).len(), 1);
    }

    #[test]
    fn load_counts_where_there_is_some() {
        let mib = 1 << 20;
        let uneven = situation(&[vec![9 * mib, 9 * mib], vec![0, 0]]);
        let moves = decide(&uneven, Policy::default(), 9);
        assert_eq!((moves[0].from, moves[0].to), (NodeId(0), NodeId(1)));
        // One of the idle ones comes back for it.
        assert_eq!(moves.last().map(|last| last.after), Some((4.0, 4.0)), "{moves:?}");
        assert!(moves[0].why().contains("node 0 carries"), "{}", moves[0].why());
        // A few bytes are no load.
        assert!(decide(&situation(&[vec![9, 9], vec![0, 0]]), Policy::default(), 9).is_empty());
    }

    #[test]
    fn processors_count_where_they_are_busy() {
        let mut busy = situation(&[vec![100, 100], vec![100, 100]]);
        let load = NodeLoad { cpu_permille: 900, ..NodeLoad::clone(&busy.loads[&NodeId(0)]) };
        busy.loads.insert(NodeId(0), Arc::new(load));
        let moves = decide(&busy, Policy::default(), 9);
        assert_eq!(moves.first().map(|one| one.from), Some(NodeId(0)));
    }

    #[test]
    fn what_moves_or_rests_or_cannot_be_reached_stays() {
        let mut moving = idle(&[3, 0]);
        let wanted = Volume { wanted: Some(NodeId(1)), ..Volume::clone(&moving.volumes[0]) };
        moving.volumes[0] = Arc::new(wanted);
        assert!(decide(&moving, Policy::default(), 9).is_empty(), "one is on its way");
        let mut resting = idle(&[3, 0]);
        resting.resting = (0..3).map(VolumeId).collect();
        assert!(decide(&resting, Policy::default(), 9).is_empty());
        let mut home = idle(&[3, 0]);
        for volume in &mut home.volumes {
            let spec = VolumeSpec { home: Some(NodeId(0)), ..volume.spec.clone() };
            *volume = Arc::new(Volume { spec, ..Volume::clone(volume) });
        }
        assert!(decide(&home, Policy::default(), 9).is_empty());
    }

    proptest! {
        #[test]
        fn it_comes_to_an_end_and_keeps_to_its_bounds(counts in prop::collection::vec(0..20usize, 1..8), at_most in 0..4usize) {
            let mut situation = idle(&counts);
            let moves = decide(&situation, Policy::default(), at_most);
            prop_assert!(moves.len() <= at_most);
            let volumes: BTreeSet<_> = moves.iter().map(|one| one.volume).collect();
            prop_assert_eq!(volumes.len(), moves.len());
            for one in &moves {
                prop_assert!(one.before.0 > one.before.1 && one.from != one.to);
                prop_assert!(one.after.0.max(one.after.1) < one.before.0.max(one.before.1) + 1e-9);
            }
            let made = settle(&mut situation);
            prop_assert!(made <= counts.iter().sum());
            let after = self::counts(&situation);
            let (most, least) = (*after.iter().max().unwrap(), *after.iter().min().unwrap());
            let mean = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
            prop_assert!(most - least <= 1 || ((most - least) as f64) < 0.2 * mean);
        }

        #[test]
        fn load_comes_to_an_end_too(rates in prop::collection::vec(prop::collection::vec(0..100u64, 0..10), 1..6)) {
            let scaled: Vec<Vec<u64>> = rates.iter().map(|r| r.iter().map(|x| x << 20).collect()).collect();
            let situation = situation(&scaled);
            let all = decide(&situation, Policy::default(), 1000);
            prop_assert!(all.len() <= situation.volumes.len());
            let squares = |weights: (f64, f64)| weights.0 * weights.0 + weights.1 * weights.1;
            for one in all {
                prop_assert!(squares(one.after) < squares(one.before));
            }
        }
    }
}
