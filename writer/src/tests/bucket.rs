//! A bucket in memory that fails on demand.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use sluice_model::SendPace;

/// How it fails.
#[derive(Debug, Default)]
pub(super) struct FaultyBucket {
    inner: InMemory,
    /// Every request is refused.
    pub(super) down: AtomicBool,
    /// So many puts are made, but their answers are lost.
    pub(super) lost_answers: AtomicU32,
    /// The bytes of so many gets are damaged on their way.
    pub(super) damaged_gets: AtomicU32,
    /// What happens to puts, by a part of their key.
    rules: Mutex<Vec<(String, Rule)>>,
    /// Keys of puts that had to wait for a rule.
    held: Mutex<Vec<String>>,
    /// Keys in the order in which their puts ended well.
    pub(super) done: Mutex<Vec<String>>,
    /// Keys whose puts may take their time.
    pub(super) paced: Mutex<Vec<String>>,
    /// So many parts of multipart uploads are refused.
    pub(super) refused_parts: Arc<AtomicU32>,
    /// Multipart uploads that were aborted.
    pub(super) aborted: Arc<AtomicU32>,
}

/// What happens to a put.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    /// It is made after a while.
    Slow(Duration),
    /// It is made when the rule is lifted.
    Held,
    /// It is made at once, but the answer waits until the rule is lifted.
    AnswerHeld,
    /// It is refused.
    Refused,
}

impl FaultyBucket {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// From now on puts whose key has `part` in it go by `rule`.
    pub(super) fn rule(&self, part: impl Into<String>, rule: Rule) {
        self.rules.lock().push((part.into(), rule));
    }

    /// Lifts the rules for `part`.
    pub(super) fn lift(&self, part: &str) {
        self.rules.lock().retain(|(known, _)| known != part);
    }

    fn rule_for(&self, key: &str) -> Option<Rule> {
        let rules = self.rules.lock();
        rules.iter().find(|(part, _)| key.contains(part.as_str())).map(|(_, rule)| rule.clone())
    }

    /// How many puts of the key had to wait for a rule to be lifted.
    pub(super) fn waiting(&self, key: &str) -> usize {
        self.held.lock().iter().filter(|held| *held == key).count()
    }

    async fn while_held(&self, key: &str, is: impl Fn(&Rule) -> bool) {
        if !self.rule_for(key).is_some_and(|rule| is(&rule)) {
            return;
        }
        self.held.lock().push(key.to_owned());
        while self.rule_for(key).is_some_and(|rule| is(&rule)) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn check(&self) -> Result<()> {
        if self.down.load(Ordering::Relaxed) {
            return Err(refused("the bucket is down"));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct FaultyParts {
    inner: Box<dyn MultipartUpload>,
    refused: Arc<AtomicU32>,
    aborted: Arc<AtomicU32>,
}

#[async_trait]
impl MultipartUpload for FaultyParts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let made = self.inner.put_part(data);
        let refused_parts = Arc::clone(&self.refused);
        Box::pin(async move {
            let left = |left: u32| left.checked_sub(1);
            match refused_parts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
                Ok(_) => Err(refused("this part")),
                Err(_) => made.await,
            }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.aborted.fetch_add(1, Ordering::Relaxed);
        self.inner.abort().await
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
        let key = location.as_ref();
        if options.extensions.get::<SendPace>().is_some() {
            self.paced.lock().push(key.to_owned());
        }
        match self.rule_for(key) {
            Some(Rule::Refused) => return Err(refused("by rule")),
            Some(Rule::Slow(time)) => tokio::time::sleep(time).await,
            Some(Rule::Held | Rule::AnswerHeld) | None => {}
        }
        self.while_held(key, |rule| matches!(rule, Rule::Held)).await;
        let done = self.inner.put_opts(location, payload, options).await?;
        self.done.lock().push(key.to_owned());
        self.while_held(key, |rule| matches!(rule, Rule::AnswerHeld)).await;
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
        self.check()?;
        Ok(Box::new(FaultyParts {
            inner: self.inner.put_multipart_opts(location, options).await?,
            refused: Arc::clone(&self.refused_parts),
            aborted: Arc::clone(&self.aborted),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        let found = self.inner.get_opts(location, options).await?;
        let damaged = |left: u32| left.checked_sub(1);
        if self.damaged_gets.fetch_update(Ordering::Relaxed, Ordering::Relaxed, damaged).is_err() {
            return Ok(found);
        }
        let (meta, range) = (found.meta.clone(), found.range.clone());
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        let mut bytes = found.bytes().await?.to_vec();
        if let Some(first) = bytes.first_mut() {
            *first ^= 1;
        }
        let bytes = Bytes::from(bytes);
        let payload = GetResultPayload::Stream(stream::once(ready(Ok(bytes))).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
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
