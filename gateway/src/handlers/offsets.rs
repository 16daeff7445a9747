//! ListOffsets, OffsetForLeaderEpoch and DeleteRecords: questions and orders about positions in
//! streams, one partition at a time.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt;
use sluice_model::StreamId;
use sluice_wire::ErrorCode;
use sluice_wire::messages::delete_records_request::DeleteRecordsRequest;
use sluice_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsResponse, DeleteRecordsTopicResult,
};
use sluice_wire::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest};
use sluice_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use sluice_wire::messages::offset_for_leader_epoch_request::OffsetForLeaderEpochRequest;
use sluice_wire::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderEpochResponse, OffsetForLeaderTopicResult,
};

use super::fetch::given;
use super::resolve;
use crate::backend::{OffsetFound, OffsetQuery};
use crate::context::Context;
use crate::gateway::Core;

/// Partitions that one request looks at at once; some may read the bucket.
const AT_ONCE: usize = 16;
/// Leader epochs are told from this version of ListOffsets on (KIP-320).
const EPOCHS_FROM: i16 = 4;

/// What a timestamp in ListOffsets stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Query(OffsetQuery),
    /// The first offset that is not in the bucket yet (KIP-1023).
    PendingUpload,
}

/// The negative numbers and the versions that brought them: KIP-734, KIP-405, KIP-1005, KIP-1023.
fn wanted(version: i16, timestamp: i64) -> Option<Wanted> {
    let (query, since) = match timestamp {
        -1 => (OffsetQuery::Latest, 0),
        -2 => (OffsetQuery::Earliest, 0),
        -3 => (OffsetQuery::MaxTimestamp, 7),
        -4 => (OffsetQuery::EarliestLocal, 8),
        -5 => (OffsetQuery::LatestTiered, 9),
        -6 => return (version >= 11).then_some(Wanted::PendingUpload),
        other if other < 0 => return None,
        at => (OffsetQuery::AtOrAfter(at), 0),
    };
    (version >= since).then_some(Wanted::Query(query))
}

/// ListOffsets.
pub(crate) async fn list_offsets(
    core: &Arc<Core>,
    ctx: &Context,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let read_committed = request.isolation_level == 1;
    // Kafka fails on a level that does not exist.
    let unknown_isolation = !matches!(request.isolation_level, 0 | 1);
    let duplicates = duplicates(&request);
    let mut topics = Vec::with_capacity(request.topics.len());
    // Kafka keeps partitions, not topics: one without any is not in the answer.
    for topic in request.topics.into_iter().filter(|topic| !topic.partitions.is_empty()) {
        let found = resolve::by_name(core, ctx, &topic.name);
        // One that is asked for twice is refused once.
        let mut told = HashSet::new();
        let mut asked = topic.partitions;
        asked.retain(|partition| {
            let index = partition.partition_index;
            !duplicates.contains(&(topic.name.clone(), index)) || told.insert(index)
        });
        let one = |partition: ListOffsetsPartition| {
            let stream = resolve::stream_of(&found, partition.partition_index);
            let twice = duplicates.contains(&(topic.name.clone(), partition.partition_index));
            async move {
                let result = match stream {
                    _ if unknown_isolation => Err(ErrorCode::UnknownServerError),
                    _ if twice => Err(ErrorCode::InvalidRequest),
                    Err(code) => Err(code),
                    Ok(stream) => find(core, ctx, stream, read_committed, &partition).await,
                };
                let mut answer = ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    ..Default::default()
                };
                match result {
                    Ok(found) => {
                        answer.timestamp = found.timestamp;
                        answer.offset = found.offset;
                        if ctx.version >= EPOCHS_FROM {
                            answer.leader_epoch = found.leader_epoch;
                        }
                    }
                    Err(code) => answer.error_code = code.code(),
                }
                answer
            }
        };
        let partitions = futures_util::stream::iter(asked).map(one).buffered(AT_ONCE);
        let partitions = partitions.collect().await;
        topics.push(ListOffsetsTopicResponse { name: topic.name, partitions });
    }
    ListOffsetsResponse { topics, ..Default::default() }
}

/// Partitions that are asked for more than once: Kafka answers none of them.
fn duplicates(request: &ListOffsetsRequest) -> HashSet<(sluice_wire::Str, i32)> {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (topic.name.clone(), partition.partition_index);
            if !seen.insert(key.clone()) {
                twice.insert(key);
            }
        }
    }
    twice
}

async fn find(
    core: &Core,
    ctx: &Context,
    stream: StreamId,
    read_committed: bool,
    partition: &ListOffsetsPartition,
) -> Result<OffsetFound, ErrorCode> {
    let wanted = wanted(ctx.version, partition.timestamp).ok_or(ErrorCode::UnsupportedVersion)?;
    let epoch = given(partition.current_leader_epoch);
    let ask = |query| core.backend.find_offset(&ctx.caller, stream, epoch, read_committed, query);
    match wanted {
        Wanted::Query(query) => ask(query).await,
        Wanted::PendingUpload => {
            let tiered = ask(OffsetQuery::LatestTiered).await?;
            if tiered.offset < 0 {
                return Ok(tiered);
            }
            Ok(OffsetFound { offset: tiered.offset + 1, ..tiered })
        }
    }
}

/// OffsetForLeaderEpoch.
pub(crate) async fn offset_for_leader_epoch(
    core: &Arc<Core>,
    ctx: &Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = resolve::by_name(core, ctx, &topic.topic);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let current = given(partition.current_leader_epoch);
            let result = match resolve::stream_of(&found, partition.partition) {
                Ok(stream) => {
                    let wanted = partition.leader_epoch;
                    core.backend.epoch_end(&ctx.caller, stream, current, wanted).await
                }
                Err(code) => Err(code),
            };
            let answer = EpochEndOffset { partition: partition.partition, ..Default::default() };
            partitions.push(match result {
                Ok((leader_epoch, end_offset)) => {
                    EpochEndOffset { leader_epoch, end_offset, ..answer }
                }
                Err(code) => EpochEndOffset { error_code: code.code(), ..answer },
            });
        }
        topics.push(OffsetForLeaderTopicResult { topic: topic.topic, partitions });
    }
    OffsetForLeaderEpochResponse { topics, ..Default::default() }
}

/// DeleteRecords. A topic that is only compacted keeps its records, as in Kafka.
pub(crate) async fn delete_records(
    core: &Arc<Core>,
    ctx: &Context,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = resolve::by_name(core, ctx, &topic.name);
        let kept = found
            .as_ref()
            .is_ok_and(|topic| topic.config.cleanup.compact && !topic.config.cleanup.delete);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let result = match resolve::stream_of(&found, partition.partition_index) {
                Ok(_) if kept => Err(ErrorCode::PolicyViolation),
                Ok(_) if partition.offset < -1 => Err(ErrorCode::OffsetOutOfRange),
                Ok(stream) => {
                    core.backend.delete_records(&ctx.caller, stream, partition.offset).await
                }
                Err(code) => Err(code),
            };
            let (low_watermark, error_code) = match result {
                Ok(log_start) => (log_start, 0),
                Err(code) => (-1, code.code()),
            };
            partitions.push(DeleteRecordsPartitionResult {
                partition_index: partition.partition_index,
                low_watermark,
                error_code,
            });
        }
        topics.push(DeleteRecordsTopicResult { name: topic.name, partitions });
    }
    DeleteRecordsResponse { topics, ..Default::default() }
}
