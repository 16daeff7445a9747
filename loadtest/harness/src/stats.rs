//! What is counted while a load runs: by second, and by phase. Producers and consumers share a few shards,
//! so that nobody waits for another for long; a histogram for each of thousands of clients would not fit.
//!
//! Latencies belong to the phase in which the record was due, whenever it was answered; throughput to
//! the second in which the answer came.

use hdrhistogram::Histogram;
use parking_lot::{Mutex, MutexGuard, RwLock};
use serde::{Deserialize, Serialize};

use crate::pace::GivenUp;

/// Three significant digits: an error below 0.1 %.
const DIGITS: u8 = 3;
/// Latencies above are counted as this: an hour, in µs.
const MAX_US: u64 = 3_600_000_000;
/// Of one latency, as other processes tell: sums over all of them stay far from the end of `u64`.
const MAX_COUNT: u64 = 1 << 40;

/// Latencies in µs, of 1 µs to an hour. As text they are pairs of latency and count: nothing is lost by that
/// among histograms of the same precision.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(DIGITS).expect("three digits are allowed"))
    }
}

impl From<Vec<(u64, u64)>> for Latencies {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        let mut latencies = Self::default();
        for (latency_us, count) in pairs {
            latencies.record_n(latency_us, count);
        }
        latencies
    }
}

impl From<Latencies> for Vec<(u64, u64)> {
    fn from(latencies: Latencies) -> Self {
        let recorded = latencies.0.iter_recorded();
        recorded.map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, latency_us: u64) {
        self.0.record(latency_us.clamp(1, MAX_US)).expect("it grows as needed");
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it grows as needed");
    }

    /// The same latency so many times.
    fn record_n(&mut self, latency_us: u64, count: u64) {
        let latency_us = latency_us.clamp(1, MAX_US);
        self.0.record_n(latency_us, count.min(MAX_COUNT)).expect("it grows as needed");
    }

    /// How many are above.
    pub(crate) fn count_above(&self, latency_us: u64) -> u64 {
        self.count() - self.0.count_between(0, latency_us)
    }

    pub(crate) fn clear(&mut self) {
        // Its own `clear` would keep the highest value.
        self.0.reset();
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// ms; 0 when there are none.
    pub(crate) fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }

    /// ms.
    pub(crate) fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    /// ms.
    pub(crate) fn mean_ms(&self) -> f64 {
        self.0.mean() / 1000.0
    }

    /// Percentiles ever closer to 100 with the latency in ms at each, for a plot.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        let steps = self.0.iter_quantiles(5);
        let mut curve: Vec<(f64, f64)> = steps
            .map(|step| (step.quantile() * 100.0, step.value_iterated_to() as f64 / 1000.0))
            .collect();
        curve.dedup_by_key(|point| point.1.to_bits());
        curve
    }
}

/// Counts that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Acknowledged records.
    pub(crate) written: u64,
    /// Bytes of their values.
    pub(crate) written_bytes: u64,
    /// Records read, by all groups.
    pub(crate) read: u64,
    /// Bytes of their values.
    pub(crate) read_bytes: u64,
    /// Requests that failed and were repeated.
    pub(crate) retries: u64,
    /// Transactions committed.
    pub(crate) commits: u64,
    /// Transactions aborted.
    pub(crate) aborts: u64,
}

impl Counts {
    /// Whether each is.
    pub(crate) fn is_below(&self, bound: u64) -> bool {
        let Self { written, written_bytes, read, read_bytes, retries, commits, aborts } = *self;
        let all = [written, written_bytes, read, read_bytes, retries, commits, aborts];
        all.iter().all(|count| *count < bound)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.written += other.written;
        self.written_bytes += other.written_bytes;
        self.read += other.read;
        self.read_bytes += other.read_bytes;
        self.retries += other.retries;
        self.commits += other.commits;
        self.aborts += other.aborts;
    }
}

/// All kinds of latencies.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kinds {
    /// From due to acknowledged.
    pub(crate) produce: Latencies,
    /// From due to read, by each group.
    pub(crate) end_to_end: Latencies,
    /// From due to made, where there was room for it: the harness's own part in the above.
    pub(crate) lateness: Latencies,
    /// From the decision to commit until it was answered.
    pub(crate) commit: Latencies,
}

impl Kinds {
    fn add(&mut self, other: &Self) {
        self.produce.add(&other.produce);
        self.end_to_end.add(&other.end_to_end);
        self.lateness.add(&other.lateness);
        self.commit.add(&other.commit);
    }

