//! Metadata, CreateTopics, DeleteTopics, CreatePartitions, DescribeCluster and FindCoordinator.

use sluice_model::TenantId;
use sluice_wire::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use sluice_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use sluice_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use sluice_wire::messages::describe_cluster_request::DescribeClusterRequest;
use sluice_wire::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use sluice_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use sluice_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use sluice_wire::messages::metadata_response::MetadataResponse;
use sluice_wire::{ErrorCode, Uuid};

use super::client::{batch, produce};
use super::memory::EPOCH;
use super::{NODE, Server};
use crate::handlers::permitted;

fn named(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic { name: Some(name.into()), ..Default::default() }
}

fn ask(topics: &[&str]) -> MetadataRequest {
    let topics = topics.iter().map(|name| named(name)).collect();
    MetadataRequest { topics: Some(topics), ..Default::default() }
}

#[tokio::test]
async fn null_means_all_and_empty_means_none_but_in_version_0() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("b", 2).await;
    client.create_topic("a", 1).await;
    for version in 0..=13 {
        let empty = client.call(&ask(&[]), version).await;
        assert_eq!(empty.topics.len(), if version == 0 { 2 } else { 0 }, "version {version}");
        if version > 0 {
            let all = MetadataRequest { topics: None, ..Default::default() };
            let all = client.call(&all, version).await;
            let names: Vec<_> = all.topics.iter().map(|t| t.name.as_deref().unwrap()).collect();
            assert_eq!(names, ["a", "b"]);
        }
    }
}

#[tokio::test]
async fn metadata_tells_who_serves_what() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let id = client.create_topic("t", 3).await;
    let request = MetadataRequest { include_topic_authorized_operations: true, ..ask(&["t", "t"]) };
    let response = client.call(&request, 13).await;
    let broker = &response.brokers[0];
    assert_eq!((broker.node_id, &*broker.host, broker.port), (NODE.0, "broker.test", 9092));
    assert_eq!(response.controller_id, NODE.0);
    assert_eq!(response.cluster_id.as_deref(), Some(server.catalog.cluster_id()));
    let [topic] = &response.topics[..] else { panic!("{:?}", response.topics) };
    assert_eq!((topic.error_code, topic.name.as_deref(), topic.topic_id), (0, Some("t"), id));
    assert_eq!(topic.topic_authorized_operations, permitted::TOPIC);
    for (index, partition) in topic.partitions.iter().enumerate() {
        assert_eq!(partition.partition_index, i32::try_from(index).unwrap());
        assert_eq!((partition.leader_id, partition.leader_epoch), (NODE.0, EPOCH));
        assert_eq!(
            (&partition.replica_nodes[..], &partition.isr_nodes[..]),
            (&[NODE.0][..], &[NODE.0][..])
        );
    }
    // Not asked for, not told.
    let response = client.call(&ask(&["t"]), 10).await;
    assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
    assert_eq!(response.cluster_authorized_operations, i32::MIN);
}

#[tokio::test]
async fn metadata_by_id() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let id = client.create_topic("t", 1).await;
    let by_id = |id| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id: id, name: None }]),
        ..Default::default()
    };
    for version in 10..=11 {
        // These versions have the field, and no meaning for it.
        let mut request = by_id(id);
        request.topics.as_mut().unwrap()[0].name = Some("t".into());
        let response = client.call(&request, version).await;
        assert_eq!(response.topics[0].error_code, ErrorCode::InvalidRequest.code());
    }
    for version in 12..=13 {
        let response = client.call(&by_id(id), version).await;
        assert_eq!(
            (response.topics[0].error_code, response.topics[0].name.as_deref()),
            (0, Some("t"))
        );
        let response = client.call(&by_id(Uuid([9; 16])), version).await;
        let topic = &response.topics[0];
        assert_eq!((topic.error_code, &topic.name), (ErrorCode::UnknownTopicId.code(), &None));
        assert_eq!(topic.topic_id, Uuid([9; 16]));
    }
}

