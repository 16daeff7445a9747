//! Setting the header fields that the broker decides, in place.

use super::{Attributes, BatchError, BatchView, CRC_END};
use crate::crc32c;

/// One batch that may be changed.
#[derive(Debug)]
pub struct BatchMut<'a> {
    bytes: &'a mut [u8],
}

impl<'a> BatchMut<'a> {
    /// Over `bytes`, which must be exactly one batch.
    ///
    /// # Errors
    /// As [`BatchView::new`].
    pub fn new(bytes: &'a mut [u8]) -> Result<Self, BatchError> {
        BatchView::new(&*bytes)?;
        Ok(Self { bytes })
    }

    /// Reads the batch.
    pub fn view(&self) -> BatchView<&[u8]> {
        BatchView { bytes: self.bytes }
    }

    fn set<const N: usize>(&mut self, at: usize, value: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&value);
    }

    /// Sets the offset of the first record. The checksum stays true.
    pub fn set_base_offset(&mut self, offset: i64) {
        self.set(0, offset.to_be_bytes());
    }

    /// Sets the epoch of the leader that takes the batch. The checksum stays true.
    pub fn set_partition_leader_epoch(&mut self, epoch: i32) {
        self.set(12, epoch.to_be_bytes());
    }

    /// Sets the largest timestamp, in ms, and the checksum.
    pub fn set_max_timestamp(&mut self, timestamp_ms: i64) {
        self.set(35, timestamp_ms.to_be_bytes());
        self.seal();
    }

    /// Makes `timestamp_ms` the time of every record (LogAppendTime), and sets the checksum.
    pub fn set_log_append_time(&mut self, timestamp_ms: i64) {
        let attributes = self.view().attributes().0 | Attributes::LOG_APPEND_TIME;
        self.set(21, attributes.to_be_bytes());
        self.set_max_timestamp(timestamp_ms);
    }

    /// Makes the checksum true.
    pub(super) fn seal(&mut self) {
        let crc = crc32c(&self.bytes[CRC_END..]);
        self.set(17, crc.to_be_bytes());
    }
}
