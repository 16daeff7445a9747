//! One partition's log as it lies on its volume: what is durable, where it is, and who waits for more.
//!
//! The volume task is the only writer. Everyone may read: the lock is held for index work only, never
//! over an await or a copy of records. Always: `log_start <= high_watermark`; runs are contiguous, the
//! last ends at the high watermark; what lies before the first run lies in the bucket; a stream that is
//! not here any more takes and gives nothing.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_format::{AbortedTransaction, VolumeState};
use sluice_model::{StreamId, VolumeEpoch};
use sluice_volume::Lsn;
use tokio::sync::Notify;

use crate::recovery::key_of;
use crate::sequence::Sequencer;

/// A durable frame of the volume. Its payload is in memory until the tail cache lets go of it; then it
/// is read from the volume, or, once it is uploaded, from the bucket.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) lsn: Lsn,
    payload: Mutex<Option<Bytes>>,
}

impl Frame {
    pub(crate) fn new(lsn: Lsn, payload: Option<Bytes>) -> Arc<Self> {
        Arc::new(Self { lsn, payload: Mutex::new(payload) })
    }

    pub(crate) fn payload(&self) -> Option<Bytes> {
        self.payload.lock().clone()
    }

    pub(crate) fn evict(&self) {
        *self.payload.lock() = None;
    }
}

/// Contiguous batches of one stream in one frame.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) base_offset: i64,
    pub(crate) end_offset: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) batches: u32,
    pub(crate) leader_epoch: u32,
    /// Where the batches lie in the frame's payload.
    pub(crate) position: u32,
    pub(crate) len: u32,
    pub(crate) frame: Arc<Frame>,
}

impl Run {
    /// The run's part of its frame's payload.
    pub(crate) fn slice(&self, payload: &Bytes) -> Bytes {
        payload.slice(self.position as usize..(self.position + self.len) as usize)
    }
}

/// Offsets of a stream at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// The first offset that exists.
    pub log_start: i64,
    /// The first offset that is on the volume or in memory; what lies before is in the bucket.
    pub tail_start: i64,
    /// One past the last durable offset.
    pub high_watermark: i64,
    /// Below it every transaction is decided: what a consumer sees that reads committed records only.
    pub last_stable: i64,
}

/// What the tail has at an offset.
#[derive(Debug)]
pub(crate) enum TailRead {
    /// Runs from the one that holds the offset on.
    Runs(Vec<Run>),
    /// The offset is the high watermark: nothing yet.
    AtEnd,
    /// Below the tail: ask the bucket.
    Below,
    /// Below the log start or above the high watermark.
    OutOfRange,
}

/// Whether a stream is served here, while it moves from volume to volume (`moves`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is.
    #[default]
    Here,
    /// It is about to be sealed: it takes no more, and what it has is still given.
    Held,
    /// It is sealed, or another volume's.
    Away,
}

#[derive(Debug, Default)]
struct Shared {
    standing: Standing,
    log_start: i64,
    high_watermark: i64,
    runs: VecDeque<Run>,
    /// (leader epoch, first offset written under it), ascending.
    epochs: Vec<(u32, i64)>,
    waiters: Vec<Arc<Notify>>,
    deleted: bool,
}

impl Shared {
    fn wake(&self) {
        for waiter in &self.waiters {
            waiter.notify_one();
        }
    }

    fn tail_start(&self) -> i64 {
        self.runs.front().map_or(self.high_watermark, |run| run.base_offset)
    }
}

/// A stream. Cheap to share.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) id: StreamId,
    /// Its leader epoch is its volume's epoch and this.
    epoch_base: i32,
    /// Changed by the volume task alone; the uploader looks at it once a segment.
    pub(crate) sequencer: Mutex<Sequencer>,
    shared: Mutex<Shared>,
}

