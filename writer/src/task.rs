//! The volume task: the one owner of a volume's log. It gives appends their offsets, groups what has
//! gathered while earlier writes were in flight into one frame, and makes frames visible and
//! acknowledged strictly in order, once durable.
//!
//! There is no timer: a frame is written as soon as the device takes one more. Appends that arrive
//! while the device is busy make the next frame larger, so that throughput grows with load.
//!
//! What always holds: nothing is visible or acknowledged before it is durable; runs of a stream are
//! committed in offset order; un-uploaded frames stay listed in `frames` until a manifest covers them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_catalog::Tenure;
use sluice_model::{Clock, StreamId};
use sluice_volume::{
    AppendError as VolumeAppendError, Durable, FrameBuf, Health, Lsn, NotDurable, Ticket, Volume,
};
use sluice_wire::batch::BatchMut;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::error::AppendError;
use crate::metrics::WriterMetrics;
use crate::options::WriterOptions;
use crate::payload::{ENTRY_LEN, Entry, EntryKind, HEADER_LEN, encode_entries};
use crate::sequence::{BatchHeader, Sequenced, Voucher};
use crate::stream::{Frame, Run, Stream};

/// Entries in a frame at most.
const ENTRIES_PER_FRAME: usize = 4096;
/// A frame is closed when its batches reach this, so that several can be in flight.
const FRAME_TARGET_BYTES: usize = 1 << 20;
/// What a frame may hold beside one large batch.
const FRAME_RESERVE_BYTES: usize = FRAME_TARGET_BYTES + HEADER_LEN + ENTRIES_PER_FRAME * ENTRY_LEN;

/// Above this part of a volume being in use, appends are slowed down: progressively, so that producers meet
/// a slower log before they meet a full one.
const PACED_ABOVE: f64 = 0.75;
/// How long a full frame's worth of appends waits when the volume is about full.
const LONGEST_PACE: Duration = Duration::from_millis(500);

/// Up to this size a payload is copied out of its frame's buffer.
const SMALL_PAYLOAD_BYTES: usize = 8 << 10;
/// What a frame's buffer may have beside the payload: header, padding, alignment.
const BUFFER_SLACK_BYTES: u64 = 8 << 10;
/// What a listed frame with one run takes beside its payload.
const LISTED_OVERHEAD_BYTES: u64 = 512;

/// The largest batch that a volume takes.
pub(crate) fn max_batch_bytes(volume: &dyn Volume) -> usize {
    volume.max_payload_bytes().saturating_sub(FRAME_RESERVE_BYTES)
}

/// An append that is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Milliseconds since the epoch if the broker's time was used, else -1; of a batch that was there already
    /// its largest timestamp, as in Kafka.
    pub log_append_time_ms: i64,
}

/// One batch for one stream, checked.
#[derive(Debug)]
pub(crate) struct Append {
    pub(crate) stream: Arc<Stream>,
    pub(crate) batch: Bytes,
    pub(crate) header: BatchHeader,
    /// With it a transaction may begin.
    pub(crate) voucher: Option<Voucher>,
    /// The topic wants the broker's time in its records.
    pub(crate) log_append_time: bool,
    pub(crate) reply: oneshot::Sender<Result<Appended, AppendError>>,
    pub(crate) queued: Instant,
    /// Held until the append is durable: bounds what is queued.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What the task is asked to do beside appends. These are taken even while appends wait for room.
#[derive(Debug)]
pub(crate) enum Control {
    /// Moves a log start, durably.
    MoveLogStart { stream: Arc<Stream>, offset: i64, reply: oneshot::Sender<()> },
    /// Takes what to upload next; nothing if all is uploaded or on its way. The state is published before
    /// the answer.
    Cut { max_bytes: u64, reply: oneshot::Sender<Option<Cut>> },
    /// A manifest that covers everything before `upto` is committed.
    Uploaded { upto: Lsn },
    /// Room was made.
    Trimmed,
    /// Answered when all is durable that was given an offset before.
    Barrier { reply: oneshot::Sender<()> },
    /// Take no more appends, and end when all is durable.
    Close,
}

/// Durable frames to be uploaded, stream by stream.
#[derive(Debug)]
pub(crate) struct Cut {
    /// The end of the last frame: the new trim point.
    pub(crate) upto: Lsn,
    pub(crate) bytes: u64,
    /// When the oldest of them became durable.
    pub(crate) since: Instant,
    pub(crate) streams: Vec<(Arc<Stream>, Vec<Run>)>,
    /// Streams with no new runs whose log start moved.
    pub(crate) moved: Vec<Arc<Stream>>,
}

/// What others may see of the task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskState {
    /// Bytes of frames that no upload has taken yet.
    pub(crate) waiting_bytes: u64,
    /// When the oldest of them became durable.
    pub(crate) oldest_waiting: Option<Instant>,
    /// The volume is full and appends wait.
    pub(crate) full: bool,
    /// The volume was lost or closed; nothing more is served.
    pub(crate) ended: bool,
}

