//! Which kinds of request exist. The versions of each stand in its table under
//! [`messages`](crate::messages).

use std::fmt;
use std::ops::RangeInclusive;

use crate::messages::{
    add_offsets_to_txn_request::AddOffsetsToTxnRequest,
    add_offsets_to_txn_response::AddOffsetsToTxnResponse,
    add_partitions_to_txn_request::AddPartitionsToTxnRequest,
    add_partitions_to_txn_response::AddPartitionsToTxnResponse,
    alter_client_quotas_request::AlterClientQuotasRequest,
    alter_client_quotas_response::AlterClientQuotasResponse,
    alter_configs_request::AlterConfigsRequest, alter_configs_response::AlterConfigsResponse,
    alter_partition_reassignments_request::AlterPartitionReassignmentsRequest,
    alter_partition_reassignments_response::AlterPartitionReassignmentsResponse,
    alter_replica_log_dirs_request::AlterReplicaLogDirsRequest,
    alter_replica_log_dirs_response::AlterReplicaLogDirsResponse,
    alter_share_group_offsets_request::AlterShareGroupOffsetsRequest,
    alter_share_group_offsets_response::AlterShareGroupOffsetsResponse,
    alter_user_scram_credentials_request::AlterUserScramCredentialsRequest,
    alter_user_scram_credentials_response::AlterUserScramCredentialsResponse,
    api_versions_request::ApiVersionsRequest, api_versions_response::ApiVersionsResponse,
    consumer_group_describe_request::ConsumerGroupDescribeRequest,
    consumer_group_describe_response::ConsumerGroupDescribeResponse,
    consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest,
    consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse,
    create_acls_request::CreateAclsRequest, create_acls_response::CreateAclsResponse,
    create_delegation_token_request::CreateDelegationTokenRequest,
    create_delegation_token_response::CreateDelegationTokenResponse,
    create_partitions_request::CreatePartitionsRequest,
    create_partitions_response::CreatePartitionsResponse,
    create_topics_request::CreateTopicsRequest, create_topics_response::CreateTopicsResponse,
    delete_acls_request::DeleteAclsRequest, delete_acls_response::DeleteAclsResponse,
    delete_groups_request::DeleteGroupsRequest, delete_groups_response::DeleteGroupsResponse,
    delete_records_request::DeleteRecordsRequest, delete_records_response::DeleteRecordsResponse,
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest,
    delete_share_group_offsets_response::DeleteShareGroupOffsetsResponse,
    delete_share_group_state_request::DeleteShareGroupStateRequest,
    delete_share_group_state_response::DeleteShareGroupStateResponse,
    delete_topics_request::DeleteTopicsRequest, delete_topics_response::DeleteTopicsResponse,
    describe_acls_request::DescribeAclsRequest, describe_acls_response::DescribeAclsResponse,
    describe_client_quotas_request::DescribeClientQuotasRequest,
    describe_client_quotas_response::DescribeClientQuotasResponse,
    describe_cluster_request::DescribeClusterRequest,
    describe_cluster_response::DescribeClusterResponse,
    describe_configs_request::DescribeConfigsRequest,
    describe_configs_response::DescribeConfigsResponse,
    describe_delegation_token_request::DescribeDelegationTokenRequest,
    describe_delegation_token_response::DescribeDelegationTokenResponse,
    describe_groups_request::DescribeGroupsRequest,
    describe_groups_response::DescribeGroupsResponse,
    describe_log_dirs_request::DescribeLogDirsRequest,
    describe_log_dirs_response::DescribeLogDirsResponse,
    describe_producers_request::DescribeProducersRequest,
    describe_producers_response::DescribeProducersResponse,
    describe_quorum_request::DescribeQuorumRequest,
    describe_quorum_response::DescribeQuorumResponse,
    describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest,
    describe_share_group_offsets_response::DescribeShareGroupOffsetsResponse,
    describe_topic_partitions_request::DescribeTopicPartitionsRequest,
    describe_topic_partitions_response::DescribeTopicPartitionsResponse,
    describe_transactions_request::DescribeTransactionsRequest,
    describe_transactions_response::DescribeTransactionsResponse,
    describe_user_scram_credentials_request::DescribeUserScramCredentialsRequest,
    describe_user_scram_credentials_response::DescribeUserScramCredentialsResponse,
    elect_leaders_request::ElectLeadersRequest, elect_leaders_response::ElectLeadersResponse,
    end_txn_request::EndTxnRequest, end_txn_response::EndTxnResponse,
    expire_delegation_token_request::ExpireDelegationTokenRequest,
    expire_delegation_token_response::ExpireDelegationTokenResponse, fetch_request::FetchRequest,
    fetch_response::FetchResponse, find_coordinator_request::FindCoordinatorRequest,
    find_coordinator_response::FindCoordinatorResponse,
    get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest,
    get_telemetry_subscriptions_response::GetTelemetrySubscriptionsResponse,
    heartbeat_request::HeartbeatRequest, heartbeat_response::HeartbeatResponse,
    incremental_alter_configs_request::IncrementalAlterConfigsRequest,
    incremental_alter_configs_response::IncrementalAlterConfigsResponse,
    init_producer_id_request::InitProducerIdRequest,
    init_producer_id_response::InitProducerIdResponse,
    initialize_share_group_state_request::InitializeShareGroupStateRequest,
    initialize_share_group_state_response::InitializeShareGroupStateResponse,
    join_group_request::JoinGroupRequest, join_group_response::JoinGroupResponse,
    leave_group_request::LeaveGroupRequest, leave_group_response::LeaveGroupResponse,
    list_config_resources_request::ListConfigResourcesRequest,
    list_config_resources_response::ListConfigResourcesResponse,
    list_groups_request::ListGroupsRequest, list_groups_response::ListGroupsResponse,
    list_offsets_request::ListOffsetsRequest, list_offsets_response::ListOffsetsResponse,
    list_partition_reassignments_request::ListPartitionReassignmentsRequest,
    list_partition_reassignments_response::ListPartitionReassignmentsResponse,
    list_transactions_request::ListTransactionsRequest,
    list_transactions_response::ListTransactionsResponse, metadata_request::MetadataRequest,
    metadata_response::MetadataResponse, offset_commit_request::OffsetCommitRequest,
    offset_commit_response::OffsetCommitResponse, offset_delete_request::OffsetDeleteRequest,
    offset_delete_response::OffsetDeleteResponse, offset_fetch_request::OffsetFetchRequest,
    offset_fetch_response::OffsetFetchResponse,
    offset_for_leader_epoch_request::OffsetForLeaderEpochRequest,
    offset_for_leader_epoch_response::OffsetForLeaderEpochResponse,
    produce_request::ProduceRequest, produce_response::ProduceResponse,
    push_telemetry_request::PushTelemetryRequest, push_telemetry_response::PushTelemetryResponse,
    read_share_group_state_request::ReadShareGroupStateRequest,
    read_share_group_state_response::ReadShareGroupStateResponse,
    read_share_group_state_summary_request::ReadShareGroupStateSummaryRequest,
    read_share_group_state_summary_response::ReadShareGroupStateSummaryResponse,
    renew_delegation_token_request::RenewDelegationTokenRequest,
    renew_delegation_token_response::RenewDelegationTokenResponse,
    sasl_authenticate_request::SaslAuthenticateRequest,
    sasl_authenticate_response::SaslAuthenticateResponse,
    sasl_handshake_request::SaslHandshakeRequest, sasl_handshake_response::SaslHandshakeResponse,
    share_acknowledge_request::ShareAcknowledgeRequest,
    share_acknowledge_response::ShareAcknowledgeResponse, share_fetch_request::ShareFetchRequest,
    share_fetch_response::ShareFetchResponse,
    share_group_describe_request::ShareGroupDescribeRequest,
    share_group_describe_response::ShareGroupDescribeResponse,
    share_group_heartbeat_request::ShareGroupHeartbeatRequest,
    share_group_heartbeat_response::ShareGroupHeartbeatResponse,
    streams_group_describe_request::StreamsGroupDescribeRequest,
    streams_group_describe_response::StreamsGroupDescribeResponse,
    streams_group_heartbeat_request::StreamsGroupHeartbeatRequest,
    streams_group_heartbeat_response::StreamsGroupHeartbeatResponse,
    sync_group_request::SyncGroupRequest, sync_group_response::SyncGroupResponse,
    txn_offset_commit_request::TxnOffsetCommitRequest,
    txn_offset_commit_response::TxnOffsetCommitResponse,
    unregister_broker_request::UnregisterBrokerRequest,
    unregister_broker_response::UnregisterBrokerResponse,
    update_features_request::UpdateFeaturesRequest,
    update_features_response::UpdateFeaturesResponse,
    write_share_group_state_request::WriteShareGroupStateRequest,
    write_share_group_state_response::WriteShareGroupStateResponse,
    write_txn_markers_request::WriteTxnMarkersRequest,
    write_txn_markers_response::WriteTxnMarkersResponse,
};
use crate::{DecodeError, Decoder, EncodeError, Encoder, Message, Request};

