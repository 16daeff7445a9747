//! One share partition as a pure state machine (KIP-932): what of a stream a share group has been
//! given, by whom it is locked, how often it was delivered, and what became of it. `(now, event)` in,
//! what to give or to persist out. No runtime, no clock, no log.
//!
//! ```text
//!                    start                              end
//!   ... all done ...  |  acknowledged, available, locked |  never given to anyone ...
//!
//!                acquire                     acknowledge, release
//!   Available ------------> Acquired ---------------------------------> Settling(ticket)
//!       ^                      |  ^  ^---- renew                            |   |
//!       |  lock runs out       |  |           could not be made durable     |   | durable
//!       +----------------------+  +-----------------------------------------+   |
//!       +----------------------- released -----------------------------------<--+
//!                                accepted, rejected: Done, and the start moves past it
//! ```
//!
//! The rules are those of Kafka 4.3's SharePartition. It keeps batches, which it breaks up into offsets
//! when one needs a state of its own; here runs of equal offsets are split and joined, which gives each
//! offset the same states and one way to do everything.
//!
//! Always holds: the runs cover `start..end` without a hole or an overlap; the first is not done; an
//! offset has at most one lock; what an acknowledgement does is seen only when it is durable; an event
//! that is refused changes nothing.

mod acknowledge;
mod acquire;
mod runs;
pub(crate) mod stored;
#[cfg(test)]
mod tests;

use std::time::Duration;

use sluice_wire::Str;
use tokio::time::Instant;

use self::runs::Runs;

pub(crate) use self::acknowledge::AckRange;
#[cfg(test)]
pub(crate) use self::acknowledge::Refusal;
pub(crate) use self::acquire::{Acquired, Span, Take};
pub(crate) use self::stored::Stored;

/// What a group's configuration says about its share partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// `share.record.lock.duration.ms`.
    pub(crate) lock: Duration,
    /// `share.delivery.count.limit`: a record that was delivered this often is not delivered again.
    pub(crate) delivery_limit: u16,
    /// `share.partition.max.record.locks`: offsets from start to end, but for the batch that crosses it.
    pub(crate) max_locks: u32,
    /// `share.renew.acknowledge.enable`.
    pub(crate) renew: bool,
}

/// Who has some offsets, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    member: Str,
    until: Instant,
}

/// What becomes of an offset that was given to someone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It will be given again.
    Available,
    /// A member has accepted it.
    Acknowledged,
    /// It was rejected, delivered too often, or does not exist.
    Archived,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Available,
    Acquired(Lock),
    /// Becomes `to` when what was staged under `ticket` is durable, and what it was if that fails.
    Settling {
        lock: Lock,
        to: Outcome,
        ticket: u64,
    },
    /// Never given again. True if it was accepted.
    Done {
        accepted: bool,
    },
}

