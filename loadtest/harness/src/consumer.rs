//! A consumer: fetches its partitions from their leaders without a pause, checks every record, and measures
//! when it came. One task owns it and its [`Verifier`]. The next fetch is on its way while the records of
//! the last one are looked at.

mod classic;
mod committed;
mod group;
#[cfg(feature = "librdkafka")]
pub(crate) mod librdkafka;
mod member;
mod membership;
mod session;
mod throttle;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sluice_wire::batch::BatchView;
use sluice_wire::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use sluice_wire::messages::fetch_response::{FetchResponse, PartitionData};
use sluice_wire::{ErrorCode, Str, Uuid};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::client::{Bound, CallError, Connection};
use crate::load::Load;
use crate::verify::{Findings, Verifier, Written};
use committed::Aborted;
pub(crate) use group::Group;
use membership::Membership;
use session::Session;
use throttle::Throttle;

const BACKOFF: Duration = Duration::from_millis(100);
/// The last version of Fetch that names topics.
const LAST_WITH_NAMES: i16 = 12;
/// The most that one batch may take when it is inflated.
const MAX_BATCH_BYTES: usize = 1 << 30;

/// How far consumers shall come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Goal {
    /// By partition. A consumer that has passed all of its own counts itself in [`Load::arrived`].
    pub(crate) ends: Arc<Vec<i64>>,
    /// Consumers end there.
    pub(crate) is_last: bool,
    /// Consumers end at once.
    pub(crate) is_over: bool,
    /// Records may still come behind these ends: producers were stopped before some were answered.
    pub(crate) is_open: bool,
}

impl Goal {
    /// Whether a consumer that reads on at these offsets has passed it. Without a goal nobody has.
    fn is_passed(&self, next: &HashMap<u32, i64>) -> bool {
        !self.ends.is_empty()
            && next.iter().all(|(index, next)| *next >= self.ends[*index as usize])
    }

    /// What follows for a consumer that is there, or is not: whether it ends. It counts itself among those that
    /// have arrived, once.
    fn is_the_end(&self, is_there: bool, has_arrived: &mut bool, load: &Load) -> bool {
        if self.is_over || (self.is_last && is_there) {
            return true;
        }
        if is_there && !std::mem::replace(has_arrived, true) {
            load.arrived.fetch_add(1, Ordering::Relaxed);
        }
        false
    }
}

/// One consumer of one group.
pub(crate) struct Consumer {
    /// Among all consumers of all groups.
    index: usize,
    client_id: Str,
    load: Arc<Load>,
    is_committed: bool,
    /// Next offset by partition.
    next: HashMap<u32, i64>,
    nodes: HashMap<i32, Node>,
    answers: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// None in a group, which has one.
    verifier: Option<Verifier>,
    membership: Option<Membership>,
    /// None if it reads as fast as it goes.
    throttle: Option<Throttle>,
    goal: watch::Receiver<Goal>,
    has_arrived: bool,
}

/// The answer to one fetch.
struct Answer {
    node: i32,
    sent_us: u64,
    outcome: Result<FetchResponse, CallError>,
}

/// What a consumer has to do with one server.
#[derive(Default)]
struct Node {
    connection: Option<Connection>,
    session: Session,
    /// All that are fetched from it.
    partitions: BTreeSet<u32>,
    /// Those whose offset its session does not know.
    changed: BTreeSet<u32>,
}

/// What a consumer has seen, at its end.
pub(crate) struct Read {
    /// None of one that was in a group: see [`Group::finish`].
    verifier: Option<Verifier>,
    partitions: Vec<u32>,
    /// Whether it has come to the last goal.
    pub(crate) is_complete: bool,
    /// Why it ended before its time.
    pub(crate) failure: Option<CallError>,
}

impl Read {
    /// Holds what was seen against what was written.
    pub(crate) fn verify(self, written: &[Written]) -> Findings {
        let verifier = self.verifier;
        verifier.map_or_else(Findings::default, |verifier| {
            verifier.finish(written, &self.partitions, self.is_complete)
        })
    }
}

