//! Reading batches from the bucket.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, future, stream};
use object_store::ObjectStore;
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::segment::{Block, Extent};
use sluice_format::{FormatError, StreamKey, VolumeState};
use sluice_wire::{Chain, scan};
use tokio::time::{Instant, timeout_at};

use crate::ahead::{Ahead, Cursor, Work};
use crate::load::{Piece, Purpose};
use crate::pages::{CacheMetrics, Pages};
use crate::share::{Bounds, Place, share_out};

/// A volume's state, shared with whoever advances it.
pub type SharedState = Arc<RwLock<VolumeState>>;

/// A request follows at most this many extents; the consumer asks again for more.
const MAX_EXTENTS: usize = 64;
/// Extents that one read asks for at once.
const EXTENTS_AT_ONCE: usize = 8;
/// After so long a read gives what it has, if it has anything. A slow bucket does not keep a consumer waiting
/// for all that it would take, and what came is used before a small cache lets go of it.
const PROMPT: Duration = Duration::from_secs(1);
/// What is read may keep so many times its own bytes in memory: pages that others want, too.
const MOST_HELD: u64 = 8;

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
    /// Bound of what is kept in memory.
    pub cache_bytes: u64,
}

/// Serves what lies in the bucket.
pub struct Reader {
    pub(crate) pages: Pages,
    pub(crate) keys: Keys,
    volumes: RwLock<HashMap<u32, SharedState>>,
    ahead: Ahead,
    cache_bytes: u64,
    pub(crate) metrics: CacheMetrics,
}

/// A stream that is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// The volume that it is on.
    pub volume: u32,
    /// The stream.
    pub stream: StreamKey,
    /// From here on.
    pub offset: i64,
    /// Up to so many bytes.
    pub max_bytes: u64,
}

