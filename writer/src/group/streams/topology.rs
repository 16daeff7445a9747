//! The topology of a streams application, as its first member sent it, and what is wrong with one
//! that cannot be run.
//!
//! It is kept, compared and stored as the bytes of Kafka's own schema: a StreamsGroupHeartbeat
//! request of version 0 that holds nothing else, its subtopologies sorted by id.

use bytes::Bytes;
use sluice_wire::messages::streams_group_describe_response as describe;
use sluice_wire::messages::streams_group_heartbeat_request as request;
use sluice_wire::{Decoder, Encoder, ErrorCode, Message, Str};

use crate::group::modern::Refusal;
use crate::group::record::RecordError;

/// The version of the request that it is stored as.
const REQUEST_VERSION: i16 = 0;

/// A topology. Its strings are slices of its own bytes.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    encoded: Bytes,
    parts: request::Topology,
}

/// Two are the same when they say the same.
impl PartialEq for Topology {
    fn eq(&self, other: &Self) -> bool {
        self.encoded == other.encoded
    }
}

impl Topology {
    /// A copy of what a member sent.
    pub(crate) fn of(sent: &request::Topology, max_bytes: usize) -> Result<Self, Refusal> {
        let invalid = |text: String| Refusal::new(ErrorCode::StreamsInvalidTopology, text);
        let mut topology = sent.clone();
        topology.subtopologies.sort_by(|a, b| a.subtopology_id.cmp(&b.subtopology_id));
        for pair in topology.subtopologies.windows(2) {
            if let [a, b] = pair
                && a.subtopology_id == b.subtopology_id
            {
                return Err(invalid(format!("Subtopology {} is there twice.", a.subtopology_id)));
            }
        }
        for subtopology in &topology.subtopologies {
            check(subtopology).map_err(invalid)?;
        }
        let message = request::StreamsGroupHeartbeatRequest {
            topology: Some(topology),
            ..Default::default()
        };
        let mut encoder = Encoder::new();
        let encoded = message.encode(&mut encoder, REQUEST_VERSION);
        let bytes = encoder.into_chain().to_bytes();
        if encoded.is_err() || bytes.len() > max_bytes {
            return Err(invalid(format!("The topology takes more than {max_bytes} bytes.")));
        }
        Self::decode(&bytes).map_err(|_| invalid("The topology cannot be read back.".to_owned()))
    }

    /// From its stored form.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let encoded = Bytes::copy_from_slice(bytes);
        let mut decoder = Decoder::new(encoded.clone());
        let message = request::StreamsGroupHeartbeatRequest::decode(&mut decoder, REQUEST_VERSION)
            .map_err(|_| RecordError::Short)?;
        if decoder.finish().is_err() {
            return Err(RecordError::Trailing);
        }
        let parts = message.topology.ok_or(RecordError::Short)?;
        Ok(Self { encoded, parts })
    }

    /// Its stored form.
    pub(crate) fn encoded(&self) -> &Bytes {
        &self.encoded
    }

    pub(crate) fn epoch(&self) -> i32 {
        self.parts.epoch
    }

    /// Sorted by id.
    pub(crate) fn subtopologies(&self) -> &[request::Subtopology] {
        &self.parts.subtopologies
    }

    /// Whether a subtopology reads the topic.
    pub(crate) fn is_read(&self, topic: &str) -> bool {
        self.parts.subtopologies.iter().any(|sub| sources(sub).any(|source| *source == topic))
    }

    /// Every topic that has to be there, some more than once.
    pub(crate) fn required_topics(&self) -> impl Iterator<Item = &Str> {
        self.parts.subtopologies.iter().flat_map(|subtopology| {
            sources(subtopology).chain(subtopology.state_changelog_topics.iter().map(|t| &t.name))
        })
    }

    /// As a description shows it; `partitions` tells those of an internal topic, if decided.
    pub(crate) fn describe(&self, partitions: impl Fn(&str) -> Option<i32>) -> describe::Topology {
        let sorted = |names: &[Str]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        let infos = |topics: &[request::TopicInfo]| {
            let mut infos: Vec<_> = topics
                .iter()
                .map(|topic| describe::TopicInfo {
                    name: topic.name.clone(),
                    partitions: partitions(&topic.name).unwrap_or(topic.partitions),
                    replication_factor: topic.replication_factor,
                    topic_configs: topic
                        .topic_configs
                        .iter()
                        .map(|config| describe::KeyValue {
                            key: config.key.clone(),
                            value: config.value.clone(),
                        })
                        .collect(),
                })
                .collect();
            infos.sort_by(|a, b| a.name.cmp(&b.name));
            infos
        };
        let subtopologies = self.parts.subtopologies.iter().map(|sub| describe::Subtopology {
            subtopology_id: sub.subtopology_id.clone(),
            source_topics: sorted(&sub.source_topics),
            repartition_sink_topics: sorted(&sub.repartition_sink_topics),
            state_changelog_topics: infos(&sub.state_changelog_topics),
            repartition_source_topics: infos(&sub.repartition_source_topics),
        });
        describe::Topology { epoch: self.parts.epoch, subtopologies: Some(subtopologies.collect()) }
    }
}

/// The topics that a subtopology reads, its repartition topics among them.
pub(crate) fn sources(subtopology: &request::Subtopology) -> impl Iterator<Item = &Str> {
    let repartition = subtopology.repartition_source_topics.iter().map(|topic| &topic.name);
    subtopology.source_topics.iter().chain(repartition)
}

/// The names in each copartition group. Indexes were checked when the topology came.
pub(crate) fn copartition_groups(
    subtopology: &request::Subtopology,
) -> impl Iterator<Item = Vec<&Str>> {
    subtopology.copartition_groups.iter().map(|group| {
        let named = group.source_topics.iter().filter_map(|i| at(&subtopology.source_topics, *i));
        let internal = group.repartition_source_topics.iter();
        let internal = internal.filter_map(|i| at(&subtopology.repartition_source_topics, *i));
        named.chain(internal.map(|topic| &topic.name)).collect()
    })
}

fn at<T>(list: &[T], index: i16) -> Option<&T> {
    usize::try_from(index).ok().and_then(|index| list.get(index))
}

fn check(subtopology: &request::Subtopology) -> Result<(), String> {
    let id = &subtopology.subtopology_id;
    for topic in &subtopology.state_changelog_topics {
        if topic.partitions != 0 {
            return Err(format!(
                "Changelog topic {} must have an undefined partition count, but it is set to {}.",
                topic.name, topic.partitions
            ));
        }
    }
    for topic in &subtopology.repartition_source_topics {
        if topic.partitions < 0 {
            return Err(format!("Topic {} has {} partitions.", topic.name, topic.partitions));
        }
    }
    for group in &subtopology.copartition_groups {
        let is_known = group
            .source_topics
            .iter()
            .all(|index| at(&subtopology.source_topics, *index).is_some())
            && group
                .repartition_source_topics
                .iter()
                .all(|index| at(&subtopology.repartition_source_topics, *index).is_some());
        if !is_known {
            return Err(format!("A copartition group of {id} names a topic that is not there."));
        }
    }
    if sources(subtopology).next().is_none() {
        return Err(format!("No source topics found for subtopology {id}"));
    }
    Ok(())
}
