//! Walking a log: from the trim point, frame by frame, to the first place that holds no frame of it, and
//! why that is the end. Reads only; recovery and inspection are built on it.
//!
//! Which bytes are a frame of the log, why no others can be, and how a torn end is told from damage is
//! argued in `docs/formats.md`, section "Volume", under "Recovery".

use std::io;
use std::sync::Arc;

use sluice_model::VolumeEpoch;

use crate::buffer::frame_len;
use crate::chunks::ChunkReader;
use crate::disk::ReadAt;
use crate::frame::{FrameHeader, HEADER_BYTES, NotAHeader, Seed, crc32c};
use crate::geometry::{BLOCK, BLOCK_BYTES};
use crate::superblock::Superblock;
use crate::volume::{Lsn, RecoveredFrame};

/// Why a log goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogEnd {
    /// It was closed in order, and ends where its superblock says.
    Clean,
    /// It fills its ring: what follows is its own beginning.
    Full,
    /// Nothing but zeros where a header would be: never written, or written ahead with zeros.
    Blank,
    /// No header of this volume: something else's bytes, or a header that was torn or damaged.
    NotAFrame,
    /// A frame of an earlier lap.
    EarlierLap {
        /// Its lsn.
        lsn: Lsn,
    },
    /// A frame that an earlier owner had in flight behind a hole: it is dead.
    EarlierEpoch {
        /// Its epoch.
        epoch: VolumeEpoch,
    },
    /// A whole header that does not follow what was read before it.
    Unchained {
        /// Where the frame before it ended, by what it says.
        previous_end: Lsn,
    },
    /// A header that fits, before a payload that does not: torn, or damaged.
    Torn {
        /// The frame's epoch.
        epoch: VolumeEpoch,
        /// How long its payload was to be, in bytes.
        payload_bytes: usize,
    },
    /// A whole header of a version or kind that this release does not know.
    Unsupported {
        /// Its version.
        version: u16,
    },
}

/// What lies next in a log.
#[derive(Debug)]
pub(crate) enum Step {
    Frame(RecoveredFrame),
    End(LogEnd),
}

/// A walk under way. It holds a superblock as it was when the walk began.
pub(crate) struct Walk<R: ReadAt> {
    disk: Arc<R>,
    superblock: Superblock,
    seed: Seed,
    reader: ChunkReader<R>,
    /// Where the last frame ended.
    position: u64,
    /// The last frame's epoch.
    epoch_before: VolumeEpoch,
    /// The header at a lap's start, remembered while frames near the end of the lap before are read.
    lap: Option<(u64, Option<FrameHeader>)>,
    ended: Option<LogEnd>,
}

impl<R: ReadAt> Walk<R> {
    /// From the trim point of `superblock` on.
    pub(crate) fn new(disk: Arc<R>, superblock: Superblock) -> Self {
        Self {
            seed: superblock.seed(),
            reader: ChunkReader::new(Arc::clone(&disk), superblock.geometry),
            position: superblock.trim,
            epoch_before: VolumeEpoch(0),
            lap: None,
            ended: None,
            superblock,
            disk,
        }
    }

    /// Where the last frame ended.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The frame that follows, or why there is none. An end stays the end.
    pub(crate) async fn step(&mut self) -> io::Result<Step> {
        if let Some(end) = self.ended {
            return Ok(Step::End(end));
        }
        // A clean log ends where its superblock says: no need to look.
        let step = if self.superblock.clean && self.position == self.superblock.durable {
            Step::End(LogEnd::Clean)
        } else {
            self.look().await?
        };
        match &step {
            Step::Frame(frame) => {
                self.position = frame.end.0;
                self.epoch_before = frame.epoch;
            }
            Step::End(end) => self.ended = Some(*end),
        }
        Ok(step)
    }

    async fn look(&mut self) -> io::Result<Step> {
        let at = self.position;
        let here = match self.header(at).await? {
            Ok(header) => Ok(header),
            Err(end @ LogEnd::Unsupported { .. }) => return Ok(Step::End(end)),
            Err(end) => Err(end),
        };
        let here = here.and_then(|header| self.follows(header, at));
        let skipped_to = self.after_skip().await?;
        let skipped_to = skipped_to.and_then(|header| self.follows(header, at).ok());
        // Both can be whole if one is a dead frame of an earlier epoch, in room that the later owner
        // left out or has not reached. The later epoch's is the log's.
        let header = match (here, skipped_to) {
            (Ok(here), Some(there)) if there.epoch <= here.epoch => here,
            (_, Some(there)) => there,
            (Ok(here), None) => here,
            (Err(end), None) => return Ok(Step::End(end)),
        };
        let payload_bytes = header.payload_len as usize;
        let bytes = self.reader.bytes(header.lsn, frame_len(payload_bytes)).await?;
        let payload = bytes.slice(HEADER_BYTES..HEADER_BYTES + payload_bytes);
        let epoch = VolumeEpoch(header.epoch);
        if crc32c(&payload) != header.payload_crc {
            return Ok(Step::End(LogEnd::Torn { epoch, payload_bytes }));
        }
        Ok(Step::Frame(RecoveredFrame {
            lsn: Lsn(header.lsn),
            end: Lsn(header.lsn + frame_len(payload_bytes) as u64),
            epoch,
            payload,
        }))
    }

