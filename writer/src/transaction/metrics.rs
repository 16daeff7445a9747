//! What the coordinator counts, over all tenants.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Transactions of all tenants.
#[derive(Clone, Debug, Default)]
pub struct TransactionMetrics {
    /// Transactions that are open or whose markers are being written.
    pub open: Gauge,
    /// Transactions that were committed, all markers written.
    pub committed: Counter,
    /// Transactions that were aborted, all markers written.
    pub aborted: Counter,
    /// Of those: aborted because they were open for longer than their timeout.
    pub timed_out: Counter,
    /// Of those: aborted because another instance of the producer began.
    pub fenced: Counter,
    /// Transactional ids that are known.
    pub ids: Gauge,
}

impl TransactionMetrics {
    /// Adds all to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("transactions");
        registry.register("open", "Open transactions", self.open.clone());
        registry.register("committed", "Committed transactions", self.committed.clone());
        registry.register("aborted", "Aborted transactions", self.aborted.clone());
        registry.register("timed_out", "Transactions past their timeout", self.timed_out.clone());
        registry.register(
            "fenced",
            "Transactions aborted for a new instance of the producer",
            self.fenced.clone(),
        );
        registry.register("ids", "Transactional ids that are known", self.ids.clone());
    }
}
