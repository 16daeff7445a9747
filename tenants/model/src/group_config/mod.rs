//! Group configs: Kafka 4.3's keys for groups of the newer protocols (`GroupConfig`; KIP-848, KIP-932,
//! KIP-1071), how their values are checked, and the effective typed values of a group.
//!
//! As with topics, a group keeps only what was set on it, and that does not depend on whether the group
//! exists: Kafka lets a config be set before the first member comes. [`GroupSettings`] is derived and
//! never stored. Coordinators look it up through [`GroupConfigs`] each time they need it.
//!
//! Does not know who may change a config. Classic groups have none: their members bring their own times.

mod reset;
mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use reset::OffsetReset;
pub use table::{KEYS, key};

use crate::TenantId;
use crate::config::{ConfigEntry, ConfigSource, InvalidConfig, Value};
use table::{BOUNDS, Bounds, SESSIONS};

/// Where coordinators look up what holds for a group.
pub trait GroupConfigs: Send + Sync + 'static {
    /// What holds for a tenant's group now, whether or not there is one of that name. Cheap; asked again
    /// whenever it is needed, so that a change takes effect with the next heartbeat.
    fn settings(&self, tenant: TenantId, group: &str) -> Arc<GroupSettings>;
}

/// The operator's defaults for groups that do not say otherwise, by group config name; checked.
///
/// They may lie beyond the bounds that Kafka sets groups by default, and then widen them: what the
/// operator takes for right in general cannot be wrong for one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupDefaults(BTreeMap<String, String>);

impl GroupDefaults {
    /// Checks the defaults, alone and together.
    pub fn new(values: BTreeMap<String, String>) -> Result<Self, InvalidConfig> {
        let defaults = Self(values);
        GroupSettings::new(&BTreeMap::new(), &defaults)?;
        Ok(defaults)
    }

    /// What was set for `name`, verbatim.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of `name` for groups that say nothing.
    fn number(&self, name: &str) -> i64 {
        let nothing = BTreeMap::new();
        Effective { overrides: &nothing, defaults: self }.number(name)
    }

    /// The bounds of a config, widened to where its default lies.
    fn range(&self, bounds: &Bounds) -> (i64, i64) {
        let default = self.number(bounds.name);
        let min = bounds.min.map_or(i64::MIN, |(_, min)| min);
        (min.min(default), bounds.max.1.max(default))
    }
}

/// Times of one group protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberTimes {
    /// How long after its last heartbeat a member is gone.
    pub session_timeout_ms: i32,
    /// How often a member sends heartbeats.
    pub heartbeat_interval_ms: i32,
    /// The least time between two new assignments.
    pub assignment_interval_ms: i32,
}

/// What holds for share groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareSettings {
    /// The members' times.
    pub times: MemberTimes,
    /// Where reading begins.
    pub auto_offset_reset: OffsetReset,
    /// Deliveries of a record until it is archived; at least 2.
    pub delivery_count_limit: i32,
    /// Records that are held in one partition at most.
    pub partition_max_record_locks: i32,
    /// How long a record is held.
    pub record_lock_duration_ms: i32,
    /// Whether only records of committed transactions are delivered.
    pub read_committed: bool,
    /// Whether holding may be prolonged.
    pub renew_acknowledge: bool,
}

/// What holds for streams groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamsSettings {
    /// The members' times.
    pub times: MemberTimes,
    /// How long a new group waits for its first assignment.
    pub initial_rebalance_delay_ms: i32,
    /// Standby copies of each task.
    pub num_standby_replicas: i32,
}

/// The effective values of one group, of whatever kind it is or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// If it is a consumer group.
    pub consumer: MemberTimes,
    /// If it is a share group.
    pub share: ShareSettings,
    /// If it is a streams group.
    pub streams: StreamsSettings,
}

impl GroupSettings {
    /// The effective values for a group with these overrides; checks every override, the bounds and the
    /// keys that constrain each other.
    pub fn new(
        overrides: &BTreeMap<String, String>,
        defaults: &GroupDefaults,
    ) -> Result<Self, InvalidConfig> {
        for name in defaults.0.keys().chain(overrides.keys()) {
            key(name).ok_or_else(|| InvalidConfig::unknown("group", name))?;
        }
        for (name, text) in defaults.0.iter().chain(overrides) {
            key(name).map(|key| key.parse(text)).transpose()?;
        }
        let effective = Effective { overrides, defaults };
        for bounds in BOUNDS {
            let value = effective.number(bounds.name);
            let (min, max) = defaults.range(bounds);
            if let Some((limit, _)) = bounds.min.filter(|_| value < min) {
                let name = bounds.name;
                let text = format!("{name} must be greater than or equal to {limit}");
                return Err(InvalidConfig::new(text));
            }
            if value > max {
                let (name, limit) = (bounds.name, bounds.max.0);
                let text = format!("{name} must be less than or equal to {limit}");
                return Err(InvalidConfig::new(text));
            }
        }
        for (session, heartbeat) in SESSIONS {
            if effective.number(session) <= effective.number(heartbeat) {
                let text = format!("{session} must be greater than {heartbeat}");
                return Err(InvalidConfig::new(text));
            }
        }
        Ok(effective.settings())
    }

