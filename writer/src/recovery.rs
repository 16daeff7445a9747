//! Taking a volume over: claim it in the catalog, fence and open the device, load the manifests, tell the bucket
//! that a new owner is there, and read the log back. Only then is anything served.
//!
//! The bucket is told before the log is read: an older owner that is cut off from the device already may have
//! a manifest on its way, and what is read back must follow from the last one that there will ever be.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::ObjectStore;
use parking_lot::RwLock;
use sluice_catalog::{Catalog, ClaimError};
use sluice_format::key::Keys;
use sluice_format::{StreamKey, VolumeChange, VolumeState};
use sluice_model::{Clock, Entropy, NodeId, StreamId, TopicId, VolumeEpoch};
use sluice_volume::{CreateError, OpenOptions, RecoveredFrame, Volume};
use sluice_wire::batch::BatchView;
use sluice_wire::scan;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::OpenError;
use crate::manifest_store::{ManifestError, ManifestStore};
use crate::options::{VolumePlace, WriterOptions};
use crate::ownership::{Progress, TakePhase};
use crate::payload::{self, Entry, EntryKind};
use crate::sequence::BatchHeader;
use crate::stream::{Frame, Run, Stream};
use crate::task::Listed;

/// The first pause between tries while the bucket does not answer; each is twice the one before, up to
/// the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How often an older owner, cut off already, may be met in the bucket; each time it had one manifest on its way.
const MOST_RACES: u32 = 16;

/// What every volume of a process shares.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) node: NodeId,
    pub(crate) catalog: Catalog,
    pub(crate) bucket: Arc<dyn ObjectStore>,
    pub(crate) background: Arc<dyn ObjectStore>,
    pub(crate) keys: Keys,
    pub(crate) options: WriterOptions,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// One compaction runs at a time in the process.
    pub(crate) compaction_slot: Arc<Semaphore>,
}

/// A volume that was taken over and read back.
pub(crate) struct Recovered {
    pub(crate) volume: Arc<dyn Volume>,
    pub(crate) manifests: ManifestStore,
    /// Those with records that are not in the bucket yet.
    pub(crate) streams: HashMap<StreamId, Arc<Stream>>,
    pub(crate) frames: Vec<Listed>,
}

/// The stream as formats name it.
pub(crate) fn key_of(stream: StreamId) -> StreamKey {
    StreamKey { topic: stream.topic.0, partition: stream.partition }
}

/// The stream that a format names.
pub(crate) fn stream_of(key: StreamKey) -> StreamId {
    StreamId { topic: TopicId(key.topic), partition: key.partition }
}

/// Takes over `place`'s volume; creates it if it was never used.
pub(crate) async fn take_over(
    place: &VolumePlace,
    expected: Option<VolumeEpoch>,
    around: &Surroundings,
    progress: &mut Progress,
) -> Result<Recovered, OpenError> {
    let epoch = claim(place, expected, around).await?;
    progress.won(epoch);
    progress.enter(TakePhase::Fence);
    let options = OpenOptions {
        queue_depth: around.options.queue_depth,
        reservations: around.options.reservations,
        ..OpenOptions::default()
    };
    let mut recovery = place.medium.open(place.id, epoch, options).await.map_err(|error| {
        OpenError::Volume { volume: place.id.0, path: place.medium.to_string(), error }
    })?;
    progress.enter(TakePhase::Recover);
    let manifests = load(place, around, recovery.hint()).await?;
    if recovery.trim().0 > manifests.state().read().trim_lsn {
        let why = "the log was trimmed further than the bucket's manifests say: the bucket is not the one \
                   that this volume was used with, or has lost objects";
        return Err(OpenError::Contradiction { volume: place.id.0, why: why.to_owned() });
    }
    let manifests = announce(manifests, place, around, epoch).await?;
    let mut replay = Replay::new(place, around, Arc::clone(manifests.state()));
    while let Some(frame) = recovery.next().await? {
        replay.frame(&frame)?;
    }
    let volume = recovery.finish().await?;
    let Replay { streams, frames, .. } = replay;
    Ok(Recovered { volume, manifests, streams, frames })
}

