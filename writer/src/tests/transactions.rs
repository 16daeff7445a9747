//! Markers, the last stable offset and aborted transactions, through uploads and crashes.

use std::time::Duration;

use sluice_format::AbortedTransaction;
use sluice_wire::ErrorCode;

use super::cluster::{Cluster, append, batch, sequenced, stream, transactional, until_bucket};
use super::upload::end_of;
use crate::{AppendError, Tail, Writer};

const ABORT: bool = false;
const COMMIT: bool = true;

fn stable(writer: &Writer, stream: sluice_model::StreamId) -> (i64, i64) {
    let offsets = writer.offsets(stream).unwrap();
    (offsets.last_stable, offsets.high_watermark)
}

#[tokio::test]
async fn a_marker_ends_the_transaction_durably_and_wakes_who_waits() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &transactional(9, 0, 0, 3)).await.unwrap();
    append(&writer, a, &batch(1, 10, 5)).await.unwrap();
    assert_eq!(stable(&writer, a), (0, 4));
    assert_eq!(writer.open_transaction(a, 9), Some(0));
    let waiter = Tail::waiter([writer.tail(a).unwrap()].iter());
    writer.end_transaction(a, 9, 0, 1, ABORT).await.unwrap();
    waiter.changed().await;
    assert_eq!(stable(&writer, a), (5, 5));
    assert_eq!(writer.open_transaction(a, 9), None);
    let aborted = AbortedTransaction {
        producer_id: 9,
        first_offset: 0,
        last_offset: 4,
        last_stable_offset: 5,
    };
    assert_eq!(writer.tail(a).unwrap().aborted_over(&(0..4)), [aborted]);
    // Repeated: another marker, and nothing else.
    writer.end_transaction(a, 9, 0, 1, ABORT).await.unwrap();
    assert_eq!(writer.tail(a).unwrap().aborted_over(&(0..6)), [aborted]);
    writer.abandon().await;
    drop(writer);
    let writer = cluster.start().await;
    assert_eq!(stable(&writer, a), (6, 6));
    assert_eq!(writer.tail(a).unwrap().aborted_over(&(0..6)), [aborted]);
    append(&writer, a, &transactional(9, 0, 3, 1)).await.unwrap();
    assert_eq!(stable(&writer, a), (6, 7));
}

#[tokio::test]
async fn a_marker_under_a_new_epoch_fences_batches_of_the_old_one() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &transactional(9, 0, 0, 1)).await.unwrap();
    writer.end_transaction(a, 9, 1, 1, COMMIT).await.unwrap();
    for restarted in [false, true] {
        let writer = if restarted {
            writer.abandon().await;
            cluster.start().await
        } else {
            writer.clone()
        };
        let late = append(&writer, a, &transactional(9, 0, 1, 1)).await.unwrap_err();
        assert_eq!(late.code(), ErrorCode::InvalidProducerEpoch);
        let old = writer.end_transaction(a, 9, 0, 1, ABORT).await.unwrap_err();
        assert_eq!(old.code(), ErrorCode::InvalidProducerEpoch);
        let zombie = writer.end_transaction(a, 9, 1, 0, COMMIT).await.unwrap_err();
        assert_eq!(zombie.code(), ErrorCode::TransactionCoordinatorFenced);
        let gap = append(&writer, a, &transactional(9, 1, 1, 1)).await.unwrap_err();
        assert_eq!(gap.code(), ErrorCode::OutOfOrderSequenceNumber);
    }
}

#[tokio::test]
async fn a_transactional_batch_needs_the_coordinators_word_and_a_plain_one_stays_outside() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    let wait = Duration::from_secs(5);
    let first = transactional(9, 0, 0, 1);
    let refused = writer.append(a, &first, wait).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidTxnState);
    let late = writer.unverified(a, &first, false).unwrap().unwrap();
    assert_eq!((late.producer_id, late.producer_epoch), (9, 0));
    writer.end_transaction(a, 9, 0, 1, ABORT).await.unwrap();
    let refused = writer.append_verified(a, &first, wait, late).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::InvalidTxnState);
    assert_eq!(stable(&writer, a), (1, 1), "nothing hangs");
    let word = writer.unverified(a, &first, false).unwrap().unwrap();
    writer.append_verified(a, &first, wait, word).await.unwrap();
    assert!(writer.unverified(a, &transactional(9, 0, 1, 1), false).unwrap().is_none());
    writer.append(a, &transactional(9, 0, 1, 1), wait).await.unwrap();
    let outside = writer.append(a, &sequenced(9, 0, 2, 1), wait).await.unwrap_err();
    assert_eq!(outside.code(), ErrorCode::InvalidTxnState);
    assert!(writer.unverified(a, &sequenced(8, 0, 0, 1), false).unwrap().is_none());
    let no_batch = bytes::Bytes::from_static(b"no batch");
    assert!(writer.unverified(a, &no_batch, false).unwrap().is_none());
}

#[tokio::test]
async fn records_that_were_deleted_hold_nothing_up() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 1;
    let topic = cluster.topic("t", &[]).await;
    let a = stream(&topic, 0);
    let writer = cluster.start().await;
    append(&writer, a, &transactional(9, 0, 0, 3)).await.unwrap();
    append(&writer, a, &batch(4, 10, 5)).await.unwrap();
    writer.delete_records(a, 5).await.unwrap();
    assert_eq!(stable(&writer, a), (5, 7));
    until_bucket(&writer, |state| end_of(state, a) == 7).await;
    writer.abandon().await;
    drop(writer);
    let writer = cluster.start().await;
    assert_eq!(stable(&writer, a), (5, 7));
    writer.end_transaction(a, 9, 0, 1, COMMIT).await.unwrap();
    assert_eq!(stable(&writer, a), (8, 8));
}

#[tokio::test]
async fn a_stream_that_is_not_here_has_no_transaction_to_end() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let writer = cluster.start().await;
    let nowhere = stream(&topic, 99);
    let refused = writer.end_transaction(nowhere, 9, 0, 1, COMMIT).await;
    assert_eq!(refused, Err(AppendError::NotOwner));
    assert_eq!(writer.open_transaction(nowhere, 9), None);
}
