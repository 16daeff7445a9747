//! Consumer groups of KIP-848.

use async_trait::async_trait;
use sluice_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use sluice_wire::messages::consumer_group_describe_response::ConsumerGroupDescribeResponse;
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;

use super::Caller;

/// The coordinator of consumer groups as the gateway sees it.
#[async_trait]
pub trait ConsumerGroups: Send + Sync + 'static {
    /// ConsumerGroupHeartbeat; `version` tells who chooses a member's id. Answers when what it changed
    /// is durable.
    async fn consumer_group_heartbeat(
        &self,
        caller: &Caller,
        version: i16,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse;

    /// ConsumerGroupDescribe, without authorized operations.
    async fn consumer_group_describe(
        &self,
        caller: &Caller,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse;
}
