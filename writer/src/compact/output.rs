//! Segments that compaction makes: built in memory up to a bound, put, and named by a change.

use object_store::PutPayload;
use sluice_format::key::Keys;
use sluice_format::segment::{Block, Piece, SegmentBuilder};
use sluice_format::{Extent, SegmentId, StreamKey, TransactionSection};
use sluice_model::SendPace;
use sluice_model::units::MIB;
use sluice_wire::scan;

use crate::commit::{Committer, Ended};
use crate::objects::Objects;

/// Where the leader epoch lies in a Kafka batch.
const LEADER_EPOCH: std::ops::Range<usize> = 12..16;

/// How fast they are sent: compaction has time.
const PACE: u64 = 64 * MIB;

/// Where segments go.
pub(super) struct Target<'a> {
    pub(super) committer: &'a Committer,
    pub(super) objects: &'a Objects,
    pub(super) keys: &'a Keys,
}

/// A segment that is in the bucket and not yet named by a manifest.
pub(super) struct Written {
    pub(super) id: SegmentId,
    pub(super) len: u64,
    pub(super) extents: Vec<(StreamKey, Extent)>,
}

impl Target<'_> {
    /// Puts a segment with these extents, which must ascend by stream.
    pub(super) async fn write(
        &self,
        extents: Vec<(StreamKey, Vec<Piece>, TransactionSection)>,
    ) -> Result<Written, Ended> {
        let id = self.committer.next_segment_id();
        let mut builder = SegmentBuilder::new(id);
        for (stream, pieces, section) in &extents {
            builder.push_extent_with(*stream, pieces, section);
        }
        let built = builder.finish();
        let payload = PutPayload::from_iter(built.parts);
        let pace = Some(SendPace::new(PACE));
        self.objects.put(&self.keys.segment(id), &payload, pace).await?;
        self.objects.metrics.compacted_bytes.inc_by(built.len);
        Ok(Written { id, len: built.len, extents: built.extents })
    }
}

/// A block of another extent as a piece of a new one. Its range stays as it is, gaps included.
pub(super) fn piece_of(block: Block) -> Piece {
    let mut batches = 0;
    let mut last = 0;
    for span in scan::spans(&block.payload) {
        batches += 1;
        last = span.start;
    }
    Piece {
        base_offset: block.base_offset,
        end_offset: block.end_offset,
        max_timestamp: block.max_timestamp,
        batches,
        leader_epoch: leader_epoch(&block.payload[last..]),
        bytes: block.payload,
    }
}

/// The leader epoch of a batch; 0 for one that says none.
pub(super) fn leader_epoch(batch: &[u8]) -> u32 {
    let field = batch.get(LEADER_EPOCH).and_then(|field| field.first_chunk());
    field.map_or(0, |field| u32::try_from(i32::from_be_bytes(*field)).unwrap_or(0))
}

/// A range of offsets of which no batch is left.
pub(super) fn nothing(base_offset: i64, end_offset: i64, leader_epoch: u32) -> Piece {
    Piece {
        base_offset,
        end_offset,
        max_timestamp: -1,
        batches: 0,
        leader_epoch,
        bytes: bytes::Bytes::new(),
    }
}
