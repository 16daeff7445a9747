//! The queue to the log. One task appends what the groups hand it, in the order they did, and as
//! many at a time as have gathered while the last append was in flight.
//!
//! Order is what this is for: a record is queued under its group's lock, so the log holds a group's
//! records in the order in which the group decided on them. Nothing is lost when a client goes away:
//! what is queued is appended.

use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::cell::Cell;
use super::log::{CoordinatorLog, LogError, LogRecord};
use super::machine::Persist;
use super::shared::Shared;

/// An append takes at most this many records and bytes, unless its first write alone has more.
const MAX_BATCH_RECORDS: usize = 4_096;
const MAX_BATCH_BYTES: usize = 1 << 20;

/// Who is told when a write is durable or has failed.
pub(crate) enum Done {
    /// A request that waits, if its client still does.
    Caller(oneshot::Sender<Result<(), LogError>>),
    /// The group itself.
    Group(Persist),
    /// A request, and the group of that era, which must not go on if its decision is not logged.
    Decided { caller: oneshot::Sender<Result<(), LogError>>, era: u32 },
    /// A group that is to be made anew once all before this is decided.
    Reload,
    /// Nobody.
    Nobody,
}

/// Records that become durable together. Without records it is done when all before it are.
pub(crate) struct Write {
    /// The group that counts it among its pending writes.
    pub(crate) cell: Option<Arc<Cell>>,
    pub(crate) records: Vec<LogRecord>,
    pub(crate) done: Done,
    /// Its share of the bytes that may wait.
    pub(crate) room: Option<OwnedSemaphorePermit>,
}

impl Write {
    /// It holds a decision that does not count any more: the log must not see it.
    fn is_void(&self) -> bool {
        match (&self.done, &self.cell) {
            (Done::Decided { era, .. }, Some(cell)) => *era != cell.era(),
            _ => false,
        }
    }

    /// Tells everyone concerned what became of it.
    fn finish(self, shared: Option<&Shared>, result: Result<(), LogError>) {
        drop(self.room);
        let concerned = shared.zip(self.cell.as_ref());
        if let Some((shared, cell)) = concerned {
            shared.settle(cell);
        }
        match (self.done, concerned) {
            // A client that has gone away needs no answer.
            (Done::Caller(caller), _) => {
                let _ = caller.send(result);
            }
            (Done::Group(persist), Some((shared, cell))) => {
                shared.persisted(cell, persist, result.map_err(LogError::code));
            }
            (Done::Decided { caller, era }, concerned) => {
                if let Some((shared, cell)) = concerned {
                    shared.decided(cell, era, result);
                }
                let _ = caller.send(result);
            }
            (Done::Reload, Some((shared, cell))) => shared.reloaded(cell, result),
            (Done::Group(_) | Done::Reload, None) | (Done::Nobody, _) => {}
        }
    }
}

/// A handle to the queue. The task ends when the last is gone and the queue is empty.
#[derive(Clone)]
pub(crate) struct Journal {
    queue: mpsc::UnboundedSender<Write>,
    room: Arc<Semaphore>,
    room_bytes: u32,
}

impl Journal {
    /// The queue, and the task's end of it for [`run`]. The channel is unbounded, what goes in is
    /// not: commits take room first, and a group queues few records of its own at a time.
    pub(crate) fn new(room_bytes: u32) -> (Self, mpsc::UnboundedReceiver<Write>) {
        let (queue, writes) = mpsc::unbounded_channel();
        let room_bytes = room_bytes.max(1);
        let room = Arc::new(Semaphore::new(room_bytes as usize));
        (Self { queue, room, room_bytes }, writes)
    }

    /// Waits until `bytes` more may wait. More than there is in all counts as all.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, LogError> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_bytes);
        let room = Arc::clone(&self.room).acquire_many_owned(permits).await;
        room.map_err(|_| LogError::Unavailable)
    }

    /// Queues a write; gives it back if the task is gone.
    pub(crate) fn push(&self, write: Write) -> Result<(), Write> {
        self.queue.send(write).map_err(|refused| refused.0)
    }
}

/// Appends until all handles are gone.
pub(crate) async fn run(
    mut writes: mpsc::UnboundedReceiver<Write>,
    log: Arc<dyn CoordinatorLog>,
    shared: Weak<Shared>,
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
        if first.is_void() {
            first.finish(shared.upgrade().as_deref(), Err(LogError::Unavailable));
            continue;
        }
        let (batch, records) = gather(first, &mut writes, &mut left_over);
        let result = if records.is_empty() { Ok(()) } else { log.append(records).await };
        if let Err(error) = result {
            tracing::warn!(%error, writes = batch.len(), "group records were not made durable");
        }
        let shared = shared.upgrade();
        for write in batch {
            write.finish(shared.as_deref(), result);
        }
    }
}

/// What has gathered, up to the bounds of a batch. What was taken from the queue and is too much is
/// `left_over`, and goes first next time.
fn gather(
    mut first: Write,
    writes: &mut mpsc::UnboundedReceiver<Write>,
    left_over: &mut Option<Write>,
) -> (Vec<Write>, Vec<LogRecord>) {
    let size = |records: &[LogRecord]| records.iter().map(LogRecord::len_bytes).sum::<usize>();
    let mut records = std::mem::take(&mut first.records);
    let mut bytes = size(&records);
    let mut batch = vec![first];
    while let Ok(mut next) = writes.try_recv() {
        bytes += size(&next.records);
        if next.is_void()
            || bytes > MAX_BATCH_BYTES
            || records.len() + next.records.len() > MAX_BATCH_RECORDS
        {
            *left_over = Some(next);
            break;
        }
        records.append(&mut next.records);
        batch.push(next);
    }
    (batch, records)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn write(records: usize, bytes: usize) -> Write {
        let record = LogRecord { key: Bytes::from(vec![0; bytes]), value: None };
        Write { cell: None, records: vec![record; records], done: Done::Nobody, room: None }
    }

    /// (writes, records) of each batch that the queued writes are appended in.
    fn batches(queued: Vec<Write>) -> Vec<(usize, usize)> {
        let (journal, mut writes) = Journal::new(1);
        for write in queued {
            assert!(journal.push(write).is_ok());
        }
        let mut left_over = None;
        let mut batches = Vec::new();
        while let Some(first) = left_over.take().or_else(|| writes.try_recv().ok()) {
            let (batch, records) = gather(first, &mut writes, &mut left_over);
            batches.push((batch.len(), records.len()));
        }
        batches
    }

    #[test]
    fn what_has_gathered_goes_together() {
        assert_eq!(batches(vec![write(1, 10), write(0, 0), write(2, 10)]), [(3, 3)]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_unless_one_write_is_larger() {
        let half = MAX_BATCH_BYTES / 2;
        let queued = vec![write(1, half), write(1, half), write(1, 1)];
        assert_eq!(batches(queued), [(2, 2), (1, 1)]);
        let queued = vec![write(1, 1), write(1, 2 * MAX_BATCH_BYTES), write(1, 1)];
        assert_eq!(batches(queued), [(1, 1), (1, 1), (1, 1)]);
    }

    #[test]
    fn a_batch_is_bounded_in_records() {
        let queued = vec![write(MAX_BATCH_RECORDS - 1, 1), write(1, 1), write(1, 1)];
        assert_eq!(batches(queued), [(2, MAX_BATCH_RECORDS), (1, 1)]);
    }
}
