//! The machine on its own clock and topics, with what it logs.

use sluice_model::{GroupConfigs as _, TenantId, TopicId};
use sluice_wire::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use sluice_wire::messages::share_group_heartbeat_response::ShareGroupHeartbeatResponse;
use sluice_wire::{ErrorCode, Str};

use super::ShareGroup;
use super::heartbeat::{Beat, JOIN, LEAVE, check};
use crate::group::config::GroupConfig;
use crate::group::kind::Modern;
use crate::group::machine::Tick;
use crate::group::modern::{Refusal, Turn};
use crate::group::record::Key;
use crate::group::stored::Stored;
use crate::group::tests::topic_table::TopicTable;

const TENANT: TenantId = TenantId(1);
const A: TopicId = TopicId([1; 16]);
const B: TopicId = TopicId([2; 16]);
const SESSION_MS: u64 = 45_000;

/// A group with its topics `a` (4 partitions) and `b` (2), and what it logged.
struct Rig {
    group: ShareGroup,
    config: GroupConfig,
    topics: TopicTable,
    now: u64,
    stored: Stored,
    logged: usize,
}

impl Rig {
    fn new() -> Self {
        let topics = TopicTable::default();
        topics.set(TENANT, "a", A, 4);
        topics.set(TENANT, "b", B, 2);
        topics.configure(|settings| settings.share.times.assignment_interval_ms = 0);
        let config = GroupConfig { share_max_group_size: 5, ..GroupConfig::default() };
        let (group, stored) = (ShareGroup::default(), Stored::default());
        Self { group, config, topics, now: 0, stored, logged: 0 }
    }

