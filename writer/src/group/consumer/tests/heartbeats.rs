//! Joining, reconciling, leaving, expiring, and the codes of what is refused.

use super::*;

fn with_regex(id: &str, epoch: i32, regex: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some(Str::from(regex)),
        ..quiet(id, epoch)
    }
}

#[test]
fn the_first_member_gets_all_at_once() {
    let mut rig = Rig::new();
    let answer = rig.join("m1", &["a"]);
    assert_eq!((answer.member_epoch, answer.heartbeat_interval_ms), (1, 5_000));
    assert_eq!(given(&answer), Some(vec![(A, 0), (A, 1), (A, 2), (A, 3)]));
    assert_eq!((rig.group.state_name(), rig.state("m1")), ("Stable", MemberState::Stable));
    // Nothing new: nothing is said or logged.
    let answer = rig.beat(&quiet("m1", 1)).unwrap();
    assert_eq!((answer.assignment, rig.logged), (None, 0));
}

#[test]
fn a_partition_changes_hands_only_when_it_was_given_back() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    let second = rig.join("m2", &["a"]);
    assert_eq!((second.member_epoch, given(&second)), (2, Some(vec![])));
    assert_eq!(rig.state("m2"), MemberState::Unreleased);
    assert_eq!(rig.group.state_name(), "Reconciling");
    // The first is told what it keeps, at its old epoch.
    let first = rig.beat(&quiet("m1", 1)).unwrap();
    assert_eq!((first.member_epoch, given(&first)), (1, Some(vec![(A, 0), (A, 1)])));
    assert_eq!(rig.state("m1"), MemberState::Unrevoked);
    // As long as it has not given back, nobody gets anything.
    rig.beat(&quiet("m1", 1)).unwrap();
    assert_eq!(given(&rig.beat(&quiet("m2", 2)).unwrap()), None);
    let all = [(A, 0), (A, 1), (A, 2), (A, 3)];
    assert_eq!(rig.beat(&keep("m1", 1, &all)).unwrap().member_epoch, 1);
    // It has.
    let first = rig.beat(&keep("m1", 1, &all[..2])).unwrap();
    assert_eq!((first.member_epoch, rig.state("m1")), (2, MemberState::Stable));
    let second = rig.beat(&quiet("m2", 2)).unwrap();
    assert_eq!(given(&second), Some(vec![(A, 2), (A, 3)]));
    assert_eq!(rig.group.state_name(), "Stable");
}

#[test]
fn a_member_that_leaves_is_forgotten_and_its_partitions_go_to_others() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    rig.join("m2", &["a"]);
    rig.settle(&["m1", "m2"]);
    let answer = rig.beat(&quiet("m1", LEAVE)).unwrap();
    assert_eq!((answer.member_epoch, answer.assignment), (-1, None));
    rig.settle(&["m2"]);
    assert_eq!(rig.assigned("m2").len(), 4);
    rig.beat(&quiet("m2", LEAVE)).unwrap();
    assert!(rig.group.is_vacant() && rig.group.holders.is_empty());
    assert_eq!(rig.group.state_name(), "Empty");
    assert_eq!(rig.parts().len(), 1, "only the group is left");
}

#[test]
fn a_silent_member_is_fenced_after_its_session() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    rig.now = 44_999;
    rig.beat(&quiet("m1", 1)).unwrap();
    assert!(rig.group.wake().unwrap() <= Tick(89_999));
    rig.pass(44_999);
    assert_eq!(rig.group.wake(), Some(Tick(89_999)));
    assert!(!rig.group.is_vacant());
    rig.pass(1);
    assert!(rig.group.is_vacant());
    assert_eq!(rig.refused(&quiet("m1", 1)), ErrorCode::UnknownMemberId);
}

