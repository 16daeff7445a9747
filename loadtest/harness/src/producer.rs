//! An idempotent producer on a schedule. One task owns it: it makes records when they are due and there is
//! room, gathers them to batches by partition, sends what is full or has lingered, and repeats what
//! failed in order.
//!
//! What always holds: it keeps at most `produce.buffer` bytes that are not acknowledged; a record's latency
//! counts from when it was due, however late it was made.

mod lane;
#[cfg(feature = "librdkafka")]
pub(crate) mod librdkafka;
mod transaction;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sluice_wire::batch::{Compression, NewRecord};
use sluice_wire::messages::init_producer_id_request::InitProducerIdRequest;
use sluice_wire::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use sluice_wire::messages::produce_response::ProduceResponse;
use sluice_wire::{ErrorCode, Str, Uuid};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{CallError, Connection, Leaders};
use crate::load::Load;
use crate::pace::{Next, Schedule};
use crate::random::Random;
use crate::stamp::{Payloads, Stamp};
use crate::verify::Written;
use crate::{keys, workload};
use lane::{Identity, Lane, Outcome};
use transaction::Transaction;

/// Records are made at most so many bytes at a time before answers are looked at.
const STEP_BYTES: u64 = 256 << 10;
/// How long a producer waits after a failure, as Kafka's does (`retry.backoff.ms`).
const BACKOFF: Duration = Duration::from_millis(100);
/// The same where the last transaction is still being completed: it is as good as done (what Kafka's producer
/// waits before it adds the first partition again, `TransactionManager`).
const COMPLETING_BACKOFF: Duration = Duration::from_millis(20);
const TIMEOUT_MS: i32 = 30_000;
/// The last version of Produce that names topics.
const LAST_WITH_NAMES: i16 = 12;

/// Whether producers shall go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Yes.
    No,
    /// Until nothing is due or under way.
    WhenDone,
    /// Not at all, whatever is under way.
    Now,
}

/// What a producer has done, at its end.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    pub(crate) written: Vec<Written>,
    /// Records that were due and abandoned.
    pub(crate) abandoned: u64,
    /// Records that were made and not acknowledged.
    pub(crate) unsettled: u64,
    /// Why it ended before its time.
    pub(crate) failure: Option<CallError>,
}

/// After a failure nothing is sent for a while.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    /// Whether the leaders may have changed.
    refresh: bool,
}

/// What goes into one request.
#[derive(Default)]
struct Gathered {
    bytes: u64,
    /// Partitions and the numbers of their batches.
    numbers: Vec<(u32, u64)>,
    data: Vec<PartitionProduceData>,
}

/// The answer to one request.
struct Answer {
    /// Partitions and the numbers of their batches.
    numbers: Vec<(u32, u64)>,
    leader: i32,
    sent_us: u64,
    outcome: Result<ProduceResponse, CallError>,
}

/// One producer.
pub(crate) struct Producer {
    index: u32,
    client_id: Str,
    load: Arc<Load>,
    identity: Identity,
    schedule: Schedule,
    random: Random,
    payloads: Payloads,
    compression: Compression,
    lanes: Vec<Lane>,
    /// Lanes with an open batch, by when its first record was due.
    open: BTreeSet<(u64, u32)>,
    /// Lanes that may have a batch to send, each once: `is_ready` says which are here.
    ready: VecDeque<u32>,
    is_ready: Vec<bool>,
    /// Where records without a key go until its batch is closed.
    sticky: u32,
    /// Bytes of values that are made and not acknowledged.
    held_bytes: u64,
    connections: HashMap<i32, Connection>,
    /// Requests under way by node.
    under_way: HashMap<i32, u32>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    transaction: Option<Transaction>,
    pause: Option<Pause>,
    last_progress: Instant,
    stop: watch::Receiver<Stop>,
}

