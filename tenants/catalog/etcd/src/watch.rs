//! A watch: one stream of etcd's, on one member. It ends when that member does not answer any more; its
//! caller goes on from the last revision seen, on another.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, future, stream};
use sluice_catalog::store::{Change, Revision, Watch, WatchError};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Streaming;

use crate::assemble::Assembler;
use crate::failure::Failure;
use crate::proto::etcdserverpb::watch_request::RequestUnion;
use crate::proto::etcdserverpb::{WatchCreateRequest, WatchRequest, WatchResponse};
use crate::session::{Session, WATCH, answered, bad};

pub(crate) struct EtcdWatch {
    stream: Streaming<WatchResponse>,
    session: Arc<Session>,
    broken: watch::Receiver<bool>,
    assembler: Assembler,
    /// Why it has ended, once it has.
    ended: Option<WatchError>,
}

/// Begins a watch of the keys in `bounds`; when this returns, etcd has it.
pub(crate) async fn begin(
    session: Arc<Session>,
    root: &str,
    bounds: (Bytes, Bytes),
    after: Revision,
    deadline: Instant,
) -> Result<EtcdWatch, Failure> {
    let (key, range_end) = bounds;
    let start_revision = i64::try_from(after.0).unwrap_or(i64::MAX).saturating_add(1);
    let create = WatchCreateRequest { key, range_end, start_revision, fragment: true };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The side of requests stays open for as long as the watch is wanted.
    let requests = stream::once(future::ready(request)).chain(stream::pending());
    let mut stream = session.streaming(WATCH, requests, deadline).await?;
    let first: Option<WatchResponse> = answered(deadline, stream.message()).await?;
    let first = first.ok_or_else(|| bad("nothing in it"))?;
    if !first.created {
        return Err(bad("no watch in it"));
    }
    if first.canceled && first.compact_revision == 0 {
        // Among the reasons is a token that etcd has forgotten.
        return Err(Failure::Unsent(format!("no watch: {}", first.cancel_reason)));
    }
    let broken = session.broken();
    let mut assembler = Assembler::new(root.to_owned(), after);
    let ended = assembler.take(first).err();
    Ok(EtcdWatch { stream, session, broken, assembler, ended })
}

#[async_trait]
impl Watch for EtcdWatch {
    async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            if let Some(change) = self.assembler.next() {
                return Ok(change);
            }
            if let Some(ended) = &self.ended {
                return Err(ended.clone());
            }
            // Nothing is taken out of the stream but by the message that is handled below, without an
            // await between.
            let message = tokio::select! {
                biased;
                message = self.stream.message() => message,
                _ = self.broken.wait_for(|broken| *broken) => {
                    let endpoint = self.session.endpoint();
                    let why = format!("etcd at {endpoint} does not answer any more");
                    self.ended = Some(WatchError::Interrupted(why));
                    continue;
                }
            };
            let taken = match message {
                Ok(Some(answer)) => self.assembler.take(answer),
                Ok(None) => Err(WatchError::Interrupted("etcd closed it".to_owned())),
                Err(status) => Err(WatchError::Interrupted(Failure::of(&status).text().to_owned())),
            };
            if let Err(ended) = taken {
                if ended != WatchError::Compacted {
                    // Whatever it was, it may hold for this member only.
                    self.session.give_up();
                }
                self.ended = Some(ended);
            }
        }
    }
}
