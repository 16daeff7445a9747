//! The classic group protocol: JoinGroup, SyncGroup, Heartbeat. A member that the coordinator makes the leader deals the
//! partitions out by ranges, as Kafka's range assignor does where there is one topic.
//!
//! What always holds: a member gives up all that it has before it joins again (the "eager" protocol), and owns nothing
//! until it is told what.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use sluice_wire::messages::consumer_protocol_assignment::{
    ConsumerProtocolAssignment, TopicPartition,
};
use sluice_wire::messages::consumer_protocol_subscription::ConsumerProtocolSubscription;
use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use sluice_wire::messages::sync_group_request::{SyncGroupRequest, SyncGroupRequestAssignment};
use sluice_wire::{ApiKey, Decoder, EncodeError, Encoder, ErrorCode, Message, Str};
use tokio::time::Instant;

use super::member::{Change, Member};
use crate::client::CallError;
use crate::load::Load;

/// The version of subscriptions and assignments that is written: the first, which everybody understands.
const VERSION: i16 = 0;
const PROTOCOL_TYPE: Str = Str::from_static("consumer");
const RANGE: Str = Str::from_static("range");
/// Kafka's `heartbeat.interval.ms`.
const BEAT_EVERY: Duration = Duration::from_secs(3);
/// Kafka's `session.timeout.ms` of old: who is killed is missed for so long.
const SESSION_TIMEOUT_MS: i32 = 10_000;
/// The others may take so long to join again; an answer to JoinGroup takes no longer.
const REBALANCE_TIMEOUT_MS: i32 = 30_000;

impl Member {
    /// Joins, or says that it is alive; what that has changed.
    pub(super) async fn beat_classic(
        &mut self,
        load: &Load,
        client_id: &Str,
    ) -> Result<Change, CallError> {
        if self.epoch == 0 || self.rejoins {
            return self.join(load, client_id).await;
        }
        let request = HeartbeatRequest {
            group_id: self.group.clone(),
            generation_id: self.epoch,
            member_id: self.id.clone(),
            ..Default::default()
        };
        let answer = match self.call(load, client_id, &request).await {
            Ok(answer) => answer,
            Err(error) => return self.put_off(load, error).map(|()| Change::default()),
        };
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {
                self.next_beat = Instant::now() + BEAT_EVERY;
                Ok(Change::default())
            }
            ErrorCode::RebalanceInProgress => {
                self.rejoins = true;
                self.next_beat = Instant::now();
                // What it was to take is not its own any more either.
                let (revoked, added) = (self.owned.clone(), Some(BTreeSet::new()));
                Ok(Change { revoked, added, lost: false })
            }
            error => self.refused(load, "a group's heartbeat", error),
        }
    }

    /// Joins the group, and waits for its part.
    async fn join(&mut self, load: &Load, client_id: &Str) -> Result<Change, CallError> {
        let subscription =
            ConsumerProtocolSubscription { topics: vec![load.topic.clone()], ..Default::default() };
        let metadata = embedded(&subscription)?;
        let request = JoinGroupRequest {
            group_id: self.group.clone(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.id.clone(),
            protocol_type: PROTOCOL_TYPE,
            protocols: vec![JoinGroupRequestProtocol { name: RANGE, metadata }],
            ..Default::default()
        };
        let joined = match self.call(load, client_id, &request).await {
            Ok(answer) => answer,
            Err(error) => return self.put_off(load, error).map(|()| Change::default()),
        };
        match ErrorCode::from_code(joined.error_code) {
            ErrorCode::None => {}
            // It has a name now, and comes again with it (KIP-394).
            ErrorCode::MemberIdRequired => {
                self.id = Str::from(&*joined.member_id);
                self.next_beat = Instant::now();
                return Ok(Change::default());
            }
            error => return self.refused(load, "joining a group", error),
        }
        // Names that outlive the frames that they came in.
        self.id = Str::from(&*joined.member_id);
        let assignments =
            if joined.leader == joined.member_id { deal(load, &joined)? } else { Vec::new() };
        let request = SyncGroupRequest {
            group_id: self.group.clone(),
            generation_id: joined.generation_id,
            member_id: self.id.clone(),
            protocol_type: Some(PROTOCOL_TYPE),
            protocol_name: Some(RANGE),
            assignments,
            ..Default::default()
        };
        let answer = match self.call(load, client_id, &request).await {
            Ok(answer) => answer,
            Err(error) => return self.put_off(load, error).map(|()| Change::default()),
        };
        match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => {}
            // The next one has begun.
            ErrorCode::RebalanceInProgress => {
                self.next_beat = Instant::now();
                return Ok(Change::default());
            }
            error => return self.refused(load, "waiting for a group's assignment", error),
        }
        (self.epoch, self.rejoins) = (joined.generation_id, false);
        self.next_beat = Instant::now() + BEAT_EVERY;
        let added = assigned(&answer.assignment, &load.topic)?;
        Ok(Change { added: Some(added), ..Change::default() })
    }

    /// What an error means to a member: that it is none any more, or that it is to come again.
    fn refused(
        &mut self,
        load: &Load,
        doing: &'static str,
        error: ErrorCode,
    ) -> Result<Change, CallError> {
        match error {
            ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration => {
                load.noted(format!("group: {error}"));
                if error == ErrorCode::UnknownMemberId {
                    self.id = Str::default();
                }
                self.forget();
                Ok(Change { lost: true, ..Change::default() })
            }
            _ => {
                let refused = CallError::refused(doing, error.code());
                self.put_off(load, refused).map(|()| Change::default())
            }
        }
    }

    /// Says that it goes.
    pub(super) async fn leave_classic(
        &mut self,
        load: &Load,
        client_id: &Str,
    ) -> Result<(), CallError> {
        let leaving = MemberIdentity { member_id: self.id.clone(), ..Default::default() };
        let request = LeaveGroupRequest {
            group_id: self.group.clone(),
            members: vec![leaving],
            ..Default::default()
        };
        let outcome = self.call(load, client_id, &request).await;
        self.id = Str::default();
        self.forget();
        match outcome {
            // One that is not known has left.
            Ok(_) => Ok(()),
            Err(error) => self.put_off(load, error),
        }
    }
}

