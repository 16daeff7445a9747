//! An open object volume. It owns the ring, which gives frames their lsns and settles their tickets, and
//! what has not been put yet, all under one lock that is never held over I/O; each PUT has a task.
//!
//! Frames gather in `pending` until they are cut into an object; objects are put several at a time,
//! and land in the order of their positions: then their frames are durable, and the trim that they
//! carry is done.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use parking_lot::Mutex;
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout};

use super::ObjectOptions;
use super::layout::{self, Descriptor, Link, TrimState};
use super::recovery::seed;
use super::store::Bucket;
use crate::buffer::FrameBuf;
use crate::error::{AppendError, CloseError, NotDurable, ReadError, TrimError};
use crate::file::OpenOptions;
use crate::frame::{self, FrameHeader, crc32c};
use crate::geometry::Geometry;
use crate::log::Refusal;
use crate::ring::Ring;
use crate::volume::{Health, Kind, Lsn, Ticket, Usage, Volume};

mod flow;
mod read;

/// What an opener knows of its volume before the log is read.
#[derive(Clone)]
pub(super) struct Foundation {
    pub(super) bucket: Bucket,
    /// The directory of the log's objects.
    pub(super) log: Path,
    pub(super) volume: Descriptor,
    pub(super) geometry: Geometry,
    pub(super) epoch: VolumeEpoch,
    /// This epoch's first position.
    pub(super) start: u64,
    pub(super) previous: VolumeEpoch,
    pub(super) object: ObjectOptions,
    pub(super) open: OpenOptions,
}

impl Foundation {
    pub(super) fn link(&self, position: u64) -> Link {
        Link {
            id: self.volume.id,
            uuid: self.volume.uuid,
            epoch: self.epoch,
            position,
            start: self.start,
            previous: self.previous,
        }
    }

    /// Where an object of this epoch lies.
    pub(super) fn at(&self, position: u64) -> Path {
        self.place(self.epoch, position)
    }

    fn place(&self, epoch: VolumeEpoch, position: u64) -> Path {
        self.log.clone().join(layout::name(epoch, position))
    }
}

/// An object of the log that is durable and not trimmed as a whole.
pub(super) struct Kept {
    pub(super) epoch: VolumeEpoch,
    pub(super) position: u64,
    /// Where the log ended with it.
    pub(super) end: u64,
    pub(super) frames: Vec<Spot>,
}

/// Where a frame lies in its object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) lsn: u64,
    pub(super) at: u32,
    pub(super) payload_len: u32,
}

/// A handle whose drop ends the puts.
pub(super) struct ObjectLog {
    shared: Arc<Shared>,
}

struct Shared {
    base: Foundation,
    seed: frame::Seed,
    state: Mutex<State>,
    /// Held by the one trim that may be under way.
    trimming: tokio::sync::Mutex<()>,
    health: watch::Sender<Health>,
    /// Woken when nothing is in flight any more, or never will be.
    idle: Notify,
    /// Names to be removed, in order.
    garbage: mpsc::UnboundedSender<Path>,
}

struct State {
    ring: Ring,
    /// Set once, never taken back.
    stopped: Option<NotDurable>,
    /// Close has begun: what is in flight may finish, nothing is added.
    closing: bool,
    failing_since: Option<Instant>,
    /// Frames that are in no object yet.
    pending: VecDeque<Waiting>,
    pending_bytes: usize,
    /// As the next object is to say.
    trim: TrimState,
    /// The trim that the next object carries.
    trim_due: Option<oneshot::Sender<()>>,
    next_position: u64,
    /// Where the log ends with the objects that were cut.
    cut_end: u64,
    last_put: Option<Instant>,
    /// When the newest of `pending` came.
    last_append: Instant,
    /// A task waits for the next put's time: this one.
    timed: Option<Instant>,
    puts: VecDeque<Flying>,
    /// In order of position; the first is the one of the trim point.
    kept: VecDeque<Kept>,
}

/// A frame that waits for its object.
struct Waiting {
    lsn: u64,
    end: u64,
    payload_len: u32,
    /// Header and payload, without the padding.
    bytes: Bytes,
}

/// An object that is being put, or waits for one before it.
struct Flying {
    kept: Kept,
    landed: bool,
    is_failing: bool,
    trim: Option<(TrimState, oneshot::Sender<()>)>,
}

