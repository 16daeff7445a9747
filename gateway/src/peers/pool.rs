//! The links to the other nodes of the cluster, and who of them owns what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use sluice_catalog::{Catalog, Change, Node, PeerAddress};
use sluice_model::{NodeId, StreamId, VolumeId};
use sluice_wire::messages::asker::Asker;
use sluice_wire::{Str, Uuid};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

use super::link::{Ends, Link};
use super::metrics::PeerMetrics;
use super::tls::PeerTls;
use crate::backend::Caller;

/// Links to one node. What one client asks goes through one of them, so that it stays in order; several keep
/// encryption and decoding from being one core's work.
const LINKS: usize = 2;

/// What the links are made with.
pub struct PeersParts<'a> {
    /// This node.
    pub node: NodeId,
    /// Who is there, and who owns what.
    pub catalog: Catalog,
    /// This node's certificates; none where nodes believe whoever connects.
    pub tls: Option<PeerTls>,
    /// For the metrics.
    pub registry: &'a mut Registry,
}

/// The other nodes of the cluster.
pub struct Peers {
    shared: Arc<Shared>,
    watch: AbortHandle,
}

struct Shared {
    node: NodeId,
    catalog: Catalog,
    cluster: Arc<str>,
    tls: Option<PeerTls>,
    metrics: PeerMetrics,
    nodes: Mutex<HashMap<NodeId, Known>>,
    /// Grows when a node or a volume's owner changes.
    changes: watch::Sender<u64>,
}

struct Known {
    address: PeerAddress,
    incarnation: String,
    links: [Link; LINKS],
}

/// Who owns a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// This node, or there is no such volume.
    Here,
    /// Another one, which lives.
    Node(NodeId),
    /// Nobody who lives.
    Nobody,
}

/// How a question is put.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// The version that the client asked in.
    pub(super) client_version: i16,
    /// Whether topics stand there with their ids in the place of names.
    pub(super) names_are_ids: bool,
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.watch.abort();
        for known in self.shared.nodes.lock().values() {
            known.close();
        }
    }
}

impl Known {
    /// Whether the links lead to this life of the node.
    fn is_of(&self, node: &Node) -> bool {
        self.incarnation == node.incarnation && node.spec.peer.as_ref() == Some(&self.address)
    }

    fn close(&self) {
        self.links.iter().for_each(Link::close);
    }
}

impl Peers {
    /// Links are made when they are needed. Needs a tokio runtime.
    pub fn new(parts: PeersParts<'_>) -> Arc<Self> {
        let PeersParts { node, catalog, tls, registry } = parts;
        let changed = catalog.subscribe();
        let shared = Arc::new(Shared {
            node,
            cluster: catalog.cluster_id().into(),
            catalog,
            tls,
            metrics: PeerMetrics::new(registry),
            nodes: Mutex::default(),
            changes: watch::Sender::new(0),
        });
        let watch = tokio::spawn(follow(Arc::clone(&shared), changed)).abort_handle();
        Arc::new(Self { shared, watch })
    }

    pub(super) fn metrics(&self) -> &PeerMetrics {
        &self.shared.metrics
    }

    /// Whether clients of this node shall go to another one: it is about to go, and there are others.
    pub fn sends_away(&self) -> bool {
        let Shared { node, catalog, .. } = &*self.shared;
        catalog.drains().contains_key(node) && !other_gateways(catalog, *node).is_empty()
    }

    /// Who serves a stream.
    pub(super) fn owner_of(&self, stream: StreamId) -> Owner {
        let topic = self.shared.catalog.topic_of_any_tenant(stream.topic);
        let volume =
            topic.and_then(|topic| topic.partitions.get(stream.partition as usize).copied());
        volume.map_or(Owner::Here, |volume| self.owner(volume))
    }

    fn owner(&self, volume: VolumeId) -> Owner {
        let Some(volume) = self.shared.catalog.volume(volume) else { return Owner::Here };
        match volume.owner {
            Some(owner) if owner == self.shared.node => Owner::Here,
            Some(owner) if self.shared.catalog.node(owner).is_some() => Owner::Node(owner),
            _ => Owner::Nobody,
        }
    }