impl State {
    fn settled(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Available => Self::Available,
            Outcome::Acknowledged => Self::Done { accepted: true },
            Outcome::Archived => Self::Done { accepted: false },
        }
    }

    fn is_done(&self) -> bool {
        matches!(self, Self::Done { .. })
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharePartition {
    runs: Runs,
    next_ticket: u64,
    /// Not later than the end of the first lock.
    wake: Option<Instant>,
}

impl SharePartition {
    /// Nothing was given yet; delivery begins at `start`.
    #[cfg(test)]
    pub(crate) fn new(start: i64) -> Self {
        Self { runs: Runs::new(start), next_ticket: 1, wake: None }
    }

    /// The first offset that is not done.
    pub(crate) fn start(&self) -> i64 {
        self.runs.start()
    }

    /// The first offset that nobody was given yet.
    #[cfg(test)]
    pub(crate) fn end(&self) -> i64 {
        self.runs.end()
    }

    /// The first offset that could be given to someone.
    pub(crate) fn next_offset(&self) -> i64 {
        let mut runs = self.runs.iter();
        runs.find(|(_, run)| run.state == State::Available)
            .map_or_else(|| self.runs.end(), |(first, _)| first)
    }

    /// Whether something could be given to someone if the stream had it.
    pub(crate) fn has_room(&self, rules: &Rules) -> bool {
        self.next_offset() < self.runs.end() || self.in_flight() < i64::from(rules.max_locks)
    }

    fn in_flight(&self) -> i64 {
        self.runs.end() - self.runs.start()
    }

    /// When [`Self::expire`] has something to do, or earlier.
    pub(crate) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Locks that have run out are released. How many offsets that are: if any, the state should be
    /// persisted, though nobody waits for it.
    pub(crate) fn expire(&mut self, now: Instant, rules: &Rules) -> u64 {
        if self.wake.is_none_or(|wake| wake > now) {
            return 0;
        }
        let due: Vec<_> = self
            .runs
            .iter()
            .filter(|(_, run)| matches!(&run.state, State::Acquired(lock) if lock.until <= now))
            .map(|(first, run)| (first, run.end, run.deliveries))
            .collect();
        for (first, end, deliveries) in &due {
            let released = State::settled(released(*deliveries, rules));
            self.runs.set(*first, *end, |run| run.state = released.clone());
        }
        self.runs.tidy();
        self.wake = self.runs.iter().filter_map(|(_, run)| locked_until(&run.state)).min();
        due.iter().map(|(first, end, _)| end.abs_diff(*first)).sum()
    }

    /// How many offsets members have that nothing durable was said of.
    pub(crate) fn acquired(&self) -> u64 {
        let held =
            |run: &runs::Run| matches!(run.state, State::Acquired(_) | State::Settling { .. });
        let held = self.runs.iter().filter(|(_, run)| held(run));
        held.map(|(first, run)| run.end.abs_diff(first)).sum()
    }

    /// All that a member has is to be released; the ticket to wait for, if it had anything.
    pub(crate) fn release(&mut self, member: &str, rules: &Rules) -> Option<u64> {
        let held: Vec<_> = self
            .runs
            .iter()
            .filter(|(_, run)| matches!(&run.state, State::Acquired(l) if *l.member == *member))
            .map(|(first, run)| (first, run.end, run.deliveries))
            .collect();
        if held.is_empty() {
            return None;
        }
        let ticket = self.ticket();
        for (first, end, deliveries) in held {
            self.stage(first, end, released(deliveries, rules), ticket);
        }
        Some(ticket)
    }

    /// What was staged up to this ticket is durable, or could not be made so.
    pub(crate) fn settle(&mut self, up_to: u64, durable: bool, now: Instant, rules: &Rules) {
        let staged: Vec<_> = self
            .runs
            .iter()
            .filter_map(|(first, run)| match &run.state {
                State::Settling { lock, to, ticket } if *ticket <= up_to => {
                    let state = if durable {
                        State::settled(*to)
                    } else if lock.until <= now {
                        State::settled(released(run.deliveries, rules))
                    } else {
                        State::Acquired(lock.clone())
                    };
                    Some((first, run.end, state))
                }
                _ => None,
            })
            .collect();
        for (first, end, state) in staged {
            if let Some(until) = locked_until(&state) {
                self.wake_by(until);
            }
            self.runs.set(first, end, |run| run.state = state.clone());
        }
        self.runs.tidy();
    }

    /// The stream begins at `log_start` now: what was before it does not exist.
    pub(crate) fn cut(&mut self, log_start: i64) {
        self.runs.cut(log_start);
        self.runs.tidy();
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    /// The last ticket that was given out.
    pub(crate) fn last_ticket(&self) -> u64 {
        self.next_ticket
    }

    fn stage(&mut self, first: i64, end: i64, to: Outcome, ticket: u64) {
        self.runs.set(first, end, |run| {
            if let State::Acquired(lock) = &run.state {
                run.state = State::Settling { lock: lock.clone(), to, ticket };
            }
        });
    }

    fn wake_by(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// What becomes of an offset that was delivered so often and is let go of.
fn released(deliveries: u16, rules: &Rules) -> Outcome {
    if deliveries >= rules.delivery_limit { Outcome::Archived } else { Outcome::Available }
}

fn locked_until(state: &State) -> Option<Instant> {
    match state {
        State::Acquired(lock) => Some(lock.until),
        State::Available | State::Settling { .. } | State::Done { .. } => None,
    }
}
