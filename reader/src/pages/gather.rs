//! What is wanted of one segment at about the same time becomes few requests.
//!
//! Until the task that wants something has said all that it wants, and then while as many requests as may be are under
//! way, wishes gather; the slower the bucket, the more come together. A page that two want, or of which one wants half
//! and more, is read whole, with its neighbours by one request; a wish that is alone on its pages is read as it is. A page that
//! is on its way is waited for, not asked for again.
//!
//! Who asked may go away: requests are made by tasks of their own. Lock order: the one here, then the cache's; never
//! over an await.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{Either, join, join_all};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore};
use parking_lot::Mutex;
use sluice_format::key::Keys;
use sluice_format::segment::SegmentId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use super::body::{Cut, Pool};
use super::cache::{ByteCache, CacheMetrics, Key};
use super::{GetError, Grain, PAGE_BYTES, Span, bytes_of, pages_of};

/// Neighbouring pages are read by one request up to so many.
const MAX_RUN_PAGES: u64 = 8;
/// Who wants so much of a page has all of it read, for whoever comes next.
const MOST_OF_A_PAGE: u64 = PAGE_BYTES / 2;
/// Rounds of requests for one segment under way at once.
const AT_ONCE: usize = 2;
/// How often other tasks may say what they want before a request is made.
const TURNS: usize = 2;

/// Requests under way may bring together this part of what the cache has room for, and one request of the largest size
/// in any case.
const SHARE_OF_CACHE: u64 = 2;

/// What a request gave, or why it did not.
type Answer = Result<Bytes, GetError>;
/// Those who wait for it.
type Waiters = Vec<oneshot::Sender<Answer>>;

/// Requests to the bucket, segment by segment. Clones are the same one.
#[derive(Clone)]
pub(super) struct Gather {
    bucket: Arc<dyn ObjectStore>,
    keys: Keys,
    cache: Arc<ByteCache>,
    metrics: CacheMetrics,
    pool: Pool,
    /// KiB that requests may still bring.
    room: Arc<Semaphore>,
    segments: Arc<Mutex<HashMap<SegmentId, Segment>>>,
}

#[derive(Default)]
struct Segment {
    wishes: Vec<Wish>,
    /// Pages on their way, and who waits for each.
    coming: HashMap<u64, Waiters>,
    /// Ranges on their way that are no pages.
    alone: HashMap<(u64, u64), Waiters>,
    /// Tasks at it.
    tasks: usize,
    /// One of them is about to take the wishes.
    taking: bool,
}

struct Wish {
    range: Range<u64>,
    grain: Grain,
    /// Its pages that were here when it came: they may leave the cache meanwhile.
    here: Vec<Option<Bytes>>,
    told: oneshot::Sender<Coming>,
}

/// How a wish comes true.
enum Coming {
    Pages(Vec<Part>),
    Alone(oneshot::Receiver<Answer>),
}

/// A page.
enum Part {
    Here(Bytes),
    Coming(oneshot::Receiver<Answer>),
}

/// A page that nobody has asked for yet.
struct Open {
    /// The first range that is wanted of it.
    range: Range<u64>,
    /// All of it is to be read.
    is_whole: bool,
}

impl Open {
    fn want(&mut self, page: u64, range: &Range<u64>) {
        let page = bytes_of(page);
        let bytes = page.end.min(range.end) - page.start.max(range.start);
        self.is_whole |= bytes >= MOST_OF_A_PAGE || *range != self.range;
    }
}

/// Requests that are to be made.
#[derive(Debug, Default, PartialEq, Eq)]
struct Requests {
    runs: Vec<Range<u64>>,
    alone: Vec<Range<u64>>,
}

impl Segment {
    /// A wish for which nothing has to be asked for.
    fn on_its_way(&mut self, range: &Range<u64>, here: &[Option<Bytes>]) -> Option<Coming> {
        if let Some(waiters) = self.alone.get_mut(&(range.start, range.end)) {
            let (answer, given) = oneshot::channel();
            waiters.push(answer);
            return Some(Coming::Alone(given));
        }
        let mut missing = pages_of(range).zip(here).filter(|(_, here)| here.is_none());
        let none = missing.all(|(page, _)| self.coming.contains_key(&page));
        none.then(|| Coming::Pages(self.parts(range, here)))
    }

