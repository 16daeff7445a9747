//! Why a call was not answered as it should be, by what can be done next, and what the caller is told.

use std::error::Error;

use sluice_catalog::store::StoreError;
use tonic::{Code, ConnectError, Status};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It did not reach etcd, or etcd did not begin it: the same may be sent to another member.
    Unsent(String),
    /// It may have been done.
    Undecided(String),
    /// etcd has decided against it.
    Refused(Code, String),
    /// The answer is longer than is taken.
    TooLarge,
}

/// What etcd's errors begin with; others are our side's.
const ETCD: &str = "etcdserver: ";

impl Failure {
    /// What became of a call that ended with this status.
    pub(crate) fn of(status: &Status) -> Self {
        let text = || match status.source() {
            Some(source) => format!("{}: {}", status.message(), chain(source)),
            None => status.message().to_owned(),
        };
        match status.code() {
            Code::Unauthenticated => Self::Unsent(text()),
            // The token is older than a change of etcd's users.
            Code::InvalidArgument if status.message().contains("auth store is old") => {
                Self::Unsent(text())
            }
            Code::Unavailable if status.message() == "etcdserver: no leader" => {
                Self::Unsent(text())
            }
            Code::OutOfRange if !status.message().starts_with(ETCD) => Self::TooLarge,
            code @ (Code::NotFound
            | Code::OutOfRange
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::Unimplemented) => Self::Refused(code, status.message().to_owned()),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => match not_connected(status) {
                true => Self::Unsent(text()),
                false => Self::Undecided(text()),
            },
        }
    }

    /// Whether the member is not to be used any more.
    pub(crate) fn breaks(&self) -> bool {
        matches!(self, Self::Unsent(_) | Self::Undecided(_))
    }

    /// The range or watch is of a revision that is no longer kept.
    pub(crate) fn is_compacted(&self) -> bool {
        matches!(self, Self::Refused(Code::OutOfRange, text) if text.contains("compacted"))
    }

    /// Why, for people.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Unsent(text) | Self::Undecided(text) | Self::Refused(_, text) => text,
            Self::TooLarge => "the answer is too large",
        }
    }

    /// What the caller of the store is told.
    pub(crate) fn tell(self, endpoint: &str) -> StoreError {
        match self {
            Self::Refused(Code::NotFound, text) if text.contains("lease") => StoreError::LeaseEnded,
            Self::Refused(_, text) => {
                StoreError::Unavailable(format!("etcd at {endpoint} refuses: {text}"))
            }
            Self::Unsent(text) | Self::Undecided(text) => {
                StoreError::Unavailable(format!("etcd at {endpoint}: {text}"))
            }
            Self::TooLarge => {
                StoreError::Corrupt(format!("etcd at {endpoint} has a value that is too large"))
            }
        }
    }
}

/// Whether there was no connection to send the call on.
fn not_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// An error and what it comes from, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_tells_what_to_do() {
        let failure = |code, text: &str| Failure::of(&Status::new(code, text));
        let lease = failure(Code::NotFound, "etcdserver: requested lease not found");
        assert_eq!(lease.tell("a"), StoreError::LeaseEnded);
        let compacted =
            failure(Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert!(compacted.is_compacted() && !compacted.breaks());
        assert_eq!(
            failure(Code::OutOfRange, "decoded message length too large"),
            Failure::TooLarge
        );
        let full = failure(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(!full.breaks() && full.tell("a").to_string().contains("space exceeded"));
        for text in ["etcdserver: request timed out", "etcdserver: leader changed"] {
            assert!(matches!(failure(Code::Unavailable, text), Failure::Undecided(_)), "{text}");
        }
        for (code, text) in [
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::Unauthenticated, "etcdserver: invalid auth token"),
            (Code::InvalidArgument, "etcdserver: revision of auth store is old"),
        ] {
            assert!(matches!(failure(code, text), Failure::Unsent(_)), "{text}");
        }
    }
}
