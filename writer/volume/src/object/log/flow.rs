//! From waiting frames to durable ones: when an object is cut, how it is put, what follows when it and all
//! before it are there; and the removal of what was trimmed.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::PutPayload;
use object_store::path::Path;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Flying, Kept, Shared, Spot, State};
use crate::error::NotDurable;
use crate::frame::{self, crc32c};
use crate::object::layout::{Entry, HEADER_BYTES, Header, Link, TrimState};
use crate::object::store::{Bucket, Created};
use crate::volume::Health;

/// Before an object is as large as it may be, this much is put at once if no more frames are taken.
const WORTH_A_PUT_BYTES: usize = 512 << 10;

/// So much may be all that producers send without an acknowledgement: a quarter of a full object, so that
/// a GiB costs at most four times the PUTs of full ones.
const WINDOW_BYTES: usize = 2 << 20;

/// So long after the last frame nothing follows, or it is late.
const QUIET_AFTER: Duration = Duration::from_millis(5);

/// How long to wait before a removal is tried again: doubled each time, up to the limit.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Shared {
    /// Cuts and puts objects as long as it is time for one and the bucket may be asked.
    pub(super) fn pump(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock();
            let under_way = state.puts.iter().filter(|put| !put.landed).count();
            let has_work = !state.pending.is_empty() || state.trim_due.is_some();
            let may_put = under_way < self.base.object.puts_in_flight.max(1);
            if state.stopped.is_some() || !has_work || !may_put {
                return;
            }
            if let Some(at) = self.not_before(&state) {
                if state.timed.is_none_or(|timed| at < timed) {
                    state.timed = Some(at);
                    self.pump_at(at);
                }
                return;
            }
            let (link, head, payload) = self.cut(&mut state);
            drop(state);
            tokio::spawn(Arc::clone(self).put(link, head, payload));
        }
    }

    /// The time of the next put, if it is not now: puts that are not full keep a distance, because each is
    /// paid for.
    ///
    /// Whoever has sent what it may send without an acknowledgement sends nothing more, however long this
    /// waits: what may be all of it then goes as soon as nothing follows.
    fn not_before(&self, state: &State) -> Option<Instant> {
        let next = state.last_put? + self.base.object.linger;
        let is_full = state.pending_bytes >= self.base.object.object_bytes
            || (state.pending_bytes >= WORTH_A_PUT_BYTES && !state.ring.takes_more());
        if is_full || state.closing {
            return None;
        }
        let may_be_all = state.pending_bytes >= WINDOW_BYTES;
        let next = if may_be_all { next.min(state.last_append + QUIET_AFTER) } else { next };
        (next > Instant::now()).then_some(next)
    }

    fn pump_at(self: &Arc<Self>, at: Instant) {
        let shared = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep_until(at).await;
            if let Some(shared) = shared.upgrade() {
                shared.state.lock().timed.take_if(|timed| *timed == at);
                shared.pump();
            }
        });
    }

    /// The next object: its place, its header, and all of it.
    fn cut(&self, state: &mut State) -> (Link, [u8; HEADER_BYTES], PutPayload) {
        let position = state.next_position;
        state.next_position += 1;
        state.last_put = Some(Instant::now());
        let first = state.cut_end;
        let (mut pieces, mut frames) = (vec![Bytes::new()], Vec::new());
        let (mut frame_headers, mut body_bytes) = (Vec::new(), 0);
        let is_room = |body_bytes: usize, len: usize| {
            body_bytes == 0 || body_bytes + len <= self.base.object.object_bytes
        };
        while let Some(next) =
            state.pending.pop_front_if(|next| is_room(body_bytes, next.bytes.len()))
        {
            // One frame or 64 MiB at most.
            let at = (HEADER_BYTES + body_bytes) as u32;
            frames.push(Spot { lsn: next.lsn, at, payload_len: next.payload_len });
            frame_headers.extend_from_slice(&next.bytes[..frame::HEADER_BYTES]);
            body_bytes += next.bytes.len();
            state.cut_end = next.end;
            pieces.push(next.bytes);
        }
        state.pending_bytes -= body_bytes;
        let end = state.cut_end;
        let link = self.base.link(position);
        let header = Header {
            link,
            durable: state.puts.front().map_or(position, |put| put.kept.position),
            first,
            end,
            trim: state.trim,
            frames: frames.len() as u32,
            body_bytes: body_bytes as u32,
            frames_crc: crc32c(&frame_headers),
        };
        let trim = state.trim_due.take().map(|done| (state.trim, done));
        let kept = Kept { epoch: self.base.epoch, position, end, frames };
        state.puts.push_back(Flying { kept, landed: false, is_failing: false, trim });
        let head = header.encode();
        pieces[0] = Bytes::copy_from_slice(&head);
        (link, head, PutPayload::from_iter(pieces))
    }

    /// Puts one object, however long it takes.
    async fn put(self: Arc<Self>, link: Link, head: [u8; HEADER_BYTES], payload: PutPayload) {
        let at = self.base.at(link.position);
        let mut health = self.health.subscribe();
        let ended = health.wait_for(|now| matches!(now, Health::Fenced | Health::Closed));
        let failed = |kind| self.failed(link.position, kind);
        let created = tokio::select! {
            biased;
            created = self.base.bucket.create(&at, &head, payload, failed) => created,
            _ = ended => return,
        };
        match created {
            Created::Won => {
                self.landed(link.position);
                self.pump();
            }
            Created::Lost(found) => {
                if !matches!(Entry::decode(&found), Ok(Entry::Seal(_))) {
                    let hint = "is the epoch used twice?";
                    tracing::error!(%at, hint, "another object lies where the volume's log goes on");
                }
                self.stop(NotDurable::Fenced);
            }
        }
    }

    /// A try to put an object failed.
    fn failed(&self, position: u64, kind: io::ErrorKind) {
        let mut state = self.state.lock();
        if let Some(put) = state.puts.iter_mut().find(|put| put.kept.position == position) {
            put.is_failing = true;
            let since = *state.failing_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.base.open.failing_after {
                self.say(Health::Failing(kind));
            }
        }
    }

    /// An object is in the bucket. What is so together with all before it is durable.
    fn landed(&self, position: u64) {
        let mut state = self.state.lock();
        if let Some(put) = state.puts.iter_mut().find(|put| put.kept.position == position) {
            put.landed = true;
            put.is_failing = false;
        }
        while let Some(put) = state.puts.pop_front_if(|put| put.landed) {
            for spot in &put.kept.frames {
                state.ring.written(spot.lsn);
            }
            state.kept.push_back(put.kept);
            if let Some((trim, done)) = put.trim {
                self.trimmed(&mut state, trim);
                // The caller may be gone.
                let _ = done.send(());
            }
        }
        if state.failing_since.is_some() && !state.puts.iter().any(|put| put.is_failing) {
            state.failing_since = None;
            self.say(Health::Good);
        }
        if state.is_idle() {
            self.idle.notify_waiters();
        }
    }

    /// A trim is durable: its room is free, and its objects may go.
    fn trimmed(&self, state: &mut State, trim: TrimState) {
        state.ring.trim(trim.lsn);
        while let Some(kept) = state.kept.pop_front_if(|kept| kept.position < trim.position) {
            // Received as long as this volume lives.
            let _ = self.garbage.send(self.base.place(kept.epoch, kept.position));
        }
    }
}

/// Removes objects one after the other, in order, each only when those before it are gone: an opener
/// concludes from an object that is there that nothing behind it was removed. What is left when the
/// volume is let go of is found at the next open.
pub(super) async fn remove(bucket: Bucket, mut names: mpsc::UnboundedReceiver<Path>) {
    while let Some(at) = names.recv().await {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = bucket.delete(&at).await {
            tracing::debug!(%at, %error, "cannot remove an object of a volume's log; trying again");
            if names.is_closed() {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
