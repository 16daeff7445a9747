//! Groups and their commits: names and ids, and answers that old versions can say.

use sluice_wire::messages::delete_topics_request::DeleteTopicsRequest;
use sluice_wire::messages::describe_groups_request::DescribeGroupsRequest;
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::leave_group_request::LeaveGroupRequest;
use sluice_wire::messages::offset_commit_request as commit;
use sluice_wire::messages::offset_delete_request as forget;
use sluice_wire::messages::offset_fetch_request as fetch;
use sluice_wire::{ErrorCode, Str, Uuid};

use super::Server;
use super::client::Client;
use crate::handlers::permitted;

fn commit_at(name: &str, id: Uuid, partition: i32, offset: i64) -> commit::OffsetCommitRequest {
    commit::OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![commit::OffsetCommitRequestTopic {
            name: name.into(),
            topic_id: id,
            partitions: vec![commit::OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_metadata: Some("note".into()),
                ..Default::default()
            }],
        }],
        ..Default::default()
    }
}

/// (name, partition, offset, error) of each partition that OffsetFetch gives, in version 7.
async fn fetched(client: &mut Client, names: Option<&[&str]>) -> Vec<(Str, i32, i64, i16)> {
    let topics = names.map(|names| {
        let topic = |name: &&str| fetch::OffsetFetchRequestTopic {
            name: (*name).into(),
            partition_indexes: vec![0],
        };
        names.iter().map(topic).collect()
    });
    let request = fetch::OffsetFetchRequest { group_id: "g".into(), topics, ..Default::default() };
    let response = client.call(&request, 7).await;
    assert_eq!(response.error_code, 0);
    let topics = response.topics.into_iter();
    topics
        .flat_map(|topic| {
            let name = topic.name;
            topic
                .partitions
                .into_iter()
                .map(move |p| (name.clone(), p.partition_index, p.committed_offset, p.error_code))
        })
        .collect()
}

#[tokio::test]
async fn commits_by_name_and_by_id_are_the_same() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let id = client.create_topic("t", 2).await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    for (version, request, error) in [
        (2, commit_at("t", Uuid::ZERO, 0, 10), 0),
        (9, commit_at("t", Uuid::ZERO, 0, 11), 0),
        (10, commit_at("", id, 0, 12), 0),
        (9, commit_at("u", Uuid::ZERO, 0, 1), unknown),
        (9, commit_at("t", Uuid::ZERO, 2, 1), unknown),
        (10, commit_at("", Uuid([9; 16]), 0, 1), ErrorCode::UnknownTopicId.code()),
    ] {
        let response = client.call(&request, version).await;
        let topic = &response.topics[0];
        assert_eq!(topic.partitions[0].error_code, error);
        let (asked, told) = (&request.topics[0], topic);
        assert_eq!((&told.name, told.topic_id), (&asked.name, asked.topic_id));
    }
    let t = || Str::from_static("t");
    assert_eq!(fetched(&mut client, Some(&["t"])).await, [(t(), 0, 12, 0)]);
    assert_eq!(fetched(&mut client, None).await, [(t(), 0, 12, 0)]);
    // Kafka looks for commits, not for topics.
    assert_eq!(fetched(&mut client, Some(&["u"])).await, [("u".into(), 0, -1, 0)]);
}

