//! One client connection: frames in, answers out, in order.
//!
//! A session is one future that owns everything about its connection: the socket, what has arrived
//! of the next frame, the requests in flight and the answers that wait to be written. It is polled
//! by one task; handlers run inside it, and a panic in one ends this connection and no other.
//!
//! Always: no more than `max_in_flight` requests are unanswered; nothing is read while a bound is
//! reached, so that the peer's TCP window closes; an idle session holds no buffers.
//!
//! It knows nothing about what requests mean: see `dispatch`.

mod clock;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::BufMut;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::budget::{Lease, Ticket};
use crate::context::Peer;
use crate::dispatch::{self, Handler, Reply, Started};
use crate::drain::{Drain, Watch};
use crate::frame::{CHUNK_BYTES, Frame, FrameError, Inbox};
use crate::gateway::Core;
use crate::line::Line;
use crate::outbox::Outbox;
use clock::{Clock, Load};

thread_local! {
    /// Where small frames are read before it is known how long they are: one for each runtime
    /// thread instead of one for each connection. Never held over an await.
    static SCRATCH: std::cell::RefCell<Vec<u8>> = std::cell::RefCell::new(vec![0; CHUNK_BYTES]);
}

/// Turns of reading and writing in one poll, so that one busy peer leaves room for others.
const TURNS: usize = 16;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    /// The peer closed its side.
    #[error("closed by the peer")]
    Peer,
    /// The socket failed.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// No traffic for the idle time.
    #[error("idle for too long")]
    Idle,
    /// Answers were not taken.
    #[error("the peer does not read its answers")]
    SlowReader,
    /// A frame was begun and not finished.
    #[error("the peer does not finish its frame")]
    SlowWriter,
    /// A length that no frame may have.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A request that Kafka closes the connection for.
    #[error(transparent)]
    Refused(#[from] dispatch::Refused),
    /// A handler panicked.
    #[error("a handler panicked")]
    Panicked,
    /// The gateway is shutting down.
    #[error("shutting down")]
    Drained,
    /// The gateway is shutting down and waited long enough.
    #[error("shutting down, with requests unanswered")]
    Cut,
}

impl Closed {
    /// For the metric: one word from a closed set.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Lost(_) => "lost",
            Self::Idle => "idle",
            Self::SlowReader => "slow_reader",
            Self::SlowWriter => "slow_writer",
            Self::Frame(FrameError::Invalid(_)) => "invalid_length",
            Self::Frame(FrameError::TooLarge { .. }) => "frame_too_large",
            Self::Refused(refused) => refused.label(),
            Self::Panicked => "panic",
            Self::Drained => "drained",
            Self::Cut => "cut",
        }
    }

    /// Whether the peer broke the protocol or a bound, which operators want to see.
    pub(crate) fn notable(&self) -> bool {
        match self {
            Self::Peer | Self::Lost(_) | Self::Idle | Self::Drained => false,
            Self::SlowReader
            | Self::SlowWriter
            | Self::Frame(_)
            | Self::Refused(_)
            | Self::Panicked
            | Self::Cut => true,
        }
    }
}

/// A handler with the number of its request.
struct Running {
    number: u64,
    handler: Handler,
}

impl Future for Running {
    type Output = (u64, Reply);

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let reply = ready!(self.handler.as_mut().poll(cx));
        Poll::Ready((self.number, reply))
    }
}

/// One connection's future; it ends with the reason why the connection closes.
pub(crate) struct Session {
    core: Arc<Core>,
    peer: Peer,
    stream: TcpStream,
    inbox: Inbox,
    /// A frame that may not start yet.
    held: Option<Frame>,
    line: Line,
    running: FuturesUnordered<Running>,
    outbox: Outbox,
    ticket: Ticket,
    clock: Clock,
    drain: Drain,
    watch: Option<Watch>,
    /// Set when no more is read: the reason to give once what is in flight has ended.
    ending: Option<Closed>,
}

