//! Looking at an object volume without opening it: it seals nothing, so it may look at a volume that is in
//! use. Then what it sees may change under it: look again before you believe a damage.

use sluice_model::{VolumeEpoch, VolumeId};

use super::chain::Opener;
use super::recovery::ObjectRecovery;
use super::{Foundation, ObjectVolume};
use crate::error::{OpenError, RecoveryError};
use crate::file::OpenOptions;
use crate::volume::{Lsn, RecoveredFrame, Recovery};

/// Larger than every owner's.
const NOBODYS_EPOCH: VolumeEpoch = VolumeEpoch(u32::MAX);

/// An object volume's log as it was when it was looked at.
pub struct ObjectLook {
    /// The volume's id in the catalog.
    pub id: VolumeId,
    /// Random, of the volume's creation.
    pub uuid: [u8; 16],
    /// The bytes of frames that its log may hold, and 64 KiB.
    pub size_bytes: u64,
    /// The last epoch under which the log was written.
    pub epoch: VolumeEpoch,
    /// Where the log begins.
    pub trim: Lsn,
    /// Where it ends.
    pub end: Lsn,
    /// The owner's own number, stored with the trim point.
    pub hint: u64,
    /// Objects that the log consists of, from the trim point on.
    pub objects: u64,
    /// Objects that are no part of the log: trimmed and not deleted yet, or dead writes of older owners.
    pub leftovers: u64,
    recovery: ObjectRecovery,
}

impl ObjectLook {
    /// The next frame, its checksums verified; `None` at the log's end.
    ///
    /// # Errors
    /// What a recovery would say to the log. [`RecoveryError::Fenced`]: it was trimmed meanwhile.
    pub async fn next(&mut self) -> Result<Option<RecoveredFrame>, RecoveryError> {
        self.recovery.next().await
    }
}

impl ObjectVolume {
    /// Looks at the volume. Waits for a bucket that does not answer.
    ///
    /// # Errors
    /// As [`Self::open`] does, but for fencing: nobody is kept out, and nobody is in the way.
    pub async fn look(&self) -> Result<ObjectLook, OpenError> {
        let (volume, geometry) = self.described().await?;
        let (bucket, log) = (self.bucket.clone(), self.log());
        let looker =
            Opener { bucket: &bucket, log: &log, volume, epoch: NOBODYS_EPOCH, nonce: [0; 16] };
        let chain = looker.look().await?;
        let (last, leftovers) = (chain.last, chain.leftovers.len() as u64);
        let objects = chain.ranges.iter().map(|(_, range)| range.end - range.start).sum();
        let base = Foundation {
            bucket,
            log,
            volume,
            geometry,
            epoch: NOBODYS_EPOCH,
            start: chain.start,
            previous: chain.previous,
            object: self.options,
            open: OpenOptions::default(),
        };
        Ok(ObjectLook {
            id: volume.id,
            uuid: volume.uuid,
            size_bytes: volume.size_bytes,
            epoch: last.link.epoch,
            trim: Lsn(last.trim.lsn),
            end: Lsn(last.end),
            hint: last.trim.hint,
            objects,
            leftovers,
            recovery: ObjectRecovery::new(base, chain),
        })
    }
}
