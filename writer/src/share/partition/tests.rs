//! The machine by examples, and against a model that keeps each offset by itself.

mod model;

use std::time::Duration;

use sluice_wire::Str;
use tokio::time::Instant;

use super::*;

const LOCK: Duration = Duration::from_secs(30);

fn rules() -> Rules {
    Rules { lock: LOCK, delivery_limit: 5, max_locks: 100, renew: true }
}

fn span(base: i64, end: i64) -> Span {
    Span { base, end, aborted: false }
}

fn take(member: &Str, max_records: u32, from: i64) -> Take<'_> {
    Take { member, max_records, strict: false, batch_size: 500, from }
}

fn ack(first: i64, last: i64, types: &[i8]) -> AckRange {
    AckRange { first, last, types: types.to_vec() }
}

struct Rig {
    partition: SharePartition,
    rules: Rules,
    now: Instant,
    a: Str,
    b: Str,
}

impl Rig {
    fn new() -> Self {
        Self {
            partition: SharePartition::new(0),
            rules: rules(),
            now: Instant::now(),
            a: Str::from_static("a"),
            b: Str::from_static("b"),
        }
    }

    /// (first, end, deliveries) of what was given.
    fn acquire(&mut self, member: char, max_records: u32, spans: &[Span]) -> Vec<(i64, i64, u16)> {
        self.acquire_as(member, max_records, false, 500, spans)
    }

    fn acquire_as(
        &mut self,
        member: char,
        max_records: u32,
        strict: bool,
        batch_size: u32,
        spans: &[Span],
    ) -> Vec<(i64, i64, u16)> {
        let member = if member == 'a' { &self.a } else { &self.b };
        let from = self.partition.next_offset();
        let spans: Vec<_> = spans.iter().filter(|span| span.end > from).copied().collect();
        let take = Take { strict, batch_size, ..take(member, max_records, from) };
        let given = self.partition.acquire(self.now, &self.rules, &take, &spans);
        given.into_iter().map(|range| (range.first, range.end, range.deliveries)).collect()
    }

    fn say(&mut self, member: char, ranges: &[AckRange]) -> Result<(), Refusal> {
        let member = if member == 'a' { &self.a } else { &self.b };
        if let Some(ticket) = self.partition.acknowledge(self.now, &self.rules, member, ranges)? {
            self.partition.settle(ticket, true, self.now, &self.rules);
        }
        Ok(())
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.partition.expire(self.now, &self.rules);
    }
}

#[test]
fn whole_batches_are_given_and_the_start_follows_what_is_accepted() {
    let mut rig = Rig::new();
    let log = [span(0, 10), span(10, 20), span(20, 30)];
    assert_eq!(rig.acquire('a', 12, &log), [(0, 20, 1)]);
    assert_eq!(rig.acquire('b', 1, &log), [(20, 30, 1)]);
    assert_eq!(rig.say('a', &[ack(5, 19, &[1])]), Ok(()));
    assert_eq!(rig.partition.start(), 0);
    assert_eq!(rig.say('a', &[ack(0, 4, &[1])]), Ok(()));
    assert_eq!(rig.partition.start(), 20);
    // What is before the start was done: nothing is wrong with saying so again.
    assert_eq!(rig.say('a', &[ack(0, 4, &[1])]), Ok(()));
}

#[test]
fn ranges_are_cut_where_batches_end() {
    let mut rig = Rig::new();
    let log = [span(0, 3), span(3, 6), span(6, 9), span(9, 12)];
    assert_eq!(rig.acquire_as('a', 12, false, 5, &log), [(0, 6, 1), (6, 12, 1)]);
}

#[test]
fn a_record_limit_is_never_passed() {
    let mut rig = Rig::new();
    let log = [span(0, 10)];
    assert_eq!(rig.acquire_as('a', 3, true, 500, &log), [(0, 3, 1)]);
    assert_eq!(rig.acquire_as('b', 3, true, 500, &log), [(3, 6, 1)]);
    rig.say('a', &[ack(0, 2, &[2])]).unwrap();
    assert_eq!(rig.acquire_as('b', 4, true, 500, &log), [(0, 3, 2), (6, 7, 1)]);
}

