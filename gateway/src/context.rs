//! What a handler knows about a request besides its body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use sluice_model::TenantId;
use sluice_wire::{ApiKey, Str};
use tokio::time::Instant;

use crate::backend::Caller;
use crate::fetch_session::FetchSession;
use crate::unsettled::Unsettled;

/// What the client of a connection says it is, in its ApiVersions request (KIP-511); empty before.
#[derive(Debug, Default)]
pub(crate) struct ClientSoftware(Mutex<(String, String)>);

impl ClientSoftware {
    pub(crate) fn set(&self, name: &str, version: &str) {
        *self.0.lock() = (name.to_owned(), version.to_owned());
    }

    /// Name and version.
    pub(crate) fn get(&self) -> (String, String) {
        self.0.lock().clone()
    }
}

/// One connection, for what has to end with it.
#[derive(Debug)]
pub(crate) struct Connected {
    /// No other has it in this gateway's life.
    pub(crate) number: u64,
    fetches_shares: AtomicBool,
    /// What its consumer reads.
    pub(crate) fetch_session: FetchSession,
    /// What its producers have under way.
    pub(crate) unsettled: Unsettled,
}

impl Connected {
    pub(crate) fn new(number: u64) -> Arc<Self> {
        Arc::new(Self {
            number,
            fetches_shares: AtomicBool::new(false),
            fetch_session: FetchSession::default(),
            unsettled: Unsettled::default(),
        })
    }

    /// A ShareFetch came: there may be a share session.
    pub(crate) fn note_share_fetch(&self) {
        self.fetches_shares.store(true, Ordering::Relaxed);
    }

    /// Whether a ShareFetch ever came.
    pub(crate) fn fetches_shares(&self) -> bool {
        self.fetches_shares.load(Ordering::Relaxed)
    }
}

/// One request's surroundings. The tenant in `caller` comes from the connection, never from the
/// request.
#[derive(Clone, Debug)]
pub struct Context {
    /// Who asks.
    pub caller: Caller,
    /// The peer's port.
    pub client_port: u16,
    /// What the client of the connection says it is.
    pub(crate) software: Arc<ClientSoftware>,
    /// The connection that it came on.
    pub(crate) connected: Arc<Connected>,
    /// The name of the listener that the connection came through.
    pub listener: Arc<str>,
    /// Which API is asked for.
    pub api: ApiKey,
    /// In which version.
    pub version: i16,
    /// In which version the client asked: another one where a node asks on its behalf in the newest.
    pub(crate) client_version: i16,
    /// Who sent it.
    pub(crate) origin: Origin,
    /// When the request was taken up.
    pub received: Instant,
    /// How many record bytes the answer may carry: what is left of the connection's and the
    /// gateway's bounds. Only fetches are given any.
    pub answer_bytes: usize,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client.
    Client,
    /// Another node, on behalf of a client.
    Node {
        /// Topics are named by their ids in the place of names.
        names_are_ids: bool,
    },
}

/// What a session knows of its peer, before any request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) tenant: TenantId,
    pub(crate) principal: Arc<str>,
    pub(crate) listener: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) software: Arc<ClientSoftware>,
    pub(crate) connected: Arc<Connected>,
}

impl Peer {
    /// The caller of one request.
    pub(crate) fn caller(&self, client_id: Option<Str>) -> Caller {
        Caller {
            tenant: self.tenant,
            principal: Arc::clone(&self.principal),
            client_id: client_id.unwrap_or(Str::from_static("")),
            client_host: self.address.ip().to_canonical(),
            connection: self.connected.number,
        }
    }
}
