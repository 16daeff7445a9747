//! What every kind of volume must do. [`contract`] needs nothing but the two traits; [`on_disk`] is for
//! the kinds that share the on-disk format, and looks at and damages their bytes. A new kind adds a
//! [`Rig`] and the lines that run the suites on it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sluice_model::{Entropy, VolumeEpoch, VolumeId};

use crate::sim::SimDevice;
use crate::{
    BlockOptions, BlockVolume, CreateOptions, Engine, FileVolume, FrameBuf, Lsn, ObjectOptions,
    ObjectVolume, OpenError, OpenOptions, RecoveredFrame, Recovery, Volume,
};

mod contract;
pub(crate) mod loop_device;
mod on_disk;

use loop_device::LoopDevice;

pub(crate) const ID: VolumeId = VolumeId(7);
pub(crate) const UUID: [u8; 16] = *b"a volume's uuid.";

/// One volume on one device, to be opened again and again.
pub(crate) trait Rig: Sized {
    /// A device with an empty volume [`ID`] on it.
    async fn new(size_bytes: u64, window_bytes: u64) -> Self;

    /// Whether this machine can have such a device. If not, the reason goes to standard error.
    fn is_possible() -> bool {
        true
    }

    /// Opens it. Waits for an owner that was dropped just before to be gone.
    async fn open_with(
        &self,
        id: VolumeId,
        epoch: u32,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError>;

    /// Opens it as most callers do.
    async fn open(&self, id: VolumeId, epoch: u32) -> Result<Box<dyn Recovery>, OpenError> {
        self.open_with(id, epoch, OpenOptions::default()).await
    }
}

/// A rig of a kind with the on-disk format.
pub(crate) trait Bytes {
    fn peek(&self, offset: u64, len: usize) -> Vec<u8>;
    fn poke(&self, offset: u64, bytes: &[u8]);
}

pub(crate) struct FileRig {
    /// Removed with the rig.
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Rig for FileRig {
    async fn new(size_bytes: u64, window_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        let options = CreateOptions { window_bytes, ..CreateOptions::new(ID, UUID, size_bytes) };
        FileVolume::create(&path, options).await.unwrap();
        Self { _dir: dir, path }
    }

    async fn open_with(
        &self,
        id: VolumeId,
        epoch: u32,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        FileVolume::open(&self.path, id, VolumeEpoch(epoch), options).await
    }
}

impl Bytes for FileRig {
    fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        let file = std::fs::File::open(&self.path).unwrap();
        let mut out = vec![0; len];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut out, offset).unwrap();
        out
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        let file = std::fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, offset).unwrap();
    }
}

impl FileRig {
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

/// A file without io_uring.
pub(crate) struct ThreadsRig(FileRig);

impl Rig for ThreadsRig {
    async fn new(size_bytes: u64, window_bytes: u64) -> Self {
        Self(FileRig::new(size_bytes, window_bytes).await)
    }

    async fn open_with(
        &self,
        id: VolumeId,
        epoch: u32,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        let options = OpenOptions { engine: Engine::Threads, ..options };
        self.0.open_with(id, epoch, options).await
    }
}

impl Bytes for ThreadsRig {
    fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        self.0.peek(offset, len)
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        self.0.poke(offset, bytes);
    }
}

/// A loop device, where the machine lets us have one.
pub(crate) struct BlockRig(LoopDevice);

impl Rig for BlockRig {
    fn is_possible() -> bool {
        LoopDevice::are_possible()
    }

    async fn new(size_bytes: u64, window_bytes: u64) -> Self {
        let device = LoopDevice::new(size_bytes);
        let options = BlockOptions { window_bytes, ..BlockOptions::new(ID, UUID) };
        BlockVolume::create(device.path(), options).await.unwrap();
        Self(device)
    }

    async fn open_with(
        &self,
        id: VolumeId,
        epoch: u32,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        BlockVolume::open(self.0.path(), id, VolumeEpoch(epoch), options).await
    }
}

impl Bytes for BlockRig {
    fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        self.0.peek(offset, len)
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        self.0.poke(offset, bytes);
    }
}

pub(crate) struct SimRig(SimDevice);

impl Rig for SimRig {
    async fn new(size_bytes: u64, window_bytes: u64) -> Self {
        let options = CreateOptions { window_bytes, ..CreateOptions::new(ID, UUID, size_bytes) };
        Self(SimDevice::create(options, 1).unwrap())
    }

