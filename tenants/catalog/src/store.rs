//! What the catalog needs of a store: a small, strongly consistent, watched map with transactions
//! and leases. etcd v3 has this shape and so has the embedded store; [`conformance`] is the contract in
//! executable form, and every backend must pass it.
//!
//! Keys are text, values are bytes. The store knows nothing of what they mean, and never interprets,
//! retries or merges: that is the caller's, who knows what a conflict means.

#[doc(hidden)]
pub mod conformance;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A version of the whole map. Each committed transaction that changes something takes the next one;
/// nothing else does; where a store holds several maps, those of the others do, and are never told to this
/// one's watches. The empty map before the first transaction has the smallest revision of its store (0
/// here, 1 in etcd). A key's *mod revision* is that of the transaction that last put it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A lease: keys that are put under it are deleted when it ends. Not reused within one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// The most operations and the most conditions in one transaction, as in etcd's default.
pub const MAX_OPS: usize = 128;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;

/// The most bytes in the keys and values of one transaction; below etcd's default of 1.5 MiB.
pub const MAX_TXN_BYTES: usize = 1 << 20;

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The transaction that last put it.
    pub mod_revision: Revision,
    /// The lease it lives under.
    pub lease: Option<LeaseId>,
}

/// The entries under a prefix, all as of one revision, in byte order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The revision they were read at. A watch from here misses nothing.
    pub revision: Revision,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// What must hold for a transaction to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent(String),
    /// The key exists and was last put by this transaction.
    ModRevision(String, Revision),
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets a key, and binds it to the lease or to none.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Bytes,
        /// The lease it lives under from now on.
        lease: Option<LeaseId>,
    },
    /// Removes a key; nothing happens if it does not exist.
    Delete {
        /// The key.
        key: String,
    },
}

impl Op {
    /// The key it changes.
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Changes that are made all or none, if all conditions hold. A key may be in one operation only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold, at the revision just before the transaction's own.
    pub conditions: Vec<Condition>,
    /// In no particular order.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only if the key does not exist.
    #[must_use]
    pub fn if_absent(mut self, key: impl Into<String>) -> Self {
        self.conditions.push(Condition::Absent(key.into()));
        self
    }

    /// Only if the key was last put at this revision.
    #[must_use]
    pub fn if_unchanged(mut self, key: impl Into<String>, since: Revision) -> Self {
        self.conditions.push(Condition::ModRevision(key.into(), since));
        self
    }

    /// Sets a key that lives until it is deleted.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: None });
        self
    }

    /// Sets a key that lives as long as the lease.
    #[must_use]
    pub fn put_leased(
        mut self,
        key: impl Into<String>,
        value: impl Into<Bytes>,
        lease: LeaseId,
    ) -> Self {
        self.ops.push(Op::Put { key: key.into(), value: value.into(), lease: Some(lease) });
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete { key: key.into() });
        self
    }

    /// Checks the bounds that every backend has in common.
    pub fn validate(&self) -> Result<(), StoreError> {
        if self.ops.len() > MAX_OPS || self.conditions.len() > MAX_OPS {
            return Err(StoreError::Invalid("a transaction has too many operations"));
        }
        let mut keys: Vec<&str> = self.ops.iter().map(Op::key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(StoreError::Invalid("a transaction changes a key twice"));
        }
        let conditions = self.conditions.iter().map(|condition| match condition {
            Condition::Absent(key) | Condition::ModRevision(key, _) => key.as_str(),
        });
        if keys.into_iter().chain(conditions).any(|key| key.is_empty() || key.len() > MAX_KEY_BYTES)
        {
            return Err(StoreError::Invalid("a key is empty or too long"));
        }
        let size = |op: &Op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        };
        if self.ops.iter().map(size).sum::<usize>() > MAX_TXN_BYTES {
            return Err(StoreError::Invalid("a transaction is too large"));
        }
        Ok(())
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Made, and durable. The revision is the transaction's, or the newest known to have changed the map
    /// if this one changed nothing: in either case one that a watch of the whole map reaches.
    Committed(Revision),
    /// A condition did not hold, and nothing was changed.
    Conflict,
}

/// What happened to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was set.
    Put(Entry),
    /// It was removed, by a transaction or by the end of its lease.
    Delete {
        /// The key.
        key: String,
    },
}

impl Event {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key } => key,
        }
    }
}

/// All that one transaction did under a watched prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The transaction's revision.
    pub revision: Revision,
    /// In byte order of the keys; never empty.
    pub events: Vec<Event>,
}

/// Why a store did not do what was asked. By what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Retry later: the store cannot be reached or cannot write. A transaction that fails so may
    /// have been made all the same, if the answer was lost; conditions tell when it is tried again.
    #[error("the metadata store is unavailable: {0}")]
    Unavailable(String),
    /// A bug of the caller: the request breaks a bound.
    #[error("invalid metadata request: {0}")]
    Invalid(&'static str),
    /// See to the store: a value in it is not what its key promises.
    #[error("{0}")]
    Corrupt(String),
    /// Grant another lease: this one has ended, and its keys are gone.
    #[error("the lease has ended")]
    LeaseEnded,
}

/// Why a watch ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Read the range again and watch from its revision: what came after the watch's position is no
    /// longer kept.
    #[error("the changes since the watch's revision are no longer kept")]
    Compacted,
    /// Watch again from the last revision seen: the store went away.
    #[error("the watch was interrupted: {0}")]
    Interrupted(String),
}

/// A position in the history of a prefix.
#[async_trait]
pub trait Watch: Send {
    /// The next transaction that changed something under the prefix. Each such transaction comes
    /// once, whole, in the order of revisions, without gaps. Safe to drop at any await: the next call
    /// goes on where this one would have.
    async fn next(&mut self) -> Result<Change, WatchError>;
}

/// A strongly consistent map.
///
/// *Ordering.* Transactions have one total order, that of their revisions, which agrees with real
/// time: what was committed before a call began is seen by it, reads included. *Durability.* A
/// transaction that is reported committed, or whose effect anyone has read or watched, survives any
/// crash. *Cancellation.* Dropping a call leaves it undecided whether a mutation is made; it is never
/// made in part. *Limits* are those of [`Txn::validate`].
#[async_trait]
pub trait MetadataStore: Send + Sync + 'static {
    /// One entry.
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError>;

    /// All entries whose keys begin with `prefix`.
    async fn range(&self, prefix: &str) -> Result<Range, StoreError>;

    /// Makes a transaction, if its conditions hold. [`StoreError::LeaseEnded`] if a put names a lease
    /// that does not exist.
    async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError>;

    /// Watches the keys that begin with `prefix`: the first change is the first after `after`. May
    /// be in the future. A position that is too old is reported by the first [`Watch::next`].
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Box<dyn Watch>, StoreError>;

    /// Makes a lease that ends when it has not been kept alive for `ttl` (at least a second). It may
    /// end later: a store that restarts or changes leader gives every lease its whole time again.
    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError>;

    /// Gives the lease its whole time again.
    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError>;

    /// Ends the lease now: its keys are deleted in one transaction. Nothing happens if it has ended.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError>;
}
