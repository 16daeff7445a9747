//! How many groups and members there are, counted when somebody asks.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::shared::Shared;

/// The kinds of groups, as ListGroups names them in lower case.
const KINDS: [&str; 4] = ["classic", "consumer", "share", "streams"];

/// See the module. Over all tenants.
pub(crate) struct GroupCensus<'a>(pub(crate) &'a Shared);

impl GroupCensus<'_> {
    /// (groups, members) of each kind. Locks one group after the other.
    fn count(&self) -> [(i64, i64); KINDS.len()] {
        let shared = self.0;
        let mut counts = [(0, 0); KINDS.len()];
        for tenant in shared.tenants() {
            for cell in shared.cells_of(tenant) {
                let state = cell.lock();
                let name = state.kind.type_name();
                let place = KINDS.iter().position(|kind| kind.eq_ignore_ascii_case(name));
                if let Some(count) = place.and_then(|place| counts.get_mut(place)) {
                    count.0 += 1;
                    count.1 += i64::try_from(state.kind.member_count()).unwrap_or(i64::MAX);
                }
            }
        }
        counts
    }

    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.count();
        let groups = counts.map(|(groups, _)| groups);
        let members = counts.map(|(_, members)| members);
        for (name, help, values) in [
            ("groups", "Groups, by kind", groups),
            ("group_members", "Members of groups, by the kind of the group", members),
        ] {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (kind, value) in KINDS.into_iter().zip(values) {
                let labels = [("kind", kind)];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
