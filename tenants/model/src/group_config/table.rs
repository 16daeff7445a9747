//! The table of group configs: Kafka 4.3's names, types, defaults, bounds and broker synonyms
//! (`GroupConfig`, `GroupCoordinatorConfig`, `ShareGroupConfig`). The documentation is Sluice's own.

use crate::config::{Check, ConfigKey, ConfigType};

use Check::{Any, AtLeast, OffsetReset, OneOf};
use ConfigType::{Boolean, Int, String};

/// The config of that name.
pub fn key(name: &str) -> Option<&'static ConfigKey> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|at| &KEYS[at])
}

const HEARTBEAT: &str = "How often a member is told to send a heartbeat.";
const SESSION: &str = "How long after its last heartbeat a member is taken for gone.";
const ASSIGNMENT: &str = "The least time between two new assignments of the group.";

/// All of them, sorted by name.
pub static KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "consumer.assignment.interval.ms",
        kind: Int,
        default: "1000",
        check: AtLeast(0),
        server_name: Some("group.consumer.assignment.interval.ms"),
        doc: ASSIGNMENT,
    },
    ConfigKey {
        name: "consumer.heartbeat.interval.ms",
        kind: Int,
        default: "5000",
        check: AtLeast(1),
        server_name: Some("group.consumer.heartbeat.interval.ms"),
        doc: HEARTBEAT,
    },
    ConfigKey {
        name: "consumer.session.timeout.ms",
        kind: Int,
        default: "45000",
        check: AtLeast(1),
        server_name: Some("group.consumer.session.timeout.ms"),
        doc: SESSION,
    },
    ConfigKey {
        name: "share.assignment.interval.ms",
        kind: Int,
        default: "1000",
        check: AtLeast(0),
        server_name: Some("group.share.assignment.interval.ms"),
        doc: ASSIGNMENT,
    },
    ConfigKey {
        name: "share.auto.offset.reset",
        kind: String,
        default: "latest",
        check: OffsetReset,
        server_name: None,
        doc: "Where a share group begins in a partition that it has not read: earliest, latest, or \
              by_duration: and an ISO 8601 duration before now.",
    },
    ConfigKey {
        name: "share.delivery.count.limit",
        kind: Int,
        default: "5",
        check: AtLeast(2),
        server_name: Some("group.share.delivery.count.limit"),
        doc: "How often a record is delivered to a share group before it is given up.",
    },
    ConfigKey {
        name: "share.heartbeat.interval.ms",
        kind: Int,
        default: "5000",
        check: AtLeast(1),
        server_name: Some("group.share.heartbeat.interval.ms"),
        doc: HEARTBEAT,
    },
    ConfigKey {
        name: "share.isolation.level",
        kind: String,
        default: "read_uncommitted",
        check: OneOf(&["read_committed", "read_uncommitted"]),
        server_name: None,
        doc: "Whether a share group is given records of aborted transactions (read_uncommitted) or \
              only those of committed ones (read_committed).",
    },
    ConfigKey {
        name: "share.partition.max.record.locks",
        kind: Int,
        default: "2000",
        check: AtLeast(100),
        server_name: Some("group.share.partition.max.record.locks"),
        doc: "How many records of one partition a share group may hold at once.",
    },
    ConfigKey {
        name: "share.record.lock.duration.ms",
        kind: Int,
        default: "30000",
        check: AtLeast(1000),
        server_name: Some("group.share.record.lock.duration.ms"),
        doc: "How long a member of a share group holds a record before others may have it.",
    },
    ConfigKey {
        name: "share.renew.acknowledge.enable",
        kind: Boolean,
        default: "true",
        check: Any,
        server_name: None,
        doc: "Whether a member of a share group may hold a record for longer by acknowledging it \
              with the type renew.",
    },
    ConfigKey {
        name: "share.session.timeout.ms",
        kind: Int,
        default: "45000",
        check: AtLeast(1),
        server_name: Some("group.share.session.timeout.ms"),
        doc: SESSION,
    },
    ConfigKey {
        name: "streams.assignment.interval.ms",
        kind: Int,
        default: "1000",
        check: AtLeast(0),
        server_name: Some("group.streams.assignment.interval.ms"),
        doc: ASSIGNMENT,
    },
    ConfigKey {
        name: "streams.heartbeat.interval.ms",
        kind: Int,
        default: "5000",
        check: AtLeast(1),
        server_name: Some("group.streams.heartbeat.interval.ms"),
        doc: HEARTBEAT,
    },
    ConfigKey {
        name: "streams.initial.rebalance.delay.ms",
        kind: Int,
        default: "3000",
        check: AtLeast(0),
        server_name: Some("group.streams.initial.rebalance.delay.ms"),
        doc: "How long a new streams group waits for more members before its first assignment.",
    },
    ConfigKey {
        name: "streams.num.standby.replicas",
        kind: Int,
        default: "0",
        check: AtLeast(0),
        server_name: Some("group.streams.num.standby.replicas"),
        doc: "How many standby copies of each task's state a streams group keeps.",
    },
    ConfigKey {
        name: "streams.session.timeout.ms",
        kind: Int,
        default: "45000",
        check: AtLeast(1),
        server_name: Some("group.streams.session.timeout.ms"),
        doc: SESSION,
    },
];

