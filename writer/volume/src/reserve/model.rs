//! Every order in which claims of one volume can run into each other, searched breadth first. The claims
//! are the real ones ([`Claim`]); the device, the owners and their hosts are modelled here, in steps of
//! one command to the device. A claimant may stand still after any step, for ever, which is what a
//! stalled host is, or crash, so that its host may begin anew under a larger epoch. Broken variants of
//! the surroundings show that the search would see it.

use std::collections::HashSet;

use sluice_model::VolumeEpoch;

use super::claim::{Answer, Claim, End, Over, Step};

/// Ways to break the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// Preempt is left out.
    NoPreempt,
    /// Preempt does not wait for what is under way.
    NoAbort,
    /// Who is not the holder goes on all the same.
    NoHold,
    /// Nobody waits for the end of what another claimant cut off.
    NoDrain,
    /// The superblock that an owner builds on was read before the fence.
    EarlyBase,
    /// An owner that closes gives the reservation back.
    ReleaseAtClose,
    /// An owner that meets a fence registers again and goes on.
    Reregister,
    /// A host's next owner does not wait until the one before has let go of the device.
    NoLock,
}

type Epoch = u32;

/// A write on its way to the medium: accepted by the device, not yet ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Write {
    of: Epoch,
    /// `Some(version)` for the superblock, `None` for a frame.
    superblock: Option<u32>,
    /// Whose preempt waits for its end.
    cut_off_by: Epoch,
}

/// What a claimant does next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Doing {
    Start,
    Claim(Claim),
    /// The device has begun with a preempt.
    Preempting(Claim),
    /// As the log stands, version and all: what the owner's own superblock builds on.
    ReadBase,
    Store {
        version: u32,
        then: After,
    },
    /// A write is under way.
    Wait(After),
    ReadLog {
        version: u32,
    },
    /// Frames and trims in turn; `left` of them.
    Serve {
        version: u32,
        left: u8,
    },
    Ended(Outcome),
}

