//! Topics: their type and the mutations on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_model::config::InvalidConfig;
use sluice_model::topic_name::{self, InvalidTopicName};
use sluice_model::{TenantId, TopicConfig, TopicId, VolumeEpoch, VolumeId};

use crate::catalog::Catalog;
use crate::layout::{self, TopicRecord};
use crate::placement::place;
use crate::store::{Outcome, Revision, StoreError, Txn};
use crate::view::TopicRules;

/// A topic, as of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Topic {
    /// Its identity.
    pub id: TopicId,
    /// Whose it is.
    pub tenant: TenantId,
    /// What its tenant calls it.
    pub name: Arc<str>,
    /// The volume of each partition, by index; never empty.
    pub partitions: Vec<VolumeId>,
    /// The effective configuration.
    pub config: Arc<TopicConfig>,
    /// What was set on the topic, verbatim.
    pub overrides: BTreeMap<String, String>,
    /// What is added to the volume's epoch for the leader epoch, of partitions that have moved.
    pub epoch_bases: BTreeMap<u32, i32>,
}

impl Topic {
    /// A partition's leader epoch while its volume is owned under `epoch`.
    pub fn leader_epoch(&self, partition: u32, epoch: VolumeEpoch) -> i32 {
        let base = self.epoch_bases.get(&partition).copied().unwrap_or(0);
        VolumeEpoch(epoch.0.saturating_add_signed(base)).leader_epoch()
    }

    pub(crate) fn from_record(
        tenant: TenantId,
        name: &str,
        record: TopicRecord,
        rules: &TopicRules,
    ) -> Self {
        let config = rules.config(&record.overrides);
        Self {
            id: record.id,
            tenant,
            name: name.into(),
            partitions: record.partitions,
            config,
            overrides: record.overrides,
            epoch_bases: record.epoch_bases,
        }
    }
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// The name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// What is set on it.
    pub overrides: BTreeMap<String, String>,
}

