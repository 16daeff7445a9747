//! Producers and transactions (KIP-98).

use crate::table::message;

message! {
    /// Asks for a producer id, and fences older producers of a transactional id.
    mod init_producer_id_request, versions 0..=5, flexible 2..;

    InitProducerIdRequest {
        transactional_id: Option<Str> = Some(Str::default());
        transaction_timeout_ms: i32;
        producer_id: i64 [3..] = -1;
        producer_epoch: i16 [3..] = -1;
    }
}

message! {
    /// The producer id and epoch.
    mod init_producer_id_response, versions 0..=5, flexible 2..;

    InitProducerIdResponse {
        throttle_time_ms: i32;
        error_code: i16;
        producer_id: i64 = -1;
        producer_epoch: i16;
    }
}

message! {
    /// Says which partitions a transaction is about to write to.
    mod add_partitions_to_txn_request, versions 0..=5, flexible 3..;

    AddPartitionsToTxnRequest {
        transactions: Vec<AddPartitionsToTxnTransaction> [4..];
        v3_and_below_transactional_id: Str [..=3];
        v3_and_below_producer_id: i64 [..=3];
        v3_and_below_producer_epoch: i16 [..=3];
        v3_and_below_topics: Vec<AddPartitionsToTxnTopic> [..=3];
    }
    AddPartitionsToTxnTransaction {
        transactional_id: Str [4..];
        producer_id: i64 [4..];
        producer_epoch: i16 [4..];
        verify_only: bool [4..];
        topics: Vec<AddPartitionsToTxnTopic> [4..];
    }
    AddPartitionsToTxnTopic {
        name: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// What became of each partition.
    mod add_partitions_to_txn_response, versions 0..=5, flexible 3..;

    AddPartitionsToTxnResponse {
        throttle_time_ms: i32;
        error_code: i16 [4.., else ignore];
        results_by_transaction: Vec<AddPartitionsToTxnResult> [4..];
        results_by_topic_v3_and_below: Vec<AddPartitionsToTxnTopicResult> [..=3];
    }
    AddPartitionsToTxnResult {
        transactional_id: Str [4..];
        topic_results: Vec<AddPartitionsToTxnTopicResult> [4..];
    }
    AddPartitionsToTxnTopicResult {
        name: Str;
        results_by_partition: Vec<AddPartitionsToTxnPartitionResult>;
    }
    AddPartitionsToTxnPartitionResult {
        partition_index: i32;
        partition_error_code: i16;
    }
}

message! {
    /// Says that a transaction is about to commit offsets of a group.
    mod add_offsets_to_txn_request, versions 0..=4, flexible 3..;

    AddOffsetsToTxnRequest {
        transactional_id: Str;
        producer_id: i64;
        producer_epoch: i16;
        group_id: Str;
    }
}

message! {
    /// Whether that was noted.
    mod add_offsets_to_txn_response, versions 0..=4, flexible 3..;

    AddOffsetsToTxnResponse {
        throttle_time_ms: i32;
        error_code: i16;
    }
}

message! {
    /// Commits or aborts a transaction.
    mod end_txn_request, versions 0..=5, flexible 3..;

    EndTxnRequest {
        transactional_id: Str;
        producer_id: i64;
        producer_epoch: i16;
        committed: bool;
    }
}

message! {
    /// Whether the transaction is ending.
    mod end_txn_response, versions 0..=5, flexible 3..;

    EndTxnResponse {
        throttle_time_ms: i32;
        error_code: i16;
        producer_id: i64 [5.., else ignore] = -1;
        producer_epoch: i16 [5.., else ignore] = -1;
    }
}

message! {
    /// Stores a group's offsets as part of a transaction.
    mod txn_offset_commit_request, versions 0..=5, flexible 3..;

    TxnOffsetCommitRequest {
        transactional_id: Str;
        group_id: Str;
        producer_id: i64;
        producer_epoch: i16;
        generation_id: i32 [3..] = -1;
        member_id: Str [3..];
        group_instance_id: Option<Str> [3..];
        topics: Vec<TxnOffsetCommitRequestTopic>;
    }
    TxnOffsetCommitRequestTopic {
        name: Str;
        partitions: Vec<TxnOffsetCommitRequestPartition>;
    }
    TxnOffsetCommitRequestPartition {
        partition_index: i32;
        committed_offset: i64;
        committed_leader_epoch: i32 [2.., else ignore] = -1;
        committed_metadata: Option<Str> = Some(Str::default());
    }
}

message! {
    /// What became of each offset.
    mod txn_offset_commit_response, versions 0..=5, flexible 3..;

    TxnOffsetCommitResponse {
        throttle_time_ms: i32;
        topics: Vec<TxnOffsetCommitResponseTopic>;
    }
    TxnOffsetCommitResponseTopic {
        name: Str;
        partitions: Vec<TxnOffsetCommitResponsePartition>;
    }
    TxnOffsetCommitResponsePartition {
        partition_index: i32;
        error_code: i16;
    }
}

message! {
    /// Between brokers: writes commit and abort markers to partitions.
    mod write_txn_markers_request, versions 1..=2, flexible 1..;

    WriteTxnMarkersRequest {
        markers: Vec<WritableTxnMarker>;
    }
    WritableTxnMarker {
        producer_id: i64;
        producer_epoch: i16;
        transaction_result: bool;
        topics: Vec<WritableTxnMarkerTopic>;
        coordinator_epoch: i32;
        transaction_version: i8 [2.., else ignore];
    }
    WritableTxnMarkerTopic {
        name: Str;
        partition_indexes: Vec<i32>;
    }
}

message! {
    /// What became of each marker.
    mod write_txn_markers_response, versions 1..=2, flexible 1..;

    WriteTxnMarkersResponse {
        markers: Vec<WritableTxnMarkerResult>;
    }
    WritableTxnMarkerResult {
        producer_id: i64;
        topics: Vec<WritableTxnMarkerTopicResult>;
    }
    WritableTxnMarkerTopicResult {
        name: Str;
        partitions: Vec<WritableTxnMarkerPartitionResult>;
    }
    WritableTxnMarkerPartitionResult {
        partition_index: i32;
        error_code: i16;
    }
}

message! {
    /// Asks which producers have written to partitions.
    mod describe_producers_request, versions 0..=0, flexible 0..;

    DescribeProducersRequest {
        topics: Vec<TopicRequest>;
    }
    TopicRequest {
        name: Str;
        partition_indexes: Vec<i32>;
    }
}

message! {
    /// The producers.
    mod describe_producers_response, versions 0..=0, flexible 0..;

    DescribeProducersResponse {
        throttle_time_ms: i32;
        topics: Vec<TopicResponse>;
    }
    TopicResponse {
        name: Str;
        partitions: Vec<PartitionResponse>;
    }
    PartitionResponse {
        partition_index: i32;
        error_code: i16;
        error_message: Option<Str>;
        active_producers: Vec<ProducerState>;
    }
    ProducerState {
        producer_id: i64;
        producer_epoch: i32;
        last_sequence: i32 = -1;
        last_timestamp: i64 = -1;
        coordinator_epoch: i32;
        current_txn_start_offset: i64 = -1;
    }
}

message! {
    /// Asks for the state of transactions.
    mod describe_transactions_request, versions 0..=0, flexible 0..;

    DescribeTransactionsRequest {
        transactional_ids: Vec<Str>;
    }
}

message! {
    /// The transactions.
    mod describe_transactions_response, versions 0..=0, flexible 0..;

    DescribeTransactionsResponse {
        throttle_time_ms: i32;
        transaction_states: Vec<TransactionState>;
    }
    TransactionState {
        error_code: i16;
        transactional_id: Str;
        transaction_state: Str;
        transaction_timeout_ms: i32;
        transaction_start_time_ms: i64;
        producer_id: i64;
        producer_epoch: i16;
        topics: Vec<TopicData>;
    }
    TopicData {
        topic: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// Asks which transactions there are.
    mod list_transactions_request, versions 0..=2, flexible 0..;

    ListTransactionsRequest {
        state_filters: Vec<Str>;
        producer_id_filters: Vec<i64>;
        duration_filter: i64 [1..] = -1;
        transactional_id_pattern: Option<Str> [2..];
    }
}

message! {
    /// The transactions.
    mod list_transactions_response, versions 0..=2, flexible 0..;

    ListTransactionsResponse {
        throttle_time_ms: i32;
        error_code: i16;
        unknown_state_filters: Vec<Str>;
        transaction_states: Vec<TransactionState>;
    }
    TransactionState {
        transactional_id: Str;
        producer_id: i64;
        transaction_state: Str;
    }
}
