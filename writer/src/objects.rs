//! Putting objects into the bucket, for as long as it takes.
//!
//! A large object goes in parts, several at a time. If a part fails the whole upload is aborted, so that
//! nothing is left behind, and begun again: the name is written by nobody else and always with the same
//! bytes, so an object that is there already because an answer was lost does no harm. An upload that is
//! cut off by a crash leaves parts behind, which orphan collection finds.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutOptions, PutPayload};
use sluice_model::SendPace;
use tokio::sync::watch;

use crate::commit::Ended;
use crate::metrics::WriterMetrics;
use crate::task::TaskState;

/// The first pause between tries; each is twice the one before, up to the longest.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Parts of one object that are on their way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// Sleeps, and gives the next pause.
pub(crate) async fn rest(pause: Duration) -> Duration {
    tokio::time::sleep(pause).await;
    (pause * 2).min(LONGEST_PAUSE)
}

/// The bucket as the owner of a volume writes to it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) bucket: Arc<dyn ObjectStore>,
    pub(crate) task: watch::Receiver<TaskState>,
    pub(crate) metrics: WriterMetrics,
    /// Larger objects go in parts.
    pub(crate) multipart_above_bytes: u64,
    /// The length of every part but the last. S3 wants at least 5 MiB.
    pub(crate) part_bytes: u64,
}

impl Objects {
    /// Puts an object under a name that nobody else ever writes; tries again while the volume is ours.
    /// Dropped halfway it may leave the object or parts of it.
    ///
    /// `pace` holds for what is put in one request.
    pub(crate) async fn put(
        &self,
        key: &str,
        payload: &PutPayload,
        pace: Option<SendPace>,
    ) -> Result<(), Ended> {
        let path = Path::from(key);
        let mut pause = FIRST_PAUSE;
        loop {
            let put = if payload.content_length() as u64 > self.multipart_above_bytes {
                self.put_in_parts(&path, payload).await
            } else {
                self.metrics.puts.inc();
                let mut options = PutOptions::default();
                if let Some(pace) = pace {
                    options.extensions.insert(pace);
                }
                self.bucket.put_opts(&path, payload.clone(), options).await.map(|_| ())
            };
            match put {
                Ok(()) => return Ok(()),
                Err(_) if self.task.borrow().ended => return Err(Ended),
                Err(error) => {
                    self.metrics.upload_errors.inc();
                    tracing::warn!(key, %error, "upload failed; trying again");
                    pause = rest(pause).await;
                }
            }
        }
    }

    async fn put_in_parts(&self, path: &Path, payload: &PutPayload) -> object_store::Result<()> {
        self.metrics.puts.inc();
        let mut upload = self.bucket.put_multipart(path).await?;
        let done = self.put_parts(&mut *upload, payload).await;
        if done.is_err()
            && let Err(error) = upload.abort().await
        {
            // It may have been completed with the answer lost; else its parts are orphans.
            tracing::debug!(%path, %error, "a multipart upload could not be aborted");
        }
        done
    }

    async fn put_parts(
        &self,
        upload: &mut dyn MultipartUpload,
        payload: &PutPayload,
    ) -> object_store::Result<()> {
        let parts = parts(payload, self.part_bytes);
        self.metrics.puts.inc_by(parts.len() as u64 + 1);
        // The order in which parts are handed over is theirs in the object.
        let puts: Vec<_> = parts.into_iter().map(|part| upload.put_part(part)).collect();
        stream::iter(puts).buffer_unordered(PARTS_IN_FLIGHT).try_collect::<()>().await?;
        upload.complete().await.map(|_| ())
    }
}

/// Cuts a payload into parts of `part_bytes`, without copying; the last may be shorter.
fn parts(payload: &PutPayload, part_bytes: u64) -> Vec<PutPayload> {
    let part_bytes = part_bytes.max(1) as usize;
    let mut parts = Vec::new();
    let mut part: Vec<Bytes> = Vec::new();
    let mut len = 0;
    for bytes in payload {
        let mut rest = bytes.clone();
        while !rest.is_empty() {
            let taken = rest.split_to(rest.len().min(part_bytes - len));
            len += taken.len();
            part.push(taken);
            if len == part_bytes {
                parts.push(std::mem::take(&mut part).into_iter().collect());
                len = 0;
            }
        }
    }
    if !part.is_empty() {
        parts.push(part.into_iter().collect());
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_the_payload(lens in proptest::collection::vec(0usize..40, 0..20), part in 1u64..30) {
            let whole: Vec<u8> = (0..lens.iter().sum::<usize>()).map(|n| n as u8).collect();
            let mut rest = Bytes::from(whole.clone());
            let payload: PutPayload = lens.iter().map(|len| rest.split_to(*len)).collect();
            let parts = parts(&payload, part);
            for full in parts.iter().rev().skip(1) {
                prop_assert_eq!(full.content_length() as u64, part);
            }
            let joined: Vec<u8> = parts.iter().flat_map(|p| p.iter().flatten().copied()).collect();
            prop_assert_eq!(joined, whole);
        }
    }
}
