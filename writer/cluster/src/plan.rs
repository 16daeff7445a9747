//! Who claims an orphan, and when: pure, and the same on every node that sees the same catalog.
//!
//! Writers claim in an order, each some time after the one before it if the volume is an orphan still. So
//! nobody has to agree on anything, and a first one that is slow or stuck costs a moment only. If two look at
//! different moments and both think that they are first, the catalog's compare-and-set lets one win.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_catalog::{NodeSpec, VolumeSpec};
use sluice_model::{NodeId, VolumeId};

/// Between the claims of one writer and the next in the order.
pub const RANK_PAUSE: Duration = Duration::from_millis(300);
/// How long a volume is left to the node that shall have it.
pub const WANTED_PAUSE: Duration = Duration::from_secs(2);

/// A live writer.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it tells of itself.
    pub spec: NodeSpec,
    /// Whether it may get more: it is not being drained.
    pub accepts: bool,
    /// Volumes that it has, or will have by earlier plans.
    pub owned: usize,
}

/// A volume that nobody serves.
#[derive(Clone, Debug)]
pub struct Orphan<'a> {
    /// Which.
    pub spec: &'a VolumeSpec,
    /// Who shall have it.
    pub wanted: Option<NodeId>,
}

/// The writers that claim a volume, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    nodes: Vec<NodeId>,
    /// The first is the one that shall have it.
    is_wanted: bool,
}

impl Order {
    /// Who claims it first.
    pub fn first(&self) -> Option<NodeId> {
        self.nodes.first().copied()
    }

    /// How long after the volume has become an orphan this node claims it; `None` if it does not.
    pub fn delay(&self, node: NodeId) -> Option<Duration> {
        let rank = self.nodes.iter().position(|other| *other == node)?;
        // As many as there are nodes.
        let rank = u32::try_from(rank).unwrap_or(u32::MAX);
        Some(match (self.is_wanted, rank) {
            (_, 0) => Duration::ZERO,
            (true, rank) => WANTED_PAUSE + RANK_PAUSE * (rank - 1),
            (false, rank) => RANK_PAUSE * rank,
        })
    }
}

