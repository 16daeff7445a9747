//! Running a workload: makes the topic, starts producers and consumers, leads them through the phases, ends them
//! in order and holds what was read against what was written.

mod lag;
mod script;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluice_model::{Clock, Entropy};
use sluice_wire::{Str, Uuid};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::client::{Account, CallError, Cluster, Leaders};
use crate::crew::{self, Books, Crew, Hands, Produced, Share, Tenants};
use crate::fault::{self, Failover, Injected, Injector, Stage, Status, Unfit, Victim};
use crate::fleet::Coordinator;
use crate::load::{Load, Plan};
use crate::observe::{Begun, Observer};
use crate::pace::{Segment, Tempo};
use crate::report::{AgentSummary, Found, Machine, Phase, Report, Row, SCHEMA, Verification};
use crate::timeline::Timeline;
use crate::workload::{Protocol, Workload};
use crate::{process, scrape};
use lag::Lag;

/// Making a topic with many partitions takes its time.
const TOPIC_LIMIT: Duration = Duration::from_secs(120);
/// What is due may take so long to be acknowledged when the load ends.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// What is written may take so long to be read when the load ends.
const READ_LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked whether the server keeps up.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A phase is told of so long before it begins, so that all of a record's latencies belong to the same one.
const NEAR_US: u64 = 2000;

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
    /// The processes on this machine of the store that the server uses: their cost is told apart.
    pub store_pids: Vec<u32>,
    /// The URL of the server's metrics.
    pub server_metrics: Option<String>,
    /// The seed of keys, bytes and times; a random one if it is left out.
    pub seed: Option<u64>,
    /// The topic stays when the run ends.
    pub keep_topic: bool,
    /// Who the tenants are to the server, in their order; nobody if it wants no credentials.
    pub accounts: Vec<Account>,
}

/// Why a run gave no report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server could not be reached, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The metrics could not be read.
    #[error("{0}")]
    Metrics(String),
    /// The server's processes are not there.
    #[error(
        "there is no process {0:?}: --server-pid and --store-pid must name those of this machine"
    )]
    NoProcess(Vec<u32>),
    /// There are faults to inject, and nothing to inject them on.
    #[error(
        "this workload injects faults, which is done only to a server that the load test has started itself: write --start in place of --bootstrap, or leave them out with --faults none"
    )]
    NoVictim,
    /// A fault that this server cannot be given.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Nobody in another process sees how long a fault lasts.
    #[error(
        "this workload injects faults, which is not done to a load from agents: leave out the agents, or the faults with --faults none"
    )]
    FaultsOnFleet,
    /// What the consumers of a group have seen together is known in one process only.
    #[error(
        "consumers that share partitions by the group protocol are verified in one process: leave out the agents, or write consume.protocol = \"assigned\""
    )]
    GroupsOnFleet,
    /// Agents know no tenants.
    #[error(
        "this workload has tenants, whose load does not come from agents yet: leave out the agents"
    )]
    TenantsOnFleet,
    /// Some tenants have no credentials.
    #[error("the workload has {wanted} tenants, and there are credentials for {there} only")]
    Accounts {
        /// In the file.
        there: usize,
        /// In the workload.
        wanted: usize,
    },
    /// Agents have not come.
    #[error("{0}")]
    Fleet(String),
    /// The user wanted an end before anything had begun.
    #[error("ended before the load began")]
    Interrupted,
    /// A part of the harness has panicked: a fault of this program.
    #[error("a part of the load test has failed: {0}")]
    Bug(String),
}

