//! Catalog, writer and reader of this process, and its links to other nodes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use object_store::ObjectStore;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use sluice_bucket::BucketMetrics;
use sluice_catalog::journal::{JournalMetrics, JournalOptions, JournalParts};
use sluice_catalog::{
    Catalog, CatalogOptions, NodeRegistration, NodeSpec, PeerAddress, RegistrationState,
};
use sluice_cluster::notice::{NoticeOptions, notice};
use sluice_cluster::{ClusterMetrics, Members, MembersParts};
use sluice_format::key::Keys;
use sluice_gateway::backend::{Backend, EndMarker};
use sluice_gateway::peers::{PeerTls, Peers, PeersParts, Routing};
use sluice_model::{CatalogLimits, Clock, Entropy, GroupDefaults, StreamId, TopicDefaults};
use sluice_reader::{CacheMetrics, Reader, ReaderOptions};
use sluice_wire::ErrorCode;
use sluice_writer::transaction::{Marker, NoOtherOwners, OtherOwners, Told};
use sluice_writer::{Writer, WriterMetrics, WriterParts};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::journal::JournalKeeper;
use super::options::{
    group_config, members_options, node_id, notice_options, transaction_config, writer_options,
};
use super::shutdown::Shutdown;
use crate::bucket;
use crate::catalog_store::{self, OpenStore};
use crate::config::{Config, HostPort};
use crate::local_backend::LocalBackend;
use crate::low_priority::LowPriority;
use crate::seams::{SystemClock, SystemEntropy, cpu_time};
use crate::volumes;

/// How long a machine is taken to stay after a notice that does not say.
const NOTICE_UNKNOWN: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Node {
    store: OpenStore,
    catalog: Catalog,
    registration: NodeRegistration,
    backend: Arc<LocalBackend>,
    /// None in a process that is a cluster of its own.
    peers: Option<Arc<Peers>>,
    tls: Option<PeerTls>,
    /// None in a process that owns no volumes.
    members: Option<Arc<Members>>,
    /// Hands volumes over once the process is told to end.
    leaving: Option<JoinHandle<()>>,
    journal: JournalKeeper,
}

