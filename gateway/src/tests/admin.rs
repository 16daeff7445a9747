//! The requests of those who run a cluster: log directories, elections, moves, the quorum and its
//! features; and that they show nothing of another tenant's.

use sluice_catalog::{NodeSpec, Roles, VolumeKind, VolumeSpec};
use sluice_model::{NodeId, TenantId, VolumeEpoch, VolumeId};
use sluice_wire::messages::alter_partition_reassignments_request as reassign;
use sluice_wire::messages::alter_replica_log_dirs_request as dirs;
use sluice_wire::messages::describe_log_dirs_request as sizes;
use sluice_wire::messages::describe_quorum_request as quorum;
use sluice_wire::messages::elect_leaders_request as elect;
use sluice_wire::messages::list_config_resources_request::ListConfigResourcesRequest;
use sluice_wire::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use sluice_wire::messages::unregister_broker_request::UnregisterBrokerRequest;
use sluice_wire::messages::update_features_request as features;
use sluice_wire::{ApiKey, ErrorCode, Str, Uuid};

use super::client::{Client, batch, produce};
use super::pages::{page, page_of, topic};
use super::{NODE, SOON, Server};

const DIR: &str = "sluice-volumes";
/// One more than a request may name.
const TOO_MANY: i32 = 10_001;

#[tokio::test]
async fn config_resources_are_nodes_and_topics() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    client.create_topic("t", 1).await;
    let (broker, topic): ((Str, i8), (Str, i8)) = (("7".into(), 4), ("t".into(), 2));
    let logger: (Str, i8) = ("7".into(), 8);
    for (asked, expected) in [
        (&[][..], &[logger.clone(), broker.clone(), topic.clone()][..]),
        (&[2], &[topic]),
        (&[4], &[broker]),
        (&[8, 16, 32], &[logger]),
    ] {
        let request = ListConfigResourcesRequest { resource_types: asked.to_vec() };
        let answer = client.call(&request, 1).await;
        let found: Vec<_> = answer
            .config_resources
            .into_iter()
            .map(|resource| (resource.resource_name, resource.resource_type))
            .collect();
        assert_eq!((answer.error_code, &found[..]), (0, expected));
    }
    let request = ListConfigResourcesRequest { resource_types: vec![2, 3] };
    let answer = client.call(&request, 1).await;
    assert_eq!(answer.error_code, ErrorCode::UnsupportedVersion.code());
    let answer = client.call(&ListConfigResourcesRequest::default(), 0).await;
    assert_eq!((answer.error_code, answer.config_resources.len()), (0, 0), "client metrics alone");
}

fn of_dir(topics: Option<&[(&str, &[i32])]>) -> sizes::DescribeLogDirsRequest {
    let topics = topics.map(|topics| {
        let topic = |(topic, partitions): &(&str, &[i32])| sizes::DescribableLogDirTopic {
            topic: (*topic).into(),
            partitions: partitions.to_vec(),
        };
        topics.iter().map(topic).collect()
    });
    sizes::DescribeLogDirsRequest { topics }
}

/// (topic, partition, bytes) of what is in the log directory.
async fn stored(client: &mut Client, topics: Option<&[(&str, &[i32])]>) -> Vec<(String, i32, i64)> {
    let answer = client.call(&of_dir(topics), 5).await;
    let [dir] = &answer.results[..] else { panic!("one directory a node") };
    assert_eq!((answer.error_code, dir.error_code, &*dir.log_dir), (0, 0, DIR));
    assert_eq!((dir.total_bytes, dir.usable_bytes, dir.is_cordoned), (-1, -1, false));
    let of_topic = dir.topics.iter().flat_map(|topic| {
        assert!(!topic.partitions.is_empty());
        topic.partitions.iter().map(|partition| {
            assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
            (topic.name.to_string(), partition.partition_index, partition.partition_size)
        })
    });
    of_topic.collect()
}

