//! Configs of any kind of resource: their types, how one value is checked, and how they are reported.
//! What keys there are, and what they mean, is in `topic_config`, `group_config` and `client_metrics`.
//!
//! The rules and the texts of refusals are those of Kafka's `ConfigDef`.

mod entry;
mod value;

pub use entry::{ConfigEntry, ConfigSource, ConfigType, Synonym};
pub use value::InvalidConfig;

pub(crate) use value::{Value, list, shown};

/// What a value must satisfy beyond its type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    Any,
    AtLeast(i64),
    Between(i64, i64),
    /// 1 to 9, or -1.
    GzipLevel,
    /// 0 to 1.
    Ratio,
    OneOf(&'static [&'static str]),
    /// A list of some of these, each at most once; may be empty.
    SomeOf(&'static [&'static str]),
    /// `*` or `partition:broker` pairs.
    Replicas,
    /// `earliest`, `latest` or `by_duration:` with a duration.
    OffsetReset,
}

/// One config.
#[derive(Debug)]
pub struct ConfigKey {
    /// Such as `retention.ms`.
    pub name: &'static str,
    /// Kafka's default.
    pub default: &'static str,
    /// For people: what it does here.
    pub doc: &'static str,
    /// The broker config that gives resources their default, such as `log.retention.ms`.
    pub server_name: Option<&'static str>,
    pub(crate) kind: ConfigType,
    pub(crate) check: Check,
}

impl ConfigKey {
    /// The type of its values.
    pub fn kind(&self) -> ConfigType {
        self.kind
    }

    /// Whether values can be appended and subtracted.
    pub fn is_list(&self) -> bool {
        self.kind == ConfigType::List
    }
}
