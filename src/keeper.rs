//! What a process does when it loses a volume: the others go on, and it takes the lost one back, under a new epoch,
//! unless the catalog says that another node has it.
//!
//! It ends the process only when that is better than going on: when nothing is served any more and the first
//! try to take each volume back has failed, since a supervisor's new start begins from scratch and says what is wrong;
//! and when a volume has an owner that this catalog does not know, on the device or in the bucket, which means that
//! the cluster was restored or started elsewhere: what is acknowledged here would be lost.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_catalog::Catalog;
use sluice_model::{NodeId, VolumeId};
use sluice_writer::{ManifestError, OpenError, VolumePlace, Writer};
use tokio::task::JoinSet;

/// How long a volume that does not answer is waited for before the claim is given back and tried again.
const PATIENCE: Duration = Duration::from_secs(30);
/// The first pause after a try that failed; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a process may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is served, and nothing could be taken.
    NothingLeft,
    /// A volume has a newer owner than the catalog knows.
    Foreign,
}

impl End {
    /// For whoever looks why the process has ended.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::NothingLeft => {
                "all volumes were lost: other owners have them, or their logs cannot go on"
            }
            Self::Foreign => {
                "a volume has a newer owner that this catalog does not know: was the cluster restored or started \
                 elsewhere?"
            }
        }
    }
}

/// Where a volume is that is not served.
enum Missing {
    /// So many tries to take it back have failed.
    Tried(u32),
    /// Another node has it.
    Elsewhere,
}

enum Tried {
    Back,
    Elsewhere,
    Foreign,
    Failed,
}

/// Keeps the volumes of a process.
pub(crate) struct Keeper {
    node: NodeId,
    catalog: Catalog,
    writer: Writer,
    places: BTreeMap<VolumeId, VolumePlace>,
}

impl Keeper {
    /// Of the volumes at `places`, which the writer has taken.
    pub(crate) fn new(
        node: NodeId,
        catalog: Catalog,
        writer: Writer,
        places: Vec<VolumePlace>,
    ) -> Self {
        let places = places.into_iter().map(|place| (place.id, place)).collect();
        Self { node, catalog, writer, places }
    }

    /// Returns when the process may not go on.
    pub(crate) async fn run(&self) -> End {
        let mut losses = self.writer.losses();
        let mut missing: BTreeMap<VolumeId, Missing> = BTreeMap::new();
        let mut tries = JoinSet::new();
        loop {
            // By what is served, not by what was told: so nothing that was lost before, or missed, is forgotten.
            let served = self.writer.volumes();
            for (id, place) in &self.places {
                let is_served = served.iter().any(|(volume, _)| volume == id);
                if !is_served && !missing.contains_key(id) {
                    missing.insert(*id, Missing::Tried(0));
                    tries.spawn(self.take_back(place.clone(), Duration::ZERO));
                }
            }
            let hopeless = |at: &Missing| !matches!(at, Missing::Tried(0));
            if served.is_empty() && missing.values().all(hopeless) {
                return End::NothingLeft;
            }
            tokio::select! {
                // Whatever it says, what is served is looked at again. The writer outlives its senders.
                _ = losses.recv() => {}
                Some(tried) = tries.join_next() => {
                    // It was not aborted; a panic was logged.
                    let Ok((place, tried)) = tried else { continue };
                    match tried {
                        Tried::Back => drop(missing.remove(&place.id)),
                        Tried::Elsewhere => drop(missing.insert(place.id, Missing::Elsewhere)),
                        Tried::Foreign => return End::Foreign,
                        Tried::Failed => {
                            let before = match missing.get(&place.id) {
                                Some(Missing::Tried(before)) => *before,
                                Some(Missing::Elsewhere) | None => 0,
                            };
                            missing.insert(place.id, Missing::Tried(before.saturating_add(1)));
                            let pause = (FIRST_PAUSE * 2u32.pow(before.min(6))).min(LONGEST_PAUSE);
                            tries.spawn(self.take_back(place, pause));
                        }
                    }
                }
            }
        }
    }

    /// One try, after a pause. Logged by the writer.
    fn take_back(
        &self,
        place: VolumePlace,
        pause: Duration,
    ) -> impl Future<Output = (VolumePlace, Tried)> + Send + use<> {
        let (node, catalog, writer) = (self.node, self.catalog.clone(), self.writer.clone());
        async move {
            tokio::time::sleep(pause).await;
            let owner = catalog.volume(place.id).and_then(|volume| volume.owner);
            if owner.is_some_and(|owner| owner != node) {
                tracing::info!(volume = place.id.0, ?owner, "a volume is another node's now");
                return (place, Tried::Elsewhere);
            }
            let tried = match Box::pin(writer.take(&place, PATIENCE)).await {
                Ok(_) => Tried::Back,
                Err(error) => match error.cause {
                    // The epoch is new in the catalog: whoever has it, or a larger one, is not of this catalog.
                    OpenError::Manifest(ManifestError::Fenced(_))
                    | OpenError::Volume {
                        error: sluice_volume::OpenError::Fenced { .. }, ..
                    } => Tried::Foreign,
                    OpenError::Here { .. } => Tried::Back,
                    _ => Tried::Failed,
                },
            };
            (place, tried)
        }
    }
}
