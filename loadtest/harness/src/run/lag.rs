//! How far acknowledgements lag behind what is due. It looks at counts alone: what was due before the rate that it
//! watches counts for the server, never against it.

use crate::pace::Tempo;
use crate::stats::Stats;

/// What is due at one rate, and what was acknowledged when that began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lag {
    tempo: Tempo,
    from_us: u64,
    written: u64,
}

impl Lag {
    /// Nothing is due.
    pub(super) fn none() -> Self {
        Self { tempo: Tempo::Rest, from_us: 0, written: 0 }
    }

    /// Records are due at this rate from then on. Where it is the one before, that goes on.
    pub(super) fn turn(&mut self, tempo: Tempo, from_us: u64, stats: &Stats) {
        if tempo != self.tempo {
            *self = Self { tempo, from_us, written: stats.written() };
        }
    }

    /// How many seconds of records are due and not acknowledged; none where no rate says what is due.
    pub(super) fn seconds(&self, now_us: u64, stats: &Stats) -> Option<f64> {
        let Tempo::Rate(rate) = self.tempo else { return None };
        Some(self.since(now_us) - self.written(stats) as f64 / rate)
    }

    /// In words: what was acknowledged of what was due, for records of this size.
    pub(super) fn words(&self, phase: &str, now_us: u64, stats: &Stats, size: u64) -> String {
        let mib = |rate: f64| rate * size as f64 / f64::from(1 << 20);
        let due = if let Tempo::Rate(rate) = self.tempo { rate } else { 0.0 };
        let seconds = self.since(now_us);
        let acknowledged = self.written(stats) as f64 / seconds.max(0.001);
        format!(
            "{phase}: fell behind: acknowledged {:.1} of {:.1} MiB/s due; given up after {seconds:.1} s",
            mib(acknowledged),
            mib(due)
        )
    }

    fn since(&self, now_us: u64) -> f64 {
        now_us.saturating_sub(self.from_us) as f64 / 1e6
    }

    fn written(&self, stats: &Stats) -> u64 {
        stats.written().saturating_sub(self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_and_not_acknowledged_is_told_in_seconds_of_its_rate() {
        let stats = Stats::new(1);
        stats.shard(0).counts().written = 500;
        let mut lag = Lag::none();
        assert_eq!(lag.seconds(9_000_000, &stats), None);
        lag.turn(Tempo::Rate(1000.0), 1_000_000, &stats);
        stats.shard(0).counts().written += 1000;
        assert_eq!(lag.seconds(5_000_000, &stats), Some(3.0));
        // The next phase at the same rate does not forgive what is late.
        lag.turn(Tempo::Rate(1000.0), 5_000_000, &stats);
        assert_eq!(lag.seconds(6_000_000, &stats), Some(4.0));
        let words = lag.words("steady", 6_000_000, &stats, 1 << 20);
        assert_eq!(
            words,
            "steady: fell behind: acknowledged 200.0 of 1000.0 MiB/s due; given up after 5.0 s"
        );
        lag.turn(Tempo::Rate(10.0), 6_000_000, &stats);
        assert_eq!(lag.seconds(6_000_000, &stats), Some(0.0));
        lag.turn(Tempo::Max, 7_000_000, &stats);
        assert_eq!(lag.seconds(8_000_000, &stats), None);
    }
}
