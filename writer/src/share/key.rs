//! The key of a share partition's record in the coordinator log; its value is in
//! [`partition::stored`](super::partition::stored).
//!
//! ```text
//! share partition   tenant u32 | 0x30 | topic id 16 bytes | partition u32 | group id, UTF-8, to the end
//!                   value: state; tombstone: forgotten
//! ```
//!
//! Numbers are big-endian. Rule for change: kinds 0x30 to 0x3f are this module's.

use std::ops::RangeInclusive;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_model::{StreamId, TenantId, TopicId};
use sluice_wire::Str;

use crate::group::record::RecordError;

/// The kinds of share partitions' records.
pub(crate) const SHARE_KINDS: RangeInclusive<u8> = 0x30..=0x3f;

const PARTITION: u8 = 0x30;
const GROUP_AT: usize = 4 + 1 + 16 + 4;

/// What a share group has of one stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareKey {
    pub(crate) group: Str,
    pub(crate) stream: StreamId,
}

impl ShareKey {
    pub(crate) fn encode(&self, tenant: TenantId) -> Bytes {
        let mut out = BytesMut::with_capacity(GROUP_AT + self.group.len());
        out.put_u32(tenant.0);
        out.put_u8(PARTITION);
        out.put_slice(&self.stream.topic.0);
        out.put_u32(self.stream.partition);
        out.put_slice(self.group.as_bytes());
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<(TenantId, Self), RecordError> {
        let (head, group) = bytes.split_first_chunk::<GROUP_AT>().ok_or(RecordError::Short)?;
        let [t0, t1, t2, t3, kind, topic @ .., p0, p1, p2, p3] = *head;
        if kind != PARTITION {
            return Err(RecordError::Unknown(kind));
        }
        let group = std::str::from_utf8(group).map_err(|_| RecordError::Text)?;
        let partition = u32::from_be_bytes([p0, p1, p2, p3]);
        let stream = StreamId { topic: TopicId(topic), partition };
        let tenant = TenantId(u32::from_be_bytes([t0, t1, t2, t3]));
        Ok((tenant, Self { group: Str::from(group), stream }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_are_as_documented() {
        let stream = StreamId { topic: TopicId([0xee; 16]), partition: 2 };
        let key = ShareKey { group: Str::from_static("ab"), stream };
        let bytes = key.encode(TenantId(7));
        let expected = [&[0, 0, 0, 7, 0x30][..], &[0xee; 16], &[0, 0, 0, 2, b'a', b'b']].concat();
        assert_eq!(bytes, expected);
        assert_eq!(ShareKey::decode(&bytes), Ok((TenantId(7), key)));
    }

    #[test]
    fn bad_keys_are_errors() {
        assert_eq!(ShareKey::decode(&[0, 0, 0, 1, 0x30]), Err(RecordError::Short));
        let stream = StreamId { topic: TopicId::ZERO, partition: 0 };
        let key = ShareKey { group: Str::from_static("a"), stream }.encode(TenantId(1));
        let mut bad = key.to_vec();
        bad[4] = 0x31;
        assert_eq!(ShareKey::decode(&bad), Err(RecordError::Unknown(0x31)));
        let mut bad = key.to_vec();
        bad[GROUP_AT] = 0xff;
        assert_eq!(ShareKey::decode(&bad), Err(RecordError::Text));
    }
}
