//! The map, its leases and its recent history: pure. Recovery and the running store move it on by the
//! same records, so that what is recovered is what was there.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::frame::Record;
use crate::store::{Change, Condition, Entry, Event, LeaseId, Op, Range, Revision, Txn};

/// How many changes are kept for watches, and how many bytes of keys and values they may hold.
const HISTORY_CHANGES: usize = 4096;
const HISTORY_BYTES: usize = 8 << 20;

struct Stored {
    value: Bytes,
    mod_revision: Revision,
    lease: Option<LeaseId>,
}

impl Stored {
    fn entry(&self, key: &str) -> Entry {
        let Self { value, mod_revision, lease } = self;
        Entry {
            key: key.to_owned(),
            value: value.clone(),
            mod_revision: *mod_revision,
            lease: *lease,
        }
    }
}

pub(super) struct Lease {
    pub(super) ttl_ms: u64,
    keys: BTreeSet<String>,
}

#[derive(Default)]
pub(super) struct State {
    revision: Revision,
    last_lease: LeaseId,
    entries: BTreeMap<String, Stored>,
    leases: BTreeMap<LeaseId, Lease>,
    history: VecDeque<Arc<Change>>,
    history_bytes: usize,
    /// Changes after this revision are in the history.
    history_floor: Revision,
}

/// What the transactions of one group would leave, before they are durable.
#[derive(Default)]
pub(super) struct Staged {
    /// Revision of each key that was touched; `None` if it is deleted.
    keys: HashMap<String, Option<Revision>>,
    count: u64,
}

impl State {
    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    pub(super) fn next_lease(&self) -> LeaseId {
        LeaseId(self.last_lease.0 + 1)
    }

