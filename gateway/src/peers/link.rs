//! One connection to another node: many requests at once, answers in any order.
//!
//! A link connects when it is asked something and has no connection. Whoever asks hands the request over at once, in
//! the order of the calls, and waits for the answer as long as he likes; when he goes away the other node is told to
//! forget it. One task owns the socket while there is one.
//!
//! Always: each request gets one answer or one error; a connection on which nothing was heard for [`DEAD_AFTER`] though
//! something is waited for is given up.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use sluice_catalog::PeerAddress;
use sluice_model::NodeId;
use sluice_wire::header::{NodeRequestHeader, RequestHeader, ResponseHeader};
use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::api_versions_response::ApiVersionsResponse;
use sluice_wire::messages::asker::Asker;
use sluice_wire::{ApiKey, Chain, Decoder, EncodeError, Encoder, Message, Str};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::metrics::PeerMetrics;
use super::tls::PeerTls;
use super::{CONTROL_KEY, Control, Sending, Socket};
use crate::budget::Budget;
use crate::outbox::Outbox;

/// How long connecting may take, with TLS and the first answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// How long a link leaves a node alone that could not be reached.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How often a link with requests under way looks whether it hears anything.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// When nothing was heard for so long the other node is asked for a sign of life; without one for as long again
/// the link counts as stalled.
const PING_AFTER: Duration = Duration::from_millis(500);
/// When nothing was heard for so long the connection is given up.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// The longest answer.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// What an answer without a body has.
const CORRELATION_BYTES: usize = 4;
/// How much is read at once.
const READ_BYTES: usize = 64 << 10;
/// The correlation id of the first request and of those for a sign of life.
const OWN_ID: i32 = 0;
/// The version of the first request.
const HELLO_VERSION: i16 = 3;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LinkError {
    /// Nothing was sent.
    #[error("the node cannot be reached")]
    Unreachable,
    /// It may have been done or not.
    #[error("the connection ended before the answer")]
    Lost,
    /// The other node is of another version of Sluice.
    #[error("the node does not serve this request in this version")]
    Unsupported,
    /// The other node would have closed a client's connection.
    #[error("the node refused the request")]
    Refused,
    /// A defect of ours.
    #[error("the request cannot be encoded")]
    Unencodable,
}

/// Whom a link connects to, and who connects.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) address: PeerAddress,
    pub(super) cluster: Arc<str>,
}

impl Ends {
    /// What the first request says as its client id, so that nobody speaks with the wrong node.
    fn greeting(&self) -> Str {
        Str::from(format!("sluice-node/{}/{}/{}", self.cluster, self.from.0, self.to.0))
    }

    /// Whether a greeting is for `node` of `cluster`.
    pub(super) fn is_for(greeting: &str, cluster: &str, node: NodeId) -> bool {
        let mut parts = greeting.split('/');
        parts.next() == Some("sluice-node")
            && parts.next() == Some(cluster)
            && parts.next().is_some_and(|from| from.parse::<i32>().is_ok())
            && parts.next().and_then(|to| to.parse::<i32>().ok()) == Some(node.0)
            && parts.next().is_none()
    }
}

/// A link. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    ends: Ends,
    tls: Option<PeerTls>,
    metrics: PeerMetrics,
    state: Mutex<State>,
    wake: Notify,
    next: AtomicI32,
    stalled: AtomicBool,
}

struct State {
    phase: Phase,
    queue: VecDeque<Queued>,
    /// Frames that have no answer.
    controls: Vec<Chain>,
    /// Requests that nobody waits for any more.
    forgotten: Vec<i32>,
    /// What the node serves, once it was said.
    served: Option<Served>,
    /// Whether the log has it that the node cannot be reached.
    was_told: bool,
}

type Served = Arc<HashMap<i16, RangeInclusive<i16>>>;

enum Phase {
    /// There is no connection, and none may be made before then.
    Down { until: Instant },
    /// A task connects or is connected.
    Up,
    /// For ever.
    Closed,
}

struct Queued {
    id: i32,
    api: ApiKey,
    version: i16,
    frame: Chain,
    answer: oneshot::Sender<Result<Bytes, LinkError>>,
}

/// What is asked: the request around its body.
pub(super) struct Question {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) client_id: Str,
    pub(super) asker: Asker,
}

/// An answer that is waited for. When it is dropped before, the other node forgets the request.
pub(super) struct Asked {
    shared: Arc<Shared>,
    id: i32,
    answer: oneshot::Receiver<Result<Bytes, LinkError>>,
    is_done: bool,
}

