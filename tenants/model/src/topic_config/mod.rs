//! Topic configuration: Kafka 4.3's keys (`TopicConfig`, `LogConfig`), how their values are checked,
//! and the effective typed values of a topic.
//!
//! A topic keeps only what was set on it (its overrides, verbatim); all else comes from the defaults of
//! its cluster ([`TopicDefaults`]: the tenant's, then the operator's), and then from Kafka's.
//! [`TopicConfig`] is derived from the two and never stored. Every key of Kafka is accepted, checked and
//! reported by [`describe`]; [`TopicConfig`] has a field for those on which Sluice acts.
//!
//! Does not know who may change a config, nor when a change takes effect.

mod describe;
mod table;

use std::collections::BTreeMap;

pub use describe::{describe, describe_server};
pub use table::{KEYS, key};

use crate::config::{ConfigSource, InvalidConfig, Value, list};

/// What holds for topics that do not say otherwise, by topic config name. The operator's defaults are
/// checked; a tenant may have set its own over them, on the brokers of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicDefaults {
    /// Set by the tenant on this broker.
    broker: BTreeMap<String, String>,
    /// Set by the tenant on all brokers.
    cluster: BTreeMap<String, String>,
    operator: BTreeMap<String, String>,
}

impl TopicDefaults {
    /// The operator's defaults, checked alone and together.
    pub fn new(values: BTreeMap<String, String>) -> Result<Self, InvalidConfig> {
        let defaults = Self { operator: values, ..Self::default() };
        defaults.check()?;
        Ok(defaults)
    }

    /// The same under what a tenant has set on all its brokers and on this one, by broker config name.
    /// What is no default of topics is passed over, and so is a value that this version does not take.
    pub fn of_tenant(
        &self,
        cluster: &BTreeMap<String, String>,
        broker: &BTreeMap<String, String>,
    ) -> Self {
        let layer = |set: &BTreeMap<String, String>| {
            let of_topics = KEYS.iter().filter_map(|key| {
                let text = set.get(key.server_name?)?;
                key.parse(text).is_ok().then(|| (key.name.to_owned(), text.clone()))
            });
            of_topics.collect()
        };
        Self { broker: layer(broker), cluster: layer(cluster), operator: self.operator.clone() }
    }

    /// Whether a topic on which nothing is set could have these.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        TopicConfig::new(&BTreeMap::new(), self).map(drop)
    }

    /// What is set for `name`, verbatim.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.places(name).next().map(|(text, _)| text)
    }

    /// All that is set for `name`, verbatim, and where, by precedence.
    pub(crate) fn places(&self, name: &str) -> impl Iterator<Item = (&str, ConfigSource)> {
        let layers = [
            (&self.broker, ConfigSource::DynamicBroker),
            (&self.cluster, ConfigSource::DynamicDefaultBroker),
            (&self.operator, ConfigSource::StaticBroker),
        ];
        layers
            .into_iter()
            .filter_map(move |(layer, source)| Some((layer.get(name)?.as_str(), source)))
    }

    fn all(&self) -> impl Iterator<Item = (&String, &String)> {
        self.operator.iter().chain(&self.cluster).chain(&self.broker)
    }
}

/// What becomes of old records; both may hold, and with neither they are kept for ever (KIP-1161).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Records past `retention.ms` or `retention.bytes` are removed.
    pub delete: bool,
    /// Only the last record of each key is kept.
    pub compact: bool,
}

/// Whose clock a record's timestamp shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The writer's, at append.
    LogAppendTime,
}

/// How batches are compressed in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the producer sent them.
    Producer,
    /// Not.
    Uncompressed,
    /// gzip at a level of 1 to 9, or -1 for the library's choice.
    Gzip(i32),
    /// snappy, which has no levels.
    Snappy,
    /// lz4 at a level of 1 to 17.
    Lz4(i32),
    /// zstd at a level of -131072 to 22.
    Zstd(i32),
}

