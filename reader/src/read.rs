//! Reading batches from the bucket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future, stream};
use object_store::ObjectStore;
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::segment::{Block, BlockEntry, Extent};
use sluice_format::{FormatError, StreamKey, VolumeState};
use sluice_wire::{Chain, scan};
use tokio::time::{Instant, timeout_at};

use crate::ahead::{Ahead, Cursor, Work};
use crate::cache::{CacheMetrics, ChunkCache, chunk_cache};
use crate::gather::{Gather, MAX_GET_BYTES};
use crate::plan::{Chunk, chunks};

/// A volume's state, shared with whoever advances it.
pub type SharedState = Arc<RwLock<VolumeState>>;

/// A request follows at most this many extents; the consumer asks again for more.
const MAX_EXTENTS: usize = 64;
/// Extents that one read asks for at once.
const EXTENTS_AT_ONCE: usize = 8;
/// After so long a read gives what it has, if it has anything. A slow bucket does not keep a consumer waiting
/// for all that it would take, and what came is used before a small cache lets go of it.
const PROMPT: Duration = Duration::from_secs(1);
/// An extent below this is read whole, wherever the consumer is in it.
const SMALL_EXTENT_BYTES: u32 = 1 << 20;
/// Room for an extent's index in a request that reads it whole.
const INDEX_ALLOWANCE_BYTES: u64 = 64 << 10;

/// Why a read gave nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is not in the bucket (below the log start, or not yet uploaded).
    #[error("the offset is not in the bucket")]
    NotHere,
    /// Key compaction has removed every record from the offset on that the bucket had.
    #[error("the bucket has no record between the offset and {next}")]
    Compacted {
        /// Where the bucket ends; look there for the next record.
        next: i64,
    },
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
    pub(crate) gather: Gather,
    pub(crate) keys: Keys,
    volumes: RwLock<HashMap<u32, SharedState>>,
    pub(crate) cache: ChunkCache,
    ahead: Ahead,
    pub(crate) metrics: CacheMetrics,
}

