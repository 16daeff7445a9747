//! Bytes to frames: `[length: i32][that many bytes]`, back to back. Pure: it reads no socket.
//!
//! Always: a length is checked before a byte of its frame is kept; the buffer holds only bytes that
//! have arrived (it grows by at most four times what is there), all of them under a lease; and it
//! is empty, with no allocation, whenever no frame is half read.

use bytes::{Buf, Bytes, BytesMut};

use crate::budget::Lease;

/// Bytes in front of each frame.
pub(crate) const PREFIX_BYTES: usize = 4;
/// How far a big frame's buffer grows at first, and how much is read at once.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;

/// One whole frame and the lease of its bytes.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Without the length prefix.
    pub(crate) bytes: Bytes,
    /// Kept until the request is answered.
    pub(crate) lease: Lease,
}

/// A length that no frame may have. The stream cannot be followed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// Negative, or too short for any header.
    #[error("a frame's length is {0}")]
    Invalid(i32),
    /// Above the listener's bound.
    #[error("a frame of {length} bytes is above the limit of {max}")]
    TooLarge {
        /// What the prefix said.
        length: i32,
        /// The listener's bound.
        max: u32,
    },
}

/// What has arrived and is not yet taken as frames.
#[derive(Debug)]
pub(crate) struct Inbox {
    buffer: BytesMut,
    lease: Lease,
    max_frame_bytes: u32,
}

impl Inbox {
    /// An empty inbox; `lease` is an empty lease of the budget that pays for the bytes.
    pub(crate) fn new(lease: Lease, max_frame_bytes: u32) -> Self {
        Self { buffer: BytesMut::new(), lease, max_frame_bytes }
    }

