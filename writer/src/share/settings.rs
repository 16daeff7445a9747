//! What a share group's configuration says, and the bounds of what is kept for share groups.

use std::time::Duration;

use super::partition::Rules;

/// Where a share group begins in a stream that it has no state in: `share.auto.offset.reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// At the end of the stream.
    Latest,
    /// At its beginning.
    Earliest,
    /// At the first record that is younger than this.
    ByDuration(Duration),
}

/// One group's configuration, with Kafka's names and defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSettings {
    /// `share.record.lock.duration.ms`.
    pub record_lock_duration: Duration,
    /// `share.delivery.count.limit`.
    pub delivery_count_limit: u16,
    /// `share.partition.max.record.locks`.
    pub partition_max_record_locks: u32,
    /// `share.auto.offset.reset`.
    pub auto_offset_reset: Reset,
    /// `share.isolation.level` is `read_committed`.
    pub read_committed: bool,
    /// `share.renew.acknowledge.enable`.
    pub renew_acknowledge_enable: bool,
    /// `share.session.timeout.ms`.
    pub session_timeout: Duration,
    /// `share.heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
}

impl Default for ShareSettings {
    fn default() -> Self {
        Self {
            record_lock_duration: Duration::from_secs(30),
            delivery_count_limit: 5,
            partition_max_record_locks: 2_000,
            auto_offset_reset: Reset::Latest,
            read_committed: false,
            renew_acknowledge_enable: true,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(5),
        }
    }
}

impl ShareSettings {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            lock: self.record_lock_duration,
            delivery_limit: self.delivery_count_limit,
            max_locks: self.partition_max_record_locks,
            renew: self.renew_acknowledge_enable,
        }
    }
}

/// Bounds that hold for each tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareLimits {
    /// `group.share.max.share.sessions`; Kafka counts them over all groups of a broker.
    pub max_sessions: usize,
    /// Share partitions: what a group has of one stream, live or only stored.
    pub max_partitions: usize,
    /// A session that was not used for so long makes room for another, when there are too many. Kafka
    /// ends a session with its connection.
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
