//! An owner under load: 32 frames in flight without pause, trims in between, and a record of what it was
//! told, as it was told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use anyhow::{bail, ensure};
use sluice_volume::{
    AppendError, CloseError, FrameBuf, Health, Lsn, NotDurable, Ticket, TrimError, Volume,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::rig::payload;

/// A trim after so many acknowledged frames, which leaves as many.
const TRIM_EVERY: u64 = 100;

/// What an owner was told until it met the fence.
#[derive(Default)]
pub(crate) struct Told {
    /// The numbers of acknowledged frames, by lsn.
    pub(crate) acked: BTreeMap<Lsn, u64>,
    /// The largest trim that was asked for.
    pub(crate) trimmed: Lsn,
    /// How many frames were in flight when the fence came.
    pub(crate) fenced: usize,
    /// The number after the last that was appended.
    pub(crate) next: u64,
}

/// A load that runs until it is fenced.
pub(crate) struct Load {
    pub(crate) volume: Arc<dyn Volume>,
    acked: watch::Receiver<u64>,
    task: JoinHandle<anyhow::Result<Told>>,
}

impl Load {
    /// Starts to append frames, from number `next` on.
    pub(crate) fn start(volume: Arc<dyn Volume>, next: u64) -> Self {
        let (sender, acked) = watch::channel(0);
        let task = tokio::spawn(run(Arc::clone(&volume), next, sender));
        Self { volume, acked, task }
    }

    /// Waits until so many frames were acknowledged.
    pub(crate) async fn acked(&mut self, frames: u64) -> anyhow::Result<()> {
        self.acked.wait_for(|acked| *acked >= frames).await?;
        Ok(())
    }

    /// Waits for the fence, and makes sure that the owner takes it for one from then on, for good.
    pub(crate) async fn fenced(self) -> anyhow::Result<Told> {
        let told = self.task.await??;
        let health = *self.volume.health().borrow();
        ensure!(health == Health::Fenced, "the fenced owner's health is {health:?}");
        for _ in 0..100 {
            let mut frame = FrameBuf::with_capacity(8);
            frame.push(&told.next.to_le_bytes())?;
            match self.volume.append(frame) {
                Err(AppendError::Fenced) => {}
                other => bail!("the fenced owner's append gave {:?}", other.map(|t| t.lsn())),
            }
        }
        let trim = self.volume.trim(told.trimmed, 0).await;
        ensure!(matches!(trim, Err(TrimError::Fenced)), "the fenced owner's trim gave {trim:?}");
        let close = self.volume.close().await;
        ensure!(
            matches!(close, Err(CloseError::Fenced)),
            "the fenced owner's close gave {close:?}"
        );
        Ok(told)
    }
}

async fn run(
    volume: Arc<dyn Volume>,
    first: u64,
    acked: watch::Sender<u64>,
) -> anyhow::Result<Told> {
    let mut told = Told { next: first, ..Told::default() };
    let mut in_flight: VecDeque<(u64, Ticket)> = VecDeque::new();
    let mut trim: Option<JoinHandle<Result<(), TrimError>>> = None;
    let mut last_trim = first;
    'load: loop {
        while in_flight.len() < 32 {
            match append(&volume, told.next) {
                Ok(ticket) => in_flight.push_back((told.next, ticket)),
                Err(AppendError::Busy(_) | AppendError::Full(_)) if !in_flight.is_empty() => break,
                Err(AppendError::Full(_)) => tokio::task::yield_now().await,
                Err(AppendError::Fenced) => break 'load,
                Err(error) => bail!("an append failed: {error}"),
            }
            told.next += 1;
        }
        let Some((number, ticket)) = in_flight.pop_front() else { continue };
        match ticket.await {
            Ok(durable) => {
                told.acked.insert(durable.lsn, number);
                acked.send_replace(told.acked.len() as u64);
            }
            Err(NotDurable::Fenced) => {
                told.fenced += 1;
                break;
            }
            Err(other) => bail!("frame {number} ended with: {other}"),
        }
        if number >= last_trim + 2 * TRIM_EVERY {
            if let Some(trim) = trim.take() {
                match trim.await? {
                    Ok(()) | Err(TrimError::Fenced) => {}
                    Err(error) => bail!("a trim failed: {error}"),
                }
            }
            last_trim = number - TRIM_EVERY;
            if let Some((lsn, _)) = told.acked.iter().rev().nth(TRIM_EVERY as usize) {
                told.trimmed = *lsn;
                let (volume, upto) = (Arc::clone(&volume), *lsn);
                trim = Some(tokio::spawn(async move { volume.trim(upto, last_trim).await }));
            }
        }
    }
    // What was durable before the fence may be told only now; behind the first that is fenced, all are.
    for (number, ticket) in in_flight {
        match ticket.await {
            Ok(durable) if told.fenced == 0 => drop(told.acked.insert(durable.lsn, number)),
            Err(NotDurable::Fenced) => told.fenced += 1,
            Ok(_) => bail!("frame {number} was acknowledged behind one that was not"),
            Err(other) => bail!("frame {number} ended with: {other}"),
        }
    }
    Ok(told)
}

/// Appends the frame with this number.
pub(crate) fn append(volume: &Arc<dyn Volume>, number: u64) -> Result<Ticket, AppendError> {
    let bytes = payload(number);
    let mut frame = FrameBuf::with_capacity(bytes.len());
    if frame.push(&bytes).is_err() {
        return Err(AppendError::TooLarge(frame));
    }
    volume.append(frame)
}
