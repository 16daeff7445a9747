//! Share groups' requests reach the backend as they are, and what is answered is bounded and told.

use async_trait::async_trait;
use sluice_model::TenantId;
use sluice_wire::messages::alter_share_group_offsets_request::AlterShareGroupOffsetsRequest;
use sluice_wire::messages::alter_share_group_offsets_response::AlterShareGroupOffsetsResponse;
use sluice_wire::messages::delete_share_group_offsets_request::DeleteShareGroupOffsetsRequest;
use sluice_wire::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponse;
use sluice_wire::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequest;
use sluice_wire::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponse;
use sluice_wire::messages::share_acknowledge_request::ShareAcknowledgeRequest;
use sluice_wire::messages::share_acknowledge_response::ShareAcknowledgeResponse;
use sluice_wire::messages::share_fetch_request::{FetchPartition, FetchTopic, ShareFetchRequest};
use sluice_wire::messages::share_fetch_response::{
    PartitionData, ShareFetchResponse, ShareFetchableTopicResponse,
};
use sluice_wire::messages::share_group_describe_request::ShareGroupDescribeRequest;
use sluice_wire::messages::share_group_describe_response::{
    DescribedGroup, ShareGroupDescribeResponse,
};
use sluice_wire::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use sluice_wire::messages::share_group_heartbeat_response::ShareGroupHeartbeatResponse;
use sluice_wire::{Chain, ErrorCode};
use tokio::time::timeout;

use super::memory::MemoryBackend;
use super::{SOON, Server};
use crate::backend::{Caller, ShareGroups};
use crate::handlers::permitted;

/// Answers that say what was asked.
#[async_trait]
impl ShareGroups for MemoryBackend {
    async fn share_group_heartbeat(
        &self,
        _: &Caller,
        request: ShareGroupHeartbeatRequest,
    ) -> ShareGroupHeartbeatResponse {
        ShareGroupHeartbeatResponse { member_id: Some(request.member_id), ..Default::default() }
    }

    async fn share_group_describe(
        &self,
        _: &Caller,
        request: ShareGroupDescribeRequest,
    ) -> ShareGroupDescribeResponse {
        let groups = request.group_ids.into_iter().map(|group_id| DescribedGroup {
            error_code: if group_id.is_empty() { ErrorCode::InvalidGroupId.code() } else { 0 },
            group_id,
            ..Default::default()
        });
        ShareGroupDescribeResponse { groups: groups.collect(), ..Default::default() }
    }

    async fn share_fetch(
        &self,
        _: &Caller,
        _: i16,
        request: ShareFetchRequest,
        max_bytes: u32,
    ) -> ShareFetchResponse {
        let responses = request.topics.into_iter().map(|topic| ShareFetchableTopicResponse {
            topic_id: topic.topic_id,
            partitions: vec![PartitionData {
                error_code: ErrorCode::NotLeaderOrFollower.code(),
                records: Some(Chain::new()),
                ..Default::default()
            }],
        });
        ShareFetchResponse {
            acquisition_lock_timeout_ms: i32::try_from(max_bytes).unwrap_or(i32::MAX),
            responses: responses.collect(),
            ..Default::default()
        }
    }

    async fn share_connection_lost(&self, tenant: TenantId, connection: u64) {
        self.lost.lock().push((tenant, connection));
        self.lost_count.send_modify(|count| *count += 1);
    }

    async fn share_acknowledge(
        &self,
        _: &Caller,
        _: i16,
        request: ShareAcknowledgeRequest,
    ) -> ShareAcknowledgeResponse {
        let unknown = request.member_id.is_none();
        let code = if unknown { ErrorCode::InvalidRequest } else { ErrorCode::None };
        ShareAcknowledgeResponse { error_code: code.code(), ..Default::default() }
    }

    async fn describe_share_group_offsets(
        &self,
        _: &Caller,
        _: DescribeShareGroupOffsetsRequest,
    ) -> DescribeShareGroupOffsetsResponse {
        DescribeShareGroupOffsetsResponse::default()
    }

    async fn alter_share_group_offsets(
        &self,
        _: &Caller,
        _: AlterShareGroupOffsetsRequest,
    ) -> AlterShareGroupOffsetsResponse {
        AlterShareGroupOffsetsResponse::default()
    }

    async fn delete_share_group_offsets(
        &self,
        _: &Caller,
        _: DeleteShareGroupOffsetsRequest,
    ) -> DeleteShareGroupOffsetsResponse {
        DeleteShareGroupOffsetsResponse::default()
    }
}

#[tokio::test]
async fn a_share_fetch_is_bounded_and_told_who_leads() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let topic_id = client.create_topic("t", 1).await;
    let topic = FetchTopic {
        topic_id,
        partitions: vec![FetchPartition {
            partition_index: 0,
            acknowledgement_batches: Vec::new(),
        }],
    };
    let request = ShareFetchRequest {
        group_id: Some("g".into()),
        member_id: Some("m".into()),
        max_bytes: i32::MAX,
        topics: vec![topic],
        ..Default::default()
    };
    for version in [1, 2] {
        let answer = client.call(&request, version).await;
        // The backend gives back what it was allowed.
        assert!(answer.acquisition_lock_timeout_ms > 0);
        assert!(answer.acquisition_lock_timeout_ms < i32::MAX, "the gateway's bound holds");
        let place = &answer.responses[0].partitions[0];
        assert_eq!(place.current_leader.leader_id, answer.node_endpoints[0].node_id);
        assert_eq!(answer.node_endpoints.len(), 1);
    }
}

#[tokio::test]
async fn operations_are_told_where_they_were_asked_for() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for (asks, told) in [(true, permitted::GROUP), (false, i32::MIN)] {
        let request = ShareGroupDescribeRequest {
            group_ids: vec!["g".into(), "".into()],
            include_authorized_operations: asks,
        };
        let answer = client.call(&request, 1).await;
        let operations: Vec<_> =
            answer.groups.iter().map(|group| group.authorized_operations).collect();
        assert_eq!(operations, [told, i32::MIN]);
    }
}

#[tokio::test]
async fn share_groups_are_told_of_the_end_of_a_connection_that_fetched_shares() {
    let server = Server::start().await;
    let mut count = server.backend.lost_count.subscribe();
    let request = ShareFetchRequest { group_id: Some("g".into()), ..Default::default() };
    let mut first = server.client().await;
    first.call(&request, 1).await;
    drop(first);
    timeout(SOON, count.wait_for(|count| *count == 1)).await.unwrap().unwrap();
    // One that fetched none, and then one that did: were the former told of, it would be by now.
    let mut other = server.client().await;
    let describe = ShareGroupDescribeRequest::default();
    other.call(&describe, 1).await;
    drop(other);
    let mut last = server.client().await;
    last.call(&request, 1).await;
    drop(last);
    timeout(SOON, count.wait_for(|count| *count == 2)).await.unwrap().unwrap();
    let lost = server.backend.lost.lock().clone();
    assert_eq!((lost[0].0, lost[1].0), (TenantId::OPEN, TenantId::OPEN));
    assert_eq!(lost[1].1, lost[0].1 + 2, "each connection has a number of its own");
}
