//! What must hold when a volume changes hands. Each scenario leaves the volume to the next, with all its
//! frames.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use sluice_device::reservation::{self, ReservationError};
use sluice_model::VolumeEpoch;
use sluice_volume::{
    BlockOptions, BlockVolume, Engine, Medium, OpenError, OpenOptions, RecoveredFrame,
    Reservations, Volume,
};
use tokio::time::Instant;

use crate::image;
use crate::load::{Load, Told, append};
use crate::rig::{Host, ID, Rig, UUID, drain, number, options};
use crate::zombie::{MARK, Zombie};

type Scenario = for<'a> fn(&'a mut Rig) -> Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

const ALL: &[(&str, Scenario)] = &[
    ("a new volume is reserved", |rig| Box::pin(new_volume(rig))),
    ("takeover from A to B at depth 32", |rig| Box::pin(takeover(rig, Host::A, Engine::Uring))),
    ("takeover back from B to A", |rig| Box::pin(takeover(rig, Host::B, Engine::Uring))),
    ("takeover from A to B, by threads", |rig| Box::pin(takeover(rig, Host::A, Engine::Threads))),
    ("takeover from B to A, again", |rig| Box::pin(takeover(rig, Host::B, Engine::Uring))),
    ("an old epoch opens nothing", |rig| Box::pin(old_epoch(rig))),
    ("a claimant that stalled after it registered", |rig| Box::pin(stalled(rig))),
    ("a clean close keeps older owners out", |rig| Box::pin(clean_close(rig))),
    ("an owner that begins anew on its host", |rig| Box::pin(anew(rig))),
    ("the device tells an owner from one that was fenced", |rig| Box::pin(still_ours(rig))),
    ("a device without reservations", |rig| Box::pin(plain(rig))),
];

/// Runs them all; how many failed.
pub(crate) async fn all(mut rig: Rig) -> usize {
    let mut failed = 0;
    for (name, scenario) in ALL {
        let start = Instant::now();
        match scenario(&mut rig).await {
            Ok(()) => println!("ok {}: {name} ({} ms)", rig.name, start.elapsed().as_millis()),
            Err(error) => {
                println!("FAILED {}: {name}: {error:#}", rig.name);
                failed += 1;
            }
        }
    }
    failed
}

async fn new_volume(rig: &mut Rig) -> anyhow::Result<()> {
    rig.medium(Host::A).create(ID, UUID).await?;
    let volume = open(rig, Host::A, Engine::Uring).await?;
    for _ in 0..10 {
        append(&volume, rig.next)?.await?;
        rig.next += 1;
    }
    let other = image::open(rig.path(Host::B))?;
    let refused = image::write(&other, 8 << 10, b"no claimant").await;
    ensure!(refused.is_err(), "a host that claimed nothing could write");
    volume.close().await?;
    Ok(())
}

/// Opens the volume under the next epoch, and reads it back.
async fn open(rig: &mut Rig, host: Host, engine: Engine) -> anyhow::Result<Arc<dyn Volume>> {
    let epoch = rig.win();
    let mut recovery = rig.open(host, epoch, engine).await?;
    let frames = drain(&mut *recovery).await?;
    check_last(rig, &frames)?;
    Ok(recovery.finish().await?)
}

/// All that was appended before, to the last frame.
fn check_last(rig: &Rig, frames: &[RecoveredFrame]) -> anyhow::Result<()> {
    let next = match frames.last() {
        Some(last) => number(&last.payload)? + 1,
        None => 0,
    };
    ensure!(next == rig.next, "recovered up to frame {next}, not {}", rig.next);
    Ok(())
}

