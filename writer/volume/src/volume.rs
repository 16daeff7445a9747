//! The contract that every kind of volume keeps.
//!
//! ```text
//!        trim              durable            head
//!  ───────┼───────────────────┼─────────────────┼───────────────▶ lsn
//!  room   │ readable, kept    │ being written   │ not yet given
//!  reused │                   │ (in flight)     │
//! ```
//!
//! `trim <= durable <= head <= trim + capacity`, and each of the three only grows.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::sync::{oneshot, watch};

use crate::buffer::FrameBuf;
use crate::error::{AppendError, CloseError, NotDurable, ReadError, RecoveryError, TrimError};

/// A position in a volume's log, in bytes: a multiple of 4096 that never goes back and never wraps.
/// It is opaque to callers but for its order: the lsn after a frame is [`Durable::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An open write-ahead log, held under one volume epoch.
///
/// Dropping the last handle without [`Volume::close`] is as a crash: what was durable stays so, what
/// was in flight may or may not be found by the next recovery.
#[async_trait]
pub trait Volume: Send + Sync + 'static {
    /// Which volume this is.
    fn id(&self) -> VolumeId;

    /// The epoch under which it was opened.
    fn epoch(&self) -> VolumeEpoch;

    /// What lies underneath, for logs and metrics.
    fn kind(&self) -> Kind;

    /// How many frames may be in flight at once. One more is refused with [`AppendError::Busy`].
    fn queue_depth(&self) -> usize;

    /// The largest payload of one frame, in bytes: [`crate::MAX_PAYLOAD_BYTES`], or less on a volume
    /// too small for that.
    fn max_payload_bytes(&self) -> usize;

    /// Gives the frame the next lsn and starts its write; does not block and does not wait for I/O.
    ///
    /// Order is the order of calls: one task (the volume's owner) calls it, or order is arbitrary.
    /// Tickets complete strictly in lsn order, each only when its frame and all before it are durable.
    /// A write that the device fails is tried again, with growing pauses, until it succeeds or the
    /// volume is fenced or closed; [`Volume::health`] tells meanwhile. A frame that was accepted is
    /// written even if its ticket is dropped.
    fn append(&self, frame: FrameBuf) -> Result<Ticket, AppendError>;

    /// Gives up what lies before `upto`, and stores `hint` (the owner's own number, e.g. the manifest
    /// version that made the trim safe) for the next recovery. `upto` is the start or the end of a
    /// durable frame, not before the current trim point. With `upto` at the trim point only the hint
    /// is stored.
    ///
    /// On success trim point and hint are durable, twice, and the room is free. On
    /// [`TrimError::Io`] nothing is free yet, though a later recovery may start at either point; call
    /// again. Cancel safe: a dropped call goes on by itself.
    async fn trim(&self, upto: Lsn, hint: u64) -> Result<(), TrimError>;

    /// Reads the payload of the durable frame that begins at `lsn`, with its checksum verified.
    async fn read(&self, lsn: Lsn) -> Result<Bytes, ReadError>;

    /// Where the log stands now.
    fn usage(&self) -> Usage;

    /// How the device does. A receiver sees the latest state, not each one.
    fn health(&self) -> watch::Receiver<Health>;

    /// Ends this ownership from above, when the owner learns that it lost the volume: every ticket and
    /// call fails with `Fenced` from now on. Writes that the device already has may still land; the next
    /// owner's recovery deals with them.
    fn fence(&self);

    /// Refuses new frames, waits for those in flight, notes the clean end on the device and lets go of
    /// it. If the device keeps failing, gives up after the time set at open; then nothing is lost that
    /// was durable, and the tickets of the rest fail with [`NotDurable::Closed`].
    async fn close(&self) -> Result<(), CloseError>;
}

