//! Requests to the bucket that are tried until they are answered. It owns nothing but counters: who wants
//! an answer waits for it, and gives up by dropping the call.
//!
//! What always holds: a create is told to have been won only if the object with these very bytes lies
//! under the name, whatever became of earlier tries.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use sluice_model::Entropy;
use tokio::time::{sleep, timeout};

use super::layout::HEADER_BYTES;

/// How long to wait before a request is tried again: doubled each time, up to the limit, and then
/// between half and all of it by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// From this pause on each further failure is logged.
const TOLD_PAUSE: Duration = Duration::from_millis(160);
/// A request with no answer after this time counts as failed; it may still be carried out.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What an object volume asked of its bucket so far: each try counts.
#[derive(Debug, Default)]
pub struct ObjectCosts {
    /// PUT requests.
    pub puts: AtomicU64,
    /// Bytes in them.
    pub put_bytes: AtomicU64,
    /// GET requests.
    pub gets: AtomicU64,
    /// LIST requests; an answer of several pages counts once.
    pub lists: AtomicU64,
    /// DELETE requests.
    pub deletes: AtomicU64,
}

/// The outcome of a create-if-absent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// The object lies there, with the bytes that were to be put.
    Won,
    /// Another object lies there; its first [`HEADER_BYTES`].
    Lost(Bytes),
}

/// A bucket, and how it is asked.
#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) costs: Arc<ObjectCosts>,
}

impl Bucket {
    /// Puts an object that begins with `head`, which no other object does, if its name is free. `failed`
    /// hears of each try that fails.
    pub(super) async fn create(
        &self,
        at: &Path,
        head: &[u8],
        payload: PutPayload,
        failed: impl Fn(io::ErrorKind),
    ) -> Created {
        let mut patience = Patience::new(self, "put", at);
        loop {
            count(&self.costs.puts, 1);
            count(&self.costs.put_bytes, payload.content_length() as u64);
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let put = self.store.put_opts(at, payload.clone(), options);
            let Err(error) = answer(put).await else { return Created::Won };
            // S3 says so too when it only met a race (409), so look what is there.
            if let Error::AlreadyExists { .. } | Error::Precondition { .. } = error {
                match self.head_once(at).await {
                    Ok(found) if found.starts_with(head) => return Created::Won,
                    Ok(found) => return Created::Lost(found),
                    Err(Error::NotFound { .. }) => {}
                    Err(error) => failed(kind(&error)),
                }
            } else {
                failed(kind(&error));
            }
            patience.rest(&error).await;
        }
    }

    /// The first [`HEADER_BYTES`] of an object, or all if it is shorter; `None` if there is none.
    pub(super) async fn head(&self, at: &Path) -> Option<Bytes> {
        self.found(at, || self.head_once(at)).await
    }

    /// A whole object; `None` if there is none.
    pub(super) async fn get(&self, at: &Path) -> Option<Bytes> {
        self.found(at, || async {
            count(&self.costs.gets, 1);
            answer(async { self.store.get(at).await?.bytes().await }).await
        })
        .await
    }

    /// A range of an object, tried once.
    pub(super) async fn range(&self, at: &Path, range: std::ops::Range<u64>) -> io::Result<Bytes> {
        count(&self.costs.gets, 1);
        answer(self.store.get_range(at, range)).await.map_err(|error| {
            let kind = kind(&error);
            io::Error::new(kind, error)
        })
    }

    /// The names and sizes of all objects under a directory, in no order.
    pub(super) async fn list(&self, directory: &Path) -> Vec<(String, u64)> {
        let mut patience = Patience::new(self, "list", directory);
        loop {
            count(&self.costs.lists, 1);
            let listing = self.store.list(Some(directory)).try_collect::<Vec<_>>();
            match answer(listing).await {
                Ok(found) => {
                    let named = found
                        .into_iter()
                        .filter_map(|meta| Some((meta.location.filename()?.to_owned(), meta.size)));
                    return named.collect();
                }
                Err(error) => patience.rest(&error).await,
            }
        }
    }

    /// Removes an object, tried once. It may be gone already.
    pub(super) async fn delete(&self, at: &Path) -> Result<(), Error> {
        count(&self.costs.deletes, 1);
        match answer(self.store.delete(at)).await {
            Err(Error::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    async fn head_once(&self, at: &Path) -> Result<Bytes, Error> {
        count(&self.costs.gets, 1);
        answer(self.store.get_range(at, 0..HEADER_BYTES as u64)).await
    }

    async fn found<T, F: Future<Output = Result<T, Error>>>(
        &self,
        at: &Path,
        ask: impl Fn() -> F,
    ) -> Option<T> {
        let mut patience = Patience::new(self, "get", at);
        loop {
            match ask().await {
                Ok(found) => return Some(found),
                Err(Error::NotFound { .. }) => return None,
                Err(error) => patience.rest(&error).await,
            }
        }
    }
}

/// The pauses between tries of one request.
struct Patience<'a> {
    bucket: &'a Bucket,
    request: &'static str,
    at: &'a Path,
    pause: Duration,
}

impl<'a> Patience<'a> {
    fn new(bucket: &'a Bucket, request: &'static str, at: &'a Path) -> Self {
        Self { bucket, request, at, pause: FIRST_PAUSE }
    }

    async fn rest(&mut self, error: &Error) {
        let (request, at) = (self.request, self.at);
        if self.pause >= TOLD_PAUSE {
            let hint =
                "check that the bucket can be reached, and the credentials in the environment";
            tracing::warn!(request, %at, %error, hint, "the bucket does not answer as it should; trying again");
        } else {
            tracing::debug!(request, %at, %error, "trying again");
        }
        let half = self.pause / 2;
        // At most two seconds, in microseconds.
        let spread = half.as_micros() as u64 + 1;
        sleep(half + Duration::from_micros(self.bucket.entropy.random_u64() % spread)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

async fn answer<T>(request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(ANSWER_WITHIN, request).await {
        Ok(answered) => answered,
        Err(late) => Err(Error::Generic { store: "bucket", source: Box::new(late) }),
    }
}

fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// The class of an error, for the volume's health.
pub(super) fn kind(error: &Error) -> io::ErrorKind {
    match error {
        Error::NotFound { .. } => io::ErrorKind::NotFound,
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    }
}
