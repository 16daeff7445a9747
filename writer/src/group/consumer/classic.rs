//! Members of the classic protocol in a consumer group, while a group changes over: JoinGroup takes a
//! member one step towards the target, SyncGroup gives it what it has, Heartbeat tells it to join again
//! when there is more to do. Nobody waits for anybody.

use bytes::Bytes;
use sluice_model::TopicId;
use sluice_wire::messages::heartbeat_request::HeartbeatRequest;
use sluice_wire::messages::join_group_request::JoinGroupRequest;
use sluice_wire::messages::join_group_response::JoinGroupResponse;
use sluice_wire::messages::sync_group_request::SyncGroupRequest;
use sluice_wire::messages::sync_group_response::SyncGroupResponse;
use sluice_wire::{ErrorCode, Str};

use super::ConsumerGroup;
use super::embedded::{self, Named};
use super::heartbeat::{check_size, full, sorted};
use super::member::{ClassicProfile, Member, MemberState, Profile};
use crate::group::kind::Modern;
use crate::group::machine::{CONSUMER, Leaving, refused_join};
use crate::group::modern::{Refusal, Turn};
use crate::group::partitions::Partitions;

/// A JoinGroup request.
pub(super) struct Join<'a> {
    pub(super) request: &'a JoinGroupRequest,
    pub(super) version: i16,
    pub(super) client_id: &'a str,
    pub(super) client_host: &'a str,
    /// For a member that has no id yet.
    pub(super) new_id: Str,
}

impl ConsumerGroup {
    /// JoinGroup.
    pub(super) fn join(
        &mut self,
        turn: &mut Turn<'_>,
        join: &Join<'_>,
    ) -> Result<JoinGroupResponse, Refusal> {
        let request = join.request;
        let is_unknown = request.member_id.is_empty();
        let id = if is_unknown { join.new_id.clone() } else { Str::from(&*request.member_id) };
        let max = turn.config.consumer_max_group_size;
        if self.members.len() >= max && !self.members.contains_key(&id) {
            return Err(full(max));
        }
        if !self.supports(request) {
            return Err(ErrorCode::InconsistentGroupProtocol.into());
        }
        let instance = request.group_instance_id.as_deref();
        if is_unknown && instance.is_none() && join.version >= 4 {
            // KIP-394: the id is handed out first. Nothing is kept of it.
            return Ok(refused_join(&id, ErrorCode::MemberIdRequired));
        }
        if let (Some(instance), false) = (instance, is_unknown) {
            self.static_member(instance, &id)?;
        }
        let (profile, owned) = self.classic_profile(turn, join)?;
        // From here on nothing is refused.
        let holder = instance.and_then(|instance| self.statics.get(instance)).cloned();
        match holder.filter(|holder| *holder != id) {
            Some(old) => self.replace(turn, &old, &id),
            None if self.members.contains_key(&id) => {}
            None => drop(self.members.insert(id.clone(), Box::default())),
        }
        let protocol = profile.classic.as_ref().and_then(|classic| classic.protocols.first());
        let protocol_name = protocol.map(|(name, _)| name.clone());
        let narrowed = self.update(turn, &id, profile);
        // A member that has to wait for its target would join again and again.
        self.assign_now(turn);
        self.reconcile(turn, &id, Some(&owned), narrowed);
        self.touch(turn, &id);
        let mut epoch = 0;
        if let Some(member) = self.members.get_mut(&id) {
            epoch = member.current.epoch;
            member.deadlines.join = None;
            let at = turn.now.after(member.profile.rebalance_timeout_ms);
            member.deadlines.sync = Some(at);
            self.wake_by(at);
        }
        self.convert_if_all_classic(turn);
        Ok(JoinGroupResponse {
            generation_id: epoch,
            protocol_type: Some(Str::from_static(CONSUMER)),
            protocol_name,
            member_id: id,
            ..Default::default()
        })
    }

    /// The member offers a strategy that all classic members do.
    fn supports(&self, request: &JoinGroupRequest) -> bool {
        let all_offer = |name: &Str| {
            let classic = self.members.values().filter_map(|m| m.profile.classic.as_deref());
            classic.into_iter().all(|c| c.protocols.iter().any(|(offered, _)| offered == name))
        };
        *request.protocol_type == *CONSUMER && request.protocols.iter().any(|p| all_offer(&p.name))
    }

    fn classic_profile(
        &self,
        turn: &Turn<'_>,
        join: &Join<'_>,
    ) -> Result<(Profile, Partitions), Refusal> {
        let request = join.request;
        let first = request.protocols.first().ok_or(ErrorCode::InconsistentGroupProtocol)?;
        let subscription = embedded::subscription(&first.metadata)
            .map_err(|_| ErrorCode::InconsistentGroupProtocol)?;
        let protocols = request
            .protocols
            .iter()
            .map(|offered| (Str::from(&*offered.name), Bytes::copy_from_slice(&offered.metadata)));
        let session = request.session_timeout_ms;
        let classic =
            ClassicProfile { session_timeout_ms: session, protocols: protocols.collect() };
        let profile = Profile {
            instance: request.group_instance_id.as_ref().map(|instance| Str::from(&**instance)),
            rack: subscription.rack,
            client_id: Str::from(join.client_id),
            client_host: Str::from(join.client_host),
            // Version 0 has no rebalance timeout: there the session timeout is both.
            rebalance_timeout_ms: if join.version == 0 {
                session
            } else {
                request.rebalance_timeout_ms
            },
            assignor: None,
            names: sorted(&subscription.topics),
            regex: Str::default(),
            classic: Some(Box::new(classic)),
        };
        check_size(turn, &profile)?;
        Ok((profile, by_id(turn, &subscription.owned)))
    }

