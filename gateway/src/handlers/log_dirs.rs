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

use super::resolve::{self, Leaders};
use crate::context::{Context, Origin};
use crate::gateway::Core;

/// The name of the one log directory.
const LOG_DIR: &str = "sluice-volumes";

/// DescribeLogDirs: the partitions that clients find at this node, with the bytes that they hold. What is asked for
/// and not here is left out, as Kafka does. Other nodes are told of any partition whose owner this one is.
pub(crate) async fn describe_log_dirs(
    core: &Arc<Core>,
    ctx: &Context,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let wanted = match request.topics {
        None => {
            let all = core.catalog.topics(ctx.caller.tenant).into_iter();
            all.map(|topic| (Str::from(&*topic.name), (0..count(&topic)).collect(), topic))
                .collect()
        }
        Some(asked) => some(core, ctx, &asked),
    };
    let leaders = Leaders::new(core, ctx);
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, indexes, topic) in wanted {
        let streams = indexes.into_iter().map(|partition| StreamId { topic: topic.id, partition });
        let streams: Vec<StreamId> = streams
            .filter(|stream| {
                ctx.origin != Origin::Client || is_here(core, &leaders, &topic, *stream)
            })
            .collect();
        if streams.is_empty() {
            continue;
        }
        let sizes = core.backend.stored_bytes(&ctx.caller, &streams).await;
        let partition = |(stream, size): (&StreamId, u64)| DescribeLogDirsPartition {
            partition_index: stream.partition.cast_signed(),
            partition_size: i64::try_from(size).unwrap_or(i64::MAX),
            ..Default::default()
        };
        let partitions = streams.iter().zip(sizes).map(partition).collect();
        topics.push(DescribeLogDirsTopic { name, partitions });
    }
    let dir =
        DescribeLogDirsResult { log_dir: Str::from_static(LOG_DIR), topics, ..Default::default() };
    DescribeLogDirsResponse { results: vec![dir], ..Default::default() }
}

/// A topic, as it was asked for, with some of its partitions.
type Wanted = (Str, BTreeSet<u32>, Arc<Topic>);

fn some(core: &Core, ctx: &Context, asked: &[DescribableLogDirTopic]) -> Vec<Wanted> {
    let mut wanted: BTreeMap<&Str, (BTreeSet<u32>, Arc<Topic>)> = BTreeMap::new();
    for DescribableLogDirTopic { topic: name, partitions } in asked {
        let Ok(topic) = resolve::by_name(core, ctx, name) else { continue };
        let indexes = partitions.iter().filter_map(|index| resolve::stream(&topic, *index).ok());
        let indexes: BTreeSet<u32> = indexes.map(|stream| stream.partition).collect();
        wanted.entry(name).or_insert_with(|| (BTreeSet::new(), topic)).0.extend(indexes);
    }
    let named = |(name, (indexes, topic)): (&Str, _)| (name.clone(), indexes, topic);
    wanted.into_iter().map(named).collect()
}

fn count(topic: &Topic) -> u32 {
    u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX)
}

/// Whether clients are sent here for a stream.
fn is_here(core: &Core, leaders: &Leaders, topic: &Topic, stream: StreamId) -> bool {
    let volume = topic.partitions[stream.partition as usize];
    leaders.leader(core, volume, &resolve::key_of(stream)).id == core.config.node_id.0
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
    let leaders = Leaders::new(core, ctx);
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
                        Ok(stream) if is_here(core, &leaders, topic, stream) => ErrorCode::None,
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
