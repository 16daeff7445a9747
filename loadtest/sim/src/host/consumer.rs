//! A consumer of one stream, from the beginning: reads on where it is, whoever owns the volume, and checks
//! all that it sees. It sometimes starts over, so that old offsets are read from the bucket again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_model::StreamId;

use super::{Answer, Ask, Fetched, Refusal};
use crate::random::Random;
use crate::stage::{Stage, WRITERS};

const WAIT: Duration = Duration::from_secs(3);

/// Consumes every stream, each in a task of its own, until the host crashes.
pub(crate) async fn consume(stage: Arc<Stage>) {
    while stage.topics.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let topics = stage.topics.lock().clone();
    for (number, topic) in topics.iter().enumerate() {
        for partition in 0..topic.partitions.len() as u32 {
            let stream = StreamId { topic: topic.id, partition };
            let label = 2000 + number as u64 * 100 + u64::from(partition);
            let random = Random::new(stage.seed, label);
            tokio::spawn(follow(Arc::clone(&stage), stream, random));
        }
    }
    std::future::pending::<()>().await;
}

async fn follow(stage: Arc<Stage>, stream: StreamId, mut random: Random) {
    let mut offset = 0;
    let mut host = 0;
    while !stage.wind_down.load(Ordering::Relaxed) && !stage.logs.lock().is_dropped(stream.topic) {
        if random.per_mille(15) {
            offset = 0;
        }
        let max_bytes = random.between(1, 200_000);
        match fetch(&stage, host, stream, offset, max_bytes).await {
            Some(Ok(next)) => {
                if next == offset {
                    tokio::time::sleep(random.ms(10, 150)).await;
                }
                offset = next;
            }
            Some(Err(Refusal::Failed(_))) => tokio::time::sleep(random.ms(20, 200)).await,
            Some(Err(Refusal::NotOwner)) | None => {
                host = 1 - host;
                tokio::time::sleep(random.ms(20, 300)).await;
            }
        }
    }
}

/// Reads once and checks what comes. Gives the offset to read from next.
pub(super) async fn fetch(
    stage: &Stage,
    host: usize,
    stream: StreamId,
    offset: i64,
    max_bytes: u64,
) -> Option<Result<i64, Refusal>> {
    let ask = Ask::Fetch { stream, offset, max_bytes };
    let answer = stage.writer_service.call(WRITERS[host], ask, WAIT).await?;
    let Answer::Fetched(answer) = answer else { return None };
    let Fetched { epoch, log_start, high_watermark, last_stable, aborted, records } = match answer {
        Ok(fetched) => fetched,
        Err(Refusal::Failed(why)) => {
            stage.history.event("fetch-failed", format_args!("{stream} {offset}: {why}"));
            if why == "unreadable" && !stage.logs.lock().is_dropped(stream.topic) {
                stage.history.violation(format_args!("{stream}: offset {offset} cannot be read"));
            }
            return Some(Err(Refusal::Failed(why)));
        }
        Err(refusal) => return Some(Err(refusal)),
    };
    let mut logs = stage.logs.lock();
    if logs.is_dropped(stream.topic) {
        return None;
    }
    logs.offsets(stream, epoch, log_start, high_watermark, true);
    Some(Ok(match records {
        Some(records) => {
            let next = logs.read(stream, offset, &records);
            stage.transactions.lock().seen(last_stable, &records, &aborted);
            stage.history.event(
                "fetch",
                format_args!("{stream} {offset}..{next} of {log_start}..{high_watermark}"),
            );
            next
        }
        // Below the log start, or above what this (older) owner has.
        None => offset.clamp(log_start, high_watermark.max(log_start)),
    }))
}