impl Producer {
    /// Gets a producer id.
    pub(crate) async fn start(
        load: Arc<Load>,
        index: u32,
        payloads: Payloads,
        stop: watch::Receiver<Stop>,
    ) -> Result<Self, CallError> {
        let workload::Produce { producers, arrivals, .. } = load.workload.produce;
        let client_id = Str::from(format!("loadtest-producer-{index}"));
        let random = Random::new(load.seed, u64::from(index));
        let schedule =
            Schedule::new(arrivals, index, producers, Random::new(load.seed ^ 1, u64::from(index)));
        let partitions = load.workload.topic.partitions;
        let (transaction, identity) = match &load.workload.transactions {
            None => (None, idempotent(&load, &client_id).await?),
            Some(transactions) => {
                let (transaction, identity) =
                    Transaction::start(&load, transactions, index, &client_id).await?;
                (Some(transaction), identity)
            }
        };
        Ok(Self {
            index,
            client_id,
            identity,
            schedule,
            payloads,
            compression: load.workload.records.compression.into(),
            lanes: (0..partitions).map(|_| Lane::new()).collect(),
            open: BTreeSet::new(),
            ready: VecDeque::new(),
            is_ready: vec![false; partitions as usize],
            // Producers begin at different partitions.
            sticky: index % partitions,
            held_bytes: 0,
            connections: HashMap::new(),
            under_way: HashMap::new(),
            answers: FuturesUnordered::new(),
            transaction,
            pause: None,
            last_progress: Instant::now(),
            random,
            stop,
            load,
        })
    }

    /// Follows the schedule until it is stopped, or fails for good.
    pub(crate) async fn run(mut self) -> Ended {
        let failure = self.follow().await.err();
        self.end(failure)
    }

    async fn follow(&mut self) -> Result<(), CallError> {
        let load = Arc::clone(&self.load);
        let mut paces = load.pace.watch();
        let linger_us = load.workload.produce.linger.0.as_micros() as u64;
        let patience = load.workload.produce.delivery_timeout.0;
        loop {
            let stop = *self.stop.borrow_and_update();
            paces.mark_unchanged();
            let now_us = load.timeline.now_us();
            let mut wake_us = self.make(now_us);
            if stop == Stop::Now || (stop == Stop::WhenDone && self.is_done(wake_us)) {
                return Ok(());
            }
            wake_us = wake_us.min(self.close_lingering(now_us, linger_us));
            if let Some(at_us) = self.step_transaction(now_us).await? {
                wake_us = wake_us.min(at_us);
            }
            let pause = self.pause().await;
            if pause.is_none() {
                self.send().await?;
            }
            if self.is_flushed() {
                self.last_progress = Instant::now();
            } else if self.last_progress.elapsed() > patience {
                return Err(CallError::refused(
                    format!("producer {}: nothing acknowledged for too long", self.index),
                    ErrorCode::RequestTimedOut.code(),
                ));
            }
            // Far away where nothing is due: an answer or a new pace wakes.
            let wake_us = wake_us.min(now_us.saturating_add(1_000_000));
            let wake = load.timeline.instant(wake_us);
            tokio::select! {
                biased;
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => {
                    self.settle(answer)?;
                }
                () = sleep_until(pause.map_or(wake, |until| until.min(wake))) => {}
                _ = paces.changed() => {}
                _ = self.stop.changed() => {}
            }
        }
    }

    /// Until when nothing is to be sent. When that is over, leaders are asked for.
    async fn pause(&mut self) -> Option<Instant> {
        let Pause { until, refresh } = self.pause?;
        if Instant::now() < until {
            return Some(until);
        }
        self.pause = None;
        if refresh && let Err(error) = self.load.refresh(&self.client_id).await {
            self.load.repeated(self.index as usize, error.to_string());
        }
        None
    }

