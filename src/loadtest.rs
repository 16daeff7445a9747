//! `sluice loadtest`: the command line of the load harness, its progress line and its files. What it does lies
//! in `loadtest/harness`.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use sluice_loadtest::amount::{Rate, Time};
use sluice_loadtest::fault::{Kind, Victim};
use sluice_loadtest::servers::Server;
use sluice_loadtest::workload::{Client, Tenants};
use sluice_loadtest::{
    Account, Coordinator, NullServer, Options, Progress, Report, Workload, repeat, summary,
};
use tokio::sync::watch;

use crate::seams::{SystemClock, SystemEntropy};
use crate::tools::{self, Verdict};

mod fleet;
mod limit;
mod peers;
mod start;

pub(crate) const EXAMPLES: &str = "\
Examples:
  sluice loadtest list                               the workloads that come with the program
  sluice loadtest run steady --bootstrap 127.0.0.1:9092
  sluice loadtest run my.toml --bootstrap 127.0.0.1:9092 --server-pid $(pidof sluice) \\
      --server-metrics http://127.0.0.1:8080/metrics --json steady.json --html steady.html
  sluice loadtest run chaos --start sluice --store   with faults, on a server of its own
  sluice loadtest run steady --bootstrap 10.0.0.5:9092 --listen 10.0.0.9:7070 --expect 3 --token-file token
  sluice loadtest agent --coordinator 10.0.0.9:7070 --token-file token      on each of three machines
  sluice loadtest compare before.json after.json
  sluice loadtest peers --quick                      beside Kafka and Tansu, if they are installed
  sluice loadtest limit                              what the generator itself can do

Any Kafka server of version 2.4 or later can be loaded. Exit codes: 0 success, 1 the verifier found
something wrong, 2 there is no result, 3 a client has failed: the report says what was until then.";

#[derive(Debug, Subcommand)]
pub(crate) enum LoadtestCommand {
    /// Run a workload against a server, measure and verify
    Run(Box<RunArgs>),
    /// Load from this machine as a coordinator elsewhere wants, until its run is over
    Agent(fleet::AgentArgs),
    /// Print the workloads that come with the program
    List,
    /// Print a workload's file, to begin one's own from
    Show {
        /// The workload's name
        name: String,
    },
    /// Compare two reports
    Compare(CompareArgs),
    /// Compare Sluice with Apache Kafka, Tansu and others, started here one after the other
    Peers(Box<peers::PeersArgs>),
    /// Measure what the generator itself can do, against a server that does next to nothing
    Limit(limit::LimitArgs),
    /// Be the server that does next to nothing, until killed
    #[command(hide = true)]
    NullServer(NullServerArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// A workload's name, or its file
    workload: String,
    /// Where the server is; several addresses with commas
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    #[command(flatten)]
    start: start::StartArgs,
    /// A process of the server on this machine, whose CPU and memory are measured; may be repeated
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// A process of the store that the server uses, told apart in the same way; may be repeated
    #[arg(long, value_name = "PID")]
    store_pid: Vec<u32>,
    /// The server's metrics, for what it asks of its bucket
    #[arg(long, value_name = "URL")]
    server_metrics: Option<String>,
    /// What reports call the server [default: sluice, or kafka with --start kafka]
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// Where the report is written
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the report is written as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Another duration than the workload's
    #[arg(long, value_name = "TIME")]
    duration: Option<Time>,
    /// Another time before it is measured than the workload's
    #[arg(long, value_name = "TIME")]
    warm_up: Option<Time>,
    /// Another rate than the workload's: 80MiB/s, 5000/s or max
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Another number of partitions than the workload's
    #[arg(long, value_name = "N")]
    partitions: Option<u32>,
    /// Whose producers and consumers: own, or librdkafka if this program was built with it
    #[arg(long, value_name = "NAME", value_parser = Client::parse)]
    client: Option<Client>,
    /// Which kinds of the workload's faults are injected, with commas, or none [default: all]
    #[arg(long, value_name = "KINDS")]
    faults: Option<FaultKinds>,
    /// Repeats the choices of another run: its report tells the seed
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the topic there
    #[arg(long)]
    keep_topic: bool,
    /// Tenants that the server knows, with their credentials for SASL/PLAIN: TOML, [[tenant]] with name, username
    /// and password
    #[arg(long, value_name = "FILE")]
    tenants: Option<PathBuf>,
    #[command(flatten)]
    fleet: fleet::FleetArgs,
    /// Runs it so often, and says which figures are too noisy to be believed; files get the run's number
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "listen", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
}

/// Kinds of faults as they are written with commas.
#[derive(Clone, Debug)]
struct FaultKinds(Vec<Kind>);

impl FromStr for FaultKinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(Vec::new()));
        }
        let known = || Kind::ALL.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
        let kind = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
        let kinds = text.split(',').map(|name| {
            kind(name)
                .ok_or_else(|| format!("there is no fault {name}: write none, or of {}", known()))
        });
        kinds.collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The report that the other is held against
    first: PathBuf,
    /// The other one
    second: PathBuf,
    /// Where the comparison is written as a page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct NullServerArgs {
    /// Where it listens; its address is the first line on stdout
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Bytes of records that are kept for consumers
    #[arg(long, default_value_t = 1 << 30)]
    keep_bytes: usize,
}

