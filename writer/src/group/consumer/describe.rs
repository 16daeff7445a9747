//! ConsumerGroupDescribe: a group as it is shown.

use sluice_model::TopicId;
use sluice_wire::messages::consumer_group_describe_response as describe;
use sluice_wire::{Str, Uuid};

use super::ConsumerGroup;
use super::member::Member;
use crate::group::kind::Modern;
use crate::group::modern::Turn;

/// How the answer tells members of the protocols apart (KIP-848, since version 1).
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

impl ConsumerGroup {
    /// As ConsumerGroupDescribe shows it. Partitions of topics that are gone are left out.
    pub(super) fn describe(&self, turn: &Turn<'_>) -> describe::DescribedGroup {
        let members = self.members.iter().map(|(id, member)| describe_member(turn, id, member));
        describe::DescribedGroup {
            group_id: Str::from(turn.group),
            group_state: Str::from_static(self.state_name()),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor_name: Str::from_static(self.assignor().name()),
            members: members.collect(),
            ..Default::default()
        }
    }
}

fn describe_member(turn: &Turn<'_>, id: &Str, member: &Member) -> describe::Member {
    let profile = &member.profile;
    let assigned = member.current.assigned.topics();
    let assigned = assigned.map(|(topic, held)| (topic, held.iter().map(|(p, _)| *p).collect()));
    let target = member.target.topics().map(|(topic, partitions)| (topic, partitions.to_vec()));
    describe::Member {
        member_id: id.clone(),
        instance_id: profile.instance.clone(),
        rack_id: profile.rack.clone(),
        member_epoch: member.current.epoch,
        client_id: profile.client_id.clone(),
        client_host: profile.client_host.clone(),
        subscribed_topic_names: profile.names.clone(),
        subscribed_topic_regex: Some(profile.regex.clone()),
        assignment: named(turn, assigned),
        target_assignment: named(turn, target),
        member_type: if member.is_classic() { CLASSIC_MEMBER } else { CONSUMER_MEMBER },
    }
}

fn named(
    turn: &Turn<'_>,
    partitions: impl Iterator<Item = (TopicId, Vec<i32>)>,
) -> describe::Assignment {
    let topics = partitions.filter_map(|(topic, partitions)| {
        let topic_name = turn.topics.name(turn.tenant, topic)?;
        Some(describe::TopicPartitions { topic_id: Uuid(topic.0), topic_name, partitions })
    });
    describe::Assignment { topic_partitions: topics.collect() }
}
