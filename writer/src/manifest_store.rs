//! A volume's manifests in the bucket: loading the state, committing the next version.
//!
//! Owned by the volume's uploader, the only committer. A version is created if absent, so of two owners
//! that both try, one finds it taken; it reads what is there and learns that it was fenced.

use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parking_lot::RwLock;
use sluice_format::key::Keys;
use sluice_format::state::Violation;
use sluice_format::{FormatError, Manifest, ManifestBody, SegmentId, VolumeChange, VolumeState};

/// After this many changes the next commit writes the whole state.
const CHANGES_PER_FULL: u64 = 64;

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
pub(crate) struct ManifestStore {
    bucket: Arc<dyn ObjectStore>,
    keys: Keys,
    volume: u32,
    state: Arc<RwLock<VolumeState>>,
    base_version: u64,
}

impl ManifestStore {
    /// Loads the newest state. `hint` is a version that is known to exist, or 0.
    pub(crate) async fn load(
        bucket: Arc<dyn ObjectStore>,
        keys: Keys,
        volume: u32,
        hint: u64,
    ) -> Result<Self, ManifestError> {
        let mut store = Self { bucket, keys, volume, state: Arc::default(), base_version: 0 };
        let Some(newest) = store.newest(hint).await? else {
            return Ok(store);
        };
        store.base_version = newest.base_version;
        let mut state = VolumeState::default();
        for version in newest.base_version..=newest.version {
            let manifest = match version == newest.version {
                true => newest.clone(),
                false => store
                    .get(version)
                    .await?
                    .ok_or_else(|| ManifestError::Gap(store.keys.manifest(volume, version)))?,
            };
            match manifest.body {
                ManifestBody::Full(full) => state = full,
                ManifestBody::Change(change) => {
                    state.apply(version, &change)?;
                }
            }
        }
        *store.state.write() = state;
        Ok(store)
    }

    /// The newest manifest: probed upwards from the hint, or found by listing where there is none.
    async fn newest(&self, hint: u64) -> Result<Option<Manifest>, ManifestError> {
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
        while let Some(manifest) = &newest {
            match self.get(manifest.version + 1).await? {
                Some(next) => newest = Some(next),
                None => break,
            }
        }
        Ok(newest)
    }

    async fn get(&self, version: u64) -> Result<Option<Manifest>, ManifestError> {
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
        Ok(Some(manifest))
    }

    /// The volume.
    pub(crate) fn volume(&self) -> u32 {
        self.volume
    }

    /// The state, shared with readers; it changes when a commit is durable.
    pub(crate) fn state(&self) -> &Arc<RwLock<VolumeState>> {
        &self.state
    }

    /// Commits the next version. Gives the segments that nothing refers to any more.
    ///
    /// An error leaves the state as it was; whether the version exists then is unknown after
    /// [`ManifestError::Bucket`], and the same change must be committed again.
    pub(crate) async fn commit(
        &mut self,
        change: &VolumeChange,
    ) -> Result<Vec<SegmentId>, ManifestError> {
        let version = self.state.read().version + 1;
        self.state.read().check(version, change)?;
        let full = self.base_version == 0 || version - self.base_version >= CHANGES_PER_FULL;
        let manifest = Manifest {
            volume: self.volume,
            version,
            base_version: if full { version } else { self.base_version },
            body: if full {
                let mut next = self.state.read().clone();
                next.apply(version, change)?;
                ManifestBody::Full(next)
            } else {
                ManifestBody::Change(change.clone())
            },
        };
        self.create(&manifest).await?;
        let old_base = std::mem::replace(&mut self.base_version, manifest.base_version);
        let dead = self.state.write().apply(version, change)?;
        if full && old_base > 0 {
            self.forget_before(old_base).await;
        }
        Ok(dead)
    }

    async fn create(&self, manifest: &Manifest) -> Result<(), ManifestError> {
        let key = self.keys.manifest(self.volume, manifest.version);
        let path = Path::from(key.as_str());
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let bytes = PutPayload::from_bytes(manifest.encode());
        match self.bucket.put_opts(&path, bytes, options).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // Ours, if the answer to an earlier try was lost; else another owner's.
        let there = self.get(manifest.version).await?.ok_or_else(|| ManifestError::Gap(key))?;
        if there == *manifest { Ok(()) } else { Err(ManifestError::Fenced(there.epoch())) }
    }

    /// Removes versions older than the full manifest before the newest one: whoever loads now needs
    /// nothing older, and whoever is loading has at least one whole period to finish. Best effort.
    async fn forget_before(&self, old_base: u64) {
        for version in old_base.saturating_sub(CHANGES_PER_FULL)..old_base {
            let path = Path::from(self.keys.manifest(self.volume, version));
            if let Err(error) = self.bucket.delete(&path).await
                && !matches!(error, object_store::Error::NotFound { .. })
            {
                tracing::debug!(%path, %error, "an old manifest stays for now");
            }
        }
    }
}
