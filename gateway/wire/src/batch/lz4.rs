//! LZ4 frames as Kafka's producers write them. Read here and not by a library's frame reader, since
//! those set aside as much memory as the frame's header claims for a block.
//!
//! ```text
//! magic u32le 0x184d2204
//! flags u8      bits 7-6 version 01, 5 blocks are independent, 4 block checksums,
//!               3 content size, 2 content checksum, 1 reserved, 0 dictionary id
//! block size u8 bits 6-4: 4 to 7 for 64 KiB, 256 KiB, 1 MiB, 4 MiB
//! [content size u64le]
//! header checksum u8
//! blocks: length u32le (top bit: not compressed), data, [checksum u32le]
//! end u32le 0, [content checksum u32le]
//! ```
//!
//! As in Kafka, blocks that depend on each other and dictionaries are refused. The content checksum
//! is not looked at (Kafka does not either): the batch's own covers all of these bytes.

use bytes::{Buf, Bytes, BytesMut};
use twox_hash::XxHash32;

use super::inflate::Failure;

const MAGIC: u32 = 0x184d_2204;
const VERSION: u8 = 0b0100_0000;
const INDEPENDENT: u8 = 0b0010_0000;
const BLOCK_CHECKSUM: u8 = 0b0001_0000;
const CONTENT_SIZE: u8 = 0b0000_1000;
const CONTENT_CHECKSUM: u8 = 0b0000_0100;
const NOT_COMPRESSED: u32 = 1 << 31;
/// One byte of a block adds at most 255 to a match's length.
const MAX_RATIO: usize = 255;

pub(super) struct Lz4Frames {
    rest: Bytes,
    /// The frame that we are inside of.
    frame: Option<Frame>,
}

#[derive(Clone, Copy)]
struct Frame {
    max_block_bytes: usize,
    block_checksum: bool,
    content_checksum: bool,
}

impl Lz4Frames {
    pub(super) fn new(data: Bytes) -> Self {
        Self { rest: data, frame: None }
    }

    /// Appends the next block that is not empty; nothing at the end.
    pub(super) fn inflate_block(
        &mut self,
        limit_bytes: usize,
        out: &mut BytesMut,
    ) -> Result<(), Failure> {
        loop {
            let Some(frame) = self.frame else {
                if self.rest.is_empty() {
                    return Ok(());
                }
                self.frame = Some(self.frame_header()?);
                continue;
            };
            let head = self.u32()?;
            if head == 0 {
                if frame.content_checksum {
                    self.u32()?;
                }
                self.frame = None;
                continue;
            }
            let data = self.take((head & !NOT_COMPRESSED) as usize)?;
            if frame.block_checksum && self.u32()? != XxHash32::oneshot(0, &data) {
                return Err(Failure::Damaged);
            }
            let before = out.len();
            if head & NOT_COMPRESSED == 0 {
                inflate(&data, frame.max_block_bytes, limit_bytes, out)?;
            } else if data.len() > frame.max_block_bytes {
                return Err(Failure::Damaged);
            } else if data.len() > limit_bytes {
                return Err(Failure::OverLimit);
            } else {
                out.extend_from_slice(&data);
            }
            if out.len() > before {
                return Ok(());
            }
        }
    }

    fn frame_header(&mut self) -> Result<Frame, Failure> {
        if self.u32()? != MAGIC {
            return Err(Failure::Damaged);
        }
        let flags = *self.rest.first().ok_or(Failure::Damaged)?;
        let known = VERSION | INDEPENDENT | BLOCK_CHECKSUM | CONTENT_SIZE | CONTENT_CHECKSUM;
        if flags & !known != 0 || flags & VERSION == 0 || flags & INDEPENDENT == 0 {
            return Err(Failure::Damaged);
        }
        let descriptor = self.take(if flags & CONTENT_SIZE == 0 { 2 } else { 10 })?;
        let checksum = (XxHash32::oneshot(0, &descriptor) >> 8) as u8;
        if self.take(1)?[0] != checksum {
            return Err(Failure::Damaged);
        }
        let max_block_bytes = match descriptor[1] {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err(Failure::Damaged),
        };
        Ok(Frame {
            max_block_bytes,
            block_checksum: flags & BLOCK_CHECKSUM != 0,
            content_checksum: flags & CONTENT_CHECKSUM != 0,
        })
    }

    fn u32(&mut self) -> Result<u32, Failure> {
        self.rest.try_get_u32_le().map_err(|_| Failure::Damaged)
    }

    fn take(&mut self, len: usize) -> Result<Bytes, Failure> {
        if len > self.rest.len() {
            return Err(Failure::Damaged);
        }
        Ok(self.rest.split_to(len))
    }
}

fn inflate(
    data: &[u8],
    max_block_bytes: usize,
    limit_bytes: usize,
    out: &mut BytesMut,
) -> Result<(), Failure> {
    let room = data.len().saturating_mul(MAX_RATIO).min(max_block_bytes);
    let start = out.len();
    out.resize(start + room.min(limit_bytes), 0);
    match lz4_flex::block::decompress_into(data, &mut out[start..]) {
        Ok(len) => {
            out.truncate(start + len);
            Ok(())
        }
        Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if limit_bytes < room => {
            Err(Failure::OverLimit)
        }
        Err(_) => Err(Failure::Damaged),
    }
}
