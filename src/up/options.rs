//! What the components are told of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

use sluice_cluster::MembersOptions;
use sluice_cluster::notice::{NoticeOptions, Provider};
use sluice_gateway::http::OpsLimits;
use sluice_gateway::{GatewayConfig, Limits};
use sluice_model::NodeId;
use sluice_tenants::{Identity, ListenerPolicy, RemoteAccess};
use sluice_writer::group::GroupConfig;
use sluice_writer::share::ShareLimits;
use sluice_writer::transaction::TransactionConfig;
use sluice_writer::{CompactionOptions, OrphanOptions, WriterOptions};

use crate::config::{CatalogStore, Config, HostPort, NoticeFrom};

pub(super) fn node_id(config: &Config) -> NodeId {
    NodeId(i32::try_from(config.node_id).unwrap_or(i32::MAX))
}

pub(super) fn members_options(config: &Config) -> MembersOptions {
    MembersOptions {
        // Nobody else has the catalog.
        alone: config.catalog.store == CatalogStore::Embedded,
        balance: config.cluster.balance,
        ..MembersOptions::default()
    }
}

/// None if nobody is asked.
pub(super) fn notice_options(config: &Config) -> Option<NoticeOptions> {
    let provider = match config.cluster.notice {
        NoticeFrom::Nobody => return None,
        NoticeFrom::Aws => Provider::Aws,
        NoticeFrom::Alibaba => Provider::Alibaba,
    };
    let mut options = NoticeOptions::of(provider);
    if let Some(endpoint) = &config.cluster.notice_endpoint {
        options.endpoint.clone_from(&endpoint.0);
    }
    Some(options)
}

pub(super) fn listener_policy(config: &Config) -> anyhow::Result<ListenerPolicy> {
    let remote = match config.kafka.allow_unauthenticated_remote {
        true => RemoteAccess::Allow,
        false => RemoteAccess::Refuse,
    };
    Ok(ListenerPolicy::unauthenticated(Identity::open(), config.kafka.listen, remote)?)
}

/// Where others are told to connect: as configured, or the bound address.
pub(super) fn advertised(configured: Option<&HostPort>, bound: SocketAddr) -> HostPort {
    match configured {
        Some(configured) => configured.clone(),
        None => HostPort { host: bound.ip().to_string(), port: bound.port() },
    }
}

pub(super) fn ops_limits(config: &Config) -> OpsLimits {
    OpsLimits {
        max_connections: config.http.max_connections as usize,
        header_timeout: config.http.header_timeout,
        idle_timeout: config.http.idle_timeout,
    }
}

/// `advertised` is where clients connect, if they do.
pub(super) fn gateway_config(config: &Config, advertised: Option<&HostPort>) -> GatewayConfig {
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
        rack: config.cluster.zone.as_ref().map(|zone| zone.0.clone()),
        auto_create_topics: config.topics.auto_create,
        default_partitions: config.topics.default_partitions,
        limits,
        ..GatewayConfig::new(
            node_id(config),
            advertised.map(|address| address.host.clone()).unwrap_or_default(),
            advertised.map_or(0, |address| address.port),
        )
    }
}

pub(super) fn writer_options(config: &Config) -> WriterOptions {
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

pub(super) fn group_config(config: &Config) -> GroupConfig {
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

pub(super) fn transaction_config(config: &Config) -> TransactionConfig {
    let transactions = &config.transactions;
    TransactionConfig {
        max_timeout_ms: i32::try_from(transactions.max_timeout.as_millis()).unwrap_or(i32::MAX),
        id_expiration_ms: i64::try_from(transactions.id_expiration.as_millis()).unwrap_or(i64::MAX),
        max_ids_per_tenant: transactions.max_ids as usize,
        max_producer_ids_per_hour: transactions.max_producer_ids,
        ..TransactionConfig::default()
    }
}
