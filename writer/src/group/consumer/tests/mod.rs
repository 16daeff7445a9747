//! The machine on its own clock and topics, with what it logs.

mod classics;
mod heartbeats;
mod random;
mod statics;

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_model::{GroupConfigs as _, TenantId, TopicId};
use sluice_wire::messages::consumer_group_heartbeat_request as request;
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use sluice_wire::{ErrorCode, Str, Uuid};

use super::ConsumerGroup;
use super::heartbeat::{Beat, JOIN, LEAVE, check};
use super::member::{LEFT_FOR_NOW, MemberState};
use crate::group::config::GroupConfig;
use crate::group::kind::{Commit, Modern};
use crate::group::machine::Tick;
use crate::group::modern::{Refusal, Turn};
use crate::group::record::Key;
use crate::group::stored::Stored;
use crate::group::tests::topic_table::TopicTable;

const TENANT: TenantId = TenantId(1);
const A: TopicId = TopicId([1; 16]);
const B: TopicId = TopicId([2; 16]);

/// A group with its topics `a` (4 partitions) and `b` (2), and what it logged.
struct Rig {
    group: ConsumerGroup,
    config: GroupConfig,
    topics: TopicTable,
    now: u64,
    stored: Stored,
    /// How many records the last event logged.
    logged: usize,
}

impl Rig {
    fn new() -> Self {
        let topics = TopicTable::default();
        topics.set(TENANT, "a", A, 4);
        topics.set(TENANT, "b", B, 2);
        topics.configure(|settings| settings.consumer.assignment_interval_ms = 0);
        let config = GroupConfig::default();
        let (group, stored) = (ConsumerGroup::default(), Stored::default());
        Self { group, config, topics, now: 0, stored, logged: 0 }
    }

    fn drive<R>(&mut self, event: impl FnOnce(&mut ConsumerGroup, &mut Turn<'_>) -> R) -> R {
        let settings = self.topics.settings(TENANT, "g");
        let mut turn =
            Turn::new((Tick(self.now), 0), &self.config, settings, &self.topics, (TENANT, "g"));
        let result = event(&mut self.group, &mut turn);
        self.logged = turn.records().len();
        for record in turn.records() {
            match (Key::decode(&record.key), record.value.as_deref()) {
                (Ok(Key::Part { kind, part, .. }), value) => {
                    super::check_part(part, value).expect("our own record");
                    self.stored.set_part(kind, part, value);
                }
                (Ok(Key::Group { .. }), Some(metadata)) => self.stored.set_classic(metadata),
                _ => panic!("neither a part nor metadata: {record:?}"),
            }
        }
        result
    }

    /// Forgets all that is not logged.
    fn restart(&mut self) {
        self.group = match &self.stored {
            Stored::Modern(parts) => ConsumerGroup::load(parts),
            _ => ConsumerGroup::default(),
        };
        self.drive(|group, turn| group.restart(turn));
    }

    fn parts(&self) -> BTreeMap<Bytes, Bytes> {
        match &self.stored {
            Stored::Modern(parts) => parts.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            _ => BTreeMap::new(),
        }
    }

    fn beat(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        check(1, request)?;
        let beat = Beat {
            request,
            client_id: "client",
            client_host: "/127.0.0.1",
            member_id: Str::from(&*request.member_id),
        };
        self.drive(|group, turn| match request.member_epoch {
            LEAVE | LEFT_FOR_NOW => group.leave(turn, request),
            _ => group.heartbeat(turn, &beat),
        })
    }

    fn refused(&mut self, request: &ConsumerGroupHeartbeatRequest) -> ErrorCode {
        let code = self.beat(request).expect_err("refused").code;
        assert_eq!(self.logged, 0, "a refused event changes nothing");
        code
    }

    fn join(&mut self, id: &str, topics: &[&str]) -> ConsumerGroupHeartbeatResponse {
        self.beat(&join(id, topics)).expect("joined")
    }

    /// The member says that it has what it was given, until that changes no more. Gives its epoch.
    fn settle(&mut self, ids: &[&str]) {
        for _ in 0..10 {
            let mut quiet = true;
            for id in ids {
                let before = self.parts();
                self.beat(&keep(id, self.epoch(id), &self.assigned(id))).expect("alive");
                quiet &= before == self.parts();
            }
            if quiet {
                return;
            }
        }
        panic!("does not converge: {:?}", self.group);
    }

    fn epoch(&self, id: &str) -> i32 {
        self.group.members[id].current.epoch
    }

    fn state(&self, id: &str) -> MemberState {
        self.group.members[id].current.state
    }

    fn assigned(&self, id: &str) -> Vec<(TopicId, i32)> {
        let assigned = &self.group.members[id].current.assigned;
        assigned.iter().map(|(topic, partition, _)| (topic, partition)).collect()
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.drive(|group, turn| group.on_time(turn));
    }
}

fn join(id: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: Str::from_static("g"),
        member_id: Str::from(id),
        member_epoch: JOIN,
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(topics.iter().map(|name| Str::from(*name)).collect()),
        topic_partitions: Some(Vec::new()),
        ..Default::default()
    }
}

/// A heartbeat of a member that has these partitions.
fn keep(id: &str, epoch: i32, owned: &[(TopicId, i32)]) -> ConsumerGroupHeartbeatRequest {
    let mut topics: Vec<request::TopicPartitions> = Vec::new();
    for (topic, partition) in owned {
        match topics.last_mut().filter(|last| last.topic_id.0 == topic.0) {
            Some(last) => last.partitions.push(*partition),
            None => topics.push(request::TopicPartitions {
                topic_id: Uuid(topic.0),
                partitions: vec![*partition],
            }),
        }
    }
    ConsumerGroupHeartbeatRequest {
        topic_partitions: Some(topics),
        rebalance_timeout_ms: -1,
        ..quiet(id, epoch)
    }
}

/// A heartbeat that only says that the member is there.
fn quiet(id: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: Str::from_static("g"),
        member_id: Str::from(id),
        member_epoch: epoch,
        ..Default::default()
    }
}

fn given(answer: &ConsumerGroupHeartbeatResponse) -> Option<Vec<(TopicId, i32)>> {
    let topics = &answer.assignment.as_ref()?.topic_partitions;
    let all = topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (TopicId(topic.topic_id.0), *partition))
    });
    Some(all.collect())
}