impl From<crew::Failure> for Error {
    fn from(failure: crew::Failure) -> Self {
        match failure {
            crew::Failure::Call(error) => Self::Call(error),
            crew::Failure::Bug(what) => Self::Bug(what),
            missing @ crew::Failure::Missing { .. } => Self::Fleet(missing.to_string()),
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
    /// Whoever adds a row holds it from before the crew's work is gathered, so that no row has a part of two
    /// phases.
    observer: Arc<tokio::sync::Mutex<Observer>>,
    crew: Crew,
    metrics: Option<String>,
    interrupt: watch::Receiver<bool>,
    phase_name: Arc<Mutex<String>>,
    found: Option<Found>,
    /// What has ended the run before its time.
    failed: Option<String>,
    lag: Lag,
    /// What was too slow, in words.
    gave_up: Vec<String>,
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
    run_on(None, None, options, clock, entropy, interrupt, progress).await
}

/// The same against a server that this process has started, on which the workload's faults are injected, or with
/// producers and consumers in agents that come to the coordinator. The server runs when this comes back, if it
/// can be started at all. That it ends by itself is a failure of the run; that an agent is lost is in the report.
///
/// # Errors
/// As [`run`], when the faults cannot be done to this server, and when agents have not come.
pub async fn run_on(
    victim: Option<&mut Victim>,
    coordinator: Option<Coordinator>,
    options: Options,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    mut interrupt: watch::Receiver<bool>,
    progress: impl Fn(&Progress) + Send + 'static,
) -> Result<Report, Error> {
    match &victim {
        Some(victim) => victim.check(&options.workload.faults)?,
        None if options.workload.faults.is_empty() => {}
        None => return Err(Error::NoVictim),
    }
    if let Some(tenants) = &options.workload.tenants {
        let (there, wanted) = (options.accounts.len(), tenants.total() as usize);
        if coordinator.is_some() {
            return Err(Error::TenantsOnFleet);
        }
        if there > 0 && there < wanted {
            return Err(Error::Accounts { there, wanted });
        }
    }
    if coordinator.is_some() && !options.workload.faults.is_empty() {
        return Err(Error::FaultsOnFleet);
    }
    let protocol = options.workload.consume.as_ref().map(|consume| consume.protocol);
    if coordinator.is_some() && protocol.is_some_and(|protocol| protocol != Protocol::Assigned) {
        return Err(Error::GroupsOnFleet);
    }
    for pids in [&options.server_pids, &options.store_pids] {
        if !pids.is_empty() && process::Usage::of(pids).is_none() {
            return Err(Error::NoProcess(pids.clone()));
        }
    }
    if let Some(url) = &options.server_metrics {
        scrape::bucket(url).await.map_err(Error::Metrics)?;
    }
    let started_ms = clock.wall_ms();
    let timeline = Timeline::new(clock);
    let fleet = match coordinator {
        None => None,
        Some(coordinator) => {
            let fleet = coordinator.muster(timeline.clone(), &mut interrupt).await?;
            Some(fleet.ok_or(Error::Interrupted)?)
        }
    };
    let client_id = Str::from_static("loadtest");
    let run = entropy.random_u64();
    let plan = Plan {
        bootstrap: options.bootstrap.clone(),
        topic: format!("loadtest-{}-{:08x}", options.name.replace(['/', '.'], "-"), run as u32),
        run,
        seed: options.seed.unwrap_or_else(|| entropy.random_u64()),
    };
    let cluster = Cluster::new(&options.bootstrap, None);
    let has_tenants = options.workload.tenants.is_some();
    let leaders = if has_tenants {
        // Each has a topic of its own.
        Leaders { topic_id: Uuid::ZERO, partitions: Vec::new() }
    } else {
        let connection = cluster.any(&client_id).await?;
        let topic = &options.workload.topic;
        cluster.create(&connection, &plan.topic, topic, TOPIC_LIMIT).await?
    };
    let load = Load::new(options.workload.clone(), &plan, timeline, cluster, leaders);
    let load = Arc::new(load);
    let books = match has_tenants {
        true => Some(Books::open(&load, &plan, &options.accounts).await?),
        false => None,
    };
    let crew = match (fleet, &books) {
        (Some(fleet), _) => {
            fleet.employ(&load, plan).await;
            Crew::Fleet(fleet)
        }
        (None, Some(books)) => Crew::Tenants(Tenants::new(Arc::clone(books))),
        (None, None) => Crew::Here(Hands::new(Arc::clone(&load), Share::ALL)),
    };
    let outcome = lead(&options, victim, &load, crew, interrupt, progress).await;
    match &books {
        _ if options.keep_topic => {}
        Some(books) => books.delete_topics().await,
        None => {
            if let Err(error) = load.delete_topic(&client_id).await {
                load.noted(error.to_string());
            }
        }
    }
    let Led { verification, phases, series, found, faults, agents, gave_up, failed, interrupted } =
        outcome?;
    let (cpus, memory_bytes, model, kernel) = process::describe();
    let mut failures: Vec<String> = load.failures.lock().drain().collect();
    failures.sort();
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
        search: found,
        series,
        verification,
        failover: Failover::of(&faults),
        faults,
        agents,
        failures,
        gave_up,
        failed,
        interrupted,
    })
}

/// What a run has given.
struct Led {
    verification: Verification,
    phases: Vec<Phase>,
    series: Vec<Row>,
    found: Option<Found>,
    faults: Vec<Injected>,
    agents: Vec<AgentSummary>,
    gave_up: Vec<String>,
    failed: Option<String>,
    interrupted: bool,
}

