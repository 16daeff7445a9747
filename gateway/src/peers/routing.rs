//! A backend over all nodes: what streams of this node are asked goes to this process, the rest to their owners.
//!
//! What groups and transactions are asked comes here only if their coordinators are here, or nowhere: see `forward`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use sluice_model::{NodeId, StreamId, TenantId};
use sluice_wire::messages::{
    alter_share_group_offsets_request::AlterShareGroupOffsetsRequest,
    alter_share_group_offsets_response::AlterShareGroupOffsetsResponse,
    consumer_group_describe_request::ConsumerGroupDescribeRequest,
    consumer_group_describe_response::ConsumerGroupDescribeResponse,
    consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest,
    consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse,
    delete_groups_request::DeleteGroupsRequest, delete_groups_response::DeleteGroupsResponse,
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest,
    delete_share_group_offsets_response::DeleteShareGroupOffsetsResponse,
    describe_groups_request::DescribeGroupsRequest,
    describe_groups_response::DescribeGroupsResponse,
    describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest,
    describe_share_group_offsets_response::DescribeShareGroupOffsetsResponse,
    heartbeat_request::HeartbeatRequest, heartbeat_response::HeartbeatResponse,
    init_producer_id_request::InitProducerIdRequest, join_group_request::JoinGroupRequest,
    join_group_response::JoinGroupResponse, leave_group_request::LeaveGroupRequest,
    leave_group_response::LeaveGroupResponse, list_groups_request::ListGroupsRequest,
    list_groups_response::ListGroupsResponse, list_transactions_request::ListTransactionsRequest,
    list_transactions_response::ListTransactionsResponse,
    offset_commit_request::OffsetCommitRequest, offset_commit_response::OffsetCommitResponse,
    offset_fetch_request::OffsetFetchRequest, offset_fetch_response::OffsetFetchResponse,
    share_acknowledge_request::ShareAcknowledgeRequest,
    share_acknowledge_response::ShareAcknowledgeResponse, share_fetch_request::ShareFetchRequest,
    share_fetch_response::ShareFetchResponse,
    share_group_describe_request::ShareGroupDescribeRequest,
    share_group_describe_response::ShareGroupDescribeResponse,
    share_group_heartbeat_request::ShareGroupHeartbeatRequest,
    share_group_heartbeat_response::ShareGroupHeartbeatResponse,
    streams_group_describe_response::DescribedGroup,
    streams_group_heartbeat_request::StreamsGroupHeartbeatRequest,
    sync_group_request::SyncGroupRequest, sync_group_response::SyncGroupResponse,
};
use sluice_wire::{ErrorCode, Str};
use tokio::time::Instant;

use super::Control;
use super::pool::{Manner, Owner, Peers, asker};
use crate::backend::{
    ActiveProducer, AddedBy, AppendRequest, Appended, Backend, Caller, ConsumerGroups,
    DeleteOffsets, EndMarker, OffsetFound, OffsetQuery, OffsetsInTransaction, Producer,
    ProducerIdentity, ReadAnswer, ReadRequest, Refused, ShareGroups, StreamsBeat, StreamsGroups,
    TransactionDescription, TransactionLog, Transactions,
};

/// How long an answer that makes a client look for the owner again is held back at most, while owners may change.
pub(super) const SETTLE: Duration = Duration::from_millis(250);

/// The backend of a gateway in a cluster.
pub struct Routing {
    /// This process.
    here: Arc<dyn Backend>,
    peers: Arc<Peers>,
}

impl Routing {
    /// `here` serves the streams of this process, and answers for all others that they are not here.
    pub fn new(here: Arc<dyn Backend>, peers: Arc<Peers>) -> Self {
        Self { here, peers }
    }

    /// The streams' places in the request, by the way that they go.
    fn ways(&self, streams: impl Iterator<Item = StreamId>) -> BTreeMap<Owner, Vec<usize>> {
        let mut ways: BTreeMap<Owner, Vec<usize>> = BTreeMap::new();
        for (at, stream) in streams.enumerate() {
            ways.entry(self.peers.owner_of(stream)).or_default().push(at);
        }
        ways
    }

