//! Several segments on their way at once: commits in the order of the log, and crashes at every step.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use object_store::ObjectStore;
use proptest::prelude::*;
use sluice_format::VolumeChange;
use sluice_model::StreamId;

use super::bucket::Rule;
use super::cluster::{Cluster, append, batch, stream, tail, until_bucket};
use super::upload::{end_of, in_bucket};
use crate::manifest_store::ManifestStore;
use crate::{AppendError, Writer};

/// Each append makes a segment.
async fn cluster() -> (Cluster, StreamId) {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    cluster.options.upload_in_flight_bytes = u64::MAX;
    let topic = cluster.topic("t", &[]).await;
    (cluster, stream(&topic, 0))
}

async fn append_all(writer: &Writer, stream: StreamId, count: i64) {
    for n in 0..count {
        let done = append(writer, stream, &batch(1, 1000, 5)).await.unwrap();
        assert_eq!(done.base_offset, n);
    }
}

/// The sequence numbers of the segments that are in the bucket, in the order in which they got there.
fn segments(cluster: &Cluster) -> Vec<u64> {
    let done = cluster.bucket.done.lock();
    let segments = done.iter().filter(|key| key.contains("/segments/"));
    segments.filter_map(|key| key.rsplit('-').next()?.parse().ok()).collect()
}

async fn until(wanted: impl Fn() -> bool) {
    let poll = async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), poll).await.expect("it gets there");
}

