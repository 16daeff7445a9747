//! Many requests on one connection: order of effects and answers, bounds, and what happens to them
//! when something ends.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sluice_model::{StreamId, TenantId, TopicId};
use sluice_wire::Uuid;
use sluice_wire::messages::create_topics_request::CreateTopicsRequest;
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::metadata_request::MetadataRequest;
use sluice_wire::messages::produce_request::ProduceRequest;
use tokio::io::AsyncWriteExt;

use super::client::{Client, batch, produce};
use super::memory::PANIC_GROUP;
use super::{SOON, Server};

const MINUTE_MS: i32 = 60_000;

fn waiting_fetch(topic: Uuid, max_wait_ms: i32) -> FetchRequest {
    FetchRequest {
        max_wait_ms,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic_id: topic,
            partitions: vec![FetchPartition { partition_max_bytes: 1 << 20, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn stream(topic: Uuid) -> StreamId {
    StreamId { topic: TopicId(topic.0), partition: 0 }
}

/// Waits until a condition holds that other tasks bring about.
async fn until(mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("it never came to hold");
}

#[tokio::test]
async fn answers_come_in_order_and_effects_too() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    // All in one write, far more than may be in flight.
    let mut bytes = BytesMut::new();
    for i in 0..300i32 {
        let request = produce("t", 0, -1, batch(1, &i.to_be_bytes()));
        bytes.extend_from_slice(&Client::frame(&request, 9, 1_000 + 2 * i));
        bytes.extend_from_slice(&Client::frame(&MetadataRequest::default(), 9, 1_001 + 2 * i));
    }
    let mut client = server.client().await;
    client.stream.write_all(&bytes).await.unwrap();
    for i in 0..300 {
        let response = client.answer::<ProduceRequest>(9, 1_000 + 2 * i).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, i64::from(i)));
        client.answer::<MetadataRequest>(9, 1_001 + 2 * i).await;
    }
    let payloads: Vec<Bytes> =
        (0..300i32).map(|i| Bytes::copy_from_slice(&i.to_be_bytes())).collect();
    assert_eq!(server.backend.payloads(stream(topic)), payloads);
}

#[tokio::test]
async fn appends_overlap_and_what_follows_them_waits() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    server.backend.gate.send_replace(false);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(client.send(&produce("t", 0, -1, batch(1, b"x")), 9).await);
    }
    // The next must see what was produced: it may not be taken up before.
    let create = CreateTopicsRequest { topics: Vec::new(), ..Default::default() };
    let create = client.send(&create, 7).await;
    let last = client.send(&produce("t", 0, -1, batch(1, b"y")), 9).await;
    until(|| server.backend.appends.load(Ordering::SeqCst) == 5).await;
    server.backend.gate.send_replace(true);
    for id in ids {
        client.answer::<ProduceRequest>(9, id).await;
    }
    client.answer::<CreateTopicsRequest>(7, create).await;
    let response = client.answer::<ProduceRequest>(9, last).await;
    assert_eq!(response.responses[0].partition_responses[0].base_offset, 5);
}

#[tokio::test]
async fn a_waiting_fetch_does_not_hold_up_a_produce() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    let fetch = client.send(&waiting_fetch(topic, MINUTE_MS), 13).await;
    let produce = client.send(&produce("t", 0, -1, batch(2, b"x")), 9).await;
    // The produce is what the fetch waits for, and its answer comes after the fetch's.
    let response = client.answer::<FetchRequest>(13, fetch).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.high_watermark, partition.records.as_ref().unwrap().len()), (2, 62));
    client.answer::<ProduceRequest>(9, produce).await;
}

#[tokio::test]
async fn no_more_than_the_bound_is_in_flight() {
    let server = Server::with(|config| config.limits.max_in_flight = 10, &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    let fetch = waiting_fetch(topic, MINUTE_MS);
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(client.send(&fetch, 13).await);
    }
    until(|| server.backend.reading.load(Ordering::SeqCst) == 10).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.backend.reading.load(Ordering::SeqCst), 10);
    server.client().await.call(&produce("t", 0, -1, batch(1, b"x")), 9).await;
    for id in ids {
        client.answer::<FetchRequest>(13, id).await;
    }
}

