//! A process that owns all volumes when the director wishes so: the product's writer and reader, behind
//! a service that answers as the gateway's backend does.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::ObjectStore;
use parking_lot::Mutex;
use sluice_catalog::Catalog;
use sluice_format::StreamKey;
use sluice_format::key::Keys;
use sluice_model::{Entropy, NodeId, StreamId, VolumeId};
use sluice_reader::{Bounds, CacheMetrics, ReadError, Reader, ReaderOptions};
use sluice_volume::Medium;
use sluice_wire::{ErrorCode, scan};
use sluice_writer::group::GroupConfig;
use sluice_writer::transaction::TransactionConfig;
use sluice_writer::{OnShift, Shift, TailError, VolumePlace, Writer, WriterMetrics, WriterParts};

use super::restless::Restless;
use super::{Answer, Ask, Fetched, Refusal, open_catalog, transactions};
use crate::bucket::BucketClient;
use crate::net::Caller;
use crate::random::Random;
use crate::stage::{HostClock, Stage};

/// How long an append may take, beside the writer's own bound.
pub(super) const APPEND: Duration = Duration::from_secs(5);
/// How long a gentle end uploads.
const FLUSH: Duration = Duration::from_secs(3);
pub(super) const GLANCE: Duration = Duration::from_millis(10);

/// A writer in service.
#[derive(Clone)]
struct Serving {
    writer: Writer,
    reader: Arc<Reader>,
}

type Slot = Arc<Mutex<Option<Serving>>>;

/// The process: runs until its host crashes.
pub(crate) async fn own(stage: Arc<Stage>, host: usize) -> turmoil::Result {
    let mut random = stage.random(10 + host as u64);
    stage.wishes[host].serves.store(false, Ordering::Relaxed);
    stage.history.event("start", format_args!("writer-{host}"));
    let slot = Slot::default();
    let serving = Arc::clone(&slot);
    let history = stage.history.clone();
    let answer = move |ask, caller| {
        let history = history.clone();
        handle(serving.lock().clone(), ask, caller, history)
    };
    let service = stage.writer_service.clone();
    let listener = tokio::spawn(async move { service.serve(answer).await });
    loop {
        tokio::time::sleep(GLANCE).await;
        if listener.is_finished() {
            return Err("the listener has ended".into());
        }
        let ready = !stage.topics.lock().is_empty();
        if ready && stage.wishes[host].own.load(Ordering::Relaxed) {
            own_once(&stage, host, &slot, &mut random).await;
        }
    }
}

/// Says that a host is at it, until the host is done or dies.
struct Busy<'a>(&'a AtomicBool);

