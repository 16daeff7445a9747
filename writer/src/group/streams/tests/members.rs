//! Joining, being led to a target, leaving, expiring, and what a restart keeps.

use super::*;

fn zero_to(partitions: i32, subtopologies: &[&str]) -> BTreeSet<(Str, i32)> {
    let pairs = |id: &&str| (0..partitions).map(|p| (text(id), p)).collect::<Vec<_>>();
    subtopologies.iter().flat_map(pairs).collect()
}

#[test]
fn the_first_member_gets_all_once_internal_topics_are_there() {
    let mut server = Server::new(&[("in", 3)]);
    let mut client = Client::new("m", "p");
    let beat = server.heartbeat(&mut client).expect("joins");
    assert_eq!(client.epoch, 2);
    assert_eq!(beat.answer.active_tasks, Some(Vec::new()));
    let missing: Vec<_> = beat.missing.iter().map(|t| (&*t.name, t.num_partitions)).collect();
    assert_eq!(missing, [("by-word", 3), ("counts", 3)]);
    assert_eq!(statuses(&beat), [(3, "Internal topics are missing: by-word, counts".to_owned())]);
    assert_eq!(server.group.state(), State::NotReady);
    let beat = server.heartbeat(&mut client).expect("goes on");
    assert_eq!(statuses(&beat), []);
    assert_eq!(client.epoch, 3);
    assert_eq!(client.active_tasks(), zero_to(3, &["0", "1"]));
    assert_eq!(server.group.state(), State::Stable);
    // Nothing is new.
    let beat = server.heartbeat(&mut client).expect("goes on");
    assert_eq!(beat.answer.active_tasks, None);
    assert_eq!((beat.answer.member_epoch, beat.answer.heartbeat_interval_ms), (3, 5_000));
}

#[test]
fn a_task_moves_only_when_it_was_given_up() {
    let mut server = Server::new(&[("in", 2), ("by-word", 2), ("counts", 2)]);
    let mut a = Client::new("a", "p");
    server.heartbeat(&mut a).expect("joins");
    assert_eq!(a.active_tasks().len(), 4);
    let mut b = Client::new("b", "q");
    server.heartbeat(&mut b).expect("joins");
    // All of b's tasks are still with a.
    assert_eq!(b.active_tasks(), BTreeSet::new());
    assert_eq!(server.group.state(), State::Reconciling);
    let before = a.clone();
    server.heartbeat(&mut a).expect("is told to give up two");
    assert_eq!((a.active_tasks().len(), a.epoch), (2, before.epoch));
    server.heartbeat(&mut b).expect("waits");
    assert_eq!(b.active_tasks(), BTreeSet::new());
    // a says again what it had: it has not given up anything.
    server.beat(&before.request()).expect("is heard");
    server.heartbeat(&mut b).expect("waits");
    assert_eq!(b.active_tasks(), BTreeSet::new());
    server.heartbeat(&mut a).expect("has given up");
    assert_eq!(a.epoch, before.epoch + 1);
    server.heartbeat(&mut b).expect("gets them");
    assert_eq!(b.active_tasks().len(), 2);
    assert_eq!(&a.active_tasks() & &b.active_tasks(), BTreeSet::new());
    assert_eq!(server.group.state(), State::Stable);
}

#[test]
fn who_does_not_give_up_in_time_is_out() {
    let mut server = Server::new(&[("in", 2), ("by-word", 2), ("counts", 2)]);
    let mut a = Client::new("a", "p");
    let mut b = Client::new("b", "q");
    server.heartbeat(&mut a).expect("joins");
    server.heartbeat(&mut b).expect("joins");
    let stubborn = a.clone();
    server.beat(&stubborn.request()).expect("is told to give up two");
    for _ in 0..6 {
        server.pass(10_000);
        server.heartbeat(&mut b).expect("waits");
        if let Err(refusal) = server.beat(&stubborn.request()) {
            assert_eq!(refusal.code, ErrorCode::UnknownMemberId);
        }
    }
    assert_eq!(server.describe().members.len(), 1);
    server.heartbeat(&mut b).expect("gets all");
    assert_eq!(b.active_tasks().len(), 4);
}

