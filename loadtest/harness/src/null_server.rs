//! A server that does next to nothing: it answers Produce and Fetch at once, from memory. It measures the
//! harness's own limit, and the harness's tests run against it.
//!
//! One process, one broker, idempotence and transactions not checked. It keeps at most so many bytes of
//! records, and forgets the oldest.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use sluice_wire::batch::{BatchMut, BatchView};
use sluice_wire::header::{RequestHeader, ResponseHeader};
use sluice_wire::messages::{
    api_versions_response, create_topics_response, delete_topics_response, fetch_request,
    fetch_response, list_offsets_response, metadata_response, produce_response,
};
use sluice_wire::messages::{
    create_topics_request::CreateTopicsRequest, delete_topics_request::DeleteTopicsRequest,
    fetch_request::FetchRequest, init_producer_id_response::InitProducerIdResponse,
    list_offsets_request::ListOffsetsRequest, metadata_request::MetadataRequest,
    produce_request::ProduceRequest, sasl_authenticate_response::SaslAuthenticateResponse,
    sasl_handshake_response::SaslHandshakeResponse,
};
use sluice_wire::{
    AnyRequest, AnyResponse, ApiKey, Chain, Decoder, Encoder, ErrorCode, Message, Str, Uuid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

const SERVED: [ApiKey; 10] = [
    ApiKey::ApiVersions,
    ApiKey::Metadata,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::InitProducerId,
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
];
const MAX_FRAME_BYTES: usize = 256 << 20;
const MAX_PARTITIONS: i32 = 200_000;

/// What a server does wrong on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    #[default]
    None,
    /// Acknowledges each tenth batch and forgets it.
    #[cfg(test)]
    Lose,
    /// Keeps each tenth batch twice.
    #[cfg(test)]
    Double,
    /// Answers each tenth batch with an error that asks for another try, and has kept it.
    #[cfg(test)]
    Forget,
    /// Refuses each tenth batch with an error that asks for another try, and what follows it as out of
    /// order, as a server with idempotence does.
    #[cfg(test)]
    Refuse,
    /// Keeps each tenth batch in another topic.
    #[cfg(test)]
    Mix,
    /// Forgets what is in a partition at each tenth batch, as one that comes back without its disk's last writes.
    #[cfg(test)]
    Shorten,
    /// Tells ends that are a tenth below what it has.
    #[cfg(test)]
    Understate,
    /// Takes a batch each 10 ms.
    #[cfg(test)]
    Slow,
    /// Takes a hundred batches, then refuses all for good.
    #[cfg(test)]
    Fence,
}

/// A server that listens.
#[derive(Debug)]
pub struct NullServer {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    keep_bytes: usize,
    lie: Lie,
    state: Mutex<State>,
    /// Something was written.
    written: Notify,
    #[cfg(test)]
    slow: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    topics: HashMap<Str, Topic>,
    kept_bytes: usize,
    producers: i64,
    batches: u64,
}

#[derive(Debug)]
struct Topic {
    id: Uuid,
    logs: Vec<Log>,
}

#[derive(Debug, Default)]
struct Log {
    next: i64,
    batches: VecDeque<BatchView>,
    /// By producer id, the sequence number that is to come.
    #[cfg(test)]
    expected: HashMap<i64, i32>,
}

