//! Who does the work of a run: producers and consumers, led through its phases by `run.rs`, which does not know
//! whether they are here or in other processes.
//!
//! Everything that a crew has done comes to its [`Load`]: counts, latencies, what is outstanding. Here that is at
//! once, from agents with each [`Gauge::gather`]. Instants are those of the load's timeline; what a crew is told to
//! do at one instant must be said [`Crew::ahead`] of it.

mod hands;
mod tenants;

pub(crate) use hands::Hands;
pub(crate) use tenants::{Books, Tenants};

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::CallError;
use crate::fleet::{Fleet, Roster};
use crate::load::Load;
use crate::pace::Segment;
use crate::process::Usage;
use crate::report::{AgentSummary, TenantClass};
use crate::stamp::Payloads;
use crate::verify::{Findings, Written};

/// Producers and consumers, wherever they are.
pub(crate) enum Crew {
    /// In this process.
    Here(Hands),
    /// In this process, by tenant.
    Tenants(Tenants),
    /// In agents.
    Fleet(Fleet),
}

/// What a crew has done and used, for whoever watches it.
#[derive(Clone)]
pub(crate) enum Gauge {
    Here,
    Tenants(Arc<Books>),
    Fleet(Arc<Roster>),
}

/// Why a crew cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A client could not begin.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A part of the harness has panicked, or ended before its time.
    #[error("{0}")]
    Bug(String),
    /// Not all agents have come.
    #[error("{there} of {expected} agents have come to {address} in time")]
    Missing { there: usize, expected: usize, address: SocketAddr },
}

/// Which producers and consumers one process has: of each kind those whose index leaves this remainder. What a
/// client writes depends on its index alone, never on how many processes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Share {
    pub(crate) part: u32,
    /// More than `part`.
    pub(crate) parts: u32,
}

impl Share {
    /// All of them.
    pub(crate) const ALL: Self = Self { part: 0, parts: 1 };

    pub(crate) fn has(self, index: u32) -> bool {
        index % self.parts == self.part
    }

    /// Those of `count` that are in it.
    pub(crate) fn of(self, count: u32) -> impl Iterator<Item = u32> + Clone {
        (self.part..count).step_by(self.parts as usize)
    }
}

/// What producers have done, at their end.
#[derive(Debug, Default)]
pub(crate) struct Produced {
    pub(crate) written: Vec<Written>,
    /// Records that were due and abandoned.
    pub(crate) abandoned: u64,
    /// Records that were made and not acknowledged.
    pub(crate) unsettled: u64,
    /// Why the first that has ended before its time did.
    pub(crate) failure: Option<String>,
}

impl Produced {
    pub(crate) fn add(&mut self, other: Self) {
        self.written.extend(other.written);
        self.abandoned = self.abandoned.saturating_add(other.abandoned);
        self.unsettled = self.unsettled.saturating_add(other.unsettled);
        // The first one is the reason of the others.
        self.failure = self.failure.take().or(other.failure);
    }
}

impl Gauge {
    /// Brings what was done until that instant to the load. Comes back when it is there.
    pub(crate) async fn gather(&self, at_us: u64) {
        match self {
            Self::Here => {}
            Self::Tenants(books) => books.gather(),
            Self::Fleet(roster) => roster.gather(at_us).await,
        }
    }

    /// What this process and all agents have used, up to the last [`Self::gather`].
    pub(crate) fn usage(&self) -> Usage {
        let own = Usage::of(&[std::process::id()]).unwrap_or_default();
        match self {
            Self::Here | Self::Tenants(_) => own,
            Self::Fleet(roster) => own + roster.usage(),
        }
    }

    /// How many agents are gone that had something to do.
    pub(crate) fn lost_agents(&self) -> usize {
        match self {
            Self::Here | Self::Tenants(_) => 0,
            Self::Fleet(roster) => roster.lost(),
        }
    }

    /// How many consumers are gone with them.
    pub(crate) fn lost_consumers(&self) -> usize {
        match self {
            Self::Here | Self::Tenants(_) => 0,
            Self::Fleet(roster) => roster.lost_consumers(),
        }
    }

    /// What the report says of each agent.
    pub(crate) fn agents(&self, start_us: u64) -> Vec<AgentSummary> {
        match self {
            Self::Here | Self::Tenants(_) => Vec::new(),
            Self::Fleet(roster) => roster.summaries(start_us),
        }
    }

    /// What each class of tenants has done in a phase that took so long.
    pub(crate) fn classes(&self, phase: usize, seconds: f64) -> Vec<TenantClass> {
        match self {
            Self::Tenants(books) => books.classes(phase, seconds),
            Self::Here | Self::Fleet(_) => Vec::new(),
        }
    }

    /// How long to wait until it is worth while to [`Self::gather`] again.
    pub(crate) fn pause(&self) -> Duration {
        match self {
            Self::Here => Duration::from_millis(10),
            // Each time costs a look at every tenant, or a message to every agent.
            Self::Tenants(_) | Self::Fleet(_) => Duration::from_millis(100),
        }
    }

