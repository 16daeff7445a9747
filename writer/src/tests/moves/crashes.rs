//! Owners that end at each step of a move, and moves that are given up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_model::{StreamId, VolumeId};

use super::super::cluster::{Cluster, append, batch, sequenced};
use super::{
    LONG, cluster, flush, in_bucket, move_to, owner, settled, state_of, until, volume_of, wish,
};
use crate::recovery::key_of;
use crate::tests::bucket::Rule;
use crate::tests::ownership::on;
use crate::tests::zombies::Veil;
use crate::{AppendError, Writer};

/// Where a move is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Appends are held, and the manifest that seals the stream is on its way.
    Sealing,
    /// It is sealed, and the target was not told.
    Sealed,
    /// The target was told, and its manifest is on its way.
    Adopting,
    /// The target's manifest is there, and the catalog was not told.
    Adopted,
    /// The stream is there, and the source's last manifest is on its way.
    Departing,
}

/// Who ends then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Source,
    Target,
    Both,
}

/// A writer with a catalog of its own that can be kept from changing anything.
pub(super) async fn veiled(cluster: &Cluster, node: i32, volume: u32) -> (Writer, Arc<Veil>) {
    let veil = Veil::new();
    let catalog = cluster.catalog_through(|store| veil.over(store)).await;
    let writer = Writer::new(cluster.parts(node, catalog));
    writer.take(&cluster.place(volume), LONG).await.unwrap();
    (writer, veil)
}

async fn held(cluster: &Cluster, key: &str) {
    let poll = async {
        while cluster.bucket.waiting(key) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, poll).await.expect("the put comes");
}

