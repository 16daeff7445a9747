//! What a check has found, and how it is told.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde_json::{Value, json};
use sluice_catalog::journal::Journalled;

use super::super::table::Table;
use super::super::{bytes, time};

/// More than these are counted and not listed.
const MOST_FINDINGS: usize = 10_000;

/// What was checked, counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) manifests: u64,
    pub(super) segments: u64,
    pub(super) segment_bytes: u64,
    pub(super) extents: u64,
    pub(super) blocks: u64,
    pub(super) batches: u64,
    pub(super) frames: u64,
}

/// What one volume has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct VolumeCounts {
    pub(super) epoch: u32,
    pub(super) manifest: u64,
    pub(super) streams: u64,
    pub(super) segments: u64,
    pub(super) bytes: u64,
    /// Frames on the device that are in no manifest; none if it was not looked at.
    pub(super) unuploaded_frames: Option<u64>,
}

/// Objects that no manifest names.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orphans {
    pub(super) count: u64,
    pub(super) bytes: u64,
    pub(super) deleted: u64,
    /// Those that are too young to tell from ones that are about to be named.
    pub(super) young: u64,
}

#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<(String, String)>,
    more_findings: usize,
    notes: Vec<String>,
    pub(super) counts: Counts,
    pub(super) volumes: BTreeMap<u32, VolumeCounts>,
    pub(super) orphans: Orphans,
    journal: Option<(u64, u64, i64)>,
}

impl Report {
    pub(super) fn finding(&mut self, place: impl Display, what: impl Display) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push((place.to_string(), what.to_string()));
        } else {
            self.more_findings += 1;
        }
    }

    pub(super) fn note(&mut self, what: impl Display) {
        self.notes.push(what.to_string());
    }

    pub(super) fn journal(&mut self, found: &Journalled) {
        self.journal = Some((found.sequence, found.revision.0, found.written_ms));
    }

    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    pub(super) fn to_json(&self) -> Value {
        let findings =
            self.findings.iter().map(|(place, what)| json!({ "place": place, "what": what }));
        let volumes = self.volumes.iter().map(|(volume, counts)| {
            json!({
                "volume": volume, "epoch": counts.epoch, "manifest": counts.manifest,
                "streams": counts.streams, "segments": counts.segments, "bytes": counts.bytes,
                "unuploaded_frames": counts.unuploaded_frames,
            })
        });
        let counts = self.counts;
        json!({
            "clean": self.is_clean(),
            "findings": findings.collect::<Vec<_>>(), "more_findings": self.more_findings,
            "notes": self.notes,
            "journal": self.journal.map(|(sequence, revision, written_ms)| json!({
                "sequence": sequence, "revision": revision, "written_ms": written_ms,
            })),
            "volumes": volumes.collect::<Vec<_>>(),
            "checked": {
                "manifests": counts.manifests, "segments": counts.segments,
                "segment_bytes": counts.segment_bytes, "extents": counts.extents,
                "blocks": counts.blocks, "batches": counts.batches, "frames": counts.frames,
            },
            "orphans": {
                "count": self.orphans.count, "bytes": self.orphans.bytes,
                "deleted": self.orphans.deleted, "young": self.orphans.young,
            },
        })
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((sequence, revision, written_ms)) = self.journal {
            let written = time(written_ms);
            writeln!(f, "catalog journal: revision {revision}, object {sequence} of {written}\n")?;
        }
        let mut table = Table::new(&[
            "VOLUME",
            "EPOCH",
            "MANIFEST",
            "STREAMS",
            "SEGMENTS",
            "BYTES",
            "NOT UPLOADED",
        ]);
        for (volume, counts) in &self.volumes {
            let frames = |frames: u64| format!("{frames} frames");
            table.row([
                volume.to_string(),
                counts.epoch.to_string(),
                counts.manifest.to_string(),
                counts.streams.to_string(),
                counts.segments.to_string(),
                bytes(counts.bytes),
                counts.unuploaded_frames.map_or_else(|| "not looked at".to_owned(), frames),
            ]);
        }
        writeln!(f, "{table}")?;
        let Counts { manifests, segments, segment_bytes, extents, blocks, batches, frames } =
            self.counts;
        let size = bytes(segment_bytes);
        writeln!(
            f,
            "checked: {manifests} manifests, {segments} segments ({size}), {extents} extents, {blocks} \
             blocks, {batches} batches, {frames} frames on volumes"
        )?;
        let Orphans { count, bytes: orphan_bytes, deleted, young } = self.orphans;
        let size = bytes(orphan_bytes);
        writeln!(f, "orphans: {count} ({size}), {deleted} deleted; {young} too young to tell")?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        for (place, what) in &self.findings {
            writeln!(f, "finding: {place}: {what}")?;
        }
        if self.more_findings > 0 {
            writeln!(f, "and {} more findings", self.more_findings)?;
        }
        match self.findings.len() + self.more_findings {
            0 => write!(f, "all is well"),
            count => write!(f, "{count} findings"),
        }
    }
}
