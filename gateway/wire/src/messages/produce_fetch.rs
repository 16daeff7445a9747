//! Writing and reading records.

use crate::table::message;

message! {
    /// Appends record batches to partitions.
    mod produce_request, versions 3..=13, flexible 9..;

    ProduceRequest {
        transactional_id: Option<Str>;
        acks: i16;
        timeout_ms: i32;
        topic_data: Vec<TopicProduceData>;
    }
    TopicProduceData {
        name: Str [..=12, else ignore];
        topic_id: Uuid [13.., else ignore];
        partition_data: Vec<PartitionProduceData>;
    }
    PartitionProduceData {
        index: i32;
        records: Option<Chain>;
    }
}

message! {
    /// Says where the batches lie, or why they were refused.
    mod produce_response, versions 3..=13, flexible 9..;

    ProduceResponse {
        responses: Vec<TopicProduceResponse>;
        throttle_time_ms: i32;
        node_endpoints: Vec<NodeEndpoint> [10.., tag 0];
    }
    TopicProduceResponse {
        name: Str [..=12, else ignore];
        topic_id: Uuid [13.., else ignore];
        partition_responses: Vec<PartitionProduceResponse>;
    }
    PartitionProduceResponse {
        index: i32;
        error_code: i16;
        base_offset: i64;
        log_append_time_ms: i64 = -1;
        log_start_offset: i64 [5.., else ignore] = -1;
        record_errors: Vec<BatchIndexAndErrorMessage> [8.., else ignore];
        error_message: Option<Str> [8.., else ignore];
        current_leader: LeaderIdAndEpoch [10.., tag 0];
    }
    BatchIndexAndErrorMessage {
        batch_index: i32 [8..];
        batch_index_error_message: Option<Str> [8..];
    }
    LeaderIdAndEpoch {
        leader_id: i32 [10..] = -1;
        leader_epoch: i32 [10..] = -1;
    }
    NodeEndpoint {
        node_id: i32 [10..];
        host: Str [10..];
        port: i32 [10..];
        rack: Option<Str> [10..];
    }
}

message! {
    /// Reads record batches from partitions, waiting for more if asked to.
    mod fetch_request, versions 4..=18, flexible 12..;

    FetchRequest {
        cluster_id: Option<Str> [12.., tag 0, else ignore];
        replica_id: i32 [..=14] = -1;
        replica_state: ReplicaState [15.., tag 1];
        max_wait_ms: i32;
        min_bytes: i32;
        max_bytes: i32 = i32::MAX;
        isolation_level: i8;
        session_id: i32 [7.., else ignore];
        session_epoch: i32 [7.., else ignore] = -1;
        topics: Vec<FetchTopic>;
        forgotten_topics_data: Vec<ForgottenTopic> [7..];
        rack_id: Str [11.., else ignore];
    }
    ReplicaState {
        replica_id: i32 [15..] = -1;
        replica_epoch: i64 [15..] = -1;
    }
    FetchTopic {
        topic: Str [..=12, else ignore];
        topic_id: Uuid [13.., else ignore];
        partitions: Vec<FetchPartition>;
    }
    FetchPartition {
        partition: i32;
        current_leader_epoch: i32 [9.., else ignore] = -1;
        fetch_offset: i64;
        last_fetched_epoch: i32 [12..] = -1;
        log_start_offset: i64 [5.., else ignore] = -1;
        partition_max_bytes: i32;
        replica_directory_id: Uuid [17.., tag 0, else ignore];
        high_watermark: i64 [18.., tag 1, else ignore] = i64::MAX;
    }
    ForgottenTopic {
        topic: Str [7..=12, else ignore];
        topic_id: Uuid [13.., else ignore];
        partitions: Vec<i32> [7..];
    }
}

