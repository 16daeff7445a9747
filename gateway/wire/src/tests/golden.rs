//! Bytes that Kafka 4.3.0's own Java classes wrote for the values beside them, the versions that
//! kafka-protocol lacks among them.

use bytes::Bytes;

use crate::header::RequestHeader;
use crate::messages::*;
use crate::{Chain, Decoder, Encoder, ErrorCode, Message, Str, Uuid};

const ID: Uuid = Uuid([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);

fn s(text: &'static str) -> Str {
    Str::from_static(text)
}

fn unhex(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// The bytes are the value, and the value the bytes.
fn golden<M: Message>(version: i16, hex: &str, value: &M) {
    let mut encoder = Encoder::new();
    value.encode(&mut encoder, version).unwrap();
    assert_eq!(encoder.into_chain().to_bytes(), unhex(hex), "{value:?} v{version}");
    let mut decoder = Decoder::new(unhex(hex));
    assert_eq!(M::decode(&mut decoder, version).as_ref(), Ok(value));
    decoder.finish().unwrap();
}

#[test]
fn headers_and_finding_the_cluster() {
    let header = RequestHeader {
        request_api_key: 18,
        request_api_version: 3,
        correlation_id: 7,
        client_id: Some(s("sluice")),
    };
    golden(2, "00120003000000070006736c7569636500", &header);
    let mut decoder = Decoder::new(unhex("00120003000000070006736c7569636500"));
    assert_eq!(RequestHeader::read(&mut decoder), Ok((header, Some(crate::ApiKey::ApiVersions))));
    decoder.finish().unwrap();
    golden(
        3,
        "056b63617404312e3700",
        &api_versions_request::ApiVersionsRequest {
            client_software_name: s("kcat"),
            client_software_version: s("1.7"),
        },
    );
    let metadata = |topics| metadata_request::MetadataRequest { topics, ..Default::default() };
    golden(12, "00010000", &metadata(None));
    let topic = metadata_request::MetadataRequestTopic { name: Some(s("t")), ..Default::default() };
    golden(4, "0000000100017401", &metadata(Some(vec![topic])));
}

#[test]
fn produce_by_name_and_by_id() {
    use produce_request::*;
    let request = |name, topic_id| ProduceRequest {
        transactional_id: Some(s("x")),
        acks: -1,
        timeout_ms: 1500,
        topic_data: vec![TopicProduceData {
            name,
            topic_id,
            partition_data: vec![PartitionProduceData { index: 1, records: None }],
        }],
    };
    let named = request(s("t"), Uuid::ZERO);
    golden(3, "000178ffff000005dc000000010001740000000100000001ffffffff", &named);
    golden(9, "0278ffff000005dc020274020000000100000000", &named);
    let by_id = "0278ffff000005dc020102030405060708090a0b0c0d0e0f10020000000100000000";
    golden(13, by_id, &request(s(""), ID));
}

#[test]
fn fetch_answer_with_every_tagged_field() {
    use fetch_response::*;
    let partition = PartitionData {
        partition_index: 2,
        error_code: ErrorCode::FencedLeaderEpoch.code(),
        high_watermark: 10,
        last_stable_offset: 9,
        log_start_offset: 1,
        diverging_epoch: EpochEndOffset { epoch: 3, end_offset: 4 },
        current_leader: LeaderIdAndEpoch { leader_id: 8, leader_epoch: 6 },
        aborted_transactions: None,
        records: Some(Chain::new()),
        ..PartitionData::default()
    };
    golden(
        16,
        "00000000000000000005020102030405060708090a0b0c0d0e0f100200000002004a000000000000000a000000\
         0000000009000000000000000100ffffffff0102000d0000000300000000000000040001090000000800000006\
         000001000d02000000080268000023840000",
        &FetchResponse {
            session_id: 5,
            responses: vec![FetchableTopicResponse {
                topic_id: ID,
                partitions: vec![partition],
                ..FetchableTopicResponse::default()
            }],
            node_endpoints: vec![NodeEndpoint { node_id: 8, host: s("h"), port: 9092, rack: None }],
            ..FetchResponse::default()
        },
    );
}

#[test]
fn offsets() {
    use list_offsets_request::*;
    let partition =
        ListOffsetsPartition { partition_index: 1, current_leader_epoch: 2, timestamp: -6 };
    golden(
        11,
        "ffffffff01020274020000000100000002fffffffffffffffa0000000000fa00",
        &ListOffsetsRequest {
            replica_id: -1,
            isolation_level: 1,
            timeout_ms: 250,
            topics: vec![ListOffsetsTopic { name: s("t"), partitions: vec![partition] }],
        },
    );
    use offset_commit_request::*;
    golden(
        10,
        "026700000003026d00020102030405060708090a0b0c0d0e0f100200000001000000000000002a000000020263\
         000000",
        &OffsetCommitRequest {
            group_id: s("g"),
            generation_id_or_member_epoch: 3,
            member_id: s("m"),
            topics: vec![OffsetCommitRequestTopic {
                topic_id: ID,
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index: 1,
                    committed_offset: 42,
                    committed_leader_epoch: 2,
                    committed_metadata: Some(s("c")),
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
    );
    use offset_fetch_response::*;
    golden(
        10,
        "00000000020267020102030405060708090a0b0c0d0e0f100200000001000000000000002a0000000202630058\
         000000000000",
        &OffsetFetchResponse {
            groups: vec![OffsetFetchResponseGroup {
                group_id: s("g"),
                topics: vec![OffsetFetchResponseTopics {
                    topic_id: ID,
                    partitions: vec![OffsetFetchResponsePartitions {
                        partition_index: 1,
                        committed_offset: 42,
                        committed_leader_epoch: 2,
                        metadata: Some(s("c")),
                        error_code: ErrorCode::UnstableOffsetCommit.code(),
                    }],
                    ..Default::default()
                }],
                error_code: 0,
            }],
            ..Default::default()
        },
    );
}

#[test]
fn markers_and_log_directories() {
    use write_txn_markers_request::*;
    golden(
        2,
        "0200000000000000090001010202740300000000000000050000000004020000",
        &WriteTxnMarkersRequest {
            markers: vec![WritableTxnMarker {
                producer_id: 9,
                producer_epoch: 1,
                transaction_result: true,
                topics: vec![WritableTxnMarkerTopic {
                    name: s("t"),
                    partition_indexes: vec![0, 5],
                }],
                coordinator_epoch: 4,
                transaction_version: 2,
            }],
        },
    );
    use describe_log_dirs_response::*;
    golden(
        5,
        "000000000000020000032f640100000000000000640000000000000032010000",
        &DescribeLogDirsResponse {
            results: vec![DescribeLogDirsResult {
                log_dir: s("/d"),
                total_bytes: 100,
                usable_bytes: 50,
                is_cordoned: true,
                ..Default::default()
            }],
            ..Default::default()
        },
    );
}

#[test]
fn share_groups() {
    golden(
        2,
        "0267026d00000001000001f400000001000003e80000000a000000050101010100",
        &share_fetch_request::ShareFetchRequest {
            group_id: Some(s("g")),
            member_id: Some(s("m")),
            share_session_epoch: 1,
            max_wait_ms: 500,
            min_bytes: 1,
            max_bytes: 1000,
            max_records: 10,
            batch_size: 5,
            share_acquire_mode: 1,
            is_renew_ack: true,
            ..Default::default()
        },
    );
    golden(
        2,
        "0267026d00000001010100",
        &share_acknowledge_request::ShareAcknowledgeRequest {
            group_id: Some(s("g")),
            member_id: Some(s("m")),
            share_session_epoch: 1,
            is_renew_ack: true,
            topics: vec![],
        },
    );
    use describe_share_group_offsets_response::*;
    golden(
        1,
        "000000000202670202740102030405060708090a0b0c0d0e0f1002000000010000000000000002000000030000\
         00000000000400000000000000000000",
        &DescribeShareGroupOffsetsResponse {
            groups: vec![DescribeShareGroupOffsetsResponseGroup {
                group_id: s("g"),
                topics: vec![DescribeShareGroupOffsetsResponseTopic {
                    topic_name: s("t"),
                    topic_id: ID,
                    partitions: vec![DescribeShareGroupOffsetsResponsePartition {
                        partition_index: 1,
                        start_offset: 2,
                        leader_epoch: 3,
                        lag: 4,
                        ..Default::default()
                    }],
                }],
                ..Default::default()
            }],
            ..Default::default()
        },
    );
}

#[test]
fn share_state() {
    golden(
        1,
        "0267020102030405060708090a0b0c0d0e0f1002000000010000000200000003000000000000000400000005010\
         00000",
        &write_share_group_state_request::WriteShareGroupStateRequest {
            group_id: s("g"),
            topics: vec![write_share_group_state_request::WriteStateData {
                topic_id: ID,
                partitions: vec![write_share_group_state_request::PartitionData {
                    partition: 1,
                    state_epoch: 2,
                    leader_epoch: 3,
                    start_offset: 4,
                    delivery_complete_count: 5,
                    state_batches: vec![],
                }],
            }],
        },
    );
    use read_share_group_state_summary_response::*;
    golden(
        1,
        "020102030405060708090a0b0c0d0e0f1002000000010000000000000200000003000000000000000400000005\
         000000",
        &ReadShareGroupStateSummaryResponse {
            results: vec![ReadStateSummaryResult {
                topic_id: ID,
                partitions: vec![PartitionResult {
                    partition: 1,
                    error_code: 0,
                    error_message: None,
                    state_epoch: 2,
                    leader_epoch: 3,
                    start_offset: 4,
                    delivery_complete_count: 5,
                }],
            }],
        },
    );
}

#[test]
fn streams_groups() {
    use streams_group_heartbeat_request::*;
    golden(
        0,
        "0267026d0000000200000001000000000384ff020230020000000100000002700102689c40000000000100",
        &StreamsGroupHeartbeatRequest {
            group_id: s("g"),
            member_id: s("m"),
            member_epoch: 2,
            endpoint_information_epoch: 1,
            rebalance_timeout_ms: 900,
            active_tasks: Some(vec![TaskIds { subtopology_id: s("0"), partitions: vec![1] }]),
            process_id: Some(s("p")),
            user_endpoint: Some(Endpoint { host: s("h"), port: 40000 }),
            shutdown_application: true,
            ..Default::default()
        },
    );
    use streams_group_describe_response::{DescribedGroup, StreamsGroupDescribeResponse};
    golden(
        0,
        "0000000002000000026707537461626c650000000300000002ff01000000070000",
        &StreamsGroupDescribeResponse {
            groups: vec![DescribedGroup {
                group_id: s("g"),
                group_state: s("Stable"),
                group_epoch: 3,
                assignment_epoch: 2,
                authorized_operations: 7,
                ..Default::default()
            }],
            ..Default::default()
        },
    );
}

#[test]
fn what_consumers_put_into_join_and_sync() {
    use consumer_protocol_subscription::*;
    let subscription = ConsumerProtocolSubscription {
        topics: vec![s("a"), s("b")],
        user_data: Some(Bytes::from_static(&[1, 2])),
        owned_partitions: vec![TopicPartition { topic: s("a"), partitions: vec![0] }],
        generation_id: 4,
        rack_id: Some(s("r")),
    };
    let hex = "0000000200016100016200000002010200000001000161000000010000000000000004000172";
    golden(3, hex, &subscription);
    let oldest = ConsumerProtocolSubscription { topics: vec![s("a")], ..Default::default() };
    golden(0, "00000001000161ffffffff", &oldest);
    use consumer_protocol_assignment as assignment;
    golden(
        1,
        "00000001000161000000020000000100000002ffffffff",
        &assignment::ConsumerProtocolAssignment {
            assigned_partitions: vec![assignment::TopicPartition {
                topic: s("a"),
                partitions: vec![1, 2],
            }],
            user_data: None,
        },
    );
}
