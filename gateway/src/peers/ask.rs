//! The backend's calls as Kafka's messages by topic id: what one node asks the owner of streams.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_model::{NodeId, StreamId};
use sluice_wire::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use sluice_wire::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use sluice_wire::messages::describe_log_dirs_request::{
    DescribableLogDirTopic, DescribeLogDirsRequest,
};
use sluice_wire::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use sluice_wire::messages::fetch_response::PartitionData;
use sluice_wire::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use sluice_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use sluice_wire::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use sluice_wire::messages::produce_response::PartitionProduceResponse;
use sluice_wire::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use sluice_wire::{ErrorCode, Request, Str, Uuid};

use super::link::{Asked, LinkError, Question, decode};
use super::pool::{Manner, Peers, asker};
use crate::backend::{
    ActiveProducer, AppendRequest, Appended, Caller, EndMarker, NotAdded, OffsetFound, OffsetQuery,
    Producer, Read, ReadAnswer, ReadRequest, Refused,
};

/// How long an answer may take that waits for nothing but a disk or the bucket.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Produce names topics by id from this version on, Fetch from the same.
const IDS_FROM: i16 = 13;
/// AddPartitionsToTxn has several transactions, and verifies, from this version on.
const BATCHES_FROM: i16 = 4;

/// Topics by their ids in the place of their names.
const BY_ID: Manner = Manner { client_version: i16::MAX, names_are_ids: true };

/// A stream's topic where a message has only a name for it.
fn name(stream: StreamId) -> Str {
    Str::from(stream.topic.to_string())
}

fn index(stream: StreamId) -> i32 {
    stream.partition.cast_signed()
}

fn code(code: i16) -> Result<(), ErrorCode> {
    match ErrorCode::from_code(code) {
        ErrorCode::None => Ok(()),
        other => Err(other),
    }
}

/// The code for an answer that did not come: the client looks for the owner again.
pub(super) fn not_answered(error: LinkError) -> ErrorCode {
    match error {
        LinkError::Unreachable | LinkError::Lost => ErrorCode::NotLeaderOrFollower,
        LinkError::Unsupported | LinkError::Refused | LinkError::Unencodable => {
            ErrorCode::UnknownServerError
        }
    }
}

/// A request on its way.
struct Sent<R: Request> {
    version: i16,
    asked: Asked,
    started: tokio::time::Instant,
    of: std::marker::PhantomData<fn() -> R>,
}

impl Peers {
    /// Hands a request over to a node's link: those of earlier calls for the same client are sent before it.
    fn send<R: Request>(
        &self,
        node: NodeId,
        caller: &Caller,
        manner: Manner,
        least_version: i16,
        request: &R,
    ) -> Result<Sent<R>, LinkError> {
        let link = self.link(node, caller.connection).ok_or(LinkError::Unreachable)?;
        let version = link.version(R::KEY, *R::VERSIONS.end());
        if version < least_version {
            return Err(LinkError::Unsupported);
        }
        let question = Question {
            api: R::KEY,
            version,
            client_id: caller.client_id.clone(),
            asker: asker(caller, 0, manner),
        };
        let asked = link.ask(question, |encoder| request.encode(encoder, version))?;
        let started = tokio::time::Instant::now();
        Ok(Sent { version, asked, started, of: std::marker::PhantomData })
    }

    /// Waits for its answer.
    async fn answered<R: Request>(
        &self,
        sent: Sent<R>,
        limit: Duration,
    ) -> Result<R::Response, LinkError> {
        let answer = tokio::time::timeout(limit, sent.asked.answer()).await;
        let answer = answer.unwrap_or(Err(LinkError::Lost))?;
        self.metrics().latency.observe(sent.started.elapsed().as_secs_f64());
        decode(R::KEY, sent.version, answer).ok_or(LinkError::Unsupported)
    }

    async fn ask<R: Request>(
        &self,
        node: NodeId,
        caller: &Caller,
        request: &R,
    ) -> Result<R::Response, ErrorCode> {
        let sent = self.send(node, caller, BY_ID, 0, request).map_err(not_answered)?;
        self.answered(sent, ANSWER_WITHIN).await.map_err(not_answered)
    }

