//! The table of topic configs: Kafka 4.3's names, types, defaults, bounds and broker synonyms
//! (`TopicConfig`, `LogConfig`, `ServerTopicConfigSynonyms`; KIP-1030 for the defaults and bounds that
//! 4.0 changed). The documentation is Sluice's own and says what a key does here.

use crate::config::{Check, ConfigKey, ConfigType};

/// The broker config that holds Kafka's default of a key, and its value: for a few keys that is not the
/// broker config of highest precedence, and the value may have another unit.
pub(super) fn server_default(key: &ConfigKey) -> Option<(&'static str, &'static str)> {
    match key.name {
        "retention.ms" => Some(("log.retention.hours", "168")),
        "segment.ms" => Some(("log.roll.hours", "168")),
        "segment.jitter.ms" => Some(("log.roll.jitter.hours", "0")),
        "flush.ms" => Some(("log.flush.scheduler.interval.ms", key.default)),
        _ => key.server_name.map(|name| (name, key.default)),
    }
}

/// The same as a topic's description shows it: Kafka leaves those few out.
pub(super) fn topics_default(key: &ConfigKey) -> Option<(&'static str, &'static str)> {
    match key.name {
        "retention.ms" | "segment.ms" | "segment.jitter.ms" | "flush.ms" => None,
        _ => server_default(key),
    }
}

/// The config of that name.
pub fn key(name: &str) -> Option<&'static ConfigKey> {
    KEYS.binary_search_by(|key| key.name.cmp(name)).ok().map(|at| &KEYS[at])
}

use Check::{Any, AtLeast, Between, GzipLevel, OneOf, Ratio, Replicas, SomeOf};
use ConfigType::{Boolean, Double, Int, List, Long, String};