/// The range that a broker allows for a config of groups; beyond the check of the value itself.
pub(super) struct Bounds {
    pub(super) name: &'static str,
    /// The broker config that holds it, and Kafka's default of that.
    pub(super) min: Option<(&'static str, i64)>,
    pub(super) max: (&'static str, i64),
}

const fn bounds(name: &'static str, min: (&'static str, i64), max: (&'static str, i64)) -> Bounds {
    Bounds { name, min: Some(min), max }
}

/// In the order in which Kafka checks them.
pub(super) static BOUNDS: &[Bounds] = &[
    bounds(
        "consumer.heartbeat.interval.ms",
        ("group.consumer.min.heartbeat.interval.ms", 5_000),
        ("group.consumer.max.heartbeat.interval.ms", 15_000),
    ),
    bounds(
        "consumer.session.timeout.ms",
        ("group.consumer.min.session.timeout.ms", 45_000),
        ("group.consumer.max.session.timeout.ms", 60_000),
    ),
    bounds(
        "consumer.assignment.interval.ms",
        ("group.consumer.min.assignment.interval.ms", 0),
        ("group.consumer.max.assignment.interval.ms", 15_000),
    ),
    bounds(
        "share.heartbeat.interval.ms",
        ("group.share.min.heartbeat.interval.ms", 5_000),
        ("group.share.max.heartbeat.interval.ms", 15_000),
    ),
    bounds(
        "share.session.timeout.ms",
        ("group.share.min.session.timeout.ms", 45_000),
        ("group.share.max.session.timeout.ms", 60_000),
    ),
    bounds(
        "share.record.lock.duration.ms",
        ("group.share.min.record.lock.duration.ms", 15_000),
        ("group.share.max.record.lock.duration.ms", 60_000),
    ),
    bounds(
        "share.delivery.count.limit",
        ("group.share.min.delivery.count.limit", 2),
        ("group.share.max.delivery.count.limit", 10),
    ),
    bounds(
        "share.partition.max.record.locks",
        ("group.share.min.partition.max.record.locks", 100),
        ("group.share.max.partition.max.record.locks", 4_000),
    ),
    bounds(
        "share.assignment.interval.ms",
        ("group.share.min.assignment.interval.ms", 0),
        ("group.share.max.assignment.interval.ms", 15_000),
    ),
    bounds(
        "streams.heartbeat.interval.ms",
        ("group.streams.min.heartbeat.interval.ms", 5_000),
        ("group.streams.max.heartbeat.interval.ms", 15_000),
    ),
    bounds(
        "streams.session.timeout.ms",
        ("group.streams.min.session.timeout.ms", 45_000),
        ("group.streams.max.session.timeout.ms", 60_000),
    ),
    Bounds {
        name: "streams.num.standby.replicas",
        min: None,
        max: ("group.streams.max.standby.replicas", 2),
    },
    bounds(
        "streams.assignment.interval.ms",
        ("group.streams.min.assignment.interval.ms", 0),
        ("group.streams.max.assignment.interval.ms", 15_000),
    ),
];

/// A member must be able to miss a heartbeat: (session timeout, heartbeat interval).
pub(super) static SESSIONS: &[(&str, &str)] = &[
    ("consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"),
    ("share.session.timeout.ms", "share.heartbeat.interval.ms"),
    ("streams.session.timeout.ms", "streams.heartbeat.interval.ms"),
];
