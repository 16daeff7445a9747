//! Streams that move from volume to volume: what the owners of both do about it.
//!
//! ```text
//!   catalog      source's owner                               target's owner
//!   wanted       upload; hold appends; upload the rest;
//!                commit Seal
//!   sealed       wait for the target, or give up and          read the sealed stream from the source's
//!                commit Unseal                                manifest; commit Adopt
//!   there        commit Depart                                serve
//! ```
//!
//! One task a volume follows the catalog, with one task for each stream that has something left to do. A task
//! looks at the catalog's store and at the volume's committed state, takes the one step that follows from both, and
//! looks again; so whatever a crash left half-way is taken up by the next owner, and a step that is repeated
//! does nothing.
//!
//! What always holds: a stream takes appends only on the volume that the catalog names, and not while that
//! volume's manifests have it sealed; it is opened again only when the store says that there is no move and that
//! it is here, so that no target can finish any more; a target lets the catalog name it only when a manifest of
//! its own has all of the stream.
//!
//! It does not decide what moves: that is said by [`sluice_catalog::Catalog::move_stream`].

mod lent;
mod source;
mod target;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sluice_catalog::store::Revision;
use sluice_catalog::{Change, StreamPlace};
use sluice_model::{StreamId, VolumeEpoch, VolumeId};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::commit::Step;
use crate::recovery::{key_of, stream_of};
use crate::stream::Standing;
use crate::volume_handle::OwnedVolume;
use crate::writer::Inner;

/// Streams that leave a volume at once: each holds its appends for as long as all uploads take.
const LEAVE_AT_ONCE: usize = 4;
/// The store, the bucket or the other volume is asked again after so long.
const ASK_AGAIN: Duration = Duration::from_millis(250);

/// Sees to a volume's streams that move.
pub(crate) struct Mover {
    inner: Weak<Inner>,
    volume: VolumeId,
    epoch: VolumeEpoch,
    leaving: Semaphore,
}

/// What is left to do for a stream.
enum Next {
    /// Nothing, until the catalog changes.
    Settled,
    /// To look again at once.
    Look,
    /// To look again when the catalog changes, or after so long.
    Wait(Duration),
}

/// A stream that is being seen to, and since when.
struct Errand {
    stream: StreamId,
    begun: Instant,
    /// The move for which it was sealed, and the version of the manifest that says so.
    sealed: Option<(Revision, u64)>,
    /// Since when it is known to be sealed and told to the target.
    published: Option<Instant>,
    /// How often it was held in vain.
    tries: u32,
}

/// Sees to the streams of a volume that was just taken, until its service ends.
pub(crate) fn follow(inner: &Arc<Inner>, volume: &OwnedVolume) {
    let changes = inner.around.catalog.subscribe();
    let lent_interval = inner.around.options.moves.lent_interval;
    let ended = volume.ended();
    let mover = Arc::new(Mover {
        inner: Arc::downgrade(inner),
        volume: volume.id,
        epoch: volume.epoch(),
        leaving: Semaphore::new(LEAVE_AT_ONCE),
    });
    tokio::spawn(async move {
        tokio::select! {
            () = ended => {}
            () = Arc::clone(&mover).run(changes) => {}
            () = mover.take_back_every(lent_interval) => {}
        }
    });
}

