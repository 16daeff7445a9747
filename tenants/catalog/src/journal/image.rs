//! A catalog as a value, outside of any store: what a journal or the file of a store that nobody has
//! open holds, taken apart for tools, and put into a new store by a restore.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_model::{NodeId, StreamId, TenantId, TopicId, VolumeEpoch, VolumeId};

use crate::cluster::ClusterId;
use crate::layout::{
    self, BadRecord, ClusterRecord, Key, ProducerIdsRecord, TopicRecord, VolumeRecord,
};
use crate::store::{MAX_OPS, MAX_TXN_BYTES, MetadataStore, Outcome, Range, StoreError, Txn};
use crate::volumes::{Volume, VolumeSpec};

/// Entries under no lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    entries: BTreeMap<String, Bytes>,
}

/// A topic as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTopic {
    /// Whose it is.
    pub tenant: TenantId,
    /// What its tenant calls it.
    pub name: String,
    /// Its identity.
    pub id: TopicId,
    /// The volume of each partition.
    pub partitions: Vec<VolumeId>,
    /// What was set on it, verbatim.
    pub overrides: BTreeMap<String, String>,
}

/// Why an image is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A value does not parse.
    #[error("{0}")]
    Corrupt(String),
    /// It has no cluster id.
    #[error("the catalog has no cluster id")]
    NoCluster,
    /// It was written by a newer version.
    #[error(
        "the catalog has format {found} and this version reads up to {known}; use a newer version"
    )]
    NewerFormat {
        /// Of the catalog.
        found: u32,
        /// Of this version.
        known: u32,
    },
    /// The store that it is written to.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store that it is written to is not empty.
    #[error("the catalog that was to be written holds something already")]
    NotEmpty,
}

impl From<BadRecord> for ImageError {
    fn from(bad: BadRecord) -> Self {
        Self::Corrupt(bad.to_string())
    }
}

impl Image {
    pub(crate) fn new(entries: BTreeMap<String, Bytes>) -> Self {
        Self { entries }
    }

    /// What of a range lives under no lease.
    pub(crate) fn of(range: Range) -> Self {
        let entries = range.entries.into_iter().filter(|entry| entry.lease.is_none());
        Self::new(entries.map(|entry| (entry.key, entry.value)).collect())
    }

    pub(crate) fn set(&mut self, key: String, value: Option<Bytes>) {
        match value {
            Some(value) => self.entries.insert(key, value),
            None => self.entries.remove(&key),
        };
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The cluster's id.
    pub fn cluster_id(&self) -> Result<String, ImageError> {
        let value = self.entries.get(layout::CLUSTER).ok_or(ImageError::NoCluster)?;
        let record: ClusterRecord = layout::decode(layout::CLUSTER, value)?;
        if record.format > layout::FORMAT {
            let (found, known) = (record.format, layout::FORMAT);
            return Err(ImageError::NewerFormat { found, known });
        }
        let id = ClusterId::parse(&record.id).ok_or(ImageError::NoCluster)?;
        Ok(id.to_string())
    }

    /// The volumes, by id.
    pub fn volumes(&self) -> Result<Vec<Volume>, ImageError> {
        let mut volumes = Vec::new();
        for (key, value) in &self.entries {
            if let Key::Volume(_) = Key::parse(key) {
                volumes.push(Volume::from_record(layout::decode(key, value)?));
            }
        }
        volumes.sort_by_key(|volume| volume.spec.id);
        Ok(volumes)
    }

    /// The topics of all tenants, by tenant and name.
    pub fn topics(&self) -> Result<Vec<ListedTopic>, ImageError> {
        let mut topics = Vec::new();
        for (key, value) in &self.entries {
            if let Key::Topic(tenant, name) = Key::parse(key) {
                let TopicRecord { id, partitions, overrides, .. } = layout::decode(key, value)?;
                topics.push(ListedTopic {
                    tenant,
                    name: name.to_owned(),
                    id,
                    partitions,
                    overrides,
                });
            }
        }
        Ok(topics)
    }

    /// Sets where a volume is, and the epoch that its next owner has to go beyond.
    pub fn set_volume(&mut self, spec: VolumeSpec, owner: Option<NodeId>, epoch: VolumeEpoch) {
        let key = layout::volume(spec.id);
        let record = VolumeRecord { spec, owner, epoch, wanted: None };
        self.entries.insert(key, layout::encode(&record).into());
    }

    /// Forgets which streams move, and says where streams are: `place` gives volume and epoch base of those of
    /// which more is known than is stored.
    pub fn settle_streams(
        &mut self,
        mut place: impl FnMut(StreamId) -> Option<(VolumeId, i32)>,
    ) -> Result<(), ImageError> {
        self.entries.retain(|key, _| !matches!(Key::parse(key), Key::Move(_)));
        for (key, value) in &mut self.entries {
            if let Key::Topic(..) = Key::parse(key) {
                let mut record: TopicRecord = layout::decode(key, value)?;
                let TopicRecord { id: topic, partitions, epoch_bases, .. } = &mut record;
                for (partition, volume) in (0..).zip(partitions) {
                    let known = place(StreamId { topic: *topic, partition });
                    let Some((at, epoch_base)) = known else { continue };
                    *volume = at;
                    epoch_bases.remove(&partition);
                    if epoch_base != 0 {
                        epoch_bases.insert(partition, epoch_base);
                    }
                }
                *value = layout::encode(&record).into();
            }
        }
        Ok(())
    }

    /// Makes sure that no producer id below `used` is given out any more, nor any of the `spare` ones that
    /// may have been given out after this image was made.
    pub fn raise_producer_ids(&mut self, used: i64, spare: i64) -> Result<(), ImageError> {
        let key = layout::PRODUCER_IDS;
        let next = match self.entries.get(key) {
            Some(value) => layout::decode::<ProducerIdsRecord>(key, value)?.next,
            None => 0,
        };
        let record = ProducerIdsRecord { next: next.max(used).saturating_add(spare) };
        self.entries.insert(key.to_owned(), layout::encode(&record).into());
        Ok(())
    }

    /// Puts everything into a store that is empty. Not in one transaction: a store in which this was
    /// cut short is of no use.
    pub async fn write_to(&self, store: &dyn MetadataStore) -> Result<(), ImageError> {
        let mut txn = Txn::new();
        let mut bytes = 0;
        for (key, value) in &self.entries {
            let more = key.len() + value.len();
            if txn.ops.len() == MAX_OPS || bytes + more > MAX_TXN_BYTES {
                commit(store, std::mem::take(&mut txn)).await?;
                bytes = 0;
            }
            bytes += more;
            txn = txn.if_absent(key).put(key, value.clone());
        }
        if txn.ops.is_empty() { Ok(()) } else { commit(store, txn).await }
    }
}

async fn commit(store: &dyn MetadataStore, txn: Txn) -> Result<(), ImageError> {
    match store.commit(txn).await? {
        Outcome::Committed(_) => Ok(()),
        Outcome::Conflict => Err(ImageError::NotEmpty),
    }
}
