//! The body of an answer, cut into pieces of memory of their own: the cache counts the bytes of a piece, so a piece
//! must not keep the memory of all that came with it.
//!
//! Pages are all of one size and come and go at the rate at which consumers read. Their memory is used again, as
//! pages that the kernel has to give and clear anew cost more than the copy into them.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::PAGE_BYTES;

/// Buffers that are kept for the next pages.
const MOST_FREE: usize = 16;

/// Memory for pages.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn take(&self) -> Vec<u8> {
        let free = self.0.lock().pop();
        free.unwrap_or_else(|| Vec::with_capacity(PAGE_BYTES as usize))
    }
}

/// A page's memory, which goes back when the last slice of it is gone.
struct Page {
    bytes: Vec<u8>,
    pool: Pool,
}

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut free = self.pool.0.lock();
        if free.len() < MOST_FREE {
            let mut bytes = std::mem::take(&mut self.bytes);
            bytes.clear();
            free.push(bytes);
        }
    }
}

/// Takes a body of `len` bytes and gives it as pieces of `piece` bytes, the last one shorter.
#[derive(Debug)]
pub(super) struct Cut {
    pool: Pool,
    piece: u64,
    left: u64,
    filling: Vec<u8>,
    done: Vec<Bytes>,
}

impl Cut {
    pub(super) fn new(pool: Pool, piece: u64, len: u64) -> Self {
        Self { pool, piece, left: len, filling: Vec::new(), done: Vec::new() }
    }

    /// The next bytes; what is more than was announced is dropped.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.left > 0 {
            let whole = self.piece.min(self.left + self.filling.len() as u64) as usize;
            if self.filling.is_empty() {
                self.filling = match whole as u64 {
                    PAGE_BYTES => self.pool.take(),
                    _ => Vec::with_capacity(whole),
                };
            }
            let (now, later) = bytes.split_at(bytes.len().min(whole - self.filling.len()));
            self.filling.extend_from_slice(now);
            self.left -= now.len() as u64;
            bytes = later;
            if self.filling.len() == whole {
                self.close();
            }
        }
    }

    fn close(&mut self) {
        let bytes = std::mem::take(&mut self.filling);
        self.done.push(match bytes.len() as u64 {
            PAGE_BYTES => Bytes::from_owner(Page { bytes, pool: self.pool.clone() }),
            _ => Bytes::from(bytes),
        });
    }

    /// All pieces. A body that was shorter than announced ends early.
    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if !self.filling.is_empty() {
            self.close();
        }
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_cut_however_it_comes() {
        let body: Vec<u8> = (0..2 * PAGE_BYTES + 12345).map(|n| (n % 251) as u8).collect();
        for step in [1000, 400_000, PAGE_BYTES as usize, body.len()] {
            let pool = Pool::default();
            let mut cut = Cut::new(pool.clone(), PAGE_BYTES, body.len() as u64);
            body.chunks(step).for_each(|some| cut.push(some));
            let pieces = cut.finish();
            let lens: Vec<_> = pieces.iter().map(|piece| piece.len() as u64).collect();
            assert_eq!(lens, [PAGE_BYTES, PAGE_BYTES, 12345]);
            assert_eq!(pieces.concat(), body);
            drop(pieces);
            assert_eq!(pool.0.lock().len(), 2, "memory of whole pages is used again");
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_is_told_by_its_length() {
        let cut = |announced: u64, len: usize| {
            let mut cut = Cut::new(Pool::default(), PAGE_BYTES, announced);
            cut.push(&vec![1; len]);
            cut.finish().iter().map(Bytes::len).sum::<usize>()
        };
        assert_eq!(cut(100, 60), 60);
        assert_eq!(cut(100, 160), 100);
        assert_eq!(cut(0, 10), 0);
    }
}
