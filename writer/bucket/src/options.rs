//! How the client works.

use std::time::Duration;

/// Whose requests go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits: uploads, commits, reads for consumers.
    Foreground,
    /// Nobody does: compaction, collection of orphans, read-ahead.
    Background,
}

/// Bounds and times. The default suits S3.
#[derive(Clone, Copy, Debug)]
pub struct BucketOptions {
    /// One try of a read, a listing or a deletion may take so long; a read, a second longer for each
    /// MiB.
    pub read_timeout: Duration,
    /// One try of a write may take so long, and a second longer for each MiB.
    pub write_timeout: Duration,
    /// After so long an operation is not tried again.
    pub deadline: Duration,
    /// An operation is tried again so often at most.
    pub max_retries: u32,
    /// Requests under way at once, at most. Throttling lowers it for a while.
    pub max_requests: u32,
    /// Requests a second, at most; none: what the store allows, which is learned from its refusals.
    pub max_rate: Option<u32>,
    /// Of so many per cent of reads a second request may be made; 0 makes none.
    pub hedge_percent: u32,
}

impl Default for BucketOptions {
    fn default() -> Self {
        Self {
            read_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            deadline: Duration::from_secs(60),
            max_retries: 10,
            max_requests: 128,
            max_rate: None,
            hedge_percent: 5,
        }
    }
}

impl BucketOptions {
    /// What one try that moves `bytes` may take, on top of `base`.
    pub(crate) fn try_timeout(base: Duration, bytes: u64) -> Duration {
        base.saturating_add(Duration::from_secs(bytes >> 20))
    }
}
