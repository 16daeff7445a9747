//! The desk of an agent: answers the coordinator soon, whatever the clients do, and keeps its clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::worker::{self, Order};
use super::{AgentError, Line, SPEAK_EVERY};
use crate::crew::{Hands, Share};
use crate::fleet::message::{Report, ToAgent, ToCoordinator};
use crate::load::Load;
use crate::process::Usage;
use crate::stamp::Payloads;
use crate::verify::Written;

/// The clock is put right by at most this much at a time, far less than passes in between.
const MAX_STEP_US: i64 = 100;
/// Orders that the worker has not begun.
const QUEUE: usize = 64;
/// Reports that the coordinator may have asked for ahead.
const MAX_DUE: usize = 64;

/// What the desk knows.
pub(super) struct Desk<'a> {
    line: &'a mut Line,
    load: Arc<Load>,
    orders: mpsc::Sender<Order>,
    answers: mpsc::Receiver<ToCoordinator>,
    /// Reports that are wanted, and when.
    due: VecDeque<(u64, u64)>,
    /// What has come so far of what was written.
    written: Vec<Written>,
    /// What is added to our clock.
    offset_us: i64,
    late_us: u64,
}

impl<'a> Desk<'a> {
    /// A desk with a worker who has this share. `offset_us` is what the load's timeline adds to the line's clock.
    pub(super) fn new(line: &'a mut Line, load: Arc<Load>, share: Share, offset_us: i64) -> Self {
        let (orders, ordered) = mpsc::channel(QUEUE);
        let (says, answers) = mpsc::channel(QUEUE);
        tokio::spawn(worker::work(Hands::new(Arc::clone(&load), share), ordered, says));
        let (due, written) = (VecDeque::new(), Vec::new());
        Self { line, load, orders, answers, due, written, offset_us, late_us: 0 }
    }

    /// Works until the run is over.
    pub(super) async fn work(mut self) -> Result<(), AgentError> {
        let mut ticks = interval(SPEAK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let report = self.due.front().map(|(_, at_us)| self.load.timeline.instant(*at_us));
            tokio::select! {
                message = self.line.hear() => {
                    let message = message?;
                    if matches!(message, ToAgent::End) {
                        return Ok(());
                    }
                    self.take(message).await?;
                }
                answer = self.answers.recv() => {
                    let gone = || AgentError::Bug("the worker has panicked".to_owned());
                    self.line.say(&answer.ok_or_else(gone)?).await?;
                }
                () = sleep_until(report.unwrap_or_else(Instant::now)), if report.is_some() => {
                    self.report().await?;
                }
                _ = ticks.tick() => {
                    self.steer();
                    self.line.ask_time().await?;
                }
            }
        }
    }

    async fn take(&mut self, message: ToAgent) -> Result<(), AgentError> {
        let senseless =
            |what: &str| Err(AgentError::Lost(format!("it says what makes no sense: {what}")));
        let partitions = self.load.workload.topic.partitions as usize;
        let order = match message {
            ToAgent::Time { .. } => return Ok(()),
            ToAgent::BeginPhase { at_us } => {
                self.note_late(at_us);
                self.load.stats.begin_phase(at_us);
                return Ok(());
            }
            ToAgent::Set(segment) => {
                self.note_late(segment.from_us);
                self.load.pace.set(segment);
                return Ok(());
            }
            ToAgent::Report { id, at_us } => {
                if self.due.len() == MAX_DUE {
                    return senseless("too many reports");
                }
                self.due.push_back((id, at_us));
                return Ok(());
            }
            ToAgent::Written(written) => {
                let most = self.load.workload.produce.producers as usize * partitions;
                if self.written.len() + written.len() > most {
                    return senseless("too much was written");
                }
                self.written.extend(written);
                return Ok(());
            }
            ToAgent::Aim { ends } | ToAgent::EndConsumers { ends: Some(ends), .. }
                if ends.len() != partitions =>
            {
                return senseless("another number of partitions");
            }
            ToAgent::StartProducers => Order::StartProducers(Payloads::of(&self.load)),
            ToAgent::StartConsumers => Order::StartConsumers,
            ToAgent::Aim { ends } => Order::Aim(Arc::new(ends)),
            ToAgent::EndProducers { limit_ms } => {
                Order::EndProducers(Duration::from_millis(limit_ms))
            }
            ToAgent::EndConsumers { ends, limit_ms } => {
                Order::EndConsumers(ends.map(Arc::new), Duration::from_millis(limit_ms))
            }
            ToAgent::Verify => Order::Verify(std::mem::take(&mut self.written)),
            ToAgent::Welcome | ToAgent::Refused { .. } | ToAgent::Assign(_) | ToAgent::End => {
                return senseless("out of turn");
            }
        };
        // A worker that has failed takes none, and has said so.
        let _ = self.orders.send(order).await;
        Ok(())
    }

    fn note_late(&mut self, at_us: u64) {
        let late_us = self.load.timeline.now_us().saturating_sub(at_us);
        self.late_us = self.late_us.max(late_us);
    }

    async fn report(&mut self) -> Result<(), AgentError> {
        let Some((id, _)) = self.due.pop_front() else { return Ok(()) };
        let load = &self.load;
        // First: what is acknowledged meanwhile is in the counts below.
        let outstanding = load.outstanding.load(Ordering::Relaxed);
        let report = Report {
            id,
            second: load.stats.take_second(),
            phases: load.stats.take_phases(),
            outstanding,
            arrived: load.arrived.load(Ordering::Relaxed),
            usage: Usage::of(&[std::process::id()]).unwrap_or_default(),
            clock_error_us: self.clock_error_us(),
            late_us: self.late_us,
            failures: load.failures.lock().drain().collect(),
        };
        self.line.say(&ToCoordinator::Report(Box::new(report))).await
    }

    /// Follows the coordinator's clock.
    fn steer(&mut self) {
        if let Some(best) = self.line.clock.best() {
            let step_us = (best.offset_us - self.offset_us).clamp(-MAX_STEP_US, MAX_STEP_US);
            self.load.timeline.shift(step_us);
            self.offset_us += step_us;
        }
    }

    fn clock_error_us(&self) -> u64 {
        self.line
            .clock
            .best()
            .map_or(0, |best| best.error_us() + best.offset_us.abs_diff(self.offset_us))
    }
}
