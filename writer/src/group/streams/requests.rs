//! StreamsGroupHeartbeat and StreamsGroupDescribe: from the request to the group's machine and back.

use std::collections::BTreeSet;

use sluice_model::group_config::StreamsSettings;
use sluice_wire::messages::create_topics_request::CreatableTopic;
use sluice_wire::messages::streams_group_describe_response::DescribedGroup;
use sluice_wire::messages::streams_group_heartbeat_request::StreamsGroupHeartbeatRequest;
use sluice_wire::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;
use sluice_wire::{ErrorCode, Str};

use super::{Beat, Context, Settings, Stored, StreamsGroup, TopicView, Value, check_request};
use crate::group::kind::{Commit, Kind, Modern};
use crate::group::machine::{State, Tick};
use crate::group::modern::{Refusal, Turn};
use crate::group::record::ModernKind;
use crate::group::stored::Parts;
use crate::group::{GroupCaller, GroupCoordinator};

impl GroupCoordinator {
    /// StreamsGroupHeartbeat, version 0. Answers when what it changed is durable, and says which
    /// topics are to be created for the application.
    pub async fn streams_group_heartbeat(
        &self,
        caller: &GroupCaller,
        request: &StreamsGroupHeartbeatRequest,
    ) -> (StreamsGroupHeartbeatResponse, Vec<CreatableTopic>) {
        match self.streams_heartbeat_checked(caller, request).await {
            Ok(Beat { answer, missing }) => (answer, missing),
            Err(refusal) => {
                let answer = StreamsGroupHeartbeatResponse {
                    error_code: refusal.code.code(),
                    error_message: refusal.message,
                    ..Default::default()
                };
                (answer, Vec::new())
            }
        }
    }

    async fn streams_heartbeat_checked(
        &self,
        caller: &GroupCaller,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Beat, Refusal> {
        self.shared.check_active()?;
        check_request(request)?;
        self.check(&request.group_id)?;
        if request.member_id.len() > self.shared.config.max_member_id_bytes {
            return Err(ErrorCode::InvalidRequest.into());
        }
        let (group_id, epoch) = (&*request.group_id, request.member_epoch);
        let event = |kind: &mut Kind, turn: &mut Turn<'_>| on_beat(kind, turn, caller, request);
        self.decide(caller, group_id, epoch == 0, event).await.unwrap_or_else(|| {
            let what = if epoch < 0 { "Group" } else { "Streams group" };
            let message = format!("{what} {group_id} not found.");
            Err(Refusal::new(ErrorCode::GroupIdNotFound, message))
        })
    }

    /// StreamsGroupDescribe, version 0: a description or an error for each id.
    pub async fn streams_group_describe(
        &self,
        caller: &GroupCaller,
        group_ids: Vec<Str>,
    ) -> Vec<DescribedGroup> {
        let mut groups = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let found = self.describe_streams_group(caller, &group_id).await;
            groups.push(found.unwrap_or_else(|refusal| DescribedGroup {
                error_code: refusal.code.code(),
                error_message: refusal.message,
                group_id,
                ..Default::default()
            }));
        }
        groups
    }

    async fn describe_streams_group(
        &self,
        caller: &GroupCaller,
        group_id: &Str,
    ) -> Result<DescribedGroup, Refusal> {
        self.check(group_id)?;
        let absent = |message| Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        let found = self.decide(caller, group_id, false, |kind, _| match kind {
            Kind::Streams(group) => Ok(group.describe(group_id)),
            Kind::Classic(_) | Kind::Consumer(_) | Kind::Share(_) => {
                absent(format!("Group {group_id} is not a streams group."))
            }
        });
        found.await.unwrap_or_else(|| absent(format!("Group {group_id} not found.")))
    }
}

