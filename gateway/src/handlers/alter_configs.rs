//! AlterConfigs, which replaces all that is set on a topic, and IncrementalAlterConfigs, which changes
//! some of it (KIP-339). What is set on brokers is in the server's configuration, out of clients' reach.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use sluice_catalog::Topic;
use sluice_model::topic_config::{self, ConfigType};
use sluice_wire::messages::alter_configs_request::{self as legacy, AlterConfigsRequest};
use sluice_wire::messages::alter_configs_response::{self, AlterConfigsResponse};
use sluice_wire::messages::incremental_alter_configs_request::{
    self as incremental, IncrementalAlterConfigsRequest,
};
use sluice_wire::messages::incremental_alter_configs_response::{
    self, IncrementalAlterConfigsResponse,
};
use sluice_wire::{ErrorCode, Str};

use super::create_topics::Failure;
use super::describe_configs::{BROKER, TOPIC};
use super::resolve;
use crate::context::Context;
use crate::failure;
use crate::gateway::Core;

/// Kafka's `ConfigResource.Type`: besides those that are described, what nobody may alter here.
const BROKER_LOGGER: i8 = 8;

/// One change to one key.
#[derive(Clone, Debug)]
enum Change {
    Set(String),
    Delete,
    Append(String),
    Subtract(String),
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
        let key = (resource.resource_type, resource.resource_name.clone());
        let result = match check(core, ctx, &key, &twice, resource.configs.iter().map(|c| &c.name))
        {
            Ok(topic) => replace(core, &topic, &resource, request.validate_only).await,
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
        let key = (resource.resource_type, resource.resource_name.clone());
        let result = match check(core, ctx, &key, &twice, resource.configs.iter().map(|c| &c.name))
        {
            Ok(topic) => change(core, &topic, &resource, request.validate_only).await,
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

/// What holds for both requests; gives the topic that is meant.
fn check<'a>(
    core: &Core,
    ctx: &Context,
    key: &(i8, Str),
    twice: &HashSet<(i8, Str)>,
    names: impl Iterator<Item = &'a Str>,
) -> Result<Arc<Topic>, Failure> {
    let invalid = |message: String| Err((ErrorCode::InvalidRequest, message));
    if twice.contains(key) {
        return invalid("Each resource must appear at most once.".to_owned());
    }
    let mut seen = HashSet::new();
    if !names.into_iter().all(|name| seen.insert(name)) {
        return invalid("Error due to duplicate config keys".to_owned());
    }
    let (kind, name) = key;
    match *kind {
        TOPIC if name.is_empty() => invalid("Default topic resources are not allowed.".to_owned()),
        TOPIC => match resolve::by_name(core, ctx, name) {
            Ok(topic) => Ok(topic),
            Err(code) => Err((code, format!("The topic '{name}' does not exist."))),
        },
        BROKER | BROKER_LOGGER => {
            let message = "broker configs cannot be changed by clients: they are set in the \
                           server's configuration";
            Err((ErrorCode::ClusterAuthorizationFailed, message.to_owned()))
        }
        other => invalid(format!("Unknown resource type {other}")),
    }
}

async fn replace(
    core: &Core,
    topic: &Topic,
    resource: &legacy::AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Failure> {
    let mut overrides = BTreeMap::new();
    let mut nulls = Vec::new();
    for config in &resource.configs {
        match &config.value {
            Some(value) => {
                overrides.insert(config.name.to_string(), value.to_string());
            }
            None => nulls.push(config.name.as_str()),
        }
    }
    refuse_nulls(&nulls)?;
    if validate_only {
        return check_overrides(core, &overrides);
    }
    let edit = |stored: &mut BTreeMap<String, String>| stored.clone_from(&overrides);
    let updated = core.catalog.update_topic_overrides(topic.tenant, topic.id, edit).await;
    updated.map(|_| ()).map_err(|e| (failure::of_alter_topic(&e), e.to_string()))
}

async fn change(
    core: &Core,
    topic: &Topic,
    resource: &incremental::AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Failure> {
    let mut changes = Vec::with_capacity(resource.configs.len());
    let mut nulls = Vec::new();
    for config in &resource.configs {
        let value = || config.value.as_ref().map(Str::to_string).unwrap_or_default();
        if config.value.is_none() && config.config_operation != 1 {
            nulls.push(config.name.as_str());
        }
        let change = match config.config_operation {
            0 => Change::Set(value()),
            1 => Change::Delete,
            2 => Change::Append(value()),
            3 => Change::Subtract(value()),
            other => {
                let message = format!("Unknown operations type {other}");
                return Err((ErrorCode::InvalidRequest, message));
            }
        };
        changes.push((config.name.to_string(), change));
    }
    refuse_nulls(&nulls)?;
    for (name, change) in &changes {
        let word = match change {
            Change::Append(_) => "APPEND",
            Change::Subtract(_) => "SUBTRACT",
            Change::Set(_) | Change::Delete => continue,
        };
        if default_list(core, name).is_none() {
            let message = format!("Can't {word} to key {name} because its type is not LIST.");
            return Err((ErrorCode::InvalidConfig, message));
        }
    }
    let edit = |stored: &mut BTreeMap<String, String>| {
        for (name, change) in &changes {
            apply(core, stored, name, change);
        }
    };
    if validate_only {
        let mut overrides = topic.overrides.clone();
        edit(&mut overrides);
        return check_overrides(core, &overrides);
    }
    let updated = core.catalog.update_topic_overrides(topic.tenant, topic.id, edit).await;
    updated.map(|_| ()).map_err(|e| (failure::of_alter_topic(&e), e.to_string()))
}

fn refuse_nulls(names: &[&str]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let message = format!("Null value not supported for : {}", names.join(", "));
    Err((ErrorCode::InvalidRequest, message))
}

fn check_overrides(core: &Core, overrides: &BTreeMap<String, String>) -> Result<(), Failure> {
    match core.catalog.check_overrides(overrides) {
        Ok(_) => Ok(()),
        Err(e) => Err((ErrorCode::InvalidConfig, e.to_string())),
    }
}

/// The default of a config that is a list; `None` for all others.
fn default_list(core: &Core, name: &str) -> Option<String> {
    topic_config::describe(&BTreeMap::new(), core.catalog.topic_defaults())
        .find(|entry| entry.name == name && entry.kind == ConfigType::List)
        .map(|entry| entry.value)
}

fn apply(core: &Core, stored: &mut BTreeMap<String, String>, name: &str, change: &Change) {
    let items = |stored: &BTreeMap<String, String>| -> Vec<String> {
        let text = stored.get(name).cloned().or_else(|| default_list(core, name));
        let text = text.unwrap_or_default();
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
