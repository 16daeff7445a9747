//! Consumer groups through the coordinator: durable before they are answered, one space of ids with
//! classic groups, each tenant's own.

use sluice_wire::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use sluice_wire::messages::delete_groups_request::DeleteGroupsRequest;
use sluice_wire::messages::describe_groups_request::DescribeGroupsRequest;
use sluice_wire::messages::list_groups_request::ListGroupsRequest;

use super::*;

fn beat(member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    let joins = epoch == 0;
    ConsumerGroupHeartbeatRequest {
        group_id: Str::from_static("g"),
        member_id: Str::from(member),
        member_epoch: epoch,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        subscribed_topic_names: joins.then(|| vec![Str::from_static("topic")]),
        topic_partitions: joins.then(Vec::new),
        ..Default::default()
    }
}

impl Rig {
    async fn consumer_beat(
        &self,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        self.groups.consumer_group_heartbeat(&caller(), 1, request).await
    }

    async fn beat_code(&self, member: &str, epoch: i32) -> ErrorCode {
        ErrorCode::from_code(self.consumer_beat(beat(member, epoch)).await.error_code)
    }

    async fn describe_consumers(&self, caller: &GroupCaller) -> (i16, String, Vec<String>) {
        let group_ids = vec![Str::from_static("g")];
        let request = ConsumerGroupDescribeRequest { group_ids, ..Default::default() };
        let mut answer = self.groups.consumer_group_describe(caller, request).await;
        let group = answer.groups.remove(0);
        let members = group.members.iter().map(|member| member.member_id.to_string());
        (group.error_code, group.group_state.to_string(), members.collect())
    }

