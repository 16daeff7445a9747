//! AlterConfigs, which replaces all that is set on a resource, and IncrementalAlterConfigs, which changes
//! some of it (KIP-339): on topics, groups, metrics subscriptions and the brokers of the tenant's cluster.
//!
//! Kafka's order of checks is kept: the request's own faults, the resource's name, the configs that would
//! result, and only then whether there is such a topic.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sluice_catalog::ResourceKind;
use sluice_model::config::ConfigKey;
use sluice_model::{broker_config, topic_config, topic_name};
use sluice_wire::messages::alter_configs_request::AlterConfigsRequest;
use sluice_wire::messages::alter_configs_response::{self, AlterConfigsResponse};
use sluice_wire::messages::incremental_alter_configs_request::{
    AlterableConfig, IncrementalAlterConfigsRequest,
};
use sluice_wire::messages::incremental_alter_configs_response::{
    self, IncrementalAlterConfigsResponse,
};
use sluice_wire::{ErrorCode, Str};

use super::create_topics::Failure;
use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::resolve;
use crate::context::Context;
use crate::failure;
use crate::gateway::Core;

/// What a request makes of the configs that are set.
type Edit<'a> = &'a (dyn Fn(&mut BTreeMap<String, String>) + Sync);

/// One change to one key.
#[derive(Clone, Debug)]
enum Change {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
}

/// What a request may alter.
enum Target {
    Topic(Str),
    Resource(ResourceKind, Str),
    /// Something on which nothing is ever set: what takes settings away has its way.
    Nothing,
}

/// AlterConfigs.
pub(crate) async fn alter_configs(
    core: &Arc<Core>,
    ctx: &Context,
    request: AlterConfigsRequest,
) -> AlterConfigsResponse {
    let twice = duplicates(request.resources.iter().map(|r| (r.resource_type, &r.resource_name)));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let key = (resource.resource_type, resource.resource_name);
        let names = resource.configs.iter().map(|config| &config.name);
        let nulls = resource.configs.iter().filter(|config| config.value.is_none());
        let checked = check(&key, &twice, names, nulls.map(|config| config.name.as_str()));
        let target = checked.and_then(|()| match key.0 {
            // Log levels are not for this request, as in Kafka.
            BROKER_LOGGER => Err(unknown_type(BROKER_LOGGER)),
            _ => target(core, &key, false),
        });
        let result = match target {
            Ok(target) => {
                let set = resource.configs.iter().filter_map(|config| {
                    Some((config.name.to_string(), config.value.as_ref()?.to_string()))
                });
                let overrides: BTreeMap<String, String> = set.collect();
                let edit = |stored: &mut BTreeMap<String, String>| stored.clone_from(&overrides);
                alter(core, ctx, &target, &edit, request.validate_only).await
            }
            Err(failure) => Err(failure),
        };
        let (error_code, error_message) = told(result);
        responses.push(alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: key.0,
            resource_name: key.1,
        });
    }
    AlterConfigsResponse { responses, ..Default::default() }
}

/// IncrementalAlterConfigs.
pub(crate) async fn incremental_alter_configs(
    core: &Arc<Core>,
    ctx: &Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let twice = duplicates(request.resources.iter().map(|r| (r.resource_type, &r.resource_name)));
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let key = (resource.resource_type, resource.resource_name);
        let names = resource.configs.iter().map(|config| &config.name);
        let nulls = resource.configs.iter();
        let nulls =
            nulls.filter(|config| config.value.is_none() && config.config_operation != DELETE);
        let checked = check(&key, &twice, names, nulls.map(|config| config.name.as_str()));
        let prepared = checked.and_then(|()| {
            let deletes = |config: &AlterableConfig| config.config_operation == DELETE;
            let only_deletes = !resource.configs.is_empty() && resource.configs.iter().all(deletes);
            let target = target(core, &key, only_deletes)?;
            let changes = changes(&target, &resource.configs)?;
            Ok((target, changes))
        });
        let result = match prepared {
            Ok((target, changes)) => {
                let edit = |stored: &mut BTreeMap<String, String>| {
                    for (name, change) in &changes {
                        let unset = || default_list(core, ctx, &target, name);
                        apply(stored, name, change, unset);
                    }
                };
                alter(core, ctx, &target, &edit, request.validate_only).await
            }
            Err(failure) => Err(failure),
        };
        let (error_code, error_message) = told(result);
        responses.push(incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code,
            error_message,
            resource_type: key.0,
            resource_name: key.1,
        });
    }
    IncrementalAlterConfigsResponse { responses, ..Default::default() }
}

