//! Snappy as Kafka's producers write it: xerial's framing (the Java library and most others), or one
//! bare block (some C libraries).
//!
//! ```text
//! 0x82 "SNAPPY" 0x00, version i32, compatible version i32, then blocks: length i32, snappy block
//! ```

use bytes::{Buf, Bytes, BytesMut};

use super::inflate::Failure;

/// The first bytes of xerial's framing.
pub(super) const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// The magic and the two versions.
const XERIAL_HEADER_BYTES: usize = 16;
/// A snappy element of three bytes gives at most 64: a block claims no more than this many times
/// its size.
const MAX_RATIO: usize = 22;

pub(super) struct SnappyBlocks {
    rest: Bytes,
    framed: bool,
}

impl SnappyBlocks {
    pub(super) fn new(data: Bytes) -> Self {
        Self { framed: data.starts_with(XERIAL_MAGIC), rest: data }
    }

    /// Appends the next block that is not empty; nothing at the end.
    pub(super) fn inflate_block(
        &mut self,
        limit_bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), Failure> {
        while !self.rest.is_empty() {
            let block = if self.framed {
                // Streams that were concatenated carry the header again.
                if self.rest.starts_with(XERIAL_MAGIC) {
                    self.take(XERIAL_HEADER_BYTES)?;
                    continue;
                }
                let len = self.rest.try_get_i32().map_err(|_| Failure::Damaged)?;
                self.take(usize::try_from(len).map_err(|_| Failure::Damaged)?)?
            } else {
                std::mem::take(&mut self.rest)
            };
            let len = snap::raw::decompress_len(&block).map_err(|_| Failure::Damaged)?;
            if len > block.len().saturating_mul(MAX_RATIO) {
                return Err(Failure::Damaged);
            }
            if len > limit_bytes {
                return Err(Failure::OverLimit);
            }
            let start = out.len();
            out.resize(start + len, 0);
            let written = snap::raw::Decoder::new()
                .decompress(&block, &mut out[start..])
                .map_err(|_| Failure::Damaged)?;
            out.truncate(start + written);
            if written > 0 {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, len: usize) -> Result<Bytes, Failure> {
        if len > self.rest.len() {
            return Err(Failure::Damaged);
        }
        Ok(self.rest.split_to(len))
    }
}
