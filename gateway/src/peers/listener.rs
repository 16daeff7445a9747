//! Where other nodes connect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Socket;
use super::session::{Ended, NodeSession, stopped};
use super::tls::PeerTls;
use crate::gateway::{Core, Gateway};

/// Connections of nodes at once: each node makes a few.
const MAX_CONNECTIONS: usize = 4096;
/// How long a node may take to show its certificate.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// How long to leave the socket alone when the process has no file descriptor or memory for it.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Answers other nodes, for one gateway.
pub struct PeerListener {
    core: Arc<Core>,
    tls: Option<PeerTls>,
}

impl PeerListener {
    /// Answers with what `gateway` serves, whose backend must be this process alone: what other nodes ask is not
    /// passed on. Without `tls` whoever can connect is believed to be a node.
    pub fn new(gateway: &Gateway, tls: Option<PeerTls>) -> Self {
        Self { core: gateway.core(), tls }
    }

    /// Serves nodes that connect to `listener` until `stop` holds true or its sender is gone.
    pub async fn listen(&self, listener: TcpListener, stop: watch::Receiver<bool>) {
        let mut sessions = JoinSet::new();
        let mut told = stop.clone();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut told) => break,
                Some(_) = sessions.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((_, address)) if sessions.len() >= MAX_CONNECTIONS => {
                        tracing::warn!(peer = %address, "too many connections of nodes");
                    }
                    Ok((stream, address)) => {
                        sessions.spawn(serve(
                            Arc::clone(&self.core),
                            self.tls.clone(),
                            stream,
                            address,
                            stop.clone(),
                        ));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a node's connection could not be accepted");
                        tokio::time::sleep(EXHAUSTED_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        while sessions.join_next().await.is_some() {}
    }
}

async fn serve(
    core: Arc<Core>,
    tls: Option<PeerTls>,
    stream: TcpStream,
    address: SocketAddr,
    stop: watch::Receiver<bool>,
) {
    // Fails only on a socket that is already dead, which the session will notice.
    let _ = stream.set_nodelay(true);
    let socket: Box<dyn Socket> = match tls {
        None => Box::new(stream),
        Some(tls) => match tokio::time::timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => {
                tracing::warn!(peer = %address, %error, "no TLS with what connected as a node");
                return;
            }
            Err(_) => {
                tracing::warn!(peer = %address, "what connected as a node did not finish its TLS handshake");
                return;
            }
        },
    };
    core.metrics.connections.inc();
    let counted = Counted(Arc::clone(&core));
    let ended = NodeSession::new(core, "nodes".into(), socket).run(stop).await;
    drop(counted);
    match ended {
        Ended::Peer | Ended::Lost(_) | Ended::Stopped => {
            tracing::debug!(peer = %address, reason = %ended, "a node's connection ended");
        }
        Ended::Frame(_) | Ended::Stranger(_) | Ended::Malformed => {
            tracing::warn!(peer = %address, reason = %ended, "a node's connection was closed");
        }
    }
}

/// Counts a connection out, however its task ends.
struct Counted(Arc<Core>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}
