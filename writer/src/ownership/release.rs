//! Planned handover: the tail goes to the bucket while appends go on; then the volume is sealed, closed and given
//! up, which takes no longer than the writes that are in flight. What was appended during the last upload is left
//! in the log: the next owner reads a few MiB from the device sooner than this one could put them in the bucket.

use std::sync::Arc;
use std::time::Duration;

use sluice_model::{VolumeEpoch, VolumeId};
use tokio::time::Instant;

use crate::error::ReleaseError;
use crate::options::Shift;
use crate::volume_handle::OwnedVolume;
use crate::writer::{Inner, Writer};

/// So little in the log is read back in no time: no more rounds of uploads.
const LITTLE_BYTES: u64 = 4 << 20;
/// The catalog is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long the catalog is asked to note that the volume has no owner.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(5);

/// A volume that was given up, and how long each part took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch under which it was served; the next owner's is larger.
    pub epoch: VolumeEpoch,
    /// Uploading, with appends going on.
    pub flush: Duration,
    /// From the first append that was held to the device being let go of.
    pub close: Duration,
    /// Giving up the ownership in the catalog.
    pub give_up: Duration,
    /// Bytes of the log that were left to the next owner.
    pub left_bytes: u64,
}

impl Writer {
    /// Hands a volume over: uploads its tail for at most `flush`, with appends going on, then takes no more, makes
    /// durable what was queued, closes the device and gives the ownership up in the catalog. Appends that come
    /// in between are held until then and answered with [`crate::AppendError::NotOwner`], fetches are so at once;
    /// coordinators that live on the volume answer that they are not here.
    ///
    /// # Errors
    /// [`ReleaseError::NotGivenUp`]: the volume is closed and not served, but the catalog still says that it is
    /// ours. [`ReleaseError::Lost`]: it was lost while its tail was uploaded. Dropping the future while the tail is
    /// uploaded leaves the volume as it was; after that the release goes on by itself.
    pub async fn release(&self, id: VolumeId, flush: Duration) -> Result<Released, ReleaseError> {
        let volume = self.inner.volumes.begin_release(id)?;
        let epoch = volume.epoch();
        let mut intent = Intent { inner: &self.inner, id, epoch, is_sealed: false };
        let begun = Instant::now();
        upload(&volume, flush).await;
        let flush = begun.elapsed();
        drop(volume);
        let sealed = Instant::now();
        let volume = self.inner.volumes.leave(id, epoch, true);
        let volume = volume.ok_or(ReleaseError::Lost { volume: id.0 })?;
        intent.is_sealed = true;
        let inner = Arc::clone(&self.inner);
        let rest = tokio::spawn(async move {
            inner.stop_coordinators(id);
            (inner.on_shift)(Shift::Gone { volume: id });
            volume.wake_readers();
            volume.close(Duration::ZERO).await;
            let left_bytes = volume.waiting_bytes();
            drop(volume);
            let close = sealed.elapsed();
            let given_up = inner.give_up(id, epoch).await;
            let give_up = sealed.elapsed().saturating_sub(close);
            inner.metrics.ownership.volumes.dec();
            inner.metrics.ownership.released(sealed.elapsed());
            inner.volumes.free(id);
            let released = Released { volume: id, epoch, flush, close, give_up, left_bytes };
            tracing::info!(
                volume = id.0,
                epoch = epoch.0,
                flush_ms = flush.as_millis() as u64,
                close_ms = close.as_millis() as u64,
                give_up_ms = give_up.as_millis() as u64,
                left_bytes,
                given_up = given_up.is_ok(),
                "volume released"
            );
            given_up.map(|()| released)
        });
        // It is neither aborted nor does it panic, or the process ends.
        rest.await.unwrap_or(Err(ReleaseError::Lost { volume: id.0 }))
    }
}

/// A release that nothing has come of yet: taken back when it is dropped.
struct Intent<'a> {
    inner: &'a Inner,
    id: VolumeId,
    epoch: VolumeEpoch,
    is_sealed: bool,
}

impl Drop for Intent<'_> {
    fn drop(&mut self) {
        if !self.is_sealed {
            self.inner.volumes.end_release(self.id, self.epoch);
        }
    }
}

/// Uploads until little is left, or uploads do not gain on appends any more, or the time is up.
pub(crate) async fn upload(volume: &OwnedVolume, within: Duration) {
    let rounds = async {
        let mut before = u64::MAX;
        loop {
            volume.flush().await;
            let left = volume.waiting_bytes();
            if left <= LITTLE_BYTES || left >= before / 2 {
                return;
            }
            before = left;
        }
    };
    // What is left stays in the log, as after a crash.
    let _ = tokio::time::timeout(within, rounds).await;
}

impl Inner {
    async fn give_up(&self, id: VolumeId, epoch: VolumeEpoch) -> Result<(), ReleaseError> {
        let until = Instant::now() + GIVE_UP_WITHIN;
        loop {
            let given = self.around.catalog.release_volume(id, self.around.node, epoch);
            let why = match tokio::time::timeout_at(until, given).await {
                // Another has claimed it already.
                Ok(Ok(()) | Err(sluice_catalog::ReleaseVolumeError::NotOwner { .. })) => {
                    return Ok(());
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the catalog does not answer".to_owned(),
            };
            if Instant::now() + ASK_AGAIN >= until {
                return Err(ReleaseError::NotGivenUp { volume: id.0, why });
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }
}
