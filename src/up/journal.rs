//! Who journals the catalog to the bucket: whoever owns its first volume, and so one node of a cluster. While two
//! believe it, the journal's own epochs tell which of them counts.

use std::time::Duration;

use sluice_catalog::journal::{Journal, JournalParts};
use sluice_catalog::{Catalog, Change};
use sluice_model::NodeId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

/// Journals while it is this node's to do.
pub(super) struct JournalKeeper {
    /// How long the end may take, once there is one.
    close: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

impl JournalKeeper {
    pub(super) fn start(node: NodeId, catalog: Catalog, parts: JournalParts) -> Self {
        let (close, closing) = watch::channel(None);
        let task = tokio::spawn(follow(node, catalog, parts, closing));
        Self { close, task }
    }

    /// Puts what is missing within `limit`, and ends.
    pub(super) async fn close(self, limit: Duration) {
        self.close.send_replace(Some(limit));
        // A panic was logged.
        let _ = self.task.await;
    }
}

async fn follow(
    node: NodeId,
    catalog: Catalog,
    parts: JournalParts,
    mut closing: watch::Receiver<Option<Duration>>,
) {
    let mut changes = catalog.subscribe();
    let mut journal: Option<Journal> = None;
    loop {
        let first = catalog.first_volume();
        let is_ours = first.is_some_and(|first| first.owner == Some(node));
        match (is_ours, journal.take()) {
            (true, None) => journal = Some(Journal::start(parts.clone())),
            (true, running) => journal = running,
            // Its new owner begins with all that is there.
            (false, Some(running)) => drop(running),
            (false, None) => {}
        }
        tokio::select! {
            limit = told(&mut closing) => {
                if let Some(journal) = journal {
                    journal.close(limit).await;
                }
                return;
            }
            () = owner_changed(&mut changes) => {}
        }
    }
}

/// Returns how long the end may take, when it has come. A sender that is gone means at once.
async fn told(closing: &mut watch::Receiver<Option<Duration>>) -> Duration {
    let limit = closing.wait_for(Option::is_some).await;
    limit.ok().and_then(|limit| *limit).unwrap_or_default()
}

/// Returns when a volume may have another owner.
async fn owner_changed(changes: &mut broadcast::Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::VolumeChanged(_) | Change::VolumeGone(_)) | Err(RecvError::Lagged(_)) => {
                return;
            }
            Ok(_) => {}
            // The catalog is going.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}
