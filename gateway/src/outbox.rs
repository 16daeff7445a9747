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