#[tokio::test]
async fn metadata_creates_topics_if_both_sides_will() {
    let server = Server::with(|config| config.default_partitions = 4, &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    let unwilling = MetadataRequest { allow_auto_topic_creation: false, ..ask(&["new"]) };
    let response = client.call(&unwilling, 9).await;
    assert_eq!(response.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
    for (version, name) in [(0, "new-0"), (3, "new-3"), (9, "new-9"), (13, "new-13")] {
        // As from Kafka, the answer that makes a topic does not have it yet; the next one has.
        let first = client.call(&ask(&[name]), version).await;
        assert_eq!(first.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
        let response = client.call(&ask(&[name]), version).await;
        assert_eq!((response.topics[0].error_code, response.topics[0].partitions.len()), (0, 4));
    }
    for (name, error) in [
        ("bad/name", ErrorCode::InvalidTopicException),
        ("", ErrorCode::InvalidTopicException),
        ("new.9", ErrorCode::UnknownTopicOrPartition),
        // Metrics could not tell it from the one before.
        ("new_9", ErrorCode::InvalidTopicException),
    ] {
        let response = client.call(&ask(&[name]), 9).await;
        assert_eq!(response.topics[0].error_code, error.code(), "{name:?}");
    }
    let many: Vec<String> = (0..100).map(|i| format!("many-{i}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    client.call(&ask(&many), 9).await;
    let response = client.call(&ask(&many), 9).await;
    let names: Vec<_> = response.topics.iter().map(|t| t.name.as_deref().unwrap()).collect();
    assert_eq!(names, many);
    assert!(response.topics.iter().all(|topic| topic.error_code == 0));

    let strict = Server::with(|config| config.auto_create_topics = false, &[TenantId::OPEN]).await;
    let response = strict.client().await.call(&ask(&["new"]), 9).await;
    assert_eq!(response.topics[0].error_code, ErrorCode::UnknownTopicOrPartition.code());
}

fn new_topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic { name: name.into(), num_partitions, replication_factor, ..Default::default() }
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(index, ids)| CreatableReplicaAssignment {
        partition_index: *index,
        broker_ids: ids.to_vec(),
    });
    CreatableTopic { assignments: assignments.collect(), ..new_topic(name, -1, -1) }
}

fn configured(name: &str, key: &str, value: Option<&str>) -> CreatableTopic {
    let config = CreatableTopicConfig { name: key.into(), value: value.map(Into::into) };
    CreatableTopic { configs: vec![config], ..new_topic(name, 1, 1) }
}

#[tokio::test]
async fn create_topics_checks_what_kafka_checks() {
    let server = Server::with(|config| config.default_partitions = 3, &[TenantId::OPEN]).await;
    let mut client = server.client().await;
    client.create_topic("there.is", 1).await;
    let own = NODE.0;
    let mut clash = assigned("x", &[(0, &[own])]);
    clash.num_partitions = 1;
    let mut factor = assigned("x", &[(0, &[own])]);
    factor.replication_factor = 1;
    for (topic, error) in [
        (new_topic("a", 5, 1), ErrorCode::None),
        (new_topic("b", -1, -1), ErrorCode::None),
        (new_topic("x", 0, 1), ErrorCode::InvalidPartitions),
        (new_topic("x", -2, 1), ErrorCode::InvalidPartitions),
        (new_topic("x", 1, 0), ErrorCode::InvalidReplicationFactor),
        (new_topic("x", 1, -2), ErrorCode::InvalidReplicationFactor),
        (new_topic("x", 1, 3), ErrorCode::InvalidReplicationFactor),
        (new_topic("x", 10_001, 1), ErrorCode::PolicyViolation),
        (new_topic("there.is", 1, 1), ErrorCode::TopicAlreadyExists),
        (new_topic("there_is", 1, 1), ErrorCode::InvalidTopicException),
        (new_topic("bad name", 1, 1), ErrorCode::InvalidTopicException),
        (new_topic("", 1, 1), ErrorCode::InvalidTopicException),
        (assigned("c", &[(1, &[own]), (0, &[own])]), ErrorCode::None),
        (assigned("x", &[(0, &[own]), (0, &[own])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("x", &[(1, &[own])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("x", &[(0, &[own + 1])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("x", &[(0, &[])]), ErrorCode::InvalidReplicaAssignment),
        (assigned("x", &[(0, &[own, own])]), ErrorCode::InvalidReplicaAssignment),
        (clash, ErrorCode::InvalidRequest),
        (factor, ErrorCode::InvalidRequest),
        (configured("d", "retention.ms", Some("5000")), ErrorCode::None),
        (configured("x", "retention.ms", Some("soon")), ErrorCode::InvalidConfig),
        (configured("x", "retention.ms", None), ErrorCode::InvalidConfig),
        (configured("x", "no.such.key", Some("1")), ErrorCode::InvalidConfig),
    ] {
        let request = CreateTopicsRequest { topics: vec![topic.clone()], ..Default::default() };
        let response = client.call(&request, 7).await;
        let result = &response.topics[0];
        assert_eq!(result.error_code, error.code(), "{topic:?}: {:?}", result.error_message);
        assert_eq!(result.error_message.is_some(), !error.is_none());
        assert_eq!(result.topic_id == Uuid::ZERO, !error.is_none());
    }
    assert!(server.catalog.topic_by_name(TenantId::OPEN, "x").is_none());
    let partitions =
        |name| server.catalog.topic_by_name(TenantId::OPEN, name).unwrap().partitions.len();
    assert_eq!((partitions("a"), partitions("b"), partitions("c")), (5, 3, 2));
}

#[tokio::test]
async fn create_topics_reports_what_was_made_and_can_only_check() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let check = CreateTopicsRequest {
        topics: vec![configured("t", "retention.ms", Some("5000"))],
        validate_only: true,
        ..Default::default()
    };
    let response = client.call(&check, 7).await;
    assert_eq!((response.topics[0].error_code, response.topics[0].num_partitions), (0, 1));
    assert!(server.catalog.topic_by_name(TenantId::OPEN, "t").is_none());
    let make = CreateTopicsRequest { validate_only: false, ..check };
    let response = client.call(&make, 7).await;
    let result = &response.topics[0];
    assert_eq!((result.error_code, result.num_partitions, result.replication_factor), (0, 1, 1));
    let configs = result.configs.as_ref().unwrap();
    let retention = configs.iter().find(|config| &*config.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source), (Some("5000"), 1));
    let policy = configs.iter().find(|config| &*config.name == "cleanup.policy").unwrap();
    assert_eq!((policy.value.as_deref(), policy.config_source), (Some("delete"), 5));
    // The same name twice makes neither, and one answer says so.
    let twice = CreateTopicsRequest {
        topics: vec![new_topic("u", 1, 1), new_topic("v", 1, 1), new_topic("u", 2, 1)],
        ..Default::default()
    };
    let response = client.call(&twice, 5).await;
    let codes: Vec<_> = response.topics.iter().map(|t| (&*t.name, t.error_code)).collect();
    assert_eq!(codes, [("u", ErrorCode::InvalidRequest.code()), ("v", 0)]);
}

#[tokio::test]
async fn delete_topics_by_name_and_by_id() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let by_name = |name: &str| DeleteTopicState { name: Some(name.into()), ..Default::default() };
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id };
    let id = client.create_topic("t", 1).await;
    client.create_topic("u", 1).await;
    client.create_topic("v", 1).await;
    client.create_topic("w", 1).await;
    let both = DeleteTopicState { name: Some("w".into()), topic_id: id };
    let states =
        vec![by_id(id), by_name("u"), by_name("x"), by_id(Uuid([9; 16])), by_id(Uuid::ZERO), both];
    let request = DeleteTopicsRequest { topics: states, ..Default::default() };
    let response = client.call(&request, 6).await;
    let told: Vec<_> =
        response.responses.iter().map(|t| (t.name.as_deref(), t.error_code)).collect();
    let invalid = ErrorCode::InvalidRequest.code();
    assert_eq!(
        told,
        [
            (Some("t"), 0),
            (Some("u"), 0),
            (Some("x"), ErrorCode::UnknownTopicOrPartition.code()),
            (None, ErrorCode::UnknownTopicId.code()),
            (None, invalid),
            (Some("w"), invalid),
        ]
    );
    for version in 1..=5 {
        let request = DeleteTopicsRequest {
            topic_names: vec!["v".into(), "w".into(), "w".into()],
            ..Default::default()
        };
        let response = client.call(&request, version).await;
        let codes: Vec<_> = response.responses.iter().map(|t| t.error_code).collect();
        assert_eq!(codes, [if version == 1 { 0 } else { 3 }, invalid]);
    }
    // Of a topic that is meant in both ways nothing is done, and it is told once.
    let u = client.create_topic("u", 1).await;
    let topics = vec![by_id(u), by_name("u")];
    let request = DeleteTopicsRequest { topics, ..Default::default() };
    let response = client.call(&request, 6).await;
    let told: Vec<_> =
        response.responses.iter().map(|t| (t.name.as_deref(), t.topic_id, t.error_code)).collect();
    assert_eq!(told, [(Some("u"), u, invalid)]);
    // The name is free again, for a topic of another id.
    assert_ne!(client.create_topic("t", 1).await, id);
}

#[tokio::test]
async fn partitions_are_only_added() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2).await;
    let grow = |name: &str, count, assignments: Option<Vec<Vec<i32>>>| CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments: assignments.map(|lists| {
            lists.into_iter().map(|broker_ids| CreatePartitionsAssignment { broker_ids }).collect()
        }),
    };
    let own = NODE.0;
    for (topic, validate_only, error) in [
        (grow("t", 3, None), true, ErrorCode::None),
        (grow("t", 2, None), false, ErrorCode::InvalidPartitions),
        (grow("t", 1, None), false, ErrorCode::InvalidPartitions),
        (grow("t", -1, None), false, ErrorCode::InvalidPartitions),
        (grow("t", 10_001, None), false, ErrorCode::PolicyViolation),
        (grow("u", 3, None), false, ErrorCode::UnknownTopicOrPartition),
        (grow("t", 4, Some(vec![vec![own]])), false, ErrorCode::InvalidReplicaAssignment),
        (grow("t", 3, Some(vec![vec![own + 1]])), false, ErrorCode::InvalidReplicaAssignment),
        (grow("t", 4, Some(vec![vec![own], vec![own]])), false, ErrorCode::None),
        (grow("t", 5, None), false, ErrorCode::None),
    ] {
        let request = CreatePartitionsRequest {
            topics: vec![topic.clone()],
            validate_only,
            ..Default::default()
        };
        let response = client.call(&request, 3).await;
        assert_eq!(response.results[0].error_code, error.code(), "{topic:?}");
    }
    let response = client.call(&ask(&["t"]), 9).await;
    assert_eq!(response.topics[0].partitions.len(), 5);
}

#[tokio::test]
async fn the_cluster_and_its_coordinators() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..Default::default()
    };
    let response = client.call(&request, 2).await;
    assert_eq!(
        (response.error_code, response.controller_id, response.brokers.len()),
        (0, NODE.0, 1)
    );
    assert_eq!(&*response.cluster_id, server.catalog.cluster_id());
    assert_eq!(response.cluster_authorized_operations, permitted::CLUSTER);
    for (kind, error) in
        [(2, ErrorCode::MismatchedEndpointType), (9, ErrorCode::UnsupportedEndpointType)]
    {
        let request = DescribeClusterRequest { endpoint_type: kind, ..Default::default() };
        assert_eq!(client.call(&request, 1).await.error_code, error.code());
    }
    for (kind, error) in [
        (0, ErrorCode::None),
        (1, ErrorCode::None),
        (2, ErrorCode::InvalidRequest),
        (7, ErrorCode::InvalidRequest),
    ] {
        let node = if error.is_none() { NODE.0 } else { -1 };
        let request =
            FindCoordinatorRequest { key: "g".into(), key_type: kind, ..Default::default() };
        let response = client.call(&request, 3).await;
        assert_eq!((response.error_code, response.node_id), (error.code(), node));
        let request = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into(), "h".into()],
            key_type: kind,
            ..Default::default()
        };
        let response = client.call(&request, 6).await;
        let told: Vec<_> =
            response.coordinators.iter().map(|c| (&*c.key, c.error_code, c.node_id)).collect();
        assert_eq!(told, [("g", error.code(), node), ("h", error.code(), node)]);
    }
}

