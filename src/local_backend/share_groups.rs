//! Share groups of one process: members and offsets are the group coordinator's, records the writer's, which
//! reads them as any fetch is read.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::future::join_all;
use sluice_gateway::backend::{Caller, ShareGroups};
use sluice_model::{StreamId, TenantId, TopicId};
use sluice_wire::messages::{
    alter_share_group_offsets_request::{
        AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsRequestTopic,
    },
    alter_share_group_offsets_response::{
        AlterShareGroupOffsetsResponse, AlterShareGroupOffsetsResponsePartition,
        AlterShareGroupOffsetsResponseTopic,
    },
    delete_groups_request::DeleteGroupsRequest,
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest,
    delete_share_group_offsets_response::{
        DeleteShareGroupOffsetsResponse, DeleteShareGroupOffsetsResponseTopic,
    },
    describe_share_group_offsets_request::{
        DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequestGroup,
    },
    describe_share_group_offsets_response::{
        DescribeShareGroupOffsetsResponse, DescribeShareGroupOffsetsResponseGroup,
        DescribeShareGroupOffsetsResponsePartition, DescribeShareGroupOffsetsResponseTopic,
    },
    share_acknowledge_request::ShareAcknowledgeRequest,
    share_acknowledge_response::ShareAcknowledgeResponse,
    share_fetch_request::ShareFetchRequest,
    share_fetch_response::ShareFetchResponse,
    share_group_describe_request::ShareGroupDescribeRequest,
    share_group_describe_response::ShareGroupDescribeResponse,
    share_group_heartbeat_request::ShareGroupHeartbeatRequest,
    share_group_heartbeat_response::ShareGroupHeartbeatResponse,
};
use sluice_wire::{ErrorCode, Str, Uuid};
use sluice_writer::share::{ShareClient, ShareSource, Standing};

use super::share_source::Source;
use super::{LocalBackend, group_caller};

/// The member epoch of a heartbeat that leaves.
const LEAVE: i32 = -1;

/// Where one partition stands; -1 where nothing is known.
async fn standing(
    source: &Source<'_>,
    stream: StreamId,
    known: Option<&Standing>,
) -> DescribeShareGroupOffsetsResponsePartition {
    let partition_index = stream.partition.cast_signed();
    let Some(known) = known.filter(|known| known.start >= 0) else {
        let leader_epoch = known.map_or(0, |known| known.leader_epoch);
        return DescribeShareGroupOffsetsResponsePartition {
            partition_index,
            start_offset: -1,
            leader_epoch,
            ..Default::default()
        };
    };
    let mut partition = DescribeShareGroupOffsetsResponsePartition {
        partition_index,
        start_offset: known.start,
        leader_epoch: known.leader_epoch,
        ..Default::default()
    };
    match source.offsets(stream).await {
        Ok(offsets) => {
            let done = i64::try_from(known.done).unwrap_or(i64::MAX);
            partition.lag = offsets.high_watermark.saturating_sub(known.start).saturating_sub(done);
        }
        Err(code) => {
            partition.start_offset = 0;
            partition.leader_epoch = 0;
            partition.error_code = code.code();
            partition.error_message = Some(Str::from_static(code.message()));
        }
    }
    partition
}

