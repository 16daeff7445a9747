//! One connection: requests go out as they come, answers are told apart by their order, which Kafka promises.
//!
//! A task writes and a task reads; both end when the last [`Connection`] and the last [`Pending`] are dropped or
//! the connection breaks. After a break or a time-out every request that waits fails; make a new connection.

use std::collections::HashMap;
use std::io::IoSlice;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use sluice_wire::header::{RequestHeader, ResponseHeader};
use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::api_versions_response::ApiVersionsResponse;
use sluice_wire::{ApiKey, Chain, Decoder, Encoder, Message, Request, Str};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{CallError, Credentials};

/// The largest answer that is taken: far over what is ever asked for.
const MAX_FRAME_BYTES: usize = 1 << 30;
/// Room for reading; an answer that is larger gets room of its own.
const READ_BYTES: usize = 64 << 10;
/// Pieces in one vectored write.
const MAX_SLICES: usize = 64;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longer than any server waits for durability.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Where a server is and who we are to it.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Host and port.
    pub(crate) address: String,
    /// What we call ourselves.
    pub(crate) client_id: Str,
    /// How we show who we are, where the server wants that.
    pub(crate) credentials: Option<Credentials>,
}

/// A cheap handle on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    endpoint: Endpoint,
    /// Unbounded, because each user bounds what it has under way.
    out: mpsc::UnboundedSender<Outgoing>,
    versions: Arc<HashMap<ApiKey, i16>>,
    requests: Arc<AtomicI32>,
}

#[derive(Debug)]
struct Outgoing {
    frame: Chain,
    reply: oneshot::Sender<Bytes>,
}

/// An answer that has not come yet. The request is on its way already.
#[derive(Debug)]
pub(crate) struct Pending<R: Request> {
    reply: oneshot::Receiver<Bytes>,
    version: i16,
    correlation_id: i32,
    address: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Request> Pending<R> {
    /// The answer.
    pub(crate) async fn answer(self) -> Result<R::Response, CallError> {
        let broken = |reason: &str| CallError::Connection {
            address: self.address.clone(),
            reason: reason.to_owned(),
        };
        let frame = timeout(ANSWER_LIMIT, self.reply)
            .await
            .map_err(|_| CallError::TimedOut(R::KEY))?
            .map_err(|_| broken("it broke before the answer came"))?;
        let mut decoder = Decoder::new(frame);
        let header = R::KEY.response_header_version(self.version);
        let unreadable = |error| CallError::Decode(R::KEY, error);
        let header = ResponseHeader::decode(&mut decoder, header).map_err(unreadable)?;
        if header.correlation_id != self.correlation_id {
            return Err(broken("it gave the answer to another request"));
        }
        let response = R::Response::decode(&mut decoder, self.version).map_err(unreadable)?;
        decoder.finish().map_err(unreadable)?;
        Ok(response)
    }
}

impl Connection {
    /// Connects, agrees on versions and shows who we are.
    pub(crate) async fn open(endpoint: Endpoint) -> Result<Self, CallError> {
        let broken =
            |reason: String| CallError::Connection { address: endpoint.address.clone(), reason };
        let socket = timeout(CONNECT_LIMIT, TcpStream::connect(&endpoint.address))
            .await
            .map_err(|_| broken("no connection in time".to_owned()))?
            .map_err(|error| broken(error.to_string()))?;
        socket.set_nodelay(true).map_err(|error| broken(error.to_string()))?;
        let (read, write) = socket.into_split();
        let (out, requests) = mpsc::unbounded_channel();
        let (sent, waiting) = mpsc::unbounded_channel();
        tokio::spawn(write_requests(write, requests, sent));
        tokio::spawn(read_answers(read, waiting));
        let (versions, requests) = (Arc::default(), Arc::default());
        let mut connection = Self { endpoint, out, versions, requests };
        connection.versions = Arc::new(connection.agree().await?);
        if let Some(credentials) = connection.endpoint.credentials.clone() {
            credentials.show(&connection).await?;
        }
        Ok(connection)
    }

    /// For each kind of request the highest version that both know.
    async fn agree(&self) -> Result<HashMap<ApiKey, i16>, CallError> {
        // Version 3 is of 2019; a server that lacks it is none that this program can load.
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("sluice-loadtest"),
            client_software_version: Str::from_static(env!("CARGO_PKG_VERSION")),
        };
        let answer: ApiVersionsResponse = self.send_as(&request, 3)?.answer().await?;
        if answer.error_code != 0 {
            return Err(CallError::refused("asking for versions", answer.error_code));
        }
        let common = answer.api_keys.iter().filter_map(|served| {
            let key = ApiKey::from_code(served.api_key)?;
            let version = served.max_version.min(*key.versions().end());
            (version >= served.min_version.max(*key.versions().start())).then_some((key, version))
        });
        Ok(common.collect())
    }

