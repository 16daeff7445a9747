//! The durable log under the coordinator, as the coordinator sees it.
//!
//! Everything that must survive a restart is a [`LogRecord`]. The log is implemented over an
//! internal stream of a volume; it calls [`CoordinatorState::apply`] for each record, in log order,
//! exactly when the record has become durable and before `append` returns. Recovery calls `apply`
//! for the pairs of a snapshot and then for the records logged after it, so live state and
//! recovered state come from one function.

use async_trait::async_trait;
use bytes::Bytes;
use sluice_wire::ErrorCode;

use super::record::RecordError;

/// One change to the coordinator's durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// What changes (see [`super::record`]).
    pub key: Bytes,
    /// The new value; `None` is a tombstone.
    pub value: Option<Bytes>,
}

impl LogRecord {
    /// Bytes of key and value.
    pub fn len_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Why records were not, or may not have been, made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The device has no room. Try again later.
    #[error("no room in the log")]
    Full,
    /// The log cannot say that the records are durable: they may yet become so. Try again.
    #[error("the log is unavailable")]
    Unavailable,
    /// The log is still being recovered.
    #[error("the log is loading")]
    Loading,
    /// This process does not own the volume any more.
    #[error("the log has another owner")]
    NotOwner,
    /// A record is larger than the log takes. The same request will fail again.
    #[error("record too large for the log")]
    TooLarge,
}

impl LogError {
    /// The code that a client sees. All but `TooLarge` make clients look up the coordinator or
    /// wait, and then try again, as Kafka's own mapping of append errors does.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Full | Self::Unavailable => ErrorCode::CoordinatorNotAvailable,
            Self::Loading => ErrorCode::CoordinatorLoadInProgress,
            Self::NotOwner => ErrorCode::NotCoordinator,
            Self::TooLarge => ErrorCode::UnknownServerError,
        }
    }
}

/// Where the coordinator's records become durable.
#[async_trait]
pub trait CoordinatorLog: Send + Sync + 'static {
    /// Appends all records, in order, or none.
    ///
    /// Returns when they are durable and have been applied. The coordinator has one append in
    /// flight at a time and does not drop the future. Must end in bounded time: a log that cannot
    /// tell fails with [`LogError::Unavailable`].
    async fn append(&self, records: Vec<LogRecord>) -> Result<(), LogError>;
}

/// State that a [`CoordinatorLog`] carries.
pub trait CoordinatorState: Send + Sync {
    /// Takes one durable record. Called in log order, never from two threads at once. A record that
    /// cannot be read is an error and changes nothing.
    fn apply(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), RecordError>;

    /// Emits pairs that, applied in any order to empty state, give the durable state. What is
    /// applied while this runs may be in it or not: the caller replays from a position in the log
    /// taken before the call, and applying a record twice changes nothing.
    fn snapshot(&self, emit: &mut dyn FnMut(Bytes, Bytes));
}
