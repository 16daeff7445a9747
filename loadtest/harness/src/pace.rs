//! When records are due: an open loop. The schedule knows nothing of the server: a record that is written
//! late has waited since it was due, and its latency counts from there (no coordinated omission).
//!
//! A [`Pace`] is the rates of the whole load, one after the other; each producer follows it by a [`Schedule`] of
//! its own. A producer that is behind first makes what was due under earlier rates.

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::random::Random;
use crate::workload::Arrivals;

/// A rate from some time on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Segment {
    /// µs since the Unix epoch.
    pub(crate) from_us: u64,
    pub(crate) tempo: Tempo,
    /// What was due before and is not made yet is never made.
    pub(crate) abandon: bool,
}

/// How fast, over all producers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Tempo {
    /// Nothing is due.
    Rest,
    /// The next record is due whenever there is room for it.
    Max,
    /// So many records a second, more than 0.
    Rate(f64),
}

impl From<Option<f64>> for Tempo {
    /// `None` is as fast as it goes.
    fn from(records_per_second: Option<f64>) -> Self {
        match records_per_second {
            None => Self::Max,
            Some(rate) if rate > 0.0 => Self::Rate(rate),
            Some(_) => Self::Rest,
        }
    }
}

/// The rates of a load so far. It grows while the load runs.
#[derive(Debug)]
pub(crate) struct Pace {
    segments: RwLock<Vec<Segment>>,
    count: watch::Sender<usize>,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self { segments: RwLock::default(), count: watch::Sender::new(0) }
    }

    /// Adds a rate; its time is not before that of the last one.
    pub(crate) fn set(&self, segment: Segment) {
        let count = {
            let mut segments = self.segments.write();
            segments.push(segment);
            segments.len()
        };
        self.count.send_replace(count);
    }

    /// Tells when a rate is added.
    pub(crate) fn watch(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    /// A segment, when the next one begins, and from when on nothing of it is made any more, whichever later one says so.
    fn at(&self, index: usize) -> Option<(Segment, Option<u64>, Option<u64>)> {
        let segments = self.segments.read();
        let (segment, later) = segments.get(index..)?.split_first()?;
        let abandoned = later.iter().find(|later| later.abandon);
        let end_us = later.first().map(|next| next.from_us);
        Some((*segment, end_us, abandoned.map(|later| later.from_us)))
    }
}

/// One producer's part of a pace.
#[derive(Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    /// Which of how many producers.
    share: (u32, u32),
    random: Random,
    segment: usize,
    /// The next record of the segment, in µs from its start; none before it is asked for.
    next: Option<f64>,
    abandoned: u64,
    /// What was abandoned and not told of yet.
    given_up: Vec<GivenUp>,
}

/// Records that were due, one each `gap_us`, and will never be made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GivenUp {
    first_us: u64,
    gap_us: f64,
    count: u64,
    /// Until then each of them has waited.
    pub(crate) at_us: u64,
}

impl GivenUp {
    /// When each of them was due.
    pub(crate) fn due_us(self) -> impl Iterator<Item = u64> {
        (0..self.count).map(move |index| self.first_us + (index as f64 * self.gap_us) as u64)
    }
}

/// What a schedule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A record is due since then.
    Due(u64),
    /// One will be.
    At(u64),
    /// None will be under the rates that are known.
    Never,
}

impl Schedule {
    /// The schedule of producer `index` of `count`.
    pub(crate) fn new(arrivals: Arrivals, index: u32, count: u32, random: Random) -> Self {
        let (share, given_up) = ((index, count), Vec::new());
        Self { arrivals, share, random, segment: 0, next: None, abandoned: 0, given_up }
    }

    /// When the next record is due. Goes on to a later segment when the one before has no more.
    pub(crate) fn peek(&mut self, pace: &Pace, now_us: u64) -> Next {
        loop {
            let Some((segment, end_us, abandoned_us)) = pace.at(self.segment) else {
                return Next::Never;
            };
            let due_us = match segment.tempo {
                Tempo::Rest => None,
                Tempo::Max if end_us.is_none_or(|end_us| now_us < end_us) => {
                    Some(now_us.max(segment.from_us))
                }
                Tempo::Max => None,
                Tempo::Rate(rate) => {
                    let gap_us = self.gap_us(rate);
                    let next = match (self.next, self.arrivals) {
                        (Some(next), _) => next,
                        // Producers take turns.
                        (None, Arrivals::Even) => {
                            gap_us * f64::from(self.share.0) / f64::from(self.share.1)
                        }
                        (None, Arrivals::Poisson) => gap_us * self.random.exponential(),
                    };
                    self.next = Some(next);
                    Some(segment.from_us + next as u64)
                }
            };
            let due_us = due_us.filter(|due_us| end_us.is_none_or(|end_us| *due_us < end_us));
            match (due_us, abandoned_us) {
                (Some(due_us), Some(at_us)) => {
                    if let Tempo::Rate(rate) = segment.tempo {
                        let left_us = end_us.unwrap_or(at_us).saturating_sub(due_us) as f64;
                        let (first_us, gap_us) = (due_us, self.gap_us(rate));
                        // One at least: it is due before the end.
                        let count = ((left_us / gap_us).ceil() as u64).max(1);
                        self.abandoned += count;
                        self.given_up.push(GivenUp { first_us, gap_us, count, at_us });
                    }
                }
                (Some(due_us), None) if due_us <= now_us => return Next::Due(due_us),
                (Some(due_us), None) => return Next::At(due_us),
                (None, _) if end_us.is_none() => return Next::Never,
                (None, _) => {}
            }
            self.segment += 1;
            self.next = None;
        }
    }

