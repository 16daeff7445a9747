//! Finding a record by its timestamp in the bucket.

use sluice_format::StreamKey;
use sluice_format::segment::{Block, BlockEntry, Extent};
use sluice_wire::scan;

use crate::load::Purpose;
use crate::read::{ReadError, Reader};

/// A compressed batch may hold this much uncompressed when its records are looked at.
const MAX_INFLATED_BYTES: usize = 64 << 20;

/// A record that was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, ms.
    pub timestamp_ms: i64,
}

impl Reader {
    /// The first record in the bucket, at or after the log start, whose timestamp is at least
    /// `timestamp_ms`. `from` is the log start if it is known to be higher than the bucket knows it.
    pub async fn find_timestamp(
        &self,
        volume: u32,
        stream: StreamKey,
        timestamp_ms: i64,
        from: i64,
    ) -> Result<Option<Found>, ReadError> {
        match self.find_timestamp_now(volume, stream, timestamp_ms, from).await {
            // A segment went while it was looked into: what it held lies in another one, or is gone.
            Err(ReadError::NotHere) => {
                self.find_timestamp_now(volume, stream, timestamp_ms, from).await
            }
            found => found,
        }
    }

    async fn find_timestamp_now(
        &self,
        volume: u32,
        stream: StreamKey,
        timestamp_ms: i64,
        lowest: i64,
    ) -> Result<Option<Found>, ReadError> {
        let (log_start, extents) = self.extents_with_timestamp(volume, stream, timestamp_ms);
        let log_start = log_start.max(lowest);
        for extent in extents.iter().filter(|extent| extent.end_offset > log_start) {
            let mut from = extent.base_offset;
            loop {
                let blocks = self.blocks_with_timestamp(extent, from, timestamp_ms).await?;
                let Some(last) = blocks.last() else { break };
                from = last.end_offset;
                for block in blocks.iter().filter(|block| block.max_timestamp >= timestamp_ms) {
                    let found = scan::find_timestamp(
                        &block.payload,
                        timestamp_ms,
                        log_start,
                        MAX_INFLATED_BYTES,
                    );
                    if let Some((offset, timestamp_ms)) = found {
                        return Ok(Some(Found { offset, timestamp_ms }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The largest timestamp that the bucket has of a stream.
    pub fn max_timestamp(&self, volume: u32, stream: StreamKey) -> Option<i64> {
        let state = self.state(volume)?;
        let state = state.read();
        let stream = state.streams.get(&stream)?;
        stream.extents.iter().map(|extent| extent.max_timestamp).max()
    }

    /// The log start, and the extents that may have such a record.
    fn extents_with_timestamp(
        &self,
        volume: u32,
        stream: StreamKey,
        timestamp_ms: i64,
    ) -> (i64, Vec<Extent>) {
        let Some(state) = self.state(volume) else {
            return (0, Vec::new());
        };
        let state = state.read();
        let Some(stream) = state.streams.get(&stream) else {
            return (0, Vec::new());
        };
        let candidates = stream.extents.iter().filter(|e| e.max_timestamp >= timestamp_ms);
        (stream.log_start, candidates.copied().collect())
    }

    /// Blocks of an extent from the first one with such a timestamp at or after `from`; none if there is none.
    async fn blocks_with_timestamp(
        &self,
        extent: &Extent,
        from: i64,
        timestamp_ms: i64,
    ) -> Result<Vec<Block>, ReadError> {
        if extent.blocks == 0 || from >= extent.end_offset {
            return Ok(Vec::new());
        }
        let mut first = from;
        if extent.blocks > 1 {
            let index = self.index(extent).await?;
            let wanted = |block: &&BlockEntry| {
                block.base_offset >= from && block.max_timestamp >= timestamp_ms
            };
            match index.iter().find(wanted) {
                Some(block) => first = block.base_offset,
                None => return Ok(Vec::new()),
            }
        }
        Ok(self.piece(extent, first, 1, Purpose::Blocks).await?.blocks)
    }
}
