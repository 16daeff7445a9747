//! The contract of [`MetadataStore`] in executable form. Every backend runs [`all`] in its tests, each
//! case on a store of its own that begins empty. Cases wait for what must happen and never for a time
//! in which it should have, so that they hold on a clock that is paused as on a slow machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Change, Entry, Event, LeaseId, MAX_OPS, MAX_TXN_BYTES, MetadataStore, Outcome, Revision,
    StoreError, Txn, Watch,
};

type Store = Arc<dyn MetadataStore>;

/// How long leases last here.
const TTL: Duration = Duration::from_secs(2);

/// Runs every case; panics at the first that fails.
pub async fn all(fresh: impl AsyncFn() -> Store) {
    an_empty_store_has_nothing(fresh().await).await;
    entries_read_back_with_their_revisions(fresh().await).await;
    ranges_are_sorted_and_bounded_by_the_prefix(fresh().await).await;
    conditions_decide(fresh().await).await;
    a_conflict_changes_nothing(fresh().await).await;
    what_changes_nothing_takes_no_revision(fresh().await).await;
    a_key_made_again_is_another(fresh().await).await;
    values_are_any_bytes(fresh().await).await;
    bounds_are_refused(fresh().await).await;
    one_of_many_creators_wins(fresh().await).await;
    counters_lose_no_increment(fresh().await).await;
    transactions_are_seen_whole(fresh().await).await;
    watches_tell_each_change_once(fresh().await).await;
    watches_see_their_prefix_only(fresh().await).await;
    watches_reach_back(fresh().await).await;
    watches_have_no_gaps_under_load(fresh().await).await;
    an_abandoned_wait_loses_nothing(fresh().await).await;
    revoking_a_lease_deletes_its_keys_at_once(fresh().await).await;
    a_key_follows_its_last_lease(fresh().await).await;
    a_lease_that_ended_takes_no_keys(fresh().await).await;
    a_lease_ends_when_it_is_not_kept_alive(fresh().await).await;
    a_lease_that_is_kept_alive_lasts(fresh().await).await;
}

async fn committed(store: &Store, txn: Txn) -> Revision {
    match store.commit(txn).await.expect("the store works") {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict => panic!("the conditions hold"),
    }
}

async fn conflicts(store: &Store, txn: Txn) {
    assert_eq!(store.commit(txn).await, Ok(Outcome::Conflict));
}

async fn get(store: &Store, key: &str) -> Option<Entry> {
    store.get(key).await.expect("the store works")
}

async fn value(store: &Store, key: &str) -> Option<Bytes> {
    get(store, key).await.map(|entry| entry.value)
}

async fn revision(store: &Store) -> Revision {
    store.range("").await.expect("the store works").revision
}

async fn map(store: &Store, prefix: &str) -> BTreeMap<String, Entry> {
    let range = store.range(prefix).await.expect("the store works");
    range.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect()
}

async fn watch(store: &Store, prefix: &str, after: Revision) -> Box<dyn Watch> {
    store.watch(prefix, after).await.expect("the store works")
}

async fn next(watch: &mut Box<dyn Watch>) -> Change {
    watch.next().await.expect("the watch goes on")
}

fn replay(map: &mut BTreeMap<String, Entry>, change: Change) {
    for event in change.events {
        match event {
            Event::Put(entry) => {
                assert_eq!(entry.mod_revision, change.revision);
                map.insert(entry.key.clone(), entry);
            }
            Event::Delete { key } => {
                assert!(map.remove(&key).is_some(), "{key} is deleted twice");
            }
        }
    }
}

async fn an_empty_store_has_nothing(store: Store) {
    assert_eq!(get(&store, "/a").await, None);
    assert_eq!(map(&store, "").await.len(), 0);
}

async fn entries_read_back_with_their_revisions(store: Store) {
    let before = revision(&store).await;
    let first = committed(&store, Txn::new().put("/a", "1").put("/b", "2")).await;
    assert!(first > before);
    let second = committed(&store, Txn::new().put("/a", "3")).await;
    assert!(second > first);
    let entry = |key: &str, value: &'static str, mod_revision| Entry {
        key: key.to_owned(),
        value: Bytes::from_static(value.as_bytes()),
        mod_revision,
        lease: None,
    };
    assert_eq!(get(&store, "/a").await, Some(entry("/a", "3", second)));
    assert_eq!(get(&store, "/b").await, Some(entry("/b", "2", first)));
    assert_eq!(revision(&store).await, second);
}

