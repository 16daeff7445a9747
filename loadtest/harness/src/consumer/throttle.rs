//! A consumer that holds itself back.

use std::time::Duration;

use tokio::time::Instant;

/// What it may make up for after it was slower.
const SLACK: Duration = Duration::from_millis(100);

/// When it may fetch again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Throttle {
    bytes_per_second: f64,
    free_at: Option<Instant>,
}

impl Throttle {
    pub(super) fn new(bytes_per_second: f64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1.0), free_at: None }
    }

    /// Something was read.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        let from = self.free_at.unwrap_or(now).max(now.checked_sub(SLACK).unwrap_or(now));
        self.free_at = Some(from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second));
    }

    /// When it may fetch; none if now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.free_at.filter(|at| *at > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_to_its_rate_and_makes_up_for_little() {
        let begun = Instant::now();
        let mut throttle = Throttle::new(1000.0);
        assert_eq!(throttle.due(begun), None);
        throttle.took(500, begun);
        assert_eq!(throttle.due(begun), Some(begun + Duration::from_millis(500)));
        assert_eq!(throttle.due(begun + Duration::from_millis(500)), None);
        // Ten seconds in which nothing came are not made up for.
        let late = begun + Duration::from_secs(10);
        throttle.took(1000, late);
        assert_eq!(throttle.due(late), Some(late + Duration::from_millis(900)));
    }
}
