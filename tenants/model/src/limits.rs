//! Bounds on what a tenant may make the service keep. What is over a bound is refused with the
//! protocol's own error before anything is stored. Limits of rate (quotas) are not here.

/// The longest value of one topic config, in bytes. Kafka's own strings end at the same length.
pub const MAX_CONFIG_VALUE_BYTES: usize = 32_767;

/// The longest name of a group or a metrics subscription on which configs are set, in bytes.
pub const MAX_CONFIGURED_NAME_BYTES: usize = 1_024;

/// The most configs that are set on one broker, or on all brokers, of a tenant's cluster.
pub const MAX_BROKER_CONFIGS: usize = 300;

/// The most partitions that one request may create, over all its topics. Kafka's controller has the
/// same bound on the records of one operation.
pub const MAX_PARTITIONS_PER_REQUEST: usize = 10_000;

/// Bounds that the catalog checks at each mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatalogLimits {
    /// Topics that one tenant may have.
    pub topics_per_tenant: usize,
    /// Partitions that one topic may have.
    pub partitions_per_topic: u32,
    /// Partitions that one tenant may have, over all its topics.
    pub partitions_per_tenant: usize,
    /// Groups on which one tenant may have set configs, whether or not they exist.
    pub configured_groups_per_tenant: usize,
    /// Brokers of its cluster on which one tenant may have set configs; all of them together count as one.
    pub configured_brokers_per_tenant: usize,
    /// Subscriptions of clients' metrics that one tenant may have. Each is asked for each push.
    pub metrics_subscriptions_per_tenant: usize,
}

impl Default for CatalogLimits {
    fn default() -> Self {
        Self {
            topics_per_tenant: 20_000,
            partitions_per_topic: 10_000,
            partitions_per_tenant: 200_000,
            configured_groups_per_tenant: 10_000,
            configured_brokers_per_tenant: 1_000,
            metrics_subscriptions_per_tenant: 100,
        }
    }
}
