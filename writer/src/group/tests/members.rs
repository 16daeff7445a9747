//! Joining, syncing, sessions and leaving through the shell.

use sluice_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};

use super::*;

#[tokio::test(start_paused = true)]
async fn two_members_share_a_group() {
    let rig = Rig::new();
    let first = rig.stable("g").await;
    let second = rig.join("g", "").await;
    let joining = join_request("g", &second.member_id);
    let caller = caller();
    let (first, second) =
        tokio::join!(rig.join("g", &first.member_id), rig.groups.join_group(&caller, 9, joining),);
    assert_eq!((first.generation_id, second.generation_id), (2, 2));
    let (leader, follower) =
        if first.leader == first.member_id { (first, second) } else { (second, first) };
    assert_eq!(leader.members.len(), 2);
    let given = [(&*leader.member_id, "l"), (&*follower.member_id, "f")];
    let (f, l) = tokio::join!(rig.sync("g", &follower, &[]), rig.sync("g", &leader, &given));
    assert_eq!((&f.assignment[..], &l.assignment[..]), (&b"f"[..], &b"l"[..]));
}

#[tokio::test(start_paused = true)]
async fn requests_are_checked_before_the_group() {
    let rig = Rig::new();
    let no_id = rig.join("", "").await;
    assert_eq!(no_id.error_code, ErrorCode::InvalidGroupId.code());
    for session_timeout_ms in [5_999, 1_800_001] {
        let request = JoinGroupRequest { session_timeout_ms, ..join_request("g", "") };
        let answer = rig.groups.join_group(&caller(), 9, request).await;
        assert_eq!(answer.error_code, ErrorCode::InvalidSessionTimeout.code());
    }
    let mut big = join_request("g", "");
    big.protocols[0].metadata = Bytes::from(vec![0; rig.config.max_subscription_bytes]);
    let answer = rig.groups.join_group(&caller(), 9, big).await;
    assert_eq!(answer.error_code, ErrorCode::InvalidRequest.code());
    let unknown = rig.join("g", "stranger").await;
    assert_eq!(unknown.error_code, ErrorCode::UnknownMemberId.code());
    assert_eq!(rig.groups.shared.cells_of(TENANT).len(), 0, "refused joins leave nothing behind");
}

#[tokio::test(start_paused = true)]
async fn before_version_7_the_protocol_name_is_not_null() {
    let rig = Rig::new();
    let old = rig.groups.join_group(&caller(), 6, join_request("", "")).await;
    assert_eq!(old.protocol_name.as_deref(), Some(""));
    let new = rig.groups.join_group(&caller(), 7, join_request("", "")).await;
    assert_eq!(new.protocol_name, None);
}

#[tokio::test(start_paused = true)]
async fn a_silent_member_is_dropped_by_the_timer() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    pass(Duration::from_millis(9_900)).await;
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::None);
    pass(Duration::from_millis(9_900)).await;
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::None);
    assert_eq!(rig.groups.shared.alarms.len(), 1, "one alarm for a group");
    pass(Duration::from_millis(10_100)).await;
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::UnknownMemberId);
    assert_eq!(rig.groups.shared.alarms.len(), 0, "none for an empty one");
}

