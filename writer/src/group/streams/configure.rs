//! A topology against the topics that exist: how many partitions its internal topics must have, how
//! many tasks each subtopology has, which topics are to be created, and what is in the way.

use std::collections::{BTreeMap, BTreeSet};

use sluice_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use sluice_wire::messages::streams_group_heartbeat_request::TopicInfo;
use sluice_wire::{ErrorCode, Str};

use super::Status;
use super::assignor::Shape;
use super::topology::{Topology, copartition_groups, sources};
use crate::group::modern::Refusal;

/// How many topics a message names.
const NAMED: usize = 3;

/// Partitions of a topic that exists.
pub(crate) type Partitions<'a> = &'a dyn Fn(&str) -> Option<i32>;

/// What became of a topology.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configured {
    /// For the assignor, by id; empty unless the partition counts could be decided.
    pub(crate) shapes: Vec<Shape>,
    /// Partitions of internal topics, as far as decided.
    pub(crate) internal: BTreeMap<Str, i32>,
    /// To be created.
    pub(crate) missing: Vec<CreatableTopic>,
    /// Why tasks cannot be assigned.
    pub(crate) fault: Option<(Status, String)>,
}

impl Configured {
    /// Tasks can be assigned.
    pub(crate) fn is_ready(&self) -> bool {
        self.fault.is_none()
    }

    /// How many tasks a subtopology has.
    pub(crate) fn tasks_of(&self, subtopology: &str) -> Option<i32> {
        let found = self.shapes.binary_search_by(|shape| shape.id.as_str().cmp(subtopology));
        found.ok().map(|at| self.shapes[at].tasks)
    }
}

/// Why a topology is not configured.
enum Obstacle {
    /// Something that may pass: the members are told, and wait.
    Fault(Status, String),
    /// It cannot be run at all.
    Invalid(String),
}

impl Obstacle {
    fn copartition(topics: &BTreeMap<&Str, i32>) -> Self {
        let each: Vec<String> =
            topics.iter().map(|(name, count)| format!("{name}={count}")).collect();
        let text = format!(
            "Following topics do not have the same number of partitions: [{{{}}}]",
            each.join(", ")
        );
        Self::Fault(Status::IncorrectlyPartitionedTopics, text)
    }
}

/// Decides partition counts and tasks. An error is a topology that can never be run.
pub(crate) fn configure(
    topology: &Topology,
    partitions: Partitions<'_>,
    max_tasks: usize,
) -> Result<Configured, Refusal> {
    match decide(topology, partitions, max_tasks) {
        Ok(configured) => Ok(configured),
        Err(Obstacle::Fault(status, text)) => {
            Ok(Configured { fault: Some((status, text)), ..Configured::default() })
        }
        Err(Obstacle::Invalid(text)) => Err(Refusal::new(ErrorCode::StreamsInvalidTopology, text)),
    }
}

fn decide(
    topology: &Topology,
    partitions: Partitions<'_>,
    max_tasks: usize,
) -> Result<Configured, Obstacle> {
    check_sources(topology, partitions)?;
    let mut internal = repartition_counts(topology, partitions)?;
    copartition(topology, partitions, &mut internal)?;
    let mut shapes = Vec::with_capacity(topology.subtopologies().len());
    let mut total = 0_usize;
    for subtopology in topology.subtopologies() {
        let counts =
            sources(subtopology).filter_map(|topic| count_of(topic, partitions, &internal));
        let tasks = counts.max().unwrap_or(0);
        total = total.saturating_add(usize::try_from(tasks).unwrap_or(0));
        if total > max_tasks {
            return Err(Obstacle::Invalid(format!(
                "More than {max_tasks} tasks are not supported."
            )));
        }
        for changelog in &subtopology.state_changelog_topics {
            internal.insert(changelog.name.clone(), tasks);
        }
        shapes.push(Shape {
            id: subtopology.subtopology_id.clone(),
            tasks,
            stateful: !subtopology.state_changelog_topics.is_empty(),
        });
    }
    let missing = missing_topics(topology, partitions, &internal)?;
    let fault = (!missing.is_empty()).then(|| {
        let names = summary(missing.iter().map(|topic| &topic.name));
        (Status::MissingInternalTopics, format!("Internal topics are missing: {names}"))
    });
    Ok(Configured { shapes, internal, missing, fault })
}