/// The order for each orphan that anybody reaches. The first in the order is who shall have the volume; else
/// who has the fewest with those of this plan, so that many orphans spread evenly; among equals a hash decides,
/// so that not all volumes of one node go to one other.
pub fn plan(orphans: &[Orphan<'_>], writers: &[Candidate]) -> BTreeMap<VolumeId, Order> {
    let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut orders = BTreeMap::new();
    for orphan in orphans {
        let order = order(orphan.spec, orphan.wanted, writers, &given);
        let Some(first) = order.first() else { continue };
        *given.entry(first).or_default() += 1;
        orders.insert(orphan.spec.id, order);
    }
    orders
}

/// The order for one volume; `given` counts volumes that writers get beside those that they own.
pub fn order(
    volume: &VolumeSpec,
    wanted: Option<NodeId>,
    writers: &[Candidate],
    given: &BTreeMap<NodeId, usize>,
) -> Order {
    let reach = || writers.iter().filter(|writer| volume.is_reached_by(&writer.spec));
    // Nodes that are being drained are better than nobody.
    let any_accepts = reach().any(|writer| writer.accepts);
    let mut ranked: Vec<_> = reach()
        .filter(|writer| writer.accepts || !any_accepts)
        .map(|writer| {
            let node = writer.spec.id;
            let owned = writer.owned + given.get(&node).copied().unwrap_or(0);
            (wanted != Some(node), owned, affinity(node, volume.id), node)
        })
        .collect();
    ranked.sort_unstable();
    let is_wanted = ranked.first().is_some_and(|(not_wanted, ..)| !not_wanted);
    Order { nodes: ranked.into_iter().map(|(.., node)| node).collect(), is_wanted }
}

/// Rendezvous hashing: each pair has a number of its own. The finalizer of splitmix64.
fn affinity(node: NodeId, volume: VolumeId) -> u64 {
    let pair = u64::from(node.0.unsigned_abs()) << 32 | u64::from(volume.0);
    let z = pair.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_catalog::{Roles, VolumeKind};

    use super::*;

    pub(crate) fn writer(id: i32, owned: usize) -> Candidate {
        let spec = NodeSpec {
            id: NodeId(id),
            kafka_host: "h".to_owned(),
            kafka_port: 1,
            rack: None,
            peer: None,
            roles: Roles::ALL,
        };
        Candidate { spec, accepts: true, owned }
    }

    fn volume(id: u32) -> VolumeSpec {
        VolumeSpec::new(VolumeId(id), VolumeKind::Object, "", 1)
    }

    fn orphans(specs: &[VolumeSpec]) -> Vec<Orphan<'_>> {
        specs.iter().map(|spec| Orphan { spec, wanted: None }).collect()
    }

    #[test]
    fn who_shall_have_it_is_first_and_the_others_wait_for_it() {
        let writers = [writer(1, 0), writer(2, 9), writer(3, 1)];
        let spec = volume(4);
        let order = order(&spec, Some(NodeId(2)), &writers, &BTreeMap::new());
        assert_eq!(order.delay(NodeId(2)), Some(Duration::ZERO));
        assert_eq!(order.delay(NodeId(1)), Some(WANTED_PAUSE));
        assert_eq!(order.delay(NodeId(3)), Some(WANTED_PAUSE + RANK_PAUSE));
        assert_eq!(order.delay(NodeId(4)), None);
    }

    #[test]
    fn a_wanted_node_that_is_gone_delays_nobody() {
        let order =
            order(&volume(4), Some(NodeId(7)), &[writer(1, 3), writer(2, 1)], &BTreeMap::new());
        assert_eq!(order.delay(NodeId(2)), Some(Duration::ZERO));
        assert_eq!(order.delay(NodeId(1)), Some(RANK_PAUSE));
    }

    #[test]
    fn who_is_drained_claims_only_what_nobody_else_reaches() {
        let mut writers = [writer(1, 0), writer(2, 5)];
        writers[0].accepts = false;
        let shared = order(&volume(4), Some(NodeId(1)), &writers, &BTreeMap::new());
        assert_eq!((shared.first(), shared.delay(NodeId(1))), (Some(NodeId(2)), None));
        let at_home = VolumeSpec { home: Some(NodeId(1)), ..volume(5) };
        let home = order(&at_home, None, &writers, &BTreeMap::new());
        assert_eq!((home.first(), home.delay(NodeId(2))), (Some(NodeId(1)), None));
    }

    proptest! {
        #[test]
        fn orphans_spread_evenly(owned in prop::collection::vec(0..6usize, 1..8), count in 0..60u32) {
            let writers: Vec<_> = (0..).zip(&owned).map(|(id, n)| writer(id, *n)).collect();
            let specs: Vec<_> = (0..count).map(volume).collect();
            let orders = plan(&orphans(&specs), &writers);
            prop_assert_eq!(orders.len(), specs.len());
            let mut after = owned.clone();
            for order in orders.values() {
                after[order.first().unwrap().0 as usize] += 1;
                prop_assert_eq!(order.nodes.len(), writers.len());
            }
            // Nobody got one while another had fewer.
            let least = after.iter().min().unwrap();
            for (before, after) in owned.iter().zip(&after) {
                prop_assert!(before == after || *after <= least + 1);
            }
        }

        /// Whatever was claimed so far, in the plan's order, the rest of the plan stays as it was.
        #[test]
        fn a_plan_goes_on_as_it_began(owned in prop::collection::vec(0..4usize, 2..6), count in 1..20u32, done in 0..20u32) {
            let writers: Vec<_> = (0..).zip(&owned).map(|(id, n)| writer(id, *n)).collect();
            let specs: Vec<_> = (0..count).map(volume).collect();
            let whole = plan(&orphans(&specs), &writers);
            let done = done.min(count) as usize;
            let mut then = writers;
            for spec in &specs[..done] {
                then[whole[&spec.id].first().unwrap().0 as usize].owned += 1;
            }
            let rest = plan(&orphans(&specs[done..]), &then);
            for spec in &specs[done..] {
                prop_assert_eq!(rest[&spec.id].first(), whole[&spec.id].first());
            }
        }
    }
}
