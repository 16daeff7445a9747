//! Who breaks things: crashes, power losses, takeovers, partitions, faults of the bucket and the disks,
//! clock jumps, damage; each chosen by the seed, each mended after a while. It acts between two steps of
//! the simulation, so that a crash finds every other host at the same instant.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_volume::sim::Faults;
use turmoil::Sim;

use crate::bucket::{self, BucketFaults};
use crate::metadata;
use crate::random::Random;
use crate::stage::{Rot, Stage, WRITERS};

/// The hosts of the clients.
pub(crate) const PRODUCERS: &str = "producers";
pub(crate) const CONSUMERS: &str = "consumers";

/// Wall clocks are off by no more than this: producers are forgotten after a day without a word, by the
/// wall clock, and idempotence with them (as in Kafka).
const MOST_SKEW_MS: i64 = 8 * 3600 * 1000;

/// What is to be undone later.
#[derive(Clone, Copy, Debug)]
enum Mend {
    Restart(usize),
    Disown(usize, bool),
    Link(&'static str, &'static str),
    Release(&'static str, &'static str),
    Bucket,
    Disk(usize),
    Rot,
}

pub(crate) struct Director {
    stage: Arc<Stage>,
    random: Random,
    next: Duration,
    mends: Vec<(Duration, Mend)>,
    down: [bool; 2],
    /// Crash as soon as the next acknowledgement arrives.
    armed: bool,
}

impl Director {
    pub(crate) fn new(stage: Arc<Stage>) -> Self {
        let random = Random::new(stage.seed, 3);
        let mut director = Self {
            stage,
            random,
            next: Duration::ZERO,
            mends: Vec::new(),
            down: [false; 2],
            armed: false,
        };
        director.usual_disks();
        director.next = director.random.ms(500, 1500);
        director.own(0);
        director
    }

