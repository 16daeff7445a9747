//! What a comparison gives: a JSON document with a version, described in docs/loadtest.md.

use serde::{Deserialize, Serialize};

use super::figures::{Better, FIGURES};
use super::goals::{self, BASE, Judged};
use super::plan::{Peer, Plan};
use super::results::Outcome;
use crate::report::Machine;
use crate::spread::Spread;
use crate::summary;
use crate::verify::Findings;

/// The document's kind and version; it changes as that of a run's report does.
pub const SCHEMA: &str = "sluice-loadtest-peers/2";

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
    /// What servers could not keep up with, and what others than Sluice do otherwise, in words: no fault of the comparison.
    #[serde(default)]
    pub notes: Vec<String>,
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
        let has_played =
            |peer: &&Peer| outcomes.iter().any(|outcome| outcome.record.peer == peer.name);
        let sluices = plan.peers.iter().filter(|peer| peer.kind.is_sluice()).filter(has_played);
        let sluices: Vec<&str> = sluices.map(|peer| peer.name.as_str()).collect();
        let goals = goals::judge(&figures, &sluices);
        let (notes, failures) = told(plan, outcomes);
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
            notes,
            failures,
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

    /// Each server and number of partitions that goals were set for, in the order of the report.
    pub(super) fn goal_columns(&self) -> Vec<(&str, u32)> {
        let mut columns: Vec<(&str, u32)> = Vec::new();
        for peer in &self.peers {
            for partitions in &self.plan.partitions {
                let column = (peer.name.as_str(), *partitions);
                let is_one = |judged: &Judged| (judged.peer.as_str(), judged.partitions) == column;
                if self.goals.iter().any(is_one) {
                    columns.push(column);
                }
            }
        }
        columns
    }

    /// Each goal, once.
    pub(super) fn goal_rows(&self) -> Vec<&str> {
        let mut rows: Vec<&str> = self.goals.iter().map(|judged| judged.goal.as_str()).collect();
        rows.dedup();
        rows
    }

    /// How a server stands to a goal.
    pub(super) fn judged(&self, goal: &str, (peer, partitions): (&str, u32)) -> Option<&Judged> {
        self.goals.iter().find(|judged| {
            judged.goal == goal && judged.peer == peer && judged.partitions == partitions
        })
    }

    /// Goals that are missed, in words.
    pub(super) fn behind(&self) -> Vec<String> {
        let missed = self.goals.iter().filter(|judged| !judged.is_met);
        let words = missed.map(|judged| {
            let Judged { goal, peer, partitions, .. } = judged;
            let title = self.figures.iter().find(|one| one.figure == judged.figure);
            let title = title.map_or("", |one| one.title.as_str());
            let place = format!("{peer}, {partitions} partitions: {goal}");
            let noise = if judged.too_noisy { "; too noisy" } else { "" };
            match (judged.ratio, judged.medians) {
                (Some(ratio), [Some(own), Some(base)]) => {
                    let (own, base) = (summary::ms(own), summary::ms(base));
                    format!("{place}: x {ratio:.2} ({title}: {own}, Kafka {base}){noise}")
                }
                _ => format!("{place}: not measured ({title})"),
            }
        });
        words.collect()
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

/// What is to be said of turns: notes, and failures.
fn told(plan: &Plan, outcomes: &[Outcome]) -> (Vec<String>, Vec<String>) {
    let (mut notes, mut failures) = (Vec::new(), Vec::new());
    for Outcome { record, reports } in outcomes {
        let turn = format!(
            "{}, {} partitions, round {}",
            record.peer,
            record.partitions,
            record.round + 1
        );
        if let Some(failure) = &record.failure {
            failures.push(format!("{turn}: {failure}"));
        }
        for (workload, failure) in &record.failed_runs {
            failures.push(format!("{turn}, {workload}: {failure}"));
        }
        for (workload, words) in &record.left_out {
            notes.push(format!("{turn}, {workload}: {words}"));
        }
        let is_ours = |peer: &Peer| peer.name == record.peer && peer.kind.is_sluice();
        let is_ours = plan.peers.iter().any(is_ours);
        for (workload, report) in reports {
            let run = format!("{turn}, {workload}");
            for slow in &report.gave_up {
                // The phase is in it.
                notes.push(format!("{run}, {slow}"));
            }
            let proof = &report.verification;
            let found = &proof.findings;
            if proof.is_passed() || (!report.gave_up.is_empty() && found.is_clean()) {
                continue;
            }
            if !is_ours && found.is_understated() {
                notes.push(format!("{run}: {}", understated(found)));
            } else if is_ours {
                failures.push(format!("{run}: {}", summary::verdict(report)));
            } else {
                // Its own fault, and not the comparison's.
                notes.push(format!("{run}: the verifier says {}", summary::verdict(report)));
            }
        }
    }
    (notes, failures)
}

fn understated(found: &Findings) -> String {
    let Findings { unlisted, read_beyond, lost, .. } = found;
    format!(
        "the server says fewer records than it acknowledged: the ends that it tells (ListOffsets) are {unlisted} below what \
         it acknowledged and {read_beyond} below what it gave to read; {lost} beyond them were not read"
    )
}

#[cfg(test)]
mod tests;
