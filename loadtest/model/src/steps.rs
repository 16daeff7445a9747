//! What can happen next. Each step names the code that it stands for; whatever may be interrupted, delayed or
//! overtaken in that code is a step of its own here.

use crate::rules;
use crate::world::{
    Answer, Commit, Flight, Kind, Known, Log, Model, Owner, PROCESSES, Place, Policy, Process,
    Upload, Volume, World,
};

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something of one process and one volume.
    Does {
        /// Who.
        process: usize,
        /// With which volume.
        volume: usize,
        /// What.
        act: Act,
    },
    /// A process ends in the middle of everything: `kill -9`, or power loss. What it has sent is on its way. It
    /// may begin anew at any time.
    Crashes {
        /// Which.
        process: usize,
    },
    /// The catalog has not heard of a node for as long as its lease, `tenants/catalog/src/nodes.rs`. The node need
    /// not know, and need not be dead.
    LeaseEnds {
        /// Which.
        node: usize,
    },
    /// `nodes.rs`, `Keeper::keep`: it registers again.
    Registers {
        /// Which.
        node: usize,
    },
    /// Somebody, or the balancer, wants another node to own a volume.
    Wants {
        /// Which volume.
        volume: usize,
        /// Whom.
        node: u8,
    },
}

/// What a process does with a volume, or what becomes of what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Somebody decides to take it (`src/keeper.rs`, and who claims orphans), and `recovery.rs::claim` reads the
    /// epoch in its view of the catalog. The view may be old by the time of the claim.
    Looks,
    /// `Catalog::claim_volume`: compare the epoch, add one.
    Claims,
    /// `medium.open`: `volume/src/file.rs` takes the lock, `reserve.rs::fence` the reservation, `object/chain.rs`
    /// puts the seal; then the epoch is stored. It refuses an epoch that is not newer than the stored one.
    Fences,
    /// `recovery.rs::load`: the newest manifest, and whether the log's trim point is within it.
    Loads,
    /// `recovery.rs::announce_on` sends a manifest under the new epoch.
    Announces,
    /// `recovery.rs::announce` hears of it: loads again if an older owner was first, ends if a newer one was.
    HearsOfAnnouncement,
    /// `recovery.rs::take_over` reads the log, from the manifest's end on.
    Reads,
    /// `Recovery::finish` makes the end of the log final, and `ownership/take.rs` lets the volume be served.
    Serves,
    /// The take fails or takes too long: `take.rs::give_back`.
    FailsToTake,
    /// `task.rs` gives an offset and hands a frame to the device.
    Appends,
    /// The device does it.
    FrameLands,
    /// The owner hears that a frame is durable, advances the high watermark and acknowledges.
    Acknowledges,
    /// The device refuses the frame: the volume is lost (`ownership/loss.rs`).
    IsRefused,
    /// `loss.rs::fence_if_claimed`: it sees in the catalog that another has the volume.
    Learns,
    /// `upload/build.rs`: what is durable goes into a segment, which is put.
    Puts,
    /// `commit.rs::write` sends the manifest that names it.
    Commits,
    /// The bucket creates the manifest, or finds that its version is there already.
    ManifestArrives,
    /// `commit.rs` hears of it: the volume is lost if another owner's is there.
    HearsOfCommit,
    /// `upload/pipeline.rs::trim`, after the commit.
    Trims,
    /// `ownership/release.rs`: the volume is sealed.
    Leaves,
    /// `OwnedVolume::close`: what is in flight has ended, uploads are broken off, the device is let go of.
    Closes,
    /// `release.rs::give_up`: `Catalog::release_volume`.
    GivesUp,
}

/// Ways to break the protocol, one step each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A claim changes the owner and leaves the epoch, and devices admit the epoch that they know.
    ClaimsWithoutEpoch,
    /// Opening a device cuts nobody off.
    DoesNotFence,
    /// The log is read before the device is fenced.
    ReadsBeforeFence,
    /// The volume is served without a manifest under the new epoch.
    DoesNotAnnounce,
    /// An owner that finds a manifest of an older one takes the next number, and does not load it.
    AnnouncesOverUnread,
    /// The volume is trimmed when the segment is there, before the manifest.
    TrimsBeforeCommit,
    /// The manifest is sent before the segment is there.
    CommitsBeforePut,
    /// A frame is acknowledged when it is handed to the device.
    AcknowledgesInFlight,
    /// A frame that a fence refused is acknowledged all the same.
    ZombieAcknowledges,
    /// The high watermark of a new owner begins at what the bucket holds.
    ForgetsHighWatermark,
}

