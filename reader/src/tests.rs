//! The reader over a bucket in memory, filled as a writer would.

mod many;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use object_store::limit::LimitStore;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::segment::{BuiltSegment, Piece, SegmentBuilder};
use sluice_format::{Replacement, SegmentId, StreamKey, StreamUpdate, VolumeChange, VolumeState};
use sluice_wire::batch::{BatchBuilder, NewRecord};
use sluice_wire::scan;
use tokio::time::Instant;

use crate::{Bounds, CacheMetrics, Found, ReadError, Reader, ReaderOptions};

const STREAM: StreamKey = StreamKey { topic: [5; 16], partition: 2 };
const OTHER: StreamKey = StreamKey { topic: [6; 16], partition: 0 };

struct Fixture {
    bucket: Arc<InMemory>,
    keys: Keys,
    state: Arc<RwLock<VolumeState>>,
    reader: Arc<Reader>,
    metrics: CacheMetrics,
}

/// Ten records of `len` bytes, one every 10 ms.
fn batch(base_offset: i64, len: usize) -> Bytes {
    let mut builder = BatchBuilder::new().base_offset(base_offset);
    let value = vec![1; len / 10];
    for n in 0..10 {
        let timestamp_ms = (base_offset + n) * 10;
        builder.push(&NewRecord { timestamp_ms, key: None, value: Some(&value), headers: &[] });
    }
    builder.build()
}

/// Such a batch as a piece of an extent.
fn piece(base_offset: i64, len: usize) -> Piece {
    Piece {
        base_offset,
        end_offset: base_offset + 10,
        max_timestamp: (base_offset + 9) * 10,
        batches: 1,
        leader_epoch: 1,
        bytes: batch(base_offset, len),
    }
}

/// Puts a segment into the bucket and commits it. Gives its length.
async fn put(bucket: &InMemory, keys: &Keys, state: &mut VolumeState, built: BuiltSegment) -> u64 {
    let path = Path::from(keys.segment(built.id));
    bucket.put(&path, PutPayload::from_iter(built.parts)).await.unwrap();
    let streams = built.extents.iter().map(|(key, extent)| {
        let update = StreamUpdate {
            log_start: 0,
            end_offset: extent.end_offset,
            extent: Some(*extent),
            epochs: Vec::new(),
            producers: Vec::new(),
        };
        (*key, update)
    });
    let change = VolumeChange {
        epoch: 1,
        added_segments: vec![(built.id, built.len)],
        streams: streams.collect(),
        ..VolumeChange::default()
    };
    state.apply(state.version + 1, &change).unwrap();
    built.len
}

impl Fixture {
    /// Each entry is a segment; in it `batches` batches of `len` bytes of the stream, and one of
    /// another stream.
    async fn new(segments: &[(usize, usize)]) -> Self {
        let bucket = Arc::new(InMemory::new());
        let keys = Keys::new("c");
        let mut state = VolumeState::default();
        let mut next = 0;
        for (sequence, (batches, len)) in segments.iter().enumerate() {
            let id = SegmentId { volume: 0, epoch: 1, sequence: sequence as u64 };
            let mut builder = SegmentBuilder::new(id);
            let pieces: Vec<_> = (0..*batches).map(|n| piece(next + n as i64 * 10, *len)).collect();
            next += *batches as i64 * 10;
            builder.push_extent(STREAM, &pieces);
            let other = Piece { max_timestamp: 0, ..piece(sequence as i64 * 10, 100) };
            builder.push_extent(OTHER, &[other]);
            put(&bucket, &keys, &mut state, builder.finish()).await;
        }
        let state = Arc::new(RwLock::new(state));
        let metrics = CacheMetrics::default();
        let reader = Arc::new(Reader::new(
            Arc::clone(&bucket) as Arc<dyn ObjectStore>,
            keys.clone(),
            ReaderOptions { cache_bytes: 32 << 20 },
            metrics.clone(),
        ));
        reader.attach(0, Arc::clone(&state));
        Self { bucket, keys, state, reader, metrics }
    }

