//! Reading a log back: from the trim point, in large sequential reads, to the first place that holds no
//! frame of the log. Owns the disk until the log is ready. Writes nothing but superblocks.
//!
//! Which bytes are a frame of the log, why no others can be, and how a torn end is told from damage is
//! argued in `docs/formats.md`, section "Volume", under "Recovery".

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::task::JoinHandle;

use crate::buffer::{AlignedBuf, frame_len};
use crate::disk::{Disk, Slots, WriteError};
use crate::error::{OpenError, RecoveryError};
use crate::frame::{FrameHeader, HEADER_BYTES, NotAHeader, Seed, crc32c};
use crate::geometry::{BLOCK, BLOCK_BYTES, Geometry};
use crate::log::{Log, Settings};
use crate::superblock::{NotASuperblock, Superblock};
use crate::volume::{Lsn, RecoveredFrame, Recovery, Volume};

/// How much is read at once. One read is kept, one is on its way.
const CHUNK_BYTES: u64 = 2 << 20;

/// Opens the volume on `disk` under `epoch`: checks what it is, and fences every older epoch.
pub(crate) async fn open<D: Disk>(
    disk: D,
    id: VolumeId,
    epoch: VolumeEpoch,
    settings: Settings,
) -> Result<Box<dyn Recovery>, OpenError> {
    let disk = Arc::new(disk);
    let mut slots = match Slots::load(&*disk).await? {
        Ok(slots) => slots,
        Err(NotASuperblock::Invalid) => return Err(OpenError::Damaged),
        Err(NotASuperblock::Unsupported(version)) => return Err(OpenError::Unsupported(version)),
    };
    let found = *slots.current();
    if found.id != id {
        return Err(OpenError::WrongVolume { found: found.id, wanted: id });
    }
    if epoch <= found.epoch {
        return Err(OpenError::Fenced { stored: found.epoch });
    }
    let (actual_bytes, wanted_bytes) = (disk.size_bytes(), found.geometry.device_bytes);
    if actual_bytes < wanted_bytes {
        return Err(OpenError::Truncated { actual_bytes, wanted_bytes });
    }
    match slots.store(&*disk, Superblock { epoch, ..found }).await {
        Ok(()) => {}
        Err(WriteError::Io(error)) => return Err(OpenError::Io(error)),
        // A device that knows more than its superblock: someone with a larger epoch is about to write.
        Err(WriteError::Fenced) => return Err(OpenError::Fenced { stored: epoch }),
    }
    let reader = ChunkReader::new(Arc::clone(&disk), found.geometry);
    Ok(Box::new(Scan {
        seed: found.seed(),
        superblock: found,
        position: found.trim,
        epoch_before: VolumeEpoch(0),
        lap: None,
        ended: false,
        reader,
        disk,
        slots,
        settings,
    }))
}

/// A recovery under way.
struct Scan<D: Disk> {
    disk: Arc<D>,
    slots: Slots,
    settings: Settings,
    seed: Seed,
    /// As the owner before left it: what it says of the log.
    superblock: Superblock,
    reader: ChunkReader<D>,
    /// Where the last frame ended.
    position: u64,
    /// The last frame's epoch.
    epoch_before: VolumeEpoch,
    /// The header at a lap's start, remembered while frames near the end of the lap before are read.
    lap: Option<(u64, Option<FrameHeader>)>,
    ended: bool,
}

#[async_trait]
impl<D: Disk> Recovery for Scan<D> {
    fn id(&self) -> VolumeId {
        self.superblock.id
    }

    fn epoch(&self) -> VolumeEpoch {
        self.slots.current().epoch
    }

    fn trim(&self) -> Lsn {
        Lsn(self.superblock.trim)
    }

    fn hint(&self) -> u64 {
        self.superblock.hint
    }

    async fn next(&mut self) -> Result<Option<RecoveredFrame>, RecoveryError> {
        if self.ended {
            return Ok(None);
        }
        // A clean log ends where its superblock says: no need to look.
        let clean_end = self.superblock.clean && self.position == self.superblock.durable;
        if !clean_end {
            if let Some(frame) = self.frame().await? {
                self.position = frame.end.0;
                self.epoch_before = frame.epoch;
                return Ok(Some(frame));
            }
            self.check_end().await?;
        }
        self.ended = true;
        Ok(None)
    }

    async fn finish(mut self: Box<Self>) -> Result<Arc<dyn Volume>, RecoveryError> {
        while self.next().await?.is_some() {}
        let head = self.position;
        let current = *self.slots.current();
        let next = Superblock {
            log_epoch: current.epoch,
            log_start: head,
            durable: head,
            clean: false,
            ..current
        };
        match self.slots.store(&*self.disk, next).await {
            Ok(()) => {}
            Err(WriteError::Io(error)) => return Err(RecoveryError::Io(error)),
            Err(WriteError::Fenced) => return Err(RecoveryError::Fenced),
        }
        let used_bytes = head - current.trim;
        tracing::info!(volume = %current.id, epoch = current.epoch.0, used_bytes, "volume opened");
        Ok(Arc::new(Log::new(self.disk, self.slots, self.settings, head)))
    }
}

