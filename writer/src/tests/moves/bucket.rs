//! Segments that two volumes name: retention, compaction, deletions and orphan collection take what nobody names,
//! and nothing else.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::ObjectStore;
use sluice_format::key::Name;
use sluice_format::{SegmentId, VolumeState};
use sluice_model::TenantId;

use super::super::cluster::{Cluster, append, batch};
use super::{LONG, cluster, flush, in_bucket, move_to, owner, state_of, until};
use crate::recovery::key_of;
use crate::tests::ownership::on;
use crate::{CompactionOptions, Writer};

const FAR_FUTURE_MS: i64 = 4_102_444_800_000;

async fn segments(cluster: &Cluster) -> BTreeSet<SegmentId> {
    let keys = cluster.keys();
    let objects: Vec<_> = cluster.bucket.list(None).try_collect().await.unwrap();
    let names = objects.iter().filter_map(|object| keys.parse(object.location.as_ref()));
    let segments = names.filter_map(|name| match name {
        Name::Segment(id) => Some(id),
        _ => None,
    });
    segments.collect()
}

fn named(states: &[VolumeState]) -> BTreeSet<SegmentId> {
    states.iter().flat_map(|state| state.segments.keys().copied()).collect()
}

/// Waits until the bucket has exactly what the volumes' states name.
async fn clean(cluster: &Cluster, writers: [&Writer; 2]) -> BTreeSet<SegmentId> {
    let mut last = (BTreeSet::new(), BTreeSet::new());
    let poll = async {
        loop {
            let states = [state_of(writers[0], 0), state_of(writers[1], 1)];
            last = (segments(cluster).await, named(&states));
            if last.0 == last.1 {
                return last.0.clone();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    match tokio::time::timeout(LONG, poll).await {
        Ok(found) => found,
        Err(_) => panic!("the bucket has {:?}, and named are {:?}", last.0, last.1),
    }
}

#[tokio::test]
async fn a_lent_segment_goes_when_neither_its_home_nor_the_stream_names_it() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let beside = cluster.topic("u", &[]).await;
    let kept = on(&beside, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    // Three segments in which both streams are.
    for _ in 0..3 {
        append(&a, moving, &batch(10, 10, 5)).await.unwrap();
        append(&a, kept, &batch(10, 10, 5)).await.unwrap();
        flush(&a, 0).await;
    }
    move_to(&cluster, moving, 1).await;
    until(&a, 0, |state| state.departed.contains_key(&key_of(moving))).await;
    let all = segments(&cluster).await;
    assert_eq!(all.len(), 3);
    assert_eq!(state_of(&a, 0).departed[&key_of(moving)].lent, all);

    // The home is through with all of them: they stay.
    a.delete_records(kept, -1).await.unwrap();
    flush(&a, 0).await;
    until(&a, 0, |state| state.streams[&key_of(kept)].extents.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(segments(&cluster).await, all);
    let known = state_of(&b, 1).streams[&key_of(moving)].clone();
    assert_eq!(in_bucket(&cluster, &known).await, [0, 10, 20]);

    // The stream is through with the first.
    b.delete_records(moving, 10).await.unwrap();
    flush(&b, 1).await;
    until(&a, 0, |state| state.departed[&key_of(moving)].lent.len() == 2).await;
    let left = clean(&cluster, [&a, &b]).await;
    assert_eq!(left.len(), 2);
    // A third owner of the stream holds them as well; the home is not asked.
    move_to(&cluster, moving, 0).await;
    until(&b, 1, |state| state.departed.contains_key(&key_of(moving))).await;
    move_to(&cluster, moving, 1).await;
    until(&a, 0, |state| state.departed.contains_key(&key_of(moving))).await;
    assert_eq!(segments(&cluster).await, left);
    assert_eq!(state_of(&a, 0).departed[&key_of(moving)].lent, left);
    b.delete_records(moving, -1).await.unwrap();
    flush(&b, 1).await;
    until(&a, 0, |state| state.departed[&key_of(moving)].lent.is_empty()).await;
    assert!(clean(&cluster, [&a, &b]).await.is_empty());
}

#[tokio::test]
async fn a_home_that_cannot_ask_the_other_owner_reads_its_manifests() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    append(&a, moving, &batch(10, 10, 5)).await.unwrap();
    move_to(&cluster, moving, 1).await;
    b.delete_records(moving, -1).await.unwrap();
    flush(&b, 1).await;
    b.close(Duration::ZERO).await;
    // Its successor at home neither.
    a.close(Duration::ZERO).await;
    let a = owner(&cluster, 3, &[0]).await;
    until(&a, 0, |state| state.departed[&key_of(moving)].lent.is_empty()).await;
    assert!(state_of(&a, 0).segments.is_empty());
}

#[tokio::test]
async fn compaction_rewrites_what_a_stream_brought_along_and_the_home_lets_it_go() {
    let mut cluster = cluster().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    for _ in 0..30 {
        append(&a, moving, &batch(1, 10, 5)).await.unwrap();
    }
    move_to(&cluster, moving, 1).await;
    until(&a, 0, |state| state.departed.contains_key(&key_of(moving))).await;
    let lent = state_of(&a, 0).departed[&key_of(moving)].lent.clone();
    assert!(lent.len() > 10, "{lent:?}");
    b.close(Duration::ZERO).await;
    cluster.options.compaction = CompactionOptions {
        interval: Duration::from_millis(10),
        min_age: Duration::ZERO,
        bytes_per_second: 1 << 40,
        ..CompactionOptions::default()
    };
    let b = owner(&cluster, 3, &[1]).await;
    for _ in 0..30 {
        append(&b, moving, &batch(1, 10, 5)).await.unwrap();
    }
    flush(&b, 1).await;
    until(&b, 1, |state| state.segments.keys().all(|id| id.volume == 1)).await;
    let left = clean(&cluster, [&a, &b]).await;
    assert!(left.is_disjoint(&lent), "{left:?}");
    let known = state_of(&b, 1).streams[&key_of(moving)].clone();
    assert_eq!(in_bucket(&cluster, &known).await, (0..60).collect::<Vec<_>>());
}

/// What a target has taken in is looked at by homes as if it were the stream: it does not change until it is.
#[tokio::test]
async fn retention_waits_until_a_stream_has_come() {
    let mut cluster = cluster().await;
    let topic = cluster.topic("t", &[("retention.bytes", "100")]).await;
    let (moving, beside) = (on(&topic, 0), on(&topic, 1));
    let a = owner(&cluster, 1, &[0]).await;
    cluster.options.retention_interval = Duration::from_millis(10);
    let (b, of_target) = super::crashes::veiled(&cluster, 2, 1).await;
    for _ in 0..3 {
        append(&a, moving, &batch(1, 200, 5)).await.unwrap();
        flush(&a, 0).await;
    }
    of_target.refuse.store(true, Ordering::Relaxed);
    super::wish(&cluster, moving, 1).await;
    until(&b, 1, |state| state.streams.contains_key(&key_of(moving))).await;
    for _ in 0..3 {
        append(&b, beside, &batch(1, 200, 5)).await.unwrap();
        flush(&b, 1).await;
    }
    until(&b, 1, |state| state.streams[&key_of(beside)].log_start == 2).await;
    assert_eq!(state_of(&b, 1).streams[&key_of(moving)].log_start, 0);
    of_target.refuse.store(false, Ordering::Relaxed);
    until(&b, 1, |state| state.streams[&key_of(moving)].log_start == 2).await;
    assert_eq!(super::volume_of(&cluster, moving), 1);
}

#[tokio::test]
async fn orphan_collection_leaves_what_is_lent_and_takes_the_rest() {
    let mut cluster = cluster().await;
    // Nothing is deleted but by orphan collection.
    cluster.options.delete_grace = Duration::from_secs(3600);
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    for _ in 0..3 {
        append(&a, moving, &batch(10, 10, 5)).await.unwrap();
        flush(&a, 0).await;
    }
    move_to(&cluster, moving, 1).await;
    append(&b, moving, &batch(10, 10, 5)).await.unwrap();
    flush(&b, 1).await;
    b.delete_records(moving, 10).await.unwrap();
    flush(&b, 1).await;
    until(&a, 0, |s| s.departed.get(&key_of(moving)).is_some_and(|d| d.lent.len() == 2)).await;
    assert_eq!(segments(&cluster).await.len(), 4);
    a.close(Duration::ZERO).await;
    b.close(Duration::ZERO).await;
    cluster.options.orphans.interval = Duration::from_millis(20);
    cluster.clock.0.store(FAR_FUTURE_MS, Ordering::Relaxed);
    let (a, b) = (owner(&cluster, 3, &[0]).await, owner(&cluster, 4, &[1]).await);
    assert_eq!(clean(&cluster, [&a, &b]).await.len(), 3);
    let known = state_of(&b, 1).streams[&key_of(moving)].clone();
    assert_eq!(in_bucket(&cluster, &known).await, [10, 20, 30]);
}

#[tokio::test]
async fn a_topic_that_is_deleted_leaves_nothing_anywhere() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    append(&a, moving, &batch(10, 10, 5)).await.unwrap();
    move_to(&cluster, moving, 1).await;
    until(&a, 0, |state| state.departed.contains_key(&key_of(moving))).await;
    append(&b, moving, &batch(10, 10, 5)).await.unwrap();
    flush(&b, 1).await;
    assert_eq!(segments(&cluster).await.len(), 2);
    // One of its streams is about to move.
    let second = on(&topic, 1);
    cluster.bucket.rule(cluster.keys().manifests(0), crate::tests::bucket::Rule::Held);
    super::wish(&cluster, second, 0).await;
    until(&b, 1, |state| state.streams.get(&key_of(second)).is_some_and(|s| s.sealed)).await;
    cluster.catalog.delete_topic(TenantId::OPEN, topic.id).await.unwrap();
    cluster.bucket.lift(&cluster.keys().manifests(0));
    let gone = |state: &VolumeState| {
        let of_topic = |key: &&sluice_format::StreamKey| key.topic == topic.id.0;
        !state.streams.keys().chain(state.departed.keys()).any(|key| of_topic(&key))
    };
    until(&a, 0, gone).await;
    until(&b, 1, gone).await;
    assert!(clean(&cluster, [&a, &b]).await.is_empty());
    let poll = async {
        while !cluster.catalog.moves().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, poll).await.expect("its move is forgotten");
}
