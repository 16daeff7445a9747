//! The value of a group's record: the last generation that was agreed on, with every member's
//! subscription and assignment, so that members go on after a restart without a rebalance.
//!
//! ```text
//! version u8 = 1 | generation i32 | state since i64 (ms since the epoch, -1 unknown)
//! | protocol type opt | protocol opt | leader opt | members u32, then for each:
//!   member id text | instance id opt | client id text | client host text
//!   | rebalance timeout i32 | session timeout i32 (ms) | subscription bytes | assignment bytes
//! ```
//!
//! text and bytes: length u32, then that many bytes; opt: 0, or 1 and a text. Kafka keeps the same
//! facts in its GroupMetadataValue.

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::Str;

use super::RecordError;
use super::read::{Reader, put_bytes, put_optional_text};

const VERSION: u8 = 1;

/// The least bytes that a member takes, to bound how many a claimed count may reserve.
const MIN_MEMBER_BYTES: usize = 4 + 1 + 4 + 4 + 4 + 4 + 4 + 4;

/// What is stored of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupMetadata {
    pub(crate) generation: i32,
    /// Wall time in ms of the last change of state; -1 when unknown.
    pub(crate) state_since_ms: i64,
    pub(crate) protocol_type: Option<Str>,
    pub(crate) protocol: Option<Str>,
    pub(crate) leader: Option<Str>,
    pub(crate) members: Vec<MemberMetadata>,
}

/// What is stored of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberMetadata {
    pub(crate) id: Str,
    pub(crate) instance: Option<Str>,
    pub(crate) client_id: Str,
    pub(crate) client_host: Str,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// The member's metadata for the group's protocol.
    pub(crate) subscription: Bytes,
    pub(crate) assignment: Bytes,
}

impl GroupMetadata {
    pub(crate) fn encode(&self) -> Bytes {
        let members: usize = self
            .members
            .iter()
            .map(|m| 128 + m.subscription.len() + m.assignment.len() + m.client_id.len())
            .sum();
        let mut out = BytesMut::with_capacity(64 + members);
        out.put_u8(VERSION);
        out.put_i32(self.generation);
        out.put_i64(self.state_since_ms);
        put_optional_text(&mut out, self.protocol_type.as_ref());
        put_optional_text(&mut out, self.protocol.as_ref());
        put_optional_text(&mut out, self.leader.as_ref());
        out.put_u32(u32::try_from(self.members.len()).expect("bounded by the group's max size"));
        for member in &self.members {
            put_bytes(&mut out, member.id.as_bytes());
            put_optional_text(&mut out, member.instance.as_ref());
            put_bytes(&mut out, member.client_id.as_bytes());
            put_bytes(&mut out, member.client_host.as_bytes());
            out.put_i32(member.rebalance_timeout_ms);
            out.put_i32(member.session_timeout_ms);
            put_bytes(&mut out, &member.subscription);
            put_bytes(&mut out, &member.assignment);
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(RecordError::Unknown(other)),
        }
        let mut metadata = Self {
            generation: reader.i32()?,
            state_since_ms: reader.i64()?,
            protocol_type: reader.optional_text()?,
            protocol: reader.optional_text()?,
            leader: reader.optional_text()?,
            members: Vec::new(),
        };
        let count = reader.u32()? as usize;
        if count > reader.left() / MIN_MEMBER_BYTES {
            return Err(RecordError::Short);
        }
        metadata.members.reserve_exact(count);
        for _ in 0..count {
            metadata.members.push(MemberMetadata {
                id: reader.text()?,
                instance: reader.optional_text()?,
                client_id: reader.text()?,
                client_host: reader.text()?,
                rebalance_timeout_ms: reader.i32()?,
                session_timeout_ms: reader.i32()?,
                subscription: reader.bytes()?,
                assignment: reader.bytes()?,
            });
        }
        reader.end()?;
        Ok(metadata)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = Str> {
        ".{0,12}".prop_map(|text: String| Str::from(text))
    }

    fn blob() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn member() -> impl Strategy<Value = MemberMetadata> {
        (text(), prop::option::of(text()), text(), text(), any::<(i32, i32)>(), blob(), blob())
            .prop_map(
                |(id, instance, client_id, client_host, timeouts, subscription, assignment)| {
                    MemberMetadata {
                        id,
                        instance,
                        client_id,
                        client_host,
                        rebalance_timeout_ms: timeouts.0,
                        session_timeout_ms: timeouts.1,
                        subscription,
                        assignment,
                    }
                },
            )
    }

    fn metadata() -> impl Strategy<Value = GroupMetadata> {
        let names = [(); 3].map(|()| prop::option::of(text()));
        (any::<(i32, i64)>(), names, prop::collection::vec(member(), 0..4)).prop_map(
            |((generation, state_since_ms), [protocol_type, protocol, leader], members)| {
                GroupMetadata {
                    generation,
                    state_since_ms,
                    protocol_type,
                    protocol,
                    leader,
                    members,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn round_trips(metadata in metadata()) {
            prop_assert_eq!(GroupMetadata::decode(&metadata.encode()), Ok(metadata));
        }

        #[test]
        fn any_cut_is_an_error(metadata in metadata(), at in any::<prop::sample::Index>()) {
            let bytes = metadata.encode();
            prop_assert!(GroupMetadata::decode(&bytes[..at.index(bytes.len())]).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = GroupMetadata::decode(&bytes);
        }
    }

    #[test]
    fn empty_group_bytes_are_as_documented() {
        let metadata = GroupMetadata {
            generation: 3,
            state_since_ms: -1,
            protocol_type: Some(Str::from_static("c")),
            ..GroupMetadata::default()
        };
        let expected =
            [&[1, 0, 0, 0, 3][..], &[0xff; 8], &[1, 0, 0, 0, 1, b'c'], &[0, 0], &[0, 0, 0, 0]]
                .concat();
        assert_eq!(metadata.encode(), expected);
    }

    #[test]
    fn a_claimed_count_takes_no_memory() {
        let mut bytes = GroupMetadata::default().encode().to_vec();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(GroupMetadata::decode(&bytes), Err(RecordError::Short));
    }
}
