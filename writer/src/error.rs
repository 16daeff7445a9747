//! What can go wrong with an append, a read or a volume: one enum an operation, each with one total
//! function to Kafka's code.

use std::sync::Arc;
use std::time::Duration;

use sluice_wire::ErrorCode;

use crate::sequence::SequenceError;

/// Why an append was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// No such stream on this writer. The client refreshes its metadata.
    #[error("this node does not own the partition")]
    NotOwner,
    /// The batch is malformed or not allowed here. Never retried.
    #[error("{reason}")]
    Invalid {
        /// Kafka's code for this kind of malformation.
        code: ErrorCode,
        /// For the client to read.
        reason: String,
        /// (index in the batch, reason), where single records are at fault.
        records: Vec<(i32, String)>,
    },
    /// Idempotence refuses it.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// It did not become durable in time. Nothing is known of it: the client retries.
    #[error(
        "the write-ahead log took too long: it waits for its device, or is full because uploads to the bucket are behind"
    )]
    TimedOut,
}

impl AppendError {
    /// The code that the client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotOwner => ErrorCode::NotLeaderOrFollower,
            Self::Invalid { code, .. } => *code,
            Self::Sequence(SequenceError::ProducerFenced) => ErrorCode::InvalidProducerEpoch,
            Self::Sequence(SequenceError::OutOfOrder) => ErrorCode::OutOfOrderSequenceNumber,
            Self::Sequence(SequenceError::NotInTransaction) => ErrorCode::InvalidTxnState,
            Self::Sequence(SequenceError::Overtaken) => ErrorCode::ConcurrentTransactions,
            Self::Sequence(SequenceError::CoordinatorFenced) => {
                ErrorCode::TransactionCoordinatorFenced
            }
            Self::TimedOut => ErrorCode::RequestTimedOut,
        }
    }
}

/// Why a position was not served from the tail.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TailError {
    /// No such stream on this writer.
    #[error("this node does not own the partition")]
    NotOwner,
    /// Below the log start or above the high watermark.
    #[error("the offset is out of range")]
    OutOfRange,
    /// The volume cannot be read.
    #[error("the volume cannot be read: {0}")]
    Volume(Arc<sluice_volume::ReadError>),
}

impl TailError {
    /// The code that the client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotOwner => ErrorCode::NotLeaderOrFollower,
            Self::OutOfRange => ErrorCode::OffsetOutOfRange,
            Self::Volume(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why a volume was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The catalog did not give it.
    #[error("cannot claim volume {volume}: {why}")]
    Claim {
        /// The volume.
        volume: u32,
        /// What the catalog said.
        why: String,
    },
    /// Another node claimed it first.
    #[error("another node was first to claim volume {volume}")]
    Overtaken {
        /// The volume.
        volume: u32,
    },
    /// It was used before, and its file is gone.
    #[error(
        "the file of volume {volume}, {path}, is missing although it was in use: what it held and had not uploaded is lost \
         unless the file comes back; restore it, or start from an empty data directory"
    )]
    Missing {
        /// The volume.
        volume: u32,
        /// Where it should be.
        path: String,
    },
    /// The file could not be made.
    #[error(transparent)]
    Create(#[from] sluice_volume::CreateError),
    /// The file could not be opened.
    #[error("volume {volume} at {path}: {error}")]
    Volume {
        /// The volume.
        volume: u32,
        /// Its file.
        path: String,
        /// Why not.
        error: sluice_volume::OpenError,
    },
    /// The log could not be read back.
    #[error(transparent)]
    Recovery(#[from] sluice_volume::RecoveryError),
    /// The log holds what this build cannot understand, or contradicts the bucket.
    #[error("volume {volume} cannot be served: {why}")]
    Contradiction {
        /// The volume.
        volume: u32,
        /// What does not fit.
        why: String,
    },
    /// It is served here, or being taken, already.
    #[error("volume {volume} is here already")]
    Here {
        /// The volume.
        volume: u32,
    },
    /// The bucket or the device did not answer in time.
    #[error(
        "volume {volume} could not be brought up within {patience:?}: the bucket or the volume does not answer; try \
         again when it does"
    )]
    TookTooLong {
        /// The volume.
        volume: u32,
        /// How long it was waited for.
        patience: Duration,
    },
    /// The writer was closed.
    #[error("the writer is closed")]
    Closed,
    /// The bucket did not give the manifests.
    #[error(transparent)]
    Manifest(#[from] crate::manifest_store::ManifestError),
}

impl OpenError {
    /// Whether the device or the bucket has a newer owner than the one that was to open it.
    pub fn is_fenced(&self) -> bool {
        match self {
            Self::Volume { error: sluice_volume::OpenError::Fenced { .. }, .. }
            | Self::Manifest(crate::manifest_store::ManifestError::Fenced(_)) => true,
            Self::Claim { .. }
            | Self::Overtaken { .. }
            | Self::Missing { .. }
            | Self::Create(_)
            | Self::Volume { .. }
            | Self::Recovery(_)
            | Self::Contradiction { .. }
            | Self::Here { .. }
            | Self::TookTooLong { .. }
            | Self::Closed
            | Self::Manifest(_) => false,
        }
    }
}

/// Why a volume was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// It is not served here.
    #[error("volume {volume} is not here")]
    NotHere {
        /// The volume.
        volume: u32,
    },
    /// Somebody releases it already.
    #[error("volume {volume} is being released already")]
    UnderWay {
        /// The volume.
        volume: u32,
    },
    /// It was lost before it was handed over.
    #[error("volume {volume} was lost before it was released")]
    Lost {
        /// The volume.
        volume: u32,
    },
    /// It is closed and nothing of it is served, but the catalog still says that it is ours: take it again, or
    /// let another claim it.
    #[error("volume {volume} is closed, but the catalog was not told: {why}")]
    NotGivenUp {
        /// The volume.
        volume: u32,
        /// What the catalog said.
        why: String,
    },
}