/// A heartbeat reaches a group of whatever kind.
fn on_beat(
    kind: &mut Kind,
    turn: &mut Turn<'_>,
    caller: &GroupCaller,
    request: &StreamsGroupHeartbeatRequest,
) -> Result<Beat, Refusal> {
    let joins = request.member_epoch == 0;
    match kind {
        Kind::Streams(group) if request.member_epoch < 0 => {
            let group_id = turn.group;
            group.in_turn(turn, |group, cx| group.leave(cx, group_id, request))
        }
        Kind::Streams(group) => {
            group.in_turn(turn, |group, cx| group.heartbeat(cx, caller, request))
        }
        // Ids that were handed out and have not joined keep nobody out, as in Kafka.
        Kind::Classic(classic) if joins && classic.state() == State::Empty => {
            let mut group = StreamsGroup::default();
            let beat = group.in_turn(turn, |group, cx| group.heartbeat(cx, caller, request))?;
            *kind = Kind::Streams(Box::new(group));
            Ok(beat)
        }
        Kind::Classic(_) | Kind::Consumer(_) | Kind::Share(_) => {
            let message = format!("Group {} is not a streams group.", turn.group);
            Err(Refusal::new(ErrorCode::GroupIdNotFound, message))
        }
    }
}

fn settings(turn: &Turn<'_>) -> Settings {
    let StreamsSettings { times, initial_rebalance_delay_ms, num_standby_replicas } =
        turn.settings.streams;
    Settings {
        session_timeout_ms: times.session_timeout_ms,
        heartbeat_interval_ms: times.heartbeat_interval_ms,
        standbys: num_standby_replicas,
        initial_rebalance_delay_ms,
        assignment_interval_ms: times.assignment_interval_ms,
        max_members: turn.config.max_group_size,
        max_topology_bytes: turn.config.max_subscription_bytes,
        max_tasks: turn.config.max_tasks_per_group,
    }
}

impl StreamsGroup {
    /// The group of its parts. What cannot be read was refused when it was stored.
    pub(crate) fn of(parts: &Parts) -> Self {
        let mut stored = Stored::default();
        for (part, value) in parts.iter() {
            if let Err(error) = stored.take(part, value) {
                tracing::warn!(%error, "a part of a streams group cannot be read");
            }
        }
        Self::load(stored)
    }

    /// Gives the group an event, and logs what it touched.
    fn in_turn<R>(
        &mut self,
        turn: &mut Turn<'_>,
        event: impl FnOnce(&mut Self, &mut Context<'_>) -> R,
    ) -> R {
        let (topics, tenant) = (turn.topics, turn.tenant);
        let find = |name: &str| topics.find(tenant, name);
        let mut cx = Context {
            now: turn.now,
            settings: settings(turn),
            topics: TopicView { version: topics.version(tenant), find: &find },
            touched: BTreeSet::new(),
        };
        let result = event(self, &mut cx);
        for part in std::mem::take(&mut cx.touched) {
            let value = self.part(&part).map(Value::encode);
            turn.log(ModernKind::Streams, &part.key(), value);
        }
        result
    }
}

impl Modern for StreamsGroup {
    fn restart(&mut self, turn: &mut Turn<'_>) {
        self.in_turn(turn, Self::restart);
    }

    fn on_time(&mut self, turn: &mut Turn<'_>) {
        self.in_turn(turn, Self::on_time);
    }

    fn wake(&self) -> Option<Tick> {
        self.wake
    }

    fn is_vacant(&self) -> bool {
        self.members.is_empty()
    }

    fn member_count(&self) -> usize {
        self.members.len()
    }

    fn type_name(&self) -> &'static str {
        "streams"
    }

    fn protocol_type(&self) -> &'static str {
        "streams"
    }

    fn state_name(&self) -> &'static str {
        self.state().name()
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        self.reads(topic)
    }

    fn check_commit(&self, commit: &mut Commit<'_>) -> Result<(), ErrorCode> {
        self.may_commit(commit)
    }

    fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        self.may_fetch(member_id, epoch)
    }

    fn check_offset_delete(&self) -> Result<(), ErrorCode> {
        Ok(())
    }
}
