//! ApiVersions: what the dispatch table holds, no more and no less, and the features by which clients
//! choose how to speak.

use std::sync::Arc;

use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::api_versions_response::{
    ApiVersion, ApiVersionsResponse, FinalizedFeatureKey, SupportedFeatureKey,
};
use sluice_wire::{ApiKey, ErrorCode, Str};

use crate::context::{Context, Origin};
use crate::dispatch;
use crate::gateway::Core;

/// From this version on clients say what they are (KIP-511).
const SOFTWARE_FROM: i16 = 3;

/// Features are told from this version on.
const FEATURES_FROM: i16 = 3;
/// Clients of older versions cannot read a feature whose least version is 0.
const ZERO_FROM: i16 = 4;
/// Clients believe the features with the largest epoch they have seen: raise it with each change of
/// [`FEATURES`].
const FEATURES_EPOCH: i64 = 2;

/// What clients are promised beyond the versions of APIs: name, and the level that holds, which is also
/// the highest. All can be 0.
const FEATURES: &[(&str, i16)] = &[
    // KIP-848: the consumer protocol.
    ("group.version", 1),
    // KIP-932: share groups.
    ("share.version", 1),
    // KIP-1071: the streams protocol.
    ("streams.version", 1),
    // KIP-890: an epoch for each transaction, partitions added by writing to them.
    ("transaction.version", 2),
];

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
        ctx.software.set(name, version);
    }
    let mut answer = ApiVersionsResponse { api_keys: announced(), ..Default::default() };
    if ctx.origin != Origin::Client {
        answer.api_keys.extend(dispatch::SERVED_TO_NODES.iter().map(one));
    }
    if ctx.version >= FEATURES_FROM {
        answer.finalized_features_epoch = FEATURES_EPOCH;
        for (name, level) in FEATURES {
            let name = Str::from_static(name);
            if ctx.version >= ZERO_FROM {
                answer.supported_features.push(SupportedFeatureKey {
                    name: name.clone(),
                    min_version: 0,
                    max_version: *level,
                });
            }
            answer.finalized_features.push(FinalizedFeatureKey {
                name,
                max_version_level: *level,
                min_version_level: *level,
            });
        }
    }
    answer
}

/// Every served API with the versions that clients are told.
pub(crate) fn announced() -> Vec<ApiVersion> {
    dispatch::SERVED.iter().map(one).collect()
}

fn one(api: &ApiKey) -> ApiVersion {
    let range = dispatch::announced(*api);
    ApiVersion { api_key: api.code(), min_version: *range.start(), max_version: *range.end() }
}

/// KIP-511's pattern: letters, digits, dots and dashes, beginning and ending with one of the former.
fn is_software(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    ends(text.chars().next())
        && ends(text.chars().next_back())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-')
}
