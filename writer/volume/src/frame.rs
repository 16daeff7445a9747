//! The header of a frame on disk. Pure. The byte diagram and why each field is there are in
//! `docs/formats.md`, section "Volume". All numbers are little-endian.

use crate::geometry::BLOCK_BYTES;

/// The header's length, in bytes. It lies within one 512-byte sector.
pub(crate) const HEADER_BYTES: usize = 64;

/// The largest payload of a frame: 8 MiB, header and padding not counted.
pub const MAX_PAYLOAD_BYTES: usize = 8 << 20;

const MAGIC: [u8; 4] = *b"SLfr";
const VERSION: u16 = 1;
/// The only kind there is: opaque data.
const KIND_DATA: u16 = 1;

/// The first 12 bytes of a volume's uuid: enough to tell its frames from those of another volume that
/// had the same blocks before.
pub(crate) type Seed = [u8; 12];

/// What a frame says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    /// Where the frame begins.
    pub(crate) lsn: u64,
    /// Where the frame before it ended: `lsn`, or less if the rest of a lap was left out.
    pub(crate) prev_end: u64,
    /// Up to where the log was durable when this frame was appended.
    pub(crate) durable: u64,
    /// Under which volume epoch it was appended.
    pub(crate) epoch: u32,
    pub(crate) seed: Seed,
}

/// Why bytes are not a frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAHeader {
    /// Nothing, torn, damaged, or another volume's.
    Invalid,
    /// Whole, ours, and of a version or kind that this release does not know.
    Unsupported(u16),
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&VERSION.to_le_bytes());
        out[6..8].copy_from_slice(&KIND_DATA.to_le_bytes());
        out[8..12].copy_from_slice(&self.payload_len.to_le_bytes());
        out[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[16..24].copy_from_slice(&self.lsn.to_le_bytes());
        out[24..32].copy_from_slice(&self.prev_end.to_le_bytes());
        out[32..40].copy_from_slice(&self.durable.to_le_bytes());
        out[40..44].copy_from_slice(&self.epoch.to_le_bytes());
        // 44..48 is reserved and zero.
        out[48..60].copy_from_slice(&self.seed);
        let crc = crc32c(&out[..60]);
        out[60..64].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Parses the first 64 of `bytes` as a header of the volume with this seed.
    pub(crate) fn decode(bytes: &[u8], seed: &Seed) -> Result<Self, NotAHeader> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(NotAHeader::Invalid);
        };
        // The magic first: it is all that a search over empty blocks has to look at.
        if bytes[..4] != MAGIC
            || bytes[48..60] != *seed
            || crc32c(&bytes[..60]).to_le_bytes() != bytes[60..64]
        {
            return Err(NotAHeader::Invalid);
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if version != VERSION || u16::from_le_bytes([bytes[6], bytes[7]]) != KIND_DATA {
            return Err(NotAHeader::Unsupported(version));
        }
        let header = Self {
            payload_len: u32_at(bytes, 8),
            payload_crc: u32_at(bytes, 12),
            lsn: u64_at(bytes, 16),
            prev_end: u64_at(bytes, 24),
            durable: u64_at(bytes, 32),
            epoch: u32_at(bytes, 40),
            seed: *seed,
        };
        let sound = header.payload_len as usize <= MAX_PAYLOAD_BYTES
            && header.lsn.is_multiple_of(BLOCK_BYTES)
            && header.durable <= header.prev_end
            && header.prev_end <= header.lsn;
        if sound { Ok(header) } else { Err(NotAHeader::Invalid) }
    }
}

/// CRC32C (Castagnoli), the checksum of everything on a volume.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The little-endian number at `at`, which the caller knows to lie within.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// The little-endian number at `at`, which the caller knows to lie within.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEED: Seed = [9; 12];

    fn header() -> FrameHeader {
        FrameHeader {
            payload_len: 5,
            payload_crc: 0xdead_beef,
            lsn: 8192,
            prev_end: 4096,
            durable: 4096,
            epoch: 3,
            seed: SEED,
        }
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32/ISCSI");
        let bytes = header().encode();
        assert_eq!(bytes[..16], *b"SLfr\x01\0\x01\0\x05\0\0\0\xef\xbe\xad\xde");
        assert_eq!(
            bytes[16..40],
            [0, 32, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(bytes[40..48], [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(FrameHeader::decode(&bytes, &SEED), Ok(header()));
    }

    #[test]
    fn each_flipped_bit_is_seen() {
        let bytes = header().encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(FrameHeader::decode(&flipped, &SEED), Err(NotAHeader::Invalid), "bit {bit}");
        }
    }

    #[test]
    fn another_volume_and_a_later_version_are_told_apart() {
        let bytes = header().encode();
        assert_eq!(FrameHeader::decode(&bytes, &[8; 12]), Err(NotAHeader::Invalid));
        let mut later = bytes;
        later[4] = 2;
        let crc = crc32c(&later[..60]);
        later[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(FrameHeader::decode(&later, &SEED), Err(NotAHeader::Unsupported(2)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = FrameHeader::decode(&bytes, &SEED);
        }
    }
}
