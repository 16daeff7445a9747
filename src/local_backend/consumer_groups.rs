//! Consumer groups of KIP-848, in this process.

use async_trait::async_trait;
use sluice_gateway::backend::{Caller, ConsumerGroups};
use sluice_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use sluice_wire::messages::consumer_group_describe_response::ConsumerGroupDescribeResponse;
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;

use super::{LocalBackend, group_caller};

#[async_trait]
impl ConsumerGroups for LocalBackend {
    async fn consumer_group_heartbeat(
        &self,
        caller: &Caller,
        version: i16,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let groups = self.writer.groups();
        groups.consumer_group_heartbeat(&group_caller(caller), version, request).await
    }

    async fn consumer_group_describe(
        &self,
        caller: &Caller,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        self.writer.groups().consumer_group_describe(&group_caller(caller), request).await
    }
}
