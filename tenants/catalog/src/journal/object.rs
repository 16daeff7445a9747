//! The bytes of one object of the journal: pure.
//!
//! ```text
//!  0  magic "SLJOURNL"
//!  8  format version u16 | kind u8 (1 part of a snapshot, 2 changes) | zero u8 | journal epoch u32
//! 16  sequence u64: the number in the object's name
//! 24  base u64: the sequence at which the newest snapshot begins that is complete with this object;
//!     before the first complete one, that of the first object
//! 32  written i64: ms since the epoch, of the writer's clock
//! 40  after u64: changes: the revision before the first change; a snapshot: its revision
//! 48  upto u64: changes: the last revision covered; a snapshot: its revision
//! 56  part u32 | parts u32: a snapshot's parts are numbered from 0; zero for changes
//! 64  body (below), then crc u32 (CRC32C) over all before it
//!
//! body, snapshot: count u32, count * (key length u32, value length u32, key, value)
//! body, changes:  count u32, count * change
//! change: revision u64, events u32, events * (put u8, key length u32, [value length u32,] key [, value])
//! ```
//!
//! Rule for change: a new format version; readers refuse what is newer than they know.

use bytes::{BufMut, Bytes, BytesMut};
use sluice_format::cursor::Cursor;
use sluice_format::{FormatError, crc32c};

use crate::store::Revision;

const MAGIC: &[u8; 8] = b"SLJOURNL";
const VERSION: u16 = 1;
const SNAPSHOT: u8 = 1;
const CHANGES: u8 = 2;
const WHAT: &str = "catalog journal";

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalObject {
    /// Grows with each process that takes the journal over.
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    pub(crate) base: u64,
    pub(crate) written_ms: i64,
    pub(crate) body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// A part of the whole map as of a revision.
    Snapshot { revision: Revision, part: u32, parts: u32, entries: Vec<(String, Bytes)> },
    /// All that happened after one revision, up to another. Changes of nothing that is journalled
    /// are left out.
    Changes { after: Revision, upto: Revision, changes: Vec<Change> },
}

/// What one transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    /// Key and new value; none: it was deleted.
    pub(crate) events: Vec<(String, Option<Bytes>)>,
}

impl Change {
    /// About how many bytes it takes.
    pub(crate) fn len_bytes(&self) -> usize {
        let event = |(key, value): &(String, Option<Bytes>)| {
            9 + key.len() + value.as_ref().map_or(0, Bytes::len)
        };
        12 + self.events.iter().map(event).sum::<usize>()
    }
}

impl JournalObject {
    pub(crate) fn encode(&self) -> Bytes {
        let (kind, after, upto, part, parts) = match &self.body {
            Body::Snapshot { revision, part, parts, .. } => {
                (SNAPSHOT, *revision, *revision, *part, *parts)
            }
            Body::Changes { after, upto, .. } => (CHANGES, *after, *upto, 0, 0),
        };
        let mut out = BytesMut::with_capacity(1024);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u8(kind);
        out.put_u8(0);
        out.put_u32_le(self.epoch);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.base);
        out.put_i64_le(self.written_ms);
        out.put_u64_le(after.0);
        out.put_u64_le(upto.0);
        out.put_u32_le(part);
        out.put_u32_le(parts);
        match &self.body {
            Body::Snapshot { entries, .. } => {
                out.put_u32_le(entries.len() as u32);
                for (key, value) in entries {
                    out.put_u32_le(key.len() as u32);
                    out.put_u32_le(value.len() as u32);
                    out.put_slice(key.as_bytes());
                    out.put_slice(value);
                }
            }
            Body::Changes { changes, .. } => {
                out.put_u32_le(changes.len() as u32);
                for change in changes {
                    encode_change(change, &mut out);
                }
            }
        }
        out.put_u32_le(crc32c(&out));
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut head = Cursor::new(bytes, WHAT);
        if head.array::<8>()? != *MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        let version = head.u16()?;
        if version != VERSION {
            return Err(FormatError::Version { what: WHAT, found: version, newest: VERSION });
        }
        let split = bytes.len().checked_sub(4).ok_or(FormatError::Truncated { what: WHAT })?;
        let (checked, crc) = bytes.split_at(split);
        if crc != crc32c(checked).to_le_bytes() {
            return Err(FormatError::Checksum { what: WHAT });
        }
        let body = checked.get(10..).ok_or(FormatError::Truncated { what: WHAT })?;
        let mut cursor = Cursor::new(body, WHAT);
        let kind = cursor.u8()?;
        cursor.u8()?;
        let epoch = cursor.u32()?;
        let (sequence, base) = (cursor.u64()?, cursor.u64()?);
        let written_ms = cursor.i64()?;
        let (after, upto) = (Revision(cursor.u64()?), Revision(cursor.u64()?));
        let (part, parts) = (cursor.u32()?, cursor.u32()?);
        let body = match kind {
            SNAPSHOT if part < parts && after == upto => {
                let entries = decode_entries(&mut cursor)?;
                Body::Snapshot { revision: upto, part, parts, entries }
            }
            CHANGES if part == 0 && parts == 0 && after < upto => {
                Body::Changes { after, upto, changes: decode_changes(&mut cursor, after, upto)? }
            }
            _ => return Err(invalid("its header contradicts itself")),
        };
        cursor.finish()?;
        if base > sequence {
            return Err(invalid("its base comes after it"));
        }
        Ok(Self { epoch, sequence, base, written_ms, body })
    }
}

fn invalid(why: &'static str) -> FormatError {
    FormatError::Invalid { what: WHAT, why }
}

