//! The configuration of one process: what it is, where its values come from, what is refused.
//!
//! Values come from, each over the one before: the defaults here, a TOML file, the environment,
//! the command line. [`keys`] is the one table of keys; the names of the environment variables,
//! `sluice config show` and docs/configuration.md are made from it. A configuration that has been
//! loaded is whole: every value is of its kind and within its bounds, and values that depend on
//! each other fit. It is not changed while the process runs. Credentials are not part of it: the
//! bucket's come from the environment by the SDK's usual names, etcd's from files that it names.

mod check;
mod cluster;
mod etcd;
mod file;
mod integrity;
mod keys;
mod load;
mod media;
mod setting;
mod show;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sluice_catalog::Roles;
use sluice_volume::Reservations;

pub(crate) use cluster::{NoticeFrom, RoleSet, Zone};
pub(crate) use etcd::{CatalogStore, Endpoints, EtcdPrefix, UserName};
pub(crate) use integrity::{Checksum, SignBodies};
pub(crate) use load::{FILE_VARIABLE, Loaded, Sources, load};
pub(crate) use media::{Devices, VolumeMedium};
pub(crate) use show::{reference, show};
pub(crate) use values::{BucketUrl, Endpoint, HostPort, LogFilter, LogFormat, Region, VolumeSize};

use sluice_model::units::{DAY, GIB, HOUR, KIB, MIB, MINUTE, SECOND, TIB};

/// Everything that can be configured. What each value means is said in [`keys`].
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) node_id: u32,
    pub(crate) roles: RoleSet,
    pub(crate) tail_cache_bytes: u64,
    pub(crate) catalog: Catalog,
    pub(crate) cluster: Cluster,
    pub(crate) kafka: Kafka,
    pub(crate) http: Http,
    pub(crate) topics: Topics,
    pub(crate) volumes: Volumes,
    pub(crate) upload: Upload,
    pub(crate) bucket: Bucket,
    pub(crate) reader: Reader,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
    pub(crate) retention: Retention,
    pub(crate) compaction: Compaction,
    pub(crate) log: Log,
    pub(crate) shutdown: Shutdown,
}

/// Where the cluster's metadata is.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    pub(crate) store: CatalogStore,
    pub(crate) etcd: Etcd,
}

/// This process among others of its cluster.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// Not set: no other node reaches this one.
    pub(crate) listen: Option<SocketAddr>,
    /// Not set: the address that was bound.
    pub(crate) advertised: Option<HostPort>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) allow_plaintext: bool,
    pub(crate) zone: Option<Zone>,
    pub(crate) lease: Duration,
    pub(crate) balance: bool,
    pub(crate) notice: NoticeFrom,
    /// Not set: the provider's own.
    pub(crate) notice_endpoint: Option<Endpoint>,
}

/// How etcd is reached.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    pub(crate) endpoints: Endpoints,
    pub(crate) prefix: EtcdPrefix,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) cert_file: Option<PathBuf>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) user: Option<UserName>,
    pub(crate) password_file: Option<PathBuf>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
}

/// The Kafka listener.
#[derive(Clone, Debug)]
pub(crate) struct Kafka {
    pub(crate) listen: SocketAddr,
    /// Not set: the address that was bound.
    pub(crate) advertised: Option<HostPort>,
    pub(crate) allow_unauthenticated_remote: bool,
    pub(crate) max_connections: u32,
    pub(crate) max_connections_per_ip: u32,
    pub(crate) max_frame_bytes: u64,
    pub(crate) buffer_budget_bytes: u64,
    pub(crate) answer_budget_bytes: u64,
    pub(crate) max_answer_bytes: u64,
    pub(crate) fetch_max_bytes: u64,
    pub(crate) max_fetch_session_partitions: u32,
    pub(crate) max_in_flight: u32,
    pub(crate) idle_timeout: Duration,
    pub(crate) write_stall_timeout: Duration,
}

/// The operations listener.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    pub(crate) max_connections: u32,
    pub(crate) header_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

