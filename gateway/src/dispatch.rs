//! From a frame to a running handler: which APIs are served, in which versions, by what, and how
//! each may overlap with its neighbours on the connection. The table at the end is the one place
//! that says so; what it holds is announced, and nothing else.

use std::any::Any;
use std::future::Future;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use sluice_wire::header::{RequestHeader, ResponseHeader};
use sluice_wire::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use sluice_wire::messages::asker::Asker;
use sluice_wire::messages::fetch_request::FetchRequest;
use sluice_wire::messages::share_fetch_request::ShareFetchRequest;
use sluice_wire::{ApiKey, Chain, DecodeError, Decoder, Encoder, ErrorCode, Message, Str};
use tokio::time::Instant;

use crate::budget::Lease;
use crate::context::{Context, Origin, Peer};
use crate::failure::FirstError;
use crate::gateway::Core;
use crate::handlers;
use crate::line::Order;
use crate::peers::Forward;

/// A request being handled.
pub(crate) type Handler = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Why Kafka, and so Sluice, closes the connection instead of answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A key that is not served.
    #[error("api key {0} is not served")]
    UnknownApi(i16),
    /// A version that is not served.
    #[error("{api} version {version} is not served", api = .0.name(), version = .1)]
    UnsupportedVersion(ApiKey, i16),
    /// Bytes that are not the request they say they are.
    #[error("a malformed {api} request: {error}", api = .0.name(), error = .1)]
    Malformed(ApiKey, DecodeError),
    /// The append of a producer that wants no answer failed; this is how it learns of it.
    #[error("an append without acks failed")]
    AppendFailed,
    /// An answer that its version cannot express: a defect of ours.
    #[error("an answer to {api} could not be encoded", api = .0.name())]
    Unencodable(ApiKey),
}

impl Refused {
    /// For the metric: one word from a closed set.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::UnknownApi(_) => "unknown_api",
            Self::UnsupportedVersion(..) => "unsupported_version",
            Self::Malformed(..) => "malformed_request",
            Self::AppendFailed => "append_failed",
            Self::Unencodable(_) => "unencodable_answer",
        }
    }
}

/// What a handler came to, ready for the socket.
#[derive(Debug)]
pub(crate) struct Reply {
    /// A framed answer, no answer, or the end of the connection.
    pub(crate) outcome: Result<Option<Chain>, Refused>,
    /// The first error code in the answer, for the metric.
    pub(crate) error: i16,
    /// Pays for the answer's record bytes until they are written.
    pub(crate) lease: Lease,
}

impl Reply {
    /// The answer's size.
    pub(crate) fn bytes(&self) -> usize {
        match &self.outcome {
            Ok(Some(answer)) => answer.len(),
            Ok(None) | Err(_) => 0,
        }
    }
}

/// What a handler gives. Most give an answer, which turns into this by `into`.
#[derive(Debug)]
pub(crate) enum Outcome<M> {
    /// The answer.
    Answer(M),
    /// Nothing, as the client wished.
    Silent,
    /// The connection closes.
    Close(Refused),
}

impl<M: Message> From<M> for Outcome<M> {
    fn from(answer: M) -> Self {
        Self::Answer(answer)
    }
}

/// A request that was understood.
pub(crate) struct Started {
    pub(crate) api: ApiKey,
    pub(crate) order: Order,
    /// Record bytes that the answer may carry.
    pub(crate) reserved: usize,
    /// Runs when polled, and not before.
    pub(crate) handler: Handler,
}

/// How the request in `frame` may overlap, from its key alone. What is not served is refused when it
/// is started.
pub(crate) fn order(frame: &[u8]) -> Order {
    frame
        .first_chunk::<2>()
        .and_then(|key| ApiKey::from_code(i16::from_be_bytes(*key)))
        .and_then(served_order)
        .unwrap_or(Order::Serial)
}

/// Decodes a frame and prepares its handler. `room` is how many answer bytes the connection may
/// still take.
pub(crate) fn start(
    core: &Arc<Core>,
    peer: &Peer,
    frame: Bytes,
    room: usize,
) -> Result<Started, Refused> {
    let Some(&[k0, k1, v0, v1, c0, c1, c2, c3]) = frame.first_chunk::<8>() else {
        return Err(Refused::UnknownApi(-1));
    };
    let key = i16::from_be_bytes([k0, k1]);
    let version = i16::from_be_bytes([v0, v1]);
    let correlation_id = i32::from_be_bytes([c0, c1, c2, c3]);
    let api = ApiKey::from_code(key).ok_or(Refused::UnknownApi(key))?;
    let order = served_order(api).ok_or(Refused::UnknownApi(key))?;
    if !api.versions().contains(&version) {
        if api == ApiKey::ApiVersions {
            // The client learns which versions of ApiVersions there are, and asks again (KIP-35).
            let handler = unsupported_api_versions(Arc::clone(core), correlation_id);
            return Ok(Started { api, order, reserved: 0, handler: Box::pin(handler) });
        }
        return Err(Refused::UnsupportedVersion(api, version));
    }
    let malformed = |error| Refused::Malformed(api, error);
    let mut decoder = Decoder::new(frame);
    let header = RequestHeader::decode(&mut decoder, api.request_header_version(version))
        .map_err(malformed)?;
    let ctx = context(peer, header.client_id, api, (version, version), Origin::Client);
    let forward = Forward::of(core, &ctx, correlation_id, &decoder);
    let (reserved, handler) =
        handler(Arc::clone(core), ctx, correlation_id, room, decoder).map_err(malformed)?;
    let handler = match forward {
        Some(forward) => Box::pin(forward.or(handler)),
        None => handler,
    };
    Ok(Started { api, order, reserved, handler })
}

