//! The command line: what can be asked for, and how it ends. Answers go to stdout, everything else
//! to stderr. Exit code 0 is success, 1 a failure while running, 2 a wrong command line or
//! configuration.

use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::apis;
use crate::config::{self, Config, FILE_VARIABLE, Loaded, Sources};
use crate::{cluster, loadtest, logging, tools, version};

/// The process failed while it ran.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was started.
const WRONG: u8 = 2;

#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    about = "A Kafka-compatible streaming service for many tenants, on shared storage",
    after_help = EXAMPLES,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  sluice up                                       Kafka on 127.0.0.1:9092, data in ./sluice-data
  sluice up --data /var/lib/sluice --config /etc/sluice/sluice.toml
  SLUICE_BUCKET_URL=s3://my-bucket/prod sluice up
  sluice config show                              every value, and where it comes from
  sluice verify --data-dir /var/lib/sluice        is everything there, and whole?

Exit codes: 0 success, 1 failure while running, 2 wrong command line or configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start, and serve until told to end (SIGTERM or Ctrl-C)
    #[command(after_help = UP_EXAMPLES)]
    Up(Overrides),
    /// Serve clients in a cluster, and nothing else: `up` with roles = gateway
    #[command(after_help = ROLE_EXAMPLES)]
    Gateway(Overrides),
    /// Own volumes in a cluster, and nothing else: `up` with roles = writer
    #[command(after_help = ROLE_EXAMPLES)]
    Writer(Overrides),
    /// Look at the configuration without starting
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at a segment in the bucket
    #[command(subcommand)]
    Segment(SegmentCommand),
    /// Look at a write-ahead-log volume
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Check bucket, catalog and volumes against everything that must hold
    #[command(after_help = tools::verify::EXAMPLES)]
    Verify(tools::verify::VerifyArgs),
    /// Make a new data directory from the bucket alone
    #[command(after_help = tools::restore::EXAMPLES)]
    Restore(tools::restore::RestoreArgs),
    /// See and change which node has which volume
    #[command(subcommand, after_help = cluster::EXAMPLES)]
    Cluster(cluster::ClusterCommand),
    /// Load a Kafka server, measure what it gives and costs, and prove that nothing is lost
    #[command(subcommand, after_help = loadtest::EXAMPLES)]
    Loadtest(loadtest::LoadtestCommand),
    /// Print which of Kafka's APIs and versions are served, as Markdown
    Apis,
    /// Print the version and what it was built from
    Version,
}

const UP_EXAMPLES: &str = "\
Examples:
  sluice up
  sluice up --kafka 127.0.0.1:19092 --http 127.0.0.1:18080 --data /tmp/try-sluice
  sluice up --config sluice.toml -v

When clients can connect, one line with the bootstrap address is printed to stdout.
Every key of the configuration is also an environment variable: see `sluice config reference`.";

const ROLE_EXAMPLES: &str = "\
Examples:
  sluice writer --config /etc/sluice/writer.toml
  sluice gateway --config /etc/sluice/gateway.toml --kafka 10.0.0.4:9092

All nodes of a cluster have the same catalog.etcd.endpoints, catalog.etcd.prefix and bucket.url, and each
its own node_id, data_dir and cluster.listen: see docs/operations.md.";

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is right, and if not, all that is wrong
    Check(Overrides),
    /// Print every value and where it comes from, as a file that reads back to the same
    Show(Overrides),
    /// Print what every key means, as Markdown
    Reference,
}

#[derive(Debug, Subcommand)]
enum SegmentCommand {
    /// Print what a segment holds, and whether it is whole. Changes nothing
    #[command(after_help = tools::inspect_segment::EXAMPLES)]
    Inspect(tools::inspect_segment::InspectArgs),
}

#[derive(Debug, Subcommand)]
enum VolumeCommand {
    /// Print a volume's superblocks and frames, and where its log ends. Changes nothing
    #[command(after_help = tools::inspect_volume::EXAMPLES)]
    Inspect(tools::inspect_volume::InspectArgs),
}

/// Flags that go over the file and the environment.
#[derive(Debug, Default, Args)]
struct Overrides {
    /// Configuration file [default: the one that SLUICE_CONFIG names, or none]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory [key: data_dir]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address of the Kafka listener [key: kafka.listen]
    #[arg(long, value_name = "ADDR")]
    kafka: Option<String>,
    /// Address for /livez, /readyz and /metrics [key: http.listen]
    #[arg(long, value_name = "ADDR")]
    http: Option<String>,
    /// What is logged: off, error, warn, info, debug, trace [key: log.level]
    #[arg(long, value_name = "LEVEL", conflicts_with = "verbose")]
    log_level: Option<String>,
    /// Log more of Sluice itself: -v is --log-level info,sluice=debug, -vv trace
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

impl Overrides {
    /// The values given, each with its key and flag.
    fn flags(&self) -> Vec<(&'static str, &'static str, String)> {
        let verbosity = match self.verbose {
            0 => None,
            1 => Some("info,sluice=debug".to_owned()),
            _ => Some("info,sluice=trace".to_owned()),
        };
        [
            ("data_dir", "--data", self.data.clone()),
            ("kafka.listen", "--kafka", self.kafka.clone()),
            ("http.listen", "--http", self.http.clone()),
            ("log.level", "--log-level", self.log_level.clone()),
            ("log.level", "-v", verbosity),
        ]
        .into_iter()
        .filter_map(|(key, flag, value)| Some((key, flag, value?)))
        .collect()
    }

