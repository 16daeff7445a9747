//! Workloads: what is produced and consumed, how fast and for how long. A workload is a TOML file; those in
//! `loadtest/workloads` are compiled in and known by name.
//!
//! What always holds: a [`Workload`] that [`Workload::parse`] gave is whole and makes sense; nothing that a
//! file says is ignored.

mod tenants;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sluice_wire::batch::Compression;

use crate::amount::{Rate, Size, Time};
use crate::fault::Fault;
use crate::stamp;
pub use tenants::{Class, Tenants};

/// Bounds that keep a typing error from taking the machine down.
const MAX_PARTITIONS: u32 = 200_000;
const MAX_CLIENTS: u32 = 20_000;
const MAX_FOREIGN_CLIENTS: u32 = 200;
const MAX_KEYS: u32 = 1 << 20;
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// The workloads that come with the program, by name.
const BUILT_IN: &[(&str, &str)] = &[
    ("steady", include_str!("../../workloads/steady.toml")),
    ("max-throughput", include_str!("../../workloads/max-throughput.toml")),
    ("tail-fan-out", include_str!("../../workloads/tail-fan-out.toml")),
    ("catch-up", include_str!("../../workloads/catch-up.toml")),
    ("burst", include_str!("../../workloads/burst.toml")),
    ("many-partitions", include_str!("../../workloads/many-partitions.toml")),
    ("small-batches", include_str!("../../workloads/small-batches.toml")),
    ("transactions", include_str!("../../workloads/transactions.toml")),
    ("many-tenants", include_str!("../../workloads/many-tenants.toml")),
    ("noisy-neighbour", include_str!("../../workloads/noisy-neighbour.toml")),
    ("chaos", include_str!("../../workloads/chaos.toml")),
    ("soak", include_str!("../../workloads/soak.toml")),
    ("peers-produce", include_str!("../../workloads/peers-produce.toml")),
    ("peers-tail", include_str!("../../workloads/peers-tail.toml")),
    ("peers-catch-up", include_str!("../../workloads/peers-catch-up.toml")),
    ("peers-max", include_str!("../../workloads/peers-max.toml")),
    ("limit-produce", include_str!("../../workloads/limit-produce.toml")),
    ("limit-fetch", include_str!("../../workloads/limit-fetch.toml")),
];

/// What is wrong with a workload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The text is not TOML, a key is unknown or missing, or a value has another form.
    #[error("{0}")]
    Text(String),
    /// Values that make no sense, each with its key.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// What is produced and consumed, how fast and for how long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// One sentence for people.
    pub description: String,
    /// How long is measured. A search takes this long for each trial.
    pub duration: Time,
    /// How long the load runs before it is measured.
    #[serde(default)]
    pub warm_up: Time,
    /// How far acknowledgements may fall behind what is due before the run goes on to its end, and how long the end of
    /// each part waits for what is under way. Left out, a load goes on however late it is, and its end waits for a
    /// minute or two.
    pub give_up: Option<Time>,
    /// Whose producers and consumers they are.
    #[serde(default)]
    pub client: Client,
    /// Where records go.
    #[serde(default)]
    pub topic: Topic,
    /// What they are.
    #[serde(default)]
    pub records: Records,
    /// Who writes them.
    pub produce: Produce,
    /// Writes them in transactions.
    pub transactions: Option<Transactions>,
    /// Many tenants, each with a topic and clients of its own; one without a name if it is left out.
    pub tenants: Option<Tenants>,
    /// Who reads them; nobody if it is left out.
    pub consume: Option<Consume>,
    /// What is written before anybody reads: consumers then catch up while producers go on.
    pub backlog: Option<Backlog>,
    /// Looks for the highest rate that keeps latencies within a bound.
    pub search: Option<Search>,
    /// Faults that the harness injects while it is measured, on a server that it has started.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

/// Whose producers and consumers load the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Client {
    /// The harness's own.
    #[default]
    Own,
    /// librdkafka's, where the program was built with it.
    Librdkafka,
}

impl Client {
    /// By its name in a workload.
    ///
    /// # Errors
    /// What names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        match name {
            "own" => Ok(Self::Own),
            "librdkafka" => Ok(Self::Librdkafka),
            _ => Err("must be own or librdkafka".to_owned()),
        }
    }
}

