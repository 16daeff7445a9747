//! Nodes: who is alive, and where clients reach it.
//!
//! A registration is a key under a lease, which a task keeps alive. It ends with the process, or when
//! another process registers under the same node id: that is how a restarted node takes its place back
//! at once, without waiting for the lease of its former life.
//!
//! A node knows by its own clock until when its lease cannot have ended ([`Tenure`]): what must not outlive the lease
//! stops then, whether or not the store answers.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_model::{NodeId, TopicId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::catalog::Catalog;
use crate::follower::backoff;
use crate::layout::{self, NodeRecord};
use crate::steering::NodeHandle;
use crate::store::{LeaseId, Outcome, StoreError, Txn};

/// What a node tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// The broker id that clients see.
    pub id: NodeId,
    /// The host that clients are told.
    pub kafka_host: String,
    /// The port that clients are told.
    pub kafka_port: u16,
    /// Where it stands, as Kafka's `broker.rack`.
    pub rack: Option<String>,
    /// Where other nodes reach it; `None` if they cannot.
    pub peer: Option<PeerAddress>,
    /// What it does.
    pub roles: Roles,
}

/// Where the nodes of a cluster reach one of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerAddress {
    /// A name or an address.
    pub host: String,
    /// Of the listener for nodes.
    pub port: u16,
}

/// What a node does. A node may do all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Clients connect to it.
    pub gateway: bool,
    /// It owns volumes, and reads what is in the bucket of their streams.
    pub writer: bool,
}

impl Roles {
    /// All of them, as in a process that is a cluster of its own.
    pub const ALL: Self = Self { gateway: true, writer: true };
}

impl Default for Roles {
    fn default() -> Self {
        Self::ALL
    }
}

/// A live node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it tells of itself.
    pub spec: NodeSpec,
    /// Tells one life of a node from the next: 32 hex digits.
    pub incarnation: String,
}

impl Node {
    pub(crate) fn from_record(id: NodeId, record: NodeRecord) -> Self {
        let NodeRecord { incarnation, kafka_host, kafka_port, rack, peer, roles } = record;
        Self { spec: NodeSpec { id, kafka_host, kafka_port, rack, peer, roles }, incarnation }
    }
}

/// Why a node was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Retry: the store.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// How a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationState {
    /// The others see this node.
    Live,
    /// The lease may have ended, or ends within a tenth of its time; it is being kept alive or taken again. The
    /// others may see this node as gone, and claim its volumes.
    Lapsed,
    /// Another process has registered under this node id: stop, and serve nothing more.
    Replaced,
}

/// What a lease is worth at its end: clocks differ, and what begins before the end takes some time.
const MARGIN_PART: u32 = 10;

/// How a node's lease stands by the node's own clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The store cannot have ended the lease before.
    until: Instant,
    /// Another number after each time that the lease may have ended.
    term: u64,
}

/// That a node's lease has not ended since a moment. Does not hold again once it has not.
#[derive(Clone, Debug)]
pub struct Tenure {
    standing: watch::Receiver<Standing>,
    term: u64,
}

impl Tenure {
    /// From now on.
    pub(crate) fn begin(standing: watch::Receiver<Standing>) -> Self {
        let term = standing.borrow().term;
        Self { standing, term }
    }

    /// Whether the lease cannot have ended, by this node's clock and less a tenth of it.
    pub fn holds(&self) -> bool {
        let standing = *self.standing.borrow();
        standing.term == self.term && Instant::now() < standing.until
    }
}

/// A node's registration. When it is dropped the lease is left to end by itself.
pub struct NodeRegistration {
    keeper: Keeper,
    lease: watch::Receiver<LeaseId>,
    state: watch::Receiver<RegistrationState>,
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

impl NodeRegistration {
    /// How it stands, to be watched.
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// What other parts of the process need of it.
    pub fn handle(&self) -> NodeHandle {
        NodeHandle {
            catalog: self.keeper.catalog.clone(),
            node: self.keeper.spec.id,
            incarnation: self.keeper.incarnation.clone(),
            lease: self.lease.clone(),
            ttl: self.keeper.ttl,
            state: self.state.clone(),
            standing: self.standing.clone(),
        }
    }