macro_rules! apis {
    ($($key:ident = $code:literal, $request:ident => $response:ident $(, $between:ident brokers)?;)*) => {
        /// A kind of request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i16)]
        pub enum ApiKey {
            $(#[doc = concat!("[`", stringify!($request), "`].")] $key = $code,)*
        }

        impl ApiKey {
            /// Every kind, by number.
            pub const ALL: &[Self] = &[$(Self::$key),*];

            /// The kind with this number.
            pub const fn from_code(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$key),)*
                    _ => None,
                }
            }

            /// Kafka's name, such as `Produce`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$key => stringify!($key),)*
                }
            }

            /// The versions of its request and response.
            pub const fn versions(self) -> RangeInclusive<i16> {
                match self {
                    $(Self::$key => $request::VERSIONS,)*
                }
            }

            /// Whether only brokers send it; it is not announced to clients.
            pub const fn is_between_brokers(self) -> bool {
                match self {
                    $(Self::$key => is_given!($($between)?),)*
                }
            }

            const fn first_flexible(self) -> i16 {
                match self {
                    $(Self::$key => $request::FLEXIBLE,)*
                }
            }
        }

        /// A request of any kind, for whoever handles all alike; handlers decode the type they need.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyRequest {
            $(#[doc = concat!("[`", stringify!($request), "`].")] $key(Box<$request>),)*
        }

        #[cfg(test)]
        impl AnyRequest {
            /// Any request of this kind that can be said in this version.
            pub(crate) fn generate(
                key: ApiKey,
                source: &mut crate::generate::Source,
                version: i16,
            ) -> Self {
                let version =
                    crate::table::Version { number: version, flexible: key.is_flexible(version) };
                match key {
                    $(ApiKey::$key => Self::$key(Box::new(crate::generate::Generate::generate(
                        source, version, false,
                    ))),)*
                }
            }
        }

        impl AnyRequest {
            /// Reads the body of a request of this kind.
            ///
            /// # Errors
            /// When the bytes are not this request in this version, or there is no such version.
            pub fn decode(
                key: ApiKey,
                decoder: &mut Decoder,
                version: i16,
            ) -> Result<Self, DecodeError> {
                match key {
                    $(ApiKey::$key => {
                        $request::decode(decoder, version).map(|body| Self::$key(Box::new(body)))
                    })*
                }
            }

            /// Writes the body.
            ///
            /// # Errors
            /// When the request cannot be said in this version, or there is no such version.
            pub fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
                match self {
                    $(Self::$key(body) => body.encode(encoder, version),)*
                }
            }

            /// Its kind.
            pub const fn key(&self) -> ApiKey {
                match self {
                    $(Self::$key(_) => ApiKey::$key,)*
                }
            }
        }

        /// A response of any kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyResponse {
            $(#[doc = concat!("[`", stringify!($response), "`].")] $key(Box<$response>),)*
        }

        #[cfg(test)]
        impl AnyResponse {
            /// Any response of this kind that can be said in this version.
            pub(crate) fn generate(
                key: ApiKey,
                source: &mut crate::generate::Source,
                version: i16,
            ) -> Self {
                let version =
                    crate::table::Version { number: version, flexible: key.is_flexible(version) };
                match key {
                    $(ApiKey::$key => Self::$key(Box::new(crate::generate::Generate::generate(
                        source, version, false,
                    ))),)*
                }
            }
        }

        impl AnyResponse {
            /// Reads the body of a response of this kind.
            ///
            /// # Errors
            /// When the bytes are not this response in this version, or there is no such version.
            pub fn decode(
                key: ApiKey,
                decoder: &mut Decoder,
                version: i16,
            ) -> Result<Self, DecodeError> {
                match key {
                    $(ApiKey::$key => {
                        $response::decode(decoder, version).map(|body| Self::$key(Box::new(body)))
                    })*
                }
            }

            /// Writes the body.
            ///
            /// # Errors
            /// When the response cannot be said in this version, or there is no such version.
            pub fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<(), EncodeError> {
                match self {
                    $(Self::$key(body) => body.encode(encoder, version),)*
                }
            }

            /// Its kind.
            pub const fn key(&self) -> ApiKey {
                match self {
                    $(Self::$key(_) => ApiKey::$key,)*
                }
            }
        }

        $(
            impl Request for $request {
                const KEY: ApiKey = ApiKey::$key;
                type Response = $response;
            }

            // A response is written in the version and the encoding of its request.
            const _: () = assert!(
                *$request::VERSIONS.start() == *$response::VERSIONS.start()
                    && *$request::VERSIONS.end() == *$response::VERSIONS.end()
                    && $request::FLEXIBLE == $response::FLEXIBLE
            );
        )*
    };
}

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this version, or an unknown one this high, is in the flexible encoding.
    pub const fn is_flexible(self, version: i16) -> bool {
        version >= self.first_flexible()
    }

    /// The version of the header before a request.
    pub const fn request_header_version(self, version: i16) -> i16 {
        if self.is_flexible(version) { 2 } else { 1 }
    }

    /// The version of the header before a response.
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            // A client that asks for a version which the broker lacks must be able to read the answer.
            Self::ApiVersions => 0,
            _ if self.is_flexible(version) => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! is_given {
    () => {
        false
    };
    (between) => {
        true
    };
}

