//! Objects that nothing names: which of them go, and which stay.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sluice_format::SegmentId;
use sluice_format::key::Keys;

use super::cluster::{Cluster, append, batch, stream, until_bucket};
use crate::recovery::key_of;

/// Later than the real time that objects in the bucket are stamped with, by more than any grace.
const FAR_FUTURE_MS: i64 = 4_102_444_800_000;

async fn objects(cluster: &Cluster) -> BTreeSet<String> {
    let found: Vec<_> = cluster.bucket.list(None).try_collect().await.unwrap();
    found.into_iter().map(|object| object.location.to_string()).collect()
}

fn id(volume: u32, epoch: u32, sequence: u64) -> SegmentId {
    SegmentId { volume, epoch, sequence }
}

#[tokio::test]
async fn what_older_owners_left_goes_and_nothing_else() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &batch(1, 10, 5)).await.unwrap();
    until_bucket(&writer, |s| s.streams.get(&key_of(a)).is_some_and(|s| s.end_offset == 1)).await;
    writer.close(Duration::ZERO).await;

    let keys = cluster.keys();
    let orphans =
        [keys.segment(id(0, 1, 900)), keys.snapshot(id(0, 1, 901)), keys.segment(id(0, 0, 5))];
    let others = [
        keys.segment(id(0, 2, 900)),
        keys.segment(id(0, 3, 0)),
        keys.segment(id(1, 1, 0)),
        Keys::new("another").segment(id(0, 1, 900)),
        "0000/readme".to_owned(),
    ];
    for key in orphans.iter().chain(&others) {
        cluster.bucket.put(&Path::from(key.as_str()), "x".into()).await.unwrap();
    }
    cluster.options.orphans.interval = Duration::from_millis(20);
    // Everything is young as yet.
    let writer = cluster.start().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = objects(&cluster).await;
    assert!(orphans.iter().all(|key| before.contains(key)), "all are younger than the grace");

    cluster.clock.0.store(FAR_FUTURE_MS, Ordering::Relaxed);
    let poll = async {
        while !objects(&cluster).await.is_disjoint(&orphans.iter().cloned().collect()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poll).await.expect("orphans go");
    let after = objects(&cluster).await;
    let gone: BTreeSet<_> = before.difference(&after).cloned().collect();
    assert_eq!(gone, orphans.into_iter().collect());
    assert!(others.iter().all(|key| after.contains(key)));
    drop(writer);
}

#[tokio::test]
async fn what_waited_for_its_deletion_in_a_crash_is_found_by_the_next_owner() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    cluster.options.delete_grace = Duration::from_secs(3600);
    cluster.options.compaction.interval = Duration::from_millis(10);
    let config = [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.0")];
    let topic = cluster.topic("t", &config).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    for _ in 0..10 {
        append(&writer, a, &batch(1, 10, 5)).await.unwrap();
    }
    until_bucket(&writer, |s| s.streams.get(&key_of(a)).is_some_and(|s| s.cleaned_to == 10)).await;
    writer.abandon().await;
    drop(writer);
    let left =
        |found: &BTreeSet<String>| found.iter().filter(|key| key.contains("/segments/")).count();
    assert!(left(&objects(&cluster).await) > 1, "replaced segments are within their grace");

    cluster.options.orphans.interval = Duration::from_millis(20);
    cluster.clock.0.store(FAR_FUTURE_MS, Ordering::Relaxed);
    let writer = cluster.start().await;
    let (_, state) = writer.bucket_states().next().unwrap();
    let poll = async {
        while left(&objects(&cluster).await) > state.read().segments.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), poll).await.expect("orphans go");
    let there = objects(&cluster).await;
    let named: Vec<_> =
        state.read().segments.keys().map(|id| cluster.keys().segment(*id)).collect();
    assert!(
        !named.is_empty() && named.iter().all(|key| there.contains(key)),
        "what is named stays"
    );
}