/// One stream's part of the frame in the making.
struct Part {
    stream: Arc<Stream>,
    base_offset: i64,
    end_offset: i64,
    max_timestamp: i64,
    /// Each with its base offset and, if the broker's time is wanted, that time.
    batches: Vec<(Bytes, i64, Option<i64>)>,
    bytes: usize,
}

struct Reply {
    to: oneshot::Sender<Result<Appended, AppendError>>,
    appended: Appended,
    queued: Instant,
    _permit: Option<OwnedSemaphorePermit>,
}

/// What happens when a frame is durable.
#[derive(Default)]
struct Outcome {
    replies: Vec<Reply>,
    moves: Vec<(Arc<Stream>, i64, oneshot::Sender<()>)>,
    barriers: Vec<oneshot::Sender<()>>,
    runs: Vec<(Arc<Stream>, RunShape)>,
    append_bytes: u64,
}

/// A run without its frame.
struct RunShape {
    base_offset: i64,
    end_offset: i64,
    max_timestamp: i64,
    batches: u32,
    position: u32,
    len: u32,
}

#[derive(Default)]
struct Gathering {
    parts: Vec<Part>,
    index: HashMap<StreamId, usize>,
    moves: Vec<(Arc<Stream>, i64, oneshot::Sender<()>)>,
    replies: Vec<Reply>,
    barriers: Vec<oneshot::Sender<()>>,
    bytes: usize,
}

impl Gathering {
    fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.moves.is_empty()
    }

    /// The payload's length if it were closed now.
    fn payload_bytes(&self) -> usize {
        HEADER_LEN + (self.parts.len() + self.moves.len()) * ENTRY_LEN + self.bytes
    }
}

/// A durable frame that the task still lists.
pub(crate) struct Listed {
    pub(crate) frame: Arc<Frame>,
    pub(crate) end: Lsn,
    pub(crate) bytes: u64,
    /// Memory that its payload takes; 0 when it was let go of.
    pub(crate) cached_bytes: u64,
    pub(crate) since: Instant,
    /// (stream, base offset of its run).
    pub(crate) runs: Vec<(Arc<Stream>, i64)>,
    pub(crate) moved: Vec<Arc<Stream>>,
}

/// The task's own state.
pub(crate) struct VolumeTask {
    volume: Arc<dyn Volume>,
    /// The volume is served for as long as this holds.
    tenure: Option<Tenure>,
    options: WriterOptions,
    clock: Arc<dyn Clock>,
    metrics: WriterMetrics,
    state: watch::Sender<TaskState>,
    gathering: Gathering,
    /// Frames the volume has not taken yet: it was full or busy.
    stalled: Option<(FrameBuf, Outcome)>,
    full: bool,
    /// No append is taken before this: the volume fills faster than uploads empty it.
    paced_until: Option<Instant>,
    in_flight: VecDeque<(Ticket, Outcome)>,
    /// In lsn order: first those that are uploaded and still in memory, then the rest.
    frames: VecDeque<Listed>,
    /// How many of `frames` are uploaded.
    uploaded: usize,
    /// How many of `frames` are uploaded or on their way.
    taken: usize,
    /// The first frame that may still be in memory.
    first_cached: usize,
    cached_bytes: u64,
    unuploaded_bytes: u64,
    waiting_bytes: u64,
}

