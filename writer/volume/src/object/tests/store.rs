//! A bucket that misbehaves, by a seed: answers that are late or lost, requests that fail before or after
//! they were carried out or are carried out long after they failed, conflicts that are none, and listings
//! in no order, whose parts are of different moments. A request goes on when its caller is gone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::sim::Random;

/// In how many parts a listing is made.
const PARTS: u32 = 3;

/// How the bucket behaves from now on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// The longest way to the bucket, and back.
    pub(super) most_latency_ms: u64,
    /// Of 1000 requests, how many fail in one way or another.
    pub(super) per_mille: u32,
}

#[derive(Clone, Copy)]
enum Fate {
    Done,
    FailsBefore,
    AnswerLost,
    /// The caller hears of a failure, the bucket does it later.
    DoneLate(u64),
    NeverAnswered,
    /// As S3's 409, where nothing is.
    Conflict,
}

#[derive(Clone, Debug)]
pub(super) struct FaultyStore {
    inner: Arc<InMemory>,
    state: Arc<Mutex<(Random, Faults)>>,
}

impl FaultyStore {
    pub(super) fn new(seed: u64) -> Self {
        let state = Arc::new(Mutex::new((Random::new(seed), Faults::default())));
        Self { inner: Arc::default(), state }
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.state.lock().1 = faults;
    }

    /// The bucket itself, which does not fail.
    pub(super) fn inner(&self) -> Arc<InMemory> {
        Arc::clone(&self.inner)
    }

    fn latency(&self) -> Duration {
        let mut state = self.state.lock();
        let most = state.1.most_latency_ms;
        Duration::from_micros(state.0.below(most * 1000 + 1))
    }

    fn fate(&self, is_create: bool) -> Fate {
        let mut state = self.state.lock();
        let chance = state.1.per_mille;
        if !state.0.per_mille(chance) {
            return Fate::Done;
        }
        match state.0.below(12) {
            0..4 => Fate::FailsBefore,
            4..8 => Fate::AnswerLost,
            8 => Fate::DoneLate(state.0.below(20)),
            9 => Fate::DoneLate(state.0.below(2000)),
            10 if is_create => Fate::Conflict,
            10 => Fate::FailsBefore,
            _ => Fate::NeverAnswered,
        }
    }

    /// Carries a request out as fate will have it.
    async fn request<T, F>(&self, at: &Path, is_create: bool, act: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (there, back, fate) = (self.latency(), self.latency(), self.fate(is_create));
        let failure = || Error::Generic { store: "faulty", source: "no answer".into() };
        let at = at.to_string();
        // A task of its own: what is on its way arrives even if the sender has died.
        let way = tokio::spawn(async move {
            sleep(there).await;
            let answer = match fate {
                Fate::Done => act.await,
                Fate::FailsBefore => Err(failure()),
                Fate::AnswerLost => act.await.and(Err(failure())),
                Fate::DoneLate(ms) => {
                    tokio::spawn(sleep(Duration::from_millis(ms)).then(|()| act));
                    Err(failure())
                }
                Fate::NeverAnswered => {
                    drop(act.await);
                    std::future::pending().await
                }
                Fate::Conflict => {
                    Err(Error::AlreadyExists { path: at, source: "conflicting operation".into() })
                }
            };
            sleep(back).await;
            answer
        });
        way.await.unwrap_or_else(|_| Err(failure()))
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a faulty store")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let (inner, name) = (self.inner(), at.clone());
        self.request(at, true, async move { inner.put_opts(&name, payload, options).await }).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let (inner, name) = (self.inner(), at.clone());
        self.request(at, false, async move { inner.get_opts(&name, options).await }).await
    }

    fn delete_stream(
        &self,
        names: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let each = names.and_then(move |at| {
            let (this, inner) = (this.clone(), this.inner());
            async move {
                let name = at.clone();
                this.request(&at, false, async move { inner.delete(&name).await }).await?;
                Ok(at)
            }
        });
        each.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        let parts = stream::iter(0..PARTS).then(move |part| {
            let (this, prefix) = (this.clone(), prefix.clone());
            async move {
                let (inner, under) = (this.inner(), prefix.clone());
                let look = async move { inner.list(Some(&under)).try_collect::<Vec<_>>().await };
                let mut found = this.request(&prefix, false, look).await?;
                found.retain(|meta| {
                    crate::frame::crc32c(meta.location.as_ref().as_bytes()) % PARTS == part
                });
                Ok::<_, Error>(stream::iter(found.into_iter().map(Ok)))
            }
        });
        parts.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
