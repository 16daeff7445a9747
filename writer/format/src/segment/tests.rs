use super::*;
use crate::transactions::AbortedTransaction;

fn key(n: u8) -> StreamKey {
    StreamKey { topic: [n; 16], partition: u32::from(n) }
}

fn piece(base: i64, len: usize) -> Piece {
    Piece {
        base_offset: base,
        end_offset: base + 10,
        max_timestamp: base * 2,
        batches: 1,
        leader_epoch: 3,
        bytes: Bytes::from(vec![base as u8; len]),
    }
}

fn section() -> TransactionSection {
    let (producer_id, first_offset, last_offset, last_stable_offset) = (7, 100, 120, 121);
    let aborted = AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset };
    TransactionSection { aborted: vec![aborted], producers: Vec::new() }
}

fn build() -> (BuiltSegment, Bytes) {
    let mut builder = SegmentBuilder::new(SegmentId { volume: 1, epoch: 3, sequence: 9 });
    builder.push_extent(key(1), &[piece(0, 100), piece(10, 50)]);
    let many: Vec<_> = (0..8).map(|n| piece(100 + n * 10, 100_000)).collect();
    builder.push_extent_with(key(2), &many, &section());
    let built = builder.finish();
    let whole = Bytes::from(built.parts.concat());
    (built, whole)
}

fn slice(whole: &Bytes, range: std::ops::Range<u64>) -> Bytes {
    whole.slice(range.start as usize..range.end as usize)
}

#[test]
fn extents_blocks_and_index_agree() {
    let (built, whole) = build();
    assert_eq!(built.len, whole.len() as u64);
    assert_eq!(decode_directory(&whole).unwrap(), built.extents);
    for (_, extent) in &built.extents {
        let index = decode_index(&slice(&whole, extent.index_range())).unwrap();
        assert_eq!(index.len(), extent.blocks as usize);
        let mut data = slice(&whole, extent.data_range());
        let mut offset = extent.base_offset;
        for entry in index {
            let at = u64::from(extent.data_len) - data.len() as u64 + extent.position;
            assert_eq!(entry.position, at);
            let block = split_block(&mut data).unwrap();
            assert_eq!(block.base_offset, offset);
            assert_eq!(
                (block.base_offset, block.end_offset),
                (entry.base_offset, entry.end_offset)
            );
            assert_eq!(entry.len as usize, block.payload.len() + BLOCK_HEADER_LEN);
            offset = block.end_offset;
        }
        assert_eq!(offset, extent.end_offset);
        assert!(data.is_empty());
    }
    let sections = built.extents.iter().map(|(_, extent)| slice(&whole, extent.section_range()));
    let sections: Vec<_> = sections.map(|b| TransactionSection::decode(&b).unwrap()).collect();
    assert_eq!(sections, [TransactionSection::default(), section()]);
    // 300 KB of pieces close a block: 8 pieces of 100 KB make 3 blocks.
    assert_eq!(built.extents[1].1.blocks, 3);
}

#[test]
fn every_flipped_byte_is_seen_where_it_is_read() {
    let (built, whole) = build();
    let extent = built.extents[0].1;
    for at in extent.data_range() {
        let mut damaged = whole.to_vec();
        damaged[at as usize] ^= 1;
        let mut data = slice(&Bytes::from(damaged), extent.data_range());
        assert!(split_block(&mut data).is_err(), "byte {at}");
    }
    for at in extent.index_range() {
        let mut damaged = whole.to_vec();
        damaged[at as usize] ^= 1;
        assert!(decode_index(&damaged[extent.index_range().start as usize..][..48]).is_err());
    }
}

#[test]
fn cut_objects_are_refused() {
    let (_, whole) = build();
    for len in (0..whole.len()).step_by(997).chain(whole.len() - 100..whole.len()) {
        assert!(decode_directory(&whole[..len]).is_err(), "cut at {len}");
    }
}

#[test]
#[should_panic(expected = "streams ascend")]
fn streams_out_of_order_are_a_bug() {
    let mut builder = SegmentBuilder::new(SegmentId { volume: 1, epoch: 3, sequence: 9 });
    builder.push_extent(key(2), &[piece(0, 1)]);
    builder.push_extent(key(1), &[piece(0, 1)]);
}