/// What follows a write that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum After {
    ReadLog(u32),
    Serve(u32, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Outcome {
    Closed,
    Fenced,
    Refused,
    Crashed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// By epoch, from 1 on.
    claimants: Vec<Doing>,
    /// By host: the epoch registered.
    registered: Vec<Option<Epoch>>,
    /// The host that holds the reservation.
    holder: Option<usize>,
    /// On the medium: the epoch, and a version that stands for trim point and the like.
    superblock: (Epoch, u32),
    /// What was read before the fence, for [`Broken::EarlyBase`].
    early: Vec<u32>,
    under_way: Vec<Write>,
    /// The largest epoch that has begun to read the log.
    reading: Epoch,
    /// The first rule that was broken.
    violation: Option<&'static str>,
}

struct Model {
    /// On which host each claimant is, by epoch from 1 on.
    hosts: &'static [usize],
    broken: Broken,
}

const ROUNDS: u8 = 2;

impl Model {
    fn start(&self) -> World {
        World {
            claimants: vec![Doing::Start; self.hosts.len()],
            registered: vec![None; self.hosts.iter().max().map_or(0, |most| most + 1)],
            holder: None,
            superblock: (0, 0),
            early: vec![0; self.hosts.len()],
            under_way: Vec::new(),
            reading: 0,
            violation: None,
        }
    }

    fn host(&self, epoch: Epoch) -> usize {
        self.hosts[epoch as usize - 1]
    }

    /// Every state that one step leads to.
    fn successors(&self, world: &World) -> Vec<World> {
        let mut after = Vec::new();
        for epoch in 1..=world.claimants.len() as Epoch {
            after.extend(self.step(world, epoch));
            let doing = &world.claimants[epoch as usize - 1];
            if !matches!(doing, Doing::Start | Doing::Ended(_)) {
                let mut next = world.clone();
                next.claimants[epoch as usize - 1] = Doing::Ended(Outcome::Crashed);
                after.push(next);
            }
        }
        for at in 0..world.under_way.len() {
            let mut next = world.clone();
            let write = next.under_way.remove(at);
            next.land(write);
            after.push(next);
            if write.cut_off_by != 0 {
                let mut next = world.clone();
                next.under_way.remove(at);
                self.refused(&mut next, write.of);
                after.push(next);
            }
        }
        after
    }

    /// The one step of a claimant, if it can take one now.
    fn step(&self, world: &World, epoch: Epoch) -> Option<World> {
        let mut next = world.clone();
        let at = epoch as usize - 1;
        let host = self.host(epoch);
        match world.claimants[at].clone() {
            Doing::Start => {
                // The lock: the host's earlier owners have let go of the device, writes and all.
                let alone = (1..=world.claimants.len() as Epoch).all(|other| {
                    other == epoch
                        || self.host(other) != host
                        || (matches!(
                            world.claimants[other as usize - 1],
                            Doing::Start | Doing::Ended(_)
                        ) && world.under_way.iter().all(|write| write.of != other))
                });
                if !alone && self.broken != Broken::NoLock {
                    return None;
                }
                let (stored, version) = world.superblock;
                next.early[at] = version;
                next.claimants[at] = if stored >= epoch {
                    Doing::Ended(Outcome::Refused)
                } else {
                    Doing::Claim(Claim::new(VolumeEpoch(epoch), VolumeEpoch(stored)))
                };
            }
            Doing::Claim(mut claim) => {
                let answer = match claim.step() {
                    Step::End(end) => {
                        next.claimants[at] = match end {
                            End::Owner => Doing::ReadBase,
                            End::Held => Doing::Ended(Outcome::Refused),
                            other => panic!("nothing fails here: {other:?}"),
                        };
                        return Some(next);
                    }
                    Step::Preempt(victim) => {
                        let preempted =
                            self.broken != Broken::NoPreempt && next.preempt(epoch, host, victim.0);
                        if preempted {
                            next.claimants[at] = Doing::Preempting(claim);
                            return Some(next);
                        }
                        Answer::Conflict
                    }
                    Step::Drain => {
                        let ended = world.under_way.iter().all(|write| {
                            write.of >= epoch || world.registered.contains(&Some(write.of))
                        });
                        if !ended && self.broken != Broken::NoDrain {
                            return None;
                        }
                        Answer::Done
                    }
                    step => self.command(&mut next, epoch, host, step),
                };
                claim.answer(answer);
                next.claimants[at] = Doing::Claim(claim);
            }
            Doing::Preempting(mut claim) => {
                let waits = world.under_way.iter().any(|write| write.cut_off_by == epoch);
                if waits && self.broken != Broken::NoAbort {
                    return None;
                }
                claim.answer(Answer::Done);
                next.claimants[at] = Doing::Claim(claim);
            }
            Doing::ReadBase => {
                let (stored, version) = world.superblock;
                let version =
                    if self.broken == Broken::EarlyBase { world.early[at] } else { version };
                next.claimants[at] = if stored >= epoch {
                    Doing::Ended(Outcome::Refused)
                } else {
                    Doing::Store { version, then: After::ReadLog(version) }
                };
            }
            Doing::Store { version, then } => self.write(&mut next, epoch, Some(version), then),
            Doing::Wait(_) => return None,
            Doing::ReadLog { version } => {
                next.reading = next.reading.max(epoch);
                next.claimants[at] = Doing::Serve { version, left: ROUNDS };
            }
            Doing::Serve { left: 0, .. } => {
                if self.broken == Broken::ReleaseAtClose && next.registered[host] == Some(epoch) {
                    next.unregister(host);
                }
                next.claimants[at] = Doing::Ended(Outcome::Closed);
            }
            Doing::Serve { version, left } if left % 2 == 0 => {
                let then = After::Serve(version + 1, left - 1);
                next.claimants[at] = Doing::Store { version: version + 1, then };
            }
            Doing::Serve { version, left } => {
                self.write(&mut next, epoch, None, After::Serve(version, left - 1));
            }
            Doing::Ended(_) => return None,
        }
        Some(next)
    }

    /// Commands that the device answers at once.
    fn command(&self, world: &mut World, epoch: Epoch, host: usize, step: Step) -> Answer {
        match step {
            Step::Register(over) => {
                let fits = match (over, world.registered[host]) {
                    (Over::Nothing, registered) => registered.is_none(),
                    (Over::Epoch(before), registered) => registered == Some(before.0),
                };
                if !fits {
                    return Answer::Conflict;
                }
                world.registered[host] = Some(epoch);
                Answer::Done
            }
            Step::Take | Step::Hold => {
                let mine = world.registered[host] == Some(epoch)
                    && world.holder.is_none_or(|holder| holder == host);
                if mine {
                    world.holder = Some(host);
                }
                if mine || self.broken == Broken::NoHold { Answer::Done } else { Answer::Conflict }
            }
            Step::ReadStored => Answer::Stored(VolumeEpoch(world.superblock.0)),
            Step::Preempt(_) | Step::Drain | Step::End(_) => unreachable!("not at once"),
        }
    }

    /// A claimant hands a write to the device.
    fn write(&self, world: &mut World, epoch: Epoch, superblock: Option<u32>, then: After) {
        let host = self.host(epoch);
        if world.holder.is_some() && world.registered[host].is_none() {
            return self.refused(world, epoch);
        }
        world.under_way.push(Write { of: epoch, superblock, cut_off_by: 0 });
        world.under_way.sort_unstable();
        world.claimants[epoch as usize - 1] = Doing::Wait(then);
    }

    /// A claimant learns that its write was not done.
    fn refused(&self, world: &mut World, epoch: Epoch) {
        let host = self.host(epoch);
        let doing = &mut world.claimants[epoch as usize - 1];
        if matches!(doing, Doing::Ended(_)) {
            return;
        }
        *doing = if self.broken == Broken::Reregister {
            world.registered[host] = Some(epoch);
            Doing::Serve { version: world.superblock.1, left: 1 }
        } else {
            Doing::Ended(Outcome::Fenced)
        };
    }

    /// Runs one claimant and the device alone, all others standing still.
    fn alone(&self, mut world: World, epoch: Epoch) -> Doing {
        loop {
            if matches!(world.claimants[epoch as usize - 1], Doing::Ended(_)) {
                return world.claimants[epoch as usize - 1].clone();
            }
            if let Some(next) = self.step(&world, epoch) {
                world = next;
            } else if let Some(write) = world.under_way.pop() {
                // The device brings what it has accepted to an end.
                world.land(write);
            } else {
                return world.claimants[epoch as usize - 1].clone();
            }
        }
    }

    /// Searches everything: how many states there are, or the shortest way to a broken rule.
    fn search(&self) -> Result<usize, Broke> {
        let mut seen = HashSet::new();
        // Each state with the place of the one before it; the queue is what lies behind `at`.
        let mut states = vec![(self.start(), 0)];
        let mut at = 0;
        while at < states.len() {
            let world = states[at].0.clone();
            let begun = world.claimants.iter().rposition(|doing| *doing != Doing::Start);
            let stuck = begun.is_some_and(|last| {
                let end = self.alone(world.clone(), last as Epoch + 1);
                !matches!(end, Doing::Ended(Outcome::Closed | Outcome::Crashed))
            });
            let stuck = stuck.then_some("the newest claimant does not become the owner");
            if let Some(rule) = world.violation.or(stuck) {
                let mut way = Vec::new();
                let mut back = at;
                while back > 0 {
                    way.push(states[back].0.clone());
                    back = states[back].1;
                }
                way.reverse();
                return Err(Broke { rule, way });
            }
            for next in self.successors(&world) {
                if seen.insert(next.clone()) {
                    states.push((next, at));
                }
            }
            at += 1;
        }
        Ok(states.len())
    }
}

/// A rule that does not hold, and the states that led there.
#[derive(Debug)]
struct Broke {
    rule: &'static str,
    way: Vec<World>,
}

impl World {
    /// The device's side of preempt and abort. Whether it found the victim.
    fn preempt(&mut self, epoch: Epoch, host: usize, victim: Epoch) -> bool {
        let victims: Vec<usize> = (0..self.registered.len())
            .filter(|other| *other != host && self.registered[*other] == Some(victim))
            .collect();
        if victims.is_empty() || self.registered[host] != Some(epoch) {
            return false;
        }
        for other in victims {
            self.registered[other] = None;
            if self.holder == Some(other) {
                self.holder = Some(host);
            }
        }
        for write in &mut self.under_way {
            if write.of == victim {
                write.cut_off_by = epoch;
            }
        }
        self.under_way.sort_unstable();
        true
    }

    fn unregister(&mut self, host: usize) {
        self.registered[host] = None;
        if self.holder == Some(host) {
            self.holder = None;
        }
    }

    /// A write reaches the medium, and its claimant hears of it.
    fn land(&mut self, write: Write) {
        if write.of < self.reading {
            self.violation = Some("an older owner's write after a newer one began to read");
        }
        if let Some(version) = write.superblock {
            if (write.of, version) < self.superblock || version < self.superblock.1 {
                self.violation = Some("a superblock that does not build on the one before");
            }
            self.superblock = (write.of, version);
        }
        let doing = &mut self.claimants[write.of as usize - 1];
        if let Doing::Wait(then) = *doing {
            *doing = match then {
                After::ReadLog(version) => Doing::ReadLog { version },
                After::Serve(version, left) => Doing::Serve { version, left },
            };
        }
    }
}

/// Three claimants on three hosts, and on two, where the third is back on the first one's.
const PLACES: [&[usize]; 3] = [&[0, 1, 2], &[0, 1, 0], &[0, 1, 1]];

#[test]
fn no_order_of_claims_breaks_a_rule() {
    for hosts in PLACES {
        match (Model { hosts, broken: Broken::Nothing }).search() {
            // Far fewer would mean that claimants no longer meet.
            Ok(states) => assert!(states > 5_000, "{hosts:?}: only {states} states"),
            Err(Broke { rule, way }) => panic!("{hosts:?}: {rule}: {way:#?}"),
        }
    }
}

#[test]
fn the_search_sees_every_broken_variant() {
    use Broken::*;
    let variants =
        [NoPreempt, NoAbort, NoHold, NoDrain, EarlyBase, ReleaseAtClose, Reregister, NoLock];
    for broken in variants {
        let found = PLACES.iter().find_map(|hosts| Model { hosts, broken }.search().err());
        let Some(Broke { rule, way }) = found else { panic!("{broken:?} goes unseen") };
        println!("{broken:?}: {rule}, after {} steps", way.len());
    }
}