impl Mover {
    async fn run(self: Arc<Self>, mut changes: broadcast::Receiver<Change>) {
        let mut errands = JoinSet::new();
        let mut known: HashMap<StreamId, Arc<Notify>> = HashMap::new();
        // Told of something while they are seen to: looked at once more.
        let mut again: BTreeSet<StreamId> = BTreeSet::new();
        let mut due: Vec<StreamId> = self.unsettled();
        loop {
            for stream in due.drain(..) {
                if let Some(notify) = known.get(&stream) {
                    again.insert(stream);
                    notify.notify_one();
                    continue;
                }
                let notify = Arc::new(Notify::new());
                known.insert(stream, Arc::clone(&notify));
                errands.spawn(Arc::clone(&self).settle(stream, notify));
            }
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(Change::MoveChanged(moving)) if self.is_of(moving.from, moving.to) => {
                        due.push(moving.stream);
                    }
                    Ok(Change::MoveGone(moving)) if self.is_of(moving.from, moving.to) => {
                        if let Some(volume) = self.volume() {
                            // Whose appends are held looks where the stream is.
                            volume.moved().notify_waiters();
                        }
                        due.push(moving.stream);
                    }
                    // Nobody waits for the other volume any more.
                    Ok(Change::TopicDeleted(topic) | Change::TopicReplaced { old: topic, .. }) => {
                        let of_topic = known.keys().filter(|stream| stream.topic == topic.id);
                        due.extend(of_topic);
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Lagged(_)) => due = self.unsettled(),
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some(done) = errands.join_next() => match done {
                    Ok(stream) => {
                        known.remove(&stream);
                        if again.remove(&stream) {
                            due.push(stream);
                        }
                    }
                    Err(error) => {
                        tracing::error!(volume = self.volume.0, %error, "seeing to a stream that moves has failed");
                        // Whoever is still at it has a handle, too.
                        known.retain(|_, told| Arc::strong_count(told) > 1);
                        again.clear();
                    }
                },
            }
        }
    }

    fn is_of(&self, from: VolumeId, to: VolumeId) -> bool {
        from == self.volume || to == self.volume
    }

    /// The volume, while it is served under this epoch.
    fn volume(&self) -> Option<Arc<OwnedVolume>> {
        let volume = self.inner.upgrade()?.volumes.get(self.volume)?;
        (volume.epoch() == self.epoch).then_some(volume)
    }

    /// Streams for which something may be left to do.
    fn unsettled(&self) -> Vec<StreamId> {
        let (Some(inner), Some(volume)) = (self.inner.upgrade(), self.volume()) else {
            return Vec::new();
        };
        let moves = inner.around.catalog.moves();
        let moving = moves.iter().filter(|moving| self.is_of(moving.from, moving.to));
        let mut unsettled: BTreeSet<StreamId> = moving.map(|moving| moving.stream).collect();
        let named: Vec<(StreamId, bool)> = {
            let state = volume.bucket_state().read();
            state.streams.iter().map(|(key, known)| (stream_of(*key), known.sealed)).collect()
        };
        let strays = named.into_iter().filter(|(stream, sealed)| {
            let elsewhere = || inner.volume_of(*stream).is_some_and(|at| at != self.volume);
            !stream.topic.is_internal() && (*sealed || elsewhere())
        });
        unsettled.extend(strays.map(|(stream, _)| stream));
        unsettled.into_iter().collect()
    }

    async fn settle(self: Arc<Self>, stream: StreamId, told: Arc<Notify>) -> StreamId {
        let begun = Instant::now();
        let mut errand = Errand { stream, begun, sealed: None, published: None, tries: 0 };
        loop {
            let (Some(inner), Some(volume)) = (self.inner.upgrade(), self.volume()) else {
                return stream;
            };
            let next = self.look(&inner, &volume, &mut errand).await;
            drop((inner, volume));
            match next {
                Next::Settled => return stream,
                Next::Look => {}
                Next::Wait(time) => {
                    let _ = tokio::time::timeout(time, told.notified()).await;
                }
            }
        }
    }

    /// Takes the next step of a stream, if there is one.
    async fn look(&self, inner: &Inner, volume: &OwnedVolume, errand: &mut Errand) -> Next {
        let stream = errand.stream;
        let place = match inner.around.catalog.place_of(stream).await {
            Ok(place) => place,
            Err(error) => {
                tracing::warn!(%stream, %error, "the catalog cannot be asked about a stream that moves");
                return Next::Wait(ASK_AGAIN);
            }
        };
        let (is_here, is_sealed) = {
            let state = volume.bucket_state().read();
            let known = state.streams.get(&key_of(stream));
            (known.is_some(), known.is_some_and(|known| known.sealed))
        };
        match (place.volume, place.moving) {
            // The topic is gone: its streams go as those of any other.
            (None, Some(moving)) if moving.from == self.volume => {
                Self::give_up(inner, &place).await
            }
            (None, _) => Next::Settled,
            (Some(at), Some(moving)) if at == self.volume && moving.from == self.volume => {
                self.leave(inner, volume, &place, is_sealed, errand).await
            }
            (Some(at), _) if at == self.volume => {
                if is_sealed {
                    self.open(volume, stream).await
                } else {
                    Next::Settled
                }
            }
            (Some(_), Some(moving)) if moving.to == self.volume => match moving.sealed {
                Some(version) => self.take_in(inner, volume, &place, version, errand).await,
                None => Next::Settled,
            },
            (Some(_), _) if is_here => self.depart(volume, stream).await,
            (Some(_), _) => Next::Settled,
        }
    }

    /// The stream stays: the move was given up, here or by nobody's doing.
    async fn open(&self, volume: &OwnedVolume, stream: StreamId) -> Next {
        if volume.step(stream, Step::Unseal).await.is_err() {
            return Next::Settled;
        }
        // All that it has in memory is as it was: nothing was taken since.
        if let Some(known) = volume.stream_in_memory(stream) {
            known.stand(Standing::Here);
        }
        volume.moved().notify_waiters();
        tracing::info!(%stream, volume = self.volume.0, "a move was given up; the stream is served again");
        Next::Look
    }

    /// The stream is elsewhere, or was taken in for nothing.
    async fn depart(&self, volume: &OwnedVolume, stream: StreamId) -> Next {
        if volume.step(stream, Step::Depart).await.is_err() {
            return Next::Settled;
        }
        volume.drop_stream(stream);
        Next::Look
    }

    async fn give_up(inner: &Inner, place: &StreamPlace) -> Next {
        match inner.around.catalog.give_up_move(place).await {
            Ok(_) => Next::Look,
            Err(_) => Next::Wait(ASK_AGAIN),
        }
    }
}
