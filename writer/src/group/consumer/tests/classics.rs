//! Classic members in a consumer group, and groups that change over.

use bytes::{BufMut, BytesMut};
use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::sync_group_request::SyncGroupRequest;

use super::super::classic::Join;
use super::super::embedded;
use super::*;
use crate::group::machine::{Group, Leaving};
use crate::group::record::metadata::{GroupMetadata, MemberMetadata};

/// A version 1 subscription to `a`.
fn subscription(owned: &[i32]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[0, 1, 0, 0, 0, 1, 0, 1, b'a', 0xff, 0xff, 0xff, 0xff]);
    out.put_slice(&[0, 0, 0, 1, 0, 1, b'a']);
    out.put_i32(i32::try_from(owned.len()).unwrap());
    owned.iter().for_each(|partition| out.put_i32(*partition));
    out.freeze()
}

fn joins(member_id: &str, owned: &[i32]) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: Str::from_static("g"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 20_000,
        member_id: Str::from(member_id),
        protocol_type: Str::from_static("consumer"),
        protocols: vec![JoinGroupRequestProtocol {
            name: Str::from_static("range"),
            metadata: subscription(owned),
        }],
        ..Default::default()
    }
}

/// A classic group of generation 7 in which `c1` has partitions 0 and 1 of `a`, `c2` the others.
fn classic_group() -> Group {
    let assigned = |numbers: &[i32]| {
        embedded::encode_assignment(1, &[(Str::from_static("a"), numbers.to_vec())])
    };
    let member = |id: &'static str, numbers: &[i32]| MemberMetadata {
        id: Str::from_static(id),
        instance: None,
        client_id: Str::from_static("client"),
        client_host: Str::from_static("/127.0.0.1"),
        rebalance_timeout_ms: 20_000,
        session_timeout_ms: 10_000,
        subscription: subscription(numbers),
        assignment: assigned(numbers),
    };
    Group::load(GroupMetadata {
        generation: 7,
        state_since_ms: 0,
        protocol_type: Some(Str::from_static("consumer")),
        protocol: Some(Str::from_static("range")),
        leader: None,
        members: vec![member("c1", &[0, 1]), member("c2", &[2, 3])],
    })
}

impl Rig {
    fn upgraded() -> Self {
        let mut rig = Self::new();
        let classic = classic_group();
        rig.group = rig.drive(|_, turn| ConsumerGroup::from_classic(turn, &classic)).unwrap();
        rig
    }

    fn rejoin(&mut self, id: &str, owned: &[i32]) -> Result<JoinGroupResponse, Refusal> {
        let request = joins(id, owned);
        let join = Join {
            request: &request,
            version: 9,
            client_id: "client",
            client_host: "/127.0.0.1",
            new_id: Str::from_static("fresh"),
        };
        self.drive(|group, turn| group.join(turn, &join))
    }

    /// What SyncGroup gives of `a`.
    fn synced(&mut self, id: &str, generation: i32) -> Result<Vec<i32>, ErrorCode> {
        let request = SyncGroupRequest {
            group_id: Str::from_static("g"),
            generation_id: generation,
            member_id: Str::from(id),
            ..Default::default()
        };
        let answer = self.drive(|group, turn| group.sync(turn, &request));
        let named = embedded::assignment(&answer.map_err(|refusal| refusal.code)?.assignment);
        Ok(named.unwrap().into_iter().flat_map(|(_, partitions)| partitions).collect())
    }

    fn classic_beat(&mut self, id: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: Str::from_static("g"),
            generation_id: generation,
            member_id: Str::from(id),
            ..Default::default()
        };
        let done = self.drive(|group, turn| group.classic_heartbeat(turn, &request));
        done.map_or_else(|refusal| refusal.code, |()| ErrorCode::None)
    }
}