impl Node {
    /// Takes everything over. None if the process was told to end meanwhile.
    pub(super) async fn start(
        config: &Config,
        kafka: Option<&HostPort>,
        peer: Option<PeerAddress>,
        registry: &RwLock<Registry>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Self>> {
        let mut drain = shutdown.watch();
        let mut node = tokio::select! {
            node = Box::pin(Self::take_over(config, kafka, peer, registry)) => node?,
            _ = drain.wait_for(|drain| *drain) => return Ok(None),
        };
        let within = config.shutdown.drain * 3 / 4;
        let notice = notice_options(config);
        node.leaving = node.members.clone().map(|members| {
            tokio::spawn(async move {
                let mut told = pin!(async { drain.wait_for(|drain| *drain).await.is_ok() });
                let is_told = tokio::select! {
                    is_told = &mut told => is_told,
                    () = leave_at_notice(&members, notice) => told.await,
                };
                if is_told {
                    // While the gateway drains: its requests follow the volumes.
                    members.leave(Instant::now() + within).await;
                }
            })
        });
        Ok(Some(node))
    }

    async fn take_over(
        config: &Config,
        kafka: Option<&HostPort>,
        peer: Option<PeerAddress>,
        registry: &RwLock<Registry>,
    ) -> anyhow::Result<Self> {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let tls = peer_tls(config)?;
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir.join("volumes"))
            .with_context(|| format!("cannot make {} (data_dir)", data_dir.display()))?;
        let store = OpenStore::open(config, &entropy).await?;
        let options = CatalogOptions {
            entropy: Arc::clone(&entropy),
            node: Some(node_id(config)),
            topic_defaults: TopicDefaults::new(config.topics.defaults.clone())
                .context("topics.defaults")?,
            group_defaults: GroupDefaults::new(config.groups.defaults.clone())
                .context("groups.defaults")?,
            limits: CatalogLimits::default(),
        };
        let catalog = Catalog::open(store.handle(), options).await?;
        let node_id = node_id(config);
        let is_alone = peer.is_none();
        if is_alone {
            store.check_alone(&catalog, node_id)?;
        }
        let spec = NodeSpec {
            id: node_id,
            kafka_host: kafka.map(|kafka| kafka.host.clone()).unwrap_or_default(),
            kafka_port: kafka.map_or(0, |kafka| kafka.port),
            rack: config.cluster.zone.as_ref().map(|zone| zone.0.clone()),
            peer,
            roles: config.roles.0,
        };
        let registration = catalog.register_node(spec.clone(), config.cluster.lease).await?;
        // Another may have registered at the same moment: then both end.
        if is_alone && let Err(error) = store.check_alone(&catalog, node_id) {
            registration.deregister().await?;
            return Err(error);
        }
        let peers = (!is_alone).then(|| {
            let mut registry = registry.write();
            let (catalog, tls) = (catalog.clone(), tls.clone());
            Peers::new(PeersParts { node: node_id, catalog, tls, registry: &mut registry })
        });
        let bucket_metrics = BucketMetrics::default();
        bucket_metrics.register(&mut registry.write());
        let bucket = bucket::open(config, Arc::clone(&entropy), bucket_metrics)?;
        let background: Arc<dyn ObjectStore> = Arc::new(bucket.background());
        let bucket: Arc<dyn ObjectStore> = Arc::new(bucket);
        let keys = Keys::new(catalog.cluster_id());
        let lie_in = volumes::Bucket {
            store: Arc::clone(&bucket),
            keys: keys.clone(),
            entropy: Arc::clone(&entropy),
        };
        if config.roles.0.writer {
            volumes::add(config, &catalog).await?;
        }
        let metrics = WriterMetrics::default();
        let cache_metrics = CacheMetrics::default();
        metrics.register(&mut registry.write());
        cache_metrics.register(&mut registry.write());
        let journal_metrics = JournalMetrics::default();
        journal_metrics.register(&mut registry.write());
        let journal = JournalParts {
            store: store.handle(),
            bucket: Arc::clone(&bucket),
            keys: keys.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            options: JournalOptions::default(),
            metrics: journal_metrics,
        };
        let reader_options = ReaderOptions { cache_bytes: config.reader.cache_bytes };
        let reader = Reader::new(Arc::clone(&bucket), keys.clone(), reader_options, cache_metrics);
        let reader = Arc::new(reader);
        let other_owners: Arc<dyn OtherOwners> = match &peers {
            Some(peers) => Arc::new(ByPeers(Arc::clone(peers))),
            None => Arc::new(NoOtherOwners),
        };
        let parts = WriterParts {
            node: node_id,
            catalog: catalog.clone(),
            bucket,
            background,
            keys,
            options: writer_options(config),
            groups: group_config(config),
            transactions: transaction_config(config),
            clock: Arc::clone(&clock),
            entropy,
            metrics,
            other_owners,
            on_shift: volumes::attach(&reader),
        };
        let writer = Writer::new(parts);
        let cluster_metrics = ClusterMetrics::default();
        cluster_metrics.register(&mut registry.write());
        let members = MembersParts {
            spec,
            catalog: catalog.clone(),
            writer: writer.clone(),
            node: registration.handle(),
            locate: volumes::locate(config, lie_in),
            options: members_options(config),
            clock,
            cpu: Some(Arc::new(cpu_time)),
            metrics: cluster_metrics,
        };
        let members = match config.roles.0.writer {
            true => Some(Arc::new(Box::pin(Members::start(members)).await?)),
            false => None,
        };
        writer.register_census(&mut registry.write());
        // Only who owns the volumes may journal: a process whose cluster was restored elsewhere ends
        // before this.
        let journal = JournalKeeper::start(node_id, catalog.clone(), journal);
        let low = LowPriority::start().context("cannot start threads")?;
        let backend = Arc::new(LocalBackend::new(writer, reader, low, peers.clone()));
        Ok(Self {
            store,
            catalog,
            registration,
            backend,
            peers,
            tls,
            members,
            leaving: None,
            journal,
        })
    }

    pub(super) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// What this process serves itself.
    pub(super) fn backend(&self) -> &Arc<LocalBackend> {
        &self.backend
    }

    /// What the cluster serves.
    pub(super) fn routing(&self) -> Arc<dyn Backend> {
        let here: Arc<dyn Backend> = Arc::clone(&self.backend) as _;
        match &self.peers {
            Some(peers) => Arc::new(Routing::new(here, Arc::clone(peers))),
            None => here,
        }
    }

