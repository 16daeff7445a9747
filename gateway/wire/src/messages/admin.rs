//! Running a cluster: log directories, replicas, leaders, quorum, features.

use crate::table::message;

message! {
    /// Moves replicas between log directories.
    mod alter_replica_log_dirs_request, versions 1..=2, flexible 2..;

    AlterReplicaLogDirsRequest {
        dirs: Vec<AlterReplicaLogDir>;
    }
    AlterReplicaLogDir {
        path: Str;
        topics: Vec<AlterReplicaLogDirTopic>;
    }
    AlterReplicaLogDirTopic {
        name: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// What became of each partition.
    mod alter_replica_log_dirs_response, versions 1..=2, flexible 2..;

    AlterReplicaLogDirsResponse {
        throttle_time_ms: i32;
        results: Vec<AlterReplicaLogDirTopicResult>;
    }
    AlterReplicaLogDirTopicResult {
        topic_name: Str;
        partitions: Vec<AlterReplicaLogDirPartitionResult>;
    }
    AlterReplicaLogDirPartitionResult {
        partition_index: i32;
        error_code: i16;
    }
}

message! {
    /// Asks what lies in the log directories.
    mod describe_log_dirs_request, versions 1..=5, flexible 2..;

    DescribeLogDirsRequest {
        topics: Option<Vec<DescribableLogDirTopic>> = Some(Vec::new());
    }
    DescribableLogDirTopic {
        topic: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// The log directories.
    mod describe_log_dirs_response, versions 1..=5, flexible 2..;

    DescribeLogDirsResponse {
        throttle_time_ms: i32;
        error_code: i16 [3.., else ignore];
        results: Vec<DescribeLogDirsResult>;
    }
    DescribeLogDirsResult {
        error_code: i16;
        log_dir: Str;
        topics: Vec<DescribeLogDirsTopic>;
        total_bytes: i64 [4.., else ignore] = -1;
        usable_bytes: i64 [4.., else ignore] = -1;
        is_cordoned: bool [5.., else ignore];
    }
    DescribeLogDirsTopic {
        name: Str;
        partitions: Vec<DescribeLogDirsPartition>;
    }
    DescribeLogDirsPartition {
        partition_index: i32;
        partition_size: i64;
        offset_lag: i64;
        is_future_key: bool;
    }
}

message! {
    /// Starts leader elections.
    mod elect_leaders_request, versions 0..=2, flexible 2..;

    ElectLeadersRequest {
        election_type: i8 [1..];
        topic_partitions: Option<Vec<TopicPartitions>> = Some(Vec::new());
        timeout_ms: i32 = 60000;
    }
    TopicPartitions {
        topic: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// What became of each partition.
    mod elect_leaders_response, versions 0..=2, flexible 2..;

    ElectLeadersResponse {
        throttle_time_ms: i32;
        error_code: i16 [1..];
        replica_election_results: Vec<ReplicaElectionResult>;
    }
    ReplicaElectionResult {
        topic: Str;
        partition_result: Vec<PartitionResult>;
    }
    PartitionResult {
        partition_id: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
    }
}

message! {
    /// Starts or cancels moves of replicas.
    mod alter_partition_reassignments_request, versions 0..=1, flexible 0..;

    AlterPartitionReassignmentsRequest {
        timeout_ms: i32 = 60000;
        allow_replication_factor_change: bool [1..] = true;
        topics: Vec<ReassignableTopic>;
    }
    ReassignableTopic {
        name: Str;
        partitions: Vec<ReassignablePartition>;
    }
    ReassignablePartition {
        partition_index: i32;
        replicas: Option<Vec<i32>>;
    }
}

message! {
    /// What became of each partition.
    mod alter_partition_reassignments_response, versions 0..=1, flexible 0..;

    AlterPartitionReassignmentsResponse {
        throttle_time_ms: i32;
        allow_replication_factor_change: bool [1.., else ignore] = true;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        responses: Vec<ReassignableTopicResponse>;
    }
    ReassignableTopicResponse {
        name: Str;
        partitions: Vec<ReassignablePartitionResponse>;
    }
    ReassignablePartitionResponse {
        partition_index: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
    }
}

message! {
    /// Asks which moves of replicas are under way.
    mod list_partition_reassignments_request, versions 0..=0, flexible 0..;

    ListPartitionReassignmentsRequest {
        timeout_ms: i32 = 60000;
        topics: Option<Vec<ListPartitionReassignmentsTopics>>;
    }
    ListPartitionReassignmentsTopics {
        name: Str;
        partition_indexes: Vec<i32>;
    }
}

message! {
    /// The moves.
    mod list_partition_reassignments_response, versions 0..=0, flexible 0..;

    ListPartitionReassignmentsResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        topics: Vec<OngoingTopicReassignment>;
    }
    OngoingTopicReassignment {
        name: Str;
        partitions: Vec<OngoingPartitionReassignment>;
    }
    OngoingPartitionReassignment {
        partition_index: i32;
        replicas: Vec<i32>;
        adding_replicas: Vec<i32>;
        removing_replicas: Vec<i32>;
    }
}

message! {
    /// Asks for the state of the metadata quorum.
    mod describe_quorum_request, versions 0..=2, flexible 0..;

    DescribeQuorumRequest {
        topics: Vec<TopicData>;
    }
    TopicData {
        topic_name: Str;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition_index: i32;
    }
}

message! {
    /// The voters and observers.
    mod describe_quorum_response, versions 0..=2, flexible 0..;

    DescribeQuorumResponse {
        error_code: i16;
        error_message: Option<Str> [2.., else ignore] = Some(Str::default());
        topics: Vec<TopicData>;
        nodes: Vec<Node> [2..];
    }
    TopicData {
        topic_name: Str;
        partitions: Vec<PartitionData>;
    }
    PartitionData {
        partition_index: i32;
        error_code: i16;
        error_message: Option<Str> [2.., else ignore] = Some(Str::default());
        leader_id: i32;
        leader_epoch: i32;
        high_watermark: i64;
        current_voters: Vec<ReplicaState>;
        observers: Vec<ReplicaState>;
    }
    ReplicaState {
        replica_id: i32;
        replica_directory_id: Uuid [2..];
        log_end_offset: i64;
        last_fetch_timestamp: i64 [1.., else ignore] = -1;
        last_caught_up_timestamp: i64 [1.., else ignore] = -1;
    }
    Node {
        node_id: i32 [2..];
        listeners: Vec<Listener> [2..];
    }
    Listener {
        name: Str [2..];
        host: Str [2..];
        port: u16 [2..];
    }
}

message! {
    /// Changes the finalized versions of features.
    mod update_features_request, versions 0..=2, flexible 0..;

    UpdateFeaturesRequest {
        timeout_ms: i32 = 60000;
        feature_updates: Vec<FeatureUpdateKey>;
        validate_only: bool [1..];
    }
    FeatureUpdateKey {
        feature: Str;
        max_version_level: i16;
        allow_downgrade: bool [..=0];
        upgrade_type: i8 [1..] = 1;
    }
}

message! {
    /// What became of each feature.
    mod update_features_response, versions 0..=2, flexible 0..;

    UpdateFeaturesResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        results: Vec<UpdatableFeatureResult> [..=1, else ignore];
    }
    UpdatableFeatureResult {
        feature: Str;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
    }
}

message! {
    /// Removes a broker from the cluster.
    mod unregister_broker_request, versions 0..=0, flexible 0..;

    UnregisterBrokerRequest {
        broker_id: i32;
    }
}

message! {
    /// Whether the broker was removed.
    mod unregister_broker_response, versions 0..=0, flexible 0..;

    UnregisterBrokerResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
    }
}
