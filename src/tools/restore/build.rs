//! Making the new data directory: volumes, then the manifests that take the data over, then the catalog,
//! which makes the directory one that `sluice up` starts from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, ensure};
use object_store::ObjectStore;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::journal::Image;
use sluice_catalog::{VolumeKind, VolumeSpec};
use sluice_format::VolumeChange;
use sluice_format::key::Keys;
use sluice_model::{Entropy, TopicId, VolumeEpoch};
use sluice_volume::{CreateOptions, FileVolume, Lsn};
use sluice_writer::ManifestStore;

use super::plan::{Plan, PlannedVolume};
use crate::config::{Config, VolumeSize};
use crate::seams::SystemEntropy;

/// A restore goes beyond the newest epoch that is known by this much, and up to as much more at random:
/// an old owner that starts again meanwhile counts up by one, and of two restores at once one finds
/// that it has lost.
const EPOCH_STEP: u32 = 1 << 16;
/// An old owner may have written this much beyond its last manifest, where its volume's size is not known.
const UNKNOWN_SIZE_BYTES: u64 = 1 << 40;
/// Producer ids that may have been given out after the journal's last object.
const SPARE_PRODUCER_IDS: i64 = 1 << 20;
/// The size of a file that takes the place of a block device, if none is configured.
const FILE_BYTES: u64 = 1 << 30;

/// What was made.
pub(super) struct Built {
    /// Volume and the epoch under which its data was taken over.
    pub(super) epochs: BTreeMap<u32, u32>,
}

pub(super) async fn build(
    config: &Config,
    bucket: &Arc<dyn ObjectStore>,
    keys: &Keys,
    plan: &Plan,
) -> anyhow::Result<Built> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir.join("volumes"))
        .with_context(|| format!("cannot make {}", dir.display()))?;
    let mut image = plan.journal.image.clone();
    let mut epochs = BTreeMap::new();
    let mut producer_ids = 0;
    for volume in plan.volumes.iter().filter(|volume| !volume.is_unused()) {
        let epoch = next_epoch(volume)?;
        let spec = match volume.spec.kind {
            VolumeKind::Object => volume.spec.clone(),
            VolumeKind::File | VolumeKind::Block => file(config, &volume.spec),
        };
        let begin = begin(volume);
        if spec.kind == VolumeKind::File {
            let options = CreateOptions {
                begin,
                ..CreateOptions::new(spec.id, SystemEntropy.random_16(), spec.size_bytes)
            };
            FileVolume::create(dir.join(&spec.location), options).await?;
        }
        take_over(bucket, keys, volume, epoch, begin, plan).await?;
        let producers = volume.state.streams.values().flat_map(|stream| &stream.producers);
        producer_ids =
            producers.map(|producer| producer.id + 1).max().unwrap_or(0).max(producer_ids);
        epochs.insert(spec.id.0, epoch);
        image.set_volume(spec, None, VolumeEpoch(epoch));
    }
    // The catalog's journal may be behind, or know of moves that have ended: the manifests say where streams are.
    image.settle_streams(|stream| plan.place_of(stream))?;
    image.raise_producer_ids(producer_ids, SPARE_PRODUCER_IDS)?;
    write_catalog(dir, &image).await?;
    Ok(Built { epochs })
}

fn next_epoch(volume: &PlannedVolume) -> anyhow::Result<u32> {
    let known = volume.epoch.max(volume.state.epoch);
    // The remainder is below the step.
    let more = EPOCH_STEP + (SystemEntropy.random_u64() % u64::from(EPOCH_STEP)) as u32;
    let epoch = known.checked_add(more).filter(|epoch| VolumeEpoch(*epoch) < VolumeEpoch::MAX);
    epoch.with_context(|| format!("volume {} has had its last epoch", volume.spec.id))
}

/// The file that takes a lost volume's place.
fn file(config: &Config, lost: &VolumeSpec) -> VolumeSpec {
    let size_bytes = match (lost.size_bytes, config.volumes.size) {
        (0, VolumeSize::Bytes(bytes)) => bytes,
        (0, VolumeSize::Auto) => FILE_BYTES,
        (bytes, _) => bytes,
    };
    let location = format!("volumes/{}.wal", lost.id);
    VolumeSpec::new(lost.id, VolumeKind::File, location, size_bytes)
}

/// Where the new log begins: beyond all that the lost one can have had. An object volume's log is in the
/// bucket, and goes on.
fn begin(volume: &PlannedVolume) -> Lsn {
    let trim = volume.state.trim_lsn;
    if volume.spec.kind == VolumeKind::Object {
        return Lsn(trim);
    }
    let lost = match volume.spec.size_bytes {
        0 => UNKNOWN_SIZE_BYTES,
        bytes => bytes,
    };
    Lsn((trim + lost).next_multiple_of(4096))
}

/// Commits a manifest under the new epoch: from here on no older owner can commit.
async fn take_over(
    bucket: &Arc<dyn ObjectStore>,
    keys: &Keys,
    volume: &PlannedVolume,
    epoch: u32,
    begin: Lsn,
    plan: &Plan,
) -> anyhow::Result<()> {
    let id = volume.spec.id.0;
    let mut store = ManifestStore::load(Arc::clone(bucket), keys.clone(), id, 0).await?;
    ensure!(
        *store.state().read() == volume.state,
        "volume {id} was written to meanwhile: the old cluster still runs. Stop it and try again"
    );
    let known = plan.journal.image.topics()?;
    let unknown =
        |topic: TopicId| !topic.is_internal() && !known.iter().any(|known| known.id == topic);
    let removed = volume.state.streams.keys().filter(|key| unknown(TopicId(key.topic)));
    let change = VolumeChange {
        epoch,
        trim_lsn: begin.0,
        removed_streams: removed.copied().collect(),
        ..VolumeChange::default()
    };
    store.commit(&change).await.with_context(|| {
        format!(
            "the data of volume {id} cannot be taken over; empty the data directory, and try again"
        )
    })?;
    Ok(())
}

/// The catalog gets its name when it is whole.
async fn write_catalog(dir: &Path, image: &Image) -> anyhow::Result<()> {
    let unfinished: PathBuf = dir.join("catalog.restoring");
    let store = EmbeddedStore::open(&unfinished, Arc::new(SystemEntropy)).await?;
    image.write_to(&store).await?;
    store.close().await;
    let made = std::fs::rename(&unfinished, dir.join("catalog"))
        .and_then(|()| std::fs::File::open(dir)?.sync_all());
    made.with_context(|| format!("cannot put the catalog into {}", dir.display()))
}
