//! Nodes of a cluster: a gateway whose streams and coordinators are another node's.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::registry::Registry;
use sluice_catalog::{Catalog, NodeRegistration, NodeSpec, PeerAddress, Roles};
use sluice_catalog::{VolumeKind, VolumeSpec};
use sluice_model::{NodeId, StreamId, TenantId, TopicId, VolumeEpoch, VolumeId};
use sluice_wire::header::{NodeRequestHeader, RequestHeader};
use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::asker::Asker;
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use sluice_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::metadata_request::MetadataRequest;
use sluice_wire::messages::offset_commit_request as commit;
use sluice_wire::messages::write_txn_markers_request as markers;
use sluice_wire::messages::write_txn_markers_response::WriteTxnMarkersResponse;
use sluice_wire::{ApiKey, Chain, Decoder, Encoder, ErrorCode, Message, Request, Uuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::{Client, batch, produce};
use super::memory::{EPOCH, MemoryBackend};
use super::streams::fetch_one;
use super::{NODE, SOON, Server};
use crate::backend::Backend;
use crate::peers::{PeerListener, PeerTls, Peers, PeersParts, Routing};
use crate::{Gateway, GatewayConfig};

/// The node that has the volumes.
pub(super) const OWNER: NodeId = NodeId(80);

/// A node that other nodes reach, over a backend.
pub(super) struct Owner {
    pub(super) address: std::net::SocketAddr,
    registration: NodeRegistration,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Owner {
    pub(super) async fn start(
        config: &GatewayConfig,
        catalog: &Catalog,
        backend: Arc<dyn Backend>,
        tls: Option<PeerTls>,
    ) -> Self {
        Self::start_as(OWNER, config, catalog, backend, tls).await
    }

    async fn start_as(
        node: NodeId,
        config: &GatewayConfig,
        catalog: &Catalog,
        backend: Arc<dyn Backend>,
        tls: Option<PeerTls>,
    ) -> Self {
        let listener = Gateway::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let spec = NodeSpec {
            id: node,
            kafka_host: String::new(),
            kafka_port: 0,
            rack: None,
            peer: Some(PeerAddress { host: "127.0.0.1".to_owned(), port: address.port() }),
            roles: Roles { gateway: false, writer: true },
        };
        let registration = catalog.register_node(spec, SOON).await.unwrap();
        let config = GatewayConfig { node_id: node, ..config.clone() };
        let gateway = Gateway::new(config, catalog.clone(), backend, &mut Registry::default());
        let listening = PeerListener::new(&gateway, tls);
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(async move { listening.listen(listener, stopped).await });
        Self { address, registration, stop, serving }
    }

    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        timeout(SOON, self.serving).await.unwrap().unwrap();
        self.registration.deregister().await.unwrap();
    }
}

/// The gateway of a node that has nothing itself.
pub(super) fn gateway_of(
    config: GatewayConfig,
    catalog: &Catalog,
    tls: Option<PeerTls>,
    registry: &mut Registry,
) -> Gateway {
    let parts = PeersParts { node: NODE, catalog: catalog.clone(), tls, registry };
    let peers = Peers::new(parts);
    // Whatever it answered would be wrong.
    let nothing = Arc::new(MemoryBackend::new(catalog.clone()));
    let routing = Routing::new(nothing, Arc::clone(&peers));
    Gateway::among(config, catalog.clone(), Arc::new(routing), Some(peers), registry)
}

fn stream(id: Uuid, partition: u32) -> StreamId {
    StreamId { topic: TopicId(id.0), partition }
}

#[tokio::test]
async fn appends_of_a_connection_keep_their_order_on_their_way() {
    let server = Server::apart(None, &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    let mut ids = Vec::new();
    for number in 0..40 {
        let payload = Bytes::from(format!("{number}"));
        ids.push(client.send(&produce("t", 0, 1, batch(1, &payload)), 8).await);
    }
    for (offset, id) in ids.into_iter().enumerate() {
        let answer =
            client.answer::<sluice_wire::messages::produce_request::ProduceRequest>(8, id).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, offset as i64));
    }
    let expected: Vec<_> = (0..40).map(|number| Bytes::from(format!("{number}"))).collect();
    assert_eq!(server.backend.payloads(stream(topic, 0)), expected);
    assert_eq!(fetch_one(&mut client, "t", 0, 39).await, batch_at(39, b"39"));
    server.stop().await;
}

