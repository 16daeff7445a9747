//! How fast an object volume appends, and what it asks of its bucket: latencies of single appends and of a
//! steady 20 MiB/s, and requests per GiB.
//!
//! Usage: `cargo run --release -p sluice-volume --example object -- DIRECTORY [SECONDS]`, or `s3://BUCKET`
//! in the place of the directory, with endpoint and credentials in the `AWS_` variables.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use sluice_model::{Entropy, VolumeEpoch, VolumeId};
use sluice_volume::{FrameBuf, ObjectOptions, ObjectVolume, OpenOptions};
use tokio::time::{Instant, interval, sleep};

const ID: VolumeId = VolumeId(1);
/// The steady load: one frame in each tick.
const TICK: Duration = Duration::from_millis(10);
const FRAME_BYTES: usize = 20 * (1 << 20) / 100;

/// Numbers that differ; good enough for jitter and one opener.
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        for part in out.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            part.copy_from_slice(&next.to_le_bytes()[..part.len()]);
        }
    }
}

#[tokio::main(flavor = "multi_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let bucket = arguments.next().ok_or("name a directory, or s3://BUCKET")?;
    let seconds = arguments.next().map_or(Ok(10), |seconds| seconds.parse())?;
    let store: Arc<dyn ObjectStore> = match bucket.strip_prefix("s3://") {
        Some(name) => Arc::new(
            AmazonS3Builder::from_env().with_bucket_name(name).with_allow_http(true).build()?,
        ),
        None => Arc::new(LocalFileSystem::new_with_prefix(&bucket)?.with_fsync(true)),
    };
    for linger_ms in [0, 100] {
        let linger = Duration::from_millis(linger_ms);
        measure(Arc::clone(&store), linger, Duration::from_secs(seconds)).await?;
    }
    Ok(())
}

async fn measure(
    store: Arc<dyn ObjectStore>,
    linger: Duration,
    time: Duration,
) -> Result<(), Box<dyn Error>> {
    let directory = format!("bench/{}-{}", std::process::id(), linger.as_millis());
    let entropy = Arc::new(Counting(AtomicU64::new(u64::from(std::process::id()))));
    let options = ObjectOptions { linger, ..ObjectOptions::default() };
    let place = ObjectVolume::new(store, &directory, 1 << 30, entropy, options);
    place.create(ID, [1; 16]).await?;
    let opened = place.open(ID, VolumeEpoch(1), OpenOptions::default()).await?;
    let volume = opened.finish().await?;

    let mut alone = Vec::new();
    for _ in 0..50 {
        sleep(linger).await;
        let begun = Instant::now();
        volume.append(filled(1024)).map_err(|error| error.to_string())?.await?;
        alone.push(begun.elapsed());
    }
    show("alone, 1 KiB", linger, &mut alone);

    let costs = place.costs();
    let (puts, bytes) =
        (costs.puts.load(Ordering::Relaxed), costs.put_bytes.load(Ordering::Relaxed));
    let (begun, mut ticks, mut pending) = (Instant::now(), interval(TICK), Vec::new());
    let mut refused = 0;
    while begun.elapsed() < time {
        ticks.tick().await;
        let at = Instant::now();
        match volume.append(filled(FRAME_BYTES)) {
            Ok(ticket) => {
                pending.push(tokio::spawn(async move { ticket.await.map(|_| at.elapsed()) }));
            }
            Err(_) => refused += 1,
        }
        if volume.usage().free_bytes < 1 << 29 {
            // In real life a segment has it by now.
            volume.trim(volume.usage().durable, 0).await?;
        }
    }
    let mut latencies = Vec::new();
    for frame in pending {
        latencies.push(frame.await??);
    }
    show("at 20 MiB/s", linger, &mut latencies);
    let gib = (costs.put_bytes.load(Ordering::Relaxed) - bytes) as f64 / f64::from(1 << 30);
    let puts = (costs.puts.load(Ordering::Relaxed) - puts) as f64;
    println!("  {:.0} PUT/GiB, {gib:.2} GiB put, {refused} frames refused", puts / gib);
    volume.close().await?;
    Ok(())
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

fn show(what: &str, linger: Duration, latencies: &mut [Duration]) {
    latencies.sort_unstable();
    let at = |share: f64| latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e3;
    let (linger_ms, p50, p99) = (linger.as_millis(), at(0.5), at(0.99));
    println!("linger {linger_ms} ms, {what}: p50 {p50:.1} ms, p99 {p99:.1} ms");
}
