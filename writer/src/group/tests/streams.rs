//! Streams groups in the coordinator: one space of ids with the other kinds, tenants, durability.

use sluice_wire::messages::streams_group_heartbeat_request as beat;
use sluice_wire::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;

use super::*;

fn request(member: &str, epoch: i32) -> beat::StreamsGroupHeartbeatRequest {
    let joins = epoch == 0;
    let topology = beat::Topology {
        subtopologies: vec![beat::Subtopology {
            subtopology_id: Str::from_static("0"),
            source_topics: vec![Str::from_static("topic")],
            ..Default::default()
        }],
        ..Default::default()
    };
    beat::StreamsGroupHeartbeatRequest {
        group_id: Str::from_static("g"),
        member_id: Str::from(member),
        member_epoch: epoch,
        rebalance_timeout_ms: if joins { 60_000 } else { -1 },
        topology: joins.then_some(topology),
        process_id: joins.then(|| Str::from(member)),
        ..Default::default()
    }
}

impl Rig {
    async fn beat(
        &self,
        caller: &GroupCaller,
        member: &str,
        epoch: i32,
    ) -> StreamsGroupHeartbeatResponse {
        self.groups.streams_group_heartbeat(caller, &request(member, epoch)).await.0
    }

    /// A member that has all tasks, once the initial delay is over; its epoch.
    async fn alone(&self, member: &str) -> i32 {
        self.beat(&caller(), member, 0).await;
        pass(Duration::from_secs(4)).await;
        let answer = self.beat(&caller(), member, 1).await;
        let tasks = answer.active_tasks.expect("assigned");
        assert_eq!((tasks.len(), tasks[0].partitions.len()), (1, 4));
        answer.member_epoch
    }

    async fn state(&self, caller: &GroupCaller) -> (i16, Str) {
        let described = self.groups.streams_group_describe(caller, vec!["g".into()]).await;
        (described[0].error_code, described[0].group_state.clone())
    }

    async fn delete(&self) -> ErrorCode {
        let request = DeleteGroupsRequest { groups_names: vec!["g".into()] };
        let answer = self.groups.delete_groups(&caller(), request).await;
        ErrorCode::from_code(answer.results[0].error_code)
    }
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_group_and_another_tenant_never_sees_it() {
    let rig = Rig::new();
    let epoch = rig.alone("m").await;
    let after = rig.restarted();
    for rig in [&rig, &after] {
        let answer = rig.beat(&caller(), "m", epoch).await;
        assert_eq!((answer.error_code, answer.member_epoch), (0, epoch));
        assert_eq!(answer.active_tasks, None, "nothing is new");
        assert_eq!(rig.state(&caller()).await, (0, "Stable".into()));
        let absent = ErrorCode::GroupIdNotFound.code();
        assert_eq!(rig.state(&other()).await.0, absent);
        assert_eq!(rig.beat(&other(), "m", epoch).await.error_code, absent);
    }
    assert_eq!(rig.snapshot(), after.snapshot());
    // Another tenant's group of the same name is its own.
    assert_eq!(rig.beat(&other(), "m", 0).await.error_code, 0);
    assert_eq!(rig.beat(&caller(), "m", epoch).await.member_epoch, epoch);
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_the_log_and_a_failure_changes_nothing() {
    let rig = Rig::new();
    rig.log.stall();
    let groups = Arc::clone(&rig.groups);
    let waiting =
        tokio::spawn(
            async move { groups.streams_group_heartbeat(&caller(), &request("m", 0)).await.0 },
        );
    pass(Duration::from_secs(1)).await;
    assert!(!waiting.is_finished());
    rig.log.resume();
    assert_eq!(waiting.await.expect("answers").error_code, 0);
    let before = rig.snapshot();
    rig.log.fail(Some(LogError::Unavailable));
    let answer = rig.beat(&caller(), "n", 0).await;
    assert_eq!(answer.error_code, ErrorCode::CoordinatorNotAvailable.code());
    rig.log.fail(None);
    pass(Duration::from_secs(2)).await;
    assert_eq!(rig.snapshot(), before);
    let answer = rig.beat(&caller(), "n", 1).await;
    assert_eq!(answer.error_code, ErrorCode::UnknownMemberId.code());
    assert_eq!(rig.beat(&caller(), "m", 1).await.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn an_id_is_of_one_kind_at_a_time() {
    let rig = Rig::new();
    // A classic group with members is no streams group, and keeps its id.
    rig.stable("g").await;
    let answer = rig.beat(&caller(), "m", 0).await;
    assert_eq!(answer.error_code, ErrorCode::GroupIdNotFound.code());
    assert_eq!(answer.error_message.as_deref(), Some("Group g is not a streams group."));
    pass(Duration::from_secs(11)).await;
    // Its members are gone; its offsets stay.
    assert_eq!(rig.commit("g", 0, 7).await, ErrorCode::None);
    let epoch = rig.alone("m").await;
    assert_eq!(rig.offset("g").await, 7);
    let joined = rig.join("g", "").await;
    assert_eq!(joined.error_code, ErrorCode::InconsistentGroupProtocol.code());
    let request = ListGroupsRequest { types_filter: vec!["Streams".into()], ..Default::default() };
    let listed = rig.groups.list_groups(&caller(), request).await.groups;
    let told = (&*listed[0].group_id, &*listed[0].group_type, &*listed[0].protocol_type);
    assert_eq!(told, ("g", "streams", "streams"));
    assert_eq!(&*listed[0].group_state, "Stable");
    // Commits carry the member's epoch.
    let commit = |epoch| OffsetCommitRequest {
        member_id: Str::from_static("m"),
        generation_id_or_member_epoch: epoch,
        ..commit_request("g", &[(0, 9)])
    };
    assert_eq!(rig.commit_as(&caller(), commit(epoch)).await, ErrorCode::None);
    assert_eq!(rig.commit_as(&caller(), commit(epoch + 1)).await, ErrorCode::StaleMemberEpoch);
    assert_eq!(rig.delete().await, ErrorCode::NonEmptyGroup);
    // The session ends; the group can be deleted, and is classic's again.
    pass(Duration::from_secs(60)).await;
    assert_eq!(rig.state(&caller()).await, (0, "Empty".into()));
    assert_eq!(rig.delete().await, ErrorCode::None);
    assert_eq!(rig.state(&caller()).await.0, ErrorCode::GroupIdNotFound.code());
    assert!(rig.snapshot().is_empty());
    rig.stable("g").await;
}

#[tokio::test(start_paused = true)]
async fn a_vacant_streams_group_becomes_classic() {
    let rig = Rig::new();
    rig.alone("m").await;
    assert_eq!(rig.beat(&caller(), "m", -1).await.error_code, 0);
    rig.stable("g").await;
    assert_eq!(rig.state(&caller()).await.0, ErrorCode::GroupIdNotFound.code());
    let after = rig.restarted();
    assert_eq!(after.snapshot(), rig.snapshot());
    assert_eq!(after.state(&caller()).await.0, ErrorCode::GroupIdNotFound.code());
}

#[tokio::test(start_paused = true)]
async fn ids_that_were_only_handed_out_keep_no_streams_group_out() {
    let rig = Rig::new();
    let first = rig.join("g", "").await;
    assert_eq!(first.error_code, ErrorCode::MemberIdRequired.code());
    rig.alone("m").await;
    let late = rig.join("g", &first.member_id).await;
    assert_eq!(late.error_code, ErrorCode::InconsistentGroupProtocol.code());
    pass(Duration::from_secs(20)).await;
    assert_eq!(rig.state(&caller()).await, (0, "Stable".into()));
}
