//! DescribeConfigs, AlterConfigs and IncrementalAlterConfigs.

use sluice_model::TenantId;
use sluice_wire::messages::alter_configs_request as legacy;
use sluice_wire::messages::describe_configs_request::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use sluice_wire::messages::describe_configs_response::DescribeConfigsResult;
use sluice_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use sluice_wire::messages::list_config_resources_request::ListConfigResourcesRequest;
use sluice_wire::{ErrorCode, Str};

use super::client::Client;
use super::{NODE, Server};

pub(super) const SET: i8 = 0;
pub(super) const DELETE: i8 = 1;
pub(super) const APPEND: i8 = 2;
pub(super) const SUBTRACT: i8 = 3;

pub(super) fn change(
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> AlterConfigsResource {
    let configs = changes.iter().map(|(key, operation, value)| AlterableConfig {
        name: (*key).into(),
        config_operation: *operation,
        value: value.map(Into::into),
    });
    AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: configs.collect(),
    }
}

pub(super) async fn alter(client: &mut Client, resource: AlterConfigsResource) -> i16 {
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    client.call(&request, 1).await.responses[0].error_code
}

/// Sets one config of a topic.
pub(super) async fn set(client: &mut Client, topic: &str, key: &str, value: &str) {
    assert_eq!(alter(client, change(2, topic, &[(key, SET, Some(value))])).await, 0);
}

pub(super) async fn describe(
    client: &mut Client,
    kind: i8,
    name: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type: kind,
            resource_name: name.into(),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect()),
        }],
        include_synonyms: true,
        include_documentation: true,
    };
    client.call(&request, 4).await.results.remove(0)
}

#[tokio::test]
async fn topics_describe_defaults_overrides_and_synonyms() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let all = describe(&mut client, 2, "t", None).await;
    assert!(all.error_code == 0 && all.configs.len() > 20, "{}", all.configs.len());
    // No keys means all keys, as in Kafka.
    assert_eq!(describe(&mut client, 2, "t", Some(&[])).await.configs.len(), all.configs.len());
    set(&mut client, "t", "retention.ms", "1234").await;
    let some = describe(&mut client, 2, "t", Some(&["retention.ms", "no.such.key"])).await;
    let [config] = &some.configs[..] else { panic!("{some:?}") };
    assert_eq!((config.value.as_deref(), config.config_source), (Some("1234"), 1));
    assert!(!config.read_only && !config.is_sensitive && config.documentation.is_some());
    let synonyms: Vec<_> = config.synonyms.iter().map(|s| (&*s.name, s.source)).collect();
    assert_eq!(synonyms, [("retention.ms", 1)]);
    for (kind, name, error) in [
        (2, "u", ErrorCode::UnknownTopicOrPartition),
        (2, "bad name", ErrorCode::InvalidTopicException),
        (4, "99", ErrorCode::InvalidRequest),
        (4, "x", ErrorCode::InvalidRequest),
        (77, "x", ErrorCode::InvalidRequest),
    ] {
        let result = describe(&mut client, kind, name, None).await;
        assert_eq!((result.error_code, result.configs.len()), (error.code(), 0));
        assert!(result.error_message.is_some());
    }
}

#[tokio::test]
async fn this_node_describes_itself() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let result = describe(&mut client, 4, &NODE.0.to_string(), None).await;
    assert_eq!(result.error_code, 0);
    let changeable = |name: &str| name.starts_with("log.") && !name.ends_with(".hours");
    let own = result.configs.iter().filter(|config| !changeable(&config.name));
    for config in own.filter(|config| config.config_source == 4) {
        assert!(config.read_only, "{}", config.name);
    }
    let value = |name: &str| {
        let config = result.configs.iter().find(|config| &*config.name == name);
        config.and_then(|config| config.value.as_deref())
    };
    assert_eq!(value("node.id"), Some("7"));
    assert_eq!(value("default.replication.factor"), Some("1"));
    assert_eq!(value("log.retention.hours"), Some("168"));
    assert!(describe(&mut client, 4, "", None).await.configs.is_empty());
}

