//! Volumes in files: creation, locking, and the choice between direct and cached writes.

use std::fs::{File, OpenOptions as FileOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{
    CWD, FallocateFlags, FlockOperation, OFlags, RenameFlags, fallocate, flock, renameat_with,
};
use rustix::io::Errno;
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::time::{Instant, sleep};

use crate::error::{CreateError, OpenError};
use crate::geometry::{BLOCK, Geometry, LEAST_RING_BYTES, RING_OFFSET};
use crate::local::{Engine, LocalDisk, Opened, read_at};
use crate::log::Settings;
use crate::reserve::Reservations;

use crate::scan;
use crate::superblock::{SLOT_OFFSETS, Superblock};
use crate::volume::{Kind, Lsn, Recovery};

/// Between two looks at a lock that somebody has.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The kind of volume that is a file. Its open form is a [`crate::Volume`].
#[derive(Debug, Clone, Copy)]
pub struct FileVolume;

/// What a new volume is to be.
#[derive(Debug, Clone, Copy)]
pub struct CreateOptions {
    /// Its id in the catalog.
    pub id: VolumeId,
    /// Random (`Entropy::random_16`), so that no other volume's bytes are ever taken for this one's.
    pub uuid: [u8; 16],
    /// The file's size, all of which is reserved at once; at least 128 KiB.
    pub size_bytes: u64,
    /// How many bytes may be in flight; recovery after a crash reads this much beyond the log's end.
    pub window_bytes: u64,
    /// Where its log begins: 0, or, for a volume that takes the place of one that was lost, an lsn that
    /// the lost one never reached. A multiple of 4096; what is more is rounded down.
    pub begin: Lsn,
}

impl CreateOptions {
    /// A volume with a window of 32 MiB.
    pub fn new(id: VolumeId, uuid: [u8; 16], size_bytes: u64) -> Self {
        Self { id, uuid, size_bytes, window_bytes: 32 << 20, begin: Lsn(0) }
    }
}

/// How a volume is used while it is open.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// How many frames may be in flight at once: at least 1.
    pub queue_depth: usize,
    /// How far ahead of the log's head zeros are written until the ring has been filled once, in
    /// idle moments and for small frames only; 0 for never. The first write to each block of a new
    /// file costs its file system a journal commit, which small frames are spared that way.
    pub prewrite_bytes: u64,
    /// How a volume in a file or on a block device writes.
    pub engine: Engine,
    /// Whether a volume on a block device fences its older owners by persistent reservation.
    pub reservations: Reservations,
    /// How long to wait for a lock that somebody has: a process that was killed lets go of it only when
    /// the kernel is done with the writes that it had begun, some time after its end.
    pub locked_within: Duration,
    /// After how long of failing writes [`crate::Health::Failing`] is shown.
    pub failing_after: Duration,
    /// How long a close waits for frames in flight.
    pub close_within: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            queue_depth: 8,
            prewrite_bytes: 16 << 20,
            engine: Engine::Auto,
            reservations: Reservations::Auto,
            locked_within: Duration::from_secs(10),
            failing_after: Duration::from_secs(1),
            close_within: Duration::from_secs(3),
        }
    }
}

impl OpenOptions {
    /// How many operations the device gets at once: superblocks, zeros and reads are not to wait
    /// behind frames.
    pub(crate) fn depth(&self) -> usize {
        self.queue_depth.max(1) + 6
    }

    pub(crate) fn settings(self) -> Settings {
        Settings {
            queue_depth: self.queue_depth.max(1),
            prewrite_bytes: self.prewrite_bytes,
            failing_after: self.failing_after,
            close_within: self.close_within,
        }
    }
}

impl FileVolume {
    /// Creates a volume at `path`: whole or not at all, readable by its owner alone, its room reserved
    /// where the file system can do that. Takes a few milliseconds at any size. An attempt that was
    /// cut short leaves `path` with `.new` added, which the next attempt replaces.
    pub async fn create(path: impl AsRef<Path>, options: CreateOptions) -> Result<(), CreateError> {
        let path = path.as_ref().to_owned();
        let blocking = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || create(&path, options))
        };
        match blocking.await {
            Ok(outcome) => outcome,
            Err(gone) => Err(CreateError::Io { path, source: io::Error::other(gone) }),
        }
    }

    /// Opens the volume `id` at `path` under `epoch`, which must be larger than any before: locks the
    /// file against other processes and handles, and stores the epoch. The log is read by the
    /// recovery. The lock goes when the volume is closed, or when it is dropped and the writes that
    /// had begun have ended.
    pub async fn open(
        path: impl AsRef<Path>,
        id: VolumeId,
        epoch: VolumeEpoch,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        let path = path.as_ref().to_owned();
        let opening = {
            let path = path.clone();
            move || {
                let (file, direct) = open(&path)?;
                let size_bytes = file.metadata()?.len();
                let kind = Kind::File { direct };
                let file = Arc::new(file);
                Ok(Opened { file, claim: None, size_bytes, kind, still_ours: None })
            }
        };
        let opened = unlocked(options.locked_within, opening).await?;
        let kind = opened.kind;
        let disk = LocalDisk::new(opened, options.engine, options.depth())?;
        let engine = disk.engine();
        tracing::info!(volume = %id, path = %path.display(), ?kind, ?engine, "opening volume");
        scan::open(disk, id, epoch, options.settings()).await
    }
}

