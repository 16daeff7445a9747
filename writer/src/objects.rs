//! Putting objects into the bucket, for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::sync::watch;

use crate::commit::Ended;
use crate::metrics::WriterMetrics;
use crate::task::TaskState;

/// The first pause between tries; each is twice the one before, up to the longest.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Sleeps, and gives the next pause.
pub(crate) async fn rest(pause: Duration) -> Duration {
    tokio::time::sleep(pause).await;
    (pause * 2).min(LONGEST_PAUSE)
}

/// The bucket as the owner of a volume writes to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) bucket: Arc<dyn ObjectStore>,
    pub(crate) task: watch::Receiver<TaskState>,
    pub(crate) metrics: WriterMetrics,
}

impl Objects {
    /// Puts an object under a name that nobody else ever writes; tries again while the volume is ours.
    pub(crate) async fn put(&self, key: &str, payload: &PutPayload) -> Result<(), Ended> {
        let mut pause = FIRST_PAUSE;
        loop {
            self.metrics.puts.inc();
            match self.bucket.put(&Path::from(key), payload.clone()).await {
                Ok(_) => return Ok(()),
                Err(_) if self.task.borrow().ended => return Err(Ended),
                Err(error) => {
                    self.metrics.upload_errors.inc();
                    tracing::warn!(key, %error, "upload failed; trying again");
                    pause = rest(pause).await;
                }
            }
        }
    }
}