    /// Another node for one stream, or none if this process answers.
    async fn elsewhere(&self, stream: StreamId) -> Result<Option<NodeId>, ErrorCode> {
        match self.peers.owner_of(stream) {
            Owner::Here => Ok(None),
            Owner::Node(node) => Ok(Some(node)),
            Owner::Nobody => {
                self.peers.changed(SETTLE).await;
                Err(ErrorCode::NotLeaderOrFollower)
            }
        }
    }

    async fn append_to(
        &self,
        way: Owner,
        caller: &Caller,
        request: &AppendRequest,
        picked: &[usize],
    ) -> Vec<Result<Appended, Refused>> {
        match way {
            Owner::Here => {
                let appends = picked.iter().filter_map(|at| request.appends.get(*at).cloned());
                let part = AppendRequest {
                    acks: request.acks,
                    timeout: request.timeout,
                    transactional_id: request.transactional_id.clone(),
                    not_added: request.not_added,
                    appends: appends.collect(),
                };
                self.here.append(caller, part).await
            }
            Owner::Node(node) => self.peers.append(node, caller, request, picked).await,
            Owner::Nobody => {
                vec![Err(no_owner("the partition has no owner at the moment")); picked.len()]
            }
        }
    }

    async fn read_from(
        &self,
        way: Owner,
        caller: &Caller,
        request: ReadRequest,
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        match way {
            Owner::Here => self.here.read(caller, request).await,
            Owner::Node(node) => self.peers.read(node, caller, &request).await,
            Owner::Nobody => vec![Err(ErrorCode::NotLeaderOrFollower); request.reads.len()],
        }
    }

    /// What goes one way of a read of several, under bounds of its own.
    async fn read_part(
        &self,
        (way, picked): (Owner, &[usize]),
        caller: &Caller,
        request: &ReadRequest,
        bounds: PartBounds,
    ) -> (Vec<usize>, Vec<Result<ReadAnswer, ErrorCode>>) {
        let reads = picked.iter().filter_map(|at| request.reads.get(*at).copied());
        let part = ReadRequest {
            min_bytes: bounds.min_bytes,
            max_wait: bounds.max_wait,
            max_bytes: bounds.max_bytes,
            read_committed: request.read_committed,
            reads: reads.collect(),
        };
        let answers = self.read_from(way, caller, part).await;
        (picked.to_vec(), answers)
    }
}

#[derive(Clone, Copy)]
struct PartBounds {
    min_bytes: u32,
    max_wait: Duration,
    max_bytes: u32,
}

/// Answers in the request's order, as far as they have come.
struct Gathered {
    answers: Vec<Result<ReadAnswer, ErrorCode>>,
    bytes: u64,
    /// Something must be told at once.
    is_urgent: bool,
}

impl Gathered {
    fn new(reads: usize) -> Self {
        let answers = vec![Err(ErrorCode::UnknownServerError); reads];
        Self { answers, bytes: 0, is_urgent: false }
    }

    fn put(&mut self, places: Vec<usize>, answers: Vec<Result<ReadAnswer, ErrorCode>>) {
        for (place, answer) in places.into_iter().zip(answers) {
            match &answer {
                Ok(read) => {
                    self.bytes += read.records.len() as u64;
                    self.is_urgent |= read.diverging.is_some();
                }
                Err(_) => self.is_urgent = true,
            }
            if let Some(slot) = self.answers.get_mut(place) {
                *slot = answer;
            }
        }
    }
}

/// What makes a client look for the owner again.
fn no_owner(why: &str) -> Refused {
    Refused {
        code: ErrorCode::NotLeaderOrFollower,
        message: Some(why.to_owned()),
        record_errors: Vec::new(),
        log_start: -1,
    }
}

fn is_moved(code: ErrorCode) -> bool {
    code == ErrorCode::NotLeaderOrFollower
}