apis! {
    Produce = 0, ProduceRequest => ProduceResponse;
    Fetch = 1, FetchRequest => FetchResponse;
    ListOffsets = 2, ListOffsetsRequest => ListOffsetsResponse;
    Metadata = 3, MetadataRequest => MetadataResponse;
    OffsetCommit = 8, OffsetCommitRequest => OffsetCommitResponse;
    OffsetFetch = 9, OffsetFetchRequest => OffsetFetchResponse;
    FindCoordinator = 10, FindCoordinatorRequest => FindCoordinatorResponse;
    JoinGroup = 11, JoinGroupRequest => JoinGroupResponse;
    Heartbeat = 12, HeartbeatRequest => HeartbeatResponse;
    LeaveGroup = 13, LeaveGroupRequest => LeaveGroupResponse;
    SyncGroup = 14, SyncGroupRequest => SyncGroupResponse;
    DescribeGroups = 15, DescribeGroupsRequest => DescribeGroupsResponse;
    ListGroups = 16, ListGroupsRequest => ListGroupsResponse;
    SaslHandshake = 17, SaslHandshakeRequest => SaslHandshakeResponse;
    ApiVersions = 18, ApiVersionsRequest => ApiVersionsResponse;
    CreateTopics = 19, CreateTopicsRequest => CreateTopicsResponse;
    DeleteTopics = 20, DeleteTopicsRequest => DeleteTopicsResponse;
    DeleteRecords = 21, DeleteRecordsRequest => DeleteRecordsResponse;
    InitProducerId = 22, InitProducerIdRequest => InitProducerIdResponse;
    OffsetForLeaderEpoch = 23, OffsetForLeaderEpochRequest => OffsetForLeaderEpochResponse;
    AddPartitionsToTxn = 24, AddPartitionsToTxnRequest => AddPartitionsToTxnResponse;
    AddOffsetsToTxn = 25, AddOffsetsToTxnRequest => AddOffsetsToTxnResponse;
    EndTxn = 26, EndTxnRequest => EndTxnResponse;
    WriteTxnMarkers = 27, WriteTxnMarkersRequest => WriteTxnMarkersResponse, between brokers;
    TxnOffsetCommit = 28, TxnOffsetCommitRequest => TxnOffsetCommitResponse;
    DescribeAcls = 29, DescribeAclsRequest => DescribeAclsResponse;
    CreateAcls = 30, CreateAclsRequest => CreateAclsResponse;
    DeleteAcls = 31, DeleteAclsRequest => DeleteAclsResponse;
    DescribeConfigs = 32, DescribeConfigsRequest => DescribeConfigsResponse;
    AlterConfigs = 33, AlterConfigsRequest => AlterConfigsResponse;
    AlterReplicaLogDirs = 34, AlterReplicaLogDirsRequest => AlterReplicaLogDirsResponse;
    DescribeLogDirs = 35, DescribeLogDirsRequest => DescribeLogDirsResponse;
    SaslAuthenticate = 36, SaslAuthenticateRequest => SaslAuthenticateResponse;
    CreatePartitions = 37, CreatePartitionsRequest => CreatePartitionsResponse;
    CreateDelegationToken = 38, CreateDelegationTokenRequest => CreateDelegationTokenResponse;
    RenewDelegationToken = 39, RenewDelegationTokenRequest => RenewDelegationTokenResponse;
    ExpireDelegationToken = 40, ExpireDelegationTokenRequest => ExpireDelegationTokenResponse;
    DescribeDelegationToken = 41, DescribeDelegationTokenRequest => DescribeDelegationTokenResponse;
    DeleteGroups = 42, DeleteGroupsRequest => DeleteGroupsResponse;
    ElectLeaders = 43, ElectLeadersRequest => ElectLeadersResponse;
    IncrementalAlterConfigs = 44, IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse;
    AlterPartitionReassignments = 45, AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse;
    ListPartitionReassignments = 46, ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse;
    OffsetDelete = 47, OffsetDeleteRequest => OffsetDeleteResponse;
    DescribeClientQuotas = 48, DescribeClientQuotasRequest => DescribeClientQuotasResponse;
    AlterClientQuotas = 49, AlterClientQuotasRequest => AlterClientQuotasResponse;
    DescribeUserScramCredentials = 50, DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse;
    AlterUserScramCredentials = 51, AlterUserScramCredentialsRequest => AlterUserScramCredentialsResponse;
    DescribeQuorum = 55, DescribeQuorumRequest => DescribeQuorumResponse;
    UpdateFeatures = 57, UpdateFeaturesRequest => UpdateFeaturesResponse;
    DescribeCluster = 60, DescribeClusterRequest => DescribeClusterResponse;
    DescribeProducers = 61, DescribeProducersRequest => DescribeProducersResponse;
    UnregisterBroker = 64, UnregisterBrokerRequest => UnregisterBrokerResponse;
    DescribeTransactions = 65, DescribeTransactionsRequest => DescribeTransactionsResponse;
    ListTransactions = 66, ListTransactionsRequest => ListTransactionsResponse;
    ConsumerGroupHeartbeat = 68, ConsumerGroupHeartbeatRequest => ConsumerGroupHeartbeatResponse;
    ConsumerGroupDescribe = 69, ConsumerGroupDescribeRequest => ConsumerGroupDescribeResponse;
    GetTelemetrySubscriptions = 71, GetTelemetrySubscriptionsRequest => GetTelemetrySubscriptionsResponse;
    PushTelemetry = 72, PushTelemetryRequest => PushTelemetryResponse;
    ListConfigResources = 74, ListConfigResourcesRequest => ListConfigResourcesResponse;
    DescribeTopicPartitions = 75, DescribeTopicPartitionsRequest => DescribeTopicPartitionsResponse;
    ShareGroupHeartbeat = 76, ShareGroupHeartbeatRequest => ShareGroupHeartbeatResponse;
    ShareGroupDescribe = 77, ShareGroupDescribeRequest => ShareGroupDescribeResponse;
    ShareFetch = 78, ShareFetchRequest => ShareFetchResponse;
    ShareAcknowledge = 79, ShareAcknowledgeRequest => ShareAcknowledgeResponse;
    InitializeShareGroupState = 83, InitializeShareGroupStateRequest => InitializeShareGroupStateResponse, between brokers;
    ReadShareGroupState = 84, ReadShareGroupStateRequest => ReadShareGroupStateResponse, between brokers;
    WriteShareGroupState = 85, WriteShareGroupStateRequest => WriteShareGroupStateResponse, between brokers;
    DeleteShareGroupState = 86, DeleteShareGroupStateRequest => DeleteShareGroupStateResponse, between brokers;
    ReadShareGroupStateSummary = 87, ReadShareGroupStateSummaryRequest => ReadShareGroupStateSummaryResponse, between brokers;
    StreamsGroupHeartbeat = 88, StreamsGroupHeartbeatRequest => StreamsGroupHeartbeatResponse;
    StreamsGroupDescribe = 89, StreamsGroupDescribeRequest => StreamsGroupDescribeResponse;
    DescribeShareGroupOffsets = 90, DescribeShareGroupOffsetsRequest => DescribeShareGroupOffsetsResponse;
    AlterShareGroupOffsets = 91, AlterShareGroupOffsetsRequest => AlterShareGroupOffsetsResponse;
    DeleteShareGroupOffsets = 92, DeleteShareGroupOffsetsRequest => DeleteShareGroupOffsetsResponse;
}