async fn ranges_are_sorted_and_bounded_by_the_prefix(store: Store) {
    for key in ["/t/b", "/t/a", "/t", "/t/a/x", "/t0", "/s", "/t/\u{fc}", "/t/B"] {
        committed(&store, Txn::new().put(key, key.to_owned())).await;
    }
    let range = store.range("/t/").await.expect("the store works");
    let keys: Vec<_> = range.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["/t/B", "/t/a", "/t/a/x", "/t/b", "/t/\u{fc}"]);
    assert_eq!(map(&store, "").await.len(), 8);
    assert_eq!(map(&store, "/none").await.len(), 0);
}

async fn conditions_decide(store: Store) {
    let first = committed(&store, Txn::new().if_absent("/a").put("/a", "1")).await;
    conflicts(&store, Txn::new().if_absent("/a").put("/a", "2")).await;
    conflicts(&store, Txn::new().if_unchanged("/b", first).put("/a", "2")).await;
    let second = committed(&store, Txn::new().if_unchanged("/a", first).put("/a", "2")).await;
    conflicts(&store, Txn::new().if_unchanged("/a", first).put("/a", "3")).await;
    // A condition may be on a key that the transaction does not change, and all of them must hold.
    let both = || Txn::new().if_unchanged("/a", second).if_absent("/b");
    committed(&store, both().put("/b", "1")).await;
    conflicts(&store, both().put("/c", "1")).await;
    assert_eq!(value(&store, "/c").await, None);
    assert_eq!(value(&store, "/a").await.as_deref(), Some(&b"2"[..]));
}

async fn a_conflict_changes_nothing(store: Store) {
    committed(&store, Txn::new().put("/a", "1").put("/b", "1")).await;
    let before = (revision(&store).await, map(&store, "").await);
    let txn = Txn::new().if_absent("/a").put("/c", "1").put("/b", "2").delete("/a");
    conflicts(&store, txn).await;
    assert_eq!((revision(&store).await, map(&store, "").await), before);
}

async fn what_changes_nothing_takes_no_revision(store: Store) {
    let made = committed(&store, Txn::new().put("/a", "1")).await;
    assert_eq!(committed(&store, Txn::new().delete("/none")).await, made);
    // A transaction without operations is a question.
    assert_eq!(committed(&store, Txn::new().if_unchanged("/a", made)).await, made);
    conflicts(&store, Txn::new().if_absent("/a")).await;
    assert_eq!(revision(&store).await, made);
    // Putting the same value again is a change.
    assert!(committed(&store, Txn::new().put("/a", "1")).await > made);
}

async fn a_key_made_again_is_another(store: Store) {
    let first = committed(&store, Txn::new().put("/a", "1")).await;
    committed(&store, Txn::new().if_unchanged("/a", first).delete("/a")).await;
    assert_eq!(get(&store, "/a").await, None);
    conflicts(&store, Txn::new().if_unchanged("/a", first).put("/a", "1")).await;
    committed(&store, Txn::new().if_absent("/a").put("/a", "1")).await;
    conflicts(&store, Txn::new().if_unchanged("/a", first).put("/a", "2")).await;
}

async fn values_are_any_bytes(store: Store) {
    let every: Vec<u8> = (0..=255).collect();
    let large = vec![0xa5; MAX_TXN_BYTES - 10];
    let txn = Txn::new().put("/empty", Bytes::new()).put("/every", every.clone());
    committed(&store, txn).await;
    committed(&store, Txn::new().put("/large", large.clone())).await;
    assert_eq!(value(&store, "/empty").await.as_deref(), Some(&[][..]));
    assert_eq!(value(&store, "/every").await.as_deref(), Some(&every[..]));
    assert_eq!(value(&store, "/large").await.as_deref(), Some(&large[..]));
}

