//! Segments that were lent to streams which moved away: the volume that they have their home in keeps them until
//! the streams name them no more.
//!
//! **Why looking once is enough.** A stream gets segments of this home only while it lies here. When it left,
//! its count of moves was `n`; whoever has it with a larger count has it from here, directly or not, and
//! each gets of this home's segments at most what the one before had. So what *any* committed state of *any*
//! volume has of the stream under a count above `n` holds all that will ever be named of ours, however old
//! that state is. What a target took in of a move that was given up keeps to that, as nothing changes a stream
//! that the catalog does not have there. Which volume to look at, the catalog's lookups say; if they are behind, the stream is not found, or
//! more than is needed is kept until the next look.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use sluice_format::{SegmentId, StreamKey, VolumeState};
use sluice_model::VolumeId;
use tokio::time::MissedTickBehavior;

use super::Mover;
use crate::commit::Step;
use crate::manifest_store::ManifestStore;
use crate::recovery::stream_of;
use crate::writer::Inner;

/// What a stream has of this home.
struct Loan {
    stream: StreamKey,
    moves: u32,
    lent: BTreeSet<SegmentId>,
}

impl Mover {
    pub(super) async fn take_back_every(&self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            ticks.tick().await;
            self.take_back().await;
        }
    }

    /// Takes back what is not named any more.
    async fn take_back(&self) {
        let (Some(inner), Some(volume)) = (self.inner.upgrade(), self.volume()) else { return };
        let mut loans: BTreeMap<VolumeId, Vec<Loan>> = BTreeMap::new();
        {
            let state = volume.bucket_state().read();
            for (key, departed) in &state.departed {
                let at = inner.volume_of(stream_of(*key)).filter(|at| *at != self.volume);
                if let Some(at) = at.filter(|_| !departed.lent.is_empty()) {
                    let lent = departed.lent.clone();
                    let loan = Loan { stream: *key, moves: departed.moves, lent };
                    loans.entry(at).or_default().push(loan);
                }
            }
        }
        let mut steps = Vec::new();
        for (at, loans) in loans {
            let Some(state) = state_of(&inner, at).await else { continue };
            let state = state.read();
            steps.extend(loans.iter().filter_map(|loan| {
                let returned = returned(&state, loan)?;
                Some((loan.stream, Step::Return(returned)))
            }));
        }
        if !steps.is_empty() {
            steps.sort_by_key(|(stream, _)| *stream);
            // If service ends before, the next owner looks again.
            let _ = volume.steps(steps).await;
        }
    }
}

/// What a state shows to be named no more; none if nothing.
fn returned(state: &VolumeState, loan: &Loan) -> Option<Vec<SegmentId>> {
    let known = state.streams.get(&loan.stream).filter(|known| known.moves > loan.moves)?;
    let named: BTreeSet<SegmentId> = known.extents.iter().map(|extent| extent.segment).collect();
    let returned: Vec<_> = loan.lent.difference(&named).copied().collect();
    (!returned.is_empty()).then_some(returned)
}

/// A committed state of a volume, whoever owns it; none if it cannot be read now.
async fn state_of(inner: &Inner, volume: VolumeId) -> Option<Arc<RwLock<VolumeState>>> {
    if let Some(served) = inner.volumes.get(volume) {
        return Some(Arc::clone(served.bucket_state()));
    }
    let around = &inner.around;
    let (bucket, keys) = (around.background.clone(), around.keys.clone());
    match ManifestStore::load(bucket, keys, volume.0, 0).await {
        Ok(store) => Some(Arc::clone(store.state())),
        Err(error) => {
            tracing::warn!(volume = volume.0, %error, "what other volumes name cannot be looked up");
            None
        }
    }
}
