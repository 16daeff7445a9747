//! The join and sync phases.

use super::*;

#[test]
fn the_first_rebalance_waits_for_more_members() {
    let mut rig =
        Rig::with(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
    let first = rig.join_at_once();
    rig.pass(2_000);
    let second = rig.join_at_once();
    rig.pass(1_000);
    assert!(rig.joins.is_empty(), "a new member extends the delay");
    rig.pass(3_000);
    assert_eq!(rig.joined(first).generation_id, 1);
    assert_eq!(rig.joined(second).generation_id, 1);
    assert_eq!(rig.joined(first).members.len() + rig.joined(second).members.len(), 2);
}

#[test]
fn the_delay_is_not_extended_past_the_rebalance_timeout() {
    let mut rig =
        Rig::with(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
    let short = JoinGroupRequest { rebalance_timeout_ms: 7_000, ..request("") };
    let first = rig.join(&short, 3);
    for _ in 0..6 {
        rig.pass(1_000);
        rig.join(&short, 3);
    }
    assert!(rig.joins.is_empty());
    rig.pass(1_000);
    assert_eq!(rig.joined(first).generation_id, 1);
}

#[test]
fn without_a_delay_the_first_member_starts_at_once() {
    let mut rig = Rig::new();
    let ticket = rig.join_at_once();
    assert_eq!(rig.joined(ticket).generation_id, 1);
    assert_eq!(rig.group.state(), State::CompletingRebalance);
}

#[test]
fn rebalance_timeout_drops_slow_members() {
    let (mut rig, ids) = Rig::stable(3);
    let first = rig.rejoin(&ids[0]);
    let second = rig.rejoin(&ids[1]);
    // The third goes on with heartbeats and does not join.
    for _ in 0..11 {
        rig.pass(5_000);
        assert_eq!(rig.heartbeat(&ids[2]), ErrorCode::RebalanceInProgress);
    }
    assert!(!rig.joins.contains_key(&first));
    rig.pass(5_000);
    assert_eq!(rig.joined(first).generation_id, 2);
    assert_eq!(rig.joined(first).members.len() + rig.joined(second).members.len(), 2);
    assert_eq!(rig.heartbeat(&ids[2]), ErrorCode::UnknownMemberId);
}

#[test]
fn the_leader_changes_when_it_does_not_rejoin() {
    let (mut rig, ids) = Rig::stable(2);
    let newcomer = rig.join_at_once();
    let follower = rig.rejoin(&ids[1]);
    rig.pass(60_000);
    let leader = rig.joined(follower).leader.clone();
    assert_ne!(leader, ids[0]);
    assert_eq!(rig.joined(newcomer).leader, leader);
}

#[test]
fn a_leader_that_rejoins_a_stable_group_rebalances_it() {
    let (mut rig, ids) = Rig::stable(2);
    let leader = rig.rejoin(&ids[0]);
    assert!(!rig.joins.contains_key(&leader));
    assert_eq!(rig.heartbeat(&ids[1]), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_follower_that_rejoins_unchanged_gets_the_generation_it_is_in() {
    let (mut rig, ids) = Rig::stable(2);
    let follower = rig.rejoin(&ids[1]);
    let answer = rig.joined(follower);
    assert_eq!((answer.generation_id, answer.members.len()), (1, 0));
    assert_eq!(rig.group.state(), State::Stable);
}

#[test]
fn a_follower_with_another_subscription_rebalances_the_group() {
    let (mut rig, ids) = Rig::stable(2);
    let changed =
        JoinGroupRequest { protocols: vec![protocol("range", &["other"])], ..request(&ids[1]) };
    rig.join(&changed, 9);
    assert!(rig.is_preparing());
}

#[test]
fn a_member_that_lost_its_join_answer_gets_it_again() {
    let mut rig = Rig::new();
    let first = rig.join_at_once();
    let id = rig.joined(first).member_id.clone();
    let again = rig.rejoin(&id);
    assert_eq!(rig.joined(again), rig.joined(first));
    assert_eq!(rig.group.state(), State::CompletingRebalance);
}

#[test]
fn a_join_that_is_repeated_while_parked_takes_the_place_of_the_first() {
    let (mut rig, ids) = Rig::stable(2);
    let first = rig.rejoin(&ids[0]);
    let second = rig.rejoin(&ids[0]);
    assert_eq!(rig.join_error(first), ErrorCode::RebalanceInProgress);
    rig.rejoin(&ids[1]);
    assert_eq!(rig.joined(second).generation_id, 2);
}

#[test]
fn the_protocol_that_all_support_and_most_prefer_is_chosen() {
    let mut rig =
        Rig::with(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
    let offers = [&["a", "b", "c"][..], &["c", "b"], &["b", "c"], &["b", "c", "z"]];
    let tickets = offers.map(|names| {
        let protocols = names.iter().map(|name| protocol(name, &["topic"])).collect();
        rig.join(&JoinGroupRequest { protocols, ..request("") }, 3)
    });
    rig.pass(10_000);
    for ticket in tickets {
        assert_eq!(rig.joined(ticket).protocol_name.as_deref(), Some("b"));
    }
}

#[test]
fn a_protocol_that_is_offered_twice_counts_once() {
    let mut rig = Rig::new();
    let twice = vec![protocol("range", &["a"]), protocol("range", &["b"])];
    let ticket = rig.join(&JoinGroupRequest { protocols: twice, ..request("") }, 3);
    assert_eq!(rig.joined(ticket).members[0].metadata, subscription(&["a"]));
    let second = rig.join_at_once();
    rig.rejoin(&rig.joined(ticket).member_id.clone());
    assert_eq!(rig.joined(second).protocol_name.as_deref(), Some("range"));
}

#[test]
fn assignments_are_handed_out_only_when_they_are_durable() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    rig.rejoin(&ids[1]);
    let follower = rig.sync_as(&ids[1], &[]);
    let given = [(&*ids[0], "one"), (&*ids[1], "two"), ("stranger", "three")];
    let leader = rig.sync_as(&ids[0], &given);
    assert!(!rig.syncs.contains_key(&leader) && !rig.syncs.contains_key(&follower));
    assert_eq!(rig.group.state(), State::CompletingRebalance);

    let stored = rig.persist(Ok(()));
    assert_eq!(rig.group.state(), State::Stable);
    assert_eq!(rig.syncs[&leader].assignment, "one");
    assert_eq!(rig.syncs[&follower].assignment, "two");
    assert_eq!(rig.syncs[&follower].protocol_name.as_deref(), Some("range"));
    assert_eq!((stored.generation, stored.leader), (2, Some(ids[0].clone())));
    let assignments: BTreeMap<Str, Bytes> =
        stored.members.into_iter().map(|member| (member.id, member.assignment)).collect();
    assert_eq!(assignments[&ids[0]], "one");
    assert_eq!(assignments[&ids[1]], "two");
    assert_eq!(assignments.len(), 2);

    let late = rig.sync_as(&ids[1], &[]);
    assert_eq!(rig.syncs[&late].assignment, "two");
}

#[test]
fn an_assignment_that_cannot_be_stored_is_not_handed_out() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    rig.rejoin(&ids[1]);
    let follower = rig.sync_as(&ids[1], &[]);
    let leader = rig.sync_as(&ids[0], &[(&*ids[1], "two")]);
    rig.persist(Err(ErrorCode::CoordinatorNotAvailable));
    for ticket in [leader, follower] {
        assert_eq!(rig.sync_error(ticket), ErrorCode::CoordinatorNotAvailable);
        assert!(rig.syncs[&ticket].assignment.is_empty());
    }
    assert!(rig.is_preparing());
}

#[test]
fn an_assignment_that_becomes_durable_too_late_is_not_handed_out() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    rig.rejoin(&ids[1]);
    let leader = rig.sync_as(&ids[0], &[]);
    rig.join_at_once();
    assert_eq!(rig.sync_error(leader), ErrorCode::RebalanceInProgress);
    rig.persist(Ok(()));
    assert!(rig.is_preparing());
}

#[test]
fn a_sync_that_is_repeated_while_parked_takes_the_place_of_the_first() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    rig.rejoin(&ids[1]);
    let first = rig.sync_as(&ids[1], &[]);
    let second = rig.sync_as(&ids[1], &[]);
    assert_eq!(rig.sync_error(first), ErrorCode::RebalanceInProgress);
    rig.sync_as(&ids[0], &[]);
    rig.persist(Ok(()));
    assert_eq!(rig.sync_error(second), ErrorCode::None);
}

#[test]
fn syncs_are_checked_against_the_generation_and_the_protocol() {
    let (mut rig, ids) = Rig::stable(1);
    let old = rig.sync(&sync_request(&ids[0], 0, &[]));
    assert_eq!(rig.sync_error(old), ErrorCode::IllegalGeneration);
    let other_type = SyncGroupRequest {
        protocol_type: Some(Str::from("connect")),
        ..sync_request(&ids[0], 1, &[])
    };
    let other_name = SyncGroupRequest {
        protocol_name: Some(Str::from("sticky")),
        ..sync_request(&ids[0], 1, &[])
    };
    for bad in [other_type, other_name] {
        let ticket = rig.sync(&bad);
        assert_eq!(rig.sync_error(ticket), ErrorCode::InconsistentGroupProtocol);
    }
}

#[test]
fn a_sync_during_a_join_phase_is_told_to_rejoin() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    let sync = rig.sync_as(&ids[1], &[]);
    assert_eq!(rig.sync_error(sync), ErrorCode::RebalanceInProgress);
}

