//! Every announced version of every API is answered, readably; what is not announced is refused as
//! Kafka refuses it.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use sluice_wire::header::ResponseHeader;
use sluice_wire::messages::api_versions_response::ApiVersionsResponse;
use sluice_wire::messages::{
    add_offsets_to_txn_request::AddOffsetsToTxnRequest, add_partitions_to_txn_request as add,
    alter_configs_request as alter, alter_partition_reassignments_request as reassign,
    alter_replica_log_dirs_request as move_dirs,
    alter_share_group_offsets_request::AlterShareGroupOffsetsRequest,
    api_versions_request::ApiVersionsRequest,
    consumer_group_describe_request::ConsumerGroupDescribeRequest,
    consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest,
    create_partitions_request as grow, create_topics_request as create,
    delete_groups_request::DeleteGroupsRequest, delete_records_request as truncate,
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest,
    delete_topics_request::DeleteTopicsRequest, describe_cluster_request::DescribeClusterRequest,
    describe_configs_request as configs, describe_groups_request::DescribeGroupsRequest,
    describe_log_dirs_request::DescribeLogDirsRequest,
    describe_producers_request::DescribeProducersRequest, describe_quorum_request as quorum,
    describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest,
    describe_topic_partitions_request::DescribeTopicPartitionsRequest,
    describe_transactions_request::DescribeTransactionsRequest, elect_leaders_request as elect,
    end_txn_request::EndTxnRequest, fetch_request as fetch,
    find_coordinator_request::FindCoordinatorRequest,
    get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest,
    heartbeat_request::HeartbeatRequest, incremental_alter_configs_request as change,
    init_producer_id_request::InitProducerIdRequest, join_group_request::JoinGroupRequest,
    leave_group_request::LeaveGroupRequest,
    list_config_resources_request::ListConfigResourcesRequest,
    list_groups_request::ListGroupsRequest, list_offsets_request as list,
    list_partition_reassignments_request::ListPartitionReassignmentsRequest,
    list_transactions_request::ListTransactionsRequest, metadata_request::MetadataRequest,
    offset_commit_request as commit, offset_delete_request as forget,
    offset_fetch_request::OffsetFetchRequest, offset_for_leader_epoch_request as epochs,
    produce_request::ProduceRequest, push_telemetry_request::PushTelemetryRequest,
    share_acknowledge_request::ShareAcknowledgeRequest, share_fetch_request::ShareFetchRequest,
    share_group_describe_request::ShareGroupDescribeRequest,
    share_group_heartbeat_request::ShareGroupHeartbeatRequest,
    streams_group_describe_request::StreamsGroupDescribeRequest,
    streams_group_heartbeat_request::StreamsGroupHeartbeatRequest,
    sync_group_request::SyncGroupRequest, txn_offset_commit_request::TxnOffsetCommitRequest,
    unregister_broker_request::UnregisterBrokerRequest, update_features_request as features,
};
use sluice_wire::{ApiKey, Decoder, ErrorCode, Message, Request, Uuid};
use tokio::io::AsyncWriteExt;

use super::client::{Client, batch, produce};
use super::{NODE, Server};
use crate::failure::FirstError;
use crate::{dispatch, handlers};

/// Sends one request in each version; gives the first error of each answer.
async fn every<R: Request>(
    seen: &mut Vec<ApiKey>,
    client: &mut Client,
    mut request: impl FnMut(i16) -> R,
) -> BTreeMap<i16, i16>
where
    R::Response: FirstError,
{
    seen.push(R::KEY);
    let mut errors = BTreeMap::new();
    for version in R::KEY.versions() {
        let response = client.call(&request(version), version).await;
        errors.insert(version, response.first_error());
    }
    errors
}

/// Asserts that no version gave an error.
macro_rules! served {
    ($seen:expr, $client:expr, $request:expr) => {{
        let errors = every($seen, $client, $request).await;
        assert!(errors.values().all(|code| *code == 0), "{:?}: {errors:?}", $seen.last());
    }};
}