impl Stream {
    /// The stream as manifests have it, with nothing on the volume; an empty one if they do not know it.
    pub(crate) fn as_committed(id: StreamId, state: &VolumeState) -> Arc<Self> {
        let key = key_of(id);
        let known = state.streams.get(&key);
        let is_away = known.is_some_and(|known| known.sealed) || state.departed.contains_key(&key);
        let standing = if is_away { Standing::Away } else { Standing::Here };
        let epoch_base = known.map_or(0, |known| known.epoch_base);
        let (sequencer, log_start, epochs) = known.map_or_else(Default::default, |known| {
            let sequencer = Sequencer::new(known.end_offset, &known.producers);
            (sequencer, known.log_start, known.epochs.clone())
        });
        let high_watermark = sequencer.next_offset();
        let shared = Shared { standing, log_start, high_watermark, epochs, ..Shared::default() };
        let (sequencer, shared) = (Mutex::new(sequencer), Mutex::new(shared));
        Arc::new(Self { id, epoch_base, sequencer, shared })
    }

    /// The stream's leader epoch while its volume is owned under `volume`.
    pub(crate) fn leader_epoch(&self, volume: VolumeEpoch) -> u32 {
        volume.0.saturating_add_signed(self.epoch_base).min(VolumeEpoch::MAX.0)
    }

    pub(crate) fn standing(&self) -> Standing {
        self.shared.lock().standing
    }

    /// Whoever waits for records looks again.
    pub(crate) fn stand(&self, standing: Standing) {
        let mut shared = self.shared.lock();
        shared.standing = standing;
        shared.wake();
    }

    /// Takes no more, if it takes anything now. Appends that the volume task has not given an offset to are refused.
    pub(crate) fn hold(&self) -> bool {
        let mut shared = self.shared.lock();
        let takes = shared.standing == Standing::Here && !shared.deleted;
        if takes {
            shared.standing = Standing::Held;
        }
        takes
    }

    /// Whether manifests have all of it; what is in memory beside is of no account.
    pub(crate) fn is_covered(&self, state: &VolumeState) -> bool {
        let next_offset = self.sequencer.lock().next_offset();
        let shared = self.shared.lock();
        let committed =
            state.streams.get(&key_of(self.id)).map_or((0, 0), |s| (s.end_offset, s.log_start));
        (next_offset, shared.log_start) == committed && shared.high_watermark == next_offset
    }

    /// Whether manifests have all of it, so that [`Stream::as_committed`] makes the same stream again.
    pub(crate) fn is_as_committed(&self, state: &VolumeState) -> bool {
        self.is_covered(state) && self.shared.lock().runs.is_empty()
    }

    pub(crate) fn offsets(&self) -> Offsets {
        let mut offsets = {
            let shared = self.shared.lock();
            let high_watermark = shared.high_watermark;
            let tail_start = shared.tail_start();
            let log_start = shared.log_start;
            Offsets { log_start, tail_start, high_watermark, last_stable: high_watermark }
        };
        if let Some(first) = self.sequencer.lock().first_unstable(offsets.high_watermark) {
            // What was deleted needs no decision.
            offsets.last_stable = first.max(offsets.log_start);
        }
        offsets
    }

    pub(crate) fn high_watermark(&self) -> i64 {
        self.shared.lock().high_watermark
    }

    /// The high watermark, if the stream takes appends.
    pub(crate) fn appendable(&self) -> Option<i64> {
        let shared = self.shared.lock();
        (shared.standing == Standing::Here).then_some(shared.high_watermark)
    }

    /// A durable run: from now on consumers see it.
    pub(crate) fn commit(&self, run: Run) {
        let mut shared = self.shared.lock();
        shared.high_watermark = run.end_offset;
        if shared.epochs.last().is_none_or(|(epoch, _)| *epoch < run.leader_epoch) {
            shared.epochs.push((run.leader_epoch, run.base_offset));
        }
        shared.runs.push_back(run);
        shared.wake();
    }

    /// Moves the log start up; never back.
    pub(crate) fn move_log_start(&self, offset: i64) {
        let mut shared = self.shared.lock();
        shared.log_start = shared.log_start.max(offset);
        // Of the epochs that end before the log start only the newest says something.
        let log_start = shared.log_start;
        let gone = shared.epochs.partition_point(|(_, start)| *start <= log_start);
        shared.epochs.drain(..gone.saturating_sub(1));
        shared.wake();
    }