async fn stopped(at: At, who: Who) {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let (moving, beside) = (on(&topic, 0), on(&topic, 1));
    let (a, of_source) = veiled(&cluster, 1, 0).await;
    let (b, of_target) = veiled(&cluster, 2, 1).await;
    for n in 0..5 {
        append(&a, moving, &sequenced(9, 0, n, 1)).await.unwrap();
        append(&b, beside, &sequenced(9, 0, n, 1)).await.unwrap();
    }
    flush(&a, 0).await;
    let next = |writer: &Writer, volume: u32, more: u64| {
        cluster.keys().manifest(volume, state_of(writer, volume).version + more)
    };
    let (sealing, departing) = (next(&a, 0, 1), next(&a, 0, 2));
    let adopting = next(&b, 1, 1);
    let hold = |key: &str| cluster.bucket.rule(key, Rule::Held);
    match at {
        At::Sealing => hold(&sealing),
        At::Sealed => of_source.refuse.store(true, Ordering::Relaxed),
        At::Adopting => hold(&adopting),
        At::Adopted => of_target.refuse.store(true, Ordering::Relaxed),
        At::Departing => hold(&departing),
    }
    wish(&cluster, moving, 1).await;
    match at {
        At::Sealing => held(&cluster, &sealing).await,
        At::Sealed => until(&a, 0, |s| s.streams.values().any(|known| known.sealed)).await,
        At::Adopting => held(&cluster, &adopting).await,
        At::Adopted => until(&b, 1, |s| s.streams.contains_key(&key_of(moving))).await,
        At::Departing => held(&cluster, &departing).await,
    }
    if who != Who::Target {
        a.abandon().await;
    }
    if who != Who::Source {
        b.abandon().await;
    }
    for key in [&sealing, &adopting, &departing] {
        cluster.bucket.lift(key);
    }
    of_source.refuse.store(false, Ordering::Relaxed);
    of_target.refuse.store(false, Ordering::Relaxed);
    let a = if who == Who::Target { a } else { owner(&cluster, 3, &[0]).await };
    let b = if who == Who::Source { b } else { owner(&cluster, 4, &[1]).await };
    settled(&cluster).await;
    assert_eq!(volume_of(&cluster, moving), 1, "{at:?} {who:?}");
    until(&a, 0, |state| state.departed.contains_key(&key_of(moving))).await;

    // All is there once, the producer goes on, and so on once more, back.
    goes_on(&b, moving, 5).await;
    goes_on(&b, beside, 5).await;
    assert_eq!(append(&a, moving, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
    move_to(&cluster, moving, 0).await;
    goes_on(&a, moving, 6).await;
    flush(&a, 0).await;
    let (source, target) = (state_of(&a, 0), state_of(&b, 1));
    source.validate().unwrap();
    target.validate().unwrap();
    let known = &source.streams[&key_of(moving)];
    assert_eq!(in_bucket(&cluster, known).await, [0, 1, 2, 3, 4, 5, 6], "{at:?} {who:?}");
    assert!(known.moves >= 2, "two moves");
    a.close(Duration::ZERO).await;
    b.close(Duration::ZERO).await;
}

async fn goes_on(writer: &Writer, stream: StreamId, at: i32) {
    let last = append(writer, stream, &sequenced(9, 0, at - 1, 1)).await.unwrap();
    assert_eq!(last.base_offset, i64::from(at) - 1, "it is known");
    let next = append(writer, stream, &sequenced(9, 0, at, 1)).await.unwrap();
    assert_eq!(next.base_offset, i64::from(at));
}

#[tokio::test]
async fn whoever_ends_in_the_middle_of_a_move_the_next_owners_finish_it() {
    for at in [At::Sealing, At::Sealed, At::Adopting, At::Adopted, At::Departing] {
        for who in [Who::Source, Who::Target, Who::Both] {
            stopped(at, who).await;
        }
    }
}

#[tokio::test]
async fn a_target_that_does_not_come_is_given_up_and_what_it_does_later_is_of_no_account() {
    let mut cluster = cluster().await;
    cluster.options.moves.patience = Duration::from_millis(100);
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    append(&a, moving, &sequenced(9, 0, 0, 1)).await.unwrap();
    let manifests = cluster.keys().manifests(1);
    cluster.bucket.rule(&*manifests, Rule::Held);
    wish(&cluster, moving, 1).await;
    settled(&cluster).await;
    assert_eq!(volume_of(&cluster, moving), 0, "it stays");
    let appended = async {
        loop {
            match append(&a, moving, &sequenced(9, 0, 1, 1)).await {
                Err(AppendError::NotOwner) => tokio::task::yield_now().await,
                done => return done.unwrap().base_offset,
            }
        }
    };
    assert_eq!(tokio::time::timeout(LONG, appended).await.expect("it is served again"), 1);
    assert_eq!(state_of(&a, 0).streams[&key_of(moving)].moves, 2);

    // The target's manifest arrives now, with what the stream was then.
    cluster.bucket.lift(&manifests);
    until(&b, 1, |state| state.departed.contains_key(&key_of(moving))).await;
    assert_eq!(append(&b, moving, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
    move_to(&cluster, moving, 1).await;
    assert_eq!(append(&b, moving, &sequenced(9, 0, 2, 1)).await.unwrap().base_offset, 2);
    let known = state_of(&b, 1).streams[&key_of(moving)].clone();
    assert_eq!((known.moves, known.end_offset), (3, 2));
    assert_eq!(in_bucket(&cluster, &known).await, [0, 1]);
}

/// A move is given up, another begins, and the owner ends before it could open the stream: what the first target
/// may have taken in must not be taken for what the second has.
#[tokio::test]
async fn a_move_after_one_that_was_given_up_counts_for_more() {
    let mut cluster = Cluster::with_volumes(3, 64 << 20).await;
    cluster.options.moves.patience = Duration::from_millis(100);
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    append(&a, moving, &sequenced(9, 0, 0, 1)).await.unwrap();
    flush(&a, 0).await;
    let opening = cluster.keys().manifest(0, state_of(&a, 0).version + 2);
    cluster.bucket.rule(&*opening, Rule::Held);
    cluster.bucket.rule(cluster.keys().manifests(1), Rule::Held);
    wish(&cluster, moving, 1).await;
    held(&cluster, &opening).await;
    settled(&cluster).await;
    wish(&cluster, moving, 2).await;
    a.abandon().await;
    cluster.bucket.lift(&opening);
    cluster.bucket.lift(&cluster.keys().manifests(1));
    until(&b, 1, |state| state.departed.contains_key(&key_of(moving))).await;
    let late = state_of(&b, 1).departed[&key_of(moving)].moves;
    let (_a, c) = (owner(&cluster, 3, &[0]).await, owner(&cluster, 4, &[2]).await);
    settled(&cluster).await;
    assert_eq!(volume_of(&cluster, moving), 2);
    let known = state_of(&c, 2).streams[&key_of(moving)].clone();
    assert!(known.moves > late, "{} after {late}", known.moves);
    assert_eq!(append(&c, moving, &sequenced(9, 0, 1, 1)).await.unwrap().base_offset, 1);
}

#[tokio::test]
async fn a_volume_that_nobody_owns_is_waited_for_and_nobody_is_held_meanwhile() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let a = owner(&cluster, 1, &[0]).await;
    wish(&cluster, moving, 1).await;
    for n in 0..20 {
        append(&a, moving, &sequenced(9, 0, n, 1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let b = owner(&cluster, 2, &[1]).await;
    settled(&cluster).await;
    assert_eq!(append(&b, moving, &sequenced(9, 0, 20, 1)).await.unwrap().base_offset, 20);
}

#[tokio::test]
async fn a_bucket_that_is_too_slow_for_a_move_holds_nobody_for_long() {
    let mut cluster = cluster().await;
    cluster.options.moves.hold = Duration::from_millis(50);
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    append(&a, moving, &sequenced(9, 0, 0, 1)).await.unwrap();
    cluster.bucket.rule("segments", Rule::Slow(Duration::from_millis(400)));
    wish(&cluster, moving, 1).await;
    let mut next = 1;
    let busy = async {
        // As long as it writes something is left to upload, and it is never held for long.
        while !cluster.catalog.moves().is_empty() {
            match append(&a, moving, &sequenced(9, 0, next, 1)).await {
                Ok(done) => {
                    assert_eq!(done.base_offset, i64::from(next));
                    next += 1;
                }
                Err(AppendError::NotOwner) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, busy).await.expect("held for moments only");
    assert!(next > 30, "{next}");
    assert_eq!(volume_of(&cluster, moving), 0, "it is not tried for ever");
    cluster.bucket.lift("segments");
    move_to(&cluster, moving, 1).await;
    let done = append(&b, moving, &sequenced(9, 0, next, 1)).await.unwrap();
    assert_eq!(done.base_offset, i64::from(next));
}

/// The catalog's news do not reach an owner that the stream has left: it serves nothing of it, however it looks.
#[tokio::test]
async fn an_owner_that_has_not_heard_serves_nothing_of_a_stream_that_left() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, veil) = veiled(&cluster, 1, 0).await;
    let b = owner(&cluster, 2, &[1]).await;
    append(&a, moving, &sequenced(9, 0, 0, 1)).await.unwrap();
    cluster.bucket.rule(cluster.keys().manifests(1), Rule::Held);
    wish(&cluster, moving, 1).await;
    until(&a, 0, |state| state.streams.values().any(|known| known.sealed)).await;
    held_any(&cluster).await;
    veil.blind.store(true, Ordering::Relaxed);
    cluster.bucket.lift(&cluster.keys().manifests(1));
    settled(&cluster).await;
    append(&b, moving, &sequenced(9, 0, 1, 1)).await.unwrap();
    let short = Duration::from_millis(50);
    let refused = a.append(moving, &sequenced(8, 0, 0, 1), short).await;
    assert!(matches!(refused, Err(AppendError::NotOwner | AppendError::TimedOut)), "{refused:?}");
    assert!(a.tail(moving).is_err());

    // Its successor looks at the volume's manifests, whatever lookups say.
    a.abandon().await;
    let (c, _) = {
        let veil = Veil::new();
        let catalog = cluster.catalog_through(|store| veil.over(store)).await;
        let c = Writer::new(cluster.parts(3, catalog));
        c.take(&cluster.place(0), LONG).await.unwrap();
        (c, veil)
    };
    until(&c, 0, |state| state.departed.contains_key(&key_of(moving))).await;
    let volume = c.inner.volumes.get(VolumeId(0)).unwrap();
    let stream = volume.stream(moving);
    assert!(stream.is_away(), "not an empty one");
    assert_eq!(append(&b, moving, &sequenced(9, 0, 2, 1)).await.unwrap().base_offset, 2);
}

/// A put is held by a rule.
async fn held_any(cluster: &Cluster) {
    let poll = async {
        loop {
            let versions = 1..20;
            let keys = versions.map(|version| cluster.keys().manifest(1, version));
            if keys.into_iter().any(|key| cluster.bucket.waiting(&key) > 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, poll).await.expect("the put comes");
}
