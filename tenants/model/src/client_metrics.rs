//! Subscriptions of clients' metrics (KIP-714): a tenant's resources of the kind CLIENT_METRICS, each
//! of which says which clients shall push which metrics how often. Kafka 4.3's keys and checks
//! (`ClientMetricsConfigs`).
//!
//! Patterns are those of the `regex` crate, which takes time linear in the text: what Java's need
//! backtracking for is refused as an illegal pattern.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};

use crate::config::{
    Check, ConfigEntry, ConfigKey, ConfigSource, ConfigType, InvalidConfig, list, shown,
};

/// A subscription to this, and a client that is told this, means all metrics.
pub const ALL_METRICS: &str = "*";
/// How often clients push when no subscription says otherwise, in ms.
pub const DEFAULT_INTERVAL_MS: i32 = 300_000;

/// The shortest and the longest interval.
const INTERVALS_MS: std::ops::RangeInclusive<i32> = 100..=3_600_000;
/// What one compiled pattern may take.
const PATTERN_BYTES: usize = 256 << 10;

/// All keys, sorted by name.
pub static KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "interval.ms",
        kind: ConfigType::Int,
        default: "300000",
        check: Check::Any,
        server_name: None,
        doc: "How often the clients that match push their metrics.",
    },
    ConfigKey {
        name: "match",
        kind: ConfigType::List,
        default: "",
        check: Check::Any,
        server_name: None,
        doc: "Which clients are meant: selectors such as client_id=PATTERN, all of which must match \
              in full; none for all clients.",
    },
    ConfigKey {
        name: "metrics",
        kind: ConfigType::List,
        default: "",
        check: Check::Any,
        server_name: None,
        doc: "The metrics wanted, by prefixes of their names, or * for all.",
    },
];

/// What a selector looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    ClientInstanceId,
    ClientId,
    SoftwareName,
    SoftwareVersion,
    SourceAddress,
    SourcePort,
}

impl Field {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "client_instance_id" => Self::ClientInstanceId,
            "client_id" => Self::ClientId,
            "client_software_name" => Self::SoftwareName,
            "client_software_version" => Self::SoftwareVersion,
            "client_source_address" => Self::SourceAddress,
            "client_source_port" => Self::SourcePort,
            _ => return None,
        })
    }
}

/// What is known of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFacts {
    /// As Kafka writes ids: 22 characters of base64url.
    pub client_instance_id: String,
    /// Of the request's header.
    pub client_id: String,
    /// What the client says it is (KIP-511).
    pub software_name: String,
    /// In which version.
    pub software_version: String,
    /// The peer's address.
    pub source_address: String,
    /// The peer's port.
    pub source_port: String,
}

impl ClientFacts {
    fn get(&self, field: Field) -> &str {
        match field {
            Field::ClientInstanceId => &self.client_instance_id,
            Field::ClientId => &self.client_id,
            Field::SoftwareName => &self.software_name,
            Field::SoftwareVersion => &self.software_version,
            Field::SourceAddress => &self.source_address,
            Field::SourcePort => &self.source_port,
        }
    }
}

/// Why a subscription is refused; Kafka has two codes for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubscription {
    /// INVALID_REQUEST: an unknown key, or an interval out of range.
    #[error("{0}")]
    Request(String),
    /// INVALID_CONFIG: a value that does not parse.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
}

/// One subscription, ready to be asked.
#[derive(Clone, Debug)]
pub struct MetricsSubscription {
    /// Prefixes of metric names; may hold [`ALL_METRICS`].
    pub metrics: BTreeSet<String>,
    /// How often to push.
    pub interval_ms: i32,
    selectors: BTreeMap<Field, Regex>,
}

impl MetricsSubscription {
    /// The subscription of which this is set, if all of it is valid.
    pub fn new(overrides: &BTreeMap<String, String>) -> Result<Self, InvalidSubscription> {
        let unknown = |name: &&String| KEYS.iter().all(|key| key.name != name.as_str());
        if let Some(name) = overrides.keys().find(unknown) {
            let text = format!("Unknown client metrics configuration: {}", shown(name));
            return Err(InvalidSubscription::Request(text));
        }
        let mut parsed = BTreeMap::new();
        for key in KEYS {
            let text = overrides.get(key.name).map_or(key.default, String::as_str);
            parsed.insert(key.name, key.parse(text)?.to_string());
        }
        let interval_ms = parsed["interval.ms"].parse().unwrap_or(0);
        if !INTERVALS_MS.contains(&interval_ms) {
            let text = format!(
                "Invalid value {interval_ms} for interval.ms, interval must be between 100 and 3600000 \
                 (1 hour)"
            );
            return Err(InvalidSubscription::Request(text));
        }
        let selectors = list(&parsed["match"]).map(selector).collect::<Result<_, _>>()?;
        let metrics = list(&parsed["metrics"]).map(str::to_owned).collect();
        Ok(Self { metrics, interval_ms, selectors })
    }