async fn bounds_are_refused(store: Store) {
    let many = |count: usize| {
        (0..count).fold(Txn::new(), |txn, at| txn.put(format!("/many/{at:04}"), "x"))
    };
    committed(&store, many(MAX_OPS)).await;
    let refused = [
        many(MAX_OPS + 1),
        Txn::new().put("/a", "1").put("/a", "2"),
        Txn::new().put("/a", "1").delete("/a"),
        Txn::new().put("", "1"),
        Txn::new().if_absent("").put("/a", "1"),
        Txn::new().put("x".repeat(super::MAX_KEY_BYTES + 1), "1"),
        Txn::new().put("/a", vec![0; MAX_TXN_BYTES]),
    ];
    for txn in refused {
        let answer = store.commit(txn).await;
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "{answer:?}");
    }
    assert_eq!(map(&store, "").await.len(), MAX_OPS);
}

async fn one_of_many_creators_wins(store: Store) {
    for round in 0..5 {
        let key = format!("/race/{round}");
        let mut tasks = tokio::task::JoinSet::new();
        for creator in 0..16u8 {
            let (store, key) = (Arc::clone(&store), key.clone());
            tasks.spawn(async move {
                let txn = Txn::new().if_absent(&key).put(&key, vec![creator]);
                (creator, store.commit(txn).await.expect("the store works"))
            });
        }
        let results = tasks.join_all().await;
        let won = |(_, outcome): &&(u8, Outcome)| matches!(outcome, Outcome::Committed(_));
        let winners: Vec<_> = results.iter().filter(won).collect();
        assert_eq!(winners.len(), 1);
        assert_eq!(value(&store, &key).await.as_deref(), Some(&[winners[0].0][..]));
    }
}

async fn counters_lose_no_increment(store: Store) {
    committed(&store, Txn::new().put("/n", "0")).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = Arc::clone(&store);
        tasks.spawn(async move {
            let mut revisions = Vec::new();
            while revisions.len() < 25 {
                let entry = get(&store, "/n").await.expect("it is there");
                let text = std::str::from_utf8(&entry.value).expect("it is text");
                let number: u32 = text.parse().expect("it is a number");
                let txn = Txn::new()
                    .if_unchanged("/n", entry.mod_revision)
                    .put("/n", (number + 1).to_string());
                if let Outcome::Committed(at) = store.commit(txn).await.expect("the store works") {
                    revisions.push(at);
                }
            }
            revisions
        });
    }
    let mut revisions = tasks.join_all().await.concat();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 200, "each transaction has a revision of its own");
    assert_eq!(value(&store, "/n").await.as_deref(), Some(&b"200"[..]));
}

async fn transactions_are_seen_whole(store: Store) {
    let writer = Arc::clone(&store);
    let writing = tokio::spawn(async move {
        for round in 0..100u8 {
            committed(&writer, Txn::new().put("/x", vec![round]).put("/y", vec![round])).await;
        }
    });
    let mut last = Revision(0);
    loop {
        let done = writing.is_finished();
        let range = store.range("/").await.expect("the store works");
        assert!(range.revision >= last, "reads do not go back");
        last = range.revision;
        let values: Vec<_> = range.entries.iter().map(|entry| &entry.value).collect();
        assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{values:?}");
        if done {
            break;
        }
        tokio::task::yield_now().await;
    }
    writing.await.expect("the writer ends");
}

async fn watches_tell_each_change_once(store: Store) {
    let start = revision(&store).await;
    let mut watch = watch(&store, "/", start).await;
    let one = committed(&store, Txn::new().put("/b", "1").put("/a", "1")).await;
    let two = committed(&store, Txn::new().put("/a", "2").delete("/b").delete("/none")).await;
    conflicts(&store, Txn::new().if_absent("/a").put("/c", "1")).await;
    let three = committed(&store, Txn::new().put("/c", "1")).await;

    let put = |key: &str, value: &'static str, mod_revision| {
        Event::Put(Entry {
            key: key.to_owned(),
            value: Bytes::from_static(value.as_bytes()),
            mod_revision,
            lease: None,
        })
    };
    let change = next(&mut watch).await;
    assert_eq!(
        (change.revision, change.events),
        (one, vec![put("/a", "1", one), put("/b", "1", one)])
    );
    let change = next(&mut watch).await;
    let gone = Event::Delete { key: "/b".to_owned() };
    assert_eq!((change.revision, change.events), (two, vec![put("/a", "2", two), gone]));
    let change = next(&mut watch).await;
    assert_eq!((change.revision, change.events), (three, vec![put("/c", "1", three)]));
}

