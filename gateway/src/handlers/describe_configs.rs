//! DescribeConfigs, of topics, groups, metrics subscriptions and of this node as its tenant sees it.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_catalog::ResourceKind;
use sluice_model::config::{ConfigEntry, ConfigType};
use sluice_model::{client_metrics, group_config, topic_config, topic_name};
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
pub(super) const BROKER_LOGGER: i8 = 8;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;

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
            // Empty, not null, as Kafka has it.
            Ok(configs) => (0, Some(Str::default()), configs),
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
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    match resource.resource_type {
        TOPIC => {
            topic_name::validate(name)
                .map_err(|e| (ErrorCode::InvalidTopicException, e.to_string()))?;
            let topic = resolve::by_name(core, ctx, name)
                .map_err(|code| (code, code.message().to_owned()))?;
            let defaults = core.catalog.topic_defaults(ctx.caller.tenant);
            let entries = topic_config::describe(&topic.overrides, &defaults);
            let entries = entries.filter(|entry| wanted(entry.name));
            Ok(entries.map(|entry| of_resource(entry, detail)).collect())
        }
        GROUP if name.is_empty() => invalid("Group name must not be empty".to_owned()),
        GROUP => {
            let set = set_on(core, ctx, ResourceKind::Group, name);
            let entries = group_config::describe(&set, core.catalog.group_defaults());
            let entries = entries.filter(|entry| wanted(entry.name));
            Ok(entries.map(|entry| of_resource(entry, detail)).collect())
        }
        CLIENT_METRICS if name.is_empty() => {
            invalid("Client metrics subscription name must not be empty".to_owned())
        }
        CLIENT_METRICS => {
            let set = set_on(core, ctx, ResourceKind::ClientMetrics, name);
            let entries = client_metrics::describe(&set).filter(|entry| wanted(entry.name));
            Ok(entries.map(|entry| of_resource(entry, detail)).collect())
        }
        BROKER if name.is_empty() => {
            let set = set_on(core, ctx, ResourceKind::Broker, name);
            let configs = broker_configs::of_all_brokers(&set).into_iter();
            let configs = configs.filter(|config| wanted(&config.name));
            Ok(configs.map(|config| of_broker(config, detail)).collect())
        }
        BROKER if **name == *core.config.node_id.0.to_string() => {
            let all = set_on(core, ctx, ResourceKind::Broker, "");
            let own = set_on(core, ctx, ResourceKind::Broker, name);
            let defaults = core.catalog.topic_defaults(ctx.caller.tenant);
            let configs = broker_configs::of_this(core, &defaults, &all, &own).into_iter();
            let configs = configs.filter(|config| wanted(&config.name));
            Ok(configs.map(|config| of_broker(config, detail)).collect())
        }
        BROKER | BROKER_LOGGER if name.parse::<i32>().is_err() && !name.is_empty() => {
            invalid(format!("Broker id must be an integer, but it is: {name}"))
        }
        BROKER => {
            let own = core.config.node_id.0;
            let asked = format!("expected {own} or empty string, but received {name}");
            invalid(format!("Unexpected broker id, {asked}"))
        }
        BROKER_LOGGER if name.is_empty() => invalid("Broker id must not be empty".to_owned()),
        // What the server logs is the operator's affair: there are no loggers to be seen.
        BROKER_LOGGER if **name == *core.config.node_id.0.to_string() => Ok(Vec::new()),
        BROKER_LOGGER => {
            let own = core.config.node_id.0;
            invalid(format!("Unexpected broker id, expected {own} but received {name}"))
        }
        _ => invalid(ErrorCode::InvalidRequest.message().to_owned()),
    }
}

/// What the tenant has set on one of its resources; nothing if it has never been named.
fn set_on(
    core: &Core,
    ctx: &Context,
    kind: ResourceKind,
    name: &str,
) -> Arc<BTreeMap<String, String>> {
    core.catalog.resource_overrides(ctx.caller.tenant, kind, name).unwrap_or_default()
}

fn of_resource(entry: ConfigEntry, detail: Detail) -> DescribeConfigsResourceResult {
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
    let synonyms = config.synonyms.into_iter().filter(|_| detail.synonyms);
    let synonyms = synonyms.map(|synonym| DescribeConfigsSynonym {
        name: synonym.name,
        value: synonym.value.map(Into::into),
        source: synonym.source.code(),
    });
    DescribeConfigsResourceResult {
        name: config.name,
        value: config.value.map(Into::into),
        read_only: config.read_only,
        config_source: config.source.code(),
        is_sensitive: config.kind.is_none(),
        synonyms: synonyms.collect(),
        // 0 where Kafka does not know it.
        config_type: config.kind.map_or(0, ConfigType::code),
        documentation: config.documentation.filter(|_| detail.documentation).map(Str::from_static),
    }
}
