//! The listener as a client sees it: raw bytes over TCP, and hyper's own HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{OpsHttp, OpsLimits, Readiness};

struct Server {
    address: std::net::SocketAddr,
    readiness: watch::Sender<Readiness>,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(limits: OpsLimits) -> Self {
        Self::with_registry(limits, Registry::with_prefix("sluice")).await
    }

    async fn with_registry(limits: OpsLimits, registry: Registry) -> Self {
        Self::with_close_timeout(limits, registry, super::CLOSE_TIMEOUT).await
    }

    async fn with_close_timeout(
        limits: OpsLimits,
        registry: Registry,
        close_timeout: Duration,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, watched) = watch::channel(Readiness::Starting);
        let (shutdown, told) = oneshot::channel();
        let registry = Arc::new(RwLock::new(registry));
        let mut ops = OpsHttp::new(limits, registry, watched);
        ops.close_timeout = close_timeout;
        let task = tokio::spawn(ops.serve(listener, async {
            let _ = told.await;
        }));
        Self { address, readiness, shutdown: Some(shutdown), task }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends `request` on a new connection and reads until the server closes it.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        read_to_end(&mut stream).await
    }

    async fn get(&self, path: &str) -> String {
        self.exchange(&format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).await
    }
}

async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset after the answer, for a body that was not read, is as good as an end.
    let _ = timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection");
    String::from_utf8(answer).unwrap()
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 4096];
    let read = timeout(Duration::from_secs(20), stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

#[tokio::test]
async fn readiness_follows_the_process() {
    let server = Server::start(OpsLimits::default()).await;
    for (readiness, expected, body) in [
        (Readiness::Starting, "503", "{\"status\":\"starting\"}\n"),
        (Readiness::Ready, "200", "{\"status\":\"ready\"}\n"),
        (Readiness::Draining, "503", "{\"status\":\"draining\"}\n"),
    ] {
        server.readiness.send_replace(readiness);
        let answer = server.get("/readyz").await;
        assert_eq!(status(&answer), expected, "{answer}");
        assert!(answer.ends_with(body), "{answer}");
        assert_eq!(status(&server.get("/livez").await), "200");
    }
}

#[tokio::test]
async fn metrics_are_openmetrics_text() {
    let server = Server::start(OpsLimits::default()).await;
    server.get("/livez").await;
    server.get("/a/strangers/path").await;
    let answer = server.get("/metrics?x=1").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(
        answer.contains("sluice_ops_http_requests_total{route=\"Livez\",status=\"200\"} 1\n"),
        "{answer}"
    );
    assert!(answer.contains("{route=\"Other\",status=\"404\"} 1\n"), "{answer}");
    assert!(!answer.contains("strangers"), "{answer}");
    assert!(answer.contains("sluice_ops_http_connections 1\n"), "{answer}");
    assert!(answer.ends_with("# EOF\n"), "{answer}");
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start(OpsLimits::default()).await;
    let answer =
        server.exchange("HEAD /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-length: 18\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_a_small_json_error() {
    let server = Server::start(OpsLimits::default()).await;
    let answer = server.get("/").await;
    assert_eq!(status(&answer), "404");
    assert!(answer.contains("{\"error\":\"not_found\""), "{answer}");
    let answer = server.exchange("DELETE /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = answer.await;
    assert_eq!(status(&answer), "405");
    assert!(answer.contains("allow: GET, HEAD\r\n"), "{answer}");
    assert!(answer.contains("{\"error\":\"method_not_allowed\""), "{answer}");
}

#[tokio::test]
async fn a_body_is_refused_unread_and_the_connection_closed() {
    let server = Server::start(OpsLimits::default()).await;
    for request in [
        "GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\nabc",
        "GET /livez HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
    ] {
        let answer = server.exchange(request).await;
        assert_eq!(status(&answer), "413", "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = Server::start(OpsLimits::default()).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_some(&mut stream).await), "200");
    }
}

#[tokio::test]
async fn broken_requests_are_refused_and_others_served() {
    let server = Server::start(OpsLimits::default()).await;
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(1000));
    for request in ["\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", &long, &many] {
        let mut stream = server.connect().await;
        // The server may refuse before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = read_to_end(&mut stream).await;
        assert!(answer.is_empty() || status(&answer).starts_with('4'), "{answer}");
    }
    assert_eq!(status(&server.get("/livez").await), "200");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_counted() {
    let limits = OpsLimits { max_connections: 2, ..OpsLimits::default() };
    let server = Server::start(limits).await;
    let mut held = server.connect().await;
    held.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_some(&mut held).await), "200");
    let mut other = server.connect().await;
    other.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_some(&mut other).await), "200");
    let mut refused = server.connect().await;
    assert_eq!(read_to_end(&mut refused).await, "");
    held.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.contains("# EOF") {
        answer.push_str(&read_some(&mut held).await);
    }
    assert!(answer.contains("sluice_ops_http_connections_refused_total 1\n"), "{answer}");
    drop(other);
    // The place is free again once the server has seen the end of the other connection.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while status(&server.get("/livez").await) != "200" {
        assert!(tokio::time::Instant::now() < deadline, "the place is never given back");
    }
}