    /// SyncGroup: what the member has.
    pub(super) fn sync(
        &mut self,
        turn: &mut Turn<'_>,
        request: &SyncGroupRequest,
    ) -> Result<SyncGroupResponse, Refusal> {
        let id = &*request.member_id;
        let instance = request.group_instance_id.as_deref();
        let member = self.classic_member(id, instance, request.generation_id)?;
        let classic = member.profile.classic.as_deref();
        let (protocol, subscription) =
            classic.and_then(|classic| classic.protocols.first()).cloned().unwrap_or_default();
        let differs =
            |said: &Option<Str>, ours: &str| said.as_deref().is_some_and(|said| said != ours);
        if differs(&request.protocol_type, CONSUMER) || differs(&request.protocol_name, &protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol.into());
        }
        if self.epoch > member.current.epoch && member.current.state != MemberState::Unrevoked {
            self.ask_to_join(turn, id);
            return Err(ErrorCode::RebalanceInProgress.into());
        }
        let version = embedded::subscription(&subscription).map_or(0, |known| known.version);
        let held = member.current.assigned.topics();
        let held: Named = held
            .filter_map(|(topic, held)| {
                let name = turn.topics.name(turn.tenant, topic)?;
                Some((name, held.iter().map(|(partition, _)| *partition).collect()))
            })
            .collect();
        if let Some(member) = self.members.get_mut(id) {
            member.deadlines.sync = None;
        }
        self.touch(turn, id);
        Ok(SyncGroupResponse {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: embedded::encode_assignment(version, &held),
            ..Default::default()
        })
    }

    /// Heartbeat.
    pub(super) fn classic_heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        request: &HeartbeatRequest,
    ) -> Result<(), Refusal> {
        let id = &*request.member_id;
        let instance = request.group_instance_id.as_deref();
        let member = self.classic_member(id, instance, request.generation_id)?;
        let current = &member.current;
        let joins = current.epoch < self.epoch
            || current.state == MemberState::Unrevoked
            || (current.state == MemberState::Unreleased && !self.waits_for_others(member));
        self.touch(turn, id);
        if joins {
            self.ask_to_join(turn, id);
            return Err(ErrorCode::RebalanceInProgress.into());
        }
        Ok(())
    }

    /// LeaveGroup: a code for each, in the same order.
    pub(super) fn classic_leave(
        &mut self,
        turn: &mut Turn<'_>,
        leaving: &[Leaving<'_>],
    ) -> Vec<ErrorCode> {
        let mut ids = Vec::new();
        let codes = leaving.iter().map(|leaving| {
            let id = self.who_leaves(leaving)?;
            ids.push(id);
            Ok(())
        });
        let codes: Vec<Result<(), ErrorCode>> = codes.collect();
        self.fence(turn, &ids);
        codes.into_iter().map(|code| code.err().unwrap_or(ErrorCode::None)).collect()
    }

    fn who_leaves(&self, leaving: &Leaving<'_>) -> Result<Str, ErrorCode> {
        let id = match leaving.instance {
            None => Str::from(leaving.member_id),
            Some(instance) => {
                let holder = self.statics.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
                if !leaving.member_id.is_empty() && **holder != *leaving.member_id {
                    return Err(ErrorCode::FencedInstanceId);
                }
                holder.clone()
            }
        };
        match self.members.get(&id) {
            Some(member) if member.is_classic() => Ok(id),
            _ => Err(ErrorCode::UnknownMemberId),
        }
    }

    fn classic_member(
        &self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<&Member, Refusal> {
        let member = match instance {
            Some(instance) => self.static_member(instance, id)?,
            None => self.members.get(id).ok_or_else(|| self.unknown(id))?,
        };
        if !member.is_classic() {
            return Err(self.unknown(id));
        }
        if member.current.epoch != generation {
            return Err(ErrorCode::IllegalGeneration.into());
        }
        Ok(member)
    }

    /// A member that was told to join again has its rebalance timeout for it.
    fn ask_to_join(&mut self, turn: &Turn<'_>, id: &str) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.deadlines.join.is_none() {
            let at = turn.now.after(member.profile.rebalance_timeout_ms);
            member.deadlines.join = Some(at);
            self.wake_by(at);
        }
    }

    /// Who speaks the consumer protocol is gone: the group is a classic one again.
    pub(super) fn convert_if_all_classic(&self, turn: &mut Turn<'_>) {
        let max = turn.config.max_group_size;
        let all = !self.is_vacant() && self.members.values().all(|member| member.is_classic());
        if all && self.members.len() <= max {
            self.convert_to_classic(turn);
        }
    }
}

/// Partitions by topic id; what does not exist is left out.
pub(super) fn by_id(turn: &Turn<'_>, named: &Named) -> Partitions {
    let shapes = named.iter().filter_map(|(topic, partitions)| {
        Some((turn.topics.find(turn.tenant, topic)?, partitions))
    });
    let all = shapes.flat_map(|(shape, partitions)| {
        let exist = partitions.iter().copied().filter(move |p| (0..shape.partitions).contains(p));
        exist.map(move |partition| (shape.id, partition))
    });
    all.collect::<Vec<(TopicId, i32)>>().into_iter().collect()
}
