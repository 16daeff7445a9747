//! The coordinators of groups, share groups and transactions, while their volume is here: the catalog's first.
//! They are made anew from its log at each take, and closed when it goes. Their volume does not wait for them: while they
//! load they answer COORDINATOR_LOAD_IN_PROGRESS. When they are not here, requests meet a set that
//! was closed from the start and answers NOT_COORDINATOR (share fetches: NOT_LEADER_OR_FOLLOWER).

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use sluice_catalog::Catalog;
use sluice_model::{Clock, Entropy, VolumeId};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::coordinator_log::{VolumeLog, largest_append};
use crate::coordinator_state::{GROUP_KINDS, SharedLogState};
use crate::group::log::CoordinatorLog;
use crate::group::{GroupConfig, GroupCoordinator};
use crate::metrics::WriterMetrics;
use crate::recovery::Surroundings;
use crate::share::{LeaderEpochOf, SHARE_KINDS, Shares};
use crate::topics::CatalogTopics;
use crate::transaction::{TransactionConfig, TransactionCoordinator, record};
use crate::volume_handle::OwnedVolume;
use crate::writer::{CatalogProducerIds, Inner, WriterMarkers};

/// The pause after a load that failed; each is twice the one before, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One of each kind; those of one volume and one epoch.
#[derive(Clone)]
pub(crate) struct CoordinatorSet {
    pub(crate) groups: Arc<GroupCoordinator>,
    pub(crate) shares: Arc<Shares>,
    pub(crate) transactions: Arc<TransactionCoordinator>,
}

/// What sets are made with.
pub(crate) struct CoordinatorParts {
    pub(crate) catalog: Catalog,
    pub(crate) groups: GroupConfig,
    pub(crate) transactions: TransactionConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) metrics: WriterMetrics,
}

/// Who answers now.
pub(crate) struct Coordinators {
    parts: CoordinatorParts,
    closed: CoordinatorSet,
    here: RwLock<Here>,
}

#[derive(Default)]
struct Here {
    /// Grows when they are to be here, and when they are not any more: what an older task brings is dropped.
    turn: u64,
    set: Option<CoordinatorSet>,
}

impl CoordinatorParts {
    /// A set that is still loading, whose largest records fit into an append of `largest` bytes.
    fn make(&self, largest: usize, leader_epoch: LeaderEpochOf) -> CoordinatorSet {
        let Self { catalog, groups, transactions, clock, entropy, metrics } = self;
        let max_group_bytes = groups.max_group_bytes.min(largest);
        let groups = GroupConfig { max_group_bytes, ..groups.clone() };
        let topics = Arc::new(CatalogTopics(catalog.clone()));
        let shares = Arc::new(Shares::new(
            groups.share.clone(),
            Arc::clone(&topics) as _,
            Arc::new(catalog.clone()),
            leader_epoch,
            metrics.shares.clone(),
        ));
        let groups = Arc::new(GroupCoordinator::new(
            groups,
            Arc::clone(clock),
            Arc::clone(entropy),
            topics,
            Arc::new(catalog.clone()),
        ));
        let transactions = Arc::new(TransactionCoordinator::new(
            transactions.clone().within(largest),
            Arc::clone(clock),
            Arc::new(CatalogProducerIds(catalog.clone())),
            metrics.transactions.clone(),
        ));
        CoordinatorSet { groups, shares, transactions }
    }
}

impl CoordinatorSet {
    /// Answers all that waits, and refuses what comes.
    fn close(&self) {
        self.transactions.close();
        self.groups.close();
        self.shares.close();
    }
}

impl Coordinators {
    /// None is here.
    pub(crate) fn new(parts: CoordinatorParts) -> Self {
        let closed = parts.make(usize::MAX, Arc::new(|_| -1));
        closed.close();
        Self { parts, closed, here: RwLock::default() }
    }

    /// Those that answer requests now.
    pub(crate) fn current(&self) -> CoordinatorSet {
        self.here().unwrap_or_else(|| self.closed.clone())
    }

    /// Those whose volume is here.
    pub(crate) fn here(&self) -> Option<CoordinatorSet> {
        self.here.read().set.clone()
    }

    /// Those that were here are no more.
    pub(crate) fn stop(&self) {
        self.next(None);
    }

    /// A new turn, in which `set` is here.
    fn next(&self, set: Option<CoordinatorSet>) -> u64 {
        // Closed not under the lock: that asks every group.
        let (turn, gone) = {
            let mut here = self.here.write();
            here.turn += 1;
            (here.turn, std::mem::replace(&mut here.set, set))
        };
        if let Some(gone) = gone {
            gone.close();
        }
        turn
    }

    /// Puts another set, which is still loading, in the place of the one of this turn; false when the turn is over.
    fn replace(&self, turn: u64, set: CoordinatorSet) -> bool {
        let mut here = self.here.write();
        let is_turn = here.turn == turn;
        if is_turn {
            here.set = Some(set);
        }
        is_turn
    }
}

