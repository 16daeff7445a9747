use std::collections::BTreeMap;

use sluice_model::NodeId;

use super::*;
use crate::catalog::Change;
use crate::tests::{A, B, memory, open, with_volumes};
use crate::topics::NewTopic;

const V: [VolumeId; 3] = [VolumeId(0), VolumeId(1), VolumeId(2)];

async fn topic(catalog: &Catalog) -> TopicId {
    let new = NewTopic { name: "t".to_owned(), partitions: 3, overrides: BTreeMap::new() };
    catalog.create_topic(A, new).await.unwrap().id
}

/// A partition of the topic and where it is.
fn first(catalog: &Catalog, topic: TopicId) -> (StreamId, VolumeId) {
    let partitions = &catalog.topic_by_id(A, topic).unwrap().partitions;
    (StreamId { topic, partition: 0 }, partitions[0])
}

fn other(than: VolumeId) -> VolumeId {
    if than == V[0] { V[1] } else { V[0] }
}

#[tokio::test]
async fn a_move_goes_through_its_steps_and_ends_with_the_topic_there() {
    let store = memory();
    let catalog = with_volumes(&store, 2).await;
    let topic = topic(&catalog).await;
    let (stream, from) = first(&catalog, topic);
    let to = other(from);
    for _ in 0..5 {
        for id in [from, to] {
            let epoch = catalog.volume(id).unwrap().epoch;
            catalog.claim_volume(id, NodeId(1), epoch).await.unwrap();
        }
    }
    assert_eq!(catalog.leader_epoch(stream), Some(5));
    let mut changes = catalog.subscribe();
    let wanted = catalog.move_stream(A, topic, 0, to).await.unwrap();
    assert_eq!(wanted, Move { stream, tenant: A, from, to, sealed: None });
    assert_eq!(catalog.move_stream(A, topic, 0, to).await, Ok(wanted), "said twice");
    assert_eq!(catalog.moves(), [Arc::new(wanted)]);

    let place = catalog.place_of(stream).await.unwrap();
    assert_eq!((place.volume, place.moving), (Some(from), Some(wanted)));
    assert!(catalog.publish_seal(&place, 7).await.unwrap());
    assert!(!catalog.publish_seal(&place, 8).await.unwrap(), "it is not as it was");
    let sealed = catalog.place_of(stream).await.unwrap();
    assert_eq!(sealed.moving.unwrap().sealed, Some(7));
    assert_eq!(catalog.leader_epoch(stream), None, "nobody serves it");
    assert!(catalog.finish_move(&sealed, -3).await.unwrap());
    assert!(!catalog.give_up_move(&sealed).await.unwrap(), "it is finished");
    assert_eq!(first(&catalog, topic), (stream, to));
    assert_eq!(catalog.leader_epoch(stream), Some(2), "the volume's epoch and the base");
    assert_eq!(catalog.moves(), []);
    let after = catalog.place_of(stream).await.unwrap();
    assert_eq!((after.volume, after.moving), (Some(to), None));

    let mut seen = Vec::new();
    while let Ok(change) = changes.try_recv() {
        seen.push(match change {
            Change::MoveChanged(moving) => format!("{:?}", moving.sealed),
            Change::MoveGone(moving) => format!("gone {:?}", moving.sealed),
            Change::TopicChanged { .. } => "topic".to_owned(),
            other => panic!("{other:?}"),
        });
    }
    seen[2..].sort();
    assert_eq!(seen, ["None", "Some(7)", "gone Some(7)", "topic"]);
}

#[tokio::test]
async fn of_a_source_that_gives_up_and_a_target_that_finishes_one_succeeds() {
    let store = memory();
    let catalog = with_volumes(&store, 2).await;
    let topic = topic(&catalog).await;
    let (stream, from) = first(&catalog, topic);
    for finish_first in [false, true] {
        let (_, from) = first(&catalog, topic);
        catalog.move_stream(A, topic, 0, other(from)).await.unwrap();
        let wanted = catalog.place_of(stream).await.unwrap();
        catalog.publish_seal(&wanted, 1).await.unwrap();
        let (source, target) = (catalog.place_of(stream).await, catalog.place_of(stream).await);
        let (source, target) = (source.unwrap(), target.unwrap());
        if finish_first {
            assert!(catalog.finish_move(&target, -3).await.unwrap());
            assert!(!catalog.give_up_move(&source).await.unwrap());
            assert_eq!(first(&catalog, topic).1, other(from));
        } else {
            assert!(catalog.give_up_move(&source).await.unwrap());
            assert!(!catalog.finish_move(&target, -3).await.unwrap());
            assert_eq!(first(&catalog, topic).1, from);
        }
        assert!(!catalog.finish_move(&target, -3).await.unwrap(), "nor later");
        assert!(!catalog.finish_move(&wanted, -3).await.unwrap());
    }
    assert_eq!(first(&catalog, topic).1, other(from));
}

#[tokio::test]
async fn a_topic_that_changes_meanwhile_keeps_its_change() {
    let store = memory();
    let catalog = with_volumes(&store, 2).await;
    let topic = topic(&catalog).await;
    let (stream, from) = first(&catalog, topic);
    catalog.move_stream(A, topic, 0, other(from)).await.unwrap();
    let place = catalog.place_of(stream).await.unwrap();
    catalog.create_partitions(A, topic, 5).await.unwrap();
    assert!(!catalog.finish_move(&place, -3).await.unwrap(), "look again");
    let place = catalog.place_of(stream).await.unwrap();
    assert!(catalog.finish_move(&place, -3).await.unwrap());
    let partitions = &catalog.topic_by_id(A, topic).unwrap().partitions;
    assert_eq!((partitions.len(), partitions[0]), (5, other(from)));
}

#[tokio::test]
async fn what_cannot_move_is_refused() {
    let store = memory();
    let catalog = with_volumes(&store, 3).await;
    let topic = topic(&catalog).await;
    let (stream, from) = first(&catalog, topic);
    let to = other(from);
    let nine = VolumeId(9);
    let refused = catalog.move_stream(A, topic, 0, nine).await;
    assert_eq!(refused, Err(MoveStreamError::NoVolume(nine)));
    let refused = catalog.move_stream(B, topic, 0, to).await;
    assert_eq!(refused, Err(MoveStreamError::NotFound), "another tenant's");
    let refused = catalog.move_stream(A, topic, 3, to).await;
    assert_eq!(refused, Err(MoveStreamError::NotFound), "no such partition");
    let refused = catalog.move_stream(A, topic, 0, from).await;
    assert_eq!(refused, Err(MoveStreamError::There(from)));
    catalog.move_stream(A, topic, 0, to).await.unwrap();
    let third = V.into_iter().find(|id| *id != from && *id != to).unwrap();
    let refused = catalog.move_stream(A, topic, 0, third).await;
    assert_eq!(refused, Err(MoveStreamError::UnderWay(to)));

    // The topic goes: what is left of the move is told, and can be taken away.
    catalog.delete_topic(A, topic).await.unwrap();
    let place = catalog.place_of(stream).await.unwrap();
    assert_eq!(place.volume, None);
    assert!(!catalog.finish_move(&place, -3).await.unwrap());
    assert!(catalog.give_up_move(&place).await.unwrap());
    assert_eq!(open(&store, 5).await.moves(), []);
}
