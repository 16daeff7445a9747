//! The target assignment: what every member is to have, computed for a group epoch.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use sluice_model::TopicId;
use sluice_wire::Str;

use super::ConsumerGroup;
use super::assignor::{Assignor, MemberSpec, Spec};
use crate::group::modern::Turn;

impl ConsumerGroup {
    /// Computes the targets anew if the group epoch is ahead of them, but not more often than the
    /// group's assignment interval says: members that come together are served together.
    pub(super) fn assign_if_due(&mut self, turn: &mut Turn<'_>) {
        if self.epoch <= self.assignment_epoch || self.members.is_empty() {
            return;
        }
        let interval_ms = turn.settings.consumer.assignment_interval_ms;
        let due = self.assigned_at.map(|at| at.after(interval_ms));
        if let Some(due) = due.filter(|due| turn.now < *due) {
            return self.wake_by(due);
        }
        self.assign(turn);
    }

    /// Computes the targets anew if the group epoch is ahead of them.
    pub(super) fn assign_now(&mut self, turn: &mut Turn<'_>) {
        if self.epoch > self.assignment_epoch {
            self.assign(turn);
        }
    }

    fn assign(&mut self, turn: &mut Turn<'_>) {
        let (topics, partitions) = self.subscribed(turn);
        let members = self.members.iter().zip(topics).map(|((id, member), topics)| MemberSpec {
            id,
            instance: member.profile.instance.as_deref(),
            topics,
            before: &member.target,
        });
        let spec = Spec { members: members.collect(), partitions };
        let targets = self.assignor().assign(&spec);
        let mut changed: Vec<Str> = Vec::new();
        for ((id, member), target) in self.members.iter_mut().zip(targets) {
            if member.target != target {
                member.target = target;
                changed.push(id.clone());
            }
        }
        for id in changed {
            self.log_target(turn, &id);
        }
        self.assignment_epoch = self.epoch;
        self.assigned_at = Some(turn.now);
        self.log_header(turn);
    }

    /// Each member's topics, and how many partitions the topics have. Members with the same
    /// subscription share one list.
    fn subscribed(&self, turn: &Turn<'_>) -> (Vec<Rc<[TopicId]>>, BTreeMap<TopicId, i32>) {
        let mut partitions = BTreeMap::new();
        let mut lists: HashMap<(&[Str], &str), Rc<[TopicId]>> = HashMap::new();
        let all = self.members.values().map(|member| {
            let (names, regex) = (member.profile.names.as_slice(), &*member.profile.regex);
            let list = lists.entry((names, regex)).or_insert_with(|| {
                let mut list = Vec::with_capacity(names.len());
                for name in names.iter().chain(self.subscriptions.matched(regex)) {
                    if let Some(shape) = turn.topics.find(turn.tenant, name) {
                        partitions.insert(shape.id, shape.partitions);
                        list.push(shape.id);
                    }
                }
                list.sort_unstable();
                list.dedup();
                list.into()
            });
            Rc::clone(list)
        });
        (all.collect(), partitions)
    }

    /// The assignor that most members ask for, the first of them if they are even.
    pub(super) fn assignor(&self) -> Assignor {
        let mut votes: BTreeMap<Assignor, usize> = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| member.profile.assignor) {
            *votes.entry(assignor).or_default() += 1;
        }
        let most = votes.into_iter().rev().max_by_key(|(_, votes)| *votes);
        most.map_or(Assignor::Uniform, |(assignor, _)| assignor)
    }
}
