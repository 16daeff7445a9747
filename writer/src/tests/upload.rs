//! What gets to the bucket, when the volume lets go of it, and what happens when the bucket fails.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sluice_format::segment::split_block;
use sluice_format::{TransactionSection, VolumeState};
use sluice_model::StreamId;
use sluice_wire::scan;

use super::cluster::{Cluster, append, batch, stream, tail, transactional, until_bucket};
use crate::recovery::key_of;
use crate::{AppendError, Writer};

pub(super) fn end_of(state: &VolumeState, stream: StreamId) -> i64 {
    state.streams.get(&key_of(stream)).map_or(0, |stream| stream.end_offset)
}

/// Offsets of all batches of a stream in the bucket, read as a stranger would.
pub(super) async fn in_bucket(cluster: &Cluster, writer: &Writer, stream: StreamId) -> Vec<i64> {
    let (_, state) = writer.bucket_states().next().unwrap();
    let extents = state.read().streams[&key_of(stream)].extents.clone();
    let mut offsets = Vec::new();
    for extent in extents {
        let key = Path::from(cluster.keys().segment(extent.segment));
        let mut bytes: Bytes = cluster.bucket.get_range(&key, extent.data_range()).await.unwrap();
        while !bytes.is_empty() {
            let block = split_block(&mut bytes).unwrap();
            offsets.extend(scan::spans(&block.payload).map(|span| span.base_offset));
        }
    }
    offsets
}

#[tokio::test]
async fn the_tail_moves_to_the_bucket_and_leaves_the_volume() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 200_000;
    cluster.options.tail_cache_bytes = 100_000;
    let topic = cluster.topic("t", &[]).await;
    let (a, b) = (stream(&topic, 0), stream(&topic, 1));
    let writer = cluster.start().await;
    for _ in 0..20 {
        append(&writer, a, &batch(1, 20_000, 5)).await.unwrap();
        append(&writer, b, &batch(2, 1_000, 5)).await.unwrap();
    }
    until_bucket(&writer, |state| end_of(state, a) >= 10).await;
    let there = in_bucket(&cluster, &writer, a).await;
    assert_eq!(there, (0..there.len() as i64).collect::<Vec<_>>());
    // The cache holds less than was uploaded: the oldest offsets are in the bucket alone.
    let offsets = writer.offsets(a).unwrap();
    assert!(offsets.tail_start > 0, "{offsets:?}");
    assert_eq!(tail(&writer, a, 0).await, None);
    let rest = tail(&writer, a, offsets.tail_start).await.unwrap();
    assert_eq!(rest, (offsets.tail_start..20).collect::<Vec<_>>());
    writer.close(Duration::ZERO).await;

    let writer = cluster.start().await;
    let offsets = writer.offsets(a).unwrap();
    assert_eq!((offsets.log_start, offsets.high_watermark), (0, 20));
    assert!(offsets.tail_start > 0, "what was trimmed is not read back");
    assert_eq!(append(&writer, b, &batch(1, 10, 5)).await.unwrap().base_offset, 40);
}

#[tokio::test]
async fn an_old_tail_is_uploaded_without_more_arriving() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_max_age = Duration::from_millis(50);
    cluster.options.upload_max_age_idle = Duration::from_millis(50);
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(3, 10, 5)).await.unwrap();
    until_bucket(&writer, |state| end_of(state, a) == 3).await;
}

#[tokio::test]
async fn an_open_transaction_holds_the_last_stable_offset_through_upload_and_crash() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(2, 10, 5)).await.unwrap();
    append(&writer, a, &transactional(9, 0, 0, 3)).await.unwrap();
    append(&writer, a, &batch(1, 10, 5)).await.unwrap();
    let stable = |writer: &Writer| {
        let offsets = writer.offsets(a).unwrap();
        (offsets.last_stable, offsets.high_watermark)
    };
    assert_eq!(stable(&writer), (2, 6));
    until_bucket(&writer, |state| end_of(state, a) == 6).await;
    let extents = {
        let (_, state) = writer.bucket_states().next().unwrap();
        state.read().streams[&key_of(a)].extents.clone()
    };
    let last = extents[extents.len() - 1];
    let key = Path::from(cluster.keys().segment(last.segment));
    let section = cluster.bucket.get_range(&key, last.section_range()).await.unwrap();
    let section = TransactionSection::decode(&section).unwrap();
    let open: Vec<_> = section.producers.iter().map(|p| (p.id, p.open_since)).collect();
    assert_eq!(open, [(9, Some(2))]);
    assert_eq!(extents[0].section_len, 0, "nothing to say, no bytes");
    writer.abandon().await;
    drop(writer);
    let writer = cluster.start().await;
    assert_eq!(stable(&writer), (2, 6));
    assert!(writer.tail(a).unwrap().aborted_over(&(0..6)).is_empty());
}

