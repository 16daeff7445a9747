//! One seed in this process, or many in processes of their own; progress, and the sum of what happened.
//!
//! A process that runs one seed prints `seed hash events violation`, then `kind=count` for all kinds, in one
//! line of text that the parent adds up. Clocks stand still in these processes, so nothing here measures.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, bail};
use sluice_sim::Summary;

/// What must have happened in any hundred seeds: else the simulation finds nothing because it does
/// nothing.
const MUST_HAPPEN: &[&str] = &[
    "ack",
    "fetch",
    "commit",
    "crash",
    "crash-after-ack",
    "power-loss",
    "two-owners",
    "hand-over",
    "lost",
    "lost-one",
    "claimed-away",
    "release",
    "take-back",
    "partition",
    "hold",
    "bucket-503",
    "bucket-500",
    "bucket-lost-answer",
    "bucket-late",
    "bucket-slow",
    "bucket-silent",
    "bucket-wrong-bytes",
    "put-exists",
    "disk-slow",
    "disk-errors",
    "clock-jump",
    "bit-rot",
    "open-damaged",
    "delete-records",
    "delete-topic",
    "move",
    "moved",
    "move-given-up",
    "delete",
    "audit",
];
/// From this many seeds on all of that is demanded.
const ENOUGH_SEEDS: u64 = 100;

pub(crate) struct Plan {
    pub(crate) from: u64,
    pub(crate) seeds: u64,
    pub(crate) jobs: usize,
    pub(crate) fail_fast: bool,
}

/// Runs a seed here.
#[expect(clippy::print_stdout, reason = "a command's answer")]
pub(crate) fn one(seed: u64, trace: bool) -> anyhow::Result<()> {
    let Summary { hash, events, counts, tail, violation } = sluice_sim::run(seed, trace);
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{kind}={count}")).collect();
    println!("{seed} {hash:016x} {events} {}", counts.join(","));
    let Some(violation) = violation else {
        return Ok(());
    };
    if !trace {
        for line in tail {
            println!("{line}");
        }
    }
    bail!("seed {seed}: {violation}");
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    events: u64,
    counts: BTreeMap<String, u64>,
    failed: Vec<u64>,
}

impl Sum {
    /// Adds the line of one seed.
    fn add(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ');
        let (_seed, _hash) = (words.next()?, words.next()?);
        self.events += words.next()?.parse::<u64>().ok()?;
        self.seeds += 1;
        for count in words.next()?.split(',') {
            let (kind, count) = count.split_once('=')?;
            *self.counts.entry(kind.to_owned()).or_default() += count.parse::<u64>().ok()?;
        }
        Some(())
    }
}

/// Runs seeds in processes, several at a time.
#[expect(clippy::print_stdout, reason = "a command's answer")]
pub(crate) fn many(plan: &Plan) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let jobs = match plan.jobs {
        0 => thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let next = AtomicU64::new(plan.from);
    let end = plan.from + plan.seeds;
    let stop = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let child = Command::new(&program)
                .args(["--seed", &seed.to_string()])
                .stdin(Stdio::null())
                .output();
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            let (right, out, err) = match child {
                Ok(out) => (out.status.success(), out.stdout, out.stderr),
                Err(error) => (false, Vec::new(), error.to_string().into_bytes()),
            };
            let out = String::from_utf8_lossy(&out);
            let added = out.lines().next().and_then(|line| sum.add(line));
            if !right || added.is_none() {
                println!("seed {seed} failed; again with: sluice-sim --seed {seed} --trace");
                println!("{out}{}", String::from_utf8_lossy(&err));
                sum.failed.push(seed);
                stop.fetch_or(plan.fail_fast, Ordering::Relaxed);
            }
            if sum.seeds.is_multiple_of(100) {
                println!("{} seeds, {} events, {} failed", sum.seeds, sum.events, sum.failed.len());
                // Progress that cannot be shown is no reason to stop.
                let _ = std::io::stdout().flush();
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(work);
        }
    });
    let sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(&sum)
}

#[expect(clippy::print_stdout, reason = "a command's answer")]
fn report(sum: &Sum) -> anyhow::Result<()> {
    for (kind, count) in &sum.counts {
        println!("{count:>10} {kind}");
    }
    println!("{} seeds, {} events", sum.seeds, sum.events);
    let failed = sum.failed.len() as u64;
    println!("{} passed, {failed} failed", sum.seeds.saturating_sub(failed));
    if failed > 0 {
        bail!("seeds that failed: {:?}", sum.failed);
    }
    let never = MUST_HAPPEN.iter().filter(|kind| !sum.counts.contains_key(**kind));
    let never: Vec<_> = never.collect();
    if sum.seeds >= ENOUGH_SEEDS && !never.is_empty() {
        bail!("what never happened cannot have been survived: {never:?}");
    }
    Ok(())
}
