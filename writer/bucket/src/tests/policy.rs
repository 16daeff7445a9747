//! Retries, budgets, hedging, and what is never hidden.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::Instant;

use super::scripted::{Fate, SERVED, Scripted, client};
use crate::metrics::Op;
use crate::{BucketOptions, Failure};

fn at() -> Path {
    Path::from("a")
}

fn created() -> PutOptions {
    PutMode::Create.into()
}

fn payload() -> PutPayload {
    PutPayload::from_static(b"0123456789")
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again() {
    for bad in
        [Fate::Status(503), Fate::Status(500), Fate::Unconnected, Fate::LostReply, Fate::Silence]
    {
        let store = Scripted::new(move |_, n| if n % 3 < 2 { bad } else { SERVED });
        let write_timeout = Duration::from_secs(5);
        let options = BucketOptions { write_timeout, ..BucketOptions::default() };
        let (bucket, metrics) = client(&store, options);
        bucket.put(&at(), payload()).await.unwrap();
        let got = bucket.get(&at()).await.unwrap().bytes().await.unwrap();
        assert_eq!(got, Bytes::from_static(b"0123456789"), "{bad:?}");
        assert_eq!(metrics.retries.get(), 4, "{bad:?}");
        assert_eq!(metrics.requests_of(Op::Put), 3);
        assert_eq!(metrics.requests_of(Op::Get), 3);
        assert_eq!(metrics.received_bytes.get(), 10);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_final_is_not() {
    let store = Scripted::new(|_, _| SERVED);
    let (bucket, metrics) = client(&store, BucketOptions::default());
    assert!(matches!(bucket.get(&at()).await, Err(Error::NotFound { .. })));
    assert_eq!(store.requests(), 1);
    assert_eq!(metrics.failures_of(Failure::NotFound), 1);
}

#[tokio::test(start_paused = true)]
async fn short_bodies_are_read_again() {
    let store = Scripted::new(|op, n| if (op, n) == ("get", 1) { Fate::Short } else { SERVED });
    let (bucket, metrics) = client(&store, BucketOptions::default());
    bucket.put(&at(), payload()).await.unwrap();
    assert_eq!(bucket.get_range(&at(), 2..5).await.unwrap(), Bytes::from_static(b"234"));
    assert_eq!(metrics.failures_of(Failure::Unclear), 1);
}

#[tokio::test(start_paused = true)]
async fn a_create_that_lost_its_answer_is_left_to_its_caller() {
    let store = Scripted::new(|_, _| Fate::LostReply);
    let (bucket, _) = client(&store, BucketOptions::default());
    let error = bucket.put_opts(&at(), payload(), created()).await.unwrap_err();
    assert_eq!(Failure::of(&error), Failure::Unclear);
    assert_eq!(store.requests(), 1, "a second try would answer that it exists");
    store.follow(|_, _| SERVED);
    let again = bucket.put_opts(&at(), payload(), created()).await;
    assert!(matches!(again, Err(Error::AlreadyExists { .. })), "the caller compares");

    store.follow(|_, _| Fate::Silence);
    let error = bucket.put_opts(&at(), payload(), created()).await.unwrap_err();
    assert_eq!(Failure::of(&error), Failure::TimedOut);
    assert_eq!(store.requests(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_create_without_effect_is_tried_again() {
    for bad in [Fate::Status(503), Fate::Status(409), Fate::Unconnected] {
        let store = Scripted::new(move |_, n| if n < 2 { bad } else { SERVED });
        let (bucket, _) = client(&store, BucketOptions::default());
        bucket.put_opts(&at(), payload(), created()).await.unwrap();
        assert_eq!(store.requests(), 3, "{bad:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_multiplies_no_load() {
    for bad in [Fate::Status(503), Fate::Status(500), Fate::Unconnected, Fate::Silence] {
        let store = Scripted::new(move |_, _| bad);
        let (bucket, metrics) = client(&store, BucketOptions::default());
        let operations = 1000;
        let gets = stream::iter(0..operations).map(|_| async { bucket.get(&at()).await.is_err() });
        let failed = gets.buffer_unordered(50).filter(|failed| std::future::ready(*failed));
        assert_eq!(failed.count().await, operations, "{bad:?}");
        let load = store.requests() as f64 / operations as f64;
        assert!(load <= 1.3, "{bad:?}: {load}");
        assert!(metrics.retries_refused.get() > 0);
        // And it comes back with the store.
        store.follow(|_, _| SERVED);
        bucket.put(&at(), payload()).await.unwrap();
        bucket.get(&at()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_ends_at_its_deadline() {
    let store = Scripted::new(|_, _| Fate::Silence);
    let options = BucketOptions {
        read_timeout: Duration::from_secs(2),
        deadline: Duration::from_secs(20),
        ..BucketOptions::default()
    };
    let (bucket, _) = client(&store, options);
    let begun = Instant::now();
    assert!(bucket.get_range(&at(), 0..1).await.is_err());
    let took = begun.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(23)).contains(&took), "{took:?}");
    assert!(store.requests() >= 5);
}

#[tokio::test(start_paused = true)]
async fn late_reads_are_raced() {
    // One of 40 takes 5 s.
    let store = Scripted::new(|op, n| match (op, n % 40) {
        ("get", 7) => Fate::Served(Duration::from_secs(5)),
        _ => SERVED,
    });
    let (bucket, metrics) = client(&store, BucketOptions::default());
    bucket.put(&at(), payload()).await.unwrap();
    let mut slow = 0;
    let reads: u64 = 2000;
    for _ in 0..reads {
        let begun = Instant::now();
        bucket.get_range(&at(), 0..5).await.unwrap();
        slow += u64::from(begun.elapsed() > Duration::from_secs(1));
    }
    assert!(slow <= 2, "{slow} reads waited for a slow answer");
    let hedges = metrics.hedges.get();
    assert_eq!(hedges, metrics.hedges_won.get());
    assert!((40..=100).contains(&hedges), "{hedges} of {reads}");
    assert_eq!(store.requests(), 1 + reads + hedges);
}

#[tokio::test(start_paused = true)]
async fn hedges_are_few_when_all_is_slow() {
    let store = Scripted::new(|_, _| SERVED);
    let (bucket, metrics) = client(&store, BucketOptions::default());
    bucket.put(&at(), payload()).await.unwrap();
    for _ in 0..200 {
        bucket.get_range(&at(), 0..5).await.unwrap();
    }
    store.follow(|_, n| Fate::Served(Duration::from_millis(20 + n % 1000)));
    for _ in 0..1000 {
        bucket.get_range(&at(), 0..5).await.unwrap();
    }
    assert!(metrics.hedges.get() <= 60 + 4, "{}", metrics.hedges.get());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_operation_gives_back_its_place() {
    let store = Scripted::new(|_, _| Fate::Silence);
    let options = BucketOptions { max_requests: 2, ..BucketOptions::default() };
    let (bucket, metrics) = client(&store, options);
    let place = at();
    for _ in 0..10 {
        let reads = stream::iter(0..5).map(|_| bucket.get_range(&place, 0..1));
        let all = reads.buffer_unordered(5).count();
        assert!(tokio::time::timeout(Duration::from_millis(50), all).await.is_err());
    }
    assert_eq!(metrics.under_way.get(), 0);
    store.follow(|_, _| SERVED);
    bucket.put(&at(), payload()).await.unwrap();
    assert_eq!(store.under_way.lock().1, 2);
}

#[tokio::test(start_paused = true)]
async fn deletions_and_listings_are_tried_again() {
    let store = Scripted::new(|_, _| SERVED);
    let (bucket, metrics) = client(&store, BucketOptions::default());
    let names: Vec<_> = (0..2500).map(|n| Path::from(format!("d/{n:04}"))).collect();
    for name in &names {
        bucket.put(name, payload()).await.unwrap();
    }
    let before = store.requests.load(Ordering::Relaxed);
    store.follow(move |_, n| if n == before { Fate::Status(503) } else { SERVED });
    let listed: Vec<_> = bucket.list(Some(&Path::from("d"))).try_collect().await.unwrap();
    assert_eq!(listed.len(), names.len());
    assert_eq!(metrics.requests_of(Op::List), 4, "the refused one, and three pages");

    let before = store.requests.load(Ordering::Relaxed);
    store.follow(move |_, n| if n == before + 1 { Fate::Status(500) } else { SERVED });
    let gone = bucket.delete_stream(stream::iter(names.clone()).map(Ok).boxed());
    assert_eq!(gone.try_collect::<Vec<_>>().await.unwrap(), names);
    assert_eq!(metrics.requests_of(Op::Delete), 4);
    assert_eq!(bucket.list(None).count().await, 0);
}

#[tokio::test(start_paused = true)]
async fn uploads_in_parts_are_counted() {
    let store = Scripted::new(|_, n| if n == 0 { Fate::Status(503) } else { SERVED });
    let (bucket, metrics) = client(&store, BucketOptions::default());
    let mut upload = bucket.put_multipart(&at()).await.unwrap();
    for _ in 0..3 {
        upload.put_part(payload()).await.unwrap();
    }
    upload.complete().await.unwrap();
    assert_eq!(bucket.get(&at()).await.unwrap().bytes().await.unwrap().len(), 30);
    assert_eq!(metrics.requests_of(Op::Part), 3);
    assert_eq!(metrics.requests_of(Op::Multipart), 3);
    assert_eq!(metrics.sent_bytes.get(), 30);
    let mut upload = bucket.put_multipart(&Path::from("b")).await.unwrap();
    upload.abort().await.unwrap();
    assert!(bucket.head(&Path::from("b")).await.is_err());
}
