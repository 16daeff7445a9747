//! The rules of one transactional id: Kafka's tables case by case, and what always holds under random
//! requests, lost records and crashes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use sluice_model::{StreamId, TopicId};
use sluice_wire::ErrorCode;

use super::super::machine::{End, Init, Machine, Parts, Producer, Step};
use super::super::state::{Generation, State, Transaction};

const NOW: i64 = 1_000;

fn stream(partition: u32) -> StreamId {
    StreamId { topic: TopicId([7; 16]), partition }
}

fn parts(partition: u32) -> Parts {
    Parts { streams: [stream(partition)].into(), ..Parts::default() }
}

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id, epoch }
}

fn init(was: Option<Producer>, fresh: Option<i64>) -> Init {
    Init { timeout_ms: 60_000, was, fresh }
}

fn end(id: i64, epoch: i16, commit: bool, generation: Generation) -> End {
    End { producer: producer(id, epoch), commit, generation, fresh: Some(900) }
}

/// Makes a decision durable at once, and gives it.
fn log(machine: &mut Machine, step: Result<Step, ErrorCode>) -> Transaction {
    match step {
        Ok(Step::Log(next)) => {
            machine.applied(Some((*next).clone()));
            *next
        }
        other => panic!("nothing to log: {other:?}"),
    }
}

fn complete(machine: &mut Machine) -> Transaction {
    let next = machine.complete(NOW).expect("something is prepared");
    machine.applied(Some((*next).clone()));
    *next
}

/// An id whose producer is (5, 0), in this state. Generation two raises the epoch at each end.
fn at(state: State, generation: Generation) -> Machine {
    let mut machine = Machine::default();
    let step = machine.init(init(None, Some(5)), NOW);
    log(&mut machine, step);
    if state == State::Empty {
        return machine;
    }
    let step = machine.add(producer(5, 0), &parts(0), generation, NOW);
    log(&mut machine, step);
    if state == State::Ongoing {
        return machine;
    }
    let commit = matches!(state, State::PrepareCommit | State::CompleteCommit);
    let step = machine.end(end(5, 0, commit, generation), NOW);
    log(&mut machine, step);
    if matches!(state, State::CompleteCommit | State::CompleteAbort) {
        complete(&mut machine);
    }
    assert_eq!(machine.durable().map(|durable| durable.state), Some(state));
    machine
}

#[test]
fn ends_of_generation_one_follow_kafkas_table() {
    use ErrorCode::{ConcurrentTransactions, InvalidTxnState};
    for (state, on_commit, on_abort) in [
        (State::Empty, Err(InvalidTxnState), Err(InvalidTxnState)),
        (State::PrepareCommit, Err(ConcurrentTransactions), Err(ConcurrentTransactions)),
        (State::PrepareAbort, Err(ConcurrentTransactions), Err(ConcurrentTransactions)),
        (State::CompleteCommit, Ok(Step::Done), Err(InvalidTxnState)),
        (State::CompleteAbort, Err(InvalidTxnState), Ok(Step::Done)),
    ] {
        let machine = at(state, Generation::One);
        assert_eq!(machine.end(end(5, 0, true, Generation::One), NOW), on_commit, "{state:?}");
        assert_eq!(machine.end(end(5, 0, false, Generation::One), NOW), on_abort, "{state:?}");
        let fenced = machine.end(end(5, 1, true, Generation::One), NOW);
        assert_eq!(fenced, Err(ErrorCode::ProducerFenced), "{state:?}");
        let other = machine.end(end(6, 0, true, Generation::One), NOW);
        assert_eq!(other, Err(ErrorCode::InvalidProducerIdMapping), "{state:?}");
    }
    let mut machine = at(State::Ongoing, Generation::One);
    let step = machine.end(end(5, 0, true, Generation::One), NOW);
    let prepared = log(&mut machine, step);
    assert_eq!((prepared.state, prepared.epoch), (State::PrepareCommit, 0));
    assert_eq!(complete(&mut machine).epoch, 0);
}

