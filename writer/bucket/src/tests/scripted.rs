//! A store in memory whose answers a test decides, request by request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use sluice_model::Entropy;
use tokio::time::{Instant, sleep};

use crate::{Bucket, BucketMetrics, BucketOptions, Refusal};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// It is served after so long.
    Served(Duration),
    /// It is answered with a status, after 5 ms, and not carried out.
    Status(u16),
    /// There is no connection.
    Unconnected,
    /// Never answered, never carried out.
    Silence,
    /// Carried out; then the connection breaks.
    LostReply,
    /// A body that is too short (reads only).
    Short,
}

/// Served at once.
pub(crate) const SERVED: Fate = Fate::Served(Duration::from_millis(5));

type Script = Box<dyn FnMut(&'static str, u64) -> Fate + Send>;

pub(crate) struct Scripted {
    pub(crate) inner: InMemory,
    /// Asked with the kind of request and how many there were before.
    script: Mutex<Script>,
    /// Requests that came.
    pub(crate) requests: AtomicU64,
    /// Under way now, and the most there ever were.
    pub(crate) under_way: Mutex<(u64, u64)>,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl fmt::Display for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

fn broken(kind: HttpErrorKind, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Generic { store: "scripted", source: Box::new(HttpError::new(kind, source)) }
}

/// Counts a request as under way while it lives.
struct UnderWay<'a>(&'a Scripted);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().0 -= 1;
    }
}

impl Scripted {
    pub(crate) fn new(script: impl FnMut(&'static str, u64) -> Fate + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            script: Mutex::new(Box::new(script)),
            requests: AtomicU64::new(0),
            under_way: Mutex::new((0, 0)),
        })
    }

    pub(crate) fn follow(&self, script: impl FnMut(&'static str, u64) -> Fate + Send + 'static) {
        *self.script.lock() = Box::new(script);
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    fn begin(&self) -> UnderWay<'_> {
        let mut under_way = self.under_way.lock();
        under_way.0 += 1;
        under_way.1 = under_way.1.max(under_way.0);
        UnderWay(self)
    }

    async fn fate(&self, op: &'static str) -> Result<Fate> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let fate = (self.script.lock())(op, before);
        match fate {
            Fate::Served(after) => sleep(after).await,
            Fate::Status(status) => {
                sleep(Duration::from_millis(5)).await;
                let refusal = Refusal { status, body: "scripted".to_owned() };
                return Err(broken(HttpErrorKind::Unknown, refusal));
            }
            Fate::Unconnected => {
                let error = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                return Err(broken(HttpErrorKind::Connect, error));
            }
            Fate::Silence => std::future::pending().await,
            Fate::LostReply | Fate::Short => {}
        }
        Ok(fate)
    }
}

fn lost<T>(fate: Fate, done: Result<T>) -> Result<T> {
    let error = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    match fate {
        Fate::LostReply => Err(broken(HttpErrorKind::Interrupted, error)),
        _ => done,
    }
}

#[async_trait]
impl ObjectStore for Scripted {
    async fn put_opts(&self, at: &Path, bytes: PutPayload, how: PutOptions) -> Result<PutResult> {
        let _under_way = self.begin();
        let fate = self.fate("put").await?;
        lost(fate, self.inner.put_opts(at, bytes, how).await)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.fate("multipart").await?;
        self.inner.put_multipart_opts(at, how).await
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        let _under_way = self.begin();
        let fate = self.fate("get").await?;
        let mut found = lost(fate, self.inner.get_opts(at, how).await)?;
        if matches!(fate, Fate::Short) {
            found.payload = GetResultPayload::Stream(stream::empty().boxed());
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        match (self.script.lock())("delete", before) {
            Fate::Status(status) => {
                let refusal = Refusal { status, body: "scripted".to_owned() };
                stream::iter([Err(broken(HttpErrorKind::Unknown, refusal))]).boxed()
            }
            _ => self.inner.delete_stream(names),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        match (self.script.lock())("list", before) {
            Fate::Status(status) => {
                let refusal = Refusal { status, body: "scripted".to_owned() };
                stream::iter([Err(broken(HttpErrorKind::Unknown, refusal))]).boxed()
            }
            // Panics when it is asked again after its end, as that of S3 does.
            _ => stream::unfold(self.inner.list(prefix), |mut listing| async move {
                listing.next().await.map(|found| (found, listing))
            })
            .boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.fate("list").await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.fate("copy").await?;
        self.inner.copy_opts(from, to, how).await
    }
}

/// SplitMix64, from a fixed seed.
#[derive(Debug, Default)]
struct Seeded(AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let seed = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
            let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// The client over it.
pub(crate) fn client(store: &Arc<Scripted>, options: BucketOptions) -> (Bucket, BucketMetrics) {
    let metrics = BucketMetrics::default();
    let inner = Arc::clone(store) as Arc<dyn ObjectStore>;
    let entropy = Arc::new(Seeded::default());
    (Bucket::new(inner, options, entropy, metrics.clone()), metrics)
}

/// Refuses with 503 what is over `quota` requests in a second.
pub(crate) fn quota(quota: u64) -> impl FnMut(&'static str, u64) -> Fate + Send {
    let (mut second, mut count) = (Instant::now(), 0);
    move |_, _| {
        if second.elapsed() >= Duration::from_secs(1) {
            (second, count) = (Instant::now(), 0);
        }
        count += 1;
        if count > quota { Fate::Status(503) } else { SERVED }
    }
}
