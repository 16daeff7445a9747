//! Answers on their way to the socket: an ordered queue of byte pieces, written vectored, so that
//! record bytes are never copied and several answers leave in one system call.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use sluice_wire::Chain;
use tokio::io::AsyncWrite;

use crate::budget::Lease;

/// Pieces handed to one system call; Linux takes at most 1024.
const MAX_SLICES: usize = 64;

/// The queue. Its bound is kept by the session, which starts no request when it is full.
#[derive(Debug)]
pub(crate) struct Outbox {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    lease: Lease,
}

impl Outbox {
    /// An empty queue; `lease` is an empty lease of the answers' budget.
    pub(crate) fn new(lease: Lease) -> Self {
        Self { pieces: VecDeque::new(), bytes: 0, lease }
    }

    /// Bytes that are not yet written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Queues an answer with the lease of its record bytes.
    pub(crate) fn push(&mut self, answer: Chain, lease: Lease) {
        self.bytes += answer.len();
        self.pieces.extend(answer.into_pieces().into_iter().filter(|piece| !piece.is_empty()));
        self.lease.join(lease);
    }

    /// Writes once; gives how many bytes went out. Only to be called when there are some.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
            count += 1;
        }
        let written = ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.written(written);
        Poll::Ready(Ok(written))
    }

    fn written(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.lease.shrink_to(self.bytes);
        let mut left = bytes;
        while let Some(front) = self.pieces.front_mut() {
            if front.len() > left {
                front.advance(left);
                break;
            }
            left -= front.len();
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() {
            // An idle connection holds nothing.
            self.pieces = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use prometheus_client::metrics::gauge::Gauge;

    use super::*;
    use crate::budget::Budget;

    /// Takes a few bytes at a time, across pieces.
    struct Narrow {
        step: usize,
        taken: Vec<u8>,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = all.len().min(self.step);
            self.taken.extend_from_slice(&all[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn pieces_leave_in_order_however_they_are_cut() {
        let whole: Vec<u8> = (0..=255).cycle().take(3_000).collect();
        for step in [1, 2, 7, 100, 1_000, 10_000] {
            let gauge = Gauge::default();
            let budget = Budget::new(1 << 20, gauge.clone());
            let mut outbox = Outbox::new(budget.nothing());
            // Far more pieces than one call takes.
            for answer in whole.chunks(300) {
                let chain = answer.chunks(3).map(Bytes::copy_from_slice).collect::<Chain>();
                outbox.push(chain, budget.take_up_to(300));
            }
            let mut socket = Narrow { step, taken: Vec::new() };
            let mut cx = Context::from_waker(Waker::noop());
            while outbox.bytes() > 0 {
                assert_eq!(gauge.get(), i64::try_from(outbox.bytes()).unwrap());
                assert!(outbox.poll_write(&mut cx, &mut socket).is_ready());
            }
            assert!(socket.taken == whole, "step {step}");
            assert_eq!((gauge.get(), outbox.pieces.capacity()), (0, 0));
        }
        let mut outbox = Outbox::new(Budget::new(0, Gauge::default()).nothing());
        let lease = outbox.lease.split(0);
        outbox.push(Chain::from(Bytes::from_static(b"x")), lease);
        let mut closed = Narrow { step: 0, taken: Vec::new() };
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Err(e)) = outbox.poll_write(&mut cx, &mut closed) else { panic!() };
        assert_eq!(e.kind(), io::ErrorKind::WriteZero);
    }
}
