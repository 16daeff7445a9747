//! A session's time limits, on one timer that is moved as seldom as possible: traffic only notes
//! when it was, and the timer finds out when it fires whether a limit is really reached.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use super::Closed;

/// What must arrive of an unfinished frame in one stall time, so that single bytes do not count.
const PROGRESS_BYTES: usize = 1 << 10;

/// What the session is doing when it has nothing to do but wait.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// A frame is half read.
    pub(super) reading: bool,
    /// Answers wait to be written.
    pub(super) writing: bool,
    /// Requests are unanswered.
    pub(super) busy: bool,
}

/// When things last moved.
#[derive(Debug)]
pub(super) struct Clock {
    idle: Duration,
    stall: Duration,
    timer: Pin<Box<Sleep>>,
    active: Instant,
    reading_since: Option<Instant>,
    arrived: usize,
    writing_since: Option<Instant>,
}

impl Clock {
    pub(super) fn new(idle: Duration, stall: Duration) -> Self {
        let now = Instant::now();
        Self {
            idle,
            stall,
            timer: Box::pin(sleep_until(now + idle)),
            active: now,
            reading_since: None,
            arrived: 0,
            writing_since: None,
        }
    }

    /// Bytes came in.
    pub(super) fn read(&mut self, bytes: usize) {
        self.active = Instant::now();
        self.arrived = self.arrived.saturating_add(bytes);
        if self.arrived >= PROGRESS_BYTES {
            self.reading_since = None;
        }
    }

    /// Bytes went out.
    pub(super) fn wrote(&mut self) {
        self.active = Instant::now();
        self.writing_since = None;
    }

    /// Ready with the reason when a limit is reached.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, load: Load) -> Poll<Closed> {
        if !load.reading {
            self.reading_since = None;
        } else if self.reading_since.is_none() {
            self.reading_since = Some(Instant::now());
            self.arrived = 0;
        }
        if !load.writing {
            self.writing_since = None;
        } else if self.writing_since.is_none() {
            self.writing_since = Some(Instant::now());
        }
        let stalls = [self.reading_since, self.writing_since].into_iter().flatten().min();
        if let Some(since) = stalls
            && self.timer.deadline() > since + self.stall
        {
            self.timer.as_mut().reset(since + self.stall);
        }
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            if self.writing_since.is_some_and(|since| since + self.stall <= now) {
                return Poll::Ready(Closed::SlowReader);
            }
            if self.reading_since.is_some_and(|since| since + self.stall <= now) {
                return Poll::Ready(Closed::SlowWriter);
            }
            let quiet = !(load.reading || load.writing || load.busy);
            if quiet && self.active + self.idle <= now {
                return Poll::Ready(Closed::Idle);
            }
            // A busy connection is not idle, whenever it last moved.
            let idle_from = if quiet { self.active } else { now };
            let next = stalls.map_or(idle_from + self.idle, |since| since + self.stall);
            self.timer.as_mut().reset(next);
        }
    }
}
