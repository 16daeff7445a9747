//! The classic group protocol, and offsets.

use crate::table::message;

message! {
    /// Stores a group's offsets.
    mod offset_commit_request, versions 2..=10, flexible 8..;

    OffsetCommitRequest {
        group_id: Str;
        generation_id_or_member_epoch: i32 = -1;
        member_id: Str;
        group_instance_id: Option<Str> [7..];
        retention_time_ms: i64 [..=4, else ignore] = -1;
        topics: Vec<OffsetCommitRequestTopic>;
    }
    OffsetCommitRequestTopic {
        name: Str [..=9, else ignore];
        topic_id: Uuid [10.., else ignore];
        partitions: Vec<OffsetCommitRequestPartition>;
    }
    OffsetCommitRequestPartition {
        partition_index: i32;
        committed_offset: i64;
        committed_leader_epoch: i32 [6.., else ignore] = -1;
        committed_metadata: Option<Str> = Some(Str::default());
    }
}

message! {
    /// What became of each offset.
    mod offset_commit_response, versions 2..=10, flexible 8..;

    OffsetCommitResponse {
        throttle_time_ms: i32 [3.., else ignore];
        topics: Vec<OffsetCommitResponseTopic>;
    }
    OffsetCommitResponseTopic {
        name: Str [..=9, else ignore];
        topic_id: Uuid [10.., else ignore];
        partitions: Vec<OffsetCommitResponsePartition>;
    }
    OffsetCommitResponsePartition {
        partition_index: i32;
        error_code: i16;
    }
}

message! {
    /// Asks for the committed offsets of groups.
    mod offset_fetch_request, versions 1..=10, flexible 6..;

    OffsetFetchRequest {
        group_id: Str [..=7];
        topics: Option<Vec<OffsetFetchRequestTopic>> [..=7, null 2..=7] = Some(Vec::new());
        groups: Vec<OffsetFetchRequestGroup> [8..];
        require_stable: bool [7..];
    }
    OffsetFetchRequestTopic {
        name: Str [..=7];
        partition_indexes: Vec<i32> [..=7];
    }
    OffsetFetchRequestGroup {
        group_id: Str [8..];
        member_id: Option<Str> [9.., else ignore];
        member_epoch: i32 [9.., else ignore] = -1;
        topics: Option<Vec<OffsetFetchRequestTopics>> [8..] = Some(Vec::new());
    }
    OffsetFetchRequestTopics {
        name: Str [8..=9, else ignore];
        topic_id: Uuid [10.., else ignore];
        partition_indexes: Vec<i32> [8..];
    }
}

message! {
    /// The committed offsets.
    mod offset_fetch_response, versions 1..=10, flexible 6..;

    OffsetFetchResponse {
        throttle_time_ms: i32 [3.., else ignore];
        topics: Vec<OffsetFetchResponseTopic> [..=7];
        error_code: i16 [2..=7, else ignore];
        groups: Vec<OffsetFetchResponseGroup> [8..];
    }
    OffsetFetchResponseTopic {
        name: Str [..=7];
        partitions: Vec<OffsetFetchResponsePartition> [..=7];
    }
    OffsetFetchResponsePartition {
        partition_index: i32 [..=7];
        committed_offset: i64 [..=7];
        committed_leader_epoch: i32 [5..=7, else ignore] = -1;
        metadata: Option<Str> [..=7] = Some(Str::default());
        error_code: i16 [..=7];
    }
    OffsetFetchResponseGroup {
        group_id: Str [8..];
        topics: Vec<OffsetFetchResponseTopics> [8..];
        error_code: i16 [8..];
    }
    OffsetFetchResponseTopics {
        name: Str [8..=9, else ignore];
        topic_id: Uuid [10.., else ignore];
        partitions: Vec<OffsetFetchResponsePartitions> [8..];
    }
    OffsetFetchResponsePartitions {
        partition_index: i32 [8..];
        committed_offset: i64 [8..];
        committed_leader_epoch: i32 [8.., else ignore] = -1;
        metadata: Option<Str> [8..] = Some(Str::default());
        error_code: i16 [8..];
    }
}

