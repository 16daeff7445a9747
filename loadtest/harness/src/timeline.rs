//! The time of a run: µs since the Unix epoch that never jump, because the wall clock is read once.

use sluice_model::Clock;
use tokio::time::{Duration, Instant};

/// A wall-clock reading and the monotonic time since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    start: Instant,
    start_us: u64,
}

impl Timeline {
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        let start_us = u64::try_from(clock.wall_ms()).unwrap_or(0) * 1000;
        Self { start: Instant::now(), start_us }
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.start_us + self.start.elapsed().as_micros() as u64
    }

    /// The instant of a time; the first one for times before it.
    pub(crate) fn instant(&self, at_us: u64) -> Instant {
        self.start + Duration::from_micros(at_us.saturating_sub(self.start_us))
    }
}