#[tokio::test]
async fn the_log_directory_holds_what_was_written() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    client.create_topic("a", 2).await;
    client.create_topic("b", 1).await;
    client.call(&produce("a", 1, -1, batch(1, b"xyz")), 9).await;
    let row = |topic: &str, partition, bytes| (topic.to_owned(), partition, bytes);
    let all = stored(client, None).await;
    assert_eq!(all, [row("a", 0, 0), row("a", 1, 64), row("b", 0, 0)]);
    assert_eq!(stored(client, Some(&[])).await, []);
    let asked: &[(&str, &[i32])] = &[("a", &[1, 2, -1]), ("none", &[0]), ("a", &[1])];
    assert_eq!(stored(client, Some(asked)).await, [row("a", 1, 64)]);
}

fn into_dir(path: &str, name: &str, partitions: Vec<i32>) -> dirs::AlterReplicaLogDirsRequest {
    let topics = vec![dirs::AlterReplicaLogDirTopic { name: name.into(), partitions }];
    dirs::AlterReplicaLogDirsRequest {
        dirs: vec![dirs::AlterReplicaLogDir { path: path.into(), topics }],
    }
}

#[tokio::test]
async fn replicas_stay_in_their_directory() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    client.create_topic("t", 1).await;
    for (path, name, code) in [
        (DIR, "t", [ErrorCode::UnknownTopicOrPartition, ErrorCode::None]),
        (DIR, "none", [ErrorCode::UnknownTopicOrPartition; 2]),
        ("/elsewhere", "t", [ErrorCode::LogDirNotFound; 2]),
    ] {
        for version in ApiKey::AlterReplicaLogDirs.versions() {
            let answer = client.call(&into_dir(path, name, vec![0, -1, 0]), version).await;
            assert_eq!((answer.results.len(), &*answer.results[0].topic_name), (1, name));
            let partitions = &answer.results[0].partitions;
            let found: Vec<_> =
                partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
            assert_eq!(found, [(-1, code[0].code()), (0, code[1].code())]);
        }
    }
    let many = into_dir(DIR, "t", (0..TOO_MANY).collect());
    let answer = client.call(&many, 2).await;
    let partitions = &answer.results[0].partitions;
    assert_eq!(partitions.len(), 10_000);
    assert!(partitions.iter().all(|p| p.error_code == ErrorCode::PolicyViolation.code()));
}

fn election(kind: i8, topics: Option<&[(&str, &[i32])]>) -> elect::ElectLeadersRequest {
    let topic = |(topic, partitions): &(&str, &[i32])| elect::TopicPartitions {
        topic: (*topic).into(),
        partitions: partitions.to_vec(),
    };
    elect::ElectLeadersRequest {
        election_type: kind,
        topic_partitions: topics.map(|topics| topics.iter().map(topic).collect()),
        ..Default::default()
    }
}

#[tokio::test]
async fn no_election_is_needed() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    client.create_topic("t", 2).await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let not_needed = ErrorCode::ElectionNotNeeded.code();
    let asked: &[(&str, &[i32])] = &[("t", &[1, 2]), ("none", &[0])];
    for (kind, version) in [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2)] {
        let answer = client.call(&election(kind, Some(asked)), version).await;
        assert_eq!(answer.error_code, 0);
        let codes: Vec<Vec<_>> = answer
            .replica_election_results
            .iter()
            .map(|t| t.partition_result.iter().map(|p| (p.partition_id, p.error_code)).collect())
            .collect();
        assert_eq!(codes, [vec![(1, not_needed), (2, unknown)], vec![(0, unknown)]]);
        // For all partitions, those that need none are not told.
        let answer = client.call(&election(kind, None), version).await;
        assert_eq!(answer.error_code, 0);
        let [all] = &answer.replica_election_results[..] else { panic!("one topic") };
        assert_eq!((&*all.topic, all.partition_result.len()), ("t", 0));
    }
    let invalid = ErrorCode::InvalidRequest.code();
    let answer = client.call(&election(2, Some(asked)), 2).await;
    assert_eq!(answer.error_code, invalid);
    let mut of_partitions =
        answer.replica_election_results.iter().flat_map(|topic| &topic.partition_result);
    assert!(of_partitions.all(|partition| partition.error_code == invalid));
    assert_eq!(client.call(&election(2, None), 2).await.error_code, invalid);
    let many: Vec<i32> = (0..TOO_MANY).collect();
    let many = election(0, Some(&[("t", &many[..])]));
    let answer = client.call(&many, 1).await;
    assert_eq!(answer.error_code, ErrorCode::PolicyViolation.code());
    // Version 0 has no code to say it with, and is answered all the same.
    assert!(client.call(&many, 0).await.replica_election_results.is_empty());
}

