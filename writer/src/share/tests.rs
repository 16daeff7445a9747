//! Share groups' records as the gateway uses them, on paused time, with a log and streams in memory.

mod rig;

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::registry::Registry;
use sluice_model::group_config::OffsetReset;
use sluice_wire::ErrorCode;

use self::rig::{OTHER, Rig, TENANT, ack, acked, acquired, errors, stream};
use super::*;

const LOCK: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn records_are_given_once_until_they_are_acknowledged() {
    let rig = Rig::new().await;
    rig.produce(0, &[3, 3]);
    let a = rig.member("a").await;
    let b = rig.member("b").await;
    assert_eq!(acquired(&a.fetch(&rig, 1).await), [(0, 2, 1)]);
    assert_eq!(acquired(&b.fetch(&rig, 10).await), [(3, 5, 1)]);
    let answer = a.fetch_saying(&rig, 10, &[ack(0, 2, &[1])]).await;
    assert_eq!((acked(&answer), acquired(&answer)), (vec![0], vec![]));
    assert_eq!(b.say(&rig, &[ack(3, 4, &[1]), ack(5, 5, &[2])]).await, ErrorCode::None);
    assert_eq!(acquired(&a.fetch(&rig, 10).await), [(5, 5, 2)]);
    assert_eq!(rig.start(), 5);
}

#[tokio::test(start_paused = true)]
async fn only_the_batches_with_something_acquired_are_sent() {
    let rig = Rig::new().await;
    rig.produce(0, &[2, 2, 2]);
    let a = rig.member("a").await;
    let answer = a.fetch(&rig, 3).await;
    assert_eq!(acquired(&answer), [(0, 3, 1)]);
    let records = answer.responses[0].partitions[0].records.clone().unwrap_or_default();
    assert_eq!(records.len(), rig.bytes(0, 0..4));
}