impl Consumer {
    /// A consumer of these partitions, from their beginning.
    pub(crate) fn new(
        load: Arc<Load>,
        index: usize,
        partitions: impl Iterator<Item = u32>,
        goal: watch::Receiver<Goal>,
    ) -> Self {
        let is_committed = load.workload.transactions.is_some();
        Self {
            index,
            client_id: Str::from(format!("loadtest-consumer-{index}")),
            is_committed,
            next: partitions.map(|partition| (partition, 0)).collect(),
            nodes: HashMap::new(),
            answers: FuturesUnordered::new(),
            verifier: Some(Verifier::new(load.run, is_committed)),
            membership: None,
            throttle: load.workload.consumer_bytes_per_second().map(Throttle::new),
            goal,
            has_arrived: false,
            load,
        }
    }

    /// Reads until the last goal is passed, or fails for good.
    pub(crate) async fn run(mut self) -> Read {
        let failure = self.follow().await.err();
        if let Some(membership) = &mut self.membership {
            let offsets = self.next.iter().map(|(partition, next)| (*partition, *next));
            let (load, client_id) = (&self.load, &self.client_id);
            // At the end nobody reads on: what is not committed is not missed.
            let committed = membership.member.commit(load, client_id, offsets).await;
            if let Err(error) = committed.and(membership.member.leave(load, client_id).await) {
                load.noted(error.to_string());
            }
        }
        let goal = self.goal.borrow().clone();
        let is_complete = failure.is_none() && self.has_passed(&goal);
        // Nobody can have read more than there is.
        for (partition, next) in self.next.iter().filter(|_| goal.is_last && !goal.is_open) {
            if let Some(verifier) = &mut self.verifier
                && let Some(end) = goal.ends.get(*partition as usize).filter(|end| *end < next)
            {
                verifier.ends_before(*partition, *next, *end);
            }
        }
        let partitions = self.next.into_keys().collect();
        Read { verifier: self.verifier, partitions, is_complete, failure }
    }

    async fn follow(&mut self) -> Result<(), CallError> {
        self.arrange();
        loop {
            self.attend().await?;
            let nodes: Vec<i32> = self.nodes.keys().copied().collect();
            if self.answers.is_empty() {
                for node in nodes {
                    self.fetch(node).await?;
                }
            }
            let is_last = self.goal.borrow().is_last;
            tokio::select! {
                Some(answer) = self.answers.next(), if !self.answers.is_empty() => {
                    self.settle(answer).await?;
                }
                _ = self.goal.changed() => self.has_arrived = false,
                () = membership::wake(self.membership.as_ref(), is_last) => {}
            }
            let goal = self.goal.borrow().clone();
            let is_there = self.has_passed(&goal);
            if goal.is_the_end(is_there, &mut self.has_arrived, &self.load) {
                return Ok(());
            }
        }
    }

    fn has_passed(&self, goal: &Goal) -> bool {
        match &self.membership {
            Some(membership) => !goal.ends.is_empty() && membership.group.has_passed(&goal.ends),
            None => goal.is_passed(&self.next),
        }
    }

    /// Gives each partition to its leader's node.
    fn arrange(&mut self) {
        let leaders = self.load.leaders();
        for node in self.nodes.values_mut() {
            node.partitions.clear();
            node.changed.clear();
            node.session.reset();
        }
        for partition in self.next.keys() {
            let leader = leaders.partitions[*partition as usize].leader;
            self.nodes.entry(leader).or_default().partitions.insert(*partition);
        }
        self.nodes.retain(|_, node| !node.partitions.is_empty());
    }

