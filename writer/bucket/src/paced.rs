//! Requests whose bodies are not sent as fast as possible.
//!
//! A segment of 32 MiB that goes at full speed takes the network, or a processor, for some tens of
//! milliseconds, and every append of that time waits behind it. Sent at twice the speed at which the
//! next one fills, it is gone in time all the same.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use object_store::client::{HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody};
use sluice_model::SendPace;
use tokio::time::{Instant, Sleep, sleep_until};

/// So much is sent at once: some milliseconds' worth, so that pacing costs few wake-ups.
const BURST_BYTES: u64 = 512 << 10;

/// Sends a request, its body no faster than `pace`.
pub(crate) async fn execute(
    client: &reqwest::Client,
    request: HttpRequest,
    pace: SendPace,
) -> Result<HttpResponse, HttpError> {
    let (parts, body) = request.into_parts();
    let url = parts.uri.to_string().parse::<reqwest::Url>();
    let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    *request.body_mut() = Some(reqwest::Body::wrap(Paced::new(body, pace)));
    let answer = client.execute(request).await.map_err(failed)?;
    let mut response = HttpResponse::new(HttpResponseBody::from(Bytes::new()));
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    let body = reqwest::Body::from(answer).map_err(failed);
    *response.body_mut() = HttpResponseBody::new(body);
    Ok(response)
}

/// As the rest of this crate sees it: whether it certainly was not carried out, or may have been.
fn failed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_connect() {
        HttpErrorKind::Connect
    } else if error.is_timeout() {
        HttpErrorKind::Timeout
    } else {
        HttpErrorKind::Interrupted
    };
    // Whoever logs it names the object; the URL may hold what is not for logs.
    HttpError::new(kind, error.without_url())
}

/// A body that becomes ready piece by piece.
struct Paced<B> {
    inner: B,
    pace: SendPace,
    /// When the first byte was asked for.
    begun: Option<Instant>,
    sent: u64,
    /// Since the last pause.
    burst: u64,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    fn new(inner: B, pace: SendPace) -> Self {
        Self { inner, pace, begun: None, sent: 0, burst: 0, pause: None }
    }

    /// Ready when more may be sent.
    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        if self.burst >= BURST_BYTES {
            self.burst = 0;
            let due = begun + self.pace.time_for(self.sent);
            if due > Instant::now() {
                self.pause = Some(Box::pin(sleep_until(due)));
            }
        }
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        Poll::Ready(())
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        ready!(this.poll_turn(context));
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            this.sent += bytes;
            this.burst += bytes;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::Full;
    use sluice_model::units::MIB;

    use super::*;

    /// Pieces of a body, each with when it came.
    async fn pieces(body: impl Body<Data = Bytes> + Unpin) -> Vec<(Duration, usize)> {
        let begun = Instant::now();
        let mut stream = http_body_util::BodyDataStream::new(body);
        let mut pieces = Vec::new();
        while let Some(Ok(piece)) = futures_util::StreamExt::next(&mut stream).await {
            pieces.push((begun.elapsed(), piece.len()));
        }
        pieces
    }

    fn body(pieces: usize, len: usize) -> impl Body<Data = Bytes> + Unpin {
        let pieces = (0..pieces).map(move |_| {
            Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(vec![7; len])))
        });
        http_body_util::StreamBody::new(futures_util::stream::iter(pieces))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_takes_its_time_and_never_runs_ahead_by_more_than_a_burst() {
        let pace = SendPace::new(8 * MIB);
        let sent = pieces(Paced::new(body(256, 64 << 10), pace)).await;
        let total: usize = sent.iter().map(|(_, len)| len).sum();
        assert_eq!(total as u64, 16 * MIB);
        let mut before = 0;
        for (at, len) in &sent {
            let allowed = at.as_secs_f64() * 8.0 * MIB as f64 + (BURST_BYTES + MIB / 64) as f64;
            assert!((before as f64) < allowed, "{before} bytes after {at:?}");
            before += len;
        }
        let last = sent.last().expect("pieces").0;
        assert!((1.9..2.1).contains(&last.as_secs_f64()), "16 MiB at 8 MiB/s took {last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_does_not_wait() {
        let small = Full::new(Bytes::from(vec![7; BURST_BYTES as usize]));
        let sent = pieces(Paced::new(small, SendPace::new(1))).await;
        assert_eq!(sent, [(Duration::ZERO, BURST_BYTES as usize)]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_was_slow_catches_up() {
        let pace = SendPace::new(8 * MIB);
        let mut paced = Paced::new(body(256, 64 << 10), pace);
        let first = BodyExt::frame(&mut paced).await.and_then(Result::ok).expect("a frame");
        assert_eq!(first.data_ref().map(Bytes::len), Some(64 << 10));
        // The network took nothing for a second: what was due in it goes at once.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sent = pieces(paced).await;
        let at_once: usize = sent.iter().filter(|(at, _)| at.is_zero()).map(|(_, len)| len).sum();
        assert!((7 * MIB..=9 * MIB).contains(&(at_once as u64)), "{at_once}");
    }
}