message! {
    /// Joins a group, which starts a rebalance.
    mod join_group_request, versions 0..=9, flexible 6..;

    JoinGroupRequest {
        group_id: Str;
        session_timeout_ms: i32;
        rebalance_timeout_ms: i32 [1.., else ignore] = -1;
        member_id: Str;
        group_instance_id: Option<Str> [5..];
        protocol_type: Str;
        protocols: Vec<JoinGroupRequestProtocol>;
        reason: Option<Str> [8.., else ignore];
    }
    JoinGroupRequestProtocol {
        name: Str;
        metadata: Bytes;
    }
}

message! {
    /// The generation joined and, for the leader, all members.
    mod join_group_response, versions 0..=9, flexible 6..;

    JoinGroupResponse {
        throttle_time_ms: i32 [2.., else ignore];
        error_code: i16;
        generation_id: i32 = -1;
        protocol_type: Option<Str> [7.., else ignore];
        protocol_name: Option<Str> [.., null 7..] = Some(Str::default());
        leader: Str;
        skip_assignment: bool [9..];
        member_id: Str;
        members: Vec<JoinGroupResponseMember>;
    }
    JoinGroupResponseMember {
        member_id: Str;
        group_instance_id: Option<Str> [5.., else ignore];
        metadata: Bytes;
    }
}

message! {
    /// Says that a member is alive.
    mod heartbeat_request, versions 0..=4, flexible 4..;

    HeartbeatRequest {
        group_id: Str;
        generation_id: i32;
        member_id: Str;
        group_instance_id: Option<Str> [3..];
    }
}

message! {
    /// Whether the member must rejoin.
    mod heartbeat_response, versions 0..=4, flexible 4..;

    HeartbeatResponse {
        throttle_time_ms: i32 [1.., else ignore];
        error_code: i16;
    }
}

message! {
    /// Removes members from a group.
    mod leave_group_request, versions 0..=5, flexible 4..;

    LeaveGroupRequest {
        group_id: Str;
        member_id: Str [..=2];
        members: Vec<MemberIdentity> [3..];
    }
    MemberIdentity {
        member_id: Str [3..];
        group_instance_id: Option<Str> [3..];
        reason: Option<Str> [5.., else ignore];
    }
}

message! {
    /// What became of each member.
    mod leave_group_response, versions 0..=5, flexible 4..;

    LeaveGroupResponse {
        throttle_time_ms: i32 [1.., else ignore];
        error_code: i16;
        members: Vec<MemberResponse> [3..];
    }
    MemberResponse {
        member_id: Str [3..];
        group_instance_id: Option<Str> [3..] = Some(Str::default());
        error_code: i16 [3..];
    }
}

message! {
    /// Brings the leader's assignments and waits for one's own.
    mod sync_group_request, versions 0..=5, flexible 4..;

    SyncGroupRequest {
        group_id: Str;
        generation_id: i32;
        member_id: Str;
        group_instance_id: Option<Str> [3..];
        protocol_type: Option<Str> [5.., else ignore];
        protocol_name: Option<Str> [5.., else ignore];
        assignments: Vec<SyncGroupRequestAssignment>;
    }
    SyncGroupRequestAssignment {
        member_id: Str;
        assignment: Bytes;
    }
}

message! {
    /// The member's assignment.
    mod sync_group_response, versions 0..=5, flexible 4..;

    SyncGroupResponse {
        throttle_time_ms: i32 [1.., else ignore];
        error_code: i16;
        protocol_type: Option<Str> [5.., else ignore];
        protocol_name: Option<Str> [5.., else ignore];
        assignment: Bytes;
    }
}

message! {
    /// Asks for the state and members of classic groups.
    mod describe_groups_request, versions 0..=6, flexible 5..;

    DescribeGroupsRequest {
        groups: Vec<Str>;
        include_authorized_operations: bool [3..];
    }
}