    /// Puts a compacted segment in the place of all extents of the stream: of the offsets up to `end`
    /// only the batches at `left` remain.
    async fn compact(&self, ranges: &[(i64, &[i64])], len: usize) {
        let mut change = VolumeChange { epoch: 1, ..VolumeChange::default() };
        let extents = self.state.read().streams[&STREAM].extents.clone();
        let mut compacted = Vec::new();
        let mut base = 0;
        for (sequence, (end, left)) in ranges.iter().enumerate() {
            let id = SegmentId { volume: 0, epoch: 1, sequence: 100 + sequence as u64 };
            let mut builder = SegmentBuilder::new(id);
            let piece = |base_offset, end_offset, bytes: Bytes, max_timestamp| Piece {
                base_offset,
                end_offset,
                max_timestamp,
                batches: u32::from(!bytes.is_empty()),
                leader_epoch: 1,
                bytes,
            };
            let mut pieces = Vec::new();
            for (n, at) in left.iter().enumerate() {
                let ends = if n + 1 == left.len() { *end } else { at + 10 };
                pieces.push(piece(base, ends, batch(*at, len), (at + 9) * 10));
                base = ends;
            }
            if left.is_empty() {
                pieces.push(piece(base, *end, Bytes::new(), -1));
                base = *end;
            }
            builder.push_extent(STREAM, &pieces);
            let built = builder.finish();
            let path = Path::from(self.keys.segment(id));
            self.bucket.put(&path, PutPayload::from_iter(built.parts)).await.unwrap();
            change.added_segments.push((id, built.len));
            compacted.extend(built.extents.into_iter().map(|(_, extent)| extent));
        }
        change.replacements.push(Replacement {
            stream: STREAM,
            base_offset: 0,
            end_offset: base,
            replaced: extents.iter().map(|extent| extent.segment).collect(),
            extents: compacted,
        });
        let mut state = self.state.write();
        let version = state.version + 1;
        state.apply(version, &change).unwrap();
    }

    /// Bytes of the first extent's index, which is read before the page that it lies on.
    fn index_bytes(&self) -> u64 {
        let range = self.state.read().streams[&STREAM].extents[0].index_range();
        range.end - range.start
    }

    async fn offsets(&self, from: i64, max_bytes: u64) -> Vec<i64> {
        let chain = self.reader.read(0, STREAM, from, Bounds::most(max_bytes)).await.unwrap();
        scan::spans(&chain.to_bytes()).map(|span| span.base_offset).collect()
    }
}

#[tokio::test]
async fn reads_across_blocks_chunks_and_segments() {
    // About 4 MiB in many blocks and several chunks, then small segments of one block each.
    let fixture = Fixture::new(&[(40, 100_000), (1, 1000), (3, 1000)]).await;
    let all: Vec<i64> = (0..44).map(|n| n * 10).collect();
    assert_eq!(fixture.offsets(0, u64::MAX).await, all);
    assert_eq!(fixture.offsets(7, u64::MAX).await, all, "an offset inside a batch");
    assert_eq!(fixture.offsets(255, 1).await, [250], "one whole batch however small the bound");
    assert_eq!(fixture.offsets(250, 350_000).await, [250, 260, 270]);
    assert_eq!(fixture.offsets(395, u64::MAX).await, [390, 400, 410, 420, 430]);
    let mut walked = Vec::new();
    let mut at = 0;
    while at < 440 {
        let some = fixture.offsets(at, 300_000).await;
        at = some.last().unwrap() + 10;
        walked.extend(some);
    }
    assert_eq!(walked, all, "a consumer's walk misses and repeats nothing");
}

#[tokio::test]
async fn a_walk_and_a_second_consumer_read_each_chunk_once() {
    let fixture = Fixture::new(&[(40, 100_000)]).await;
    for _ in 0..2 {
        let mut at = 0;
        while at < 400 {
            at = fixture.offsets(at, 150_000).await.last().unwrap() + 10;
        }
    }
    let segment: u64 = fixture.state.read().segments.values().map(|segment| segment.len).sum();
    let read = fixture.metrics.get_bytes.get();
    assert!(read <= segment + fixture.index_bytes(), "{read}");
    assert!(fixture.metrics.hits.get() > 0);
}

#[tokio::test]
async fn concurrent_misses_make_one_request() {
    let fixture = Fixture::new(&[(1, 1000)]).await;
    let reads = (0..20).map(|_| fixture.reader.read(0, STREAM, 0, Bounds::most(1000)));
    futures_util::future::try_join_all(reads).await.unwrap();
    assert_eq!(fixture.metrics.gets.get(), 1);
}