const ACTS: [Act; 22] = [
    Act::Looks,
    Act::Claims,
    Act::Fences,
    Act::Loads,
    Act::Announces,
    Act::HearsOfAnnouncement,
    Act::Reads,
    Act::Serves,
    Act::FailsToTake,
    Act::Appends,
    Act::FrameLands,
    Act::Acknowledges,
    Act::IsRefused,
    Act::Learns,
    Act::Puts,
    Act::Commits,
    Act::ManifestArrives,
    Act::HearsOfCommit,
    Act::Trims,
    Act::Leaves,
    Act::Closes,
    Act::GivesUp,
];

/// Every step that can be taken, and where it leads.
pub fn successors(model: &Model, world: &World, found: &mut Vec<(Step, World)>) {
    for volume in 0..model.volumes {
        for process in 0..model.nodes.len() {
            for act in ACTS {
                let mut next = *world;
                let mut at = At { model, world: &mut next, volume, process };
                if at.does(act).is_some() {
                    found.push((Step::Does { process, volume, act }, next));
                }
            }
        }
    }
    around(model, world, found);
}

/// What happens to processes and nodes, and what somebody wants.
fn around(model: &Model, world: &World, found: &mut Vec<(Step, World)>) {
    for process in 0..model.nodes.len() {
        let mut next = *world;
        let volumes = &mut next.volumes[..model.volumes];
        let alive = volumes.iter().any(|volume| volume.processes[process].place != Place::None);
        if alive && world.crashes > 0 {
            for volume in volumes {
                let fence = volume.device.fence;
                volume.processes[process].ends(model, fence);
            }
            next.crashes -= 1;
            found.push((Step::Crashes { process }, next));
        }
    }
    if model.policy == Policy::Anything {
        return;
    }
    for node in 0..PROCESSES {
        if !model.nodes.contains(&(node as u8)) {
            continue;
        }
        let mut next = *world;
        next.live[node] = !world.live[node];
        if !world.live[node] {
            found.push((Step::Registers { node }, next));
        } else if world.expiries > 0 {
            next.expiries -= 1;
            found.push((Step::LeaseEnds { node }, next));
        }
        for volume in 0..model.volumes {
            let mut next = *world;
            let record = &mut next.volumes[volume].record;
            let node = node as u8;
            if world.moves > 0 && record.wanted != Some(node) {
                record.wanted = Some(node);
                next.moves -= 1;
                found.push((Step::Wants { volume, node }, next));
            }
        }
    }
}

impl Process {
    /// It forgets the volume. What it has sent is on its way, unless nothing can come of it any more.
    fn ends(&mut self, model: &Model, fence: u8) {
        self.place = Place::None;
        self.early = Log::default();
        let can_land = |flight: &mut Flight| !flight.landed && flight.can_land(model, fence);
        self.flight.take_if(|flight| !can_land(flight));
        self.commit.take_if(|commit| commit.answer != Answer::None);
    }

    /// Whether it has the device open, or a write on it.
    fn holds_the_device(&self) -> bool {
        let open = !matches!(
            self.place,
            Place::None | Place::Looked { .. } | Place::Claimed { .. } | Place::Closed { .. }
        );
        open || self.flight.is_some()
    }

    /// The epoch under which it has the device open.
    fn epoch(&self) -> Option<u8> {
        match self.place {
            Place::None | Place::Looked { .. } | Place::Claimed { .. } | Place::Closed { .. } => {
                None
            }
            Place::Fenced { epoch } => Some(epoch),
            Place::Loaded(known) | Place::Announcing(known) | Place::Announced(known) => {
                Some(known.epoch)
            }
            Place::Recovered(owner) | Place::Serving(owner) | Place::Leaving(owner) => {
                Some(owner.known.epoch)
            }
        }
    }
}

