//! Requests for parts of one segment that are wanted at about the same time become one request.
//!
//! A segment that compaction has not seen holds a little of many streams, side by side. A consumer of all of
//! them, or a replica of many consumers, wants all of it, by one read a stream; the bucket counts requests. So
//! small ranges of a segment are gathered: for a moment before the first request for it is made, and then
//! while as many as may be are under way; the slower the bucket, the more come together. Large ranges, as of a
//! stream's own segments, go by themselves at once.
//!
//! Who asked may go away: requests are made by tasks of their own. Lock order: only the one here, never
//! over an await.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use sluice_format::key::Keys;
use sluice_format::segment::SegmentId;
use tokio::sync::oneshot;

use crate::cache::CacheMetrics;

/// Ranges of so many bytes and more are not gathered.
pub(crate) const LARGE_BYTES: u64 = 4 << 20;
/// Neighbours are read by one request up to this size.
pub(crate) const MAX_GET_BYTES: u64 = 8 << 20;
/// So many bytes that nobody wants are read rather than another request made.
const MAX_GAP_BYTES: u64 = 64 << 10;
/// Requests for small ranges of one segment under way at once.
const AT_ONCE: usize = 2;
/// How often the first who asks lets others run before a request is made.
const TURNS: usize = 2;

/// What a request gave, or why it did not.
type Answer = Result<Bytes, Arc<object_store::Error>>;

/// The ranges that are wanted of each segment.
#[derive(Clone)]
pub(crate) struct Gather {
    bucket: Arc<dyn ObjectStore>,
    keys: Keys,
    metrics: CacheMetrics,
    segments: Arc<Mutex<HashMap<SegmentId, Segment>>>,
}

#[derive(Default)]
struct Segment {
    wanted: Vec<Wanted>,
    /// Tasks at it.
    tasks: usize,
    /// One of them is about to take what is wanted.
    taking: bool,
}

struct Wanted {
    range: Range<u64>,
    answer: oneshot::Sender<Answer>,
}

/// Neighbours, by one request.
struct Run {
    range: Range<u64>,
    wanted: Vec<Wanted>,
}

impl Gather {
    pub(crate) fn new(bucket: Arc<dyn ObjectStore>, keys: Keys, metrics: CacheMetrics) -> Self {
        Self { bucket, keys, metrics, segments: Arc::default() }
    }

    /// The bytes of `range`; fewer if the segment ends before. A small range may share its memory with
    /// others'.
    pub(crate) async fn get(&self, segment: SegmentId, range: Range<u64>) -> Answer {
        if range.end - range.start >= LARGE_BYTES {
            return self.request(segment, range).await;
        }
        let (answer, given) = oneshot::channel();
        if self.want(segment, Wanted { range, answer }) {
            let gather = self.clone();
            tokio::spawn(async move { gather.serve(segment).await });
        }
        given.await.unwrap_or_else(|_| {
            let source = "the process is ending".into();
            Err(Arc::new(object_store::Error::Generic { store: "reader", source }))
        })
    }

    /// Adds to what is wanted. Gives whether a task is to be started for it.
    fn want(&self, id: SegmentId, wanted: Wanted) -> bool {
        let mut segments = self.segments.lock();
        let segment = segments.entry(id).or_default();
        segment.wanted.push(wanted);
        let start = !segment.taking && segment.tasks < AT_ONCE;
        if start {
            segment.tasks += 1;
            segment.taking = true;
        }
        start
    }

    /// A task: makes requests until nothing is wanted of the segment.
    async fn serve(&self, id: SegmentId) {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        while let Some(wanted) = self.take(id) {
            join_all(runs(wanted).into_iter().map(|run| self.answer(id, run))).await;
        }
    }

    /// All that is wanted; none ends the task.
    fn take(&self, id: SegmentId) -> Option<Vec<Wanted>> {
        let mut segments = self.segments.lock();
        let Entry::Occupied(mut entry) = segments.entry(id) else { return None };
        let segment = entry.get_mut();
        segment.taking = false;
        let wanted = std::mem::take(&mut segment.wanted);
        if !wanted.is_empty() {
            return Some(wanted);
        }
        segment.tasks -= 1;
        if segment.tasks == 0 {
            entry.remove();
        }
        None
    }

    async fn answer(&self, id: SegmentId, run: Run) {
        let got = self.request(id, run.range.clone()).await;
        for wanted in run.wanted {
            let part = got.as_ref().map_err(Arc::clone).map(|bytes| {
                let at = |position: u64| ((position - run.range.start) as usize).min(bytes.len());
                bytes.slice(at(wanted.range.start)..at(wanted.range.end))
            });
            // Who asked may have gone away.
            drop(wanted.answer.send(part));
        }
    }

    async fn request(&self, segment: SegmentId, range: Range<u64>) -> Answer {
        self.metrics.gets.inc();
        let key = Path::from(self.keys.segment(segment));
        let bytes = self.bucket.get_range(&key, range).await.map_err(Arc::new)?;
        self.metrics.get_bytes.inc_by(bytes.len() as u64);
        Ok(bytes)
    }
}

/// Neighbours together.
fn runs(mut wanted: Vec<Wanted>) -> Vec<Run> {
    wanted.sort_by_key(|wanted| (wanted.range.start, wanted.range.end));
    let mut runs: Vec<Run> = Vec::new();
    for one in wanted {
        match runs.last_mut() {
            Some(run)
                if one.range.start <= run.range.end + MAX_GAP_BYTES
                    && one.range.end <= run.range.start + MAX_GET_BYTES =>
            {
                run.range.end = run.range.end.max(one.range.end);
                run.wanted.push(one);
            }
            _ => runs.push(Run { range: one.range.clone(), wanted: vec![one] }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ranges: &[Range<u64>]) -> Vec<(u64, u64, usize)> {
        let wanted = ranges.iter().map(|range| {
            let (answer, _) = oneshot::channel();
            Wanted { range: range.clone(), answer }
        });
        let runs = runs(wanted.collect());
        runs.iter().map(|run| (run.range.start, run.range.end, run.wanted.len())).collect()
    }

    #[test]
    fn neighbours_come_together_in_whatever_order_they_were_asked_for() {
        assert_eq!(spans(&[200..300, 32..100, 100..200]), [(32, 300, 3)]);
        assert_eq!(spans(&[32..100, 50..60, 32..100]), [(32, 100, 3)], "overlaps");
        let far = 100 + MAX_GAP_BYTES + 1;
        assert_eq!(spans(&[far..far + 1, 32..100]), [(32, 100, 1), (far, far + 1, 1)]);
        assert_eq!(spans(&[far - 1..far, 32..100]), [(32, far, 2)], "a gap that is read");
    }

    #[test]
    fn a_request_has_its_largest_size() {
        let mib = 1 << 20;
        let ranges: Vec<_> = (0..20).map(|n| n * mib..(n + 1) * mib).collect();
        assert_eq!(
            spans(&ranges),
            [(0, 8 * mib, 8), (8 * mib, 16 * mib, 8), (16 * mib, 20 * mib, 4)]
        );
    }
}
