//! Finding out what the cluster is and offers.

use crate::table::message;

message! {
    /// Asks which requests are served in which versions.
    mod api_versions_request, versions 0..=4, flexible 3..;

    ApiVersionsRequest {
        client_software_name: Str [3.., else ignore];
        client_software_version: Str [3.., else ignore];
    }
}

message! {
    /// The requests served, and the features. Version 0 answers every version that is not known.
    mod api_versions_response, versions 0..=4, flexible 3..;

    ApiVersionsResponse {
        error_code: i16;
        api_keys: Vec<ApiVersion>;
        throttle_time_ms: i32 [1.., else ignore];
        supported_features: Vec<SupportedFeatureKey> [3.., tag 0, else ignore];
        finalized_features_epoch: i64 [3.., tag 1, else ignore] = -1;
        finalized_features: Vec<FinalizedFeatureKey> [3.., tag 2, else ignore];
        zk_migration_ready: bool [3.., tag 3, else ignore];
    }
    ApiVersion {
        api_key: i16;
        min_version: i16;
        max_version: i16;
    }
    SupportedFeatureKey {
        name: Str [3..];
        min_version: i16 [3..];
        max_version: i16 [3..];
    }
    FinalizedFeatureKey {
        name: Str [3..];
        max_version_level: i16 [3..];
        min_version_level: i16 [3..];
    }
}

message! {
    /// Asks for brokers, topics and the leaders of partitions; may create topics.
    mod metadata_request, versions 0..=13, flexible 9..;

    MetadataRequest {
        topics: Option<Vec<MetadataRequestTopic>> [.., null 1..] = Some(Vec::new());
        allow_auto_topic_creation: bool [4..] = true;
        include_cluster_authorized_operations: bool [8..=10];
        include_topic_authorized_operations: bool [8..];
    }
    MetadataRequestTopic {
        topic_id: Uuid [10.., else ignore];
        name: Option<Str> [.., null 10..] = Some(Str::default());
    }
}

message! {
    /// Brokers, topics and partitions.
    mod metadata_response, versions 0..=13, flexible 9..;

    MetadataResponse {
        throttle_time_ms: i32 [3.., else ignore];
        brokers: Vec<MetadataResponseBroker>;
        cluster_id: Option<Str> [2.., else ignore];
        controller_id: i32 [1.., else ignore] = -1;
        topics: Vec<MetadataResponseTopic>;
        cluster_authorized_operations: i32 [8..=10] = i32::MIN;
        error_code: i16 [13.., else ignore];
    }
    MetadataResponseBroker {
        node_id: i32;
        host: Str;
        port: i32;
        rack: Option<Str> [1.., else ignore];
    }
    MetadataResponseTopic {
        error_code: i16;
        name: Option<Str> [.., null 12..] = Some(Str::default());
        topic_id: Uuid [10.., else ignore];
        is_internal: bool [1.., else ignore];
        partitions: Vec<MetadataResponsePartition>;
        topic_authorized_operations: i32 [8..] = i32::MIN;
    }
    MetadataResponsePartition {
        error_code: i16;
        partition_index: i32;
        leader_id: i32;
        leader_epoch: i32 [7.., else ignore] = -1;
        replica_nodes: Vec<i32>;
        isr_nodes: Vec<i32>;
        offline_replicas: Vec<i32> [5.., else ignore];
    }
}

message! {
    /// Asks for the brokers and the id of the cluster.
    mod describe_cluster_request, versions 0..=2, flexible 0..;

    DescribeClusterRequest {
        include_cluster_authorized_operations: bool;
        endpoint_type: i8 [1..] = 1;
        include_fenced_brokers: bool [2..];
    }
}

message! {
    /// The brokers and the id of the cluster.
    mod describe_cluster_response, versions 0..=2, flexible 0..;

    DescribeClusterResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str>;
        endpoint_type: i8 [1..] = 1;
        cluster_id: Str;
        controller_id: i32 = -1;
        brokers: Vec<DescribeClusterBroker>;
        cluster_authorized_operations: i32 = i32::MIN;
    }
    DescribeClusterBroker {
        broker_id: i32;
        host: Str;
        port: i32;
        rack: Option<Str>;
        is_fenced: bool [2..];
    }
}

message! {
    /// Asks for topics and their partitions, a page at a time.
    mod describe_topic_partitions_request, versions 0..=0, flexible 0..;

    DescribeTopicPartitionsRequest {
        topics: Vec<TopicRequest>;
        response_partition_limit: i32 = 2000;
        cursor: Option<Cursor>;
    }
    TopicRequest {
        name: Str;
    }
    Cursor {
        topic_name: Str;
        partition_index: i32;
    }
}

message! {
    /// One page of topics and partitions.
    mod describe_topic_partitions_response, versions 0..=0, flexible 0..;

    DescribeTopicPartitionsResponse {
        throttle_time_ms: i32;
        topics: Vec<DescribeTopicPartitionsResponseTopic>;
        next_cursor: Option<Cursor>;
    }
    DescribeTopicPartitionsResponseTopic {
        error_code: i16;
        name: Option<Str> = Some(Str::default());
        topic_id: Uuid;
        is_internal: bool;
        partitions: Vec<DescribeTopicPartitionsResponsePartition>;
        topic_authorized_operations: i32 = i32::MIN;
    }
    DescribeTopicPartitionsResponsePartition {
        error_code: i16;
        partition_index: i32;
        leader_id: i32;
        leader_epoch: i32 = -1;
        replica_nodes: Vec<i32>;
        isr_nodes: Vec<i32>;
        eligible_leader_replicas: Option<Vec<i32>>;
        last_known_elr: Option<Vec<i32>>;
        offline_replicas: Vec<i32>;
    }
    Cursor {
        topic_name: Str;
        partition_index: i32;
    }
}

message! {
    /// Asks which broker coordinates a group or a transactional id.
    mod find_coordinator_request, versions 0..=6, flexible 3..;

    FindCoordinatorRequest {
        key: Str [..=3];
        key_type: i8 [1..];
        coordinator_keys: Vec<Str> [4..];
    }
}

message! {
    /// The coordinators.
    mod find_coordinator_response, versions 0..=6, flexible 3..;

    FindCoordinatorResponse {
        throttle_time_ms: i32 [1.., else ignore];
        error_code: i16 [..=3];
        error_message: Option<Str> [1..=3, else ignore] = Some(Str::default());
        node_id: i32 [..=3];
        host: Str [..=3];
        port: i32 [..=3];
        coordinators: Vec<Coordinator> [4..];
    }
    Coordinator {
        key: Str [4..];
        node_id: i32 [4..];
        host: Str [4..];
        port: i32 [4..];
        error_code: i16 [4..];
        error_message: Option<Str> [4.., else ignore] = Some(Str::default());
    }
}