message! {
    /// The groups.
    mod describe_groups_response, versions 0..=6, flexible 5..;

    DescribeGroupsResponse {
        throttle_time_ms: i32 [1.., else ignore];
        groups: Vec<DescribedGroup>;
    }
    DescribedGroup {
        error_code: i16;
        error_message: Option<Str> [6..];
        group_id: Str;
        group_state: Str;
        protocol_type: Str;
        protocol_data: Str;
        members: Vec<DescribedGroupMember>;
        authorized_operations: i32 [3..] = i32::MIN;
    }
    DescribedGroupMember {
        member_id: Str;
        group_instance_id: Option<Str> [4.., else ignore];
        client_id: Str;
        client_host: Str;
        member_metadata: Bytes;
        member_assignment: Bytes;
    }
}

message! {
    /// Asks which groups there are.
    mod list_groups_request, versions 0..=5, flexible 3..;

    ListGroupsRequest {
        states_filter: Vec<Str> [4..];
        types_filter: Vec<Str> [5..];
    }
}

message! {
    /// The groups.
    mod list_groups_response, versions 0..=5, flexible 3..;

    ListGroupsResponse {
        throttle_time_ms: i32 [1.., else ignore];
        error_code: i16;
        groups: Vec<ListedGroup>;
    }
    ListedGroup {
        group_id: Str;
        protocol_type: Str;
        group_state: Str [4.., else ignore];
        group_type: Str [5.., else ignore];
    }
}

message! {
    /// Deletes empty groups.
    mod delete_groups_request, versions 0..=2, flexible 2..;

    DeleteGroupsRequest {
        groups_names: Vec<Str>;
    }
}

message! {
    /// What became of each group.
    mod delete_groups_response, versions 0..=2, flexible 2..;

    DeleteGroupsResponse {
        throttle_time_ms: i32;
        results: Vec<DeletableGroupResult>;
    }
    DeletableGroupResult {
        group_id: Str;
        error_code: i16;
    }
}

message! {
    /// Deletes committed offsets of a group.
    mod offset_delete_request, versions 0..=0;

    OffsetDeleteRequest {
        group_id: Str;
        topics: Vec<OffsetDeleteRequestTopic>;
    }
    OffsetDeleteRequestTopic {
        name: Str;
        partitions: Vec<OffsetDeleteRequestPartition>;
    }
    OffsetDeleteRequestPartition {
        partition_index: i32;
    }
}

message! {
    /// What became of each offset.
    mod offset_delete_response, versions 0..=0;

    OffsetDeleteResponse {
        error_code: i16;
        throttle_time_ms: i32;
        topics: Vec<OffsetDeleteResponseTopic>;
    }
    OffsetDeleteResponseTopic {
        name: Str;
        partitions: Vec<OffsetDeleteResponsePartition>;
    }
    OffsetDeleteResponsePartition {
        partition_index: i32;
        error_code: i16;
    }
}

message! {
    /// What a consumer says of itself inside JoinGroup, after two bytes of version.
    mod consumer_protocol_subscription, versions 0..=3;

    ConsumerProtocolSubscription {
        topics: Vec<Str>;
        user_data: Option<Bytes>;
        owned_partitions: Vec<TopicPartition> [1.., else ignore];
        generation_id: i32 [2.., else ignore] = -1;
        rack_id: Option<Str> [3.., else ignore];
    }
    TopicPartition {
        topic: Str [1..];
        partitions: Vec<i32> [1..];
    }
}

message! {
    /// What the leader assigns inside SyncGroup, after two bytes of version.
    mod consumer_protocol_assignment, versions 0..=3;

    ConsumerProtocolAssignment {
        assigned_partitions: Vec<TopicPartition>;
        user_data: Option<Bytes>;
    }
    TopicPartition {
        topic: Str;
        partitions: Vec<i32>;
    }
}
