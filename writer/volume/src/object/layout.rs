//! The bytes and names of an object volume's objects. Pure. Diagrams, and why each field is there, are in
//! `docs/formats.md`, section "Object volume". All numbers are little-endian.

use sluice_model::{VolumeEpoch, VolumeId};

use crate::frame::{crc32c, u32_at, u64_at};

/// What a data object begins with; frames follow, back to back, not padded.
pub(super) const HEADER_BYTES: usize = 128;
/// A seal's whole length. No other object of the log has it, so that a listing tells seals from the rest.
pub(super) const SEAL_BYTES: usize = 96;
/// The length of the object that says what the volume is.
pub(super) const DESCRIPTOR_BYTES: usize = 64;

const OBJECT_MAGIC: [u8; 8] = *b"SLWALOBJ";
const SEAL_MAGIC: [u8; 8] = *b"SLWALEND";
const DESCRIPTOR_MAGIC: [u8; 8] = *b"SLWALVOL";
const VERSION: u16 = 1;

/// Who made an object, and where in the chain it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) id: VolumeId,
    pub(super) uuid: [u8; 16],
    /// The epoch that the object's name begins with.
    pub(super) epoch: VolumeEpoch,
    /// The position in the object's name. Positions go on across epochs.
    pub(super) position: u64,
    /// That epoch's first position: the seal of the epoch before lies right before it.
    pub(super) start: u64,
    /// The epoch before it in the chain.
    pub(super) previous: VolumeEpoch,
}

/// Where the log begins, as an object tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TrimState {
    /// The trim point.
    pub(super) lsn: u64,
    /// The first position that is still needed.
    pub(super) position: u64,
    /// The owner's number.
    pub(super) hint: u64,
}

/// The head of an object of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) link: Link,
    /// All positions before this one held objects of the log when this one was made.
    pub(super) durable: u64,
    /// Where the log ended before this object.
    pub(super) first: u64,
    /// Where it ends with it.
    pub(super) end: u64,
    pub(super) trim: TrimState,
    pub(super) frames: u32,
    pub(super) body_bytes: u32,
    /// Over the frames' headers, which cover their payloads.
    pub(super) frames_crc: u32,
}

/// The end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) link: Link,
    /// The epoch that goes on behind it.
    pub(super) next: VolumeEpoch,
    /// Random: tells the opener who put it.
    pub(super) nonce: [u8; 16],
}

/// What lies at a position of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Object(Header),
    Seal(Seal),
}

/// What a volume is, once and for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) id: VolumeId,
    pub(super) uuid: [u8; 16],
    pub(super) size_bytes: u64,
}

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undecodable {
    /// Foreign or damaged.
    Invalid,
    /// Whole, and of a version that this release does not know.
    Unsupported(u16),
}

impl Link {
    pub(super) fn name(&self) -> String {
        name(self.epoch, self.position)
    }

    fn encode(&self, magic: [u8; 8], out: &mut [u8]) {
        out[0..8].copy_from_slice(&magic);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.id.0.to_le_bytes());
        out[16..32].copy_from_slice(&self.uuid);
        out[32..36].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[36..40].copy_from_slice(&self.previous.0.to_le_bytes());
        out[40..48].copy_from_slice(&self.position.to_le_bytes());
        out[48..56].copy_from_slice(&self.start.to_le_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        Self {
            id: VolumeId(u32_at(bytes, 12)),
            uuid,
            epoch: VolumeEpoch(u32_at(bytes, 32)),
            previous: VolumeEpoch(u32_at(bytes, 36)),
            position: u64_at(bytes, 40),
            start: u64_at(bytes, 48),
        }
    }
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        self.link.encode(OBJECT_MAGIC, &mut out);
        out[56..64].copy_from_slice(&self.durable.to_le_bytes());
        out[64..72].copy_from_slice(&self.first.to_le_bytes());
        out[72..80].copy_from_slice(&self.end.to_le_bytes());
        out[80..88].copy_from_slice(&self.trim.lsn.to_le_bytes());
        out[88..96].copy_from_slice(&self.trim.position.to_le_bytes());
        out[96..104].copy_from_slice(&self.trim.hint.to_le_bytes());
        out[104..108].copy_from_slice(&self.frames.to_le_bytes());
        out[108..112].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[112..116].copy_from_slice(&self.frames_crc.to_le_bytes());
        close(&mut out);
        out
    }
}