fn told(result: Result<(), Failure>) -> (i16, Option<Str>) {
    match result {
        Ok(()) => (0, None),
        Err((code, message)) => (code.code(), Some(message.into())),
    }
}

fn duplicates<'a>(resources: impl Iterator<Item = (i8, &'a Str)>) -> HashSet<(i8, Str)> {
    let mut seen = HashSet::new();
    resources.filter(|key| !seen.insert(*key)).map(|(kind, name)| (kind, name.clone())).collect()
}

/// The faults of the request itself.
fn check<'a>(
    key: &(i8, Str),
    twice: &HashSet<(i8, Str)>,
    mut names: impl Iterator<Item = &'a Str>,
    nulls: impl Iterator<Item = &'a str>,
) -> Result<(), Failure> {
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    if twice.contains(key) {
        return invalid("Each resource must appear at most once.".to_owned());
    }
    let mut seen = HashSet::new();
    if !names.all(|name| seen.insert(name)) {
        return invalid("Error due to duplicate config keys".to_owned());
    }
    let nulls: Vec<&str> = nulls.collect();
    if nulls.is_empty() {
        return Ok(());
    }
    invalid(format!("Null value not supported for : {}", nulls.join(", ")))
}

fn unknown_type(kind: i8) -> Failure {
    (ErrorCode::InvalidRequest, format!("Unknown resource type {kind}"))
}

/// What is meant, if clients may alter it.
fn target(
    core: &Core,
    (kind, name): &(i8, Str),
    nothing_but_deletes: bool,
) -> Result<Target, Failure> {
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    match *kind {
        TOPIC if name.is_empty() => invalid("Default topic resources are not allowed.".to_owned()),
        TOPIC => match topic_name::validate(name) {
            Ok(()) => Ok(Target::Topic(name.clone())),
            Err(e) => Err((ErrorCode::InvalidTopicException, e.to_string())),
        },
        GROUP => Ok(Target::Resource(ResourceKind::Group, name.clone())),
        CLIENT_METRICS => Ok(Target::Resource(ResourceKind::ClientMetrics, name.clone())),
        BROKER if name.is_empty() => Ok(Target::Resource(ResourceKind::Broker, name.clone())),
        BROKER | BROKER_LOGGER => {
            let own = core.config.node_id.0;
            match name.parse::<i32>() {
                Ok(id) if id == own => {}
                Ok(id) => {
                    return invalid(format!(
                        "Unexpected broker id, expected {own}, but received {id}"
                    ));
                }
                Err(_) => return invalid(format!("Node id must be an integer, but it is: {name}")),
            }
            match *kind {
                // As it is written here, whatever zeros the client wrote before it.
                BROKER => Ok(Target::Resource(ResourceKind::Broker, own.to_string().into())),
                _ if nothing_but_deletes => Ok(Target::Nothing),
                // As DescribeConfigs says: there are no loggers that a client could see.
                _ => {
                    let message =
                        "Logger does not exist: what the server logs is the operator's affair";
                    Err((ErrorCode::InvalidConfig, message.to_owned()))
                }
            }
        }
        other => Err(unknown_type(other)),
    }
}

