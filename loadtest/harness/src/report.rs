//! What a run gives: a JSON document with a version, described in docs/loadtest.md. Latencies are in ms,
//! sizes in bytes, rates a second.

use serde::{Deserialize, Serialize};

use crate::fault::{Failover, Injected};
use crate::scrape::Bucket;
use crate::stats::{Kinds, Latencies};
use crate::verify::Findings;
use crate::workload::Workload;

/// The document's kind and version. A field that is added leaves the version; one that changes its meaning, or
/// goes, makes it the next.
pub const SCHEMA: &str = "sluice-loadtest/1";

const GIB: f64 = (1u64 << 30) as f64;
const MIB: f64 = (1u64 << 20) as f64;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of this program.
    pub program: String,
    /// The workload's name, or its file's.
    pub name: String,
    /// What the user calls the server, for comparisons.
    pub label: String,
    /// The workload in full.
    pub workload: Workload,
    /// ms since the Unix epoch.
    pub started_ms: i64,
    /// What choices of keys, bytes and times came from.
    pub seed: u64,
    /// Where the harness ran.
    pub machine: Machine,
    /// The parts of the run, in order.
    pub phases: Vec<Phase>,
    /// What a search has found.
    pub search: Option<Found>,
    /// About each second.
    pub series: Vec<Row>,
    /// The proof, or what speaks against it.
    pub verification: Verification,
    /// The processes that the load came from; none if it was this one alone.
    #[serde(default)]
    pub agents: Vec<AgentSummary>,
    /// Requests that failed and were repeated, in words, each once.
    pub failures: Vec<String>,
    /// Faults that the harness has injected, in order.
    #[serde(default)]
    pub faults: Vec<Injected>,
    /// How the server came through them, by kind.
    #[serde(default)]
    pub failover: Vec<Failover>,
    /// What was given up because the server was too slow for it, in words: see [`Workload::give_up`].
    #[serde(default)]
    pub gave_up: Vec<String>,
    /// What has ended the run before its time; what was measured until then, and what could be verified, is here.
    #[serde(default)]
    pub failed: Option<String>,
    /// Whether the user ended it early.
    pub interrupted: bool,
}

/// Where the harness ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Processors that it may use.
    pub cpus: usize,
    /// All of its memory.
    pub memory_bytes: u64,
    /// Its processor, in the maker's words.
    pub model: String,
    /// Linux's version.
    pub kernel: String,
}

/// A process that a part of the load came from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AgentSummary {
    /// The address that it came from.
    pub name: String,
    /// Whether it ran on the coordinator's machine.
    pub is_here: bool,
    /// How many it had.
    pub producers: u32,
    /// How many it had.
    pub consumers: u32,
    /// Records acknowledged, as it has told.
    pub acknowledged: u64,
    /// What it has used.
    pub cpu_seconds: f64,
    /// How far its clock may have been off, at the worst: end-to-end latencies between two agents are wrong by
    /// at most the sum of both.
    pub clock_error_ms: f64,
    /// The most by which it learnt of a phase or rate after its instant.
    pub late_ms: f64,
    /// When it was lost, and what with it.
    pub lost: Option<Loss>,
}

/// What a run lost with an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loss {
    /// When, in seconds from the run's start.
    pub at: f64,
    /// How it showed.
    pub reason: String,
    /// The share of the load that was not produced any more.
    pub load_share: f64,
    /// What nobody has verified.
    pub unread: Vec<Unread>,
}

/// Partitions of which a lost consumer took with it what it had seen.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unread {
    /// The group's number.
    pub group: u32,
    /// The partitions'.
    pub partitions: Vec<u32>,
}

