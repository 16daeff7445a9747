//! The directory of a comparison: its plan, and what each turn has given.
//!
//! ```text
//! plan.json                                  the plan, when it began, and on what machine
//! runs/ROUND-SERVER-PARTITIONS.json          how the server started, and what failed: a [`Record`]
//! runs/ROUND-SERVER-PARTITIONS-WORKLOAD.json the report of a run
//! logs/                                      what servers have said
//! ```
//!
//! A file is there whole or not at all: it is written beside and renamed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sluice_model::Clock;

use super::plan::{Plan, Turn};
use super::{Error, report};
use crate::process;
use crate::report::{Machine, Report as RunReport};

/// How a turn went, but for the reports of its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// From 0.
    pub(super) round: u32,
    /// The server's name.
    pub(super) peer: String,
    pub(super) partitions: u32,
    /// From making the process to its first answer.
    pub(super) ready_ms: Option<f64>,
    /// From making the process to the first record acknowledged.
    pub(super) first_ack_ms: Option<f64>,
    /// What was run, for those who want to do the same.
    pub(super) command: Option<String>,
    /// How long the turn took: the next one of this server will take about as long.
    #[serde(default)]
    pub(super) seconds: f64,
    /// Why the server did not play, or not to the end.
    pub(super) failure: Option<String>,
    /// Workloads that gave no report, and why.
    pub(super) failed_runs: BTreeMap<String, String>,
    /// Workloads that were not begun, and why.
    #[serde(default)]
    pub(super) left_out: BTreeMap<String, String>,
}

/// What one turn has given.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) record: Record,
    pub(super) reports: BTreeMap<String, RunReport>,
}

/// When a comparison began, with what, and where.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    started_ms: i64,
    program: String,
    machine: Machine,
    plan: Plan,
}

#[derive(Debug)]
pub(super) struct Results {
    directory: PathBuf,
    begun: Begun,
}

impl Results {
    /// Opens the results of a plan, which are there already if it is continued.
    pub(super) fn open(
        directory: &Path,
        plan: &Plan,
        is_continued: bool,
        clock: &dyn Clock,
    ) -> Result<Self, Error> {
        let path = directory.join("plan.json");
        let runs = directory.join("runs");
        std::fs::create_dir_all(&runs).map_err(|error| failed(&runs, &error))?;
        if path.exists() {
            if !is_continued {
                return Err(Error::Taken(directory.to_owned()));
            }
            let begun: Begun = read(&path)?;
            if begun.plan != *plan {
                return Err(Error::OtherPlan(directory.to_owned()));
            }
            return Ok(Self { directory: directory.to_owned(), begun });
        }
        let (cpus, memory_bytes, model, kernel) = process::describe();
        let begun = Begun {
            started_ms: clock.wall_ms(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            machine: Machine { cpus, memory_bytes, model, kernel },
            plan: plan.clone(),
        };
        write(&path, &begun)?;
        Ok(Self { directory: directory.to_owned(), begun })
    }

    /// Where servers' logs go.
    pub(super) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// How a turn went, if it has been played.
    pub(super) fn played(&self, turn: &Turn) -> Option<Record> {
        let path = self.record(turn.round, &turn.peer.name, turn.partitions);
        read(&path).ok()
    }

    /// The report of a run, if it is there.
    pub(super) fn run_of(&self, turn: &Turn, workload: &str) -> Option<RunReport> {
        read(&self.run(turn, workload)).ok()
    }

    /// The workloads of a turn that have no report yet.
    pub(super) fn missing<'a>(&self, plan: &'a Plan, turn: &Turn) -> Vec<&'a str> {
        let names = plan.workloads.iter().map(|(name, _)| name.as_str());
        names.filter(|name| !self.run(turn, name).exists()).collect()
    }

    /// Keeps the report of a run.
    pub(super) fn keep_run(
        &self,
        turn: &Turn,
        workload: &str,
        report: &RunReport,
    ) -> Result<(), Error> {
        write(&self.run(turn, workload), report)
    }

    /// Keeps how a turn went. Where it was begun anew, failures of before are over, but not what was measured.
    pub(super) fn keep(&self, record: &Record) -> Result<(), Error> {
        let path = self.record(record.round, &record.peer, record.partitions);
        let before: Option<Record> = if path.exists() { Some(read(&path)?) } else { None };
        let mut record = record.clone();
        if let Some(before) = before {
            record.seconds += before.seconds;
            record.ready_ms = record.ready_ms.or(before.ready_ms);
            record.first_ack_ms = record.first_ack_ms.or(before.first_ack_ms);
        }
        write(&path, &record)
    }

    /// All that is there.
    pub(super) fn report(&self, plan: &Plan) -> Result<report::Report, Error> {
        let mut outcomes = Vec::new();
        for turn in plan.turns() {
            let path = self.record(turn.round, &turn.peer.name, turn.partitions);
            let mut record = Record {
                round: turn.round,
                peer: turn.peer.name.clone(),
                partitions: turn.partitions,
                ..Record::default()
            };
            if path.exists() {
                record = read(&path)?;
            }
            let mut reports = BTreeMap::new();
            for (name, _) in &plan.workloads {
                let path = self.run(&turn, name);
                if path.exists() {
                    reports.insert(name.clone(), read(&path)?);
                }
            }
            if path.exists() || !reports.is_empty() {
                outcomes.push(Outcome { record, reports });
            }
        }
        let Begun { started_ms, program, machine, .. } = &self.begun;
        Ok(report::Report::new(*started_ms, program.clone(), machine.clone(), plan, &outcomes))
    }

    fn record(&self, round: u32, peer: &str, partitions: u32) -> PathBuf {
        self.directory.join(format!("runs/{}-{peer}-{partitions}.json", round + 1))
    }

    fn run(&self, turn: &Turn, workload: &str) -> PathBuf {
        let Turn { round, peer, partitions } = turn;
        let name = format!("runs/{}-{}-{partitions}-{workload}.json", round + 1, peer.name);
        self.directory.join(name)
    }
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::File { path: path.to_owned(), reason: reason.to_string() }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| failed(path, &error))?;
    serde_json::from_str(&text).map_err(|error| failed(path, &error))
}

fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| failed(path, &error))?;
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).map_err(|error| failed(&beside, &error))?;
    std::fs::rename(&beside, path).map_err(|error| failed(path, &error))
}