    pub(super) fn peers(&self) -> Option<&Arc<Peers>> {
        self.peers.as_ref()
    }

    pub(super) fn tls(&self) -> Option<&PeerTls> {
        self.tls.as_ref()
    }

    /// Says in the catalog that clients shall go elsewhere; whether there is an elsewhere.
    pub(super) fn send_away(&self) -> impl Future<Output = bool> + Send + use<> {
        let (handle, peers) = (self.registration.handle(), self.peers.clone());
        async move {
            let Some(peers) = peers else { return false };
            if let Err(error) = handle.leave().await {
                tracing::warn!(%error, "clients could not be sent to other nodes before the end");
            }
            peers.sends_away()
        }
    }

    /// Returns when this process may not serve any more, and says why.
    pub(super) async fn lost(&self) -> &'static str {
        let mut registration = self.registration.state();
        let kept = async {
            match &self.members {
                Some(members) => members.ended().await.message(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            end = kept => end,
            _ = registration.wait_for(|state| *state == RegistrationState::Replaced) => {
                "another process has registered under this node id"
            }
        }
    }

    /// Ends service. If the process was told to end, what others can have was handed over; what is left
    /// and not in the bucket yet is uploaded within `flush`, which is asked then.
    pub(super) async fn end(self, is_told: bool, flush: impl FnOnce() -> Duration) {
        let Self {
            store, catalog, registration, backend, peers, members, leaving, journal, ..
        } = self;
        if let Some(leaving) = leaving {
            // It has not begun if nobody told the process to end.
            if !is_told {
                leaving.abort();
            }
            // A panic was logged.
            let _ = leaving.await;
        }
        drop(members);
        let flush = flush();
        tokio::join!(backend.writer().close(flush), journal.close(flush));
        if let Err(error) = registration.deregister().await {
            tracing::warn!(%error, "the node could not be signed off; its lease will run out");
        }
        // With the last handle of the catalog its follower ends; then the store may.
        drop((backend, peers, catalog));
        store.close().await;
    }
}

/// Hands the volumes over when the cloud says that it will take the machine away. The process goes on, without any,
/// until it is told to end.
async fn leave_at_notice(members: &Members, options: Option<NoticeOptions>) {
    let Some(options) = options else { return };
    let notice = notice(options).await;
    // Some of it is for what comes after the volumes.
    let left = notice.left(&SystemClock, NOTICE_UNKNOWN) * 3 / 4;
    tracing::warn!(
        what = notice.what,
        left_s = left.as_secs(),
        "this machine will be taken away: handing its volumes over"
    );
    members.leave(Instant::now() + left).await;
}

/// The certificates between nodes, where there are any.
fn peer_tls(config: &Config) -> anyhow::Result<Option<PeerTls>> {
    let cluster = &config.cluster;
    let (Some(authorities), Some(chain), Some(key)) =
        (&cluster.ca_file, &cluster.cert_file, &cluster.key_file)
    else {
        return Ok(None);
    };
    let tls = PeerTls::new(
        &catalog_store::read("cluster.ca_file", authorities)?,
        &catalog_store::read("cluster.cert_file", chain)?,
        &catalog_store::read("cluster.key_file", key)?,
    );
    tls.map(Some).context("cluster.ca_file, cluster.cert_file, cluster.key_file")
}

/// Ends transactions in streams of other nodes.
struct ByPeers(Arc<Peers>);

#[async_trait]
impl OtherOwners for ByPeers {
    async fn tell_stream(&self, marker: Marker, stream: StreamId) -> Told {
        let end = EndMarker {
            producer_id: marker.producer_id,
            producer_epoch: marker.producer_epoch,
            coordinator_epoch: marker.coordinator_epoch,
            commit: marker.commit,
        };
        match self.0.end_in_stream(marker.tenant, stream, end).await {
            // It has heard of a newer producer epoch: a coordinator that hands one out has ended this transaction.
            Ok(()) | Err(ErrorCode::InvalidProducerEpoch) => Told::Yes,
            Err(code) => {
                tracing::debug!(%stream, ?code, "another node did not end a transaction; once more later");
                Told::NotYet
            }
        }
    }
}