impl VolumeTask {
    pub(crate) fn new(
        volume: Arc<dyn Volume>,
        tenure: Option<Tenure>,
        options: WriterOptions,
        clock: Arc<dyn Clock>,
        metrics: WriterMetrics,
        state: watch::Sender<TaskState>,
        recovered: Vec<Listed>,
    ) -> Self {
        let unuploaded_bytes = recovered.iter().map(|listed| listed.bytes).sum();
        metrics.unuploaded_bytes.inc_by(unuploaded_bytes as i64);
        let task = Self {
            volume,
            tenure,
            options,
            clock,
            metrics,
            state,
            gathering: Gathering::default(),
            stalled: None,
            full: false,
            paced_until: None,
            in_flight: VecDeque::new(),
            first_cached: recovered.len(),
            frames: recovered.into(),
            uploaded: 0,
            taken: 0,
            cached_bytes: 0,
            unuploaded_bytes,
            waiting_bytes: unuploaded_bytes,
        };
        task.publish();
        task
    }

    /// Whether the volume may be served still. If not it is fenced: nothing else would stop it.
    fn is_in_tenure(&self) -> bool {
        let holds = self.tenure.as_ref().is_none_or(Tenure::holds);
        if !holds {
            tracing::warn!(
                volume = self.volume.id().0,
                "this node's lease may have ended, and the volume does not fence by itself: serving it no more"
            );
            self.volume.fence();
        }
        holds
    }

    /// Runs until the append channel is closed and everything is durable, or the volume is lost.
    pub(crate) async fn run(
        mut self,
        mut appends: mpsc::UnboundedReceiver<Append>,
        mut control: mpsc::UnboundedReceiver<Control>,
    ) {
        let mut open = true;
        let mut closing = false;
        let mut health = self.volume.health();
        while open || !self.in_flight.is_empty() || !self.gathering.is_empty() {
            tokio::select! {
                biased;
                durable = next_durable(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    match durable {
                        // What became durable while the lease lived is found by the next owner.
                        Ok(durable) if self.is_in_tenure() => self.committed(durable),
                        Ok(_) => break,
                        Err(NotDurable::Fenced | NotDurable::Closed) => break,
                    }
                }
                Some(command) = control.recv() => match command {
                    // What was queued before is still taken.
                    Control::Close => {
                        appends.close();
                        closing = true;
                    }
                    command => self.obey(command),
                },
                // The device may be lost while nothing is written.
                lost = health.wait_for(|health| matches!(health, Health::Fenced | Health::Closed)) => {
                    drop(lost);
                    break;
                }
                () = until(self.paced_until) => self.paced_until = None,
                append = appends.recv(), if open && self.accepts() => match append {
                    Some(append) => self.gather(append, &mut appends),
                    None => open = false,
                },
            }
            let stuck = closing && self.full && self.in_flight.is_empty();
            if !self.submit() || stuck {
                // Lost; or full with nobody left to make room: what waits was never acknowledged.
                break;
            }
        }
        self.state.send_modify(|state| state.ended = true);
        // Dropping the replies tells every waiting caller that this node does not own the stream.
    }

    fn accepts(&self) -> bool {
        self.stalled.is_none()
            && self.paced_until.is_none()
            && self.gathering.bytes < FRAME_TARGET_BYTES
            && self.gathering.parts.len() + self.gathering.moves.len() < ENTRIES_PER_FRAME
    }