    fn load(&self, environment: Vec<(OsString, OsString)>) -> Result<Loaded, String> {
        load(self.config.clone(), environment, self.flags())
    }
}

/// The configuration from a file (or the one that the environment names), the environment and flags:
/// each a key, the flag and the value.
pub(crate) fn load(
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    flags: Vec<(&'static str, &'static str, String)>,
) -> Result<Loaded, String> {
    let named = environment.iter().find(|(name, _)| name == FILE_VARIABLE);
    let from_variable = named.map(|(_, path)| PathBuf::from(path));
    let path = file.or_else(|| from_variable.filter(|path| path != Path::new("")));
    let file = path.map(read_file).transpose()?;
    config::load(Sources { file, environment, flags }).map_err(|invalid| invalid.to_string())
}

fn read_file(path: PathBuf) -> Result<(PathBuf, String), String> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) => Err(format!("cannot read the configuration {}: {error}", path.display())),
    }
}

/// Does what the command line asks for. `up` runs the process until it is told to end.
pub(crate) fn run<F>(up: impl FnOnce(Config) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" that go to stdout with code 0. A closed pipe is no news.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(WRONG));
        }
    };
    let environment: Vec<_> = std::env::vars_os().collect();
    match cli.command {
        Command::Version => answer(&version::text()),
        Command::Apis => answer(apis::reference().trim_end()),
        Command::Config(ConfigCommand::Reference) => answer(config::reference().trim_end()),
        Command::Config(ConfigCommand::Check(overrides)) => match overrides.load(environment) {
            Ok(_) => answer("the configuration is right"),
            Err(problems) => wrong(&problems),
        },
        Command::Config(ConfigCommand::Show(overrides)) => {
            match overrides.load(environment.clone()) {
                Ok(loaded) => answer(config::show(&loaded, &environment).trim_end()),
                Err(problems) => wrong(&problems),
            }
        }
        Command::Segment(SegmentCommand::Inspect(args)) => {
            tools::run(tools::inspect_segment::run(args))
        }
        Command::Volume(VolumeCommand::Inspect(args)) => {
            tools::run(tools::inspect_volume::run(args))
        }
        Command::Verify(args) => tools::run(tools::verify::run(args)),
        Command::Restore(args) => tools::run(tools::restore::run(args)),
        Command::Cluster(command) => cluster::run(command),
        Command::Loadtest(command) => loadtest::run(command),
        Command::Up(overrides) => serve(&overrides, None, environment, up),
        Command::Gateway(overrides) => serve(&overrides, Some("gateway"), environment, up),
        Command::Writer(overrides) => serve(&overrides, Some("writer"), environment, up),
    }
}

/// Serves as what the configuration says, or as `role`.
fn serve<F>(
    overrides: &Overrides,
    role: Option<&'static str>,
    environment: Vec<(OsString, OsString)>,
    up: impl FnOnce(Config) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    let mut flags = overrides.flags();
    flags.extend(role.map(|role| ("roles", "the command", role.to_owned())));
    match load(overrides.config.clone(), environment, flags) {
        Ok(loaded) => start(loaded.config, up),
        Err(problems) => wrong(&problems),
    }
}

fn start<F>(config: Config, up: impl FnOnce(Config) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    logging::start(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let outcome = runtime.block_on(up(config));
        // Blocking work that hangs (a bucket, a disk) must not keep the process from ending.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "sluice has failed");
            ExitCode::from(FAILED)
        }
    }
}

fn wrong(problems: &str) -> ExitCode {
    for problem in problems.lines() {
        let _ = writeln!(std::io::stderr(), "error: {problem}");
    }
    ExitCode::from(WRONG)
}

/// A reader that has gone away is no failure of ours.
fn answer(text: &(impl Display + ?Sized)) -> ExitCode {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
    ExitCode::SUCCESS
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::{HostPort, LogFilter};

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn overrides(args: &[&str]) -> Overrides {
        match Cli::try_parse_from([&["sluice", "up"], args].concat()).expect("arguments").command {
            Command::Up(overrides) => overrides,
            other => panic!("not up: {other:?}"),
        }
    }

    #[test]
    fn clap_finds_no_fault() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_go_over_the_environment_and_that_over_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s.toml");
        let text = "data_dir = '/file'\n[kafka]\nlisten = '127.0.0.1:1'\nadvertised = 'h:1'\n";
        std::fs::write(&path, text).expect("a file");
        let environment = variables(&[
            ("SLUICE_CONFIG", path.to_str().expect("UTF-8")),
            ("SLUICE_KAFKA_LISTEN", "127.0.0.1:2"),
            ("SLUICE_HTTP_LISTEN", "127.0.0.1:2"),
        ]);
        let given = overrides(&["--kafka", "127.0.0.1:3", "--http", "127.0.0.1:4", "-v"]);
        let config = given.load(environment).expect("right").config;
        assert_eq!(config.data_dir, Path::new("/file"));
        assert_eq!(config.kafka.advertised, Some(HostPort { host: "h".to_owned(), port: 1 }));
        assert_eq!(config.kafka.listen.port(), 3);
        assert_eq!(config.http.listen.port(), 4);
        assert_eq!(config.log.level, LogFilter("info,sluice=debug".to_owned()));
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let problem = overrides(&["--config", "/no/such.toml"]).load(Vec::new()).unwrap_err();
        assert!(problem.starts_with("cannot read the configuration /no/such.toml: "), "{problem}");
    }
}
