//! What the consumers of one group have in common where the server deals out the partitions: what all of them have
//! seen, and how far the group has come in each partition.

use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::Goal;
use crate::verify::{Findings, Verifier, Written};

/// One consumer group of this process.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) verifier: Mutex<Verifier>,
    /// By partition, the next offset of whoever has come furthest.
    reached: Vec<AtomicI64>,
}

impl Group {
    /// A group that has read nothing.
    pub(crate) fn new(run: u64, committed: bool, partitions: u32) -> Self {
        let reached = (0..partitions).map(|_| AtomicI64::new(0)).collect();
        Self { verifier: Mutex::new(Verifier::new(run, committed)), reached }
    }

    /// One of its consumers has come so far.
    pub(super) fn reach(&self, partition: u32, next: i64) {
        if let Some(reached) = self.reached.get(partition as usize) {
            reached.fetch_max(next, Ordering::Relaxed);
        }
    }

    /// Whether the group has come to all of these ends.
    pub(super) fn has_passed(&self, ends: &[i64]) -> bool {
        self.reached.iter().zip(ends).all(|(reached, end)| reached.load(Ordering::Relaxed) >= *end)
    }

    /// Holds what was seen against what was written, once its consumers have ended. The goal has the ends that they had
    /// to come to; none if nobody knows them. Whether they have, and what is wrong.
    pub(crate) fn finish(&self, written: &[Written], goal: &Goal) -> (bool, Findings) {
        let ends = goal.ends.as_slice();
        let is_complete = !ends.is_empty() && self.has_passed(ends);
        let partitions: Vec<u32> = (0..self.reached.len() as u32).collect();
        let empty = Verifier::new(0, false);
        let mut verifier = std::mem::replace(&mut *self.verifier.lock(), empty);
        for (partition, (reached, end)) in (0..).zip(self.reached.iter().zip(ends)) {
            let next = reached.load(Ordering::Relaxed);
            // Nobody can have read more than there is.
            if next > *end && !goal.is_open {
                verifier.ends_before(partition, next, *end);
            }
        }
        (is_complete, verifier.finish(written, &partitions, is_complete))
    }
}
