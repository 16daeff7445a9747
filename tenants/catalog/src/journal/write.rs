//! The task that writes the journal. It alone writes objects of its journal epoch.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use sluice_format::key::Keys;
use sluice_model::{Clock, Entropy};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::object::{Body, Change, JournalObject};
use super::read;
use crate::follower::backoff;
use crate::layout;
use crate::store::{self, Event, MetadataStore, Range, Revision, StoreError, Watch, WatchError};

/// How a journal is written.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// How long changes are gathered before an object is put: the most that the journal lags behind
    /// while the bucket answers.
    pub interval: Duration,
    /// An object of changes is put at once when it has so many bytes.
    pub batch_bytes: usize,
    /// A part of a snapshot is closed when it has so many bytes.
    pub part_bytes: usize,
    /// A snapshot is due after so many objects of changes, if they have more bytes than the last
    /// snapshot, and after 32 times as many however small they are: what a restore has to read stays
    /// bounded, and each byte is written about twice.
    pub objects_per_snapshot: u64,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            batch_bytes: 1 << 20,
            part_bytes: 4 << 20,
            objects_per_snapshot: 32,
        }
    }
}

/// How far the journal is behind, and what it costs.
#[derive(Clone, Debug, Default)]
pub struct JournalMetrics {
    /// PUT requests.
    pub puts: Counter,
    /// Requests that failed and were tried again.
    pub errors: Counter,
    /// The revision that is in the bucket.
    pub revision: Gauge,
    /// When the oldest change was seen that is not in the bucket.
    behind_since: Arc<Mutex<Option<Instant>>>,
}

impl JournalMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        let puts = "PUT requests for the catalog's journal";
        registry.register("catalog_journal_puts", puts, self.puts.clone());
        let errors = "Requests for the catalog's journal that failed and were tried again";
        registry.register("catalog_journal_errors", errors, self.errors.clone());
        let revision = "Revision of the catalog that is in the bucket";
        registry.register("catalog_journal_revision", revision, self.revision.clone());
        registry.register_collector(Box::new(self.clone()));
    }

    /// Age of the oldest change that is not in the bucket; zero if there is none.
    pub fn lag(&self) -> Duration {
        self.behind_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn behind(&self) {
        self.behind_since.lock().get_or_insert_with(Instant::now);
    }

    fn reached(&self, revision: Revision) {
        *self.behind_since.lock() = None;
        self.revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
    }
}

impl Collector for JournalMetrics {
    /// The lag is computed when it is asked for, so that a journal that hangs shows it.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let lag = ConstGauge::new(self.lag().as_secs_f64());
        let help = "Age of the oldest change of the catalog that is not in the bucket";
        let metric = encoder.encode_descriptor(
            "catalog_journal_lag_seconds",
            help,
            None,
            lag.metric_type(),
        )?;
        lag.encode(metric)
    }
}

/// What a journal is written with.
#[derive(Clone)]
pub struct JournalParts {
    /// What is journalled.
    pub store: Arc<dyn MetadataStore>,
    /// Where to.
    pub bucket: Arc<dyn ObjectStore>,
    /// Names of the cluster's objects.
    pub keys: Keys,
    /// Dates the objects.
    pub clock: Arc<dyn Clock>,
    /// For pauses between tries.
    pub entropy: Arc<dyn Entropy>,
    /// How.
    pub options: JournalOptions,
    /// What it counts.
    pub metrics: JournalMetrics,
}