/// Opens, again and again while somebody has the lock, for so long.
pub(crate) async fn unlocked<T: Send + 'static>(
    within: Duration,
    open: impl Fn() -> Result<T, Opening> + Clone + Send + 'static,
) -> Result<T, OpenError> {
    let end = Instant::now() + within;
    loop {
        let opened = tokio::task::spawn_blocking(open.clone()).await.map_err(io::Error::other)?;
        match opened {
            Err(Opening::Locked) if Instant::now() < end => sleep(LOCK_PAUSE).await,
            opened => return opened.map_err(Opening::refusal),
        }
    }
}

fn create(path: &Path, options: CreateOptions) -> Result<(), CreateError> {
    let Some(geometry) = Geometry::new(options.size_bytes, options.window_bytes) else {
        let least_bytes = RING_OFFSET + LEAST_RING_BYTES;
        return Err(CreateError::Size { size_bytes: options.size_bytes, least_bytes });
    };
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CreateError::Exists(path.to_owned()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            CreateError::NoRoom { path: path.to_owned(), size_bytes: options.size_bytes }
        }
        _ => CreateError::Io { path: path.to_owned(), source },
    };
    if path.try_exists().map_err(failed)? {
        return Err(CreateError::Exists(path.to_owned()));
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let outcome =
        fill(&new, Superblock::new(options.id, options.uuid, geometry).beginning_at(options.begin))
            // The rename refuses to replace: of two creators one wins.
            .and_then(|()| Ok(renameat_with(CWD, &new, CWD, path, RenameFlags::NOREPLACE)?))
            .and_then(|()| sync_directory(path));
    if outcome.is_err() {
        // It may never have come to be; the first error is the one to tell.
        drop(std::fs::remove_file(&new));
    }
    outcome.map_err(failed)
}

/// Makes the file with its room and superblocks, durably.
fn fill(path: &Path, superblock: Superblock) -> io::Result<()> {
    let file =
        FileOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    lock(&file)?;
    // What an attempt before may have left.
    file.set_len(0)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    let size_bytes = superblock.geometry.device_bytes;
    match fallocate(&file, FallocateFlags::empty(), 0, size_bytes) {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            tracing::warn!(
                path = %path.display(),
                "the file system cannot reserve room: the volume may meet a full disk"
            );
            file.set_len(size_bytes)?;
        }
        Err(error) => return Err(error.into()),
    }
    for counter in 0..SLOT_OFFSETS.len() as u64 {
        let slot = Superblock { counter, ..superblock };
        std::os::unix::fs::FileExt::write_all_at(&file, slot.encode().as_ref(), slot.offset())?;
    }
    file.sync_all()
}

/// Makes a new name durable.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// Why a file or device could not be opened.
pub(crate) enum Opening {
    Locked,
    Io(io::Error),
}

impl Opening {
    pub(crate) fn refusal(self) -> OpenError {
        match self {
            Self::Locked => OpenError::Locked,
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => OpenError::Missing,
            Self::Io(error) => OpenError::Io(error),
        }
    }
}

impl From<io::Error> for Opening {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The lock, and the exclusive claim on a device.
            io::ErrorKind::WouldBlock | io::ErrorKind::ResourceBusy => Self::Locked,
            _ => Self::Io(error),
        }
    }
}

pub(crate) fn lock(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

/// Opens and locks; whether for direct I/O.
fn open(path: &Path) -> io::Result<(File, bool)> {
    if let Some(file) = open_direct(path)? {
        return Ok((file, true));
    }
    let file = FileOptions::new().read(true).write(true).open(path)?;
    lock(&file)?;
    Ok((file, false))
}

/// `None` where the file system cannot do it: some refuse the flag, some the first read.
fn open_direct(path: &Path) -> io::Result<Option<File>> {
    // The bits of open(2) flags fit its int.
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits() as i32;
    let opened = FileOptions::new().read(true).write(true).custom_flags(flags).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
        other => other?,
    };
    lock(&file)?;
    match read_at(&file, 0, BLOCK) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        // Anything else is told when the superblocks are read.
        _ => Ok(Some(file)),
    }
}

#[cfg(test)]
mod tests;