impl ObjectLog {
    /// The log that recovery found: it ends at `head`, `kept` holds it, and the last of those is the
    /// epoch's first object.
    pub(super) fn new(
        base: Foundation,
        trim: TrimState,
        head: u64,
        kept: VecDeque<Kept>,
        leftovers: Vec<(VolumeEpoch, u64)>,
    ) -> Self {
        let (garbage, removals) = mpsc::unbounded_channel();
        tokio::spawn(flow::remove(base.bucket.clone(), removals));
        for (epoch, position) in leftovers {
            // The task lives as long as this sender.
            let _ = garbage.send(base.place(epoch, position));
        }
        let state = State {
            ring: Ring::new(base.geometry, base.object.frames_in_flight.max(1), 0, trim.lsn, head),
            stopped: None,
            closing: false,
            failing_since: None,
            pending: VecDeque::new(),
            pending_bytes: 0,
            trim,
            trim_due: None,
            next_position: base.start + 1,
            cut_end: head,
            last_put: None,
            last_append: Instant::now(),
            timed: None,
            puts: VecDeque::new(),
            kept,
        };
        let shared = Shared {
            seed: seed(&base.volume.uuid),
            base,
            state: Mutex::new(state),
            trimming: tokio::sync::Mutex::new(()),
            health: watch::Sender::new(Health::Good),
            idle: Notify::new(),
            garbage,
        };
        Self { shared: Arc::new(shared) }
    }
}

impl Drop for ObjectLog {
    fn drop(&mut self) {
        self.shared.stop(NotDurable::Closed);
    }
}

#[async_trait]
impl Volume for ObjectLog {
    fn id(&self) -> VolumeId {
        self.shared.base.volume.id
    }

    fn epoch(&self) -> VolumeEpoch {
        self.shared.base.epoch
    }

    fn kind(&self) -> Kind {
        Kind::Object
    }

    fn queue_depth(&self) -> usize {
        self.shared.base.object.frames_in_flight.max(1)
    }

    fn max_payload_bytes(&self) -> usize {
        self.shared.base.geometry.max_payload_bytes()
    }

    fn append(&self, frame: FrameBuf) -> Result<Ticket, AppendError> {
        self.shared.append(frame)
    }

    async fn trim(&self, upto: Lsn, hint: u64) -> Result<(), TrimError> {
        let shared = Arc::clone(&self.shared);
        // A task of its own: a call that is dropped must not let the next begin before its object is cut.
        let task = tokio::spawn(async move { shared.trim(upto, hint).await });
        task.await.unwrap_or_else(|gone| Err(TrimError::Io(io::Error::other(gone))))
    }

    async fn read(&self, lsn: Lsn) -> Result<Bytes, ReadError> {
        self.shared.read(lsn).await
    }

    fn usage(&self) -> Usage {
        self.shared.state.lock().ring.usage()
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    fn fence(&self) {
        self.shared.stop(NotDurable::Fenced);
    }

    async fn close(&self) -> Result<(), CloseError> {
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move { shared.close().await });
        task.await.unwrap_or_else(|gone| Err(CloseError::Io(io::Error::other(gone))))
    }
}

impl Shared {
    fn append(self: &Arc<Self>, frame: FrameBuf) -> Result<Ticket, AppendError> {
        let payload_len = frame.len();
        // Refused before the checksum is paid for; asked again below, where it counts.
        let refusal = self.state.lock().place(payload_len).err();
        if let Some(refusal) = refusal {
            return Err(refusal.with(frame));
        }
        let payload_crc = crc32c(frame.payload());
        let ticket = {
            let mut state = self.state.lock();
            let place = match state.place(payload_len) {
                Ok(place) => place,
                Err(refusal) => return Err(refusal.with(frame)),
            };
            let header = FrameHeader {
                // At most 8 MiB: the place was given for it.
                payload_len: payload_len as u32,
                payload_crc,
                lsn: place.lsn,
                prev_end: place.prev_end,
                durable: place.durable,
                epoch: self.base.epoch.0,
                seed: self.seed,
            };
            let bytes = frame.seal(&header.encode());
            let (settle, ticket) = Ticket::new(Lsn(place.lsn));
            state.ring.begin(place, bytes.clone(), payload_len, settle);
            let bytes = bytes.slice(..frame::HEADER_BYTES + payload_len);
            state.pending_bytes += bytes.len();
            state.last_append = Instant::now();
            let payload_len = payload_len as u32;
            state.pending.push_back(Waiting { lsn: place.lsn, end: place.end, payload_len, bytes });
            ticket
        };
        self.pump();
        Ok(ticket)
    }