fn moves(name: &str, targets: &[(i32, Option<&[i32]>)]) -> reassign::ReassignableTopic {
    let partition =
        |(partition_index, replicas): &(i32, Option<&[i32]>)| reassign::ReassignablePartition {
            partition_index: *partition_index,
            replicas: replicas.map(<[i32]>::to_vec),
        };
    reassign::ReassignableTopic {
        name: name.into(),
        partitions: targets.iter().map(partition).collect(),
    }
}

#[tokio::test]
async fn partitions_are_moved_to_where_they_are() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    client.create_topic("t", 1).await;
    let own: &[i32] = &[NODE.0];
    let targets = [
        (0, Some(own), ErrorCode::None),
        (0, None, ErrorCode::NoReassignmentInProgress),
        (0, Some(&[]), ErrorCode::InvalidReplicaAssignment),
        (0, Some(&[99]), ErrorCode::InvalidReplicaAssignment),
        (0, Some(&[NODE.0, 99]), ErrorCode::InvalidReplicaAssignment),
        (1, Some(own), ErrorCode::UnknownTopicOrPartition),
        (-1, None, ErrorCode::UnknownTopicOrPartition),
    ];
    let asked: Vec<_> = targets.iter().map(|(index, to, _)| (*index, *to)).collect();
    let mut request = reassign::AlterPartitionReassignmentsRequest {
        topics: vec![moves("t", &asked), moves("none", &[(0, Some(own))])],
        ..Default::default()
    };
    for version in ApiKey::AlterPartitionReassignments.versions() {
        let answer = client.call(&request, version).await;
        assert_eq!((answer.error_code, &answer.error_message), (0, &None));
        assert!(answer.allow_replication_factor_change);
        let [known, unknown] = &answer.responses[..] else { panic!("two topics") };
        let found: Vec<_> =
            known.partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
        let expected: Vec<_> =
            targets.iter().map(|(index, _, code)| (*index, code.code())).collect();
        assert_eq!(found, expected);
        assert_eq!(known.partitions[0].error_message, None);
        assert!(known.partitions[3].error_message.as_ref().unwrap().contains("broker 99"));
        let code = ErrorCode::UnknownTopicOrPartition.code();
        assert_eq!(unknown.partitions[0].error_code, code);
    }
    request.allow_replication_factor_change = false;
    let answer = client.call(&request, 1).await;
    assert!(!answer.allow_replication_factor_change);
    let codes: Vec<_> = answer.responses[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!((codes[0], codes[4]), (0, ErrorCode::InvalidReplicationFactor.code()));

    let many: Vec<_> = (0..TOO_MANY).map(|index| (index, None)).collect();
    request.topics = vec![moves("t", &many)];
    let answer = client.call(&request, 1).await;
    assert_eq!((answer.error_code, answer.responses.len()), (44, 0));

    let answer = client.call(&ListPartitionReassignmentsRequest::default(), 0).await;
    assert_eq!((answer.error_code, answer.error_message, answer.topics.len()), (0, None, 0));
}