#[test]
fn who_does_not_give_back_in_time_is_fenced() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    rig.join("m2", &["a"]);
    rig.beat(&quiet("m1", 1)).unwrap();
    for _ in 0..2 {
        rig.pass(29_999);
        rig.beat(&quiet("m1", 1)).unwrap();
        rig.beat(&quiet("m2", rig.epoch("m2"))).unwrap();
    }
    rig.pass(2);
    assert!(!rig.group.members.contains_key("m1"));
    rig.settle(&["m2"]);
    assert_eq!(rig.assigned("m2").len(), 4);
}

#[test]
fn epochs_fence() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    rig.join("m2", &["a"]);
    rig.settle(&["m1", "m2"]);
    rig.join("m3", &["a"]);
    rig.settle(&["m1", "m2", "m3"]);
    let epoch = rig.epoch("m1");
    assert_eq!(rig.refused(&quiet("m1", epoch + 1)), ErrorCode::FencedMemberEpoch);
    assert_eq!(rig.refused(&quiet("m1", epoch - 2)), ErrorCode::FencedMemberEpoch);
    assert_eq!(rig.refused(&quiet("m4", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(rig.refused(&quiet("m4", LEAVE)), ErrorCode::UnknownMemberId);
    // The answer with the new epoch was lost.
    let previous = rig.group.members["m1"].current.previous_epoch;
    if previous != epoch {
        rig.beat(&keep("m1", previous, &rig.assigned("m1"))).unwrap();
        assert_eq!(rig.refused(&keep("m1", previous, &[(B, 0)])), ErrorCode::FencedMemberEpoch);
        assert_eq!(rig.refused(&quiet("m1", previous)), ErrorCode::FencedMemberEpoch);
    }
    // Epoch 0 joins again, with what the member has.
    let again = rig.join("m1", &["a"]);
    assert_eq!(given(&again), Some(rig.assigned("m1")));
}

#[test]
fn a_joins_lost_answer_is_repeated() {
    let mut rig = Rig::new();
    let first = rig.join("m1", &["a"]);
    let epoch = rig.group.epoch;
    assert_eq!(rig.join("m1", &["a"]), first);
    assert_eq!(rig.group.epoch, epoch);
}

#[test]
fn requests_that_say_too_little_are_refused() {
    let mut rig = Rig::new();
    let invalid = ErrorCode::InvalidRequest;
    let bad = [
        ConsumerGroupHeartbeatRequest { member_id: Str::default(), ..join("m", &["a"]) },
        ConsumerGroupHeartbeatRequest { group_id: Str::default(), ..join("m", &["a"]) },
        ConsumerGroupHeartbeatRequest { instance_id: Some(Str::default()), ..join("m", &["a"]) },
        ConsumerGroupHeartbeatRequest { rack_id: Some(Str::default()), ..join("m", &["a"]) },
        ConsumerGroupHeartbeatRequest { rebalance_timeout_ms: -1, ..join("m", &["a"]) },
        ConsumerGroupHeartbeatRequest { topic_partitions: None, ..join("m", &["a"]) },
        ConsumerGroupHeartbeatRequest { subscribed_topic_names: None, ..join("m", &["a"]) },
        quiet("m", LEFT_FOR_NOW),
        quiet("m", -3),
    ];
    for request in bad {
        assert_eq!(rig.refused(&request), invalid, "{request:?}");
    }
    let odd = Some(Str::from_static("odd"));
    let request = ConsumerGroupHeartbeatRequest { server_assignor: odd, ..join("m", &["a"]) };
    assert_eq!(rig.refused(&request), ErrorCode::UnsupportedAssignor);
    // Before version 1 the server gives out ids.
    assert!(
        check(0, &ConsumerGroupHeartbeatRequest { member_id: Str::default(), ..join("m", &["a"]) })
            .is_ok()
    );
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut rig = Rig::new();
    rig.config.consumer_max_group_size = 1;
    rig.join("m1", &["a"]);
    assert_eq!(rig.refused(&join("m2", &["a"])), ErrorCode::GroupMaxSizeReached);
    rig.join("m1", &["a", "b"]);
    rig.config.max_subscription_bytes = 10;
    assert_eq!(rig.refused(&join("m1", &["a-long-name"])), ErrorCode::InvalidRequest);
}

#[test]
fn another_subscription_is_another_assignment() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    let request = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(vec![Str::from_static("b")]),
        ..quiet("m1", 1)
    };
    // What is not subscribed to any more is to be given back first.
    let answer = rig.beat(&request).unwrap();
    assert_eq!((answer.member_epoch, given(&answer)), (1, Some(vec![])));
    let answer = rig.beat(&keep("m1", 1, &[])).unwrap();
    assert_eq!((answer.member_epoch, given(&answer)), (2, Some(vec![(B, 0), (B, 1)])));
    assert!(rig.group.is_subscribed("b") && !rig.group.is_subscribed("a"));
}