    /// Appends what `picked` names of the request's appends, in their order, to streams of `node`. Handed over before
    /// the first time that it is pending.
    pub(super) async fn append(
        &self,
        node: NodeId,
        caller: &Caller,
        request: &AppendRequest,
        picked: &[usize],
    ) -> Vec<Result<Appended, Refused>> {
        let all = |error: LinkError| {
            let code = match error {
                // It may have been written.
                LinkError::Lost => ErrorCode::RequestTimedOut,
                other => not_answered(other),
            };
            let refused = Refused {
                code,
                message: Some("the partition's owner did not answer".to_owned()),
                record_errors: Vec::new(),
                log_start: -1,
            };
            vec![Err(refused); picked.len()]
        };
        let mut topics: Vec<TopicProduceData> = Vec::new();
        for append in picked.iter().filter_map(|at| request.appends.get(*at)) {
            let id = Uuid(append.stream.topic.0);
            let records = Some(append.records.clone().into());
            let data = PartitionProduceData { index: index(append.stream), records };
            match topics.last_mut().filter(|last| last.topic_id == id) {
                Some(last) => last.partition_data.push(data),
                None => topics.push(TopicProduceData {
                    topic_id: id,
                    partition_data: vec![data],
                    ..Default::default()
                }),
            }
        }
        let produce = ProduceRequest {
            transactional_id: request.transactional_id.clone(),
            // There is always an answer between nodes.
            acks: -1,
            timeout_ms: i32::try_from(request.timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: topics,
        };
        let manner = Manner {
            client_version: match request.not_added {
                NotAdded::Adds => 12,
                NotAdded::Abortable => 11,
                NotAdded::Invalid => 10,
            },
            names_are_ids: false,
        };
        let sent = match self.send(node, caller, manner, IDS_FROM, &produce) {
            Ok(sent) => sent,
            Err(error) => return all(error),
        };
        let answer = match self.answered(sent, request.timeout.saturating_add(ANSWER_WITHIN)).await
        {
            Ok(answer) => answer,
            Err(error) => return all(error),
        };
        let answers = answer.responses.into_iter().flat_map(|topic| topic.partition_responses);
        let answers: Vec<_> = answers.map(appended).collect();
        if answers.len() == picked.len() { answers } else { all(LinkError::Refused) }
    }

    /// Reads what `reads` names from streams of `node`; the bounds are those of `request`.
    pub(super) async fn read(
        &self,
        node: NodeId,
        caller: &Caller,
        request: &ReadRequest,
    ) -> Vec<Result<ReadAnswer, ErrorCode>> {
        let all = |error: LinkError| vec![Err(not_answered(error)); request.reads.len()];
        if self.link(node, caller.connection).is_some_and(|link| link.is_stalled()) {
            return all(LinkError::Unreachable);
        }
        let mut topics: Vec<FetchTopic> = Vec::new();
        for read in &request.reads {
            let id = Uuid(read.stream.topic.0);
            let partition = asked_partition(read);
            match topics.last_mut().filter(|last| last.topic_id == id) {
                Some(last) => last.partitions.push(partition),
                None => topics.push(FetchTopic {
                    topic_id: id,
                    partitions: vec![partition],
                    ..Default::default()
                }),
            }
        }
        let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let fetch = FetchRequest {
            max_wait_ms: i32::try_from(request.max_wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: signed(request.min_bytes),
            max_bytes: signed(request.max_bytes),
            isolation_level: i8::from(request.read_committed),
            topics,
            ..Default::default()
        };
        let manner = Manner { client_version: i16::MAX, names_are_ids: false };
        let sent = match self.send(node, caller, manner, IDS_FROM, &fetch) {
            Ok(sent) => sent,
            Err(error) => return all(error),
        };
        let limit = request.max_wait.saturating_add(ANSWER_WITHIN);
        let answer = match self.answered(sent, limit).await {
            Ok(answer) => answer,
            Err(error) => return all(error),
        };
        let found = answer.responses.into_iter().flat_map(|topic| topic.partitions);
        let found: Vec<_> = found.map(read_answer).collect();
        if found.len() == request.reads.len() { found } else { all(LinkError::Refused) }
    }

    pub(super) async fn find_offset(
        &self,
        node: NodeId,
        caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        read_committed: bool,
        query: OffsetQuery,
    ) -> Result<OffsetFound, ErrorCode> {
        let timestamp = match query {
            OffsetQuery::Latest => -1,
            OffsetQuery::Earliest => -2,
            OffsetQuery::MaxTimestamp => -3,
            OffsetQuery::EarliestLocal => -4,
            OffsetQuery::LatestTiered => -5,
            OffsetQuery::AtOrAfter(timestamp) => timestamp,
        };
        let partition = ListOffsetsPartition {
            partition_index: index(stream),
            current_leader_epoch: current_leader_epoch.unwrap_or(-1),
            timestamp,
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            isolation_level: i8::from(read_committed),
            topics: vec![ListOffsetsTopic { name: name(stream), partitions: vec![partition] }],
            ..Default::default()
        };
        let answer = self.ask(node, caller, &request).await?;
        let mut found = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let found = found.next().ok_or(ErrorCode::UnknownServerError)?;
        code(found.error_code)?;
        Ok(OffsetFound {
            offset: found.offset,
            timestamp: found.timestamp,
            leader_epoch: found.leader_epoch,
        })
    }

    pub(super) async fn epoch_end(
        &self,
        node: NodeId,
        caller: &Caller,
        stream: StreamId,
        current_leader_epoch: Option<i32>,
        epoch: i32,
    ) -> Result<(i32, i64), ErrorCode> {
        let partition = OffsetForLeaderPartition {
            partition: index(stream),
            current_leader_epoch: current_leader_epoch.unwrap_or(-1),
            leader_epoch: epoch,
        };
        let request = OffsetForLeaderEpochRequest {
            topics: vec![OffsetForLeaderTopic { topic: name(stream), partitions: vec![partition] }],
            ..Default::default()
        };
        let answer = self.ask(node, caller, &request).await?;
        let mut found = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let found = found.next().ok_or(ErrorCode::UnknownServerError)?;
        code(found.error_code)?;
        Ok((found.leader_epoch, found.end_offset))
    }

    pub(super) async fn delete_records(
        &self,
        node: NodeId,
        caller: &Caller,
        stream: StreamId,
        offset: i64,
    ) -> Result<i64, ErrorCode> {
        let partition = DeleteRecordsPartition { partition_index: index(stream), offset };
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic { name: name(stream), partitions: vec![partition] }],
            timeout_ms: i32::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(i32::MAX),
        };
        let answer = self.ask(node, caller, &request).await?;
        let mut done = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let done = done.next().ok_or(ErrorCode::UnknownServerError)?;
        code(done.error_code)?;
        Ok(done.low_watermark)
    }

