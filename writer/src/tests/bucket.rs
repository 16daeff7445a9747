//! A bucket in memory that fails on demand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// How it fails.
#[derive(Debug, Default)]
pub(super) struct FaultyBucket {
    inner: InMemory,
    /// Every request is refused.
    pub(super) down: AtomicBool,
    /// So many puts are made, but their answers are lost.
    pub(super) lost_answers: AtomicU32,
}

impl FaultyBucket {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    fn check(&self) -> Result<()> {
        if self.down.load(Ordering::Relaxed) {
            return Err(refused("the bucket is down"));
        }
        Ok(())
    }
}

fn refused(why: &'static str) -> object_store::Error {
    object_store::Error::Generic { store: "faulty", source: why.into() }
}

impl fmt::Display for FaultyBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty bucket")
    }
}

#[async_trait]
impl ObjectStore for FaultyBucket {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.check()?;
        let done = self.inner.put_opts(location, payload, options).await?;
        let lost = |left: u32| left.checked_sub(1);
        if self.lost_answers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lost).is_ok() {
            return Err(refused("the answer was lost"));
        }
        Ok(done)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