impl Asked {
    /// The answer, with our correlation id before it.
    pub(super) async fn answer(mut self) -> Result<Bytes, LinkError> {
        let answer = (&mut self.answer).await.unwrap_or(Err(LinkError::Lost));
        self.is_done = true;
        match answer {
            Ok(answer) if answer.len() <= CORRELATION_BYTES => Err(LinkError::Refused),
            other => other,
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_done {
            self.shared.state.lock().forgotten.push(self.id);
            self.shared.wake.notify_one();
        }
    }
}

impl Link {
    pub(super) fn new(ends: Ends, tls: Option<PeerTls>, metrics: PeerMetrics) -> Self {
        Self(Arc::new(Shared {
            ends,
            tls,
            metrics,
            state: Mutex::new(State {
                phase: Phase::Down { until: Instant::now() },
                queue: VecDeque::new(),
                controls: Vec::new(),
                forgotten: Vec::new(),
                served: None,
                was_told: false,
            }),
            wake: Notify::new(),
            next: AtomicI32::new(OWN_ID + 1),
            stalled: AtomicBool::new(false),
        }))
    }

    /// Whether the node has not given a sign of life though it was asked for one.
    pub(super) fn is_stalled(&self) -> bool {
        self.0.stalled.load(Ordering::Relaxed)
    }

    /// The newest version of an API that both sides know, if `ours` is the newest here; before the node has told it
    /// counts as being as new as we are.
    pub(super) fn version(&self, api: ApiKey, ours: i16) -> i16 {
        let state = self.0.state.lock();
        let theirs = state.served.as_ref().and_then(|served| served.get(&api.code()));
        theirs.map_or(ours, |theirs| ours.min(*theirs.end()))
    }

    /// Hands a request over: those of earlier calls are sent before it. Errors that are known at once are given here.
    pub(super) fn ask(
        &self,
        question: Question,
        body: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>,
    ) -> Result<Asked, LinkError> {
        let Question { api, version, client_id, asker } = question;
        let id = self.next_id();
        let frame = encode(api.code(), version, id, Some(client_id), Some(asker), body)
            .map_err(|_| LinkError::Unencodable)?;
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.0.state.lock();
            match state.phase {
                Phase::Closed => return Err(LinkError::Unreachable),
                Phase::Down { until } if until > Instant::now() => {
                    return Err(LinkError::Unreachable);
                }
                Phase::Down { .. } => {
                    state.phase = Phase::Up;
                    tokio::spawn(run(Arc::clone(&self.0)));
                }
                Phase::Up => {}
            }
            state.queue.push_back(Queued { id, api, version, frame, answer: sender });
        }
        self.0.wake.notify_one();
        Ok(Asked { shared: Arc::clone(&self.0), id, answer, is_done: false })
    }

    /// Says something that has no answer, if there is a connection.
    pub(super) fn tell(&self, control: Control, asker: Asker) {
        let frame = encode(CONTROL_KEY, control.code(), OWN_ID, None, Some(asker), |_| Ok(()));
        let Ok(frame) = frame else { return };
        let mut state = self.0.state.lock();
        if matches!(state.phase, Phase::Up) {
            state.controls.push(frame);
            self.0.wake.notify_one();
        }
    }

    /// Ends the connection for ever; what waits gets its error.
    pub(super) fn close(&self) {
        self.0.state.lock().phase = Phase::Closed;
        self.0.wake.notify_one();
    }