#[test]
fn topics_that_come_grow_and_go_are_noticed() {
    let mut rig = Rig::new();
    rig.join("m1", &["a", "later"]);
    assert_eq!(rig.assigned("m1").len(), 4);
    rig.topics.set(TENANT, "a", A, 5);
    assert_eq!(given(&rig.beat(&quiet("m1", 1)).unwrap()).map(|all| all.len()), Some(5));
    rig.topics.set(TENANT, "later", TopicId([9; 16]), 1);
    assert_eq!(given(&rig.beat(&quiet("m1", 2)).unwrap()).map(|all| all.len()), Some(6));
    rig.topics.remove(TENANT, "a");
    rig.beat(&quiet("m1", 3)).unwrap();
    rig.settle(&["m1"]);
    assert_eq!(rig.assigned("m1"), [(TopicId([9; 16]), 0)]);
    // What nobody subscribes to changes nothing.
    let epoch = rig.group.epoch;
    rig.topics.set(TENANT, "b", B, 7);
    rig.settle(&["m1"]);
    assert_eq!(rig.group.epoch, epoch);
}

#[test]
fn expressions_follow_the_topics() {
    let mut rig = Rig::new();
    let request = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some(Str::from_static("[ac].*")),
        ..join("m1", &[])
    };
    let answer = rig.beat(&request).unwrap();
    assert_eq!(given(&answer).unwrap().len(), 4);
    assert!(rig.group.is_subscribed("a") && !rig.group.is_subscribed("b"));
    rig.topics.set(TENANT, "c1", TopicId([9; 16]), 1);
    // Another tenant's name is nobody's.
    rig.topics.set(TenantId(2), "c2", TopicId([8; 16]), 1);
    rig.now += 1_000;
    assert_eq!(given(&rig.beat(&quiet("m1", 1)).unwrap()).unwrap().len(), 5);
    let code = rig.refused(&with_regex("m1", 2, "("));
    assert_eq!(code, ErrorCode::InvalidRegularExpression);
    let answer = rig.beat(&with_regex("m1", 2, "")).unwrap();
    assert_eq!(given(&answer), Some(vec![]));
    assert!(!rig.group.is_subscribed("a"));
}

#[test]
fn targets_are_computed_at_most_once_an_interval() {
    let mut rig = Rig::new();
    rig.topics.configure(|s| s.consumer.assignment_interval_ms = 1_000);
    rig.join("m1", &["a"]);
    let second = rig.join("m2", &["a"]);
    assert_eq!((second.member_epoch, given(&second)), (1, Some(vec![])));
    assert_eq!((rig.group.epoch, rig.group.assignment_epoch), (2, 1));
    assert_eq!(rig.group.state_name(), "Assigning");
    assert!(rig.group.wake().is_some_and(|at| at <= Tick(1_000)));
    rig.pass(1_000);
    assert_eq!(rig.group.assignment_epoch, 2);
    rig.settle(&["m1", "m2"]);
    assert_eq!((rig.assigned("m1").len(), rig.assigned("m2").len()), (2, 2));
}

