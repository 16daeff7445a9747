//! Share groups: queues over topics (KIP-932).

use crate::table::message;

message! {
    /// Joins, keeps alive or leaves a share group.
    mod share_group_heartbeat_request, versions 1..=1, flexible 1..;

    ShareGroupHeartbeatRequest {
        group_id: Str;
        member_id: Str;
        member_epoch: i32;
        rack_id: Option<Str>;
        subscribed_topic_names: Option<Vec<Str>>;
    }
}

message! {
    /// The member's epoch and, if it changed, its assignment.
    mod share_group_heartbeat_response, versions 1..=1, flexible 1..;

    ShareGroupHeartbeatResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str>;
        member_id: Option<Str>;
        member_epoch: i32;
        heartbeat_interval_ms: i32;
        assignment: Option<Assignment>;
    }
    Assignment {
        topic_partitions: Vec<TopicPartitions>;
    }
    TopicPartitions {
        topic_id: Uuid;
        partitions: Vec<i32>;
    }
}

message! {
    /// Asks for the state and members of share groups.
    mod share_group_describe_request, versions 1..=1, flexible 1..;

    ShareGroupDescribeRequest {
        group_ids: Vec<Str>;
        include_authorized_operations: bool;
    }
}

message! {
    /// The groups.
    mod share_group_describe_response, versions 1..=1, flexible 1..;

    ShareGroupDescribeResponse {
        throttle_time_ms: i32;
        groups: Vec<DescribedGroup>;
    }
    DescribedGroup {
        error_code: i16;
        error_message: Option<Str>;
        group_id: Str;
        group_state: Str;
        group_epoch: i32;
        assignment_epoch: i32;
        assignor_name: Str;
        members: Vec<Member>;
        authorized_operations: i32 = i32::MIN;
    }
    Member {
        member_id: Str;
        rack_id: Option<Str>;
        member_epoch: i32;
        client_id: Str;
        client_host: Str;
        subscribed_topic_names: Vec<Str>;
        assignment: Assignment;
    }
    Assignment {
        topic_partitions: Vec<TopicPartitions>;
    }
    TopicPartitions {
        topic_id: Uuid;
        topic_name: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// Acquires records for a member of a share group, and acknowledges others.
    mod share_fetch_request, versions 1..=2, flexible 1..;

    ShareFetchRequest {
        group_id: Option<Str>;
        member_id: Option<Str> = Some(Str::default());
        share_session_epoch: i32;
        max_wait_ms: i32;
        min_bytes: i32;
        max_bytes: i32 = i32::MAX;
        max_records: i32;
        batch_size: i32;
        share_acquire_mode: i8 [2.., else ignore];
        is_renew_ack: bool [2..];
        topics: Vec<FetchTopic>;
        forgotten_topics_data: Vec<ForgottenTopic>;
    }
    FetchTopic {
        topic_id: Uuid;
        partitions: Vec<FetchPartition>;
    }
    FetchPartition {
        partition_index: i32;
        acknowledgement_batches: Vec<AcknowledgementBatch>;
    }
    AcknowledgementBatch {
        first_offset: i64;
        last_offset: i64;
        acknowledge_types: Vec<i8>;
    }
    ForgottenTopic {
        topic_id: Uuid;
        partitions: Vec<i32>;
    }
}

message! {
    /// Record batches, and which of their records were acquired.
    mod share_fetch_response, versions 1..=2, flexible 1..;

    ShareFetchResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str>;
        acquisition_lock_timeout_ms: i32;
        responses: Vec<ShareFetchableTopicResponse>;
        node_endpoints: Vec<NodeEndpoint>;
    }
    ShareFetchableTopicResponse {
        topic_id: Uuid;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition_index: i32;
        error_code: i16;
        error_message: Option<Str>;
        acknowledge_error_code: i16;
        acknowledge_error_message: Option<Str>;
        current_leader: LeaderIdAndEpoch;
        records: Option<Chain> [.., null ..=0];
        acquired_records: Vec<AcquiredRecords>;
    }
    LeaderIdAndEpoch {
        leader_id: i32;
        leader_epoch: i32;
    }
    AcquiredRecords {
        first_offset: i64;
        last_offset: i64;
        delivery_count: i16;
    }
    NodeEndpoint {
        node_id: i32;
        host: Str;
        port: i32;
        rack: Option<Str>;
    }
}

