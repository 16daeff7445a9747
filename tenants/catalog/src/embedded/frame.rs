//! The bytes of the embedded store's one file: pure.
//!
//! ```text
//! file    := header frame*
//! header  (32 bytes)
//!   0  magic      8  "SLUICECT"
//!   8  version    4  u32, 1
//!  12  crc        4  CRC32C of bytes 0..12 and 16..32
//!  16  nonce      8  u64, random, another in each file
//!  24  base_len   8  u64: the file's length when it was put in place
//! frame
//!   0  magic      4  "SLFR"
//!   4  length     4  u32, of the payload
//!   8  crc        4  CRC32C of nonce, length and payload
//!  12  payload    records, back to back
//! record  := kind u8, fields          integers little-endian; text and bytes: u32 length, content
//!   1 base   revision u64, last lease i64        the first record of each file, and only there
//!   2 grant  lease i64, ttl_ms u64
//!   3 end    lease i64
//!   4 entry  key, value, revision u64, lease i64 (0: none)
//!   5 txn    revision u64, count u32, then per op: key, put u8; if 1: value, lease i64 (0: none)
//! ```
//!
//! One frame is one write: a torn write damages one frame, which is the last. Below `base_len` the file
//! was whole before it got its name. So a damaged frame is a torn write only if it begins at or after
//! `base_len` and nothing valid follows; all else is damage to what was acknowledged. A torn write
//! cannot be told from later damage to the very last frame. The nonce keeps the blocks of another file
//! from being taken for frames of this one.
//!
//! *Rule for change:* any change that an older version would misread takes a new version number, which
//! older versions refuse. There are no unknown record kinds within a version.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use crate::store::{Entry, LeaseId, Op, Revision};

pub(super) const HEADER_LEN: usize = 32;
const FRAME_HEADER_LEN: usize = 12;
const FILE_MAGIC: &[u8; 8] = b"SLUICECT";
const FRAME_MAGIC: &[u8; 4] = b"SLFR";
const VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) nonce: u64,
    pub(super) base_len: u64,
}

/// A step of the state. All that is in one frame is made together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Base { revision: Revision, last_lease: LeaseId },
    Grant { lease: LeaseId, ttl_ms: u64 },
    End { lease: LeaseId },
    Entry(Entry),
    Txn { revision: Revision, ops: Vec<Op> },
}

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// Written by a version that is newer.
    Version(u32),
    Bytes(&'static str),
}

impl Header {
    pub(super) fn encode(self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(FILE_MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.nonce.to_le_bytes());
        out[24..].copy_from_slice(&self.base_len.to_le_bytes());
        let crc = checksum(&[&out[..12], &out[16..]]);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(super) fn decode(file: &[u8]) -> Result<Self, Damage> {
        let header = file.get(..HEADER_LEN).ok_or(Damage::Bytes("the file has no whole header"))?;
        let mut input = Input(&header[8..]);
        let version = input.u32()?;
        let crc = input.u32()?;
        if header[..8] != *FILE_MAGIC || crc != checksum(&[&header[..12], &header[16..]]) {
            return Err(Damage::Bytes("the file's header is damaged"));
        }
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        Ok(Self { nonce: input.u64()?, base_len: input.u64()? })
    }
}

/// Appends one frame.
pub(super) fn encode_frame(nonce: u64, records: &[Record], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_LEN]);
    for record in records {
        encode_record(record, out);
    }
    let length = u32::try_from(out.len() - start - FRAME_HEADER_LEN)
        .expect("frames are built from bounded transactions");
    let crc = frame_checksum(nonce, length, &out[start + FRAME_HEADER_LEN..]);
    let header = &mut out[start..start + FRAME_HEADER_LEN];
    header[..4].copy_from_slice(FRAME_MAGIC);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..].copy_from_slice(&crc.to_le_bytes());
}

/// The records of the frame at the beginning of `bytes`, and the frame's length. `None` if there is no
/// valid frame.
pub(super) fn decode_frame(
    nonce: u64,
    bytes: &[u8],
) -> Option<(Result<Vec<Record>, Damage>, usize)> {
    let header = bytes.get(..FRAME_HEADER_LEN)?;
    let mut input = Input(&header[4..]);
    let (length, crc) = (input.u32().ok()?, input.u32().ok()?);
    let end = FRAME_HEADER_LEN.checked_add(length as usize)?;
    let payload = bytes.get(FRAME_HEADER_LEN..end)?;
    if header[..4] != *FRAME_MAGIC || crc != frame_checksum(nonce, length, payload) {
        return None;
    }
    let mut input = Input(payload);
    let mut records = Vec::new();
    while !input.0.is_empty() {
        match decode_record(&mut input) {
            Ok(record) => records.push(record),
            Err(damage) => return Some((Err(damage), end)),
        }
    }
    Some((Ok(records), end))
}

/// Whether a valid frame begins anywhere in `bytes`.
pub(super) fn any_frame(nonce: u64, bytes: &[u8]) -> bool {
    let begins = |at: &usize| bytes[*at..].starts_with(FRAME_MAGIC);
    (0..bytes.len()).filter(begins).any(|at| decode_frame(nonce, &bytes[at..]).is_some())
}

