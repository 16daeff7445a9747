//! The way of share partitions' state to the log. A cell that has something to persist is queued once, and
//! its whole state is written when its turn comes: however fast a group acknowledges, a share partition has one
//! record an append, and one append is under way at a time.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::cell::Cell;
use super::partition::Stored;
use super::shared::Shared;
use crate::group::log::{CoordinatorLog, LogError, LogRecord};

/// An append takes at most this many records and bytes, unless its first alone has more.
const MAX_BATCH_RECORDS: usize = 1_024;
const MAX_BATCH_BYTES: usize = 1 << 20;

/// Something to write.
pub(crate) enum Write {
    /// The state of a cell as it is then.
    State(Arc<Cell>),
    /// The state that a cell is to have, or that it is forgotten.
    Replace { cell: Arc<Cell>, stored: Option<Stored>, done: oneshot::Sender<Result<(), LogError>> },
}

/// Who is told of an append.
enum Told {
    /// A cell, of all that was staged up to a ticket.
    Cell(Arc<Cell>, u64),
    Caller(Arc<Cell>, oneshot::Sender<Result<(), LogError>>),
}

/// A handle to the queue. The task ends when the last is gone and the queue is empty.
#[derive(Clone)]
pub(crate) struct Journal {
    queue: mpsc::UnboundedSender<Write>,
}

impl Journal {
    /// The queue, and the task's end of it for [`run`]. The channel is unbounded, what goes in is not: a cell
    /// is in it once.
    pub(crate) fn new() -> (Self, mpsc::UnboundedReceiver<Write>) {
        let (queue, writes) = mpsc::unbounded_channel();
        (Self { queue }, writes)
    }

    /// Queues a write; false if the task is gone.
    pub(crate) fn push(&self, write: Write) -> bool {
        self.queue.send(write).is_ok()
    }
}

/// Appends until all handles are gone.
pub(crate) async fn run(
    mut writes: mpsc::UnboundedReceiver<Write>,
    log: Arc<dyn CoordinatorLog>,
    shared: Weak<Shared>,
) {
    while let Some(first) = writes.recv().await {
        let mut records = Vec::new();
        let mut told = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(write) = next {
            if let Some((record, who)) = gathered(write, &shared) {
                bytes += record.len_bytes();
                records.push(record);
                told.push(who);
            }
            let full = records.len() >= MAX_BATCH_RECORDS || bytes >= MAX_BATCH_BYTES;
            next = if full { None } else { writes.try_recv().ok() };
        }
        if records.is_empty() {
            continue;
        }
        let result = log.append(records).await;
        if let Err(error) = result {
            tracing::warn!(%error, writes = told.len(), "share group state was not made durable");
        }
        let Some(shared) = shared.upgrade() else { return };
        for who in told {
            tell(&shared, who, result);
        }
    }
}

/// The record that a write comes to now.
fn gathered(write: Write, shared: &Weak<Shared>) -> Option<(LogRecord, Told)> {
    match write {
        Write::State(cell) => {
            let mut state = cell.lock();
            state.queued = false;
            let live = state.live.as_ref()?;
            let leader_epoch = shared.upgrade()?.leader_epoch(cell.key.stream);
            let epoch = state.stored.as_ref().map_or(0, |stored| stored.state_epoch);
            let value = live.to_stored(epoch, leader_epoch).encode();
            let up_to = live.last_ticket();
            let record = LogRecord { key: cell.key.encode(cell.tenant), value: Some(value) };
            drop(state);
            Some((record, Told::Cell(cell, up_to)))
        }
        Write::Replace { cell, stored, done } => {
            let value = stored.map(|stored| stored.encode());
            let record = LogRecord { key: cell.key.encode(cell.tenant), value };
            Some((record, Told::Caller(cell, done)))
        }
    }
}

fn tell(shared: &Shared, who: Told, result: Result<(), LogError>) {
    match who {
        Told::Cell(cell, up_to) => {
            let mut state = cell.lock();
            let rules = shared.rules(&cell);
            if let Some(live) = &mut state.live {
                live.settle(up_to, result.is_ok(), Instant::now(), &rules);
            }
            let (done, waiting) =
                std::mem::take(&mut state.waiting).into_iter().partition(|(at, _)| *at <= up_to);
            state.waiting = waiting;
            for (_, caller) in done {
                // A client that has gone away needs no answer.
                let _: Result<(), _> = caller.send(result);
            }
            state.wake_watchers();
            shared.arm(&cell, &mut state);
            shared.leave(&cell, state);
        }
        Told::Caller(cell, done) => {
            let _: Result<(), _> = done.send(result);
            shared.leave(&cell, cell.lock());
        }
    }
}
