//! DescribeTopicPartitions: pages of topics, followed by their cursors.

use std::collections::BTreeMap;

use sluice_wire::ErrorCode;
use sluice_wire::messages::describe_topic_partitions_request as pages;
use sluice_wire::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponse;

use super::client::Client;
use super::memory::EPOCH;
use super::{NODE, Server};
use crate::handlers::permitted;

pub(super) fn page_of(
    names: &[&str],
    limit: i32,
    cursor: Option<(&str, i32)>,
) -> pages::DescribeTopicPartitionsRequest {
    let topics = names.iter().map(|name| pages::TopicRequest { name: (*name).into() });
    pages::DescribeTopicPartitionsRequest {
        topics: topics.collect(),
        response_partition_limit: limit,
        cursor: cursor.map(|(topic_name, partition_index)| pages::Cursor {
            topic_name: topic_name.into(),
            partition_index,
        }),
    }
}

/// (name, code, partitions) of each topic, and the next cursor.
pub(super) type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

fn seen(answer: &DescribeTopicPartitionsResponse) -> Page {
    let topics = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| partition.partition_index);
        (topic.name.clone().unwrap().to_string(), topic.error_code, partitions.collect())
    });
    let cursor = answer.next_cursor.as_ref();
    (topics.collect(), cursor.map(|c| (c.topic_name.to_string(), c.partition_index)))
}

pub(super) async fn page(
    client: &mut Client,
    request: pages::DescribeTopicPartitionsRequest,
) -> Page {
    seen(&client.call(&request, 0).await)
}

pub(super) fn topic(name: &str, partitions: &[i32]) -> (String, i16, Vec<i32>) {
    (name.to_owned(), 0, partitions.to_vec())
}

#[tokio::test]
async fn topics_come_in_pages() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    let id = client.create_topic("a", 3).await;
    client.create_topic("b", 1).await;
    client.create_topic("c", 2).await;

    let answer = client.call(&page_of(&[], 2000, None), 0).await;
    let all = vec![topic("a", &[0, 1, 2]), topic("b", &[0]), topic("c", &[0, 1])];
    assert_eq!(seen(&answer), (all.clone(), None));
    let first = &answer.topics[0];
    assert_eq!((first.topic_id, first.topic_authorized_operations), (id, permitted::TOPIC));
    let partition = &first.partitions[2];
    assert_eq!((partition.leader_id, partition.leader_epoch), (NODE.0, EPOCH));
    assert_eq!((&partition.replica_nodes[..], &partition.isr_nodes[..]), (&[7][..], &[7][..]));
    assert_eq!(partition.eligible_leader_replicas, Some(Vec::new()));

    // Followed page by page, each partition comes once, whether topics are named or not.
    for names in [&[][..], &["c", "a", "b", "a"]] {
        for limit in [-1, 1, 2, 4, 6] {
            let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
            let mut cursor: Option<(String, i32)> = None;
            loop {
                let from = cursor.as_ref().map(|(name, index)| (name.as_str(), *index));
                let (topics, next) = page(client, page_of(names, limit, from)).await;
                let count: usize = topics.iter().map(|(_, _, partitions)| partitions.len()).sum();
                assert!((1..=limit.max(1).unsigned_abs() as usize).contains(&count));
                for (name, code, partitions) in topics {
                    assert_eq!(code, 0);
                    found.entry(name).or_default().extend(partitions);
                }
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            let found: Vec<_> = found.iter().map(|(name, found)| topic(name, found)).collect();
            assert_eq!(found, all, "limit {limit}");
        }
    }
    // A page that is exactly full points at the next topic.
    let full = page(client, page_of(&[], 3, None)).await;
    assert_eq!(full, (vec![topic("a", &[0, 1, 2])], Some(("b".to_owned(), 0))));
}

#[tokio::test]
async fn pages_of_what_is_not_there() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    client.create_topic("b", 2).await;
    let unknown = ErrorCode::UnknownTopicOrPartition.code();
    let invalid = ErrorCode::InvalidTopicException.code();
    let (topics, next) = page(client, page_of(&["c", "b", "a", "no/name"], 9, None)).await;
    let expected = vec![
        ("a".to_owned(), unknown, vec![]),
        topic("b", &[0, 1]),
        ("c".to_owned(), unknown, vec![]),
        ("no/name".to_owned(), invalid, vec![]),
    ];
    assert_eq!((topics, next), (expected, None));
    // A topic that went away between two pages is skipped; past the end of a topic there is nothing.
    let gone = page(client, page_of(&[], 9, Some(("a", 1)))).await;
    assert_eq!(gone, (vec![topic("b", &[0, 1])], None));
    for index in [2, i32::MAX] {
        let past = page(client, page_of(&[], 9, Some(("b", index)))).await;
        assert_eq!(past, (vec![topic("b", &[])], None));
    }
    // A cursor that was not made for this request.
    let bad = ErrorCode::InvalidRequest.code();
    for cursor in [("a", 0), ("b", -1)] {
        let (topics, next) = page(client, page_of(&["b"], 9, Some(cursor))).await;
        assert_eq!((topics, next), (vec![("b".to_owned(), bad, vec![])], None));
    }
}
