//! Wires the components of one process together and runs them until it is told to end.

use std::sync::Arc;

use anyhow::Context;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use sluice_gateway::http::{OpsHttp, OpsLimits, Readiness};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::Config;

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let http = TcpListener::bind(config.http.listen)
        .await
        .with_context(|| format!("cannot listen on {} (http.listen)", config.http.listen))?;
    let limits = OpsLimits {
        max_connections: config.http.max_connections as usize,
        header_timeout: config.http.header_timeout,
        idle_timeout: config.http.idle_timeout,
    };
    let (_readiness, watched) = watch::channel(Readiness::Starting);
    let registry = Arc::new(RwLock::new(Registry::with_prefix("sluice")));
    let ops = OpsHttp::new(limits, registry, watched);
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    ops.serve(http, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    })
    .await;
    Ok(())
}
