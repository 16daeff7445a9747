//! What a member says of the records that it was given.

use sluice_wire::ErrorCode;
use tokio::time::Instant;

use super::{Lock, Outcome, Rules, SharePartition, State, released};

/// Offsets `first..=last`, and what is said of them: one type for all, or one for each. As the request has it;
/// its shape was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AckRange {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) types: Vec<i8>,
}

/// Why an acknowledgement was refused; nothing of it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("none of these offsets is in flight")]
    NotInFlight,
    #[error("the offsets go past what was acquired")]
    PastEnd,
    #[error("an offset is not acquired")]
    NotAcquired,
    #[error("an earlier acknowledgement of an offset is not durable yet")]
    Settling,
    #[error("another member has acquired an offset")]
    OtherMember,
    #[error("renewing acquisition locks is not enabled for the group")]
    RenewDisabled,
    #[error("an acknowledge type is unknown")]
    UnknownType,
}

impl Refusal {
    pub(crate) fn code(self) -> ErrorCode {
        match self {
            Self::PastEnd | Self::UnknownType => ErrorCode::InvalidRequest,
            Self::NotInFlight
            | Self::NotAcquired
            | Self::Settling
            | Self::OtherMember
            | Self::RenewDisabled => ErrorCode::InvalidRecordState,
        }
    }
}

/// An acknowledge type, by Kafka's numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// 0: there is no record at the offset.
    Gap,
    /// 1
    Accept,
    /// 2
    Release,
    /// 3
    Reject,
    /// 4 (KIP-1222)
    Renew,
}

impl Verdict {
    fn of(code: i8) -> Result<Self, Refusal> {
        match code {
            0 => Ok(Self::Gap),
            1 => Ok(Self::Accept),
            2 => Ok(Self::Release),
            3 => Ok(Self::Reject),
            4 => Ok(Self::Renew),
            _ => Err(Refusal::UnknownType),
        }
    }
}

/// One verdict on `first..end`.
struct Ruling {
    first: i64,
    end: i64,
    verdict: Verdict,
}

impl SharePartition {
    /// A member acknowledges; gives the ticket to wait for, or none if there is nothing to persist. Ranges
    /// are in order. What lies before the start is done already, and is passed over.
    pub(crate) fn acknowledge(
        &mut self,
        now: Instant,
        rules: &Rules,
        member: &str,
        ranges: &[AckRange],
    ) -> Result<Option<u64>, Refusal> {
        let mut rulings = Vec::with_capacity(ranges.len());
        let mut done_to = self.start();
        for range in ranges {
            for ruling in rulings_of(range)? {
                self.check(&ruling, member, rules, done_to)?;
                done_to = done_to.max(ruling.end);
                rulings.push(ruling);
            }
        }
        let mut ticket = None;
        for ruling in rulings {
            let Some(outcome) = outcome_of(ruling.verdict) else {
                self.renew(&ruling, now, rules);
                continue;
            };
            let ticket = *ticket.get_or_insert_with(|| self.ticket());
            let pieces: Vec<_> = self
                .runs
                .overlapping(ruling.first, ruling.end)
                .map(|(first, run)| (first, run.end, run.deliveries))
                .collect();
            for (first, end, deliveries) in pieces {
                let to = match outcome {
                    Outcome::Available => released(deliveries, rules),
                    other => other,
                };
                self.stage(first.max(ruling.first), end.min(ruling.end), to, ticket);
            }
        }
        Ok(ticket)
    }

    /// Whether the member may say this of the offsets. Offsets of this request below `done_to` were
    /// spoken of before.
    fn check(
        &self,
        ruling: &Ruling,
        member: &str,
        rules: &Rules,
        done_to: i64,
    ) -> Result<(), Refusal> {
        let first = ruling.first.max(self.start());
        if ruling.end <= self.start() {
            return Ok(());
        }
        if self.runs.is_empty() {
            return Err(Refusal::NotInFlight);
        }
        if ruling.end > self.runs.end() {
            return Err(Refusal::PastEnd);
        }
        if first < done_to {
            return Err(Refusal::NotAcquired);
        }
        if ruling.verdict == Verdict::Renew && !rules.renew {
            return Err(Refusal::RenewDisabled);
        }
        for (_, run) in self.runs.overlapping(first, ruling.end) {
            match &run.state {
                State::Acquired(lock) if *lock.member == *member => {}
                State::Acquired(_) => return Err(Refusal::OtherMember),
                State::Settling { .. } => return Err(Refusal::Settling),
                State::Available | State::Done { .. } => return Err(Refusal::NotAcquired),
            }
        }
        Ok(())
    }

    fn renew(&mut self, ruling: &Ruling, now: Instant, rules: &Rules) {
        let until = now + rules.lock;
        self.runs.set(ruling.first, ruling.end, |run| {
            if let State::Acquired(Lock { until: locked, .. }) = &mut run.state {
                *locked = until;
            }
        });
        self.wake_by(until);
    }
}

fn outcome_of(verdict: Verdict) -> Option<Outcome> {
    match verdict {
        Verdict::Accept => Some(Outcome::Acknowledged),
        Verdict::Release => Some(Outcome::Available),
        Verdict::Gap | Verdict::Reject => Some(Outcome::Archived),
        Verdict::Renew => None,
    }
}

/// A range's verdicts, one for each stretch of equal types.
fn rulings_of(range: &AckRange) -> Result<Vec<Ruling>, Refusal> {
    let end = range.last.checked_add(1).ok_or(Refusal::PastEnd)?;
    let [first_type, others @ ..] = &range.types[..] else { return Err(Refusal::UnknownType) };
    let mut rulings = vec![Ruling { first: range.first, end, verdict: Verdict::of(*first_type)? }];
    for (at, code) in (range.first + 1..).zip(others) {
        let verdict = Verdict::of(*code)?;
        if let Some(last) = rulings.last_mut()
            && last.verdict != verdict
        {
            last.end = at;
            rulings.push(Ruling { first: at, end, verdict });
        }
    }
    Ok(rulings)
}
