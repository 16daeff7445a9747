//! The broker configs that DescribeConfigs shows: those of Kafka's names that say something true about
//! this server, the defaults of the tenant's topics under their broker names, and what the tenant has set.

use std::collections::BTreeMap;

use sluice_model::config::{ConfigSource, ConfigType, Synonym};
use sluice_model::{TopicDefaults, broker_config, topic_config};
use sluice_wire::Str;

use crate::gateway::Core;

/// One config of a broker, or of all of them.
pub(super) struct BrokerConfig {
    pub(super) name: Str,
    /// `None` if it has no value of its own, or it is a secret.
    pub(super) value: Option<String>,
    pub(super) source: ConfigSource,
    /// `None` for those that nobody knows, which are taken for secrets.
    pub(super) kind: Option<ConfigType>,
    pub(super) read_only: bool,
    pub(super) documentation: Option<&'static str>,
    pub(super) synonyms: Vec<Place>,
}

/// A place that gives it a value, by precedence.
pub(super) struct Place {
    pub(super) name: Str,
    pub(super) value: Option<String>,
    pub(super) source: ConfigSource,
}

impl From<Synonym> for Place {
    fn from(synonym: Synonym) -> Self {
        let Synonym { name, value, source } = synonym;
        Self { name: Str::from_static(name), value: Some(value), source }
    }
}

impl BrokerConfig {
    /// One whose value is that of its first place.
    fn new(
        name: &'static str,
        places: impl IntoIterator<Item = Synonym>,
        kind: ConfigType,
        documentation: &'static str,
    ) -> Self {
        let synonyms: Vec<Place> = places.into_iter().map(Place::from).collect();
        Self {
            name: Str::from_static(name),
            value: synonyms.first().and_then(|place| place.value.clone()),
            source: synonyms.first().map_or(ConfigSource::Default, |place| place.source),
            kind: Some(kind),
            read_only: broker_config::key(name).is_none(),
            documentation: Some(documentation),
            synonyms,
        }
    }

    /// One that nobody knows.
    fn unknown(name: &str, source: ConfigSource) -> Self {
        let name = Str::from(name);
        let place = Place { name: name.clone(), value: None, source };
        Self {
            name,
            value: None,
            source,
            kind: None,
            read_only: true,
            documentation: None,
            synonyms: vec![place],
        }
    }
}

/// What a tenant has set on all its brokers, sorted by name.
pub(super) fn of_all_brokers(set: &BTreeMap<String, String>) -> Vec<BrokerConfig> {
    let source = ConfigSource::DynamicDefaultBroker;
    let config = |(name, text): (&String, &String)| match broker_config::key(name) {
        Some(key) => {
            let place = Synonym { name: key.name, value: key.canonical(text), source };
            BrokerConfig::new(key.name, [place], key.kind(), key.doc)
        }
        None => BrokerConfig::unknown(name, source),
    };
    set.iter().map(config).collect()
}

/// This broker's, sorted by name: the tenant has set `cluster` on all brokers and `broker` on this one,
/// which gives topics these defaults.
pub(super) fn of_this(
    core: &Core,
    defaults: &TopicDefaults,
    cluster: &BTreeMap<String, String>,
    broker: &BTreeMap<String, String>,
) -> Vec<BrokerConfig> {
    let mut configs = own(core);
    for entry in topic_config::describe_server(defaults) {
        let Some(name) = topic_config::key(entry.name).and_then(|key| key.server_name) else {
            continue;
        };
        // Some have a second name, such as log.retention.hours, which holds the default.
        let (first, second): (Vec<_>, Vec<_>) =
            entry.synonyms.iter().cloned().partition(|place| place.name == name);
        for place in second {
            let kind = if place.name.ends_with(".hours") { ConfigType::Int } else { entry.kind };
            configs.push(BrokerConfig::new(place.name, [place], kind, entry.documentation));
        }
        let places = if first.is_empty() { first } else { entry.synonyms };
        configs.push(BrokerConfig::new(name, places, entry.kind, entry.documentation));
    }
    for entry in broker_config::describe(cluster, broker) {
        let (name, kind) = (entry.name, entry.kind);
        configs.push(BrokerConfig::new(name, entry.synonyms, kind, entry.documentation));
    }
    let layers =
        [(broker, ConfigSource::DynamicBroker), (cluster, ConfigSource::DynamicDefaultBroker)];
    for (set, source) in layers {
        let unknown = set.keys().filter(|name| broker_config::key(name).is_none());
        configs.extend(unknown.map(|name| BrokerConfig::unknown(name, source)));
    }
    // Stable: of two of one name, what is set on the broker stands first.
    configs.sort_by(|a, b| a.name.as_str().cmp(b.name.as_str()));
    configs.dedup_by(|later, first| later.name == first.name);
    configs
}

fn own(core: &Core) -> Vec<BrokerConfig> {
    let config = &core.config;
    let limits = &config.limits;
    let rows = [
        (
            "advertised.listeners",
            format!("PLAINTEXT://{}:{}", config.advertised_host, config.advertised_port),
            ConfigType::String,
            "where clients are told to connect to",
        ),
        (
            "auto.create.topics.enable",
            config.auto_create_topics.to_string(),
            ConfigType::Boolean,
            "whether asking for a missing topic's metadata may create it",
        ),
        ("broker.id", config.node_id.0.to_string(), ConfigType::Int, "the id of this node"),
        (
            "broker.rack",
            config.rack.clone().unwrap_or_default(),
            ConfigType::String,
            "where this node stands",
        ),
        (
            "connections.max.idle.ms",
            limits.idle_timeout.as_millis().to_string(),
            ConfigType::Long,
            "a connection without traffic is closed after this time",
        ),
        (
            "default.replication.factor",
            "1".to_owned(),
            ConfigType::Int,
            "the replication factor of topics; the storage below replicates",
        ),
        (
            "delete.topic.enable",
            "true".to_owned(),
            ConfigType::Boolean,
            "whether topics may be deleted",
        ),
        (
            "fetch.max.bytes",
            limits.fetch_max_bytes.to_string(),
            ConfigType::Int,
            "the most that one fetch gives",
        ),
        (
            "max.connections",
            limits.max_connections.to_string(),
            ConfigType::Int,
            "connections that this node takes",
        ),
        (
            "max.connections.per.ip",
            limits.max_connections_per_ip.to_string(),
            ConfigType::Int,
            "connections that this node takes from one address",
        ),
        ("node.id", config.node_id.0.to_string(), ConfigType::Int, "the id of this node"),
        (
            "num.partitions",
            config.default_partitions.to_string(),
            ConfigType::Int,
            "partitions of a topic whose creator did not say",
        ),
        (
            "socket.request.max.bytes",
            limits.max_frame_bytes.to_string(),
            ConfigType::Int,
            "the largest request",
        ),
    ];
    let config = |(name, value, kind, documentation)| {
        let place = Synonym { name, value, source: ConfigSource::StaticBroker };
        BrokerConfig::new(name, [place], kind, documentation)
    };
    rows.into_iter().map(config).collect()
}