#[tokio::test]
async fn a_put_that_hangs_holds_up_the_commits_behind_it_and_no_puts() {
    let (cluster, a) = cluster().await;
    let writer = cluster.start().await;
    cluster.bucket.rule("/segments/0/1-1", Rule::Held);
    append_all(&writer, a, 6).await;
    // Three are in flight: the one that hangs, and two behind it that are there.
    until(|| segments(&cluster) == [0, 2, 3]).await;
    let (_, state) = writer.bucket_states().next().unwrap();
    assert_eq!(end_of(&state.read(), a), 1, "nothing is committed out of order");
    assert_eq!(writer.offsets(a).unwrap().high_watermark, 6);
    cluster.bucket.lift("/segments/0/1-1");
    until_bucket(&writer, |state| end_of(state, a) == 6).await;
    assert_eq!(in_bucket(&cluster, &writer, a).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn only_a_segment_that_nobody_waits_for_is_sent_slowly() {
    let (cluster, a) = cluster().await;
    let writer = cluster.start().await;
    cluster.bucket.rule("/segments/0/1-0", Rule::Held);
    append_all(&writer, a, 3).await;
    until(|| segments(&cluster) == [1, 2]).await;
    cluster.bucket.lift("/segments/0/1-0");
    until_bucket(&writer, |state| end_of(state, a) == 3).await;
    let paced = cluster.bucket.paced.lock().clone();
    assert!(paced.len() == 1 && paced[0].ends_with("/segments/0/1-0"), "{paced:?}");
}

#[tokio::test]
async fn a_put_that_fails_for_a_while_is_tried_again_and_the_order_holds() {
    let (cluster, a) = cluster().await;
    let writer = cluster.start().await;
    cluster.bucket.rule("/segments/0/1-0", Rule::Refused);
    append_all(&writer, a, 4).await;
    until(|| cluster.metrics.upload_errors.get() >= 2).await;
    let (_, state) = writer.bucket_states().next().unwrap();
    assert_eq!(end_of(&state.read(), a), 0);
    cluster.bucket.lift("/segments/0/1-0");
    until_bucket(&writer, |state| end_of(state, a) == 4).await;
    assert_eq!(in_bucket(&cluster, &writer, a).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn an_owner_fenced_in_the_middle_commits_nothing_more() {
    let (cluster, a) = cluster().await;
    let writer = cluster.start().await;
    cluster.bucket.rule("/segments/0/1-0", Rule::Held);
    append_all(&writer, a, 3).await;
    until(|| segments(&cluster).len() == 2).await;
    let bucket = Arc::clone(&cluster.bucket) as Arc<dyn ObjectStore>;
    let mut other = ManifestStore::load(bucket, cluster.keys(), 0, 0).await.unwrap();
    let change = VolumeChange { epoch: 9, ..VolumeChange::default() };
    other.commit(&change).await.unwrap();
    let mut lost = writer.losses();
    cluster.bucket.lift("/segments/0/1-0");
    tokio::time::timeout(Duration::from_secs(20), lost.recv()).await.unwrap().unwrap();
    let refused = append(&writer, a, &batch(1, 10, 5)).await;
    assert_eq!(refused, Err(AppendError::NotOwner));
    let bucket = Arc::clone(&cluster.bucket) as Arc<dyn ObjectStore>;
    let found = ManifestStore::load(bucket, cluster.keys(), 0, 0).await.unwrap();
    assert_eq!(*found.state().read(), *other.state().read());
}

/// Where a crash finds an upload.
#[derive(Clone, Copy, Debug)]
enum Step {
    Put,
    PutAnswer,
    Commit,
    CommitAnswer,
    Trimmed,
}

#[tokio::test]
async fn a_crash_at_any_step_loses_nothing_and_repeats_nothing() {
    for step in [Step::Put, Step::PutAnswer, Step::Commit, Step::CommitAnswer, Step::Trimmed] {
        let (cluster, a) = cluster().await;
        let writer = cluster.start().await;
        append(&writer, a, &batch(1, 1000, 5)).await.unwrap();
        until_bucket(&writer, |state| end_of(state, a) == 1).await;
        let (part, rule) = match step {
            Step::Put => ("/segments/", Rule::Held),
            Step::PutAnswer => ("/segments/", Rule::AnswerHeld),
            Step::Commit => ("/manifests/", Rule::Held),
            Step::CommitAnswer => ("/manifests/", Rule::AnswerHeld),
            Step::Trimmed => ("nothing", Rule::Held),
        };
        let before = cluster.bucket.done.lock().len();
        cluster.bucket.rule(part, rule);
        for offset in 1..4 {
            let done = append(&writer, a, &batch(1, 1000, 5)).await.unwrap();
            assert_eq!(done.base_offset, offset);
        }
        // Held puts get nowhere; what comes after the others is seen.
        let made = || cluster.bucket.done.lock().len() - before;
        match step {
            Step::Put => {}
            Step::PutAnswer | Step::Commit => until(|| made() >= 1).await,
            Step::CommitAnswer => until(|| made() >= 4).await,
            Step::Trimmed => until_bucket(&writer, |state| end_of(state, a) == 4).await,
        }
        writer.abandon().await;
        drop(writer);
        cluster.bucket.lift(part);

        let writer = cluster.start().await;
        let offsets = writer.offsets(a).unwrap();
        assert_eq!(offsets.high_watermark, 4, "{step:?}");
        let next = append(&writer, a, &batch(1, 10, 5)).await.unwrap();
        assert_eq!(next.base_offset, 4, "{step:?}");
        until_bucket(&writer, |state| end_of(state, a) == 5).await;
        assert_eq!(in_bucket(&cluster, &writer, a).await, [0, 1, 2, 3, 4], "{step:?}");
    }
}

#[tokio::test]
async fn large_segments_go_in_parts_and_a_failed_part_leaves_nothing() {
    let (mut cluster, a) = cluster().await;
    cluster.options.multipart_above_bytes = 100_000;
    cluster.options.part_bytes = 30_000;
    let writer = cluster.start().await;
    cluster.bucket.refused_parts.store(2, Ordering::Relaxed);
    append(&writer, a, &batch(1, 500_000, 5)).await.unwrap();
    until_bucket(&writer, |state| end_of(state, a) == 1).await;
    assert!(cluster.bucket.aborted.load(Ordering::Relaxed) >= 1);
    assert_eq!(in_bucket(&cluster, &writer, a).await, [0]);
    assert!(segments(&cluster).is_empty(), "it did not go as a whole");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the order in which puts end, and wherever a crash comes between: each acknowledged record
    /// is there once, in order.
    #[test]
    fn puts_in_any_order(
        times in proptest::collection::vec(0u64..12, 12),
        lives in proptest::collection::vec(1i64..10, 1..4),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (cluster, a) = cluster().await;
            for (n, ms) in times.iter().enumerate() {
                let rule = Rule::Slow(Duration::from_millis(*ms));
                cluster.bucket.rule(format!("/segments/0/1-{n}"), rule);
            }
            let mut next = 0;
            for appends in &lives {
                let writer = cluster.start().await;
                prop_assert_eq!(writer.offsets(a).unwrap().high_watermark, next);
                for _ in 0..*appends {
                    let done = append(&writer, a, &batch(1, 1000, 5)).await.unwrap();
                    prop_assert_eq!(done.base_offset, next);
                    next += 1;
                }
                writer.abandon().await;
            }
            let writer = cluster.start().await;
            until_bucket(&writer, |state| end_of(state, a) == next).await;
            let expected: Vec<_> = (0..next).collect();
            prop_assert_eq!(in_bucket(&cluster, &writer, a).await, expected.clone());
            let rest = writer.offsets(a).unwrap().tail_start;
            prop_assert_eq!(tail(&writer, a, rest).await, Some(expected[rest as usize..].to_vec()));
            Ok(())
        })?;
    }
}
