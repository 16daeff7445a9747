//! Memory that a device can take a frame from, without a copy and without `unsafe`: a vector that is
//! larger than needed, used from its first 4 KiB-aligned byte on. [`FrameBuf`] is owned by whoever fills
//! it; once sealed it is shared, read-only `Bytes`.

use std::fmt;

use bytes::Bytes;

use crate::error::TooLarge;
use crate::frame::{HEADER_BYTES, MAX_PAYLOAD_BYTES};
use crate::geometry::{BLOCK, BLOCK_BYTES, round_up};

/// A byte vector whose content begins at an aligned address.
pub(crate) struct AlignedBuf {
    /// `pad` bytes of no meaning, then the content.
    storage: Vec<u8>,
    pad: usize,
}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes. What outgrows it moves to a larger one.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut storage = Vec::<u8>::with_capacity(capacity + BLOCK);
        // The address is fixed as long as the vector does not grow past its capacity.
        let pad = storage.as_ptr().align_offset(BLOCK).min(BLOCK);
        storage.resize(pad, 0);
        Self { storage, pad }
    }

    /// A buffer of `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut buf = Self::with_capacity(len);
        buf.resize(len);
        buf
    }

    pub(crate) fn len(&self) -> usize {
        self.storage.len() - self.pad
    }

    /// How many bytes fit without a move.
    fn capacity(&self) -> usize {
        self.storage.capacity() - self.pad
    }

    /// Makes room for `capacity` bytes in all, moving to larger memory if need be.
    fn reserve(&mut self, capacity: usize) {
        if capacity > self.capacity() {
            let mut larger = Self::with_capacity(capacity);
            larger.storage.extend_from_slice(self.as_ref());
            *self = larger;
        }
    }

    /// Cuts off, or appends zeros.
    pub(crate) fn resize(&mut self, len: usize) {
        self.reserve(len);
        self.storage.resize(self.pad + len, 0);
    }

    pub(crate) fn extend_from_slice(&mut self, bytes: &[u8]) {
        let needed = self.len() + bytes.len();
        if needed > self.capacity() {
            self.reserve(needed.max(self.capacity() * 2));
        }
        self.storage.extend_from_slice(bytes);
    }

    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.pad..]
    }

    /// The vector, and where in it the content begins: for a device that fills it.
    pub(crate) fn into_parts(self) -> (Vec<u8>, usize) {
        (self.storage, self.pad)
    }

    /// What [`AlignedBuf::into_parts`] gave.
    pub(crate) fn from_parts(storage: Vec<u8>, pad: usize) -> Self {
        Self { storage, pad }
    }

    /// The content as shared memory, not copied.
    pub(crate) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        &self.storage[self.pad..]
    }
}

/// A frame in the making: room for the header, then the payload as it is gathered.
///
/// The memory that is filled here is what the device reads and what [`crate::Durable::payload`] gives
/// back. Ask for the right capacity: growth past it copies.
pub struct FrameBuf {
    bytes: AlignedBuf,
}

impl FrameBuf {
    /// An empty frame with memory for `payload_bytes` (at most [`MAX_PAYLOAD_BYTES`] are taken).
    pub fn with_capacity(payload_bytes: usize) -> Self {
        let frame_bytes = frame_len(payload_bytes.min(MAX_PAYLOAD_BYTES));
        let mut bytes = AlignedBuf::with_capacity(frame_bytes);
        bytes.resize(HEADER_BYTES);
        Self { bytes }
    }

    /// Appends to the payload; refuses, and changes nothing, if it would outgrow [`MAX_PAYLOAD_BYTES`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        if bytes.len() > self.room() {
            return Err(TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The payload's length so far, in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - HEADER_BYTES
    }

    /// Whether there is no payload yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes more the payload may get.
    pub fn room(&self) -> usize {
        MAX_PAYLOAD_BYTES - self.len()
    }

    /// The payload so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes.as_ref()[HEADER_BYTES..]
    }

    /// The payload so far, to be patched in place.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        &mut self.bytes.as_mut()[HEADER_BYTES..]
    }

    /// Pads to whole blocks and puts the header in front. Gives the whole frame.
    pub(crate) fn seal(mut self, header: &[u8; HEADER_BYTES]) -> Bytes {
        self.bytes.resize(frame_len(self.len()));
        self.bytes.as_mut()[..HEADER_BYTES].copy_from_slice(header);
        self.bytes.freeze()
    }
}

impl fmt::Debug for FrameBuf {
    /// The length alone: payloads are tenants' data and do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBuf").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// How many bytes a frame with this payload takes on the device.
pub(crate) fn frame_len(payload_bytes: usize) -> usize {
    // A payload has at most 8 MiB, so neither sum nor cast can overflow.
    let whole = (HEADER_BYTES + payload_bytes) as u64;
    debug_assert_eq!(BLOCK as u64, BLOCK_BYTES);
    round_up(whole) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_aligned_through_growth_and_freeze() {
        let mut frame = FrameBuf::with_capacity(10);
        for round in 0..5_000_u32 {
            frame.push(&round.to_le_bytes()).unwrap();
            assert_eq!(frame.bytes.as_ref().as_ptr().align_offset(BLOCK), 0);
        }
        assert_eq!(frame.len(), 20_000);
        let expected = frame.payload().to_vec();
        let sealed = frame.seal(&[7; HEADER_BYTES]);
        assert_eq!(sealed.as_ptr().align_offset(BLOCK), 0);
        assert_eq!(sealed.len(), 20_480);
        assert_eq!(sealed[HEADER_BYTES..HEADER_BYTES + 20_000], expected[..]);
        assert!(sealed[HEADER_BYTES + 20_000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_payload_is_bounded() {
        let mut frame = FrameBuf::with_capacity(MAX_PAYLOAD_BYTES);
        frame.push(&vec![1; MAX_PAYLOAD_BYTES]).unwrap();
        assert_eq!(frame.push(&[1]), Err(TooLarge));
        assert_eq!(frame.room(), 0);
    }

    #[test]
    fn the_right_capacity_is_never_outgrown() {
        let mut frame = FrameBuf::with_capacity(100_000);
        let address = frame.bytes.as_ref().as_ptr();
        frame.push(&vec![1; 100_000]).unwrap();
        assert_eq!(frame.seal(&[0; HEADER_BYTES]).as_ptr(), address);
    }
}
