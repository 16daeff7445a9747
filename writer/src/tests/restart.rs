//! What is there after a stop, after a crash, and after a takeover.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::cluster::{Cluster, append, batch, sequenced, stream, tail, until_bucket};
use super::upload::end_of;
use crate::{AppendError, LossReason, OpenError, SequenceError, Tail, TailError};

#[tokio::test]
async fn acknowledged_records_survive_a_crash_and_a_stop() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let (a, b) = (stream(&topic, 0), stream(&topic, 1));

    let writer = cluster.start().await;
    assert_eq!(writer.leader_epoch(a), Some(1));
    assert_eq!(append(&writer, a, &batch(3, 10, 5)).await.unwrap().base_offset, 0);
    assert_eq!(append(&writer, a, &batch(2, 10, 5)).await.unwrap().base_offset, 3);
    assert_eq!(append(&writer, b, &batch(1, 10, 5)).await.unwrap().base_offset, 0);
    // As a crash: nothing is closed.
    crash(writer).await;

    let writer = cluster.start().await;
    assert_eq!(writer.leader_epoch(a), Some(2));
    assert_eq!(tail(&writer, a, 0).await, Some(vec![0, 3]));
    assert_eq!(tail(&writer, a, 4).await, Some(vec![3]), "an offset inside a batch");
    assert_eq!(append(&writer, a, &batch(1, 10, 5)).await.unwrap().base_offset, 5);
    assert_eq!(writer.epoch_end(a, 1).unwrap(), Some((1, 5)));
    assert_eq!(writer.epoch_end(a, 2).unwrap(), Some((2, 6)));
    assert_eq!(writer.epoch_end(a, 3).unwrap(), None, "an epoch to come");
    assert_eq!(writer.epoch_of(a, 5), 2);
    writer.close(Duration::ZERO).await;
    assert_eq!(append(&writer, a, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));

    let writer = cluster.start().await;
    assert_eq!(tail(&writer, a, 0).await, Some(vec![0, 3, 5]));
    assert_eq!(tail(&writer, b, 0).await, Some(vec![0]));
    assert!(matches!(writer.read(a, 7, 1).await, Err(TailError::OutOfRange)));
}

/// Ends a writer without closing its volumes, and waits until their files are let go of.
async fn crash(writer: crate::Writer) {
    writer.abandon().await;
    drop(writer);
}

#[tokio::test]
async fn idempotence_survives_a_crash_with_and_without_an_upload() {
    for upload in [false, true] {
        let mut cluster = Cluster::new().await;
        if upload {
            cluster.options.upload_segment_bytes = 1;
        }
        let topic = cluster.topic("t", &[]).await;
        let a = stream(&topic, 0);
        let writer = cluster.start().await;
        for n in 0..7 {
            let done = append(&writer, a, &sequenced(9, 0, n * 2, 2)).await.unwrap();
            assert_eq!(done.base_offset, i64::from(n) * 2);
        }
        if upload {
            until_bucket(&writer, |s| s.streams.values().any(|stream| stream.end_offset == 14))
                .await;
        }
        crash(writer).await;
        let writer = cluster.start().await;
        let again = append(&writer, a, &sequenced(9, 0, 12, 2)).await.unwrap();
        assert_eq!(again.base_offset, 12, "a retry is answered with its offset, upload {upload}");
        assert_eq!(
            append(&writer, a, &sequenced(9, 0, 20, 1)).await,
            Err(AppendError::Sequence(SequenceError::OutOfOrder))
        );
        let next = append(&writer, a, &sequenced(9, 0, 14, 1)).await.unwrap();
        assert_eq!(next.base_offset, 14);
        assert_eq!(
            append(&writer, a, &sequenced(9, -1, 0, 1)).await.unwrap_err().code(),
            sluice_wire::ErrorCode::InvalidProducerEpoch
        );
    }
}