/// Does what the command line asks for.
pub(crate) fn run(command: LoadtestCommand) -> ExitCode {
    tools::run(async move {
        match command {
            LoadtestCommand::Run(args) => Box::pin(run_workload(*args)).await,
            LoadtestCommand::Agent(args) => fleet::agent(args).await,
            LoadtestCommand::List => {
                tools::print(&list());
                Ok(Verdict::Clean)
            }
            LoadtestCommand::Show { name } => {
                let text = Workload::built_in(&name).with_context(|| unknown(&name))?;
                tools::print(text);
                Ok(Verdict::Clean)
            }
            LoadtestCommand::Compare(args) => compare(&args),
            LoadtestCommand::Peers(args) => Box::pin(peers::run(*args)).await,
            LoadtestCommand::Limit(args) => limit::run(&args).await,
            LoadtestCommand::NullServer(args) => null_server(&args).await,
        }
    })
}

fn list() -> String {
    let line = |name: &str| {
        let workload = Workload::built_in(name).and_then(|text| Workload::parse(text).ok());
        let description = workload.map(|workload| workload.description).unwrap_or_default();
        format!("{name:<18}{description}\n")
    };
    Workload::names().map(line).collect()
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = Workload::names().collect();
    format!("there is no workload {name}: write a file's path, or one of {}", known.join(", "))
}

async fn run_workload(args: RunArgs) -> anyhow::Result<Verdict> {
    let (name, mut workload) = workload(&args.workload)?;
    if let Some(duration) = args.duration {
        workload.duration = duration;
    }
    if let Some(warm_up) = args.warm_up {
        workload.warm_up = warm_up;
    }
    if args.rate.is_some() {
        workload.produce.rate = args.rate;
    }
    if let Some(client) = args.client {
        workload.client = client;
    }
    if let Some(partitions) = args.partitions {
        workload.topic.partitions = partitions;
    }
    if let Some(FaultKinds(kinds)) = &args.faults {
        workload.faults.retain(|fault| kinds.contains(&fault.kind));
    }
    workload.check()?;
    let accounts = match &args.tenants {
        None => Vec::new(),
        Some(path) => accounts(path, &mut workload)?,
    };
    let options = Options {
        name,
        workload,
        bootstrap: args.bootstrap,
        label: args.label.unwrap_or_else(|| args.start.label().to_owned()),
        server_pids: args.server_pid,
        store_pids: args.store_pid,
        server_metrics: args.server_metrics,
        seed: args.seed,
        keep_topic: args.keep_topic,
        accounts,
    };
    let mut reports: Vec<Report> = Vec::new();
    for number in 1..=args.repeat {
        let report = Box::pin(one_run(&args.start, &args.fleet, options.clone())).await?;
        tools::print(&summary::text(&report));
        let file =
            |path: &Path| if args.repeat == 1 { path.into() } else { numbered(path, number) };
        if let Some(path) = &args.json {
            let text = serde_json::to_string_pretty(&report).context("writing the report")?;
            write(&file(path), &text)?;
        }
        if let Some(path) = &args.html {
            write(&file(path), &sluice_loadtest::page::report(&report)?)?;
        }
        let is_over = report.interrupted || is_cut_short(&report);
        reports.push(report);
        if is_over {
            break;
        }
    }
    if reports.len() > 1 {
        tools::print(&format!("\n{}", repeat::text(&reports)));
    }
    // Only the last one can be cut short.
    let verdict = |report: &Report| match is_cut_short(report) {
        true if report.verification.findings.is_clean() => Verdict::Incomplete,
        false if report.verification.is_passed() => Verdict::Clean,
        true | false => Verdict::Findings,
    };
    let worst = reports.iter().map(verdict).find(|verdict| *verdict != Verdict::Clean);
    Ok(worst.unwrap_or(Verdict::Clean))
}

/// Whether a run has ended before its time, and its proof may not be complete for that.
fn is_cut_short(report: &Report) -> bool {
    report.failed.is_some() || report.verification.lost_agents > 0 || !report.gave_up.is_empty()
}

