//! Produce, Fetch, ListOffsets, DeleteRecords and OffsetForLeaderEpoch: what each field does.

use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use sluice_wire::messages::delete_records_request as truncate;
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use sluice_wire::messages::list_offsets_request as list;
use sluice_wire::messages::offset_for_leader_epoch_request as epochs;
use sluice_wire::{ErrorCode, Uuid};

use super::client::{Client, batch, produce};
use super::memory::EPOCH;
use super::{NODE, Server};

fn fetch(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    FetchRequest {
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: i32::MAX,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// All that one fetch gives of a partition.
pub(super) async fn fetch_one(
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Bytes {
    let response = client.call(&fetch(topic, partition, offset), 11).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0);
    partition.records.as_ref().unwrap().to_bytes()
}

#[tokio::test]
async fn produce_checks_what_the_version_allows() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 2).await;
    let good = batch(3, b"payload");
    let changed = |at: usize, to: u8| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at] = to;
        bytes.freeze()
    };
    let two = [&good[..], &good[..]].concat();
    let code = |code: ErrorCode| code.code();
    for (version, request, expected) in [
        (8, produce("t", 0, 1, good.clone()), 0),
        (8, produce("t", 2, 1, good.clone()), code(ErrorCode::UnknownTopicOrPartition)),
        (8, produce("t", -1, 1, good.clone()), code(ErrorCode::UnknownTopicOrPartition)),
        (8, produce("u", 0, 1, good.clone()), code(ErrorCode::UnknownTopicOrPartition)),
        (8, produce("t", 0, 2, good.clone()), code(ErrorCode::InvalidRequiredAcks)),
        (8, produce("t", 0, -2, good.clone()), code(ErrorCode::InvalidRequiredAcks)),
        (8, produce("t", 0, 1, Bytes::new()), code(ErrorCode::InvalidRecord)),
        (8, produce("t", 0, 1, two.into()), code(ErrorCode::InvalidRecord)),
        (8, produce("t", 0, 1, changed(16, 1)), code(ErrorCode::InvalidRecord)),
        (8, produce("t", 0, 1, changed(16, 3)), code(ErrorCode::CorruptMessage)),
        (8, produce("t", 0, 1, changed(16, 0xff)), code(ErrorCode::CorruptMessage)),
        (8, produce("t", 0, 1, good.slice(..11)), code(ErrorCode::InvalidRecord)),
        (8, produce("t", 0, 1, good.slice(..good.len() - 1)), code(ErrorCode::InvalidRecord)),
        (
            8,
            produce("t", 0, 1, changed(22, 0x10)),
            code(ErrorCode::TransactionalIdAuthorizationFailed),
        ),
        (6, produce("t", 0, 1, changed(22, 4)), code(ErrorCode::UnsupportedCompressionType)),
        (7, produce("t", 0, 1, changed(22, 4)), 0),
    ] {
        let response = client.call(&request, version).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, expected, "{request:?}");
        assert_eq!(partition.base_offset == -1, expected != 0);
    }
    let mut null = produce("t", 0, 1, good.clone());
    null.topic_data[0].partition_data[0].records = None;
    let response = client.call(&null, 9).await;
    let partition = &response.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, code(ErrorCode::InvalidRecord));
    assert!(partition.error_message.is_some());
    // By id.
    let mut by_id = produce("", 1, -1, good.clone());
    by_id.topic_data[0].topic_id = topic;
    let response = client.call(&by_id, 13).await;
    assert_eq!(response.responses[0].topic_id, topic);
    assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    by_id.topic_data[0].topic_id = Uuid([9; 16]);
    let response = client.call(&by_id, 13).await;
    assert_eq!(
        response.responses[0].partition_responses[0].error_code,
        code(ErrorCode::UnknownTopicId)
    );
}

