//! What the log's answers and a restart do to groups.

use super::*;

#[tokio::test(start_paused = true)]
async fn members_go_on_after_a_restart_without_a_rebalance() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    rig.commit_as(&other(), commit_request("x", &[(0, 1)])).await;
    let rig = rig.restarted();
    pass(Duration::from_secs(9)).await;
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::None);
    let synced = rig.sync("g", &joined, &[]).await;
    assert_eq!(synced.assignment, "all");
    let mut request = commit_request("g", &[(0, 7)]);
    request.member_id = joined.member_id.clone();
    request.generation_id_or_member_epoch = joined.generation_id;
    assert_eq!(rig.commit_as(&caller(), request).await, ErrorCode::None);
    pass(Duration::from_secs(11)).await;
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::UnknownMemberId);
}

#[tokio::test(start_paused = true)]
async fn a_failing_log_is_answered_with_a_code_that_clients_retry() {
    let rig = Rig::new();
    rig.commit("g", 0, 1).await;
    for (error, code) in [
        (LogError::Full, ErrorCode::CoordinatorNotAvailable),
        (LogError::Unavailable, ErrorCode::CoordinatorNotAvailable),
        (LogError::Loading, ErrorCode::CoordinatorLoadInProgress),
        (LogError::NotOwner, ErrorCode::NotCoordinator),
    ] {
        rig.log.fail(Some(error));
        assert_eq!(rig.commit("g", 0, 2).await, code);
        assert!(code.retriable());
        let partitions = [(TOPIC, 0)];
        let deleted = rig.groups.offset_delete(&caller(), &Str::from("g"), &partitions).await;
        assert_eq!(deleted, Err(code));
        assert_eq!(rig.offset("g").await, 1, "what was not made durable is not shown");
    }
    rig.log.fail(None);
    assert_eq!(rig.commit("g", 0, 2).await, ErrorCode::None);
    assert_eq!(rig.offset("g").await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_group_outlives_a_failing_log() {
    let rig = Rig::new();
    let joined = rig.join_twice("g").await;
    rig.log.fail(Some(LogError::Full));
    let synced = rig.sync("g", &joined, &[(&joined.member_id, "all")]).await;
    assert_eq!(synced.error_code, ErrorCode::CoordinatorNotAvailable.code());
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::RebalanceInProgress);
    rig.log.fail(None);
    let joined = rig.join("g", &joined.member_id).await;
    assert_eq!(joined.generation_id, 2);
    let synced = rig.sync("g", &joined, &[(&joined.member_id, "all")]).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_too_large_to_store_is_refused() {
    let rig = Rig::with(GroupConfig { max_group_bytes: 300, ..GroupConfig::default() });
    let joined = rig.join_twice("g").await;
    let long = "x".repeat(300).leak();
    let synced = rig.sync("g", &joined, &[(&joined.member_id, long)]).await;
    assert_eq!(synced.error_code, ErrorCode::UnknownServerError.code());
    assert_eq!(rig.log.appends(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_no_longer_than_its_timeout() {
    let rig = Rig::new();
    rig.log.stall();
    assert_eq!(rig.commit("g", 0, 1).await, ErrorCode::CoordinatorNotAvailable);
    let stable = rig.fetch(&caller(), "g", Some(&[0]), true).await;
    assert_eq!(stable.error_code, ErrorCode::NotCoordinator.code());
    // It was never refused, so it may still be made.
    rig.log.resume();
    pass(Duration::from_millis(1)).await;
    assert_eq!(rig.offset("g").await, 1);
}

#[tokio::test(start_paused = true)]
async fn commits_that_wait_are_bounded_in_bytes() {
    let rig = Rig::with(GroupConfig { max_waiting_bytes: 200, ..GroupConfig::default() });
    rig.log.stall();
    let (a, b, c) =
        tokio::join!(rig.commit("a", 0, 1), rig.commit("b", 0, 1), rig.commit("c", 0, 1));
    assert_eq!([a, b, c], [ErrorCode::CoordinatorNotAvailable; 3]);
    rig.log.resume();
    pass(Duration::from_millis(1)).await;
    let made = [rig.offset("a").await, rig.offset("b").await, rig.offset("c").await];
    assert_eq!(made, [1, 1, -1], "the third never got room, so it was never queued");
}

#[tokio::test(start_paused = true)]
async fn commits_that_gather_share_an_append() {
    let rig = Rig::new();
    let ids: Vec<String> = (0..50).map(|n| format!("g{n}")).collect();
    rig.log.stall();
    let commits = ids.iter().map(|id| rig.commit(id, 0, 1));
    let resume = async {
        pass(Duration::from_millis(1)).await;
        rig.log.resume();
    };
    let (codes, ()) = tokio::join!(futures_util::future::join_all(commits), resume);
    assert!(codes.iter().all(|code| *code == ErrorCode::None));
    assert!(rig.log.appends() <= 2, "{} appends", rig.log.appends());
}

#[tokio::test(start_paused = true)]
async fn commits_of_one_group_are_logged_in_their_order() {
    let rig = Rig::new();
    rig.log.stall();
    let commits = (1..=20).map(|offset| rig.commit("g", 0, offset));
    let resume = async {
        pass(Duration::from_millis(1)).await;
        rig.log.resume();
    };
    let (codes, ()) = tokio::join!(futures_util::future::join_all(commits), resume);
    assert!(codes.iter().all(|code| *code == ErrorCode::None));
    assert_eq!(rig.offset("g").await, 20);
    assert_eq!(rig.restarted().offset("g").await, 20);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_record_are_errors_and_change_nothing() {
    let rig = Rig::new();
    rig.stable("g").await;
    let before = rig.snapshot();
    let (key, value) = before.first_key_value().unwrap();
    for cut in 0..value.len() {
        assert!(rig.groups.apply(key, Some(&value[..cut])).is_err());
    }
    for bad in [&b""[..], b"\0\0\0\x01", b"\0\0\0\x01\x7fg"] {
        assert!(rig.groups.apply(bad, None).is_err());
    }
    assert_eq!(rig.snapshot(), before);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_coordinator_leaves_no_task_behind() {
    let rig = Rig::new();
    rig.stable("g").await;
    let shared = Arc::downgrade(&rig.groups.shared);
    drop(rig);
    pass(Duration::from_millis(1)).await;
    assert!(shared.upgrade().is_none());
}