/// The topic, made for the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Topic {
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas; -1 is the server's default.
    pub replication_factor: i16,
    /// Kafka's topic configs.
    pub configs: BTreeMap<String, String>,
}

impl Default for Topic {
    fn default() -> Self {
        Self { partitions: 8, replication_factor: -1, configs: BTreeMap::new() }
    }
}

/// What records are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Records {
    /// The value's size, the stamp that is checked included.
    pub size: Size,
    /// How keys are chosen.
    pub keys: Keys,
    /// How many different keys there are.
    pub key_count: u32,
    /// How uneven [`Keys::Zipf`] is: the k-th key is chosen in proportion to `1 / k^exponent`.
    pub zipf_exponent: f64,
    /// The share of each value that is zeros, from 0 to 1: the rest is random.
    pub compressibility: f64,
    /// The codec of batches.
    pub compression: Codec,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            size: Size(1024),
            keys: Keys::None,
            key_count: 100_000,
            zipf_exponent: 0.99,
            compressibility: 0.0,
            compression: Codec::None,
        }
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// No keys: a producer fills one partition's batch, then the next one's.
    None,
    /// Each key as often as any other.
    Uniform,
    /// A few keys often, most keys rarely.
    Zipf,
}

/// A codec of record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the codecs' own names")]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// As Kafka's clients call it.
    #[cfg(feature = "librdkafka")]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip,
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

/// Who writes: idempotent producers with acks=all, each with connections of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Produce {
    /// How many producers.
    #[serde(default = "one")]
    pub producers: u32,
    /// What all of them write together. Left out where stages or a search say it.
    pub rate: Option<Rate>,
    /// When records are due.
    #[serde(default)]
    pub arrivals: Arrivals,
    /// How long a batch waits for more records, counted from its first one's due time.
    #[serde(default)]
    pub linger: Time,
    /// The largest batch, before compression.
    #[serde(default = "batch_bytes")]
    pub batch: Size,
    /// The largest sum of batches in a request.
    #[serde(default = "request_bytes")]
    pub request: Size,
    /// Requests on their way to a server, for each producer: 1 to 5.
    #[serde(default = "in_flight")]
    pub in_flight: u32,
    /// What a producer holds that is not acknowledged. Beyond it the schedule goes on, and records are made
    /// when there is room.
    #[serde(default = "buffer_bytes")]
    pub buffer: Size,
    /// A producer that gets nothing acknowledged for so long fails, and with it the run.
    #[serde(default = "delivery_timeout")]
    pub delivery_timeout: Time,
    /// Rates one after the other, each measured on its own; instead of `rate` and `duration`.
    #[serde(default, rename = "stage")]
    pub stages: Vec<Stage>,
}

fn one() -> u32 {
    1
}

fn in_flight() -> u32 {
    5
}

fn batch_bytes() -> Size {
    Size(64 << 10)
}

fn request_bytes() -> Size {
    Size(1 << 20)
}

/// As Kafka's `delivery.timeout.ms`.
fn delivery_timeout() -> Time {
    Time(std::time::Duration::from_secs(120))
}

fn buffer_bytes() -> Size {
    Size(16 << 20)
}

/// When records are due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrivals {
    /// At equal distances.
    #[default]
    Even,
    /// At random, each independent of the others.
    Poisson,
}

/// One of several rates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// What the report calls it.
    pub name: String,
    /// How long it takes.
    pub duration: Time,
    /// What all producers write together. Left out where tenants' classes say it.
    pub rate: Option<Rate>,
}

/// Each producer commits, and begins anew, at a steady pace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transactions {
    /// How long a transaction takes.
    pub commit_every: Time,
    /// The share of transactions that are aborted on purpose, from 0 to 1.
    #[serde(default)]
    pub abort_share: f64,
}

/// Who reads: each group reads everything, its consumers share the partitions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consume {
    /// How many groups.
    #[serde(default = "one")]
    pub groups: u32,
    /// How many consumers each.
    #[serde(default = "one")]
    pub consumers: u32,
    /// What each group reads at most; as fast as it goes if it is left out.
    pub rate: Option<Rate>,
    /// Who deals out the partitions.
    #[serde(default)]
    pub protocol: Protocol,
    /// At this pace one consumer of each group after the other leaves it and joins again, each second time without
    /// committing what it has read.
    pub rejoin_every: Option<Time>,
    /// How long the server may wait for records.
    #[serde(default = "max_wait")]
    pub max_wait: Time,
    /// What it should wait for.
    #[serde(default = "one")]
    pub min_bytes: u32,
    /// The most in one answer.
    #[serde(default = "fetch_bytes")]
    pub max_bytes: Size,
    /// The most of one partition in one answer.
    #[serde(default = "partition_bytes")]
    pub partition_bytes: Size,
}