/// Kafka's `AlterConfigOp.OpType`.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The changes of a request. Only topics and brokers have configs that are lists to be changed in parts;
/// Kafka takes those of metrics subscriptions as a whole.
fn changes(target: &Target, configs: &[AlterableConfig]) -> Result<Vec<(String, Change)>, Failure> {
    let mut changes = Vec::with_capacity(configs.len());
    for config in configs {
        let name = &config.name;
        let value = config.value.as_ref().map(Str::to_string).unwrap_or_default();
        let (word, change) = match config.config_operation {
            SET => (None, Change::Set(value)),
            DELETE => (None, Change::Delete),
            APPEND => (Some("APPEND"), Change::Append(value)),
            SUBTRACT => (Some("SUBTRACT"), Change::Subtract(value)),
            other => {
                let message = format!("Unknown operations type {other}");
                return Err((ErrorCode::InvalidRequest, message));
            }
        };
        let is_list = key(target, name).is_some_and(ConfigKey::is_list);
        if let Some(word) = word.filter(|_| !is_list) {
            let message = format!("Can't {word} to key {name} because its type is not LIST.");
            return Err((ErrorCode::InvalidConfig, message));
        }
        changes.push((name.to_string(), change));
    }
    Ok(changes)
}

/// Makes the change, or only says whether it could be made.
async fn alter(
    core: &Core,
    ctx: &Context,
    target: &Target,
    edit: Edit<'_>,
    validate_only: bool,
) -> Result<(), Failure> {
    let tenant = ctx.caller.tenant;
    let catalog = &core.catalog;
    match target {
        Target::Topic(name) => {
            let topic = resolve::by_name(core, ctx, name);
            let mut overrides =
                topic.as_ref().map_or_else(|_| BTreeMap::new(), |topic| topic.overrides.clone());
            edit(&mut overrides);
            catalog
                .check_overrides(tenant, &overrides)
                .map_err(|e| (ErrorCode::InvalidConfig, e.to_string()))?;
            let topic =
                topic.map_err(|code| (code, format!("The topic '{name}' does not exist.")))?;
            if validate_only {
                return Ok(());
            }
            let updated = catalog.update_topic_overrides(tenant, topic.id, edit).await;
            updated.map(|_| ()).map_err(|e| (failure::of_alter_topic(&e), e.to_string()))
        }
        Target::Nothing => Ok(()),
        Target::Resource(kind, name) => {
            let updated = if validate_only {
                let set = catalog.resource_overrides(tenant, *kind, name);
                let mut overrides = set.map_or_else(BTreeMap::new, Arc::unwrap_or_clone);
                edit(&mut overrides);
                catalog.check_resource(tenant, *kind, name, &overrides)
            } else {
                catalog.update_resource(tenant, *kind, name, edit).await
            };
            updated.map_err(|e| (failure::of_alter_resource(&e), e.to_string()))
        }
    }
}

/// What is known of a config that can be a list.
fn key(target: &Target, name: &str) -> Option<&'static ConfigKey> {
    match target {
        Target::Topic(_) => topic_config::key(name),
        Target::Resource(ResourceKind::Broker, _) => broker_config::key(name),
        Target::Resource(ResourceKind::Group | ResourceKind::ClientMetrics, _)
        | Target::Nothing => None,
    }
}

/// What a list holds that is not set: for a topic what its cluster says, for a broker Kafka's default.
fn default_list(core: &Core, ctx: &Context, target: &Target, name: &str) -> String {
    let Some(key) = key(target, name) else { return String::new() };
    let set = match target {
        Target::Topic(_) => {
            core.catalog.topic_defaults(ctx.caller.tenant).get(name).map(str::to_owned)
        }
        Target::Resource(..) | Target::Nothing => None,
    };
    set.unwrap_or_else(|| key.default.to_owned())
}

fn apply(
    stored: &mut BTreeMap<String, String>,
    name: &str,
    change: &Change,
    unset: impl Fn() -> String,
) {
    let items = |stored: &BTreeMap<String, String>| -> Vec<String> {
        let text = stored.get(name).cloned().unwrap_or_else(unset);
        text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let value = match change {
        Change::Set(value) => value.clone(),
        Change::Delete => {
            stored.remove(name);
            return;
        }
        Change::Append(more) => {
            let mut items = items(stored);
            for item in more.split(',') {
                if items.iter().all(|there| there != item) {
                    items.push(item.to_owned());
                }
            }
            items.join(",")
        }
        Change::Subtract(fewer) => {
            let mut items = items(stored);
            for item in fewer.split(',') {
                if let Some(at) = items.iter().position(|there| there == item) {
                    items.remove(at);
                }
            }
            items.join(",")
        }
    };
    stored.insert(name.to_owned(), value);
}