impl Inner {
    /// Whether the coordinators' state lies on the volume. Ids only grow, so it is always the same one.
    pub(crate) fn has_coordinators(&self, id: VolumeId) -> bool {
        self.around.catalog.first_volume().is_some_and(|first| first.spec.id == id)
    }

    /// Has the coordinators here from now on: they load until their log is read back, on a task of their own, and then
    /// answer. Their volume is served already. What is given becomes true then, or is dropped when they are not to be here any more.
    pub(crate) fn begin_coordinators(
        self: &Arc<Self>,
        volume: &Arc<OwnedVolume>,
    ) -> oneshot::Receiver<()> {
        let set = self.make_coordinators(volume);
        let turn = self.coordinators.next(Some(set.clone()));
        let (loaded, is_loaded) = oneshot::channel();
        let loading = Loading {
            inner: Arc::downgrade(self),
            around: self.around.clone(),
            volume: Arc::downgrade(volume),
            turn,
        };
        tokio::spawn(async move {
            if loading.run(set).await {
                // Who waited may have gone away.
                let _ = loaded.send(());
            }
        });
        is_loaded
    }

    fn make_coordinators(self: &Arc<Self>, volume: &Arc<OwnedVolume>) -> CoordinatorSet {
        let inner = Arc::downgrade(self);
        let leader_epoch = move |stream| {
            let inner = inner.upgrade();
            // A stream of another node has the one that the catalog says.
            let epoch = inner.and_then(|inner| {
                let here = inner.leader_epoch(stream);
                here.or_else(|| inner.around.catalog.leader_epoch(stream))
            });
            epoch.unwrap_or(-1)
        };
        self.coordinators.parts.make(largest_append(volume), Arc::new(leader_epoch))
    }

    /// From now on they answer: markers are written at once. False if it is not their turn any more.
    fn start_coordinators(
        self: &Arc<Self>,
        turn: u64,
        set: &CoordinatorSet,
        log: Arc<dyn CoordinatorLog>,
        epoch: i32,
    ) -> bool {
        // Held, so that they are not closed before they have started.
        let here = self.coordinators.here.read();
        if here.turn != turn {
            return false;
        }
        set.groups.start(Arc::clone(&log));
        set.shares.start(Arc::clone(&log));
        let markers = WriterMarkers::new(self, &set.groups);
        set.transactions.start(log, Arc::new(markers), epoch);
        true
    }

    /// Ends them if they live on the volume.
    pub(crate) fn stop_coordinators(&self, id: VolumeId) {
        if self.has_coordinators(id) {
            self.coordinators.stop();
        }
    }
}

/// Coordinators that are not ready yet.
struct Loading {
    inner: Weak<Inner>,
    around: Surroundings,
    volume: Weak<OwnedVolume>,
    turn: u64,
}

impl Loading {
    /// Tries until it succeeds: what cannot be read now, from the bucket or the device, may be readable later, and the
    /// volume's streams need not wait for it. False if there is nobody to load for any more.
    async fn run(self, mut set: CoordinatorSet) -> bool {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(volume) = self.volume.upgrade() else { return false };
            let state = SharedLogState::new(vec![
                (GROUP_KINDS, Arc::clone(&set.groups) as _),
                (SHARE_KINDS, Arc::clone(&set.shares) as _),
                (record::KINDS, Arc::clone(&set.transactions) as _),
            ]);
            let epoch = volume.leader_epoch();
            let opened = VolumeLog::open(&volume, &self.around, Arc::new(state)).await;
            drop(volume);
            let Some(inner) = self.inner.upgrade() else { return false };
            let error = match opened {
                Ok(log) => {
                    let took_ms = begun.elapsed().as_millis();
                    let started = inner.start_coordinators(self.turn, &set, log, epoch);
                    if started {
                        tracing::info!(
                            took_ms,
                            "coordinators of groups and transactions are ready"
                        );
                    }
                    return started;
                }
                Err(error) => error,
            };
            let Some(volume) = self.volume.upgrade() else { return false };
            // What was applied of the log before it failed is not to be applied twice.
            set = inner.make_coordinators(&volume);
            if !inner.coordinators.replace(self.turn, set.clone()) {
                return false;
            }
            tracing::warn!(%error, "coordinators of groups and transactions cannot be loaded; trying again");
            drop((volume, inner));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// How many groups, members and share sessions there are, counted when somebody asks; nothing while they are
/// another writer's.
pub(crate) struct Census(pub(crate) Weak<Inner>);

impl fmt::Debug for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Census")
    }
}

impl Collector for Census {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let here = self.0.upgrade().and_then(|inner| inner.coordinators.here());
        let Some(here) = here else { return Ok(()) };
        here.groups.encode_census(&mut encoder)?;
        here.shares.encode_census(&mut encoder)
    }
}