impl Flight {
    /// Whether the device takes it. A file takes what its holder writes, and nobody else is the holder.
    fn can_land(&self, model: &Model, fence: u8) -> bool {
        let admits = model.kind == Kind::File || fence == self.epoch;
        admits || model.is(Mutation::DoesNotFence)
    }
}

/// A process at a volume.
struct At<'a> {
    model: &'a Model,
    world: &'a mut World,
    volume: usize,
    process: usize,
}

impl At<'_> {
    fn node(&self) -> u8 {
        self.model.nodes[self.process]
    }

    fn volume(&mut self) -> &mut Volume {
        &mut self.world.volumes[self.volume]
    }

    fn process(&mut self) -> &mut Process {
        let process = self.process;
        &mut self.volume().processes[process]
    }

    fn place(&mut self) -> &mut Place {
        &mut self.process().place
    }

    fn serving(&mut self) -> Option<&mut Owner> {
        match self.place() {
            Place::Serving(owner) => Some(owner),
            _ => None,
        }
    }

    /// Serving, or sealed with something in flight.
    fn owner(&mut self) -> Option<&mut Owner> {
        match self.place() {
            Place::Serving(owner) | Place::Leaving(owner) => Some(owner),
            _ => None,
        }
    }

    fn breaks(&mut self, rule: Option<rules::Rule>) {
        self.world.broken = self.world.broken.or(rule);
    }

    /// None, and the world is of no use, if it cannot happen now.
    fn does(&mut self, act: Act) -> Option<()> {
        match act {
            Act::Looks => self.looks(),
            Act::Claims => self.claims(),
            Act::Fences => self.fences(),
            Act::Loads => self.loads(),
            Act::Announces => self.announces(),
            Act::HearsOfAnnouncement => self.hears_of_announcement(),
            Act::Reads => self.reads(),
            Act::Serves => self.serves(),
            Act::FailsToTake => self.fails_to_take(),
            Act::Appends => self.appends(),
            Act::FrameLands => self.frame_lands(),
            Act::Acknowledges => self.acknowledges(),
            Act::IsRefused => self.is_refused(),
            Act::Learns => self.learns(),
            Act::Puts => self.puts(),
            Act::Commits => self.commits(),
            Act::ManifestArrives => self.manifest_arrives(),
            Act::HearsOfCommit => self.hears_of_commit(),
            Act::Trims => self.trims(),
            Act::Leaves => self.leaves(),
            Act::Closes => self.closes(),
            Act::GivesUp => self.gives_up(),
        }
    }

    fn looks(&mut self) -> Option<()> {
        let (node, live) = (self.node(), self.world.live);
        let is_live = |node: u8| live[usize::from(node)];
        let record = self.volume().record;
        let may = match self.model.policy {
            Policy::Anything => true,
            Policy::Orphans => match record.owner {
                Some(owner) => owner == node || !is_live(owner),
                // Whoever is wanted comes first, while it lives.
                None => record.wanted.is_none_or(|wanted| wanted == node || !is_live(wanted)),
            },
        };
        if !may || *self.place() != Place::None || record.epoch >= self.model.claims {
            return None;
        }
        *self.place() = Place::Looked { expected: record.epoch };
        Some(())
    }

    fn claims(&mut self) -> Option<()> {
        let Place::Looked { expected } = *self.place() else { return None };
        let node = self.node();
        let keeps_epoch = self.model.is(Mutation::ClaimsWithoutEpoch) && expected > 0;
        let Volume { record, device, .. } = self.volume();
        let log = device.log;
        if record.epoch != expected {
            *self.place() = Place::None;
            return Some(());
        }
        record.owner = Some(node);
        record.epoch += u8::from(!keeps_epoch);
        let epoch = record.epoch;
        *self.place() = Place::Claimed { epoch };
        if self.model.is(Mutation::ReadsBeforeFence) {
            self.process().early = log;
        }
        Some(())
    }

    fn fences(&mut self) -> Option<()> {
        let Place::Claimed { epoch } = *self.place() else { return None };
        if self.model.is(Mutation::DoesNotFence) {
            self.volume().device.fence = epoch;
            *self.place() = Place::Fenced { epoch };
            return Some(());
        }
        let is_held = self.volume().processes.iter().any(Process::holds_the_device);
        if self.model.kind == Kind::File && is_held {
            return None;
        }
        let stored = self.volume().device.fence;
        let admits_equal = self.model.is(Mutation::ClaimsWithoutEpoch);
        if stored > epoch || (stored == epoch && !admits_equal) {
            return self.fails_to_take();
        }
        let volume = self.volume();
        volume.device.fence = epoch;
        for process in &mut volume.processes {
            // What is on its way comes to nothing; whoever is still there will hear of it.
            let is_there = process.epoch();
            process
                .flight
                .take_if(|flight| flight.epoch != epoch && is_there != Some(flight.epoch));
        }
        *self.place() = Place::Fenced { epoch };
        Some(())
    }

    fn loads(&mut self) -> Option<()> {
        let Place::Fenced { epoch } = *self.place() else { return None };
        let Volume { bucket, device, .. } = *self.volume();
        let contradicts = device.trim > bucket.log.end;
        self.breaks(contradicts.then_some(rules::Rule::Contradiction));
        *self.place() =
            Place::Loaded(Known { epoch, version: bucket.version, end: bucket.log.end });
        Some(())
    }

    fn announces(&mut self) -> Option<()> {
        let Place::Loaded(known) = *self.place() else { return None };
        if self.model.is(Mutation::DoesNotAnnounce) {
            *self.place() = Place::Announced(known);
            return Some(());
        }
        if self.volume().bucket.epoch > known.epoch {
            return self.fails_to_take();
        }
        let log = Log::default();
        self.sends(known, log.end, log, true)?;
        *self.place() = Place::Announcing(known);
        Some(())
    }

    /// A manifest goes to the bucket.
    fn sends(&mut self, known: Known, base: u8, log: Log, whole: bool) -> Option<()> {
        let commit = &mut self.process().commit;
        if commit.is_some() {
            // One of a former life is still on its way. That one and this are told apart in runs in which this
            // life is another process.
            return None;
        }
        let (version, epoch) = (known.version + 1, known.epoch);
        *commit = Some(Commit { version, epoch, base, log, whole, answer: Answer::None });
        Some(())
    }

    fn manifest_arrives(&mut self) -> Option<()> {
        let commit = self.process().commit.filter(|commit| commit.answer == Answer::None)?;
        let is_awaited = self.process().epoch() == Some(commit.epoch);
        let bucket = self.volume().bucket;
        let answer = if commit.version == bucket.version + 1 {
            let rule = rules::of_commit(self.volume(), &commit);
            self.breaks(rule);
            let bucket = &mut self.volume().bucket;
            bucket.version = commit.version;
            bucket.epoch = commit.epoch;
            for offset in commit.base..commit.log.end {
                bucket.log.put(offset, commit.log.records[usize::from(offset)]);
            }
            Answer::Created
        } else {
            Answer::Exists(bucket.epoch)
        };
        // Its sender may be gone.
        self.process().commit = is_awaited.then_some(Commit { answer, ..commit });
        Some(())
    }

    /// The answer to the manifest that this life has sent.
    fn answer(&mut self) -> Option<Answer> {
        let epoch = self.process().epoch()?;
        let commit = self.process().commit?;
        if commit.epoch != epoch || commit.answer == Answer::None {
            return None;
        }
        self.process().commit = None;
        Some(commit.answer)
    }

    fn hears_of_announcement(&mut self) -> Option<()> {
        let Place::Announcing(known) = *self.place() else { return None };
        let next = Known { version: known.version + 1, ..known };
        *self.place() = match self.answer()? {
            Answer::Created => Place::Announced(next),
            Answer::Exists(other) if other < known.epoch => {
                match self.model.is(Mutation::AnnouncesOverUnread) {
                    true => Place::Loaded(next),
                    false => Place::Fenced { epoch: known.epoch },
                }
            }
            _ => return self.fails_to_take(),
        };
        Some(())
    }

    fn reads(&mut self) -> Option<()> {
        let Place::Announced(known) = *self.place() else { return None };
        let early = self.process().early;
        let log = match self.model.is(Mutation::ReadsBeforeFence) {
            true => early,
            false => self.volume().device.log,
        };
        let high_watermark = match self.model.is(Mutation::ForgetsHighWatermark) {
            true => known.end,
            false => log.end,
        };
        *self.place() =
            Place::Recovered(Owner { known, log, high_watermark, upload: Upload::Idle });
        Some(())
    }

    fn serves(&mut self) -> Option<()> {
        let Place::Recovered(owner) = *self.place() else { return None };
        let Known { epoch, .. } = owner.known;
        if self.is_cut_off(epoch) {
            return self.fails_to_take();
        }
        let rule = rules::of_beginning(self.volume(), epoch, owner.high_watermark);
        self.breaks(rule);
        self.volume().history.began[usize::from(epoch)] = Some(owner.high_watermark);
        *self.place() = Place::Serving(owner);
        Some(())
    }

    /// Whether the device would refuse a write under this epoch.
    fn is_cut_off(&mut self, epoch: u8) -> bool {
        let fence = self.volume().device.fence;
        fence != epoch && !self.model.is(Mutation::DoesNotFence)
    }

    fn fails_to_take(&mut self) -> Option<()> {
        let epoch = match *self.place() {
            Place::Claimed { epoch } => epoch,
            Place::Recovered(owner) => owner.known.epoch,
            Place::Serving(_) | Place::Leaving(_) => return None,
            _ => self.process().epoch()?,
        };
        self.ends_here(Some(epoch));
        Some(())
    }

    /// The volume is not served here any more; the ownership is given back, if it is one.
    fn ends_here(&mut self, give_back: Option<u8>) {
        let (model, node) = (self.model, self.node());
        let fence = self.volume().device.fence;
        self.process().ends(model, fence);
        let record = &mut self.volume().record;
        if give_back == Some(record.epoch) && record.owner == Some(node) {
            record.owner = None;
        }
    }

    fn appends(&mut self) -> Option<()> {
        let most = self.model.records;
        let process = self.process as u8;
        let history = self.volume().history;
        if self.process().flight.is_some() || history.appended >= most {
            return None;
        }
        let owner = self.serving()?;
        let (epoch, lsn) = (owner.known.epoch, owner.log.end);
        if usize::from(lsn) >= owner.log.records.len() {
            return None;
        }
        let record = history.appended + 1;
        owner.log.put(lsn, record);
        self.process().flight = Some(Flight { epoch, lsn, record, landed: false });
        let history = &mut self.volume().history;
        history.appended = record;
        history.epochs[usize::from(record) - 1] = epoch;
        if self.model.is(Mutation::AcknowledgesInFlight) {
            self.tells(process, epoch, lsn, record);
        }
        Some(())
    }

    fn frame_lands(&mut self) -> Option<()> {
        let flight = self.process().flight.filter(|flight| !flight.landed)?;
        let (model, kind) = (self.model, self.model.kind);
        let is_there = self.process().epoch() == Some(flight.epoch);
        let rule = rules::of_landing(self.volume(), &flight);
        let device = &mut self.volume().device;
        if !flight.can_land(model, device.fence) {
            return None;
        }
        // Behind a seal lies nothing; on a disk it lands where its owner put it.
        if kind != Kind::Object || flight.lsn >= device.log.end {
            device.log.put(flight.lsn, flight.record);
            self.breaks(rule);
        }
        self.process().flight = is_there.then_some(Flight { landed: true, ..flight });
        Some(())
    }

    fn acknowledges(&mut self) -> Option<()> {
        let process = self.process as u8;
        let flight = self.process().flight.filter(|flight| flight.landed)?;
        let owner = self.owner()?;
        owner.high_watermark = owner.high_watermark.max(flight.lsn + 1);
        self.process().flight = None;
        self.tells(process, flight.epoch, flight.lsn, flight.record);
        Some(())
    }

    /// A producer gets its answer, and consumers the record.
    fn tells(&mut self, by: u8, epoch: u8, offset: u8, record: u8) {
        let shown = offset + 1;
        let rule = rules::of_acknowledgement(self.volume(), by, epoch, shown);
        self.breaks(rule);
        let history = &mut self.volume().history;
        history.acknowledged[usize::from(record) - 1] = shown;
        history.by[usize::from(epoch)] = Some(by);
        let most = &mut history.shown[usize::from(epoch)];
        *most = shown.max(*most);
    }

    fn is_refused(&mut self) -> Option<()> {
        let model = self.model;
        let fence = self.volume().device.fence;
        let flight = self.process().flight.filter(|flight| !flight.landed)?;
        let owner = *self.owner()?;
        if flight.can_land(model, fence) {
            return None;
        }
        if self.model.is(Mutation::ZombieAcknowledges) {
            self.tells(self.process as u8, flight.epoch, flight.lsn, flight.record);
        }
        self.ends_here(Some(owner.known.epoch));
        Some(())
    }

    fn learns(&mut self) -> Option<()> {
        let now = self.volume().record.epoch;
        let epoch = self.serving()?.known.epoch;
        if now <= epoch {
            return None;
        }
        self.ends_here(None);
        Some(())
    }

    fn puts(&mut self) -> Option<()> {
        let trims = self.model.is(Mutation::TrimsBeforeCommit);
        let owner = self.serving()?;
        if owner.upload != Upload::Idle || owner.high_watermark <= owner.known.end {
            return None;
        }
        let upto = owner.high_watermark;
        owner.upload = Upload::Put { upto };
        if trims {
            self.volume().device.trim = upto;
        }
        Some(())
    }

    fn commits(&mut self) -> Option<()> {
        let blindly = self.model.is(Mutation::CommitsBeforePut);
        let owner = *self.serving()?;
        let upto = match owner.upload {
            Upload::Put { upto } => upto,
            Upload::Idle if blindly && owner.high_watermark > owner.known.end => {
                owner.high_watermark
            }
            _ => return None,
        };
        let log = Log { end: upto, ..owner.log };
        self.sends(owner.known, owner.known.end, log, owner.upload != Upload::Idle)?;
        self.serving()?.upload = Upload::Committing;
        Some(())
    }

    fn hears_of_commit(&mut self) -> Option<()> {
        let sent = self.process().commit?;
        if self.serving()?.upload != Upload::Committing {
            return None;
        }
        match self.answer()? {
            Answer::Created => {
                let owner = self.serving()?;
                owner.known.version += 1;
                owner.known.end = sent.log.end;
                owner.upload = Upload::Committed;
            }
            _ => self.ends_here(Some(sent.epoch)),
        }
        Some(())
    }

    fn trims(&mut self) -> Option<()> {
        let owner = *self.serving()?;
        if owner.upload != Upload::Committed {
            return None;
        }
        if self.is_cut_off(owner.known.epoch) {
            self.ends_here(Some(owner.known.epoch));
            return Some(());
        }
        let device = &mut self.volume().device;
        device.trim = device.trim.max(owner.known.end);
        self.serving()?.upload = Upload::Idle;
        Some(())
    }

    fn leaves(&mut self) -> Option<()> {
        let node = self.node();
        match self.model.policy {
            Policy::Orphans => {
                let wanted = self.volume().record.wanted;
                if wanted.is_none_or(|wanted| wanted == node) {
                    return None;
                }
            }
            Policy::Anything => self.world.moves = self.world.moves.checked_sub(1)?,
        }
        let owner = *self.serving()?;
        *self.place() = Place::Leaving(owner);
        Some(())
    }

    fn closes(&mut self) -> Option<()> {
        let Place::Leaving(owner) = *self.place() else { return None };
        let (model, fence) = (self.model, self.volume().device.fence);
        if self.process().flight.is_some() {
            return None;
        }
        self.process().ends(model, fence);
        *self.place() = Place::Closed { epoch: owner.known.epoch };
        Some(())
    }

    fn gives_up(&mut self) -> Option<()> {
        let Place::Closed { epoch } = *self.place() else { return None };
        self.ends_here(Some(epoch));
        Some(())
    }
}
