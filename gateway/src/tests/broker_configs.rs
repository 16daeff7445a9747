//! What a tenant sets on the brokers of its cluster. Codes and places as Apache Kafka 4.3.0 gave them to the
//! same questions.

use sluice_model::TenantId;
use sluice_wire::ErrorCode;
use sluice_wire::messages::describe_cluster_request::DescribeClusterRequest;
use sluice_wire::messages::describe_configs_response::DescribeConfigsResult;

use super::Server;
use super::client::Client;
use super::configs::{APPEND, DELETE, SET, SUBTRACT, alter, change, describe};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
/// The broker's name, and that of all.
const OWN: &str = "7";
const ALL: &str = "";

/// Name, value and source.
type Place<'a> = (&'a str, Option<&'a str>, i8);

/// Value of the one config in an answer, whether it is read-only, and its places.
fn told(answer: &DescribeConfigsResult) -> (Option<&str>, bool, Vec<Place<'_>>) {
    let [config] = &answer.configs[..] else { panic!("{answer:?}") };
    let places = config.synonyms.iter().map(|s| (&*s.name, s.value.as_deref(), s.source));
    (config.value.as_deref(), config.read_only, places.collect())
}

async fn set(client: &mut Client, broker: &str, name: &str, value: &str) -> i16 {
    alter(client, change(BROKER, broker, &[(name, SET, Some(value))])).await
}

#[tokio::test]
async fn defaults_of_topics_are_those_of_the_broker_then_of_all_brokers() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let retention =
        || server.catalog.topic_by_name(TenantId::OPEN, "t").unwrap().config.retention_ms;
    let week = ("log.retention.hours", Some("168"), 5);
    let key = "log.retention.ms";
    let unset = describe(&mut client, BROKER, OWN, Some(&[key])).await;
    assert_eq!(told(&unset), (None, false, vec![]));

    assert_eq!(set(&mut client, ALL, key, "3000").await, 0);
    assert_eq!(retention(), Some(3000));
    assert_eq!(set(&mut client, OWN, key, "2000").await, 0);
    assert_eq!(retention(), Some(2000));
    let own = describe(&mut client, BROKER, OWN, Some(&[key])).await;
    let places = vec![(key, Some("2000"), 2), (key, Some("3000"), 3), week];
    assert_eq!(told(&own), (Some("2000"), false, places));
    let all = describe(&mut client, BROKER, ALL, None).await;
    assert_eq!(told(&all), (Some("3000"), false, vec![(key, Some("3000"), 3)]));
    let topic = describe(&mut client, TOPIC, "t", Some(&["retention.ms"])).await;
    assert_eq!(told(&topic).0, Some("2000"));
    assert_eq!(told(&topic).2[..2], [(key, Some("2000"), 2), (key, Some("3000"), 3)]);
    // The topic's own is before both.
    super::configs::set(&mut client, "t", "retention.ms", "1000").await;
    assert_eq!(retention(), Some(1000));
    let delete = [("retention.ms", DELETE, None)];
    assert_eq!(alter(&mut client, change(TOPIC, "t", &delete)).await, 0);
    let delete = [(key, DELETE, None)];
    assert_eq!(alter(&mut client, change(BROKER, OWN, &delete)).await, 0);
    assert_eq!(retention(), Some(3000));
    assert_eq!(alter(&mut client, change(BROKER, ALL, &delete)).await, 0);
    assert_eq!(retention(), Some(604_800_000));
    assert!(describe(&mut client, BROKER, ALL, None).await.configs.is_empty());
}

#[tokio::test]
async fn lists_grow_and_shrink_and_topics_follow() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.create_topic("t", 1).await;
    let key = "log.cleanup.policy";
    let compacted =
        || server.catalog.topic_by_name(TenantId::OPEN, "t").unwrap().config.cleanup.compact;
    for (operation, value, outcome) in
        [(APPEND, "delete,compact", true), (SUBTRACT, "delete", false)]
    {
        let part = [(key, operation, Some("compact"))];
        assert_eq!(alter(&mut client, change(BROKER, OWN, &part)).await, 0);
        let told_now = describe(&mut client, BROKER, OWN, Some(&[key])).await;
        assert_eq!(told(&told_now).0, Some(value));
        assert_eq!(compacted(), outcome);
    }
}

