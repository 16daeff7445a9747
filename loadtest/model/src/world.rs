//! What there is: the catalog's record, the device, the bucket and each process, for each volume; and what was
//! told to clients, which the rules are about.
//!
//! One stream lies on a volume, one record in a frame, so that an offset is an lsn. All of it is of fixed size and
//! copied, as millions of states are compared.

use crate::rules::Rule;
use crate::steps::Mutation;

/// Processes at most.
pub const PROCESSES: usize = 3;
/// Volumes at most.
pub const VOLUMES: usize = 2;
/// Records that are ever appended to a volume, at most.
pub const RECORDS: usize = 3;
/// Claims of a volume at most, and one more for none.
pub const EPOCHS: usize = 5;

/// What a volume lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A lock keeps others away until the holder's last write has ended, after its death too.
    File,
    /// A reservation: who loses it cannot write from that moment on.
    Block,
    /// The seal of the older epoch's chain: what is put behind it is no part of the log.
    Object,
}

/// Who claims a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Orphans, one's own, and what one is wanted to own.
    Orphans,
    /// Any volume at any time. Nothing depends on good manners, so this must be safe, too.
    Anything,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// The node id of each process. Two of one id: the older one was thought to be dead.
    pub nodes: &'static [u8],
    /// How many volumes.
    pub volumes: usize,
    /// Of what kind.
    pub kind: Kind,
    /// Who claims.
    pub policy: Policy,
    /// Claims of each volume.
    pub claims: u8,
    /// Records appended to each volume.
    pub records: u8,
    /// Crashes of processes.
    pub crashes: u8,
    /// Leases that run out.
    pub expiries: u8,
    /// Wishes for another owner, or releases without one where anything may be claimed.
    pub moves: u8,
    /// What is broken on purpose.
    pub mutation: Option<Mutation>,
}

/// All of it at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct World {
    /// By number.
    pub volumes: [Volume; VOLUMES],
    /// By node id: whether the catalog lists it.
    pub live: [bool; PROCESSES],
    /// How many are still to come.
    pub crashes: u8,
    /// How many are still to come.
    pub expiries: u8,
    /// How many are still to come.
    pub moves: u8,
    /// A rule that the last step broke.
    pub broken: Option<Rule>,
}

/// One volume, wherever it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Volume {
    /// `tenants/catalog`'s record.
    pub record: Record,
    /// The log.
    pub device: Device,
    /// Its manifests.
    pub bucket: Bucket,
    /// What each process has of it.
    pub processes: [Process; PROCESSES],
    /// What was told.
    pub history: History,
}

/// `sluice_catalog::Volume`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    /// A node id.
    pub owner: Option<u8>,
    /// Grows by one at each claim.
    pub epoch: u8,
    /// Who shall own it.
    pub wanted: Option<u8>,
}

/// Records by offset; 0 stands for none, so an id begins at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log {
    /// One past the last offset.
    pub end: u8,
    /// By offset.
    pub records: [u8; RECORDS],
}

impl Log {
    /// The record at an offset, if there is one.
    pub fn at(&self, offset: u8) -> Option<u8> {
        (offset < self.end).then(|| self.records[usize::from(offset)])
    }

    /// Puts a record at an offset, whatever is there.
    pub fn put(&mut self, offset: u8, record: u8) {
        self.records[usize::from(offset)] = record;
        self.end = self.end.max(offset + 1);
    }
}

/// What the medium holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Device {
    /// The epoch in the superblock, of the reservation, or of the newest seal.
    pub fence: u8,
    /// The frames. Those before the trim point are kept only to be compared.
    pub log: Log,
    /// The log begins here.
    pub trim: u8,
}

/// What the newest manifest says; it stands for all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// Its version.
    pub version: u8,
    /// Its owner's epoch.
    pub epoch: u8,
    /// The records that it names; their end is `trim_lsn`, too.
    pub log: Log,
}

/// What a process has of a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// How far it is.
    pub place: Place,
    /// A frame on its way to the device. It outlives the process.
    pub flight: Option<Flight>,
    /// A manifest on its way to the bucket. It outlives the process.
    pub commit: Option<Commit>,
    /// The log as it was before the fence, for [`Mutation::ReadsBeforeFence`].
    pub early: Log,
}

/// Where a volume is in its life in a process: `writer/src/ownership/mod.rs`, with the phases of a take told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Nowhere.
    #[default]
    None,
    /// It was seen in the catalog under this epoch, and is to be claimed.
    Looked {
        /// What the claim expects.
        expected: u8,
    },
    /// The claim was won.
    Claimed {
        /// The new epoch.
        epoch: u8,
    },
    /// The device is open, older owners are cut off.
    Fenced {
        /// The new epoch.
        epoch: u8,
    },
    /// The newest manifest is loaded.
    Loaded(Known),
    /// A manifest under the new epoch is on its way.
    Announcing(Known),
    /// It is there.
    Announced(Known),
    /// The log is read back.
    Recovered(Owner),
    /// Appends are taken.
    Serving(Owner),
    /// Sealed: what is in flight ends, nothing new is taken.
    Leaving(Owner),
    /// The device is let go of; the catalog does not know yet.
    Closed {
        /// Under which it was served.
        epoch: u8,
    },
}

