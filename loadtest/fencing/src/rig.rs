//! The volume that all scenarios share, and what is known of it: the next epoch, and the next number that
//! a frame carries. Frames are numbered over all owners, so that a gap or a change of order shows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sluice_model::{VolumeEpoch, VolumeId};
use sluice_volume::{Engine, Medium, OpenError, OpenOptions, RecoveredFrame, Recovery};
use tokio::time::{Instant, sleep};

pub(crate) const ID: VolumeId = VolumeId(3);
pub(crate) const UUID: [u8; 16] = *b"the rig's volume";

/// How long a host's last owner may take to let go of the device.
const LET_GO: Duration = Duration::from_secs(10);

/// One of the two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    A,
    B,
}

impl Host {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

pub(crate) struct Rig {
    pub(crate) name: String,
    paths: [PathBuf; 2],
    pub(crate) plain: PathBuf,
    /// The last epoch that was given out.
    epoch: u32,
    /// The number of the next frame.
    pub(crate) next: u64,
}

impl Rig {
    pub(crate) fn new(name: &str, paths: [PathBuf; 2], plain: PathBuf) -> Self {
        Self { name: name.to_owned(), paths, plain, epoch: 0, next: 0 }
    }

    pub(crate) fn path(&self, host: Host) -> &Path {
        &self.paths[usize::from(host == Host::B)]
    }

    pub(crate) fn medium(&self, host: Host) -> Medium {
        Medium::Block { path: self.path(host).to_owned() }
    }

    /// What the catalog does: an epoch that nobody had before.
    pub(crate) fn win(&mut self) -> VolumeEpoch {
        self.epoch += 1;
        VolumeEpoch(self.epoch)
    }

    /// The last epoch that was won.
    pub(crate) fn epoch(&self) -> VolumeEpoch {
        VolumeEpoch(self.epoch)
    }

    /// The key that `docs/fencing.md` gives an epoch.
    pub(crate) fn key(epoch: VolumeEpoch) -> u64 {
        let tag = u64::from(u32::from_le_bytes([UUID[0], UUID[1], UUID[2], UUID[3]]));
        tag << 32 | u64::from(epoch.0)
    }

    /// Opens the volume on a host, as soon as the host's last owner has let go of it.
    pub(crate) async fn open(
        &self,
        host: Host,
        epoch: VolumeEpoch,
        engine: Engine,
    ) -> Result<Box<dyn Recovery>, OpenError> {
        let options = OpenOptions { engine, ..options() };
        let start = Instant::now();
        loop {
            match self.medium(host).open(ID, epoch, options).await {
                Err(OpenError::Locked) if start.elapsed() < LET_GO => {
                    sleep(Duration::from_millis(10)).await;
                }
                other => return other,
            }
        }
    }
}

/// Room for 32 frames at once; no zeros are written ahead, so that each write is a frame or a superblock.
pub(crate) fn options() -> OpenOptions {
    OpenOptions {
        queue_depth: 32,
        prewrite_bytes: 0,
        reservations: sluice_volume::Reservations::Require,
        ..OpenOptions::default()
    }
}

/// A frame's payload: its number, then bytes that follow from it, from 8 bytes to 24 KiB in all.
pub(crate) fn payload(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let len = (state >> 40) as usize % (24 << 10);
    let mut bytes = number.to_le_bytes().to_vec();
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// The number of a frame, if its payload is what belongs to it.
pub(crate) fn number(bytes: &[u8]) -> anyhow::Result<u64> {
    let head = bytes.first_chunk().context("a frame without a number")?;
    let number = u64::from_le_bytes(*head);
    ensure!(bytes == payload(number), "frame {number} does not carry what was appended");
    Ok(number)
}

/// Reads a recovery to its end: the frames, whose numbers have no gap.
pub(crate) async fn drain(recovery: &mut dyn Recovery) -> anyhow::Result<Vec<RecoveredFrame>> {
    let mut frames: Vec<RecoveredFrame> = Vec::new();
    let mut last = None;
    while let Some(frame) = recovery.next().await? {
        let number = number(&frame.payload)?;
        if let Some(last) = last
            && number != last + 1
        {
            bail!("frame {number} follows frame {last}");
        }
        last = Some(number);
        frames.push(frame);
    }
    Ok(frames)
}
