//! Static members (KIP-345, KIP-814).

use super::*;

/// A stable group of two static members, `one` (the leader) and `two`; their member ids.
fn stable() -> (Rig, Str, Str) {
    let mut rig =
        Rig::with(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
    let one = rig.join(&static_request("", "one"), 9);
    let two = rig.join(&static_request("", "two"), 9);
    rig.pass(10_000);
    let ids = [one, two].map(|ticket| rig.joined(ticket).member_id.clone());
    assert_eq!(rig.joined(one).leader, ids[0], "the first to join leads");
    rig.sync_as(&ids[1], &[]);
    rig.sync_as(&ids[0], &[(&*ids[0], "a1"), (&*ids[1], "a2")]);
    rig.persist(Ok(()));
    let [one, two] = ids;
    (rig, one, two)
}

#[test]
fn a_static_member_needs_no_second_join() {
    let (rig, one, two) = stable();
    assert!(one.starts_with("one-") && two.starts_with("two-"));
    assert_eq!(rig.group.generation, 1);
}

#[test]
fn a_static_follower_comes_back_without_a_rebalance() {
    let (mut rig, one, two) = stable();
    let ticket = rig.join(&static_request("", "two"), 9);
    assert!(!rig.joins.contains_key(&ticket), "not before it is durable");
    let stored = rig.persist(Ok(()));
    let answer = rig.joined(ticket).clone();
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert!(answer.members.is_empty() && !answer.skip_assignment);
    assert_eq!(answer.leader, one);
    assert!(stored.members.iter().any(|member| member.id == answer.member_id));
    assert_eq!(rig.group.state(), State::Stable);
    assert_eq!(rig.heartbeat(&one), ErrorCode::None);
    assert_eq!(rig.heartbeat(&two), ErrorCode::UnknownMemberId);
    let sync = rig.sync_as(&answer.member_id, &[]);
    assert_eq!(rig.syncs[&sync].assignment, "a2");
}

#[test]
fn a_static_leader_comes_back_and_skips_the_assignment() {
    let (mut rig, _, _) = stable();
    let ticket = rig.join(&static_request("", "one"), 9);
    rig.persist(Ok(()));
    let answer = rig.joined(ticket);
    assert!(answer.skip_assignment);
    assert_eq!(answer.leader, answer.member_id);
    assert_eq!(answer.members.len(), 2);
    assert_eq!(rig.group.state(), State::Stable);
}

#[test]
fn an_old_static_leader_is_not_told_that_it_leads() {
    let (mut rig, one, _) = stable();
    let ticket = rig.join(&static_request("", "one"), 8);
    rig.persist(Ok(()));
    let answer = rig.joined(ticket);
    assert!(!answer.skip_assignment && answer.members.is_empty());
    assert_eq!(answer.leader, one);
}

#[test]
fn a_replacement_that_cannot_be_stored_is_undone() {
    let (mut rig, one, _) = stable();
    let ticket = rig.join(&static_request("", "one"), 9);
    rig.persist(Err(ErrorCode::NotCoordinator));
    assert_eq!(rig.join_error(ticket), ErrorCode::NotCoordinator);
    assert_eq!(rig.joined(ticket).member_id, "");
    assert_eq!(rig.heartbeat(&one), ErrorCode::None);
    assert!(rig.group.is_leader(&one));
    assert_eq!(rig.group.roster.len(), 2);
}

#[test]
fn a_replacement_that_a_rebalance_overtakes_joins_that() {
    let (mut rig, _, two) = stable();
    let ticket = rig.join(&static_request("", "one"), 9);
    let newcomer = rig.join_at_once();
    rig.persist(Ok(()));
    assert!(!rig.joins.contains_key(&ticket));
    let second = rig.join(&static_request(&two, "two"), 9);
    for joined in [ticket, newcomer, second] {
        assert_eq!(rig.joined(joined).generation_id, 2);
    }
}

#[test]
fn a_replacement_with_another_protocol_rebalances() {
    let mut rig = Rig::new();
    let both = vec![protocol("range", &["t"]), protocol("sticky", &["t"])];
    let first = JoinGroupRequest { protocols: both, ..static_request("", "one") };
    let ticket = rig.join(&first, 9);
    rig.settle(&[rig.joined(ticket).member_id.clone()]);
    let sticky = vec![protocol("sticky", &["t"])];
    let ticket = rig.join(&JoinGroupRequest { protocols: sticky, ..first }, 9);
    let answer = rig.joined(ticket);
    assert_eq!((answer.generation_id, answer.protocol_name.as_deref()), (2, Some("sticky")));
}

#[test]
fn the_replaced_member_is_fenced() {
    let (mut rig, one, _) = stable();
    rig.join(&static_request("", "one"), 9);
    rig.persist(Ok(()));
    let join = rig.join(&static_request(&one, "one"), 9);
    assert_eq!(rig.join_error(join), ErrorCode::FencedInstanceId);
    let mut request = sync_request(&one, 1, &[]);
    request.group_instance_id = Some(Str::from("one"));
    let sync = rig.sync(&request);
    assert_eq!(rig.sync_error(sync), ErrorCode::FencedInstanceId);
    let code = rig.drive(|group, cx| group.heartbeat(cx, &one, Some("one"), 1));
    assert_eq!(code, ErrorCode::FencedInstanceId);
    assert_eq!(rig.leave(&one, Some("one")), ErrorCode::FencedInstanceId);
    assert_eq!(rig.group.check_commit(&one, Some("one"), 1), Err(ErrorCode::FencedInstanceId));
}

#[test]
fn what_the_replaced_member_had_parked_is_fenced() {
    let (mut rig, one, two) = stable();
    let join = rig.join(&static_request(&one, "one"), 9);
    let replacement = rig.join(&static_request("", "one"), 9);
    assert_eq!(rig.join_error(join), ErrorCode::FencedInstanceId);
    rig.join(&static_request(&two, "two"), 9);
    assert_eq!(rig.joined(replacement).generation_id, 2);

    let sync = rig.sync_as(&two, &[]);
    rig.join(&static_request("", "two"), 9);
    assert_eq!(rig.sync_error(sync), ErrorCode::FencedInstanceId);
    assert!(rig.is_preparing(), "the leader may have assigned to the old id");
}

#[test]
fn an_unknown_instance_is_an_unknown_member() {
    let (mut rig, one, _) = stable();
    let code = rig.drive(|group, cx| group.heartbeat(cx, &one, Some("three"), 1));
    assert_eq!(code, ErrorCode::UnknownMemberId);
}

#[test]
fn a_static_member_keeps_its_place_through_a_rebalance_it_misses() {
    let (mut rig, one, two) = stable();
    let ticket = rig.join(&static_request(&one, "one"), 9);
    for _ in 0..12 {
        rig.heartbeat(&two);
        rig.pass(5_000);
    }
    let answer = rig.joined(ticket);
    assert_eq!((answer.generation_id, answer.members.len()), (2, 2));
    assert_eq!(rig.heartbeat(&two), ErrorCode::None);
}

#[test]
fn a_rebalance_that_only_absent_static_members_could_join_waits_for_their_sessions() {
    let (mut rig, one, two) = stable();
    let third = rig.join_at_once();
    assert_eq!(
        rig.leave(&rig.group.roster.ids(|m| m.instance.is_none())[0].clone(), None),
        ErrorCode::None
    );
    assert_eq!(rig.join_error(third), ErrorCode::UnknownMemberId);
    for _ in 0..30 {
        rig.pass(5_000);
        rig.heartbeat(&one);
        rig.heartbeat(&two);
    }
    assert!(rig.is_preparing());
    assert_eq!(rig.group.roster.len(), 2);
    rig.pass(200_000);
    assert_eq!(rig.group.state(), State::Empty);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let (mut rig, one, two) = stable();
    assert_eq!(rig.leave("", Some("three")), ErrorCode::UnknownMemberId);
    assert_eq!(rig.leave("", None), ErrorCode::UnknownMemberId);
    assert_eq!(rig.group.state(), State::Stable);
    assert_eq!(rig.leave("", Some("one")), ErrorCode::None);
    assert_eq!(rig.heartbeat(&one), ErrorCode::UnknownMemberId);
    assert_eq!(rig.heartbeat(&two), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_static_member_that_is_lost_leaves_by_its_session() {
    let (mut rig, one, two) = stable();
    rig.pass(6_000);
    rig.heartbeat(&one);
    rig.pass(6_000);
    assert_eq!(rig.heartbeat(&two), ErrorCode::UnknownMemberId);
    assert!(rig.group.roster.static_member("two").is_none());
}

#[test]
fn static_ids_survive_a_load() {
    let (rig, one, _) = stable();
    let loaded = Group::load(rig.group.metadata(None));
    assert_eq!(loaded.roster.static_member("one"), Some(&one));
}
