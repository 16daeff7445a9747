//! A group, its topics and its members, driven as a server and clients would.

mod assignor;
mod configure;
mod members;
mod offsets;
mod random;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sluice_model::{TenantId, TopicId};
use sluice_wire::ErrorCode;
use sluice_wire::messages::streams_group_heartbeat_request as request;
use sluice_wire::messages::streams_group_heartbeat_response as response;

use super::*;
use crate::group::GroupCaller;
use crate::group::modern::Refusal;

pub(super) fn settings() -> Settings {
    Settings {
        session_timeout_ms: 45_000,
        heartbeat_interval_ms: 5_000,
        standbys: 0,
        initial_rebalance_delay_ms: 0,
        assignment_interval_ms: 0,
        max_members: 100,
        max_topology_bytes: 1 << 20,
        max_tasks: 10_000,
    }
}

pub(super) fn text(text: &str) -> Str {
    Str::from(text)
}

pub(super) fn texts(names: &[&str]) -> Vec<Str> {
    names.iter().copied().map(Str::from).collect()
}

pub(super) fn internal(name: &str, partitions: i32) -> request::TopicInfo {
    request::TopicInfo { name: text(name), partitions, ..Default::default() }
}

/// Counts words: reads `in`, sends them by key through `by-word`, and keeps the counts.
pub(super) fn word_count() -> request::Topology {
    request::Topology {
        epoch: 0,
        subtopologies: vec![
            request::Subtopology {
                subtopology_id: text("0"),
                source_topics: texts(&["in"]),
                repartition_sink_topics: texts(&["by-word"]),
                ..Default::default()
            },
            request::Subtopology {
                subtopology_id: text("1"),
                repartition_source_topics: vec![internal("by-word", 0)],
                state_changelog_topics: vec![internal("counts", 0)],
                ..Default::default()
            },
        ],
    }
}

/// A member's side of the protocol: it has what it was last told.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) id: Str,
    pub(super) process: Str,
    pub(super) epoch: i32,
    pub(super) active: Vec<response::TaskIds>,
    pub(super) standby: Vec<response::TaskIds>,
    pub(super) endpoint: Option<u16>,
    pub(super) endpoint_epoch: i32,
}

impl Client {
    pub(super) fn new(id: &str, process: &str) -> Self {
        Self {
            id: text(id),
            process: text(process),
            epoch: 0,
            active: Vec::new(),
            standby: Vec::new(),
            endpoint: None,
            endpoint_epoch: 0,
        }
    }

    pub(super) fn request(&self) -> request::StreamsGroupHeartbeatRequest {
        let own = |tasks: &[response::TaskIds]| {
            let lists = tasks.iter().map(|list| request::TaskIds {
                subtopology_id: list.subtopology_id.clone(),
                partitions: list.partitions.clone(),
            });
            Some(lists.collect())
        };
        let joins = self.epoch == 0;
        request::StreamsGroupHeartbeatRequest {
            group_id: text("g"),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            endpoint_information_epoch: self.endpoint_epoch,
            rebalance_timeout_ms: if joins { 60_000 } else { -1 },
            topology: joins.then(word_count),
            active_tasks: own(&self.active),
            standby_tasks: own(&self.standby),
            warmup_tasks: Some(Vec::new()),
            process_id: joins.then(|| self.process.clone()),
            user_endpoint: self
                .endpoint
                .filter(|_| joins)
                .map(|port| request::Endpoint { host: text("h"), port }),
            ..Default::default()
        }
    }

    /// The answer came.
    pub(super) fn take(&mut self, answer: &response::StreamsGroupHeartbeatResponse) {
        self.epoch = answer.member_epoch;
        self.endpoint_epoch = answer.endpoint_information_epoch;
        if let Some(active) = &answer.active_tasks {
            self.active.clone_from(active);
        }
        if let Some(standby) = &answer.standby_tasks {
            self.standby.clone_from(standby);
        }
    }

    /// It was told to begin anew.
    pub(super) fn lose_all(&mut self) {
        *self = Self { endpoint: self.endpoint, ..Self::new(&self.id, &self.process) };
    }

    pub(super) fn active_tasks(&self) -> BTreeSet<(Str, i32)> {
        flat(&self.active)
    }

    pub(super) fn standby_tasks(&self) -> BTreeSet<(Str, i32)> {
        flat(&self.standby)
    }
}

pub(super) fn flat(lists: &[response::TaskIds]) -> BTreeSet<(Str, i32)> {
    let pairs = |list: &response::TaskIds| {
        let id = list.subtopology_id.clone();
        list.partitions.clone().into_iter().map(move |partition| (id.clone(), partition))
    };
    lists.iter().flat_map(pairs).collect()
}