/// The owner on `from` is taken over in the middle of its work.
async fn takeover(rig: &mut Rig, from: Host, engine: Engine) -> anyhow::Result<()> {
    let to = from.other();
    let old = open(rig, from, engine).await?;
    let mut load = Load::start(old, rig.next);
    let mut zombie = Zombie::start(rig.path(from))?;
    load.acked(400).await?;

    let start = Instant::now();
    let epoch = rig.win();
    let mut recovery = rig.open(to, epoch, engine).await?;
    let fence_ms = start.elapsed().as_millis();
    let at_fence = image::read(rig.path(to)).await?;
    let start = Instant::now();
    let frames = drain(&mut *recovery).await?;
    let recover_ms = start.elapsed().as_millis();
    let trim = recovery.trim();
    let start = Instant::now();
    let volume = recovery.finish().await?;
    println!(
        "time {}: fence {fence_ms} ms, recover {recover_ms} ms ({} frames, {} KiB), finish {} ms",
        rig.name,
        frames.len(),
        frames.iter().map(|frame| frame.payload.len()).sum::<usize>() >> 10,
        start.elapsed().as_millis()
    );
    let told = load.fenced().await.context("the fenced owner")?;
    check_told(&told, &frames, trim.0)?;

    // The new owner works while the old one's host goes on.
    let last = frames.last().context("nothing was recovered")?;
    rig.next = number(&last.payload)? + 1;
    let head = volume.usage().head;
    let mut ours = Vec::new();
    for _ in 0..40 {
        let durable = append(&volume, rig.next)?.await?;
        ours.push((rig.next, durable));
        rig.next += 1;
    }
    zombie.refused(100).await?;
    let writes = zombie.end().await.context("the old owner's host")?;
    ensure!(writes.done > 0, "the old owner's host wrote nothing before the fence");
    for (expected, durable) in &ours {
        let found = number(&volume.read(durable.lsn).await?)?;
        ensure!(found == *expected, "the new owner's frame {expected} reads as {found}");
    }
    check_image(&at_fence, &image::read(rig.path(to)).await?, &volume, head.0)?;
    println!(
        "time {}: {} frames acknowledged before the fence, {} in flight at it; raw writes {writes:?}",
        rig.name,
        told.acked.len(),
        told.fenced
    );
    volume.close().await?;
    Ok(())
}

/// Everything that the old owner was told to be durable is there, where it was said to be.
fn check_told(told: &Told, frames: &[RecoveredFrame], trim: u64) -> anyhow::Result<()> {
    ensure!(trim <= told.trimmed.0, "trimmed at {trim}, asked for {} at most", told.trimmed.0);
    let kept = told.acked.range(sluice_volume::Lsn(trim)..);
    for (lsn, acked) in kept {
        let at = frames.binary_search_by_key(lsn, |frame| frame.lsn);
        let Ok(at) = at else { bail!("acknowledged frame {acked} at {} is lost", lsn.0) };
        let found = number(&frames[at].payload)?;
        ensure!(found == *acked, "frame {found} lies where {acked} was acknowledged");
    }
    Ok(())
}

/// Since the fence nothing has changed on the device but what the new owner wrote: superblocks, and the
/// frames from `head` on.
fn check_image(
    before: &[u8],
    after: &[u8],
    volume: &Arc<dyn Volume>,
    head: u64,
) -> anyhow::Result<()> {
    let usage = volume.usage();
    let ring = usage.capacity_bytes;
    for offset in image::difference(before, after) {
        let superblock = offset == 0 || offset == 32 << 10;
        // How far behind the head, around the ring.
        let behind = offset.checked_sub(64 << 10).map(|at| (at + ring - head % ring) % ring);
        let ours = behind.is_some_and(|behind| behind < usage.head.0 - head);
        ensure!(superblock || ours, "the block at {offset} changed after the fence");
    }
    // What the zombie wrote before the fence lies in one place, where it is harmless.
    for (at, block) in after.chunks(image::BLOCK).enumerate() {
        let offset = at * image::BLOCK;
        ensure!(!block.starts_with(MARK) || offset == 8 << 10, "a raw write lies at {offset}");
    }
    Ok(())
}

async fn old_epoch(rig: &mut Rig) -> anyhow::Result<()> {
    let owner = open(rig, Host::B, Engine::Uring).await?;
    for old in [1, rig.epoch().0 - 1, rig.epoch().0] {
        match rig.open(Host::A, VolumeEpoch(old), Engine::Uring).await {
            Err(OpenError::Fenced { stored }) if stored == rig.epoch() => {}
            other => bail!("opening under epoch {old} gave {:?}", other.map(|_| "a recovery")),
        }
    }
    append(&owner, rig.next)?.await.context("the owner, afterwards")?;
    rig.next += 1;
    owner.close().await?;
    Ok(())
}

