//! A member of a consumer group whose partitions the server deals out (KIP-848), or its members among themselves (see
//! [`super::classic`]): heartbeats, what it owns, and the offsets that it commits. It speaks to the coordinator only; what it owns is fetched by its [`super::Consumer`].
//!
//! What always holds: it owns nothing that it has not been given, and gives up what it is to give up before it says
//! so; a member that was thrown out owns nothing and begins anew.

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_wire::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};
use sluice_wire::messages::find_coordinator_request::FindCoordinatorRequest;
use sluice_wire::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use sluice_wire::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use sluice_wire::{ErrorCode, Str};
use tokio::time::Instant;

use crate::client::{CallError, Connection};
use crate::load::Load;

/// FindCoordinator: of a group.
const GROUP: i8 = 0;
/// Kafka's `retry.backoff.ms`.
const BACKOFF: Duration = Duration::from_millis(100);
/// Kafka's `auto.commit.interval.ms`.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Between two heartbeats at the end of a run.
const HURRY: Duration = Duration::from_millis(500);
/// How long a member may take to give up partitions; as `max.poll.interval.ms`.
const REBALANCE_TIMEOUT_MS: i32 = 300_000;
/// What a member says when it leaves.
const LEAVE: i32 = -1;

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) group: Str,
    /// Its own choice, for all its life; in the classic protocol the coordinator's.
    pub(super) id: Str,
    is_classic: bool,
    /// In the classic protocol the generation. 0: it has not joined.
    pub(super) epoch: i32,
    /// The classic group is dealt out anew, and waits for it.
    pub(super) rejoins: bool,
    coordinator: Option<Connection>,
    pub(super) owned: BTreeSet<u32>,
    /// The coordinator knows what is owned.
    is_told: bool,
    last_beat: Instant,
    pub(super) next_beat: Instant,
    next_commit: Instant,
}

/// What a heartbeat has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// To be given up: offsets are to be committed, and then [`Member::give_up`] called.
    pub(super) revoked: BTreeSet<u32>,
    /// Lost already: nothing can be committed.
    pub(super) lost: bool,
    /// All that are new, if there is another assignment.
    pub(super) added: Option<BTreeSet<u32>>,
}

impl Member {
    /// One that joins with its first heartbeat.
    pub(super) fn new(group: Str, id: Str, is_classic: bool) -> Self {
        let now = Instant::now();
        Self {
            group,
            id: if is_classic { Str::default() } else { id },
            is_classic,
            epoch: 0,
            rejoins: false,
            coordinator: None,
            owned: BTreeSet::new(),
            is_told: true,
            last_beat: now,
            next_beat: now,
            next_commit: now + COMMIT_EVERY,
        }
    }

    /// When it next has something to say.
    pub(super) fn next_at(&self) -> Instant {
        self.next_beat.min(self.next_commit)
    }

    /// The run is at its end: it asks for its partitions more often than the coordinator wants, so that the last
    /// rebalance takes no longer than it has to.
    pub(super) fn hurry(&mut self) {
        self.next_beat = self.next_beat.min(self.last_beat + HURRY);
    }

    /// Whether offsets are to be committed now.
    pub(super) fn is_commit_due(&self) -> bool {
        Instant::now() >= self.next_commit
    }

