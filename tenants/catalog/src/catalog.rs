//! The handle: opening, and lookups in the view. The mutations are beside what they change.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_model::config::InvalidConfig;
use sluice_model::{
    CatalogLimits, Entropy, GroupDefaults, GroupSettings, NodeId, TenantId, TopicConfig,
    TopicDefaults, TopicId, VolumeId,
};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use crate::cluster::ClusterId;
use crate::follower::{Follower, Shared};
use crate::layout::{self, BadRecord, ClusterRecord};
use crate::moves::Move;
use crate::nodes::Node;
use crate::producer_ids::Block;
use crate::store::{MetadataStore, Outcome, StoreError, Txn};
use crate::topics::Topic;
use crate::view::{Derivation, TopicRules, View};
use crate::volumes::Volume;

/// What a catalog is opened with.
#[derive(Clone)]
pub struct CatalogOptions {
    /// The node that opens it: configs that tenants set on this broker alone hold here. None for a tool.
    pub node: Option<NodeId>,
    /// Where ids come from.
    pub entropy: Arc<dyn Entropy>,
    /// The operator's defaults for topics.
    pub topic_defaults: TopicDefaults,
    /// The operator's defaults for groups.
    pub group_defaults: GroupDefaults,
    /// Bounds on what tenants may create.
    pub limits: CatalogLimits,
}

/// Why a catalog was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store cannot be read or written: retry.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store was written by a newer version: start that one.
    #[error(
        "the catalog has format {found} and this version reads up to {known}; start a newer version"
    )]
    NewerFormat {
        /// Of the store.
        found: u32,
        /// Of this version.
        known: u32,
    },
    /// What the store holds does not parse.
    #[error("{0}")]
    Corrupt(String),
}

impl From<BadRecord> for OpenError {
    fn from(bad: BadRecord) -> Self {
        Self::Corrupt(bad.to_string())
    }
}

/// What changed in the view.
#[derive(Clone, Debug)]
pub enum Change {
    /// A topic is new.
    TopicCreated(Arc<Topic>),
    /// A topic has more partitions or another configuration.
    TopicChanged {
        /// As it was.
        old: Arc<Topic>,
        /// As it is.
        new: Arc<Topic>,
    },
    /// A topic was deleted and another has its name; seen only when the catalog had lost touch.
    TopicReplaced {
        /// The one that is gone.
        old: Arc<Topic>,
        /// The new one.
        new: Arc<Topic>,
    },
    /// A topic is gone.
    TopicDeleted(Arc<Topic>),
    /// A stream is to move, or is sealed.
    MoveChanged(Arc<Move>),
    /// A stream has moved, or stays where it is: as it was before.
    MoveGone(Arc<Move>),
    /// A node has registered, or again with another address.
    NodeChanged(Arc<Node>),
    /// A node has left or its lease has ended.
    NodeGone(Arc<Node>),
    /// A volume is new or has another owner.
    VolumeChanged(Arc<Volume>),
    /// A volume was taken out.
    VolumeGone(Arc<Volume>),
}