impl<D: Disk> Scan<D> {
    /// The frame that follows `position`, if there is one.
    async fn frame(&mut self) -> Result<Option<RecoveredFrame>, RecoveryError> {
        let at = self.position;
        let here = match self.header(at).await? {
            Ok(header) => Some(header),
            Err(NotAHeader::Invalid) => None,
            Err(NotAHeader::Unsupported(version)) => {
                return Err(RecoveryError::Unsupported { at: Lsn(at), version });
            }
        };
        let here = here.filter(|header| self.follows(header, at));
        let skipped_to = self.after_skip().await?.filter(|header| self.follows(header, at));
        // Both can be whole if one is a dead frame of an earlier epoch, in room that the later owner
        // left out or has not reached. The later epoch's is the log's.
        let header = match (here, skipped_to) {
            (Some(here), Some(there)) => {
                if there.epoch > here.epoch {
                    there
                } else {
                    here
                }
            }
            (here, there) => match here.or(there) {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        let payload_len = header.payload_len as usize;
        let bytes = self.reader.bytes(header.lsn, frame_len(payload_len)).await?;
        let payload = bytes.slice(HEADER_BYTES..HEADER_BYTES + payload_len);
        if crc32c(&payload) != header.payload_crc {
            return Ok(None);
        }
        Ok(Some(RecoveredFrame {
            lsn: Lsn(header.lsn),
            end: Lsn(header.lsn + frame_len(payload_len) as u64),
            epoch: VolumeEpoch(header.epoch),
            payload,
        }))
    }

    /// Whether a frame with this header can follow what was read so far, which ends at `end`.
    fn follows(&self, header: &FrameHeader, end: u64) -> bool {
        let epoch = VolumeEpoch(header.epoch);
        let log_epoch = self.superblock.log_epoch;
        let epoch_fits = if end >= self.superblock.log_start {
            epoch == log_epoch
        } else {
            self.epoch_before <= epoch && epoch < log_epoch
        };
        let geometry = &self.superblock.geometry;
        let frame_end = header.lsn + frame_len(header.payload_len as usize) as u64;
        // The first frame may begin a lap of which the trim point already is the start.
        let follows = header.prev_end == end || (header.lsn == end && end == self.superblock.trim);
        follows
            && epoch_fits
            && frame_end <= geometry.lap_end(header.lsn)
            && frame_end - self.superblock.trim <= geometry.ring_bytes
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
    async fn header(&mut self, lsn: u64) -> io::Result<Result<FrameHeader, NotAHeader>> {
        if lsn - self.superblock.trim >= self.superblock.geometry.ring_bytes {
            return Ok(Err(NotAHeader::Invalid));
        }
        let bytes = self.reader.bytes(lsn, BLOCK).await?;
        Ok(match FrameHeader::decode(&bytes, &self.seed) {
            Ok(header) if header.lsn != lsn => Err(NotAHeader::Invalid),
            other => other,
        })
    }

    /// The log seems to end at `position`. Makes sure that nothing says it was durable beyond: not the
    /// superblock, and no frame as far ahead as frames can have been in flight.
    async fn check_end(&mut self) -> Result<(), RecoveryError> {
        let at = self.position;
        let corrupt = |durable| RecoveryError::Corrupt { at: Lsn(at), durable: Lsn(durable) };
        let floor = self.superblock.durable;
        if at < floor {
            return Err(corrupt(floor));
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
                return Err(corrupt(header.durable));
            }
            lsn += BLOCK_BYTES;
        }
        Ok(())
    }
}

/// Gives the log's bytes in order, from chunks that are read ahead.
struct ChunkReader<D> {
    disk: Arc<D>,
    geometry: Geometry,
    /// The chunk in hand, and its lsn.
    chunk: Bytes,
    start: u64,
    /// The chunk that follows, on its way.
    ahead: Option<(u64, JoinHandle<io::Result<Bytes>>)>,
}

impl<D: Disk> ChunkReader<D> {
    fn new(disk: Arc<D>, geometry: Geometry) -> Self {
        Self { disk, geometry, chunk: Bytes::new(), start: 0, ahead: None }
    }

    /// `len` bytes from `lsn` on, all of one lap. Cheap where they lie in the chunk in hand; frames that
    /// lie across two chunks are put together in memory of their own.
    async fn bytes(&mut self, lsn: u64, len: usize) -> io::Result<Bytes> {
        if let Some(found) = self.in_hand(lsn, len) {
            return Ok(found);
        }
        let end = self.start + self.chunk.len() as u64;
        if !(self.start..end).contains(&lsn) {
            self.advance(lsn).await?;
            if let Some(found) = self.in_hand(lsn, len) {
                return Ok(found);
            }
        }
        let mut whole = AlignedBuf::with_capacity(len);
        let mut from = lsn;
        loop {
            let skip = (from - self.start) as usize;
            let part = &self.chunk[skip..self.chunk.len().min(skip + len - whole.len())];
            whole.extend_from_slice(part);
            from += part.len() as u64;
            if whole.len() == len {
                return Ok(whole.freeze());
            }
            self.advance(from).await?;
        }
    }

    fn in_hand(&self, lsn: u64, len: usize) -> Option<Bytes> {
        let from = usize::try_from(lsn.checked_sub(self.start)?).ok()?;
        let to = from.checked_add(len)?;
        (to <= self.chunk.len()).then(|| self.chunk.slice(from..to))
    }

    /// Takes the chunk that begins at `lsn` in hand, and sends for the next.
    async fn advance(&mut self, lsn: u64) -> io::Result<()> {
        let chunk = match self.ahead.take() {
            Some((start, read)) if start == lsn => read.await.map_err(io::Error::other)??,
            _ => self.disk.read(self.geometry.offset(lsn), self.chunk_len(lsn)).await?,
        };
        self.start = lsn;
        let next = lsn + chunk.len() as u64;
        self.chunk = chunk;
        let (disk, offset) = (Arc::clone(&self.disk), self.geometry.offset(next));
        let len = self.chunk_len(next);
        self.ahead = Some((next, tokio::spawn(async move { disk.read(offset, len).await })));
        Ok(())
    }

    /// Chunks end with the lap.
    fn chunk_len(&self, lsn: u64) -> usize {
        // At most a chunk, which fits any length.
        (self.geometry.lap_end(lsn) - lsn).min(CHUNK_BYTES) as usize
    }
}