/// What an owner knows of the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Known {
    /// The owner's epoch.
    pub epoch: u8,
    /// The newest manifest that it knows.
    pub version: u8,
    /// Where that ends.
    pub end: u8,
}

/// What an owner knows of its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Of the bucket.
    pub known: Known,
    /// Of the log: what it read back and appended. The next offset is its end.
    pub log: Log,
    /// One past the last record that is durable, and so visible.
    pub high_watermark: u8,
    /// What is under way to the bucket.
    pub upload: Upload,
}

/// `writer/src/upload/pipeline.rs`: put, commit, let go, trim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Upload {
    /// Nothing.
    Idle,
    /// The segment is in the bucket.
    Put {
        /// It holds all before.
        upto: u8,
    },
    /// The manifest that names it is on its way.
    Committing,
    /// The manifest is there; the volume is to be trimmed.
    Committed,
}

/// A frame that was handed to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flight {
    /// Its owner's.
    pub epoch: u8,
    /// Where it goes.
    pub lsn: u8,
    /// What it holds.
    pub record: u8,
    /// The device has done it; the owner does not know yet.
    pub landed: bool,
}

/// A manifest that was handed to the bucket, to be created if absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Commit {
    /// Its name.
    pub version: u8,
    /// Its owner's.
    pub epoch: u8,
    /// The extent that it adds: from where.
    pub base: u8,
    /// And what; its end is that of the log here.
    pub log: Log,
    /// Whether the segment that it names is in the bucket.
    pub whole: bool,
    /// What came of it.
    pub answer: Answer,
}

/// What came of a create.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// It is on its way.
    None,
    /// It was created, or was there already, the same.
    Created,
    /// Another one is there, under this epoch.
    Exists(u8),
}

/// What clients and other owners have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct History {
    /// Records appended so far.
    pub appended: u8,
    /// By record: the epoch that it was appended under.
    pub epochs: [u8; RECORDS],
    /// By record: one past its offset, once it was acknowledged.
    pub acknowledged: [u8; RECORDS],
    /// By epoch: who acknowledged under it.
    pub by: [Option<u8>; EPOCHS],
    /// By epoch: the largest high watermark that was shown.
    pub shown: [u8; EPOCHS],
    /// By epoch: the high watermark with which it began to serve.
    pub began: [Option<u8>; EPOCHS],
}

impl Model {
    /// Nobody has claimed anything.
    pub fn start(&self) -> World {
        World {
            volumes: [Volume::default(); VOLUMES],
            live: [true; PROCESSES],
            crashes: self.crashes,
            expiries: self.expiries,
            moves: self.moves,
            broken: None,
        }
    }

    /// Whether `mutation` is what is broken.
    pub fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// Ways to exchange processes that leave everything else as it is: each new number by the old one.
    pub fn symmetries(&self) -> Vec<[usize; PROCESSES]> {
        let all = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let is_one = |order: &[usize; PROCESSES]| {
            let (used, rest) = order.split_at(self.nodes.len());
            let stays = rest.iter().zip(used.len()..).all(|(new, old)| *new == old);
            // Either processes with one node id change places, or nodes do, each with its one process.
            let same = used.iter().enumerate().all(|(old, new)| {
                self.nodes.get(*new).is_some_and(|node| *node == self.nodes[old])
            });
            let alone = self.nodes.iter().enumerate().all(|(at, node)| usize::from(*node) == at);
            stays && (same || alone)
        };
        all.into_iter().filter(is_one).collect()
    }

    /// The world with its processes exchanged, and with them their nodes where each has its own.
    pub fn exchanged(&self, world: &World, order: &[usize; PROCESSES]) -> World {
        let alone = self.nodes.iter().enumerate().all(|(at, node)| usize::from(*node) == at);
        let node = |id: u8| if alone { order[usize::from(id)] as u8 } else { id };
        let mut other = *world;
        for (old, new) in order.iter().enumerate() {
            other.live[usize::from(node(old as u8))] = world.live[old];
            for (volume, was) in other.volumes.iter_mut().zip(&world.volumes) {
                volume.processes[*new] = was.processes[old];
            }
        }
        for volume in &mut other.volumes {
            volume.record.owner = volume.record.owner.map(node);
            volume.record.wanted = volume.record.wanted.map(node);
            for by in &mut volume.history.by {
                *by = by.map(|process| order[usize::from(process)] as u8);
            }
        }
        other
    }
}