/// What a turn of reading came to.
enum Turn {
    /// Something was read or started.
    Moved,
    /// Nothing can be done until something else happens.
    Blocked,
}

impl Session {
    /// A session on a connected socket.
    pub(crate) fn new(core: Arc<Core>, peer: Peer, stream: TcpStream, drain: Drain) -> Self {
        let limits = &core.config.limits;
        Self {
            inbox: Inbox::new(core.request_budget.nothing(), limits.max_frame_bytes),
            outbox: Outbox::new(core.answer_budget.nothing()),
            clock: Clock::new(limits.idle_timeout, limits.stall_timeout),
            held: None,
            line: Line::default(),
            running: FuturesUnordered::new(),
            ticket: Ticket::default(),
            watch: None,
            ending: None,
            core,
            peer,
            stream,
            drain,
        }
    }

    /// Whether a bound says to take up no more.
    fn full(&self) -> bool {
        let limits = &self.core.config.limits;
        self.line.len() >= limits.max_in_flight
            || self.outbox.bytes() + self.line.finished_bytes() >= limits.max_answer_bytes
    }

    fn collect(&mut self, cx: &mut TaskContext<'_>) {
        while !self.running.is_empty() {
            // Without tokio's budget: all that can go on does, before frames that came later start. So
            // appends that waited for room are handed over in their order.
            let mut next = tokio::task::unconstrained(self.running.next());
            let Poll::Ready(Some((number, reply))) = next.poll_unpin(cx) else {
                break;
            };
            self.line.finish(number, reply);
        }
        while let Some(answered) = self.line.next() {
            let took = answered.started.elapsed();
            self.core.metrics.answered(answered.api, answered.reply.error, took);
            match answered.reply.outcome {
                Ok(Some(answer)) => self.outbox.push(answer, answered.reply.lease),
                Ok(None) => {}
                Err(refused) => self.end(refused.into()),
            }
        }
    }

    fn end(&mut self, reason: Closed) {
        self.held = None;
        self.ending.get_or_insert(reason);
    }

