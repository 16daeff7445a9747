//! What the group coordinator persists: keys, and the values in [`metadata`] and [`offset`]; the parts
//! of groups with member epochs have theirs beside their machines.
//!
//! A key is self-describing. All numbers are big-endian; a group id is the rest of the key, UTF-8.
//!
//! ```text
//! group      tenant u32 | 0x10 | group id              value: metadata; tombstone: the group and
//!                                                      all of its offsets are gone
//! offset     tenant u32 | 0x11 | topic id 16 bytes | partition i32 | group id
//!                                                      value: offset; tombstone: forgotten
//! topic      tenant u32 | 0x12 | topic id 16 bytes     tombstone only: every group of the tenant
//!                                                      forgets its offsets in that topic
//! pending    tenant u32 | 0x17 | producer id i64 | topic id 16 bytes | partition i32 | group id
//!                                                      value: an offset that waits for the end of
//!                                                      the producer's transaction; tombstone:
//!                                                      forgotten
//! end        tenant u32 | 0x18 | producer id i64 | group id
//!                                                      value: the producer's transaction has ended:
//!                                                      its pending offsets are committed or
//!                                                      forgotten. Never in a snapshot
//! part       tenant u32 | 0x14 consumer, 0x15 share, 0x16 streams | length u16 | group id | part
//!                                                      value: a part of a group of that kind, by
//!                                                      the kind's own rules; tombstone: it is gone
//! ```
//!
//! A group is of one kind at a time: a part's value takes the place of the group's metadata and of
//! parts of other kinds, metadata that of all parts. Offsets stay.
//!
//! Rule for change: kinds 0x10 to 0x1f are this module's, others may share the log. A value opens
//! with a version byte; a new version is added beside the old one, which stays readable.

pub(crate) mod metadata;
pub(crate) mod offset;
pub(crate) mod pending;
pub(crate) mod read;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_model::{TenantId, TopicId};

use read::Reader;

const GROUP: u8 = 0x10;
const OFFSET: u8 = 0x11;
const TOPIC: u8 = 0x12;
const PENDING: u8 = 0x17;
const TRANSACTION_END: u8 = 0x18;

/// The kinds of groups whose members carry epochs. The number is what keys hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ModernKind {
    /// KIP-848.
    Consumer = 0x14,
    /// KIP-932.
    Share = 0x15,
    /// KIP-1071.
    Streams = 0x16,
}

impl ModernKind {
    fn of(kind: u8) -> Option<Self> {
        [Self::Consumer, Self::Share, Self::Streams].into_iter().find(|known| *known as u8 == kind)
    }
}

/// Why stored bytes are not a record of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside a field.
    #[error("record cut short")]
    Short,
    /// Bytes follow the last field.
    #[error("record too long")]
    Trailing,
    /// A string is not UTF-8.
    #[error("record holds text that is not utf-8")]
    Text,
    /// A key of an unknown kind, or a value of an unknown version.
    #[error("record of unknown kind or version {0}")]
    Unknown(u8),
    /// A number that cannot be.
    #[error("record holds a number out of its range")]
    Range,
    /// A value where only a tombstone can be.
    #[error("record holds a value where only a tombstone can be")]
    Value,
}

/// Whether a key of the shared log belongs to the group coordinator.
pub fn is_group_key(key: &[u8]) -> bool {
    key.get(4).is_some_and(|kind| (0x10..=0x1f).contains(kind))
}

