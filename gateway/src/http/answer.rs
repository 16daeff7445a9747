//! From a request to its answer.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Body;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::sync::OwnedSemaphorePermit;

use super::metrics::Route;
use super::{Readiness, Site};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// What prometheus-client writes: <https://prometheus.io/docs/specs/om/open_metrics_spec/>.
const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Status, type and body, before the request's form is looked at.
struct Answer {
    status: StatusCode,
    kind: HeaderValue,
    body: Bytes,
}

impl Answer {
    fn json(status: StatusCode, body: &'static str) -> Self {
        Self { status, kind: JSON, body: Bytes::from_static(body.as_bytes()) }
    }
}

impl Site {
    pub(super) fn answer<B: Body>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let route = match request.uri().path() {
            "/livez" => Route::Livez,
            "/readyz" => Route::Readyz,
            "/metrics" => Route::Metrics,
            _ => Route::Other,
        };
        let head = request.method() == Method::HEAD;
        let has_body = !request.body().is_end_stream();
        let wrong_method = !head && request.method() != Method::GET;
        let answer = match route {
            Route::Other => not_found(),
            _ if wrong_method => method_not_allowed(),
            _ if has_body => body_not_allowed(),
            Route::Livez => Answer::json(StatusCode::OK, "{\"status\":\"live\"}\n"),
            Route::Readyz => readyz(*self.readiness.borrow()),
            Route::Metrics => self.exposition(),
        };
        self.metrics.answered(route, answer.status);
        let length = answer.body.len();
        let body = if head { Bytes::new() } else { answer.body };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, answer.kind);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if answer.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        // The body stays unread. HTTP/2 resets the stream instead.
        if has_body && request.version() < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn exposition(&self) -> Answer {
        let Ok(place) = Arc::clone(&self.expositions).try_acquire_owned() else {
            return too_many_expositions();
        };
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry.read()) {
            Ok(()) => Answer {
                status: StatusCode::OK,
                kind: OPENMETRICS,
                body: Bytes::from_owner(Exposition { text, _place: place }),
            },
            Err(_) => not_written(),
        }
    }
}

/// Keeps its place until the last byte is written, or the connection is gone.
struct Exposition {
    text: String,
    _place: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Exposition {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

fn readyz(readiness: Readiness) -> Answer {
    match readiness {
        Readiness::Starting => {
            Answer::json(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"starting\"}\n")
        }
        Readiness::Ready => Answer::json(StatusCode::OK, "{\"status\":\"ready\"}\n"),
        Readiness::Draining => {
            Answer::json(StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}\n")
        }
    }
}

fn too_many_expositions() -> Answer {
    Answer::json(
        StatusCode::SERVICE_UNAVAILABLE,
        "{\"error\":\"busy\",\"message\":\"too many are reading the metrics: try again later\"}\n",
    )
}

fn not_written() -> Answer {
    Answer::json(
        StatusCode::INTERNAL_SERVER_ERROR,
        "{\"error\":\"internal\",\"message\":\"the metrics cannot be written\"}\n",
    )
}

fn not_found() -> Answer {
    Answer::json(
        StatusCode::NOT_FOUND,
        "{\"error\":\"not_found\",\"message\":\"here are /livez, /readyz and /metrics\"}\n",
    )
}

fn method_not_allowed() -> Answer {
    Answer::json(
        StatusCode::METHOD_NOT_ALLOWED,
        "{\"error\":\"method_not_allowed\",\"message\":\"use GET or HEAD\"}\n",
    )
}

fn body_not_allowed() -> Answer {
    Answer::json(
        StatusCode::PAYLOAD_TOO_LARGE,
        "{\"error\":\"body_not_allowed\",\"message\":\"send the request without a body\"}\n",
    )
}
