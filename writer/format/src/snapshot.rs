//! Coordinator snapshots: the key-value pairs of a volume's coordinators as of an offset of their log.
//!
//! ```text
//! 0   magic "SLSNAPSH" | format version u16 | zero u16 | count u32
//! 16  count * (key length u32, value length u32, key, value), then crc u32 over all before it
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::cursor::Cursor;
use crate::segment::checked;
use crate::{FormatError, crc32c};

const MAGIC: &[u8; 8] = b"SLSNAPSH";
const VERSION: u16 = 1;
const WHAT: &str = "coordinator snapshot";

/// Builds a snapshot.
#[derive(Debug)]
pub struct SnapshotBuilder {
    out: BytesMut,
    count: u32,
}

impl Default for SnapshotBuilder {
    fn default() -> Self {
        let mut out = BytesMut::with_capacity(4096);
        out.put_slice(MAGIC);
        out.put_u16_le(VERSION);
        out.put_u16_le(0);
        out.put_u32_le(0);
        Self { out, count: 0 }
    }
}

impl SnapshotBuilder {
    /// Adds a pair.
    pub fn push(&mut self, key: &[u8], value: &[u8]) {
        self.out.put_u32_le(key.len() as u32);
        self.out.put_u32_le(value.len() as u32);
        self.out.put_slice(key);
        self.out.put_slice(value);
        self.count += 1;
    }

    /// The object's bytes.
    pub fn finish(mut self) -> Bytes {
        self.out[12..16].copy_from_slice(&self.count.to_le_bytes());
        self.out.put_u32_le(crc32c(&self.out));
        self.out.freeze()
    }
}

/// A key and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// Reads a snapshot's pairs.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<Pair<'_>>, FormatError> {
    let mut head = Cursor::new(bytes, WHAT);
    if head.array::<8>()? != *MAGIC {
        return Err(FormatError::Magic { what: WHAT });
    }
    let version = head.u16()?;
    if version != VERSION {
        return Err(FormatError::Version { what: WHAT, found: version, newest: VERSION });
    }
    let mut cursor = Cursor::new(&checked(bytes, WHAT)?[12..], WHAT);
    let count = cursor.count(8)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (key, value) = (cursor.u32()? as usize, cursor.u32()? as usize);
        pairs.push((cursor.take(key)?, cursor.take(value)?));
    }
    cursor.finish()?;
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_round_trip_and_damage_is_seen() {
        let mut builder = SnapshotBuilder::default();
        builder.push(b"a", b"1");
        builder.push(b"", &[7; 300]);
        let bytes = builder.finish();
        assert_eq!(decode_snapshot(&bytes), Ok(vec![(&b"a"[..], &b"1"[..]), (b"", &[7; 300])]));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x40;
            assert!(decode_snapshot(&damaged).is_err(), "byte {at}");
            assert!(decode_snapshot(&bytes[..at]).is_err(), "cut at {at}");
        }
    }
}
