//! The superblock: what a volume is, who may write it, and where its log begins. Pure. There are two
//! slots, written in turn; the whole one with the larger counter is current. The byte diagram and the
//! argument for each field are in `docs/formats.md`, section "Volume".

use sluice_model::{VolumeEpoch, VolumeId};

use crate::buffer::AlignedBuf;
use crate::error::OpenError;
use crate::frame::{Seed, crc32c, u32_at, u64_at};
use crate::geometry::{BLOCK, BLOCK_BYTES, Geometry};
use crate::volume::Lsn;

/// Where the two slots begin on the device. They lie apart, so that one damaged stretch spares one.
pub(crate) const SLOT_OFFSETS: [u64; 2] = [0, 32 * 1024];

const MAGIC: [u8; 8] = *b"SLUICEwl";
const VERSION: u32 = 1;
const CRC_AT: usize = BLOCK - 4;
const FLAG_CLEAN: u32 = 1;

/// What a superblock says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Grows by one with each slot that is written; its lowest bit is the slot.
    pub(crate) counter: u64,
    pub(crate) uuid: [u8; 16],
    pub(crate) id: VolumeId,
    pub(crate) geometry: Geometry,
    /// The largest epoch under which the volume was opened.
    pub(crate) epoch: VolumeEpoch,
    /// The last epoch under which frames could be written: `epoch`, or an earlier one while the owner
    /// of `epoch` has not finished its recovery.
    pub(crate) log_epoch: VolumeEpoch,
    /// Where `log_epoch` began to write. Frames before it are of earlier epochs, frames from here on
    /// of this one.
    pub(crate) log_start: u64,
    pub(crate) trim: u64,
    /// The log is durable up to here at least.
    pub(crate) durable: u64,
    /// Closed in order: the log ends exactly at `durable`.
    pub(crate) clean: bool,
    /// The owner's own number, stored with the trim point.
    pub(crate) hint: u64,
}

/// Why a block is not a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotASuperblock {
    Invalid,
    Unsupported(u32),
}

impl NotASuperblock {
    /// Why what has no superblock is not opened.
    pub(crate) fn refusal(self) -> OpenError {
        match self {
            Self::Invalid => OpenError::Damaged,
            Self::Unsupported(version) => OpenError::Unsupported(version),
        }
    }
}

impl Superblock {
    /// Whether volume `id` may be opened here under `epoch`.
    pub(crate) fn admit(&self, id: VolumeId, epoch: VolumeEpoch) -> Result<(), OpenError> {
        if self.id != id {
            return Err(OpenError::WrongVolume { found: self.id, wanted: id });
        }
        if epoch <= self.epoch {
            return Err(OpenError::Fenced { stored: self.epoch });
        }
        Ok(())
    }

    /// The superblock of a volume that no one has opened yet.
    pub(crate) fn new(id: VolumeId, uuid: [u8; 16], geometry: Geometry) -> Self {
        Self {
            counter: 0,
            uuid,
            id,
            geometry,
            epoch: VolumeEpoch(0),
            log_epoch: VolumeEpoch(0),
            log_start: 0,
            trim: 0,
            durable: 0,
            clean: true,
            hint: 0,
        }
    }

    /// The same, with an empty log that begins elsewhere than at 0.
    #[must_use]
    pub(crate) fn beginning_at(self, lsn: Lsn) -> Self {
        let at = lsn.0 - lsn.0 % BLOCK_BYTES;
        Self { log_start: at, trim: at, durable: at, ..self }
    }

    /// What marks this volume's frames.
    pub(crate) fn seed(&self) -> Seed {
        let mut seed = [0; 12];
        seed.copy_from_slice(&self.uuid[..12]);
        seed
    }

    /// Where this superblock belongs on the device.
    pub(crate) fn offset(&self) -> u64 {
        SLOT_OFFSETS[usize::from(self.counter % 2 == 1)]
    }

    /// One block, aligned for the device.
    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut block = AlignedBuf::zeroed(BLOCK);
        let out = block.as_mut();
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(BLOCK as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.counter.to_le_bytes());
        out[24..40].copy_from_slice(&self.uuid);
        out[40..44].copy_from_slice(&self.id.0.to_le_bytes());
        out[44..48].copy_from_slice(&self.epoch.0.to_le_bytes());
        out[48..52].copy_from_slice(&self.log_epoch.0.to_le_bytes());
        out[52..56].copy_from_slice(&(u32::from(self.clean) * FLAG_CLEAN).to_le_bytes());
        out[56..64].copy_from_slice(&self.log_start.to_le_bytes());
        out[64..72].copy_from_slice(&self.trim.to_le_bytes());
        out[72..80].copy_from_slice(&self.durable.to_le_bytes());
        out[80..88].copy_from_slice(&self.hint.to_le_bytes());
        out[88..96].copy_from_slice(&self.geometry.device_bytes.to_le_bytes());
        out[96..104].copy_from_slice(&self.geometry.ring_offset.to_le_bytes());
        out[104..112].copy_from_slice(&self.geometry.ring_bytes.to_le_bytes());
        out[112..120].copy_from_slice(&self.geometry.window_bytes.to_le_bytes());
        let crc = crc32c(&out[..CRC_AT]);
        out[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        block
    }

