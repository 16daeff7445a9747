//! A log on a disk: the one implementation of [`Volume`] for all kinds that share the on-disk format.
//! It owns the ring (under a lock that is never held over I/O) and the superblock slots, turns appends
//! into device writes, and writes that failed into later ones. It does not order anything itself: the
//! ring settles tickets from the front.

use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use crate::buffer::{AlignedBuf, FrameBuf};
use crate::disk::{Disk, Slots, Write, WriteError};
use crate::error::{AppendError, CloseError, NotDurable, ReadError, TrimError};
use crate::frame::{FrameHeader, Seed, crc32c};
use crate::geometry::Geometry;
use crate::ring::{PREWRITE_BYTES, Place, Refused, Ring};
use crate::superblock::Superblock;
use crate::volume::{Health, Kind, Lsn, Ticket, Usage, Volume};

/// How long to wait before a failed write is tried again: doubled each time, up to the limit.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What is written ahead of frames, for all volumes of the process: it is written often.
static ZEROS: LazyLock<Bytes> =
    LazyLock::new(|| AlignedBuf::zeroed(PREWRITE_BYTES as usize).freeze());

mod read;

/// How a log behaves towards its disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) queue_depth: usize,
    /// How far ahead of the head zeros are written on the first lap.
    pub(crate) prewrite_bytes: u64,
    /// After how long of failing writes the health says so.
    pub(crate) failing_after: Duration,
    /// How long a close waits for frames in flight.
    pub(crate) close_within: Duration,
}

/// A handle whose drop gives the disk back.
pub(crate) struct Log<D: Disk> {
    shared: Arc<Shared<D>>,
}

struct Shared<D> {
    disk: Arc<D>,
    id: VolumeId,
    epoch: VolumeEpoch,
    seed: Seed,
    geometry: Geometry,
    settings: Settings,
    state: Mutex<State>,
    slots: tokio::sync::Mutex<Slots>,
    health: watch::Sender<Health>,
    /// Woken when nothing is in flight any more, or never will be.
    idle: Notify,
}

struct State {
    ring: Ring,
    /// Set once, never taken back.
    stopped: Option<NotDurable>,
    /// Close has begun: what is in flight may finish, nothing is added.
    closing: bool,
    /// When the first of the failures began that have not been mended.
    failing_since: Option<Instant>,
}

