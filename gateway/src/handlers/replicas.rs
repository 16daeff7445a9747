//! ElectLeaders, AlterPartitionReassignments and ListPartitionReassignments. A partition has one
//! replica, on the node that owns its volume, so that there is never an election to hold and never a
//! move under way; where volumes lie is the operator's business.

use std::sync::Arc;

use sluice_model::limits::MAX_PARTITIONS_PER_REQUEST;
use sluice_wire::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition,
};
use sluice_wire::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use sluice_wire::messages::elect_leaders_request::{ElectLeadersRequest, TopicPartitions};
use sluice_wire::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use sluice_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use sluice_wire::messages::list_partition_reassignments_response::ListPartitionReassignmentsResponse;
use sluice_wire::{ErrorCode, Str};

use super::create_topics::{Failure, check_assignment};
use super::resolve;
use crate::context::Context;
use crate::gateway::Core;

/// Kafka's `ElectionType`.
const PREFERRED: i8 = 0;
const UNCLEAN: i8 = 1;
/// ElectLeaders' answer has a code of its own from this version on (KIP-460).
const CODE_FROM: i16 = 1;

/// Kafka's controller has the same bound and the same words.
const TOO_MANY: &str = "Unable to perform excessively large batch operation.";

/// ElectLeaders. What names no partitions means all of them, and then those that need no election
/// are left out: the topics are answered alone.
pub(crate) async fn elect_leaders(
    core: &Arc<Core>,
    ctx: &Context,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    let unknown_type = !matches!(request.election_type, PREFERRED | UNCLEAN);
    let Some(topics) = request.topic_partitions else {
        if unknown_type {
            return refused(ctx, ErrorCode::InvalidRequest);
        }
        let result = |topic: &Arc<sluice_catalog::Topic>| ReplicaElectionResult {
            topic: (&*topic.name).into(),
            ..Default::default()
        };
        let topics = core.catalog.topics(ctx.caller.tenant);
        let replica_election_results = topics.iter().map(result).collect();
        return ElectLeadersResponse { replica_election_results, ..Default::default() };
    };
    if topics.iter().map(|topic| topic.partitions.len()).sum::<usize>() > MAX_PARTITIONS_PER_REQUEST
    {
        return refused(ctx, ErrorCode::PolicyViolation);
    }
    let unknown = unknown_type.then(|| {
        let message = format!("Unknown election type {}", request.election_type);
        (ErrorCode::InvalidRequest, Str::from(message))
    });
    let code = unknown.as_ref().map_or(ErrorCode::None, |(code, _)| *code);
    let results = topics.into_iter().map(|topic| elect(core, ctx, topic, unknown.as_ref()));
    ElectLeadersResponse { replica_election_results: results.collect(), ..refused(ctx, code) }
}

/// An answer about no partition. Version 0 has no code: there it says that nothing was done.
fn refused(ctx: &Context, code: ErrorCode) -> ElectLeadersResponse {
    let error_code = if ctx.version >= CODE_FROM { code.code() } else { 0 };
    ElectLeadersResponse { error_code, ..Default::default() }
}

fn elect(
    core: &Core,
    ctx: &Context,
    topic: TopicPartitions,
    refused: Option<&(ErrorCode, Str)>,
) -> ReplicaElectionResult {
    let TopicPartitions { topic: name, partitions } = topic;
    let found = resolve::by_name(core, ctx, &name);
    let result = |index: i32| {
        let (code, message) = match (refused, &found) {
            (Some((code, message)), _) => (*code, message.clone()),
            (None, Ok(topic)) => match resolve::stream(topic, index) {
                Ok(_) => {
                    let code = ErrorCode::ElectionNotNeeded;
                    (code, Str::from_static(code.message()))
                }
                Err(code) => (code, format!("No such partition as {name}-{index}").into()),
            },
            (None, Err(code)) => (*code, format!("No such topic as {name}").into()),
        };
        PartitionResult {
            partition_id: index,
            error_code: code.code(),
            error_message: Some(message),
        }
    };
    let partition_result = partitions.into_iter().map(result).collect();
    ReplicaElectionResult { topic: name, partition_result }
}

/// AlterPartitionReassignments: the node that has the partition is the only target there is.
pub(crate) async fn alter_partition_reassignments(
    core: &Arc<Core>,
    ctx: &Context,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let allow = request.allow_replication_factor_change;
    let mut answer = AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: allow,
        error_message: None,
        ..Default::default()
    };
    let asked = request.topics.iter().map(|topic| topic.partitions.len());
    if asked.sum::<usize>() > MAX_PARTITIONS_PER_REQUEST {
        answer.error_code = ErrorCode::PolicyViolation.code();
        answer.error_message = Some(Str::from_static(TOO_MANY));
        return answer;
    }
    for topic in request.topics {
        let result = |partition: ReassignablePartition| {
            let (code, message) = match reassign(core, ctx, &topic.name, &partition, allow) {
                Ok(()) => (ErrorCode::None, None),
                Err((code, message)) => (code, Some(message.into())),
            };
            ReassignablePartitionResponse {
                partition_index: partition.partition_index,
                error_code: code.code(),
                error_message: message,
            }
        };
        let partitions = topic.partitions.into_iter().map(result).collect();
        answer.responses.push(ReassignableTopicResponse { name: topic.name.clone(), partitions });
    }
    answer
}

fn reassign(
    core: &Core,
    ctx: &Context,
    name: &str,
    partition: &ReassignablePartition,
    allow_factor_change: bool,
) -> Result<(), Failure> {
    let topic = resolve::by_name(core, ctx, name)
        .map_err(|code| (code, format!("Unable to find a topic named {name}.")))?;
    let index = partition.partition_index;
    let stream = resolve::stream(&topic, index)
        .map_err(|code| (code, format!("Unable to find partition {name}:{index}.")))?;
    let Some(replicas) = &partition.replicas else {
        let code = ErrorCode::NoReassignmentInProgress;
        return Err((code, code.message().to_owned()));
    };
    if !allow_factor_change && replicas.len() > 1 {
        let message = format!("The replication factor is changed from 1 to {}", replicas.len());
        return Err((ErrorCode::InvalidReplicationFactor, message));
    }
    check_assignment(core, replicas)?;
    let volume = topic.partitions[stream.partition as usize];
    let leaders = resolve::Leaders::new(core, ctx);
    let owner = leaders.leader(core, volume, &resolve::key_of(stream)).id;
    if replicas[..] == [owner] {
        return Ok(());
    }
    let message = format!(
        "The partition lies with broker {owner}, and clients cannot move it: its volume is placed by \
         the operator."
    );
    Err((ErrorCode::InvalidReplicaAssignment, message))
}

/// ListPartitionReassignments: there are none.
pub(crate) async fn list_partition_reassignments(
    _core: &Arc<Core>,
    _ctx: &Context,
    _request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse { error_message: None, ..Default::default() }
}
