//! What the client counts. Labels come from closed sets.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::failure::Failure;

/// Kinds of requests, as S3 bills them or as they behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// A whole object, whatever was there.
    Put,
    /// A whole object under a condition.
    ConditionalPut,
    /// One part of a large object.
    Part,
    /// The beginning, the end or the abortion of an upload in parts.
    Multipart,
    Get,
    Head,
    /// One page of a listing.
    List,
    /// One deletion, of up to a thousand objects.
    Delete,
    Copy,
}

impl Op {
    const ALL: [Self; 9] = [
        Self::Put,
        Self::ConditionalPut,
        Self::Part,
        Self::Multipart,
        Self::Get,
        Self::Head,
        Self::List,
        Self::Delete,
        Self::Copy,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::ConditionalPut => "conditional_put",
            Self::Part => "part",
            Self::Multipart => "multipart",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Copy => "copy",
        }
    }
}

impl EncodeLabelValue for Op {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

impl EncodeLabelValue for Failure {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.name().encode(encoder)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct OpLabels {
    pub(crate) op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    kind: Failure,
}

/// Counts of one bucket's requests.
#[derive(Clone, Debug)]
pub struct BucketMetrics {
    requests: Family<OpLabels, Counter>,
    failures: Family<FailureLabels, Counter>,
    seconds: Family<OpLabels, Histogram>,
    pub(crate) sent_bytes: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) retries: Counter,
    pub(crate) retries_refused: Counter,
    pub(crate) throttled: Counter,
    pub(crate) hedges: Counter,
    pub(crate) hedges_won: Counter,
    pub(crate) under_way: Gauge,
    pub(crate) waiting: Gauge,
    pub(crate) limit: Gauge,
    pub(crate) rate: Gauge,
}

fn latencies() -> Histogram {
    // 1 ms to 32 s.
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

impl Default for BucketMetrics {
    fn default() -> Self {
        let metrics = Self {
            requests: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(latencies),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            retries: Counter::default(),
            retries_refused: Counter::default(),
            throttled: Counter::default(),
            hedges: Counter::default(),
            hedges_won: Counter::default(),
            under_way: Gauge::default(),
            waiting: Gauge::default(),
            limit: Gauge::default(),
            rate: Gauge::default(),
        };
        // There from the start, so that a rate over them has no gap at the first one.
        for op in Op::ALL {
            drop(metrics.requests.get_or_create(&OpLabels { op }));
        }
        for kind in Failure::ALL {
            drop(metrics.failures.get_or_create(&FailureLabels { kind }));
        }
        metrics
    }
}

impl BucketMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bucket_requests",
            "Requests made to the bucket, repeated and hedged ones too",
            self.requests.clone(),
        );
        registry.register(
            "bucket_failures",
            "Requests that failed, by what that means for the next step",
            self.failures.clone(),
        );
        registry.register_with_unit(
            "bucket_request",
            "Time of a request that succeeded, with its body",
            Unit::Seconds,
            self.seconds.clone(),
        );
        let counters = [
            ("bucket_sent_bytes", "Bytes of objects sent", &self.sent_bytes),
            ("bucket_received_bytes", "Bytes of objects received", &self.received_bytes),
            ("bucket_retries", "Requests that repeat a failed one", &self.retries),
            (
                "bucket_retries_refused",
                "Operations that failed because the budget of retries was used up",
                &self.retries_refused,
            ),
            ("bucket_throttled", "Times that the store asked for fewer requests", &self.throttled),
            ("bucket_hedges", "Second requests that raced a late read", &self.hedges),
            ("bucket_hedges_won", "Those that answered first", &self.hedges_won),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("bucket_under_way", "Requests under way", &self.under_way),
            ("bucket_waiting", "Requests that wait for their turn", &self.waiting),
            ("bucket_limit", "Requests that may be under way", &self.limit),
            ("bucket_rate_limit", "Requests a second that may be made; 0: any", &self.rate),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }

    pub(crate) fn request(&self, op: Op) {
        self.requests.get_or_create(&OpLabels { op }).inc();
    }

    pub(crate) fn failure(&self, kind: Failure) {
        self.failures.get_or_create(&FailureLabels { kind }).inc();
    }

    pub(crate) fn took(&self, op: Op, seconds: f64) {
        self.seconds.get_or_create(&OpLabels { op }).observe(seconds);
    }

    #[cfg(test)]
    pub(crate) fn requests_of(&self, op: Op) -> u64 {
        self.requests.get_or_create(&OpLabels { op }).get()
    }

    #[cfg(test)]
    pub(crate) fn failures_of(&self, kind: Failure) -> u64 {
        self.failures.get_or_create(&FailureLabels { kind }).get()
    }
}
