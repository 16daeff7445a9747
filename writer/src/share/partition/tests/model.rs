//! Any order of events, against a model that keeps each offset by itself: a record is with one member at a
//! time, comes back until it is done, is delivered no more often than the limit, and none is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use sluice_wire::Str;
use tokio::time::Instant;

use super::super::*;

const END: i64 = 40;
const MEMBERS: [&str; 3] = ["a", "b", "c"];

/// What the model knows of an offset; absent: it is available and was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    deliveries: u16,
    is: Is,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Available,
    /// By which member, until when.
    With(usize, Instant),
    Done,
}

#[derive(Clone, Debug)]
enum Event {
    Acquire { member: usize, max_records: u32, strict: bool, reads: i64 },
    Say { member: usize, first: i64, types: Vec<i8>, durable: bool },
    Leave { member: usize },
    Pass { ms: u64 },
    Crash,
    Cut { by: i64 },
}

fn event() -> impl Strategy<Value = Event> {
    let member = 0..MEMBERS.len();
    prop_oneof![
        4 => (member.clone(), 1..20_u32, any::<bool>(), 1..END).prop_map(
            |(member, max_records, strict, reads)| Event::Acquire { member, max_records, strict, reads }
        ),
        6 => (member.clone(), 0..END, prop::collection::vec(0..5_i8, 1..8), prop::bool::weighted(0.8))
            .prop_map(|(member, first, types, durable)| Event::Say { member, first, types, durable }),
        1 => member.prop_map(|member| Event::Leave { member }),
        2 => (1..40_000_u64).prop_map(|ms| Event::Pass { ms }),
        1 => Just(Event::Crash),
        1 => (1..4_i64).prop_map(|by| Event::Cut { by }),
    ]
}

struct World {
    partition: SharePartition,
    offsets: BTreeMap<i64, Known>,
    spans: Vec<Span>,
    rules: Rules,
    now: Instant,
    log_start: i64,
}

impl World {
    fn new(batches: &[(i64, i64, bool)]) -> Self {
        let mut spans = Vec::new();
        let mut next = 0;
        for (gap, len, aborted) in batches {
            let base = next + gap;
            next = base + len;
            spans.push(Span { base, end: next, aborted: *aborted });
        }
        let rules =
            Rules { lock: Duration::from_secs(30), delivery_limit: 4, max_locks: 12, renew: true };
        let partition = SharePartition::new(0);
        let now = Instant::now();
        Self { partition, offsets: BTreeMap::new(), spans, rules, now, log_start: 0 }
    }

    /// Whether there is a record that the group may see.
    fn exists(&self, offset: i64) -> bool {
        let holds = |span: &&Span| span.base <= offset && offset < span.end;
        offset >= self.log_start && self.spans.iter().find(holds).is_some_and(|span| !span.aborted)
    }

    fn log_end(&self) -> i64 {
        self.spans.last().map_or(0, |span| span.end)
    }

    fn released(&self, known: Known) -> Known {
        let is =
            if known.deliveries >= self.rules.delivery_limit { Is::Done } else { Is::Available };
        Known { is, ..known }
    }

    fn acquire(&mut self, member: usize, max_records: u32, strict: bool, reads: i64) -> u32 {
        let from = self.partition.next_offset();
        let spans: Vec<_> = self
            .spans
            .iter()
            .filter(|span| span.end > from && span.base < from + reads)
            .copied()
            .collect();
        let name = Str::from_static(MEMBERS[member]);
        let take = Take { member: &name, max_records, strict, batch_size: 5, from };
        let given = self.partition.acquire(self.now, &self.rules, &take, &spans);
        let mut count = 0;
        let mut last_end = i64::MIN;
        for range in &given {
            assert!(range.first >= last_end && range.end > range.first, "in order: {given:?}");
            last_end = range.end;
            for offset in range.first..range.end {
                let known = self.offsets.get(&offset).copied();
                let known = known.unwrap_or(Known { deliveries: 0, is: Is::Available });
                assert_eq!(known.is, Is::Available, "offset {offset} is given to a second member");
                assert_eq!(range.deliveries, known.deliveries + 1, "offset {offset}");
                assert!(range.deliveries <= self.rules.delivery_limit);
                let with = Is::With(member, self.now + self.rules.lock);
                self.offsets.insert(offset, Known { deliveries: range.deliveries, is: with });
                count += range.len().min(1);
            }
        }
        assert!(!strict || count <= max_records, "{count} records for {max_records}");
        count
    }

