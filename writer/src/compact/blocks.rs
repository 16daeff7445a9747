//! An extent's blocks, one after the other, read from the bucket a few MiB at a time; and its transaction
//! section, which comes with the last of them.
//!
//! Every block's checksum is verified; damage ends the reading with an error, and whoever compacts leaves
//! the source as it is.

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sluice_format::key::Keys;
use sluice_format::segment::{BLOCK_HEADER_LEN, Block, split_block};
use sluice_format::{Extent, FormatError, SegmentId, TransactionSection};
use std::ops::Range;

/// How much is read at a time.
const STEP_BYTES: u64 = 4 << 20;

/// Why an extent could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// Worth another try, later.
    #[error("the bucket is unavailable: {0}")]
    Bucket(#[from] object_store::Error),
    /// What the bucket gave is not what was put there.
    #[error("segment {segment:?} is damaged: {error}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// What is wrong with it.
        error: FormatError,
    },
}

/// Reads an extent from its start.
pub(super) struct Blocks {
    segment: SegmentId,
    key: String,
    at: u64,
    end: u64,
    buffered: Bytes,
    section: Range<u64>,
    section_bytes: Option<Bytes>,
}

impl Blocks {
    pub(super) fn new(keys: &Keys, extent: &Extent) -> Self {
        let range = extent.data_range();
        Self {
            segment: extent.segment,
            key: keys.segment(extent.segment),
            at: range.start,
            end: range.end,
            buffered: Bytes::new(),
            section: extent.section_range(),
            section_bytes: None,
        }
    }

    /// What the extent says of its transactions and producers. Costs no request after the last block.
    pub(super) async fn section(
        &mut self,
        bucket: &dyn ObjectStore,
    ) -> Result<TransactionSection, ReadError> {
        if self.section.is_empty() {
            return Ok(TransactionSection::default());
        }
        let bytes = match self.section_bytes.take() {
            Some(bytes) => bytes,
            None => self.read(bucket, self.section.clone()).await?,
        };
        TransactionSection::decode(&bytes).map_err(|error| self.damaged(error))
    }

    /// The next block; none at the end. Gives how many bytes were read for it, too.
    pub(super) async fn next(
        &mut self,
        bucket: &dyn ObjectStore,
    ) -> Result<Option<(Block, u64)>, ReadError> {
        let before = self.at;
        loop {
            if self.buffered.is_empty() && self.at == self.end {
                return Ok(None);
            }
            let wanted = self.block_len();
            if self.buffered.len() as u64 >= wanted {
                break;
            }
            if self.at == self.end {
                return Err(self.damaged(FormatError::Truncated { what: "segment" }));
            }
            self.more(bucket, wanted).await?;
        }
        match split_block(&mut self.buffered) {
            Ok(block) => Ok(Some((block, self.at - before))),
            Err(error) => Err(self.damaged(error)),
        }
    }

    /// How long the block at the front is; the length of a header as long as that is not there. What the
    /// header claims is believed only as far as the extent reaches.
    fn block_len(&self) -> u64 {
        let header = BLOCK_HEADER_LEN as u64;
        match self.buffered.get(4..8).and_then(|len| len.first_chunk()) {
            Some(len) => header + u64::from(u32::from_le_bytes(*len)),
            None => header,
        }
    }

    async fn more(&mut self, bucket: &dyn ObjectStore, wanted: u64) -> Result<(), ReadError> {
        let missing = wanted - self.buffered.len() as u64;
        let to = (self.at + missing.max(STEP_BYTES)).min(self.end);
        let last = to == self.end && !self.section.is_empty();
        let read_to = if last { self.section.end } else { to };
        let mut read = self.read(bucket, self.at..read_to).await?;
        if last {
            self.section_bytes = Some(read.split_off((self.section.start - self.at) as usize));
            read.truncate((to - self.at) as usize);
        }
        self.at = to;
        if self.buffered.is_empty() {
            self.buffered = read;
        } else {
            let mut joined = BytesMut::with_capacity(self.buffered.len() + read.len());
            joined.extend_from_slice(&self.buffered);
            joined.extend_from_slice(&read);
            self.buffered = joined.freeze();
        }
        Ok(())
    }

    async fn read(&self, bucket: &dyn ObjectStore, range: Range<u64>) -> Result<Bytes, ReadError> {
        let wanted = range.end - range.start;
        let read = bucket.get_range(&Path::from(self.key.as_str()), range).await?;
        if read.len() as u64 != wanted {
            return Err(self.damaged(FormatError::Truncated { what: "segment" }));
        }
        Ok(read)
    }

    fn damaged(&self, error: FormatError) -> ReadError {
        ReadError::Damaged { segment: self.segment, error }
    }
}