    /// The record that [`Self::peek`] told was made.
    pub(crate) fn take(&mut self, pace: &Pace) {
        if let Some((Segment { tempo: Tempo::Rate(rate), .. }, ..)) = pace.at(self.segment) {
            let gap_us = self.gap_us(rate);
            let gap_us = match self.arrivals {
                Arrivals::Even => gap_us,
                Arrivals::Poisson => gap_us * self.random.exponential(),
            };
            self.next = self.next.map(|next| next + gap_us);
        }
    }

    /// How many records were due and never made, because a segment has abandoned them.
    pub(crate) fn abandoned(&self) -> u64 {
        self.abandoned
    }

    /// What was abandoned since the last time.
    pub(crate) fn take_given_up(&mut self) -> Vec<GivenUp> {
        std::mem::take(&mut self.given_up)
    }

    fn gap_us(&self, rate: f64) -> f64 {
        1e6 * f64::from(self.share.1) / rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(segments: &[(u64, Tempo, bool)]) -> Pace {
        let pace = Pace::new();
        for (from_us, tempo, abandon) in segments {
            pace.set(Segment { from_us: *from_us, tempo: *tempo, abandon: *abandon });
        }
        pace
    }

    /// All that is due until then.
    fn due(schedule: &mut Schedule, pace: &Pace, now_us: u64) -> Vec<u64> {
        let mut all = Vec::new();
        while let Next::Due(at) = schedule.peek(pace, now_us) {
            all.push(at);
            schedule.take(pace);
        }
        all
    }

    #[test]
    fn producers_take_turns_at_equal_distances() {
        let pace = pace(&[(1000, Tempo::Rate(1000.0), false)]);
        let mut first = Schedule::new(Arrivals::Even, 0, 2, Random::new(1, 0));
        let mut second = Schedule::new(Arrivals::Even, 1, 2, Random::new(1, 1));
        assert_eq!(first.peek(&pace, 0), Next::At(1000));
        assert_eq!(due(&mut first, &pace, 6000), [1000, 3000, 5000]);
        assert_eq!(due(&mut second, &pace, 6000), [2000, 4000, 6000]);
        assert_eq!(second.peek(&pace, 6000), Next::At(8000));
    }

    #[test]
    fn who_is_late_first_makes_what_was_due_under_the_rate_before() {
        let pace = pace(&[
            (0, Tempo::Rate(1000.0), false),
            (3000, Tempo::Rest, false),
            (5000, Tempo::Rate(500.0), false),
        ]);
        let mut schedule = Schedule::new(Arrivals::Even, 0, 1, Random::new(1, 0));
        assert_eq!(due(&mut schedule, &pace, 8000), [0, 1000, 2000, 5000, 7000]);
        assert_eq!(schedule.abandoned(), 0);
    }

    #[test]
    fn what_is_abandoned_is_counted_and_never_made() {
        let pace = pace(&[(0, Tempo::Rate(1000.0), false)]);
        let mut schedule = Schedule::new(Arrivals::Even, 0, 1, Random::new(1, 0));
        assert_eq!(due(&mut schedule, &pace, 1500), [0, 1000]);
        pace.set(Segment { from_us: 9500, tempo: Tempo::Rest, abandon: true });
        assert_eq!(schedule.peek(&pace, 20_000), Next::Never);
        // 2000 to 9000.
        assert_eq!(schedule.abandoned(), 8);
        let [given_up] = schedule.take_given_up()[..] else { panic!("one part") };
        assert_eq!(given_up.at_us, 9500);
        let due: Vec<u64> = given_up.due_us().collect();
        assert_eq!((due.len(), due[0], due[7]), (8, 2000, 9000));
        assert!(schedule.take_given_up().is_empty());
    }

    #[test]
    fn who_is_late_by_more_than_one_rate_abandons_all_of_them() {
        let pace = pace(&[(0, Tempo::Rate(1000.0), false), (5000, Tempo::Rate(1000.0), false)]);
        let mut schedule = Schedule::new(Arrivals::Even, 0, 1, Random::new(1, 0));
        assert_eq!(due(&mut schedule, &pace, 1500), [0, 1000]);
        pace.set(Segment { from_us: 9500, tempo: Tempo::Rest, abandon: true });
        assert_eq!(schedule.peek(&pace, 9600), Next::Never);
        assert_eq!(schedule.abandoned(), 8, "2000 to 4000, and 5000 to 9000");
        // What comes after is made.
        pace.set(Segment { from_us: 20_000, tempo: Tempo::Rate(1000.0), abandon: false });
        assert_eq!(due(&mut schedule, &pace, 21_500), [20_000, 21_000]);
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_uneven_gaps() {
        let pace = pace(&[(0, Tempo::Rate(1000.0), false)]);
        let mut schedule = Schedule::new(Arrivals::Poisson, 0, 1, Random::new(1, 0));
        let all = due(&mut schedule, &pace, 10_000_000);
        assert!((9700..10_300).contains(&all.len()), "{}", all.len());
        let short = all.windows(2).filter(|pair| pair[1] - pair[0] < 693).count();
        // Half of all gaps are below the mean times ln 2.
        assert!((4700..5300).contains(&short), "{short}");
    }

    #[test]
    fn as_fast_as_it_goes_ends_with_the_segment() {
        let pace = pace(&[(100, Tempo::Max, false)]);
        let mut schedule = Schedule::new(Arrivals::Even, 0, 1, Random::new(1, 0));
        assert_eq!(schedule.peek(&pace, 50), Next::At(100));
        assert_eq!(schedule.peek(&pace, 150), Next::Due(150));
        pace.set(Segment { from_us: 200, tempo: Tempo::Rest, abandon: false });
        assert_eq!(schedule.peek(&pace, 199), Next::Due(199));
        assert_eq!(schedule.peek(&pace, 200), Next::Never);
    }
}