    /// Parses one block.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, NotASuperblock> {
        let Some(block) = bytes.first_chunk::<BLOCK>() else {
            return Err(NotASuperblock::Invalid);
        };
        if block[..8] != MAGIC || crc32c(&block[..CRC_AT]) != u32_at(block, CRC_AT) {
            return Err(NotASuperblock::Invalid);
        }
        let version = u32_at(block, 8);
        if version != VERSION || u32_at(block, 12) != BLOCK as u32 {
            return Err(NotASuperblock::Unsupported(version));
        }
        let flags = u32_at(block, 52);
        if flags & !FLAG_CLEAN != 0 {
            return Err(NotASuperblock::Unsupported(version));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&block[24..40]);
        let found = Self {
            counter: u64_at(block, 16),
            uuid,
            id: VolumeId(u32_at(block, 40)),
            epoch: VolumeEpoch(u32_at(block, 44)),
            log_epoch: VolumeEpoch(u32_at(block, 48)),
            clean: flags & FLAG_CLEAN != 0,
            log_start: u64_at(block, 56),
            trim: u64_at(block, 64),
            durable: u64_at(block, 72),
            hint: u64_at(block, 80),
            geometry: Geometry {
                device_bytes: u64_at(block, 88),
                ring_offset: u64_at(block, 96),
                ring_bytes: u64_at(block, 104),
                window_bytes: u64_at(block, 112),
            },
        };
        if found.is_sound() { Ok(found) } else { Err(NotASuperblock::Invalid) }
    }

    /// What holds in every superblock; a violation would be a bug of the writer of it, since the
    /// checksum is right.
    fn is_sound(&self) -> bool {
        self.geometry.is_sound()
            && self.log_epoch <= self.epoch
            && self.log_start <= self.durable
            && self.trim <= self.durable
            && self.durable - self.trim <= self.geometry.ring_bytes
            && self.trim.is_multiple_of(BLOCK_BYTES)
            && self.durable.is_multiple_of(BLOCK_BYTES)
            && self.log_start.is_multiple_of(BLOCK_BYTES)
    }

    /// The current one of two slots as they were read.
    pub(crate) fn choose(slots: [&[u8]; 2]) -> Result<Self, NotASuperblock> {
        match slots.map(Self::decode) {
            [Ok(a), Ok(b)] => Ok(if a.counter > b.counter { a } else { b }),
            // A later release may have upgraded one slot when it was interrupted: do not go behind it.
            [Err(NotASuperblock::Unsupported(version)), _]
            | [_, Err(NotASuperblock::Unsupported(version))] => {
                Err(NotASuperblock::Unsupported(version))
            }
            [Ok(found), Err(NotASuperblock::Invalid)]
            | [Err(NotASuperblock::Invalid), Ok(found)] => Ok(found),
            [Err(NotASuperblock::Invalid), Err(NotASuperblock::Invalid)] => {
                Err(NotASuperblock::Invalid)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn superblock(counter: u64) -> Superblock {
        let geometry = Geometry::new(1 << 20, 1 << 18).unwrap();
        Superblock {
            counter,
            epoch: VolumeEpoch(7),
            log_epoch: VolumeEpoch(6),
            log_start: 8192,
            trim: 4096,
            durable: 16_384,
            clean: false,
            hint: counter * 10,
            ..Superblock::new(VolumeId(3), *b"0123456789abcdef", geometry)
        }
    }

    #[test]
    fn golden_bytes() {
        let block = superblock(5).encode();
        let bytes = block.as_ref();
        assert_eq!(bytes[..24], *b"SLUICEwl\x01\0\0\0\0\x10\0\0\x05\0\0\0\0\0\0\0");
        assert_eq!(bytes[24..56], *b"0123456789abcdef\x03\0\0\0\x07\0\0\0\x06\0\0\0\0\0\0\0");
        assert_eq!(u64_at(bytes, 64), 4096);
        assert!(bytes[120..CRC_AT].iter().all(|byte| *byte == 0));
        assert_eq!(Superblock::decode(bytes), Ok(superblock(5)));
        assert_eq!(superblock(5).offset(), SLOT_OFFSETS[1]);
        assert_eq!(superblock(6).offset(), SLOT_OFFSETS[0]);
    }

    #[test]
    fn the_larger_counter_wins_and_either_alone_will_do() {
        let (a, b) = (superblock(4).encode(), superblock(5).encode());
        let (a, b) = (a.as_ref(), b.as_ref());
        assert_eq!(Superblock::choose([a, b]), Ok(superblock(5)));
        assert_eq!(Superblock::choose([b, a]), Ok(superblock(5)));
        let mut torn = b.to_vec();
        torn[20] ^= 1;
        assert_eq!(Superblock::choose([a, &torn]), Ok(superblock(4)));
        assert_eq!(Superblock::choose([&torn, b]), Ok(superblock(5)));
        assert_eq!(Superblock::choose([&torn, &torn]), Err(NotASuperblock::Invalid));
    }

    proptest! {
        #[test]
        fn any_damage_is_seen(at in 0..BLOCK, mask in 1..=u8::MAX) {
            let mut block = superblock(1).encode();
            block.as_mut()[at] ^= mask;
            prop_assert_eq!(Superblock::decode(block.as_ref()), Err(NotASuperblock::Invalid));
        }
    }
}
