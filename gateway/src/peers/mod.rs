//! How the nodes of a cluster speak with each other: Kafka's frames over TCP, with mutual TLS, where each request's
//! header says on whose behalf it is ([`sluice_wire::header::NodeRequestHeader`]). Start reading at [`Peers`], which
//! asks, and `session`, which answers.
//!
//! It differs from what clients speak in this:
//! - headers are always of version 2, and topics are named by their ids (in the place of the name where a request has
//!   no field for an id, if the header says so);
//! - answers come as they are ready, in any order;
//! - the first request of a connection is ApiVersions, whose answer says what the other side serves. What it does not
//!   serve is not sent to it;
//! - an answer without a body means that the request was refused as a client's connection would be closed for it;
//! - requests with the key [`CONTROL_KEY`] have no answer: see [`Control`].
//!
//! Always: requests of one connection begin in the order in which they were sent, so that appends keep theirs; a node
//! asks only the node that it means, and only under its own cluster's certificates.

mod ask;
mod forward;
mod link;
mod listener;
mod metrics;
mod pool;
mod remote;
mod routing;
mod session;
mod tls;

pub use self::listener::PeerListener;
pub use self::pool::{Peers, PeersParts};
pub use self::routing::Routing;
pub use self::tls::{PeerTls, PeerTlsError};

pub(crate) use self::forward::Forward;
pub(crate) use self::pool::other_gateways;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, WriteHalf};

use crate::outbox::Outbox;

/// The api key of what needs no answer; the version says what it is.
const CONTROL_KEY: i16 = -1;

/// What a node tells another without asking anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Control {
    /// Nobody waits for the answer to the request with this correlation id any more.
    Forget,
    /// The asker's connection has ended: so do share sessions that began on it.
    ConnectionLost,
}

impl Control {
    const fn code(self) -> i16 {
        match self {
            Self::Forget => 0,
            Self::ConnectionLost => 1,
        }
    }

    /// What a newer node may say besides is ignored.
    const fn of(code: i16) -> Option<Self> {
        match code {
            0 => Some(Self::Forget),
            1 => Some(Self::ConnectionLost),
            _ => None,
        }
    }
}

/// A connection, with TLS or without.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// Sends what is in an outbox, and makes sure that it leaves: TLS keeps what was written until it is flushed.
#[derive(Debug, Default)]
struct Sending {
    unflushed: bool,
}

impl Sending {
    fn is_due(&self, outbox: &Outbox) -> bool {
        outbox.bytes() > 0 || self.unflushed
    }

    /// Writes once, or flushes when all is written; gives how many bytes were taken. May be dropped and called again.
    fn send(
        &mut self,
        outbox: &mut Outbox,
        socket: &mut WriteHalf<Box<dyn Socket>>,
    ) -> impl Future<Output = io::Result<usize>> {
        poll_fn(move |cx| {
            if outbox.bytes() > 0 {
                let count = ready!(outbox.poll_write(cx, socket))?;
                self.unflushed = true;
                return Poll::Ready(Ok(count));
            }
            ready!(Pin::new(&mut *socket).poll_flush(cx))?;
            self.unflushed = false;
            Poll::Ready(Ok(0))
        })
    }
}
