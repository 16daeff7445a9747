//! Volumes: where they are, who owns them, under which epoch.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_model::{NodeId, VolumeEpoch, VolumeId};

use crate::catalog::Catalog;
use crate::layout::{self, VolumeRecord};
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
    /// Where it is: for a file the path, relative ones being under the node's data directory; for a
    /// block device its node; empty for objects, which are found by the volume's id.
    pub location: String,
    /// How large it is; 0 for a block device, which is used whole.
    pub size_bytes: u64,
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
}

impl Volume {
    pub(crate) fn from_record(record: VolumeRecord) -> Self {
        Self { spec: record.spec, owner: record.owner, epoch: record.epoch }
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
        let record = VolumeRecord { spec, owner: None, epoch: VolumeEpoch(0) };
        let key = layout::volume(id);
        let txn = Txn::new().if_absent(&key).put(&key, layout::encode(&record));
        match self.commit(txn).await? {
            Outcome::Conflict => Err(AddVolumeError::Exists(id)),
            Outcome::Committed(_) => {
                Ok(self.volume(id).unwrap_or_else(|| Arc::new(Volume::from_record(record))))
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