#[test]
fn a_lock_that_runs_out_gives_the_records_to_the_next() {
    let mut rig = Rig::new();
    let log = [span(0, 4)];
    rig.acquire('a', 10, &log);
    rig.pass(LOCK - Duration::from_millis(1));
    assert_eq!(rig.acquire('b', 10, &log), []);
    rig.pass(Duration::from_millis(1));
    assert_eq!(rig.acquire('b', 10, &log), [(0, 4, 2)]);
    assert_eq!(rig.say('a', &[ack(0, 3, &[1])]), Err(Refusal::OtherMember));
    assert_eq!(rig.say('b', &[ack(0, 3, &[1])]), Ok(()));
}

#[test]
fn renewing_keeps_a_lock() {
    let mut rig = Rig::new();
    let log = [span(0, 4)];
    rig.acquire('a', 10, &log);
    rig.pass(LOCK / 2);
    assert_eq!(rig.say('a', &[ack(0, 1, &[4])]), Ok(()));
    rig.pass(LOCK / 2);
    assert_eq!(rig.acquire('b', 10, &log), [(2, 4, 2)]);
    rig.pass(LOCK / 2);
    assert_eq!(rig.acquire('b', 10, &log), [(0, 2, 2)]);
    rig.rules.renew = false;
    assert_eq!(rig.say('b', &[ack(0, 1, &[4])]), Err(Refusal::RenewDisabled));
}

#[test]
fn a_record_is_delivered_as_often_as_the_limit_says_and_ever_more_alone() {
    let mut rig = Rig::new();
    let log = [span(0, 16)];
    let mut seen = Vec::new();
    for _ in 0..7 {
        seen.push(rig.acquire('a', 100, &log).first().copied());
        rig.pass(LOCK);
    }
    let seen: Vec<_> = seen.into_iter().flatten().collect();
    // Three times all, half of them at the fourth, one alone at the last; then it is gone.
    assert_eq!(seen[..3], [(0, 16, 1), (0, 16, 2), (0, 16, 3)]);
    assert_eq!(seen[3], (0, 8, 4));
    assert_eq!(seen[4], (0, 1, 5));
    assert_eq!(seen[5], (1, 2, 5));
    assert_eq!(rig.partition.start(), 3);
}

#[test]
fn locks_are_bounded() {
    let mut rig = Rig::new();
    rig.rules.max_locks = 10;
    let log = [span(0, 4), span(4, 8), span(8, 12), span(12, 16)];
    assert_eq!(rig.acquire('a', 100, &log), [(0, 12, 1)]);
    assert!(!rig.partition.has_room(&rig.rules));
    assert_eq!(rig.acquire('b', 100, &log), []);
    rig.say('a', &[ack(4, 11, &[1])]).unwrap();
    assert!(!rig.partition.has_room(&rig.rules), "what is not done at the start holds it");
    rig.say('a', &[ack(0, 3, &[2])]).unwrap();
    assert_eq!(rig.acquire('b', 100, &log), [(0, 4, 2)]);
    rig.say('b', &[ack(0, 3, &[1])]).unwrap();
    assert_eq!(rig.acquire('b', 100, &log), [(12, 16, 1)]);
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut rig = Rig::new();
    let log = [span(0, 10)];
    assert_eq!(rig.say('a', &[ack(0, 1, &[1])]), Err(Refusal::NotInFlight));
    rig.acquire('a', 10, &log);
    let before = rig.partition.clone();
    for (ranges, refusal) in [
        (vec![ack(0, 3, &[1]), ack(5, 10, &[1])], Refusal::PastEnd),
        (vec![ack(0, 3, &[1]), ack(3, 4, &[1])], Refusal::NotAcquired),
        (vec![ack(0, 3, &[1]), ack(4, 4, &[9])], Refusal::UnknownType),
    ] {
        assert_eq!(rig.say('a', &ranges), Err(refusal));
        assert_eq!(rig.partition, before);
    }
    assert_eq!(rig.say('b', &[ack(0, 3, &[1])]), Err(Refusal::OtherMember));
    rig.say('a', &[ack(2, 3, &[1])]).unwrap();
    assert_eq!(rig.say('a', &[ack(0, 3, &[1])]), Err(Refusal::NotAcquired));
}

#[test]
fn each_offset_may_have_its_own_type() {
    let mut rig = Rig::new();
    let log = [span(0, 6)];
    rig.acquire('a', 10, &log);
    rig.say('a', &[ack(0, 5, &[1, 2, 3, 0, 2, 1])]).unwrap();
    assert_eq!(rig.partition.start(), 1);
    assert_eq!(rig.acquire('b', 10, &log), [(1, 2, 2), (4, 5, 2)]);
}