/// What was read of one extent.
struct Piece {
    blocks: Vec<Arc<[Block]>>,
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

/// About how many bytes of `extent` lie at `offset` and behind it, as if its records were of one size.
fn bytes_from(extent: &Extent, offset: i64) -> u64 {
    let offsets = |from: i64| u128::try_from(extent.end_offset.saturating_sub(from)).unwrap_or(0);
    let all = offsets(extent.base_offset).max(1);
    let part = u128::from(extent.data_len) * offsets(offset.max(extent.base_offset)) / all;
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Whole batches of `chunks` from the one that holds `offset` on, and where the last of them ends.
fn select(chunks: &[Arc<[Block]>], offset: i64, max_bytes: u64) -> (Chain, i64) {
    let mut out = Chain::default();
    let mut last = Bytes::new();
    for block in chunks.iter().flat_map(|chunk| chunk.iter()) {
        if block.end_offset <= offset {
            continue;
        }
        let room = max_bytes.saturating_sub(out.len() as u64);
        let taken = scan::select(&block.payload, offset, room, out.is_empty());
        if !taken.batches.is_empty() {
            last = taken.batches.clone();
            out.push(taken.batches);
        }
        if !taken.to_end || out.len() as u64 >= max_bytes {
            break;
        }
    }
    // Not the block's end: a compacted one reaches further than its last batch, and a consumer does not
    // know that.
    let end = scan::spans(&last).last().map_or(offset, |span| span.end_offset);
    (out, end)
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
        let gather = Gather::new(bucket, keys.clone(), metrics.clone());
        Self { gather, keys, volumes: RwLock::default(), cache, ahead, metrics }
    }

    /// Serves a volume's streams from now on.
    pub fn attach(&self, volume: u32, state: SharedState) {
        self.volumes.write().insert(volume, state);
    }

    /// Whole batches from the one that holds `offset` on, or from the next one that key compaction has
    /// left: at least one, then up to `max_bytes`, fewer if the bucket is slow. The first may begin before
    /// `offset`. The pieces share the cache's memory.
    pub async fn read(
        self: &Arc<Self>,
        volume: u32,
        stream: StreamKey,
        offset: i64,
        max_bytes: u64,
    ) -> Result<Chain, ReadError> {
        let _demand = self.ahead.demand();
        let prompt = Instant::now() + PROMPT;
        let mut at = offset;
        loop {
            let read = self.read_from(Cursor { volume, stream, offset: at }, max_bytes, prompt);
            let (blocks, looked_to) = match read.await {
                // All that follows in the bucket was looked at and holds nothing.
                Err(ReadError::NotHere) if at > offset => {
                    return Err(ReadError::Compacted { next: at });
                }
                read => read?,
            };
            let (out, end) = select(&blocks, at, max_bytes);
            if !out.is_empty() {
                let bytes = out.len() as u64;
                self.follow(Cursor { volume, stream, offset }, end, bytes);
                return Ok(out);
            }
            if looked_to <= at {
                return Ok(out);
            }
            at = looked_to;
        }
    }

    /// Blocks from `at` on, and up to which offset that is all there is.
    async fn read_from(
        self: &Arc<Self>,
        at: Cursor,
        max_bytes: u64,
        prompt: Instant,
    ) -> Result<(Vec<Arc<[Block]>>, i64), ReadError> {
        let mut pieces = Box::pin(self.pieces(at, max_bytes, max_bytes)?);
        let mut blocks = Vec::new();
        let mut end = at.offset;
        loop {
            let next = match blocks.is_empty() {
                true => pieces.next().await,
                false => match timeout_at(prompt, pieces.next()).await {
                    Ok(next) => next,
                    Err(_) => {
                        // What is under way is for the consumer's next request.
                        tokio::spawn(async move { while pieces.next().await.is_some() {} });
                        break;
                    }
                },
            };
            match next {
                None => break,
                Some(Ok(piece)) => {
                    end = piece.end;
                    blocks.extend(piece.blocks);
                }
                // What came before it is good; who goes on from there finds out.
                Some(Err(_)) if !blocks.is_empty() => break,
                Some(Err(error)) => return Err(error),
            }
        }
        Ok((blocks, end))
    }

    /// Notes where a consumer is, and reads ahead of it if it goes on from where it was.
    fn follow(self: &Arc<Self>, at: Cursor, end: i64, bytes: u64) {
        let Some(work) = self.ahead.follow(at, end, bytes) else {
            return;
        };
        let reader = Arc::clone(self);
        tokio::spawn(async move {
            let Work { cursor, bytes, .. } = work;
            let (mut end, mut covered) = (cursor.offset, 0);
            // All of an extent will be asked for: one request for it, if it fits the window.
            if let Ok(pieces) = reader.pieces(cursor, bytes, 2 * bytes) {
                let mut pieces = Box::pin(pieces);
                // An error is the end of what is in the bucket; or whoever reads there will find out.
                while let Some(Ok(piece)) = pieces.next().await {
                    end = piece.end;
                    covered += piece.covered;
                }
            }
            reader.metrics.ahead_bytes.inc_by(covered);
            work.done(end, covered);
        });
    }

    /// What is to be read for `max_bytes` from `at` on, extent by extent in order, several under way. Extents
    /// that begin there or behind are read whole if they have at most `whole` bytes.
    fn pieces(
        self: &Arc<Self>,
        at: Cursor,
        max_bytes: u64,
        whole: u64,
    ) -> Result<impl Stream<Item = Result<Piece, ReadError>> + Send + 'static, ReadError> {
        let offset = at.offset;
        let whole = whole.min(MAX_GET_BYTES - INDEX_ALLOWANCE_BYTES);
        let extents = self.extents_from(at.volume, at.stream, offset, max_bytes)?;
        let (of_index, of_load) = (Arc::clone(self), Arc::clone(self));
        let indexes = stream::iter(extents).map(move |extent| {
            let reader = Arc::clone(&of_index);
            async move {
                let all = extent.base_offset >= offset || extent.data_len < SMALL_EXTENT_BYTES;
                let with_data = all && u64::from(extent.data_len) <= whole;
                Ok::<_, ReadError>((extent, reader.index(&extent, with_data).await?))
            }
        });
        let mut covered = 0;
        let mut looked_into = false;
        let plans = indexes.buffered(EXTENTS_AT_ONCE).scan((), move |(), found| {
            if looked_into && covered >= max_bytes {
                return future::ready(None);
            }
            future::ready(Some(found.map(|(extent, index)| {
                if extent.blocks == 0 {
                    return (Vec::new(), 0, extent.end_offset);
                }
                looked_into = true;
                let mut left = max_bytes.saturating_sub(covered).max(1);
                if extent.base_offset >= offset && u64::from(extent.data_len) <= whole {
                    left = left.max(u64::from(extent.data_len));
                }
                let (wanted, bytes) = chunks(&extent, index.as_deref(), offset, left);
                let end = wanted.last().map(|last| end_of(&extent, index.as_deref(), last));
                covered += bytes;
                (wanted, bytes, end.unwrap_or(extent.end_offset))
            })))
        });
        let pieces = plans.map(move |plan| {
            let reader = Arc::clone(&of_load);
            async move {
                let (wanted, covered, end) = plan?;
                Ok(Piece { blocks: reader.load(wanted).await?, covered, end })
            }
        });
        Ok(pieces.buffered(EXTENTS_AT_ONCE))
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
            bytes += bytes_from(extent, offset);
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(out)
    }
}
