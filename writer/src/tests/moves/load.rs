//! Producers and consumers that never rest, through many moves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use sluice_format::segment::split_block;
use sluice_model::StreamId;
use sluice_wire::scan;
use tokio::time::Instant;

use super::super::cluster::{append, sequenced, transactional};
use super::{cluster, flush, in_bucket, move_to, owner, state_of};
use crate::recovery::key_of;
use crate::tests::bucket::FaultyBucket;
use crate::tests::ownership::on;
use crate::{AppendError, Appended, TailError, Writer};

const MOVES: usize = 50;

type Writers = Arc<[Writer; 2]>;

/// Sends a batch until somebody takes it, as a client does. Gives how long that took.
async fn send(writers: &Writers, stream: StreamId, batch: &bytes::Bytes) -> (Appended, Duration) {
    let begun = Instant::now();
    let mut at = 0;
    loop {
        match append(&writers[at % 2], stream, batch).await {
            Ok(done) => return (done, begun.elapsed()),
            Err(AppendError::NotOwner | AppendError::TimedOut) => at += 1,
            Err(error) => panic!("a client would not retry this: {error}"),
        }
        tokio::task::yield_now().await;
    }
}

async fn idempotent(
    writers: Writers,
    stream: StreamId,
    id: i64,
    stop: Arc<AtomicBool>,
) -> (i32, Duration) {
    let (mut next, mut longest, mut last) = (0, Duration::ZERO, -1);
    while !stop.load(Ordering::Relaxed) {
        let batch = sequenced(id, 0, next, 1);
        let (done, took) = send(&writers, stream, &batch).await;
        assert!(done.base_offset > last, "in order: {} after {last}", done.base_offset);
        if next % 7 == 0 {
            // The answer was lost: what is sent again is recognised, wherever the stream is by now.
            assert_eq!(send(&writers, stream, &batch).await.0.base_offset, done.base_offset);
        }
        (last, longest, next) = (done.base_offset, longest.max(took), next + 1);
    }
    (next, longest)
}

/// One transaction after the other, of three batches, every second of them aborted. Gives what was aborted: its
/// first offset and its marker's.
async fn in_transactions(
    writers: Writers,
    stream: StreamId,
    id: i64,
    stop: Arc<AtomicBool>,
) -> Vec<i64> {
    let (mut sequence, mut round) = (0, 0);
    let mut aborted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut first = None;
        for _ in 0..3 {
            let batch = transactional(id, 0, sequence, 1);
            let (done, _) = send(&writers, stream, &batch).await;
            first = first.or(Some(done.base_offset));
            sequence += 1;
        }
        let commit = round % 2 == 0;
        let mut at = 0;
        while let Err(error) = writers[at % 2].end_transaction(stream, id, 0, 1, commit).await {
            assert!(matches!(error, AppendError::NotOwner | AppendError::TimedOut), "{error}");
            tokio::task::yield_now().await;
            at += 1;
        }
        if !commit {
            aborted.extend(first);
        }
        round += 1;
    }
    aborted
}

