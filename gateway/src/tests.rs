//! The gateway as clients meet it: over TCP on loopback, with a catalog in memory and a small backend
//! in memory ([`memory`]), spoken to through the wire crate ([`client`]).

mod admin;
mod broker_configs;
mod client;
mod configs;
mod groups;
mod hostile;
mod memory;
mod pages;
mod peers;
mod pipeline;
mod protocol;
mod share_groups;
mod streams;
mod streams_groups;
mod telemetry;
mod tenants;
mod topics;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use sluice_catalog::embedded::EmbeddedStore;
use sluice_catalog::{Catalog, CatalogOptions, VolumeKind, VolumeSpec};
use sluice_model::{
    CatalogLimits, Entropy, GroupDefaults, NodeId, TenantId, TopicDefaults, VolumeEpoch, VolumeId,
};
use sluice_tenants::{Identity, ListenerPolicy, Principal, RemoteAccess};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::peers::PeerTls;
use crate::{Gateway, GatewayConfig};
use client::Client;
use memory::MemoryBackend;

const NODE: NodeId = NodeId(7);
/// Longer than anything here takes, so that a hang fails instead of waiting for ever.
const SOON: Duration = Duration::from_secs(20);

/// Numbers that differ from each other: all that ids need here.
#[derive(Default)]
struct Counting(AtomicU64);

impl Entropy for Counting {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let next = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            let mixed = next.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            chunk.copy_from_slice(&mixed.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// A running gateway with one listener for each tenant asked for. With `SLUICE_TEST_APART` in the environment it has
/// nothing itself: its backend is another node's, with which it speaks over TCP, and every test holds all the same.
struct Server {
    catalog: Catalog,
    backend: Arc<MemoryBackend>,
    registry: Mutex<Registry>,
    addresses: Vec<SocketAddr>,
    shutdown: watch::Sender<bool>,
    serving: Vec<JoinHandle<()>>,
    /// The node that has the backend, if that is another one.
    owner: Option<peers::Owner>,
}

impl Server {
    async fn start() -> Self {
        Self::with(|_| {}, &[TenantId::OPEN]).await
    }

    async fn with(configure: impl FnOnce(&mut GatewayConfig), tenants: &[TenantId]) -> Self {
        let is_apart = std::env::var_os("SLUICE_TEST_APART").is_some();
        Self::over(is_apart.then_some(None), configure, tenants).await
    }

    /// A gateway of a node that has no volumes; another one has them, with which it speaks TLS if there is any.
    async fn apart(tls: Option<PeerTls>, tenants: &[TenantId]) -> Self {
        Self::over(Some(tls), |_| {}, tenants).await
    }

    async fn over(
        apart: Option<Option<PeerTls>>,
        configure: impl FnOnce(&mut GatewayConfig),
        tenants: &[TenantId],
    ) -> Self {
        let entropy: Arc<dyn Entropy> = Arc::new(Counting::default());
        let store = EmbeddedStore::in_memory(Arc::clone(&entropy)).unwrap();
        let options = CatalogOptions {
            entropy,
            node: Some(NODE),
            topic_defaults: TopicDefaults::default(),
            group_defaults: GroupDefaults::default(),
            limits: CatalogLimits::default(),
        };
        let catalog = Catalog::open(Arc::new(store), options).await.unwrap();
        let volume = VolumeSpec::new(VolumeId(1), VolumeKind::File, "memory", 1 << 30);
        catalog.add_volume(volume).await.unwrap();
        let owner = if apart.is_some() { peers::OWNER } else { NODE };
        // As often as the backend says.
        for epoch in 0..memory::EPOCH.unsigned_abs() {
            catalog.claim_volume(VolumeId(1), owner, VolumeEpoch(epoch)).await.unwrap();
        }
        let mut config = GatewayConfig::new(NODE, "broker.test", 9092);
        configure(&mut config);
        let backend = Arc::new(MemoryBackend::new(catalog.clone()));
        let mut registry = Registry::default();
        let here = Arc::clone(&backend) as _;
        let (gateway, owner) = match apart {
            None => (Gateway::new(config, catalog.clone(), here, &mut registry), None),
            Some(tls) => {
                let owner = peers::Owner::start(&config, &catalog, here, tls.clone()).await;
                (peers::gateway_of(config, &catalog, tls, &mut registry), Some(owner))
            }
        };
        let (shutdown, stopped) = watch::channel(false);
        let mut addresses = Vec::new();
        let mut serving = Vec::new();
        for tenant in tenants {
            let listener = Gateway::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let identity = Identity { tenant: *tenant, principal: Principal::anonymous() };
            let address = listener.local_addr().unwrap();
            let policy =
                ListenerPolicy::unauthenticated(identity, address, RemoteAccess::Refuse).unwrap();
            addresses.push(address);
            let (gateway, stopped) = (gateway.clone(), stopped.clone());
            serving.push(tokio::spawn(async move {
                gateway.listen("test", listener, policy, stopped).await;
            }));
        }
        let registry = Mutex::new(registry);
        Self { catalog, backend, registry, addresses, shutdown, serving, owner }
    }

    async fn client(&self) -> Client {
        self.client_of(0).await
    }

    async fn client_of(&self, listener: usize) -> Client {
        Client::connect(self.addresses[listener]).await
    }

    /// The value of a metric, given with its labels as in the exposition.
    fn metric(&self, name: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock()).unwrap();
        let line = text
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.map_or(0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// Waits until a metric has a value: what it counts happens on another task.
    async fn metric_becomes(&self, name: &str, value: u64) {
        let reached = async {
            while self.metric(name) != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(SOON, reached).await.is_err() {
            panic!("{name} is {} and not {value}", self.metric(name));
        }
    }

    /// Shuts down and waits for it.
    async fn stop(self) {
        self.shutdown.send_replace(true);
        for serving in self.serving {
            tokio::time::timeout(SOON, serving).await.unwrap().unwrap();
        }
        if let Some(owner) = self.owner {
            owner.stop().await;
        }
    }
}