    fn end(mut self, failure: Option<CallError>) -> Ended {
        // While there was no room nobody has asked what became of the schedule.
        self.schedule.peek(&self.load.pace, self.load.timeline.now_us());
        self.waiting(u64::MAX);
        let transactional = self.transaction.is_some();
        let written = (0..).zip(&self.lanes).filter_map(|(partition, lane)| {
            let (acknowledged, sent) = lane.written(transactional);
            (sent > 0).then_some(Written { producer: self.index, partition, acknowledged, sent })
        });
        Ended {
            written: written.collect(),
            abandoned: self.schedule.abandoned(),
            unsettled: self.lanes.iter().map(Lane::unsettled).sum(),
            failure,
        }
    }

    /// Makes what is due, as far as there is room; when to come again.
    fn make(&mut self, now_us: u64) -> u64 {
        let load = Arc::clone(&self.load);
        let size = load.workload.records.size.0;
        let room = load.workload.produce.buffer.0.saturating_sub(self.held_bytes);
        let step = size.max(STEP_BYTES);
        let mut left = room.min(step);
        let paused = self.transaction.as_ref().is_some_and(Transaction::is_ending);
        while !paused && left >= size {
            match self.schedule.peek(&load.pace, now_us) {
                Next::Due(due_us) => {
                    self.schedule.take(&load.pace);
                    // Late because the buffer is full is the server's part, late otherwise the harness's.
                    if room > step {
                        load.stats.shard(self.index as usize).made(due_us, now_us);
                    }
                    self.push(due_us);
                    left -= size;
                }
                Next::At(at_us) => return self.waiting(at_us),
                Next::Never => return self.waiting(u64::MAX),
            }
        }
        // Room, and more is due: come again at once. No room: an answer wakes.
        if !paused && room > step { now_us } else { u64::MAX }
    }

    /// Nothing is due before `until_us`. What was given up meanwhile is told of.
    fn waiting(&mut self, until_us: u64) -> u64 {
        let given_up = self.schedule.take_given_up();
        if !given_up.is_empty() {
            self.load.stats.shard(self.index as usize).given_up(&given_up);
        }
        until_us
    }

    fn push(&mut self, due_us: u64) {
        let load = &self.load;
        let partitions = self.lanes.len() as u32;
        let key = load.chooser.choose(&mut self.random);
        let partition = key.map_or(self.sticky, |key| keys::partition(key, partitions));
        let lane = &mut self.lanes[partition as usize];
        let doomed = self.transaction.as_mut().is_some_and(|transaction| transaction.begin(due_us));
        let stamp = Stamp {
            run: load.run,
            producer: self.index,
            partition,
            sequence: lane.next(),
            due_us,
            doomed,
            key,
        };
        let text = key.map(keys::text);
        let record = NewRecord {
            timestamp_ms: (due_us / 1000) as i64,
            key: text.as_ref().map(<[u8; keys::BYTES]>::as_slice),
            value: Some(self.payloads.next(&stamp, &mut self.random)),
            headers: &[],
        };
        if lane.open_since_us().is_none() {
            self.open.insert((due_us, partition));
        }
        let bytes = lane.push(self.identity, self.compression, &record, due_us);
        let size = load.workload.records.size.0;
        self.held_bytes += size;
        load.outstanding.fetch_add(1, Ordering::Relaxed);
        if bytes as u64 + size > load.workload.produce.batch.0 {
            self.close(partition);
        }
    }

    fn close(&mut self, partition: u32) {
        let lane = &mut self.lanes[partition as usize];
        if let Some(since_us) = lane.open_since_us() {
            self.open.remove(&(since_us, partition));
            lane.close();
            self.offer(partition);
        }
        if partition == self.sticky {
            self.sticky = (self.sticky + 1) % self.lanes.len() as u32;
        }
    }

    fn offer(&mut self, partition: u32) {
        if !std::mem::replace(&mut self.is_ready[partition as usize], true) {
            self.ready.push_back(partition);
        }
    }

    fn has_room(&self, leader: i32) -> bool {
        let under_way = self.under_way.get(&leader).copied().unwrap_or(0);
        under_way < self.load.workload.produce.in_flight
    }

