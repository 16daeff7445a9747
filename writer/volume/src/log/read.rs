//! Reading single frames of an open log: what has left its owner's memory, and the check of trim points.

use std::io;

use bytes::Bytes;

use super::Shared;
use crate::buffer::frame_len;
use crate::disk::Disk;
use crate::error::{NotDurable, ReadError};
use crate::frame::{FrameHeader, HEADER_BYTES, crc32c};
use crate::geometry::BLOCK;
use crate::volume::Lsn;

/// How many bytes a read of unknown length takes first: most frames are no larger.
const FIRST_READ_BYTES: u64 = 16 * 1024;

impl<D: Disk> Shared<D> {
    /// Whether a frame of the durable log begins at `lsn`, or one ends there and the rest of the lap was
    /// left out.
    pub(super) async fn is_frame_edge(&self, lsn: u64) -> io::Result<bool> {
        if !lsn.is_multiple_of(BLOCK as u64) {
            return Ok(false);
        }
        if self.header(lsn).await?.is_some() {
            return Ok(true);
        }
        let next = self.header(self.geometry.lap_end(lsn)).await?;
        Ok(next.is_some_and(|header| header.prev_end == lsn))
    }

    async fn header(&self, lsn: u64) -> io::Result<Option<FrameHeader>> {
        let bytes = self.disk.read(self.geometry.offset(lsn), BLOCK).await?;
        let header = FrameHeader::decode(&bytes, &self.seed).ok();
        Ok(header.filter(|header| header.lsn == lsn))
    }

    /// The payload of the durable frame at `lsn`.
    pub(super) async fn read(&self, lsn: Lsn) -> Result<Bytes, ReadError> {
        self.check_readable(lsn)?;
        if !lsn.0.is_multiple_of(BLOCK as u64) {
            return Err(ReadError::Corrupt(lsn));
        }
        let payload = self.read_payload(lsn.0).await?;
        // The room may have been trimmed, and used again, while it was read.
        self.check_readable(lsn)?;
        payload.ok_or(ReadError::Corrupt(lsn))
    }

    /// The payload at `lsn`, if a whole frame lies there.
    async fn read_payload(&self, lsn: u64) -> io::Result<Option<Bytes>> {
        let offset = self.geometry.offset(lsn);
        let to_lap_end = self.geometry.lap_end(lsn) - lsn;
        let mut bytes = self.disk.read(offset, FIRST_READ_BYTES.min(to_lap_end) as usize).await?;
        let header = FrameHeader::decode(&bytes, &self.seed).ok();
        let Some(header) = header.filter(|header| header.lsn == lsn) else {
            return Ok(None);
        };
        let payload_len = header.payload_len as usize;
        let whole = frame_len(payload_len);
        if whole as u64 > to_lap_end {
            return Ok(None);
        }
        if whole > bytes.len() {
            bytes = self.disk.read(offset, whole).await?;
        }
        let payload = bytes.slice(HEADER_BYTES..HEADER_BYTES + payload_len);
        Ok((crc32c(&payload) == header.payload_crc).then_some(payload))
    }

    fn check_readable(&self, lsn: Lsn) -> Result<(), ReadError> {
        let state = self.state.lock();
        let usage = state.ring.usage();
        match state.stopped {
            Some(NotDurable::Fenced) => Err(ReadError::Fenced),
            Some(NotDurable::Closed) => Err(ReadError::Closed),
            None if lsn < usage.trim => Err(ReadError::Trimmed(lsn)),
            None if lsn >= usage.durable => Err(ReadError::NotDurable(lsn)),
            None => Ok(()),
        }
    }
}
