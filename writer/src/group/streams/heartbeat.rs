//! A member's heartbeat: it joins, says what it has and learns what it shall have, or leaves.

use sluice_wire::messages::create_topics_request::CreatableTopic;
use sluice_wire::messages::streams_group_heartbeat_request::StreamsGroupHeartbeatRequest;
use sluice_wire::messages::streams_group_heartbeat_response::StreamsGroupHeartbeatResponse;
use sluice_wire::{ErrorCode, Str};
use twox_hash::XxHash3_128;

use super::assignor::{Candidate, assign};
use super::configure::{Configured, configure};
use super::member::{Current, Member, Profile, Progress};
use super::reconcile::{Owners, Step};
use super::tasks::{Owned, Tasks, answered};
use super::{Context, Part, Status, StreamsGroup, Topology};
use crate::group::GroupCaller;
use crate::group::machine::Tick;
use crate::group::modern::Refusal;

/// The answer to a heartbeat, to be given once what it touched is durable.
#[derive(Debug)]
pub(crate) struct Beat {
    pub(crate) answer: StreamsGroupHeartbeatResponse,
    /// Topics to be created for the application.
    pub(crate) missing: Vec<CreatableTopic>,
}

/// What is decided before anything is changed.
struct Plan {
    is_new: bool,
    profile: Profile,
    current: Current,
    topology: Option<Topology>,
    configured: Option<Configured>,
    topics_hash: u128,
    validated: i32,
    bump: bool,
}