#[tokio::test]
async fn what_means_nothing_here_is_kept_and_shown_and_what_is_the_operators_is_refused() {
    let server = Server::start().await;
    let mut client = server.client().await;
    use ErrorCode::{InvalidConfig, InvalidRequest, None as Fine};
    for (broker, name, operation, value, error) in [
        (OWN, "background.threads", SET, "9", Fine),
        (OWN, "background.threads", SET, "40", InvalidRequest),
        (OWN, "sasl.kerberos.min.time.before.relogin", SET, "58000", Fine),
        (ALL, "sasl.kerberos.min.time.before.relogin", SET, "58000", InvalidRequest),
        (OWN, "leader.replication.throttled.rate", SET, "-1", InvalidRequest),
        (OWN, "leader.replication.throttled.rate", DELETE, "", Fine),
        (OWN, "log.retention.ms", SET, "abc", InvalidRequest),
        (OWN, "log.retention.ms", APPEND, "5", InvalidConfig),
        (OWN, "log.cleanup.policy", APPEND, "bogus", InvalidRequest),
        (OWN, "process.roles", SET, "broker", InvalidRequest),
        (OWN, "listeners", SET, "PLAINTEXT://:1", InvalidRequest),
        (OWN, "of.a.plugin", SET, "secret", Fine),
        (OWN, "of.a.plugin", APPEND, "x", InvalidConfig),
        ("9", "background.threads", SET, "9", InvalidRequest),
    ] {
        let resource = change(BROKER, broker, &[(name, operation, Some(value))]);
        assert_eq!(alter(&mut client, resource.clone()).await, error.code(), "{resource:?}");
    }
    let threads = describe(&mut client, BROKER, OWN, Some(&["background.threads"])).await;
    let name = "background.threads";
    let places = vec![(name, Some("9"), 2), (name, Some("10"), 5)];
    assert_eq!(told(&threads), (Some("9"), false, places));
    // As in Kafka: what nobody knows could be a secret.
    let plugin = describe(&mut client, BROKER, OWN, Some(&["of.a.plugin"])).await;
    assert_eq!(told(&plugin), (None, true, vec![("of.a.plugin", None, 2)]));
    assert!(plugin.configs[0].is_sensitive && plugin.configs[0].config_type == 0);
    let refused = describe(&mut client, BROKER, OWN, Some(&["listeners"])).await;
    assert!(refused.configs.is_empty());
}

#[tokio::test]
async fn one_tenants_brokers_are_not_anothers() {
    let server = Server::with(|_| {}, &[TenantId(1), TenantId(2)]).await;
    let (mut a, mut b) = (server.client_of(0).await, server.client_of(1).await);
    b.create_topic("t", 1).await;
    assert_eq!(set(&mut a, ALL, "log.retention.ms", "3000").await, 0);
    assert_eq!(set(&mut a, OWN, "of.a.plugin", "secret").await, 0);
    assert!(describe(&mut b, BROKER, ALL, None).await.configs.is_empty());
    let own = describe(&mut b, BROKER, OWN, Some(&["of.a.plugin", "log.retention.ms"])).await;
    assert_eq!(told(&own), (None, false, vec![]));
    let topic = server.catalog.topic_by_name(TenantId(2), "t").unwrap();
    assert_eq!(topic.config.retention_ms, Some(604_800_000));
}

/// CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS, ALTER_CONFIGS, IDEMPOTENT_WRITE: what a Kafka
/// without an authorizer says.
#[tokio::test]
async fn nothing_is_forbidden_on_the_cluster() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let request = DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        endpoint_type: 1,
        ..Default::default()
    };
    assert_eq!(client.call(&request, 1).await.cluster_authorized_operations, 8096);
}
