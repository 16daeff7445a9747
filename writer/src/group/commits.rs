//! OffsetCommit, OffsetFetch, OffsetDelete. Topics are known by id; the names beside the ids come
//! back as they were sent.

use std::sync::Arc;

use sluice_model::TopicId;
use sluice_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition,
};
use sluice_wire::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use sluice_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use sluice_wire::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
};
use sluice_wire::{ErrorCode, Str, Uuid};
use tokio::sync::oneshot;

use super::cell::{Cell, CellState};
use super::journal::{Done, Write};
use super::kind::Commit;
use super::log::{LogError, LogRecord};
use super::offsets::Offsets;
use super::record::Key;
use super::record::offset::Committed;
use super::{GroupCaller, GroupCoordinator};

/// What an offset's record takes beside group id and metadata.
pub(super) const RECORD_BYTES: usize = 64;

/// Resolves when the queued records are durable, or have failed.
pub(super) type Durable = oneshot::Receiver<Result<(), LogError>>;

impl GroupCoordinator {
    /// OffsetCommit, versions 2 to 10, by topic id. Answers when the offsets are durable.
    pub async fn offset_commit(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        let timeout = self.shared.config.commit_timeout;
        let commit = self.commit(caller, version, &request);
        let result = match tokio::time::timeout(timeout, commit).await {
            Ok(result) => result,
            Err(_) => Err(LogError::Unavailable.code()),
        };
        let codes = result.unwrap_or_else(|code| {
            request.topics.iter().map(|topic| vec![code; topic.partitions.len()]).collect()
        });
        let topics = request.topics.into_iter().zip(codes).map(|(topic, codes)| {
            let partitions = topic.partitions.iter().zip(codes);
            OffsetCommitResponseTopic {
                name: topic.name,
                topic_id: topic.topic_id,
                partitions: partitions
                    .map(|(partition, code)| OffsetCommitResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: code.code(),
                    })
                    .collect(),
            }
        });
        OffsetCommitResponse { topics: topics.collect(), ..Default::default() }
    }

    /// One code for each partition, or one for all.
    async fn commit(
        &self,
        caller: &GroupCaller,
        version: i16,
        request: &OffsetCommitRequest,
    ) -> Result<Vec<Vec<ErrorCode>>, ErrorCode> {
        let shared = &self.shared;
        shared.check_active()?;
        if request.group_id.len() > shared.config.max_group_id_bytes {
            return Err(ErrorCode::InvalidGroupId);
        }
        // Room is taken before the group decides, so that nothing waits between its decision and
        // its place in the log.
        let journal = shared.journal().map_err(LogError::code)?;
        let mut room = Some(journal.room(size_of_commit(request)).await.map_err(LogError::code)?);
        let group_id = &request.group_id;
        let mut decide = |cell: &Arc<Cell>, state: &mut CellState| {
            self.commit_to(cell, state, version, request, room.take())
        };
        let decided = if request.generation_id_or_member_epoch < 0 {
            // A consumer that assigns its own partitions: the group need not exist.
            let limit = shared.config.max_groups_per_tenant;
            shared
                .with_group_or_new(caller.tenant, group_id, limit, &mut decide)
                .unwrap_or(Err(ErrorCode::PolicyViolation))?
        } else {
            shared.with_group(caller.tenant, group_id, &mut decide).unwrap_or_else(|| {
                // Clients from before version 9 know the first and not the second.
                Err(if version < 9 {
                    ErrorCode::IllegalGeneration
                } else {
                    ErrorCode::GroupIdNotFound
                })
            })?
        };
        let (codes, durable) = decided;
        if let Some(durable) = durable {
            wait(durable).await.map_err(LogError::code)?;
        }
        Ok(codes)
    }

    fn commit_to(
        &self,
        cell: &Arc<Cell>,
        state: &mut CellState,
        version: i16,
        request: &OffsetCommitRequest,
        room: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<(Vec<Vec<ErrorCode>>, Option<Durable>), ErrorCode> {
        let shared = &self.shared;
        let member_id = &*request.member_id;
        let instance = request.group_instance_id.as_deref();
        let generation = request.generation_id_or_member_epoch;
        let mut partitions = request.topics.iter().flat_map(|topic| {
            let id = TopicId(topic.topic_id.0);
            topic.partitions.iter().map(move |partition| (id, partition.partition_index))
        });
        state.check_settled()?;
        state.kind.check_commit(&mut Commit {
            member_id,
            instance,
            epoch: generation,
            version: Some(version),
            partitions: &mut partitions,
        })?;
        shared.drive(cell, state, |group, cx| group.committed(cx, member_id));

        let now_ms = shared.clock.wall_ms();
        let expires_ms = match request.retention_time_ms {
            retention_ms if retention_ms < 0 => -1,
            retention_ms => now_ms.saturating_add(retention_ms),
        };
        let mut records = Vec::new();
        let mut added = 0;
        let mut codes = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let id = TopicId(topic.topic_id.0);
            let mut topic_codes = Vec::with_capacity(topic.partitions.len());
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let is_new = state.offsets.get(id, index).is_none();
                let total = state.offsets.len() + added + usize::from(is_new);
                let code = if self.is_metadata_too_large(metadata_of(partition)) {
                    ErrorCode::OffsetMetadataTooLarge
                } else if is_new && total > shared.config.max_offsets_per_group {
                    ErrorCode::InvalidCommitOffsetSize
                } else {
                    added += usize::from(is_new);
                    let key = Key::Offset {
                        tenant: cell.tenant(),
                        group: cell.id(),
                        topic: id,
                        partition: index,
                    };
                    let value = committed(partition, now_ms, expires_ms).encode();
                    records.push(LogRecord { key: key.encode(), value: Some(value) });
                    ErrorCode::None
                };
                topic_codes.push(code);
            }
            codes.push(topic_codes);
        }
        if records.is_empty() {
            return Ok((codes, None));
        }
        let (done, durable) = oneshot::channel();
        let write = Write { cell: Some(Arc::clone(cell)), records, done: Done::Caller(done), room };
        shared.queue(state, write).map_err(|(_, error)| error.code())?;
        Ok((codes, Some(durable)))
    }

    pub(super) fn is_metadata_too_large(&self, metadata: &str) -> bool {
        let max = self.shared.config.max_offset_metadata;
        metadata.len() > max && metadata.encode_utf16().count() > max
    }

    /// OffsetFetch in the form of versions 8 to 10: several groups, by topic id. Null topics ask for
    /// all; their names are left for the caller to fill in.
    pub async fn offset_fetch(
        &self,
        caller: &GroupCaller,
        request: OffsetFetchRequest,
    ) -> OffsetFetchResponse {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let result = self.await_stable(caller, &group, request.require_stable).await;
            groups.push(match result {
                Ok(()) => self.fetch(caller, group, request.require_stable),
                Err(code) => refused_fetch(group.group_id, code),
            });
        }
        OffsetFetchResponse { groups, ..Default::default() }
    }

    /// With `require_stable` the answer must hold the commits that were under way (KIP-447).
    async fn await_stable(
        &self,
        caller: &GroupCaller,
        group: &OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> Result<(), ErrorCode> {
        let shared = &self.shared;
        shared.check_active()?;
        if !require_stable {
            return Ok(());
        }
        let under_way = shared.with_group(caller.tenant, &group.group_id, |_, state| {
            if state.pending == 0 {
                return None;
            }
            let (done, durable) = oneshot::channel();
            let barrier =
                Write { cell: None, records: Vec::new(), done: Done::Caller(done), room: None };
            Some(shared.queue(state, barrier).map(|()| durable).map_err(|(_, error)| error))
        });
        let Some(Some(barrier)) = under_way else { return Ok(()) };
        let timeout = shared.config.commit_timeout;
        let stable = async { wait(barrier?).await };
        match tokio::time::timeout(timeout, stable).await {
            Ok(Ok(())) => Ok(()),
            // Consumers before 3.9 do not expect COORDINATOR_NOT_AVAILABLE here.
            Ok(Err(_)) | Err(_) => Err(ErrorCode::NotCoordinator),
        }
    }

    fn fetch(
        &self,
        caller: &GroupCaller,
        group: OffsetFetchRequestGroup,
        require_stable: bool,
    ) -> OffsetFetchResponseGroup {
        let wanted = group.topics.as_deref();
        let found = self.shared.with_group(caller.tenant, &group.group_id, |_, state| {
            state.check_settled()?;
            state.kind.check_fetch(group.member_id.as_deref(), group.member_epoch)?;
            let found = Found { offsets: &state.offsets, require_stable };
            Ok(wanted.map_or_else(|| found.all(), |wanted| found.of(wanted)))
        });
        // A group that does not exist has no offsets.
        let nothing = Offsets::default();
        let absent =
            || Ok(Found { offsets: &nothing, require_stable }.of(wanted.unwrap_or_default()));
        match found.unwrap_or_else(absent) {
            Ok(topics) => {
                OffsetFetchResponseGroup { group_id: group.group_id, topics, ..Default::default() }
            }
            Err(code) => refused_fetch(group.group_id, code),
        }
    }

    /// OffsetDelete: the group's code, or one for each (topic id, partition) in the same order.
    /// Answers when the deletion is durable.
    pub async fn offset_delete(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
        partitions: &[(TopicId, i32)],
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        let shared = &self.shared;
        self.check(group_id)?;
        let journal = shared.journal().map_err(LogError::code)?;
        let bytes = partitions.len() * (RECORD_BYTES + group_id.len());
        let room = journal.room(bytes).await.map_err(LogError::code)?;
        let tenant = caller.tenant;
        // Names are looked up before the group is locked.
        let names: Vec<Option<Str>> =
            partitions.iter().map(|(topic, _)| shared.topics.name(tenant, *topic)).collect();
        let decided = shared.with_group(tenant, group_id, |cell, state| {
            state.kind.check_offset_delete()?;
            let mut records = Vec::new();
            let mut codes = Vec::with_capacity(partitions.len());
            for ((topic, partition), name) in partitions.iter().zip(&names) {
                if name.as_deref().is_some_and(|name| state.kind.is_subscribed(name)) {
                    codes.push(ErrorCode::GroupSubscribedToTopic);
                    continue;
                }
                codes.push(ErrorCode::None);
                let waits = state.pending > 0 || state.offsets.pending().holds(*topic, *partition);
                if waits || state.offsets.get(*topic, *partition).is_some() {
                    let (topic, partition) = (*topic, *partition);
                    let key = Key::Offset { tenant, group: group_id, topic, partition };
                    records.push(LogRecord { key: key.encode(), value: None });
                }
            }
            if records.is_empty() {
                return Ok((codes, None));
            }
            let (done, durable) = oneshot::channel();
            let write = Write {
                cell: Some(Arc::clone(cell)),
                records,
                done: Done::Caller(done),
                room: Some(room),
            };
            shared.queue(state, write).map_err(|(_, error)| error.code())?;
            Ok((codes, Some(durable)))
        });
        let (codes, durable) = decided.unwrap_or(Err(ErrorCode::GroupIdNotFound))?;
        if let Some(durable) = durable {
            wait(durable).await.map_err(LogError::code)?;
        }
        Ok(codes)
    }
}

