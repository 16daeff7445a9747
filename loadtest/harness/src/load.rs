//! What all producers and consumers of one load share.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use parking_lot::{Mutex, RwLock};
use sluice_wire::{ErrorCode, Str};

use crate::client::{CallError, Cluster, Leaders};
use crate::keys::Chooser;
use crate::outage::Outages;
use crate::pace::Pace;
use crate::stats::Stats;
use crate::timeline::Timeline;
use crate::workload::Workload;

/// Different kinds of failed requests that are told apart.
const MAX_FAILURES: usize = 50;

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
    pub(crate) outages: Outages,
    /// What failed and was repeated, in words.
    pub(crate) failures: Mutex<HashSet<String>>,
}

impl Load {
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
