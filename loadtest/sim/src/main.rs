//! `sluice-sim`: runs seeds, many at once, each in a process of its own, and says what was found.

use clap::Parser;

mod fleet;

/// Runs the storage engine in a simulation.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many at once; as many as there are processors if 0.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Stop at the first failure.
    #[arg(long)]
    fail_fast: bool,
    /// Run this one seed, in this process, and print what came of it.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: print the history as it happens.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// With --seed: the log of the code under test as well, to standard error, at this level.
    #[arg(long, requires = "seed")]
    log: Option<tracing_subscriber::filter::LevelFilter>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let Some(level) = arguments.log {
        let log = tracing_subscriber::fmt().with_max_level(level).without_time();
        log.with_writer(std::io::stderr).init();
    }
    match arguments.seed {
        Some(seed) => fleet::one(seed, arguments.trace),
        None => fleet::many(&fleet::Plan {
            from: arguments.from,
            seeds: arguments.seeds,
            jobs: arguments.jobs,
            fail_fast: arguments.fail_fast,
        }),
    }
}
