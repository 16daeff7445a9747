//! What a heartbeat must be like before a group looks at it: Kafka's own checks, in its order.

use sluice_wire::messages::streams_group_heartbeat_request::StreamsGroupHeartbeatRequest;
use sluice_wire::{ErrorCode, Str};

use crate::group::modern::Refusal;

/// A static member that will be back.
const LEAVES_FOR_NOW: i32 = -2;

/// Refuses what Kafka 4.3 does not support, then what makes no sense.
pub(crate) fn check(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    let found = unsupported(request).or_else(|| senseless(request));
    if let Some(text) = found {
        return Err(Refusal::new(ErrorCode::InvalidRequest, text));
    }
    let changelogs = request.topology.iter().flat_map(|topology| &topology.subtopologies);
    let mut changelogs = changelogs.flat_map(|sub| &sub.state_changelog_topics);
    match changelogs.find(|topic| request.member_epoch == 0 && topic.partitions != 0) {
        None => Ok(()),
        Some(topic) => Err(Refusal::new(
            ErrorCode::StreamsInvalidTopology,
            format!(
                "Changelog topic {} must have an undefined partition count, but it is set to {}.",
                topic.name, topic.partitions
            ),
        )),
    }
}

fn unsupported(request: &StreamsGroupHeartbeatRequest) -> Option<String> {
    let regex = request.topology.iter().flat_map(|topology| &topology.subtopologies);
    let mut regex = regex.filter(|subtopology| !subtopology.source_topic_regex.is_empty());
    let text = if request.instance_id.is_some() {
        "Static membership is not yet supported."
    } else if request.task_offsets.is_some() {
        "TaskOffsets are not supported yet."
    } else if request.task_end_offsets.is_some() {
        "TaskEndOffsets are not supported yet."
    } else if request.warmup_tasks.as_ref().is_some_and(|tasks| !tasks.is_empty()) {
        "WarmupTasks are not supported yet."
    } else if regex.next().is_some() {
        "Regular expressions for source topics are not supported yet."
    } else {
        return None;
    };
    Some(text.to_owned())
}

fn senseless(request: &StreamsGroupHeartbeatRequest) -> Option<String> {
    let is_empty = |text: &Option<Str>| text.as_ref().is_some_and(|text| text.is_empty());
    let has = |tasks: &Option<Vec<_>>| tasks.as_ref().is_some_and(|tasks| !tasks.is_empty());
    let lists = [&request.active_tasks, &request.standby_tasks, &request.warmup_tasks];
    let given = lists.iter().filter(|list| list.is_some()).count();
    let epoch = request.member_epoch;
    let joins = epoch == 0;
    let text = if request.member_id.is_empty() {
        "MemberId can't be empty."
    } else if request.group_id.is_empty() {
        "GroupId can't be empty."
    } else if is_empty(&request.rack_id) {
        "RackId can't be empty."
    } else if joins && request.rebalance_timeout_ms == -1 {
        "RebalanceTimeoutMs must be provided in first request."
    } else if joins && has(&request.active_tasks) {
        "ActiveTasks must be empty when (re-)joining."
    } else if joins && has(&request.standby_tasks) {
        "StandbyTasks must be empty when (re-)joining."
    } else if joins && request.topology.is_none() {
        "Topology must be non-null when (re-)joining."
    } else if epoch == LEAVES_FOR_NOW {
        "InstanceId can't be null."
    } else if epoch < LEAVES_FOR_NOW {
        return Some(format!(
            "MemberEpoch is {epoch}, but must be greater than or equal to {LEAVES_FOR_NOW}."
        ));
    } else if given != 0 && given != lists.len() {
        "If one task-type is non-null, all must be non-null."
    } else if !joins && request.topology.is_some() {
        "Topology can only be provided when (re-)joining."
    } else {
        return None;
    };
    Some(text.to_owned())
}