    /// Takes an append and all that wait behind it, as far as they fit into one frame.
    fn gather(&mut self, first: Append, appends: &mut mpsc::UnboundedReceiver<Append>) {
        self.sequence(first);
        while self.accepts()
            && let Ok(append) = appends.try_recv()
        {
            self.sequence(append);
        }
    }

    fn obey(&mut self, command: Control) {
        match command {
            Control::MoveLogStart { stream, offset, reply } => {
                // Without an answer the caller knows that the stream is not here.
                if stream.appendable().is_some() {
                    self.gathering.moves.push((stream, offset, reply));
                }
            }
            Control::Barrier { reply } => self.answer_barrier_when_durable(reply),
            Control::Cut { max_bytes, reply } => {
                let cut = self.cut(max_bytes);
                self.publish();
                // A caller that is gone has ended, and with it all uploads.
                let _ = reply.send(cut);
            }
            Control::Uploaded { upto } => self.uploaded(upto),
            Control::Trimmed => {
                self.full = false;
                self.publish();
            }
            Control::Close => {}
        }
    }

    fn sequence(&mut self, append: Append) {
        // A caller that has given up was told to retry: appending now could only make a duplicate.
        if append.reply.is_closed() {
            return;
        }
        let Append { stream, batch, header, voucher, log_append_time, reply, queued, _permit } =
            append;
        let now_ms = self.clock.wall_ms();
        let time = log_append_time.then_some(now_ms);
        // As it will be stored, and as recovery finds it there.
        let header = BatchHeader { max_timestamp: time.unwrap_or(header.max_timestamp), ..header };
        let Some(durable) = stream.appendable() else {
            let _ = reply.send(Err(AppendError::NotOwner));
            return;
        };
        let decision = stream.sequencer.lock().take(&header, voucher, durable, now_ms);
        match decision {
            Err(error) => {
                let _ = reply.send(Err(error.into()));
            }
            Ok(Sequenced::Duplicate { base_offset, timestamp_ms }) => {
                self.metrics.duplicates.inc();
                // As Kafka answers: the stored batch's largest time, whosever it is.
                let appended = Appended { base_offset, log_append_time_ms: timestamp_ms };
                let reply = Reply { to: reply, appended, queued, _permit: Some(_permit) };
                self.answer_when_durable(reply, durable);
            }
            Ok(Sequenced::Append(base_offset)) => {
                let end_offset = base_offset + header.offsets;
                let max_timestamp = header.max_timestamp;
                self.gathering.bytes += batch.len();
                let parts = &mut self.gathering.parts;
                let index = *self.gathering.index.entry(stream.id).or_insert_with(|| {
                    parts.push(Part {
                        stream: Arc::clone(&stream),
                        base_offset,
                        end_offset: base_offset,
                        max_timestamp,
                        batches: Vec::with_capacity(1),
                        bytes: 0,
                    });
                    parts.len() - 1
                });
                let part = &mut parts[index];
                part.end_offset = end_offset;
                part.max_timestamp = part.max_timestamp.max(max_timestamp);
                part.bytes += batch.len();
                part.batches.push((batch, base_offset, time));
                let log_append_time_ms = time.unwrap_or(-1);
                let appended = Appended { base_offset, log_append_time_ms };
                let reply = Reply { to: reply, appended, queued, _permit: Some(_permit) };
                self.gathering.replies.push(reply);
            }
        }
    }

    /// Answers a retry of a batch that is in the log already: at once if it is durable, else with the
    /// newest frame, which cannot be durable before it.
    fn answer_when_durable(&mut self, reply: Reply, durable: i64) {
        if reply.appended.base_offset < durable {
            let _ = reply.to.send(Ok(reply.appended));
        } else if !self.gathering.is_empty() {
            self.gathering.replies.push(reply);
        } else if let Some((_, outcome)) = &mut self.stalled {
            outcome.replies.push(reply);
        } else if let Some((_, outcome)) = self.in_flight.back_mut() {
            outcome.replies.push(reply);
        }
    }

