//! `sluice loadtest agent`, and runs whose load comes from agents: started here as processes of their own, or waited for.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use sluice_loadtest::amount::Time;
use sluice_loadtest::fault::Victim;
use sluice_loadtest::{
    AgentOptions, Coordinator, Driver, LocalProcesses, Options, Report, Token, agent as be_agent,
};

use crate::seams::SystemEntropy;
use crate::tools::Verdict;

/// Agents of this machine are there after this time.
const LOCAL_LIMIT: Duration = Duration::from_secs(30);
const MAX_AGENTS: u32 = 1000;

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Where the coordinator listens
    #[arg(long, value_name = "HOST:PORT")]
    coordinator: String,
    /// A file with the token that the coordinator has, too; or else it is in SLUICE_LOADTEST_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Where the load comes from, if not from the process itself.
#[derive(Debug, Args)]
pub(super) struct FleetArgs {
    /// Load from so many processes of this machine
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_AGENTS)), conflicts_with_all = ["listen", "expect"])]
    agents: Option<u32>,
    /// Load from agents that come to this address
    #[arg(long, value_name = "ADDR", requires = "expect")]
    listen: Option<SocketAddr>,
    /// How many agents must come before the load begins
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_AGENTS)), requires = "listen")]
    expect: Option<u32>,
    /// How long they are waited for
    #[arg(long, value_name = "TIME", default_value = "10m", requires = "listen")]
    expect_within: Time,
    /// A file with the token that agents have, too; or else it is in SLUICE_LOADTEST_TOKEN
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
}

/// Runs a workload with the load from where it was asked for.
pub(super) async fn measured(
    victim: Option<&mut Victim>,
    options: Options,
    args: &FleetArgs,
) -> anyhow::Result<Report> {
    match (args.agents, args.listen, args.expect) {
        (Some(agents), ..) => {
            let mut driver = LocalProcesses::new(std::env::current_exe()?);
            let outcome = driven(victim, options, &mut driver, agents as usize).await;
            driver.stop().await;
            outcome
        }
        (None, Some(listen), Some(expected)) => {
            let token = Token::find(args.token_file.as_deref())?;
            let limit = args.expect_within.0;
            let coordinator = bind(listen, token, expected as usize, limit).await?;
            let address = coordinator.address();
            let mut stderr = std::io::stderr();
            let _ = writeln!(stderr, "waiting for {expected} agents on {address}");
            super::measured(victim, Some(coordinator), options).await
        }
        (None, ..) => super::measured(victim, None, options).await,
    }
}

/// Runs a workload with agents that a driver of this machine starts.
async fn driven(
    victim: Option<&mut Victim>,
    options: Options,
    driver: &mut impl Driver,
    agents: usize,
) -> anyhow::Result<Report> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let token = Token::random(&SystemEntropy);
    let coordinator = bind(listen, token.clone(), agents, LOCAL_LIMIT).await?;
    let started = driver.start(agents, coordinator.address(), &token).await;
    started.context("starting agents")?;
    super::measured(victim, Some(coordinator), options).await
}

async fn bind(
    listen: SocketAddr,
    token: Token,
    expected: usize,
    limit: Duration,
) -> anyhow::Result<Coordinator> {
    let coordinator = Coordinator::bind(listen, token, expected, limit).await;
    coordinator.with_context(|| format!("cannot listen on {listen}"))
}

/// Is an agent until the run is over.
pub(super) async fn agent(args: AgentArgs) -> anyhow::Result<Verdict> {
    if !args.coordinator.contains(':') {
        bail!("--coordinator must be a host and a port, as 10.0.0.9:7070");
    }
    let token = Token::find(args.token_file.as_deref())?;
    be_agent(AgentOptions { coordinator: args.coordinator, token }).await?;
    Ok(Verdict::Clean)
}
