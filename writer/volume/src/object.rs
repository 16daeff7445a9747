//! Volumes whose log lies in the bucket itself: for places without shared disks, or where a zone with all
//! its disks may be lost. An append costs a PUT's time and, alone, a PUT's price; so frames that come
//! close after another share an object, and several objects are put at once.
//!
//! Fencing needs nothing but create-if-absent: objects are named by epoch and position, and a new
//! owner puts a seal where the older owner's next object would have to go. Format and argument are in
//! `docs/formats.md`, section "Object volume".
//!
//! Where things are: `layout` is the bytes; `store` asks the bucket until it answers; `chain` finds and
//! seals the log's end; `recovery` reads it; `log` is the open volume.
//!
//! What it does not do: a bucket that fails is waited for, by an open too. It does not limit itself to a
//! request rate but by the linger time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStore, PutPayload};
use sluice_model::{Entropy, VolumeEpoch, VolumeId};

use crate::error::{CreateError, OpenError};
use crate::file::OpenOptions;
use crate::geometry::{Geometry, LEAST_RING_BYTES, RING_OFFSET};
use crate::volume::Recovery;

mod chain;
mod layout;
mod log;
mod recovery;
mod store;

use self::chain::Opener;
use self::layout::{Descriptor, Entry, Header, Link, TrimState, Undecodable};
use self::log::Foundation;
use self::recovery::ObjectRecovery;
use self::store::{Bucket, Created};

pub use self::store::ObjectCosts;

/// How an object volume writes.
#[derive(Clone, Copy, Debug)]
pub struct ObjectOptions {
    /// The least time from one PUT to the next while objects are not full. A frame that comes later than
    /// this after the last PUT goes at once; so an idle volume answers as fast as the bucket does, and
    /// a busy one costs at most one PUT in this time, or one for each full object. Where 2 MiB wait
    /// and nothing follows they go earlier: their producers wait for it.
    pub linger: Duration,
    /// How large an object may become, unless one frame is larger; at most 64 MiB.
    pub object_bytes: usize,
    /// How many PUTs may be under way.
    pub puts_in_flight: usize,
    /// How many frames may be in flight. They are bounded by bytes too: see `window_bytes`.
    pub frames_in_flight: usize,
    /// How many bytes may be in flight, all of which are in memory.
    pub window_bytes: u64,
}

impl Default for ObjectOptions {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(100),
            object_bytes: 8 << 20,
            puts_in_flight: 4,
            frames_in_flight: 64,
            window_bytes: 40 << 20,
        }
    }
}

/// Where an object volume lies: a directory of a bucket. Clones share the count of costs.
#[derive(Clone)]
pub struct ObjectVolume {
    bucket: Bucket,
    directory: Path,
    size_bytes: u64,
    options: ObjectOptions,
}

