//! The phases of a workload, one after the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{DRAIN_LIMIT, Error, Run, Turn};
use crate::amount::Rate;
use crate::client::Bound;
use crate::pace::Tempo;
use crate::report::{Found, Trial};
use crate::workload::{Backlog, Search};

/// A trial that acknowledges less of what was due has not held.
const SUSTAINED: f64 = 0.98;
/// No search takes more trials.
const MAX_TRIALS: usize = 30;
const MIB: f64 = (1u64 << 20) as f64;

impl Run {
    /// Plays the phases. Returns early if the user wants an end, or a client has failed.
    pub(super) async fn play(&mut self) -> Result<(), Error> {
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
        self.rest("drain").await;
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

    /// Nothing is due from now on. What was is still written, in a phase that does not count.
    async fn rest(&self, name: &str) {
        self.begin(name, false, Some(0.0), Turn::To(Tempo::Rest)).await;
    }

    async fn catch_up(&mut self, backlog: &Backlog) -> Result<(), Error> {
        let workload = self.load.workload.clone();
        let records = backlog.size.0 / workload.records.size.0;
        self.begin("fill", false, None, Turn::To(Tempo::Max)).await;
        let filled = self.until(backlog.limit.0, |load| {
            load.stats.total().written + load.outstanding.load(Ordering::Relaxed) >= records
        });
        if !filled.await? {
            return Ok(());
        }
        self.set(Tempo::Rest, false);
        self.until(DRAIN_LIMIT, |load| load.outstanding.load(Ordering::Relaxed) == 0).await?;
        if !self.phase("warm-up", workload.produce.rate, false, workload.warm_up.0).await?
            || !self
                .phase("producers alone", workload.produce.rate, true, workload.duration.0)
                .await?
        {
            return Ok(());
        }
        let size = workload.records.size.0;
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
        if arrived.await? {
            self.phase("at the tail", workload.produce.rate, true, workload.duration.0).await?;
        }
        self.rest("drain").await;
        Ok(())
    }

    async fn search(&mut self, search: &Search) -> Result<(), Error> {
        let workload = self.load.workload.clone();
        let size = workload.records.size.0;
        let mut rate = search.from.records_per_second(size).unwrap_or(1.0);
        let least = search.least.and_then(|least| least.records_per_second(size)).unwrap_or(1.0);
        let mut bounds = Bounds { least, held: None, failed: None };
        let mut trials = Vec::new();
        while trials.len() < MAX_TRIALS {
            let Some(trial) = self.trial(rate, search.p99.0).await? else { break };
            bounds.note(rate, trial.held);
            trials.push(trial);
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
        self.rest("drain").await;
        Ok(())
    }

    /// Tries one rate; none if it is to end.
    async fn trial(&mut self, rate: f64, bound: Duration) -> Result<Option<Trial>, Error> {
        let workload = self.load.workload.clone();
        let name = format!("{:.1} MiB/s", rate * workload.records.size.0 as f64 / MIB);
        let warm_up = format!("warm-up {name}");
        self.begin(&warm_up, false, Some(rate), Turn::To(Tempo::Rate(rate))).await;
        if !self.last(workload.warm_up.0).await? {
            return Ok(None);
        }
        let phase = self.begin(&name, true, Some(rate), Turn::None).await;
        let finished = self.last(workload.duration.0).await?;
        // What is due is given up and what is under way comes home, or the next trial would pay for this one.
        self.begin("pause", false, Some(0.0), Turn::Drop(Tempo::Rest)).await;
        self.until(DRAIN_LIMIT, |load| load.outstanding.load(Ordering::Relaxed) == 0).await?;
        if !finished {
            return Ok(None);
        }
        let p99 = self.load.stats.phase(phase).produce.percentile_ms(99.0);
        let (written, seconds) = self.observer.lock().await.written_in(phase);
        let sustained = written as f64 >= SUSTAINED * rate * seconds;
        let held = sustained && p99 <= bound.as_secs_f64() * 1000.0;
        Ok(Some(Trial { records_per_second: rate, p99, held, phase }))
    }
}

/// What is known of the rate that is looked for.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Nothing below is tried.
    least: f64,
    /// The highest that held.
    held: Option<f64>,
    /// The least that did not.
    failed: Option<f64>,
}

impl Bounds {
    fn note(&mut self, rate: f64, held: bool) {
        if held {
            self.held = Some(self.held.map_or(rate, |best| best.max(rate)));
        } else {
            self.failed = Some(self.failed.map_or(rate, |least| least.min(rate)));
        }
    }

    /// What to try next; none when it is known well enough.
    fn next(&self, precision_percent: u32) -> Option<f64> {
        match (self.held, self.failed) {
            (None, None) => None,
            (Some(held), None) => Some(held * 2.0),
            (None, Some(failed)) => (failed >= 2.0 * self.least).then_some(failed / 2.0),
            (Some(held), Some(failed)) => {
                let close = failed - held <= held * f64::from(precision_percent) / 100.0;
                (!close).then_some((held * failed).sqrt())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Bounds = Bounds { least: 1.0, held: None, failed: None };

    #[test]
    fn a_search_closes_in_on_the_limit_from_any_start() {
        for (from, limit) in [(1000.0, 70_000.0), (500_000.0, 70_000.0), (70_000.0, 70_000.0)] {
            let (mut bounds, mut rate) = (UNKNOWN, from);
            for trial in 0.. {
                bounds.note(rate, rate <= limit);
                match bounds.next(5) {
                    Some(next) => rate = next,
                    None => break,
                }
                assert!(trial < MAX_TRIALS, "{from}: {bounds:?}");
            }
            let held = bounds.held.expect("a rate that held");
            assert!(held <= limit && held * 1.05 >= limit, "{from}: {held}");
        }
        let mut hopeless = UNKNOWN;
        hopeless.note(1.5, false);
        assert_eq!(hopeless.next(5), None);
        let mut slow = Bounds { least: 100.0, ..UNKNOWN };
        slow.note(200.0, false);
        assert_eq!(slow.next(5), Some(100.0));
        slow.note(100.0, false);
        assert_eq!(slow.next(5), None, "less is not asked for");
    }
}
