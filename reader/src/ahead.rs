//! Reading ahead of consumers that go through a stream in order.
//!
//! A cursor is a place where a consumer will go on, if it goes on: it is named by the stream and the
//! offset that its last answer ended before. Whoever reads there is taken for that consumer, so that
//! nothing has to be known of connections. With each such read the window doubles; what is in it is read
//! before it is asked for, by one task a cursor. A consumer that stops is not followed: no more is read.
//!
//! What is read ahead lies in the cache and nowhere else; all windows together are bounded by a half of
//! it. Reads that somebody waits for go first: while many are under way nothing is read ahead.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sluice_format::StreamKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// The first window; a cache that has no room for it reads nothing ahead.
const FIRST_WINDOW: u64 = 1 << 20;
/// The largest one.
const MAX_WINDOW: u64 = 16 << 20;
/// Tasks that read ahead at once.
const TASKS: usize = 8;
/// With so many reads under way that are waited for, nothing is read ahead.
const BUSY: usize = 32;
/// Cursors that are remembered; further consumers are not followed.
const MAX_CURSORS: usize = 4096;
/// A cursor that nobody came back to within this is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// The table is looked through after so many new cursors.
const SWEEP_EVERY: usize = 256;

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cursor {
    pub(crate) volume: u32,
    pub(crate) stream: StreamKey,
    pub(crate) offset: i64,
}

/// All cursors of a reader.
#[derive(Debug)]
pub(crate) struct Ahead {
    cursors: Mutex<Table>,
    tasks: Arc<Semaphore>,
    demand: Arc<AtomicUsize>,
    /// For all windows together.
    budget_bytes: u64,
}

#[derive(Debug, Default)]
struct Table {
    followed: HashMap<Cursor, Followed>,
    since_sweep: usize,
}

#[derive(Debug)]
struct Followed {
    window: u64,
    seen: Instant,
    reach: Arc<Mutex<Reach>>,
}

/// How far a cursor was read ahead.
#[derive(Clone, Copy, Debug)]
struct Reach {
    /// Up to this offset.
    to: i64,
    /// Bytes between the cursor and there.
    bytes: u64,
    /// A task is at it.
    running: bool,
}

/// What a task is to read.
#[derive(Debug)]
pub(crate) struct Work {
    /// From here on.
    pub(crate) cursor: Cursor,
    /// So much.
    pub(crate) bytes: u64,
    reach: Arc<Mutex<Reach>>,
    _permit: OwnedSemaphorePermit,
}

impl Work {
    /// It was read up to `end`.
    pub(crate) fn done(&self, end: i64, bytes: u64) {
        let mut reach = self.reach.lock();
        if end > reach.to {
            reach.to = end;
            reach.bytes += bytes;
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.reach.lock().running = false;
    }
}

/// A read that is waited for is under way while this lives.
#[derive(Debug)]
pub(crate) struct Demand(Arc<AtomicUsize>);

impl Drop for Demand {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ahead {
    pub(crate) fn new(cache_bytes: u64) -> Self {
        Self {
            cursors: Mutex::default(),
            tasks: Arc::new(Semaphore::new(TASKS)),
            demand: Arc::default(),
            budget_bytes: cache_bytes / 2,
        }
    }

    /// A read that is waited for begins.
    pub(crate) fn demand(&self) -> Demand {
        self.demand.fetch_add(1, Ordering::Relaxed);
        Demand(Arc::clone(&self.demand))
    }

    /// A read at `at` gave `bytes` and ended before offset `end`. Gives what to read ahead, if anything.
    pub(crate) fn follow(&self, at: Cursor, end: i64, bytes: u64) -> Option<Work> {
        let now = Instant::now();
        let next = Cursor { offset: end, ..at };
        let mut table = self.cursors.lock();
        let before = table.followed.remove(&at);
        table.sweep(now);
        if table.followed.len() >= MAX_CURSORS {
            return None;
        }
        let share = self.budget_bytes / (table.followed.len() as u64 + 1);
        let sequential = before.is_some();
        let mut followed = before.unwrap_or_else(|| Followed {
            window: 0,
            seen: now,
            reach: Arc::new(Mutex::new(Reach { to: end, bytes: 0, running: false })),
        });
        followed.seen = now;
        if sequential {
            followed.window = (followed.window * 2).clamp(FIRST_WINDOW, MAX_WINDOW).min(share);
        }
        let (window, reach) = (followed.window, Arc::clone(&followed.reach));
        table.followed.insert(next, followed);
        drop(table);
        self.work(next, window, bytes, reach)
    }

