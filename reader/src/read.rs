//! Reading batches from the bucket.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::ObjectStore;
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::segment::{BlockEntry, Extent};
use sluice_format::{FormatError, StreamKey, VolumeState};
use sluice_wire::{Chain, scan};

use crate::ahead::{Ahead, Cursor, Work};
use crate::cache::{CacheMetrics, ChunkCache, chunk_cache};
use crate::plan::{Chunk, chunks};

/// A volume's state, shared with whoever advances it.
pub type SharedState = Arc<RwLock<VolumeState>>;

/// A request follows at most this many extents; the consumer asks again for more.
const MAX_EXTENTS: usize = 64;

/// Why a read gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the bucket (below the log start, or not yet uploaded).
    #[error("the offset is not in the bucket")]
    NotHere,
    /// The bucket does not answer as it should; worth a retry.
    #[error("the bucket is unavailable: {0}")]
    Unavailable(Arc<object_store::Error>),
    /// What the bucket gave is not what was put there.
    #[error("segment {segment} is damaged: {error}")]
    Corrupt {
        /// The object's key.
        segment: String,
        /// What is wrong with it.
        error: FormatError,
    },
}

/// How a reader works.
#[derive(Clone, Copy, Debug)]
pub struct ReaderOptions {
    /// Bound of the chunk cache.
    pub cache_bytes: u64,
}

/// Serves what lies in the bucket.
pub struct Reader {
    pub(crate) bucket: Arc<dyn ObjectStore>,
    pub(crate) keys: Keys,
    volumes: RwLock<HashMap<u32, SharedState>>,
    pub(crate) cache: ChunkCache,
    ahead: Ahead,
    pub(crate) metrics: CacheMetrics,
}

/// What is to be read.
struct Plan {
    chunks: Vec<Chunk>,
    /// Bytes in them that were asked for.
    covered: u64,
    /// The offset behind the last of them.
    end: i64,
}

/// The offset behind a chunk of `extent`.
fn end_of(extent: &Extent, index: Option<&[BlockEntry]>, chunk: &Chunk) -> i64 {
    let end = chunk.position + chunk.len;
    let last = index.and_then(|blocks| blocks.iter().rfind(|block| block.position < end));
    last.map_or(extent.end_offset, |block| block.end_offset)
}

impl Reader {
    /// A reader of the cluster's part of `bucket`.
    pub fn new(
        bucket: Arc<dyn ObjectStore>,
        keys: Keys,
        options: ReaderOptions,
        metrics: CacheMetrics,
    ) -> Self {
        let cache = chunk_cache(options.cache_bytes);
        let ahead = Ahead::new(options.cache_bytes);
        Self { bucket, keys, volumes: RwLock::default(), cache, ahead, metrics }
    }

    /// Serves a volume's streams from now on.
    pub fn attach(&self, volume: u32, state: SharedState) {
        self.volumes.write().insert(volume, state);
    }

    /// Whole batches from the one that holds `offset` on: at least one, then up to `max_bytes`. The
    /// first may begin before `offset`. The pieces share the cache's memory.
    pub async fn read(
        self: &Arc<Self>,
        volume: u32,
        stream: StreamKey,
        offset: i64,
        max_bytes: u64,
    ) -> Result<Chain, ReadError> {
        let _demand = self.ahead.demand();
        let plan = self.plan(volume, stream, offset, max_bytes).await?;
        let blocks = self.load(plan.chunks).await?;
        let mut out = Chain::default();
        let mut end = offset;
        for block in blocks.iter().flat_map(|chunk| chunk.iter()) {
            if block.end_offset <= offset {
                continue;
            }
            let room = max_bytes.saturating_sub(out.len() as u64);
            let taken = scan::select(&block.payload, offset, room, out.is_empty());
            let whole = taken.len() == block.payload.len();
            let begins_inside = block.base_offset < offset;
            if !taken.is_empty() {
                end = match whole {
                    true => block.end_offset,
                    false => scan::spans(&taken).last().map_or(end, |span| span.end_offset),
                };
                out.push(taken);
            }
            if !whole && !begins_inside || out.len() as u64 >= max_bytes {
                break;
            }
        }
        if end > offset {
            self.follow(Cursor { volume, stream, offset }, end, out.len() as u64);
        }
        Ok(out)
    }

    /// Notes where a consumer is, and reads ahead of it if it goes on from where it was.
    fn follow(self: &Arc<Self>, at: Cursor, end: i64, bytes: u64) {
        let Some(work) = self.ahead.follow(at, end, bytes) else {
            return;
        };
        let reader = Arc::clone(self);
        tokio::spawn(async move {
            let Work { cursor, bytes, .. } = work;
            let read = async {
                let plan = reader.plan(cursor.volume, cursor.stream, cursor.offset, bytes).await?;
                let (end, covered) = (plan.end, plan.covered);
                reader.load(plan.chunks).await?;
                Ok::<_, ReadError>((end, covered))
            };
            match read.await {
                Ok((end, covered)) => {
                    reader.metrics.ahead_bytes.inc_by(covered);
                    work.done(end, covered);
                }
                // The end of what is in the bucket; or whoever reads there will find out, and say so.
                Err(_) => work.done(cursor.offset, 0),
            }
        });
    }

    /// The chunks to read for `max_bytes` from `offset` on.
    async fn plan(
        &self,
        volume: u32,
        stream: StreamKey,
        offset: i64,
        max_bytes: u64,
    ) -> Result<Plan, ReadError> {
        let extents = self.extents_from(volume, stream, offset, max_bytes)?;
        let mut plan = Plan { chunks: Vec::new(), covered: 0, end: offset };
        for extent in &extents {
            if plan.covered >= max_bytes && !plan.chunks.is_empty() {
                break;
            }
            let index = self.index(extent).await?;
            let left = max_bytes.saturating_sub(plan.covered).max(1);
            let (more, bytes) = chunks(extent, index.as_deref(), offset, left);
            if let Some(last) = more.last() {
                plan.end = end_of(extent, index.as_deref(), last);
            }
            plan.covered += bytes;
            plan.chunks.extend(more);
        }
        Ok(plan)
    }

    pub(crate) fn state(&self, volume: u32) -> Option<SharedState> {
        self.volumes.read().get(&volume).cloned()
    }

    /// The extents of a stream from the one that holds `offset` on, until they hold `max_bytes`.
    pub(crate) fn extents_from(
        &self,
        volume: u32,
        stream: StreamKey,
        offset: i64,
        max_bytes: u64,
    ) -> Result<Vec<Extent>, ReadError> {
        let state = self.state(volume).ok_or(ReadError::NotHere)?;
        let state = state.read();
        let stream = state.streams.get(&stream).ok_or(ReadError::NotHere)?;
        let first = stream.extent_at(offset).ok_or(ReadError::NotHere)?;
        if offset < stream.log_start || stream.extents[first].base_offset > offset {
            return Err(ReadError::NotHere);
        }
        let mut out = Vec::new();
        let mut bytes = 0;
        for extent in stream.extents.range(first..).take(MAX_EXTENTS) {
            out.push(*extent);
            // The first extent may hold little after the offset.
            if out.len() > 1 {
                bytes += u64::from(extent.data_len);
            }
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(out)
    }
}
