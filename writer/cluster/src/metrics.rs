//! What is counted of volumes that change their owner.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sluice_writer::Taken;

/// Counters of one node's part in the cluster.
#[derive(Clone, Debug)]
pub struct ClusterMetrics {
    /// Live nodes, as the catalog shows them.
    pub nodes: Gauge,
    /// Volumes that this node reaches and nobody serves.
    pub orphans: Gauge,
    /// 1 while this node's lease is alive for sure.
    pub lease_live: Gauge,
    /// 1 while this node is the one that moves volumes.
    pub balancer: Gauge,
    /// Moves that this node has decided as the balancer.
    pub moves: Counter,
    /// Volumes that were handed over to another node.
    pub handovers: Counter,
    /// Takes that failed and are tried again.
    pub failures: Counter,
    changes: Family<Cause, Counter>,
    seconds: Family<Phase, Histogram>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Cause {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Phase {
    phase: &'static str,
}

impl Default for ClusterMetrics {
    fn default() -> Self {
        Self {
            nodes: Gauge::default(),
            orphans: Gauge::default(),
            lease_live: Gauge::default(),
            balancer: Gauge::default(),
            moves: Counter::default(),
            handovers: Counter::default(),
            failures: Counter::default(),
            changes: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_5, 2.0, 18))
            }),
        }
    }
}

impl ClusterMetrics {
    /// Registers all.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("cluster_nodes", "Live nodes, as this one sees them", &self.nodes),
            ("cluster_orphans", "Volumes that this node reaches and nobody serves", &self.orphans),
            ("cluster_lease_live", "1 while this node's lease is alive for sure", &self.lease_live),
            ("cluster_balancer", "1 while this node moves volumes", &self.balancer),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, counter) in [
            ("cluster_moves", "Moves that this node decided as the balancer", &self.moves),
            ("cluster_handovers", "Volumes handed over to another node", &self.handovers),
            ("cluster_take_failures", "Takes that failed and are tried again", &self.failures),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "cluster_owner_changes",
            "Volumes that this node became the owner of, by cause",
            self.changes.clone(),
        );
        registry.register(
            "cluster_owner_change_seconds",
            "Time until a volume is served by its new owner, by phase",
            self.seconds.clone(),
        );
    }

    /// A volume that nobody served is served here; `detect` is the time before the claim.
    pub(crate) fn taken(&self, cause: &'static str, detect: Duration, taken: &Taken) {
        self.changes.get_or_create(&Cause { cause }).inc();
        let phases = [
            ("detect", detect),
            ("claim", taken.claim),
            ("fence", taken.fence),
            ("recover", taken.recover),
            ("serve", taken.serve),
        ];
        for (phase, spent) in phases {
            self.seconds.get_or_create(&Phase { phase }).observe(spent.as_secs_f64());
        }
    }
}
