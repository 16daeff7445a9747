//! The answering side of a connection between nodes. One task owns the connection: its socket, the requests that run
//! and the answers that wait to be written.
//!
//! Always: requests begin in the order in which they came; what is read and what is answered is paid for from the
//! gateway's budgets before memory is taken; when the connection ends, so do the share sessions of the clients that
//! came through it.

use std::collections::{HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::BufMut;
use futures_util::StreamExt;
use futures_util::future::{AbortHandle, Abortable, Aborted};
use futures_util::stream::FuturesUnordered;
use sluice_model::TenantId;
use sluice_wire::header::NodeRequestHeader;
use sluice_wire::messages::asker::Asker;
use sluice_wire::{ApiKey, Chain, Decoder};
use tokio::io::{AsyncReadExt, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::Instant;

use super::link::Ends;
use super::{CONTROL_KEY, Control, Sending, Socket};
use crate::budget::{Budget, Lease, Ticket};
use crate::context::{Connected, Peer};
use crate::dispatch::{self, Handler, Reply};
use crate::frame::{CHUNK_BYTES, Frame, FrameError, Inbox};
use crate::gateway::Core;
use crate::line::Order;
use crate::outbox::Outbox;

/// Requests of one connection that run at once, most of them fetches that wait for records, one for each consumer of the
/// other node; what comes then waits in the socket.
const MAX_RUNNING: usize = 65_536;

/// A client's largest frame may come longer: with ids for names, and who asks.
fn max_frame_bytes(core: &Core) -> u32 {
    core.config.limits.max_frame_bytes.saturating_mul(2).saturating_add(1 << 20)
}

/// Why a connection between nodes ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("closed by the other node")]
    Peer,
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("its first request is no greeting for this node of this cluster: {0}")]
    Stranger(String),
    #[error("it sent what is no request of a node")]
    Malformed,
    #[error("shutting down")]
    Stopped,
}

/// A request that runs.
struct Running {
    id: i32,
    api: ApiKey,
    started: Instant,
    handler: Abortable<Handler>,
    _request: Lease,
}

/// What it came to; none if it was forgotten.
type Done = (i32, ApiKey, Instant, Option<Reply>);

impl Future for Running {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> Poll<Done> {
        let reply = match Pin::new(&mut self.handler).poll(cx) {
            Poll::Ready(Ok(reply)) => Some(reply),
            Poll::Ready(Err(Aborted)) => None,
            Poll::Pending => return Poll::Pending,
        };
        Poll::Ready((self.id, self.api, self.started, reply))
    }
}

pub(super) struct NodeSession {
    core: Arc<Core>,
    listener: Arc<str>,
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    inbox: Inbox,
    scratch: Vec<u8>,
    ticket: Ticket,
    running: FuturesUnordered<Running>,
    /// Of requests that wait for something to come.
    waits: HashMap<i32, AbortHandle>,
    outbox: Outbox,
    sending: Sending,
    greeted: bool,
    /// Connections of clients on which a ShareFetch came.
    fetch_shares: HashSet<(TenantId, u64)>,
}

/// What was read.
enum Read {
    /// So many bytes, into the scratch buffer.
    Scratch(usize, Lease),
    /// Into the frame that they belong to.
    Direct(usize),
}