/// Reads everything from the first offset on, wherever it is: from the tail, or from the bucket.
async fn consume(
    writers: Writers,
    bucket: Arc<FaultyBucket>,
    keys: sluice_format::key::Keys,
    stream: StreamId,
    upto: Arc<std::sync::atomic::AtomicI64>,
) -> i64 {
    let (mut next, mut mark) = (0, 0);
    let mut at = 0;
    loop {
        let end = upto.load(Ordering::Relaxed);
        if end >= 0 && next >= end {
            return next;
        }
        let writer = &writers[at % 2];
        let Ok(tail) = writer.tail(stream) else {
            at += 1;
            tokio::task::yield_now().await;
            continue;
        };
        let seen = tail.offsets().high_watermark;
        if !tail.is_here() {
            continue;
        }
        assert!(seen >= mark, "the high watermark goes back from {mark} to {seen}");
        mark = seen;
        let spans: Vec<(i64, i64)> = match tail.read(next, 1 << 16).await {
            Ok(Some(chain)) => {
                scan::spans(&chain.to_bytes()).map(|s| (s.base_offset, s.end_offset)).collect()
            }
            Ok(None) => {
                let volume = tail.volume().0;
                let known = state_of(writer, volume).streams.get(&key_of(stream)).cloned();
                let Some(known) = known else { continue };
                let Some(index) = known.extent_at(next) else { continue };
                let extent = known.extents[index];
                let key = Path::from(keys.segment(extent.segment));
                let mut bytes = bucket.get_range(&key, extent.data_range()).await.unwrap();
                let mut spans = Vec::new();
                while !bytes.is_empty() {
                    let block = split_block(&mut bytes).unwrap();
                    spans
                        .extend(scan::spans(&block.payload).map(|s| (s.base_offset, s.end_offset)));
                }
                spans
            }
            Err(TailError::NotOwner) => continue,
            Err(error) => panic!("{error}"),
        };
        for (base, end) in spans {
            if end > next {
                assert_eq!(base, next, "neither a hole nor twice");
                next = end;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn clients_notice_no_more_than_pauses_of_fifty_moves() {
    let mut cluster = cluster().await;
    // Some of the tail leaves memory, so that consumers find the bucket in between.
    cluster.options.upload_segment_bytes = 20_000;
    cluster.options.tail_cache_bytes = 20_000;
    cluster.options.delete_grace = Duration::from_secs(3600);
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let others = [moving, on(&topic, 1)];
    let writers = [owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await];
    let writers: Writers = Arc::new(writers);
    let stop = Arc::new(AtomicBool::new(false));
    let upto = Arc::new(std::sync::atomic::AtomicI64::new(-1));
    let of = |id| tokio::spawn(idempotent(Arc::clone(&writers), moving, id, Arc::clone(&stop)));
    let producers = [of(1), of(2)];
    let beside = tokio::spawn(idempotent(Arc::clone(&writers), others[1], 3, Arc::clone(&stop)));
    let transactions =
        tokio::spawn(in_transactions(Arc::clone(&writers), moving, 4, Arc::clone(&stop)));
    let consumer = tokio::spawn(consume(
        Arc::clone(&writers),
        Arc::clone(&cluster.bucket),
        cluster.keys(),
        moving,
        Arc::clone(&upto),
    ));
    let mut epoch = writers[0].leader_epoch(moving).unwrap();
    for round in 0..MOVES {
        let to = (round + 1) % 2;
        move_to(&cluster, moving, to as u32).await;
        let now = writers[to].leader_epoch(moving).unwrap();
        assert_eq!(now, epoch + 1, "leader epochs grow");
        epoch = now;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut batches = 0;
    for producer in producers {
        let (count, longest) = producer.await.unwrap();
        println!("{count} batches through {MOVES} moves, the longest took {longest:?}");
        assert!(count as usize > MOVES, "{count} batches say nothing");
        batches += i64::from(count);
    }
    beside.await.unwrap();
    let aborted = transactions.await.unwrap();
    let here = &writers[MOVES % 2];
    let end = here.offsets(moving).unwrap();
    assert_eq!(end.last_stable, end.high_watermark, "every transaction has ended");
    upto.store(end.high_watermark, Ordering::Relaxed);
    assert_eq!(consumer.await.unwrap(), end.high_watermark);

    let volume = (MOVES % 2) as u32;
    flush(here, volume).await;
    let known = state_of(here, volume).streams[&key_of(moving)].clone();
    let there = in_bucket(&cluster, &known).await;
    assert_eq!(there, (0..end.high_watermark).collect::<Vec<_>>(), "each once, in order");
    assert!(end.high_watermark > batches, "and those of transactions");
    assert!(!aborted.is_empty());
    let starts: Vec<i64> = known.epochs.iter().map(|(_, start)| *start).collect();
    assert!(starts.is_sorted(), "{:?}", known.epochs);
    for writer in writers.iter() {
        writer.close(Duration::ZERO).await;
    }
}