#[tokio::test]
async fn several_groups_are_answered_side_by_side() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let id = client.create_topic("t", 1).await;
    client.call(&commit_at("t", Uuid::ZERO, 0, 10), 9).await;
    let group = |group_id: &str, topics: Option<Vec<(&str, Uuid)>>| {
        let topics = topics.map(|topics| {
            let topic = |(name, topic_id): (&str, Uuid)| fetch::OffsetFetchRequestTopics {
                name: name.into(),
                topic_id,
                partition_indexes: vec![0],
            };
            topics.into_iter().map(topic).collect()
        });
        fetch::OffsetFetchRequestGroup { group_id: group_id.into(), topics, ..Default::default() }
    };
    let ask = |groups| fetch::OffsetFetchRequest { groups, ..Default::default() };
    let missing = Uuid([9; 16]);
    let by_name = ask(vec![
        group("other", Some(vec![("t", Uuid::ZERO)])),
        group("g", Some(vec![("u", Uuid::ZERO), ("t", Uuid::ZERO)])),
        group("g", None),
    ]);
    let response = client.call(&by_name, 9).await;
    let offsets: Vec<Vec<_>> = response
        .groups
        .iter()
        .map(|g| g.topics.iter().map(|t| (&*t.name, t.partitions[0].committed_offset)).collect())
        .collect();
    assert_eq!(offsets, [vec![("t", -1)], vec![("u", -1), ("t", 10)], vec![("t", 10)]]);
    let by_id = ask(vec![group("g", Some(vec![("", missing), ("", id)]))]);
    let response = client.call(&by_id, 10).await;
    let told: Vec<_> = response.groups[0]
        .topics
        .iter()
        .map(|t| (t.topic_id, t.partitions[0].committed_offset, t.partitions[0].error_code))
        .collect();
    assert_eq!(told, [(missing, -1, ErrorCode::UnknownTopicId.code()), (id, 10, 0)]);
}

#[tokio::test]
async fn a_topic_made_again_has_no_commits_of_the_one_before() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    client.call(&commit_at("t", Uuid::ZERO, 0, 10), 9).await;
    let delete = DeleteTopicsRequest { topic_names: vec!["t".into()], ..Default::default() };
    client.call(&delete, 5).await;
    assert_eq!(fetched(&mut client, None).await, []);
    client.create_topic("t", 1).await;
    assert_eq!(fetched(&mut client, Some(&["t"])).await, [("t".into(), 0, -1, 0)]);
}

#[tokio::test]
async fn offsets_are_forgotten_by_name() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    client.call(&commit_at("t", Uuid::ZERO, 0, 10), 9).await;
    let ask = |group: &str| {
        let topic = |name: &str| forget::OffsetDeleteRequestTopic {
            name: name.into(),
            partitions: vec![
                forget::OffsetDeleteRequestPartition { partition_index: 0 },
                forget::OffsetDeleteRequestPartition { partition_index: 1 },
            ],
        };
        let topics = vec![topic("u"), topic("t")];
        forget::OffsetDeleteRequest { group_id: group.into(), topics }
    };
    let response = client.call(&ask("nobody"), 0).await;
    assert_eq!(response.error_code, ErrorCode::GroupIdNotFound.code());
    assert!(response.topics.is_empty());
    let response = client.call(&ask("g"), 0).await;
    let codes: Vec<_> = response
        .topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(|p| (&*t.name, p.partition_index, p.error_code)))
        .collect();
    assert_eq!(codes, [("u", 0, 3), ("u", 1, 3), ("t", 0, 0), ("t", 1, 3)]);
    assert_eq!(fetched(&mut client, None).await, []);
}

#[tokio::test]
async fn old_versions_get_what_they_can_say() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let join = JoinGroupRequest { group_id: "g".into(), ..Default::default() };
    for version in 0..=9 {
        // The backend gives a null protocol and skips the assignment.
        let response = client.call(&join, version).await;
        assert_eq!(response.protocol_name.is_none(), version >= 7);
        assert_eq!(response.skip_assignment, version >= 9);
        let describe = DescribeGroupsRequest {
            groups: vec!["g".into()],
            include_authorized_operations: version >= 3,
        };
        if version <= 6 {
            let group = client.call(&describe, version).await.groups.remove(0);
            assert_eq!(group.error_message.is_some(), version == 6);
            let operations = if version >= 3 { permitted::GROUP } else { i32::MIN };
            assert_eq!(group.authorized_operations, operations);
        }
        if version <= 5 {
            assert_eq!(client.call(&LeaveGroupRequest::default(), version).await.error_code, 0);
        }
    }
}