#[tokio::test]
async fn good_and_bad_partitions_of_a_produce_are_answered_in_place() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 2).await;
    let mut request = produce("t", 1, -1, batch(2, b"b"));
    let mut missing = produce("u", 0, -1, batch(1, b"x"));
    let mut again = produce("t", 0, -1, batch(1, b"a"));
    request.topic_data.append(&mut missing.topic_data);
    request.topic_data.append(&mut again.topic_data);
    let response = client.call(&request, 9).await;
    let codes: Vec<_> = response
        .responses
        .iter()
        .map(|t| (&*t.name, t.partition_responses[0].index, t.partition_responses[0].error_code))
        .collect();
    assert_eq!(codes, [("t", 1, 0), ("u", 0, 3), ("t", 0, 0)]);
}

#[tokio::test]
async fn a_refused_append_tells_the_leader() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    server.backend.refuse.store(true, Ordering::SeqCst);
    for version in [8, 9, 10, 12] {
        let response = client.call(&produce("t", 0, -1, batch(1, b"x")), version).await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, ErrorCode::NotLeaderOrFollower.code());
        assert_eq!(partition.error_message.as_deref(), Some("it is elsewhere"));
        assert_eq!(partition.record_errors[0].batch_index, 0);
        let leader = if version >= 10 { (NODE.0, EPOCH) } else { (-1, -1) };
        let told = &partition.current_leader;
        assert_eq!((told.leader_id, told.leader_epoch), leader);
        assert_eq!(response.node_endpoints.len(), usize::from(version >= 10));
    }
}

#[tokio::test]
async fn a_fetch_session_is_its_connections_and_tells_what_is_new() {
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.create_topic("t", 1).await;
    let whole =
        |session_id, session_epoch| FetchRequest { session_id, session_epoch, ..fetch("t", 0, 0) };
    let next = |session_id, session_epoch| FetchRequest {
        topics: Vec::new(),
        ..whole(session_id, session_epoch)
    };
    let id = client.call(&whole(0, 0), 12).await.session_id;
    assert!(id > 0);
    let quiet = client.call(&next(id, 1), 12).await;
    assert_eq!((quiet.error_code, quiet.session_id, quiet.responses.len()), (0, id, 0));
    other.call(&produce("t", 0, -1, batch(1, b"x")), 9).await;
    let news = client.call(&next(id, 2), 12).await;
    let partition = &news.responses[0].partitions[0];
    assert_eq!((news.responses[0].topic.as_ref(), partition.high_watermark), ("t", 1));
    assert!(partition.records.as_ref().is_some_and(|records| !records.is_empty()));
    // Not there for another connection, nor under another id or epoch; each without partitions.
    for (is_other, request, error) in [
        (true, next(id, 3), ErrorCode::FetchSessionIdNotFound),
        (false, next(id + 1, 3), ErrorCode::FetchSessionIdNotFound),
        (false, next(id, 4), ErrorCode::InvalidFetchSessionEpoch),
        (false, next(0, 1), ErrorCode::FetchSessionIdNotFound),
    ] {
        let client = if is_other { &mut other } else { &mut client };
        let refused = client.call(&request, 12).await;
        let refused = (refused.error_code, refused.session_id, refused.responses.len());
        assert_eq!(refused, (error.code(), 0, 0));
    }
    let mixed = client.call(&next(id, 3), 13).await;
    assert_eq!(mixed.error_code, ErrorCode::FetchSessionTopicIdError.code());
    assert_eq!(client.call(&next(id, 3), 12).await.error_code, 0);
    // Ended, with the partitions that the request names itself.
    let last = client.call(&whole(id, -1), 12).await;
    assert_eq!((last.error_code, last.session_id, last.responses.len()), (0, 0, 1));
    let gone = client.call(&next(id, 4), 12).await;
    assert_eq!(gone.error_code, ErrorCode::FetchSessionIdNotFound.code());
}