/// What topics are created with.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) auto_create: bool,
    pub(crate) default_partitions: u32,
    /// Kafka's topic configs, by name; checked.
    pub(crate) defaults: BTreeMap<String, String>,
}

/// The write-ahead-log volumes.
#[derive(Clone, Debug)]
pub(crate) struct Volumes {
    pub(crate) kind: VolumeMedium,
    pub(crate) devices: Devices,
    /// Not set: files lie in the data directory.
    pub(crate) dir: Option<PathBuf>,
    pub(crate) count: u32,
    pub(crate) size: VolumeSize,
    pub(crate) queue_depth: u32,
    pub(crate) linger: Duration,
    pub(crate) reservations: Reservations,
}

/// When the tail of a volume goes to the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Upload {
    pub(crate) segment_bytes: u64,
    pub(crate) max_age: Duration,
    pub(crate) max_age_idle: Duration,
    pub(crate) in_flight: u32,
}

/// The object store.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Not set: see [`Config::bucket_url`].
    pub(crate) url: Option<BucketUrl>,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) region: Option<Region>,
    pub(crate) allow_http: bool,
    pub(crate) virtual_hosted_style: bool,
    pub(crate) checksum: Checksum,
    pub(crate) sign_bodies: SignBodies,
    pub(crate) connect_timeout: Duration,
    pub(crate) read_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) max_retries: u32,
    pub(crate) retry_timeout: Duration,
    pub(crate) max_requests: u32,
    pub(crate) max_requests_per_second: u32,
    pub(crate) hedge_percent: u32,
}

/// Reads from the bucket.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) cache_bytes: u64,
}

/// Consumer groups.
#[derive(Clone, Debug)]
pub(crate) struct Groups {
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) min_session_timeout: Duration,
    pub(crate) max_session_timeout: Duration,
    pub(crate) max_members: u32,
    pub(crate) max_groups: u32,
    pub(crate) max_share_members: u32,
    pub(crate) max_share_sessions: u32,
    pub(crate) max_share_partitions: u32,
    /// Defaults for groups, by Kafka's names of group configs; `up` has them checked.
    pub(crate) defaults: BTreeMap<String, String>,
    pub(crate) offsets_retention: Duration,
}

/// Transactions and producer ids.
#[derive(Clone, Debug)]
pub(crate) struct Transactions {
    pub(crate) max_timeout: Duration,
    pub(crate) id_expiration: Duration,
    pub(crate) max_ids: u32,
    pub(crate) max_producer_ids: u32,
}

/// Retention.
#[derive(Clone, Debug)]
pub(crate) struct Retention {
    pub(crate) check_interval: Duration,
}

/// Compaction of what is in the bucket, and what no manifest names there.
#[derive(Clone, Debug)]
pub(crate) struct Compaction {
    pub(crate) enabled: bool,
    pub(crate) interval: Duration,
    pub(crate) min_age: Duration,
    pub(crate) bytes_per_second: u64,
    pub(crate) segment_bytes: u64,
    pub(crate) key_map_bytes: u64,
    pub(crate) orphan_interval: Duration,
    pub(crate) orphan_grace: Duration,
}

/// The log of the process.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) level: LogFilter,
    pub(crate) format: LogFormat,
}

/// The end of the process.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown {
    pub(crate) drain: Duration,
}

impl Config {
    /// Where the bucket is: as configured, or a directory beside the volumes.
    pub(crate) fn bucket_url(&self) -> BucketUrl {
        match &self.bucket.url {
            Some(url) => url.clone(),
            None => BucketUrl::Directory(self.data_dir.join("bucket")),
        }
    }