message! {
    /// Acknowledges records acquired before.
    mod share_acknowledge_request, versions 1..=2, flexible 1..;

    ShareAcknowledgeRequest {
        group_id: Option<Str>;
        member_id: Option<Str> = Some(Str::default());
        share_session_epoch: i32;
        is_renew_ack: bool [2..];
        topics: Vec<AcknowledgeTopic>;
    }
    AcknowledgeTopic {
        topic_id: Uuid;
        partitions: Vec<AcknowledgePartition>;
    }
    AcknowledgePartition {
        partition_index: i32;
        acknowledgement_batches: Vec<AcknowledgementBatch>;
    }
    AcknowledgementBatch {
        first_offset: i64;
        last_offset: i64;
        acknowledge_types: Vec<i8>;
    }
}

message! {
    /// What became of the acknowledgements.
    mod share_acknowledge_response, versions 1..=2, flexible 1..;

    ShareAcknowledgeResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str>;
        acquisition_lock_timeout_ms: i32 [2.., else ignore];
        responses: Vec<ShareAcknowledgeTopicResponse>;
        node_endpoints: Vec<NodeEndpoint>;
    }
    ShareAcknowledgeTopicResponse {
        topic_id: Uuid;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition_index: i32;
        error_code: i16;
        error_message: Option<Str>;
        current_leader: LeaderIdAndEpoch;
    }
    LeaderIdAndEpoch {
        leader_id: i32;
        leader_epoch: i32;
    }
    NodeEndpoint {
        node_id: i32;
        host: Str;
        port: i32;
        rack: Option<Str>;
    }
}

message! {
    /// Asks where share groups stand.
    mod describe_share_group_offsets_request, versions 0..=1, flexible 0..;

    DescribeShareGroupOffsetsRequest {
        groups: Vec<DescribeShareGroupOffsetsRequestGroup>;
    }
    DescribeShareGroupOffsetsRequestGroup {
        group_id: Str;
        topics: Option<Vec<DescribeShareGroupOffsetsRequestTopic>> = Some(Vec::new());
    }
    DescribeShareGroupOffsetsRequestTopic {
        topic_name: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// The start offsets.
    mod describe_share_group_offsets_response, versions 0..=1, flexible 0..;

    DescribeShareGroupOffsetsResponse {
        throttle_time_ms: i32;
        groups: Vec<DescribeShareGroupOffsetsResponseGroup>;
    }
    DescribeShareGroupOffsetsResponseGroup {
        group_id: Str;
        topics: Vec<DescribeShareGroupOffsetsResponseTopic>;
        error_code: i16;
        error_message: Option<Str>;
    }
    DescribeShareGroupOffsetsResponseTopic {
        topic_name: Str;
        topic_id: Uuid;
        partitions: Vec<DescribeShareGroupOffsetsResponsePartition>;
    }
    DescribeShareGroupOffsetsResponsePartition {
        partition_index: i32;
        start_offset: i64;
        leader_epoch: i32;
        lag: i64 [1.., else ignore] = -1;
        error_code: i16;
        error_message: Option<Str>;
    }
}

message! {
    /// Sets where a share group stands.
    mod alter_share_group_offsets_request, versions 0..=0, flexible 0..;

    AlterShareGroupOffsetsRequest {
        group_id: Str;
        topics: Vec<AlterShareGroupOffsetsRequestTopic>;
    }
    AlterShareGroupOffsetsRequestTopic {
        topic_name: Str;
        partitions: Vec<AlterShareGroupOffsetsRequestPartition>;
    }
    AlterShareGroupOffsetsRequestPartition {
        partition_index: i32;
        start_offset: i64;
    }
}

message! {
    /// What became of each partition.
    mod alter_share_group_offsets_response, versions 0..=0, flexible 0..;

    AlterShareGroupOffsetsResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str>;
        responses: Vec<AlterShareGroupOffsetsResponseTopic>;
    }
    AlterShareGroupOffsetsResponseTopic {
        topic_name: Str;
        topic_id: Uuid;
        partitions: Vec<AlterShareGroupOffsetsResponsePartition>;
    }
    AlterShareGroupOffsetsResponsePartition {
        partition_index: i32;
        error_code: i16;
        error_message: Option<Str>;
    }
}

message! {
    /// Forgets where a share group stands.
    mod delete_share_group_offsets_request, versions 0..=0, flexible 0..;

    DeleteShareGroupOffsetsRequest {
        group_id: Str;
        topics: Vec<DeleteShareGroupOffsetsRequestTopic>;
    }
    DeleteShareGroupOffsetsRequestTopic {
        topic_name: Str;
    }
}

message! {
    /// What became of each topic.
    mod delete_share_group_offsets_response, versions 0..=0, flexible 0..;

    DeleteShareGroupOffsetsResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str>;
        responses: Vec<DeleteShareGroupOffsetsResponseTopic>;
    }
    DeleteShareGroupOffsetsResponseTopic {
        topic_name: Str;
        topic_id: Uuid;
        error_code: i16;
        error_message: Option<Str>;
    }
}
