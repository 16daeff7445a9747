//! How fast large things go, where as fast as possible would be in the way of others.

use std::num::NonZeroU64;
use std::time::Duration;

/// How fast the body of a put is sent at most, in bytes a second: an extension of its options, which stores
/// that do not know it ignore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendPace(NonZeroU64);

impl SendPace {
    /// At least a byte a second.
    pub fn new(bytes_per_second: u64) -> Self {
        Self(NonZeroU64::new(bytes_per_second).unwrap_or(NonZeroU64::MIN))
    }

    /// How long so many bytes take.
    pub fn time_for(self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.0.get() as f64)
    }
}
