//! A Kafka client of the tests: frames by hand, messages by the wire crate.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use sluice_wire::header::{RequestHeader, ResponseHeader};
use sluice_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use sluice_wire::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use sluice_wire::{Chain, Decoder, Encoder, Message, Request, Uuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::SOON;

pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) next_correlation: i32,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, next_correlation: 100 }
    }

    /// A whole frame, with its length.
    pub(super) fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Bytes {
        let mut encoder = Encoder::framed();
        let header = RequestHeader {
            request_api_key: R::KEY.code(),
            request_api_version: version,
            correlation_id,
            client_id: Some("tests".into()),
        };
        header.encode(&mut encoder, R::KEY.request_header_version(version)).unwrap();
        request.encode(&mut encoder, version).unwrap();
        encoder.into_frame().unwrap().to_bytes()
    }

    /// Sends without waiting; gives the correlation id.
    pub(super) async fn send<R: Request>(&mut self, request: &R, version: i16) -> i32 {
        let id = self.next_correlation;
        self.next_correlation += 1;
        self.stream.write_all(&Self::frame(request, version, id)).await.unwrap();
        id
    }

    /// One frame's content, or `None` when the server has closed the connection.
    pub(super) async fn receive(&mut self) -> Option<Bytes> {
        let frame = async {
            let length = self.stream.read_i32().await.ok()?;
            let mut frame = BytesMut::zeroed(usize::try_from(length).unwrap());
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(frame.freeze())
        };
        timeout(SOON, frame).await.expect("the server neither answers nor closes")
    }

    /// The answer to request `id`, which must be the next and whole.
    pub(super) async fn answer<R: Request>(&mut self, version: i16, id: i32) -> R::Response {
        let frame = self.receive().await.expect("the server closed the connection");
        let mut decoder = Decoder::new(frame);
        let header =
            ResponseHeader::decode(&mut decoder, R::KEY.response_header_version(version)).unwrap();
        assert_eq!(header.correlation_id, id, "answers are out of order");
        let response = R::Response::decode(&mut decoder, version).unwrap();
        assert_eq!(decoder.remaining(), 0, "{} v{version} has bytes left", R::KEY);
        response
    }

    pub(super) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        let id = self.send(request, version).await;
        self.answer::<R>(version, id).await
    }

    /// Whether the server closes the connection without another answer.
    pub(super) async fn is_closed(&mut self) -> bool {
        self.receive().await.is_none()
    }

    /// Creates a topic; gives its id.
    pub(super) async fn create_topic(&mut self, name: &str, partitions: i32) -> Uuid {
        let topic = CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: -1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], ..Default::default() };
        let response = self.call(&request, 7).await;
        assert_eq!(response.topics[0].error_code, 0, "{:?}", response.topics[0].error_message);
        response.topics[0].topic_id
    }
}

/// One Produce to one partition, for versions below 13.
pub(super) fn produce(topic: &str, partition: i32, acks: i16, records: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData { index: partition, records: Some(Chain::from(records)) };
    ProduceRequest {
        acks,
        timeout_ms: 10_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![partition],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A batch of magic 2 with `count` records, of which nothing but the header is looked at here.
pub(super) fn batch(count: i32, payload: &[u8]) -> Bytes {
    let mut out = vec![0; 61];
    let length = i32::try_from(61 - 12 + payload.len()).unwrap();
    out[8..12].copy_from_slice(&length.to_be_bytes());
    out[16] = 2;
    out[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    out[57..61].copy_from_slice(&count.to_be_bytes());
    out.extend_from_slice(payload);
    out.into()
}
