//! What coordinators know of topics: one trait over the catalog's view, and nothing else of it.

use sluice_model::{TenantId, TopicId};
use sluice_wire::Str;

/// A topic as a group coordinator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicShape {
    /// Its identity.
    pub id: TopicId,
    /// How many partitions it has: numbers 0 up to this, end-exclusive.
    pub partitions: i32,
}

/// The topics of tenants as they are now. A lookup never blocks and never leaves the process; it may
/// lag behind what other processes do. What is another tenant's is absent.
///
/// Lookups may be made under a group's lock: an implementation calls nothing of the coordinator.
pub trait Topics: Send + Sync + 'static {
    /// A topic's present name; `None` when it is gone.
    fn name(&self, tenant: TenantId, topic: TopicId) -> Option<Str>;

    /// The topic that has this name now.
    fn find(&self, tenant: TenantId, name: &str) -> Option<TopicShape>;

    /// The names of all topics of the tenant, sorted.
    fn names(&self, tenant: TenantId) -> Vec<Str>;

    /// Another number after each change of the tenant's topics (one is created, is deleted, grows).
    /// What was computed under a number holds as long as the number is the same. It says nothing
    /// after a restart, nor to another process.
    fn version(&self, tenant: TenantId) -> u64;
}