#[test]
fn sessions_end_and_members_leave() {
    let mut server = Server::new(&[("in", 1), ("by-word", 1), ("counts", 1)]);
    let mut a = Client::new("a", "p");
    let mut b = Client::new("b", "p");
    server.settle(std::slice::from_mut(&mut a));
    server.heartbeat(&mut b).expect("joins");
    server.pass(40_000);
    server.heartbeat(&mut b).expect("is there");
    server.pass(10_000);
    let epoch = server.describe().group_epoch;
    assert_eq!(server.describe().members.len(), 1);
    let refusal = server.heartbeat(&mut a).expect_err("its session has ended");
    assert_eq!(refusal.code, ErrorCode::UnknownMemberId);
    let leaving = request::StreamsGroupHeartbeatRequest { member_epoch: -1, ..b.request() };
    let beat = server.beat(&leaving).expect("leaves");
    assert_eq!((beat.answer.member_epoch, beat.answer.status), (-1, Some(Vec::new())));
    assert_eq!(server.describe().group_epoch, epoch + 1);
    assert_eq!(server.group.state(), State::Empty);
    assert!(server.group.members.is_empty());
    assert_eq!(server.stored.len(), 2, "the group and its topology are left");
    assert_eq!(server.beat(&leaving).expect_err("is gone").code, ErrorCode::UnknownMemberId);
}

#[test]
fn a_restart_keeps_members_epochs_and_tasks() {
    let mut server = Server::new(&[("in", 4)]);
    server.settings.standbys = 1;
    let mut clients = [Client::new("a", "p"), Client::new("b", "q")];
    server.settle(&mut clients);
    let before = server.describe();
    server.crash();
    for client in &mut clients {
        let beat = server.heartbeat(client).expect("is known");
        assert_eq!(beat.answer.active_tasks, None, "no rebalance");
    }
    assert_eq!(server.describe(), before);
    assert_eq!(before.group_state, "Stable");
    // A member that is not heard of after a restart is given up as before.
    server.pass(50_000);
    assert!(server.group.members.is_empty());
}

#[test]
fn a_lost_answer_is_given_again_and_an_older_epoch_is_fenced() {
    let mut server = Server::new(&[("in", 2), ("by-word", 2), ("counts", 2)]);
    let mut a = Client::new("a", "p");
    server.heartbeat(&mut a).expect("joins");
    let long_ago = a.request();
    server.grow_topic("in", 3);
    server.delete_topic("by-word");
    server.delete_topic("counts");
    server.settle(std::slice::from_mut(&mut a));
    assert_eq!(a.active_tasks(), zero_to(3, &["0", "1"]));
    let refusal = server.beat(&long_ago).expect_err("is fenced");
    assert_eq!(refusal.code, ErrorCode::FencedMemberEpoch);
    assert!(said(&refusal).contains("smaller member epoch (2)"), "{refusal:?}");
    // Tasks that were given in a lost answer are given again.
    let forgetful = Client { active: Vec::new(), ..a.clone() };
    let beat = server.beat(&forgetful.request()).expect("is heard");
    assert_eq!(flat(&beat.answer.active_tasks.expect("given again")), a.active_tasks());
    let ahead = Client { epoch: a.epoch + 1, ..a.clone() };
    let refusal = server.beat(&ahead.request()).expect_err("is fenced");
    assert_eq!(refusal.code, ErrorCode::FencedMemberEpoch);
    assert!(said(&refusal).contains("greater member epoch"), "{refusal:?}");
}

#[test]
fn tasks_that_are_not_there_are_refused() {
    let mut server = Server::new(&[("in", 1), ("by-word", 1), ("counts", 1)]);
    let mut a = Client::new("a", "p");
    server.heartbeat(&mut a).expect("joins");
    for (id, partition, text) in [
        ("2", 0, "Subtopology 2 does not exist in the topology."),
        ("0", 1, "Task 1 for subtopology 0 is invalid. Number of tasks for this subtopology: 1"),
        ("0", -1, "Task -1 for subtopology 0 is invalid. Number of tasks for this subtopology: 1"),
    ] {
        let mut request = a.request();
        let list = request::TaskIds { subtopology_id: Str::from(id), partitions: vec![partition] };
        request.active_tasks = Some(vec![list]);
        let refusal = server.beat(&request).expect_err(text);
        assert_eq!((refusal.code, said(&refusal)), (ErrorCode::InvalidRequest, text));
    }
}

