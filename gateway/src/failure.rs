//! From errors of the catalog to Kafka's codes, each by one total function; and the first error code
//! of each answer, for the metrics.

use sluice_catalog::{
    AlterResourceError, AlterTopicError, CreatePartitionsError, CreateTopicError, DeleteTopicError,
};
use sluice_model::client_metrics::InvalidSubscription;
use sluice_wire::ErrorCode;
use sluice_wire::messages as m;

/// Retried by every admin client, after it has asked for metadata again.
const TRY_AGAIN: ErrorCode = ErrorCode::NotController;

/// Why a topic was not created.
pub(crate) fn of_create_topic(error: &CreateTopicError) -> ErrorCode {
    match error {
        CreateTopicError::InvalidName(_) | CreateTopicError::Collides { .. } => {
            ErrorCode::InvalidTopicException
        }
        CreateTopicError::Exists(_) => ErrorCode::TopicAlreadyExists,
        CreateTopicError::InvalidPartitions { .. } => ErrorCode::InvalidPartitions,
        CreateTopicError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        CreateTopicError::LimitReached { .. } => ErrorCode::PolicyViolation,
        CreateTopicError::NoVolumes | CreateTopicError::Unavailable(_) => TRY_AGAIN,
    }
}

/// Why a topic was not deleted.
pub(crate) fn of_delete_topic(error: &DeleteTopicError) -> ErrorCode {
    match error {
        DeleteTopicError::NotFound => ErrorCode::UnknownTopicOrPartition,
        DeleteTopicError::Unavailable(_) => TRY_AGAIN,
    }
}

/// Why a topic did not get more partitions.
pub(crate) fn of_create_partitions(error: &CreatePartitionsError) -> ErrorCode {
    match error {
        CreatePartitionsError::NotFound => ErrorCode::UnknownTopicOrPartition,
        CreatePartitionsError::NotMore { .. } | CreatePartitionsError::InvalidPartitions { .. } => {
            ErrorCode::InvalidPartitions
        }
        CreatePartitionsError::LimitReached { .. } => ErrorCode::PolicyViolation,
        CreatePartitionsError::NoVolumes | CreatePartitionsError::Unavailable(_) => TRY_AGAIN,
    }
}

/// Why a topic's configuration was not changed.
pub(crate) fn of_alter_topic(error: &AlterTopicError) -> ErrorCode {
    match error {
        AlterTopicError::NotFound => ErrorCode::UnknownTopicOrPartition,
        AlterTopicError::InvalidConfig(_) => ErrorCode::InvalidConfig,
        AlterTopicError::Unavailable(_) => TRY_AGAIN,
    }
}

/// Why what is set on a group or a metrics subscription was not changed.
pub(crate) fn of_alter_resource(error: &AlterResourceError) -> ErrorCode {
    match error {
        // Kafka's code for broker configs, whatever is wrong with them.
        AlterResourceError::InvalidName(_)
        | AlterResourceError::InvalidBroker(_)
        | AlterResourceError::InvalidSubscription(InvalidSubscription::Request(_)) => {
            ErrorCode::InvalidRequest
        }
        AlterResourceError::InvalidGroup(_)
        | AlterResourceError::InvalidSubscription(InvalidSubscription::Config(_)) => {
            ErrorCode::InvalidConfig
        }
        AlterResourceError::LimitReached { .. } => ErrorCode::PolicyViolation,
        AlterResourceError::Unavailable(_) => TRY_AGAIN,
    }
}

/// An answer that may hold errors.
pub(crate) trait FirstError {
    /// The first error code that is not 0, or 0.
    fn first_error(&self) -> i16;
}

/// Each row: the answer, and all its error codes in order.
macro_rules! first_errors {
    ($($module:ident::$answer:ident, $this:ident => $codes:expr;)*) => {
        $(impl FirstError for m::$module::$answer {
            fn first_error(&self) -> i16 {
                let $this = self;
                $codes.into_iter().find(|code| *code != 0).unwrap_or(0)
            }
        })*
    };
}

