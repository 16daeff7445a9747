//! What can go wrong with a volume: one enum an operation. Classes by what the caller does next:
//! `Fenced` stop serving the volume; `Io` try again; `Corrupt` and `Damaged` call the operator.

use std::io;
use std::path::PathBuf;

use sluice_model::{VolumeEpoch, VolumeId};

use crate::buffer::FrameBuf;
use crate::volume::Lsn;

/// Why a volume was not created. Nothing is left at the path.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Something is at the path already.
    #[error("{} exists: choose another path, or open it", .0.display())]
    Exists(PathBuf),
    /// The file system has no room for the whole volume.
    #[error("no room for a volume of {size_bytes} bytes at {}: free some, or choose a smaller size", .path.display())]
    NoRoom {
        /// Where it was to be.
        path: PathBuf,
        /// The size that was asked for.
        size_bytes: u64,
    },
    /// The size is out of bounds.
    #[error("a volume has at least {least_bytes} bytes and less than 2^56, not {size_bytes}")]
    Size {
        /// The size that was asked for.
        size_bytes: u64,
        /// The smallest that is allowed.
        least_bytes: u64,
    },
    /// The device carries a volume already: its id, unless a later release made it.
    #[error("{} carries a volume already{}: open that, or wipe the device (wipefs, blkdiscard) if nobody needs it", .path.display(), .carried.map_or_else(String::new, |id| format!(" ({id})")))]
    Carries {
        /// The device.
        path: PathBuf,
        /// What it carries.
        carried: Option<VolumeId>,
    },
    /// The device carries something else than zeros: a file system, a partition table, someone's data.
    #[error("{} is not empty: there is something at byte {at}; wipe it (wipefs, blkdiscard) if nobody needs it", .path.display())]
    Foreign {
        /// The device.
        path: PathBuf,
        /// Where the first of it is.
        at: u64,
    },
    /// The device is mounted, or in other use.
    #[error("{} is in use: unmount it, or end what holds it", .0.display())]
    InUse(PathBuf),
    /// Any other failure of the file system.
    #[error("cannot create a volume at {}: {source}", .path.display())]
    Io {
        /// Where it was to be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Why a volume was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is nothing to open.
    #[error("no such volume")]
    Missing,
    /// Another process, or another handle of this one, has it open.
    #[error("the volume is in use by another owner: end that first")]
    Locked,
    /// The volume was opened under this or a larger epoch before.
    #[error(
        "the volume was opened under epoch {} before: another owner has taken it over, or it belongs to another \
         data directory",
        stored.0
    )]
    Fenced {
        /// The largest epoch so far.
        stored: VolumeEpoch,
    },
    /// The device is reserved, and not for an older owner of the volume: a larger epoch claims it just
    /// now, or something else than this volume's owners uses it.
    #[error(
        "the device is reserved for a newer owner, or for something else: make sure that nothing else \
         uses it, then clear its reservation (docs/fencing.md)"
    )]
    Reserved,
    /// Fencing was required, and the device has no persistent reservations, or not for this process.
    #[error(
        "cannot fence the device: {0}; if no other host can reach it, set volumes.reservations = auto"
    )]
    NoReservations(io::Error),
    /// It is another volume than the one that was asked for.
    #[error("this is volume {found}, not {wanted}")]
    WrongVolume {
        /// The id on the device.
        found: VolumeId,
        /// The id that was asked for.
        wanted: VolumeId,
    },
    /// Neither superblock is whole: not a volume, or damaged twice.
    #[error("no valid superblock: not a volume, or damaged")]
    Damaged,
    /// A later release wrote it.
    #[error("volume format {0} is not known to this release: use a later one")]
    Unsupported(u32),
    /// The device is not what the superblock describes.
    #[error("the device has {actual_bytes} bytes, its superblock says {wanted_bytes}")]
    Truncated {
        /// The device's size.
        actual_bytes: u64,
        /// The size at creation.
        wanted_bytes: u64,
    },
    /// An object of the log in the bucket is not there, or damaged. Nothing was changed.
    #[error("the volume lacks the object {0}, or it is damaged: restore it")]
    LostObject(String),
    /// The device failed; nothing has changed but perhaps the stored epoch.
    #[error("cannot open the volume: {0}")]
    Io(#[from] io::Error),
}

