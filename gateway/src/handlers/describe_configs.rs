//! DescribeConfigs, of topics and of this node.

use std::sync::Arc;

use sluice_model::topic_config::{self, ConfigEntry};
use sluice_model::topic_name;
use sluice_wire::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use sluice_wire::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResponse, DescribeConfigsResult,
    DescribeConfigsSynonym,
};
use sluice_wire::{ErrorCode, Str};

use super::broker_configs::{self, BrokerConfig};
use super::create_topics::Failure;
use super::resolve;
use crate::context::Context;
use crate::gateway::Core;

/// Kafka's `ConfigResource.Type`.
pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;

/// What the client wants besides values.
#[derive(Clone, Copy)]
struct Detail {
    synonyms: bool,
    documentation: bool,
}

/// See the module.
pub(crate) async fn describe_configs(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    let detail =
        Detail { synonyms: request.include_synonyms, documentation: request.include_documentation };
    let one = |resource: DescribeConfigsResource| {
        let (error_code, error_message, configs) = match describe(core, ctx, &resource, detail) {
            Ok(configs) => (0, None, configs),
            Err((code, message)) => (code.code(), Some(message.into()), Vec::new()),
        };
        DescribeConfigsResult {
            error_code,
            error_message,
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            configs,
        }
    };
    DescribeConfigsResponse {
        results: request.resources.into_iter().map(one).collect(),
        ..Default::default()
    }
}

fn describe(
    core: &Core,
    ctx: &Context,
    resource: &DescribeConfigsResource,
    detail: Detail,
) -> Result<Vec<DescribeConfigsResourceResult>, Failure> {
    // Kafka takes an empty list of keys for all, like null.
    let keys = resource.configuration_keys.as_deref().filter(|keys| !keys.is_empty());
    let wanted = |name: &str| keys.is_none_or(|keys| keys.iter().any(|key| key == name));
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            topic_name::validate(name)
                .map_err(|e| (ErrorCode::InvalidTopicException, e.to_string()))?;
            let topic = resolve::by_name(core, ctx, name)
                .map_err(|code| (code, code.message().to_owned()))?;
            let entries = topic_config::describe(&topic.overrides, core.catalog.topic_defaults());
            let entries = entries.filter(|entry| wanted(entry.name));
            Ok(entries.map(|entry| of_topic(entry, detail)).collect())
        }
        // Settings for all brokers at once: there are none.
        BROKER if name.is_empty() => Ok(Vec::new()),
        BROKER if **name == *core.config.node_id.0.to_string() => {
            let configs = broker_configs::all(core).into_iter();
            let configs = configs.filter(|config| wanted(config.name));
            Ok(configs.map(|config| of_broker(config, detail)).collect())
        }
        BROKER => {
            let own = core.config.node_id.0;
            let message = format!(
                "Unexpected broker id, expected {own} or empty string, but received {name}"
            );
            Err((ErrorCode::InvalidRequest, message))
        }
        other => {
            let message = format!("Unsupported resource type: {other}");
            Err((ErrorCode::InvalidRequest, message))
        }
    }
}

fn of_topic(entry: ConfigEntry, detail: Detail) -> DescribeConfigsResourceResult {
    let synonyms = entry.synonyms.into_iter().filter(|_| detail.synonyms);
    let synonyms = synonyms.map(|synonym| DescribeConfigsSynonym {
        name: Str::from_static(synonym.name),
        value: Some(synonym.value.into()),
        source: synonym.source.code(),
    });
    DescribeConfigsResourceResult {
        name: Str::from_static(entry.name),
        value: Some(entry.value.into()),
        read_only: false,
        config_source: entry.source.code(),
        is_sensitive: false,
        synonyms: synonyms.collect(),
        config_type: entry.kind.code(),
        documentation: detail.documentation.then(|| Str::from_static(entry.documentation)),
    }
}

fn of_broker(config: BrokerConfig, detail: Detail) -> DescribeConfigsResourceResult {
    let synonym = DescribeConfigsSynonym {
        name: Str::from_static(config.name),
        value: Some(config.value.as_str().into()),
        source: config.source.code(),
    };
    DescribeConfigsResourceResult {
        name: Str::from_static(config.name),
        value: Some(config.value.into()),
        read_only: true,
        config_source: config.source.code(),
        is_sensitive: false,
        synonyms: if detail.synonyms { vec![synonym] } else { Vec::new() },
        config_type: config.kind.code(),
        documentation: detail.documentation.then(|| Str::from_static(config.documentation)),
    }
}
