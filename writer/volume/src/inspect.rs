//! Looking at a volume without opening it: what its superblocks say, which frames its log holds, where
//! it ends and why. It takes no lock, fences no one and writes nothing, so it may look at a volume that
//! is in use. Then what it sees may change under it: look again before you believe a damage.
//!
//! It walks the log by the very code that recovery walks it by. It knows nothing of what payloads mean.

use std::fs::{File, OpenOptions as FileOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use sluice_model::{VolumeEpoch, VolumeId};

use crate::disk::ReadAt;
use crate::geometry::BLOCK;
use crate::local::read_at;
use crate::medium::Medium;

use crate::sim::SimDevice;
use crate::superblock::{NotASuperblock, SLOT_OFFSETS, Superblock};
use crate::volume::Lsn;
use crate::walk::{LogEnd, Step, Walk};

/// Why a volume cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is nothing at the path.
    #[error("no such volume")]
    Missing,
    /// It lies in the bucket, as objects that tell of themselves, and has no superblocks.
    #[error("a volume in the bucket has no superblocks: look at the objects of its log")]
    InBucket,
    /// The device cannot be opened or read.
    #[error("cannot read the volume: {0}")]
    Io(#[from] io::Error),
}

/// What a superblock says; `docs/formats.md` tells what each field is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuperblockFields {
    /// Grows by one with each slot that is written; its lowest bit is the slot.
    pub counter: u64,
    /// Random, of the volume's creation.
    pub uuid: [u8; 16],
    /// Its id in the catalog.
    pub id: VolumeId,
    /// The largest epoch under which it was opened.
    pub epoch: VolumeEpoch,
    /// The last epoch under which frames could be written.
    pub log_epoch: VolumeEpoch,
    /// Where `log_epoch` began to write.
    pub log_start: Lsn,
    /// Where the log begins.
    pub trim: Lsn,
    /// The log is durable up to here at least.
    pub durable: Lsn,
    /// Closed in order: the log ends exactly at `durable`.
    pub clean: bool,
    /// The owner's own number, stored with the trim point.
    pub hint: u64,
    /// The device's size at creation, in bytes.
    pub device_bytes: u64,
    /// Where the ring begins on the device, in bytes.
    pub ring_offset: u64,
    /// The ring's size, in bytes.
    pub ring_bytes: u64,
    /// How many bytes may be in flight.
    pub window_bytes: u64,
}

/// One of the two places of a superblock.
#[derive(Debug)]
#[non_exhaustive]
pub enum Slot {
    /// Whole, with a right checksum.
    Valid(SuperblockFields),
    /// All zeros.
    Blank,
    /// Neither: torn, damaged, or no superblock.
    Invalid,
    /// Whole, and of a later format than this release knows.
    Unsupported {
        /// Its version.
        version: u32,
    },
    /// The device does not give it.
    Unreadable(io::Error),
}

/// One frame of the log, its checksums verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedFrame {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// Where it begins on the device, in bytes.
    pub device_offset: u64,
    /// The epoch of the owner who appended it.
    pub epoch: VolumeEpoch,
    /// What was appended: a slice of a read of up to 2 MiB, which it keeps alive.
    pub payload: Bytes,
}

/// Where the log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOfLog {
    /// Where the last frame ends: the head, if the volume was opened now.
    pub head: Lsn,
    /// Why no more frames were found.
    pub why: LogEnd,
    /// Something says that the log was durable up to here, which is beyond `head`: acknowledged frames
    /// are damaged, and recovery would refuse the volume. (Or it is in use, and was trimmed meanwhile.)
    pub durable_beyond: Option<Lsn>,
}

/// A volume as it was when it was looked at.
#[derive(Debug)]
pub struct Inspection {
    /// The device's size now, in bytes.
    pub device_bytes: u64,
    /// The two slots.
    pub slots: [Slot; 2],
    /// What counts: the valid superblock with the larger counter. `None` if recovery would refuse the
    /// volume as damaged or of a later format.
    pub current: Option<SuperblockFields>,
    chosen: Option<Superblock>,
    source: Arc<Source>,
}

/// Looks at the superblocks of the volume on `medium`. Frames are read by [`Inspection::frames`].
pub async fn inspect(medium: &Medium) -> Result<Inspection, InspectError> {
    let opened = match medium {
        Medium::File { path, .. } | Medium::Block { path } => Source::open(path.clone()).await,
        Medium::Object(_) => return Err(InspectError::InBucket),
        Medium::Simulated(device) => Ok((Source::Simulated(device.clone()), device.size_bytes())),
    };
    let (source, device_bytes) = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => InspectError::Missing,
        _ => InspectError::Io(error),
    })?;
    let mut blocks = [Bytes::new(), Bytes::new()];
    let mut slots = [Slot::Blank, Slot::Blank];
    for (index, offset) in SLOT_OFFSETS.into_iter().enumerate() {
        slots[index] = match source.read(offset, BLOCK).await {
            Ok(block) => {
                let slot = Slot::of(&block);
                blocks[index] = block;
                slot
            }
            Err(error) => Slot::Unreadable(error),
        };
    }
    let chosen = Superblock::choose([&blocks[0], &blocks[1]]).ok();
    let current = chosen.as_ref().map(SuperblockFields::from);
    Ok(Inspection { device_bytes, slots, current, chosen, source: Arc::new(source) })
}

