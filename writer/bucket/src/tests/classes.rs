//! Who may make how many requests.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::time::Instant;

use super::scripted::{Fate, SERVED, Scripted, client, quota};
use crate::metrics::Op;
use crate::{Bucket, BucketOptions, Failure};

/// `workers` that put, one object after the other, until `until`. Gives how many there were.
async fn puts(bucket: &Bucket, workers: usize, until: Instant) -> u64 {
    let work = (0..workers).map(|_| async {
        let mut done = 0;
        while Instant::now() < until {
            let put = bucket.put(&Path::from("a"), PutPayload::from_static(b"x")).await;
            done += u64::from(put.is_ok());
        }
        done
    });
    join_all(work).await.into_iter().sum()
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_requests_is_respected() {
    for allowed in [50_u64, 300] {
        let store = Scripted::new(quota(allowed));
        let (bucket, metrics) = client(&store, BucketOptions::default());
        puts(&bucket, 32, Instant::now() + Duration::from_secs(60)).await;
        let (before, refused) = (store.requests(), metrics.failures_of(Failure::Throttled));
        let done = puts(&bucket, 32, Instant::now() + Duration::from_secs(120)).await;
        let requests = store.requests() - before;
        let refused = metrics.failures_of(Failure::Throttled) - refused;
        assert!(refused * 10 < requests, "{refused} of {requests} refused under {allowed}/s");
        assert!(done > 120 * allowed / 2, "{done} done under {allowed}/s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_configured_rate_is_kept() {
    let store = Scripted::new(|_, _| SERVED);
    let options = BucketOptions { max_rate: Some(40), ..BucketOptions::default() };
    let (bucket, _) = client(&store, options);
    puts(&bucket, 16, Instant::now() + Duration::from_secs(30)).await;
    let requests = store.requests();
    assert!((1150..=1250).contains(&requests), "{requests} in 30 s");
}

#[tokio::test(start_paused = true)]
async fn the_background_gets_what_is_left_and_never_nothing() {
    let store = Scripted::new(|_, _| Fate::Served(Duration::from_millis(20)));
    let options = BucketOptions { max_requests: 8, ..BucketOptions::default() };
    let (bucket, _) = client(&store, options);
    let background = bucket.background();
    let end = Instant::now() + Duration::from_secs(20);
    // The foreground alone could use all of it.
    let (front, back) = tokio::join!(puts(&bucket, 16, end), puts(&background, 16, end));
    assert!(front > back * 20, "{front} and {back}");
    assert!(back >= 5, "{back}: starved");

    // A foreground that leaves room is hardly slowed by the background.
    let end = Instant::now() + Duration::from_secs(20);
    let (front, back) = tokio::join!(puts(&bucket, 2, end), puts(&background, 16, end));
    assert!(front >= 2 * 20 * 50 * 9 / 10, "{front}");
    assert!(back > front, "{back}");
    assert!(store.under_way.lock().1 <= 8);
}

#[tokio::test(start_paused = true)]
async fn the_background_waits_for_the_pace_of_the_foreground() {
    let store = Scripted::new(|_, _| SERVED);
    let options = BucketOptions { max_rate: Some(50), ..BucketOptions::default() };
    let (bucket, _) = client(&store, options);
    let background = bucket.background();
    let end = Instant::now() + Duration::from_secs(20);
    let (front, back) = tokio::join!(puts(&bucket, 4, end), puts(&background, 16, end));
    assert!(front > back * 3, "{front} and {back}");
    assert!(back > 0);
}

#[tokio::test(start_paused = true)]
async fn throttling_lowers_what_is_under_way_and_it_recovers() {
    let store = Scripted::new(|_, _| Fate::Status(503));
    let (bucket, metrics) = client(&store, BucketOptions::default());
    puts(&bucket, 64, Instant::now() + Duration::from_secs(10)).await;
    assert!(metrics.limit.get() <= 4, "{}", metrics.limit.get());
    store.follow(|_, _| Fate::Served(Duration::from_millis(100)));
    puts(&bucket, 64, Instant::now() + Duration::from_secs(150)).await;
    assert!(metrics.limit.get() >= 32, "{}", metrics.limit.get());
    assert_eq!(metrics.rate.get(), 0, "the pace is forgotten");
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded() {
    let store = Scripted::new(|_, _| Fate::Silence);
    let options = BucketOptions { max_requests: 2, ..BucketOptions::default() };
    let (bucket, metrics) = client(&store, options);
    let place = Path::from("a");
    let reads = stream::iter(0..10_000).map(|_| bucket.get_range(&place, 0..1));
    let mut reads = reads.buffer_unordered(10_000);
    // 8192 wait and two are under way; the rest is told at once.
    for _ in 0..10_000 - 8192 - 2 {
        let told = tokio::time::timeout(Duration::from_millis(1), reads.next()).await;
        let told = told.expect("at once").expect("as many as were begun");
        assert!(told.is_err_and(|error| error.to_string().contains("too many")));
    }
    assert_eq!(metrics.waiting.get(), 8192);
    assert_eq!(metrics.requests_of(Op::Get), 2);
}
