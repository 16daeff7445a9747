//! Where frames go and which are durable. Pure: no I/O, no clock. The log owns it, under one lock.
//!
//! Always: `trim <= durable <= head <= trim + ring`; the frames in flight lie in order between durable
//! and head; tickets are settled from the front only; no two writes in flight overlap.
//!
//! On the first lap the blocks ahead of the head are reserved but unwritten, and the file system pays
//! a journal commit for the first write to each. So a little is written with zeros ahead of small
//! frames, while the device has nothing else to do: see [`Ring::next_prewrite`].

use std::collections::VecDeque;
use std::ops::Range;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::buffer::frame_len;
use crate::error::NotDurable;
use crate::frame::HEADER_BYTES;
use crate::geometry::Geometry;
use crate::volume::{Durable, Lsn, Usage};

/// The place that the next frame gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) lsn: u64,
    pub(crate) end: u64,
    pub(crate) prev_end: u64,
    pub(crate) durable: u64,
}

/// How much is written ahead with zeros at once.
pub(crate) const PREWRITE_BYTES: u64 = 256 * 1024;

/// Frames larger than this are not written ahead for: one journal commit is little beside their bytes.
const PREWRITE_FRAME_BYTES: u64 = 64 * 1024;

/// Why a frame gets no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Busy,
    TooLarge,
}

/// What settles a frame's ticket.
pub(crate) type Settle = oneshot::Sender<Result<Durable, NotDurable>>;

struct InFlight {
    lsn: u64,
    end: u64,
    payload_len: usize,
    /// The whole frame, kept until it is durable: it may have to be written again.
    frame: Bytes,
    written: bool,
    /// Its blocks are being written ahead: it has to wait for that.
    held: bool,
    failures: u32,
    settle: Settle,
}

/// The state of one log.
pub(crate) struct Ring {
    geometry: Geometry,
    depth: usize,
    head: u64,
    durable: u64,
    trim: u64,
    in_flight: VecDeque<InFlight>,
    /// How far ahead of the head zeros are written, on the first lap.
    ahead_bytes: u64,
    /// Up to where there are zeros, if that is beyond the head.
    prewritten: u64,
    /// What is being written with zeros now.
    prewriting: Option<Range<u64>>,
    last_frame_bytes: u64,
}

impl Ring {
    /// A log that reaches from `trim` to `head`, all of it durable, with at most `depth` frames in
    /// flight, and zeros up to `ahead_bytes` ahead of the head.
    pub(crate) fn new(
        geometry: Geometry,
        depth: usize,
        ahead_bytes: u64,
        trim: u64,
        head: u64,
    ) -> Self {
        assert!(trim <= head && head - trim <= geometry.ring_bytes, "a log fits its ring");
        Self {
            geometry,
            depth,
            head,
            durable: head,
            trim,
            in_flight: VecDeque::new(),
            ahead_bytes,
            prewritten: head,
            prewriting: None,
            last_frame_bytes: 0,
        }
    }

    pub(crate) fn max_payload_bytes(&self) -> usize {
        self.geometry.max_payload_bytes()
    }

    /// Where a frame with such a payload would go now.
    pub(crate) fn place(&self, payload_len: usize) -> Result<Place, Refused> {
        if payload_len > self.max_payload_bytes() {
            return Err(Refused::TooLarge);
        }
        let frame_bytes = frame_len(payload_len) as u64;
        let lsn = self.geometry.place(self.head, frame_bytes);
        let end = lsn + frame_bytes;
        // Room first: a full ring does not empty by waiting for tickets.
        if end - self.trim > self.geometry.ring_bytes {
            return Err(Refused::Full);
        }
        // A frame that goes alone always may: with its skip it can reach beyond the window, and
        // recovery looks one frame further for that.
        let window_full =
            !self.in_flight.is_empty() && end - self.durable > self.geometry.window_bytes;
        if self.in_flight.len() >= self.depth || window_full {
            return Err(Refused::Busy);
        }
        Ok(Place { lsn, end, prev_end: self.head, durable: self.durable })
    }

    /// Takes a frame into flight at the place that was just given. Whether it may be written at once; if
    /// not, [`Ring::prewritten`] gives it back in time.
    pub(crate) fn begin(
        &mut self,
        place: Place,
        frame: Bytes,
        payload_len: usize,
        settle: Settle,
    ) -> bool {
        assert_eq!(place.prev_end, self.head, "a place is used at once");
        let held = self
            .prewriting
            .as_ref()
            .is_some_and(|zeros| place.lsn < zeros.end && zeros.start < place.end);
        self.head = place.end;
        self.last_frame_bytes = frame.len() as u64;
        self.in_flight.push_back(InFlight {
            lsn: place.lsn,
            end: place.end,
            payload_len,
            frame,
            written: false,
            held,
            failures: 0,
            settle,
        });
        !held
    }

