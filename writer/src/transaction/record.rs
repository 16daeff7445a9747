//! What the transaction coordinator persists: one record a transactional id, the whole state each time.
//!
//! All numbers are big-endian. `text` is a u32 length and UTF-8.
//!
//! ```text
//! key        tenant u32 | 0x20 | transactional id (the rest, UTF-8)
//! value      version u8 = 1 | state u8 | generation u8 (1, 2) | producer id i64
//!            | previous producer id i64 | next producer id i64 | epoch i16 | last epoch i16
//!            | timeout ms i32 | started at i64 | updated at i64 (ms since the epoch; -1 none)
//!            | streams u32, each: topic id 16 bytes, partition u32 | groups u32, each: text
//! tombstone  the id is forgotten
//!
//! state      0 empty, 1 ongoing, 2 prepare commit, 3 prepare abort, 4 complete commit, 5 complete abort
//! ```
//!
//! Rule for change: kinds 0x20 to 0x2f are this module's, others share the log. A value opens with a
//! version byte; a new version is added beside the old one, which stays readable.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_model::{StreamId, TenantId, TopicId};

use super::state::{Generation, State, Transaction};
use crate::group::record::RecordError;
use crate::group::record::read::{Reader, put_bytes};

/// The kinds of the transaction coordinator in the shared log.
pub(crate) const KINDS: RangeInclusive<u8> = 0x20..=0x2f;

const TRANSACTION: u8 = 0x20;
const VERSION: u8 = 1;
/// Bytes of a stream in a value.
pub(crate) const STREAM_BYTES: usize = 20;

/// The key of a transactional id.
pub(crate) fn encode_key(tenant: TenantId, id: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + id.len());
    out.put_u32(tenant.0);
    out.put_u8(TRANSACTION);
    out.put_slice(id.as_bytes());
    out.freeze()
}

/// Tenant and transactional id of a key.
pub(crate) fn decode_key(bytes: &[u8]) -> Result<(TenantId, &str), RecordError> {
    let mut reader = Reader::new(bytes);
    let tenant = TenantId(reader.u32()?);
    match reader.u8()? {
        TRANSACTION => Ok((tenant, reader.rest_as_text()?)),
        kind => Err(RecordError::Unknown(kind)),
    }
}

impl State {
    fn number(self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Ongoing => 1,
            Self::PrepareCommit => 2,
            Self::PrepareAbort => 3,
            Self::CompleteCommit => 4,
            Self::CompleteAbort => 5,
        }
    }

    fn of_number(number: u8) -> Result<Self, RecordError> {
        let found = Self::NAMES.iter().find(|(state, _)| state.number() == number);
        found.map(|(state, _)| *state).ok_or(RecordError::Unknown(number))
    }
}

