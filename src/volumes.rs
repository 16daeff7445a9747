//! The volumes of this node: which there are, and what each lies on.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use object_store::ObjectStore;
use sluice_catalog::{Catalog, VolumeKind, VolumeSpec};
use sluice_format::key::Keys;
use sluice_model::{Entropy, VolumeId};
use sluice_reader::Reader;
use sluice_volume::{Medium, ObjectOptions, ObjectVolume};
use sluice_writer::{OnShift, Shift, VolumePlace};

use crate::config::{Config, VolumeMedium, VolumeSize};

/// The size of a volume where the disk is large enough.
const VOLUME_BYTES: u64 = 1 << 30;
/// The smallest size that is chosen for a small disk.
const SMALL_VOLUME_BYTES: u64 = 64 << 20;
/// One volume takes at most this part of what is free.
const SHARE_OF_FREE: u64 = 8;

/// The bucket, for the volumes that lie in it.
pub(crate) struct Bucket<'a> {
    pub(crate) store: &'a Arc<dyn ObjectStore>,
    pub(crate) keys: &'a Keys,
    pub(crate) entropy: &'a Arc<dyn Entropy>,
}

/// Makes sure that the catalog lists the volumes that are configured, and says what all it lists lie on.
pub(crate) async fn places(
    config: &Config,
    catalog: &Catalog,
    bucket: Bucket<'_>,
) -> anyhow::Result<Vec<VolumePlace>> {
    let known: Vec<_> = catalog.volumes().into_iter().map(|volume| volume.spec.clone()).collect();
    for spec in missing(config, &known)? {
        catalog.add_volume(spec).await?;
    }
    let places = catalog.volumes().into_iter().map(|volume| {
        let spec = &volume.spec;
        let medium = match spec.kind {
            VolumeKind::Object => in_bucket(config, spec, &bucket),
            VolumeKind::File | VolumeKind::Block => medium(config, spec)?,
        };
        Ok(VolumePlace { id: spec.id, medium })
    });
    places.collect()
}

/// Keeps a reader attached to the volumes that the writer of its process serves.
pub(crate) fn attach(reader: &Arc<Reader>) -> OnShift {
    let reader = Arc::clone(reader);
    Arc::new(move |shift| match shift {
        Shift::Taken { volume, state } => reader.attach(volume.0, state),
        Shift::Gone { volume } => reader.detach(volume.0),
    })
}

/// The volumes that are configured and not `known`, with ids above all that are.
fn missing(config: &Config, known: &[VolumeSpec]) -> anyhow::Result<Vec<VolumeSpec>> {
    let volumes = &config.volumes;
    let first = known.iter().map(|spec| spec.id.0 + 1).max().unwrap_or(0);
    let (kind, locations): (_, Vec<String>) = match volumes.kind {
        VolumeMedium::Block => {
            let mut devices = Vec::new();
            for device in &volumes.devices.0 {
                let name = device.to_str().context("a device's path is not UTF-8")?;
                if !known.iter().any(|s| s.kind == VolumeKind::Block && s.location == name) {
                    devices.push(name.to_owned());
                }
            }
            (VolumeKind::Block, devices)
        }
        VolumeMedium::File => {
            let more = (first..).take(lacking(volumes.count, known, VolumeKind::File));
            (VolumeKind::File, more.map(|id| format!("volumes/{id}.wal")).collect())
        }
        VolumeMedium::Object => {
            let more = lacking(volumes.count, known, VolumeKind::Object);
            (VolumeKind::Object, vec![String::new(); more])
        }
    };
    let size_bytes = match (kind, volumes.size) {
        (VolumeKind::Block, _) => 0,
        (_, VolumeSize::Bytes(bytes)) => bytes,
        (VolumeKind::Object, VolumeSize::Auto) => VOLUME_BYTES,
        (VolumeKind::File, VolumeSize::Auto) => fitting_size(&config.data_dir, volumes.count)?,
    };
    let ids = (first..).map(VolumeId);
    let specs =
        ids.zip(locations).map(|(id, location)| VolumeSpec { id, kind, location, size_bytes });
    Ok(specs.collect())
}

/// How many volumes of `kind` there are too few.
fn lacking(count: u32, known: &[VolumeSpec], kind: VolumeKind) -> usize {
    (count as usize).saturating_sub(known.iter().filter(|spec| spec.kind == kind).count())
}

/// What the catalog's volume lies on, seen from here, unless it lies in the bucket.
pub(crate) fn medium(config: &Config, spec: &VolumeSpec) -> anyhow::Result<Medium> {
    match spec.kind {
        VolumeKind::File => Ok(Medium::File {
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
fn in_bucket(config: &Config, spec: &VolumeSpec, bucket: &Bucket<'_>) -> Medium {
    let linger = config.volumes.linger;
    Medium::Object(ObjectVolume::new(
        Arc::clone(bucket.store),
        &bucket.keys.wal(spec.id.0),
        spec.size_bytes,
        Arc::clone(bucket.entropy),
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

    #[test]
    fn volumes_are_added_above_those_that_exist() {
        let files = missing(&config(VolumeMedium::File, 2), &[]).unwrap();
        assert_eq!(files.iter().map(|spec| spec.id.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(files[1].location, "volumes/1.wal");
        assert!(missing(&config(VolumeMedium::File, 2), &files).unwrap().is_empty());
        assert!(missing(&config(VolumeMedium::File, 1), &files).unwrap().is_empty());
        let more = missing(&config(VolumeMedium::File, 3), &files).unwrap();
        assert_eq!((more.len(), more[0].id.0), (1, 2));
        let objects = missing(&config(VolumeMedium::Object, 1), &files).unwrap();
        assert_eq!((objects.len(), objects[0].id.0), (1, 2), "files stay what they are");
    }

    #[test]
    fn each_device_is_one_volume_once() {
        let mut config = config(VolumeMedium::Block, 1);
        config.volumes.devices.0 = vec!["/dev/a".into(), "/dev/b".into()];
        let devices = missing(&config, &[]).unwrap();
        assert_eq!(
            devices.iter().map(|spec| &*spec.location).collect::<Vec<_>>(),
            ["/dev/a", "/dev/b"]
        );
        config.volumes.devices.0 = vec!["/dev/b".into(), "/dev/c".into()];
        let more = missing(&config, &devices).unwrap();
        assert_eq!((more.len(), &*more[0].location, more[0].id.0), (1, "/dev/c", 2));
    }
}
