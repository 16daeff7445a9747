//! GetTelemetrySubscriptions and PushTelemetry, with subscriptions that the tenant sets as configs.

use bytes::Bytes;
use sluice_catalog::ResourceKind;
use sluice_model::TenantId;
use sluice_wire::messages::api_versions_request::ApiVersionsRequest;
use sluice_wire::messages::get_telemetry_subscriptions_request::GetTelemetrySubscriptionsRequest;
use sluice_wire::messages::get_telemetry_subscriptions_response::GetTelemetrySubscriptionsResponse;
use sluice_wire::messages::push_telemetry_request::PushTelemetryRequest;
use sluice_wire::{ErrorCode, Uuid};

use super::Server;
use super::client::Client;
use crate::telemetry::otlp::write;

const EVERY: &str = "100";

async fn subscribe(server: &Server, tenant: TenantId, name: &str, pairs: &[(&str, &str)]) {
    let edit = |stored: &mut std::collections::BTreeMap<String, String>| {
        stored.extend(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    };
    server.catalog.update_resource(tenant, ResourceKind::ClientMetrics, name, edit).await.unwrap();
}

async fn get(client: &mut Client, id: Uuid) -> GetTelemetrySubscriptionsResponse {
    client.call(&GetTelemetrySubscriptionsRequest { client_instance_id: id }, 0).await
}

async fn push(
    client: &mut Client,
    told: &GetTelemetrySubscriptionsResponse,
    change: impl FnOnce(&mut PushTelemetryRequest),
) -> i16 {
    let mut request = PushTelemetryRequest {
        client_instance_id: told.client_instance_id,
        subscription_id: told.subscription_id,
        metrics: write::gauge("a.level", 2.0).into(),
        ..Default::default()
    };
    change(&mut request);
    client.call(&request, 0).await.error_code
}

#[tokio::test]
async fn what_clients_push_becomes_the_operators_metrics() {
    let server = Server::start().await;
    subscribe(&server, TenantId::OPEN, "m", &[("metrics", "a."), ("interval.ms", EVERY)]).await;
    let mut client = server.client().await;
    let told = get(&mut client, Uuid::ZERO).await;
    assert_eq!(told.error_code, 0);
    assert!(u128::from_be_bytes(told.client_instance_id.0) > 1);
    assert_eq!((told.push_interval_ms, told.telemetry_max_bytes), (100, 1 << 20));
    assert_eq!(told.accepted_compression_types, [4, 3, 1, 2]);
    assert!(told.delta_temporality);
    assert_eq!(told.requested_metrics, ["a."]);
    let metrics = [
        write::gauge("a.level", 2.0),
        write::sum("a.sum", 5, 1),
        write::gauge("not.wanted", 1.0),
        write::histogram("a.distribution"),
    ];
    let metrics: Bytes = metrics.concat().into();
    assert_eq!(push(&mut client, &told, |request| request.metrics = metrics).await, 0);
    // Exactly once: the next one comes too early.
    let early = push(&mut client, &told, |_| {}).await;
    assert_eq!(early, ErrorCode::ThrottlingQuotaExceeded.code());
    let line = |text: &str, name: &str| text.lines().any(|line| line == name);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &server.registry.lock()).unwrap();
    for expected in [
        r#"gateway_client_metric_mean{tenant="0",metric="a.level"} 2.0"#,
        r#"gateway_client_metric_total{tenant="0",metric="a.sum"} 5.0"#,
        r#"gateway_telemetry_pushes_total{error="None"} 1"#,
        r#"gateway_telemetry_pushes_total{error="ThrottlingQuotaExceeded"} 1"#,
        r#"gateway_telemetry_dropped_total{reason="not_wanted"} 1"#,
        r#"gateway_telemetry_dropped_total{reason="kind"} 1"#,
        "gateway_telemetry_clients 1",
        "gateway_telemetry_series 2",
    ] {
        assert!(line(&text, expected), "{expected}\n{text}");
    }
    assert!(!text.contains("not.wanted"));
}

