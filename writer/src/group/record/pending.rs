//! The values of what a transaction does to a group's offsets (KIP-98, KIP-447).
//!
//! ```text
//! pending    version u8 = 1 | producer epoch i16 | superseded u8 (0, 1) | order u64 | offset's value
//! end        version u8 = 1 | producer epoch i16 | outcome u8 (0 aborted, 1 committed)
//! ```
//!
//! A pending offset is superseded when one that came after it is committed: then it does not count, whatever
//! becomes of its transaction. Of two pending ones of a group, the one of larger order came later.

use bytes::{BufMut, Bytes, BytesMut};

use super::RecordError;
use super::offset::Committed;
use super::read::Reader;

const VERSION: u8 = 1;

/// An offset whose transaction is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PendingOffset {
    pub(crate) producer_epoch: i16,
    pub(crate) superseded: bool,
    pub(crate) order: u64,
    pub(crate) offset: Committed,
}

impl PendingOffset {
    pub(crate) fn encode(&self) -> Bytes {
        let offset = self.offset.encode();
        let mut out = BytesMut::with_capacity(12 + offset.len());
        out.put_u8(VERSION);
        out.put_i16(self.producer_epoch);
        out.put_u8(u8::from(self.superseded));
        out.put_u64(self.order);
        out.put_slice(&offset);
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (producer_epoch, superseded, rest) = head(bytes)?;
        let (order, offset) = rest.split_first_chunk().ok_or(RecordError::Short)?;
        let order = u64::from_be_bytes(*order);
        Ok(Self { producer_epoch, superseded, order, offset: Committed::decode(offset)? })
    }
}

/// The end of a producer's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransactionEnd {
    pub(crate) producer_epoch: i16,
    pub(crate) commit: bool,
}

impl TransactionEnd {
    pub(crate) fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(4);
        out.put_u8(VERSION);
        out.put_i16(self.producer_epoch);
        out.put_u8(u8::from(self.commit));
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let (producer_epoch, commit, rest) = head(bytes)?;
        if !rest.is_empty() {
            return Err(RecordError::Trailing);
        }
        Ok(Self { producer_epoch, commit })
    }
}

/// What both begin with, and the rest.
fn head(bytes: &[u8]) -> Result<(i16, bool, &[u8]), RecordError> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => {}
        other => return Err(RecordError::Unknown(other)),
    }
    let producer_epoch = i16::from_be_bytes(reader.array()?);
    let flag = match reader.u8()? {
        0 => false,
        1 => true,
        other => return Err(RecordError::Unknown(other)),
    };
    Ok((producer_epoch, flag, &bytes[4..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offset() -> Committed {
        let metadata = Box::from("m");
        Committed { offset: 5, leader_epoch: 2, committed_ms: 1, expires_ms: -1, metadata }
    }

    #[test]
    fn bytes_are_as_documented() {
        let (producer_epoch, superseded, order) = (7, true, 3);
        let pending = PendingOffset { producer_epoch, superseded, order, offset: offset() };
        assert_eq!(pending.encode()[..12], [1, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 3]);
        assert_eq!(pending.encode()[12..], offset().encode());
        let end = TransactionEnd { producer_epoch: 258, commit: true };
        assert_eq!(end.encode()[..], [1, 1, 2, 1]);
    }

    proptest! {
        #[test]
        fn round_trips(producer_epoch: i16, superseded: bool, order: u64) {
            let pending = PendingOffset { producer_epoch, superseded, order, offset: offset() };
            let bytes = pending.encode();
            for cut in 0..bytes.len() {
                prop_assert!(PendingOffset::decode(&bytes[..cut]).is_err());
            }
            prop_assert_eq!(PendingOffset::decode(&bytes), Ok(pending));
            let end = TransactionEnd { producer_epoch, commit: superseded };
            let bytes = end.encode();
            for cut in 0..bytes.len() {
                prop_assert!(TransactionEnd::decode(&bytes[..cut]).is_err());
            }
            prop_assert_eq!(TransactionEnd::decode(&bytes), Ok(end));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = PendingOffset::decode(&bytes);
            let _ = TransactionEnd::decode(&bytes);
        }
    }
}