    /// Sends a fetch to a server.
    async fn fetch(&mut self, id: i32) -> Result<(), CallError> {
        let load = Arc::clone(&self.load);
        let Some(consume) = &load.workload.consume else { return Ok(()) };
        let leaders = load.leaders();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let connection = match node.connection.take().filter(Connection::is_open) {
            Some(connection) => Ok(connection),
            None => load.cluster.node(id, &self.client_id).await,
        };
        let sent_us = load.timeline.now_us();
        let connection = match connection {
            Ok(connection) => connection,
            Err(error) => {
                let answer = Answer { node: id, sent_us, outcome: Err(error) };
                self.answers.push(Box::pin(async move { answer }));
                return Ok(());
            }
        };
        let named = std::mem::take(&mut node.changed);
        let named = if node.session.is_full() { &node.partitions } else { &named };
        let partitions: Vec<FetchPartition> = named
            .iter()
            .map(|partition| FetchPartition {
                partition: *partition as i32,
                current_leader_epoch: leaders.partitions[*partition as usize].leader_epoch,
                fetch_offset: self.next[partition],
                partition_max_bytes: i32_of(consume.partition_bytes.0),
                ..Default::default()
            })
            .collect();
        let topics =
            FetchTopic { topic: load.topic.clone(), topic_id: leaders.topic_id, partitions };
        let (session_id, session_epoch) = node.session.next();
        let request = FetchRequest {
            max_wait_ms: i32_of(consume.max_wait.0.as_millis() as u64),
            min_bytes: i32_of(consume.min_bytes.into()),
            max_bytes: i32_of(consume.max_bytes.0),
            isolation_level: self.is_committed.into(),
            session_id,
            session_epoch,
            topics: if topics.partitions.is_empty() { Vec::new() } else { vec![topics] },
            ..Default::default()
        };
        let most = if leaders.topic_id == Uuid::ZERO { LAST_WITH_NAMES } else { i16::MAX };
        if let Some(due) = self.throttle.and_then(|throttle| throttle.due(Instant::now())) {
            let (later, timeline) = (connection.clone(), load.timeline.clone());
            self.answers.push(Box::pin(async move {
                sleep_until(due).await;
                let sent_us = timeline.now_us();
                let outcome = match later.send_at_most(&request, most) {
                    Ok(pending) => pending.answer().await,
                    Err(error) => Err(error),
                };
                Answer { node: id, sent_us, outcome }
            }));
        } else {
            let pending = connection.send_at_most(&request, most)?;
            self.answers.push(Box::pin(async move {
                Answer { node: id, sent_us, outcome: pending.answer().await }
            }));
        }
        node.connection = Some(connection);
        Ok(())
    }