/// A journal under way. Dropping it stops it where it is.
pub struct Journal {
    closing: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Journal {
    /// Takes the journal over and writes it from now on, beginning with a snapshot.
    pub fn start(parts: JournalParts) -> Self {
        let (closing, told) = watch::channel(false);
        let writer = Writer {
            parts,
            closing: told,
            epoch: 0,
            next: 0,
            base: None,
            oldest: 0,
            leased: HashSet::new(),
            revision: Revision(0),
            snapshot_bytes: 0,
            since_snapshot: (0, 0),
        };
        Self { closing, task: tokio::spawn(writer.run()) }
    }

    /// Journals what was committed so far, but gives up after a time.
    pub async fn close(mut self, within: Duration) {
        self.closing.send_replace(true);
        if tokio::time::timeout(within, &mut self.task).await.is_err() {
            warn!("the catalog's journal could not be brought up to date in the bucket");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Another process has taken the journal over.
#[derive(Debug)]
struct Fenced {
    key: String,
}

/// Why following the watch ended.
enum Pause {
    /// All is journalled, and no more is wanted.
    Closed,
    /// A snapshot is due, or makes up for changes that were missed.
    Snapshot,
}

struct Writer {
    parts: JournalParts,
    closing: watch::Receiver<bool>,
    epoch: u32,
    /// The number of the next object.
    next: u64,
    /// Where the newest complete snapshot begins, of any epoch.
    base: Option<u64>,
    /// There are no objects with smaller numbers.
    oldest: u64,
    /// Keys that live under leases.
    leased: HashSet<String>,
    /// What is in the bucket.
    revision: Revision,
    snapshot_bytes: usize,
    /// Objects and bytes of changes since the last snapshot.
    since_snapshot: (u64, usize),
}

impl Writer {
    async fn run(mut self) {
        if let Err(Fenced { key }) = self.serve().await {
            error!(
                key,
                "another process has taken over the catalog's journal of this cluster: this one \
                 journals nothing any more. Was the cluster restored elsewhere? Then stop this one"
            );
            // The lag goes on growing, for ever.
            self.parts.metrics.behind();
        }
    }

    async fn serve(&mut self) -> Result<(), Fenced> {
        self.parts.metrics.behind();
        self.take_over().await;
        loop {
            let range = self.range().await;
            self.snapshot(range).await?;
            if let Pause::Closed = self.follow().await? {
                return Ok(());
            }
        }
    }

    /// Finds where the journal stands, and makes the marker that tells of the cluster.
    async fn take_over(&mut self) {
        let mut failures = 0;
        loop {
            match self.find().await {
                Ok(()) => return,
                Err(error) => self.failed(&error, &mut failures).await,
            }
        }
    }

    async fn find(&mut self) -> Result<(), Error> {
        let JournalParts { bucket, keys, .. } = &self.parts;
        let marker = Path::from(keys.marker());
        match bucket.put_opts(&marker, PutPayload::new(), create()).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
        let sequences = read::sequences(&**bucket, keys).await?;
        self.oldest = sequences.first().copied().unwrap_or(0);
        self.next = sequences.last().map_or(0, |last| last + 1);
        let mut damaged = 0;
        for sequence in sequences.iter().rev() {
            match read::get(&**bucket, keys, *sequence).await? {
                Ok(object) => {
                    // Any of the damaged ones may have been the first of an epoch.
                    self.epoch = object.epoch.saturating_add(damaged + 1);
                    self.base = Some(object.base);
                    info!(epoch = self.epoch, sequence = self.next, "catalog journal taken over");
                    return Ok(());
                }
                Err(why) => warn!(why, "an object of the catalog's journal is of no use"),
            }
            damaged += 1;
        }
        self.epoch = damaged + 1;
        info!(sequence = self.next, "catalog journal begun");
        Ok(())
    }

    async fn range(&mut self) -> Range {
        let mut failures = 0;
        loop {
            match self.parts.store.range(layout::PREFIX).await {
                Ok(range) => return range,
                Err(error) => self.failed(&error, &mut failures).await,
            }
        }
    }

    /// Puts the whole map, part by part.
    async fn snapshot(&mut self, range: Range) -> Result<(), Fenced> {
        let revision = range.revision;
        let (leased, kept): (Vec<_>, Vec<_>) =
            range.entries.into_iter().partition(|entry| entry.lease.is_some());
        self.leased = leased.into_iter().map(|entry| entry.key).collect();
        let mut parts: Vec<Vec<(String, Bytes)>> = vec![Vec::new()];
        let (mut part_bytes, mut bytes) = (0, 0);
        for entry in kept {
            let len = 8 + entry.key.len() + entry.value.len();
            if part_bytes > 0 && part_bytes + len > self.parts.options.part_bytes {
                parts.push(Vec::new());
                part_bytes = 0;
            }
            part_bytes += len;
            bytes += len;
            if let Some(part) = parts.last_mut() {
                part.push((entry.key, entry.value));
            }
        }
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let begins = self.next;
        for (part, entries) in (0..count).zip(parts) {
            let complete = part + 1 == count;
            let before = self.base;
            if complete {
                self.base = Some(begins);
            }
            let body = Body::Snapshot { revision, part, parts: count, entries };
            let base = if complete { begins } else { before.unwrap_or(begins) };
            self.put(base, body).await?;
            if complete {
                self.snapshot_bytes = bytes;
                self.since_snapshot = (0, 0);
                self.reached(revision);
                // One snapshot before the newest is kept, in case the newest rots.
                if let Some(keep) = before {
                    self.collect(keep).await;
                }
            }
        }
        Ok(())
    }

    fn reached(&mut self, revision: Revision) {
        self.revision = revision;
        self.parts.metrics.reached(revision);
    }

    /// Removes objects below `keep`. Best effort: what stays is removed after the next snapshot.
    async fn collect(&mut self, keep: u64) {
        for sequence in self.oldest..keep {
            let path = Path::from(self.parts.keys.catalog(sequence));
            match self.parts.bucket.delete(&path).await {
                Ok(()) | Err(Error::NotFound { .. }) => self.oldest = sequence + 1,
                Err(error) => {
                    debug!(%path, %error, "an old object of the catalog's journal stays for now");
                    return;
                }
            }
        }
    }

    /// Puts changes as they come.
    async fn follow(&mut self) -> Result<Pause, Fenced> {
        let mut failures = 0;
        loop {
            let watched = self.parts.store.watch(layout::PREFIX, self.revision).await;
            let why = match watched {
                Ok(mut watch) => match self.gather(&mut *watch, &mut failures).await? {
                    Ok(pause) => return Ok(pause),
                    Err(WatchError::Compacted) => return Ok(Pause::Snapshot),
                    Err(error) => error.to_string(),
                },
                Err(StoreError::Unavailable(why)) => why,
                Err(error) => error.to_string(),
            };
            if *self.closing.borrow() {
                return Ok(Pause::Closed);
            }
            self.failed(&why, &mut failures).await;
        }
    }

    async fn gather(
        &mut self,
        watch: &mut dyn Watch,
        failures: &mut u32,
    ) -> Result<Result<Pause, WatchError>, Fenced> {
        let mut closing = self.closing.clone();
        loop {
            let mut batch = Batch::default();
            let closed = loop {
                let due = batch.since.map(|since| since + self.parts.options.interval);
                let change = tokio::select! {
                    biased;
                    change = watch.next() => change,
                    () = async { closing.wait_for(|closing| *closing).await.map_or((), drop) } => {
                        break true;
                    }
                    () = until(due) => break false,
                };
                match change {
                    Ok(change) => {
                        *failures = 0;
                        batch.upto = change.revision;
                        self.add(change, &mut batch);
                    }
                    // What was gathered comes again with the next watch.
                    Err(error) => return Ok(Err(error)),
                }
                if batch.bytes >= self.parts.options.batch_bytes {
                    break false;
                }
            };
            if !batch.changes.is_empty() {
                let Batch { changes, upto, bytes, .. } = batch;
                let Some(base) = self.base else { return Ok(Ok(Pause::Snapshot)) };
                let body = Body::Changes { after: self.revision, upto, changes };
                self.put(base, body).await?;
                self.reached(upto);
                self.since_snapshot.0 += 1;
                self.since_snapshot.1 += bytes;
            }
            if closed {
                return Ok(Ok(Pause::Closed));
            }
            if self.outgrown() {
                return Ok(Ok(Pause::Snapshot));
            }
        }
    }

    fn outgrown(&self) -> bool {
        let (objects, bytes) = self.since_snapshot;
        let most = self.parts.options.objects_per_snapshot;
        objects >= most && (bytes > self.snapshot_bytes || objects >= 32 * most)
    }

    fn add(&mut self, change: store::Change, batch: &mut Batch) {
        let mut kept = Change { revision: change.revision, events: Vec::new() };
        for event in change.events {
            match event {
                Event::Put(entry) if entry.lease.is_none() => {
                    self.leased.remove(&entry.key);
                    kept.events.push((entry.key, Some(entry.value)));
                }
                // From here on the key is none that is journalled.
                Event::Put(entry) => {
                    if self.leased.insert(entry.key.clone()) {
                        kept.events.push((entry.key, None));
                    }
                }
                Event::Delete { key } => {
                    if !self.leased.remove(&key) {
                        kept.events.push((key, None));
                    }
                }
            }
        }
        if !kept.events.is_empty() {
            self.parts.metrics.behind();
            batch.since.get_or_insert_with(Instant::now);
            batch.bytes += kept.len_bytes();
            batch.changes.push(kept);
        }
    }

    /// Creates the next object, however long it takes.
    async fn put(&mut self, base: u64, body: Body) -> Result<(), Fenced> {
        let sequence = self.next;
        let written_ms = self.parts.clock.wall_ms();
        let object = JournalObject { epoch: self.epoch, sequence, base, written_ms, body };
        let bytes = object.encode();
        let key = self.parts.keys.catalog(sequence);
        let path = Path::from(key.as_str());
        let mut failures = 0;
        loop {
            self.parts.metrics.puts.inc();
            let payload = PutPayload::from_bytes(bytes.clone());
            let outcome = match self.parts.bucket.put_opts(&path, payload, create()).await {
                // Ours, if the answer to an earlier try was lost; else another process's.
                Err(Error::AlreadyExists { .. }) => match self.parts.bucket.get(&path).await {
                    Ok(found) => found.bytes().await.map(|there| there == bytes),
                    Err(error) => Err(error),
                },
                Ok(_) => Ok(true),
                Err(error) => Err(error),
            };
            match outcome {
                Ok(true) => {
                    self.next += 1;
                    return Ok(());
                }
                Ok(false) => return Err(Fenced { key }),
                Err(error) => self.failed(&error, &mut failures).await,
            }
        }
    }

    async fn failed(&self, error: &(impl fmt::Display + Sync + ?Sized), failures: &mut u32) {
        self.parts.metrics.errors.inc();
        warn!(%error, "the catalog's journal waits; trying again");
        tokio::time::sleep(backoff(*failures, &*self.parts.entropy)).await;
        *failures += 1;
    }
}

/// Changes on their way to one object.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    bytes: usize,
    upto: Revision,
    /// When the first of them came.
    since: Option<Instant>,
}

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
