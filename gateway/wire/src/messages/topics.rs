//! Topics, partitions and their configuration.

use crate::table::message;

message! {
    /// Creates topics.
    mod create_topics_request, versions 2..=7, flexible 5..;

    CreateTopicsRequest {
        topics: Vec<CreatableTopic>;
        timeout_ms: i32 = 60000;
        validate_only: bool;
    }
    CreatableTopic {
        name: Str;
        num_partitions: i32;
        replication_factor: i16;
        assignments: Vec<CreatableReplicaAssignment>;
        configs: Vec<CreatableTopicConfig>;
    }
    CreatableReplicaAssignment {
        partition_index: i32;
        broker_ids: Vec<i32>;
    }
    CreatableTopicConfig {
        name: Str;
        value: Option<Str> = Some(Str::default());
    }
}

message! {
    /// What became of each topic.
    mod create_topics_response, versions 2..=7, flexible 5..;

    CreateTopicsResponse {
        throttle_time_ms: i32;
        topics: Vec<CreatableTopicResult>;
    }
    CreatableTopicResult {
        name: Str;
        topic_id: Uuid [7.., else ignore];
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        topic_config_error_code: i16 [5.., tag 0, else ignore];
        num_partitions: i32 [5.., else ignore] = -1;
        replication_factor: i16 [5.., else ignore] = -1;
        configs: Option<Vec<CreatableTopicConfigs>> [5.., else ignore] = Some(Vec::new());
    }
    CreatableTopicConfigs {
        name: Str [5..];
        value: Option<Str> [5..] = Some(Str::default());
        read_only: bool [5..];
        config_source: i8 [5.., else ignore] = -1;
        is_sensitive: bool [5..];
    }
}

message! {
    /// Deletes topics by name or id.
    mod delete_topics_request, versions 1..=6, flexible 4..;

    DeleteTopicsRequest {
        topics: Vec<DeleteTopicState> [6..];
        topic_names: Vec<Str> [..=5, else ignore];
        timeout_ms: i32;
    }
    DeleteTopicState {
        name: Option<Str> [6..];
        topic_id: Uuid [6..];
    }
}

message! {
    /// What became of each topic.
    mod delete_topics_response, versions 1..=6, flexible 4..;

    DeleteTopicsResponse {
        throttle_time_ms: i32;
        responses: Vec<DeletableTopicResult>;
    }
    DeletableTopicResult {
        name: Option<Str> [.., null 6..] = Some(Str::default());
        topic_id: Uuid [6.., else ignore];
        error_code: i16;
        error_message: Option<Str> [5.., else ignore];
    }
}

message! {
    /// Adds partitions to topics.
    mod create_partitions_request, versions 0..=3, flexible 2..;

    CreatePartitionsRequest {
        topics: Vec<CreatePartitionsTopic>;
        timeout_ms: i32;
        validate_only: bool;
    }
    CreatePartitionsTopic {
        name: Str;
        count: i32;
        assignments: Option<Vec<CreatePartitionsAssignment>> = Some(Vec::new());
    }
    CreatePartitionsAssignment {
        broker_ids: Vec<i32>;
    }
}

message! {
    /// What became of each topic.
    mod create_partitions_response, versions 0..=3, flexible 2..;

    CreatePartitionsResponse {
        throttle_time_ms: i32;
        results: Vec<CreatePartitionsTopicResult>;
    }
    CreatePartitionsTopicResult {
        name: Str;
        error_code: i16;
        error_message: Option<Str>;
    }
}

message! {
    /// Asks for the configuration of topics, brokers or groups.
    mod describe_configs_request, versions 1..=4, flexible 4..;

    DescribeConfigsRequest {
        resources: Vec<DescribeConfigsResource>;
        include_synonyms: bool;
        include_documentation: bool [3..];
    }
    DescribeConfigsResource {
        resource_type: i8;
        resource_name: Str;
        configuration_keys: Option<Vec<Str>> = Some(Vec::new());
    }
}

message! {
    /// The configuration values with where they come from.
    mod describe_configs_response, versions 1..=4, flexible 4..;

    DescribeConfigsResponse {
        throttle_time_ms: i32;
        results: Vec<DescribeConfigsResult>;
    }
    DescribeConfigsResult {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        resource_type: i8;
        resource_name: Str;
        configs: Vec<DescribeConfigsResourceResult>;
    }
    DescribeConfigsResourceResult {
        name: Str;
        value: Option<Str> = Some(Str::default());
        read_only: bool;
        config_source: i8 = -1;
        is_sensitive: bool;
        synonyms: Vec<DescribeConfigsSynonym>;
        config_type: i8 [3.., else ignore];
        documentation: Option<Str> [3.., else ignore] = Some(Str::default());
    }
    DescribeConfigsSynonym {
        name: Str;
        value: Option<Str> = Some(Str::default());
        source: i8;
    }
}

message! {
    /// Replaces the whole configuration of resources.
    mod alter_configs_request, versions 0..=2, flexible 2..;

    AlterConfigsRequest {
        resources: Vec<AlterConfigsResource>;
        validate_only: bool;
    }
    AlterConfigsResource {
        resource_type: i8;
        resource_name: Str;
        configs: Vec<AlterableConfig>;
    }
    AlterableConfig {
        name: Str;
        value: Option<Str> = Some(Str::default());
    }
}

message! {
    /// What became of each resource.
    mod alter_configs_response, versions 0..=2, flexible 2..;

    AlterConfigsResponse {
        throttle_time_ms: i32;
        responses: Vec<AlterConfigsResourceResponse>;
    }
    AlterConfigsResourceResponse {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        resource_type: i8;
        resource_name: Str;
    }
}

message! {
    /// Sets, deletes, appends to or subtracts from single configuration values.
    mod incremental_alter_configs_request, versions 0..=1, flexible 1..;

    IncrementalAlterConfigsRequest {
        resources: Vec<AlterConfigsResource>;
        validate_only: bool;
    }
    AlterConfigsResource {
        resource_type: i8;
        resource_name: Str;
        configs: Vec<AlterableConfig>;
    }
    AlterableConfig {
        name: Str;
        config_operation: i8;
        value: Option<Str> = Some(Str::default());
    }
}

message! {
    /// What became of each resource.
    mod incremental_alter_configs_response, versions 0..=1, flexible 1..;

    IncrementalAlterConfigsResponse {
        throttle_time_ms: i32;
        responses: Vec<AlterConfigsResourceResponse>;
    }
    AlterConfigsResourceResponse {
        error_code: i16;
        error_message: Option<Str> = Some(Str::default());
        resource_type: i8;
        resource_name: Str;
    }
}

message! {
    /// Asks which resources have configuration.
    mod list_config_resources_request, versions 0..=1, flexible 0..;

    ListConfigResourcesRequest {
        resource_types: Vec<i8> [1..];
    }
}

message! {
    /// The resources.
    mod list_config_resources_response, versions 0..=1, flexible 0..;

    ListConfigResourcesResponse {
        throttle_time_ms: i32;
        error_code: i16;
        config_resources: Vec<ConfigResource>;
    }
    ConfigResource {
        resource_name: Str;
        resource_type: i8 [1.., else ignore] = 16;
    }
}