#[tokio::test]
async fn what_is_not_in_the_bucket_is_not_here() {
    let fixture = Fixture::new(&[(2, 1000)]).await;
    for (volume, stream, offset) in [
        (0, STREAM, 20),
        (0, STREAM, -1),
        (1, STREAM, 0),
        (0, StreamKey { partition: 9, ..STREAM }, 0),
    ] {
        let read = fixture.reader.read(volume, stream, offset, Bounds::most(1)).await;
        assert!(matches!(read, Err(ReadError::NotHere)), "{volume} {stream:?} {offset}");
    }
}

#[tokio::test]
async fn a_segment_that_is_gone_or_damaged_is_told_and_not_remembered() {
    let fixture = Fixture::new(&[(2, 1000)]).await;
    let id = *fixture.state.read().segments.keys().next().unwrap();
    let path = Path::from(fixture.keys.segment(id));
    let good = fixture.bucket.get(&path).await.unwrap().bytes().await.unwrap();
    let extent = fixture.state.read().streams[&STREAM].extents[0];

    fixture.bucket.delete(&path).await.unwrap();
    assert!(matches!(
        fixture.reader.read(0, STREAM, 0, Bounds::most(1)).await,
        Err(ReadError::NotHere)
    ));
    for at in extent.data_range() {
        let mut bad = good.to_vec();
        bad[at as usize] ^= 4;
        fixture.bucket.put(&path, Bytes::from(bad).into()).await.unwrap();
        let read = fixture.reader.read(0, STREAM, 0, Bounds::most(1)).await;
        assert!(matches!(read, Err(ReadError::Corrupt { .. })), "byte {at}");
    }
    fixture.bucket.put(&path, good.into()).await.unwrap();
    assert_eq!(fixture.offsets(0, 1).await, [0]);
}

#[tokio::test]
async fn finds_the_first_record_from_a_timestamp_on() {
    let fixture = Fixture::new(&[(40, 100_000), (3, 1000)]).await;
    let find = |at| fixture.reader.find_timestamp(0, STREAM, at, 0);
    for (timestamp, offset) in [(0, 0), (1, 1), (1234, 124), (3990, 399), (3991, 400), (4290, 429)]
    {
        let found = find(timestamp).await.unwrap();
        assert_eq!(found, Some(Found { offset, timestamp_ms: offset * 10 }), "at {timestamp}");
    }
    assert_eq!(find(4291).await.unwrap(), None);
    assert_eq!(fixture.reader.max_timestamp(0, STREAM), Some(4290));
}

#[tokio::test]
async fn a_walk_is_read_ahead_by_few_requests() {
    // 32 MB, as 32 chunks.
    let fixture = Fixture::new(&[(320, 100_000)]).await;
    let mut at = 0;
    while at < 3200 {
        at = fixture.offsets(at, 1 << 20).await.last().unwrap() + 10;
    }
    let segment: u64 = fixture.state.read().segments.values().map(|segment| segment.len).sum();
    let read = fixture.metrics.get_bytes.get();
    assert!(read <= segment + fixture.index_bytes(), "{read}: nothing is read twice");
    let gets = fixture.metrics.gets.get();
    assert!(gets <= 16, "{gets} requests");
    assert!(fixture.metrics.ahead_bytes.get() > segment / 2);
}

#[tokio::test]
async fn a_small_extent_costs_one_request() {
    // 800 kB in several blocks each: an index lies behind them.
    let fixture = Fixture::new(&[(8, 100_000); 12]).await;
    assert!(fixture.state.read().streams[&STREAM].extents.iter().all(|extent| extent.blocks > 1));
    let mut at = 0;
    while at < 960 {
        at = fixture.offsets(at, 1 << 20).await.last().unwrap() + 10;
    }
    assert_eq!(fixture.metrics.gets.get(), 12, "data and index by one");
    let segments: u64 = fixture.state.read().segments.values().map(|segment| segment.len).sum();
    assert!(fixture.metrics.get_bytes.get() <= segments);
}