#[async_trait]
impl Backend for Routing {
    async fn append(
        &self,
        caller: &Caller,
        request: AppendRequest,
    ) -> Vec<Result<Appended, Refused>> {
        if self.peers.sends_away() {
            return vec![Err(no_owner("this node is about to end")); request.appends.len()];
        }
        let ways = self.ways(request.appends.iter().map(|append| append.stream));
        if ways.len() == 1 && ways.contains_key(&Owner::Here) {
            return self.here.append(caller, request).await;
        }
        // Each is handed over when it is polled first, which is when this future is.
        let parts = ways.iter().map(|(way, picked)| self.append_to(*way, caller, &request, picked));
        let answered = join_all(parts).await;
        let mut answers: Vec<Option<Result<Appended, Refused>>> = vec![None; request.appends.len()];
        for (picked, part) in ways.values().zip(answered) {
            for (at, answer) in picked.iter().zip(part) {
                answers[*at] = Some(answer);
            }
        }
        if answers.iter().flatten().any(|a| matches!(a, Err(refused) if is_moved(refused.code))) {
            self.peers.changed(SETTLE).await;
        }
        let unanswered = || Refused {
            code: ErrorCode::UnknownServerError,
            message: None,
            record_errors: Vec::new(),
            log_start: -1,
        };
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered()))).collect()
    }

    async fn read(
        &self,
        caller: &Caller,
        request: ReadRequest,
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        if self.peers.sends_away() {
            return vec![Err(ErrorCode::NotLeaderOrFollower); request.reads.len()];
        }
        let ways = self.ways(request.reads.iter().map(|read| read.stream));
        if ways.len() == 1
            && let Some(way) = ways.keys().next()
        {
            let answers = self.read_from(*way, caller, request).await;
            let gives = |a: &Result<ReadAnswer, _>| a.as_ref().is_ok_and(|a| !a.records.is_empty());
            let moved = |a: &Result<_, ErrorCode>| a.as_ref().is_err_and(|code| is_moved(*code));
            if answers.iter().any(moved) && !answers.iter().any(gives) {
                self.peers.changed(SETTLE).await;
            }
            return answers;
        }
        let begun = Instant::now();
        let parts = u32::try_from(ways.len()).unwrap_or(u32::MAX);
        let max_bytes = (request.max_bytes / parts).max(1);
        let mut gathered = Gathered::new(request.reads.len());
        // First what is there already, from all: so nobody's records wait behind those of who is quicker.
        let at_once = PartBounds { min_bytes: 0, max_wait: Duration::ZERO, max_bytes };
        let looks = ways.iter().map(|(way, picked)| {
            self.read_part((*way, picked.as_slice()), caller, &request, at_once)
        });
        for (places, answers) in join_all(looks).await {
            gathered.put(places, answers);
        }
        if gathered.bytes >= u64::from(request.min_bytes) {
            return gathered.answers;
        }
        if gathered.is_urgent {
            if gathered.bytes == 0 {
                self.peers.changed(SETTLE.min(request.max_wait)).await;
            }
            return gathered.answers;
        }
        // Then for whoever has something first; the others forget that they were asked.
        let missing =
            request.min_bytes.saturating_sub(u32::try_from(gathered.bytes).unwrap_or(u32::MAX));
        let wait = PartBounds {
            min_bytes: (missing / parts).max(1),
            max_wait: request.max_wait.saturating_sub(begun.elapsed()),
            max_bytes,
        };
        if wait.max_wait.is_zero() || gathered.bytes > 0 {
            // What was found is given now: it would have to be read again after a wait.
            return gathered.answers;
        }
        let mut waits: FuturesUnordered<_> = ways
            .iter()
            .map(|(way, picked)| self.read_part((*way, picked.as_slice()), caller, &request, wait))
            .collect();
        while let Some((places, answers)) = waits.next().await {
            gathered.put(places, answers);
            if gathered.bytes > 0 || gathered.is_urgent {
                break;
            }
        }
        gathered.answers
    }

    async fn find_offset(
        &self,
        caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        read_committed: bool,
        query: OffsetQuery,
    ) -> Result<OffsetFound, ErrorCode> {
        let epoch = current_leader_epoch;
        match self.elsewhere(stream).await? {
            Some(node) => {
                self.peers.find_offset(node, caller, stream, epoch, read_committed, query).await
            }
            None => self.here.find_offset(caller, stream, epoch, read_committed, query).await,
        }
    }

    async fn epoch_end(
        &self,
        caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        epoch: i32,
    ) -> Result<(i32, i64), ErrorCode> {
        match self.elsewhere(stream).await? {
            Some(node) => {
                self.peers.epoch_end(node, caller, stream, current_leader_epoch, epoch).await
            }
            None => self.here.epoch_end(caller, stream, current_leader_epoch, epoch).await,
        }
    }

    async fn delete_records(
        &self,
        caller: &Caller,
        stream: StreamId,
        offset: i64,
    ) -> Result<i64, ErrorCode> {
        match self.elsewhere(stream).await? {
            Some(node) => self.peers.delete_records(node, caller, stream, offset).await,
            None => self.here.delete_records(caller, stream, offset).await,
        }
    }

    fn leader_epoch(&self, stream: StreamId) -> i32 {
        match self.peers.owner_of(stream) {
            Owner::Here => self.here.leader_epoch(stream),
            Owner::Node(_) | Owner::Nobody => self.peers.leader_epoch(stream),
        }
    }

    async fn stored_bytes(&self, caller: &Caller, streams: &[StreamId]) -> Vec<u64> {
        let ways = self.ways(streams.iter().copied());
        let parts = ways.iter().map(|(way, picked)| async move {
            let part: Vec<_> = picked.iter().filter_map(|at| streams.get(*at).copied()).collect();
            match way {
                Owner::Here => self.here.stored_bytes(caller, &part).await,
                Owner::Node(node) => self.peers.stored_bytes(*node, caller, &part).await,
                Owner::Nobody => vec![0; part.len()],
            }
        });
        let mut sizes = vec![0; streams.len()];
        for (picked, part) in ways.values().zip(join_all(parts).await) {
            for (at, size) in picked.iter().zip(part) {
                sizes[*at] = size;
            }
        }
        sizes
    }

    async fn join_group(
        &self,
        caller: &Caller,
        version: i16,
        request: JoinGroupRequest,
    ) -> JoinGroupResponse {
        self.here.join_group(caller, version, request).await
    }

    async fn sync_group(&self, caller: &Caller, request: SyncGroupRequest) -> SyncGroupResponse {
        self.here.sync_group(caller, request).await
    }

    async fn heartbeat(&self, caller: &Caller, request: HeartbeatRequest) -> HeartbeatResponse {
        self.here.heartbeat(caller, request).await
    }

    async fn leave_group(
        &self,
        caller: &Caller,
        version: i16,
        request: LeaveGroupRequest,
    ) -> LeaveGroupResponse {
        self.here.leave_group(caller, version, request).await
    }

    async fn offset_commit(
        &self,
        caller: &Caller,
        version: i16,
        request: OffsetCommitRequest,
    ) -> OffsetCommitResponse {
        self.here.offset_commit(caller, version, request).await
    }

    async fn offset_fetch(
        &self,
        caller: &Caller,
        request: OffsetFetchRequest,
    ) -> OffsetFetchResponse {
        self.here.offset_fetch(caller, request).await
    }

    async fn offset_delete(
        &self,
        caller: &Caller,
        request: DeleteOffsets,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.here.offset_delete(caller, request).await
    }

    async fn describe_groups(
        &self,
        caller: &Caller,
        version: i16,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse {
        self.here.describe_groups(caller, version, request).await
    }

    async fn list_groups(&self, caller: &Caller, request: ListGroupsRequest) -> ListGroupsResponse {
        self.here.list_groups(caller, request).await
    }

    async fn delete_groups(
        &self,
        caller: &Caller,
        request: DeleteGroupsRequest,
    ) -> DeleteGroupsResponse {
        self.here.delete_groups(caller, request).await
    }
}

