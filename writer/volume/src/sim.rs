//! A simulated disk, for tests and for the simulation of whole clusters: the real log over memory that
//! misbehaves as disks do, by a seed.
//!
//! [`SimDevice`] is the disk; it outlives its owners. What holds: a write that was said to be durable is
//! kept; of one that was not, any subset of its 512-byte sectors may be there after a crash, a fence or
//! an error. Time is tokio's, randomness the seed's, nothing runs on threads of its own: on one thread
//! with paused time a run repeats exactly.
//!
//! It is not for data that matters: it lives in memory and dies with the process.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_model::{SplitMix64, VolumeEpoch, VolumeId};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::buffer::AlignedBuf;
use crate::disk::{Disk, ReadAt, Write, WriteError};
use crate::error::{CreateError, OpenError};
use crate::file::{CreateOptions, OpenOptions};
use crate::geometry::{BLOCK, BLOCK_BYTES, Geometry, LEAST_RING_BYTES, RING_OFFSET};
use crate::scan;
use crate::superblock::{SLOT_OFFSETS, Superblock};
use crate::volume::{Kind, Recovery};

mod inspect;

/// What is written whole or not at all.
const SECTOR: usize = 512;

/// How a simulated disk behaves from now on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The shortest time that a write or read takes.
    pub least_latency: Duration,
    /// The longest; each gets a random one between. Writes overtake each other when it is larger.
    pub most_latency: Duration,
    /// Of 1000 writes, how many fail with EIO, some of their sectors written.
    pub write_errors_per_mille: u32,
    /// Of 1000 reads, how many fail with EIO.
    pub read_errors_per_mille: u32,
    /// Whether writes fail with ENOSPC where nothing was written before, as in a sparse file.
    pub no_room: bool,
}

/// A disk that several owners may open in turn. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDevice {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    size_bytes: u64,
    state: Mutex<State>,
    /// A write has ended, one way or the other.
    ended: Notify,
}

#[derive(Debug)]
struct State {
    blocks: BTreeMap<u64, Box<[u8]>>,
    /// Writes that have begun and not ended, by number.
    in_flight: BTreeMap<u64, Begun>,
    writes: u64,
    faults: Faults,
    random: Random,
    /// The owner whose writes are let through.
    owner: VolumeEpoch,
    /// Counts crashes: handles from before one are dead.
    life: u64,
}

#[derive(Debug)]
struct Begun {
    owner: VolumeEpoch,
    offset: u64,
    bytes: Bytes,
}

impl SimDevice {
    /// A new disk that holds an empty volume. All that is random on it follows from `seed`.
    pub fn create(options: CreateOptions, seed: u64) -> Result<Self, CreateError> {
        let size_bytes = options.size_bytes;
        let geometry = Geometry::new(size_bytes, options.window_bytes)
            .ok_or(CreateError::Size { size_bytes, least_bytes: RING_OFFSET + LEAST_RING_BYTES })?;
        let mut state = State {
            blocks: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            writes: 0,
            faults: Faults::default(),
            random: Random::new(seed),
            owner: VolumeEpoch(0),
            life: 0,
        };
        let superblock = Superblock::new(options.id, options.uuid, geometry);
        for counter in 0..SLOT_OFFSETS.len() as u64 {
            let slot = Superblock { counter, ..superblock };
            state.store(slot.offset(), slot.encode().as_ref());
        }
        let state = Mutex::new(state);
        Ok(Self { shared: Arc::new(Shared { size_bytes, state, ended: Notify::new() }) })
    }

    /// Opens the volume, as [`crate::FileVolume::open`] does. There is no lock, but a reservation: an
    /// older owner's writes fail from now on, those in flight end any way they like.
    pub async fn open(
        &self,
        id: VolumeId,
        epoch: VolumeEpoch,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        let life = {
            let mut state = self.shared.state.lock();
            if epoch > state.owner {
                state.owner = epoch;
                state.tear(|begun| begun.owner < epoch);
            }
            state.life
        };
        let shared = Arc::clone(&self.shared);
        let stopped = Mutex::new(false).into();
        let disk = SimDisk { shared, owner: epoch, life, stopped };
        scan::open(disk, id, epoch, options.settings()).await
    }

    /// How the disk behaves from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.state.lock().faults = faults;
    }

    /// Power is lost: of each write in flight some sectors are there, and no handle of now is ever
    /// answered again. Open anew, under a larger epoch.
    pub fn crash(&self) {
        let mut state = self.shared.state.lock();
        state.life += 1;
        state.tear(|_| true);
    }

    /// Flips the bits of `mask` in one byte.
    pub fn flip(&self, offset: u64, mask: u8) {
        let mut byte = self.peek(offset, 1);
        byte[0] ^= mask;
        self.poke(offset, &byte);
    }

    /// The disk's size.
    pub fn size_bytes(&self) -> u64 {
        self.shared.size_bytes
    }

    /// What is on the disk.
    pub fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        self.shared.state.lock().load(offset, len)
    }

    /// Changes what is on the disk.
    pub fn poke(&self, offset: u64, bytes: &[u8]) {
        self.shared.state.lock().store(offset, bytes);
    }

    /// How many writes have begun so far, and how many of them have not ended.
    pub fn writes(&self) -> (u64, usize) {
        let state = self.shared.state.lock();
        (state.writes, state.in_flight.len())
    }
}