/// A part of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Phase {
    /// Its name: the workload's, a stage's, or what the harness does.
    pub name: String,
    /// Whether it counts: warming up does not.
    pub measured: bool,
    /// How long it took.
    pub seconds: f64,
    /// Records a second that were due; none if it went as fast as it could.
    pub offered: Option<f64>,
    /// What was acknowledged.
    pub written: Moved,
    /// What was read, by all groups.
    pub read: Moved,
    /// From due to acknowledged.
    pub produce: Option<Summary>,
    /// From due to read, records that were due in this phase.
    pub end_to_end: Option<Summary>,
    /// From due to made: the harness's own part in the latencies above.
    pub lateness: Option<Summary>,
    /// From the decision to end a transaction to the answer.
    pub commit: Option<Summary>,
    /// Transactions committed and aborted.
    pub transactions: (u64, u64),
    /// Requests that failed and were repeated.
    pub retries: u64,
    /// The server's processes, if they were named.
    pub server: Option<Cost>,
    /// Those of the store that it uses, if they were named.
    pub store: Option<Cost>,
    /// This process, and agents.
    pub client: Cost,
    /// The share of the machine's processors that others used: above a tenth, mistrust the figures.
    pub others_share: Option<f64>,
    /// What the server asked of its bucket, if its metrics were named.
    pub bucket: Option<BucketCost>,
    /// What each class of tenants had of it; none without tenants.
    #[serde(default)]
    pub tenants: Vec<TenantClass>,
}

/// What tenants of one class had of a phase.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TenantClass {
    /// The class's.
    pub name: String,
    /// How many.
    pub tenants: u32,
    /// What was acknowledged to all of them.
    pub written: Moved,
    /// What all of them read.
    pub read: Moved,
    /// Over all of them.
    pub produce: Option<Summary>,
    /// Over all of them.
    pub end_to_end: Option<Summary>,
    /// The one with the highest p99 of produce latencies.
    pub worst: Option<Worst>,
}

/// The tenant that had it worst.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worst {
    /// Its name.
    pub tenant: String,
    /// Its own, in ms.
    pub produce_p99: Option<f64>,
    /// Its own, in ms.
    pub end_to_end_p99: Option<f64>,
}

/// Records that were written or read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// How many.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// MiB of values a second.
    pub mib_per_second: f64,
    /// Records a second.
    pub records_per_second: f64,
}

impl Moved {
    pub(crate) fn new(records: u64, bytes: u64, seconds: f64) -> Self {
        let rate = |amount: f64| if seconds > 0.0 { amount / seconds } else { 0.0 };
        let mib_per_second = rate(bytes as f64 / MIB);
        Self { records, bytes, mib_per_second, records_per_second: rate(records as f64) }
    }
}

/// A distribution of latencies, in ms.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the percentiles' own names")]
pub struct Summary {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub p99_99: f64,
    pub max: f64,
    /// Percentiles ever closer to 100, and the latency at each.
    pub curve: Vec<(f64, f64)>,
}

impl Summary {
    pub(crate) fn new(latencies: &Latencies) -> Option<Self> {
        (latencies.count() > 0).then(|| Self {
            count: latencies.count(),
            mean: latencies.mean_ms(),
            p50: latencies.percentile_ms(50.0),
            p90: latencies.percentile_ms(90.0),
            p99: latencies.percentile_ms(99.0),
            p99_9: latencies.percentile_ms(99.9),
            p99_99: latencies.percentile_ms(99.99),
            max: latencies.max_ms(),
            curve: latencies.curve(),
        })
    }
}

/// What processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// User and system time.
    pub cpu_seconds: f64,
    /// The same for each GiB written; none if nothing was.
    pub cpu_seconds_per_gib_written: Option<f64>,
    /// The same for each GiB written or read.
    pub cpu_seconds_per_gib_moved: Option<f64>,
    /// The most resident memory at any second of the phase.
    pub rss_max_bytes: u64,
    /// The most since the process started.
    pub rss_peak_bytes: u64,
}

impl Cost {
    pub(crate) fn new(cpu_seconds: f64, written: &Moved, read: &Moved) -> Self {
        let per_gib = |bytes: u64| (bytes > 0).then(|| cpu_seconds * GIB / bytes as f64);
        Self {
            cpu_seconds,
            cpu_seconds_per_gib_written: per_gib(written.bytes),
            cpu_seconds_per_gib_moved: per_gib(written.bytes + read.bytes),
            rss_max_bytes: 0,
            rss_peak_bytes: 0,
        }
    }
}

/// What the server asked of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketCost {
    /// In all.
    pub total: Bucket,
    /// For each GiB that was written in the phase: puts, gets, lists; none if nothing was.
    pub per_gib_written: Option<[f64; 3]>,
    /// Bytes written to the bucket for each byte of values.
    pub written_ratio: Option<f64>,
}

