//! The segments that manifests name: there, of the right length, with a directory that has the extents that the
//! manifests have. Deep: every block and batch, and that offsets are dense.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt};
use sluice_format::key::Name;
use sluice_format::snapshot::decode_snapshot;
use sluice_format::{Extent, SegmentId, StreamKey, VolumeState};
use sluice_model::{StreamId, TopicId};
use sluice_writer::{ManifestError, ManifestStore};

use super::super::segment::{Problem, Segment};
use super::orphans::names;
use super::{Checks, States};

/// Blocks and segments that are read at once.
const AT_ONCE: usize = 8;

/// An extent that a manifest has.
struct Named {
    stream: StreamKey,
    extent: Extent,
    /// Compaction may have taken records away below this offset.
    cleaned_to: i64,
}

/// What came of one segment.
#[derive(Default)]
struct Outcome {
    findings: Vec<String>,
    extents: u64,
    blocks: u64,
    batches: u64,
}

impl Checks {
    pub(super) async fn segments(&mut self, states: &States) -> anyhow::Result<()> {
        for (volume, state) in states {
            self.lent(*volume, state).await?;
            let mut named: BTreeMap<SegmentId, Vec<Named>> = BTreeMap::new();
            for (key, stream) in &state.streams {
                for extent in &stream.extents {
                    let cleaned_to = stream.cleaned_to;
                    let extent = Named { stream: *key, extent: *extent, cleaned_to };
                    named.entry(extent.extent.segment).or_default().push(extent);
                }
            }
            let count = state.segments.len();
            let mut there = Vec::new();
            for (id, segment) in &state.segments {
                let key = self.keys.segment(*id);
                match self.len(Name::Segment(*id)).await? {
                    None if !self.is_named(*volume, Name::Segment(*id)).await? => {}
                    None => self.report.finding(key, "it is missing, and a manifest names it"),
                    Some(len) if len != segment.len => {
                        let wanted = segment.len;
                        let what = format!("it has {len} bytes, and the manifest says {wanted}");
                        self.report.finding(key, what);
                    }
                    Some(_) => there.push((*id, key, named.remove(id).unwrap_or_default())),
                }
            }
            let (bucket, deep) = (Arc::clone(&self.bucket), self.deep);
            let mut checked = stream::iter(there)
                .map(|(id, key, named)| {
                    let bucket = Arc::clone(&bucket);
                    async move {
                        let open = Segment::open(bucket, Path::from(key.as_str())).await;
                        (id, check(open, id, &named, deep).await, key)
                    }
                })
                .buffer_unordered(AT_ONCE);
            let mut done = 0;
            while let Some((id, outcome, key)) = checked.next().await {
                let outcome = outcome.with_context(|| format!("cannot check {key}"))?;
                let name = Name::Segment(id);
                if !outcome.findings.is_empty() && !self.is_named(*volume, name).await? {
                    continue;
                }
                for finding in outcome.findings {
                    self.report.finding(&key, finding);
                }
                let counts = &mut self.report.counts;
                counts.segments += 1;
                counts.segment_bytes += state.segments.get(&id).map_or(0, |segment| segment.len);
                counts.extents += outcome.extents;
                counts.blocks += outcome.blocks;
                counts.batches += outcome.batches;
                done += 1;
                self.progress.show(|| format!("volume {volume}: {done} of {count} segments"));
            }
            if let Some(snapshot) = state.coordinator {
                self.snapshot(snapshot.id).await?;
            }
        }
        Ok(())
    }

    /// Whether the volumes whose owners delete them keep the segments of others that a volume's streams brought along.
    async fn lent(&mut self, volume: u32, state: &VolumeState) -> anyhow::Result<()> {
        for id in state.segments.keys().filter(|id| id.volume != volume) {
            let name = Name::Segment(*id);
            // Looked at before and after: what a stream does not name any more it never names again.
            let is_lost = self.is_named(volume, name).await?
                && !self.is_named(id.volume, name).await?
                && self.is_named(volume, name).await?;
            if is_lost {
                let home = id.volume;
                let what = format!(
                    "volume {volume} names it for a stream that moved there, and volume {home}, whose owner \
                     deletes it, does not know"
                );
                self.report.finding(self.keys.segment(*id), what);
            }
        }
        Ok(())
    }

