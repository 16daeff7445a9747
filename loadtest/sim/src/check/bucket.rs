//! Invariants 3 to 5, over what is in the bucket: manifests grow by one, under epochs that never go back,
//! and are never written twice; they name only objects that are there and whole; extents have neither
//! hole nor overlap; nothing that is named is deleted; and a volume is trimmed only past what a manifest
//! that is there holds.

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_format::{Manifest, ManifestBody, SegmentId, VolumeState};

use crate::history::History;

/// What is known of one volume's manifests.
#[derive(Clone, Debug, Default)]
struct Followed {
    state: VolumeState,
    /// What the newest manifest needs: nothing from this version on may go.
    base_version: u64,
}

/// Follows the bucket.
#[derive(Debug)]
pub(crate) struct BucketCheck {
    history: History,
    volumes: BTreeMap<u32, Followed>,
}

/// `{hash}/{cluster}/{kind}/{volume}/{name}`.
fn parse(key: &str) -> Option<(&str, u32, &str)> {
    let mut parts = key.split('/').skip(2);
    let (kind, volume, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some((kind, volume.parse().ok()?, name))
}

impl BucketCheck {
    pub(crate) fn new(history: History) -> Self {
        Self { history, volumes: BTreeMap::new() }
    }

    /// What the newest manifest says of a volume.
    pub(crate) fn state(&self, volume: u32) -> VolumeState {
        self.volumes.get(&volume).map(|followed| followed.state.clone()).unwrap_or_default()
    }

    /// An object is about to be there, in the place of `old`.
    pub(crate) fn put(
        &mut self,
        key: &str,
        bytes: &Bytes,
        old: Option<&Bytes>,
        objects: &BTreeMap<String, Bytes>,
    ) {
        if let Some(old) = old
            && old != bytes
        {
            self.history.violation(format_args!("{key} is written again with other bytes"));
        }
        if let Some(("manifests", volume, _)) = parse(key)
            && old.is_none()
        {
            self.manifest(key, volume, bytes, objects);
        }
    }

    fn manifest(
        &mut self,
        key: &str,
        volume: u32,
        bytes: &Bytes,
        objects: &BTreeMap<String, Bytes>,
    ) {
        let followed = self.volumes.entry(volume).or_default();
        let manifest = match Manifest::decode(bytes) {
            Ok(manifest) => manifest,
            Err(error) => return self.history.violation(format_args!("{key}: {error}")),
        };
        let before = &followed.state;
        if manifest.version != before.version + 1 {
            let newest = before.version;
            return self.history.violation(format_args!("{key} follows version {newest}"));
        }
        if manifest.epoch() < before.epoch {
            let (old, new) = (manifest.epoch(), before.epoch);
            self.history.violation(format_args!(
                "{key}: epoch {old} commits after epoch {new} has committed"
            ));
        }
        let after = match &manifest.body {
            ManifestBody::Full(state) => state.clone(),
            ManifestBody::Change(change) => {
                let mut state = before.clone();
                if let Err(violation) = state.apply(manifest.version, change) {
                    return self.history.violation(format_args!("{key}: {violation}"));
                }
                state
            }
        };
        if after.trim_lsn < before.trim_lsn {
            self.history.violation(format_args!("{key}: the trim lsn goes back"));
        }
        for (stream, was) in &before.streams {
            let is = after.streams.get(stream);
            if is.is_some_and(|is| is.end_offset < was.end_offset || is.log_start < was.log_start) {
                self.history.violation(format_args!("{key}: a stream goes back"));
            }
        }
        whole(&self.history, key, &after, objects);
        self.history.event(
            "commit",
            format_args!(
                "volume {volume} version {} epoch {} trim {}",
                after.version, after.epoch, after.trim_lsn
            ),
        );
        *followed = Followed { state: after, base_version: manifest.base_version };
    }

    /// An object is about to go.
    pub(crate) fn delete(&mut self, key: &str) {
        let Some((kind, volume, name)) = parse(key) else { return };
        // A stream that has moved names segments of volumes where it was.
        let is_named =
            |id: &SegmentId| id.volume == volume && format!("{}-{}", id.epoch, id.sequence) == name;
        let mut states = self.volumes.values().map(|followed| &followed.state);
        if kind == "segments" && states.any(|state| state.segments.keys().any(is_named)) {
            self.history
                .violation(format_args!("{key} is deleted, and a newest manifest names it"));
        }
        let Some(followed) = self.volumes.get(&volume) else { return };
        let needed = match kind {
            "manifests" => name.parse().is_ok_and(|version: u64| version >= followed.base_version),
            "snapshots" => followed.state.coordinator.is_some_and(|snapshot| {
                format!("{}-{}", snapshot.id.epoch, snapshot.id.sequence) == name
            }),
            _ => false,
        };
        if needed {
            self.history
                .violation(format_args!("{key} is deleted, and the newest manifest needs it"));
        }
    }

    /// The volume's trim point on its disk.
    pub(crate) fn trimmed(&self, volume: u32, trim_lsn: u64) {
        let committed = self.volumes.get(&volume).map_or(0, |followed| followed.state.trim_lsn);
        if trim_lsn > committed {
            self.history.violation(format_args!(
                "volume {volume} is trimmed to {trim_lsn}, and manifests hold it up to {committed}"
            ));
        }
    }
}

/// Whether the state's own parts fit, whoever computed it, and its segments are there.
fn whole(history: &History, key: &str, state: &VolumeState, objects: &BTreeMap<String, Bytes>) {
    let segments = objects.iter().filter_map(|(object, bytes)| match parse(object)? {
        ("segments", volume, name) => Some(((volume, name), bytes.len() as u64)),
        _ => None,
    });
    let there: BTreeMap<(u32, &str), u64> = segments.collect();
    for (id, segment) in &state.segments {
        let name = format!("{}-{}", id.epoch, id.sequence);
        if there.get(&(id.volume, name.as_str())) != Some(&segment.len) {
            history.violation(format_args!("{key} names segment {name}, which is not there whole"));
        }
    }
    for (stream, known) in &state.streams {
        let mut at = None;
        for extent in &known.extents {
            let follows = at.is_none_or(|at| at == extent.base_offset);
            if !follows || extent.end_offset <= extent.base_offset {
                history.violation(format_args!("{key}: a hole in {stream:?} at {at:?}"));
            }
            if !state.segments.contains_key(&extent.segment) {
                history.violation(format_args!("{key}: an extent in a segment that is not listed"));
            }
            at = Some(extent.end_offset);
        }
        let first = known.extents.front().map_or(known.end_offset, |extent| extent.base_offset);
        if at.is_some_and(|at| at != known.end_offset) || first > known.log_start {
            history.violation(format_args!("{key}: {stream:?} misses some of its offsets"));
        }
    }
}
