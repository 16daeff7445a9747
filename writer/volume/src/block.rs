//! Volumes on block devices: a whole device or partition, or a loop device, written past the page cache.
//!
//! The device is claimed for as long as the volume is open: exclusively, which keeps away mounts, RAID and
//! other exclusive openers whatever name they use, and by a lock on the node, which lasts until the
//! kernel has ended the last write of a process that was killed.
//!
//! Other hosts are kept away by persistent reservations (`reserve`), for which that claim is needed.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{OFlags, ioctl_blksszget};
use sluice_model::{VolumeEpoch, VolumeId};

use crate::buffer::AlignedBuf;
use crate::error::{CreateError, OpenError};
use crate::file::{OpenOptions, lock, unlocked};
use crate::geometry::{BLOCK, Geometry, LEAST_RING_BYTES, RING_OFFSET};
use crate::local::{LocalDisk, Opened, read_at};
use crate::reserve;
use crate::scan;
use crate::superblock::{NotASuperblock, SLOT_OFFSETS, Superblock};
use crate::volume::{Kind, Recovery};

/// How much of a device is looked at before it is made a volume: file systems, volume managers, RAID and
/// partition tables all show in it.
const LOOKED_AT_BYTES: u64 = 1 << 20;

/// The kind of volume that is a block device. Its open form is a [`crate::Volume`].
#[derive(Debug, Clone, Copy)]
pub struct BlockVolume;

/// What a block device is to become.
#[derive(Debug, Clone, Copy)]
pub struct BlockOptions {
    /// Its id in the catalog.
    pub id: VolumeId,
    /// Random (`Entropy::random_16`), so that no other volume's bytes are ever taken for this one's.
    pub uuid: [u8; 16],
    /// How many bytes may be in flight; recovery after a crash reads this much beyond the log's end.
    pub window_bytes: u64,
    /// Whether to take the device whatever it carries. What it carries is lost.
    pub overwrite: bool,
}

impl BlockOptions {
    /// A volume with a window of 32 MiB, on a device that carries nothing.
    pub fn new(id: VolumeId, uuid: [u8; 16]) -> Self {
        Self { id, uuid, window_bytes: 32 << 20, overwrite: false }
    }
}

impl BlockVolume {
    /// Whether the device at `path` carries a volume, whole or damaged in one of its two superblocks.
    pub async fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
        let path = path.as_ref().to_owned();
        let look = tokio::task::spawn_blocking(move || {
            // Past the page cache: another host may have made the volume.
            let direct = OFlags::DIRECT.bits() as i32;
            let file = FileOptions::new().read(true).custom_flags(direct).open(&path)?;
            Ok(carried(&file)?.is_some())
        });
        look.await.map_err(io::Error::other)?
    }

    /// Makes the device at `path`, all of it, a volume. Refuses one that carries another volume, or
    /// anything else but zeros in its first MiB, unless it is told to overwrite.
    pub async fn create(path: impl AsRef<Path>, options: BlockOptions) -> Result<(), CreateError> {
        let path = path.as_ref().to_owned();
        let making = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || create(&path, options))
        };
        match making.await {
            Ok(outcome) => outcome,
            Err(gone) => Err(CreateError::Io { path, source: io::Error::other(gone) }),
        }
    }

    /// Opens the volume `id` on the device at `path` under `epoch`, which must be larger than any before:
    /// claims the device, fences older owners on other hosts as the options say, and stores the epoch.
    /// The log is read by the recovery.
    pub async fn open(
        path: impl AsRef<Path>,
        id: VolumeId,
        epoch: VolumeEpoch,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        let path = path.as_ref().to_owned();
        let opening = {
            let path = path.clone();
            move || Ok(Device::open(&path)?)
        };
        let device = unlocked(options.locked_within, opening).await?;
        let file = Arc::new(device.file);
        let still_ours = reserve::fence(&file, id, epoch, options.reservations).await?;
        let opened = Opened {
            file,
            claim: Some(device.claim),
            size_bytes: device.size_bytes,
            kind: Kind::Block,
            still_ours,
        };
        let disk = LocalDisk::new(opened, options.engine, options.depth())?;
        let engine = disk.engine();
        tracing::info!(volume = %id, path = %path.display(), ?engine, "opening volume on a device");
        scan::open(disk, id, epoch, options.settings()).await
    }
}