    /// Closes batches that have waited long enough and could be sent now: those that could not go on
    /// growing. When the next one will have waited.
    fn close_lingering(&mut self, now_us: u64, linger_us: u64) -> u64 {
        let leaders = self.load.leaders();
        let mut due = Vec::new();
        let mut next_us = u64::MAX;
        for (since_us, partition) in &self.open {
            if since_us + linger_us > now_us {
                next_us = since_us + linger_us;
                break;
            }
            if self.has_room(leaders.partitions[*partition as usize].leader) {
                due.push(*partition);
            }
        }
        for partition in due {
            self.close(partition);
        }
        next_us
    }

    fn close_all(&mut self) {
        while let Some((_, partition)) = self.open.first().copied() {
            self.close(partition);
        }
    }

    /// Whether everything that was made is acknowledged.
    fn is_flushed(&self) -> bool {
        self.held_bytes == 0
    }

    fn is_done(&self, wake_us: u64) -> bool {
        let is_idle = self.transaction.as_ref().is_none_or(Transaction::is_idle);
        wake_us == u64::MAX && self.is_flushed() && is_idle
    }

    /// Sends what is ready, as far as requests may be under way.
    async fn send(&mut self) -> Result<(), CallError> {
        let load = Arc::clone(&self.load);
        let leaders = load.leaders();
        loop {
            let requests = self.gather(&leaders, load.workload.produce.request.0);
            if requests.is_empty() {
                return Ok(());
            }
            for (leader, request) in requests {
                self.request(leader, leaders.topic_id, request.numbers, request.data).await?;
            }
        }
    }

    /// One request for each server that has room for one: a batch of each partition that has one ready.
    fn gather(&mut self, leaders: &Leaders, most_bytes: u64) -> BTreeMap<i32, Gathered> {
        let mut requests: BTreeMap<i32, Gathered> = BTreeMap::new();
        for _ in 0..self.ready.len() {
            let Some(partition) = self.ready.pop_front() else { break };
            let leader = leaders.partitions[partition as usize].leader;
            let has_room = self.has_room(leader);
            let lane = &mut self.lanes[partition as usize];
            self.is_ready[partition as usize] = false;
            let Some(bytes) = lane.ready_bytes() else { continue };
            let request = requests.get(&leader);
            let fits = request.is_none_or(|request| request.bytes + bytes as u64 <= most_bytes);
            if has_room
                && fits
                && let Some((number, batch)) = lane.send()
            {
                let request = requests.entry(leader).or_default();
                request.bytes += bytes as u64;
                request.numbers.push((partition, number));
                let (index, records) = (partition as i32, Some(batch.into()));
                request.data.push(PartitionProduceData { index, records });
            }
            // The next batch of this partition goes with the next request.
            if self.lanes[partition as usize].ready_bytes().is_some() {
                self.offer(partition);
            }
        }
        requests
    }

