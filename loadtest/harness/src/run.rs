//! Running a workload: makes the topic, starts producers and consumers, leads them through the phases, ends them
//! in order and holds what was read against what was written.

mod script;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use sluice_model::{Clock, Entropy};
use sluice_wire::Str;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

use crate::client::{Bound, CallError, Cluster};
use crate::crew::{self, Hands, Produced, Share};
use crate::fault::{self, Failover, Injector, Stage, Status, Unfit, Victim};
use crate::keys::Chooser;
use crate::load::Load;
use crate::observe::Observer;
use crate::outage::Outages;
use crate::pace::{Pace, Segment, Tempo};
use crate::report::{Found, Machine, Report, Row, SCHEMA, Verification};
use crate::stats::Stats;
use crate::timeline::Timeline;
use crate::workload::Workload;
use crate::{process, scrape};

/// Making a topic with many partitions takes its time.
const TOPIC_LIMIT: Duration = Duration::from_secs(120);
/// What is due may take so long to be acknowledged when the load ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// What is written may take so long to be read when the load ends.
const READ_LIMIT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// What to run against what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The workload's name, or its file's.
    pub name: String,
    /// The workload.
    pub workload: Workload,
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// What reports call the server.
    pub label: String,
    /// The server's processes on this machine.
    pub server_pids: Vec<u32>,
    /// The URL of the server's metrics.
    pub server_metrics: Option<String>,
    /// The seed of keys, bytes and times; a random one if it is left out.
    pub seed: Option<u64>,
    /// The topic stays when the run ends.
    pub keep_topic: bool,
}

/// Why a run gave no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server could not be reached, or refused.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The metrics could not be read.
    #[error("{0}")]
    Metrics(String),
    /// The server's processes are not there.
    #[error("there is no process {0:?}: --server-pid must name the server's, on this machine")]
    NoProcess(Vec<u32>),
    /// There are faults to inject, and nothing to inject them on.
    #[error(
        "this workload injects faults, which is done only to a server that the load test has started itself: write --start in place of --bootstrap, or leave them out with --faults none"
    )]
    NoVictim,
    /// A fault that this server cannot be given.
    #[error("{0}")]
    Unfit(#[from] Unfit),
    /// A part of the harness has panicked: a fault of this program.
    #[error("a part of the load test has failed: {0}")]
    Bug(String),
}

impl From<crew::Failure> for Error {
    fn from(failure: crew::Failure) -> Self {
        match failure {
            crew::Failure::Call(error) => Self::Call(error),
            crew::Failure::Bug(what) => Self::Bug(what),
        }
    }
}

/// How a run is going, about once a second.
#[derive(Clone, Debug)]
pub struct Progress {
    /// The phase's name.
    pub phase: String,
    /// The last second.
    pub row: Row,
}

/// What becomes of the rate when a phase begins.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// It goes on.
    None,
    /// It is another.
    To(Tempo),
    /// It is another, and what was due and is not made yet is given up.
    Drop(Tempo),
}

/// A run under way.
struct Run {
    load: Arc<Load>,
    observer: Arc<Mutex<Observer>>,
    crew: Hands,
    metrics: Option<String>,
    interrupt: watch::Receiver<bool>,
    phase_name: Arc<Mutex<String>>,
    found: Option<Found>,
    /// What has ended the run before its time.
    failed: Option<String>,
    /// Tells who injects faults how far the run is.
    stage: watch::Sender<Stage>,
    /// Tells what he has done; none if nobody does.
    status: Option<watch::Receiver<Status>>,
}

/// Runs a workload to its end, or until `interrupt` turns true. `progress` is called about once a second.
///
/// # Errors
/// When there is no report to give: see [`Error`]. What the verifier finds is in the report.
pub async fn run(
    options: Options,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    interrupt: watch::Receiver<bool>,
    progress: impl Fn(&Progress) + Send + 'static,
) -> Result<Report, Error> {
    run_on(None, options, clock, entropy, interrupt, progress).await
}

