//! Copying a cluster's objects from one bucket to another, through this process.

use std::sync::Arc;

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart,
};
use sluice_format::key::Keys;

use super::super::progress::Progress;
use super::plan::Plan;

/// Objects that are copied at once.
const AT_ONCE: usize = 8;
/// Up to this size an object is put at once; larger ones in parts of this size.
const PART_BYTES: u64 = 8 << 20;

/// Copies all of the cluster's objects. What a manifest names is copied after the manifest; what is
/// deleted meanwhile is missed, which is seen at the end.
pub(super) async fn cluster(
    from: &Arc<dyn ObjectStore>,
    to: &Arc<dyn ObjectStore>,
    keys: &Keys,
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let taken = Path::from(keys.marker());
    match to.head(&taken).await {
        Ok(_) => bail!("the bucket to copy to has this cluster already: choose an empty one"),
        Err(Error::NotFound { .. }) => {}
        Err(error) => return Err(error).context("cannot look into the bucket to copy to"),
    }
    let cluster = keys.marker();
    let cluster = cluster.rsplit('/').next().unwrap_or_default().to_owned();
    let listed: Vec<Path> = from
        .list(None)
        .map_ok(|meta| meta.location)
        .try_filter(|path| {
            std::future::ready(path.as_ref().split('/').nth(1) == Some(cluster.as_str()))
        })
        .try_collect()
        .await
        .context("cannot list the bucket to copy from")?;
    let is_data = |path: &Path| {
        let part = path.as_ref().split('/').nth(2);
        part != Some("manifests") && part != Some("catalog")
    };
    // The marker comes last: a copy that was cut short is no cluster.
    let (data, names): (Vec<Path>, Vec<Path>) =
        listed.into_iter().filter(|path| *path != taken).partition(is_data);
    let count = data.len() + names.len();
    let mut done = 0;
    for paths in [names, data] {
        let mut copies =
            stream::iter(paths).map(|path| one(from, to, path)).buffer_unordered(AT_ONCE);
        while let Some(copied) = copies.next().await {
            copied?;
            done += 1;
            progress.show(|| format!("{done} of {count} objects copied"));
        }
    }
    complete(to, keys).await?;
    to.put(&taken, PutPayload::new()).await.context("cannot write the cluster's marker")?;
    Ok(())
}

async fn one(
    from: &Arc<dyn ObjectStore>,
    to: &Arc<dyn ObjectStore>,
    path: Path,
) -> anyhow::Result<()> {
    let failed = || format!("cannot copy {path}");
    let found = match from.get(&path).await {
        Ok(found) => found,
        // Deleted meanwhile.
        Err(Error::NotFound { .. }) => return Ok(()),
        Err(error) => return Err(error).with_context(failed),
    };
    if found.meta.size <= PART_BYTES {
        let bytes = found.bytes().await.with_context(failed)?;
        to.put(&path, bytes.into()).await.with_context(failed)?;
        return Ok(());
    }
    let upload: Box<dyn MultipartUpload> = to.put_multipart(&path).await.with_context(failed)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_BYTES as usize);
    let mut bytes = found.into_stream();
    while let Some(chunk) = bytes.try_next().await.with_context(failed)? {
        upload.wait_for_capacity(2).await.with_context(failed)?;
        upload.put(chunk);
    }
    upload.finish().await.with_context(failed)?;
    Ok(())
}

/// Whether the copy has all that its manifests name.
async fn complete(to: &Arc<dyn ObjectStore>, keys: &Keys) -> anyhow::Result<()> {
    let plan = Plan::read(to, keys).await.context("the copy is of no use")?;
    for volume in &plan.volumes {
        let snapshot = volume.state.coordinator.map(|snapshot| keys.snapshot(snapshot.id));
        let segments = volume.state.segments.keys().map(|id| keys.segment(*id));
        for key in segments.chain(snapshot) {
            match to.head(&Path::from(key.as_str())).await {
                Ok(_) => {}
                Err(Error::NotFound { .. }) => bail!(
                    "{key} was deleted while it was to be copied: the old cluster still runs. Empty the \
                     bucket to copy to, and try again"
                ),
                Err(error) => return Err(error).with_context(|| key),
            }
        }
    }
    Ok(())
}