#[tokio::test]
async fn incremental_changes_act_one_by_one() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let overrides = || server.catalog.topic_by_name(TenantId::OPEN, "t").unwrap().overrides.clone();
    set(&mut client, "t", "retention.ms", "1234").await;
    let append = change(2, "t", &[("cleanup.policy", APPEND, Some("compact"))]);
    assert_eq!(alter(&mut client, append).await, 0);
    assert_eq!(overrides()["cleanup.policy"], "delete,compact");
    assert_eq!(overrides()["retention.ms"], "1234");
    let subtract = change(
        2,
        "t",
        &[("cleanup.policy", SUBTRACT, Some("delete")), ("retention.ms", DELETE, None)],
    );
    assert_eq!(alter(&mut client, subtract).await, 0);
    assert_eq!(overrides()["cleanup.policy"], "compact");
    assert_eq!(overrides().len(), 1);
    for (resource, error) in [
        (change(2, "t", &[("retention.ms", APPEND, Some("1"))]), ErrorCode::InvalidConfig),
        (change(2, "t", &[("retention.ms", SET, Some("x"))]), ErrorCode::InvalidConfig),
        (change(2, "t", &[("no.such.key", SET, Some("x"))]), ErrorCode::InvalidConfig),
        (change(2, "t", &[("retention.ms", SET, None)]), ErrorCode::InvalidRequest),
        (change(2, "t", &[("retention.ms", 9, Some("1"))]), ErrorCode::InvalidRequest),
        (
            change(2, "t", &[("retention.ms", SET, Some("1")), ("retention.ms", DELETE, None)]),
            ErrorCode::InvalidRequest,
        ),
        (change(2, "u", &[]), ErrorCode::UnknownTopicOrPartition),
        (change(2, "", &[]), ErrorCode::InvalidRequest),
        (change(99, "t", &[]), ErrorCode::InvalidRequest),
    ] {
        assert_eq!(alter(&mut client, resource.clone()).await, error.code(), "{resource:?}");
    }
    let twice = IncrementalAlterConfigsRequest {
        resources: vec![change(2, "t", &[]), change(2, "t", &[])],
        ..Default::default()
    };
    let response = client.call(&twice, 1).await;
    assert!(response.responses.iter().all(|r| r.error_code == ErrorCode::InvalidRequest.code()));
    let check = IncrementalAlterConfigsRequest {
        resources: vec![change(2, "t", &[("retention.ms", SET, Some("5"))])],
        validate_only: true,
    };
    assert_eq!(client.call(&check, 1).await.responses[0].error_code, 0);
    assert_eq!(overrides().len(), 1);
}

#[tokio::test]
async fn the_old_request_replaces_everything() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    set(&mut client, "t", "retention.ms", "1234").await;
    let replace = |value: Option<&str>, validate_only| legacy::AlterConfigsRequest {
        resources: vec![legacy::AlterConfigsResource {
            resource_type: 2,
            resource_name: "t".into(),
            configs: vec![legacy::AlterableConfig {
                name: "max.message.bytes".into(),
                value: value.map(Into::into),
            }],
        }],
        validate_only,
    };
    for (request, error) in [
        (replace(None, false), ErrorCode::InvalidRequest),
        (replace(Some("-5"), false), ErrorCode::InvalidConfig),
        (replace(Some("5000"), true), ErrorCode::None),
    ] {
        assert_eq!(client.call(&request, 2).await.responses[0].error_code, error.code());
        let topic = server.catalog.topic_by_name(TenantId::OPEN, "t").unwrap();
        assert_eq!(topic.overrides["retention.ms"], "1234");
    }
    assert_eq!(client.call(&replace(Some("5000"), false), 2).await.responses[0].error_code, 0);
    let topic = server.catalog.topic_by_name(TenantId::OPEN, "t").unwrap();
    assert_eq!((topic.overrides.len(), topic.config.max_message_bytes), (1, 5_000));
}

const GROUP: i8 = 32;
const CLIENT_METRICS: i8 = 16;

async fn list(client: &mut Client, kinds: &[i8]) -> Vec<(i8, String)> {
    let request = ListConfigResourcesRequest { resource_types: kinds.to_vec() };
    let answer = client.call(&request, 1).await;
    assert_eq!(answer.error_code, 0);
    let resources = answer.config_resources.iter();
    resources.map(|r| (r.resource_type, r.resource_name.to_string())).collect()
}