#[tokio::test]
async fn a_reader_gets_the_freshness_that_it_asks_for() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(3, 10, 5)).await.unwrap();
    let valid_for = Duration::from_secs(20);
    writer.ask_freshness(a, Duration::from_millis(100), valid_for).unwrap();
    until_bucket(&writer, |state| end_of(state, a) == 3).await;
    append(&writer, a, &batch(3, 10, 5)).await.unwrap();
    until_bucket(&writer, |state| end_of(state, a) == 6).await;
}

#[tokio::test]
async fn a_close_uploads_what_it_can_and_no_longer_than_it_may() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(3, 10, 5)).await.unwrap();
    let (_, state) = writer.bucket_states().next().unwrap();
    writer.close(Duration::from_secs(20)).await;
    assert_eq!(end_of(&state.read(), a), 3);

    let writer = cluster.start().await;
    append(&writer, a, &batch(2, 10, 5)).await.unwrap();
    cluster.bucket.down.store(true, Ordering::Relaxed);
    let closed =
        tokio::time::timeout(Duration::from_secs(10), writer.close(Duration::from_millis(50)))
            .await;
    closed.expect("a bucket that is down does not hold up the end");
    cluster.bucket.down.store(false, Ordering::Relaxed);
    let writer = cluster.start().await;
    assert_eq!(tail(&writer, a, 3).await, Some(vec![3]), "it stayed on the volume");
}

#[tokio::test]
async fn a_close_ends_although_the_volume_is_full_and_appends_wait() {
    let mut cluster = Cluster::with_volumes(1, 24 << 20).await;
    cluster.options.append_timeout = Duration::from_millis(300);
    let topic = cluster.topic("t", &[("max.message.bytes", "2000000")]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    cluster.bucket.down.store(true, Ordering::Relaxed);
    let large = batch(1, 900_000, 5);
    // Room comes with the bucket only: what does not fit stays in the queue.
    while append(&writer, a, &large).await.is_ok() {}
    let end = writer.offsets(a).unwrap().high_watermark;
    let close = writer.close(Duration::from_millis(50));
    tokio::time::timeout(Duration::from_secs(10), close)
        .await
        .expect("a full volume can be closed");

    cluster.bucket.down.store(false, Ordering::Relaxed);
    let writer = cluster.start().await;
    assert!(writer.offsets(a).unwrap().high_watermark >= end, "what was acknowledged is there");
}

#[tokio::test]
async fn when_the_bucket_is_down_the_volume_fills_appends_wait_and_all_goes_on_after() {
    let mut cluster = Cluster::with_volumes(1, 24 << 20).await;
    cluster.options.upload_segment_bytes = 1 << 20;
    cluster.options.tail_cache_bytes = 1 << 20;
    cluster.options.append_timeout = Duration::from_millis(500);
    let topic = cluster.topic("t", &[("max.message.bytes", "2000000")]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    cluster.bucket.down.store(true, Ordering::Relaxed);
    let large = batch(1, 900_000, 5);
    let mut acknowledged = Vec::new();
    let refused = loop {
        match append(&writer, a, &large).await {
            Ok(appended) => acknowledged.push(appended.base_offset),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 100, "the volume never fills");
    };
    assert_eq!(refused, AppendError::TimedOut);
    assert!(refused.code().retriable());
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    assert!(cluster.metrics.paced.get() > 0, "producers are slowed down before the volume is full");
    // Consumers still get all of it, from the volume.
    let seen = tail(&writer, a, 0).await.unwrap();
    assert_eq!(seen, acknowledged);

    cluster.bucket.down.store(false, Ordering::Relaxed);
    let next = loop {
        match append(&writer, a, &large).await {
            Ok(appended) => break appended.base_offset,
            Err(error) => assert_eq!(error, AppendError::TimedOut),
        }
    };
    // Of the appends that timed out one may have been made, the one that waited for room.
    assert!(next >= acknowledged.len() as i64);
    until_bucket(&writer, |state| end_of(state, a) >= acknowledged.len() as i64).await;
    let there = in_bucket(&cluster, &writer, a).await;
    assert_eq!(there[..acknowledged.len()], acknowledged);
}

#[tokio::test]
async fn lost_answers_of_the_bucket_do_no_harm() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    for round in 1..=4 {
        // Segment and manifest are made, and both answers are lost.
        cluster.bucket.lost_answers.store(2, Ordering::Relaxed);
        append(&writer, a, &batch(2, 10, 5)).await.unwrap();
        until_bucket(&writer, |state| end_of(state, a) == round * 2).await;
    }
    assert_eq!(in_bucket(&cluster, &writer, a).await, [0, 2, 4, 6]);
    assert_eq!(writer.volumes().len(), 1);
}

#[tokio::test]
async fn an_owner_that_finds_a_newer_manifest_stops() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1 << 20;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(1, 10, 5)).await.unwrap();
    // Another owner, on a machine that sees the bucket, has committed under a later epoch.
    let bucket = std::sync::Arc::clone(&cluster.bucket) as std::sync::Arc<dyn ObjectStore>;
    let mut other =
        crate::manifest_store::ManifestStore::load(bucket, cluster.keys(), 0, 0).await.unwrap();
    let change = sluice_format::VolumeChange {
        epoch: 9,
        trim_lsn: 0,
        added_segments: Vec::new(),
        removed_streams: Vec::new(),
        streams: Vec::new(),
        ..Default::default()
    };
    other.commit(&change).await.unwrap();
    let large = batch(1, 900_000, 5);
    let refused = loop {
        if let Err(error) = append(&writer, a, &large).await {
            break error;
        }
    };
    assert_eq!(refused, AppendError::NotOwner);
    assert!(writer.volumes().is_empty());
}

