//! Wires the components of one process together and runs them until it is told to end.
//!
//! Order of start: listeners are bound first, so that an address in use is told at once; then catalog,
//! volumes, gateway. Order of end: readiness is withdrawn, the gateway drains, volumes close, the
//! catalog closes.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use object_store::ObjectStore;
use parking_lot::RwLock;
use prometheus_client::registry::Registry;
use sluice_bucket::BucketMetrics;
use sluice_catalog::journal::{Journal, JournalMetrics, JournalOptions, JournalParts};
use sluice_catalog::{
    Catalog, CatalogOptions, NodeRegistration, NodeSpec, RegistrationState, Roles,
};
use sluice_format::key::Keys;
use sluice_gateway::http::{OpsHttp, OpsLimits, Readiness};
use sluice_gateway::{Gateway, GatewayConfig, Limits};
use sluice_model::{CatalogLimits, Clock, Entropy, GroupDefaults, NodeId, TopicDefaults};
use sluice_reader::{CacheMetrics, Reader, ReaderOptions};
use sluice_tenants::{Identity, ListenerPolicy, RemoteAccess};
use sluice_writer::group::GroupConfig;
use sluice_writer::share::ShareLimits;
use sluice_writer::transaction::TransactionConfig;
use sluice_writer::{
    CompactionOptions, OrphanOptions, Writer, WriterMetrics, WriterOptions, WriterParts,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bucket;
use crate::catalog_store::OpenStore;
use crate::config::{Config, HostPort};
use crate::keeper::Keeper;
use crate::local_backend::LocalBackend;
use crate::low_priority::LowPriority;
use crate::seams::{SystemClock, SystemEntropy};
use crate::volumes;

/// A process that ends spends at most this on uploading its tail.
const LONGEST_FLUSH: Duration = Duration::from_secs(3);
/// How long other nodes take this one for alive after it was last heard of.
const NODE_LEASE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or Ctrl-C.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let begun = Instant::now();
    let shutdown = Shutdown::listen()?;
    let policy = listener_policy(&config)?;
    let kafka = Gateway::bind(config.kafka.listen)
        .with_context(|| format!("cannot listen on {} (kafka.listen)", config.kafka.listen))?;
    let http = TcpListener::bind(config.http.listen)
        .await
        .with_context(|| format!("cannot listen on {} (http.listen)", config.http.listen))?;
    let kafka_address = kafka.local_addr().context("the Kafka listener has no address")?;
    let http_address = http.local_addr().context("the HTTP listener has no address")?;

    let registry = Arc::new(RwLock::new(Registry::with_prefix("sluice")));
    let (readiness, watched) = watch::channel(Readiness::Starting);
    let ops = OpsHttp::new(ops_limits(&config), Arc::clone(&registry), watched);
    let ops_end = shutdown.ended();
    let ops = tokio::spawn(ops.serve(http, ops_end));

    let advertised = advertised(&config, kafka_address);
    let Some(node) = Node::start(&config, &advertised, &registry, &shutdown).await? else {
        tracing::info!("told to end before the start was complete");
        return Ok(());
    };
    let gateway = Gateway::new(
        gateway_config(&config, &advertised),
        node.catalog.clone(),
        Arc::clone(&node.backend) as _,
        &mut registry.write(),
    );
    readiness.send_replace(Readiness::Ready);
    announce(kafka_address, http_address, begun)?;
    tokio::spawn(withdraw(shutdown.watch(), readiness.clone()));
    let lost = tokio::select! {
        () = gateway.listen("kafka", kafka, policy, shutdown.watch()) => None,
        lost = node.lost() => Some(lost),
    };
    readiness.send_replace(Readiness::Draining);
    drop(gateway);
    node.end(shutdown.left(config.shutdown.drain)).await;
    shutdown.finish();
    // It holds nothing that could be lost; a second is what its connections get.
    let _ = tokio::time::timeout(Duration::from_secs(1), ops).await;
    if let Some(lost) = lost {
        // A supervisor starts the process anew, and the new one takes over what it may.
        anyhow::bail!(lost);
    }
    tracing::info!("ended");
    Ok(())
}

/// Says on stdout that clients may come; the only thing that is ever written there.
fn announce(kafka: SocketAddr, http: SocketAddr, begun: Instant) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "sluice is ready: bootstrap.servers={kafka} http=http://{http}")
        .and_then(|()| stdout.flush())
        .context("cannot write the ready line to stdout")?;
    let took_ms = begun.elapsed().as_millis();
    tracing::info!(%kafka, %http, took_ms, "ready");
    Ok(())
}

async fn withdraw(mut drain: watch::Receiver<bool>, readiness: watch::Sender<Readiness>) {
    if drain.wait_for(|drain| *drain).await.is_ok() {
        readiness.send_replace(Readiness::Draining);
    }
}

