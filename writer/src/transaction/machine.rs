//! The rules of one transactional id: from its state and a request to the next state, or to the code
//! that the request is refused with. By Kafka 4.3's TransactionCoordinator (KIP-98, KIP-360, KIP-588,
//! KIP-890).
//!
//! Pure. A [`Step::Log`] is a decision: the caller makes the record durable and then it is the state
//! ([`Machine::applied`]); meanwhile nothing else is decided. So the log holds one line of decisions
//! for each id.
//!
//! What always holds:
//! - What was decided (prepared) is completed as it was decided.
//! - The pair of producer id and epoch that may write never comes back once it was replaced.
//! - A producer id is used by one transactional id only; new ones come from the caller.

use std::collections::BTreeSet;

use sluice_model::StreamId;
use sluice_wire::{ErrorCode, Str};

use super::state::{Generation, NO_EPOCH, NONE, State, Transaction, is_exhausted};

/// What a request leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This state is to be logged; the request is answered when it is durable.
    Log(Box<Transaction>),
    /// Nothing changes: the request was made before, and is answered as then.
    Done,
    /// Ask again with a producer id that nobody has had.
    NeedsProducerId,
}

/// What a producer presents: its id and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// InitProducerId with a transactional id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Init {
    pub(crate) timeout_ms: i32,
    /// Who the producer was, if it recovers (KIP-360).
    pub(crate) was: Option<Producer>,
    /// A producer id that nobody has had, if one is at hand.
    pub(crate) fresh: Option<i64>,
}

/// What a transaction is about to write to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) streams: BTreeSet<StreamId>,
    pub(crate) groups: BTreeSet<Str>,
}

/// EndTxn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) producer: Producer,
    pub(crate) commit: bool,
    pub(crate) generation: Generation,
    pub(crate) fresh: Option<i64>,
}

/// The state of one transactional id, and whether a decision about it is being logged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Machine {
    durable: Option<Transaction>,
    is_logging: bool,
}

impl Machine {
    /// The state as it is in the log.
    pub(crate) fn durable(&self) -> Option<&Transaction> {
        self.durable.as_ref()
    }

    /// A decision is on its way to the log.
    pub(crate) fn is_logging(&self) -> bool {
        self.is_logging
    }

    /// Nothing is known that would not be the same of an id that never was.
    pub(crate) fn is_blank(&self) -> bool {
        self.durable.is_none() && !self.is_logging
    }

    /// A [`Step::Log`] was handed to the log.
    pub(crate) fn log_begun(&mut self) {
        self.is_logging = true;
    }

    /// The log has answered, one way or the other.
    pub(crate) fn log_ended(&mut self) {
        self.is_logging = false;
    }

    /// A record is durable: the state is this, or the id is forgotten.
    pub(crate) fn applied(&mut self, state: Option<Transaction>) {
        self.durable = state;
    }

    /// A producer starts, or goes on after an error.
    pub(crate) fn init(&self, request: Init, now_ms: i64) -> Result<Step, ErrorCode> {
        self.check_settled()?;
        let Some(current) = &self.durable else {
            let Some(producer_id) = request.fresh else { return Ok(Step::NeedsProducerId) };
            return Ok(log(Transaction {
                producer_id,
                previous_producer_id: producer_id,
                next_producer_id: NONE,
                epoch: 0,
                last_epoch: NO_EPOCH,
                timeout_ms: request.timeout_ms,
                state: State::Empty,
                generation: Generation::One,
                started_ms: NONE,
                updated_ms: now_ms,
                streams: BTreeSet::new(),
                groups: BTreeSet::new(),
            }));
        };
        let is_known = |was: &Producer| {
            was.id == current.producer_id
                // It asks again after a change of producer id whose answer it did not get.
                || (was.id == current.previous_producer_id && is_exhausted(was.epoch))
        };
        if !request.was.as_ref().is_none_or(is_known) {
            return Err(ErrorCode::ProducerFenced);
        }
        if current.state == State::Ongoing {
            // The epoch that this leads to is nobody's: who asks is told to ask again, and gets the
            // one after it.
            return Ok(current.fence(request.fresh, now_ms));
        }
        current.renew(request, now_ms)
    }