#[tokio::test]
async fn fetch_respects_its_limits_and_gives_one_batch_at_least() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    for _ in 0..4 {
        client.call(&produce("t", 0, -1, batch(1, &[1; 1_000])), 9).await;
    }
    for (max_bytes, partition_max_bytes, batches) in [
        (i32::MAX, i32::MAX, 4),
        (1, i32::MAX, 1),
        (i32::MAX, 1, 1),
        (0, 0, 1),
        (-5, -5, 1),
        (2_200, i32::MAX, 2),
        (i32::MAX, 3_300, 3),
    ] {
        let mut request = FetchRequest { max_bytes, min_bytes: i32::MAX, ..fetch("t", 0, 0) };
        request.topics[0].partitions[0].partition_max_bytes = partition_max_bytes;
        let response = client.call(&request, 11).await;
        let records = response.responses[0].partitions[0].records.as_ref().unwrap();
        assert_eq!(records.len(), batches * 1_061, "{max_bytes} {partition_max_bytes}");
    }
}

#[tokio::test]
async fn a_partition_that_is_named_twice_is_fetched_once_as_it_was_last_asked_for() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 3).await;
    client.call(&produce("t", 1, -1, batch(1, b"a")), 9).await;
    client.call(&produce("t", 1, -1, batch(1, b"b")), 9).await;
    let mut request = fetch("t", 1, 0);
    let partitions = &mut request.topics[0].partitions;
    let place = |partition, fetch_offset| {
        let of = partitions[0].clone();
        FetchPartition { partition, fetch_offset, ..of }
    };
    *partitions = vec![place(1, 0), place(2, 0), place(0, 0), place(1, 1)];
    let response = client.call(&request, 11).await;
    let told: Vec<_> = response.responses[0].partitions.iter().map(|p| p.partition_index).collect();
    assert_eq!(told, [1, 2, 0]);
    let only = fetch_one(&mut client, "t", 1, 1).await;
    let records = response.responses[0].partitions[0].records.as_ref().unwrap().to_bytes();
    assert!(!only.is_empty());
    assert_eq!(records, only);
}

#[tokio::test]
async fn an_isolation_level_that_does_not_exist_fails_a_fetch() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let request = FetchRequest { isolation_level: 2, ..fetch("t", 0, 0) };
    let response = client.call(&request, 11).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!((response.error_code, partition.error_code), (-1, -1));
    assert_eq!(client.call(&request, 13).await.responses.len(), 0);
}

#[tokio::test]
async fn fetch_errors_by_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic = client.create_topic("t", 1).await;
    for (request, version, error) in [
        (fetch("u", 0, 0), 4, ErrorCode::UnknownTopicOrPartition),
        (fetch("t", 1, 0), 12, ErrorCode::UnknownTopicOrPartition),
        (fetch("t", -1, 0), 12, ErrorCode::UnknownTopicOrPartition),
        (fetch("t", 0, 9), 12, ErrorCode::OffsetOutOfRange),
        (FetchRequest { replica_id: 1, ..fetch("t", 0, 0) }, 12, ErrorCode::NotLeaderOrFollower),
        (fetch("", 0, 0), 13, ErrorCode::UnknownTopicId),
    ] {
        let response = client.call(&request, version).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, error.code());
        assert_eq!(partition.high_watermark, -1);
        assert!(partition.records.as_ref().is_some_and(|records| records.is_empty()));
    }
    // A stale epoch, by id: the leader is told from version 16 on.
    let mut stale = fetch("", 0, 0);
    stale.topics[0].topic_id = topic;
    stale.topics[0].partitions[0].current_leader_epoch = EPOCH - 1;
    for version in [13, 15, 16, 18] {
        let response = client.call(&stale, version).await;
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.error_code, ErrorCode::FencedLeaderEpoch.code());
        let leader = if version >= 16 { NODE.0 } else { -1 };
        assert_eq!(partition.current_leader.leader_id, leader);
        assert_eq!(response.node_endpoints.len(), usize::from(version >= 16));
    }
}

