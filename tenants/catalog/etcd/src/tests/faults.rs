//! etcd dies, hangs, changes its leader and forgets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_catalog::store::{
    Entry, Event, MetadataStore, Outcome, Revision, StoreError, Txn, WatchError,
};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::server::Etcd;
use super::{committed, open, options};
use crate::EtcdOptions;

type Store = Arc<dyn MetadataStore>;
type Map = BTreeMap<String, Entry>;

/// Follows the map through every interruption until `/end` is there, as a catalog does; the watch must
/// tell each change of the counter, in its order.
fn follow(store: Store, mut at: Revision) -> JoinHandle<(Map, u32)> {
    tokio::spawn(async move {
        let (mut map, mut interruptions, mut count) = (Map::new(), 0, 0);
        loop {
            let Ok(mut watch) = store.watch("", at).await else {
                interruptions += 1;
                continue;
            };
            loop {
                let change = match watch.next().await {
                    Ok(change) => change,
                    Err(WatchError::Interrupted(_)) => break,
                    Err(WatchError::Compacted) => panic!("nobody compacts"),
                };
                assert!(change.revision > at, "once, and in order");
                at = change.revision;
                for event in change.events {
                    match event {
                        Event::Put(entry) => {
                            if entry.key == "/count" {
                                let next = number(&entry);
                                assert_eq!(next, count + 1, "no gap");
                                count = next;
                            }
                            map.insert(entry.key.clone(), entry);
                        }
                        Event::Delete { key } => drop(map.remove(&key)),
                    }
                }
                if map.contains_key("/end") {
                    return (map, interruptions);
                }
            }
            interruptions += 1;
        }
    })
}

fn number(entry: &Entry) -> u32 {
    std::str::from_utf8(&entry.value).unwrap().parse().unwrap()
}

/// Counts up by compare-and-set, whatever the store says meanwhile. Another key goes with it in the same transaction.
async fn count_to(store: &Store, goal: u32) {
    loop {
        let Ok(found) = store.get("/count").await else { continue };
        let (txn, next) = match found {
            None => (Txn::new().if_absent("/count"), 1),
            Some(entry) if number(&entry) >= goal => return,
            Some(entry) => {
                (Txn::new().if_unchanged("/count", entry.mod_revision), number(&entry) + 1)
            }
        };
        let txn = txn.put("/count", next.to_string()).put(format!("/k/{}", next % 7), "x");
        // It may have been made although it failed: the next round finds out.
        if let Ok(Outcome::Conflict) = store.commit(txn).await {
            continue;
        }
    }
}