    fn next_id(&self) -> i32 {
        loop {
            let id = self.0.next.fetch_add(1, Ordering::Relaxed);
            if id > OWN_ID {
                return id;
            }
            // All numbers were used: from the start again.
            let _ = self.0.next.compare_exchange(
                id.wrapping_add(1),
                OWN_ID + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }
}

fn encode(
    key: i16,
    version: i16,
    id: i32,
    client_id: Option<Str>,
    asker: Option<Asker>,
    body: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>,
) -> Result<Chain, EncodeError> {
    let mut encoder = Encoder::framed();
    let request = RequestHeader {
        request_api_key: key,
        request_api_version: version,
        correlation_id: id,
        client_id,
    };
    NodeRequestHeader { request, asker }.encode(&mut encoder)?;
    body(&mut encoder)?;
    encoder.into_frame()
}

/// Connects and serves the connection until it ends; then all that waits gets its error.
async fn run(shared: Arc<Shared>) {
    let connected = tokio::time::timeout(CONNECT_WITHIN, connect(&shared)).await;
    let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    let mut waiting = HashMap::new();
    let was_connected = connected.is_ok();
    let why = match connected {
        Ok((socket, served, buffer)) => {
            tracing::debug!(node = shared.ends.to.0, "connected to a node");
            shared.metrics.connected.inc();
            shared.metrics.links.inc();
            {
                let mut state = shared.state.lock();
                state.served = Some(Arc::clone(&served));
                state.was_told = false;
            }
            let why = Connection::new(&shared, socket, served, buffer, &mut waiting).run().await;
            shared.metrics.links.dec();
            why
        }
        Err(error) => error,
    };
    let (queue, closed, is_news) = {
        let mut state = shared.state.lock();
        let closed = matches!(state.phase, Phase::Closed);
        let is_news = was_connected || !std::mem::replace(&mut state.was_told, true);
        if !closed {
            state.phase = Phase::Down { until: Instant::now() + RETRY_AFTER };
        }
        state.controls.clear();
        state.forgotten.clear();
        (std::mem::take(&mut state.queue), closed, is_news)
    };
    shared.stalled.store(false, Ordering::Relaxed);
    if !closed {
        // Once while it lasts: it is tried again with each request.
        if is_news {
            let PeerAddress { host, port } = &shared.ends.address;
            tracing::warn!(
                node = shared.ends.to.0, %host, port, error = %why, was_connected, "no connection to a node"
            );
        }
        shared.metrics.failed.inc();
    }
    shared.metrics.unanswered.inc_by((queue.len() + waiting.len()) as u64);
    shared.metrics.waiting.dec_by(waiting.len().cast_signed() as i64);
    for queued in queue {
        let _ = queued.answer.send(Err(LinkError::Unreachable));
    }
    for (_, answer) in waiting {
        let _: Result<(), _> = Sender::send(answer, Err(LinkError::Lost));
    }
}

type Sender = oneshot::Sender<Result<Bytes, LinkError>>;

/// A socket that was greeted, what its node serves, and what came behind that.
type Connected = (Box<dyn Socket>, Served, BytesMut);

async fn connect(shared: &Shared) -> std::io::Result<Connected> {
    let PeerAddress { host, port } = &shared.ends.address;
    let stream = TcpStream::connect((host.as_str(), *port)).await?;
    stream.set_nodelay(true)?;
    let mut socket: Box<dyn Socket> = match &shared.tls {
        Some(tls) => tls.connect(host, stream).await?,
        None => Box::new(stream),
    };
    let invalid = |why: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, why.to_owned());
    let hello = ApiVersionsRequest {
        client_software_name: Str::from_static("sluice"),
        client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
    };
    let greeting = Some(shared.ends.greeting());
    let key = ApiKey::ApiVersions.code();
    let frame = encode(key, HELLO_VERSION, OWN_ID, greeting, None, |encoder| {
        hello.encode(encoder, HELLO_VERSION)
    });
    let frame = frame.map_err(|_| invalid("the greeting cannot be encoded"))?.to_bytes();
    socket.write_all(&frame).await?;
    socket.flush().await?;
    let mut buffer = BytesMut::new();
    let answer = loop {
        if let Some((_, answer)) = take(&mut buffer)? {
            break answer;
        }
        buffer.reserve(READ_BYTES);
        if socket.read_buf(&mut buffer).await? == 0 {
            return Err(invalid(
                "it closed the connection at the greeting: is it another node, or of another cluster?",
            ));
        }
    };
    let answer: ApiVersionsResponse = decode(ApiKey::ApiVersions, HELLO_VERSION, answer)
        .ok_or_else(|| invalid("it does not answer the greeting as a node does"))?;
    let served = answer.api_keys.iter().map(|api| (api.api_key, api.min_version..=api.max_version));
    Ok((socket, Arc::new(served.collect()), buffer))
}

/// The next whole answer with its correlation id, if it is there; else there is room for more of it.
fn take(buffer: &mut BytesMut) -> std::io::Result<Option<(i32, Bytes)>> {
    let Some(prefix) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    if !(4..=MAX_ANSWER_BYTES).contains(&length) {
        let why = format!("an answer of {length} bytes");
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why));
    }
    if buffer.len() < 4 + length {
        // A big one comes into one piece of memory.
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    let mut answer = buffer.split_to(4 + length).freeze();
    answer.advance(4);
    let id = answer.first_chunk::<4>().map_or(OWN_ID, |id| i32::from_be_bytes(*id));
    Ok(Some((id, answer)))
}

/// A connection that is up.
struct Connection<'a> {
    shared: &'a Shared,
    reader: ReadHalf<Box<dyn Socket>>,
    writer: WriteHalf<Box<dyn Socket>>,
    served: Served,
    buffer: BytesMut,
    outbox: Outbox,
    nothing: Budget,
    sending: Sending,
    waiting: &'a mut HashMap<i32, Sender>,
    /// When something came last, or there was nothing to come.
    heard: Instant,
    pinged: bool,
}

