//! What is kept, bounded by bytes.

use std::ops::Range;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use sluice_format::segment::SegmentId;

/// Memory that an entry takes beside its bytes, roughly.
const ENTRY_OVERHEAD_BYTES: u64 = 128;

/// The part of the cache for what was asked for more than once. The rest is for what was just read: it
/// must outlast the few requests in which consumers walk through a page.
const HOT_PART: f64 = 0.25;

/// The cache is divided by this: entries are large, and many small shards would fill unevenly and let
/// go of what was read ahead before it is used.
const SHARD_BYTES: u64 = 512 << 20;

/// Which bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A page, by its number.
    Page(SegmentId, u64),
    /// What was asked for alone: where it begins and ends.
    Alone(SegmentId, u64, u64),
}

impl Key {
    pub(super) fn page(segment: SegmentId, number: u64) -> Self {
        Self::Page(segment, number)
    }

    pub(super) fn alone(segment: SegmentId, range: &Range<u64>) -> Self {
        Self::Alone(segment, range.start, range.end)
    }
}

#[derive(Clone)]
pub(super) struct ByBytes;

impl Weighter<Key, Bytes> for ByBytes {
    fn weight(&self, _: &Key, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + ENTRY_OVERHEAD_BYTES
    }
}

pub(super) type ByteCache = Cache<Key, Bytes, ByBytes>;

/// Requests to the bucket and what the cache saved.
#[derive(Clone, Debug, Default)]
pub struct CacheMetrics {
    /// Range reads made.
    pub gets: Counter,
    /// Bytes that they brought.
    pub get_bytes: Counter,
    /// Ranges that were found in memory, whole.
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
        add("reader_cache_hits", "Ranges of segments found in memory", &self.hits);
        add("reader_rereads", "Reads made once more after damaged bytes", &self.rereads);
        add("reader_ahead_bytes", "Bytes read before they were asked for", &self.ahead_bytes);
        add("reader_errors", "Reads that failed or brought damaged bytes", &self.errors);
    }
}

/// A cache of `capacity_bytes`.
pub(super) fn byte_cache(capacity_bytes: u64) -> ByteCache {
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
