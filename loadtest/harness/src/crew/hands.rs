//! Producers and consumers in this process. It owns their tasks; what they have in common is their [`Load`].

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sluice_wire::Str;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::{Failure, Produced, Share};
use crate::client::CallError;
use crate::consumer::{Consumer, Goal, Group, Read};
use crate::load::Load;
use crate::pace::Segment;
use crate::producer::{Ended, Producer, Stop};
use crate::stamp::Payloads;
use crate::verify::{Findings, Written, unlisted};
#[cfg(feature = "librdkafka")]
use crate::workload::Client;
use crate::workload::Protocol;
#[cfg(feature = "librdkafka")]
use crate::{consumer, producer};

/// The clients of this process.
pub(crate) struct Hands {
    load: Arc<Load>,
    share: Share,
    producers: JoinSet<Ended>,
    consumers: JoinSet<Read>,
    stop: watch::Sender<Stop>,
    goal: watch::Sender<Goal>,
    /// What producers that have ended did.
    produced: Produced,
    /// Producers were stopped while they waited for answers.
    is_open: bool,
    /// What consumers that have ended saw.
    read: Vec<Read>,
    /// Groups that share their partitions by themselves.
    groups: Vec<Arc<Group>>,
}

/// A client that has ended.
enum One {
    Producer(Result<Ended, JoinError>),
    Consumer(Box<Result<Read, JoinError>>),
}

