//! What single values do not tell: whether they fit together.

use sluice_catalog::Roles;
use sluice_model::{GroupDefaults, TopicDefaults};
use sluice_tenants::{Identity, ListenerPolicy, RemoteAccess};

use super::keys::{GROUP_DEFAULTS, TOPIC_DEFAULTS, find};
use super::load::Loaded;
use super::{BucketUrl, CatalogStore, Checksum, SignBodies, VolumeMedium, VolumeSize};
use sluice_model::units::show_size;

/// Adds a line for each thing that does not fit.
pub(super) fn fit(loaded: &Loaded, problems: &mut Vec<String>) {
    let config = &loaded.config;
    let mut refuse = |name: &str, problem: String| {
        let origin = find(name).map(|key| loaded.origin(key));
        let origin = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
        problems.push(format!("{name}{origin} {problem}"));
    };

    let cluster = &config.cluster;
    if config.catalog.store == CatalogStore::Embedded {
        if cluster.listen.is_some() {
            let problem = "is for catalog.store = etcd: set that, or take the address out";
            refuse("cluster.listen", problem.to_owned());
        }
        if config.roles.0 != Roles::ALL {
            let problem =
                "needs catalog.store = etcd: with an embedded catalog one process does all";
            refuse("roles", problem.to_owned());
        }
    } else if config.roles.0 != Roles::ALL && cluster.listen.is_none() {
        let problem = "is not set, and a process that does not do all needs others: see roles";
        refuse("cluster.listen", problem.to_owned());
    }
    let files = [&cluster.ca_file, &cluster.cert_file, &cluster.key_file];
    let has_certificates = files.iter().any(|file| file.is_some());
    if has_certificates && files.iter().any(|file| file.is_none()) {
        let problem = "cluster.cert_file and cluster.key_file belong together: set all or none";
        refuse("cluster.ca_file,", problem.to_owned());
    }
    if let Some(listen) = cluster.listen {
        if listen.ip().is_unspecified() && cluster.advertised.is_none() {
            let problem =
                format!("is {listen}, which no node can connect to: set cluster.advertised");
            refuse("cluster.listen", problem);
        }
        if !has_certificates && !cluster.allow_plaintext && !listen.ip().is_loopback() {
            let problem = format!(
                "is {listen}, and without certificates whoever connects would be believed to be a node: set \
                 cluster.ca_file, cluster.cert_file and cluster.key_file"
            );
            refuse("cluster.listen", problem);
        }
        if listen.port() != 0 && (listen == config.http.listen || listen == config.kafka.listen) {
            refuse("cluster.listen", format!("is {listen}, as another listener is"));
        }
    }

    let kafka = &config.kafka;
    if kafka.listen.ip().is_unspecified() && kafka.advertised.is_none() {
        refuse(
            "kafka.listen",
            format!("is {}, which clients cannot connect to: set kafka.advertised", kafka.listen),
        );
    }
    let remote = match kafka.allow_unauthenticated_remote {
        true => RemoteAccess::Allow,
        false => RemoteAccess::Refuse,
    };
    if let Err(refused) = ListenerPolicy::unauthenticated(Identity::open(), kafka.listen, remote) {
        refuse("kafka.listen", format!("is refused: {refused}"));
    }
    if kafka.buffer_budget_bytes < kafka.max_frame_bytes {
        refuse(
            "kafka.buffer_budget_bytes",
            format!(
                "is {}; it must be at least kafka.max_frame_bytes, {}",
                show_size(kafka.buffer_budget_bytes),
                show_size(kafka.max_frame_bytes)
            ),
        );
    }
    if kafka.listen == config.http.listen && kafka.listen.port() != 0 {
        refuse("http.listen", format!("is {}, as kafka.listen is", config.http.listen));
    }

    let volumes = &config.volumes;
    if (volumes.kind == VolumeMedium::Block) == volumes.devices.0.is_empty() {
        let problem = match volumes.kind {
            VolumeMedium::Block => "is not set: name the devices for volumes.kind = block",
            _ => "is for volumes.kind = block: set that, or take the devices out",
        };
        refuse("volumes.devices", problem.to_owned());
    }
    if let Some(dir) = &volumes.dir {
        if volumes.kind != VolumeMedium::File {
            let problem = "is for volumes.kind = file: set that, or take the directory out";
            refuse("volumes.dir", problem.to_owned());
        }
        if !dir.is_absolute() {
            refuse("volumes.dir", format!("is {}; it must be absolute", dir.display()));
        }
    }
    if let VolumeSize::Bytes(size) = config.volumes.size
        && size / 4 < config.upload.segment_bytes
    {
        refuse(
            "volumes.size",
            format!(
                "is {}; it must be at least four times upload.segment_bytes, {}",
                show_size(size),
                show_size(config.upload.segment_bytes)
            ),
        );
    }

    let etcd = &config.catalog.etcd;
    match (config.catalog.store, etcd.endpoints.0.is_empty()) {
        (CatalogStore::Etcd, true) => {
            let problem = "is not set: name etcd's members for catalog.store = etcd";
            refuse("catalog.etcd.endpoints", problem.to_owned());
        }
        (CatalogStore::Embedded, false) => {
            let problem = "is for catalog.store = etcd: set that, or take the endpoints out";
            refuse("catalog.etcd.endpoints", problem.to_owned());
        }
        (CatalogStore::Etcd, false) | (CatalogStore::Embedded, true) => {}
    }
    if etcd.ca_file.is_none() && etcd.endpoints.any_secure() {
        let problem = "is not set, and https in catalog.etcd.endpoints needs it";
        refuse("catalog.etcd.ca_file", problem.to_owned());
    }
    if etcd.ca_file.is_some() && etcd.endpoints.any_plain() {
        let problem = "is for https: catalog.etcd.endpoints has one without TLS";
        refuse("catalog.etcd.ca_file", problem.to_owned());
    }
    if etcd.cert_file.is_some() != etcd.key_file.is_some() {
        let problem = "and catalog.etcd.key_file belong together: set both or none";
        refuse("catalog.etcd.cert_file", problem.to_owned());
    }
    if etcd.cert_file.is_some() && etcd.ca_file.is_none() {
        let problem = "is for https: set catalog.etcd.ca_file, too";
        refuse("catalog.etcd.cert_file", problem.to_owned());
    }
    if etcd.user.is_some() != etcd.password_file.is_some() {
        let problem = "and catalog.etcd.password_file belong together: set both or none";
        refuse("catalog.etcd.user", problem.to_owned());
    }
    if etcd.password_file.is_some() && etcd.endpoints.any_plain() && !etcd.endpoints.are_local() {
        let problem = "would go over the network without TLS: use https in catalog.etcd.endpoints";
        refuse("catalog.etcd.password_file", problem.to_owned());
    }

    let bucket = &config.bucket;
    if let Some(endpoint) = &bucket.endpoint {
        if endpoint.is_plain() && !bucket.allow_http {
            refuse(
                "bucket.endpoint",
                "is without TLS: use https, or set bucket.allow_http to true".to_owned(),
            );
        }
        if let BucketUrl::Directory(_) = config.bucket_url() {
            refuse("bucket.endpoint", "is for S3: set bucket.url to s3://BUCKET/PREFIX".to_owned());
        }
    }
    if bucket.checksum == Checksum::None && bucket.sign_bodies == SignBodies::Never {
        refuse(
            "bucket.sign_bodies",
            "is never, and bucket.checksum is none: nothing would tell the service that bytes were \
             damaged on their way. Set one of them otherwise"
                .to_owned(),
        );
    }

    let groups = &config.groups;
    if groups.min_session_timeout > groups.max_session_timeout {
        refuse(
            "groups.min_session_timeout",
            "is longer than groups.max_session_timeout".to_owned(),
        );
    }
    if let Err(invalid) = GroupDefaults::new(groups.defaults.clone()) {
        refuse(GROUP_DEFAULTS, format!("has a config that is refused: {invalid}"));
    }
    if let Err(invalid) = TopicDefaults::new(config.topics.defaults.clone()) {
        refuse(TOPIC_DEFAULTS, format!("has a config that is refused: {invalid}"));
    }
}
