//! Topics that Kafka has for itself and clients can see. Sluice keeps the state of groups elsewhere; the
//! topic is there because clients look for it: they wait for it, count its partitions, and test what they do with
//! internal topics on it. It is made where Kafka makes it, for the first group that asks for its coordinator.
//!
//! What always holds: it is a topic of the tenant like any other but for its name, nobody can produce to it,
//! and so it is empty. That it cannot be made never keeps a group from its coordinator.

use std::collections::BTreeMap;

use sluice_catalog::NewTopic;
use sluice_model::{TenantId, topic_name};

use crate::gateway::Core;

/// Makes `__consumer_offsets` unless the tenant has it.
pub(super) async fn for_groups(core: &Core, tenant: TenantId) {
    let name = topic_name::CONSUMER_OFFSETS;
    if core.catalog.topic_by_name(tenant, name).is_some() {
        return;
    }
    let compacted = ("cleanup.policy".to_owned(), "compact".to_owned());
    let new =
        NewTopic { name: name.to_owned(), partitions: 1, overrides: BTreeMap::from([compacted]) };
    // A tenant at its limit of topics, or a catalog that is away: its groups work without.
    if let Err(e) = core.catalog.create_topic(tenant, new).await {
        tracing::debug!(error = %e, "the internal topic of groups was not made");
    }
}