fn encode_change(change: &Change, out: &mut BytesMut) {
    out.put_u64_le(change.revision.0);
    out.put_u32_le(change.events.len() as u32);
    for (key, value) in &change.events {
        out.put_u8(u8::from(value.is_some()));
        out.put_u32_le(key.len() as u32);
        if let Some(value) = value {
            out.put_u32_le(value.len() as u32);
        }
        out.put_slice(key.as_bytes());
        out.put_slice(value.as_deref().unwrap_or_default());
    }
}

fn decode_entries(cursor: &mut Cursor<'_>) -> Result<Vec<(String, Bytes)>, FormatError> {
    let count = cursor.count(8)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (key_len, value_len) = (cursor.u32()? as usize, cursor.u32()? as usize);
        let key = text(cursor.take(key_len)?)?;
        entries.push((key, Bytes::copy_from_slice(cursor.take(value_len)?)));
    }
    Ok(entries)
}

fn decode_changes(
    cursor: &mut Cursor<'_>,
    after: Revision,
    upto: Revision,
) -> Result<Vec<Change>, FormatError> {
    let count = cursor.count(12)?;
    let mut changes = Vec::with_capacity(count);
    let mut before = after;
    for _ in 0..count {
        let revision = Revision(cursor.u64()?);
        if revision <= before || revision > upto {
            return Err(invalid("its revisions are out of order"));
        }
        before = revision;
        let events = cursor.count(5)?;
        let mut change = Change { revision, events: Vec::with_capacity(events) };
        for _ in 0..events {
            let put = cursor.u8()? != 0;
            let key_len = cursor.u32()? as usize;
            let value_len = if put { Some(cursor.u32()? as usize) } else { None };
            let key = text(cursor.take(key_len)?)?;
            let value = value_len.map(|len| cursor.take(len).map(Bytes::copy_from_slice));
            change.events.push((key, value.transpose()?));
        }
        changes.push(change);
    }
    Ok(changes)
}

fn text(bytes: &[u8]) -> Result<String, FormatError> {
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("a key is not text"))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..20).prop_map(Bytes::from)
    }

    fn body() -> impl Strategy<Value = Body> {
        let snapshot = (any::<u64>(), 0..5u32, 1..5u32, vec((".{0,6}", value()), 0..4)).prop_map(
            |(revision, part, more, entries)| Body::Snapshot {
                revision: Revision(revision),
                part,
                parts: part + more,
                entries,
            },
        );
        let events = vec((".{0,6}", proptest::option::of(value())), 0..4);
        let changes = (0..1u64 << 40, vec((1..9u64, events), 0..4), 1..5u64).prop_map(
            |(after, steps, rest)| {
                let mut revision = after;
                let changes = steps.into_iter().map(|(step, events)| {
                    revision += step;
                    Change { revision: Revision(revision), events }
                });
                let changes = changes.collect();
                let upto = Revision(revision + rest);
                Body::Changes { after: Revision(after), upto, changes }
            },
        );
        prop_oneof![snapshot, changes]
    }

    fn object() -> impl Strategy<Value = JournalObject> {
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<i64>(), body()).prop_map(
            |(epoch, base, more, written_ms, body)| {
                let (sequence, base) = (u64::from(base) + u64::from(more), u64::from(base));
                JournalObject { epoch, sequence, base, written_ms, body }
            },
        )
    }

    /// The same bytes for ever: change them only together with the version.
    #[test]
    fn golden_bytes() {
        let change = Change {
            revision: Revision(8),
            events: vec![("k".into(), Some("v".into())), ("d".into(), None)],
        };
        let body = Body::Changes { after: Revision(7), upto: Revision(9), changes: vec![change] };
        let object = JournalObject { epoch: 2, sequence: 3, base: 1, written_ms: 4, body };
        let bytes = object.encode();
        let mut wanted = b"SLJOURNL\x01\0\x02\0\x02\0\0\0".to_vec();
        for number in [3u64, 1, 4, 7, 9, 0] {
            wanted.extend(number.to_le_bytes());
        }
        wanted.extend(b"\x01\0\0\0\x08\0\0\0\0\0\0\0\x02\0\0\0");
        wanted.extend(b"\x01\x01\0\0\0\x01\0\0\0kv\0\x01\0\0\0d");
        assert_eq!(bytes[..bytes.len() - 4], wanted);
        assert_eq!(JournalObject::decode(&bytes), Ok(object));
    }

    proptest! {
        #[test]
        fn objects_round_trip(object in object()) {
            prop_assert_eq!(JournalObject::decode(&object.encode()), Ok(object));
        }

        #[test]
        fn any_damage_is_seen(object in object(), at: prop::sample::Index, mask in 1..=u8::MAX) {
            let bytes = object.encode();
            let mut damaged = bytes.to_vec();
            let at = at.index(damaged.len());
            damaged[at] ^= mask;
            prop_assert!(JournalObject::decode(&damaged).is_err());
            prop_assert!(JournalObject::decode(&bytes[..at]).is_err());
        }

        /// A right checksum makes nothing of the rest right.
        #[test]
        fn arbitrary_bytes_never_panic(
            head in proptest::option::of(any::<[u8; 54]>()), rest in vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = b"SLJOURNL\x01\0".to_vec();
            bytes.extend(head.iter().flatten());
            bytes.extend(rest);
            let crc = crc32c(&bytes);
            bytes.extend(crc.to_le_bytes());
            let _ = JournalObject::decode(&bytes);
        }
    }
}
