//! The coordinator's durable log: an internal stream of a volume, with snapshots in the bucket.
//!
//! One task appends: it waits until a batch is durable, applies its records in order, and only then
//! answers, so that live state and recovered state come from the same records in the same order. When
//! the log has outgrown the state, the task takes a snapshot; once that is put and committed, the log
//! before it goes.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use sluice_format::segment::split_block;
use sluice_format::snapshot::{SnapshotBuilder, decode_snapshot};
use sluice_model::{Clock, StreamId, TopicId};
use sluice_wire::batch::{BatchBuilder, BatchView, NewRecord};
use sluice_wire::scan;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::error::OpenError;
use crate::group::log::{CoordinatorLog, CoordinatorState, LogError, LogRecord};
use crate::recovery::{Surroundings, key_of};
use crate::sequence::BatchHeader;
use crate::stream::{Stream, TailRead};
use crate::volume_handle::OwnedVolume;

/// A snapshot is due when the log since the last one is larger than this and than the last one.
const SNAPSHOT_MIN_BYTES: usize = 4 << 20;
/// After this time the caller is told that it is not known whether its records are durable.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Bytes that a batch may have beside its records.
const BATCH_OVERHEAD_BYTES: usize = 4096;
/// Inflated size is not a question: the log is written uncompressed.
const MAX_INFLATED_BYTES: usize = 16 << 20;

/// The stream of a volume's coordinator log.
pub(crate) fn stream_id(volume: sluice_model::VolumeId) -> StreamId {
    StreamId { topic: TopicId::coordinator_log(), partition: volume.0 }
}

struct Job {
    records: Vec<LogRecord>,
    reply: oneshot::Sender<Result<(), LogError>>,
}

/// The log as the coordinator uses it.
pub(crate) struct VolumeLog {
    jobs: mpsc::UnboundedSender<Job>,
    largest: usize,
}

impl VolumeLog {
    /// Reads the log back into `state`, and starts to serve.
    pub(crate) async fn open(
        volume: &Arc<OwnedVolume>,
        around: &Surroundings,
        state: Arc<dyn CoordinatorState>,
    ) -> Result<Arc<dyn CoordinatorLog>, OpenError> {
        let stream = volume.stream(stream_id(volume.id));
        let mut replay = Replay { volume, around, stream: &stream, state: &*state, bytes: 0 };
        let snapshot_bytes = replay.run().await?;
        let task = LogTask {
            volume: Arc::clone(volume),
            clock: Arc::clone(&around.clock),
            since_snapshot: replay.bytes,
            snapshot_bytes,
            snapshot: None,
            stream,
            state,
        };
        let (jobs, queue) = mpsc::unbounded_channel();
        tokio::spawn(task.run(queue));
        Ok(Arc::new(Self { jobs, largest: largest_append(volume) }))
    }
}

/// The most bytes of records that one append to a volume's coordinator log may have.
pub(crate) fn largest_append(volume: &OwnedVolume) -> usize {
    volume.max_batch_bytes().saturating_sub(BATCH_OVERHEAD_BYTES)
}

#[async_trait]
impl CoordinatorLog for VolumeLog {
    async fn append(&self, records: Vec<LogRecord>) -> Result<(), LogError> {
        let bytes: usize = records.iter().map(|record| record.len_bytes() + 32).sum();
        if bytes > self.largest {
            return Err(LogError::TooLarge);
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job { records, reply }).map_err(|_| LogError::NotOwner)?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(answered) => answered.unwrap_or(Err(LogError::NotOwner)),
            Err(_) => Err(LogError::Unavailable),
        }
    }
}

struct LogTask {
    volume: Arc<OwnedVolume>,
    stream: Arc<Stream>,
    state: Arc<dyn CoordinatorState>,
    clock: Arc<dyn Clock>,
    since_snapshot: usize,
    snapshot_bytes: usize,
    /// The snapshot under way.
    snapshot: Option<JoinHandle<()>>,
}

impl LogTask {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Job>) {
        while let Some(Job { records, reply }) = queue.recv().await {
            let done = self.append(&records).await;
            // The caller may have stopped waiting; the records count all the same.
            let _ = reply.send(done);
            if done.is_ok() {
                self.snapshot_if_due();
            }
        }
    }

    /// Waits as long as it takes: records that become durable must be applied, whoever still waits.
    async fn append(&mut self, records: &[LogRecord]) -> Result<(), LogError> {
        let mut builder = BatchBuilder::new();
        let timestamp_ms = self.clock.wall_ms();
        for record in records {
            builder.push(&NewRecord {
                timestamp_ms,
                key: Some(&record.key),
                value: record.value.as_deref(),
                headers: &[],
            });
        }
        let batch = builder.build();
        let bytes = batch.len();
        let header = BatchView::new(&batch)
            .map(|view| BatchHeader::of(&view))
            .map_err(|_| LogError::TooLarge)?;
        let stream = Arc::clone(&self.stream);
        let answer = self.volume.append(stream, batch, header, None, false).await;
        let durable = answer.map_err(|_| LogError::NotOwner)?.await;
        durable.map_err(|_| LogError::NotOwner)?.map_err(|_| LogError::Unavailable)?;
        for record in records {
            if let Err(error) = self.state.apply(&record.key, record.value.as_deref()) {
                tracing::error!(%error, "the coordinator refuses its own record");
            }
        }
        self.since_snapshot += bytes;
        Ok(())
    }

    fn snapshot_if_due(&mut self) {
        if self.snapshot.as_ref().is_some_and(|snapshot| !snapshot.is_finished()) {
            return;
        }
        if self.since_snapshot < SNAPSHOT_MIN_BYTES.max(self.snapshot_bytes) {
            return;
        }
        // All that was appended is applied, and nothing is appended while this runs.
        let offset = self.stream.high_watermark();
        let mut builder = SnapshotBuilder::default();
        self.state.snapshot(&mut |key, value| builder.push(&key, &value));
        let bytes = builder.finish();
        self.snapshot_bytes = bytes.len();
        self.since_snapshot = 0;
        let (volume, stream) = (Arc::clone(&self.volume), Arc::clone(&self.stream));
        self.snapshot = Some(tokio::spawn(async move {
            // It fails only when the volume's service ends; then the log has it all.
            let _ = volume.snapshot(&stream, offset, bytes).await;
        }));
    }
}