impl LocalBackend {
    async fn share_group_offsets(
        &self,
        caller: &Caller,
        group: DescribeShareGroupOffsetsRequestGroup,
    ) -> DescribeShareGroupOffsetsResponseGroup {
        let group_id = group.group_id;
        let source = Source::new(self, caller);
        let all: BTreeMap<StreamId, Standing> = self
            .writer
            .shares()
            .standings(caller.tenant, &group_id)
            .into_iter()
            .map(|standing| (standing.stream, standing))
            .collect();
        let mut topics = Vec::new();
        if let Some(wanted) = group.topics {
            for topic in wanted {
                let found = self.writer.catalog().topic_by_name(caller.tenant, &topic.topic_name);
                let code = ErrorCode::UnknownTopicOrPartition;
                let partitions = topic.partitions.into_iter().map(|partition_index| {
                    let stream = found.as_ref().map(|found| StreamId {
                        topic: found.id,
                        partition: partition_index.cast_unsigned(),
                    });
                    let (source, all) = (&source, &all);
                    async move {
                        match stream {
                            Some(stream) => standing(source, stream, all.get(&stream)).await,
                            None => DescribeShareGroupOffsetsResponsePartition {
                                partition_index,
                                start_offset: -1,
                                error_code: code.code(),
                                error_message: Some(Str::from_static(code.message())),
                                ..Default::default()
                            },
                        }
                    }
                });
                topics.push(DescribeShareGroupOffsetsResponseTopic {
                    topic_name: topic.topic_name,
                    topic_id: found.as_ref().map_or(Uuid::ZERO, |found| Uuid(found.id.0)),
                    partitions: join_all(partitions).await,
                });
            }
            return DescribeShareGroupOffsetsResponseGroup {
                group_id,
                topics,
                ..Default::default()
            };
        }
        let known = self.writer.groups().share_group_topics(&group_caller(caller), &group_id).await;
        let mut streams: BTreeMap<TopicId, i32> = match known {
            Ok(known) => known,
            Err(code) => {
                return DescribeShareGroupOffsetsResponseGroup {
                    group_id,
                    error_code: code.code(),
                    error_message: Some(Str::from_static(code.message())),
                    ..Default::default()
                };
            }
        };
        for stream in all.keys() {
            let partitions = streams.entry(stream.topic).or_default();
            *partitions = (*partitions).max(stream.partition.cast_signed() + 1);
        }
        for (id, partitions) in streams {
            let Some(topic) = self.writer.catalog().topic_by_id(caller.tenant, id) else {
                continue;
            };
            let partitions = (0..partitions.cast_unsigned()).map(|partition| {
                let stream = StreamId { topic: id, partition };
                standing(&source, stream, all.get(&stream))
            });
            topics.push(DescribeShareGroupOffsetsResponseTopic {
                topic_name: Str::from(&*topic.name),
                topic_id: Uuid(id.0),
                partitions: join_all(partitions).await,
            });
        }
        DescribeShareGroupOffsetsResponseGroup { group_id, topics, ..Default::default() }
    }

    /// Share groups' offsets go before the groups: after a crash between, the group is there without them.
    pub(super) async fn forget_share_groups(&self, caller: &Caller, request: &DeleteGroupsRequest) {
        let group_caller = group_caller(caller);
        for group in &request.groups_names {
            let groups = self.writer.groups();
            let empty = groups.check_empty_share_group(&group_caller, group);
            if empty.await.is_err() {
                continue;
            }
            let shares = self.writer.shares();
            let forgotten = shares.forget_streams(caller.tenant, group, |_| true);
            if let Err(error) = forgotten.await {
                tracing::warn!(%error, "a share group's offsets were not deleted");
            }
        }
    }
}

#[async_trait]
impl ShareGroups for LocalBackend {
    async fn share_group_heartbeat(
        &self,
        caller: &Caller,
        request: ShareGroupHeartbeatRequest,
    ) -> ShareGroupHeartbeatResponse {
        let (group, member) = (request.group_id.clone(), request.member_id.clone());
        let leaves = request.member_epoch == LEAVE;
        let groups = self.writer.groups();
        let answer = groups.share_group_heartbeat(&group_caller(caller), request).await;
        if leaves && answer.error_code == 0 {
            self.writer.shares().member_left(caller.tenant, &group, &member);
        }
        answer
    }

    async fn share_group_describe(
        &self,
        caller: &Caller,
        request: ShareGroupDescribeRequest,
    ) -> ShareGroupDescribeResponse {
        self.writer.groups().share_group_describe(&group_caller(caller), request).await
    }

    async fn share_fetch(
        &self,
        caller: &Caller,
        version: i16,
        request: ShareFetchRequest,
        max_bytes: u32,
    ) -> ShareFetchResponse {
        let source = Source::new(self, caller);
        let client = ShareClient { tenant: caller.tenant, connection: caller.connection };
        self.writer.shares().fetch(client, &source, version, request, max_bytes).await
    }

    async fn share_connection_lost(&self, tenant: TenantId, connection: u64) {
        self.writer.shares().connection_lost(ShareClient { tenant, connection });
    }

    async fn share_acknowledge(
        &self,
        caller: &Caller,
        version: i16,
        request: ShareAcknowledgeRequest,
    ) -> ShareAcknowledgeResponse {
        self.writer.shares().acknowledge(caller.tenant, version, request).await
    }

