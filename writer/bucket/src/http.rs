//! The HTTP client below an S3 store, which keeps what an answer's status says.
//!
//! object_store folds statuses into few errors: a conditional write that lost a race without effect
//! (409 ConditionalRequestConflict) looks to its caller as if the object existed, and one that was
//! throttled like any other failure. Here such answers become errors that carry a [`Refusal`], before
//! object_store sees them. Its own retries must be off.

use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};

use sluice_model::SendPace;

use crate::failure::{Failure, Refusal, ours};
use crate::paced;

/// So much of a refusal's body is read.
const MAX_REFUSAL_BYTES: usize = 16 << 10;
/// So much of it is kept for the log.
const SHOWN_CHARS: usize = 400;
/// S3's code for a conditional write that ran into another one.
const CONFLICT: &str = "ConditionalRequestConflict";
/// S3's code for an operation that ran into another one on the same name.
const ABORTED: &str = "OperationAborted";

/// S3's codes for a body that is not what its checksum or its signature says: it was damaged on its way.
const DAMAGED: [&str; 3] =
    ["BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"];

/// Makes clients for `AmazonS3Builder::with_http_connector`.
#[derive(Clone, Copy, Debug)]
pub struct Connector {
    /// Whether requests may go without TLS.
    pub allow_http: bool,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long a request may take, with its answer.
    pub timeout: Duration,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        // The store's own client takes only bodies that are there all at once.
        let paced = reqwest::Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .https_only(!self.allow_http)
            .connect_timeout(self.connect_timeout)
            .timeout(self.timeout)
            .build()
            .map_err(ours)?;
        Ok(HttpClient::new(Statuses { inner, paced }))
    }
}

#[derive(Debug)]
struct Statuses {
    inner: HttpClient,
    /// For bodies that are not to be sent as fast as possible.
    paced: reqwest::Client,
}

#[async_trait]
impl HttpService for Statuses {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let pace = request.extensions().get::<SendPace>().copied();
        let answer = match pace {
            Some(pace) => paced::execute(&self.paced, request, pace).await,
            None => self.inner.execute(request).await,
        };
        let response = match answer {
            Ok(response) => response,
            // A connection that ended without an answer: it may have been carried out. The kind is
            // used below for what certainly was not.
            Err(error) if error.kind() == HttpErrorKind::Request => {
                return Err(HttpError::new(HttpErrorKind::Interrupted, error));
            }
            Err(error) => return Err(error),
        };
        let status = response.status().as_u16();
        if !matches!(status, 400 | 408 | 409 | 429 | 500..) {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = match Limited::new(body, MAX_REFUSAL_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            // What it says in words is lost; the status is known.
            Err(_) => bytes::Bytes::new(),
        };
        let text = String::from_utf8_lossy(&bytes);
        let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
        let is_final = match status {
            400 => !says(&DAMAGED),
            409 => !says(&[CONFLICT, ABORTED]),
            _ => false,
        };
        if is_final {
            return Ok(HttpResponse::from_parts(parts, HttpResponseBody::from(bytes)));
        }
        let refusal = Refusal { status, body: text.chars().take(SHOWN_CHARS).collect() };
        Err(HttpError::new(kind(&refusal), refusal))
    }
}

/// How the retry policy of parts sees it ([`crate::multipart`]): `Request` is throttled or without
/// effect, `Interrupted` unclear.
fn kind(refusal: &Refusal) -> HttpErrorKind {
    match refusal.failure() {
        Failure::Throttled | Failure::NotDone => HttpErrorKind::Request,
        Failure::TimedOut => HttpErrorKind::Timeout,
        _ => HttpErrorKind::Interrupted,
    }
}
