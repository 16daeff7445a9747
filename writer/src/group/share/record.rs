//! The parts that a share group is stored as. All numbers are big-endian.
//!
//! ```text
//! part key                     value
//! 0x00                         group:  version u8 = 1 | group epoch i32 | assignment epoch i32
//!                                      | hash of the subscribed topics u64
//!                                      | initialized topics u32, for each: topic id 16 | partitions i32
//! 0x01 | member id             member: version u8 = 1 | epoch i32 | previous epoch i32 | rack opt
//!                                      | client id text | client host text | names u32, that many texts
//!                                      | target set | assigned set
//! ```
//!
//! set: topics u32, for each: topic id 16 | partitions u32, that many: partition i32. text: length u32, then
//! UTF-8; opt: 0, or 1 and a text. Kafka keeps the same facts in its ShareGroup records. Rule for change: a
//! value opens with a version byte; a new version is added beside the old one, which stays readable.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use sluice_model::TopicId;

use super::Member;
use crate::group::partitions::Partitions;
use crate::group::record::RecordError;
use crate::group::record::read::{Reader, put_bytes, put_optional_text};

const VERSION: u8 = 1;
const GROUP: u8 = 0;
const MEMBER: u8 = 1;
/// The least bytes that a topic takes with its partitions.
const MIN_TOPIC_BYTES: usize = 16 + 4;

/// What a part's key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKey<'a> {
    Group,
    Member(&'a str),
}

impl<'a> PartKey<'a> {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::Group => vec![GROUP],
            Self::Member(id) => [&[MEMBER], id.as_bytes()].concat(),
        }
    }

    pub(super) fn decode(part: &'a [u8]) -> Result<Self, RecordError> {
        let (kind, rest) = part.split_first().ok_or(RecordError::Short)?;
        let rest = std::str::from_utf8(rest).map_err(|_| RecordError::Text)?;
        match *kind {
            GROUP if rest.is_empty() => Ok(Self::Group),
            GROUP => Err(RecordError::Trailing),
            MEMBER => Ok(Self::Member(rest)),
            other => Err(RecordError::Unknown(other)),
        }
    }
}

/// Whether these bytes can be a part of a share group.
pub(crate) fn check_part(part: &[u8], value: Option<&[u8]>) -> Result<(), RecordError> {
    match (PartKey::decode(part)?, value) {
        (_, None) => Ok(()),
        (PartKey::Group, Some(value)) => Header::decode(value).map(drop),
        (PartKey::Member(_), Some(value)) => decode_member(value).map(drop),
    }
}

/// The group as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) epoch: i32,
    pub(super) assignment_epoch: i32,
    pub(super) topics_hash: u64,
    /// Topics that the group has had, with their partitions then.
    pub(super) initialized: BTreeMap<TopicId, i32>,
}

impl Default for Header {
    /// The first epoch that a member is told is 2, as in Kafka: the one before it is an old epoch, and not the 0
    /// that joins.
    fn default() -> Self {
        let initialized = BTreeMap::new();
        Self { epoch: 1, assignment_epoch: 1, topics_hash: 0, initialized }
    }
}

impl Header {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + 20 * self.initialized.len());
        out.put_u8(VERSION);
        out.put_i32(self.epoch);
        out.put_i32(self.assignment_epoch);
        out.put_u64(self.topics_hash);
        put_count(&mut out, self.initialized.len());
        for (topic, partitions) in &self.initialized {
            out.put_slice(&topic.0);
            out.put_i32(*partitions);
        }
        out.freeze()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader)?;
        let epoch = reader.i32()?;
        let assignment_epoch = reader.i32()?;
        let topics_hash = u64::from_be_bytes(reader.array()?);
        let count = count_of(&mut reader, MIN_TOPIC_BYTES)?;
        let mut initialized = BTreeMap::new();
        for _ in 0..count {
            initialized.insert(TopicId(reader.array()?), reader.i32()?);
        }
        reader.end()?;
        Ok(Self { epoch, assignment_epoch, topics_hash, initialized })
    }
}

pub(super) fn encode_member(member: &Member) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_u8(VERSION);
    out.put_i32(member.epoch);
    out.put_i32(member.previous_epoch);
    put_optional_text(&mut out, member.rack.as_ref());
    put_bytes(&mut out, member.client_id.as_bytes());
    put_bytes(&mut out, member.client_host.as_bytes());
    put_count(&mut out, member.names.len());
    for name in &member.names {
        put_bytes(&mut out, name.as_bytes());
    }
    for set in [&member.target, &member.assigned] {
        put_count(&mut out, set.topics().len());
        for (topic, partitions) in set.topics() {
            out.put_slice(&topic.0);
            put_count(&mut out, partitions.len());
            for partition in partitions {
                out.put_i32(*partition);
            }
        }
    }
    out.freeze()
}