/// What a leader has to say: each member's ranges.
fn deal(
    load: &Load,
    joined: &JoinGroupResponse,
) -> Result<Vec<SyncGroupRequestAssignment>, CallError> {
    let mut members: Vec<&Str> = joined.members.iter().map(|member| &member.member_id).collect();
    members.sort_unstable();
    let ranges = ranges(load.workload.topic.partitions, members.len());
    let assignments = members.into_iter().zip(ranges).map(|(member_id, partitions)| {
        let partitions = partitions.map(|index| index as i32).collect();
        let topic = TopicPartition { topic: load.topic.clone(), partitions };
        let assignment =
            ConsumerProtocolAssignment { assigned_partitions: vec![topic], ..Default::default() };
        let assignment = embedded(&assignment)?;
        Ok(SyncGroupRequestAssignment { member_id: Str::from(&**member_id), assignment })
    });
    assignments.collect()
}

/// As even as can be; the first members have one more.
fn ranges(partitions: u32, members: usize) -> impl Iterator<Item = std::ops::Range<u32>> {
    let members = (members as u32).max(1);
    let (each, more) = (partitions / members, partitions % members);
    (0..members).map(move |member| {
        let first = member * each + member.min(more);
        first..first + each + u32::from(member < more)
    })
}

/// A message inside another one: its version, then itself.
fn embedded<M: Message>(message: &M) -> Result<Bytes, EncodeError> {
    let mut encoder = Encoder::new();
    message.encode(&mut encoder, VERSION)?;
    let body = encoder.into_chain().to_bytes();
    let mut bytes = BytesMut::with_capacity(2 + body.len());
    bytes.put_i16(VERSION);
    bytes.put(body);
    Ok(bytes.freeze())
}

/// The partitions of a topic in an assignment. One without bytes is empty.
fn assigned(bytes: &Bytes, topic: &Str) -> Result<BTreeSet<u32>, CallError> {
    let Some((version, body)) = bytes.split_first_chunk::<2>() else { return Ok(BTreeSet::new()) };
    // A later version begins as those that are known.
    let version =
        i16::from_be_bytes(*version).clamp(0, *ConsumerProtocolAssignment::VERSIONS.end());
    let mut decoder = Decoder::new(bytes.slice_ref(body));
    let assignment = ConsumerProtocolAssignment::decode(&mut decoder, version)
        .map_err(|error| CallError::Decode(ApiKey::SyncGroup, error))?;
    let own = assignment.assigned_partitions.into_iter().filter(|of| of.topic == *topic);
    Ok(own.flat_map(|of| of.partitions).filter_map(|index| u32::try_from(index).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_even_whole_and_in_order() {
        for (partitions, members) in [(8, 3), (3, 3), (2, 5), (100, 7), (1, 1)] {
            let all: Vec<_> = ranges(partitions, members).collect();
            assert_eq!(all.len(), members);
            let dealt: Vec<u32> = all.iter().cloned().flatten().collect();
            assert_eq!(dealt, (0..partitions).collect::<Vec<_>>(), "{all:?}");
            let sizes = all.iter().map(|range| range.len());
            assert!(sizes.clone().max().expect("one") - sizes.min().expect("one") <= 1, "{all:?}");
        }
    }

    #[test]
    fn an_assignment_reads_back_and_that_of_another_topic_is_not_ours() {
        let (own, other) = (Str::from("own"), Str::from("other"));
        let topic = |topic: &Str, partitions| TopicPartition { topic: topic.clone(), partitions };
        let assignment = ConsumerProtocolAssignment {
            assigned_partitions: vec![topic(&other, vec![9]), topic(&own, vec![4, 2, -1])],
            ..Default::default()
        };
        let bytes = embedded(&assignment).expect("encoded");
        assert_eq!(assigned(&bytes, &own).expect("read"), BTreeSet::from([2, 4]));
        assert_eq!(assigned(&Bytes::new(), &own).expect("empty"), BTreeSet::new());
        // As one of a version that is not known yet, with more behind.
        let mut later = BytesMut::from(&bytes[..]);
        later[..2].copy_from_slice(&99i16.to_be_bytes());
        later.put_slice(b"more");
        assert_eq!(assigned(&later.freeze(), &own).expect("read"), BTreeSet::from([2, 4]));
        assert!(assigned(&bytes.slice(..9), &own).is_err());
    }
}
