//! How a config is reported, by DescribeConfigs and CreateTopics.

use super::{ConfigKey, Value};

/// Where a value comes from; the codes are those of DescribeConfigs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on the group.
    Group,
    /// Set on the subscription of clients' metrics.
    ClientMetrics,
    /// Set by the tenant on one broker of its cluster.
    DynamicBroker,
    /// Set by the tenant on all brokers of its cluster.
    DynamicDefaultBroker,
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
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::ClientMetrics => 7,
            Self::Group => 8,
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

/// One place that gives a config a value; the first of them is the effective one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The name there: the resource's own, or the broker's such as `log.retention.ms`.
    pub name: &'static str,
    /// The value there.
    pub value: String,
    /// Which place.
    pub source: ConfigSource,
}

/// One config of a resource.
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
    /// Whether the resource says nothing about it.
    pub fn is_default(&self) -> bool {
        match self.source {
            ConfigSource::Topic | ConfigSource::Group | ConfigSource::ClientMetrics => false,
            ConfigSource::DynamicBroker
            | ConfigSource::DynamicDefaultBroker
            | ConfigSource::StaticBroker
            | ConfigSource::Default => true,
        }
    }
}

impl ConfigKey {
    /// A value in Kafka's canonical form. What does not parse was stored by another version: it is
    /// shown as it is.
    pub fn canonical(&self, text: &str) -> String {
        self.parse(text).map_or_else(|_| text.to_owned(), |value: Value| value.to_string())
    }

    /// The config as it is reported: `set` is what the resource of kind `source` says, `defaults` what
    /// others say for all such resources, by precedence, `default` the place and value of Kafka's
    /// default if that is a place.
    pub(crate) fn entry<'a>(
        &self,
        set: Option<(&str, ConfigSource)>,
        defaults: impl IntoIterator<Item = (&'a str, ConfigSource)>,
        default: Option<(&'static str, &str)>,
    ) -> ConfigEntry {
        let mut synonyms = Vec::with_capacity(3);
        if let Some((text, source)) = set {
            synonyms.push(Synonym { name: self.name, value: self.canonical(text), source });
        }
        for (text, source) in defaults {
            let name = self.server_name.unwrap_or(self.name);
            synonyms.push(Synonym { name, value: self.canonical(text), source });
        }
        let (value, source) = match synonyms.first() {
            Some(first) => (first.value.clone(), first.source),
            None => (self.canonical(self.default), ConfigSource::Default),
        };
        if let Some((name, value)) = default {
            let value = value.to_owned();
            synonyms.push(Synonym { name, value, source: ConfigSource::Default });
        }
        let documentation = self.doc;
        ConfigEntry { name: self.name, value, source, kind: self.kind, documentation, synonyms }
    }
}
