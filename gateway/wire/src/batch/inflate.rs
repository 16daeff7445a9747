//! Inflating a batch's records piece by piece, within a bound.
//!
//! Memory follows what has really been inflated, never what a header claims: gzip and zstd are read
//! through a small window, and a block of snappy or lz4 is given at most the room that its compressed
//! size can fill. zstd's own window is the one thing allocated by claim, by the C library; it is
//! address space until data fills it, and at most 128 MiB, the most that any compression level uses.

use std::io::Read;

use bytes::buf::Reader;
use bytes::{Buf, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;

use super::lz4::Lz4Frames;
use super::snappy::SnappyBlocks;
use super::{BatchError, Compression};

/// How much is inflated at a time from a stream.
const STEP_BYTES: usize = 16 * 1024;
/// Kafka lets producers choose zstd levels up to 22, whose window is 2^27 bytes.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

pub(super) struct Inflater {
    codec: Codec,
    left_bytes: usize,
    max_bytes: usize,
}

enum Codec {
    Gzip(Box<MultiGzDecoder<Reader<Bytes>>>),
    Snappy(SnappyBlocks),
    Lz4(Lz4Frames),
    Zstd(Box<zstd::stream::read::Decoder<'static, Reader<Bytes>>>),
}

impl Inflater {
    /// For `data` in this compression; `None` when it is not compressed.
    pub(super) fn new(
        compression: Compression,
        data: Bytes,
        max_bytes: usize,
    ) -> Result<Option<Self>, BatchError> {
        let codec = match compression {
            Compression::None => return Ok(None),
            Compression::Gzip => Codec::Gzip(Box::new(MultiGzDecoder::new(data.reader()))),
            Compression::Snappy => Codec::Snappy(SnappyBlocks::new(data)),
            Compression::Lz4 => Codec::Lz4(Lz4Frames::new(data)),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(data.reader())
                    .and_then(|mut decoder| {
                        decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                        Ok(decoder)
                    })
                    .map_err(|_| BatchError::Damaged)?;
                Codec::Zstd(Box::new(decoder))
            }
        };
        Ok(Some(Self { codec, left_bytes: max_bytes, max_bytes }))
    }

    /// Appends the next piece to `out` and says how long it is; 0 at the end.
    pub(super) fn inflate_more(&mut self, out: &mut BytesMut) -> Result<usize, BatchError> {
        let before = out.len();
        // One byte over the limit is asked for, so that reaching the limit is no error.
        let ask = STEP_BYTES.min(self.left_bytes + 1);
        let result = match &mut self.codec {
            Codec::Gzip(stream) => read_some(stream, ask, out),
            Codec::Zstd(stream) => read_some(stream, ask, out),
            Codec::Snappy(blocks) => blocks.inflate_block(self.left_bytes, out),
            Codec::Lz4(frames) => frames.inflate_block(self.left_bytes, out),
        };
        match result {
            Ok(()) => {}
            Err(Failure::Damaged) => return Err(BatchError::Damaged),
            Err(Failure::OverLimit) => return Err(self.too_large()),
        }
        let piece = out.len() - before;
        self.left_bytes = self.left_bytes.checked_sub(piece).ok_or_else(|| self.too_large())?;
        Ok(piece)
    }

    fn too_large(&self) -> BatchError {
        BatchError::InflatedTooLarge { max_bytes: self.max_bytes }
    }
}

/// Inflates all of `data`, which is compressed as the records of a batch are.
///
/// # Errors
/// When it is damaged, or larger than `max_bytes`; no more than that is ever held.
pub fn inflate(
    compression: Compression,
    data: Bytes,
    max_bytes: usize,
) -> Result<Bytes, BatchError> {
    let Some(mut inflater) = Inflater::new(compression, data.clone(), max_bytes)? else {
        return match data.len() <= max_bytes {
            true => Ok(data),
            false => Err(BatchError::InflatedTooLarge { max_bytes }),
        };
    };
    let mut out = BytesMut::new();
    while inflater.inflate_more(&mut out)? > 0 {}
    Ok(out.freeze())
}

/// Why a codec gave nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Damaged,
    /// The next block is larger than what may still be inflated.
    OverLimit,
}

fn read_some(stream: &mut impl Read, len: usize, out: &mut BytesMut) -> Result<(), Failure> {
    let start = out.len();
    out.resize(start + len, 0);
    let read = stream.read(&mut out[start..]);
    out.truncate(start + read.as_ref().map_or(0, |len| *len));
    // The source is memory: an error is about the data.
    read.map(|_| ()).map_err(|_| Failure::Damaged)
}