pub(super) fn decode_member(bytes: &[u8]) -> Result<Member, RecordError> {
    let mut reader = Reader::new(bytes);
    check_version(&mut reader)?;
    let epoch = reader.i32()?;
    let previous_epoch = reader.i32()?;
    let rack = reader.optional_text()?;
    let client_id = reader.text()?;
    let client_host = reader.text()?;
    let mut names = BTreeSet::new();
    for _ in 0..count_of(&mut reader, 4)? {
        names.insert(reader.text()?);
    }
    let target = set_of(&mut reader)?;
    let assigned = set_of(&mut reader)?;
    reader.end()?;
    let deadline = None;
    Ok(Member {
        rack,
        client_id,
        client_host,
        names,
        epoch,
        previous_epoch,
        target,
        assigned,
        deadline,
    })
}

fn set_of(reader: &mut Reader<'_>) -> Result<Partitions, RecordError> {
    let mut all: Vec<(TopicId, i32)> = Vec::new();
    for _ in 0..count_of(reader, MIN_TOPIC_BYTES)? {
        let topic = TopicId(reader.array()?);
        for _ in 0..count_of(reader, 4)? {
            all.push((topic, reader.i32()?));
        }
    }
    Ok(all.into_iter().collect())
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), RecordError> {
    match reader.u8()? {
        VERSION => Ok(()),
        other => Err(RecordError::Unknown(other)),
    }
}

/// A count of things of at least `least` bytes each, which must be there.
fn count_of(reader: &mut Reader<'_>, least: usize) -> Result<usize, RecordError> {
    let count = reader.u32()? as usize;
    if count > reader.left() / least { Err(RecordError::Short) } else { Ok(count) }
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_u32(u32::try_from(count).expect("bounded by what a request may hold"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_wire::Str;

    use super::*;

    fn topic() -> impl Strategy<Value = TopicId> {
        any::<[u8; 16]>().prop_map(TopicId)
    }

    fn set() -> impl Strategy<Value = Partitions> {
        prop::collection::vec((topic(), any::<i32>()), 0..6)
            .prop_map(|all| all.into_iter().collect())
    }

    fn text() -> impl Strategy<Value = Str> {
        ".{0,12}".prop_map(|text: String| Str::from(text))
    }

    fn member() -> impl Strategy<Value = Member> {
        let names = prop::collection::btree_set(text(), 0..4);
        (any::<(i32, i32)>(), prop::option::of(text()), text(), text(), names, set(), set())
            .prop_map(
                |(
                    (epoch, previous_epoch),
                    rack,
                    client_id,
                    client_host,
                    names,
                    target,
                    assigned,
                )| Member {
                    rack,
                    client_id,
                    client_host,
                    names,
                    epoch,
                    previous_epoch,
                    target,
                    assigned,
                    deadline: None,
                },
            )
    }

    proptest! {
        #[test]
        fn members_round_trip_and_any_cut_is_an_error(
            member in member(),
            at in any::<prop::sample::Index>(),
        ) {
            let bytes = encode_member(&member);
            prop_assert_eq!(decode_member(&bytes), Ok(member));
            prop_assert!(decode_member(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn headers_round_trip(
            epochs in any::<(i32, i32, u64)>(),
            initialized in prop::collection::btree_map(topic(), any::<i32>(), 0..4),
        ) {
            let (epoch, assignment_epoch, topics_hash) = epochs;
            let header = Header { epoch, assignment_epoch, topics_hash, initialized };
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            part in prop::collection::vec(any::<u8>(), 0..20),
            value in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = check_part(&part, Some(&value));
            let _ = check_part(&[GROUP], Some(&value));
            let _ = check_part(&[MEMBER], Some(&value));
        }
    }

    #[test]
    fn header_bytes_are_as_documented() {
        let initialized = [(TopicId([0xee; 16]), 4)].into();
        let header = Header { epoch: 2, assignment_epoch: 1, topics_hash: 3, initialized };
        let head = [1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 1];
        assert_eq!(header.encode(), [&head[..], &[0xee; 16], &[0, 0, 0, 4]].concat());
    }

    #[test]
    fn keys_round_trip() {
        for key in [PartKey::Group, PartKey::Member("m"), PartKey::Member("")] {
            assert_eq!(PartKey::decode(&key.encode()), Ok(key));
        }
        assert_eq!(PartKey::decode(&[0, 1]), Err(RecordError::Trailing));
        assert_eq!(PartKey::decode(&[9]), Err(RecordError::Unknown(9)));
    }
}
