//! Describe, list and delete groups.

use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;
use sluice_wire::messages::describe_groups_request::DescribeGroupsRequest;
use sluice_wire::messages::leave_group_request::LeaveGroupRequest;
use sluice_wire::messages::list_groups_request::ListGroupsRequest;

use super::*;

async fn list(rig: &Rig, states: &[&'static str], types: &[&'static str]) -> Vec<String> {
    let filter = |names: &[&'static str]| names.iter().copied().map(Str::from_static).collect();
    let request = ListGroupsRequest { states_filter: filter(states), types_filter: filter(types) };
    let answer = rig.groups.list_groups(&caller(), request).await;
    answer.groups.iter().map(|group| group.group_id.to_string()).collect()
}

async fn delete(rig: &Rig, group: &'static str) -> ErrorCode {
    let request = DeleteGroupsRequest { groups_names: vec![Str::from_static(group)] };
    let answer = rig.groups.delete_groups(&caller(), request).await;
    assert_eq!(answer.results[0].group_id, group);
    ErrorCode::from_code(answer.results[0].error_code)
}

#[tokio::test(start_paused = true)]
async fn groups_are_listed_by_state_and_type() {
    let rig = Rig::new();
    rig.stable("stable").await;
    rig.commit("empty", 0, 1).await;
    rig.commit_as(&other(), commit_request("foreign", &[(0, 1)])).await;
    assert_eq!(list(&rig, &[], &[]).await, ["empty", "stable"]);
    assert_eq!(list(&rig, &[" STABLE "], &[]).await, ["stable"]);
    assert_eq!(list(&rig, &["Empty", "Dead"], &["Classic"]).await, ["empty"]);
    assert!(list(&rig, &[], &["consumer"]).await.is_empty());
    let answer = rig.groups.list_groups(&caller(), ListGroupsRequest::default()).await;
    let types: Vec<&str> = answer.groups.iter().map(|group| &*group.protocol_type).collect();
    assert_eq!(types, ["", "consumer"]);
    assert!(answer.groups.iter().all(|group| group.group_type == "classic"));
}

#[tokio::test(start_paused = true)]
async fn groups_are_described_and_absent_ones_by_version() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    let groups = vec![Str::from_static("g"), Str::from_static("none")];
    let request = DescribeGroupsRequest { groups, ..Default::default() };
    let answer = rig.groups.describe_groups(&caller(), 5, request.clone()).await;
    let [found, absent] = &answer.groups[..] else { panic!("two were asked for") };
    assert_eq!((&*found.group_state, &*found.protocol_data), ("Stable", "range"));
    assert_eq!(found.members[0].member_id, joined.member_id);
    assert_eq!(&*found.members[0].client_host, "/127.0.0.1");
    assert_eq!(found.members[0].member_assignment, "all");
    assert_eq!((&*absent.group_state, absent.error_code), ("Dead", 0));
    assert_eq!(absent.error_message, None);
    let answer = rig.groups.describe_groups(&caller(), 6, request).await;
    assert_eq!(answer.groups[1].error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(answer.groups[1].error_message.as_deref(), Some("Group none not found."));
}

#[tokio::test(start_paused = true)]
async fn only_empty_groups_are_deleted_and_their_offsets_with_them() {
    let rig = Rig::new();
    assert_eq!(delete(&rig, "g").await, ErrorCode::GroupIdNotFound);
    rig.commit("g", 0, 42).await;
    let joined = rig.stable("g").await;
    assert_eq!(delete(&rig, "g").await, ErrorCode::NonEmptyGroup);
    let leave = LeaveGroupRequest {
        group_id: Str::from_static("g"),
        member_id: joined.member_id,
        ..Default::default()
    };
    assert_eq!(rig.groups.leave_group(&caller(), 2, leave).await.error_code, 0);
    assert_eq!(rig.offset("g").await, 42);
    assert_eq!(delete(&rig, "g").await, ErrorCode::None);
    assert_eq!(rig.offset("g").await, -1);
    assert!(list(&rig, &[], &[]).await.is_empty());
    assert!(rig.restarted().snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_deleted_while_a_member_joins_lives_on() {
    let rig = Rig::new();
    rig.commit("g", 0, 42).await;
    rig.log.stall();
    let join = async {
        tokio::task::yield_now().await;
        let joined = rig.join_twice("g").await;
        rig.log.resume();
        joined
    };
    let (deleted, joined) = tokio::join!(delete(&rig, "g"), join);
    assert_eq!((deleted, joined.error_code), (ErrorCode::None, 0));
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::None);
    assert_eq!(rig.offset("g").await, -1);
}
