//! Read-only replicas over the bucket: which objects hold an offset or a timestamp, few large range
//! reads for them, and a bounded cache that a second consumer hits.
//!
//! A reader needs the bucket alone. What lies where comes from volumes' states
//! ([`sluice_format::VolumeState`]); in the process that also writes, the writer shares its own. Every
//! block is checked against its CRC32C each time that it is read, before anyone sees it; what is damaged is asked for
//! once more before that is said.

mod aborted;
mod ahead;
mod load;
mod lookup;
mod pages;
mod plan;
mod read;
mod share;
#[cfg(test)]
mod tests;

pub use lookup::Found;
pub use pages::CacheMetrics;
pub use read::{ReadError, Reader, ReaderOptions, SharedState, Wish};
pub use share::Bounds;