    async fn describe_share_group_offsets(
        &self,
        caller: &Caller,
        request: DescribeShareGroupOffsetsRequest,
    ) -> DescribeShareGroupOffsetsResponse {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(self.share_group_offsets(caller, group).await);
        }
        DescribeShareGroupOffsetsResponse { groups, ..Default::default() }
    }

    async fn alter_share_group_offsets(
        &self,
        caller: &Caller,
        request: AlterShareGroupOffsetsRequest,
    ) -> AlterShareGroupOffsetsResponse {
        let refuse = |code: ErrorCode, message: Option<Str>| AlterShareGroupOffsetsResponse {
            error_code: code.code(),
            error_message: message.or_else(|| Some(Str::from_static(code.message()))),
            ..Default::default()
        };
        let mut topics = BTreeMap::new();
        let mut starts = Vec::new();
        let responses: Vec<_> = request
            .topics
            .into_iter()
            .map(|topic| self.altered(caller, topic, &mut topics, &mut starts))
            .collect();
        let groups = self.writer.groups();
        let group = &request.group_id;
        let added = groups.add_share_group_topics(&group_caller(caller), group, &topics).await;
        if let Err((code, message)) = added {
            return refuse(code, message);
        }
        let set = self.writer.shares().set_starts(caller.tenant, group, &starts).await;
        if let Err(error) = set {
            return refuse(error.code(), None);
        }
        AlterShareGroupOffsetsResponse { responses, ..Default::default() }
    }

    async fn delete_share_group_offsets(
        &self,
        caller: &Caller,
        request: DeleteShareGroupOffsetsRequest,
    ) -> DeleteShareGroupOffsetsResponse {
        let refuse = |code: ErrorCode, message: Option<Str>| DeleteShareGroupOffsetsResponse {
            error_code: code.code(),
            error_message: message.or_else(|| Some(Str::from_static(code.message()))),
            ..Default::default()
        };
        let group = &request.group_id;
        let mut topics = Vec::new();
        let mut wanted = Vec::new();
        for topic in request.topics {
            let found = self.writer.catalog().topic_by_name(caller.tenant, &topic.topic_name);
            topics.extend(found.as_ref().map(|found| found.id));
            wanted.push((topic.topic_name, found.map(|found| found.id)));
        }
        let has_state: Vec<TopicId> = self
            .writer
            .shares()
            .standings(caller.tenant, group)
            .into_iter()
            .map(|standing| standing.stream.topic)
            .collect();
        let groups = self.writer.groups();
        let removed = groups.remove_share_group_topics(&group_caller(caller), group, &topics).await;
        let removed = match removed {
            Ok(removed) => removed,
            Err((code, message)) => return refuse(code, message),
        };
        let shares = self.writer.shares();
        let forgotten =
            shares.forget_streams(caller.tenant, group, |stream| topics.contains(&stream.topic));
        if let Err(error) = forgotten.await {
            return refuse(error.code(), None);
        }
        let responses = wanted.into_iter().map(|(topic_name, id)| {
            let code = match id {
                Some(id) if removed.contains(&id) || has_state.contains(&id) => ErrorCode::None,
                _ => ErrorCode::UnknownTopicOrPartition,
            };
            let error_message = match (code, id) {
                (ErrorCode::None, _) => None,
                (_, Some(_)) => Some(Str::from_static("There is no offset information to delete.")),
                (code, None) => Some(Str::from_static(code.message())),
            };
            // Kafka tells the id only of what it has deleted.
            let told = id.filter(|_| code.is_none());
            DeleteShareGroupOffsetsResponseTopic {
                topic_name,
                topic_id: told.map_or(Uuid::ZERO, |id| Uuid(id.0)),
                error_code: code.code(),
                error_message,
            }
        });
        DeleteShareGroupOffsetsResponse { responses: responses.collect(), ..Default::default() }
    }
}

impl LocalBackend {
    /// The answer for one topic whose offsets are to be set; what is to be set goes into `topics` and `starts`.
    fn altered(
        &self,
        caller: &Caller,
        topic: AlterShareGroupOffsetsRequestTopic,
        topics: &mut BTreeMap<TopicId, i32>,
        starts: &mut Vec<(StreamId, i64)>,
    ) -> AlterShareGroupOffsetsResponseTopic {
        let found = self.writer.catalog().topic_by_name(caller.tenant, &topic.topic_name);
        let unknown = ErrorCode::UnknownTopicOrPartition;
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = u32::try_from(partition.partition_index).ok();
            let stream = found.as_ref().zip(index).and_then(|(found, partition)| {
                let exists = (partition as usize) < found.partitions.len();
                exists.then_some(StreamId { topic: found.id, partition })
            });
            let error = stream.is_none().then_some(unknown);
            if let Some(stream) = stream {
                starts.push((stream, partition.start_offset));
            }
            partitions.push(AlterShareGroupOffsetsResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.map_or(0, ErrorCode::code),
                error_message: error.map(|code| Str::from_static(code.message())),
            });
        }
        if let Some(found) = &found {
            let count = i32::try_from(found.partitions.len()).unwrap_or(i32::MAX);
            topics.insert(found.id, count);
        }
        AlterShareGroupOffsetsResponseTopic {
            topic_name: topic.topic_name,
            topic_id: found.map_or(Uuid::ZERO, |found| Uuid(found.id.0)),
            partitions,
        }
    }
}
