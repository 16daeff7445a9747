//! What a review looks at: the catalog as of one moment, and what this node serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_catalog::{Volume, VolumeSpec};
use sluice_model::{NodeId, VolumeEpoch, VolumeId};

use crate::members::MembersParts;
use crate::plan::{Candidate, order};

pub(super) struct View {
    me: NodeId,
    /// Live nodes.
    pub(super) nodes: usize,
    writers: Vec<Candidate>,
    pub(super) volumes: Vec<Arc<Volume>>,
    pub(super) served: BTreeMap<VolumeId, VolumeEpoch>,
    /// This node shall own nothing.
    pub(super) is_drained: bool,
    /// There is no other writer.
    pub(super) is_lone: bool,
}

impl View {
    pub(super) fn of(parts: &MembersParts, leaving: bool) -> Self {
        // What is served is looked at first: what is taken or lost meanwhile is told, and looked at again.
        let served = parts.writer.volumes().into_iter().collect();
        let volumes = parts.catalog.volumes();
        let mut owned: BTreeMap<NodeId, usize> = BTreeMap::new();
        for owner in volumes.iter().filter_map(|volume| volume.owner) {
            *owned.entry(owner).or_default() += 1;
        }
        let drains = parts.catalog.drains();
        let me = parts.spec.id;
        let nodes = parts.catalog.nodes();
        let writers = nodes.iter().filter(|node| node.spec.roles.writer).map(|node| {
            let id = node.spec.id;
            let accepts = !(drains.contains_key(&id) || leaving && id == me);
            let owned = owned.get(&id).copied().unwrap_or(0);
            Candidate { spec: node.spec.clone(), accepts, owned }
        });
        let writers: Vec<_> = writers.collect();
        Self {
            me,
            nodes: nodes.len(),
            is_drained: leaving || drains.contains_key(&me),
            is_lone: writers.iter().all(|writer| writer.spec.id == me),
            writers,
            volumes,
            served,
        }
    }

    /// Whether nobody serves the volume, as far as it can be known: it has no owner, or one that is not a live
    /// writer, or this node has it and does not serve it.
    pub(super) fn is_orphan(&self, volume: &Volume) -> bool {
        volume.owner.is_none_or(|owner| owner == self.me || self.writer(owner).is_none())
    }

    fn writer(&self, node: NodeId) -> Option<&Candidate> {
        self.writers.iter().find(|writer| writer.spec.id == node)
    }

    /// Whether the node is alive, reaches the volume and may get it.
    pub(super) fn accepts(&self, node: NodeId, volume: &VolumeSpec) -> bool {
        self.writer(node).is_some_and(|w| w.accepts && volume.is_reached_by(&w.spec))
    }

    /// The live writers, with what they get by earlier plans.
    pub(super) fn candidates(&self, planned: &BTreeMap<NodeId, usize>) -> Vec<Candidate> {
        let with = |writer: &Candidate| {
            let more = planned.get(&writer.spec.id).copied().unwrap_or(0);
            Candidate { owned: writer.owned + more, ..writer.clone() }
        };
        self.writers.iter().map(with).collect()
    }

    /// The best other node for a volume, if one may get it; `pending` counts what nodes get beside what they have.
    pub(super) fn other(
        &self,
        volume: &Volume,
        pending: &BTreeMap<NodeId, usize>,
    ) -> Option<NodeId> {
        let others =
            self.writers.iter().filter(|writer| writer.accepts && writer.spec.id != self.me);
        let others: Vec<_> = others.cloned().collect();
        order(&volume.spec, None, &others, pending).first()
    }
}