#[test]
fn what_is_not_subscribed_to_any_more_goes_before_there_is_a_new_target() {
    let mut rig = Rig::new();
    rig.join("m1", &["a", "b"]);
    rig.topics.configure(|s| s.consumer.assignment_interval_ms = 1_000);
    let request = ConsumerGroupHeartbeatRequest {
        subscribed_topic_names: Some(vec![Str::from_static("b")]),
        ..quiet("m1", 1)
    };
    assert_eq!(given(&rig.beat(&request).unwrap()), Some(vec![(B, 0), (B, 1)]));
    assert_eq!(rig.state("m1"), MemberState::Unrevoked);
    let answer = rig.beat(&keep("m1", 1, &[(B, 0), (B, 1)])).unwrap();
    assert_eq!((answer.member_epoch, rig.state("m1")), (1, MemberState::Stable));
    rig.pass(1_000);
    rig.settle(&["m1"]);
    assert_eq!((rig.epoch("m1"), rig.assigned("m1")), (2, vec![(B, 0), (B, 1)]));
}

#[test]
fn members_go_on_after_a_restart_as_if_nothing_had_been() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    rig.join("m2", &["a"]);
    rig.settle(&["m1", "m2"]);
    let (epoch, parts) = (rig.group.epoch, rig.parts());
    rig.restart();
    for id in ["m1", "m2"] {
        let answer = rig.beat(&quiet(id, rig.epoch(id))).unwrap();
        assert_eq!((answer.assignment, rig.logged), (None, 0));
    }
    assert_eq!((rig.group.epoch, rig.parts()), (epoch, parts));
    // Sessions began anew.
    rig.pass(44_999);
    assert_eq!(rig.group.members.len(), 2);
    rig.pass(1);
    assert!(rig.group.is_vacant());
}

#[test]
fn topics_that_grew_while_nobody_looked_are_noticed() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    rig.topics.set(TENANT, "a", A, 6);
    rig.restart();
    assert_eq!(given(&rig.beat(&quiet("m1", 1)).unwrap()).map(|all| all.len()), Some(6));
}

#[test]
fn commits_follow_member_epochs() {
    let mut rig = Rig::new();
    let commit = |rig: &Rig, member_id, epoch, version, partition| {
        rig.group.check_commit(&mut Commit {
            member_id,
            instance: None,
            epoch,
            version,
            partitions: &mut std::iter::once((A, partition)),
        })
    };
    assert_eq!(commit(&rig, "", -1, Some(10), 0), Ok(()), "nobody is in");
    rig.join("m1", &["a"]);
    rig.join("m2", &["a"]);
    rig.settle(&["m1", "m2"]);
    assert_eq!((rig.epoch("m1"), rig.epoch("m2")), (2, 2));
    let m1 = rig.assigned("m1")[0].1;
    let m2 = rig.assigned("m2")[0].1;
    assert_eq!(commit(&rig, "m1", 2, Some(9), m1), Ok(()));
    assert_eq!(commit(&rig, "m1", 2, Some(8), m1), Err(ErrorCode::UnsupportedVersion));
    assert_eq!(commit(&rig, "m1", 2, None, m1), Ok(()));
    assert_eq!(commit(&rig, "m1", 3, Some(9), m1), Err(ErrorCode::StaleMemberEpoch));
    // An older epoch will do for what the member has held since then.
    assert_eq!(commit(&rig, "m1", 1, Some(9), m1), Ok(()));
    assert_eq!(commit(&rig, "m1", 1, Some(9), m2), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(commit(&rig, "m2", 1, Some(9), m2), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(commit(&rig, "m3", 1, Some(9), m1), Err(ErrorCode::UnknownMemberId));
    assert_eq!(commit(&rig, "", -1, Some(9), m1), Err(ErrorCode::UnknownMemberId));
    assert_eq!(commit(&rig, "", -1, None, m1), Ok(()), "a producer without a group's metadata");
    let fetch = |member, epoch| rig.group.check_fetch(member, epoch);
    assert_eq!(fetch(None, -1), Ok(()));
    assert_eq!(fetch(Some("m1"), 2), Ok(()));
    assert_eq!(fetch(Some("m1"), 1), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(fetch(Some("m3"), 1), Err(ErrorCode::UnknownMemberId));
}
