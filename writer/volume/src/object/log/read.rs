//! Reading single frames of an open object volume. Where they lie is known, so that it costs one GET.

use bytes::Bytes;

use super::{Kept, Shared, Spot, State};
use crate::buffer::frame_len;
use crate::error::{NotDurable, ReadError};
use crate::frame::{FrameHeader, HEADER_BYTES, crc32c};
use crate::volume::Lsn;

impl Shared {
    /// The payload of the durable frame at `lsn`.
    pub(super) async fn read(&self, lsn: Lsn) -> Result<Bytes, ReadError> {
        let (at, spot) = {
            let state = self.state.lock();
            state.check_readable(lsn)?;
            let (kept, spot) = state.find(lsn.0).ok_or(ReadError::Corrupt(lsn))?;
            (self.base.place(kept.epoch, kept.position), spot)
        };
        let start = u64::from(spot.at);
        let end = start + HEADER_BYTES as u64 + u64::from(spot.payload_len);
        let bytes = self.base.bucket.range(&at, start..end).await;
        // It may have been trimmed, and removed, while it was read.
        self.state.lock().check_readable(lsn)?;
        let bytes = bytes?;
        let header = FrameHeader::decode(&bytes, &self.seed).ok();
        let header = header.filter(|header| header.lsn == lsn.0).ok_or(ReadError::Corrupt(lsn))?;
        let payload = bytes.slice(HEADER_BYTES..);
        let is_whole = payload.len() == spot.payload_len as usize;
        if is_whole && crc32c(&payload) == header.payload_crc {
            Ok(payload)
        } else {
            Err(ReadError::Corrupt(lsn))
        }
    }
}

impl State {
    fn check_readable(&self, lsn: Lsn) -> Result<(), ReadError> {
        let usage = self.ring.usage();
        match self.stopped {
            Some(NotDurable::Fenced) => Err(ReadError::Fenced),
            Some(NotDurable::Closed) => Err(ReadError::Closed),
            None if lsn < usage.trim => Err(ReadError::Trimmed(lsn)),
            None if lsn >= usage.durable => Err(ReadError::NotDurable(lsn)),
            None => Ok(()),
        }
    }

    /// The frame that begins at `lsn`, and its object.
    fn find(&self, lsn: u64) -> Option<(&Kept, Spot)> {
        let kept = self.kept.get(self.kept.partition_point(|kept| kept.end <= lsn))?;
        let at = kept.frames.binary_search_by_key(&lsn, |spot| spot.lsn).ok()?;
        Some((kept, *kept.frames.get(at)?))
    }

    /// Whether a durable frame begins or ends at `lsn`, or the log does.
    pub(super) fn is_edge(&self, lsn: u64) -> bool {
        let usage = self.ring.usage();
        if lsn == usage.trim.0 || lsn == usage.durable.0 || self.find(lsn).is_some() {
            return true;
        }
        // Else at the end of a frame before a rest of a lap that was left out.
        let at = self.kept.partition_point(|kept| kept.end < lsn);
        self.kept.get(at).is_some_and(|kept| {
            let ends = |spot: &Spot| spot.lsn + frame_len(spot.payload_len as usize) as u64 == lsn;
            kept.end == lsn || kept.frames.iter().any(ends)
        })
    }
}
