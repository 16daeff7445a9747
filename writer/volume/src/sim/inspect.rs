//! Looking at a simulated disk from outside, as a checker does: without an owner, a fault or a wait.

use std::ops::Range;

use super::SimDevice;
use crate::buffer::frame_len;
use crate::frame::{FrameHeader, HEADER_BYTES};
use crate::geometry::BLOCK;
use crate::superblock::{SLOT_OFFSETS, Superblock};
use crate::volume::Lsn;

impl SimDevice {
    fn superblock(&self) -> Option<Superblock> {
        let slots = SLOT_OFFSETS.map(|offset| self.peek(offset, BLOCK));
        Superblock::choose([&slots[0], &slots[1]]).ok()
    }

    /// The trim point from which a recovery would start now; none if neither superblock is whole.
    pub fn trim_on_disk(&self) -> Option<Lsn> {
        Some(Lsn(self.superblock()?.trim))
    }

    /// Where on the disk the log's frames lie that something later on the disk says to have been durable,
    /// each with its header and payload and without the padding: no change to them may go unnoticed.
    /// Ends at the first place that holds no frame.
    pub fn proven_frames(&self) -> Vec<Range<u64>> {
        let Some(superblock) = self.superblock() else {
            return Vec::new();
        };
        let geometry = superblock.geometry;
        let seed = superblock.seed();
        let header_at = |lsn: u64| {
            let header = FrameHeader::decode(&self.peek(geometry.offset(lsn), BLOCK), &seed).ok();
            header.filter(|header| header.lsn == lsn)
        };
        let mut durable = superblock.durable;
        let mut frames = Vec::new();
        let mut at = superblock.trim;
        while at - superblock.trim < geometry.ring_bytes {
            let follows = |header: &FrameHeader| {
                header.prev_end == at || (header.lsn == at && at == superblock.trim)
            };
            let here = header_at(at).filter(follows);
            let Some(header) = here.or_else(|| header_at(geometry.lap_end(at)).filter(follows))
            else {
                break;
            };
            durable = durable.max(header.durable);
            let end = header.lsn + frame_len(header.payload_len as usize) as u64;
            let start = geometry.offset(header.lsn);
            let len = HEADER_BYTES as u64 + u64::from(header.payload_len);
            frames.push((end, start..start + len));
            at = end;
        }
        frames.retain(|(end, _)| *end <= durable);
        frames.into_iter().map(|(_, place)| place).collect()
    }
}
