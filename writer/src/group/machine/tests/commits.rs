//! Who may commit or delete offsets, and when offsets grow old.

use super::*;
use crate::group::machine::ExpiryBase;

fn check(rig: &Rig, member_id: &str, generation: i32) -> Result<(), ErrorCode> {
    rig.group.check_commit(member_id, None, generation)
}

#[test]
fn a_simple_consumer_commits_while_nobody_is_in_the_group() {
    let rig = Rig::new();
    assert_eq!(check(&rig, "", -1), Ok(()));
    let (rig, _) = Rig::stable(1);
    assert_eq!(check(&rig, "", -1), Err(ErrorCode::UnknownMemberId));
}

#[test]
fn members_commit_in_their_generation() {
    let (rig, ids) = Rig::stable(1);
    assert_eq!(check(&rig, &ids[0], 1), Ok(()));
    assert_eq!(check(&rig, &ids[0], 0), Err(ErrorCode::IllegalGeneration));
    assert_eq!(check(&rig, &ids[0], -1), Err(ErrorCode::IllegalGeneration));
    assert_eq!(check(&rig, "stranger", 1), Err(ErrorCode::UnknownMemberId));
    assert_eq!(check(&Rig::new(), "stranger", 1), Err(ErrorCode::UnknownMemberId));
}

#[test]
fn commits_are_let_in_while_members_join_but_not_while_they_sync() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    assert_eq!(check(&rig, &ids[1], 1), Ok(()));
    rig.rejoin(&ids[1]);
    assert_eq!(check(&rig, &ids[1], 2), Err(ErrorCode::RebalanceInProgress));
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let (mut rig, ids) = Rig::stable(1);
    for _ in 0..5 {
        rig.pass(9_000);
        rig.drive(|group, cx| group.committed(cx, &ids[0]));
    }
    assert_eq!(rig.heartbeat(&ids[0]), ErrorCode::None);
}

#[test]
fn subscriptions_are_read_from_the_members() {
    let (mut rig, ids) = Rig::stable(1);
    assert!(rig.group.is_subscribed("topic") && !rig.group.is_subscribed("other"));
    assert_eq!(rig.group.check_offset_delete(), Ok(()));
    rig.leave(&ids[0], None);
    assert!(!rig.group.is_subscribed("topic"));
}

#[test]
fn unreadable_subscriptions_count_as_every_topic() {
    let mut rig = Rig::new();
    let mut odd = request("");
    odd.protocols[0].metadata = Bytes::from_static(b"\x00");
    rig.join(&odd, 3);
    assert!(rig.group.is_subscribed("anything"));
}

#[test]
fn other_protocols_keep_their_offsets_while_they_have_members() {
    let mut rig = Rig::new();
    let connect = JoinGroupRequest { protocol_type: Str::from("connect"), ..request("") };
    let ticket = rig.join(&connect, 3);
    assert_eq!(rig.group.check_offset_delete(), Err(ErrorCode::NonEmptyGroup));
    rig.settle(&[rig.joined(ticket).member_id.clone()]);
    assert_eq!(rig.group.expiry_base(), ExpiryBase::Never);
    assert!(!rig.group.is_subscribed("topic"));
}

#[test]
fn offsets_age_from_the_last_commit_or_from_when_the_group_became_empty() {
    assert_eq!(Rig::new().group.expiry_base(), ExpiryBase::LastCommit);
    let (mut rig, ids) = Rig::stable(2);
    assert_eq!(rig.group.expiry_base(), ExpiryBase::LastCommit);
    rig.rejoin(&ids[0]);
    assert_eq!(rig.group.expiry_base(), ExpiryBase::Never);
    rig.leave(&ids[0], None);
    rig.leave(&ids[1], None);
    let since = 1_000_000 + i64::try_from(rig.now).unwrap();
    assert_eq!(rig.group.expiry_base(), ExpiryBase::EmptySince(since));
}

#[test]
fn a_group_is_described_in_full_only_while_it_is_stable() {
    let (mut rig, ids) = Rig::stable(1);
    let id = Str::from("group");
    let stable = rig.group.describe(&id);
    assert_eq!((&*stable.group_state, &*stable.protocol_data), ("Stable", "range"));
    assert_eq!(stable.members[0].member_metadata, subscription(&["topic"]));
    assert_eq!(&*stable.members[0].client_id, "client");
    rig.rejoin(&ids[0]);
    let syncing = rig.group.describe(&id);
    assert_eq!(&*syncing.group_state, "CompletingRebalance");
    assert_eq!(&*syncing.protocol_data, "");
    assert!(syncing.members[0].member_metadata.is_empty());
}
