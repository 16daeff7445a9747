//! Where a volume lies, and how one is made and opened there: the one place that knows all kinds.

use std::fmt;
use std::path::PathBuf;

use sluice_model::{VolumeEpoch, VolumeId};

use crate::block::{BlockOptions, BlockVolume};
use crate::error::{CreateError, OpenError};
use crate::file::{CreateOptions, FileVolume, OpenOptions};
use crate::object::ObjectVolume;
use crate::sim::SimDevice;
use crate::volume::Recovery;

/// What a volume lies on.
#[derive(Clone, Debug)]
pub enum Medium {
    /// A file of fixed size.
    File {
        /// Where it is.
        path: PathBuf,
        /// Its size, in bytes, when it has to be created.
        size_bytes: u64,
    },
    /// A block device, all of it: a disk, a partition, a loop device.
    Block {
        /// Its node.
        path: PathBuf,
    },
    /// A directory of a bucket. Whatever is asked waits until the bucket answers.
    Object(ObjectVolume),
    /// A simulated disk, which holds a volume from the start.
    Simulated(SimDevice),
}

impl Medium {
    /// Whether a volume was created here before; not whether it is whole. What cannot be asked counts as
    /// absent: making the volume, or opening it, will tell why.
    pub async fn exists(&self) -> bool {
        match self {
            Self::File { path, .. } => tokio::fs::try_exists(path).await.unwrap_or(false),
            Self::Block { path } => BlockVolume::exists(path).await.unwrap_or(false),
            Self::Object(volume) => volume.exists().await,
            Self::Simulated(_) => true,
        }
    }

    /// Creates the volume, whole or not at all. `uuid` is random, so that no other volume's bytes are
    /// ever taken for this one's.
    pub async fn create(&self, id: VolumeId, uuid: [u8; 16]) -> Result<(), CreateError> {
        match self {
            Self::File { path, size_bytes } => {
                FileVolume::create(path, CreateOptions::new(id, uuid, *size_bytes)).await
            }
            Self::Block { path } => BlockVolume::create(path, BlockOptions::new(id, uuid)).await,
            Self::Object(volume) => volume.create(id, uuid).await,
            Self::Simulated(_) => Ok(()),
        }
    }

    /// Opens the volume under `epoch`, which fences every older owner; `epoch` must be larger than any
    /// before. The log is read by the recovery.
    pub async fn open(
        &self,
        id: VolumeId,
        epoch: VolumeEpoch,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        match self {
            Self::File { path, .. } => FileVolume::open(path, id, epoch, options).await,
            Self::Block { path } => BlockVolume::open(path, id, epoch, options).await,
            Self::Object(volume) => volume.open(id, epoch, options).await,
            Self::Simulated(device) => device.open(id, epoch, options).await,
        }
    }
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } | Self::Block { path } => path.display().fmt(f),
            Self::Object(volume) => volume.fmt(f),
            Self::Simulated(_) => f.write_str("a simulated disk"),
        }
    }
}
