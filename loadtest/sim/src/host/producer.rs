//! Producers. An idempotent one does as Kafka's client: numbers its batches, has up to five under way on
//! a stream, and sends again, in order and unchanged, what was not acknowledged, for ever. A plain one
//! sends each batch once and never learns what became of it if no answer comes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sluice_model::StreamId;
use sluice_wire::batch::{BatchBuilder, NewRecord};

use super::{Answer, Ask, Refusal};
use crate::random::Random;
use crate::stage::{IDEMPOTENT, Stage, WRITERS, producer_time_ms};

/// As many as a client may have in flight on one connection.
const IN_FLIGHT: usize = 5;
/// Producer ids that the catalog never gives to anyone.
const FIRST_ID: i64 = 1 << 40;
/// How long a client waits for an answer.
const WAIT: Duration = Duration::from_millis(2500);

struct Batch {
    bytes: Bytes,
    values: Vec<Bytes>,
}

#[derive(Default)]
struct Line {
    /// The sequence of the next record.
    sequence: i32,
    /// Not acknowledged yet, in order.
    open: VecDeque<Batch>,
}

/// One producer, on all streams.
struct Producer {
    stage: Arc<Stage>,
    id: u32,
    random: Random,
    lines: BTreeMap<StreamId, Line>,
    /// Records made so far: their place in this producer's order on any stream.
    made: i64,
    host: usize,
}

/// Runs a producer until the host crashes.
pub(crate) async fn produce(stage: Arc<Stage>, id: u32) {
    let random = Random::new(stage.seed, 1000 + u64::from(id));
    let mut producer = Producer { stage, id, random, lines: BTreeMap::new(), made: 0, host: 0 };
    loop {
        let rest = producer.random.ms(1, producer.stage.profile.rest_ms);
        tokio::time::sleep(rest).await;
        producer.turn().await;
    }
}

impl Producer {
    fn is_idempotent(&self) -> bool {
        self.id < IDEMPOTENT
    }

    /// Sends something on one stream, and takes note of the answers.
    async fn turn(&mut self) {
        let stage = Arc::clone(&self.stage);
        self.lines.retain(|stream, _| !stage.logs.lock().is_dropped(stream.topic));
        let stream = if stage.wind_down.load(Ordering::Relaxed) {
            let open = self.lines.iter().find(|(_, line)| !line.open.is_empty());
            let Some((stream, _)) = open else {
                let mut settled = stage.settled.lock();
                if !settled.contains(&self.id) {
                    settled.push(self.id);
                }
                return;
            };
            *stream
        } else {
            let Some(stream) = self.any_stream() else { return };
            let wanted = self.random.between(1, IN_FLIGHT as u64) as usize;
            while self.lines.entry(stream).or_default().open.len() < wanted {
                self.make(stream);
            }
            stream
        };
        self.send(stream).await;
    }

    fn any_stream(&mut self) -> Option<StreamId> {
        let topics = self.stage.topics.lock().clone();
        if topics.is_empty() {
            return None;
        }
        let topic = self.random.pick(&topics);
        if self.stage.logs.lock().is_dropped(topic.id) {
            return None;
        }
        let partition = self.random.below(topic.partitions.len() as u64) as u32;
        Some(StreamId { topic: topic.id, partition })
    }

    fn make(&mut self, stream: StreamId) {
        let idempotent = self.is_idempotent();
        let line = self.lines.entry(stream).or_default();
        let mut builder = BatchBuilder::new();
        if idempotent {
            builder = builder.producer(FIRST_ID + i64::from(self.id), 0, line.sequence);
        }
        let mut values = Vec::new();
        for _ in 0..self.random.between(1, 4) {
            let filler = self.random.below(self.stage.profile.most_value_bytes) as usize;
            let letter = char::from(b'a' + (self.made % 26) as u8);
            let mut value = format!("{}/{}/", self.id, self.made);
            value.extend(std::iter::repeat_n(letter, filler));
            let value = Bytes::from(value);
            builder.push(&NewRecord {
                timestamp_ms: producer_time_ms(),
                key: Some(b"key"),
                value: Some(&value),
                headers: &[],
            });
            values.push(value);
            self.made += 1;
        }
        line.sequence += values.len() as i32;
        line.open.push_back(Batch { bytes: builder.build(), values });
    }

    async fn send(&mut self, stream: StreamId) {
        let batches: Vec<Bytes> =
            self.lines[&stream].open.iter().map(|batch| batch.bytes.clone()).collect();
        let count = batches.len();
        let host = WRITERS[self.host];
        let history = self.stage.history.clone();
        history.event("send", format_args!("p{} {stream} {count} to {host}", self.id));
        let service = self.stage.writer_service.clone();
        let ask = Ask::Produce { stream, batches };
        let mut outcomes = vec![false; count];
        if let Ok(exchange) = service.ask(host, ask).await {
            for _ in 0..count {
                match exchange.next(WAIT).await {
                    Some(Answer::Produced { index, result: Ok((base_offset, epoch)) }) => {
                        self.acknowledged(stream, index, base_offset, epoch);
                        outcomes[index] = true;
                    }
                    Some(Answer::Produced { result: Err(Refusal::NotOwner), .. }) => break,
                    Some(Answer::Produced { index, result: Err(Refusal::Failed(why)) }) => {
                        history.event("refused", format_args!("p{} #{index}: {why}", self.id));
                    }
                    // No answer in time.
                    _ => break,
                }
            }
        }
        let all = outcomes.iter().all(|done| *done);
        let line = self.lines.entry(stream).or_default();
        if self.id < IDEMPOTENT {
            let mut outcome = outcomes.into_iter();
            line.open.retain(|_| !outcome.next().unwrap_or(false));
        } else {
            line.open.clear();
        }
        if !all {
            // The other one may own it by now.
            self.host = 1 - self.host;
            let rest = self.random.ms(20, 250);
            tokio::time::sleep(rest).await;
        }
    }

    fn acknowledged(&self, stream: StreamId, index: usize, base_offset: i64, epoch: i32) {
        let batch = &self.lines[&stream].open[index];
        self.stage.history.event(
            "ack",
            format_args!(
                "p{} {stream} {} at {base_offset} epoch {epoch}",
                self.id,
                batch.values.len()
            ),
        );
        self.stage.logs.lock().acknowledged(stream, base_offset, &batch.values);
        self.stage.just_acknowledged.store(true, Ordering::Relaxed);
    }
}