    fn is_empty(&self) -> bool {
        let Self { produce, end_to_end, lateness, commit } = self;
        [produce, end_to_end, lateness, commit].iter().all(|latencies| latencies.count() == 0)
    }

    fn clear(&mut self) {
        self.produce.clear();
        self.end_to_end.clear();
        self.lateness.clear();
        self.commit.clear();
    }
}

/// What one second had.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    pub(crate) counts: Counts,
    pub(crate) produce: Latencies,
    pub(crate) end_to_end: Latencies,
}

/// A part of the statistics, under its lock.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    second: Second,
    /// By phase.
    phases: Vec<Kinds>,
    /// When each phase began.
    starts_us: Vec<u64>,
}

impl Shard {
    fn phase(&mut self, due_us: u64) -> Option<&mut Kinds> {
        let phase =
            self.starts_us.partition_point(|start_us| *start_us <= due_us).checked_sub(1)?;
        self.phases.get_mut(phase)
    }

    pub(crate) fn counts(&mut self) -> &mut Counts {
        &mut self.second.counts
    }

    pub(crate) fn produced(&mut self, due_us: u64, now_us: u64) {
        let latency_us = now_us.saturating_sub(due_us);
        self.second.produce.record(latency_us);
        if let Some(phase) = self.phase(due_us) {
            phase.produce.record(latency_us);
        }
    }

    /// What was due and given up has waited for at least so long.
    pub(crate) fn given_up(&mut self, all: &[GivenUp]) {
        for (given_up, due_us) in all.iter().flat_map(|all| all.due_us().map(move |due| (all, due)))
        {
            if let Some(phase) = self.phase(due_us) {
                phase.produce.record(given_up.at_us.saturating_sub(due_us));
            }
        }
    }

    pub(crate) fn consumed(&mut self, due_us: u64, now_us: u64) {
        let latency_us = now_us.saturating_sub(due_us);
        self.second.end_to_end.record(latency_us);
        if let Some(phase) = self.phase(due_us) {
            phase.end_to_end.record(latency_us);
        }
    }

    /// A record was read; `due_us` is known of one of this run.
    pub(crate) fn read(&mut self, value_bytes: usize, due_us: Option<u64>, now_us: u64) {
        let counts = self.counts();
        counts.read += 1;
        counts.read_bytes += value_bytes as u64;
        if let Some(due_us) = due_us {
            self.consumed(due_us, now_us);
        }
    }

    pub(crate) fn made(&mut self, due_us: u64, now_us: u64) {
        if let Some(phase) = self.phase(due_us) {
            phase.lateness.record(now_us.saturating_sub(due_us));
        }
    }

    pub(crate) fn ended(&mut self, begun_us: u64, now_us: u64) {
        if let Some(phase) = self.phase(begun_us) {
            phase.commit.record(now_us.saturating_sub(begun_us));
        }
    }
}

/// The statistics of a run.
#[derive(Debug)]
pub(crate) struct Stats {
    shards: Vec<Mutex<Shard>>,
    total: RwLock<Counts>,
}

