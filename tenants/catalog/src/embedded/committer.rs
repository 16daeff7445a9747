//! The task that owns the log and is alone in changing the state. Transactions that wait while it
//! writes share the next write. Nothing becomes visible before it is durable: a group is evaluated on
//! a staging area, written, applied, and only then answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use sluice_model::Entropy;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::warn;

use super::frame::Record;
use super::log::Log;
use super::state::{Staged, State, Unmet};
use crate::store::{LeaseId, MAX_TXN_BYTES, Op, Outcome, Revision, StoreError, Txn};

/// At most so many transactions share a write, so that a frame stays bounded.
const GROUP: usize = 64;
/// How long to wait after a lease could not be ended because the log could not be written.
const RETRY: Duration = Duration::from_secs(1);
/// The shortest time of a lease.
const MIN_TTL: Duration = Duration::from_secs(1);

// A frame's length is a u32.
const _: () = assert!(GROUP * 2 * MAX_TXN_BYTES < u32::MAX as usize);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

pub(super) enum Request {
    Commit(Txn, Reply<Outcome>),
    Grant(Duration, Reply<LeaseId>),
    Revoke(LeaseId, Reply<()>),
    /// Ends the task and lets go of the disk.
    Close(oneshot::Sender<()>),
}

/// What the committer writes and everyone reads.
pub(super) struct Shared {
    pub(super) state: RwLock<State>,
    pub(super) deadlines: Deadlines,
}

/// When each lease ends, unless it is kept alive. Not durable: a lease has its whole time again after
/// a restart. Locked after the state, where both are.
#[derive(Default)]
pub(super) struct Deadlines(Mutex<HashMap<LeaseId, Deadline>>);

struct Deadline {
    /// When it ends; once it is ending, when that is tried again.
    at: Instant,
    ttl: Duration,
    /// It has been decided that it ends, and it cannot be kept alive any more.
    ending: bool,
}

impl Deadline {
    fn alive(&self, now: Instant) -> bool {
        !self.ending && now < self.at
    }

    fn end(&mut self, now: Instant) {
        self.ending = true;
        self.at = now + RETRY;
    }
}

impl Deadlines {
    pub(super) fn begin(&self, lease: LeaseId, ttl: Duration) {
        let deadline = Deadline { at: Instant::now() + ttl, ttl, ending: false };
        self.0.lock().insert(lease, deadline);
    }

    pub(super) fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        let now = Instant::now();
        let mut deadlines = self.0.lock();
        let deadline = deadlines.get_mut(&lease).filter(|deadline| deadline.alive(now));
        let deadline = deadline.ok_or(StoreError::LeaseEnded)?;
        deadline.at = now + deadline.ttl;
        Ok(())
    }

    fn alive(&self, lease: LeaseId) -> bool {
        self.0.lock().get(&lease).is_some_and(|deadline| deadline.alive(Instant::now()))
    }

    /// From now on it cannot be kept alive.
    fn end(&self, lease: LeaseId) {
        if let Some(deadline) = self.0.lock().get_mut(&lease) {
            deadline.end(Instant::now());
        }
    }

    /// All that are past their time; they have been decided to end.
    fn end_expired(&self) -> Vec<LeaseId> {
        let now = Instant::now();
        let mut expired = Vec::new();
        for (lease, deadline) in self.0.lock().iter_mut() {
            if deadline.at <= now {
                deadline.end(now);
                expired.push(*lease);
            }
        }
        expired.sort_unstable();
        expired
    }

    fn forget(&self, lease: LeaseId) {
        self.0.lock().remove(&lease);
    }

    fn earliest(&self) -> Option<Instant> {
        self.0.lock().values().map(|deadline| deadline.at).min()
    }
}

pub(super) struct Committer {
    /// `None` only while it is at work on another thread.
    pub(super) log: Option<Log>,
    pub(super) shared: Arc<Shared>,
    pub(super) requests: mpsc::Receiver<Request>,
    /// The newest revision that may be seen.
    pub(super) revision: watch::Sender<Revision>,
    pub(super) entropy: Arc<dyn Entropy>,
}

/// Why the task ends.
enum End {
    /// All handles are gone, or the writing thread is.
    Done,
    Closed(oneshot::Sender<()>),
}

impl Committer {
    pub(super) async fn run(mut self) {
        let end = loop {
            if let Err(end) = self.turn().await {
                break end;
            }
        };
        // The disk is let go before anyone is told that it is.
        drop(self);
        if let End::Closed(reply) = end {
            let _ = reply.send(());
        }
    }