impl BucketCost {
    pub(crate) fn new(total: Bucket, written: &Moved) -> Self {
        let is_any = written.bytes > 0;
        let per_gib = |count: u64| count as f64 * GIB / written.bytes as f64;
        Self {
            total,
            per_gib_written: is_any
                .then(|| [per_gib(total.puts), per_gib(total.gets), per_gib(total.lists)]),
            written_ratio: is_any.then(|| total.written_bytes as f64 / written.bytes as f64),
        }
    }
}

/// About a second of a run. Latencies are of what was answered in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its end, in seconds from the run's start.
    pub at: f64,
    /// Its length.
    pub seconds: f64,
    /// The index of its phase.
    pub phase: usize,
    /// Records acknowledged, and bytes of their values.
    pub written: (u64, u64),
    /// Records read, and bytes of their values.
    pub read: (u64, u64),
    /// p50, p99 and the largest of produce latencies; none without any.
    pub produce: Option<[f64; 3]>,
    /// The same from due to read.
    pub end_to_end: Option<[f64; 3]>,
    /// Requests repeated.
    pub retries: u64,
    /// Transactions committed and aborted.
    pub transactions: (u64, u64),
    /// CPU-seconds of the server.
    pub server_cpu: Option<f64>,
    /// Its resident memory, and the most that it ever was.
    pub server_rss: Option<(u64, u64)>,
    /// CPU-seconds of the store that the server uses.
    pub store_cpu: Option<f64>,
    /// Its resident memory, and the most that it ever was.
    pub store_rss: Option<(u64, u64)>,
    /// CPU-seconds of this process.
    pub client_cpu: f64,
    /// Its resident memory, and the most that it ever was.
    pub client_rss: (u64, u64),
    /// CPU-seconds of everybody on the machine.
    pub machine_cpu: Option<f64>,
}

/// What a search has found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// The highest rate that held, in records a second; none if not even the first one did.
    pub records_per_second: Option<f64>,
    /// The same in MiB a second.
    pub mib_per_second: Option<f64>,
    /// What was tried, in order.
    pub trials: Vec<Trial>,
}

/// One rate that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trial {
    /// Records a second.
    pub records_per_second: f64,
    /// p99 of produce latencies.
    pub p99: f64,
    /// Whether p99 was within the bound and everything due was acknowledged in time.
    pub held: bool,
    /// The index of its phase.
    pub phase: usize,
}

/// The proof that nothing was lost, changed, doubled or reordered, or what speaks against it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Verification {
    /// Whether consumers have read to the end of every partition. If not, losses are not proved.
    pub complete: bool,
    /// Records that were acknowledged (in transactions: and committed), which every group had to read.
    pub acknowledged: u64,
    /// Consumer groups that have read them.
    pub groups: u32,
    /// What was found wrong, over all groups.
    pub findings: Findings,
    /// Records that were due and not made, because the load was ended or the next trial began.
    pub abandoned: u64,
    /// Records that were sent and never acknowledged.
    pub unsettled: u64,
    /// Agents that were lost, and with them the knowledge of what their producers had acknowledged and their
    /// consumers read.
    #[serde(default)]
    pub lost_agents: usize,
}

impl Verification {
    /// Whether the run proves what it should: nobody reading proves nothing, and is no failure.
    pub fn is_passed(&self) -> bool {
        self.groups == 0 || (self.complete && self.lost_agents == 0 && !self.is_wrong())
    }

    /// Whether something speaks against it, however much was looked at.
    pub fn is_wrong(&self) -> bool {
        !self.findings.is_clean() || self.unsettled > 0
    }
}

impl Report {
    /// Reads a report.
    ///
    /// # Errors
    /// Words for the user: it is no report, or one of another version.
    pub fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
        }
        let Schema { schema } = serde_json::from_str(text)
            .map_err(|_| "this is no report of a load test".to_owned())?;
        if schema != SCHEMA {
            return Err(format!("this report is of kind {schema}, this program reads {SCHEMA}"));
        }
        serde_json::from_str(text).map_err(|error| format!("this report is damaged: {error}"))
    }

    /// The phases that count.
    pub fn measured(&self) -> impl Iterator<Item = &Phase> {
        self.phases.iter().filter(|phase| phase.measured)
    }
}

impl Phase {
    pub(crate) fn latencies(&mut self, kinds: &Kinds) {
        self.produce = Summary::new(&kinds.produce);
        self.end_to_end = Summary::new(&kinds.end_to_end);
        self.lateness = Summary::new(&kinds.lateness);
        self.commit = Summary::new(&kinds.commit);
    }
}
