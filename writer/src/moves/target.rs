//! Arriving: the sealed stream is read from the source's manifest, a manifest of this volume takes it in, and the
//! catalog names this volume from then on. Nothing is copied: the extents stay where they lie.

use object_store::ObjectStoreExt;
use object_store::path::Path;
use sluice_catalog::StreamPlace;
use sluice_format::{
    Carried, FormatError, Manifest, ManifestBody, MoveStep, StreamKey, VolumeState,
};
use sluice_model::VolumeId;

use super::{ASK_AGAIN, Errand, Mover, Next};
use crate::commit::Step;
use crate::manifest_store::{ManifestError, ManifestStore};
use crate::recovery::key_of;
use crate::volume_handle::OwnedVolume;
use crate::writer::Inner;

/// A stream as its source has sealed it.
struct Sealed {
    carried: Carried,
    /// The volume epoch of the source's owner, or of a later one.
    epoch: u32,
}

impl Mover {
    /// The stream is sealed elsewhere and is to be here.
    pub(super) async fn take_in(
        &self,
        inner: &Inner,
        volume: &OwnedVolume,
        place: &StreamPlace,
        version: u64,
        errand: &Errand,
    ) -> Next {
        let (stream, key) = (errand.stream, key_of(errand.stream));
        let Some(moving) = place.moving else { return Next::Look };
        let Sealed { mut carried, epoch } =
            match read_sealed(inner, moving.from, version, key).await {
                Ok(Some(sealed)) => sealed,
                // It was given up meanwhile.
                Ok(None) => return Next::Wait(ASK_AGAIN),
                Err(error) => {
                    tracing::warn!(%stream, %error, "a stream that is to move here cannot be read");
                    return Next::Wait(ASK_AGAIN);
                }
            };
        carried.stream.moves += 1;
        let moves = carried.stream.moves;
        let adopted = || {
            let state = volume.bucket_state().read();
            state.streams.get(&key).is_some_and(|known| known.moves == moves && !known.sealed)
        };
        if !adopted() {
            // The first leader epoch here is the next after the last one there that anybody may have heard of. Who
            // claimed the source after it was sealed is not told of as its leader (`Catalog::leader_epoch`).
            let claimed = inner.around.catalog.volume(moving.from).map_or(0, |from| from.epoch.0);
            let last = i64::from(carried.stream.leader_epoch(epoch.max(claimed)));
            let base = last + 1 - i64::from(self.epoch.0);
            carried.stream.epoch_base = i32::try_from(base).unwrap_or(i32::MAX);
            if volume.step(stream, Step::Adopt(Box::new(carried))).await.is_err() {
                return Next::Settled;
            }
            if !adopted() {
                return Next::Wait(ASK_AGAIN);
            }
            // What is in memory may be of an earlier stay. Not later: an older owner that took the stream in may
            // finish the move at any time, and then it is served.
            volume.drop_stream(stream);
        }
        let epoch_base = {
            let state = volume.bucket_state().read();
            state.streams.get(&key).map_or(0, |known| known.epoch_base)
        };
        match inner.around.catalog.finish_move(place, epoch_base).await {
            Ok(true) => {
                tracing::info!(
                    %stream, from = moving.from.0, to = moving.to.0, moves,
                    took_ms = errand.begun.elapsed().as_millis() as u64,
                    "a stream has moved"
                );
                Next::Settled
            }
            Ok(false) => Next::Look,
            Err(_) => Next::Wait(ASK_AGAIN),
        }
    }
}

/// The sealed stream: from the manifest that says so, or, if that is not there any more or another one was told
/// of, from the source's newest state. None if it is not sealed.
async fn read_sealed(
    inner: &Inner,
    from: VolumeId,
    version: u64,
    key: StreamKey,
) -> Result<Option<Sealed>, ManifestError> {
    let around = &inner.around;
    let path = around.keys.manifest(from.0, version);
    let manifest = match around.bucket.get(&Path::from(path.as_str())).await {
        Ok(found) => Some(decode(&found.bytes().await?, path, from, version)?),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(sealed) = manifest.and_then(|manifest| in_manifest(manifest, key)) {
        return Ok(Some(sealed));
    }
    let (bucket, keys) = (around.bucket.clone(), around.keys.clone());
    let store = ManifestStore::load(bucket, keys, from.0, version).await?;
    let sealed = in_state(&store.state().read(), key);
    Ok(sealed)
}

fn decode(
    bytes: &[u8],
    key: String,
    volume: VolumeId,
    version: u64,
) -> Result<Manifest, ManifestError> {
    let decoded = Manifest::decode(bytes).and_then(|manifest| {
        match (manifest.volume, manifest.version) == (volume.0, version) {
            true => Ok(manifest),
            false => Err(FormatError::Invalid { what: "manifest", why: "it is another one" }),
        }
    });
    decoded.map_err(|error| ManifestError::Corrupt { key, error })
}

fn in_manifest(manifest: Manifest, key: StreamKey) -> Option<Sealed> {
    let epoch = manifest.epoch();
    match manifest.body {
        ManifestBody::Full(state) => in_state(&state, key),
        ManifestBody::Change(change) => {
            change.moves.into_iter().find_map(|(of, step)| match step {
                MoveStep::Seal(carried) if of == key => Some(Sealed { carried: *carried, epoch }),
                _ => None,
            })
        }
    }
}

fn in_state(state: &VolumeState, key: StreamKey) -> Option<Sealed> {
    let is_sealed = state.streams.get(&key).is_some_and(|known| known.sealed);
    is_sealed.then(|| Sealed { carried: Carried::of(state, &key), epoch: state.epoch })
}
