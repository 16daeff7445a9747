//! Static members (KIP-345): they come back as they went.

use super::*;

fn fixed(
    instance: &'static str,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest { instance_id: Some(Str::from_static(instance)), ..request }
}

#[test]
fn an_instance_that_left_for_now_comes_back_to_what_it_had() {
    let mut rig = Rig::new();
    rig.beat(&fixed("i1", join("m1", &["a"]))).unwrap();
    rig.beat(&fixed("i2", join("m2", &["a"]))).unwrap();
    rig.settle_fixed(&[("i1", "m1"), ("i2", "m2")]);
    let had = rig.assigned("m1");
    // As long as it has not left, nobody takes its place.
    let taking = fixed("i1", join("m3", &["a"]));
    assert_eq!(rig.refused(&taking), ErrorCode::UnreleasedInstanceId);
    let left = rig.beat(&fixed("i1", quiet("m1", LEFT_FOR_NOW))).unwrap();
    assert_eq!(left.member_epoch, LEFT_FOR_NOW);
    // Others do not notice, and a restart does not either.
    rig.restart();
    let epoch = rig.group.epoch;
    assert_eq!(given(&rig.beat(&fixed("i2", quiet("m2", rig.epoch("m2")))).unwrap()), None);
    let back = rig.beat(&taking).unwrap();
    assert_eq!((back.member_epoch, given(&back)), (epoch, Some(had)));
    assert!(!rig.group.members.contains_key("m1"));
    // The old one is fenced.
    let code = rig.refused(&fixed("i1", quiet("m1", epoch)));
    assert_eq!(code, ErrorCode::FencedInstanceId);
    assert_eq!(rig.refused(&fixed("i9", quiet("m1", 1))), ErrorCode::UnknownMemberId);
    let code = rig.refused(&fixed("i1", quiet("m1", LEAVE)));
    assert_eq!(code, ErrorCode::FencedInstanceId);
}

#[test]
fn an_instance_that_does_not_come_back_is_fenced() {
    let mut rig = Rig::new();
    rig.beat(&fixed("i1", join("m1", &["a"]))).unwrap();
    rig.beat(&fixed("i1", quiet("m1", LEFT_FOR_NOW))).unwrap();
    rig.pass(44_999);
    assert!(!rig.group.is_vacant());
    rig.pass(1);
    assert!(rig.group.is_vacant() && rig.group.statics.is_empty());
}

#[test]
fn an_instance_may_leave_for_good() {
    let mut rig = Rig::new();
    rig.beat(&fixed("i1", join("m1", &["a"]))).unwrap();
    rig.beat(&fixed("i1", quiet("m1", LEAVE))).unwrap();
    assert!(rig.group.is_vacant() && rig.group.statics.is_empty());
}

impl Rig {
    fn settle_fixed(&mut self, members: &[(&'static str, &str)]) {
        for _ in 0..6 {
            for (instance, id) in members {
                let request = keep(id, self.epoch(id), &self.assigned(id));
                self.beat(&fixed(instance, request)).unwrap();
            }
        }
    }
}
