//! Members without an instance id: joining, leaving, being lost.

use super::*;

#[test]
fn a_dynamic_member_is_asked_to_come_back_with_its_id() {
    let mut rig = Rig::new();
    let first = rig.join(&request(""), 4);
    assert_eq!(rig.join_error(first), ErrorCode::MemberIdRequired);
    let id = rig.joined(first).member_id.clone();
    assert!(id.starts_with("client-"));
    assert_eq!(id.len(), "client-".len() + 36);
    assert!(!rig.group.is_vacant());

    let second = rig.rejoin(&id);
    let answer = rig.joined(second);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    assert_eq!((&answer.member_id, &answer.leader), (&id, &id));
    assert_eq!(answer.members.len(), 1);
    assert_eq!(answer.protocol_type.as_deref(), Some("consumer"));
    assert_eq!(answer.protocol_name.as_deref(), Some("range"));
}

#[test]
fn a_member_id_that_never_joins_ends_with_its_session() {
    let mut rig = Rig::new();
    rig.join(&request(""), 4);
    rig.pass(9_999);
    assert!(!rig.group.is_vacant());
    rig.pass(1);
    assert!(rig.group.is_vacant());
    assert_eq!(rig.group.wake(), None);
}

#[test]
fn a_pending_member_holds_up_the_others_until_it_ends() {
    let (mut rig, ids) = Rig::stable(1);
    rig.join(&request(""), 4);
    let leader = rig.rejoin(&ids[0]);
    assert!(!rig.joins.contains_key(&leader));
    rig.pass(10_000);
    assert_eq!(rig.joined(leader).generation_id, 2);
}

#[test]
fn long_client_ids_are_cut_in_member_ids() {
    let mut rig = Rig::new();
    let ticket = Ticket(99);
    let client_id = "ä".repeat(10_000);
    rig.drive(|group, cx| {
        let event = JoinEvent {
            request: &request(""),
            version: 4,
            client_id: &client_id,
            client_host: "",
            random: [0; 16],
            ticket,
        };
        group.join(cx, &event);
    });
    assert_eq!(rig.joined(ticket).member_id.len(), 254 + 37);
}

#[test]
fn unknown_member_id_is_refused() {
    let (mut rig, _) = Rig::stable(1);
    let join = rig.rejoin("stranger");
    assert_eq!(rig.join_error(join), ErrorCode::UnknownMemberId);
    let sync = rig.sync_as("stranger", &[]);
    assert_eq!(rig.sync_error(sync), ErrorCode::UnknownMemberId);
    assert_eq!(rig.heartbeat("stranger"), ErrorCode::UnknownMemberId);
    assert_eq!(rig.leave("stranger", None), ErrorCode::UnknownMemberId);
    assert_eq!(rig.group.state(), State::Stable);
}

#[test]
fn a_known_id_cannot_join_an_empty_group() {
    let mut rig = Rig::new();
    let ticket = rig.rejoin("from-before");
    assert_eq!(rig.join_error(ticket), ErrorCode::UnknownMemberId);
}

#[test]
fn inconsistent_protocols_are_refused() {
    let mut rig = Rig::new();
    let no_type = JoinGroupRequest { protocol_type: Str::default(), ..request("") };
    let no_protocols = JoinGroupRequest { protocols: Vec::new(), ..request("") };
    for bad in [no_type, no_protocols] {
        let ticket = rig.join(&bad, 9);
        assert_eq!(rig.join_error(ticket), ErrorCode::InconsistentGroupProtocol);
    }
    let (mut rig, ids) = Rig::stable(1);
    let other_type = JoinGroupRequest { protocol_type: Str::from("connect"), ..request("") };
    let other_name =
        JoinGroupRequest { protocols: vec![protocol("sticky", &[])], ..request(&ids[0]) };
    for bad in [other_type, other_name] {
        let ticket = rig.join(&bad, 9);
        assert_eq!(rig.join_error(ticket), ErrorCode::InconsistentGroupProtocol);
    }
    assert_eq!(rig.group.state(), State::Stable);
}

#[test]
fn the_group_takes_no_more_than_its_max_size() {
    let (mut rig, ids) = Rig::stable(2);
    rig.config.max_group_size = 2;
    let third = rig.join_at_once();
    assert_eq!(rig.join_error(third), ErrorCode::GroupMaxSizeReached);
    assert_eq!(rig.joined(third).member_id, "");
    assert_eq!(rig.group.state(), State::Stable);
    assert_eq!(rig.heartbeat(&ids[0]), ErrorCode::None);
}