    /// Whether the newest manifest names an object still: a process that serves may have replaced it since,
    /// and deleted it.
    async fn is_named(&self, volume: u32, name: Name) -> anyhow::Result<bool> {
        let (bucket, keys) = (Arc::clone(&self.bucket), self.keys.clone());
        match ManifestStore::load(bucket, keys, volume, 0).await {
            Ok(store) => Ok(names(&store.state().read()).any(|named| named == name)),
            Err(ManifestError::Bucket(error)) => Err(error).context("cannot read manifests again"),
            // They could be read before; a finding that stands is better than one that is dropped.
            Err(_) => Ok(true),
        }
    }

    async fn snapshot(&mut self, id: SegmentId) -> anyhow::Result<()> {
        let key = self.keys.snapshot(id);
        let name = Name::Snapshot(id);
        let finding = match self.bucket.get(&Path::from(key.as_str())).await {
            Err(Error::NotFound { .. }) => {
                Some("it is missing, and a manifest names it".to_owned())
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {key}")),
            Ok(found) => {
                decode_snapshot(&found.bytes().await?).err().map(|error| error.to_string())
            }
        };
        if let Some(finding) = finding
            && self.is_named(id.volume, name).await?
        {
            self.report.finding(&key, finding);
        }
        Ok(())
    }
}

/// The error is the bucket's: nothing is known then.
async fn check(
    open: Result<Segment, Problem>,
    id: SegmentId,
    named: &[Named],
    deep: bool,
) -> Result<Outcome, Problem> {
    let mut outcome = Outcome::default();
    let segment = match open {
        Ok(segment) => segment,
        Err(error @ Problem::Bucket(_)) => return Err(error),
        Err(problem) => {
            outcome.findings.push(problem.to_string());
            return Ok(outcome);
        }
    };
    if segment.id != id {
        outcome.findings.push("it says that it is another segment".to_owned());
    }
    for named in named {
        outcome.extents += 1;
        let stream =
            StreamId { topic: TopicId(named.stream.topic), partition: named.stream.partition };
        let Extent { base_offset, end_offset, .. } = named.extent;
        if !segment.directory.contains(&(named.stream, named.extent)) {
            outcome.findings.push(format!(
                "its directory does not have the extent of stream {stream} from {base_offset} to \
                 {end_offset} as the manifest has it"
            ));
        }
        if deep {
            match extent(&segment, named, &mut outcome).await {
                Ok(()) => {}
                Err(error @ Problem::Bucket(_)) => return Err(error),
                Err(problem) => outcome.findings.push(format!("stream {stream}: {problem}")),
            }
        }
    }
    Ok(outcome)
}

async fn extent(segment: &Segment, named: &Named, outcome: &mut Outcome) -> Result<(), Problem> {
    let extent = &named.extent;
    let entries = segment.index(extent).await?;
    let mut blocks = stream::iter(entries).map(|entry| segment.block(entry)).buffered(AT_ONCE);
    let mut next = extent.base_offset;
    while let Some(block) = blocks.next().await {
        let block = block?;
        outcome.blocks += 1;
        for batch in &block.batches {
            outcome.batches += 1;
            dense(next, batch.base_offset(), named.cleaned_to)?;
            next = batch.last_offset() + 1;
        }
    }
    dense(next, extent.end_offset, named.cleaned_to)
}

/// Offsets follow each other, but for records that compaction took away.
fn dense(due: i64, found: i64, cleaned_to: i64) -> Result<(), Problem> {
    if found == due || found > due && found <= cleaned_to {
        return Ok(());
    }
    Err(Problem::Wrong(format!("offset {found} follows where {due} is due")))
}
