//! Bytes of segments, in memory as far as there is room: pages, and what was asked for alone.
//!
//! A segment is cut into pages of fixed size and place, and pages are what is kept. A segment that compaction
//! has not seen holds a little of many streams, side by side; consumers of several of them, or several
//! consumers, want the same pages at about the same time, and the bucket counts requests. So what is wanted of a
//! segment is gathered ([`gather`]): neighbouring pages come by one request, a page comes once however many want
//! it, and all of a page comes if many want some of it. Who is alone with a small part of a page gets just that if it
//! wants no more ([`Grain`]).
//!
//! What lies here is not verified: whoever reads it checks it each time, and says [`Pages::forget`] of what is
//! damaged.

mod body;
mod cache;
mod gather;
mod joined;
mod span;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use sluice_format::FormatError;
use sluice_format::key::Keys;
use sluice_format::segment::SegmentId;

pub use cache::CacheMetrics;
pub(crate) use span::Span;

use cache::{ByteCache, Key};
use gather::Gather;
use joined::Joined;

/// Bytes of a page; the last one of a segment has fewer.
pub(crate) const PAGE_BYTES: u64 = 1 << 20;

/// Why bytes did not come; shared by all who waited for them.
pub(crate) type GetError = Arc<object_store::Error>;

/// How bytes are asked for that nobody else wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grain {
    /// As whole pages: more of them will be wanted.
    Pages,
    /// As they are, if they are a small part of their pages.
    Alone,
}

/// Segments' bytes. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Pages {
    cache: Arc<ByteCache>,
    gather: Gather,
    joined: Arc<Joined>,
    metrics: CacheMetrics,
}

impl Pages {
    /// Over the cluster's part of `bucket`, keeping `cache_bytes`.
    pub(crate) fn new(
        bucket: Arc<dyn ObjectStore>,
        keys: Keys,
        cache_bytes: u64,
        metrics: CacheMetrics,
    ) -> Self {
        let cache = Arc::new(cache::byte_cache(cache_bytes));
        let gather = Gather::new(bucket, keys, Arc::clone(&cache), cache_bytes, metrics.clone());
        Self { cache, gather, joined: Arc::default(), metrics }
    }

    /// At least the bytes of `range`, unless the segment ends before.
    pub(crate) async fn get(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        grain: Grain,
    ) -> Result<Span, GetError> {
        if range.is_empty() {
            return Ok(Span::new(range.start, Vec::new()));
        }
        let found: Vec<Option<Bytes>> =
            pages_of(&range).map(|page| self.cache.get(&Key::page(segment, page))).collect();
        let alone = || self.cache.get(&Key::alone(segment, &range));
        if found.iter().all(Option::is_some) {
            self.metrics.hits.inc();
            return Ok(Span::of_pages(&range, found.into_iter().flatten()));
        }
        if let Some(bytes) = alone() {
            self.metrics.hits.inc();
            return Ok(Span::new(range.start, vec![bytes]));
        }
        self.gather.get(segment, range, grain, found).await
    }

    /// The bytes of `range`, which lies on `span`, in one piece.
    ///
    /// # Errors
    /// [`FormatError::Truncated`] if they are not all there.
    pub(crate) fn in_one_piece(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        span: &Span,
    ) -> Result<Bytes, FormatError> {
        match span.slice(&range) {
            Some(slice) => Ok(slice),
            None => self.joined.get(segment, &range, || span.bytes(range.clone())),
        }
    }

    /// Remembers `range` of what came alone with more: it will be asked for by itself. What lies on pages is found there.
    pub(crate) fn keep(&self, segment: SegmentId, range: Range<u64>, of: &Span) {
        let key = Key::alone(segment, &range);
        if of.is_of_pages() || self.cache.peek(&key).is_some() {
            return;
        }
        if let Ok(bytes) = of.bytes(range) {
            self.cache.insert(key, Bytes::copy_from_slice(&bytes));
        }
    }

    /// Lets go of what `range` lies on: it is damaged, and is to be read again.
    pub(crate) fn forget(&self, segment: SegmentId, range: Range<u64>) {
        self.joined.forget(segment, &range);
        self.cache.remove(&Key::alone(segment, &range));
        for page in pages_of(&range) {
            self.cache.remove(&Key::page(segment, page));
        }
    }
}

/// The pages that `range` lies on.
fn pages_of(range: &Range<u64>) -> Range<u64> {
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

/// Where a page lies.
fn bytes_of(page: u64) -> Range<u64> {
    page * PAGE_BYTES..(page + 1) * PAGE_BYTES
}
