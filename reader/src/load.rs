//! Parts of segments, read and checked; what is damaged is read once more.

use std::ops::Range;

use sluice_format::FormatError;
use sluice_format::segment::{Block, BlockEntry, Extent, SegmentId, decode_index};

use crate::pages::{Grain, Span};
use crate::plan::{Walked, Wanted, walk};
use crate::read::{ReadError, Reader};

/// An extent below this is walked through from its beginning, wherever the consumer is in it.
const SMALL_EXTENT_BYTES: u32 = 1 << 20;

/// What was read of one extent.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    /// Verified; none if they were not wanted.
    pub(crate) blocks: Vec<Block>,
    /// Bytes of the blocks that hold what was asked for.
    pub(crate) covered: u64,
    /// The offset behind the last of them.
    pub(crate) end: i64,
    /// Bytes of memory that the blocks keep.
    pub(crate) held: u64,
}

/// What a piece is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Somebody waits for its blocks.
    Blocks,
    /// It is to be in memory.
    Ahead,
}

impl Reader {
    /// Blocks of an extent from the one that holds `offset` on (from its first one, if it begins behind
    /// that): at least one, then about `bytes`.
    pub(crate) async fn piece(
        &self,
        extent: &Extent,
        offset: i64,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<Piece, ReadError> {
        if extent.blocks == 0 {
            return Ok(Piece { end: extent.end_offset, ..Piece::default() });
        }
        let done = self.piece_once(extent, offset, bytes, purpose).await;
        // What was read ahead is read once more by whoever wants it.
        if purpose == Purpose::Ahead || !self.is_worth_another(&done) {
            return done;
        }
        told(self.piece_once(extent, offset, bytes, purpose).await)
    }

    async fn piece_once(
        &self,
        extent: &Extent,
        offset: i64,
        bytes: u64,
        purpose: Purpose,
    ) -> Result<Piece, ReadError> {
        let data = extent.data_range();
        // What lies behind the blocks is asked for together with the last of them.
        let behind = match extent.section_len {
            0 => data.end,
            _ => extent.section_range().end,
        };
        let is_small = extent.data_len < SMALL_EXTENT_BYTES;
        let (mut from, mut first) = (data.start, extent.base_offset);
        if offset > extent.base_offset && !is_small && extent.blocks > 1 {
            let index = self.index_once(extent).await?;
            let holds = |block: &&BlockEntry| block.end_offset > offset;
            let Some(block) = index.iter().find(holds) else {
                let why = "its index has no block for an offset of it";
                let error = FormatError::Invalid { what: "extent", why };
                return Err(self.corrupt(extent.segment, extent.index_range(), error));
            };
            (from, first) = (block.position, block.base_offset);
        }
        let mut to = match is_small {
            true => data.end,
            false => data.end.min(from.saturating_add(bytes.max(1))),
        };
        loop {
            let until = if to < data.end { to } else { behind };
            let grain = if is_small { Grain::Alone } else { Grain::Pages };
            let span = self.span(extent.segment, from..until, grain).await?;
            let blocks = purpose == Purpose::Blocks;
            let wanted = Wanted { offset, first, data_end: data.end, blocks };
            if until == behind && behind > data.end {
                self.pages.keep(extent.segment, extent.section_range(), &span);
            }
            let whole = |block| self.pages.in_one_piece(extent.segment, block, &span);
            let walked = walk(&span, from..to, wanted, whole)
                .map_err(|error| self.corrupt(extent.segment, from..until, error))?;
            match walked {
                Walked::Blocks { blocks, covered, end } => {
                    return Ok(Piece { blocks, covered, end, held: span.held() });
                }
                Walked::More { from: block, first: base, to: end } => {
                    (from, first, to) = (block, base, end.max(to).min(data.end));
                }
            }
        }
    }

    /// An extent's index.
    pub(crate) async fn index(&self, extent: &Extent) -> Result<Vec<BlockEntry>, ReadError> {
        let done = self.index_once(extent).await;
        if !self.is_worth_another(&done) {
            return done;
        }
        told(self.index_once(extent).await)
    }

    async fn index_once(&self, extent: &Extent) -> Result<Vec<BlockEntry>, ReadError> {
        self.decoded(extent.segment, extent.index_range(), decode_index).await
    }

    /// Bytes of a segment, decoded.
    pub(crate) async fn decoded<T>(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        decode: impl FnOnce(&[u8]) -> Result<T, FormatError>,
    ) -> Result<T, ReadError> {
        let span = self.span(segment, range.clone(), Grain::Alone).await?;
        let decoded = span.bytes(range.clone()).and_then(|bytes| decode(&bytes));
        decoded.map_err(|error| self.corrupt(segment, range, error))
    }

    /// All bytes of `range`, and perhaps more.
    async fn span(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        grain: Grain,
    ) -> Result<Span, ReadError> {
        match self.pages.get(segment, range.clone(), grain).await {
            Ok(span) if span.end() < range.end => {
                let error = FormatError::Truncated { what: "segment" };
                Err(self.corrupt(segment, range, error))
            }
            Ok(span) => Ok(span),
            Err(error) => {
                self.metrics.errors.inc();
                Err(match *error {
                    // Retention has removed it since the plan was made.
                    object_store::Error::NotFound { .. } => ReadError::NotHere,
                    _ => ReadError::Unavailable(error),
                })
            }
        }
    }

    /// What came is damaged, and not remembered.
    fn corrupt(&self, segment: SegmentId, range: Range<u64>, error: FormatError) -> ReadError {
        self.metrics.errors.inc();
        self.pages.forget(segment, range);
        ReadError::Corrupt { segment: self.keys.segment(segment), error }
    }

    /// Whether what was `done` is to be done once more: bytes that are damaged may have been damaged on their way.
    pub(crate) fn is_worth_another<T>(&self, done: &Result<T, ReadError>) -> bool {
        let Err(ReadError::Corrupt { segment, error }) = done else { return false };
        self.metrics.rereads.inc();
        tracing::warn!(segment, %error, "the bucket gave damaged bytes; reading again");
        true
    }
}

/// Says that what was read once more is damaged, too.
pub(crate) fn told<T>(again: Result<T, ReadError>) -> Result<T, ReadError> {
    if let Err(ReadError::Corrupt { segment, error }) = &again {
        tracing::error!(segment, %error, "the bucket gave damaged bytes twice");
    }
    again
}