async fn watches_see_their_prefix_only(store: Store) {
    let start = revision(&store).await;
    let mut watch = watch(&store, "/ours/", start).await;
    committed(&store, Txn::new().put("/other", "1")).await;
    let mixed = committed(&store, Txn::new().put("/other", "2").put("/ours/a", "1")).await;
    committed(&store, Txn::new().put("/ours", "1")).await;
    let last = committed(&store, Txn::new().delete("/ours/a")).await;
    let change = next(&mut watch).await;
    assert_eq!((change.revision, change.events.len()), (mixed, 1));
    let change = next(&mut watch).await;
    assert_eq!(change.revision, last);
    assert_eq!(change.events, [Event::Delete { key: "/ours/a".to_owned() }]);
}

async fn watches_reach_back(store: Store) {
    let start = revision(&store).await;
    let mut revisions = Vec::new();
    for round in 0..20u8 {
        revisions.push(committed(&store, Txn::new().put("/a", vec![round])).await);
    }
    for (from, after) in [start].iter().chain(&revisions).enumerate().take(20) {
        let mut watch = watch(&store, "/", *after).await;
        for expected in &revisions[from..] {
            assert_eq!(next(&mut watch).await.revision, *expected);
        }
    }
}

/// Writes from several tasks; the last transaction puts `/w/end`.
fn load(store: &Store) -> tokio::task::JoinHandle<()> {
    let store = Arc::clone(store);
    tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..4u32 {
            let store = Arc::clone(&store);
            tasks.spawn(async move {
                for round in 0..50u32 {
                    let key = format!("/w/{}", (writer * 31 + round * 7) % 10);
                    let other = format!("/w/{}", 10 + writer);
                    let txn = Txn::new().put(other, round.to_string());
                    let txn = if round % 3 == 0 { txn.delete(key) } else { txn.put(key, "x") };
                    committed(&store, txn).await;
                }
            });
        }
        tasks.join_all().await;
        committed(&store, Txn::new().put("/w/end", "")).await;
    })
}

async fn watches_have_no_gaps_under_load(store: Store) {
    let range = store.range("/w/").await.expect("the store works");
    let mut early = watch(&store, "/w/", range.revision).await;
    let writing = load(&store);
    // One that begins in the middle, from what a range says there is.
    tokio::task::yield_now().await;
    let middle = store.range("/w/").await.expect("the store works");
    let mut late = watch(&store, "/w/", middle.revision).await;

    let entries = |range: super::Range| -> BTreeMap<String, Entry> {
        range.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect()
    };
    let mut results = Vec::new();
    for (mut seen, watch, mut last) in
        [(entries(range), &mut early, Revision(0)), (entries(middle), &mut late, Revision(0))]
    {
        while !seen.contains_key("/w/end") {
            let change = next(watch).await;
            assert!(change.revision > last && !change.events.is_empty());
            last = change.revision;
            replay(&mut seen, change);
        }
        results.push(seen);
    }
    writing.await.expect("the writers end");
    let there = map(&store, "/w/").await;
    assert!(results.iter().all(|seen| *seen == there));
}

async fn an_abandoned_wait_loses_nothing(store: Store) {
    let start = revision(&store).await;
    let mut watch = watch(&store, "/w/", start).await;
    let writing = load(&store);
    let mut seen = BTreeMap::new();
    while !seen.contains_key("/w/end") {
        tokio::select! {
            biased;
            change = next(&mut watch) => replay(&mut seen, change),
            () = tokio::task::yield_now() => {}
        }
    }
    writing.await.expect("the writers end");
    assert_eq!(seen, map(&store, "/w/").await);
}

async fn lease(store: &Store) -> LeaseId {
    store.grant_lease(TTL).await.expect("the store works")
}

