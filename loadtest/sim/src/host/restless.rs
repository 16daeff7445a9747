//! An owner whose single volumes come and go while it serves the others: it gives one up and takes it again, or
//! has one claimed by a node that never opens it; what it loses it takes back, unless the other host has it. As the
//! product's process does, but more often.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_model::{NodeId, VolumeId};
use sluice_writer::Writer;
use tokio::time::Instant;

use super::writer::{GLANCE, place};
use crate::random::Random;
use crate::stage::{Stage, WRITERS};

/// Claims volumes and never opens them.
const PHANTOM: NodeId = NodeId(99);
/// How long the tail is uploaded before a volume is given up.
const FLUSH: Duration = Duration::from_secs(1);
/// How long a take may wait for the bucket.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries to take a volume.
const AGAIN: Duration = Duration::from_millis(200);

pub(super) struct Restless<'a> {
    pub(super) stage: &'a Arc<Stage>,
    pub(super) host: usize,
    pub(super) writer: &'a Writer,
    pub(super) random: &'a mut Random,
}

impl Restless<'_> {
    /// Serves until the director wishes otherwise, or all volumes are another's: gives whether they are.
    pub(super) async fn serve(&mut self) -> bool {
        let (stage, host) = (self.stage, self.host);
        let wish = &stage.wishes[host];
        let unwished = async {
            while wish.own.load(Ordering::Relaxed) {
                tokio::time::sleep(GLANCE).await;
            }
        };
        // Whatever is under way when the wish ends is dropped where it is.
        tokio::select! {
            biased;
            () = unwished => false,
            () = self.be_restless() => true,
        }
    }

    /// Returns when everything is another's.
    async fn be_restless(&mut self) {
        let mut losses = self.writer.losses();
        let mut next = self.rest();
        loop {
            let all = self.writer.volumes().len() == self.stage.devices.len();
            self.stage.wishes[self.host].serves.store(all, Ordering::Relaxed);
            if !all && self.take_back().await {
                return;
            }
            let calm = !self.stage.wind_down.load(Ordering::Relaxed);
            tokio::select! {
                biased;
                lost = losses.recv() => {
                    if let Ok(lost) = lost {
                        let volume = lost.volume;
                        self.event("lost-one", format_args!("{volume} {:?}", lost.reason));
                    }
                }
                () = tokio::time::sleep(if all { GLANCE } else { AGAIN }) => {}
            }
            if all && calm && Instant::now() >= next {
                self.disturb().await;
                next = self.rest();
            }
        }
    }

    fn rest(&mut self) -> Instant {
        Instant::now() + self.random.ms(300, 4000)
    }

    fn event(&self, kind: &'static str, what: std::fmt::Arguments<'_>) {
        self.stage.history.event(kind, format_args!("{} {what}", WRITERS[self.host]));
    }

    /// One volume goes, by its own wish or another's.
    async fn disturb(&mut self) {
        let volume = VolumeId(self.random.below(self.stage.devices.len() as u64) as u32);
        if self.random.per_mille(300) {
            let catalog = self.writer.catalog();
            let Some(known) = catalog.volume(volume) else { return };
            let claimed = catalog.claim_volume(volume, PHANTOM, known.epoch);
            if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, claimed).await {
                self.event("claimed-away", format_args!("{volume}"));
            }
            return;
        }
        match self.writer.release(volume, FLUSH).await {
            Ok(released) => self.event("release", format_args!("{volume} {}", released.left_bytes)),
            Err(error) => self.event("release-failed", format_args!("{error}")),
        }
    }

    /// Takes what is not served, unless it is the other host's. True if nothing is served, and all is the other's.
    async fn take_back(&mut self) -> bool {
        let served = self.writer.volumes();
        let other = NodeId((1 - self.host) as i32 + 1);
        let mut gone = 0;
        for id in 0..self.stage.devices.len() as u32 {
            let volume = VolumeId(id);
            if served.iter().any(|(known, _)| *known == volume) {
                continue;
            }
            let owner = self.writer.catalog().volume(volume).and_then(|known| known.owner);
            if owner == Some(other) {
                gone += 1;
                continue;
            }
            let place = place(self.stage, id);
            match Box::pin(self.writer.take(&place, PATIENCE)).await {
                Ok(taken) => {
                    self.event("take-back", format_args!("{volume} epoch {}", taken.epoch.0));
                    if let Some(rot) = self.stage.rot.lock().filter(|rot| rot.volume == id) {
                        let history = &self.stage.history;
                        history.violation(format_args!("volume {id} opened over damage: {rot:?}"));
                    }
                }
                Err(error) => self.event("take-failed", format_args!("{error}")),
            }
        }
        gone == self.stage.devices.len()
    }
}
