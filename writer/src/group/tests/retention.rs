//! Offsets and groups that grow old.

use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;

use super::*;

const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
const CHECK: Duration = Duration::from_secs(600);

/// Both clocks go on, and the check comes round.
async fn age(rig: &Rig, time: Duration) {
    let ms = i64::try_from(time.as_millis()).unwrap();
    rig.seams.wall_ms.fetch_add(ms, Ordering::Relaxed);
    pass(CHECK + Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn an_offset_is_forgotten_after_its_retention() {
    let rig = Rig::new();
    rig.commit("g", 0, 1).await;
    age(&rig, RETENTION - Duration::from_secs(1)).await;
    assert_eq!(rig.offset("g").await, 1);
    rig.commit("g", 1, 1).await;
    age(&rig, Duration::from_secs(1)).await;
    let left = rig.fetch_all("g").await;
    let partitions: Vec<i32> =
        left.topics[0].partitions.iter().map(|found| found.partition_index).collect();
    assert_eq!(partitions, [1]);
    age(&rig, RETENTION).await;
    assert!(rig.groups.shared.cells_of(TENANT).is_empty());
    assert!(rig.restarted().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_empty_group_without_offsets_is_forgotten_at_the_next_check() {
    let rig = Rig::new();
    rig.stable("g").await;
    pass(Duration::from_secs(20)).await;
    assert_eq!(rig.snapshot().len(), 1, "the session ended, the group is stored as empty");
    age(&rig, Duration::ZERO).await;
    assert!(rig.snapshot().is_empty());
    assert!(rig.groups.shared.cells_of(TENANT).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_live_groups_subscribed_topics_keep_their_offsets() {
    let rig = Rig::new();
    rig.commit("g", 0, 1).await;
    let request = JoinGroupRequest { session_timeout_ms: 1_800_000, ..join_request("g", "") };
    let joined = rig.groups.join_group(&caller(), 3, request).await;
    rig.sync("g", &joined, &[]).await;
    age(&rig, RETENTION * 2).await;
    assert_eq!(rig.offset("g").await, 1);
    rig.topics.remove(TENANT, "topic");
    rig.topics.set(TENANT, "renamed", TOPIC, 4);
    age(&rig, Duration::ZERO).await;
    assert_eq!(rig.offset("g").await, -1);
}

#[tokio::test(start_paused = true)]
async fn a_commits_own_retention_is_kept() {
    let rig = Rig::new();
    let mut request = commit_request("g", &[(0, 1)]);
    request.retention_time_ms = 1_000;
    rig.commit_as(&caller(), request).await;
    age(&rig, Duration::from_millis(999)).await;
    assert_eq!(rig.offset("g").await, 1);
    age(&rig, Duration::from_millis(1)).await;
    assert_eq!(rig.offset("g").await, -1);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_under_way_is_not_swept_away() {
    let rig = Rig::new();
    rig.commit("g", 0, 1).await;
    rig.seams.wall_ms.fetch_add(i64::MAX / 2, Ordering::Relaxed);
    rig.log.stall();
    let sweep = async {
        tokio::task::yield_now().await;
        super::super::retention::sweep(&rig.groups.shared).await.unwrap();
        rig.log.resume();
    };
    let (code, ()) = tokio::join!(rig.commit("g", 0, 2), sweep);
    assert_eq!(code, ErrorCode::None);
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.offset("g").await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_group_whose_offsets_were_deleted_is_shown_empty_until_the_next_check() {
    let rig = Rig::new();
    let states = async || -> Vec<(String, String)> {
        let answer = rig.groups.list_groups(&caller(), Default::default()).await;
        let groups = answer.groups.into_iter();
        groups.map(|g| (g.group_id.to_string(), g.group_state.to_string())).collect()
    };
    let empty = |names: &[&str]| -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), "Empty".to_owned())).collect()
    };
    for group in ["deleted", "dropped", "of-topic"] {
        rig.commit(group, 0, 1).await;
    }
    for group in ["deleted", "dropped"] {
        rig.groups.offset_delete(&caller(), &Str::from(group), &[(TOPIC, 0)]).await.unwrap();
    }
    rig.groups.forget_topic(TENANT, TOPIC).await.unwrap();
    assert_eq!(states().await, empty(&["deleted", "dropped", "of-topic"]));
    let request = DeleteGroupsRequest { groups_names: vec!["dropped".into(), "dropped".into()] };
    let dropped = rig.groups.delete_groups(&caller(), request).await;
    let codes: Vec<i16> = dropped.results.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0], "each group is answered once");
    assert_eq!(states().await, empty(&["deleted", "of-topic"]));
    age(&rig, Duration::ZERO).await;
    assert!(rig.groups.shared.cells_of(TENANT).is_empty());
    assert!(rig.restarted().groups.shared.cells_of(TENANT).is_empty());
}