/// A key, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key<'a> {
    /// A group as a whole.
    Group { tenant: TenantId, group: &'a str },
    /// One committed offset.
    Offset { tenant: TenantId, group: &'a str, topic: TopicId, partition: i32 },
    /// All offsets in a topic.
    Topic { tenant: TenantId, topic: TopicId },
    /// One offset that waits for its transaction.
    Pending { tenant: TenantId, group: &'a str, producer_id: i64, topic: TopicId, partition: i32 },
    /// The end of a producer's transaction in a group.
    TransactionEnd { tenant: TenantId, group: &'a str, producer_id: i64 },
    /// A part of a group with member epochs. A part without bytes is never there: its tombstone
    /// changes nothing.
    Part { tenant: TenantId, kind: ModernKind, group: &'a str, part: &'a [u8] },
}

impl<'a> Key<'a> {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        match *self {
            Self::Group { tenant, group } => {
                out.put_u32(tenant.0);
                out.put_u8(GROUP);
                out.put_slice(group.as_bytes());
            }
            Self::Offset { tenant, group, topic, partition } => {
                out.put_u32(tenant.0);
                out.put_u8(OFFSET);
                out.put_slice(&topic.0);
                out.put_i32(partition);
                out.put_slice(group.as_bytes());
            }
            Self::Topic { tenant, topic } => {
                out.put_u32(tenant.0);
                out.put_u8(TOPIC);
                out.put_slice(&topic.0);
            }
            Self::Pending { tenant, group, producer_id, topic, partition } => {
                out.put_u32(tenant.0);
                out.put_u8(PENDING);
                out.put_i64(producer_id);
                out.put_slice(&topic.0);
                out.put_i32(partition);
                out.put_slice(group.as_bytes());
            }
            Self::TransactionEnd { tenant, group, producer_id } => {
                out.put_u32(tenant.0);
                out.put_u8(TRANSACTION_END);
                out.put_i64(producer_id);
                out.put_slice(group.as_bytes());
            }
            Self::Part { tenant, kind, group, part } => {
                out.put_u32(tenant.0);
                out.put_u8(kind as u8);
                out.put_u16(
                    u16::try_from(group.len()).expect("group ids are bounded below 64 KiB"),
                );
                out.put_slice(group.as_bytes());
                out.put_slice(part);
            }
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        let tenant = TenantId(reader.u32()?);
        match reader.u8()? {
            GROUP => Ok(Self::Group { tenant, group: reader.rest_as_text()? }),
            OFFSET => {
                let topic = TopicId(reader.array()?);
                let partition = reader.i32()?;
                Ok(Self::Offset { tenant, topic, partition, group: reader.rest_as_text()? })
            }
            TOPIC => {
                let topic = TopicId(reader.array()?);
                reader.end()?;
                Ok(Self::Topic { tenant, topic })
            }
            PENDING => {
                let producer_id = reader.i64()?;
                let topic = TopicId(reader.array()?);
                let partition = reader.i32()?;
                let group = reader.rest_as_text()?;
                Ok(Self::Pending { tenant, group, producer_id, topic, partition })
            }
            TRANSACTION_END => {
                let producer_id = reader.i64()?;
                let group = reader.rest_as_text()?;
                Ok(Self::TransactionEnd { tenant, group, producer_id })
            }
            other => {
                let kind = ModernKind::of(other).ok_or(RecordError::Unknown(other))?;
                let length = usize::from(u16::from_be_bytes(reader.array()?));
                let group = reader.short_text(length)?;
                Ok(Self::Part { tenant, kind, group, part: reader.rest() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_sort_themselves_apart() {
        let tenant = TenantId(7);
        let topic = TopicId([9; 16]);
        let keys = [
            Key::Group { tenant, group: "" },
            Key::Group { tenant, group: "g" },
            Key::Offset { tenant, group: "g", topic, partition: -1 },
            Key::Offset { tenant, group: "", topic, partition: i32::MAX },
            Key::Topic { tenant, topic },
            Key::Pending { tenant, group: "g", producer_id: 5, topic, partition: 1 },
            Key::TransactionEnd { tenant, group: "g", producer_id: i64::MAX },
            Key::Part { tenant, kind: ModernKind::Consumer, group: "g", part: b"\x02m" },
            Key::Part { tenant, kind: ModernKind::Consumer, group: "", part: b"" },
        ];
        for key in keys {
            let bytes = key.encode();
            assert_eq!(Key::decode(&bytes), Ok(key));
            assert!(is_group_key(&bytes));
        }
    }

    #[test]
    fn key_bytes_are_as_documented() {
        let key = Key::Offset {
            tenant: TenantId(1),
            group: "ab",
            topic: TopicId([0xee; 16]),
            partition: 2,
        };
        let mut expected = vec![0, 0, 0, 1, 0x11];
        expected.extend([0xee; 16]);
        expected.extend([0, 0, 0, 2, b'a', b'b']);
        assert_eq!(key.encode(), expected);
    }

    #[test]
    fn a_parts_key_is_as_documented() {
        let key = Key::Part {
            tenant: TenantId(1),
            kind: ModernKind::Consumer,
            group: "ab",
            part: &[7, 8],
        };
        assert_eq!(key.encode(), &[0, 0, 0, 1, 0x14, 0, 2, b'a', b'b', 7, 8][..]);
    }

    #[test]
    fn bad_keys_are_errors() {
        assert_eq!(Key::decode(&[0, 0, 0, 1, 0x14, 0, 2, b'a']), Err(RecordError::Short));
        assert_eq!(Key::decode(&[0, 0, 0, 1]), Err(RecordError::Short));
        assert_eq!(Key::decode(&[0, 0, 0, 1, 0x77]), Err(RecordError::Unknown(0x77)));
        assert_eq!(Key::decode(&[0, 0, 0, 1, GROUP, 0xff]), Err(RecordError::Text));
        assert_eq!(Key::decode(&[0, 0, 0, 1, OFFSET, 0xff]), Err(RecordError::Short));
        let mut long = Key::Topic { tenant: TenantId(1), topic: TopicId::ZERO }.encode().to_vec();
        long.push(0);
        assert_eq!(Key::decode(&long), Err(RecordError::Trailing));
        assert!(!is_group_key(&[0, 0, 0, 1, 0x20]));
        assert!(!is_group_key(&[]));
    }
}
