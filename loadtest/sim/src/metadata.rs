//! The catalog's store: a map on a host of its own, and the [`MetadataStore`] that the product's code
//! has of it over the network.
//!
//! The embedded store writes on threads, whose order no seed decides; this one keeps all in memory and
//! passes the same conformance suite. It never loses anything: its faults are those of the network.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sluice_catalog::store::{
    Change, Condition, Entry, Event, LeaseId, MetadataStore, Op, Outcome, Range, Revision,
    StoreError, Txn, Watch, WatchError,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::net::{Caller, Service};

/// The host's name.
pub(crate) const HOST: &str = "metadata";

const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a watch waits at the server before it asks again.
const POLL: Duration = Duration::from_millis(600);

pub(crate) type MetadataService = Service<Ask, Answer>;

#[derive(Debug)]
pub(crate) enum Ask {
    Get(String),
    Range(String),
    Commit(Txn),
    Grant(Duration),
    KeepAlive(LeaseId),
    Revoke(LeaseId),
    /// The next change under a prefix, or nothing after a while.
    Next(String, Revision),
}

#[derive(Debug)]
pub(crate) enum Answer {
    Entry(Option<Entry>),
    Range(Range),
    Outcome(Result<Outcome, StoreError>),
    Lease(LeaseId),
    Done(Result<(), StoreError>),
    /// The position reached, and the change there if it is under the prefix.
    Next(Revision, Option<Change>),
}

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
    keys: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct State {
    revision: Revision,
    entries: BTreeMap<String, Entry>,
    /// Every change there was; runs are short.
    changes: Vec<Change>,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: i64,
}

impl State {
    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Absent(key) => !self.entries.contains_key(key),
            Condition::ModRevision(key, revision) => {
                self.entries.get(key).is_some_and(|entry| entry.mod_revision == *revision)
            }
        }
    }

    fn commit(&mut self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.validate()?;
        if !txn.conditions.iter().all(|condition| self.holds(condition)) {
            return Ok(Outcome::Conflict);
        }
        let named = txn.ops.iter().filter_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        for lease in named {
            if !self.leases.contains_key(&lease) {
                return Err(StoreError::LeaseEnded);
            }
        }
        self.apply(txn.ops);
        Ok(Outcome::Committed(self.revision))
    }

    fn apply(&mut self, mut ops: Vec<Op>) {
        ops.retain(|op| matches!(op, Op::Put { .. }) || self.entries.contains_key(op.key()));
        if ops.is_empty() {
            return;
        }
        ops.sort_by(|a, b| a.key().cmp(b.key()));
        self.revision = Revision(self.revision.0 + 1);
        let revision = self.revision;
        let mut events = Vec::with_capacity(ops.len());
        for op in ops {
            if let Some(old) = self.entries.remove(op.key())
                && let Some(lease) = old.lease.and_then(|lease| self.leases.get_mut(&lease))
            {
                lease.keys.remove(op.key());
            }
            events.push(match op {
                Op::Put { key, value, lease } => {
                    if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
                        lease.keys.insert(key.clone());
                    }
                    let entry = Entry { key: key.clone(), value, mod_revision: revision, lease };
                    self.entries.insert(key, entry.clone());
                    Event::Put(entry)
                }
                Op::Delete { key } => Event::Delete { key },
            });
        }
        self.changes.push(Change { revision, events });
    }

    fn end_lease(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.apply(lease.keys.into_iter().map(|key| Op::Delete { key }).collect());
        }
    }

    fn expire(&mut self, now: Instant) {
        let ended: Vec<_> =
            self.leases.iter().filter(|(_, l)| l.ends <= now).map(|(id, _)| *id).collect();
        for id in ended {
            self.end_lease(id);
        }
    }

    fn range(&self, prefix: &str) -> Range {
        let under = self.entries.range(prefix.to_owned()..);
        let under = under.take_while(|(key, _)| key.starts_with(prefix));
        Range { revision: self.revision, entries: under.map(|(_, e)| e.clone()).collect() }
    }

    /// The first change after `position` under the prefix; moves the position on.
    fn next(&self, prefix: &str, position: &mut Revision) -> Option<Change> {
        let from = self.changes.partition_point(|change| change.revision <= *position);
        for change in &self.changes[from..] {
            *position = change.revision;
            let ours = |event: &&Event| event.key().starts_with(prefix);
            let events: Vec<_> = change.events.iter().filter(ours).cloned().collect();
            if !events.is_empty() {
                return Some(Change { revision: change.revision, events });
            }
        }
        None
    }
}

