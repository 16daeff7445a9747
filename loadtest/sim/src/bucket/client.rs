//! The client's side: an [`ObjectStore`] whose requests cross the network, with a time-out and no
//! retries of its own.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result, UploadPart,
};

use super::{Answer, Ask, BucketService, HOST, Listed};

/// How long a request waits for its answer.
const TIMEOUT: Duration = Duration::from_millis(1500);

/// A connection to the bucket.
#[derive(Clone, Debug)]
pub(crate) struct BucketClient {
    service: BucketService,
}

impl BucketClient {
    pub(crate) fn new(service: BucketService) -> Self {
        Self { service }
    }

    async fn ask(&self, ask: Ask, path: &Path) -> Result<Answer> {
        let answer = self.service.call(HOST, ask, TIMEOUT).await;
        let path = path.to_string();
        match answer {
            None => Err(failed("no answer in time")),
            Some(Answer::Busy) => Err(failed("503 slow down")),
            Some(Answer::Broken) => Err(failed("500 internal error")),
            Some(Answer::BadRange) => Err(failed("416 range not satisfiable")),
            Some(Answer::Missing) => Err(Error::NotFound { path, source: "404".into() }),
            Some(Answer::Exists) => Err(Error::AlreadyExists { path, source: "412".into() }),
            Some(answer) => Ok(answer),
        }
    }

    async fn put_bytes(&self, location: &Path, bytes: Bytes, create: bool) -> Result<PutResult> {
        let ask = Ask::Put { key: location.to_string(), bytes, create };
        match self.ask(ask, location).await? {
            Answer::Done { etag } => Ok(PutResult {
                e_tag: Some(format!("{etag:016x}")),
                version: None,
                extensions: Default::default(),
            }),
            _ => Err(failed("a foreign answer")),
        }
    }
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "simulated", source: why.into() }
}

fn meta(listed: &Listed) -> ObjectMeta {
    ObjectMeta {
        location: Path::from(listed.key.as_str()),
        last_modified: Default::default(),
        size: listed.size,
        e_tag: Some(format!("{:016x}", listed.etag)),
        version: None,
    }
}

fn collect(payload: &PutPayload) -> Bytes {
    let mut bytes = BytesMut::with_capacity(payload.content_length());
    for part in payload {
        bytes.extend_from_slice(part);
    }
    bytes.freeze()
}

impl fmt::Display for BucketClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated bucket")
    }
}

#[async_trait]
impl ObjectStore for BucketClient {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        match options.mode {
            PutMode::Overwrite => self.put_bytes(location, collect(&payload), false).await,
            PutMode::Create => self.put_bytes(location, collect(&payload), true).await,
            PutMode::Update(_) => Err(Error::NotImplemented {
                operation: "update".to_owned(),
                implementer: "simulated".to_owned(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Ok(Box::new(Upload {
            client: self.clone(),
            location: location.clone(),
            parts: BytesMut::new(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let GetOptions { range, head, .. } = options;
        let ask = Ask::Get { key: location.to_string(), range, head };
        let Answer::Object { listed, start, bytes } = self.ask(ask, location).await? else {
            return Err(failed("a foreign answer"));
        };
        let range = start..start + bytes.len() as u64;
        let payload = futures_util::stream::once(async move { Ok(bytes) }).boxed();
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload),
            meta: meta(&listed),
            range,
            attributes: Default::default(),
            extensions: Default::default(),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let client = self.clone();
        locations
            .then(move |location| {
                let client = client.clone();
                async move {
                    let location = location?;
                    client.ask(Ask::Delete { key: location.to_string() }, &location).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let client = self.clone();
        let prefix = prefix.cloned().unwrap_or_default();
        let listing = async move {
            let under = match prefix.as_ref() {
                "" => String::new(),
                some => format!("{some}/"),
            };
            match client.ask(Ask::List { prefix: under }, &prefix).await {
                Ok(Answer::Listing(listing)) => listing.iter().map(|l| Ok(meta(l))).collect(),
                Ok(_) => vec![Err(failed("a foreign answer"))],
                Err(error) => vec![Err(error)],
            }
        };
        listing.into_stream().flat_map(futures_util::stream::iter).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut result = ListResult {
            common_prefixes: Vec::new(),
            objects: Vec::new(),
            extensions: Default::default(),
        };
        let depth = prefix.map_or(0, |prefix| prefix.parts().count());
        let mut listing = self.list(prefix);
        while let Some(found) = listing.next().await {
            let found = found?;
            let parts: Vec<_> = found.location.parts().take(depth + 2).collect();
            if parts.len() <= depth + 1 {
                result.objects.push(found);
                continue;
            }
            let common = Path::from_iter(parts.into_iter().take(depth + 1));
            if result.common_prefixes.last() != Some(&common) {
                result.common_prefixes.push(common);
            }
        }
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let bytes = self.get_opts(from, GetOptions::default()).await?.bytes().await?;
        let create = matches!(options.mode, CopyMode::Create);
        self.put_bytes(to, bytes, create).await.map(drop)
    }
}

/// An upload in parts: what arrives is one object, at completion.
#[derive(Debug)]
struct Upload {
    client: BucketClient,
    location: Path,
    parts: BytesMut,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.extend_from_slice(&collect(&data));
        async { Ok(()) }.boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let bytes = self.parts.clone().freeze();
        self.client.put_bytes(&self.location, bytes, false).await
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