#[tokio::test]
async fn the_first_group_makes_the_internal_topic_which_nobody_writes() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let name = "__consumer_offsets";
    let known = |response: &MetadataResponse| {
        response.topics.iter().map(|t| (t.error_code, t.is_internal)).collect::<Vec<_>>()
    };
    let mut ask = ask(&[name]);
    ask.allow_auto_topic_creation = false;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    assert_eq!(known(&client.call(&ask, 9).await), [(unknown, false)]);
    for _ in 0..2 {
        let find = FindCoordinatorRequest { key: "g".into(), ..Default::default() };
        assert_eq!(client.call(&find, 3).await.error_code, 0);
        assert_eq!(known(&client.call(&ask, 9).await), [(0, true)]);
    }
    client.create_topic("__consumer_offset", 1).await;
    let all = MetadataRequest { topics: None, ..Default::default() };
    assert_eq!(known(&client.call(&all, 9).await), [(0, false), (0, true)]);
    let pages =
        DescribeTopicPartitionsRequest { response_partition_limit: 2000, ..Default::default() };
    let pages = client.call(&pages, 0).await;
    let told: Vec<_> = pages.topics.iter().map(|t| t.is_internal).collect();
    assert_eq!(told, [false, true]);

    let produced = client.call(&produce(name, 0, 1, batch(1, b"v")), 9).await;
    let code = produced.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::InvalidTopicException.code());
}