/// As in Kafka: a batch that is there already is told with its largest time, be it the producer's or ours.
#[tokio::test]
async fn a_batch_that_is_there_is_told_with_its_time() {
    let cluster = Cluster::new().await;
    let theirs = cluster.topic("theirs", &[]).await;
    let ours = cluster.topic("ours", &[("message.timestamp.type", "LogAppendTime")]).await;
    let mut writer = cluster.start().await;
    let mut given = Vec::new();
    for topic in [&theirs, &ours] {
        let done = append(&writer, stream(topic, 0), &sequenced(9, 0, 0, 2)).await.unwrap();
        given.push(done.log_append_time_ms);
    }
    assert_eq!(given[0], -1, "the producer knows its own time");
    for _ in 0..2 {
        let at = async |topic| append(&writer, stream(topic, 0), &sequenced(9, 0, 0, 2)).await;
        assert_eq!(at(&theirs).await.unwrap().log_append_time_ms, 1_000_000);
        assert_eq!(at(&ours).await.unwrap().log_append_time_ms, given[1]);
        crash(writer).await;
        writer = cluster.start().await;
    }
}

#[tokio::test]
async fn deleted_records_stay_deleted() {
    let mut cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    for _ in 0..4 {
        append(&writer, a, &batch(5, 10, 5)).await.unwrap();
    }
    assert_eq!(writer.delete_records(a, 7).await.unwrap(), 7);
    assert_eq!(writer.delete_records(a, 3).await.unwrap(), 7, "never back");
    assert_eq!(
        writer.delete_records(a, 21).await.unwrap_err().code(),
        sluice_wire::ErrorCode::OffsetOutOfRange
    );
    crash(writer).await;
    let writer = cluster.start().await;
    assert_eq!(writer.offsets(a).unwrap().log_start, 7);
    assert!(matches!(writer.read(a, 6, 1).await, Err(TailError::OutOfRange)));
    assert_eq!(tail(&writer, a, 7).await, Some(vec![5, 10, 15]));
    writer.close(Duration::ZERO).await;

    // And through an upload, when the log that says so is trimmed.
    cluster.options.upload_segment_bytes = 1;
    let writer = cluster.start().await;
    until_bucket(&writer, |s| s.streams.values().any(|s| s.log_start == 7)).await;
    writer.close(Duration::ZERO).await;
    let writer = cluster.start().await;
    assert_eq!(writer.offsets(a).unwrap().log_start, 7);
    assert_eq!(writer.delete_records(a, -1).await.unwrap(), 20);
}

#[tokio::test]
async fn an_owner_that_sees_another_in_the_catalog_lets_go_of_the_volume() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let first = cluster.start().await;
    append(&first, a, &batch(1, 10, 5)).await.unwrap();
    let mut losses = first.losses();
    // Its file is locked until then.
    let second = cluster.start().await;
    assert_eq!(second.leader_epoch(a), Some(2));
    let lost = losses.recv().await.unwrap();
    assert_eq!((lost.volume.0, lost.epoch.0, lost.reason), (0, 1, LossReason::Claimed));
    assert_eq!(append(&first, a, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
    assert!(matches!(first.read(a, 0, 1).await, Err(TailError::NotOwner)));
    assert!(first.volumes().is_empty());
    append(&second, a, &batch(1, 10, 5)).await.unwrap();
    assert_eq!(tail(&second, a, 0).await, Some(vec![0, 1]));
}

#[tokio::test]
async fn a_volume_whose_file_is_gone_is_not_made_anew() {
    let cluster = Cluster::new().await;
    cluster.start().await.close(Duration::ZERO).await;
    std::fs::remove_file(cluster.path(0)).unwrap();
    assert!(matches!(cluster.try_start().await, Err(OpenError::Missing { .. })));
}

#[tokio::test]
async fn a_bucket_that_lost_its_manifests_is_told_from_a_new_one() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let writer = cluster.start().await;
    append(&writer, stream(&topic, 0), &batch(1, 10, 5)).await.unwrap();
    until_bucket(&writer, |s| !s.streams.is_empty()).await;
    writer.close(Duration::ZERO).await;
    cluster.bucket = super::bucket::FaultyBucket::new();
    assert!(matches!(cluster.try_start().await, Err(OpenError::Contradiction { .. })));
}

