//! Injecting faults, one after the other, while a run's measured part lasts. The injector owns what the server is
//! and is done to it meanwhile; it leaves the server running, its disk free and its bucket within reach, so that all
//! that was acknowledged can be read and verified.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Cut, Fault, Filler, Injected, Kind, Plan, Proxy};
use crate::load::Load;
use crate::observe::Observer;
use crate::outage::Outage;
use crate::process;
use crate::servers::Server;

/// A server that is told to end may take so long: longer than any drains.
const END_LIMIT: Duration = Duration::from_secs(60);
/// The next fault waits at most so long for the server to answer after the one before.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// A signal takes so long at most to stop a process.
const STOP_LIMIT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(5);

/// What faults are done to: a server that this process has started.
#[derive(Debug)]
pub struct Victim {
    /// The server.
    pub server: Server,
    /// Where its data lies.
    pub data: PathBuf,
    /// What stands between it and its bucket; none if it has none, or reaches it directly.
    pub bucket: Option<Proxy>,
}

/// A fault that cannot be done to this server, in words for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl Victim {
    fn log(&self) -> &Path {
        &self.server.program().log
    }

    /// Whether all of these faults can be done to it.
    ///
    /// # Errors
    /// The first that cannot, and why.
    pub fn check(&self, faults: &[Fault]) -> Result<(), Unfit> {
        for fault in faults {
            match fault.kind {
                Kind::Kill | Kind::Stop | Kind::Restart => {}
                Kind::FillDisk => drop(Filler::find(&self.data, self.log()).map_err(Unfit)?),
                Kind::CutBucket if self.bucket.is_some() => {}
                Kind::CutBucket => {
                    let name = &self.server.program().name;
                    return Err(Unfit(format!(
                        "cut-bucket: {name} has no bucket that is reached over HTTP"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// How far a run is, told by who leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing is measured yet.
    Before,
    /// The measured part has begun then.
    During(Instant),
    /// No more faults.
    Over,
}

/// How far the faults are, told to who leads the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// There will be no more, and the last one is over.
    pub(crate) is_done: bool,
    /// The server has ended by itself, or did not come back.
    pub(crate) broken: Option<String>,
}

/// Injects the faults of one run.
pub(crate) struct Injector<'a> {
    victim: &'a mut Victim,
    plan: Plan,
    load: Arc<Load>,
    observer: Arc<Mutex<Observer>>,
    stage: watch::Receiver<Stage>,
    status: watch::Sender<Status>,
    /// The run's start, µs since the Unix epoch.
    start_us: u64,
    injected: Vec<Injected>,
}

impl<'a> Injector<'a> {
    /// `start_us` is the run's.
    pub(crate) fn new(
        victim: &'a mut Victim,
        load: Arc<Load>,
        observer: Arc<Mutex<Observer>>,
        stage: watch::Receiver<Stage>,
        status: watch::Sender<Status>,
        start_us: u64,
    ) -> Self {
        let plan = Plan::new(&load.workload.faults);
        Self { victim, plan, load, observer, stage, status, start_us, injected: Vec::new() }
    }

    /// Injects what is due until the measured part is over. Gives what was done; what came of it is
    /// [`settle`]'s.
    pub(crate) async fn run(mut self) -> Vec<Injected> {
        if let Err(broken) = self.follow().await {
            self.status.send_modify(|status| status.broken = Some(broken));
            // What was acknowledged may all be there: it is read if the server comes back.
            if let Err(error) = self.restart().await {
                self.load.noted(error);
            }
        }
        self.status.send_modify(|status| status.is_done = true);
        self.injected
    }

    async fn follow(&mut self) -> Result<(), String> {
        loop {
            let stage = *self.stage.borrow_and_update();
            let next = match stage {
                Stage::Before => None,
                Stage::During(since) => self.plan.next_at().map(|at| since + at),
                Stage::Over => return Ok(()),
            };
            let wait = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.stage.changed() => if changed.is_err() { return Ok(()) },
                status = self.victim.server.ended() => {
                    let (name, log) = (&self.victim.server.program().name, self.victim.server.log_tail());
                    let status = status.map_or_else(String::new, |status| format!(" ({status})"));
                    return Err(format!("{name} has ended by itself{status}; its log ends with:\n{log}"));
                }
                () = wait => if let Stage::During(since) = stage
                    && let Some(fault) = self.plan.take(since.elapsed())
                {
                    self.inject(&fault).await?;
                    self.answered().await;
                }
            }
        }
    }

    async fn inject(&mut self, fault: &Fault) -> Result<(), String> {
        let lasts = fault.lasts.map_or(Duration::ZERO, |lasts| lasts.0);
        let down = fault.down.map_or(Duration::ZERO, |down| down.0);
        self.load.outages.arm();
        match fault.kind {
            Kind::Kill => {
                self.victim.server.kill().await;
                self.note(fault.kind, None);
                self.rest(down).await;
                self.restart().await?;
            }
            Kind::Restart => {
                let stopped = self.victim.server.terminate(END_LIMIT).await;
                self.note(fault.kind, Some(stopped.after.as_secs_f64() * 1000.0));
                self.rest(down).await;
                self.restart().await?;
                if stopped.was_killed {
                    let name = &self.victim.server.program().name;
                    return Err(format!("{name} did not end in time when it was told to"));
                }
            }
            Kind::Stop => {
                self.victim.server.pause();
                self.stands_still().await;
                self.note(fault.kind, None);
                self.rest(lasts).await;
                self.victim.server.resume();
            }
            Kind::FillDisk => {
                let (data, log) = (self.victim.data.clone(), self.victim.log().to_owned());
                let fill = move || {
                    let root = Filler::find(&data, &log)?;
                    Filler::fill(&root).map_err(|error| format!("fill-disk: {error}"))
                };
                let filled = tokio::task::spawn_blocking(fill).await;
                let filler = filled.map_err(|error| error.to_string())??;
                self.note(fault.kind, None);
                self.rest(lasts).await;
                drop(filler);
            }
            Kind::CutBucket => {
                let how = fault.how.unwrap_or_default();
                self.cut(Some(how));
                self.note(fault.kind, None);
                self.rest(lasts).await;
                self.cut(None);
            }
        }
        if let Some(last) = self.injected.last_mut() {
            last.until = Some(since(self.start_us, self.load.timeline.now_us()));
        }
        Ok(())
    }

    fn cut(&self, how: Option<Cut>) {
        if let Some(bucket) = &self.victim.bucket {
            bucket.set(how);
        }
    }

    /// The fault is there.
    fn note(&mut self, kind: Kind, ending: Option<f64>) {
        let now_us = self.load.timeline.now_us();
        self.load.outages.begin(now_us);
        self.injected.push(Injected {
            kind,
            at: since(self.start_us, now_us),
            ending,
            until: None,
            first_acknowledged: None,
            first_read: None,
            silence: None,
        });
    }

    /// Starts the server as it was started before.
    async fn restart(&mut self) -> Result<(), String> {
        let started = self.victim.server.restart().await;
        self.observer.lock().await.renewed(self.victim.server.pids());
        started.map_err(|error| error.to_string())
    }

    /// Waits so long, or until the run is over.
    async fn rest(&mut self, time: Duration) {
        let stage = &mut self.stage;
        tokio::select! {
            () = sleep(time) => {}
            _ = stage.wait_for(|stage| *stage == Stage::Over) => {}
        }
    }

    /// Waits until the signal has reached all of the server's processes.
    async fn stands_still(&self) {
        let until = Instant::now() + STOP_LIMIT;
        let pids = self.victim.server.pids();
        while !pids.iter().all(|pid| process::is_stopped(*pid)) && Instant::now() < until {
            sleep(POLL).await;
        }
    }

    /// Waits until the server answers again to all that is asked of it.
    async fn answered(&mut self) {
        let load = Arc::clone(&self.load);
        let reads = load.workload.consume.is_some();
        let answered = async {
            while !load.outages.is_answered(reads) {
                sleep(POLL).await;
            }
        };
        let stage = &mut self.stage;
        tokio::select! {
            () = answered => {}
            // Seen again by whoever called this, and told.
            _ = self.victim.server.ended() => {}
            () = sleep(ANSWER_LIMIT) => {}
            _ = stage.wait_for(|stage| *stage == Stage::Over) => {}
        }
    }
}

/// Says what came after each fault.
pub(crate) fn settle(injected: &mut [Injected], outages: &[Outage]) {
    let ms = |from_us: u64, to_us: u64| to_us.saturating_sub(from_us) as f64 / 1000.0;
    for (fault, outage) in injected.iter_mut().zip(outages) {
        let from_us = outage.since_us;
        fault.first_acknowledged = outage.acknowledged_us.map(|at_us| ms(from_us, at_us));
        fault.first_read = outage.read_us.map(|at_us| ms(from_us, at_us));
        fault.silence = outage.silence_us.map(|silence_us| ms(0, silence_us));
    }
}

/// Seconds from one time in µs to another.
fn since(from_us: u64, to_us: u64) -> f64 {
    to_us.saturating_sub(from_us) as f64 / 1e6
}
