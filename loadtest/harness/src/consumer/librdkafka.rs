//! A consumer of librdkafka's, for a foreign client's view: what it gives is verified and measured like what our own reads. How
//! it fetches is librdkafka's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::watch;

use super::{Goal, Read};
use crate::client::CallError;
use crate::load::Load;
use crate::verify::Verifier;

/// How long it waits for a record before it looks whether it is to end.
const POLL: Duration = Duration::from_millis(20);

/// One consumer of one group.
pub(crate) struct Consumer {
    index: usize,
    load: Arc<Load>,
    /// Next offset by partition.
    next: HashMap<u32, i64>,
    verifier: Verifier,
    goal: watch::Receiver<Goal>,
    has_arrived: bool,
}

/// Notes what librdkafka complains about and repeats.
struct Complaints(Arc<Load>, usize);

impl ClientContext for Complaints {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.repeated(self.1, format!("librdkafka: {error}: {reason}"));
    }
}

impl ConsumerContext for Complaints {}

impl Consumer {
    /// A consumer of these partitions, from their beginning.
    pub(crate) fn new(
        load: Arc<Load>,
        index: usize,
        partitions: impl Iterator<Item = u32>,
        goal: watch::Receiver<Goal>,
    ) -> Self {
        let next = partitions.map(|partition| (partition, 0)).collect();
        let verifier = Verifier::new(load.run, false);
        Self { index, load, next, verifier, goal, has_arrived: false }
    }

    /// Reads until the last goal is passed, or fails for good. On a thread of its own: librdkafka's calls block.
    pub(crate) async fn run(self) -> Read {
        let partitions: Vec<u32> = self.next.keys().copied().collect();
        let done = tokio::task::spawn_blocking(move || self.read()).await;
        done.unwrap_or_else(|error| Read {
            verifier: None,
            partitions,
            is_complete: false,
            failure: Some(CallError::Foreign(error.to_string())),
        })
    }

    fn read(mut self) -> Read {
        let failure = self.follow().err();
        let goal = self.goal.borrow().clone();
        let is_complete = failure.is_none() && goal.is_passed(&self.next);
        let partitions = self.next.into_keys().collect();
        Read { verifier: Some(self.verifier), partitions, is_complete, failure }
    }

    fn follow(&mut self) -> Result<(), CallError> {
        let consumer = self.client().map_err(failed)?;
        loop {
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.look(&message),
                Some(Err(error)) if is_final(&error) => return Err(failed(error)),
                Some(Err(error)) => self.load.repeated(self.index, format!("librdkafka: {error}")),
                None => {}
            }
            if self.goal.has_changed().unwrap_or(true) {
                self.goal.mark_unchanged();
                self.has_arrived = false;
            }
            let goal = self.goal.borrow();
            if goal.is_the_end(goal.is_passed(&self.next), &mut self.has_arrived, &self.load) {
                return Ok(());
            }
        }
    }

    fn client(&self) -> Result<BaseConsumer<Complaints>, KafkaError> {
        let mut config = ClientConfig::new();
        let name = format!("loadtest-consumer-{}", self.index);
        config
            .set("bootstrap.servers", self.load.cluster.bootstrap())
            .set("client.id", &name)
            // It is not joined: partitions are given out here.
            .set("group.id", &name)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("check.crcs", "true");
        if let Some(consume) = &self.load.workload.consume {
            config
                .set("fetch.wait.max.ms", consume.max_wait.0.as_millis().to_string())
                .set("fetch.min.bytes", consume.min_bytes.to_string())
                .set("fetch.max.bytes", consume.max_bytes.0.max(1_000_000).to_string())
                .set("max.partition.fetch.bytes", consume.partition_bytes.0.to_string());
        }
        let consumer: BaseConsumer<Complaints> =
            config.create_with_context(Complaints(Arc::clone(&self.load), self.index))?;
        let mut partitions = TopicPartitionList::new();
        for (partition, next) in &self.next {
            let from = Offset::Offset(*next);
            partitions.add_partition_offset(&self.load.topic, *partition as i32, from)?;
        }
        consumer.assign(&partitions)?;
        Ok(consumer)
    }

    fn look(&mut self, message: &BorrowedMessage<'_>) {
        let now_us = self.load.timeline.now_us();
        let (partition, offset) = (message.partition() as u32, message.offset());
        let value = message.payload();
        let stamp = self.verifier.take(None, partition, offset, message.key(), value);
        if let Some(next) = self.next.get_mut(&partition) {
            *next = (*next).max(offset + 1);
        }
        let bytes = value.map_or(0, <[u8]>::len);
        let due_us = stamp.map(|stamp| stamp.due_us);
        self.load.stats.shard(self.index).read(bytes, due_us, now_us);
    }
}

/// Whether reading on makes no sense; librdkafka repeats the rest by itself.
fn is_final(error: &KafkaError) -> bool {
    error.rdkafka_error_code().is_none_or(|code| {
        matches!(
            code,
            RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::InvalidMessage
        )
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: KafkaError) -> CallError {
    CallError::Foreign(error.to_string())
}
