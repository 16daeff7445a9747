//! Objects that nothing names any more, and the task that deletes them.
//!
//! Whoever read a manifest before may still read what it names, so an object waits a grace time between
//! its last reference and its end. Best effort: what is not deleted (a crash, a bucket that refuses) is an
//! orphan, which costs room and nothing else; orphan collection finds it. Nothing here decides *what* is
//! dead: that is said by a committed manifest, before anything is condemned.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::metrics::WriterMetrics;

/// Deletions are gathered for this long, since a store deletes many objects with one request.
const GATHER: Duration = Duration::from_millis(200);
/// Objects in one round at most; a store's own limit for one request is about as large.
const ROUND: usize = 1000;

struct Condemned {
    at: Instant,
    path: Path,
}

/// Takes what is to be deleted. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Deletions {
    queue: mpsc::UnboundedSender<Condemned>,
}

impl Deletions {
    /// A handle, and the task, which the caller runs. It ends when the last handle is gone; what waits
    /// then is left to orphan collection.
    pub(crate) fn new(
        bucket: &Arc<dyn ObjectStore>,
        metrics: &WriterMetrics,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, condemned) = mpsc::unbounded_channel();
        let task =
            Task { bucket: Arc::clone(bucket), metrics: metrics.clone(), waiting: Vec::new() };
        (Self { queue }, task.run(condemned))
    }

    /// Deletes the objects after `grace`. No committed manifest may name them.
    pub(crate) fn condemn(&self, paths: impl IntoIterator<Item = Path>, grace: Duration) {
        let at = Instant::now() + grace;
        for path in paths {
            // The task is gone only when service ends; then they are orphans.
            let _ = self.queue.send(Condemned { at, path });
        }
    }
}

struct Task {
    bucket: Arc<dyn ObjectStore>,
    metrics: WriterMetrics,
    waiting: Vec<Condemned>,
}

impl Task {
    async fn run(mut self, mut condemned: mpsc::UnboundedReceiver<Condemned>) {
        loop {
            let next = self.waiting.iter().map(|condemned| condemned.at).min();
            tokio::select! {
                received = condemned.recv() => match received {
                    Some(received) => self.waiting.push(received),
                    None => return,
                },
                () = due(next) => self.delete().await,
            }
        }
    }

    async fn delete(&mut self) {
        let now = Instant::now();
        let mut paths = Vec::new();
        self.waiting.retain(|condemned| {
            let stays = condemned.at > now || paths.len() == ROUND;
            if !stays {
                paths.push(condemned.path.clone());
            }
            stays
        });
        let mut answers = self.bucket.delete_stream(stream::iter(paths).map(Ok).boxed());
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(_) => {
                    self.metrics.deletes.inc();
                }
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => tracing::warn!(%error, "an object could not be deleted"),
            }
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at + GATHER).await,
        None => std::future::pending().await,
    }
}