/// Brings a coordinator's state up to the end of the log.
struct Replay<'a> {
    volume: &'a Arc<OwnedVolume>,
    around: &'a Surroundings,
    stream: &'a Stream,
    state: &'a dyn CoordinatorState,
    bytes: usize,
}

impl Replay<'_> {
    /// Gives the length of the snapshot that was read, 0 for none.
    async fn run(&mut self) -> Result<usize, OpenError> {
        let snapshot = self.volume.bucket_state().read().coordinator;
        let mut next = 0;
        let mut snapshot_bytes = 0;
        if let Some(snapshot) = snapshot {
            let key = self.around.keys.snapshot(snapshot.id);
            let bytes = self.get(&key, None).await?;
            let pairs = decode_snapshot(&bytes).map_err(|error| self.damaged(&key, &error))?;
            for (key, value) in pairs {
                self.apply(key, Some(value))?;
            }
            next = snapshot.offset;
            snapshot_bytes = bytes.len();
        }
        let end = self.stream.high_watermark();
        while next < end {
            next = match self.stream.read(next, 1 << 20) {
                TailRead::Runs(runs) => self.replay_runs(&runs, next).await?,
                TailRead::Below => self.replay_extent(next).await?,
                TailRead::AtEnd | TailRead::OutOfRange => {
                    return Err(self.broken(format_args!("offset {next} of its log is missing")));
                }
            };
        }
        Ok(snapshot_bytes)
    }

    async fn replay_runs(
        &mut self,
        runs: &[crate::stream::Run],
        from: i64,
    ) -> Result<i64, OpenError> {
        let mut next = from;
        for run in runs {
            let bytes = self.volume.run_bytes(run).await;
            let bytes = bytes.map_err(|error| self.broken(error))?;
            next = self.batches(&bytes, next)?;
        }
        Ok(next)
    }

    async fn replay_extent(&mut self, from: i64) -> Result<i64, OpenError> {
        let extent = {
            let state = self.volume.bucket_state().read();
            let stream = state.streams.get(&key_of(self.stream.id));
            stream.and_then(|stream| Some(stream.extents[stream.extent_at(from)?]))
        };
        let extent = extent.ok_or_else(|| self.broken(format_args!("offset {from} is nowhere")))?;
        let key = self.around.keys.segment(extent.segment);
        let mut bytes = self.get(&key, Some(extent.data_range())).await?;
        let mut next = from;
        while !bytes.is_empty() {
            let block = split_block(&mut bytes).map_err(|error| self.damaged(&key, &error))?;
            next = self.batches(&block.payload, next)?;
        }
        if next <= from {
            return Err(self.broken(format_args!("offset {from} is not where the manifest says")));
        }
        Ok(next)
    }

    fn batches(&mut self, bytes: &Bytes, from: i64) -> Result<i64, OpenError> {
        let mut next = from;
        self.bytes += bytes.len();
        for span in scan::spans(bytes).filter(|span| span.end_offset > from) {
            let records = BatchView::new(bytes.slice(span.start..span.end))
                .and_then(|batch| batch.records(MAX_INFLATED_BYTES))
                .map_err(|error| self.broken(error))?;
            for record in records {
                let record = record.map_err(|error| self.broken(error))?;
                if record.offset >= from
                    && let Some(key) = &record.key
                {
                    self.apply(key, record.value.as_deref())?;
                }
            }
            next = span.end_offset;
        }
        Ok(next)
    }

    fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), OpenError> {
        self.state.apply(key, value).map_err(|error| self.broken(error))
    }

    async fn get(
        &self,
        key: &str,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Bytes, OpenError> {
        let path = Path::from(key);
        loop {
            let got = match range.clone() {
                Some(range) => self.around.bucket.get_range(&path, range).await,
                None => match self.around.bucket.get(&path).await {
                    Ok(found) => found.bytes().await,
                    Err(error) => Err(error),
                },
            };
            match got {
                Ok(bytes) => return Ok(bytes),
                Err(object_store::Error::NotFound { .. }) => {
                    return Err(self.broken(format_args!("{key} is missing in the bucket")));
                }
                Err(error) => {
                    tracing::warn!(key, %error, "cannot read the coordinator's log; trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    fn broken(&self, why: impl Display) -> OpenError {
        OpenError::Contradiction { volume: self.volume.id.0, why: format!("coordinator: {why}") }
    }

    fn damaged(&self, key: &str, error: &sluice_format::FormatError) -> OpenError {
        self.broken(format_args!("{key}: {error}"))
    }
}