impl Seal {
    pub(super) fn encode(&self) -> [u8; SEAL_BYTES] {
        let mut out = [0; SEAL_BYTES];
        self.link.encode(SEAL_MAGIC, &mut out);
        out[56..60].copy_from_slice(&self.next.0.to_le_bytes());
        out[64..80].copy_from_slice(&self.nonce);
        close(&mut out);
        out
    }
}

impl Entry {
    pub(super) fn link(&self) -> &Link {
        match self {
            Self::Object(header) => &header.link,
            Self::Seal(seal) => &seal.link,
        }
    }

    /// Parses the beginning of an object of the log, of which `bytes` are the first [`HEADER_BYTES`], or
    /// all if it is shorter.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        match bytes.first_chunk::<8>() {
            Some(&SEAL_MAGIC) if bytes.len() == SEAL_BYTES => {
                check(bytes)?;
                let mut nonce = [0; 16];
                nonce.copy_from_slice(&bytes[64..80]);
                let next = VolumeEpoch(u32_at(bytes, 56));
                Ok(Self::Seal(Seal { link: Link::decode(bytes), next, nonce }))
            }
            Some(&OBJECT_MAGIC) if bytes.len() >= HEADER_BYTES => {
                let bytes = &bytes[..HEADER_BYTES];
                check(bytes)?;
                let header = Header {
                    link: Link::decode(bytes),
                    durable: u64_at(bytes, 56),
                    first: u64_at(bytes, 64),
                    end: u64_at(bytes, 72),
                    trim: TrimState {
                        lsn: u64_at(bytes, 80),
                        position: u64_at(bytes, 88),
                        hint: u64_at(bytes, 96),
                    },
                    frames: u32_at(bytes, 104),
                    body_bytes: u32_at(bytes, 108),
                    frames_crc: u32_at(bytes, 112),
                };
                let position = header.link.position;
                let sound = header.first <= header.end
                    && header.trim.lsn <= header.first
                    && header.trim.position <= position
                    && header.durable <= position
                    && header.link.start <= position;
                if sound { Ok(Self::Object(header)) } else { Err(Undecodable::Invalid) }
            }
            _ => Err(Undecodable::Invalid),
        }
    }
}

impl Descriptor {
    pub(super) fn encode(&self) -> [u8; DESCRIPTOR_BYTES] {
        let mut out = [0; DESCRIPTOR_BYTES];
        out[0..8].copy_from_slice(&DESCRIPTOR_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.id.0.to_le_bytes());
        out[16..32].copy_from_slice(&self.uuid);
        out[32..40].copy_from_slice(&self.size_bytes.to_le_bytes());
        close(&mut out);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        if bytes.len() != DESCRIPTOR_BYTES || bytes[..8] != DESCRIPTOR_MAGIC {
            return Err(Undecodable::Invalid);
        }
        check(bytes)?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        let id = VolumeId(u32_at(bytes, 12));
        Ok(Self { id, uuid, size_bytes: u64_at(bytes, 32) })
    }
}

/// The last part of an object's key. Fixed width, so that a person sees the log in order.
pub(super) fn name(epoch: VolumeEpoch, position: u64) -> String {
    format!("{:010}-{position:020}", epoch.0)
}

/// Epoch and position in an object's name; none for a foreign one.
pub(super) fn parse_name(name: &str) -> Option<(VolumeEpoch, u64)> {
    let (epoch, position) = name.split_once('-')?;
    let digits = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
    (digits(epoch, 10) && digits(position, 20))
        .then(|| Some((VolumeEpoch(epoch.parse().ok()?), position.parse().ok()?)))?
}

