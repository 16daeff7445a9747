//! The catalog in memory: what lookups read. Built from one range of the store and moved on by the
//! changes that follow it; pure. It is never ahead of the store, and one change of the store becomes
//! visible as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sluice_model::topic_name::collision_form;
use sluice_model::{
    GroupDefaults, GroupSettings, NodeId, StreamId, TenantId, TopicConfig, TopicDefaults, TopicId,
    VolumeId,
};

use crate::catalog::Change;
use crate::configs::{Configs, ResourceKind};
use crate::layout::{self, BadRecord, Key};
use crate::moves::Move;
use crate::nodes::Node;
use crate::placement::Candidate;
use crate::steering::Steering;
use crate::store::{Entry, Event};
use crate::topics::Topic;
use crate::volumes::Volume;

#[derive(Default)]
pub(crate) struct View {
    tenants: HashMap<TenantId, TenantTopics>,
    topics: HashMap<TopicId, Arc<Topic>>,
    configs: HashMap<TenantId, Configs>,
    moves: BTreeMap<StreamId, Arc<Move>>,
    nodes: BTreeMap<NodeId, Arc<Node>>,
    volumes: BTreeMap<VolumeId, Arc<Volume>>,
    steering: Steering,
    /// Partitions of all topics, by volume.
    load: HashMap<VolumeId, usize>,
    /// Counts the changes of topics of all tenants.
    topic_changes: u64,
}

#[derive(Default)]
struct TenantTopics {
    by_name: BTreeMap<Arc<str>, Arc<Topic>>,
    /// Names by their collision form, for those that have one.
    by_form: HashMap<String, Arc<str>>,
    partitions: usize,
    /// The count of changes as of this tenant's last.
    changed: u64,
}

/// What is not in the store's records but decides what a view holds.
pub(crate) struct Derivation {
    /// Whose configs of one broker hold here; none for a process that serves nobody.
    pub(crate) node: Option<NodeId>,
    /// For tenants that set nothing on their brokers.
    pub(crate) rules: TopicRules,
    pub(crate) group_defaults: GroupDefaults,
    /// Shared by all groups without overrides.
    pub(crate) plain_group: Arc<GroupSettings>,
}

/// What holds for topics that do not say otherwise.
#[derive(PartialEq)]
pub(crate) struct TopicRules {
    pub(crate) defaults: Arc<TopicDefaults>,
    /// Shared by all topics without overrides.
    plain: Arc<TopicConfig>,
}

impl TopicRules {
    pub(crate) fn new(defaults: TopicDefaults) -> Self {
        let plain = Arc::new(TopicConfig::from_stored(&BTreeMap::new(), &defaults));
        Self { defaults: Arc::new(defaults), plain }
    }

    /// The effective configuration of a topic with these overrides, which were accepted once.
    pub(crate) fn config(&self, overrides: &BTreeMap<String, String>) -> Arc<TopicConfig> {
        match overrides.is_empty() {
            true => Arc::clone(&self.plain),
            false => Arc::new(TopicConfig::from_stored(overrides, &self.defaults)),
        }
    }
}

