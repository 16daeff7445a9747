//! How long reads take, to know when one is late enough for a second to race it.

use std::time::Duration;

use parking_lot::Mutex;

/// Reads remembered for each size.
const REMEMBERED: usize = 128;
/// Before so many are known nothing is called late.
const ENOUGH: usize = 32;
/// The quantile is found anew after so many.
const REFRESH: usize = 16;
/// A read is not late before this.
const SOONEST: Duration = Duration::from_millis(10);
/// Reads up to these sizes are compared with each other; larger ones are not hedged.
const SIZES: [u64; 3] = [64 << 10, 1 << 20, 16 << 20];

/// The latest reads' times, by size.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    sizes: [Mutex<Recent>; SIZES.len()],
}

#[derive(Debug, Default)]
struct Recent {
    took: Vec<Duration>,
    at: usize,
    late: Option<Duration>,
}

impl Latencies {
    /// After so long a read of `bytes` is later than 95 of 100. None: not known.
    pub(crate) fn late(&self, bytes: u64) -> Option<Duration> {
        self.of(bytes)?.lock().late.map(|late| late.max(SOONEST))
    }

    /// A read of `bytes` took so long.
    pub(crate) fn record(&self, bytes: u64, took: Duration) {
        let Some(recent) = self.of(bytes) else {
            return;
        };
        let mut recent = recent.lock();
        let at = recent.at;
        match recent.took.get_mut(at) {
            Some(oldest) => *oldest = took,
            None => recent.took.push(took),
        }
        recent.at = (at + 1) % REMEMBERED;
        if recent.took.len() >= ENOUGH && recent.at.is_multiple_of(REFRESH) {
            let mut sorted = recent.took.clone();
            let rank = sorted.len() * 95 / 100;
            recent.late = Some(*sorted.select_nth_unstable(rank).1);
        }
    }

    fn of(&self, bytes: u64) -> Option<&Mutex<Recent>> {
        let size = SIZES.iter().position(|size| bytes <= *size)?;
        Some(&self.sizes[size])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_later_than_most_of_the_same_size() {
        let latencies = Latencies::default();
        for n in 0..31 {
            latencies.record(1000, Duration::from_millis(n));
        }
        assert_eq!(latencies.late(1000), None, "too few are known");
        for n in 0..REMEMBERED as u64 {
            latencies.record(1000, Duration::from_millis(n + 100));
        }
        let late = latencies.late(2000).expect("enough are known");
        assert!(
            (Duration::from_millis(200)..Duration::from_millis(228)).contains(&late),
            "{late:?}"
        );
        assert_eq!(latencies.late(1 << 20), None, "another size");
        assert_eq!(latencies.late(1 << 30), None, "too large to ask for twice");
    }

    #[test]
    fn a_fast_store_is_not_hedged_at_every_hiccup() {
        let latencies = Latencies::default();
        (0..REMEMBERED).for_each(|_| latencies.record(1, Duration::from_micros(50)));
        assert_eq!(latencies.late(1), Some(SOONEST));
    }
}
