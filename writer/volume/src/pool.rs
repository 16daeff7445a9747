//! Blocking writes by a few threads with small stacks, where there is no io_uring. They are started when
//! writes wait and end when there has been nothing to do for a while, so an idle volume has none.
//!
//! It does not retry.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use sluice_device::WriteDone;
use tokio::sync::Notify;

/// One write of whole blocks, and whom to tell.
struct Write {
    offset: u64,
    bytes: Bytes,
    pause: Duration,
    done: WriteDone,
}

/// Enough for a blocking write and its completion.
const STACK_BYTES: usize = 128 * 1024;

/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

/// The threads of one open file. Dropped, it ends as [`Pool::stop`] does.
pub(crate) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<File>,
    /// Opened with O_DIRECT and O_DSYNC: a write is durable when it returns.
    direct: bool,
    most_threads: usize,
    queue: Mutex<Queue>,
    /// Work has come, or the end.
    wake: Condvar,
    /// The end has come, for those who pause before a write.
    stop: Condvar,
    /// The last thread has ended.
    ended: Notify,
    /// Held over write and flush where the page cache is used: a flush reports an error once, to
    /// whoever flushes first, so it must not be another write's flush that takes it.
    cached: Mutex<()>,
}

#[derive(Default)]
struct Queue {
    writes: VecDeque<Write>,
    threads: usize,
    waiting: usize,
    stopping: bool,
}

impl Pool {
    /// At most `most_threads` writes to `file` run at once.
    pub(crate) fn new(file: Arc<File>, direct: bool, most_threads: usize) -> Self {
        let inner = Inner {
            file,
            direct,
            most_threads,
            queue: Mutex::default(),
            wake: Condvar::new(),
            stop: Condvar::new(),
            ended: Notify::new(),
            cached: Mutex::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// As [`crate::disk::Disk::write`].
    pub(crate) fn write(&self, offset: u64, bytes: Bytes, pause: Duration, done: WriteDone) {
        let mut queue = self.inner.queue.lock();
        if queue.stopping {
            return;
        }
        queue.writes.push_back(Write { offset, bytes, pause, done });
        if queue.waiting >= queue.writes.len() {
            drop(queue);
            self.inner.wake.notify_one();
            return;
        }
        if queue.threads == self.inner.most_threads {
            return;
        }
        queue.threads += 1;
        drop(queue);
        let inner = Arc::clone(&self.inner);
        let thread = std::thread::Builder::new()
            .name("volume-write".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || inner.work());
        if let Err(error) = thread {
            self.inner.give_up_thread(&error);
        }
    }

    /// Drops writes that have not begun.
    pub(crate) fn stop(&self) {
        let dropped = {
            let mut queue = self.inner.queue.lock();
            queue.stopping = true;
            std::mem::take(&mut queue.writes)
        };
        self.inner.wake.notify_all();
        self.inner.stop.notify_all();
        // Outside the lock: what a write's completion holds may lead back here.
        drop(dropped);
    }

    /// After [`Pool::stop`]: waits until no write is under way any more.
    pub(crate) async fn ended(&self) {
        loop {
            let mut ended = std::pin::pin!(self.inner.ended.notified());
            // Registered before the look, so that no wake-up falls between.
            ended.as_mut().enable();
            if self.inner.queue.lock().threads == 0 {
                break;
            }
            ended.await;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Inner {
    /// A thread's life.
    fn work(&self) {
        while let Some(write) = self.next() {
            let Write { offset, bytes, done, .. } = write;
            let result = self.write_at(offset, &bytes);
            drop(bytes);
            done(result);
        }
    }

    /// The next write, its pause over. `None` ends the thread.
    fn next(&self) -> Option<Write> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(write) = queue.writes.pop_front() {
                if !write.pause.is_zero() {
                    let pause = write.pause;
                    self.stop.wait_while_for(&mut queue, |queue| !queue.stopping, pause);
                }
                if !queue.stopping {
                    return Some(write);
                }
                // Unlocked while it is dropped, as in `stop`.
                parking_lot::MutexGuard::unlocked(&mut queue, || drop(write));
            }
            if queue.stopping {
                break;
            }
            queue.waiting += 1;
            let waited = self.wake.wait_for(&mut queue, IDLE);
            queue.waiting -= 1;
            if waited.timed_out() && queue.writes.is_empty() {
                break;
            }
        }
        queue.threads -= 1;
        if queue.threads == 0 {
            self.ended.notify_waiters();
        }
        None
    }

    /// A thread could not be started. With others alive the write waits for them; without, it fails,
    /// and whoever wanted it will try again.
    fn give_up_thread(&self, error: &io::Error) {
        let failed = {
            let mut queue = self.queue.lock();
            queue.threads -= 1;
            if queue.threads > 0 { VecDeque::new() } else { std::mem::take(&mut queue.writes) }
        };
        for write in failed {
            (write.done)(Err(io::Error::new(error.kind(), "cannot start a thread")));
        }
    }

    /// Writes durably.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.direct {
            return self.file.write_all_at(bytes, offset);
        }
        let _alone = self.cached.lock();
        self.file.write_all_at(bytes, offset)?;
        self.file.sync_data()
    }
}
