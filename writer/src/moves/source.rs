//! Leaving: the stream's records go to the bucket with all others of the volume, first while appends go on, then
//! the little that is left while the stream's are held; a manifest says that the stream is sealed, and carries it.

use std::time::Duration;

use sluice_catalog::{Catalog, StreamPlace};
use sluice_model::{StreamId, VolumeId};
use tokio::time::Instant;

use super::{ASK_AGAIN, Errand, Mover, Next};
use crate::commit::Step;
use crate::ownership::upload;
use crate::recovery::key_of;
use crate::stream::{Standing, Stream};
use crate::volume_handle::OwnedVolume;
use crate::writer::Inner;

/// Uploading before appends are held takes at most so long.
const UPLOAD_WITHIN: Duration = Duration::from_secs(10);
/// A target that nobody owns is waited for, for so long.
const TARGET_WITHIN: Duration = Duration::from_secs(30);
/// A stream is held in vain so often: the bucket or the device is too slow.
const MOST_TRIES: u32 = 5;

impl Mover {
    /// The stream is here and is to leave.
    pub(super) async fn leave(
        &self,
        inner: &Inner,
        volume: &OwnedVolume,
        place: &StreamPlace,
        is_sealed: bool,
        errand: &mut Errand,
    ) -> Next {
        let Some(moving) = place.moving else { return Next::Look };
        if moving.sealed.is_some() {
            // Told, but not sealed: the volume's manifests are older ones than those that were told of.
            if !is_sealed {
                return Self::give_up(inner, place).await;
            }
            if errand.sealed.is_none_or(|(_, version)| moving.sealed != Some(version)) {
                // Of an owner before: how long the target had is not known.
                errand.sealed = moving.sealed.map(|version| (place.moved, version));
                errand.published = None;
            }
            let published = *errand.published.get_or_insert_with(Instant::now);
            let patience = inner.around.options.moves.patience;
            let left = patience.saturating_sub(published.elapsed());
            if left.is_zero() {
                tracing::warn!(
                    stream = %errand.stream, from = moving.from.0, to = moving.to.0,
                    "a stream was not taken in by the volume that it was to move to; it stays"
                );
                return Self::give_up(inner, place).await;
            }
            return Next::Wait(left);
        }
        if is_sealed {
            return match errand.sealed {
                Some((sealed_for, version)) if sealed_for == place.moved => {
                    Self::publish(inner, place, version).await
                }
                // By an owner before, or for a move that was given up: a target of that one may have taken it in,
                // and two may never have a stream under one count of moves.
                _ => self.open(volume, errand.stream).await,
            };
        }
        if !is_owned(&inner.around.catalog, moving.to) {
            if errand.begun.elapsed() >= TARGET_WITHIN {
                tracing::warn!(
                    stream = %errand.stream, to = moving.to.0,
                    "nobody owns the volume that a stream is to move to; it stays"
                );
                return Self::give_up(inner, place).await;
            }
            return Next::Wait(ASK_AGAIN);
        }
        if errand.tries >= MOST_TRIES {
            tracing::warn!(
                stream = %errand.stream,
                "uploads to the bucket are too slow for a stream to move; it stays"
            );
            return Self::give_up(inner, place).await;
        }
        let Ok(_permit) = self.leaving.acquire().await else { return Next::Settled };
        errand.tries += 1;
        upload(volume, UPLOAD_WITHIN).await;
        match self.seal(inner, volume, errand.stream).await {
            Some(version) => {
                errand.sealed = Some((place.moved, version));
                Self::publish(inner, place, version).await
            }
            None => Next::Wait(ASK_AGAIN * errand.tries),
        }
    }

    /// Holds the stream's appends, uploads what is left, and commits that it is sealed. Gives the manifest's version;
    /// none if that took too long, and the stream is served as before.
    async fn seal(&self, inner: &Inner, volume: &OwnedVolume, stream: StreamId) -> Option<u64> {
        let held = Held::new(volume, stream)?;
        let begun = Instant::now();
        let uploaded = async {
            volume.settle().await.ok()?;
            volume.flush().await;
            Some(())
        };
        let within = inner.around.options.moves.hold;
        tokio::time::timeout(within, uploaded).await.ok()??;
        if !held.stream.is_covered(&volume.bucket_state().read()) {
            return None;
        }
        // From here on the volume's manifests say what the stream is: while it is not known whether they have it
        // sealed, it takes nothing.
        let stream = held.away();
        let committed = volume.step(stream.id, Step::Seal).await.ok()?;
        let is_sealed = {
            let state = volume.bucket_state().read();
            state.streams.get(&key_of(stream.id)).is_some_and(|known| known.sealed)
        };
        if !is_sealed {
            stream.stand(Standing::Here);
            volume.moved().notify_waiters();
            return None;
        }
        tracing::info!(
            stream = %stream.id,
            volume = volume.id.0,
            version = committed.version,
            held_ms = begun.elapsed().as_millis() as u64,
            "a stream is sealed and about to move"
        );
        Some(committed.version)
    }

    async fn publish(inner: &Inner, place: &StreamPlace, version: u64) -> Next {
        match inner.around.catalog.publish_seal(place, version).await {
            Ok(_) => Next::Look,
            Err(_) => Next::Wait(ASK_AGAIN),
        }
    }
}

/// Whether somebody who lives, as far as that is known, owns a volume.
fn is_owned(catalog: &Catalog, volume: VolumeId) -> bool {
    let owner = catalog.volume(volume).and_then(|volume| volume.owner);
    owner.is_some_and(|owner| catalog.node(owner).is_some() || catalog.nodes().is_empty())
}

/// A stream whose appends are held; served again when this is dropped.
struct Held<'a> {
    volume: &'a OwnedVolume,
    stream: std::sync::Arc<Stream>,
}

impl<'a> Held<'a> {
    /// None if it is not served.
    fn new(volume: &'a OwnedVolume, stream: StreamId) -> Option<Self> {
        let stream = volume.stream(stream);
        stream.hold().then_some(Self { volume, stream })
    }

    /// It is not to be served again by this.
    fn away(self) -> std::sync::Arc<Stream> {
        self.stream.stand(Standing::Away);
        std::sync::Arc::clone(&self.stream)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.stream.standing() == Standing::Held {
            self.stream.stand(Standing::Here);
            self.volume.moved().notify_waiters();
        }
    }
}
