//! OffsetCommit, OffsetFetch and OffsetDelete. The coordinator knows topics by id alone; here names
//! become ids on the way in, and ids names on the way out. A topic that was deleted and created again
//! has another id, so that its old commits are not taken for the new topic's.

use std::collections::HashMap;
use std::sync::Arc;

use sluice_model::TopicId;
use sluice_wire::messages::offset_commit_request::{OffsetCommitRequest, OffsetCommitRequestTopic};
use sluice_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use sluice_wire::messages::offset_delete_request::OffsetDeleteRequest;
use sluice_wire::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use sluice_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use sluice_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use sluice_wire::{ErrorCode, Str, Uuid};

use super::resolve;
use crate::backend::DeleteOffsets;
use crate::context::Context;
use crate::gateway::Core;

/// Topics are named by id from this version of OffsetCommit and OffsetFetch on (KIP-848).
const IDS_FROM: i16 = 10;
/// Several groups may be asked for from this version on (KIP-709).
const GROUPS_FROM: i16 = 8;
/// From this version on OffsetFetch has an error for the group.
const GROUP_ERROR_FROM: i16 = 2;

/// OffsetCommit.
pub(crate) async fn offset_commit(
    core: &Arc<Core>,
    ctx: &Context,
    mut request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut known = Vec::new();
    let asked = std::mem::take(&mut request.topics).into_iter();
    // Kafka keeps partitions, not topics: one without any is not in the answer.
    for topic in asked.filter(|topic| !topic.partitions.is_empty()) {
        let found = resolve::by_either(core, ctx, IDS_FROM, &topic.name, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        let mut good = Vec::new();
        for partition in topic.partitions {
            let index = partition.partition_index;
            let error_code = match resolve::stream_of(&found, index) {
                // Replaced by the coordinator's answer below.
                Ok(_) => ErrorCode::UnknownServerError,
                Err(code) => code,
            };
            partitions.push(OffsetCommitResponsePartition {
                partition_index: index,
                error_code: error_code.code(),
            });
            if error_code == ErrorCode::UnknownServerError {
                good.push(partition);
            }
        }
        let topic_id = found.as_ref().map_or(topic.topic_id, |topic| Uuid(topic.id.0));
        if !good.is_empty() {
            let name = topic.name.clone();
            known.push(OffsetCommitRequestTopic { name, topic_id, partitions: good });
        }
        topics.push(OffsetCommitResponseTopic { name: topic.name, topic_id, partitions });
    }
    if !known.is_empty() {
        request.topics = known;
        let answer = core.backend.offset_commit(&ctx.caller, ctx.version, request).await;
        let codes: HashMap<(Uuid, i32), i16> = answer
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|p| (topic.topic_id, p)))
            .map(|(id, partition)| ((id, partition.partition_index), partition.error_code))
            .collect();
        for topic in &mut topics {
            for partition in &mut topic.partitions {
                if let Some(code) = codes.get(&(topic.topic_id, partition.partition_index)) {
                    partition.error_code = *code;
                }
            }
        }
    }
    OffsetCommitResponse { topics, ..Default::default() }
}

/// OffsetFetch.
pub(crate) async fn offset_fetch(
    core: &Arc<Core>,
    ctx: &Context,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let single = ctx.version < GROUPS_FROM;
    let asked = if single { vec![as_group(&request)] } else { request.groups };
    let mut known = Vec::with_capacity(asked.len());
    let mut answers = Vec::with_capacity(asked.len());
    for group in asked {
        let (group, answer) = resolve_group(core, ctx, group);
        known.push(group);
        answers.push(answer);
    }
    let request = OffsetFetchRequest {
        groups: known,
        require_stable: request.require_stable,
        ..Default::default()
    };
    let found = core.backend.offset_fetch(&ctx.caller, request).await;
    let mut groups = Vec::with_capacity(answers.len());
    for (answer, found) in answers.into_iter().zip(found.groups) {
        groups.push(name_group(core, ctx, answer, found));
    }
    if !single {
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    match groups.pop() {
        Some(group) => as_single(ctx.version, group),
        None => OffsetFetchResponse {
            error_code: ErrorCode::UnknownServerError.code(),
            ..Default::default()
        },
    }
}

fn as_group(request: &OffsetFetchRequest) -> OffsetFetchRequestGroup {
    let topics = request.topics.as_ref().map(|topics| {
        let topics = topics.iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name.clone(),
            partition_indexes: topic.partition_indexes.clone(),
            ..Default::default()
        });
        topics.collect()
    });
    OffsetFetchRequestGroup { group_id: request.group_id.clone(), topics, ..Default::default() }
}

/// What was asked of one group, to be put beside what the coordinator finds.
struct Asked {
    group_id: Str,
    /// `None` for all topics; else each topic with the answer to give if it is not known.
    topics: Option<Vec<AskedTopic>>,
}

struct AskedTopic {
    name: Str,
    id: Uuid,
    known: bool,
    partitions: Vec<i32>,
}