#[tokio::test]
async fn every_announced_version_is_served() {
    let server = Server::start().await;
    let client = &mut server.client().await;
    let id = client.create_topic("t", 2).await;
    let seen = &mut Vec::new();
    let named = |version: i16, from: i16| if version < from { "t".into() } else { "".into() };
    let ided = |version: i16, from: i16| if version < from { Uuid::ZERO } else { id };

    served!(seen, client, |version| {
        let mut request: ProduceRequest = produce("t", 0, -1, batch(1, b"x"));
        request.topic_data[0].name = named(version, 13);
        request.topic_data[0].topic_id = ided(version, 13);
        request
    });
    served!(seen, client, |version| fetch::FetchRequest {
        topics: vec![fetch::FetchTopic {
            topic: named(version, 13),
            topic_id: ided(version, 13),
            partitions: vec![fetch::FetchPartition {
                partition_max_bytes: 1 << 20,
                ..Default::default()
            }],
        }],
        ..Default::default()
    });
    served!(seen, client, |_| list::ListOffsetsRequest {
        replica_id: -1,
        topics: vec![list::ListOffsetsTopic {
            name: "t".into(),
            partitions: vec![list::ListOffsetsPartition { timestamp: -1, ..Default::default() }],
        }],
        ..Default::default()
    });
    served!(seen, client, |_| MetadataRequest::default());
    served!(seen, client, |version| commit::OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![commit::OffsetCommitRequestTopic {
            name: named(version, 10),
            topic_id: ided(version, 10),
            partitions: vec![commit::OffsetCommitRequestPartition::default()],
        }],
        ..Default::default()
    });
    served!(seen, client, |_| OffsetFetchRequest::default());
    served!(seen, client, |_| FindCoordinatorRequest::default());
    served!(seen, client, |_| JoinGroupRequest { group_id: "g".into(), ..Default::default() });
    served!(seen, client, |_| HeartbeatRequest {
        member_id: "member".into(),
        ..Default::default()
    });
    served!(seen, client, |_| LeaveGroupRequest::default());
    served!(seen, client, |version| SyncGroupRequest {
        protocol_type: (version >= 5).then(|| "consumer".into()),
        protocol_name: (version >= 5).then(|| "range".into()),
        ..Default::default()
    });
    served!(seen, client, |_| DescribeGroupsRequest {
        groups: vec!["g".into()],
        ..Default::default()
    });
    served!(seen, client, |_| ListGroupsRequest::default());
    served!(seen, client, |_| ApiVersionsRequest {
        client_software_name: "tests".into(),
        client_software_version: "1.0".into(),
    });
    served!(seen, client, |version| create::CreateTopicsRequest {
        topics: vec![create::CreatableTopic {
            name: format!("new-{version}").into(),
            num_partitions: 1,
            replication_factor: 1,
            ..Default::default()
        }],
        ..Default::default()
    });
    let errors = every(seen, client, |_| DeleteTopicsRequest::default()).await;
    assert!(errors.values().all(|code| *code == 0));
    served!(seen, client, |_| truncate::DeleteRecordsRequest {
        topics: vec![truncate::DeleteRecordsTopic {
            name: "t".into(),
            partitions: vec![truncate::DeleteRecordsPartition { partition_index: 1, offset: -1 }],
        }],
        ..Default::default()
    });
    served!(seen, client, |_| InitProducerIdRequest {
        transactional_id: None,
        ..Default::default()
    });
    served!(seen, client, |_| epochs::OffsetForLeaderEpochRequest {
        topics: vec![epochs::OffsetForLeaderTopic {
            topic: "t".into(),
            partitions: vec![epochs::OffsetForLeaderPartition::default()],
        }],
        ..Default::default()
    });
    let begun = InitProducerIdRequest {
        transactional_id: Some("tx".into()),
        transaction_timeout_ms: 1_000,
        producer_id: -1,
        producer_epoch: -1,
    };
    let producer_id = client.call(&begun, 5).await.producer_id;
    let topics = || vec![add::AddPartitionsToTxnTopic { name: "t".into(), partitions: vec![0] }];
    served!(seen, client, |version| match version {
        ..4 => add::AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: "tx".into(),
            v3_and_below_producer_id: producer_id,
            v3_and_below_topics: topics(),
            ..Default::default()
        },
        _ => add::AddPartitionsToTxnRequest {
            transactions: vec![add::AddPartitionsToTxnTransaction {
                transactional_id: "tx".into(),
                producer_id,
                topics: topics(),
                ..Default::default()
            }],
            ..Default::default()
        },
    });
    served!(seen, client, |_| AddOffsetsToTxnRequest {
        transactional_id: "tx".into(),
        producer_id,
        group_id: "g".into(),
        ..Default::default()
    });
    served!(seen, client, |_| EndTxnRequest {
        transactional_id: "tx".into(),
        producer_id,
        ..Default::default()
    });
    served!(seen, client, |_| TxnOffsetCommitRequest::default());
    served!(seen, client, |_| configs::DescribeConfigsRequest {
        resources: vec![configs::DescribeConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configuration_keys: None,
        }],
        include_synonyms: true,
        ..Default::default()
    });
    served!(seen, client, |_| alter::AlterConfigsRequest {
        resources: vec![alter::AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configs: Vec::new(),
        }],
        ..Default::default()
    });
    served!(seen, client, |_| move_dirs::AlterReplicaLogDirsRequest {
        dirs: vec![move_dirs::AlterReplicaLogDir {
            path: "sluice-volumes".into(),
            topics: vec![move_dirs::AlterReplicaLogDirTopic {
                name: "t".into(),
                partitions: vec![0],
            }],
        }],
    });
    served!(seen, client, |_| DescribeLogDirsRequest { topics: None });
    served!(seen, client, |version| grow::CreatePartitionsRequest {
        topics: vec![grow::CreatePartitionsTopic {
            name: "t".into(),
            count: 3 + i32::from(version),
            assignments: None,
        }],
        ..Default::default()
    });
    served!(seen, client, |_| DeleteGroupsRequest::default());
    let errors = every(seen, client, |_| elect::ElectLeadersRequest {
        topic_partitions: Some(vec![elect::TopicPartitions {
            topic: "t".into(),
            partitions: vec![0],
        }]),
        ..Default::default()
    });
    let not_needed = ErrorCode::ElectionNotNeeded.code();
    assert!(errors.await.values().all(|code| *code == not_needed));
    served!(seen, client, |_| change::IncrementalAlterConfigsRequest {
        resources: vec![change::AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configs: vec![change::AlterableConfig {
                name: "retention.ms".into(),
                config_operation: 0,
                value: Some("1000".into()),
            }],
        }],
        ..Default::default()
    });
    served!(seen, client, |_| reassign::AlterPartitionReassignmentsRequest {
        topics: vec![reassign::ReassignableTopic {
            name: "t".into(),
            partitions: vec![reassign::ReassignablePartition {
                partition_index: 0,
                replicas: Some(vec![NODE.0]),
            }],
        }],
        ..Default::default()
    });
    served!(seen, client, |_| ListPartitionReassignmentsRequest::default());
    served!(seen, client, |_| forget::OffsetDeleteRequest {
        group_id: "g".into(),
        ..Default::default()
    });
    served!(seen, client, |_| quorum::DescribeQuorumRequest {
        topics: vec![quorum::TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![quorum::PartitionData::default()],
        }],
    });
    let errors = every(seen, client, |_| features::UpdateFeaturesRequest {
        feature_updates: vec![features::FeatureUpdateKey {
            feature: "group.version".into(),
            max_version_level: 1,
            ..Default::default()
        }],
        ..Default::default()
    });
    let invalid = ErrorCode::InvalidUpdateVersion.code();
    assert!(errors.await.values().all(|code| *code == invalid));
    served!(seen, client, |_| DescribeClusterRequest::default());
    served!(seen, client, |_| DescribeProducersRequest::default());
    let errors = every(seen, client, |_| UnregisterBrokerRequest { broker_id: NODE.0 }).await;
    let denied = ErrorCode::ClusterAuthorizationFailed.code();
    assert!(errors.values().all(|code| *code == denied));
    served!(seen, client, |_| DescribeTransactionsRequest { transactional_ids: vec!["tx".into()] });
    served!(seen, client, |_| ListTransactionsRequest::default());
    served!(seen, client, |_| ConsumerGroupHeartbeatRequest::default());
    served!(seen, client, |_| ConsumerGroupDescribeRequest::default());
    served!(seen, client, |_| GetTelemetrySubscriptionsRequest::default());
    let errors = every(seen, client, |_| PushTelemetryRequest::default()).await;
    // A client without an id has nothing to push.
    assert!(errors.values().all(|code| *code == ErrorCode::InvalidRequest.code()));
    served!(seen, client, |_| ListConfigResourcesRequest::default());
    served!(seen, client, |_| DescribeTopicPartitionsRequest::default());
    served!(seen, client, |_| ShareGroupHeartbeatRequest::default());
    served!(seen, client, |_| ShareGroupDescribeRequest::default());
    served!(seen, client, |_| ShareFetchRequest::default());
    served!(seen, client, |_| ShareAcknowledgeRequest::default());
    served!(seen, client, |_| StreamsGroupHeartbeatRequest::default());
    served!(seen, client, |_| StreamsGroupDescribeRequest::default());
    served!(seen, client, |_| DescribeShareGroupOffsetsRequest::default());
    served!(seen, client, |_| AlterShareGroupOffsetsRequest::default());
    served!(seen, client, |_| DeleteShareGroupOffsetsRequest::default());

    assert_eq!(seen, dispatch::SERVED, "the table and this test differ");
}

