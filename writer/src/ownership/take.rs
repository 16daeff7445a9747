//! Taking a volume, its phases timed. A take that fails, or is given up, leaves nothing that serves and gives the
//! claim back, so that another writer need not wait; the next try claims a new epoch.

use std::sync::Arc;
use std::time::Duration;

use sluice_model::{VolumeEpoch, VolumeId};
use tokio::time::Instant;

use super::watch;
use crate::error::OpenError;
use crate::moves;
use crate::options::{Shift, TakeTerms, VolumePlace};
use crate::recovery::{Recovered, take_over};
use crate::volume_handle::OwnedVolume;
use crate::writer::{Inner, Writer};

/// How long the catalog is given to take a claim back that came to nothing. If it does not answer, the claim
/// stands: the next take is under a larger epoch all the same.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// The parts of a take, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TakePhase {
    /// Winning the volume in the catalog; a new volume is created before.
    Claim,
    /// Opening the device under the new epoch, which cuts off its older owners.
    Fence,
    /// Loading the newest manifest, committing one under the new epoch, reading the log from its trim point.
    Recover,
    /// Reading the coordinators' state if it lies here, and starting what serves.
    Serve,
}

impl TakePhase {
    pub(crate) const ALL: [Self; 4] = [Self::Claim, Self::Fence, Self::Recover, Self::Serve];

    /// As logs and metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Fence => "fence",
            Self::Recover => "recover",
            Self::Serve => "serve",
        }
    }
}

/// A volume that was taken, and how long each phase took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch under which it is served.
    pub epoch: VolumeEpoch,
    /// See [`TakePhase::Claim`].
    pub claim: Duration,
    /// See [`TakePhase::Fence`].
    pub fence: Duration,
    /// See [`TakePhase::Recover`].
    pub recover: Duration,
    /// See [`TakePhase::Serve`].
    pub serve: Duration,
    /// Bytes of the log that were read back: what the last owner had not uploaded.
    pub recovered_bytes: u64,
    /// Streams that these were of.
    pub recovered_streams: usize,
}

impl Taken {
    /// From the claim to serving.
    pub fn total(&self) -> Duration {
        self.claim + self.fence + self.recover + self.serve
    }
}

/// A volume was not taken. Nothing of it is served; it may be tried again.
#[derive(Debug, thiserror::Error)]
#[error("volume {} was not taken ({}): {cause}", volume.0, phase.name())]
pub struct TakeError {
    /// The volume.
    pub volume: VolumeId,
    /// How far it came.
    pub phase: TakePhase,
    /// The epoch that was claimed, if it came so far. It is used up.
    pub epoch: Option<VolumeEpoch>,
    /// Why.
    pub cause: OpenError,
}

/// How far a take has come.
pub(crate) struct Progress {
    phase: TakePhase,
    since: Instant,
    spent: [Duration; TakePhase::ALL.len()],
    epoch: Option<VolumeEpoch>,
}

impl Progress {
    fn begin() -> Self {
        Self {
            phase: TakePhase::Claim,
            since: Instant::now(),
            spent: Default::default(),
            epoch: None,
        }
    }

    /// The claim was won.
    pub(crate) fn won(&mut self, epoch: VolumeEpoch) {
        self.epoch = Some(epoch);
    }

    pub(crate) fn enter(&mut self, phase: TakePhase) {
        self.lap();
        self.phase = phase;
    }

    fn lap(&mut self) {
        let now = Instant::now();
        self.spent[self.phase as usize] += now - self.since;
        self.since = now;
    }
}

/// How long a take waits for coordinators on a volume that is served.
const COORDINATORS_WAIT: Duration = Duration::from_secs(10);

/// What was brought up and is not served yet.
struct Ready {
    volume: Arc<OwnedVolume>,
    recovered_bytes: u64,
    recovered_streams: usize,
}

struct Served {
    epoch: VolumeEpoch,
    recovered_bytes: u64,
    recovered_streams: usize,
}

impl Writer {
    /// Takes a volume over and serves it: claims it in the catalog, whoever has it, cuts the last owner off, reads
    /// back what is not in the bucket. Several at once do not wait for each other. Waits for a bucket
    /// or a device that does not answer for as long as `patience`, from the claim on.
    ///
    /// # Errors
    /// Nothing of the volume is served, and the claim was given back as far as the catalog could be told. Dropping
    /// the future has the same effect, but for the claim. It may be tried again, which claims a new epoch.
    pub async fn take(
        &self,
        place: &VolumePlace,
        patience: Duration,
    ) -> Result<Taken, Box<TakeError>> {
        self.take_on(place, TakeTerms::patient(patience)).await
    }