    fn drive<R>(&mut self, event: impl FnOnce(&mut ShareGroup, &mut Turn<'_>) -> R) -> R {
        let settings = self.topics.settings(TENANT, "g");
        let mut turn =
            Turn::new((Tick(self.now), 0), &self.config, settings, &self.topics, (TENANT, "g"));
        let result = event(&mut self.group, &mut turn);
        self.logged = turn.records().len();
        for record in turn.records() {
            let Ok(Key::Part { kind, part, .. }) = Key::decode(&record.key) else {
                panic!("not a part: {record:?}")
            };
            super::check_part(part, record.value.as_deref()).expect("our own record");
            self.stored.set_part(kind, part, record.value.as_deref());
        }
        result
    }

    /// Forgets all that is not logged.
    fn restart(&mut self) {
        self.group = match &self.stored {
            Stored::Modern(parts) => ShareGroup::load(parts),
            _ => ShareGroup::default(),
        };
        self.drive(|group, turn| group.restart(turn));
    }

    fn beat(
        &mut self,
        id: &str,
        epoch: i32,
        topics: Option<&[&str]>,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        let request = ShareGroupHeartbeatRequest {
            group_id: Str::from_static("g"),
            member_id: Str::from(id),
            member_epoch: epoch,
            rack_id: None,
            subscribed_topic_names: topics.map(|t| t.iter().map(|name| Str::from(*name)).collect()),
        };
        check(&request)?;
        let beat = Beat { request: &request, client_id: "client", client_host: "/127.0.0.1" };
        self.drive(|group, turn| match epoch {
            LEAVE => group.leave(turn, &request.member_id),
            _ => group.heartbeat(turn, &beat),
        })
    }

    fn join(&mut self, id: &str, topics: &[&str]) -> ShareGroupHeartbeatResponse {
        self.beat(id, JOIN, Some(topics)).expect("joined")
    }

    fn refused(&mut self, id: &str, epoch: i32, topics: Option<&[&str]>) -> ErrorCode {
        let code = self.beat(id, epoch, topics).expect_err("refused").code;
        assert_eq!(self.logged, 0, "a refused event changes nothing");
        code
    }

    /// How many partitions the member was told to fetch last.
    fn assigned(&self, id: &str) -> usize {
        self.group.members[id].assigned.len()
    }
}

/// How many partitions an answer tells of; none if it does not.
fn told(answer: &ShareGroupHeartbeatResponse) -> Option<usize> {
    let assignment = answer.assignment.as_ref()?;
    Some(assignment.topic_partitions.iter().map(|topic| topic.partitions.len()).sum())
}

#[test]
fn members_share_the_partitions_out() {
    let mut rig = Rig::new();
    let first = rig.join("m1", &["a", "b"]);
    assert_eq!((first.member_epoch, told(&first)), (2, Some(6)));
    assert_eq!(first.heartbeat_interval_ms, 5_000);
    let second = rig.join("m2", &["a", "b"]);
    assert_eq!((second.member_epoch, told(&second)), (3, Some(3)));
    let first = rig.beat("m1", 2, None).unwrap();
    assert_eq!((first.member_epoch, told(&first)), (3, Some(3)));
    let first = rig.beat("m1", 3, None).unwrap();
    assert_eq!((first.member_epoch, told(&first), rig.logged), (3, None, 0));
}

#[test]
fn epochs_fence() {
    let mut rig = Rig::new();
    assert_eq!(rig.refused("m1", 2, None), ErrorCode::UnknownMemberId);
    let first = rig.join("m1", &["a"]).member_epoch;
    assert_eq!(rig.refused("m1", first - 1, None), ErrorCode::FencedMemberEpoch);
    rig.join("m2", &["a"]);
    rig.beat("m1", 2, None).unwrap();
    // The answer was lost.
    assert_eq!(rig.beat("m1", 2, None).unwrap().member_epoch, 3);
    assert_eq!(rig.refused("m1", 4, None), ErrorCode::FencedMemberEpoch);
    rig.join("m3", &["a"]);
    rig.beat("m1", 3, None).unwrap();
    assert_eq!(rig.refused("m1", 2, None), ErrorCode::FencedMemberEpoch);
    assert_eq!(rig.beat("m1", JOIN, Some(&["a"])).unwrap().member_epoch, 4);
}

#[test]
fn requests_are_checked() {
    let mut rig = Rig::new();
    assert_eq!(rig.refused("", JOIN, Some(&["a"])), ErrorCode::InvalidRequest);
    assert_eq!(rig.refused("m1", JOIN, None), ErrorCode::InvalidRequest);
    assert_eq!(rig.refused("m1", JOIN, Some(&[])), ErrorCode::InvalidRequest);
    assert_eq!(rig.refused("m1", -2, None), ErrorCode::InvalidRequest);
    assert_eq!(rig.refused("m1", LEAVE, None), ErrorCode::UnknownMemberId);
    for n in 0..5 {
        rig.join(&format!("m{n}"), &["a"]);
    }
    assert_eq!(rig.refused("m5", JOIN, Some(&["a"])), ErrorCode::GroupMaxSizeReached);
    assert!(rig.beat("m4", JOIN, Some(&["a"])).is_ok());
}

#[test]
fn who_leaves_or_is_not_heard_of_makes_room() {
    let mut rig = Rig::new();
    rig.join("m1", &["a"]);
    rig.join("m2", &["a"]);
    rig.beat("m1", 2, None).unwrap();
    assert_eq!(rig.assigned("m1"), 2);
    assert_eq!(rig.beat("m2", LEAVE, None).unwrap().member_epoch, LEAVE);
    assert_eq!(told(&rig.beat("m1", 3, None).unwrap()), Some(4));
    assert_eq!(rig.group.wake(), Some(Tick(SESSION_MS)));
    rig.now = SESSION_MS;
    rig.drive(|group, turn| group.on_time(turn));
    assert!(rig.group.is_vacant());
    assert_eq!((rig.group.state_name(), rig.group.wake()), ("Empty", None));
    // Its epoch goes on from where it was.
    assert_eq!(rig.join("m1", &["a"]).member_epoch, 6);
}

#[test]
fn topics_that_come_and_grow_are_given_with_the_next_heartbeat() {
    let mut rig = Rig::new();
    let joined = rig.join("m1", &["a", "c"]);
    assert_eq!(told(&joined), Some(4));
    rig.topics.set(TENANT, "c", TopicId([3; 16]), 1);
    let answer = rig.beat("m1", 2, None).unwrap();
    assert_eq!((answer.member_epoch, told(&answer)), (3, Some(5)));
    rig.topics.set(TENANT, "a", A, 6);
    assert_eq!(told(&rig.beat("m1", 3, None).unwrap()), Some(7));
    let answer = rig.beat("m1", 4, Some(&["c"])).unwrap();
    assert_eq!((answer.member_epoch, told(&answer)), (5, Some(1)));
    assert_eq!(rig.group.initialized()[&A], 6, "it had the topic");
}

#[test]
fn members_that_come_together_are_served_together() {
    let mut rig = Rig::new();
    rig.topics.configure(|settings| settings.share.times.assignment_interval_ms = 1_000);
    rig.join("m1", &["a"]);
    rig.join("m2", &["a"]);
    rig.join("m3", &["a"]);
    assert_eq!((rig.group.header.epoch, rig.group.header.assignment_epoch), (4, 2));
    rig.now = 1_000;
    rig.beat("m1", 2, None).unwrap();
    assert_eq!(rig.group.header.assignment_epoch, 4);
    assert_eq!(rig.assigned("m1"), 2);
}

#[test]
fn a_restart_goes_on_where_the_group_was() {
    let mut rig = Rig::new();
    rig.join("m1", &["a", "b"]);
    rig.join("m2", &["a"]);
    rig.beat("m1", 2, None).unwrap();
    let before = rig.drive(|group, turn| group.describe(turn));
    rig.restart();
    assert_eq!(rig.drive(|group, turn| group.describe(turn)), before);
    let answer = rig.beat("m1", 3, None).unwrap();
    assert_eq!((answer.member_epoch, told(&answer)), (3, None));
    rig.now = SESSION_MS;
    rig.drive(|group, turn| group.on_time(turn));
    assert!(rig.group.is_vacant(), "sessions begin anew");
}
