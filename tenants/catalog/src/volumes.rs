//! Volumes: where they are, who reaches and owns them, under which epoch, and who shall own them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_model::{NodeId, VolumeEpoch, VolumeId};

use crate::catalog::Catalog;
use crate::layout::{self, VolumeRecord};
use crate::nodes::NodeSpec;
use crate::store::{Outcome, StoreError, Txn};

/// What a volume is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VolumeKind {
    /// A file of fixed size.
    File,
    /// A whole block device.
    Block,
    /// Objects in the bucket.
    Object,
}

/// A volume, apart from who owns it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its identity.
    pub id: VolumeId,
    /// What it is made of.
    pub kind: VolumeKind,
    /// Where it is: for a file the path, relative ones being under the home's data directory; for a
    /// block device its node; empty for objects, which are found by the volume's id.
    pub location: String,
    /// How large it is; 0 for a block device, which is used whole.
    pub size_bytes: u64,
    /// The one node that reaches it: a file lies in that node's data directory. `None`: see `zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<NodeId>,
    /// The zone whose nodes reach it; `None` for all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl VolumeSpec {
    /// A volume that every node reaches.
    pub fn new(
        id: VolumeId,
        kind: VolumeKind,
        location: impl Into<String>,
        size_bytes: u64,
    ) -> Self {
        Self { id, kind, location: location.into(), size_bytes, home: None, zone: None }
    }

    /// Whether the node can have it: it is a writer, and reaches the medium.
    pub fn is_reached_by(&self, node: &NodeSpec) -> bool {
        node.roles.writer
            && self.home.is_none_or(|home| home == node.id)
            && (self.zone.is_none() || self.zone == node.rack)
    }

    /// Whether it is a file that several nodes reach. Such a medium need not fence: the file's lock may hold on
    /// one host alone, so owners must not overlap in time either.
    pub fn is_shared_file(&self) -> bool {
        self.kind == VolumeKind::File && self.home.is_none() && self.location.starts_with('/')
    }
}

/// A volume, as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// What and where it is.
    pub spec: VolumeSpec,
    /// Who owns it; `None` before the first claim, and after its owner gave it up.
    pub owner: Option<NodeId>,
    /// Grows by one at each claim; 0 before the first.
    pub epoch: VolumeEpoch,
    /// Who shall own it: the owner hands it over to that node, if it lives and reaches the volume. `None` if nobody
    /// wants anything of it.
    pub wanted: Option<NodeId>,
}

impl Volume {
    pub(crate) fn from_record(record: VolumeRecord) -> Self {
        let VolumeRecord { spec, owner, epoch, wanted } = record;
        Self { spec, owner, epoch, wanted }
    }
}

/// Why a volume was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddVolumeError {
    /// There is a volume of that id.
    #[error("volume {0} exists already")]
    Exists(VolumeId),
    /// Retry: the store.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// Why nothing was noted of who shall own a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantVolumeError {
    /// There is no such volume.
    #[error("there is no volume {0}")]
    NotFound(VolumeId),
    /// Retry: the store.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// Why a volume was not claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// There is no such volume.
    #[error("there is no volume {0}")]
    NotFound(VolumeId),
    /// Somebody claimed it first; look at the volume again before claiming it.
    #[error("volume {id} has epoch {} and not the expected one", epoch.0)]
    Lost {
        /// The volume.
        id: VolumeId,
        /// Who owns it now.
        owner: Option<NodeId>,
        /// Under this epoch.
        epoch: VolumeEpoch,
    },
    /// The epochs of this volume are used up: move its streams elsewhere.
    #[error("volume {0} has had its last epoch")]
    Exhausted(VolumeId),
    /// Retry, after looking whether the claim was made: the store.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// Why a volume was not given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseVolumeError {
    /// There is no such volume.
    #[error("there is no volume {0}")]
    NotFound(VolumeId),
    /// It is not the caller's under that epoch (any more): there is nothing to give up.
    #[error("volume {id} has epoch {} and is another owner's, or nobody's", epoch.0)]
    NotOwner {
        /// The volume.
        id: VolumeId,
        /// Who owns it now.
        owner: Option<NodeId>,
        /// Under this epoch.
        epoch: VolumeEpoch,
    },
    /// Retry: the store.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

impl Catalog {
    /// Adds a volume that nobody owns yet. New partitions may be placed on it from now on.
    pub async fn add_volume(&self, spec: VolumeSpec) -> Result<Arc<Volume>, AddVolumeError> {
        let id = spec.id;
        let record = VolumeRecord { spec, owner: None, epoch: VolumeEpoch(0), wanted: None };
        let key = layout::volume(id);
        let txn = Txn::new().if_absent(&key).put(&key, layout::encode(&record));
        match self.commit(txn).await? {
            Outcome::Conflict => Err(AddVolumeError::Exists(id)),
            Outcome::Committed(_) => {
                Ok(self.volume(id).unwrap_or_else(|| Arc::new(Volume::from_record(record))))
            }
        }
    }