    /// The leader epoch of a stream that another node owns; -1 if nobody ever did, or while it moves.
    pub fn leader_epoch(&self, stream: StreamId) -> i32 {
        self.shared.catalog.leader_epoch(stream).unwrap_or(-1)
    }

    /// Who has the coordinators of groups and transactions: whoever owns the catalog's first volume.
    pub(super) fn coordinators(&self) -> Owner {
        let first = self.shared.catalog.first_volume();
        first.map_or(Owner::Here, |volume| self.owner(volume.spec.id))
    }

    /// The other node that has the coordinators of groups and transactions; none if they are here or nobody has them.
    pub fn coordinator_elsewhere(&self) -> Option<NodeId> {
        match self.coordinators() {
            Owner::Node(node) => Some(node),
            Owner::Here | Owner::Nobody => None,
        }
    }

    /// The link to a node for what comes from a client's connection; none if the node is gone, or takes no connections.
    pub(super) fn link(&self, node: NodeId, connection: u64) -> Option<Link> {
        let found = self.shared.catalog.node(node)?;
        let address = found.spec.peer.as_ref()?;
        let at = usize::try_from(connection).unwrap_or_default() % LINKS;
        let mut nodes = self.shared.nodes.lock();
        if let Some(known) = nodes.get(&node) {
            if known.is_of(&found) {
                return Some(known.links[at].clone());
            }
            known.close();
        }
        let ends = Ends {
            from: self.shared.node,
            to: node,
            address: address.clone(),
            cluster: Arc::clone(&self.shared.cluster),
        };
        let link = || Link::new(ends.clone(), self.shared.tls.clone(), self.shared.metrics.clone());
        let known = Known {
            address: address.clone(),
            incarnation: found.incarnation.clone(),
            links: [link(), link()],
        };
        let link = known.links[at].clone();
        nodes.insert(node, known);
        Some(link)
    }

    /// Waits until nodes or owners change, for `limit` at most: what failed is asked again soon, and may then go
    /// another way.
    pub(super) async fn changed(&self, limit: Duration) {
        let mut changes = self.shared.changes.subscribe();
        // A sender that is gone or a time that is up: both end the wait.
        let _ = tokio::time::timeout(limit, changes.changed()).await;
    }
}

/// Ends links to nodes that are gone, so that what waits for them does not.
async fn follow(shared: Arc<Shared>, mut changes: broadcast::Receiver<Change>) {
    loop {
        match changes.recv().await {
            Ok(Change::NodeGone(_) | Change::NodeChanged(_)) | Err(RecvError::Lagged(_)) => {
                shared.close_stale();
            }
            Ok(Change::VolumeChanged(_) | Change::VolumeGone(_)) => {}
            Ok(_) => continue,
            Err(RecvError::Closed) => return,
        }
        shared.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Shared {
    /// Closes the links to nodes that are not as they were.
    fn close_stale(&self) {
        self.nodes.lock().retain(|id, known| {
            let stays = self.catalog.node(*id).is_some_and(|node| known.is_of(&node));
            if !stays {
                known.close();
            }
            stays
        });
    }
}

/// The live nodes but `node` that clients connect to and that are not about to go, by id.
pub(crate) fn other_gateways(catalog: &Catalog, node: NodeId) -> Vec<Arc<Node>> {
    let drains = catalog.drains();
    let mut nodes = catalog.nodes();
    nodes.retain(|other| {
        let spec = &other.spec;
        spec.roles.gateway && spec.id != node && !drains.contains_key(&spec.id)
    });
    nodes
}

/// On whose behalf a node asks.
pub(super) fn asker(caller: &Caller, port: u16, manner: Manner) -> Asker {
    let host = match caller.client_host {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    Asker {
        tenant: caller.tenant.0.cast_signed(),
        principal: Str::from(&*caller.principal),
        client_host: Uuid(host.octets()),
        client_port: port,
        connection: caller.connection.cast_signed(),
        client_version: manner.client_version,
        names_are_ids: manner.names_are_ids,
    }
}