impl StreamsGroup {
    /// A heartbeat that does not leave, checked by [`super::check_request`]. A refusal changes
    /// nothing.
    pub(crate) fn heartbeat(
        &mut self,
        cx: &mut Context<'_>,
        caller: &GroupCaller,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Beat, Refusal> {
        let plan = self.plan(cx, caller, request)?;
        let id = Str::from(&*request.member_id);
        let before = plan.current.assigned.clone();
        let mut status = Vec::new();
        if let Some(ours) = &self.topology
            && plan.profile.topology_epoch < ours.epoch()
        {
            status.push(Status::StaleTopology.says(format!(
                "The member's topology epoch {} is behind the group's topology epoch {}.",
                plan.profile.topology_epoch,
                ours.epoch()
            )));
        }
        self.carry_out(cx, &id, plan);
        if let Some(reason) = self.update_targets(cx) {
            status.push(Status::AssignmentDelayed.says(reason));
        }
        self.reconcile(cx, &id, Owned::of(request));
        if request.shutdown_application {
            self.shutdown_by.get_or_insert_with(|| id.clone());
        }

        let member = &self.members[&id];
        let mut answer = StreamsGroupHeartbeatResponse {
            member_id: request.member_id.clone(),
            member_epoch: member.current.epoch,
            heartbeat_interval_ms: cx.settings.heartbeat_interval_ms,
            ..Default::default()
        };
        let assigned = &member.current.assigned;
        let is_news = request.member_epoch == 0 || *assigned != before;
        // Kafka gives tasks only as news: a member that lost that answer would wait for ever for what
        // it has been given.
        let is_behind = Owned::of(request).is_some_and(|owned| !owned.is_all_of(assigned));
        if is_news || is_behind {
            answer.active_tasks = Some(answered(assigned.active.keys()));
            answer.standby_tasks = Some(answered(assigned.standby.iter()));
            answer.warmup_tasks = Some(Vec::new());
        }
        if is_news && member.profile.endpoint.is_some() {
            self.endpoint_epoch = self.endpoint_epoch.wrapping_add(1);
        }
        if self.endpoint_epoch != request.endpoint_information_epoch {
            answer.partitions_by_user_endpoint = Some(self.endpoints(&cx.topics));
        }
        answer.endpoint_information_epoch = self.endpoint_epoch;
        let configured = self.configured.as_ref();
        if let Some((fault, detail)) = configured.and_then(|c| c.fault.as_ref()) {
            status.push(fault.says(detail.clone()));
        }
        if let Some(by) = &self.shutdown_by {
            status.push(Status::ShutdownApplication.says(format!(
                "Streams group member {by} encountered a fatal error and requested a shutdown for \
                 the entire application."
            )));
        }
        answer.status = Some(status);
        Ok(Beat { answer, missing: configured.map_or_else(Vec::new, |c| c.missing.clone()) })
    }

    /// A heartbeat that leaves.
    pub(crate) fn leave(
        &mut self,
        cx: &mut Context<'_>,
        group_id: &str,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Beat, Refusal> {
        let id = &request.member_id;
        if request.shutdown_application && !self.members.is_empty() {
            self.shutdown_by.get_or_insert_with(|| Str::from(&**id));
        }
        if !self.members.contains_key(id) {
            return Err(unknown_member(id, group_id));
        }
        self.remove(cx, id);
        let answer = StreamsGroupHeartbeatResponse {
            member_id: id.clone(),
            member_epoch: request.member_epoch,
            ..Default::default()
        };
        Ok(Beat { answer, missing: Vec::new() })
    }

    fn plan(
        &self,
        cx: &Context<'_>,
        caller: &GroupCaller,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Plan, Refusal> {
        let (id, epoch) = (&request.member_id, request.member_epoch);
        if epoch == 0 && self.members.len() >= cx.settings.max_members {
            return Err(Refusal::new(
                ErrorCode::GroupMaxSizeReached,
                format!(
                    "The streams group has reached its maximum capacity of {} members.",
                    cx.settings.max_members
                ),
            ));
        }
        let (is_new, old, current) = match self.members.get(id) {
            Some(member) => (false, member.profile.clone(), member.current.clone()),
            None if epoch == 0 => (true, Profile::default(), Current::default()),
            None => return Err(unknown_member(id, &request.group_id)),
        };
        check_epoch(&current, epoch, Owned::of(request))?;
        let profile = old.updated(caller, request);
        let topology = self.new_topology(cx, request)?;
        let Some(present) = topology.as_ref().or(self.topology.as_ref()) else {
            return Err(Refusal::new(
                ErrorCode::UnknownServerError,
                "The topology is null and the group topology is also null.",
            ));
        };

        let mut bump = is_new || profile != old;
        let mut topics_hash = self.epochs.topics_hash;
        let mut configured = None;
        let is_first = topology.is_some() || self.configured.is_none();
        if is_first || self.seen != Some(cx.topics.version) {
            topics_hash = hash_topics(present, cx);
            let changed = topics_hash != self.epochs.topics_hash;
            bump |= changed;
            if is_first || changed {
                let partitions = |name: &str| (cx.topics.find)(name).map(|topic| topic.partitions);
                configured = Some(configure(present, &partitions, cx.settings.max_tasks)?);
            }
        }
        let valid = configured.as_ref().or(self.configured.as_ref()).filter(|c| c.is_ready());
        if let Some(valid) = valid {
            check_tasks(valid, request)?;
        }
        let validated = if valid.is_some() { present.epoch() } else { -1 };
        bump |= validated != self.epochs.validated;
        bump |= cx.settings.standbys != self.epochs.standbys;
        Ok(Plan { is_new, profile, current, topology, configured, topics_hash, validated, bump })
    }

    /// The topology that the request brings, if the group has none yet.
    fn new_topology(
        &self,
        cx: &Context<'_>,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Option<Topology>, Refusal> {
        let Some(sent) = &request.topology else { return Ok(None) };
        if self.topology.as_ref().is_some_and(|ours| ours.epoch() > sent.epoch) {
            // The member is behind: it is told so, and gets no tasks of a topology it does not know.
            return Ok(None);
        }
        let sent = Topology::of(sent, cx.settings.max_topology_bytes)?;
        match &self.topology {
            None => Ok(Some(sent)),
            Some(ours) if *ours == sent => Ok(None),
            Some(_) => Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "Topology updates are not supported yet.",
            )),
        }
    }

    fn carry_out(&mut self, cx: &mut Context<'_>, id: &Str, plan: Plan) {
        self.seen = Some(cx.topics.version);
        if let Some(topology) = plan.topology {
            self.topology = Some(topology);
            cx.touched.insert(Part::Topology);
        }
        if let Some(configured) = plan.configured {
            self.configured = Some(configured);
            self.find_readers(&cx.topics);
        }
        if plan.bump {
            self.epochs.group += 1;
            self.epochs.topics_hash = plan.topics_hash;
            self.epochs.validated = plan.validated;
            self.epochs.standbys = cx.settings.standbys;
            cx.touched.insert(Part::Group);
        }
        let delay_ms = cx.settings.initial_rebalance_delay_ms;
        if self.members.is_empty() && delay_ms > 0 && self.initial.is_none() {
            let at = cx.now.after(delay_ms);
            self.initial = Some(at);
            self.wake_by(at);
        }
        let session = cx.now.after(cx.settings.session_timeout_ms);
        let revoke_by = self.members.get(id).and_then(|member| member.revoke_by);
        let is_changed = self.members.get(id).is_none_or(|m| m.profile != plan.profile);
        if plan.is_new || is_changed {
            cx.touched.insert(Part::Profile(id.clone()));
        }
        let member = Member { profile: plan.profile, current: plan.current, session, revoke_by };
        self.members.insert(id.clone(), member);
        self.wake_by(session);
    }

    /// Makes a new target assignment if the group has changed; says why not, if it has to wait.
    fn update_targets(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        if self.initial.is_some() {
            return Some("Assignment delayed due to the configured initial rebalance delay.");
        }
        if self.epochs.assignment >= self.epochs.group {
            return None;
        }
        let interval_ms = cx.settings.assignment_interval_ms;
        if self.assigned_at.is_some_and(|at| cx.now < at.after(interval_ms)) {
            return Some("Assignment delayed due to the configured assignment interval.");
        }
        self.assign(cx);
        None
    }

    /// Makes a new target assignment for the present group epoch.
    pub(super) fn assign(&mut self, cx: &mut Context<'_>) {
        let none = Tasks::default();
        let candidates = self.members.iter().map(|(id, member)| Candidate {
            process: &member.profile.process,
            previous: self.targets.get(id).unwrap_or(&none),
        });
        let candidates: Vec<Candidate<'_>> = candidates.collect();
        let ready = self.configured.as_ref().filter(|configured| configured.is_ready());
        let shapes = ready.map_or(&[][..], |configured| &configured.shapes);
        let standbys = usize::try_from(self.epochs.standbys).unwrap_or(0);
        let given = assign(&candidates, shapes, standbys);
        for (id, tasks) in self.members.keys().zip(given) {
            if self.targets.get(id) != Some(&tasks) {
                self.targets.insert(id.clone(), tasks);
                cx.touched.insert(Part::Target(id.clone()));
            }
        }
        self.epochs.assignment = self.epochs.group;
        self.assigned_at = Some(cx.now);
        cx.touched.insert(Part::Group);
    }

    /// Leads a member one step towards its target.
    fn reconcile(&mut self, cx: &mut Context<'_>, id: &Str, owned: Option<Owned<'_>>) {
        let assignment_epoch = self.epochs.assignment;
        let member = &self.members[id];
        if member.current.is_reconciled_to(assignment_epoch) {
            return;
        }
        let none = Tasks::default();
        let target = self.targets.get(id).filter(|_| self.initial.is_none()).unwrap_or(&none);
        let owners = Owners::of(self.members.values());
        let process = &member.profile.process;
        let step = Step { process, assignment_epoch, target, owned, owners: &owners };
        let next = step.from(&member.current);
        if next == member.current {
            return;
        }
        let revokes = next.progress == Progress::Unrevoked;
        let revoke_by: Option<Tick> =
            revokes.then(|| cx.now.after(member.profile.rebalance_timeout_ms));
        if let Some(member) = self.members.get_mut(id) {
            member.current = next;
            member.revoke_by = revoke_by;
        }
        if let Some(at) = revoke_by {
            self.wake_by(at);
        }
        cx.touched.insert(Part::Current(id.clone()));
    }
}

pub(super) fn unknown_member(member_id: &str, group_id: &str) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownMemberId,
        format!("Member {member_id} is not a member of group {group_id}."),
    )
}

