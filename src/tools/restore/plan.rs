//! What the bucket has, read before anything is changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, bail};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use sluice_catalog::VolumeSpec;
use sluice_catalog::journal::{self, Journalled};
use sluice_format::key::Keys;
use sluice_format::{StreamKey, VolumeState};
use sluice_model::{StreamId, TopicId, VolumeId};
use sluice_writer::ManifestStore;

/// What can be restored.
pub(super) struct Plan {
    pub(super) cluster: String,
    pub(super) journal: Journalled,
    pub(super) topics: usize,
    pub(super) volumes: Vec<PlannedVolume>,
    /// Streams of topics that the catalog does not know, for people.
    pub(super) unknown_streams: Vec<String>,
    /// What is damaged.
    pub(super) findings: Vec<String>,
}

/// One volume, as of its last manifest.
pub(super) struct PlannedVolume {
    pub(super) spec: VolumeSpec,
    /// The epoch that the catalog's journal knows.
    pub(super) epoch: u32,
    pub(super) state: VolumeState,
    /// When the last manifest was put, by the bucket's clock.
    pub(super) committed_ms: Option<i64>,
}

impl PlannedVolume {
    /// Nobody ever owned it: it holds nothing, anywhere.
    pub(super) fn is_unused(&self) -> bool {
        self.epoch == 0 && self.state.version == 0
    }

    /// How many offsets its streams have in the bucket, those of the coordinators left out.
    pub(super) fn records(&self) -> i64 {
        let streams =
            self.state.streams.iter().filter(|(key, _)| !TopicId(key.topic).is_internal());
        streams.map(|(_, stream)| stream.end_offset - stream.log_start).sum()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.state.streams.values().map(sluice_format::StreamState::data_bytes).sum()
    }
}

impl Plan {
    pub(super) async fn read(bucket: &Arc<dyn ObjectStore>, keys: &Keys) -> anyhow::Result<Self> {
        let journal = journal::read(&**bucket, keys)
            .await
            .context("cannot read the catalog's journal")?
            .context(
                "the catalog's journal has no complete snapshot: there is nothing to restore",
            )?;
        let cluster = journal.image.cluster_id()?;
        if Keys::new(&*cluster).marker() != keys.marker() {
            bail!("the journal under {} is of another cluster, {cluster}", keys.marker());
        }
        let topics = journal.image.topics()?;
        let known: BTreeSet<[u8; 16]> = topics.iter().map(|topic| topic.id.0).collect();
        let mut volumes = Vec::new();
        let mut unknown_streams = Vec::new();
        for volume in journal.image.volumes()? {
            let id = volume.spec.id.0;
            let store =
                ManifestStore::load(Arc::clone(bucket), keys.clone(), id, 0).await.with_context(
                    || format!("the manifests of volume {id} cannot be read; see `sluice verify`"),
                )?;
            let state = store.state().read().clone();
            let unknown =
                |key: &&StreamKey| !TopicId(key.topic).is_internal() && !known.contains(&key.topic);
            unknown_streams.extend(state.streams.keys().filter(unknown).map(|key| {
                let stream = StreamId { topic: TopicId(key.topic), partition: key.partition };
                let end = state.streams.get(key).map_or(0, |stream| stream.end_offset);
                format!("{stream} of volume {id}, up to offset {end}")
            }));
            let committed_ms = committed(&**bucket, keys, id, state.version).await?;
            let epoch = volume.epoch.0;
            volumes.push(PlannedVolume { spec: volume.spec, epoch, state, committed_ms });
        }
        let findings = journal.findings.clone();
        Ok(Self { cluster, topics: topics.len(), journal, volumes, unknown_streams, findings })
    }
}

impl Plan {
    /// The volume that has a stream under the largest count of moves, and its epoch base there; none if none has it.
    pub(super) fn place_of(&self, stream: StreamId) -> Option<(VolumeId, i32)> {
        let key = StreamKey { topic: stream.topic.0, partition: stream.partition };
        let having = self
            .volumes
            .iter()
            .filter_map(|volume| Some((volume.spec.id, volume.state.streams.get(&key)?)));
        let newest = having.max_by_key(|(_, known)| known.moves);
        newest.map(|(volume, known)| (volume, known.epoch_base))
    }
}

async fn committed(
    bucket: &dyn ObjectStore,
    keys: &Keys,
    volume: u32,
    version: u64,
) -> anyhow::Result<Option<i64>> {
    if version == 0 {
        return Ok(None);
    }
    let key = keys.manifest(volume, version);
    let meta = bucket.head(&Path::from(key.as_str())).await.with_context(|| key)?;
    Ok(Some(meta.last_modified.timestamp_millis()))
}
