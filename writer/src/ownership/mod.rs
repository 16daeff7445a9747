//! Which volumes a writer has, and how that changes: taken, released, lost.
//!
//! ```text
//!            take                     release, loss, close
//!   (none) ────────▶ Taking ──────▶ Serving ──────▶ Leaving ──────▶ (none)
//!                      │ failed                                       ▲
//!                      └──────────────────────────────────────────────┘
//! ```
//!
//! [`VolumeSet`] owns the places; the steps between them are in [`take`], [`release`] and [`loss`]. Volumes do
//! not wait for each other: a place is locked for the length of a look, never over an await.
//!
//! What always holds: a volume is served only while its place is Serving, so at most once in a process; a
//! place is free again only when the device is let go of; each take is under an epoch of its own.
//!
//! It does not decide who should have a volume: that is said by whoever calls.

mod loss;
mod release;
mod take;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::sync::Notify;

use crate::error::{OpenError, ReleaseError};
use crate::volume_handle::OwnedVolume;

pub(crate) use self::loss::{Follower, watch};
pub use self::loss::{Loss, LossReason};
pub use self::release::Released;
pub(crate) use self::release::upload;
pub(crate) use self::take::Progress;
pub use self::take::{TakeError, TakePhase, Taken};

enum Place {
    Taking,
    Serving {
        volume: Arc<OwnedVolume>,
        is_releasing: bool,
    },
    /// `held`: appends wait until the volume is given up, so that whoever is told to look for its owner finds one.
    Leaving {
        held: bool,
    },
}

#[derive(Default)]
struct Places {
    by_id: BTreeMap<VolumeId, Place>,
    closed: bool,
}

/// The volumes of a writer, and where each is in its life here.
#[derive(Default)]
pub(crate) struct VolumeSet {
    places: RwLock<Places>,
    /// A place has become free.
    freed: Notify,
}

/// The right to bring a volume up; the place is free again if that comes to nothing.
pub(crate) struct Reserved<'a> {
    set: &'a VolumeSet,
    id: VolumeId,
}

impl VolumeSet {
    /// The volume, if it is served.
    pub(crate) fn get(&self, id: VolumeId) -> Option<Arc<OwnedVolume>> {
        match self.places.read().by_id.get(&id)? {
            Place::Serving { volume, .. } if volume.is_serving() => Some(Arc::clone(volume)),
            _ => None,
        }
    }

    /// All that are served, by id.
    pub(crate) fn all(&self) -> Vec<Arc<OwnedVolume>> {
        let places = self.places.read();
        let serving = places.by_id.values().filter_map(|place| match place {
            Place::Serving { volume, .. } if volume.is_serving() => Some(Arc::clone(volume)),
            _ => None,
        });
        serving.collect()
    }

    /// A place for a volume that is to be taken; waits while it is being let go of.
    pub(crate) async fn reserve(&self, id: VolumeId) -> Result<Reserved<'_>, OpenError> {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            {
                let mut places = self.places.write();
                if places.closed {
                    return Err(OpenError::Closed);
                }
                match places.by_id.get(&id) {
                    None => {
                        places.by_id.insert(id, Place::Taking);
                        return Ok(Reserved { set: self, id });
                    }
                    Some(Place::Leaving { .. }) => {}
                    Some(Place::Taking | Place::Serving { .. }) => {
                        return Err(OpenError::Here { volume: id.0 });
                    }
                }
            }
            freed.await;
        }
    }

    /// The volume, to be released by the caller and by nobody else.
    fn begin_release(&self, id: VolumeId) -> Result<Arc<OwnedVolume>, ReleaseError> {
        match self.places.write().by_id.get_mut(&id) {
            Some(Place::Serving { volume, is_releasing }) if volume.is_serving() => {
                if std::mem::replace(is_releasing, true) {
                    return Err(ReleaseError::UnderWay { volume: id.0 });
                }
                Ok(Arc::clone(volume))
            }
            Some(Place::Leaving { .. }) => Err(ReleaseError::UnderWay { volume: id.0 }),
            _ => Err(ReleaseError::NotHere { volume: id.0 }),
        }
    }

    /// A release comes to nothing before anything was sealed.
    fn end_release(&self, id: VolumeId, epoch: VolumeEpoch) {
        if let Some(Place::Serving { volume, is_releasing }) =
            self.places.write().by_id.get_mut(&id)
            && volume.epoch() == epoch
        {
            *is_releasing = false;
        }
    }

    /// Serves the volume no more; whoever gets it closes it, and then frees the place. None if somebody else does.
    fn leave(&self, id: VolumeId, epoch: VolumeEpoch, held: bool) -> Option<Arc<OwnedVolume>> {
        let mut places = self.places.write();
        match places.by_id.get_mut(&id)? {
            place @ Place::Serving { .. } => {
                let Place::Serving { volume, .. } = place else { return None };
                if volume.epoch() != epoch {
                    return None;
                }
                let volume = Arc::clone(volume);
                *place = Place::Leaving { held };
                Some(volume)
            }
            Place::Taking | Place::Leaving { .. } => None,
        }
    }

    fn free(&self, id: VolumeId) {
        self.places.write().by_id.remove(&id);
        self.freed.notify_waiters();
    }

    /// Returns when a volume that is being handed over is given up; at once for any other.
    pub(crate) async fn handed_over(&self, id: VolumeId) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            let is_held =
                matches!(self.places.read().by_id.get(&id), Some(Place::Leaving { held: true }));
            if !is_held {
                return;
            }
            freed.await;
        }
    }

    /// No volume is taken any more. Gives all that were served, whose places stay taken.
    pub(crate) fn close(&self) -> Vec<Arc<OwnedVolume>> {
        let mut places = self.places.write();
        places.closed = true;
        let mut served = Vec::new();
        for place in places.by_id.values_mut() {
            if let Place::Serving { volume, .. } = place {
                served.push(Arc::clone(volume));
                *place = Place::Leaving { held: false };
            }
        }
        served
    }
}

impl Reserved<'_> {
    /// Serves the volume from now on; gives it back if the writer was closed meanwhile.
    fn serve(self, volume: &Arc<OwnedVolume>) -> Result<(), OpenError> {
        let mut places = self.set.places.write();
        if places.closed {
            return Err(OpenError::Closed);
        }
        let volume = Arc::clone(volume);
        places.by_id.insert(self.id, Place::Serving { volume, is_releasing: false });
        Ok(())
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut places = self.set.places.write();
        if matches!(places.by_id.get(&self.id), Some(Place::Taking)) {
            places.by_id.remove(&self.id);
            drop(places);
            self.set.freed.notify_waiters();
        }
    }
}
