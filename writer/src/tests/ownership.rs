//! Volumes that come and go while the others are served: taken, released, lost, and what fails half-way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_catalog::Topic;
use sluice_model::{NodeId, StreamId, VolumeEpoch, VolumeId};
use sluice_wire::{ErrorCode, Uuid};
use tokio::time::Instant;

use super::bucket::Rule;
use super::cluster::{Cluster, Kind, append, batch, sequenced, stream, tail};
use super::groups::{commit, committed};
use super::upload::in_bucket;
use super::zombies::Veil;
use crate::{
    AppendError, LossReason, OpenError, ReleaseError, Tail, TailError, TakeError, TakePhase, Writer,
};

const LONG: Duration = Duration::from_secs(20);

/// A partition on the volume.
pub(super) fn on(topic: &Topic, volume: u32) -> StreamId {
    let at = topic.partitions.iter().position(|known| known.0 == volume).unwrap();
    stream(topic, at as u32)
}

async fn take(writer: &Writer, cluster: &Cluster, volume: u32) -> Result<u32, Box<TakeError>> {
    let taken = writer.take(&cluster.place(volume), LONG).await?;
    assert_eq!(taken.volume.0, volume);
    Ok(taken.epoch.0)
}

#[tokio::test]
async fn a_released_volume_is_taken_by_another_with_nothing_to_read_back() {
    for kind in Kind::all() {
        let cluster = Cluster::of(kind, 2, 64 << 20).await;
        let topic = cluster.topic("t", &[]).await;
        let (moved, kept) = (on(&topic, 1), on(&topic, 0));
        let (a, b) = (cluster.empty(1), cluster.empty(2));
        assert_eq!(append(&a, moved, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
        for volume in [0, 1] {
            assert_eq!(take(&a, &cluster, volume).await.unwrap(), 1);
        }
        assert!(matches!(
            take(&a, &cluster, 1).await.unwrap_err().cause,
            OpenError::Here { volume: 1 }
        ));
        for _ in 0..5 {
            append(&a, moved, &batch(2, 10_000, 5)).await.unwrap();
            append(&a, kept, &batch(2, 10_000, 5)).await.unwrap();
        }
        let waiting = Tail::waiter([a.tail(moved).unwrap()].iter());
        let released = a.release(VolumeId(1), LONG).await.unwrap();
        assert_eq!((released.epoch, released.left_bytes), (VolumeEpoch(1), 0), "{kind:?}");
        tokio::time::timeout(LONG, waiting.changed()).await.expect("a parked fetch looks again");
        assert!(matches!(a.tail(moved).err(), Some(TailError::NotOwner)));
        assert_eq!(append(&a, moved, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
        let known = cluster.catalog.volume(VolumeId(1)).unwrap();
        assert_eq!((known.owner, known.epoch), (None, VolumeEpoch(1)));
        assert_eq!(a.release(VolumeId(1), LONG).await, Err(ReleaseError::NotHere { volume: 1 }));

        let taken = b.take(&cluster.place(1), LONG).await.unwrap();
        assert_eq!((taken.epoch, taken.recovered_bytes), (VolumeEpoch(2), 0), "{kind:?}");
        assert_eq!(b.offsets(moved).unwrap().high_watermark, 10);
        assert_eq!(in_bucket(&cluster, &b, moved).await, [0, 2, 4, 6, 8]);
        assert_eq!(append(&b, moved, &batch(1, 10, 5)).await.unwrap().base_offset, 10);
        assert_eq!(append(&a, kept, &batch(1, 10, 5)).await.unwrap().base_offset, 10);
        assert_eq!(a.volumes(), [(VolumeId(0), VolumeEpoch(1))]);
        a.close(Duration::ZERO).await;
        b.close(Duration::ZERO).await;
        assert!(matches!(take(&b, &cluster, 1).await.unwrap_err().cause, OpenError::Closed));
    }
}

/// A producer finds the volume wherever it is; it sends each batch until somebody takes it.
#[tokio::test]
async fn a_producer_notices_no_more_of_a_handover_than_a_pause() {
    for kind in Kind::all() {
        let mut cluster = Cluster::of(kind, 2, 64 << 20).await;
        cluster.options.upload_segment_bytes = 100_000;
        let topic = cluster.topic("t", &[]).await;
        let (moved, kept) = (on(&topic, 1), on(&topic, 0));
        let writers = Arc::new([cluster.empty(1), cluster.empty(2)]);
        take(&writers[0], &cluster, 0).await.unwrap();
        take(&writers[0], &cluster, 1).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let producer = tokio::spawn({
            let (writers, stop) = (Arc::clone(&writers), Arc::clone(&stop));
            async move {
                let (mut next, mut longest) = (0, Duration::ZERO);
                while !stop.load(Ordering::Relaxed) {
                    let batch = sequenced(9, 0, next, 1);
                    let begun = Instant::now();
                    let mut at = 0;
                    let base = loop {
                        match append(&writers[at % 2], moved, &batch).await {
                            Ok(done) => break done.base_offset,
                            Err(AppendError::NotOwner | AppendError::TimedOut) => at += 1,
                            Err(error) => panic!("a client would not retry this: {error}"),
                        }
                        tokio::task::yield_now().await;
                    };
                    longest = longest.max(begun.elapsed());
                    assert_eq!(base, i64::from(next), "in order, once");
                    // The other volume of the first owner never pauses.
                    append(&writers[0], kept, &sequenced(9, 0, next, 1)).await.unwrap();
                    next += 1;
                }
                (next, longest)
            }
        });
        for round in 0..6 {
            let (from, to) = (&writers[round % 2], &writers[(round + 1) % 2]);
            tokio::time::sleep(Duration::from_millis(30)).await;
            from.release(VolumeId(1), LONG).await.unwrap();
            assert_eq!(take(to, &cluster, 1).await.unwrap(), round as u32 + 2);
        }
        stop.store(true, Ordering::Relaxed);
        let (count, longest) = producer.await.unwrap();
        println!("{kind:?}: {count} batches through 6 handovers, longest pause {longest:?}");
        assert!(count > 12, "{count} batches say nothing");
        let offsets = writers[0].offsets(moved).unwrap();
        assert_eq!((offsets.log_start, offsets.high_watermark), (0, i64::from(count)));
        writers[0].release(VolumeId(0), LONG).await.unwrap();
        writers[0].inner.volumes.get(VolumeId(1)).unwrap().flush().await;
        let there = in_bucket(&cluster, &writers[0], moved).await;
        assert_eq!(there, (0..i64::from(count)).collect::<Vec<_>>());
        writers[0].close(Duration::ZERO).await;
    }
}

/// What is handed over is what comes back: coordinators move with the first volume, and answer that they are
/// elsewhere until they do.
#[tokio::test]
async fn coordinators_go_where_their_volume_goes() {
    let cluster = Cluster::with_volumes(2, 64 << 20).await;
    let topic = cluster.topic("t", &[]).await;
    let id = Uuid(topic.id.0);
    let (a, b) = (cluster.empty(1), cluster.empty(2));
    take(&a, &cluster, 1).await.unwrap();
    assert_eq!(commit(&a, "g", id, 7, "").await, ErrorCode::NotCoordinator, "not its volume");
    take(&a, &cluster, 0).await.unwrap();
    assert_eq!(commit(&a, "g", id, 7, "").await, ErrorCode::None);
    let tenant = topic.tenant;
    let begun = a.transactions().init_producer(tenant, "x", 60_000, None).await.unwrap();
    assert_eq!(cluster.metrics.transactions.ids.get(), 1);

    a.release(VolumeId(0), LONG).await.unwrap();
    assert_eq!(commit(&a, "g", id, 8, "").await, ErrorCode::NotCoordinator);
    let elsewhere = a.transactions().init_producer(tenant, "x", 60_000, None).await;
    assert_eq!(elsewhere, Err(ErrorCode::NotCoordinator));
    assert_eq!(a.volumes(), [(VolumeId(1), VolumeEpoch(1))]);

    take(&b, &cluster, 0).await.unwrap();
    assert_eq!(committed(&b, "g").await, [7]);
    let again = b.transactions().init_producer(tenant, "x", 60_000, None).await.unwrap();
    assert_eq!((again.0, again.1), (begun.0, begun.1 + 1));
    assert_eq!(cluster.metrics.transactions.ids.get(), 1, "counted once");

    // A claim by a node that never opens it: lost at once, and with it the coordinators.
    let mut losses = b.losses();
    cluster.catalog.claim_volume(VolumeId(0), NodeId(9), VolumeEpoch(2)).await.unwrap();
    let lost = losses.recv().await.unwrap();
    assert_eq!(
        (lost.volume, lost.epoch, lost.reason),
        (VolumeId(0), VolumeEpoch(2), LossReason::Claimed)
    );
    assert_eq!(commit(&b, "g", id, 9, "").await, ErrorCode::NotCoordinator);
    take(&a, &cluster, 0).await.unwrap();
    assert_eq!(committed(&a, "g").await, [7]);
    assert_eq!(commit(&a, "g", id, 9, "").await, ErrorCode::None);
}

#[tokio::test]
async fn a_volume_that_is_lost_takes_nothing_along() {
    let cluster = Cluster::with_volumes(2, 64 << 20).await;
    let topic = cluster.topic("t", &[]).await;
    let (gone, kept) = (on(&topic, 1), on(&topic, 0));
    let writer = cluster.start().await;
    append(&writer, gone, &batch(1, 10, 5)).await.unwrap();
    let waiting = Tail::waiter([writer.tail(gone).unwrap()].iter());
    let mut losses = writer.losses();
    // The bucket refuses it: somebody unknown to the catalog has committed. Uploads meet that.
    writer.inner.volumes.get(VolumeId(1)).unwrap().fence();
    let lost = losses.recv().await.unwrap();
    assert_eq!((lost.volume, lost.reason), (VolumeId(1), LossReason::Fenced));
    tokio::time::timeout(LONG, waiting.changed()).await.expect("a parked fetch looks again");
    assert!(matches!(writer.tail(gone).err(), Some(TailError::NotOwner)));
    assert_eq!(append(&writer, gone, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
    append(&writer, kept, &batch(1, 10, 5)).await.unwrap();
    let given_back = async {
        while cluster.catalog.volume(VolumeId(1)).unwrap().owner.is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, given_back).await.expect("nobody owns it, so anybody may claim it");
    assert_eq!(take(&writer, &cluster, 1).await.unwrap(), 2, "under a new epoch only");
    assert_eq!(tail(&writer, gone, 0).await, Some(vec![0]));
    assert_eq!(cluster.metrics.ownership.lost.get(), 1);
    assert_eq!(cluster.metrics.ownership.volumes.get(), 2);
}

/// Ten takes share their waits: each has a bucket that takes its time for the manifest.
#[tokio::test]
async fn ten_volumes_of_a_dead_writer_are_taken_side_by_side() {
    let cluster = Cluster::with_volumes(11, 8 << 20).await;
    let dead = cluster.start().await;
    let topic = cluster.topic("t", &[]).await;
    for partition in 0..4 {
        append(&dead, stream(&topic, partition), &batch(1, 100_000, 5)).await.unwrap();
    }
    dead.abandon().await;
    drop(dead);
    cluster.bucket.rule("/manifests/", Rule::Slow(Duration::from_secs(1)));
    let writer = cluster.empty(2);
    let begun = Instant::now();
    take(&writer, &cluster, 10).await.unwrap();
    let one = begun.elapsed();
    let begun = Instant::now();
    let ten: Vec<_> = (0..10).map(|volume| take(&writer, &cluster, volume)).collect();
    for taken in futures_util::future::join_all(ten).await {
        taken.unwrap();
    }
    let ten = begun.elapsed();
    println!("one volume {one:?}, ten {ten:?}");
    assert!(one >= Duration::from_secs(1) && ten < one * 4, "one {one:?}, ten {ten:?}");
    assert_eq!(writer.volumes().len(), 11);
    for partition in 0..4 {
        assert_eq!(tail(&writer, stream(&topic, partition), 0).await, Some(vec![0]));
    }
}

/// Whatever fails, nothing is served, the claim is given back, and the next try has all records.
#[tokio::test]
async fn a_take_that_fails_half_way_serves_nothing_and_may_be_tried_again() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let first = cluster.start().await;
    append(&first, a, &batch(3, 10, 5)).await.unwrap();
    first.abandon().await;
    drop(first);

    let veil = Veil::new();
    let catalog = cluster.catalog_through(|store| veil.over(store)).await;
    let writer = Writer::new(cluster.parts(2, catalog));
    let whole = std::fs::read(cluster.path(0)).unwrap();
    let refused = async |phase: TakePhase| {
        let short = Duration::from_millis(500);
        let error = writer.take(&cluster.place(0), short).await.unwrap_err();
        assert_eq!(error.phase, phase, "{error}");
        assert!(writer.volumes().is_empty());
        assert_eq!(append(&writer, a, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
        let known = cluster.catalog.volume(VolumeId(0)).unwrap();
        assert!(known.owner.is_none() || error.epoch.is_none(), "the claim was given back");
        error
    };

    veil.refuse.store(true, Ordering::Relaxed);
    let error = refused(TakePhase::Claim).await;
    assert!(matches!(error.cause, OpenError::Claim { .. }) && error.epoch.is_none(), "{error}");
    veil.refuse.store(false, Ordering::Relaxed);

    std::fs::write(cluster.path(0), vec![0; whole.len()]).unwrap();
    let error = refused(TakePhase::Fence).await;
    assert!(matches!(error.cause, OpenError::Volume { .. }), "{error}");
    assert_eq!(error.epoch, Some(VolumeEpoch(2)));
    std::fs::write(cluster.path(0), &whole).unwrap();

    cluster.bucket.damaged_gets.store(u32::MAX, Ordering::Relaxed);
    let error = refused(TakePhase::Recover).await;
    assert!(matches!(error.cause, OpenError::Manifest(_)), "{error}");
    cluster.bucket.damaged_gets.store(0, Ordering::Relaxed);

    cluster.bucket.down.store(true, Ordering::Relaxed);
    let error = refused(TakePhase::Recover).await;
    assert!(matches!(error.cause, OpenError::TookTooLong { .. }), "{error}");
    cluster.bucket.down.store(false, Ordering::Relaxed);

    assert_eq!(take(&writer, &cluster, 0).await.unwrap(), 5, "each try has used one up");
    assert_eq!(tail(&writer, a, 0).await, Some(vec![0]));
    assert_eq!(append(&writer, a, &batch(1, 10, 5)).await.unwrap().base_offset, 3);
}

/// The last manifest of an owner that was cut off arrives while the next one reads the log back.
#[tokio::test]
async fn a_manifest_that_an_older_owner_had_on_its_way_is_taken_in() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let old = cluster.start().await;
    append(&old, a, &batch(1, 10, 5)).await.unwrap();
    super::cluster::until_bucket(&old, |state| super::upload::end_of(state, a) == 1).await;
    let version = old.bucket_states().next().unwrap().1.read().version;
    // Its next manifest is made; it does not hear of that.
    let next = cluster.keys().manifest(0, version + 1);
    cluster.bucket.rule(next.clone(), Rule::Held);
    append(&old, a, &batch(1, 10, 5)).await.unwrap();
    let waiting = async |commits: usize| {
        while cluster.bucket.waiting(&next) < commits {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    waiting(1).await;
    let new = cluster.empty(2);
    let place = cluster.place(0);
    let taking = new.take(&place, LONG);
    tokio::pin!(taking);
    // The new owner's commit of the same version waits behind the same rule.
    tokio::select! {
        taken = &mut taking => panic!("it waits for its commit: {taken:?}"),
        () = waiting(2) => {}
    }
    cluster.bucket.lift(&next);
    let taken = taking.await.unwrap();
    assert_eq!(taken.epoch, VolumeEpoch(2));
    assert_eq!(new.offsets(a).unwrap().high_watermark, 2);
    assert_eq!(append(&new, a, &batch(1, 10, 5)).await.unwrap().base_offset, 2);
    let (_, state) = new.bucket_states().next().unwrap();
    state.read().validate().unwrap();
}

#[tokio::test]
async fn a_topic_that_is_deleted_while_nobody_has_its_volume_is_gone_at_the_next_take() {
    let cluster = Cluster::with_volumes(1, 64 << 20).await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.empty(1);
    take(&writer, &cluster, 0).await.unwrap();
    append(&writer, a, &batch(1, 10, 5)).await.unwrap();
    writer.release(VolumeId(0), LONG).await.unwrap();
    cluster.catalog.delete_topic(topic.tenant, topic.id).await.unwrap();
    take(&writer, &cluster, 0).await.unwrap();
    let (_, state) = writer.bucket_states().next().unwrap();
    assert!(!state.read().streams.contains_key(&crate::recovery::key_of(a)));
}