    /// Leaves: the others see at once that the node is gone.
    pub async fn deregister(self) -> Result<(), RegisterError> {
        self.task.abort();
        let lease = *self.lease.borrow();
        Ok(self.keeper.catalog.inner.store.revoke_lease(lease).await?)
    }
}

impl Drop for NodeRegistration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Catalog {
    /// Registers this process as a node, in the place of any other that has its id. The others see it
    /// as gone when it has not kept its lease alive for `ttl` (at least a second).
    pub async fn register_node(
        &self,
        spec: NodeSpec,
        ttl: Duration,
    ) -> Result<NodeRegistration, RegisterError> {
        let incarnation = TopicId(self.inner.entropy.random_16()).to_string();
        let keeper = Keeper { catalog: self.clone(), spec, incarnation, ttl };
        let began = Instant::now();
        let lease = keeper.register(true).await?.ok_or_else(|| {
            StoreError::Unavailable("a first registration replaces any other".to_owned())
        })?;
        let (lease_tx, lease) = watch::channel(lease);
        let (state_tx, state) = watch::channel(RegistrationState::Live);
        let first = Standing { until: keeper.sure_until(began), term: 0 };
        let (standing_tx, standing) = watch::channel(first);
        let told = Told { lease: lease_tx, state: state_tx, standing: standing_tx };
        let task = tokio::spawn(keeper.clone().run(told));
        Ok(NodeRegistration { keeper, lease, state, standing, task })
    }
}

/// What a keeper tells the others of its process.
struct Told {
    lease: watch::Sender<LeaseId>,
    state: watch::Sender<RegistrationState>,
    standing: watch::Sender<Standing>,
}

#[derive(Clone)]
struct Keeper {
    catalog: Catalog,
    spec: NodeSpec,
    incarnation: String,
    ttl: Duration,
}

impl Keeper {
    /// Puts the node's key under a new lease. `None` if the key is another incarnation's and `first`
    /// is false.
    async fn register(&self, first: bool) -> Result<Option<LeaseId>, StoreError> {
        let store = &self.catalog.inner.store;
        let lease = store.grant_lease(self.ttl).await?;
        let key = layout::node(self.spec.id);
        let record = layout::encode(&NodeRecord {
            incarnation: self.incarnation.clone(),
            kafka_host: self.spec.kafka_host.clone(),
            kafka_port: self.spec.kafka_port,
            rack: self.spec.rack.clone(),
            peer: self.spec.peer.clone(),
            roles: self.spec.roles,
        });
        loop {
            let txn = match store.get(&key).await? {
                None => Txn::new().if_absent(&key),
                Some(entry) => {
                    let other = layout::decode::<NodeRecord>(&key, &entry.value)
                        .map_or(true, |found| found.incarnation != self.incarnation);
                    if other && !first {
                        store.revoke_lease(lease).await?;
                        return Ok(None);
                    }
                    Txn::new().if_unchanged(&key, entry.mod_revision)
                }
            };
            let txn = txn.put_leased(&key, record.clone(), lease);
            if let Outcome::Committed(_) = self.catalog.commit(txn).await? {
                return Ok(Some(lease));
            }
        }
    }

    /// Until when a lease that was kept alive by a call that began then cannot have ended.
    fn sure_until(&self, began: Instant) -> Instant {
        began + self.ttl - self.ttl / MARGIN_PART
    }

    /// Keeps the lease alive at thirds of its time, until another incarnation is seen.
    async fn run(self, told: Told) {
        let mut failures = 0;
        loop {
            let pause = match failures {
                0 => self.ttl / 3,
                _ => backoff(failures, &*self.catalog.inner.entropy).min(self.ttl / 3),
            };
            let round = async {
                tokio::time::sleep(pause).await;
                (Instant::now(), self.keep(&told).await)
            };
            tokio::pin!(round);
            let is_live = *told.state.borrow() == RegistrationState::Live;
            let until = told.standing.borrow().until;
            // A call that does not come back must not hide that the time is up.
            let (began, kept) = tokio::select! {
                biased;
                () = tokio::time::sleep_until(until), if is_live => {
                    warn!(node = self.spec.id.0, "node lease not kept alive in time");
                    told.state.send_replace(RegistrationState::Lapsed);
                    round.await
                }
                kept = &mut round => kept,
            };
            match kept {
                Ok(Kept::Alive | Kept::Renewed) => {
                    failures = 0;
                    let renewed = matches!(kept, Ok(Kept::Renewed));
                    told.standing.send_modify(|standing| {
                        // It had not ended if this call began while it was sure to live.
                        if renewed || began >= standing.until {
                            standing.term += 1;
                        }
                        standing.until = self.sure_until(began);
                    });
                    told.state.send_if_modified(|state| {
                        std::mem::replace(state, RegistrationState::Live) != RegistrationState::Live
                    });
                }
                Ok(Kept::Replaced) => {
                    warn!(node = self.spec.id.0, "another process has registered as this node");
                    told.standing.send_modify(|standing| standing.term += 1);
                    told.state.send_replace(RegistrationState::Replaced);
                    return;
                }
                Err(error) => {
                    if failures == 0 {
                        warn!(%error, node = self.spec.id.0, "node lease not kept alive; retrying");
                    }
                    failures += 1;
                }
            }
        }
    }

    async fn keep(&self, told: &Told) -> Result<Kept, StoreError> {
        let held = *told.lease.borrow();
        let kept = match self.catalog.inner.store.keep_alive(held).await {
            Ok(()) => Kept::Alive,
            Err(StoreError::LeaseEnded) => {
                info!(node = self.spec.id.0, "node lease has ended; registering again");
                let Some(renewed) = self.register(false).await? else { return Ok(Kept::Replaced) };
                told.lease.send_replace(renewed);
                Kept::Renewed
            }
            Err(error) => return Err(error),
        };
        let seen: Option<Arc<Node>> = self.catalog.node(self.spec.id);
        match seen.is_none_or(|node| node.incarnation == self.incarnation) {
            true => Ok(kept),
            false => Ok(Kept::Replaced),
        }
    }
}

/// What became of a lease that was to be kept alive.
#[derive(Clone, Copy)]
enum Kept {
    /// It lives on.
    Alive,
    /// It had ended; the node has another one.
    Renewed,
    /// Another incarnation has the node's key.
    Replaced,
}