/// As [`start`], for the body of a request that another node sends.
pub(crate) fn start_for_node(
    core: &Arc<Core>,
    peer: &Peer,
    header: RequestHeader,
    asker: &Asker,
    decoder: Decoder,
    room: usize,
) -> Result<Started, Refused> {
    let (key, version) = (header.request_api_key, header.request_api_version);
    let api = ApiKey::from_code(key).ok_or(Refused::UnknownApi(key))?;
    let order = served_order(api).or_else(|| node_order(api)).ok_or(Refused::UnknownApi(key))?;
    if !api.versions().contains(&version) {
        return Err(Refused::UnsupportedVersion(api, version));
    }
    let origin = Origin::Node { names_are_ids: asker.names_are_ids };
    let ctx = context(peer, header.client_id, api, (version, asker.client_version), origin);
    let correlation_id = header.correlation_id;
    let (reserved, handler) = handler(Arc::clone(core), ctx, correlation_id, room, decoder)
        .map_err(|error| Refused::Malformed(api, error))?;
    Ok(Started { api, order, reserved, handler })
}

fn context(
    peer: &Peer,
    client_id: Option<Str>,
    api: ApiKey,
    (version, client_version): (i16, i16),
    origin: Origin,
) -> Context {
    Context {
        caller: peer.caller(client_id),
        client_port: peer.address.port(),
        software: Arc::clone(&peer.software),
        connected: Arc::clone(&peer.connected),
        listener: Arc::clone(&peer.listener),
        api,
        version,
        client_version,
        origin,
        received: Instant::now(),
        answer_bytes: 0,
    }
}

/// How many record bytes an answer may come to: only fetches carry records.
fn wanted_bytes<R: 'static>(request: &R) -> usize {
    let request: &dyn Any = request;
    let fetch = request.downcast_ref::<FetchRequest>().map(|fetch| fetch.max_bytes);
    let share = || request.downcast_ref::<ShareFetchRequest>().map(|fetch| fetch.max_bytes);
    fetch.or_else(share).map_or(0, |max_bytes| usize::try_from(max_bytes).unwrap_or(0))
}

async fn unsupported_api_versions(core: Arc<Core>, correlation_id: i32) -> Reply {
    let range = announced(ApiKey::ApiVersions);
    let answer = ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: vec![ApiVersion {
            api_key: ApiKey::ApiVersions.code(),
            min_version: *range.start(),
            max_version: *range.end(),
        }],
        ..Default::default()
    };
    encode(ApiKey::ApiVersions, 0, correlation_id, answer.into(), core.answer_budget.nothing())
}

/// The versions of a served API that clients are told of.
pub(crate) fn announced(api: ApiKey) -> RangeInclusive<i16> {
    match api {
        // Older librdkafka stops compressing unless Produce 0 is there (KAFKA-18659); versions below
        // 3 are refused all the same, as Kafka does.
        ApiKey::Produce => 0..=*api.versions().end(),
        other => other.versions(),
    }
}

fn encode<M: Message + FirstError>(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    outcome: Outcome<M>,
    mut lease: Lease,
) -> Reply {
    let answer = match outcome {
        Outcome::Answer(answer) => answer,
        Outcome::Silent => return Reply { outcome: Ok(None), error: 0, lease },
        Outcome::Close(refused) => {
            return Reply { outcome: Err(refused), error: -1, lease };
        }
    };
    let error = answer.first_error();
    let mut encoder = Encoder::framed();
    let header = ResponseHeader { correlation_id };
    let encoded = header
        .encode(&mut encoder, api.response_header_version(version))
        .and_then(|()| answer.encode(&mut encoder, version))
        .and_then(|()| encoder.into_frame());
    let outcome = match encoded {
        Ok(frame) => {
            lease.shrink_to(frame.len());
            Ok(Some(frame))
        }
        Err(e) => {
            tracing::error!(api = api.name(), version, error = %e, "answer not encodable");
            Err(Refused::Unencodable(api))
        }
    };
    Reply { outcome, error, lease }
}