/// SIGTERM and Ctrl-C, and the end of everything.
struct Shutdown {
    drain: watch::Sender<bool>,
    ended: watch::Sender<bool>,
    /// When the process was told to end.
    told: Arc<OnceLock<Instant>>,
}

impl Shutdown {
    fn listen() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        let drain = watch::Sender::new(false);
        let sender = drain.clone();
        let told = Arc::new(OnceLock::new());
        let tell = Arc::clone(&told);
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("told to end: draining");
            tell.get_or_init(Instant::now);
            sender.send_replace(true);
        });
        Ok(Self { drain, ended: watch::Sender::new(false), told })
    }

    /// What is left of the time for draining, but not all of it is for uploads: the next owner can read
    /// back what stays, and whoever told us to end is waiting.
    fn left(&self, drain: Duration) -> Duration {
        let since = self.told.get().map_or(Duration::ZERO, Instant::elapsed);
        drain.saturating_sub(since).min(LONGEST_FLUSH)
    }

    fn watch(&self) -> watch::Receiver<bool> {
        self.drain.subscribe()
    }

    /// Resolves when everything but the operations listener has ended.
    fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut ended = self.ended.subscribe();
        async move {
            // A sender that is gone means the end, too.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    fn finish(&self) {
        self.ended.send_replace(true);
    }
}

/// Catalog, writer and reader of this process.
struct Node {
    store: OpenStore,
    catalog: Catalog,
    registration: NodeRegistration,
    backend: Arc<LocalBackend>,
    keeper: Keeper,
    journal: Journal,
}

impl Node {
    /// Takes everything over. None if the process was told to end meanwhile.
    async fn start(
        config: &Config,
        advertised: &HostPort,
        registry: &RwLock<Registry>,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Option<Self>> {
        let mut drain = shutdown.watch();
        tokio::select! {
            node = Self::take_over(config, advertised, registry) => node.map(Some),
            _ = drain.wait_for(|drain| *drain) => Ok(None),
        }
    }

    async fn take_over(
        config: &Config,
        advertised: &HostPort,
        registry: &RwLock<Registry>,
    ) -> anyhow::Result<Self> {
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
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
        store.check_alone(&catalog, node_id)?;
        let spec = NodeSpec {
            id: node_id,
            kafka_host: advertised.host.clone(),
            kafka_port: advertised.port,
            rack: None,
            peer: None,
            roles: Roles::ALL,
        };
        let registration = catalog.register_node(spec, NODE_LEASE).await?;
        // Another may have registered at the same moment: then both end.
        if let Err(error) = store.check_alone(&catalog, node_id) {
            registration.deregister().await?;
            return Err(error);
        }
        let bucket_metrics = BucketMetrics::default();
        bucket_metrics.register(&mut registry.write());
        let bucket = bucket::open(config, Arc::clone(&entropy), bucket_metrics)?;
        let background: Arc<dyn ObjectStore> = Arc::new(bucket.background());
        let bucket: Arc<dyn ObjectStore> = Arc::new(bucket);
        let keys = Keys::new(catalog.cluster_id());
        let lie_in = volumes::Bucket { store: &bucket, keys: &keys, entropy: &entropy };
        let places = volumes::places(config, &catalog, lie_in).await?;
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
        let parts = WriterParts {
            node: node_id,
            catalog: catalog.clone(),
            bucket,
            background,
            keys,
            options: writer_options(config),
            groups: group_config(config),
            transactions: transaction_config(config),
            clock,
            entropy,
            metrics,
            other_owners: Arc::new(sluice_writer::transaction::NoOtherOwners),
            on_shift: volumes::attach(&reader),
        };
        let writer = Writer::open(&places, parts).await?;
        writer.register_census(&mut registry.write());
        // Only who owns the volumes may journal: a process whose cluster was restored elsewhere ends
        // before this.
        let journal = Journal::start(journal);
        let keeper = Keeper::new(node_id, catalog.clone(), writer.clone(), places);
        let low = LowPriority::start().context("cannot start threads")?;
        let backend = Arc::new(LocalBackend::new(writer, reader, low, None));
        Ok(Self { store, catalog, registration, backend, keeper, journal })
    }

    /// Returns when this process may not serve any more, and says why.
    async fn lost(&self) -> &'static str {
        let mut registration = self.registration.state();
        tokio::select! {
            end = self.keeper.run() => end.message(),
            _ = registration.wait_for(|state| *state == RegistrationState::Replaced) => {
                "another process has registered under this node id"
            }
        }
    }

    /// Ends service; what is not in the bucket yet is uploaded within `flush`.
    async fn end(self, flush: Duration) {
        let Self { store, catalog, registration, backend, keeper, journal } = self;
        drop(keeper);
        tokio::join!(backend.writer().close(flush), journal.close(flush));
        if let Err(error) = registration.deregister().await {
            tracing::warn!(%error, "the node could not be signed off; its lease will run out");
        }
        // With the last handle of the catalog its follower ends; then the store may.
        drop((backend, catalog));
        store.close().await;
    }
}

