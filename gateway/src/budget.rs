//! Bytes, or other things, that many connections share. A [`Budget`] is only a count: whoever wants memory takes a
//! [`Lease`] first and gives it back by dropping it. Nothing here allocates the memory itself.
//!
//! Always: the sum of all leases is at most the budget's size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

/// A shared count of bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    size: usize,
    left: AtomicUsize,
    /// Grows each time `waiting` is emptied, so that a waiter knows whether it is still in there.
    round: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
    taken: Gauge,
}

/// Bytes taken from a budget; dropping gives them back.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Budget,
    bytes: usize,
}

/// Where a waiter stands; one for each place that waits.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<u64>);

impl Budget {
    /// A budget of `bytes`; `taken` shows what is in use.
    pub(crate) fn new(bytes: usize, taken: Gauge) -> Self {
        Self(Arc::new(Shared {
            size: bytes,
            left: AtomicUsize::new(bytes),
            round: AtomicU64::new(0),
            waiting: Mutex::new(Vec::new()),
            taken,
        }))
    }

    /// All of `bytes`, or none.
    pub(crate) fn try_take(&self, bytes: usize) -> Option<Lease> {
        self.try_take_above(bytes, 0)
    }

    /// A lease of nothing.
    pub(crate) fn nothing(&self) -> Lease {
        Lease { budget: self.clone(), bytes: 0 }
    }

    /// The whole budget, taken or not.
    pub(crate) fn size(&self) -> usize {
        self.0.size
    }

    /// All of `bytes` if `keep` are left after it, or none.
    fn try_take_above(&self, bytes: usize, keep: usize) -> Option<Lease> {
        let taken = self.0.left.try_update(Ordering::AcqRel, Ordering::Acquire, |left| {
            left.checked_sub(bytes).filter(|left| *left >= keep)
        });
        taken.ok()?;
        self.0.taken.inc_by(as_gauge(bytes));
        Some(Lease { budget: self.clone(), bytes })
    }

    /// As much of `bytes` as there is, maybe nothing.
    pub(crate) fn take_up_to(&self, bytes: usize) -> Lease {
        let mut got = 0;
        self.0.left.update(Ordering::AcqRel, Ordering::Acquire, |left| {
            got = left.min(bytes);
            left - got
        });
        self.0.taken.inc_by(as_gauge(got));
        Lease { budget: self.clone(), bytes: got }
    }

    /// Takes `bytes` if `keep` are left for others after it, or has the task woken when some are
    /// given back.
    pub(crate) fn poll_take(
        &self,
        cx: &Context<'_>,
        ticket: &mut Ticket,
        bytes: usize,
        keep: usize,
    ) -> Option<Lease> {
        if let Some(lease) = self.try_take_above(bytes, keep) {
            return Some(lease);
        }
        {
            let mut waiting = self.0.waiting.lock();
            let round = self.0.round.load(Ordering::Acquire);
            if ticket.0 != Some(round) {
                waiting.push(cx.waker().clone());
                ticket.0 = Some(round);
            }
        }
        // What was given back before the waker was in the list woke nobody.
        self.try_take_above(bytes, keep)
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.0.left.fetch_add(bytes, Ordering::AcqRel);
        self.0.taken.dec_by(as_gauge(bytes));
        let woken = {
            let mut waiting = self.0.waiting.lock();
            if waiting.is_empty() {
                return;
            }
            self.0.round.fetch_add(1, Ordering::AcqRel);
            std::mem::take(&mut *waiting)
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Lease {
    /// How many bytes are held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is above `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let excess = self.bytes.saturating_sub(bytes);
        self.bytes -= excess;
        self.budget.give_back(excess);
    }

    /// Takes `bytes` out of this lease into one of their own.
    pub(crate) fn split(&mut self, bytes: usize) -> Lease {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Lease { budget: self.budget.clone(), bytes }
    }

    /// Puts another lease of the same budget into this one.
    pub(crate) fn join(&mut self, mut other: Lease) {
        self.bytes += std::mem::take(&mut other.bytes);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

fn as_gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_never_exceed_the_budget_and_come_back() {
        let gauge = Gauge::default();
        let budget = Budget::new(100, gauge.clone());
        let mut first = budget.try_take(60).expect("there are 100");
        assert!(budget.try_take(41).is_none());
        let second = budget.take_up_to(1_000);
        assert_eq!(second.bytes(), 40);
        assert_eq!(gauge.get(), 100);
        first.shrink_to(10);
        let mut third = budget.try_take(50).expect("50 came back");
        third.join(first.split(4));
        assert_eq!((first.bytes(), third.bytes()), (6, 54));
        drop((first, second, third));
        assert_eq!(gauge.get(), 0);
        assert!(budget.try_take(100).is_some());
    }

    #[test]
    fn a_waiter_is_listed_once_and_woken_by_what_comes_back() {
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let woken = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = Context::from_waker(&waker);
        let budget = Budget::new(10, Gauge::default());
        let held = budget.try_take(10).expect("all is there");
        let mut ticket = Ticket::default();
        for _ in 0..5 {
            assert!(budget.poll_take(&cx, &mut ticket, 1, 0).is_none());
        }
        assert_eq!(budget.0.waiting.lock().len(), 1);
        drop(held);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(budget.poll_take(&cx, &mut ticket, 1, 0).is_some());
    }
}