    /// A transaction begins or grows. `generation` is how the producer speaks.
    pub(crate) fn add(
        &self,
        producer: Producer,
        parts: &Parts,
        generation: Generation,
        now_ms: i64,
    ) -> Result<Step, ErrorCode> {
        self.check_settled()?;
        let current = self.of_producer(producer)?;
        let is_open = current.state == State::Ongoing;
        if is_open
            && parts.streams.is_subset(&current.streams)
            && parts.groups.is_subset(&current.groups)
        {
            return Ok(Step::Done);
        }
        let mut next = current.next(State::Ongoing, now_ms);
        if !is_open {
            next.started_ms = now_ms;
        }
        next.generation = generation;
        next.streams.extend(parts.streams.iter().copied());
        next.groups.extend(parts.groups.iter().cloned());
        Ok(log(next))
    }

    /// The open transaction, if this is its producer: what it may write to is in it.
    pub(crate) fn verify(&self, producer: Producer) -> Result<&Transaction, ErrorCode> {
        let current = self.of_producer(producer)?;
        if current.state.is_prepared() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        Ok(current)
    }

    /// Nothing is under way: no decision is being logged, no marker is still to be written. Where this
    /// comes before any look at the producer, it is as in Kafka: the answer to an end gives the new epoch
    /// before the markers are written, and who has it already must wait and is not fenced.
    fn check_settled(&self) -> Result<(), ErrorCode> {
        let is_prepared = self.durable.as_ref().is_some_and(|durable| durable.state.is_prepared());
        if self.is_logging || is_prepared {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        Ok(())
    }

    fn of_producer(&self, producer: Producer) -> Result<&Transaction, ErrorCode> {
        let current = self.durable.as_ref().ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if current.producer_id != producer.id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if current.epoch != producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        Ok(current)
    }

    /// The producer ends its transaction.
    pub(crate) fn end(&self, request: End, now_ms: i64) -> Result<Step, ErrorCode> {
        match request.generation {
            Generation::One => self.end_one(request, now_ms),
            Generation::Two => self.end_two(request, now_ms),
        }
    }

    fn end_one(&self, request: End, now_ms: i64) -> Result<Step, ErrorCode> {
        let current = self.of_producer(request.producer)?;
        self.check_settled()?;
        match (current.state, request.commit) {
            (State::Ongoing, commit) => {
                let mut next = current.next(prepared(commit), now_ms);
                next.generation = Generation::One;
                Ok(log(next))
            }
            (State::CompleteCommit, true) | (State::CompleteAbort, false) => Ok(Step::Done),
            (
                State::Empty
                | State::CompleteCommit
                | State::CompleteAbort
                | State::PrepareCommit
                | State::PrepareAbort,
                _,
            ) => Err(ErrorCode::InvalidTxnState),
        }
    }

    fn end_two(&self, request: End, now_ms: i64) -> Result<Step, ErrorCode> {
        self.check_settled()?;
        let current = self.durable.as_ref().ok_or(ErrorCode::InvalidProducerIdMapping)?;
        let Producer { id, epoch } = request.producer;
        // The same epoch is the next end of a transaction; the one before it, this one again.
        let is_same_epoch = epoch == current.epoch;
        let is_after_rotation =
            current.previous_producer_id == id && epoch == i16::MAX - 1 && current.epoch == 0;
        let is_again = epoch.checked_add(1) == Some(current.epoch) || is_after_rotation;
        if current.producer_id != id && !is_after_rotation {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        let has_ended = matches!(current.state, State::CompleteCommit | State::CompleteAbort);
        let is_valid = is_same_epoch || (has_ended && is_again);
        if !is_valid {
            return Err(ErrorCode::ProducerFenced);
        }
        match (current.state, request.commit) {
            (State::Ongoing, commit) => {
                Ok(current.prepare(commit, request.fresh, current.started_ms, now_ms))
            }
            (State::CompleteCommit, true) | (State::CompleteAbort, false) if is_again => {
                Ok(Step::Done)
            }
            (State::CompleteCommit, false) if is_again => Err(ErrorCode::InvalidTxnState),
            // An abort of nothing: the producer had trouble before anything was added, and wants a
            // new epoch. When it began is not known.
            (State::Empty | State::CompleteCommit | State::CompleteAbort, false) => {
                Ok(current.prepare(false, request.fresh, now_ms, now_ms))
            }
            (
                State::Empty
                | State::CompleteCommit
                | State::CompleteAbort
                | State::PrepareCommit
                | State::PrepareAbort,
                _,
            ) => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// The transaction has been open for too long: its producer is fenced, and it is aborted.
    pub(crate) fn time_out(&self, fresh: Option<i64>, now_ms: i64) -> Option<Step> {
        let current = self.durable.as_ref().filter(|_| !self.is_logging)?;
        (current.state == State::Ongoing).then(|| current.fence(fresh, now_ms))
    }

    /// All markers of a prepared transaction are written.
    pub(crate) fn complete(&self, now_ms: i64) -> Option<Box<Transaction>> {
        let current = self.durable.as_ref().filter(|_| !self.is_logging)?;
        Some(Box::new(current.completed(now_ms)?))
    }

    /// Whether the id may be forgotten if it was quiet since `before_ms`.
    pub(crate) fn is_expired(&self, before_ms: i64) -> bool {
        let current = self.durable.as_ref().filter(|_| !self.is_logging);
        current.is_some_and(|current| {
            current.state != State::Ongoing
                && !current.state.is_prepared()
                && current.updated_ms <= before_ms
        })
    }
}

impl Transaction {
    /// The same in another state. Kafka, too, notes the producer id of the state before at each
    /// step: only the step that changes it makes a difference.
    fn next(&self, state: State, now_ms: i64) -> Self {
        let previous_producer_id = self.producer_id;
        Self { state, previous_producer_id, updated_ms: now_ms, ..self.clone() }
    }

    /// A new epoch for a producer that has no open transaction.
    fn renew(&self, request: Init, now_ms: i64) -> Result<Step, ErrorCode> {
        let expected = request.was.map(|was| was.epoch);
        let mut next = self.next(State::Empty, now_ms);
        next.timeout_ms = request.timeout_ms;
        next.started_ms = NONE;
        next.streams.clear();
        next.groups.clear();
        if is_exhausted(self.epoch) && expected.is_none_or(|expected| expected == self.epoch) {
            let Some(producer_id) = request.fresh else { return Ok(Step::NeedsProducerId) };
            next.producer_id = producer_id;
            next.epoch = 0;
            next.last_epoch = if expected.is_some() { self.epoch } else { NO_EPOCH };
            return Ok(log(next));
        }
        match expected {
            // It has the newest epoch, or is a new instance, which fences the one before.
            None => {
                next.epoch = self.epoch + 1;
                next.last_epoch = NO_EPOCH;
            }
            Some(expected) if expected == self.epoch => {
                next.epoch = self.epoch + 1;
                next.last_epoch = self.epoch;
            }
            // It did not get the answer of its last request: the same again. A new instance would
            // have cleared the last epoch.
            Some(expected) if expected == self.last_epoch => {
                next.previous_producer_id = self.previous_producer_id;
            }
            Some(_) => return Err(ErrorCode::ProducerFenced),
        }
        Ok(log(next))
    }

    /// Decides the transaction, and raises the epoch as generation two does.
    fn prepare(&self, commit: bool, fresh: Option<i64>, started_ms: i64, now_ms: i64) -> Step {
        let mut next = self.next(prepared(commit), now_ms);
        if is_exhausted(self.epoch) {
            let Some(producer_id) = fresh else { return Step::NeedsProducerId };
            next.next_producer_id = producer_id;
        }
        next.epoch = self.epoch.saturating_add(1);
        next.last_epoch = self.epoch;
        next.started_ms = started_ms;
        next.generation = Generation::Two;
        log(next)
    }

    /// Aborts whatever the producer is doing, under an epoch that it does not have.
    fn fence(&self, fresh: Option<i64>, now_ms: i64) -> Step {
        self.prepare(false, fresh, self.started_ms, now_ms)
    }

    /// The state after all markers are written; None if nothing is prepared.
    pub(crate) fn completed(&self, now_ms: i64) -> Option<Self> {
        let state = match self.state {
            State::PrepareCommit => State::CompleteCommit,
            State::PrepareAbort => State::CompleteAbort,
            State::Empty | State::Ongoing | State::CompleteCommit | State::CompleteAbort => {
                return None;
            }
        };
        let mut next = self.next(state, now_ms);
        if self.next_producer_id != NONE {
            next.producer_id = self.next_producer_id;
            next.next_producer_id = NONE;
            next.epoch = 0;
        }
        next.streams.clear();
        next.groups.clear();
        Some(next)
    }
}

fn log(next: Transaction) -> Step {
    Step::Log(Box::new(next))
}

fn prepared(commit: bool) -> State {
    if commit { State::PrepareCommit } else { State::PrepareAbort }
}
