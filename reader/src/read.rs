//! Reading batches from the bucket.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::segment::{Block, BlockEntry, Extent, decode_index, split_block};
use sluice_format::{FormatError, StreamKey, VolumeState};
use sluice_wire::{Chain, scan};

use crate::cache::{CacheMetrics, Cached, ChunkCache, chunk_cache};
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
    bucket: Arc<dyn ObjectStore>,
    keys: Keys,
    volumes: RwLock<HashMap<u32, SharedState>>,
    cache: ChunkCache,
    metrics: CacheMetrics,
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
        Self { bucket, keys, volumes: RwLock::default(), cache, metrics }
    }

    /// Serves a volume's streams from now on.
    pub fn attach(&self, volume: u32, state: SharedState) {
        self.volumes.write().insert(volume, state);
    }

    /// Whole batches from the one that holds `offset` on: at least one, then up to `max_bytes`. The
    /// first may begin before `offset`. The pieces share the cache's memory.
    pub async fn read(
        &self,
        volume: u32,
        stream: StreamKey,
        offset: i64,
        max_bytes: u64,
    ) -> Result<Chain, ReadError> {
        let extents = self.extents_from(volume, stream, offset, max_bytes)?;
        let mut wanted = Vec::new();
        let mut covered = 0;
        for extent in &extents {
            if covered >= max_bytes && !wanted.is_empty() {
                break;
            }
            let index = self.index(extent).await?;
            let (more, bytes) =
                chunks(extent, index.as_deref(), offset, max_bytes.saturating_sub(covered).max(1));
            covered += bytes;
            wanted.extend(more);
        }
        let blocks = try_join_all(wanted.into_iter().map(|chunk| self.blocks(chunk))).await?;
        let mut out = Chain::default();
        for block in blocks.iter().flat_map(|chunk| chunk.iter()) {
            if block.end_offset <= offset {
                continue;
            }
            let room = max_bytes.saturating_sub(out.len() as u64);
            let taken = scan::select(&block.payload, offset, room, out.is_empty());
            let whole = taken.len() == block.payload.len();
            let begins_inside = block.base_offset < offset;
            if !taken.is_empty() {
                out.push(taken);
            }
            if !whole && !begins_inside || out.len() as u64 >= max_bytes {
                break;
            }
        }
        Ok(out)
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

    /// An extent's index; none for an extent of one block.
    pub(crate) async fn index(
        &self,
        extent: &Extent,
    ) -> Result<Option<Arc<[BlockEntry]>>, ReadError> {
        if extent.blocks == 1 {
            return Ok(None);
        }
        let range = extent.index_range();
        let chunk =
            Chunk { segment: extent.segment, position: range.start, len: range.end - range.start };
        let decode = |bytes: Bytes| Ok(Cached::Index(decode_index(&bytes)?.into()));
        match self.cached(chunk, decode).await? {
            Cached::Index(index) => Ok(Some(index)),
            Cached::Blocks(_) => Err(self.foreign(chunk)),
        }
    }

    /// A chunk's blocks, verified.
    pub(crate) async fn blocks(&self, chunk: Chunk) -> Result<Arc<[Block]>, ReadError> {
        let decode = |mut bytes: Bytes| {
            let mut blocks = Vec::new();
            while !bytes.is_empty() {
                blocks.push(split_block(&mut bytes)?);
            }
            Ok(Cached::Blocks(blocks.into()))
        };
        match self.cached(chunk, decode).await? {
            Cached::Blocks(blocks) => Ok(blocks),
            Cached::Index(_) => Err(self.foreign(chunk)),
        }
    }

    fn foreign(&self, chunk: Chunk) -> ReadError {
        let error =
            FormatError::Invalid { what: "segment", why: "an index lies where data should" };
        ReadError::Corrupt { segment: self.keys.segment(chunk.segment), error }
    }

    async fn cached(
        &self,
        chunk: Chunk,
        decode: impl FnOnce(Bytes) -> Result<Cached, FormatError>,
    ) -> Result<Cached, ReadError> {
        if let Some(found) = self.cache.get(&chunk) {
            self.metrics.hits.inc();
            return Ok(found);
        }
        self.cache.get_or_insert_async(&chunk, self.fetch(chunk, decode)).await
    }

    async fn fetch(
        &self,
        chunk: Chunk,
        decode: impl FnOnce(Bytes) -> Result<Cached, FormatError>,
    ) -> Result<Cached, ReadError> {
        let key = self.keys.segment(chunk.segment);
        let range = chunk.position..chunk.position + chunk.len;
        self.metrics.gets.inc();
        let bytes = match self.bucket.get_range(&Path::from(key.as_str()), range).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.metrics.errors.inc();
                return Err(match error {
                    // Retention has removed it since the plan was made.
                    object_store::Error::NotFound { .. } => ReadError::NotHere,
                    error => ReadError::Unavailable(Arc::new(error)),
                });
            }
        };
        self.metrics.get_bytes.inc_by(bytes.len() as u64);
        let decoded = if bytes.len() as u64 == chunk.len {
            decode(bytes)
        } else {
            Err(FormatError::Truncated { what: "segment" })
        };
        decoded.map_err(|error| {
            self.metrics.errors.inc();
            tracing::error!(segment = key, %error, "the bucket gave damaged bytes");
            ReadError::Corrupt { segment: key, error }
        })
    }
}