    /// Takes an answer, sends the next fetch, then looks at the records.
    async fn settle(&mut self, answer: Answer) -> Result<(), CallError> {
        let Answer { node: id, sent_us, outcome: answer } = answer;
        let now_us = self.load.timeline.now_us();
        let refused = |answer: FetchResponse| match ErrorCode::from_code(answer.error_code) {
            ErrorCode::None => Ok(answer),
            error => Err(CallError::refused("fetching", error.code())),
        };
        let answer = match answer.and_then(refused) {
            Ok(answer) => answer,
            Err(CallError::Refused { code, .. }) if Session::is_lost(code) => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.session.reset();
                }
                return self.fetch(id).await;
            }
            Err(error) if error.is_retriable() => return self.recover(id, error).await,
            Err(error) => return Err(error),
        };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.session.answered(answer.session_id);
        }
        let mut data = Vec::new();
        let mut moved = None;
        let mut outside = Vec::new();
        for partition in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            match ErrorCode::from_code(partition.error_code) {
                ErrorCode::None => {}
                ErrorCode::OffsetOutOfRange => {
                    outside.push(partition.partition_index as u32);
                    continue;
                }
                error if error.retriable() => {
                    moved = Some(CallError::refused("fetching", error.code()));
                    continue;
                }
                error => {
                    let what = format!("fetching from partition {}", partition.partition_index);
                    return Err(CallError::refused(what, error.code()));
                }
            }
            let batches = self.advance(id, partition)?;
            if !batches.1.is_empty() {
                self.load.outages.read(sent_us, now_us);
            }
            data.push(batches);
        }
        if !outside.is_empty() {
            moved = self.come_back(&outside).await?.or(moved);
        }
        match moved {
            None => self.fetch(id).await?,
            Some(error) => self.recover(id, error).await?,
        }
        for (partition, batches) in data {
            self.look(partition, batches, now_us)?;
        }
        Ok(())
    }

    /// The log of these partitions does not reach to where this consumer is: it begins later, or ends before.
    /// What that means is the verifier's to tell; the consumer goes on where there is something. Gives a
    /// failure after which this is to be done again.
    async fn come_back(&mut self, outside: &[u32]) -> Result<Option<CallError>, CallError> {
        let load = Arc::clone(&self.load);
        let leaders = load.leaders();
        let (name, client_id) = (&load.topic, &self.client_id);
        let mut bounds = Vec::new();
        for bound in [Bound::Start, Bound::End] {
            match load.cluster.bounds(client_id, name, &leaders, bound).await {
                Ok(all) => bounds.push(all),
                Err(error) if error.is_retriable() => return Ok(Some(error)),
                Err(error) => return Err(error),
            }
        }
        for partition in outside {
            let Some(next) = self.next.get_mut(partition) else { continue };
            let [start, end] = [&bounds[0], &bounds[1]].map(|all| all[*partition as usize]);
            if *next > end {
                match (&mut self.verifier, &self.membership) {
                    (Some(verifier), _) => verifier.shortened(*partition, *next, end),
                    (None, Some(membership)) => {
                        membership.group.verifier.lock().shortened(*partition, *next, end);
                    }
                    (None, None) => {}
                }
            }
            *next = (*next).clamp(start, end.max(start));
        }
        for node in self.nodes.values_mut() {
            node.changed.extend(outside.iter().filter(|index| node.partitions.contains(index)));
        }
        Ok(None)
    }

    /// Waits a little, asks who leads what, and begins again.
    async fn recover(&mut self, id: i32, error: CallError) -> Result<(), CallError> {
        self.load.repeated(self.index, error.to_string());
        sleep(BACKOFF).await;
        if let Err(error) = self.load.refresh(&self.client_id).await {
            self.load.repeated(self.index, error.to_string());
        }
        if let Some(node) = self.nodes.get_mut(&id) {
            node.connection = None;
        }
        // What other servers answer to requests that are under way is dropped: it is asked for again.
        self.answers.clear();
        self.arrange();
        Ok(())
    }

    /// Splits a partition's answer into batches and goes forward past them; gives those to look at.
    fn advance(
        &mut self,
        id: i32,
        partition: PartitionData,
    ) -> Result<(u32, Vec<BatchView>), CallError> {
        let index = partition.partition_index as u32;
        let mut aborted = Aborted::new(partition.aborted_transactions.unwrap_or_default());
        let mut records = partition.records.map(|chain| chain.to_bytes()).unwrap_or_default();
        let mut batches = Vec::new();
        let Some(next) = self.next.get_mut(&index) else { return Ok((index, batches)) };
        if let Some(throttle) = &mut self.throttle {
            throttle.took(records.len(), Instant::now());
        }
        let first = *next;
        // The last batch may be cut short.
        while let Ok(batch) = BatchView::split_off(&mut records) {
            batch.check_crc().map_err(|_| {
                let what = format!("partition {index}: batch at offset {}", batch.base_offset());
                CallError::refused(what, ErrorCode::CorruptMessage.code())
            })?;
            let is_old = batch.last_offset() < first;
            let is_left_out = self.is_committed && aborted.leaves_out(&batch);
            *next = (*next).max(batch.last_offset() + 1);
            if let Some(membership) = &self.membership {
                membership.group.reach(index, *next);
            }
            if !is_old && !is_left_out && !batch.attributes().is_control() {
                batches.push(batch);
            }
        }
        if *next > first
            && let Some(node) = self.nodes.get_mut(&id)
        {
            node.changed.insert(index);
        }
        Ok((index, batches))
    }

    fn look(
        &mut self,
        partition: u32,
        batches: Vec<BatchView>,
        now_us: u64,
    ) -> Result<(), CallError> {
        let mut shared;
        let (verifier, owner) = match (&mut self.verifier, &self.membership) {
            (Some(own), _) => (own, None),
            (None, Some(membership)) => {
                shared = membership.group.verifier.lock();
                (&mut *shared, Some(self.index))
            }
            (None, None) => return Ok(()),
        };
        for batch in batches {
            let unreadable = |_| {
                let what =
                    format!("partition {partition}: batch at offset {}", batch.base_offset());
                CallError::refused(what, ErrorCode::CorruptMessage.code())
            };
            let mut shard = self.load.stats.shard(self.index);
            for record in batch.records(MAX_BATCH_BYTES).map_err(unreadable)? {
                let record = record.map_err(unreadable)?;
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                let stamp = verifier.take(owner, partition, record.offset, key, value);
                let bytes = value.map_or(0, <[u8]>::len);
                shard.read(bytes, stamp.map(|stamp| stamp.due_us), now_us);
            }
        }
        Ok(())
    }
}

/// A setting for the wire: more than fits is as much as fits.
fn i32_of(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
