//! What steers who owns which volume: what each writer carries, which nodes shall own nothing, who moves volumes, whether
//! anybody does, and why the last ones were moved.
//!
//! Here is only what the store keeps of it; who decides what is said in `sluice_cluster`. Loads and the
//! balancer live under the leases of their nodes, so nothing of a dead node is ever believed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_model::{NodeId, VolumeId};
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::layout::{
    self, BadRecord, BalanceRecord, BalancerRecord, DecisionsRecord, DrainRecord, Key,
};
use crate::nodes::{RegistrationState, Standing, Tenure};
use crate::store::{Entry, LeaseId, Outcome, StoreError, Txn};

/// So many of the balancer's decisions are kept.
pub const DECISIONS_KEPT: usize = 50;

/// What a writer carries, as it says itself now and then.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Bytes of batches that became durable, a second.
    pub in_bytes: u64,
    /// Bytes given to clients, a second.
    pub out_bytes: u64,
    /// Batches and fetches, a second.
    pub requests: u64,
    /// Of all processors, in thousandths.
    pub cpu_permille: u32,
    /// Bytes a second of each volume that it serves, in and out.
    pub volumes: BTreeMap<VolumeId, u64>,
    /// Counts the reports of one life of a node: one that stands still is old.
    pub sequence: u64,
}

/// A node that shall own nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// An operator said so: it holds until it is taken back.
    Told,
    /// It is about to end.
    Leaving,
}

/// A volume that was moved, or not, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Wall time, ms since the epoch.
    pub at_ms: i64,
    /// The volume.
    pub volume: VolumeId,
    /// Its owner then.
    pub from: NodeId,
    /// Who shall have it.
    pub to: NodeId,
    /// For people.
    pub why: String,
}

/// What of it a view holds.
#[derive(Default)]
pub(crate) struct Steering {
    loads: BTreeMap<NodeId, Arc<NodeLoad>>,
    drains: BTreeMap<NodeId, Drain>,
    balancer: Option<(NodeId, String)>,
    /// None if nobody has said anything.
    balance: Option<bool>,
}

impl Steering {
    /// Takes what a key says; nothing happens if the key is none of these.
    pub(crate) fn put(&mut self, key: &Key<'_>, entry: &Entry) -> Result<(), BadRecord> {
        let Entry { key: name, value, .. } = entry;
        match key {
            Key::Load(node) => {
                self.loads.insert(*node, Arc::new(layout::decode(name, value)?));
            }
            Key::Drain(node) => {
                let record: DrainRecord = layout::decode(name, value)?;
                let drain = if record.leaving { Drain::Leaving } else { Drain::Told };
                self.drains.insert(*node, drain);
            }
            Key::Balancer => {
                let record: BalancerRecord = layout::decode(name, value)?;
                self.balancer = Some((record.node, record.incarnation));
            }
            Key::Balance => {
                self.balance = Some(layout::decode::<BalanceRecord>(name, value)?.on);
            }
            _ => {}
        }
        Ok(())
    }

    /// Forgets what a key said.
    pub(crate) fn remove(&mut self, key: &Key<'_>) {
        match key {
            Key::Load(node) => drop(self.loads.remove(node)),
            Key::Drain(node) => drop(self.drains.remove(node)),
            Key::Balancer => self.balancer = None,
            Key::Balance => self.balance = None,
            _ => {}
        }
    }

    /// Every key that it holds something of.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.loads.keys().map(|node| layout::load(*node)).collect();
        keys.extend(self.drains.keys().map(|node| layout::drain(*node)));
        keys.extend(self.balancer.as_ref().map(|_| layout::BALANCER.to_owned()));
        keys.extend(self.balance.map(|_| layout::BALANCE.to_owned()));
        keys
    }
}

impl Catalog {
    /// What each live writer carries, as it said last.
    pub fn loads(&self) -> BTreeMap<NodeId, Arc<NodeLoad>> {
        self.inner.shared.view.read().steering().loads.clone()
    }

    /// Which nodes shall own nothing.
    pub fn drains(&self) -> BTreeMap<NodeId, Drain> {
        self.inner.shared.view.read().steering().drains.clone()
    }

    /// The node that moves volumes, if one is elected.
    pub fn balancer(&self) -> Option<NodeId> {
        self.inner.shared.view.read().steering().balancer.as_ref().map(|(node, _)| *node)
    }

    /// Whether volumes are moved to even out what nodes carry; they are unless somebody said no.
    pub fn is_balancing(&self) -> bool {
        self.inner.shared.view.read().steering().balance.unwrap_or(true)
    }

    /// Says whether volumes are moved to even out what nodes carry.
    pub async fn set_balancing(&self, on: bool) -> Result<(), StoreError> {
        let record = layout::encode(&BalanceRecord { on });
        self.commit(Txn::new().put(layout::BALANCE, record)).await.map(drop)
    }