/// The cluster's metadata. Cheap to clone.
///
/// Lookups are synchronous, from memory, and may lag behind what other processes do. A mutation
/// returns when its effect is durable and visible to lookups of this handle and its clones. Dropping a
/// mutation leaves it undecided whether it is made; it is never made in part.
#[derive(Clone)]
pub struct Catalog {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn MetadataStore>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) limits: CatalogLimits,
    pub(crate) producer_ids: tokio::sync::Mutex<Block>,
    cluster: ClusterId,
    cluster_text: String,
    follower: JoinHandle<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Catalog {
    /// Reads the store, creates the cluster's identity if this is the first start, and follows the
    /// store until the last handle is dropped.
    pub async fn open(
        store: Arc<dyn MetadataStore>,
        options: CatalogOptions,
    ) -> Result<Self, OpenError> {
        let cluster = identity(&*store, &*options.entropy).await?;
        let how = Derivation {
            node: options.node,
            rules: TopicRules::new(options.topic_defaults),
            plain_group: Arc::new(GroupSettings::from_stored(
                &BTreeMap::new(),
                &options.group_defaults,
            )),
            group_defaults: options.group_defaults,
        };
        let range = store.range(layout::PREFIX).await?;
        let mut view = View::default();
        let mut bad = None;
        view.replace(&range.entries, &how, |record| bad = Some(record));
        if let Some(record) = bad {
            return Err(record.into());
        }
        let shared = Arc::new(Shared::new(view, how, range.revision));
        let follower = Follower {
            store: Arc::clone(&store),
            shared: Arc::clone(&shared),
            entropy: Arc::clone(&options.entropy),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                shared,
                entropy: options.entropy,
                limits: options.limits,
                producer_ids: tokio::sync::Mutex::default(),
                cluster,
                cluster_text: cluster.to_string(),
                follower: tokio::spawn(follower.run(range.revision)),
            }),
        })
    }

    /// The cluster's id: 22 characters of base64url.
    pub fn cluster_id(&self) -> &str {
        &self.inner.cluster_text
    }

    /// The id of the cluster that a tenant sees.
    pub fn cluster_id_of(&self, tenant: TenantId) -> String {
        self.inner.cluster.of_tenant(tenant).to_string()
    }

    /// A tenant's topic by its name.
    pub fn topic_by_name(&self, tenant: TenantId, name: &str) -> Option<Arc<Topic>> {
        self.inner.shared.view.read().topic(tenant, name).cloned()
    }

    /// A topic by its id, if it is this tenant's. Another tenant's is as absent as one that never was.
    pub fn topic_by_id(&self, tenant: TenantId, id: TopicId) -> Option<Arc<Topic>> {
        self.topic_of_any_tenant(id).filter(|topic| topic.tenant == tenant)
    }

    /// A topic by its id, whosever it is: for writers, which serve all tenants.
    pub fn topic_of_any_tenant(&self, id: TopicId) -> Option<Arc<Topic>> {
        self.inner.shared.view.read().topic_by_id(id).cloned()
    }

    /// A tenant's topics, sorted by name.
    pub fn topics(&self, tenant: TenantId) -> Vec<Arc<Topic>> {
        self.inner.shared.view.read().topics(tenant).cloned().collect()
    }

    /// Tells whether a tenant's topics have changed: another number after each creation, deletion or
    /// change of one of them, in this process; 0 while there are none. It means nothing to others.
    pub fn topics_version(&self, tenant: TenantId) -> u64 {
        self.inner.shared.view.read().topics_version(tenant)
    }

    /// Every topic of every tenant, in no order: for writers.
    pub fn topics_of_all_tenants(&self) -> Vec<Arc<Topic>> {
        self.inner.shared.view.read().all_topics().cloned().collect()
    }

    /// What holds for a tenant's topics that do not say otherwise, as `topic_config::describe` wants it.
    pub fn topic_defaults(&self, tenant: TenantId) -> Arc<TopicDefaults> {
        let shared = &self.inner.shared;
        Arc::clone(&shared.view.read().topic_rules(tenant, &shared.how).defaults)
    }

    /// The effective configuration of a topic with these overrides, if they are valid.
    pub fn check_overrides(
        &self,
        tenant: TenantId,
        overrides: &BTreeMap<String, String>,
    ) -> Result<TopicConfig, InvalidConfig> {
        TopicConfig::new(overrides, &self.topic_defaults(tenant))
    }

    /// The live nodes, by id.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.inner.shared.view.read().nodes().cloned().collect()
    }

    /// A live node.
    pub fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.inner.shared.view.read().node(id).cloned()
    }

    /// The volumes, by id.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.inner.shared.view.read().volumes().cloned().collect()
    }

    /// The volume with the smallest id: coordinators live on it.
    pub fn first_volume(&self) -> Option<Arc<Volume>> {
        self.inner.shared.view.read().volumes().next().cloned()
    }

    /// A volume.
    pub fn volume(&self, id: VolumeId) -> Option<Arc<Volume>> {
        self.inner.shared.view.read().volume(id).cloned()
    }

    /// What changes from now on, in order. A change is visible to lookups when it is received; when
    /// the receiver reports that it lagged, read what you follow again.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.inner.shared.subscribe()
    }

    /// Random bytes from the seam that the catalog was opened with, for ids that need no record.
    pub fn random_16(&self) -> [u8; 16] {
        self.inner.entropy.random_16()
    }

    /// Commits, and waits until the view shows it.
    pub(crate) async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        let outcome = self.inner.store.commit(txn).await?;
        if let Outcome::Committed(revision) = outcome {
            self.inner.shared.reach(revision).await?;
        }
        Ok(outcome)
    }
}

/// Reads the cluster's identity, or creates it. Of several that create it at once one wins.
async fn identity(
    store: &dyn MetadataStore,
    entropy: &dyn Entropy,
) -> Result<ClusterId, OpenError> {
    loop {
        if let Some(entry) = store.get(layout::CLUSTER).await? {
            let record: ClusterRecord = layout::decode(layout::CLUSTER, &entry.value)?;
            if record.format > layout::FORMAT {
                return Err(OpenError::NewerFormat { found: record.format, known: layout::FORMAT });
            }
            return ClusterId::parse(&record.id).ok_or_else(|| {
                OpenError::Corrupt(format!("{} has no valid cluster id", layout::CLUSTER))
            });
        }
        let id = ClusterId::random(entropy).to_string();
        let record = layout::encode(&ClusterRecord { format: layout::FORMAT, id });
        store.commit(Txn::new().if_absent(layout::CLUSTER).put(layout::CLUSTER, record)).await?;
    }
}
