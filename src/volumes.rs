//! The volumes of this node: which there are, and what each lies on.

use std::path::Path;

use anyhow::Context;
use sluice_catalog::{Catalog, VolumeKind, VolumeSpec};
use sluice_model::VolumeId;
use sluice_volume::Medium;
use sluice_writer::VolumePlace;

use crate::config::{Config, VolumeSize};

/// The size of a volume where the disk is large enough.
const VOLUME_BYTES: u64 = 1 << 30;
/// The smallest size that is chosen for a small disk.
const SMALL_VOLUME_BYTES: u64 = 64 << 20;
/// One volume takes at most this part of what is free.
const SHARE_OF_FREE: u64 = 8;

/// Makes sure that the catalog lists as many volumes as are configured, and says where they are.
pub(crate) async fn places(config: &Config, catalog: &Catalog) -> anyhow::Result<Vec<VolumePlace>> {
    for id in 0..config.volumes.count {
        let id = VolumeId(id);
        if catalog.volume(id).is_some() {
            continue;
        }
        let size_bytes = match config.volumes.size {
            VolumeSize::Bytes(bytes) => bytes,
            VolumeSize::Auto => fitting_size(&config.data_dir, config.volumes.count)?,
        };
        let location = format!("volumes/{id}.wal");
        let spec = VolumeSpec { id, kind: VolumeKind::File, location, size_bytes };
        catalog.add_volume(spec).await?;
    }
    let places = catalog
        .volumes()
        .into_iter()
        .map(|volume| VolumePlace { id: volume.spec.id, medium: medium(config, &volume.spec) });
    Ok(places.collect())
}

/// What the catalog's volume lies on, seen from here.
fn medium(config: &Config, spec: &VolumeSpec) -> Medium {
    match spec.kind {
        VolumeKind::File => {
            Medium::File { path: config.data_dir.join(&spec.location), size_bytes: spec.size_bytes }
        }
    }
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
