//! The time of a run: µs since the Unix epoch that never jump, because the wall clock is read once.
//!
//! The coordinator's is the time of a whole fleet; an agent's follows it (`fleet/clock.rs`), by steps that are smaller
//! than what latencies are told in.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use sluice_model::Clock;
use tokio::time::{Duration, Instant};

/// A wall-clock reading and the monotonic time since. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    start: Instant,
    start_us: u64,
    /// What is added, to follow another timeline.
    shift_us: Arc<AtomicI64>,
}

impl Timeline {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self::from(Instant::now(), u64::try_from(clock.wall_ms()).unwrap_or(0) * 1000)
    }

    /// The timeline on which that instant is `start_us`.
    pub(crate) fn from(start: Instant, start_us: u64) -> Self {
        Self { start, start_us, shift_us: Arc::default() }
    }

    pub(crate) fn now_us(&self) -> u64 {
        let us = self.start_us + self.start.elapsed().as_micros() as u64;
        us.saturating_add_signed(self.shift_us.load(Ordering::Relaxed))
    }

    /// The instant of a time; the first one for times before it.
    pub(crate) fn instant(&self, at_us: u64) -> Instant {
        let start_us = self.start_us.saturating_add_signed(self.shift_us.load(Ordering::Relaxed));
        let after = Duration::from_micros(at_us.saturating_sub(start_us));
        self.start.checked_add(after).unwrap_or(self.start)
    }

    /// Goes forward or back by so much.
    pub(crate) fn shift(&self, by_us: i64) {
        self.shift_us.fetch_add(by_us, Ordering::Relaxed);
    }
}
