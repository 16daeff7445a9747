//! How far another clock is off, by asking it over the network: pure.
//!
//! ```text
//! ours    ── asked ───────────── answered ──     the other clock was read somewhere between, most likely in the
//! theirs  ────────── read ────────────────       middle: the error is at most half of the round trip
//! ```
//! The answer with the shortest round trip of late is believed.

use std::collections::VecDeque;

/// Answers that are looked at: clocks drift, so that old ones are forgotten.
const REMEMBERED: usize = 10;

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// What must be added to our clock to have theirs, in µs.
    pub(super) offset_us: i64,
    /// How long it took to ask.
    pub(super) round_trip_us: u64,
}

impl Sample {
    /// How far the offset may be wrong.
    pub(super) fn error_us(&self) -> u64 {
        self.round_trip_us.div_ceil(2)
    }
}

/// What is known of another clock.
#[derive(Debug, Default)]
pub(super) struct Estimate {
    samples: VecDeque<Sample>,
}

impl Estimate {
    /// Takes an answer: when we asked and when it came, by our clock; what their clock said. False if that
    /// makes no sense.
    pub(super) fn take(&mut self, asked_us: u64, answered_us: u64, their_us: u64) -> bool {
        let Some(round_trip_us) = answered_us.checked_sub(asked_us) else { return false };
        let middle_us = asked_us + round_trip_us / 2;
        let Some(offset_us) = their_us.checked_signed_diff(middle_us) else { return false };
        if self.samples.len() == REMEMBERED {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { offset_us, round_trip_us });
        true
    }

    /// How many answers there are, up to those that are remembered.
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }

    /// The best of late.
    pub(super) fn best(&self) -> Option<Sample> {
        self.samples.iter().min_by_key(|sample| sample.round_trip_us).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_round_trip_is_believed_until_it_is_old() {
        let mut clock = Estimate::default();
        assert_eq!((clock.best(), clock.len()), (None, 0));
        // 1,000 ahead of us; the way there and back is uneven in the first.
        assert!(clock.take(100, 300, 1290));
        assert!(clock.take(400, 420, 1411));
        assert!(clock.take(500, 900, 1600));
        let best = Sample { offset_us: 1001, round_trip_us: 20 };
        assert_eq!(clock.best(), Some(best));
        assert_eq!(best.error_us(), 10);
        for at in 0..REMEMBERED as u64 {
            assert!(clock.take(1000 + at, 1040 + at, 0));
        }
        assert_eq!(clock.best().map(|best| best.round_trip_us), Some(40));
        assert_eq!(clock.len(), REMEMBERED);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut clock = Estimate::default();
        assert!(!clock.take(10, 9, 0));
        assert!(!clock.take(0, 0, u64::MAX));
        assert_eq!(clock.best(), None);
    }
}
