//! Giving records to a member.

use sluice_wire::Str;
use tokio::time::Instant;

use super::runs::{Batch, Run};
use super::{Lock, Rules, SharePartition, State};

/// A batch of the stream as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Its first offset.
    pub(crate) base: i64,
    /// One past its last offset.
    pub(crate) end: i64,
    /// Of a transaction that was aborted, and the group reads only what is committed.
    pub(crate) aborted: bool,
}

/// What a member wants.
#[derive(Clone, Debug)]
pub(crate) struct Take<'a> {
    pub(crate) member: &'a Str,
    /// About how many; whole batches are given, so that it may be more.
    pub(crate) max_records: u32,
    /// Never more than that (KIP-1206's record_limit mode).
    pub(crate) strict: bool,
    /// What is given is cut into ranges of about so many, where batches of the stream end.
    pub(crate) batch_size: u32,
    /// The offset that was read from: [`SharePartition::next_offset`].
    pub(crate) from: i64,
}

/// Offsets that are now the member's, `first..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acquired {
    pub(crate) first: i64,
    pub(crate) end: i64,
    /// How often they were given to someone, this time included.
    pub(crate) deliveries: u16,
}

impl Acquired {
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.end - self.first).unwrap_or(u32::MAX)
    }
}

/// What is left of a request while it is filled.
struct Filling {
    given: Vec<Acquired>,
    left: i64,
}

impl SharePartition {
    /// Gives a member what it may have of the batches in `spans`, which were read from
    /// [`Take::from`] on, in order. Offsets between them do not exist.
    pub(crate) fn acquire(
        &mut self,
        now: Instant,
        rules: &Rules,
        take: &Take<'_>,
        spans: &[Span],
    ) -> Vec<Acquired> {
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else { return Vec::new() };
        let from = take.from.max(self.start());
        if last.end <= from || take.max_records == 0 {
            return Vec::new();
        }
        if first.base > from {
            self.vanish(from, first.base);
        }
        let lock = Lock { member: take.member.clone(), until: now + rules.lock };
        let mut filling = Filling { given: Vec::new(), left: i64::from(take.max_records) };
        let throttled = self.give_again(rules, take, spans, &lock, &mut filling);
        if !throttled {
            self.give_new(rules, take, spans, &lock, &mut filling);
        }
        let mut given = filling.given;
        for span in spans.iter().filter(|span| span.aborted) {
            given = self.withdraw(span, given, take.member);
        }
        if !given.is_empty() {
            self.wake_by(lock.until);
        }
        self.runs.tidy();
        given
    }

    /// Offsets that are not in the stream (any more) are done, unless someone has them.
    fn vanish(&mut self, from: i64, to: i64) {
        let done = State::Done { accepted: false };
        self.runs.set(from, to, |run| {
            if run.state == State::Available {
                run.state = done.clone();
            }
        });
        let end = self.runs.end();
        if end < to {
            let batch = Batch { first: end, len: to - end };
            self.runs.push(Run { end: to, batch, deliveries: 0, state: done });
        }
    }

    /// Gives what was given before and came back. True if nothing more must be given: what was
    /// delivered often is given in smaller and smaller parts, so that a record that kills its consumer
    /// takes few others with it, and at last alone.
    fn give_again(
        &mut self,
        rules: &Rules,
        take: &Take<'_>,
        spans: &[Span],
        lock: &Lock,
        filling: &mut Filling,
    ) -> bool {
        let read_end = spans.last().map_or(take.from, |span| span.end);
        let throttle_at = rules.delivery_limit.div_ceil(2).max(2);
        let available: Vec<_> = self
            .runs
            .overlapping(take.from, read_end)
            .filter(|(_, run)| run.state == State::Available)
            .map(|(first, run)| (first.max(take.from), run.end.min(read_end), run.clone()))
            .collect();
        for (first, end, run) in available {
            if filling.left <= 0 {
                break;
            }
            let throttled = run.deliveries >= throttle_at;
            if throttled && !filling.given.is_empty() {
                return true;
            }
            let wanted_end = if throttled {
                first + part_of(&run, throttle_at, rules.delivery_limit)
            } else if take.strict {
                first + filling.left
            } else if run.deliveries == 0 {
                batch_end(spans, first + filling.left)
            } else {
                end
            };
            let mut end = end.min(wanted_end);
            if take.strict {
                end = end.min(first + filling.left);
            }
            let deliveries = run.deliveries.saturating_add(1);
            self.runs.set(first, end, |run| {
                run.deliveries = deliveries;
                run.state = State::Acquired(lock.clone());
            });
            filling.left -= end - first;
            match filling.given.last_mut() {
                Some(last)
                    if last.end == first
                        && last.deliveries == deliveries
                        && first > run.batch.first =>
                {
                    last.end = end;
                }
                _ => filling.given.push(Acquired { first, end, deliveries }),
            }
            if throttled {
                return true;
            }
        }
        false
    }

    /// Gives what nobody had yet.
    fn give_new(
        &mut self,
        rules: &Rules,
        take: &Take<'_>,
        spans: &[Span],
        lock: &Lock,
        filling: &mut Filling,
    ) {
        let read_end = spans.last().map_or(take.from, |span| span.end);
        let room = filling.left.min(i64::from(rules.max_locks) - self.in_flight());
        let first = self.runs.end();
        if room <= 0 || read_end <= first {
            return;
        }
        let end = if take.strict { first + room } else { batch_end(spans, first + room) };
        let end = end.min(read_end);
        let mut piece = first;
        let cuts = spans.iter().map(|span| span.base).filter(|base| *base < end);
        for cut in cuts.filter(|_| !take.strict).chain([end]) {
            if cut < end && cut - piece < i64::from(take.batch_size.max(1)) {
                continue;
            }
            let batch = Batch { first: piece, len: cut - piece };
            let state = State::Acquired(lock.clone());
            self.runs.push(Run { end: cut, batch, deliveries: 1, state });
            filling.given.push(Acquired { first: piece, end: cut, deliveries: 1 });
            filling.left -= cut - piece;
            piece = cut;
        }
    }

    /// Takes the offsets of an aborted batch back from what was just given.
    fn withdraw(&mut self, span: &Span, given: Vec<Acquired>, member: &str) -> Vec<Acquired> {
        let mut kept = Vec::with_capacity(given.len());
        for range in given {
            let (first, end) = (range.first.max(span.base), range.end.min(span.end));
            if first >= end {
                kept.push(range);
                continue;
            }
            self.runs.set(first, end, |run| {
                if matches!(&run.state, State::Acquired(lock) if *lock.member == *member) {
                    run.state = State::Done { accepted: false };
                }
            });
            if range.first < first {
                kept.push(Acquired { end: first, ..range });
            }
            if end < range.end {
                kept.push(Acquired { first: end, ..range });
            }
        }
        kept
    }
}

/// How many offsets of a batch are given that was delivered often: half of it, then a quarter, and one on
/// the last attempt.
fn part_of(run: &Run, throttle_at: u16, limit: u16) -> i64 {
    if limit > 2 && run.deliveries + 1 >= limit {
        return 1;
    }
    let halvings = u32::from(run.deliveries - throttle_at) + 1;
    run.batch.len.checked_shr(halvings).unwrap_or(0).max(1)
}

/// The end of the batch that holds the offset before `end`, or `end` if none does.
fn batch_end(spans: &[Span], end: i64) -> i64 {
    let holds = |span: &&Span| span.base < end && end <= span.end;
    spans.iter().find(holds).map_or(end, |span| span.end)
}