    fn say(&mut self, member: usize, first: i64, types: &[i8], durable: bool) {
        let last = first + types.len() as i64 - 1;
        let ranges = [AckRange { first, last, types: types.to_vec() }];
        let before = self.partition.clone();
        let start = before.start();
        let said = self.partition.acknowledge(self.now, &self.rules, MEMBERS[member], &ranges);
        let owns = |offset: i64| {
            let known = self.offsets.get(&offset);
            offset < start || known.is_some_and(|k| matches!(k.is, Is::With(m, _) if m == member))
        };
        assert_eq!(said.is_ok(), (first..=last).all(owns), "{said:?} of {ranges:?}");
        let Ok(ticket) = said else {
            assert_eq!(self.partition, before, "what is refused changes nothing");
            return;
        };
        if let Some(ticket) = ticket {
            self.partition.settle(ticket, durable, self.now, &self.rules);
        }
        for (offset, kind) in (first..=last).zip(types) {
            let Some(known) = self.offsets.get(&offset).copied().filter(|_| offset >= start) else {
                continue;
            };
            let after = match kind {
                4 => Known { is: Is::With(member, self.now + self.rules.lock), ..known },
                _ if !durable => known,
                2 => self.released(known),
                _ => Known { is: Is::Done, ..known },
            };
            self.offsets.insert(offset, after);
        }
    }

    fn let_go(&mut self, of: impl Fn(&Is) -> bool) {
        for offset in self.offsets.keys().copied().collect::<Vec<_>>() {
            let known = self.offsets[&offset];
            if of(&known.is) {
                let after = self.released(known);
                self.offsets.insert(offset, after);
            }
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Acquire { member, max_records, strict, reads } => {
                self.acquire(*member, *max_records, *strict, *reads);
            }
            Event::Say { member, first, types, durable } => {
                self.say(*member, *first, types, *durable);
            }
            Event::Leave { member } => {
                let ticket = self.partition.release(MEMBERS[*member], &self.rules);
                if let Some(ticket) = ticket {
                    self.partition.settle(ticket, true, self.now, &self.rules);
                }
                self.let_go(|is| matches!(is, Is::With(m, _) if m == member));
            }
            Event::Pass { ms } => {
                self.now += Duration::from_millis(*ms);
                self.partition.expire(self.now, &self.rules);
                let now = self.now;
                self.let_go(|is| matches!(is, Is::With(_, until) if *until <= now));
            }
            Event::Crash => {
                let stored = self.partition.to_stored(0, 0).encode();
                let stored = Stored::decode(&stored).expect("our own bytes");
                self.partition = SharePartition::load(&stored);
                for known in self.offsets.values_mut() {
                    if let Is::With(..) = known.is {
                        *known = Known { deliveries: known.deliveries - 1, is: Is::Available };
                    }
                }
            }
            Event::Cut { by } => {
                self.log_start = (self.log_start + by).min(self.log_end());
                self.partition.cut(self.log_start);
                let log_start = self.log_start;
                self.offsets.retain(|offset, _| *offset >= log_start);
            }
        }
    }

    fn check(&self, start_before: i64) {
        assert!(self.partition.start() >= start_before, "the start moved back");
        let mut at = self.partition.start();
        for (first, run) in self.partition.runs.iter() {
            assert_eq!(first, at, "runs have a hole or overlap");
            at = run.end;
        }
        for offset in self.log_start..self.partition.start() {
            let done = self.offsets.get(&offset).is_some_and(|known| known.is == Is::Done);
            assert!(done || !self.exists(offset), "offset {offset} is passed and not done");
        }
        let wake = self.partition.wake();
        for (_, run) in self.partition.runs.iter() {
            if let Some(until) = locked_until(&run.state) {
                assert!(wake.is_some_and(|wake| wake <= until), "a lock would never run out");
            }
        }
    }

    /// Everything is delivered and accepted in the end.
    fn drain(&mut self) {
        self.now += self.rules.lock;
        self.partition.expire(self.now, &self.rules);
        let now = self.now;
        self.let_go(|is| matches!(is, Is::With(_, until) if *until <= now));
        for _ in 0..4 * END {
            self.acquire(0, 100, false, END);
            for offset in self.partition.start()..self.partition.runs.end() {
                if self.offsets.get(&offset).is_some_and(|known| matches!(known.is, Is::With(..))) {
                    self.say(0, offset, &[1], true);
                }
            }
        }
        assert_eq!(self.partition.start(), self.log_end().max(self.log_start));
        for offset in (self.log_start..self.log_end()).filter(|offset| self.exists(*offset)) {
            assert_eq!(self.offsets[&offset].is, Is::Done, "offset {offset} was forgotten");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn each_record_is_with_one_member_until_it_is_done(
        batches in prop::collection::vec((0..3_i64, 1..6_i64, prop::bool::weighted(0.1)), 1..8),
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut world = World::new(&batches);
        for event in &events {
            let start = world.partition.start();
            world.happen(event);
            world.check(start);
        }
        world.drain();
    }
}