    async fn types(&self, caller: &GroupCaller) -> Vec<(String, String)> {
        let answer = self.groups.list_groups(caller, ListGroupsRequest::default()).await;
        let types = answer.groups.iter();
        types.map(|group| (group.group_id.to_string(), group.group_type.to_string())).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_is_told_only_what_is_durable() {
    let rig = Rig::new();
    rig.log.stall();
    let groups = Arc::clone(&rig.groups);
    let joining =
        tokio::spawn(
            async move { groups.consumer_group_heartbeat(&caller(), 1, beat("m1", 0)).await },
        );
    pass(Duration::from_secs(1)).await;
    // Asked again, the machine knows; what it says is not durable either.
    let groups = Arc::clone(&rig.groups);
    let again =
        tokio::spawn(
            async move { groups.consumer_group_heartbeat(&caller(), 1, beat("m1", 0)).await },
        );
    pass(Duration::from_secs(1)).await;
    assert!(!joining.is_finished() && !again.is_finished());
    rig.log.resume();
    let (first, second) = (joining.await.unwrap(), again.await.unwrap());
    assert_eq!((first.member_epoch, &first), (1, &second));
    assert_eq!(first.assignment.unwrap().topic_partitions[0].partitions, [0, 1, 2, 3]);
    // A heartbeat that changes nothing waits for nothing.
    rig.log.stall();
    assert_eq!(rig.beat_code("m1", 1).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn members_keep_their_epochs_through_a_restart() {
    let rig = Rig::new();
    assert_eq!(rig.consumer_beat(beat("m1", 0)).await.member_epoch, 1);
    let before = rig.snapshot();
    let rig = rig.restarted();
    assert_eq!(rig.snapshot(), before);
    let answer = rig.consumer_beat(beat("m1", 1)).await;
    assert_eq!((answer.error_code, answer.member_epoch, answer.assignment), (0, 1, None));
    assert_eq!(rig.snapshot(), before, "nothing was logged");
    pass(Duration::from_secs(46)).await;
    assert_eq!(rig.beat_code("m1", 1).await, ErrorCode::UnknownMemberId);
    assert_eq!(rig.describe_consumers(&caller()).await.1, "Empty");
}

#[tokio::test(start_paused = true)]
async fn what_the_log_does_not_take_has_not_happened() {
    let rig = Rig::new();
    rig.consumer_beat(beat("m1", 0)).await;
    let before = rig.snapshot();
    rig.log.fail(Some(LogError::Unavailable));
    assert_eq!(rig.beat_code("m2", 0).await, ErrorCode::CoordinatorNotAvailable);
    // The machine knew more than the log: it is not asked until the log is sound.
    assert_eq!(rig.beat_code("m1", 1).await, ErrorCode::CoordinatorLoadInProgress);
    pass(Duration::from_secs(2)).await;
    assert_eq!(rig.beat_code("m1", 1).await, ErrorCode::CoordinatorLoadInProgress);
    rig.log.fail(None);
    pass(Duration::from_secs(2)).await;
    assert_eq!(
        rig.describe_consumers(&caller()).await,
        (0, "Stable".to_owned(), vec!["m1".to_owned()])
    );
    assert_eq!(rig.beat_code("m1", 1).await, ErrorCode::None);
    assert_eq!(rig.snapshot(), before);
    assert_eq!(rig.beat_code("m2", 0).await, ErrorCode::None);
}

#[tokio::test(start_paused = true)]
async fn what_was_built_on_a_lost_write_is_not_written() {
    let rig = Rig::new();
    rig.consumer_beat(beat("m1", 0)).await;
    rig.log.stall();
    rig.log.fail(Some(LogError::Unavailable));
    let send = |member: &'static str| {
        let groups = Arc::clone(&rig.groups);
        tokio::spawn(async move {
            groups.consumer_group_heartbeat(&caller(), 1, beat(member, 0)).await.error_code
        })
    };
    let second = send("m2");
    pass(Duration::from_millis(10)).await;
    let third = send("m3");
    pass(Duration::from_millis(10)).await;
    // The first append fails, and from then on the log works.
    rig.log.turns.add_permits(1);
    pass(Duration::from_millis(10)).await;
    rig.log.fail(None);
    rig.log.resume();
    let unavailable = ErrorCode::CoordinatorNotAvailable.code();
    assert_eq!((second.await.unwrap(), third.await.unwrap()), (unavailable, unavailable));
    pass(Duration::from_secs(2)).await;
    assert_eq!(rig.describe_consumers(&caller()).await.2, ["m1"]);
    let live = rig.snapshot();
    assert_eq!(rig.restarted().snapshot(), live);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_of_one_kind_at_a_time() {
    let rig = Rig::new();
    rig.consumer_beat(beat("m1", 0)).await;
    rig.commit("offsets", 0, 1).await;
    let kinds = [("g", "consumer"), ("offsets", "classic")].map(|(g, k)| (g.into(), k.into()));
    assert_eq!(rig.types(&caller()).await, kinds);
    let request =
        DescribeGroupsRequest { groups: vec![Str::from_static("g")], ..Default::default() };
    let answer = rig.groups.describe_groups(&caller(), 6, request).await;
    assert_eq!(answer.groups[0].error_code, ErrorCode::GroupIdNotFound.code());
    let message = answer.groups[0].error_message.as_deref();
    assert_eq!(message, Some("Group g is not a classic group."));
    let names = vec![Str::from_static("g")];
    let delete = || DeleteGroupsRequest { groups_names: names.clone() };
    let refused = rig.groups.delete_groups(&caller(), delete()).await;
    assert_eq!(refused.results[0].error_code, ErrorCode::NonEmptyGroup.code());
    // Empty, it may become classic, keeps its offsets, and may become one of consumers again.
    rig.consumer_beat(beat("m1", -1)).await;
    rig.commit("g", 0, 7).await;
    rig.stable("g").await;
    assert_eq!(rig.types(&caller()).await[0].1, "classic");
    assert_eq!(rig.offset("g").await, 7);
    let live = rig.snapshot();
    assert_eq!(rig.restarted().snapshot(), live);
    let refused = rig.beat_code("m1", 5).await;
    assert_eq!(refused, ErrorCode::GroupIdNotFound);
    pass(Duration::from_secs(11)).await;
    assert_eq!(rig.beat_code("m1", 0).await, ErrorCode::None);
    assert_eq!((rig.types(&caller()).await[0].1.as_str(), rig.offset("g").await), ("consumer", 7));
    rig.consumer_beat(beat("m1", -1)).await;
    let done = rig.groups.delete_groups(&caller(), delete()).await;
    assert_eq!(done.results[0].error_code, 0);
    assert_eq!((rig.describe_consumers(&caller()).await.0, rig.offset("g").await), (69, -1));
    assert_eq!(rig.beat_code("m1", 1).await, ErrorCode::GroupIdNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_classic_group_changes_over_and_back() {
    let rig = Rig::new();
    let joined = rig.join_twice("g").await;
    // Partition 0 of `topic`, as consumers write it.
    let assigned = "\0\0\0\0\0\x01\0\x05topic\0\0\0\x01\0\0\0\0";
    assert_eq!(rig.sync("g", &joined, &[(&joined.member_id, assigned)]).await.error_code, 0);
    // Somebody waits in the join phase: it is told to join again, in the group that it is now.
    let groups = Arc::clone(&rig.groups);
    let parked = tokio::spawn(async move {
        let first = groups.join_group(&caller(), 9, join_request("g", "")).await;
        groups.join_group(&caller(), 9, join_request("g", &first.member_id)).await
    });
    pass(Duration::from_millis(100)).await;
    assert_eq!(rig.beat_code("m1", 0).await, ErrorCode::None);
    assert_eq!(parked.await.unwrap().error_code, ErrorCode::RebalanceInProgress.code());
    assert_eq!(rig.types(&caller()).await[0].1, "consumer");
    assert_eq!(rig.heartbeat("g", &joined).await, ErrorCode::RebalanceInProgress);
    let again = rig.join("g", &joined.member_id).await;
    assert_eq!((again.error_code, again.protocol_name), (0, Some("range".into())));
    // A restart in between changes nothing; then the last that speaks the new protocol goes.
    let live = rig.snapshot();
    let rig = rig.restarted();
    assert_eq!(rig.snapshot(), live);
    assert_eq!(rig.beat_code("m1", -1).await, ErrorCode::None);
    assert_eq!(rig.types(&caller()).await[0].1, "classic");
    let back = rig.join("g", &joined.member_id).await;
    assert_eq!(back.error_code, 0);
    let synced = rig.sync("g", &back, &[(&back.member_id, "all")]).await;
    assert_eq!((synced.error_code, &synced.assignment[..]), (0, &b"all"[..]));
    let live = rig.snapshot();
    assert_eq!(rig.restarted().snapshot(), live);
}

#[tokio::test(start_paused = true)]
async fn tenants_do_not_see_each_other() {
    let rig = Rig::new();
    rig.topics.set(OTHER, "foreign", TopicId([7; 16]), 3);
    rig.consumer_beat(beat("m1", 0)).await;
    let theirs = rig.groups.consumer_group_heartbeat(&other(), 1, beat("m1", 1)).await;
    assert_eq!(theirs.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(rig.describe_consumers(&other()).await.0, ErrorCode::GroupIdNotFound.code());
    assert!(rig.types(&other()).await.is_empty());
    // The same names in another tenant are another group, and other topics.
    let theirs = rig.groups.consumer_group_heartbeat(&other(), 1, beat("m1", 0)).await;
    assert_eq!((theirs.error_code, theirs.assignment.unwrap().topic_partitions.len()), (0, 0));
    let everything = ConsumerGroupHeartbeatRequest {
        subscribed_topic_regex: Some(Str::from_static(".*")),
        ..beat("m1", 1)
    };
    let ours = rig.consumer_beat(everything).await;
    assert_eq!((ours.error_code, ours.assignment), (0, None), "no topic of theirs matched");
}

#[tokio::test(start_paused = true)]
async fn groups_are_bounded() {
    let rig = Rig::with(GroupConfig {
        max_groups_per_tenant: 1,
        consumer_max_group_size: 1,
        ..GroupConfig::default()
    });
    assert_eq!(rig.beat_code("m1", 0).await, ErrorCode::None);
    assert_eq!(rig.beat_code("m2", 0).await, ErrorCode::GroupMaxSizeReached);
    let another = ConsumerGroupHeartbeatRequest { group_id: "other".into(), ..beat("m1", 0) };
    assert_eq!(rig.consumer_beat(another).await.error_code, ErrorCode::PolicyViolation.code());
    let long = ConsumerGroupHeartbeatRequest { member_id: "m".repeat(1_025).into(), ..beat("", 0) };
    assert_eq!(rig.consumer_beat(long).await.error_code, ErrorCode::InvalidRequest.code());
    // Nothing is left of what was refused.
    assert_eq!(rig.groups.shared.cells_of(TENANT).len(), 1);
}