#[tokio::test(start_paused = true)]
async fn a_join_waits_no_longer_than_the_others_sessions() {
    let rig = Rig::new();
    rig.stable("g").await;
    let second = rig.join("g", "").await;
    let started = tokio::time::Instant::now();
    let joined = rig.join("g", &second.member_id).await;
    assert_eq!((joined.error_code, joined.members.len()), (0, 1));
    let waited = started.elapsed();
    let session = Duration::from_millis(10_000);
    assert!(waited <= session && waited > session / 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_does_not_hold_up_the_group() {
    let rig = Rig::new();
    let first = rig.stable("g").await;
    let second = rig.join("g", "").await;
    // Its join is parked, because the first has yet to rejoin; then the connection is gone.
    let joining = rig.join("g", &second.member_id);
    assert!(tokio::time::timeout(Duration::from_secs(1), joining).await.is_err());
    let first = rig.join("g", &first.member_id).await;
    assert_eq!(first.generation_id, 2);
    // The leader's sync is queued, then its connection is gone: the assignment is durable anyway.
    let leader = if first.leader == first.member_id { first } else { second.clone() };
    let leader = JoinGroupResponse { generation_id: 2, ..leader };
    rig.log.stall();
    let given = [(&*leader.member_id, "mine")];
    let syncing = rig.sync("g", &leader, &given);
    assert!(tokio::time::timeout(Duration::from_millis(1), syncing).await.is_err());
    rig.log.resume();
    pass(Duration::from_millis(1)).await;
    let again = rig.sync("g", &leader, &[]).await;
    assert_eq!((again.error_code, &again.assignment[..]), (0, &b"mine"[..]));
}

#[tokio::test(start_paused = true)]
async fn leaving_answers_by_version() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    let identity =
        |member_id: &str| MemberIdentity { member_id: Str::from(member_id), ..Default::default() };
    let batch = LeaveGroupRequest {
        group_id: Str::from_static("g"),
        members: vec![identity("stranger"), identity(&joined.member_id)],
        ..Default::default()
    };
    let answer = rig.groups.leave_group(&caller(), 5, batch.clone()).await;
    let codes: Vec<i16> = answer.members.iter().map(|member| member.error_code).collect();
    assert_eq!((answer.error_code, codes), (0, vec![ErrorCode::UnknownMemberId.code(), 0]));

    let single = LeaveGroupRequest {
        group_id: Str::from_static("g"),
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    let answer = rig.groups.leave_group(&caller(), 2, single).await;
    assert_eq!(answer.error_code, ErrorCode::UnknownMemberId.code());
    assert!(answer.members.is_empty());

    let absent = LeaveGroupRequest { group_id: Str::from_static("none"), ..batch };
    let answer = rig.groups.leave_group(&caller(), 5, absent).await;
    assert!(answer.members.iter().all(|m| m.error_code == ErrorCode::UnknownMemberId.code()));
}

#[tokio::test(start_paused = true)]
async fn tenants_have_groups_of_their_own() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    let heartbeat = HeartbeatRequest {
        group_id: Str::from_static("g"),
        generation_id: joined.generation_id,
        member_id: joined.member_id.clone(),
        ..Default::default()
    };
    let answer = rig.groups.heartbeat(&other(), heartbeat).await;
    assert_eq!(answer.error_code, ErrorCode::UnknownMemberId.code());
    let request = join_request("g", &joined.member_id);
    let answer = rig.groups.join_group(&other(), 9, request).await;
    assert_eq!(answer.error_code, ErrorCode::UnknownMemberId.code());
}

#[tokio::test(start_paused = true)]
async fn a_tenants_groups_are_bounded() {
    let rig = Rig::with(GroupConfig { max_groups_per_tenant: 2, ..GroupConfig::default() });
    rig.stable("one").await;
    assert_eq!(rig.commit("two", 0, 1).await, ErrorCode::None);
    let third = rig.join("three", "").await;
    assert_eq!(third.error_code, ErrorCode::PolicyViolation.code());
    assert_eq!(rig.commit("three", 0, 1).await, ErrorCode::PolicyViolation);
    assert_eq!(rig.commit("two", 0, 2).await, ErrorCode::None);
    let elsewhere = rig.commit_as(&other(), commit_request("three", &[(0, 1)])).await;
    assert_eq!(elsewhere, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn while_loading_and_after_closing_nothing_is_served() {
    let rig = Rig::loading(GroupConfig::default(), Arc::default());
    let joined = rig.join("g", "").await;
    assert_eq!(joined.error_code, ErrorCode::CoordinatorLoadInProgress.code());
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::None, "sessions do not run yet");
    assert_eq!(rig.commit("g", 0, 1).await, ErrorCode::CoordinatorLoadInProgress);

    let rig = Rig::new();
    let first = rig.stable("g").await;
    let second = rig.join("g", "").await;
    let closing = async {
        pass(Duration::from_secs(1)).await;
        rig.groups.close();
    };
    let (parked, ()) = tokio::join!(rig.join("g", &second.member_id), closing);
    assert_eq!(parked.error_code, ErrorCode::NotCoordinator.code());
    assert_eq!(rig.heartbeat("g", &first).await, ErrorCode::NotCoordinator);
    assert_eq!(rig.commit("g", 0, 1).await, ErrorCode::NotCoordinator);
    assert_eq!(rig.fetch_all("g").await.error_code, ErrorCode::NotCoordinator.code());
}
