//! How fast a file volume appends: MB/s and latencies by frame size and depth, and the time of
//! creation and recovery. Compare with fio on the same file system:
//!
//! `fio --name=wal --filename=FILE --size=1g --rw=write --bs=64k --iodepth=8 --ioengine=libaio
//! --direct=1 --sync=dsync`
//!
//! Usage: `cargo run --release -p sluice-volume --example append -- [DIRECTORY [SECONDS]]`
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sluice_model::{VolumeEpoch, VolumeId};
use sluice_volume::{
    AppendError, CreateOptions, FileVolume, FrameBuf, OpenError, OpenOptions, Ticket, Volume,
};
use tokio::time::Instant;

const ID: VolumeId = VolumeId(1);
const VOLUME_BYTES: u64 = 1 << 30;
/// Long enough to measure, short enough not to fill a new file.
const FIRST_LAP: Duration = Duration::from_millis(600);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments.next().map_or(Ok(2), |seconds| seconds.parse())?;
    let path = directory.join(format!("sluice-append-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build()?;
    let outcome = runtime.block_on(measure(&path, Duration::from_secs(seconds)));
    std::fs::remove_file(&path)?;
    outcome
}

async fn measure(path: &Path, time: Duration) -> Result<(), Box<dyn Error>> {
    println!("frame KiB  depth  file            MB/s   p50 ms   p99 ms");
    let mut log = Log { path, epoch: 0 };
    // On files of their own, never written before, with and without zeros ahead of the log.
    for (size, depth) in [(4, 1), (64, 1), (64, 8)] {
        for (prewrite_bytes, file) in [(0, "new"), (16 << 20, "new, zeros")] {
            log.create_anew().await?;
            let options = OpenOptions { prewrite_bytes, ..OpenOptions::default() };
            let volume = log.open(options).await?;
            let measured = run(&volume, size * 1024 - 64, depth, time.min(FIRST_LAP)).await?;
            show(size, depth, file, measured);
            volume.close().await?;
        }
    }
    let start = Instant::now();
    log.create_anew().await?;
    println!("created {} MiB in {:.1} ms", VOLUME_BYTES >> 20, ms(start.elapsed()));
    let volume = log.open(OpenOptions::default()).await?;
    while volume.usage().head.0 < VOLUME_BYTES {
        run(&volume, 1 << 20, 8, Duration::ZERO).await?;
    }
    volume.close().await?;
    for (size, depth) in
        [4, 64, 1024].into_iter().flat_map(|size| [1, 8, 32].map(|depth| (size, depth)))
    {
        let options = OpenOptions { queue_depth: depth, ..OpenOptions::default() };
        let volume = log.open(options).await?;
        let measured = run(&volume, size * 1024 - 64, depth, time).await?;
        show(size, depth, "written", measured);
        volume.close().await?;
    }
    let volume = log.open(OpenOptions::default()).await?;
    while append(&volume, 256 << 10).await? {}
    let used = volume.usage().capacity_bytes - volume.usage().free_bytes;
    drop(volume);
    let start = Instant::now();
    let volume = log.open(OpenOptions::default()).await?;
    println!("recovered {} MiB in {:.0} ms", used >> 20, ms(start.elapsed()));
    volume.close().await?;
    Ok(())
}

/// The volume's file, and under which epoch it was opened last.
struct Log<'a> {
    path: &'a Path,
    epoch: u32,
}

impl Log<'_> {
    async fn create_anew(&mut self) -> Result<(), Box<dyn Error>> {
        if self.path.exists() {
            std::fs::remove_file(self.path)?;
        }
        Ok(FileVolume::create(self.path, CreateOptions::new(ID, [1; 16], VOLUME_BYTES)).await?)
    }

    async fn open(&mut self, options: OpenOptions) -> Result<Arc<dyn Volume>, Box<dyn Error>> {
        self.epoch += 1;
        loop {
            match FileVolume::open(self.path, ID, VolumeEpoch(self.epoch), options).await {
                // The handle before is about to be gone.
                Err(OpenError::Locked) => tokio::task::yield_now().await,
                other => return Ok(other?.finish().await?),
            }
        }
    }
}

fn show(size: usize, depth: usize, file: &str, measured: Measured) {
    let Measured { bytes, elapsed, mut latencies } = measured;
    latencies.sort_unstable();
    let rate = bytes as f64 / elapsed.as_secs_f64() / 1e6;
    let at = |share: f64| ms(latencies[(latencies.len() as f64 * share) as usize]);
    println!("{size:9}  {depth:5}  {file:10}  {rate:8.1} {:8.3} {:8.3}", at(0.5), at(0.99));
}

/// One frame; whether there was room.
async fn append(volume: &Arc<dyn Volume>, payload: usize) -> Result<bool, Box<dyn Error>> {
    match volume.append(filled(payload)) {
        Ok(ticket) => ticket.await.map(|_| Ok(true))?,
        Err(AppendError::Full(_)) => Ok(false),
        Err(other) => Err(other.into()),
    }
}

fn filled(payload: usize) -> FrameBuf {
    const BLOCK: [u8; 4096] = [0x5a; 4096];
    let mut frame = FrameBuf::with_capacity(payload);
    let mut left = payload;
    while left > 0 && frame.push(&BLOCK[..left.min(BLOCK.len())]).is_ok() {
        left -= left.min(BLOCK.len());
    }
    frame
}

struct Measured {
    bytes: u64,
    elapsed: Duration,
    latencies: Vec<Duration>,
}

/// Keeps `depth` frames in flight for a time; for 64 frames if it is zero.
async fn run(
    volume: &Arc<dyn Volume>,
    payload: usize,
    depth: usize,
    time: Duration,
) -> Result<Measured, Box<dyn Error>> {
    let mut pending: VecDeque<(Instant, Ticket)> = VecDeque::new();
    let mut latencies = Vec::new();
    let mut bytes = 0;
    let start = Instant::now();
    while start.elapsed() < time || (time.is_zero() && latencies.len() < 64) {
        if pending.len() < depth {
            let begun = Instant::now();
            match volume.append(filled(payload)) {
                Ok(ticket) => {
                    pending.push_back((begun, ticket));
                    continue;
                }
                // In real life the bucket has it by now.
                Err(AppendError::Full(_)) => volume.trim(volume.usage().durable, 0).await?,
                Err(AppendError::Busy(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        if let Some((begun, ticket)) = pending.pop_front() {
            bytes += ticket.await?.payload.len() as u64;
            latencies.push(begun.elapsed());
        }
    }
    for (_, ticket) in pending {
        bytes += ticket.await?.payload.len() as u64;
    }
    Ok(Measured { bytes, elapsed: start.elapsed(), latencies })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