impl NullServer {
    /// Listens. `keep_bytes` of records are kept for consumers; with 0 nothing is.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn bind(address: SocketAddr, keep_bytes: usize) -> std::io::Result<Self> {
        Self::lying(address, keep_bytes, Lie::None).await
    }

    pub(crate) async fn lying(
        address: SocketAddr,
        keep_bytes: usize,
        lie: Lie,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (state, written) = (Mutex::default(), Notify::new());
        let shared = Arc::new(Shared {
            address,
            keep_bytes,
            lie,
            state,
            written,
            #[cfg(test)]
            slow: tokio::sync::Mutex::default(),
        });
        Ok(Self { listener, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Serves for ever.
    pub async fn serve(self) {
        loop {
            // A connection that could not be taken is the client's to make again.
            let Ok((socket, _)) = self.listener.accept().await else { continue };
            let shared = Arc::clone(&self.shared);
            // Whatever ends a connection, the client sees it end.
            tokio::spawn(async move { drop(shared.converse(socket).await) });
        }
    }
}

impl Shared {
    async fn converse(
        &self,
        mut socket: TcpStream,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        socket.set_nodelay(true)?;
        let mut buffer = BytesMut::new();
        loop {
            while buffer.len() < 4 {
                if socket.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            let len =
                u32::from_be_bytes(*buffer.first_chunk().expect("four bytes are there")) as usize;
            if len > MAX_FRAME_BYTES {
                return Err("the frame is too long".into());
            }
            while buffer.len() < 4 + len {
                buffer.reserve(4 + len - buffer.len());
                if socket.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
            let frame = buffer.split_to(4 + len).freeze().slice(4..);
            let answer = self.answer(frame).await?;
            for piece in answer.pieces() {
                socket.write_all(piece).await?;
            }
        }
    }

    async fn answer(
        &self,
        frame: Bytes,
    ) -> Result<Chain, Box<dyn std::error::Error + Send + Sync>> {
        let mut decoder = Decoder::new(frame);
        let (header, key) = RequestHeader::read(&mut decoder)?;
        let key = key.filter(|key| SERVED.contains(key)).ok_or("this request is not served")?;
        let version = header.request_api_version;
        let request = AnyRequest::decode(key, &mut decoder, version)?;
        let response = self.respond(request).await.ok_or("this request is not served")?;
        let mut encoder = Encoder::framed();
        ResponseHeader { correlation_id: header.correlation_id }
            .encode(&mut encoder, key.response_header_version(version))?;
        response.encode(&mut encoder, version)?;
        Ok(encoder.into_frame()?)
    }

    async fn respond(&self, request: AnyRequest) -> Option<AnyResponse> {
        Some(match request {
            AnyRequest::ApiVersions(_) => AnyResponse::ApiVersions(Box::new(versions())),
            AnyRequest::Metadata(request) => {
                AnyResponse::Metadata(Box::new(self.metadata(*request)))
            }
            AnyRequest::CreateTopics(request) => {
                AnyResponse::CreateTopics(Box::new(self.create(*request)))
            }
            AnyRequest::DeleteTopics(request) => {
                AnyResponse::DeleteTopics(Box::new(self.delete(*request)))
            }
            AnyRequest::InitProducerId(_) => {
                let mut state = self.state.lock();
                state.producers += 1;
                AnyResponse::InitProducerId(Box::new(InitProducerIdResponse {
                    producer_id: state.producers,
                    ..Default::default()
                }))
            }
            AnyRequest::SaslHandshake(request) => {
                let is_known = &*request.mechanism == "PLAIN";
                let error =
                    if is_known { ErrorCode::None } else { ErrorCode::UnsupportedSaslMechanism };
                AnyResponse::SaslHandshake(Box::new(SaslHandshakeResponse {
                    error_code: error.code(),
                    mechanisms: vec![Str::from_static("PLAIN")],
                }))
            }
            // Everybody is welcome whose password is his name.
            AnyRequest::SaslAuthenticate(request) => {
                let mut words = request.auth_bytes.split(|byte| *byte == 0).skip(1);
                let is_right = words.next().is_some_and(|name| words.next() == Some(name));
                let error =
                    if is_right { ErrorCode::None } else { ErrorCode::SaslAuthenticationFailed };
                AnyResponse::SaslAuthenticate(Box::new(SaslAuthenticateResponse {
                    error_code: error.code(),
                    ..Default::default()
                }))
            }
            AnyRequest::Produce(request) => {
                #[cfg(test)]
                if self.lie == Lie::Slow {
                    let _one_at_a_time = self.slow.lock().await;
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                AnyResponse::Produce(Box::new(self.produce(*request)))
            }
            AnyRequest::Fetch(request) => AnyResponse::Fetch(Box::new(self.fetch(*request).await)),
            AnyRequest::ListOffsets(request) => {
                AnyResponse::ListOffsets(Box::new(self.ends(*request)))
            }
            _ => return None,
        })
    }

    fn metadata(&self, request: MetadataRequest) -> metadata_response::MetadataResponse {
        use metadata_response::{
            MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
            MetadataResponseTopic,
        };
        let state = self.state.lock();
        let names = request.topics.into_iter().flatten().filter_map(|topic| topic.name);
        let topics = names.map(|name| {
            let Some(topic) = state.topics.get(&name) else {
                let error_code = ErrorCode::UnknownTopicOrPartition.code();
                return MetadataResponseTopic {
                    error_code,
                    name: Some(name),
                    ..Default::default()
                };
            };
            let partitions = (0..topic.logs.len() as i32).map(|partition_index| {
                let nodes = vec![0];
                MetadataResponsePartition {
                    partition_index,
                    leader_epoch: 0,
                    replica_nodes: nodes.clone(),
                    isr_nodes: nodes,
                    ..Default::default()
                }
            });
            MetadataResponseTopic {
                name: Some(name),
                topic_id: topic.id,
                partitions: partitions.collect(),
                ..Default::default()
            }
        });
        MetadataResponse {
            topics: topics.collect(),
            brokers: vec![MetadataResponseBroker {
                node_id: 0,
                host: Str::from(self.address.ip().to_string()),
                port: self.address.port().into(),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn create(&self, request: CreateTopicsRequest) -> create_topics_response::CreateTopicsResponse {
        use create_topics_response::{CreatableTopicResult, CreateTopicsResponse};
        let mut state = self.state.lock();
        let topics = request.topics.into_iter().map(|topic| {
            let count = topic.num_partitions;
            if !(1..=MAX_PARTITIONS).contains(&count) {
                let error_code = ErrorCode::InvalidPartitions.code();
                return CreatableTopicResult { name: topic.name, error_code, ..Default::default() };
            }
            // Any id that no other topic of this server has.
            let id = Uuid((state.topics.len() as u128 + 1).to_be_bytes());
            let logs = (0..count).map(|_| Log::default()).collect();
            // A name that outlives the frame it came in.
            state.topics.insert(Str::from(&*topic.name), Topic { id, logs });
            CreatableTopicResult { name: topic.name, topic_id: id, ..Default::default() }
        });
        CreateTopicsResponse { topics: topics.collect(), ..Default::default() }
    }

    fn delete(&self, request: DeleteTopicsRequest) -> delete_topics_response::DeleteTopicsResponse {
        use delete_topics_response::{DeletableTopicResult, DeleteTopicsResponse};
        let mut state = self.state.lock();
        let names = request.topics.into_iter().filter_map(|topic| topic.name);
        let responses = names.chain(request.topic_names).map(|name| {
            if let Some(topic) = state.topics.remove(&name) {
                let kept = topic.logs.iter().flat_map(|log| &log.batches);
                state.kept_bytes -= kept.map(BatchView::len_bytes).sum::<usize>();
            }
            DeletableTopicResult { name: Some(name), ..Default::default() }
        });
        DeleteTopicsResponse { responses: responses.collect(), ..Default::default() }
    }

    fn produce(&self, request: ProduceRequest) -> produce_response::ProduceResponse {
        use produce_response::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};
        let mut state = self.state.lock();
        let responses = request.topic_data.into_iter().map(|topic| {
            let name = state.name(&topic.name, topic.topic_id);
            let partitions = topic.partition_data.into_iter().map(|data| {
                let records = data.records.unwrap_or_default().to_bytes();
                let appended = state.append(self, name.as_ref(), data.index, &records);
                let (base_offset, error) = match appended {
                    Ok(offset) => (offset, ErrorCode::None),
                    Err(error) => (-1, error),
                };
                let (index, error_code) = (data.index, error.code());
                PartitionProduceResponse { index, error_code, base_offset, ..Default::default() }
            });
            TopicProduceResponse {
                partition_responses: partitions.collect(),
                name: topic.name,
                topic_id: topic.topic_id,
            }
        });
        let response = ProduceResponse { responses: responses.collect(), ..Default::default() };
        drop(state);
        self.written.notify_waiters();
        response
    }

    async fn fetch(&self, request: FetchRequest) -> fetch_response::FetchResponse {
        let wait = u64::try_from(request.max_wait_ms).unwrap_or(0);
        let until = Instant::now() + Duration::from_millis(wait);
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            // From here on nothing that is written is missed.
            written.as_mut().enable();
            let (response, bytes) = self.read(&request);
            let is_enough = bytes as i64 >= i64::from(request.min_bytes.max(0));
            if is_enough || timeout_at(until, written).await.is_err() {
                return response;
            }
        }
    }

    fn read(&self, request: &FetchRequest) -> (fetch_response::FetchResponse, usize) {
        let state = self.state.lock();
        let mut bytes = 0;
        let mut left = usize::try_from(request.max_bytes).unwrap_or(0);
        let responses = request.topics.iter().map(|topic| {
            let name = state.name(&topic.topic, topic.topic_id);
            let log = |index: i32| {
                state.topics.get(name.as_ref()?)?.logs.get(usize::try_from(index).ok()?)
            };
            let partitions = topic.partitions.iter().map(|wanted| {
                let (data, len) = read_log(log(wanted.partition), wanted, left);
                bytes += len;
                left = left.saturating_sub(len);
                data
            });
            fetch_response::FetchableTopicResponse {
                partitions: partitions.collect(),
                topic: topic.topic.clone(),
                topic_id: topic.topic_id,
            }
        });
        let responses = responses.collect();
        (fetch_response::FetchResponse { responses, ..Default::default() }, bytes)
    }

    fn told(&self, end: i64) -> i64 {
        match self.lie {
            #[cfg(test)]
            Lie::Understate => end - end / 10,
            _ => end,
        }
    }

    fn ends(&self, request: ListOffsetsRequest) -> list_offsets_response::ListOffsetsResponse {
        use list_offsets_response::{
            ListOffsetsPartitionResponse, ListOffsetsResponse, ListOffsetsTopicResponse,
        };
        let state = self.state.lock();
        let topics = request.topics.into_iter().map(|topic| {
            let logs = state.topics.get(&topic.name);
            let partitions = topic.partitions.iter().map(|partition| {
                let index = usize::try_from(partition.partition_index).ok();
                let log = logs.zip(index).and_then(|(topic, index)| topic.logs.get(index));
                let error = if log.is_none() {
                    ErrorCode::UnknownTopicOrPartition
                } else {
                    ErrorCode::None
                };
                ListOffsetsPartitionResponse {
                    partition_index: partition.partition_index,
                    error_code: error.code(),
                    offset: log.map_or(-1, |log| self.told(log.next)),
                    ..Default::default()
                }
            });
            ListOffsetsTopicResponse { partitions: partitions.collect(), name: topic.name }
        });
        ListOffsetsResponse { topics: topics.collect(), ..Default::default() }
    }
}

impl State {
    /// A topic by its id, or by its name where the version has no ids.
    fn name(&self, name: &Str, id: Uuid) -> Option<Str> {
        if id == Uuid::ZERO {
            return Some(name.clone());
        }
        self.topics.iter().find(|(_, topic)| topic.id == id).map(|(name, _)| name.clone())
    }

    fn append(
        &mut self,
        shared: &Shared,
        topic: Option<&Str>,
        index: i32,
        records: &Bytes,
    ) -> Result<i64, ErrorCode> {
        let unknown = ErrorCode::UnknownTopicOrPartition;
        self.batches += 1;
        #[cfg(test)]
        let turn = self.batches.is_multiple_of(10);
        #[cfg(test)]
        let other = self.topics.keys().find(|name| Some(*name) != topic).cloned();
        #[cfg(test)]
        let topic = other.as_ref().filter(|_| turn && shared.lie == Lie::Mix).or(topic);
        let topic = topic.and_then(|name| self.topics.get_mut(name)).ok_or(unknown)?;
        let index = usize::try_from(index).map_err(|_| unknown)?;
        let log = topic.logs.get_mut(index).ok_or(unknown)?;
        let batch = BatchView::new(&records[..]).map_err(|error| error.code())?;
        let copies = match shared.lie {
            Lie::None => 1,
            #[cfg(test)]
            Lie::Lose => usize::from(!turn),
            #[cfg(test)]
            Lie::Double => 1 + usize::from(turn),
            #[cfg(test)]
            Lie::Shorten => {
                while turn && let Some(last) = log.batches.pop_back() {
                    self.kept_bytes -= last.len_bytes();
                    log.next = last.base_offset();
                }
                1
            }
            #[cfg(test)]
            Lie::Fence if self.batches > 100 => return Err(ErrorCode::InvalidProducerEpoch),
            #[cfg(test)]
            Lie::Fence | Lie::Mix | Lie::Understate | Lie::Slow => 1,
            #[cfg(test)]
            Lie::Forget | Lie::Refuse => {
                let expected = log.expected.entry(batch.producer_id()).or_default();
                if batch.base_sequence() < *expected {
                    return Err(ErrorCode::DuplicateSequenceNumber);
                }
                if batch.base_sequence() > *expected {
                    return Err(ErrorCode::OutOfOrderSequenceNumber);
                }
                if turn && shared.lie == Lie::Refuse {
                    return Err(ErrorCode::NotLeaderOrFollower);
                }
                *expected = batch.last_sequence() + 1;
                1
            }
        };
        let base_offset = log.next;
        for _ in 0..copies {
            if shared.keep_bytes > 0 {
                let mut own = BytesMut::from(&records[..]);
                BatchMut::new(&mut own).map_err(|error| error.code())?.set_base_offset(log.next);
                let own = BatchView::new(own.freeze()).map_err(|error| error.code())?;
                self.kept_bytes += own.len_bytes();
                log.batches.push_back(own);
            }
            log.next += i64::from(batch.last_offset_delta()) + 1;
        }
        // The oldest of this partition: partitions are about as long as each other.
        while self.kept_bytes > shared.keep_bytes {
            let Some(oldest) = log.batches.pop_front() else { break };
            self.kept_bytes -= oldest.len_bytes();
        }
        #[cfg(test)]
        if turn && shared.lie == Lie::Forget {
            return Err(ErrorCode::RequestTimedOut);
        }
        Ok(base_offset)
    }
}

/// What a log has from an offset on, in whole batches: at least one, if there is any room.
fn read_log(
    log: Option<&Log>,
    wanted: &fetch_request::FetchPartition,
    left: usize,
) -> (fetch_response::PartitionData, usize) {
    let (partition_index, offset) = (wanted.partition, wanted.fetch_offset);
    let refused = |error: ErrorCode| {
        let error_code = error.code();
        let data =
            fetch_response::PartitionData { partition_index, error_code, ..Default::default() };
        (data, 0)
    };
    let Some(log) = log else { return refused(ErrorCode::UnknownTopicOrPartition) };
    let start = log.batches.front().map_or(log.next, BatchView::base_offset);
    if !(start..=log.next).contains(&offset) {
        return refused(ErrorCode::OffsetOutOfRange);
    }
    let first = log.batches.partition_point(|batch| batch.last_offset() < offset);
    let most = left.min(usize::try_from(wanted.partition_max_bytes).unwrap_or(0));
    let mut records = Chain::new();
    for batch in log.batches.iter().skip(first) {
        let is_first = records.is_empty() && left > 0;
        if !is_first && records.len() + batch.len_bytes() > most {
            break;
        }
        records.push(batch.bytes().clone());
    }
    let len = records.len();
    let data = fetch_response::PartitionData {
        partition_index,
        high_watermark: log.next,
        last_stable_offset: log.next,
        log_start_offset: start,
        records: Some(records),
        ..Default::default()
    };
    (data, len)
}

fn versions() -> api_versions_response::ApiVersionsResponse {
    let api_keys = SERVED.iter().map(|key| api_versions_response::ApiVersion {
        api_key: key.code(),
        min_version: *key.versions().start(),
        max_version: *key.versions().end(),
    });
    api_versions_response::ApiVersionsResponse {
        api_keys: api_keys.collect(),
        ..Default::default()
    }
}