/// The map. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct MetadataServer {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl MetadataServer {
    /// Serves on this host for ever.
    pub(crate) async fn run(self, service: MetadataService) -> io::Result<()> {
        service.serve(|ask, caller| self.clone().handle(ask, caller)).await
    }

    async fn handle(self, ask: Ask, caller: Caller<Answer>) {
        caller.answer(self.perform(ask).await).await;
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        let done = {
            let mut state = self.state.lock();
            state.expire(Instant::now());
            work(&mut state)
        };
        self.changed.notify_waiters();
        done
    }

    async fn perform(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Get(key) => Answer::Entry(self.with(|state| state.entries.get(&key).cloned())),
            Ask::Range(prefix) => Answer::Range(self.with(|state| state.range(&prefix))),
            Ask::Commit(txn) => Answer::Outcome(self.with(|state| state.commit(txn))),
            Ask::Grant(ttl) => Answer::Lease(self.with(|state| {
                state.last_lease += 1;
                let lease = Lease { ttl, ends: Instant::now() + ttl, keys: BTreeSet::new() };
                state.leases.insert(LeaseId(state.last_lease), lease);
                LeaseId(state.last_lease)
            })),
            Ask::KeepAlive(id) => Answer::Done(self.with(|state| {
                let lease = state.leases.get_mut(&id).ok_or(StoreError::LeaseEnded)?;
                lease.ends = Instant::now() + lease.ttl;
                Ok(())
            })),
            Ask::Revoke(id) => {
                self.with(|state| state.end_lease(id));
                Answer::Done(Ok(()))
            }
            Ask::Next(prefix, after) => {
                let mut position = after;
                let found = tokio::time::timeout(POLL, self.next(&prefix, &mut position)).await;
                Answer::Next(position, found.ok())
            }
        }
    }

    async fn next(&self, prefix: &str, position: &mut Revision) -> Change {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // Registered before the look, so that no wake-up falls between.
            changed.as_mut().enable();
            let (found, lease_ends) = {
                let mut state = self.state.lock();
                state.expire(Instant::now());
                (state.next(prefix, position), state.leases.values().map(|l| l.ends).min())
            };
            match (found, lease_ends) {
                (Some(change), _) => return change,
                (None, None) => changed.await,
                // The end of a lease is a change that nobody announces.
                (None, Some(ends)) => drop(tokio::time::timeout_at(ends, changed).await),
            }
        }
    }
}

/// How a host reaches the map.
#[derive(Clone, Debug)]
pub(crate) enum MetadataClient {
    /// Over the network.
    Remote(MetadataService),
    /// In the same place: for the conformance suite.
    #[cfg(test)]
    Local(MetadataServer),
}

impl MetadataClient {
    async fn ask(&self, ask: Ask) -> Result<Answer, StoreError> {
        match self {
            Self::Remote(service) => service
                .call(HOST, ask, TIMEOUT)
                .await
                .ok_or_else(|| StoreError::Unavailable("no answer in time".to_owned())),
            #[cfg(test)]
            Self::Local(server) => Ok(server.perform(ask).await),
        }
    }
}

fn foreign<T>() -> Result<T, StoreError> {
    Err(StoreError::Corrupt("a foreign answer".to_owned()))
}

#[async_trait]
impl MetadataStore for MetadataClient {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        match self.ask(Ask::Get(key.to_owned())).await? {
            Answer::Entry(entry) => Ok(entry),
            _ => foreign(),
        }
    }

    async fn range(&self, prefix: &str) -> Result<Range, StoreError> {
        match self.ask(Ask::Range(prefix.to_owned())).await? {
            Answer::Range(range) => Ok(range),
            _ => foreign(),
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        match self.ask(Ask::Commit(txn)).await? {
            Answer::Outcome(outcome) => outcome,
            _ => foreign(),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError> {
        let (client, prefix) = (self.clone(), prefix.to_owned());
        Ok(Box::new(PollingWatch { client, prefix, position: after }))
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        match self.ask(Ask::Grant(ttl)).await? {
            Answer::Lease(id) => Ok(id),
            _ => foreign(),
        }
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.ask(Ask::KeepAlive(lease)).await? {
            Answer::Done(done) => done,
            _ => foreign(),
        }
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self.ask(Ask::Revoke(lease)).await? {
            Answer::Done(done) => done,
            _ => foreign(),
        }
    }
}

struct PollingWatch {
    client: MetadataClient,
    prefix: String,
    position: Revision,
}

#[async_trait]
impl Watch for PollingWatch {
    async fn next(&mut self) -> Result<Change, WatchError> {
        loop {
            let answer = self.client.ask(Ask::Next(self.prefix.clone(), self.position)).await;
            match answer.map_err(|error| WatchError::Interrupted(error.to_string()))? {
                Answer::Next(position, change) => {
                    self.position = position;
                    if let Some(change) = change {
                        return Ok(change);
                    }
                }
                _ => return Err(WatchError::Interrupted("a foreign answer".to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn keeps_the_contract_of_metadata_stores() {
        sluice_catalog::store::conformance::all(async || {
            Arc::new(MetadataClient::Local(MetadataServer::default())) as Arc<dyn MetadataStore>
        })
        .await;
    }
}
