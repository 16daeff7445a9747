//! What a comparison gives: a JSON document with a version, described in docs/loadtest.md.

use serde::{Deserialize, Serialize};

use super::figures::{Better, FIGURES};
use super::goals::{self, BASE, Judged};
use super::plan::Plan;
use super::results::Outcome;
use crate::report::Machine;
use crate::spread::Spread;
use crate::summary;

/// The document's kind and version; it changes as that of a run's report does.
pub const SCHEMA: &str = "sluice-loadtest-peers/1";

/// A comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// The version of this program when it began.
    pub program: String,
    /// ms since the Unix epoch.
    pub started_ms: i64,
    /// Where it ran.
    pub machine: Machine,
    /// What was to be played.
    pub plan: Plan,
    /// Turns that were played, and those of the plan.
    pub turns: (usize, usize),
    /// The servers.
    pub peers: Vec<Described>,
    /// What was measured.
    pub figures: Vec<Compared>,
    /// How Sluice stands to its goals; empty if Apache Kafka was not there.
    pub goals: Vec<Judged>,
    /// What went wrong, in words.
    pub failures: Vec<String>,
}

/// A server, for the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Described {
    /// Its name.
    pub name: String,
    /// What it is and how it runs.
    pub what: String,
    /// How it was started the last time, but for what is secret.
    pub command: Option<String>,
}

/// One figure of all servers that have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// What programs call it.
    pub figure: String,
    /// What people call it, with its unit.
    pub title: String,
    /// Which way it is better.
    pub better: Better,
    /// The number of partitions.
    pub partitions: u32,
    /// Each server's.
    pub peers: Vec<Measured>,
}

/// One figure of one server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The server.
    pub peer: String,
    /// Over the rounds.
    #[serde(flatten)]
    pub spread: Spread,
    /// Its median over that of Apache Kafka at its defaults; none without that, or where one is below 0 or that is 0.
    pub ratio: Option<f64>,
}

impl Measured {
    /// The ratio, but for the server that the others are held against.
    pub(super) fn shown_ratio(&self) -> Option<f64> {
        self.ratio.filter(|_| self.peer != BASE)
    }
}

impl Report {
    pub(super) fn new(
        started_ms: i64,
        program: String,
        machine: Machine,
        plan: &Plan,
        outcomes: &[Outcome],
    ) -> Self {
        let figures = compared(plan, outcomes);
        let sluices = plan.peers.iter().filter(|peer| peer.kind.is_sluice());
        let sluices: Vec<&str> = sluices.map(|peer| peer.name.as_str()).collect();
        let goals = goals::judge(&figures, &sluices);
        let peers = plan.peers.iter().map(|peer| {
            let own = outcomes.iter().filter(|outcome| outcome.record.peer == peer.name);
            let command = own.rev().find_map(|outcome| outcome.record.command.clone());
            let mut what = peer.kind.described().to_owned();
            if peer.kind.is_sluice() {
                what.push_str(match (plan.with_store, plan.store_apart) {
                    (true, true) => "; bucket on the S3 server, which has another disk",
                    (true, false) => "; bucket on the S3 server, on the same disk",
                    (false, _) => "; bucket in a directory",
                });
            }
            Described { name: peer.name.clone(), what, command }
        });
        Self {
            schema: SCHEMA.to_owned(),
            program,
            started_ms,
            machine,
            turns: (outcomes.len(), plan.turns().len()),
            peers: peers.collect(),
            figures,
            goals,
            failures: failures(outcomes),
            plan: plan.clone(),
        }
    }

    /// Reads a report.
    ///
    /// # Errors
    /// Words for the user: it is no report, or one of another version.
    pub fn parse(text: &str) -> Result<Self, String> {
        let report: Self = serde_json::from_str(text)
            .map_err(|error| format!("this is no report of a comparison: {error}"))?;
        if report.schema != SCHEMA {
            return Err(format!("this report is of kind {}, not {SCHEMA}", report.schema));
        }
        Ok(report)
    }

    /// Whether all was played, and nothing went wrong.
    pub fn is_whole(&self) -> bool {
        self.failures.is_empty() && self.turns.0 == self.turns.1
    }
}

fn compared(plan: &Plan, outcomes: &[Outcome]) -> Vec<Compared> {
    let mut all = Vec::new();
    for partitions in &plan.partitions {
        for figure in FIGURES {
            let spread = |name: &str| {
                let own = outcomes.iter().filter(|outcome| {
                    outcome.record.peer == name && outcome.record.partitions == *partitions
                });
                Spread::new(own.filter_map(|outcome| figure.of(outcome)).collect())
            };
            // What is measured as a difference may come out below 0, which has no ratio.
            let base = spread(BASE).map(|base| base.median).filter(|median| *median > 0.0);
            let peers = plan.peers.iter().filter_map(|peer| {
                let spread = spread(&peer.name)?;
                let ratio = base.filter(|_| spread.median >= 0.0).map(|base| spread.median / base);
                Some(Measured { peer: peer.name.clone(), spread, ratio })
            });
            let peers: Vec<Measured> = peers.collect();
            if !peers.is_empty() {
                all.push(Compared {
                    figure: figure.key.to_owned(),
                    title: figure.title.to_owned(),
                    better: figure.better,
                    partitions: *partitions,
                    peers,
                });
            }
        }
    }
    all
}

fn failures(outcomes: &[Outcome]) -> Vec<String> {
    let mut all = Vec::new();
    for Outcome { record, reports } in outcomes {
        let turn = format!(
            "{}, {} partitions, round {}",
            record.peer,
            record.partitions,
            record.round + 1
        );
        if let Some(failure) = &record.failure {
            all.push(format!("{turn}: {failure}"));
        }
        for (workload, failure) in &record.failed_runs {
            all.push(format!("{turn}, {workload}: {failure}"));
        }
        for (workload, report) in reports {
            if !report.verification.is_passed() {
                all.push(format!("{turn}, {workload}: {}", summary::verdict(report)));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests;