/// The group as its coordinator holds it: what is touched is stored at once.
pub(super) struct Server {
    pub(super) group: StreamsGroup,
    pub(super) stored: BTreeMap<Bytes, Bytes>,
    pub(super) topics: BTreeMap<Str, TopicShape>,
    pub(super) version: u64,
    pub(super) settings: Settings,
    pub(super) now: Tick,
    made: u8,
}

impl Server {
    pub(super) fn new(topics: &[(&str, i32)]) -> Self {
        let mut server = Self {
            group: StreamsGroup::default(),
            stored: BTreeMap::new(),
            topics: BTreeMap::new(),
            version: 0,
            settings: settings(),
            now: Tick(1_000),
            made: 0,
        };
        for (name, partitions) in topics {
            server.make_topic(name, *partitions);
        }
        server
    }

    pub(super) fn make_topic(&mut self, name: &str, partitions: i32) {
        self.made += 1;
        let shape = TopicShape { id: TopicId([self.made; 16]), partitions };
        self.topics.insert(text(name), shape);
        self.version += 1;
    }

    pub(super) fn grow_topic(&mut self, name: &str, partitions: i32) {
        self.topics.get_mut(name).expect("it was made").partitions = partitions;
        self.version += 1;
    }

    pub(super) fn delete_topic(&mut self, name: &str) {
        self.topics.remove(name);
        self.version += 1;
    }

    /// Gives the group an event and stores what it touched.
    pub(super) fn event<R>(
        &mut self,
        event: impl FnOnce(&mut StreamsGroup, &mut Context<'_>) -> R,
    ) -> R {
        let find = |name: &str| self.topics.get(name).copied();
        let mut cx = Context {
            now: self.now,
            settings: self.settings,
            topics: TopicView { version: self.version, find: &find },
            touched: BTreeSet::new(),
        };
        let result = event(&mut self.group, &mut cx);
        let touched = std::mem::take(&mut cx.touched);
        for part in touched {
            match self.group.part(&part) {
                Some(value) => drop(self.stored.insert(part.key(), value.encode())),
                None => drop(self.stored.remove(&part.key())),
            }
        }
        result
    }

    pub(super) fn beat(
        &mut self,
        request: &request::StreamsGroupHeartbeatRequest,
    ) -> Result<Beat, Refusal> {
        check_request(request)?;
        let caller = GroupCaller {
            tenant: TenantId(1),
            client_id: text("app"),
            client_host: text("/127.0.0.1"),
        };
        self.event(|group, cx| {
            if request.member_epoch < 0 {
                group.leave(cx, "g", request)
            } else {
                group.heartbeat(cx, &caller, request)
            }
        })
    }

    /// A heartbeat whose answer arrives; topics that are missing are made.
    pub(super) fn heartbeat(&mut self, client: &mut Client) -> Result<Beat, Refusal> {
        let beat = self.beat(&client.request())?;
        client.take(&beat.answer);
        for topic in &beat.missing {
            if !self.topics.contains_key(&topic.name) {
                self.make_topic(&topic.name, topic.num_partitions);
            }
        }
        Ok(beat)
    }

    /// Heartbeats of all, so often that nothing is left to do.
    pub(super) fn settle(&mut self, clients: &mut [Client]) {
        for _ in 0..8 {
            for client in clients.iter_mut() {
                if self.heartbeat(client).is_err() {
                    client.lose_all();
                }
            }
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now = Tick(self.now.0 + ms);
        if self.group.wake.is_some_and(|at| at <= self.now) {
            self.event(StreamsGroup::on_time);
        }
    }

    /// The process ends and another one reads what was stored.
    pub(super) fn crash(&mut self) {
        let mut stored = Stored::default();
        for (key, value) in &self.stored {
            stored.take(key, value).expect("as it was stored");
        }
        self.group = StreamsGroup::load(stored);
        self.version += 100;
        self.event(StreamsGroup::restart);
    }

    pub(super) fn describe(
        &self,
    ) -> sluice_wire::messages::streams_group_describe_response::DescribedGroup {
        self.group.describe(&text("g"))
    }
}

/// What a refusal tells the client's user.
pub(super) fn said(refusal: &Refusal) -> &str {
    refusal.message.as_deref().unwrap_or_default()
}

/// (code, detail) of each status.
pub(super) fn statuses(beat: &Beat) -> Vec<(i8, String)> {
    let statuses = beat.answer.status.iter().flatten();
    statuses.map(|status| (status.status_code, status.status_detail.to_string())).collect()
}
