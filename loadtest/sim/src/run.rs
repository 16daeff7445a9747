//! One run of one seed: the hosts, the time in which things break, the time in which they heal, and the
//! audits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use turmoil::{Builder, Sim};

use crate::bucket;
use crate::director::{CONSUMERS, Director, PRODUCERS};
use crate::history::{History, Summary};
use crate::host::{self, Source};
use crate::metadata;
use crate::random::Random;
use crate::stage::{IDEMPOTENT, PLAIN, Stage, TRANSACTIONAL, WRITERS};

/// How finely hosts are interleaved, and the shortest way through the network.
const TICK: Duration = Duration::from_millis(2);
/// How long a healed cluster may take for one thing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a seed. Once a process: what the standard library and the runtime take for randomness follows from
/// the seed only if nothing came before. With `print` the history goes to standard output as it happens.
pub fn run(seed: u64, print: bool) -> Summary {
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let history = History::new(print);
    let stage = Stage::new(seed, history.clone());
    let mut run = Run::new(stage, &history);
    if let Err(error) = run.whole() {
        history.violation(format_args!("{error}"));
    }
    history.summary()
}

struct Run<'a> {
    sim: Sim<'a>,
    stage: Arc<Stage>,
    director: Director,
    audits: u32,
    /// The share of messages that break their link for a moment, while things break.
    loss: f64,
}

impl Run<'_> {
    fn new(stage: Arc<Stage>, history: &History) -> Self {
        let mut random = Random::new(stage.seed, 4);
        let loss = *random.pick(&[0.0, 0.0, 0.002, 0.01]);
        let mut sim = Builder::new()
            .rng_seed(random.next())
            .tick_duration(TICK)
            .simulation_duration(Duration::from_secs(3600))
            .min_message_latency(Duration::from_millis(0))
            .max_message_latency(random.ms(1, 40))
            .repair_rate(0.5)
            .udp_capacity(4096)
            .enable_random_order()
            .build();
        history.event("seed", format_args!("{} loss {loss} {:?}", stage.seed, stage.profile));
        let world = Arc::clone(&stage);
        sim.host(bucket::HOST, move || {
            let (server, service) = (world.bucket.clone(), world.bucket_service.clone());
            async move { Ok(server.run(service).await?) }
        });
        let world = Arc::clone(&stage);
        sim.host(metadata::HOST, move || {
            let (server, service) = (world.metadata.clone(), world.metadata_service.clone());
            async move { Ok(server.run(service).await?) }
        });
        for (number, name) in WRITERS.into_iter().enumerate() {
            let world = Arc::clone(&stage);
            sim.host(name, move || host::own(Arc::clone(&world), number));
        }
        let world = Arc::clone(&stage);
        sim.host(PRODUCERS, move || {
            let stage = Arc::clone(&world);
            async move {
                let catalog = host::set_up(Arc::clone(&stage)).await;
                for id in 0..IDEMPOTENT + PLAIN {
                    tokio::spawn(host::produce(Arc::clone(&stage), id));
                }
                for id in IDEMPOTENT + PLAIN..IDEMPOTENT + PLAIN + TRANSACTIONAL {
                    tokio::spawn(host::transact(Arc::clone(&stage), id));
                }
                host::administrate(stage, catalog).await;
                std::future::pending().await
            }
        });
        let world = Arc::clone(&stage);
        sim.host(CONSUMERS, move || {
            let stage = Arc::clone(&world);
            async move {
                host::consume(stage).await;
                Ok(())
            }
        });
        let director = Director::new(Arc::clone(&stage));
        Self { sim, stage, director, audits: 0, loss }
    }

    fn whole(&mut self) -> turmoil::Result {
        let set_up = |stage: &Stage| !stage.topics.lock().is_empty();
        self.until("the set-up", set_up)?;
        self.sim.set_fail_rate(self.loss);
        let end = self.sim.elapsed() + self.stage.profile.load;
        while self.sim.elapsed() < end {
            let now = self.sim.elapsed();
            self.director.act(&mut self.sim, now);
            self.step()?;
        }
        self.sim.set_fail_rate(0.0);
        let owner = self.director.heal(&mut self.sim);
        self.stage.wind_down.store(true, Ordering::Relaxed);
        self.settle_on(owner)?;
        let everyone = (IDEMPOTENT + PLAIN + TRANSACTIONAL) as usize;
        self.until("every producer to be acknowledged", |stage| {
            stage.settled.lock().len() == everyone
        })?;
        self.until_serving(owner)?;
        self.audit(Source::Owner(owner))?;
        // Handed over with an upload of all there is: then the bucket alone must have everything.
        self.stage.wishes[owner].gentle.store(true, Ordering::Relaxed);
        self.stage.wishes[owner].own.store(false, Ordering::Relaxed);
        let closed = |stage: &Stage| stage.history.count("close") > 0 && !stage.serves(owner);
        self.until("the owner to close", closed)?;
        self.let_pass(Duration::from_secs(4))?;
        self.audit(Source::Bucket)?;
        let next = 1 - owner;
        self.stage.wishes[next].own.store(true, Ordering::Relaxed);
        self.until_serving(next)?;
        self.audit(Source::Owner(next))
    }

    /// A takeover that began before all was healed comes to its end, and `owner` takes over after it: from
    /// here on nobody believes wrongly that the volumes are its own.
    fn settle_on(&mut self, owner: usize) -> turmoil::Result {
        let idle =
            |host: usize| move |stage: &Stage| !stage.wishes[host].busy.load(Ordering::Relaxed);
        self.until("the other to let go", idle(1 - owner))?;
        self.stage.wishes[owner].own.store(false, Ordering::Relaxed);
        self.until("the owner to let go", idle(owner))?;
        self.stage.wishes[owner].own.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn until_serving(&mut self, host: usize) -> turmoil::Result {
        self.until("the new owner to serve", |stage| stage.serves(host))
    }

    fn step(&mut self) -> turmoil::Result {
        self.stage.history.at(self.sim.elapsed());
        self.sim.step()?;
        for (volume, device) in self.stage.devices.iter().enumerate() {
            if let Some(trim) = device.trim_on_disk() {
                self.stage.objects.lock().trimmed(volume as u32, trim.0);
            }
        }
        if self.stage.history.is_violated() { Err("a violation".into()) } else { Ok(()) }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Stage) -> bool) -> turmoil::Result {
        let end = self.sim.elapsed() + PATIENCE;
        while !done(&self.stage) {
            if self.sim.elapsed() > end {
                return Err(format!("waited {PATIENCE:?} in vain for {what}").into());
            }
            self.step()?;
        }
        Ok(())
    }

    fn let_pass(&mut self, time: Duration) -> turmoil::Result {
        let end = self.sim.elapsed() + time;
        while self.sim.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    fn audit(&mut self, from: Source) -> turmoil::Result {
        self.audits += 1;
        let stage = Arc::clone(&self.stage);
        self.sim.client(format!("auditor-{}", self.audits), host::audit(stage, from));
        let before = u64::from(self.audits - 1);
        self.until("an audit", |stage| stage.history.count("audit") > before)
    }
}