impl State {
    fn store(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let within = (at % BLOCK_BYTES) as usize;
            let (part, later) = rest.split_at(rest.len().min(BLOCK - within));
            let block = self.blocks.entry(at / BLOCK_BYTES).or_insert_with(|| [0; BLOCK].into());
            block[within..within + part.len()].copy_from_slice(part);
            at += part.len() as u64;
            rest = later;
        }
    }

    fn load(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let within = (at % BLOCK_BYTES) as usize;
            let part = (len - done).min(BLOCK - within);
            if let Some(block) = self.blocks.get(&(at / BLOCK_BYTES)) {
                out[done..done + part].copy_from_slice(&block[within..within + part]);
            }
            done += part;
        }
        out
    }

    /// Ends writes in flight as a crash does.
    fn tear(&mut self, whose: impl Fn(&Begun) -> bool) {
        for (number, begun) in std::mem::take(&mut self.in_flight) {
            if whose(&begun) {
                self.store_some(begun.offset, &begun.bytes);
            } else {
                self.in_flight.insert(number, begun);
            }
        }
    }

    /// Writes nothing, everything, the first sectors, or any.
    fn store_some(&mut self, offset: u64, bytes: &[u8]) {
        let sectors = bytes.len().div_ceil(SECTOR) as u64;
        let (manner, first) = (self.random.below(4), self.random.below(sectors + 1));
        for (index, sector) in bytes.chunks(SECTOR).enumerate() {
            let index = index as u64;
            let lands = match manner {
                0 => false,
                1 => true,
                2 => index < first,
                _ => self.random.below(2) == 0,
            };
            if lands {
                self.store(offset + index * SECTOR as u64, sector);
            }
        }
    }

    fn latency(&mut self) -> Duration {
        let Faults { least_latency, most_latency, .. } = self.faults;
        let spread = most_latency.saturating_sub(least_latency).as_micros();
        // A latency of centuries may be cut short.
        let extra = self.random.below(u64::try_from(spread).unwrap_or(u64::MAX).saturating_add(1));
        least_latency + Duration::from_micros(extra)
    }

    fn has_room(&self, offset: u64, len: usize) -> bool {
        let mut blocks = offset / BLOCK_BYTES..(offset + len as u64).div_ceil(BLOCK_BYTES);
        !self.faults.no_room || blocks.all(|block| self.blocks.contains_key(&block))
    }
}

/// One owner's handle.
struct SimDisk {
    shared: Arc<Shared>,
    owner: VolumeEpoch,
    life: u64,
    stopped: Arc<Mutex<bool>>,
}

impl ReadAt for SimDisk {
    async fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let (latency, fails) = {
            let mut state = self.shared.state.lock();
            let chance = state.faults.read_errors_per_mille;
            (state.latency(), state.random.per_mille(chance))
        };
        wait(latency).await;
        let state = self.shared.state.lock();
        if fails || state.life != self.life {
            return Err(io::Error::other("simulated read error"));
        }
        let mut buf = AlignedBuf::with_capacity(len);
        buf.extend_from_slice(&state.load(offset, len));
        Ok(buf.freeze())
    }
}

impl Disk for SimDisk {
    fn size_bytes(&self) -> u64 {
        self.shared.size_bytes
    }

    fn kind(&self) -> Kind {
        Kind::Simulated
    }

    fn write(&self, write: Write) {
        let shared = Arc::clone(&self.shared);
        let stopped = Arc::clone(&self.stopped);
        let (owner, life) = (self.owner, self.life);
        tokio::spawn(async move {
            wait(write.pause).await;
            if *stopped.lock() {
                return;
            }
            let Some((number, latency)) = shared.begin(&write, owner, life) else {
                // The process is dead: no one hears an answer.
                return;
            };
            wait(latency).await;
            let Some(result) = shared.end(number, &write, owner, life) else { return };
            (write.done)(result);
        });
    }

    fn stop(&self) {
        *self.stopped.lock() = true;
    }

    async fn released(&self) {
        loop {
            let mut ended = std::pin::pin!(self.shared.ended.notified());
            // Registered before the look, so that no wake-up falls between.
            ended.as_mut().enable();
            let begun = |begun: &Begun| begun.owner == self.owner;
            if !self.shared.state.lock().in_flight.values().any(begun) {
                return;
            }
            ended.await;
        }
    }
}

impl Shared {
    fn begin(&self, write: &Write, owner: VolumeEpoch, life: u64) -> Option<(u64, Duration)> {
        let mut state = self.state.lock();
        if state.life != life {
            return None;
        }
        state.writes += 1;
        let number = state.writes;
        if state.owner == owner {
            let begun = Begun { owner, offset: write.offset, bytes: write.bytes.clone() };
            state.in_flight.insert(number, begun);
        }
        Some((number, state.latency()))
    }

    fn end(
        &self,
        number: u64,
        write: &Write,
        owner: VolumeEpoch,
        life: u64,
    ) -> Option<Result<(), WriteError>> {
        let mut state = self.state.lock();
        self.ended.notify_waiters();
        if state.life != life {
            return None;
        }
        // Gone if the next owner's reservation ended it.
        let begun = state.in_flight.remove(&number);
        if state.owner != owner || begun.is_none() {
            return Some(Err(WriteError::Fenced));
        }
        if !state.has_room(write.offset, write.bytes.len()) {
            return Some(Err(WriteError::Io(io::ErrorKind::StorageFull.into())));
        }
        let chance = state.faults.write_errors_per_mille;
        if state.random.per_mille(chance) {
            state.store_some(write.offset, &write.bytes);
            return Some(Err(WriteError::Io(io::Error::other("simulated write error"))));
        }
        state.store(write.offset, &write.bytes);
        Some(Ok(()))
    }
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// What faults are chosen by.
#[derive(Debug)]
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, which is not zero. The bias is of no matter here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(crate) fn per_mille(&mut self, chance: u32) -> bool {
        chance > 0 && self.below(1000) < u64::from(chance)
    }
}

#[cfg(test)]
mod tests;
