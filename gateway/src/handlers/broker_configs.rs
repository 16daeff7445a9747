//! The broker configs that DescribeConfigs shows: those of Kafka's names that say something true about
//! this server. None can be changed by a client.

use sluice_model::config::{ConfigSource, ConfigType};

use crate::gateway::Core;

/// One config of this server.
pub(super) struct BrokerConfig {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) source: ConfigSource,
    pub(super) kind: ConfigType,
    pub(super) documentation: &'static str,
}

/// All of them, sorted by name: the server's own, and the defaults of topics under their broker names.
pub(super) fn all(core: &Core) -> Vec<BrokerConfig> {
    let mut configs = own(core);
    for entry in sluice_model::topic_config::describe_server(core.catalog.topic_defaults()) {
        // With no topic in sight, what counts is what a broker has: the first synonym.
        let Some(synonym) = entry.synonyms.into_iter().next() else { continue };
        configs.push(BrokerConfig {
            name: synonym.name,
            value: synonym.value,
            source: synonym.source,
            kind: entry.kind,
            documentation: entry.documentation,
        });
    }
    configs.sort_by_key(|config| config.name);
    configs.dedup_by_key(|config| config.name);
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
    rows.into_iter()
        .map(|(name, value, kind, documentation)| BrokerConfig {
            name,
            value,
            source: ConfigSource::StaticBroker,
            kind,
            documentation,
        })
        .collect()
}
