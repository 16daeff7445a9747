//! Topics that tests make, grow and delete, and what they set for groups.

use super::*;
use crate::group::{TopicShape, Topics};

/// Topics of any tenant, in memory.
#[derive(Default)]
pub(crate) struct TopicTable {
    by_name: Mutex<BTreeMap<(TenantId, Str), TopicShape>>,
    version: AtomicU64,
    settings: Mutex<Arc<GroupSettings>>,
}

impl TopicTable {
    /// Makes a topic, or gives it another id or number of partitions.
    pub(crate) fn set(&self, tenant: TenantId, name: &str, id: TopicId, partitions: i32) {
        self.by_name.lock().insert((tenant, Str::from(name)), TopicShape { id, partitions });
        self.version.fetch_add(1, Ordering::Relaxed);
    }

    /// What holds for all groups.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut GroupSettings)) {
        let mut settings = **self.settings.lock();
        change(&mut settings);
        *self.settings.lock() = Arc::new(settings);
    }

    pub(crate) fn remove(&self, tenant: TenantId, name: &str) {
        self.by_name.lock().remove(&(tenant, Str::from(name)));
        self.version.fetch_add(1, Ordering::Relaxed);
    }
}

impl GroupConfigs for TopicTable {
    fn settings(&self, _tenant: TenantId, _group: &str) -> Arc<GroupSettings> {
        Arc::clone(&self.settings.lock())
    }
}

impl Topics for TopicTable {
    fn name(&self, tenant: TenantId, topic: TopicId) -> Option<Str> {
        let topics = self.by_name.lock();
        let mut of_tenant = topics.iter().filter(|((owner, _), _)| *owner == tenant);
        of_tenant.find(|(_, shape)| shape.id == topic).map(|((_, name), _)| name.clone())
    }

    fn find(&self, tenant: TenantId, name: &str) -> Option<TopicShape> {
        self.by_name.lock().get(&(tenant, Str::from(name))).copied()
    }

    fn names(&self, tenant: TenantId) -> Vec<Str> {
        let topics = self.by_name.lock();
        topics.keys().filter(|(owner, _)| *owner == tenant).map(|(_, name)| name.clone()).collect()
    }

    fn version(&self, _tenant: TenantId) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}
