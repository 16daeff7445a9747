//! Offsets in runs of equal state: what [`super::SharePartition`] keeps its state in.
//!
//! Always holds: runs cover `start..end` without a hole or an overlap; after [`Runs::tidy`] the first run is
//! not done, and no two neighbours could be one.

use std::collections::BTreeMap;

use super::State;

/// The offsets that were acquired together and are in flight together: what a throttled delivery takes a part
/// of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) first: i64,
    pub(super) len: i64,
}

/// Offsets from the key it is kept under up to `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) end: i64,
    pub(super) batch: Batch,
    /// How often they were given to someone, this time included.
    pub(super) deliveries: u16,
    pub(super) state: State,
}

impl Run {
    /// Whether offsets of both need not be told apart.
    fn is_like(&self, other: &Self) -> bool {
        match (&self.state, &other.state) {
            // Whatever they were, it does not matter any more.
            (State::Done { accepted: a }, State::Done { accepted: b }) => a == b,
            (a, b) => a == b && self.batch == other.batch && self.deliveries == other.deliveries,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    start: i64,
    runs: BTreeMap<i64, Run>,
}

impl Runs {
    pub(super) fn new(start: i64) -> Self {
        Self { start, runs: BTreeMap::new() }
    }

    pub(super) fn start(&self) -> i64 {
        self.start
    }

    pub(super) fn end(&self) -> i64 {
        self.runs.last_key_value().map_or(self.start, |(_, run)| run.end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// In order: the first offset, and the run.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &Run)> {
        self.runs.iter().map(|(first, run)| (*first, run))
    }

    /// The runs that hold an offset of `first..end`, in order, with all of their offsets.
    pub(super) fn overlapping(&self, first: i64, end: i64) -> impl Iterator<Item = (i64, &Run)> {
        let from = self.runs.range(..=first).next_back().map_or(first, |(at, _)| *at);
        let runs = self.runs.range(from..end.max(from));
        runs.map(|(at, run)| (*at, run)).filter(move |(_, run)| run.end > first)
    }

    /// Puts a run behind the last; it must begin at the end.
    pub(super) fn push(&mut self, run: Run) {
        let first = self.end();
        assert!(run.end > first, "a run has offsets");
        self.runs.insert(first, run);
    }

    /// Changes all offsets of `first..end` that are in runs.
    pub(super) fn set(&mut self, first: i64, end: i64, mut change: impl FnMut(&mut Run)) {
        self.split(first);
        self.split(end);
        for (_, run) in self.runs.range_mut(first..end.max(first)) {
            change(run);
        }
    }

    /// Forgets what is before `offset`.
    pub(super) fn cut(&mut self, offset: i64) {
        if offset <= self.start {
            return;
        }
        self.split(offset);
        self.runs = self.runs.split_off(&offset);
        self.start = offset;
    }

    fn split(&mut self, at: i64) {
        let Some((_, run)) = self.runs.range_mut(..at).next_back() else { return };
        if run.end > at {
            let rest = run.clone();
            run.end = at;
            self.runs.insert(at, rest);
        }
    }

    /// Lets go of what is done at the start, and joins neighbours that are alike.
    pub(super) fn tidy(&mut self) {
        while let Some(first) = self.runs.first_entry() {
            if !first.get().state.is_done() {
                break;
            }
            self.start = first.remove().end;
        }
        let mut previous: Option<i64> = None;
        let mut joined = Vec::new();
        for (first, run) in &self.runs {
            match previous {
                Some(key) if self.runs[&key].is_like(run) => joined.push((key, *first, run.end)),
                _ => previous = Some(*first),
            }
        }
        for (into, first, end) in joined {
            self.runs.remove(&first);
            if let Some(run) = self.runs.get_mut(&into) {
                run.end = end;
            }
        }
    }
}