#[test]
fn a_full_group_takes_nobody() {
    let mut server = Server::new(&[("in", 1)]);
    server.settings.max_members = 1;
    server.heartbeat(&mut Client::new("a", "p")).expect("joins");
    let refusal = server.heartbeat(&mut Client::new("b", "p")).expect_err("is one too many");
    assert_eq!(refusal.code, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn the_topology_stays_and_who_is_behind_is_told() {
    let mut server = Server::new(&[("in", 1), ("by-word", 1), ("counts", 1)]);
    let mut newer = Client::new("a", "p").request();
    let mut topology = word_count();
    topology.epoch = 2;
    newer.topology = Some(topology.clone());
    server.beat(&newer).expect("joins");
    // The order of subtopologies means nothing.
    topology.subtopologies.reverse();
    newer.topology = Some(topology.clone());
    server.beat(&newer).expect("joins again");
    let older = server.heartbeat(&mut Client::new("b", "q")).expect("is behind");
    let behind = "The member's topology epoch 0 is behind the group's topology epoch 2.";
    assert_eq!(statuses(&older), [(0, behind.to_owned())]);
    topology.subtopologies.remove(0);
    newer.topology = Some(topology);
    let refusal = server.beat(&newer).expect_err("is another topology");
    assert_eq!(said(&refusal), "Topology updates are not supported yet.");
    assert_eq!(refusal.code, ErrorCode::InvalidRequest);
}

#[test]
fn the_initial_delay_gathers_members() {
    let mut server = Server::new(&[("in", 2), ("by-word", 2), ("counts", 2)]);
    server.settings.initial_rebalance_delay_ms = 3_000;
    let (mut a, mut b) = (Client::new("a", "p"), Client::new("b", "q"));
    let beat = server.heartbeat(&mut a).expect("joins");
    let delayed = "Assignment delayed due to the configured initial rebalance delay.";
    assert_eq!(statuses(&beat), [(5, delayed.to_owned())]);
    assert_eq!((a.epoch, a.active_tasks().len()), (1, 0));
    server.pass(1_000);
    server.heartbeat(&mut b).expect("joins");
    assert_eq!(server.group.state(), State::Assigning);
    server.pass(2_000);
    server.heartbeat(&mut a).expect("gets half");
    server.heartbeat(&mut b).expect("gets half");
    assert_eq!((a.active_tasks().len(), b.active_tasks().len()), (2, 2));
    assert_eq!(server.group.state(), State::Stable);
}

#[test]
fn assignments_keep_their_distance() {
    let mut server = Server::new(&[("in", 2), ("by-word", 2), ("counts", 2)]);
    server.settings.assignment_interval_ms = 1_000;
    let (mut a, mut b) = (Client::new("a", "p"), Client::new("b", "q"));
    server.heartbeat(&mut a).expect("joins");
    let beat = server.heartbeat(&mut b).expect("joins");
    let delayed = "Assignment delayed due to the configured assignment interval.";
    assert_eq!(statuses(&beat), [(5, delayed.to_owned())]);
    server.pass(1_000);
    server.settle(&mut [a, b]);
    assert_eq!(server.group.state(), State::Stable);
}

#[test]
fn a_change_of_standbys_makes_a_new_assignment() {
    let mut server = Server::new(&[("in", 2)]);
    let mut clients = [Client::new("a", "p"), Client::new("b", "q")];
    server.settle(&mut clients);
    assert!(clients.iter().all(|client| client.standby_tasks().is_empty()));
    server.settings.standbys = 1;
    server.settle(&mut clients);
    let [a, b] = &clients;
    let stateful = |tasks: BTreeSet<(Str, i32)>| -> BTreeSet<(Str, i32)> {
        tasks.into_iter().filter(|(id, _)| id == "1").collect()
    };
    assert_eq!(a.standby_tasks(), stateful(b.active_tasks()));
    assert_eq!(b.standby_tasks(), stateful(a.active_tasks()));
}

#[test]
fn a_shutdown_is_told_to_all_until_nobody_is_left() {
    let mut server = Server::new(&[("in", 1), ("by-word", 1), ("counts", 1)]);
    let (mut a, mut b) = (Client::new("a", "p"), Client::new("b", "q"));
    server.settle(&mut [a.clone(), b.clone()]);
    server.heartbeat(&mut a).expect("joins again");
    let dying = request::StreamsGroupHeartbeatRequest {
        member_epoch: -1,
        shutdown_application: true,
        ..a.request()
    };
    server.beat(&dying).expect("leaves");
    let beat = server.heartbeat(&mut b).expect("is told");
    let asked = "Streams group member a encountered a fatal error and requested a shutdown for the \
                 entire application.";
    assert_eq!(statuses(&beat), [(4, asked.to_owned())]);
    let leaving = request::StreamsGroupHeartbeatRequest { member_epoch: -1, ..b.request() };
    server.beat(&leaving).expect("leaves");
    let beat = server.heartbeat(&mut Client::new("c", "r")).expect("begins anew");
    assert_eq!(statuses(&beat), []);
}

#[test]
fn endpoints_tell_where_what_is() {
    let mut server = Server::new(&[("in", 2), ("by-word", 2), ("counts", 2)]);
    let mut clients = [Client::new("a", "p"), Client::new("b", "q")];
    clients[0].endpoint = Some(1);
    clients[1].endpoint = Some(2);
    server.settle(&mut clients);
    let asks = Client { endpoint_epoch: -1, ..clients[0].clone() };
    let answer = server.beat(&asks.request()).expect("is heard").answer;
    let mut seen = BTreeSet::new();
    for (client, told) in clients.iter().zip(answer.partitions_by_user_endpoint.expect("told")) {
        assert_eq!(Some(told.user_endpoint.port), client.endpoint);
        for topic in told.active_partitions {
            seen.extend(topic.partitions.into_iter().map(|p| (topic.topic.clone(), p)));
        }
    }
    let all = ["by-word", "in"].iter().flat_map(|topic| [(text(topic), 0), (text(topic), 1)]);
    assert_eq!(seen, all.collect());
    // Who knows is not told again.
    let answer = server.beat(&clients[1].request()).expect("is heard").answer;
    assert_eq!(answer.partitions_by_user_endpoint, None);
}

#[test]
fn what_is_not_supported_or_makes_no_sense_is_refused() {
    let join = Client::new("a", "p").request();
    let regex = {
        let mut topology = word_count();
        topology.subtopologies[0].source_topic_regex = texts(&["x.*"]);
        Some(topology)
    };
    let fixed_changelog = {
        let mut topology = word_count();
        topology.subtopologies[1].state_changelog_topics[0].partitions = 2;
        Some(topology)
    };
    let list = || Some(vec![request::TaskIds::default()]);
    type Change = Box<dyn Fn(&mut request::StreamsGroupHeartbeatRequest)>;
    let cases: Vec<(Change, ErrorCode, &str)> = vec![
        (Box::new(|r| r.instance_id = Some(text("i"))), ErrorCode::InvalidRequest, "Static"),
        (Box::new(|r| r.task_offsets = Some(vec![])), ErrorCode::InvalidRequest, "TaskOffsets"),
        (Box::new(|r| r.task_end_offsets = Some(vec![])), ErrorCode::InvalidRequest, "TaskEnd"),
        (Box::new(move |r| r.warmup_tasks = list()), ErrorCode::InvalidRequest, "Warmup"),
        (Box::new(move |r| r.topology = regex.clone()), ErrorCode::InvalidRequest, "Regular"),
        (Box::new(|r| r.member_id = text("")), ErrorCode::InvalidRequest, "MemberId"),
        (Box::new(|r| r.group_id = text("")), ErrorCode::InvalidRequest, "GroupId"),
        (Box::new(|r| r.rack_id = Some(text(""))), ErrorCode::InvalidRequest, "RackId"),
        (Box::new(|r| r.rebalance_timeout_ms = -1), ErrorCode::InvalidRequest, "RebalanceTimeout"),
        (Box::new(move |r| r.active_tasks = list()), ErrorCode::InvalidRequest, "ActiveTasks"),
        (Box::new(move |r| r.standby_tasks = list()), ErrorCode::InvalidRequest, "StandbyTasks"),
        (Box::new(|r| r.topology = None), ErrorCode::InvalidRequest, "Topology must be"),
        (Box::new(|r| r.member_epoch = -2), ErrorCode::InvalidRequest, "InstanceId can't"),
        (Box::new(|r| r.member_epoch = -3), ErrorCode::InvalidRequest, "MemberEpoch is -3"),
        (Box::new(|r| r.active_tasks = None), ErrorCode::InvalidRequest, "If one task-type"),
        (Box::new(|r| r.member_epoch = 1), ErrorCode::InvalidRequest, "Topology can only"),
        (
            Box::new(move |r| r.topology = fixed_changelog.clone()),
            ErrorCode::StreamsInvalidTopology,
            "Changelog topic counts must have an undefined partition count, but it is set to 2.",
        ),
    ];
    assert_eq!(check_request(&join), Ok(()));
    for (change, code, begins) in cases {
        let mut request = join.clone();
        change(&mut request);
        let refusal = check_request(&request).expect_err(begins);
        assert_eq!(refusal.code, code, "{begins}");
        assert!(said(&refusal).starts_with(begins), "{refusal:?}");
    }
}
