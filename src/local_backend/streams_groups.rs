//! Streams groups: the coordinator of the process's writer.

use async_trait::async_trait;
use sluice_gateway::backend::{Caller, StreamsBeat, StreamsGroups};
use sluice_wire::Str;
use sluice_wire::messages::streams_group_describe_response::DescribedGroup;
use sluice_wire::messages::streams_group_heartbeat_request::StreamsGroupHeartbeatRequest;

use super::{LocalBackend, group_caller};

#[async_trait]
impl StreamsGroups for LocalBackend {
    async fn streams_group_heartbeat(
        &self,
        caller: &Caller,
        request: StreamsGroupHeartbeatRequest,
    ) -> StreamsBeat {
        let groups = self.writer.groups();
        let (answer, missing) =
            groups.streams_group_heartbeat(&group_caller(caller), &request).await;
        StreamsBeat { answer, missing }
    }

    async fn streams_group_describe(
        &self,
        caller: &Caller,
        group_ids: Vec<Str>,
    ) -> Vec<DescribedGroup> {
        self.writer.groups().streams_group_describe(&group_caller(caller), group_ids).await
    }
}
