//! What coordinator and agents say to each other. Instants are µs of the coordinator's timeline.
//!
//! ```text
//! agent                              coordinator
//!   Hello(token)                ─▶
//!                               ◀─   Welcome, or Refused
//!   Time, at first quickly, then each second   ◀─▶   Time
//!                               ◀─   Assign          ─▶ Ready
//!                               ◀─   StartProducers  ─▶ Started
//!                               ◀─   BeginPhase, Set, StartConsumers, Aim
//!                               ◀─   Report          ─▶ Report         about each second, and at each phase's end
//!                               ◀─   EndProducers    ─▶ Written.., ProducersEnded
//!                               ◀─   EndConsumers    ─▶ ConsumersEnded
//!                               ◀─   Written.., Verify  ─▶ Verified
//!                               ◀─   End
//! ```
//! [`VERSION`] grows with every change: both ends must have the same.

use serde::{Deserialize, Serialize};

use crate::crew::Share;
use crate::load::Plan;
use crate::pace::Segment;
use crate::process::Usage;
use crate::stats::{Kinds, Second};
use crate::verify::{Findings, Written};
use crate::workload::Workload;

/// Of this protocol, and of the stamps in records.
pub(super) const VERSION: u32 = 1;
/// Pairs of producer and partition in one [`ToAgent::Written`] or [`ToCoordinator::Written`].
pub(super) const WRITTEN_CHUNK: usize = 20_000;
/// No process counts more of anything between two reports, or of one producer's records in a partition.
const MOST: u64 = 1 << 40;
/// What of an agent's words is kept.
const MOST_WORDS: usize = 50;

/// From the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ToAgent {
    /// The token is right.
    Welcome,
    /// The agent is not wanted; nothing follows.
    Refused { reason: String },
    /// The answer to [`ToCoordinator::Time`].
    Time { asked_us: u64, us: u64 },
    /// What the agent shall do.
    Assign(Box<Assignment>),
    /// Get producer ids and follow the pace.
    StartProducers,
    /// Read from the beginning.
    StartConsumers,
    /// A phase begins then.
    BeginPhase { at_us: u64 },
    /// Another rate.
    Set(Segment),
    /// How far consumers shall come, by partition.
    Aim { ends: Vec<i64> },
    /// Tell at that instant what has been done since the last time.
    Report { id: u64, at_us: u64 },
    /// End producers when all is acknowledged, or then.
    EndProducers { limit_ms: u64 },
    /// End consumers at these ends, or then; at once if nobody knows the ends.
    EndConsumers { ends: Option<Vec<i64>>, limit_ms: u64 },
    /// What producers everywhere have written: a part of it.
    Written(Vec<Written>),
    /// That was all: hold what was read against it.
    Verify,
    /// The run is over.
    End,
}

/// From an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum ToCoordinator {
    /// The first message.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// The shared secret.
        token: String,
        /// Which machine it runs on, until that starts anew: see [`crate::process::machine_id`].
        machine: String,
    },
    /// What time is it? `asked_us` is the agent's own and comes back.
    Time { asked_us: u64 },
    /// The clock is known and the cluster is met.
    Ready,
    /// All producers have ids.
    Started,
    /// What has been done.
    Report(Box<Report>),
    /// A part of what producers have written.
    Written(Vec<Written>),
    /// That was all.
    ProducersEnded { abandoned: u64, unsettled: u64, failure: Option<String> },
    /// Consumers have come to their end, or given up.
    ConsumersEnded { failure: Option<String> },
    /// What consumers found.
    Verified { is_complete: bool, findings: Findings },
    /// A client has ended before its time; what it has done is kept.
    ClientFailed { reason: String },
    /// The agent can do nothing more.
    Failed { reason: String },
}

/// What an agent shall do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Assignment {
    pub(super) workload: Workload,
    /// Addresses of the server, as the coordinator was given them.
    pub(super) bootstrap: String,
    pub(super) topic: String,
    pub(super) run: u64,
    pub(super) seed: u64,
    pub(super) share: Share,
}

impl Assignment {
    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.share.part >= self.share.parts {
            return Err("its share is none".to_owned());
        }
        self.workload.check().map_err(|wrong| format!("its workload is wrong: {wrong}"))
    }

    pub(super) fn plan(&self) -> Plan {
        let Self { bootstrap, topic, run, seed, .. } = self;
        Plan { bootstrap: bootstrap.clone(), topic: topic.clone(), run: *run, seed: *seed }
    }
}

/// What an agent has done since its last report.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// Of [`ToAgent::Report`].
    pub(super) id: u64,
    pub(super) second: Second,
    /// Latencies by phase.
    pub(super) phases: Vec<(usize, Kinds)>,
    /// Records that are made and not acknowledged now.
    pub(super) outstanding: u64,
    /// Consumers that have passed the goal.
    pub(super) arrived: usize,
    /// Of its process, up to now.
    pub(super) usage: Usage,
    /// How far its clock may be off.
    pub(super) clock_error_us: u64,
    /// The most by which a phase or rate was known too late.
    pub(super) late_us: u64,
    /// What failed and was repeated, in words.
    pub(super) failures: Vec<String>,
}

impl Report {
    /// Whether sums over many reports can be made of it.
    pub(super) fn is_sane(&self) -> bool {
        let usage = &self.usage;
        self.second.counts.is_below(MOST)
            && self.outstanding < MOST
            && self.arrived < MOST as usize
            && (0.0..MOST as f64).contains(&usage.cpu_seconds)
            && usage.rss_bytes < MOST << 10
            && usage.rss_peak_bytes < MOST << 10
            && self.failures.len() <= MOST_WORDS
    }
}

/// Whether an agent with this share may have written this.
pub(super) fn is_sane(written: &Written, share: Share, workload: &Workload) -> bool {
    share.has(written.producer)
        && written.producer < workload.produce.producers
        && written.partition < workload.topic.partitions
        && written.acknowledged <= written.sent
        && written.sent < MOST
}
