//! Producers and consumers in this process. It owns their tasks; what they have in common is their [`Load`].

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::{Failure, Produced, Share};
use crate::client::CallError;
use crate::consumer::{Consumer, Goal, Read};
use crate::load::Load;
use crate::pace::Segment;
use crate::producer::{Ended, Producer, Stop};
use crate::stamp::Payloads;
use crate::verify::{Findings, Written};

/// The clients of this process.
pub(crate) struct Hands {
    load: Arc<Load>,
    share: Share,
    producers: JoinSet<Result<Ended, CallError>>,
    consumers: JoinSet<Result<Read, CallError>>,
    stop: watch::Sender<Stop>,
    goal: watch::Sender<Goal>,
    /// What consumers that have ended saw.
    read: Vec<Read>,
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
            read: Vec::new(),
        }
    }

    /// Starts producers, all of which then follow the load's pace.
    pub(crate) async fn start_producers(&mut self) -> Result<(), Failure> {
        let load = &self.load;
        let records = &load.workload.records;
        let payloads = Payloads::new(records.size.0 as usize, records.compressibility, load.seed);
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
        let Some(consume) = &self.load.workload.consume else { return };
        let partitions = self.load.workload.topic.partitions;
        for index in self.share.of(consume.groups * consume.consumers) {
            let member = index % consume.consumers;
            let own = (member..partitions).step_by(consume.consumers as usize);
            let load = Arc::clone(&self.load);
            let consumer = Consumer::new(load, index as usize, own, self.goal.subscribe());
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

    /// Tells consumers how far they shall come.
    pub(crate) fn aim(&self, goal: Goal) {
        self.goal.send_replace(goal);
    }

    /// Comes back when a client has ended: none does by itself but by a failure. May be dropped at any time.
    pub(crate) async fn failed(&mut self) -> Failure {
        let Self { producers, consumers, .. } = self;
        tokio::select! {
            Some(ended) = producers.join_next() => early(ended),
            Some(ended) = consumers.join_next() => early(ended),
            else => pending().await,
        }
    }

    /// Ends everybody at once, whatever is under way.
    pub(crate) fn abandon(&self) {
        self.stop.send_replace(Stop::Now);
        self.goal.send_modify(|goal| goal.is_over = true);
    }

    /// Ends producers when all that was due is acknowledged, or after `limit`.
    pub(crate) async fn end_producers(&mut self, limit: Duration) -> Result<Produced, Failure> {
        self.stop.send_replace(Stop::WhenDone);
        let until = Instant::now() + limit;
        let mut all = Produced::default();
        let mut failed = None;
        while let Ok(Some(one)) = timeout_at(until, self.producers.join_next()).await {
            collect(one, &mut all, &mut failed)?;
        }
        self.stop.send_replace(Stop::Now);
        while let Some(one) = self.producers.join_next().await {
            collect(one, &mut all, &mut failed)?;
        }
        failed.map_or(Ok(all), |failure| Err(failure.into()))
    }

    /// Ends consumers at these ends, or after `limit`.
    pub(crate) async fn end_consumers(
        &mut self,
        ends: Arc<Vec<i64>>,
        limit: Duration,
    ) -> Result<(), Failure> {
        self.aim(Goal { ends, is_last: true, is_over: false });
        let until = Instant::now() + limit;
        while let Ok(Some(one)) = timeout_at(until, self.consumers.join_next()).await {
            self.read.push(one.map_err(bug)??);
        }
        self.goal.send_modify(|goal| goal.is_over = true);
        while let Some(one) = self.consumers.join_next().await {
            self.read.push(one.map_err(bug)??);
        }
        Ok(())
    }

    /// Holds what consumers have read against what was written. Whether all have come to the end.
    pub(crate) fn verify(&mut self, written: &[Written]) -> (bool, Findings) {
        let mut findings = Findings::default();
        let mut is_complete = true;
        for read in self.read.drain(..) {
            is_complete &= read.is_complete;
            findings.add(read.verify(written));
        }
        (is_complete, findings)
    }
}

fn collect(
    one: Result<Result<Ended, CallError>, JoinError>,
    all: &mut Produced,
    failed: &mut Option<CallError>,
) -> Result<(), Failure> {
    match one.map_err(bug)? {
        Ok(ended) => {
            all.written.extend(ended.written);
            all.abandoned += ended.abandoned;
            all.unsettled += ended.unsettled;
        }
        // The first one is the reason of the others.
        Err(error) => drop(failed.get_or_insert(error)),
    }
    Ok(())
}

fn early<T>(ended: Result<Result<T, CallError>, JoinError>) -> Failure {
    match ended {
        Ok(Err(error)) => error.into(),
        Ok(Ok(_)) => Failure::Bug("a client has ended before its time".to_owned()),
        Err(error) => bug(error),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn bug(error: JoinError) -> Failure {
    Failure::Bug(error.to_string())
}