/// Who deals a group's partitions out to its consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// The harness, once and for all: there is no group on the server.
    #[default]
    Assigned,
    /// The server, by the protocol of KIP-848; offsets are committed each 5 s.
    Consumer,
    /// The first of its consumers, by ranges, in the older protocol (JoinGroup and SyncGroup); offsets as above.
    Classic,
}

fn max_wait() -> Time {
    Time(std::time::Duration::from_millis(500))
}

fn fetch_bytes() -> Size {
    Size(50 << 20)
}

fn partition_bytes() -> Size {
    Size(1 << 20)
}

/// What is written, as fast as it goes, before consumers start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backlog {
    /// Bytes of record values.
    pub size: Size,
    /// How long it may take to be written, and then to be read: a server that is slower is measured until then.
    #[serde(default = "backlog_limit")]
    pub limit: Time,
    /// How long is measured when all is read; `duration` if it is left out, and not at all with 0.
    pub at_the_tail: Option<Time>,
}

fn backlog_limit() -> Time {
    Time(std::time::Duration::from_secs(3600))
}

/// Looks for the highest rate that is sustained with latencies within a bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// The bound on the 99th percentile of produce latency.
    pub p99: Time,
    /// Where the search begins.
    pub from: Rate,
    /// How much the second trial is above the first, or below it, in percent. The step doubles, up to 100, while trials
    /// go the same way.
    #[serde(default = "step")]
    pub step_percent: u32,
    /// The search ends after so long, with what it has found until then.
    pub limit: Option<Time>,
    /// The search gives up below this rate.
    pub least: Option<Rate>,
    /// The search ends when the best rate that holds and the least that does not are this close, in percent.
    #[serde(default = "precision")]
    pub precision_percent: u32,
}

fn precision() -> u32 {
    5
}

fn step() -> u32 {
    100
}

impl Workload {
    /// The names of the workloads that come with the program.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The text of a workload that comes with the program.
    pub fn built_in(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// Reads and checks a workload.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let workload: Self =
            toml::from_str(text).map_err(|error| Invalid::Text(error.to_string()))?;
        workload.check()?;
        Ok(workload)
    }

    /// Checks that the values make sense together.
    ///
    /// # Errors
    /// All that is wrong, each with its key.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut wrong = Vec::new();
        self.check_records(&mut wrong);
        self.check_produce(&mut wrong);
        self.check_consume(&mut wrong);
        self.check_tenants(&mut wrong);
        self.check_client(&mut wrong);
        self.faults.iter().for_each(|fault| fault.check(&mut wrong));
        if !self.faults.is_empty() && self.search.is_some() {
            wrong.push("faults do not go with [search]: no rate would hold".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(Invalid::Values(wrong)) }
    }

    /// What librdkafka is asked to do here.
    fn check_client(&self, wrong: &mut Vec<String>) {
        if self.client == Client::Own {
            return;
        }
        let mut refuse = |what: &str| wrong.push(format!("client = \"librdkafka\" {what}"));
        if !cfg!(feature = "librdkafka") {
            refuse(
                "needs a program that was built with it: cargo build --release --features librdkafka",
            );
        }
        if self.transactions.is_some() {
            refuse("does not go with [transactions]");
        }
        if self.tenants.is_some() {
            refuse("does not go with [tenants]");
        }
        if self.consume.as_ref().is_some_and(|consume| consume.protocol != Protocol::Assigned) {
            refuse("does not go with consume.protocol");
        }
        if self.consume.as_ref().is_some_and(|consume| consume.rate.is_some()) {
            refuse("does not go with consume.rate");
        }
        if matches!(self.records.compression, Codec::Gzip | Codec::Zstd) {
            refuse("knows none, snappy and lz4 here");
        }
        // Each has threads of its own.
        let clients = self.consumers().saturating_add(self.produce.producers);
        if clients > MAX_FOREIGN_CLIENTS {
            refuse(&format!("goes up to {MAX_FOREIGN_CLIENTS} producers and consumers"));
        }
    }