fn node_id(config: &Config) -> NodeId {
    NodeId(i32::try_from(config.node_id).unwrap_or(i32::MAX))
}

fn listener_policy(config: &Config) -> anyhow::Result<ListenerPolicy> {
    let remote = match config.kafka.allow_unauthenticated_remote {
        true => RemoteAccess::Allow,
        false => RemoteAccess::Refuse,
    };
    Ok(ListenerPolicy::unauthenticated(Identity::open(), config.kafka.listen, remote)?)
}

/// Where clients are told to connect: as configured, or the bound address.
fn advertised(config: &Config, bound: SocketAddr) -> HostPort {
    match &config.kafka.advertised {
        Some(configured) => configured.clone(),
        None => HostPort { host: bound.ip().to_string(), port: bound.port() },
    }
}

fn ops_limits(config: &Config) -> OpsLimits {
    OpsLimits {
        max_connections: config.http.max_connections as usize,
        header_timeout: config.http.header_timeout,
        idle_timeout: config.http.idle_timeout,
    }
}

fn gateway_config(config: &Config, advertised: &HostPort) -> GatewayConfig {
    let kafka = &config.kafka;
    let bytes = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    let limits = Limits {
        max_connections: kafka.max_connections as usize,
        max_connections_per_ip: kafka.max_connections_per_ip as usize,
        max_frame_bytes: bytes(kafka.max_frame_bytes),
        max_in_flight: kafka.max_in_flight as usize,
        max_answer_bytes: kafka.max_answer_bytes as usize,
        request_budget_bytes: kafka.buffer_budget_bytes as usize,
        answer_budget_bytes: kafka.answer_budget_bytes as usize,
        fetch_max_bytes: bytes(kafka.fetch_max_bytes),
        max_fetch_session_partitions: kafka.max_fetch_session_partitions as usize,
        idle_timeout: kafka.idle_timeout,
        stall_timeout: kafka.write_stall_timeout,
        drain_timeout: config.shutdown.drain,
    };
    GatewayConfig {
        auto_create_topics: config.topics.auto_create,
        default_partitions: config.topics.default_partitions,
        limits,
        ..GatewayConfig::new(node_id(config), advertised.host.clone(), advertised.port)
    }
}

fn writer_options(config: &Config) -> WriterOptions {
    WriterOptions {
        tail_cache_bytes: config.tail_cache_bytes,
        upload_segment_bytes: config.upload.segment_bytes,
        upload_max_age: config.upload.max_age,
        upload_max_age_idle: config.upload.max_age_idle,
        upload_in_flight: config.upload.in_flight as usize,
        upload_in_flight_bytes: u64::from(config.upload.in_flight) * config.upload.segment_bytes,
        retention_interval: config.retention.check_interval,
        queue_depth: config.volumes.queue_depth as usize,
        compaction: CompactionOptions {
            enabled: config.compaction.enabled,
            interval: config.compaction.interval,
            min_age: config.compaction.min_age,
            bytes_per_second: config.compaction.bytes_per_second,
            segment_bytes: config.compaction.segment_bytes,
            key_map_bytes: config.compaction.key_map_bytes,
        },
        orphans: OrphanOptions {
            interval: config.compaction.orphan_interval,
            grace: config.compaction.orphan_grace,
        },
        reservations: config.volumes.reservations,
        ..WriterOptions::default()
    }
}

fn group_config(config: &Config) -> GroupConfig {
    let groups = &config.groups;
    let ms = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
    GroupConfig {
        initial_rebalance_delay_ms: ms(groups.initial_rebalance_delay),
        min_session_timeout_ms: ms(groups.min_session_timeout),
        max_session_timeout_ms: ms(groups.max_session_timeout),
        max_group_size: groups.max_members as usize,
        consumer_max_group_size: groups.max_members as usize,
        max_groups_per_tenant: groups.max_groups as usize,
        share_max_group_size: groups.max_share_members as usize,
        share: ShareLimits {
            max_sessions: groups.max_share_sessions as usize,
            max_partitions: groups.max_share_partitions as usize,
            ..ShareLimits::default()
        },
        offsets_retention_ms: i64::try_from(groups.offsets_retention.as_millis())
            .unwrap_or(i64::MAX),
        ..GroupConfig::default()
    }
}

fn transaction_config(config: &Config) -> TransactionConfig {
    let transactions = &config.transactions;
    TransactionConfig {
        max_timeout_ms: i32::try_from(transactions.max_timeout.as_millis()).unwrap_or(i32::MAX),
        id_expiration_ms: i64::try_from(transactions.id_expiration.as_millis()).unwrap_or(i64::MAX),
        max_ids_per_tenant: transactions.max_ids as usize,
        max_producer_ids_per_hour: transactions.max_producer_ids,
        ..TransactionConfig::default()
    }
}
