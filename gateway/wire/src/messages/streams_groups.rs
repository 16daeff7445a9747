//! Groups of Kafka Streams, whose tasks the server assigns (KIP-1071).

use crate::table::message;

message! {
    /// Joins, keeps alive or leaves a streams group.
    mod streams_group_heartbeat_request, versions 0..=0, flexible 0..;

    StreamsGroupHeartbeatRequest {
        group_id: Str;
        member_id: Str;
        member_epoch: i32;
        endpoint_information_epoch: i32;
        instance_id: Option<Str>;
        rack_id: Option<Str>;
        rebalance_timeout_ms: i32 = -1;
        topology: Option<Topology>;
        active_tasks: Option<Vec<TaskIds>>;
        standby_tasks: Option<Vec<TaskIds>>;
        warmup_tasks: Option<Vec<TaskIds>>;
        process_id: Option<Str>;
        user_endpoint: Option<Endpoint>;
        client_tags: Option<Vec<KeyValue>>;
        task_offsets: Option<Vec<TaskOffset>>;
        task_end_offsets: Option<Vec<TaskOffset>>;
        shutdown_application: bool;
    }
    Topology {
        epoch: i32;
        subtopologies: Vec<Subtopology>;
    }
    Subtopology {
        subtopology_id: Str;
        source_topics: Vec<Str>;
        source_topic_regex: Vec<Str>;
        state_changelog_topics: Vec<TopicInfo>;
        repartition_sink_topics: Vec<Str>;
        repartition_source_topics: Vec<TopicInfo>;
        copartition_groups: Vec<CopartitionGroup>;
    }
    TopicInfo {
        name: Str;
        partitions: i32;
        replication_factor: i16;
        topic_configs: Vec<KeyValue>;
    }
    KeyValue {
        key: Str;
        value: Str;
    }
    CopartitionGroup {
        source_topics: Vec<i16>;
        source_topic_regex: Vec<i16>;
        repartition_source_topics: Vec<i16>;
    }
    TaskIds {
        subtopology_id: Str;
        partitions: Vec<i32>;
    }
    Endpoint {
        host: Str;
        port: u16;
    }
    TaskOffset {
        subtopology_id: Str;
        partition: i32;
        offset: i64;
    }
}

message! {
    /// The member's epoch and, if they changed, its tasks.
    mod streams_group_heartbeat_response, versions 0..=0, flexible 0..;

    StreamsGroupHeartbeatResponse {
        throttle_time_ms: i32;
        error_code: i16;
        error_message: Option<Str>;
        member_id: Str;
        member_epoch: i32;
        heartbeat_interval_ms: i32;
        acceptable_recovery_lag: i32;
        task_offset_interval_ms: i32;
        status: Option<Vec<Status>> = Some(Vec::new());
        active_tasks: Option<Vec<TaskIds>>;
        standby_tasks: Option<Vec<TaskIds>>;
        warmup_tasks: Option<Vec<TaskIds>>;
        endpoint_information_epoch: i32;
        partitions_by_user_endpoint: Option<Vec<EndpointToPartitions>>;
    }
    Status {
        status_code: i8;
        status_detail: Str;
    }
    TaskIds {
        subtopology_id: Str;
        partitions: Vec<i32>;
    }
    EndpointToPartitions {
        user_endpoint: Endpoint;
        active_partitions: Vec<TopicPartition>;
        standby_partitions: Vec<TopicPartition>;
    }
    Endpoint {
        host: Str;
        port: u16;
    }
    TopicPartition {
        topic: Str;
        partitions: Vec<i32>;
    }
}

message! {
    /// Asks for the state, topology and members of streams groups.
    mod streams_group_describe_request, versions 0..=0, flexible 0..;

    StreamsGroupDescribeRequest {
        group_ids: Vec<Str>;
        include_authorized_operations: bool;
    }
}

message! {
    /// The groups.
    mod streams_group_describe_response, versions 0..=0, flexible 0..;

    StreamsGroupDescribeResponse {
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
        topology: Option<Topology>;
        members: Vec<Member>;
        authorized_operations: i32 = i32::MIN;
    }
    Topology {
        epoch: i32;
        subtopologies: Option<Vec<Subtopology>>;
    }
    Subtopology {
        subtopology_id: Str;
        source_topics: Vec<Str>;
        repartition_sink_topics: Vec<Str>;
        state_changelog_topics: Vec<TopicInfo>;
        repartition_source_topics: Vec<TopicInfo>;
    }
    TopicInfo {
        name: Str;
        partitions: i32;
        replication_factor: i16;
        topic_configs: Vec<KeyValue>;
    }
    KeyValue {
        key: Str;
        value: Str;
    }
    Member {
        member_id: Str;
        member_epoch: i32;
        instance_id: Option<Str>;
        rack_id: Option<Str>;
        client_id: Str;
        client_host: Str;
        topology_epoch: i32;
        process_id: Str;
        user_endpoint: Option<Endpoint>;
        client_tags: Vec<KeyValue>;
        task_offsets: Vec<TaskOffset>;
        task_end_offsets: Vec<TaskOffset>;
        assignment: Assignment;
        target_assignment: Assignment;
        is_classic: bool;
    }
    Endpoint {
        host: Str;
        port: u16;
    }
    TaskOffset {
        subtopology_id: Str;
        partition: i32;
        offset: i64;
    }
    Assignment {
        active_tasks: Vec<TaskIds>;
        standby_tasks: Vec<TaskIds>;
        warmup_tasks: Vec<TaskIds>;
    }
    TaskIds {
        subtopology_id: Str;
        partitions: Vec<i32>;
    }
}
