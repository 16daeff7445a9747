//! Moving a volume's tail into the bucket.
//!
//! One task a volume ([`pipeline`]) decides when a segment is due, and has a few of them built ([`build`])
//! and put at once. They are committed strictly in the order of the log, by the volume's committer; then
//! streams let go and the volume is trimmed: put, commit, release, trim, in that order always. When the
//! bucket fails, the same segment is tried again with growing pauses; the volume keeps the data meanwhile.
//!
//! ```text
//!   uploaded          in flight               waiting
//!  ───────────┼─────────┬─────────┬─────────┼──────────────▶ log
//!  trimmed    │ putting │ put     │ putting │ cut when due
//!             │         │ (waits for the    │
//!             │         │  one before)      │
//! ```

mod build;
mod freshness;
mod pipeline;

use std::sync::Arc;

use sluice_model::StreamId;

pub(crate) use self::build::Builder;
pub(crate) use self::freshness::Freshness;
pub(crate) use self::pipeline::{Flush, Uploader};
use crate::retention;
use crate::stream::Stream;

/// Finds the streams of a volume and the configuration of their topics.
pub(crate) trait StreamSource: Send + Sync + 'static {
    /// The stream, if it is in memory: if not, all of it is in the bucket. Not to be called while the
    /// volume's state is locked.
    fn stream(&self, id: StreamId) -> Option<Arc<Stream>>;
    /// What retention may do to the stream; none for one that does not exist, or is not known to be here.
    fn retention(&self, stream: StreamId) -> Option<retention::Limits>;
    /// Drops streams from memory that nobody uses and that manifests have in full.
    fn forget_idle(&self);
}