impl<'a> Connection<'a> {
    fn new(
        shared: &'a Shared,
        socket: Box<dyn Socket>,
        served: Served,
        buffer: BytesMut,
        waiting: &'a mut HashMap<i32, Sender>,
    ) -> Self {
        let (reader, writer) = tokio::io::split(socket);
        // What clients' requests take is counted where they come in.
        let nothing = Budget::new(0, Gauge::default());
        Self {
            shared,
            reader,
            writer,
            served,
            buffer,
            outbox: Outbox::new(nothing.nothing()),
            nothing,
            sending: Sending::default(),
            waiting,
            heard: Instant::now(),
            pinged: false,
        }
    }

    /// Returns why it has ended.
    async fn run(mut self) -> std::io::Error {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if self.take_up() {
                return std::io::Error::new(std::io::ErrorKind::NotConnected, "closed");
            }
            self.buffer.reserve(READ_BYTES);
            let is_sending = self.sending.is_due(&self.outbox);
            let moved = tokio::select! {
                biased;
                sent = self.sending.send(&mut self.outbox, &mut self.writer), if is_sending => {
                    sent.map(|count| {
                        self.shared.metrics.bytes_out.inc_by(count as u64);
                    })
                },
                read = self.reader.read_buf(&mut self.buffer) => match read {
                    Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
                    Ok(count) => self.came(count),
                    Err(error) => Err(error),
                },
                () = self.shared.wake.notified() => Ok(()),
                _ = look.tick() => self.look(),
            };
            if let Err(error) = moved {
                return error;
            }
        }
    }

    /// Takes what is to be sent; true when the link was closed.
    fn take_up(&mut self) -> bool {
        let (queue, controls, forgotten) = {
            let mut state = self.shared.state.lock();
            if matches!(state.phase, Phase::Closed) {
                return true;
            }
            let queue = std::mem::take(&mut state.queue);
            (queue, std::mem::take(&mut state.controls), std::mem::take(&mut state.forgotten))
        };
        let was_idle = self.waiting.is_empty();
        for queued in queue {
            if queued.answer.is_closed() {
                continue;
            }
            let serves = self.served.get(&queued.api.code());
            if !serves.is_some_and(|versions| versions.contains(&queued.version)) {
                let _ = queued.answer.send(Err(LinkError::Unsupported));
                continue;
            }
            self.outbox.push(queued.frame, self.nothing.nothing());
            self.waiting.insert(queued.id, queued.answer);
            self.shared.metrics.waiting.inc();
        }
        if was_idle && !self.waiting.is_empty() {
            self.heard = Instant::now();
        }
        for control in controls {
            self.outbox.push(control, self.nothing.nothing());
        }
        for id in forgotten {
            if self.waiting.remove(&id).is_none() {
                continue;
            }
            self.shared.metrics.waiting.dec();
            let forget = Control::Forget.code();
            if let Ok(frame) = encode(CONTROL_KEY, forget, id, None, None, |_| Ok(())) {
                self.outbox.push(frame, self.nothing.nothing());
            }
        }
        false
    }

    fn came(&mut self, count: usize) -> std::io::Result<()> {
        self.shared.metrics.bytes_in.inc_by(count as u64);
        self.heard = Instant::now();
        self.pinged = false;
        self.shared.stalled.store(false, Ordering::Relaxed);
        while let Some((id, answer)) = take(&mut self.buffer)? {
            if let Some(waiting) = self.waiting.remove(&id) {
                self.shared.metrics.waiting.dec();
                // Who asked may have gone away.
                let _ = waiting.send(Ok(answer));
            }
        }
        Ok(())
    }

    /// Looks whether the other side still lives.
    fn look(&mut self) -> std::io::Result<()> {
        let silent = self.heard.elapsed();
        if self.waiting.is_empty() || silent < PING_AFTER {
            return Ok(());
        }
        if silent >= DEAD_AFTER {
            let why = format!("nothing was heard for {} s", DEAD_AFTER.as_secs());
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why));
        }
        if self.pinged {
            if silent >= 2 * PING_AFTER && !self.shared.stalled.swap(true, Ordering::Relaxed) {
                tracing::warn!(node = self.shared.ends.to.0, "a node does not answer");
            }
            return Ok(());
        }
        self.pinged = true;
        let ping = ApiVersionsRequest::default();
        let frame =
            encode(ApiKey::ApiVersions.code(), 0, OWN_ID, None, None, |e| ping.encode(e, 0));
        if let Ok(frame) = frame {
            self.outbox.push(frame, self.nothing.nothing());
        }
        Ok(())
    }
}

/// An answer as a message.
pub(super) fn decode<M: Message>(api: ApiKey, version: i16, answer: Bytes) -> Option<M> {
    let mut decoder = Decoder::new(answer);
    ResponseHeader::decode(&mut decoder, api.response_header_version(version)).ok()?;
    M::decode(&mut decoder, version).ok()
}
