//! Which chunks of which segments to read. Pure.
//!
//! A chunk is what is read and cached as one: neighbouring blocks of one extent, about [`CHUNK_BYTES`]
//! of them. Chunks are cut at fixed places, so that every consumer asks for the same ones.

use sluice_format::segment::{BlockEntry, Extent, SegmentId};

/// A chunk is closed when it has this many bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// Some neighbouring blocks of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Chunk {
    pub(crate) segment: SegmentId,
    pub(crate) position: u64,
    pub(crate) len: u64,
}

/// The chunks of `extent` that hold offsets from `from` on, until `max_bytes` are covered. `blocks` is
/// the extent's index; none for an extent of one block. Returns the bytes covered, too.
pub(crate) fn chunks(
    extent: &Extent,
    blocks: Option<&[BlockEntry]>,
    from: i64,
    max_bytes: u64,
) -> (Vec<Chunk>, u64) {
    let segment = extent.segment;
    let Some(blocks) = blocks else {
        let len = u64::from(extent.data_len);
        return (vec![Chunk { segment, position: extent.position, len }], len);
    };
    let mut out = Vec::new();
    let mut covered = 0;
    let mut rest = blocks;
    while let Some(first) = rest.first()
        && covered < max_bytes
    {
        let mut len = 0;
        let mut count = 0;
        while count < rest.len() && len < CHUNK_BYTES {
            len += u64::from(rest[count].len);
            count += 1;
        }
        let (group, after) = rest.split_at(count);
        rest = after;
        // Blocks before the first wanted one come along, but do not count as covered.
        let wanted = group.iter().filter(|block| block.end_offset > from);
        let wanted_bytes: u64 = wanted.map(|block| u64::from(block.len)).sum();
        if wanted_bytes > 0 {
            covered += wanted_bytes;
            out.push(Chunk { segment, position: first.position, len });
        }
    }
    (out, covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four of them make a chunk.
    const BLOCK: u64 = CHUNK_BYTES / 4;
    const SEGMENT: SegmentId = SegmentId { volume: 1, epoch: 1, sequence: 1 };

    fn extent(blocks: u32) -> (Extent, Vec<BlockEntry>) {
        let entries: Vec<_> = (0..blocks)
            .map(|n| BlockEntry {
                base_offset: i64::from(n) * 10,
                end_offset: i64::from(n) * 10 + 10,
                max_timestamp: 0,
                position: 32 + u64::from(n) * BLOCK,
                len: BLOCK as u32,
            })
            .collect();
        let extent = Extent {
            segment: SEGMENT,
            base_offset: 0,
            end_offset: i64::from(blocks) * 10,
            max_timestamp: 0,
            position: 32,
            data_len: blocks * BLOCK as u32,
            blocks,
            leader_epoch: 0,
            section_len: 0,
        };
        (extent, entries)
    }

    #[test]
    fn chunks_begin_at_fixed_places() {
        let (extent, blocks) = extent(10);
        let (from_start, covered) = chunks(&extent, Some(&blocks), 0, 1);
        assert_eq!(from_start, [Chunk { segment: SEGMENT, position: 32, len: 4 * BLOCK }]);
        assert_eq!(covered, 4 * BLOCK);
        let (from_inside, covered) = chunks(&extent, Some(&blocks), 35, 1);
        assert_eq!(from_inside, from_start, "another offset asks for the same chunk");
        assert_eq!(covered, BLOCK);
        let (rest, covered) = chunks(&extent, Some(&blocks), 45, 100 << 20);
        assert_eq!(rest.iter().map(|chunk| chunk.len).collect::<Vec<_>>(), [4 * BLOCK, 2 * BLOCK]);
        assert_eq!(covered, 6 * BLOCK);
    }

    #[test]
    fn an_extent_of_one_block_needs_no_index() {
        let (extent, _) = extent(1);
        let (all, covered) = chunks(&extent, None, 5, 1);
        assert_eq!(all, [Chunk { segment: SEGMENT, position: 32, len: BLOCK }]);
        assert_eq!(covered, BLOCK);
    }
}