    /// Between two steps.
    pub(crate) fn act(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let acknowledged = self.stage.just_acknowledged.swap(false, Ordering::Relaxed);
        if self.armed && acknowledged {
            self.armed = false;
            self.stage.history.event("crash-after-ack", format_args!("now"));
            self.power_loss(sim, now);
        }
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.mends).into_iter().partition(|(at, _)| *at <= now);
        self.mends = later;
        for (_, mend) in due {
            self.mend(sim, mend);
        }
        if now >= self.next {
            let calm = self.random.between(1, self.stage.profile.calm_ms * 2);
            self.next = now + Duration::from_millis(calm);
            self.break_something(sim, now);
        }
    }

    fn later(&mut self, now: Duration, least_ms: u64, most_ms: u64, mend: Mend) {
        let at = now + self.random.ms(least_ms, most_ms);
        self.mends.push((at, mend));
    }

    fn break_something(&mut self, sim: &mut Sim<'_>, now: Duration) {
        match self.random.below(16) {
            0 => self.crash(sim, now),
            1 => self.power_loss(sim, now),
            2 => {
                self.stage.history.event("arm", format_args!("crash at the next acknowledgement"));
                self.armed = true;
            }
            3 | 4 => self.two_owners(now),
            5 => self.hand_over(now),
            6 | 7 => self.partition(sim, now),
            8 => self.hold(sim, now),
            9 | 10 => self.bucket(now),
            11 => self.outage(now),
            12 | 13 => self.disk(now),
            14 => self.clock(),
            _ => self.rot(sim, now),
        }
    }

    fn stop(&mut self, sim: &mut Sim<'_>, host: usize) {
        if !self.down[host] {
            sim.crash(WRITERS[host]);
            self.down[host] = true;
            self.stage.wishes[host].serves.store(false, Ordering::Relaxed);
        }
    }

    /// A process dies; its writes that the disk has end any way they like.
    fn crash(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let host = self.owner();
        self.stage.history.event("crash", format_args!("{}", WRITERS[host]));
        self.stop(sim, host);
        self.later(now, 1, 1500, Mend::Restart(host));
        if self.random.per_mille(400) {
            // The other takes over at once.
            self.own(1 - host);
            self.stage.wishes[host].own.store(false, Ordering::Relaxed);
        }
    }

    /// All disks lose power, and every process with a volume open dies.
    fn power_loss(&mut self, sim: &mut Sim<'_>, now: Duration) {
        self.stage.history.event("power-loss", format_args!("all"));
        for device in &self.stage.devices {
            device.crash();
        }
        for host in 0..WRITERS.len() {
            self.stop(sim, host);
            self.later(now, 1, 1500, Mend::Restart(host));
        }
        let owner = self.owner();
        self.own(owner);
    }

    fn owner(&self) -> usize {
        usize::from(!self.stage.wishes[0].own.load(Ordering::Relaxed))
    }

    fn own(&self, host: usize) {
        self.stage.wishes[host].own.store(true, Ordering::Relaxed);
    }

    /// The other claims the volumes; the first goes on in the belief that it owns them.
    fn two_owners(&mut self, now: Duration) {
        let (old, new) = (self.owner(), 1 - self.owner());
        self.stage.history.event("two-owners", format_args!("{} too", WRITERS[new]));
        self.own(new);
        self.later(now, 100, 2500, Mend::Disown(old, false));
    }

    fn hand_over(&mut self, now: Duration) {
        let (old, new) = (self.owner(), 1 - self.owner());
        self.stage.history.event("hand-over", format_args!("to {}", WRITERS[new]));
        self.stage.wishes[old].gentle.store(true, Ordering::Relaxed);
        self.stage.wishes[old].own.store(false, Ordering::Relaxed);
        self.own(new);
        self.later(now, 3500, 4000, Mend::Disown(old, true));
    }

    fn pair(&mut self) -> (&'static str, &'static str) {
        let writer = *self.random.pick(&WRITERS);
        let other = *self.random.pick(&[bucket::HOST, metadata::HOST, PRODUCERS, CONSUMERS]);
        (writer, other)
    }

    fn partition(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (a, b) = self.pair();
        let manner = self.random.below(3);
        self.stage.history.event("partition", format_args!("{a} {b} {manner}"));
        match manner {
            0 => sim.partition(a, b),
            1 => sim.partition_oneway(a, b),
            _ => sim.partition_oneway(b, a),
        }
        self.later(now, 100, 4000, Mend::Link(a, b));
    }

    /// Messages are kept and arrive later, when nobody expects them any more.
    fn hold(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let (a, b) = self.pair();
        self.stage.history.event("hold", format_args!("{a} {b}"));
        sim.hold(a, b);
        self.later(now, 500, 5000, Mend::Release(a, b));
    }

    fn bucket(&mut self, now: Duration) {
        let random = &mut self.random;
        let mut chance =
            |most: u64| if random.per_mille(600) { random.below(most) as u32 } else { 0 };
        let faults = BucketFaults {
            silent: false,
            busy: chance(500),
            broken: chance(300),
            lost: chance(300),
            late: chance(200),
            slow: chance(600),
            wrong: chance(200),
        };
        self.stage.history.event("bucket-faults", format_args!("{faults:?}"));
        self.stage.bucket.set_faults(faults);
        self.later(now, 500, 4000, Mend::Bucket);
    }

    fn outage(&mut self, now: Duration) {
        let silent = self.random.per_mille(500);
        self.stage.history.event("outage", format_args!("silent {silent}"));
        let busy = if silent { 0 } else { 1000 };
        self.stage.bucket.set_faults(BucketFaults { silent, busy, ..BucketFaults::default() });
        self.later(now, 1000, 6000, Mend::Bucket);
    }

    fn usual_disks(&mut self) {
        for volume in 0..self.stage.devices.len() {
            self.usual_disk(volume);
        }
    }

    fn usual_disk(&mut self, volume: usize) {
        let most_latency = self.random.ms(1, 12);
        let least_latency = Duration::from_millis(self.random.below(2));
        let faults = Faults { least_latency, most_latency, ..Faults::default() };
        self.stage.devices[volume].set_faults(faults);
    }

    fn disk(&mut self, now: Duration) {
        let volume = self.random.below(self.stage.devices.len() as u64) as usize;
        let slow = self.random.per_mille(500);
        let faults = Faults {
            least_latency: Duration::from_millis(1),
            most_latency: self.random.ms(1, if slow { 300 } else { 20 }),
            write_errors_per_mille: if slow { 0 } else { self.random.below(300) as u32 },
            read_errors_per_mille: if slow { 0 } else { self.random.below(200) as u32 },
            no_room: false,
        };
        let kind = if slow { "disk-slow" } else { "disk-errors" };
        self.stage.history.event(kind, format_args!("{volume} {faults:?}"));
        self.stage.devices[volume].set_faults(faults);
        self.later(now, 300, 3000, Mend::Disk(volume));
    }

    fn clock(&mut self) {
        let host = self.random.below(2) as usize;
        let span = *self.random.pick(&[50, 5_000, 600_000, 2 * MOST_SKEW_MS as u64]);
        let jump = self.random.below(span) as i64 - span as i64 / 2;
        let skew = &self.stage.skews[host];
        let new = (skew.load(Ordering::Relaxed) + jump).clamp(-MOST_SKEW_MS, MOST_SKEW_MS);
        skew.store(new, Ordering::Relaxed);
        self.stage
            .history
            .event("clock-jump", format_args!("{} by {jump} to {new}", WRITERS[host]));
    }

    /// A bit of a frame that is known to be durable turns, while no one has the volume open. Whoever
    /// opens it must find that out; then the bit is turned back.
    fn rot(&mut self, sim: &mut Sim<'_>, now: Duration) {
        if self.stage.rot.lock().is_some() {
            return;
        }
        let volume = self.random.below(self.stage.devices.len() as u64) as usize;
        let device = self.stage.devices[volume].clone();
        let frames = device.proven_frames();
        if frames.is_empty() {
            return;
        }
        self.power_loss(sim, now);
        let frame = self.random.pick(&frames).clone();
        let offset = frame.start + self.random.below(frame.end - frame.start);
        let rot = Rot { volume: volume as u32, offset, mask: 1 << self.random.below(8) };
        device.flip(rot.offset, rot.mask);
        self.stage.history.event("bit-rot", format_args!("{rot:?}"));
        *self.stage.rot.lock() = Some(rot);
        self.later(now, 1500, 3000, Mend::Rot);
    }

    fn mend(&mut self, sim: &mut Sim<'_>, mend: Mend) {
        self.stage.history.event("mend", format_args!("{mend:?}"));
        match mend {
            Mend::Restart(host) => {
                if std::mem::take(&mut self.down[host]) {
                    sim.bounce(WRITERS[host]);
                }
            }
            Mend::Disown(host, gentle) => {
                let other = self.stage.wishes[1 - host].own.load(Ordering::Relaxed);
                if other {
                    self.stage.wishes[host].own.store(false, Ordering::Relaxed);
                }
                if gentle {
                    self.stage.wishes[host].gentle.store(false, Ordering::Relaxed);
                }
            }
            Mend::Link(a, b) => sim.repair(a, b),
            Mend::Release(a, b) => sim.release(a, b),
            Mend::Bucket => self.stage.bucket.set_faults(BucketFaults::default()),
            Mend::Disk(volume) => self.usual_disk(volume),
            Mend::Rot => self.heal_rot(),
        }
    }

    fn heal_rot(&self) {
        if let Some(rot) = self.stage.rot.lock().take() {
            self.stage.devices[rot.volume as usize].flip(rot.offset, rot.mask);
        }
    }

    /// Everything works from now on, and one host owns all volumes. Gives that host.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) -> usize {
        self.stage.history.event("heal", format_args!("all"));
        self.armed = false;
        self.mends.clear();
        self.heal_rot();
        self.stage.bucket.set_faults(BucketFaults::default());
        self.usual_disks();
        for writer in WRITERS {
            for other in [bucket::HOST, metadata::HOST, PRODUCERS, CONSUMERS] {
                sim.release(writer, other);
                sim.repair(writer, other);
            }
        }
        for (host, name) in WRITERS.into_iter().enumerate() {
            self.stage.wishes[host].gentle.store(false, Ordering::Relaxed);
            if std::mem::take(&mut self.down[host]) {
                sim.bounce(name);
            }
        }
        let owner = self.random.below(2) as usize;
        self.own(owner);
        self.stage.wishes[1 - owner].own.store(false, Ordering::Relaxed);
        owner
    }
}
