//! A share partition's durable state: the value of its record in the coordinator log.
//!
//! ```text
//! version u8 = 1 | state epoch i32 | leader epoch i32 | start i64 | runs u32, then for each, one behind the
//! other from the start on:
//!   offsets varint | what u8 (0 available, 1 accepted, 2 archived) | deliveries varint (0 unless available)
//! ```
//!
//! varint: seven bits a byte, the least significant first, the high bit set but in the last byte. Locks are
//! not stored: what is locked counts as available, delivered once less, so that after a crash
//! it is delivered again and loses none of its attempts. What is available and was never delivered is not
//! stored at the end. Kafka keeps the same facts in its ShareSnapshotValue. Rule for change: a new version.

use bytes::{BufMut, Bytes, BytesMut};

use super::runs::{Batch, Run, Runs};
use super::{Outcome, SharePartition, State};
use crate::group::record::RecordError;

const VERSION: u8 = 1;
/// The least bytes that a run takes.
const MIN_RUN_BYTES: usize = 3;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Grows each time that the group's offsets are set or deleted.
    pub(crate) state_epoch: i32,
    /// The stream's leader epoch when this was written.
    pub(crate) leader_epoch: i32,
    /// The first offset that is not done.
    pub(crate) start: i64,
    pub(crate) runs: Vec<StoredRun>,
}

/// Some offsets, and what is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StoredRun {
    pub(crate) offsets: u64,
    pub(crate) what: What,
    pub(crate) deliveries: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Available,
    Accepted,
    Archived,
}

impl Stored {
    /// Nothing was given yet, and where to begin is not known.
    pub(crate) fn empty(leader_epoch: i32) -> Self {
        Self { state_epoch: 0, leader_epoch, start: -1, runs: Vec::new() }
    }

    /// Offsets from the start on that are done.
    pub(crate) fn done(&self) -> u64 {
        self.runs.iter().filter(|run| run.what != What::Available).map(|run| run.offsets).sum()
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + 6 * self.runs.len());
        out.put_u8(VERSION);
        out.put_i32(self.state_epoch);
        out.put_i32(self.leader_epoch);
        out.put_i64(self.start);
        out.put_u32(u32::try_from(self.runs.len()).expect("fewer than there may be locks"));
        for run in &self.runs {
            put_varint(&mut out, run.offsets);
            out.put_u8(match run.what {
                What::Available => 0,
                What::Accepted => 1,
                What::Archived => 2,
            });
            put_varint(&mut out, u64::from(run.deliveries));
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut cursor = Cursor(bytes);
        match cursor.u8()? {
            VERSION => {}
            other => return Err(RecordError::Unknown(other)),
        }
        let state_epoch = i32::from_be_bytes(cursor.array()?);
        let leader_epoch = i32::from_be_bytes(cursor.array()?);
        let start = i64::from_be_bytes(cursor.array()?);
        let count = u32::from_be_bytes(cursor.array()?) as usize;
        if count > cursor.0.len() / MIN_RUN_BYTES {
            return Err(RecordError::Short);
        }
        let mut runs = Vec::with_capacity(count);
        let mut end = start;
        for _ in 0..count {
            let offsets = cursor.varint()?;
            let what = match cursor.u8()? {
                0 => What::Available,
                1 => What::Accepted,
                2 => What::Archived,
                other => return Err(RecordError::Unknown(other)),
            };
            let deliveries = u16::try_from(cursor.varint()?).map_err(|_| RecordError::Range)?;
            end = i64::try_from(offsets)
                .ok()
                .filter(|offsets| *offsets > 0)
                .and_then(|offsets| end.checked_add(offsets))
                .ok_or(RecordError::Range)?;
            runs.push(StoredRun { offsets, what, deliveries });
        }
        if cursor.0.is_empty() {
            Ok(Self { state_epoch, leader_epoch, start, runs })
        } else {
            Err(RecordError::Trailing)
        }
    }
}

