//! `sluice loadtest peers`: which servers are compared, where, and the files of the report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use sluice_loadtest::amount::Rate;
use sluice_loadtest::peers::{
    self, Event, Home, Kind, Options, Peer, Plan, Report, Workloads, markdown, page,
};

use super::{show, write};
use crate::seams::{SystemClock, SystemEntropy};
use crate::tools::{self, Verdict};

/// How often all is played when nobody says so: the least that shows how far runs lie apart.
const ROUNDS: u32 = 3;
const PARTITIONS: [u32; 2] = [3, 100];

#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// Where results are kept: plan, runs, logs, report.json, report.html, report.md
    #[arg(long, value_name = "DIR", default_value = "sluice-peers")]
    out: PathBuf,
    /// Where servers keep their data while they run: the disk that is compared. A new directory below it for each
    #[arg(long, value_name = "DIR", default_value = "sluice-peers/data")]
    data: PathBuf,
    /// Another place for the data of the S3 server, such as another disk: a real one does not write on the disk of those
    /// who use it
    #[arg(long, value_name = "DIR", conflicts_with = "no_store")]
    store_data: Option<PathBuf>,
    /// What loadtest/peers/install has installed
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// Another executable of Sluice than this program
    #[arg(long, value_name = "FILE")]
    sluice: Option<PathBuf>,
    /// Only these: kafka, kafka-flush, tansu, sluice-file, sluice-block, sluice-object, and names of --also
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// A server that is there already; may be repeated
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = Peer::other)]
    also: Vec<Peer>,
    /// Only these: produce, tail, catch-up, max
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    workloads: Vec<String>,
    /// How often everything is played (3; with --quick 1)
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Numbers of partitions (3,100; with --quick 3)
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    partitions: Vec<u32>,
    /// Another rate than 80MiB/s; while somebody catches up a quarter of it
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Sluice's bucket in a directory instead of the S3 server; without those that need that
    #[arg(long)]
    no_store: bool,
    /// A look in a few minutes: short runs, whose figures are rough
    #[arg(long)]
    quick: bool,
    /// Goes on with the comparison in --out, or makes its report anew
    #[arg(long = "continue")]
    is_continued: bool,
}

pub(super) async fn run(args: PeersArgs) -> anyhow::Result<Verdict> {
    let home = args.home.clone().map_or_else(Home::of_user, Home::new);
    let peers = chosen(&args, &home)?;
    let (rounds, partitions) =
        if args.quick { (1, &PARTITIONS[..1]) } else { (ROUNDS, &PARTITIONS[..]) };
    let partitions =
        if args.partitions.is_empty() { partitions.to_vec() } else { args.partitions.clone() };
    let workloads =
        Workloads { names: args.workloads.clone(), rate: args.rate, is_quick: args.quick };
    let rounds = args.rounds.unwrap_or(rounds);
    let mut plan = Plan::new(peers, rounds, partitions, &workloads, !args.no_store)?;
    plan.store_apart = args.store_data.is_some();
    let sluice = match &args.sluice {
        Some(sluice) => sluice.clone(),
        None => std::env::current_exe().context("finding this program")?,
    };
    let (out, data) = (args.out.clone(), args.data.clone());
    let store_data = args.store_data;
    let options = Options { out: out.clone(), data, store_data, home, sluice, plan };
    let interrupt = super::interrupted();
    let tell = Arc::new(tell);
    let report =
        peers::compare(&options, args.is_continued, &SystemClock, &SystemEntropy, interrupt, tell);
    let report = report.await?;
    keep(&out, &report)?;
    let (played, planned) = report.turns;
    if played < planned {
        say(&format!("{played} of {planned} turns are there: go on with --continue"));
    }
    Ok(if report.is_whole() { Verdict::Clean } else { Verdict::Findings })
}

/// The servers that are asked for and can be started here. What is missing is told.
fn chosen(args: &PeersArgs, home: &Home) -> anyhow::Result<Vec<Peer>> {
    let all = Kind::STARTED.map(Peer::started).into_iter().chain(args.also.iter().cloned());
    let all: Vec<Peer> = all.collect();
    if let Some(unknown) = args.only.iter().find(|name| all.iter().all(|peer| peer.name != **name))
    {
        let names: Vec<&str> = all.iter().map(|peer| peer.name.as_str()).collect();
        bail!("there is no server {unknown}: write some of {}", names.join(", "));
    }
    let is_asked = |peer: &Peer| args.only.is_empty() || args.only.contains(&peer.name);
    let mut peers = Vec::new();
    for peer in all.into_iter().filter(is_asked) {
        match home.lacks(peer.kind, !args.no_store) {
            None => peers.push(peer),
            Some(lack) if args.only.is_empty() => say(&format!("without {}: {lack}", peer.name)),
            Some(lack) => bail!("{}: {lack}", peer.name),
        }
    }
    Ok(peers)
}

fn keep(out: &Path, report: &Report) -> anyhow::Result<()> {
    let json = serde_json::to_string_pretty(report).context("writing the report")?;
    write(&out.join("report.json"), &json)?;
    write(&out.join("report.html"), &page::report(report)?)?;
    let text = markdown::text(report);
    write(&out.join("report.md"), &text)?;
    tools::print(&text);
    Ok(())
}

fn tell(event: &Event) {
    match event {
        Event::Said(words) => say(words),
        Event::Progress(progress) => show(progress, super::is_terminal()),
    }
}

fn say(words: &str) {
    use std::io::Write;
    let clear = if super::is_terminal() { "\r\x1b[K" } else { "" };
    let _ = writeln!(std::io::stderr().lock(), "{clear}{words}");
}
