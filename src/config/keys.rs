//! The table of keys. A key's type and default are those of the field it fills; its bounds and its
//! meaning are here.

use super::setting::{Bounds, Setting};
use super::{Config, DAY, GIB, HOUR, KIB, MIB, MINUTE, SECOND, TIB};

/// One key.
pub(super) struct Key {
    /// `section.key`, or `key` for what stands before the first section of the file.
    pub(super) name: &'static str,
    /// What it does, as a sentence or two of Markdown.
    pub(super) doc: &'static str,
    /// In bytes, milliseconds or a count, by the field's type.
    pub(super) bounds: Bounds,
    /// The field.
    pub(super) field: fn(&mut Config) -> &mut dyn Setting,
}

impl Key {
    /// The environment variable: `kafka.max_frame_bytes` is `SLUICE_KAFKA_MAX_FRAME_BYTES`. No two
    /// keys share one (a test sees to it).
    pub(super) fn variable(&self) -> String {
        format!("SLUICE_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    /// The table of the file it stands in; empty for none.
    pub(super) fn section(&self) -> &'static str {
        self.name.split_once('.').map_or("", |(section, _)| section)
    }

    /// Its name within the section.
    pub(super) fn short(&self) -> &'static str {
        self.name.split_once('.').map_or(self.name, |(_, key)| key)
    }
}

/// The key whose value is a table of topic configs.
pub(super) const TOPIC_DEFAULTS: &str = "topics.defaults";
/// The key whose value is a table of group configs.
pub(super) const GROUP_DEFAULTS: &str = "groups.defaults";