    /// The pages of a wish; those that are not here are on their way from now on.
    fn parts(&mut self, range: &Range<u64>, here: &[Option<Bytes>]) -> Vec<Part> {
        let parts = pages_of(range).zip(here).map(|(page, here)| match here {
            Some(bytes) => Part::Here(bytes.clone()),
            None => {
                let (answer, given) = oneshot::channel();
                self.coming.entry(page).or_default().push(answer);
                Part::Coming(given)
            }
        });
        parts.collect()
    }

    /// All wishes, as requests.
    fn take(&mut self, mut look: impl FnMut(u64) -> Option<Bytes>) -> Requests {
        let mut wishes = std::mem::take(&mut self.wishes);
        // Pages that nobody has asked the bucket for.
        let mut open: BTreeMap<u64, Open> = BTreeMap::new();
        for wish in &mut wishes {
            for (page, here) in pages_of(&wish.range).zip(&mut wish.here) {
                if here.is_none() {
                    *here = look(page);
                }
                if here.is_none() && !self.coming.contains_key(&page) {
                    let first = || Open { range: wish.range.clone(), is_whole: false };
                    open.entry(page).or_insert_with(first).want(page, &wish.range);
                }
            }
        }
        let mut asked: Vec<u64> = Vec::new();
        let mut requests = Requests::default();
        for Wish { range, grain, here, told } in wishes {
            let is_alone = grain == Grain::Alone
                && pages_of(&range).zip(&here).all(|(page, here)| {
                    here.is_none() && open.get(&page).is_some_and(|open| !open.is_whole)
                });
            // Who asked may have gone away; what it asked for comes all the same.
            if is_alone {
                let (answer, given) = oneshot::channel();
                let key = (range.start, range.end);
                if !self.alone.contains_key(&key) {
                    requests.alone.push(range);
                }
                self.alone.entry(key).or_default().push(answer);
                drop(told.send(Coming::Alone(given)));
            } else {
                asked.extend(pages_of(&range).filter(|page| open.contains_key(page)));
                drop(told.send(Coming::Pages(self.parts(&range, &here))));
            }
        }
        asked.sort_unstable();
        asked.dedup();
        requests.runs = runs(&asked);
        requests
    }
}

/// Sees to the wishes for a segment when it is dropped.
struct Served<'a> {
    gather: &'a Gather,
    segment: SegmentId,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        self.gather.see_to(self.segment);
    }
}

impl Gather {
    pub(super) fn new(
        bucket: Arc<dyn ObjectStore>,
        keys: Keys,
        cache: Arc<ByteCache>,
        cache_bytes: u64,
        metrics: CacheMetrics,
    ) -> Self {
        let room = (cache_bytes / SHARE_OF_CACHE).max(MAX_RUN_PAGES * PAGE_BYTES);
        let room = Arc::new(Semaphore::new(permits(room) as usize));
        let (pool, segments) = (Pool::default(), Arc::default());
        Self { bucket, keys, cache, metrics, pool, room, segments }
    }

    /// The bytes of `range`, of whose pages `here` are those that are in memory.
    pub(super) async fn get(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        grain: Grain,
        here: Vec<Option<Bytes>>,
    ) -> Result<Span, GetError> {
        let gone = |_| {
            let source = "the process is ending".into();
            Arc::new(object_store::Error::Generic { store: "reader", source })
        };
        let coming = match self.wish(segment, range.clone(), grain, here) {
            Either::Left(coming) => coming,
            Either::Right(told) => {
                // Who goes away now leaves a wish that is served all the same.
                let served = Served { gather: self, segment };
                // The others that the same task waits for say first what they want.
                step_aside().await;
                drop(served);
                told.await.map_err(gone)?
            }
        };
        match coming {
            Coming::Alone(given) => {
                let bytes = given.await.map_err(gone)??;
                Ok(Span::new(range.start, vec![bytes]))
            }
            Coming::Pages(parts) => {
                let mut pages = Vec::with_capacity(parts.len());
                for part in parts {
                    pages.push(match part {
                        Part::Here(bytes) => bytes,
                        Part::Coming(given) => given.await.map_err(gone)??,
                    });
                }
                Ok(Span::of_pages(&range, pages.into_iter()))
            }
        }
    }

