//! Streams that move between volumes of two writers over one bucket and one catalog.

mod bucket;
mod crashes;
mod load;

use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sluice_catalog::Change;
use sluice_format::segment::split_block;
use sluice_format::{StreamState, VolumeState};
use sluice_model::{StreamId, TenantId, VolumeId};
use sluice_wire::scan;

use super::cluster::{Cluster, append, batch, sequenced, transactional};
use super::ownership::on;
use crate::recovery::key_of;
use crate::sequence::SequenceError;
use crate::{AppendError, MoveOptions, TailError, Writer};

const LONG: Duration = Duration::from_secs(20);

/// Two volumes; little is waited for.
async fn cluster() -> Cluster {
    let mut cluster = Cluster::with_volumes(2, 64 << 20).await;
    cluster.options.moves = MoveOptions {
        hold: Duration::from_secs(5),
        patience: LONG,
        lent_interval: Duration::from_millis(20),
    };
    cluster
}

/// A writer that owns these volumes.
async fn owner(cluster: &Cluster, node: i32, volumes: &[u32]) -> Writer {
    let writer = cluster.empty(node);
    for volume in volumes {
        writer.take(&cluster.place(*volume), LONG).await.unwrap();
    }
    writer
}

fn volume_of(cluster: &Cluster, stream: StreamId) -> u32 {
    cluster.catalog.topic_of_any_tenant(stream.topic).unwrap().partitions[stream.partition as usize]
        .0
}

async fn wish(cluster: &Cluster, stream: StreamId, to: u32) {
    let (topic, partition) = (stream.topic, stream.partition);
    cluster.catalog.move_stream(TenantId::OPEN, topic, partition, VolumeId(to)).await.unwrap();
}

/// Returns when no stream moves any more.
async fn settled(cluster: &Cluster) {
    let mut changes = cluster.catalog.subscribe();
    while !cluster.catalog.moves().is_empty() {
        let change = tokio::time::timeout(LONG, changes.recv()).await.expect("moves end").unwrap();
        assert!(!matches!(change, Change::TopicDeleted(_)));
    }
}

async fn move_to(cluster: &Cluster, stream: StreamId, to: u32) {
    wish(cluster, stream, to).await;
    settled(cluster).await;
    assert_eq!(volume_of(cluster, stream), to, "it has moved");
}

fn state_of(writer: &Writer, volume: u32) -> VolumeState {
    let mut states = writer.bucket_states();
    states.find(|(id, _)| id.0 == volume).unwrap().1.read().clone()
}

/// Waits until a volume's committed state is as wanted.
async fn until(writer: &Writer, volume: u32, wanted: impl Fn(&VolumeState) -> bool) {
    let poll = async {
        while !wanted(&state_of(writer, volume)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LONG, poll).await.expect("the bucket gets there");
}

async fn flush(writer: &Writer, volume: u32) {
    writer.inner.volumes.get(VolumeId(volume)).unwrap().flush().await;
}

/// Offsets of all batches of a stream in the bucket, as its volume's manifests have them.
async fn in_bucket(cluster: &Cluster, known: &StreamState) -> Vec<i64> {
    let mut offsets = Vec::new();
    let mut at = known.extents.front().map_or(known.end_offset, |extent| extent.base_offset);
    for extent in &known.extents {
        assert_eq!(extent.base_offset, at, "no hole");
        at = extent.end_offset;
        let key = Path::from(cluster.keys().segment(extent.segment));
        let mut bytes: Bytes = cluster.bucket.get_range(&key, extent.data_range()).await.unwrap();
        while !bytes.is_empty() {
            let block = split_block(&mut bytes).unwrap();
            offsets.extend(scan::spans(&block.payload).map(|span| span.base_offset));
        }
    }
    assert_eq!(at, known.end_offset);
    offsets
}

#[tokio::test]
async fn a_stream_takes_along_all_that_it_is() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let (moving, other) = (on(&topic, 0), on(&topic, 1));
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    for n in 0..4 {
        append(&a, moving, &sequenced(9, 0, n, 1)).await.unwrap();
    }
    append(&a, moving, &transactional(11, 0, 0, 1)).await.unwrap();
    a.end_transaction(moving, 11, 0, 1, false).await.unwrap();
    append(&a, moving, &transactional(10, 3, 0, 2)).await.unwrap();
    a.delete_records(moving, 1).await.unwrap();
    append(&b, other, &batch(1, 10, 5)).await.unwrap();
    let (before, epoch) = (a.offsets(moving).unwrap(), a.leader_epoch(moving).unwrap());
    assert_eq!((before.log_start, before.last_stable, before.high_watermark), (1, 6, 8));

    move_to(&cluster, moving, 1).await;
    assert!(matches!(a.tail(moving).err(), Some(TailError::NotOwner)));
    assert_eq!(append(&a, moving, &batch(1, 10, 5)).await, Err(AppendError::NotOwner));
    assert_eq!(a.leader_epoch(moving), None);
    let after = b.offsets(moving).unwrap();
    assert_eq!((after.log_start, after.last_stable, after.high_watermark), (1, 6, 8));
    assert_eq!(after.tail_start, 8, "the bucket has all of it");
    assert_eq!(b.leader_epoch(moving), Some(epoch + 1));
    assert_eq!(b.epoch_end(moving, epoch).unwrap(), Some((epoch, 8)));
    assert_eq!(b.epoch_of(moving, 7), epoch);
    let known = state_of(&b, 1).streams[&key_of(moving)].clone();
    assert_eq!(in_bucket(&cluster, &known).await, [0, 1, 2, 3, 4, 5, 6]);

    // A retry is recognised, a gap refused, an open transaction is open.
    let again = append(&b, moving, &sequenced(9, 0, 3, 1)).await.unwrap();
    assert_eq!(again.base_offset, 3);
    let gap = append(&b, moving, &sequenced(9, 0, 5, 1)).await;
    assert_eq!(gap, Err(AppendError::Sequence(SequenceError::OutOfOrder)));
    assert_eq!(append(&b, moving, &sequenced(9, 0, 4, 1)).await.unwrap().base_offset, 8);
    assert_eq!(b.open_transaction(moving, 10), Some(6));
    assert_eq!(append(&b, moving, &transactional(10, 3, 2, 1)).await.unwrap().base_offset, 9);
    b.end_transaction(moving, 10, 3, 1, true).await.unwrap();
    let stale = b.end_transaction(moving, 10, 3, 0, true).await;
    assert_eq!(stale, Err(AppendError::Sequence(SequenceError::CoordinatorFenced)));
    assert_eq!(b.offsets(moving).unwrap().last_stable, 11);
    assert_eq!(b.epoch_of(moving, 8), epoch + 1);
    assert_eq!(b.epoch_end(moving, epoch).unwrap(), Some((epoch, 8)));

    // Another owner of its volume reads it back, and epochs go on growing.
    b.abandon().await;
    let b = owner(&cluster, 3, &[1]).await;
    assert_eq!(b.offsets(moving).unwrap().high_watermark, 11);
    assert_eq!(b.leader_epoch(moving), Some(epoch + 2));
    let heard = cluster.catalog.leader_epoch(moving);
    assert_eq!(heard, Some(epoch + 2), "who does not own it hears the same");
    assert_eq!(b.epoch_of(moving, 8), epoch + 1);
    move_to(&cluster, moving, 0).await;
    assert_eq!(a.leader_epoch(moving), Some(epoch + 3));
    assert_eq!(append(&a, moving, &sequenced(9, 0, 5, 1)).await.unwrap().base_offset, 11);
    let kept = append(&b, other, &batch(1, 10, 5)).await.unwrap();
    assert_eq!(kept.base_offset, 1, "nothing happens to others");
    a.close(Duration::ZERO).await;
    b.close(Duration::ZERO).await;
}