/// About how many bytes of `extent` lie at `offset` and behind it, as if its records were of one size.
fn bytes_from(extent: &Extent, offset: i64) -> u64 {
    let offsets = |from: i64| u128::try_from(extent.end_offset.saturating_sub(from)).unwrap_or(0);
    let all = offsets(extent.base_offset).max(1);
    let part = u128::from(extent.data_len) * offsets(offset.max(extent.base_offset)) / all;
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Whole batches of `blocks` from the one that holds `offset` on, and where the last of them ends. `held` is
/// the memory that slices of the blocks would keep: if that is far more than they have, they are copied.
fn select(blocks: &[Block], held: u64, offset: i64, max_bytes: u64) -> (Chain, i64) {
    let mut out = Chain::default();
    let mut last = Bytes::new();
    for block in blocks {
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
    if held / MOST_HELD > out.len() as u64 {
        out = Chain::from(Bytes::from(out.to_bytes().to_vec()));
    }
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
        let ReaderOptions { cache_bytes } = options;
        let ahead = Ahead::new(cache_bytes);
        let pages = Pages::new(bucket, keys.clone(), cache_bytes, metrics.clone());
        Self { pages, keys, volumes: RwLock::default(), ahead, cache_bytes, metrics }
    }

    /// How much to [`Reader::read`] of each stream that one request wants; none for those that are to wait for
    /// the others: a few segments ahead of them, they are read with them by one of the next requests.
    pub fn share_out(&self, wishes: &[Wish]) -> Vec<Option<Bounds>> {
        let places = wishes.iter().map(|wish| {
            let Wish { volume, stream, offset, max_bytes } = *wish;
            let at = Cursor { volume, stream, offset };
            let extents = self.extents_from(at, Bounds::most(1)).unwrap_or_default();
            let first = extents.first();
            let bytes = first.map_or(0, |extent| bytes_from(extent, offset));
            Place { segment: first.map(|extent| extent.segment), bytes, max_bytes }
        });
        share_out(&places.collect::<Vec<_>>(), self.cache_bytes)
    }

    /// Serves a volume's streams from now on.
    pub fn attach(&self, volume: u32, state: SharedState) {
        self.volumes.write().insert(volume, state);
    }

    /// Serves a volume's streams no more. Reads that have begun go on; what the cache has of them stays
    /// until it is pushed out, as what lies in the bucket never changes.
    pub fn detach(&self, volume: u32) {
        self.volumes.write().remove(&volume);
    }

    /// Whole batches from the one that holds `offset` on, or from the next one that key compaction has
    /// left: at least one, then up to the bounds, fewer if the bucket is slow. The first may begin before
    /// `offset`. They may share the cache's memory.
    pub async fn read(
        self: &Arc<Self>,
        volume: u32,
        stream: StreamKey,
        offset: i64,
        bounds: Bounds,
    ) -> Result<Chain, ReadError> {
        let _demand = self.ahead.demand();
        let prompt = Instant::now() + PROMPT;
        let mut at = offset;
        loop {
            let read = self.read_from(Cursor { volume, stream, offset: at }, bounds, prompt);
            let (chain, end, looked_to) = match read.await {
                // All that follows in the bucket was looked at and holds nothing.
                Err(ReadError::NotHere) if at > offset => {
                    return Err(ReadError::Compacted { next: at });
                }
                read => read?,
            };
            if !chain.is_empty() {
                let bytes = chain.len() as u64;
                self.follow(Cursor { volume, stream, offset }, end, bytes);
                return Ok(chain);
            }
            if looked_to <= at {
                return Ok(chain);
            }
            at = looked_to;
        }
    }

    /// Batches from `at` on, where the last of them ends, and up to which offset that is all there is.
    async fn read_from(
        self: &Arc<Self>,
        at: Cursor,
        bounds: Bounds,
        prompt: Instant,
    ) -> Result<(Chain, i64, i64), ReadError> {
        let mut pieces = Box::pin(self.pieces(at, bounds, Purpose::Blocks)?);
        let (mut blocks, mut held) = (Vec::new(), 0);
        let mut looked_to = at.offset;
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
                    looked_to = piece.end;
                    held += piece.held;
                    blocks.extend(piece.blocks);
                }
                // What came before it is good; who goes on from there finds out.
                Some(Err(_)) if !blocks.is_empty() => break,
                Some(Err(error)) => return Err(error),
            }
        }
        let (chain, end) = select(&blocks, held, at.offset, bounds.max_bytes);
        Ok((chain, end, looked_to))
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
            if let Ok(pieces) = reader.pieces(cursor, Bounds::most(bytes), Purpose::Ahead) {
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

    /// What is to be read from `at` on, extent by extent in order, several under way, without a gap: behind one that
    /// was not read to its end there is none.
    fn pieces(
        self: &Arc<Self>,
        at: Cursor,
        bounds: Bounds,
        purpose: Purpose,
    ) -> Result<impl Stream<Item = Result<Piece, ReadError>> + Send + 'static, ReadError> {
        let extents = self.extents_from(at, bounds)?;
        let mut left = bounds.max_bytes;
        let parts = extents.into_iter().map(move |extent| {
            let here = bytes_from(&extent, at.offset);
            // All of it, however its records are spread, if more is wanted than it has.
            let bytes = if here < left { u64::MAX } else { left };
            left = left.saturating_sub(here);
            (extent, bytes)
        });
        let reader = Arc::clone(self);
        let pieces = stream::iter(parts).map(move |(extent, bytes)| {
            let reader = Arc::clone(&reader);
            async move {
                let piece = reader.piece(&extent, at.offset, bytes, purpose).await?;
                Ok((piece.end < extent.end_offset, piece))
            }
        });
        let goes_on = |is_cut: &mut bool, found: Result<(bool, Piece), ReadError>| {
            if std::mem::replace(is_cut, matches!(found, Ok((true, _)) | Err(_))) {
                return future::ready(None);
            }
            future::ready(Some(found.map(|(_, piece)| piece)))
        };
        Ok(pieces.buffered(EXTENTS_AT_ONCE).scan(false, goes_on))
    }

    pub(crate) fn state(&self, volume: u32) -> Option<SharedState> {
        self.volumes.read().get(&volume).cloned()
    }

    /// The extents of a stream from the one that holds an offset on, until they hold what is wanted.
    fn extents_from(&self, at: Cursor, bounds: Bounds) -> Result<Vec<Extent>, ReadError> {
        let Cursor { volume, stream, offset } = at;
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
            if bytes >= bounds.max_bytes.min(bounds.enough) {
                break;
            }
        }
        Ok(out)
    }
}
