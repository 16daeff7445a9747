//! A stream of this writer, found once: for those who ask several things of many streams at a time, where
//! finding each stream anew would cost more than the answers.

use std::ops::Range;
use std::sync::Arc;

use sluice_format::AbortedTransaction;
use sluice_model::VolumeId;
use sluice_wire::Chain;

use crate::error::TailError;
use crate::stream::{Offsets, Stream, Waiter};
use crate::volume_handle::OwnedVolume;

/// A stream of this writer. While one is held the stream stays in memory: for the length of a request.
#[derive(Clone)]
pub struct Tail {
    volume: Arc<OwnedVolume>,
    stream: Arc<Stream>,
}

impl Tail {
    pub(crate) fn new(volume: Arc<OwnedVolume>, stream: Arc<Stream>) -> Self {
        Self { volume, stream }
    }

    /// Whether the stream is still on this volume of this writer's, and its topic not deleted. If not, it must be looked for again.
    pub fn is_here(&self) -> bool {
        self.volume.is_serving() && !self.stream.is_deleted() && !self.stream.is_away()
    }

    /// The volume that it lies on.
    pub fn volume(&self) -> VolumeId {
        self.volume.id
    }

    /// Its leader epoch: grows with each change of its volume's owner, and as it moves between volumes.
    pub fn leader_epoch(&self) -> i32 {
        self.stream.leader_epoch(self.volume.epoch()).cast_signed()
    }

    /// Its offsets.
    pub fn offsets(&self) -> Offsets {
        self.stream.offsets()
    }

    /// Whole batches from the one that holds `offset` on: at least one, then up to `max_bytes`. None
    /// if they are only in the bucket; empty at the high watermark.
    ///
    /// # Errors
    /// [`TailError::OutOfRange`], or the volume cannot be read.
    pub async fn read(&self, offset: i64, max_bytes: u64) -> Result<Option<Chain>, TailError> {
        self.volume.read(&self.stream, offset, max_bytes).await
    }

    /// About how many bytes lie from `offset` on, up to `enough`; all of `enough` if reading there is
    /// an error, so that nobody waits for it. With `committed`, up to the last stable offset.
    pub fn available(&self, offset: i64, committed: bool, enough: u64) -> u64 {
        let end = if committed { self.stream.offsets().last_stable } else { i64::MAX };
        self.stream.available(offset, end, enough)
    }

    /// The largest epoch not above `epoch` that has records, with its end offset. None for an epoch
    /// that is yet to come, as in Kafka.
    pub fn epoch_end(&self, epoch: i32) -> Option<(i32, i64)> {
        let now = self.leader_epoch();
        if epoch == now {
            // The current epoch ends at the high watermark, even if it has no records yet.
            return Some((epoch, self.stream.high_watermark()));
        }
        if epoch > now { None } else { self.stream.epoch_end(epoch) }
    }

    /// Aborted transactions that may have records in `range` and whose marker lies in the tail, by their
    /// markers; [`Offsets::tail_start`] says where the tail begins.
    pub fn aborted_over(&self, range: &Range<i64>) -> Vec<AbortedTransaction> {
        self.stream.aborted_over(range)
    }

    /// Waits on several streams.
    pub fn waiter<'a>(tails: impl Iterator<Item = &'a Self>) -> Waiter {
        Waiter::new(tails.map(|tail| Arc::clone(&tail.stream)).collect())
    }
}