#[tokio::test]
async fn what_is_announced_is_what_is_dispatched() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = ApiVersionsRequest {
        client_software_name: "tests".into(),
        client_software_version: "1.0".into(),
    };
    for version in ApiKey::ApiVersions.versions() {
        let response = client.call(&request, version).await;
        assert_eq!(response.api_keys, handlers::api_versions::announced());
    }
    for api in handlers::api_versions::announced() {
        let key = ApiKey::from_code(api.api_key).unwrap();
        let lowest = if key == ApiKey::Produce { 0 } else { *key.versions().start() };
        assert_eq!((api.min_version, api.max_version), (lowest, *key.versions().end()), "{key}");
    }
    assert_eq!(server.metric(r#"gateway_client_software_total{name="tests",version="1.0"}"#), 2);
}

#[tokio::test]
async fn software_names_that_are_none_are_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for name in ["", "-x", "x-", "a b", "ü"] {
        let request = ApiVersionsRequest {
            client_software_name: name.into(),
            client_software_version: "1".into(),
        };
        assert_eq!(client.call(&request, 3).await.error_code, 42, "{name:?}");
        assert_eq!(client.call(&request, 2).await.error_code, 0);
    }
}

/// `[length][key][version][correlation id][client id: null]` and some bytes.
fn raw(key: i16, version: i16, body: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(10 + body.len()).unwrap());
    frame.put_i16(key);
    frame.put_i16(version);
    frame.put_i32(5);
    frame.put_i16(-1);
    frame.put_slice(body);
    frame
}