    /// Says that a node shall own nothing, until [`Self::undrain_node`].
    pub async fn drain_node(&self, node: NodeId) -> Result<(), StoreError> {
        let record = layout::encode(&DrainRecord { leaving: false });
        self.commit(Txn::new().put(layout::drain(node), record)).await.map(drop)
    }

    /// Takes [`Self::drain_node`] back.
    pub async fn undrain_node(&self, node: NodeId) -> Result<(), StoreError> {
        self.commit(Txn::new().delete(layout::drain(node))).await.map(drop)
    }

    /// The balancer's last decisions, the newest last; read from the store.
    pub async fn decisions(&self) -> Result<Vec<Decision>, StoreError> {
        let Some(entry) = self.inner.store.get(layout::DECISIONS).await? else {
            return Ok(Vec::new());
        };
        let record: DecisionsRecord = layout::decode(layout::DECISIONS, &entry.value)?;
        Ok(record.decisions)
    }

    /// Adds to the decisions that are kept, and forgets the oldest.
    pub async fn note_decisions(&self, new: &[Decision]) -> Result<(), StoreError> {
        let key = layout::DECISIONS;
        loop {
            let entry = self.inner.store.get(key).await?;
            let txn = match &entry {
                Some(entry) => Txn::new().if_unchanged(key, entry.mod_revision),
                None => Txn::new().if_absent(key),
            };
            // Decisions that cannot be read are of no use to anybody: they make room.
            let old = entry.and_then(|entry| layout::decode(key, &entry.value).ok());
            let DecisionsRecord { mut decisions } = old.unwrap_or_default();
            decisions.extend_from_slice(new);
            decisions.drain(..decisions.len().saturating_sub(DECISIONS_KEPT));
            let txn = txn.put(key, layout::encode(&DecisionsRecord { decisions }));
            if let Outcome::Committed(_) = self.commit(txn).await? {
                return Ok(());
            }
        }
    }
}

/// A registered node, for those parts of its process that depend on its lease. Cheap to clone; of no use once the
/// registration is gone.
#[derive(Clone)]
pub struct NodeHandle {
    pub(crate) catalog: Catalog,
    pub(crate) node: NodeId,
    pub(crate) incarnation: String,
    pub(crate) lease: watch::Receiver<LeaseId>,
    pub(crate) ttl: Duration,
    pub(crate) state: watch::Receiver<RegistrationState>,
    pub(crate) standing: watch::Receiver<Standing>,
}

impl NodeHandle {
    /// The node.
    pub fn id(&self) -> NodeId {
        self.node
    }

    /// How long others take the node for alive after it was last heard of.
    pub fn lease(&self) -> Duration {
        self.ttl
    }

    /// How the registration stands, to be watched.
    pub fn state(&self) -> watch::Receiver<RegistrationState> {
        self.state.clone()
    }

    /// Whether lookups show another process under this node's id.
    pub fn is_replaced(&self) -> bool {
        let seen = self.catalog.node(self.node);
        seen.is_some_and(|node| node.incarnation != self.incarnation)
    }

    /// That the lease does not end from now on.
    pub fn tenure(&self) -> Tenure {
        Tenure::begin(self.standing.clone())
    }

    /// Says what it carries.
    pub async fn publish_load(&self, load: &NodeLoad) -> Result<(), StoreError> {
        let key = layout::load(self.node);
        self.put_leased(Txn::new(), &key, layout::encode(load)).await.map(drop)
    }

    /// Says that it is about to end: nobody gives it a volume any more.
    pub async fn leave(&self) -> Result<(), StoreError> {
        let key = layout::drain(self.node);
        let record = layout::encode(&DrainRecord { leaving: true });
        // What an operator said outlives the node.
        self.put_leased(Txn::new().if_absent(&key), &key, record).await.map(drop)
    }

    /// Whether this node moves volumes: it does if nobody else does. It stays so for as long as its lease lives.
    pub async fn campaign(&self) -> Result<bool, StoreError> {
        let elected = {
            let view = self.catalog.inner.shared.view.read();
            view.steering().balancer.clone()
        };
        if let Some((node, incarnation)) = elected {
            return Ok(node == self.node && incarnation == self.incarnation);
        }
        let incarnation = self.incarnation.clone();
        let record = layout::encode(&BalancerRecord { node: self.node, incarnation });
        let txn = Txn::new().if_absent(layout::BALANCER);
        let outcome = self.put_leased(txn, layout::BALANCER, record).await?;
        Ok(matches!(outcome, Outcome::Committed(_)))
    }

    async fn put_leased(&self, txn: Txn, key: &str, value: Vec<u8>) -> Result<Outcome, StoreError> {
        let lease = *self.lease.borrow();
        self.catalog.commit(txn.put_leased(key, value, lease)).await
    }
}