#[async_trait]
impl ConsumerGroups for Routing {
    async fn consumer_group_heartbeat(
        &self,
        caller: &Caller,
        version: i16,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        self.here.consumer_group_heartbeat(caller, version, request).await
    }

    async fn consumer_group_describe(
        &self,
        caller: &Caller,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        self.here.consumer_group_describe(caller, request).await
    }
}

#[async_trait]
impl ShareGroups for Routing {
    async fn share_group_heartbeat(
        &self,
        caller: &Caller,
        request: ShareGroupHeartbeatRequest,
    ) -> ShareGroupHeartbeatResponse {
        self.here.share_group_heartbeat(caller, request).await
    }

    async fn share_group_describe(
        &self,
        caller: &Caller,
        request: ShareGroupDescribeRequest,
    ) -> ShareGroupDescribeResponse {
        self.here.share_group_describe(caller, request).await
    }

    async fn share_fetch(
        &self,
        caller: &Caller,
        version: i16,
        request: ShareFetchRequest,
        max_bytes: u32,
    ) -> ShareFetchResponse {
        self.here.share_fetch(caller, version, request, max_bytes).await
    }

    async fn share_connection_lost(&self, tenant: TenantId, connection: u64) {
        self.here.share_connection_lost(tenant, connection).await;
        let Some(node) = self.peers.coordinator_elsewhere() else { return };
        let caller = Caller { connection, ..Peers::own_caller(tenant) };
        if let Some(link) = self.peers.link(node, connection) {
            let manner = Manner { client_version: 0, names_are_ids: false };
            link.tell(Control::ConnectionLost, asker(&caller, 0, manner));
        }
    }