    /// Adds volumes that nobody owns yet, one after the other, for as long as `missing` names one. It is asked with
    /// all that there are, by id, as the store has them at that moment, and asked again when another node
    /// was first with the id that it chose; so nodes that add volumes at the same time add no more than are missing,
    /// if each chooses the next id. Gives how many were added.
    pub async fn add_volumes(
        &self,
        missing: impl Fn(&[VolumeSpec]) -> Option<VolumeSpec>,
    ) -> Result<usize, StoreError> {
        let mut added = 0;
        loop {
            let range = self.inner.store.range(layout::VOLUMES).await?;
            let mut known = Vec::with_capacity(range.entries.len());
            for entry in &range.entries {
                known.push(layout::decode::<VolumeRecord>(&entry.key, &entry.value)?.spec);
            }
            known.sort_unstable_by_key(|spec| spec.id);
            let Some(spec) = missing(&known) else {
                // What others added is seen by lookups, too.
                let newest = range.entries.iter().map(|entry| entry.mod_revision).max();
                self.inner.shared.reach(newest.unwrap_or_default()).await?;
                return Ok(added);
            };
            match self.add_volume(spec).await {
                Ok(_) => added += 1,
                Err(AddVolumeError::Exists(_)) => {}
                Err(AddVolumeError::Unavailable(error)) => return Err(error),
            }
        }
    }

    /// A volume as the store has it now, which may be newer than what lookups show.
    pub async fn read_volume(&self, id: VolumeId) -> Result<Option<Volume>, StoreError> {
        let key = layout::volume(id);
        let Some(entry) = self.inner.store.get(&key).await? else { return Ok(None) };
        Ok(Some(Volume::from_record(layout::decode(&key, &entry.value)?)))
    }

    /// Notes who shall own a volume. Its owner and its epoch stay what they are.
    pub async fn want_volume(
        &self,
        id: VolumeId,
        wanted: Option<NodeId>,
    ) -> Result<(), WantVolumeError> {
        self.change_wanted(id, |_| Some(wanted)).await
    }

    /// Notes that nobody wants anything of a volume any more, if `was` is who shall own it.
    pub async fn settle_volume(&self, id: VolumeId, was: NodeId) -> Result<(), WantVolumeError> {
        self.change_wanted(id, |now| (now == Some(was)).then_some(None)).await
    }

    async fn change_wanted(
        &self,
        id: VolumeId,
        change: impl Fn(Option<NodeId>) -> Option<Option<NodeId>>,
    ) -> Result<(), WantVolumeError> {
        let key = layout::volume(id);
        loop {
            let entry = self.inner.store.get(&key).await?.ok_or(WantVolumeError::NotFound(id))?;
            let mut record: VolumeRecord =
                layout::decode(&key, &entry.value).map_err(StoreError::from)?;
            match change(record.wanted) {
                Some(wanted) if wanted != record.wanted => record.wanted = wanted,
                _ => return Ok(()),
            }
            let txn = Txn::new()
                .if_unchanged(&key, entry.mod_revision)
                .put(&key, layout::encode(&record));
            if let Outcome::Committed(_) = self.commit(txn).await? {
                return Ok(());
            }
        }
    }

    /// Makes `node` the owner of a volume, if its epoch is still the expected one: of all claims that
    /// expect one epoch at most one succeeds. The new epoch is the next one, and no other claim ever
    /// gets it. The old owner is not fenced by this: open the volume under the new epoch for that.
    pub async fn claim_volume(
        &self,
        id: VolumeId,
        node: NodeId,
        expected: VolumeEpoch,
    ) -> Result<VolumeEpoch, ClaimError> {
        let key = layout::volume(id);
        loop {
            let entry = self.inner.store.get(&key).await?.ok_or(ClaimError::NotFound(id))?;
            let mut record: VolumeRecord =
                layout::decode(&key, &entry.value).map_err(StoreError::from)?;
            if record.epoch != expected {
                return Err(ClaimError::Lost { id, owner: record.owner, epoch: record.epoch });
            }
            if record.epoch >= VolumeEpoch::MAX {
                return Err(ClaimError::Exhausted(id));
            }
            let epoch = VolumeEpoch(record.epoch.0 + 1);
            record.owner = Some(node);
            record.epoch = epoch;
            let txn = Txn::new()
                .if_unchanged(&key, entry.mod_revision)
                .put(&key, layout::encode(&record));
            if let Outcome::Committed(_) = self.commit(txn).await? {
                return Ok(epoch);
            }
        }
    }

    /// Gives up a volume that `node` owns under `epoch`: it has no owner then, and the same epoch. May be
    /// repeated: giving up what nobody has claimed since is a success. Close the volume before: whoever
    /// claims it next need not wait for anything.
    pub async fn release_volume(
        &self,
        id: VolumeId,
        node: NodeId,
        epoch: VolumeEpoch,
    ) -> Result<(), ReleaseVolumeError> {
        let key = layout::volume(id);
        loop {
            let entry =
                self.inner.store.get(&key).await?.ok_or(ReleaseVolumeError::NotFound(id))?;
            let mut record: VolumeRecord =
                layout::decode(&key, &entry.value).map_err(StoreError::from)?;
            if record.epoch == epoch && record.owner.is_none() {
                return Ok(());
            }
            if record.epoch != epoch || record.owner != Some(node) {
                let (owner, epoch) = (record.owner, record.epoch);
                return Err(ReleaseVolumeError::NotOwner { id, owner, epoch });
            }
            record.owner = None;
            let txn = Txn::new()
                .if_unchanged(&key, entry.mod_revision)
                .put(&key, layout::encode(&record));
            if let Outcome::Committed(_) = self.commit(txn).await? {
                return Ok(());
            }
        }
    }
}