    /// Lets go of runs below `offset`, which must be in the bucket: there they were cleaned, and consumers
    /// are not to be given from memory what is gone.
    pub(crate) fn release_below(&self, offset: i64) {
        let mut shared = self.shared.lock();
        while shared.runs.front().is_some_and(|run| run.end_offset <= offset) {
            shared.runs.pop_front();
        }
        let tail_start = shared.tail_start();
        drop(shared);
        // Of transactions that were aborted there the markers may be gone, too.
        self.sequencer.lock().forget_ended_before(tail_start);
    }

    /// Lets go of runs whose frame lies before `lsn`.
    pub(crate) fn release_before(&self, lsn: Lsn) {
        let mut shared = self.shared.lock();
        while shared.runs.front().is_some_and(|run| run.frame.lsn < lsn) {
            shared.runs.pop_front();
        }
        if shared.runs.capacity() > 64 && shared.runs.is_empty() {
            shared.runs.shrink_to_fit();
        }
        let tail_start = shared.tail_start();
        drop(shared);
        self.sequencer.lock().forget_ended_before(tail_start);
    }

    /// Aborted transactions that may have records in `range`, of those whose marker lies in the tail. For
    /// the others, the extents' sections say so.
    pub(crate) fn aborted_over(&self, range: &Range<i64>) -> Vec<AbortedTransaction> {
        self.sequencer.lock().aborted_over(range)
    }

    /// The topic was deleted: waiters wake, and nothing is uploaded any more.
    pub(crate) fn delete(&self) {
        let mut shared = self.shared.lock();
        shared.deleted = true;
        shared.runs.clear();
        shared.wake();
    }

    /// Whoever waits looks again: the volume is not served here any more.
    pub(crate) fn wake(&self) {
        self.shared.lock().wake();
    }

    /// Whether it is sealed, or another volume's.
    pub(crate) fn is_away(&self) -> bool {
        self.standing() == Standing::Away
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.shared.lock().deleted
    }

    /// The run that begins at `base_offset`.
    pub(crate) fn run_at(&self, base_offset: i64) -> Option<Run> {
        let shared = self.shared.lock();
        let index = shared.runs.partition_point(|run| run.base_offset < base_offset);
        shared.runs.get(index).filter(|run| run.base_offset == base_offset).cloned()
    }

    /// Runs from the one that holds `offset` on, until they hold `max_bytes` (at least one).
    pub(crate) fn read(&self, offset: i64, max_bytes: u64) -> TailRead {
        let shared = self.shared.lock();
        if offset < shared.log_start || offset > shared.high_watermark {
            return TailRead::OutOfRange;
        }
        if offset == shared.high_watermark {
            return TailRead::AtEnd;
        }
        let first = shared.runs.partition_point(|run| run.end_offset <= offset);
        if first == 0 && shared.runs.front().is_none_or(|run| run.base_offset > offset) {
            return TailRead::Below;
        }
        let mut bytes = 0;
        let mut runs = Vec::new();
        for run in shared.runs.range(first..) {
            runs.push(run.clone());
            // The first run may hold little after the offset.
            bytes += if runs.len() > 1 { u64::from(run.len) } else { 1 };
            if bytes >= max_bytes {
                break;
            }
        }
        TailRead::Runs(runs)
    }

    /// How many bytes could be read from `offset` to `end`, up to `enough`; an estimate that is never 0
    /// when there is something, an error for the client included.
    pub(crate) fn available(&self, offset: i64, end: i64, enough: u64) -> u64 {
        let shared = self.shared.lock();
        if shared.deleted || offset < shared.log_start || offset > shared.high_watermark {
            return enough;
        }
        if offset >= end {
            return 0;
        }
        let mut bytes = 0;
        for run in shared.runs.iter().rev().skip_while(|run| run.base_offset >= end) {
            if run.end_offset <= offset || bytes >= enough {
                return bytes;
            }
            let part = if run.base_offset >= offset { u64::from(run.len) } else { 1 };
            bytes += part;
        }
        // All of the tail was counted: is there more in the bucket?
        if offset < shared.tail_start() { enough } else { bytes }
    }