    async fn open_with(
        &self,
        id: VolumeId,
        epoch: u32,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        self.0.open(id, VolumeEpoch(epoch), options).await
    }
}

impl Bytes for SimRig {
    fn peek(&self, offset: u64, len: usize) -> Vec<u8> {
        self.0.peek(offset, len)
    }

    fn poke(&self, offset: u64, bytes: &[u8]) {
        self.0.poke(offset, bytes);
    }
}

pub(crate) struct ObjectRig(ObjectVolume);

/// Random numbers that are not: no two draws give the same.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            part.copy_from_slice(&next.to_le_bytes()[..part.len()]);
        }
    }
}

impl Rig for ObjectRig {
    async fn new(size_bytes: u64, window_bytes: u64) -> Self {
        // No pause between puts: these tests run in real time.
        let linger = Duration::ZERO;
        let options = ObjectOptions { window_bytes, linger, ..ObjectOptions::default() };
        let store = Arc::new(object_store::memory::InMemory::new());
        let entropy = Arc::new(Counting::default());
        let volume = ObjectVolume::new(store, "0a1b/c/wal/7", size_bytes, entropy, options);
        assert!(!volume.exists().await);
        volume.create(ID, UUID).await.unwrap();
        assert!(volume.exists().await);
        assert!(volume.create(ID, [1; 16]).await.is_err());
        Self(volume)
    }

    async fn open_with(
        &self,
        id: VolumeId,
        epoch: u32,
        options: OpenOptions,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        self.0.open(id, VolumeEpoch(epoch), options).await
    }
}

/// A frame to append.
pub(crate) fn frame(payload: &[u8]) -> FrameBuf {
    let mut frame = FrameBuf::with_capacity(payload.len());
    frame.push(payload).unwrap();
    frame
}

/// Bytes that tell which frame they are of and are not all the same.
pub(crate) fn payload(number: u64, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at as u64 * 31 + number * 7) as u8).collect();
    let label = number.to_le_bytes();
    let labelled = len.min(label.len());
    bytes[..labelled].copy_from_slice(&label[..labelled]);
    bytes
}

/// All that a recovery finds, and the volume.
pub(crate) async fn recover(
    mut recovery: Box<dyn Recovery>,
) -> (Vec<RecoveredFrame>, Arc<dyn Volume>) {
    let mut found = Vec::new();
    while let Some(frame) = recovery.next().await.unwrap() {
        found.push(frame);
    }
    (found, recovery.finish().await.unwrap())
}

/// Appends one frame and waits until it is durable: its lsn and end.
pub(crate) async fn append(volume: &Arc<dyn Volume>, payload: &[u8]) -> (Lsn, Lsn) {
    let durable = volume.append(frame(payload)).unwrap().await.unwrap();
    assert_eq!(durable.payload, payload);
    (durable.lsn, durable.end)
}

/// Runs tests of a suite on a rig.
macro_rules! run {
    ($suite:ident on $rig:ident as $name:ident: $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test]
                async fn $test() {
                    if !<super::$rig as super::Rig>::is_possible() {
                        return;
                    }
                    super::$suite::$test::<super::$rig>().await;
                }
            )*
        }
    };
}

macro_rules! run_on {
    ($rig:ident, $contract:ident) => {
        run!(contract on $rig as $contract:
            round_trips laps full_then_trim epochs trim_points_are_frame_edges hints closed fenced
            in_order_and_pipelined sizes_are_bounded an_empty_log);
    };
    ($rig:ident, $contract:ident, $on_disk:ident) => {
        run_on!($rig, $contract);
        run!(on_disk on $rig as $on_disk:
            torn_at_each_sector damage_of_acknowledged_frames_is_told frames_beyond_a_hole_stay_dead
            frames_that_are_not_the_logs a_dead_frame_in_a_skipped_rest a_clean_end_is_the_end
            superblocks_damaged_in_turn a_later_format_is_refused a_stale_superblock_is_noticed
            interrupted_recovery an_end_once_found_is_final epochs_within_the_log_never_fall
            a_trim_survives_the_loss_of_either_superblock);
    };
}

run_on!(FileRig, file_contract, file_on_disk);
run_on!(ThreadsRig, threads_contract, threads_on_disk);
run_on!(BlockRig, block_contract, block_on_disk);
run_on!(SimRig, sim_contract, sim_on_disk);
run_on!(ObjectRig, object_contract);
