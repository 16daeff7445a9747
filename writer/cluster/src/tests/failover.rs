//! Nodes that die, come back, or are cut off from the store.

use std::time::Duration;

use sluice_model::{VolumeEpoch, VolumeId};
use sluice_volume::OpenOptions;
use sluice_writer::AppendError;
use tokio::time::Instant;

use super::rig::{LEASE, Rig};
use crate::{End, MembersOptions};

#[tokio::test(start_paused = true)]
async fn nodes_that_start_at_once_share_what_there_is() {
    let rig = Rig::new(9).await;
    let (a, b, c) = tokio::join!(rig.node(1), rig.node(2), rig.node(3));
    rig.until_served(&[&a, &b, &c]).await;
    // Of all that claim one at once one wins, and the others use up no epoch.
    assert!(rig.catalog.volumes().iter().all(|volume| volume.epoch == VolumeEpoch(1)));
}

#[tokio::test(start_paused = true)]
async fn ten_volumes_of_a_dead_node_are_taken_by_the_others_evenly() {
    let rig = Rig::new(10).await;
    let dead = rig.node(1).await;
    assert_eq!(rig.counts(&[1]), [10]);
    let streams = rig.topic().await;
    for stream in &streams {
        assert_eq!(dead.append(*stream).await.unwrap().base_offset, 0);
    }
    let (b, c) = (rig.node(2).await, rig.node(3).await);
    let killed = Instant::now();
    dead.kill().await;
    rig.until("the node is gone", |rig| rig.catalog.nodes().len() == 2).await;
    assert!(killed.elapsed() <= LEASE + Duration::from_millis(100));
    let gone = Instant::now();
    rig.until_served(&[&b, &c]).await;
    // Each was claimed by the first in its order: nobody waited for anybody.
    assert!(gone.elapsed() < Duration::from_millis(200), "{:?}", gone.elapsed());
    assert_eq!(rig.counts(&[2, 3]), [5, 5]);
    for (id, stream) in streams.iter().enumerate() {
        let owner = if b.serves(id as u32) { &b } else { &c };
        assert_eq!(owner.append(*stream).await.unwrap().base_offset, 1, "nothing is lost");
    }
    assert_eq!(b.metrics.failures.get() + c.metrics.failures.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_within_its_lease_keeps_its_volumes() {
    let rig = Rig::new(2).await;
    let a = rig.node(1).await;
    let _b = rig.node(2).await;
    let before = rig.catalog.volumes();
    a.cut();
    tokio::time::sleep(LEASE / 2).await;
    a.mend();
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(rig.catalog.volumes(), before, "same owner, same epoch");
    assert!(a.serves(0) && a.serves(1));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_and_starts_within_its_lease_takes_its_own_back() {
    let rig = Rig::new(4).await;
    let a = rig.node(1).await;
    let _b = rig.node(2).await;
    a.kill().await;
    let again = rig.node(1).await;
    assert_eq!(rig.counts(&[1, 2]), [4, 0]);
    assert_eq!(again.writer.volumes().len(), 4, "a start returns when they are served");
}

#[tokio::test(start_paused = true)]
async fn what_is_owned_is_served_while_the_store_is_away() {
    let rig = Rig::new(2).await;
    let a = rig.node(1).await;
    let b = rig.node(2).await;
    let streams = rig.topic().await;
    a.cut();
    b.cut();
    for second in 0..60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for stream in &streams {
            assert_eq!(a.append(*stream).await.unwrap().base_offset, second);
        }
    }
    // Its lease has run out, but nobody was there who could claim anything.
    a.mend();
    rig.until("the node is back", |rig| !rig.catalog.nodes().is_empty()).await;
    tokio::time::sleep(LEASE).await;
    assert_eq!(a.append(streams[0]).await.unwrap().base_offset, 60);
    b.mend();
    tokio::time::sleep(LEASE).await;
    assert_eq!(rig.counts(&[1, 2]), [2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_from_the_store_alone_is_taken_over_and_acknowledges_nothing_then() {
    let rig = Rig::new(3).await;
    let zombie = rig.node(1).await;
    let b = rig.node(2).await;
    let streams = rig.topic().await;
    zombie.append(streams[0]).await.unwrap();
    zombie.cut();
    rig.until("the volumes are the other's", |rig| rig.counts(&[2]) == [3]).await;
    rig.until_served(&[&b]).await;
    // The bucket keeps it out, whatever it knows of it.
    for stream in &streams {
        assert_eq!(zombie.append(*stream).await, Err(AppendError::NotOwner));
    }
    assert_eq!(b.append(streams[0]).await.unwrap().base_offset, 1);
    zombie.mend();
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(rig.counts(&[1, 2]), [0, 3], "what was taken over stays where it is");
    assert!(zombie.writer.volumes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_first_claimer_that_is_stuck_delays_a_moment_only() {
    let rig = Rig::new(6).await;
    let dead = rig.node(1).await;
    let stuck = rig.node(2).await;
    let other = rig.node(3).await;
    // It is alive as far as anybody knows, and does nothing.
    drop(stuck.members);
    dead.kill().await;
    rig.until("the node is gone", |rig| rig.catalog.nodes().len() == 2).await;
    let gone = Instant::now();
    rig.until_served(&[&other]).await;
    let took = gone.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_millis(600)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_cannot_be_taken_is_tried_for_ever() {
    let rig = Rig::empty().await;
    let path = rig.add_shared_file(0).await;
    std::fs::create_dir(&path).unwrap();
    let a = rig.node(1).await;
    assert!(!a.serves(0));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(a.metrics.failures.get() > 6, "{}", a.metrics.failures.get());
    std::fs::remove_dir(&path).unwrap();
    // It was claimed, so its file counts as lost until it is there again.
    let volume = rig.catalog.volume(VolumeId(0)).unwrap();
    assert!(volume.epoch > VolumeEpoch(0) && volume.owner.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_newer_owner_that_the_catalog_does_not_know_ends_the_process() {
    let rig = Rig::new(1).await;
    let a = rig.node(1).await;
    let streams = rig.topic().await;
    a.append(streams[0]).await.unwrap();
    let spec = rig.catalog.volume(VolumeId(0)).unwrap().spec.clone();
    let elsewhere = (rig.locate())(&spec).unwrap().medium;
    let foreign = elsewhere.open(VolumeId(0), VolumeEpoch(99), OpenOptions::default()).await;
    let _foreign = foreign.unwrap().finish().await.unwrap();
    assert_eq!(a.append(streams[0]).await, Err(AppendError::NotOwner));
    let end = tokio::time::timeout(Duration::from_secs(60), a.members.ended()).await;
    assert_eq!(end, Ok(End::Foreign));
}

#[tokio::test(start_paused = true)]
async fn a_process_whose_place_is_taken_ends() {
    let rig = Rig::new(1).await;
    let a = rig.node(1).await;
    let _again = rig.node(1).await;
    let end = tokio::time::timeout(LEASE, a.members.ended()).await;
    assert_eq!(end, Ok(End::Replaced));
}

/// In real time: the volumes are files.
#[tokio::test]
async fn a_node_that_is_alone_ends_when_nothing_is_left() {
    let rig = Rig::empty().await;
    let path = rig.add_shared_file(0).await;
    let options = MembersOptions { alone: true, ..rig.options.clone() };
    let a = rig.node_with(1, options).await;
    assert!(a.serves(0));
    std::fs::remove_file(&path).unwrap();
    let (id, epoch) = a.writer.volumes()[0];
    a.writer.fence(id, epoch);
    let end = tokio::time::timeout(Duration::from_secs(20), a.members.ended()).await;
    assert_eq!(end, Ok(End::NothingLeft));
}