    fn answer_barrier_when_durable(&mut self, reply: oneshot::Sender<()>) {
        if !self.gathering.is_empty() {
            self.gathering.barriers.push(reply);
        } else if let Some((_, outcome)) = &mut self.stalled {
            outcome.barriers.push(reply);
        } else if let Some((_, outcome)) = self.in_flight.back_mut() {
            outcome.barriers.push(reply);
        } else {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(());
        }
    }

    /// Hands frames to the volume while it takes them. False when the volume is lost.
    fn submit(&mut self) -> bool {
        loop {
            let (frame, outcome) = match self.stalled.take() {
                Some(stalled) if self.full => {
                    self.stalled = Some(stalled);
                    return true;
                }
                Some(stalled) => stalled,
                None if self.gathering.is_empty() => return true,
                None if self.in_flight.len() >= self.volume.queue_depth() => return true,
                None => self.close_frame(),
            };
            let len = frame.len() as u64;
            if !self.is_in_tenure() {
                return false;
            }
            match self.volume.append(frame) {
                Ok(ticket) => {
                    self.metrics.frames.inc();
                    self.metrics.frame_bytes.inc_by(len);
                    self.in_flight.push_back((ticket, outcome));
                    self.pace(len);
                }
                Err(VolumeAppendError::Busy(frame)) => {
                    self.stalled = Some((frame, outcome));
                    return true;
                }
                Err(VolumeAppendError::Full(frame)) => {
                    self.stalled = Some((frame, outcome));
                    self.full = true;
                    self.metrics.stalls.inc();
                    tracing::warn!(
                        volume = self.volume.id().0,
                        unuploaded_bytes = self.unuploaded_bytes,
                        "the volume is full; appends wait until uploads to the bucket make room"
                    );
                    self.publish();
                    return true;
                }
                Err(VolumeAppendError::TooLarge(_)) => {
                    // Batches are bounded before they are queued, so this is a bug: refuse, go on.
                    tracing::error!(bytes = len, "a frame outgrew the volume's bound");
                    return false;
                }
                Err(VolumeAppendError::Fenced | VolumeAppendError::Closed) => {
                    tracing::warn!(
                        volume = self.volume.id().0,
                        "the volume was lost to another owner"
                    );
                    return false;
                }
            }
        }
    }

    /// After a frame of `len` bytes: how long the next has to wait, so that producers slow down to what
    /// uploads take away before the volume is full.
    fn pace(&mut self, len: u64) {
        let usage = self.volume.usage();
        let used = 1.0 - usage.free_bytes as f64 / usage.capacity_bytes.max(1) as f64;
        let over = (used - PACED_ABOVE) / (1.0 - PACED_ABOVE);
        if over > 0.0 {
            let share = (len as f64 / FRAME_TARGET_BYTES as f64).min(1.0);
            let pace = LONGEST_PACE.mul_f64((over * over * share).min(1.0));
            self.paced_until = Some(Instant::now() + pace);
            self.metrics.paced.inc();
        }
    }

