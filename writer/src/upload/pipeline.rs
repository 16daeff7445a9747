//! When segments are due, how many are on their way at once, and what follows when one is there.
//!
//! Owned here: which cuts are in flight, and in which order they are to be committed. A cut that was
//! taken is never given back: its segment is put, or the volume's service ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sluice_model::SendPace;
use sluice_volume::{Lsn, ReadError, TrimError, Volume};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::build::Builder;
use super::freshness::Freshness;
use crate::commit::{Change, Committed, Committer, Ended};
use crate::metrics::WriterMetrics;
use crate::objects::{FIRST_PAUSE, rest};
use crate::options::WriterOptions;
use crate::task::{Control, TaskState};

/// The volume is about to be closed or handed over: upload what there is, so that the next owner has little to
/// read back. What is appended meanwhile is not waited for.
pub(crate) struct Flush {
    /// All before this is to be in the bucket: the end of what is durable now.
    pub(crate) upto: Lsn,
    pub(crate) done: oneshot::Sender<()>,
}

/// Why uploads ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error(transparent)]
    Ended(#[from] Ended),
    #[error("the volume cannot be read: {0}")]
    Volume(#[from] ReadError),
    #[error(transparent)]
    Trim(#[from] TrimError),
}

/// A cut whose segment is being built and put.
struct Flight {
    upto: Lsn,
    bytes: u64,
    since: Instant,
    built: oneshot::Receiver<Result<Change, Failed>>,
}

/// A cut whose segment is in the bucket, and whose commit is under way.
struct Landed {
    upto: Lsn,
    bytes: u64,
    since: Instant,
    committed: oneshot::Receiver<Committed>,
}

/// The upload task of one volume.
pub(crate) struct Uploader {
    builder: Builder,
    volume: Arc<dyn Volume>,
    committer: Committer,
    control: mpsc::UnboundedSender<Control>,
    state: watch::Receiver<TaskState>,
    freshness: Arc<Freshness>,
    options: WriterOptions,
    metrics: WriterMetrics,
    /// A segment is cut when so much waits.
    segment_bytes: u64,
    /// Oldest first.
    flights: VecDeque<Flight>,
    /// Oldest first; all older than those in flight.
    landed: VecDeque<Landed>,
    /// Runs the flights; dropping it ends them.
    puts: JoinSet<()>,
    flushing: Vec<Flush>,
    /// All before this has been taken for upload.
    taken: Lsn,
    /// All before this is in the bucket and committed.
    uploaded: Lsn,
}

impl Uploader {
    pub(crate) fn new(
        builder: Builder,
        committer: Committer,
        control: mpsc::UnboundedSender<Control>,
        state: watch::Receiver<TaskState>,
        freshness: Arc<Freshness>,
        options: WriterOptions,
    ) -> Self {
        let volume = Arc::clone(&builder.volume);
        // A small volume must have room for what arrives while a segment is on its way.
        let usage = volume.usage();
        let quarter = usage.capacity_bytes / 4;
        Self {
            segment_bytes: options.upload_segment_bytes.min(quarter).max(1),
            volume,
            committer,
            control,
            state,
            freshness,
            metrics: builder.metrics.clone(),
            options,
            flights: VecDeque::new(),
            landed: VecDeque::new(),
            puts: JoinSet::new(),
            flushing: Vec::new(),
            taken: usage.trim,
            uploaded: usage.trim,
            builder,
        }
    }

    /// Runs until the volume is lost or the channel closes.
    pub(crate) async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Flush>) {
        let volume = self.volume.id().0;
        if let Err(failed) = self.serve(&mut requests).await {
            tracing::warn!(volume, reason = %failed, "uploads have ended");
            // Without uploads the volume would fill up: whatever the reason, stop owning it.
            self.volume.fence();
        }
    }

    async fn serve(&mut self, requests: &mut mpsc::UnboundedReceiver<Flush>) -> Result<(), Failed> {
        loop {
            while self.is_due() {
                self.start().await?;
            }
            self.answer_flushes();
            let due = self.due();
            tokio::select! {
                request = requests.recv() => match request {
                    Some(flush) => self.flushing.push(flush),
                    None => return Ok(()),
                },
                built = next_built(&mut self.flights) => self.land(built?),
                committed = next_committed(&mut self.landed) => self.finish(committed?).await?,
                Some(_) = self.puts.join_next() => {}
                () = sleep_until(due) => {}
                () = self.freshness.changed() => {}
                changed = self.state.changed() => {
                    if changed.is_err() || self.state.borrow_and_update().ended {
                        return Err(Ended.into());
                    }
                }
            }
        }
    }

    /// When the next segment is due, if no more arrives; none while there is no room for one more.
    fn due(&self) -> Option<Instant> {
        let state = self.state.borrow();
        let oldest = state.oldest_waiting?;
        let in_flight: u64 = self.flights.iter().map(|flight| flight.bytes).sum();
        let room = self.flights.is_empty()
            || self.flights.len() < self.options.upload_in_flight
                && in_flight + self.segment_bytes <= self.options.upload_in_flight_bytes;
        if !room {
            return None;
        }
        let flushing = self.flushing.iter().any(|flush| flush.upto > self.taken);
        let now = state.full || flushing || state.waiting_bytes >= self.segment_bytes;
        if now {
            return Some(Instant::now());
        }
        Some(oldest + self.freshness.max_age(state.waiting_bytes, &self.options))
    }

    fn is_due(&self) -> bool {
        self.due().is_some_and(|due| due <= Instant::now())
    }

    /// Takes the next cut of the log and sends it on its way.
    async fn start(&mut self) -> Result<(), Failed> {
        let (reply, cut) = oneshot::channel();
        let max_bytes = self.segment_bytes;
        self.control.send(Control::Cut { max_bytes, reply }).map_err(|_| Ended)?;
        let cut = cut.await.map_err(|_| Ended)?;
        // The task has published what is left before it answered.
        if self.state.borrow_and_update().ended {
            return Err(Ended.into());
        }
        let Some(cut) = cut else {
            return Ok(());
        };
        let (upto, bytes, since) = (cut.upto, cut.bytes, cut.since);
        self.taken = upto;
        let (done, built) = oneshot::channel();
        let id = self.committer.next_segment_id();
        let upload = self.builder.clone().upload(cut, id, self.pace(bytes, since.elapsed()));
        self.puts.spawn(async move {
            // Nobody waits only when service has ended.
            let _ = done.send(upload.await);
        });
        self.metrics.uploads_in_flight.inc();
        self.flights.push_back(Flight { upto, bytes, since, built });
        Ok(())
    }

    /// How fast a segment of `bytes` is sent that took so long to gather: none, as fast as possible, if
    /// somebody waits for it or uploads are behind.
    fn pace(&self, bytes: u64, gathered: Duration) -> Option<SendPace> {
        let state = self.state.borrow();
        let usage = self.volume.usage();
        let urgent = state.full
            || !self.flushing.is_empty()
            || !self.flights.is_empty()
            || state.waiting_bytes >= self.segment_bytes
            || usage.free_bytes < usage.capacity_bytes / 2;
        if urgent { None } else { Some(pace(bytes, gathered)) }
    }

    /// The oldest segment in flight is in the bucket: have it committed.
    fn land(&mut self, change: Change) {
        if let Some(Flight { upto, bytes, since, .. }) = self.flights.pop_front() {
            self.metrics.uploads_in_flight.dec();
            let committed = self.committer.submit(change);
            self.landed.push_back(Landed { upto, bytes, since, committed });
        }
    }

    /// The oldest commit is durable: streams let go, and the volume is trimmed.
    async fn finish(&mut self, mut committed: Committed) -> Result<(), Failed> {
        let mut upto = None;
        while let Some(mut landed) = self.landed.pop_front() {
            if upto.is_some() {
                // Several that went into one manifest, or were waiting behind the trim, are one trim.
                match landed.committed.try_recv() {
                    Ok(newer) => committed = newer,
                    Err(_) => {
                        self.landed.push_front(landed);
                        break;
                    }
                }
            }
            self.metrics.uploaded_bytes.inc_by(landed.bytes);
            self.metrics.upload_seconds.observe(landed.since.elapsed().as_secs_f64());
            upto = Some(landed.upto);
        }
        let Some(upto) = upto else {
            return Ok(());
        };
        self.uploaded = upto;
        self.control.send(Control::Uploaded { upto }).map_err(|_| Ended)?;
        let started = Instant::now();
        self.trim(upto, committed.version).await?;
        self.metrics.trim_seconds.observe(started.elapsed().as_secs_f64());
        self.control.send(Control::Trimmed).map_err(|_| Ended)?;
        Ok(())
    }

    async fn trim(&self, upto: Lsn, version: u64) -> Result<(), Failed> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.volume.trim(upto, version).await {
                Ok(()) => return Ok(()),
                Err(TrimError::Io(error)) => {
                    tracing::warn!(volume = self.volume.id().0, %error, "cannot trim the volume");
                    pause = rest(pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn answer_flushes(&mut self) {
        let idle = self.flights.is_empty() && self.landed.is_empty();
        let nothing_left = idle && self.state.borrow().oldest_waiting.is_none();
        for Flush { upto, done } in std::mem::take(&mut self.flushing) {
            if nothing_left || upto <= self.uploaded {
                // Whoever asked may have stopped waiting.
                let _ = done.send(());
            } else {
                self.flushing.push(Flush { upto, done });
            }
        }
    }
}

impl Drop for Uploader {
    fn drop(&mut self) {
        let flights = i64::try_from(self.flights.len()).unwrap_or(i64::MAX);
        self.metrics.uploads_in_flight.dec_by(flights);
    }
}

/// So much faster than it was gathered a segment is sent: there is time, until the next is there.
const AHEAD: u32 = 2;
/// Sending takes no longer than this because of it, for who reads from the bucket.
const LONGEST_SEND: Duration = Duration::from_millis(500);

fn pace(bytes: u64, gathered: Duration) -> SendPace {
    let time = (gathered / AHEAD).clamp(Duration::from_millis(1), LONGEST_SEND);
    SendPace::new((bytes as f64 / time.as_secs_f64()) as u64)
}

async fn next_built(flights: &mut VecDeque<Flight>) -> Result<Change, Failed> {
    match flights.front_mut() {
        Some(flight) => (&mut flight.built).await.map_err(|_| Ended)?,
        None => std::future::pending().await,
    }
}

async fn next_committed(landed: &mut VecDeque<Landed>) -> Result<Committed, Failed> {
    match landed.front_mut() {
        Some(landed) => Ok((&mut landed.committed).await.map_err(|_| Ended)?),
        None => std::future::pending().await,
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::units::MIB;

    use super::*;

    #[test]
    fn a_segment_is_sent_twice_as_fast_as_it_gathered_and_within_half_a_second() {
        let pace = |gathered| pace(32 * MIB, Duration::from_millis(gathered));
        assert_eq!(pace(400), SendPace::new(160 * MIB));
        let slowest = SendPace::new(64 * MIB);
        assert_eq!(pace(10_000), slowest, "readers of the bucket do not wait longer");
        assert_eq!(pace(0), SendPace::new(32_000 * MIB), "gathered at once");
    }
}
