//! The group coordinator on a real log: what it remembers through crashes, uploads and snapshots.

use sluice_model::TenantId;
use sluice_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sluice_wire::messages::offset_fetch_request::{OffsetFetchRequest, OffsetFetchRequestGroup};
use sluice_wire::{ErrorCode, Str, Uuid};

use super::cluster::{Cluster, until_bucket};
use crate::Writer;
use crate::group::GroupCaller;

pub(super) fn caller() -> GroupCaller {
    GroupCaller {
        tenant: TenantId::OPEN,
        client_id: Str::from_static("c"),
        client_host: Str::from_static("/127.0.0.1"),
    }
}

/// Commits as a consumer that assigns its partitions itself. `note` is kept beside the offset.
pub(super) async fn commit(
    writer: &Writer,
    group: &str,
    topic: Uuid,
    offset: i64,
    note: &str,
) -> ErrorCode {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        committed_metadata: Some(Str::from(note)),
        ..Default::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: Str::from_static("t"),
        topic_id: topic,
        partitions: vec![partition],
    };
    let request = OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = writer.groups().offset_commit(&caller(), 10, request).await;
    ErrorCode::from_code(answer.topics[0].partitions[0].error_code)
}

pub(super) async fn committed(writer: &Writer, group: &str) -> Vec<i64> {
    let group =
        OffsetFetchRequestGroup { group_id: Str::from(group), topics: None, ..Default::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
    let answer = writer.groups().offset_fetch(&caller(), request).await;
    let topics = answer.groups[0].topics.iter();
    topics.flat_map(|topic| topic.partitions.iter().map(|p| p.committed_offset)).collect()
}

#[tokio::test]
async fn offsets_survive_a_crash_from_the_volume_and_from_the_bucket() {
    for upload in [false, true] {
        let mut cluster = Cluster::new().await;
        if upload {
            cluster.options.upload_segment_bytes = 1;
        }
        let topic = Uuid(cluster.topic("t", &[]).await.id.0);
        let writer = cluster.start().await;
        for offset in 1..=20 {
            let group = format!("g{}", offset % 3);
            assert_eq!(commit(&writer, &group, topic, offset, "").await, ErrorCode::None);
        }
        if upload {
            until_bucket(&writer, |s| s.streams.values().any(|stream| stream.end_offset == 20))
                .await;
        }
        writer.abandon().await;
        drop(writer);
        let writer = cluster.start().await;
        for (group, offset) in [("g0", 18), ("g1", 19), ("g2", 20)] {
            assert_eq!(committed(&writer, group).await, [offset], "{group}, upload {upload}");
        }
        assert_eq!(committed(&writer, "g3").await, [0_i64; 0]);
    }
}

#[tokio::test]
async fn a_snapshot_replaces_the_log_before_it() {
    let mut cluster = Cluster::new().await;
    cluster.options.upload_segment_bytes = 256 << 10;
    let topic = Uuid(cluster.topic("t", &[]).await.id.0);
    let writer = cluster.start().await;
    let note = "n".repeat(4000);
    // Enough for the log to outgrow its bound more than once.
    for offset in 1..=2600 {
        let group = format!("g{}", offset % 7);
        assert_eq!(commit(&writer, &group, topic, offset, &note).await, ErrorCode::None);
    }
    until_bucket(&writer, |state| state.coordinator.is_some_and(|snapshot| snapshot.offset > 1300))
        .await;
    // What the snapshot holds is gone from the log.
    until_bucket(&writer, |state| state.streams.values().any(|stream| stream.log_start > 0)).await;
    commit(&writer, "late", topic, 7, "").await;
    writer.abandon().await;
    drop(writer);
    let writer = cluster.start().await;
    for offset in 2594..=2600 {
        assert_eq!(committed(&writer, &format!("g{}", offset % 7)).await, [offset]);
    }
    assert_eq!(committed(&writer, "late").await, [7]);
}

#[tokio::test]
async fn offsets_go_with_their_topic() {
    let cluster = Cluster::new().await;
    let topic = cluster.topic("t", &[]).await;
    let writer = cluster.start().await;
    commit(&writer, "g", Uuid(topic.id.0), 5, "").await;
    cluster.catalog.delete_topic(topic.tenant, topic.id).await.unwrap();
    let gone = async {
        while !committed(&writer, "g").await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(5), gone).await.unwrap();
}
