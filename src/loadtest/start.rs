//! `sluice loadtest run --start`: a server for this one run, as a child of this process, which faults can be injected
//! on. Sluice, with the user's configuration or without one, or whatever a command starts.
//!
//! What always holds: the server is ended when the run is; data in a temporary directory are removed, unless the run
//! has found something.

use std::ffi::OsString;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use sluice_loadtest::fault::{Kind, Proxy, Victim};
use sluice_loadtest::peers::Home;
use sluice_loadtest::servers::kinds::{self, Place, Store, Volumes};
use sluice_loadtest::servers::{Program, Ready, Server, free_port};
use sluice_loadtest::workload::Workload;
use sluice_model::Entropy;

use crate::cli;
use crate::seams::SystemEntropy;

/// A JVM on a busy machine takes its time.
const READY_LIMIT: Duration = Duration::from_secs(90);
const END_LIMIT: Duration = Duration::from_secs(30);

/// What is started.
#[derive(Clone, Debug)]
pub(super) enum Start {
    /// Sluice, with this configuration file.
    Sluice(Option<PathBuf>),
    /// Apache Kafka, as `sluice loadtest peers` starts it.
    Kafka,
    /// A program with its arguments.
    Command(Vec<String>),
}

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
        match kind {
            "sluice" if rest.is_empty() => Ok(Self::Sluice(None)),
            "sluice" => Ok(Self::Sluice(Some(rest.into()))),
            "kafka" if rest.is_empty() => Ok(Self::Kafka),
            "command" if !words.is_empty() => Ok(Self::Command(words)),
            _ => Err("write sluice, sluice:CONFIG, kafka or command:PROGRAM ARGUMENTS".to_owned()),
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct StartArgs {
    /// Start the server, and inject the workload's faults on it: sluice, sluice:CONFIG, kafka, or
    /// "command:PROGRAM ARGUMENTS", which listens at --bootstrap
    #[arg(long, value_name = "SERVER", conflicts_with = "server_pid")]
    start: Option<Start>,
    /// Data directory of the server that is started [default: a temporary one, removed if nothing is found]
    #[arg(long, value_name = "DIR", requires = "start")]
    data: Option<PathBuf>,
    /// Another program than this one for --start sluice
    #[arg(long, value_name = "FILE", requires = "start")]
    program: Option<PathBuf>,
    /// Start an S3 server, too, and keep the bucket of --start sluice there
    #[arg(long, requires = "start")]
    store: bool,
}

/// A server that was started for a run.
pub(super) struct Started {
    pub(super) victim: Victim,
    /// `host:port` for clients.
    pub(super) bootstrap: String,
    /// Its metrics, where they are known.
    pub(super) metrics: Option<String>,
    /// The S3 server behind it, if one was started.
    pub(super) store: Option<Server>,
    /// What is removed in the end.
    temporary: Option<PathBuf>,
}

impl StartArgs {
    /// Starts what was asked for, if anything was.
    pub(super) async fn start(
        &self,
        workload: &Workload,
        bootstrap: &str,
    ) -> anyhow::Result<Option<Started>> {
        let Some(start) = &self.start else { return Ok(None) };
        if self.store && !matches!(start, Start::Sluice(_)) {
            bail!("--store goes with --start sluice");
        }
        let (data, temporary) = match &self.data {
            Some(data) => (data.clone(), None),
            None => {
                let name = format!("sluice-loadtest-{:016x}", SystemEntropy.random_u64());
                let directory = std::env::temp_dir().join(name);
                (directory.join("data"), Some(directory))
            }
        };
        let started = self.start_on(start, &data, workload, bootstrap).await;
        if let (Err(_), Some(temporary)) = (&started, &temporary) {
            // The failure has the end of the log in it. What cannot be removed is a temporary file of the system.
            let _ = std::fs::remove_dir_all(temporary);
        }
        Ok(Some(Started { temporary, ..started? }))
    }

    /// What reports call the server, if the user does not say.
    pub(super) fn label(&self) -> &'static str {
        match self.start {
            Some(Start::Kafka) => "kafka",
            Some(Start::Sluice(_) | Start::Command(_)) | None => "sluice",
        }
    }

    async fn start_on(
        &self,
        start: &Start,
        data: &Path,
        workload: &Workload,
        bootstrap: &str,
    ) -> anyhow::Result<Started> {
        std::fs::create_dir_all(data).with_context(|| format!("making {}", data.display()))?;
        let data = data.canonicalize().with_context(|| data.display().to_string())?;
        let mut log = data.clone().into_os_string();
        log.push(".log");
        let plan = Plan { data: &data, log: log.into(), workload, store: self.store };
        match start {
            Start::Kafka => plan.kafka().await,
            Start::Sluice(config) => plan.sluice(config.as_deref(), self.program.as_deref()).await,
            Start::Command(words) => plan.command(words, bootstrap).await,
        }
    }
}

