//! What share groups' records come to, over all tenants: counters as things happen, and how much there is
//! when somebody asks.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::partition::AckRange;
use super::shared::Shared;

/// What members may say of a record, by the number in the protocol.
const ACKNOWLEDGEMENTS: [&str; 5] = ["gap", "accept", "release", "reject", "renew"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabels {
    r#type: &'static str,
}

/// Counters of share groups' records.
#[derive(Clone, Debug, Default)]
pub struct ShareMetrics {
    /// Records that were given to members, each time anew.
    pub delivered: Counter,
    /// Records that were let go of because their lock ran out.
    pub timed_out: Counter,
    /// Sessions that ended with their connection.
    pub sessions_lost: Counter,
    acknowledged: Family<TypeLabels, Counter>,
}

impl ShareMetrics {
    /// Adds all to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("share");
        registry.register("delivered", "Records given to members", self.delivered.clone());
        registry.register("timed_out", "Records whose lock ran out", self.timed_out.clone());
        registry.register(
            "sessions_lost",
            "Sessions that ended with their connection",
            self.sessions_lost.clone(),
        );
        registry.register(
            "acknowledged",
            "Records that members acknowledged, by what they said",
            self.acknowledged.clone(),
        );
    }

    /// Ranges that were taken; they were checked.
    pub(crate) fn acknowledged(&self, ranges: &[AckRange]) {
        for range in ranges {
            let count = u64::try_from(range.last - range.first + 1).unwrap_or(0);
            match &range.types[..] {
                [one] => self.add(*one, count),
                each => each.iter().for_each(|one| self.add(*one, 1)),
            }
        }
    }

    fn add(&self, code: i8, count: u64) {
        let name = usize::try_from(code).ok().and_then(|code| ACKNOWLEDGEMENTS.get(code));
        if let Some(name) = name {
            self.acknowledged.get_or_create(&TypeLabels { r#type: name }).inc_by(count);
        }
    }
}

/// Counts, when it is asked, what there is: sessions, share partitions, records that members have.
pub(crate) struct ShareCensus<'a>(pub(crate) &'a Shared);

impl ShareCensus<'_> {
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let count = self.0.count();
        for (name, help, value) in [
            ("share_sessions", "Share sessions", count.sessions),
            ("share_partitions", "What groups have of a stream each", count.partitions),
            (
                "share_acquired",
                "Records that members have and have not acknowledged",
                count.acquired,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
