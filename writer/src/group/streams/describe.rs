//! A group seen from outside: its description, and where what is for interactive queries.

use std::collections::BTreeMap;

use sluice_wire::Str;
use sluice_wire::messages::streams_group_describe_response::DescribedGroup;
use sluice_wire::messages::streams_group_heartbeat_response::{
    Endpoint, EndpointToPartitions, TopicPartition,
};

use super::tasks::{TaskId, by_subtopology};
use super::topology::sources;
use super::{StreamsGroup, TopicView};

impl StreamsGroup {
    /// As StreamsGroupDescribe shows it: internal topics with the partitions they have, once all are
    /// there; before, as the application described them.
    pub(crate) fn describe(&self, group_id: &Str) -> DescribedGroup {
        let ready = self.configured.as_ref().filter(|configured| configured.is_ready());
        let partitions = |name: &str| ready.and_then(|ready| ready.internal.get(name).copied());
        DescribedGroup {
            group_id: group_id.clone(),
            group_state: Str::from_static(self.state().name()),
            group_epoch: self.epochs.group,
            assignment_epoch: self.epochs.assignment,
            topology: self.topology.as_ref().map(|topology| topology.describe(partitions)),
            members: self
                .members
                .iter()
                .map(|(id, member)| member.describe(id, self.targets.get(id)))
                .collect(),
            ..Default::default()
        }
    }

    /// What the members that have an endpoint have, by topic.
    pub(super) fn endpoints(&self, topics: &TopicView<'_>) -> Vec<EndpointToPartitions> {
        let members = self.members.values().filter_map(|member| {
            let (host, port) = member.profile.endpoint.clone()?;
            let assigned = &member.current.assigned;
            Some(EndpointToPartitions {
                user_endpoint: Endpoint { host, port },
                active_partitions: self.by_topic(topics, assigned.active.keys()),
                standby_partitions: self.by_topic(topics, assigned.standby.iter()),
            })
        });
        members.collect()
    }

    /// The partitions of the source topics of tasks: a task reads its partition of each topic that
    /// has so many.
    fn by_topic<'a>(
        &self,
        topics: &TopicView<'_>,
        tasks: impl Iterator<Item = &'a TaskId>,
    ) -> Vec<TopicPartition> {
        let Some(topology) = &self.topology else { return Vec::new() };
        let subtopologies: BTreeMap<&Str, _> =
            topology.subtopologies().iter().map(|sub| (&sub.subtopology_id, sub)).collect();
        let mut found = Vec::new();
        for (subtopology, partitions) in by_subtopology(tasks) {
            let Some(subtopology) = subtopologies.get(&subtopology) else { continue };
            for topic in sources(subtopology) {
                let count = (topics.find)(topic).map_or(0, |topic| topic.partitions);
                let partitions = partitions.iter().copied().filter(|p| *p < count).collect();
                found.push(TopicPartition { topic: topic.clone(), partitions });
            }
        }
        found
    }
}
