//! Each volume's manifests: that they can be read as a start reads them, that no version is missing, and that
//! the state they lead to holds together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context;
use sluice_catalog::journal::Image;
use sluice_format::key::Name;
use sluice_format::{StreamKey, VolumeState};
use sluice_model::{StreamId, TopicId, VolumeEpoch};
use sluice_writer::{ManifestError, ManifestStore};

use super::report::VolumeCounts;
use super::{Checks, States};

impl Checks {
    /// Gives the states of those that can be read.
    pub(super) async fn manifests(&mut self, image: &Image) -> anyhow::Result<States> {
        let mut states = States::new();
        let topics = image.topics()?.into_iter().map(|topic| topic.id).collect();
        let mut known = BTreeSet::new();
        for volume in image.volumes()? {
            let id = volume.spec.id.0;
            known.insert(id);
            if let Some(state) = self.load(id).await? {
                self.against_catalog(id, &state, volume.epoch, &topics);
                states.insert(id, state);
            }
        }
        self.moved(&states);
        let strangers: BTreeSet<u32> = self.manifest_versions().map(|(volume, _)| volume).collect();
        for volume in strangers.difference(&known) {
            self.report.finding(
                format_args!("volume {volume}"),
                "it has manifests, and the catalog does not know it",
            );
        }
        Ok(states)
    }

    /// Of the volumes that have a stream on its way from one to the other each has it under another count of moves.
    fn moved(&mut self, states: &States) {
        let mut known: BTreeMap<(StreamKey, u32), u32> = BTreeMap::new();
        for (volume, state) in states {
            for (key, stream) in &state.streams {
                let Some(other) = known.insert((*key, stream.moves), *volume) else { continue };
                let topic = TopicId(key.topic);
                if topic.is_internal() {
                    continue;
                }
                let stream = StreamId { topic, partition: key.partition };
                let what = format!("volume {other} has stream {stream}, too, and neither is newer");
                self.report.finding(format_args!("volume {volume}"), what);
            }
        }
    }

    fn manifest_versions(&self) -> impl Iterator<Item = (u32, u64)> {
        self.listed.keys().filter_map(|name| match name {
            Name::Manifest { volume, version } => Some((*volume, *version)),
            _ => None,
        })
    }

    /// A volume's state as a start would read it.
    async fn load(&mut self, volume: u32) -> anyhow::Result<Option<VolumeState>> {
        let place = format!("volume {volume}");
        let store =
            ManifestStore::load(Arc::clone(&self.bucket), self.keys.clone(), volume, 0).await;
        let state = match store {
            Ok(store) => store.state().read().clone(),
            Err(ManifestError::Bucket(error)) => {
                return Err(error).with_context(|| format!("cannot read the manifests of {place}"));
            }
            Err(error) => {
                self.report.finding(place, error);
                return Ok(None);
            }
        };
        let of_volume = self.manifest_versions().filter(|(of, _)| *of == volume);
        let versions: Vec<u64> = of_volume.map(|(_, version)| version).collect();
        self.report.counts.manifests += versions.len() as u64;
        for pair in versions.windows(2).filter(|pair| pair[0] + 1 != pair[1]) {
            // Old versions are deleted one by one: a gap among those is a deletion under way.
            let why = format!("manifests {} to {} are missing", pair[0] + 1, pair[1] - 1);
            self.report.note(format_args!("{place}: {why}, which nobody needs any more"));
        }
        if let Err(violation) = state.validate() {
            self.report.finding(&place, violation);
        }
        self.report.volumes.insert(
            volume,
            VolumeCounts {
                epoch: state.epoch,
                manifest: state.version,
                streams: state.streams.len() as u64,
                segments: state.segments.len() as u64,
                bytes: state.segments.values().map(|segment| segment.len).sum(),
                unuploaded_frames: None,
            },
        );
        Ok(Some(state))
    }

    fn against_catalog(
        &mut self,
        volume: u32,
        state: &VolumeState,
        epoch: VolumeEpoch,
        topics: &BTreeSet<TopicId>,
    ) {
        let place = format!("volume {volume}");
        if state.epoch > epoch.0 {
            self.report.finding(
                &place,
                format_args!(
                    "its manifests are of volume epoch {}, and the catalog knows {} only: the catalog is \
                     an older one, or the cluster was restored elsewhere",
                    state.epoch, epoch.0
                ),
            );
        }
        for key in state.streams.keys() {
            let topic = TopicId(key.topic);
            if !topic.is_internal() && !topics.contains(&topic) {
                let stream = StreamId { topic, partition: key.partition };
                self.report.note(format_args!(
                    "{place}: stream {stream} is of a topic that the catalog does not know: it goes \
                     with the next start"
                ));
            }
        }
    }
}
