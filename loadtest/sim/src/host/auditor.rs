//! The end of a run: everything is read back, through the owner and from the bucket alone, and compared
//! to all that anyone was ever told.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use sluice_format::StreamKey;
use sluice_model::{Entropy, StreamId};
use sluice_reader::{Bounds, Reader};

use super::writer::reader;
use super::{Answer, Ask, open_catalog};
use crate::check::Replay;
use crate::random::{Random, SeededEntropy};
use crate::stage::{Stage, WRITERS};

const WAIT: Duration = Duration::from_secs(3);
/// Between two tries, of which so many may fail in one stream.
const REST: Duration = Duration::from_millis(200);
const MOST_FAILURES: u32 = 50;
const STEP_BYTES: u64 = 1 << 20;

/// Where everything is read from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// The owner, on this host.
    Owner(usize),
    /// The bucket; no writer lives.
    Bucket,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Owner(_) => "the owner",
            Self::Bucket => "the bucket",
        }
    }
}

/// Reads every stream from its log start to its end.
pub(crate) async fn audit(stage: Arc<Stage>, from: Source) -> turmoil::Result {
    let streams = stage.logs.lock().streams();
    let mut replay = Replay::default();
    match from {
        Source::Owner(host) => {
            for stream in streams {
                of_owner(&stage, host, stream, &mut replay).await?;
            }
        }
        Source::Bucket => {
            let entropy: Arc<dyn Entropy> =
                Arc::new(SeededEntropy::new(Random::new(stage.seed, 7)));
            let catalog = open_catalog(&stage, &entropy).await;
            let reader = Arc::new(reader(&stage, &catalog));
            for volume in 0..stage.profile.volumes {
                let state = stage.objects.lock().state(volume);
                reader.attach(volume, Arc::new(RwLock::new(state)));
            }
            for stream in streams {
                let topic = catalog.topic_of_any_tenant(stream.topic).ok_or("a topic is gone")?;
                let volume = topic.partitions[stream.partition as usize];
                of_bucket(&stage, &reader, volume.0, stream, &mut replay).await?;
            }
        }
    }
    stage.transactions.lock().judge(from.name(), &replay);
    stage.history.event("audit", format_args!("{from:?}"));
    Ok(())
}

async fn of_owner(
    stage: &Stage,
    host: usize,
    stream: StreamId,
    replay: &mut Replay,
) -> turmoil::Result {
    let mut at = 0;
    let mut failures = 0;
    let mut first = None;
    loop {
        let ask = Ask::Fetch { stream, offset: at, max_bytes: STEP_BYTES };
        let answer = stage.writer_service.call(WRITERS[host], ask, WAIT).await;
        let Some(Answer::Fetched(Ok(fetched))) = answer else {
            // The administrator's last deletion may come between.
            if stage.logs.lock().is_dropped(stream.topic) {
                return Ok(());
            }
            failures += 1;
            if failures > MOST_FAILURES {
                return Err(format!("{stream} at {at}: no answer to the audit: {answer:?}").into());
            }
            // A takeover that began before all was healed may still come to an end.
            tokio::time::sleep(REST).await;
            continue;
        };
        let mut logs = stage.logs.lock();
        let (log_start, end) = (fetched.log_start, fetched.high_watermark);
        logs.offsets(stream, fetched.epoch, log_start, end, true);
        match fetched.records {
            None if at < log_start => {
                // Retention has come between: what is complete begins there.
                at = log_start;
                first = None;
            }
            None => {
                stage.history.violation(format_args!("{stream}: {at} is above the end {end}"));
                return Ok(());
            }
            Some(records) => {
                first.get_or_insert(at);
                let next = logs.read(stream, at, &records);
                replay.read(stream, &records, fetched.aborted);
                if next == at {
                    let log_start = first.unwrap_or(log_start);
                    logs.complete("the owner", stream, log_start, at);
                    return Ok(());
                }
                at = next;
            }
        }
    }
}

async fn of_bucket(
    stage: &Stage,
    reader: &Arc<Reader>,
    volume: u32,
    stream: StreamId,
    replay: &mut Replay,
) -> turmoil::Result {
    let key = StreamKey { topic: stream.topic.0, partition: stream.partition };
    let state = stage.objects.lock().state(volume);
    let Some(known) = state.streams.get(&key) else {
        stage.logs.lock().complete("the bucket", stream, 0, 0);
        return Ok(());
    };
    let mut at = known.log_start;
    while at < known.end_offset {
        let records = reader.read(volume, key, at, Bounds::most(STEP_BYTES)).await?.to_bytes();
        let next = stage.logs.lock().read(stream, at, &records);
        let aborted = reader.aborted(volume, key, &(at..next)).await?;
        let aborted = aborted.iter().map(|of| (of.producer_id, of.first_offset));
        replay.read(stream, &records, aborted);
        if next == at {
            return Err(format!("{stream}: the bucket has nothing at {at}").into());
        }
        at = next;
    }
    stage.logs.lock().complete("the bucket", stream, known.log_start, known.end_offset);
    Ok(())
}
