//! Partition counts, tasks, missing and ill-fitting topics.

use super::super::configure::{Configured, configure};
use super::*;

fn configured(topology: &request::Topology, topics: &[(&str, i32)]) -> Result<Configured, Refusal> {
    let topology = Topology::of(topology, 1 << 20)?;
    let partitions =
        |name: &str| topics.iter().find(|(topic, _)| *topic == name).map(|(_, count)| *count);
    configure(&topology, &partitions, 1_000)
}

fn fault(topology: &request::Topology, topics: &[(&str, i32)]) -> (i8, String) {
    let configured = configured(topology, topics).expect("can be run some day");
    let (status, text) = configured.fault.expect("is not ready");
    (status.code(), text)
}

fn invalid(topology: &request::Topology, topics: &[(&str, i32)]) -> String {
    let refusal = configured(topology, topics).expect_err("can never be run");
    assert_eq!(refusal.code, ErrorCode::StreamsInvalidTopology);
    said(&refusal).to_owned()
}

/// Two inputs that are joined, the second through a repartition topic.
fn join(repartition_partitions: i32) -> request::Topology {
    request::Topology {
        epoch: 0,
        subtopologies: vec![
            request::Subtopology {
                subtopology_id: text("0"),
                source_topics: texts(&["right"]),
                repartition_sink_topics: texts(&["right-by-key"]),
                ..Default::default()
            },
            request::Subtopology {
                subtopology_id: text("1"),
                source_topics: texts(&["left"]),
                repartition_source_topics: vec![internal("right-by-key", repartition_partitions)],
                state_changelog_topics: vec![internal("store", 0)],
                copartition_groups: vec![request::CopartitionGroup {
                    source_topics: vec![0],
                    repartition_source_topics: vec![0],
                    ..Default::default()
                }],
                ..Default::default()
            },
        ],
    }
}

#[test]
fn counts_follow_the_topics() {
    let made = configured(&join(0), &[("left", 5), ("right", 2)]).expect("valid");
    let shapes: Vec<_> = made.shapes.iter().map(|s| (&*s.id, s.tasks, s.stateful)).collect();
    assert_eq!(shapes, [("0", 2, false), ("1", 5, true)]);
    let missing: Vec<_> = made.missing.iter().map(|t| (&*t.name, t.num_partitions)).collect();
    // The repartition topic has as many as what it is joined with.
    assert_eq!(missing, [("right-by-key", 5), ("store", 5)]);
    assert!(!made.is_ready());
    let all = [("left", 5), ("right", 2), ("right-by-key", 5), ("store", 5)];
    let made = configured(&join(0), &all).expect("valid");
    assert!(made.is_ready() && made.missing.is_empty());
    assert_eq!((made.tasks_of("1"), made.tasks_of("2")), (Some(5), None));
}

#[test]
fn what_the_application_sets_is_kept_or_refused() {
    let made = configured(&join(5), &[("left", 5), ("right", 2)]).expect("valid");
    assert_eq!(made.missing[0].num_partitions, 5);
    let why = "Number of partitions [4] of repartition topic [right-by-key] doesn't match number of \
                partitions [5] of the source topic.";
    assert_eq!(fault(&join(4), &[("left", 5), ("right", 2)]), (2, why.to_owned()));
    let mut topology = word_count();
    topology.subtopologies[1].repartition_source_topics[0].partitions = 7;
    let counts = &mut topology.subtopologies[1].state_changelog_topics[0];
    counts.replication_factor = 1;
    counts.topic_configs = vec![request::KeyValue { key: text("k"), value: text("v") }];
    let made = configured(&topology, &[("in", 2)]).expect("valid");
    let counts = &made.missing[1];
    assert_eq!((&*counts.name, counts.num_partitions, counts.replication_factor), ("counts", 7, 1));
    assert_eq!((&*counts.configs[0].name, &counts.configs[0].value), ("k", &Some(text("v"))));
}

#[test]
fn topics_in_the_way_are_named() {
    let text = "Source topics left, right are missing.".to_owned();
    assert_eq!(fault(&join(0), &[]), (1, text));
    let mut topology = word_count();
    topology.subtopologies[0].source_topics = texts(&["e", "d", "c", "b", "a"]);
    let text = "Source topics a, b, c and 2 additional topics are missing.".to_owned();
    assert_eq!(fault(&topology, &[]), (1, text));
    let text = "Existing topic counts has different number of partitions: expected 2, found 3";
    let topics = [("in", 2), ("by-word", 2), ("counts", 3)];
    assert_eq!(fault(&word_count(), &topics), (2, text.to_owned()));
    let mut topology = join(0);
    topology.subtopologies[1].source_topics = texts(&["left", "more"]);
    topology.subtopologies[1].copartition_groups[0].source_topics = vec![0, 1];
    let text = "Following topics do not have the same number of partitions: [{left=5, more=4}]";
    let topics = [("left", 5), ("more", 4), ("right", 2)];
    assert_eq!(fault(&topology, &topics), (2, text.to_owned()));
}

#[test]
fn two_joins_may_have_different_fixed_counts() {
    let pair = |id: &str, partitions| request::Subtopology {
        subtopology_id: text(id),
        source_topics: texts(&["in"]),
        repartition_sink_topics: texts(&["x", "y"]),
        repartition_source_topics: vec![internal(id, partitions)],
        copartition_groups: vec![request::CopartitionGroup {
            repartition_source_topics: vec![0],
            ..Default::default()
        }],
        ..Default::default()
    };
    let topology = request::Topology { epoch: 0, subtopologies: vec![pair("x", 3), pair("y", 4)] };
    let made = configured(&topology, &[("in", 1)]).expect("valid");
    let missing: Vec<_> = made.missing.iter().map(|t| (&*t.name, t.num_partitions)).collect();
    assert_eq!(missing, [("x", 3), ("y", 4)]);
}

#[test]
fn what_can_never_run_is_invalid() {
    let mut topology = word_count();
    topology.subtopologies[0].repartition_sink_topics.clear();
    assert!(invalid(&topology, &[("in", 1)]).contains("never used as a sink topic"));
    let mut topology = word_count();
    topology.subtopologies[0].source_topics.clear();
    topology.subtopologies[0].repartition_source_topics = vec![internal("by-word", 0)];
    assert!(invalid(&topology, &[]).contains("loops in the topology"));
    let mut topology = word_count();
    topology.subtopologies[0].source_topics.clear();
    assert_eq!(invalid(&topology, &[]), "No source topics found for subtopology 0");
    let mut topology = word_count();
    topology.subtopologies[1].subtopology_id = text("0");
    assert_eq!(invalid(&topology, &[]), "Subtopology 0 is there twice.");
    let mut topology = join(0);
    topology.subtopologies[1].copartition_groups[0].source_topics = vec![1];
    assert!(invalid(&topology, &[]).contains("names a topic that is not there"));
    topology.subtopologies[1].copartition_groups[0].source_topics = vec![-1];
    assert!(invalid(&topology, &[]).contains("names a topic that is not there"));
    assert!(invalid(&join(-1), &[]).contains("has -1 partitions"));
    assert_eq!(invalid(&word_count(), &[("in", 501)]), "More than 1000 tasks are not supported.");
    assert_eq!(
        invalid(&join(i32::MAX), &[("left", i32::MAX), ("right", 1)]),
        "More than 1000 tasks are not supported."
    );
    let refusal = Topology::of(&word_count(), 10).expect_err("too large");
    assert_eq!(said(&refusal), "The topology takes more than 10 bytes.");
}
