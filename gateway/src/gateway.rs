//! The gateway as a whole: what handlers share, and how it is started.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::registry::Registry;
use sluice_catalog::Catalog;
use sluice_tenants::ListenerPolicy;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admission::Admission;
use crate::backend::Backend;
use crate::budget::Budget;
use crate::config::GatewayConfig;
use crate::fetch_session::FetchSessions;
use crate::listener::{self, Clients};
use crate::metrics::Metrics;
use crate::peers::Peers;
use crate::telemetry::Telemetry;

/// A handle on the gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Core>);

/// What every session and handler of a gateway shares. It holds no request's state.
pub(crate) struct Core {
    pub(crate) config: GatewayConfig,
    pub(crate) catalog: Catalog,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) metrics: Metrics,
    pub(crate) telemetry: Telemetry,
    pub(crate) admission: Admission,
    pub(crate) request_budget: Budget,
    pub(crate) answer_budget: Budget,
    pub(crate) fetch_sessions: FetchSessions,
    /// How many connections there have been, above a number of this process's own: no two nodes of a cluster give the
    /// same number to connections.
    pub(crate) connections: AtomicU64,
    /// The other nodes, if requests may be passed on to them.
    pub(crate) peers: Option<Arc<Peers>>,
}

impl Gateway {
    /// A gateway over a catalog and a backend; its metrics go into `registry`. It does nothing until
    /// [`Self::serve`].
    pub fn new(
        config: GatewayConfig,
        catalog: Catalog,
        backend: Arc<dyn Backend>,
        registry: &mut Registry,
    ) -> Self {
        Self::among(config, catalog, backend, None, registry)
    }

    /// As [`Self::new`], for a node of a cluster: what the coordinators are asked goes to the node that has them.
    pub fn among(
        config: GatewayConfig,
        catalog: Catalog,
        backend: Arc<dyn Backend>,
        peers: Option<Arc<Peers>>,
        registry: &mut Registry,
    ) -> Self {
        let [a, b, c, d, ..] = catalog.random_16();
        let first_connection = u64::from(u32::from_be_bytes([a, b, c, d])) << 32;
        let metrics = Metrics::new(registry);
        let telemetry = Telemetry::new(registry);
        let limits = &config.limits;
        Self(Arc::new(Core {
            admission: Admission::new(limits),
            request_budget: Budget::new(limits.request_budget_bytes, metrics.request_bytes.clone()),
            answer_budget: Budget::new(limits.answer_budget_bytes, metrics.answer_bytes.clone()),
            fetch_sessions: FetchSessions::new(Budget::new(
                limits.max_fetch_session_partitions,
                metrics.fetch_session_partitions.clone(),
            )),
            config,
            catalog,
            backend,
            metrics,
            telemetry,
            connections: AtomicU64::new(first_connection),
            peers,
        }))
    }

    /// Serves Kafka clients that connect to `listener`, each as whom `policy` takes it for, until
    /// `shutdown` holds `true` or its sender is gone. Then it stops accepting, lets the requests in
    /// flight be answered, and returns when all connections are closed, at the latest after the drain
    /// time.
    ///
    /// A gateway may serve several listeners, each with its policy; the bounds on connections and
    /// bytes are over all of them.
    pub async fn listen(
        &self,
        name: &str,
        listener: TcpListener,
        policy: ListenerPolicy,
        shutdown: watch::Receiver<bool>,
    ) {
        let clients = Clients { name: name.into(), policy };
        listener::serve(Arc::clone(&self.0), clients, listener, shutdown).await;
    }

    pub(crate) fn core(&self) -> Arc<Core> {
        Arc::clone(&self.0)
    }

    /// A listening socket with the backlog that many clients connecting at once need.
    ///
    /// # Errors
    /// What the operating system says to the address.
    pub fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
        listener::bind(address)
    }
}