    async fn share_acknowledge(
        &self,
        caller: &Caller,
        version: i16,
        request: ShareAcknowledgeRequest,
    ) -> ShareAcknowledgeResponse {
        self.here.share_acknowledge(caller, version, request).await
    }

    async fn describe_share_group_offsets(
        &self,
        caller: &Caller,
        request: DescribeShareGroupOffsetsRequest,
    ) -> DescribeShareGroupOffsetsResponse {
        self.here.describe_share_group_offsets(caller, request).await
    }

    async fn alter_share_group_offsets(
        &self,
        caller: &Caller,
        request: AlterShareGroupOffsetsRequest,
    ) -> AlterShareGroupOffsetsResponse {
        self.here.alter_share_group_offsets(caller, request).await
    }

    async fn delete_share_group_offsets(
        &self,
        caller: &Caller,
        request: DeleteShareGroupOffsetsRequest,
    ) -> DeleteShareGroupOffsetsResponse {
        self.here.delete_share_group_offsets(caller, request).await
    }
}

#[async_trait]
impl StreamsGroups for Routing {
    async fn streams_group_heartbeat(
        &self,
        caller: &Caller,
        request: StreamsGroupHeartbeatRequest,
    ) -> StreamsBeat {
        self.here.streams_group_heartbeat(caller, request).await
    }

    async fn streams_group_describe(
        &self,
        caller: &Caller,
        group_ids: Vec<Str>,
    ) -> Vec<DescribedGroup> {
        self.here.streams_group_describe(caller, group_ids).await
    }
}

#[async_trait]
impl TransactionLog for Routing {
    async fn active_producers(
        &self,
        caller: &Caller,
        stream: StreamId,
    ) -> Result<Vec<ActiveProducer>, ErrorCode> {
        match self.elsewhere(stream).await? {
            Some(node) => self.peers.active_producers(node, caller, stream).await,
            None => self.here.active_producers(caller, stream).await,
        }
    }

    async fn end_in_stream(&self, stream: StreamId, marker: EndMarker) -> Result<(), ErrorCode> {
        self.here.end_in_stream(stream, marker).await
    }

    async fn commit_in_transaction(
        &self,
        caller: &Caller,
        commit: OffsetsInTransaction,
    ) -> Result<Vec<ErrorCode>, ErrorCode> {
        self.here.commit_in_transaction(caller, commit).await
    }
}

#[async_trait]
impl Transactions for Routing {
    async fn init_producer_id(
        &self,
        caller: &Caller,
        request: InitProducerIdRequest,
    ) -> Result<ProducerIdentity, ErrorCode> {
        self.here.init_producer_id(caller, request).await
    }

    async fn add_streams(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
        by: AddedBy,
    ) -> Result<(), ErrorCode> {
        self.here.add_streams(caller, producer, streams, by).await
    }

    async fn not_added(
        &self,
        caller: &Caller,
        producer: &Producer,
        streams: BTreeSet<StreamId>,
    ) -> Result<BTreeSet<StreamId>, ErrorCode> {
        self.here.not_added(caller, producer, streams).await
    }

    async fn add_group(
        &self,
        caller: &Caller,
        producer: &Producer,
        group_id: Str,
    ) -> Result<(), ErrorCode> {
        self.here.add_group(caller, producer, group_id).await
    }

    async fn end_transaction(
        &self,
        caller: &Caller,
        producer: &Producer,
        commit: bool,
        bumps_epoch: bool,
    ) -> Result<Option<ProducerIdentity>, ErrorCode> {
        self.here.end_transaction(caller, producer, commit, bumps_epoch).await
    }

    async fn describe_transaction(
        &self,
        caller: &Caller,
        transactional_id: &Str,
    ) -> Result<TransactionDescription, ErrorCode> {
        self.here.describe_transaction(caller, transactional_id).await
    }

    async fn list_transactions(
        &self,
        caller: &Caller,
        request: ListTransactionsRequest,
    ) -> ListTransactionsResponse {
        self.here.list_transactions(caller, request).await
    }
}