#[tokio::test]
async fn a_lost_peer_takes_its_waiting_requests_with_it() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    client.send(&waiting_fetch(topic, MINUTE_MS), 13).await;
    until(|| server.backend.reading.load(Ordering::SeqCst) == 1).await;
    drop(client);
    until(|| server.backend.reading.load(Ordering::SeqCst) == 0).await;
    server.metric_becomes(r#"gateway_connections_closed_total{reason="peer"}"#, 1).await;
}

#[tokio::test]
async fn without_acks_there_is_no_answer_and_the_append_is_made() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    client.send(&produce("t", 0, 0, batch(1, b"one")), 9).await;
    client.send(&produce("t", 0, 0, batch(1, b"two")), 9).await;
    // The next answer is the next request's.
    client.call(&MetadataRequest::default(), 9).await;
    assert_eq!(server.backend.payloads(stream(topic)), ["one", "two"]);
    // Also when the producer is gone at once.
    client.send(&produce("t", 0, 0, batch(1, b"three")), 9).await;
    drop(client);
    until(|| server.backend.payloads(stream(topic)).len() == 3).await;
}

#[tokio::test]
async fn without_acks_a_failure_closes_the_connection() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    client.send(&produce("missing", 0, 0, batch(1, b"x")), 9).await;
    assert!(client.is_closed().await);
    let mut client = server.client().await;
    server.backend.refuse.store(true, Ordering::SeqCst);
    client.send(&produce("t", 0, 0, batch(1, b"x")), 9).await;
    assert!(client.is_closed().await);
    server.metric_becomes(r#"gateway_connections_closed_total{reason="append_failed"}"#, 2).await;
}

#[tokio::test]
async fn a_panic_ends_its_connection_and_no_other() {
    let server = Server::start().await;
    let mut other = server.client().await;
    let mut client = server.client().await;
    let join = JoinGroupRequest { group_id: PANIC_GROUP.into(), ..Default::default() };
    client.send(&join, 9).await;
    assert!(client.is_closed().await);
    server.metric_becomes(r#"gateway_connections_closed_total{reason="panic"}"#, 1).await;
    server.metric_becomes("gateway_connections", 1).await;
    assert_eq!(other.call(&MetadataRequest::default(), 9).await.brokers.len(), 1);
    assert_eq!(server.client().await.call(&MetadataRequest::default(), 9).await.brokers.len(), 1);
}

#[tokio::test]
async fn shutdown_answers_what_is_in_flight() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let empty = client.create_topic("empty", 1).await;
    server.backend.gate.send_replace(false);
    let id = client.send(&produce("t", 0, -1, batch(1, b"x")), 9).await;
    until(|| server.backend.appends.load(Ordering::SeqCst) == 1).await;
    // A fetch that waits for records is not waited for.
    let mut waiting = server.client().await;
    waiting.send(&waiting_fetch(empty, MINUTE_MS), 13).await;
    until(|| server.backend.reading.load(Ordering::SeqCst) == 1).await;
    let idle = server.client().await;

    let backend = std::sync::Arc::clone(&server.backend);
    let stopping = tokio::spawn(server.stop());
    assert!(waiting.is_closed().await);
    let mut idle = idle;
    assert!(idle.is_closed().await);
    assert!(!stopping.is_finished());
    backend.gate.send_replace(true);
    let response = client.answer::<ProduceRequest>(9, id).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    assert!(client.is_closed().await);
    stopping.await.unwrap();
}

#[tokio::test]
async fn shutdown_cuts_what_takes_too_long() {
    let server = Server::with(
        |config| config.limits.drain_timeout = Duration::from_millis(50),
        &[TenantId::OPEN],
    )
    .await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    server.backend.gate.send_replace(false);
    client.send(&produce("t", 0, -1, batch(1, b"x")), 9).await;
    until(|| server.backend.appends.load(Ordering::SeqCst) == 1).await;
    server.stop().await;
    assert!(client.is_closed().await);
}