    /// Whether the signatures of requests to S3 cover their bodies.
    pub(crate) fn signs_bodies(&self) -> bool {
        match self.bucket.sign_bodies {
            SignBodies::Always => true,
            SignBodies::Never => false,
            // An endpoint of the environment's is not known here.
            SignBodies::Auto => {
                let plain = self.bucket.endpoint.as_ref().is_none_or(Endpoint::is_plain);
                self.bucket.allow_http && plain
            }
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self {
            data_dir: PathBuf::from("./sluice-data"),
            node_id: 1,
            roles: RoleSet(Roles::ALL),
            tail_cache_bytes: 64 * MIB,
            catalog: Catalog {
                store: CatalogStore::Embedded,
                etcd: Etcd {
                    endpoints: Endpoints::default(),
                    prefix: EtcdPrefix("/sluice/default/".to_owned()),
                    ca_file: None,
                    cert_file: None,
                    key_file: None,
                    user: None,
                    password_file: None,
                    connect_timeout: millis(2 * SECOND),
                    request_timeout: millis(5 * SECOND),
                },
            },
            cluster: Cluster {
                listen: None,
                advertised: None,
                ca_file: None,
                cert_file: None,
                key_file: None,
                allow_plaintext: false,
                zone: None,
                lease: millis(3 * SECOND),
                balance: true,
                notice: NoticeFrom::Nobody,
                notice_endpoint: None,
            },
            kafka: Kafka {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9092)),
                advertised: None,
                allow_unauthenticated_remote: false,
                max_connections: 20_000,
                max_connections_per_ip: 20_000,
                max_frame_bytes: 100 * MIB,
                buffer_budget_bytes: 256 * MIB,
                answer_budget_bytes: 512 * MIB,
                max_answer_bytes: 64 * MIB,
                fetch_max_bytes: 55 * MIB,
                max_fetch_session_partitions: 100_000,
                max_in_flight: 64,
                idle_timeout: millis(10 * MINUTE),
                write_stall_timeout: millis(30 * SECOND),
            },
            http: Http {
                listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
                max_connections: 256,
                header_timeout: millis(10 * SECOND),
                idle_timeout: millis(90 * SECOND),
            },
            topics: Topics { auto_create: true, default_partitions: 1, defaults: BTreeMap::new() },
            volumes: Volumes {
                kind: VolumeMedium::File,
                devices: Devices::default(),
                dir: None,
                count: 1,
                size: VolumeSize::Auto,
                queue_depth: 8,
                linger: millis(100),
                reservations: Reservations::Auto,
            },
            upload: Upload {
                segment_bytes: 32 * MIB,
                max_age: millis(10 * SECOND),
                max_age_idle: millis(MINUTE),
                in_flight: 3,
            },
            bucket: Bucket {
                url: None,
                endpoint: None,
                region: None,
                allow_http: false,
                virtual_hosted_style: false,
                checksum: Checksum::Crc64Nvme,
                sign_bodies: SignBodies::Auto,
                connect_timeout: millis(5 * SECOND),
                read_timeout: millis(10 * SECOND),
                request_timeout: millis(30 * SECOND),
                max_retries: 10,
                retry_timeout: millis(MINUTE),
                max_requests: 128,
                max_requests_per_second: 0,
                hedge_percent: 5,
            },
            reader: Reader { cache_bytes: 64 * MIB },
            groups: Groups {
                initial_rebalance_delay: Duration::ZERO,
                min_session_timeout: millis(6 * SECOND),
                max_session_timeout: millis(30 * MINUTE),
                max_members: 5_000,
                max_groups: 10_000,
                max_share_members: 200,
                max_share_sessions: 2_000,
                max_share_partitions: 100_000,
                defaults: BTreeMap::new(),
                offsets_retention: millis(7 * DAY),
            },
            transactions: Transactions {
                max_timeout: millis(15 * MINUTE),
                id_expiration: millis(7 * DAY),
                max_ids: 10_000,
                max_producer_ids: 100_000,
            },
            retention: Retention { check_interval: millis(30 * SECOND) },
            compaction: Compaction {
                enabled: true,
                interval: millis(15 * SECOND),
                min_age: millis(5 * MINUTE),
                bytes_per_second: 64 * MIB,
                segment_bytes: 16 * MIB,
                key_map_bytes: 64 * MIB,
                orphan_interval: millis(DAY),
                orphan_grace: millis(60 * MINUTE),
            },
            log: Log { level: LogFilter("info".to_owned()), format: LogFormat::Auto },
            shutdown: Shutdown { drain: millis(4 * SECOND) },
        }
    }
}