/// Why a topic was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateTopicError {
    /// Invalid: the name breaks the rules.
    #[error(transparent)]
    InvalidName(#[from] InvalidTopicName),
    /// Exists: the tenant has a topic of that name.
    #[error("Topic '{0}' already exists.")]
    Exists(String),
    /// Invalid: metrics could not tell the two names apart.
    #[error("Topic '{name}' collides with existing topic: {existing}")]
    Collides {
        /// The name asked for.
        name: String,
        /// The tenant's topic that is there.
        existing: Arc<str>,
    },
    /// Invalid: the number of partitions.
    #[error("Number of partitions must be between 1 and {max}, not {asked}.")]
    InvalidPartitions {
        /// The number asked for.
        asked: u32,
        /// The most for one topic.
        max: u32,
    },
    /// Invalid: the configuration.
    #[error(transparent)]
    InvalidConfig(#[from] InvalidConfig),
    /// Refused by policy: the tenant may not have so many.
    #[error("The limit of {limit} {what} is reached.")]
    LimitReached {
        /// Topics or partitions.
        what: &'static str,
        /// How many the tenant may have.
        limit: usize,
    },
    /// Retry: the cluster has no volume yet.
    #[error("The cluster has no volume to put partitions on yet.")]
    NoVolumes,
    /// Retry: the store.
    #[error("The cluster's metadata cannot be written now.")]
    Unavailable(#[from] StoreError),
}

/// Why a topic was not deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeleteTopicError {
    /// The tenant has no such topic.
    #[error("This server does not host this topic.")]
    NotFound,
    /// Retry: the store.
    #[error("The cluster's metadata cannot be written now.")]
    Unavailable(#[from] StoreError),
}

/// Why a topic did not get more partitions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreatePartitionsError {
    /// The tenant has no such topic.
    #[error("This server does not host this topic.")]
    NotFound,
    /// Invalid: partitions can only be added.
    #[error("{}", not_more(.topic, *.current, *.asked))]
    NotMore {
        /// The topic's name.
        topic: Arc<str>,
        /// How many there are.
        current: u32,
        /// How many were asked for.
        asked: u32,
    },
    /// Invalid: too many for one topic.
    #[error("Number of partitions must be between 1 and {max}, not {asked}.")]
    InvalidPartitions {
        /// The number asked for.
        asked: u32,
        /// The most for one topic.
        max: u32,
    },
    /// Refused by policy: the tenant may not have so many.
    #[error("The limit of {limit} partitions is reached.")]
    LimitReached {
        /// How many the tenant may have.
        limit: usize,
    },
    /// Retry: the cluster has no volume yet.
    #[error("The cluster has no volume to put partitions on yet.")]
    NoVolumes,
    /// Retry: the store.
    #[error("The cluster's metadata cannot be written now.")]
    Unavailable(#[from] StoreError),
}

/// Kafka's words.
fn not_more(topic: &str, current: u32, asked: u32) -> String {
    match current == asked {
        true => format!("Topic already has {current} partition(s)."),
        false => format!(
            "The topic {topic} currently has {current} partition(s); {asked} would not be an increase."
        ),
    }
}

/// Why a topic's configuration was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AlterTopicError {
    /// The tenant has no such topic.
    #[error("This server does not host this topic.")]
    NotFound,
    /// Invalid: the configuration that would result.
    #[error(transparent)]
    InvalidConfig(#[from] InvalidConfig),
    /// Retry: the store.
    #[error("The cluster's metadata cannot be written now.")]
    Unavailable(#[from] StoreError),
}

impl Catalog {
    /// What [`Catalog::create_topic`] would refuse now, without making anything. Kafka's order of
    /// checks: the name, whether it exists, the configuration, the partitions.
    pub fn check_create_topic(
        &self,
        tenant: TenantId,
        new: &NewTopic,
    ) -> Result<(), CreateTopicError> {
        topic_name::validate(&new.name)?;
        let limits = &self.inner.limits;
        let how = &self.inner.shared.how;
        let view = self.inner.shared.view.read();
        if view.topic(tenant, &new.name).is_some() {
            return Err(CreateTopicError::Exists(new.name.clone()));
        }
        if let Some(existing) = view.collision(tenant, &new.name) {
            return Err(CreateTopicError::Collides { name: new.name.clone(), existing });
        }
        TopicConfig::new(&new.overrides, &view.topic_rules(tenant, how).defaults)?;
        let max = limits.partitions_per_topic;
        if new.partitions == 0 || new.partitions > max {
            return Err(CreateTopicError::InvalidPartitions { asked: new.partitions, max });
        }
        let (topics, partitions) = view.usage(tenant);
        if topics >= limits.topics_per_tenant {
            let limit = limits.topics_per_tenant;
            return Err(CreateTopicError::LimitReached { what: "topics", limit });
        }
        if partitions + new.partitions as usize > limits.partitions_per_tenant {
            let limit = limits.partitions_per_tenant;
            return Err(CreateTopicError::LimitReached { what: "partitions", limit });
        }
        if view.volumes().next().is_none() {
            return Err(CreateTopicError::NoVolumes);
        }
        Ok(())
    }

    /// Creates a topic. Of several that create one name at once, one succeeds and the others are told
    /// that it exists. Collisions and limits are checked against the view, so that racing calls can
    /// go past them by as much as is in flight.
    pub async fn create_topic(
        &self,
        tenant: TenantId,
        new: NewTopic,
    ) -> Result<Arc<Topic>, CreateTopicError> {
        self.check_create_topic(tenant, &new)?;
        let id = self.new_topic_id();
        let candidates = self.inner.shared.view.read().candidates(&[]);
        let partitions = place(id, &candidates, new.partitions as usize);
        if partitions.is_empty() {
            return Err(CreateTopicError::NoVolumes);
        }
        let overrides = new.overrides;
        let record = TopicRecord { id, partitions, overrides, epoch_bases: BTreeMap::new() };
        let key = layout::topic(tenant, &new.name);
        let txn = Txn::new().if_absent(&key).put(&key, layout::encode(&record));
        match self.commit(txn).await? {
            Outcome::Conflict => Err(CreateTopicError::Exists(new.name)),
            // The view may have moved on by now, and no longer have it.
            Outcome::Committed(_) => Ok(self.topic_by_id(tenant, id).unwrap_or_else(|| {
                let shared = &self.inner.shared;
                let view = shared.view.read();
                let rules = view.topic_rules(tenant, &shared.how);
                Arc::new(Topic::from_record(tenant, &new.name, record, rules))
            })),
        }
    }

    /// Deletes a topic.
    pub async fn delete_topic(
        &self,
        tenant: TenantId,
        id: TopicId,
    ) -> Result<(), DeleteTopicError> {
        loop {
            let (key, _, since) =
                self.stored_topic(tenant, id).await?.ok_or(DeleteTopicError::NotFound)?;
            let txn = Txn::new().if_unchanged(&key, since).delete(&key);
            if let Outcome::Committed(_) = self.commit(txn).await? {
                return Ok(());
            }
        }
    }

    /// What [`Catalog::create_partitions`] would refuse now, without making anything.
    pub fn check_create_partitions(
        &self,
        tenant: TenantId,
        id: TopicId,
        new_total: u32,
    ) -> Result<(), CreatePartitionsError> {
        let topic = self.topic_by_id(tenant, id).ok_or(CreatePartitionsError::NotFound)?;
        self.check_growth(tenant, &topic.name, topic.partitions.len(), new_total)
    }

    /// Gives a topic more partitions, so that it has `new_total`.
    pub async fn create_partitions(
        &self,
        tenant: TenantId,
        id: TopicId,
        new_total: u32,
    ) -> Result<Arc<Topic>, CreatePartitionsError> {
        loop {
            let (key, mut record, since) =
                self.stored_topic(tenant, id).await?.ok_or(CreatePartitionsError::NotFound)?;
            let topic = self.topic_by_id(tenant, id).ok_or(CreatePartitionsError::NotFound)?;
            let current = record.partitions.len();
            self.check_growth(tenant, &topic.name, current, new_total)?;
            let candidates = self.inner.shared.view.read().candidates(&record.partitions);
            let more = place(id, &candidates, new_total as usize - current);
            if more.is_empty() {
                return Err(CreatePartitionsError::NoVolumes);
            }
            record.partitions.extend(more);
            if self.replace_topic(&key, &record, since).await? {
                return self.topic_by_id(tenant, id).ok_or(CreatePartitionsError::NotFound);
            }
        }
    }

    /// Changes what is set on a topic. `edit` is given the overrides as they are and may run several
    /// times, when others change the topic at once; the result is checked as a whole.
    pub async fn update_topic_overrides(
        &self,
        tenant: TenantId,
        id: TopicId,
        mut edit: impl FnMut(&mut BTreeMap<String, String>) + Send,
    ) -> Result<Arc<Topic>, AlterTopicError> {
        loop {
            let (key, mut record, since) =
                self.stored_topic(tenant, id).await?.ok_or(AlterTopicError::NotFound)?;
            let before = record.overrides.clone();
            edit(&mut record.overrides);
            self.check_overrides(tenant, &record.overrides)?;
            if record.overrides == before || self.replace_topic(&key, &record, since).await? {
                return self.topic_by_id(tenant, id).ok_or(AlterTopicError::NotFound);
            }
        }
    }

    fn check_growth(
        &self,
        tenant: TenantId,
        name: &Arc<str>,
        current: usize,
        asked: u32,
    ) -> Result<(), CreatePartitionsError> {
        let limits = &self.inner.limits;
        let max = limits.partitions_per_topic;
        if asked as usize <= current {
            let current = u32::try_from(current).unwrap_or(u32::MAX);
            let topic = Arc::clone(name);
            return Err(CreatePartitionsError::NotMore { topic, current, asked });
        }
        if asked > max {
            return Err(CreatePartitionsError::InvalidPartitions { asked, max });
        }
        let (_, partitions) = self.inner.shared.view.read().usage(tenant);
        if partitions + (asked as usize - current) > limits.partitions_per_tenant {
            return Err(CreatePartitionsError::LimitReached {
                limit: limits.partitions_per_tenant,
            });
        }
        Ok(())
    }

    /// The key, record and revision of a topic as the store has them now.
    pub(crate) async fn stored_topic(
        &self,
        tenant: TenantId,
        id: TopicId,
    ) -> Result<Option<(String, TopicRecord, Revision)>, StoreError> {
        let Some(topic) = self.topic_by_id(tenant, id) else { return Ok(None) };
        let key = layout::topic(tenant, &topic.name);
        let Some(entry) = self.inner.store.get(&key).await? else { return Ok(None) };
        let record: TopicRecord = layout::decode(&key, &entry.value)?;
        // Another topic may have taken the name.
        Ok((record.id == id).then_some((key, record, entry.mod_revision)))
    }

    async fn replace_topic(
        &self,
        key: &str,
        record: &TopicRecord,
        since: Revision,
    ) -> Result<bool, StoreError> {
        let txn = Txn::new().if_unchanged(key, since).put(key, layout::encode(record));
        Ok(matches!(self.commit(txn).await?, Outcome::Committed(_)))
    }

    fn new_topic_id(&self) -> TopicId {
        loop {
            let id = TopicId(self.inner.entropy.random_16());
            if !id.is_internal() && self.topic_of_any_tenant(id).is_none() {
                return id;
            }
        }
    }
}
