//! What a failed request means for the next step.

use std::error::Error as StdError;

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

/// Why a request failed, by what may be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// There is no such object. Final.
    NotFound,
    /// A condition did not hold: it exists already, or has changed. Final.
    Condition,
    /// The store refuses us, or the request makes no sense. Final.
    Denied,
    /// The store wants fewer requests. It did not carry this one out: try again, later.
    Throttled,
    /// The request certainly did not reach the store, or not whole, or lost a race without effect: try again.
    NotDone,
    /// It took too long. Whether it was carried out is not known.
    TimedOut,
    /// The connection broke, the store failed or the answer was cut. Whether the request was carried
    /// out is not known.
    Unclear,
    /// Anything else; trying again at once would not help.
    Other,
}

impl Failure {
    /// Every kind, for metrics.
    pub const ALL: [Self; 8] = [
        Self::NotFound,
        Self::Condition,
        Self::Denied,
        Self::Throttled,
        Self::NotDone,
        Self::TimedOut,
        Self::Unclear,
        Self::Other,
    ];

    /// The kind of `error`.
    pub fn of(error: &Error) -> Self {
        if let Some(found) = cause(error) {
            return found;
        }
        match error {
            Error::NotFound { .. } => Self::NotFound,
            Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. } => Self::Condition,
            Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. } => Self::Denied,
            _ => Self::Other,
        }
    }

    /// Whether the store certainly has not carried the request out.
    pub fn without_effect(self) -> bool {
        matches!(self, Self::Throttled | Self::NotDone)
    }

    /// Whether the same request may succeed when it is made again.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::NotDone | Self::TimedOut | Self::Unclear)
    }

    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Condition => "condition",
            Self::Denied => "denied",
            Self::Throttled => "throttled",
            Self::NotDone => "not_done",
            Self::TimedOut => "timed_out",
            Self::Unclear => "unclear",
            Self::Other => "other",
        }
    }
}

/// An answer that says: not now. Carried as the cause of an [`Error`], since object_store keeps statuses
/// to itself.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the bucket answered {status}: {body}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The beginning of the answer's body.
    pub body: String,
}

impl Refusal {
    /// What it means, by status. 409 stands for a conditional write that lost a race without effect
    /// (S3's ConditionalRequestConflict), 400 for a body that was damaged on its way.
    pub(crate) fn failure(&self) -> Failure {
        match self.status {
            429 | 503 => Failure::Throttled,
            400 | 409 => Failure::NotDone,
            408 => Failure::TimedOut,
            _ => Failure::Unclear,
        }
    }
}

/// One try took longer than it may.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {after_ms} ms")]
pub(crate) struct TimedOut {
    pub(crate) after_ms: u64,
}

/// A body has another length than was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{got} bytes came instead of {wanted}")]
pub(crate) struct WrongLength {
    pub(crate) wanted: u64,
    pub(crate) got: u64,
}

/// More requests wait for their turn than may.
#[derive(Debug, thiserror::Error)]
#[error("too many requests wait for the bucket")]
pub(crate) struct Crowded;

/// An error of our own.
pub(crate) fn ours(source: impl StdError + Send + Sync + 'static) -> Error {
    Error::Generic { store: "bucket", source: Box::new(source) }
}

/// What the chain of causes says, where it does.
fn cause(error: &Error) -> Option<Failure> {
    let mut next = Some(error as &(dyn StdError + 'static));
    while let Some(error) = next {
        if let Some(refusal) = error.downcast_ref::<Refusal>() {
            return Some(refusal.failure());
        }
        if error.is::<TimedOut>() {
            return Some(Failure::TimedOut);
        }
        if error.is::<WrongLength>() {
            return Some(Failure::Unclear);
        }
        if let Some(http) = error.downcast_ref::<HttpError>() {
            // A refusal is its source and says more.
            if let Some(refusal) = http.source().and_then(|source| source.downcast_ref::<Refusal>())
            {
                return Some(refusal.failure());
            }
            return Some(match http.kind() {
                HttpErrorKind::Connect => Failure::NotDone,
                HttpErrorKind::Timeout => Failure::TimedOut,
                _ => Failure::Unclear,
            });
        }
        next = error.source();
    }
    None
}