impl Hands {
    /// Nobody works yet.
    pub(crate) fn new(load: Arc<Load>, share: Share) -> Self {
        Self {
            load,
            share,
            producers: JoinSet::new(),
            consumers: JoinSet::new(),
            stop: watch::Sender::new(Stop::No),
            goal: watch::Sender::default(),
            produced: Produced::default(),
            is_open: false,
            read: Vec::new(),
            groups: Vec::new(),
        }
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    /// Starts producers, all of which then follow the load's pace.
    pub(crate) async fn start_producers(&mut self, payloads: Payloads) -> Result<(), Failure> {
        let load = &self.load;
        #[cfg(feature = "librdkafka")]
        if load.workload.client == Client::Librdkafka {
            for index in self.share.of(load.workload.produce.producers) {
                let (load, payloads) = (Arc::clone(load), payloads.clone());
                let stop = self.stop.subscribe();
                let producer = producer::librdkafka::Producer::start(load, index, payloads, stop)?;
                self.producers.spawn(producer.run());
            }
            return Ok(());
        }
        let mut starting = JoinSet::new();
        for index in self.share.of(load.workload.produce.producers) {
            let (load, payloads) = (Arc::clone(load), payloads.clone());
            starting.spawn(Producer::start(load, index, payloads, self.stop.subscribe()));
        }
        while let Some(started) = starting.join_next().await {
            let producer = started.map_err(bug)??;
            self.producers.spawn(producer.run());
        }
        Ok(())
    }

    /// Starts consumers, which read from the beginning of their partitions.
    pub(crate) fn start_consumers(&mut self) {
        let workload = &self.load.workload;
        let Some(consume) = &workload.consume else { return };
        if consume.protocol != Protocol::Assigned {
            let (run, committed) = (self.load.run, workload.transactions.is_some());
            let new = |_| Arc::new(Group::new(run, committed, workload.topic.partitions));
            self.groups = (0..consume.groups).map(new).collect();
        }
        for index in self.share.of(workload.consumers()) {
            let load = Arc::clone(&self.load);
            let (goal, group) = (self.goal.subscribe(), index / consume.consumers);
            #[cfg(feature = "librdkafka")]
            if workload.client == Client::Librdkafka {
                let partitions = workload.partitions_of(index);
                let new = consumer::librdkafka::Consumer::new;
                self.consumers.spawn(new(load, index as usize, partitions, goal).run());
                continue;
            }
            let consumer = match self.groups.get(group as usize) {
                None => Consumer::new(load, index as usize, workload.partitions_of(index), goal),
                Some(shared) => {
                    let name = Str::from(format!("{}-{group}", load.topic));
                    Consumer::in_group(load, index as usize, Arc::clone(shared), name, goal)
                }
            };
            self.consumers.spawn(consumer.run());
        }
    }

    /// A phase begins: what is due from then on belongs to it.
    pub(crate) fn begin_phase(&self, at_us: u64) {
        self.load.stats.begin_phase(at_us);
    }

    /// Records are due at this rate from then on.
    pub(crate) fn set(&self, segment: Segment) {
        self.load.pace.set(segment);
    }

    /// How many consumers there are.
    pub(crate) fn consumers(&self) -> usize {
        self.consumers.len()
    }

    /// Tells consumers how far they shall come; those that have are counted in the load.
    pub(crate) fn aim(&self, ends: Arc<Vec<i64>>) {
        self.load.arrived.store(0, Ordering::Relaxed);
        self.goal.send_replace(Goal { ends, ..Goal::default() });
    }

    /// Comes back when a client has ended, with the reason: none does by itself but by a failure. What it has
    /// done is kept. May be dropped at any time.
    pub(crate) async fn failed(&mut self) -> Result<String, Failure> {
        let Self { producers, consumers, .. } = self;
        let one = tokio::select! {
            Some(ended) = producers.join_next() => One::Producer(ended),
            Some(read) = consumers.join_next() => One::Consumer(Box::new(read)),
            else => pending().await,
        };
        let failure = match one {
            One::Producer(ended) => self.keep_ended(ended)?,
            One::Consumer(read) => self.keep_read(*read)?,
        };
        failure.ok_or_else(|| Failure::Bug("a client has ended before its time".to_owned()))
    }

    fn keep_ended(&mut self, ended: Result<Ended, JoinError>) -> Result<Option<String>, Failure> {
        let Ended { written, abandoned, unsettled, failure } = ended.map_err(bug)?;
        let failure = failure.map(|failure| failure.to_string());
        self.produced.add(Produced { written, abandoned, unsettled, failure: failure.clone() });
        Ok(failure)
    }

    fn keep_read(&mut self, read: Result<Read, JoinError>) -> Result<Option<String>, Failure> {
        let read = read.map_err(bug)?;
        let failure = read.failure.as_ref().map(CallError::to_string);
        self.read.push(read);
        Ok(failure)
    }

    /// Ends producers when all that was due is acknowledged, or after `limit`. Those that have failed have done
    /// something, too.
    pub(crate) async fn end_producers(&mut self, limit: Duration) -> Result<Produced, Failure> {
        self.stop.send_replace(Stop::WhenDone);
        let until = Instant::now() + limit;
        while let Ok(Some(one)) = timeout_at(until, self.producers.join_next()).await {
            self.keep_ended(one)?;
        }
        // What they wait for may still come; who has failed by himself has waited long enough.
        let are_stopped = !self.producers.is_empty();
        self.stop.send_replace(Stop::Now);
        while let Some(one) = self.producers.join_next().await {
            self.keep_ended(one)?;
        }
        self.is_open = are_stopped && self.produced.unsettled > 0;
        Ok(std::mem::take(&mut self.produced))
    }

    /// Ends consumers at the ends of all that was written, or after `limit`. Gives all failures.
    pub(crate) async fn end_consumers_at_last(
        &mut self,
        limit: Duration,
    ) -> Result<Vec<String>, Failure> {
        if self.consumers.is_empty() {
            return Ok(Vec::new());
        }
        let (ends, unknown) = self.load.last_ends().await;
        let failure = self.end_consumers(ends.map(Arc::new), limit).await?;
        Ok(unknown.into_iter().chain(failure).collect())
    }

    /// Ends consumers at these ends, or after `limit`; at once if nobody knows the ends. Gives the first failure.
    pub(crate) async fn end_consumers(
        &mut self,
        ends: Option<Arc<Vec<i64>>>,
        limit: Duration,
    ) -> Result<Option<String>, Failure> {
        let mut failure = None;
        if let Some(ends) = ends {
            let is_open = self.is_open;
            self.goal.send_replace(Goal { ends, is_last: true, is_over: false, is_open });
            let until = Instant::now() + limit;
            while let Ok(Some(one)) = timeout_at(until, self.consumers.join_next()).await {
                failure = failure.or(self.keep_read(one)?);
            }
        }
        self.goal.send_modify(|goal| goal.is_over = true);
        while let Some(one) = self.consumers.join_next().await {
            failure = failure.or(self.keep_read(one)?);
        }
        Ok(failure)
    }

    /// Ends everybody at once, whatever is under way.
    pub(crate) fn abandon(&self) {
        self.stop.send_replace(Stop::Now);
        self.goal.send_modify(|goal| goal.is_over = true);
    }

    /// Holds what consumers have read against what was written. Whether all have come to the end.
    pub(crate) fn verify(&mut self, written: &[Written]) -> (bool, Findings) {
        let mut findings = Findings::default();
        // Those that were never started have read nothing.
        let mut is_complete = !self.read.is_empty();
        for read in self.read.drain(..) {
            is_complete &= read.is_complete;
            findings.add(read.verify(written));
        }
        let goal = self.goal.borrow();
        for group in &self.groups {
            let (complete, found) = group.finish(written, &goal);
            is_complete &= complete;
            findings.add(found);
        }
        // Agents know no more than the ends of what they read, and there are many of them.
        if goal.is_last && self.share == Share::ALL {
            findings.add(unlisted(written, &goal.ends));
        }
        (is_complete, findings)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn bug(error: JoinError) -> Failure {
    Failure::Bug(error.to_string())
}
