//! The `sluice` binary: command line, configuration, log, and the wiring of the components.

mod apis;
mod bucket;
mod catalog_store;
mod cli;
mod cluster;
mod config;
mod loadtest;
mod local_backend;
mod logging;
mod low_priority;
mod seams;
mod tools;
mod up;
mod version;
mod volumes;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(up::run)
}
