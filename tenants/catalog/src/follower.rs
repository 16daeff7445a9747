//! The task that makes the view follow the store: it alone writes the view. Each change of the store
//! is applied as a whole, then published, and only then counts as reached.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use sluice_model::Entropy;
use tokio::sync::{broadcast, watch};
use tracing::{error, warn};

use crate::catalog::Change;
use crate::layout;
use crate::store::{self, MetadataStore, Revision, StoreError, WatchError};
use crate::view::{Derivation, View};

/// How many changes a subscriber may be behind before it misses some.
const CHANGES_KEPT: usize = 4096;

/// What the follower writes and everyone reads.
pub(crate) struct Shared {
    pub(crate) view: RwLock<View>,
    pub(crate) how: Derivation,
    /// The revision that the view has reached. Written after the view.
    applied: watch::Sender<Revision>,
    changes: broadcast::Sender<Change>,
}

impl Shared {
    pub(crate) fn new(view: View, how: Derivation, revision: Revision) -> Self {
        Self {
            view: RwLock::new(view),
            how,
            applied: watch::Sender::new(revision),
            changes: broadcast::Sender::new(CHANGES_KEPT),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Waits until the view has reached a revision that is committed.
    pub(crate) async fn reach(&self, revision: Revision) -> Result<(), StoreError> {
        let mut applied = self.applied.subscribe();
        let reached = applied.wait_for(|seen| *seen >= revision).await;
        reached
            .map(drop)
            .map_err(|_| StoreError::Unavailable("the catalog has been closed".to_owned()))
    }
}

/// Moves the view on.
pub(crate) struct Follower {
    pub(crate) store: Arc<dyn MetadataStore>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Follower {
    /// Follows from a revision on, for ever.
    pub(crate) async fn run(self, mut position: Revision) {
        let mut failures = 0;
        loop {
            match self.follow(&mut position, &mut failures).await {
                WatchError::Compacted => match self.store.range(layout::PREFIX).await {
                    Ok(range) => {
                        position = range.revision;
                        self.resync(&range);
                        continue;
                    }
                    Err(error) => warn!(%error, "catalog cannot be read again; retrying"),
                },
                WatchError::Interrupted(reason) => {
                    warn!(reason, "catalog watch interrupted; retrying");
                }
            }
            tokio::time::sleep(backoff(failures, &*self.entropy)).await;
            failures += 1;
        }
    }

    /// Applies changes until the watch ends.
    async fn follow(&self, position: &mut Revision, failures: &mut u32) -> WatchError {
        let mut watch = match self.store.watch(layout::PREFIX, *position).await {
            Ok(watch) => watch,
            Err(error) => return WatchError::Interrupted(error.to_string()),
        };
        loop {
            match watch.next().await {
                Ok(change) => {
                    *failures = 0;
                    *position = change.revision;
                    self.apply(&change);
                }
                Err(error) => return error,
            }
        }
    }

    fn apply(&self, change: &store::Change) {
        let mut changes = Vec::with_capacity(change.events.len());
        let mut view = self.shared.view.write();
        for event in &change.events {
            match view.apply(event, &self.shared.how) {
                Ok(change) => changes.extend(change),
                Err(bad) => error!(%bad, "metadata record ignored"),
            }
        }
        drop(view);
        self.publish(change.revision, changes);
    }

    fn resync(&self, range: &store::Range) {
        let bad = |bad| error!(%bad, "metadata record ignored");
        let changes = self.shared.view.write().replace(&range.entries, &self.shared.how, bad);
        self.publish(range.revision, changes);
    }

    fn publish(&self, revision: Revision, changes: Vec<Change>) {
        for change in changes {
            // Nobody listening is no error.
            let _ = self.shared.changes.send(change);
        }
        self.shared.applied.send_replace(revision);
    }
}

/// 50 ms doubling to 3.2 s, less up to half at random so that many processes do not come back at once.
pub(crate) fn backoff(failures: u32, entropy: &dyn Entropy) -> Duration {
    let full_ms = 50u64 << failures.min(6);
    Duration::from_millis(full_ms - entropy.random_u64() % (full_ms / 2))
}
