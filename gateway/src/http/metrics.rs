//! What the operations listener counts. Labels come from closed sets.

use hyper::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Which path a request asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Route {
    Livez,
    Readyz,
    Metrics,
    /// Any that does not exist: paths of strangers do not become labels.
    Other,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: Route,
    status: u16,
}

/// The listener's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    connections: Gauge,
    pub(super) refused: Counter,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            connections: Gauge::default(),
            refused: Counter::default(),
        };
        registry.register(
            "ops_http_requests",
            "Requests to the operations listener",
            metrics.requests.clone(),
        );
        registry.register(
            "ops_http_connections",
            "Open connections of the operations listener",
            metrics.connections.clone(),
        );
        registry.register(
            "ops_http_connections_refused",
            "Connections closed at once because there were too many",
            metrics.refused.clone(),
        );
        metrics
    }

    pub(super) fn answered(&self, route: Route, status: StatusCode) {
        self.requests.get_or_create(&RequestLabels { route, status: status.as_u16() }).inc();
    }

    /// Counts a connection as open until the guard is dropped.
    pub(super) fn connection(&self) -> Open {
        self.connections.inc();
        Open(self.connections.clone())
    }
}

/// An open connection.
pub(super) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