    /// Ends everything, for good. Only the first reason counts.
    fn stop(&self, why: NotDurable) {
        {
            let mut state = self.state.lock();
            if state.stopped.is_some() {
                return;
            }
            state.stopped = Some(why);
            self.say(match why {
                NotDurable::Fenced => Health::Fenced,
                NotDurable::Closed => Health::Closed,
            });
            state.ring.abandon(why);
            // With them go the ends of trims that wait.
            state.puts.clear();
            state.trim_due = None;
            state.pending.clear();
        }
        self.idle.notify_waiters();
    }

    /// Publishes a change of health, and logs it. Nothing follows a final state.
    fn say(&self, now: Health) {
        let volume = self.base.volume.id;
        self.health.send_if_modified(|health| {
            if *health == now || matches!(health, Health::Fenced | Health::Closed) {
                return false;
            }
            match now {
                Health::Good => tracing::info!(%volume, "volume writes go through again"),
                Health::Failing(kind) => {
                    tracing::warn!(%volume, %kind, "volume writes fail: check its bucket");
                }
                Health::Fenced => tracing::warn!(%volume, "volume was fenced off"),
                Health::Closed => {}
            }
            *health = now;
            true
        });
    }

    async fn trim(self: &Arc<Self>, upto: Lsn, hint: u64) -> Result<(), TrimError> {
        let _alone = self.trimming.lock().await;
        let done = {
            let mut state = self.state.lock();
            if let Some(why) = state.stopped {
                return Err(trim_refused(why));
            }
            let Usage { trim, durable, .. } = state.ring.usage();
            if upto < trim || upto > durable {
                return Err(TrimError::OutOfRange { upto, trim, durable });
            }
            if !state.is_edge(upto.0) {
                return Err(TrimError::NotAFrame(upto));
            }
            state.trim = TrimState { lsn: upto.0, position: state.first_needed(upto.0), hint };
            let (done, carried) = oneshot::channel();
            state.trim_due = Some(done);
            carried
        };
        self.pump();
        if done.await.is_ok() {
            return Ok(());
        }
        let why = self.state.lock().stopped.unwrap_or(NotDurable::Closed);
        Err(trim_refused(why))
    }

    async fn close(self: &Arc<Self>) -> Result<(), CloseError> {
        self.state.lock().closing = true;
        self.pump();
        let in_time = timeout(self.base.open.close_within, self.when_idle()).await.is_ok();
        let stopped = self.state.lock().stopped;
        let outcome = match stopped {
            Some(NotDurable::Fenced) => Err(CloseError::Fenced),
            // Closed before: there is nothing left to do.
            Some(NotDurable::Closed) => Ok(()),
            None if !in_time => Err(CloseError::Io(io::ErrorKind::TimedOut.into())),
            // Nothing to note: the log's end is exact at any time.
            None => Ok(()),
        };
        self.stop(NotDurable::Closed);
        outcome
    }

    /// Waits until nothing is in flight.
    async fn when_idle(&self) {
        loop {
            let mut woken = std::pin::pin!(self.idle.notified());
            // Registered before the look, so that no wake-up falls between.
            woken.as_mut().enable();
            if self.state.lock().is_idle() {
                return;
            }
            woken.await;
        }
    }
}

fn trim_refused(why: NotDurable) -> TrimError {
    match why {
        NotDurable::Fenced => TrimError::Fenced,
        NotDurable::Closed => TrimError::Closed,
    }
}

impl State {
    fn place(&self, payload_len: usize) -> Result<crate::ring::Place, Refusal> {
        if let Some(why) = self.stopped {
            return Err(Refusal::Stopped(why));
        }
        if self.closing {
            return Err(Refusal::Stopped(NotDurable::Closed));
        }
        self.ring.place(payload_len).map_err(Refusal::NoPlace)
    }

    fn is_idle(&self) -> bool {
        self.puts.is_empty() && self.pending.is_empty() && self.trim_due.is_none()
    }

    /// The first position that is still needed if the log begins at `lsn`, which is durable: that of the
    /// object in which the frame there lies, or else of the object that will say so.
    fn first_needed(&self, lsn: u64) -> u64 {
        let flying = self.puts.iter().map(|put| &put.kept);
        let mut objects = self.kept.iter().chain(flying);
        let holds_it = objects.find(|kept| kept.end > lsn);
        holds_it.map_or(self.next_position, |kept| kept.position)
    }
}