    pub(super) async fn active_producers(
        &self,
        node: NodeId,
        caller: &Caller,
        stream: StreamId,
    ) -> Result<Vec<ActiveProducer>, ErrorCode> {
        let topic = TopicRequest { name: name(stream), partition_indexes: vec![index(stream)] };
        let request = DescribeProducersRequest { topics: vec![topic] };
        let answer = self.ask(node, caller, &request).await?;
        let mut found = answer.topics.into_iter().flat_map(|topic| topic.partitions);
        let found = found.next().ok_or(ErrorCode::UnknownServerError)?;
        code(found.error_code)?;
        let producers = found.active_producers.into_iter().map(|producer| ActiveProducer {
            producer_id: producer.producer_id,
            producer_epoch: i16::try_from(producer.producer_epoch).unwrap_or(-1),
            last_sequence: producer.last_sequence,
            last_timestamp: producer.last_timestamp,
            coordinator_epoch: producer.coordinator_epoch,
            transaction_start: producer.current_txn_start_offset,
        });
        Ok(producers.collect())
    }

    /// 0 for what the node does not tell.
    pub(super) async fn stored_bytes(
        &self,
        node: NodeId,
        caller: &Caller,
        streams: &[StreamId],
    ) -> Vec<u64> {
        let topics = streams.chunk_by(|one, other| one.topic == other.topic).map(|streams| {
            let partitions = streams.iter().map(|stream| index(*stream)).collect();
            DescribableLogDirTopic { topic: name(streams[0]), partitions }
        });
        let request = DescribeLogDirsRequest { topics: Some(topics.collect()) };
        let Ok(answer) = self.ask(node, caller, &request).await else {
            return vec![0; streams.len()];
        };
        let topics = answer.results.into_iter().flat_map(|dir| dir.topics);
        let sizes: HashMap<(Str, i32), i64> = topics
            .flat_map(|topic| {
                let name = topic.name;
                let partitions = topic.partitions.into_iter();
                partitions.map(move |p| ((name.clone(), p.partition_index), p.partition_size))
            })
            .collect();
        let size = |stream: &StreamId| sizes.get(&(name(*stream), index(*stream))).copied();
        let sizes = streams.iter().map(|stream| size(stream).unwrap_or(0));
        sizes.map(|size| u64::try_from(size).unwrap_or(0)).collect()
    }