#[tokio::test]
async fn retention_removes_what_is_too_old_and_its_segments() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    cluster.options.retention_interval = Duration::from_millis(20);
    let topic = cluster.topic("t", &[("retention.ms", "60000")]).await;
    let keep = cluster.topic("keep", &[("retention.ms", "-1")]).await;
    let (a, kept) = (stream(&topic, 0), stream(&keep, 0));
    let writer = cluster.start().await;
    for at in [0, 50_000, 100_000] {
        append(&writer, a, &batch(10, 10, 1_000_000 + at)).await.unwrap();
        append(&writer, kept, &batch(10, 10, 1_000_000 + at)).await.unwrap();
    }
    until_bucket(&writer, |state| end_of(state, a) == 30 && end_of(state, kept) == 30).await;
    cluster.clock.0.store(1_000_000 + 120_000, Ordering::Relaxed);
    until_bucket(&writer, |state| state.streams[&key_of(a)].log_start == 20).await;
    assert_eq!(in_bucket(&cluster, &writer, a).await, [20]);
    assert_eq!(in_bucket(&cluster, &writer, kept).await, [0, 10, 20]);
    let wait = async {
        while writer.offsets(a).unwrap().log_start != 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), wait).await.unwrap();
    assert_eq!(writer.offsets(kept).unwrap().log_start, 0);
}

#[tokio::test]
async fn a_deleted_topic_leaves_the_bucket() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    cluster.options.retention_interval = Duration::from_millis(20);
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(1, 10, 5)).await.unwrap();
    until_bucket(&writer, |state| end_of(state, a) == 1).await;
    cluster.catalog.delete_topic(topic.tenant, topic.id).await.unwrap();
    // The coordinator's log may be there: it notes that the topic's offsets are gone.
    until_bucket(&writer, |state| {
        let extents = |s: &sluice_format::StreamState| s.extents.len();
        let others: usize = state.streams.values().map(extents).sum();
        !state.streams.contains_key(&key_of(a)) && state.segments.len() <= others
    })
    .await;
    let again = cluster.topic("t", &[]).await;
    assert_eq!(append(&writer, stream(&again, 0), &batch(1, 10, 5)).await.unwrap().base_offset, 0);
}

#[tokio::test]
async fn many_manifests_load_as_one_state() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let writer = cluster.start().await;
    for n in 0..150 {
        let to = stream(&topic, n % 4);
        append(&writer, to, &batch(1, 10, 5)).await.unwrap();
        let end = i64::from(n / 4) + 1;
        until_bucket(&writer, |state| end_of(state, to) == end).await;
    }
    let (_, state) = writer.bucket_states().next().unwrap();
    let live = state.read().clone();
    live.validate().unwrap();
    writer.close(Duration::ZERO).await;
    let bucket = std::sync::Arc::clone(&cluster.bucket) as std::sync::Arc<dyn ObjectStore>;
    for hint in [0, 1, 100, live.version] {
        let bucket = std::sync::Arc::clone(&bucket);
        let loaded =
            crate::manifest_store::ManifestStore::load(bucket, cluster.keys(), 0, hint).await;
        assert_eq!(*loaded.unwrap().state().read(), live, "hint {hint}");
    }
}