    /// The same as [`Self::take`], on these terms.
    ///
    /// # Errors
    /// See there; [`OpenError::Overtaken`] if another was first, which uses up no epoch.
    pub async fn take_on(
        &self,
        place: &VolumePlace,
        terms: TakeTerms,
    ) -> Result<Taken, Box<TakeError>> {
        let mut progress = Progress::begin();
        let volume = place.id;
        match self.inner.take(place, terms, &mut progress).await {
            Ok(served) => {
                progress.lap();
                let [claim, fence, recover, serve] = progress.spent;
                let taken = Taken {
                    volume,
                    epoch: served.epoch,
                    claim,
                    fence,
                    recover,
                    serve,
                    recovered_bytes: served.recovered_bytes,
                    recovered_streams: served.recovered_streams,
                };
                self.inner.metrics.ownership.taken(&progress.spent);
                tracing::info!(
                    volume = volume.0,
                    epoch = taken.epoch.0,
                    claim_ms = millis(claim),
                    fence_ms = millis(fence),
                    recover_ms = millis(recover),
                    serve_ms = millis(serve),
                    recovered_bytes = taken.recovered_bytes,
                    recovered_streams = taken.recovered_streams,
                    "volume taken"
                );
                Ok(taken)
            }
            Err(cause @ OpenError::Overtaken { .. }) => {
                tracing::debug!(volume = volume.0, "another node was first to claim a volume");
                Err(Box::new(TakeError { volume, phase: progress.phase, epoch: None, cause }))
            }
            Err(cause) => {
                let (phase, epoch) = (progress.phase, progress.epoch);
                self.inner.metrics.ownership.take_failed(phase);
                if let Some(epoch) = epoch {
                    self.inner.give_back(volume, epoch).await;
                }
                let error = TakeError { volume, phase, epoch, cause };
                let epoch = epoch.map(|epoch| epoch.0);
                let phase = phase.name();
                tracing::warn!(volume = volume.0, epoch, phase, error = %error.cause, "volume not taken");
                Err(Box::new(error))
            }
        }
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}

impl Inner {
    async fn take(
        self: &Arc<Self>,
        place: &VolumePlace,
        terms: TakeTerms,
        progress: &mut Progress,
    ) -> Result<Served, OpenError> {
        let reserved = self.volumes.reserve(place.id).await?;
        let patience = terms.patience;
        let ready = tokio::time::timeout(patience, self.bring_up(place, terms, progress)).await;
        let Ready { volume, recovered_bytes, recovered_streams } =
            ready.unwrap_or(Err(OpenError::TookTooLong { volume: place.id.0, patience }))?;
        let state = Arc::clone(volume.bucket_state());
        (self.on_shift)(Shift::Taken { volume: place.id, state });
        if let Err(closed) = reserved.serve(&volume) {
            (self.on_shift)(Shift::Gone { volume: place.id });
            volume.abandon().await;
            return Err(closed);
        }
        self.metrics.ownership.volumes.inc();
        let coordinators =
            self.has_coordinators(place.id).then(|| self.begin_coordinators(&volume));
        watch(self, &volume);
        moves::follow(self, &volume);
        // What was deleted or claimed meanwhile was told only to volumes that were served.
        volume.forget_unwanted(&self.around);
        self.fence_if_claimed(&volume);
        progress.lap();
        if let Some(loaded) = coordinators {
            // So that who takes a volume finds all of it there, if that is quick; its streams are served already.
            let _ = tokio::time::timeout(COORDINATORS_WAIT, loaded).await;
        }
        progress.since = Instant::now();
        Ok(Served { epoch: volume.epoch(), recovered_bytes, recovered_streams })
    }

    async fn bring_up(
        self: &Arc<Self>,
        place: &VolumePlace,
        terms: TakeTerms,
        progress: &mut Progress,
    ) -> Result<Ready, OpenError> {
        let TakeTerms { expected, tenure, .. } = terms;
        let recovered = Box::pin(take_over(place, expected, &self.around, progress)).await?;
        progress.enter(TakePhase::Serve);
        let Recovered { streams, frames, .. } = &recovered;
        let recovered_streams = streams.len();
        let recovered_bytes = frames.iter().map(|listed| listed.bytes).sum();
        let volume = Arc::new(OwnedVolume::start(recovered, tenure, &self.around, &self.metrics));
        Ok(Ready { volume, recovered_bytes, recovered_streams })
    }

    /// Gives up a volume in the catalog that is not served, if it is still ours there.
    pub(super) async fn give_back(&self, volume: VolumeId, epoch: VolumeEpoch) {
        let given = self.around.catalog.release_volume(volume, self.around.node, epoch);
        match tokio::time::timeout(GIVE_BACK, given).await {
            // Claimed by another meanwhile, which is as good.
            Ok(Ok(()) | Err(sluice_catalog::ReleaseVolumeError::NotOwner { .. })) => {}
            Ok(Err(error)) => {
                tracing::warn!(volume = volume.0, epoch = epoch.0, %error, "a claim was not given back");
            }
            Err(_) => {
                tracing::warn!(
                    volume = volume.0,
                    epoch = epoch.0,
                    "a claim was not given back in time"
                );
            }
        }
    }
}