    fn poll_flush(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        while self.outbox.bytes() > 0 {
            let written = ready!(self.outbox.poll_write(cx, &mut self.stream))?;
            self.core.metrics.bytes_out.inc_by(written as u64);
            self.clock.wrote();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes up the frames that are there and those of `input`; what may not start yet is kept.
    fn take_up(&mut self, cx: &mut TaskContext<'_>, mut input: &[u8]) -> Result<(), FrameError> {
        loop {
            let frame = match self.held.take() {
                Some(frame) => Some(frame),
                None if self.full() || self.ending.is_some() => None,
                None => match self.inbox.next(&mut input)? {
                    Some(frame) => Some(frame),
                    None => break,
                },
            };
            let Some(frame) = frame else { break };
            if self.full() || !self.line.admits(dispatch::order(&frame.bytes)) {
                self.held = Some(frame);
                break;
            }
            self.start(cx, frame);
            if self.ending.is_some() {
                break;
            }
        }
        self.inbox.stash(input);
        Ok(())
    }

    fn start(&mut self, cx: &mut TaskContext<'_>, frame: Frame) {
        let limits = &self.core.config.limits;
        let taken = self.outbox.bytes() + self.line.finished_bytes() + self.line.reserved_bytes();
        // A fetch that finds no room left still gets its one batch.
        let room = limits.max_answer_bytes.saturating_sub(taken);
        let Started { api, order, reserved, mut handler } =
            match dispatch::start(&self.core, &self.peer, frame.bytes, room) {
                Ok(started) => started,
                Err(refused) => return self.end(refused.into()),
            };
        let number = self.line.start(api, order, Instant::now(), reserved, frame.lease);
        // Polled here for the first time, so that appends are handed over in the order of frames.
        match handler.as_mut().poll(cx) {
            Poll::Ready(reply) => self.line.finish(number, reply),
            Poll::Pending => self.running.push(Running { number, handler }),
        }
    }

    /// Reads once and takes up what came.
    fn poll_read(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<Turn, Closed>> {
        if self.held.is_some() || self.inbox.len() > 0 {
            let before = (self.line.len(), self.inbox.len());
            self.take_up(cx, &[])?;
            if before != (self.line.len(), self.inbox.len()) {
                return Poll::Ready(Ok(Turn::Moved));
            }
        }
        if self.full() || self.held.is_some() || self.ending.is_some() {
            return Poll::Ready(Ok(Turn::Blocked));
        }
        ready!(self.stream.poll_read_ready(cx))?;
        let direct = self.inbox.direct_bytes();
        let budget = &self.core.request_budget;
        // Big frames leave a quarter to small requests, so that half a frame sent by many cannot stop
        // those too.
        let (want, keep) = if direct > 0 { (direct, budget.size() / 4) } else { (CHUNK_BYTES, 0) };
        let Some(lease) = budget.poll_take(cx, &mut self.ticket, want, keep) else {
            return Poll::Ready(Ok(Turn::Blocked));
        };
        let count = if direct > 0 {
            ready!(self.poll_read_direct(cx, direct, lease))?
        } else {
            ready!(self.poll_read_scratch(cx, lease))?
        };
        if count == 0 {
            self.end(Closed::Peer);
        } else {
            self.core.metrics.bytes_in.inc_by(count as u64);
            self.clock.read(count);
        }
        Poll::Ready(Ok(Turn::Moved))
    }

    /// Reads at most `want` bytes of a big frame to where they stay.
    fn poll_read_direct(
        &mut self,
        cx: &mut TaskContext<'_>,
        want: usize,
        mut lease: Lease,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            let mut room = self.inbox.buffer(want).limit(want);
            match self.stream.try_read_buf(&mut room) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => {
                    let count = read?;
                    lease.shrink_to(count);
                    self.inbox.paid(lease);
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    /// Reads what is there and takes up the frames in it.
    fn poll_read_scratch(
        &mut self,
        cx: &mut TaskContext<'_>,
        mut lease: Lease,
    ) -> Poll<Result<usize, Closed>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            lease.shrink_to(read.filled().len());
            self.inbox.paid(lease);
            self.take_up(cx, read.filled())?;
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// Whether what was begun has come to its end after [`Self::end`].
    fn has_ended(&self) -> bool {
        match &self.ending {
            None => false,
            // Nobody is there to read answers; but appends without acks must still be made.
            Some(Closed::Peer) => !self.line.busy(),
            Some(_) => !self.line.busy() && !self.line.holds_answers() && self.outbox.bytes() == 0,
        }
    }

    fn load(&self) -> Load {
        let partial = self.inbox.len() > 0 && self.held.is_none() && self.ending.is_none();
        Load {
            reading: partial && !self.full(),
            writing: self.outbox.bytes() > 0,
            busy: self.line.len() > 0,
        }
    }
}

impl Future for Session {
    type Output = Closed;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Closed> {
        let this = self.get_mut();
        if this.watch.is_none() {
            this.watch = Some(this.drain.watch(cx.waker().clone()));
        }
        for _ in 0..TURNS {
            this.collect(cx);
            if let Poll::Ready(Err(e)) = this.poll_flush(cx) {
                return Poll::Ready(e.into());
            }
            if this.drain.begun() {
                this.end(Closed::Drained);
            }
            if this.has_ended() {
                return Poll::Ready(this.ending.take().unwrap_or(Closed::Drained));
            }
            match this.poll_read(cx) {
                Poll::Ready(Ok(Turn::Moved)) => {}
                // A socket that failed has nobody to answer; what was refused comes after answers.
                Poll::Ready(Err(Closed::Lost(e))) => return Poll::Ready(Closed::Lost(e)),
                Poll::Ready(Err(closed)) => this.end(closed),
                Poll::Ready(Ok(Turn::Blocked)) | Poll::Pending => {
                    return this.clock.poll(cx, this.load());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
