//! Consumer groups of KIP-848, whose assignment the server computes.

use crate::table::message;

message! {
    /// Joins, keeps alive or leaves a consumer group (KIP-848).
    mod consumer_group_heartbeat_request, versions 0..=1, flexible 0..;

    ConsumerGroupHeartbeatRequest {
        group_id: Str;
        member_id: Str;
        member_epoch: i32;
        instance_id: Option<Str>;
        rack_id: Option<Str>;
        rebalance_timeout_ms: i32 = -1;
        subscribed_topic_names: Option<Vec<Str>>;
        subscribed_topic_regex: Option<Str> [1..];
        server_assignor: Option<Str>;
        topic_partitions: Option<Vec<TopicPartitions>>;
    }
    TopicPartitions {
        topic_id: Uuid;
        partitions: Vec<i32>;
    }
}

message! {
    /// The member's epoch and, if it changed, its assignment.
    mod consumer_group_heartbeat_response, versions 0..=1, flexible 0..;

    ConsumerGroupHeartbeatResponse {
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
    /// Asks for the state and members of consumer groups.
    mod consumer_group_describe_request, versions 0..=1, flexible 0..;

    ConsumerGroupDescribeRequest {
        group_ids: Vec<Str>;
        include_authorized_operations: bool;
    }
}

message! {
    /// The groups.
    mod consumer_group_describe_response, versions 0..=1, flexible 0..;

    ConsumerGroupDescribeResponse {
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
        instance_id: Option<Str>;
        rack_id: Option<Str>;
        member_epoch: i32;
        client_id: Str;
        client_host: Str;
        subscribed_topic_names: Vec<Str>;
        subscribed_topic_regex: Option<Str>;
        assignment: Assignment;
        target_assignment: Assignment;
        member_type: i8 [1.., else ignore] = -1;
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