#[test]
fn ends_of_generation_two_follow_kafkas_table() {
    #[derive(Debug, PartialEq)]
    enum Answer {
        Again,
        Bumps,
        Refused(ErrorCode),
    }
    use ErrorCode::{ConcurrentTransactions as Busy, InvalidTxnState as Its, ProducerFenced as Pf};
    // State; the epoch before asks for abort, commit; the current epoch for abort, commit.
    for (state, expected) in [
        (
            State::Empty,
            [Answer::Refused(Pf), Answer::Refused(Pf), Answer::Bumps, Answer::Refused(Its)],
        ),
        (
            State::CompleteAbort,
            [Answer::Again, Answer::Refused(Its), Answer::Bumps, Answer::Refused(Its)],
        ),
        (
            State::CompleteCommit,
            [Answer::Refused(Its), Answer::Again, Answer::Bumps, Answer::Refused(Its)],
        ),
        // Whoever asks: the producer has the current epoch since its end was answered.
        (State::PrepareAbort, [const { Answer::Refused(Busy) }; 4]),
        (State::PrepareCommit, [const { Answer::Refused(Busy) }; 4]),
    ] {
        let machine = at(state, Generation::Two);
        let epoch = machine.durable().map_or(0, |durable| durable.epoch);
        let asked = [(epoch - 1, false), (epoch - 1, true), (epoch, false), (epoch, true)];
        for ((epoch, commit), expected) in asked.into_iter().zip(expected) {
            let is = match machine.end(end(5, epoch, commit, Generation::Two), NOW) {
                Ok(Step::Done) => Answer::Again,
                Ok(Step::Log(next)) => {
                    assert_eq!((next.state, next.epoch), (State::PrepareAbort, epoch + 1));
                    Answer::Bumps
                }
                Ok(Step::NeedsProducerId) => panic!("there is one"),
                Err(code) => Answer::Refused(code),
            };
            assert_eq!(is, expected, "{state:?}, epoch {epoch}, commit {commit}");
        }
    }
    let mut machine = at(State::Ongoing, Generation::Two);
    let step = machine.end(end(5, 0, true, Generation::Two), NOW);
    let prepared = log(&mut machine, step);
    assert_eq!((prepared.epoch, prepared.last_epoch), (1, 0), "markers fence the epoch before");
    assert_eq!(complete(&mut machine).epoch, 1);
}

#[test]
fn a_new_instance_fences_and_a_lost_answer_is_given_again() {
    let mut machine = at(State::Empty, Generation::Two);
    let step = machine.init(init(None, None), NOW);
    let next = log(&mut machine, step);
    assert_eq!((next.producer_id, next.epoch, next.last_epoch), (5, 1, -1));
    // Its epoch was taken over: who recovers with the one before is fenced.
    let was = machine.init(init(Some(producer(5, 0)), None), NOW);
    assert_eq!(was, Err(ErrorCode::ProducerFenced));
    // Who recovers with the newest gets the next; and the same again, if the answer was lost.
    for _ in 0..2 {
        let step = machine.init(init(Some(producer(5, 1)), None), NOW);
        assert_eq!(log(&mut machine, step).epoch, 2);
    }
    let other = machine.init(init(Some(producer(6, 2)), None), NOW);
    assert_eq!(other, Err(ErrorCode::ProducerFenced));
}

#[test]
fn an_open_transaction_is_aborted_before_a_new_instance_begins() {
    for generation in [Generation::One, Generation::Two] {
        let mut machine = at(State::Ongoing, generation);
        let step = machine.init(init(None, None), NOW);
        let fence = log(&mut machine, step);
        assert_eq!((fence.state, fence.epoch), (State::PrepareAbort, 1));
        let busy = machine.init(init(None, None), NOW);
        assert_eq!(busy, Err(ErrorCode::ConcurrentTransactions));
        complete(&mut machine);
        let step = machine.init(init(None, None), NOW);
        assert_eq!(log(&mut machine, step).epoch, 2);
        // The first instance finds out whatever it does.
        let added = machine.add(producer(5, 0), &parts(1), generation, NOW);
        assert_eq!(added, Err(ErrorCode::ProducerFenced));
        for generation in [Generation::One, Generation::Two] {
            let ended = machine.end(end(5, 0, true, generation), NOW);
            assert_eq!(ended, Err(ErrorCode::ProducerFenced));
        }
    }
}

#[test]
fn while_markers_are_written_whoever_asks_is_to_ask_again() {
    let busy = Err(ErrorCode::ConcurrentTransactions);
    for state in [State::PrepareCommit, State::PrepareAbort] {
        let machine = at(state, Generation::Two);
        // The producer with its new epoch, with the one before, and somebody else.
        for who in [producer(5, 1), producer(5, 0), producer(5, 7), producer(6, 0)] {
            assert_eq!(machine.init(init(Some(who), Some(900)), NOW), busy, "{state:?} {who:?}");
            let added = machine.add(who, &parts(1), Generation::Two, NOW);
            assert_eq!(added, busy, "{state:?} {who:?}");
            for commit in [true, false] {
                let ended = machine.end(end(who.id, who.epoch, commit, Generation::Two), NOW);
                assert_eq!(ended, busy, "{state:?} {who:?} {commit}");
            }
        }
    }
}