impl Stats {
    pub(crate) fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Mutex::default()).collect();
        Self { shards, total: RwLock::default() }
    }

    /// The shard of a client: hold it for one answer only.
    pub(crate) fn shard(&self, client: usize) -> MutexGuard<'_, Shard> {
        self.shards[client % self.shards.len()].lock()
    }

    /// A phase begins. Records that are due from now on belong to it.
    pub(crate) fn begin_phase(&self, now_us: u64) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.starts_us.push(now_us);
            shard.phases.push(Kinds::default());
        }
    }

    /// Takes what has come since the last time.
    pub(crate) fn take_second(&self) -> Second {
        let mut second = Second::default();
        // From here on, for whoever adds up both: nothing is counted twice or left out.
        let mut total = self.total.write();
        for shard in &self.shards {
            let mut shard = shard.lock();
            second.counts.add(&shard.second.counts);
            second.produce.add(&shard.second.produce);
            second.end_to_end.add(&shard.second.end_to_end);
            shard.second.counts = Counts::default();
            shard.second.produce.clear();
            shard.second.end_to_end.clear();
        }
        total.add(&second.counts);
        second
    }

    /// Takes the latencies of each phase that have come since the last time, for somebody else's
    /// [`Self::merge`].
    pub(crate) fn take_phases(&self) -> Vec<(usize, Kinds)> {
        let mut taken: Vec<Kinds> = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            for (phase, kinds) in shard.phases.iter_mut().enumerate() {
                if taken.len() <= phase {
                    taken.push(Kinds::default());
                }
                if !kinds.is_empty() {
                    taken[phase].add(kinds);
                    kinds.clear();
                }
            }
        }
        taken.into_iter().enumerate().filter(|(_, kinds)| !kinds.is_empty()).collect()
    }

    /// Adds what was taken elsewhere. Phases that have not begun here are left out.
    pub(crate) fn merge(&self, second: &Second, phases: &[(usize, Kinds)]) {
        let mut shard = self.shard(0);
        shard.second.counts.add(&second.counts);
        shard.second.produce.add(&second.produce);
        shard.second.end_to_end.add(&second.end_to_end);
        for (phase, kinds) in phases {
            if let Some(own) = shard.phases.get_mut(*phase) {
                own.add(kinds);
            }
        }
    }

    /// Records acknowledged up to now.
    pub(crate) fn written(&self) -> u64 {
        let total = self.total.read();
        let shards = self.shards.iter().map(|shard| shard.lock().second.counts.written);
        total.written + shards.sum::<u64>()
    }

    /// The produce latencies of a phase so far.
    pub(crate) fn produced(&self, phase: usize) -> Latencies {
        let mut produced = Latencies::default();
        for shard in &self.shards {
            if let Some(own) = shard.lock().phases.get(phase) {
                produced.add(&own.produce);
            }
        }
        produced
    }

    /// The latencies of a phase so far.
    pub(crate) fn phase(&self, phase: usize) -> Kinds {
        let mut kinds = Kinds::default();
        for shard in &self.shards {
            if let Some(own) = shard.lock().phases.get(phase) {
                kinds.add(own);
            }
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_belong_to_the_phase_in_which_they_were_due() {
        let stats = Stats::new(2);
        stats.shard(0).produced(50, 60);
        stats.begin_phase(100);
        stats.begin_phase(200);
        stats.shard(0).produced(199, 5199);
        stats.shard(1).produced(200, 9200);
        assert_eq!(stats.phase(0).produce.count(), 1);
        assert_eq!(stats.phase(1).produce.count(), 1);
        // Three digits: 9 ms within 0.1 %.
        assert!((stats.phase(1).produce.max_ms() - 9.0).abs() < 0.01);
        let second = stats.take_second();
        assert_eq!(second.produce.count(), 3);
        let next = stats.take_second();
        assert_eq!(next.produce.count(), 0);
        assert!(next.produce.max_ms() < 0.01, "of this second alone");
    }

    #[test]
    fn counts_add_up_over_shards_and_seconds() {
        let stats = Stats::new(3);
        for second in 0..2 {
            for client in 0..6 {
                stats.shard(client).counts().written += 1;
            }
            assert_eq!(stats.take_second().counts.written, 6, "{second}");
        }
        assert_eq!(stats.written(), 12);
        stats.shard(1).counts().written += 1;
        assert_eq!(stats.written(), 13, "without waiting for the second to end");
    }

    #[test]
    fn what_is_taken_as_text_and_merged_elsewhere_is_the_same() {
        let (here, there) = (Stats::new(2), Stats::new(2));
        here.begin_phase(0);
        there.begin_phase(0);
        for (shard, latency_us) in [1, 17, 999, 1_234_567, 1_234_567, MAX_US].iter().enumerate() {
            here.shard(shard).produced(5, 5 + latency_us);
            here.shard(shard).counts().written += 1;
        }
        let expected = here.phase(0).produce;
        let taken = (here.take_second(), here.take_phases());
        assert!(here.take_phases().is_empty() && here.phase(0).produce.count() == 0);
        let text = serde_json::to_string(&taken).expect("JSON");
        let (second, phases): (Second, Vec<(usize, Kinds)>) =
            serde_json::from_str(&text).expect("the same");
        there.merge(&second, &phases);
        there.merge(&Second::default(), &[(7, Kinds::default())]);
        assert_eq!(there.phase(0).produce.0, expected.0);
        assert_eq!(there.take_second().counts.written, 6);
        let wild: Latencies = serde_json::from_str(&format!("[[0, 1], [{0}, {0}]]", u64::MAX))
            .expect("any pairs are latencies");
        assert_eq!(wild.count(), MAX_COUNT + 1);
    }
}
