//! The operations listener: `/livez`, `/readyz` and `/metrics` over HTTP/1.1 and HTTP/2 with prior
//! knowledge, on its own address. It knows nothing of tenants and shows nothing of theirs.
//!
//! What always holds: a connection takes a bounded amount of memory and time. There is a bound on
//! connections, on headers and on streams, and on answers that wait to be taken; no request may have
//! a body; and a connection is closed when no new request has come on it for a time, whatever it is doing: saying nothing, sending half
//! a header, or not reading its answer. Answers are made at once and never wait for anything.

mod answer;
mod metrics;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use metrics::Metrics;

/// Bytes of one request's line and headers.
const MAX_HEADER_BYTES: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
const MAX_HTTP2_STREAMS: u32 = 16;
/// Expositions of the metrics that clients have not yet taken; each may be some MiB.
const MAX_EXPOSITIONS: usize = 8;
/// After a failed accept, such as for want of file descriptors: others must close some first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections have for taking their last answer when the listener closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the process is in its life; what `/readyz` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet serving: 503.
    Starting,
    /// Serving: 200.
    Ready,
    /// Told to end, and finishing what is under way: 503.
    Draining,
}

/// Bounds on what connections may take.
#[derive(Clone, Copy, Debug)]
pub struct OpsLimits {
    /// Connections over this number are closed at once.
    pub max_connections: usize,
    /// The first request must have come within this time.
    pub header_timeout: Duration,
    /// A connection on which no request has come for this time is closed.
    pub idle_timeout: Duration,
}

impl Default for OpsLimits {
    fn default() -> Self {
        Self {
            max_connections: 256,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
        }
    }
}

/// The operations listener.
#[derive(Debug)]
pub struct OpsHttp {
    limits: OpsLimits,
    close_timeout: Duration,
    site: Arc<Site>,
}

/// What all connections answer from.
#[derive(Debug)]
struct Site {
    registry: Arc<RwLock<Registry>>,
    readiness: watch::Receiver<Readiness>,
    metrics: Metrics,
    expositions: Arc<Semaphore>,
}

impl OpsHttp {
    /// `registry` is what `/metrics` shows, and gets this listener's own metrics at once; components
    /// that start later may add theirs. A `readiness` whose sender is gone keeps its last value.
    pub fn new(
        limits: OpsLimits,
        registry: Arc<RwLock<Registry>>,
        readiness: watch::Receiver<Readiness>,
    ) -> Self {
        let metrics = Metrics::new(&mut registry.write());
        let expositions = Arc::new(Semaphore::new(MAX_EXPOSITIONS));
        let site = Arc::new(Site { registry, readiness, metrics, expositions });
        Self { limits, close_timeout: CLOSE_TIMEOUT, site }
    }

    /// Serves until `shutdown` is done; then takes no more connections, lets the open ones finish
    /// the request they are at, and returns within about a second. Dropping the future closes all.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let slots = Arc::new(Semaphore::new(self.limits.max_connections));
        let (close, closing) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let stream = tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        self.accept_failed(&error).await;
                        continue;
                    }
                },
            };
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                self.site.metrics.refused.inc();
                continue;
            };
            let connection =
                serve_connection(Arc::clone(&self.site), self.limits, stream, closing.clone());
            connections.spawn(async move {
                connection.await;
                drop(slot);
            });
        }
        drop(listener);
        drop(close);
        // What has not finished by then is cut when the set is dropped.
        let _ =
            timeout(self.close_timeout, async { while connections.join_next().await.is_some() {} })
                .await;
    }

    async fn accept_failed(&self, error: &io::Error) {
        // The peer's own doing; the next accept is as good as any.
        if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
        {
            return;
        }
        tracing::warn!(%error, "cannot accept http connections");
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Ends with the connection, when it has been idle too long, or once `closing` is over and the
/// request under way is answered.
async fn serve_connection(
    site: Arc<Site>,
    limits: OpsLimits,
    stream: TcpStream,
    mut closing: watch::Receiver<()>,
) {
    let _open = site.metrics.connection();
    // Answers are small and whole: waiting for more to send helps nobody. Failing is harmless.
    let _ = stream.set_nodelay(true);
    let last_request: Arc<Mutex<Option<Instant>>> = Arc::default();
    let service = service_fn({
        let (site, last_request) = (Arc::clone(&site), Arc::clone(&last_request));
        move |request: hyper::Request<Incoming>| {
            *last_request.lock() = Some(Instant::now());
            std::future::ready(Ok::<_, Infallible>(site.answer(&request)))
        }
    });
    let http = protocol();
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let mut deadline = Instant::now() + limits.header_timeout;
    let mut told_to_close = false;
    loop {
        tokio::select! {
            // An error here is the client's: a broken request is answered by hyper, a broken
            // connection has nobody to tell.
            _ = connection.as_mut() => return,
            () = sleep_until(deadline) => {
                let idle_since = *last_request.lock();
                match idle_since.map(|since| since + limits.idle_timeout) {
                    Some(later) if later > Instant::now() => deadline = later,
                    _ => return,
                }
            }
            _ = closing.changed(), if !told_to_close => {
                told_to_close = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn protocol() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // The idle limit covers it, and also what comes before HTTP is recognised.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_HTTP2_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES as u32);
    http
}