    /// Bytes that wait here.
    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    /// How many bytes to read straight into [`Self::buffer`] next, because a big frame has begun;
    /// 0 when reading through a scratch buffer is as good.
    pub(crate) fn direct_bytes(&self) -> usize {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return 0 };
        let whole = PREFIX_BYTES + u32::from_be_bytes(*prefix) as usize;
        let missing = whole.saturating_sub(self.buffer.len());
        if missing < CHUNK_BYTES / 2 {
            return 0;
        }
        missing.min(CHUNK_BYTES.max(3 * self.buffer.len()))
    }

    /// The buffer with room for `bytes` more, to read into. What was read is made known with
    /// [`Self::paid`].
    pub(crate) fn buffer(&mut self, bytes: usize) -> &mut BytesMut {
        self.buffer.reserve(bytes);
        &mut self.buffer
    }

    /// Adds the lease of bytes that came in.
    pub(crate) fn paid(&mut self, lease: Lease) {
        self.lease.join(lease);
    }

    /// Keeps bytes that cannot be taken as frames now.
    pub(crate) fn stash(&mut self, input: &[u8]) {
        self.buffer.extend_from_slice(input);
    }

    /// The next whole frame of what is kept followed by `input`, or `None` when there is none: then
    /// all of `input` has been taken in.
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        if self.buffer.is_empty() {
            let Some(prefix) = input.first_chunk::<PREFIX_BYTES>() else {
                self.take(input, input.len());
                return Ok(None);
            };
            let length = self.check(*prefix)?;
            let Some(body) = input.get(PREFIX_BYTES..PREFIX_BYTES + length) else {
                self.take(input, input.len());
                return Ok(None);
            };
            let bytes = Bytes::copy_from_slice(body);
            input.advance(PREFIX_BYTES + length);
            return Ok(Some(self.frame(bytes)));
        }
        self.take(input, PREFIX_BYTES.saturating_sub(self.buffer.len()));
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let whole = PREFIX_BYTES + self.check(*prefix)?;
        self.take(input, whole.saturating_sub(self.buffer.len()));
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let mut bytes = self.buffer.split_to(whole).freeze();
        bytes.advance(PREFIX_BYTES);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(self.frame(bytes)))
    }

    fn check(&self, prefix: [u8; PREFIX_BYTES]) -> Result<usize, FrameError> {
        let length = i32::from_be_bytes(prefix);
        // The shortest header: api key, version, correlation id.
        if length < 8 {
            return Err(FrameError::Invalid(length));
        }
        if length.unsigned_abs() > self.max_frame_bytes {
            return Err(FrameError::TooLarge { length, max: self.max_frame_bytes });
        }
        Ok(length as usize)
    }

    fn take(&mut self, input: &mut &[u8], bytes: usize) {
        let bytes = bytes.min(input.len());
        self.buffer.extend_from_slice(&input[..bytes]);
        input.advance(bytes);
    }

    fn frame(&mut self, bytes: Bytes) -> Frame {
        let lease = self.lease.split(PREFIX_BYTES + bytes.len());
        Frame { bytes, lease }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::budget::Budget;

    fn inbox(max_frame_bytes: u32) -> (Budget, Inbox) {
        let budget = Budget::new(1 << 30, Gauge::default());
        let lease = budget.nothing();
        (budget, Inbox::new(lease, max_frame_bytes))
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        let mut out = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        out.extend_from_slice(body);
        out
    }

    /// Feeds `stream` in pieces of `step` bytes and gives the frames' bodies.
    fn feed(inbox: &mut Inbox, budget: &Budget, stream: &[u8], step: usize) -> Vec<Bytes> {
        let mut out = Vec::new();
        for mut piece in stream.chunks(step) {
            inbox.paid(budget.try_take(piece.len()).unwrap());
            while let Some(frame) = inbox.next(&mut piece).unwrap() {
                assert_eq!(frame.lease.bytes(), frame.bytes.len() + PREFIX_BYTES);
                out.push(frame.bytes);
            }
            assert!(piece.is_empty());
            assert_eq!(inbox.lease.bytes(), inbox.len());
        }
        out
    }

    #[test]
    fn frames_come_out_whole_however_they_are_cut() {
        let bodies: Vec<Vec<u8>> =
            [8, 9, 100, 5_000, 8].iter().map(|n| (0..*n).map(|i| i as u8).collect()).collect();
        let stream: Vec<u8> = bodies.iter().flat_map(|body| framed(body)).collect();
        for step in [1, 2, 3, 7, 64, 4_096, stream.len()] {
            let (budget, mut inbox) = inbox(1 << 20);
            assert_eq!(feed(&mut inbox, &budget, &stream, step), bodies, "step {step}");
            assert_eq!((inbox.len(), inbox.buffer.capacity()), (0, 0));
        }
    }

    #[test]
    fn a_stash_is_taken_up_before_new_bytes() {
        let (budget, mut inbox) = inbox(100);
        let stream = [framed(b"aaaaaaaa"), framed(b"bbbbbbbb")].concat();
        inbox.paid(budget.try_take(stream.len()).unwrap());
        inbox.stash(&stream[..20]);
        let mut rest = &stream[20..];
        assert_eq!(inbox.next(&mut rest).unwrap().unwrap().bytes, "aaaaaaaa");
        assert_eq!(inbox.next(&mut rest).unwrap().unwrap().bytes, "bbbbbbbb");
        assert!(inbox.next(&mut rest).unwrap().is_none());
    }

    #[test]
    fn lengths_are_refused_before_anything_is_kept() {
        for (length, error) in [
            (-1, FrameError::Invalid(-1)),
            (i32::MIN, FrameError::Invalid(i32::MIN)),
            (7, FrameError::Invalid(7)),
            (101, FrameError::TooLarge { length: 101, max: 100 }),
            (i32::MAX, FrameError::TooLarge { length: i32::MAX, max: 100 }),
        ] {
            let (_budget, mut inbox) = inbox(100);
            let mut input: &[u8] = &i32::to_be_bytes(length);
            assert_eq!(inbox.next(&mut input).unwrap_err(), error);
            assert_eq!(inbox.buffer.capacity(), 0);
        }
    }

    #[test]
    fn a_big_claim_grows_with_what_arrives() {
        let (budget, mut inbox) = inbox(100 << 20);
        let mut input: &[u8] = &u32::to_be_bytes(100 << 20);
        assert_eq!(inbox.direct_bytes(), 0);
        inbox.paid(budget.try_take(4).unwrap());
        assert!(inbox.next(&mut input).unwrap().is_none());
        assert_eq!(inbox.direct_bytes(), CHUNK_BYTES);
        inbox.stash(&vec![0; 1 << 20]);
        assert_eq!(inbox.direct_bytes(), 3 * ((1 << 20) + 4));
    }
}
