//! ListConfigResources (KIP-1142): the resources that DescribeConfigs can be asked about.

use std::sync::Arc;

use sluice_catalog::ResourceKind;
use sluice_wire::ErrorCode;
use sluice_wire::messages::list_config_resources_request::ListConfigResourcesRequest;
use sluice_wire::messages::list_config_resources_response::{
    ConfigResource, ListConfigResourcesResponse,
};

use super::describe_configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use super::resolve;
use crate::context::Context;
use crate::gateway::Core;

/// See the module. Before version 1 this was ListClientMetricsResources.
pub(crate) async fn list_config_resources(
    core: &Arc<Core>,
    ctx: &Context,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    let known: &[i8] = match ctx.version {
        0 => &[CLIENT_METRICS],
        _ => &[TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP],
    };
    let asked = &request.resource_types;
    if asked.iter().any(|kind| !known.contains(kind)) {
        return ListConfigResourcesResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            ..Default::default()
        };
    }
    let wanted = |kind| known.contains(&kind) && (asked.is_empty() || asked.contains(&kind));
    let mut config_resources = Vec::new();
    let kinds = [(GROUP, ResourceKind::Group), (CLIENT_METRICS, ResourceKind::ClientMetrics)];
    for (resource_type, kind) in kinds.into_iter().filter(|(code, _)| wanted(*code)) {
        let names = core.catalog.configured_resources(ctx.caller.tenant, kind);
        let resource =
            |name: &Arc<str>| ConfigResource { resource_name: (&**name).into(), resource_type };
        config_resources.extend(names.iter().map(resource));
    }
    for resource_type in [BROKER_LOGGER, BROKER].into_iter().filter(|kind| wanted(*kind)) {
        config_resources.extend(resolve::brokers(core).into_iter().map(|broker| ConfigResource {
            resource_name: broker.id.to_string().into(),
            resource_type,
        }));
    }
    if wanted(TOPIC) {
        let topics = core.catalog.topics(ctx.caller.tenant);
        config_resources.extend(topics.iter().map(|topic| ConfigResource {
            resource_name: (&*topic.name).into(),
            resource_type: TOPIC,
        }));
    }
    ListConfigResourcesResponse { config_resources, ..Default::default() }
}