/// Waits for a queued write.
pub(super) async fn wait(durable: Durable) -> Result<(), LogError> {
    durable.await.unwrap_or(Err(LogError::Unavailable))
}

fn committed(
    partition: &OffsetCommitRequestPartition,
    committed_ms: i64,
    expires_ms: i64,
) -> Committed {
    Committed {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        committed_ms,
        expires_ms,
        metadata: Box::from(metadata_of(partition)),
    }
}

fn metadata_of(partition: &OffsetCommitRequestPartition) -> &str {
    partition.committed_metadata.as_deref().unwrap_or("")
}

/// About the bytes that the records of a commit take.
fn size_of_commit(request: &OffsetCommitRequest) -> usize {
    let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|partition| {
            let metadata = partition.committed_metadata.as_ref().map_or(0, |text| text.len());
            RECORD_BYTES + request.group_id.len() + metadata
        })
        .sum()
}

fn refused_fetch(group_id: Str, code: ErrorCode) -> OffsetFetchResponseGroup {
    OffsetFetchResponseGroup { group_id, error_code: code.code(), ..Default::default() }
}

/// Where an answer comes from.
struct Found<'a> {
    offsets: &'a Offsets,
    /// Where an offset waits for a transaction, that is said instead (KIP-447).
    require_stable: bool,
}