/// Leads a load on a topic that is there to its end.
async fn lead(
    options: &Options,
    victim: Option<&mut Victim>,
    load: &Arc<Load>,
    crew: Crew,
    interrupt: watch::Receiver<bool>,
    progress: impl Fn(&Progress) + Send + 'static,
) -> Result<Led, Error> {
    let gauge = crew.gauge();
    let start_us = load.timeline.now_us();
    // What agents have used before.
    gauge.gather(start_us).await;
    let (server, store) = (options.server_pids.clone(), options.store_pids.clone());
    let observer = Observer::new(start_us, server, store, gauge.usage(), gauge.is_here());
    let observer = Arc::new(tokio::sync::Mutex::new(observer));
    let (stage, status) = (watch::Sender::new(Stage::Before), watch::Sender::default());
    let injector = victim.map(|victim| {
        let (load, observer) = (Arc::clone(load), Arc::clone(&observer));
        Injector::new(victim, load, observer, stage.subscribe(), status.clone(), start_us)
    });
    let mut under_way = Run {
        status: injector.is_some().then(|| status.subscribe()),
        stage,
        observer,
        crew,
        metrics: options.server_metrics.clone(),
        interrupt,
        phase_name: Arc::default(),
        found: None,
        failed: None,
        lag: Lag::none(),
        gave_up: Vec::new(),
        load: Arc::clone(load),
    };
    let ticker = under_way.tick(progress);
    let (outcome, mut faults) = match injector {
        Some(injector) => tokio::join!(under_way.lead(), injector.run()),
        None => (under_way.lead().await, Vec::new()),
    };
    ticker.abort();
    fault::settle(&mut faults, &load.outages.all());
    let bucket = under_way.bucket().await;
    let (mut phases, series) = {
        let mut observer = under_way.observer.lock().await;
        let now_us = load.timeline.now_us();
        gauge.gather(now_us).await;
        observer.observe(&load.stats, now_us, gauge.usage());
        observer.finish(&load.stats, bucket)
    };
    for (index, phase) in phases.iter_mut().enumerate() {
        phase.tenants = gauge.classes(index, phase.seconds);
    }
    under_way.crew.dismiss().await;
    let interrupted = *under_way.interrupt.borrow();
    let agents = gauge.agents(start_us);
    let Run { found, failed, gave_up, .. } = under_way;
    let verification = outcome?;
    let led =
        Led { verification, phases, series, found, faults, agents, gave_up, failed, interrupted };
    Ok(led)
}