#[tokio::test]
async fn streams_side_by_side_in_a_segment_are_read_by_one_request() {
    let fixture = Fixture::new(&[(2, 100_000); 3]).await;
    let read = |stream| fixture.reader.read(0, stream, 0, Bounds::most(1 << 20));
    let (ours, others) = tokio::join!(read(STREAM), read(OTHER));
    let offsets = |chain: Result<sluice_wire::Chain, _>| {
        let bytes = chain.unwrap().to_bytes();
        scan::spans(&bytes).map(|span| span.base_offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets(ours), [0, 10, 20, 30, 40, 50]);
    assert_eq!(offsets(others), [0, 10, 20]);
    assert_eq!(fixture.metrics.gets.get(), 3, "one a segment");
}

#[tokio::test]
async fn who_asked_may_go_away_and_a_segment_may_be_gone() {
    let fixture = Fixture::new(&[(2, 100_000); 2]).await;
    let read = |stream, at| fixture.reader.read(0, stream, at, Bounds::most(1 << 20));
    // Given up before the requests are made: others get what they want of them.
    assert!(read(STREAM, 0).now_or_never().is_none());
    assert!(!read(OTHER, 0).await.unwrap().is_empty());
    assert_eq!(fixture.metrics.gets.get(), 2);
    let (first, last) = {
        let state = fixture.state.read();
        (*state.segments.keys().next().unwrap(), *state.segments.keys().next_back().unwrap())
    };
    let delete = async |segment| {
        fixture.bucket.delete(&Path::from(fixture.keys.segment(segment))).await.unwrap();
    };
    delete(first).await;
    delete(last).await;
    assert!(!read(STREAM, 0).await.unwrap().is_empty(), "what was read is still in the cache");
    let options = ReaderOptions { cache_bytes: 32 << 20 };
    let bucket = Arc::clone(&fixture.bucket) as _;
    let other =
        Arc::new(Reader::new(bucket, fixture.keys.clone(), options, CacheMetrics::default()));
    other.attach(0, Arc::clone(&fixture.state));
    let read = |stream| other.read(0, stream, 0, Bounds::most(1 << 20));
    let (ours, others) = tokio::join!(read(STREAM), read(OTHER));
    assert!(matches!(ours, Err(ReadError::NotHere)), "{ours:?}");
    assert!(matches!(others, Err(ReadError::NotHere)), "{others:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_bucket_gives_what_it_has_and_nothing_is_asked_for_twice() {
    let fixture = Fixture::new(&[(2, 100_000); 8]).await;
    // One request at a time, 400 ms each.
    let how = ThrottleConfig {
        wait_get_per_call: Duration::from_millis(400),
        ..ThrottleConfig::default()
    };
    let slow = LimitStore::new(ThrottledStore::new(Arc::clone(&fixture.bucket), how), 1);
    let options = ReaderOptions { cache_bytes: 32 << 20 };
    let metrics = CacheMetrics::default();
    let reader =
        Arc::new(Reader::new(Arc::new(slow), fixture.keys.clone(), options, metrics.clone()));
    reader.attach(0, Arc::clone(&fixture.state));
    let mut at = 0;
    let mut reads = 0;
    while at < 160 {
        let begun = Instant::now();
        let bytes = reader.read(0, STREAM, at, Bounds::most(2 << 20)).await.unwrap().to_bytes();
        assert!(begun.elapsed() <= Duration::from_secs(1), "{:?}", begun.elapsed());
        at = scan::spans(&bytes).last().unwrap().end_offset;
        reads += 1;
    }
    assert!(reads > 2, "{reads} reads of 3.2 s together");
    assert_eq!(metrics.gets.get(), 8);
}

#[tokio::test]
async fn a_volume_that_is_detached_is_not_served_until_it_is_attached_again() {
    let fixture = Fixture::new(&[(20, 100)]).await;
    let found = async || fixture.reader.find_timestamp(0, STREAM, 0, 0).await.unwrap();
    assert!(found().await.is_some());
    fixture.reader.detach(0);
    assert!(found().await.is_none());
    fixture.reader.attach(0, Arc::clone(&fixture.state));
    assert!(found().await.is_some());
}

#[tokio::test]
async fn a_consumer_that_stops_is_not_read_for() {
    let fixture = Fixture::new(&[(320, 100_000)]).await;
    let mut at = 0;
    for _ in 0..4 {
        at = fixture.offsets(at, 1 << 20).await.last().unwrap() + 10;
    }
    // Whatever was begun has its turn.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    let read = fixture.metrics.get_bytes.get();
    assert!(read < 24 << 20, "{read} bytes for 4 MiB");
}

/// Gives the next few answers with a wrong bit.
#[derive(Debug)]
struct Damaging {
    inner: Arc<InMemory>,
    left: AtomicUsize,
}

impl std::fmt::Display for Damaging {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Damaging")
    }
}

#[async_trait]
impl ObjectStore for Damaging {
    async fn put_opts(&self, at: &Path, what: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(at, what, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, how).await
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(at, how).await?;
        if self.left.load(Ordering::Relaxed) > 0 {
            self.left.fetch_sub(1, Ordering::Relaxed);
            let payload = found.payload;
            let whole = GetResult {
                payload,
                meta: found.meta.clone(),
                range: found.range.clone(),
                attributes: found.attributes.clone(),
                extensions: found.extensions.clone(),
            };
            let mut bytes = whole.bytes().await?.to_vec();
            // In the first block.
            bytes[100] ^= 1;
            let body = futures_util::stream::once(async { Ok(Bytes::from(bytes)) });
            found.payload = GetResultPayload::Stream(body.boxed());
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(names)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[tokio::test]
async fn what_was_damaged_on_its_way_is_read_once_more() {
    let fixture = Fixture::new(&[(40, 100_000)]).await;
    for damaged in [1, 2] {
        let inner = Arc::clone(&fixture.bucket);
        let bucket = Arc::new(Damaging { inner, left: AtomicUsize::new(damaged) });
        let metrics = CacheMetrics::default();
        let options = ReaderOptions { cache_bytes: 32 << 20 };
        let reader = Arc::new(Reader::new(bucket, fixture.keys.clone(), options, metrics.clone()));
        reader.attach(0, Arc::clone(&fixture.state));
        let read = reader.read(0, STREAM, 0, Bounds::most(1)).await;
        match damaged {
            1 => assert!(!read.unwrap().is_empty()),
            _ => assert!(matches!(read, Err(ReadError::Corrupt { .. }))),
        }
        assert_eq!(metrics.rereads.get(), 1);
        assert!(
            !reader.read(0, STREAM, 0, Bounds::most(1)).await.unwrap().is_empty(),
            "it is not remembered"
        );
    }
}

#[tokio::test]
async fn gaps_that_compaction_left_are_passed_over() {
    let fixture = Fixture::new(&[(10, 1000), (30, 1000)]).await;
    // Blocks of one batch each, a range with nothing left, and gaps at both ends of the others.
    fixture.compact(&[(100, &[40, 50]), (200, &[]), (300, &[250]), (400, &[])], 300_000).await;
    for from in [0, 39, 40, 49] {
        assert_eq!(fixture.offsets(from, 1).await, [40], "from {from}");
    }
    for from in [60, 99, 100, 150, 200, 249, 250, 259] {
        assert_eq!(fixture.offsets(from, 1).await, [250], "from {from}");
    }
    assert_eq!(fixture.offsets(0, u64::MAX).await, [40, 50, 250]);
    for from in [260, 300, 399] {
        let read = fixture.reader.read(0, STREAM, from, Bounds::most(u64::MAX)).await;
        assert!(matches!(read, Err(ReadError::Compacted { next: 400 })), "from {from}: {read:?}");
    }
    assert!(matches!(
        fixture.reader.read(0, STREAM, 400, Bounds::most(1)).await,
        Err(ReadError::NotHere)
    ));
}

#[tokio::test]
async fn a_time_is_found_beyond_gaps_and_beyond_a_first_chunk_without_it() {
    let fixture = Fixture::new(&[(40, 1000)]).await;
    fixture.compact(&[(200, &[10, 20, 30, 40, 50, 60, 70, 80]), (400, &[390])], 300_000).await;
    let find = |at| fixture.reader.find_timestamp(0, STREAM, at, 0);
    for (timestamp, offset) in [(0, 10), (200, 20), (890, 89), (891, 390), (3990, 399)] {
        let found = find(timestamp).await.unwrap().map(|found| found.offset);
        assert_eq!(found, Some(offset), "at {timestamp}");
    }
}
