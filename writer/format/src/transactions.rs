//! What a segment says of an extent beside its records: transactions that were aborted in it, and the
//! producers as of its end. Absent where there is nothing to say.
//!
//! ```text
//! section   magic "TXN2", aborted count u32, aborted * 32, producers, crc u32 over all before it
//!   aborted     producer id i64, first offset i64, last offset i64, last stable offset i64
//! producers   count u32, count * (id i64, epoch i16, last ms i64, coordinator epoch i32 (-1: none),
//!             open since i64 (-1: no transaction), batches u8, batches * (first sequence i32, last i32, base offset i64, timestamp i64))
//! ```
//!
//! As in Kafka's `.txnindex`, an aborted transaction is listed where its *marker* lies, as it is not known
//! before how it ends. Who reads from offset `a` to `b` needs those of the extents from the one that holds
//! `a` on, until one is listed whose last stable offset is at least `b`, or the end.

use bytes::{BufMut, BytesMut};

use crate::cursor::Cursor;
use crate::segment::checked;
use crate::state::{ProducerBatch, ProducerSnapshot};
use crate::{FormatError, crc32c};

const MAGIC: &[u8; 4] = b"TXN2";
const WHAT: &str = "transaction section";
const ABORTED_LEN: usize = 32;
/// A producer without batches.
const PRODUCER_LEN: usize = 31;

/// A transaction that was aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Whose.
    pub producer_id: i64,
    /// The first offset of its records.
    pub first_offset: i64,
    /// The offset of its marker.
    pub last_offset: i64,
    /// The last stable offset once it had ended.
    pub last_stable_offset: i64,
}

/// The section of one extent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionSection {
    /// By the offset of their markers, ascending.
    pub aborted: Vec<AbortedTransaction>,
    /// As of the extent's end, by id.
    pub producers: Vec<ProducerSnapshot>,
}

impl TransactionSection {
    /// Its bytes; none if there is nothing to say.
    pub fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        if self.aborted.is_empty() && self.producers.is_empty() {
            return out;
        }
        out.put_slice(MAGIC);
        out.put_u32_le(self.aborted.len() as u32);
        for aborted in &self.aborted {
            out.put_i64_le(aborted.producer_id);
            out.put_i64_le(aborted.first_offset);
            out.put_i64_le(aborted.last_offset);
            out.put_i64_le(aborted.last_stable_offset);
        }
        encode_producers(&self.producers, &mut out);
        out.put_u32_le(crc32c(&out));
        out
    }

    /// Reads a section: the bytes of [`crate::Extent::section_range`], which may be empty.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut cursor = Cursor::new(checked(bytes, WHAT)?, WHAT);
        if cursor.array::<4>()? != *MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        let count = cursor.count(ABORTED_LEN)?;
        let aborted = (0..count).map(|_| {
            Ok(AbortedTransaction {
                producer_id: cursor.i64()?,
                first_offset: cursor.i64()?,
                last_offset: cursor.i64()?,
                last_stable_offset: cursor.i64()?,
            })
        });
        let aborted = aborted.collect::<Result<_, FormatError>>()?;
        let producers = decode_producers(&mut cursor)?;
        cursor.finish()?;
        Ok(Self { aborted, producers })
    }
}

pub(crate) fn encode_producers(producers: &[ProducerSnapshot], out: &mut BytesMut) {
    out.put_u32_le(producers.len() as u32);
    for producer in producers {
        out.put_i64_le(producer.id);
        out.put_i16_le(producer.epoch);
        out.put_i64_le(producer.last_ms);
        out.put_i32_le(producer.coordinator_epoch);
        out.put_i64_le(producer.open_since.unwrap_or(-1));
        let kept = producer.batches.len().min(usize::from(u8::MAX));
        out.put_u8(kept as u8);
        for batch in &producer.batches[producer.batches.len() - kept..] {
            out.put_i32_le(batch.first_sequence);
            out.put_i32_le(batch.last_sequence);
            out.put_i64_le(batch.base_offset);
            out.put_i64_le(batch.timestamp_ms);
        }
    }
}

pub(crate) fn decode_producers(
    cursor: &mut Cursor<'_>,
) -> Result<Vec<ProducerSnapshot>, FormatError> {
    let count = cursor.count(PRODUCER_LEN)?;
    let mut producers = Vec::with_capacity(count);
    for _ in 0..count {
        let id = cursor.i64()?;
        let epoch = cursor.i16()?;
        let last_ms = cursor.i64()?;
        let coordinator_epoch = cursor.i32()?;
        let open_since = Some(cursor.i64()?).filter(|since| *since >= 0);
        let batches = cursor.u8()?;
        let batches = (0..batches).map(|_| {
            Ok(ProducerBatch {
                first_sequence: cursor.i32()?,
                last_sequence: cursor.i32()?,
                base_offset: cursor.i64()?,
                timestamp_ms: cursor.i64()?,
            })
        });
        let batches = batches.collect::<Result<_, FormatError>>()?;
        producers.push(ProducerSnapshot {
            id,
            epoch,
            last_ms,
            coordinator_epoch,
            open_since,
            batches,
        });
    }
    Ok(producers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_to_say_takes_no_bytes() {
        assert!(TransactionSection::default().encode().is_empty());
        assert_eq!(TransactionSection::decode(&[]), Ok(TransactionSection::default()));
    }

    proptest! {
        #[test]
        fn round_trips_and_damage_is_seen(
            offsets in proptest::collection::vec(0i64..1000, 0..5),
            opens in proptest::collection::vec(proptest::option::of(0i64..1000), 1..5),
        ) {
            let section = TransactionSection {
                aborted: offsets.iter().map(|offset| AbortedTransaction {
                    producer_id: *offset,
                    first_offset: offset - 5,
                    last_offset: *offset,
                    last_stable_offset: offset + 1,
                }).collect(),
                producers: opens.iter().map(|open_since| ProducerSnapshot {
                    id: 7,
                    epoch: 2,
                    last_ms: 3,
                    coordinator_epoch: 4,
                    open_since: *open_since,
                    batches: vec![ProducerBatch {
                        first_sequence: 0,
                        last_sequence: 4,
                        base_offset: 9,
                        timestamp_ms: 1,
                    }],
                }).collect(),
            };
            let bytes = section.encode();
            prop_assert_eq!(TransactionSection::decode(&bytes), Ok(section));
            for at in 0..bytes.len() {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= 4;
                prop_assert!(TransactionSection::decode(&damaged).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = TransactionSection::decode(&bytes);
        }
    }
}
