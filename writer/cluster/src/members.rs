//! One process's part in the cluster, from its start to its leaving.
//!
//! # Shared files
//! Object volumes fence by create-if-absent, block devices by reservation, files of one host by their lock. A file
//! on a file system that several hosts share ([`VolumeSpec::is_shared_file`]) may have a lock that holds on each host
//! alone. Of these an owner serves none any more once its lease may have ended by its own clock
//! ([`sluice_catalog::Tenure`]), whether or not the store can be reached; and who claims one that was not given up
//! waits for a whole lease and a tenth after it has seen the owner go. All other volumes are served on while
//! the store is away.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluice_catalog::{Catalog, NodeHandle, NodeSpec, VolumeSpec};
use sluice_model::Clock;
use sluice_writer::{OpenError, TakeTerms, VolumePlace, Writer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::balancer;
use crate::keeper::{Command, Keeper};
use crate::load::{self, CpuTime};
use crate::metrics::ClusterMetrics;

/// How long others are told that a node leaves, at most; it leaves all the same.
const SAY_WITHIN: Duration = Duration::from_secs(1);

/// Says what a volume lies on, seen from this node; or why it cannot be said.
pub type Locate = Arc<dyn Fn(&VolumeSpec) -> Result<VolumePlace, String> + Send + Sync>;

/// How a node takes part.
#[derive(Clone, Debug)]
pub struct MembersOptions {
    /// It is a cluster of its own: there is no other, and it ends when nothing is left to serve.
    pub alone: bool,
    /// Whether this node may move volumes to even out what nodes carry, if it is elected.
    pub balance: bool,
    /// How long a volume that does not answer is waited for before the claim is given back and tried again.
    pub patience: Duration,
    /// How long a volume's tail is uploaded, with appends going on, before it is handed over.
    pub flush: Duration,
    /// How often a writer says what it carries.
    pub report_every: Duration,
    /// How often the balancer looks.
    pub balance_every: Duration,
}

impl Default for MembersOptions {
    fn default() -> Self {
        Self {
            alone: false,
            balance: true,
            patience: Duration::from_secs(30),
            flush: Duration::from_secs(10),
            report_every: Duration::from_secs(2),
            balance_every: Duration::from_secs(1),
        }
    }
}

/// What a node needs for it.
pub struct MembersParts {
    /// What it tells of itself.
    pub spec: NodeSpec,
    /// The cluster's metadata.
    pub catalog: Catalog,
    /// What takes and releases volumes.
    pub writer: Writer,
    /// The node's registration.
    pub node: NodeHandle,
    /// Where volumes lie.
    pub locate: Locate,
    /// How it takes part.
    pub options: MembersOptions,
    /// Wall-clock time, for what is told to people.
    pub clock: Arc<dyn Clock>,
    /// What processors this process has used since its start, if that can be asked.
    pub cpu: Option<CpuTime>,
    /// Counters, registered by the caller.
    pub metrics: ClusterMetrics,
}

/// Why a process may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is alone, nothing is served, and nothing could be taken.
    NothingLeft,
    /// A volume has a newer owner than the catalog knows: the cluster was restored or started elsewhere, and what
    /// is acknowledged here would be lost.
    Foreign,
    /// Another process has registered as this node.
    Replaced,
}

impl End {
    /// For whoever looks why the process has ended.
    pub fn message(self) -> &'static str {
        match self {
            Self::NothingLeft => {
                "all volumes were lost: other owners have them, or their logs cannot go on"
            }
            Self::Foreign => {
                "a volume has a newer owner that this catalog does not know: was the cluster restored or started \
                 elsewhere?"
            }
            Self::Replaced => "another process has registered under this node id",
        }
    }
}

/// Why a node that is a cluster of its own does not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not known where a volume lies.
    #[error("{0}")]
    Unlocated(String),
    /// A volume cannot be taken.
    #[error(transparent)]
    Take(#[from] OpenError),
}

/// A node's part in the cluster. It ends when this is dropped; the volumes stay the writer's.
pub struct Members {
    parts: Arc<MembersParts>,
    commands: mpsc::UnboundedSender<Command>,
    end: watch::Receiver<Option<End>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Members {
    /// Takes what this node should have and takes part from then on. Returns when each of these volumes was taken, or
    /// could not be at the first try; it goes on trying.
    ///
    /// A node that is alone takes every volume, waiting for the bucket however long it takes.
    ///
    /// # Errors
    /// Only if it is alone: a volume cannot be taken. Then none is.
    pub async fn start(parts: MembersParts) -> Result<Self, StartError> {
        if parts.options.alone {
            take_all(&parts).await?;
        }
        let parts = Arc::new(parts);
        let (commands, queue) = mpsc::unbounded_channel();
        let (say_end, end) = watch::channel(None);
        let (say_settled, mut settled) = watch::channel(false);
        let keeper = Keeper::new(Arc::clone(&parts), queue, say_settled);
        let keeper = tokio::spawn(async move {
            let end = keeper.run().await;
            say_end.send_replace(Some(end));
        });
        let mut tasks = vec![keeper.abort_handle()];
        if !parts.options.alone {
            tasks.push(tokio::spawn(load::report(Arc::clone(&parts))).abort_handle());
            tasks.push(tokio::spawn(balancer::run(Arc::clone(&parts))).abort_handle());
        }
        let members = Self { parts, commands, end, tasks: Mutex::new(tasks) };
        // If it has ended instead, `ended` says why.
        let _ = settled.wait_for(|settled| *settled).await;
        Ok(members)
    }

    /// Returns when the process may not go on.
    pub async fn ended(&self) -> End {
        let mut end = self.end.clone();
        loop {
            if let Some(end) = *end.borrow_and_update() {
                return end;
            }
            if end.changed().await.is_err() {
                // The keeper is gone without a word: nothing decides any more.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Hands over all volumes that another writer can have, side by side, and takes no more. Returns when they are given
    /// up, or at `until`. What is left is for the caller to close. The process may go on; it gets
    /// nothing any more.
    pub async fn leave(&self, until: Instant) {
        if self.parts.options.alone {
            return;
        }
        let say = tokio::time::timeout(SAY_WITHIN, self.parts.node.leave());
        match say.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "the others were not told that this node leaves");
            }
            Err(_) => tracing::warn!("the others could not be told in time that this node leaves"),
        }
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave { until, done }).is_ok() {
            let _ = tokio::time::timeout_at(until, left).await;
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(AbortHandle::abort);
    }
}

/// Takes every volume side by side, waiting for as long as it takes; if one cannot be taken none is.
async fn take_all(parts: &MembersParts) -> Result<(), StartError> {
    let mut takes = JoinSet::new();
    for volume in parts.catalog.volumes() {
        let place = (parts.locate)(&volume.spec).map_err(StartError::Unlocated)?;
        let writer = parts.writer.clone();
        let terms = TakeTerms::patient(Duration::MAX);
        takes.spawn(async move { Box::pin(writer.take_on(&place, terms)).await });
    }
    while let Some(taken) = takes.join_next().await {
        let failed = match taken {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.cause,
            Err(gone) => OpenError::Contradiction { volume: 0, why: gone.to_string() },
        };
        // The others may wait for ever.
        takes.abort_all();
        parts.writer.close(Duration::ZERO).await;
        return Err(failed.into());
    }
    Ok(())
}