    async fn turn(&mut self) -> Result<(), End> {
        let expiry = self.shared.deadlines.earliest();
        let mut request = tokio::select! {
            // First, or requests without end would keep leases alive.
            biased;
            () = sleep_until(expiry) => None,
            request = self.requests.recv() => Some(request.ok_or(End::Done)?),
        };
        if request.is_none() {
            self.expire().await?;
        }
        while let Some(next) = request.take() {
            match next {
                Request::Commit(txn, reply) => request = self.commit(txn, reply).await?,
                Request::Grant(ttl, reply) => {
                    let granted = self.grant(ttl).await?;
                    let _ = reply.send(granted);
                }
                Request::Revoke(lease, reply) => {
                    self.shared.deadlines.end(lease);
                    let ended = self.end_lease(lease).await?;
                    let _ = reply.send(ended);
                }
                Request::Close(reply) => return Err(End::Closed(reply)),
            }
        }
        if self.log.as_ref().is_some_and(Log::outgrown) {
            self.rewrite().await?;
        }
        Ok(())
    }

    /// Commits a transaction together with those that wait behind it. Gives back the request that
    /// ended the group, if it is of another kind.
    async fn commit(&mut self, txn: Txn, reply: Reply<Outcome>) -> Result<Option<Request>, End> {
        let mut group = vec![(txn, reply)];
        let mut other = None;
        while group.len() < GROUP {
            match self.requests.try_recv() {
                Ok(Request::Commit(txn, reply)) => group.push((txn, reply)),
                Ok(request) => {
                    other = Some(request);
                    break;
                }
                Err(_) => break,
            }
        }
        let mut records = Vec::with_capacity(group.len());
        let mut answers = Vec::with_capacity(group.len());
        {
            let state = self.shared.state.read();
            let mut staged = Staged::default();
            for (txn, reply) in group {
                let answer = if self.leases_alive(&txn) {
                    match state.stage(txn, &mut staged) {
                        Err(Unmet) => Ok(Outcome::Conflict),
                        Ok(record) => {
                            records.extend(record);
                            Ok(Outcome::Committed(state.staged_last(&staged)))
                        }
                    }
                } else {
                    Err(StoreError::LeaseEnded)
                };
                answers.push((reply, answer));
            }
        }
        // Even a conflict rests on what is staged: nothing is answered before it is durable.
        let written = self.write(records).await?;
        for (reply, answer) in answers {
            let _ = reply.send(written.clone().and(answer));
        }
        Ok(other)
    }

    fn leases_alive(&self, txn: &Txn) -> bool {
        txn.ops.iter().all(|op| match op {
            Op::Put { lease: Some(lease), .. } => self.shared.deadlines.alive(*lease),
            _ => true,
        })
    }

    async fn grant(&mut self, ttl: Duration) -> Result<Result<LeaseId, StoreError>, End> {
        let lease = self.shared.state.read().next_lease();
        let ttl = ttl.max(MIN_TTL);
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let written = self.write(vec![Record::Grant { lease, ttl_ms }]).await?;
        Ok(written.map(|()| {
            self.shared.deadlines.begin(lease, ttl);
            lease
        }))
    }

    async fn end_lease(&mut self, lease: LeaseId) -> Result<Result<(), StoreError>, End> {
        let records = self.shared.state.read().end_lease(lease);
        let written = self.write(records).await?;
        if written.is_ok() {
            self.shared.deadlines.forget(lease);
        }
        Ok(written)
    }

    async fn expire(&mut self) -> Result<(), End> {
        for lease in self.shared.deadlines.end_expired() {
            if let Err(error) = self.end_lease(lease).await? {
                warn!(%error, lease = lease.0, "lease not ended; trying again");
            }
        }
        Ok(())
    }

    /// Makes records durable, then visible.
    async fn write(&mut self, records: Vec<Record>) -> Result<Result<(), StoreError>, End> {
        if records.is_empty() {
            return Ok(Ok(()));
        }
        let (records, result) = self
            .on_log(move |log, _| {
                let result = log.append(&records);
                (records, result)
            })
            .await?;
        if let Err(error) = result {
            return Ok(Err(StoreError::Unavailable(format!("cannot write the catalog: {error}"))));
        }
        let revision = {
            let mut state = self.shared.state.write();
            for record in records {
                state.apply(record).expect("records are made from this state");
            }
            state.revision()
        };
        self.revision.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
        Ok(Ok(()))
    }

    async fn rewrite(&mut self) -> Result<(), End> {
        let nonce = self.entropy.random_u64();
        self.on_log(move |log, shared| log.rewrite(&shared.state.read(), nonce)).await
    }

    /// Runs something that may block on the log, off the runtime if it does.
    async fn on_log<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Log, &Shared) -> T + Send + 'static,
    ) -> Result<T, End> {
        let mut log = self.log.take().ok_or(End::Done)?;
        if !log.blocks() {
            let done = work(&mut log, &self.shared);
            self.log = Some(log);
            return Ok(done);
        }
        let shared = Arc::clone(&self.shared);
        let (log, done) = tokio::task::spawn_blocking(move || {
            let done = work(&mut log, &shared);
            (log, done)
        })
        .await
        .map_err(|_| End::Done)?;
        self.log = Some(log);
        Ok(done)
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
