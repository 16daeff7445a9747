//! A volume's manifests in the bucket: loading the state, committing the next version.
//!
//! Owned by the volume's committer (`commit.rs`). A version is created if absent, so of two owners
//! that both try, one finds it taken; it reads what is there and learns that it was fenced.

use std::future::ready;
use std::ops::Range;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::state::Violation;
use sluice_format::{FormatError, Manifest, ManifestBody, SegmentId, VolumeChange, VolumeState};

/// A commit writes the whole state when the changes since the last whole one take this part of its bytes:
/// so what is written for whole states stays within a constant factor of what changed.
const CHANGES_PART_OF_FULL: u64 = 2;
/// But not before the changes take this much.
const CHANGES_MIN_BYTES: u64 = 256 << 10;
/// And at the latest after so many changes, as each is a GET when the state is loaded.
const CHANGES_PER_FULL: u64 = 1024;
/// How often a manifest is read before it is believed to be damaged where it lies.
const MOST_READS: u32 = 3;
/// Manifests that are read at once when the state is loaded.
const LOAD_AHEAD: usize = 32;

/// Why manifests could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bucket does not answer as it should: try again.
    #[error("the bucket is unavailable: {0}")]
    Bucket(#[from] object_store::Error),
    /// A newer owner has committed: stop serving the volume.
    #[error("another owner, under volume epoch {0}, has committed to the volume")]
    Fenced(u32),
    /// A manifest is damaged or missing.
    #[error("manifest {key}: {error}")]
    Corrupt {
        /// The object.
        key: String,
        /// What is wrong.
        error: FormatError,
    },
    /// Versions are missing between the base and the newest.
    #[error("manifest {0} is missing although a newer one exists")]
    Gap(String),
    /// The change does not follow from the state: a bug, and nothing was written.
    #[error("a manifest would break an invariant: {0}")]
    Violation(#[from] Violation),
}

/// The state of one volume in the bucket, and how to change it.
pub struct ManifestStore {
    bucket: Arc<dyn ObjectStore>,
    keys: Keys,
    volume: u32,
    state: Arc<RwLock<VolumeState>>,
    /// The newest whole state, 0 if there is none, and its bytes.
    base_version: u64,
    base_bytes: u64,
    /// Bytes of the changes after it.
    change_bytes: u64,
    /// No version below this is in the bucket, but for orphans.
    oldest: u64,
}

/// What a commit did.
#[derive(Debug)]
pub struct Written {
    /// Segments that nothing refers to any more.
    pub dead: Vec<SegmentId>,
    /// Versions of the manifest that nobody needs any more. Whoever is loading the state has at least one
    /// whole period to finish.
    pub obsolete: Range<u64>,
    /// The manifest's length.
    pub bytes: u64,
    /// Extents that left with their records.
    pub retired_extents: u64,
}

impl ManifestStore {
    /// Loads the newest state. `hint` is a version that is known to exist, or 0.
    pub async fn load(
        bucket: Arc<dyn ObjectStore>,
        keys: Keys,
        volume: u32,
        hint: u64,
    ) -> Result<Self, ManifestError> {
        let mut store = Self {
            bucket,
            keys,
            volume,
            state: Arc::default(),
            base_version: 0,
            base_bytes: 0,
            change_bytes: 0,
            oldest: 0,
        };
        let Some(newest) = store.newest(hint).await? else {
            return Ok(store);
        };
        store.base_version = newest.manifest.base_version;
        store.oldest = store.base_version.saturating_sub(CHANGES_PER_FULL);
        let (state, base_bytes, change_bytes) = store.replay(newest).await?;
        (store.base_bytes, store.change_bytes) = (base_bytes, change_bytes);
        *store.state.write() = state;
        Ok(store)
    }

    /// The state as of `newest`, with the bytes of its base and of the changes on it.
    async fn replay(&self, newest: Loaded) -> Result<(VolumeState, u64, u64), ManifestError> {
        let before = newest.manifest.base_version..newest.manifest.version;
        let before = stream::iter(before.map(|version| self.need(version))).buffered(LOAD_AHEAD);
        let mut all = std::pin::pin!(before.chain(stream::once(ready(Ok(newest)))));
        let mut state = VolumeState::default();
        let (mut base_bytes, mut change_bytes) = (0, 0);
        while let Some(Loaded { manifest, bytes }) = all.try_next().await? {
            match manifest.body {
                ManifestBody::Full(full) => {
                    state = full;
                    base_bytes = bytes;
                }
                ManifestBody::Change(change) => {
                    state.apply(manifest.version, &change)?;
                    change_bytes += bytes;
                }
            }
        }
        Ok((state, base_bytes, change_bytes))
    }

    /// The newest manifest: probed upwards from the hint, or found by listing where there is none.
    async fn newest(&self, hint: u64) -> Result<Option<Loaded>, ManifestError> {
        let mut newest = match hint {
            0 => None,
            hint => self.get(hint).await?,
        };
        if newest.is_none() {
            let prefix = Path::from(self.keys.manifests(self.volume));
            let mut listing = self.bucket.list(Some(&prefix));
            let mut highest = None;
            while let Some(meta) = listing.try_next().await? {
                highest = highest.max(Keys::manifest_version(meta.location.as_ref()));
            }
            let Some(highest) = highest else {
                return Ok(None);
            };
            newest = self.get(highest).await?;
        }
        while let Some(loaded) = &newest {
            match self.get(loaded.manifest.version + 1).await? {
                Some(next) => newest = Some(next),
                None => break,
            }
        }
        Ok(newest)
    }

    /// A version that must be there.
    async fn need(&self, version: u64) -> Result<Loaded, ManifestError> {
        let found = self.get(version).await?;
        found.ok_or_else(|| ManifestError::Gap(self.keys.manifest(self.volume, version)))
    }

    /// A version, if it is there. Bytes that do not make sense are asked for again, as they may have been
    /// damaged on their way.
    async fn get(&self, version: u64) -> Result<Option<Loaded>, ManifestError> {
        let mut reads = 1;
        loop {
            match self.read(version).await {
                Err(ManifestError::Corrupt { key, error }) if reads < MOST_READS => {
                    tracing::warn!(key, %error, "a manifest arrived damaged; reading it again");
                    reads += 1;
                }
                other => return other,
            }
        }
    }

    async fn read(&self, version: u64) -> Result<Option<Loaded>, ManifestError> {
        let key = self.keys.manifest(self.volume, version);
        let bytes = match self.bucket.get(&Path::from(key.as_str())).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let manifest = Manifest::decode(&bytes)
            .and_then(|manifest| {
                if (manifest.volume, manifest.version) == (self.volume, version) {
                    return Ok(manifest);
                }
                Err(FormatError::Invalid { what: "manifest", why: "it is another one" })
            })
            .map_err(|error| ManifestError::Corrupt { key, error })?;
        Ok(Some(Loaded { manifest, bytes: bytes.len() as u64 }))
    }

    /// The volume.
    pub fn volume(&self) -> u32 {
        self.volume
    }

    /// The state, shared with readers; it changes when a commit is durable.
    pub fn state(&self) -> &Arc<RwLock<VolumeState>> {
        &self.state
    }

    /// Commits the next version.
    ///
    /// An error leaves the state as it was; whether the version exists then is unknown after
    /// [`ManifestError::Bucket`], and the same change must be committed again.
    pub async fn commit(&mut self, change: &VolumeChange) -> Result<Written, ManifestError> {
        let (version, full) = {
            let state = self.state.read();
            let version = state.version + 1;
            state.check(version, change)?;
            let full = self.is_full_due(version).then(|| {
                let mut next = state.clone();
                next.apply(version, change).map(|_| next)
            });
            (version, full.transpose()?)
        };
        let is_full = full.is_some();
        let manifest = Manifest {
            volume: self.volume,
            version,
            base_version: if is_full { version } else { self.base_version },
            body: match full {
                Some(state) => ManifestBody::Full(state),
                None => ManifestBody::Change(change.clone()),
            },
        };
        let bytes = self.create(&manifest).await?;
        let (dead, retired_extents) = {
            let mut state = self.state.write();
            let before = extents_touched(&state, change);
            let dead = state.apply(version, change)?;
            let added = change.streams.iter().filter(|(_, update)| update.extent.is_some());
            let after = extents_touched(&state, change);
            (dead, (before + added.count()).saturating_sub(after) as u64)
        };
        let mut obsolete = 0..0;
        if is_full {
            obsolete = self.oldest..self.base_version;
            self.oldest = self.base_version;
            self.base_version = version;
            self.base_bytes = bytes;
            self.change_bytes = 0;
        } else {
            self.change_bytes += bytes;
        }
        Ok(Written { dead, obsolete, bytes, retired_extents })
    }

    fn is_full_due(&self, version: u64) -> bool {
        let enough = (self.base_bytes / CHANGES_PART_OF_FULL).max(CHANGES_MIN_BYTES);
        self.base_version == 0
            || self.change_bytes >= enough
            || version - self.base_version >= CHANGES_PER_FULL
    }

    /// Gives the length.
    async fn create(&self, manifest: &Manifest) -> Result<u64, ManifestError> {
        let key = self.keys.manifest(self.volume, manifest.version);
        let path = Path::from(key.as_str());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let bytes = manifest.encode();
        let len = bytes.len() as u64;
        match self.bucket.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => return Ok(len),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // Ours, if the answer to an earlier try was lost; else another owner's.
        let there = self.get(manifest.version).await?.ok_or_else(|| ManifestError::Gap(key))?;
        let there = there.manifest;
        if there == *manifest { Ok(len) } else { Err(ManifestError::Fenced(there.epoch())) }
    }
}

/// A manifest and its length.
#[derive(Clone, Debug)]
struct Loaded {
    manifest: Manifest,
    bytes: u64,
}

/// How many extents the streams of a change have.
fn extents_touched(state: &VolumeState, change: &VolumeChange) -> usize {
    let keys = change.streams.iter().map(|(key, _)| key);
    let streams = keys.filter_map(|key| state.streams.get(key));
    streams.map(|stream| stream.extents.len()).sum()
}