#[tokio::test]
async fn unknown_api_versions_are_answered_in_version_0() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for version in [5, 99, i16::MAX, -1] {
        client.stream.write_all(&raw(18, version, b"whatever this may be")).await.unwrap();
        let mut decoder = Decoder::new(client.receive().await.unwrap());
        let header = ResponseHeader::decode(&mut decoder, 0).unwrap();
        assert_eq!(header.correlation_id, 5);
        let response = ApiVersionsResponse::decode(&mut decoder, 0).unwrap();
        assert_eq!((response.error_code, decoder.remaining()), (35, 0));
        let only: Vec<_> =
            response.api_keys.iter().map(|k| (k.api_key, k.min_version, k.max_version)).collect();
        assert_eq!(only, [(18, 0, 4)]);
    }
    // The connection goes on.
    assert_eq!(client.call(&MetadataRequest::default(), 9).await.brokers.len(), 1);
}

#[tokio::test]
async fn what_is_not_served_ends_the_connection() {
    let server = Server::start().await;
    for (frame, reason) in [
        (raw(0, 2, &[]), "unsupported_version"),
        (raw(3, 14, &[]), "unsupported_version"),
        (raw(3, -1, &[]), "unsupported_version"),
        (raw(27, 1, &[]), "unknown_api"),
        (raw(999, 0, &[]), "unknown_api"),
        (raw(-1, 0, &[]), "unknown_api"),
        (raw(3, 4, b"\x7f\xff\xff\xff"), "malformed_request"),
        (raw(0, 7, b""), "malformed_request"),
    ] {
        let name = format!(r#"gateway_connections_closed_total{{reason="{reason}"}}"#);
        let before = server.metric(&name);
        let mut client = server.client().await;
        // What was asked before is still answered.
        let id = client.send(&ApiVersionsRequest::default(), 0).await;
        client.stream.write_all(&frame).await.unwrap();
        client.answer::<ApiVersionsRequest>(0, id).await;
        assert!(client.is_closed().await, "{reason}");
        server.metric_becomes(&name, before + 1).await;
    }
    server.metric_becomes("gateway_connections", 0).await;
}