#[test]
fn a_producer_that_was_late_may_go_on_after_its_abort() {
    let mut machine = at(State::Ongoing, Generation::Two);
    let step = machine.time_out(None, NOW).ok_or(ErrorCode::None);
    log(&mut machine, step);
    complete(&mut machine);
    // It cannot commit. It can abort, which was done, and learns its new epoch.
    let commit = machine.end(end(5, 0, true, Generation::Two), NOW);
    assert_eq!(commit, Err(ErrorCode::InvalidTxnState));
    assert_eq!(machine.end(end(5, 0, false, Generation::Two), NOW), Ok(Step::Done));
    assert_eq!(machine.durable().map(|durable| durable.epoch), Some(1));
    // One of generation one recovers by InitProducerId (KIP-360).
    let step = machine.init(init(Some(producer(5, 0)), None), NOW);
    assert_eq!(log(&mut machine, step).epoch, 1);
}

#[test]
fn used_up_epochs_lead_to_a_new_producer_id() {
    let with_epoch = |state, epoch| {
        let mut machine = at(state, Generation::Two);
        let mut durable = machine.durable().cloned().expect("it is known");
        durable.epoch = epoch;
        machine.applied(Some(durable));
        machine
    };
    let last = i16::MAX - 1;
    // At InitProducerId.
    let mut machine = with_epoch(State::Empty, last);
    assert_eq!(machine.init(init(None, None), NOW), Ok(Step::NeedsProducerId));
    let recovers = init(Some(producer(5, last)), Some(6));
    let step = machine.init(recovers, NOW);
    let next = log(&mut machine, step);
    assert_eq!((next.producer_id, next.epoch, next.last_epoch), (6, 0, last));
    // It did not hear of it, and asks again.
    let step = machine.init(init(Some(producer(5, last)), None), NOW);
    let again = log(&mut machine, step);
    assert_eq!((again.producer_id, again.epoch), (6, 0));
    // At the end of a transaction: the markers have the last epoch there is.
    let mut machine = with_epoch(State::Ongoing, last);
    let step = machine.end(end(5, last, true, Generation::Two), NOW);
    let prepared = log(&mut machine, step);
    assert_eq!((prepared.producer_id, prepared.epoch), (5, i16::MAX));
    let after = complete(&mut machine);
    assert_eq!((after.producer_id, after.epoch), (900, 0));
    assert_eq!(machine.end(end(5, last, true, Generation::Two), NOW), Ok(Step::Done));
    // Fencing can always go one further.
    let mut machine = with_epoch(State::Ongoing, last);
    assert_eq!(machine.time_out(None, NOW), Some(Step::NeedsProducerId));
    let step = machine.time_out(Some(901), NOW).ok_or(ErrorCode::None);
    assert_eq!(log(&mut machine, step).epoch, i16::MAX);
    assert_eq!(complete(&mut machine).producer_id, 901);
}

#[test]
fn what_is_in_the_transaction_is_known_and_no_more() {
    let mut machine = at(State::Ongoing, Generation::One);
    let again = machine.add(producer(5, 0), &parts(0), Generation::One, NOW);
    assert_eq!(again, Ok(Step::Done));
    let step = machine.add(producer(5, 0), &parts(1), Generation::One, NOW + 5);
    let grown = log(&mut machine, step);
    assert_eq!(grown.streams, [stream(0), stream(1)].into());
    assert_eq!(grown.started_ms, NOW, "it began with the first");
    assert_eq!(machine.verify(producer(5, 0)).map(|found| found.streams.len()), Ok(2));
    let mapping = Some(ErrorCode::InvalidProducerIdMapping);
    assert_eq!(machine.verify(producer(6, 0)).err(), mapping);
    assert_eq!(machine.verify(producer(5, 1)).err(), Some(ErrorCode::ProducerFenced));
    assert_eq!(Machine::default().verify(producer(5, 0)).err(), mapping);
    let prepared = at(State::PrepareCommit, Generation::One);
    let busy = Some(ErrorCode::ConcurrentTransactions);
    assert_eq!(prepared.verify(producer(5, 0)).err(), busy);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Init {
        recovers: bool,
    },
    Add(u32, bool),
    End {
        commit: bool,
        two: bool,
        behind: i16,
    },
    TimeOut,
    Complete,
    Expire,
    /// What is being logged becomes durable, or is lost in a crash.
    Logged(bool),
    /// The state is read back from its bytes.
    Replay,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => any::<bool>().prop_map(|recovers| Event::Init { recovers }),
        4 => (0..4_u32, any::<bool>()).prop_map(|(partition, two)| Event::Add(partition, two)),
        4 => (any::<bool>(), any::<bool>(), 0..3_i16)
            .prop_map(|(commit, two, behind)| Event::End { commit, two, behind }),
        1 => Just(Event::TimeOut),
        4 => Just(Event::Complete),
        1 => Just(Event::Expire),
        9 => prop::bool::weighted(0.9).prop_map(Event::Logged),
        1 => Just(Event::Replay),
    ]
}