#[tokio::test]
async fn list_offsets_knows_each_timestamp_since_its_version() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    client.call(&produce("t", 0, -1, batch(5, b"x")), 9).await;
    let ask = |timestamp| list::ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list::ListOffsetsTopic {
            name: "t".into(),
            partitions: vec![list::ListOffsetsPartition { timestamp, ..Default::default() }],
        }],
        ..Default::default()
    };
    for (timestamp, since, offset) in
        [(-1, 1, 5), (-2, 1, 0), (-3, 7, 4), (-4, 8, 0), (-5, 9, -1), (-6, 11, -1), (1_000, 1, -1)]
    {
        for version in 1..=11 {
            let response = client.call(&ask(timestamp), version).await;
            let partition = &response.topics[0].partitions[0];
            let expected = if version >= since {
                (0, offset, if version >= 4 { EPOCH } else { -1 })
            } else {
                (ErrorCode::UnsupportedVersion.code(), -1, -1)
            };
            let told = (partition.error_code, partition.offset, partition.leader_epoch);
            assert_eq!(told, expected, "timestamp {timestamp} version {version}");
        }
    }
    let response = client.call(&ask(-7), 11).await;
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::UnsupportedVersion.code());
    // A partition that is asked for twice is refused once.
    let mut twice = ask(-1);
    let again = twice.topics[0].partitions[0].clone();
    twice.topics[0].partitions.push(again);
    let response = client.call(&twice, 5).await;
    let codes: Vec<_> = response.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [42]);
    let request = list::ListOffsetsRequest { isolation_level: 7, ..ask(-1) };
    let response = client.call(&request, 5).await;
    assert_eq!(response.topics[0].partitions[0].error_code, -1);
}

#[tokio::test]
async fn delete_records_moves_the_start_and_leaves_compacted_topics_alone() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    client.call(&produce("t", 0, -1, batch(5, b"x")), 9).await;
    let ask = |topic: &str, offset| truncate::DeleteRecordsRequest {
        topics: vec![truncate::DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![truncate::DeleteRecordsPartition { partition_index: 0, offset }],
        }],
        ..Default::default()
    };
    let range = ErrorCode::OffsetOutOfRange;
    for (topic, offset, low, error) in [
        ("t", 3, 3, ErrorCode::None),
        ("t", 2, 3, ErrorCode::None),
        ("t", 9, -1, range),
        ("t", -2, -1, range),
        ("t", -1, 5, ErrorCode::None),
        ("u", 0, -1, ErrorCode::UnknownTopicOrPartition),
    ] {
        let response = client.call(&ask(topic, offset), 2).await;
        let partition = &response.topics[0].partitions[0];
        assert_eq!((partition.low_watermark, partition.error_code), (low, error.code()));
    }
    super::configs::set(&mut client, "t", "cleanup.policy", "compact").await;
    let response = client.call(&ask("t", -1), 2).await;
    assert_eq!(response.topics[0].partitions[0].error_code, ErrorCode::PolicyViolation.code());
}

#[tokio::test]
async fn ends_of_epochs() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    client.call(&produce("t", 0, -1, batch(5, b"x")), 9).await;
    for (topic, epoch, expected) in
        [("t", EPOCH, (0, EPOCH, 5)), ("t", 0, (0, -1, -1)), ("u", 0, (3, -1, -1))]
    {
        let request = epochs::OffsetForLeaderEpochRequest {
            topics: vec![epochs::OffsetForLeaderTopic {
                topic: topic.into(),
                partitions: vec![epochs::OffsetForLeaderPartition {
                    leader_epoch: epoch,
                    ..Default::default()
                }],
            }],
            ..Default::default()
        };
        let response = client.call(&request, 4).await;
        let end = &response.topics[0].partitions[0];
        assert_eq!((end.error_code, end.leader_epoch, end.end_offset), expected);
    }
}