/// A claimant registers, stands still while a newer one takes over, and goes on with its claim.
async fn stalled(rig: &mut Rig) -> anyhow::Result<()> {
    let before = open(rig, Host::A, Engine::Uring).await?;
    before.close().await?;
    drop(before);
    let stalled = rig.win();
    let device = image::open(rig.path(Host::B))?;
    register(rig, Host::B, stalled).await?;
    let owner = open(rig, Host::A, Engine::Uring).await?;
    let late = image::write(&device, 8 << 10, b"late").await;
    ensure!(late.is_err(), "a claimant that was overtaken could write");
    match rig.open(Host::B, stalled, Engine::Uring).await {
        Err(OpenError::Fenced { .. }) => {}
        other => bail!("it went on and got {:?}", other.map(|_| "a recovery")),
    }
    // Registered only now, behind the newer one's back: it may not take the reservation.
    register(rig, Host::B, stalled).await?;
    conflict(reservation::reserve(&device, Rig::key(stalled)), "a late claimant's reserve")?;
    append(&owner, rig.next)?.await.context("the owner, afterwards")?;
    rig.next += 1;
    owner.close().await?;
    Ok(())
}

/// As a claim does first, whatever the host has registered.
async fn register(rig: &Rig, host: Host, epoch: VolumeEpoch) -> anyhow::Result<()> {
    let device = image::open(rig.path(host))?;
    let key = Rig::key(epoch);
    for old in (0..epoch.0).rev() {
        let answer = match old {
            0 => reservation::register(&device, key),
            old => reservation::replace(&device, Rig::key(VolumeEpoch(old)), key),
        };
        match answer {
            Err(ReservationError::Conflict) => {}
            other => return Ok(other?),
        }
    }
    bail!("the host has a registration that is not of this volume");
}

fn conflict(answer: Result<(), ReservationError>, what: &str) -> anyhow::Result<()> {
    match answer {
        Err(ReservationError::Conflict) => Ok(()),
        other => bail!("{what} gave {other:?}"),
    }
}

/// An owner stalls, is taken over, and the new one closes in good order: the old one stays out.
async fn clean_close(rig: &mut Rig) -> anyhow::Result<()> {
    let old = open(rig, Host::A, Engine::Uring).await?;
    let stale = image::open(rig.path(Host::A))?;
    let new = open(rig, Host::B, Engine::Uring).await?;
    append(&new, rig.next)?.await?;
    rig.next += 1;
    new.close().await?;
    drop(new);
    let before = image::read(rig.path(Host::B)).await?;
    ensure!(image::write(&stale, 0, b"stale").await.is_err(), "a stale raw write landed");
    // Its volume knows nothing yet: this is the write by which it learns.
    let ticket = append(&old, rig.next + 1_000_000)?;
    ensure!(ticket.await.is_err(), "the stalled owner's frame was acknowledged");
    let after = image::read(rig.path(Host::B)).await?;
    ensure!(image::difference(&before, &after).is_empty(), "the device changed");
    drop(old);
    open(rig, Host::A, Engine::Uring).await?.close().await?;
    Ok(())
}

/// A process ends without a close, and begins again on the same host.
async fn anew(rig: &mut Rig) -> anyhow::Result<()> {
    for _ in 0..3 {
        let owner = open(rig, Host::B, Engine::Uring).await?;
        for _ in 0..20 {
            append(&owner, rig.next)?.await?;
            rig.next += 1;
        }
    }
    Ok(())
}

/// The question that is asked after an error that may mean anything.
async fn still_ours(rig: &mut Rig) -> anyhow::Result<()> {
    let (a, b) = (image::open(rig.path(Host::A))?, image::open(rig.path(Host::B))?);
    let first = open(rig, Host::A, Engine::Uring).await?;
    let first_key = Rig::key(rig.epoch());
    reservation::reserve(&a, first_key).context("the owner asks")?;
    let second = open(rig, Host::B, Engine::Uring).await?;
    let second_key = Rig::key(rig.epoch());
    conflict(reservation::reserve(&a, first_key), "the fenced owner asks, and")?;
    reservation::reserve(&b, second_key).context("the new owner asks")?;
    append(&second, rig.next)?.await?;
    rig.next += 1;
    drop(first);
    second.close().await?;
    Ok(())
}

async fn plain(rig: &mut Rig) -> anyhow::Result<()> {
    let medium = Medium::Block { path: rig.plain.clone() };
    // The transport before left one there.
    let anew = BlockOptions { overwrite: true, ..BlockOptions::new(ID, UUID) };
    BlockVolume::create(&rig.plain, anew).await?;
    let epoch = rig.win();
    match medium.open(ID, epoch, options()).await {
        Err(OpenError::NoReservations(_)) => {}
        other => bail!("require gave {:?}", other.map(|_| "a recovery")),
    }
    for reservations in [Reservations::Auto, Reservations::Off] {
        let epoch = rig.win();
        let recovery = medium.open(ID, epoch, OpenOptions { reservations, ..options() }).await?;
        recovery.finish().await?.close().await?;
    }
    Ok(())
}