    /// Sends a request in the highest version that both know.
    pub(crate) fn send<R: Request>(&self, request: &R) -> Result<Pending<R>, CallError> {
        self.send_at_most(request, i16::MAX)
    }

    /// The same, in no version above `most`.
    pub(crate) fn send_at_most<R: Request>(
        &self,
        request: &R,
        most: i16,
    ) -> Result<Pending<R>, CallError> {
        let version = *self.versions.get(&R::KEY).ok_or(CallError::Unserved(R::KEY))?;
        self.send_as(request, version.min(most))
    }

    /// Sends a request and waits for the answer.
    pub(crate) async fn call<R: Request>(&self, request: &R) -> Result<R::Response, CallError> {
        self.send(request)?.answer().await
    }

    fn send_as<R: Request>(&self, request: &R, version: i16) -> Result<Pending<R>, CallError> {
        let mut encoder = Encoder::framed();
        let correlation_id = self.requests.fetch_add(1, Ordering::Relaxed);
        let header = RequestHeader {
            request_api_key: R::KEY.code(),
            request_api_version: version,
            correlation_id,
            client_id: Some(self.endpoint.client_id.clone()),
        };
        header.encode(&mut encoder, R::KEY.request_header_version(version))?;
        request.encode(&mut encoder, version)?;
        let frame = encoder.into_frame()?;
        let (reply, receiver) = oneshot::channel();
        let address = self.endpoint.address.clone();
        // A connection that has ended drops the reply, which the answer tells.
        let _ = self.out.send(Outgoing { frame, reply });
        Ok(Pending { reply: receiver, version, correlation_id, address, kind: PhantomData })
    }

    /// Whether requests can still be sent.
    pub(crate) fn is_open(&self) -> bool {
        !self.out.is_closed()
    }
}

/// Writes what comes, and tells the reader whose answers to expect. An error ends it; the reader then meets
/// the closed connection and lets go of those who wait.
async fn write_requests(
    mut socket: OwnedWriteHalf,
    mut requests: mpsc::UnboundedReceiver<Outgoing>,
    sent: mpsc::UnboundedSender<oneshot::Sender<Bytes>>,
) {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut next = Vec::new();
    loop {
        // The reader has ended: nobody will answer.
        let received = tokio::select! {
            received = requests.recv_many(&mut next, MAX_SLICES) => received,
            () = sent.closed() => 0,
        };
        if received == 0 {
            return;
        }
        for Outgoing { frame, reply } in next.drain(..) {
            if sent.send(reply).is_err() {
                return;
            }
            pieces.extend(frame.into_pieces());
        }
        if write_pieces(&mut socket, &mut pieces).await.is_err() {
            return;
        }
    }
}

async fn write_pieces(socket: &mut OwnedWriteHalf, pieces: &mut Vec<Bytes>) -> std::io::Result<()> {
    let mut first = 0;
    while first < pieces.len() {
        let slices: Vec<IoSlice<'_>> =
            pieces[first..].iter().take(MAX_SLICES).map(|piece| IoSlice::new(piece)).collect();
        let mut written = socket.write_vectored(&slices).await?;
        if written == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        while written > 0 {
            let step = written.min(pieces[first].len());
            pieces[first].advance(step);
            written -= step;
            if pieces[first].is_empty() {
                first += 1;
            }
        }
    }
    pieces.clear();
    Ok(())
}

async fn read_answers(
    mut socket: OwnedReadHalf,
    mut waiting: mpsc::UnboundedReceiver<oneshot::Sender<Bytes>>,
) {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    while let Ok(Some(frame)) = read_frame(&mut socket, &mut buffer).await {
        // A frame that nobody asked for: the server is not one of Kafka's kind.
        let Ok(reply) = waiting.try_recv() else { return };
        // Whoever asked may have given up.
        let _ = reply.send(frame);
    }
}

/// The next frame, without its length; none at the end of the connection.
async fn read_frame(
    socket: &mut OwnedReadHalf,
    buffer: &mut BytesMut,
) -> std::io::Result<Option<Bytes>> {
    loop {
        let len = buffer.first_chunk().map(|len| u32::from_be_bytes(*len) as usize);
        let wanted = match len {
            Some(len) if len > MAX_FRAME_BYTES => {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            Some(len) if buffer.len() >= 4 + len => {
                buffer.advance(4);
                return Ok(Some(buffer.split_to(len).freeze()));
            }
            Some(len) => 4 + len - buffer.len(),
            None => 1,
        };
        buffer.reserve(wanted.max(READ_BYTES));
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}
