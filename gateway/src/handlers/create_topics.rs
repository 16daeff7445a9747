//! CreateTopics. A topic's replication is the storage's business: the one replica that clients see is
//! durable by itself, so the factor is 1, and what Kafka with as many nodes would refuse is refused.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sluice_catalog::{CreateTopicError, NewTopic};
use sluice_model::limits::MAX_PARTITIONS_PER_REQUEST;
use sluice_model::{TopicId, topic_config};
use sluice_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use sluice_wire::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use sluice_wire::{ErrorCode, Str, Uuid};

use super::resolve;
use crate::context::Context;
use crate::failure;
use crate::gateway::Core;

/// A code and what to tell the client's user.
pub(super) type Failure = (ErrorCode, String);

/// See the module.
pub(crate) async fn create_topics(
    core: &Arc<Core>,
    ctx: &Context,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let twice = duplicates(request.topics.iter().map(|topic| &topic.name));
    let partitions = |topic: &CreatableTopic| match usize::try_from(topic.num_partitions) {
        Ok(count) => count,
        Err(_) => topic.assignments.len().max(core.config.default_partitions as usize),
    };
    let too_many =
        request.topics.iter().map(partitions).sum::<usize>() > MAX_PARTITIONS_PER_REQUEST;
    let mut reported = HashSet::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let name = topic.name.clone();
        let result = if twice.contains(&name) {
            if !reported.insert(name.clone()) {
                continue;
            }
            Err((ErrorCode::InvalidRequest, "Duplicate topic name.".to_owned()))
        } else if too_many {
            let message = "Excessively large number of partitions per request.".to_owned();
            Err((ErrorCode::PolicyViolation, message))
        } else {
            create(core, ctx, topic, request.validate_only).await
        };
        topics.push(result.unwrap_or_else(|(code, message)| CreatableTopicResult {
            name,
            error_code: code.code(),
            error_message: Some(message.into()),
            ..Default::default()
        }));
    }
    CreateTopicsResponse { topics, ..Default::default() }
}

/// Names that stand more than once: Kafka makes none of them.
pub(super) fn duplicates<'a>(names: impl Iterator<Item = &'a Str>) -> HashSet<Str> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).cloned().collect()
}

async fn create(
    core: &Core,
    ctx: &Context,
    topic: CreatableTopic,
    validate_only: bool,
) -> Result<CreatableTopicResult, Failure> {
    let tenant = ctx.caller.tenant;
    let refuse = |e: CreateTopicError| (failure::of_create_topic(&e), e.to_string());
    let nulls: Vec<&str> = topic
        .configs
        .iter()
        .filter(|config| config.value.is_none())
        .map(|config| config.name.as_str())
        .collect();
    let overrides: BTreeMap<String, String> = topic
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
        .collect();
    let mut new = NewTopic { name: topic.name.to_string(), partitions: 1, overrides };
    // Kafka looks at the name and the configuration before the partitions.
    core.catalog.check_create_topic(tenant, &new).map_err(refuse)?;
    if !nulls.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err((ErrorCode::InvalidConfig, message));
    }
    new.partitions = partitions(core, &topic)?;
    let overrides = new.overrides.clone();
    let (topic_id, count) = if validate_only {
        core.catalog.check_create_topic(tenant, &new).map_err(refuse)?;
        // An id of no topic: nothing is made, but who asks may not be ready for none.
        (TopicId(core.catalog.random_16()), new.partitions as usize)
    } else {
        let made = core.catalog.create_topic(tenant, new).await.map_err(refuse)?;
        (made.id, made.partitions.len())
    };
    let defaults = core.catalog.topic_defaults(tenant);
    let configs = topic_config::describe(&overrides, &defaults);
    let configs = configs.map(|entry| CreatableTopicConfigs {
        name: Str::from_static(entry.name),
        config_source: entry.source.code(),
        value: Some(entry.value.into()),
        ..Default::default()
    });
    Ok(CreatableTopicResult {
        name: topic.name,
        topic_id: Uuid(topic_id.0),
        error_message: None,
        num_partitions: i32::try_from(count).unwrap_or(i32::MAX),
        replication_factor: 1,
        configs: Some(configs.collect()),
        ..Default::default()
    })
}

/// How many partitions are asked for, by number or by hand.
fn partitions(core: &Core, topic: &CreatableTopic) -> Result<u32, Failure> {
    if !topic.assignments.is_empty() {
        return assigned(core, topic);
    }
    let factor = topic.replication_factor;
    if factor < -1 || factor == 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err((ErrorCode::InvalidReplicationFactor, message.to_owned()));
    }
    if topic.num_partitions < -1 || topic.num_partitions == 0 {
        let message = "Number of partitions was set to an invalid non-positive value.";
        return Err((ErrorCode::InvalidPartitions, message.to_owned()));
    }
    if factor > 1 {
        let message = format!(
            "Unable to replicate the partition {factor} time(s): the storage below replicates, and \
             the replication factor that clients may ask for is 1 (or -1, the default)."
        );
        return Err((ErrorCode::InvalidReplicationFactor, message));
    }
    Ok(u32::try_from(topic.num_partitions).unwrap_or(core.config.default_partitions))
}

fn assigned(core: &Core, topic: &CreatableTopic) -> Result<u32, Failure> {
    for (field, value) in [
        ("replication factor", i32::from(topic.replication_factor)),
        ("numPartitions", topic.num_partitions),
    ] {
        if value != -1 {
            let message = format!(
                "A manual partition assignment was specified, but {field} was not set to -1."
            );
            return Err((ErrorCode::InvalidRequest, message));
        }
    }
    let mut by_index: HashMap<i32, &CreatableReplicaAssignment> = HashMap::new();
    for assignment in &topic.assignments {
        let index = assignment.partition_index;
        if by_index.insert(index, assignment).is_some() {
            let message =
                format!("Found multiple manual partition assignments for partition {index}");
            return Err((ErrorCode::InvalidReplicaAssignment, message));
        }
        check_assignment(core, &assignment.broker_ids)?;
    }
    let count = i32::try_from(by_index.len()).unwrap_or(i32::MAX);
    if (0..count).any(|index| !by_index.contains_key(&index)) {
        let message = "partitions should be a consecutive 0-based integer sequence".to_owned();
        return Err((ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(count.unsigned_abs())
}

/// A replica list that a client gave by hand: one live node, since the factor is 1. Which volume the
/// partition lies on is still the catalog's choice.
pub(super) fn check_assignment(core: &Core, broker_ids: &[i32]) -> Result<(), Failure> {
    let message = match broker_ids {
        [] => "The manual partition assignment includes an empty replica list.".to_owned(),
        [id] if resolve::brokers(core).iter().any(|broker| broker.id == *id) => return Ok(()),
        [id] => format!(
            "The manual partition assignment includes broker {id}, but no such broker is registered."
        ),
        many => format!(
            "The manual partition assignment includes a partition with {} replica(s), and 1 is \
             possible.",
            many.len()
        ),
    };
    Err((ErrorCode::InvalidReplicaAssignment, message))
}