#[tokio::test]
async fn refusals_are_kafkas() {
    let server = Server::start().await;
    let mut client = server.client().await;
    subscribe(&server, TenantId::OPEN, "m", &[("metrics", "*"), ("interval.ms", EVERY)]).await;
    use ErrorCode::*;
    type Change = fn(&mut PushTelemetryRequest);
    let cases: [(Change, ErrorCode); 8] = [
        (|r| r.client_instance_id = Uuid::ZERO, InvalidRequest),
        (|r| r.client_instance_id = Uuid(1u128.to_be_bytes()), InvalidRequest),
        (|r| r.subscription_id ^= 1, UnknownSubscriptionId),
        (|r| r.compression_type = 9, UnsupportedCompressionType),
        (|r| r.metrics = vec![0; (1 << 20) + 1].into(), TelemetryTooLarge),
        (|r| r.metrics = Bytes::from_static(b"\xff\xff"), InvalidRecord),
        (|r| r.compression_type = 1, InvalidRecord),
        (|r| r.metrics = Bytes::new(), None),
    ];
    for (change, code) in cases {
        // Each by a client of its own, which may push at once.
        let told = get(&mut client, Uuid::ZERO).await;
        assert_eq!(push(&mut client, &told, change).await, code.code());
    }
    let told = get(&mut client, Uuid::ZERO).await;
    let early = get(&mut client, told.client_instance_id).await;
    assert_eq!(early.error_code, ThrottlingQuotaExceeded.code());
    assert_eq!(push(&mut client, &told, |request| request.terminating = true).await, 0);
    assert_eq!(push(&mut client, &told, |_| {}).await, InvalidRequest.code());
}

#[tokio::test]
async fn compressed_pushes_are_inflated_within_a_bound() {
    let server = Server::start().await;
    let mut client = server.client().await;
    subscribe(&server, TenantId::OPEN, "m", &[("metrics", "*"), ("interval.ms", EVERY)]).await;
    // The records of a batch are compressed in the same way; there its header is in front.
    for compression in sluice_wire::batch::Compression::ALL {
        let squeezed = sluice_wire::batch::deflate(compression, &write::sum("a.sum", 1, 1));
        let told = get(&mut client, Uuid::ZERO).await;
        let change = |request: &mut PushTelemetryRequest| {
            request.compression_type = compression as i8;
            request.metrics = squeezed;
        };
        assert_eq!(push(&mut client, &told, change).await, 0, "{compression:?}");
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &server.registry.lock()).unwrap();
    let sum = r#"gateway_client_metric_total{tenant="0",metric="a.sum"} 5.0"#;
    assert!(text.contains(sum), "{text}");
    let bomb = sluice_wire::batch::deflate(sluice_wire::batch::Compression::Zstd, &[0; 9 << 20]);
    let told = get(&mut client, Uuid::ZERO).await;
    let change = |request: &mut PushTelemetryRequest| {
        request.compression_type = 4;
        request.metrics = bomb;
    };
    assert_eq!(push(&mut client, &told, change).await, ErrorCode::InvalidRecord.code());
}

#[tokio::test]
async fn clients_are_selected_by_what_they_say_they_are() {
    let server = Server::start().await;
    let java = "client_software_name=apache-kafka-java,client_software_version=4\\..*";
    subscribe(&server, TenantId::OPEN, "java", &[("metrics", "j."), ("match", java)]).await;
    subscribe(&server, TenantId::OPEN, "id", &[("metrics", "i."), ("match", "client_id=tests")])
        .await;
    let mut client = server.client().await;
    assert_eq!(get(&mut client, Uuid::ZERO).await.requested_metrics, ["i."]);
    let hello = ApiVersionsRequest {
        client_software_name: "apache-kafka-java".into(),
        client_software_version: "4.3.0".into(),
    };
    assert_eq!(client.call(&hello, 3).await.error_code, 0);
    assert_eq!(get(&mut client, Uuid::ZERO).await.requested_metrics, ["i.", "j."]);
    let mut other = server.client().await;
    assert_eq!(get(&mut other, Uuid::ZERO).await.requested_metrics, ["i."]);
}

#[tokio::test]
async fn one_tenants_subscriptions_and_clients_are_nothing_to_another() {
    let server = Server::with(|_| {}, &[TenantId(1), TenantId(2)]).await;
    let mut a = server.client_of(0).await;
    let mut b = server.client_of(1).await;
    subscribe(&server, TenantId(1), "m", &[("metrics", "*"), ("interval.ms", EVERY)]).await;
    let told = get(&mut a, Uuid::ZERO).await;
    assert_eq!(told.requested_metrics, ["*"]);
    let other = get(&mut b, told.client_instance_id).await;
    assert_eq!((other.error_code, other.requested_metrics.len()), (0, 0));
    assert_eq!(other.push_interval_ms, 300_000);
    // With the first tenant's subscription the second one's client pushes nothing.
    let stolen = push(&mut b, &told, |_| {}).await;
    assert_eq!(stolen, ErrorCode::UnknownSubscriptionId.code());
    assert_eq!(push(&mut a, &told, |_| {}).await, 0);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &server.registry.lock()).unwrap();
    assert!(text.contains(r#"client_metric_mean{tenant="1",metric="a.level"}"#), "{text}");
    assert!(!text.contains(r#"tenant="2""#), "{text}");
}