/// The effective values of the configs that act.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `retention.ms`; `None` for no limit.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`, of one partition; `None` for no limit.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: the largest batch as it is stored, header included.
    pub max_message_bytes: u32,
    /// `cleanup.policy`.
    pub cleanup: CleanupPolicy,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a CreateTime may lie behind the writer's clock.
    pub timestamp_before_max_ms: u64,
    /// `message.timestamp.after.max.ms`: how far a CreateTime may lie ahead of the writer's clock.
    pub timestamp_after_max_ms: u64,
    /// `compression.type` with its level.
    pub compression: Compression,
    /// `min.compaction.lag.ms`: how long a record is safe from compaction.
    pub min_compaction_lag_ms: u64,
    /// `max.compaction.lag.ms`: how long a record may wait for compaction.
    pub max_compaction_lag_ms: u64,
    /// `delete.retention.ms`: how long a tombstone outlives the compaction that reached it.
    pub delete_retention_ms: u64,
    /// `min.cleanable.dirty.ratio`: the share of uncompacted bytes at which compaction is due.
    pub min_cleanable_dirty_ratio: f64,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.ms`.
    pub segment_ms: u64,
    /// `min.insync.replicas`. Durability does not depend on it: each append is durable at its ack.
    pub min_insync_replicas: u32,
}

impl TopicConfig {
    /// The effective values for a topic with these overrides; checks every override, the keys that
    /// constrain each other, and nothing about the topic itself.
    pub fn new(
        overrides: &BTreeMap<String, String>,
        defaults: &TopicDefaults,
    ) -> Result<Self, InvalidConfig> {
        for (name, text) in defaults.all().chain(overrides) {
            let key = key(name).ok_or_else(|| InvalidConfig::unknown("topic", name))?;
            key.parse(text)?;
        }
        let effective = Effective { overrides, defaults };
        let config = Self::derive(&effective);
        config.check(&effective)?;
        Ok(config)
    }

    /// The effective values for overrides that were accepted once, perhaps under other defaults or by
    /// another version: what does not hold today counts as not set, and nothing is refused.
    pub fn from_stored(overrides: &BTreeMap<String, String>, defaults: &TopicDefaults) -> Self {
        Self::derive(&Effective { overrides, defaults })
    }

    fn derive(effective: &Effective<'_>) -> Self {
        let limit = |name| u64::try_from(effective.long(name)).ok();
        let long = |name| u64::try_from(effective.long(name)).unwrap_or(0);
        let int = |name| u32::try_from(effective.long(name)).unwrap_or(0);
        let level = |name| i32::try_from(effective.long(name)).unwrap_or(0);
        let policy = effective.text("cleanup.policy");
        Self {
            retention_ms: limit("retention.ms"),
            retention_bytes: limit("retention.bytes"),
            max_message_bytes: int("max.message.bytes"),
            cleanup: CleanupPolicy {
                delete: list(&policy).any(|item| item == "delete"),
                compact: list(&policy).any(|item| item == "compact"),
            },
            timestamp_type: match effective.text("message.timestamp.type").as_str() {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            compression: match effective.text("compression.type").as_str() {
                "gzip" => Compression::Gzip(level("compression.gzip.level")),
                "snappy" => Compression::Snappy,
                "lz4" => Compression::Lz4(level("compression.lz4.level")),
                "zstd" => Compression::Zstd(level("compression.zstd.level")),
                "uncompressed" => Compression::Uncompressed,
                _ => Compression::Producer,
            },
            min_compaction_lag_ms: long("min.compaction.lag.ms"),
            max_compaction_lag_ms: long("max.compaction.lag.ms"),
            delete_retention_ms: long("delete.retention.ms"),
            min_cleanable_dirty_ratio: effective.double("min.cleanable.dirty.ratio"),
            segment_bytes: int("segment.bytes"),
            segment_ms: long("segment.ms"),
            min_insync_replicas: int("min.insync.replicas"),
        }
    }

    /// The rules over more than one key.
    fn check(&self, effective: &Effective<'_>) -> Result<(), InvalidConfig> {
        if self.min_compaction_lag_ms > self.max_compaction_lag_ms {
            return Err(InvalidConfig::new(format!(
                "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                self.min_compaction_lag_ms, self.max_compaction_lag_ms
            )));
        }
        // As a Kafka without tiered storage answers. There is no local tier to be told apart here.
        if effective.text("remote.storage.enable") == "true" {
            return Err(InvalidConfig::new(
                "Invalid value true for configuration remote.storage.enable: every topic is kept in \
                 object storage already; leave this unset"
                    .to_owned(),
            ));
        }
        Ok(())
    }
}

impl Default for TopicConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self::from_stored(&BTreeMap::new(), &TopicDefaults::default())
    }
}

/// Looks a key up in the overrides, then the defaults, then Kafka's; a value that does not parse counts
/// as not set.
struct Effective<'a> {
    overrides: &'a BTreeMap<String, String>,
    defaults: &'a TopicDefaults,
}

impl Effective<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        let key = key(name)?;
        let parse = |text: &str| key.parse(text).ok();
        let overridden = self.overrides.get(name).and_then(|text| parse(text));
        let default = || self.defaults.get(name).and_then(parse);
        overridden.or_else(default).or_else(|| parse(key.default))
    }

    fn long(&self, name: &str) -> i64 {
        match self.value(name) {
            Some(Value::Long(number)) => number,
            other => unreachable!("{name} is in the table as a number, not {other:?}"),
        }
    }

    fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Double(number)) => number,
            other => unreachable!("{name} is in the table as a double, not {other:?}"),
        }
    }

    fn text(&self, name: &str) -> String {
        self.value(name).map(|value| value.to_string()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