async fn check(store: &Store, followers: Vec<JoinHandle<(Map, u32)>>, interrupted: bool) {
    committed(store, Txn::new().put("/end", "")).await;
    let range = store.range("").await.unwrap();
    let there: Map = range.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
    for follower in followers {
        let (map, interruptions) = follower.await.unwrap();
        assert_eq!(map, there);
        assert_eq!(interruptions > 0, interrupted, "{interruptions} interruptions");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_go_on_where_they_were_when_etcd_was_killed() {
    let mut etcd = Etcd::start(1).await;
    let store = open(&options(etcd.endpoints()));
    let start = store.range("").await.unwrap().revision;
    let followers =
        vec![follow(Arc::clone(&store), start), follow(open(&options(etcd.endpoints())), start)];
    for round in 1..=3 {
        count_to(&store, round * 50).await;
        etcd.kill(0);
        // Some calls fail, some wait.
        let writer = Arc::clone(&store);
        let counting = tokio::spawn(async move { count_to(&writer, round * 50 + 20).await });
        sleep(Duration::from_millis(200)).await;
        etcd.restart(0);
        counting.await.unwrap();
    }
    check(&store, followers, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_serve_when_the_leader_was_killed() {
    let mut etcd = Etcd::start(3).await;
    let store = open(&options(etcd.endpoints()));
    let start = store.range("").await.unwrap().revision;
    // One follower at each member: that of the dead one moves to another.
    let mut followers = Vec::new();
    for endpoint in etcd.endpoints() {
        let mut endpoints = vec![endpoint];
        let first = open(&options(endpoints.clone()));
        first.get("/none").await.unwrap();
        endpoints.extend(etcd.endpoints());
        followers.push(follow(open(&options(endpoints)), start));
    }
    count_to(&store, 50).await;
    let leader = etcd.leader().await;
    etcd.kill(leader);
    count_to(&store, 150).await;
    // A call that any member answers does.
    assert_eq!(store.get("/count").await.unwrap().as_ref().map(number), Some(150));
    etcd.restart(leader);
    etcd.serving(leader).await;
    count_to(&store, 200).await;
    committed(&store, Txn::new().put("/end", "")).await;
    let there = store.range("").await.unwrap().entries.len();
    for follower in followers {
        assert_eq!(follower.await.unwrap().0.len(), there);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_outlasts_its_deadline_while_etcd_hangs() {
    let etcd = Etcd::start(1).await;
    let limit = Duration::from_secs(2);
    let short = EtcdOptions {
        request_timeout: limit,
        connect_timeout: Duration::from_secs(1),
        ..options(etcd.endpoints())
    };
    let store = open(&short);
    let start = store.range("").await.unwrap().revision;
    let follower = follow(open(&short), start);
    count_to(&store, 10).await;
    let lease = store.grant_lease(super::REQUEST).await.unwrap();
    etcd.halt(0);
    let halted = Instant::now();
    while halted.elapsed() < Duration::from_secs(10) {
        let calls: [(&str, futures_util::future::BoxFuture<'_, Option<StoreError>>); 6] = [
            ("get", Box::pin(async { store.get("/count").await.err() })),
            ("range", Box::pin(async { store.range("").await.err() })),
            ("commit", Box::pin(async { store.commit(Txn::new().put("/x", "1")).await.err() })),
            ("watch", Box::pin(async { store.watch("", start).await.err() })),
            ("grant", Box::pin(async { store.grant_lease(limit).await.err() })),
            ("keep alive", Box::pin(async { store.keep_alive(lease).await.err() })),
        ];
        for (name, call) in calls {
            let begun = Instant::now();
            let error = call.await;
            assert!(matches!(error, Some(StoreError::Unavailable(_))), "{name}: {error:?}");
            // Twice the limit: the machine may be slow.
            assert!(begun.elapsed() < limit * 2, "{name} took {:?}", begun.elapsed());
        }
    }
    etcd.go_on(0);
    let store = open(&options(etcd.endpoints()));
    count_to(&store, 20).await;
    check(&store, vec![follower], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_hangs_is_passed_over_within_a_read() {
    let etcd = Etcd::start(3).await;
    let store = open(&options(etcd.endpoints()));
    assert_eq!(store.get("/x").await, Ok(None));
    // One of them is the one in use.
    for member in 0..3 {
        etcd.halt(member);
        assert_eq!(store.get("/x").await, Ok(None), "without member {member}");
        etcd.go_on(member);
    }
}

#[tokio::test]
async fn what_was_compacted_is_told_to_who_is_behind() {
    let etcd = Etcd::start(1).await;
    let store = open(&options(etcd.endpoints()));
    let first = committed(&store, Txn::new().put("/a", "1")).await;
    for round in 0..10 {
        committed(&store, Txn::new().put("/a", round.to_string())).await;
    }
    let mut current = store.watch("", store.range("").await.unwrap().revision).await.unwrap();
    let last = store.range("").await.unwrap().revision;
    etcd.ctl(&["compaction", "--physical", &last.0.to_string()]);
    let mut behind = store.watch("", first).await.unwrap();
    assert_eq!(behind.next().await, Err(WatchError::Compacted));
    assert_eq!(behind.next().await, Err(WatchError::Compacted), "it stays so");
    // Who is not behind notices nothing.
    let next = committed(&store, Txn::new().put("/a", "x")).await;
    assert_eq!(current.next().await.unwrap().revision, next);
    let range = store.range("").await.unwrap();
    assert_eq!((range.revision, range.entries.len()), (next, 1));
}

#[tokio::test]
async fn a_lease_outlives_etcd_by_its_whole_time_and_then_ends() {
    let mut etcd = Etcd::start(1).await;
    let store = open(&options(etcd.endpoints()));
    let ttl = Duration::from_secs(3);
    let lease = store.grant_lease(ttl).await.unwrap();
    let made = committed(&store, Txn::new().put_leased("/leased", "1", lease)).await;
    etcd.kill(0);
    sleep(ttl).await;
    etcd.restart(0);
    // It was dead for longer than the lease lasts: the lease has its whole time again.
    assert!(store.get("/leased").await.unwrap().is_some());
    assert_eq!(store.keep_alive(lease).await, Ok(()));
    let mut watch = store.watch("", made).await.unwrap();
    let gone = watch.next().await.unwrap();
    assert_eq!(gone.events, [Event::Delete { key: "/leased".to_owned() }]);
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseEnded));
    let late = store.commit(Txn::new().put_leased("/leased", "1", lease)).await;
    assert_eq!(late, Err(StoreError::LeaseEnded));
}
