//! The queue to the log. One task appends what the ids decide, as much at a time as has gathered while
//! the last append was in flight.
//!
//! An append that may or may not have become durable is made again, with the same records, until the
//! log says that it is: a record is the whole state of an id, so writing it twice changes nothing, and
//! nothing else is decided for the id meanwhile. So a decision is never in doubt for the coordinator,
//! only for the client, which asks again.

use std::sync::{Arc, Weak};
use std::time::Duration;

use sluice_wire::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use super::cell::Cell;
use super::shared::Shared;
use crate::group::log::{CoordinatorLog, LogError, LogRecord};

/// An append takes at most this many records and bytes, unless its first record alone has more.
const MAX_BATCH_RECORDS: usize = 4_096;
const MAX_BATCH_BYTES: usize = 1 << 20;

/// A decision on its way to the log. An id has one at a time, which bounds the queue.
pub(crate) struct Write {
    pub(crate) cell: Arc<Cell>,
    pub(crate) record: LogRecord,
    pub(crate) done: oneshot::Sender<Result<(), ErrorCode>>,
}

/// Appends until the coordinator is gone.
pub(crate) async fn run(
    mut writes: mpsc::UnboundedReceiver<Write>,
    log: Arc<dyn CoordinatorLog>,
    shared: Weak<Shared>,
    backoff: Duration,
) {
    let mut left_over = None;
    loop {
        let first = match left_over.take() {
            Some(write) => write,
            None => match writes.recv().await {
                Some(write) => write,
                None => return,
            },
        };
        let batch = gather(first, &mut writes, &mut left_over);
        let result = append(&batch, &*log, &shared, backoff).await;
        let shared = shared.upgrade();
        for Write { cell, done, .. } in batch {
            if let Some(shared) = &shared {
                shared.logged(&cell, result.is_ok());
            }
            // A client that has gone away needs no answer.
            let _ = done.send(result);
        }
    }
}

async fn append(
    batch: &[Write],
    log: &dyn CoordinatorLog,
    shared: &Weak<Shared>,
    backoff: Duration,
) -> Result<(), ErrorCode> {
    let mut is_told = false;
    loop {
        let records = batch.iter().map(|write| write.record.clone()).collect();
        let error = match log.append(records).await {
            Ok(()) => return Ok(()),
            // The next owner reads the log: it knows what became durable.
            Err(error @ (LogError::NotOwner | LogError::TooLarge)) => return Err(error.code()),
            Err(error @ (LogError::Full | LogError::Unavailable | LogError::Loading)) => error,
        };
        if shared.upgrade().is_none_or(|shared| !shared.is_active()) {
            return Err(LogError::NotOwner.code());
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!(%error, ids = batch.len(), "transactions wait for the coordinator's log");
        }
        tokio::time::sleep(backoff).await;
    }
}

fn gather(
    first: Write,
    writes: &mut mpsc::UnboundedReceiver<Write>,
    left_over: &mut Option<Write>,
) -> Vec<Write> {
    let mut bytes = first.record.len_bytes();
    let mut batch = vec![first];
    while batch.len() < MAX_BATCH_RECORDS
        && let Ok(next) = writes.try_recv()
    {
        bytes += next.record.len_bytes();
        if bytes > MAX_BATCH_BYTES {
            *left_over = Some(next);
            break;
        }
        batch.push(next);
    }
    batch
}
