//! The parts that a consumer group is stored as. All numbers are big-endian.
//!
//! ```text
//! part key                     value
//! 0x00                         group:   version u8 = 1 | group epoch i32 | assignment epoch i32
//!                                       | hash of the subscribed topics u64
//! 0x01 | member id             profile: version u8 = 1 | instance id opt | rack opt | client id text
//!                                       | client host text | rebalance timeout i32 (ms)
//!                                       | assignor opt | names u32, that many texts | regex text
//!                                       | classic u8 (0 or 1); if 1: session timeout i32 (ms)
//!                                         | protocols u32, that many: name text, subscription bytes
//! 0x02 | member id             target:  version u8 = 1 | topics u32, for each:
//!                                         topic id 16 | partitions u32, that many: partition i32
//! 0x03 | member id             current: version u8 = 1 | epoch i32 | previous epoch i32 | state u8
//!                                       | assigned held | revoking held
//! ```
//!
//! held: topics u32, for each: topic id 16 | partitions u32, that many: partition i32, the epoch i32
//! at which the member was given it. text and bytes: length u32, then that many bytes; opt: 0, or 1 and
//! a text; states: 0 stable, 1 unrevoked, 2 unreleased. Kafka keeps the same facts in its ConsumerGroup
//! records; resolved regular expressions are not stored, as they follow from the topics there are.
//!
//! Rule for change: a value opens with a version byte; a new version is added beside the old one, which
//! stays readable.

use bytes::{BufMut, Bytes, BytesMut};
use sluice_model::TopicId;
use sluice_wire::Str;

use super::assignor::Assignor;
use super::member::{ClassicProfile, Current, MemberState, Profile};
use crate::group::partitions::{Held, Partitions};
use crate::group::record::RecordError;
use crate::group::record::read::{Reader, put_bytes, put_optional_text};

const VERSION: u8 = 1;

/// What a part's key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartKey<'a> {
    Group,
    Profile(&'a str),
    Target(&'a str),
    Current(&'a str),
}

impl<'a> PartKey<'a> {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (kind, rest) = match self {
            Self::Group => (0, ""),
            Self::Profile(member) => (1, member),
            Self::Target(member) => (2, member),
            Self::Current(member) => (3, member),
        };
        [&[kind], rest.as_bytes()].concat()
    }

    pub(crate) fn decode(part: &'a [u8]) -> Result<Self, RecordError> {
        let (kind, rest) = part.split_first().ok_or(RecordError::Short)?;
        let rest = std::str::from_utf8(rest).map_err(|_| RecordError::Text)?;
        match kind {
            0 if rest.is_empty() => Ok(Self::Group),
            0 => Err(RecordError::Trailing),
            1 => Ok(Self::Profile(rest)),
            2 => Ok(Self::Target(rest)),
            3 => Ok(Self::Current(rest)),
            other => Err(RecordError::Unknown(*other)),
        }
    }
}

/// The group as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) epoch: i32,
    pub(crate) assignment_epoch: i32,
    pub(crate) topics_hash: u64,
}

impl Header {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(17);
        out.put_u8(VERSION);
        out.put_i32(self.epoch);
        out.put_i32(self.assignment_epoch);
        out.put_u64(self.topics_hash);
        out.freeze()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, RecordError> {
        let mut reader = open(value)?;
        let header = Self {
            epoch: reader.i32()?,
            assignment_epoch: reader.i32()?,
            topics_hash: u64::from_be_bytes(reader.array()?),
        };
        reader.end()?;
        Ok(header)
    }
}

fn open(value: &[u8]) -> Result<Reader<'_>, RecordError> {
    let mut reader = Reader::new(value);
    match reader.u8()? {
        VERSION => Ok(reader),
        other => Err(RecordError::Unknown(other)),
    }
}

/// A count of things that take at least so many bytes each, so that no claim takes memory.
fn count(reader: &mut Reader<'_>, least_bytes: usize) -> Result<usize, RecordError> {
    let count = reader.u32()? as usize;
    if count > reader.left() / least_bytes { Err(RecordError::Short) } else { Ok(count) }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("held in memory under the group's byte bound"));
}

