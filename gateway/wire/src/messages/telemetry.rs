//! Clients' own metrics (KIP-714).

use crate::table::message;

message! {
    /// Asks which metrics the server wants, and how often.
    mod get_telemetry_subscriptions_request, versions 0..=0, flexible 0..;

    GetTelemetrySubscriptionsRequest {
        client_instance_id: Uuid;
    }
}

message! {
    /// The metrics wanted.
    mod get_telemetry_subscriptions_response, versions 0..=0, flexible 0..;

    GetTelemetrySubscriptionsResponse {
        throttle_time_ms: i32;
        error_code: i16;
        client_instance_id: Uuid;
        subscription_id: i32;
        accepted_compression_types: Vec<i8>;
        push_interval_ms: i32;
        telemetry_max_bytes: i32;
        delta_temporality: bool;
        requested_metrics: Vec<Str>;
    }
}

message! {
    /// Brings metrics in OTLP.
    mod push_telemetry_request, versions 0..=0, flexible 0..;

    PushTelemetryRequest {
        client_instance_id: Uuid;
        subscription_id: i32;
        terminating: bool;
        compression_type: i8;
        metrics: Bytes;
    }
}

message! {
    /// Whether the metrics were taken.
    mod push_telemetry_response, versions 0..=0, flexible 0..;

    PushTelemetryResponse {
        throttle_time_ms: i32;
        error_code: i16;
    }
}