impl Found<'_> {
    fn of(&self, wanted: &[OffsetFetchRequestTopics]) -> Vec<OffsetFetchResponseTopics> {
        wanted
            .iter()
            .map(|topic| {
                let partitions = topic.partition_indexes.iter();
                OffsetFetchResponseTopics {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    partitions: partitions
                        .map(|index| self.answer(TopicId(topic.topic_id.0), *index))
                        .collect(),
                }
            })
            .collect()
    }

    fn all(&self) -> Vec<OffsetFetchResponseTopics> {
        let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
        for (topic, partition, _) in self.offsets.iter() {
            let topic_id = Uuid(topic.0);
            let found = self.answer(topic, partition);
            match topics.last_mut().filter(|last| last.topic_id == topic_id) {
                Some(last) => last.partitions.push(found),
                None => topics.push(OffsetFetchResponseTopics {
                    topic_id,
                    partitions: vec![found],
                    ..Default::default()
                }),
            }
        }
        topics
    }

    /// An offset that was never committed is -1 with empty metadata, and no error.
    fn answer(&self, topic: TopicId, partition_index: i32) -> OffsetFetchResponsePartitions {
        let waits = self.require_stable && self.offsets.pending().holds(topic, partition_index);
        let held = self.offsets.get(topic, partition_index).filter(|_| !waits);
        let code = if waits { ErrorCode::UnstableOffsetCommit } else { ErrorCode::None };
        OffsetFetchResponsePartitions {
            partition_index,
            committed_offset: held.map_or(-1, |held| held.offset),
            committed_leader_epoch: held.map_or(-1, |held| held.leader_epoch),
            metadata: Some(held.map_or_else(Str::default, |held| Str::from(&*held.metadata))),
            error_code: code.code(),
        }
    }
}
