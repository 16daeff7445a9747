//! One cut of the log made into a segment and the change that names it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use object_store::PutPayload;
use sluice_format::key::Keys;
use sluice_format::segment::{BLOCK_TARGET_BYTES, BuiltSegment, Piece, SegmentBuilder};
use sluice_format::state::ProducerSnapshot;
use sluice_format::{Extent, SegmentId, StreamUpdate, TransactionSection};
use sluice_model::{Clock, SendPace};
use sluice_volume::{Lsn, ReadError, Volume};
use sluice_wire::scan;
use tokio::time::Instant;

use super::pipeline::Failed;
use crate::commit::Change;
use crate::metrics::WriterMetrics;
use crate::objects::{FIRST_PAUSE, Objects, rest};
use crate::recovery::key_of;
use crate::stream::{Run, Stream};
use crate::task::Cut;

/// What it takes to turn cuts into segments in the bucket. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Builder {
    pub(crate) objects: Objects,
    pub(crate) keys: Keys,
    pub(crate) volume: Arc<dyn Volume>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: WriterMetrics,
}

impl Builder {
    /// Gathers the cut's batches, from memory or from the volume, into segment `id` and puts it. Gives
    /// the change that is to be committed.
    pub(super) async fn upload(
        self,
        cut: Cut,
        id: SegmentId,
        pace: Option<SendPace>,
    ) -> Result<Change, Failed> {
        let segment = self.build(&cut, id).await?;
        let mut streams = Vec::new();
        let mut added = None;
        if let Some((BuiltSegment { id, parts, len, extents }, producers)) = segment {
            added = Some((id, len));
            let built = cut.streams.iter().filter(|(_, runs)| !runs.is_empty());
            for (((key, extent), producers), (stream, _)) in
                extents.into_iter().zip(producers).zip(built)
            {
                debug_assert_eq!(key, key_of(stream.id));
                streams.push((key, update(stream, extent, producers)));
            }
            let started = Instant::now();
            let payload = PutPayload::from_iter(parts);
            self.objects.put(&self.keys.segment(id), &payload, pace).await?;
            self.metrics.put_seconds.observe(started.elapsed().as_secs_f64());
            self.metrics.segments.inc();
            self.metrics.segment_bytes.inc_by(len);
        }
        let moved = cut.moved.iter().map(|stream| (key_of(stream.id), stream.offsets().log_start));
        Ok(Change::Upload {
            segment: added,
            streams,
            log_starts: moved.collect(),
            trim_lsn: cut.upto.0,
        })
    }

    /// What is to be said of a stream beside its records, as of the end of `runs`.
    fn section(&self, stream: &Stream, runs: &[Run]) -> TransactionSection {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return TransactionSection::default();
        };
        let mut sequencer = stream.sequencer.lock();
        sequencer.expire(self.clock.wall_ms());
        TransactionSection {
            aborted: sequencer.aborted(&(first.base_offset..last.end_offset)),
            producers: sequencer.durable_producers(last.end_offset),
        }
    }

    /// The segment, and of each extent the producers as of its end. None if all of the cut was deleted
    /// meanwhile.
    async fn build(
        &self,
        cut: &Cut,
        id: SegmentId,
    ) -> Result<Option<(BuiltSegment, Vec<Producers>)>, Failed> {
        let mut missing: BTreeMap<Lsn, Bytes> = BTreeMap::new();
        let mut payloads: HashMap<Lsn, Bytes> = HashMap::new();
        for run in cut.streams.iter().flat_map(|(_, runs)| runs) {
            match run.frame.payload() {
                Some(payload) => payloads.insert(run.frame.lsn, payload),
                None => missing.insert(run.frame.lsn, Bytes::new()),
            };
        }
        // In log order, each frame once.
        for lsn in missing.into_keys() {
            payloads.insert(lsn, self.read_frame(lsn).await?);
        }
        let mut builder = SegmentBuilder::new(id);
        let mut producers = Vec::new();
        for (stream, runs) in cut.streams.iter().filter(|(_, runs)| !runs.is_empty()) {
            let mut pieces = Vec::with_capacity(runs.len());
            for run in runs {
                if let Some(payload) = payloads.get(&run.frame.lsn) {
                    push_pieces(run, payload, &mut pieces);
                }
            }
            let section = self.section(stream, runs);
            builder.push_extent_with(key_of(stream.id), &pieces, &section);
            producers.push(section.producers);
        }
        Ok((!producers.is_empty()).then(|| (builder.finish(), producers)))
    }

    async fn read_frame(&self, lsn: Lsn) -> Result<Bytes, Failed> {
        let mut pause = FIRST_PAUSE;
        loop {
            self.metrics.volume_reads.inc();
            match self.volume.read(lsn).await {
                Ok(payload) => return Ok(payload),
                Err(ReadError::Io(error)) => {
                    tracing::warn!(volume = self.volume.id().0, %error, "cannot read the volume");
                    pause = rest(pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

type Producers = Vec<ProducerSnapshot>;

fn update(stream: &Stream, extent: Extent, producers: Producers) -> StreamUpdate {
    let end_offset = extent.end_offset;
    StreamUpdate {
        log_start: stream.offsets().log_start.min(end_offset),
        end_offset,
        extent: Some(extent),
        epochs: stream.epochs_below(end_offset),
        producers,
    }
}

/// Cuts a run at batches, so that no piece is much larger than a block is to be.
fn push_pieces(run: &Run, payload: &Bytes, out: &mut Vec<Piece>) {
    let bytes = run.slice(payload);
    let whole = Piece {
        base_offset: run.base_offset,
        end_offset: run.end_offset,
        max_timestamp: run.max_timestamp,
        batches: run.batches,
        leader_epoch: run.leader_epoch,
        bytes: bytes.clone(),
    };
    if bytes.len() <= BLOCK_TARGET_BYTES {
        out.push(whole);
        return;
    }
    let mut start = 0;
    let mut batches = 0;
    let mut base_offset = run.base_offset;
    let mut max_timestamp = i64::MIN;
    for span in scan::spans(&bytes) {
        batches += 1;
        max_timestamp = max_timestamp.max(span.max_timestamp);
        if span.end - start >= BLOCK_TARGET_BYTES || span.end == bytes.len() {
            out.push(Piece {
                base_offset,
                end_offset: span.end_offset,
                max_timestamp,
                batches,
                leader_epoch: run.leader_epoch,
                bytes: bytes.slice(start..span.end),
            });
            start = span.end;
            base_offset = span.end_offset;
            batches = 0;
            max_timestamp = i64::MIN;
        }
    }
}