#[tokio::test]
async fn what_another_node_has_stays_there() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    let catalog = &server.catalog;
    let volume = VolumeSpec::new(VolumeId(2), VolumeKind::File, "elsewhere", 1 << 30);
    catalog.add_volume(volume).await.unwrap();
    catalog.claim_volume(VolumeId(2), NodeId(8), VolumeEpoch(0)).await.unwrap();
    let spec = NodeSpec {
        id: NodeId(8),
        kafka_host: "other.test".to_owned(),
        kafka_port: 9093,
        rack: None,
        peer: None,
        roles: Roles::ALL,
    };
    let node = catalog.register_node(spec, SOON).await.unwrap();
    client.create_topic("wide", 8).await;

    let all = client.call(&page_of(&[], 2000, None), 0).await;
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for partition in &all.topics[0].partitions {
        let of = if partition.leader_id == NODE.0 { &mut here } else { &mut there };
        of.push(partition.partition_index);
    }
    assert!(!here.is_empty() && !there.is_empty(), "{here:?} {there:?}");
    let stored = stored(client, None).await;
    assert_eq!(stored.iter().map(|(_, index, _)| *index).collect::<Vec<_>>(), here);
    let answer = client.call(&into_dir(DIR, "wide", vec![there[0]]), 2).await;
    let code = answer.results[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::ReplicaNotAvailable.code());
    let targets = [(there[0], Some(&[8][..])), (there[0], Some(&[7]))];
    let request = reassign::AlterPartitionReassignmentsRequest {
        topics: vec![moves("wide", &targets)],
        ..Default::default()
    };
    let answer = client.call(&request, 1).await;
    let codes: Vec<_> = answer.responses[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::InvalidReplicaAssignment.code()]);
    node.deregister().await.unwrap();
}

fn of_quorum(topic: &str, partitions: &[i32]) -> quorum::DescribeQuorumRequest {
    let partitions = partitions.iter();
    let partitions =
        partitions.map(|index| quorum::PartitionData { partition_index: *index }).collect();
    let topics = vec![quorum::TopicData { topic_name: topic.into(), partitions }];
    quorum::DescribeQuorumRequest { topics }
}

#[tokio::test]
async fn the_quorum_is_this_node() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    for version in ApiKey::DescribeQuorum.versions() {
        let answer = client.call(&of_quorum("__cluster_metadata", &[0]), version).await;
        let [partition] = &answer.topics[0].partitions[..] else { panic!("one partition") };
        assert_eq!((answer.error_code, partition.error_code), (0, 0));
        assert_eq!((partition.leader_id, partition.leader_epoch), (NODE.0, 1));
        assert_eq!(partition.high_watermark, 0);
        let voters: Vec<_> = partition.current_voters.iter().map(|v| v.replica_id).collect();
        assert_eq!((&voters[..], partition.observers.len()), (&[NODE.0][..], 0));
        let listeners = answer.nodes.iter().flat_map(|node| &node.listeners);
        let listeners: Vec<_> = listeners.map(|l| (&*l.name, &*l.host, l.port)).collect();
        let expected = [("CONTROLLER", "broker.test", 9092)];
        assert_eq!(listeners, if version >= 2 { &expected[..] } else { &[] });
    }
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    for (topic, partitions) in [("t", &[0][..]), ("__cluster_metadata", &[1]), ("t", &[0, 1])] {
        let answer = client.call(&of_quorum(topic, partitions), 2).await;
        let found: Vec<_> = answer.topics[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!((found, answer.nodes.len()), (vec![unknown; partitions.len()], 0));
    }
    let many: Vec<i32> = (0..TOO_MANY).collect();
    let answer = client.call(&of_quorum("__cluster_metadata", &many), 2).await;
    assert_eq!((answer.error_code, answer.topics.len()), (44, 0));
}

