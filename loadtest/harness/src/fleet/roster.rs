//! What the coordinator knows of each agent. Connections write it, the run reads it and waits for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

use super::SILENCE_LIMIT;
use super::message::{self, Report, ToAgent, ToCoordinator};
use crate::crew::{Produced, Share};
use crate::load::Load;
use crate::process::Usage;
use crate::report::{AgentSummary, Loss, Unread};
use crate::timeline::Timeline;
use crate::verify::{Findings, Written};

/// All agents of a run, whether they are still there or not.
#[derive(Debug)]
pub(crate) struct Roster {
    timeline: Timeline,
    /// What reports are added to, once there is a load.
    load: OnceLock<Arc<Load>>,
    agents: Mutex<Vec<Agent>>,
    /// Grows with each change.
    changes: watch::Sender<u64>,
    reports: AtomicU64,
    is_over: AtomicBool,
}

/// One agent.
#[derive(Debug)]
pub(super) struct Agent {
    /// The address that it has come from.
    name: String,
    machine: String,
    out: mpsc::Sender<ToAgent>,
    connection: Option<AbortHandle>,
    share: Option<Share>,
    pub(super) is_ready: bool,
    pub(super) has_started: bool,
    pub(super) consumers_ended: bool,
    /// The last report that has come.
    reported: u64,
    outstanding: u64,
    arrived: usize,
    usage: Usage,
    clock_error_us: u64,
    late_us: u64,
    /// Acknowledged records, as it has reported.
    acknowledged: u64,
    pub(super) produced: Produced,
    pub(super) producers_ended: bool,
    pub(super) verified: Option<(bool, Findings)>,
    /// Why its first client that has ended before its time did.
    failed: Option<String>,
    lost: Option<Lost>,
}

#[derive(Debug)]
struct Lost {
    at_us: u64,
    reason: String,
}

impl Roster {
    pub(super) fn new(timeline: Timeline) -> Self {
        let changes = watch::Sender::new(0);
        let (agents, reports) = (Mutex::default(), AtomicU64::new(0));
        let (load, is_over) = (OnceLock::new(), AtomicBool::new(false));
        Self { timeline, load, agents, changes, reports, is_over }
    }

    /// An agent that has shown the token. It is known by the number that this gives.
    pub(super) fn add(&self, name: String, machine: String, out: mpsc::Sender<ToAgent>) -> usize {
        let mut agents = self.agents.lock();
        agents.push(Agent {
            name,
            machine,
            out,
            connection: None,
            share: None,
            is_ready: false,
            has_started: false,
            consumers_ended: false,
            reported: 0,
            outstanding: 0,
            arrived: 0,
            usage: Usage::default(),
            clock_error_us: 0,
            late_us: 0,
            acknowledged: 0,
            produced: Produced::default(),
            producers_ended: false,
            verified: None,
            failed: None,
            lost: None,
        });
        agents.len() - 1
    }

    /// What ends when the agent is lost.
    pub(super) fn connected(&self, agent: usize, connection: AbortHandle) {
        self.agents.lock()[agent].connection = Some(connection);
    }

    /// Gives each agent that is there its share. Those that are not there have none.
    pub(super) fn employ(&self, load: &Arc<Load>) -> Vec<(usize, Share)> {
        self.load.get_or_init(|| Arc::clone(load));
        let mut agents = self.agents.lock();
        let live: Vec<usize> = live(&agents).collect();
        let parts = live.len() as u32;
        let shares = (0..).zip(live).map(|(part, agent)| {
            let share = Share { part, parts };
            agents[agent].share = Some(share);
            (agent, share)
        });
        shares.collect()
    }

    pub(super) fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// How many are there.
    pub(super) fn count(&self) -> usize {
        live(&self.agents.lock()).count()
    }

    /// Says something to one agent. One that does not listen is lost.
    pub(super) fn say(&self, agent: usize, message: ToAgent) {
        let sent = self.agents.lock()[agent].out.try_send(message);
        if sent.is_err() {
            self.lose(agent, "it does not listen");
        }
    }