/// A key of that name.
pub(super) fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Every key, in the order of the file: the keys of a section stand together.
pub(super) const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        doc: "The directory of the volumes and the catalog, and of the bucket unless `bucket.url` \
              says otherwise. One process at a time uses it.",
        bounds: None,
        field: |c| &mut c.data_dir,
    },
    Key {
        name: "node_id",
        doc: "The number of this node in the cluster: the broker id that clients see.",
        bounds: Some((0, i32::MAX as u64)),
        field: |c| &mut c.node_id,
    },
    Key {
        name: "roles",
        doc: "What this process does: `gateway` is where clients connect, `writer` owns volumes. A process that is a cluster of its own does all of it; with `catalog.store = etcd` \
              the roles may run apart. `sluice gateway` and `sluice writer` set it.",
        bounds: None,
        field: |c| &mut c.roles,
    },
    Key {
        name: "tail_cache_bytes",
        doc: "Memory for the newest records, from which consumers at the tail are served. For all \
              volumes together.",
        bounds: Some((MIB, TIB)),
        field: |c| &mut c.tail_cache_bytes,
    },
    Key {
        name: "catalog.store",
        doc: "What keeps the cluster's metadata: `embedded` is a log in `data_dir`; `etcd` is an etcd \
              (3.4 or newer) at `catalog.etcd.endpoints`. All nodes of a cluster use one prefix in it. \
              What is in the one is not copied to the other.",
        bounds: None,
        field: |c| &mut c.catalog.store,
    },
    Key {
        name: "catalog.etcd.endpoints",
        doc: "The URLs of etcd's members, `http://HOST:PORT` or `https://HOST:PORT`, with commas between. \
              One of them is used at a time; one that is down is passed over.",
        bounds: None,
        field: |c| &mut c.catalog.etcd.endpoints,
    },
    Key {
        name: "catalog.etcd.prefix",
        doc: "What all keys of this cluster begin with in etcd. Another cluster in the same etcd has another \
              one.",
        bounds: None,
        field: |c| &mut c.catalog.etcd.prefix,
    },
    Key {
        name: "catalog.etcd.ca_file",
        doc: "A PEM file with the authorities of etcd's certificates. Needed for `https`.",
        bounds: None,
        field: |c| &mut c.catalog.etcd.ca_file,
    },
    Key {
        name: "catalog.etcd.cert_file",
        doc: "A PEM file with our own certificate, where etcd wants one (`--client-cert-auth`).",
        bounds: None,
        field: |c| &mut c.catalog.etcd.cert_file,
    },
    Key {
        name: "catalog.etcd.key_file",
        doc: "A PEM file with the private key of `catalog.etcd.cert_file`.",
        bounds: None,
        field: |c| &mut c.catalog.etcd.key_file,
    },
    Key {
        name: "catalog.etcd.user",
        doc: "The user that etcd knows us as, where it authenticates (`etcdctl auth enable`). It needs to read \
              and write the prefix.",
        bounds: None,
        field: |c| &mut c.catalog.etcd.user,
    },
    Key {
        name: "catalog.etcd.password_file",
        doc: "A file with the password of `catalog.etcd.user`; a line's end behind it is no part of it.",
        bounds: None,
        field: |c| &mut c.catalog.etcd.password_file,
    },
    Key {
        name: "catalog.etcd.connect_timeout",
        doc: "How long it may take until a member of etcd is connected.",
        bounds: Some((100, MINUTE)),
        field: |c| &mut c.catalog.etcd.connect_timeout,
    },
    Key {
        name: "catalog.etcd.request_timeout",
        doc: "How long a call to etcd may take, with all that is tried again in it. What could not be done \
              until then fails with an error that clients retry.",
        bounds: Some((100, MINUTE)),
        field: |c| &mut c.catalog.etcd.request_timeout,
    },
    Key {
        name: "cluster.listen",
        doc: "The address of the listener for other nodes of the cluster. When it is not set no other node reaches \
              this one, and it must be the only one. Needs `catalog.store = etcd`.",
        bounds: None,
        field: |c| &mut c.cluster.listen,
    },
    Key {
        name: "cluster.advertised",
        doc: "The address that other nodes connect to; `cluster.cert_file` must name its host. When not set it is the \
              address that is listened on, so it must be set when that is a wildcard.",
        bounds: None,
        field: |c| &mut c.cluster.advertised,
    },
    Key {
        name: "cluster.ca_file",
        doc: "A PEM file with the authorities of the nodes' certificates: whoever has a certificate of theirs is \
              believed to be a node of the cluster, so use one that signs nothing else.",
        bounds: None,
        field: |c| &mut c.cluster.ca_file,
    },
    Key {
        name: "cluster.cert_file",
        doc: "A PEM file with this node's certificate, for both directions.",
        bounds: None,
        field: |c| &mut c.cluster.cert_file,
    },
    Key {
        name: "cluster.key_file",
        doc: "A PEM file with the private key of `cluster.cert_file`.",
        bounds: None,
        field: |c| &mut c.cluster.key_file,
    },
    Key {
        name: "cluster.allow_plaintext",
        doc: "Without certificates the nodes of a cluster may only use loopback addresses, as whoever can connect is \
              believed to be a node. Set this when something else keeps strangers out.",
        bounds: None,
        field: |c| &mut c.cluster.allow_plaintext,
    },
    Key {
        name: "cluster.zone",
        doc: "The zone where this node stands: Kafka's `broker.rack`. Clients whose client id has `zone=NAME` in it, \
              between commas or at an end, are sent to gateways of that zone.",
        bounds: None,
        field: |c| &mut c.cluster.zone,
    },
    Key {
        name: "cluster.lease",
        doc: "How long other nodes take this one for alive after it was last heard of. It says that it lives three \
              times as often. Others take over its volumes when the time is up; a node that comes back before keeps \
              them.",
        bounds: Some((2 * SECOND, 10 * MINUTE)),
        field: |c| &mut c.cluster.lease,
    },
    Key {
        name: "cluster.balance",
        doc: "Whether this node may even out the load of the writers when it is elected to: by moving volumes, with \
              a reason for each that `sluice cluster status` shows.",
        bounds: None,
        field: |c| &mut c.cluster.balance,
    },
    Key {
        name: "cluster.notice",
        doc: "Whose metadata service says that this machine will be taken away: `aws` (spot instances, and autoscaling \
              groups), `alibaba` (preemptible instances), or `none`. It is asked every 5 seconds; at a notice this \
              node hands its volumes over, and gets none any more.",
        bounds: None,
        field: |c| &mut c.cluster.notice,
    },
    Key {
        name: "cluster.notice_endpoint",
        doc: "The address of that service, when it is not where the provider has it.",
        bounds: None,
        field: |c| &mut c.cluster.notice_endpoint,
    },
    Key {
        name: "kafka.listen",
        doc: "The address of the Kafka listener.",
        bounds: None,
        field: |c| &mut c.kafka.listen,
    },
    Key {
        name: "kafka.advertised",
        doc: "The address that clients are told to connect to. When not set it is the address that \
              is listened on, so it must be set when that is a wildcard.",
        bounds: None,
        field: |c| &mut c.kafka.advertised,
    },
    Key {
        name: "kafka.allow_unauthenticated_remote",
        doc: "The listener authenticates nobody, so it refuses to bind any address but loopback. \
              Set this when something else keeps strangers out.",
        bounds: None,
        field: |c| &mut c.kafka.allow_unauthenticated_remote,
    },
    Key {
        name: "kafka.max_connections",
        doc: "Connections over this number are closed at once.",
        bounds: Some((1, 1_000_000)),
        field: |c| &mut c.kafka.max_connections,
    },
    Key {
        name: "kafka.max_connections_per_ip",
        doc: "The same for the connections from one IP address.",
        bounds: Some((1, 1_000_000)),
        field: |c| &mut c.kafka.max_connections_per_ip,
    },
    Key {
        name: "kafka.max_frame_bytes",
        doc: "The largest request. It is checked before memory is taken for it. The same on all nodes of a cluster. Kafka's \
              `socket.request.max.bytes`.",
        bounds: Some((64 * KIB, GIB)),
        field: |c| &mut c.kafka.max_frame_bytes,
    },
    Key {
        name: "kafka.buffer_budget_bytes",
        doc: "Memory for requests that are arriving, over all connections. When it is used up, \
              reading pauses. At least `kafka.max_frame_bytes`.",
        bounds: Some((64 * KIB, TIB)),
        field: |c| &mut c.kafka.buffer_budget_bytes,
    },
    Key {
        name: "kafka.answer_budget_bytes",
        doc: "Memory for records that are promised to fetches or wait to be written, over all \
              connections. When it is used up, a fetch gets one batch at a time.",
        bounds: Some((MIB, TIB)),
        field: |c| &mut c.kafka.answer_budget_bytes,
    },
    Key {
        name: "kafka.max_answer_bytes",
        doc: "The same for one connection: over it, its next requests wait unread.",
        bounds: Some((MIB, TIB)),
        field: |c| &mut c.kafka.max_answer_bytes,
    },
    Key {
        name: "kafka.fetch_max_bytes",
        doc: "The most that one fetch gives, whatever the client asks for; at least one batch is \
              given. Kafka's `fetch.max.bytes`.",
        bounds: Some((KIB, GIB)),
        field: |c| &mut c.kafka.fetch_max_bytes,
    },
    Key {
        name: "kafka.max_fetch_session_partitions",
        doc: "Partitions that fetch sessions (KIP-227) remember, over all connections, at about 250 bytes each; when \
              they are used up, clients name all partitions in each fetch. As Kafka's \
              `max.incremental.fetch.session.cache.slots`, which counts sessions.",
        bounds: Some((0, 100_000_000)),
        field: |c| &mut c.kafka.max_fetch_session_partitions,
    },
    Key {
        name: "kafka.max_in_flight",
        doc: "Requests of one connection that are worked on at a time; the next ones wait unread.",
        bounds: Some((1, 10_000)),
        field: |c| &mut c.kafka.max_in_flight,
    },
    Key {
        name: "kafka.idle_timeout",
        doc: "A connection without a request for so long is closed. Kafka's \
              `connections.max.idle.ms`.",
        bounds: Some((SECOND, 7 * DAY)),
        field: |c| &mut c.kafka.idle_timeout,
    },
    Key {
        name: "kafka.write_stall_timeout",
        doc: "A connection that takes nothing of its answers for so long is closed.",
        bounds: Some((SECOND, DAY)),
        field: |c| &mut c.kafka.write_stall_timeout,
    },
    Key {
        name: "http.listen",
        doc: "The address for `/livez`, `/readyz` and `/metrics`.",
        bounds: None,
        field: |c| &mut c.http.listen,
    },
    Key {
        name: "http.max_connections",
        doc: "HTTP connections over this number are closed at once.",
        bounds: Some((1, 100_000)),
        field: |c| &mut c.http.max_connections,
    },
    Key {
        name: "http.header_timeout",
        doc: "The first request of an HTTP connection must have come within this time.",
        bounds: Some((100, HOUR)),
        field: |c| &mut c.http.header_timeout,
    },
    Key {
        name: "http.idle_timeout",
        doc: "An HTTP connection without a new request for so long is closed, whether it idles or \
              does not read its answer. Longer than the interval at which metrics are scraped.",
        bounds: Some((100, DAY)),
        field: |c| &mut c.http.idle_timeout,
    },
    Key {
        name: "topics.auto_create",
        doc: "Whether asking for a topic creates it, if the client asks so too. Kafka's \
              `auto.create.topics.enable`.",
        bounds: None,
        field: |c| &mut c.topics.auto_create,
    },
    Key {
        name: "topics.default_partitions",
        doc: "The partitions of a topic that is created without a number. Kafka's `num.partitions`.",
        bounds: Some((1, 10_000)),
        field: |c| &mut c.topics.default_partitions,
    },
    Key {
        name: TOPIC_DEFAULTS,
        doc: "What topics have that do not set it themselves: a table of Kafka's topic configs, \
              such as `\"retention.ms\" = 86400000`. In the environment \
              `retention.ms=86400000;cleanup.policy=delete`, which replaces the file's whole table.",
        bounds: None,
        field: |c| &mut c.topics.defaults,
    },
    Key {
        name: "volumes.kind",
        doc: "What new write-ahead-log volumes are made of: `file`, files in `data_dir`; `block`, the \
              raw devices of `volumes.devices`, which several machines may share; `object`, objects \
              in the bucket, slower, for places without disks or where a zone may be lost. Volumes \
              that exist stay what they are.",
        bounds: None,
        field: |c| &mut c.volumes.kind,
    },
    Key {
        name: "volumes.devices",
        doc: "For the kind `block`: the devices, by names that stay the same over restarts (such as \
              those in `/dev/disk/by-id`). Each becomes one volume, on all of the device. A device \
              that holds something else is refused.",
        bounds: None,
        field: |c| &mut c.volumes.devices,
    },
    Key {
        name: "volumes.dir",
        doc: "For the kind `file`: a directory that all writers of the zone share (a network file system), by the \
              same path on all of them. New volumes are made there, and any of these writers can have each. When \
              not set, files lie in `data_dir`, and only this node can have them. See docs/operations.md for what \
              the file system must be able to do.",
        bounds: None,
        field: |c| &mut c.volumes.dir,
    },
    Key {
        name: "volumes.count",
        doc: "How many volumes there are: of this node's own, for files in `data_dir`; in the whole cluster, for \
              objects and for files in `volumes.dir`. It can be raised later, not lowered.",
        bounds: Some((1, 64)),
        field: |c| &mut c.volumes.count,
    },
    Key {
        name: "volumes.size",
        doc: "The size of each new volume; `auto` is 1 GiB, or less when the disk is small. At \
              least four times `upload.segment_bytes`.",
        bounds: Some((4 * MIB, TIB)),
        field: |c| &mut c.volumes.size,
    },
    Key {
        name: "volumes.queue_depth",
        doc: "Writes in flight on one volume, of the kinds `file` and `block`.",
        bounds: Some((1, 128)),
        field: |c| &mut c.volumes.queue_depth,
    },
    Key {
        name: "volumes.linger",
        doc: "For the kind `object`: the least time from one PUT to the next, unless 8 MiB are \
              waiting, or 2 MiB and nothing follows for 5 ms. Longer costs fewer requests, shorter answers producers sooner; after a rest \
              the first append goes at once.",
        bounds: Some((0, 10 * SECOND)),
        field: |c| &mut c.volumes.linger,
    },
    Key {
        name: "volumes.reservations",
        doc: "How a device keeps out the hosts of earlier owners. `require`: by persistent \
              reservation (SCSI, NVMe), without which the volume does not open: for devices that \
              several hosts share. `auto`: where the device has them, else not at all, with a \
              warning. `off`: not at all. The same on all nodes. See docs/fencing.md.",
        bounds: None,
        field: |c| &mut c.volumes.reservations,
    },
    Key {
        name: "upload.segment_bytes",
        doc: "As soon as so much has gathered on a volume it goes to the bucket, as one segment.",
        bounds: Some((64 * KIB, GIB)),
        field: |c| &mut c.upload.segment_bytes,
    },
    Key {
        name: "upload.max_age",
        doc: "What is so old goes to the bucket, if it is a few MiB or a reader of the bucket asks \
              for it. Shorter means more requests to the bucket.",
        bounds: Some((100, DAY)),
        field: |c| &mut c.upload.max_age,
    },
    Key {
        name: "upload.max_age_idle",
        doc: "What is so old goes to the bucket even if it is next to nothing; more goes sooner, in \
              inverse proportion to its size, down to `upload.max_age`. A volume makes two requests \
              each time: at `1m` at most 2880 a day while little is written to it. Until then \
              records are on the volume alone.",
        bounds: Some((100, DAY)),
        field: |c| &mut c.upload.max_age_idle,
    },
    Key {
        name: "upload.in_flight",
        doc: "Segments of one volume that are on their way to the bucket at once; each takes up to \
              `upload.segment_bytes` of memory.",
        bounds: Some((1, 16)),
        field: |c| &mut c.upload.in_flight,
    },
    Key {
        name: "bucket.url",
        doc: "`file:PATH` or `s3://BUCKET/PREFIX`. When not set it is the directory `bucket` in \
              `data_dir`. The credentials for S3 come from the environment, by the SDK's usual \
              names (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, web \
              identity, instance metadata), never from the file.",
        bounds: None,
        field: |c| &mut c.bucket.url,
    },
    Key {
        name: "bucket.endpoint",
        doc: "The URL of an S3 service other than AWS. It must support conditional writes \
              (`If-None-Match`).",
        bounds: None,
        field: |c| &mut c.bucket.endpoint,
    },
    Key {
        name: "bucket.region",
        doc: "The bucket's region. When not set it is that of the environment (`AWS_REGION`).",
        bounds: None,
        field: |c| &mut c.bucket.region,
    },
    Key {
        name: "bucket.allow_http",
        doc: "Whether the endpoint may be spoken to without TLS.",
        bounds: None,
        field: |c| &mut c.bucket.allow_http,
    },
    Key {
        name: "bucket.virtual_hosted_style",
        doc: "Whether the bucket's name goes into the host name instead of the path.",
        bounds: None,
        field: |c| &mut c.bucket.virtual_hosted_style,
    },
    Key {
        name: "bucket.checksum",
        doc: "What goes with each object that is put, for the S3 service to verify: `crc64nvme` costs \
              next to nothing, `sha256` about 0.7 CPU-seconds a GiB; `none` for a service that \
              refuses both.",
        bounds: None,
        field: |c| &mut c.bucket.checksum,
    },
    Key {
        name: "bucket.sign_bodies",
        doc: "Whether the signature of a request covers its body, by SHA-256, beside its name and its \
              headers (`bucket.checksum` among them). `auto`: where there is no TLS, which would \
              notice a change as well. Without a body's signature somebody on the network could \
              put other bytes under a CRC-64 that fits; `never` is for networks where nobody can.",
        bounds: None,
        field: |c| &mut c.bucket.sign_bodies,
    },
    Key {
        name: "bucket.connect_timeout",
        doc: "How long a connection to the bucket may take.",
        bounds: Some((100, 10 * MINUTE)),
        field: |c| &mut c.bucket.connect_timeout,
    },
    Key {
        name: "bucket.read_timeout",
        doc: "How long one try of a read, a listing or a deletion may take; a second longer for \
              each MiB.",
        bounds: Some((100, HOUR)),
        field: |c| &mut c.bucket.read_timeout,
    },
    Key {
        name: "bucket.request_timeout",
        doc: "How long one try of a write may take; a second longer for each MiB.",
        bounds: Some((100, HOUR)),
        field: |c| &mut c.bucket.request_timeout,
    },
    Key {
        name: "bucket.max_retries",
        doc: "How often a request to the bucket is tried again before the operation fails (and is \
              begun anew later). Retries are a fifth of all requests at most, however many fail.",
        bounds: Some((0, 1_000)),
        field: |c| &mut c.bucket.max_retries,
    },
    Key {
        name: "bucket.retry_timeout",
        doc: "The time after which a request to the bucket is not tried again.",
        bounds: Some((0, DAY)),
        field: |c| &mut c.bucket.retry_timeout,
    },
    Key {
        name: "bucket.max_requests",
        doc: "Requests to the bucket under way at once. Fewer for a while when the store throttles.",
        bounds: Some((2, 10_000)),
        field: |c| &mut c.bucket.max_requests,
    },
    Key {
        name: "bucket.max_requests_per_second",
        doc: "Requests to the bucket a second; 0 is what the store allows, which is learned from \
              its refusals.",
        bounds: Some((0, 1_000_000)),
        field: |c| &mut c.bucket.max_requests_per_second,
    },
    Key {
        name: "bucket.hedge_percent",
        doc: "Of so many per cent of reads a second request may be made, when the first is later \
              than most; 0 makes none.",
        bounds: Some((0, 100)),
        field: |c| &mut c.bucket.hedge_percent,
    },
    Key {
        name: "reader.cache_bytes",
        doc: "Memory for what was read from the bucket. Half of it may be filled ahead of consumers that \
              read in order; they share that, and below 1 MiB for each nothing is read ahead.",
        bounds: Some((MIB, TIB)),
        field: |c| &mut c.reader.cache_bytes,
    },
    Key {
        name: "groups.initial_rebalance_delay",
        doc: "How long a new group waits for more members before its first assignment. Kafka's \
              `group.initial.rebalance.delay.ms`; 3s spares large groups some rebalances.",
        bounds: Some((0, 10 * MINUTE)),
        field: |c| &mut c.groups.initial_rebalance_delay,
    },
    Key {
        name: "groups.min_session_timeout",
        doc: "The shortest session timeout that a member may ask for. Kafka's \
              `group.min.session.timeout.ms`.",
        bounds: Some((1, DAY)),
        field: |c| &mut c.groups.min_session_timeout,
    },
    Key {
        name: "groups.max_session_timeout",
        doc: "The longest session timeout that a member may ask for. Kafka's \
              `group.max.session.timeout.ms`.",
        bounds: Some((1, DAY)),
        field: |c| &mut c.groups.max_session_timeout,
    },
    Key {
        name: GROUP_DEFAULTS,
        doc: "What groups of the consumer, share and streams protocols have that do not set it \
              themselves: a table of Kafka's group configs, such as \
              `\"consumer.session.timeout.ms\" = 45000`. Tenants may set them for single groups \
              within Kafka's default bounds, widened to what stands here.",
        bounds: None,
        field: |c| &mut c.groups.defaults,
    },
    Key {
        name: "groups.max_members",
        doc: "The members of one group. Kafka's `group.max.size` and `group.consumer.max.size`.",
        bounds: Some((1, 100_000)),
        field: |c| &mut c.groups.max_members,
    },
    Key {
        name: "groups.max_groups",
        doc: "The groups of one tenant.",
        bounds: Some((1, 10_000_000)),
        field: |c| &mut c.groups.max_groups,
    },
    Key {
        name: "groups.max_share_members",
        doc: "The members of one share group. Kafka's `group.share.max.size`.",
        bounds: Some((1, 100_000)),
        field: |c| &mut c.groups.max_share_members,
    },
    Key {
        name: "groups.max_share_sessions",
        doc: "The share sessions of one tenant: a member has one for as long as it is connected. \
              Kafka's `group.share.max.share.sessions`, which counts those of a broker.",
        bounds: Some((1, 1_000_000)),
        field: |c| &mut c.groups.max_share_sessions,
    },
    Key {
        name: "groups.max_share_partitions",
        doc: "What the share groups of one tenant keep: a group counts once for each partition that \
              it reads; more are refused (POLICY_VIOLATION).",
        bounds: Some((1, 10_000_000)),
        field: |c| &mut c.groups.max_share_partitions,
    },
    Key {
        name: "groups.offsets_retention",
        doc: "How long committed offsets stay after the group has become empty. Kafka's \
              `offsets.retention.minutes`.",
        bounds: Some((MINUTE, 3650 * DAY)),
        field: |c| &mut c.groups.offsets_retention,
    },
    Key {
        name: "transactions.max_timeout",
        doc: "The longest `transaction.timeout.ms` that a producer may ask for. Kafka's \
              `transaction.max.timeout.ms`.",
        bounds: Some((SECOND, 7 * DAY)),
        field: |c| &mut c.transactions.max_timeout,
    },
    Key {
        name: "transactions.id_expiration",
        doc: "How long a transactional id stays known that nobody uses. Kafka's \
              `transactional.id.expiration.ms`.",
        bounds: Some((SECOND, 3650 * DAY)),
        field: |c| &mut c.transactions.id_expiration,
    },
    Key {
        name: "transactions.max_ids",
        doc: "The transactional ids of one tenant; more are refused (POLICY_VIOLATION).",
        bounds: Some((1, 10_000_000)),
        field: |c| &mut c.transactions.max_ids,
    },
    Key {
        name: "transactions.max_producer_ids",
        doc: "How many producer ids a tenant is given an hour for idempotent producers without a \
              transactional id; more are put off (THROTTLING_QUOTA_EXCEEDED).",
        bounds: Some((1, 1_000_000_000)),
        field: |c| &mut c.transactions.max_producer_ids,
    },
    Key {
        name: "retention.check_interval",
        doc: "How often retention by time and size is applied.",
        bounds: Some((100, DAY)),
        field: |c| &mut c.retention.check_interval,
    },
    Key {
        name: "compaction.enabled",
        doc: "Whether what is in the bucket is compacted: small pieces put together, and of topics with \
              `cleanup.policy=compact` the last record of each key kept.",
        bounds: None,
        field: |c| &mut c.compaction.enabled,
    },
    Key {
        name: "compaction.interval",
        doc: "How often a volume looks for something to compact.",
        bounds: Some((10, DAY)),
        field: |c| &mut c.compaction.interval,
    },
    Key {
        name: "compaction.min_age",
        doc: "Segments younger than this are not put together with others, so that short-lived records \
              are gone by then. `min.compaction.lag.ms` of a topic says when key compaction may begin.",
        bounds: Some((0, DAY)),
        field: |c| &mut c.compaction.min_age,
    },
    Key {
        name: "compaction.bytes_per_second",
        doc: "What compaction reads and writes a second at most. It rests while uploads lag.",
        bounds: Some((64 * KIB, TIB)),
        field: |c| &mut c.compaction.bytes_per_second,
    },
    Key {
        name: "compaction.segment_bytes",
        doc: "Compaction writes segments of this size, and takes about as much memory.",
        bounds: Some((MIB, GIB)),
        field: |c| &mut c.compaction.segment_bytes,
    },
    Key {
        name: "compaction.key_map_bytes",
        doc: "Memory for the keys of the part of a partition that key compaction cleans at once, 96 bytes \
              each. Kafka's `log.cleaner.dedupe.buffer.size`.",
        bounds: Some((64 * KIB, TIB)),
        field: |c| &mut c.compaction.key_map_bytes,
    },
    Key {
        name: "compaction.orphan_interval",
        doc: "How often the bucket is listed for objects that nothing names, such as a crash leaves; the \
              first time some minutes after the start.",
        bounds: Some((100, 3650 * DAY)),
        field: |c| &mut c.compaction.orphan_interval,
    },
    Key {
        name: "compaction.orphan_grace",
        doc: "Objects that nothing names are deleted when they are this old.",
        bounds: Some((0, 3650 * DAY)),
        field: |c| &mut c.compaction.orphan_grace,
    },
    Key {
        name: "log.level",
        doc: "What is logged, to stderr.",
        bounds: None,
        field: |c| &mut c.log.level,
    },
    Key {
        name: "log.format",
        doc: "`auto` is text on a terminal and JSON otherwise.",
        bounds: None,
        field: |c| &mut c.log.format,
    },
    Key {
        name: "shutdown.drain",
        doc: "How long the process, told to end, lets requests that are under way finish.",
        bounds: Some((0, 10 * MINUTE)),
        field: |c| &mut c.shutdown.drain,
    },
];