impl<D: Disk> Log<D> {
    /// The log that recovery found: it ends at `head`, and `slots` say so.
    pub(crate) fn new(disk: Arc<D>, slots: Slots, settings: Settings, head: u64) -> Self {
        let superblock = *slots.current();
        let geometry = superblock.geometry;
        let (depth, ahead_bytes) = (settings.queue_depth, settings.prewrite_bytes);
        let ring = Ring::new(geometry, depth, ahead_bytes, superblock.trim, head);
        let state = State { ring, stopped: None, closing: false, failing_since: None };
        let shared = Shared {
            disk,
            id: superblock.id,
            epoch: superblock.epoch,
            seed: superblock.seed(),
            geometry,
            settings,
            state: Mutex::new(state),
            slots: tokio::sync::Mutex::new(slots),
            health: watch::Sender::new(Health::Good),
            idle: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl<D: Disk> Drop for Log<D> {
    fn drop(&mut self) {
        self.shared.stop(NotDurable::Closed);
    }
}

#[async_trait]
impl<D: Disk> Volume for Log<D> {
    fn id(&self) -> VolumeId {
        self.shared.id
    }

    fn epoch(&self) -> VolumeEpoch {
        self.shared.epoch
    }

    fn kind(&self) -> Kind {
        self.shared.disk.kind()
    }

    fn queue_depth(&self) -> usize {
        self.shared.settings.queue_depth
    }

    fn max_payload_bytes(&self) -> usize {
        self.shared.geometry.max_payload_bytes()
    }

    fn append(&self, frame: FrameBuf) -> Result<Ticket, AppendError> {
        self.shared.append(frame)
    }

    async fn trim(&self, upto: Lsn, hint: u64) -> Result<(), TrimError> {
        let shared = Arc::clone(&self.shared);
        // A task of its own, so that a dropped call cannot leave a slot half written under another.
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

impl<D: Disk> Shared<D> {
    fn append(self: &Arc<Self>, frame: FrameBuf) -> Result<Ticket, AppendError> {
        let payload_len = frame.len();
        // Refused before the checksum is paid for; asked again below, where it counts.
        let refusal = self.state.lock().place(payload_len).err();
        if let Some(refusal) = refusal {
            return Err(refusal.with(frame));
        }
        let payload_crc = crc32c(frame.payload());
        let (ticket, lsn, frame, at_once) = {
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
                epoch: self.epoch.0,
                seed: self.seed,
            };
            let frame = frame.seal(&header.encode());
            let (settle, ticket) = Ticket::new(Lsn(place.lsn));
            let at_once = state.ring.begin(place, frame.clone(), payload_len, settle);
            (ticket, place.lsn, frame, at_once)
        };
        if at_once {
            self.write(lsn, frame, Duration::ZERO);
        }
        Ok(ticket)
    }

    fn write(self: &Arc<Self>, lsn: u64, bytes: Bytes, pause: Duration) {
        let shared = Arc::clone(self);
        let done = Box::new(move |result| shared.written(lsn, result));
        self.disk.write(Write { offset: self.geometry.offset(lsn), bytes, pause, done });
    }

    /// The disk's answer to the write of the frame at `lsn`.
    fn written(self: &Arc<Self>, lsn: u64, result: Result<(), WriteError>) {
        match result {
            Ok(()) => {
                let mut state = self.state.lock();
                state.ring.written(lsn);
                let zeros = state.ring.next_prewrite();
                if state.failing_since.is_some() && !state.ring.is_failing() {
                    state.failing_since = None;
                    self.say(Health::Good);
                }
                if state.ring.is_idle() {
                    self.idle.notify_waiters();
                }
                drop(state);
                if let Some(zeros) = zeros {
                    self.prewrite(&zeros);
                }
            }
            Err(WriteError::Fenced) => self.stop(NotDurable::Fenced),
            Err(WriteError::Io(error)) => {
                let again = {
                    let mut state = self.state.lock();
                    let again = state.ring.failed(lsn);
                    if again.is_some() {
                        let since = *state.failing_since.get_or_insert_with(Instant::now);
                        if since.elapsed() >= self.settings.failing_after {
                            self.say(Health::Failing(error.kind()));
                        }
                    }
                    again
                };
                if let Some((bytes, failures)) = again {
                    self.write(lsn, bytes, pause(failures));
                }
            }
        }
    }

    fn prewrite(self: &Arc<Self>, zeros: &Range<u64>) {
        let shared = Arc::clone(self);
        self.disk.write(Write {
            offset: self.geometry.offset(zeros.start),
            bytes: ZEROS.slice(..(zeros.end - zeros.start) as usize),
            pause: Duration::ZERO,
            done: Box::new(move |result| shared.prewritten(&result)),
        });
    }

    /// The disk's answer to zeros.
    fn prewritten(self: &Arc<Self>, result: &Result<(), WriteError>) {
        if let Err(WriteError::Fenced) = result {
            return self.stop(NotDurable::Fenced);
        }
        let (held, zeros) = {
            let mut state = self.state.lock();
            let held = state.ring.prewritten(result.is_ok());
            let go_on = state.stopped.is_none() && !state.closing;
            (held, if go_on { state.ring.next_prewrite() } else { None })
        };
        for (lsn, bytes) in held {
            self.write(lsn, bytes, Duration::ZERO);
        }
        if let Some(zeros) = zeros {
            self.prewrite(&zeros);
        }
    }

    /// Publishes a change of health, and logs it. Nothing follows a final state.
    fn say(&self, now: Health) {
        self.health.send_if_modified(|health| {
            if *health == now || matches!(health, Health::Fenced | Health::Closed) {
                return false;
            }
            match now {
                Health::Good => tracing::info!(volume = %self.id, "volume writes go through again"),
                Health::Failing(kind) => {
                    tracing::warn!(volume = %self.id, %kind, "volume writes fail: check its device");
                }
                Health::Fenced => tracing::warn!(volume = %self.id, "volume was fenced off"),
                Health::Closed => {}
            }
            *health = now;
            true
        });
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
        }
        self.disk.stop();
        self.idle.notify_waiters();
    }

    async fn trim(&self, upto: Lsn, hint: u64) -> Result<(), TrimError> {
        let mut slots = self.slots.lock().await;
        let usage = {
            let state = self.state.lock();
            match state.stopped {
                Some(NotDurable::Fenced) => return Err(TrimError::Fenced),
                Some(NotDurable::Closed) => return Err(TrimError::Closed),
                None => state.ring.usage(),
            }
        };
        let (trim, durable) = (usage.trim, usage.durable);
        if upto < trim || upto > durable {
            return Err(TrimError::OutOfRange { upto, trim, durable });
        }
        if upto != trim && upto != durable && !self.is_frame_edge(upto.0).await? {
            return Err(TrimError::NotAFrame(upto));
        }
        let next = Superblock { trim: upto.0, durable: durable.0, hint, ..*slots.current() };
        match slots.store(&*self.disk, next).await {
            Ok(()) => {
                self.state.lock().ring.trim(upto.0);
                Ok(())
            }
            Err(WriteError::Fenced) => {
                self.stop(NotDurable::Fenced);
                Err(TrimError::Fenced)
            }
            Err(WriteError::Io(error)) => Err(TrimError::Io(error)),
        }
    }

    async fn close(&self) -> Result<(), CloseError> {
        self.state.lock().closing = true;
        let in_time = timeout(self.settings.close_within, self.when_idle()).await.is_ok();
        let mut slots = self.slots.lock().await;
        let (stopped, head) = {
            let state = self.state.lock();
            (state.stopped, state.ring.usage().head)
        };
        let outcome = match stopped {
            Some(NotDurable::Fenced) => Err(CloseError::Fenced),
            // Closed before: there is nothing left to do.
            Some(NotDurable::Closed) => Ok(()),
            None if !in_time => Err(CloseError::Io(io::ErrorKind::TimedOut.into())),
            None => {
                let next = Superblock { durable: head.0, clean: true, ..*slots.current() };
                match slots.store(&*self.disk, next).await {
                    Ok(()) => Ok(()),
                    Err(WriteError::Fenced) => Err(CloseError::Fenced),
                    Err(WriteError::Io(error)) => Err(CloseError::Io(error)),
                }
            }
        };
        self.stop(match outcome {
            Err(CloseError::Fenced) => NotDurable::Fenced,
            _ => NotDurable::Closed,
        });
        self.disk.released().await;
        outcome
    }

    /// Waits until nothing is in flight.
    async fn when_idle(&self) {
        loop {
            let mut woken = std::pin::pin!(self.idle.notified());
            // Registered before the look, so that no wake-up falls between.
            woken.as_mut().enable();
            if self.state.lock().ring.is_idle() {
                return;
            }
            woken.await;
        }
    }
}

/// Why an append is refused, before the frame is handed back with it.
pub(crate) enum Refusal {
    Stopped(NotDurable),
    NoPlace(Refused),
}

impl Refusal {
    pub(crate) fn with(self, frame: FrameBuf) -> AppendError {
        match self {
            Self::Stopped(NotDurable::Fenced) => AppendError::Fenced,
            Self::Stopped(NotDurable::Closed) => AppendError::Closed,
            Self::NoPlace(Refused::Full) => AppendError::Full(frame),
            Self::NoPlace(Refused::Busy) => AppendError::Busy(frame),
            Self::NoPlace(Refused::TooLarge) => AppendError::TooLarge(frame),
        }
    }
}

impl State {
    fn place(&self, payload_len: usize) -> Result<Place, Refusal> {
        if let Some(why) = self.stopped {
            return Err(Refusal::Stopped(why));
        }
        if self.closing {
            return Err(Refusal::Stopped(NotDurable::Closed));
        }
        self.ring.place(payload_len).map_err(Refusal::NoPlace)
    }
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (FIRST_PAUSE * (1 << doublings)).min(LONGEST_PAUSE)
}
