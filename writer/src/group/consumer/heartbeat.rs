//! ConsumerGroupHeartbeat: joining, staying, changing, leaving.

use sluice_model::TopicId;
use sluice_wire::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use sluice_wire::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use sluice_wire::{ErrorCode, Str, Uuid};

use super::assignor::{Assignor, SUPPORTED};
use super::member::{Current, LEFT_FOR_NOW, Member, Profile};
use super::{ConsumerGroup, has_left_for_now, regex};
use crate::group::modern::{Refusal, Turn};
use crate::group::partitions::{Held, Partitions};

/// The member epoch of a heartbeat that joins.
pub(super) const JOIN: i32 = 0;
/// The member epoch of a heartbeat that leaves.
pub(super) const LEAVE: i32 = -1;
/// From this version on members choose their own ids (KIP-1082).
const OWN_ID_FROM: i16 = 1;

/// A heartbeat.
pub(super) struct Beat<'a> {
    pub(super) request: &'a ConsumerGroupHeartbeatRequest,
    pub(super) client_id: &'a str,
    pub(super) client_host: &'a str,
    /// The member's own, or one that was made for it.
    pub(super) member_id: Str,
}

/// Who sends a heartbeat.
enum Standing {
    /// A member.
    Known,
    /// Nobody yet.
    New,
    /// An instance that comes back; this member id held its place.
    Replaces(Str),
}

/// Checks what can be checked of a request alone.
pub(super) fn check(version: i16, request: &ConsumerGroupHeartbeatRequest) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let is_blank = |text: &str| text.trim().is_empty();
    let epoch = request.member_epoch;
    let needs_id = version >= OWN_ID_FROM || epoch > JOIN || epoch == LEAVE;
    if needs_id && is_blank(&request.member_id) {
        return refuse("MemberId can't be empty.");
    }
    if is_blank(&request.group_id) {
        return refuse("GroupId can't be empty.");
    }
    if request.instance_id.as_deref().is_some_and(is_blank) {
        return refuse("InstanceId can't be empty.");
    }
    if request.rack_id.as_deref().is_some_and(is_blank) {
        return refuse("RackId can't be empty.");
    }
    if epoch == JOIN {
        if request.rebalance_timeout_ms == -1 {
            return refuse("RebalanceTimeoutMs must be provided in first request.");
        }
        if request.topic_partitions.as_ref().is_none_or(|owned| !owned.is_empty()) {
            return refuse("TopicPartitions must be empty when (re-)joining.");
        }
        // Both may be empty: a member without subscriptions is a member.
        if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
            return refuse(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
            );
        }
    } else if epoch == LEFT_FOR_NOW && request.instance_id.is_none() {
        return refuse("InstanceId can't be null.");
    } else if epoch < LEFT_FOR_NOW {
        return refuse("MemberEpoch is invalid.");
    }
    if let Some(name) = &request.server_assignor
        && Assignor::from_name(name).is_none()
    {
        let message =
            format!("ServerAssignor {name} is not supported. Supported assignors: {SUPPORTED}.");
        return Err(Refusal::new(ErrorCode::UnsupportedAssignor, message));
    }
    Ok(())
}

