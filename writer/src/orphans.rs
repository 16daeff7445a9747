//! Objects in the bucket that no manifest names, and that nobody will ever name: what a crash leaves between
//! a put and its commit, or between a commit and the deletions that follow it.
//!
//! One task a process. From time to time it lists the cluster's part of the bucket once (keys begin with a
//! hash, so there is no listing of one volume; a page of a listing is a thousand keys, and no request of a
//! client waits for it), and looks at the objects of the volumes that it owns.
//!
//! **What is deleted**: a segment or snapshot of a volume that we own under volume epoch `E`, if its name carries
//! an epoch below `E`, our state does not name it, and it is older than the grace time; and manifests
//! before the full one that our newest is based on, likewise old.
//!
//! **Why that is safe, even for an owner that was fenced and does not know yet.** A name enters a manifest in
//! the change of the owner whose epoch it carries, and in no other: ids are made by that owner's committer
//! alone. Once we have committed under `E`, which we did before we served anything, no owner below `E` can
//! commit: each next version is created if absent, and they would build on one that is taken. So from our
//! first manifest on, the set of named objects of epochs below `E` can only shrink, under us and under
//! every later owner: what our state does not name at any moment since is named by none, for ever. Objects
//! of `E` itself are left to the next owner: they may be on their way to a commit, or within the grace
//! that readers have. Objects of later epochs are not ours to judge.
//!
//! The grace is for readers that hold an older state. Not here: volumes that nobody owns any more, and unfinished
//! multipart uploads, which no listing shows; a lifecycle rule of the bucket ends those.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parking_lot::RwLock;
use sluice_format::key::{Keys, Name};
use sluice_format::{Manifest, VolumeState};
use sluice_model::Clock;
use tokio::time::MissedTickBehavior;

use crate::deletions::Deletions;
use crate::metrics::WriterMetrics;
use crate::options::OrphanOptions;

/// The first walk begins so long after the start, unless walks are more frequent.
const FIRST: Duration = Duration::from_secs(600);

/// A volume of which orphans are collected.
pub(crate) struct Scope {
    /// The epoch under which we own it.
    pub(crate) epoch: u32,
    /// What is committed, at least our first manifest.
    pub(crate) state: Arc<RwLock<VolumeState>>,
    pub(crate) deletions: Deletions,
}

/// Walks over the bucket.
pub(crate) struct Orphans {
    pub(crate) bucket: Arc<dyn ObjectStore>,
    pub(crate) keys: Keys,
    /// The volumes that are served now. One that is lost during a walk deletes nothing more: its deletions end
    /// with its service.
    pub(crate) scopes: Box<dyn Fn() -> BTreeMap<u32, Scope> + Send + Sync>,
    pub(crate) options: OrphanOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: WriterMetrics,
}

impl Orphans {
    /// Runs for ever; whoever starts it ends it with the volumes' service.
    pub(crate) async fn run(self) {
        let first = FIRST.min(self.options.interval);
        let start = tokio::time::Instant::now() + first;
        let mut ticks = tokio::time::interval_at(start, self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.walk().await {
                Ok(0) => {}
                Ok(found) => tracing::info!(found, "objects that nothing names are deleted"),
                Err(error) => tracing::warn!(%error, "the bucket could not be listed; later again"),
            }
        }
    }

    /// Lists the bucket once; gives how many objects were condemned.
    async fn walk(&self) -> object_store::Result<u64> {
        let scopes = (self.scopes)();
        let mut bases = BTreeMap::new();
        for (volume, scope) in &scopes {
            bases.insert(*volume, self.base(*volume, scope).await);
        }
        let mut found = 0;
        let mut listing = self.bucket.list(None);
        while let Some(object) = listing.try_next().await? {
            if let Some(scope) = self.orphan(&object, &scopes, &bases) {
                scope.deletions.condemn([object.location], Duration::ZERO);
                self.metrics.orphans.inc();
                found += 1;
            }
        }
        Ok(found)
    }

    /// The volume whose orphan this is.
    fn orphan<'a>(
        &self,
        object: &ObjectMeta,
        scopes: &'a BTreeMap<u32, Scope>,
        bases: &BTreeMap<u32, Option<u64>>,
    ) -> Option<&'a Scope> {
        let name = self.keys.parse(object.location.as_ref())?;
        let volume = match name {
            Name::Segment(id) | Name::Snapshot(id) => id.volume,
            Name::Manifest { volume, .. } => volume,
            Name::Catalog { .. } => return None,
        };
        let scope = scopes.get(&volume)?;
        let age_ms = self.clock.wall_ms().saturating_sub(object.last_modified.timestamp_millis());
        let grace_ms = i64::try_from(self.options.grace.as_millis()).unwrap_or(i64::MAX);
        if age_ms < grace_ms {
            return None;
        }
        let is_orphan = match name {
            Name::Segment(id) => {
                id.epoch < scope.epoch && !scope.state.read().segments.contains_key(&id)
            }
            Name::Snapshot(id) => {
                let known = scope.state.read().coordinator.is_some_and(|known| known.id == id);
                id.epoch < scope.epoch && !known
            }
            Name::Manifest { volume, version } => {
                bases.get(&volume).copied().flatten().is_some_and(|base| version < base)
            }
            Name::Catalog { .. } => false,
        };
        is_orphan.then_some(scope)
    }

    /// The full manifest on which the newest is based; none if that cannot be told now.
    async fn base(&self, volume: u32, scope: &Scope) -> Option<u64> {
        let version = scope.state.read().version;
        let key = self.keys.manifest(volume, version);
        let bytes = self.bucket.get(&Path::from(key)).await.ok()?.bytes().await.ok()?;
        Manifest::decode(&bytes).ok().map(|manifest| manifest.base_version)
    }
}