/// All of them, sorted by name.
pub static KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "cleanup.policy",
        kind: List,
        default: "delete",
        check: SomeOf(&["compact", "delete"]),
        server_name: Some("log.cleanup.policy"),
        doc: "What becomes of old records: delete removes them by age or size, compact keeps the \
              last record of each key, both may be given, and an empty list keeps everything.",
    },
    ConfigKey {
        name: "compression.gzip.level",
        kind: Int,
        default: "-1",
        check: GzipLevel,
        server_name: Some("compression.gzip.level"),
        doc: "The gzip level when compression.type is gzip; -1 leaves the choice to the library.",
    },
    ConfigKey {
        name: "compression.lz4.level",
        kind: Int,
        default: "9",
        check: Between(1, 17),
        server_name: Some("compression.lz4.level"),
        doc: "The lz4 level when compression.type is lz4.",
    },
    ConfigKey {
        name: "compression.type",
        kind: String,
        default: "producer",
        check: OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        server_name: Some("compression.type"),
        doc: "How batches are compressed in the log; producer keeps them as they were sent.",
    },
    ConfigKey {
        name: "compression.zstd.level",
        kind: Int,
        default: "3",
        check: Between(-131_072, 22),
        server_name: Some("compression.zstd.level"),
        doc: "The zstd level when compression.type is zstd.",
    },
    ConfigKey {
        name: "delete.retention.ms",
        kind: Long,
        default: "86400000",
        check: AtLeast(0),
        server_name: Some("log.cleaner.delete.retention.ms"),
        doc: "How long a tombstone stays readable after compaction has reached it, so that a \
              reader which began before sees it.",
    },
    ConfigKey {
        name: "file.delete.delay.ms",
        kind: Long,
        default: "60000",
        check: AtLeast(0),
        server_name: Some("log.segment.delete.delay.ms"),
        doc: "Accepted and reported. Objects that nothing refers to any more are removed after a \
              grace time of the service's own.",
    },
    ConfigKey {
        name: "flush.messages",
        kind: Long,
        default: "9223372036854775807",
        check: AtLeast(1),
        server_name: Some("log.flush.interval.messages"),
        doc: "Accepted and reported. Every append is durable before it is acknowledged.",
    },
    ConfigKey {
        name: "flush.ms",
        kind: Long,
        default: "9223372036854775807",
        check: AtLeast(0),
        server_name: Some("log.flush.interval.ms"),
        doc: "Accepted and reported. Every append is durable before it is acknowledged.",
    },
    ConfigKey {
        name: "follower.replication.throttled.replicas",
        kind: List,
        default: "",
        check: Replicas,
        server_name: None,
        doc: "Accepted and reported. Copies are not made by replication between brokers.",
    },
    ConfigKey {
        name: "index.interval.bytes",
        kind: Int,
        default: "4096",
        check: AtLeast(0),
        server_name: Some("log.index.interval.bytes"),
        doc: "Accepted and reported. Indexes are laid out by the storage engine.",
    },
    ConfigKey {
        name: "leader.replication.throttled.replicas",
        kind: List,
        default: "",
        check: Replicas,
        server_name: None,
        doc: "Accepted and reported. Copies are not made by replication between brokers.",
    },
    ConfigKey {
        name: "local.retention.bytes",
        kind: Long,
        default: "-2",
        check: AtLeast(-2),
        server_name: Some("log.local.retention.bytes"),
        doc: "Accepted and reported. What is kept near the writer is decided by the size of its \
              volumes.",
    },
    ConfigKey {
        name: "local.retention.ms",
        kind: Long,
        default: "-2",
        check: AtLeast(-2),
        server_name: Some("log.local.retention.ms"),
        doc: "Accepted and reported. What is kept near the writer is decided by the size of its \
              volumes.",
    },
    ConfigKey {
        name: "max.compaction.lag.ms",
        kind: Long,
        default: "9223372036854775807",
        check: AtLeast(1),
        server_name: Some("log.cleaner.max.compaction.lag.ms"),
        doc: "The longest that a record of a compacted topic may wait until it is considered for \
              compaction.",
    },
    ConfigKey {
        name: "max.message.bytes",
        kind: Int,
        default: "1048588",
        check: AtLeast(0),
        server_name: Some("message.max.bytes"),
        doc: "The largest record batch that is accepted, in bytes, as compressed by the producer.",
    },
    ConfigKey {
        name: "message.timestamp.after.max.ms",
        kind: Long,
        default: "3600000",
        check: AtLeast(0),
        server_name: Some("log.message.timestamp.after.max.ms"),
        doc: "How far the timestamp of a record may lie ahead of the writer's clock; a record \
              beyond that is refused. Without effect under LogAppendTime.",
    },
    ConfigKey {
        name: "message.timestamp.before.max.ms",
        kind: Long,
        default: "9223372036854775807",
        check: AtLeast(0),
        server_name: Some("log.message.timestamp.before.max.ms"),
        doc: "How far the timestamp of a record may lie behind the writer's clock; a record beyond \
              that is refused. Without effect under LogAppendTime.",
    },
    ConfigKey {
        name: "message.timestamp.type",
        kind: String,
        default: "CreateTime",
        check: OneOf(&["CreateTime", "LogAppendTime"]),
        server_name: Some("log.message.timestamp.type"),
        doc: "Whether records carry the producer's timestamp or that of their append.",
    },
    ConfigKey {
        name: "min.cleanable.dirty.ratio",
        kind: Double,
        default: "0.5",
        check: Ratio,
        server_name: Some("log.cleaner.min.cleanable.ratio"),
        doc: "The share of uncompacted bytes in a compacted partition at which compaction is due.",
    },
    ConfigKey {
        name: "min.compaction.lag.ms",
        kind: Long,
        default: "0",
        check: AtLeast(0),
        server_name: Some("log.cleaner.min.compaction.lag.ms"),
        doc: "How long a record of a compacted topic is safe from compaction.",
    },
    ConfigKey {
        name: "min.insync.replicas",
        kind: Int,
        default: "1",
        check: AtLeast(1),
        server_name: Some("min.insync.replicas"),
        doc: "Accepted and reported. An acknowledged record is durable on shared storage whatever \
              is set here.",
    },
    ConfigKey {
        name: "preallocate",
        kind: Boolean,
        default: "false",
        check: Any,
        server_name: Some("log.preallocate"),
        doc: "Accepted and reported. Volumes are always allocated beforehand.",
    },
    ConfigKey {
        name: "remote.log.copy.disable",
        kind: Boolean,
        default: "false",
        check: Any,
        server_name: None,
        doc: "Accepted and reported. Every topic goes to object storage.",
    },
    ConfigKey {
        name: "remote.log.delete.on.disable",
        kind: Boolean,
        default: "false",
        check: Any,
        server_name: None,
        doc: "Accepted and reported. Every topic goes to object storage.",
    },
    ConfigKey {
        name: "remote.storage.enable",
        kind: Boolean,
        default: "false",
        check: Any,
        server_name: None,
        doc: "Every topic is kept in object storage, so this cannot be set to true.",
    },
    ConfigKey {
        name: "retention.bytes",
        kind: Long,
        default: "-1",
        check: Any,
        server_name: Some("log.retention.bytes"),
        doc: "The size of a partition beyond which its oldest records are removed under the delete \
              policy; -1 for no limit.",
    },
    ConfigKey {
        name: "retention.ms",
        kind: Long,
        default: "604800000",
        check: AtLeast(-1),
        server_name: Some("log.retention.ms"),
        doc: "The age beyond which records are removed under the delete policy; -1 for no limit.",
    },
    ConfigKey {
        name: "segment.bytes",
        kind: Int,
        default: "1073741824",
        check: AtLeast(1_048_576),
        server_name: Some("log.segment.bytes"),
        doc: "Accepted and reported. How much goes into one object is decided by the storage \
              engine.",
    },
    ConfigKey {
        name: "segment.index.bytes",
        kind: Int,
        default: "10485760",
        check: AtLeast(4),
        server_name: Some("log.index.size.max.bytes"),
        doc: "Accepted and reported. Indexes are laid out by the storage engine.",
    },
    ConfigKey {
        name: "segment.jitter.ms",
        kind: Long,
        default: "0",
        check: AtLeast(0),
        server_name: Some("log.roll.jitter.ms"),
        doc: "Accepted and reported. When objects are cut is decided by the storage engine.",
    },
    ConfigKey {
        name: "segment.ms",
        kind: Long,
        default: "604800000",
        check: AtLeast(1),
        server_name: Some("log.roll.ms"),
        doc: "Accepted and reported. When objects are cut is decided by the storage engine.",
    },
    ConfigKey {
        name: "unclean.leader.election.enable",
        kind: Boolean,
        default: "false",
        check: Any,
        server_name: Some("unclean.leader.election.enable"),
        doc: "Accepted and reported. A partition is only ever taken over with all acknowledged \
              records.",
    },
];