impl SharePartition {
    /// The state to persist: as if all that was staged were durable.
    pub(crate) fn to_stored(&self, state_epoch: i32, leader_epoch: i32) -> Stored {
        let mut start = self.start();
        let mut runs: Vec<StoredRun> = Vec::new();
        for (first, run) in self.runs.iter() {
            let (what, deliveries) = match &run.state {
                State::Available | State::Settling { to: Outcome::Available, .. } => {
                    (What::Available, run.deliveries)
                }
                State::Acquired(_) => (What::Available, run.deliveries.saturating_sub(1)),
                State::Done { accepted: true }
                | State::Settling { to: Outcome::Acknowledged, .. } => (What::Accepted, 0),
                State::Done { accepted: false } | State::Settling { to: Outcome::Archived, .. } => {
                    (What::Archived, 0)
                }
            };
            if runs.is_empty() && what != What::Available {
                start = run.end;
                continue;
            }
            let offsets = u64::try_from(run.end - first).expect("a run has offsets");
            match runs.last_mut() {
                Some(last) if (last.what, last.deliveries) == (what, deliveries) => {
                    last.offsets += offsets;
                }
                _ => runs.push(StoredRun { offsets, what, deliveries }),
            }
        }
        let untouched = |run: &StoredRun| run.what == What::Available && run.deliveries == 0;
        while runs.last().is_some_and(untouched) {
            runs.pop();
        }
        Stored { state_epoch, leader_epoch, start, runs }
    }

    /// The machine as it was stored.
    pub(crate) fn load(stored: &Stored) -> Self {
        let mut runs = Runs::new(stored.start);
        for run in &stored.runs {
            let first = runs.end();
            let len = i64::try_from(run.offsets).expect("checked when it was decoded");
            let state = match run.what {
                What::Available => State::Available,
                What::Accepted => State::Done { accepted: true },
                What::Archived => State::Done { accepted: false },
            };
            let batch = Batch { first, len };
            runs.push(Run { end: first + len, batch, deliveries: run.deliveries, state });
        }
        runs.tidy();
        Self { runs, next_ticket: 1, wake: None }
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        let (head, tail) = self.0.split_first_chunk().ok_or(RecordError::Short)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.array().map(u8::from_be_bytes)
    }

    fn varint(&mut self) -> Result<u64, RecordError> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(RecordError::Range)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run() -> impl Strategy<Value = StoredRun> {
        let what = prop::sample::select(vec![What::Available, What::Accepted, What::Archived]);
        (1..u64::from(u32::MAX), what, any::<u16>())
            .prop_map(|(offsets, what, deliveries)| StoredRun { offsets, what, deliveries })
    }

    fn stored() -> impl Strategy<Value = Stored> {
        (any::<(i32, i32)>(), 0..i64::MAX / 2, prop::collection::vec(run(), 0..8)).prop_map(
            |((state_epoch, leader_epoch), start, runs)| Stored {
                state_epoch,
                leader_epoch,
                start,
                runs,
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips(stored in stored()) {
            prop_assert_eq!(Stored::decode(&stored.encode()), Ok(stored));
        }

        #[test]
        fn any_cut_is_an_error(stored in stored(), at in any::<prop::sample::Index>()) {
            let bytes = stored.encode();
            prop_assert!(Stored::decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            if let Ok(stored) = Stored::decode(&bytes) {
                SharePartition::load(&stored);
            }
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let runs = vec![
            StoredRun { offsets: 300, what: What::Available, deliveries: 2 },
            StoredRun { offsets: 1, what: What::Archived, deliveries: 0 },
        ];
        let stored = Stored { state_epoch: 3, leader_epoch: 4, start: 5, runs };
        let head = [1, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2];
        assert_eq!(stored.encode(), [&head[..], &[0xac, 2, 0, 2], &[1, 2, 0]].concat());
    }

    #[test]
    fn runs_past_the_last_offset_are_refused() {
        let run = StoredRun { offsets: 2, what: What::Available, deliveries: 1 };
        let stored =
            Stored { state_epoch: 0, leader_epoch: 0, start: i64::MAX - 1, runs: vec![run] };
        assert_eq!(Stored::decode(&stored.encode()), Err(RecordError::Range));
    }
}
