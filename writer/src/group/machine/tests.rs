//! Every transition by Kafka's rules, on the pure machine.

mod commits;
mod dynamic;
mod rebalance;
mod statics;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str};

use super::{Action, Context, Group, JoinEvent, Leaving, Persist, State, Tick, Ticket};
use crate::group::config::GroupConfig;
use crate::group::record::metadata::GroupMetadata;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 60_000;

/// A group on a clock of its own, with what it answered and asked to store.
struct Rig {
    group: Group,
    config: GroupConfig,
    now: u64,
    tickets: u64,
    joins: BTreeMap<Ticket, JoinGroupResponse>,
    syncs: BTreeMap<Ticket, SyncGroupResponse>,
    stored: Vec<(Bytes, Persist)>,
}

impl Rig {
    fn new() -> Self {
        Self::with(GroupConfig::default())
    }

    fn with(config: GroupConfig) -> Self {
        Self {
            group: Group::new(0),
            config,
            now: 0,
            tickets: 0,
            joins: BTreeMap::new(),
            syncs: BTreeMap::new(),
            stored: Vec::new(),
        }
    }

    fn drive<R>(&mut self, event: impl FnOnce(&mut Group, &mut Context<'_>) -> R) -> R {
        let mut cx = Context {
            now: Tick(self.now),
            wall_ms: 1_000_000 + i64::try_from(self.now).unwrap(),
            config: &self.config,
            actions: Vec::new(),
        };
        let result = event(&mut self.group, &mut cx);
        for action in cx.actions {
            match action {
                Action::Join(ticket, answer) => {
                    assert!(self.joins.insert(ticket, answer).is_none(), "answered twice");
                }
                Action::Sync(ticket, answer) => {
                    assert!(self.syncs.insert(ticket, answer).is_none(), "answered twice");
                }
                Action::Persist(value, persist) => self.stored.push((value, persist)),
            }
        }
        self.check_invariants();
        result
    }

    fn check_invariants(&self) {
        let roster = &self.group.roster;
        assert_eq!(roster.joining(), roster.iter().filter(|m| m.joining().is_some()).count());
        assert_eq!(roster.owing(), roster.owing_ids().len());
        assert_eq!(self.group.state == State::Empty, roster.is_empty() && !self.is_preparing());
        if let Some(earliest) = self.group.earliest() {
            assert!(self.group.wake().is_some_and(|wake| wake <= earliest));
        }
        if let Some(leader) = &self.group.leader {
            assert!(roster.contains(leader), "the leader is a member");
        }
    }

    fn is_preparing(&self) -> bool {
        self.group.state == State::PreparingRebalance
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn join(&mut self, request: &JoinGroupRequest, version: i16) -> Ticket {
        let ticket = self.ticket();
        let random = [u8::try_from(ticket.0).unwrap(); 16];
        self.drive(|group, cx| {
            let (client_id, client_host) = ("client", "/127.0.0.1");
            group.join(cx, &JoinEvent { request, version, client_id, client_host, random, ticket });
        });
        ticket
    }

    /// Joins as a client of version 3 does, which is not asked to come back with its id.
    fn join_at_once(&mut self) -> Ticket {
        self.join(&request(""), 3)
    }

    fn rejoin(&mut self, member_id: &str) -> Ticket {
        self.join(&request(member_id), 9)
    }

    fn sync(&mut self, request: &SyncGroupRequest) -> Ticket {
        let ticket = self.ticket();
        self.drive(|group, cx| group.sync(cx, request, ticket));
        ticket
    }

    fn sync_as(&mut self, member_id: &str, given: &[(&str, &'static str)]) -> Ticket {
        let request = sync_request(member_id, self.group.generation, given);
        self.sync(&request)
    }

    fn heartbeat(&mut self, member_id: &str) -> ErrorCode {
        let generation = self.group.generation;
        self.drive(|group, cx| group.heartbeat(cx, member_id, None, generation))
    }

    fn leave(&mut self, member_id: &str, instance: Option<&str>) -> ErrorCode {
        self.drive(|group, cx| group.leave(cx, &[Leaving { member_id, instance }]))[0]
    }

    /// Lets time pass, waking the group whenever it asked to be.
    fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        while let Some(wake) = self.group.wake().filter(|wake| wake.0 <= end) {
            assert!(wake.0 >= self.now, "no wake-up in the past");
            self.now = wake.0;
            self.drive(|group, cx| group.on_time(cx));
            let next = self.group.wake();
            assert!(next.is_none_or(|next| next.0 > self.now), "woken twice for the same");
        }
        self.now = end;
    }

    /// The oldest record that waits becomes durable, or fails.
    fn persist(&mut self, result: Result<(), ErrorCode>) -> GroupMetadata {
        let (value, persist) = self.stored.remove(0);
        self.drive(|group, cx| group.persisted(cx, persist, result));
        GroupMetadata::decode(&value).unwrap()
    }

    fn joined(&self, ticket: Ticket) -> &JoinGroupResponse {
        &self.joins[&ticket]
    }

    fn join_error(&self, ticket: Ticket) -> ErrorCode {
        ErrorCode::from_code(self.joins[&ticket].error_code)
    }

    fn sync_error(&self, ticket: Ticket) -> ErrorCode {
        ErrorCode::from_code(self.syncs[&ticket].error_code)
    }

    /// A stable group of `count` dynamic members; their ids, the leader's first.
    fn stable(count: usize) -> (Self, Vec<Str>) {
        let mut rig =
            Self::with(GroupConfig { initial_rebalance_delay_ms: 3_000, ..GroupConfig::default() });
        let tickets: Vec<Ticket> = (0..count).map(|_| rig.join_at_once()).collect();
        while rig.joins.is_empty() {
            rig.pass(3_000);
        }
        let mut ids: Vec<Str> = tickets.iter().map(|t| rig.joined(*t).member_id.clone()).collect();
        let leader = rig.joined(tickets[0]).leader.clone();
        ids.sort_by_key(|id| *id != leader);
        rig.settle(&ids);
        (rig, ids)
    }

    /// All members sync, the leader first; its assignment becomes durable.
    fn settle(&mut self, ids: &[Str]) {
        for id in ids {
            self.sync_as(id, &[]);
        }
        self.persist(Ok(()));
        assert_eq!(self.group.state(), State::Stable);
    }
}

fn request(member_id: &str) -> JoinGroupRequest {
    JoinGroupRequest {
        group_id: Str::from("group"),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        member_id: Str::from(member_id),
        protocol_type: Str::from("consumer"),
        protocols: vec![protocol("range", &["topic"])],
        ..Default::default()
    }
}

fn static_request(member_id: &str, instance: &str) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(Str::from(instance)), ..request(member_id) }
}

fn protocol(name: &str, topics: &[&str]) -> JoinGroupRequestProtocol {
    JoinGroupRequestProtocol { name: Str::from(name), metadata: subscription(topics) }
}

fn subscription(topics: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(i32::try_from(topics.len()).unwrap());
    for topic in topics {
        out.put_i16(i16::try_from(topic.len()).unwrap());
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.freeze()
}

fn sync_request(
    member_id: &str,
    generation_id: i32,
    given: &[(&str, &'static str)],
) -> SyncGroupRequest {
    let assignments = given.iter().map(|(id, assignment)| SyncGroupRequestAssignment {
        member_id: Str::from(*id),
        assignment: Bytes::from_static(assignment.as_bytes()),
    });
    SyncGroupRequest {
        group_id: Str::from("group"),
        generation_id,
        member_id: Str::from(member_id),
        assignments: assignments.collect(),
        ..Default::default()
    }
}