    /// Lays out what was gathered: entries first, then each stream's batches, patched in place.
    fn close_frame(&mut self) -> (FrameBuf, Outcome) {
        let gathering = std::mem::take(&mut self.gathering);
        let epoch = self.volume.epoch();
        let mut frame = FrameBuf::with_capacity(gathering.payload_bytes());
        let batches = gathering.parts.iter().map(|part| Entry {
            stream: part.stream.id,
            kind: EntryKind::Batches {
                base_offset: part.base_offset,
                count: part.batches.len() as u32,
            },
            data_len: part.bytes as u32,
        });
        let moves = gathering.moves.iter().map(|(stream, offset, _)| Entry {
            stream: stream.id,
            kind: EntryKind::LogStart(*offset),
            data_len: 0,
        });
        let entries: Vec<_> = batches.chain(moves).collect();
        let mut head = Vec::with_capacity(HEADER_LEN + entries.len() * ENTRY_LEN);
        encode_entries(&entries, &mut head);
        push(&mut frame, &head);

        let mut outcome = Outcome {
            replies: gathering.replies,
            moves: gathering.moves,
            barriers: gathering.barriers,
            runs: Vec::with_capacity(gathering.parts.len()),
            append_bytes: gathering.bytes as u64,
        };
        for part in gathering.parts {
            let position = frame.len();
            let leader_epoch = part.stream.leader_epoch(epoch).cast_signed();
            for (bytes, base_offset, time) in &part.batches {
                let start = frame.len();
                push(&mut frame, bytes);
                let stored = &mut frame.payload_mut()[start..];
                let mut stored =
                    BatchMut::new(stored).expect("batches are checked before they are queued");
                stored.set_base_offset(*base_offset);
                stored.set_partition_leader_epoch(leader_epoch);
                if let Some(time) = time {
                    stored.set_log_append_time(*time);
                }
            }
            let shape = RunShape {
                base_offset: part.base_offset,
                end_offset: part.end_offset,
                max_timestamp: part.max_timestamp,
                batches: part.batches.len() as u32,
                position: position as u32,
                len: part.bytes as u32,
            };
            outcome.runs.push((part.stream, shape));
        }
        (frame, outcome)
    }

    /// A frame is durable: show it, acknowledge it, list it for upload.
    fn committed(&mut self, durable: Durable) {
        let Some((_, outcome)) = self.in_flight.pop_front() else {
            return;
        };
        let epoch = self.volume.epoch();
        let bytes = durable.payload.len() as u64;
        let (payload, memory) = to_cache(durable.payload);
        let frame = Frame::new(durable.lsn, Some(payload));
        let mut runs = Vec::with_capacity(outcome.runs.len());
        for (stream, shape) in outcome.runs {
            runs.push((Arc::clone(&stream), shape.base_offset));
            let leader_epoch = stream.leader_epoch(epoch);
            stream.commit(Run {
                base_offset: shape.base_offset,
                end_offset: shape.end_offset,
                max_timestamp: shape.max_timestamp,
                batches: shape.batches,
                leader_epoch,
                position: shape.position,
                len: shape.len,
                frame: Arc::clone(&frame),
            });
        }
        let now = Instant::now();
        self.metrics.append_bytes.inc_by(outcome.append_bytes);
        for reply in outcome.replies {
            self.metrics.appends.inc();
            self.metrics.append_seconds.observe((now - reply.queued).as_secs_f64());
            // The caller may have given up; the record is there all the same.
            let _ = reply.to.send(Ok(reply.appended));
        }
        let mut moved = Vec::with_capacity(outcome.moves.len());
        for (stream, offset, reply) in outcome.moves {
            stream.move_log_start(offset);
            let _ = reply.send(());
            moved.push(stream);
        }
        for barrier in outcome.barriers {
            let _ = barrier.send(());
        }
        self.frames.push_back(Listed {
            frame,
            end: durable.end,
            bytes,
            cached_bytes: memory,
            since: now,
            runs,
            moved,
        });
        self.cached_bytes += memory;
        self.unuploaded_bytes += bytes;
        self.waiting_bytes += bytes;
        self.metrics.tail_cache_bytes.inc_by(memory as i64);
        self.metrics.unuploaded_bytes.inc_by(bytes as i64);
        self.evict();
        self.publish();
    }

    /// Lets go of the oldest frames in memory until the cache is within its bound.
    fn evict(&mut self) {
        while self.cached_bytes > self.options.tail_cache_bytes {
            let Some(listed) = self.frames.get_mut(self.first_cached) else {
                return;
            };
            let memory = std::mem::take(&mut listed.cached_bytes);
            if memory > 0 {
                listed.frame.evict();
                self.cached_bytes -= memory;
                self.metrics.tail_cache_bytes.dec_by(memory as i64);
            }
            self.first_cached += 1;
            self.forget_uploaded();
        }
    }

