//! A file or block device of this machine as a disk: on io_uring where there is one and the page cache is
//! passed by, else on a few threads.
//!
//! It owns the open file and its lock. It does not retry, and it decides what an error means: whether
//! another owner has the device.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sluice_device::{Next, Uring};
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use crate::buffer::AlignedBuf;
use crate::disk::{Disk, ReadAt, Write, WriteError};
use crate::pool::Pool;
use crate::volume::Kind;

/// Enough to pass on answers.
const STACK_BYTES: usize = 128 * 1024;

/// How long to wait before the kernel is asked again for what it had no memory for.
const PAUSE: Duration = Duration::from_millis(5);

/// How a volume on this machine writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// io_uring, or threads where that cannot be: it is told once a volume.
    #[default]
    Auto,
    /// io_uring, or the volume does not open.
    Uring,
    /// Threads, each of which does one blocking write at a time.
    Threads,
}

/// Asks the device whether this owner still holds it. Blocks for as long as the device takes.
pub(crate) type StillOurs = Box<dyn Fn() -> io::Result<bool> + Send + Sync>;

/// What was opened and locked.
pub(crate) struct Opened {
    pub(crate) file: Arc<File>,
    /// What else is to be closed when the file is let go of.
    pub(crate) claim: Option<File>,
    pub(crate) size_bytes: u64,
    /// It tells whether the page cache is passed by: a write is durable when it returns.
    pub(crate) kind: Kind,
    /// For devices that know who may write to them.
    pub(crate) still_ours: Option<StillOurs>,
}

/// A file or device, open and locked.
pub(crate) struct LocalDisk {
    hold: Arc<Hold>,
    size_bytes: u64,
    kind: Kind,
    still_ours: Option<Arc<StillOurs>>,
    works: Works,
    /// Where pauses are waited for.
    runtime: Handle,
}

/// What keeps others away from the file.
struct Hold {
    file: Arc<File>,
    claim: Mutex<Option<File>>,
}

impl Hold {
    /// Closing the file would unlock it too, but handles may stay, and the kernel holds on to a file for a
    /// while after its ring is gone.
    fn let_go(&self) {
        if let Err(error) = flock(&self.file, FlockOperation::Unlock) {
            tracing::warn!(%error, "cannot unlock a closed volume; its next owner may have to wait");
        }
        drop(self.claim.lock().take());
    }
}

enum Works {
    Ring {
        ring: Arc<Uring>,
        /// The last operation is over, and the lock is gone.
        over: watch::Receiver<bool>,
    },
    Pool(Pool),
}

impl LocalDisk {
    /// A disk for `depth` writes at once, within a tokio runtime that has I/O and time.
    pub(crate) fn new(opened: Opened, engine: Engine, depth: usize) -> io::Result<Self> {
        let Opened { file, claim, size_bytes, kind, still_ours } = opened;
        let hold = Arc::new(Hold { file: Arc::clone(&file), claim: Mutex::new(claim) });
        let works = match engine {
            Engine::Threads => Works::Pool(Pool::new(Arc::clone(&file), kind.is_direct(), depth)),
            // A file's cached writes need a flush each, and a flush tells an error to one asker alone: that
            // is the threads' way.
            _ if !kind.is_direct() => Works::Pool(Pool::new(Arc::clone(&file), false, depth)),
            Engine::Auto | Engine::Uring => match ring(&hold, depth) {
                Ok(works) => works,
                Err(error) if engine == Engine::Uring => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "no io_uring here: the volume writes by threads");
                    Works::Pool(Pool::new(Arc::clone(&file), true, depth))
                }
            },
        };
        let still_ours = still_ours.map(Arc::new);
        Ok(Self { hold, size_bytes, kind, still_ours, works, runtime: Handle::current() })
    }

    /// Which of the two it is, for logs.
    pub(crate) fn engine(&self) -> Engine {
        match self.works {
            Works::Ring { .. } => Engine::Uring,
            Works::Pool(_) => Engine::Threads,
        }
    }
}

fn ring(hold: &Arc<Hold>, depth: usize) -> io::Result<Works> {
    let ring = Arc::new(Uring::new(Arc::clone(&hold.file), depth)?);
    let (say, over) = watch::channel(false);
    let end = End { ring: Arc::clone(&ring), hold: Arc::clone(hold), over: say };
    let readable = Arc::clone(&ring).readable()?;
    tokio::spawn(serve(readable, Unfinished(Some(end))));
    Ok(Works::Ring { ring, over })
}

/// Passes on a ring's answers until it is over. A task, not a thread: a ticket is then settled by a thread
/// of the runtime that waits for it, without another one to be woken in between, which at depth 1 is
/// most of what a volume adds to the device's own time.
async fn serve(readable: AsyncFd<Arc<Uring>>, mut unfinished: Unfinished) {
    loop {
        // It fails only while the runtime ends.
        let Ok(mut ready) = readable.readable().await else { return };
        loop {
            match readable.get_ref().answer() {
                Next::Readable => break,
                Next::Soon => sleep(PAUSE).await,
                Next::Over => {
                    if let Some(end) = unfinished.0.take() {
                        end.end();
                    }
                    return;
                }
            }
        }
        ready.clear_ready();
    }
}