impl Inspection {
    /// The log's frames, from the trim point on; `None` without a superblock that counts. Each call
    /// begins anew, with the superblock as it was.
    pub fn frames(&self) -> Option<Frames> {
        let superblock = self.chosen?;
        let walk = Walk::new(Arc::clone(&self.source), superblock);
        Some(Frames { walk, superblock, end: None })
    }
}

/// The frames of a log, in order, in memory bounded as a recovery's is.
pub struct Frames {
    walk: Walk<Source>,
    superblock: Superblock,
    end: Option<EndOfLog>,
}

impl Frames {
    /// The next frame; `None` at the log's end. After an error, which may pass, call again.
    pub async fn next(&mut self) -> io::Result<Option<InspectedFrame>> {
        let frame = match self.walk.step().await? {
            Step::Frame(frame) => frame,
            Step::End(_) => return Ok(None),
        };
        Ok(Some(InspectedFrame {
            lsn: frame.lsn,
            end: frame.end,
            device_offset: self.superblock.geometry.offset(frame.lsn.0),
            epoch: frame.epoch,
            payload: frame.payload,
        }))
    }

    /// Where and why the log ends. Passes over the frames that were not taken yet.
    pub async fn end(&mut self) -> io::Result<EndOfLog> {
        if let Some(end) = self.end {
            return Ok(end);
        }
        let why = loop {
            if let Step::End(why) = self.walk.step().await? {
                break why;
            }
        };
        let durable_beyond = match why {
            LogEnd::Clean => None,
            _ => self.walk.durable_beyond().await?,
        };
        let end = EndOfLog { head: Lsn(self.walk.position()), why, durable_beyond };
        self.end = Some(end);
        Ok(end)
    }
}

impl Slot {
    fn of(block: &[u8]) -> Self {
        match Superblock::decode(block) {
            Ok(superblock) => Self::Valid(SuperblockFields::from(&superblock)),
            Err(NotASuperblock::Unsupported(version)) => Self::Unsupported { version },
            Err(NotASuperblock::Invalid) if block.iter().all(|byte| *byte == 0) => Self::Blank,
            Err(NotASuperblock::Invalid) => Self::Invalid,
        }
    }
}

impl From<&Superblock> for SuperblockFields {
    fn from(from: &Superblock) -> Self {
        Self {
            counter: from.counter,
            uuid: from.uuid,
            id: from.id,
            epoch: from.epoch,
            log_epoch: from.log_epoch,
            log_start: Lsn(from.log_start),
            trim: Lsn(from.trim),
            durable: Lsn(from.durable),
            clean: from.clean,
            hint: from.hint,
            device_bytes: from.geometry.device_bytes,
            ring_offset: from.geometry.ring_offset,
            ring_bytes: from.geometry.ring_bytes,
            window_bytes: from.geometry.window_bytes,
        }
    }
}

/// What is looked at.
#[derive(Debug)]
enum Source {
    File(Arc<File>),
    Simulated(SimDevice),
}

impl Source {
    /// Opens a file or a block device to be read, and tells its size.
    async fn open(path: PathBuf) -> io::Result<(Self, u64)> {
        let opening = tokio::task::spawn_blocking(move || {
            // Past the page cache where that can be: another host may write to the device.
            let direct = OFlags::DIRECT.bits() as i32;
            let mut file = FileOptions::new().read(true).custom_flags(direct).open(&path);
            if matches!(&file, Ok(file) if read_at(file, 0, BLOCK).is_err())
                || matches!(&file, Err(error) if error.kind() == io::ErrorKind::InvalidInput)
            {
                file = File::open(&path);
            }
            let mut file = file?;
            // A block device's metadata does not tell its size; its end does.
            let size_bytes = file.seek(SeekFrom::End(0))?;
            Ok((Self::File(Arc::new(file)), size_bytes))
        });
        opening.await.map_err(io::Error::other)?
    }
}

impl ReadAt for Source {
    async fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match self {
            Self::File(file) => {
                let file = Arc::clone(file);
                let read = tokio::task::spawn_blocking(move || read_at(&file, offset, len));
                read.await.map_err(io::Error::other)?
            }
            Self::Simulated(device) => Ok(Bytes::from(device.peek(offset, len))),
        }
    }
}

#[cfg(test)]
mod tests;