    /// Whether the client is meant.
    pub fn matches(&self, client: &ClientFacts) -> bool {
        self.selectors.iter().all(|(field, pattern)| pattern.is_match(client.get(*field)))
    }
}

/// `name=pattern`, the pattern being one of the whole text.
fn selector(text: &str) -> Result<(Field, Regex), InvalidConfig> {
    let illegal =
        || InvalidConfig::new(format!("Illegal client matching pattern: {}", shown(text)));
    let (name, pattern) = text.split_once('=').ok_or_else(illegal)?;
    let pattern = pattern.trim();
    if pattern.is_empty() || pattern.contains('=') {
        return Err(illegal());
    }
    let field = Field::parse(name.trim()).ok_or_else(illegal)?;
    let compile = |pattern: &str| {
        let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
        built.map_err(|_| illegal())
    };
    // By itself as well, so that no unbalanced bracket finds its partner outside.
    compile(pattern)?;
    Ok((field, compile(&format!(r"\A(?:{pattern})\z"))?))
}

/// All configs of a subscription with these overrides, sorted by name.
pub fn describe(overrides: &BTreeMap<String, String>) -> impl Iterator<Item = ConfigEntry> {
    KEYS.iter().map(move |key| {
        let set = overrides.get(key.name).map(|text| (text.as_str(), ConfigSource::ClientMetrics));
        key.entry(set, None, None)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn client() -> ClientFacts {
        ClientFacts {
            client_instance_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
            client_id: "billing-7".to_owned(),
            software_name: "apache-kafka-java".to_owned(),
            software_version: "4.3.0".to_owned(),
            source_address: "127.0.0.1".to_owned(),
            source_port: "4321".to_owned(),
        }
    }

    #[test]
    fn clients_are_selected_by_all_selectors_in_full() {
        for (selectors, expected) in [
            ("", true),
            ("client_id=billing-.*", true),
            ("client_id=billing", false),
            ("client_id=billing|billing-7", true),
            (" client_software_name = apache-kafka-java , client_software_version = 4\\..* ", true),
            ("client_software_version=4.3.0,client_source_port=1", false),
            ("client_source_address=127\\.0\\.0\\.\\d+", true),
            ("client_instance_id=A+Q", true),
        ] {
            let subscription = MetricsSubscription::new(&map(&[("match", selectors)])).unwrap();
            assert_eq!(subscription.matches(&client()), expected, "{selectors}");
        }
    }

    #[test]
    fn values_act() {
        let set = map(&[("metrics", "a.,b.,a."), ("interval.ms", "100")]);
        let subscription = MetricsSubscription::new(&set).unwrap();
        assert_eq!(subscription.metrics, BTreeSet::from(["a.".to_owned(), "b.".to_owned()]));
        assert_eq!(subscription.interval_ms, 100);
        let empty = MetricsSubscription::new(&map(&[])).unwrap();
        assert!(empty.metrics.is_empty());
        assert_eq!(empty.interval_ms, DEFAULT_INTERVAL_MS);
    }

    /// Texts as Apache Kafka 4.3.0 answered them.
    #[test]
    fn refusals_are_worded_as_kafkas() {
        let range = "Invalid value 10 for interval.ms, interval must be between 100 and 3600000 \
                     (1 hour)";
        for (name, value, request, text) in [
            ("interval.ms", "10", true, range),
            (
                "interval.ms",
                "x",
                false,
                "Invalid value x for configuration interval.ms: Not a number of type INT",
            ),
            ("foo", "x", true, "Unknown client metrics configuration: foo"),
            ("match", "foo=x", false, "Illegal client matching pattern: foo=x"),
            ("match", "client_id=(", false, "Illegal client matching pattern: client_id=("),
            ("match", "client_id=a)|(b", false, "Illegal client matching pattern: client_id=a)|(b"),
            ("match", "client_id=a=b", false, "Illegal client matching pattern: client_id=a=b"),
            ("match", "client_id=", false, "Illegal client matching pattern: client_id="),
        ] {
            let refused = MetricsSubscription::new(&map(&[(name, value)])).unwrap_err();
            assert_eq!(refused.to_string(), text);
            assert_eq!(matches!(refused, InvalidSubscription::Request(_)), request, "{text}");
        }
        let bomb = format!("client_id={}", "(?:a{1000}){1000}");
        assert!(MetricsSubscription::new(&map(&[("match", &bomb)])).is_err());
    }

    #[test]
    fn only_what_is_set_has_a_place() {
        let entries: Vec<_> = describe(&map(&[("metrics", "*")])).collect();
        assert_eq!(entries.len(), KEYS.len());
        let told: Vec<_> = entries
            .iter()
            .map(|entry| {
                (entry.name, entry.value.as_str(), entry.source.code(), entry.synonyms.len())
            })
            .collect();
        assert_eq!(
            told,
            [("interval.ms", "300000", 5, 0), ("match", "", 5, 0), ("metrics", "*", 7, 1)]
        );
    }
}