impl Transaction {
    pub(crate) fn encode(&self) -> Bytes {
        let groups: usize = self.groups.iter().map(|group| 4 + group.len()).sum();
        let mut out = BytesMut::with_capacity(59 + STREAM_BYTES * self.streams.len() + groups);
        out.put_u8(VERSION);
        out.put_u8(self.state.number());
        out.put_u8(match self.generation {
            Generation::One => 1,
            Generation::Two => 2,
        });
        out.put_i64(self.producer_id);
        out.put_i64(self.previous_producer_id);
        out.put_i64(self.next_producer_id);
        out.put_i16(self.epoch);
        out.put_i16(self.last_epoch);
        out.put_i32(self.timeout_ms);
        out.put_i64(self.started_ms);
        out.put_i64(self.updated_ms);
        put_count(&mut out, self.streams.len());
        for stream in &self.streams {
            out.put_slice(&stream.topic.0);
            out.put_u32(stream.partition);
        }
        put_count(&mut out, self.groups.len());
        for group in &self.groups {
            put_bytes(&mut out, group.as_bytes());
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(RecordError::Unknown(other)),
        }
        let state = State::of_number(reader.u8()?)?;
        let generation = match reader.u8()? {
            1 => Generation::One,
            2 => Generation::Two,
            other => return Err(RecordError::Unknown(other)),
        };
        let mut decoded = Self {
            state,
            generation,
            producer_id: reader.i64()?,
            previous_producer_id: reader.i64()?,
            next_producer_id: reader.i64()?,
            epoch: reader.array().map(i16::from_be_bytes)?,
            last_epoch: reader.array().map(i16::from_be_bytes)?,
            timeout_ms: reader.i32()?,
            started_ms: reader.i64()?,
            updated_ms: reader.i64()?,
            streams: BTreeSet::new(),
            groups: BTreeSet::new(),
        };
        for _ in 0..reader.u32()? {
            let topic = TopicId(reader.array()?);
            decoded.streams.insert(StreamId { topic, partition: reader.u32()? });
        }
        for _ in 0..reader.u32()? {
            decoded.groups.insert(reader.text()?);
        }
        reader.end()?;
        Ok(decoded)
    }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("bounded by the coordinator's limits"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_wire::Str;

    use super::*;

    fn any_state() -> impl Strategy<Value = State> {
        prop::sample::select(State::NAMES.map(|(state, _)| state).to_vec())
    }

    fn any_transaction() -> impl Strategy<Value = Transaction> {
        let numbers = any::<([i64; 5], i16, i16, i32, bool)>();
        let streams = prop::collection::btree_set((any::<[u8; 16]>(), any::<u32>()), 0..5);
        let groups = prop::collection::btree_set(".{0,9}", 0..4);
        (any_state(), numbers, streams, groups).prop_map(
            |(state, (long, epoch, last_epoch, timeout_ms, is_two), streams, groups)| Transaction {
                producer_id: long[0],
                previous_producer_id: long[1],
                next_producer_id: long[2],
                epoch,
                last_epoch,
                timeout_ms,
                state,
                generation: if is_two { Generation::Two } else { Generation::One },
                started_ms: long[3],
                updated_ms: long[4],
                streams: streams
                    .into_iter()
                    .map(|(topic, partition)| StreamId { topic: TopicId(topic), partition })
                    .collect(),
                groups: groups.into_iter().map(Str::from).collect(),
            },
        )
    }

    proptest! {
        #[test]
        fn values_round_trip_and_every_cut_is_an_error(transaction in any_transaction()) {
            let bytes = transaction.encode();
            for cut in 0..bytes.len() {
                prop_assert!(Transaction::decode(&bytes[..cut]).is_err());
            }
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(Transaction::decode(&longer), Err(RecordError::Trailing));
            prop_assert_eq!(Transaction::decode(&bytes), Ok(transaction));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Transaction::decode(&bytes);
            let _ = decode_key(&bytes);
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let transaction = Transaction {
            producer_id: 5,
            previous_producer_id: 4,
            next_producer_id: -1,
            epoch: 3,
            last_epoch: 2,
            timeout_ms: 60_000,
            state: State::PrepareAbort,
            generation: Generation::Two,
            started_ms: 1,
            updated_ms: 2,
            streams: [StreamId { topic: TopicId([0xee; 16]), partition: 7 }].into(),
            groups: [Str::from("g")].into(),
        };
        let expected = [
            &[1, 3, 2][..],
            &5_i64.to_be_bytes(),
            &4_i64.to_be_bytes(),
            &[0xff; 8],
            &[0, 3, 0, 2],
            &60_000_i32.to_be_bytes(),
            &1_i64.to_be_bytes(),
            &2_i64.to_be_bytes(),
            &[0, 0, 0, 1],
            &[0xee; 16],
            &[0, 0, 0, 7],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'g'],
        ]
        .concat();
        assert_eq!(transaction.encode(), expected);
        let key = encode_key(TenantId(258), "tx");
        assert_eq!(&key[..], [0, 0, 1, 2, 0x20, b't', b'x']);
        assert_eq!(decode_key(&key), Ok((TenantId(258), "tx")));
        assert_eq!(decode_key(&[0, 0, 0, 1, 0x21]), Err(RecordError::Unknown(0x21)));
    }
}
