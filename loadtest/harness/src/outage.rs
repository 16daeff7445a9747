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
    /// The longest time without an acknowledgement, from when it was [armed](Outages::arm) to the next one.
    pub(crate) silence_us: Option<u64>,
}

/// The faults of a run, in order.
#[derive(Debug)]
pub(crate) struct Outages {
    all: Mutex<Vec<Outage>>,
    /// The earliest fault that waits for an acknowledgement, and for a read: nearly always none, so that the
    /// lock is nearly never taken.
    waiting: [AtomicU64; 2],
    /// When something was last acknowledged; 0 before.
    last_us: AtomicU64,
    /// The longest time between two acknowledgements since a fault was armed.
    silence_us: AtomicU64,
}

impl Default for Outages {
    fn default() -> Self {
        Self {
            all: Mutex::default(),
            waiting: [AtomicU64::new(NONE), AtomicU64::new(NONE)],
            last_us: AtomicU64::new(0),
            silence_us: AtomicU64::new(0),
        }
    }
}

impl Outages {
    /// A fault is about to be injected: silence counts for it from now on.
    pub(crate) fn arm(&self) {
        let mut all = self.all.lock();
        self.hush(&mut all);
        self.silence_us.store(0, Ordering::Relaxed);
    }

    /// The silence so far is the last fault's.
    fn hush(&self, all: &mut [Outage]) {
        if let Some(last) = all.last_mut() {
            let silence_us = self.silence_us.load(Ordering::Relaxed);
            // Where nothing was acknowledged any more there is no end of it.
            last.silence_us = last.acknowledged_us.is_some().then_some(silence_us);
        }
    }

    /// A fault is there.
    pub(crate) fn begin(&self, since_us: u64) {
        let mut all = self.all.lock();
        all.push(Outage { since_us, acknowledged_us: None, read_us: None, silence_us: None });
        for waiting in &self.waiting {
            waiting.fetch_min(since_us, Ordering::Relaxed);
        }
    }

    /// Something was acknowledged that was sent then.
    pub(crate) fn acknowledged(&self, sent_us: u64, now_us: u64) {
        let last_us = self.last_us.fetch_max(now_us, Ordering::Relaxed);
        if last_us > 0 {
            self.silence_us.fetch_max(now_us.saturating_sub(last_us), Ordering::Relaxed);
        }
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

    /// Whether the server has acknowledged something since the last fault, and given something to read if that is
    /// asked for.
    pub(crate) fn is_answered(&self, reads: bool) -> bool {
        let all = self.all.lock();
        all.last()
            .is_none_or(|last| last.acknowledged_us.is_some() && (!reads || last.read_us.is_some()))
    }

    /// What came after each fault so far.
    pub(crate) fn all(&self) -> Vec<Outage> {
        let mut all = self.all.lock();
        self.hush(&mut all);
        all.clone()
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
        let firsts = |outages: &Outages| -> Vec<_> {
            let all = outages.all();
            all.iter().map(|outage| (outage.acknowledged_us, outage.read_us)).collect()
        };
        assert_eq!(
            firsts(&outages),
            [(Some(120), Some(130)), (Some(310), None), (Some(350), None)]
        );
        assert!(outages.is_answered(false) && !outages.is_answered(true));
        outages.read(200, 400);
        assert_eq!(firsts(&outages)[1..], [(Some(310), Some(400)), (Some(350), None)]);
    }

    #[test]
    fn silence_is_the_longest_time_between_acknowledgements_from_a_fault_to_the_next() {
        let outages = Outages::default();
        outages.acknowledged(10, 20);
        outages.acknowledged(10, 90);
        outages.arm();
        outages.begin(100);
        assert_eq!(outages.all()[0].silence_us, None);
        outages.acknowledged(95, 105);
        outages.acknowledged(110, 155);
        outages.acknowledged(110, 160);
        outages.arm();
        outages.begin(200);
        outages.acknowledged(210, 240);
        let silences: Vec<_> = outages.all().iter().map(|outage| outage.silence_us).collect();
        assert_eq!(silences, [Some(50), Some(80)]);
    }
}