    /// Frames that are uploaded and not in memory are of no more use: their runs are in the bucket.
    fn forget_uploaded(&mut self) {
        while self.uploaded > 0 && self.first_cached > 0 {
            let Some(listed) = self.frames.pop_front() else {
                return;
            };
            self.uploaded -= 1;
            self.taken -= 1;
            self.first_cached -= 1;
            for (stream, _) in &listed.runs {
                stream.release_before(listed.end);
            }
        }
    }

    fn cut(&mut self, max_bytes: u64) -> Option<Cut> {
        let since = self.frames.get(self.taken)?.since;
        let mut cut = Cut { upto: Lsn(0), bytes: 0, since, streams: Vec::new(), moved: Vec::new() };
        let mut index: HashMap<StreamId, usize> = HashMap::new();
        for listed in self.frames.range(self.taken..) {
            if cut.bytes > 0 && cut.bytes + listed.bytes > max_bytes {
                break;
            }
            cut.upto = listed.end;
            cut.bytes += listed.bytes;
            self.taken += 1;
            self.waiting_bytes -= listed.bytes;
            cut.moved.extend(listed.moved.iter().cloned());
            for (stream, base_offset) in &listed.runs {
                // None if the topic was deleted.
                let Some(run) = stream.run_at(*base_offset) else {
                    continue;
                };
                let streams = &mut cut.streams;
                let at = *index.entry(stream.id).or_insert_with(|| {
                    streams.push((Arc::clone(stream), Vec::new()));
                    streams.len() - 1
                });
                streams[at].1.push(run);
            }
        }
        cut.streams.sort_by_key(|(stream, _)| stream.id);
        Some(cut)
    }

    fn uploaded(&mut self, upto: Lsn) {
        while let Some(listed) = self.frames.get(self.uploaded)
            && listed.end <= upto
        {
            self.unuploaded_bytes -= listed.bytes;
            self.metrics.unuploaded_bytes.dec_by(listed.bytes as i64);
            self.uploaded += 1;
        }
        self.forget_uploaded();
        self.publish();
    }

    fn publish(&self) {
        let state = TaskState {
            waiting_bytes: self.waiting_bytes,
            oldest_waiting: self.frames.get(self.taken).map(|listed| listed.since),
            full: self.full,
            ended: false,
        };
        self.state.send_if_modified(|known| std::mem::replace(known, state) != state);
    }
}

impl Drop for VolumeTask {
    /// What it has in memory goes with it, and what is not in the bucket is the next owner's to count.
    fn drop(&mut self) {
        self.metrics.tail_cache_bytes.dec_by(self.cached_bytes as i64);
        self.metrics.unuploaded_bytes.dec_by(self.unuploaded_bytes as i64);
    }
}

/// What to keep of a durable frame, and the memory that it takes. A frame's buffer has whole blocks and is
/// aligned; of a small one most would be air, so its payload is copied.
fn to_cache(payload: Bytes) -> (Bytes, u64) {
    if payload.len() <= SMALL_PAYLOAD_BYTES {
        let copy = Bytes::copy_from_slice(&payload);
        let memory = copy.len() as u64 + LISTED_OVERHEAD_BYTES;
        return (copy, memory);
    }
    let memory = payload.len() as u64 + BUFFER_SLACK_BYTES + LISTED_OVERHEAD_BYTES;
    (payload, memory)
}

async fn next_durable(in_flight: &mut VecDeque<(Ticket, Outcome)>) -> Result<Durable, NotDurable> {
    match in_flight.front_mut() {
        Some((ticket, _)) => ticket.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn push(frame: &mut FrameBuf, bytes: &[u8]) {
    frame.push(bytes).expect("the gathered payload is bounded below a frame's largest");
}