    /// Whether all of that was used on this machine.
    pub(crate) fn is_here(&self) -> bool {
        match self {
            Self::Here | Self::Tenants(_) => true,
            Self::Fleet(roster) => roster.is_here(),
        }
    }
}

impl Crew {
    pub(crate) fn gauge(&self) -> Gauge {
        match self {
            Self::Here(_) => Gauge::Here,
            Self::Tenants(tenants) => Gauge::Tenants(Arc::clone(tenants.books())),
            Self::Fleet(fleet) => Gauge::Fleet(Arc::clone(fleet.roster())),
        }
    }

    /// How long before its instant something must be said.
    pub(crate) fn ahead(&self) -> Duration {
        match self {
            Self::Here(_) | Self::Tenants(_) => Duration::ZERO,
            Self::Fleet(fleet) => fleet.ahead(),
        }
    }

    /// Starts producers, all of which then follow the pace.
    pub(crate) async fn start_producers(&mut self) -> Result<(), Failure> {
        match self {
            Self::Here(hands) => {
                let payloads = Payloads::of(hands.load());
                hands.start_producers(payloads).await
            }
            Self::Tenants(tenants) => tenants.start_producers().await,
            Self::Fleet(fleet) => {
                fleet.start_producers().await;
                Ok(())
            }
        }
    }

    /// Starts consumers, which read from the beginning of their partitions.
    pub(crate) fn start_consumers(&mut self) {
        match self {
            Self::Here(hands) => hands.start_consumers(),
            Self::Tenants(tenants) => tenants.start_consumers(),
            Self::Fleet(fleet) => fleet.start_consumers(),
        }
    }

    /// How many consumers there are.
    pub(crate) fn consumers(&self) -> usize {
        match self {
            Self::Here(hands) => hands.consumers(),
            Self::Tenants(tenants) => tenants.consumers(),
            Self::Fleet(fleet) => fleet.consumers(),
        }
    }

    /// A phase begins: what is due from then on belongs to it.
    pub(crate) fn begin_phase(&self, at_us: u64) {
        match self {
            Self::Here(hands) => hands.begin_phase(at_us),
            Self::Tenants(tenants) => tenants.begin_phase(at_us),
            Self::Fleet(fleet) => fleet.begin_phase(at_us),
        }
    }

    /// Another rate over all producers, in a stage of this name.
    pub(crate) fn set(&self, segment: Segment, stage: &str) {
        match self {
            Self::Here(hands) => hands.set(segment),
            Self::Tenants(tenants) => tenants.set(segment, stage),
            Self::Fleet(fleet) => fleet.set(segment),
        }
    }

    /// Tells consumers how far they shall come; those that have are counted in the load.
    pub(crate) fn aim(&self, ends: Arc<Vec<i64>>) {
        match self {
            Self::Here(hands) => hands.aim(ends),
            // Tenants have no ends in common, and no backlog.
            Self::Tenants(_) => {}
            Self::Fleet(fleet) => fleet.aim(&ends),
        }
    }

    /// Comes back when a client has ended, which it does by itself only after a failure, or when nobody is left;
    /// with the reason. What was done is kept. May be dropped at any time.
    pub(crate) async fn failed(&mut self) -> Result<String, Failure> {
        match self {
            Self::Here(hands) => hands.failed().await,
            Self::Tenants(tenants) => tenants.failed().await,
            Self::Fleet(fleet) => Ok(fleet.failed().await),
        }
    }

    /// Ends producers when all that was due is acknowledged, or after `limit`.
    pub(crate) async fn end_producers(&mut self, limit: Duration) -> Result<Produced, Failure> {
        match self {
            Self::Here(hands) => hands.end_producers(limit).await,
            Self::Tenants(tenants) => tenants.end_producers(limit).await,
            Self::Fleet(fleet) => Ok(fleet.end_producers(limit).await),
        }
    }

    /// Ends consumers at the ends of all that was written, or after `limit`. Gives all failures.
    pub(crate) async fn end_consumers(
        &mut self,
        load: &Load,
        limit: Duration,
    ) -> Result<Vec<String>, Failure> {
        match self {
            Self::Here(hands) => hands.end_consumers_at_last(limit).await,
            Self::Tenants(tenants) => tenants.end_consumers(limit).await,
            Self::Fleet(fleet) => {
                let (ends, unknown) = load.last_ends().await;
                let failure = fleet.end_consumers(ends, limit).await;
                Ok(unknown.into_iter().chain(failure).collect())
            }
        }
    }

    /// Holds what consumers have read against what was written. Whether all that are there have come to the end.
    pub(crate) async fn verify(&mut self, written: &[Written]) -> (bool, Findings) {
        match self {
            Self::Here(hands) => hands.verify(written),
            Self::Tenants(tenants) => tenants.verify(),
            Self::Fleet(fleet) => fleet.verify(written).await,
        }
    }

    /// Lets everybody go, whatever is under way.
    pub(crate) async fn dismiss(&mut self) {
        match self {
            Self::Here(hands) => hands.abandon(),
            Self::Tenants(tenants) => tenants.abandon(),
            Self::Fleet(fleet) => fleet.dismiss().await,
        }
    }
}
