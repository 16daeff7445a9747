//! Volumes that are moved: because somebody says so, because a node is drained or leaves, because another one joins.

use std::time::Duration;

use sluice_model::{NodeId, VolumeId};
use sluice_writer::AppendError;
use tokio::time::Instant;

use super::rig::{LEASE, Rig};
use crate::MembersOptions;

#[tokio::test(start_paused = true)]
async fn a_volume_that_another_shall_have_is_handed_over() {
    let rig = Rig::new(2).await;
    let a = rig.node(1).await;
    let b = rig.node(2).await;
    let streams = rig.topic().await;
    a.append(streams[1]).await.unwrap();
    let begun = Instant::now();
    rig.catalog.want_volume(VolumeId(1), Some(NodeId(2))).await.unwrap();
    rig.until("it is the other's", |rig| rig.owners() == [Some(1), Some(2)]).await;
    rig.until_served(&[&a, &b]).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(a.append(streams[1]).await, Err(AppendError::NotOwner));
    assert_eq!(b.append(streams[1]).await.unwrap().base_offset, 1);
    rig.until("nobody wants anything any more", |rig| {
        rig.catalog.volumes().iter().all(|volume| volume.wanted.is_none())
    })
    .await;
    assert_eq!((a.metrics.handovers.get(), b.metrics.failures.get()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_wish_for_a_node_that_is_gone_comes_to_nothing() {
    let rig = Rig::new(1).await;
    let a = rig.node(1).await;
    rig.catalog.want_volume(VolumeId(0), Some(NodeId(7))).await.unwrap();
    rig.until("it is forgotten", |rig| rig.catalog.volumes()[0].wanted.is_none()).await;
    assert!(a.serves(0));
}

#[tokio::test(start_paused = true)]
async fn a_volume_whose_next_owner_dies_meanwhile_is_anyones() {
    let rig = Rig::new(1).await;
    let a = rig.node(1).await;
    let stuck = rig.node(2).await;
    // It is alive as far as anybody knows, and takes nothing.
    drop(stuck.members);
    rig.catalog.want_volume(VolumeId(0), Some(NodeId(2))).await.unwrap();
    rig.until("it is given up", |rig| rig.owners() == [None]).await;
    let given_up = Instant::now();
    rig.until_served(&[&a]).await;
    let took = given_up.elapsed();
    assert!((Duration::from_millis(1900)..Duration::from_secs(3)).contains(&took), "{took:?}");
    // Who did not take it in time is not asked again.
    tokio::time::sleep(LEASE * 2).await;
    assert!(a.serves(0) && rig.catalog.volumes()[0].wanted.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_drained_owns_nothing_until_that_is_taken_back() {
    let rig = Rig::new(9).await;
    let a = rig.node(1).await;
    let b = rig.node(2).await;
    let c = rig.node(3).await;
    rig.catalog.drain_node(NodeId(1)).await.unwrap();
    rig.until("the node is drained", |rig| rig.counts(&[1]) == [0]).await;
    rig.until_served(&[&b, &c]).await;
    let counts = rig.counts(&[2, 3]);
    assert!(counts.iter().all(|count| (4..=5).contains(count)), "{counts:?}");
    // Nothing comes back to it while it is so, also when another goes.
    c.kill().await;
    rig.until("one has all", |rig| rig.counts(&[2]) == [9]).await;
    rig.until_served(&[&b]).await;
    assert!(a.writer.volumes().is_empty());
    // It is better than nobody.
    b.kill().await;
    rig.until("the last one has all", |rig| rig.counts(&[1]) == [9]).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_hands_all_over_side_by_side() {
    let rig = Rig::new(8).await;
    let a = rig.node(1).await;
    let b = rig.node(2).await;
    let c = rig.node(3).await;
    let streams = rig.topic().await;
    for stream in &streams {
        a.append(*stream).await.unwrap();
    }
    let begun = Instant::now();
    a.members.leave(begun + Duration::from_secs(4)).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert!(a.writer.volumes().is_empty());
    a.end().await;
    rig.until_served(&[&b, &c]).await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(rig.counts(&[2, 3]), [4, 4]);
    for (id, stream) in streams.iter().enumerate() {
        let owner = if b.serves(id as u32) { &b } else { &c };
        assert_eq!(owner.append(*stream).await.unwrap().base_offset, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_node_leaves_with_what_it_has() {
    let rig = Rig::new(3).await;
    let a = rig.node(1).await;
    let begun = Instant::now();
    a.members.leave(begun + Duration::from_secs(4)).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(a.writer.volumes().len(), 3);
    a.end().await;
    let again = rig.node(1).await;
    assert_eq!(again.writer.volumes().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_gets_its_share_in_seconds() {
    let mut rig = Rig::new(8).await;
    rig.options = MembersOptions::default();
    let a = rig.node(1).await;
    let b = rig.node(2).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let begun = Instant::now();
    rig.until("it has half", |rig| rig.counts(&[1, 2]) == [4, 4]).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    rig.until_served(&[&a, &b]).await;
    let decisions = rig.catalog.decisions().await.unwrap();
    assert_eq!(decisions.len(), 4);
    assert!(decisions.iter().all(|one| (one.from, one.to) == (NodeId(1), NodeId(2))));
    assert!(decisions[0].why.contains("node 1 carries"), "{}", decisions[0].why);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(rig.catalog.decisions().await.unwrap().len(), 4, "it is even, and stays so");
    // The balancer dies; another is elected, and goes on.
    let balancer = rig.catalog.balancer().unwrap();
    let (dead, left) = if balancer == a.id { (a, b) } else { (b, a) };
    dead.kill().await;
    rig.until_served(&[&left]).await;
    let c = rig.node(3).await;
    rig.until("it has half", |rig| rig.counts(&[3]) == [4]).await;
    rig.until_served(&[&left, &c]).await;
    assert!(rig.catalog.balancer().is_some_and(|node| node != balancer));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_moved_while_the_balance_is_off() {
    let mut rig = Rig::new(6).await;
    rig.options = MembersOptions::default();
    rig.catalog.set_balancing(false).await.unwrap();
    let a = rig.node(1).await;
    let _b = rig.node(2).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!((rig.counts(&[1, 2]), a.writer.volumes().len()), (vec![6, 0], 6));
    rig.catalog.set_balancing(true).await.unwrap();
    rig.until("it has half", |rig| rig.counts(&[1, 2]) == [3, 3]).await;
}
