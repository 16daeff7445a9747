//! DescribeLogDirs and AlterReplicaLogDirs. Clients see one log directory a node: its volumes, with
//! what they hold in the bucket. It has no path, and how large or how full it is is not told, since
//! other tenants share it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_catalog::Topic;
use sluice_model::StreamId;
use sluice_model::limits::MAX_PARTITIONS_PER_REQUEST;
use sluice_wire::messages::alter_replica_log_dirs_request::AlterReplicaLogDirsRequest;
use sluice_wire::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult, AlterReplicaLogDirsResponse,
};
use sluice_wire::messages::describe_log_dirs_request::{
    DescribableLogDirTopic, DescribeLogDirsRequest,
};
use sluice_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResponse, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use sluice_wire::{ErrorCode, Str};

use super::resolve;
use crate::context::Context;
use crate::gateway::Core;

/// The name of the one log directory.
const LOG_DIR: &str = "sluice-volumes";

/// DescribeLogDirs: the partitions that this node serves, with the bytes that they hold. What is
/// asked for and not here is left out, as Kafka does.
pub(crate) async fn describe_log_dirs(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let topics = match request.topics {
        None => {
            let all = core.catalog.topics(ctx.caller.tenant);
            all.iter().map(|topic| sizes(core, topic, 0..count(topic))).collect()
        }
        Some(asked) => some(core, ctx, &asked),
    };
    let dir = DescribeLogDirsResult {
        log_dir: Str::from_static(LOG_DIR),
        topics: topics.into_iter().filter(|topic| !topic.partitions.is_empty()).collect(),
        ..Default::default()
    };
    DescribeLogDirsResponse { results: vec![dir], ..Default::default() }
}

fn some(core: &Core, ctx: &Context, asked: &[DescribableLogDirTopic]) -> Vec<DescribeLogDirsTopic> {
    let mut wanted: BTreeMap<&str, (Arc<Topic>, BTreeSet<u32>)> = BTreeMap::new();
    for DescribableLogDirTopic { topic: name, partitions } in asked {
        let Ok(topic) = resolve::by_name(core, ctx, name) else { continue };
        let indexes = partitions.iter().filter_map(|index| resolve::stream(&topic, *index).ok());
        let indexes: BTreeSet<u32> = indexes.map(|stream| stream.partition).collect();
        wanted.entry(name).or_insert_with(|| (topic, BTreeSet::new())).1.extend(indexes);
    }
    wanted.into_values().map(|(topic, indexes)| sizes(core, &topic, indexes)).collect()
}

fn count(topic: &Topic) -> u32 {
    u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX)
}

/// Those of a topic's partitions that this node serves.
fn sizes(
    core: &Core,
    topic: &Topic,
    indexes: impl IntoIterator<Item = u32>,
) -> DescribeLogDirsTopic {
    let streams = indexes.into_iter().map(|partition| StreamId { topic: topic.id, partition });
    let here = streams.filter(|stream| is_here(core, topic, *stream));
    let partition = |stream: StreamId| DescribeLogDirsPartition {
        partition_index: stream.partition.cast_signed(),
        partition_size: i64::try_from(core.backend.stored_bytes(stream)).unwrap_or(i64::MAX),
        ..Default::default()
    };
    DescribeLogDirsTopic { name: (&*topic.name).into(), partitions: here.map(partition).collect() }
}

fn is_here(core: &Core, topic: &Topic, stream: StreamId) -> bool {
    let volume = topic.partitions[stream.partition as usize];
    resolve::leader(core, volume) == core.config.node_id
}

/// AlterReplicaLogDirs: there is no other directory to move to, and what is there already is a
/// success.
pub(crate) async fn alter_replica_log_dirs(
    core: &Arc<Core>,
    ctx: &Context,
    request: AlterReplicaLogDirsRequest,
) -> AlterReplicaLogDirsResponse {
    let topics = || request.dirs.iter().flat_map(|dir| &dir.topics);
    let too_many =
        topics().map(|topic| topic.partitions.len()).sum::<usize>() > MAX_PARTITIONS_PER_REQUEST;
    // A partition that is named twice is answered once, for the last directory, as in Kafka.
    let mut results: BTreeMap<&Str, BTreeMap<i32, ErrorCode>> = BTreeMap::new();
    let mut room = MAX_PARTITIONS_PER_REQUEST;
    for dir in &request.dirs {
        for topic in &dir.topics {
            let found = resolve::by_name(core, ctx, &topic.name);
            let of_topic = results.entry(&topic.name).or_default();
            // The answer has no code of its own, so that too large a request is refused by the
            // partitions that there is room for.
            for index in topic.partitions.iter().take(room) {
                let code = match (&found, too_many) {
                    (_, true) => ErrorCode::PolicyViolation,
                    _ if dir.path != LOG_DIR => ErrorCode::LogDirNotFound,
                    (Ok(topic), _) => match resolve::stream(topic, *index) {
                        Ok(stream) if is_here(core, topic, stream) => ErrorCode::None,
                        Ok(_) => ErrorCode::ReplicaNotAvailable,
                        Err(code) => code,
                    },
                    (Err(code), _) => *code,
                };
                of_topic.insert(*index, code);
            }
            room = room.saturating_sub(topic.partitions.len());
        }
    }
    let partition = |(partition_index, code): (i32, ErrorCode)| AlterReplicaLogDirPartitionResult {
        partition_index,
        error_code: code.code(),
    };
    let topic = |(name, partitions): (&Str, BTreeMap<i32, ErrorCode>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        AlterReplicaLogDirTopicResult { topic_name: name.clone(), partitions }
    };
    AlterReplicaLogDirsResponse {
        results: results
            .into_iter()
            .filter(|(_, partitions)| !partitions.is_empty())
            .map(topic)
            .collect(),
        ..Default::default()
    }
}
