//! ApiVersions: what the dispatch table holds, no more and no less. No features are announced:
//! `group.version`, `transaction.version` and the like come with what they promise.

use std::sync::Arc;

use sluice_wire::ErrorCode;
use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};

use crate::context::Context;
use crate::dispatch;
use crate::gateway::Core;

/// From this version on clients say what they are (KIP-511).
const SOFTWARE_FROM: i16 = 3;

/// See the module.
pub(crate) async fn api_versions(
    core: &Arc<Core>,
    ctx: &Context,
    request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    if ctx.version >= SOFTWARE_FROM {
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        if !is_software(name) || !is_software(version) {
            return ApiVersionsResponse {
                error_code: ErrorCode::InvalidRequest.code(),
                ..Default::default()
            };
        }
        core.metrics.software(name, version);
    }
    ApiVersionsResponse { api_keys: announced(), ..Default::default() }
}

/// Every served API with the versions that clients are told.
pub(crate) fn announced() -> Vec<ApiVersion> {
    let one = |api: &sluice_wire::ApiKey| {
        let range = dispatch::announced(*api);
        ApiVersion { api_key: api.code(), min_version: *range.start(), max_version: *range.end() }
    };
    dispatch::SERVED.iter().map(one).collect()
}

/// KIP-511's pattern: letters, digits, dots and dashes, beginning and ending with one of the former.
fn is_software(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
}