/// A member that is one epoch behind has lost an answer, if it has nothing but what it may have.
fn check_epoch(current: &Current, epoch: i32, owned: Option<Owned<'_>>) -> Result<(), Refusal> {
    let is_repeated = || {
        epoch == current.previous_epoch
            && owned.is_some_and(|owned| owned.is_within(&current.assigned))
    };
    let word = if epoch == 0 || epoch == current.epoch {
        return Ok(());
    } else if epoch > current.epoch {
        "greater"
    } else if is_repeated() {
        return Ok(());
    } else {
        "smaller"
    };
    Err(Refusal::new(
        ErrorCode::FencedMemberEpoch,
        format!(
            "The streams group member has a {word} member epoch ({epoch}) than the one known by the \
             group coordinator ({}). The member must abandon all its partitions and rejoin.",
            current.epoch
        ),
    ))
}

/// A member can only have tasks that there are.
fn check_tasks(
    configured: &Configured,
    request: &StreamsGroupHeartbeatRequest,
) -> Result<(), Refusal> {
    let invalid = |text: String| Refusal::new(ErrorCode::InvalidRequest, text);
    let Some(owned) = Owned::of(request) else { return Ok(()) };
    for list in owned.lists() {
        let id = &list.subtopology_id;
        let Some(tasks) = configured.tasks_of(id) else {
            return Err(invalid(format!("Subtopology {id} does not exist in the topology.")));
        };
        if let Some(task) = list.partitions.iter().find(|task| !(0..tasks).contains(*task)) {
            return Err(invalid(format!(
                "Task {task} for subtopology {id} is invalid. Number of tasks for this subtopology: \
                 {tasks}"
            )));
        }
    }
    Ok(())
}

/// A number that changes when one of the required topics does. It is stored, so it says the same
/// after a restart.
fn hash_topics(topology: &Topology, cx: &Context<'_>) -> u128 {
    let mut names: Vec<&Str> = topology.required_topics().collect();
    names.sort();
    names.dedup();
    let mut shapes = Vec::new();
    for name in names {
        let Some(topic) = (cx.topics.find)(name) else { continue };
        shapes.extend((name.len() as u64).to_be_bytes());
        shapes.extend_from_slice(name.as_bytes());
        shapes.extend(topic.id.0);
        shapes.extend(topic.partitions.to_be_bytes());
    }
    XxHash3_128::oneshot(&shapes)
}
