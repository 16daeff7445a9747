//! Read-only replicas over the bucket: which objects hold an offset or a timestamp, few large range
//! reads for them, and a bounded cache that a second consumer hits.
//!
//! A reader needs the bucket alone. What lies where comes from volumes' states
//! ([`sluice_format::VolumeState`]); in the process that also writes, the writer shares its own. Every
//! block is checked against its CRC32C when it arrives, before anyone sees it; what arrives damaged is read
//! once more before that is said.

mod aborted;
mod ahead;
mod cache;
mod gather;
mod load;
mod lookup;
mod plan;
mod read;
#[cfg(test)]
mod tests;

pub use cache::CacheMetrics;
pub use lookup::Found;
pub use read::{ReadError, Reader, ReaderOptions, SharedState};
