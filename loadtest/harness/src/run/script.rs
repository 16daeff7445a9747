//! The phases of a workload, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{DRAIN_LIMIT, Error, LOOK_EVERY, Run, Turn};
use crate::amount::Rate;
use crate::client::Bound;
use crate::pace::Tempo;
use crate::report::{Found, Trial};
use crate::stats::Stats;
use crate::workload::{Backlog, Search};

/// A trial that acknowledges less of what was due has not held.
const SUSTAINED: f64 = 0.98;
/// No search takes more trials.
const MAX_TRIALS: usize = 30;
/// The share of records that must be within the bound.
const P99: f64 = 0.99;
/// Two rates that are a step apart are close, whatever the last bit of their quotient.
const ROUNDING: f64 = 1.0001;
const MIB: f64 = (1u64 << 20) as f64;

impl Run {
    /// Plays the phases, and lets what is under way come home in one that does not count. Ends early if the user wants
    /// it, a client has failed, or the server is too slow.
    pub(super) async fn play(&mut self) -> Result<(), Error> {
        self.phases().await?;
        let rest = match self.gave_up.is_empty() {
            true => Turn::To(Tempo::Rest),
            false => Turn::Drop(Tempo::Rest),
        };
        self.begin("drain", false, Some(0.0), rest).await;
        Ok(())
    }

    async fn phases(&mut self) -> Result<(), Error> {
        let workload = self.load.workload.clone();
        if let Some(backlog) = &workload.backlog {
            return self.catch_up(backlog).await;
        }
        self.crew.start_consumers();
        if let Some(search) = &workload.search {
            return self.search(search).await;
        }
        let produce = &workload.produce;
        let first = produce.stages.first().and_then(|stage| stage.rate).or(produce.rate);
        if !workload.warm_up.0.is_zero()
            && !self.phase("warm-up", first, false, workload.warm_up.0).await?
        {
            return Ok(());
        }
        if produce.stages.is_empty() {
            self.phase("steady", produce.rate, true, workload.duration.0).await?;
        }
        for stage in &produce.stages {
            if !self.phase(&stage.name, stage.rate, true, stage.duration.0).await? {
                break;
            }
        }
        Ok(())
    }

    /// One phase at one rate. False if it is to end.
    async fn phase(
        &mut self,
        name: &str,
        rate: Option<Rate>,
        measured: bool,
        time: Duration,
    ) -> Result<bool, Error> {
        let rate = self.load.workload.due(name, rate);
        self.begin(name, measured, rate, Turn::To(Tempo::from(rate))).await;
        self.last(time).await
    }

    async fn catch_up(&mut self, backlog: &Backlog) -> Result<(), Error> {
        let workload = self.load.workload.clone();
        let size = workload.records.size.0;
        let records = backlog.size.0 / size;
        self.begin("fill", false, None, Turn::To(Tempo::Max)).await;
        let filled = self.until(backlog.limit.0, |load| {
            load.stats.written() + load.outstanding.load(Ordering::Relaxed) >= records
        });
        if !filled.await? {
            if self.is_cut_short() {
                return Ok(());
            }
            let mib = |records: u64| (records * size) as f64 / MIB;
            let (there, all) = (mib(self.load.stats.written()), mib(records));
            let limit = backlog.limit.0.as_secs_f64();
            self.gave_up
                .push(format!("fill: {there:.0} of {all:.0} MiB were written in {limit} s"));
        }
        self.set(Tempo::Rest, false);
        let limit = self.patience(DRAIN_LIMIT);
        self.until(limit, |load| load.outstanding.load(Ordering::Relaxed) == 0).await?;
        if !self.phase("warm-up", workload.produce.rate, false, workload.warm_up.0).await?
            || !self
                .phase("producers alone", workload.produce.rate, true, workload.duration.0)
                .await?
        {
            return Ok(());
        }
        let rate = workload.produce.rate.and_then(|rate| rate.records_per_second(size));
        self.begin("catching up", true, rate, Turn::None).await;
        let committed = self.load.workload.transactions.is_some();
        let bound = if committed { Bound::Stable } else { Bound::End };
        let ends = Arc::new(self.load.ends(bound).await?);
        self.crew.aim(ends);
        self.crew.start_consumers();
        let (all, gauge) = (self.crew.consumers(), self.crew.gauge());
        let arrived = self.until(backlog.limit.0, |load| {
            load.arrived.load(Ordering::Relaxed) + gauge.lost_consumers() >= all
        });
        let tail = backlog.at_the_tail.unwrap_or(workload.duration).0;
        if !arrived.await? {
            let limit = backlog.limit.0.as_secs_f64();
            self.slow(format!("catching up: not there after {limit} s"));
        } else if !tail.is_zero() {
            self.phase("at the tail", workload.produce.rate, true, tail).await?;
        }
        Ok(())
    }

