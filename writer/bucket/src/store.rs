//! The bucket as an object store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use sluice_model::Entropy;
use tokio::time::{Instant, sleep};

use crate::failure::{WrongLength, ours};
use crate::metrics::{BucketMetrics, Op};
use crate::options::{BucketOptions, Class};
use crate::tries::{Shared, Tries};
use crate::{delete, list, multipart};

/// Bodies up to this size are read whole within the try, so that a cut one is read again. Larger ones
/// are streamed: their reader finds out.
const MAX_WHOLE_BYTES: u64 = 64 << 20;
/// What a read of unknown length is given time for.
const UNKNOWN_BYTES: u64 = 16 << 20;

/// A handle of the bucket, of one class. Cheap to clone; all of them share limits and budgets.
#[derive(Clone, Debug)]
pub struct Bucket {
    shared: Arc<Shared>,
    class: Class,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.inner.fmt(f)
    }
}

impl Bucket {
    /// Wraps `inner`, whose own retries must be off. Gives the foreground's handle.
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        options: BucketOptions,
        entropy: Arc<dyn Entropy>,
        metrics: BucketMetrics,
    ) -> Self {
        let shared = Arc::new(Shared::new(inner, options, entropy, metrics));
        Self { shared, class: Class::Foreground }
    }

    /// The same bucket for work that nobody waits for: it gets what the foreground leaves.
    pub fn background(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), class: Class::Background }
    }

    fn read(&self, op: Op, bytes: u64) -> Tries {
        let timeout = BucketOptions::try_timeout(self.shared.options.read_timeout, bytes);
        Tries { op, class: self.class, timeout, repeatable: true }
    }

    fn write(&self, op: Op, bytes: u64, repeatable: bool) -> Tries {
        let timeout = BucketOptions::try_timeout(self.shared.options.write_timeout, bytes);
        Tries { op, class: self.class, timeout, repeatable }
    }

    /// One read; when it is late, a second one, and the first that answers.
    async fn get(&self, how: Tries, location: &Path, options: &GetOptions) -> Result<GetResult> {
        let shared = &self.shared;
        let read = || whole(&shared.inner, location, options);
        let permit = shared.limiter.acquire(how.class).await.map_err(ours)?;
        let bytes = match (&options.range, options.head) {
            (Some(GetRange::Bounded(range)), false) => range.end.saturating_sub(range.start),
            _ => return shared.try_once(how, permit, read()).await,
        };
        shared.hedges.pay_in();
        let begun = Instant::now();
        let late = match how.class {
            Class::Foreground => shared.latencies.late(bytes),
            Class::Background => None,
        };
        let first = Box::pin(shared.try_once(how, permit, read()));
        let done = match late {
            None => first.await,
            Some(late) => match select(first, Box::pin(sleep(late))).await {
                Either::Left((done, _)) => done,
                Either::Right(((), first)) => match self.hedge() {
                    None => first.await,
                    Some(permit) => {
                        let second = Box::pin(shared.try_once(how, permit, read()));
                        let (done, won) = match select(first, second).await {
                            Either::Left((Ok(done), _)) => (Ok(done), false),
                            Either::Right((Ok(done), _)) => (Ok(done), true),
                            Either::Left((Err(_), second)) => (second.await, true),
                            Either::Right((Err(_), first)) => (first.await, false),
                        };
                        shared.metrics.hedges_won.inc_by(u64::from(won && done.is_ok()));
                        done
                    }
                },
            },
        };
        if done.is_ok() {
            shared.latencies.record(bytes, begun.elapsed());
        }
        done
    }

    /// Leave for a second request: a small share of reads, and only when there is room at once.
    fn hedge(&self) -> Option<crate::limit::Permit> {
        let permit = self.shared.limiter.try_acquire(self.class)?;
        if !self.shared.hedges.take() {
            return None;
        }
        self.shared.metrics.hedges.inc();
        Some(permit)
    }
}

/// Reads an answer with its body, if that is not too large, and checks its length.
async fn whole(
    inner: &Arc<dyn ObjectStore>,
    location: &Path,
    options: &GetOptions,
) -> Result<GetResult> {
    let result = inner.get_opts(location, options.clone()).await?;
    let wanted = result.range.end.saturating_sub(result.range.start);
    if options.head || wanted > MAX_WHOLE_BYTES {
        return Ok(result);
    }
    let GetResult { payload, meta, range, attributes, extensions } = result;
    let parts = match payload {
        // As it comes: who wants it in one piece puts it together.
        GetResultPayload::Stream(body) => body.try_collect::<Vec<Bytes>>().await?,
        payload => {
            let body = GetResult {
                payload,
                meta: meta.clone(),
                range: range.clone(),
                attributes: attributes.clone(),
                extensions: extensions.clone(),
            };
            vec![body.bytes().await?]
        }
    };
    let got = parts.iter().map(|part| part.len() as u64).sum();
    if got != wanted {
        return Err(ours(WrongLength { wanted, got }));
    }
    let payload = GetResultPayload::Stream(stream::iter(parts.into_iter().map(Ok)).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions })
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        // Names are written once, with the same bytes: an overwrite is the same request again.
        let overwrite = matches!(options.mode, PutMode::Overwrite);
        let op = if overwrite { Op::Put } else { Op::ConditionalPut };
        let put = || {
            self.shared.metrics.sent_bytes.inc_by(bytes);
            self.shared.inner.put_opts(location, payload.clone(), options.clone())
        };
        self.shared.run(self.write(op, bytes, overwrite), put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // An upload that was begun and not heard of costs room until the store's own rules remove it.
        let how = self.write(Op::Multipart, 0, true);
        multipart::begin(Arc::clone(&self.shared), how, location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let op = if options.head { Op::Head } else { Op::Get };
        let bytes = match &options.range {
            Some(GetRange::Bounded(range)) => range.end.saturating_sub(range.start),
            Some(GetRange::Suffix(bytes)) => *bytes,
            Some(GetRange::Offset(_)) | None => UNKNOWN_BYTES,
        };
        let how = self.read(op, if options.head { 0 } else { bytes });
        let mut course = self.shared.begin();
        loop {
            match Box::pin(self.get(how, location, &options)).await {
                Ok(result) => {
                    if !options.head {
                        let bytes = result.range.end.saturating_sub(result.range.start);
                        self.shared.metrics.received_bytes.inc_by(bytes);
                    }
                    return Ok(result);
                }
                Err(error) => self.shared.after(true, error, &mut course).await?,
            }
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        delete::all(Arc::clone(&self.shared), self.write(Op::Delete, 0, true), locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        list::all(Arc::clone(&self.shared), self.read(Op::List, 0), move |inner| {
            inner.list(prefix.as_ref())
        })
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        list::all(Arc::clone(&self.shared), self.read(Op::List, 0), move |inner| {
            inner.list_with_offset(prefix.as_ref(), &offset)
        })
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let list = || self.shared.inner.list_with_delimiter(prefix);
        self.shared.run(self.read(Op::List, 0), list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let overwrite = matches!(options.mode, CopyMode::Overwrite);
        let copy = || self.shared.inner.copy_opts(from, to, options.clone());
        self.shared.run(self.write(Op::Copy, 0, overwrite), copy).await
    }
}
