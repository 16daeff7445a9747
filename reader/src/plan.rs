//! Blocks of an extent, on the bytes that lie there. Pure.

use std::ops::Range;

use bytes::Bytes;
use sluice_format::FormatError;
use sluice_format::segment::{BLOCK_HEADER_LEN, Block, BlockHead, split_block};

use crate::pages::Span;

/// What is wanted of an extent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Blocks that hold this offset or later ones.
    pub(crate) offset: i64,
    /// The offset of the first block that is looked at; blocks follow each other without gaps.
    pub(crate) first: i64,
    /// Where the extent's last block ends.
    pub(crate) data_end: u64,
    /// Whether the blocks are wanted, or only where they end.
    pub(crate) blocks: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) enum Walked {
    /// Whole blocks.
    Blocks {
        /// Verified, if they were wanted.
        blocks: Vec<Block>,
        /// Bytes of those that hold what was wanted.
        covered: u64,
        /// The offset behind the last one.
        end: i64,
    },
    /// No wanted block is whole: look again, from this block on, with at least these bytes.
    More { from: u64, first: i64, to: u64 },
}

/// Looks at the blocks that begin in `range`, of which all bytes are on `span`, and more may be.
///
/// `whole` gives the bytes of a block.
///
/// # Errors
/// What lies there is damaged.
pub(crate) fn walk(
    span: &Span,
    range: Range<u64>,
    wanted: Wanted,
    whole: impl Fn(Range<u64>) -> Result<Bytes, FormatError>,
) -> Result<Walked, FormatError> {
    let invalid = |why| FormatError::Invalid { what: "block", why };
    let (mut at, mut next) = (range.start, wanted.first);
    let (mut blocks, mut covered) = (Vec::new(), 0);
    while at < range.end {
        let head_end = at + BLOCK_HEADER_LEN as u64;
        let block_end = match head_end <= span.end() {
            true => {
                let head = BlockHead::decode(&span.bytes(at..head_end)?)?;
                let end = at + head.len;
                if end > wanted.data_end {
                    return Err(invalid("it is longer than its extent"));
                }
                if head.base_offset != next || head.end_offset <= next {
                    return Err(invalid("its offsets do not follow those before it"));
                }
                if end <= span.end() {
                    if head.end_offset > wanted.offset {
                        covered += head.len;
                        if wanted.blocks {
                            blocks.push(split_block(&mut whole(at..end)?)?);
                        }
                    }
                    (at, next) = (end, head.end_offset);
                    continue;
                }
                end
            }
            false => head_end,
        };
        if block_end > wanted.data_end {
            return Err(invalid("it is longer than its extent"));
        }
        if covered == 0 {
            return Ok(Walked::More { from: at, first: next, to: block_end });
        }
        break;
    }
    Ok(Walked::Blocks { blocks, covered, end: next })
}

#[cfg(test)]
mod tests {
    use sluice_format::segment::{Extent, Piece, SegmentBuilder};
    use sluice_format::{SegmentId, StreamKey};

    use super::*;

    /// Four blocks of 300 kB, of ten offsets each, from 100 on.
    fn extent() -> (Bytes, Extent) {
        let id = SegmentId { volume: 0, epoch: 1, sequence: 0 };
        let mut builder = SegmentBuilder::new(id);
        let pieces = [100, 110, 120, 130].map(|base_offset| Piece {
            base_offset,
            end_offset: base_offset + 10,
            max_timestamp: 0,
            batches: 1,
            leader_epoch: 1,
            bytes: Bytes::from(vec![7; 300_000]),
        });
        builder.push_extent(StreamKey { topic: [0; 16], partition: 0 }, &pieces);
        let built = builder.finish();
        (Bytes::from(built.parts.concat()), built.extents[0].1)
    }

    fn look(
        bytes: &Bytes,
        extent: &Extent,
        range: Range<u64>,
        until: u64,
        offset: i64,
    ) -> Result<Walked, FormatError> {
        let span = Span::new(0, vec![bytes.slice(..until as usize)]);
        let data_end = extent.data_range().end;
        let wanted = Wanted { offset, first: extent.base_offset, data_end, blocks: true };
        walk(&span, range, wanted, |block| span.bytes(block))
    }

    fn found(walked: Result<Walked, FormatError>) -> (Vec<i64>, i64) {
        match walked.unwrap() {
            Walked::Blocks { blocks, end, .. } => {
                (blocks.iter().map(|block| block.base_offset).collect(), end)
            }
            Walked::More { .. } => panic!("there are blocks"),
        }
    }

    #[test]
    fn whole_blocks_are_taken_and_those_before_passed_over() {
        let (bytes, extent) = extent();
        let data = extent.data_range();
        let all = found(look(&bytes, &extent, data.clone(), data.end, 0));
        assert_eq!(all, (vec![100, 110, 120, 130], 140));
        let some = found(look(&bytes, &extent, data.clone(), data.end, 125));
        assert_eq!(some, (vec![120, 130], 140));
        let cut = data.start + 700_000;
        let whole = found(look(&bytes, &extent, data.start..cut, cut, 0));
        assert_eq!(whole, (vec![100, 110], 120), "the third is not whole");
        let begun = found(look(&bytes, &extent, data.start..cut, data.end, 0));
        assert_eq!(begun, (vec![100, 110, 120], 130), "it is here, and begins in time");
    }

    #[test]
    fn what_is_lacking_is_told() {
        let (bytes, extent) = extent();
        let start = extent.position;
        for (until, at, first, to) in [
            (start + 10, start, 100, start + 40),
            (start + 1000, start, 100, start + 300_040),
            (start + 300_050, start + 300_040, 110, start + 300_080),
        ] {
            let offset = if at == start { 0 } else { 115 };
            match look(&bytes, &extent, start..until, until, offset).unwrap() {
                Walked::More { from, first: base, to: needed } => {
                    assert_eq!((from, base, needed), (at, first, to));
                }
                found => panic!("{found:?}"),
            }
        }
    }

    #[test]
    fn a_head_that_lies_is_found_out_though_its_block_is_passed_over() {
        let (good, extent) = extent();
        let data = extent.data_range();
        for byte in [0, 4, 5, 6, 7, 8, 15, 16, 17, 23] {
            let mut bad = good.to_vec();
            bad[data.start as usize + byte] ^= 1;
            let found = look(&Bytes::from(bad), &extent, data.clone(), data.end, 135);
            assert!(found.is_err(), "byte {byte} of a head: {found:?}");
        }
    }
}
