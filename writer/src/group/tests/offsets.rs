//! Commit, fetch and delete of offsets.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_committed_is_fetched() {
    let rig = Rig::new();
    assert_eq!(rig.commit("g", 0, 42).await, ErrorCode::None);
    let found = rig.fetch(&caller(), "g", Some(&[0, 1]), true).await;
    assert_eq!((found.error_code, &*found.topics[0].name), (0, "topic"));
    let [held, absent] = &found.topics[0].partitions[..] else { panic!("two were asked for") };
    assert_eq!((held.committed_offset, held.committed_leader_epoch), (42, 3));
    assert_eq!(held.metadata.as_deref(), Some("note"));
    assert_eq!((absent.committed_offset, absent.committed_leader_epoch), (-1, -1));
    assert_eq!((absent.metadata.as_deref(), absent.error_code), (Some(""), 0));
}

#[tokio::test(start_paused = true)]
async fn all_topics_are_fetched_by_id() {
    let rig = Rig::new();
    let mut request = commit_request("g", &[(1, 10), (0, 5)]);
    let mut second = request.topics[0].clone();
    second.topic_id = Uuid([2; 16]);
    request.topics.push(second);
    assert_eq!(rig.commit_as(&caller(), request).await, ErrorCode::None);
    let found = rig.fetch_all("g").await;
    let ids: Vec<Uuid> = found.topics.iter().map(|topic| topic.topic_id).collect();
    assert_eq!(ids, [Uuid([1; 16]), Uuid([2; 16])]);
    let partitions: Vec<i32> =
        found.topics[0].partitions.iter().map(|found| found.partition_index).collect();
    assert_eq!(partitions, [0, 1]);
    assert!(rig.fetch_all("absent").await.topics.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_tenant_sees_no_offsets() {
    let rig = Rig::new();
    rig.commit("g", 0, 42).await;
    assert!(rig.fetch(&other(), "g", None, false).await.topics.is_empty());
    let deleted = rig.groups.offset_delete(&other(), &Str::from("g"), &[(TOPIC, 0)]).await;
    assert_eq!(deleted, Err(ErrorCode::GroupIdNotFound));
    assert_eq!(rig.offset("g").await, 42);
}

#[tokio::test(start_paused = true)]
async fn members_commit_and_others_do_not() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    assert_eq!(rig.commit("g", 0, 1).await, ErrorCode::UnknownMemberId);
    let mut request = commit_request("g", &[(0, 7)]);
    request.member_id = joined.member_id.clone();
    request.generation_id_or_member_epoch = joined.generation_id;
    assert_eq!(rig.commit_as(&caller(), request.clone()).await, ErrorCode::None);
    request.generation_id_or_member_epoch += 1;
    assert_eq!(rig.commit_as(&caller(), request).await, ErrorCode::IllegalGeneration);
    assert_eq!(rig.offset("g").await, 7);
}

#[tokio::test(start_paused = true)]
async fn a_generation_of_a_group_that_is_gone_is_refused_by_version() {
    let rig = Rig::new();
    let mut request = commit_request("g", &[(0, 7)]);
    request.generation_id_or_member_epoch = 3;
    for (version, code) in [(8, ErrorCode::IllegalGeneration), (9, ErrorCode::GroupIdNotFound)] {
        let answer = rig.groups.offset_commit(&caller(), version, request.clone()).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, code.code());
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_is_bounded_and_the_rest_of_the_commit_is_made() {
    let rig = Rig::new();
    let mut request = commit_request("g", &[(0, 1), (1, 2), (2, 3)]);
    let metadata = |len| Some(Str::from("ä".repeat(len)));
    request.topics[0].partitions[0].committed_metadata = metadata(4_097);
    request.topics[0].partitions[1].committed_metadata = metadata(4_096);
    request.topics[0].partitions[2].committed_metadata = None;
    let answer = rig.groups.offset_commit(&caller(), 10, request).await;
    let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes, [ErrorCode::OffsetMetadataTooLarge.code(), 0, 0]);
    let found = rig.fetch(&caller(), "g", Some(&[0, 1, 2]), false).await;
    let offsets: Vec<i64> =
        found.topics[0].partitions.iter().map(|found| found.committed_offset).collect();
    assert_eq!(offsets, [-1, 2, 3]);
    assert_eq!(found.topics[0].partitions[2].metadata.as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn a_groups_offsets_are_bounded() {
    let rig = Rig::with(GroupConfig { max_offsets_per_group: 2, ..GroupConfig::default() });
    let request = commit_request("g", &[(0, 1), (1, 1), (2, 1), (0, 2)]);
    let answer = rig.groups.offset_commit(&caller(), 10, request).await;
    let codes: Vec<i16> = answer.topics[0].partitions.iter().map(|p| p.error_code).collect();
    assert_eq!(codes[..3], [0, 0, ErrorCode::InvalidCommitOffsetSize.code()]);
    assert_eq!(rig.commit("g", 1, 9).await, ErrorCode::None);
    assert_eq!(rig.commit("g", 2, 9).await, ErrorCode::InvalidCommitOffsetSize);
}

#[tokio::test(start_paused = true)]
async fn several_groups_are_fetched_at_once() {
    let rig = Rig::new();
    rig.commit("a", 0, 1).await;
    rig.commit("b", 0, 2).await;
    let groups = ["a", "none", "b"].map(|id| OffsetFetchRequestGroup {
        group_id: Str::from(id),
        topics: None,
        ..Default::default()
    });
    let request = OffsetFetchRequest { groups: groups.to_vec(), ..Default::default() };
    let answer = rig.groups.offset_fetch(&caller(), request).await;
    let counts: Vec<usize> = answer.groups.iter().map(|group| group.topics.len()).collect();
    assert_eq!(counts, [1, 0, 1]);
    assert!(answer.groups.iter().all(|group| group.error_code == 0));
}

#[tokio::test(start_paused = true)]
async fn a_stable_fetch_waits_for_commits_that_are_under_way() {
    let rig = Rig::new();
    rig.commit("g", 0, 1).await;
    rig.log.stall();
    let resume = async {
        pass(Duration::from_secs(1)).await;
        rig.log.resume();
    };
    let (code, unstable, stable, ()) = tokio::join!(
        rig.commit("g", 0, 2),
        async {
            tokio::task::yield_now().await;
            rig.offset("g").await
        },
        async {
            tokio::task::yield_now().await;
            rig.fetch(&caller(), "g", Some(&[0]), true).await
        },
        resume,
    );
    assert_eq!((code, unstable), (ErrorCode::None, 1));
    assert_eq!(stable.topics[0].partitions[0].committed_offset, 2);
}

#[tokio::test(start_paused = true)]
async fn offsets_of_subscribed_topics_are_not_deleted() {
    let rig = Rig::new();
    let joined = rig.stable("g").await;
    let unsubscribed = TopicId([2; 16]);
    rig.topics.set(TENANT, "other", unsubscribed, 1);
    let mut request = commit_request("g", &[(0, 7)]);
    let mut topic = request.topics[0].clone();
    topic.topic_id = Uuid(unsubscribed.0);
    request.topics.push(topic);
    request.member_id = joined.member_id.clone();
    request.generation_id_or_member_epoch = joined.generation_id;
    rig.commit_as(&caller(), request).await;
    let partitions = [(TOPIC, 0), (unsubscribed, 0), (unsubscribed, 9)];
    let codes = rig.groups.offset_delete(&caller(), &Str::from("g"), &partitions).await;
    let expected = [ErrorCode::GroupSubscribedToTopic, ErrorCode::None, ErrorCode::None];
    assert_eq!(codes, Ok(expected.to_vec()));
    let left: Vec<Uuid> = rig.fetch_all("g").await.topics.iter().map(|t| t.topic_id).collect();
    assert_eq!(left, [Uuid(TOPIC.0)]);
}

#[tokio::test(start_paused = true)]
async fn of_a_group_that_only_held_offsets_nothing_is_stored_after_the_last() {
    let rig = Rig::new();
    rig.commit("g", 0, 1).await;
    let codes = rig.groups.offset_delete(&caller(), &Str::from("g"), &[(TOPIC, 0)]).await;
    assert_eq!(codes, Ok(vec![ErrorCode::None]));
    assert!(rig.snapshot().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_is_forgotten_by_all_groups_of_its_tenant() {
    let rig = Rig::new();
    rig.commit("a", 0, 1).await;
    rig.commit("b", 5, 1).await;
    rig.commit_as(&other(), commit_request("c", &[(0, 1)])).await;
    rig.groups.forget_topic(TENANT, TOPIC).await.unwrap();
    assert!(rig.fetch_all("a").await.topics.is_empty());
    assert!(rig.fetch_all("b").await.topics.is_empty());
    assert_eq!(rig.fetch(&other(), "c", None, false).await.topics.len(), 1);
    assert_eq!(rig.restarted().snapshot(), rig.snapshot());
}
