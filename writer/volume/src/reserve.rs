//! Fencing of block devices by persistent reservation: who may write is decided by the device itself, so
//! that an owner that lost the volume cannot write however late it wakes up.
//!
//! [`fence`] runs a `claim` on a device, between opening it and reading its log. What follows from
//! it, on which kind of device, is in `docs/fencing.md`.
//!
//! What always holds: the caller has the device open alone on its host (exclusively, which the kernel
//! sees to across names, containers and mounts) from before the claim until its last write has ended. An
//! owner never registers again: who met a fence takes a new epoch. A reservation is never given back,
//! not at a clean close either: a stalled owner of before could wake up and write.

mod claim;

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use sluice_device::reservation::{self, ReservationError};
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::time::{Instant, sleep};

use crate::error::OpenError;
use crate::geometry::BLOCK;
use crate::local::{StillOurs, read_at};
use crate::superblock::{NotASuperblock, SLOT_OFFSETS, Superblock};
use claim::{Answer, Claim, End, Key, Over, Step};

/// How long after which a write that a device has accepted has surely ended: Linux itself gives up a
/// command after 30 seconds.
const DRAIN: Duration = Duration::from_secs(30);

/// Whether block devices are fenced by persistent reservation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reservations {
    /// Where the device has them; else a warning, and only the lock of this host and the epoch.
    #[default]
    Auto,
    /// On every device, or it is not opened. What a device that several hosts share needs.
    Require,
    /// Never.
    Off,
}

/// Makes the device of volume `id` this owner's alone under `epoch`: when it returns, no write of an
/// older owner can land any more. `device` is open for writing, exclusively. Gives the question whether
/// that still holds, for errors that leave it open; `None` where nothing but the lock is held.
pub(crate) async fn fence(
    device: &Arc<File>,
    id: VolumeId,
    epoch: VolumeEpoch,
    policy: Reservations,
) -> Result<Option<StillOurs>, OpenError> {
    if policy == Reservations::Off {
        return Ok(None);
    }
    let found = current(device).await?;
    found.admit(id, epoch)?;
    let start = Instant::now();
    let mut claim = Claim::new(epoch, found.epoch);
    let mut failure = None;
    let end = loop {
        let step = claim.step();
        let answer = match step {
            Step::End(end) => break end,
            Step::Drain => {
                tracing::warn!(
                    volume = %id,
                    wait_s = DRAIN.as_secs(),
                    "nobody saw the end of the last owner's writes: waiting for what may be under way"
                );
                sleep(DRAIN).await;
                Answer::Done
            }
            step => {
                let device = Arc::clone(device);
                let done = move || perform(&device, &found.uuid, epoch, step);
                let done = tokio::task::spawn_blocking(done).await.map_err(io::Error::other)?;
                done.unwrap_or_else(|error| {
                    let answer = answer_of(&error);
                    failure = Some(error);
                    answer
                })
            }
        };
        let at_us = start.elapsed().as_micros();
        tracing::debug!(volume = %id, ?step, ?answer, at_us, "claiming a device");
        claim.answer(answer);
    };
    let failure = failure.map_or_else(|| io::ErrorKind::Other.into(), io::Error::other);
    match end {
        End::Owner => {
            let took_us = start.elapsed().as_micros();
            tracing::info!(volume = %id, epoch = epoch.0, took_us, "device reserved");
            Ok(Some(still_ours(Arc::clone(device), Key::new(&found.uuid, epoch))))
        }
        End::Held => {
            current(device).await?.admit(id, epoch)?;
            Err(OpenError::Reserved)
        }
        End::Unsupported if policy == Reservations::Auto => {
            tracing::warn!(
                volume = %id,
                reason = %failure,
                "the device cannot be fenced: a lock keeps out the other processes of this host, nothing \
                 keeps out other hosts"
            );
            Ok(None)
        }
        End::Unsupported => Err(OpenError::NoReservations(failure)),
        End::Failed => Err(OpenError::Io(failure)),
    }
}

/// The superblock that counts.
async fn current(device: &Arc<File>) -> Result<Superblock, OpenError> {
    let device = Arc::clone(device);
    let read = tokio::task::spawn_blocking(move || read_current(&device));
    read.await.map_err(io::Error::other)??.map_err(NotASuperblock::refusal)
}

fn read_current(device: &File) -> io::Result<Result<Superblock, NotASuperblock>> {
    let a = read_at(device, SLOT_OFFSETS[0], BLOCK)?;
    let b = read_at(device, SLOT_OFFSETS[1], BLOCK)?;
    Ok(Superblock::choose([&a, &b]))
}

/// Does a step on the device, and waits for it.
fn perform(
    device: &File,
    uuid: &[u8; 16],
    epoch: VolumeEpoch,
    step: Step,
) -> Result<Answer, ReservationError> {
    let key = |of| Key::new(uuid, of).0;
    let own = key(epoch);
    match step {
        Step::Register(Over::Nothing) => reservation::register(device, own)?,
        Step::Register(Over::Epoch(before)) => reservation::replace(device, key(before), own)?,
        Step::Take | Step::Hold => reservation::reserve(device, own)?,
        Step::Preempt(victim) => reservation::preempt_and_abort(device, own, key(victim))?,
        Step::ReadStored => match read_current(device).map_err(ReservationError::Io)? {
            Ok(found) => return Ok(Answer::Stored(found.epoch)),
            Err(why) => return Err(ReservationError::Io(io::Error::other(why.refusal()))),
        },
        Step::Drain | Step::End(_) => {}
    }
    Ok(Answer::Done)
}

fn answer_of(error: &ReservationError) -> Answer {
    match error {
        ReservationError::Conflict => Answer::Conflict,
        ReservationError::Unsupported(_) | ReservationError::Forbidden(_) => Answer::Unsupported,
        ReservationError::Status(_) | ReservationError::Io(_) => Answer::Failed,
    }
}

/// Whether the reservation is still this owner's. The device says yes to the holder, and conflict to
/// whom it does not know any more; asking changes nothing either way.
fn still_ours(device: Arc<File>, key: Key) -> StillOurs {
    Box::new(move || match reservation::reserve(&*device, key.0) {
        Ok(()) => Ok(true),
        Err(ReservationError::Conflict) => Ok(false),
        Err(error) => Err(io::Error::other(error)),
    })
}

#[cfg(test)]
mod model;
