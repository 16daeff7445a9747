//! The order of appends is the order in which they were first polled, however many one task polls at once.

use std::future::poll_fn;
use std::task::Poll;

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::cluster::{Cluster, batch, stream};

/// More than a task may do in one turn (tokio's budget is 128 operations).
const APPENDS: usize = 500;

/// Polls all appends once, in order, and then from the last to the first.
async fn offsets_of_appends(append_queue_bytes: u32) -> Vec<i64> {
    let mut cluster = Cluster::new().await;
    cluster.options.append_queue_bytes = append_queue_bytes;
    let topic = cluster.topic("t", &[]).await;
    let writer = cluster.start().await;
    let at = stream(&topic, 0);
    let records = batch(1, 10, 1_000_000);
    let timeout = cluster.options.append_timeout;
    let mut appends: Vec<_> = (0..APPENDS)
        .map(|_| {
            Box::pin(writer.append(at, &records, timeout).map(|done| done.unwrap().base_offset))
        })
        .collect();
    let mut early = vec![None; APPENDS];
    poll_fn(|cx| {
        for (append, done) in appends.iter_mut().zip(&mut early) {
            if let Poll::Ready(offset) = append.poll_unpin(cx) {
                *done = Some(offset);
            }
        }
        Poll::Ready(())
    })
    .await;
    let rest = appends.into_iter().zip(early).rev().map(|(append, done)| async move {
        match done {
            Some(offset) => offset,
            None => append.await,
        }
    });
    let mut offsets = join_all(rest).await;
    offsets.reverse();
    offsets
}

#[tokio::test]
async fn many_appends_of_one_task_keep_their_order() {
    let expected: Vec<i64> = (0..APPENDS as i64).collect();
    assert_eq!(offsets_of_appends(64 << 20).await, expected);
}