impl ObjectVolume {
    /// The volume under `directory` (`a/b/c`, no slash at its ends), which has `size_bytes` when it has to
    /// be created: at least 128 KiB, 64 KiB of which are not used for frames, as in all kinds.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        directory: &str,
        size_bytes: u64,
        entropy: Arc<dyn Entropy>,
        options: ObjectOptions,
    ) -> Self {
        let bucket = Bucket { store, entropy, costs: Arc::default() };
        let object_bytes = options.object_bytes.clamp(1, 64 << 20);
        let options = ObjectOptions { object_bytes, ..options };
        Self { bucket, directory: Path::from(directory), size_bytes, options }
    }

    /// What was asked of the bucket so far.
    pub fn costs(&self) -> &ObjectCosts {
        &self.bucket.costs
    }

    /// Whether the volume was created before. Waits for a bucket that does not answer.
    pub async fn exists(&self) -> bool {
        self.bucket.head(&self.descriptor_path()).await.is_some()
    }

    /// Creates the volume; of two creators one wins.
    pub async fn create(&self, id: VolumeId, uuid: [u8; 16]) -> Result<(), CreateError> {
        let exists = || CreateError::Exists(self.directory.to_string().into());
        let size_bytes = self.size_bytes;
        if Geometry::new(size_bytes, self.options.window_bytes).is_none() {
            let least_bytes = RING_OFFSET + LEAST_RING_BYTES;
            return Err(CreateError::Size { size_bytes, least_bytes });
        }
        if self.exists().await {
            return Err(exists());
        }
        // The log's first object, of the epoch before all owners', comes first. If another creator put
        // one, it may have gone no further: then this one ends what that one began.
        let uuid = self.begin(id, uuid).await.ok_or_else(exists)?;
        let descriptor = Descriptor { id, uuid, size_bytes }.encode();
        let payload = PutPayload::from(descriptor.to_vec());
        let at = self.descriptor_path();
        match self.bucket.create(&at, &descriptor, payload, |_| ()).await {
            Created::Won => Ok(()),
            Created::Lost(_) => Err(exists()),
        }
    }

    /// Puts the log's first object; the uuid of the one that lies there then.
    async fn begin(&self, id: VolumeId, uuid: [u8; 16]) -> Option<[u8; 16]> {
        let epoch = VolumeEpoch(0);
        let header = Header {
            link: Link { id, uuid, epoch, position: 0, start: 0, previous: epoch },
            durable: 0,
            first: 0,
            end: 0,
            trim: TrimState::default(),
            frames: 0,
            body_bytes: 0,
            frames_crc: crate::frame::crc32c(&[]),
        };
        let bytes = header.encode();
        let at = self.log().join(header.link.name());
        match self.bucket.create(&at, &bytes, PutPayload::from(bytes.to_vec()), |_| ()).await {
            Created::Won => Some(uuid),
            Created::Lost(found) => match Entry::decode(&found) {
                Ok(entry) => Some(entry.link().uuid),
                Err(_) => None,
            },
        }
    }

    /// Opens the volume `id` under `epoch`, which must be larger than any before: seals the log against
    /// every older owner. The log is read by the recovery. Waits for a bucket that does not answer.
    /// Of `options` the queue depth and the zeros are of no matter here.
    pub async fn open(
        &self,
        id: VolumeId,
        epoch: VolumeEpoch,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        let bytes = self.bucket.get(&self.descriptor_path()).await.ok_or(OpenError::Missing)?;
        let volume = Descriptor::decode(&bytes).map_err(|why| match why {
            Undecodable::Invalid => OpenError::LostObject(self.descriptor_path().to_string()),
            Undecodable::Unsupported(version) => OpenError::Unsupported(version.into()),
        })?;
        if volume.id != id {
            return Err(OpenError::WrongVolume { found: volume.id, wanted: id });
        }
        let geometry = Geometry::new(volume.size_bytes, self.options.window_bytes);
        let geometry =
            geometry.ok_or_else(|| OpenError::LostObject(self.descriptor_path().to_string()))?;
        tracing::info!(volume = %id, directory = %self.directory, "opening volume in the bucket");
        let (bucket, log) = (self.bucket.clone(), self.log());
        let nonce = bucket.entropy.random_16();
        let opener = Opener { bucket: &bucket, log: &log, volume, epoch, nonce };
        let chain = opener.close_chain().await?;
        let base = Foundation {
            bucket: bucket.clone(),
            log: log.clone(),
            volume,
            geometry,
            epoch,
            start: chain.start,
            previous: chain.previous,
            object: self.options,
            open: options,
        };
        Ok(Box::new(ObjectRecovery::new(base, chain)))
    }

    fn descriptor_path(&self) -> Path {
        self.directory.clone().join("volume")
    }

    fn log(&self) -> Path {
        self.directory.clone().join("log")
    }
}

impl fmt::Debug for ObjectVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectVolume").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl fmt::Display for ObjectVolume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in the bucket", self.directory)
    }
}

#[cfg(test)]
mod tests;