/// Why the log could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The device failed. Open again, under a larger epoch.
    #[error("cannot read the log: {0}")]
    Io(#[from] io::Error),
    /// The log breaks off at `at`, but was durable up to `durable` at least: acknowledged frames are
    /// damaged. The volume is left as it is.
    #[error("the log is damaged at lsn {at}: it was durable up to {durable}; restore or repair it")]
    Corrupt {
        /// The lsn at which no valid frame lies.
        at: Lsn,
        /// What is known to have been durable.
        durable: Lsn,
    },
    /// A whole frame of a format that this release does not know.
    #[error("frame format {version} at lsn {at} is not known to this release: use a later one")]
    Unsupported {
        /// The frame's lsn.
        at: Lsn,
        /// Its version.
        version: u16,
    },
    /// Another owner has the volume.
    #[error("another owner has the volume")]
    Fenced,
}

/// Why a frame was not accepted. Nothing was written. Where the caller may try again it has its frame
/// back.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The ring has no room: trim, then append again.
    #[error("the volume is full: trim it")]
    Full(FrameBuf),
    /// As many frames or bytes are in flight as may be: append again when the oldest is durable.
    #[error("too much is in flight: wait for the oldest ticket")]
    Busy(FrameBuf),
    /// The payload is larger than [`crate::Volume::max_payload_bytes`].
    #[error("the frame is too large for this volume")]
    TooLarge(FrameBuf),
    /// Another owner has the volume.
    #[error("another owner has the volume")]
    Fenced,
    /// The volume was closed.
    #[error("the volume is closed")]
    Closed,
}

/// Why an accepted frame was not acknowledged. It may or may not be found by the next recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDurable {
    /// Another owner has the volume.
    #[error("another owner has the volume")]
    Fenced,
    /// The volume was closed, or its last handle dropped.
    #[error("the volume was closed before the frame was durable")]
    Closed,
}

/// Why a trim did not take place.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// The lsn is before the trim point or after the durable end.
    #[error("lsn {upto} is not between the trim point {trim} and the durable end {durable}")]
    OutOfRange {
        /// What was asked for.
        upto: Lsn,
        /// The trim point.
        trim: Lsn,
        /// The durable end.
        durable: Lsn,
    },
    /// No frame begins there: a trim to it would lose what follows.
    #[error("lsn {0} is not where a frame begins or ends")]
    NotAFrame(Lsn),
    /// The device failed: try again.
    #[error("cannot write the trim point: {0}")]
    Io(#[from] io::Error),
    /// Another owner has the volume.
    #[error("another owner has the volume")]
    Fenced,
    /// The volume was closed.
    #[error("the volume is closed")]
    Closed,
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was trimmed: it is in the bucket.
    #[error("lsn {0} was trimmed")]
    Trimmed(Lsn),
    /// It is not durable (yet).
    #[error("lsn {0} is not durable")]
    NotDurable(Lsn),
    /// No whole frame lies at this lsn of the durable log.
    #[error("no valid frame at lsn {0}: not the start of a frame, or damaged")]
    Corrupt(Lsn),
    /// The device failed: try again.
    #[error("cannot read the volume: {0}")]
    Io(#[from] io::Error),
    /// Another owner has the volume.
    #[error("another owner has the volume")]
    Fenced,
    /// The volume was closed.
    #[error("the volume is closed")]
    Closed,
}

/// Why a close was not clean. The volume is let go of all the same.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// Frames in flight could not be written in time, or the clean end could not be noted.
    #[error("the volume was let go of without a clean end: {0}")]
    Io(#[from] io::Error),
    /// Another owner has the volume.
    #[error("another owner has the volume")]
    Fenced,
}

/// A payload that outgrows a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame's payload has at most {} bytes", crate::MAX_PAYLOAD_BYTES)]
pub struct TooLarge;
