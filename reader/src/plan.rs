//! Which chunks of which segments to read. Pure.
//!
//! A chunk is what is read and cached as one: up to [`CHUNK_BLOCKS`] neighbouring blocks of one extent.
//! Chunks are cut at fixed places, so that every consumer asks for the same ones.

use sluice_format::segment::{BlockEntry, Extent, SegmentId};

/// Blocks in a chunk: about 1 MiB.
const CHUNK_BLOCKS: usize = 4;

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
    let first = blocks.partition_point(|block| block.end_offset <= from);
    let mut out = Vec::new();
    let mut covered = 0;
    for group in blocks.chunks(CHUNK_BLOCKS).skip(first / CHUNK_BLOCKS) {
        if covered >= max_bytes {
            break;
        }
        let len = group.iter().map(|block| u64::from(block.len)).sum();
        // Blocks before the first wanted one come along, but do not count as covered.
        let wanted = group.iter().filter(|block| block.end_offset > from);
        covered += wanted.map(|block| u64::from(block.len)).sum::<u64>();
        out.push(Chunk { segment, position: group[0].position, len });
    }
    (out, covered)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: SegmentId = SegmentId { volume: 1, epoch: 1, sequence: 1 };

    fn extent(blocks: u32) -> (Extent, Vec<BlockEntry>) {
        let entries: Vec<_> = (0..blocks)
            .map(|n| BlockEntry {
                base_offset: i64::from(n) * 10,
                end_offset: i64::from(n) * 10 + 10,
                max_timestamp: 0,
                position: 32 + u64::from(n) * 100,
                len: 100,
            })
            .collect();
        let extent = Extent {
            segment: SEGMENT,
            base_offset: 0,
            end_offset: i64::from(blocks) * 10,
            max_timestamp: 0,
            position: 32,
            data_len: blocks * 100,
            blocks,
            leader_epoch: 0,
        };
        (extent, entries)
    }

    #[test]
    fn chunks_begin_at_fixed_places() {
        let (extent, blocks) = extent(10);
        let (from_start, covered) = chunks(&extent, Some(&blocks), 0, 1);
        assert_eq!(from_start, [Chunk { segment: SEGMENT, position: 32, len: 400 }]);
        assert_eq!(covered, 400);
        let (from_inside, covered) = chunks(&extent, Some(&blocks), 35, 1);
        assert_eq!(from_inside, from_start, "another offset asks for the same chunk");
        assert_eq!(covered, 100);
        let (rest, covered) = chunks(&extent, Some(&blocks), 45, 1_000_000);
        assert_eq!(rest.iter().map(|chunk| chunk.len).collect::<Vec<_>>(), [400, 200]);
        assert_eq!(covered, 600);
    }

    #[test]
    fn an_extent_of_one_block_needs_no_index() {
        let (extent, _) = extent(1);
        let (all, covered) = chunks(&extent, None, 5, 1);
        assert_eq!(all, [Chunk { segment: SEGMENT, position: 32, len: 100 }]);
        assert_eq!(covered, 100);
    }
}
