//! The store of a single process: the map is in memory, and every transaction goes to a log in one
//! directory before it is answered.
//!
//! A task owns the log and is alone in changing the state (`committer`); transactions that wait for
//! it share one `fdatasync`. Blocking calls never run on the runtime. The log begins with the state as
//! it was when the log was last started over (`frame` has the bytes, `log` the recovery). What
//! always holds: what anyone has read or been told is durable; a torn last write is dropped at open;
//! damage anywhere else is refused, not guessed at; when the disk is full or failing, transactions fail
//! with a retriable error, nothing of them is seen, and all goes on when there is room. What failed so
//! is cut out of the file; only if that fails too, and the process ends before it succeeds, may such a
//! transaction turn out to have been made.
//!
//! One process at a time: a lock on the directory, which the kernel drops when its holder ends.

mod committer;
mod disk;
mod frame;
mod log;
mod state;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::RwLock;
use sluice_model::Entropy;
use tokio::sync::{mpsc, oneshot, watch};

use self::committer::{Committer, Deadlines, Request, Shared};
use self::disk::{DirDisk, Disk, MemoryDisk};
use self::log::Log;
use crate::journal::Image;
use crate::store::{
    Change, Entry, Event, LeaseId, MetadataStore, Outcome, Range, Revision, StoreError, Txn, Watch,
    WatchError,
};

/// How many requests may wait for the committer; more wait to wait.
const WAITING: usize = 256;

/// Why a store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Stop the other process, or use another directory.
    #[error(
        "another process has the catalog in {0} open; stop it or choose another data directory"
    )]
    Locked(PathBuf),
    /// Start the version that wrote it, or a later one.
    #[error(
        "{path} has format version {version}, which this version does not know; start a newer one"
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Restore the file from a copy: something that was acknowledged is damaged.
    #[error("{path} is damaged at byte {offset}: {reason}; restore it from a copy")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// See to the directory or the device.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The embedded store. Cheap to clone; the directory is let go some time after the last clone and the
/// last watch are dropped, or by [`EmbeddedStore::close`].
#[derive(Clone)]
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    revision: watch::Receiver<Revision>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, which is made if it is not there. The entropy sets files apart
    /// from each other.
    pub async fn open(
        dir: impl Into<PathBuf>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, OpenError> {
        let dir = dir.into();
        let path = dir.join("catalog.log");
        let source = Arc::clone(&entropy);
        let opening = tokio::task::spawn_blocking(move || {
            let disk = DirDisk::open(&dir)?;
            Log::open(Box::new(disk), &dir.join("catalog.log"), &*source)
        });
        let (log, state) = opening.await.map_err(|error| OpenError::Io {
            doing: "open",
            path,
            source: io::Error::other(error),
        })??;
        Ok(Self::start(log, state, entropy))
    }

    /// A store that is gone with the process, for tests and simulation: it uses no thread, so that a
    /// run on a simulated clock repeats.
    pub fn in_memory(entropy: Arc<dyn Entropy>) -> Result<Self, OpenError> {
        Self::on(Box::new(MemoryDisk::default()), entropy)
    }

    fn on(disk: Box<dyn Disk>, entropy: Arc<dyn Entropy>) -> Result<Self, OpenError> {
        let (log, state) = Log::open(disk, Path::new("catalog.log"), &*entropy)?;
        Ok(Self::start(log, state, entropy))
    }

    fn start(log: Log, state: state::State, entropy: Arc<dyn Entropy>) -> Self {
        let deadlines = Deadlines::default();
        for (lease, held) in state.leases() {
            deadlines.begin(lease, Duration::from_millis(held.ttl_ms));
        }
        let (revision_tx, revision) = watch::channel(state.revision());
        let (requests, received) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared { state: RwLock::new(state), deadlines });
        let committer = Committer {
            log: Some(log),
            shared: Arc::clone(&shared),
            requests: received,
            revision: revision_tx,
            entropy,
        };
        tokio::spawn(committer.run());
        Self { shared, requests, revision }
    }

    /// Lets go of the directory, after what was handed over before. Mutations after that fail.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_ok() {
            let _ = done.await;
        }
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the catalog has been closed".to_owned());
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

#[async_trait]
impl MetadataStore for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.shared.state.read().get(key))
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        Ok(self.shared.state.read().range(prefix))
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.validate()?;
        self.ask(|reply| Request::Commit(txn, reply)).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        Ok(Box::new(EmbeddedWatch {
            shared: Arc::clone(&self.shared),
            revision: self.revision.clone(),
            prefix: prefix.to_owned(),
            position: after,
        }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.ask(|reply| Request::Grant(ttl, reply)).await
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.shared.deadlines.keep_alive(lease)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Request::Revoke(lease, reply)).await
    }
}

/// A store's directory that no process can open as long as this lives.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "it holds a lock")] std::fs::File);

/// Keeps processes from opening the store in a directory; `None` if one has it open. Changes nothing.
/// Blocks.
pub fn hold(dir: &Path) -> io::Result<Option<Held>> {
    Ok(disk::hold(dir)?.map(Held))
}

/// What the store in a directory holds, and the length of a torn last write that an open would cut off.
/// Nothing is changed, and a process that has the store open is not disturbed; `None` where there is
/// no store. Blocks.
pub fn peek(dir: &Path) -> Result<Option<(Image, usize)>, OpenError> {
    let path = dir.join("catalog.log");
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { doing: "read", path, source }),
        Ok(bytes) => bytes,
    };
    let (state, torn_bytes) = log::read(&bytes, &path)?;
    Ok(Some((Image::of(state.range("")), torn_bytes)))
}

/// A position in the history that the state keeps; holds nothing else.
struct EmbeddedWatch {
    shared: Arc<Shared>,
    revision: watch::Receiver<Revision>,
    prefix: String,
    position: Revision,
}

impl EmbeddedWatch {
    /// The next change that is there already, skipping those of other keys.
    fn advance(&mut self) -> Result<Option<Change>, WatchError> {
        let state = self.shared.state.read();
        while let Some(change) =
            state.change_after(self.position).map_err(|_| WatchError::Compacted)?
        {
            self.position = change.revision;
            let ours = |event: &&Event| event.key().starts_with(&self.prefix);
            let events: Vec<Event> = change.events.iter().filter(ours).cloned().collect();
            if !events.is_empty() {
                return Ok(Some(Change { revision: change.revision, events }));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            // Marked as seen before looking, so that what comes while looking wakes us again.
            self.revision.borrow_and_update();
            if let Some(change) = self.advance()? {
                return Ok(change);
            }
            let closed = |_| WatchError::Interrupted("the catalog has been closed".to_owned());
            self.revision.changed().await.map_err(closed)?;
        }
    }
}

#[cfg(test)]
mod tests;
