//! What the coordinator knows of one transactional id: the durable facts, by Kafka 4.3's
//! TransactionMetadata. No rules here; those are in [`super::machine`].

use std::collections::BTreeSet;

use sluice_model::StreamId;
use sluice_wire::Str;

/// No producer id, and no epoch, as Kafka writes them.
pub(crate) const NONE: i64 = -1;
/// See [`NONE`].
pub(crate) const NO_EPOCH: i16 = -1;

/// A producer may not use this epoch or the one after it: the last is kept so that a fence always
/// has one to go to.
pub(crate) fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

/// Where a transactional id is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum State {
    /// No transaction since the producer was initialised.
    Empty,
    /// A transaction has partitions or groups.
    Ongoing,
    /// It will be committed; markers are being written.
    PrepareCommit,
    /// It will be aborted; markers are being written.
    PrepareAbort,
    /// It was committed, and all markers are written.
    CompleteCommit,
    /// It was aborted, and all markers are written.
    CompleteAbort,
}

impl State {
    /// All states, with Kafka's names for them.
    pub(crate) const NAMES: [(Self, &'static str); 6] = [
        (Self::Empty, "Empty"),
        (Self::Ongoing, "Ongoing"),
        (Self::PrepareCommit, "PrepareCommit"),
        (Self::PrepareAbort, "PrepareAbort"),
        (Self::CompleteCommit, "CompleteCommit"),
        (Self::CompleteAbort, "CompleteAbort"),
    ];

    /// Kafka's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The outcome is decided, and not yet told to all partitions.
    pub(crate) fn is_prepared(self) -> bool {
        matches!(self, Self::PrepareCommit | Self::PrepareAbort)
    }
}

/// How a producer speaks of its transactions (Kafka's transaction.version).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Generation {
    /// Partitions are added before they are written to; the epoch stays from transaction to
    /// transaction.
    One,
    /// KIP-890: writing adds the partition, and each end of a transaction raises the epoch.
    Two,
}

/// The durable state of a transactional id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    /// The producer id that may write.
    pub(crate) producer_id: i64,
    /// The producer id before the last change; -1 for none.
    pub(crate) previous_producer_id: i64,
    /// The producer id that takes over when the transaction is complete, because the epochs of this
    /// one are used up; -1 for none.
    pub(crate) next_producer_id: i64,
    /// The producer epoch that may write. In a prepared state of generation two, the markers' epoch.
    pub(crate) epoch: i16,
    /// The epoch whose holder may ask again for what raised the epoch; -1 for none.
    pub(crate) last_epoch: i16,
    /// How long a transaction may be open.
    pub(crate) timeout_ms: i32,
    /// Where it is.
    pub(crate) state: State,
    /// How the request that led here spoke.
    pub(crate) generation: Generation,
    /// Wall time when the transaction began, ms; -1 for none since the producer was initialised.
    pub(crate) started_ms: i64,
    /// Wall time of the last change, ms.
    pub(crate) updated_ms: i64,
    /// Where the open transaction has written, or may have.
    pub(crate) streams: BTreeSet<StreamId>,
    /// The groups whose offsets it commits.
    pub(crate) groups: BTreeSet<Str>,
}