/// The log of a volume that was just opened and fenced, before it can be appended to.
///
/// Frames come in order from the trim point, in memory bounded by one frame and four reads of 2 MiB
/// beside what the caller keeps. A payload is a slice of such a read, so that keeping it keeps up to
/// 2 MiB alive; copy what is to be kept for long.
#[async_trait]
pub trait Recovery: Send {
    /// Which volume this is.
    fn id(&self) -> VolumeId;

    /// The epoch under which it was opened.
    fn epoch(&self) -> VolumeEpoch;

    /// Where the log begins: the last trim point.
    fn trim(&self) -> Lsn;

    /// The hint of the last trim, 0 if there was none.
    fn hint(&self) -> u64;

    /// The next frame, `None` at the end of the log. After an error the recovery is of no more use; an
    /// I/O error may pass, so open again.
    async fn next(&mut self) -> Result<Option<RecoveredFrame>, RecoveryError>;

    /// Reads what is left of the log, makes its end final (what lies beyond can never be taken for data
    /// again) and gives the volume ready for appends.
    async fn finish(self: Box<Self>) -> Result<Arc<dyn Volume>, RecoveryError>;
}

/// One frame that recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredFrame {
    /// Where the frame begins.
    pub lsn: Lsn,
    /// Where it ends: a valid trim point.
    pub end: Lsn,
    /// The epoch of the owner who appended it.
    pub epoch: VolumeEpoch,
    /// What was appended.
    pub payload: Bytes,
}

/// A frame that is durable, with all before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Where the frame begins.
    pub lsn: Lsn,
    /// Where it ends: a valid trim point.
    pub end: Lsn,
    /// The payload, in the very memory that was written, not a copy. It keeps alive the frame's
    /// buffer, which is up to 8 KiB larger.
    pub payload: Bytes,
}

/// The promise of an appended frame. Completes when the frame is durable, in lsn order over all
/// tickets of a volume. Dropping it does not take the frame back.
#[derive(Debug)]
pub struct Ticket {
    lsn: Lsn,
    outcome: oneshot::Receiver<Result<Durable, NotDurable>>,
}

impl Ticket {
    /// A ticket, and the end through which the volume settles it.
    pub(crate) fn new(lsn: Lsn) -> (oneshot::Sender<Result<Durable, NotDurable>>, Self) {
        let (sender, outcome) = oneshot::channel();
        (sender, Self { lsn, outcome })
    }

    /// Where the frame begins.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }
}

impl Future for Ticket {
    type Output = Result<Durable, NotDurable>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let settled = ready!(Pin::new(&mut self.outcome).poll(cx));
        Poll::Ready(settled.unwrap_or(Err(NotDurable::Closed)))
    }
}

/// Where a volume's log stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The next frame's lsn (or a little less: a frame that does not fit before the end of the ring
    /// begins at its start).
    pub head: Lsn,
    /// All frames before this are durable.
    pub durable: Lsn,
    /// The trim point.
    pub trim: Lsn,
    /// The ring's size.
    pub capacity_bytes: u64,
    /// What is left of it. A frame takes its payload and 64 bytes, rounded up to 4 KiB.
    pub free_bytes: u64,
}

/// How a volume's device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Writes go through.
    Good,
    /// Writes have failed for longer than the time set at open, with this kind of error last. They are
    /// still tried, and nothing behind them is acknowledged.
    Failing(std::io::ErrorKind),
    /// Another owner has the volume. Final.
    Fenced,
    /// Closed by its owner. Final.
    Closed,
}

/// What lies under a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file; `direct` if it is written with O_DIRECT and O_DSYNC, not through the page cache.
    File {
        /// Whether the page cache is passed by.
        direct: bool,
    },
    /// A block device, written with O_DIRECT and O_DSYNC.
    Block,
    /// Objects in the bucket.
    Object,
    /// A simulated disk.
    Simulated,
}

impl Kind {
    /// Whether writes pass the page cache by.
    pub(crate) fn is_direct(self) -> bool {
        !matches!(self, Self::File { direct: false })
    }
}