/// A device that is open, claimed, and fit for a volume.
struct Device {
    file: File,
    claim: File,
    size_bytes: u64,
}

impl Device {
    fn open(path: &Path) -> io::Result<Self> {
        // The bits of open(2) flags fit its int.
        let exclusive = OFlags::EXCL.bits() as i32;
        let direct = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
        if !std::fs::metadata(path)?.file_type().is_block_device() {
            let why = "not a block device: use a volume of kind file for a path in a file system";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        // A handle of its own, so that the claim can end while others are still around.
        let claim = FileOptions::new().read(true).custom_flags(exclusive).open(path)?;
        let mut file = FileOptions::new().read(true).write(true).custom_flags(direct).open(path)?;
        lock(&file)?;
        let sector_bytes = ioctl_blksszget(&file)?;
        if sector_bytes == 0 || !(BLOCK as u32).is_multiple_of(sector_bytes) {
            let why =
                format!("its logical blocks have {sector_bytes} bytes: at most {BLOCK} will do");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
        // A device's metadata does not tell its size; its end does.
        let size_bytes = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, claim, size_bytes })
    }
}

fn create(path: &Path, options: BlockOptions) -> Result<(), CreateError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::ResourceBusy | io::ErrorKind::WouldBlock => {
            CreateError::InUse(path.to_owned())
        }
        _ => CreateError::Io { path: path.to_owned(), source },
    };
    let device = Device::open(path).map_err(failed)?;
    let Some(geometry) = Geometry::new(device.size_bytes, options.window_bytes) else {
        let least_bytes = RING_OFFSET + LEAST_RING_BYTES;
        return Err(CreateError::Size { size_bytes: device.size_bytes, least_bytes });
    };
    if !options.overwrite {
        refuse_foreign(path, &device).map_err(|error| match error {
            Refusal::Foreign(error) => error,
            Refusal::Io(error) => failed(error),
        })?;
    }
    fill(&device.file, Superblock::new(options.id, options.uuid, geometry)).map_err(failed)
}

enum Refusal {
    Foreign(CreateError),
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Makes sure that the device carries nothing.
fn refuse_foreign(path: &Path, device: &Device) -> Result<(), Refusal> {
    let path = || -> PathBuf { path.to_owned() };
    if let Some(carried) = carried(&device.file)? {
        return Err(Refusal::Foreign(CreateError::Carries { path: path(), carried }));
    }
    // Direct reads take whole blocks; what is left of a device beyond them is not used.
    let len = device.size_bytes.min(LOOKED_AT_BYTES) / BLOCK as u64 * BLOCK as u64;
    let header = read_at(&device.file, 0, len as usize)?;
    if let Some(at) = header.iter().position(|byte| *byte != 0) {
        return Err(Refusal::Foreign(CreateError::Foreign { path: path(), at: at as u64 }));
    }
    Ok(())
}

/// The volume that a device carries: its id, if that can be told.
fn carried(file: &File) -> io::Result<Option<Option<VolumeId>>> {
    let mut found = None;
    for offset in SLOT_OFFSETS {
        match Superblock::decode(&read_at(file, offset, BLOCK)?) {
            Ok(superblock) => return Ok(Some(Some(superblock.id))),
            Err(NotASuperblock::Unsupported(_)) => found = Some(None),
            Err(NotASuperblock::Invalid) => {}
        }
    }
    Ok(found)
}

/// Writes the volume's header, durably: zeros first, so that what was there is gone for whoever looks.
fn fill(file: &File, superblock: Superblock) -> io::Result<()> {
    file.write_all_at(AlignedBuf::zeroed(RING_OFFSET as usize).as_ref(), 0)?;
    for counter in 0..SLOT_OFFSETS.len() as u64 {
        let slot = Superblock { counter, ..superblock };
        file.write_all_at(slot.encode().as_ref(), slot.offset())?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests;