    /// Adds to what is wanted; [`Gather::see_to`] it then.
    fn wish(
        &self,
        id: SegmentId,
        range: Range<u64>,
        grain: Grain,
        mut here: Vec<Option<Bytes>>,
    ) -> Either<Coming, oneshot::Receiver<Coming>> {
        let mut segments = self.segments.lock();
        // Looked for again: a page that came meanwhile is not on its way any more.
        for (page, here) in pages_of(&range).zip(&mut here).filter(|(_, here)| here.is_none()) {
            *here = self.cache.get(&Key::page(id, page));
        }
        let segment = segments.entry(id).or_default();
        if let Some(coming) = segment.on_its_way(&range, &here) {
            if segment.tasks == 0 && segment.wishes.is_empty() {
                segments.remove(&id);
            }
            return Either::Left(coming);
        }
        let (told, tell) = oneshot::channel();
        segment.wishes.push(Wish { range, grain, here, told });
        Either::Right(tell)
    }

    /// Sees to it that what is wanted of a segment is asked for.
    fn see_to(&self, id: SegmentId) {
        let mut segments = self.segments.lock();
        let Some(segment) = segments.get_mut(&id) else { return };
        if segment.wishes.is_empty() || segment.taking || segment.tasks >= AT_ONCE {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            // The process is ending, and nobody waits any more.
            segment.wishes.clear();
            return;
        };
        segment.tasks += 1;
        segment.taking = true;
        let gather = self.clone();
        runtime.spawn(async move { gather.serve(id).await });
    }

    /// A task: makes requests until nothing is wanted of the segment.
    async fn serve(&self, id: SegmentId) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        while let Some(Requests { runs, alone }) = self.take(id) {
            let runs = join_all(runs.into_iter().map(|run| self.read_run(id, run)));
            let alone = join_all(alone.into_iter().map(|range| self.read_alone(id, range)));
            join(runs, alone).await;
        }
    }

    /// What is to be asked for; none ends the task.
    fn take(&self, id: SegmentId) -> Option<Requests> {
        let mut segments = self.segments.lock();
        let Entry::Occupied(mut entry) = segments.entry(id) else { return None };
        let segment = entry.get_mut();
        segment.taking = false;
        if !segment.wishes.is_empty() {
            return Some(segment.take(|page| self.cache.get(&Key::page(id, page))));
        }
        segment.tasks -= 1;
        if segment.tasks == 0 {
            entry.remove();
        }
        None
    }

    async fn read_run(&self, id: SegmentId, run: Range<u64>) {
        let range = run.start * PAGE_BYTES..run.end * PAGE_BYTES;
        let got = self.request(id, range, PAGE_BYTES).await;
        for (n, page) in run.enumerate() {
            // A segment may end before; its last page may be short, and then there is none.
            let bytes = got.as_ref().map(|pages| pages.get(n).cloned().unwrap_or_default());
            if let Ok(bytes) = &bytes
                && !bytes.is_empty()
            {
                self.cache.insert(Key::page(id, page), bytes.clone());
            }
            let waiters = self.with(id, |segment| segment.coming.remove(&page));
            answer(waiters, &bytes.map_err(Arc::clone));
        }
    }

    async fn read_alone(&self, id: SegmentId, range: Range<u64>) {
        let got = self.request(id, range.clone(), range.end - range.start).await;
        let bytes = got.map(|mut pieces| pieces.pop().unwrap_or_default());
        if let Ok(bytes) = &bytes {
            self.cache.insert(Key::alone(id, &range), bytes.clone());
        }
        answer(self.with(id, |segment| segment.alone.remove(&(range.start, range.end))), &bytes);
    }

    /// Those who wait, by `find`.
    fn with(&self, id: SegmentId, find: impl FnOnce(&mut Segment) -> Option<Waiters>) -> Waiters {
        self.segments.lock().get_mut(&id).and_then(find).unwrap_or_default()
    }

    /// One request, cut into pieces of `piece` bytes; fewer if the segment ends before.
    async fn request(
        &self,
        segment: SegmentId,
        range: Range<u64>,
        piece: u64,
    ) -> Result<Vec<Bytes>, GetError> {
        // Answers in turn, in the order in which they are asked for: each is in memory whole before it is cut.
        let permits = permits(range.end - range.start).min(permits(MAX_RUN_PAGES * PAGE_BYTES));
        let _room = self.room.acquire_many(permits).await;
        self.metrics.gets.inc();
        let key = Path::from(self.keys.segment(segment));
        let options =
            GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let result = self.bucket.get_opts(&key, options).await?;
        let given = result.range.clone();
        if given.start != range.start || given.end > range.end {
            let source = format!("bytes {range:?} of {key} were asked for, and {given:?} came");
            let source = source.into();
            return Err(Arc::new(object_store::Error::Generic { store: "reader", source }));
        }
        let mut cut = Cut::new(self.pool.clone(), piece, given.end - given.start);
        let mut body = result.into_stream();
        while let Some(bytes) = body.next().await {
            let bytes = bytes?;
            self.metrics.get_bytes.inc_by(bytes.len() as u64);
            cut.push(&bytes);
            // Others' requests come between the copies of a large body.
            tokio::task::yield_now().await;
        }
        Ok(cut.finish())
    }
}

