//! Records of many streams for one request: waits until there are some, then reads each stream from its tail or from
//! the bucket.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sluice_format::AbortedTransaction;
use sluice_gateway::backend::{Read, ReadAnswer, ReadRequest};
use sluice_model::StreamId;
use sluice_reader::{Bounds, ReadError, Wish};
use sluice_wire::ErrorCode;
use sluice_writer::{Offsets, Tail};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::records::{Records, read_bucket};
use super::{LocalBackend, bucket_code, compare_epochs, key_of};

/// A fetch waits so long for the bucket; then it answers without, and the read goes on by itself, so that
/// the client finds it in the cache when it asks again, and other partitions of the fetch are not held up.
const BUCKET_WAIT: Duration = Duration::from_secs(2);
/// How often a fetch looks again when what it wants moves between the tail, the bucket and other
/// segments of the bucket.
const READ_TRIES: usize = 4;

/// A stream that has records for who asks, and what is to be read of it.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// Of the request's reads.
    index: usize,
    tail: &'a Tail,
    stream: StreamId,
    offset: i64,
    bounds: Bounds,
    /// The last stable offset, if that is a bound.
    stable: Option<i64>,
    /// The tail begins behind the offset.
    in_bucket: bool,
}

/// A read of the bucket that is under way.
struct Begun {
    /// Aborted transactions of the tail, as of before the read: what leaves the tail after that is in the bucket.
    aborted: Vec<AbortedTransaction>,
    /// None if too many are under way.
    read: Option<oneshot::Receiver<Result<Records, ReadError>>>,
}

impl LocalBackend {
    /// All streams of a request, once there is enough or the time is up.
    pub(super) async fn fetch(&self, request: &ReadRequest) -> Vec<Result<ReadAnswer, ErrorCode>> {
        let mut tails = self.find(&request.reads);
        if !request.max_wait.is_zero() && !is_ready(request, &tails) {
            let deadline = Instant::now() + request.max_wait;
            let waiter = Tail::waiter(tails.iter().flatten());
            // Looked at again after the waiter is in place, so that nothing is missed between.
            while !is_ready(request, &tails) {
                if tokio::time::timeout_at(deadline, waiter.changed()).await.is_err() {
                    break;
                }
            }
            drop(waiter);
            if tails.iter().flatten().any(|tail| !tail.is_here()) {
                tails = self.find(&request.reads);
            }
        }
        self.read_all(request, &tails).await
    }

    /// Finds each stream; none for one that is not here.
    fn find(&self, reads: &[Read]) -> Vec<Option<Tail>> {
        reads.iter().map(|read| self.writer.tail(read.stream).ok()).collect()
    }

    /// Reads all streams once, within the request's bound. As many at once as may all be answered in
    /// full, so that those in the bucket do not wait for each other.
    async fn read_all(
        &self,
        request: &ReadRequest,
        tails: &[Option<Tail>],
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        let mut answers = Vec::with_capacity(request.reads.len());
        let mut wanted = Vec::new();
        for (index, (read, tail)) in request.reads.iter().zip(tails).enumerate() {
            answers.push(match look(read, tail.as_ref(), request.read_committed) {
                Ok(Sight::Records { tail, offsets, stable }) => {
                    let Read { stream, offset, .. } = *read;
                    let (in_bucket, bounds) =
                        (offset < offsets.tail_start, Bounds::most(room(read)));
                    wanted.push(Wanted { index, tail, stream, offset, bounds, stable, in_bucket });
                    Ok(answer(offsets, Records::default(), None))
                }
                // Most streams have nothing new: they cost no more than the look.
                Ok(Sight::Nothing(answer)) => Ok(answer),
                Err(code) => Err(code),
            });
        }
        self.share_out(&mut wanted);
        let mut left = u64::from(request.max_bytes);
        let mut nothing_yet = true;
        let mut rest = wanted.as_mut_slice();
        while !rest.is_empty() {
            let mut room = 0;
            let fits = rest.iter().take_while(|wanted| {
                room += wanted.bounds.max_bytes;
                room <= left
            });
            let (wave, later) = rest.split_at_mut(fits.count().max(1));
            rest = later;
            // The first batch comes whole, however small the bounds are (KIP-74).
            let least = u64::from(nothing_yet);
            for wanted in &mut *wave {
                wanted.bounds.max_bytes = wanted.bounds.max_bytes.min(left).max(least);
            }
            let is_begun = |wanted: &&Wanted<'_>| wanted.in_bucket && wanted.bounds.max_bytes > 0;
            let mut begun = self.begin(wave.iter().filter(is_begun)).into_iter();
            let reads = wave.iter().map(|wanted| {
                let begun = if is_begun(&wanted) { begun.next() } else { None };
                async move {
                    // A bound of no bytes reads nothing.
                    match wanted.bounds.max_bytes {
                        0 => Ok(Records::default()),
                        _ => self.records(*wanted, begun).await,
                    }
                }
            });
            let all = join_all(reads).await;
            for (wanted, records) in wave.iter().zip(all) {
                match records {
                    Ok(records) if nothing_yet || records.chain.len() as u64 <= left => {
                        nothing_yet &= records.chain.is_empty();
                        left = left.saturating_sub(records.chain.len() as u64);
                        if let Ok(answer) = &mut answers[wanted.index] {
                            answer.records = records.chain;
                            answer.aborted = records.aborted;
                        }
                    }
                    // There is no room any more.
                    Ok(_) => {}
                    Err(code) => answers[wanted.index] = Err(code),
                }
            }
        }
        answers
    }

