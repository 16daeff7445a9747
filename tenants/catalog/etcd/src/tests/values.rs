//! Ranges and watches with more in them than one answer of etcd holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_catalog::store::{Event, Revision, Txn};

use super::server::Etcd;
use super::{committed, open, options};

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ranges_of_many_pages_are_of_one_revision() {
    let etcd = Etcd::start(1).await;
    let store = open(&options(etcd.endpoints()));
    for block in 0..20 {
        let keys = (0..100).map(|at| format!("/k/{block:02}{at:02}"));
        committed(&store, keys.fold(Txn::new(), |txn, key| txn.put(key, "0"))).await;
    }
    // The first and the last key change together, and more is read than fits into one page.
    let writer = open(&options(etcd.endpoints()));
    let writing = tokio::spawn(async move {
        for round in 1..=200 {
            let value = round.to_string();
            let txn = Txn::new().put("/k/0000", value.clone()).put("/k/1999", value);
            committed(&writer, txn).await;
        }
    });
    let mut reads = 0;
    while reads < 3 || !writing.is_finished() {
        let range = store.range("/k/").await.unwrap();
        assert_eq!(range.entries.len(), 2000);
        assert!(range.entries.is_sorted_by_key(|entry| &entry.key));
        assert_eq!(range.entries[0].value, range.entries[1999].value);
        assert!(range.entries.iter().all(|entry| entry.mod_revision <= range.revision));
        reads += 1;
    }
    writing.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_longer_than_one_answer_is_read_and_watched() {
    let etcd = Etcd::start(1).await;
    let store = open(&options(etcd.endpoints()));
    let start = store.range("").await.unwrap().revision;
    let mut expected = Vec::new();
    // 24 MiB: more than an answer may have. Each transaction is near the limit.
    for round in 0..24u8 {
        let half = || Bytes::from(vec![round; MIB / 2 - 64]);
        let txn = Txn::new().put(format!("/b/{round:02}"), half());
        let revision = committed(&store, txn.put(format!("/a/{round:02}"), half())).await;
        expected.push((revision, round));
    }
    let range = store.range("").await.unwrap();
    assert_eq!(range.entries.len(), 48);
    assert!(range.entries.iter().all(|entry| entry.value.len() == MIB / 2 - 64));
    // A watch that is far behind gets many revisions at once, in parts.
    let mut watch = store.watch("", start).await.unwrap();
    for (revision, round) in expected {
        let change = watch.next().await.unwrap();
        assert_eq!(change.revision, revision);
        let keys: Vec<_> = change.events.iter().map(Event::key).collect();
        assert_eq!(keys, [format!("/a/{round:02}"), format!("/b/{round:02}")]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_revision_that_is_longer_than_one_answer_is_watched_whole() {
    let etcd = Etcd::start(1).await;
    let store = open(&options(etcd.endpoints()));
    let lease = store.grant_lease(super::REQUEST).await.unwrap();
    // The end of the lease deletes them all in one revision: 4 MiB of keys.
    let name = |number: usize| format!("/leased/{number:05}/{}", "x".repeat(900));
    let mut last = Revision(0);
    for block in 0..45 {
        let keys = (block * 100..(block + 1) * 100).map(name);
        last = committed(&store, keys.fold(Txn::new(), |txn, key| txn.put_leased(key, "", lease)))
            .await;
    }
    let mut watch = store.watch("", last).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let change = watch.next().await.unwrap();
    let gone: BTreeMap<_, _> = change.events.iter().map(|event| (event.key(), event)).collect();
    assert_eq!((change.events.len(), gone.len()), (4500, 4500));
    assert!(change.events.iter().all(|event| matches!(event, Event::Delete { .. })));
}