    async fn search(&mut self, search: &Search) -> Result<(), Error> {
        let workload = self.load.workload.clone();
        let size = workload.records.size.0;
        let mut rate = search.from.records_per_second(size).unwrap_or(1.0);
        let least = search.least.and_then(|least| least.records_per_second(size)).unwrap_or(1.0);
        let mut bounds = Bounds::new(least, search.step_percent);
        let mut trials = Vec::new();
        let begun = Instant::now();
        while trials.len() < MAX_TRIALS {
            let Some(trial) = self.trial(rate, search.p99.0).await? else { break };
            bounds.note(rate, trial.held);
            trials.push(trial);
            if search.limit.is_some_and(|limit| begun.elapsed() > limit.0) {
                break;
            }
            match bounds.next(search.precision_percent) {
                Some(next) => rate = next,
                None => break,
            }
        }
        self.found = Some(Found {
            records_per_second: bounds.held,
            mib_per_second: bounds.held.map(|rate| rate * size as f64 / MIB),
            trials,
        });
        Ok(())
    }

    /// Tries one rate; none if it is to end.
    async fn trial(&mut self, rate: f64, bound: Duration) -> Result<Option<Trial>, Error> {
        let workload = self.load.workload.clone();
        let name = format!("{:.1} MiB/s", rate * workload.records.size.0 as f64 / MIB);
        let warm_up = format!("warm-up {name}");
        let ahead = self.crew.ahead();
        self.begin(&warm_up, false, Some(rate), Turn::To(Tempo::Rate(rate))).await;
        if !self.wait(workload.warm_up.0.saturating_sub(ahead)).await? {
            return Ok(None);
        }
        let phase = self.begin(&name, true, Some(rate), Turn::None).await;
        let hope = Hope { rate, bound, phase, from_us: self.load.timeline.now_us() };
        let time = workload.duration.0.saturating_sub(ahead);
        let is_hopeless = !self.until_hopeless(&hope, time).await?;
        // What is due is given up and what is under way comes home, or the next trial would pay for this one.
        self.begin("pause", false, Some(0.0), Turn::Drop(Tempo::Rest)).await;
        let limit = self.patience(DRAIN_LIMIT);
        self.until(limit, |load| load.outstanding.load(Ordering::Relaxed) == 0).await?;
        if self.is_cut_short() {
            return Ok(None);
        }
        let p99 = self.load.stats.produced(phase).percentile_ms(99.0);
        let (written, seconds) = self.observer.lock().await.written_in(phase);
        let sustained = written as f64 >= SUSTAINED * rate * seconds;
        let held = !is_hopeless && sustained && p99 <= bound.as_secs_f64() * 1000.0;
        Ok(Some(Trial { records_per_second: rate, p99, held, phase }))
    }

    /// Lets a trial go on for so long. False if it cannot hold any more, or is to end.
    async fn until_hopeless(&mut self, hope: &Hope, time: Duration) -> Result<bool, Error> {
        let until = Instant::now() + time;
        let most = hope.rate * time.as_secs_f64() * (1.0 - P99);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            if !self.wait(left.min(LOOK_EVERY)).await? {
                return Ok(false);
            }
            if hope.late(&self.load.stats, self.load.timeline.now_us()) > most {
                return Ok(false);
            }
        }
    }
}

/// A trial under way.
struct Hope {
    rate: f64,
    bound: Duration,
    phase: usize,
    from_us: u64,
}

impl Hope {
    /// How many records are later than the bound, at least: those that were answered so, and those that are due since then
    /// and were not answered at all.
    fn late(&self, stats: &Stats, now_us: u64) -> f64 {
        let produced = stats.produced(self.phase);
        let bound_us = self.bound.as_micros() as u64;
        let until_us = now_us.saturating_sub(bound_us);
        let due = self.rate * until_us.saturating_sub(self.from_us) as f64 / 1e6;
        let unanswered = (due - produced.count() as f64).max(0.0);
        produced.count_above(bound_us) as f64 + unanswered
    }
}