#[tokio::test]
async fn streams_spread_over_volumes_and_all_come_back() {
    let cluster = Cluster::with_volumes(3, 32 << 20).await;
    let topic = cluster.topic("t", &[]).await;
    let writer = cluster.start().await;
    for partition in 0..4 {
        append(&writer, stream(&topic, partition), &batch(2, 10, 5)).await.unwrap();
    }
    let volumes: std::collections::BTreeSet<_> =
        (0..4).map(|p| writer.volume_of(stream(&topic, p)).unwrap()).collect();
    assert_eq!(volumes.len(), 3);
    writer.close(Duration::ZERO).await;
    let writer = cluster.start().await;
    for partition in 0..4 {
        assert_eq!(tail(&writer, stream(&topic, partition), 0).await, Some(vec![0]));
    }
}

#[tokio::test]
async fn a_waiter_wakes_for_each_kind_of_change() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let (a, b) = (stream(&topic, 0), stream(&topic, 1));
    let writer = cluster.start().await;
    let waiter = Tail::waiter([writer.tail(a).unwrap(), writer.tail(b).unwrap()].iter());
    let changed = || tokio::time::timeout(Duration::from_secs(5), waiter.changed());
    append(&writer, b, &batch(1, 10, 5)).await.unwrap();
    changed().await.expect("an append wakes");
    writer.delete_records(b, 1).await.unwrap();
    changed().await.expect("a moved log start wakes");
    cluster.catalog.delete_topic(topic.tenant, topic.id).await.unwrap();
    changed().await.expect("a deleted topic wakes");
    assert!(matches!(writer.offsets(b), Err(TailError::NotOwner)));
}

#[tokio::test]
async fn a_stream_that_nobody_uses_leaves_memory_and_comes_back_as_it_was() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    cluster.options.tail_cache_bytes = 0;
    cluster.options.retention_interval = Duration::from_millis(20);
    let topic = cluster.topic("t", &[]).await;
    let (a, b) = (stream(&topic, 0), stream(&topic, 1));
    let writer = cluster.start().await;
    for n in 0..3 {
        append(&writer, a, &sequenced(9, 0, n, 1)).await.unwrap();
        append(&writer, b, &batch(1, 10, 5)).await.unwrap();
    }
    let waiter = Tail::waiter([writer.tail(b).unwrap()].iter());
    let gone = async {
        // And the coordinator's log.
        while writer.stream_count() > 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("only the waited for stays");
    let offsets = writer.offsets(a).unwrap();
    assert_eq!((offsets.log_start, offsets.tail_start, offsets.high_watermark), (0, 3, 3));
    assert_eq!(append(&writer, a, &sequenced(9, 0, 1, 1)).await.unwrap().base_offset, 1);
    assert_eq!(append(&writer, a, &sequenced(9, 0, 3, 1)).await.unwrap().base_offset, 3);
    assert_eq!(writer.epoch_of(a, 1), 1);
    append(&writer, b, &batch(1, 10, 5)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), waiter.changed()).await.expect("it still wakes");
}

#[tokio::test]
async fn manifests_that_arrive_damaged_are_read_again() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(3, 10, 5)).await.unwrap();
    until_bucket(&writer, |state| end_of(state, a) == 3).await;
    writer.abandon().await;
    drop(writer);
    cluster.bucket.damaged_gets.store(2, Ordering::Relaxed);
    let writer = cluster.start().await;
    assert_eq!(cluster.bucket.damaged_gets.load(Ordering::Relaxed), 0, "they were read");
    assert_eq!(writer.offsets(a).unwrap().high_watermark, 3);
    writer.abandon().await;
    drop(writer);
    cluster.bucket.damaged_gets.store(1000, Ordering::Relaxed);
    assert!(cluster.try_start().await.is_err(), "what is damaged where it lies is told");
}
