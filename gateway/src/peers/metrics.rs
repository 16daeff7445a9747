//! What is counted of the traffic between nodes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// Of all links to other nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct PeerMetrics {
    /// Connections that are open.
    pub(super) links: Gauge,
    /// Connections that were opened.
    pub(super) connected: Counter,
    /// Connections that failed or could not be made.
    pub(super) failed: Counter,
    /// Requests without an answer: their connection ended, or could not be made.
    pub(super) unanswered: Counter,
    /// Requests that wait for their answer.
    pub(super) waiting: Gauge,
    pub(super) bytes_out: Counter,
    pub(super) bytes_in: Counter,
    /// From asking to the answer, of requests that do not wait for something to come.
    pub(super) latency: Histogram,
}

impl PeerMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            links: Gauge::default(),
            connected: Counter::default(),
            failed: Counter::default(),
            unanswered: Counter::default(),
            waiting: Gauge::default(),
            bytes_out: Counter::default(),
            bytes_in: Counter::default(),
            latency: Histogram::new(exponential_buckets(0.000_05, 2.0, 18)),
        };
        let registry = registry.sub_registry_with_prefix("peers");
        registry.register("links", "open connections to other nodes", metrics.links.clone());
        registry.register(
            "connections",
            "connections to other nodes that were made",
            metrics.connected.clone(),
        );
        registry.register(
            "connection_failures",
            "connections to other nodes that failed or could not be made",
            metrics.failed.clone(),
        );
        registry.register(
            "unanswered",
            "requests to other nodes whose connection ended before the answer",
            metrics.unanswered.clone(),
        );
        registry.register(
            "waiting",
            "requests to other nodes that wait for their answer",
            metrics.waiting.clone(),
        );
        registry.register_with_unit(
            "sent",
            "bytes sent to other nodes, before encryption",
            Unit::Bytes,
            metrics.bytes_out.clone(),
        );
        registry.register_with_unit(
            "received",
            "bytes received from other nodes, after decryption",
            Unit::Bytes,
            metrics.bytes_in.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "time from asking another node to its answer, of requests that do not wait for records or members",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        metrics
    }
}
