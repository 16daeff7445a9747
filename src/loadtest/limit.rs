//! `sluice loadtest limit`: the same program as a server that does next to nothing, in a process of its own so that
//! its CPU is told apart, loaded as fast as it goes.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use clap::Args;
use sluice_loadtest::amount::Time;
use sluice_loadtest::{Options, Workload, summary};

use super::{START_LIMIT, measured};
use crate::tools::{self, Verdict};

/// Producers write to a server that forgets; consumers read what was kept.
const WORKLOADS: [(&str, usize); 2] = [("limit-produce", 0), ("limit-fetch", 1 << 30)];

#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// How long producers are measured
    #[arg(long, value_name = "TIME", default_value = "10s")]
    duration: Time,
}

/// A process that ends with this value.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) async fn run(args: &LimitArgs) -> anyhow::Result<Verdict> {
    for (name, keep_bytes) in WORKLOADS {
        let text = Workload::built_in(name).context("it comes with the program")?;
        let mut workload = Workload::parse(text)?;
        if workload.backlog.is_none() {
            workload.duration = args.duration;
        }
        let server = start(keep_bytes).await?;
        let options = Options {
            name: name.to_owned(),
            workload,
            bootstrap: server.address.clone(),
            label: "null server".to_owned(),
            server_pids: vec![server.child.id()],
            store_pids: Vec::new(),
            server_metrics: None,
            seed: None,
            keep_topic: false,
            accounts: Vec::new(),
        };
        tools::print(&summary::text(&measured(None, None, options).await?));
        tools::print("");
    }
    Ok(Verdict::Clean)
}

/// Starts the server and waits until it listens.
async fn start(keep_bytes: usize) -> anyhow::Result<Server> {
    let program = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(program)
        .args(["loadtest", "null-server", "--keep-bytes", &keep_bytes.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting the null server")?;
    let stdout = child.stdout.take().context("its output was asked for")?;
    let mut server = Server { child, address: String::new() };
    let line = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map(|_| line)
    });
    let line = tokio::time::timeout(START_LIMIT, line).await.context("the null server hangs")??;
    server.address = line?.trim().to_owned();
    anyhow::ensure!(!server.address.is_empty(), "the null server has not started");
    Ok(server)
}