impl ConsumerGroup {
    /// A heartbeat that joins or keeps alive.
    pub(super) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        beat: &Beat<'_>,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let (id, request) = (&beat.member_id, beat.request);
        let max = turn.config.consumer_max_group_size;
        if self.members.len() >= max && !self.members.contains_key(id) {
            return Err(full(max));
        }
        let standing = self.identify(beat)?;
        let profile = self.profile(turn, beat, &standing)?;
        let owned = request.topic_partitions.as_ref().map(|topics| {
            let all = topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|partition| (TopicId(topic.topic_id.0), *partition))
            });
            all.collect::<Partitions>()
        });
        // From here on nothing is refused.
        let before = self.members.get(id).map(|member| member.current.assigned.clone());
        match standing {
            Standing::Known => {}
            Standing::New => drop(self.members.insert(id.clone(), Box::default())),
            Standing::Replaces(old) => self.replace(turn, &old, id),
        }
        let narrowed = self.update(turn, id, profile);
        self.assign_if_due(turn);
        self.reconcile(turn, id, owned.as_ref(), narrowed);
        self.touch(turn, id);
        let is_full = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some())
            && request.topic_partitions.is_some();
        let current = self.members.get(id).map(|member| member.current.clone()).unwrap_or_default();
        let is_other = before.is_none_or(|before| !before.same_partitions(&current.assigned));
        let shown = request.member_epoch == JOIN || is_full || is_other;
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(id.clone()),
            member_epoch: current.epoch,
            heartbeat_interval_ms: turn.settings.consumer.heartbeat_interval_ms,
            assignment: shown.then(|| shown_assignment(&current.assigned)),
            ..Default::default()
        })
    }

    fn identify(&self, beat: &Beat<'_>) -> Result<Standing, Refusal> {
        let (id, request) = (&*beat.member_id, beat.request);
        let joins = request.member_epoch == JOIN;
        let Some(instance) = request.instance_id.as_deref() else {
            return match self.members.get(id) {
                Some(member) => {
                    check_epoch(member, beat)?;
                    Ok(Standing::Known)
                }
                None if joins => Ok(Standing::New),
                None => Err(self.unknown(id)),
            };
        };
        match (self.statics.get(instance), joins) {
            (None, true) if self.members.contains_key(id) => Ok(Standing::Known),
            (None, true) => Ok(Standing::New),
            (Some(holder), true) => {
                let member = self.members.get(holder);
                if member.is_some_and(|m| !m.is_classic() && !has_left_for_now(m)) {
                    let message = format!(
                        "Static member {id} with instance id {instance} cannot join the group \
                         because the instance id is owned by {holder} member."
                    );
                    return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
                }
                Ok(Standing::Replaces(holder.clone()))
            }
            (_, false) => {
                let member = self.static_member(instance, id)?;
                check_epoch(member, beat)?;
                Ok(Standing::Known)
            }
        }
    }

    pub(super) fn unknown(&self, id: &str) -> Refusal {
        let message = format!("Member {id} is not a member of the group.");
        Refusal::new(ErrorCode::UnknownMemberId, message)
    }

    /// The member that holds an instance id, if it is this one.
    pub(super) fn static_member(&self, instance: &str, id: &str) -> Result<&Member, Refusal> {
        let holder = self.statics.get(instance);
        let Some((holder, member)) = holder.and_then(|h| Some((h, self.members.get(h)?))) else {
            let message = format!("Instance id {instance} is unknown.");
            return Err(Refusal::new(ErrorCode::UnknownMemberId, message));
        };
        if **holder == *id {
            return Ok(member);
        }
        let message = format!(
            "Static member {id} with instance id {instance} was fenced by member {holder}."
        );
        Err(Refusal::new(ErrorCode::FencedInstanceId, message))
    }

    /// What the member says of itself with this heartbeat: what is left out stays as it was.
    fn profile(
        &self,
        turn: &Turn<'_>,
        beat: &Beat<'_>,
        standing: &Standing,
    ) -> Result<Profile, Refusal> {
        let request = beat.request;
        let known = match standing {
            Standing::Known => self.members.get(&beat.member_id),
            Standing::New => None,
            Standing::Replaces(old) => self.members.get(old),
        };
        let mut profile = known.map(|member| member.profile.clone()).unwrap_or_default();
        let owned = |text: &Str| Str::from(&**text);
        profile.classic = None;
        profile.client_id = Str::from(beat.client_id);
        profile.client_host = Str::from(beat.client_host);
        profile.instance = request.instance_id.as_ref().map(owned).or(profile.instance);
        profile.rack = request.rack_id.as_ref().map(owned).or(profile.rack);
        if request.rebalance_timeout_ms != -1 {
            profile.rebalance_timeout_ms = request.rebalance_timeout_ms;
        }
        if let Some(name) = &request.server_assignor {
            profile.assignor = Assignor::from_name(name);
        }
        if let Some(names) = &request.subscribed_topic_names {
            profile.names = sorted(names);
        }
        if let Some(pattern) = &request.subscribed_topic_regex {
            profile.regex = owned(pattern);
            if !pattern.is_empty() && !self.subscriptions.uses(pattern) {
                regex::check(pattern).map_err(|why| {
                    let message = format!(
                        "SubscribedTopicRegex `{pattern}` is not a valid regular expression: {why}."
                    );
                    Refusal::new(ErrorCode::InvalidRegularExpression, message)
                })?;
            }
        }
        check_size(turn, &profile)?;
        Ok(profile)
    }

    /// An instance comes back under another member id, and takes what the old one had.
    pub(super) fn replace(&mut self, turn: &mut Turn<'_>, old: &Str, new: &Str) {
        let Some(mut member) = self.remove(turn, old) else { return };
        member.current.epoch = 0;
        member.current.previous_epoch = 0;
        member.deadlines = super::member::Deadlines::default();
        self.subscriptions.add(&member.profile.names, &member.profile.regex);
        if let Some(instance) = &member.profile.instance {
            self.statics.insert(instance.clone(), new.clone());
        }
        self.members.insert(new.clone(), member);
        self.rehold(&[], new);
        self.log_profile(turn, new);
        self.log_target(turn, new);
        self.log_current(turn, new);
    }

    /// Gives a member another profile, and raises the group epoch if that, or topics that have changed
    /// since, asks for another assignment. True if the member's subscription is another.
    pub(super) fn update(&mut self, turn: &mut Turn<'_>, id: &Str, profile: Profile) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        let is_new = member.current == Current::default() && member.profile == Profile::default();
        let resubscribes =
            member.profile.names != profile.names || member.profile.regex != profile.regex;
        let differs = is_new || member.profile != profile;
        let old = std::mem::replace(&mut member.profile, profile);
        let Profile { names, regex, instance, .. } = &member.profile;
        self.subscriptions.add(names, regex);
        if !is_new {
            self.subscriptions.remove(&old.names, &old.regex);
        }
        if let Some(instance) = instance {
            self.statics.insert(instance.clone(), id.clone());
        }
        if differs {
            self.log_profile(turn, id);
        }
        let refreshed = self.subscriptions.refresh(turn);
        let mut bumps = self.epoch == 0 || resubscribes;
        if bumps || refreshed {
            let hash = self.subscriptions.hash(turn);
            bumps |= hash != self.topics_hash;
            self.topics_hash = hash;
        }
        if bumps {
            self.bump(turn);
        }
        resubscribes
    }

    /// A heartbeat that leaves, for good or, of a static member, for now.
    pub(super) fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        request: &ConsumerGroupHeartbeatRequest,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let id = Str::from(&*request.member_id);
        match request.instance_id.as_deref() {
            None if !self.members.contains_key(&id) => return Err(self.unknown(&id)),
            None => {}
            Some(instance) => drop(self.static_member(instance, &id)?),
        }
        if request.member_epoch == LEFT_FOR_NOW {
            let current = self.members.get(&id).map(|member| member.current.clone());
            let next = Current {
                epoch: LEFT_FOR_NOW,
                revoking: Held::default(),
                ..current.unwrap_or_default()
            };
            self.set_current(turn, &id, next);
        } else {
            self.fence(turn, std::slice::from_ref(&id));
            self.convert_if_all_classic(turn);
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(id),
            member_epoch: request.member_epoch,
            ..Default::default()
        })
    }
}

