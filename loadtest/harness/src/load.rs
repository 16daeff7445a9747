//! What all producers and consumers of one load share.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::{Mutex, RwLock};
use sluice_wire::{ErrorCode, Str};
use tokio::time::{Duration, Instant, sleep};

use crate::client::{Bound, CallError, Cluster, Leaders};
use crate::keys::Chooser;
use crate::outage::Outages;
use crate::pace::Pace;
use crate::stats::Stats;
use crate::timeline::Timeline;
use crate::workload::Workload;

/// Different kinds of failed requests that are told apart.
pub(crate) const MAX_FAILURES: usize = 50;
/// All servers know the topic after so long.
const JOIN_LIMIT: Duration = Duration::from_secs(60);
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Transactions are decided after so long, and leaders known again.
const ENDS_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// One load on one topic of one cluster.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) workload: Workload,
    pub(crate) cluster: Cluster,
    pub(crate) topic: Str,
    pub(crate) run: u64,
    pub(crate) seed: u64,
    pub(crate) timeline: Timeline,
    pub(crate) stats: Stats,
    pub(crate) pace: Pace,
    pub(crate) chooser: Chooser,
    pub(crate) leaders: RwLock<Arc<Leaders>>,
    /// Records that are made and not acknowledged, of all producers.
    pub(crate) outstanding: AtomicU64,
    /// Consumers that have passed the goal: see [`crate::consumer::Goal`].
    pub(crate) arrived: AtomicUsize,
    /// What came after each fault.
    pub(crate) outages: Arc<Outages>,
    /// What failed and was repeated, in words.
    pub(crate) failures: Mutex<HashSet<String>>,
}

/// Which load it is. The same wherever a part of it runs.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Addresses of the server, with commas.
    pub(crate) bootstrap: String,
    pub(crate) topic: String,
    /// Tells its records from those of all other runs.
    pub(crate) run: u64,
    /// What choices come from.
    pub(crate) seed: u64,
}

impl Load {
    /// A load on a topic that is there.
    pub(crate) fn new(
        workload: Workload,
        plan: &Plan,
        timeline: Timeline,
        cluster: Cluster,
        leaders: Leaders,
    ) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            chooser: Chooser::new(&workload.records),
            topic: Str::from(&plan.topic),
            run: plan.run,
            seed: plan.seed,
            timeline,
            stats: Stats::new(2 * cpus),
            pace: Pace::new(),
            leaders: RwLock::new(Arc::new(leaders)),
            outstanding: AtomicU64::new(0),
            arrived: AtomicUsize::new(0),
            outages: Arc::default(),
            failures: Mutex::default(),
            cluster,
            workload,
        }
    }

    /// A part of a load that another process has begun.
    pub(crate) async fn join(
        workload: Workload,
        plan: &Plan,
        timeline: Timeline,
    ) -> Result<Self, CallError> {
        let client_id = Str::from_static("loadtest");
        let cluster = Cluster::new(&plan.bootstrap, None);
        let until = Instant::now() + JOIN_LIMIT;
        loop {
            let met = async {
                let connection = cluster.any(&client_id).await?;
                cluster.leaders(&connection, &plan.topic).await
            };
            match met.await {
                Ok(leaders) if leaders.partitions.len() == workload.topic.partitions as usize => {
                    return Ok(Self::new(workload, plan, timeline, cluster, leaders));
                }
                Err(error) if !error.is_retriable() || Instant::now() > until => return Err(error),
                Ok(_) | Err(_) => sleep(RETRY_AFTER).await,
            }
        }
    }

    /// Who leads which partition, as last told.
    pub(crate) fn leaders(&self) -> Arc<Leaders> {
        Arc::clone(&self.leaders.read())
    }

    /// Asks who leads which partition.
    pub(crate) async fn refresh(&self, client_id: &Str) -> Result<(), CallError> {
        let connection = self.cluster.any(client_id).await?;
        let leaders = self.cluster.leaders(&connection, &self.topic).await?;
        if leaders.partitions.len() != self.workload.topic.partitions as usize {
            let code = ErrorCode::LeaderNotAvailable.code();
            return Err(CallError::refused("metadata without all partitions", code));
        }
        *self.leaders.write() = Arc::new(leaders);
        Ok(())
    }

    /// How far consumers shall come at last, and what has kept us from knowing it.
    pub(crate) async fn last_ends(&self) -> (Option<Vec<i64>>, Option<String>) {
        match self.decided_ends().await {
            Ok(ends) => (Some(ends), None),
            // A topic that nobody has deleted is gone: it holds nothing, and what it held is lost.
            Err(failure) if failure.is_unknown_topic() => {
                let ends = vec![0; self.workload.topic.partitions as usize];
                (Some(ends), Some(failure.to_string()))
            }
            // Where nobody knows the ends, the proof is not whole.
            Err(failure) => (None, Some(failure.to_string())),
        }
    }

    /// The ends of all partitions when every transaction is decided there: its end is answered before its
    /// markers are written (KIP-890), and until then nobody can read it.
    async fn decided_ends(&self) -> Result<Vec<i64>, CallError> {
        let until = Instant::now() + ENDS_LIMIT;
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
    pub(crate) async fn ends(&self, bound: Bound) -> Result<Vec<i64>, CallError> {
        let client_id = Str::from_static("loadtest");
        let until = Instant::now() + self.workload.produce.delivery_timeout.0.min(ENDS_LIMIT);
        loop {
            let leaders = self.leaders();
            match self.cluster.bounds(&client_id, &self.topic, &leaders, bound).await {
                Err(error) if error.is_retriable() && Instant::now() < until => {
                    self.repeated(0, error.to_string());
                    sleep(RETRY_AFTER).await;
                    if let Err(error) = self.refresh(&client_id).await {
                        self.repeated(0, error.to_string());
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Deletes the topic.
    pub(crate) async fn delete_topic(&self, client_id: &Str) -> Result<(), CallError> {
        let connection = self.cluster.any(client_id).await?;
        self.cluster.delete(&connection, &self.topic).await
    }

    /// Notes a failure that will be repeated.
    pub(crate) fn repeated(&self, client: usize, failure: String) {
        self.stats.shard(client).counts().retries += 1;
        self.noted(failure);
    }

    /// Notes a failure, once.
    pub(crate) fn noted(&self, failure: String) {
        let mut failures = self.failures.lock();
        if failures.len() < MAX_FAILURES {
            failures.insert(failure);
        }
    }
}
