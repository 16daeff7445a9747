//! Peers that mean harm or are broken: memory stays bounded, others are served.

use std::time::Duration;

use bytes::BytesMut;
use sluice_model::TenantId;
use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::metadata_request::MetadataRequest;
use sluice_wire::messages::produce_request::ProduceRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Client, batch, produce};
use super::{Counting, SOON, Server};
use sluice_model::Entropy;

/// The value of a `kB` line of this process's status, in bytes.
fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Whether this process runs nothing but `test`, so that its memory says something about it. If not,
/// a process that does is started and must succeed.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "SLUICE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = format!("tests::hostile::{test}");
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    println!("{output}{}", String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && output.contains("1 passed"), "{name} fails alone");
    false
}

async fn is_served(server: &Server) {
    let response = server.client().await.call(&MetadataRequest::default(), 9).await;
    assert_eq!(response.brokers.len(), 1);
}

/// Reads until the server closes; fails if it does not.
async fn drain(stream: &mut TcpStream) {
    let mut sink = vec![0; 1 << 16];
    let read = async { while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {} };
    tokio::time::timeout(SOON, read).await.expect("the server does not close");
}

#[tokio::test]
async fn random_bytes_end_their_connection() {
    let server = Server::start().await;
    let entropy = Counting::default();
    for round in 0..200usize {
        let mut bytes = vec![0; 64 + round * 7];
        entropy.fill(&mut bytes);
        if round % 2 == 0 {
            // A length that fits, so that the header and the body are looked at.
            let length = u32::try_from(bytes.len() - 4).unwrap();
            bytes[..4].copy_from_slice(&length.to_be_bytes());
        }
        if round % 4 == 0 {
            // An API and a version that exist, so that the body is.
            bytes[4..8].copy_from_slice(&[0, (round / 4 % 23) as u8, 0, 4]);
        }
        let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        drain(&mut stream).await;
    }
    is_served(&server).await;
    server.metric_becomes("gateway_connections", 0).await;
    assert_eq!(server.metric(r#"gateway_connections_closed_total{reason="panic"}"#), 0);
    assert_eq!(server.metric("gateway_request_buffers_bytes"), 0);
}

#[tokio::test]
async fn lengths_out_of_bounds_are_refused_at_once() {
    let server =
        Server::with(|config| config.limits.max_frame_bytes = 1 << 20, &[TenantId::OPEN]).await;
    for (length, reason) in [
        (-1, "invalid_length"),
        (0, "invalid_length"),
        (7, "invalid_length"),
        ((1 << 20) + 1, "frame_too_large"),
        (i32::MAX, "frame_too_large"),
        // What an HTTP client sends: "GET ".
        (0x4745_5420, "frame_too_large"),
    ] {
        let name = format!(r#"gateway_connections_closed_total{{reason="{reason}"}}"#);
        let before = server.metric(&name);
        let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
        stream.write_i32(length).await.unwrap();
        drain(&mut stream).await;
        server.metric_becomes(&name, before + 1).await;
    }
    // The largest that is allowed is served.
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let overhead = Client::frame(&produce("t", 0, -1, batch(1, b"")), 9, 1).len() - 4 + 2;
    let records = batch(1, &vec![7; (1 << 20) - overhead]);
    let response = client.call(&produce("t", 0, -1, records), 9).await;
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
}

#[tokio::test]
async fn idle_connections_hold_next_to_nothing() {
    const COUNT: usize = 2_000;
    if !is_alone("idle_connections_hold_next_to_nothing") {
        return;
    }
    let server = Server::start().await;
    let mut clients = Vec::new();
    // Each has done something, so that what is measured is not a connection's first state.
    let mut one = async || {
        let mut client = server.client().await;
        client.call(&MetadataRequest::default(), 9).await;
        clients.push(client);
    };
    for _ in 0..50 {
        one().await;
    }
    let before = resident_bytes();
    for _ in 0..COUNT {
        one().await;
    }
    let each = resident_bytes().saturating_sub(before) / COUNT;
    println!("{each} bytes of resident memory for both ends of an idle connection");
    assert!(each < 8 << 10, "{each} bytes");
    assert_eq!(server.metric("gateway_connections"), COUNT as u64 + 50);
    assert_eq!(server.metric("gateway_request_buffers_bytes"), 0);
    is_served(&server).await;
    drop(clients);
    server.metric_becomes("gateway_connections", 0).await;
}

#[tokio::test]
async fn half_frames_hold_what_they_sent_and_are_cut() {
    const COUNT: usize = 500;
    let server = Server::with(
        |config| config.limits.stall_timeout = Duration::from_millis(700),
        &[TenantId::OPEN],
    )
    .await;
    let mut streams = Vec::new();
    for _ in 0..COUNT {
        let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
        // Claims 100 MiB, sends 1000 bytes.
        let mut bytes = BytesMut::zeroed(1_000);
        bytes[..4].copy_from_slice(&(100u32 << 20).to_be_bytes());
        stream.write_all(&bytes).await.unwrap();
        streams.push(stream);
    }
    server.metric_becomes("gateway_request_buffers_bytes", 1_000 * COUNT as u64).await;
    is_served(&server).await;
    for stream in &mut streams {
        drain(stream).await;
    }
    server
        .metric_becomes(r#"gateway_connections_closed_total{reason="slow_writer"}"#, COUNT as u64)
        .await;
    assert_eq!(server.metric("gateway_request_buffers_bytes"), 0);
}

#[tokio::test]
async fn one_byte_at_a_time_is_not_progress() {
    let server = Server::with(
        |config| config.limits.stall_timeout = Duration::from_millis(200),
        &[TenantId::OPEN],
    )
    .await;
    let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
    stream.write_all(&1_000_000u32.to_be_bytes()).await.unwrap();
    let trickle = async {
        while stream.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, trickle).await.expect("the server does not close");
    server.metric_becomes(r#"gateway_connections_closed_total{reason="slow_writer"}"#, 1).await;
}

#[tokio::test]
async fn reading_pauses_when_the_request_budget_is_used_up() {
    let server = Server::with(
        |config| {
            config.limits.request_budget_bytes = 256 << 10;
            config.limits.stall_timeout = Duration::from_millis(500);
        },
        &[TenantId::OPEN],
    )
    .await;
    // More half-frames than the budget can pay for.
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
        let mut bytes = vec![0; 60 << 10];
        bytes[..4].copy_from_slice(&(50u32 << 20).to_be_bytes());
        stream.write_all(&bytes).await.unwrap();
        streams.push(stream);
    }
    let held = server.metric("gateway_request_buffers_bytes");
    assert!(held <= 256 << 10, "{held}");
    // They are cut for making no progress, and then there is room again.
    is_served(&server).await;
    for stream in &mut streams {
        drain(stream).await;
    }
    is_served(&server).await;
    server.metric_becomes("gateway_request_buffers_bytes", 0).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_cut() {
    if !is_alone("a_client_that_never_reads_is_cut") {
        return;
    }
    let server = Server::with(
        |config| {
            config.limits.stall_timeout = Duration::from_millis(400);
            config.limits.max_answer_bytes = 1 << 20;
        },
        &[TenantId::OPEN],
    )
    .await;
    let mut client = server.client().await;
    for i in 0..300 {
        client.create_topic(&format!("a-topic-with-quite-a-long-name-{i}"), 10).await;
    }
    let before = resident_bytes();
    let all = MetadataRequest { topics: None, ..Default::default() };
    let frame = Client::frame(&all, 9, 1);
    // Sends until the server has closed, and never reads.
    let flood = async { while client.stream.write_all(&frame).await.is_ok() {} };
    tokio::time::timeout(SOON, flood).await.expect("the server does not close");
    let taken = resident_bytes().saturating_sub(before);
    println!("{taken} bytes of resident memory for answers that nobody reads");
    assert!(taken < 64 << 20, "{taken} bytes were taken for answers that nobody reads");
    server.metric_becomes(r#"gateway_connections_closed_total{reason="slow_reader"}"#, 1).await;
    is_served(&server).await;
}

#[tokio::test]
async fn silence_is_cut_after_the_idle_time() {
    let server = Server::with(
        |config| config.limits.idle_timeout = Duration::from_millis(150),
        &[TenantId::OPEN],
    )
    .await;
    let mut silent = TcpStream::connect(server.addresses[0]).await.unwrap();
    let mut busy = server.client().await;
    for _ in 0..10 {
        busy.call(&ApiVersionsRequest::default(), 0).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    drain(&mut silent).await;
    assert_eq!(server.metric(r#"gateway_connections_closed_total{reason="idle"}"#), 1);
    busy.call(&ApiVersionsRequest::default(), 0).await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let server =
        Server::with(|config| config.limits.max_connections_per_ip = 3, &[TenantId::OPEN]).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = server.client().await;
        client.call(&ApiVersionsRequest::default(), 0).await;
        clients.push(client);
    }
    drain(&mut TcpStream::connect(server.addresses[0]).await.unwrap()).await;
    assert_eq!(server.metric(r#"gateway_connections_refused_total{reason="full_for_address"}"#), 1);
    clients.pop();
    server.metric_becomes("gateway_connections", 2).await;
    is_served(&server).await;
}

#[tokio::test]
async fn big_requests_and_answers_go_through_whole() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    for size in [1, 1_000, 70_000, 1 << 20, 20 << 20] {
        let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        let request = produce("t", 0, -1, batch(1, &payload));
        let id = client.send(&request, 9).await;
        let response = client.answer::<ProduceRequest>(9, id).await;
        let offset = response.responses[0].partition_responses[0].base_offset;
        let records = super::streams::fetch_one(&mut client, "t", 0, offset).await;
        assert_eq!(records.slice(61..), payload);
    }
    server.metric_becomes("gateway_answer_buffers_bytes", 0).await;
}