    fn work(
        &self,
        next: Cursor,
        window: u64,
        consumed: u64,
        shared: Arc<Mutex<Reach>>,
    ) -> Option<Work> {
        let (cursor, bytes) = {
            let mut reach = shared.lock();
            reach.bytes = reach.bytes.saturating_sub(consumed);
            if next.offset >= reach.to {
                reach.to = next.offset;
                reach.bytes = 0;
            }
            // By halves of a window, so that requests are large.
            let wanted = window.saturating_sub(reach.bytes);
            let late = window >= FIRST_WINDOW && wanted >= window / 2;
            if !late || reach.running || self.demand.load(Ordering::Relaxed) > BUSY {
                return None;
            }
            reach.running = true;
            (Cursor { offset: reach.to, ..next }, wanted)
        };
        let Ok(permit) = Arc::clone(&self.tasks).try_acquire_owned() else {
            shared.lock().running = false;
            return None;
        };
        Some(Work { cursor, bytes, reach: shared, _permit: permit })
    }
}

impl Table {
    fn sweep(&mut self, now: Instant) {
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP_EVERY || self.followed.len() >= MAX_CURSORS {
            self.since_sweep = 0;
            self.followed.retain(|_, followed| now < followed.seen + FORGOTTEN_AFTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(offset: i64) -> Cursor {
        Cursor { volume: 0, stream: StreamKey { topic: [1; 16], partition: 0 }, offset }
    }

    #[tokio::test(start_paused = true)]
    async fn the_window_grows_while_a_consumer_goes_on() {
        let ahead = Ahead::new(256 * MIB);
        assert!(ahead.follow(at(0), 10, MIB).is_none(), "one read is no sequence");
        let work = ahead.follow(at(10), 20, MIB).expect("now it is");
        assert_eq!((work.cursor, work.bytes), (at(20), MIB));
        assert!(ahead.follow(at(20), 30, MIB).is_none(), "its task is under way");
        work.done(40, 2 * MIB);
        drop(work);
        for (from, ahead_from, mib) in [(30, 40, 4), (40, 80, 5), (50, 130, 9)] {
            let work = ahead.follow(at(from), from + 10, MIB).expect("the window has doubled");
            assert_eq!((work.cursor, work.bytes), (at(ahead_from), mib * MIB));
            work.done(ahead_from + mib as i64 * 10, mib * MIB);
        }
        for n in 6..13 {
            assert!(ahead.follow(at(n * 10), n * 10 + 10, MIB).is_none(), "at {n}: all is there");
        }
        let work = ahead.follow(at(130), 140, MIB).expect("half of 16 MiB is used up");
        assert_eq!((work.cursor, work.bytes), (at(220), 8 * MIB));
    }

    #[tokio::test(start_paused = true)]
    async fn random_reads_are_not_followed() {
        let ahead = Ahead::new(256 * MIB);
        for n in 0..1000 {
            assert!(ahead.follow(at(n * 7 % 1000 * 100), n * 7 % 1000 * 100 + 10, MIB).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn windows_share_half_of_the_cache() {
        let ahead = Ahead::new(4 * FIRST_WINDOW);
        let mut works = Vec::new();
        for n in 0..4 {
            assert!(ahead.follow(at(n * 1000), n * 1000 + 10, MIB).is_none());
            works.extend(ahead.follow(at(n * 1000 + 10), n * 1000 + 20, MIB));
        }
        let bytes: u64 = works.iter().map(|work| work.bytes).sum();
        assert!(!works.is_empty() && bytes <= 2 * FIRST_WINDOW, "{bytes}");
        let small = Ahead::new(MIB);
        assert!(small.follow(at(0), 10, MIB).is_none());
        assert!(small.follow(at(10), 20, MIB).is_none(), "no room for a window");
    }

    #[tokio::test(start_paused = true)]
    async fn cursors_and_tasks_are_bounded() {
        let ahead = Ahead::new(1 << 40);
        let mut works = Vec::new();
        for n in 0..2 * MAX_CURSORS as i64 {
            ahead.follow(at(n * 1000), n * 1000 + 10, MIB);
            works.extend(ahead.follow(at(n * 1000 + 10), n * 1000 + 20, MIB));
        }
        assert_eq!(works.len(), TASKS);
        assert!(ahead.cursors.lock().followed.len() <= MAX_CURSORS);
        // Those that stopped make room.
        tokio::time::advance(FORGOTTEN_AFTER).await;
        works.clear();
        ahead.follow(at(-1000), -990, MIB);
        assert!(ahead.follow(at(-990), -980, MIB).is_some());
        assert_eq!(ahead.cursors.lock().followed.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn reads_that_are_waited_for_go_first() {
        let ahead = Ahead::new(1 << 40);
        let demand: Vec<_> = (0..=BUSY).map(|_| ahead.demand()).collect();
        ahead.follow(at(0), 10, MIB);
        assert!(ahead.follow(at(10), 20, MIB).is_none());
        drop(demand);
        assert!(ahead.follow(at(20), 30, MIB).is_some());
    }
}
