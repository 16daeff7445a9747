//! What the log needs of the thing below it: writes that are durable when they say so, and reads.
//! The log neither knows threads nor files; a disk knows neither frames nor lsns.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::buffer::AlignedBuf;
use crate::geometry::BLOCK;
use crate::superblock::{NotASuperblock, SLOT_OFFSETS, Superblock};
use crate::volume::Kind;

/// What can be read at any place. Offsets and lengths are multiples of the block size.
pub(crate) trait ReadAt: Send + Sync + 'static {
    /// Reads `len` bytes.
    fn read(&self, offset: u64, len: usize) -> impl Future<Output = io::Result<Bytes>> + Send;
}

/// A device of fixed size under one exclusive owner.
///
/// Offsets and lengths are multiples of the block size, and the memory of writes is aligned to it.
/// Writes that overlap are never in flight together: the log sees to that.
pub(crate) trait Disk: ReadAt {
    /// The device's size, in bytes.
    fn size_bytes(&self) -> u64;

    /// What to tell people.
    fn kind(&self) -> Kind;

    /// Starts a write after a pause. Its `done` is called once, when the bytes are durable or have
    /// failed to be (then any part of them may be on the device), from any thread, in any order. After
    /// [`Disk::stop`] it may be dropped instead.
    fn write(&self, write: Write);

    /// Drops writes that have not begun.
    fn stop(&self);

    /// After [`Disk::stop`]: waits for writes that have begun, and lets go of the device.
    fn released(&self) -> impl Future<Output = ()> + Send;
}

/// One write of whole blocks.
pub(crate) struct Write {
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
    /// How long to wait first: zero but when it is tried again.
    pub(crate) pause: Duration,
    pub(crate) done: Box<dyn FnOnce(Result<(), WriteError>) + Send>,
}

/// Why a write failed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The device says that another owner has it.
    Fenced,
    /// Anything else: worth another try.
    Io(io::Error),
}

/// The two superblock slots of a disk, and what they hold. One task at a time stores.
pub(crate) struct Slots {
    current: Superblock,
}

impl Slots {
    /// Reads both slots and takes the current one.
    pub(crate) async fn load(disk: &impl Disk) -> io::Result<Result<Self, NotASuperblock>> {
        let a = disk.read(SLOT_OFFSETS[0], BLOCK).await?;
        let b = disk.read(SLOT_OFFSETS[1], BLOCK).await?;
        Ok(Superblock::choose([&a, &b]).map(|current| Self { current }))
    }

    /// What the device holds.
    pub(crate) fn current(&self) -> &Superblock {
        &self.current
    }

    /// Writes both slots, one after the other, so that the loss of either costs nothing. After an error
    /// the device holds the old content, or the new, or one in each slot; the slot that failed is the
    /// first to be written next time.
    pub(crate) async fn store(
        &mut self,
        disk: &impl Disk,
        next: Superblock,
    ) -> Result<(), WriteError> {
        for _ in SLOT_OFFSETS {
            let next = Superblock { counter: self.current.counter + 1, ..next };
            put(disk, next.offset(), next.encode()).await?;
            self.current = next;
        }
        Ok(())
    }
}

/// Writes one block and waits for it.
async fn put(disk: &impl Disk, offset: u64, block: AlignedBuf) -> Result<(), WriteError> {
    let (sender, outcome) = oneshot::channel();
    disk.write(Write {
        offset,
        bytes: block.freeze(),
        pause: Duration::ZERO,
        // A caller that no longer waits is no concern of the disk's.
        done: Box::new(move |result| drop(sender.send(result))),
    });
    outcome.await.unwrap_or_else(|_| {
        Err(WriteError::Io(io::Error::new(io::ErrorKind::Interrupted, "the device was let go of")))
    })
}