first_errors! {
    produce_response::ProduceResponse, a => a.responses.iter()
        .flat_map(|t| t.partition_responses.iter().map(|p| p.error_code));
    fetch_response::FetchResponse, a => [a.error_code].into_iter()
        .chain(a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    write_txn_markers_response::WriteTxnMarkersResponse, a => a.markers.iter()
        .flat_map(|m| m.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    list_offsets_response::ListOffsetsResponse, a => a.topics.iter()
        .flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    metadata_response::MetadataResponse, a => a.topics.iter().map(|t| t.error_code);
    offset_commit_response::OffsetCommitResponse, a => a.topics.iter()
        .flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    offset_fetch_response::OffsetFetchResponse, a => [a.error_code].into_iter()
        .chain(a.groups.iter().map(|g| g.error_code));
    find_coordinator_response::FindCoordinatorResponse, a => [a.error_code].into_iter()
        .chain(a.coordinators.iter().map(|c| c.error_code));
    join_group_response::JoinGroupResponse, a => [a.error_code];
    heartbeat_response::HeartbeatResponse, a => [a.error_code];
    leave_group_response::LeaveGroupResponse, a => [a.error_code].into_iter()
        .chain(a.members.iter().map(|m| m.error_code));
    sync_group_response::SyncGroupResponse, a => [a.error_code];
    describe_groups_response::DescribeGroupsResponse, a => a.groups.iter().map(|g| g.error_code);
    list_groups_response::ListGroupsResponse, a => [a.error_code];
    api_versions_response::ApiVersionsResponse, a => [a.error_code];
    create_topics_response::CreateTopicsResponse, a => a.topics.iter().map(|t| t.error_code);
    delete_topics_response::DeleteTopicsResponse, a => a.responses.iter().map(|t| t.error_code);
    delete_records_response::DeleteRecordsResponse, a => a.topics.iter()
        .flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    init_producer_id_response::InitProducerIdResponse, a => [a.error_code];
    offset_for_leader_epoch_response::OffsetForLeaderEpochResponse, a => a.topics.iter()
        .flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    add_partitions_to_txn_response::AddPartitionsToTxnResponse, a => [a.error_code].into_iter()
        .chain(a.results_by_topic_v3_and_below.iter()
            .chain(a.results_by_transaction.iter().flat_map(|t| &t.topic_results))
            .flat_map(|t| t.results_by_partition.iter().map(|p| p.partition_error_code)));
    add_offsets_to_txn_response::AddOffsetsToTxnResponse, a => [a.error_code];
    end_txn_response::EndTxnResponse, a => [a.error_code];
    describe_transactions_response::DescribeTransactionsResponse, a => a.transaction_states.iter()
        .map(|t| t.error_code);
    list_transactions_response::ListTransactionsResponse, a => [a.error_code];
    describe_configs_response::DescribeConfigsResponse, a => a.results.iter().map(|r| r.error_code);
    alter_configs_response::AlterConfigsResponse, a => a.responses.iter().map(|r| r.error_code);
    incremental_alter_configs_response::IncrementalAlterConfigsResponse, a => a.responses.iter()
        .map(|r| r.error_code);
    create_partitions_response::CreatePartitionsResponse, a => a.results.iter()
        .map(|r| r.error_code);
    delete_groups_response::DeleteGroupsResponse, a => a.results.iter().map(|r| r.error_code);
    offset_delete_response::OffsetDeleteResponse, a => [a.error_code].into_iter()
        .chain(a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    describe_cluster_response::DescribeClusterResponse, a => [a.error_code];
    consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse, a => [a.error_code];
    consumer_group_describe_response::ConsumerGroupDescribeResponse, a => a.groups.iter()
        .map(|g| g.error_code);
    alter_replica_log_dirs_response::AlterReplicaLogDirsResponse, a => a.results.iter()
        .flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    describe_log_dirs_response::DescribeLogDirsResponse, a => [a.error_code].into_iter()
        .chain(a.results.iter().map(|r| r.error_code));
    elect_leaders_response::ElectLeadersResponse, a => [a.error_code].into_iter()
        .chain(a.replica_election_results.iter()
            .flat_map(|t| t.partition_result.iter().map(|p| p.error_code)));
    alter_partition_reassignments_response::AlterPartitionReassignmentsResponse, a =>
        [a.error_code].into_iter()
        .chain(a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    list_partition_reassignments_response::ListPartitionReassignmentsResponse, a => [a.error_code];
    describe_quorum_response::DescribeQuorumResponse, a => [a.error_code].into_iter()
        .chain(a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    update_features_response::UpdateFeaturesResponse, a => [a.error_code];
    txn_offset_commit_response::TxnOffsetCommitResponse, a => a.topics.iter()
        .flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    describe_producers_response::DescribeProducersResponse, a => a.topics.iter()
        .flat_map(|t| t.partitions.iter().map(|p| p.error_code));
    unregister_broker_response::UnregisterBrokerResponse, a => [a.error_code];
    get_telemetry_subscriptions_response::GetTelemetrySubscriptionsResponse, a => [a.error_code];
    push_telemetry_response::PushTelemetryResponse, a => [a.error_code];
    list_config_resources_response::ListConfigResourcesResponse, a => [a.error_code];
    share_group_heartbeat_response::ShareGroupHeartbeatResponse, a => [a.error_code];
    share_group_describe_response::ShareGroupDescribeResponse, a => a.groups.iter()
        .map(|g| g.error_code);
    share_fetch_response::ShareFetchResponse, a => [a.error_code].into_iter()
        .chain(a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)))
        .chain(a.responses.iter()
            .flat_map(|t| t.partitions.iter().map(|p| p.acknowledge_error_code)));
    share_acknowledge_response::ShareAcknowledgeResponse, a => [a.error_code].into_iter()
        .chain(a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    describe_share_group_offsets_response::DescribeShareGroupOffsetsResponse, a => a.groups.iter()
        .map(|g| g.error_code);
    alter_share_group_offsets_response::AlterShareGroupOffsetsResponse, a =>
        [a.error_code].into_iter()
        .chain(a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)));
    delete_share_group_offsets_response::DeleteShareGroupOffsetsResponse, a =>
        [a.error_code].into_iter().chain(a.responses.iter().map(|t| t.error_code));
    describe_topic_partitions_response::DescribeTopicPartitionsResponse, a => a.topics.iter()
        .map(|t| t.error_code);
    streams_group_heartbeat_response::StreamsGroupHeartbeatResponse, a => [a.error_code];
    streams_group_describe_response::StreamsGroupDescribeResponse, a => a.groups.iter()
        .map(|g| g.error_code);
}
