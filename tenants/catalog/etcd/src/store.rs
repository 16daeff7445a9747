//! The contract, call by call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{future, stream};
use sluice_catalog::store::{
    Condition, Entry, LeaseId, MetadataStore, Op, Outcome, Range, Revision, StoreError, Txn, Watch,
};

use crate::members::{Members, Repeat};
use crate::options::{EtcdOptions, InvalidOptions};
use crate::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::response_op::Response;
use crate::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, RangeRequest,
    RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse,
};
use crate::range;
use crate::session::{
    LEASE_GRANT, LEASE_KEEP_ALIVE, LEASE_REVOKE, RANGE, TXN, answered, bad, revision,
};
use crate::watch;

/// A map in etcd: what lies there under one prefix. Cheap to clone.
#[derive(Clone)]
pub struct EtcdStore {
    inner: Arc<Inner>,
}

struct Inner {
    members: Members,
    /// What all keys begin with, in etcd and nowhere else.
    root: String,
    /// The newest revision that a transaction of this store has made.
    newest: AtomicU64,
}

impl EtcdStore {
    /// A store over the members that the options name. Connects when it is used first.
    pub fn new(options: &EtcdOptions) -> Result<Self, InvalidOptions> {
        let members = Members::new(options.prepare()?, options);
        let root = options.prefix.clone();
        Ok(Self { inner: Arc::new(Inner { members, root, newest: AtomicU64::new(1) }) })
    }

    fn key(&self, key: &str) -> Bytes {
        [self.inner.root.as_bytes(), key.as_bytes()].concat().into()
    }

    fn condition(&self, condition: &Condition) -> Compare {
        let (key, target, value) = match condition {
            Condition::Absent(key) => (key, CompareTarget::Create, TargetUnion::CreateRevision(0)),
            Condition::ModRevision(key, since) => {
                let since = i64::try_from(since.0).unwrap_or(i64::MAX);
                (key, CompareTarget::Mod, TargetUnion::ModRevision(since))
            }
        };
        Compare {
            result: CompareResult::Equal.into(),
            target: target.into(),
            key: self.key(key),
            target_union: Some(value),
        }
    }

    fn op(&self, op: Op) -> RequestOp {
        let request = match op {
            Op::Put { key, value, lease } => Request::RequestPut(PutRequest {
                key: self.key(&key),
                value,
                lease: lease.map_or(0, |lease| lease.0),
            }),
            Op::Delete { key } => {
                Request::RequestDeleteRange(DeleteRangeRequest { key: self.key(&key) })
            }
        };
        RequestOp { request: Some(request) }
    }

    /// A revision that a watch of this map reaches, and at which it was as it is now as far as this store
    /// can know: etcd's own is also that of other maps, and a watch of this one may never tell it.
    async fn reachable(&self) -> Result<Revision, StoreError> {
        let (key, range_end) = range::bounds(&self.inner.root);
        let request = RangeRequest {
            key,
            range_end,
            limit: 1,
            keys_only: true,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Mod.into(),
            ..RangeRequest::default()
        };
        let asked = self.inner.members.call(Repeat::Freely, |session, deadline| {
            let request = request.clone();
            async move {
                let answer: RangeResponse = session.unary(RANGE, request, deadline).await?;
                let newest = answer.kvs.first().map_or(0, |kv| kv.mod_revision);
                u64::try_from(newest).map_err(|_| bad("a negative revision"))
            }
        });
        let newest = asked.await?.max(self.inner.newest.load(Ordering::Relaxed));
        Ok(Revision(newest))
    }
}

/// Whether any of the operations did something.
fn changed(responses: &[ResponseOp]) -> bool {
    responses.iter().any(|op| match &op.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(answer)) => answer.deleted > 0,
        Some(Response::ResponseRange(_)) | None => false,
    })
}

