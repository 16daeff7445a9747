//! The volumes of this node: which there are, and what each lies on.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use object_store::ObjectStore;
use sluice_catalog::{Catalog, VolumeKind, VolumeSpec};
use sluice_cluster::Locate;
use sluice_format::key::Keys;
use sluice_model::{Entropy, NodeId, VolumeId};
use sluice_reader::Reader;
use sluice_volume::{Medium, ObjectOptions, ObjectVolume};
use sluice_writer::{OnShift, Shift, VolumePlace};

use crate::config::{CatalogStore, Config, VolumeMedium, VolumeSize};

/// The size of a volume where the disk is large enough.
const VOLUME_BYTES: u64 = 1 << 30;
/// The smallest size that is chosen for a small disk.
const SMALL_VOLUME_BYTES: u64 = 64 << 20;
/// One volume takes at most this part of what is free.
const SHARE_OF_FREE: u64 = 8;

/// The bucket, for the volumes that lie in it.
pub(crate) struct Bucket {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) keys: Keys,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// Makes sure that the catalog lists the volumes that are configured. Other nodes may do the same just now.
pub(crate) async fn add(config: &Config, catalog: &Catalog) -> anyhow::Result<()> {
    let auto_size = match (config.volumes.kind, config.volumes.size) {
        (VolumeMedium::File, VolumeSize::Auto) => {
            let dir = config.volumes.dir.as_ref().unwrap_or(&config.data_dir);
            fitting_size(dir, config.volumes.count)?
        }
        _ => VOLUME_BYTES,
    };
    for device in &config.volumes.devices.0 {
        device.to_str().context("a device's path is not UTF-8")?;
    }
    catalog.add_volumes(|known| missing(config, known, auto_size)).await?;
    Ok(())
}

/// Says of each volume of the catalog what it lies on, seen from this node.
pub(crate) fn locate(config: &Config, bucket: Bucket) -> Locate {
    let config = config.clone();
    Arc::new(move |spec| {
        let medium = match spec.kind {
            VolumeKind::Object => in_bucket(&config, spec, &bucket),
            VolumeKind::File | VolumeKind::Block => {
                medium(&config, spec).map_err(|error| error.to_string())?
            }
        };
        Ok(VolumePlace { id: spec.id, medium })
    })
}

/// Keeps a reader attached to the volumes that the writer of its process serves.
pub(crate) fn attach(reader: &Arc<Reader>) -> OnShift {
    let reader = Arc::clone(reader);
    Arc::new(move |shift| match shift {
        Shift::Taken { volume, state } => reader.attach(volume.0, state),
        Shift::Gone { volume } => reader.detach(volume.0),
    })
}

/// The next volume that is configured and not `known`, with an id above all that are.
///
/// A file in the data directory has this node as its home, if there can be others. The embedded catalog is in the
/// data directory itself: whoever has the one has the other, under whatever node id.
fn missing(config: &Config, known: &[VolumeSpec], auto_size: u64) -> Option<VolumeSpec> {
    let volumes = &config.volumes;
    let id = VolumeId(known.iter().map(|spec| spec.id.0 + 1).max().unwrap_or(0));
    let size_bytes = match volumes.size {
        VolumeSize::Bytes(bytes) => bytes,
        VolumeSize::Auto => auto_size,
    };
    let clustered = config.catalog.store == CatalogStore::Etcd;
    let home = clustered.then(|| NodeId(i32::try_from(config.node_id).unwrap_or(i32::MAX)));
    let zone = config.cluster.zone.as_ref().map(|zone| zone.0.clone());
    let lacks = |have: &dyn Fn(&&VolumeSpec) -> bool| {
        known.iter().filter(have).count() < volumes.count as usize
    };
    match (volumes.kind, &volumes.dir) {
        (VolumeMedium::Block, _) => {
            let names = volumes.devices.0.iter().filter_map(|device| device.to_str());
            let is_known = |name: &str| {
                known.iter().any(|spec| {
                    spec.kind == VolumeKind::Block && spec.location == name && spec.zone == zone
                })
            };
            let name = names.into_iter().find(|name| !is_known(name))?;
            Some(VolumeSpec { zone, ..VolumeSpec::new(id, VolumeKind::Block, name, 0) })
        }
        (VolumeMedium::File, None) => {
            let ours = |spec: &&VolumeSpec| spec.kind == VolumeKind::File && spec.home == home;
            let location = format!("volumes/{id}.wal");
            let spec = VolumeSpec::new(id, VolumeKind::File, location, size_bytes);
            lacks(&ours).then_some(VolumeSpec { home, ..spec })
        }
        (VolumeMedium::File, Some(dir)) => {
            let there = |spec: &&VolumeSpec| {
                spec.is_shared_file()
                    && spec.zone == zone
                    && Path::new(&spec.location).starts_with(dir)
            };
            let location = dir.join(format!("{id}.wal")).to_str()?.to_owned();
            let spec = VolumeSpec::new(id, VolumeKind::File, location, size_bytes);
            lacks(&there).then_some(VolumeSpec { zone, ..spec })
        }
        (VolumeMedium::Object, _) => {
            let spec = VolumeSpec::new(id, VolumeKind::Object, "", size_bytes);
            lacks(&|spec| spec.kind == VolumeKind::Object).then_some(spec)
        }
    }
}