impl NodeSession {
    pub(super) fn new(core: Arc<Core>, listener: Arc<str>, socket: Box<dyn Socket>) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        Self {
            inbox: Inbox::new(core.request_budget.nothing(), max_frame_bytes(&core)),
            outbox: Outbox::new(core.answer_budget.nothing()),
            listener,
            reader,
            writer,
            scratch: vec![0; CHUNK_BYTES],
            ticket: Ticket::default(),
            running: FuturesUnordered::new(),
            waits: HashMap::new(),
            sending: Sending::default(),
            greeted: false,
            fetch_shares: HashSet::new(),
            core,
        }
    }

    /// Serves the connection until it ends, or `stop` holds true.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Ended {
        let ended = loop {
            match self.turn(&mut stop).await {
                Ok(()) => {}
                Err(ended) => break ended,
            }
        };
        for (tenant, connection) in std::mem::take(&mut self.fetch_shares) {
            self.core.backend.share_connection_lost(tenant, connection).await;
        }
        ended
    }

    async fn turn(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Ended> {
        let limits = &self.core.config.limits;
        let is_sending = self.sending.is_due(&self.outbox);
        // By what is there to be written, not by what fetches may come to: most of them wait.
        let may_read =
            self.running.len() < MAX_RUNNING && self.outbox.bytes() < limits.max_answer_bytes;
        tokio::select! {
            biased;
            () = stopped(stop) => Err(Ended::Stopped),
            Some(done) = self.running.next(), if !self.running.is_empty() => {
                self.done(done);
                Ok(())
            }
            sent = self.sending.send(&mut self.outbox, &mut self.writer), if is_sending => {
                self.core.metrics.bytes_out.inc_by(sent? as u64);
                Ok(())
            }
            read = read(
                &mut self.reader,
                &mut self.inbox,
                &mut self.scratch,
                &self.core.request_budget,
                &mut self.ticket,
            ), if may_read => self.came(read?).await,
        }
    }

    async fn came(&mut self, read: Read) -> Result<(), Ended> {
        let scratch = std::mem::take(&mut self.scratch);
        let (count, mut input) = match read {
            Read::Scratch(count, lease) => {
                self.inbox.paid(lease);
                (count, &scratch[..count])
            }
            Read::Direct(count) => (count, &[][..]),
        };
        if count == 0 {
            return Err(Ended::Peer);
        }
        self.core.metrics.bytes_in.inc_by(count as u64);
        while let Some(frame) = self.inbox.next(&mut input)? {
            self.start(frame).await?;
        }
        self.scratch = scratch;
        Ok(())
    }

    /// Begins a request: it is polled once before the next one is looked at.
    async fn start(&mut self, frame: Frame) -> Result<(), Ended> {
        let Frame { bytes, lease } = frame;
        let mut decoder = Decoder::new(bytes);
        let header = NodeRequestHeader::decode(&mut decoder).map_err(|_| Ended::Malformed)?;
        let id = header.request.correlation_id;
        if !self.greeted {
            let greeting = header.request.client_id.as_ref().map_or("", |id| id.as_str());
            let cluster = self.core.catalog.cluster_id();
            if header.request.request_api_key != ApiKey::ApiVersions.code()
                || !Ends::is_for(greeting, cluster, self.core.config.node_id)
            {
                return Err(Ended::Stranger(greeting.chars().take(100).collect()));
            }
            self.greeted = true;
        }
        if header.request.request_api_key == CONTROL_KEY {
            self.control(&header).await;
            return Ok(());
        }
        let asker = header.asker.unwrap_or_default();
        let peer = self.peer(&asker);
        if header.request.request_api_key == ApiKey::ShareFetch.code() {
            self.fetch_shares.insert((peer.tenant, peer.connected.number));
        }
        // The other node asks for what it has room for itself.
        let room = self.core.config.limits.max_answer_bytes;
        let started =
            dispatch::start_for_node(&self.core, &peer, header.request, &asker, decoder, room);
        let started = match started {
            Ok(started) => started,
            Err(refused) => {
                tracing::warn!(%refused, "a node's request was refused");
                self.refuse(id);
                return Ok(());
            }
        };
        let (handler, abort) = futures_util::future::abortable(started.handler);
        if started.order == Order::Wait {
            self.waits.insert(id, abort);
        }
        let mut running =
            Running { id, api: started.api, started: Instant::now(), handler, _request: lease };
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut running).poll(cx))).await {
            Poll::Ready(done) => self.done(done),
            Poll::Pending => self.running.push(running),
        }
        Ok(())
    }

    /// Who asks, as far as handlers want to know.
    fn peer(&self, asker: &Asker) -> Peer {
        let host = IpAddr::V6(Ipv6Addr::from(asker.client_host.0)).to_canonical();
        Peer {
            tenant: TenantId(asker.tenant.cast_unsigned()),
            principal: asker.principal.as_str().into(),
            listener: Arc::clone(&self.listener),
            address: SocketAddr::new(host, asker.client_port),
            software: Arc::default(),
            connected: Connected::new(asker.connection.cast_unsigned()),
        }
    }

    async fn control(&mut self, header: &NodeRequestHeader) {
        match Control::of(header.request.request_api_version) {
            Some(Control::Forget) => {
                if let Some(wait) = self.waits.get(&header.request.correlation_id) {
                    wait.abort();
                }
            }
            Some(Control::ConnectionLost) => {
                let Some(asker) = &header.asker else { return };
                let peer = self.peer(asker);
                let lost = (peer.tenant, peer.connected.number);
                if self.fetch_shares.remove(&lost) {
                    self.core.backend.share_connection_lost(lost.0, lost.1).await;
                }
            }
            None => {}
        }
    }

    fn done(&mut self, done: Done) {
        let (id, api, started, reply) = done;
        self.waits.remove(&id);
        let Some(reply) = reply else { return };
        self.core.metrics.answered(api, reply.error, started.elapsed());
        match reply.outcome {
            Ok(Some(answer)) => self.outbox.push(answer, reply.lease),
            Ok(None) => {}
            Err(refused) => {
                tracing::warn!(%refused, "a node's request was refused");
                self.refuse(id);
            }
        }
    }

    /// An answer without a body.
    fn refuse(&mut self, id: i32) {
        let mut answer = Vec::with_capacity(8);
        answer.put_i32(4);
        answer.put_i32(id);
        self.outbox
            .push(Chain::from(bytes::Bytes::from(answer)), self.core.answer_budget.nothing());
    }
}

/// A sender that is gone means the end, too.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Reads once, when there is room for it.
async fn read(
    reader: &mut ReadHalf<Box<dyn Socket>>,
    inbox: &mut Inbox,
    scratch: &mut [u8],
    budget: &Budget,
    ticket: &mut Ticket,
) -> io::Result<Read> {
    let direct = inbox.direct_bytes();
    // Big frames leave a quarter to small requests, as clients' do.
    let (want, keep) = if direct > 0 { (direct, budget.size() / 4) } else { (CHUNK_BYTES, 0) };
    let mut lease = poll_fn(|cx| match budget.poll_take(cx, ticket, want, keep) {
        Some(lease) => Poll::Ready(lease),
        None => Poll::Pending,
    })
    .await;
    if direct > 0 {
        let mut room = inbox.buffer(want).limit(want);
        let count = reader.read_buf(&mut room).await?;
        lease.shrink_to(count);
        inbox.paid(lease);
        return Ok(Read::Direct(count));
    }
    let count = reader.read(scratch).await?;
    lease.shrink_to(count);
    Ok(Read::Scratch(count, lease))
}
