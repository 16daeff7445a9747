//! Two tenants behind two listeners of one gateway: each sees a cluster of its own, and what is the
//! other's is exactly as absent as what does not exist.

use sluice_model::TenantId;
use sluice_wire::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::list_groups_request::ListGroupsRequest;
use sluice_wire::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use sluice_wire::messages::offset_commit_request as commit;
use sluice_wire::messages::offset_fetch_request as offsets;
use sluice_wire::{ErrorCode, Uuid};

use super::Server;
use super::client::{Client, batch, produce};

/// The answers to every request that takes a topic id, for one id.
async fn by_id(client: &mut Client, id: Uuid) -> Vec<i16> {
    let mut codes = Vec::new();
    let mut append = produce("", 0, -1, batch(1, b"x"));
    append.topic_data[0].topic_id = id;
    let response = client.call(&append, 13).await;
    codes.push(response.responses[0].partition_responses[0].error_code);
    let fetch = FetchRequest {
        topics: vec![FetchTopic {
            topic_id: id,
            partitions: vec![FetchPartition::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    for version in 13..=18 {
        codes.push(client.call(&fetch, version).await.responses[0].partitions[0].error_code);
    }
    let metadata = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { topic_id: id, name: None }]),
        ..Default::default()
    };
    for version in 12..=13 {
        let response = client.call(&metadata, version).await;
        assert_eq!((&response.topics[0].name, response.topics[0].partitions.len()), (&None, 0));
        codes.push(response.topics[0].error_code);
    }
    let commit = commit::OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![commit::OffsetCommitRequestTopic {
            topic_id: id,
            partitions: vec![commit::OffsetCommitRequestPartition::default()],
            ..Default::default()
        }],
        ..Default::default()
    };
    codes.push(client.call(&commit, 10).await.topics[0].partitions[0].error_code);
    let fetch = offsets::OffsetFetchRequest {
        groups: vec![offsets::OffsetFetchRequestGroup {
            group_id: "g".into(),
            topics: Some(vec![offsets::OffsetFetchRequestTopics {
                topic_id: id,
                partition_indexes: vec![0],
                ..Default::default()
            }]),
            ..Default::default()
        }],
        ..Default::default()
    };
    codes.push(client.call(&fetch, 10).await.groups[0].topics[0].partitions[0].error_code);
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState { name: None, topic_id: id }],
        ..Default::default()
    };
    let response = client.call(&delete, 6).await;
    assert_eq!(response.responses[0].name, None);
    codes.push(response.responses[0].error_code);
    codes
}

#[tokio::test]
async fn another_tenants_topic_ids_are_unknown() {
    let server = Server::with(|_| {}, &[TenantId(1), TenantId(2)]).await;
    let mut a = server.client_of(0).await;
    let mut b = server.client_of(1).await;
    let id = a.create_topic("secret", 1).await;
    a.call(&produce("secret", 0, -1, batch(1, b"x")), 9).await;
    let theirs = by_id(&mut b, id).await;
    assert!(theirs.iter().all(|code| *code == ErrorCode::UnknownTopicId.code()), "{theirs:?}");
    assert_eq!(theirs, by_id(&mut b, Uuid([9; 16])).await);
    // Nothing of it reached the backend or the catalog.
    let records = super::streams::fetch_one(&mut a, "secret", 0, 0).await;
    assert_eq!(records.len(), 62);
}

#[tokio::test]
async fn ids_of_the_house_are_nobodys() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let id = Uuid(sluice_model::TopicId::coordinator_log().0);
    let codes = by_id(&mut client, id).await;
    assert!(codes.iter().all(|code| *code == ErrorCode::UnknownTopicId.code()), "{codes:?}");
}

#[tokio::test]
async fn each_tenant_has_its_own_cluster_topics_and_groups() {
    let server = Server::with(|_| {}, &[TenantId(1), TenantId(2)]).await;
    let mut a = server.client_of(0).await;
    let mut b = server.client_of(1).await;
    let of_a = a.create_topic("t", 1).await;
    let of_b = b.create_topic("t", 2).await;
    assert_ne!(of_a, of_b);
    a.create_topic("only-a", 1).await;
    let all = MetadataRequest { topics: None, ..Default::default() };
    let seen_by_a = a.call(&all, 12).await;
    let seen_by_b = b.call(&all, 12).await;
    assert_eq!((seen_by_a.topics.len(), seen_by_b.topics.len()), (2, 1));
    assert_eq!(seen_by_b.topics[0].partitions.len(), 2);
    assert_ne!(seen_by_a.cluster_id, seen_by_b.cluster_id);

    a.call(&produce("t", 0, -1, batch(1, b"of a")), 9).await;
    b.call(&produce("t", 0, -1, batch(1, b"of b")), 9).await;
    let records = super::streams::fetch_one(&mut b, "t", 0, 0).await;
    assert_eq!(records.slice(61..), "of b");
    // A name that collides with another tenant's is no collision.
    b.create_topic("only_a", 1).await;

    let join = JoinGroupRequest { group_id: "g".into(), ..Default::default() };
    a.call(&join, 9).await;
    assert_eq!(a.call(&ListGroupsRequest::default(), 5).await.groups.len(), 1);
    assert!(b.call(&ListGroupsRequest::default(), 5).await.groups.is_empty());
}