async fn revoking_a_lease_deletes_its_keys_at_once(store: Store) {
    let (lease, other) = (lease(&store).await, lease(&store).await);
    assert_ne!(lease, other);
    let txn = Txn::new()
        .put_leased("/a", "1", lease)
        .put_leased("/b", "1", lease)
        .put_leased("/c", "1", other)
        .put("/d", "1");
    let made = committed(&store, txn).await;
    assert_eq!(get(&store, "/a").await.and_then(|entry| entry.lease), Some(lease));
    let mut watch = watch(&store, "/", made).await;
    assert_eq!(store.revoke_lease(lease).await, Ok(()));
    assert_eq!(map(&store, "").await.into_keys().collect::<Vec<_>>(), ["/c", "/d"]);
    let change = next(&mut watch).await;
    let gone = |key: &str| Event::Delete { key: key.to_owned() };
    assert_eq!(change.events, [gone("/a"), gone("/b")]);
    // Once more, and one without keys.
    assert_eq!(store.revoke_lease(lease).await, Ok(()));
    let before = revision(&store).await;
    let empty = store.grant_lease(TTL).await.expect("the store works");
    assert_eq!(store.revoke_lease(empty).await, Ok(()));
    assert_eq!(revision(&store).await, before);
}

async fn a_key_follows_its_last_lease(store: Store) {
    let (first, second) = (lease(&store).await, lease(&store).await);
    let txn = Txn::new().put_leased("/moved", "1", first).put_leased("/freed", "1", first);
    committed(&store, txn.put_leased("/deleted", "1", first)).await;
    committed(&store, Txn::new().put_leased("/moved", "2", second).put("/freed", "2")).await;
    committed(&store, Txn::new().delete("/deleted")).await;
    committed(&store, Txn::new().put("/deleted", "3")).await;
    assert_eq!(store.revoke_lease(first).await, Ok(()));
    assert_eq!(map(&store, "").await.len(), 3);
    assert_eq!(store.revoke_lease(second).await, Ok(()));
    let left: Vec<_> = map(&store, "").await.into_keys().collect();
    assert_eq!(left, ["/deleted", "/freed"]);
}

async fn a_lease_that_ended_takes_no_keys(store: Store) {
    let lease = lease(&store).await;
    assert_eq!(store.keep_alive(lease).await, Ok(()));
    assert_eq!(store.revoke_lease(lease).await, Ok(()));
    for ended in [lease, LeaseId(i64::MAX - 7)] {
        assert_eq!(store.keep_alive(ended).await, Err(StoreError::LeaseEnded));
        let txn = Txn::new().put_leased("/a", "1", ended).put("/b", "1");
        assert_eq!(store.commit(txn).await, Err(StoreError::LeaseEnded));
    }
    assert_eq!(map(&store, "").await.len(), 0);
}

async fn a_lease_ends_when_it_is_not_kept_alive(store: Store) {
    let lease = lease(&store).await;
    let txn = Txn::new().put_leased("/a", "1", lease).put_leased("/b", "1", lease);
    let made = committed(&store, txn).await;
    let mut watch = watch(&store, "/", made).await;
    let change = next(&mut watch).await;
    assert_eq!(change.events.len(), 2);
    assert_eq!(map(&store, "").await.len(), 0);
    assert_eq!(store.keep_alive(lease).await, Err(StoreError::LeaseEnded));
}

async fn a_lease_that_is_kept_alive_lasts(store: Store) {
    let (kept, left) = (lease(&store).await, lease(&store).await);
    let txn = Txn::new().put_leased("/kept", "1", kept).put_leased("/left", "1", left);
    let made = committed(&store, txn).await;
    let mut watch = watch(&store, "/", made).await;
    let keeper = Arc::clone(&store);
    let keeping = tokio::spawn(async move {
        loop {
            keeper.keep_alive(kept).await.expect("it is kept alive in time");
            tokio::time::sleep(TTL / 8).await;
        }
    });
    // The other lease ends; well after that this one is still there.
    assert_eq!(next(&mut watch).await.events, [Event::Delete { key: "/left".to_owned() }]);
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(map(&store, "").await.into_keys().collect::<Vec<_>>(), ["/kept"]);
    keeping.abort();
    assert_eq!(next(&mut watch).await.events, [Event::Delete { key: "/kept".to_owned() }]);
}