    pub(super) fn leases(&self) -> impl Iterator<Item = (LeaseId, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).map(|stored| stored.entry(key))
    }

    pub(super) fn range(&self, prefix: &str) -> Range {
        let entries = self
            .entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, stored)| stored.entry(key))
            .collect();
        Range { revision: self.revision, entries }
    }

    /// The first change after a revision, and whether one is kept; `Err` if it may have been dropped.
    pub(super) fn change_after(&self, after: Revision) -> Result<Option<Arc<Change>>, Dropped> {
        if after < self.history_floor {
            return Err(Dropped);
        }
        let at = self.history.partition_point(|change| change.revision <= after);
        Ok(self.history.get(at).cloned())
    }

    /// Evaluates a transaction on top of those staged before it, and stages it: the record that makes
    /// it, `None` if nothing would change, or `Err` if a condition does not hold.
    pub(super) fn stage(&self, txn: Txn, staged: &mut Staged) -> Result<Option<Record>, Unmet> {
        for condition in &txn.conditions {
            let holds = match condition {
                Condition::Absent(key) => self.staged_revision(key, staged).is_none(),
                Condition::ModRevision(key, since) => {
                    self.staged_revision(key, staged) == Some(*since)
                }
            };
            if !holds {
                return Err(Unmet);
            }
        }
        let mut ops = txn.ops;
        ops.retain(|op| {
            matches!(op, Op::Put { .. }) || self.staged_revision(op.key(), staged).is_some()
        });
        if ops.is_empty() {
            return Ok(None);
        }
        staged.count += 1;
        let revision = self.staged_last(staged);
        for op in &ops {
            let after = matches!(op, Op::Put { .. }).then_some(revision);
            staged.keys.insert(op.key().to_owned(), after);
        }
        Ok(Some(Record::Txn { revision, ops }))
    }

    /// The revision after all that is staged.
    pub(super) fn staged_last(&self, staged: &Staged) -> Revision {
        Revision(self.revision.0 + staged.count)
    }

    fn staged_revision(&self, key: &str, staged: &Staged) -> Option<Revision> {
        match staged.keys.get(key) {
            Some(revision) => *revision,
            None => self.entries.get(key).map(|stored| stored.mod_revision),
        }
    }

    /// The records that end a lease and delete its keys.
    pub(super) fn end_lease(&self, lease: LeaseId) -> Vec<Record> {
        let Some(held) = self.leases.get(&lease) else { return Vec::new() };
        let mut records = vec![Record::End { lease }];
        let ops: Vec<_> = held.keys.iter().map(|key| Op::Delete { key: key.clone() }).collect();
        if !ops.is_empty() {
            records.push(Record::Txn { revision: Revision(self.revision.0 + 1), ops });
        }
        records
    }

    /// Makes a record. `Err` says what does not fit; the state is then of no more use.
    pub(super) fn apply(&mut self, record: Record) -> Result<(), &'static str> {
        match record {
            Record::Base { .. } => return Err("a base record within a file"),
            Record::Grant { lease, ttl_ms } => {
                let new = Lease { ttl_ms, keys: BTreeSet::new() };
                if self.leases.insert(lease, new).is_some() {
                    return Err("a lease is granted twice");
                }
                self.last_lease = self.last_lease.max(lease);
            }
            Record::End { lease } => {
                // Its keys are deleted by the transaction that follows in the same frame.
                self.leases.remove(&lease).ok_or("an unknown lease ends")?;
            }
            Record::Entry(Entry { key, value, mod_revision, lease }) => {
                self.put(&key, Stored { value, mod_revision, lease })?;
            }
            Record::Txn { revision, ops } => {
                if revision.0 != self.revision.0 + 1 {
                    return Err("a revision is out of order");
                }
                self.revision = revision;
                let mut events = Vec::with_capacity(ops.len());
                for op in ops {
                    events.push(self.make(op)?);
                }
                self.remember(revision, events);
            }
        }
        Ok(())
    }

    /// The state that the first frame of a file begins from.
    pub(super) fn base(revision: Revision, last_lease: LeaseId) -> Self {
        Self { revision, last_lease, history_floor: revision, ..Self::default() }
    }

    /// Forgets the history: after recovery there is nobody who has seen it.
    pub(super) fn forget_history(&mut self) {
        self.history.clear();
        self.history_bytes = 0;
        self.history_floor = self.revision;
    }

    /// The whole state as records that build it again.
    pub(super) fn snapshot(&self) -> impl Iterator<Item = Record> {
        let base = Record::Base { revision: self.revision, last_lease: self.last_lease };
        let leases = self
            .leases
            .iter()
            .map(|(id, lease)| Record::Grant { lease: *id, ttl_ms: lease.ttl_ms });
        let entries = self.entries.iter().map(|(key, stored)| Record::Entry(stored.entry(key)));
        std::iter::once(base).chain(leases).chain(entries)
    }

    fn make(&mut self, op: Op) -> Result<Event, &'static str> {
        match op {
            Op::Put { key, value, lease } => {
                let mod_revision = self.revision;
                let stored = Stored { value, mod_revision, lease };
                let event = Event::Put(stored.entry(&key));
                self.put(&key, stored)?;
                Ok(event)
            }
            Op::Delete { key } => {
                let old = self.entries.remove(&key).ok_or("an unknown key is deleted")?;
                self.unbind(&key, old.lease);
                Ok(Event::Delete { key })
            }
        }
    }

    fn put(&mut self, key: &str, stored: Stored) -> Result<(), &'static str> {
        if let Some(lease) = stored.lease {
            let lease = self.leases.get_mut(&lease).ok_or("a key is put under an unknown lease")?;
            lease.keys.insert(key.to_owned());
        }
        let new = stored.lease;
        if let Some(old) = self.entries.insert(key.to_owned(), stored)
            && old.lease != new
        {
            self.unbind(key, old.lease);
        }
        Ok(())
    }

    fn unbind(&mut self, key: &str, lease: Option<LeaseId>) {
        if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
            lease.keys.remove(key);
        }
    }

    fn remember(&mut self, revision: Revision, mut events: Vec<Event>) {
        events.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        let change = Change { revision, events };
        self.history_bytes += size(&change);
        self.history.push_back(Arc::new(change));
        while self.history.len() > HISTORY_CHANGES || self.history_bytes > HISTORY_BYTES {
            let Some(oldest) = self.history.pop_front() else { break };
            self.history_bytes -= size(&oldest);
            self.history_floor = oldest.revision;
        }
    }
}

/// A condition does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unmet;

/// The change that was asked for may not be kept any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Dropped;

fn size(change: &Change) -> usize {
    let event = |event: &Event| match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Delete { key } => key.len(),
    };
    change.events.iter().map(event).sum()
}