impl Run {
    /// Adds a row each second, and tells of it.
    fn tick(&self, progress: impl Fn(&Progress) + Send + 'static) -> tokio::task::JoinHandle<()> {
        let (load, observer) = (Arc::clone(&self.load), Arc::clone(&self.observer));
        let (name, gauge) = (Arc::clone(&self.phase_name), self.crew.gauge());
        tokio::spawn(async move {
            let second = Duration::from_secs(1);
            let mut ticks = interval_at(Instant::now() + second, second);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
            loop {
                ticks.tick().await;
                let mut observer = observer.lock().await;
                let now_us = load.timeline.now_us();
                gauge.gather(now_us).await;
                let row = observer.observe(&load.stats, now_us, gauge.usage());
                drop(observer);
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

    /// The next instant at which the whole crew can do something.
    fn soon_us(&self) -> u64 {
        self.load.timeline.now_us() + self.crew.ahead().as_micros() as u64
    }

    /// Records are due at this rate from now on.
    fn set(&mut self, tempo: Tempo, abandon: bool) {
        let stage = self.phase_name.lock().clone();
        let from_us = self.soon_us();
        self.lag.turn(tempo, from_us, &self.load.stats);
        self.crew.set(Segment { from_us, tempo, abandon }, &stage);
    }

    /// How long the end of a part of the run may take, if the workload does not say.
    fn patience(&self, default: Duration) -> Duration {
        self.load.workload.give_up.map_or(default, |give_up| give_up.0)
    }

    /// A phase begins, and with it another rate, if there is one. Comes back when it has begun.
    async fn begin(
        &mut self,
        name: &str,
        measured: bool,
        offered: Option<f64>,
        turn: Turn,
    ) -> usize {
        let bucket = self.bucket().await;
        let observer = Arc::clone(&self.observer);
        let mut observer = observer.lock().await;
        let gauge = self.crew.gauge();
        let at_us = if self.crew.ahead().is_zero() {
            // Before anybody turns: what was done so far is the last phase's.
            gauge.gather(self.load.timeline.now_us()).await;
            let at_us = self.load.timeline.now_us() + NEAR_US;
            self.turn(at_us, name, turn);
            sleep_until(self.load.timeline.instant(at_us)).await;
            at_us
        } else {
            let at_us = self.soon_us();
            self.turn(at_us, name, turn);
            gauge.gather(at_us).await;
            at_us
        };
        let begun = Begun { name: name.to_owned(), measured, offered, bucket, renewed: false };
        observer.begin(&self.load.stats, at_us, gauge.usage(), begun);
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
        observer.phase()
    }

    /// What is due from that instant on is of the new phase.
    fn turn(&mut self, at_us: u64, name: &str, turn: Turn) {
        self.crew.begin_phase(at_us);
        let (tempo, abandon) = match turn {
            Turn::None => return,
            Turn::To(tempo) => (tempo, false),
            Turn::Drop(tempo) => (tempo, true),
        };
        self.lag.turn(tempo, at_us, &self.load.stats);
        self.crew.set(Segment { from_us: at_us, tempo, abandon }, name);
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

    /// Lets the phase that has begun take so long: the next one is told of before its instant. False if it is to end:
    /// as in [`Self::wait`], or what is due is not acknowledged for longer than the workload wants to wait.
    async fn last(&mut self, time: Duration) -> Result<bool, Error> {
        let until = Instant::now() + time.saturating_sub(self.crew.ahead());
        let Some(most) = self.load.workload.give_up else {
            return self.wait(until - Instant::now()).await;
        };
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            if !self.wait(left.min(LOOK_EVERY)).await? {
                return Ok(false);
            }
            let now_us = self.load.timeline.now_us();
            let stats = &self.load.stats;
            if self.lag.seconds(now_us, stats).is_some_and(|late| late > most.0.as_secs_f64()) {
                let (name, size) =
                    (self.phase_name.lock().clone(), self.load.workload.records.size);
                let words = self.lag.words(&name, now_us, stats, size.0);
                self.gave_up.push(words);
                return Ok(false);
            }
        }
    }

    /// A part of the run took longer than the workload wants to wait.
    fn slow(&mut self, words: String) {
        if self.load.workload.give_up.is_some() && !self.is_cut_short() {
            self.gave_up.push(words);
        }
    }

    /// Whether the run is to end before its time, for another reason than that the server is slow.
    fn is_cut_short(&self) -> bool {
        *self.interrupt.borrow() || self.failed.is_some()
    }

    /// Waits until something holds, at most so long. Whether it does.
    async fn until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&Load) -> bool,
    ) -> Result<bool, Error> {
        let until = Instant::now() + limit;
        let gauge = self.crew.gauge();
        loop {
            gauge.gather(self.load.timeline.now_us()).await;
            if holds(&self.load) {
                return Ok(true);
            }
            if Instant::now() > until || !self.wait(gauge.pause()).await? {
                return Ok(false);
            }
        }
    }

    /// Ends producers, then consumers, and holds what was read against what was written.
    async fn end(&mut self) -> Result<Verification, Error> {
        if self.is_cut_short() || !self.gave_up.is_empty() {
            self.set(Tempo::Rest, true);
        }
        let limit = self.patience(DRAIN_LIMIT);
        let Produced { written, abandoned, unsettled, failure } =
            self.crew.end_producers(limit).await?;
        failure.into_iter().for_each(|failure| self.fail(failure));
        if unsettled > 0 {
            let seconds = limit.as_secs_f64();
            self.slow(format!("end: {unsettled} records were not answered within {seconds} s"));
        }
        let limit = self.patience(READ_LIMIT);
        if self.crew.consumers() > 0 {
            let failures = self.crew.end_consumers(&self.load, limit).await?;
            failures.into_iter().for_each(|failure| self.fail(failure));
        }
        let groups = self.load.workload.consume.as_ref().map_or(0, |consume| consume.groups);
        let (complete, findings) = self.crew.verify(&written).await;
        let complete = complete || groups == 0;
        if !complete {
            let seconds = limit.as_secs_f64();
            self.slow(format!("end: not all was read within {seconds} s"));
        }
        Ok(Verification {
            complete,
            acknowledged: written.iter().map(|written| written.acknowledged).sum(),
            groups,
            findings,
            abandoned,
            unsettled,
            lost_agents: self.crew.gauge().lost_agents(),
        })
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