    /// The first run whose largest timestamp is at least `timestamp`, if the tail has one.
    pub(crate) fn run_from_timestamp(&self, timestamp: i64) -> Option<Run> {
        let shared = self.shared.lock();
        let log_start = shared.log_start;
        let mut runs = shared.runs.iter();
        runs.find(|run| run.max_timestamp >= timestamp && run.end_offset > log_start).cloned()
    }

    /// The largest timestamp in the tail, and the first run that has it.
    pub(crate) fn run_of_max_timestamp(&self) -> Option<Run> {
        let shared = self.shared.lock();
        let mut best: Option<&Run> = None;
        for run in shared.runs.iter().filter(|run| run.end_offset > shared.log_start) {
            if best.is_none_or(|best| run.max_timestamp > best.max_timestamp) {
                best = Some(run);
            }
        }
        best.cloned()
    }

    /// Bytes of the runs from `offset` on.
    pub(crate) fn bytes_from(&self, offset: i64) -> u64 {
        let shared = self.shared.lock();
        let mut runs = shared.runs.iter();
        runs.by_ref().filter(|run| run.base_offset >= offset).map(|run| u64::from(run.len)).sum()
    }

    /// (leader epoch, first offset), ascending, for offsets below `end`.
    pub(crate) fn epochs_below(&self, end: i64) -> Vec<(u32, i64)> {
        let shared = self.shared.lock();
        shared.epochs.iter().copied().filter(|(_, start)| *start < end).collect()
    }

    /// The largest epoch not above `epoch` that has records, and where it ends; see
    /// OffsetForLeaderEpoch.
    pub(crate) fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        let shared = self.shared.lock();
        let after =
            shared.epochs.partition_point(|(known, _)| i64::from(*known) <= i64::from(epoch));
        let (found, _) = shared.epochs.get(after.checked_sub(1)?)?;
        let end = shared.epochs.get(after).map_or(shared.high_watermark, |(_, start)| *start);
        Some((i32::try_from(*found).unwrap_or(i32::MAX), end))
    }

    /// The leader epoch under which `offset` was written.
    pub(crate) fn epoch_of(&self, offset: i64) -> i32 {
        let shared = self.shared.lock();
        let after = shared.epochs.partition_point(|(_, start)| *start <= offset);
        let found = after.checked_sub(1).and_then(|index| shared.epochs.get(index));
        found.map_or(-1, |(epoch, _)| i32::try_from(*epoch).unwrap_or(i32::MAX))
    }

    fn subscribe(&self, waiter: &Arc<Notify>) {
        self.shared.lock().waiters.push(Arc::clone(waiter));
    }

    fn unsubscribe(&self, waiter: &Arc<Notify>) {
        let mut shared = self.shared.lock();
        if let Some(at) = shared.waiters.iter().position(|known| Arc::ptr_eq(known, waiter)) {
            shared.waiters.swap_remove(at);
        }
    }
}

/// Waits until one of some streams grows, moves its log start, or is deleted.
#[derive(Debug)]
pub struct Waiter {
    notify: Arc<Notify>,
    streams: Vec<Arc<Stream>>,
}

impl Waiter {
    pub(crate) fn new(streams: Vec<Arc<Stream>>) -> Self {
        Self::with(Arc::new(Notify::new()), streams)
    }

    /// Notifies `notify`, which may be told of other things too.
    pub(crate) fn with(notify: Arc<Notify>, streams: Vec<Arc<Stream>>) -> Self {
        for stream in &streams {
            stream.subscribe(&notify);
        }
        Self { notify, streams }
    }

    /// Returns after the first change since this waiter was made or last returned. Cancel safe.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        for stream in &self.streams {
            stream.unsubscribe(&self.notify);
        }
    }
}
