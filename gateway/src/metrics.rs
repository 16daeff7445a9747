//! What the gateway counts. Labels come from closed or bounded sets, so that no client can make the
//! exposition grow.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use sluice_wire::{ApiKey, ErrorCode};

use crate::admission::Refusal;
use crate::dispatch;
use crate::session::Closed;

/// Different client software that is told apart; what comes later counts as `other`.
const MAX_SOFTWARE: usize = 64;
/// What a client may call itself: longer names are cut.
const MAX_SOFTWARE_NAME: usize = 48;

/// A label value that is a Rust enum's name, a known string, or a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Api(&'static str);

impl EncodeLabelValue for Api {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    api: Api,
    error: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: Api,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SoftwareLabels {
    name: String,
    version: String,
}

/// The gateway's metrics; one per process.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<ApiLabels, Histogram, fn() -> Histogram>,
    /// What a request without an error counts under, by API code: no label is looked up for it.
    succeeded: HashMap<ApiKey, (Counter, Histogram)>,
    closed: Family<ReasonLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    software: Family<SoftwareLabels, Counter>,
    known_software: Mutex<HashSet<SoftwareLabels>>,
    /// Bytes read from clients.
    pub(crate) bytes_in: Counter,
    /// Bytes written to clients.
    pub(crate) bytes_out: Counter,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// Request bytes that are held, whole frames and parts.
    pub(crate) request_bytes: Gauge,
    /// Record bytes promised to fetches or waiting to be written.
    pub(crate) answer_bytes: Gauge,
    /// Partitions that fetch sessions remember.
    pub(crate) fetch_session_partitions: Gauge,
}

impl Metrics {
    /// Registers everything under `gateway_` in `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let requests = Family::<RequestLabels, Counter>::default();
        let latency =
            Family::<ApiLabels, Histogram, fn() -> Histogram>::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.000_25, 2.0, 16))
            });
        let succeeded = dispatch::SERVED.iter().map(|key| {
            let api = Api(key.name());
            let ok = RequestLabels { api: api.clone(), error: error_name(0) };
            let counter = requests.get_or_create(&ok).clone();
            (*key, (counter, latency.get_or_create(&ApiLabels { api }).clone()))
        });
        let metrics = Self {
            succeeded: succeeded.collect(),
            requests,
            latency,
            closed: Family::default(),
            refused: Family::default(),
            software: Family::default(),
            known_software: Mutex::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            connections: Gauge::default(),
            request_bytes: Gauge::default(),
            answer_bytes: Gauge::default(),
            fetch_session_partitions: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("gateway");
        registry.register(
            "requests",
            "requests answered, by API and by the first error in the answer",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "time from a whole frame to its answer",
            Unit::Seconds,
            metrics.latency.clone(),
        );
        registry.register("connections_closed", "connections closed", metrics.closed.clone());
        registry.register("connections_refused", "connections refused", metrics.refused.clone());
        registry.register(
            "client_software",
            "ApiVersions requests by what the client says it is",
            metrics.software.clone(),
        );
        registry.register_with_unit(
            "received",
            "bytes read from clients",
            Unit::Bytes,
            metrics.bytes_in.clone(),
        );
        registry.register_with_unit(
            "sent",
            "bytes written to clients",
            Unit::Bytes,
            metrics.bytes_out.clone(),
        );
        registry.register("connections", "open connections", metrics.connections.clone());
        registry.register_with_unit(
            "request_buffers",
            "request bytes held in memory",
            Unit::Bytes,
            metrics.request_bytes.clone(),
        );
        registry.register_with_unit(
            "answer_buffers",
            "record bytes promised to fetches or not yet written",
            Unit::Bytes,
            metrics.answer_bytes.clone(),
        );
        registry.register(
            "fetch_session_partitions",
            "partitions that fetch sessions remember",
            metrics.fetch_session_partitions.clone(),
        );
        metrics
    }

    /// An answer was made; `error` is the first error code in it.
    pub(crate) fn answered(&self, api: ApiKey, error: i16, took: Duration) {
        let Some((succeeded, latency)) = self.succeeded.get(&api) else { return };
        latency.observe(took.as_secs_f64());
        if error == 0 {
            succeeded.inc();
        } else {
            let labels = RequestLabels { api: Api(api.name()), error: error_name(error) };
            self.requests.get_or_create(&labels).inc();
        }
    }

    /// A connection ended.
    pub(crate) fn closed(&self, reason: &Closed) {
        self.closed.get_or_create(&ReasonLabels { reason: reason.label() }).inc();
    }

    /// A connection was turned away.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let reason = match refusal {
            Refusal::Full => "full",
            Refusal::FullForAddress => "full_for_address",
            Refusal::Policy(_) => "policy",
        };
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }

    /// A client said what it is.
    pub(crate) fn software(&self, name: &str, version: &str) {
        let labels = SoftwareLabels { name: printable(name), version: printable(version) };
        let known = {
            let mut known = self.known_software.lock();
            known.contains(&labels) || known.len() < MAX_SOFTWARE && known.insert(labels.clone())
        };
        let labels = if known {
            labels
        } else {
            SoftwareLabels { name: "other".into(), version: "other".into() }
        };
        self.software.get_or_create(&labels).inc();
    }
}

fn error_name(code: i16) -> String {
    format!("{:?}", ErrorCode::from_code(code))
}

/// The characters that KIP-511 allows, the first few of them.
fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(MAX_SOFTWARE_NAME) {
        let _ = out.write_char(if c.is_ascii_alphanumeric() || "-.".contains(c) { c } else { '_' });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_names_are_bounded() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        for i in 0..1_000 {
            metrics.software(&format!("client\n{}{i}", "x".repeat(10)), "1");
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("gateway_client_software_total"));
        assert_eq!(lines.count(), MAX_SOFTWARE + 1);
    }
}