#[test]
fn members_that_never_sync_are_dropped() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    rig.rejoin(&ids[1]);
    let leader = rig.sync_as(&ids[0], &[]);
    rig.persist(Ok(()));
    assert_eq!(rig.sync_error(leader), ErrorCode::None);
    for _ in 0..12 {
        assert_eq!(rig.heartbeat(&ids[0]), ErrorCode::None);
        assert_eq!(rig.heartbeat(&ids[1]), ErrorCode::None);
        rig.pass(5_000);
    }
    assert_eq!(rig.heartbeat(&ids[1]), ErrorCode::UnknownMemberId);
    assert_eq!(rig.heartbeat(&ids[0]), ErrorCode::RebalanceInProgress);
}

#[test]
fn members_with_a_parked_sync_need_no_heartbeat() {
    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    rig.rejoin(&ids[1]);
    rig.sync_as(&ids[1], &[]);
    for _ in 0..3 {
        rig.pass(9_000);
        rig.heartbeat(&ids[0]);
    }
    let leader = rig.sync_as(&ids[0], &[]);
    rig.persist(Ok(()));
    assert_eq!(rig.sync_error(leader), ErrorCode::None);
    assert_eq!(rig.heartbeat(&ids[1]), ErrorCode::None);
    // Its session starts anew with the answer.
    rig.pass(9_000);
    assert_eq!(rig.heartbeat(&ids[1]), ErrorCode::None);
}

