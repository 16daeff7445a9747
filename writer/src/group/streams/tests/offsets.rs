//! Who may commit and read offsets.

use super::*;
use crate::group::kind::Commit;

fn group() -> (Server, Client, Client) {
    let mut server = Server::new(&[("in", 2), ("by-word", 2), ("counts", 2)]);
    let mut clients = [Client::new("a", "p"), Client::new("b", "q")];
    server.settle(&mut clients);
    let [a, b] = clients;
    (server, a, b)
}

fn check(
    server: &Server,
    member_id: &str,
    epoch: i32,
    version: Option<i16>,
    (topic, partition): (&str, i32),
) -> Result<(), ErrorCode> {
    let topic = server.topics.get(topic).map_or(TopicId([0xee; 16]), |topic| topic.id);
    let mut partitions = [(topic, partition)].into_iter();
    let instance = None;
    let partitions = &mut partitions;
    let mut commit = Commit { member_id, instance, epoch, version, partitions };
    server.group.may_commit(&mut commit)
}

#[test]
fn commits_are_checked_by_member_and_epoch() {
    let (server, a, _) = group();
    let epoch = a.epoch;
    let (_, mine) = a.active_tasks().into_iter().find(|(id, _)| id == "0").expect("has one");
    let v10 = Some(10);
    let at = ("in", mine);
    assert_eq!(check(&server, "a", epoch, v10, at), Ok(()));
    assert_eq!(check(&server, "a", epoch, Some(8), at), Err(ErrorCode::UnsupportedVersion));
    assert_eq!(check(&server, "x", epoch, v10, at), Err(ErrorCode::UnknownMemberId));
    assert_eq!(check(&server, "", -1, v10, at), Err(ErrorCode::UnknownMemberId));
    assert_eq!(check(&server, "", -1, None, at), Ok(()), "a transaction without its group");
    assert_eq!(check(&server, "a", epoch + 1, v10, at), Err(ErrorCode::StaleMemberEpoch));
    let empty = Server::new(&[]);
    assert_eq!(check(&empty, "", -1, v10, at), Ok(()));
}

#[test]
fn an_older_epoch_commits_what_it_still_had() {
    let (mut server, a, b) = group();
    let before = a.epoch;
    // a's tasks stay; the epoch moves on.
    let leaving = request::StreamsGroupHeartbeatRequest { member_epoch: -1, ..b.request() };
    server.beat(&leaving).expect("leaves");
    let mut clients = [a.clone()];
    server.settle(&mut clients);
    assert!(clients[0].epoch > before);
    let (_, mine) = a.active_tasks().into_iter().find(|(id, _)| id == "0").expect("has one");
    let v9 = Some(9);
    assert_eq!(check(&server, "a", before, v9, ("in", mine)), Ok(()));
    // What it got since, and what it never had.
    let stale = Err(ErrorCode::StaleMemberEpoch);
    assert_eq!(check(&server, "a", before, v9, ("in", 1 - mine)), stale);
    assert_eq!(check(&server, "a", before, v9, ("in", 7)), stale);
    assert_eq!(check(&server, "a", before, v9, ("counts", mine)), stale);
    assert_eq!(check(&server, "a", before, v9, ("elsewhere", mine)), stale);
    // A process that has just begun knows the same, before the first heartbeat.
    server.crash();
    assert_eq!(check(&server, "a", before, v9, ("in", mine)), Ok(()));
    assert_eq!(check(&server, "a", before, v9, ("in", 1 - mine)), stale);
}

#[test]
fn fetches_are_checked_and_subscriptions_known() {
    let (server, a, _) = group();
    let check = |member, epoch| server.group.may_fetch(member, epoch);
    assert_eq!(check(None, -1), Ok(()));
    assert_eq!(check(None, 0), Err(ErrorCode::UnknownMemberId));
    assert_eq!(check(Some("a"), a.epoch), Ok(()));
    assert_eq!(check(Some("a"), a.epoch - 1), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(check(Some("x"), a.epoch), Err(ErrorCode::UnknownMemberId));
    assert!(server.group.reads("in") && server.group.reads("by-word"));
    assert!(!server.group.reads("counts"));
    assert!(!Server::new(&[]).group.reads("in"));
}
