//! What an operator can set, and the bounds of everything a coordinator keeps.

use std::time::Duration;

use crate::share::ShareLimits;

/// Limits and times. Names in comments are Kafka's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for
    /// more members. Kafka's built-in default is 3000, the one in its sample configuration 0.
    pub initial_rebalance_delay_ms: i32,
    /// `group.min.session.timeout.ms`.
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub max_session_timeout_ms: i32,
    /// `group.consumer.max.size`.
    pub consumer_max_group_size: usize,
    /// `group.share.max.size`.
    pub share_max_group_size: usize,
    /// Bytes of a member id that a client chose.
    pub max_member_id_bytes: usize,
    /// How long a new member's JoinGroup may wait for its answer before the client is taken for
    /// gone; Kafka has it fixed at five minutes.
    pub new_member_join_timeout_ms: i32,
    /// `group.max.size`; also bounds the member ids that are handed out and have not joined.
    pub max_group_size: usize,
    /// `offset.metadata.max.bytes`, counted as Kafka does in UTF-16 units.
    pub max_offset_metadata: usize,
    /// `offsets.retention.minutes`, in ms.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `offsets.commit.timeout.ms`: how long a commit waits to become durable.
    pub commit_timeout: Duration,
    /// Groups of one tenant.
    pub max_groups_per_tenant: usize,
    /// Committed offsets of one group.
    pub max_offsets_per_group: usize,
    /// Tasks of one streams group: a partition of a subtopology each.
    pub max_tasks_per_group: usize,
    /// Bytes of a group id.
    pub max_group_id_bytes: usize,
    /// Bytes of all protocols that a member offers.
    pub max_subscription_bytes: usize,
    /// Bytes of a group's record: subscriptions and assignments of all members.
    pub max_group_bytes: usize,
    /// Bytes of commits that wait to become durable, over all tenants; what is over it waits.
    pub max_waiting_bytes: u32,
    /// Of share groups' records.
    pub share: ShareLimits,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 0,
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            consumer_max_group_size: 5_000,
            share_max_group_size: 200,
            max_member_id_bytes: 1_024,
            new_member_join_timeout_ms: 300_000,
            max_group_size: 5_000,
            max_offset_metadata: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            retention_check_interval: Duration::from_secs(600),
            commit_timeout: Duration::from_secs(5),
            max_groups_per_tenant: 10_000,
            max_offsets_per_group: 100_000,
            max_tasks_per_group: 100_000,
            max_group_id_bytes: 1_024,
            max_subscription_bytes: 1 << 20,
            max_group_bytes: 8 << 20,
            max_waiting_bytes: 16 << 20,
            share: ShareLimits::default(),
        }
    }
}
