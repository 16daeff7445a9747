//! Bounds on what a tenant may make the service keep. What is over a bound is refused with the
//! protocol's own error before anything is stored. Limits of rate (quotas) are not here.

/// The longest value of one topic config, in bytes. Kafka's own strings end at the same length.
pub const MAX_CONFIG_VALUE_BYTES: usize = 32_767;

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
}

impl Default for CatalogLimits {
    fn default() -> Self {
        Self {
            topics_per_tenant: 20_000,
            partitions_per_topic: 10_000,
            partitions_per_tenant: 200_000,
        }
    }
}