#[tokio::test]
async fn streams_move_between_volumes_of_one_writer_and_empty_ones_too() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let (full, empty) = (on(&topic, 0), on(&topic, 1));
    let writer = owner(&cluster, 1, &[0, 1]).await;
    append(&writer, full, &batch(3, 10, 5)).await.unwrap();
    // Both at once, past each other.
    wish(&cluster, full, 1).await;
    wish(&cluster, empty, 0).await;
    settled(&cluster).await;
    assert_eq!((volume_of(&cluster, full), volume_of(&cluster, empty)), (1, 0));
    assert_eq!(append(&writer, full, &batch(1, 10, 5)).await.unwrap().base_offset, 3);
    assert_eq!(append(&writer, empty, &batch(1, 10, 5)).await.unwrap().base_offset, 0);
    assert_eq!(writer.leader_epoch(empty), Some(2));
    writer.close(Duration::ZERO).await;
}

/// Whoever waits for records of a stream that moves away looks for it elsewhere, and appends that were held are
/// refused in a way that clients retry.
#[tokio::test]
async fn who_waits_is_told() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let (a, b) = (owner(&cluster, 1, &[0]).await, owner(&cluster, 2, &[1]).await);
    append(&a, moving, &batch(1, 10, 5)).await.unwrap();
    let tail = a.tail(moving).unwrap();
    let waiter = crate::Tail::waiter([&tail].into_iter());
    // The target takes its time.
    cluster.bucket.rule(cluster.keys().manifests(1), super::bucket::Rule::Held);
    wish(&cluster, moving, 1).await;
    until(&a, 0, |state| state.streams.values().any(|known| known.sealed)).await;
    tokio::time::timeout(LONG, waiter.changed()).await.expect("a parked fetch looks again");
    assert!(!tail.is_here());
    let read = tail.read(0, 1 << 20).await;
    assert!(matches!(read, Err(TailError::NotOwner)), "{read:?}");
    let records = batch(1, 10, 5);
    let held = append(&a, moving, &records);
    tokio::pin!(held);
    let early = tokio::time::timeout(Duration::from_millis(50), held.as_mut()).await;
    assert!(early.is_err(), "held until there is somewhere to go");
    cluster.bucket.lift(&cluster.keys().manifests(1));
    assert_eq!(held.await, Err(AppendError::NotOwner));
    assert_eq!(volume_of(&cluster, moving), 1, "whoever looks now finds it");
    assert_eq!(append(&b, moving, &records).await.unwrap().base_offset, 1);
}

/// A word of the coordinator that was given for a stream on one volume is of no use on the other, and the client
/// is told to try again: not that its transaction is broken.
#[tokio::test]
async fn a_transaction_that_is_about_to_begin_in_a_stream_that_moves_begins_later() {
    let cluster = cluster().await;
    let topic = cluster.topic("t", &[]).await;
    let moving = on(&topic, 0);
    let writer = owner(&cluster, 1, &[0, 1]).await;
    let first = transactional(9, 0, 0, 1);
    let word = writer.unverified(moving, &first, false).unwrap().unwrap();
    move_to(&cluster, moving, 1).await;
    let late = writer.append_verified(moving, &first, LONG, word).await;
    assert_eq!(late, Err(AppendError::NotOwner));
    assert_eq!(append(&writer, moving, &first).await.unwrap().base_offset, 0);
    // While it is nowhere nothing can be said of it.
    let other = owner(&cluster, 2, &[]).await;
    assert!(other.unverified(moving, &first, false).is_err());
}