    async fn request(
        &mut self,
        leader: i32,
        topic_id: Uuid,
        numbers: Vec<(u32, u64)>,
        partition_data: Vec<PartitionProduceData>,
    ) -> Result<(), CallError> {
        let request = ProduceRequest {
            transactional_id: self.transaction.as_ref().map(|transaction| transaction.id().clone()),
            acks: -1,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: self.load.topic.clone(),
                topic_id,
                partition_data,
            }],
        };
        *self.under_way.entry(leader).or_default() += 1;
        let sent_us = self.load.timeline.now_us();
        let most = if topic_id == Uuid::ZERO { LAST_WITH_NAMES } else { i16::MAX };
        let sent = match self.connection(leader).await {
            Ok(connection) => connection.send_at_most(&request, most),
            Err(error) => Err(error),
        };
        self.answers.push(Box::pin(async move {
            let outcome = match sent {
                Ok(pending) => pending.answer().await,
                Err(error) => Err(error),
            };
            Answer { numbers, leader, sent_us, outcome }
        }));
        Ok(())
    }

    async fn connection(&mut self, node: i32) -> Result<Connection, CallError> {
        if let Some(connection) = self.connections.get(&node).filter(|open| open.is_open()) {
            return Ok(connection.clone());
        }
        let connection = self.load.cluster.node(node, &self.client_id).await?;
        self.connections.insert(node, connection.clone());
        Ok(connection)
    }

    /// Takes an answer.
    fn settle(&mut self, answer: Answer) -> Result<(), CallError> {
        let Answer { numbers, leader, sent_us, outcome } = answer;
        let load = Arc::clone(&self.load);
        let now_us = load.timeline.now_us();
        if let Some(under_way) = self.under_way.get_mut(&leader) {
            *under_way -= 1;
        }
        let codes: HashMap<u32, i16> = match outcome {
            Ok(response) => {
                let partitions = response.responses.into_iter().flat_map(|t| t.partition_responses);
                partitions.map(|p| (p.index as u32, p.error_code)).collect()
            }
            Err(error) if error.is_retriable() => {
                load.repeated(self.index as usize, error.to_string());
                self.connections.remove(&leader);
                HashMap::new()
            }
            Err(error) => return Err(error),
        };
        for (partition, number) in numbers {
            // A partition that the answer leaves out may be there or not.
            let code = codes.get(&partition).copied();
            let outcome = self.outcome(partition, code)?;
            if outcome == Outcome::Failed {
                let completing = code == Some(ErrorCode::ConcurrentTransactions.code());
                self.back_off(if completing { COMPLETING_BACKOFF } else { BACKOFF }, !completing);
            } else {
                load.outages.acknowledged(sent_us, now_us);
            }
            let settled = self.lanes[partition as usize].settle(number, outcome);
            self.offer(partition);
            if let Some(settled) = settled {
                self.last_progress = Instant::now();
                load.outstanding.fetch_sub(settled.due_us.len() as u64, Ordering::Relaxed);
                self.held_bytes -= settled.value_bytes;
                let mut shard = load.stats.shard(self.index as usize);
                shard.counts().written += settled.due_us.len() as u64;
                shard.counts().written_bytes += settled.value_bytes;
                for due_us in settled.due_us {
                    shard.produced(due_us, now_us);
                }
            }
        }
        Ok(())
    }

    fn back_off(&mut self, time: Duration, refresh: bool) {
        let until = Instant::now() + time;
        let before = self.pause.unwrap_or(Pause { until, refresh });
        self.pause =
            Some(Pause { until: until.max(before.until), refresh: refresh || before.refresh });
    }

    fn outcome(&self, partition: u32, code: Option<i16>) -> Result<Outcome, CallError> {
        let Some(code) = code else { return Ok(Outcome::Failed) };
        let lane = &self.lanes[partition as usize];
        let error = ErrorCode::from_code(code);
        match error {
            ErrorCode::None | ErrorCode::DuplicateSequenceNumber => Ok(Outcome::Acknowledged),
            // What came after a batch that failed is refused for coming too early.
            ErrorCode::OutOfOrderSequenceNumber if lane.is_waiting_to_repeat() => {
                Ok(Outcome::Failed)
            }
            error if error.retriable() => {
                self.load.repeated(self.index as usize, format!("produce: {error}"));
                Ok(Outcome::Failed)
            }
            _ => Err(CallError::refused(format!("producing to partition {partition}"), code)),
        }
    }
}

async fn idempotent(load: &Load, client_id: &Str) -> Result<Identity, CallError> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: TIMEOUT_MS,
        ..Default::default()
    };
    let connection = load.cluster.any(client_id).await?;
    let until = Instant::now() + load.workload.produce.delivery_timeout.0;
    loop {
        let answer = connection.call(&request).await?;
        let error = ErrorCode::from_code(answer.error_code);
        if error.is_none() {
            let (id, epoch) = (answer.producer_id, answer.producer_epoch);
            return Ok(Identity { id, epoch, transactional: false });
        }
        if !error.retriable() || Instant::now() > until {
            return Err(CallError::refused("getting a producer id", answer.error_code));
        }
        sleep(BACKOFF).await;
    }
}