/// Wins the volume in the catalog. A volume that was never owned has no file yet.
async fn claim(
    place: &VolumePlace,
    expected: Option<VolumeEpoch>,
    around: &Surroundings,
) -> Result<VolumeEpoch, OpenError> {
    let failed = |why: String| OpenError::Claim { volume: place.id.0, why };
    let known = around
        .catalog
        .volume(place.id)
        .ok_or_else(|| failed("the catalog does not list it".to_owned()))?;
    let expected = expected.unwrap_or(known.epoch);
    if !place.medium.exists().await {
        if known.epoch > VolumeEpoch(0) {
            return Err(OpenError::Missing { volume: place.id.0, path: place.medium.to_string() });
        }
        match place.medium.create(place.id, around.entropy.random_16()).await {
            // Another node that would have it made it just now; the claim says whose it is.
            Ok(()) | Err(CreateError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    around.catalog.claim_volume(place.id, around.node, expected).await.map_err(
        |error| match error {
            ClaimError::Lost { id, .. } => OpenError::Overtaken { volume: id.0 },
            error => failed(error.to_string()),
        },
    )
}

async fn load(
    place: &VolumePlace,
    around: &Surroundings,
    hint: u64,
) -> Result<ManifestStore, OpenError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let bucket = Arc::clone(&around.bucket);
        match ManifestStore::load(bucket, around.keys.clone(), place.id.0, hint).await {
            Ok(store) => return Ok(store),
            Err(ManifestError::Bucket(error)) => {
                pause = bucket_failed(place.id.0, &error, pause).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Commits a manifest under the new epoch: from here on no older owner can commit. Streams of topics
/// that were deleted meanwhile go with it. Gives the state that this led to, which is newer than the given one if
/// an older owner was first with a manifest that it had on its way.
async fn announce(
    mut manifests: ManifestStore,
    place: &VolumePlace,
    around: &Surroundings,
    epoch: VolumeEpoch,
) -> Result<ManifestStore, OpenError> {
    let mut races = 0;
    loop {
        match announce_on(&mut manifests, around, epoch).await {
            Ok(()) => return Ok(manifests),
            Err(ManifestError::Fenced(other)) if other < epoch.0 && races < MOST_RACES => {
                races += 1;
                let known = manifests.state().read().version;
                manifests = load(place, around, known).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn announce_on(
    manifests: &mut ManifestStore,
    around: &Surroundings,
    epoch: VolumeEpoch,
) -> Result<(), ManifestError> {
    let change = {
        let state = manifests.state().read();
        // Nobody else of this catalog was ever given our epoch.
        if state.epoch >= epoch.0 {
            return Err(ManifestError::Fenced(state.epoch));
        }
        VolumeChange {
            epoch: epoch.0,
            trim_lsn: state.trim_lsn,
            added_segments: Vec::new(),
            removed_streams: named(&state)
                .filter(|key| !is_wanted(around, stream_of(*key)))
                .collect(),
            streams: Vec::new(),
            ..VolumeChange::default()
        }
    };
    let mut pause = FIRST_PAUSE;
    loop {
        match manifests.commit(&change).await {
            // What became unreferenced is left to orphan collection.
            Ok(_) => return Ok(()),
            Err(ManifestError::Bucket(error)) => {
                pause = bucket_failed(manifests.volume(), &error, pause).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Says what is wrong, and rests; gives the next pause. Whoever takes the volume says how long that may go on.
async fn bucket_failed(volume: u32, error: &object_store::Error, pause: Duration) -> Duration {
    let hint = "check bucket.url, that it can be reached, and the credentials in the environment";
    tracing::warn!(volume, %error, hint, "the bucket does not answer as it should; trying again");
    tokio::time::sleep(pause).await;
    (pause * 2).min(LONGEST_PAUSE)
}

/// The streams that a state has or had, each once.
pub(crate) fn named(state: &VolumeState) -> impl Iterator<Item = StreamKey> + '_ {
    state.streams.keys().chain(state.departed.keys()).copied()
}

/// Whether the stream's topic is there.
pub(crate) fn is_wanted(around: &Surroundings, stream: StreamId) -> bool {
    stream.topic.is_internal() || around.catalog.topic_of_any_tenant(stream.topic).is_some()
}

/// Rebuilds streams from the bucket's state and the frames after it.
struct Replay<'a> {
    place: &'a VolumePlace,
    around: &'a Surroundings,
    trim_lsn: u64,
    state: Arc<RwLock<VolumeState>>,
    /// Those that the log names. The others are made when they are first used.
    streams: HashMap<StreamId, Arc<Stream>>,
    frames: Vec<Listed>,
    now_ms: i64,
}

impl<'a> Replay<'a> {
    fn new(
        place: &'a VolumePlace,
        around: &'a Surroundings,
        state: Arc<RwLock<VolumeState>>,
    ) -> Self {
        let now_ms = around.clock.wall_ms();
        let trim_lsn = state.read().trim_lsn;
        let streams = HashMap::new();
        Self { place, around, trim_lsn, state, streams, frames: Vec::new(), now_ms }
    }

    fn contradiction(&self, why: impl Into<String>) -> OpenError {
        OpenError::Contradiction { volume: self.place.id.0, why: why.into() }
    }

    fn frame(&mut self, recovered: &RecoveredFrame) -> Result<(), OpenError> {
        if recovered.lsn.0 < self.trim_lsn {
            // A manifest covers it; only the trim of the volume did not come to pass.
            return Ok(());
        }
        let entries = payload::decode(&recovered.payload)
            .map_err(|error| self.contradiction(format!("lsn {}: {error}", recovered.lsn)))?;
        let mut listed = Listed {
            frame: Frame::new(recovered.lsn, None),
            end: recovered.end,
            bytes: recovered.payload.len() as u64,
            cached_bytes: 0,
            since: Instant::now(),
            runs: Vec::with_capacity(entries.len()),
            moved: Vec::new(),
        };
        for (entry, range) in entries {
            if !is_wanted(self.around, entry.stream) {
                continue;
            }
            let stream = self
                .streams
                .entry(entry.stream)
                .or_insert_with(|| Stream::as_committed(entry.stream, &self.state.read()));
            let stream = Arc::clone(stream);
            match entry.kind {
                EntryKind::LogStart(offset) => {
                    stream.move_log_start(offset);
                    listed.moved.push(stream);
                }
                EntryKind::Batches { base_offset, count } => {
                    let position = range.start as u32;
                    let bytes = recovered.payload.slice(range);
                    let end = self.batches(&stream, &entry, &bytes, recovered.lsn.0)?;
                    listed.runs.push((Arc::clone(&stream), base_offset));
                    stream.commit(Run {
                        base_offset,
                        end_offset: end.0,
                        max_timestamp: end.1,
                        batches: count,
                        leader_epoch: stream.leader_epoch(recovered.epoch),
                        position,
                        len: entry.data_len,
                        frame: Arc::clone(&listed.frame),
                    });
                }
            }
        }
        self.frames.push(listed);
        Ok(())
    }

    /// Replays an entry's batches; gives its end offset and largest timestamp.
    fn batches(
        &self,
        stream: &Stream,
        entry: &Entry,
        bytes: &Bytes,
        lsn: u64,
    ) -> Result<(i64, i64), OpenError> {
        let mut sequencer = stream.sequencer.lock();
        let (mut end, mut max_timestamp, mut walked) = (0, i64::MIN, 0);
        for span in scan::spans(bytes) {
            if span.base_offset != sequencer.next_offset() {
                return Err(self.contradiction(format!(
                    "lsn {lsn}: offset {} of stream {} follows offset {}",
                    span.base_offset,
                    entry.stream,
                    sequencer.next_offset()
                )));
            }
            let batch = BatchView::new(&bytes[span.start..span.end])
                .map_err(|error| self.contradiction(format!("lsn {lsn}: {error}")))?;
            let header = BatchHeader::of(&batch);
            sequencer.replay(&header, span.base_offset, i64::MAX, self.now_ms);
            end = span.end_offset;
            max_timestamp = max_timestamp.max(span.max_timestamp);
            walked = span.end;
        }
        if walked != bytes.len() || bytes.is_empty() {
            return Err(self.contradiction(format!("lsn {lsn}: batches that are not whole")));
        }
        Ok((end, max_timestamp))
    }
}
