//! What administrators do: make volumes and topics at the start, then now and then delete records, move streams
//! from volume to volume and, once, delete a topic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_catalog::{Catalog, Change, Move, NewTopic, VolumeKind, VolumeSpec};
use sluice_model::{Entropy, StreamId, TenantId, VolumeId};

use super::{Answer, Ask, open_catalog};
use crate::random::{Random, SeededEntropy};
use crate::stage::{KEPT, Stage, WRITERS};

/// Retention by size.
const BOUNDED: &str = "bounded";
/// Its records are deleted by request.
const CUT: &str = "cut";
/// Deleted in the course of the run.
const DOOMED: &str = "doomed";

/// Makes volumes and topics; the network is whole meanwhile.
pub(crate) async fn set_up(stage: Arc<Stage>) -> Catalog {
    let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(Random::new(stage.seed, 5)));
    let catalog = open_catalog(&stage, &entropy).await;
    for id in 0..stage.profile.volumes {
        let spec = VolumeSpec::new(
            VolumeId(id),
            VolumeKind::File,
            format!("simulated-{id}"),
            stage.profile.volume_bytes,
        );
        catalog.add_volume(spec).await.expect("nothing fails yet");
    }
    let mut topics = Vec::new();
    for (name, partitions, retention_bytes) in
        [(KEPT, 4, "-1"), (BOUNDED, 2, "30000"), (CUT, 2, "-1"), (DOOMED, 2, "-1")]
    {
        let overrides: BTreeMap<_, _> = [
            ("retention.ms", "-1"),
            ("retention.bytes", retention_bytes),
            ("message.timestamp.after.max.ms", "9223372036854775807"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let new = NewTopic { name: name.to_owned(), partitions, overrides };
        let topic = catalog.create_topic(TenantId::OPEN, new).await.expect("nothing fails yet");
        if name == BOUNDED {
            stage.logs.lock().bounded(topic.id);
        }
        topics.push(topic);
    }
    *stage.topics.lock() = topics;
    catalog
}

/// How long the catalog may take to hear of a move.
const WISH: Duration = Duration::from_secs(2);

/// Deletes records, moves streams, and deletes the doomed topic.
pub(crate) async fn administrate(stage: Arc<Stage>, catalog: Catalog) {
    let mut random = Random::new(stage.seed, 6);
    let doom = random.ms(1500, 8000);
    let began = tokio::time::Instant::now();
    let mut doomed = stage.topic(DOOMED);
    let moves = tokio::spawn(move_streams(Arc::clone(&stage), catalog.clone()));
    while !stage.wind_down.load(Ordering::Relaxed) {
        tokio::time::sleep(random.ms(100, 900)).await;
        delete_records(&stage, &mut random).await;
        if began.elapsed() > doom
            && let Some(topic) = &doomed
        {
            stage.logs.lock().dropped(topic.id);
            let deleted = catalog.delete_topic(TenantId::OPEN, topic.id).await;
            stage.history.event("delete-topic", format_args!("{deleted:?}"));
            if deleted.is_ok() {
                doomed = None;
            }
        }
    }
    moves.abort();
}

/// Moves one stream after the other, or a few at once, and tells of those that come to an end.
async fn move_streams(stage: Arc<Stage>, catalog: Catalog) {
    if stage.profile.volumes < 2 {
        return;
    }
    let mut random = Random::new(stage.seed, 8);
    let mut changes = catalog.subscribe();
    loop {
        let rest = tokio::time::sleep(random.ms(50, 1200));
        tokio::pin!(rest);
        loop {
            tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Ok(Change::MoveGone(gone)) => tell(&stage, &catalog, &gone),
                    Ok(_) => {}
                    Err(_) => return,
                },
                () = &mut rest => break,
            }
        }
        wish(&stage, &catalog, &mut random).await;
    }
}

async fn wish(stage: &Stage, catalog: &Catalog, random: &mut Random) {
    let topics = catalog.topics(TenantId::OPEN);
    if topics.is_empty() {
        return;
    }
    let topic = random.pick(&topics);
    let partition = random.below(topic.partitions.len() as u64) as u32;
    let to = VolumeId(random.below(u64::from(stage.profile.volumes)) as u32);
    let asked = catalog.move_stream(TenantId::OPEN, topic.id, partition, to);
    if let Ok(Ok(wanted)) = tokio::time::timeout(WISH, asked).await {
        stage.history.event("move", format_args!("{} to {}", wanted.stream, wanted.to));
    }
}

/// A move has ended, one way or the other.
fn tell(stage: &Stage, catalog: &Catalog, gone: &Move) {
    let topic = catalog.topic_of_any_tenant(gone.stream.topic);
    let at = topic.and_then(|topic| topic.partitions.get(gone.stream.partition as usize).copied());
    let kind = if at == Some(gone.to) { "moved" } else { "move-given-up" };
    stage.history.event(kind, format_args!("{} to {}", gone.stream, gone.to));
}

async fn delete_records(stage: &Stage, random: &mut Random) {
    let Some(topic) = stage.topic(CUT) else { return };
    let partition = random.below(topic.partitions.len() as u64) as u32;
    let stream = StreamId { topic: topic.id, partition };
    let end = stage.logs.lock().end(stream);
    let offset = random.below(end as u64 + 1) as i64;
    stage.logs.lock().delete_asked(stream, offset);
    let host = *random.pick(&WRITERS);
    let ask = Ask::DeleteRecords { stream, offset };
    let answer = stage.writer_service.call(host, ask, Duration::from_secs(2)).await;
    if let Some(Answer::Deleted(Ok(log_start))) = answer {
        stage.history.event("delete-records", format_args!("{stream} {offset}: {log_start}"));
        stage.logs.lock().delete_done(stream, offset);
    }
}