/// What a history may not do, whatever happens.
#[derive(Default)]
struct Witness {
    /// By producer id and marker epoch: committed?
    decided: BTreeMap<(i64, i16), bool>,
    /// The pairs that could write, in order.
    writers: Vec<(i64, i16)>,
}

impl Witness {
    fn sees(&mut self, before: Option<&Transaction>, after: &Transaction) {
        let writer = (after.producer_id, after.epoch);
        if let Some(last) = self.writers.last().copied()
            && last != writer
        {
            assert!(!self.writers.contains(&writer), "{writer:?} comes back");
            assert!(last.0 != writer.0 || last.1 < writer.1, "{last:?} went back to {writer:?}");
        }
        self.writers.push(writer);
        let was = before.map(|before| before.state);
        match after.state {
            State::PrepareCommit | State::PrepareAbort => {
                let commit = after.state == State::PrepareCommit;
                assert!(!was.is_some_and(State::is_prepared), "decided twice");
                assert!(!commit || was == Some(State::Ongoing), "committed from {was:?}");
                if after.generation == Generation::Two {
                    assert_eq!(self.decided.insert(writer, commit), None, "decided twice");
                }
                let held = before.map(|before| &before.streams);
                assert_eq!(Some(&after.streams), held, "all that was added gets a marker");
            }
            State::CompleteCommit => assert_eq!(was, Some(State::PrepareCommit)),
            State::CompleteAbort => assert_eq!(was, Some(State::PrepareAbort)),
            State::Ongoing | State::Empty => {
                assert!(!was.is_some_and(State::is_prepared), "a decision was forgotten");
                assert!(after.state == State::Ongoing || was != Some(State::Ongoing));
            }
        }
        if let Some(before) = before.filter(|before| before.state == State::Ongoing) {
            let kept = after.streams.is_superset(&before.streams);
            assert!(kept, "a stream was forgotten before its marker");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn decisions_are_kept_and_epochs_never_go_back(
        first_epoch in prop::sample::select(vec![0, i16::MAX - 5]),
        events in prop::collection::vec(any_event(), 1..120),
    ) {
        let mut machine = at(State::Empty, Generation::Two);
        let mut begun = machine.durable().cloned().expect("it is known");
        begun.epoch = first_epoch;
        machine.applied(Some(begun));
        let mut witness = Witness::default();
        let mut logging: Option<Option<Transaction>> = None;
        let mut next_id = 1_000;
        for (now, event) in (NOW..).zip(events) {
            next_id += 1;
            let fresh = Some(next_id);
            let current = machine.durable().cloned();
            let (id, epoch) = current.as_ref().map_or((5, 0), |c| (c.producer_id, c.epoch));
            let decided = match event {
                Event::Init { recovers } => {
                    let was = recovers.then_some(producer(id, epoch));
                    machine.init(Init { timeout_ms: 1, was, fresh }, now)
                }
                Event::Add(partition, two) => {
                    let generation = if two { Generation::Two } else { Generation::One };
                    machine.add(producer(id, epoch), &parts(partition), generation, now)
                }
                Event::End { commit, two, behind } => {
                    let generation = if two { Generation::Two } else { Generation::One };
                    let producer = producer(id, epoch.saturating_sub(behind));
                    machine.end(End { producer, commit, generation, fresh }, now)
                }
                Event::TimeOut => machine.time_out(fresh, now).ok_or(ErrorCode::None),
                Event::Complete => machine.complete(now).map(Step::Log).ok_or(ErrorCode::None),
                Event::Expire => {
                    if machine.is_expired(now) {
                        machine.log_begun();
                        logging = Some(None);
                    }
                    continue;
                }
                Event::Logged(is_durable) => {
                    if let Some(next) = logging.take() {
                        if is_durable {
                            if let Some(after) = &next {
                                witness.sees(current.as_ref(), after);
                            }
                            machine.applied(next);
                        }
                        machine.log_ended();
                    }
                    continue;
                }
                Event::Replay => {
                    let bytes = current.as_ref().map(Transaction::encode);
                    let read = bytes.map(|bytes| Transaction::decode(&bytes).expect("ours"));
                    prop_assert_eq!(&read, &current);
                    let mut recovered = Machine::default();
                    recovered.applied(read);
                    // The owner was gone before its record was durable.
                    logging = None;
                    machine = recovered;
                    continue;
                }
            };
            prop_assert!(
                !machine.is_logging() || !matches!(decided, Ok(Step::Log(_))),
                "two decisions at once"
            );
            prop_assert!(!matches!(decided, Ok(Step::NeedsProducerId)), "it has one");
            if let Ok(Step::Log(next)) = decided {
                machine.log_begun();
                logging = Some(Some(*next));
            }
        }
    }
}
