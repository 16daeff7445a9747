//! The `sluice` binary: command line, configuration, log, and the wiring of the components.

mod cli;
mod config;
mod logging;
mod up;
mod version;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run(up::run)
}
