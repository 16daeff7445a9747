//! What a share group's configuration comes to, and the bounds of what is kept for share groups.

use std::time::Duration;

use sluice_model::group_config::ShareSettings;

use super::partition::Rules;

/// The rules of a group's share partitions, by its configuration.
pub(crate) fn rules(settings: &ShareSettings) -> Rules {
    Rules {
        lock: lock_duration(settings),
        delivery_limit: u16::try_from(settings.delivery_count_limit).unwrap_or(u16::MAX),
        max_locks: u32::try_from(settings.partition_max_record_locks).unwrap_or(0),
        renew: settings.renew_acknowledge,
    }
}

/// How long a record is held.
pub(crate) fn lock_duration(settings: &ShareSettings) -> Duration {
    Duration::from_millis(u64::try_from(settings.record_lock_duration_ms).unwrap_or(0))
}

/// Bounds that hold for each tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareLimits {
    /// `group.share.max.share.sessions`; Kafka counts them over all groups of a broker.
    pub max_sessions: usize,
    /// Share partitions: what a group has of one stream, live or only stored.
    pub max_partitions: usize,
    /// A session that was not used for so long makes room for another, when there are too many: its
    /// connection may hang half open.
    pub idle_session: Duration,
}

impl Default for ShareLimits {
    fn default() -> Self {
        Self {
            max_sessions: 2_000,
            max_partitions: 100_000,
            idle_session: Duration::from_secs(120),
        }
    }
}