    /// The effective values for overrides that were accepted once, perhaps under other defaults or by
    /// another version: what does not parse counts as not set, and what lies beyond the bounds of today
    /// is brought to the nearest bound.
    pub fn from_stored(overrides: &BTreeMap<String, String>, defaults: &GroupDefaults) -> Self {
        Effective { overrides, defaults }.settings()
    }
}

impl Default for GroupSettings {
    /// Kafka's defaults.
    fn default() -> Self {
        Self::from_stored(&BTreeMap::new(), &GroupDefaults::default())
    }
}

/// All configs of a group with these overrides, sorted by name. None of them is a secret and none is
/// read-only.
pub fn describe(
    overrides: &BTreeMap<String, String>,
    defaults: &GroupDefaults,
) -> impl Iterator<Item = ConfigEntry> {
    KEYS.iter().map(move |key| {
        let set = overrides.get(key.name).map(|text| (text.as_str(), ConfigSource::Group));
        // A config that no broker config gives a default is its own default's place, unless it is set.
        let place = key.server_name.or_else(|| set.is_none().then_some(key.name));
        let operator = defaults.get(key.name).map(|text| (text, ConfigSource::StaticBroker));
        key.entry(set, operator, place.map(|place| (place, key.default)))
    })
}

/// Looks a key up in the overrides, then the operator's defaults, then Kafka's; a value that does not
/// parse counts as not set.
struct Effective<'a> {
    overrides: &'a BTreeMap<String, String>,
    defaults: &'a GroupDefaults,
}

impl Effective<'_> {
    fn value(&self, name: &str) -> Value {
        let key = key(name).expect("only names of the table are asked for");
        let parse = |text: &str| key.parse(text).ok();
        let overridden = self.overrides.get(name).and_then(|text| parse(text));
        let operator = || self.defaults.get(name).and_then(parse);
        let found = overridden.or_else(operator).or_else(|| parse(key.default));
        found.expect("the defaults of the table pass their own checks")
    }

    fn number(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Long(number) => number,
            other => unreachable!("{name} is in the table as a number, not {other:?}"),
        }
    }

    /// Within the bounds.
    fn bounded(&self, name: &str) -> i32 {
        let value = self.number(name);
        let bounds = BOUNDS.iter().find(|bounds| bounds.name == name);
        let value = bounds.map_or(value, |bounds| {
            let (min, max) = self.defaults.range(bounds);
            value.clamp(min, max)
        });
        i32::try_from(value).unwrap_or(i32::MAX)
    }

    fn text(&self, name: &str) -> String {
        self.value(name).to_string()
    }

    fn settings(&self) -> GroupSettings {
        GroupSettings {
            consumer: MemberTimes {
                session_timeout_ms: self.bounded("consumer.session.timeout.ms"),
                heartbeat_interval_ms: self.bounded("consumer.heartbeat.interval.ms"),
                assignment_interval_ms: self.bounded("consumer.assignment.interval.ms"),
            },
            share: ShareSettings {
                times: MemberTimes {
                    session_timeout_ms: self.bounded("share.session.timeout.ms"),
                    heartbeat_interval_ms: self.bounded("share.heartbeat.interval.ms"),
                    assignment_interval_ms: self.bounded("share.assignment.interval.ms"),
                },
                auto_offset_reset: OffsetReset::parse(&self.text("share.auto.offset.reset"))
                    .unwrap_or(OffsetReset::Latest),
                delivery_count_limit: self.bounded("share.delivery.count.limit"),
                partition_max_record_locks: self.bounded("share.partition.max.record.locks"),
                record_lock_duration_ms: self.bounded("share.record.lock.duration.ms"),
                read_committed: self.text("share.isolation.level") == "read_committed",
                renew_acknowledge: self.text("share.renew.acknowledge.enable") == "true",
            },
            streams: StreamsSettings {
                times: MemberTimes {
                    session_timeout_ms: self.bounded("streams.session.timeout.ms"),
                    heartbeat_interval_ms: self.bounded("streams.heartbeat.interval.ms"),
                    assignment_interval_ms: self.bounded("streams.assignment.interval.ms"),
                },
                initial_rebalance_delay_ms: self.bounded("streams.initial.rebalance.delay.ms"),
                num_standby_replicas: self.bounded("streams.num.standby.replicas"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