    /// The lsns to be written with zeros now, if it is worth it: nothing is in flight, frames are small,
    /// and the head is on the first lap with too little written ahead of it. All of that is free
    /// room, so nothing can be lost by it, and frames wait for zeros that are under way.
    pub(crate) fn next_prewrite(&mut self) -> Option<Range<u64>> {
        let start = self.prewritten.max(self.head);
        let wanted = self.ahead_bytes.saturating_sub(PREWRITE_BYTES);
        if self.prewriting.is_some()
            || !self.in_flight.is_empty()
            || self.last_frame_bytes > PREWRITE_FRAME_BYTES
            || self.ahead_bytes == 0
            || start >= self.geometry.ring_bytes
            || start - self.head > wanted
        {
            return None;
        }
        let zeros = start..(start + PREWRITE_BYTES).min(self.geometry.ring_bytes);
        self.prewriting = Some(zeros.clone());
        Some(zeros)
    }

    /// Notes that the zeros under way are written, or have failed: then no more are tried. The frames
    /// that waited for that, to be written now.
    pub(crate) fn prewritten(&mut self, written: bool) -> Vec<(u64, Bytes)> {
        if let Some(zeros) = self.prewriting.take() {
            self.prewritten = zeros.end;
        }
        if !written {
            self.ahead_bytes = 0;
        }
        let waiting = self.in_flight.iter_mut().filter(|frame| frame.held);
        waiting
            .map(|frame| {
                frame.held = false;
                (frame.lsn, frame.frame.clone())
            })
            .collect()
    }

    /// Notes that the frame at `lsn` is on the device, and settles what has become durable: it and what
    /// follows, if all before it is there.
    pub(crate) fn written(&mut self, lsn: u64) {
        if let Some(frame) = self.find(lsn) {
            frame.written = true;
            frame.failures = 0;
        }
        while let Some(frame) = self.in_flight.pop_front_if(|frame| frame.written) {
            self.durable = frame.end;
            let payload = frame.frame.slice(HEADER_BYTES..HEADER_BYTES + frame.payload_len);
            let durable = Durable { lsn: Lsn(frame.lsn), end: Lsn(frame.end), payload };
            // The ticket may have been dropped.
            drop(frame.settle.send(Ok(durable)));
        }
    }

    /// Notes that the write of the frame at `lsn` failed: the frame, to be tried again, and how often it
    /// has failed now. `None` if it is in flight no more.
    pub(crate) fn failed(&mut self, lsn: u64) -> Option<(Bytes, u32)> {
        let frame = self.find(lsn)?;
        frame.failures = frame.failures.saturating_add(1);
        Some((frame.frame.clone(), frame.failures))
    }

    fn find(&mut self, lsn: u64) -> Option<&mut InFlight> {
        let at = self.in_flight.binary_search_by_key(&lsn, |frame| frame.lsn).ok()?;
        self.in_flight.get_mut(at)
    }

    /// Whether any frame in flight has failed and has not been written since.
    pub(crate) fn is_failing(&self) -> bool {
        self.in_flight.iter().any(|frame| frame.failures > 0)
    }

    /// Whether one more frame like the last would be taken, if there is room.
    pub(crate) fn takes_more(&self) -> bool {
        let in_flight_bytes = self.head - self.durable + self.last_frame_bytes;
        self.in_flight.len() < self.depth && in_flight_bytes <= self.geometry.window_bytes
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Settles all that is in flight with a failure; what the device has of it is unknown.
    pub(crate) fn abandon(&mut self, why: NotDurable) {
        for frame in self.in_flight.drain(..) {
            drop(frame.settle.send(Err(why)));
        }
    }

    /// Frees what lies before `upto`.
    pub(crate) fn trim(&mut self, upto: u64) {
        assert!(self.trim <= upto && upto <= self.durable, "only what is durable is trimmed");
        self.trim = upto;
    }

    pub(crate) fn usage(&self) -> Usage {
        let capacity_bytes = self.geometry.ring_bytes;
        Usage {
            head: Lsn(self.head),
            durable: Lsn(self.durable),
            trim: Lsn(self.trim),
            capacity_bytes,
            free_bytes: capacity_bytes - (self.head - self.trim),
        }
    }
}

#[cfg(test)]
mod tests;
