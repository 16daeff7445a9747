//! What members of the classic protocol carry in JoinGroup and SyncGroup: Kafka's
//! ConsumerProtocolSubscription and ConsumerProtocolAssignment, versions 0 to 3.
//!
//! ```text
//! subscription: version i16 | topics i32 * (text) | user data bytes
//!               from 1: owned i32 * (topic text, partitions i32 * i32)
//!               from 2: generation i32 | from 3: rack text, or length -1 for none
//! assignment:   version i16 | i32 * (topic text, partitions i32 * i32) | user data bytes
//! ```
//!
//! text: length i16; bytes: length i32, -1 for null. A newer version begins as version 3 does.

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::Str;

use crate::group::record::RecordError;
use crate::group::record::read::Reader;

/// Partitions by topic name.
pub(super) type Named = Vec<(Str, Vec<i32>)>;

/// What a member subscribes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscription {
    pub(super) version: i16,
    pub(super) topics: Vec<Str>,
    pub(super) owned: Named,
    pub(super) rack: Option<Str>,
}

/// Reads a subscription.
pub(super) fn subscription(bytes: &[u8]) -> Result<Subscription, RecordError> {
    let mut reader = Reader::new(bytes);
    let mut subscription = Subscription { version: version(&mut reader)?, ..Default::default() };
    for _ in 0..count(&mut reader, 2)? {
        subscription.topics.push(text(&mut reader)?);
    }
    skip_bytes(&mut reader)?;
    if subscription.version >= 1 {
        subscription.owned = named(&mut reader)?;
    }
    if subscription.version >= 2 {
        reader.i32()?;
    }
    if subscription.version >= 3 {
        let len = i16::from_be_bytes(reader.array()?);
        if let Ok(len) = usize::try_from(len) {
            subscription.rack = Some(Str::from(reader.short_text(len)?));
        }
    }
    Ok(subscription)
}

/// Reads an assignment. One without bytes is empty.
pub(super) fn assignment(bytes: &[u8]) -> Result<Named, RecordError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = Reader::new(bytes);
    version(&mut reader)?;
    named(&mut reader)
}

/// Writes an assignment.
pub(super) fn encode_assignment(version: i16, assigned: &[(Str, Vec<i32>)]) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_i16(version);
    put_count(&mut out, assigned.len());
    for (topic, partitions) in assigned {
        out.put_i16(i16::try_from(topic.len()).expect("topic names have at most 249 bytes"));
        out.put_slice(topic.as_bytes());
        put_count(&mut out, partitions.len());
        partitions.iter().for_each(|partition| out.put_i32(*partition));
    }
    out.put_i32(-1);
    out.freeze()
}

fn put_count(out: &mut BytesMut, count: usize) {
    out.put_i32(i32::try_from(count).expect("bounded by a tenant's partitions"));
}

fn version(reader: &mut Reader<'_>) -> Result<i16, RecordError> {
    let version = i16::from_be_bytes(reader.array()?);
    if version < 0 { Err(RecordError::Unknown(0xff)) } else { Ok(version) }
}

/// A count of things that take at least so many bytes each.
fn count(reader: &mut Reader<'_>, least_bytes: usize) -> Result<usize, RecordError> {
    let count = usize::try_from(reader.i32()?).map_err(|_| RecordError::Short)?;
    if count > reader.left() / least_bytes { Err(RecordError::Short) } else { Ok(count) }
}

fn text(reader: &mut Reader<'_>) -> Result<Str, RecordError> {
    let len = i16::from_be_bytes(reader.array()?);
    let len = usize::try_from(len).map_err(|_| RecordError::Short)?;
    reader.short_text(len).map(Str::from)
}

fn skip_bytes(reader: &mut Reader<'_>) -> Result<(), RecordError> {
    match usize::try_from(reader.i32()?) {
        Ok(len) => reader.skip(len),
        Err(_) => Ok(()),
    }
}

fn named(reader: &mut Reader<'_>) -> Result<Named, RecordError> {
    let mut all = Vec::new();
    for _ in 0..count(reader, 6)? {
        let topic = text(reader)?;
        let mut partitions = Vec::new();
        for _ in 0..count(reader, 4)? {
            partitions.push(reader.i32()?);
        }
        all.push((topic, partitions));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_each_version() {
        let base = [&[0, 0, 0, 2][..], &[0, 1, b'a'], &[0, 2, b'b', b'c'], &[0xff; 4]].concat();
        let owned = [&[0, 0, 0, 1, 0, 1, b'a'][..], &[0, 0, 0, 1, 0, 0, 0, 7]].concat();
        let more = [&owned[..], &[0, 0, 0, 5], &[0, 1, b'r']].concat();
        for (version, rest) in [(0, &[][..]), (1, &owned[..]), (3, &more[..])] {
            let bytes = [&[0, version][..], &base, rest].concat();
            let read = subscription(&bytes).unwrap();
            assert_eq!(read.topics, ["a", "bc"].map(Str::from_static));
            assert_eq!(read.owned.is_empty(), version == 0);
            assert_eq!(read.rack.is_some(), version == 3);
            for cut in 0..bytes.len() {
                assert!(subscription(&bytes[..cut]).is_err(), "{version} {cut}");
            }
        }
        assert!(subscription(&[0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_err());
    }

    proptest! {
        #[test]
        fn assignments_round_trip(
            assigned in prop::collection::vec(("[a-z]{1,9}", prop::collection::vec(any::<i32>(), 0..5)), 0..4),
            version in 0..4_i16,
        ) {
            let assigned: Named = assigned.into_iter().map(|(t, p)| (Str::from(t), p)).collect();
            prop_assert_eq!(assignment(&encode_assignment(version, &assigned)), Ok(assigned));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = subscription(&bytes);
            let _ = assignment(&bytes);
        }
    }

    #[test]
    fn an_absent_assignment_is_empty() {
        assert_eq!(assignment(&[]), Ok(Vec::new()));
    }
}