    /// Gives those that lie in the bucket their part of the answer; some may have to wait for the others.
    fn share_out(&self, wanted: &mut Vec<Wanted<'_>>) {
        let in_bucket = wanted.iter().filter(|wanted| wanted.in_bucket);
        let wishes = in_bucket.map(|wanted| Wish {
            volume: wanted.tail.volume().0,
            stream: key_of(wanted.stream),
            offset: wanted.offset,
            max_bytes: wanted.bounds.max_bytes,
        });
        let mut shares = self.reader.share_out(&wishes.collect::<Vec<_>>()).into_iter();
        wanted.retain_mut(|wanted| {
            if !wanted.in_bucket {
                return true;
            }
            let share = shares.next().flatten();
            share.inspect(|bounds| wanted.bounds = *bounds).is_some()
        });
    }

    /// Records of one stream from the tail, or from the bucket, where a first read may be under way.
    async fn records(
        &self,
        wanted: Wanted<'_>,
        mut begun: Option<Begun>,
    ) -> Result<Records, ErrorCode> {
        let Wanted { tail, stream, offset, bounds, stable, .. } = wanted;
        let mut at = offset;
        for _ in 0..READ_TRIES {
            let read = match begun.take() {
                Some(begun) => begun,
                None => {
                    let aborted = match stable {
                        Some(stable) if at >= stable => return Ok(Records::default()),
                        stable => aborted_of_tail(tail, at, stable),
                    };
                    let here =
                        tail.read(at, bounds.max_bytes).await.map_err(|error| error.code())?;
                    if let Some(chain) = here {
                        return Ok(Records::new(chain, stable).with(&aborted));
                    }
                    let Some(begun) = self.begin([&Wanted { offset: at, ..wanted }]).pop() else {
                        return Ok(Records::default());
                    };
                    begun
                }
            };
            let Begun { aborted, read } = read;
            let Some(read) = read else { return Ok(Records::default()) };
            let Ok(Ok(read)) = tokio::time::timeout(BUCKET_WAIT, read).await else {
                // It takes its time, or was aborted or has panicked, which was logged.
                return Ok(Records::default());
            };
            match read {
                Ok(records) => return Ok(records.with(&aborted)),
                // Retention or compaction took it between the two looks, or the tail has it again.
                Err(ReadError::NotHere) => {}
                // Nothing is left of what the bucket had from there on: the tail is next.
                Err(ReadError::Compacted { next }) => at = next,
                Err(error) => {
                    tracing::warn!(%stream, offset, %error, "cannot read from the bucket");
                    return Err(bucket_code(&error));
                }
            }
        }
        // It moves faster than we look: the client asks again.
        Err(ErrorCode::KafkaStorageError)
    }

