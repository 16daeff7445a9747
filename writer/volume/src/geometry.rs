//! How lsns map to places on the device. Pure arithmetic; the numbers come from the superblock.

use crate::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES};

/// The unit of everything on the device, in bytes: lsns, frames and device writes are multiples of it.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// [`BLOCK_BYTES`] as a length.
pub(crate) const BLOCK: usize = 4096;

/// Where the ring begins. The superblocks lie before it.
pub(crate) const RING_OFFSET: u64 = 64 * 1024;

/// The smallest ring: four frames of 16 KiB.
pub(crate) const LEAST_RING_BYTES: u64 = 64 * 1024;

/// The next multiple of [`BLOCK_BYTES`].
pub(crate) const fn round_up(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES
}

/// The ring's place and size, and the bound on what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// The device's size, in bytes.
    pub(crate) device_bytes: u64,
    /// Where the ring begins on the device.
    pub(crate) ring_offset: u64,
    /// The ring's size: a multiple of the block size.
    pub(crate) ring_bytes: u64,
    /// How far beyond the durable end a frame may reach: recovery looks no further for frames that
    /// prove an earlier one to have been durable.
    pub(crate) window_bytes: u64,
}

impl Geometry {
    /// The geometry of a new volume on a device of this size, if it is large enough.
    pub(crate) fn new(device_bytes: u64, window_bytes: u64) -> Option<Self> {
        let ring_bytes = device_bytes.checked_sub(RING_OFFSET)? / BLOCK_BYTES * BLOCK_BYTES;
        // 2^56 bytes are out of any device's reach and keep all sums far from overflow.
        if !(LEAST_RING_BYTES..1 << 56).contains(&ring_bytes) {
            return None;
        }
        let window_bytes = round_up(window_bytes).clamp(LEAST_RING_BYTES / 4, ring_bytes);
        Some(Self { device_bytes, ring_offset: RING_OFFSET, ring_bytes, window_bytes })
    }

    /// Whether these numbers can be those of a volume.
    pub(crate) fn is_sound(&self) -> bool {
        Self::new(self.device_bytes, self.window_bytes) == Some(*self)
    }

    /// The largest frame, in bytes: four fit into the ring, one into the window.
    pub(crate) fn max_frame_bytes(&self) -> u64 {
        let of_ring = (self.ring_bytes / 4).min(self.window_bytes) / BLOCK_BYTES * BLOCK_BYTES;
        of_ring.min(round_up((HEADER_BYTES + MAX_PAYLOAD_BYTES) as u64))
    }

    /// The largest payload of a frame, in bytes.
    pub(crate) fn max_payload_bytes(&self) -> usize {
        // Bounded by the constant, so that no cast can lose anything.
        (self.max_frame_bytes() - HEADER_BYTES as u64).min(MAX_PAYLOAD_BYTES as u64) as usize
    }

    /// The byte of the device that `lsn` stands for.
    pub(crate) fn offset(&self, lsn: u64) -> u64 {
        self.ring_offset + lsn % self.ring_bytes
    }

    /// The lsn at which the lap that holds `lsn` ends, and the next begins.
    pub(crate) fn lap_end(&self, lsn: u64) -> u64 {
        lsn - lsn % self.ring_bytes + self.ring_bytes
    }

    /// Where a frame of `frame_bytes` goes if the one before it ends at `head`: there, or at the start
    /// of the next lap if it would wrap.
    pub(crate) fn place(&self, head: u64, frame_bytes: u64) -> u64 {
        let lap_end = self.lap_end(head);
        if head + frame_bytes <= lap_end { head } else { lap_end }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_never_wrap() {
        let geometry = Geometry::new(RING_OFFSET + LEAST_RING_BYTES + 100, 1 << 20).unwrap();
        assert_eq!(geometry.ring_bytes, LEAST_RING_BYTES);
        assert_eq!(geometry.window_bytes, LEAST_RING_BYTES);
        assert_eq!(geometry.max_frame_bytes(), LEAST_RING_BYTES / 4);
        assert!(geometry.is_sound());
        assert_eq!(geometry.place(61_440, 4096), 61_440);
        assert_eq!(geometry.place(61_440, 8192), 65_536);
        assert_eq!(geometry.place(65_536, 8192), 65_536);
        assert_eq!(geometry.offset(65_536 + 4096), RING_OFFSET + 4096);
    }

    #[test]
    fn sizes_out_of_bounds_are_refused() {
        assert_eq!(Geometry::new(RING_OFFSET, 1 << 20), None);
        assert_eq!(Geometry::new(RING_OFFSET + LEAST_RING_BYTES - 1, 1 << 20), None);
        assert_eq!(Geometry::new(u64::MAX, 1 << 20), None);
    }
}
