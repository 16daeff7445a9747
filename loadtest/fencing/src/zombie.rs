//! An owner's host that does not know when to stop: raw writes, with nothing of the volume code in between.
//! Before the fence they go where no volume looks. From the first that is refused on they go everywhere,
//! and each of them must be refused too.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::image;

/// A block of zeros between the superblocks.
const HARMLESS: u64 = 8 << 10;

/// What marks its blocks.
pub(crate) const MARK: &[u8] = b"written by a zombie, number ";

/// `EBADE`: the block layer's word for a reservation conflict.
const FENCED: i32 = 52;

pub(crate) struct Zombie {
    stop: watch::Sender<bool>,
    refused: watch::Receiver<u64>,
    task: JoinHandle<anyhow::Result<Writes>>,
}

/// What became of its writes.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// Those that were done, all of them before the first that was refused.
    pub(crate) done: u64,
    pub(crate) refused: u64,
    /// Refused otherwise than with EBADE, which is for writes that were in flight.
    pub(crate) otherwise: u64,
}

impl Zombie {
    /// Starts to write to the device at `path`.
    pub(crate) fn start(path: &Path) -> anyhow::Result<Self> {
        let device = image::open(path)?;
        let (stop, stopped) = watch::channel(false);
        let (count, refused) = watch::channel(0);
        let task = tokio::spawn(run(device, stopped, count));
        Ok(Self { stop, refused, task })
    }

    /// Waits until so many of its writes were refused.
    pub(crate) async fn refused(&mut self, writes: u64) -> anyhow::Result<()> {
        self.refused.wait_for(|refused| *refused >= writes).await?;
        Ok(())
    }

    /// Ends it. An error if any write was done after one was refused.
    pub(crate) async fn end(mut self) -> anyhow::Result<Writes> {
        self.stop.send_replace(true);
        (&mut self.task).await?
    }
}

impl Drop for Zombie {
    /// A scenario that fails leaves none behind.
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    device: Arc<File>,
    stopped: watch::Receiver<bool>,
    count: watch::Sender<u64>,
) -> anyhow::Result<Writes> {
    let mut writes = Writes::default();
    while !*stopped.borrow() {
        let number = writes.done + writes.refused;
        // Both superblocks, and every part of the ring.
        let offset = match (writes.refused, number % 8) {
            (0, _) => HARMLESS,
            (_, 0) => 0,
            (_, 1) => 32 << 10,
            _ => (64 << 10) + number.wrapping_mul(0x9e37_79b9) % 4096 * 4096,
        };
        let text = [MARK, number.to_string().as_bytes()].concat();
        match image::write(&device, offset, &text).await {
            Ok(()) => {
                ensure!(
                    writes.refused == 0,
                    "a raw write at {offset} landed, after {} had been refused",
                    writes.refused
                );
                writes.done += 1;
            }
            Err(error) => {
                writes.refused += 1;
                writes.otherwise += u64::from(error.raw_os_error() != Some(FENCED));
                count.send_replace(writes.refused);
                ensure!(
                    error.kind() != io::ErrorKind::InvalidInput,
                    "the zombie is broken: {error}"
                );
            }
        }
        sleep(Duration::from_micros(500)).await;
    }
    Ok(writes)
}