/// Codes and places as Apache Kafka 4.3.0 gave them to the same questions.
#[tokio::test]
async fn groups_and_metrics_subscriptions_are_configured_before_they_exist() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let session = "consumer.session.timeout.ms";
    let all = describe(&mut client, GROUP, "g", None).await;
    assert_eq!((all.error_code, all.configs.len()), (0, 17));
    assert!(all.configs.iter().all(|config| config.config_source == 5 && !config.read_only));
    assert_eq!(alter(&mut client, change(GROUP, "g", &[(session, SET, Some("50000"))])).await, 0);
    let some = describe(&mut client, GROUP, "g", Some(&[session])).await;
    let [config] = &some.configs[..] else { panic!("{some:?}") };
    assert_eq!((config.value.as_deref(), config.config_source), (Some("50000"), 8));
    let synonyms: Vec<_> = config.synonyms.iter().map(|s| (&*s.name, s.source)).collect();
    assert_eq!(synonyms, [(session, 8), ("group.consumer.session.timeout.ms", 5)]);
    let all = [("metrics", SET, Some("*")), ("match", SET, Some("client_id=abc"))];
    assert_eq!(alter(&mut client, change(CLIENT_METRICS, "m", &all)).await, 0);
    let some = describe(&mut client, CLIENT_METRICS, "m", None).await;
    let told: Vec<_> =
        some.configs.iter().map(|c| (&*c.name, c.config_source, c.synonyms.len())).collect();
    assert_eq!(told, [("interval.ms", 5, 0), ("match", 7, 1), ("metrics", 7, 1)]);
    let named = [(GROUP, "g".to_owned()), (CLIENT_METRICS, "m".to_owned())];
    assert_eq!(list(&mut client, &[CLIENT_METRICS, GROUP]).await, named);

    use ErrorCode::{InvalidConfig, InvalidRequest};
    for (kind, name, key, operation, value, error) in [
        (GROUP, "g", session, SET, Some("5000"), InvalidConfig),
        (GROUP, "g", "nope", SET, Some("1"), InvalidConfig),
        (GROUP, "g", session, APPEND, Some("1"), InvalidConfig),
        (GROUP, "g", session, SET, None, InvalidRequest),
        (GROUP, "", session, SET, Some("50000"), InvalidRequest),
        (CLIENT_METRICS, "m", "interval.ms", SET, Some("10"), InvalidRequest),
        (CLIENT_METRICS, "m", "interval.ms", SET, Some("x"), InvalidConfig),
        (CLIENT_METRICS, "m", "match", SET, Some("client_id=("), InvalidConfig),
        (CLIENT_METRICS, "m", "foo", SET, Some("x"), InvalidRequest),
        (CLIENT_METRICS, "m", "metrics", APPEND, Some("x"), InvalidConfig),
        (CLIENT_METRICS, "", "metrics", SET, Some("x"), InvalidRequest),
        (4, "9", "log.retention.ms", SET, Some("1"), InvalidRequest),
        (4, "x", "log.retention.ms", SET, Some("1"), InvalidRequest),
        (8, "7", "root", SET, Some("INFO"), InvalidConfig),
    ] {
        let resource = change(kind, name, &[(key, operation, value)]);
        assert_eq!(alter(&mut client, resource.clone()).await, error.code(), "{resource:?}");
    }
    for (kind, name) in [(GROUP, ""), (CLIENT_METRICS, ""), (8, ""), (8, "9")] {
        let refused = describe(&mut client, kind, name, None).await;
        assert_eq!((refused.error_code, refused.configs.len()), (InvalidRequest.code(), 0));
    }
    // Nothing of the refused is there, and what loses its last config is gone.
    assert_eq!(list(&mut client, &[CLIENT_METRICS, GROUP]).await, named);
    assert_eq!(alter(&mut client, change(GROUP, "g", &[(session, DELETE, None)])).await, 0);
    let replace = legacy::AlterConfigsRequest {
        resources: vec![legacy::AlterConfigsResource {
            resource_type: CLIENT_METRICS,
            resource_name: "m".into(),
            configs: Vec::new(),
        }],
        validate_only: false,
    };
    assert_eq!(client.call(&replace, 2).await.responses[0].error_code, 0);
    assert!(list(&mut client, &[CLIENT_METRICS, GROUP]).await.is_empty());
}

#[tokio::test]
async fn what_one_tenant_sets_on_groups_and_metrics_is_nothing_to_another() {
    let server = Server::with(|_| {}, &[TenantId(1), TenantId(2)]).await;
    let mut a = server.client_of(0).await;
    let mut b = server.client_of(1).await;
    let session = "share.session.timeout.ms";
    assert_eq!(alter(&mut a, change(GROUP, "g", &[(session, SET, Some("50000"))])).await, 0);
    let metrics = change(CLIENT_METRICS, "m", &[("metrics", SET, Some("*"))]);
    assert_eq!(alter(&mut a, metrics).await, 0);
    assert!(list(&mut b, &[GROUP, CLIENT_METRICS]).await.is_empty());
    for (kind, name) in [(GROUP, "g"), (CLIENT_METRICS, "m")] {
        let seen = describe(&mut b, kind, name, None).await;
        let never = describe(&mut b, kind, "never-named", None).await;
        assert_eq!(seen.configs, never.configs);
        assert!(seen.configs.iter().all(|config| config.config_source == 5));
    }
    // The other tenant's delete touches nothing of the first one's.
    assert_eq!(alter(&mut b, change(GROUP, "g", &[(session, DELETE, None)])).await, 0);
    assert_eq!(list(&mut a, &[GROUP]).await, [(GROUP, "g".to_owned())]);
}
