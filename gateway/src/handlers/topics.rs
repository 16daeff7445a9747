//! DeleteTopics and CreatePartitions.

use std::collections::HashSet;
use std::sync::Arc;

use sluice_model::limits::MAX_PARTITIONS_PER_REQUEST;
use sluice_wire::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use sluice_wire::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use sluice_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use sluice_wire::messages::delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
use sluice_wire::{ErrorCode, Uuid};

use super::create_topics::{Failure, check_assignment, duplicates};
use super::resolve;
use crate::context::Context;
use crate::failure;
use crate::gateway::Core;

/// Topics are a list of states instead of names from this version on (KIP-516).
const STATES_FROM: i16 = 6;

/// DeleteTopics.
pub(crate) async fn delete_topics(
    core: &Arc<Core>,
    ctx: &Context,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicState> = if ctx.version >= STATES_FROM {
        request.topics
    } else {
        let by_name = |name| DeleteTopicState { name: Some(name), ..Default::default() };
        request.topic_names.into_iter().map(by_name).collect()
    };
    let mut seen = HashSet::new();
    let twice: HashSet<_> = asked.iter().map(key).filter(|key| !seen.insert(key.clone())).collect();
    // The topics that are named, and those of them whose id is given beside.
    let named = |topic: &DeleteTopicState| {
        let name = topic.name.as_ref().filter(|_| topic.topic_id == Uuid::ZERO)?;
        Some(Uuid(resolve::by_name(core, ctx, name).ok()?.id.0))
    };
    let names: HashSet<Uuid> = asked.iter().filter_map(named).collect();
    let ids = asked.iter().filter(|topic| topic.name.is_none()).map(|topic| topic.topic_id);
    let both: HashSet<Uuid> = ids.filter(|id| names.contains(id)).collect();
    let mut reported = HashSet::new();
    let mut responses = Vec::with_capacity(asked.len());
    for topic in asked {
        if topic.name.is_none() && both.contains(&topic.topic_id) {
            continue;
        }
        if let Some(topic_id) = named(&topic).filter(|id| both.contains(id)) {
            if reported.insert(key(&topic)) {
                let message = "the topic is named by its id as well: name it once";
                responses.push(DeletableTopicResult {
                    name: topic.name,
                    topic_id,
                    error_code: ErrorCode::InvalidRequest.code(),
                    error_message: Some(message.into()),
                });
            }
            continue;
        }
        let key = key(&topic);
        if twice.contains(&key) && !reported.insert(key.clone()) {
            continue;
        }
        let invalid = match &topic {
            DeleteTopicState { name: None, topic_id: Uuid::ZERO } => {
                Some("Neither topic name nor id were specified.")
            }
            DeleteTopicState { name: Some(_), topic_id } if *topic_id != Uuid::ZERO => {
                Some("You may not specify both topic name and topic id.")
            }
            DeleteTopicState { name: Some(_), .. } if twice.contains(&key) => {
                Some("Duplicate topic name.")
            }
            DeleteTopicState { name: None, .. } if twice.contains(&key) => {
                Some("Duplicate topic id.")
            }
            DeleteTopicState { .. } => None,
        };
        responses.push(match invalid {
            Some(message) => DeletableTopicResult {
                name: topic.name,
                topic_id: topic.topic_id,
                error_code: ErrorCode::InvalidRequest.code(),
                error_message: Some(message.into()),
            },
            None => delete(core, ctx, topic).await,
        });
    }
    DeleteTopicsResponse { responses, ..Default::default() }
}

fn key(topic: &DeleteTopicState) -> (Option<sluice_wire::Str>, Uuid) {
    (topic.name.clone(), topic.topic_id)
}

async fn delete(core: &Core, ctx: &Context, topic: DeleteTopicState) -> DeletableTopicResult {
    let found = match &topic.name {
        Some(name) => resolve::by_name(core, ctx, name),
        None => resolve::by_id(core, ctx, topic.topic_id),
    };
    let failed = |code: ErrorCode, message: String| DeletableTopicResult {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        error_code: code.code(),
        error_message: Some(message.into()),
    };
    let found = match found {
        Ok(found) => found,
        Err(code) => return failed(code, code.message().to_owned()),
    };
    match core.catalog.delete_topic(ctx.caller.tenant, found.id).await {
        Ok(()) => DeletableTopicResult {
            name: Some((&*found.name).into()),
            topic_id: Uuid(found.id.0),
            ..Default::default()
        },
        Err(e) => failed(failure::of_delete_topic(&e), e.to_string()),
    }
}

/// CreatePartitions.
pub(crate) async fn create_partitions(
    core: &Arc<Core>,
    ctx: &Context,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let twice = duplicates(request.topics.iter().map(|topic| &topic.name));
    let asked = request.topics.iter().map(|topic| usize::try_from(topic.count).unwrap_or(0));
    let too_many = asked.sum::<usize>() > MAX_PARTITIONS_PER_REQUEST;
    let mut reported = HashSet::new();
    let mut results = Vec::with_capacity(request.topics.len());
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
            grow(core, ctx, &topic, request.validate_only).await
        };
        let (error_code, error_message) = match result {
            Ok(()) => (0, None),
            Err((code, message)) => (code.code(), Some(message.into())),
        };
        results.push(CreatePartitionsTopicResult { name, error_code, error_message });
    }
    CreatePartitionsResponse { results, ..Default::default() }
}

async fn grow(
    core: &Core,
    ctx: &Context,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Failure> {
    let tenant = ctx.caller.tenant;
    let found = resolve::by_name(core, ctx, &topic.name)
        .map_err(|code| (code, code.message().to_owned()))?;
    let refuse = |e| (failure::of_create_partitions(&e), e.to_string());
    let total = u32::try_from(topic.count).unwrap_or(0);
    core.catalog.check_create_partitions(tenant, found.id, total).map_err(refuse)?;
    if let Some(assignments) = &topic.assignments {
        let additional = total as usize - found.partitions.len();
        if assignments.len() != additional {
            let message = format!(
                "Attempted to add {additional} additional partition(s), but {} assignment(s) were \
                 specified.",
                assignments.len()
            );
            return Err((ErrorCode::InvalidReplicaAssignment, message));
        }
        for assignment in assignments {
            check_assignment(core, &assignment.broker_ids)?;
        }
    }
    if !validate_only {
        core.catalog.create_partitions(tenant, found.id, total).await.map_err(refuse)?;
    }
    Ok(())
}
