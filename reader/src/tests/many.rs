//! Consumers of many streams that lie side by side in segments.

use futures_util::future::try_join_all;
use sluice_format::{AbortedTransaction, TransactionSection};

use super::*;
use crate::Wish;

const STREAMS: u32 = 40;
const SEGMENTS: i64 = 6;
/// Two batches an extent: 200 kB of each stream in each segment.
const BATCH_BYTES: usize = 100_000;
const OFFSETS_A_SEGMENT: i64 = 20;

fn stream(partition: u32) -> StreamKey {
    StreamKey { topic: [7; 16], partition }
}

/// The same of each stream in each segment.
async fn mixed() -> (Arc<Reader>, CacheMetrics, u64) {
    let bucket = Arc::new(InMemory::new());
    let keys = Keys::new("c");
    let mut state = VolumeState::default();
    let mut bytes = 0;
    for sequence in 0..SEGMENTS {
        let id = SegmentId { volume: 0, epoch: 1, sequence: sequence as u64 };
        let mut builder = SegmentBuilder::new(id);
        for partition in 0..STREAMS {
            let base_offset = sequence * OFFSETS_A_SEGMENT;
            let pieces = [0, 10].map(|n| piece(base_offset + n, BATCH_BYTES));
            builder.push_extent(stream(partition), &pieces);
        }
        bytes += put(&bucket, &keys, &mut state, builder.finish()).await;
    }
    let metrics = CacheMetrics::default();
    let options = ReaderOptions { cache_bytes: 24 << 20 };
    let reader = Arc::new(Reader::new(bucket, keys, options, metrics.clone()));
    reader.attach(0, Arc::new(RwLock::new(state)));
    (reader, metrics, bytes)
}

/// One fetch of all `partitions`: moves each of them on.
async fn fetch(reader: &Arc<Reader>, partitions: &mut [(u32, i64)]) {
    let end = SEGMENTS * OFFSETS_A_SEGMENT;
    let left: Vec<_> = partitions.iter_mut().filter(|(_, at)| *at < end).collect();
    let wishes = left.iter().map(|(partition, at)| Wish {
        volume: 0,
        stream: stream(*partition),
        offset: *at,
        max_bytes: 1 << 20,
    });
    let shares = reader.share_out(&wishes.collect::<Vec<_>>());
    let reads = left.into_iter().zip(shares).map(|((partition, at), bounds)| async move {
        let Some(bounds) = bounds else { return Ok(()) };
        let chain = reader.read(0, stream(*partition), *at, bounds).await?;
        for span in scan::spans(&chain.to_bytes()) {
            assert_eq!(span.base_offset, *at, "of partition {partition}");
            *at = span.end_offset;
        }
        Ok::<_, ReadError>(())
    });
    try_join_all(reads).await.unwrap();
}

fn has_more(partitions: &[(u32, i64)]) -> bool {
    partitions.iter().any(|(_, at)| *at < SEGMENTS * OFFSETS_A_SEGMENT)
}

#[tokio::test]
async fn one_consumer_of_all_reads_segments_and_not_extents() {
    let (reader, metrics, bytes) = mixed().await;
    let mut all: Vec<_> = (0..STREAMS).map(|partition| (partition, 0)).collect();
    let mut fetches = 0;
    while has_more(&all) {
        fetch(&reader, &mut all).await;
        fetches += 1;
    }
    assert!(fetches >= SEGMENTS, "{fetches} fetches: each has a little of every stream");
    // 8 MB a segment, by requests of at most 8 MiB.
    assert!(metrics.gets.get() <= 2 * SEGMENTS as u64, "{} requests", metrics.gets.get());
    assert!(metrics.get_bytes.get() <= bytes, "nothing is read twice");
}

