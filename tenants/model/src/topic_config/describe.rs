//! A topic's configs as DescribeConfigs and CreateTopics report them.

use std::collections::BTreeMap;

use super::table::{ConfigKey, KEYS, Kind};
use super::{TopicDefaults, value::Value};

/// Where a value comes from; the codes are those of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// The operator's default.
    StaticBroker,
    /// Kafka's default.
    Default,
}

impl ConfigSource {
    /// Kafka's code.
    pub fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::StaticBroker => 4,
            Self::Default => 5,
        }
    }
}

/// The type of a value; the codes are those of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits.
    Int = 3,
    /// 64 bits.
    Long = 5,
    /// A fraction.
    Double = 6,
    /// Items between commas.
    List = 7,
}

impl ConfigType {
    /// Kafka's code.
    pub fn code(self) -> i8 {
        self as i8
    }
}

/// One place that could give a config its value, the first that does being the effective one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The name there: the topic's own, or the broker's such as `log.retention.ms`.
    pub name: &'static str,
    /// The value there.
    pub value: String,
    /// Which place.
    pub source: ConfigSource,
}

/// One config of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Such as `retention.ms`.
    pub name: &'static str,
    /// The effective value, in Kafka's canonical form.
    pub value: String,
    /// Where it comes from.
    pub source: ConfigSource,
    /// Its type.
    pub kind: ConfigType,
    /// For people.
    pub documentation: &'static str,
    /// All places that have a value, by precedence.
    pub synonyms: Vec<Synonym>,
}

impl ConfigEntry {
    /// Whether the topic says nothing about it.
    pub fn is_default(&self) -> bool {
        self.source != ConfigSource::Topic
    }
}

/// All configs of a topic with these overrides, sorted by name. None of them is a secret and none is
/// read-only.
pub fn describe(
    overrides: &BTreeMap<String, String>,
    defaults: &TopicDefaults,
) -> impl Iterator<Item = ConfigEntry> {
    KEYS.iter().map(move |key| entry(key, overrides.get(key.name), defaults.get(key.name)))
}

fn entry(key: &'static ConfigKey, set: Option<&String>, operator: Option<&str>) -> ConfigEntry {
    let canonical = |text: &str| {
        // What does not parse was stored by another version: show it as it is.
        key.parse(text).map_or_else(|_| text.to_owned(), |value: Value| value.to_string())
    };
    let mut synonyms = Vec::with_capacity(3);
    if let Some(text) = set {
        let value = canonical(text);
        synonyms.push(Synonym { name: key.name, value, source: ConfigSource::Topic });
    }
    if let Some(text) = operator {
        let name = key.server_name.unwrap_or(key.name);
        let value = canonical(text);
        synonyms.push(Synonym { name, value, source: ConfigSource::StaticBroker });
    }
    let (value, source) = match synonyms.first() {
        Some(first) => (first.value.clone(), first.source),
        None => (canonical(key.default), ConfigSource::Default),
    };
    if let Some((name, value)) = key.server_default() {
        synonyms.push(Synonym { name, value: value.to_owned(), source: ConfigSource::Default });
    }
    let kind = match key.kind {
        Kind::Boolean => ConfigType::Boolean,
        Kind::String => ConfigType::String,
        Kind::Int => ConfigType::Int,
        Kind::Long => ConfigType::Long,
        Kind::Double => ConfigType::Double,
        Kind::List => ConfigType::List,
    };
    ConfigEntry { name: key.name, value, source, kind, documentation: key.doc, synonyms }
}