/// As the memory backend keeps it.
fn batch_at(offset: i64, payload: &'static [u8]) -> Bytes {
    let mut bytes = batch(1, payload).to_vec();
    bytes[..8].copy_from_slice(&offset.to_be_bytes());
    bytes.into()
}

#[tokio::test]
async fn the_coordinators_of_another_node_answer() {
    let server = Server::apart(None, &[TenantId::OPEN, TenantId(5)]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let request = commit::OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![commit::OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![commit::OffsetCommitRequestPartition {
                committed_offset: 7,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let answer = client.call(&request, 8).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    // Another tenant's topic is not there for this one, on the other node neither.
    let mut stranger = server.client_of(1).await;
    let answer = stranger.call(&request, 8).await;
    let code = answer.topics[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition.code());
    // They are found where clients connect.
    let find = FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let found = client.call(&find, 4).await;
    assert_eq!((found.coordinators[0].error_code, found.coordinators[0].node_id), (0, NODE.0));
    server.stop().await;
}

#[tokio::test]
async fn clients_are_sent_to_gateways_only() {
    let server = Server::apart(None, &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    client.create_topic("t", 3).await;
    let answer = client.call(&MetadataRequest::default(), 9).await;
    assert_eq!(answer.brokers.iter().map(|broker| broker.node_id).collect::<Vec<_>>(), [NODE.0]);
    let answer = client.call(&MetadataRequest { topics: None, ..Default::default() }, 9).await;
    assert!(answer.topics[0].partitions.iter().all(|partition| partition.leader_id == NODE.0));
    assert!(answer.topics[0].partitions.iter().all(|partition| partition.leader_epoch == EPOCH));
    server.stop().await;
}

#[tokio::test]
async fn who_has_something_first_ends_a_wait_and_the_others_forget_it() {
    let server = Server::apart(None, &[TenantId::OPEN]).await;
    // A second owner, of a second volume.
    let catalog = &server.catalog;
    let volume = VolumeSpec::new(VolumeId(2), VolumeKind::File, "elsewhere", 1 << 30);
    catalog.add_volume(volume).await.unwrap();
    catalog.claim_volume(VolumeId(2), NodeId(9), VolumeEpoch(0)).await.unwrap();
    let second = Arc::new(MemoryBackend::new(catalog.clone()));
    let config = GatewayConfig::new(NodeId(9), "second.test", 9092);
    let owner = Owner::start_as(NodeId(9), &config, catalog, Arc::clone(&second) as _, None).await;
    let mut client = server.client().await;
    let topic = client.create_topic("wide", 2).await;
    let volumes = catalog.topic_of_any_tenant(TopicId(topic.0)).unwrap().partitions.clone();
    let first_at = volumes.iter().position(|volume| *volume == VolumeId(1)).unwrap() as i32;
    let partition = |partition| FetchPartition {
        partition,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let fetch = FetchRequest {
        max_wait_ms: 15_000,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: "wide".into(),
            partitions: vec![partition(0), partition(1)],
            ..Default::default()
        }],
        ..Default::default()
    };
    let id = client.send(&fetch, 11).await;
    let waits = |backend: &MemoryBackend| backend.reading.load(Ordering::SeqCst);
    until(|| waits(&server.backend) == 1 && waits(&second) == 1).await;
    let mut producer = server.client().await;
    producer.call(&produce("wide", first_at, 1, batch(1, b"x")), 8).await;
    let answer = client.answer::<FetchRequest>(11, id).await;
    let bytes: Vec<usize> = answer.responses[0]
        .partitions
        .iter()
        .map(|partition| partition.records.as_ref().map_or(0, Chain::len))
        .collect();
    assert_eq!(bytes.iter().filter(|bytes| **bytes > 0).count(), 1);
    assert!(bytes[first_at as usize] > 0);
    until(|| waits(&server.backend) == 0 && waits(&second) == 0).await;
    owner.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn fetches_that_wait_hold_nobody_else_up() {
    let server = Server::apart(None, &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    // Each may be answered with all that a connection may hold.
    let fetch = FetchRequest {
        max_wait_ms: 15_000,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![FetchPartition {
                partition_max_bytes: i32::MAX,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut waiting = Vec::new();
    for _ in 0..6 {
        let mut consumer = server.client().await;
        let id = consumer.send(&fetch, 11).await;
        waiting.push((consumer, id));
    }
    until(|| server.backend.reading.load(Ordering::SeqCst) == 6).await;
    let append = timeout(Duration::from_secs(5), appended(&mut client));
    assert_eq!(append.await.expect("it does not wait for them"), (0, 0));
    for (mut consumer, id) in waiting {
        let answer = consumer.answer::<FetchRequest>(11, id).await;
        assert_eq!(answer.responses[0].partitions[0].error_code, 0);
    }
    server.stop().await;
}

async fn until(mut is_so: impl FnMut() -> bool) {
    let reached = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, reached).await.expect("it never came to that");
}

#[tokio::test]
async fn an_owner_that_goes_is_said_to_be_gone_and_its_successor_is_found() {
    let mut server = Server::apart(None, &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    assert_eq!(appended(&mut client).await, (0, 0));
    server.backend.gate.send_replace(false);
    let waiting = client.send(&produce("t", 0, 1, batch(1, b"y")), 8).await;
    let handed_over = || server.backend.appends.load(Ordering::SeqCst) == 2;
    until(handed_over).await;
    server.owner.take().unwrap().stop().await;
    // Nobody knows what became of it.
    let answer =
        client.answer::<sluice_wire::messages::produce_request::ProduceRequest>(8, waiting).await;
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::RequestTimedOut.code());
    // While nobody has it, it is looked for again; so are the coordinators.
    assert_eq!(appended(&mut client).await.0, ErrorCode::NotLeaderOrFollower.code());
    server.backend.gate.send_replace(true);
    let config = GatewayConfig::new(NodeId(10), "third.test", 9092);
    let here = Arc::clone(&server.backend) as _;
    let owner = Owner::start_as(NodeId(10), &config, &server.catalog, here, None).await;
    server
        .catalog
        .claim_volume(VolumeId(1), NodeId(10), VolumeEpoch(EPOCH.unsigned_abs()))
        .await
        .unwrap();
    let (code, offset) = appended(&mut client).await;
    assert_eq!(code, 0);
    assert!((1..=2).contains(&offset), "{offset}");
    owner.stop().await;
    server.stop().await;
}

/// The code and the offset of one more append.
async fn appended(client: &mut Client) -> (i16, i64) {
    let answer = client.call(&produce("t", 0, 1, batch(1, b"x")), 8).await;
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// What a node says, by hand.
struct Stranger {
    stream: TcpStream,
}

impl Stranger {
    async fn connect(server: &Server) -> Self {
        let address = server.owner.as_ref().unwrap().address;
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    async fn send(
        &mut self,
        key: i16,
        version: i16,
        client_id: &str,
        asker: Option<Asker>,
        body: &[u8],
    ) {
        let mut encoder = Encoder::framed();
        let request = RequestHeader {
            request_api_key: key,
            request_api_version: version,
            correlation_id: 5,
            client_id: Some(client_id.into()),
        };
        NodeRequestHeader { request, asker }.encode(&mut encoder).unwrap();
        encoder.raw(&Bytes::copy_from_slice(body));
        let frame = encoder.into_frame().unwrap().to_bytes();
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn receive(&mut self) -> Option<Bytes> {
        let frame = async {
            let length = self.stream.read_i32().await.ok()?;
            let mut frame = vec![0; usize::try_from(length).unwrap()];
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(Bytes::from(frame))
        };
        timeout(SOON, frame).await.expect("the node neither answers nor closes")
    }

    /// Says what a node says first.
    async fn greet(&mut self, server: &Server) {
        let greeting = format!("sluice-node/{}/7/{}", server.catalog.cluster_id(), OWNER.0);
        self.send(ApiKey::ApiVersions.code(), 3, &greeting, None, &body(&hello(), 3)).await;
        assert!(self.receive().await.is_some());
    }
}

fn hello() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "sluice".into(),
        client_software_version: "1".into(),
    }
}

fn body<M: Message>(message: &M, version: i16) -> Bytes {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, version).unwrap();
    encoder.into_chain().to_bytes()
}

#[tokio::test]
async fn who_does_not_greet_as_a_node_of_this_cluster_is_not_answered() {
    let server = Server::apart(None, &[TenantId::OPEN]).await;
    let cluster = server.catalog.cluster_id().to_owned();
    let versions = ApiKey::ApiVersions.code();
    for (key, greeting) in [
        (versions, "rdkafka".to_owned()),
        (versions, format!("sluice-node/other/7/{}", OWNER.0)),
        (versions, format!("sluice-node/{cluster}/7/9")),
        (versions, format!("sluice-node/{cluster}/x/{}", OWNER.0)),
        (versions, format!("sluice-node/{cluster}/7/{}/", OWNER.0)),
        (ApiKey::Metadata.code(), format!("sluice-node/{cluster}/7/{}", OWNER.0)),
    ] {
        let mut stranger = Stranger::connect(&server).await;
        stranger.send(key, 3, &greeting, None, &body(&hello(), 3)).await;
        assert!(stranger.receive().await.is_none(), "{greeting}");
    }
    // Nor is one that sends what is no frame.
    let mut stranger = Stranger::connect(&server).await;
    stranger.stream.write_all(&i32::MAX.to_be_bytes()).await.unwrap();
    assert!(stranger.receive().await.is_none());
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_and_the_connection_goes_on() {
    let server = Server::apart(None, &[TenantId::OPEN]).await;
    let mut node = Stranger::connect(&server).await;
    node.greet(&server).await;
    let metadata = ApiKey::Metadata.code();
    for (key, version, rest) in [
        (metadata, 99, &b""[..]),
        (999, 0, &b""[..]),
        (metadata, 12, &b"\xff\xff\xff\xff"[..]),
        (ApiKey::WriteTxnMarkers.code(), 1, &b"\x7f"[..]),
    ] {
        node.send(key, version, "x", Some(Asker::default()), rest).await;
        let answer = node.receive().await.expect("an answer");
        assert_eq!(&answer[..], 5i32.to_be_bytes(), "{key} {version}");
    }
    // A control that nobody knows, and one for a request that is not there, have no answer.
    node.send(-1, 77, "x", None, b"").await;
    node.send(-1, 0, "x", None, b"").await;
    let request = MetadataRequest { topics: Some(Vec::new()), ..Default::default() };
    node.send(metadata, 12, "x", Some(Asker::default()), &body(&request, 12)).await;
    assert!(node.receive().await.expect("an answer").len() > 4);
    server.stop().await;
}

#[tokio::test]
async fn markers_are_for_nodes_and_their_own_tenants_topics() {
    let tenants = [TenantId(3), TenantId(4)];
    let server = Server::apart(None, &tenants).await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    let request = |name: String| markers::WriteTxnMarkersRequest {
        markers: vec![markers::WritableTxnMarker {
            producer_id: 6,
            producer_epoch: 2,
            transaction_result: true,
            coordinator_epoch: 4,
            topics: vec![markers::WritableTxnMarkerTopic {
                name: name.into(),
                partition_indexes: vec![0],
            }],
            ..Default::default()
        }],
    };
    let by_id = request(TopicId(topic.0).to_string());
    let mut node = Stranger::connect(&server).await;
    node.greet(&server).await;
    for (tenant, expected) in [(4, ErrorCode::UnknownTopicOrPartition), (3, ErrorCode::None)] {
        let asker = Asker { tenant, names_are_ids: true, ..Default::default() };
        let key = ApiKey::WriteTxnMarkers.code();
        node.send(key, 1, "x", Some(asker), &body(&by_id, 1)).await;
        let answer = node.receive().await.expect("an answer");
        let mut decoder = Decoder::new(answer.slice(5..));
        let answer = WriteTxnMarkersResponse::decode(&mut decoder, 1).unwrap();
        assert_eq!(answer.markers[0].topics[0].partitions[0].error_code, expected.code());
    }
    let ended = server.backend.ended.lock().clone();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].0, ended[0].1.producer_epoch), (stream(topic, 0), 2));
    // A client is not served.
    assert!(!crate::dispatch::SERVED.contains(&markers::WriteTxnMarkersRequest::KEY));
    client.send(&request("t".to_owned()), 1).await;
    assert!(client.is_closed().await);
    server.stop().await;
}

#[tokio::test]
async fn a_tenant_cannot_name_topics_by_id_where_names_belong() {
    let server = Server::apart(None, &[TenantId(3), TenantId(4)]).await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    let id = TopicId(topic.0).to_string();
    for listener in [0, 1] {
        let mut client = server.client_of(listener).await;
        let answer = client.call(&produce(&id, 0, 1, batch(1, b"x")), 8).await;
        let code = answer.responses[0].partition_responses[0].error_code;
        assert_eq!(code, ErrorCode::UnknownTopicOrPartition.code());
    }
    server.stop().await;
}

/// An authority, and a certificate by it for nodes on loopback.
fn certificates(dir: &Path) -> PeerTls {
    let script = "
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-authority -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=node -keyout node.key -out node.csr
        printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >ext
        openssl x509 -req -in node.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out node.pem";
    let output = Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "openssl runs: apt-get install openssl: {output:?}");
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    assert!(PeerTls::new(b"nothing", &read("node.pem"), &read("node.key")).is_err());
    assert!(PeerTls::new(&read("ca.pem"), &read("node.pem"), &read("ca.key")).is_err());
    PeerTls::new(&read("ca.pem"), &read("node.pem"), &read("node.key")).unwrap()
}

#[tokio::test]
async fn nodes_of_one_authority_speak_tls_and_others_do_not() {
    let (ours, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tls, strange) = (certificates(ours.path()), certificates(other.path()));
    let server = Server::apart(Some(tls), &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    for offset in 0..3 {
        assert_eq!(appended(&mut client).await, (0, offset));
    }
    // More than a TLS record holds, in both directions.
    let payload: &'static [u8] = vec![b'z'; 300_000].leak();
    client.call(&produce("t", 0, 1, batch(1, payload)), 8).await;
    assert_eq!(fetch_one(&mut client, "t", 0, 3).await, batch_at(3, payload));
    // Without a certificate there is no word.
    let mut plain = Stranger::connect(&server).await;
    let greeting = format!("sluice-node/{}/7/{}", server.catalog.cluster_id(), OWNER.0);
    plain.send(ApiKey::ApiVersions.code(), 3, &greeting, None, &body(&hello(), 3)).await;
    // It may be told that this is no TLS, but nothing else.
    let mut rest = Vec::new();
    let _ = timeout(SOON, plain.stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.len() < 20, "{rest:?}");
    // A gateway with certificates of another authority reaches nobody.
    let mut registry = Registry::default();
    let config = GatewayConfig::new(NODE, "strange.test", 9092);
    let gateway = gateway_of(config, &server.catalog, Some(strange), &mut registry);
    let mut stranger = listening(&gateway).await;
    assert_eq!(appended(&mut stranger).await.0, ErrorCode::NotLeaderOrFollower.code());
    let beat = HeartbeatRequest { group_id: "g".into(), ..Default::default() };
    let code = stranger.call(&beat, 4).await.error_code;
    assert_eq!(code, ErrorCode::UnknownMemberId.code(), "what is here answers");
    server.stop().await;
}

/// A client of a gateway that listens as long as the runtime lives.
async fn listening(gateway: &Gateway) -> Client {
    use sluice_tenants::{Identity, ListenerPolicy, RemoteAccess};
    let listener = Gateway::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let policy =
        ListenerPolicy::unauthenticated(Identity::open(), address, RemoteAccess::Refuse).unwrap();
    let gateway = gateway.clone();
    tokio::spawn(async move {
        let (_told, stop) = watch::channel(false);
        gateway.listen("strange", listener, policy, stop).await;
    });
    Client::connect(address).await
}