/// Makes the functions over the tables: each row is `order Api Request => handler`.
macro_rules! serve {
    (
        clients { $($order:ident $api:ident $module:ident::$request:ident => $handler:path;)* }
        nodes { $($node_order:ident $node_api:ident $node_module:ident::$node_request:ident => $node_handler:path;)* }
    ) => {
        /// Every API that is served to clients.
        pub(crate) const SERVED: &[ApiKey] = &[$(ApiKey::$api),*];

        /// Those that only other nodes may ask for.
        pub(crate) const SERVED_TO_NODES: &[ApiKey] = &[$(ApiKey::$node_api),*];

        fn served_order(api: ApiKey) -> Option<Order> {
            match api {
                $(ApiKey::$api => Some(Order::$order),)*
                _ => None,
            }
        }

        fn node_order(api: ApiKey) -> Option<Order> {
            match api {
                $(ApiKey::$node_api => Some(Order::$node_order),)*
                _ => None,
            }
        }

        serve!(@handler
            $($api $module::$request => $handler;)*
            $($node_api $node_module::$node_request => $node_handler;)*
        );
    };
    (@handler $($api:ident $module:ident::$request:ident => $handler:path;)*) => {        fn handler(
            core: Arc<Core>,
            mut ctx: Context,
            correlation_id: i32,
            room: usize,
            mut decoder: Decoder,
        ) -> Result<(usize, Handler), DecodeError> {
            match ctx.api {
                $(ApiKey::$api => {
                    let request = sluice_wire::messages::$module::$request::decode(
                        &mut decoder,
                        ctx.version,
                    )?;
                    let wanted = wanted_bytes(&request)
                        .min(core.config.limits.fetch_max_bytes as usize)
                        .min(room);
                    let lease = core.answer_budget.take_up_to(wanted);
                    ctx.answer_bytes = lease.bytes();
                    Ok((ctx.answer_bytes, Box::pin(async move {
                        let outcome = $handler(&core, &ctx, request).await.into();
                        encode(ctx.api, ctx.version, correlation_id, outcome, lease)
                    })))
                })*
                // `start` has asked `served_order`, which is made of the same rows.
                _ => Err(DecodeError::NoSuchVersion { message: "request", version: ctx.version }),
            }
        }
    };
}