message! {
    /// Record batches, and how far each partition reaches.
    mod fetch_response, versions 4..=18, flexible 12..;

    FetchResponse {
        throttle_time_ms: i32;
        error_code: i16 [7.., else ignore];
        session_id: i32 [7..];
        responses: Vec<FetchableTopicResponse>;
        node_endpoints: Vec<NodeEndpoint> [16.., tag 0];
    }
    FetchableTopicResponse {
        topic: Str [..=12, else ignore];
        topic_id: Uuid [13.., else ignore];
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition_index: i32;
        error_code: i16;
        high_watermark: i64;
        last_stable_offset: i64 = -1;
        log_start_offset: i64 [5.., else ignore] = -1;
        diverging_epoch: EpochEndOffset [12.., tag 0];
        current_leader: LeaderIdAndEpoch [12.., tag 1];
        snapshot_id: SnapshotId [12.., tag 2];
        aborted_transactions: Option<Vec<AbortedTransaction>> = Some(Vec::new());
        preferred_read_replica: i32 [11..] = -1;
        records: Option<Chain>;
    }
    EpochEndOffset {
        epoch: i32 [12..] = -1;
        end_offset: i64 [12..] = -1;
    }
    LeaderIdAndEpoch {
        leader_id: i32 [12..] = -1;
        leader_epoch: i32 [12..] = -1;
    }
    SnapshotId {
        end_offset: i64 = -1;
        epoch: i32 = -1;
    }
    AbortedTransaction {
        producer_id: i64;
        first_offset: i64;
    }
    NodeEndpoint {
        node_id: i32 [16..];
        host: Str [16..];
        port: i32 [16..];
        rack: Option<Str> [16..];
    }
}

message! {
    /// Looks up offsets: the ends of a partition, or by timestamp.
    mod list_offsets_request, versions 1..=11, flexible 6..;

    ListOffsetsRequest {
        replica_id: i32;
        isolation_level: i8 [2..];
        topics: Vec<ListOffsetsTopic>;
        timeout_ms: i32 [10.., else ignore];
    }
    ListOffsetsTopic {
        name: Str;
        partitions: Vec<ListOffsetsPartition>;
    }
    ListOffsetsPartition {
        partition_index: i32;
        current_leader_epoch: i32 [4.., else ignore] = -1;
        timestamp: i64;
    }
}

message! {
    /// The offsets found.
    mod list_offsets_response, versions 1..=11, flexible 6..;

    ListOffsetsResponse {
        throttle_time_ms: i32 [2.., else ignore];
        topics: Vec<ListOffsetsTopicResponse>;
    }
    ListOffsetsTopicResponse {
        name: Str;
        partitions: Vec<ListOffsetsPartitionResponse>;
    }
    ListOffsetsPartitionResponse {
        partition_index: i32;
        error_code: i16;
        timestamp: i64 = -1;
        offset: i64 = -1;
        leader_epoch: i32 [4..] = -1;
    }
}

message! {
    /// Asks where a leader epoch ended, to find where two logs part.
    mod offset_for_leader_epoch_request, versions 2..=4, flexible 4..;

    OffsetForLeaderEpochRequest {
        replica_id: i32 [3.., else ignore] = -2;
        topics: Vec<OffsetForLeaderTopic>;
    }
    OffsetForLeaderTopic {
        topic: Str;
        partitions: Vec<OffsetForLeaderPartition>;
    }
    OffsetForLeaderPartition {
        partition: i32;
        current_leader_epoch: i32 = -1;
        leader_epoch: i32;
    }
}

message! {
    /// The end offset of each epoch asked for.
    mod offset_for_leader_epoch_response, versions 2..=4, flexible 4..;

    OffsetForLeaderEpochResponse {
        throttle_time_ms: i32;
        topics: Vec<OffsetForLeaderTopicResult>;
    }
    OffsetForLeaderTopicResult {
        topic: Str;
        partitions: Vec<EpochEndOffset>;
    }
    EpochEndOffset {
        error_code: i16;
        partition: i32;
        leader_epoch: i32 = -1;
        end_offset: i64 = -1;
    }
}

message! {
    /// Moves the start of partitions forward, which forgets the records before it.
    mod delete_records_request, versions 0..=2, flexible 2..;

    DeleteRecordsRequest {
        topics: Vec<DeleteRecordsTopic>;
        timeout_ms: i32;
    }
    DeleteRecordsTopic {
        name: Str;
        partitions: Vec<DeleteRecordsPartition>;
    }
    DeleteRecordsPartition {
        partition_index: i32;
        offset: i64;
    }
}

message! {
    /// The new starts.
    mod delete_records_response, versions 0..=2, flexible 2..;

    DeleteRecordsResponse {
        throttle_time_ms: i32;
        topics: Vec<DeleteRecordsTopicResult>;
    }
    DeleteRecordsTopicResult {
        name: Str;
        partitions: Vec<DeleteRecordsPartitionResult>;
    }
    DeleteRecordsPartitionResult {
        partition_index: i32;
        low_watermark: i64;
        error_code: i16;
    }
}