/// A member that is behind by one epoch, and has nothing that is not its own, has lost an answer.
fn check_epoch(member: &Member, beat: &Beat<'_>) -> Result<(), Refusal> {
    let (said, current) = (beat.request.member_epoch, &member.current);
    if said == JOIN || said == current.epoch {
        return Ok(());
    }
    let is_lost_answer = said < current.epoch && said == current.previous_epoch;
    let owns_only_assigned = beat.request.topic_partitions.as_ref().is_some_and(|topics| {
        let mut all =
            topics.iter().flat_map(|topic| topic.partitions.iter().map(move |p| (topic, p)));
        all.all(|(topic, p)| current.assigned.contains(TopicId(topic.topic_id.0), *p))
    });
    if is_lost_answer && owns_only_assigned {
        return Ok(());
    }
    let size = if said > current.epoch { "greater" } else { "smaller" };
    let message = format!(
        "The consumer group member has a {size} member epoch ({said}) than the one known by the \
         group coordinator ({known}). The member must abandon all its partitions and rejoin.",
        known = current.epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
}

pub(super) fn full(max: usize) -> Refusal {
    let message = format!("The consumer group has reached its maximum capacity of {max} members.");
    Refusal::new(ErrorCode::GroupMaxSizeReached, message)
}

/// Owned copies of names, ascending and without repetition.
pub(super) fn sorted(names: &[Str]) -> Vec<Str> {
    let mut names: Vec<Str> = names.iter().map(|name| Str::from(&**name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// One member's profile is bounded, and so is a group's, by the number of members.
pub(super) fn check_size(turn: &Turn<'_>, profile: &Profile) -> Result<(), Refusal> {
    let texts = [&profile.instance, &profile.rack].into_iter().flatten();
    let classic = profile.classic.iter().flat_map(|classic| &classic.protocols);
    let bytes = profile.names.iter().chain(texts).map(Str::len).sum::<usize>()
        + profile.regex.len()
        + profile.client_id.len()
        + classic.map(|(name, subscription)| name.len() + subscription.len()).sum::<usize>();
    let max = turn.config.max_subscription_bytes;
    if bytes <= max {
        return Ok(());
    }
    let message =
        format!("a member's subscription has at most {max} bytes; subscribe to fewer topics");
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

fn shown_assignment(assigned: &Held) -> Assignment {
    let topics = assigned.topics().map(|(topic, held)| TopicPartitions {
        topic_id: Uuid(topic.0),
        partitions: held.iter().map(|(partition, _)| *partition).collect(),
    });
    Assignment { topic_partitions: topics.collect() }
}