fn encode_record(record: &Record, out: &mut Vec<u8>) {
    let long = |out: &mut Vec<u8>, value: u64| out.extend_from_slice(&value.to_le_bytes());
    let lease = |out: &mut Vec<u8>, lease: Option<LeaseId>| {
        out.extend_from_slice(&lease.map_or(0, |lease| lease.0).to_le_bytes());
    };
    let text = |out: &mut Vec<u8>, value: &[u8]| {
        let length = u32::try_from(value.len()).expect("keys and values are bounded");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(value);
    };
    match record {
        Record::Base { revision, last_lease } => {
            out.push(1);
            long(out, revision.0);
            lease(out, Some(*last_lease));
        }
        Record::Grant { lease: id, ttl_ms } => {
            out.push(2);
            lease(out, Some(*id));
            long(out, *ttl_ms);
        }
        Record::End { lease: id } => {
            out.push(3);
            lease(out, Some(*id));
        }
        Record::Entry(entry) => {
            out.push(4);
            text(out, entry.key.as_bytes());
            text(out, &entry.value);
            long(out, entry.mod_revision.0);
            lease(out, entry.lease);
        }
        Record::Txn { revision, ops } => {
            out.push(5);
            long(out, revision.0);
            let count = u32::try_from(ops.len()).expect("operations are bounded");
            out.extend_from_slice(&count.to_le_bytes());
            for op in ops {
                text(out, op.key().as_bytes());
                match op {
                    Op::Delete { .. } => out.push(0),
                    Op::Put { value, lease: id, .. } => {
                        out.push(1);
                        text(out, value);
                        lease(out, *id);
                    }
                }
            }
        }
    }
}

fn decode_record(input: &mut Input<'_>) -> Result<Record, Damage> {
    Ok(match input.u8()? {
        1 => Record::Base { revision: Revision(input.u64()?), last_lease: LeaseId(input.i64()?) },
        2 => Record::Grant { lease: LeaseId(input.i64()?), ttl_ms: input.u64()? },
        3 => Record::End { lease: LeaseId(input.i64()?) },
        4 => Record::Entry(Entry {
            key: input.key()?,
            value: input.bytes()?,
            mod_revision: Revision(input.u64()?),
            lease: input.lease()?,
        }),
        5 => {
            let revision = Revision(input.u64()?);
            let count = input.u32()?;
            let mut ops = Vec::new();
            for _ in 0..count {
                let key = input.key()?;
                ops.push(match input.u8()? {
                    0 => Op::Delete { key },
                    _ => Op::Put { key, value: input.bytes()?, lease: input.lease()? },
                });
            }
            Record::Txn { revision, ops }
        }
        _ => return Err(Damage::Bytes("a record has an unknown kind")),
    })
}

fn frame_checksum(nonce: u64, length: u32, payload: &[u8]) -> u32 {
    checksum(&[&nonce.to_le_bytes(), &length.to_le_bytes(), payload])
}

fn checksum(parts: &[&[u8]]) -> u32 {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    digest.finalize() as u32
}

/// What is left to decode.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Damage> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(Damage::Bytes("a record is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.array().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Result<i64, Damage> {
        self.array().map(i64::from_le_bytes)
    }

    fn lease(&mut self) -> Result<Option<LeaseId>, Damage> {
        Ok(Some(LeaseId(self.i64()?)).filter(|lease| lease.0 != 0))
    }

    fn bytes(&mut self) -> Result<Bytes, Damage> {
        let length = self.u32()? as usize;
        Ok(Bytes::copy_from_slice(self.take(length)?))
    }

    fn key(&mut self) -> Result<String, Damage> {
        let length = self.u32()? as usize;
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| Damage::Bytes("a key is not text"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn records() -> impl Strategy<Value = Record> {
        let lease = || prop::option::of((1..99i64).prop_map(LeaseId));
        let value = || vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let op = prop_oneof![
            "[a-z/]{1,9}".prop_map(|key| Op::Delete { key }),
            ("[a-z/]{1,9}", value(), lease()).prop_map(|(key, value, lease)| Op::Put {
                key,
                value,
                lease
            }),
        ];
        prop_oneof![
            any::<(u64, i64)>().prop_map(|(revision, lease)| Record::Base {
                revision: Revision(revision),
                last_lease: LeaseId(lease)
            }),
            any::<(i64, u64)>()
                .prop_map(|(lease, ttl_ms)| Record::Grant { lease: LeaseId(lease), ttl_ms }),
            any::<i64>().prop_map(|lease| Record::End { lease: LeaseId(lease) }),
            ("[a-z/]{1,9}", value(), any::<u64>(), lease()).prop_map(
                |(key, value, revision, lease)| Record::Entry(Entry {
                    key,
                    value,
                    mod_revision: Revision(revision),
                    lease
                })
            ),
            (any::<u64>(), vec(op, 0..5))
                .prop_map(|(revision, ops)| Record::Txn { revision: Revision(revision), ops }),
        ]
    }

    proptest! {
        #[test]
        fn frames_round_trip(nonce: u64, records in vec(records(), 0..6), after in vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            encode_frame(nonce, &records, &mut bytes);
            let length = bytes.len();
            bytes.extend(after);
            prop_assert_eq!(decode_frame(nonce, &bytes), Some((Ok(records), length)));
            prop_assert_eq!(decode_frame(nonce ^ 1, &bytes), None);
        }

        #[test]
        fn arbitrary_bytes_never_panic(nonce: u64, bytes in vec(any::<u8>(), 0..200)) {
            let _ = Header::decode(&bytes);
            let _ = decode_frame(nonce, &bytes);
            let _ = decode_record(&mut Input(&bytes));
        }
    }

    #[test]
    fn headers_round_trip_and_are_guarded() {
        let header = Header { nonce: 0x0123_4567_89ab_cdef, base_len: 77 };
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes), Ok(header));
        for at in 0..HEADER_LEN {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert!(Header::decode(&damaged).is_err(), "byte {at}");
        }
        let mut newer = bytes;
        newer[8] = 2;
        let crc = checksum(&[&newer[..12], &newer[16..]]);
        newer[12..16].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&newer), Err(Damage::Version(2)));
    }
}