#[test]
fn ids_that_are_handed_out_are_bounded_too() {
    let mut rig = Rig::new();
    rig.config.max_group_size = 2;
    let tickets: Vec<Ticket> = (0..3).map(|_| rig.join(&request(""), 4)).collect();
    assert_eq!(rig.join_error(tickets[1]), ErrorCode::MemberIdRequired);
    assert_eq!(rig.join_error(tickets[2]), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn a_group_over_a_lowered_limit_turns_away_the_last_to_rejoin() {
    let (rig, ids) = Rig::stable(3);
    let stored = rig.group.metadata(None);
    let mut rig = Rig::new();
    rig.config.max_group_size = 2;
    rig.group = Group::load(stored);
    rig.drive(|group, cx| group.restart(cx));
    assert!(rig.is_preparing());
    let tickets: Vec<Ticket> = ids.iter().map(|id| rig.rejoin(id)).collect();
    assert_eq!(rig.join_error(tickets[2]), ErrorCode::GroupMaxSizeReached);
    assert_eq!(rig.joined(tickets[0]).error_code, 0);
    assert_eq!(rig.group.roster.len(), 2);
}

#[test]
fn session_expiry_removes_a_member_and_rebalances() {
    let (mut rig, ids) = Rig::stable(2);
    rig.pass(6_000);
    assert_eq!(rig.heartbeat(&ids[0]), ErrorCode::None);
    rig.pass(6_000);
    assert_eq!(rig.heartbeat(&ids[1]), ErrorCode::UnknownMemberId);
    assert_eq!(rig.heartbeat(&ids[0]), ErrorCode::RebalanceInProgress);
    let ticket = rig.rejoin(&ids[0]);
    assert_eq!(rig.joined(ticket).generation_id, 2);
    assert_eq!(rig.joined(ticket).members.len(), 1);
}

#[test]
fn when_all_sessions_end_the_group_is_empty_and_says_so() {
    let (mut rig, _) = Rig::stable(2);
    rig.pass(100_000);
    assert_eq!(rig.group.state(), State::Empty);
    assert_eq!(rig.group.wake(), None);
    let stored = rig.persist(Ok(()));
    assert_eq!((stored.generation, stored.members.len()), (2, 0));
    assert_eq!((stored.leader, stored.protocol), (None, None));
    assert_eq!(stored.protocol_type.as_deref(), Some("consumer"));
}

#[test]
fn a_new_member_whose_client_is_gone_ends_after_the_join_timeout() {
    let (mut rig, ids) = Rig::stable(1);
    rig.config.new_member_join_timeout_ms = 20_000;
    let lost = rig.join_at_once();
    for _ in 0..4 {
        rig.pass(5_000);
        rig.heartbeat(&ids[0]);
    }
    assert_eq!(rig.join_error(lost), ErrorCode::UnknownMemberId);
    let ticket = rig.rejoin(&ids[0]);
    assert_eq!(rig.joined(ticket).members.len(), 1);
}

#[test]
fn leaving_rebalances_the_others() {
    let (mut rig, ids) = Rig::stable(3);
    assert_eq!(rig.leave(&ids[0], None), ErrorCode::None);
    assert!(rig.is_preparing());
    let second = rig.rejoin(&ids[1]);
    let third = rig.rejoin(&ids[2]);
    let leader = rig.joined(second).leader.clone();
    assert!(ids[1..].contains(&leader));
    assert_eq!(rig.joined(second).members.len() + rig.joined(third).members.len(), 2);
}

#[test]
fn the_last_to_leave_empties_the_group() {
    let (mut rig, ids) = Rig::stable(1);
    assert_eq!(rig.leave(&ids[0], None), ErrorCode::None);
    assert_eq!(rig.group.state(), State::Empty);
    assert!(matches!(rig.stored[..], [(_, Persist::Empty)]));
}

#[test]
fn leaving_answers_what_the_member_had_parked() {
    let (mut rig, ids) = Rig::stable(2);
    let join = rig.rejoin(&ids[0]);
    assert_eq!(rig.leave(&ids[0], None), ErrorCode::None);
    assert_eq!(rig.join_error(join), ErrorCode::UnknownMemberId);

    let (mut rig, ids) = Rig::stable(2);
    rig.rejoin(&ids[0]);
    rig.rejoin(&ids[1]);
    let sync = rig.sync_as(&ids[1], &[]);
    assert_eq!(rig.leave(&ids[1], None), ErrorCode::None);
    assert_eq!(rig.sync_error(sync), ErrorCode::UnknownMemberId);
}

#[test]
fn a_pending_member_may_leave_without_a_rebalance() {
    let (mut rig, _) = Rig::stable(1);
    let ticket = rig.join(&request(""), 4);
    let id = rig.joined(ticket).member_id.clone();
    assert_eq!(rig.leave(&id, None), ErrorCode::None);
    assert_eq!(rig.group.state(), State::Stable);
    assert_eq!(rig.leave(&id, None), ErrorCode::UnknownMemberId);
}

#[test]
fn a_batch_of_leavers_gets_a_code_each() {
    let (mut rig, ids) = Rig::stable(2);
    let leaving = [ids[0].as_str(), "stranger", ids[1].as_str()]
        .map(|member_id| Leaving { member_id, instance: None });
    let codes = rig.drive(|group, cx| group.leave(cx, &leaving));
    assert_eq!(codes, [ErrorCode::None, ErrorCode::UnknownMemberId, ErrorCode::None]);
    assert_eq!(rig.group.state(), State::Empty);
}

#[test]
fn heartbeats_are_checked_against_the_generation() {
    let (mut rig, ids) = Rig::stable(1);
    let code = rig.drive(|group, cx| group.heartbeat(cx, &ids[0], None, 7));
    assert_eq!(code, ErrorCode::IllegalGeneration);
    assert_eq!(rig.heartbeat(&ids[0]), ErrorCode::None);
}

#[test]
fn heartbeats_alone_keep_a_group_stable() {
    let (mut rig, ids) = Rig::stable(2);
    for _ in 0..100 {
        rig.pass(9_000);
        for id in &ids {
            assert_eq!(rig.heartbeat(id), ErrorCode::None);
        }
    }
    assert_eq!(rig.group.generation, 1);
}
