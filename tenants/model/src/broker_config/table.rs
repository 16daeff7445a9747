//! The tables of broker configs: Kafka 4.3's names, types, defaults and bounds (`DynamicBrokerConfig`,
//! `KafkaConfig`, `DynamicConfig.Broker`). The documentation is Sluice's own.

use std::sync::LazyLock;

use crate::config::{Check, ConfigKey, ConfigType};
use crate::topic_config;

/// Names of Kafka's that clients cannot change here, sorted, one a line: Kafka changes them at a restart
/// alone, or they are about the machine and its listeners, which are the operator's.
static FIXED: &str = include_str!("fixed.txt");

/// Whether the name is one of Kafka's that clients cannot change here.
pub(super) fn is_fixed(name: &str) -> bool {
    FIXED.lines().any(|fixed| fixed == name) || name.starts_with("listener.name.")
}

/// The key of a default of topics, under its broker name.
pub(super) fn of_topics(name: &str) -> Option<&'static ConfigKey> {
    OF_TOPICS.iter().find(|key| key.name == name)
}

static OF_TOPICS: LazyLock<Vec<ConfigKey>> = LazyLock::new(|| {
    let of_broker = |key: &ConfigKey| {
        let name = key.server_name?;
        let (default, doc, kind, check) = (key.default, key.doc, key.kind, key.check);
        Some(ConfigKey { name, default, doc, server_name: None, kind, check })
    };
    topic_config::KEYS.iter().filter_map(of_broker).collect()
});

/// A config that is kept and reported, and means nothing here.
pub(super) struct Inert {
    pub(super) key: ConfigKey,
    /// Kafka takes it for one broker only, not for all of them.
    pub(super) one_broker: bool,
    /// A number of threads: Kafka at most halves or doubles it at a time.
    pub(super) threads: bool,
}

/// The inert config of that name.
pub(super) fn inert(name: &str) -> Option<&'static Inert> {
    INERT.binary_search_by(|inert| inert.key.name.cmp(name)).ok().map(|at| &INERT[at])
}

use Check::{Any, AtLeast};
use ConfigType::{Boolean, Double, Int, Long};

const THREADS: &str = "Accepted and reported. How many threads there are is the operator's affair.";
const REPLICATION: &str =
    "Accepted and reported. Copies are not made by replication between brokers.";
const CLEANER: &str = "Accepted and reported. What compaction may take is the operator's affair.";
const TIERED: &str =
    "Accepted and reported. Every topic is kept in object storage, whatever is set here.";
const COORDINATOR: &str =
    "Accepted and reported. Coordinators gather what they log in another way.";
const SASL: &str = "Accepted and reported. The service itself logs in nowhere by SASL.";
const VERIFICATION: &str = "Accepted and reported. Transactions are always verified.";

const fn plain(
    name: &'static str,
    kind: ConfigType,
    default: &'static str,
    check: Check,
    doc: &'static str,
) -> Inert {
    let key = ConfigKey { name, default, doc, server_name: None, kind, check };
    Inert { key, one_broker: false, threads: false }
}

const fn threads(name: &'static str, default: &'static str) -> Inert {
    Inert { threads: true, ..plain(name, Int, default, AtLeast(1), THREADS) }
}

const fn sasl(name: &'static str, kind: ConfigType, default: &'static str, check: Check) -> Inert {
    Inert { one_broker: true, ..plain(name, kind, default, check, SASL) }
}

/// All of them, sorted by name.
pub(super) static INERT: &[Inert] = &[
    threads("background.threads", "10"),
    plain("follower.fetch.last.tiered.offset.enable", Boolean, "false", Any, REPLICATION),
    plain(
        "follower.replication.throttled.rate",
        Long,
        "9223372036854775807",
        AtLeast(0),
        REPLICATION,
    ),
    plain(
        "group.coordinator.cached.buffer.max.bytes",
        Int,
        "1048588",
        AtLeast(524_288),
        COORDINATOR,
    ),
    plain(
        "leader.replication.throttled.rate",
        Long,
        "9223372036854775807",
        AtLeast(0),
        REPLICATION,
    ),
    plain("log.cleaner.backoff.ms", Long, "15000", AtLeast(0), CLEANER),
    plain("log.cleaner.dedupe.buffer.size", Long, "134217728", Any, CLEANER),
    plain("log.cleaner.io.buffer.load.factor", Double, "0.9", Any, CLEANER),
    plain("log.cleaner.io.buffer.size", Int, "524288", AtLeast(0), CLEANER),
    plain("log.cleaner.io.max.bytes.per.second", Double, "1.7976931348623157E308", Any, CLEANER),
    Inert { threads: true, ..plain("log.cleaner.threads", Int, "1", AtLeast(0), CLEANER) },
    threads("num.io.threads", "8"),
    threads("num.network.threads", "3"),
    threads("num.recovery.threads.per.data.dir", "2"),
    threads("num.replica.fetchers", "1"),
    plain("remote.fetch.max.wait.ms", Int, "500", AtLeast(1), TIERED),
    plain("remote.list.offsets.request.timeout.ms", Long, "30000", AtLeast(1), TIERED),
    plain("remote.log.index.file.cache.total.size.bytes", Long, "1073741824", AtLeast(1), TIERED),
    plain("remote.log.manager.copier.thread.pool.size", Int, "10", AtLeast(1), TIERED),
    plain(
        "remote.log.manager.copy.max.bytes.per.second",
        Long,
        "9223372036854775807",
        AtLeast(1),
        TIERED,
    ),
    plain("remote.log.manager.expiration.thread.pool.size", Int, "10", AtLeast(1), TIERED),
    plain(
        "remote.log.manager.fetch.max.bytes.per.second",
        Long,
        "9223372036854775807",
        AtLeast(1),
        TIERED,
    ),
    plain("remote.log.manager.follower.thread.pool.size", Int, "2", AtLeast(1), TIERED),
    plain("remote.log.reader.threads", Int, "10", AtLeast(1), TIERED),
    plain(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        Long,
        "9223372036854775807",
        AtLeast(0),
        REPLICATION,
    ),
    sasl("sasl.kerberos.min.time.before.relogin", Long, "60000", Any),
    sasl("sasl.kerberos.ticket.renew.jitter", Double, "0.05", Any),
    sasl("sasl.kerberos.ticket.renew.window.factor", Double, "0.8", Any),
    sasl("sasl.login.refresh.buffer.seconds", Int, "300", Check::Between(0, 3_600)),
    sasl("sasl.login.refresh.min.period.seconds", Int, "60", Check::Between(0, 900)),
    sasl("sasl.login.refresh.window.factor", Double, "0.8", Any),
    sasl("sasl.login.refresh.window.jitter", Double, "0.05", Any),
    plain(
        "share.coordinator.cached.buffer.max.bytes",
        Int,
        "1048588",
        AtLeast(524_288),
        COORDINATOR,
    ),
    plain("transaction.partition.verification.enable", Boolean, "true", Any, VERIFICATION),
];
