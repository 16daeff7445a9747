//! Share groups (KIP-932), as the gateway asks for them.

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
use sluice_wire::messages::share_fetch_request::ShareFetchRequest;
use sluice_wire::messages::share_fetch_response::ShareFetchResponse;
use sluice_wire::messages::share_group_describe_request::ShareGroupDescribeRequest;
use sluice_wire::messages::share_group_describe_response::ShareGroupDescribeResponse;
use sluice_wire::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use sluice_wire::messages::share_group_heartbeat_response::ShareGroupHeartbeatResponse;

use super::Caller;

/// Share groups, their records and their offsets. Names and ids of topics in requests are as the client sent
/// them: what is not the caller's tenant's is answered as what does not exist. Every call is safe to
/// drop at any await; what a dropped ShareFetch acquired is released with its connection, at the latest when
/// its locks run out.
#[async_trait]
pub trait ShareGroups {
    /// ShareGroupHeartbeat.
    async fn share_group_heartbeat(
        &self,
        caller: &Caller,
        request: ShareGroupHeartbeatRequest,
    ) -> ShareGroupHeartbeatResponse;

    /// ShareGroupDescribe.
    async fn share_group_describe(
        &self,
        caller: &Caller,
        request: ShareGroupDescribeRequest,
    ) -> ShareGroupDescribeResponse;

    /// ShareFetch; the answer has about `max_bytes` of records, the first batch always whole.
    async fn share_fetch(
        &self,
        caller: &Caller,
        version: i16,
        request: ShareFetchRequest,
        max_bytes: u32,
    ) -> ShareFetchResponse;

    /// A connection has ended on which a ShareFetch came: share sessions that began on it end, and what was
    /// acquired under them is released.
    async fn share_connection_lost(&self, tenant: TenantId, connection: u64);

    /// ShareAcknowledge.
    async fn share_acknowledge(
        &self,
        caller: &Caller,
        version: i16,
        request: ShareAcknowledgeRequest,
    ) -> ShareAcknowledgeResponse;

    /// DescribeShareGroupOffsets.
    async fn describe_share_group_offsets(
        &self,
        caller: &Caller,
        request: DescribeShareGroupOffsetsRequest,
    ) -> DescribeShareGroupOffsetsResponse;

    /// AlterShareGroupOffsets.
    async fn alter_share_group_offsets(
        &self,
        caller: &Caller,
        request: AlterShareGroupOffsetsRequest,
    ) -> AlterShareGroupOffsetsResponse;

    /// DeleteShareGroupOffsets.
    async fn delete_share_group_offsets(
        &self,
        caller: &Caller,
        request: DeleteShareGroupOffsetsRequest,
    ) -> DeleteShareGroupOffsetsResponse;
}
