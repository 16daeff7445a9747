//! Uploads in parts. Parts are tried again one by one; what is not completed is aborted by the caller.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::client::HttpErrorKind;
use object_store::path::Path;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{
    MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload, PutResult, Result, UploadPart,
};
use tokio::time::Instant;

use crate::failure::{Refusal, ours};
use crate::metrics::Op;
use crate::options::BucketOptions;
use crate::tries::{Course, Shared, Tries};

/// Begins an upload.
pub(crate) async fn begin(
    shared: Arc<Shared>,
    how: Tries,
    location: &Path,
    options: PutMultipartOptions,
) -> Result<Box<dyn MultipartUpload>> {
    let policy = Arc::new(Parts { shared: Arc::clone(&shared) });
    let options = options.with_retry_policy(policy);
    let create = || shared.inner.put_multipart_opts(location, options.clone());
    let inner = shared.run(how, create).await?;
    Ok(Box::new(Upload { shared, how, inner }))
}

#[derive(Debug)]
struct Upload {
    shared: Arc<Shared>,
    how: Tries,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let bytes = data.content_length() as u64;
        let shared = Arc::clone(&self.shared);
        // All of its tries together: the store repeats a part itself, by our policy.
        let once = BucketOptions::try_timeout(shared.options.write_timeout, bytes);
        let timeout = once.saturating_add(shared.options.deadline);
        let how = Tries { op: Op::Part, timeout, ..self.how };
        let part = self.inner.put_part(data);
        Box::pin(async move {
            shared.begin();
            let permit = shared.limiter.acquire(how.class).await.map_err(ours)?;
            shared.metrics.sent_bytes.inc_by(bytes);
            shared.try_once(how, permit, part).await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let permit = self.shared.limiter.acquire(self.how.class).await.map_err(ours)?;
        // Not made again: after a lost answer the upload is no longer known, although the object is
        // there. The caller uploads anew, under the same name and with the same bytes.
        self.shared.begin();
        self.shared.try_once(self.how, permit, self.inner.complete()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let permit = self.shared.limiter.acquire(self.how.class).await.map_err(ours)?;
        self.shared.begin();
        self.shared.try_once(self.how, permit, self.inner.abort()).await
    }
}

/// Whether a part is tried again.
#[derive(Debug)]
struct Parts {
    shared: Arc<Shared>,
}

#[async_trait]
impl RetryPolicy for Parts {
    async fn retry(&self, context: RetryContext) -> bool {
        let left = self.shared.options.deadline.saturating_sub(context.elapsed);
        let Some(status) = status(context.failure).filter(|_| !left.is_zero()) else {
            return false;
        };
        let retries = u32::try_from(context.attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let error = ours(Refusal { status, body: String::new() });
        let mut course = Course::resumed(retries, Instant::now() + left);
        let again = self.shared.after(true, error, &mut course).await.is_ok();
        if again {
            self.shared.metrics.request(Op::Part);
        }
        again
    }
}

/// The status that stands for the failure, as [`crate::http`] has made it; none if it is final.
fn status(failure: RetryFailure) -> Option<u16> {
    match failure {
        RetryFailure::Status(status) => Some(status.as_u16()).filter(|status| *status >= 500),
        RetryFailure::Transport(HttpErrorKind::Request) => Some(503),
        RetryFailure::Transport(HttpErrorKind::Timeout) => Some(408),
        RetryFailure::Transport(HttpErrorKind::Connect | HttpErrorKind::Interrupted) => Some(500),
        _ => None,
    }
}