#[test]
fn version_0_uses_the_session_timeout_for_rebalances() {
    let mut rig = Rig::new();
    let ticket = rig.join(&request(""), 0);
    let id = rig.joined(ticket).member_id.clone();
    assert_eq!(rig.group.roster.get(&id).unwrap().rebalance_timeout_ms, SESSION_MS);
}

#[test]
fn a_loaded_group_goes_on_without_a_rebalance() {
    let (rig, ids) = Rig::stable(2);
    let stored = rig.group.metadata(None);
    let mut loaded = Rig::new();
    loaded.group = Group::load(GroupMetadata::decode(&stored.encode()).unwrap());
    loaded.now = 500_000;
    loaded.drive(|group, cx| group.restart(cx));
    assert_eq!(loaded.group.state(), State::Stable);
    for id in &ids {
        assert_eq!(loaded.heartbeat(id), ErrorCode::None);
    }
    assert_eq!(loaded.group.metadata(None), stored);
    loaded.pass(10_000);
    assert_eq!(loaded.group.state(), State::Empty);
}

#[test]
fn unloading_answers_all_that_is_parked() {
    let (mut rig, ids) = Rig::stable(2);
    let join = rig.rejoin(&ids[0]);
    rig.drive(|group, cx| group.unload(cx, ErrorCode::NotCoordinator));
    assert_eq!(rig.join_error(join), ErrorCode::NotCoordinator);
}
