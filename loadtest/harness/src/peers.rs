//! Comparing servers: `sluice loadtest peers`. Starts each of them on this machine, one after the other, loads all in
//! the same way, and makes one report of what was measured.
//!
//! A comparison is a directory: `plan.json`, and in `runs` what each turn has given as soon as it is there, so that one
//! that was interrupted can be continued, and its report be made at any time. A turn is one server on empty data that
//! plays the plan's workloads at one number of partitions; turns are interleaved over rounds.
//!
//! What always holds: one server runs at a time; its data, and those of its S3 server, are removed when its turn
//! ends; what a server is given and what is asked of it is in the report. A server that fails costs its own figures only.

mod figures;
mod forecast;
mod goals;
mod home;
pub mod markdown;
pub mod page;
mod plan;
mod report;
mod results;
mod turn;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use sluice_model::{Clock, Entropy};
use tokio::sync::watch;

pub use home::Home;
pub use plan::{Invalid, Kind, Peer, Plan, WORKLOADS, Workloads};
pub use report::{Report, SCHEMA};

use crate::Progress;
use forecast::Forecast;
use plan::Turn;
use results::Results;
use turn::Stage;

/// Where a comparison is run, and by what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The directory of results.
    pub out: PathBuf,
    /// The directory that each server's data are made in, and removed from.
    pub data: PathBuf,
    /// The same for the S3 server's, if they lie elsewhere.
    pub store_data: Option<PathBuf>,
    /// What is installed.
    pub home: Home,
    /// The executable of Sluice.
    pub sluice: PathBuf,
    /// The plan; when a comparison is continued it must be the same.
    pub plan: Plan,
}

/// What happens, for those who watch.
#[derive(Clone, Debug)]
pub enum Event {
    /// Words about what begins, or has failed.
    Said(String),
    /// About a second of a run.
    Progress(Box<Progress>),
}

/// Whom to tell.
pub type Tell = Arc<dyn Fn(&Event) + Send + Sync>;

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the comparison could not be read or written.
    #[error("{}: {reason}", .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// There is another comparison in the directory.
    #[error("{} holds a comparison already: continue it with --continue, or name another directory", .0.display())]
    Taken(PathBuf),
    /// Another comparison has its data there.
    #[error("another comparison is under way in {}: wait for it, or name another directory with --data", .0.display())]
    Busy(PathBuf),
    /// The comparison that should be continued has another plan.
    #[error("the comparison in {} has another plan: give the same options, or name another directory", .0.display())]
    OtherPlan(PathBuf),
}

/// Plays what of the plan is not there yet, until it is done or `interrupt` turns true. `is_continued`: results may be there.
///
/// # Errors
/// When results cannot be kept, or are those of another plan. What servers do wrong is in the report.
pub async fn compare(
    options: &Options,
    is_continued: bool,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
    interrupt: watch::Receiver<bool>,
    tell: Tell,
) -> Result<Report, Error> {
    let results = Results::open(&options.out, &options.plan, is_continued, clock)?;
    let _alone = lock(&options.data)?;
    let turns = options.plan.turns();
    let is_left = |turn: &&Turn| !results.missing(&options.plan, turn).is_empty();
    let left: Vec<&Turn> = turns.iter().filter(is_left).collect();
    let mut forecast = Forecast::new(turns.iter().filter_map(|turn| results.played(turn)));
    for (index, turn) in left.iter().enumerate() {
        if *interrupt.borrow() {
            break;
        }
        let left = &left[index..];
        let seconds: f64 = left.iter().map(|turn| forecast.seconds(&turn.peer.name)).sum();
        let done = turns.len() - left.len();
        let words = forecast::words(done, turns.len(), left, seconds, clock.wall_ms());
        tell(&Event::Said(words));
        let missing = results.missing(&options.plan, turn);
        let stage = Stage { options, clock, entropy, interrupt: &interrupt, tell: &tell };
        let record = stage.play(turn, &missing, &results).await;
        if !*interrupt.borrow() {
            results.keep(&record)?;
            forecast.learn(&record);
        }
    }
    results.report(&options.plan)
}

/// Makes the directory of data, and keeps others out of it as long as the file is open.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join("lock");
    let failed =
        |error: std::io::Error| Error::File { path: path.clone(), reason: error.to_string() };
    std::fs::create_dir_all(directory).map_err(failed)?;
    let file = File::create(&path).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => Err(Error::Busy(directory.to_owned())),
    }
}
