//! A segment as tools read it: header and directory first, then an extent's blocks one by one, in bounded
//! memory. Everything is checked; what is wrong is told, not guessed at.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sluice_format::segment::{
    BlockEntry, HEADER_LEN, TRAILER_LEN, decode_extents, decode_header, decode_index,
    directory_range, split_block,
};
use sluice_format::{Extent, FormatError, SegmentId, StreamKey};
use sluice_wire::batch::BatchView;

/// Why a segment, or a part of it, is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    /// The bucket: nothing is known about the segment.
    #[error("cannot be read: {0}")]
    Bucket(object_store::Error),
    #[error("is missing")]
    Missing,
    #[error("{0}")]
    Format(#[from] FormatError),
    #[error("{0}")]
    Wrong(String),
}

impl From<object_store::Error> for Problem {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            error => Self::Bucket(error),
        }
    }
}

/// A segment whose header and directory are right.
pub(super) struct Segment {
    bucket: Arc<dyn ObjectStore>,
    path: Path,
    pub(super) len: u64,
    pub(super) id: SegmentId,
    pub(super) directory: Vec<(StreamKey, Extent)>,
}

/// A block that is right.
pub(super) struct Block {
    pub(super) entry: BlockEntry,
    pub(super) batches: Vec<BatchView>,
}

impl Segment {
    pub(super) async fn open(bucket: Arc<dyn ObjectStore>, path: Path) -> Result<Self, Problem> {
        let len = bucket.head(&path).await?.size;
        if len < (HEADER_LEN + TRAILER_LEN) as u64 {
            return Err(FormatError::Truncated { what: "segment" }.into());
        }
        let ends = [0..HEADER_LEN as u64, len - TRAILER_LEN as u64..len];
        let ends = bucket.get_ranges(&path, &ends).await?;
        let id = decode_header(&ends[0])?;
        let directory = directory_range(&ends[1], len)?;
        let directory = decode_extents(&bucket.get_range(&path, directory).await?)?;
        Ok(Self { bucket, path, len, id, directory })
    }

    async fn range(&self, range: std::ops::Range<u64>) -> Result<Bytes, Problem> {
        if range.end > self.len || range.start >= range.end {
            return Err(Problem::Wrong(format!("bytes {range:?} are not within the segment")));
        }
        Ok(self.bucket.get_range(&self.path, range).await?)
    }

    /// An extent's blocks, as its index lists them: dense from the extent's start to its end.
    pub(super) async fn index(&self, extent: &Extent) -> Result<Vec<BlockEntry>, Problem> {
        let entries = decode_index(&self.range(extent.index_range()).await?)?;
        let mut at = extent.position;
        let mut offset = extent.base_offset;
        for entry in &entries {
            let fits = entry.position == at
                && entry.base_offset >= offset
                && entry.base_offset < entry.end_offset
                && entry.end_offset <= extent.end_offset;
            if !fits {
                return Err(Problem::Wrong(format!(
                    "the index does not fit its extent at offset {}",
                    entry.base_offset
                )));
            }
            (at, offset) = (at + u64::from(entry.len), entry.end_offset);
        }
        if entries.len() != extent.blocks as usize || at != extent.data_range().end {
            return Err(Problem::Wrong("the index does not cover its extent".to_owned()));
        }
        Ok(entries)
    }

    /// A block, its checksum and those of its batches verified. Offsets of batches grow, within the
    /// block's range.
    pub(super) async fn block(&self, entry: BlockEntry) -> Result<Block, Problem> {
        let end = entry.position + u64::from(entry.len);
        let mut bytes = self.range(entry.position..end).await?;
        let block = split_block(&mut bytes)?;
        let says = (block.base_offset, block.end_offset, block.max_timestamp, bytes.len());
        if says != (entry.base_offset, entry.end_offset, entry.max_timestamp, 0) {
            return Err(Problem::Wrong("a block is not what the index says".to_owned()));
        }
        let mut payload = block.payload;
        let mut batches = Vec::new();
        let mut next = entry.base_offset;
        while !payload.is_empty() {
            let batch = BatchView::split_off(&mut payload)
                .and_then(|batch| batch.check_crc().map(|()| batch))
                .map_err(|error| Problem::Wrong(format!("a batch near offset {next}: {error}")))?;
            if batch.base_offset() < next || batch.last_offset() >= entry.end_offset {
                return Err(Problem::Wrong(format!(
                    "a batch has offsets {} to {} where {next} is due and {} is the end",
                    batch.base_offset(),
                    batch.last_offset(),
                    entry.end_offset
                )));
            }
            next = batch.last_offset() + 1;
            batches.push(batch);
        }
        Ok(Block { entry, batches })
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use sluice_format::segment::{Piece, SegmentBuilder};
    use sluice_wire::batch::{BatchBuilder, NewRecord};

    use super::*;

    const ID: SegmentId = SegmentId { volume: 1, epoch: 2, sequence: 3 };

    /// Two streams of two batches each.
    fn segment() -> Vec<u8> {
        let mut builder = SegmentBuilder::new(ID);
        for partition in 0..2 {
            let pieces: Vec<Piece> = [(0, 2), (2, 3)].map(|(base, end)| piece(base, end)).into();
            builder.push_extent(StreamKey { topic: [7; 16], partition }, &pieces);
        }
        builder.finish().parts.concat()
    }

    fn piece(base: i64, end: i64) -> Piece {
        let mut batch = BatchBuilder::new().base_offset(base);
        for _ in base..end {
            let value = Some(&b"value"[..]);
            batch.push(&NewRecord { timestamp_ms: 5, key: None, value, headers: &[] });
        }
        Piece {
            base_offset: base,
            end_offset: end,
            max_timestamp: 5,
            batches: 1,
            leader_epoch: 2,
            bytes: batch.build(),
        }
    }

    /// Everything there is, read as `--deep` does; gives the number of batches.
    async fn read(bytes: Vec<u8>) -> Result<usize, Problem> {
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("segment");
        bucket.put(&path, bytes.into()).await?;
        let segment = Segment::open(bucket, path).await?;
        let mut batches = 0;
        for (_, extent) in &segment.directory {
            for entry in segment.index(extent).await? {
                batches += segment.block(entry).await?.batches.len();
            }
        }
        if segment.id == ID { Ok(batches) } else { Err(Problem::Wrong("its id".to_owned())) }
    }

    #[tokio::test]
    async fn any_byte_that_is_wrong_is_seen() {
        let whole = segment();
        assert_eq!(read(whole.clone()).await.expect("whole"), 4);
        for at in 0..whole.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= mask;
                assert!(read(damaged).await.is_err(), "byte {at} ^ {mask:#x}");
            }
            assert!(read(whole[..at].to_vec()).await.is_err(), "cut at {at}");
        }
    }

    proptest::proptest! {
        /// Also where the ends look right.
        #[test]
        fn arbitrary_bytes_never_panic(
            position: u64, len: u64, bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300),
        ) {
            let mut framed = segment()[..HEADER_LEN].to_vec();
            framed.extend(bytes);
            framed.extend(position.to_le_bytes());
            framed.extend(len.to_le_bytes());
            framed.extend(b"SLSEGEND");
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            proptest::prop_assert!(runtime.block_on(read(framed)).is_err());
        }
    }
}