#[async_trait]
impl MetadataStore for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let root = &self.inner.root;
        let request = RangeRequest { key: self.key(key), ..RangeRequest::default() };
        let asked = self.inner.members.call(Repeat::Freely, |session, deadline| {
            let request = request.clone();
            async move {
                let answer: RangeResponse = session.unary(RANGE, request, deadline).await?;
                revision(answer.header)?;
                match answer.kvs.into_iter().next() {
                    Some(found) => range::entry(root, found),
                    None => Ok(None),
                }
            }
        });
        Ok(asked.await?)
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        Ok(range::read(&self.inner.members, &self.inner.root, prefix).await?)
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.validate()?;
        // A key that does not exist has mod revision 0 in etcd, and none here.
        let never =
            |condition: &Condition| matches!(condition, Condition::ModRevision(_, Revision(0)));
        if txn.conditions.iter().any(never) {
            return Ok(Outcome::Conflict);
        }
        let compare = txn.conditions.iter().map(|condition| self.condition(condition)).collect();
        let mut success: Vec<_> = txn.ops.into_iter().map(|op| self.op(op)).collect();
        if success.is_empty() {
            // etcd takes a transaction of conditions alone for one that any member may answer from what it has.
            let range = RangeRequest { key: self.key("/"), limit: 1, ..RangeRequest::default() };
            success.push(RequestOp { request: Some(Request::RequestRange(range)) });
        }
        let request = TxnRequest { compare, success };
        let asked = self.inner.members.call(Repeat::IfUnsent, |session, deadline| {
            let request = request.clone();
            async move {
                let answer: TxnResponse = session.unary(TXN, request, deadline).await?;
                let made = revision(answer.header)?;
                Ok((answer.succeeded, changed(&answer.responses), made))
            }
        });
        match asked.await? {
            (false, _, _) => Ok(Outcome::Conflict),
            (true, true, made) => {
                self.inner.newest.fetch_max(made, Ordering::Relaxed);
                Ok(Outcome::Committed(Revision(made)))
            }
            (true, false, _) => Ok(Outcome::Committed(self.reachable().await?)),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let root = &self.inner.root;
        let bounds = range::bounds(&format!("{root}{prefix}"));
        let begun = self.inner.members.call(Repeat::Freely, |session, deadline| {
            let bounds = bounds.clone();
            async move { watch::begin(session, root, bounds, after, deadline).await }
        });
        Ok(Box::new(begun.await?))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let ttl = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        // A lease that is granted twice, because an answer was lost, ends by itself.
        let asked = self.inner.members.call(Repeat::Freely, |session, deadline| async move {
            let request = LeaseGrantRequest { ttl, id: 0 };
            let answer: LeaseGrantResponse = session.unary(LEASE_GRANT, request, deadline).await?;
            match (answer.id, answer.error.as_str()) {
                (id @ 1.., "") => Ok(LeaseId(id)),
                (_, "") => Err(bad("no lease")),
                (_, error) => Err(bad(error)),
            }
        });
        Ok(asked.await?)
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let asked = self.inner.members.call(Repeat::Freely, |session, deadline| async move {
            let request = stream::once(future::ready(LeaseKeepAliveRequest { id: lease.0 }));
            let mut answers = session.streaming(LEASE_KEEP_ALIVE, request, deadline).await?;
            let answer: Option<LeaseKeepAliveResponse> =
                answered(deadline, answers.message()).await?;
            Ok(answer.ok_or_else(|| bad("nothing in it"))?.ttl > 0)
        });
        match asked.await? {
            true => Ok(()),
            false => Err(StoreError::LeaseEnded),
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let asked = self.inner.members.call(Repeat::Freely, |session, deadline| async move {
            let request = LeaseRevokeRequest { id: lease.0 };
            let answer: LeaseRevokeResponse =
                session.unary(LEASE_REVOKE, request, deadline).await?;
            revision(answer.header)
        });
        match asked.await.map_err(StoreError::from) {
            Ok(_) | Err(StoreError::LeaseEnded) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
