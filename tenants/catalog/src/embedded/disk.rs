//! Where the embedded store's file lies: a directory, or memory for tests and simulation.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::OpenError;

/// One file. Calls may block. After an error of `append` or `truncate` the file's bytes from the
/// position on are unknown; after an error of `replace` the file is either the old or the new one, and
/// both hold the same, but nothing that is appended is durable until an `append` succeeds.
pub(super) trait Disk: Send + 'static {
    /// The whole file, or `None` if there is none.
    fn read(&mut self) -> io::Result<Option<Vec<u8>>>;
    /// Writes at a position, and makes all of it durable.
    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file, durably.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
    /// Puts another file in its place, durably and at once.
    fn replace(&mut self, bytes: &[u8]) -> Result<(), ReplaceError>;
    /// Whether calls may block, so that they may not be made on the runtime.
    fn blocks(&self) -> bool;
}

/// Why a file was not replaced.
#[derive(Debug)]
pub(super) enum ReplaceError {
    /// The old file is still in place.
    Old(io::Error),
    /// The new file is in place, but that is not yet durable.
    New(io::Error),
}

const LOG: &str = "catalog.log";
const NEXT: &str = "catalog.log.new";
const LOCK: &str = "catalog.lock";

/// A directory that this process alone has open.
pub(super) struct DirDisk {
    dir: PathBuf,
    /// To make names durable.
    handle: File,
    log: Option<File>,
    /// Whether the log's name may not be durable yet.
    unsynced_name: bool,
    /// Held as long as the disk lives.
    _lock: File,
}

impl DirDisk {
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        let io = |doing, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { doing, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("create", dir))?;
        let handle = File::open(dir).map_err(io("open", dir))?;
        let lock_path = dir.join(LOCK);
        let lock = options().open(&lock_path).map_err(io("open", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => OpenError::Locked(dir.to_owned()),
            other => io("lock", &lock_path)(other.into()),
        })?;
        Ok(Self { dir: dir.to_owned(), handle, log: None, unsynced_name: false, _lock: lock })
    }

    fn log(&self) -> io::Result<&File> {
        self.log.as_ref().ok_or_else(|| io::Error::other("the catalog's log is not open"))
    }
}

/// Keeps a directory from being opened, without a change to it; see [`super::hold`].
pub(super) fn hold(dir: &Path) -> io::Result<Option<File>> {
    let lock = File::open(dir.join(LOCK))?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(lock)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Only the owner reads the catalog.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

impl Disk for DirDisk {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        // Left by a process that ended while it wrote it; never complete as far as anyone knows.
        match fs::remove_file(self.dir.join(NEXT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let path = self.dir.join(LOG);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        self.log = Some(OpenOptions::new().read(true).write(true).open(path)?);
        Ok(Some(bytes))
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if self.unsynced_name {
            self.handle.sync_all()?;
            self.unsynced_name = false;
        }
        let log = self.log()?;
        log.write_all_at(bytes, at)?;
        log.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let log = self.log()?;
        log.set_len(len)?;
        log.sync_data()
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), ReplaceError> {
        let path = self.dir.join(NEXT);
        let write = || {
            let file = options().open(&path)?;
            file.set_len(0)?;
            file.write_all_at(bytes, 0)?;
            file.sync_all()?;
            fs::rename(&path, self.dir.join(LOG))?;
            Ok(file)
        };
        let file = write().map_err(|error| {
            // Its room may be what is missing.
            let _ = fs::remove_file(&path);
            ReplaceError::Old(error)
        })?;
        self.log = Some(file);
        self.unsynced_name = true;
        self.handle.sync_all().map_err(ReplaceError::New)?;
        self.unsynced_name = false;
        Ok(())
    }

    fn blocks(&self) -> bool {
        true
    }
}

/// A file in memory, gone with the process.
#[derive(Default)]
pub(super) struct MemoryDisk {
    file: Option<Vec<u8>>,
}

impl Disk for MemoryDisk {
    fn read(&mut self) -> io::Result<Option<Vec<u8>>> {
        Ok(self.file.clone())
    }

    fn append(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.truncate(at)?;
        self.file.get_or_insert_default().extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        self.file.get_or_insert_default().truncate(len);
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) -> Result<(), ReplaceError> {
        self.file = Some(bytes.to_vec());
        Ok(())
    }

    fn blocks(&self) -> bool {
        false
    }
}