#[tokio::test]
async fn consumers_of_every_other_stream_share_what_they_read() {
    let (reader, metrics, bytes) = mixed().await;
    let [mut even, mut odd] =
        [0, 1].map(|first| (first..STREAMS).step_by(2).map(|p| (p, 0)).collect::<Vec<_>>());
    while has_more(&even) || has_more(&odd) {
        tokio::join!(fetch(&reader, &mut even), fetch(&reader, &mut odd));
    }
    assert!(metrics.gets.get() <= 3 * SEGMENTS as u64, "{} requests", metrics.gets.get());
    assert!(metrics.get_bytes.get() <= bytes, "nothing is read twice");
}

#[tokio::test]
async fn who_wants_one_stream_of_many_reads_little_more_than_that() {
    let (reader, metrics, bytes) = mixed().await;
    let mut one = [(17, 0)];
    while has_more(&one) {
        fetch(&reader, &mut one).await;
    }
    assert_eq!(metrics.gets.get(), SEGMENTS as u64);
    let least = bytes / u64::from(STREAMS);
    assert!(metrics.get_bytes.get() <= least + least / 10, "{}", metrics.get_bytes.get());
}

#[tokio::test]
async fn a_cache_without_room_still_serves() {
    let fixture = Fixture::new(&[(40, 100_000), (3, 1000)]).await;
    let options = ReaderOptions { cache_bytes: 1000 };
    let bucket = Arc::clone(&fixture.bucket) as _;
    let reader = Reader::new(bucket, fixture.keys.clone(), options, CacheMetrics::default());
    let reader = Arc::new(reader);
    reader.attach(0, Arc::clone(&fixture.state));
    let mut at = 0;
    while at < 430 {
        let read = reader.read(0, STREAM, at, Bounds::most(500_000)).await.unwrap();
        at = scan::spans(&read.to_bytes()).last().unwrap().end_offset;
    }
    assert_eq!(at, 430);
}

#[tokio::test(start_paused = true)]
async fn answers_on_their_way_are_bounded_by_the_cache() {
    let fixture = Fixture::new(&[(320, 100_000)]).await;
    let how = ThrottleConfig {
        wait_get_per_call: Duration::from_millis(100),
        ..ThrottleConfig::default()
    };
    for (cache_bytes, rounds) in [(1 << 20, 4), (32 << 20, 2), (64 << 20, 1)] {
        let slow = Arc::new(ThrottledStore::new(Arc::clone(&fixture.bucket), how));
        let options = ReaderOptions { cache_bytes };
        let metrics = CacheMetrics::default();
        let reader = Reader::new(slow, fixture.keys.clone(), options, metrics.clone());
        let reader = Arc::new(reader);
        reader.attach(0, Arc::clone(&fixture.state));
        let begun = Instant::now();
        let all = reader.read(0, STREAM, 0, Bounds::most(u64::MAX)).await.unwrap();
        assert_eq!(scan::spans(&all.to_bytes()).count(), 320);
        // 31 pages, by four requests.
        assert_eq!(metrics.gets.get(), 4);
        assert_eq!(begun.elapsed().as_millis(), rounds * 100, "{cache_bytes}");
    }
}

#[tokio::test]
async fn what_a_small_extent_says_of_transactions_comes_with_its_records() {
    let fixture = Fixture::new(&[(1, 1000)]).await;
    let id = SegmentId { volume: 0, epoch: 1, sequence: 50 };
    let mut builder = SegmentBuilder::new(id);
    let aborted = AbortedTransaction {
        producer_id: 7,
        first_offset: 10,
        last_offset: 19,
        last_stable_offset: 20,
    };
    let section = TransactionSection { aborted: vec![aborted], producers: Vec::new() };
    builder.push_extent_with(STREAM, &[piece(10, 1000)], &section);
    let mut state = fixture.state.read().clone();
    put(&fixture.bucket, &fixture.keys, &mut state, builder.finish()).await;
    *fixture.state.write() = state;
    assert_eq!(fixture.offsets(10, 1).await, [10]);
    let found = fixture.reader.aborted(0, STREAM, &(10..20)).await.unwrap();
    assert_eq!(found, [aborted]);
    assert_eq!(fixture.metrics.gets.get(), 1);
}
