//! Between brokers: the durable state of share groups (KIP-932).

use crate::table::message;

message! {
    /// Starts the state of partitions in a share group.
    mod initialize_share_group_state_request, versions 0..=0, flexible 0..;

    InitializeShareGroupStateRequest {
        group_id: Str;
        topics: Vec<InitializeStateData>;
    }
    InitializeStateData {
        topic_id: Uuid;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition: i32;
        state_epoch: i32;
        start_offset: i64;
    }
}

message! {
    /// What became of each partition.
    mod initialize_share_group_state_response, versions 0..=0, flexible 0..;

    InitializeShareGroupStateResponse {
        results: Vec<InitializeStateResult>;
    }
    InitializeStateResult {
        topic_id: Uuid;
        partitions: Vec<PartitionResult>;
    }
    PartitionResult {
        partition: i32;
        error_code: i16;
        error_message: Option<Str>;
    }
}

message! {
    /// Asks for the state of partitions in a share group.
    mod read_share_group_state_request, versions 0..=0, flexible 0..;

    ReadShareGroupStateRequest {
        group_id: Str;
        topics: Vec<ReadStateData>;
    }
    ReadStateData {
        topic_id: Uuid;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition: i32;
        leader_epoch: i32;
    }
}

message! {
    /// The state.
    mod read_share_group_state_response, versions 0..=0, flexible 0..;

    ReadShareGroupStateResponse {
        results: Vec<ReadStateResult>;
    }
    ReadStateResult {
        topic_id: Uuid;
        partitions: Vec<PartitionResult>;
    }
    PartitionResult {
        partition: i32;
        error_code: i16;
        error_message: Option<Str>;
        state_epoch: i32;
        start_offset: i64;
        state_batches: Vec<StateBatch>;
    }
    StateBatch {
        first_offset: i64;
        last_offset: i64;
        delivery_state: i8;
        delivery_count: i16;
    }
}

message! {
    /// Stores the state of partitions in a share group.
    mod write_share_group_state_request, versions 0..=1, flexible 0..;

    WriteShareGroupStateRequest {
        group_id: Str;
        topics: Vec<WriteStateData>;
    }
    WriteStateData {
        topic_id: Uuid;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition: i32;
        state_epoch: i32;
        leader_epoch: i32;
        start_offset: i64;
        delivery_complete_count: i32 [1.., else ignore] = -1;
        state_batches: Vec<StateBatch>;
    }
    StateBatch {
        first_offset: i64;
        last_offset: i64;
        delivery_state: i8;
        delivery_count: i16;
    }
}

message! {
    /// What became of each partition.
    mod write_share_group_state_response, versions 0..=1, flexible 0..;

    WriteShareGroupStateResponse {
        results: Vec<WriteStateResult>;
    }
    WriteStateResult {
        topic_id: Uuid;
        partitions: Vec<PartitionResult>;
    }
    PartitionResult {
        partition: i32;
        error_code: i16;
        error_message: Option<Str>;
    }
}

message! {
    /// Deletes the state of partitions in a share group.
    mod delete_share_group_state_request, versions 0..=0, flexible 0..;

    DeleteShareGroupStateRequest {
        group_id: Str;
        topics: Vec<DeleteStateData>;
    }
    DeleteStateData {
        topic_id: Uuid;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition: i32;
    }
}

message! {
    /// What became of each partition.
    mod delete_share_group_state_response, versions 0..=0, flexible 0..;

    DeleteShareGroupStateResponse {
        results: Vec<DeleteStateResult>;
    }
    DeleteStateResult {
        topic_id: Uuid;
        partitions: Vec<PartitionResult>;
    }
    PartitionResult {
        partition: i32;
        error_code: i16;
        error_message: Option<Str>;
    }
}

message! {
    /// Asks for the state of partitions without the single records.
    mod read_share_group_state_summary_request, versions 0..=1, flexible 0..;

    ReadShareGroupStateSummaryRequest {
        group_id: Str;
        topics: Vec<ReadStateSummaryData>;
    }
    ReadStateSummaryData {
        topic_id: Uuid;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition: i32;
        leader_epoch: i32;
    }
}

message! {
    /// The state.
    mod read_share_group_state_summary_response, versions 0..=1, flexible 0..;

    ReadShareGroupStateSummaryResponse {
        results: Vec<ReadStateSummaryResult>;
    }
    ReadStateSummaryResult {
        topic_id: Uuid;
        partitions: Vec<PartitionResult>;
    }
    PartitionResult {
        partition: i32;
        error_code: i16;
        error_message: Option<Str>;
        state_epoch: i32;
        leader_epoch: i32;
        start_offset: i64;
        delivery_complete_count: i32 [1.., else ignore] = -1;
    }
}