fn check_sources(topology: &Topology, partitions: Partitions<'_>) -> Result<(), Obstacle> {
    let all = topology.subtopologies().iter().flat_map(|subtopology| &subtopology.source_topics);
    let missing: BTreeSet<&Str> = all.filter(|topic| partitions(topic).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("Source topics {} are missing.", summary(missing.into_iter()));
    Err(Obstacle::Fault(Status::MissingSourceTopics, text))
}

/// A repartition topic that does not say how many partitions it has gets as many as the subtopology
/// that writes it has tasks. Goes on until all are known.
fn repartition_counts(
    topology: &Topology,
    partitions: Partitions<'_>,
) -> Result<BTreeMap<Str, i32>, Obstacle> {
    let mut counts: BTreeMap<Str, i32> = fixed(topology).collect();
    loop {
        let (mut progress, mut open) = (false, false);
        for subtopology in topology.subtopologies() {
            for sink in &subtopology.repartition_sink_topics {
                if counts.contains_key(sink) {
                    continue;
                }
                let external = subtopology.source_topics.iter().filter_map(|t| partitions(t));
                let internal = subtopology.repartition_source_topics.iter();
                let internal = internal.filter_map(|topic| counts.get(&topic.name).copied());
                match external.chain(internal).max() {
                    Some(count) => {
                        counts.insert(sink.clone(), count);
                        progress = true;
                    }
                    None => open = true,
                }
            }
        }
        if !open {
            break;
        }
        if !progress {
            return Err(Obstacle::Invalid(
                "Failed to compute number of partitions for all repartition topics. There may be \
                 loops in the topology that cannot be resolved."
                    .to_owned(),
            ));
        }
    }
    let mut read = repartition_sources(topology);
    if read.any(|topic| !counts.contains_key(&topic.name)) {
        return Err(Obstacle::Invalid(
            "Failed to compute number of partitions for all repartition topics, because a \
             repartition source topic is never used as a sink topic."
                .to_owned(),
        ));
    }
    Ok(counts)
}

/// Topics that are joined have as many partitions as each other: repartition topics follow those
/// that the application does not own, or the largest among themselves.
fn copartition(
    topology: &Topology,
    partitions: Partitions<'_>,
    internal: &mut BTreeMap<Str, i32>,
) -> Result<(), Obstacle> {
    let fixed: BTreeMap<Str, i32> = fixed(topology).collect();
    let repartition: BTreeSet<&Str> = repartition_sources(topology).map(|t| &t.name).collect();
    for group in topology.subtopologies().iter().flat_map(copartition_groups) {
        let (mut owned, mut external) = (BTreeMap::new(), BTreeMap::new());
        for topic in group {
            let count = count_of(topic, partitions, internal).unwrap_or(0);
            let side = if repartition.contains(topic) { &mut owned } else { &mut external };
            side.insert(topic, count);
        }
        // Kafka looks at the fixed topics of the whole topology here, so that two joins with different
        // fixed counts refuse each other; only those of this group matter.
        let fixed_here: BTreeMap<&Str, i32> =
            owned.iter().filter(|(t, _)| fixed.contains_key(**t)).map(|(t, n)| (*t, *n)).collect();
        let count = if !external.is_empty() {
            same(&external).ok_or_else(|| Obstacle::copartition(&external))?
        } else if !fixed_here.is_empty() {
            same(&fixed_here).ok_or_else(|| Obstacle::copartition(&owned))?
        } else {
            owned.values().copied().max().unwrap_or(0)
        };
        for (topic, has) in &owned {
            if fixed.contains_key(*topic) && *has != count {
                return Err(Obstacle::Fault(
                    Status::IncorrectlyPartitionedTopics,
                    format!(
                        "Number of partitions [{has}] of repartition topic [{topic}] doesn't match \
                         number of partitions [{count}] of the source topic."
                    ),
                ));
            }
            internal.insert((*topic).clone(), count);
        }
    }
    Ok(())
}

fn same(counts: &BTreeMap<&Str, i32>) -> Option<i32> {
    let first = *counts.values().next()?;
    counts.values().all(|count| *count == first).then_some(first)
}

fn missing_topics(
    topology: &Topology,
    partitions: Partitions<'_>,
    internal: &BTreeMap<Str, i32>,
) -> Result<Vec<CreatableTopic>, Obstacle> {
    let mut missing = BTreeMap::new();
    let changelogs = topology.subtopologies().iter().flat_map(|s| &s.state_changelog_topics);
    for topic in repartition_sources(topology).chain(changelogs) {
        let expected = match topic.partitions {
            0 => internal.get(&topic.name).copied().unwrap_or(0),
            fixed => fixed,
        };
        match partitions(&topic.name) {
            None => {
                missing.insert(topic.name.clone(), to_create(topic, expected));
            }
            Some(found) if found != expected => {
                return Err(Obstacle::Fault(
                    Status::IncorrectlyPartitionedTopics,
                    format!(
                        "Existing topic {} has different number of partitions: expected {expected}, \
                         found {found}",
                        topic.name
                    ),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(missing.into_values().collect())
}

fn to_create(topic: &TopicInfo, partitions: i32) -> CreatableTopic {
    let configs = topic.topic_configs.iter();
    CreatableTopic {
        name: topic.name.clone(),
        num_partitions: partitions,
        replication_factor: if topic.replication_factor == 0 {
            -1
        } else {
            topic.replication_factor
        },
        configs: configs
            .map(|config| CreatableTopicConfig {
                name: config.key.clone(),
                value: Some(config.value.clone()),
            })
            .collect(),
        ..Default::default()
    }
}

fn repartition_sources(topology: &Topology) -> impl Iterator<Item = &TopicInfo> {
    topology.subtopologies().iter().flat_map(|subtopology| &subtopology.repartition_source_topics)
}

/// Repartition topics whose number of partitions the application has set.
fn fixed(topology: &Topology) -> impl Iterator<Item = (Str, i32)> {
    repartition_sources(topology)
        .filter(|topic| topic.partitions != 0)
        .map(|topic| (topic.name.clone(), topic.partitions))
}

/// A topic that exists has what it has; another what was decided.
fn count_of(topic: &Str, partitions: Partitions<'_>, decided: &BTreeMap<Str, i32>) -> Option<i32> {
    partitions(topic).or_else(|| decided.get(topic).copied())
}

fn summary<'a>(topics: impl ExactSizeIterator<Item = &'a Str>) -> String {
    let more = topics.len().saturating_sub(NAMED);
    let named: Vec<&str> = topics.take(NAMED).map(Str::as_str).collect();
    let named = named.join(", ");
    if more > 0 { format!("{named} and {more} additional topics") } else { named }
}