/// What is to be done when the last operation is over.
struct End {
    ring: Arc<Uring>,
    hold: Arc<Hold>,
    over: watch::Sender<bool>,
}

impl End {
    fn end(self) {
        self.hold.let_go();
        self.over.send_replace(true);
    }
}

/// A ring that has to be served to its end, also when its runtime goes first.
struct Unfinished(Option<End>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(end) = self.0.take() else { return };
        end.ring.stop();
        let rest = std::thread::Builder::new().name("volume-end".to_owned());
        let rest = rest.stack_size(STACK_BYTES).spawn(move || {
            end.ring.serve();
            end.end();
        });
        if let Err(error) = rest {
            tracing::warn!(%error, "a volume is let go of with writes in flight");
        }
    }
}

impl Drop for LocalDisk {
    /// Lets go at once if nothing is in flight, whatever the runtime does; else when that is over.
    fn drop(&mut self) {
        self.stop();
        if let Works::Ring { ring, .. } = &self.works
            && ring.answer() == Next::Over
        {
            self.hold.let_go();
            // The task that serves has to learn of the end too.
            ring.stop();
        }
    }
}

impl ReadAt for LocalDisk {
    async fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        match &self.works {
            Works::Ring { ring, .. } => {
                let (sender, outcome) = oneshot::channel();
                let (memory, from) = AlignedBuf::zeroed(len).into_parts();
                // A reader that no longer waits is no concern of the ring's.
                let done = Box::new(move |result| drop(sender.send(result)));
                ring.read(offset, memory, from, done);
                let stopped = || io::Error::new(io::ErrorKind::Interrupted, "the volume is closed");
                let memory = outcome.await.map_err(|_| stopped())??;
                Ok(AlignedBuf::from_parts(memory, from).freeze())
            }
            Works::Pool(_) => {
                let file = Arc::clone(&self.hold.file);
                let read = tokio::task::spawn_blocking(move || read_at(&file, offset, len));
                read.await.map_err(io::Error::other)?
            }
        }
    }
}

impl Disk for LocalDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn write(&self, write: Write) {
        let Write { offset, bytes, pause, done } = write;
        let still_ours = self.still_ours.clone();
        let judged = move |result: io::Result<()>| {
            done(result.map_err(|error| judge(error, still_ours.as_deref())));
        };
        match &self.works {
            Works::Ring { ring, .. } if pause.is_zero() => {
                ring.write(offset, bytes, Box::new(judged));
            }
            Works::Ring { ring, .. } => {
                let ring = Arc::clone(ring);
                // The answer may come from a thread that is in no runtime.
                self.runtime.spawn(async move {
                    sleep(pause).await;
                    ring.write(offset, bytes, Box::new(judged));
                });
            }
            Works::Pool(pool) => pool.write(offset, bytes, pause, Box::new(judged)),
        }
    }

    fn stop(&self) {
        match &self.works {
            Works::Ring { ring, .. } => ring.stop(),
            Works::Pool(pool) => pool.stop(),
        }
    }

    async fn released(&self) {
        match &self.works {
            Works::Ring { over, .. } => {
                // Whoever serves says so; if it is gone without a word, no one will.
                drop(over.clone().wait_for(|over| *over).await);
            }
            Works::Pool(pool) => {
                pool.ended().await;
                self.hold.let_go();
            }
        }
    }
}

/// What an error of a write means. A device that is reserved for another says so (EBADE), but what was
/// in flight when it was taken away may come back as a mere EIO: then the owner counts as
/// fenced until the device says that it is not.
fn judge(error: io::Error, still_ours: Option<&StillOurs>) -> WriteError {
    let code = error.raw_os_error();
    if code == Some(Errno::BADE.raw_os_error()) {
        return WriteError::Fenced;
    }
    if code == Some(Errno::IO.raw_os_error())
        && let Some(still_ours) = still_ours
        && !still_ours().unwrap_or(false)
    {
        return WriteError::Fenced;
    }
    WriteError::Io(error)
}

/// Reads into aligned memory, as direct I/O wants it.
pub(crate) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Bytes> {
    let mut buf = AlignedBuf::zeroed(len);
    file.read_exact_at(buf.as_mut(), offset)?;
    Ok(buf.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: Errno) -> io::Error {
        code.into()
    }

    #[test]
    fn an_owner_is_fenced_until_proven_otherwise() {
        let fenced = |error, answer: Option<io::Result<bool>>| {
            let hook = answer.map(|answer| -> StillOurs {
                let answer = answer.map_err(|error| error.kind());
                Box::new(move || answer.map_err(io::Error::from))
            });
            matches!(judge(error, hook.as_ref()), WriteError::Fenced)
        };
        assert!(fenced(error(Errno::BADE), None));
        assert!(fenced(error(Errno::BADE), Some(Ok(true))));
        assert!(!fenced(error(Errno::IO), None));
        assert!(!fenced(error(Errno::IO), Some(Ok(true))));
        assert!(fenced(error(Errno::IO), Some(Ok(false))));
        assert!(fenced(error(Errno::IO), Some(Err(error(Errno::IO)))));
        assert!(!fenced(error(Errno::NOSPC), Some(Ok(false))));
    }
}