/// What the catalog's volume lies on, seen from here, unless it lies in the bucket.
pub(crate) fn medium(config: &Config, spec: &VolumeSpec) -> anyhow::Result<Medium> {
    match spec.kind {
        VolumeKind::File => Ok(Medium::File {
            // One that is absolute stays what it is.
            path: config.data_dir.join(&spec.location),
            size_bytes: spec.size_bytes,
        }),
        VolumeKind::Block => Ok(Medium::Block { path: spec.location.clone().into() }),
        VolumeKind::Object => {
            anyhow::bail!("volume {} lies in the bucket", spec.id)
        }
    }
}

/// What a volume in the bucket lies on.
fn in_bucket(config: &Config, spec: &VolumeSpec, bucket: &Bucket) -> Medium {
    let linger = config.volumes.linger;
    Medium::Object(ObjectVolume::new(
        Arc::clone(&bucket.store),
        &bucket.keys.wal(spec.id.0),
        spec.size_bytes,
        Arc::clone(&bucket.entropy),
        ObjectOptions { linger, ..ObjectOptions::default() },
    ))
}

/// A volume's size when none is configured: one gibibyte, or less where the disk is small, so that the
/// bucket and the system have room beside it.
fn fitting_size(data_dir: &Path, count: u32) -> anyhow::Result<u64> {
    let disk = rustix::fs::statvfs(data_dir)
        .with_context(|| format!("cannot ask how much is free at {}", data_dir.display()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize) / u64::from(count.max(1));
    let mebibytes = (free / SHARE_OF_FREE) >> 20;
    Ok((mebibytes << 20).clamp(SMALL_VOLUME_BYTES, VOLUME_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: VolumeMedium, count: u32) -> Config {
        let mut config = Config::default();
        config.volumes.kind = kind;
        config.volumes.count = count;
        config.volumes.size = VolumeSize::Bytes(1 << 28);
        config
    }

    /// All that is missing, one after the other; then with what was known.
    fn added(config: &Config, known: &[VolumeSpec]) -> Vec<VolumeSpec> {
        let mut all = known.to_vec();
        while let Some(spec) = missing(config, &all, 1 << 20) {
            all.push(spec);
        }
        all.split_off(known.len())
    }

    #[test]
    fn volumes_are_added_above_those_that_exist() {
        let files = added(&config(VolumeMedium::File, 2), &[]);
        assert_eq!(files.iter().map(|spec| spec.id.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((&*files[1].location, files[1].home), ("volumes/1.wal", None));
        assert!(added(&config(VolumeMedium::File, 2), &files).is_empty());
        assert!(added(&config(VolumeMedium::File, 1), &files).is_empty());
        let more = added(&config(VolumeMedium::File, 3), &files);
        assert_eq!((more.len(), more[0].id.0), (1, 2));
        let objects = added(&config(VolumeMedium::Object, 1), &files);
        assert_eq!((objects.len(), objects[0].id.0), (1, 2), "files stay what they are");
    }

    #[test]
    fn a_node_of_a_cluster_has_files_of_its_own_and_shares_the_rest() {
        let mut one = config(VolumeMedium::File, 2);
        one.catalog.store = CatalogStore::Etcd;
        let mut known = added(&one, &[]);
        assert!(known.iter().all(|spec| spec.home == Some(NodeId(1)) && !spec.is_shared_file()));
        let two = Config { node_id: 2, ..one.clone() };
        let theirs = added(&two, &known);
        assert_eq!((theirs.len(), theirs[0].id.0, theirs[0].home), (2, 2, Some(NodeId(2))));
        known.extend(theirs);
        let mut shared = one;
        shared.volumes.dir = Some("/mnt/volumes".into());
        let there = added(&shared, &known);
        assert_eq!((there.len(), &*there[0].location), (2, "/mnt/volumes/4.wal"));
        assert!(there.iter().all(|spec| spec.is_shared_file()));
        known.extend(there);
        let mut other = two;
        other.volumes.dir = Some("/mnt/volumes".into());
        assert!(added(&other, &known).is_empty(), "they are counted in the whole cluster");
    }

    #[test]
    fn each_device_is_one_volume_once() {
        let mut config = config(VolumeMedium::Block, 1);
        config.volumes.devices.0 = vec!["/dev/a".into(), "/dev/b".into()];
        let devices = added(&config, &[]);
        assert_eq!(
            devices.iter().map(|spec| &*spec.location).collect::<Vec<_>>(),
            ["/dev/a", "/dev/b"]
        );
        config.volumes.devices.0 = vec!["/dev/b".into(), "/dev/c".into()];
        let more = added(&config, &devices);
        assert_eq!((more.len(), &*more[0].location, more[0].id.0), (1, "/dev/c", 2));
    }
}