    /// How many consumers all groups have. They are numbered group by group.
    pub(crate) fn consumers(&self) -> u32 {
        self.consume.as_ref().map_or(0, |consume| consume.groups * consume.consumers)
    }

    /// What one consumer reads at most.
    pub(crate) fn consumer_bytes_per_second(&self) -> Option<f64> {
        let consume = self.consume.as_ref()?;
        let records = consume.rate?.records_per_second(self.records.size.0)?;
        Some(records * self.records.size.0 as f64 / f64::from(consume.consumers))
    }

    /// The partitions of a consumer of [`Self::consumers`].
    pub(crate) fn partitions_of(&self, consumer: u32) -> impl Iterator<Item = u32> {
        let members = self.consume.as_ref().map_or(1, |consume| consume.consumers);
        (consumer % members..self.topic.partitions).step_by(members as usize)
    }

    fn check_records(&self, wrong: &mut Vec<String>) {
        let records = &self.records;
        between(wrong, "topic.partitions", self.topic.partitions.into(), 1, MAX_PARTITIONS.into());
        let least = stamp::BYTES as u64;
        between(wrong, "records.size", records.size.0, least, MAX_RECORD_BYTES);
        between(wrong, "records.key_count", records.key_count.into(), 1, MAX_KEYS.into());
        share(wrong, "records.compressibility", records.compressibility);
        if !(0.0..=10.0).contains(&records.zipf_exponent) {
            wrong.push("records.zipf_exponent must be between 0 and 10".to_owned());
        }
    }

    fn check_produce(&self, wrong: &mut Vec<String>) {
        let produce = &self.produce;
        between(wrong, "produce.producers", produce.producers.into(), 1, MAX_CLIENTS.into());
        // Kafka's servers remember the last five batches of a producer: more in flight could not be told
        // from duplicates after a lost answer.
        between(wrong, "produce.in_flight", produce.in_flight.into(), 1, 5);
        between(wrong, "produce.batch", produce.batch.0, 1, 256 << 20);
        between(wrong, "produce.request", produce.request.0, produce.batch.0, 1 << 30);
        let least = produce.batch.0.max(self.records.size.0);
        between(wrong, "produce.buffer", produce.buffer.0, least, 16 << 30);
        if produce.delivery_timeout.0.is_zero() {
            wrong.push("produce.delivery_timeout must be more than 0s".to_owned());
        }
        if self.give_up.is_some_and(|time| time.0.is_zero()) {
            wrong.push("give_up must be more than 0s".to_owned());
        }
        if self.duration.0.is_zero() {
            wrong.push("duration must be more than 0s".to_owned());
        }
        for stage in &produce.stages {
            if stage.duration.0.is_zero() {
                wrong.push(format!("produce.stage \"{}\" must take more than 0s", stage.name));
            }
        }
        if let Some(transactions) = &self.transactions {
            share(wrong, "transactions.abort_share", transactions.abort_share);
            if transactions.commit_every.0.is_zero() {
                wrong.push("transactions.commit_every must be more than 0s".to_owned());
            }
        }
        if let Some(search) = &self.search {
            between(wrong, "search.precision_percent", search.precision_percent.into(), 1, 50);
            between(wrong, "search.step_percent", search.step_percent.into(), 1, 100);
            if search.limit.is_some_and(|limit| limit.0.is_zero()) {
                wrong.push("search.limit must be more than 0s".to_owned());
            }
            if search.least == Some(Rate::Max) {
                wrong.push("search.least must be a rate, not max".to_owned());
            }
            let from = search.from.records_per_second(self.records.size.0);
            if from.is_none_or(|rate| rate < 1.0) {
                wrong.push("search.from must be a rate of at least one record a second".to_owned());
            }
        }
    }