fn resolve_group(
    core: &Core,
    ctx: &Context,
    mut group: OffsetFetchRequestGroup,
) -> (OffsetFetchRequestGroup, Asked) {
    let Some(topics) = group.topics.take() else {
        let asked = Asked { group_id: group.group_id.clone(), topics: None };
        return (group, asked);
    };
    let mut known = Vec::new();
    let mut asked = Vec::with_capacity(topics.len());
    for topic in topics {
        let found = resolve::by_either(core, ctx, IDS_FROM, &topic.name, topic.topic_id);
        let id = found.as_ref().map_or(topic.topic_id, |topic| Uuid(topic.id.0));
        asked.push(AskedTopic {
            name: topic.name.clone(),
            id,
            known: found.is_ok(),
            partitions: topic.partition_indexes.clone(),
        });
        if found.is_ok() {
            known.push(OffsetFetchRequestTopics { topic_id: id, ..topic });
        }
    }
    let asked = Asked { group_id: group.group_id.clone(), topics: Some(asked) };
    group.topics = Some(known);
    (group, asked)
}

fn name_group(
    core: &Core,
    ctx: &Context,
    asked: Asked,
    found: OffsetFetchResponseGroup,
) -> OffsetFetchResponseGroup {
    let mut answer = OffsetFetchResponseGroup {
        group_id: asked.group_id,
        error_code: found.error_code,
        ..Default::default()
    };
    if found.error_code != 0 && ctx.version >= GROUP_ERROR_FROM {
        return answer;
    }
    let Some(topics) = asked.topics else {
        let name = |topic: OffsetFetchResponseTopics| {
            // What the catalog no longer has was deleted, and so are its commits.
            let known = resolve::by_id(core, ctx, topic.topic_id).ok()?;
            Some(OffsetFetchResponseTopics { name: (&*known.name).into(), ..topic })
        };
        answer.topics = found.topics.into_iter().filter_map(name).collect();
        return answer;
    };
    let mut by_id: HashMap<Uuid, Vec<OffsetFetchResponsePartitions>> =
        found.topics.into_iter().map(|topic| (topic.topic_id, topic.partitions)).collect();
    for topic in topics {
        let partitions = match by_id.remove(&topic.id) {
            Some(partitions) if topic.known => partitions,
            // Kafka looks for commits, not for topics: an unknown name has none. An unknown id is
            // an error.
            _ => {
                let code = if found.error_code != 0 {
                    found.error_code
                } else if ctx.version >= IDS_FROM {
                    ErrorCode::UnknownTopicId.code()
                } else {
                    0
                };
                topic.partitions.iter().map(|index| nothing(*index, code)).collect()
            }
        };
        answer.topics.push(OffsetFetchResponseTopics {
            name: topic.name,
            topic_id: topic.id,
            partitions,
        });
    }
    answer
}

fn nothing(partition_index: i32, error_code: i16) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        error_code,
        ..Default::default()
    }
}

fn as_single(version: i16, group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topic = |topic: OffsetFetchResponseTopics| {
        let partitions =
            topic.partitions.into_iter().map(|partition| OffsetFetchResponsePartition {
                partition_index: partition.partition_index,
                committed_offset: partition.committed_offset,
                committed_leader_epoch: partition.committed_leader_epoch,
                metadata: partition.metadata,
                error_code: partition.error_code,
            });
        OffsetFetchResponseTopic { name: topic.name, partitions: partitions.collect() }
    };
    OffsetFetchResponse {
        topics: group.topics.into_iter().map(topic).collect(),
        error_code: if version >= GROUP_ERROR_FROM { group.error_code } else { 0 },
        ..Default::default()
    }
}

/// OffsetDelete.
pub(crate) async fn offset_delete(
    core: &Arc<Core>,
    ctx: &Context,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut known: Vec<(TopicId, i32)> = Vec::new();
    let mut places = Vec::new();
    for topic in request.topics {
        let found = resolve::by_name(core, ctx, &topic.name);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let partition_index = partition.partition_index;
            let error_code = match resolve::stream_of(&found, partition_index) {
                Ok(stream) => {
                    places.push((topics.len(), partitions.len()));
                    known.push((stream.topic, partition_index));
                    0
                }
                Err(code) => code.code(),
            };
            partitions.push(OffsetDeleteResponsePartition { partition_index, error_code });
        }
        topics.push(OffsetDeleteResponseTopic { name: topic.name, partitions });
    }
    let delete = DeleteOffsets { group_id: request.group_id, partitions: known };
    match core.backend.offset_delete(&ctx.caller, delete).await {
        Ok(codes) => {
            for ((topic, partition), code) in places.into_iter().zip(codes) {
                topics[topic].partitions[partition].error_code = code.code();
            }
            OffsetDeleteResponse { topics, ..Default::default() }
        }
        Err(code) => OffsetDeleteResponse { error_code: code.code(), ..Default::default() },
    }
}
