//! What came after each fault: how long it took until the server acknowledged, and gave to read, something that it
//! was asked for after the fault. Producers and consumers report each success; what was asked before the
//! fault says nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// No fault waits for its first success.
const NONE: u64 = u64::MAX;

/// One fault, µs since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// When the fault was there.
    pub(crate) since_us: u64,
    /// When the first acknowledgement came.
    pub(crate) acknowledged_us: Option<u64>,
    /// When the first records came.
    pub(crate) read_us: Option<u64>,
}

/// The faults of a run, in order.
#[derive(Debug)]
pub(crate) struct Outages {
    all: Mutex<Vec<Outage>>,
    /// The earliest fault that waits for an acknowledgement, and for a read: nearly always none, so that the
    /// lock is nearly never taken.
    waiting: [AtomicU64; 2],
}

impl Default for Outages {
    fn default() -> Self {
        Self { all: Mutex::default(), waiting: [AtomicU64::new(NONE), AtomicU64::new(NONE)] }
    }
}

#[cfg_attr(not(test), expect(dead_code, reason = "faults come with the next change"))]
impl Outages {
    /// A fault is there.
    pub(crate) fn begin(&self, since_us: u64) {
        let mut all = self.all.lock();
        all.push(Outage { since_us, acknowledged_us: None, read_us: None });
        for waiting in &self.waiting {
            waiting.fetch_min(since_us, Ordering::Relaxed);
        }
    }

    /// Something was acknowledged that was sent then.
    pub(crate) fn acknowledged(&self, sent_us: u64, now_us: u64) {
        self.note(0, sent_us, now_us, |outage| &mut outage.acknowledged_us);
    }

    /// Records came that were asked for then.
    pub(crate) fn read(&self, sent_us: u64, now_us: u64) {
        self.note(1, sent_us, now_us, |outage| &mut outage.read_us);
    }

    fn note(
        &self,
        kind: usize,
        sent_us: u64,
        now_us: u64,
        first: impl Fn(&mut Outage) -> &mut Option<u64>,
    ) {
        if sent_us < self.waiting[kind].load(Ordering::Relaxed) {
            return;
        }
        let mut all = self.all.lock();
        let mut earliest_us = NONE;
        for outage in all.iter_mut() {
            let since_us = outage.since_us;
            match first(outage) {
                Some(_) => {}
                none if sent_us >= since_us => *none = Some(now_us),
                None => earliest_us = earliest_us.min(since_us),
            }
        }
        self.waiting[kind].store(earliest_us, Ordering::Relaxed);
    }

    /// What came after each fault so far.
    pub(crate) fn all(&self) -> Vec<Outage> {
        self.all.lock().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_after_a_fault_ends_it_and_only_the_first() {
        let outages = Outages::default();
        outages.acknowledged(50, 60);
        outages.begin(100);
        outages.acknowledged(90, 110);
        outages.read(100, 130);
        outages.acknowledged(101, 120);
        outages.acknowledged(115, 125);
        outages.begin(200);
        outages.begin(300);
        outages.acknowledged(250, 310);
        outages.acknowledged(310, 350);
        let outage =
            |since_us, acknowledged_us, read_us| Outage { since_us, acknowledged_us, read_us };
        let expected = [
            outage(100, Some(120), Some(130)),
            outage(200, Some(310), None),
            outage(300, Some(350), None),
        ];
        assert_eq!(outages.all(), expected);
        outages.read(200, 400);
        assert_eq!(outages.all()[1].read_us, Some(400));
        assert_eq!(outages.all()[2].read_us, None);
    }
}