/// The same against a server that this process has started, on which the workload's faults are injected. It
/// runs when this comes back, if it can be started at all. That it ends by itself is a failure of the run.
///
/// # Errors
/// As [`run`], and when the faults cannot be done to this server.
pub async fn run_on(
    victim: Option<&mut Victim>,
    options: Options,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    interrupt: watch::Receiver<bool>,
    progress: impl Fn(&Progress) + Send + 'static,
) -> Result<Report, Error> {
    match &victim {
        Some(victim) => victim.check(&options.workload.faults)?,
        None if options.workload.faults.is_empty() => {}
        None => return Err(Error::NoVictim),
    }
    if !options.server_pids.is_empty() && process::Usage::of(&options.server_pids).is_none() {
        return Err(Error::NoProcess(options.server_pids));
    }
    if let Some(url) = &options.server_metrics {
        scrape::bucket(url).await.map_err(Error::Metrics)?;
    }
    let started_ms = clock.wall_ms();
    let client_id = Str::from_static("loadtest");
    let run = entropy.random_u64();
    let topic = format!("loadtest-{}-{:08x}", options.name.replace(['/', '.'], "-"), run as u32);
    let cluster = Cluster::new(&options.bootstrap);
    let connection = cluster.any(&client_id).await?;
    let leaders = cluster.create(&connection, &topic, &options.workload.topic, TOPIC_LIMIT).await?;
    let (cpus, memory_bytes, model, kernel) = process::describe();
    let load = Arc::new(Load {
        chooser: Chooser::new(&options.workload.records),
        topic: Str::from(&topic),
        run,
        seed: options.seed.unwrap_or_else(|| entropy.random_u64()),
        timeline: Timeline::new(clock),
        stats: Stats::new(2 * cpus),
        pace: Pace::new(),
        leaders: RwLock::new(Arc::new(leaders)),
        outstanding: AtomicU64::new(0),
        arrived: AtomicUsize::new(0),
        outages: Outages::default(),
        failures: Mutex::default(),
        cluster,
        workload: options.workload.clone(),
    });
    let observer = Observer::new(load.timeline.now_us(), options.server_pids.clone());
    let observer = Arc::new(Mutex::new(observer));
    let (stage, status) = (watch::Sender::new(Stage::Before), watch::Sender::default());
    let injector = victim.map(|victim| {
        let (load, observer) = (Arc::clone(&load), Arc::clone(&observer));
        Injector::new(victim, load, observer, stage.subscribe(), status.clone())
    });
    let mut under_way = Run {
        status: injector.is_some().then(|| status.subscribe()),
        stage,
        observer,
        crew: Hands::new(Arc::clone(&load), Share::ALL),
        metrics: options.server_metrics.clone(),
        interrupt,
        phase_name: Arc::default(),
        found: None,
        failed: None,
        load: Arc::clone(&load),
    };
    let ticker = under_way.tick(progress);
    let (outcome, mut faults) = match injector {
        Some(injector) => tokio::join!(under_way.lead(), injector.run()),
        None => (under_way.lead().await, Vec::new()),
    };
    ticker.abort();
    if !options.keep_topic
        && let Err(error) = load.delete_topic(&client_id).await
    {
        load.noted(error.to_string());
    }
    let verification = outcome?;
    fault::settle(&mut faults, &load.outages.all());
    let bucket = under_way.bucket().await;
    let (phases, series) = {
        let mut observer = under_way.observer.lock();
        observer.observe(&load.stats, load.timeline.now_us());
        observer.finish(&load.stats, bucket)
    };
    let mut failures: Vec<String> = load.failures.lock().drain().collect();
    failures.sort();
    let interrupted = *under_way.interrupt.borrow();
    Ok(Report {
        schema: SCHEMA.to_owned(),
        program: env!("CARGO_PKG_VERSION").to_owned(),
        name: options.name,
        label: options.label,
        workload: options.workload,
        started_ms,
        seed: load.seed,
        machine: Machine { cpus, memory_bytes, model, kernel },
        phases,
        search: under_way.found,
        series,
        verification,
        failover: Failover::of(&faults),
        faults,
        failures,
        failed: under_way.failed,
        interrupted,
    })
}