    /// Asks the coordinator at `node` to add streams to a transaction, or only which of them were not added: those are
    /// given, with their code.
    pub(super) async fn add_partitions(
        &self,
        node: NodeId,
        caller: &Caller,
        producer: &Producer,
        streams: &[StreamId],
        verify_only: bool,
    ) -> Result<Vec<(StreamId, ErrorCode)>, ErrorCode> {
        let mut topics: Vec<AddPartitionsToTxnTopic> = Vec::new();
        for stream in streams.chunk_by(|one, other| one.topic == other.topic) {
            let partitions = stream.iter().map(|stream| index(*stream)).collect();
            topics.push(AddPartitionsToTxnTopic { name: name(stream[0]), partitions });
        }
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: producer.transactional_id.clone(),
            producer_id: producer.producer_id,
            producer_epoch: producer.producer_epoch,
            verify_only,
            topics,
        };
        let request =
            AddPartitionsToTxnRequest { transactions: vec![transaction], ..Default::default() };
        let unreachable = |_| ErrorCode::CoordinatorNotAvailable;
        let sent = self.send(node, caller, BY_ID, BATCHES_FROM, &request).map_err(unreachable)?;
        let answer = self.answered(sent, ANSWER_WITHIN).await.map_err(unreachable)?;
        code(answer.error_code)?;
        let results = answer.results_by_transaction.into_iter().flat_map(|of| of.topic_results);
        let codes = results.flat_map(|topic| topic.results_by_partition);
        let codes: Vec<_> =
            codes.map(|result| ErrorCode::from_code(result.partition_error_code)).collect();
        if codes.len() != streams.len() {
            return Err(ErrorCode::UnknownServerError);
        }
        let failed = streams.iter().copied().zip(codes);
        Ok(failed.filter(|(_, code)| *code != ErrorCode::None).collect())
    }

    /// Ends a transaction in a stream of another node.
    pub(super) async fn write_marker(
        &self,
        node: NodeId,
        caller: &Caller,
        stream: StreamId,
        marker: EndMarker,
    ) -> Result<(), ErrorCode> {
        let topic =
            WritableTxnMarkerTopic { name: name(stream), partition_indexes: vec![index(stream)] };
        let marker = WritableTxnMarker {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            transaction_result: marker.commit,
            topics: vec![topic],
            coordinator_epoch: marker.coordinator_epoch,
            ..Default::default()
        };
        let answer =
            self.ask(node, caller, &WriteTxnMarkersRequest { markers: vec![marker] }).await?;
        let topics = answer.markers.into_iter().flat_map(|marker| marker.topics);
        let mut written = topics.flat_map(|topic| topic.partitions);
        let written = written.next().ok_or(ErrorCode::UnknownServerError)?;
        code(written.error_code)
    }

    /// A caller for what nodes do of their own accord, for a tenant's streams.
    pub(super) fn own_caller(tenant: sluice_model::TenantId) -> Caller {
        Caller {
            tenant,
            principal: Arc::from("User:ANONYMOUS"),
            client_id: Str::from_static("sluice"),
            client_host: std::net::Ipv4Addr::LOCALHOST.into(),
            connection: 0,
        }
    }
}

fn appended(answer: PartitionProduceResponse) -> Result<Appended, Refused> {
    match ErrorCode::from_code(answer.error_code) {
        ErrorCode::None => Ok(Appended {
            base_offset: answer.base_offset,
            log_append_time_ms: answer.log_append_time_ms,
            log_start: answer.log_start_offset,
        }),
        code => {
            let errors = answer.record_errors.into_iter().map(|error| {
                let message = error.batch_index_error_message.unwrap_or_default();
                (error.batch_index, message.to_string())
            });
            Err(Refused {
                code,
                message: answer.error_message.map(|message| message.to_string()),
                record_errors: errors.collect(),
                log_start: answer.log_start_offset,
            })
        }
    }
}

fn asked_partition(read: &Read) -> FetchPartition {
    FetchPartition {
        partition: index(read.stream),
        current_leader_epoch: read.current_leader_epoch.unwrap_or(-1),
        fetch_offset: read.offset,
        last_fetched_epoch: read.last_fetched_epoch.unwrap_or(-1),
        partition_max_bytes: i32::try_from(read.max_bytes).unwrap_or(i32::MAX),
        ..Default::default()
    }
}

fn read_answer(data: PartitionData) -> Result<ReadAnswer, ErrorCode> {
    code(data.error_code)?;
    let aborted = data.aborted_transactions.unwrap_or_default().into_iter();
    let diverging = data.diverging_epoch;
    Ok(ReadAnswer {
        high_watermark: data.high_watermark,
        last_stable: data.last_stable_offset,
        log_start: data.log_start_offset,
        records: data.records.unwrap_or_default(),
        aborted: aborted.map(|aborted| (aborted.producer_id, aborted.first_offset)).collect(),
        diverging: (diverging.epoch >= 0).then_some((diverging.epoch, diverging.end_offset)),
    })
}