/// What takes so many bytes takes so many permits, of a KiB each.
fn permits(bytes: u64) -> u32 {
    const MOST: u64 = u32::MAX as u64 >> 3;
    bytes.div_ceil(1 << 10).min(MOST) as u32
}

/// Lets the other futures of this task go on first, in their order. (A task that yields to the runtime wakes its futures
/// in the opposite order, and what is wanted first is to be asked for first.)
async fn step_aside() {
    let mut has_been_here = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_been_here, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Gives all who wait the same. Any of them may have gone away.
fn answer(waiters: Waiters, answer: &Answer) {
    for waiter in waiters {
        drop(waiter.send(answer.clone()));
    }
}

/// Pages, which ascend, with their neighbours.
fn runs(pages: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.end == *page && page - run.start < MAX_RUN_PAGES => run.end += 1,
            _ => runs.push(*page..page + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;

    /// The requests for some wishes (KiB), while `coming` are on their way and `here` in memory.
    fn requests(wishes: &[(u64, u64)], coming: &[u64], here: &[u64]) -> Requests {
        let mut segment = Segment::default();
        segment.coming.extend(coming.iter().map(|page| (*page, Waiters::new())));
        for (start, end) in wishes {
            let range = start * KIB..end * KIB;
            let here = pages_of(&range).map(|_| None).collect();
            segment.wishes.push(Wish {
                range,
                grain: Grain::Alone,
                here,
                told: oneshot::channel().0,
            });
        }
        segment.take(|page| here.contains(&page).then(Bytes::new))
    }

    fn alone(ranges: &[(u64, u64)]) -> Requests {
        let ranges = ranges.iter().map(|(start, end)| start * KIB..end * KIB);
        Requests { runs: Vec::new(), alone: ranges.collect() }
    }

    fn pages(runs: &[(u64, u64)]) -> Requests {
        let runs = runs.iter().map(|(start, end)| *start..*end);
        Requests { runs: runs.collect(), alone: Vec::new() }
    }

    #[test]
    fn who_is_alone_with_a_small_part_gets_that_part() {
        assert_eq!(requests(&[(100, 400)], &[], &[]), alone(&[(100, 400)]));
        assert_eq!(requests(&[(900, 1200)], &[], &[]), alone(&[(900, 1200)]), "on two pages");
        assert_eq!(requests(&[(0, 100), (5000, 5100)], &[], &[]), alone(&[(0, 100), (5000, 5100)]));
    }

    #[test]
    fn what_many_want_comes_as_pages_with_their_neighbours() {
        let striped: Vec<_> = (0..50).map(|n| (n * 660, n * 660 + 330)).collect();
        assert_eq!(requests(&striped, &[], &[]), pages(&[(0, 8), (8, 16), (16, 24), (24, 32)]));
        assert_eq!(requests(&[(0, 10), (20, 30)], &[], &[]), pages(&[(0, 1)]), "two on one page");
        assert_eq!(requests(&[(0, 10), (0, 10)], &[], &[]), alone(&[(0, 10)]), "the same twice");
        assert_eq!(requests(&[(0, 600)], &[], &[]), pages(&[(0, 1)]), "more than half");
        assert_eq!(requests(&[(1000, 2600)], &[], &[]), pages(&[(0, 3)]), "all pages of a wish");
    }

    #[test]
    fn what_is_here_or_on_its_way_is_not_asked_for() {
        assert_eq!(requests(&[(0, 600)], &[0], &[]), pages(&[]));
        assert_eq!(requests(&[(0, 5000)], &[1], &[3]), pages(&[(0, 1), (2, 3), (4, 5)]));
        assert_eq!(requests(&[(1000, 1100)], &[0], &[]), pages(&[(1, 2)]), "a part is on its way");
        assert_eq!(requests(&[(1000, 1100)], &[], &[1]), pages(&[(0, 1)]), "a part is here");
    }
}