serve! {
clients {
    Append Produce produce_request::ProduceRequest => handlers::produce::produce;
    Wait Fetch fetch_request::FetchRequest => handlers::fetch::fetch;
    Serial ListOffsets list_offsets_request::ListOffsetsRequest => handlers::offsets::list_offsets;
    Serial Metadata metadata_request::MetadataRequest => handlers::metadata::metadata;
    Serial OffsetCommit offset_commit_request::OffsetCommitRequest => handlers::commits::offset_commit;
    Serial OffsetFetch offset_fetch_request::OffsetFetchRequest => handlers::commits::offset_fetch;
    Serial FindCoordinator find_coordinator_request::FindCoordinatorRequest => handlers::cluster::find_coordinator;
    Wait JoinGroup join_group_request::JoinGroupRequest => handlers::groups::join_group;
    Serial Heartbeat heartbeat_request::HeartbeatRequest => handlers::groups::heartbeat;
    Serial LeaveGroup leave_group_request::LeaveGroupRequest => handlers::groups::leave_group;
    Wait SyncGroup sync_group_request::SyncGroupRequest => handlers::groups::sync_group;
    Serial DescribeGroups describe_groups_request::DescribeGroupsRequest => handlers::groups::describe_groups;
    Serial ListGroups list_groups_request::ListGroupsRequest => handlers::groups::list_groups;
    Serial ApiVersions api_versions_request::ApiVersionsRequest => handlers::api_versions::api_versions;
    Serial CreateTopics create_topics_request::CreateTopicsRequest => handlers::create_topics::create_topics;
    Serial DeleteTopics delete_topics_request::DeleteTopicsRequest => handlers::topics::delete_topics;
    Serial DeleteRecords delete_records_request::DeleteRecordsRequest => handlers::offsets::delete_records;
    Serial InitProducerId init_producer_id_request::InitProducerIdRequest => handlers::producers::init_producer_id;
    Serial OffsetForLeaderEpoch offset_for_leader_epoch_request::OffsetForLeaderEpochRequest => handlers::offsets::offset_for_leader_epoch;
    Serial AddPartitionsToTxn add_partitions_to_txn_request::AddPartitionsToTxnRequest => handlers::transactions::add_partitions_to_txn;
    Serial AddOffsetsToTxn add_offsets_to_txn_request::AddOffsetsToTxnRequest => handlers::transactions::add_offsets_to_txn;
    Serial EndTxn end_txn_request::EndTxnRequest => handlers::transactions::end_txn;
    Serial TxnOffsetCommit txn_offset_commit_request::TxnOffsetCommitRequest => handlers::transactional_commits::txn_offset_commit;
    Serial DescribeConfigs describe_configs_request::DescribeConfigsRequest => handlers::describe_configs::describe_configs;
    Serial AlterConfigs alter_configs_request::AlterConfigsRequest => handlers::alter_configs::alter_configs;
    Serial AlterReplicaLogDirs alter_replica_log_dirs_request::AlterReplicaLogDirsRequest => handlers::log_dirs::alter_replica_log_dirs;
    Serial DescribeLogDirs describe_log_dirs_request::DescribeLogDirsRequest => handlers::log_dirs::describe_log_dirs;
    Serial CreatePartitions create_partitions_request::CreatePartitionsRequest => handlers::topics::create_partitions;
    Serial DeleteGroups delete_groups_request::DeleteGroupsRequest => handlers::groups::delete_groups;
    Serial ElectLeaders elect_leaders_request::ElectLeadersRequest => handlers::replicas::elect_leaders;
    Serial IncrementalAlterConfigs incremental_alter_configs_request::IncrementalAlterConfigsRequest => handlers::alter_configs::incremental_alter_configs;
    Serial AlterPartitionReassignments alter_partition_reassignments_request::AlterPartitionReassignmentsRequest => handlers::replicas::alter_partition_reassignments;
    Serial ListPartitionReassignments list_partition_reassignments_request::ListPartitionReassignmentsRequest => handlers::replicas::list_partition_reassignments;
    Serial OffsetDelete offset_delete_request::OffsetDeleteRequest => handlers::commits::offset_delete;
    Serial DescribeQuorum describe_quorum_request::DescribeQuorumRequest => handlers::controller::describe_quorum;
    Serial UpdateFeatures update_features_request::UpdateFeaturesRequest => handlers::controller::update_features;
    Serial DescribeCluster describe_cluster_request::DescribeClusterRequest => handlers::cluster::describe_cluster;
    Serial DescribeProducers describe_producers_request::DescribeProducersRequest => handlers::describe_producers::describe_producers;
    Serial UnregisterBroker unregister_broker_request::UnregisterBrokerRequest => handlers::controller::unregister_broker;
    Serial DescribeTransactions describe_transactions_request::DescribeTransactionsRequest => handlers::transactions::describe_transactions;
    Serial ListTransactions list_transactions_request::ListTransactionsRequest => handlers::transactions::list_transactions;
    Serial ConsumerGroupHeartbeat consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest => handlers::consumer_groups::heartbeat;
    Serial ConsumerGroupDescribe consumer_group_describe_request::ConsumerGroupDescribeRequest => handlers::consumer_groups::describe;
    Serial GetTelemetrySubscriptions get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest => handlers::telemetry::get_telemetry_subscriptions;
    Serial PushTelemetry push_telemetry_request::PushTelemetryRequest => handlers::telemetry::push_telemetry;
    Serial ListConfigResources list_config_resources_request::ListConfigResourcesRequest => handlers::config_resources::list_config_resources;
    Serial DescribeTopicPartitions describe_topic_partitions_request::DescribeTopicPartitionsRequest => handlers::describe_topic_partitions::describe_topic_partitions;
    Serial ShareGroupHeartbeat share_group_heartbeat_request::ShareGroupHeartbeatRequest => handlers::share_groups::share_group_heartbeat;
    Serial ShareGroupDescribe share_group_describe_request::ShareGroupDescribeRequest => handlers::share_groups::share_group_describe;
    Wait ShareFetch share_fetch_request::ShareFetchRequest => handlers::share_groups::share_fetch;
    Wait ShareAcknowledge share_acknowledge_request::ShareAcknowledgeRequest => handlers::share_groups::share_acknowledge;
    Serial StreamsGroupHeartbeat streams_group_heartbeat_request::StreamsGroupHeartbeatRequest => handlers::streams_groups::heartbeat;
    Serial StreamsGroupDescribe streams_group_describe_request::StreamsGroupDescribeRequest => handlers::streams_groups::describe;
    Serial DescribeShareGroupOffsets describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest => handlers::share_groups::describe_share_group_offsets;
    Serial AlterShareGroupOffsets alter_share_group_offsets_request::AlterShareGroupOffsetsRequest => handlers::share_groups::alter_share_group_offsets;
    Serial DeleteShareGroupOffsets delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest => handlers::share_groups::delete_share_group_offsets;
}
nodes {
    Serial WriteTxnMarkers write_txn_markers_request::WriteTxnMarkersRequest => handlers::markers::write_txn_markers;
}
}