impl Run {
    /// Adds a row each second, and tells of it.
    fn tick(&self, progress: impl Fn(&Progress) + Send + 'static) -> tokio::task::JoinHandle<()> {
        let (load, observer) = (Arc::clone(&self.load), Arc::clone(&self.observer));
        let name = Arc::clone(&self.phase_name);
        tokio::spawn(async move {
            let second = Duration::from_secs(1);
            let mut ticks = interval_at(Instant::now() + second, second);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let row = observer.lock().observe(&load.stats, load.timeline.now_us());
                progress(&Progress { phase: name.lock().clone(), row });
            }
        })
    }

    /// Leads the load through its phases, and ends it.
    async fn lead(&mut self) -> Result<Verification, Error> {
        let played = self.perform().await;
        // Whatever has happened: faults end, and with them their undoing.
        self.calm().await;
        played?;
        self.end().await
    }

    async fn perform(&mut self) -> Result<(), Error> {
        self.crew.start_producers().await?;
        match self.play().await {
            // A server that is not there any more: what was measured until then counts.
            Err(Error::Call(failure)) => self.fail(failure.to_string()),
            played => played?,
        }
        Ok(())
    }

    /// Waits until no fault lasts, and none will come.
    async fn calm(&mut self) {
        self.stage.send_replace(Stage::Over);
        let Some(status) = &mut self.status else { return };
        // Its sender lives as long as this run.
        let status = status.wait_for(|status| status.is_done).await.map(|status| status.clone());
        if let Ok(Status { broken: Some(broken), .. }) = status {
            self.fail(broken);
        }
    }

    /// The run ends before its time, with a report. The first failure is the reason of the others.
    fn fail(&mut self, failure: String) {
        self.failed.get_or_insert(failure);
    }

    /// Records are due at this rate from now on.
    fn set(&self, tempo: Tempo, abandon: bool) {
        let from_us = self.load.timeline.now_us();
        self.crew.set(Segment { from_us, tempo, abandon });
    }

    /// A phase begins, and with it another rate, if there is one.
    async fn begin(&self, name: &str, measured: bool, offered: Option<f64>, turn: Turn) -> usize {
        let bucket = self.bucket().await;
        let now_us = self.load.timeline.now_us();
        self.crew.begin_phase(now_us);
        match turn {
            Turn::None => {}
            Turn::To(tempo) => self.crew.set(Segment { from_us: now_us, tempo, abandon: false }),
            Turn::Drop(tempo) => self.crew.set(Segment { from_us: now_us, tempo, abandon: true }),
        }
        if measured {
            self.stage.send_if_modified(|stage| {
                let begins = *stage == Stage::Before;
                if begins {
                    *stage = Stage::During(Instant::now());
                }
                begins
            });
        }
        name.clone_into(&mut self.phase_name.lock());
        let mut observer = self.observer.lock();
        observer.begin(&self.load.stats, now_us, name, measured, offered, bucket);
        observer.phase()
    }

    /// What the bucket was asked for so far; none where the server does not say, as while it is down.
    async fn bucket(&self) -> Option<scrape::Bucket> {
        match scrape::bucket(self.metrics.as_ref()?).await {
            Ok(bucket) => Some(bucket),
            Err(error) => {
                self.load.noted(error);
                None
            }
        }
    }

    /// Lets the load run for a while. False if it is to end: the user wants it, or a client has failed.
    async fn wait(&mut self, time: Duration) -> Result<bool, Error> {
        let Self { interrupt, crew, status, .. } = self;
        let until = Instant::now() + time;
        let failure = tokio::select! {
            () = sleep_until(until) => return Ok(true),
            _ = interrupt.wait_for(|interrupted| *interrupted) => return Ok(false),
            broken = broken(status) => broken,
            failure = crew.failed() => failure?,
        };
        self.fail(failure);
        Ok(false)
    }

    /// Waits until something holds, at most so long. Whether it does.
    async fn until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Load) -> bool,
    ) -> Result<bool, Error> {
        let until = Instant::now() + limit;
        while !holds(&self.load) {
            if Instant::now() > until || !self.wait(POLL).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends producers, then consumers, and holds what was read against what was written.
    async fn end(&mut self) -> Result<Verification, Error> {
        if *self.interrupt.borrow() || self.failed.is_some() {
            self.set(Tempo::Rest, true);
        }
        let Produced { written, abandoned, unsettled, failure } =
            self.crew.end_producers(DRAIN_LIMIT).await?;
        failure.into_iter().for_each(|failure| self.fail(failure));
        if self.crew.consumers() > 0 {
            let ends = match self.decided_ends().await {
                Ok(ends) => Some(Arc::new(ends)),
                // A topic that nobody has deleted is gone: it holds nothing, and what it held is lost.
                Err(failure) if failure.is_unknown_topic() => {
                    self.fail(failure.to_string());
                    Some(Arc::new(vec![0; self.load.workload.topic.partitions as usize]))
                }
                // Where nobody knows the ends, the proof is not whole.
                Err(failure) => {
                    self.fail(failure.to_string());
                    None
                }
            };
            let failure = self.crew.end_consumers(ends, READ_LIMIT).await?;
            failure.into_iter().for_each(|failure| self.fail(failure));
        }
        let groups = self.load.workload.consume.as_ref().map_or(0, |consume| consume.groups);
        let (complete, findings) = self.crew.verify(&written);
        Ok(Verification {
            complete: complete || groups == 0,
            acknowledged: written.iter().map(|written| written.acknowledged).sum(),
            groups,
            findings,
            abandoned,
            unsettled,
        })
    }

    /// The ends of all partitions when every transaction is decided there: its end is answered before its
    /// markers are written (KIP-890), and until then nobody can read it.
    async fn decided_ends(&self) -> Result<Vec<i64>, CallError> {
        let until = Instant::now() + DRAIN_LIMIT;
        loop {
            // In this order: what is stable cannot pass what was the end later.
            let stable = self.ends(Bound::Stable).await?;
            let ends = self.ends(Bound::End).await?;
            if stable == ends || Instant::now() > until {
                return Ok(ends);
            }
            sleep(POLL).await;
        }
    }

    /// The ends of all partitions: of all that was written, or of what is stable.
    async fn ends(&self, bound: Bound) -> Result<Vec<i64>, CallError> {
        let load = &self.load;
        let client_id = Str::from_static("loadtest");
        let until = Instant::now() + load.workload.produce.delivery_timeout.0.min(DRAIN_LIMIT);
        loop {
            let leaders = load.leaders();
            match load.cluster.bounds(&client_id, &load.topic, &leaders, bound).await {
                Err(error) if error.is_retriable() && Instant::now() < until => {
                    load.repeated(0, error.to_string());
                    sleep(Duration::from_millis(100)).await;
                    if let Err(error) = load.refresh(&client_id).await {
                        load.repeated(0, error.to_string());
                    }
                }
                outcome => return outcome,
            }
        }
    }
}

/// Comes back when the server that faults are injected on is broken, with what is told of it.
async fn broken(status: &mut Option<watch::Receiver<Status>>) -> String {
    if let Some(status) = status
        && let Ok(status) = status.wait_for(|status| status.broken.is_some()).await
        && let Some(broken) = &status.broken
    {
        return broken.clone();
    }
    std::future::pending().await
}
