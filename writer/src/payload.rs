//! What a frame of a write-ahead log holds: for each stream that was appended to, one entry and its
//! batches, back to back.
//!
//! ```text
//! 0   version u16 | zero u16 | entries u32
//! 8   entries * 48:
//!       kind u8 (1 batches, 2 log start) | zero 3 | partition u32 | topic id 16 |
//!       offset i64 (base offset; or the new log start) | length u32 of its data | batches u32 | zero 8
//!     the data of each entry, in the same order
//! ```
//!
//! The frame's own checksum covers all of it. Rule for change: a new version number.

use bytes::{BufMut, Bytes};
use sluice_format::FormatError;
use sluice_format::cursor::Cursor;
use sluice_model::{StreamId, TopicId};

const VERSION: u16 = 1;
/// Bytes before the entries.
pub(crate) const HEADER_LEN: usize = 8;
/// Bytes of an entry.
pub(crate) const ENTRY_LEN: usize = 48;
const WHAT: &str = "frame payload";

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Batches from this offset on.
    Batches {
        /// Offset of the first record.
        base_offset: i64,
        /// How many batches.
        count: u32,
    },
    /// The log start moved here (DeleteRecords).
    LogStart(i64),
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The stream.
    pub stream: StreamId,
    /// What was done to it.
    pub kind: EntryKind,
    /// Bytes of data that belong to it.
    pub data_len: u32,
}

/// Writes the header and the entries; the data must follow in the same order.
pub(crate) fn encode_entries(entries: &[Entry], out: &mut impl BufMut) {
    out.put_u16_le(VERSION);
    out.put_u16_le(0);
    out.put_u32_le(entries.len() as u32);
    for entry in entries {
        let (kind, offset, count) = match entry.kind {
            EntryKind::Batches { base_offset, count } => (1, base_offset, count),
            EntryKind::LogStart(offset) => (2, offset, 0),
        };
        out.put_u8(kind);
        out.put_bytes(0, 3);
        out.put_u32_le(entry.stream.partition);
        out.put_slice(&entry.stream.topic.0);
        out.put_i64_le(offset);
        out.put_u32_le(entry.data_len);
        out.put_u32_le(count);
        out.put_u64_le(0);
    }
}

/// Reads a payload: each entry with the range of its data.
pub fn decode(payload: &Bytes) -> Result<Vec<(Entry, std::ops::Range<usize>)>, FormatError> {
    let mut cursor = Cursor::new(payload, WHAT);
    let version = cursor.u16()?;
    if version != VERSION {
        return Err(FormatError::Version { what: WHAT, found: version, newest: VERSION });
    }
    cursor.u16()?;
    let count = cursor.count(ENTRY_LEN)?;
    let mut at = HEADER_LEN + count * ENTRY_LEN;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = cursor.u8()?;
        cursor.take(3)?;
        let partition = cursor.u32()?;
        let topic = TopicId(cursor.array()?);
        let offset = cursor.i64()?;
        let data_len = cursor.u32()?;
        let batches = cursor.u32()?;
        cursor.u64()?;
        let kind = match kind {
            1 => EntryKind::Batches { base_offset: offset, count: batches },
            2 => EntryKind::LogStart(offset),
            _ => {
                return Err(FormatError::Invalid { what: WHAT, why: "an entry's kind is unknown" });
            }
        };
        let range = at..at + data_len as usize;
        if range.end > payload.len() {
            return Err(FormatError::Truncated { what: WHAT });
        }
        at = range.end;
        entries.push((Entry { stream: StreamId { topic, partition }, kind, data_len }, range));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(lens in proptest::collection::vec(0usize..200, 0..20)) {
            let entries: Vec<_> = lens
                .iter()
                .enumerate()
                .map(|(n, len)| Entry {
                    stream: StreamId { topic: TopicId([n as u8; 16]), partition: n as u32 },
                    kind: if *len == 0 {
                        EntryKind::LogStart(n as i64)
                    } else {
                        EntryKind::Batches { base_offset: n as i64, count: 1 }
                    },
                    data_len: *len as u32,
                })
                .collect();
            let mut out = Vec::new();
            encode_entries(&entries, &mut out);
            prop_assert_eq!(out.len(), HEADER_LEN + entries.len() * ENTRY_LEN);
            for (n, len) in lens.iter().enumerate() {
                out.extend(std::iter::repeat_n(n as u8, *len));
            }
            let payload = Bytes::from(out);
            let decoded = decode(&payload).unwrap();
            prop_assert_eq!(decoded.len(), entries.len());
            for (n, ((entry, range), expected)) in decoded.into_iter().zip(&entries).enumerate() {
                prop_assert_eq!(entry, *expected);
                prop_assert!(payload[range].iter().all(|byte| *byte == n as u8));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = decode(&Bytes::from(bytes));
        }
    }
}
