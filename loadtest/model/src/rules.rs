//! What must hold after each step: the design's invariants 3 to 6, as far as clients, readers and owners can see
//! them, and that nothing that was acknowledged is lost. None of them looks at how it is brought about.

use crate::world::{Commit, Flight, Model, Place, Volume, World};

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// 1: an acknowledged record is where it was, in the bucket or else in the log.
    AcknowledgedIsKept,
    /// 3: of all that is acknowledged under an epoch, all is one process's.
    OneOwnerAnEpoch,
    /// 3: along the log epochs never fall: an older owner's bytes come never after a newer one's.
    EpochsNeverFall,
    /// 3, in the bucket: once an owner serves, no manifest of an older one is created.
    NoOlderManifest,
    /// 4: the trim point is not past what the newest manifest holds.
    TrimmedAfterCommit,
    /// 5: a manifest names only objects that are there.
    WholeObjects,
    /// 5: a manifest's extents have no hole, and name nothing twice.
    Contiguous,
    /// 6: frames follow each other.
    Dense,
    /// 6: what an owner shows is not beyond what any newer owner began with.
    HighWatermark,
    /// What recovery refuses: a log that begins behind the manifests. It never happens by itself.
    Contradiction,
}

/// The first rule that does not hold in a state.
pub fn broken(model: &Model, world: &World) -> Option<Rule> {
    let volumes = &world.volumes[..model.volumes];
    world.broken.or_else(|| volumes.iter().find_map(of_volume))
}

fn of_volume(volume: &Volume) -> Option<Rule> {
    let Volume { device, bucket, history, .. } = volume;
    if device.trim > bucket.log.end {
        return Some(Rule::TrimmedAfterCommit);
    }
    let mut epoch = 0;
    for offset in 0..device.log.end.max(bucket.log.end) {
        let record = record_at(volume, offset)?;
        let of = history.epochs[usize::from(record) - 1];
        if of < epoch {
            return Some(Rule::EpochsNeverFall);
        }
        epoch = of;
    }
    let acknowledged = history.acknowledged.iter().enumerate().filter(|(_, end)| **end > 0);
    for (index, end) in acknowledged {
        if record_at(volume, end - 1) != Some(index as u8 + 1) {
            return Some(Rule::AcknowledgedIsKept);
        }
    }
    None
}

/// What a client that asks for an offset gets: the bucket first, the log behind it.
fn record_at(volume: &Volume, offset: u8) -> Option<u8> {
    volume.bucket.log.at(offset).or_else(|| volume.device.log.at(offset))
}

/// A manifest is about to be created.
pub fn of_commit(volume: &Volume, commit: &Commit) -> Option<Rule> {
    let newer = usize::from(commit.epoch) + 1;
    if volume.history.began.iter().skip(newer).any(Option::is_some) {
        return Some(Rule::NoOlderManifest);
    }
    let adds = commit.log.end > commit.base;
    if adds && commit.base != volume.bucket.log.end {
        return Some(Rule::Contiguous);
    }
    (adds && !commit.whole).then_some(Rule::WholeObjects)
}

/// A frame is about to land.
pub fn of_landing(volume: &Volume, flight: &Flight) -> Option<Rule> {
    (flight.lsn > volume.device.log.end).then_some(Rule::Dense)
}

/// Process `by` acknowledges a record under `epoch` and shows a high watermark.
pub fn of_acknowledgement(volume: &Volume, by: u8, epoch: u8, shown: u8) -> Option<Rule> {
    let history = &volume.history;
    if history.by[usize::from(epoch)].is_some_and(|other| other != by) {
        return Some(Rule::OneOwnerAnEpoch);
    }
    let newer = history.began.iter().skip(usize::from(epoch) + 1).flatten();
    newer.into_iter().any(|began| *began < shown).then_some(Rule::HighWatermark)
}

/// An owner begins to serve under `epoch` with this high watermark.
pub fn of_beginning(volume: &Volume, epoch: u8, begins: u8) -> Option<Rule> {
    let older = volume.history.shown.iter().take(usize::from(epoch));
    older.into_iter().any(|shown| *shown > begins).then_some(Rule::HighWatermark)
}

/// Whether a volume is served by whom the catalog says, and can go on: what must be reachable from everywhere.
pub fn is_served(volume: &Volume) -> bool {
    volume.processes.iter().any(|process| match process.place {
        Place::Serving(owner) => {
            let epoch = owner.known.epoch;
            epoch == volume.record.epoch
                && epoch == volume.device.fence
                && epoch == volume.bucket.epoch
        }
        _ => false,
    })
}
