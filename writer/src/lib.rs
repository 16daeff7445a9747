//! Partition owners: sequencing, group coordination, upload and the tail cache.
//!
//! A [`Writer`] takes over volumes, reads their logs back, and serves their streams; volumes come and go while
//! it runs (`ownership`). One task owns each
//! volume's log (`task`), one its manifests in the bucket (`commit`), one moves the log there (`upload`);
//! everyone else holds handles. Start reading at [`Writer`], then `task`, `stream`, `upload`, `commit` and
//! `recovery`.
//!
//! What always holds: nothing is acknowledged or shown before it is durable on the volume; offsets of a
//! stream are dense and the high watermark never goes back; a volume is trimmed only past what a
//! committed manifest holds.
//!
//! It does not know clients, connections or tenants' names, and does not read the bucket on behalf of
//! consumers: that is `sluice_reader`.

mod alarm;
mod commit;
mod compact;
mod coordinator_log;
mod coordinator_state;
mod coordinators;
mod deletions;
mod error;
pub mod group;
mod manifest_store;
mod metrics;
mod moves;
mod objects;
mod options;
mod orphans;
mod ownership;
mod payload;
mod recovery;
mod retention;
mod retire;
mod sequence;
pub mod share;
mod stream;
mod tail;
mod task;
#[cfg(test)]
mod tests;
mod topics;
pub mod transaction;
mod upload;
mod volume_handle;
mod writer;

pub use error::{AppendError, OpenError, ReleaseError, TailError};
pub use manifest_store::{ManifestError, ManifestStore, Written};
pub use metrics::{OwnershipMetrics, WriterMetrics};
pub use options::{
    CompactionOptions, MoveOptions, OnShift, OrphanOptions, Shift, TakeTerms, VolumePlace,
    WriterOptions,
};
pub use ownership::{Loss, LossReason, Released, TakeError, TakePhase, Taken};
pub use payload::{Entry, EntryKind, decode as decode_payload};
pub use sequence::{ActiveProducer, SequenceError};
pub use stream::{Offsets, Waiter};
pub use tail::Tail;
pub use task::Appended;
pub use volume_handle::Traffic;
pub use writer::{Found, Unverified, Writer, WriterParts};
