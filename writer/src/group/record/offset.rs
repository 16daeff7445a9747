//! The value of an offset's record.
//!
//! ```text
//! version u8 = 1 | offset i64 | leader epoch i32 (-1 none) | committed at i64 (ms since the epoch)
//! | expires at i64 (ms since the epoch, -1 by the group's retention) | metadata text
//! ```
//!
//! text: length u32, then UTF-8. Kafka keeps the same facts in its OffsetCommitValue.

use bytes::{BufMut, Bytes, BytesMut};

use super::RecordError;
use super::read::{Reader, put_bytes};

const VERSION: u8 = 1;

/// One committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// The epoch of the last record consumed; -1 for none.
    pub(crate) leader_epoch: i32,
    /// Wall time of the commit in ms.
    pub(crate) committed_ms: i64,
    /// Wall time in ms after which the offset is forgotten whatever the group does (the retention
    /// time of OffsetCommit versions 2 to 4); -1 for none.
    pub(crate) expires_ms: i64,
    /// The client's own text.
    pub(crate) metadata: Box<str>,
}

impl Committed {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(33 + self.metadata.len());
        out.put_u8(VERSION);
        out.put_i64(self.offset);
        out.put_i32(self.leader_epoch);
        out.put_i64(self.committed_ms);
        out.put_i64(self.expires_ms);
        put_bytes(&mut out, self.metadata.as_bytes());
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            VERSION => {}
            other => return Err(RecordError::Unknown(other)),
        }
        let committed = Self {
            offset: reader.i64()?,
            leader_epoch: reader.i32()?,
            committed_ms: reader.i64()?,
            expires_ms: reader.i64()?,
            metadata: Box::from(&*reader.text()?),
        };
        reader.end()?;
        Ok(committed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(
            (offset, leader_epoch, committed_ms, expires_ms) in any::<(i64, i32, i64, i64)>(),
            metadata in ".{0,20}",
        ) {
            let metadata = metadata.into_boxed_str();
            let committed = Committed { offset, leader_epoch, committed_ms, expires_ms, metadata };
            let bytes = committed.encode();
            for cut in 0..bytes.len() {
                prop_assert!(Committed::decode(&bytes[..cut]).is_err());
            }
            prop_assert_eq!(Committed::decode(&bytes), Ok(committed));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Committed::decode(&bytes);
        }
    }

    #[test]
    fn bytes_are_as_documented() {
        let committed = Committed {
            offset: 5,
            leader_epoch: 2,
            committed_ms: 1,
            expires_ms: -1,
            metadata: Box::from("m"),
        };
        let expected = [
            &[1][..],
            &5_i64.to_be_bytes(),
            &2_i32.to_be_bytes(),
            &1_i64.to_be_bytes(),
            &[0xff; 8],
            &[0, 0, 0, 1, b'm'],
        ]
        .concat();
        assert_eq!(committed.encode(), expected);
    }
}
