//! A Kafka client for load: pipelined connections, and what a cluster tells of itself. Through our own wire
//! crate; it does what producers and consumers here need and nothing more.
//!
//! A tenant's credentials are in its [`Endpoint`]s: they are what every connection is made from.

mod cluster;
mod connection;
mod credentials;

pub(crate) use cluster::{Bound, Cluster, Leaders};
pub(crate) use connection::{Connection, Endpoint};
pub use credentials::Account;
pub(crate) use credentials::Credentials;

use sluice_wire::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// Why a request was not answered, or not as hoped.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The connection could not be made, or broke; whether the request was carried out is not known.
    #[error("connection to {address}: {reason}")]
    Connection {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// No answer within the time limit; whether the request was carried out is not known.
    #[error("no answer to {0} in time")]
    TimedOut(ApiKey),
    /// The server serves no version of this request that we know.
    #[error("the server does not serve {0} in a version that this program knows")]
    Unserved(ApiKey),
    /// The request cannot be said in the version agreed on.
    #[error("{0}")]
    Encode(#[from] EncodeError),
    /// The answer is not what Kafka's schema says.
    #[error("the server's answer to {0} cannot be read: {1}")]
    Decode(ApiKey, DecodeError),
    /// A client that is not ours has failed, in its words.
    #[error("librdkafka: {0}")]
    Foreign(String),
    /// The server has refused.
    #[error("{what}: {code}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The error in the answer.
        code: ErrorCode,
    },
}

impl CallError {
    /// Whether asking again may help.
    pub(crate) fn is_retriable(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::TimedOut(_) => true,
            Self::Refused { code, .. } => code.retriable(),
            Self::Unserved(_) | Self::Encode(_) | Self::Decode(..) | Self::Foreign(_) => false,
        }
    }

    /// Whether the server knows nothing of the topic.
    pub(crate) fn is_unknown_topic(&self) -> bool {
        matches!(self, Self::Refused { code: ErrorCode::UnknownTopicOrPartition, .. })
    }

    pub(crate) fn refused(what: impl Into<String>, code: i16) -> Self {
        Self::Refused { what: what.into(), code: ErrorCode::from_code(code) }
    }
}
