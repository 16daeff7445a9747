//! The data directory: the catalog, and the volumes with what they hold beyond the manifests.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use sluice_catalog::Volume;
use sluice_catalog::embedded::{self, Held};
use sluice_catalog::journal::Image;
use sluice_format::{StreamKey, VolumeState};
use sluice_model::{StreamId, TopicId};
use sluice_volume::{InspectError, InspectedFrame, Slot, inspect};
use sluice_wire::batch::BatchView;
use sluice_wire::scan;
use sluice_writer::{EntryKind, decode_payload};

use super::{Checks, States};
use crate::config::Config;
use crate::volumes::medium;

/// What a data directory has.
pub(super) struct Local {
    /// None if there is no data directory.
    pub(super) image: Option<Image>,
    torn_bytes: usize,
    /// Keeps processes away while the volumes are looked at; none if one is there.
    held: Option<Held>,
}

impl Local {
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let dir = config.data_dir.join("catalog");
        if !Path::new(&dir.join("catalog.log")).is_file() {
            return Ok(Self { image: None, torn_bytes: 0, held: None });
        }
        let held =
            embedded::hold(&dir).with_context(|| format!("cannot look into {}", dir.display()))?;
        let peeked = embedded::peek(&dir)?;
        let (image, torn_bytes) = peeked.map_or((None, 0), |(image, torn)| (Some(image), torn));
        Ok(Self { image, torn_bytes, held })
    }

    /// Whether no process changes it.
    pub(super) fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl Checks {
    pub(super) async fn volumes(
        &mut self,
        config: &Config,
        local: &Local,
        states: &States,
    ) -> anyhow::Result<()> {
        let Some(image) = &local.image else {
            self.report.note("there is no data directory: the bucket alone was checked");
            return Ok(());
        };
        if !local.is_held() {
            self.report.note("a process has the data directory open: the bucket alone was checked");
            return Ok(());
        }
        if local.torn_bytes > 0 {
            let torn = local.torn_bytes;
            self.report.note(format_args!(
                "the catalog ends with {torn} bytes of a torn write, which the next start drops"
            ));
        }
        for volume in image.volumes()? {
            if let Some(state) = states.get(&volume.spec.id.0) {
                self.volume(config, &volume, state).await?;
            }
        }
        Ok(())
    }

    async fn volume(
        &mut self,
        config: &Config,
        volume: &Volume,
        state: &VolumeState,
    ) -> anyhow::Result<()> {
        let place = format!("volume {}", volume.spec.id);
        let medium = match medium(config, &volume.spec) {
            Ok(medium) => medium,
            Err(error) => {
                self.report.note(format_args!("{place} was not looked at: {error:#}"));
                return Ok(());
            }
        };
        let seen = match inspect(&medium).await {
            Ok(seen) => seen,
            Err(InspectError::Missing) if volume.epoch.0 == 0 => return Ok(()),
            Err(InspectError::Missing) => {
                self.report.finding(place, format_args!("{medium} is missing"));
                return Ok(());
            }
            Err(error) => return Err(error).with_context(|| format!("{place}: {medium}")),
        };
        let (Some(current), Some(mut frames)) = (seen.current, seen.frames()) else {
            self.report.finding(place, format_args!("{medium} has no valid superblock"));
            return Ok(());
        };
        if current.id != volume.spec.id {
            let found = current.id;
            self.report.finding(&place, format_args!("{medium} is volume {found}"));
            return Ok(());
        }
        if seen.slots.iter().any(|slot| !matches!(slot, Slot::Valid(_))) {
            self.report.note(format_args!(
                "{place}: one of its two superblocks is not whole; the next open writes both"
            ));
        }
        if current.epoch > volume.epoch {
            let (found, known) = (current.epoch.0, volume.epoch.0);
            let what =
                format!("it was opened under epoch {found}, and the catalog knows {known} only");
            self.report.finding(&place, what);
        }
        if current.trim.0 > state.trim_lsn {
            self.report.finding(
                &place,
                format_args!(
                    "it was trimmed up to {}, and its manifests say {}: the bucket is not the one that \
                     it was used with, or has lost manifests",
                    current.trim, state.trim_lsn
                ),
            );
        }
        let mut log = LogCheck::new(state, self.deep);
        let unreadable = || format!("{place}: cannot read its log");
        while let Some(frame) = frames.next().await.with_context(unreadable)? {
            self.report.counts.frames += 1;
            if let Err(what) = log.frame(&frame) {
                self.report.finding(&place, format_args!("the frame at lsn {}: {what}", frame.lsn));
            }
        }
        let end = frames.end().await.with_context(unreadable)?;
        if let Some(beyond) = end.durable_beyond {
            let head = end.head;
            let what =
                format!("its log was durable up to {beyond}, and can be read up to {head} only");
            self.report.finding(&place, what);
        } else if end.head.0 < state.trim_lsn {
            self.report.finding(
                &place,
                format_args!("its log ends at {}, before what its manifests hold", end.head),
            );
        }
        if let Some(counts) = self.report.volumes.get_mut(&volume.spec.id.0) {
            counts.unuploaded_frames = Some(log.frames);
        }
        Ok(())
    }
}

/// Follows a log beyond the manifests.
struct LogCheck<'a> {
    state: &'a VolumeState,
    deep: bool,
    /// Frames that no manifest covers.
    frames: u64,
    /// The next offset of each stream that the log has gone on.
    next: BTreeMap<StreamKey, i64>,
}

impl<'a> LogCheck<'a> {
    fn new(state: &'a VolumeState, deep: bool) -> Self {
        Self { state, deep, frames: 0, next: BTreeMap::new() }
    }

    fn frame(&mut self, frame: &InspectedFrame) -> Result<(), String> {
        let entries = decode_payload(&frame.payload).map_err(|error| error.to_string())?;
        if frame.lsn.0 < self.state.trim_lsn {
            return Ok(());
        }
        self.frames += 1;
        for (entry, range) in entries {
            let EntryKind::Batches { base_offset, .. } = entry.kind else { continue };
            let stream = entry.stream;
            let key = StreamKey { topic: stream.topic.0, partition: stream.partition };
            let in_bucket = self.state.streams.get(&key).map(|stream| stream.end_offset);
            let due = self.next.get(&key).copied().or(in_bucket).unwrap_or(0);
            if base_offset != due {
                return Err(found(stream, base_offset, due));
            }
            let bytes = &frame.payload[range];
            let (mut walked, mut next) = (0, due);
            for span in scan::spans(bytes) {
                if span.base_offset != next {
                    return Err(found(stream, span.base_offset, next));
                }
                if self.deep {
                    let batch = BatchView::new(&bytes[span.start..span.end]);
                    let checked = batch.and_then(|batch| batch.check_crc());
                    checked.map_err(|error| format!("stream {stream} at {next}: {error}"))?;
                }
                (walked, next) = (span.end, span.end_offset);
            }
            if walked != bytes.len() || bytes.is_empty() {
                return Err(format!("stream {stream}: batches that are not whole"));
            }
            self.next.insert(key, next);
        }
        Ok(())
    }
}

fn found(stream: StreamId, found: i64, due: i64) -> String {
    // Another topic's records are as good a reason to look as one's own.
    let of =
        if stream.topic == TopicId::coordinator_log() { " (the coordinator's log)" } else { "" };
    format!("stream {stream}{of}: offset {found} follows where {due} is due")
}