    /// Says that it is alive, if it is time; what that has changed. Failures that pass over only put it off.
    pub(super) async fn beat(&mut self, load: &Load, client_id: &Str) -> Result<Change, CallError> {
        if Instant::now() < self.next_beat {
            return Ok(Change::default());
        }
        self.last_beat = Instant::now();
        if self.is_classic {
            return self.beat_classic(load, client_id).await;
        }
        let topic_id = load.leaders().topic_id;
        let joins = self.epoch == 0;
        let owned = TopicPartitions {
            topic_id,
            partitions: self.owned.iter().map(|index| *index as i32).collect(),
        };
        let owned = if self.owned.is_empty() { Vec::new() } else { vec![owned] };
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if joins { REBALANCE_TIMEOUT_MS } else { -1 },
            subscribed_topic_names: joins.then(|| vec![load.topic.clone()]),
            topic_partitions: (joins || !self.is_told).then_some(owned),
            ..Default::default()
        };
        let answer = match self.call(load, client_id, &request).await {
            Ok(answer) => answer,
            Err(error) => return self.put_off(load, error).map(|()| Change::default()),
        };
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {}
            ErrorCode::UnknownMemberId | ErrorCode::FencedMemberEpoch => {
                load.noted(format!("group: {}", ErrorCode::from_code(answer.error_code)));
                self.forget();
                return Ok(Change { lost: true, ..Change::default() });
            }
            code => {
                let refused = CallError::refused("a group's heartbeat", code.code());
                return self.put_off(load, refused).map(|()| Change::default());
            }
        }
        self.epoch = answer.member_epoch;
        self.is_told = true;
        let interval_ms = u64::try_from(answer.heartbeat_interval_ms).unwrap_or(0).max(1);
        self.next_beat = Instant::now() + Duration::from_millis(interval_ms);
        let Some(assignment) = answer.assignment else { return Ok(Change::default()) };
        let own = assignment.topic_partitions.into_iter().filter(|of| of.topic_id == topic_id);
        let partitions = own.flat_map(|of| of.partitions);
        let target: BTreeSet<u32> =
            partitions.filter_map(|index| u32::try_from(index).ok()).collect();
        Ok(Change {
            revoked: self.owned.difference(&target).copied().collect(),
            added: Some(target.difference(&self.owned).copied().collect()),
            lost: false,
        })
    }

    /// These are fetched no more.
    pub(super) fn give_up(&mut self, partitions: &BTreeSet<u32>) {
        self.owned.retain(|partition| !partitions.contains(partition));
        self.tell();
    }

    /// These are fetched from now on.
    pub(super) fn take(&mut self, partitions: &BTreeSet<u32>) {
        self.owned.extend(partitions);
        self.tell();
    }

    /// What is owned is said at once.
    fn tell(&mut self) {
        self.is_told = false;
        self.next_beat = Instant::now();
    }

    /// It is no member any more, and owns nothing; it joins again at once.
    pub(super) fn forget(&mut self) {
        self.epoch = 0;
        self.rejoins = false;
        self.owned.clear();
        self.is_told = true;
        self.next_beat = Instant::now();
    }

    /// Where the group is in these partitions; 0 where it has committed nothing. None if the coordinator cannot
    /// say now: it is asked again with the next heartbeat.
    pub(super) async fn committed(
        &mut self,
        load: &Load,
        client_id: &Str,
        partitions: &BTreeSet<u32>,
    ) -> Result<Option<Vec<(u32, i64)>>, CallError> {
        let topic = OffsetFetchRequestTopics {
            name: load.topic.clone(),
            topic_id: load.leaders().topic_id,
            partition_indexes: partitions.iter().map(|index| *index as i32).collect(),
        };
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: self.group.clone(),
                // Classic members do not say who asks.
                member_id: (!self.is_classic).then(|| self.id.clone()),
                member_epoch: if self.is_classic { -1 } else { self.epoch },
                topics: Some(vec![topic]),
            }],
            require_stable: true,
            ..Default::default()
        };
        let answer = match self.call(load, client_id, &request).await {
            Ok(answer) => answer,
            Err(error) => return self.put_off(load, error).map(|()| None),
        };
        let mut offsets = Vec::new();
        for group in answer.groups {
            let found = group.topics.iter().flat_map(|topic| &topic.partitions);
            let mut codes = std::iter::once(group.error_code).chain(found.map(|of| of.error_code));
            if let Some(code) = codes.find(|code| *code != 0) {
                let refused = CallError::refused("fetching a group's offsets", code);
                return self.put_off(load, refused).map(|()| None);
            }
            for of in group.topics.into_iter().flat_map(|topic| topic.partitions) {
                if let Ok(index) = u32::try_from(of.partition_index) {
                    offsets.push((index, of.committed_offset.max(0)));
                }
            }
        }
        Ok(Some(offsets))
    }

    /// Commits offsets. What cannot be committed now is read again by whoever comes next.
    pub(super) async fn commit(
        &mut self,
        load: &Load,
        client_id: &Str,
        offsets: impl Iterator<Item = (u32, i64)>,
    ) -> Result<(), CallError> {
        self.next_commit = Instant::now() + COMMIT_EVERY;
        let partitions = offsets.map(|(index, offset)| OffsetCommitRequestPartition {
            partition_index: index as i32,
            committed_offset: offset,
            ..Default::default()
        });
        let partitions: Vec<_> = partitions.collect();
        if partitions.is_empty() || self.epoch == 0 {
            return Ok(());
        }
        let (name, topic_id) = (load.topic.clone(), load.leaders().topic_id);
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: self.epoch,
            member_id: self.id.clone(),
            topics: vec![OffsetCommitRequestTopic { name, topic_id, partitions }],
            ..Default::default()
        };
        let answer = match self.call(load, client_id, &request).await {
            Ok(answer) => answer,
            Err(error) => return self.put_off(load, error),
        };
        let mut codes = answer.topics.iter().flat_map(|topic| &topic.partitions);
        match codes.find(|of| of.error_code != 0) {
            None => Ok(()),
            Some(of) => self.put_off(load, CallError::refused("committing offsets", of.error_code)),
        }
    }

    /// Leaves the group, and owns nothing. It joins again with its next heartbeat.
    pub(super) async fn leave(&mut self, load: &Load, client_id: &Str) -> Result<(), CallError> {
        if self.epoch == 0 {
            return Ok(());
        }
        if self.is_classic {
            return self.leave_classic(load, client_id).await;
        }
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.clone(),
            member_id: self.id.clone(),
            member_epoch: LEAVE,
            ..Default::default()
        };
        let outcome = self.call(load, client_id, &request).await;
        self.forget();
        match outcome {
            // One that is not known has left.
            Ok(_) => Ok(()),
            Err(error) => self.put_off(load, error),
        }
    }

    /// A failure that passes over: the coordinator is looked for again, and asked a little later.
    pub(super) fn put_off(&mut self, load: &Load, error: CallError) -> Result<(), CallError> {
        let passes = match &error {
            // The next heartbeat tells the epoch, or that it is a member no more.
            CallError::Refused { code, .. } => {
                code.retriable()
                    || matches!(
                        code,
                        ErrorCode::StaleMemberEpoch
                            | ErrorCode::FencedMemberEpoch
                            | ErrorCode::UnknownMemberId
                            | ErrorCode::UnstableOffsetCommit
                            | ErrorCode::IllegalGeneration
                            | ErrorCode::RebalanceInProgress
                    )
            }
            error => error.is_retriable(),
        };
        if !passes {
            return Err(error);
        }
        load.repeated(0, error.to_string());
        self.coordinator = None;
        self.next_beat = Instant::now() + BACKOFF;
        Ok(())
    }

    pub(super) async fn call<R: sluice_wire::Request>(
        &mut self,
        load: &Load,
        client_id: &Str,
        request: &R,
    ) -> Result<R::Response, CallError> {
        let coordinator = match self.coordinator.take().filter(Connection::is_open) {
            Some(coordinator) => coordinator,
            None => find(load, client_id, &self.group).await?,
        };
        let answer = coordinator.call(request).await;
        self.coordinator = answer.is_ok().then_some(coordinator);
        answer
    }
}

/// A connection to the coordinator of a group.
async fn find(load: &Load, client_id: &Str, group: &Str) -> Result<Connection, CallError> {
    let request = FindCoordinatorRequest {
        key_type: GROUP,
        coordinator_keys: vec![group.clone()],
        ..Default::default()
    };
    let answer = load.cluster.any(client_id).await?.call(&request).await?;
    let refused = |code| CallError::refused("finding a group's coordinator", code);
    let unknown = || refused(ErrorCode::CoordinatorNotAvailable.code());
    let found = answer.coordinators.into_iter().next().ok_or_else(unknown)?;
    if found.error_code != 0 {
        return Err(refused(found.error_code));
    }
    load.cluster.at(format!("{}:{}", found.host, found.port), client_id).await
}
