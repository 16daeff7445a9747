//! A producer of librdkafka's on the same schedule, for a foreign client's view. Its batches, requests and repetitions are
//! librdkafka's; when a record is due, what it is and to which partition it goes is decided here, so that it can be verified
//! like any other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::{Ended, STEP_BYTES, Stop};
use crate::client::CallError;
use crate::keys;
use crate::load::Load;
use crate::pace::{Next, Schedule};
use crate::random::Random;
use crate::stamp::{Payloads, Stamp};
use crate::verify::Written;

/// How soon it is looked again whether the last records are acknowledged, or there is room.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One producer.
pub(crate) struct Producer {
    index: u32,
    load: Arc<Load>,
    inner: ThreadedProducer<Deliveries>,
    schedule: Schedule,
    random: Random,
    payloads: Payloads,
    /// The next sequence by partition.
    sent: Vec<u64>,
    sticky: Sticky,
    stop: watch::Receiver<Stop>,
}

/// Where records without a key go.
struct Sticky {
    partition: u32,
    /// How many have gone there, and since when.
    count: u64,
    since_us: u64,
}

/// What librdkafka tells of records, on a thread of its own.
struct Deliveries(Arc<Told>);

struct Told {
    load: Arc<Load>,
    index: usize,
    /// By partition.
    acknowledged: Vec<AtomicU64>,
    /// Of all partitions: acknowledged or given up.
    settled: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.load.repeated(self.0.index, format!("librdkafka: {error}: {reason}"));
    }
}

impl ProducerContext for Deliveries {
    /// When the record was due, in µs.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due_us: usize) {
        let Told { load, index, acknowledged, settled, failure } = &*self.0;
        let now_us = load.timeline.now_us();
        load.outstanding.fetch_sub(1, Ordering::Relaxed);
        match result {
            Ok(message) => {
                acknowledged[message.partition() as usize].fetch_add(1, Ordering::Relaxed);
                load.outages.acknowledged(due_us as u64, now_us);
                let mut shard = load.stats.shard(*index);
                shard.counts().written += 1;
                shard.counts().written_bytes += message.payload_len() as u64;
                shard.produced(due_us as u64, now_us);
            }
            Err((error, _)) => {
                failure.lock().get_or_insert_with(|| error.to_string());
            }
        }
        settled.fetch_add(1, Ordering::Release);
    }
}

impl Producer {
    /// A producer whose client has begun to look for the server.
    pub(crate) fn start(
        load: Arc<Load>,
        index: u32,
        payloads: Payloads,
        stop: watch::Receiver<Stop>,
    ) -> Result<Self, CallError> {
        let workload = &load.workload;
        let (produce, partitions) = (&workload.produce, workload.topic.partitions);
        let told = Told {
            load: Arc::clone(&load),
            index: index as usize,
            acknowledged: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            settled: AtomicU64::new(0),
            failure: Mutex::new(None),
        };
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", load.cluster.bootstrap())
            .set("client.id", format!("loadtest-producer-{index}"))
            .set("enable.idempotence", "true")
            .set("linger.ms", produce.linger.0.as_millis().to_string())
            .set("batch.size", produce.batch.0.to_string())
            .set(
                "message.max.bytes",
                (produce.batch.0.max(workload.records.size.0) + 1024).to_string(),
            )
            .set("max.in.flight.requests.per.connection", produce.in_flight.to_string())
            .set("queue.buffering.max.kbytes", produce.buffer.0.div_ceil(1024).max(1).to_string())
            .set("queue.buffering.max.messages", "10000000")
            .set("message.timeout.ms", produce.delivery_timeout.0.as_millis().to_string())
            .set("compression.codec", workload.records.compression.name());
        let inner = config.create_with_context(Deliveries(Arc::new(told))).map_err(failed)?;
        let order = Random::new(load.seed ^ 1, u64::from(index));
        Ok(Self {
            index,
            inner,
            schedule: Schedule::new(produce.arrivals, index, produce.producers, order),
            random: Random::new(load.seed, u64::from(index)),
            payloads,
            sent: vec![0; partitions as usize],
            sticky: Sticky { partition: index % partitions, count: 0, since_us: 0 },
            stop,
            load,
        })
    }

    /// Follows the schedule until it is stopped, or fails for good.
    pub(crate) async fn run(mut self) -> Ended {
        let failure = self.follow().await.err();
        let told = Arc::clone(&self.inner.context().0);
        // What is still under way is given up; what becomes of it nobody counts on.
        let purged = rdkafka::producer::PurgeConfig::default().queue().inflight();
        tokio::task::block_in_place(|| {
            self.inner.purge(purged);
            let _ = self.inner.flush(Duration::from_secs(5));
        });
        let sent: u64 = self.sent.iter().sum();
        let mut acknowledged = 0;
        let mut written = Vec::new();
        for (partition, (sent, told)) in (0..).zip(self.sent.iter().zip(&told.acknowledged)) {
            let of_it = told.load(Ordering::Relaxed);
            acknowledged += of_it;
            if *sent > 0 {
                let (producer, sent) = (self.index, *sent);
                written.push(Written { producer, partition, acknowledged: of_it, sent });
            }
        }
        Ended {
            written,
            abandoned: self.schedule.abandoned(),
            unsettled: sent - acknowledged,
            failure,
        }
    }

