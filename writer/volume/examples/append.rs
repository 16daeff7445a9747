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
    AppendError, CreateOptions, FileVolume, FrameBuf, OpenOptions, Ticket, Volume,
};
use tokio::time::Instant;

const ID: VolumeId = VolumeId(1);
const VOLUME_BYTES: u64 = 1 << 30;

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
    let start = Instant::now();
    FileVolume::create(path, CreateOptions::new(ID, [1; 16], VOLUME_BYTES)).await?;
    println!("created {} MiB in {:.1} ms", VOLUME_BYTES >> 20, ms(start.elapsed()));
    println!("frame KiB  depth  lap      MB/s   p50 ms   p99 ms");
    let mut epoch = 0;
    // The first lap alone, then everything on a file that has been written.
    for (size, depth, first_lap) in [(64, 1, true), (64, 8, true)].into_iter().chain(
        [4, 64, 1024].into_iter().flat_map(|size| [1, 8, 32].map(|depth| (size, depth, false))),
    ) {
        epoch += 1;
        let volume = open(path, epoch, depth).await?;
        if !first_lap && volume.usage().head.0 < VOLUME_BYTES {
            let fill = 1 << 20;
            while volume.usage().head.0 < VOLUME_BYTES {
                run(&volume, fill, 8.min(depth), Duration::ZERO).await?;
            }
        }
        let payload = size * 1024 - 64;
        let Measured { bytes, elapsed, mut latencies } = run(&volume, payload, depth, time).await?;
        latencies.sort_unstable();
        let rate = bytes as f64 / elapsed.as_secs_f64() / 1e6;
        let at = |share: f64| ms(latencies[(latencies.len() as f64 * share) as usize]);
        let lap = if first_lap { "first" } else { "later" };
        println!("{size:9}  {depth:5}  {lap}  {rate:8.1} {:8.3} {:8.3}", at(0.5), at(0.99));
        volume.close().await?;
    }
    epoch += 1;
    let volume = open(path, epoch, 8).await?;
    while append(&volume, 256 << 10).await? {}
    let used = volume.usage().capacity_bytes - volume.usage().free_bytes;
    drop(volume);
    epoch += 1;
    let start = Instant::now();
    let volume = open(path, epoch, 8).await?;
    println!("recovered {} MiB in {:.0} ms", used >> 20, ms(start.elapsed()));
    volume.close().await?;
    Ok(())
}

async fn open(path: &Path, epoch: u32, depth: usize) -> Result<Arc<dyn Volume>, Box<dyn Error>> {
    let options = OpenOptions { queue_depth: depth, ..OpenOptions::default() };
    loop {
        match FileVolume::open(path, ID, VolumeEpoch(epoch), options).await {
            // The handle before is about to be gone.
            Err(sluice_volume::OpenError::Locked) => tokio::task::yield_now().await,
            other => return Ok(other?.finish().await?),
        }
    }
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