    fn check_consume(&self, wrong: &mut Vec<String>) {
        if let Some(consume) = &self.consume {
            let all = u64::from(consume.groups).saturating_mul(consume.consumers.into());
            between(wrong, "consume.groups x consume.consumers", all, 1, MAX_CLIENTS.into());
            let partitions = self.topic.partitions.into();
            between(wrong, "consume.consumers", consume.consumers.into(), 1, partitions);
            if let Some(every) = consume.rejoin_every {
                if consume.protocol == Protocol::Assigned {
                    wrong.push(
                        "consume.rejoin_every needs protocol = \"consumer\" or \"classic\""
                            .to_owned(),
                    );
                }
                if every.0.is_zero() {
                    wrong.push("consume.rejoin_every must be more than 0s".to_owned());
                }
            }
            let rate = consume.rate.and_then(|rate| rate.records_per_second(self.records.size.0));
            if rate.is_some_and(|rate| rate < 1.0) {
                wrong.push("consume.rate must be at least one record a second".to_owned());
            }
            between(wrong, "consume.max_bytes", consume.max_bytes.0, 1, 1 << 30);
            between(wrong, "consume.partition_bytes", consume.partition_bytes.0, 1, 1 << 30);
        }
        if let Some(backlog) = &self.backlog {
            if backlog.limit.0.is_zero() {
                wrong.push("backlog.limit must be more than 0s".to_owned());
            }
            if self.consume.is_none() {
                wrong.push("a backlog needs [consume]: nobody would read it".to_owned());
            }
            if !self.produce.stages.is_empty() || self.search.is_some() {
                wrong.push("a backlog goes with produce.rate only".to_owned());
            }
        }
    }
}

fn between(wrong: &mut Vec<String>, key: &str, value: u64, least: u64, most: u64) {
    if !(least..=most).contains(&value) {
        wrong.push(format!("{key} must be between {least} and {most}, not {value}"));
    }
}

fn share(wrong: &mut Vec<String>, key: &str, value: f64) {
    if !(0.0..=1.0).contains(&value) {
        wrong.push(format!("{key} must be between 0 and 1, not {value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "description = 'x'\nduration = '1s'\n[produce]\nrate = '1MiB/s'\n";

    #[test]
    fn what_comes_with_the_program_is_right_and_reads_back() {
        for name in Workload::names() {
            let text = Workload::built_in(name).expect("its text");
            let workload = Workload::parse(text).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            assert!(!workload.description.is_empty(), "{name}");
            let shown = toml::to_string(&workload).expect("TOML");
            assert_eq!(Workload::parse(&shown), Ok(workload), "{name}");
        }
        assert_eq!(Workload::built_in("no-such"), None);
        let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../workloads");
        let files = std::fs::read_dir(files).expect("the directory").count();
        assert_eq!(files, Workload::names().count(), "each file is compiled in");
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_told() {
        assert!(Workload::parse(LEAST).is_ok());
        for (more, told) in [
            ("partitons = 3", "partitons"),
            ("linger = '5'", "\"5\" is no time"),
            ("in_flight = 6", "produce.in_flight must be between 1 and 5, not 6"),
            ("[search]\np99 = '50ms'\nfrom = '1/s'", "the rate must be said once"),
            ("[records]\nsize = '8B'", "records.size must be between"),
            ("[records]\ncompressibility = 1.5", "records.compressibility must be between 0 and 1"),
            ("[backlog]\nsize = '1MiB'", "a backlog needs [consume]"),
            ("[consume]\nconsumers = 9", "consume.consumers must be between 1 and 8, not 9"),
            (
                "[consume]\nrejoin_every = '0s'",
                "consume.rejoin_every needs protocol = \"consumer\"",
            ),
            ("[records]\nkeys = 'some'", "unknown variant `some`"),
            ("[[fault]]\nkind = 'stop'\nat = '1s'", "fault stop needs `for`"),
            ("[[fault]]\nkind = 'kill'\nat = '1s'\nfor = '1s'", "fault kill: `for` is not for it"),
            ("[[fault]]\nkind = 'burn'\nat = '1s'", "unknown variant `burn`"),
            (
                "[[fault]]\nkind = 'stop'\nat = '1s'\nfor = '1s'\ndown = '1s'\nhow = 'hang'\nevery = '0s'",
                "fault stop: `down` is not for it, write `for`\nfault stop: `how` goes with cut-bucket only\n\
                 fault stop: `every` must be more than 0s",
            ),
        ] {
            let wrong = Workload::parse(&format!("{LEAST}{more}\n")).expect_err(more).to_string();
            assert!(wrong.contains(told), "{more}: {wrong}");
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let text = format!("{LEAST}in_flight = 0\n[topic]\npartitions = 0\n");
        let Err(Invalid::Values(wrong)) = Workload::parse(&text) else { panic!("values") };
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }
}
