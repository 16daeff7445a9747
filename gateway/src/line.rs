//! The requests of one connection that are not yet answered, in the order in which they came. Pure.
//!
//! Kafka's broker takes one request of a connection at a time. Here they overlap, and the rule below
//! keeps that invisible: whoever reads sees what was written before on the same connection.
//!
//! Always: answers leave in the order of the requests; an append starts after every earlier request
//! but appends and waits; everything else starts after every earlier request but waits.

use std::collections::VecDeque;

use sluice_wire::ApiKey;
use tokio::time::Instant;

use crate::budget::Lease;
use crate::dispatch::Reply;

/// How a request may overlap with the others of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Starts while earlier appends are in flight: the backend appends in the order of starts.
    Append,
    /// Waits for others to come, so that nothing waits for it.
    Wait,
    /// Alone, apart from waits.
    Serial,
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Line {
    slots: VecDeque<Slot>,
    /// The number of the front slot.
    first: u64,
    appends: usize,
    serials: usize,
    /// Record bytes that running requests may still answer with.
    reserved_bytes: usize,
    /// Bytes of finished answers that wait for their turn.
    finished_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    api: ApiKey,
    order: Order,
    started: Instant,
    /// Reserved while it runs, the answer's size when it is done.
    bytes: usize,
    /// The request's own bytes; given back when it is done.
    lease: Option<Lease>,
    done: Option<Reply>,
}

/// An answer whose turn has come.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) api: ApiKey,
    pub(crate) started: Instant,
    pub(crate) reply: Reply,
}

impl Line {
    /// Requests that are running or wait for their turn to be answered.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Record bytes that running requests may still answer with.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes
    }

    /// Bytes of finished answers that wait for their turn.
    pub(crate) fn finished_bytes(&self) -> usize {
        self.finished_bytes
    }

    /// Whether a request of this kind may start now.
    pub(crate) fn admits(&self, order: Order) -> bool {
        self.serials == 0 && (order == Order::Append || self.appends == 0)
    }

    /// Whether anything but waits is still running.
    pub(crate) fn busy(&self) -> bool {
        self.serials + self.appends > 0
    }

    /// Whether an answer is ready but behind one that is not.
    pub(crate) fn holds_answers(&self) -> bool {
        self.slots.iter().any(|slot| slot.done.is_some())
    }

    /// Puts a request at the end that may answer with `reserved` bytes of records; gives its number.
    pub(crate) fn start(
        &mut self,
        api: ApiKey,
        order: Order,
        started: Instant,
        reserved: usize,
        lease: Lease,
    ) -> u64 {
        match order {
            Order::Append => self.appends += 1,
            Order::Serial => self.serials += 1,
            Order::Wait => {}
        }
        self.reserved_bytes += reserved;
        let slot = Slot { api, order, started, bytes: reserved, lease: Some(lease), done: None };
        self.slots.push_back(slot);
        self.first + self.slots.len() as u64 - 1
    }

    /// A request is done.
    pub(crate) fn finish(&mut self, number: u64, reply: Reply) {
        let Some(slot) = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.slots.get_mut(index))
        else {
            return;
        };
        match slot.order {
            Order::Append => self.appends -= 1,
            Order::Serial => self.serials -= 1,
            Order::Wait => {}
        }
        self.reserved_bytes -= slot.bytes;
        slot.bytes = reply.bytes();
        self.finished_bytes += slot.bytes;
        slot.lease = None;
        slot.done = Some(reply);
    }

    /// The next answer, if the oldest request is done.
    pub(crate) fn next(&mut self) -> Option<Answered> {
        let reply = self.slots.front_mut()?.done.take()?;
        let slot = self.slots.pop_front()?;
        self.first += 1;
        self.finished_bytes -= slot.bytes;
        if self.slots.is_empty() {
            // An idle connection holds nothing.
            self.slots = VecDeque::new();
        }
        Some(Answered { api: slot.api, started: slot.started, reply })
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;
    use sluice_wire::Chain;

    use super::*;
    use crate::budget::Budget;

    struct Case {
        budget: Budget,
        line: Line,
    }

    impl Case {
        fn new() -> Self {
            Self { budget: Budget::new(1 << 20, Gauge::default()), line: Line::default() }
        }

        fn start(&mut self, order: Order, reserved: usize) -> u64 {
            assert!(self.line.admits(order));
            let lease = self.budget.nothing();
            self.line.start(ApiKey::Metadata, order, Instant::now(), reserved, lease)
        }

        fn finish(&mut self, number: u64, answer: &'static str) {
            let answer = Chain::from(bytes::Bytes::from_static(answer.as_bytes()));
            let lease = self.budget.nothing();
            self.line.finish(number, Reply { outcome: Ok(Some(answer)), error: 0, lease });
        }

        /// The answers whose turn has come.
        fn answers(&mut self) -> Vec<bytes::Bytes> {
            let next = || self.line.next();
            std::iter::from_fn(next).map(|a| a.reply.outcome.unwrap().unwrap().to_bytes()).collect()
        }
    }

    #[test]
    fn what_may_start_beside_what() {
        use Order::{Append, Serial, Wait};
        for (running, admitted) in [
            (vec![], vec![Append, Wait, Serial]),
            (vec![Wait, Wait], vec![Append, Wait, Serial]),
            (vec![Append, Append], vec![Append]),
            (vec![Serial], vec![]),
            (vec![Wait, Append], vec![Append]),
        ] {
            let mut case = Case::new();
            for order in &running {
                case.start(*order, 0);
            }
            for order in [Append, Wait, Serial] {
                let admits = case.line.admits(order);
                assert_eq!(admits, admitted.contains(&order), "{order:?} beside {running:?}");
            }
        }
    }

    #[test]
    fn answers_leave_in_the_order_of_requests() {
        let mut case = Case::new();
        let wait = case.start(Order::Wait, 100);
        let first = case.start(Order::Append, 0);
        let second = case.start(Order::Append, 0);
        assert!(case.line.busy());
        case.finish(second, "second");
        assert!(case.answers().is_empty());
        assert!(case.line.holds_answers());
        assert_eq!((case.line.reserved_bytes(), case.line.finished_bytes()), (100, 6));
        case.finish(first, "first");
        assert!(!case.line.busy());
        assert!(case.answers().is_empty());
        case.finish(wait, "wait");
        assert_eq!(case.answers(), ["wait", "first", "second"]);
        assert_eq!((case.line.reserved_bytes(), case.line.finished_bytes()), (0, 0));
        assert_eq!((case.line.len(), case.line.slots.capacity()), (0, 0));
        // Numbers go on.
        assert_eq!(case.start(Order::Serial, 0), 3);
    }
}
