//! Streams groups (KIP-1071): the coordinator decides; here the names of topics are checked, and the
//! internal topics that an application lacks are created for it, as Kafka's broker does.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_model::topic_name;
use sluice_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use sluice_wire::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use sluice_wire::messages::streams_group_describe_response::StreamsGroupDescribeResponse;
use sluice_wire::messages::streams_group_heartbeat_request::{
    StreamsGroupHeartbeatRequest, Topology,
};
use sluice_wire::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;
use sluice_wire::{ErrorCode, Str};

use super::{create_topics, permitted};
use crate::backend::StreamsBeat;
use crate::context::Context;
use crate::gateway::Core;

/// Topics that are Kafka's own: no application reads or writes them.
const INTERNAL: [&str; 3] = ["__consumer_offsets", "__transaction_state", "__share_group_state"];
/// How many topics a message names.
const NAMED: usize = 3;
/// `MISSING_INTERNAL_TOPICS` among the statuses of a heartbeat's answer.
const MISSING_INTERNAL_TOPICS: i8 = 3;

/// StreamsGroupHeartbeat.
pub(crate) async fn heartbeat(
    core: &Arc<Core>,
    ctx: &Context,
    request: StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    if let Some(message) = request.topology.as_ref().and_then(wrong_names) {
        return StreamsGroupHeartbeatResponse {
            error_code: ErrorCode::StreamsInvalidTopology.code(),
            error_message: Some(Str::from(message)),
            ..Default::default()
        };
    }
    let beat = core.backend.streams_group_heartbeat(&ctx.caller, request).await;
    let StreamsBeat { mut answer, missing } = beat;
    if !missing.is_empty()
        && let Some(failed) = create(core, ctx, missing).await
        && let Some(status) = answer
            .status
            .iter_mut()
            .flatten()
            .find(|status| status.status_code == MISSING_INTERNAL_TOPICS)
    {
        let detail = format!("{}; Creation failed: {failed}.", status.status_detail);
        status.status_detail = Str::from(detail);
    }
    answer
}

/// Why the topology cannot be, if a name in it is Kafka's own or nobody's.
fn wrong_names(topology: &Topology) -> Option<String> {
    let names: BTreeSet<&Str> = topology
        .subtopologies
        .iter()
        .flat_map(|subtopology| {
            let internal = subtopology.repartition_source_topics.iter();
            let internal = internal.chain(&subtopology.state_changelog_topics);
            let named = subtopology.source_topics.iter();
            named.chain(&subtopology.repartition_sink_topics).chain(internal.map(|t| &t.name))
        })
        .collect();
    let list = |wrong: &dyn Fn(&str) -> bool| -> Option<String> {
        let wrong: Vec<&str> =
            names.iter().map(|name| name.as_str()).filter(|name| wrong(name)).collect();
        (!wrong.is_empty()).then(|| wrong.join(","))
    };
    if let Some(names) = list(&|name| INTERNAL.contains(&name)) {
        return Some(format!(
            "Use of Kafka internal topics {names} in a Kafka Streams topology is prohibited."
        ));
    }
    let invalid = list(&|name| topic_name::validate(name).is_err())?;
    Some(format!("Topic names {invalid} are not valid topic names."))
}

/// Creates topics as CreateTopics does; says which could not be, and why.
async fn create(core: &Arc<Core>, ctx: &Context, topics: Vec<CreatableTopic>) -> Option<String> {
    let request = CreateTopicsRequest { topics, ..Default::default() };
    let made = create_topics::create_topics(core, ctx, request).await;
    // Another member's heartbeat may have been quicker.
    let fine = [ErrorCode::None.code(), ErrorCode::TopicAlreadyExists.code()];
    let failed: Vec<String> = made
        .topics
        .iter()
        .filter(|topic| !fine.contains(&topic.error_code))
        .map(|topic| {
            format!("{} ({})", topic.name, topic.error_message.as_deref().unwrap_or_default())
        })
        .collect();
    if failed.is_empty() {
        return None;
    }
    let more = failed.len().saturating_sub(NAMED);
    let named = failed.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    Some(if more > 0 { format!("{named} and {more} more") } else { named })
}

/// StreamsGroupDescribe.
pub(crate) async fn describe(
    core: &Arc<Core>,
    ctx: &Context,
    request: StreamsGroupDescribeRequest,
) -> StreamsGroupDescribeResponse {
    let ids = request.group_ids;
    let mut groups = core.backend.streams_group_describe(&ctx.caller, ids).await;
    if request.include_authorized_operations {
        for group in groups.iter_mut().filter(|group| group.error_code == 0) {
            group.authorized_operations = permitted::GROUP;
        }
    }
    StreamsGroupDescribeResponse { groups, ..Default::default() }
}