/// Clients that ask for the metrics and do not read them hold a bounded number of copies.
#[tokio::test]
async fn metrics_that_nobody_reads_are_bounded() {
    let server = Server::with_registry(OpsLimits::default(), wide()).await;
    let mut held = Vec::new();
    for _ in 0..super::MAX_EXPOSITIONS {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(status(&read_some(&mut stream).await), "200");
        held.push(stream);
    }
    let answer = server.get("/metrics").await;
    assert_eq!(status(&answer), "503", "{}", answer.len());
    assert!(answer.contains("{\"error\":\"busy\""));
    assert_eq!(status(&server.get("/livez").await), "200");
    drop(held);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while status(&server.get("/metrics").await) != "200" {
        assert!(tokio::time::Instant::now() < deadline, "a place is never given back");
    }
}

/// Real time, but only for things that must happen: a slow machine makes it slower, not wrong.
#[tokio::test]
async fn silent_half_and_idle_connections_are_closed() {
    let limits = OpsLimits {
        header_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(200),
        ..OpsLimits::default()
    };
    let server = Server::start(limits).await;
    for start in ["", "G", "PRI * HTTP/2.0\r\n", "GET /livez HTTP/1.1\r\nhost:"] {
        assert_eq!(server.exchange(start).await, "", "{start}");
    }
    let answer = server.exchange("GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(status(&answer), "200");
    let answer = server.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").await;
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
}

/// The registry whose exposition is more than the kernel takes for a reader that does not read.
fn wide() -> Registry {
    let mut registry = Registry::with_prefix("sluice");
    let help = "x".repeat(16 << 20);
    registry.register("wide", help, prometheus_client::metrics::gauge::Gauge::<i64>::default());
    registry
}

#[tokio::test]
async fn shutdown_lets_answers_be_taken_and_ends_idle_connections_at_once() {
    // So long that only connections which end by themselves let the listener end in time.
    let patient = Duration::from_secs(600);
    let mut server = Server::with_close_timeout(OpsLimits::default(), wide(), patient).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_some(&mut idle).await), "200");
    let mut slow = server.connect().await;
    slow.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_some(&mut slow).await), "200");
    server.shutdown.take().unwrap().send(()).unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(read_to_end(&mut slow).await.ends_with("# EOF\n"));
    timeout(Duration::from_secs(20), &mut server.task).await.expect("ends").unwrap();
}

#[tokio::test]
async fn shutdown_cuts_what_does_not_end() {
    let mut server = Server::start(OpsLimits::default()).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(status(&read_some(&mut idle).await), "200");
    let mut half = server.connect().await;
    half.write_all(b"GET /livez").await.unwrap();
    server.shutdown.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(20), &mut server.task).await.expect("ends").unwrap();
    assert_eq!(read_to_end(&mut idle).await, "");
    assert_eq!(read_to_end(&mut half).await, "");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_served() {
    let server = Server::start(OpsLimits::default()).await;
    server.readiness.send_replace(Readiness::Ready);
    let stream = hyper_util::rt::TokioIo::new(server.connect().await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
    tokio::spawn(connection);
    for (method, path, expected) in
        [("GET", "/readyz", 200), ("HEAD", "/metrics", 200), ("GET", "/", 404), ("PUT", "/", 404)]
    {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", server.address))
            .body(http_body_util::Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), expected, "{method} {path}");
        let length = response.headers()["content-length"].to_str().unwrap().to_owned();
        let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
        match method {
            "HEAD" => assert!(body.is_empty() && length != "0", "{length}"),
            _ => assert_eq!(body.len().to_string(), length),
        }
    }
}
