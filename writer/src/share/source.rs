//! Where a share group's records come from: the streams as a fetch reads them, tail and bucket alike.

use std::sync::Arc;

use async_trait::async_trait;
use sluice_model::StreamId;
use sluice_model::group_config::OffsetReset;
use sluice_wire::{Chain, ErrorCode};
use tokio::sync::Notify;

use crate::stream::Offsets;

/// What a read gave.
#[derive(Clone, Debug)]
pub struct SourceRead {
    /// Whole batches in order; the first may begin before the offset asked for. Each piece of the chain
    /// has whole batches.
    pub records: Chain,
    /// (producer id, first offset) of aborted transactions in `records`, if only committed records were asked
    /// for.
    pub aborted: Vec<(i64, i64)>,
}

/// Streams to read. The caller has checked that they are the tenant's.
#[async_trait]
pub trait ShareSource: Send + Sync {
    /// The offsets of a stream.
    async fn offsets(&self, stream: StreamId) -> Result<Offsets, ErrorCode>;

    /// The epoch under which the stream's volume is owned, as clients see it.
    fn leader_epoch(&self, stream: StreamId) -> i32;

    /// About how many bytes lie from `offset` on, up to `enough`.
    fn available(&self, stream: StreamId, offset: i64, enough: u64) -> u64;

    /// Batches from the one that holds `offset` on: at least one if there is any, then up to
    /// `max_bytes`. Nothing at the end, or if it takes too long.
    async fn read(
        &self,
        stream: StreamId,
        offset: i64,
        max_bytes: u32,
        read_committed: bool,
    ) -> Result<SourceRead, ErrorCode>;

    /// The offset where a group begins.
    async fn reset(&self, stream: StreamId, reset: OffsetReset) -> Result<i64, ErrorCode>;

    /// Notifies `wake` when one of the streams changes, as long as what it gives is kept.
    fn watch(&self, streams: &[StreamId], wake: Arc<Notify>) -> Watching;
}

/// As long as it is kept, streams are watched.
pub type Watching = Box<dyn Send>;
