//! Files on a file system that several hosts share: owners are kept apart by leases. In real time, on real files.

use std::time::Duration;

use sluice_writer::AppendError;
use tokio::time::Instant;

use super::rig::Rig;

const LEASE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_owner_that_cannot_renew_its_lease_stops_and_the_next_one_waits_for_a_whole_lease() {
    let mut rig = Rig::empty().await;
    rig.lease = LEASE;
    rig.add_shared_file(0).await;
    let a = rig.node(1).await;
    let b = rig.node(2).await;
    let streams = rig.topic().await;
    assert_eq!(a.append(streams[0]).await.unwrap().base_offset, 0);
    a.cut();
    let cut = Instant::now();
    let mut acknowledged = 0;
    let stopped = loop {
        match a.append(streams[0]).await {
            Ok(appended) => acknowledged = appended.base_offset,
            Err(AppendError::NotOwner) => break cut.elapsed(),
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert!(stopped < LEASE, "it stops before the store can end the lease: {stopped:?}");
    rig.until("the node is gone", |rig| rig.catalog.nodes().len() == 1).await;
    let gone = Instant::now();
    rig.until_served(&[&b]).await;
    assert!(gone.elapsed() >= LEASE, "{:?}", gone.elapsed());
    // One may have become durable when it was too late to say so.
    let next = b.append(streams[0]).await.unwrap().base_offset;
    assert!((1..=2).contains(&(next - acknowledged)), "{next} {acknowledged}");
    a.mend();
    tokio::time::sleep(LEASE / 2).await;
    assert_eq!(a.append(streams[0]).await, Err(AppendError::NotOwner));
}

#[tokio::test]
async fn what_was_given_up_is_taken_at_once() {
    let mut rig = Rig::empty().await;
    rig.lease = Duration::from_secs(30);
    rig.add_shared_file(0).await;
    let a = rig.node(1).await;
    let b = rig.node(2).await;
    assert!(a.serves(0));
    a.members.leave(Instant::now() + Duration::from_secs(4)).await;
    let begun = Instant::now();
    rig.until_served(&[&b]).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
