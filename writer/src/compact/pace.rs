//! Keeping compaction below the foreground: so many bytes a second, and none while uploads lag.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::commit::Ended;
use crate::task::TaskState;

/// How often a compaction that waits for uploads looks whether they have caught up.
const LOOK: Duration = Duration::from_millis(200);

/// Spends bytes at a bounded rate.
pub(super) struct Pace {
    pub(super) bytes_per_second: u64,
    /// More bytes of the log than this wait for their upload: the bucket's and the device's time is theirs.
    pub(super) lag_bytes: u64,
    pub(super) task: watch::Receiver<TaskState>,
}

impl Pace {
    /// Returns when `bytes` that were read or written are paid for.
    pub(super) async fn spent(&self, bytes: u64) -> Result<(), Ended> {
        if bytes == 0 {
            return Ok(());
        }
        let seconds = bytes as f64 / self.bytes_per_second.max(1) as f64;
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        loop {
            let (lags, ended) = {
                let state = self.task.borrow();
                (state.full || state.waiting_bytes > self.lag_bytes, state.ended)
            };
            if ended {
                return Err(Ended);
            }
            if !lags {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }
}