/// One run, against a server of its own if one is to be started.
async fn one_run(
    start: &start::StartArgs,
    fleet: &fleet::FleetArgs,
    mut options: Options,
) -> anyhow::Result<Report> {
    let mut started = start.start(&options.workload, &options.bootstrap).await?;
    if let Some(started) = &started {
        options.bootstrap.clone_from(&started.bootstrap);
        options.server_pids = started.victim.server.pids();
        options.store_pids.extend(started.store.iter().flat_map(Server::pids));
        options.server_metrics = options.server_metrics.or_else(|| started.metrics.clone());
    }
    let victim = started.as_mut().map(|started| &mut started.victim);
    let outcome = fleet::measured(victim, options, fleet).await;
    if let Some(started) = started {
        let is_clean = |report: &Report| report.failed.is_none() && report.verification.is_passed();
        started.end(!outcome.as_ref().is_ok_and(is_clean)).await;
    }
    outcome
}

/// `steady.json` of the second run: `steady-2.json`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut name = format!("{stem}-{number}");
    if let Some(extension) = path.extension() {
        name.push('.');
        name.push_str(&extension.to_string_lossy());
    }
    path.with_file_name(name)
}

/// The tenants in a file. A workload that says nothing of tenants has these.
fn accounts(path: &Path, workload: &mut Workload) -> anyhow::Result<Vec<Account>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let accounts = Account::parse(&text).map_err(|wrong| anyhow::anyhow!("{shown}: {wrong}"))?;
    workload.tenants.get_or_insert_with(|| Tenants {
        count: u32::try_from(accounts.len()).ok(),
        classes: Vec::new(),
    });
    workload.check()?;
    Ok(accounts)
}

/// Runs a workload with a progress line; Ctrl-C ends it early, with a report.
async fn measured(
    victim: Option<&mut Victim>,
    coordinator: Option<Coordinator>,
    options: Options,
) -> anyhow::Result<Report> {
    let (is_terminal, interrupt) = (is_terminal(), interrupted());
    let show = move |progress: &Progress| show(progress, is_terminal);
    let run = sluice_loadtest::run_on(
        victim,
        coordinator,
        options,
        &SystemClock,
        &SystemEntropy,
        interrupt,
        show,
    );
    let report = run.await;
    if is_terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    Ok(report?)
}

/// Turns true at Ctrl-C.
fn interrupted() -> watch::Receiver<bool> {
    let (interrupted, interrupt) = watch::channel(false);
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.send_replace(true);
        }
        // The run still looks at it.
        interrupted.closed().await;
    });
    interrupt
}

fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// A workload by its name or its file, with the name.
fn workload(given: &str) -> anyhow::Result<(String, Workload)> {
    if let Some(text) = Workload::built_in(given) {
        return Ok((given.to_owned(), Workload::parse(text)?));
    }
    let path = Path::new(given);
    if !path.exists() {
        bail!("{}", unknown(given));
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {given}"))?;
    let workload = Workload::parse(&text).with_context(|| given.to_owned())?;
    let name = path.file_stem().map_or_else(|| given.into(), |name| name.to_string_lossy());
    Ok((name.into_owned(), workload))
}

/// On a terminal one line that changes; elsewhere a line each ten seconds.
fn show(progress: &Progress, is_terminal: bool) {
    const MIB: f64 = (1u64 << 20) as f64;
    let row = &progress.row;
    if !is_terminal && !(row.at as u64).is_multiple_of(10) {
        return;
    }
    let rate = |bytes: u64| bytes as f64 / MIB / row.seconds.max(0.001);
    let p99 = |latencies: Option<[f64; 3]>| {
        latencies.map_or_else(|| "-".to_owned(), |[_, p99, _]| format!("{p99:.1} ms"))
    };
    let line = format!(
        "{:>5.0} s  {}: {:.1} MiB/s written, p99 {}; {:.1} MiB/s read, p99 {}",
        row.at,
        progress.phase,
        rate(row.written.1),
        p99(row.produce),
        rate(row.read.1),
        p99(row.end_to_end),
    );
    let mut stderr = std::io::stderr().lock();
    let _ = if is_terminal {
        write!(stderr, "\r\x1b[K{line}").and_then(|()| stderr.flush())
    } else {
        writeln!(stderr, "{line}")
    };
}

fn compare(args: &CompareArgs) -> anyhow::Result<Verdict> {
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Report::parse(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
    };
    let (mut first, mut second) = (read(&args.first)?, read(&args.second)?);
    if first.label == second.label {
        // Two runs of one server: told apart by their files.
        for (report, path) in [(&mut first, &args.first), (&mut second, &args.second)] {
            report.label = path.display().to_string();
        }
    }
    tools::print(&summary::comparison(&first, &second));
    if let Some(path) = &args.html {
        write(path, &sluice_loadtest::page::comparison(&first, &second)?)?;
    }
    Ok(Verdict::Clean)
}

async fn null_server(args: &NullServerArgs) -> anyhow::Result<Verdict> {
    let server = NullServer::bind(args.listen, args.keep_bytes).await;
    let server = server.with_context(|| format!("cannot listen on {}", args.listen))?;
    tools::print(&server.address().to_string());
    server.serve().await;
    Ok(Verdict::Clean)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How long a child may take to listen.
const START_LIMIT: Duration = Duration::from_secs(10);
