//! GetTelemetrySubscriptions and PushTelemetry: clients' own metrics (KIP-714).

use std::sync::Arc;

use sluice_model::client_metrics::ClientFacts;
use sluice_wire::batch::Compression;
use sluice_wire::messages::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest;
use sluice_wire::messages::get_telemetry_subscriptions_response::GetTelemetrySubscriptionsResponse;
use sluice_wire::messages::push_telemetry_request::PushTelemetryRequest;
use sluice_wire::messages::push_telemetry_response::PushTelemetryResponse;
use sluice_wire::{ErrorCode, Str, Uuid};

use crate::context::Context;
use crate::gateway::Core;
use crate::telemetry::{Client, Pushed};

/// What clients may compress with, the best first, as Kafka tells it.
const COMPRESSIONS: [Compression; 4] =
    [Compression::Zstd, Compression::Lz4, Compression::Gzip, Compression::Snappy];

/// GetTelemetrySubscriptions. A client that has no id yet is given one.
pub(crate) async fn get_telemetry_subscriptions(
    core: &Arc<Core>,
    ctx: &Context,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let instance = match request.client_instance_id {
        Uuid::ZERO => new_instance(core),
        id => id,
    };
    let subscriptions = core.catalog.metrics_subscriptions(ctx.caller.tenant);
    let client = Client {
        tenant: ctx.caller.tenant,
        instance,
        facts: facts(ctx, instance),
        subscriptions: &subscriptions,
    };
    match core.telemetry.get(ctx.received, &client) {
        Ok(told) => GetTelemetrySubscriptionsResponse {
            client_instance_id: instance,
            subscription_id: told.subscription_id,
            accepted_compression_types: COMPRESSIONS.map(|c| c as i8).to_vec(),
            push_interval_ms: told.interval_ms,
            telemetry_max_bytes: told.max_bytes,
            delta_temporality: true,
            requested_metrics: told.metrics.into_iter().map(Str::from).collect(),
            ..Default::default()
        },
        Err(code) => {
            GetTelemetrySubscriptionsResponse { error_code: code.code(), ..Default::default() }
        }
    }
}

/// PushTelemetry.
pub(crate) async fn push_telemetry(
    core: &Arc<Core>,
    ctx: &Context,
    request: PushTelemetryRequest,
) -> PushTelemetryResponse {
    let instance = request.client_instance_id;
    if is_reserved(instance) {
        let error_code = ErrorCode::InvalidRequest.code();
        return PushTelemetryResponse { error_code, ..Default::default() };
    }
    let subscriptions = core.catalog.metrics_subscriptions(ctx.caller.tenant);
    let client = Client {
        tenant: ctx.caller.tenant,
        instance,
        facts: facts(ctx, instance),
        subscriptions: &subscriptions,
    };
    let pushed = Pushed {
        subscription_id: request.subscription_id,
        terminating: request.terminating,
        compression_type: request.compression_type,
        metrics: request.metrics,
    };
    let error_code = match core.telemetry.push(ctx.received, &client, &pushed) {
        Ok(()) => 0,
        Err(code) => code.code(),
    };
    PushTelemetryResponse { error_code, ..Default::default() }
}

/// Kafka's `Uuid.RESERVED`: zero and one, which can be nobody's.
fn is_reserved(id: Uuid) -> bool {
    u128::from_be_bytes(id.0) <= 1
}

/// A random id of RFC 9562's version 4.
fn new_instance(core: &Core) -> Uuid {
    let mut id = core.catalog.random_16();
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    Uuid(id)
}

fn facts(ctx: &Context, instance: Uuid) -> ClientFacts {
    let (software_name, software_version) = ctx.software.get();
    ClientFacts {
        client_instance_id: instance.to_string(),
        client_id: ctx.caller.client_id.to_string(),
        software_name,
        software_version,
        source_address: ctx.caller.client_host.to_string(),
        source_port: ctx.client_port.to_string(),
    }
}
