//! Clients' own metrics (KIP-714): what each client is told to push, and what becomes of it. What clients
//! push is summed up by tenant and metric and shown to the operator among the node's metrics.
//!
//! The subscriptions are the tenant's, in the catalog; what is here is a node's memory, bounded by tenant
//! and in all, and lost with the process. Nothing of it is shown to any tenant.

mod instances;
pub(crate) mod otlp;
mod series;

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sluice_model::TenantId;
use sluice_model::client_metrics::{ClientFacts, MetricsSubscription};
use sluice_wire::batch::{Compression, inflate};
use sluice_wire::{ErrorCode, Uuid};
use tokio::time::Instant;

use instances::{Assignment, Caller, Instances, Push};
use series::{Dropped, Series};

/// What one push may inflate to.
const MAX_INFLATED_BYTES: usize = 8 << 20;
/// The numbers of one push that are looked at.
const MAX_POINTS: usize = 20_000;

/// What a client is told to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// To be sent back with each push.
    pub(crate) subscription_id: i32,
    /// Prefixes of names, or `*`.
    pub(crate) metrics: Vec<String>,
    /// How often, in ms.
    pub(crate) interval_ms: i32,
    /// The most bytes of a push.
    pub(crate) max_bytes: i32,
}

/// Who asks, by what it says and is.
pub(crate) struct Client<'a> {
    pub(crate) tenant: TenantId,
    pub(crate) instance: Uuid,
    pub(crate) facts: ClientFacts,
    pub(crate) subscriptions: &'a [Arc<MetricsSubscription>],
}

/// What a client pushes.
pub(crate) struct Pushed {
    pub(crate) subscription_id: i32,
    pub(crate) terminating: bool,
    pub(crate) compression_type: i8,
    pub(crate) metrics: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PushLabels {
    error: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    reason: &'static str,
}

/// See the module. One for a gateway.
#[derive(Debug)]
pub(crate) struct Telemetry {
    instances: Mutex<Instances>,
    series: Arc<Series>,
    pushes: Family<PushLabels, Counter>,
    dropped: Family<DropLabels, Counter>,
    clients: Gauge,
    lines: Gauge,
}

impl Telemetry {
    /// Registers everything under `gateway_` in `registry`.
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let telemetry = Self {
            instances: Mutex::default(),
            series: Arc::new(Series::new(series::Bounds::default(), Instant::now())),
            pushes: Family::default(),
            dropped: Family::default(),
            clients: Gauge::default(),
            lines: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("gateway");
        registry.register(
            "telemetry_pushes",
            "pushes of clients' metrics, by the error in the answer",
            telemetry.pushes.clone(),
        );
        registry.register(
            "telemetry_dropped",
            "numbers of clients' metrics that were not taken",
            telemetry.dropped.clone(),
        );
        registry.register(
            "telemetry_clients",
            "clients that are known to push metrics",
            telemetry.clients.clone(),
        );
        registry.register(
            "telemetry_series",
            "tenants times metrics that are kept",
            telemetry.lines.clone(),
        );
        registry.register_collector(Box::new(Arc::clone(&telemetry.series)));
        telemetry
    }

    /// GetTelemetrySubscriptions.
    pub(crate) fn get(&self, now: Instant, client: &Client<'_>) -> Result<Told, ErrorCode> {
        let mut instances = self.instances.lock();
        let told = instances.get(now, &caller(client));
        self.clients.set(i64::try_from(instances.len()).unwrap_or(i64::MAX));
        let told = told?;
        Ok(Told {
            subscription_id: told.subscription_id,
            metrics: told.metrics.clone(),
            interval_ms: i32::try_from(told.interval.as_millis()).unwrap_or(i32::MAX),
            max_bytes: i32::try_from(instances::MAX_PUSH_BYTES).unwrap_or(i32::MAX),
        })
    }

    /// PushTelemetry.
    pub(crate) fn push(
        &self,
        now: Instant,
        client: &Client<'_>,
        pushed: &Pushed,
    ) -> Result<(), ErrorCode> {
        let result = self.accept(now, client, pushed);
        let code = result.err().unwrap_or(ErrorCode::None);
        self.pushes.get_or_create(&PushLabels { error: format!("{code:?}") }).inc();
        result
    }

    fn accept(&self, now: Instant, client: &Client<'_>, pushed: &Pushed) -> Result<(), ErrorCode> {
        let outside = Push {
            subscription_id: pushed.subscription_id,
            terminating: pushed.terminating,
            compression_type: pushed.compression_type,
            bytes: pushed.metrics.len(),
        };
        let assignment = {
            let mut instances = self.instances.lock();
            let assignment = instances.push(now, &caller(client), outside);
            self.clients.set(i64::try_from(instances.len()).unwrap_or(i64::MAX));
            assignment?
        };
        if pushed.metrics.is_empty() {
            return Ok(());
        }
        let taken = self.take(now, client.tenant, &assignment, pushed);
        self.lines.set(i64::try_from(self.series.len()).unwrap_or(i64::MAX));
        // Kafka's code for what its receiver does not understand.
        taken.map_err(|()| ErrorCode::InvalidRecord)
    }

    fn take(
        &self,
        now: Instant,
        tenant: TenantId,
        assignment: &Assignment,
        pushed: &Pushed,
    ) -> Result<(), ()> {
        let compression = Compression::ALL
            .into_iter()
            .find(|compression| *compression as i8 == pushed.compression_type)
            .ok_or(())?;
        let metrics = pushed.metrics.clone();
        let data = inflate(compression, metrics, MAX_INFLATED_BYTES).map_err(drop)?;
        let mut left = MAX_POINTS;
        let read = otlp::points(&data, |point| {
            left -= 1;
            let taken = match assignment.wants(point.metric) {
                true => self.series.add(now, tenant, &point),
                false => Err(Dropped::NotWanted),
            };
            if let Err(why) = taken {
                self.dropped.get_or_create(&DropLabels { reason: why.label() }).inc();
            }
            left > 0
        });
        read.map_err(drop)
    }
}

fn caller<'a>(client: &'a Client<'_>) -> Caller<'a> {
    Caller {
        tenant: client.tenant,
        instance: client.instance,
        facts: &client.facts,
        subscriptions: client.subscriptions,
    }
}
