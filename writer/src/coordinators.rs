//! The coordinators of groups, share groups and transactions, while their volume is here: the catalog's first.
//! They are made anew from its log at each take, and closed when it goes. In between, requests meet a set that
//! was closed from the start and answers NOT_COORDINATOR (share fetches: NOT_LEADER_OR_FOLLOWER).

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use sluice_catalog::Catalog;
use sluice_model::{Clock, Entropy, VolumeId};

use crate::coordinator_log::{VolumeLog, largest_append};
use crate::coordinator_state::{GROUP_KINDS, SharedLogState};
use crate::error::OpenError;
use crate::group::log::CoordinatorLog;
use crate::group::{GroupConfig, GroupCoordinator};
use crate::metrics::WriterMetrics;
use crate::share::{LeaderEpochOf, SHARE_KINDS, Shares};
use crate::topics::CatalogTopics;
use crate::transaction::{TransactionConfig, TransactionCoordinator, record};
use crate::volume_handle::OwnedVolume;
use crate::writer::{CatalogProducerIds, Inner, WriterMarkers};

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
    here: RwLock<Option<CoordinatorSet>>,
}

/// A set that has read its log back, and is not served yet.
pub(crate) struct Loaded {
    set: CoordinatorSet,
    log: Arc<dyn CoordinatorLog>,
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
        self.here.read().clone()
    }

    /// Those that were here are no more.
    pub(crate) fn stop(&self) {
        // Not under the lock: closing asks every group.
        let gone = self.here.write().take();
        if let Some(gone) = gone {
            gone.close();
        }
    }
}

impl Inner {
    /// Whether the coordinators' state lies on the volume. Ids only grow, so it is always the same one.
    pub(crate) fn has_coordinators(&self, id: VolumeId) -> bool {
        let volumes = self.around.catalog.volumes();
        volumes.first().is_some_and(|first| first.spec.id == id)
    }

    /// Reads the coordinators' state from their volume.
    pub(crate) async fn load_coordinators(
        self: &Arc<Self>,
        volume: &Arc<OwnedVolume>,
    ) -> Result<Loaded, OpenError> {
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
        let parts = &self.coordinators.parts;
        let set = parts.make(largest_append(volume), Arc::new(leader_epoch));
        let state = SharedLogState::new(vec![
            (GROUP_KINDS, Arc::clone(&set.groups) as _),
            (SHARE_KINDS, Arc::clone(&set.shares) as _),
            (record::KINDS, Arc::clone(&set.transactions) as _),
        ]);
        let log = VolumeLog::open(volume, &self.around, Arc::new(state)).await?;
        Ok(Loaded { set, log })
    }

    /// From now on they answer. Their volume is served already: markers are written at once.
    pub(crate) fn start_coordinators(self: &Arc<Self>, loaded: Loaded, epoch: i32) {
        let Loaded { set, log } = loaded;
        *self.coordinators.here.write() = Some(set.clone());
        set.groups.start(Arc::clone(&log));
        set.shares.start(Arc::clone(&log));
        let markers = WriterMarkers::new(self, &set.groups);
        set.transactions.start(log, Arc::new(markers), epoch);
    }

    /// Ends them if they live on the volume.
    pub(crate) fn stop_coordinators(&self, id: VolumeId) {
        if self.has_coordinators(id) {
            self.coordinators.stop();
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