impl View {
    pub(crate) fn topic(&self, tenant: TenantId, name: &str) -> Option<&Arc<Topic>> {
        self.tenants.get(&tenant)?.by_name.get(name)
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// Sorted by name.
    pub(crate) fn topics(&self, tenant: TenantId) -> impl Iterator<Item = &Arc<Topic>> {
        self.tenants.get(&tenant).into_iter().flat_map(|topics| topics.by_name.values())
    }

    /// Another number after each change of the tenant's topics; 0 while there are none.
    pub(crate) fn topics_version(&self, tenant: TenantId) -> u64 {
        self.tenants.get(&tenant).map_or(0, |topics| topics.changed)
    }

    pub(crate) fn all_topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The tenant's topic whose name metrics cannot tell from this one.
    pub(crate) fn collision(&self, tenant: TenantId, name: &str) -> Option<Arc<str>> {
        let form = collision_form(name)?;
        self.tenants.get(&tenant)?.by_form.get(&form).cloned()
    }

    /// How many topics and partitions the tenant has.
    pub(crate) fn usage(&self, tenant: TenantId) -> (usize, usize) {
        self.tenants.get(&tenant).map_or((0, 0), |t| (t.by_name.len(), t.partitions))
    }

    /// The defaults of a tenant's topics.
    pub(crate) fn topic_rules<'a>(
        &'a self,
        tenant: TenantId,
        how: &'a Derivation,
    ) -> &'a TopicRules {
        self.configs(tenant).and_then(Configs::topics).unwrap_or(&how.rules)
    }

    /// What the tenant has set on groups, metrics subscriptions and brokers, if anything.
    pub(crate) fn configs(&self, tenant: TenantId) -> Option<&Configs> {
        self.configs.get(&tenant)
    }

    pub(crate) fn moving(&self, stream: StreamId) -> Option<&Arc<Move>> {
        self.moves.get(&stream)
    }

    pub(crate) fn moves(&self) -> impl Iterator<Item = &Arc<Move>> {
        self.moves.values()
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    pub(crate) fn volume(&self, id: VolumeId) -> Option<&Arc<Volume>> {
        self.volumes.get(&id)
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Arc<Volume>> {
        self.volumes.values()
    }

    pub(crate) fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Where partitions may go; `placed` are those that the topic has already. Volumes that no live node reaches are left
    /// out, unless there are no others.
    pub(crate) fn candidates(&self, placed: &[VolumeId]) -> Vec<Candidate> {
        let mut own: HashMap<VolumeId, usize> = HashMap::new();
        for volume in placed {
            *own.entry(*volume).or_default() += 1;
        }
        let count = |counts: &HashMap<_, _>, volume| counts.get(volume).copied().unwrap_or(0);
        let is_reached =
            |volume: &Volume| self.nodes.values().any(|node| volume.spec.is_reached_by(&node.spec));
        let any_reached = self.volumes.values().any(|volume| is_reached(volume));
        self.volumes
            .iter()
            .filter(|(_, volume)| !any_reached || is_reached(volume))
            .map(|(volume, _)| Candidate {
                volume: *volume,
                own: count(&own, volume),
                load: count(&self.load, volume),
            })
            .collect()
    }

    /// Applies one event and tells what changed. A record that does not parse leaves what was there.
    pub(crate) fn apply(
        &mut self,
        event: &Event,
        how: &Derivation,
    ) -> Result<Vec<Change>, BadRecord> {
        match event {
            Event::Put(entry) => self.put(entry, how),
            Event::Delete { key } => Ok(self.remove(key, how)),
        }
    }

    /// Makes the view that of these entries, and tells what changed.
    pub(crate) fn replace(
        &mut self,
        entries: &[Entry],
        how: &Derivation,
        mut bad: impl FnMut(BadRecord),
    ) -> Vec<Change> {
        let present: HashSet<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
        let mut gone: Vec<String> = Vec::new();
        gone.extend(self.topics.values().map(|t| layout::topic(t.tenant, &t.name)));
        for (tenant, configs) in &self.configs {
            for kind in ResourceKind::ALL {
                gone.extend(configs.names(kind).map(|name| layout::configs(*tenant, kind, name)));
            }
        }
        gone.extend(self.moves.keys().map(|stream| layout::stream_move(*stream)));
        gone.extend(self.nodes.keys().map(|id| layout::node(*id)));
        gone.extend(self.volumes.keys().map(|id| layout::volume(*id)));
        gone.extend(self.steering.keys());
        gone.retain(|key| !present.contains(key.as_str()));

        let mut changes: Vec<_> = gone.iter().flat_map(|key| self.remove(key, how)).collect();
        for entry in entries {
            match self.put(entry, how) {
                Ok(change) => changes.extend(change),
                Err(error) => bad(error),
            }
        }
        changes
    }

    fn put(&mut self, entry: &Entry, how: &Derivation) -> Result<Vec<Change>, BadRecord> {
        let Entry { key, value, .. } = entry;
        let change = match Key::parse(key) {
            Key::Topic(tenant, name) => {
                let record: layout::TopicRecord = layout::decode(key, value)?;
                let rules = self.topic_rules(tenant, how);
                self.put_topic(Topic::from_record(tenant, name, record, rules))
            }
            Key::Configs(tenant, kind, name) => {
                let record: layout::ConfigRecord = layout::decode(key, value)?;
                self.configs.entry(tenant).or_default().put(kind, name, record.overrides, how);
                return Ok(self.configs_changed(tenant, kind, how));
            }
            Key::Move(stream) => {
                let moving = Arc::new(Move::from_record(stream, &layout::decode(key, value)?));
                let old = self.moves.insert(stream, Arc::clone(&moving));
                (old.as_ref() != Some(&moving)).then_some(Change::MoveChanged(moving))
            }
            Key::Node(id) => {
                let node = Arc::new(Node::from_record(id, layout::decode(key, value)?));
                let old = self.nodes.insert(id, Arc::clone(&node));
                (old.as_ref() != Some(&node)).then_some(Change::NodeChanged(node))
            }
            Key::Volume(id) => {
                let volume = Arc::new(Volume::from_record(layout::decode(key, value)?));
                let old = self.volumes.insert(id, Arc::clone(&volume));
                (old.as_ref() != Some(&volume)).then_some(Change::VolumeChanged(volume))
            }
            steers @ (Key::Load(_) | Key::Drain(_) | Key::Balancer | Key::Balance) => {
                self.steering.put(&steers, entry)?;
                None
            }
            Key::Other => None,
        };
        Ok(Vec::from_iter(change))
    }

    /// What the configs of a tenant's brokers make of its topics.
    fn configs_changed(
        &mut self,
        tenant: TenantId,
        kind: ResourceKind,
        how: &Derivation,
    ) -> Vec<Change> {
        if kind != ResourceKind::Broker {
            return Vec::new();
        }
        let rules = self.topic_rules(tenant, how);
        let changed = self.topics(tenant).filter_map(|topic| {
            let config = rules.config(&topic.overrides);
            (config != topic.config).then(|| Topic { config, ..Topic::clone(topic) })
        });
        let changed: Vec<Topic> = changed.collect();
        changed.into_iter().filter_map(|topic| self.put_topic(topic)).collect()
    }

    fn put_topic(&mut self, topic: Topic) -> Option<Change> {
        let old = self.topic(topic.tenant, &topic.name).cloned();
        if old.as_deref() == Some(&topic) {
            return None;
        }
        let topic = Arc::new(topic);
        if let Some(old) = &old {
            self.remove_topic(old);
        }
        self.topic_changes += 1;
        let of_tenant = self.tenants.entry(topic.tenant).or_default();
        of_tenant.changed = self.topic_changes;
        of_tenant.partitions += topic.partitions.len();
        of_tenant.by_name.insert(Arc::clone(&topic.name), Arc::clone(&topic));
        if let Some(form) = collision_form(&topic.name) {
            of_tenant.by_form.insert(form, Arc::clone(&topic.name));
        }
        for volume in &topic.partitions {
            *self.load.entry(*volume).or_default() += 1;
        }
        self.topics.insert(topic.id, Arc::clone(&topic));
        Some(match old {
            None => Change::TopicCreated(topic),
            Some(old) if old.id == topic.id => Change::TopicChanged { old, new: topic },
            Some(old) => Change::TopicReplaced { old, new: topic },
        })
    }

    fn remove(&mut self, key: &str, how: &Derivation) -> Vec<Change> {
        let change = match Key::parse(key) {
            Key::Topic(tenant, name) => self.topic(tenant, name).cloned().map(|topic| {
                self.remove_topic(&topic);
                Change::TopicDeleted(topic)
            }),
            Key::Configs(tenant, kind, name) => {
                let Some(of_tenant) = self.configs.get_mut(&tenant) else { return Vec::new() };
                of_tenant.remove(kind, name, how);
                if of_tenant.is_empty() {
                    self.configs.remove(&tenant);
                }
                return self.configs_changed(tenant, kind, how);
            }
            Key::Move(stream) => self.moves.remove(&stream).map(Change::MoveGone),
            Key::Node(id) => self.nodes.remove(&id).map(Change::NodeGone),
            Key::Volume(id) => self.volumes.remove(&id).map(Change::VolumeGone),
            steers @ (Key::Load(_) | Key::Drain(_) | Key::Balancer | Key::Balance) => {
                self.steering.remove(&steers);
                None
            }
            Key::Other => None,
        };
        Vec::from_iter(change)
    }

    fn remove_topic(&mut self, topic: &Topic) {
        self.topics.remove(&topic.id);
        for volume in &topic.partitions {
            if let Some(load) = self.load.get_mut(volume) {
                *load = load.saturating_sub(1);
            }
        }
        let Some(of_tenant) = self.tenants.get_mut(&topic.tenant) else { return };
        self.topic_changes += 1;
        of_tenant.changed = self.topic_changes;
        of_tenant.partitions -= topic.partitions.len();
        of_tenant.by_name.remove(&topic.name);
        if let Some(form) = collision_form(&topic.name)
            && of_tenant.by_form.get(&form) == Some(&topic.name)
        {
            of_tenant.by_form.remove(&form);
        }
        if of_tenant.by_name.is_empty() {
            self.tenants.remove(&topic.tenant);
        }
    }
}