/// How a server is to be started.
struct Plan<'a> {
    data: &'a Path,
    log: PathBuf,
    workload: &'a Workload,
    /// With an S3 server.
    store: bool,
}

impl Plan<'_> {
    async fn sluice(
        self,
        config: Option<&Path>,
        program: Option<&Path>,
    ) -> anyhow::Result<Started> {
        let executable = match program {
            Some(program) => program.to_owned(),
            None => std::env::current_exe().context("finding this program")?,
        };
        let (place, http) = (self.place("sluice")?, free_port(&SystemEntropy)?);
        let store = self.store().await?;
        let behind = store.as_ref().map(|(store, _)| store);
        let mut program = kinds::sluice(&executable, &place, &Volumes::File, behind, http);
        // The user's settings and credentials are for the server that he starts.
        program.hidden.clear();
        program.log = self.log.clone();
        if let Some(config) = config {
            let config = config.canonicalize().with_context(|| config.display().to_string())?;
            program.args.extend(["--config".into(), config.into()]);
        }
        let proxy = self.proxy(config, behind).await?;
        let bucket = proxy.map(|(proxy, endpoint)| {
            program.environment.push(("SLUICE_BUCKET_ENDPOINT".to_owned(), endpoint));
            proxy
        });
        let server = Server::start(program).await?;
        let victim = Victim { server, data: self.data.to_owned(), bucket };
        let metrics = Some(format!("http://127.0.0.1:{http}/metrics"));
        let store = store.map(|(_, server)| server);
        Ok(Started { victim, bootstrap: place.address(), metrics, store, temporary: None })
    }

    /// Where a server lives, and on which port.
    fn place(&self, name: &str) -> anyhow::Result<Place> {
        let (data, logs) = (self.data.to_owned(), self.data.to_owned());
        Ok(Place { name: name.to_owned(), data, logs, port: free_port(&SystemEntropy)? })
    }

    /// The S3 server, if there is to be one. Its data and log lie beside those of the server.
    async fn store(&self) -> anyhow::Result<Option<(Store, Server)>> {
        if !self.store {
            return Ok(None);
        }
        let executable = Home::of_user().store();
        if !executable.exists() {
            bail!("the S3 server is not installed: run loadtest/peers/install s3");
        }
        let beside = |ending: &str| {
            let mut path = self.data.as_os_str().to_owned();
            path.push(ending);
            PathBuf::from(path)
        };
        let place = Place { data: beside(".s3"), ..self.place("s3")? };
        let made = Store::new(&executable, &place, &SystemEntropy);
        let (store, mut program) = made.context("preparing the S3 server")?;
        program.log = beside(".s3.log");
        let server = Server::start(program).await?;
        Ok(Some((store, server)))
    }

    async fn kafka(self) -> anyhow::Result<Started> {
        let jars = Home::of_user().kafka_jars();
        if !jars.exists() {
            bail!("Apache Kafka is not installed: run loadtest/peers/install kafka");
        }
        let (place, controller) = (self.place("kafka")?, free_port(&SystemEntropy)?);
        let program = kinds::kafka(&jars, &place, controller, &[], &SystemEntropy).await;
        let mut program = program.map_err(anyhow::Error::msg)?;
        program.log = self.log.clone();
        let server = Server::start(program).await?;
        let victim = Victim { server, data: self.data.to_owned(), bucket: None };
        let bootstrap = place.address();
        Ok(Started { victim, bootstrap, metrics: None, store: None, temporary: None })
    }

    /// A proxy before the bucket that the configuration names, with the endpoint that leads through it; none where
    /// nothing will be cut.
    async fn proxy(
        &self,
        config: Option<&Path>,
        store: Option<&Store>,
    ) -> anyhow::Result<Option<(Proxy, String)>> {
        if self.workload.faults.iter().all(|fault| fault.kind != Kind::CutBucket) {
            return Ok(None);
        }
        let endpoint = match store {
            Some(store) => Some(store.endpoint()),
            None => {
                let environment = std::env::vars_os().collect();
                let loaded = cli::load(config.map(Path::to_path_buf), environment, Vec::new());
                let bucket = loaded.map_err(anyhow::Error::msg)?.config.bucket;
                bucket.endpoint.map(|endpoint| endpoint.0)
            }
        };
        let endpoint = endpoint.as_ref().and_then(|endpoint| endpoint.strip_prefix("http://"));
        let Some(endpoint) = endpoint else {
            bail!(
                "cut-bucket needs a bucket that is reached over plain HTTP: add --store, or write --start sluice:CONFIG with bucket.endpoint = \"http://...\" in it"
            );
        };
        let (host, path) = endpoint.split_once('/').unwrap_or((endpoint, ""));
        let upstream = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(&SystemEntropy)?));
        let proxy = Proxy::start(upstream, listen).await.context("starting a proxy")?;
        let endpoint = format!("http://{}/{path}", proxy.address());
        Ok(Some((proxy, endpoint.trim_end_matches('/').to_owned())))
    }

    async fn command(self, words: &[String], bootstrap: &str) -> anyhow::Result<Started> {
        let (executable, args) = words.split_first().context("a command has a program")?;
        // It runs in its data directory: a path is meant from here.
        let executable = match executable.contains('/') {
            true => Path::new(executable).canonicalize().with_context(|| executable.clone())?,
            false => executable.into(),
        };
        let program = Program {
            name: "the server".to_owned(),
            executable,
            args: args.iter().map(OsString::from).collect(),
            environment: Vec::new(),
            hidden: Vec::new(),
            directory: self.data.to_owned(),
            log: self.log,
            ready: Ready::Kafka(bootstrap.to_owned()),
            ready_limit: READY_LIMIT,
        };
        let server = Server::start(program).await?;
        let victim = Victim { server, data: self.data.to_owned(), bucket: None };
        let (bootstrap, metrics, store) = (bootstrap.to_owned(), None, None);
        Ok(Started { victim, bootstrap, metrics, store, temporary: None })
    }
}

impl Started {
    /// Ends the server. Data in a temporary directory go, unless they are evidence.
    pub(super) async fn end(mut self, is_evidence: bool) {
        self.victim.server.terminate(END_LIMIT).await;
        if let Some(mut store) = self.store {
            store.terminate(END_LIMIT).await;
        }
        let Some(temporary) = self.temporary else { return };
        if is_evidence {
            let shown = temporary.display();
            let _ = writeln!(std::io::stderr(), "the server's data and log are in {shown}");
        } else {
            // What cannot be removed is a temporary file of the system.
            let _ = std::fs::remove_dir_all(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_call_the_server_what_was_started() {
        let label = |start: Option<&str>| {
            let start = start.map(|start| start.parse().expect("a server"));
            StartArgs { start, data: None, program: None, store: false }.label()
        };
        assert_eq!(label(Some("kafka")), "kafka");
        assert_eq!((label(Some("sluice:a.toml")), label(None)), ("sluice", "sluice"));
    }
}