/// Puts the checksum of all before it into the last four bytes.
fn close(out: &mut [u8]) {
    let end = out.len() - 4;
    let crc = crc32c(&out[..end]);
    out[end..].copy_from_slice(&crc.to_le_bytes());
}

/// Checks the last four bytes, and the version.
fn check(bytes: &[u8]) -> Result<(), Undecodable> {
    let end = bytes.len() - 4;
    if crc32c(&bytes[..end]).to_le_bytes() != bytes[end..] {
        return Err(Undecodable::Invalid);
    }
    match u16::from_le_bytes([bytes[8], bytes[9]]) {
        VERSION => Ok(()),
        version => Err(Undecodable::Unsupported(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link() -> Link {
        Link {
            id: VolumeId(7),
            uuid: [9; 16],
            epoch: VolumeEpoch(3),
            position: 12,
            start: 10,
            previous: VolumeEpoch(1),
        }
    }

    fn header() -> Header {
        Header {
            link: link(),
            durable: 11,
            first: 8192,
            end: 16_384,
            trim: TrimState { lsn: 4096, position: 9, hint: 77 },
            frames: 2,
            body_bytes: 5000,
            frames_crc: 0xdead_beef,
        }
    }

    #[test]
    fn golden_bytes() {
        let object = header().encode();
        assert_eq!(object[..16], *b"SLWALOBJ\x01\0\0\0\x07\0\0\0");
        assert_eq!(object[32..40], [3, 0, 0, 0, 1, 0, 0, 0]);
        let numbers: Vec<u64> = (5..13).map(|at| u64_at(&object, at * 8)).collect();
        assert_eq!(numbers, [12, 10, 11, 8192, 16_384, 4096, 9, 77]);
        assert_eq!(object[104..120], *b"\x02\0\0\0\x88\x13\0\0\xef\xbe\xad\xde\0\0\0\0");
        assert_eq!(Entry::decode(&object), Ok(Entry::Object(header())));
        let seal = Seal { link: link(), next: VolumeEpoch(5), nonce: [4; 16] };
        let bytes = seal.encode();
        assert_eq!(bytes[..10], *b"SLWALEND\x01\0");
        assert_eq!(bytes[56..64], [5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Entry::decode(&bytes), Ok(Entry::Seal(seal)));
        let descriptor = Descriptor { id: VolumeId(7), uuid: [9; 16], size_bytes: 1 << 30 };
        let bytes = descriptor.encode();
        assert_eq!(bytes[..16], *b"SLWALVOL\x01\0\0\0\x07\0\0\0");
        assert_eq!(bytes[32..40], (1_u64 << 30).to_le_bytes());
        assert_eq!(Descriptor::decode(&bytes), Ok(descriptor));
    }

    #[test]
    fn each_flipped_bit_is_seen() {
        let seal = Seal { link: link(), next: VolumeEpoch(5), nonce: [4; 16] };
        for whole in [header().encode().to_vec(), seal.encode().to_vec()] {
            for bit in 0..whole.len() * 8 {
                let mut flipped = whole.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Entry::decode(&flipped), Err(Undecodable::Invalid), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_later_version_is_told_apart() {
        let mut later = header().encode();
        later[8] = 2;
        close(&mut later);
        assert_eq!(Entry::decode(&later), Err(Undecodable::Unsupported(2)));
    }

    #[test]
    fn names_are_stable_and_foreign_ones_are_none() {
        assert_eq!(link().name(), "0000000003-00000000000000000012");
        assert_eq!(parse_name(&link().name()), Some((VolumeEpoch(3), 12)));
        for foreign in [
            "",
            "volume",
            "3-12",
            "0000000003-0000000000000000001x",
            "9999999999-00000000000000000012",
        ] {
            assert_eq!(parse_name(foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), which in 0..4_usize) {
            let magics = [OBJECT_MAGIC, SEAL_MAGIC, DESCRIPTOR_MAGIC];
            if let (Some(magic), Some(start)) = (magics.get(which), bytes.get_mut(..8)) {
                start.copy_from_slice(magic);
            }
            let _ = Entry::decode(&bytes);
            let _ = Descriptor::decode(&bytes);
        }
    }
}
