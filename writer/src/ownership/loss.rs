//! Losing a volume: a fence was met, another owner is in the catalog, or the log cannot go on. That volume alone
//! stops: its queues are dropped, which answers every append, its files are closed, and coordinators that live on
//! it end. The others do not notice.

use std::sync::{Arc, Weak};

use sluice_catalog::{Change, Topic};
use sluice_model::{VolumeEpoch, VolumeId};
use tokio::sync::broadcast;

use crate::options::Shift;
use crate::volume_handle::OwnedVolume;
use crate::writer::Inner;

/// Why a volume was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The catalog has it under a newer epoch, or not at all any more.
    Claimed,
    /// The device or the bucket refused it, or its log cannot go on; the catalog knows of no other owner.
    Fenced,
}

/// A volume that was lost: nothing of it is served any more, and its device is let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The volume.
    pub volume: VolumeId,
    /// The epoch under which it was served.
    pub epoch: VolumeEpoch,
    /// Why, as far as it is known.
    pub reason: LossReason,
}

/// Sees to it that the volume is let go of when its service ends.
pub(crate) fn watch(inner: &Arc<Inner>, volume: &OwnedVolume) {
    let (id, epoch, ended) = (volume.id, volume.epoch(), volume.ended());
    let inner = Arc::downgrade(inner);
    tokio::spawn(async move {
        ended.await;
        if let Some(inner) = inner.upgrade() {
            inner.lose(id, epoch).await;
        }
    });
}

impl Inner {
    async fn lose(&self, id: VolumeId, epoch: VolumeEpoch) {
        // None if it is being released or closed, which is no loss.
        let Some(volume) = self.volumes.leave(id, epoch, false) else { return };
        self.stop_coordinators(id);
        (self.on_shift)(Shift::Gone { volume: id });
        volume.wake_readers();
        volume.abandon().await;
        drop(volume);
        let known = self.around.catalog.volume(id);
        let reason = match known {
            Some(known) if known.epoch <= epoch => LossReason::Fenced,
            Some(_) | None => LossReason::Claimed,
        };
        self.metrics.ownership.volumes.dec();
        self.metrics.ownership.lost.inc();
        tracing::warn!(volume = id.0, epoch = epoch.0, ?reason, "volume lost; the others go on");
        self.volumes.free(id);
        // Nobody listening is no error.
        let _ = self.losses.send(Loss { volume: id, epoch, reason });
        if reason == LossReason::Fenced {
            // Nobody would claim what seems to have a living owner.
            self.give_back(id, epoch).await;
        }
    }

    /// Stops serving a volume that the catalog says is another's.
    pub(super) fn fence_if_claimed(&self, volume: &OwnedVolume) {
        let known = self.around.catalog.volume(volume.id);
        if known.is_none_or(|known| known.epoch > volume.epoch()) {
            volume.fence();
        }
    }
}

/// Follows the catalog for the volumes that are served.
pub(crate) struct Follower(pub(crate) Weak<Inner>);

impl Follower {
    /// Claims by others. Apart from deletions, which may have to wait for a log.
    pub(crate) async fn watch_claims(self, mut changes: broadcast::Receiver<Change>) {
        loop {
            let change = changes.recv().await;
            let Some(inner) = self.0.upgrade() else { return };
            match change {
                Ok(Change::VolumeChanged(changed) | Change::VolumeGone(changed)) => {
                    if let Some(volume) = inner.volumes.get(changed.spec.id) {
                        inner.fence_if_claimed(&volume);
                    }
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    for volume in inner.volumes.all() {
                        inner.fence_if_claimed(&volume);
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Deleted topics.
    pub(crate) async fn watch_topics(self, mut changes: broadcast::Receiver<Change>) {
        loop {
            let change = changes.recv().await;
            let Some(inner) = self.0.upgrade() else { return };
            match change {
                Ok(Change::TopicDeleted(topic) | Change::TopicReplaced { old: topic, .. }) => {
                    inner.forget(&topic).await;
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(
                        missed,
                        "changes of the catalog were missed; looking at all streams"
                    );
                    for volume in inner.volumes.all() {
                        volume.forget_unwanted(&inner.around);
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

impl Inner {
    async fn forget(&self, topic: &Topic) {
        for volume in self.volumes.all() {
            volume.forget(topic.id);
        }
        let Some(here) = self.coordinators.here() else { return };
        if let Err(error) = here.groups.forget_topic(topic.tenant, topic.id).await {
            // Offsets of a topic that does not exist are never shown; they cost room.
            tracing::warn!(topic = %topic.id, %error, "offsets of a deleted topic stay for now");
        }
        if let Err(error) = here.shares.forget_topic(topic.tenant, topic.id).await {
            tracing::warn!(topic = %topic.id, %error, "share state of a deleted topic stays for now");
        }
    }
}