#[test]
fn an_acknowledgement_counts_when_it_is_durable() {
    let mut rig = Rig::new();
    let log = [span(0, 4)];
    rig.acquire('a', 10, &log);
    let (now, rules) = (rig.now, rig.rules);
    let said = rig.partition.acknowledge(now, &rules, "a", &[ack(0, 1, &[1]), ack(2, 3, &[2])]);
    let ticket = said.unwrap().unwrap();
    assert_eq!(rig.partition.start(), 0);
    assert_eq!(rig.acquire('b', 10, &log), []);
    assert_eq!(rig.say('a', &[ack(0, 1, &[1])]), Err(Refusal::Settling));
    // It failed, and the lock is still the member's.
    rig.partition.settle(ticket, false, now, &rules);
    assert_eq!(rig.say('a', &[ack(0, 1, &[1])]), Ok(()));
    let said = rig.partition.acknowledge(now, &rules, "a", &[ack(2, 3, &[1])]);
    rig.pass(LOCK);
    // It failed when the lock had run out.
    rig.partition.settle(said.unwrap().unwrap(), false, rig.now, &rules);
    assert_eq!(rig.acquire('b', 10, &log), [(2, 4, 2)]);
}

#[test]
fn offsets_that_are_not_in_the_stream_are_done() {
    let mut rig = Rig::new();
    assert_eq!(rig.acquire('a', 10, &[span(5, 8)]), [(5, 8, 1)]);
    assert_eq!(rig.partition.start(), 5);
    rig.say('a', &[ack(5, 7, &[2])]).unwrap();
    // Compaction took them since.
    assert_eq!(rig.acquire('a', 10, &[span(9, 10)]), [(9, 10, 1)]);
    assert_eq!(rig.partition.start(), 9);
}

#[test]
fn aborted_batches_are_given_to_nobody() {
    let mut rig = Rig::new();
    let aborted = Span { aborted: true, ..span(2, 4) };
    let log = [span(0, 2), aborted, span(4, 6)];
    assert_eq!(rig.acquire('a', 10, &log), [(0, 2, 1), (4, 6, 1)]);
    rig.say('a', &[ack(0, 1, &[1])]).unwrap();
    assert_eq!(rig.partition.start(), 4);
}

#[test]
fn records_that_are_deleted_are_done_whoever_has_them() {
    let mut rig = Rig::new();
    let log = [span(0, 4), span(4, 8)];
    rig.acquire('a', 10, &log);
    rig.partition.cut(6);
    assert_eq!(rig.say('a', &[ack(0, 7, &[2])]), Ok(()));
    assert_eq!(rig.acquire('b', 10, &log), [(6, 8, 2)]);
    rig.partition.cut(100);
    assert_eq!((rig.partition.start(), rig.partition.end()), (100, 100));
}

#[test]
fn a_member_that_leaves_gives_back_all_that_it_has() {
    let mut rig = Rig::new();
    let log = [span(0, 4), span(4, 8)];
    rig.acquire('a', 4, &log);
    rig.acquire('b', 4, &log);
    let rules = rig.rules;
    let ticket = rig.partition.release("a", &rules).unwrap();
    rig.partition.settle(ticket, true, rig.now, &rules);
    assert_eq!(rig.partition.release("a", &rules), None);
    assert_eq!(rig.acquire('b', 10, &log), [(0, 4, 2)]);
}

#[test]
fn after_a_crash_locks_are_gone_and_attempts_are_not_lost() {
    let mut rig = Rig::new();
    let log = [span(0, 4), span(4, 8), span(8, 12)];
    rig.acquire('a', 12, &log);
    rig.say('a', &[ack(0, 1, &[1]), ack(2, 3, &[2]), ack(6, 6, &[3])]).unwrap();
    rig.acquire('b', 2, &log);
    let stored = rig.partition.to_stored(1, 2);
    assert_eq!((stored.start, stored.done()), (2, 1));
    rig.partition = SharePartition::load(&Stored::decode(&stored.encode()).unwrap());
    assert_eq!(rig.acquire('a', 20, &log), [(2, 4, 2), (4, 6, 1), (7, 12, 1)]);
}
