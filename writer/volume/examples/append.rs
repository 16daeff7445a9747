//! One measurement of a file or block volume, as one line of JSON. `loadtest/bench/volume` runs it side by side
//! with fio on the same file, which is possible because each measurement leaves an empty, cleanly closed log:
//! what the ring holds then is of no meaning.
//!
//! ```text
//! append create PATH MIB                     a volume in a new file, all of it written once
//! append write  PATH KIB DEPTH SECONDS       appends frames of KIB, DEPTH in flight, to each volume;
//!               [--threads] [PATH ...]       the latency is from append to ticket
//! append recover PATH KIB                    fills the volume, crashes, and reads the log back
//! ```
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::collections::VecDeque;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sluice_model::{VolumeEpoch, VolumeId};
use sluice_volume::{
    AppendError, CreateOptions, Engine, FrameBuf, Medium, OpenError, OpenOptions, Ticket, Volume,
    inspect,
};
use tokio::time::Instant;

const ID: VolumeId = VolumeId(1);
const HEADER_BYTES: usize = 64;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let mut engine = Engine::Auto;
    let mut words = Vec::new();
    for word in std::env::args().skip(1) {
        match word.as_str() {
            "--threads" => engine = Engine::Threads,
            "--uring" => engine = Engine::Uring,
            _ => words.push(word),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match words[..] {
            ["create", path, mib] => create(path, mib.parse()?).await,
            ["write", path, kib, depth, seconds, ref more @ ..] => {
                let (frame_bytes, depth) = (kib.parse::<usize>()? * 1024, depth.parse()?);
                let time = Duration::from_secs_f64(seconds.parse()?);
                let paths: Vec<&str> = [path].into_iter().chain(more.iter().copied()).collect();
                write(&paths, Load { frame_bytes, depth, time, engine }).await
            }
            ["recover", path, kib] => recover(path, kib.parse::<usize>()? * 1024, engine).await,
            _ => {
                Err("usage: append create|write|recover PATH ... (see the head of its source)"
                    .into())
            }
        }
    })
}

fn medium(path: &str) -> Medium {
    let path = PathBuf::from(path);
    match path.starts_with("/dev") {
        true => Medium::Block { path },
        false => Medium::File { path, size_bytes: 0 },
    }
}

async fn create(path: &str, mib: u64) -> Outcome<()> {
    match medium(path) {
        Medium::File { path, .. } => {
            let options = CreateOptions::new(ID, [1; 16], mib << 20);
            sluice_volume::FileVolume::create(path, options).await?;
        }
        other => other.create(ID, [1; 16]).await?,
    }
    let volume = open(path, OpenOptions::default()).await?;
    let load = Load { frame_bytes: 1 << 20, depth: 8, time: Duration::MAX, engine: Engine::Auto };
    run(Arc::clone(&volume), load).await?;
    empty(&volume).await
}

/// Opens under the next epoch.
async fn open(path: &str, options: OpenOptions) -> Outcome<Arc<dyn Volume>> {
    let medium = medium(path);
    let current = inspect(&medium).await?.current.ok_or("not a volume")?;
    let epoch = VolumeEpoch(current.epoch.0 + 1);
    loop {
        match medium.open(ID, epoch, options).await {
            // The handle before is about to be gone.
            Err(OpenError::Locked) => tokio::task::yield_now().await,
            other => return Ok(other?.finish().await?),
        }
    }
}

/// Leaves a log that says nothing of what the ring holds.
async fn empty(volume: &Arc<dyn Volume>) -> Outcome<()> {
    volume.trim(volume.usage().durable, 0).await?;
    Ok(volume.close().await?)
}

async fn write(paths: &[&str], load: Load) -> Outcome<()> {
    let mut volumes = Vec::new();
    for path in paths {
        let options =
            OpenOptions { queue_depth: load.depth, engine: load.engine, ..OpenOptions::default() };
        volumes.push(open(path, options).await?);
    }
    let start = Instant::now();
    let runs: Vec<_> =
        volumes.iter().map(|volume| tokio::spawn(run(Arc::clone(volume), load))).collect();
    let mut latencies = Vec::new();
    for run in runs {
        latencies.extend(run.await??);
    }
    let elapsed = start.elapsed();
    for volume in &volumes {
        empty(volume).await?;
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    let bytes = latencies.len() * load.frame_bytes;
    println!(
        "{{\"mb_s\": {:.1}, \"p50_us\": {:.1}, \"p99_us\": {:.1}, \"frames\": {}}}",
        bytes as f64 / elapsed.as_secs_f64() / 1e6,
        at(0.5),
        at(0.99),
        latencies.len(),
    );
    Ok(())
}

async fn recover(path: &str, frame_bytes: usize, engine: Engine) -> Outcome<()> {
    let options = OpenOptions { engine, ..OpenOptions::default() };
    let volume = open(path, options).await?;
    run(Arc::clone(&volume), Load { frame_bytes, depth: 8, time: Duration::MAX, engine }).await?;
    let used_bytes = volume.usage().capacity_bytes - volume.usage().free_bytes;
    drop(volume);
    let start = Instant::now();
    let volume = open(path, options).await?;
    let elapsed = start.elapsed();
    println!("{{\"recovered_mib\": {}, \"ms\": {:.0}}}", used_bytes >> 20, ms(elapsed));
    empty(&volume).await
}

#[derive(Clone, Copy)]
struct Load {
    frame_bytes: usize,
    depth: usize,
    /// Without an end, until the volume is full.
    time: Duration,
    engine: Engine,
}

fn filled(payload_bytes: usize) -> FrameBuf {
    static BLOCK: [u8; 65_536] = [0x5a; 65_536];
    let mut frame = FrameBuf::with_capacity(payload_bytes);
    let mut left = payload_bytes;
    while left > 0 && frame.push(&BLOCK[..left.min(BLOCK.len())]).is_ok() {
        left -= left.min(BLOCK.len());
    }
    frame
}

/// Keeps frames in flight for a time: the latency of each.
async fn run(volume: Arc<dyn Volume>, load: Load) -> Outcome<Vec<Duration>> {
    let payload_bytes = load.frame_bytes - HEADER_BYTES;
    let mut pending: VecDeque<(Instant, Ticket)> = VecDeque::new();
    let mut latencies = Vec::new();
    let start = Instant::now();
    while start.elapsed() < load.time {
        if pending.len() < load.depth {
            let frame = filled(payload_bytes);
            let begun = Instant::now();
            match volume.append(frame) {
                Ok(ticket) => {
                    pending.push_back((begun, ticket));
                    continue;
                }
                Err(AppendError::Full(_)) if load.time == Duration::MAX => break,
                // In real life the bucket has it by now.
                Err(AppendError::Full(_)) => volume.trim(volume.usage().durable, 0).await?,
                Err(AppendError::Busy(_)) => {}
                Err(other) => return Err(other.into()),
            }
        }
        if let Some((begun, ticket)) = pending.pop_front() {
            ticket.await?;
            latencies.push(begun.elapsed());
        }
    }
    for (begun, ticket) in pending {
        ticket.await?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
