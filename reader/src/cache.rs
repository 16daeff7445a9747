//! The cache of verified chunks and block indexes, bounded by bytes; concurrent misses of one chunk
//! make one request.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use sluice_format::segment::{Block, BlockEntry};

use crate::aborted::Aborted;
use crate::plan::Chunk;

/// Memory that an entry takes beside its bytes, roughly.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// A chunk's blocks, or an extent's index or what its transaction section says (found under the chunk that
/// names their range).
#[derive(Clone, Debug)]
pub(crate) enum Cached {
    Blocks(Arc<[Block]>),
    Index(Arc<[BlockEntry]>),
    Aborted(Arc<Aborted>),
}

#[derive(Clone)]
pub(crate) struct ByBytes;

impl Weighter<Chunk, Cached> for ByBytes {
    fn weight(&self, chunk: &Chunk, _: &Cached) -> u64 {
        chunk.len + ENTRY_OVERHEAD_BYTES
    }
}

/// Requests to the bucket and what the cache saved.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    /// Range reads made.
    pub gets: Counter,
    /// Bytes that they brought.
    pub get_bytes: Counter,
    /// Chunks and indexes found in memory.
    pub hits: Counter,
    /// Reads that failed or brought damaged bytes.
    pub errors: Counter,
    /// Reads that were made once more because what came was damaged.
    pub rereads: Counter,
    /// Bytes read before a consumer asked for them.
    pub ahead_bytes: Counter,
}

impl CacheMetrics {
    /// Registers the counters.
    pub fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        add("reader_bucket_gets", "Range reads made to the bucket", &self.gets);
        add("reader_bucket_get_bytes", "Bytes read from the bucket", &self.get_bytes);
        add("reader_cache_hits", "Chunks found in memory", &self.hits);
        add("reader_rereads", "Reads made once more after damaged bytes", &self.rereads);
        add("reader_ahead_bytes", "Bytes read before they were asked for", &self.ahead_bytes);
        add("reader_errors", "Reads that failed or brought damaged bytes", &self.errors);
    }
}

pub(crate) type ChunkCache = Cache<Chunk, Cached, ByBytes>;

/// The part of the cache for what was asked for more than once. The rest is for what was just read: it
/// must outlast the few requests in which a consumer walks through a chunk.
const HOT_PART: f64 = 0.25;

/// The cache is divided by this: entries are large, and many small shards would fill unevenly and let
/// go of what was read ahead before it is used.
const SHARD_BYTES: u64 = 512 << 20;

/// A cache of `capacity_bytes`.
pub(crate) fn chunk_cache(capacity_bytes: u64) -> ChunkCache {
    // About one entry per MiB is expected; the estimate only sizes the table.
    let entries = (capacity_bytes >> 20).max(16) as usize;
    let options = OptionsBuilder::new()
        .shards((capacity_bytes / SHARD_BYTES).clamp(1, 16) as usize)
        .estimated_items_capacity(entries)
        .weight_capacity(capacity_bytes)
        .hot_allocation(HOT_PART)
        .build()
        .expect("both capacities are set");
    Cache::with_options(
        options,
        ByBytes,
        DefaultHashBuilder::default(),
        DefaultLifecycle::default(),
    )
}
