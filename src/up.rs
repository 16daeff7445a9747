//! Wires the components of one process together and runs them until it is told to end.
//!
//! Order of start: listeners are bound first, so that an address in use is told at once; then catalog,
//! volumes, gateway. Order of end: readiness is withdrawn, the gateway drains, volumes are handed over or close, other
//! nodes are answered no more, the catalog closes.

mod journal;
mod node;
mod options;
mod shutdown;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use sluice_catalog::PeerAddress;
use sluice_gateway::Gateway;
use sluice_gateway::http::{OpsHttp, Readiness};
use sluice_gateway::peers::PeerListener;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use self::node::Node;
use self::options::{advertised, gateway_config, listener_policy, ops_limits};
use self::shutdown::Shutdown;
use crate::config::{Config, HostPort};

/// The part of the time for draining, and the longest, in which clients are sent to other nodes before their connections
/// are closed: each meets its answer with the next request.
const SENDING_PART: u32 = 4;
const LONGEST_SENDING: Duration = Duration::from_secs(1);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let begun = Instant::now();
    let shutdown = Shutdown::listen()?;
    let policy = listener_policy(&config)?;
    let kafka =
        config.roles.0.gateway.then(|| bind("kafka.listen", config.kafka.listen)).transpose()?;
    let nodes = config.cluster.listen.map(|listen| bind("cluster.listen", listen)).transpose()?;
    let http = bind("http.listen", config.http.listen)?;
    let bound = Bound::of(&kafka, &nodes, &http)?;

    let registry = Arc::new(RwLock::new(Registry::with_prefix("sluice")));
    let (readiness, watched) = watch::channel(Readiness::Starting);
    let ops = OpsHttp::new(ops_limits(&config), Arc::clone(&registry), watched);
    let ops_end = shutdown.ended();
    let ops = tokio::spawn(ops.serve(http, ops_end));

    let kafka_advertised =
        bound.kafka.map(|bound| advertised(config.kafka.advertised.as_ref(), bound));
    let peer = bound.nodes.map(|bound| {
        let HostPort { host, port } = advertised(config.cluster.advertised.as_ref(), bound);
        PeerAddress { host, port }
    });
    let gateway_config = gateway_config(&config, kafka_advertised.as_ref());
    let started = Node::start(&config, kafka_advertised.as_ref(), peer, &registry, &shutdown);
    let Some(node) = started.await? else {
        tracing::info!("told to end before the start was complete");
        return Ok(());
    };
    // Other nodes are answered until all that is here is gone.
    let mut answering = None;
    if let Some(nodes) = nodes {
        // Its metrics are counted apart from those of clients.
        let mut registry = registry.write();
        let registry = registry.sub_registry_with_prefix("node");
        let backend = Arc::clone(node.backend()) as _;
        let gateway =
            Gateway::new(gateway_config.clone(), node.catalog().clone(), backend, registry);
        let listener = PeerListener::new(&gateway, node.tls().cloned());
        let ended = shutdown.ended_flag();
        answering = Some(tokio::spawn(async move { listener.listen(nodes, ended).await }));
    }
    let gateway = Gateway::among(
        gateway_config,
        node.catalog().clone(),
        node.routing(),
        node.peers().cloned(),
        &mut registry.write(),
    );
    readiness.send_replace(Readiness::Ready);
    announce(&bound, begun)?;
    tokio::spawn(withdraw(shutdown.watch(), readiness.clone()));
    let mut told = shutdown.watch();
    let closing = send_away(&shutdown, node.send_away(), config.shutdown.drain);
    let serving = async {
        match kafka {
            Some(kafka) => gateway.listen("kafka", kafka, policy, closing).await,
            // Nobody to tell is as good as being told.
            None => drop(told.wait_for(|told| *told).await),
        }
    };
    let lost = tokio::select! {
        () = serving => None,
        lost = node.lost() => Some(lost),
    };
    readiness.send_replace(Readiness::Draining);
    drop(gateway);
    node.end(lost.is_none(), || shutdown.left(config.shutdown.drain)).await;
    shutdown.finish();
    if let Some(answering) = answering {
        let _ = tokio::time::timeout(Duration::from_secs(1), answering).await;
    }
    // It holds nothing that could be lost; a second is what its connections get.
    let _ = tokio::time::timeout(Duration::from_secs(1), ops).await;
    if let Some(lost) = lost {
        // A supervisor starts the process anew, and the new one takes over what it may.
        anyhow::bail!(lost);
    }
    tracing::info!("ended");
    Ok(())
}

fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    Gateway::bind(address).with_context(|| format!("cannot listen on {address} ({key})"))
}

/// Where the listeners are.
struct Bound {
    kafka: Option<SocketAddr>,
    nodes: Option<SocketAddr>,
    http: SocketAddr,
}

impl Bound {
    fn of(
        kafka: &Option<TcpListener>,
        nodes: &Option<TcpListener>,
        http: &TcpListener,
    ) -> anyhow::Result<Self> {
        let address =
            |listener: &TcpListener| listener.local_addr().context("a listener has no address");
        Ok(Self {
            kafka: kafka.as_ref().map(address).transpose()?,
            nodes: nodes.as_ref().map(address).transpose()?,
            http: address(http)?,
        })
    }
}

/// Says on stdout that clients and nodes may come; the only thing that is ever written there.
fn announce(bound: &Bound, begun: Instant) -> anyhow::Result<()> {
    let mut line = String::from("sluice is ready:");
    if let Some(kafka) = bound.kafka {
        line.push_str(&format!(" bootstrap.servers={kafka}"));
    }
    if let Some(nodes) = bound.nodes {
        line.push_str(&format!(" nodes={nodes}"));
    }
    line.push_str(&format!(" http=http://{}", bound.http));
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write the ready line to stdout")?;
    let took_ms = begun.elapsed().as_millis();
    tracing::info!(kafka = ?bound.kafka, nodes = ?bound.nodes, http = %bound.http, took_ms, "ready");
    Ok(())
}

/// Holds true when connections of clients are to be closed: when the process is told to end, and clients had some time to
/// go where `sending` sends them, if there is another node for them.
fn send_away(
    shutdown: &Shutdown,
    sending: impl Future<Output = bool> + Send + 'static,
    drain: Duration,
) -> watch::Receiver<bool> {
    let (close, closing) = watch::channel(false);
    let mut told = shutdown.watch();
    tokio::spawn(async move {
        // Nobody to tell is as good as being told.
        drop(told.wait_for(|told| *told).await);
        if sending.await {
            tokio::time::sleep((drain / SENDING_PART).min(LONGEST_SENDING)).await;
        }
        close.send_replace(true);
    });
    closing
}

async fn withdraw(mut drain: watch::Receiver<bool>, readiness: watch::Sender<Readiness>) {
    if drain.wait_for(|drain| *drain).await.is_ok() {
        readiness.send_replace(Readiness::Draining);
    }
}