/// Encodes a profile.
pub(crate) fn encode_profile(profile: &Profile) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u8(VERSION);
    put_optional_text(&mut out, profile.instance.as_ref());
    put_optional_text(&mut out, profile.rack.as_ref());
    put_bytes(&mut out, profile.client_id.as_bytes());
    put_bytes(&mut out, profile.client_host.as_bytes());
    out.put_i32(profile.rebalance_timeout_ms);
    let assignor = profile.assignor.map(|assignor| Str::from_static(assignor.name()));
    put_optional_text(&mut out, assignor.as_ref());
    put_count(&mut out, profile.names.len());
    for name in &profile.names {
        put_bytes(&mut out, name.as_bytes());
    }
    put_bytes(&mut out, profile.regex.as_bytes());
    match &profile.classic {
        None => out.put_u8(0),
        Some(classic) => {
            out.put_u8(1);
            out.put_i32(classic.session_timeout_ms);
            put_count(&mut out, classic.protocols.len());
            for (name, subscription) in &classic.protocols {
                put_bytes(&mut out, name.as_bytes());
                put_bytes(&mut out, subscription);
            }
        }
    }
    out.freeze()
}

/// Decodes a profile. An assignor that this version does not know is none.
pub(crate) fn decode_profile(value: &[u8]) -> Result<Profile, RecordError> {
    let mut reader = open(value)?;
    let mut profile = Profile {
        instance: reader.optional_text()?,
        rack: reader.optional_text()?,
        client_id: reader.text()?,
        client_host: reader.text()?,
        rebalance_timeout_ms: reader.i32()?,
        assignor: reader.optional_text()?.and_then(|name| Assignor::from_name(&name)),
        ..Profile::default()
    };
    for _ in 0..count(&mut reader, 4)? {
        profile.names.push(reader.text()?);
    }
    profile.regex = reader.text()?;
    profile.classic = match reader.u8()? {
        0 => None,
        1 => {
            let mut classic =
                ClassicProfile { session_timeout_ms: reader.i32()?, ..Default::default() };
            for _ in 0..count(&mut reader, 8)? {
                classic.protocols.push((reader.text()?, reader.bytes()?));
            }
            Some(Box::new(classic))
        }
        other => return Err(RecordError::Unknown(other)),
    };
    reader.end()?;
    Ok(profile)
}

/// Encodes a target assignment.
pub(crate) fn encode_target(target: &Partitions) -> Bytes {
    let mut out = BytesMut::with_capacity(5 + target.topics().len() * 20 + target.len() * 4);
    out.put_u8(VERSION);
    put_count(&mut out, target.topics().len());
    for (topic, partitions) in target.topics() {
        out.put_slice(&topic.0);
        put_count(&mut out, partitions.len());
        partitions.iter().for_each(|partition| out.put_i32(*partition));
    }
    out.freeze()
}

/// Decodes a target assignment.
pub(crate) fn decode_target(value: &[u8]) -> Result<Partitions, RecordError> {
    let mut reader = open(value)?;
    let mut all = Vec::new();
    for _ in 0..count(&mut reader, 20)? {
        let topic = TopicId(reader.array()?);
        for _ in 0..count(&mut reader, 4)? {
            all.push((topic, reader.i32()?));
        }
    }
    reader.end()?;
    Ok(all.into_iter().collect())
}

fn put_held(out: &mut BytesMut, held: &Held) {
    put_count(out, held.topics().len());
    for (topic, partitions) in held.topics() {
        out.put_slice(&topic.0);
        put_count(out, partitions.len());
        for (partition, epoch) in partitions {
            out.put_i32(*partition);
            out.put_i32(*epoch);
        }
    }
}

fn held(reader: &mut Reader<'_>) -> Result<Held, RecordError> {
    let mut all = Vec::new();
    for _ in 0..count(reader, 20)? {
        let topic = TopicId(reader.array()?);
        for _ in 0..count(reader, 8)? {
            all.push((topic, reader.i32()?, reader.i32()?));
        }
    }
    Ok(all.into_iter().collect())
}

/// Encodes what a member has.
pub(crate) fn encode_current(current: &Current) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(VERSION);
    out.put_i32(current.epoch);
    out.put_i32(current.previous_epoch);
    out.put_u8(current.state.code());
    put_held(&mut out, &current.assigned);
    put_held(&mut out, &current.revoking);
    out.freeze()
}

/// Decodes what a member has.
pub(crate) fn decode_current(value: &[u8]) -> Result<Current, RecordError> {
    let mut reader = open(value)?;
    let epoch = reader.i32()?;
    let previous_epoch = reader.i32()?;
    let code = reader.u8()?;
    let state = MemberState::from_code(code).ok_or(RecordError::Unknown(code))?;
    let assigned = held(&mut reader)?;
    let revoking = held(&mut reader)?;
    reader.end()?;
    Ok(Current { epoch, previous_epoch, state, assigned, revoking })
}