/// What is known of the rate that is looked for.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Nothing below is tried.
    least: f64,
    /// The next step up or down while one of the two is not known, as a share.
    step: f64,
    /// The highest that held.
    held: Option<f64>,
    /// The least that did not.
    failed: Option<f64>,
}

impl Bounds {
    fn new(least: f64, step_percent: u32) -> Self {
        Self { least, step: f64::from(step_percent) / 100.0, held: None, failed: None }
    }

    fn note(&mut self, rate: f64, held: bool) {
        if held {
            self.held = Some(self.held.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |least| least.min(rate)));
        }
    }

    /// What to try next; none when it is known well enough.
    fn next(&mut self, precision_percent: u32) -> Option<f64> {
        let factor = 1.0 + self.step;
        let next = match (self.held, self.failed) {
            (None, None) => None,
            (Some(held), None) => Some(held * factor),
            (None, Some(failed)) => {
                let next = (failed / factor).max(self.least);
                (next < failed).then_some(next)
            }
            (Some(held), Some(failed)) => {
                let close = failed - held <= held * f64::from(precision_percent) / 100.0 * ROUNDING;
                (!close).then_some((held * failed).sqrt())
            }
        };
        self.step = (self.step * 2.0).min(1.0);
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_closes_in_on_the_limit_from_any_start() {
        for (from, limit) in [(1000.0, 70_000.0), (500_000.0, 70_000.0), (70_000.0, 70_000.0)] {
            let (mut bounds, mut rate) = (Bounds::new(1.0, 100), from);
            for trial in 0.. {
                bounds.note(rate, rate <= limit);
                match bounds.next(5) {
                    Some(next) => rate = next,
                    None => break,
                }
                assert!(trial < MAX_TRIALS, "{from}: {bounds:?}");
            }
            let held = bounds.held.expect("a rate that held");
            assert!(held <= limit && held * 1.051 >= limit, "{from}: {held}");
        }
        let mut hopeless = Bounds::new(1.0, 100);
        hopeless.note(1.0, false);
        assert_eq!(hopeless.next(5), None);
        let mut slow = Bounds::new(100.0, 100);
        slow.note(150.0, false);
        assert_eq!(slow.next(5), Some(100.0), "the least is tried");
        slow.note(100.0, false);
        assert_eq!(slow.next(5), None, "less is not asked for");
    }

    #[test]
    fn who_begins_near_the_limit_takes_two_steps() {
        let trials = |from: f64, limit: f64| {
            let (mut bounds, mut rate, mut trials) = (Bounds::new(1.0, 10), from, 0);
            loop {
                trials += 1;
                bounds.note(rate, rate <= limit);
                match bounds.next(10) {
                    Some(next) => rate = next,
                    None => return trials,
                }
            }
        };
        assert_eq!((trials(500.0, 520.0), trials(500.0, 480.0)), (2, 2));
        // Far off it doubles its steps: 50, 55, 66, 92, 166, 332, 664 and what lies between.
        assert!(trials(50.0, 500.0) <= 11, "{}", trials(50.0, 500.0));
        assert!(trials(500.0, 50.0) <= 11, "{}", trials(500.0, 50.0));
    }

    #[test]
    fn a_trial_is_over_when_too_much_is_late_however_the_rest_goes() {
        let stats = Stats::new(1);
        stats.begin_phase(0);
        let bound = Duration::from_millis(50);
        let hope = Hope { rate: 1000.0, bound, phase: 0, from_us: 0 };
        assert_eq!(hope.late(&stats, 40_000), 0.0, "nothing is late yet");
        for due in 0..100 {
            stats.shard(0).produced(due * 1000, due * 1000 + 10_000);
        }
        assert_eq!(hope.late(&stats, 150_000), 0.0);
        assert_eq!(
            hope.late(&stats, 160_000),
            10.0,
            "ten were due until 110 ms and have no answer"
        );
        for due in 100..110 {
            stats.shard(0).produced(due * 1000, due * 1000 + 60_000);
        }
        assert_eq!(hope.late(&stats, 170_000), 20.0, "ten were late, ten have no answer");
    }
}