    /// Says something to all that are there.
    pub(super) fn say_all(&self, message: &ToAgent) {
        let live: Vec<usize> = live(&self.agents.lock()).collect();
        for agent in live {
            self.say(agent, message.clone());
        }
    }

    /// The same for what is long: waits until there is room.
    pub(super) async fn tell_all(&self, message: &ToAgent) {
        let outs: Vec<(usize, mpsc::Sender<ToAgent>)> = {
            let agents = self.agents.lock();
            live(&agents).map(|agent| (agent, agents[agent].out.clone())).collect()
        };
        for (agent, out) in outs {
            if out.send_timeout(message.clone(), SILENCE_LIMIT).await.is_err() {
                self.lose(agent, "it does not listen");
            }
        }
    }

    /// Takes what an agent says.
    ///
    /// # Errors
    /// What makes no sense; the agent must be dropped.
    pub(super) fn take(&self, agent: usize, message: ToCoordinator) -> Result<(), String> {
        {
            let mut agents = self.agents.lock();
            let own = &mut agents[agent];
            let (Some(load), Some(share)) = (self.load.get(), own.share) else {
                return Err("it speaks of work before it has any".to_owned());
            };
            own.take(message, load, share)?;
            sum_up(load, &agents);
        }
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    /// The run is over: nobody is lost any more.
    pub(super) fn dismiss(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// An agent is gone, or must go.
    pub(super) fn lose(&self, agent: usize, reason: &str) {
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        {
            let mut agents = self.agents.lock();
            let own = &mut agents[agent];
            if own.lost.is_none() {
                own.lost = Some(Lost { at_us: self.timeline.now_us(), reason: reason.to_owned() });
                // What it had made is nobody's any more.
                own.outstanding = 0;
                own.arrived = 0;
            }
            if let Some(connection) = own.connection.take() {
                connection.abort();
            }
            if let Some(load) = self.load.get() {
                sum_up(load, &agents);
            }
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A phase begins: agents will report latencies of it.
    pub(super) fn begin_phase(&self, at_us: u64) {
        if let Some(load) = self.load.get() {
            load.stats.begin_phase(at_us);
        }
    }

    /// Waits until something holds of all agents that are there. Those of which it does not hold after `limit`
    /// are lost.
    pub(super) async fn until(&self, limit: Duration, holds: impl Fn(&Agent) -> bool) {
        let until = Instant::now() + limit;
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let waiting: Vec<usize> = {
                let agents = self.agents.lock();
                live(&agents).filter(|agent| !holds(&agents[*agent])).collect()
            };
            if waiting.is_empty() {
                return;
            }
            if timeout_at(until, changes.changed()).await.is_err() {
                for agent in waiting {
                    self.lose(agent, "it has not answered in time");
                }
            }
        }
    }

    /// Comes back when the run cannot go on: a client has failed, or no agent is left. May be dropped at any time.
    pub(super) async fn failed(&self) -> String {
        let mut changes = self.changes.subscribe();
        loop {
            changes.mark_unchanged();
            let failure = {
                let agents = self.agents.lock();
                client_failure(&agents).or_else(|| desertion(&agents))
            };
            if let Some(failure) = failure {
                return failure;
            }
            // The sender is ours.
            let _ = changes.changed().await;
        }
    }

    /// Has all agents report at that instant, and adds what they have done to the load.
    pub(crate) async fn gather(&self, at_us: u64) {
        let id = self.reports.fetch_add(1, Ordering::Relaxed) + 1;
        self.say_all(&ToAgent::Report { id, at_us });
        let limit =
            SILENCE_LIMIT + Duration::from_micros(at_us.saturating_sub(self.timeline.now_us()));
        self.until(limit, |agent| agent.reported >= id).await;
    }

    /// What all agents have used, those that are gone as far as they have told.
    pub(crate) fn usage(&self) -> Usage {
        let agents = self.agents.lock();
        agents.iter().fold(Usage::default(), |sum, agent| sum + agent.usage)
    }

    /// Whether all are on this machine.
    pub(crate) fn is_here(&self) -> bool {
        let own = crate::process::machine_id();
        self.agents.lock().iter().all(|agent| agent.machine == own)
    }

    /// What all that have ended have done. What those that are gone have written is not known: any of it may be
    /// there.
    pub(super) fn produced(&self) -> Produced {
        let Some(load) = self.load.get() else { return Produced::default() };
        let workload = &load.workload;
        let mut all = Produced::default();
        for agent in self.agents.lock().iter_mut() {
            let Some(share) = agent.share else { continue };
            if agent.producers_ended {
                all.add(std::mem::take(&mut agent.produced));
                continue;
            }
            let pairs = share.of(workload.produce.producers).flat_map(|producer| {
                (0..workload.topic.partitions).map(move |partition| (producer, partition))
            });
            all.written.extend(pairs.map(|(producer, partition)| Written {
                producer,
                partition,
                acknowledged: 0,
                sent: u64::MAX,
            }));
        }
        all
    }

    /// What consumers have found; whether all that are there have come to the end.
    pub(super) fn verified(&self) -> (bool, Findings) {
        let mut findings = Findings::default();
        let mut is_complete = true;
        for agent in self.agents.lock().iter_mut() {
            if let Some((complete, found)) = agent.verified.take() {
                is_complete &= complete;
                findings.add(found);
                agent.verified = Some((complete, Findings::default()));
            }
        }
        (is_complete, findings)
    }

    /// How many that had a share are gone and have not done all of it.
    pub(crate) fn lost(&self) -> usize {
        let agents = self.agents.lock();
        agents.iter().filter(|agent| agent.share.is_some() && agent.lost.is_some()).count()
    }

    /// Why the first client that has ended before its time did.
    pub(super) fn client_failure(&self) -> Option<String> {
        client_failure(&self.agents.lock())
    }

    /// The consumers that are gone.
    pub(crate) fn lost_consumers(&self) -> usize {
        let count = self.load.get().map_or(0, |load| load.workload.consumers());
        let agents = self.agents.lock();
        let lost = agents.iter().filter(|agent| agent.lost.is_some());
        lost.filter_map(|agent| agent.share).map(|share| share.of(count).count()).sum()
    }

    /// The consumers that are there.
    pub(super) fn consumers(&self) -> usize {
        let count = self.load.get().map_or(0, |load| load.workload.consumers());
        let agents = self.agents.lock();
        let shares = live(&agents).filter_map(|agent| agents[agent].share);
        shares.map(|share| share.of(count).count()).sum()
    }

    /// What the report says of each.
    pub(crate) fn summaries(&self, start_us: u64) -> Vec<AgentSummary> {
        let Some(load) = self.load.get() else { return Vec::new() };
        let own = crate::process::machine_id();
        let agents = self.agents.lock();
        let employed = agents.iter().filter_map(|agent| Some((agent, agent.share?)));
        employed
            .map(|(agent, share)| AgentSummary {
                name: agent.name.clone(),
                is_here: agent.machine == own,
                producers: share.of(load.workload.produce.producers).count() as u32,
                consumers: share.of(load.workload.consumers()).count() as u32,
                acknowledged: agent.acknowledged,
                cpu_seconds: agent.usage.cpu_seconds,
                clock_error_ms: agent.clock_error_us as f64 / 1000.0,
                late_ms: agent.late_us as f64 / 1000.0,
                lost: agent.lost.as_ref().map(|lost| agent.loss(lost, share, load, start_us)),
            })
            .collect()
    }
}

impl Agent {
    fn take(&mut self, message: ToCoordinator, load: &Load, share: Share) -> Result<(), String> {
        match message {
            ToCoordinator::Ready => self.is_ready = true,
            ToCoordinator::Started => self.has_started = true,
            ToCoordinator::Report(report) => self.report(*report, load)?,
            ToCoordinator::Written(written) => {
                let workload = &load.workload;
                let known = self.produced.written.len() + written.len();
                let most = share.of(workload.produce.producers).count()
                    * workload.topic.partitions as usize;
                if known > most || !written.iter().all(|one| message::is_sane(one, share, workload))
                {
                    return Err("it has written what it could not".to_owned());
                }
                self.produced.written.extend(written);
            }
            ToCoordinator::ProducersEnded { abandoned, unsettled, failure } => {
                let written = std::mem::take(&mut self.produced.written);
                self.produced = Produced { written, abandoned, unsettled, failure };
                self.producers_ended = true;
            }
            ToCoordinator::ConsumersEnded { failure } => {
                self.consumers_ended = true;
                self.failed = self.failed.take().or(failure);
            }
            ToCoordinator::Verified { is_complete, findings } => {
                self.verified = Some((is_complete, findings));
            }
            ToCoordinator::ClientFailed { reason } => drop(self.failed.get_or_insert(reason)),
            ToCoordinator::Failed { reason } => return Err(reason),
            ToCoordinator::Hello { .. } | ToCoordinator::Time { .. } => {
                return Err("it speaks out of turn".to_owned());
            }
        }
        Ok(())
    }

    fn report(&mut self, report: Report, load: &Load) -> Result<(), String> {
        if !report.is_sane() {
            return Err("it reports what cannot be".to_owned());
        }
        load.stats.merge(&report.second, &report.phases);
        for failure in report.failures {
            load.noted(failure);
        }
        self.reported = report.id;
        self.outstanding = report.outstanding;
        self.arrived = report.arrived;
        self.usage = report.usage;
        self.clock_error_us = self.clock_error_us.max(report.clock_error_us);
        self.late_us = self.late_us.max(report.late_us);
        self.acknowledged += report.second.counts.written;
        Ok(())
    }

    fn loss(&self, lost: &Lost, share: Share, load: &Load, start_us: u64) -> Loss {
        let workload = &load.workload;
        let producers = workload.produce.producers;
        let consume = workload.consume.as_ref().filter(|_| self.verified.is_none());
        let unread = consume.into_iter().flat_map(|consume| {
            share.of(workload.consumers()).map(|index| Unread {
                group: index / consume.consumers,
                partitions: workload.partitions_of(index).collect(),
            })
        });
        Loss {
            at: lost.at_us.saturating_sub(start_us) as f64 / 1e6,
            reason: lost.reason.clone(),
            load_share: share.of(producers).count() as f64 / f64::from(producers),
            unread: unread.collect(),
        }
    }
}

fn sum_up(load: &Load, agents: &[Agent]) {
    load.outstanding.store(agents.iter().map(|agent| agent.outstanding).sum(), Ordering::Relaxed);
    load.arrived.store(agents.iter().map(|agent| agent.arrived).sum(), Ordering::Relaxed);
}

/// Those that are there.
fn live(agents: &[Agent]) -> impl Iterator<Item = usize> + '_ {
    (0..).zip(agents).filter(|(_, agent)| agent.lost.is_none()).map(|(index, _)| index)
}

fn client_failure(agents: &[Agent]) -> Option<String> {
    let mut failed = agents.iter().filter_map(|agent| Some((agent, agent.failed.as_ref()?)));
    failed.next().map(|(agent, reason)| format!("agent {}: {reason}", agent.name))
}

fn desertion(agents: &[Agent]) -> Option<String> {
    if live(agents).next().is_some() {
        return None;
    }
    let lost = agents.iter().filter_map(|agent| Some((agent, agent.lost.as_ref()?)));
    let (agent, lost) = lost.max_by_key(|(_, lost)| lost.at_us)?;
    Some(format!("no agent is left; the last was {}: {}", agent.name, lost.reason))
}
