//! Accepting connections: bounds, sessions, and the drain at the end.
//!
//! One task owns the listening socket and the set of its sessions. Nothing that a peer or the
//! operating system does ends it: running out of file descriptors is waited out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_tenants::{Connection, ListenerPolicy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use crate::admission::Refusal;
use crate::context::{Connected, Peer};
use crate::drain::Drain;
use crate::gateway::Core;
use crate::session::{Closed, Session};

/// Connections that the kernel completes before they are accepted.
const BACKLOG: u32 = 1024;
/// How long to leave the socket alone when the process has no file descriptor or memory for it.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// How often a log line about refused or failed accepts is written at most.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Binds with address reuse and a deep backlog.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Who the clients of a listener are taken for.
pub(crate) struct Clients {
    /// The listener's name.
    pub(crate) name: Arc<str>,
    pub(crate) policy: ListenerPolicy,
}

/// See `Gateway::serve`.
pub(crate) async fn serve(
    core: Arc<Core>,
    clients: Clients,
    listener: TcpListener,
    mut shutdown: watch::Receiver<bool>,
) {
    let mut accepting = Accepting {
        core,
        clients,
        drain: Drain::default(),
        sessions: JoinSet::new(),
        logged: None,
    };
    // A sender that is gone can no longer ask for a shutdown: the same as asking.
    let stop = async move {
        let _ = shutdown.wait_for(|stop| *stop).await;
    };
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = accepting.sessions.join_next() => accepting.ended(ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => accepting.accept(stream, address),
                Err(e) => {
                    // A peer that gave up before it was accepted is no reason to wait.
                    if !matches!(
                        e.kind(),
                        io::ErrorKind::ConnectionAborted
                            | io::ErrorKind::ConnectionReset
                            | io::ErrorKind::Interrupted
                    ) {
                        if accepting.may_log() {
                            tracing::warn!(listener = %accepting.clients.name, error = %e, "accept failed");
                        }
                        sleep(EXHAUSTED_PAUSE).await;
                    }
                }
            },
        }
    }
    drop(listener);
    accepting.finish().await;
}

struct Accepting {
    core: Arc<Core>,
    clients: Clients,
    drain: Drain,
    sessions: JoinSet<()>,
    logged: Option<Instant>,
}

impl Accepting {
    fn accept(&mut self, stream: TcpStream, address: SocketAddr) {
        let admitted = self.core.admission.admit(address.ip());
        let connection = Connection { peer: address };
        let identity = self.clients.policy.identify(&connection).map_err(Refusal::from);
        let (admitted, identity) = match admitted.and_then(|admitted| Ok((admitted, identity?))) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                self.core.metrics.refused(refusal);
                if self.may_log() {
                    tracing::warn!(
                        listener = %self.clients.name,
                        peer = %address,
                        reason = %refusal,
                        "connection refused"
                    );
                }
                return;
            }
        };
        // Fails only on a socket that is already dead, which the session will notice.
        let _ = stream.set_nodelay(true);
        let peer = Peer {
            tenant: identity.tenant,
            principal: identity.principal.into(),
            listener: Arc::clone(&self.clients.name),
            address,
            software: Arc::default(),
            connected: Connected::new(self.core.connections.fetch_add(1, Ordering::Relaxed)),
        };
        let (tenant, connected) = (peer.tenant, Arc::clone(&peer.connected));
        let session = Session::new(Arc::clone(&self.core), peer, stream, self.drain.clone());
        self.core.metrics.connections.inc();
        let core = Arc::clone(&self.core);
        let open = Open { core: Arc::clone(&self.core), closed: Closed::Panicked, address };
        self.sessions.spawn(async move {
            let _admitted = admitted;
            let mut open = open;
            open.closed = session.await;
            // What a handler panicked over is left to time: locks run out, idle sessions make room.
            if connected.fetches_shares() {
                core.backend.share_connection_lost(tenant, connected.number).await;
            }
        });
    }

    fn ended(&self, ended: Result<(), JoinError>) {
        if let Err(e) = ended
            && e.is_panic()
        {
            tracing::error!(listener = %self.clients.name, "a handler panicked; its connection was closed");
        }
    }

    /// Lets sessions finish, for the drain time at most.
    async fn finish(mut self) {
        self.drain.begin();
        let all = async {
            while let Some(ended) = self.sessions.join_next().await {
                if ended.is_err_and(|e| e.is_panic()) {
                    tracing::error!("a handler panicked; its connection was closed");
                }
            }
        };
        if timeout(self.core.config.limits.drain_timeout, all).await.is_err() {
            tracing::warn!(
                listener = %self.clients.name,
                connections = self.sessions.len(),
                "connections cut: requests were still unanswered"
            );
            self.sessions.shutdown().await;
        }
    }

    fn may_log(&mut self) -> bool {
        let now = Instant::now();
        let may = self.logged.is_none_or(|logged| now - logged >= LOG_INTERVAL);
        if may {
            self.logged = Some(now);
        }
        may
    }
}

/// Counts a connection out, however its task ends.
struct Open {
    core: Arc<Core>,
    closed: Closed,
    address: SocketAddr,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.core.metrics.connections.dec();
        if matches!(self.closed, Closed::Panicked) && !std::thread::panicking() {
            self.closed = Closed::Cut;
        }
        self.core.metrics.closed(&self.closed);
        if self.closed.notable() {
            tracing::info!(peer = %self.address, reason = %self.closed, "connection closed");
        } else {
            tracing::debug!(peer = %self.address, reason = %self.closed, "connection closed");
        }
    }
}
