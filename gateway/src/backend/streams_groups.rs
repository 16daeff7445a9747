//! Streams groups (KIP-1071) as the gateway sees them.

use async_trait::async_trait;
use sluice_wire::Str;
use sluice_wire::messages::create_topics_request::CreatableTopic;
use sluice_wire::messages::streams_group_describe_response::DescribedGroup;
use sluice_wire::messages::streams_group_heartbeat_request::StreamsGroupHeartbeatRequest;
use sluice_wire::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;

use super::Caller;

/// The answer to a heartbeat, and what the group needs before it can go on.
#[derive(Clone, Debug, Default)]
pub struct StreamsBeat {
    /// For the member.
    pub answer: StreamsGroupHeartbeatResponse,
    /// Internal topics of the application that are not there: to be created for the caller. The
    /// answer says already that they are missing.
    pub missing: Vec<CreatableTopic>,
}

/// The coordinator of streams groups. Calls are safe to drop: what was decided is still logged.
#[async_trait]
pub trait StreamsGroups: Send + Sync + 'static {
    /// StreamsGroupHeartbeat. Topic names in the topology have been checked.
    async fn streams_group_heartbeat(
        &self,
        caller: &Caller,
        request: StreamsGroupHeartbeatRequest,
    ) -> StreamsBeat;

    /// StreamsGroupDescribe: one description or error for each id, in the same order.
    async fn streams_group_describe(
        &self,
        caller: &Caller,
        group_ids: Vec<Str>,
    ) -> Vec<DescribedGroup>;
}
