//! Opening a volume and reading its log back: from the trim point to the first place that holds no frame
//! of the log. Owns the disk until the log is ready. Writes nothing but superblocks.

use std::sync::Arc;

use async_trait::async_trait;
use sluice_model::{VolumeEpoch, VolumeId};

use crate::disk::{Disk, Slots, WriteError};
use crate::error::{OpenError, RecoveryError};
use crate::log::{Log, Settings};
use crate::superblock::{NotASuperblock, Superblock};
use crate::volume::{Lsn, RecoveredFrame, Recovery, Volume};
use crate::walk::{LogEnd, Step, Walk};

/// Opens the volume on `disk` under `epoch`: checks what it is, and fences every older epoch.
pub(crate) async fn open<D: Disk>(
    disk: D,
    id: VolumeId,
    epoch: VolumeEpoch,
    settings: Settings,
) -> Result<Box<dyn Recovery>, OpenError> {
    let disk = Arc::new(disk);
    let opened = claim(&disk, id, epoch, settings).await;
    if opened.is_err() {
        // Whoever tries again is not to meet this attempt's lock.
        disk.stop();
        disk.released().await;
    }
    opened
}

async fn claim<D: Disk>(
    disk: &Arc<D>,
    id: VolumeId,
    epoch: VolumeEpoch,
    settings: Settings,
) -> Result<Box<dyn Recovery>, OpenError> {
    let mut slots = Slots::load(&**disk).await?.map_err(NotASuperblock::refusal)?;
    let found = *slots.current();
    found.admit(id, epoch)?;
    let (actual_bytes, wanted_bytes) = (disk.size_bytes(), found.geometry.device_bytes);
    if actual_bytes < wanted_bytes {
        return Err(OpenError::Truncated { actual_bytes, wanted_bytes });
    }
    match slots.store(&**disk, Superblock { epoch, ..found }).await {
        Ok(()) => {}
        Err(WriteError::Io(error)) => return Err(OpenError::Io(error)),
        // A device that knows more than its superblock: someone with a larger epoch is about to write.
        Err(WriteError::Fenced) => return Err(OpenError::Fenced { stored: epoch }),
    }
    let (disk, walk) = (Arc::clone(disk), Walk::new(Arc::clone(disk), found));
    Ok(Box::new(Scan { superblock: found, walk, ended: false, disk, slots, settings }))
}

/// A recovery under way.
struct Scan<D: Disk> {
    disk: Arc<D>,
    slots: Slots,
    settings: Settings,
    /// As the owner before left it: what it says of the log.
    superblock: Superblock,
    walk: Walk<D>,
    /// The end was found, and nothing contradicts it.
    ended: bool,
}

#[async_trait]
impl<D: Disk> Recovery for Scan<D> {
    fn id(&self) -> VolumeId {
        self.superblock.id
    }

    fn epoch(&self) -> VolumeEpoch {
        self.slots.current().epoch
    }

    fn trim(&self) -> Lsn {
        Lsn(self.superblock.trim)
    }

    fn hint(&self) -> u64 {
        self.superblock.hint
    }

    async fn next(&mut self) -> Result<Option<RecoveredFrame>, RecoveryError> {
        if self.ended {
            return Ok(None);
        }
        match self.walk.step().await? {
            Step::Frame(frame) => return Ok(Some(frame)),
            Step::End(LogEnd::Clean) => {}
            Step::End(LogEnd::Unsupported { version }) => {
                let at = Lsn(self.walk.position());
                return Err(RecoveryError::Unsupported { at, version });
            }
            Step::End(_) => self.check_end().await?,
        }
        self.ended = true;
        Ok(None)
    }

    async fn finish(mut self: Box<Self>) -> Result<Arc<dyn Volume>, RecoveryError> {
        while self.next().await?.is_some() {}
        let head = self.walk.position();
        let current = *self.slots.current();
        let next = Superblock {
            log_epoch: current.epoch,
            log_start: head,
            durable: head,
            clean: false,
            ..current
        };
        match self.slots.store(&*self.disk, next).await {
            Ok(()) => {}
            Err(WriteError::Io(error)) => return Err(RecoveryError::Io(error)),
            Err(WriteError::Fenced) => return Err(RecoveryError::Fenced),
        }
        let used_bytes = head - current.trim;
        tracing::info!(volume = %current.id, epoch = current.epoch.0, used_bytes, "volume opened");
        Ok(Arc::new(Log::new(self.disk, self.slots, self.settings, head)))
    }
}

impl<D: Disk> Scan<D> {
    /// Makes sure that nothing contradicts the end that was found.
    async fn check_end(&mut self) -> Result<(), RecoveryError> {
        let at = Lsn(self.walk.position());
        match self.walk.durable_beyond().await? {
            Some(durable) => Err(RecoveryError::Corrupt { at, durable }),
            None => Ok(()),
        }
    }
}