    /// Begins to read streams from the bucket, all in one task: what they want of one segment comes together.
    fn begin<'a>(&self, wanted: impl IntoIterator<Item = &'a Wanted<'a>>) -> Vec<Begun> {
        let mut reads = Vec::new();
        let begun = wanted.into_iter().map(|wanted| {
            let Wanted { tail, stream, offset, bounds, stable, .. } = *wanted;
            let aborted = aborted_of_tail(tail, offset, stable);
            let Ok(permit) = Arc::clone(&self.bucket_reads).try_acquire_owned() else {
                return Begun { aborted, read: None };
            };
            let (answer, read) = oneshot::channel();
            let (reader, volume) = (Arc::clone(&self.reader), tail.volume().0);
            reads.push(async move {
                let read = read_bucket(&reader, volume, stream, offset, bounds, stable).await;
                drop(permit);
                // Who asked may have gone away.
                drop(answer.send(read));
            });
            Begun { aborted, read: Some(read) }
        });
        let begun = begun.collect();
        if !reads.is_empty() {
            self.low.handle().spawn(join_all(reads));
        }
        begun
    }
}

/// Aborted transactions that may have records from `offset` up to `stable`, if that is a bound.
fn aborted_of_tail(tail: &Tail, offset: i64, stable: Option<i64>) -> Vec<AbortedTransaction> {
    stable.map_or_else(Vec::new, |stable| tail.aborted_over(&(offset..stable)))
}

fn room(read: &Read) -> u64 {
    u64::from(read.max_bytes)
}

/// A leader epoch and the offset behind its last record.
type EpochEnd = (i32, i64);

/// Where the client's log parts from ours, if it does (KIP-595). A record of an epoch that is yet to
/// come is out of range.
fn divergence(read: &Read, tail: &Tail) -> Result<Option<EpochEnd>, ErrorCode> {
    let Some(last) = read.last_fetched_epoch else { return Ok(None) };
    if last > tail.leader_epoch() {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    Ok(tail.epoch_end(last).filter(|(epoch, end)| *epoch < last || *end < read.offset))
}

/// The stream, if client and server agree on who leads it, with where their logs part if they do.
fn agreed<'a>(
    read: &Read,
    tail: Option<&'a Tail>,
) -> Result<(&'a Tail, Option<EpochEnd>), ErrorCode> {
    let tail = tail.filter(|tail| tail.is_here()).ok_or(ErrorCode::NotLeaderOrFollower)?;
    compare_epochs(tail.leader_epoch(), read.current_leader_epoch)?;
    Ok((tail, divergence(read, tail)?))
}

/// What there is of a stream for one who reads it.
enum Sight<'a> {
    /// No records: this is the answer.
    Nothing(ReadAnswer),
    /// Records from the wanted offset on, up to the last stable offset if that is a bound.
    Records { tail: &'a Tail, offsets: Offsets, stable: Option<i64> },
}

/// Looks at a stream without reading it.
fn look<'a>(read: &Read, tail: Option<&'a Tail>, committed: bool) -> Result<Sight<'a>, ErrorCode> {
    let (tail, diverging) = agreed(read, tail)?;
    // Taken before records are read: there may be more by then, which no client minds.
    let offsets = tail.offsets();
    if let Some(diverging) = diverging {
        return Ok(Sight::Nothing(answer(offsets, Records::default(), Some(diverging))));
    }
    if read.offset < offsets.log_start || read.offset > offsets.high_watermark {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    let stable = committed.then_some(offsets.last_stable);
    if read.offset >= stable.unwrap_or(offsets.high_watermark) {
        return Ok(Sight::Nothing(answer(offsets, Records::default(), None)));
    }
    Ok(Sight::Records { tail, offsets, stable })
}

/// Whether an answer could be made now: enough bytes, or something that must be told at once.
fn is_ready(request: &ReadRequest, tails: &[Option<Tail>]) -> bool {
    let enough = u64::from(request.min_bytes);
    let mut bytes = 0;
    for (read, tail) in request.reads.iter().zip(tails) {
        let Ok((tail, None)) = agreed(read, tail.as_ref()) else { return true };
        let available = tail.available(read.offset, request.read_committed, enough);
        bytes += available.min(room(read).max(1));
        if bytes >= enough {
            return true;
        }
    }
    bytes >= enough
}

fn answer(offsets: Offsets, records: Records, diverging: Option<(i32, i64)>) -> ReadAnswer {
    ReadAnswer {
        high_watermark: offsets.high_watermark,
        last_stable: offsets.last_stable,
        log_start: offsets.log_start,
        records: records.chain,
        aborted: records.aborted,
        diverging,
    }
}