#[test]
fn a_classic_group_becomes_one_of_consumers_member_by_member() {
    let mut rig = Rig::upgraded();
    assert_eq!((rig.group.epoch, rig.group.state_name()), (7, "Stable"));
    assert_eq!(rig.classic_beat("c1", 7), ErrorCode::None);
    // The first that speaks the new protocol joins; what it gets others have to give back.
    let joined = rig.join("m1", &["a"]);
    assert_eq!((joined.member_epoch, given(&joined)), (8, Some(vec![])));
    assert_eq!(rig.classic_beat("c1", 7), ErrorCode::RebalanceInProgress);
    assert_eq!(rig.synced("c1", 7), Err(ErrorCode::RebalanceInProgress));
    // Each classic member joins with what it has, is told what it keeps, and joins without the rest.
    for (id, mut has) in [("c1", vec![0, 1]), ("c2", vec![2, 3])] {
        for _ in 0..3 {
            let answer = rig.rejoin(id, &has).unwrap();
            assert_eq!((answer.error_code, answer.protocol_name), (0, Some("range".into())));
            has = rig.synced(id, answer.generation_id).unwrap();
            if rig.classic_beat(id, answer.generation_id) == ErrorCode::None {
                break;
            }
        }
        assert_eq!(rig.classic_beat(id, rig.epoch(id)), ErrorCode::None, "{id} settles");
    }
    assert_eq!(rig.beat(&quiet("m1", 8)).unwrap().member_epoch, 8);
    assert_eq!(rig.assigned("m1").len(), 1);
    assert_eq!(rig.group.state_name(), "Stable");
    // A restart changes nothing.
    let before = rig.parts();
    rig.restart();
    assert_eq!(rig.classic_beat("c1", rig.epoch("c1")), ErrorCode::None);
    assert_eq!(rig.parts(), before);
}

#[test]
fn classic_members_are_held_to_their_generation_and_their_times() {
    let mut rig = Rig::upgraded();
    rig.join("m1", &["a"]);
    assert_eq!(rig.classic_beat("c1", 6), ErrorCode::IllegalGeneration);
    assert_eq!(rig.classic_beat("m1", 8), ErrorCode::UnknownMemberId, "it is none");
    assert_eq!(rig.classic_beat("c9", 7), ErrorCode::UnknownMemberId);
    let asked = rig.rejoin("", &[]).unwrap();
    assert_eq!((asked.error_code, asked.protocol_name), (ErrorCode::MemberIdRequired.code(), None));
    let odd = JoinGroupRequest { protocol_type: Str::from_static("connect"), ..joins("c1", &[]) };
    let join =
        Join { request: &odd, version: 9, client_id: "", client_host: "", new_id: Str::default() };
    let refused = rig.drive(|group, turn| group.join(turn, &join)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::InconsistentGroupProtocol);
    // Told to join, one does and never syncs, the other does not.
    assert_eq!(rig.classic_beat("c1", 7), ErrorCode::RebalanceInProgress);
    assert_eq!(rig.classic_beat("c2", 7), ErrorCode::RebalanceInProgress);
    let generation = rig.rejoin("c1", &[0, 1]).unwrap().generation_id;
    for _ in 0..3 {
        rig.pass(5_000);
        rig.classic_beat("c1", generation);
        rig.classic_beat("c2", 7);
        rig.beat(&quiet("m1", rig.epoch("m1"))).unwrap();
    }
    assert_eq!(rig.group.members.len(), 3);
    rig.pass(5_001);
    assert_eq!(rig.group.members.keys().map(|id| &**id).collect::<Vec<_>>(), ["m1"]);
}

#[test]
fn when_the_last_consumer_leaves_the_group_is_classic_again() {
    let mut rig = Rig::upgraded();
    rig.join("m1", &["a"]);
    rig.beat(&quiet("m1", LEAVE)).unwrap();
    let Stored::Classic(metadata) = &rig.stored else { panic!("{:?}", rig.stored) };
    let metadata = GroupMetadata::decode(metadata).unwrap();
    assert_eq!((metadata.generation, metadata.protocol), (9, Some("range".into())));
    let ids: Vec<_> = metadata.members.iter().map(|member| &*member.id).collect();
    assert_eq!(ids, ["c1", "c2"]);
}

#[test]
fn classic_members_leave_by_id_or_instance() {
    let mut rig = Rig::upgraded();
    rig.join("m1", &["a"]);
    let leaving = [("c1", None), ("m1", None), ("", Some("nobody")), ("c9", None)];
    let leaving = leaving.map(|(member_id, instance)| Leaving { member_id, instance });
    let codes = rig.drive(|group, turn| group.classic_leave(turn, &leaving));
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(codes, [ErrorCode::None, unknown, unknown, unknown]);
    assert_eq!(rig.group.members.len(), 2);
}

#[test]
fn only_groups_of_consumers_change_over() {
    let mut rig = Rig::new();
    let connect = Group::load(GroupMetadata {
        generation: 1,
        protocol_type: Some(Str::from_static("connect")),
        ..GroupMetadata::default()
    });
    let refused = rig.drive(|_, turn| ConsumerGroup::from_classic(turn, &connect)).unwrap_err();
    assert_eq!(refused.code, ErrorCode::GroupIdNotFound);
}
