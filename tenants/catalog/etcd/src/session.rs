//! A connection to one member, and calls on it. It is used until it is broken, and then never again.

use std::time::Duration;

use futures_util::Stream;
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::failure::{Failure, chain};
use crate::options::User;
use crate::proto::etcdserverpb::{
    AuthenticateRequest, AuthenticateResponse, ResponseHeader, StatusRequest, StatusResponse,
};

/// The longest answer that is taken. etcd's own answers to what is asked here stay far below, unless its
/// limit for requests was raised and somebody else used that.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// A call of etcd's API: the path of its gRPC method.
#[derive(Clone, Copy)]
pub(crate) struct Method(&'static str);

pub(crate) const RANGE: Method = Method("/etcdserverpb.KV/Range");
pub(crate) const TXN: Method = Method("/etcdserverpb.KV/Txn");
pub(crate) const WATCH: Method = Method("/etcdserverpb.Watch/Watch");
pub(crate) const LEASE_GRANT: Method = Method("/etcdserverpb.Lease/LeaseGrant");
pub(crate) const LEASE_REVOKE: Method = Method("/etcdserverpb.Lease/LeaseRevoke");
pub(crate) const LEASE_KEEP_ALIVE: Method = Method("/etcdserverpb.Lease/LeaseKeepAlive");
const STATUS: Method = Method("/etcdserverpb.Maintenance/Status");
const AUTHENTICATE: Method = Method("/etcdserverpb.Auth/Authenticate");

/// A connection to one member.
pub(crate) struct Session {
    endpoint: String,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    broken: watch::Sender<bool>,
}

impl Session {
    /// Connects; authenticates if there is a user. The answer tells how the member stands.
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        user: Option<&User>,
        deadline: Instant,
    ) -> Result<(Self, StatusResponse), Failure> {
        let channel = match timeout_at(deadline, endpoint.connect()).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(Failure::Unsent(chain(&error))),
            Err(_) => return Err(Failure::Unsent("no connection in time".to_owned())),
        };
        let mut session = Self {
            endpoint: endpoint.uri().to_string().trim_end_matches('/').to_owned(),
            channel,
            token: None,
            broken: watch::Sender::new(false),
        };
        if let Some(User { name, password }) = user {
            let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
            let answer: AuthenticateResponse =
                session.unary(AUTHENTICATE, request, deadline).await?;
            let token = answer.token.parse();
            session.token = Some(token.map_err(|_| bad("a token that is none"))?);
        }
        let status = session.unary(STATUS, StatusRequest {}, deadline).await?;
        Ok((session, status))
    }

    /// Where it leads.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Not to be used any more: watches through it end.
    pub(crate) fn give_up(&self) {
        self.broken.send_replace(true);
    }

    pub(crate) fn is_broken(&self) -> bool {
        *self.broken.borrow()
    }

    /// True once it is broken.
    pub(crate) fn broken(&self) -> watch::Receiver<bool> {
        self.broken.subscribe()
    }

    /// A call with one answer.
    pub(crate) async fn unary<M, R>(
        &self,
        method: Method,
        message: M,
        deadline: Instant,
    ) -> Result<R, Failure>
    where
        M: Message + Default + 'static,
        R: Message + Default + 'static,
    {
        let mut request = self.request(method, message);
        request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let mut grpc = self.grpc().await?;
        let codec = ProstCodec::<M, R>::default();
        let path = PathAndQuery::from_static(method.0);
        answered(deadline, grpc.unary(request, path, codec)).await.map(|answer| answer.into_inner())
    }

    /// A call with answers that come as they come; the first headers are there when this returns.
    pub(crate) async fn streaming<S, M, R>(
        &self,
        method: Method,
        messages: S,
        deadline: Instant,
    ) -> Result<Streaming<R>, Failure>
    where
        S: Stream<Item = M> + Send + 'static,
        M: Message + Default + 'static,
        R: Message + Default + 'static,
    {
        let request = self.request(method, messages);
        let mut grpc = self.grpc().await?;
        let codec = ProstCodec::<M, R>::default();
        let path = PathAndQuery::from_static(method.0);
        let answer = answered(deadline, grpc.streaming(request, path, codec)).await?;
        Ok(answer.into_inner())
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Failure> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES);
        grpc.ready().await.map_err(|error| Failure::Unsent(chain(&error)))?;
        Ok(grpc)
    }

    fn request<T>(&self, method: Method, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        if let Some(token) = &self.token {
            metadata.insert("token", token.clone());
        }
        // A member that is cut off from the others says so, and at once.
        if ![STATUS.0, AUTHENTICATE.0].contains(&method.0) {
            metadata.insert("hasleader", MetadataValue::from_static("true"));
        }
        request
    }
}

/// The result of what is under way, or that it took too long.
pub(crate) async fn answered<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Failure> {
    match timeout_at(deadline, call).await {
        Ok(result) => result.map_err(|status| Failure::of(&status)),
        Err(_) => Err(Failure::Undecided("no answer in time".to_owned())),
    }
}

/// An answer that etcd does not give: another program's, or another version's.
pub(crate) fn bad(what: &str) -> Failure {
    Failure::Undecided(format!("the answer has {what}"))
}

/// The revision that an answer is of.
pub(crate) fn revision(header: Option<ResponseHeader>) -> Result<u64, Failure> {
    let header = header.ok_or_else(|| bad("no header"))?;
    u64::try_from(header.revision).map_err(|_| bad("a negative revision"))
}

/// Half of what is left: so that what hangs on one member can be tried on another.
pub(crate) fn half(deadline: Instant) -> Instant {
    let now = Instant::now();
    let left = deadline.saturating_duration_since(now);
    (now + (left / 2).max(Duration::from_millis(1))).min(deadline)
}
