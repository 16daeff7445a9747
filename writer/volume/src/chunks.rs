//! A log's bytes in order, from large reads of which several are on their way at once. It knows the
//! ring's geometry, and nothing of frames.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::buffer::AlignedBuf;
use crate::disk::ReadAt;
use crate::geometry::Geometry;

/// How much is read at once. One chunk is in hand.
const CHUNK_BYTES: u64 = 2 << 20;

/// How many chunks are on their way.
const AHEAD: usize = 3;

/// Gives the log's bytes in order, from chunks that are read ahead.
pub(crate) struct ChunkReader<R> {
    disk: Arc<R>,
    geometry: Geometry,
    /// The chunk in hand, and its lsn.
    chunk: Bytes,
    start: u64,
    /// The chunks that follow, on their way. Reads that are given up end by themselves.
    ahead: VecDeque<(u64, JoinHandle<io::Result<Bytes>>)>,
    /// Where the next read ahead begins.
    next: u64,
}

impl<R: ReadAt> ChunkReader<R> {
    pub(crate) fn new(disk: Arc<R>, geometry: Geometry) -> Self {
        Self { disk, geometry, chunk: Bytes::new(), start: 0, ahead: VecDeque::new(), next: 0 }
    }

    /// `len` bytes from `lsn` on, all of one lap. Cheap where they lie in the chunk in hand; frames that
    /// lie across two chunks are put together in memory of their own.
    pub(crate) async fn bytes(&mut self, lsn: u64, len: usize) -> io::Result<Bytes> {
        if let Some(found) = self.in_hand(lsn, len) {
            return Ok(found);
        }
        let end = self.start + self.chunk.len() as u64;
        if !(self.start..end).contains(&lsn) {
            self.advance(lsn).await?;
            if let Some(found) = self.in_hand(lsn, len) {
                return Ok(found);
            }
        }
        let mut whole = AlignedBuf::with_capacity(len);
        let mut from = lsn;
        loop {
            let skip = (from - self.start) as usize;
            let part = &self.chunk[skip..self.chunk.len().min(skip + len - whole.len())];
            whole.extend_from_slice(part);
            from += part.len() as u64;
            if whole.len() == len {
                return Ok(whole.freeze());
            }
            self.advance(from).await?;
        }
    }

    fn in_hand(&self, lsn: u64, len: usize) -> Option<Bytes> {
        let from = usize::try_from(lsn.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.chunk.len()).then(|| self.chunk.slice(from..to))
    }

    /// Takes the chunk that begins at `lsn` in hand, and sends for those that follow.
    async fn advance(&mut self, lsn: u64) -> io::Result<()> {
        // A jump (a left-out rest of a lap) makes reads before it useless.
        while self.ahead.front().is_some_and(|(start, _)| *start != lsn) {
            self.ahead.pop_front();
        }
        if self.ahead.is_empty() {
            self.next = lsn;
            self.send_for_next();
        }
        let Some((_, read)) = self.ahead.pop_front() else {
            return Err(io::Error::other("no read was sent for"));
        };
        // The chunk in hand goes first: it counts in what a recovery holds.
        self.chunk = Bytes::new();
        while self.ahead.len() < AHEAD {
            self.send_for_next();
        }
        self.chunk = read.await.map_err(io::Error::other)??;
        self.start = lsn;
        Ok(())
    }

    /// Sends for the chunk at `next`. Chunks end with the lap.
    fn send_for_next(&mut self) {
        let (disk, lsn) = (Arc::clone(&self.disk), self.next);
        let offset = self.geometry.offset(lsn);
        // At most a chunk, which fits any length.
        let len = (self.geometry.lap_end(lsn) - lsn).min(CHUNK_BYTES) as usize;
        self.ahead.push_back((lsn, tokio::spawn(async move { disk.read(offset, len).await })));
        self.next = lsn + len as u64;
    }
}
