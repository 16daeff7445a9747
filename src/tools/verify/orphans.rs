//! Objects that no manifest names: what crashes between a put and a commit leave, and what a delete missed.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::Context;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sluice_format::VolumeState;
use sluice_format::key::Name;
use sluice_model::Clock;
use sluice_writer::ManifestStore;

use super::{Checks, States};
use crate::seams::SystemClock;

impl Checks {
    /// Counts them, and deletes them if `repair` is set. Volumes whose manifests cannot be read have none:
    /// nothing can be said of what is theirs.
    pub(super) async fn orphans(&mut self, states: &States, repair: bool) -> anyhow::Result<()> {
        let named: BTreeSet<Name> = states.values().flat_map(names).collect();
        let grace_ms = i64::try_from(self.grace.as_millis()).unwrap_or(i64::MAX);
        let before_ms = SystemClock.wall_ms().saturating_sub(grace_ms);
        let mut orphans = Vec::new();
        for (name, listed) in &self.listed {
            let volume = match name {
                Name::Segment(id) | Name::Snapshot(id) => id.volume,
                Name::Manifest { .. } | Name::Catalog { .. } => continue,
            };
            if named.contains(name) || !states.contains_key(&volume) {
                continue;
            }
            if listed.modified_ms > before_ms {
                self.report.orphans.young += 1;
                continue;
            }
            self.report.orphans.count += 1;
            self.report.orphans.bytes += listed.len;
            orphans.push((volume, *name));
        }
        if !repair {
            return Ok(());
        }
        for volume in states.keys().copied() {
            let of_volume = orphans.iter().filter(|(of, _)| *of == volume).map(|(_, name)| *name);
            self.delete(volume, of_volume.collect()).await?;
        }
        Ok(())
    }

    /// Deletes orphans of a volume, after another look at its newest manifest.
    async fn delete(&mut self, volume: u32, orphans: Vec<Name>) -> anyhow::Result<()> {
        if orphans.is_empty() {
            return Ok(());
        }
        let store = ManifestStore::load(Arc::clone(&self.bucket), self.keys.clone(), volume, 0)
            .await
            .with_context(|| format!("cannot read the manifests of volume {volume} again"))?;
        let named: BTreeSet<Name> = names(&store.state().read()).collect();
        for name in orphans.into_iter().filter(|name| !named.contains(name)) {
            let key = self.keys.key(name);
            self.bucket
                .delete(&Path::from(key.as_str()))
                .await
                .with_context(|| format!("cannot delete {key}"))?;
            self.report.orphans.deleted += 1;
        }
        Ok(())
    }
}

/// The objects that a volume's state names.
pub(super) fn names(state: &VolumeState) -> impl Iterator<Item = Name> {
    let segments = state.segments.keys().map(|id| Name::Segment(*id));
    segments.chain(state.coordinator.map(|snapshot| Name::Snapshot(snapshot.id)))
}