    async fn follow(&mut self) -> Result<(), CallError> {
        let load = Arc::clone(&self.load);
        let told = Arc::clone(&self.inner.context().0);
        let mut paces = load.pace.watch();
        loop {
            let stop = *self.stop.borrow_and_update();
            paces.mark_unchanged();
            let now_us = load.timeline.now_us();
            let due_us = self.make(now_us)?;
            if let Some(failure) = &*told.failure.lock() {
                return Err(CallError::Foreign(failure.clone()));
            }
            let is_flushed = told.settled.load(Ordering::Acquire) == self.sent.iter().sum::<u64>();
            if stop == Stop::Now || (stop == Stop::WhenDone && due_us.is_none() && is_flushed) {
                return Ok(());
            }
            let wake = match due_us {
                Some(due_us) => load.timeline.instant(due_us),
                None if is_flushed => Instant::now() + Duration::from_secs(1),
                None => Instant::now() + LOOK_EVERY,
            };
            tokio::select! {
                () = sleep_until(wake) => {}
                _ = paces.changed() => {}
                _ = self.stop.changed() => {}
            }
        }
    }

    /// Makes what is due, as far as there is room; when to come again, if more will be due.
    fn make(&mut self, now_us: u64) -> Result<Option<u64>, CallError> {
        let load = Arc::clone(&self.load);
        let size = load.workload.records.size.0;
        let mut left = STEP_BYTES.max(size);
        while left >= size {
            match self.schedule.peek(&load.pace, now_us) {
                Next::Due(due_us) => {
                    if !self.push(due_us, now_us)? {
                        return Ok(Some(now_us + LOOK_EVERY.as_micros() as u64));
                    }
                    self.schedule.take(&load.pace);
                    left -= size;
                }
                Next::At(at_us) => {
                    self.tell_given_up();
                    return Ok(Some(at_us));
                }
                Next::Never => {
                    self.tell_given_up();
                    return Ok(None);
                }
            }
        }
        Ok(Some(now_us))
    }

    /// What was given up has waited for long: it is in the latencies, too.
    fn tell_given_up(&mut self) {
        let given_up = self.schedule.take_given_up();
        if !given_up.is_empty() {
            self.load.stats.shard(self.index as usize).given_up(&given_up);
        }
    }

    /// Hands a record to librdkafka, unless its buffer is full.
    fn push(&mut self, due_us: u64, now_us: u64) -> Result<bool, CallError> {
        let load = &self.load;
        let partitions = self.sent.len() as u32;
        // The choice is taken only with the record.
        let mut random = self.random.clone();
        let key = load.chooser.choose(&mut random);
        let partition = key
            .map_or_else(|| self.sticky_partition(due_us), |key| keys::partition(key, partitions));
        let load = &self.load;
        let stamp = Stamp {
            run: load.run,
            producer: self.index,
            partition,
            sequence: self.sent[partition as usize],
            due_us,
            doomed: false,
            key,
        };
        let text = key.map(keys::text);
        let value = self.payloads.next(&stamp, &mut random);
        let mut record = BaseRecord::with_opaque_to(&load.topic, due_us as usize)
            .partition(partition as i32)
            .timestamp((due_us / 1000) as i64)
            .payload(value);
        if let Some(text) = &text {
            record = record.key(text.as_slice());
        }
        load.outstanding.fetch_add(1, Ordering::Relaxed);
        match self.inner.send(record) {
            Ok(()) => {}
            Err((error, _)) => {
                load.outstanding.fetch_sub(1, Ordering::Relaxed);
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) {
                    return Ok(false);
                }
                return Err(failed(error));
            }
        }
        load.stats.shard(self.index as usize).made(due_us, now_us);
        self.random = random;
        self.sent[partition as usize] += 1;
        self.sticky.count += u64::from(key.is_none());
        Ok(true)
    }

    /// A batch's worth of records, or what is due within the linger time, goes to one partition; then to the next.
    fn sticky_partition(&mut self, due_us: u64) -> u32 {
        let produce = &self.load.workload.produce;
        let most = produce.batch.0 / self.load.workload.records.size.0;
        let Sticky { partition, count, since_us } = &mut self.sticky;
        let linger_us = produce.linger.0.as_micros() as u64;
        if *count > 0 && (*count >= most || due_us > *since_us + linger_us) {
            *partition = (*partition + 1) % self.sent.len() as u32;
            *count = 0;
        }
        if *count == 0 {
            *since_us = due_us;
        }
        *partition
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: KafkaError) -> CallError {
    CallError::Foreign(error.to_string())
}
