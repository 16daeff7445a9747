//! Streams groups at the front door: names in topologies, and internal topics that are made.

use sluice_model::TenantId;
use sluice_wire::messages::streams_group_describe_request::StreamsGroupDescribeRequest;
use sluice_wire::messages::streams_group_heartbeat_request as beat;
use sluice_wire::{ErrorCode, Str};

use super::Server;
use crate::handlers::permitted;

fn heartbeat(source: &str, changelog: &str, factor: i16) -> beat::StreamsGroupHeartbeatRequest {
    beat::StreamsGroupHeartbeatRequest {
        group_id: "g".into(),
        topology: Some(beat::Topology {
            subtopologies: vec![beat::Subtopology {
                source_topics: vec![source.into()],
                state_changelog_topics: vec![beat::TopicInfo {
                    name: changelog.into(),
                    replication_factor: factor,
                    ..Default::default()
                }],
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn names_are_checked() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (source, text) in [
        (
            "__consumer_offsets",
            "Use of Kafka internal topics __consumer_offsets in a Kafka Streams topology is \
             prohibited.",
        ),
        ("a b", "Topic names a b are not valid topic names."),
    ] {
        let answer = client.call(&heartbeat(source, "made", -1), 0).await;
        assert_eq!(answer.error_code, ErrorCode::StreamsInvalidTopology.code());
        assert_eq!(answer.error_message.as_deref(), Some(text));
    }
    assert!(server.catalog.topic_by_name(TenantId::OPEN, "made").is_none());
}

#[tokio::test]
async fn what_is_missing_is_made_for_its_tenant() {
    let (ours, theirs) = (TenantId(1), TenantId(2));
    let server = Server::with(|_| {}, &[ours, theirs]).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        // The second time it is there, which is no failure.
        let answer = client.call(&heartbeat("in", "made", -1), 0).await;
        let status: Vec<_> = answer.status.iter().flatten().map(|s| &*s.status_detail).collect();
        assert_eq!((&*answer.member_id, &status[..]), ("1", &["missing"][..]));
    }
    let made = server.catalog.topic_by_name(ours, "made").expect("made");
    assert_eq!(made.partitions.len(), 2);
    assert!(server.catalog.topic_by_name(theirs, "made").is_none());
    let answer = client.call(&heartbeat("in", "refused", 3), 0).await;
    let status = answer.status.expect("told").remove(0);
    let begins = "missing; Creation failed: refused (Unable to replicate the partition 3 time(s)";
    assert!(status.status_detail.starts_with(begins), "{}", status.status_detail);
}

#[tokio::test]
async fn descriptions_say_what_may_be_done() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (include, operations) in [(false, i32::MIN), (true, permitted::GROUP)] {
        let request = StreamsGroupDescribeRequest {
            group_ids: vec!["g".into(), Str::default()],
            include_authorized_operations: include,
        };
        let groups = client.call(&request, 0).await.groups;
        let told: Vec<_> = groups.iter().map(|g| (g.error_code, g.authorized_operations)).collect();
        assert_eq!(told, [(0, operations), (ErrorCode::InvalidGroupId.code(), i32::MIN)]);
    }
}