/// Whether a part can be read.
pub(crate) fn check_part(part: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
    let key = PartKey::decode(part)?;
    let Some(value) = value else { return Ok(()) };
    match key {
        PartKey::Group => Header::decode(value).map(drop),
        PartKey::Profile(_) => decode_profile(value).map(drop),
        PartKey::Target(_) => decode_target(value).map(drop),
        PartKey::Current(_) => decode_current(value).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Str> {
        ".{0,9}".prop_map(|text: String| Str::from(text))
    }

    fn all() -> impl Strategy<Value = Vec<(TopicId, i32, i32)>> {
        let one = (0..4_u8, any::<i32>(), any::<i32>());
        let one = one.prop_map(|(topic, number, epoch)| (TopicId([topic; 16]), number, epoch));
        prop::collection::vec(one, 0..12)
    }

    fn profile() -> impl Strategy<Value = Profile> {
        let opts = (prop::option::of(text()), prop::option::of(text()));
        let protocol = (text(), prop::collection::vec(any::<u8>(), 0..9).prop_map(Bytes::from));
        let classic = (any::<i32>(), prop::collection::vec(protocol, 0..3)).prop_map(
            |(session_timeout_ms, protocols)| {
                Box::new(ClassicProfile { session_timeout_ms, protocols })
            },
        );
        let assignor =
            prop::option::of(prop_oneof![Just(Assignor::Uniform), Just(Assignor::Range)]);
        let texts = (text(), text(), text(), prop::collection::vec(text(), 0..4));
        (opts, texts, any::<i32>(), assignor, prop::option::of(classic)).prop_map(
            |((instance, rack), (client_id, client_host, regex, names), ms, assignor, classic)| {
                Profile {
                    instance,
                    rack,
                    client_id,
                    client_host,
                    rebalance_timeout_ms: ms,
                    assignor,
                    names,
                    regex,
                    classic,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips_and_any_cut_is_an_error(
            profile in profile(),
            (assigned, revoking) in (all(), all()),
            (epoch, previous_epoch, topics_hash) in any::<(i32, i32, u64)>(),
            state in 0..3_u8,
        ) {
            let target: Partitions = assigned.iter().map(|(t, p, _)| (*t, *p)).collect();
            let current = Current {
                epoch,
                previous_epoch,
                state: MemberState::from_code(state).unwrap(),
                assigned: assigned.into_iter().collect(),
                revoking: revoking.into_iter().collect(),
            };
            let header = Header { epoch, assignment_epoch: previous_epoch, topics_hash };
            let values = [
                header.encode(),
                encode_profile(&profile),
                encode_target(&target),
                encode_current(&current),
            ];
            prop_assert_eq!(Header::decode(&values[0]), Ok(header));
            prop_assert_eq!(decode_profile(&values[1]), Ok(profile));
            prop_assert_eq!(decode_target(&values[2]), Ok(target));
            prop_assert_eq!(decode_current(&values[3]), Ok(current));
            let keys = [
                PartKey::Group,
                PartKey::Profile("m"),
                PartKey::Target("m"),
                PartKey::Current("m"),
            ];
            for (key, value) in keys.into_iter().zip(values) {
                let part = key.encode();
                prop_assert_eq!(PartKey::decode(&part), Ok(key));
                prop_assert_eq!(check_part(&part, Some(&value)), Ok(()));
                for cut in 0..value.len() {
                    prop_assert!(check_part(&part, Some(&value[..cut])).is_err(), "{key:?} {cut}");
                }
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic_nor_take_memory(
            part in prop::collection::vec(any::<u8>(), 0..4),
            value in prop::collection::vec(any::<u8>(), 0..90),
        ) {
            let _ = check_part(&part, Some(&value));
            for kind in 0..4 {
                let _ = check_part(&[kind], Some(&[&[VERSION][..], &value].concat()));
            }
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let header = Header { epoch: 3, assignment_epoch: 2, topics_hash: 7 };
        let expected = [&[1, 0, 0, 0, 3, 0, 0, 0, 2][..], &[0, 0, 0, 0, 0, 0, 0, 7]].concat();
        assert_eq!(header.encode(), expected);
        let topic = TopicId([9; 16]);
        let target: Partitions = [(topic, 1)].into_iter().collect();
        let expected = [&[1, 0, 0, 0, 1][..], &[9; 16], &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
        assert_eq!(encode_target(&target), expected);
        let current = Current {
            epoch: 2,
            previous_epoch: 1,
            state: MemberState::Unreleased,
            assigned: [(topic, 1, 2)].into_iter().collect(),
            revoking: Held::default(),
        };
        let expected = [
            &[1, 0, 0, 0, 2, 0, 0, 0, 1, 2][..],
            &[0, 0, 0, 1],
            &[9; 16],
            &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2],
            &[0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode_current(&current), expected);
        assert_eq!(PartKey::Current("m").encode(), [3, b'm']);
    }
}
