//! Producers and consumers of many tenants in this process. Each tenant has a [`Load`] of its own: a topic, perhaps
//! credentials, a pace, statistics, and a run number, so that a record of one that another reads is foreign to it.
//!
//! What the tenants have done comes to the load of the run by [`Books::gather`], and is kept by tenant and phase.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use parking_lot::Mutex;
use sluice_wire::Str;

use super::{Failure, Hands, Produced, Share};
use crate::client::{Account, CallError, Cluster};
use crate::load::{Load, Plan};
use crate::pace::Segment;
use crate::report::{Moved, Summary, TenantClass, Worst};
use crate::stamp::Payloads;
use crate::stats::{Counts, Latencies, Stats};
use crate::verify::{Findings, Written};
use crate::workload::Class;

/// Topics that are made or deleted at the same time.
const AT_ONCE: usize = 16;
/// Making a topic takes its time among many others.
const TOPIC_LIMIT: Duration = Duration::from_secs(120);

/// The clients of all tenants.
pub(crate) struct Tenants {
    books: Arc<Books>,
    hands: Vec<Hands>,
    /// What each tenant's producers have written, at their end.
    written: Vec<Vec<Written>>,
}

/// What is known of all tenants.
#[derive(Debug)]
pub(crate) struct Books {
    /// The load of the run, to which everything is added.
    load: Arc<Load>,
    classes: Vec<Class>,
    tenants: Vec<Tenant>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Tenant {
    name: String,
    class: usize,
    load: Arc<Load>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By phase and tenant; counts go to the last.
    phases: Vec<Vec<Record>>,
}

/// What a tenant has done in a phase.
#[derive(Clone, Debug, Default)]
struct Record {
    counts: Counts,
    produce: Latencies,
    end_to_end: Latencies,
}

impl Books {
    /// Makes a topic for each tenant. `load` is the run's, which needs none. Nothing is left behind where that
    /// fails.
    pub(crate) async fn open(
        load: &Arc<Load>,
        plan: &Plan,
        accounts: &[Account],
    ) -> Result<Arc<Self>, CallError> {
        let classes = load.workload.tenants.as_ref().map(|tenants| tenants.all());
        let classes = classes.unwrap_or_default();
        let mut wanted = Vec::new();
        for (class, Class { name, count, .. }) in classes.iter().enumerate() {
            for number in 0..*count {
                let account = accounts.get(wanted.len());
                let own = account.map(|account| account.name.clone());
                wanted.push((class, own.unwrap_or_else(|| format!("{name}-{number}")), account));
            }
        }
        // Collected: a closure with borrows must not live across the wait.
        let made: Vec<_> = wanted
            .into_iter()
            .enumerate()
            .map(|(index, (class, name, account))| async move {
                let load = tenant(load, plan, index, account).await?;
                Ok::<_, CallError>(Tenant { name, class, load: Arc::new(load) })
            })
            .collect();
        let made: Vec<Result<Tenant, CallError>> =
            stream::iter(made).buffered(AT_ONCE).collect().await;
        let (mut tenants, mut failed) = (Vec::new(), None);
        for one in made {
            match one {
                Ok(tenant) => tenants.push(tenant),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        let books = Self { load: Arc::clone(load), classes, tenants, kept: Mutex::default() };
        match failed {
            None => Ok(Arc::new(books)),
            Some(error) => {
                books.delete_topics().await;
                Err(error)
            }
        }
    }

    /// Deletes all tenants' topics; what cannot be is noted.
    pub(crate) async fn delete_topics(&self) {
        let client_id = &Str::from_static("loadtest");
        let deleted: Vec<_> =
            self.tenants.iter().map(|tenant| tenant.load.delete_topic(client_id)).collect();
        let mut deleted = stream::iter(deleted).buffer_unordered(AT_ONCE);
        while let Some(outcome) = deleted.next().await {
            if let Err(error) = outcome {
                self.load.noted(error.to_string());
            }
        }
    }

    /// Brings what all have done to the load of the run.
    pub(crate) fn gather(&self) {
        let mut kept = self.kept.lock();
        let phase = kept.phases.len().checked_sub(1);
        let (mut outstanding, mut arrived) = (0, 0);
        for (index, Tenant { load, .. }) in self.tenants.iter().enumerate() {
            outstanding += load.outstanding.load(Ordering::Relaxed);
            arrived += load.arrived.load(Ordering::Relaxed);
            let (second, phases) = (load.stats.take_second(), load.stats.take_phases());
            self.load.stats.merge(&second, &phases);
            if let Some(phase) = phase {
                kept.phases[phase][index].counts.add(&second.counts);
            }
            for (phase, kinds) in phases {
                if let Some(record) = kept.phases.get_mut(phase).map(|all| &mut all[index]) {
                    record.produce.add(&kinds.produce);
                    record.end_to_end.add(&kinds.end_to_end);
                }
            }
            for failure in load.failures.lock().drain() {
                self.load.noted(failure);
            }
        }
        self.load.outstanding.store(outstanding, Ordering::Relaxed);
        self.load.arrived.store(arrived, Ordering::Relaxed);
    }

    /// What each class has done in a phase that took so long.
    pub(crate) fn classes(&self, phase: usize, seconds: f64) -> Vec<TenantClass> {
        let kept = self.kept.lock();
        let Some(records) = kept.phases.get(phase) else { return Vec::new() };
        let classes = self.classes.iter().enumerate().map(|(index, class)| {
            let mut sum = Record::default();
            let mut worst: Option<Worst> = None;
            let own = self.tenants.iter().zip(records).filter(|(tenant, _)| tenant.class == index);
            for (tenant, record) in own {
                sum.counts.add(&record.counts);
                sum.produce.add(&record.produce);
                sum.end_to_end.add(&record.end_to_end);
                let p99 = |all: &Latencies| (all.count() > 0).then(|| all.percentile_ms(99.0));
                let one = Worst {
                    tenant: tenant.name.clone(),
                    produce_p99: p99(&record.produce),
                    end_to_end_p99: p99(&record.end_to_end),
                };
                if worst.as_ref().is_none_or(|worst| one.produce_p99 > worst.produce_p99) {
                    worst = Some(one);
                }
            }
            TenantClass {
                name: class.name.clone(),
                tenants: class.count,
                written: Moved::new(sum.counts.written, sum.counts.written_bytes, seconds),
                read: Moved::new(sum.counts.read, sum.counts.read_bytes, seconds),
                produce: Summary::new(&sum.produce),
                end_to_end: Summary::new(&sum.end_to_end),
                worst,
            }
        });
        classes.collect()
    }
}

/// A tenant's load, with its topic.
async fn tenant(
    run: &Load,
    plan: &Plan,
    index: usize,
    account: Option<&Account>,
) -> Result<Load, CallError> {
    let own = index as u64;
    let plan = Plan {
        bootstrap: plan.bootstrap.clone(),
        topic: format!("{}-{index}", plan.topic),
        run: plan.run.wrapping_add(own),
        seed: plan.seed.wrapping_add(own),
    };
    let credentials = account.map(|account| account.credentials.clone());
    let cluster = Cluster::new(&plan.bootstrap, credentials);
    let connection = cluster.any(&Str::from_static("loadtest")).await?;
    let topic = &run.workload.topic;
    let leaders = cluster.create(&connection, &plan.topic, topic, TOPIC_LIMIT).await?;
    let (workload, timeline) = (run.workload.clone(), run.timeline.clone());
    Ok(Load {
        // There are many, and each has few clients.
        stats: Stats::new(1),
        outages: Arc::clone(&run.outages),
        ..Load::new(workload, &plan, timeline, cluster, leaders)
    })
}

impl Tenants {
    pub(crate) fn new(books: Arc<Books>) -> Self {
        let hands =
            books.tenants.iter().map(|tenant| Hands::new(Arc::clone(&tenant.load), Share::ALL));
        Self { hands: hands.collect(), written: Vec::new(), books }
    }

    pub(crate) fn books(&self) -> &Arc<Books> {
        &self.books
    }

    pub(crate) async fn start_producers(&mut self) -> Result<(), Failure> {
        let payloads = Payloads::of(&self.books.load);
        let hands = self.hands.iter_mut();
        let starting: Vec<_> = hands.map(|hands| hands.start_producers(payloads.clone())).collect();
        let mut starting = stream::iter(starting).buffer_unordered(AT_ONCE);
        while let Some(started) = starting.next().await {
            started?;
        }
        Ok(())
    }

    pub(crate) fn start_consumers(&mut self) {
        self.hands.iter_mut().for_each(Hands::start_consumers);
    }

    pub(crate) fn consumers(&self) -> usize {
        self.hands.iter().map(Hands::consumers).sum()
    }

    pub(crate) fn begin_phase(&self, at_us: u64) {
        self.hands.iter().for_each(|hands| hands.begin_phase(at_us));
        self.books.load.stats.begin_phase(at_us);
        let mut kept = self.books.kept.lock();
        kept.phases.push(vec![Record::default(); self.hands.len()]);
    }

    /// Another rate over all tenants, in a stage: each gets its own.
    pub(crate) fn set(&self, segment: Segment, stage: &str) {
        let Books { load, classes, tenants, .. } = &*self.books;
        for (hands, tenant) in self.hands.iter().zip(tenants) {
            let tempo = load.workload.tempo_of(&classes[tenant.class], stage, segment.tempo);
            hands.set(Segment { tempo, ..segment });
        }
    }

    /// Comes back when a client has ended, with the reason. May be dropped at any time.
    pub(crate) async fn failed(&mut self) -> Result<String, Failure> {
        let failing = self.hands.iter_mut().zip(&self.books.tenants);
        let mut failing: FuturesUnordered<_> = failing
            .map(|(hands, tenant)| async move {
                hands.failed().await.map(|reason| format!("tenant {}: {reason}", tenant.name))
            })
            .collect();
        match failing.next().await {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    pub(crate) async fn end_producers(&mut self, limit: Duration) -> Result<Produced, Failure> {
        let ending: Vec<_> =
            self.hands.iter_mut().map(|hands| hands.end_producers(limit)).collect();
        let mut all = Produced::default();
        for ended in futures_util::future::join_all(ending).await {
            let ended = ended?;
            self.written.push(ended.written.clone());
            all.add(ended);
        }
        Ok(all)
    }

    /// Gives all failures.
    pub(crate) async fn end_consumers(&mut self, limit: Duration) -> Result<Vec<String>, Failure> {
        let ending: Vec<_> =
            self.hands.iter_mut().map(|hands| hands.end_consumers_at_last(limit)).collect();
        let ended = futures_util::future::join_all(ending).await;
        let failures = ended.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(failures.into_iter().flatten().collect())
    }

    /// Each tenant is held against what was written to it alone.
    pub(crate) fn verify(&mut self) -> (bool, Findings) {
        let (mut is_complete, mut findings) = (true, Findings::default());
        for (hands, written) in self.hands.iter_mut().zip(&self.written) {
            let (complete, found) = hands.verify(written);
            is_complete &= complete;
            findings.add(found);
        }
        (is_complete, findings)
    }

    pub(crate) fn abandon(&self) {
        self.hands.iter().for_each(Hands::abandon);
    }
}

#[cfg(test)]
mod tests;
