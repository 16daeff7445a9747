//! The catalog's topics as group coordinators see them.

use sluice_catalog::Catalog;
use sluice_model::{TenantId, TopicId};
use sluice_wire::Str;

use crate::group::{TopicShape, Topics};

/// Looks topics up in a catalog's view.
pub(crate) struct CatalogTopics(pub(crate) Catalog);

impl Topics for CatalogTopics {
    fn name(&self, tenant: TenantId, topic: TopicId) -> Option<Str> {
        self.0.topic_by_id(tenant, topic).map(|topic| Str::from(&*topic.name))
    }

    fn find(&self, tenant: TenantId, name: &str) -> Option<TopicShape> {
        let topic = self.0.topic_by_name(tenant, name)?;
        let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        Some(TopicShape { id: topic.id, partitions })
    }

    fn names(&self, tenant: TenantId) -> Vec<Str> {
        self.0.topics(tenant).iter().map(|topic| Str::from(&*topic.name)).collect()
    }

    fn version(&self, tenant: TenantId) -> u64 {
        self.0.topics_version(tenant)
    }
}