    /// The header, if a frame with it can follow what was read so far, which ends at `end`.
    fn follows(&self, header: FrameHeader, end: u64) -> Result<FrameHeader, LogEnd> {
        let epoch = VolumeEpoch(header.epoch);
        let log_epoch = self.superblock.log_epoch;
        let epoch_fits = if end >= self.superblock.log_start {
            epoch == log_epoch
        } else {
            self.epoch_before <= epoch && epoch < log_epoch
        };
        if !epoch_fits {
            return Err(LogEnd::EarlierEpoch { epoch });
        }
        let geometry = &self.superblock.geometry;
        let frame_end = header.lsn + frame_len(header.payload_len as usize) as u64;
        // The first frame may begin a lap of which the trim point already is the start.
        let follows = header.prev_end == end || (header.lsn == end && end == self.superblock.trim);
        let fits = frame_end <= geometry.lap_end(header.lsn)
            && frame_end - self.superblock.trim <= geometry.ring_bytes;
        if follows && fits {
            Ok(header)
        } else {
            Err(LogEnd::Unchained { previous_end: Lsn(header.prev_end) })
        }
    }

    /// The header at the start of the next lap, if the rest of this one may have been left out.
    async fn after_skip(&mut self) -> io::Result<Option<FrameHeader>> {
        let geometry = self.superblock.geometry;
        let start = geometry.lap_end(self.position);
        let in_ring = start - self.superblock.trim < geometry.ring_bytes;
        if !in_ring || start - self.position >= geometry.max_frame_bytes() {
            return Ok(None);
        }
        if let Some((lap, header)) = self.lap
            && lap == start
        {
            return Ok(header);
        }
        let bytes = self.disk.read(geometry.offset(start), BLOCK).await?;
        let header = FrameHeader::decode(&bytes, &self.seed).ok();
        let header = header.filter(|header| header.lsn == start);
        self.lap = Some((start, header));
        Ok(header)
    }

    /// The header at `lsn`, if that is what it says.
    async fn header(&mut self, lsn: u64) -> io::Result<Result<FrameHeader, LogEnd>> {
        if lsn - self.superblock.trim >= self.superblock.geometry.ring_bytes {
            return Ok(Err(LogEnd::Full));
        }
        let bytes = self.reader.bytes(lsn, BLOCK).await?;
        Ok(match FrameHeader::decode(&bytes, &self.seed) {
            Ok(header) if header.lsn == lsn => Ok(header),
            Ok(header) => Err(LogEnd::EarlierLap { lsn: Lsn(header.lsn) }),
            Err(NotAHeader::Unsupported(version)) => Err(LogEnd::Unsupported { version }),
            Err(NotAHeader::Invalid) if bytes[..HEADER_BYTES].iter().all(|byte| *byte == 0) => {
                Err(LogEnd::Blank)
            }
            Err(NotAHeader::Invalid) => Err(LogEnd::NotAFrame),
        })
    }

    /// The log seems to end at `position`. What says that it was durable beyond that: the superblock, or
    /// a frame as far ahead as frames can have been in flight.
    pub(crate) async fn durable_beyond(&mut self) -> io::Result<Option<Lsn>> {
        let at = self.position;
        let floor = self.superblock.durable;
        if at < floor {
            return Ok(Some(Lsn(floor)));
        }
        let geometry = self.superblock.geometry;
        // Frames may have been in flight up to the window's end, the last may have skipped the rest of
        // a lap, and the first to prove anything begins behind them.
        let reach = geometry.window_bytes + 2 * geometry.max_frame_bytes();
        let stop = at + reach.min(geometry.ring_bytes);
        let mut lsn = at;
        while lsn < stop {
            let bytes = self.reader.bytes(lsn, BLOCK).await?;
            if let Ok(header) = FrameHeader::decode(&bytes, &self.seed)
                && geometry.offset(header.lsn) == geometry.offset(lsn)
                && header.durable > at
            {
                return Ok(Some(Lsn(header.durable)));
            }
            lsn += BLOCK_BYTES;
        }
        Ok(None)
    }
}