/// As in Kafka, where librdkafka's tests count on it.
#[tokio::test(start_paused = true)]
async fn what_is_there_does_not_wait_until_all_partitions_are_loaded() {
    let rig = Rig::new().await;
    rig.produce(0, &[2]);
    rig.produce(1, &[3]);
    let a = rig.member_unopened(TENANT, "a");
    let first = a.open_both(&rig).await;
    assert_eq!((acquired(&first), errors(&first)), (vec![(0, 1, 1)], vec![0, 0]));
    assert_eq!(acquired(&a.fetch(&rig, 100).await), [(0, 2, 1)]);
    // What is loaded is given together.
    rig.produce(0, &[1]);
    rig.produce(1, &[1]);
    assert_eq!(acquired(&a.fetch(&rig, 100).await), [(2, 2, 1), (3, 3, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_waits_for_records() {
    let rig = Rig::new().await;
    let a = rig.member("a").await;
    let began = Instant::now();
    let produce = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        rig.produce(0, &[1]);
    };
    let (answer, ()) = tokio::join!(a.fetch(&rig, 10), produce);
    assert_eq!(acquired(&answer), [(0, 0, 1)]);
    assert_eq!(began.elapsed(), Duration::from_millis(200));
    let answer = a.fetch(&rig, 10).await;
    assert_eq!((acquired(&answer), answer.error_code), (vec![], 0));
    assert_eq!(began.elapsed(), Duration::from_millis(700));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_takes_no_more_bytes_than_the_client_said_but_for_the_first_batch() {
    let rig = Rig::new().await;
    rig.produce(0, &[1, 1, 1]);
    let a = rig.member("a").await;
    let began = Instant::now();
    // With 0 there is not even a first one: the fetch waits as if there were nothing.
    assert_eq!(acquired(&a.fetch_bytes(&rig, 0).await), []);
    assert_eq!(began.elapsed(), Duration::from_millis(500));
    assert_eq!(acquired(&a.fetch_bytes(&rig, 1).await), [(0, 0, 1)]);
    let rest = i32::try_from(rig.bytes(0, 1..3)).unwrap();
    assert_eq!(acquired(&a.fetch_bytes(&rig, rest).await), [(1, 2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_runs_out_wakes_who_waits() {
    let rig = Rig::new().await;
    rig.produce(0, &[2]);
    let (a, b) = (rig.member("a").await, rig.member("b").await);
    a.fetch(&rig, 10).await;
    let began = Instant::now();
    let answer = b.fetch_waiting(&rig, 2 * LOCK).await;
    assert_eq!(acquired(&answer), [(0, 1, 2)]);
    assert!(began.elapsed() >= LOCK && began.elapsed() < LOCK + Duration::from_secs(1));
    assert_eq!(a.say(&rig, &[ack(0, 1, &[1])]).await, ErrorCode::InvalidRecordState);
    assert_eq!(b.say(&rig, &[ack(0, 1, &[1])]).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn a_release_wakes_who_waits() {
    let rig = Rig::new().await;
    rig.produce(0, &[2]);
    let (a, b) = (rig.member("a").await, rig.member("b").await);
    a.fetch(&rig, 10).await;
    let (answer, ()) = tokio::join!(b.fetch_waiting(&rig, LOCK / 2), a.close(&rig));
    assert_eq!(acquired(&answer), [(0, 1, 2)]);
    // The session has ended with that.
    assert_eq!(a.fetch(&rig, 1).await.error_code, ErrorCode::ShareSessionNotFound.code());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_fenced_gives_back_what_it_has() {
    let rig = Rig::new().await;
    rig.produce(0, &[2]);
    let (a, b) = (rig.member("a").await, rig.member("b").await);
    a.fetch(&rig, 10).await;
    rig.shares.member_left(TENANT, &a.group, &a.member);
    assert_eq!(acquired(&b.fetch(&rig, 10).await), [(0, 1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_began_on_a_connection_ends_with_it() {
    let rig = Rig::new().await;
    rig.produce(0, &[2, 3]);
    let (a, b) = (rig.member("a").await, rig.member("b").await);
    a.fetch(&rig, 2).await;
    // Another tenant's connections are numbered by themselves as far as this one is concerned.
    rig.shares.connection_lost(ShareClient { tenant: OTHER, connection: a.connection });
    assert_eq!(acquired(&b.fetch(&rig, 10).await), [(2, 4, 1)]);
    rig.shares.connection_lost(ShareClient { tenant: TENANT, connection: a.connection });
    assert_eq!(acquired(&b.fetch(&rig, 10).await), [(0, 1, 2)]);
    assert_eq!(a.fetch(&rig, 1).await.error_code, ErrorCode::ShareSessionNotFound.code());
    // A member that is back on a new connection keeps its session when the old one is found dead.
    let again = rig::Member { connection: 77, ..rig.member_unopened(TENANT, "a") };
    assert_eq!(again.open(&rig).await.error_code, 0);
    rig.shares.connection_lost(ShareClient { tenant: TENANT, connection: a.connection });
    assert_eq!(again.fetch(&rig, 1).await.error_code, 0);
}

struct Census(Arc<Shares>);

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Census")
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.encode_census(&mut encoder)
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_records_is_counted() {
    let rig = Rig::new().await;
    let mut registry = Registry::default();
    rig.metrics.register(&mut registry);
    registry.register_collector(Box::new(Census(Arc::clone(&rig.shares))));
    let shown = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    let has = |line: &str| assert!(shown().lines().any(|l| l == line), "{line} in {}", shown());
    rig.produce(0, &[6]);
    let a = rig.member("a").await;
    a.fetch(&rig, 10).await;
    has("share_delivered_total 6");
    has("share_acquired 6");
    has("share_sessions 1");
    has("share_partitions 1");
    assert_eq!(a.say(&rig, &[ack(0, 1, &[1]), ack(2, 3, &[2, 3])]).await, ErrorCode::None);
    has(r#"share_acknowledged_total{type="accept"} 2"#);
    has(r#"share_acknowledged_total{type="release"} 1"#);
    has(r#"share_acknowledged_total{type="reject"} 1"#);
    has("share_acquired 2");
    tokio::time::sleep(LOCK + Duration::from_secs(1)).await;
    has("share_timed_out_total 2");
    has("share_acquired 0");
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_not_delivered_after_a_restart() {
    let rig = Rig::new().await;
    rig.produce(0, &[2, 2, 2]);
    let a = rig.member("a").await;
    a.fetch(&rig, 10).await;
    assert_eq!(a.say(&rig, &[ack(0, 1, &[1]), ack(2, 2, &[2])]).await, ErrorCode::None);
    let rig = rig.restarted().await;
    let a = rig.member("a").await;
    assert_eq!(acquired(&a.fetch(&rig, 10).await), [(2, 2, 2), (3, 5, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_began_at_the_end_stays_where_it_began() {
    let rig = Rig::new().await;
    rig.set(|settings| settings.auto_offset_reset = OffsetReset::Latest);
    rig.produce(0, &[5]);
    let a = rig.member("a").await;
    assert_eq!(acquired(&a.fetch(&rig, 10).await), []);
    let rig = rig.restarted().await;
    rig.produce(0, &[1]);
    let a = rig.member("a").await;
    assert_eq!(acquired(&a.fetch(&rig, 10).await), [(5, 5, 1)]);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_is_not_durable_is_not_made() {
    let rig = Rig::new().await;
    rig.produce(0, &[2]);
    let a = rig.member("a").await;
    a.fetch(&rig, 10).await;
    rig.log.fail(Some(LogError::Unavailable));
    assert_eq!(a.say(&rig, &[ack(0, 1, &[1])]).await, ErrorCode::CoordinatorNotAvailable);
    assert_eq!(rig.start(), 0);
    rig.log.fail(None);
    assert_eq!(a.say(&rig, &[ack(0, 1, &[1])]).await, ErrorCode::None);
    assert_eq!(rig.start(), 2);
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_that_gather_are_one_record() {
    let rig = Rig::new().await;
    rig.produce(0, &[20]);
    let a = rig.member("a").await;
    a.fetch(&rig, 20).await;
    rig.log.stall();
    let before = rig.log.records();
    let key = SessionKey { group: a.group.clone(), member: a.member.clone() };
    let said: Vec<_> = (0..20)
        .map(|offset| {
            let allowed = acknowledge::Allowed::of(2, false);
            let ranges = vec![ack(offset, offset, &[1])];
            let topic = Uuid(stream(0).topic.0);
            let acks = acknowledge::Acks { topic, partition: 0, ranges };
            rig.shares.stage(TENANT, &key, allowed, &acks)
        })
        .collect();
    rig.log.resume();
    for said in said {
        assert_eq!(said.await.code, ErrorCode::None);
    }
    assert!(rig.log.records() - before <= 2, "one under way, one with all that gathered");
    assert_eq!(rig.start(), 20);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_another_tenant_is_seen() {
    let rig = Rig::new().await;
    rig.produce(0, &[3]);
    let a = rig.member("a").await;
    assert_eq!(acquired(&a.fetch(&rig, 1).await), [(0, 2, 1)]);
    // The topic is not the other's; nor are the session and what was acquired.
    let thief = rig.member_of(OTHER, "a").await;
    let answer = thief.fetch(&rig, 10).await;
    assert_eq!(errors(&answer), [ErrorCode::UnknownTopicId.code()]);
    assert_eq!(thief.say(&rig, &[ack(0, 2, &[1])]).await, ErrorCode::UnknownTopicId);
    thief.close(&rig).await;
    assert!(rig.shares.standings(OTHER, &a.group).is_empty());
    assert_eq!(a.say(&rig, &[ack(0, 2, &[1])]).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn offsets_are_set_and_forgotten() {
    let rig = Rig::new().await;
    rig.produce(0, &[2, 2]);
    let a = rig.member("a").await;
    a.fetch(&rig, 10).await;
    a.say(&rig, &[ack(0, 3, &[1])]).await;
    let group = a.group.clone();
    rig.shares.set_starts(TENANT, &group, &[(stream(0), 2)]).await.unwrap();
    assert_eq!(a.say(&rig, &[ack(2, 3, &[1])]).await, ErrorCode::UnknownTopicOrPartition);
    let a = rig.member("a").await;
    assert_eq!(acquired(&a.fetch(&rig, 10).await), [(2, 3, 1)]);
    rig.shares.forget_streams(TENANT, &group, |_| true).await.unwrap();
    assert!(rig.shares.standings(TENANT, &group).is_empty());
    let rig = rig.restarted().await;
    assert!(rig.shares.standings(TENANT, &group).is_empty());
    let a = rig.member("a").await;
    assert_eq!(acquired(&a.fetch(&rig, 10).await), [(0, 3, 1)]);
    rig.shares.forget_topic(TENANT, stream(0).topic).await.unwrap();
    assert!(rig.shares.standings(TENANT, &group).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_renews_only_renews() {
    let rig = Rig::new().await;
    rig.produce(0, &[2]);
    let (a, b) = (rig.member("a").await, rig.member("b").await);
    a.fetch(&rig, 10).await;
    tokio::time::sleep(LOCK / 2).await;
    let answer = a.renew(&rig, &[ack(0, 1, &[4])], 0).await;
    assert_eq!((answer.error_code, acked(&answer)), (0, vec![0]));
    let refused = a.renew(&rig, &[ack(0, 1, &[4])], 1).await;
    assert_eq!(refused.error_code, ErrorCode::InvalidRequest.code());
    assert_eq!(acquired(&b.fetch_waiting(&rig, LOCK * 3 / 4).await), []);
    assert_eq!(a.say(&rig, &[ack(0, 1, &[1])]).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn sessions_and_share_partitions_are_bounded() {
    let limits = ShareLimits { max_sessions: 1, max_partitions: 1, ..ShareLimits::default() };
    let rig = Rig::with(limits).await;
    let a = rig.member("a").await;
    let b = rig.member_unopened(TENANT, "b");
    assert_eq!(b.open(&rig).await.error_code, ErrorCode::ShareSessionLimitReached.code());
    let other = rig.member_unopened(OTHER, "b");
    assert_eq!(other.open(&rig).await.error_code, 0, "another tenant's count apart");
    tokio::time::sleep(ShareLimits::default().idle_session).await;
    assert_eq!(b.open(&rig).await.error_code, 0, "an idle one makes room");
    assert_eq!(a.fetch(&rig, 1).await.error_code, ErrorCode::ShareSessionNotFound.code());
    let c = rig::Member { group: Str::from_static("another"), ..rig.member_unopened(TENANT, "c") };
    tokio::time::sleep(ShareLimits::default().idle_session).await;
    assert_eq!(errors(&c.open(&rig).await), [ErrorCode::PolicyViolation.code()]);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_has_all_of_it() {
    let rig = Rig::new().await;
    rig.produce(0, &[2, 2]);
    let a = rig.member("a").await;
    a.fetch(&rig, 10).await;
    a.say(&rig, &[ack(1, 1, &[1])]).await;
    let mut pairs = Vec::new();
    rig.shares.snapshot(&mut |key, value| pairs.push((key, value)));
    let fresh = rig.unstarted();
    for (key, value) in &pairs {
        fresh.apply(key, Some(value)).unwrap();
    }
    assert_eq!(fresh.standings(TENANT, &a.group), rig.shares.standings(TENANT, &a.group));
    assert_eq!(fresh.standings(TENANT, &a.group)[0].done, 1);
}