#[tokio::test]
async fn there_are_no_features_to_update() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    for version in ApiKey::UpdateFeatures.versions() {
        for (level, kind, why) in [
            (1, 1, "does not support this feature"),
            (0, 1, "not found"),
            (-1, 1, "cannot be less than 0"),
            (1, 9, "upgrade type"),
        ] {
            let request = features::UpdateFeaturesRequest {
                feature_updates: vec![features::FeatureUpdateKey {
                    feature: "metadata.version".into(),
                    max_version_level: level,
                    upgrade_type: if version == 0 { 1 } else { kind },
                    ..Default::default()
                }],
                ..Default::default()
            };
            let answer = client.call(&request, version).await;
            assert_eq!(answer.error_code, ErrorCode::InvalidUpdateVersion.code());
            let message = answer.error_message.unwrap();
            assert!(message.contains(why) || version == 0 && kind == 9, "{message}");
        }
        let answer = client.call(&features::UpdateFeaturesRequest::default(), version).await;
        assert_eq!((answer.error_code, answer.error_message), (0, None));
    }
}

#[tokio::test]
async fn nodes_are_not_unregistered_by_clients() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    for (broker_id, code) in
        [(NODE.0, ErrorCode::ClusterAuthorizationFailed), (99, ErrorCode::BrokerIdNotRegistered)]
    {
        let answer = client.call(&UnregisterBrokerRequest { broker_id }, 0).await;
        assert_eq!(answer.error_code, code.code());
        assert!(answer.error_message.unwrap().contains(&broker_id.to_string()));
    }
}

/// What is told of a topic by name by every request that takes one.
async fn told_of(client: &mut Client, name: &str) -> Vec<i16> {
    let named: &[(&str, &[i32])] = &[(name, &[0])];
    let mut codes = Vec::new();
    let answer = client.call(&page_of(&[name], 10, None), 0).await;
    assert_eq!(answer.topics[0].topic_id, Uuid::ZERO);
    codes.push(answer.topics[0].error_code);
    assert!(stored(client, Some(named)).await.is_empty());
    let answer = client.call(&into_dir(DIR, name, vec![0]), 2).await;
    codes.push(answer.results[0].partitions[0].error_code);
    for kind in [0, 1] {
        let answer = client.call(&election(kind, Some(named)), 2).await;
        codes.push(answer.replica_election_results[0].partition_result[0].error_code);
    }
    let request = reassign::AlterPartitionReassignmentsRequest {
        topics: vec![moves(name, &[(0, Some(&[NODE.0])), (0, None)])],
        ..Default::default()
    };
    let answer = client.call(&request, 1).await;
    codes.extend(answer.responses[0].partitions.iter().map(|partition| partition.error_code));
    codes.push({
        let answer = client.call(&of_quorum(name, &[0]), 2).await;
        answer.topics[0].partitions[0].error_code
    });
    codes
}

#[tokio::test]
async fn another_tenants_topics_are_not_told_of() {
    let server = Server::with(|_| {}, &[TenantId(1), TenantId(2)]).await;
    let (mut a, mut b) = (server.client_of(0).await, server.client_of(1).await);
    a.create_topic("secret", 1).await;
    a.call(&produce("secret", 0, -1, batch(1, b"x")), 9).await;
    b.create_topic("own", 1).await;

    let codes = told_of(&mut b, "secret").await;
    assert_eq!(codes, told_of(&mut b, "never-there").await);
    assert!(codes.iter().all(|code| *code == ErrorCode::UnknownTopicOrPartition.code()));
    // Nor by asking for everything.
    let (topics, _) = page(&mut b, page_of(&[], 10, None)).await;
    assert_eq!(topics, [topic("own", &[0])]);
    assert_eq!(stored(&mut b, None).await, [("own".to_owned(), 0, 0)]);
    let answer = b.call(&election(0, None), 2).await;
    let named: Vec<_> = answer.replica_election_results.iter().map(|t| &*t.topic).collect();
    assert_eq!(named, ["own"]);
    let request = ListConfigResourcesRequest { resource_types: vec![2] };
    let answer = b.call(&request, 1).await;
    let named: Vec<_> = answer.config_resources.iter().map(|r| &*r.resource_name).collect();
    assert_eq!(named, ["own"]);
}