impl<'a> Busy<'a> {
    fn begin(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Takes the volumes over, serves them until they are lost or should be let go of.
async fn own_once(stage: &Arc<Stage>, host: usize, slot: &Slot, random: &mut Random) {
    let _busy = Busy::begin(&stage.wishes[host].busy);
    let history = &stage.history;
    let entropy: Arc<dyn Entropy> =
        Arc::new(crate::random::SeededEntropy::new(Random::new(random.next(), 0)));
    let catalog = open_catalog(stage, &entropy).await;
    let reader = Arc::new(reader(stage, &catalog));
    let writer = match open(stage, host, catalog.clone(), entropy, &reader).await {
        Ok(writer) => writer,
        Err(error) => {
            let kind =
                if error.contains("damaged at lsn") { "open-damaged" } else { "open-failed" };
            history.event(kind, format_args!("writer-{host}: {error}"));
            return tokio::time::sleep(random.ms(50, 300)).await;
        }
    };
    history.event("open", format_args!("writer-{host}"));
    if let Some(rot) = *stage.rot.lock() {
        history.violation(format_args!("volume {} opened over damage: {rot:?}", rot.volume));
    }
    *slot.lock() = Some(Serving { writer: writer.clone(), reader });
    let wish = &stage.wishes[host];
    let mut restless = Restless { stage, host, writer: &writer, random };
    let lost = restless.serve().await;
    wish.serves.store(false, Ordering::Relaxed);
    if lost {
        history.event("lost", format_args!("writer-{host}"));
    }
    if lost || wish.gentle.load(Ordering::Relaxed) {
        // What is asked meanwhile is refused by the writer itself.
        writer.close(if lost { Duration::ZERO } else { FLUSH }).await;
        history.event("close", format_args!("writer-{host}"));
    }
    *slot.lock() = None;
}

async fn open(
    stage: &Arc<Stage>,
    host: usize,
    catalog: Catalog,
    entropy: Arc<dyn Entropy>,
    reader: &Arc<Reader>,
) -> Result<Writer, String> {
    let places: Vec<_> = (0..stage.devices.len()).map(|id| place(stage, id as u32)).collect();
    let keys = Keys::new(catalog.cluster_id());
    let parts = WriterParts {
        node: NodeId(host as i32 + 1),
        catalog,
        bucket: bucket(stage),
        background: bucket(stage),
        keys,
        options: stage.profile.options.clone(),
        groups: GroupConfig::default(),
        transactions: TransactionConfig::default(),
        clock: Arc::new(HostClock { stage: Arc::clone(stage), host }),
        entropy,
        metrics: WriterMetrics::default(),
        other_owners: Arc::new(sluice_writer::transaction::NoOtherOwners),
        on_shift: attach(reader),
    };
    Box::pin(Writer::open(&places, parts)).await.map_err(|error| error.to_string())
}

pub(super) fn place(stage: &Stage, id: u32) -> VolumePlace {
    let device = stage.devices[id as usize].clone();
    VolumePlace { id: VolumeId(id), medium: Medium::Simulated(device) }
}

fn attach(reader: &Arc<Reader>) -> OnShift {
    let reader = Arc::clone(reader);
    Arc::new(move |shift| match shift {
        Shift::Taken { volume, state } => reader.attach(volume.0, state),
        Shift::Gone { volume } => reader.detach(volume.0),
    })
}

fn bucket(stage: &Stage) -> Arc<dyn ObjectStore> {
    Arc::new(BucketClient::new(stage.bucket_service.clone()))
}

/// A reader of the cluster's part of the bucket, attached to nothing yet.
pub(super) fn reader(stage: &Stage, catalog: &Catalog) -> Reader {
    let keys = Keys::new(catalog.cluster_id());
    let options = ReaderOptions { cache_bytes: 4 << 20 };
    Reader::new(bucket(stage), keys, options, CacheMetrics::default())
}

async fn handle(
    serving: Option<Serving>,
    ask: Ask,
    caller: Caller<Answer>,
    history: crate::history::History,
) {
    match ask {
        Ask::Produce { stream, batches } => match serving {
            Some(serving) => produce(serving, stream, batches, caller, history).await,
            None => {
                caller.answer(Answer::Produced { index: 0, result: Err(Refusal::NotOwner) }).await;
            }
        },
        Ask::Fetch { stream, offset, max_bytes } => {
            let fetched = match serving {
                Some(serving) => fetch(&serving, stream, offset, max_bytes, &history).await,
                None => Err(Refusal::NotOwner),
            };
            caller.answer(Answer::Fetched(fetched)).await;
        }
        Ask::DeleteRecords { stream, offset } => {
            let deleted = match serving {
                Some(serving) => serving
                    .writer
                    .delete_records(stream, offset)
                    .await
                    .map_err(|error| Refusal::Failed(error.to_string())),
                None => Err(Refusal::NotOwner),
            };
            caller.answer(Answer::Deleted(deleted)).await;
        }
        Ask::Transact(step) => {
            let done = match serving {
                Some(serving) => transactions::take(&serving.writer, step).await,
                None => Err(ErrorCode::NotCoordinator),
            };
            caller.answer(Answer::Transacted(done)).await;
        }
    }
}

/// Appends in the order of the request, as a connection's pipeline does; answers each when it is known.
async fn produce(
    serving: Serving,
    stream: StreamId,
    batches: Vec<Bytes>,
    caller: Caller<Answer>,
    history: crate::history::History,
) {
    let writer = &serving.writer;
    // Polled first in this order: that is the order of the appends.
    let mut appends: FuturesUnordered<_> = FuturesUnordered::new();
    for (index, batch) in batches.iter().enumerate() {
        let mut append = Box::pin(writer.append(stream, batch, APPEND));
        let first = futures_util::poll!(&mut append);
        let rest = async move {
            match first {
                std::task::Poll::Ready(done) => done,
                std::task::Poll::Pending => append.await,
            }
        };
        appends.push(async move { (index, rest.await) });
    }
    while let Some((index, done)) = appends.next().await {
        let result = match done {
            Ok(appended) => {
                let epoch = writer.leader_epoch(stream).unwrap_or(-1);
                history.event(
                    "appended",
                    format_args!("{stream} at {} epoch {epoch}", appended.base_offset),
                );
                Ok((appended.base_offset, epoch))
            }
            Err(sluice_writer::AppendError::NotOwner) => Err(Refusal::NotOwner),
            Err(error) => Err(Refusal::Failed(error.to_string())),
        };
        caller.answer(Answer::Produced { index, result }).await;
    }
}

async fn fetch(
    serving: &Serving,
    stream: StreamId,
    offset: i64,
    max_bytes: u64,
    history: &crate::history::History,
) -> Result<Fetched, Refusal> {
    let refused = |error: TailError| match error {
        TailError::NotOwner => Refusal::NotOwner,
        error => Refusal::Failed(error.to_string()),
    };
    let Serving { writer, .. } = serving;
    let epoch = writer.leader_epoch(stream).ok_or(Refusal::NotOwner)?;
    let offsets = writer.offsets(stream).map_err(refused)?;
    let mut fetched = Fetched {
        epoch,
        log_start: offsets.log_start,
        high_watermark: offsets.high_watermark,
        last_stable: offsets.last_stable,
        aborted: BTreeSet::new(),
        records: None,
    };
    if offset < offsets.log_start || offset > offsets.high_watermark {
        return Ok(fetched);
    }
    // Before the records are read: what leaves the tail after this is in the bucket.
    let range = offset..offsets.last_stable.max(offset);
    let aborted = writer.tail(stream).map_err(refused)?.aborted_over(&range);
    fetched.aborted.extend(aborted.iter().map(|of| (of.producer_id, of.first_offset)));
    match read(serving, stream, &range, max_bytes, &mut fetched.aborted).await? {
        Some(records) => fetched.records = Some(records),
        None => {
            // In range, and neither here nor there: allowed only if the log start has passed it.
            let now = writer.offsets(stream).map_err(refused)?;
            if offset >= now.log_start && offset < offsets.high_watermark {
                history.event("unreadable", format_args!("{stream} offset {offset}"));
                return Err(Refusal::Failed("unreadable".to_owned()));
            }
            fetched.log_start = now.log_start;
        }
    }
    Ok(fetched)
}

/// From the tail, else from the bucket, else from the tail again: as the gateway's backend reads. What was
/// aborted `below` the last stable offset, as the bucket knows it, goes to `aborted`.
async fn read(
    serving: &Serving,
    stream: StreamId,
    below: &Range<i64>,
    max_bytes: u64,
    aborted: &mut BTreeSet<(i64, i64)>,
) -> Result<Option<Bytes>, Refusal> {
    let Serving { writer, reader } = serving;
    let offset = below.start;
    let tail = async || match writer.read(stream, offset, max_bytes).await {
        Ok(chain) => Ok(chain.map(|chain| chain.to_bytes())),
        Err(TailError::NotOwner) => Err(Refusal::NotOwner),
        Err(TailError::OutOfRange) => Ok(None),
        Err(error) => Err(Refusal::Failed(error.to_string())),
    };
    if let Some(records) = tail().await? {
        return Ok(Some(records));
    }
    let volume = writer.volume_of(stream).map_err(|_| Refusal::NotOwner)?.0;
    let key = StreamKey { topic: stream.topic.0, partition: stream.partition };
    match reader.read(volume, key, offset, Bounds::most(max_bytes)).await {
        Ok(chain) => {
            let records = chain.to_bytes();
            let end = scan::spans(&records).last().map_or(offset, |last| last.end_offset);
            // As far as was read, which is all in the bucket.
            match reader.aborted(volume, key, &(offset..end.min(below.end).max(offset))).await {
                Ok(found) => {
                    aborted.extend(found.iter().map(|of| (of.producer_id, of.first_offset)));
                }
                Err(ReadError::NotHere) => return tail().await,
                Err(error) => return Err(Refusal::Failed(error.to_string())),
            }
            Ok(Some(records))
        }
        Err(ReadError::NotHere) => tail().await,
        Err(error) => Err(Refusal::Failed(error.to_string())),
    }
}
