//! What tenants set on groups, on subscriptions of clients' metrics and on the brokers of their cluster.
//! Such a resource is there while something is set on it, and needs nothing else: no group has to exist.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_model::broker_config::{self, InvalidBrokerConfig};
use sluice_model::client_metrics::{InvalidSubscription, MetricsSubscription};
use sluice_model::config::InvalidConfig;
use sluice_model::limits::MAX_CONFIGURED_NAME_BYTES;
use sluice_model::{GroupConfigs, GroupDefaults, GroupSettings, NodeId, TenantId, TopicDefaults};

use crate::catalog::Catalog;
use crate::layout::{self, ConfigRecord};
use crate::store::{Outcome, StoreError, Txn};
use crate::view::{Derivation, TopicRules};

/// Resources, besides topics, on which a tenant sets configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceKind {
    /// A group, by its id.
    Group,
    /// A subscription of clients' metrics, by its name.
    ClientMetrics,
    /// A broker of the tenant's cluster, by its node's id; all of them by the empty name.
    Broker,
}

impl ResourceKind {
    pub(crate) const ALL: [Self; 3] = [Self::Group, Self::ClientMetrics, Self::Broker];
}

/// The name of all brokers.
const ALL_BROKERS: &str = "";

/// Why a resource's configs were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterResourceError {
    /// Invalid: the name of the resource.
    #[error("{0}")]
    InvalidName(&'static str),
    /// Invalid: the group's configs that would result.
    #[error(transparent)]
    InvalidGroup(#[from] InvalidConfig),
    /// Invalid: the subscription that would result.
    #[error(transparent)]
    InvalidSubscription(#[from] InvalidSubscription),
    /// Invalid: the configs of the broker that would result.
    #[error(transparent)]
    InvalidBroker(#[from] InvalidBrokerConfig),
    /// Refused by policy: the tenant may not have so many.
    #[error("The limit of {limit} {what} is reached.")]
    LimitReached {
        /// Which resources.
        what: &'static str,
        /// How many the tenant may have.
        limit: usize,
    },
    /// Retry: the store.
    #[error("The cluster's metadata cannot be written now.")]
    Unavailable(#[from] StoreError),
}

/// One tenant's part of the view.
#[derive(Default)]
pub(crate) struct Configs {
    groups: BTreeMap<Arc<str>, GroupEntry>,
    metrics: BTreeMap<Arc<str>, MetricsEntry>,
    brokers: BTreeMap<Arc<str>, Arc<BTreeMap<String, String>>>,
    /// What the brokers' configs make of the topics' defaults; `None` if nothing is set on them.
    topics: Option<TopicRules>,
}

struct GroupEntry {
    overrides: Arc<BTreeMap<String, String>>,
    settings: Arc<GroupSettings>,
}

struct MetricsEntry {
    overrides: Arc<BTreeMap<String, String>>,
    /// `None` for one that another version stored and this one does not take.
    subscription: Option<Arc<MetricsSubscription>>,
}

impl Configs {
    pub(crate) fn put(
        &mut self,
        kind: ResourceKind,
        name: &str,
        overrides: BTreeMap<String, String>,
        how: &Derivation,
    ) {
        match kind {
            ResourceKind::Group => {
                let settings = GroupSettings::from_stored(&overrides, &how.group_defaults);
                let settings = Arc::new(settings);
                let entry = GroupEntry { overrides: Arc::new(overrides), settings };
                self.groups.insert(name.into(), entry);
            }
            ResourceKind::ClientMetrics => {
                let subscription = MetricsSubscription::new(&overrides).ok().map(Arc::new);
                let entry = MetricsEntry { overrides: Arc::new(overrides), subscription };
                self.metrics.insert(name.into(), entry);
            }
            ResourceKind::Broker => {
                self.brokers.insert(name.into(), Arc::new(overrides));
                self.derive_topics(how);
            }
        }
    }

    pub(crate) fn remove(&mut self, kind: ResourceKind, name: &str, how: &Derivation) {
        match kind {
            ResourceKind::Group => drop(self.groups.remove(name)),
            ResourceKind::ClientMetrics => drop(self.metrics.remove(name)),
            ResourceKind::Broker => {
                self.brokers.remove(name);
                self.derive_topics(how);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.metrics.is_empty() && self.brokers.is_empty()
    }

    /// The defaults of this tenant's topics, if it has set any.
    pub(crate) fn topics(&self) -> Option<&TopicRules> {
        self.topics.as_ref()
    }

    fn derive_topics(&mut self, how: &Derivation) {
        self.topics = match self.brokers.is_empty() {
            true => None,
            false => Some(TopicRules::new(self.topic_defaults(how, None))),
        };
    }

    /// What would hold for topics if `instead` were set on the broker of that name.
    fn topic_defaults(
        &self,
        how: &Derivation,
        instead: Option<(&str, &BTreeMap<String, String>)>,
    ) -> TopicDefaults {
        let nothing = BTreeMap::new();
        let set = |name: &str| match instead {
            Some((changed, overrides)) if changed == name => overrides,
            _ => self.brokers.get(name).map_or(&nothing, |overrides| &**overrides),
        };
        let node = how.node.map(|NodeId(id)| id.to_string());
        let own = node.as_deref().map_or(&nothing, set);
        how.rules.defaults.of_tenant(set(ALL_BROKERS), own)
    }

    /// Sorted.
    pub(crate) fn names(&self, kind: ResourceKind) -> Box<dyn Iterator<Item = &Arc<str>> + '_> {
        match kind {
            ResourceKind::Group => Box::new(self.groups.keys()),
            ResourceKind::ClientMetrics => Box::new(self.metrics.keys()),
            ResourceKind::Broker => Box::new(self.brokers.keys()),
        }
    }

    fn overrides(&self, kind: ResourceKind, name: &str) -> Option<&Arc<BTreeMap<String, String>>> {
        match kind {
            ResourceKind::Group => self.groups.get(name).map(|entry| &entry.overrides),
            ResourceKind::ClientMetrics => self.metrics.get(name).map(|entry| &entry.overrides),
            ResourceKind::Broker => self.brokers.get(name),
        }
    }

    fn count(&self, kind: ResourceKind) -> usize {
        match kind {
            ResourceKind::Group => self.groups.len(),
            ResourceKind::ClientMetrics => self.metrics.len(),
            ResourceKind::Broker => self.brokers.len(),
        }
    }
}

impl GroupConfigs for Catalog {
    fn settings(&self, tenant: TenantId, group: &str) -> Arc<GroupSettings> {
        let shared = &self.inner.shared;
        let view = shared.view.read();
        let entry = view.configs(tenant).and_then(|configs| configs.groups.get(group));
        Arc::clone(entry.map_or(&shared.how.plain_group, |entry| &entry.settings))
    }
}

impl Catalog {
    /// The operator's defaults for groups, as `group_config::describe` wants them.
    pub fn group_defaults(&self) -> &GroupDefaults {
        &self.inner.shared.how.group_defaults
    }

    /// What is set on one of the tenant's resources, verbatim; `None` if nothing is.
    pub fn resource_overrides(
        &self,
        tenant: TenantId,
        kind: ResourceKind,
        name: &str,
    ) -> Option<Arc<BTreeMap<String, String>>> {
        let view = self.inner.shared.view.read();
        view.configs(tenant)?.overrides(kind, name).cloned()
    }

    /// The names of the tenant's resources on which something is set, sorted.
    pub fn configured_resources(&self, tenant: TenantId, kind: ResourceKind) -> Vec<Arc<str>> {
        let view = self.inner.shared.view.read();
        view.configs(tenant).map_or_else(Vec::new, |configs| configs.names(kind).cloned().collect())
    }

    /// The tenant's subscriptions of clients' metrics.
    pub fn metrics_subscriptions(&self, tenant: TenantId) -> Vec<Arc<MetricsSubscription>> {
        let view = self.inner.shared.view.read();
        let Some(configs) = view.configs(tenant) else { return Vec::new() };
        configs.metrics.values().filter_map(|entry| entry.subscription.clone()).collect()
    }

    /// What [`Catalog::update_resource`] would refuse now if its outcome were `overrides`.
    pub fn check_resource(
        &self,
        tenant: TenantId,
        kind: ResourceKind,
        name: &str,
        overrides: &BTreeMap<String, String>,
    ) -> Result<(), AlterResourceError> {
        let empty = match kind {
            ResourceKind::Group => Some("Default group resources are not allowed."),
            ResourceKind::ClientMetrics => Some("Subscription name can't be empty"),
            ResourceKind::Broker => None,
        };
        if let Some(text) = empty.filter(|_| name.is_empty()) {
            return Err(AlterResourceError::InvalidName(text));
        }
        if name.len() > MAX_CONFIGURED_NAME_BYTES {
            let text = "The name of the resource is longer than 1024 bytes.";
            return Err(AlterResourceError::InvalidName(text));
        }
        let limits = &self.inner.limits;
        let (what, limit) = match kind {
            ResourceKind::Group => {
                GroupSettings::new(overrides, self.group_defaults())?;
                ("configured groups", limits.configured_groups_per_tenant)
            }
            ResourceKind::ClientMetrics => {
                MetricsSubscription::new(overrides)?;
                ("metrics subscriptions", limits.metrics_subscriptions_per_tenant)
            }
            ResourceKind::Broker => ("configured brokers", limits.configured_brokers_per_tenant),
        };
        let view = self.inner.shared.view.read();
        if kind == ResourceKind::Broker {
            let none = BTreeMap::new();
            let nothing = Configs::default();
            let configs = view.configs(tenant).unwrap_or(&nothing);
            let before = configs.brokers.get(name).map_or(&none, |before| &**before);
            broker_config::check(overrides, before, name == ALL_BROKERS)?;
            // Kafka takes defaults that contradict each other, and then refuses every new topic.
            let defaults = configs.topic_defaults(&self.inner.shared.how, Some((name, overrides)));
            defaults.check().map_err(InvalidBrokerConfig::from)?;
        }
        let (count, known) = view.configs(tenant).map_or((0, false), |configs| {
            (configs.count(kind), configs.overrides(kind, name).is_some())
        });
        if !known && !overrides.is_empty() && count >= limit {
            return Err(AlterResourceError::LimitReached { what, limit });
        }
        Ok(())
    }

    /// Changes what is set on one of the tenant's resources. `edit` is given what is set now and may run
    /// several times, when others change the resource at once; the result is checked as a whole. A
    /// resource on which nothing is left is gone. The limit is checked against the view, so that racing
    /// calls can go past it by as much as is in flight.
    pub async fn update_resource(
        &self,
        tenant: TenantId,
        kind: ResourceKind,
        name: &str,
        mut edit: impl FnMut(&mut BTreeMap<String, String>) + Send,
    ) -> Result<(), AlterResourceError> {
        let key = layout::configs(tenant, kind, name);
        loop {
            let stored = self.inner.store.get(&key).await?;
            let before: ConfigRecord = match &stored {
                Some(entry) => layout::decode(&key, &entry.value).map_err(StoreError::from)?,
                None => ConfigRecord::default(),
            };
            let mut after = before.clone();
            edit(&mut after.overrides);
            self.check_resource(tenant, kind, name, &after.overrides)?;
            if after.overrides == before.overrides {
                return Ok(());
            }
            let txn = match &stored {
                Some(entry) => Txn::new().if_unchanged(&key, entry.mod_revision),
                None => Txn::new().if_absent(&key),
            };
            let txn = match after.overrides.is_empty() {
                true => txn.delete(&key),
                false => txn.put(&key, layout::encode(&after)),
            };
            if let Outcome::Committed(_) = self.commit(txn).await? {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::CatalogLimits;

    use super::*;
    use crate::tests::{A, B, memory, open, options, overrides};

    const SESSION: &str = "consumer.session.timeout.ms";

    async fn set(
        catalog: &Catalog,
        tenant: TenantId,
        kind: ResourceKind,
        name: &str,
        pairs: &[(&str, &str)],
    ) -> Result<(), AlterResourceError> {
        let pairs = overrides(pairs);
        catalog.update_resource(tenant, kind, name, |stored| stored.extend(pairs.clone())).await
    }

    #[tokio::test]
    async fn what_is_set_on_a_group_holds_for_it_alone() {
        let store = memory();
        let catalog = open(&store, 1).await;
        set(&catalog, A, ResourceKind::Group, "g/1", &[(SESSION, "50000")]).await.unwrap();
        let session = |catalog: &Catalog, tenant, group| {
            catalog.settings(tenant, group).consumer.session_timeout_ms
        };
        assert_eq!(session(&catalog, A, "g/1"), 50_000);
        assert_eq!(session(&catalog, A, "g/2"), 45_000);
        // Another tenant's group of that name is another group.
        assert_eq!(session(&catalog, B, "g/1"), 45_000);
        assert!(catalog.configured_resources(B, ResourceKind::Group).is_empty());
        assert!(catalog.resource_overrides(B, ResourceKind::Group, "g/1").is_none());
        // It is durable, and others see it.
        let other = open(&store, 2).await;
        assert_eq!(session(&other, A, "g/1"), 50_000);
        let names = other.configured_resources(A, ResourceKind::Group);
        assert_eq!(names, [Arc::from("g/1")]);
    }

    #[tokio::test]
    async fn a_resource_without_configs_is_gone() {
        let catalog = open(&memory(), 1).await;
        for kind in ResourceKind::ALL {
            let pair = match kind {
                ResourceKind::Group => (SESSION, "50000"),
                ResourceKind::ClientMetrics => ("metrics", "*"),
                ResourceKind::Broker => ("log.retention.ms", "5"),
            };
            set(&catalog, A, kind, "x", &[pair]).await.unwrap();
            assert_eq!(catalog.configured_resources(A, kind).len(), 1);
            catalog.update_resource(A, kind, "x", BTreeMap::clear).await.unwrap();
            assert!(catalog.configured_resources(A, kind).is_empty());
            // Once more: there is nothing to be changed.
            catalog.update_resource(A, kind, "x", BTreeMap::clear).await.unwrap();
        }
        assert!(catalog.inner.shared.view.read().configs(A).is_none());
    }

    #[tokio::test]
    async fn invalid_changes_leave_everything_as_it_was() {
        let catalog = open(&memory(), 1).await;
        let group = ResourceKind::Group;
        set(&catalog, A, group, "g", &[(SESSION, "50000")]).await.unwrap();
        let refused = set(&catalog, A, group, "g", &[(SESSION, "1")]).await;
        assert!(matches!(refused, Err(AlterResourceError::InvalidGroup(_))));
        let refused = set(&catalog, A, group, "", &[(SESSION, "50000")]).await;
        assert!(matches!(refused, Err(AlterResourceError::InvalidName(_))));
        let long = "g".repeat(MAX_CONFIGURED_NAME_BYTES + 1);
        let refused = set(&catalog, A, group, &long, &[(SESSION, "50000")]).await;
        assert!(matches!(refused, Err(AlterResourceError::InvalidName(_))));
        assert_eq!(catalog.settings(A, "g").consumer.session_timeout_ms, 50_000);
        let metrics = ResourceKind::ClientMetrics;
        let refused = set(&catalog, A, metrics, "m", &[("interval.ms", "1")]).await;
        assert!(matches!(refused, Err(AlterResourceError::InvalidSubscription(_))));
        assert!(catalog.metrics_subscriptions(A).is_empty());
    }

    #[tokio::test]
    async fn limits_hold_for_each_tenant() {
        let limits = CatalogLimits {
            configured_groups_per_tenant: 1,
            metrics_subscriptions_per_tenant: 1,
            ..CatalogLimits::default()
        };
        let options = crate::CatalogOptions { limits, ..options(1) };
        let catalog = Catalog::open(memory(), options).await.unwrap();
        let pair = [(SESSION, "50000")];
        set(&catalog, A, ResourceKind::Group, "a", &pair).await.unwrap();
        let refused = set(&catalog, A, ResourceKind::Group, "b", &pair).await;
        assert!(matches!(refused, Err(AlterResourceError::LimitReached { limit: 1, .. })));
        // What is there may be changed, and other tenants have their own.
        set(&catalog, A, ResourceKind::Group, "a", &[(SESSION, "55000")]).await.unwrap();
        set(&catalog, B, ResourceKind::Group, "b", &pair).await.unwrap();
        let all = [("metrics", "*")];
        set(&catalog, A, ResourceKind::ClientMetrics, "a", &all).await.unwrap();
        let refused = set(&catalog, A, ResourceKind::ClientMetrics, "b", &all).await;
        assert!(matches!(refused, Err(AlterResourceError::LimitReached { limit: 1, .. })));
    }
}
