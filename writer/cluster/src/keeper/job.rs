//! What a keeper has done beside it, one job a volume. Each change of owner is one line of the log, with its phases.

use std::sync::Arc;
use std::time::Duration;

use sluice_model::{NodeId, VolumeEpoch, VolumeId};
use sluice_writer::{OpenError, ReleaseError, TakeTerms, VolumePlace};

use crate::members::MembersParts;

/// A job has ended.
pub(super) struct Done {
    pub(super) volume: VolumeId,
    pub(super) outcome: Outcome,
}

/// What came of it.
pub(super) enum Outcome {
    /// The volume is served here.
    Served,
    /// It has an owner that the catalog does not know.
    Foreign,
    /// It could not be taken.
    NotTaken(String),
    /// Another node has it, or will.
    Elsewhere,
    /// Another node was first to claim it.
    Overtaken,
    /// The catalog says what it was to say.
    Noted,
    /// It does not.
    NotNoted(String),
}

/// A volume that is to be taken.
pub(super) struct Take {
    pub(super) place: VolumePlace,
    pub(super) terms: TakeTerms,
    pub(super) from: Option<NodeId>,
    /// Who should have had it, and did not take it in time.
    pub(super) overruled: Option<NodeId>,
    pub(super) cause: &'static str,
    /// Since when nobody serves it, as far as it is known.
    pub(super) detect: Duration,
}

pub(super) fn take(
    parts: &Arc<MembersParts>,
    take: Take,
) -> impl Future<Output = Outcome> + Send + use<> {
    let parts = Arc::clone(parts);
    async move {
        let Take { place, terms, from, overruled, cause, detect } = take;
        match Box::pin(parts.writer.take_on(&place, terms)).await {
            Ok(taken) => {
                parts.metrics.taken(cause, detect, &taken);
                tracing::info!(
                    volume = taken.volume.0,
                    epoch = taken.epoch.0,
                    from = from.map(|node| node.0),
                    to = parts.spec.id.0,
                    cause,
                    detect_ms = millis(detect),
                    claim_ms = millis(taken.claim),
                    fence_ms = millis(taken.fence),
                    recover_ms = millis(taken.recover),
                    serve_ms = millis(taken.serve),
                    recovered_bytes = taken.recovered_bytes,
                    "a volume has a new owner"
                );
                if let Some(overruled) = overruled
                    && let Err(error) = parts.catalog.settle_volume(taken.volume, overruled).await
                {
                    tracing::debug!(volume = taken.volume.0, %error, "an old wish stands still");
                }
                Outcome::Served
            }
            Err(error) => match error.cause {
                OpenError::Overtaken { .. } => Outcome::Overtaken,
                OpenError::Closed => Outcome::Elsewhere,
                OpenError::Here { .. } => Outcome::Served,
                cause if cause.is_fenced() => {
                    let claimed = error.epoch.unwrap_or(VolumeEpoch(0));
                    foreign(&parts, place.id, claimed, &cause).await
                }
                cause => Outcome::NotTaken(cause.to_string()),
            },
        }
    }
}

/// A newer owner was met on the device or in the bucket. In a cluster it may be one that claimed the volume meanwhile;
/// if the catalog knows of none, it is not of this cluster.
async fn foreign(
    parts: &MembersParts,
    id: VolumeId,
    claimed: VolumeEpoch,
    cause: &OpenError,
) -> Outcome {
    match parts.catalog.read_volume(id).await {
        Ok(Some(volume)) if volume.epoch <= claimed => Outcome::Foreign,
        Ok(_) => Outcome::Elsewhere,
        Err(error) => Outcome::NotTaken(format!("{cause}; the catalog cannot be asked: {error}")),
    }
}

/// Notes who shall have the volume, unless it is noted, and releases it.
pub(super) fn hand_over(
    parts: &Arc<MembersParts>,
    id: VolumeId,
    wanted: Option<NodeId>,
    to: NodeId,
    flush: Duration,
) -> impl Future<Output = Outcome> + Send + use<> {
    let parts = Arc::clone(parts);
    async move {
        if wanted != Some(to)
            && let Err(error) = parts.catalog.want_volume(id, Some(to)).await
        {
            return Outcome::NotNoted(error.to_string());
        }
        match Box::pin(parts.writer.release(id, flush)).await {
            Ok(released) => {
                parts.metrics.handovers.inc();
                tracing::info!(
                    volume = id.0,
                    epoch = released.epoch.0,
                    from = parts.spec.id.0,
                    to = to.0,
                    flush_ms = millis(released.flush),
                    close_ms = millis(released.close),
                    give_up_ms = millis(released.give_up),
                    left_bytes = released.left_bytes,
                    "a volume was handed over"
                );
                Outcome::Elsewhere
            }
            // It is seen in the catalog, and in what is served, what comes next.
            Err(
                ReleaseError::NotHere { .. }
                | ReleaseError::UnderWay { .. }
                | ReleaseError::Lost { .. },
            ) => Outcome::Noted,
            Err(error @ ReleaseError::NotGivenUp { .. }) => Outcome::NotNoted(error.to_string()),
        }
    }
}

/// Notes that what `was` wanted has come to its end.
pub(super) fn settle(
    parts: &Arc<MembersParts>,
    id: VolumeId,
    was: NodeId,
) -> impl Future<Output = Outcome> + Send + use<> {
    let parts = Arc::clone(parts);
    async move {
        match parts.catalog.settle_volume(id, was).await {
            Ok(()) => Outcome::Noted,
            Err(error) => Outcome::NotNoted(error.to_string()),
        }
    }
}

/// Gives up a volume that the catalog says is ours, which is not served and shall not be.
pub(super) fn give_up(
    parts: &Arc<MembersParts>,
    id: VolumeId,
    epoch: VolumeEpoch,
) -> impl Future<Output = Outcome> + Send + use<> {
    let parts = Arc::clone(parts);
    async move {
        match parts.catalog.release_volume(id, parts.spec.id, epoch).await {
            Ok(()) | Err(sluice_catalog::ReleaseVolumeError::NotOwner { .. }) => Outcome::Noted,
            Err(error) => Outcome::NotNoted(error.to_string()),
        }
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}
