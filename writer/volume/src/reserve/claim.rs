//! How a block device is taken over by persistent reservation: which commands, in which order, and what
//! their answers mean. A state machine without I/O or clock: [`Claim::step`] says what to do next,
//! [`Claim::answer`] takes what came of it. `reserve.rs` runs it on a device, `model.rs` in every order
//! against every other claim. The argument that it is right is in `docs/fencing.md`.
//!
//! What always holds: who holds the reservation changes only from a smaller epoch to a larger one; who
//! loses it loses the registration, and so the device, in the same instant; nobody writes who has not
//! been the holder under the registration that is now there. So at any time only one owner can write.

use sluice_model::VolumeEpoch;

/// A registration: the volume's tag above, the epoch below. Never zero, since no owner's epoch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(pub(crate) u64);

impl Key {
    /// The key of `epoch` on the volume with this uuid. Every claimant can name the keys of all others.
    pub(crate) fn new(uuid: &[u8; 16], epoch: VolumeEpoch) -> Self {
        let tag = u32::from_le_bytes([uuid[0], uuid[1], uuid[2], uuid[3]]);
        Self(u64::from(tag) << 32 | u64::from(epoch.0))
    }
}

/// What a registration takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Over {
    /// Of none: this host must have no registration.
    Nothing,
    /// Of this smaller epoch's, which this host must have. Its process is gone: it had the device open,
    /// and nobody gets here who does not have it alone on its host.
    Epoch(VolumeEpoch),
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    /// Register the own key.
    Register(Over),
    /// Take the reservation if nobody holds it.
    Take,
    /// Remove the registration of this epoch, wait for its writes, take the reservation if it held it.
    Preempt(VolumeEpoch),
    /// See whether the reservation is one's own. The same command as [`Step::Take`].
    Hold,
    /// Read the superblock again: under which epoch was the volume opened?
    ReadStored,
    /// Wait until a write that the device has accepted has surely ended.
    Drain,
    /// Nothing: this came of it.
    End(End),
}

/// What came of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    /// It was done.
    Done,
    /// The epoch in the superblock.
    Stored(VolumeEpoch),
    /// The device refused it.
    Conflict,
    /// There are no reservations here.
    Unsupported,
    /// It failed, and may have taken effect.
    Failed,
}

/// How a claim ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum End {
    /// The device is this owner's alone: no write of an older one can land any more.
    Owner,
    /// Someone holds it who is no older owner: a larger epoch, or not a claimant of this volume.
    Held,
    /// There are no reservations here; nothing was changed.
    Unsupported,
    /// A step failed; what it has done is not known.
    Failed,
}

/// One claim of a volume under one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    epoch: VolumeEpoch,
    /// What the superblock said before: no holder is of a smaller epoch.
    stored: VolumeEpoch,
    step: Step,
    /// The epochs whose registrations this claim removed, and so whose writes it saw the end of.
    ended: Vec<VolumeEpoch>,
    /// This host had a registration before, with which it may have held the reservation.
    was_registered: bool,
    /// Nobody held the reservation when this claim took it.
    was_free: bool,
}

impl Claim {
    /// A claim under `epoch` of a volume whose superblock says `stored`, which is smaller.
    pub(crate) fn new(epoch: VolumeEpoch, stored: VolumeEpoch) -> Self {
        let step = Step::Register(Over::Nothing);
        Self { epoch, stored, step, ended: Vec::new(), was_registered: false, was_free: false }
    }

    /// What to do next.
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// Takes the answer to [`Claim::step`].
    pub(crate) fn answer(&mut self, answer: Answer) {
        self.step = self.next(answer);
    }

    fn next(&mut self, answer: Answer) -> Step {
        match (self.step, answer) {
            (Step::Register(over), Answer::Done) => {
                if let Over::Epoch(before) = over {
                    // It has let go of the device, with all its writes.
                    self.ended.push(before);
                }
                Step::Take
            }
            (Step::Register(Over::Nothing), Answer::Unsupported) => Step::End(End::Unsupported),
            // This host has one already. Most likely the last owner's; one that is larger stays.
            (Step::Register(over), Answer::Conflict) => self.register_over(match over {
                Over::Nothing => self.epoch,
                Over::Epoch(tried) => tried,
            }),
            // From here on somebody holds it.
            (Step::Take, Answer::Done | Answer::Conflict) => {
                self.was_free = answer == Answer::Done && !self.was_registered;
                self.preempt_from(self.stored.0)
            }
            (Step::Preempt(victim), Answer::Done) => {
                self.ended.push(victim);
                self.preempt_from(victim.0 + 1)
            }
            // Nobody has registered it (any more).
            (Step::Preempt(victim), Answer::Conflict) => self.preempt_from(victim.0 + 1),
            (Step::Hold, Answer::Done) => Step::ReadStored,
            // The registration stays, unused: the kernel's ioctls cannot take back one of NVMe's.
            (Step::Hold, Answer::Conflict) => Step::End(End::Held),
            // Somebody opens the volume without reservations.
            (Step::ReadStored, Answer::Stored(now)) if now >= self.epoch => Step::End(End::Held),
            (Step::ReadStored, Answer::Stored(now)) => {
                if self.saw_the_end_of(now) {
                    Step::End(End::Owner)
                } else {
                    Step::Drain
                }
            }
            (Step::Drain, Answer::Done) => Step::End(End::Owner),
            // The registration stays: it may hold the reservation, which keeps older owners out.
            (_, _) => Step::End(End::Failed),
        }
    }

    /// Over the next smaller epoch's registration than `tried`.
    fn register_over(&mut self, tried: VolumeEpoch) -> Step {
        if self.was_registered && tried == self.epoch {
            // A second time there is one that none of the volume's older owners made.
            return Step::End(End::Held);
        }
        self.was_registered = true;
        if tried.0 > 1 {
            Step::Register(Over::Epoch(VolumeEpoch(tried.0 - 1)))
        } else {
            // Another claimant may have removed it meanwhile.
            Step::Register(Over::Nothing)
        }
    }

    /// Upwards, from the smallest epoch that can hold the reservation. It may pass to a larger one
    /// meanwhile, which this claim comes to later, but never to a smaller one, which it has passed; and
    /// since `Take` it is never free.
    fn preempt_from(&self, epoch: u32) -> Step {
        let epoch = VolumeEpoch(epoch.max(1));
        if epoch < self.epoch { Step::Preempt(epoch) } else { Step::Hold }
    }

    /// Whether no write can be under way that precedes this claim, if the superblock names `stored`.
    ///
    /// Whoever stored its epoch had seen the end of all before it. If its registration was there until
    /// this claim removed it, nobody came between. Otherwise another claimant may have removed it, and
    /// may still be waiting for the end of what it cut off.
    fn saw_the_end_of(&self, stored: VolumeEpoch) -> bool {
        if stored.0 == 0 { self.was_free } else { self.ended.contains(&stored) }
    }
}
